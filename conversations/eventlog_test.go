package conversations

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMoneyEventsExist: what is marked for the audit is the name of an event,
// and no event that begins like one of money is forgotten.
func TestMoneyEventsExist(t *testing.T) {
	t.Parallel()
	var logged []string
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "eventlog.go" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:Log: |began := |show\(|backToOpen\(\w+, )"([a-z_]+)"`).FindAllSubmatch(text, -1) {
			logged = append(logged, string(m[1]))
		}
	}
	for _, e := range moneyEvents {
		if !slices.Contains(logged, e) {
			t.Errorf("there is no event %s", e)
		}
	}
	about := regexp.MustCompile(`^(attempt|operation|reversal|paid|authorized|captured|refunded|reversed|declined|late)`)
	for _, e := range logged {
		if about.MatchString(e) && !slices.Contains(moneyEvents, e) {
			t.Errorf("%s tells of money and is not marked for the audit", e)
		}
	}
	if len(logged) < 20 {
		t.Errorf("%d events: this test does not see them", len(logged))
	}
}

// TestEventLine: one line an event, with what names it and nothing private.
func TestEventLine(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	s := &Store{log: slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))}
	contact := &Contact{ID: "c_1", MerchantID: "acme", Name: "Lerato", Addresses: []Address{{Kind: "phone", Value: "+27821234567"}}}
	s.logEvents(t.Context(), contact, []LoggedEvent{
		{Seq: 7, Type: "refunded", At: time.Unix(1, 0), RequestID: "pr_1", Order: "1042", Lifecycle: Refunded, Reason: "asked", Attempt: 1,
			Operation: &LoggedOperation{ID: "pr_1-op1", Kind: OperationRefund, Amount: Money{Minor: 14900, Currency: "ZAR"}, State: OperationSucceeded, Reason: "asked"}},
		{Seq: 8, Type: "message_failed", RequestID: "pr_1", Lifecycle: Refunded, Message: &LoggedMessage{ID: "m_1-3", Purpose: PurposeRefund, Channel: SMS, Status: DeliveryFailed, Reason: FailureUnknown}},
	})
	want := `{"level":"INFO","msg":"a payment request has news","audit":true,"merchant_id":"acme","conversation_id":"c_1","payment_request_id":"pr_1","seq":7,"event":"refunded","lifecycle":"refunded","reason":"asked","attempt":"pr_1-1","operation":"pr_1-op1","kind":"refund","amount":"149.00","currency":"ZAR","state":"succeeded","why":"asked"}
{"level":"INFO","msg":"a payment request has news","merchant_id":"acme","conversation_id":"c_1","payment_request_id":"pr_1","seq":8,"event":"message_failed","lifecycle":"refunded","message_id":"m_1-3","purpose":"refund","channel":"sms","delivery_status":"failed","failure":"unknown"}
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
