package conversations_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"paythread/conversations"
)

func TestParsePhoneTakesOnlyNumbersThatGetMessages(t *testing.T) {
	t.Parallel()
	for number, want := range map[string]string{
		"082 123 4567":       "+27821234567",
		"+27 (0)82 123-4567": "+27821234567",
		"0027 82 123 4567":   "+27821234567",
		"011 883 0000":       "+27118830000", // a fixed line: WhatsApp accounts are registered on them
		"+44 7624 123456":    "+447624123456",
		"+55 11 8765-4321":   "+5511987654321",
		"+52 1 55 1234 5678": "+525512345678",
		"082 123":            "", // a network's own short number, "valid" by the plan
		"+2782123456":        "", // a digit short of a subscriber's
		"112":                "",
		"31345":              "",
		"082 123 4567 ext 5": "",
		"0821234567;ext=3":   "",
		"082 123 456O":       "", // a letter O
		"082 CALL NOW":       "",
		"0800 123 456":       "", // toll-free
		"0860 123 456":       "", // shared cost
		"+1 800 555 1234":    "",
		"+979 1 2345 6789":   "", // premium rate
		"+800 1234 5678":     "",
	} {
		got, _, err := conversations.ParsePhone(number, "ZA")
		var refused *conversations.Error
		switch {
		case want != "" && (got != want || err != nil):
			t.Errorf("%q is %q, %v; want %q", number, got, err, want)
		case want == "" && (!errors.As(err, &refused) || refused.Field != "phone" || got != ""):
			t.Errorf("%q is %q, %v; want a refusal that names the phone", number, got, err)
		}
	}
}

// A cursor of a feed that was never used has no time of its own: nothing is
// lost after it as long as nothing was trimmed.
func TestFeedFromBeforeItsFirstEvent(t *testing.T) {
	t.Parallel()
	s := connect(t, nil)
	none, err := s.FeedEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	from, err := s.ParseCursor(none.String())
	if err != nil {
		t.Fatal(err)
	}
	made := create(t, s, "1042", nil)
	events, to, reset, err := s.ReplayFeed(t.Context(), "acme", from)
	if err != nil || reset || len(events) != 1 || events[0].Event.RequestID != made.ID {
		t.Fatalf("%d events, reset %v, %v", len(events), reset, err)
	}
	if again, _, reset, err := s.ReplayFeed(t.Context(), "acme", to); err != nil || reset || len(again) != 0 {
		t.Errorf("after them %d events, reset %v, %v", len(again), reset, err)
	}
}

// A provider that refuses a message because the customer has opted out there
// is believed, whether it says so at once or in a status.
func TestProvidersOptOutIsHeeded(t *testing.T) {
	t.Parallel()
	s := connect(t, nil)
	made := create(t, s, "1042", func(c *conversations.CreateRequest) { c.Channel = conversations.SMS })
	id := made.Messages[0]
	if a := apply(t, s, made.ContactID, conversations.SendingStarted{MessageID: id, EntryID: "1-1"}); a.Outbound == nil {
		t.Fatalf("not sent: %+v", a)
	}
	apply(t, s, made.ContactID, conversations.MessageAnswered{MessageID: id, EntryID: "1-1", Failed: true, Reason: conversations.FailureOptedOut, ErrorCode: "21610"})
	_, err := s.Create(t.Context(), conversations.CreateRequest{MerchantID: "acme", Order: testOrder("1043"), Phone: "082 123 4567", Channel: conversations.SMS})
	var refused *conversations.Error
	if !errors.As(err, &refused) || refused.Reason != "opted_out" {
		t.Errorf("the next one is answered %v, want opted_out", err)
	}
	create(t, s, "1044", nil) // the other channel is still allowed
}

func TestLocaleIsALanguageTag(t *testing.T) {
	t.Parallel()
	s := connect(t, nil)
	for i, locale := range []string{"", "en", "en-ZA", "pt_BR", "zh-Hant-TW"} {
		create(t, s, fmt.Sprint("ok", i), func(c *conversations.CreateRequest) { c.Locale = locale })
	}
	for _, locale := range []string{"e", "en-", "../../en", "en ZA", "<b>", "-en"} {
		_, err := s.Create(t.Context(), conversations.CreateRequest{
			MerchantID: "acme", Order: testOrder("no"), Phone: "082 123 4567", Channel: conversations.WhatsApp, Locale: locale,
		})
		var refused *conversations.Error
		if !errors.As(err, &refused) || refused.Field != "locale" {
			t.Errorf("%q is answered %v, want a refusal that names the locale", locale, err)
		}
	}
}

// Pressing resend while nothing goes out must not pile up copies that all
// reach the customer once the provider is back.
func TestResendsDoNotPileUp(t *testing.T) {
	t.Parallel()
	s := connect(t, nil)
	made := create(t, s, "1042", nil)
	taken := 0
	for range 40 {
		a := apply(t, s, made.ContactID, conversations.Resent{RequestID: made.ID})
		allowed, err := s.Allowed(t.Context(), made)
		if err != nil {
			t.Fatal(err)
		}
		if a.Refused == nil {
			taken++
			continue
		}
		if a.Refused.Reason != "messages_waiting" || slices.Contains(allowed, "resend") {
			t.Fatalf("refused as %q, and %v are offered", a.Refused.Reason, allowed)
		}
	}
	if taken < 10 || taken > 25 {
		t.Errorf("%d of 40 resends were taken", taken)
	}
}
