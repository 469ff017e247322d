package conversations

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// tellOfRefund sends the message about an amount that went back, as the effect
// of an operation does.
func (s *story) tellOfRefund(minor int64) *Message {
	s.t.Helper()
	t := &tx{
		State: s.state, now: s.now, contact: s.state.Contact.clone(),
		requests: map[string]*PaymentRequest{}, messages: map[string]*Message{},
	}
	before := len(s.request().Messages)
	t.sendRefund(t.request(theRequest), rand149(minor))
	s.commit(State{Contact: t.contact, Requests: t.requests, Messages: t.messages}, t.effects)
	if len(s.request().Messages) == before {
		return nil
	}
	return s.newest()
}

// settled is a story whose request stands where money came, with its messages
// so far delivered.
func settled(t testing.TB, l Lifecycle, captured, refunded int64) *story {
	s := fallingBack(t, 0)
	s.taken(s.request().Messages[0])
	s.report(s.request().Messages[0], DeliveryDelivered, "")
	r := s.request()
	r.Lifecycle, r.AuthorizedMinor, r.CapturedMinor, r.RefundedMinor = l, 14900, captured, refunded
	return s
}

func TestRefundMessage(t *testing.T) {
	t.Parallel()
	for _, l := range []Lifecycle{PartiallyRefunded, Refunded, Reversed, Authorized, Paid} {
		s := settled(t, l, 14900, 4957)
		m := s.tellOfRefund(4957)
		if m == nil || m.Purpose != PurposeRefund || m.Channel != WhatsApp || m.Status != DeliveryQueued {
			t.Fatalf("%s: the message is %+v", l, m)
		}
		p := m.Parameters
		if p.Amount != "ZAR 49.57" || p.Order != "1042" || p.LinkCode != "0receipt" || p.Link != "https://pay.acme.example/r/0receipt" {
			t.Errorf("%s: it shows %+v", l, p)
		}
		if !strings.Contains(m.Text, "ZAR 49.57") || !strings.Contains(m.Text, "1042") {
			t.Errorf("%s: it says %q", l, m.Text)
		}
		// Outside the window it goes as a template, and the agent sees what became of it.
		s.taken(m.ID)
		if o := s.out[len(s.out)-1]; !o.Template || o.Purpose != PurposeRefund {
			t.Errorf("%s: it goes as %+v", l, o)
		}
		s.report(m.ID, DeliveryDelivered, "")
		i := slices.IndexFunc(s.events, func(e LoggedEvent) bool {
			return e.Type == "message_updated" && e.Message.Purpose == PurposeRefund && e.Message.Status == DeliveryDelivered
		})
		if i < 0 {
			t.Errorf("%s: its delivery is not in the log", l)
		}
	}
}

// TestEachRefundIsFollowed: two messages tell of two sums, so each that fails
// goes by SMS, and only once.
func TestEachRefundIsFollowed(t *testing.T) {
	t.Parallel()
	s := settled(t, PartiallyRefunded, 14900, 3000)
	first := s.tellOfRefund(1000)
	s.taken(first.ID)
	second := s.tellOfRefund(2000)
	s.taken(second.ID)
	s.report(first.ID, DeliveryFailed, FailureTemplate)
	s.report(second.ID, DeliveryFailed, FailureNotOnChannel)
	s.report(first.ID, DeliveryFailed, FailureTemplate)
	var sent []string
	for _, id := range s.request().Messages {
		if m := s.state.Messages[id]; m.Channel == SMS {
			sent = append(sent, m.Parameters.Amount)
			if !strings.Contains(m.Text, m.Parameters.Amount) || !strings.Contains(m.Text, "/r/0receipt") {
				t.Errorf("the SMS says %q", m.Text)
			}
		}
	}
	if !slices.Equal(sent, []string{"ZAR 10.00", "ZAR 20.00"}) {
		t.Errorf("by SMS went %v, want each amount once", sent)
	}
}

func TestRefundMessageKeepsToConsent(t *testing.T) {
	t.Parallel()
	s := settled(t, Refunded, 14900, 14900)
	s.says(WhatsApp, "STOP")
	s.taken(s.replies()[0].ID)
	id := s.tellOfRefund(14900).ID
	s.send()
	if m := s.state.Messages[id]; m.Status != DeliveryFailed || m.Reason != FailureOptedOut || m.FollowedBy != "" {
		t.Errorf("of an opted-out customer the message is %s (%s), followed by %q", m.Status, m.Reason, m.FollowedBy)
	}
}

// TestRefundsDoNotFlood: however many parts a refund is made in, the customer
// is not written to without end, and the receipt can still be sent again.
func TestRefundsDoNotFlood(t *testing.T) {
	t.Parallel()
	waiting := settled(t, PartiallyRefunded, 14900, 1000)
	gone := settled(t, PartiallyRefunded, 14900, 1000)
	for range 1000 {
		waiting.tellOfRefund(1)
		if m := gone.tellOfRefund(1); m != nil {
			gone.taken(m.ID)
			gone.report(m.ID, DeliveryDelivered, "")
		}
	}
	if n := len(waiting.request().Messages); n > maxWaiting+2 {
		t.Errorf("%d messages while none gets out", n)
	}
	if n := len(gone.request().Messages); n > maxRequestMessages/2 {
		t.Errorf("%d messages", n)
	}
	gone.do(Resent{RequestID: theRequest})
	gone.wantAllowed()
}

// TestTheBotAfterMoneyWentBack: what it says of a payment fits what is left of
// it.
func TestTheBotAfterMoneyWentBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lifecycle          Lifecycle
		captured, refunded int64
		says               string
		want, not          []string
	}{
		{Paid, 14900, 0, "status", []string{"ZAR 149.00 is paid", "/r/0receipt"}, nil},
		{Paid, 10000, 0, "status", []string{"ZAR 100.00 is paid", "/r/0receipt"}, []string{"149.00"}},
		{Authorized, 0, 0, "how much", []string{"ZAR 149.00", "/r/0receipt"}, nil},
		{PartiallyRefunded, 14900, 4957, "status", []string{"part of your payment was refunded", "ZAR 99.43", "/r/0receipt"}, []string{"149.00"}},
		{PartiallyRefunded, 14900, 4957, "receipt", []string{"Part of your payment", "/r/0receipt"}, []string{"no receipt"}},
		{PartiallyRefunded, 14900, 4957, "how much", []string{"nothing for you to pay"}, []string{"149.00"}},
		{Refunded, 10000, 10000, "status", []string{"payment of ZAR 100.00 was refunded"}, []string{"149.00", "paid"}},
		{Refunded, 14900, 14900, "receipt", []string{"was refunded", "/r/0receipt"}, nil},
		{Reversed, 0, 0, "status", []string{"payment of ZAR 149.00 was refunded"}, []string{"is paid"}},
		{Reversed, 0, 0, "send me the link", []string{"nothing for you to pay"}, []string{"already paid", "/p/"}},
	} {
		t.Run(fmt.Sprintf("%s_%s", tt.lifecycle, strings.ReplaceAll(tt.says, " ", "_")), func(t *testing.T) {
			t.Parallel()
			s := settled(t, tt.lifecycle, tt.captured, tt.refunded)
			s.now = s.now.Add(time.Second)
			s.says(WhatsApp, tt.says)
			replies := s.replies()
			if len(replies) != 1 {
				t.Fatalf("%d answers", len(replies))
			}
			for _, want := range tt.want {
				if !strings.Contains(replies[0].Text, want) {
					t.Errorf("it says %q, want %q in it", replies[0].Text, want)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(replies[0].Text, not) {
					t.Errorf("it says %q, with %q in it", replies[0].Text, not)
				}
			}
		})
	}
}
