package unifiedcheckout

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

// world is the simulator as the far end, with a platform that believes it to
// be CyberSource.
type world struct {
	t         *testing.T
	url       string
	simulator *cybersource.Simulator
	faults    *faults.Set
	platform  *Platform
	attempts  *int
}

// in returns the same world for a subtest.
func (w *world) in(t *testing.T) *world {
	clone := *w
	clone.t = t
	return &clone
}

func newWorld(t *testing.T, change func(*cybersource.Config, map[string]string)) *world {
	t.Helper()
	w := &world{t: t, faults: faults.New(), attempts: new(int)}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w.url = server.URL
	settings := testSettings(server.URL)
	config := cybersource.Config{
		PublicURL: server.URL, SearchDelay: -1, SharedKeys: 1, Processor: "vpc",
		Merchants: []cybersource.Merchant{{ID: settings.Values["merchant_id"], KeyID: settings.Values["key_id"], SharedSecret: testSecret}},
	}
	if change != nil {
		change(&config, settings.Values)
	}
	var err error
	if w.simulator, err = cybersource.New(config, w.faults); err != nil {
		t.Fatal(err)
	}
	w.simulator.Register(mux)
	w.platform = newPlatform(t, settings)
	return w
}

// token types a card in, as the browser's library would, and checks it as the
// pay page does.
func (w *world) token(number string) (string, platforms.Token) {
	w.t.Helper()
	made, err := w.platform.CreateContext(w.t.Context(), platforms.ContextRequest{Request: request, Origin: origin, Locale: "en-ZA"})
	if err != nil {
		w.t.Fatal(err)
	}
	code := "123"
	if number[0] == '3' {
		code = "1234" // American Express
	}
	body, err := json.Marshal(map[string]any{"captureContext": made.Token, "card": map[string]string{
		"number": number, "expirationMonth": "12", "expirationYear": strconv.Itoa(time.Now().Year() + 2), "securityCode": code,
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.Post(w.url+"/cybersource/transient-tokens", "application/json", bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct{ TransientToken string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.TransientToken == "" {
		w.t.Fatalf("no transient token: HTTP %d, %v", resp.StatusCode, err)
	}
	checked, err := w.platform.CheckToken(answer.TransientToken, []conversations.CaptureContext{made.Kept()}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.TransientToken, checked
}

// attempt is a new attempt with references of its own.
func (w *world) attempt(sale bool) conversations.Attempt {
	*w.attempts++
	a := testAttempt()
	a.N, a.Code, a.TransactionID, a.Capture = *w.attempts, fmt.Sprintf("pr_07abc-%d", *w.attempts), fmt.Sprintf("t07abc%d", *w.attempts), sale
	return a
}

// charge charges a card and keeps the answer with the attempt.
func (w *world) charge(number string, sale bool) conversations.Attempt {
	w.t.Helper()
	token, _ := w.token(number)
	a := w.attempt(sale)
	a.Result = w.platform.Charge(w.t.Context(), platforms.ChargeRequest{Attempt: a, Request: request, TransientToken: token})
	return a
}

func (w *world) want(a conversations.Attempt, outcome conversations.Outcome) {
	w.t.Helper()
	if a.Result.Outcome != outcome {
		w.t.Fatalf("outcome %q (%s), want %q", a.Result.Outcome, a.Result.Reason, outcome)
	}
}

// asked is what an inquiry tells.
func (w *world) asked(a conversations.Attempt) conversations.Result {
	w.t.Helper()
	result, err := w.platform.Inquire(w.t.Context(), a)
	if err != nil {
		w.t.Fatal(err)
	}
	return result
}

func (w *world) kinds() []string {
	var kinds []string
	for _, transaction := range w.simulator.Transactions() {
		kinds = append(kinds, transaction.Kind)
	}
	return kinds
}

func (w *world) wantKinds(want ...string) {
	w.t.Helper()
	if got := w.kinds(); !slices.Equal(got, want) {
		w.t.Errorf("really done: %q, want %q", got, want)
	}
}

func (w *world) breaks(rules ...faults.Rule) {
	w.t.Helper()
	if err := w.faults.Replace(rules); err != nil {
		w.t.Fatal(err)
	}
}

func operation(kind conversations.OperationKind, a conversations.Attempt, minor int64) conversations.Operation {
	return conversations.Operation{
		ID: fmt.Sprintf("op-%s-%d", kind, a.N), Kind: kind, Attempt: a.N, PaymentID: a.Result.PaymentID,
		Amount: conversations.Money{Minor: minor, Currency: "ZAR"}, State: conversations.OperationPending, StartedAt: time.Now(),
	}
}

type follower func(context.Context, conversations.Operation, conversations.Attempt) (platforms.OperationResult, error)

func (w *world) do(f follower, op conversations.Operation, a conversations.Attempt, want conversations.OperationState) platforms.OperationResult {
	w.t.Helper()
	got, err := f(w.t.Context(), op, a)
	if got.State != want {
		w.t.Fatalf("%s: state %q (%s), %v, want %q", op.Kind, got.State, got.Reason, err, want)
	}
	return got
}

func TestSimulatorOutcomes(t *testing.T) {
	t.Parallel()
	// The keys of a simulator take long to make, so all cards go to two of them.
	worlds := map[string]*world{}
	for _, auth := range []string{"jwt", "http_signature"} {
		worlds[auth] = newWorld(t, func(_ *cybersource.Config, values map[string]string) { values["auth"] = auth })
	}
	for _, tt := range []struct {
		card        string
		sale        bool
		charge, ask conversations.Outcome
		amount      int64
	}{
		{"4111111111111111", true, conversations.OutcomeCaptured, conversations.OutcomeCaptured, 14900},
		{"4111111111111111", false, conversations.OutcomeAuthorized, conversations.OutcomeAuthorized, 14900},
		{"378282246310005", true, conversations.OutcomeCaptured, conversations.OutcomeCaptured, 14900},
		{"4000000000009995", true, conversations.OutcomeDeclined, conversations.OutcomeDeclined, 0},
		{"4000000000009979", true, conversations.OutcomeDeclined, conversations.OutcomeDeclined, 0},
		{"4000000000009235", true, conversations.OutcomeInReview, conversations.OutcomeInReview, 14900},
		{"4100000000000019", true, conversations.OutcomeRiskDeclined, conversations.OutcomeRiskDeclined, 14900},
		{"4012888888881881", true, conversations.OutcomePartial, conversations.OutcomePartial, 7450},
		{"4000002500003155", true, conversations.OutcomeAuthenticationPending, conversations.OutcomeAuthenticationPending, 0},
		{"4000000000000119", true, conversations.OutcomeUnknown, conversations.OutcomeNotFound, 0},
		{"5105105105105100", true, conversations.OutcomeUnknown, conversations.OutcomeCaptured, 14900},
	} {
		for auth, w := range worlds {
			t.Run(fmt.Sprintf("%s sale %v %s", tt.card, tt.sale, auth), func(t *testing.T) {
				w := w.in(t)
				a := w.charge(tt.card, tt.sale)
				w.want(a, tt.charge)
				if a.Result.PaymentID == "" {
					t.Error("no payment id, though the far end gave one")
				}
				asked := w.asked(a)
				if asked.Outcome != tt.ask || asked.Amount.Minor != tt.amount {
					t.Errorf("asked: %q for %v (%s), want %q for %d", asked.Outcome, asked.Amount, asked.Reason, tt.ask, tt.amount)
				}
				if tt.charge == conversations.OutcomeDeclined && asked.Reason != a.Result.Reason {
					t.Errorf("reason %q when asked, %q at once", asked.Reason, a.Result.Reason)
				}
				// Without the payment's id the search alone must tell the same.
				a.Result.PaymentID = ""
				if again := w.asked(a); again.Outcome != tt.ask || again.Amount != asked.Amount {
					t.Errorf("asked without an id: %q for %v, want the same", again.Outcome, again.Amount)
				}
			})
		}
	}
}

func TestSimulatorCardIsMasked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	_, token := w.token("5555555555554444")
	if token.CardBrand != "Mastercard" || token.CardLast4 != "4444" || token.JTI == "" {
		t.Errorf("token %+v, want Mastercard 4444", token)
	}
}

func TestSimulatorFaultsAroundACharge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		do      string
		status  int
		charge  conversations.Outcome
		ask     conversations.Outcome
		charged bool
	}{
		{"drop_before", 0, conversations.OutcomeUnknown, conversations.OutcomeNotFound, false},
		{"drop_after", 0, conversations.OutcomeUnknown, conversations.OutcomeCaptured, true},
		{"status", 503, conversations.OutcomeUnknown, conversations.OutcomeNotFound, false},
		{"status", 429, conversations.OutcomeNotTaken, conversations.OutcomeNotFound, false},
		{"timeout_before", 0, conversations.OutcomeUnknown, conversations.OutcomeNotFound, false},
		{"timeout_after", 0, conversations.OutcomeUnknown, conversations.OutcomeCaptured, true},
	} {
		t.Run(fmt.Sprint(tt.do, tt.status), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			token, _ := w.token("4111111111111111")
			w.breaks(faults.Rule{Call: "cybersource.payments", Do: tt.do, Status: tt.status, Times: 1})
			a := w.attempt(true)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.do == "timeout_before" || tt.do == "timeout_after" {
				go func() { // gives up once the fault has the call
					for {
						if taken(w.faults) && (tt.do == "timeout_before" || len(w.simulator.Transactions()) > 0) {
							cancel()
							return
						}
						select {
						case <-ctx.Done():
							return
						case <-time.After(time.Millisecond):
						}
					}
				}()
			}
			a.Result = w.platform.Charge(ctx, platforms.ChargeRequest{Attempt: a, Request: request, TransientToken: token})
			w.want(a, tt.charge)
			if result := w.asked(a); result.Outcome != tt.ask {
				t.Errorf("asked: %q (%s), want %q", result.Outcome, result.Reason, tt.ask)
			}
			if got := len(w.simulator.Transactions()) == 1; got != tt.charged {
				t.Errorf("really done: %q", w.kinds())
			}
		})
	}
}

// taken tells whether the fault has met its call.
func taken(set *faults.Set) bool {
	states := set.Rules()
	return len(states) == 1 && states[0].Taken > 0
}

func TestSimulatorRefusesASecondUseOfAReference(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.charge("4111111111111111", true)
	w.want(a, conversations.OutcomeCaptured)
	token, _ := w.token("4111111111111111")
	again := a
	again.Result = w.platform.Charge(t.Context(), platforms.ChargeRequest{Attempt: a, Request: request, TransientToken: token})
	w.want(again, conversations.OutcomeUnknown) // DUPLICATE_REQUEST: look the first one up
	if result := w.asked(again); result.Outcome != conversations.OutcomeCaptured {
		t.Errorf("asked: %q, want the first one", result.Outcome)
	}
	w.wantKinds("sale")
}

func TestSimulatorSearchIsNotRealTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *cybersource.Config, _ map[string]string) { c.SearchDelay = time.Hour })
	a := w.charge("4111111111111111", true)
	if result := w.asked(a); result.Outcome != conversations.OutcomeNotFound {
		t.Errorf("asked at once: %q, want not found (yet)", result.Outcome)
	}
	w.simulator.Index()
	if result := w.asked(a); result.Outcome != conversations.OutcomeCaptured || result.PaymentID != a.Result.PaymentID || result.CardLast4 != "1111" {
		t.Errorf("asked later: %+v, want the sale", result)
	}
}

func TestSimulatorReversals(t *testing.T) {
	t.Parallel()
	t.Run("authorization", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		a := w.charge("4111111111111111", false)
		op := operation(conversations.OperationReversal, a, 14900)
		w.do(w.platform.Reverse, op, a, conversations.OperationSucceeded)
		w.do(w.platform.Reverse, op, a, conversations.OperationSucceeded) // reversed already
		w.wantKinds("authorization", "reversal")
	})
	for name, card := range map[string]string{"partial": "4012888888881881", "risk declined": "4100000000000019"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			a := w.charge(card, true)
			op := operation(conversations.OperationReversal, a, a.Result.Amount.Minor)
			w.do(w.platform.Reverse, op, a, conversations.OperationSucceeded)
			w.do(w.platform.Reverse, op, a, conversations.OperationSucceeded)
			w.wantKinds("authorization", "reversal")
		})
	}
	t.Run("sale", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		a := w.charge("4111111111111111", true)
		op := operation(conversations.OperationVoid, a, 14900)
		w.do(w.platform.Reverse, op, a, conversations.OperationSucceeded)
		w.wantKinds("sale", "void", "reversal") // the hold is released too
		w.do(w.platform.Reverse, op, a, conversations.OperationSucceeded)
		w.wantKinds("sale", "void", "reversal")
	})
	t.Run("settled sale", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		a := w.charge("4111111111111111", true)
		w.simulator.Settle()
		op := operation(conversations.OperationVoid, a, 14900)
		again := op
		again.State = conversations.OperationUnsettled
		w.do(w.platform.Reverse, again, a, conversations.OperationUnsettled) // an earlier void might not show yet
		if got := w.do(w.platform.Reverse, op, a, conversations.OperationFailed); got.Reason != conversations.ErrorSettled {
			t.Errorf("reason %q, want %q", got.Reason, conversations.ErrorSettled)
		}
		w.do(w.platform.Refund, operation(conversations.OperationRefund, a, 14900), a, conversations.OperationSucceeded)
		w.wantKinds("sale", "refund")
	})
	t.Run("answer lost", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, nil)
		a := w.charge("4111111111111111", true)
		w.breaks(faults.Rule{Call: "cybersource.voids", Do: "drop_after", Times: 1})
		op := operation(conversations.OperationVoid, a, 14900)
		w.do(w.platform.Reverse, op, a, conversations.OperationUnsettled)
		op.State = conversations.OperationUnsettled
		w.do(w.platform.Reverse, op, a, conversations.OperationSucceeded)
		w.wantKinds("sale", "void", "reversal")
	})
}

func TestSimulatorCaptureAndRefund(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.charge("4111111111111111", false)
	w.breaks(faults.Rule{Call: "cybersource.captures", Do: "drop_after", Times: 1})
	capture := operation(conversations.OperationCapture, a, 10000)
	w.do(w.platform.Capture, capture, a, conversations.OperationUnsettled)
	capture.State = conversations.OperationUnsettled
	captured := w.do(w.platform.Capture, capture, a, conversations.OperationSucceeded) // found, not sent again
	w.wantKinds("authorization", "capture")
	if taken := w.simulator.Transactions()[1]; captured.ID != taken.ID || captured.ReconciliationID == "" || taken.Code != capture.ID {
		t.Errorf("found %+v, want transaction %+v under the operation's id", captured, taken)
	}
	if result := w.asked(a); result.Outcome != conversations.OutcomeAuthorized {
		t.Errorf("asked about the charge: %q, want authorized: the capture is an operation", result.Outcome)
	}
	beyond := operation(conversations.OperationCapture, a, 14900)
	beyond.ID = "op-capture-beyond"
	if got := w.do(w.platform.Capture, beyond, a, conversations.OperationFailed); got.Reason != "EXCEEDS_AUTH_AMOUNT" {
		t.Errorf("reason %q", got.Reason)
	}

	w.breaks(faults.Rule{Call: "cybersource.refunds", Do: "drop_after", Times: 1})
	refund := operation(conversations.OperationRefund, a, 2500)
	refund.PaymentID = captured.ID
	w.do(w.platform.Refund, refund, a, conversations.OperationUnsettled)
	refund.State = conversations.OperationUnsettled
	w.do(w.platform.Refund, refund, a, conversations.OperationSucceeded)
	w.wantKinds("authorization", "capture", "refund")

	second := refund
	second.ID, second.State = "op-refund-again", conversations.OperationPending
	refunded := w.do(w.platform.Refund, second, a, conversations.OperationSucceeded) // the same amount, another refund
	if last := w.simulator.Transactions()[3]; refunded.ID != last.ID || refunded.ReconciliationID == "" || last.ParentID != captured.ID {
		t.Errorf("refunded %+v, want %+v of the capture", refunded, last)
	}
	tooMuch := second
	tooMuch.ID, tooMuch.Amount.Minor = "op-refund-too-much", 9000
	w.do(w.platform.Refund, tooMuch, a, conversations.OperationFailed)
	w.wantKinds("authorization", "capture", "refund", "refund")
}

// A processor that knows the transactionId refuses the second call for an
// operation even where the search shows nothing of the first.
func TestSimulatorRefusesASecondCallForAnOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *cybersource.Config, _ map[string]string) { c.SearchDelay = time.Hour })
	a := w.charge("4111111111111111", true)
	refund := operation(conversations.OperationRefund, a, 2500)
	w.breaks(faults.Rule{Call: "cybersource.refunds", Do: "drop_after", Times: 1})
	w.do(w.platform.Refund, refund, a, conversations.OperationUnsettled)
	refund.State, refund.StartedAt = conversations.OperationUnsettled, time.Now().Add(-searchLag)
	w.do(w.platform.Refund, refund, a, conversations.OperationUnsettled) // sent again, and refused
	w.wantKinds("sale", "refund")
	w.simulator.Index()
	w.do(w.platform.Refund, refund, a, conversations.OperationSucceeded)
	w.wantKinds("sale", "refund")
}

func TestSimulatorVoidOfACapture(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.charge("4111111111111111", false)
	captured := w.do(w.platform.Capture, operation(conversations.OperationCapture, a, 14900), a, conversations.OperationSucceeded)
	void := operation(conversations.OperationVoid, a, 14900)
	void.PaymentID = captured.ID
	voided := w.do(w.platform.Reverse, void, a, conversations.OperationSucceeded)
	w.wantKinds("authorization", "capture", "void", "reversal")
	if made := w.simulator.Transactions()[2]; voided.ID != made.ID || made.ParentID != captured.ID || made.Code != void.ID {
		t.Errorf("voided %+v, want %+v of the capture", voided, made)
	}
	if again := w.do(w.platform.Reverse, void, a, conversations.OperationSucceeded); again.ID != voided.ID {
		t.Errorf("asked again: %q, want %q", again.ID, voided.ID)
	}
	w.wantKinds("authorization", "capture", "void", "reversal")
}

func TestSimulatorVoidInTheBackOffice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.charge("4111111111111111", false)
	captured := w.do(w.platform.Capture, operation(conversations.OperationCapture, a, 14900), a, conversations.OperationSucceeded)
	theirs, err := w.simulator.BackOffice("void", captured.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	void := operation(conversations.OperationVoid, a, 14900)
	void.PaymentID = captured.ID
	if got := w.do(w.platform.Reverse, void, a, conversations.OperationSucceeded); got.ID != theirs.ID {
		t.Errorf("voided by %q, want %q: somebody was faster", got.ID, theirs.ID)
	}

	sale := w.charge("4111111111111111", true)
	refund, err := w.simulator.BackOffice("refund", sale.Result.PaymentID, "10.00")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.simulator.BackOffice("void", refund.ID, ""); err != nil {
		t.Fatal(err)
	}
	w.simulator.Settle()
	void = operation(conversations.OperationVoid, sale, 14900)
	if got := w.do(w.platform.Reverse, void, sale, conversations.OperationFailed); got.Reason != conversations.ErrorSettled {
		t.Errorf("reason %q, want settled: what was voided is a refund", got.Reason)
	}
	if got := w.asked(sale); got.Outcome != conversations.OutcomeCaptured {
		t.Errorf("asked: %q, want captured: what was voided is a refund", got.Outcome)
	}
}

func TestSimulatorReleasesNothingUnderReview(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, accept := range []bool{false, true} {
		a := w.charge("4000000000009235", true)
		op := operation(conversations.OperationReversal, a, 14900)
		if got := w.do(w.platform.Reverse, op, a, conversations.OperationPending); got.Reason != conversations.ErrorUnderReview {
			t.Errorf("reason %q, want %q", got.Reason, conversations.ErrorUnderReview)
		}
		if !w.simulator.DecideReview(a.Result.PaymentID, accept) {
			t.Fatal("not under review")
		}
		w.do(w.platform.Reverse, op, a, conversations.OperationSucceeded) // accepted, it was taken, and is voided
	}
	w.wantKinds("authorization", "reversal", "sale", "void", "reversal")
}

// TestSimulatorReviewedBeforeItIsHeld: what reviewers reject before the bank was
// asked holds nothing, and giving it back comes to an end.
func TestSimulatorReviewedBeforeItIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.charge("4000000000000218", true)
	w.want(a, conversations.OutcomeInReview)
	op := operation(conversations.OperationReversal, a, 14900)
	w.do(w.platform.Reverse, op, a, conversations.OperationPending)
	w.simulator.DecideReview(a.Result.PaymentID, false)
	w.do(w.platform.Reverse, op, a, conversations.OperationSucceeded)
}

func TestSimulatorReviewIsDecided(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, tt := range []struct {
		accept, sale bool
		want         conversations.Outcome
	}{
		{true, true, conversations.OutcomeCaptured},
		{true, false, conversations.OutcomeAuthorized},
		{false, true, conversations.OutcomeRiskDeclined},
	} {
		a := w.charge("4000000000009235", tt.sale)
		w.want(a, conversations.OutcomeInReview)
		if !w.simulator.DecideReview(a.Result.PaymentID, tt.accept) {
			t.Fatal("not under review")
		}
		if result := w.asked(a); result.Outcome != tt.want || result.Amount != zar149 {
			t.Errorf("accepted %v, sale %v: asked %q for %v, want %q", tt.accept, tt.sale, result.Outcome, result.Amount, tt.want)
		}
	}
}

func TestSimulatorWrongKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *cybersource.Config, values map[string]string) {
		values["shared_secret"] = "YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlcg=="
	})
	if _, err := w.platform.CreateContext(t.Context(), platforms.ContextRequest{Request: request, Origin: origin}); err == nil || conversations.CodeOf(err) == conversations.CodeUnavailable {
		t.Errorf("context: %v, want an error that does not pass by itself", err)
	}
	a := w.attempt(true)
	a.Result = w.platform.Charge(t.Context(), platforms.ChargeRequest{Attempt: a, Request: request, TransientToken: "x.y.z"})
	w.want(a, conversations.OutcomeNotTaken)
	if _, err := w.platform.Inquire(t.Context(), a); err == nil {
		t.Error("inquiry: no error, want one: nothing can be concluded")
	}
}

// A process that is stopped between its last look at the clock and the write
// sends what it had signed, whenever it wakes. CyberSource's clock has gone on
// meanwhile, and refuses it; by the older scheme it charges.
func TestSimulatorRefusesWhatWasHeldUpOnItsWay(t *testing.T) {
	t.Parallel()
	for auth, want := range map[string]struct {
		charge    conversations.Outcome
		operation conversations.OperationState
		kinds     []string
	}{
		"jwt":            {conversations.OutcomeNotTaken, conversations.OperationPending, nil},
		"http_signature": {conversations.OutcomeCaptured, conversations.OperationSucceeded, []string{"sale", "refund"}},
	} {
		t.Run(auth, func(t *testing.T) {
			t.Parallel()
			var stopped atomic.Int64 // for how long
			w := newWorld(t, func(c *cybersource.Config, values map[string]string) {
				values["auth"] = auth
				c.Now = func() time.Time { return time.Now().Add(time.Duration(stopped.Load())) }
			})
			token, _ := w.token("4111111111111111")
			a := w.attempt(true)
			a.SendBy = time.Now().Add(10 * time.Second)
			stopped.Store(int64(12 * time.Second))
			a.Result = w.platform.Charge(t.Context(), platforms.ChargeRequest{Attempt: a, Request: request, TransientToken: token})
			w.want(a, want.charge)
			if a.Result.PaymentID == "" {
				a.Result = conversations.Result{Outcome: conversations.OutcomeCaptured, PaymentID: "7000000000000000000000", Amount: zar149}
			}
			op := operation(conversations.OperationRefund, a, 100)
			by := time.Now().Add(10 * time.Second)
			op.SendBy = &by
			w.do(w.platform.Refund, op, a, want.operation)
			w.wantKinds(want.kinds...)
		})
	}
}
