package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"paythread/conversations"
)

// TestCreateOnce: the same key with the same request has its effect once.
func TestCreateOnce(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	post := func(token, key string, body any) apiReply {
		return b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: token, key: key, body: body})
	}
	first := post(acmeKey, "k1", createBodyOf("1042")).want(t, 201)
	before := b.keep()
	if again := post(acmeKey, "k1", createBodyOf("1042")).want(t, 201); again.raw != first.raw {
		t.Errorf("a repeat is answered %s, want %s", again.raw, first.raw)
	}
	// Spaces and the order of names make no other request.
	same := `{ "channel" : "whatsapp", "total":{"currency":"ZAR","value":"149.00"}, "phone":"082 123 4567","order":"1042",
		"line_items":[{"name":"Service","sku":"S1","quantity":2,"unit_price":{"value":"50.00","currency":"ZAR"},"total":{"value":"100.00","currency":"ZAR"}},
		{"name":"Part","quantity":1,"unit_price":{"value":"29.57","currency":"ZAR"},"total":{"value":"29.57","currency":"ZAR"}}],
		"subtotal":{"value":"129.57","currency":"ZAR"},"tax":{"value":"19.43","currency":"ZAR"},"shipping":{"value":"5.00","currency":"ZAR"},"discount":{"value":"5.00","currency":"ZAR"}}`
	if again := post(acmeKey, "k1", same).want(t, 201); again.text("id") != first.text("id") {
		t.Errorf("a repeat in another form made %s", again.text("id"))
	}
	for name, body := range map[string]any{
		"another order": createBodyOf("1043"), "another phone": createBodyOf("1042", object{"phone": "083 123 4567"}), "another note": createBodyOf("1042", object{"note": "x"}),
	} {
		r := post(acmeKey, "k1", body).want(t, 422)
		if r.text("code") != "idempotency_mismatch" || r.fields()[0] != "Idempotency-Key" || r.text("errors.0.location") != "header.Idempotency-Key" {
			t.Errorf("%s: %s", name, r.raw)
		}
	}
	b.unchanged(before)
	// Another merchant's key of the same name is another key.
	post(betaKey, "k1", createBodyOf("1042")).want(t, 201)

	// After it was cancelled, a repeat still gets the first one.
	r := b.request(first.text("id"))
	b.apply(r, conversations.CancelRequested{RequestID: r.ID})
	if again := post(acmeKey, "k1", createBodyOf("1042")).want(t, 201); again.text("id") != r.ID || again.text("lifecycle") != "cancelled" {
		t.Errorf("a repeat is answered %s %s", again.text("id"), again.text("lifecycle"))
	}
}

// TestCreateOnceAtOnce: many calls with one key at the same moment make one
// payment request and one message.
func TestCreateOnceAtOnce(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	token, _ := b.session("2")
	for _, c := range []struct {
		name  string
		token string
		body  any
	}{{"server", acmeKey, createBodyOf("1")}, {"agent", token, object{"channel": "sms", "phone": "083 123 4567"}}} {
		var calls sync.WaitGroup
		var mu sync.Mutex
		ids := map[string]int{}
		for range 20 {
			calls.Add(1)
			go func() {
				defer calls.Done()
				r, err := b.try(apiCall{method: "POST", path: "/v1/payment-requests", token: c.token, key: "same", body: c.body})
				mu.Lock()
				defer mu.Unlock()
				if err != nil || r.status != http.StatusCreated {
					t.Errorf("%s: %v %d %s", c.name, err, r.status, r.raw)
				}
				ids[r.text("id")]++
			}()
		}
		calls.Wait()
		if len(ids) != 1 {
			t.Errorf("%s: 20 calls made %v", c.name, ids)
		}
		for id := range ids {
			if r := b.request(id); r.LastEvent != 1 || len(r.Messages) != 1 {
				t.Errorf("%s: %d events, %d messages", c.name, r.LastEvent, len(r.Messages))
			}
		}
	}
	depth, _, err := b.store.OutboxDepth(t.Context())
	if err != nil || depth != 2 {
		t.Errorf("outbox depth %d, %v; want one message each", depth, err)
	}
}

// TestAgentRepeatsWithANewToken: a renewed token repeats the call of the old.
func TestAgentRepeatsWithANewToken(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	token, sealed := b.session("1042")
	body := object{"channel": "sms", "phone": "083 123 4567"}
	first := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: token, key: "k", body: body}).want(t, 201)
	renewed := b.call(apiCall{method: "POST", path: "/v1/agent-sessions", token: acmeKey, body: object{"sealed_order": sealed}}).want(t, 201).text("token")
	again := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: renewed, key: "k", body: body}).want(t, 201)
	if again.text("id") != first.text("id") {
		t.Errorf("made %s and %s", first.text("id"), again.text("id"))
	}
	// Another order's session with the same key is another caller.
	other, _ := b.session("7")
	r := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: other, key: "k", body: body}).want(t, 201)
	if r.text("id") == first.text("id") || r.text("order") != "7" {
		t.Errorf("another order's session was given %s", r.raw)
	}
}

// TestActOnce: a repeat of an action gets its first answer, also a refusal.
func TestActOnce(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.create("1042").text("id")
	act := func(action, key string, body any) apiReply {
		return b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + id + "/" + action, token: acmeKey, key: key, body: body})
	}
	act("resend", "r1", object{}).want(t, 200)
	before := b.keep()
	if again := act("resend", "r1", object{}).want(t, 200); again.get("last_event") != 2.0 {
		t.Errorf("a repeat: %s", again.raw)
	}
	act("resend", "r1", object{"message": "payment"}).problem(t, 422, "idempotency_mismatch", "idempotency_mismatch", "Idempotency-Key")
	act("extend", "r1", object{}).problem(t, 422, "idempotency_mismatch", "idempotency_mismatch", "Idempotency-Key")
	b.unchanged(before)

	act("resend", "r2", object{"message": "receipt"}).problem(t, 409, "conflict", "not_paid")
	act("cancel", "c1", object{"reason": "wrong order"}).want(t, 200)
	before = b.keep()
	// The first answer, though the state would say something else now.
	act("resend", "r2", object{"message": "receipt"}).problem(t, 409, "conflict", "not_paid")
	if again := act("cancel", "c1", object{"reason": "wrong order"}).want(t, 200); again.text("lifecycle") != "cancelled" {
		t.Errorf("a repeat: %s", again.raw)
	}
	b.unchanged(before)
	act("cancel", "c2", object{}).problem(t, 409, "conflict", "cancelled")
	act("cancel", "", object{}).problem(t, 409, "conflict", "cancelled")
}

func TestActOnceAtOnce(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.create("1042").text("id")
	var calls sync.WaitGroup
	for range 20 {
		calls.Add(1)
		go func() {
			defer calls.Done()
			r, err := b.try(apiCall{method: "POST", path: "/v1/payment-requests/" + id + "/resend", token: acmeKey, key: "same", body: object{}})
			if err != nil || r.status != 200 {
				t.Errorf("%v %d %s", err, r.status, r.raw)
			}
		}()
	}
	calls.Wait()
	if r := b.request(id); r.LastEvent != 2 || len(r.Messages) != 2 {
		t.Errorf("%d events, %d messages; want one resend", r.LastEvent, len(r.Messages))
	}
}

// TestKeysWhereNothingChanges: the header is taken, and checked, everywhere.
func TestKeysWhereNothingChanges(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	_, sealed := b.session("1")
	for path, body := range map[string]any{
		"/v1/agent-sessions": object{"sealed_order": sealed}, "/v1/message-previews": object{"channel": "sms"},
	} {
		for range 2 {
			r := b.call(apiCall{method: "POST", path: path, token: acmeKey, key: "k", body: body})
			if r.status >= 300 {
				t.Errorf("%s: %d %s", path, r.status, r.raw)
			}
		}
		b.call(apiCall{method: "POST", path: path, token: acmeKey, key: strings.Repeat("k", 256), body: body}).problem(t, 422, "invalid", "", "Idempotency-Key")
	}
	r := b.call(apiCall{method: "GET", path: "/v1/payment-requests", token: acmeKey, key: "a b"})
	if r.status != 200 {
		t.Errorf("a read with a key: %s", fmt.Sprint(r.status, r.raw))
	}
}
