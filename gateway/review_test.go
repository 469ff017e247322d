package main

import (
	"strings"
	"testing"
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
