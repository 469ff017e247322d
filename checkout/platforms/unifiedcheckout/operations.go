package unifiedcheckout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"paythread/checkout/platforms"
	"paythread/checkout/platforms/cybersource"
	"paythread/conversations"
)

// searchLag is how long the guide lets a transaction take to appear in a
// search: five tries, five minutes apart.
const searchLag = 25 * time.Minute

// reasonNoPaymentID means that there is nothing to act on.
const reasonNoPaymentID = "NO_PAYMENT_ID"

// followRequest is the body of every follow-on call; each uses some of it.
type followRequest struct {
	ClientReferenceInformation clientReference      `json:"clientReferenceInformation"`
	OrderInformation           *orderInformation    `json:"orderInformation,omitempty"`
	ReversalInformation        *reversalInformation `json:"reversalInformation,omitempty"`
}

type reversalInformation struct {
	AmountDetails amountDetails `json:"amountDetails"`
	Reason        string        `json:"reason"`
}

// verdict is what became of one follow-on call.
type verdict struct {
	state  conversations.OperationState
	reason string
	err    error
}

func (v verdict) refused(reasons ...string) bool {
	return v.state == conversations.OperationFailed && slices.Contains(reasons, v.reason)
}

var succeeded = verdict{state: conversations.OperationSucceeded}

func failed(reason string) verdict {
	return verdict{state: conversations.OperationFailed, reason: reason}
}

func unsettled(reason string, err error) verdict {
	return verdict{state: conversations.OperationUnsettled, reason: reason, err: err}
}

// errNotVisible is the cause when a search has to be repeated later.
var errNotVisible = errors.New("the transaction does not show in CyberSource's search yet")

// Reverse implements platforms.Reverser. Giving money back twice is impossible
// there: the second call is refused. So it is repeated without fear.
func (p *Platform) Reverse(ctx context.Context, op conversations.Operation, a conversations.Attempt) (platforms.OperationResult, error) {
	v := p.reverse(ctx, op, a)
	p.audit("reversal answered", op, v)
	return platforms.OperationResult{State: v.state, Reason: v.reason}, v.err
}

// reverse voids what is captured, and releases what is only held.
func (p *Platform) reverse(ctx context.Context, op conversations.Operation, a conversations.Attempt) verdict {
	payment := a.Result.PaymentID
	if payment == "" {
		payment = op.PaymentID
	}
	if !idForm.MatchString(payment) {
		return failed(reasonNoPaymentID)
	}
	sale := a.Result.Outcome == conversations.OutcomeCaptured || a.Capture && a.Result.Reason == reasonAmountDiffers
	if op.Kind != conversations.OperationVoid && !sale {
		v := p.releaseHold(ctx, payment, op, a)
		switch {
		case v.refused("AUTH_ALREADY_REVERSED"):
			return succeeded
		case v.refused("TRANSACTION_ALREADY_REVERSED_OR_SETTLED"):
			return p.reversedOrSettled(ctx, op, a, v)
		}
		return v
	}
	path := "/pts/v2/payments/" + payment
	if !a.Capture {
		capture, v := p.captureOf(ctx, op, a)
		if capture == "" {
			return v
		}
		path = "/pts/v2/captures/" + capture
	}
	v := p.follow(ctx, path+"/voids", followRequest{ClientReferenceInformation: clientReference{Code: a.Code}}, "VOIDED", "CANCELLED", "REVERSED")
	if v.refused("NOT_VOIDABLE", "TRANSACTION_ALREADY_REVERSED_OR_SETTLED", "AUTH_ALREADY_REVERSED", "CAPTURE_ALREADY_VOIDED") {
		v = p.reversedOrSettled(ctx, op, a, v)
	}
	if v.state != conversations.OperationSucceeded {
		return v
	}
	// A void does not release the hold. Not every processor can; where it
	// cannot, the hold runs out by itself, and the money was not taken.
	if hold := p.releaseHold(ctx, payment, op, a); hold.state != conversations.OperationSucceeded {
		p.log.Info("hold not released after a void", "attempt", a.Code, "reason", hold.reason)
	}
	return v
}

// releaseHold reverses an authorization. The amount has to be the authorized
// one, which is the reply's and not always the request's.
func (p *Platform) releaseHold(ctx context.Context, payment string, op conversations.Operation, a conversations.Attempt) verdict {
	amount := a.Result.Amount
	if amount.Minor <= 0 {
		amount = op.Amount
	}
	reason := op.Reason
	if reason == "" {
		reason = "cancelled"
	}
	return p.follow(ctx, "/pts/v2/payments/"+payment+"/reversals", followRequest{
		ClientReferenceInformation: clientReference{Code: a.Code},
		ReversalInformation:        &reversalInformation{AmountDetails: amountOf(amount).AmountDetails, Reason: reason},
	}, "REVERSED")
}

// reversedOrSettled tells the two apart, which CyberSource's refusal does not:
// the first is what was wanted, the second leaves only a refund.
func (p *Platform) reversedOrSettled(ctx context.Context, op conversations.Operation, a conversations.Attempt, refusal verdict) verdict {
	switch {
	case op.Kind == conversations.OperationVoid || a.Capture && a.Result.Reason == reasonAmountDiffers:
	case a.Result.Outcome == conversations.OutcomePartial, a.Result.Outcome == conversations.OutcomeRiskDeclined, a.Result.Outcome == conversations.OutcomeInReview:
		return succeeded // never captured, so never settled
	}
	found, err := p.Inquire(ctx, a)
	switch {
	case err != nil:
		return unsettled(refusal.reason, err)
	case found.Outcome == conversations.OutcomeReversed:
		return succeeded
	case p.now().Before(op.StartedAt.Add(searchLag)):
		return unsettled(refusal.reason, errNotVisible)
	}
	return refusal
}

// Capture implements platforms.Capturer.
func (p *Platform) Capture(ctx context.Context, op conversations.Operation, a conversations.Attempt) (platforms.OperationResult, error) {
	v := p.capture(ctx, op, a)
	p.audit("capture answered", op, v)
	return platforms.OperationResult{State: v.state, Reason: v.reason}, v.err
}

func (p *Platform) capture(ctx context.Context, op conversations.Operation, a conversations.Attempt) verdict {
	payment := a.Result.PaymentID
	if !idForm.MatchString(payment) {
		return failed(reasonNoPaymentID)
	}
	if op.State == conversations.OperationUnsettled {
		captures, err := p.captures(ctx, a)
		if err != nil {
			return unsettled("", err)
		}
		for _, c := range captures {
			// A minute's grace is for clocks: an earlier capture of the same amount is another one.
			if amount, ok := c.OrderInformation.AmountDetails.authorized(); ok && amount == op.Amount && c.at().After(op.StartedAt.Add(-time.Minute)) {
				return succeeded
			}
		}
		if p.now().Before(op.StartedAt.Add(searchLag)) {
			return unsettled("", errNotVisible)
		}
	}
	order := amountOf(op.Amount)
	return p.follow(ctx, "/pts/v2/payments/"+payment+"/captures", followRequest{
		ClientReferenceInformation: clientReference{Code: a.Code}, OrderInformation: &order,
	}, "PENDING", "TRANSMITTED")
}

// captures returns the successful captures of an authorization. Each has its
// reference, and is a transaction of its own.
func (p *Platform) captures(ctx context.Context, a conversations.Attempt) ([]transaction, error) {
	rows, err := p.search(ctx, a.Code, a.StartedAt)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(t transaction) bool {
		_, authorized := t.application("ics_auth")
		bill, billed := t.application("ics_bill")
		return authorized || !billed || bill.RCode != rSuccess || !idForm.MatchString(string(t.ID))
	}), nil
}

// captureOf returns the id of the capture that a void or refund acts on: the
// operation's, if it names another transaction than the authorization; else
// the largest capture that a search finds. Without one the verdict says why.
func (p *Platform) captureOf(ctx context.Context, op conversations.Operation, a conversations.Attempt) (string, verdict) {
	if op.PaymentID != a.Result.PaymentID && idForm.MatchString(op.PaymentID) {
		return op.PaymentID, verdict{}
	}
	captures, err := p.captures(ctx, a)
	if err != nil {
		return "", verdict{state: conversations.OperationPending, err: err}
	}
	best, most := "", int64(-1)
	for _, c := range captures {
		if amount, ok := c.OrderInformation.AmountDetails.authorized(); ok && amount.Minor > most {
			best, most = string(c.ID), amount.Minor
		}
	}
	if best == "" {
		return "", verdict{state: conversations.OperationPending, err: errNotVisible}
	}
	return best, verdict{}
}

// Refund implements platforms.Refunder. Its reference is the operation's id,
// so that one of several refunds can be found again.
func (p *Platform) Refund(ctx context.Context, op conversations.Operation, a conversations.Attempt) (platforms.OperationResult, error) {
	v := p.refund(ctx, op, a)
	p.audit("refund answered", op, v)
	return platforms.OperationResult{State: v.state, Reason: v.reason}, v.err
}

func (p *Platform) refund(ctx context.Context, op conversations.Operation, a conversations.Attempt) verdict {
	if !codeForm.MatchString(op.ID) || len(op.ID) > maxCode {
		return failed(reasonNoPaymentID)
	}
	if op.State == conversations.OperationUnsettled {
		rows, err := p.search(ctx, op.ID, op.StartedAt)
		if err != nil {
			return unsettled("", err)
		}
		for _, row := range rows {
			if credit, ok := row.application("ics_credit"); ok && credit.RCode == rSuccess {
				return succeeded
			}
		}
		if p.now().Before(op.StartedAt.Add(searchLag)) {
			return unsettled("", errNotVisible)
		}
	}
	path := "/pts/v2/payments/" + a.Result.PaymentID
	if !a.Capture {
		capture, v := p.captureOf(ctx, op, a)
		if capture == "" {
			return v
		}
		path = "/pts/v2/captures/" + capture
	} else if !idForm.MatchString(a.Result.PaymentID) {
		return failed(reasonNoPaymentID)
	}
	order := amountOf(op.Amount)
	reference := clientReference{Code: op.ID}
	if len(op.ID) <= maxTransactionID {
		reference.TransactionID = op.ID // where the processor knows it, a repeat is refused
	}
	return p.follow(ctx, path+"/refunds", followRequest{ClientReferenceInformation: reference, OrderInformation: &order}, "PENDING", "TRANSMITTED")
}

// follow makes one follow-on call. done are the statuses of success.
func (p *Platform) follow(ctx context.Context, path string, body followRequest, done ...string) verdict {
	answer, err := p.client.Do(ctx, cybersource.Call{Method: http.MethodPost, Path: path, Body: body})
	if err != nil {
		var none *cybersource.NoAnswerError
		if errors.As(err, &none) && !none.Sent {
			return verdict{state: conversations.OperationPending, reason: reasonNotSent, err: err}
		}
		return unsettled(reasonNoAnswer, err)
	}
	var told paymentAnswer
	unreadable := decodeStrict(answer.Body, &told) != nil
	if unreadable {
		told = paymentAnswer{}
	}
	reason := told.reason()
	if reason == "" {
		reason = fmt.Sprintf("HTTP_%d", answer.Status)
	}
	cause := fmt.Errorf("CyberSource answered %d (correlation id %s)", answer.Status, answer.CorrelationID)
	switch answer.Status {
	case http.StatusCreated:
		switch {
		case unreadable:
		case slices.Contains(done, string(told.Status)):
			return succeeded
		case slices.Contains([]string{"DECLINED", "FAILED", "INVALID_REQUEST"}, string(told.Status)) && !told.duplicate():
			return failed(reason)
		}
	case http.StatusBadRequest:
		if !unreadable && told.Reason != "" && !told.duplicate() {
			return failed(reason)
		}
	case http.StatusNotFound:
		return failed(reason)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return verdict{state: conversations.OperationPending, reason: reason, err: cause}
	}
	return unsettled(reason, cause)
}

// audit leaves a line for everything that may have moved money.
func (p *Platform) audit(message string, op conversations.Operation, v verdict) {
	p.log.Info(message, "operation", op.ID, "kind", string(op.Kind), "payment_id", op.PaymentID, "state", string(v.state), "reason", v.reason)
}
