package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// requestStore is what learning of a platform's transactions needs of the store.
type requestStore interface {
	Request(ctx context.Context, id string) (*conversations.PaymentRequest, error)
	Apply(ctx context.Context, contactID string, event conversations.Event, once conversations.Once) (conversations.Applied, error)
	Now() time.Time
}

// moneyNews is what a transaction of a platform told that was not known.
type moneyNews string

// The findings. Every one but the first and the last two is recorded with its
// payment request.
const (
	findingNone      moneyNews = ""
	findingPayment   moneyNews = "payment"    // money came that was held to be not taken, or of unknown outcome
	findingSettled   moneyNews = "settled"    // an operation of ours whose outcome was not known was done
	findingOperation moneyNews = "operation"  // an operation was done elsewhere
	findingNoRequest moneyNews = "no_request" // the reference has our form, and there is no such payment request
	findingAmount    moneyNews = "amount"     // the amount is not the one that is known here, or more than there was: also a second charge
)

var findingKinds = []moneyNews{findingPayment, findingSettled, findingOperation, findingNoRequest, findingAmount}

// reference is what a platform's transaction refers to by our code.
type reference struct {
	requestID string
	attempt   int
	operation string // the id of an operation of ours; then attempt is 0
}

// referenceForm is the code of an attempt, {request}-{n}, or the id of an
// operation, {request}-op{n}.
var referenceForm = regexp.MustCompile(`^(pr_[0-9a-z_-]{1,64})-(op)?([1-9][0-9]{0,3})$`)

// readReference reads a reference; false if it is not one of ours.
func readReference(code string) (reference, bool) {
	m := referenceForm.FindStringSubmatch(code)
	if m == nil {
		return reference{}, false
	}
	if m[2] != "" {
		return reference{requestID: m[1], operation: code}, true
	}
	n, err := strconv.Atoi(m[3])
	return reference{requestID: m[1], attempt: n}, err == nil
}

// errNotAsked is returned when one transaction could not be asked about. Others
// may be.
var errNotAsked = errors.New("the platform could not be asked")

// belonging is where a transaction belongs.
type belonging struct {
	request   *conversations.PaymentRequest
	attempt   *conversations.Attempt
	operation *conversations.Operation // of ours, if the transaction carries its id
}

// transactions finds out where the transactions of a platform belong, and makes
// them known there.
type transactions struct {
	store requestStore
	log   *slog.Logger
}

// locate returns where a reference leads, and false where there is nothing of
// this merchant's. A reference of another merchant is nobody's here.
func (t *transactions) locate(ctx context.Context, merchantID string, ref reference) (belonging, bool, error) {
	r, err := t.store.Request(ctx, ref.requestID)
	if conversations.CodeOf(err) == conversations.CodeNotFound || conversations.CodeOf(err) == conversations.CodeInvalid {
		return belonging{}, false, nil
	}
	if err != nil {
		return belonging{}, false, err
	}
	if r.MerchantID != merchantID {
		return belonging{}, false, nil
	}
	p := belonging{request: r, attempt: r.Attempt(ref.attempt)}
	if ref.operation != "" {
		if p.operation = operationOf(r, ref.operation); p.operation != nil {
			p.attempt = r.Attempt(p.operation.Attempt)
		}
	}
	return p, p.attempt != nil, nil
}

// rootSteps bounds how far a chain of transactions is followed to the payment
// that it began with: a refund acts on a capture, which acts on an
// authorization.
const rootSteps = 3

// origin returns our reference of the payment that a transaction acts on,
// however it was made. seen keeps the transactions met before.
func (t *transactions) origin(ctx context.Context, auditor platforms.Auditor, found platforms.Found, seen *metTransactions) (reference, bool, error) {
	for range rootSteps {
		if ref, ok := readReference(found.Code); ok {
			return ref, true, nil
		}
		if found.Operation != "" {
			full, there, err := details(ctx, auditor, found)
			if err != nil {
				return reference{}, false, err
			}
			if there {
				found = full
				seen.add(full)
			}
		}
		before := found.RootID
		if before == "" || before == found.ID {
			before = found.PaymentID
		}
		if before == "" || before == found.ID {
			return reference{}, false, nil
		}
		next, known := seen.find(before)
		if !known {
			var there bool
			var err error
			if next, there, err = auditor.Transaction(ctx, before); err != nil {
				return reference{}, false, fmt.Errorf("%w about a transaction: %w", errNotAsked, err)
			}
			if !there {
				return reference{}, false, nil
			}
			seen.add(next)
		}
		found = next
	}
	ref, ok := readReference(found.Code)
	return ref, ok, nil
}

// metTransactions are transactions that were met, so that none is asked for
// twice.
type metTransactions struct {
	now, before map[string]platforms.Found // before: in another round
}

func newMetTransactions() *metTransactions {
	return &metTransactions{now: map[string]platforms.Found{}}
}

// nextRound forgets what was not met since the last one.
func (m *metTransactions) nextRound() { m.now, m.before = map[string]platforms.Found{}, m.now }

func (m *metTransactions) add(found platforms.Found) { m.now[found.ID] = found }

func (m *metTransactions) find(id string) (platforms.Found, bool) {
	found, ok := m.now[id]
	if !ok {
		if found, ok = m.before[id]; ok {
			m.now[id] = found
		}
	}
	return found, ok
}

// meet adds a transaction of a list, with what was read of its details before.
func (m *metTransactions) meet(found platforms.Found) platforms.Found {
	if read, ok := m.find(found.ID); ok {
		found.RootID, found.PaymentID = cmp.Or(found.RootID, read.RootID), cmp.Or(found.PaymentID, read.PaymentID)
	}
	m.add(found)
	return found
}

// learn makes one transaction known to the payment request that it belongs to,
// if it tells anything new. Whose transaction it is does not matter otherwise:
// merchants take money by other ways as well.
func (t *transactions) learn(ctx context.Context, merchantID string, auditor platforms.Auditor, found platforms.Found, seen *metTransactions) (moneyNews, error) {
	found = seen.meet(found)
	ref, ours, err := t.origin(ctx, auditor, found, seen)
	if err != nil || !ours {
		return findingNone, err
	}
	at, there, err := t.locate(ctx, merchantID, ref)
	if err != nil {
		return findingNone, err
	}
	if !there && !mayHaveMoved(found) {
		return findingNone, nil // such as a decline that a restored store has forgotten
	}
	if !there {
		t.log.WarnContext(ctx, "a transaction at the platform refers to no payment request of the merchant", "audit", true, "merchant_id", merchantID, "platform_id", found.ID, "reference", found.Code)
		return findingNoRequest, nil
	}
	if found.Operation != "" {
		return t.learnOperation(ctx, auditor, at, found, seen)
	}
	return t.learnPayment(ctx, auditor, at, found)
}

// held are the outcomes with which money is, or was, held or taken.
var held = []conversations.Outcome{
	conversations.OutcomeAuthorized, conversations.OutcomeCaptured, conversations.OutcomeInReview,
	conversations.OutcomePartial, conversations.OutcomeRiskDeclined,
}

// mayHaveMoved tells whether a transaction moved money, as far as the platform
// says.
func mayHaveMoved(f platforms.Found) bool {
	if f.Operation != "" {
		return f.Succeeded
	}
	return slices.Contains(held, f.Result.Outcome) || f.Result.Outcome == conversations.OutcomeUnknown
}

// isSecond tells whether a payment that holds or took money is not the one that
// counts for its attempt: a restored store numbers its attempts as before, and
// not every platform refuses the reference of a charge that it has made.
func isSecond(a conversations.Attempt, f platforms.Found) bool {
	return ourMoney(a.State) && a.Result.PaymentID != "" && f.ID != a.Result.PaymentID && slices.Contains(held, f.Result.Outcome)
}

// nothingTaken are the states of attempts that are held to have taken nothing.
var nothingTaken = []conversations.AttemptState{conversations.AttemptDeclined, conversations.AttemptNotTaken, conversations.AttemptNotFound}

// learnPayment makes a payment known that is held to be not taken, or whose
// outcome is not known. One whose charge may still be under way is left to the
// process that makes it.
func (t *transactions) learnPayment(ctx context.Context, auditor platforms.Auditor, at belonging, found platforms.Found) (moneyNews, error) {
	a := at.attempt
	took := slices.Contains(held, found.Result.Outcome)
	switch {
	case a.TakenBack(t.store.Now()):
		return findingNone, nil
	case slices.Contains(nothingTaken, a.State) && took, a.State == conversations.AttemptUnsettled:
	case isSecond(*a, found):
		t.log.ErrorContext(ctx, "the platform has charged twice by one reference", "audit", true, "payment_request_id", at.request.ID, "attempt", a.Code, "platform_id", found.ID,
			"amount", found.Amount.Decimal(), "currency", found.Amount.Currency)
		return findingAmount, nil
	case took && a.Result.PaymentID == found.ID && !a.Result.Amount.IsZero() && !found.Amount.IsZero() && found.Amount != a.Result.Amount:
		t.log.ErrorContext(ctx, "a payment has another amount at the platform", "audit", true, "payment_request_id", at.request.ID, "attempt", a.Code, "platform_id", found.ID,
			"amount", a.Result.Amount.Decimal(), "platform_amount", found.Amount.Decimal(), "currency", found.Amount.Currency)
		return findingAmount, nil
	default:
		return findingNone, nil
	}
	result, err := wholeStory(ctx, auditor, *a, found)
	if err != nil {
		return findingNone, err
	}
	if a.State != conversations.AttemptUnsettled && !slices.Contains(held, result.Outcome) ||
		result.Outcome == conversations.OutcomeUnknown || result.Outcome == conversations.OutcomeNotFound {
		return findingNone, nil
	}
	applied, err := t.store.Apply(ctx, at.request.ContactID, conversations.AttemptAnswered{RequestID: at.request.ID, Attempt: a.N, Result: result, Asked: true}, conversations.Once{})
	if err != nil || applied.Refused != nil {
		return findingNone, err
	}
	t.log.WarnContext(ctx, "a payment was learnt of from the platform's list", "audit", true, "payment_request_id", at.request.ID, "attempt", a.Code,
		"was", a.State, "outcome", result.Outcome, "platform_id", found.ID)
	return findingPayment, nil
}

// wholeStory asks what became of a payment that was found: one transaction does
// not tell that another has taken it back.
func wholeStory(ctx context.Context, auditor platforms.Auditor, a conversations.Attempt, found platforms.Found) (conversations.Result, error) {
	asker, ok := auditor.(platforms.Inquirer)
	if !ok {
		return found.Result, nil
	}
	result, err := asker.Inquire(ctx, a)
	if err != nil {
		return result, fmt.Errorf("%w about a payment that was found: %w", errNotAsked, err)
	}
	return result, nil
}

// learnOperation makes an operation known that was done and is not known as
// done here: one of ours whose answer was lost, or one that somebody did at the
// platform. Which it is the payment request knows best.
func (t *transactions) learnOperation(ctx context.Context, auditor platforms.Auditor, at belonging, found platforms.Found, seen *metTransactions) (moneyNews, error) {
	r := at.request
	if !found.Succeeded || isKnown(at, found) {
		return findingNone, nil
	}
	if full, there, err := details(ctx, auditor, found); err != nil {
		return findingNone, err
	} else if there {
		found = completed(full, found, at)
	}
	if charge, known := seen.find(found.RootID); known && isSecond(*at.attempt, charge) {
		return findingNone, nil // somebody gives back the charge that is too many
	}
	applied, err := t.store.Apply(ctx, r.ContactID, conversations.OperationFound{
		RequestID: r.ID, Attempt: at.attempt.N, Operation: found.Operation, Amount: found.Amount, Code: found.Code,
		PlatformID: found.ID, PaymentID: found.PaymentID, ReconciliationID: found.ReconciliationID, At: found.At,
	}, conversations.Once{})
	switch {
	case conversations.CodeOf(err) == conversations.CodeInvalid:
		t.log.ErrorContext(ctx, "an operation at the platform cannot be one of its payment request", "audit", true, "payment_request_id", r.ID,
			"kind", found.Operation, "platform_id", found.ID, "error", err)
		return findingAmount, nil
	case err != nil:
		return findingNone, err
	case applied.Refused != nil:
		t.log.ErrorContext(ctx, "an operation done elsewhere does not fit its payment request", "audit", true, "payment_request_id", r.ID,
			"kind", found.Operation, "platform_id", found.ID, "reason", applied.Refused.Reason)
		return findingNone, nil
	case applied.Request == nil:
		return findingNone, nil // it was known after all
	case applied.Request.Unbalanced && !r.Unbalanced:
		t.log.ErrorContext(ctx, "the platform did more with a payment than there was, as far as is known here", "audit", true, "payment_request_id", r.ID,
			"kind", found.Operation, "amount", found.Amount.Decimal(), "currency", found.Amount.Currency, "platform_id", found.ID)
		return findingAmount, nil
	case len(applied.Request.Operations) == len(r.Operations):
		t.log.InfoContext(ctx, "an operation of unknown outcome was done", "audit", true, "payment_request_id", r.ID, "kind", found.Operation, "platform_id", found.ID)
		return findingSettled, nil
	}
	t.log.WarnContext(ctx, "an operation was done elsewhere", "audit", true, "payment_request_id", r.ID, "attempt", at.attempt.Code, "kind", found.Operation,
		"amount", found.Amount.Decimal(), "currency", found.Amount.Currency, "platform_id", found.ID)
	return findingOperation, nil
}

// completed returns the details of an operation with what only the list told, and
// with the amount that a void has without being told: that of what it undoes.
func completed(full, listed platforms.Found, at belonging) platforms.Found {
	full.Code, full.ReconciliationID = cmp.Or(full.Code, listed.Code), cmp.Or(full.ReconciliationID, listed.ReconciliationID)
	full.Amount, full.At = cmp.Or(full.Amount, listed.Amount), cmp.Or(full.At, listed.At)
	if !full.Amount.IsZero() {
		return full
	}
	if at.operation != nil && at.operation.Kind == full.Operation {
		full.Amount = at.operation.Amount
	} else if full.Operation == conversations.OperationVoid {
		full.Amount = takenBy(at, full.PaymentID)
	}
	return full
}

// takenBy returns the amount that a transaction took; nothing if it is not known.
func takenBy(at belonging, id string) conversations.Money {
	for _, o := range at.request.Operations {
		if o.ResultID == id && id != "" {
			return o.Amount
		}
	}
	if at.attempt.Capture && at.attempt.Result.PaymentID == id && id != "" {
		return at.attempt.Result.Amount
	}
	return conversations.Money{}
}

// details returns all that is known of a transaction: a list says less of it.
func details(ctx context.Context, auditor platforms.Auditor, found platforms.Found) (platforms.Found, bool, error) {
	if found.RootID != "" || found.PaymentID != "" {
		return found, true, nil
	}
	full, there, err := auditor.Transaction(ctx, found.ID)
	if err != nil {
		return found, false, fmt.Errorf("%w about a transaction: %w", errNotAsked, err)
	}
	return full, there && full.Operation == found.Operation && full.Succeeded, nil
}

// isKnown tells whether there is nothing to be learnt from an operation, which
// spares a question: it is known by its number; it took back, by our own
// reference, a charge of which nothing came; or it reversed what is reversed,
// found to be so when we meant to do it ourselves.
func isKnown(at belonging, found platforms.Found) bool {
	gaveBack := found.Operation == conversations.OperationReversal || found.Operation == conversations.OperationVoid
	if gaveBack && slices.Contains(nothingTaken, at.attempt.State) {
		return true
	}
	return slices.ContainsFunc(at.request.Operations, func(o conversations.Operation) bool {
		if o.State != conversations.OperationSucceeded {
			return false
		}
		return o.ResultID == found.ID || o.ResultID == "" && gaveBack && o.Kind == found.Operation && o.Attempt == at.attempt.N && o.Amount == found.Amount
	})
}
