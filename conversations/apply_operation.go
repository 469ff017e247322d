package conversations

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// maxOperations bounds what a merchant's wishes can make a request grow by.
// What we have to give back is not bounded by it.
const maxOperations = 250

// defaultCallLife is how long after it was made a call may still reach the
// platform, held up by whatever lies between: CyberSource takes what was signed
// for up to 120 s, and refuses it after.
const defaultCallLife = 2 * time.Minute

// callLife returns how long a call for an operation may be on its way. A
// reversal or void that comes twice is refused by the platform, so nobody need
// wait for one.
func (t Timings) callLife(kind OperationKind) time.Duration {
	if kind == OperationReversal || kind == OperationVoid {
		return 0
	}
	return cmp.Or(t.CallLife, defaultCallLife)
}

// maxOperationWait bounds the wait between two tries: money that has to go back
// must not wait for days because the platform was away for hours.
const maxOperationWait = time.Hour

// operationWait returns how long to wait after so many tries: it doubles.
func (t Timings) operationWait(tries int) time.Duration {
	wait := t.RetryOperationIn
	for range tries - 1 {
		if wait *= 2; wait >= maxOperationWait {
			return maxOperationWait
		}
	}
	return wait
}

// The refusals of what a merchant asks, each a stable word.
const (
	notCapturable     = "not_capturable"
	beyondCapturable  = "beyond_capturable"
	notReversible     = "not_reversible"
	notRefundable     = "not_refundable"
	beyondRefundable  = "beyond_refundable"
	refundableChanged = "refundable_changed"
	wrongCurrency     = "wrong_currency"
	tooManyOperations = "too_many_operations"
)

// asks are the triggers of what a merchant may ask, with how a lifecycle
// refuses it that has no row.
var asks = map[Trigger]struct{ reason, done string }{
	CaptureAsked:  {notCapturable, "captured"},
	ReversalAsked: {notReversible, "reversed"},
	RefundAsked:   {notRefundable, "refunded"},
}

// askTriggers say what a merchant's wish means.
var askTriggers = map[OperationKind]Trigger{
	OperationCapture: CaptureAsked, OperationReversal: ReversalAsked, OperationRefund: RefundAsked,
}

func (t *tx) operationRequested(e OperationRequested) error {
	r := t.request(e.RequestID)
	if r == nil {
		return NotFound("payment request")
	}
	if err := e.check(r.Order.Total.Currency); err != nil {
		return err
	}
	return t.onRequest(r.ID, askTriggers[e.Operation], func(p *paymentTx) { p.ask = e })
}

// check refuses a wish that no state could grant.
func (e OperationRequested) check(currency string) error {
	if askTriggers[e.Operation] == "" {
		return Invalid("operation", "%q is none that can be asked for", clip(string(e.Operation), 20))
	}
	if err := checkText("reason", e.Note, 200); err != nil {
		return err
	}
	if e.Operation == OperationReversal && e.Amount != nil {
		return Invalid("amount", "a reversal gives all of it back; leave the amount out, or refund a part")
	}
	if e.Operation != OperationRefund && e.ExpectedRefundable != nil {
		return Invalid("expected_refundable", "this is for refunds only; leave it out")
	}
	for _, given := range []struct {
		field string
		money *Money
		least int64
	}{{"amount", e.Amount, 1}, {"expected_refundable", e.ExpectedRefundable, 0}} {
		switch m := given.money; {
		case m == nil:
		case m.Currency != currency:
			return &Error{Code: CodeInvalid, Field: given.field + ".currency", Reason: wrongCurrency,
				Message: fmt.Sprintf("this payment is in %s, not in %q", currency, clip(m.Currency, 12))}
		case m.Minor < given.least || m.Minor > MaxMinor:
			return Invalid(given.field, "%s is no amount for this; leave it out for all that is left", m.Decimal())
		}
	}
	return nil
}

// asked returns the amount that was asked for, or all that is left.
func (p *paymentTx) asked(left int64) int64 {
	if p.ask.Amount == nil {
		return left
	}
	return p.ask.Amount.Minor
}

func ifCapturable(p *paymentTx) *Error {
	left := p.r.Capturable()
	switch {
	case p.r.Reason == ReasonReversing || p.r.givingBack():
		return Refused(notCapturable, "the money is being given back")
	case left == 0:
		return Refused(notCapturable, "nothing is left to capture")
	case p.asked(left) > left:
		return Refused(beyondCapturable, "%s can still be captured, not more", p.r.money(left))
	}
	return p.hasRoom(1)
}

func ifRefundable(p *paymentTx) *Error {
	left := p.r.Refundable()
	if want := p.ask.ExpectedRefundable; want != nil && want.Minor != left {
		return Refused(refundableChanged, "%s can still be refunded, not %s; nothing was done", p.r.money(left), *want)
	}
	sources := p.r.sources()
	left = min(left, total(sources))
	switch {
	case p.r.Reason == ReasonReversing || p.r.givingBack():
		return Refused(notRefundable, "the money is being given back")
	case left == 0:
		return Refused(notRefundable, "nothing is left to refund")
	case p.asked(left) > left:
		return Refused(beyondRefundable, "%s can still be refunded, not more", p.r.money(left))
	}
	return p.hasRoom(len(split(sources, p.asked(left))))
}

func ifReversible(p *paymentTx) *Error {
	taken := p.r.sources()
	switch {
	case p.r.Attempt(p.r.PaidBy) == nil:
		return Refused(notReversible, "no money came")
	case p.r.Reason == ReasonReversing || p.r.givingBack():
		return Refused(notReversible, "the money is being given back")
	case p.r.reserved(OperationCapture)+p.r.reserved(OperationRefund) > 0:
		return Refused(notReversible, "a capture or refund is under way; wait for its outcome")
	case p.r.sums().refunded > 0:
		return Refused(notReversible, "a part was refunded; refund the rest")
	case len(taken) > 1:
		return Refused(notReversible, "the money was taken in %d parts; refund them", len(taken))
	case len(taken) == 1 && p.r.cameTooLate(taken[0].paymentID):
		return Refused(notReversible, "the money is on its way to the merchant already; refund it")
	case len(p.r.failedGiveBacks()) > 0:
		return Refused(notReversible, "another payment, which must not be kept, goes back first")
	}
	return p.hasRoom(1)
}

func ifUnderReview(p *paymentTx) *Error {
	if !slices.ContainsFunc(p.r.Attempts, func(a Attempt) bool { return a.State == AttemptInReview }) {
		return Refused(notReversible, "the money is being given back")
	}
	return nil
}

func ifGiveBackFailed(p *paymentTx) *Error {
	if len(p.r.failedGiveBacks()) == 0 {
		return noEdgeFor(ReversalAsked, p.r.Lifecycle)
	}
	return p.hasRoom(1)
}

// hasRoom refuses more operations than a person would ask for.
func (p *paymentTx) hasRoom(n int) *Error {
	if len(p.r.Operations)+n > maxOperations {
		return Refused(tooManyOperations, "%d operations were made with this payment; use the platform's own pages for more", len(p.r.Operations))
	}
	return nil
}

func ifCounts(p *paymentTx) *Error {
	if p.op == nil || !p.r.counts(*p.op) {
		return Refused("not_the_payment", "this is not the money that counts")
	}
	return nil
}

func ifAllReversed(p *paymentTx) *Error {
	if no := ifCounts(p); no != nil {
		return no
	}
	if p.r.sums().captured > 0 || p.r.undoesRefund(*p.op) {
		return Refused("not_reversed_in_full", "a part of the money was taken")
	}
	return nil
}

func ifNoneRefunded(p *paymentTx) *Error {
	if no := ifCounts(p); no != nil {
		return no
	}
	if s := p.r.sums(); s.refunded > 0 || s.captured == 0 {
		return Refused("refunded_in_part", "a part is refunded, or nothing is taken")
	}
	return nil
}

func ifRefundedInPart(p *paymentTx) *Error {
	if no := ifCounts(p); no != nil {
		return no
	}
	if p.r.sums().refunded == 0 {
		return Refused("not_refunded", "nothing is refunded")
	}
	return nil
}

func ifRefundedInFull(p *paymentTx) *Error {
	if no := ifCounts(p); no != nil {
		return no
	}
	if s := p.r.sums(); s.captured == 0 || s.refunded < s.captured || p.r.reserved(OperationCapture) > 0 {
		return Refused("not_refunded_in_full", "more can be refunded")
	}
	return nil
}

func ifGoneBefore(p *paymentTx) *Error {
	if !p.goneBefore {
		return Refused("not_gone_before", "this is what gives the money back")
	}
	return nil
}

func ifSettledTooLate(p *paymentTx) *Error {
	switch op := p.op; {
	case op == nil || op.Error != ErrorSettled || op.Kind == OperationRefund || op.Kind == OperationCapture:
		return Refused("not_settled", "the money was not on its way")
	case op.Reason == OperationAsked && p.r.counts(*op):
		return Refused("asked", "the merchant asked for it, and may ask for a refund")
	}
	return nil
}

func ifAsked(p *paymentTx) *Error {
	if p.op == nil || p.op.Reason != OperationAsked {
		return Refused("not_asked", "the merchant did not ask for it")
	}
	return nil
}

// begin starts an operation: a worker will carry it out.
func (p *paymentTx) begin(kind OperationKind, a *Attempt, paymentID string, amount Money, reason string) *Operation {
	p.r.Operations = append(p.r.Operations, Operation{
		ID: p.r.nextOperationID(), Kind: kind, Attempt: a.N, PaymentID: paymentID, Amount: amount, State: OperationPending,
		Reason: reason, Note: p.ask.Note, By: p.ask.Agent, StartedAt: p.now,
	})
	op := &p.r.Operations[len(p.r.Operations)-1]
	p.begun = append(p.begun, op.ID)
	p.outbox(OutboxEntry{Kind: OutboxOperation, RequestID: p.r.ID, Operation: op.ID})
	return op
}

// nextOperationID follows from the request and the number of its operations, so
// that a repeated application makes the same one.
func (r *PaymentRequest) nextOperationID() string {
	return fmt.Sprintf("%s-op%d", r.ID, len(r.Operations)+1)
}

func captureMoney(p *paymentTx) {
	a := p.r.Attempt(p.r.PaidBy)
	p.begin(OperationCapture, a, a.Result.PaymentID, p.r.money(p.asked(p.r.Capturable())), OperationAsked)
}

func refundMoney(p *paymentTx) {
	p.refund(p.asked(min(p.r.Refundable(), total(p.r.sources()))), OperationAsked)
}

// operationIn finds an operation and the request that it is of.
func (t *tx) operationIn(requestID, id string) (*PaymentRequest, int, error) {
	r := t.request(requestID)
	if r == nil {
		return nil, 0, NotFound("payment request")
	}
	t.effects.RequestID = r.ID
	i := slices.IndexFunc(r.Operations, func(o Operation) bool { return o.ID == id })
	if i < 0 {
		return nil, 0, NotFound("operation")
	}
	return r, i, nil
}

// operationStarted gives the right to call the platform to one process at a
// time, and each outbox entry gives it once. While an earlier call may still be
// on its way the entry is put off; after that the operation is unknown, and
// whoever takes it looks for it first.
func (t *tx) operationStarted(e OperationStarted) error {
	r, i, err := t.operationIn(e.RequestID, e.OperationID)
	if err != nil {
		return err
	}
	op := &r.Operations[i]
	if !op.open() || op.DueAt != nil {
		t.ack(e.EntryID) // settled, or its timer will bring another entry
		return nil
	}
	if op.SendBy != nil {
		until := op.SendBy.Add(t.Timings.callLife(op.Kind))
		if t.now.Before(until) {
			t.ack(e.EntryID)
			t.tryAt(r, i, until)
			return nil
		}
		again := e.EntryID != "" && op.EntryID == e.EntryID
		t.loseOperation(r, i, until)
		if again { // an answer to the first call could be taken for one to the second
			t.ack(e.EntryID)
			t.outbox(OutboxEntry{Kind: OutboxOperation, RequestID: r.ID, Operation: op.ID})
			return nil
		}
	}
	by := t.now.Add(t.Timings.SendWithin)
	op.SendBy, op.EntryID = &by, e.EntryID
	op.Tries++
	started := *op
	t.effects.Operation = &started
	return nil
}

// loseOperation notes that nobody knows whether an operation was done, and
// until when a call for it may still come through.
func (t *tx) loseOperation(r *PaymentRequest, i int, until time.Time) {
	op := &r.Operations[i]
	known := op.State != OperationUnsettled
	op.State, op.SendBy, op.SentBy = OperationUnsettled, nil, &until
	if known {
		p := &paymentTx{tx: t, r: r, was: r.Lifecycle, op: op}
		p.take(OperationLost)
	}
}

// tryAt sets when an operation is given to a worker again.
func (t *tx) tryAt(r *PaymentRequest, i int, at time.Time) {
	r.Operations[i].DueAt = &at
	t.setTimer(TimerOperation, r.ID, i+1, at)
}

// operationAnswered records the platform's answer. That it succeeded is
// believed of anyone and at any time; all else only of the newest process that
// was allowed to call. One that is unknown stays so until it is found or
// refused: a count of tries says nothing about money.
func (t *tx) operationAnswered(e OperationAnswered) error {
	t.ack(e.EntryID)
	r, i, err := t.operationIn(e.RequestID, e.OperationID)
	if err != nil {
		return err
	}
	op := &r.Operations[i]
	if e.State == OperationSucceeded {
		return t.operationSucceeded(r, i, e.ResultID, e.ReconciliationID)
	}
	if !op.open() || op.EntryID != "" && op.EntryID != e.EntryID {
		return nil
	}
	op.Error = e.Error
	op.ResultID, op.ReconciliationID = cmp.Or(e.ResultID, op.ResultID), cmp.Or(e.ReconciliationID, op.ReconciliationID)
	op.SendBy = nil
	wait := t.Timings.operationWait(op.Tries)
	switch e.State {
	case OperationFailed:
		op.State = OperationFailed
		t.settleOperation(r, i)
		p := &paymentTx{tx: t, r: r, was: r.Lifecycle, op: op}
		p.take(OperationDidNotSucceed)
		return nil
	case OperationUnsettled:
		t.loseOperation(r, i, t.now.Add(t.Timings.callLife(op.Kind)))
	case OperationPending:
		if e.Error == ErrorUnderReview {
			wait = maxOperationWait // people decide
		}
	default:
		return Invalid("state", "%q is not the state of an operation", clip(string(e.State), 20))
	}
	t.tryAt(r, i, t.now.Add(wait))
	return nil
}

// settleOperation ends the waiting for an operation.
func (t *tx) settleOperation(r *PaymentRequest, i int) {
	op := &r.Operations[i]
	if op.DueAt != nil {
		t.clearTimer(TimerOperation, r.ID, i+1)
	}
	op.SettledAt, op.DueAt, op.SendBy, op.SentBy = &t.now, nil, nil, nil
}

// operationSucceeded records that an operation was done, whatever was thought
// before, and does what follows.
func (t *tx) operationSucceeded(r *PaymentRequest, i int, resultID, reconciliationID string) error {
	op := &r.Operations[i]
	before := op.State
	op.ResultID, op.ReconciliationID = cmp.Or(op.ResultID, resultID), cmp.Or(op.ReconciliationID, reconciliationID)
	if before == OperationSucceeded {
		return nil
	}
	op.State, op.Error = OperationSucceeded, ""
	t.settleOperation(r, i)
	p := &paymentTx{tx: t, r: r, was: r.Lifecycle, op: op, corrected: before == OperationFailed}
	return p.operationDone()
}

// operationDone does what follows from an operation that was done.
func (p *paymentTx) operationDone() error {
	a := p.r.Attempt(p.op.Attempt)
	switch {
	case p.op.Kind == OperationCapture:
		p.take(CaptureDone)
	case a.State == AttemptReversing && (p.op.Kind != OperationRefund || p.r.returned(a)):
		return p.onAttemptBy(p.op, p.r.ID, a.N, HoldReleased, Result{})
	case p.op.Kind == OperationRefund:
		p.take(RefundDone)
	default:
		p.goneBefore = a.State == AttemptReversed
		p.take(ReversalDone)
	}
	return nil
}

// operationDue is the timer of an operation that is tried again.
func (t *tx) operationDue(r *PaymentRequest, timer Timer) error {
	if timer.N < 1 || timer.N > len(r.Operations) || r.Operations[timer.N-1].DueAt == nil {
		t.clearTimer(timer.Kind, timer.ID, timer.N)
		return nil
	}
	op := &r.Operations[timer.N-1]
	if t.now.Before(*op.DueAt) {
		return ErrNothing
	}
	op.DueAt = nil
	t.clearTimer(timer.Kind, timer.ID, timer.N)
	t.outbox(OutboxEntry{Kind: OutboxOperation, RequestID: r.ID, Operation: op.ID})
	return nil
}

func loggedOperation(o Operation) *LoggedOperation {
	return &LoggedOperation{ID: o.ID, Kind: o.Kind, Amount: o.Amount, State: o.State, Reason: o.Reason, Error: o.Error}
}
