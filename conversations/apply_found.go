package conversations

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

func ifToBeLearnt(p *paymentTx) *Error {
	switch a := p.a; {
	case a == nil:
	case a.State == AttemptUnsettled, a.State == AttemptInReview, a.State == AttemptNotFound, a.State == AttemptReversing:
		return nil
	case a.State == AttemptSending && p.now.After(a.SendBy):
		return nil
	}
	return Refused("nothing_to_learn", "what became of the attempt is known, or about to be")
}

// operationFound records what was done at the platform. What we asked for
// ourselves is settled by it; what is known already changes nothing.
func (t *tx) operationFound(e OperationFound) error {
	r := t.request(e.RequestID)
	if r == nil {
		return NotFound("payment request")
	}
	t.effects.RequestID = r.ID
	a := r.Attempt(e.Attempt)
	if a == nil {
		return NotFound("attempt")
	}
	if err := e.check(r.Order.Total.Currency); err != nil {
		return err
	}
	i, known := e.match(r)
	if known {
		return ErrNothing
	}
	if e.Operation == OperationCapture && a.Capture && e.Code == a.Code {
		return t.attemptNotified(AttemptNotified{RequestID: r.ID, Attempt: a.N}) // the sale itself, taken after its review
	}
	if i >= 0 {
		return t.operationSucceeded(r, i, e.PlatformID, e.ReconciliationID)
	}
	at := e.At.UTC().Truncate(time.Millisecond)
	if e.At.IsZero() || at.After(t.now) {
		at = t.now
	}
	r.Operations = append(r.Operations, Operation{
		ID: r.nextOperationID(), Kind: e.Operation, Attempt: a.N, PaymentID: cmp.Or(e.PaymentID, a.Result.PaymentID), Amount: e.Amount,
		State: OperationSucceeded, Reason: OperationElsewhere, Elsewhere: true, StartedAt: at, SettledAt: &t.now,
		ResultID: e.PlatformID, ReconciliationID: e.ReconciliationID,
	})
	p := &paymentTx{tx: t, r: r, a: a, was: r.Lifecycle}
	switch a.State {
	case AttemptAuthorized, AttemptCaptured, AttemptReversing, AttemptReversed:
		p.a, p.op = nil, &r.Operations[len(r.Operations)-1]
		return p.operationDone()
	}
	// The attempt itself has to be learnt of first; onAttempt comes back to it.
	askPlatform(p)
	return nil
}

func (e OperationFound) check(currency string) error {
	switch {
	case !slices.Contains([]OperationKind{OperationCapture, OperationReversal, OperationVoid, OperationRefund}, e.Operation):
		return Invalid("operation", "%q is not an operation", clip(string(e.Operation), 20))
	case e.PlatformID == "":
		return Invalid("platform_id", "without its id it could be counted twice")
	case e.Amount.Currency != currency:
		return &Error{Code: CodeInvalid, Field: "amount.currency", Reason: wrongCurrency,
			Message: fmt.Sprintf("this payment is in %s, not in %q", currency, clip(e.Amount.Currency, 12))}
	}
	return checkAmount("amount", e.Amount, currency)
}

// match returns the operation of ours that was found, or -1, or that it is known
// already.
func (e OperationFound) match(r *PaymentRequest) (i int, known bool) {
	for i, o := range r.Operations {
		if o.ResultID == e.PlatformID {
			return i, o.State == OperationSucceeded
		}
	}
	if i := slices.IndexFunc(r.Operations, func(o Operation) bool { return o.ID == e.Code }); i >= 0 {
		switch o := r.Operations[i]; {
		case o.Kind == OperationVoid && e.Operation == OperationReversal:
			return -1, true // after a void the hold is released in its name
		case o.Kind == OperationReversal && e.returnsHold() && o.State == OperationSucceeded:
			return -1, true // it was a void by then: reviewers had accepted the payment
		case o.Kind == OperationReversal && e.Operation == OperationVoid && o.ResultID == "":
			return i, false
		case o.Kind == e.Operation && o.ResultID == "":
			return i, false
		}
		return -1, false // done twice, or something else in its name
	}
	for i, o := range r.Operations {
		if o.Attempt != e.Attempt || o.Kind != e.Operation || !o.open() || o.ResultID != "" || e.PaymentID != "" && o.PaymentID != e.PaymentID {
			continue
		}
		// Money is reversed or voided once. A capture or refund of the same amount
		// may be another one, unless ours may have been done.
		if o.Kind == OperationReversal || o.Kind == OperationVoid || o.State == OperationUnsettled && o.Amount == e.Amount {
			return i, false
		}
	}
	return -1, false
}

// returnsHold tells whether the money went back without a refund, which can be
// done once.
func (e OperationFound) returnsHold() bool {
	return e.Operation == OperationReversal || e.Operation == OperationVoid
}

// attemptNotified asks the platform now, if there is anything to be learnt.
func (t *tx) attemptNotified(e AttemptNotified) error {
	r := t.request(e.RequestID)
	if r == nil {
		return NotFound("payment request")
	}
	t.effects.RequestID = r.ID
	a := r.Attempt(e.Attempt)
	if a == nil {
		return NotFound("attempt")
	}
	p := &paymentTx{tx: t, r: r, a: a, was: r.Lifecycle}
	edge, refused := p.edge(NewsCame)
	if refused != nil {
		return ErrNothing // platforms tell of everything
	}
	p.follow(edge)
	return nil
}
