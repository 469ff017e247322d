package main

import (
	"context"
	"errors"
	"fmt"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// inquire asks the merchant's platform what became of an attempt. If it cannot
// be asked, the next question of the timetable is waited for.
func (d *dispatcher) inquire(ctx context.Context, e conversations.OutboxEntry, by conversations.Delivery) error {
	// From here on, before the attempt is read: a process that is stopped and
	// woken later takes nothing back, which another may have found meanwhile.
	ours, cancel := context.WithTimeout(ctx, d.ownFor)
	defer cancel()
	r, err := d.store.Request(ctx, e.RequestID)
	if err != nil {
		return err
	}
	a := r.Attempt(e.Attempt)
	platform := d.platforms()[r.MerchantID]
	asker, ok := platform.(platforms.Inquirer)
	if a == nil || !ok {
		return fmt.Errorf("no platform to ask about attempt %d of %s: %w", e.Attempt, e.RequestID, conversations.ErrPoison)
	}
	result, err := d.inquireOnce(ctx, asker, *a)
	if err != nil {
		d.log.WarnContext(ctx, "the platform could not be asked about an attempt", "payment_request_id", r.ID, "attempt", a.Code, "error", err)
		result = conversations.Result{Outcome: conversations.OutcomeUnknown}
	}
	d.metrics.inquiries.WithLabelValues(a.Platform, string(result.Outcome)).Inc()
	if result.Outcome == conversations.OutcomeNotFound && d.mayTakeBack(platform, *a) {
		result = d.takeBack(ours, platform.(platforms.TimeoutReverser), r, a.N, result)
	}
	if result.Outcome != conversations.OutcomeUnknown {
		d.log.InfoContext(ctx, "an attempt was asked after", "audit", true, "payment_request_id", r.ID, "attempt", a.Code, "outcome", result.Outcome, "platform_id", result.PaymentID)
	}
	answered, err := d.record(ctx, e.ContactID, conversations.AttemptAnswered{RequestID: r.ID, Attempt: a.N, Result: result, Asked: true, EntryID: by.EntryID})
	if err == nil && result.Outcome == conversations.OutcomeReversed && answered.Request != nil && ourMoney(answered.Request.Attempt(a.N).State) {
		d.log.ErrorContext(ctx, "a charge was found and taken back at the same time; the audit will record it", "audit", true, "payment_request_id", r.ID, "attempt", a.Code)
	}
	return err
}

func (d *dispatcher) inquireOnce(ctx context.Context, asker platforms.Inquirer, a conversations.Attempt) (conversations.Result, error) {
	call, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	return asker.Inquire(call, a)
}

// mayTakeBack tells whether a charge of unknown outcome can be taken back by our
// own reference by now. The time counts from the last moment at which it may
// have been sent, so that no charge can follow its own reversal.
func (d *dispatcher) mayTakeBack(platform platforms.Platform, a conversations.Attempt) bool {
	reverser, ok := platform.(platforms.TimeoutReverser)
	if !ok || a.State != conversations.AttemptUnsettled && a.State != conversations.AttemptSending {
		return false
	}
	after := reverser.TimeoutReversalAfter()
	return after > 0 && !d.store.Now().Before(a.SendBy.Add(after))
}

// reasonTakenBack is the result's reason of a charge that was taken back because
// its answer never came.
const reasonTakenBack = "timeout_reversed"

// takeBack takes back a charge that the platform's search does not show. It may
// have been made all the same, and show tomorrow: once it is surely taken back,
// the customer may pay again at once. If it is not, what the search said stands.
// ctx has the deadline after which nothing is sent; the attempt is read again
// just before, in case a notification was quicker than the search.
func (d *dispatcher) takeBack(ctx context.Context, platform platforms.TimeoutReverser, r *conversations.PaymentRequest, n int, searched conversations.Result) conversations.Result {
	r, err := d.store.Request(ctx, r.ID)
	if err != nil || r.Attempt(n) == nil || !d.mayTakeBack(d.platforms()[r.MerchantID], *r.Attempt(n)) {
		return searched
	}
	a := *r.Attempt(n)
	result, err := platform.ReverseUnsettled(ctx, a)
	outcome := string(conversations.OutcomeUnknown)
	switch {
	case err != nil:
		outcome = "failed"
		d.log.WarnContext(ctx, "a charge of unknown outcome could not be taken back", "payment_request_id", r.ID, "attempt", a.Code, "error", err)
	case result.Outcome == conversations.OutcomeReversed:
		outcome = string(result.Outcome)
		if result.Reason == "" {
			result.Reason = reasonTakenBack
		}
		searched = result
	}
	d.metrics.timeouts.WithLabelValues(a.Platform, outcome).Inc()
	d.log.InfoContext(ctx, "a charge of unknown outcome was asked to be taken back", "audit", true, "payment_request_id", r.ID, "attempt", a.Code,
		"amount", a.Amount.Decimal(), "currency", a.Amount.Currency, "outcome", outcome)
	return searched
}

// errSentTooLate is the error of a call whose time was over before it began.
var errSentTooLate = errors.New("the time to call the platform was over")

// operate carries out an operation at the platform. Only the commit of
// OperationStarted gives the right to call, and only to this process, until the
// operation's SendBy: nobody else calls before what became of it is asked for.
func (d *dispatcher) operate(ctx context.Context, e conversations.OutboxEntry, by conversations.Delivery) error {
	platform, err := d.platformFor(ctx, e)
	if err != nil {
		return err
	}
	started, err := d.store.Apply(ctx, e.ContactID, conversations.OperationStarted{RequestID: e.RequestID, OperationID: e.Operation, EntryID: by.EntryID}, conversations.Once{})
	if err != nil {
		return err
	}
	if started.Operation == nil || started.Request == nil {
		return nil // done, or somebody may be calling: a timer comes back to it
	}
	op := *started.Operation
	attempt := started.Request.Attempt(op.Attempt)
	if attempt == nil {
		return fmt.Errorf("operation %s is of no attempt: %w", op.ID, conversations.ErrPoison)
	}
	result, err := d.carryOut(ctx, platform, op, *attempt)
	if err != nil {
		d.log.WarnContext(ctx, "an operation was not carried out, or nobody knows", "payment_request_id", e.RequestID, "operation", op.ID, "state", result.State, "error", err)
	}
	d.metrics.operations.WithLabelValues(string(op.Kind), string(result.State)).Inc()
	d.log.InfoContext(ctx, "an operation on money was answered", "audit", true, "payment_request_id", e.RequestID, "operation", op.ID,
		"kind", op.Kind, "why", op.Reason, "by", op.By, "amount", op.Amount.Decimal(), "currency", op.Amount.Currency,
		"state", result.State, "reason", result.Reason, "platform_id", result.ID)
	_, err = d.record(ctx, e.ContactID, conversations.OperationAnswered{
		RequestID: e.RequestID, OperationID: op.ID, State: result.State, Error: result.Reason,
		ResultID: result.ID, ReconciliationID: result.ReconciliationID, EntryID: by.EntryID,
	})
	return err
}

// platformFor returns the platform of an operation's merchant, if it can do what
// the operation asks for: before the right to call is taken, so that what
// cannot be done is left as it was.
func (d *dispatcher) platformFor(ctx context.Context, e conversations.OutboxEntry) (platforms.Platform, error) {
	r, err := d.store.Request(ctx, e.RequestID)
	if err != nil {
		return nil, err
	}
	op := operationOf(r, e.Operation)
	if op == nil {
		return nil, fmt.Errorf("no operation %s: %w", e.Operation, conversations.ErrPoison)
	}
	platform := d.platforms()[r.MerchantID]
	if followOn(platform, op.Kind) == nil {
		return nil, fmt.Errorf("no platform to %s attempt %d of %s: %w", op.Kind, op.Attempt, r.ID, conversations.ErrPoison)
	}
	return platform, nil
}

// followOn returns a platform's call for a kind of operation, nil if it has
// none.
func followOn(platform platforms.Platform, kind conversations.OperationKind) func(context.Context, conversations.Operation, conversations.Attempt) (platforms.OperationResult, error) {
	switch kind {
	case conversations.OperationCapture:
		if p, ok := platform.(platforms.Capturer); ok {
			return p.Capture
		}
	case conversations.OperationRefund:
		if p, ok := platform.(platforms.Refunder); ok {
			return p.Refund
		}
	case conversations.OperationReversal, conversations.OperationVoid:
		if p, ok := platform.(platforms.Reverser); ok {
			return p.Reverse
		}
	}
	return nil
}

// carryOut calls the platform, unless the time for it is over, and settles for
// nothing but the words of the contract.
func (d *dispatcher) carryOut(ctx context.Context, platform platforms.Platform, op conversations.Operation, a conversations.Attempt) (platforms.OperationResult, error) {
	if op.SendBy != nil && !d.store.Now().Before(*op.SendBy) {
		// It keeps what was known before: a call that was lost earlier is still so.
		return platforms.OperationResult{State: op.State, Reason: op.Error}, errSentTooLate
	}
	call, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	result, err := followOn(platform, op.Kind)(call, op, a)
	switch {
	case err != nil && result.State != conversations.OperationPending: // pending: it surely was not done
		result.State = conversations.OperationUnsettled
	case result.State == "":
		result.State = conversations.OperationUnsettled // never read silence as a refusal
	}
	return result, err
}

func operationOf(r *conversations.PaymentRequest, id string) *conversations.Operation {
	for i := range r.Operations {
		if r.Operations[i].ID == id {
			return &r.Operations[i]
		}
	}
	return nil
}
