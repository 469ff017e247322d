package conversations_test

import (
	"testing"
	"time"

	"paythread/conversations"
)

// TestReportsHoldASender: what a status says of the whole sender is kept for
// all processes, and so is what a notice says.
func TestReportsHoldASender(t *testing.T) {
	t.Parallel()
	s := connect(t, nil)
	r := create(t, s, "1", nil)
	sender := testMerchant.Senders[conversations.WhatsApp]
	report := conversations.Inbound{
		Kind: conversations.InboundStatus, SenderID: sender, ProviderID: "wamid.1", At: s.Now(), Correlation: r.ContactID + "." + r.Messages[0],
		Status: conversations.DeliveryFailed, Reason: conversations.FailureRate, ErrorCode: "131048", Lasting: true, HoldFor: time.Hour,
	}
	for range 2 {
		if err := s.Receive(t.Context(), "acme", report); err != nil {
			t.Fatal(err)
		}
	}
	notice := conversations.Notice{Subject: conversations.NoticeTemplate, Name: "payment_request", Language: "en", Standing: conversations.StandingUnusable, Word: "paused", At: s.Now()}
	if err := s.Receive(t.Context(), "acme", conversations.Inbound{Kind: conversations.InboundAccount, SenderID: sender, ProviderID: "n1", At: s.Now(), Notice: &notice}); err != nil {
		t.Fatal(err)
	}
	state, err := s.SenderState(t.Context(), sender)
	if err != nil {
		t.Fatal(err)
	}
	if state.Hold == nil || state.Hold.Code != "131048" || !state.Hold.Fail || state.Hold.Until.Before(s.Now().Add(59*time.Minute)) {
		t.Errorf("the sender is held by %+v", state.Hold)
	}
	if len(state.Notices) != 1 || state.Notices[0].Word != "paused" {
		t.Errorf("notices %+v", state.Notices)
	}
}

// TestSharedNumberGoesToWhoSharesIt: a customer who hid the number tells it;
// another conversation has it already.
func TestSharedNumberGoesToWhoSharesIt(t *testing.T) {
	t.Parallel()
	s := connect(t, nil)
	create(t, s, "1", nil) // of the number's own conversation
	sender := testMerchant.Senders[conversations.WhatsApp]
	user := conversations.Address{Kind: conversations.AddressUser, Value: "ZA.900001"}
	phone := conversations.Address{Kind: conversations.AddressPhone, Value: "+27821234567"}
	for _, in := range []conversations.Inbound{
		{Kind: conversations.InboundText, ProviderID: "in1", Text: "stop", Addresses: []conversations.Address{user}},
		{Kind: conversations.InboundAddress, ProviderID: "in2", Addresses: []conversations.Address{user, phone}},
	} {
		in.SenderID, in.At = sender, s.Now()
		if err := s.Receive(t.Context(), "acme", in); err != nil {
			t.Fatal(err)
		}
	}
	id, err := s.Claim(t.Context(), "acme", []conversations.Address{user})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Contact(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Linked) != 1 || c.Linked[0] != phone || len(c.Addresses) != 1 {
		t.Errorf("addresses %v, linked %v", c.Addresses, c.Linked)
	}
}
