package unifiedcheckout

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

func TestTimeoutReversalSettings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		base, processor, after string
		want                   time.Duration
		wrong                  string
	}{
		{"", "", "", 0, ""},
		{"", "none", "90s", 0, ""},
		{"", "vpc", "", time.Minute, ""},
		{"", "vpc", "90s", 90 * time.Second, ""},
		{"", "vpc", "59s", 0, "timeout_reversal_after"},
		{"https://api.in.cybersource.com", "vpc", "1s", 0, "timeout_reversal_after"},
		{"http://127.0.0.1:8090", "vpc", "1s", time.Second, ""},
		{"http://127.0.0.1:8090", "vpc", "0s", 0, "timeout_reversal_after"},
		{"", "vpc", "soon", 0, "timeout_reversal_after"},
		{"", "paymentech", "", 0, "timeout_reversal is"},
	} {
		settings := testSettings(tt.base)
		settings.Values["timeout_reversal"], settings.Values["timeout_reversal_after"] = tt.processor, tt.after
		made, err := New(settings, http.DefaultClient, quiet)
		switch {
		case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)):
			t.Errorf("%+v: %v, want an error", tt, err)
		case tt.wrong == "" && err != nil:
			t.Errorf("%+v: %v", tt, err)
		case err == nil && made.(platforms.TimeoutReverser).TimeoutReversalAfter() != tt.want:
			t.Errorf("%+v: after %s", tt, made.(platforms.TimeoutReverser).TimeoutReversalAfter())
		}
	}
}

func vpc(_ *cybersource.Config, values map[string]string) { values["timeout_reversal"] = timeoutVPC }

func TestSimulatorTimeoutReversal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		card   string
		sale   bool
		settle bool
		lost   string // how the answer to the charge is lost
		want   conversations.Outcome
		ask    conversations.Outcome
		kinds  []string
	}{
		{"sale", "4111111111111111", true, false, "drop_after", conversations.OutcomeReversed, conversations.OutcomeReversed, []string{"sale", "void", "reversal"}},
		{"authorization", "4111111111111111", false, false, "drop_after", conversations.OutcomeReversed, conversations.OutcomeReversed, []string{"authorization", "reversal"}},
		{"never arrived", "4111111111111111", true, false, "drop_before", conversations.OutcomeUnknown, conversations.OutcomeNotFound, nil},
		{"settled", "4111111111111111", true, true, "drop_after", conversations.OutcomeUnknown, conversations.OutcomeCaptured, []string{"sale"}},
		{"declined", "4000000000009995", true, false, "drop_after", conversations.OutcomeUnknown, conversations.OutcomeDeclined, []string{"decline"}},
		{"under review", "4000000000009235", true, false, "drop_after", conversations.OutcomeUnknown, conversations.OutcomeInReview, []string{"authorization"}},
		{"authorized in part", "4012888888881881", false, false, "drop_after", conversations.OutcomeUnknown, conversations.OutcomePartial, []string{"authorization"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, vpc)
			w.breaks(faults.Rule{Call: "cybersource.payments", Do: tt.lost, Times: 1})
			a := w.charge(tt.card, tt.sale)
			w.want(a, conversations.OutcomeUnknown)
			if tt.settle {
				w.simulator.Settle()
			}
			got, err := w.platform.ReverseUnsettled(t.Context(), a)
			if err != nil || got.Outcome != tt.want || got.PaymentID != "" {
				t.Errorf("%+v, %v, want %q", got, err, tt.want)
			}
			if asked := w.asked(a); asked.Outcome != tt.ask {
				t.Errorf("asked: %q, want %q", asked.Outcome, tt.ask)
			}
			if got := w.kinds(); !slices.Equal(got, tt.kinds) {
				t.Errorf("really done: %q, want %q", got, tt.kinds)
			}
			if tt.want != conversations.OutcomeReversed {
				return
			}
			if again, err := w.platform.ReverseUnsettled(t.Context(), a); err != nil || again.Outcome != conversations.OutcomeUnknown {
				t.Errorf("again: %+v, %v, want no more than is known", again, err)
			}
			w.wantKinds(tt.kinds...)
		})
	}
}

func TestTimeoutReversalThatIsAnsweredOddly(t *testing.T) {
	t.Parallel()
	const voids, reversals = "POST /pts/v2/voids", "POST /pts/v2/reversals"
	for _, tt := range []struct {
		name    string
		sale    bool
		answers map[string]scripted
		want    conversations.Outcome
		reason  string
		err     bool
		calls   int
	}{
		{"reversed", false, map[string]scripted{reversals: {201, `{"id":"78","status":"REVERSED","reversalAmountDetails":{"reversedAmount":"149.00","originalTransactionAmount":"149.00","currency":"ZAR"}}`}}, conversations.OutcomeReversed, "", false, 1},
		{"another amount reversed", false, map[string]scripted{reversals: {201, `{"status":"REVERSED","reversalAmountDetails":{"reversedAmount":"14.90","currency":"ZAR"}}`}}, conversations.OutcomeUnknown, reasonAmountDiffers, false, 1},
		{"another charge reversed", false, map[string]scripted{reversals: {201, `{"status":"REVERSED","clientReferenceInformation":{"code":"pr_07abc-2"}}`}}, conversations.OutcomeUnknown, reasonOtherPayment, false, 1},
		{"a new status", false, map[string]scripted{reversals: created("VOIDED")}, conversations.OutcomeUnknown, "VOIDED", false, 1},
		{"unknown to them", false, map[string]scripted{reversals: refusal("INVALID_DATA", "clientReferenceInformation.transactionId")}, conversations.OutcomeUnknown, "INVALID_DATA", false, 1},
		{"no such service", false, nil, conversations.OutcomeUnknown, "HTTP_404", false, 1},
		{"out of order", false, map[string]scripted{reversals: {502, `{"status":"SERVER_ERROR","reason":"SYSTEM_ERROR"}`}}, conversations.OutcomeUnknown, "SYSTEM_ERROR", false, 1},
		{"not let in", false, map[string]scripted{reversals: {401, "{}"}}, "", "", true, 1},
		{"too many calls", false, map[string]scripted{reversals: {429, "{}"}}, "", "", true, 1},
		{"voided, hold released", true, map[string]scripted{voids: created("VOIDED"), reversals: created("REVERSED")}, conversations.OutcomeReversed, "", false, 2},
		{"voided, hold not released", true, map[string]scripted{voids: created("VOIDED"), reversals: refusal("NOT_SUPPORTED")}, conversations.OutcomeReversed, "", false, 2},
		{"cancelled", true, map[string]scripted{voids: created("CANCELLED")}, conversations.OutcomeUnknown, "CANCELLED", false, 1},
		{"not voidable", true, map[string]scripted{voids: refusal("NOT_VOIDABLE")}, conversations.OutcomeUnknown, "NOT_VOIDABLE", false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, p := newScript(t, tt.answers)
			p.timeoutAfter = time.Minute
			a := testAttempt()
			a.Capture = tt.sale
			got, err := p.ReverseUnsettled(t.Context(), a)
			if got.Outcome != tt.want || got.Reason != tt.reason || (err != nil) != tt.err {
				t.Errorf("%+v, %v, want %q (%s)", got, err, tt.want, tt.reason)
			}
			calls := s.calls()
			if len(calls) != tt.calls {
				t.Errorf("calls %q, want %d", calls, tt.calls)
			}
			want := reversals + ` {"clientReferenceInformation":{"code":"pr_07abc-1","transactionId":"t07abc1"},"reversalInformation":{"amountDetails":{"totalAmount":"149.00","currency":"ZAR"},"reason":"timeout"}}`
			if tt.sale {
				want = voids + ` {"clientReferenceInformation":{"code":"pr_07abc-1","transactionId":"t07abc1"}}`
			}
			if len(calls) > 0 && calls[0] != want {
				t.Errorf("call\n got %s\nwant %s", calls[0], want)
			}
		})
	}
}

func TestTimeoutReversalThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	s, p := newScript(t, nil)
	if _, err := p.ReverseUnsettled(t.Context(), testAttempt()); err == nil {
		t.Error("no processor that knows it: no error")
	}
	p.timeoutAfter = time.Minute
	for name, change := range map[string]func(*conversations.Attempt){
		"no transaction id":         func(a *conversations.Attempt) { a.TransactionID = "" },
		"a transaction id too long": func(a *conversations.Attempt) { a.TransactionID = strings.Repeat("x", maxTransactionID+1) },
		"no code":                   func(a *conversations.Attempt) { a.Code = "" },
		"no amount":                 func(a *conversations.Attempt) { a.Amount.Minor = 0 },
	} {
		a := testAttempt()
		change(&a)
		if _, err := p.ReverseUnsettled(t.Context(), a); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := p.ReverseUnsettled(ctx, testAttempt()); err == nil {
		t.Error("after the caller's time: no error")
	}
	if calls := s.calls(); len(calls) != 0 {
		t.Errorf("calls %q, want none", calls)
	}
}
