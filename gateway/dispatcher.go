package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
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
	senders   func() map[string]*outgoing          // in force
	platforms func() map[string]platforms.Platform // by merchant, in force
	within    time.Duration                        // of one call
	ownFor    time.Duration                        // how long an entry is surely ours, counted from its delivery
	retry     retryPolicy
	metrics   *dispatchMetrics
	log       *slog.Logger

	marks   chan struct{} // one for each customer who is being told that we read
	marking sync.WaitGroup
}

// marksAtOnce bounds how many customers are told at once that their message was
// read. It is a courtesy: beyond it nobody waits.
const marksAtOnce = 32

// newDispatcher makes a dispatcher. It asks for the senders and platforms in
// force each time that it needs one.
func newDispatcher(store *conversations.Store, senders func() map[string]*outgoing, paid func() map[string]platforms.Platform, c DispatcherConfig, metrics *dispatchMetrics, log *slog.Logger) *dispatcher {
	return &dispatcher{
		store: store, senders: senders, platforms: paid, within: c.SendTimeout, ownFor: c.ClaimIdle * 2 / 3, // a claim is renewed each third of that
		retry: retryPolicy{First: c.RetryAfter, Tries: c.MaxTries}, metrics: metrics, log: log,
		marks: make(chan struct{}, marksAtOnce),
	}
}

// wait returns when nothing is under way beside the work itself.
func (d *dispatcher) wait() { d.marking.Wait() }

// full counts an entry whose lane had no room: a message was put off, other
// work waits to be claimed again.
func (d *dispatcher) full(e conversations.OutboxEntry) {
	lane := otherWork
	if s, ok := d.senders()[e.SenderID]; ok {
		lane = s.ID
	}
	d.metrics.waits.WithLabelValues(lane, string(waitFull)).Inc()
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
	// Beside a newer version it is left to that one, which claims it in its turn.
	return fmt.Errorf("outbox entry of kind %q, which a newer version may know", e.Kind)
}

// send waits until the sender may send, moves the message to sending, calls the
// provider, and records what it said. A message found in sending had another
// worker, which died or lost its answer: the commit then awaits the echo and
// allows nothing.
func (d *dispatcher) send(ctx context.Context, e conversations.OutboxEntry, by conversations.Delivery) error {
	sender, err := d.senderOf(ctx, e)
	if err != nil {
		return err
	}
	outcome := errNotCalled
	var hold *conversations.Hold
	if sender != nil {
		if hold = sender.held(ctx); hold == nil || !hold.Fail {
			hold = nil
			done, put, turned, err := sender.clear(ctx, e.ContactID)
			if turned {
				d.metrics.waits.WithLabelValues(sender.ID, string(waitTurn)).Inc()
			}
			if err != nil {
				return err
			}
			if put != nil {
				return d.putOff(ctx, sender, e, by, *put)
			}
			defer func() { done(outcome) }()
		}
	}
	begun, err := d.store.Apply(ctx, e.ContactID, conversations.SendingStarted{MessageID: e.MessageID, EntryID: by.EntryID}, conversations.Once{})
	if err != nil {
		return err
	}
	if begun.Outbound == nil {
		return nil
	}
	out, answer := *begun.Outbound, conversations.MessageAnswered{MessageID: e.MessageID, EntryID: by.EntryID}
	if sender == nil || sender.ID != out.SenderID {
		sender = d.senders()[out.SenderID] // the entry did not say, or something else
	}
	switch {
	case sender == nil:
		answer.Failed, answer.Reason = true, conversations.FailureSenderConfig
	case hold != nil:
		d.refuse(sender, out, &answer, hold.Reason, hold.Code)
	default:
		if reason, word := sender.refused(ctx, out); reason != "" {
			d.refuse(sender, out, &answer, reason, word)
			break
		}
		if begun.Message.Tries == 1 {
			d.markRead(sender, out)
		}
		outcome = d.call(ctx, sender, out, begun.Message.Tries, &answer)
	}
	_, err = d.record(ctx, e.ContactID, answer)
	return err
}

// senderOf returns the sender that an entry's message will go by, nil if it is
// not one of ours any more. Entries that older versions left do not name it.
func (d *dispatcher) senderOf(ctx context.Context, e conversations.OutboxEntry) (*outgoing, error) {
	if e.SenderID != "" {
		return d.senders()[e.SenderID], nil
	}
	found, err := d.store.Messages(ctx, e.ContactID, []string{e.MessageID})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return d.senders()[found[0].SenderID], nil
}

// putOff leaves a message for later, and makes room for others.
func (d *dispatcher) putOff(ctx context.Context, sender *outgoing, e conversations.OutboxEntry, by conversations.Delivery, put delay) error {
	d.metrics.waits.WithLabelValues(sender.ID, string(put.cause)).Inc()
	_, err := d.store.Apply(ctx, e.ContactID, conversations.SendingPutOff{MessageID: e.MessageID, EntryID: by.EntryID, For: put.wait}, conversations.Once{})
	return err
}

// refuse lets a message fail without a call, for a reason that a call would only
// repeat.
func (d *dispatcher) refuse(sender *outgoing, out conversations.Outbound, answer *conversations.MessageAnswered, reason conversations.FailureReason, code string) {
	answer.Failed, answer.Reason, answer.ErrorCode = true, reason, code
	d.metrics.sent.WithLabelValues(sender.Provider, sendNotTried, string(reason)).Inc()
}

// call sends one message and notes the provider's answer. One whose earlier
// outcome was lost is asked after first, where the provider can be asked. The
// error is for the circuit breaker.
func (d *dispatcher) call(ctx context.Context, sender *outgoing, out conversations.Outbound, tries int, answer *conversations.MessageAnswered) error {
	if asker, ok := sender.provider.(providers.Asker); ok && out.Doubt != nil {
		if settled, err := d.ask(ctx, sender, asker, out, answer); settled {
			return err
		}
	}
	call, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	began := time.Now()
	sent, err := sender.provider.Send(call, out)
	d.metrics.seconds.WithLabelValues(sender.Provider).Observe(time.Since(began).Seconds())
	if err == nil {
		answer.Sent = sent
		d.metrics.sent.WithLabelValues(sender.Provider, sendAccepted, "").Inc()
		d.log.InfoContext(ctx, "a provider accepted a message", "provider", sender.Provider, "sender", sender.ID, "message_id", out.MessageID, "purpose", out.Purpose)
		return nil
	}
	d.judge(ctx, sender, out, tries, failureOf(err), answer)
	return err
}

// ask asks the provider whether it has a message whose answer was lost, and
// tells whether that settled this try.
func (d *dispatcher) ask(ctx context.Context, sender *outgoing, asker providers.Asker, out conversations.Outbound, answer *conversations.MessageAnswered) (settled bool, err error) {
	call, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	sent, found, err := asker.Ask(call, out)
	outcome := "not_found"
	switch {
	case err != nil:
		outcome, answer.Unknown = "failed", true
		d.log.WarnContext(ctx, "a provider could not be asked about a message", "provider", sender.Provider, "sender", sender.ID, "message_id", out.MessageID, "error", err)
	case found:
		outcome, answer.Sent = "found", sent
	}
	d.metrics.questions.WithLabelValues(sender.Provider, outcome).Inc()
	return err != nil || found, err
}

// failureOf reads an adapter's error. One that is not of the contract says
// nothing: the message may be on its way.
func failureOf(err error) *providers.Failure {
	var failure *providers.Failure
	if errors.As(err, &failure) {
		return failure
	}
	return &providers.Failure{Reason: conversations.FailureUnknown, Unknown: true, Err: err}
}

// judge decides what follows from a failure: another try, an echo to be awaited,
// or the end; and whether the sender is held back.
func (d *dispatcher) judge(ctx context.Context, sender *outgoing, out conversations.Outbound, tries int, failure *providers.Failure, answer *conversations.MessageAnswered) {
	answer.Failed, answer.Reason, answer.ErrorCode = true, failure.Reason, failure.Code
	outcome := sendFailed
	switch {
	case failure.Unknown:
		answer.Failed, answer.Unknown = false, true
		outcome = sendUnknown
	case failure.Retryable:
		if wait, again := d.retry.wait(failure, tries); again {
			answer.RetryIn = wait
			outcome = sendRetried
		}
	}
	if h := holdFor(failure, answer.RetryIn, d.store.Now()); h != nil {
		d.metrics.holds.WithLabelValues(sender.ID, string(h.Reason)).Inc()
		sender.hold(ctx, *h)
		d.log.WarnContext(ctx, "a sender is held back", "sender", sender.ID, "provider", sender.Provider, "reason", h.Reason, "code", h.Code, "until", h.Until, "fails", h.Fail)
	}
	d.metrics.sent.WithLabelValues(sender.Provider, outcome, string(failure.Reason)).Inc()
	d.log.WarnContext(ctx, "a provider did not accept a message", "provider", sender.Provider, "sender", sender.ID,
		"message_id", out.MessageID, "outcome", outcome, "reason", failure.Reason, "code", failure.Code, "error", failure.Err)
}

// holdFor returns what a failure means for the sender's other messages, or nil.
// What concerns our credentials or account concerns them all, unless the
// adapter knows that it is about this customer.
func holdFor(f *providers.Failure, retryIn time.Duration, now time.Time) *conversations.Hold {
	ours := f.Reason == conversations.FailureAuth || f.Reason == conversations.FailureAccount
	switch {
	case f.Unknown, !ours && f.Scope != providers.ScopeSender, ours && f.Scope == providers.ScopePair:
		return nil
	case !ours && f.Retryable && f.Tries != 1: // one try in all: no wait would help
		if wait := max(retryIn, f.RetryAfter); wait > 0 {
			return &conversations.Hold{Reason: f.Reason, Code: f.Code, Until: now.Add(wait)}
		}
		return nil
	}
	return &conversations.Hold{Reason: f.Reason, Code: f.Code, Until: now.Add(max(providers.FailFor, f.RetryAfter)), Fail: true}
}

// markRead tells the customer beside the answer that their message was read.
// Nothing waits for it.
func (d *dispatcher) markRead(sender *outgoing, out conversations.Outbound) {
	reader, ok := sender.provider.(providers.Reader)
	if !ok || out.InReplyTo == "" {
		return
	}
	select {
	case d.marks <- struct{}{}:
	default:
		d.metrics.marks.WithLabelValues(sender.Provider, "left_out").Inc()
		return
	}
	d.marking.Go(func() {
		defer func() { <-d.marks }()
		ctx, cancel := context.WithTimeout(context.Background(), d.within)
		defer cancel()
		outcome := "done"
		// That an answer is being written would show after the answer.
		if err := reader.MarkRead(ctx, out.InReplyTo, false); err != nil {
			outcome = "failed"
			d.log.DebugContext(ctx, "a message could not be marked as read", "provider", sender.Provider, "sender", sender.ID, "error", err)
		}
		d.metrics.marks.WithLabelValues(sender.Provider, outcome).Inc()
	})
}

// record commits an outcome, trying again while Redis does not answer.
func (d *dispatcher) record(ctx context.Context, contactID string, event conversations.Event) (conversations.Applied, error) {
	ctx, cancel := context.WithTimeout(ctx, recordWithin)
	defer cancel()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		applied, err := d.store.Apply(ctx, contactID, event, conversations.Once{})
		if conversations.CodeOf(err) != conversations.CodeUnavailable {
			return applied, err
		}
		if pause(ctx, wait) != nil {
			return applied, err
		}
	}
}
