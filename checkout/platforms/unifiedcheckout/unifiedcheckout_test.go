package unifiedcheckout

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"paythread/checkout/platforms"
	"paythread/checkout/platforms/platformtest"
	"paythread/conversations"
)

const testSecret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

func testSettings(baseURL string) platforms.Settings {
	return platforms.Settings{MerchantID: "acme", Sandbox: true, Values: map[string]string{
		"base_url": baseURL, "merchant_id": "testmerchant01", "key_id": "11111111-2222-3333-4444-555555555555",
		"shared_secret": testSecret, "country": "ZA",
	}}
}

var quiet = slog.New(slog.DiscardHandler)

func newPlatform(t *testing.T, settings platforms.Settings) *Platform {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p, err := New(settings, &http.Client{Transport: transport}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p.(*Platform)
}

var (
	zar149  = conversations.Money{Minor: 14900, Currency: "ZAR"}
	request = &conversations.PaymentRequest{ID: "pr_07abc", MerchantID: "acme", Order: conversations.Order{Reference: "1042", Total: zar149}}
)

func testAttempt() conversations.Attempt {
	return conversations.Attempt{
		N: 1, Code: "pr_07abc-1", TransactionID: "t07abc1", Platform: Name, State: conversations.AttemptSending,
		Amount: zar149, Capture: true, StartedAt: time.Now(), SendBy: time.Now().Add(time.Hour),
	}
}

func chargeOf(a conversations.Attempt) platforms.ChargeRequest {
	return platforms.ChargeRequest{Attempt: a, Request: request, TransientToken: "x.y.z"}
}

func approval(a conversations.Attempt, amount conversations.Money) string {
	return `{"clientReferenceInformation":{"code":"` + a.Code + `"},"id":"7681234567890123456789","status":"AUTHORIZED",` +
		`"orderInformation":{"amountDetails":{"totalAmount":"` + amount.Decimal() + `","authorizedAmount":"` + amount.Decimal() + `","currency":"` + amount.Currency + `"}},` +
		`"paymentInformation":{"card":{"type":"001"}},"processorInformation":{"approvalCode":"831000","responseCode":"00"},` +
		`"reconciliationId":"ABCD1234","submitTimeUtc":"2026-01-15T10:21:02Z"}`
}

func TestPlatform(t *testing.T) {
	t.Parallel()
	for _, auth := range []string{"jwt", "http_signature"} {
		t.Run(auth, func(t *testing.T) {
			t.Parallel()
			platformtest.Run(t, platformtest.Suite{
				New: func(t *testing.T, baseURL string, client *http.Client, log *slog.Logger) platforms.Platform {
					settings := hookSettings(baseURL)
					settings.Values["auth"] = auth
					settings.Values["timeout_reversal"] = timeoutVPC
					p, err := New(settings, client, log)
					if err != nil {
						t.Fatal(err)
					}
					return p
				},
				Charge:         platforms.ChargeRequest{Attempt: testAttempt(), Request: request, TransientToken: "eyJ0cmFuc2llbnQi.dG9rZW4.c2ln"},
				Secrets:        []string{testSecret, "0123456789abcdef0123456789abcdef", hookKey, "webhook-signing-key", "PRIVATE KEY"},
				ApprovedStatus: http.StatusCreated,
				Approved:       approval,
				Refused:        `{"submitTimeUtc":"2026-01-15T10:21:02Z","status":"INVALID_REQUEST","reason":"MISSING_FIELD","message":"Declined - The request is missing one or more fields"}`,
				Duplicate:      `{"submitTimeUtc":"2026-01-15T10:21:02Z","status":"INVALID_REQUEST","reason":"DUPLICATE_REQUEST","message":"Declined - The transaction identifier sent with this request has already been used in the last 60 days"}`,
				NotTaken:       []int{401, 403, 404, 429},

				NothingFoundStatus: http.StatusCreated,
				NothingFound:       `{"searchId":"x","totalCount":0,"count":0,"_embedded":{"transactionSummaries":[]}}`,

				Done: func(op conversations.Operation) string {
					status := map[conversations.OperationKind]string{conversations.OperationVoid: "VOIDED"}[op.Kind]
					if status == "" {
						status = "PENDING"
					}
					return `{"id":"7681234567890123456790","status":"` + status + `","clientReferenceInformation":{"code":"` + op.ID + `"}}`
				},
				DoneID:    "7681234567890123456790",
				TakenBack: `{"id":"7681234567890123456790","status":"VOIDED","voidAmountDetails":{"voidAmount":"149.00","currency":"ZAR"}}`,
				Audits:    true,
				Notifications: &platformtest.Notifications{
					Sign: func(body []byte, at time.Time) map[string]string {
						stamp := strconv.FormatInt(at.UnixMilli(), 10)
						return map[string]string{"v-c-signature": "t=" + stamp + ";keyId=" + hookKeyID + ";sig=" + signedWith(hookKey, stamp, string(body))}
					},
					News:          []byte(`{"eventType":"payments.capture.status.accepted","productId":"payments","retryNumber":0,"payload":{"id":"7681234567890123456789","status":"PENDING","clientReferenceInformation":{"code":"pr_07abc-op1"}}}`),
					Repeat:        []byte(`{"eventType":"payments.capture.status.accepted","productId":"payments","retryNumber":1,"payload":{"id":"7681234567890123456789","status":"PENDING","clientReferenceInformation":{"code":"pr_07abc-op1"}}}`),
					Other:         []byte(`{"eventType":"payments.capture.status.updated","productId":"payments","retryNumber":0,"payload":{"id":"7681234567890123456789","status":"TRANSMITTED","clientReferenceInformation":{"code":"pr_07abc-op1"}}}`),
					TransactionID: "7681234567890123456789", Code: "pr_07abc-op1",
					Unknown:  []byte(`{"eventType":"new.thing.happened","productId":"newProduct","payload":{"id":"7681234567890123456789"}}`),
					Accepted: []byte(decision(accepted, casePayload)), Rejected: []byte(decision(rejected, casePayload)),
				},
			})
		})
	}
}

func TestNewNamesAllThatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := New(platforms.Settings{Values: map[string]string{
		"base_url": "api.cybersource.com", "merchant_id": "m", "key_id": "k", "shared_secret": "not base64 at all!", "country": "za",
		"allowed_card_networks": "VISA,VISCA", "allowed_payment_types": "IDEAL", "search_window": "5m", "search_lag": "-1m", "colour": "red",
	}}, http.DefaultClient, slog.Default())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"base_url", "base64", "country", `"VISCA"`, `"IDEAL"`, "search_window", "search_lag", "colour"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %s: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "not base64 at all!") {
		t.Error("the error holds the secret")
	}
	_, err = New(platforms.Settings{Values: map[string]string{"auth": "basic"}}, http.DefaultClient, slog.Default())
	for _, want := range []string{"merchant_id", "key_id", "shared_secret", "country"} {
		if err == nil || !strings.Contains(err.Error(), want+" is missing") {
			t.Errorf("the error lacks %s: %v", want, err)
		}
	}
	settings := testSettings("")
	settings.Values["search_lag"] = "46m"
	if _, err := New(settings, http.DefaultClient, slog.Default()); err == nil || !strings.Contains(err.Error(), "search_lag") {
		t.Errorf("search_lag 46m: %v, want an error: what is unknown would stay so for ever", err)
	}
	settings = testSettings("")
	settings.Values["auth"] = "basic"
	if _, err := New(settings, http.DefaultClient, slog.Default()); err == nil || !strings.Contains(err.Error(), "auth") {
		t.Errorf("auth basic: %v, want an error", err)
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		base, more string
		sandbox    bool
		want       string
	}{
		{"", "", true, "https://apitest.cybersource.com https://testup.cybersource.com https://testflex.cybersource.com"},
		{"", "", false, "https://api.cybersource.com https://up.cybersource.com https://flex.cybersource.com"},
		{"http://simulator:8090", "http://localhost:8090, https://pay.google.com,http://simulator:8090", true, "http://simulator:8090 http://localhost:8090 https://pay.google.com"},
	} {
		settings := testSettings(tt.base)
		settings.Sandbox = tt.sandbox
		settings.Values["page_origins"] = tt.more
		if got := strings.Join(newPlatform(t, settings).Origins(), " "); got != tt.want {
			t.Errorf("base %q: %s, want %s", tt.base, got, tt.want)
		}
	}
	for _, origin := range []string{"*", "https://*.example.test", "https://x.test/path", "https://x.test; script-src *", "'unsafe-inline'"} {
		settings := testSettings("")
		settings.Values["page_origins"] = origin
		if _, err := New(settings, http.DefaultClient, slog.Default()); err == nil || !strings.Contains(err.Error(), "page_origins") {
			t.Errorf("%q: %v, want an error", origin, err)
		}
	}
}

func TestEveryRequiredOrSecretSettingHasNoDefault(t *testing.T) {
	t.Parallel()
	for _, s := range Registration.Settings {
		if s.Doc == "" || (s.Required || s.Secret) && s.Default != "" {
			t.Errorf("setting %s: doc %q, default %q", s.Name, s.Doc, s.Default)
		}
	}
}

func TestReadCharge(t *testing.T) {
	t.Parallel()
	with := func(status, more string) string {
		return `{"id":"7681234567890123456789","status":"` + status + `","clientReferenceInformation":{"code":"pr_07abc-1"}` + more + `}`
	}
	amounts := func(authorized string) string {
		return `,"orderInformation":{"amountDetails":{"authorizedAmount":"` + authorized + `","currency":"ZAR"}}`
	}
	reason := func(s string) string { return `,"errorInformation":{"reason":"` + s + `"}` }
	zar := func(minor int64) conversations.Money { return conversations.Money{Minor: minor, Currency: "ZAR"} }
	for _, tt := range []struct {
		name   string
		status int
		body   string
		auth   bool // authorization only
		want   conversations.Result
	}{
		{"sale", 201, with("AUTHORIZED", amounts("149.00")), false, conversations.Result{Outcome: conversations.OutcomeCaptured, Amount: zar149}},
		{"authorization", 201, with("AUTHORIZED", amounts("149.00")), true, conversations.Result{Outcome: conversations.OutcomeAuthorized, Amount: zar149}},
		{"more decimals", 201, with("AUTHORIZED", amounts("149.0000")), true, conversations.Result{Outcome: conversations.OutcomeAuthorized, Amount: zar149}},
		{"a broken cent", 201, with("AUTHORIZED", amounts("149.001")), true, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: reasonAmountMissing}},
		{"no amount", 201, with("AUTHORIZED", ""), false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: reasonAmountMissing}},
		{"no id", 201, `{"status":"AUTHORIZED"` + amounts("149.00") + `}`, false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: reasonAmountMissing}},
		{"for less", 201, with("AUTHORIZED", amounts("100.00")), false, conversations.Result{Outcome: conversations.OutcomePartial, Reason: reasonAmountDiffers, Amount: zar(10000)}},
		{"for more", 201, with("AUTHORIZED", amounts("1490.00")), false, conversations.Result{Outcome: conversations.OutcomePartial, Reason: reasonAmountDiffers, Amount: zar(149000)}},
		{"partial", 201, with("PARTIAL_AUTHORIZED", amounts("100.00")), false, conversations.Result{Outcome: conversations.OutcomePartial, Reason: "PARTIAL_AUTHORIZED", Amount: zar(10000)}},
		{"partial without its amount", 201, with("PARTIAL_AUTHORIZED", ""), false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: reasonAmountMissing}},
		{"pending review", 201, with("AUTHORIZED_PENDING_REVIEW", amounts("149.00")+reason("AVS_FAILED")), false, conversations.Result{Outcome: conversations.OutcomeInReview, Reason: "AVS_FAILED", Amount: zar149}},
		{"pending review without an amount", 201, with("AUTHORIZED_PENDING_REVIEW", reason("CV_FAILED")), false, conversations.Result{Outcome: conversations.OutcomeInReview, Reason: "CV_FAILED", Amount: zar149}},
		{"pending review for less", 201, with("AUTHORIZED_PENDING_REVIEW", amounts("1.00")), false, conversations.Result{Outcome: conversations.OutcomePartial, Reason: reasonReviewDiffers, Amount: zar(100)}},
		{"risk declined", 201, with("AUTHORIZED_RISK_DECLINED", amounts("149.00")+reason("DECISION_PROFILE_REJECT")), false, conversations.Result{Outcome: conversations.OutcomeRiskDeclined, Reason: "DECISION_PROFILE_REJECT", Amount: zar149}},
		{"review before authorization", 201, with("PENDING_REVIEW", reason("DECISION_PROFILE_REVIEW")), false, conversations.Result{Outcome: conversations.OutcomeInReview, Reason: "DECISION_PROFILE_REVIEW", Amount: zar(0)}},
		{"authentication", 201, with("PENDING_AUTHENTICATION", reason("CONSUMER_AUTHENTICATION_REQUIRED")), false, conversations.Result{Outcome: conversations.OutcomeAuthenticationPending, Reason: "CONSUMER_AUTHENTICATION_REQUIRED"}},
		{"pending", 201, with("PENDING", ""), false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "PENDING"}},
		{"review without an id", 201, `{"status":"AUTHORIZED_PENDING_REVIEW"` + amounts("149.00") + `}`, false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: reasonAmountMissing}},
		{"risk declined without an id", 201, `{"status":"AUTHORIZED_RISK_DECLINED"` + amounts("149.00") + `}`, false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: reasonAmountMissing}},
		{"risk declined for less", 201, with("AUTHORIZED_RISK_DECLINED", amounts("1.00")+reason("SCORE_EXCEEDS_THRESHOLD")), false, conversations.Result{Outcome: conversations.OutcomeRiskDeclined, Reason: "SCORE_EXCEEDS_THRESHOLD", Amount: zar(100)}},
		{"a new status", 201, with("SOMETHING_NEW", amounts("149.00")), false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "SOMETHING_NEW"}},
		{"declined", 201, with("DECLINED", reason("INSUFFICIENT_FUND")+`,"paymentInsightsInformation":{"responseInsights":{"categoryCode":"02"}}`), false, conversations.Result{Outcome: conversations.OutcomeDeclined, Reason: "INSUFFICIENT_FUND"}},
		{"declined for good", 201, with("DECLINED", reason("STOLEN_LOST_CARD")+`,"paymentInsightsInformation":{"responseInsights":{"categoryCode":"01"}}`), false, conversations.Result{Outcome: conversations.OutcomeDeclined, Reason: "STOLEN_LOST_CARD", Final: true}},
		{"declined, new reason", 201, with("DECLINED", reason("NEVER_HEARD_OF")), false, conversations.Result{Outcome: conversations.OutcomeDeclined, Reason: "NEVER_HEARD_OF"}},
		{"declined, to be looked up", 201, with("DECLINED", reason("ISSUER_UNAVAILABLE")), false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "ISSUER_UNAVAILABLE"}},
		{"invalid as 201", 201, with("INVALID_REQUEST", `,"reason":"INVALID_DATA"`), false, conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "INVALID_DATA"}},
		{"duplicate as 201", 201, with("INVALID_REQUEST", reason("DUPLICATE_REQUEST")), false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "DUPLICATE_REQUEST"}},
		{"system error as 201", 201, with("SERVER_ERROR", reason("SYSTEM_ERROR")), false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "SYSTEM_ERROR"}},
		{"invalid data", 400, `{"status":"INVALID_REQUEST","reason":"INVALID_DATA","details":[{"field":"tokenInformation.jti","reason":"INVALID_DATA"}]}`, false, conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "INVALID_DATA"}},
		{"processor unavailable", 400, `{"status":"INVALID_REQUEST","reason":"PROCESSOR_UNAVAILABLE"}`, false, conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "PROCESSOR_UNAVAILABLE"}},
		{"duplicate", 400, `{"status":"INVALID_REQUEST","reason":"DUPLICATE_REQUEST"}`, false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "DUPLICATE_REQUEST"}},
		{"duplicate in other words", 400, `{"status":"INVALID_REQUEST","reason":"INVALID_DATA","details":[{"field":"clientReferenceInformation.transactionId"}]}`, false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "INVALID_DATA"}},
		{"400 of something between", 400, `<html>Bad Request</html>`, false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "HTTP_400"}},
		{"no permission", 403, ``, false, conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "HTTP_403"}},
		{"no such service", 404, `{"status":"NOT_FOUND","reason":"NOT_FOUND"}`, false, conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "NOT_FOUND"}},
		{"too many calls", 429, `<html>`, false, conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "HTTP_429"}},
		{"out of order", 503, `{"status":"SERVER_ERROR"}`, false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "SERVER_ERROR"}},
		{"not authenticated", 401, `{"response":{"rmsg":"Authentication Failed"}}`, false, conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "HTTP_401"}},
		{"502 with an id", 502, `{"id":"7681234567890123456789","status":"SERVER_ERROR","reason":"SYSTEM_ERROR"}`, false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "SYSTEM_ERROR", PaymentID: "7681234567890123456789"}},
		{"500 with a number as status", 500, `{"id":7681234567890123456789,"status":"500","errorInformation":{"reason":"SYSTEM_ERROR"}}`, false, conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: "SYSTEM_ERROR", PaymentID: "7681234567890123456789"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := testAttempt()
			a.Capture = !tt.auth
			got := readCharge(a, tt.status, []byte(tt.body))
			if tt.want.PaymentID == "" && tt.status == 201 {
				got.PaymentID = "" // the same in all
			}
			if got != tt.want {
				t.Errorf("\n got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// The words of the payments guide, each with where it leads. A decline of a card
// is the customer's try; what the guide wants looked up first is unknown.
func TestReadChargeKnowsEveryReason(t *testing.T) {
	t.Parallel()
	declines := strings.Fields(`AVS_FAILED CONTACT_PROCESSOR EXPIRED_CARD PROCESSOR_DECLINED INSUFFICIENT_FUND STOLEN_LOST_CARD UNAUTHORIZED_CARD
		CVN_NOT_MATCH EXCEEDS_CREDIT_LIMIT INVALID_CVN BLOCKED_BY_CARDHOLDER DECLINED_CHECK BLACKLISTED_CUSTOMER SUSPENDED_ACCOUNT PAYMENT_REFUSED
		CV_FAILED INVALID_ACCOUNT GENERAL_DECLINE INVALID_MERCHANT_CONFIGURATION DECISION_PROFILE_REJECT SCORE_EXCEEDS_THRESHOLD
		PENDING_AUTHENTICATION ACH_VERIFICATION_FAILED DECISION_PROFILE_REVIEW CONSUMER_AUTHENTICATION_REQUIRED CONSUMER_AUTHENTICATION_FAILED
		ALLOWABLE_PIN_RETRIES_EXCEEDED CUSTOMER_WATCHLIST_MATCH ADDRESS_COUNTRY_WATCHLIST_MATCH EMAIL_COUNTRY_WATCHLIST_MATCH IP_COUNTRY_WATCHLIST_MATCH`)
	check := strings.Fields("ISSUER_UNAVAILABLE PROCESSOR_ERROR PROCESSOR_UNAVAILABLE SYSTEM_ERROR SERVER_TIMEOUT SERVICE_TIMEOUT SYSTEM_TIMEOUT")
	refusals := strings.Fields(`MISSING_FIELD INVALID_DATA INVALID_CARD CARD_TYPE_NOT_ACCEPTED INVALID_CARD_TYPE INVALID_AMOUNT INVALID_MERCHANT_CONFIGURATION
		PROCESSOR_UNAVAILABLE NOT_SUPPORTED INVALID_PAYMENT_ID SOMETHING_NEW`)
	for _, tt := range []struct {
		status int
		body   string // with a place for the reason
		words  []string
		want   conversations.Outcome
	}{
		{201, `{"id":"1","status":"DECLINED","errorInformation":{"reason":%q}}`, declines, conversations.OutcomeDeclined},
		{201, `{"id":"1","status":"DECLINED","errorInformation":{"reason":%q}}`, check, conversations.OutcomeUnknown},
		{400, `{"status":"INVALID_REQUEST","reason":%q}`, refusals, conversations.OutcomeNotTaken},
		{400, `{"status":"INVALID_REQUEST","reason":%q}`, []string{"DUPLICATE_REQUEST"}, conversations.OutcomeUnknown},
		{502, `{"id":"1","status":"SERVER_ERROR","reason":%q}`, []string{"SYSTEM_ERROR", "SERVER_TIMEOUT", "SERVICE_TIMEOUT"}, conversations.OutcomeUnknown},
	} {
		for _, word := range tt.words {
			got := readCharge(testAttempt(), tt.status, fmt.Appendf(nil, tt.body, word))
			if got.Outcome != tt.want || got.Reason != word {
				t.Errorf("HTTP %d %s: %q (%s), want %q", tt.status, word, got.Outcome, got.Reason, tt.want)
			}
		}
	}
}

func TestReadChargeTellsTheRest(t *testing.T) {
	t.Parallel()
	a := testAttempt()
	got := readCharge(a, 201, []byte(approval(a, zar149)))
	at := time.Date(2026, 1, 15, 10, 21, 2, 0, time.UTC)
	if got.At == nil || !got.At.Equal(at) {
		t.Errorf("at %v, want %v", got.At, at)
	}
	got.At = nil
	want := conversations.Result{
		Outcome: conversations.OutcomeCaptured, PaymentID: "7681234567890123456789", ReconciliationID: "ABCD1234",
		ApprovalCode: "831000", Amount: zar149, CardBrand: "Visa",
	}
	if got != want {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func FuzzReadCharge(f *testing.F) {
	a := testAttempt()
	f.Add(201, approval(a, zar149))
	f.Add(201, approval(a, conversations.Money{Minor: 1, Currency: "JPY"}))
	f.Add(400, `{"reason":"DUPLICATE_REQUEST"}`)
	f.Add(502, `{"id":"1","status":"SERVER_ERROR"}`)
	f.Add(201, `{"a":[{"b":[]},{"b":{}}],"status":"AUTHORIZED"}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		got := readCharge(a, status, []byte(body))
		switch got.Outcome {
		case conversations.OutcomeCaptured:
			if got.Amount != zar149 || status != 201 || got.PaymentID == "" {
				t.Fatalf("captured %+v of HTTP %d %q", got, status, body)
			}
		case conversations.OutcomeAuthorized:
			t.Fatalf("a sale was only authorized: %q", body)
		case "":
			t.Fatalf("no outcome of HTTP %d %q", status, body)
		}
	})
}
