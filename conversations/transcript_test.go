package conversations_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"paythread/conversations"
)

// writes lets a customer write to the merchant.
func writes(t *testing.T, s *conversations.Store, phone, id, text string, at time.Time) {
	t.Helper()
	err := s.Receive(t.Context(), "acme", conversations.Inbound{
		Kind: conversations.InboundText, SenderID: testMerchant.Senders[conversations.WhatsApp], ProviderID: id, Text: text, At: at,
		Addresses: []conversations.Address{{Kind: conversations.AddressPhone, Value: phone}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTranscript(t *testing.T) {
	t.Parallel()
	s := connect(t, nil)
	const phone = "+27821234567"
	now := s.Now().Truncate(time.Millisecond).Add(-time.Hour)
	for i := range 25 { // several share a millisecond
		writes(t, s, phone, fmt.Sprint("in", i), fmt.Sprint("text ", i), now.Add(time.Duration(i/4)*time.Second))
	}
	c, err := s.ContactAt(t.Context(), "acme", phone)
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	var newest time.Time
	for cursor, pages := "", 0; ; pages++ {
		messages, next, err := s.Transcript(t.Context(), c.ID, cursor, 7)
		if err != nil || len(messages) > 7 || pages > 20 {
			t.Fatalf("page %d: %d messages, %v", pages, len(messages), err)
		}
		for _, m := range messages {
			if slices.Contains(seen, m.ID) || !newest.IsZero() && m.At.After(newest) {
				t.Errorf("%s of %v comes again, or after %v", m.ID, m.At, newest)
			}
			if newest = m.At; m.Inbound {
				seen = append(seen, m.ID)
			}
		}
		if cursor = next; next == "" {
			break
		}
	}
	if len(seen) != 25 {
		t.Errorf("%d messages of the customer, want 25", len(seen))
	}
	if _, _, err := s.Transcript(t.Context(), c.ID, "nonsense", 7); conversations.CodeOf(err) != conversations.CodeInvalid {
		t.Errorf("a foreign cursor: %v", err)
	}
	if _, err := s.ContactAt(t.Context(), "acme", "+27820000000"); conversations.CodeOf(err) != conversations.CodeNotFound {
		t.Errorf("a number that nobody used: %v", err)
	}
	if _, err := s.ContactAt(t.Context(), "other", phone); conversations.CodeOf(err) != conversations.CodeNotFound {
		t.Errorf("another merchant's customer: %v", err)
	}
}

func TestConversationsByTheirNewestMessage(t *testing.T) {
	t.Parallel()
	s := connect(t, nil)
	now := s.Now().Truncate(time.Millisecond).Add(-time.Hour)
	for i := range 12 {
		writes(t, s, fmt.Sprintf("+2782123%04d", i), fmt.Sprint("in", i), "stop", now.Add(time.Duration(i)*time.Minute))
	}
	writes(t, s, "+27821230003", "again", "stop", now.Add(20*time.Minute))
	writes(t, s, "+27821230007", "late", "stop", now.Add(-20*time.Minute)) // came late, is not news
	var order []string
	for cursor := ""; ; {
		found, next, err := s.Conversations(t.Context(), "acme", cursor, 5)
		if err != nil || len(found) > 5 || len(order) > 20 {
			t.Fatalf("%d conversations, %v", len(found), err)
		}
		for _, c := range found {
			order = append(order, c.Addresses[0].Value[8:])
		}
		if cursor = next; next == "" {
			break
		}
	}
	if len(order) != 12 {
		t.Fatalf("got %v", order)
	}
	for _, digits := range order {
		if n := len(slices.DeleteFunc(slices.Clone(order), func(o string) bool { return o != digits })); n != 1 {
			t.Errorf("%s stands %d times", digits, n)
		}
	}
	if other, _, err := s.Conversations(t.Context(), "other", "", 5); err != nil || len(other) != 0 {
		t.Errorf("another merchant sees %d conversations, %v", len(other), err)
	}
}
