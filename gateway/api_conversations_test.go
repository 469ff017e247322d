package main

import (
	"fmt"
	"testing"
	"time"

	"paythread/conversations"
)

const chatter = "+27821234567"

// writesIn lets the customer write to acme.
func (b *apiBench) writesIn(channel conversations.Channel, id, text string) {
	b.t.Helper()
	err := b.store.Receive(b.t.Context(), "acme", conversations.Inbound{
		Kind: conversations.InboundText, SenderID: "acme-" + string(channel), ProviderID: id, Text: text, At: b.store.Now(), Name: "Thandi",
		Addresses: []conversations.Address{{Kind: conversations.AddressPhone, Value: chatter}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// conversation returns the id of the customer's conversation.
func (b *apiBench) conversation() string {
	b.t.Helper()
	list := b.call(apiCall{method: "GET", path: "/v1/conversations?phone=0821234567", token: acmeKey}).want(b.t, 200)
	id := list.text("items.0.id")
	if id == "" {
		b.t.Fatalf("no conversation: %s", list.raw)
	}
	return id
}

func TestConversationIsRead(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	if r := b.call(apiCall{method: "GET", path: "/v1/conversations?phone=0821234567", token: acmeKey}).want(t, 200); r.get("items.0") != nil {
		t.Errorf("nobody wrote, and there is %s", r.raw)
	}
	b.writesIn(conversations.WhatsApp, "w1", "hello")
	b.writesIn(conversations.SMS, "s1", "STOP")
	id := b.conversation()
	read := b.call(apiCall{method: "GET", path: "/v1/conversations/" + id, token: acmeKey}).want(t, 200)
	for path, want := range map[string]any{
		"mode": "bot", "customer_name": "Thandi", "addresses.0.value": chatter, "addresses.0.kind": "phone",
		"consent.whatsapp": "unknown", "consent.sms": "opted_out",
	} {
		if got := read.get(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if at, err := time.Parse(time.RFC3339, read.text("wrote_at.whatsapp")); err != nil || at.IsZero() {
		t.Errorf("wrote_at: %s", read.raw)
	}
	if r := b.call(apiCall{method: "GET", path: "/v1/conversations", token: acmeKey}).want(t, 200); r.text("items.0.id") != id || r.get("items.1") != nil {
		t.Errorf("the list is %s", r.raw)
	}

	// The transcript: what was said, newest first, in pages.
	said := map[string]string{}
	for cursor, pages := "", 0; ; pages++ {
		page := b.call(apiCall{method: "GET", path: "/v1/conversations/" + id + "/messages?limit=1&cursor=" + cursor, token: acmeKey}).want(t, 200)
		said[page.text("items.0.direction")+" "+page.text("items.0.channel")+" "+page.text("items.0.purpose")] = page.text("items.0.text")
		if cursor = page.text("next_cursor"); cursor == "" {
			break
		}
		if pages > 10 {
			t.Fatal("the transcript has no end")
		}
	}
	page := b.call(apiCall{method: "GET", path: "/v1/conversations/" + id + "/messages", token: acmeKey}).want(t, 200)
	meant := map[string]bool{}
	for i := range 4 {
		meant[page.text(fmt.Sprintf("items.%d.meant", i))] = true
	}
	if !meant["stop"] || !meant["other"] {
		t.Errorf("what was meant is not told: %s", page.raw)
	}
	if said["inbound whatsapp "] != "hello" || said["inbound sms "] != "STOP" || said["outbound whatsapp reply"] == "" || said["outbound sms consent"] == "" || len(said) != 4 {
		t.Errorf("the transcript has %v", said)
	}
}

func TestAgentWrites(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	b.writesIn(conversations.WhatsApp, "w1", "hello")
	id := b.conversation()
	write := func(key string, body object) apiReply {
		return b.call(apiCall{method: "POST", path: "/v1/conversations/" + id + "/messages", token: acmeKey, key: key, body: body})
	}
	first := write("k1", object{"text": " Hello, this is Thandi. "}).want(t, 201)
	if first.text("channel") != "whatsapp" || first.text("text") != "Hello, this is Thandi." || first.text("purpose") != "agent" || first.text("status") != "queued" {
		t.Errorf("got %s", first.raw)
	}
	if again := write("k1", object{"text": " Hello, this is Thandi. "}).want(t, 201); again.text("id") != first.text("id") {
		t.Errorf("a repeat is another message: %s", again.raw)
	}
	write("k1", object{"text": "another"}).problem(t, 422, "idempotency_mismatch", "idempotency_mismatch", "Idempotency-Key")
	if c := b.call(apiCall{method: "GET", path: "/v1/conversations/" + id, token: acmeKey}).want(t, 200); c.text("mode") != "with_agent" {
		t.Errorf("the bot still answers: %s", c.raw)
	}
	write("", object{"text": "  "}).problem(t, 422, "invalid", "", "text")
	write("", object{"text": "a\u0000b"}).problem(t, 422, "invalid", "", "text")
	write("", object{"channel": "sms", "text": fmt.Sprintf("%01600d", 7)}).problem(t, 422, "invalid", "", "text")
	write("", object{"channel": "letter", "text": "x"}).want(t, 422)
	b.writesIn(conversations.SMS, "s1", "STOP")
	write("", object{"channel": "sms", "text": "x"}).problem(t, 409, "conflict", "opted_out", "channel")

	// A customer who never wrote on WhatsApp cannot be written to freely there.
	b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: createBodyOf("77", object{"phone": "083 123 4567"})}).want(t, 201)
	other := b.call(apiCall{method: "GET", path: "/v1/conversations?phone=0831234567", token: acmeKey}).want(t, 200).text("items.0.id")
	b.call(apiCall{method: "POST", path: "/v1/conversations/" + other + "/messages", token: acmeKey, body: object{"channel": "whatsapp", "text": "x"}}).
		problem(t, 409, "conflict", "outside_window")
}

func TestConversationChangesHands(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	b.writesIn(conversations.WhatsApp, "w1", "hello")
	id := b.conversation()
	act := func(what string) apiReply {
		return b.call(apiCall{method: "POST", path: "/v1/conversations/" + id + "/" + what, token: acmeKey, key: "k-" + what}).want(t, 200)
	}
	if r := act("take-over"); r.text("mode") != "with_agent" {
		t.Errorf("after take-over: %s", r.raw)
	}
	if r := act("take-over"); r.text("mode") != "with_agent" {
		t.Errorf("after a repeat: %s", r.raw)
	}
	if r := act("hand-back"); r.text("mode") != "bot" {
		t.Errorf("after hand-back: %s", r.raw)
	}
	err := b.store.Receive(t.Context(), "acme", conversations.Inbound{
		Kind: conversations.InboundIdentity, SenderID: "acme-whatsapp", ProviderID: "i1", At: b.store.Now(),
		Addresses: []conversations.Address{{Kind: conversations.AddressPhone, Value: chatter}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := b.call(apiCall{method: "GET", path: "/v1/conversations/" + id, token: acmeKey}).want(t, 200); r.text("identity_changed_at") == "" {
		t.Errorf("the identity changed, and nobody is told: %s", r.raw)
	}
	if r := act("verify-identity"); r.text("identity_changed_at") != "" {
		t.Errorf("after it was verified: %s", r.raw)
	}
}

// conversationCalls is one call of each operation on a conversation.
func conversationCalls(id string) []apiCall {
	calls := []apiCall{{method: "GET", path: "/v1/conversations/" + id}, {method: "GET", path: "/v1/conversations/" + id + "/messages"}}
	for _, what := range []string{"messages", "take-over", "hand-back", "verify-identity", "typing"} {
		call := apiCall{method: "POST", path: "/v1/conversations/" + id + "/" + what}
		if what == "messages" {
			call.body = object{"text": "hello"}
		}
		calls = append(calls, call)
	}
	return calls
}

func TestConversationsAreApart(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	b.writesIn(conversations.WhatsApp, "w1", "hello")
	id := b.conversation()
	token, _ := b.session("1042")
	reader, _ := b.session("1043", object{"grants": []string{"read_all"}})
	actor, _ := b.session("1044", object{"grants": []string{"read_all", "act_all"}})
	before := b.keep()
	for _, call := range conversationCalls(id) {
		call.token = betaKey
		b.call(call).problem(t, 404, "not_found", "")
		call.token = token
		b.call(call).problem(t, 403, "forbidden", "not_granted")
		if call.token = reader; call.method == "POST" {
			b.call(call).problem(t, 403, "forbidden", "not_granted")
		} else {
			b.call(call).want(t, 200)
		}
	}
	b.call(apiCall{method: "GET", path: "/v1/conversations", token: token}).problem(t, 403, "forbidden", "not_granted")
	if r := b.call(apiCall{method: "GET", path: "/v1/conversations", token: betaKey}).want(t, 200); r.get("items.0") != nil {
		t.Errorf("another merchant sees %s", r.raw)
	}
	b.unchanged(before)
	for _, nobody := range []string{"c_0000000000000000000a", "x", "pr_0k3v9m2x7c1d5f8g4h6j"} {
		for _, call := range conversationCalls(nobody) {
			call.token = acmeKey
			b.call(call).problem(t, 404, "not_found", "")
		}
	}
	for _, call := range conversationCalls(id) {
		call.token = actor
		if r := b.call(call); r.status/100 != 2 {
			t.Errorf("%s %s with both grants: %s", call.method, call.path, r.raw)
		}
	}
	if c := b.call(apiCall{method: "GET", path: "/v1/conversations/" + id + "/messages", token: actor}).want(t, 200); c.text("items.0.agent") != "ag7" {
		t.Errorf("who wrote is not told: %s", c.raw)
	}
}
