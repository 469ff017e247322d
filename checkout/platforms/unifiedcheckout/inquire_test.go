package unifiedcheckout

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/conversations"
)

// script is a far end that answers each path with a fixed body, and keeps what
// it was asked.
type script struct {
	mu      sync.Mutex
	answers map[string]scripted // by method and path
	seen    []string            // method, path and body
}

type scripted struct {
	status int
	body   string
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	call := r.Method + " " + r.URL.Path
	s.seen = append(s.seen, call+" "+string(body))
	a, ok := s.answers[call]
	if !ok {
		a = scripted{http.StatusNotFound, "{}"}
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

func (s *script) calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.seen...)
}

func newScript(t *testing.T, answers map[string]scripted) (*script, *Platform) {
	t.Helper()
	s := &script{answers: answers}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, newPlatform(t, testSettings(server.URL))
}

const searches = "POST /tss/v2/searches"

func found(rows ...string) scripted {
	return scripted{http.StatusCreated, fmt.Sprintf(`{"totalCount":%d,"count":%d,"_embedded":{"transactionSummaries":[%s]}}`, len(rows), len(rows), strings.Join(rows, ","))}
}

// row is one transaction of the attempt. apps are "name rCode" pairs.
func row(id, code string, more string, apps ...string) string {
	var applications []string
	for _, a := range apps {
		name, r, _ := strings.Cut(a, " ")
		applications = append(applications, fmt.Sprintf(`{"name":%q,"rCode":%q,"reasonCode":%q}`, name, r, code))
	}
	return fmt.Sprintf(`{"id":%q,"submitTimeUtc":"2026-01-15T10:21:02Z","merchantId":"testmerchant01","applicationInformation":{"reasonCode":%q,"applications":[%s]},`+
		`"clientReferenceInformation":{"code":"pr_07abc-1"},"orderInformation":{"amountDetails":{"totalAmount":"149.00","currency":"ZAR"}}%s}`, id, code, strings.Join(applications, ","), more)
}

// flagged is a row that has the older flags and no numbers.
func flagged(flag, r string) string {
	return strings.NewReplacer(`"reasonCode":""`, `"rFlag":"`+flag+`"`).Replace(row("1", "", "", "ics_auth "+r))
}

// A void of a capture leaves the hold where it is.
func TestInquireOfAnAuthorizationWhoseCaptureWasVoided(t *testing.T) {
	t.Parallel()
	_, p := newScript(t, map[string]scripted{searches: found(row("1", "100", "", "ics_auth 1"), row("2", "100", "", "ics_bill 1"), row("3", "100", "", "ics_void 1"))})
	a := testAttempt()
	a.Capture = false
	if got, err := p.Inquire(t.Context(), a); err != nil || got.Outcome != conversations.OutcomeAuthorized || got.PaymentID != "1" {
		t.Errorf("got %+v, %v, want the authorization", got, err)
	}
}

func TestInquireReadsRows(t *testing.T) {
	t.Parallel()
	const approvalCode = `,"processorInformation":{"approvalCode":"831000"}`
	sale := row("1", "100", approvalCode, "ics_auth 1", "ics_bill 1")
	auth := row("2", "100", approvalCode, "ics_auth 1")
	refused := row("3", "203", "", "ics_auth 0")
	for _, tt := range []struct {
		name   string
		rows   []string
		want   conversations.Outcome
		reason string
	}{
		{"nothing", nil, conversations.OutcomeNotFound, ""},
		{"sale", []string{sale}, conversations.OutcomeCaptured, ""},
		{"authorization", []string{auth}, conversations.OutcomeAuthorized, ""},
		{"sale whose capture failed", []string{row("1", "100", "", "ics_auth 1", "ics_bill 0")}, conversations.OutcomeAuthorized, ""},
		{"declined", []string{refused}, conversations.OutcomeDeclined, "PROCESSOR_DECLINED"},
		{"declined with a code to come", []string{row("3", "299", "", "ics_auth 0")}, conversations.OutcomeDeclined, "299"},
		{"declined, then approved", []string{sale, refused}, conversations.OutcomeCaptured, ""},
		{"approved, then declined", []string{refused, sale}, conversations.OutcomeCaptured, ""},
		{"error, then approved", []string{row("3", "150", "", "ics_auth -1"), auth}, conversations.OutcomeAuthorized, ""},
		{"error", []string{row("3", "150", "", "ics_auth -1")}, conversations.OutcomeNotFound, "SYSTEM_ERROR"},
		{"processor time-out", []string{row("3", "250", "", "ics_auth -1")}, conversations.OutcomeNotFound, "SERVER_TIMEOUT"},
		{"error beside a decline", []string{refused, row("4", "150", "", "ics_auth -1")}, conversations.OutcomeNotFound, "SYSTEM_ERROR"},
		{"issuer unavailable", []string{row("3", "207", "", "ics_auth 0")}, conversations.OutcomeDeclined, "ISSUER_UNAVAILABLE"},
		{"invalid", []string{row("3", "102", "", "ics_auth 0")}, conversations.OutcomeNotTaken, "INVALID_DATA"},
		{"duplicate alone", []string{row("3", "104", "", "ics_auth 0")}, conversations.OutcomeUnknown, "DUPLICATE_REQUEST"},
		{"duplicate and its first", []string{row("3", "104", "", "ics_auth 0"), sale}, conversations.OutcomeCaptured, ""},
		{"approved code without approval", []string{row("3", "100", "", "ics_auth 0")}, conversations.OutcomeUnknown, "100"},
		{"reversed", []string{row("9", "100", "", "ics_auth_reversal 1"), auth}, conversations.OutcomeReversed, ""},
		{"voided", []string{sale, row("9", "100", "", "ics_void 1")}, conversations.OutcomeReversed, ""},
		{"void refused", []string{sale, row("9", "246", "", "ics_void 0")}, conversations.OutcomeCaptured, ""},
		{"refunded, and the refund voided", []string{row("8", "100", "", "ics_credit 1"), row("9", "100", "", "ics_void 1"), sale}, conversations.OutcomeCaptured, ""},
		{"paid by other means than a card", []string{row("1", "100", `,"status":"PENDING"`, "ics_ap_sale 1")}, conversations.OutcomeUnknown, "100"},
		{"flags alone, declined", []string{flagged("DCARDEXPIRED", "0")}, conversations.OutcomeDeclined, "EXPIRED_CARD"},
		{"flags alone, an error", []string{flagged("ETIMEOUT", "-1")}, conversations.OutcomeNotFound, "SERVER_TIMEOUT"},
		{"flags alone, approved", []string{flagged("SOK", "1")}, conversations.OutcomeAuthorized, ""},
		{"flags alone, and a new one", []string{flagged("DNEW", "0")}, conversations.OutcomeDeclined, ""},
		{"time-out reversal", []string{row("9", "100", "", "ics_timeout_auth_reversal 1")}, conversations.OutcomeReversed, ""},
		{"risk refused and given back at once", []string{row("1", "481", approvalCode, "ics_auth 1", "ics_decision 0", "ics_auth_reversal 1")}, conversations.OutcomeReversed, ""},
		{"in review", []string{row("1", "480", approvalCode, "ics_auth 1", "ics_decision 0")}, conversations.OutcomeInReview, "DECISION_PROFILE_REVIEW"},
		{"in review, then taken", []string{row("5", "100", "", "ics_bill 1"), row("1", "480", approvalCode, "ics_auth 1")}, conversations.OutcomeCaptured, ""},
		{"address refused, bank approved", []string{row("1", "200", approvalCode, "ics_auth 0")}, conversations.OutcomeInReview, "AVS_FAILED"},
		{"issuer has questions", []string{row("1", "201", "", "ics_auth 0")}, conversations.OutcomeDeclined, "CONTACT_PROCESSOR"},
		{"issuer has questions, but approved", []string{row("1", "201", `,"status":"AUTHORIZED_PENDING_REVIEW"`, "ics_auth 0")}, conversations.OutcomeInReview, "CONTACT_PROCESSOR"},
		{"risk refused, bank approved", []string{row("1", "481", approvalCode, "ics_auth 0")}, conversations.OutcomeRiskDeclined, "DECISION_PROFILE_REJECT"},
		{"score, bank approved", []string{row("1", "520", "", "ics_auth 1")}, conversations.OutcomeRiskDeclined, "520"},
		{"risk refused before the bank", []string{row("1", "481", "", "ics_decision 0")}, conversations.OutcomeDeclined, "DECISION_PROFILE_REJECT"},
		{"challenge", []string{row("1", "475", "", "ics_pa_enroll 0")}, conversations.OutcomeAuthenticationPending, "CONSUMER_AUTHENTICATION_REQUIRED"},
		{"challenge failed", []string{row("1", "476", "", "ics_pa_validate 0")}, conversations.OutcomeDeclined, "CONSUMER_AUTHENTICATION_FAILED"},
		{"authenticated only", []string{row("1", "100", "", "ics_pa_validate 1")}, conversations.OutcomeNotFound, ""},
		{"a refund", []string{row("1", "100", "", "ics_credit 1")}, conversations.OutcomeNotFound, ""},
		{"another reference", []string{strings.Replace(sale, "pr_07abc-1", "pr_07abc-11", 1)}, conversations.OutcomeNotFound, ""},
		{"another merchant", []string{strings.Replace(sale, "testmerchant01", "someoneelse", 1)}, conversations.OutcomeNotFound, ""},
		{"for less", []string{strings.Replace(sale, "149.00", "1.49", 1)}, conversations.OutcomePartial, reasonAmountDiffers},
		{"in another currency", []string{strings.Replace(sale, "ZAR", "USD", 1)}, conversations.OutcomeUnknown, reasonAmountDiffers},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, p := newScript(t, map[string]scripted{searches: found(tt.rows...)})
			got, err := p.Inquire(t.Context(), testAttempt())
			if err != nil || got.Outcome != tt.want || got.Reason != tt.reason {
				t.Errorf("got %q (%s), %v, want %q (%s)", got.Outcome, got.Reason, err, tt.want, tt.reason)
			}
		})
	}
}

func TestInquireAsksForTheDetails(t *testing.T) {
	t.Parallel()
	partial := row("7", "110", `,"processorInformation":{"approvalCode":"831000"}`, "ics_auth 1")
	approved := strings.Replace(partial, `"totalAmount":"149.00"`, `"totalAmount":"149.00","authorizedAmount":"74.50"`, 1)
	half := conversations.Money{Minor: 7450, Currency: "ZAR"}
	for _, tt := range []struct {
		name    string
		known   string
		answers map[string]scripted
		want    conversations.Outcome
		amount  conversations.Money
		err     bool
	}{
		{"what was approved in part", "", map[string]scripted{searches: found(partial), "GET /tss/v2/transactions/7": {200, approved}}, conversations.OutcomePartial, half, false},
		{"what was approved in part, not there yet", "", map[string]scripted{searches: found(partial)}, conversations.OutcomeUnknown, conversations.Money{}, false},
		{"details out of order", "", map[string]scripted{searches: found(partial), "GET /tss/v2/transactions/7": {500, "{}"}}, "", conversations.Money{}, true},
		{"a known payment that the search lacks", "8", map[string]scripted{searches: found(), "GET /tss/v2/transactions/8": {200, row("8", "100", "", "ics_auth 1", "ics_bill 1")}}, conversations.OutcomeCaptured, zar149, false},
		{"a known payment that nobody knows", "8", map[string]scripted{searches: found()}, conversations.OutcomeNotFound, conversations.Money{}, false},
		{"a known payment of another reference", "8", map[string]scripted{searches: found(), "GET /tss/v2/transactions/8": {200, strings.Replace(row("8", "100", "", "ics_auth 1", "ics_bill 1"), "pr_07abc-1", "pr_other-1", 1)}}, conversations.OutcomeNotFound, conversations.Money{}, false},
		{"a known payment with a path in its id", "8/../7", map[string]scripted{searches: found()}, conversations.OutcomeNotFound, conversations.Money{}, false},
		{"a known payment beside its reversal", "8", map[string]scripted{searches: found(row("9", "100", "", "ics_auth_reversal 1")), "GET /tss/v2/transactions/8": {200, row("8", "100", "", "ics_auth 1")}}, conversations.OutcomeReversed, conversations.Money{}, false},
		{"more rows than were given", "", map[string]scripted{searches: {201, `{"totalCount":2,"_embedded":{"transactionSummaries":[]}}`}}, "", conversations.Money{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, p := newScript(t, tt.answers)
			a := testAttempt()
			a.Result.PaymentID = tt.known
			got, err := p.Inquire(t.Context(), a)
			if (err != nil) != tt.err || got.Outcome != tt.want || got.Amount != tt.amount {
				t.Errorf("got %q for %v, %v, want %q for %v, an error: %v", got.Outcome, got.Amount, err, tt.want, tt.amount, tt.err)
			}
		})
	}
}

func TestInquireQuery(t *testing.T) {
	t.Parallel()
	s, p := newScript(t, map[string]scripted{searches: found()})
	p.now = func() time.Time { return time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC) }
	a := testAttempt()
	a.StartedAt = time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)
	if _, err := p.Inquire(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(strings.TrimPrefix(s.calls()[0], searches+" ")), &body); err != nil {
		t.Fatal(err)
	}
	// A day before the attempt to a day after now, in milliseconds.
	if want := "clientReferenceInformation.code:pr_07abc-1 AND submitTimeUtc:[1768384800000 TO 1768564800000}"; body["query"] != want || body["sort"] != "submitTimeUtc:desc" {
		t.Errorf("query %v, want %s", body, want)
	}
	for _, code := range []string{"", "x OR clientReferenceInformation.code:y", "x)", "-x", strings.Repeat("x", maxCode+1)} {
		a.Code = code
		if _, err := p.Inquire(t.Context(), a); err == nil {
			t.Errorf("%q became part of a query", code)
		}
	}
	if n := len(s.calls()); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

func TestReversalIsForTheAuthorizedAmount(t *testing.T) {
	t.Parallel()
	s, p := newScript(t, map[string]scripted{"POST /pts/v2/payments/76/reversals": {http.StatusCreated, `{"status":"REVERSED"}`}})
	a := testAttempt()
	a.Result = conversations.Result{Outcome: conversations.OutcomePartial, PaymentID: "76", Amount: conversations.Money{Minor: 7450, Currency: "ZAR"}}
	op := operation(conversations.OperationReversal, a, 14900)
	op.Reason = "partial"
	if result, err := p.Reverse(t.Context(), op, a); result.State != conversations.OperationSucceeded {
		t.Fatal(result.State, err)
	}
	want := `POST /pts/v2/payments/76/reversals {"clientReferenceInformation":{"code":"op-reversal-1"},"reversalInformation":{"amountDetails":{"totalAmount":"74.50","currency":"ZAR"},"reason":"partial"}}`
	if got := s.calls(); len(got) != 1 || got[0] != want {
		t.Errorf("calls\n got %q\nwant %q", got, want)
	}
}

func TestOperationWithoutAPaymentIsNotSent(t *testing.T) {
	t.Parallel()
	s, p := newScript(t, nil)
	for _, id := range []string{"", "76/../77", "76?x"} {
		a := testAttempt()
		a.Result = conversations.Result{Outcome: conversations.OutcomeCaptured, PaymentID: id, Amount: zar149}
		op := operation(conversations.OperationVoid, a, 14900)
		for name, do := range map[string]follower{"reverse": p.Reverse, "capture": p.Capture, "refund": p.Refund} {
			if got, _ := do(t.Context(), op, a); got.State != conversations.OperationFailed || got.Reason != reasonNoPaymentID {
				t.Errorf("%s of %q: %q (%s), want failed", name, id, got.State, got.Reason)
			}
		}
	}
	if calls := s.calls(); len(calls) != 0 {
		t.Errorf("calls %q, want none", calls)
	}
}

func TestChargeBody(t *testing.T) {
	t.Parallel()
	a := testAttempt()
	s, p := newScript(t, map[string]scripted{"POST /pts/v2/payments": {http.StatusCreated, approval(a, zar149)}})
	if got := p.Charge(t.Context(), chargeOf(a)); got.Outcome != conversations.OutcomeCaptured {
		t.Fatal(got)
	}
	want := `POST /pts/v2/payments {"clientReferenceInformation":{"code":"pr_07abc-1","transactionId":"t07abc1"},` +
		`"processingInformation":{"capture":true,"commerceIndicator":"internet"},"tokenInformation":{"transientTokenJwt":"x.y.z"},` +
		`"orderInformation":{"amountDetails":{"totalAmount":"149.00","currency":"ZAR"}}}`
	if got := s.calls(); len(got) != 1 || got[0] != want {
		t.Errorf("calls\n got %q\nwant %q", got, want)
	}
}

func TestChargeThatCannotBeRightIsNotSent(t *testing.T) {
	t.Parallel()
	s, p := newScript(t, nil)
	for name, change := range map[string]func(*conversations.Attempt){
		"no code":               func(a *conversations.Attempt) { a.Code = "" },
		"a code too long":       func(a *conversations.Attempt) { a.Code = strings.Repeat("x", maxCode+1) },
		"a transaction id, too": func(a *conversations.Attempt) { a.TransactionID = strings.Repeat("x", maxTransactionID+1) },
		"no amount":             func(a *conversations.Attempt) { a.Amount.Minor = 0 },
		"a negative amount":     func(a *conversations.Attempt) { a.Amount.Minor = -1 },
	} {
		a := testAttempt()
		change(&a)
		if got := p.Charge(t.Context(), chargeOf(a)); got.Outcome != conversations.OutcomeNotTaken {
			t.Errorf("%s: %q, want not taken", name, got.Outcome)
		}
	}
	if calls := s.calls(); len(calls) != 0 {
		t.Errorf("calls %q, want none", calls)
	}
}
