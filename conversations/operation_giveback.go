package conversations

import (
	"cmp"
	"slices"
)

// ReasonReversing beside a lifecycle with money says that it is being given
// back.
const ReasonReversing = "being_reversed"

// cameTooLate tells whether the platform refused to void a transaction because
// the money is on its way to the merchant.
func (r *PaymentRequest) cameTooLate(paymentID string) bool {
	return slices.ContainsFunc(r.Operations, func(o Operation) bool {
		return o.State == OperationFailed && o.Error == ErrorSettled && o.PaymentID == paymentID
	})
}

// failedGiveBacks returns the last operations of attempts whose money must not
// be kept and could not be given back.
func (r *PaymentRequest) failedGiveBacks() []Operation {
	var failed []Operation
	for _, a := range r.Attempts {
		switch a.State {
		case AttemptReversing, AttemptInReview, AttemptAuthorized, AttemptCaptured:
		default:
			continue
		}
		var last *Operation
		for i, o := range r.Operations {
			if o.Attempt == a.N && o.returns() && !o.Elsewhere {
				last = &r.Operations[i]
			}
		}
		if a.N != r.PaidBy && last != nil && last.State == OperationFailed {
			failed = append(failed, *last)
		}
	}
	return failed
}

// refund gives back so much of the money that counts, with one operation for
// each sale or capture that it takes from.
func (p *paymentTx) refund(minor int64, reason string) {
	first := ""
	for _, part := range split(p.r.sources(), minor) {
		op := p.begin(OperationRefund, p.r.Attempt(p.r.PaidBy), part.paymentID, p.r.money(part.left), reason)
		op.PartOf = first
		first = cmp.Or(first, op.ID)
	}
}

// giveBackReasons say why money goes back, by what made it.
var giveBackReasons = map[Trigger]string{
	PartlyHeld: OperationPartial, RiskRefused: OperationRiskDeclined, ReviewRejected: OperationRejected,
	ReviewOver: OperationReviewOver, ReversalAsked: OperationAsked, HolderPaid: OperationOrderPaid,
}

// giveBack starts the operation that returns what an attempt holds or took.
// While one is under way for the attempt, there is no second.
func (p *paymentTx) giveBack(a *Attempt, reason string) {
	p.forget(a)
	if a.N == p.r.PaidBy {
		p.giveBackMoney(reason)
		return
	}
	if slices.ContainsFunc(p.r.Operations, func(o Operation) bool { return o.Attempt == a.N && o.returns() && o.open() }) {
		p.hasten(p.r, a.N)
		return
	}
	kind := OperationReversal
	if a.State == AttemptCaptured || a.Result.Outcome == OutcomeCaptured {
		kind = OperationVoid
	}
	amount := a.Result.Amount
	if amount.Minor == 0 { // not told, or nothing was held yet when it went into review
		amount = a.Amount
	}
	p.begin(kind, a, a.Result.PaymentID, amount, reason)
}

// hasten has what waits for reviewers tried now: they have decided, and money
// that was taken can be voided for some hours only.
func (t *tx) hasten(r *PaymentRequest, attempt int) {
	for i, o := range r.Operations {
		if o.Attempt == attempt && o.open() && o.Error == ErrorUnderReview && o.DueAt != nil && t.now.Before(*o.DueAt) {
			t.tryAt(r, i, t.now)
		}
	}
}

// giveBackMoney starts what returns the money that counts, as much as is left:
// what is held is reversed, what was taken at once is voided, all else is
// refunded. What another operation may be moving is waited for: GoOnGivingBack
// comes back here.
func (p *paymentTx) giveBackMoney(reason string) {
	a, s, taken := p.r.Attempt(p.r.PaidBy), p.r.sums(), p.r.sources()
	busy := p.r.reserved(OperationCapture)+p.r.reserved(OperationRefund) > 0
	switch {
	case p.r.givingBack():
	case s.captured == 0 && busy:
	case s.captured == 0:
		p.begin(OperationReversal, a, a.Result.PaymentID, p.r.money(p.r.AuthorizedMinor-s.reversed), reason)
	case !busy && s.refunded == 0 && len(taken) == 1 && !p.r.cameTooLate(taken[0].paymentID):
		p.begin(OperationVoid, a, taken[0].paymentID, p.r.money(taken[0].left), reason)
	default:
		p.refund(p.r.Refundable(), reason)
	}
	if !slices.ContainsFunc(p.r.Operations, func(o Operation) bool { return p.r.counts(o) && o.open() }) {
		p.r.Reason = "" // nothing that we know of is left
	}
}

// giveBackReview gives back every attempt that is in review.
func giveBackReview(p *paymentTx) {
	for i := range p.r.Attempts {
		a := &p.r.Attempts[i]
		if to, ok := attemptAfter(a.State, p.on); ok {
			a.State = to
			p.giveBack(a, giveBackReasons[p.on])
		}
	}
}

// giveBackAgain starts anew what could not be given back, for the reason that
// it had.
func giveBackAgain(p *paymentTx) {
	for _, last := range p.r.failedGiveBacks() {
		a := p.r.Attempt(last.Attempt)
		if last.Kind == OperationRefund {
			p.begin(OperationRefund, a, last.PaymentID, last.Amount, last.Reason)
			continue
		}
		p.giveBack(a, last.Reason)
	}
}

// goOnGivingBack follows an operation on money that must go back: what is left
// of it goes too, unless what should return it could not.
func goOnGivingBack(p *paymentTx) {
	if p.r.Reason != ReasonReversing || !p.r.counts(*p.op) {
		return
	}
	ours := p.op.Reason != OperationAsked && p.op.Reason != OperationElsewhere
	if p.op.State == OperationFailed && p.op.returns() && (ours || p.op.Kind != OperationRefund) {
		p.r.Reason = "" // a person has to look
		return
	}
	p.giveBackMoney(p.r.whyGivenBack())
}

// whyGivenBack returns the reason of what gives the money that counts back. What
// the merchant refunds for reasons of its own is not that.
func (r *PaymentRequest) whyGivenBack() string {
	for _, o := range slices.Backward(r.Operations) {
		if r.counts(o) && o.returns() && !o.Elsewhere && (o.Reason != OperationAsked || o.Kind != OperationRefund) {
			return o.Reason
		}
	}
	return OperationOrderPaid // and it has had to wait until now
}

// refundInstead follows a void that came too late.
func refundInstead(p *paymentTx) {
	op := *p.op
	if p.r.counts(op) {
		p.refund(min(op.Amount.Minor, p.r.Refundable()), op.Reason)
		return
	}
	p.begin(OperationRefund, p.r.Attempt(op.Attempt), op.PaymentID, op.Amount, op.Reason)
}

// markReversed notes that the money of an attempt went back, once all did.
func markReversed(p *paymentTx) {
	a := p.r.Attempt(p.op.Attempt)
	if p.op.Kind != OperationRefund || p.r.returned(a) {
		p.forget(a)
		a.State = AttemptReversed
	}
}

// tellOfReturn tells the customer what went back, once all parts of a refund
// are settled.
func tellOfReturn(p *paymentTx) {
	op := *p.op
	if p.r.Receipt == nil || !op.returns() || p.r.undoesRefund(op) {
		return
	}
	sum := op.Amount
	if !p.corrected { // else its refund was told of without this part
		sum.Minor = 0
		for _, o := range p.r.Operations {
			if cmp.Or(o.PartOf, o.ID) != cmp.Or(op.PartOf, op.ID) {
				continue
			}
			if o.open() {
				return
			}
			if o.State == OperationSucceeded {
				sum.Minor += o.Amount.Minor
			}
		}
	}
	if sum.Minor > 0 {
		p.sendRefund(p.r, sum)
	}
}
