package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"paythread/conversations"
)

// loggedTypes reads from the domain's source every type of event that it logs.
func loggedTypes(t *testing.T) []string {
	t.Helper()
	var types []string
	for file, pattern := range map[string]string{
		"states.go":         `Log: "(\w+)"|backToOpen\(\w+, "(\w+)"`,
		"apply_message.go":  `kind :?= "(\w+)"`,
		"apply_followup.go": `kind :?= "(\w+)"`,
	} {
		source, err := os.ReadFile("../conversations/" + file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(string(source), -1)
		if len(found) < 2 {
			t.Fatalf("%s: %d types found; look at the pattern", file, len(found))
		}
		for _, m := range found {
			types = append(types, m[1]+strings.Join(m[2:], ""))
		}
	}
	source, err := os.ReadFile("../conversations/payment.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Milestone\w+ +Milestone = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		types = append(types, m[1]) // a message's status is logged as its milestone
	}
	return types
}

func TestEveryEventHasASentence(t *testing.T) {
	t.Parallel()
	types := loggedTypes(t)
	if len(types) < 40 {
		t.Fatalf("only %d types: %v", len(types), types)
	}
	known := map[string]bool{}
	for _, kind := range types {
		known[kind] = true
		if text := eventText(conversations.LoggedEvent{Type: kind}); !isSentence(text) {
			t.Errorf("%s says %q", kind, text)
		}
	}
	for key := range eventTexts {
		if kind, _, _ := strings.Cut(key, "."); !known[kind] {
			t.Errorf("there is a sentence for %q, which is never logged", key)
		}
	}
}

func isSentence(text string) bool {
	return len(text) > 10 && strings.HasSuffix(text, ".") && !strings.Contains(text, "%!") && !strings.Contains(text, "  ")
}

func TestEventTextFollowsTheReason(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		event conversations.LoggedEvent
		want  string
	}{
		{conversations.LoggedEvent{Type: "expired", Reason: conversations.ReasonNotOpened}, "The link was not opened in time."},
		{conversations.LoggedEvent{Type: "expired", Reason: "another"}, "The time for this payment request has run out."},
		{conversations.LoggedEvent{Type: "cancelled", Reason: conversations.ReasonAlreadyPaid}, eventTexts["cancelled.already_paid"]},
		{
			conversations.LoggedEvent{Type: "message_failed", Message: &conversations.LoggedMessage{Purpose: conversations.PurposeReceipt, Status: conversations.DeliveryFailed, Reason: conversations.FailureNotOnChannel}},
			"The receipt message could not be delivered. This number cannot be reached on WhatsApp; SMS may work.",
		},
		{
			conversations.LoggedEvent{Type: "message_updated", Message: &conversations.LoggedMessage{Purpose: conversations.PurposeCancelled, Status: conversations.DeliveryRead}},
			"The message about the cancellation is now read.",
		},
		{
			conversations.LoggedEvent{Type: "delivered", Message: &conversations.LoggedMessage{Purpose: conversations.PurposePayment, Status: conversations.DeliveryDelivered}},
			"The message is on the customer's phone.",
		},
	} {
		if got := eventText(c.event); got != c.want {
			t.Errorf("%s %s says %q, want %q", c.event.Type, c.event.Reason, got, c.want)
		}
	}
}

func TestEveryAttemptHasASentence(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../conversations/payment.go")
	if err != nil {
		t.Fatal(err)
	}
	states := regexp.MustCompile(`Attempt\w+ +AttemptState = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(states) != len(attemptTexts) {
		t.Errorf("%d states, %d sentences", len(states), len(attemptTexts))
	}
	for _, m := range states {
		if text := attemptText(conversations.Attempt{State: conversations.AttemptState(m[1])}); !isSentence(text) {
			t.Errorf("%s says %q", m[1], text)
		}
	}
	for reason, text := range declineTexts {
		declined := conversations.Attempt{State: conversations.AttemptDeclined, Result: conversations.Result{Reason: reason}}
		if attemptText(declined) != text || !isSentence(text) {
			t.Errorf("%s says %q", reason, attemptText(declined))
		}
		declined.State = conversations.AttemptCaptured
		if attemptText(declined) == text {
			t.Errorf("%s is said of an attempt that was captured", reason)
		}
	}
}

func TestEveryPurposeHasAName(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../conversations/message.go")
	if err != nil {
		t.Fatal(err)
	}
	purposes := regexp.MustCompile(`Purpose\w+ +Purpose = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(purposes) != len(messageNames) {
		t.Errorf("%d purposes, %d names", len(purposes), len(messageNames))
	}
}
