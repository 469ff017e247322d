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
	if state.Hold == nil || state.Hold.Code != "131048" || state.Hold.Fail || state.Hold.Until.Before(s.Now().Add(59*time.Minute)) {
		t.Errorf("the sender is held by %+v", state.Hold)
	}
	if len(state.Notices) != 1 || state.Notices[0].Word != "paused" {
		t.Errorf("notices %+v", state.Notices)
	}
}
