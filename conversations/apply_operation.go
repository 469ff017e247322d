package conversations

import (
	"fmt"
	"slices"
	"time"
)

// ReasonReversing beside paid or authorized says that the money is being given
// back.
const ReasonReversing = "being_reversed"

func (p *paymentTx) giveBackReason() string {
	switch p.a.Result.Outcome {
	case OutcomePartial:
		return "partial"
	case OutcomeRiskDeclined:
		return "risk_declined"
	}
	return "review_rejected"
}

// giveBack starts the operation that returns what an attempt holds or took.
// While one is under way for the attempt, there is no second.
func (p *paymentTx) giveBack(a *Attempt, reason string) {
	forgetAsking(p)
	if slices.ContainsFunc(p.r.Operations, func(o Operation) bool {
		return o.Attempt == a.N && o.Kind != OperationCapture && (o.State == OperationPending || o.State == OperationUnsettled)
	}) {
		return
	}
	kind := OperationReversal
	if a.State == AttemptCaptured {
		kind = OperationVoid
	}
	amount := a.Result.Amount
	if amount.IsZero() || a.N == p.r.PaidBy {
		amount = a.Amount // the totals count what was asked
	}
	op := Operation{
		ID: fmt.Sprintf("%s-op%d", p.r.ID, len(p.r.Operations)+1), Kind: kind, Attempt: a.N, PaymentID: a.Result.PaymentID,
		Amount: amount, State: OperationPending, Reason: reason, StartedAt: p.now,
	}
	p.r.Operations = append(p.r.Operations, op)
	p.outbox(OutboxEntry{Kind: OutboxOperation, RequestID: p.r.ID, Operation: op.ID})
}

// maxOperationTries is when an operation that stays unknown is shown as
// failed, for a person to look at.
const maxOperationTries = 12

func (t *tx) operationAnswered(e OperationAnswered) error {
	t.ack(e.EntryID)
	r := t.request(e.RequestID)
	if r == nil {
		return NotFound("payment request")
	}
	t.effects.RequestID = r.ID
	i := slices.IndexFunc(r.Operations, func(o Operation) bool { return o.ID == e.OperationID })
	if i < 0 {
		return NotFound("operation")
	}
	op := &r.Operations[i]
	if op.State == OperationSucceeded || op.State == OperationFailed {
		return nil
	}
	op.Tries++
	op.State, op.Error = e.State, e.Error
	if op.State == OperationUnsettled && op.Tries >= maxOperationTries {
		op.State = OperationFailed
	}
	p := &paymentTx{tx: t, r: r, was: r.Lifecycle, op: op}
	switch op.State {
	case OperationSucceeded:
		op.SettledAt, op.DueAt = &t.now, nil
		return p.operationDone()
	case OperationFailed:
		op.SettledAt, op.DueAt = &t.now, nil
		p.take(OperationDidNotSucceed)
	default:
		due := t.now.Add(t.Timings.operationWait(op.Tries))
		op.DueAt = &due
		t.setTimer(TimerOperation, r.ID, i+1, due)
	}
	return nil
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

func (p *paymentTx) operationDone() error {
	switch p.op.Kind {
	case OperationCapture:
		p.take(CaptureDone)
	case OperationRefund:
		p.take(RefundDone)
	default:
		a := p.r.Attempt(p.op.Attempt)
		if a.State == AttemptReversing {
			op := p.op
			if err := p.onAttempt(p.r.ID, a.N, HoldReleased, Result{}); err != nil {
				return err
			}
			p.op = op
			return nil
		}
		a.State = AttemptReversed
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
