package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// heldRequests is a store of payment requests that notes what is applied.
type heldRequests struct {
	mu       sync.Mutex
	requests map[string]*conversations.PaymentRequest
	applied  []string                        // in words
	keys     map[string]bool                 // that were used up
	refuse   *conversations.Error            // answered to every event
	down     error                           // returned by everything
	wait     time.Duration                   // answered by Throttle
	late     time.Duration                   // how long after auditNow it is
	asked    []string                        // throttles
	pages    []*conversations.PaymentRequest // of Requests

	invalid    bool // every event is refused as wrong
	unbalanced bool // what is found is more than there was
}

func (h *heldRequests) Request(_ context.Context, id string) (*conversations.PaymentRequest, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down != nil {
		return nil, h.down
	}
	if r, ok := h.requests[id]; ok {
		return r, nil
	}
	return nil, conversations.NotFound("payment request")
}

func (h *heldRequests) Requests(context.Context, conversations.Filter, string, int) ([]*conversations.PaymentRequest, string, error) {
	return h.pages, "", h.down
}

func (h *heldRequests) Throttle(_ context.Context, name string, _ conversations.Rate) (time.Duration, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, name)
	return h.wait, h.down
}

func (h *heldRequests) Now() time.Time { return auditNow.Add(h.late) }

func (h *heldRequests) Apply(_ context.Context, contactID string, event conversations.Event, once conversations.Once) (conversations.Applied, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down != nil {
		return conversations.Applied{}, h.down
	}
	if h.invalid {
		return conversations.Applied{}, conversations.Invalid("amount.currency", "another currency")
	}
	if once.Key != "" {
		if h.keys[once.Key] {
			return conversations.Applied{Duplicate: true}, nil
		}
		if h.keys == nil {
			h.keys = map[string]bool{}
		}
		h.keys[once.Key] = true
	}
	h.applied = append(h.applied, contactID+" "+eventWords(event))
	return conversations.Applied{Refused: h.refuse, Request: h.after(event)}, nil
}

// after returns a request with the operation that was found, where it is none of
// ours.
func (h *heldRequests) after(event conversations.Event) *conversations.PaymentRequest {
	e, ok := event.(conversations.OperationFound)
	if !ok {
		return nil
	}
	r := *h.requests[e.RequestID]
	r.Unbalanced = h.unbalanced
	if operationOf(&r, e.Code) == nil {
		r.Operations = append(slices.Clone(r.Operations), conversations.Operation{ID: "new", ResultID: e.PlatformID})
	}
	return &r
}

func (h *heldRequests) took() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.applied)
}

// eventWords writes the events about money in short.
func eventWords(event conversations.Event) string {
	switch e := event.(type) {
	case conversations.AttemptAnswered:
		return fmt.Sprintf("answered %s %d %s asked=%t", e.RequestID, e.Attempt, e.Result.Outcome, e.Asked)
	case conversations.OperationFound:
		whose := ""
		if ref, ok := readReference(e.Code); ok && ref.operation != "" {
			whose = ", ours"
		}
		return fmt.Sprintf("found %s %d %s %s as %s on %s%s", e.RequestID, e.Attempt, e.Operation, e.Amount.Decimal(), e.PlatformID, e.PaymentID, whose)
	case conversations.AttemptNotified:
		return fmt.Sprintf("notified %s %d", e.RequestID, e.Attempt)
	case conversations.ReviewDecided:
		return fmt.Sprintf("review %s %d accepted=%t", e.RequestID, e.Attempt, e.Accepted)
	}
	return fmt.Sprintf("%T", event)
}

// books is a platform that lists what it did.
type books struct {
	platforms.Platform
	mu     sync.Mutex
	all    []platforms.Found
	down   error
	asked  []string // single transactions
	unread string   // a transaction that cannot be read
}

func (b *books) Transactions(_ context.Context, from, to time.Time, each func(platforms.Found) error) error {
	if b.down != nil {
		return b.down
	}
	for _, f := range b.all {
		if f.At.Before(from) || f.At.After(to) {
			continue
		}
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

func (b *books) Transaction(_ context.Context, id string) (platforms.Found, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, id)
	if b.down != nil || id == b.unread && id != "" {
		return platforms.Found{}, false, errors.Join(b.down, io.ErrUnexpectedEOF)
	}
	for _, f := range b.all {
		if f.ID == id {
			return f, true, nil
		}
	}
	return platforms.Found{}, false, nil
}

var (
	auditNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	inCents  = func(minor int64) conversations.Money { return conversations.Money{Minor: minor, Currency: "ZAR"} }
	silent   = slog.New(slog.DiscardHandler)
)

const auditedRequest = "pr_0k3v9m2x7c1d5f8g4h6j"

// audited is a payment request with one attempt in a state, paid at the platform
// as 7001 if it took money, and operations.
func audited(state conversations.AttemptState, operations ...conversations.Operation) *conversations.PaymentRequest {
	a := conversations.Attempt{
		N: 1, Code: auditedRequest + "-1", Platform: "unified_checkout", State: state, Amount: inCents(14900), Capture: true,
		StartedAt: auditNow.Add(-3 * time.Hour),
	}
	if ourMoney(state) {
		a.Result = conversations.Result{Outcome: conversations.OutcomeCaptured, PaymentID: "7001", Amount: inCents(14900)}
	}
	return &conversations.PaymentRequest{
		ID: auditedRequest, MerchantID: "acme", ContactID: "c_0", CreatedAt: auditNow.Add(-4 * time.Hour), Order: conversations.Order{Reference: "1042", Total: inCents(14900)},
		Attempts: []conversations.Attempt{a}, Operations: operations,
	}
}

func operationWith(n int, kind conversations.OperationKind, state conversations.OperationState, minor int64, resultID string) conversations.Operation {
	return conversations.Operation{
		ID: fmt.Sprintf("%s-op%d", auditedRequest, n), Kind: kind, Attempt: 1, PaymentID: "7001", Amount: inCents(minor), State: state,
		Reason: conversations.OperationAsked, StartedAt: auditNow.Add(-2 * time.Hour), ResultID: resultID,
	}
}

// payment and followOn are transactions in the platform's books.
func paymentFound(id, code string, outcome conversations.Outcome) platforms.Found {
	return platforms.Found{
		ID: id, RootID: id, Code: code, Amount: inCents(14900), Succeeded: slices.Contains(held, outcome), At: auditNow.Add(-3 * time.Hour),
		Result: conversations.Result{Outcome: outcome, PaymentID: id, Amount: inCents(14900)},
	}
}

func followOnFound(id, code string, kind conversations.OperationKind, minor int64) platforms.Found {
	return platforms.Found{ID: id, PaymentID: "7001", RootID: "7001", Code: code, Operation: kind, Amount: inCents(minor), Succeeded: true, At: auditNow.Add(-time.Hour)}
}

func TestReadReference(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]reference{
		auditedRequest + "-1":   {requestID: auditedRequest, attempt: 1},
		auditedRequest + "-17":  {requestID: auditedRequest, attempt: 17},
		auditedRequest + "-op2": {requestID: auditedRequest, operation: auditedRequest + "-op2"},
	} {
		if got, ok := readReference(code); !ok || got != want {
			t.Errorf("%s: %+v, %t", code, got, ok)
		}
	}
	for _, code := range []string{
		"", "INV-1001", "INV-1001-2", auditedRequest, auditedRequest + "-", auditedRequest + "-0", auditedRequest + "-01", auditedRequest + "-op", auditedRequest + "-op0",
		"x" + auditedRequest + "-1", auditedRequest + "-1 OR code:*", auditedRequest + "-99999", "pr_" + strings.Repeat("0", 80) + "-1", "PR_0K3V9M2X7C1D5F8G4H6J-1",
	} {
		if got, ok := readReference(code); ok {
			t.Errorf("%q is taken for %+v", code, got)
		}
	}
}

// TestLearn: what each transaction tells, by what is known of it.
func TestLearn(t *testing.T) {
	t.Parallel()
	const code, op1 = auditedRequest + "-1", auditedRequest + "-op1"
	refund := conversations.OperationRefund
	for _, c := range []struct {
		name    string
		request *conversations.PaymentRequest
		found   platforms.Found
		others  []platforms.Found // in the books
		met     []platforms.Found // before it
		want    moneyNews
		applied string
	}{
		{name: "a payment that is known", request: audited(conversations.AttemptCaptured), found: paymentFound("7001", code, conversations.OutcomeCaptured)},
		{name: "one held to be not found", request: audited(conversations.AttemptNotFound), found: paymentFound("7001", code, conversations.OutcomeCaptured),
			want: findingPayment, applied: "c_0 answered " + auditedRequest + " 1 captured asked=true"},
		{name: "one held to be not taken", request: audited(conversations.AttemptNotTaken), found: paymentFound("7001", code, conversations.OutcomeAuthorized),
			want: findingPayment, applied: "c_0 answered " + auditedRequest + " 1 authorized asked=true"},
		{name: "one of unknown outcome that was declined", request: audited(conversations.AttemptUnsettled), found: paymentFound("7001", code, conversations.OutcomeDeclined),
			want: findingPayment, applied: "c_0 answered " + auditedRequest + " 1 declined asked=true"},
		{name: "one of unknown outcome there, too", request: audited(conversations.AttemptUnsettled), found: paymentFound("7001", code, conversations.OutcomeUnknown)},
		{name: "one that may still be on its way", request: audited(conversations.AttemptSending), found: paymentFound("7001", code, conversations.OutcomeCaptured)},
		{name: "a decline that is known", request: audited(conversations.AttemptDeclined), found: paymentFound("7001", code, conversations.OutcomeDeclined)},
		{name: "another amount", request: audited(conversations.AttemptCaptured), want: findingAmount, found: func() platforms.Found {
			f := paymentFound("7001", code, conversations.OutcomeCaptured)
			f.Amount = inCents(14901)
			return f
		}()},
		{name: "somebody else's", request: audited(conversations.AttemptNotFound), found: paymentFound("7001", "SHOP-77", conversations.OutcomeCaptured)},
		{name: "no such request", request: audited(conversations.AttemptNotFound), found: paymentFound("7001", "pr_1k3v9m2x7c1d5f8g4h6j-1", conversations.OutcomeCaptured), want: findingNoRequest},
		{name: "a second charge by one reference", request: audited(conversations.AttemptCaptured), found: paymentFound("7002", code, conversations.OutcomeCaptured), want: findingAmount},
		{name: "what gives a second charge back", request: audited(conversations.AttemptCaptured), found: func() platforms.Found {
			f := followOnFound("8001", code, conversations.OperationVoid, 14900)
			f.PaymentID, f.RootID = "7002", "7002"
			return f
		}(), met: []platforms.Found{paymentFound("7001", code, conversations.OutcomeCaptured), paymentFound("7002", code, conversations.OutcomeCaptured)}},
		{name: "a decline before it by the same reference", request: audited(conversations.AttemptCaptured), found: paymentFound("7002", code, conversations.OutcomeDeclined)},
		{name: "a decline that was forgotten", request: audited(conversations.AttemptNotFound), found: paymentFound("7001", auditedRequest+"-2", conversations.OutcomeDeclined)},
		{name: "no such attempt, and it does not say what it was", request: audited(conversations.AttemptNotFound), found: paymentFound("7001", auditedRequest+"-2", conversations.OutcomeUnknown), want: findingNoRequest},
		{name: "no such attempt", request: audited(conversations.AttemptNotFound), found: paymentFound("7001", auditedRequest+"-2", conversations.OutcomeCaptured), want: findingNoRequest},

		{name: "a refund that is known by its number", request: audited(conversations.AttemptCaptured, operationWith(1, refund, conversations.OperationSucceeded, 1000, "8001")),
			found: followOnFound("8001", "any", refund, 1000)},
		{name: "one of ours of unknown outcome", request: audited(conversations.AttemptCaptured, operationWith(1, refund, conversations.OperationUnsettled, 1000, "")),
			found: followOnFound("8001", op1, refund, 1000), want: findingSettled, applied: "c_0 found " + auditedRequest + " 1 refund 10.00 as 8001 on 7001, ours"},
		{name: "one of ours that we hold to have failed", request: audited(conversations.AttemptCaptured, operationWith(1, refund, conversations.OperationFailed, 1000, "")),
			found: followOnFound("8001", op1, refund, 1000), want: findingSettled, applied: "c_0 found " + auditedRequest + " 1 refund 10.00 as 8001 on 7001, ours"},
		{name: "a reversal of ours that was found to have been done", request: audited(conversations.AttemptReversed, operationWith(1, conversations.OperationReversal, conversations.OperationSucceeded, 14900, "")),
			found: followOnFound("8001", "any", conversations.OperationReversal, 14900)},
		{name: "one from the back office, with the payment's reference", request: audited(conversations.AttemptCaptured), found: followOnFound("8001", code, refund, 500),
			want: findingOperation, applied: "c_0 found " + auditedRequest + " 1 refund 5.00 as 8001 on 7001"},
		{name: "one from the back office, with a reference of its own", request: audited(conversations.AttemptCaptured), found: followOnFound("8001", "CREDIT-9", refund, 500),
			others: []platforms.Found{paymentFound("7001", code, conversations.OutcomeCaptured)},
			want:   findingOperation, applied: "c_0 found " + auditedRequest + " 1 refund 5.00 as 8001 on 7001"},
		{name: "one on somebody else's payment", request: audited(conversations.AttemptCaptured), found: followOnFound("8001", "CREDIT-9", refund, 500),
			others: []platforms.Found{paymentFound("7001", "SHOP-77", conversations.OutcomeCaptured)}},
		{name: "one on a payment that does not show", request: audited(conversations.AttemptCaptured), found: followOnFound("8001", "CREDIT-9", refund, 500)},
		{name: "one that was refused there", request: audited(conversations.AttemptCaptured), found: func() platforms.Found {
			f := followOnFound("8001", code, refund, 500)
			f.Succeeded = false
			return f
		}()},
		{name: "the reversal of a charge that took nothing", request: audited(conversations.AttemptNotTaken), found: followOnFound("8001", code, conversations.OperationReversal, 14900)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: c.request}}
			learner := &transactions{store: store, log: silent}
			met := newMetTransactions()
			for _, other := range c.met {
				met.add(other)
			}
			got, err := learner.learn(t.Context(), "acme", &books{all: append(c.others, c.found)}, c.found, met)
			if err != nil || got != c.want {
				t.Errorf("it told %q, %v, want %q", got, err, c.want)
			}
			if took := strings.Join(store.took(), "; "); took != c.applied {
				t.Errorf("applied %q, want %q", took, c.applied)
			}
			store.applied = nil
			if got, err = learner.learn(t.Context(), "beta", &books{all: append(c.others, c.found)}, c.found, newMetTransactions()); len(store.took()) > 0 || err != nil || got != findingNone && got != findingNoRequest {
				t.Errorf("to another merchant it told %q, %v, and %q was applied", got, err, store.took())
			}
		})
	}
}

// TestLearnCompletesWhatIsSaidOfAnOperation: neither a list nor the details tell
// all, and what follows from what is known here need not be told.
func TestLearnCompletesWhatIsSaidOfAnOperation(t *testing.T) {
	t.Parallel()
	const op1 = auditedRequest + "-op1"
	void, refund := conversations.OperationVoid, conversations.OperationRefund
	pending := func(kind conversations.OperationKind, minor int64) conversations.Operation {
		return operationWith(1, kind, conversations.OperationUnsettled, minor, "")
	}
	captured := operationWith(1, conversations.OperationCapture, conversations.OperationSucceeded, 4900, "7002")
	for name, c := range map[string]struct {
		known   []conversations.Operation
		listed  platforms.Found
		details func(*platforms.Found)
		want    moneyNews
		applied string
	}{
		"details without reference and amount": {
			known: []conversations.Operation{pending(refund, 500)}, listed: followOnFound("8001", op1, refund, 500),
			details: func(f *platforms.Found) { f.Code, f.Amount = "", conversations.Money{} },
			want:    findingSettled, applied: "c_0 found " + auditedRequest + " 1 refund 5.00 as 8001 on 7001, ours",
		},
		"our void, of no stated amount": {
			known: []conversations.Operation{pending(void, 14900)}, listed: followOnFound("8001", op1, void, 0),
			want: findingSettled, applied: "c_0 found " + auditedRequest + " 1 void 149.00 as 8001 on 7001, ours",
		},
		"somebody's void of the sale, of no stated amount": {
			listed: followOnFound("8001", auditedRequest+"-1", void, 0),
			want:   findingOperation, applied: "c_0 found " + auditedRequest + " 1 void 149.00 as 8001 on 7001",
		},
		"somebody's void of a capture, of no stated amount": {
			known: []conversations.Operation{captured}, listed: followOnFound("8001", auditedRequest+"-1", void, 0),
			details: func(f *platforms.Found) { f.PaymentID = "7002" },
			want:    findingOperation, applied: "c_0 found " + auditedRequest + " 1 void 49.00 as 8001 on 7002",
		},
	} {
		if c.listed.Amount.Minor == 0 {
			c.listed.Amount = conversations.Money{}
		}
		full := c.listed
		if c.details != nil {
			c.details(&full)
		}
		c.listed.RootID, c.listed.PaymentID = "", ""
		store := &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: audited(conversations.AttemptCaptured, c.known...)}}
		learner := &transactions{store: store, log: silent}
		got, err := learner.learn(t.Context(), "acme", &books{all: []platforms.Found{full}}, c.listed, newMetTransactions())
		if took := strings.Join(store.took(), "; "); err != nil || got != c.want || took != c.applied {
			t.Errorf("%s: it told %q, %v, and %q was applied", name, got, err, took)
		}
	}
}

// TestLearnCountsWhatDoesNotFit: an operation that cannot be recorded is a
// difference between the platform's books and ours, and no fault of the audit.
func TestLearnCountsWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	dollars := followOnFound("8001", auditedRequest+"-1", conversations.OperationRefund, 500)
	dollars.Amount.Currency = "USD"
	store := &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: audited(conversations.AttemptCaptured)}, invalid: true}
	learner := &transactions{store: store, log: silent}
	if got, err := learner.learn(t.Context(), "acme", &books{all: []platforms.Found{dollars}}, dollars, newMetTransactions()); err != nil || got != findingAmount {
		t.Errorf("in another currency: it told %q, %v", got, err)
	}
	store = &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: audited(conversations.AttemptCaptured)}, unbalanced: true}
	learner = &transactions{store: store, log: silent}
	much := followOnFound("8001", auditedRequest+"-1", conversations.OperationRefund, 14901)
	if got, err := learner.learn(t.Context(), "acme", &books{all: []platforms.Found{much}}, much, newMetTransactions()); err != nil || got != findingAmount {
		t.Errorf("more than there was: it told %q, %v", got, err)
	}
}

// TestLearnLeavesWhatWasTakenBack: a charge shows before its reversal does.
func TestLearnLeavesWhatWasTakenBack(t *testing.T) {
	t.Parallel()
	for since, want := range map[time.Duration]moneyNews{10 * time.Minute: findingNone, 2 * time.Hour: findingPayment} {
		r, at := audited(conversations.AttemptNotTaken), auditNow.Add(-since)
		r.Attempts[0].SettledAt, r.Attempts[0].Result = &at, conversations.Result{Outcome: conversations.OutcomeReversed}
		learner := &transactions{store: &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: r}}, log: silent}
		found := paymentFound("7001", auditedRequest+"-1", conversations.OutcomeCaptured)
		if got, err := learner.learn(t.Context(), "acme", &books{}, found, newMetTransactions()); err != nil || got != want {
			t.Errorf("%s after it was taken back: it told %q, %v", since, got, err)
		}
	}
}

// TestLearnAsksForTheWholeStory: a payment that was taken back since shows like
// any other, and is not taken for money.
func TestLearnAsksForTheWholeStory(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[conversations.Outcome]moneyNews{
		conversations.OutcomeReversed: findingNone, conversations.OutcomeCaptured: findingPayment, conversations.OutcomeNotFound: findingNone,
	} {
		store := &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: audited(conversations.AttemptNotTaken)}}
		learner := &transactions{store: store, log: silent}
		b := &inquirable{outcome: outcome}
		got, err := learner.learn(t.Context(), "acme", b, paymentFound("7001", auditedRequest+"-1", conversations.OutcomeCaptured), newMetTransactions())
		if err != nil || got != want || len(store.took()) > 0 != (want != findingNone) {
			t.Errorf("%s: it told %q, %v, and %q was applied", outcome, got, err, store.took())
		}
	}
}

// inquirable is a platform with books that can be asked after an attempt.
type inquirable struct {
	books
	outcome conversations.Outcome
}

func (a *inquirable) Inquire(context.Context, conversations.Attempt) (conversations.Result, error) {
	return conversations.Result{Outcome: a.outcome, PaymentID: "7001", Amount: inCents(14900)}, nil
}

// TestLearnReadsTheDetails: where a list says little of an operation, it is read
// once, and only if it is not known.
func TestLearnReadsTheDetails(t *testing.T) {
	t.Parallel()
	full := followOnFound("8001", "CREDIT-9", conversations.OperationRefund, 500)
	short := full
	short.RootID, short.PaymentID = "", ""
	b := &books{all: []platforms.Found{paymentFound("7001", auditedRequest+"-1", conversations.OutcomeCaptured), full}}
	store := &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: audited(conversations.AttemptCaptured)}}
	learner := &transactions{store: store, log: silent}
	got, err := learner.learn(t.Context(), "acme", b, short, newMetTransactions())
	if want := "c_0 found " + auditedRequest + " 1 refund 5.00 as 8001 on 7001"; err != nil || got != findingOperation || strings.Join(store.took(), ";") != want {
		t.Errorf("it told %q, %v, and %q was applied", got, err, store.took())
	}
	store.requests[auditedRequest] = audited(conversations.AttemptCaptured, operationWith(1, conversations.OperationRefund, conversations.OperationSucceeded, 500, "8001"))
	b.asked = nil
	short.Code = auditedRequest + "-1"
	if got, err := learner.learn(t.Context(), "acme", b, short, newMetTransactions()); err != nil || got != findingNone || len(b.asked) > 0 {
		t.Errorf("once it is known it told %q, %v, and %q was read", got, err, b.asked)
	}
}

// TestLearnPassesFaultsOn: what could not be asked or recorded is not taken for
// known.
func TestLearnPassesFaultsOn(t *testing.T) {
	t.Parallel()
	down := conversations.Unavailable(io.ErrUnexpectedEOF)
	store := &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: audited(conversations.AttemptCaptured)}, down: down}
	learner := &transactions{store: store, log: silent}
	if _, err := learner.learn(t.Context(), "acme", &books{}, paymentFound("7001", auditedRequest+"-1", conversations.OutcomeCaptured), newMetTransactions()); conversations.CodeOf(err) != conversations.CodeUnavailable {
		t.Errorf("the store is down: %v", err)
	}
	store.down = nil
	closed := errors.New("closed")
	if _, err := learner.learn(t.Context(), "acme", &books{down: closed}, followOnFound("8001", "CREDIT-9", conversations.OperationRefund, 500), newMetTransactions()); !errors.Is(err, closed) {
		t.Errorf("the platform is down: %v", err)
	}
}

// TestOriginFollowsTheChain: a refund of a capture of an authorization, each with
// a reference of its own, and each looked up once.
func TestOriginFollowsTheChain(t *testing.T) {
	t.Parallel()
	b := &books{all: []platforms.Found{
		paymentFound("7001", auditedRequest+"-1", conversations.OutcomeAuthorized),
		{ID: "7002", PaymentID: "7001", Code: "CAPTURE-1", Operation: conversations.OperationCapture},
	}}
	learner, seen := &transactions{store: &heldRequests{}, log: silent}, newMetTransactions()
	for range 2 {
		ref, ours, err := learner.origin(t.Context(), b, platforms.Found{ID: "7003", PaymentID: "7002", Code: "CREDIT-1", Operation: conversations.OperationRefund}, seen)
		if err != nil || !ours || ref.attempt != 1 {
			t.Fatalf("%+v, %t, %v", ref, ours, err)
		}
	}
	if len(b.asked) != 2 {
		t.Errorf("looked up %q", b.asked)
	}
	loop := &books{all: []platforms.Found{{ID: "1", PaymentID: "2"}, {ID: "2", PaymentID: "1"}}}
	if _, ours, err := learner.origin(t.Context(), loop, loop.all[0], newMetTransactions()); ours || err != nil {
		t.Errorf("a chain that bites its tail: %t, %v", ours, err)
	}
}
