package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// till is a platform whose answers a test decides, and which counts its calls.
type till struct {
	platforms.Platform
	answer   func(op conversations.Operation, n int) (platforms.OperationResult, error)
	inquired conversations.Result
	after    time.Duration // of time-out reversals
	taken    conversations.Result
	takenErr error

	mu    sync.Mutex
	calls []string
}

func (p *till) call(what string, op conversations.Operation) (platforms.OperationResult, error) {
	p.mu.Lock()
	p.calls = append(p.calls, what+" "+op.Amount.Decimal())
	n := len(p.calls)
	p.mu.Unlock()
	return p.answer(op, n)
}

func (p *till) Capture(_ context.Context, op conversations.Operation, _ conversations.Attempt) (platforms.OperationResult, error) {
	return p.call("capture", op)
}

func (p *till) Refund(_ context.Context, op conversations.Operation, _ conversations.Attempt) (platforms.OperationResult, error) {
	return p.call("refund", op)
}

func (p *till) Reverse(_ context.Context, op conversations.Operation, _ conversations.Attempt) (platforms.OperationResult, error) {
	return p.call("reverse", op)
}

func (p *till) Inquire(context.Context, conversations.Attempt) (conversations.Result, error) {
	return p.inquired, nil
}

func (p *till) TimeoutReversalAfter() time.Duration { return p.after }

func (p *till) ReverseUnsettled(ctx context.Context, a conversations.Attempt) (conversations.Result, error) {
	if _, ends := ctx.Deadline(); !ends {
		return conversations.Result{}, errors.New("the right to take it back has no end")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, "take back "+a.Amount.Decimal())
	return p.taken, p.takenErr
}

func (p *till) called() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.calls, ", ")
}

// tillBench is a merchant with that platform and a dispatcher that runs.
type tillBench struct {
	*dispatchBench
	till       *till
	dispatcher *dispatcher
}

func newTillBench(t *testing.T, p *till) *tillBench {
	t.Helper()
	b := &tillBench{dispatchBench: newDispatchBench(t, newCompany(takesAll), newCompany(takesAll)), till: p}
	timings := &b.options.Timings
	timings.SendWithin, timings.RecoverAfter = 300*time.Millisecond, 400*time.Millisecond
	for step := 600 * time.Millisecond; step < longestWait; step = step * 3 / 2 { // a busy machine may miss the first ones
		timings.AskAfter = append(timings.AskAfter, step)
	}
	timings.RetryOperationIn, timings.CallLife = 20*time.Millisecond, 20*time.Millisecond
	b.store = b.connect()
	b.dispatcher = b.start("a", func(d *dispatcher) {
		d.platforms = always(map[string]platforms.Platform{"acme": p})
		d.log = slog.New(slog.DiscardHandler)
		d.metrics = newDispatchMetrics(prometheus.NewRegistry())
	})
	return b
}

// charged makes a payment request whose customer has submitted a card; with an
// outcome it is answered.
func (b *tillBench) charged(outcome conversations.Outcome) *conversations.PaymentRequest {
	b.t.Helper()
	_, contacts := b.ask(conversations.SMS, 1)
	contact, err := b.store.Contact(b.t.Context(), contacts[0])
	if err != nil {
		b.t.Fatal(err)
	}
	id := contact.Requests[0]
	b.apply(contacts[0], conversations.LinkOpened{RequestID: id})
	started := b.apply(contacts[0], conversations.AttemptStarted{RequestID: id, Platform: "unified_checkout", TokenExpiresAt: b.store.Now().Add(time.Minute)})
	if outcome == "" {
		return started
	}
	return b.apply(contacts[0], conversations.AttemptAnswered{RequestID: id, Attempt: 1, Result: conversations.Result{Outcome: outcome, PaymentID: "7001", Amount: started.Order.Total}})
}

func (b *tillBench) apply(contactID string, e conversations.Event) *conversations.PaymentRequest {
	b.t.Helper()
	a, err := b.store.Apply(b.t.Context(), contactID, e, conversations.Once{})
	if err != nil || a.Refused != nil || a.Request == nil {
		b.t.Fatalf("%s: %v, %v", e.Kind(), err, a.Refused)
	}
	return a.Request
}

func (b *tillBench) awaitRequest(id, what string, is func(*conversations.PaymentRequest) bool) *conversations.PaymentRequest {
	b.t.Helper()
	var r *conversations.PaymentRequest
	b.await(what, func() bool {
		var err error
		if r, err = b.store.Request(b.t.Context(), id); err != nil {
			b.t.Fatal(err)
		}
		return is(r)
	})
	return r
}

var errLine = errors.New("the line was cut")

// TestOperate: each kind goes to its call, and each answer is recorded as what it
// is. One whose outcome nobody knows is given to the platform again, which looks
// for it first.
func TestOperate(t *testing.T) {
	t.Parallel()
	done := platforms.OperationResult{State: conversations.OperationSucceeded, ID: "8001", ReconciliationID: "REC"}
	for _, c := range []struct {
		name   string
		asked  conversations.OperationKind
		answer func(conversations.Operation, int) (platforms.OperationResult, error)
		calls  string
		kind   conversations.OperationKind
		state  conversations.OperationState
		word   string
		counts map[conversations.OperationState]float64
	}{
		{"a refund", conversations.OperationRefund, func(conversations.Operation, int) (platforms.OperationResult, error) { return done, nil },
			"refund 149.00", conversations.OperationRefund, conversations.OperationSucceeded, "", map[conversations.OperationState]float64{conversations.OperationSucceeded: 1}},
		{"a void", conversations.OperationReversal, func(conversations.Operation, int) (platforms.OperationResult, error) { return done, nil },
			"reverse 149.00", conversations.OperationVoid, conversations.OperationSucceeded, "", map[conversations.OperationState]float64{conversations.OperationSucceeded: 1}},
		{"refused", conversations.OperationReversal, func(conversations.Operation, int) (platforms.OperationResult, error) {
			return platforms.OperationResult{State: conversations.OperationFailed, Reason: conversations.ErrorSettled}, nil
		}, "reverse 149.00", conversations.OperationVoid, conversations.OperationFailed, conversations.ErrorSettled, map[conversations.OperationState]float64{conversations.OperationFailed: 1}},
		{"not this time", conversations.OperationRefund, func(_ conversations.Operation, n int) (platforms.OperationResult, error) {
			if n < 3 {
				return platforms.OperationResult{State: conversations.OperationPending, Reason: "NOT_SENT"}, errLine
			}
			return done, nil
		}, "refund 149.00, refund 149.00, refund 149.00", conversations.OperationRefund, conversations.OperationSucceeded, "", map[conversations.OperationState]float64{conversations.OperationPending: 2, conversations.OperationSucceeded: 1}},
		{"lost", conversations.OperationRefund, func(op conversations.Operation, n int) (platforms.OperationResult, error) {
			switch {
			case n == 1:
				return platforms.OperationResult{State: conversations.OperationUnsettled, Reason: "NO_ANSWER"}, errLine
			case op.State != conversations.OperationUnsettled:
				return platforms.OperationResult{}, errors.New("it was not told that it may have been done")
			}
			return done, nil
		}, "refund 149.00, refund 149.00", conversations.OperationRefund, conversations.OperationSucceeded, "", map[conversations.OperationState]float64{conversations.OperationUnsettled: 1, conversations.OperationSucceeded: 1}},
		{"silence", conversations.OperationRefund, func(_ conversations.Operation, n int) (platforms.OperationResult, error) {
			if n == 1 {
				return platforms.OperationResult{}, nil
			}
			return done, nil
		}, "refund 149.00, refund 149.00", conversations.OperationRefund, conversations.OperationSucceeded, "", map[conversations.OperationState]float64{conversations.OperationUnsettled: 1, conversations.OperationSucceeded: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newTillBench(t, &till{answer: c.answer})
			r := b.charged(conversations.OutcomeCaptured)
			r = b.apply(r.ContactID, conversations.OperationRequested{RequestID: r.ID, Operation: c.asked})
			r = b.awaitRequest(r.ID, "the operation is settled", func(r *conversations.PaymentRequest) bool {
				return r.Operations[0].SettledAt != nil
			})
			op := r.Operations[0]
			if op.Kind != c.kind || op.State != c.state || op.Error != c.word || b.till.called() != c.calls {
				t.Errorf("%s is %s (%s), calls %q, want %q", op.Kind, op.State, op.Error, b.till.called(), c.calls)
			}
			if op.State == conversations.OperationSucceeded && (op.ResultID != "8001" || op.ReconciliationID != "REC") {
				t.Errorf("it is known as %q, %q", op.ResultID, op.ReconciliationID)
			}
			for state, want := range c.counts {
				if got := testutil.ToFloat64(b.dispatcher.metrics.operations.WithLabelValues(string(op.Kind), string(state))); got != want {
					t.Errorf("%s counted %v, want %v", state, got, want)
				}
			}
			b.idle()
		})
	}
}

// TestOperateWithoutAPlatform: what nobody can do is parked for a person, and
// the operation stays as it was.
func TestOperateWithoutAPlatform(t *testing.T) {
	t.Parallel()
	b := newTillBench(t, &till{})
	r := b.charged(conversations.OutcomeCaptured)
	d := &dispatcher{store: b.store, platforms: always(map[string]platforms.Platform{"acme": struct{ platforms.Platform }{}}), log: slog.New(slog.DiscardHandler)}
	r.Operations = append(r.Operations, conversations.Operation{})
	for _, operation := range []string{r.ID + "-op1", "no such"} {
		err := d.operate(t.Context(), conversations.OutboxEntry{Kind: conversations.OutboxOperation, ContactID: r.ContactID, RequestID: r.ID, Operation: operation}, conversations.Delivery{EntryID: "1-1"})
		if !errors.Is(err, conversations.ErrPoison) {
			t.Errorf("%s: %v", operation, err)
		}
	}
	if err := d.Work(t.Context(), conversations.OutboxEntry{Kind: "newer"}, conversations.Delivery{}); err == nil || errors.Is(err, conversations.ErrPoison) {
		t.Errorf("what a newer version may know is not left to it: %v", err)
	}
	for _, kind := range []conversations.OperationKind{conversations.OperationCapture, conversations.OperationRefund, conversations.OperationReversal, conversations.OperationVoid} {
		if followOn(d.platforms()["acme"], kind) != nil || followOn(b.till, kind) == nil {
			t.Errorf("%s: a platform that cannot do it has a call, or one that can has none", kind)
		}
	}
}

// TestTakeBack: a charge that the search does not show is taken back once it is
// old enough, where the platform can, and only then may the customer pay again
// before the timetable ends.
func TestTakeBack(t *testing.T) {
	t.Parallel()
	reversed := conversations.Result{Outcome: conversations.OutcomeReversed}
	unknown := conversations.Result{Outcome: conversations.OutcomeUnknown}
	for _, c := range []struct {
		name    string
		till    *till
		state   conversations.AttemptState
		outcome string
		calls   bool
	}{
		{"taken back", &till{after: time.Millisecond, taken: reversed}, conversations.AttemptNotTaken, "reversed", true},
		{"nothing is known of it", &till{after: time.Millisecond, taken: unknown}, conversations.AttemptUnsettled, "unknown", true},
		{"the platform is away", &till{after: time.Millisecond, takenErr: errLine}, conversations.AttemptUnsettled, "failed", true},
		{"its processor does not know how", &till{taken: reversed}, conversations.AttemptUnsettled, "", false},
		{"too young", &till{after: time.Hour, taken: reversed}, conversations.AttemptUnsettled, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.till.inquired = conversations.Result{Outcome: conversations.OutcomeNotFound}
			b := newTillBench(t, c.till)
			r := b.charged("")
			r = b.awaitRequest(r.ID, "it was asked for twice, or settled", func(r *conversations.PaymentRequest) bool {
				return r.Attempts[0].Asked >= 2 && r.Attempts[0].AskAt != nil || r.Attempts[0].SettledAt != nil
			})
			if a := r.Attempts[0]; a.State != c.state || c.state == conversations.AttemptNotTaken && a.Result.Reason != reasonTakenBack {
				t.Errorf("the attempt is %s (%s), want %s", a.State, a.Result.Reason, c.state)
			}
			if called := strings.HasPrefix(b.till.called(), "take back 149.00"); called != c.calls {
				t.Errorf("calls %q", b.till.called())
			}
			for _, outcome := range timeoutOutcomes {
				if got := testutil.ToFloat64(b.dispatcher.metrics.timeouts.WithLabelValues("unified_checkout", outcome)); (got > 0) != (outcome == c.outcome) {
					t.Errorf("%s counted %v", outcome, got)
				}
			}
		})
	}
}

// TestNothingIsTakenBackThatWasFound: whatever else the search says, a charge
// that is known, or declined, or with the customer, is left alone.
func TestNothingIsTakenBackThatWasFound(t *testing.T) {
	t.Parallel()
	b := newTillBench(t, &till{after: time.Nanosecond, taken: conversations.Result{Outcome: conversations.OutcomeReversed}})
	now := b.store.Now()
	for _, state := range []conversations.AttemptState{
		conversations.AttemptSending, conversations.AttemptUnsettled, conversations.AttemptAuthenticating, conversations.AttemptReversing, conversations.AttemptInReview,
		conversations.AttemptAuthorized, conversations.AttemptCaptured, conversations.AttemptDeclined, conversations.AttemptNotTaken, conversations.AttemptNotFound, conversations.AttemptReversed,
	} {
		want := state == conversations.AttemptSending || state == conversations.AttemptUnsettled
		if got := b.dispatcher.mayTakeBack(b.till, conversations.Attempt{State: state, SendBy: now.Add(-time.Second)}); got != want {
			t.Errorf("%s: %t", state, got)
		}
		if b.dispatcher.mayTakeBack(b.till, conversations.Attempt{State: state, SendBy: now.Add(time.Minute)}) {
			t.Errorf("%s: while it may still be sent", state)
		}
	}
	// Found by a notification while the search was asked: read again just before.
	r := b.charged(conversations.OutcomeCaptured)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	searched := conversations.Result{Outcome: conversations.OutcomeNotFound}
	if got := b.dispatcher.takeBack(ctx, b.till, r, 1, searched); got != searched || b.till.called() != "" {
		t.Errorf("it came to %v, calls %q", got, b.till.called())
	}
	if fmt.Sprint(b.request(r.ID).Lifecycle) != "paid" {
		t.Error("it is not paid any more")
	}
}

func (b *tillBench) request(id string) *conversations.PaymentRequest {
	b.t.Helper()
	r, err := b.store.Request(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}
