package main

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
	"paythread/gateway/providers"
)

func TestReasonOfACancellationIsKept(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.create("1042").text("id")
	cancel := func(reason string) apiReply {
		return b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + id + "/cancel", token: acmeKey, body: object{"reason": reason}})
	}
	before := b.keep()
	cancel("two\nlines").problem(t, 422, "invalid", "", "reason")
	b.unchanged(before)
	const reason = "The customer ordered twice"
	if got := cancel(reason).want(t, 200).text("cancel_reason"); got != reason {
		t.Errorf("the answer says %q", got)
	}
	if got := b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id, token: acmeKey}).want(t, 200).text("cancel_reason"); got != reason {
		t.Errorf("afterwards it is %q", got)
	}
	r := b.request(id)
	messages, err := b.store.Messages(t.Context(), r.ContactID, r.Messages)
	if err != nil || len(messages) != 2 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	for _, m := range messages {
		if strings.Contains(m.Text, reason) {
			t.Errorf("the customer is told: %q", m.Text)
		}
	}
}

func TestAgentSessionOnce(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	post := func(key string, body any) apiReply {
		return b.call(apiCall{method: "POST", path: "/v1/agent-sessions", token: acmeKey, key: key, body: body})
	}
	first := post("k1", object{"order": orderBody("1042")}).want(t, 201)
	before := b.keep()
	if again := post("k1", object{"order": orderBody("1042")}).want(t, 201); again.text("sealed_order") != first.text("sealed_order") || again.text("token") == "" {
		t.Errorf("a repeat is answered %s, want %s", again.text("sealed_order"), first.text("sealed_order"))
	}
	post("k1", object{"order": orderBody("1043")}).problem(t, 422, "idempotency_mismatch", "idempotency_mismatch", "Idempotency-Key")
	post("k1", object{"sealed_order": first.text("sealed_order")}).problem(t, 422, "idempotency_mismatch", "idempotency_mismatch", "Idempotency-Key")
	b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, key: "k1", body: createBodyOf("1042")}).
		problem(t, 422, "idempotency_mismatch", "idempotency_mismatch", "Idempotency-Key")
	b.unchanged(before)

	renew := object{"sealed_order": first.text("sealed_order")}
	post("k2", renew).want(t, 201)
	post("k2", renew).want(t, 201)
	post("k2", object{"order": orderBody("1044")}).problem(t, 422, "idempotency_mismatch", "idempotency_mismatch", "Idempotency-Key")
	if other := post("k3", object{"order": orderBody("1042")}).want(t, 201); other.text("sealed_order") == first.text("sealed_order") {
		t.Error("another key found the same sealed order")
	}
}

// mute is a provider that cannot shake hands.
type mute struct{ providers.Provider }

// aReceiver takes nothing: a GET must not get as far.
type aReceiver struct{ receiver }

func (aReceiver) Now() time.Time { return time.Now() }

func TestMethodsThatAreNotTakenSayWhichAre(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	app := fiber.New(fiber.Config{ErrorHandler: problemHandler(b.api.log)})
	hooks := &webhooks{store: aReceiver{}, senders: always(map[string]*liveSender{
		"sms": {SenderConfig: &SenderConfig{ID: "sms", Merchant: b.api.config().Merchants[0]}, provider: mute{}},
	})}
	app.Get("/webhooks/:sender_id", hooks.Take)
	answer, err := app.Test(httptest.NewRequest("GET", "/webhooks/sms", nil))
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != 405 || answer.Header.Get("Allow") != "POST" {
		t.Errorf("a webhook that takes no GET answers %d, Allow %q", answer.StatusCode, answer.Header.Get("Allow"))
	}
	if r := b.call(apiCall{method: "OPTIONS", path: "/v1/payment-requests"}).want(t, 405); r.header.Get("Allow") != "GET, POST" {
		t.Errorf("OPTIONS that asks nothing is answered with Allow %q", r.header.Get("Allow"))
	}
}

func TestBlankOrderNumber(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	for _, order := range []string{"", " ", "\u00a0\u2003"} {
		b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: createBodyOf(order)}).problem(t, 422, "invalid", "", "order")
	}
	if _, err := b.store.RequestByOrder(t.Context(), "acme", " "); conversations.CodeOf(err) != conversations.CodeNotFound {
		t.Errorf("a blank order is held: %v", err)
	}
}
