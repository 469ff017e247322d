package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/twilio"
)

// keeper keeps what it receives.
type keeper struct{ taken []conversations.Inbound }

func (k *keeper) Receive(_ context.Context, _ string, in conversations.Inbound) error {
	k.taken = append(k.taken, in)
	return nil
}

func (*keeper) Now() time.Time { return time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC) }

// TestWebhookByGet: at Twilio a merchant may choose GET. It counts like a POST
// when it is signed, and does nothing when it is not.
func TestWebhookByGet(t *testing.T) {
	t.Parallel()
	const token, account = "an-auth-token", "AC00000000000000000000000000000001"
	sender := &SenderConfig{ID: "sms", Provider: "twilio", Channel: conversations.SMS, Merchant: &MerchantConfig{}}
	sender.Merchant.ID, sender.Merchant.PublicURL = "acme", "https://pay.acme.example"
	p, err := twilio.New(providers.Settings{SenderID: sender.ID, WebhookURL: sender.WebhookURL(), Values: map[string]string{
		"account_sid": account, "auth_token": token, "from": "+15550783881",
	}}, http.DefaultClient, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	kept := &keeper{}
	hooks := &webhooks{
		store: kept, senders: always(map[string]*liveSender{sender.ID: {SenderConfig: sender, provider: p}}),
		metrics: newWebhookMetrics(prometheus.NewRegistry()), log: slog.New(slog.DiscardHandler),
	}
	app := fiber.New(fiber.Config{ErrorHandler: problemHandler(hooks.log), Immutable: true})
	app.Get("/webhooks/:sender_id", hooks.Take)

	const query = "?AccountSid=" + account + "&MessageSid=SM01&From=%2B16505551234&To=%2B15550783881&Body=caf%C3%A9+%26+more&SmsStatus=received&FromCity="
	call := func(signature string) *http.Response {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, "/webhooks/sms"+query, nil)
		r.Header.Set("X-Twilio-Signature", signature)
		answer, err := app.Test(r)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	for _, forged := range []string{"", "bm9ib2R5J3M="} {
		if answer := call(forged); answer.StatusCode != 403 || len(kept.taken) != 0 {
			t.Errorf("signed with %q: answered %d, and %d reports were taken", forged, answer.StatusCode, len(kept.taken))
		}
	}
	mac := hmac.New(sha1.New, []byte(token))
	mac.Write([]byte(sender.WebhookURL() + query))
	answer := call(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/xml" {
		t.Errorf("answered %d as %q, want 200 as text/xml", answer.StatusCode, answer.Header.Get("Content-Type"))
	}
	if len(kept.taken) != 1 || kept.taken[0].Text != "café & more" || kept.taken[0].ProviderID != "SM01" {
		t.Errorf("taken: %+v, want the customer's text", kept.taken)
	}
}
