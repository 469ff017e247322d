package main

import (
	"context"
	"errors"
	"slices"
	"testing"

	"paythread/conversations"
)

func TestTyping(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	var told []string
	fails := false
	b.api.typing = func(_ context.Context, senderID, inboundID string) error {
		told = append(told, senderID+" "+inboundID)
		if fails {
			return errors.New("no answer")
		}
		return nil
	}
	b.writesIn(conversations.SMS, "s1", "hello")
	id := b.conversation()
	show := func() {
		t.Helper()
		if r := b.call(apiCall{method: "POST", path: "/v1/conversations/" + id + "/typing", token: acmeKey}).want(t, 200); r.text("id") != id {
			t.Errorf("got %s", r.raw)
		}
	}
	show() // by SMS only: there is nobody to tell
	b.writesIn(conversations.WhatsApp, "w1", "hello")
	b.writesIn(conversations.WhatsApp, "w2", "hello?")
	show()
	fails = true
	show()
	if want := []string{"acme-whatsapp w2", "acme-whatsapp w2"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
