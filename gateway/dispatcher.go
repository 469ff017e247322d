package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
	"paythread/gateway/providers"
)

// recordWithin bounds how long an outcome that is known is tried to be
// recorded before the entry is left to be claimed again.
const recordWithin = 30 * time.Second

// dispatcher does what commits leave in the outbox: it sends messages, asks
// platforms about attempts and carries out operations. Each piece of work ends
// in a commit that acknowledges its entry.
type dispatcher struct {
	store     *conversations.Store
	senders   map[string]*liveSender
	platforms map[string]platforms.Platform // by merchant
	within    time.Duration                 // of one call
	retry     retryPolicy
	metrics   *dispatchMetrics
	log       *slog.Logger
}

// retryPolicy says when a message that a provider refused for now is tried
// again: after First, doubling up to Most, with jitter, at most Tries times.
type retryPolicy struct {
	First time.Duration
	Most  time.Duration
	Tries int
}

// wait returns how long to wait after a number of tries, and false when there
// were enough.
func (r retryPolicy) wait(tries int, asked time.Duration) (time.Duration, bool) {
	if tries >= r.Tries {
		return 0, false
	}
	d := r.First
	for range tries - 1 {
		if d *= 2; d >= r.Most {
			d = r.Most
			break
		}
	}
	d = d/2 + rand.N(d/2+1) // half of it is jitter, so that many do not come back at once
	return max(d, asked), true
}

// Work implements conversations.Worker.
func (d *dispatcher) Work(ctx context.Context, e conversations.OutboxEntry, by conversations.Delivery) error {
	switch e.Kind {
	case conversations.OutboxMessage:
		return d.send(ctx, e, by)
	case conversations.OutboxInquiry:
		return d.inquire(ctx, e, by)
	case conversations.OutboxOperation:
		return d.operate(ctx, e, by)
	case conversations.OutboxHolder:
		return d.store.TellHolder(ctx, e, by.EntryID)
	}
	return fmt.Errorf("outbox entry of kind %q: %w", e.Kind, conversations.ErrPoison)
}

// send moves a message to sending, calls the provider, and records what it
// said. A message found in sending had another worker, which died or lost its
// answer: the commit then awaits the echo and allows nothing.
func (d *dispatcher) send(ctx context.Context, e conversations.OutboxEntry, by conversations.Delivery) error {
	begun, err := d.store.Apply(ctx, e.ContactID, conversations.SendingStarted{MessageID: e.MessageID, EntryID: by.EntryID}, conversations.Once{})
	if err != nil {
		return err
	}
	if begun.Outbound == nil {
		return nil
	}
	answer := conversations.MessageAnswered{MessageID: e.MessageID, EntryID: by.EntryID}
	sender, ok := d.senders[begun.Outbound.SenderID]
	if !ok {
		answer.Failed, answer.Reason = true, conversations.FailureSenderConfig
	} else {
		d.call(ctx, sender, *begun.Outbound, begun.Message.Tries, &answer)
	}
	return d.record(ctx, e.ContactID, answer)
}

// call sends one message and notes the provider's answer.
func (d *dispatcher) call(ctx context.Context, sender *liveSender, out conversations.Outbound, tries int, answer *conversations.MessageAnswered) {
	call, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	began := time.Now()
	sent, err := sender.provider.Send(call, out)
	d.metrics.seconds.WithLabelValues(sender.Provider).Observe(time.Since(began).Seconds())
	if err == nil {
		answer.Sent = sent
		d.metrics.sent.WithLabelValues(sender.Provider, string(out.Purpose), "accepted", "").Inc()
		return
	}
	var failure *providers.Failure
	if !errors.As(err, &failure) {
		failure = &providers.Failure{Reason: conversations.FailureUnknown, Unknown: true, Err: err}
	}
	answer.Failed, answer.Reason, answer.ErrorCode = true, failure.Reason, failure.Code
	outcome := "failed"
	switch {
	case failure.Unknown:
		answer.Failed, answer.Unknown = false, true
		outcome = "unknown"
	case failure.Retryable:
		if wait, again := d.retry.wait(tries, failure.RetryAfter); again {
			answer.RetryIn = wait
			outcome = "retry"
		}
	}
	d.metrics.sent.WithLabelValues(sender.Provider, string(out.Purpose), outcome, string(failure.Reason)).Inc()
	d.log.WarnContext(ctx, "a provider did not accept a message", "provider", sender.Provider, "sender", sender.ID,
		"message_id", out.MessageID, "outcome", outcome, "reason", failure.Reason, "code", failure.Code, "error", failure.Err)
}

// inquire asks the merchant's platform what became of an attempt. If it cannot
// be asked, the next question of the timetable is waited for.
func (d *dispatcher) inquire(ctx context.Context, e conversations.OutboxEntry, by conversations.Delivery) error {
	r, err := d.store.Request(ctx, e.RequestID)
	if err != nil {
		return err
	}
	a := r.Attempt(e.Attempt)
	asker, ok := d.platforms[r.MerchantID].(platforms.Inquirer)
	if a == nil || !ok {
		return fmt.Errorf("no platform to ask about attempt %d of %s: %w", e.Attempt, e.RequestID, conversations.ErrPoison)
	}
	call, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	result, err := asker.Inquire(call, *a)
	if err != nil {
		d.log.WarnContext(ctx, "the platform could not be asked about an attempt", "payment_request_id", r.ID, "attempt", a.N, "error", err)
		result = conversations.Result{Outcome: conversations.OutcomeUnknown}
	}
	d.metrics.inquiries.WithLabelValues(a.Platform, string(result.Outcome)).Inc()
	if result.Outcome != conversations.OutcomeUnknown {
		d.log.InfoContext(ctx, "an attempt was asked after", "audit", true, "payment_request_id", r.ID, "attempt", a.N, "outcome", result.Outcome, "payment_id", result.PaymentID)
	}
	return d.record(ctx, e.ContactID, conversations.AttemptAnswered{RequestID: r.ID, Attempt: a.N, Result: result, Asked: true, EntryID: by.EntryID})
}

// operate carries out an operation at the platform. A reversal or void may be
// sent again: the platform refuses the second.
func (d *dispatcher) operate(ctx context.Context, e conversations.OutboxEntry, by conversations.Delivery) error {
	r, err := d.store.Request(ctx, e.RequestID)
	if err != nil {
		return err
	}
	op := operationOf(r, e.Operation)
	if op == nil {
		return fmt.Errorf("no operation %s: %w", e.Operation, conversations.ErrPoison)
	}
	if op.State == conversations.OperationSucceeded || op.State == conversations.OperationFailed {
		return d.record(ctx, e.ContactID, conversations.OperationAnswered{RequestID: r.ID, OperationID: op.ID, State: op.State, EntryID: by.EntryID})
	}
	answer := conversations.OperationAnswered{RequestID: r.ID, OperationID: op.ID, State: conversations.OperationUnsettled, EntryID: by.EntryID}
	attempt := r.Attempt(op.Attempt)
	reverser, ok := d.platforms[r.MerchantID].(platforms.Reverser)
	if attempt == nil || !ok {
		return fmt.Errorf("no platform to reverse attempt %d of %s: %w", op.Attempt, r.ID, conversations.ErrPoison)
	}
	call, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	state, reason, err := reverser.Reverse(call, *op, *attempt)
	answer.State, answer.Error = state, reason
	if err != nil {
		d.log.WarnContext(ctx, "an operation was not carried out, or nobody knows", "payment_request_id", r.ID, "operation", op.ID, "state", state, "error", err)
		if state != conversations.OperationPending { // pending: it surely was not, and is tried again
			answer.State = conversations.OperationUnsettled
		}
	}
	d.metrics.operations.WithLabelValues(string(op.Kind), string(answer.State)).Inc()
	d.log.InfoContext(ctx, "money was asked to be given back", "audit", true, "payment_request_id", r.ID, "operation", op.ID,
		"kind", op.Kind, "amount", op.Amount.Decimal(), "currency", op.Amount.Currency, "state", answer.State)
	return d.record(ctx, e.ContactID, answer)
}

func operationOf(r *conversations.PaymentRequest, id string) *conversations.Operation {
	for i := range r.Operations {
		if r.Operations[i].ID == id {
			return &r.Operations[i]
		}
	}
	return nil
}

// record commits an outcome, trying again while Redis does not answer.
func (d *dispatcher) record(ctx context.Context, contactID string, event conversations.Event) error {
	ctx, cancel := context.WithTimeout(ctx, recordWithin)
	defer cancel()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		_, err := d.store.Apply(ctx, contactID, event, conversations.Once{})
		if conversations.CodeOf(err) != conversations.CodeUnavailable {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}
