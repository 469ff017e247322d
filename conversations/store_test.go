package conversations_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/conversations/redistest"
)

var testMerchant = conversations.Merchant{
	ID: "acme", Name: "Acme Energy", PublicURL: "https://pay.acme.example", Country: "ZA", Locale: "en", Sandbox: true,
	Senders:    map[conversations.Channel]string{conversations.WhatsApp: "acme-wa", conversations.SMS: "acme-sms"},
	TimeToOpen: time.Hour, TimeToPay: 15 * time.Minute, MaxAttempts: 3, Capture: true,
	LatePayment: conversations.LatePayment{ReverseAfterCancellation: true},
}

func zar(minor int64) conversations.Money { return conversations.Money{Minor: minor, Currency: "ZAR"} }

func testOrder(ref string) conversations.Order {
	return conversations.Order{
		Reference: ref, Subtotal: zar(12957), Tax: zar(1943), Shipping: zar(0), Discount: zar(0), Total: zar(14900),
		LineItems: []conversations.LineItem{{Name: "Service", Quantity: 1, UnitPrice: zar(12957), Total: zar(12957)}},
	}
}

func connect(t *testing.T, change func(*conversations.Options)) *conversations.Store {
	t.Helper()
	o := conversations.Options{
		Addresses: []string{redistest.Shared(t).Addr}, Prefix: "t:" + t.Name() + fmt.Sprint(time.Now().UnixNano()), Partitions: 4,
		Merchants: []conversations.Merchant{testMerchant},
	}
	if change != nil {
		change(&o)
	}
	s, err := conversations.Connect(t.Context(), o)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func create(t *testing.T, s *conversations.Store, order string, change func(*conversations.CreateRequest)) *conversations.PaymentRequest {
	t.Helper()
	c := conversations.CreateRequest{MerchantID: "acme", Order: testOrder(order), Phone: "082 123 4567", Channel: conversations.WhatsApp}
	if change != nil {
		change(&c)
	}
	r, err := s.Create(t.Context(), c)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return r
}

func apply(t *testing.T, s *conversations.Store, contactID string, e conversations.Event) conversations.Applied {
	t.Helper()
	a, err := s.Apply(t.Context(), contactID, e, conversations.Once{})
	if err != nil {
		t.Fatalf("apply %s: %v", e.Kind(), err)
	}
	return a
}

func types(t *testing.T, s *conversations.Store, id string) []string {
	t.Helper()
	events, err := s.Events(context.Background(), id, 0, 100)
	if err != nil {
		t.Fatalf("events: %v", err)
	}
	var out []string
	for i, e := range events {
		if e.Seq != int64(i+1) {
			t.Errorf("event %d has number %d", i+1, e.Seq)
		}
		out = append(out, e.Type)
	}
	return out
}

func TestAPaymentFromCreateToReceipt(t *testing.T) {
	t.Parallel()
	s := connect(t, nil)
	r := create(t, s, "1042", nil)
	a := apply(t, s, r.ContactID, conversations.SendingStarted{MessageID: r.Messages[0], EntryID: "1-1"})
	if a.Outbound == nil || !a.Outbound.Template || a.Outbound.To.Value != "+27821234567" {
		t.Fatalf("sending allowed %+v, want a template to the phone", a.Outbound)
	}
	apply(t, s, r.ContactID, conversations.MessageAnswered{MessageID: r.Messages[0], EntryID: "1-1", Sent: conversations.Sent{ProviderID: "wamid.1"}})
	for _, status := range []conversations.DeliveryStatus{conversations.DeliveryDelivered, conversations.DeliverySent, conversations.DeliveryDelivered, conversations.DeliveryRead} {
		err := s.Receive(t.Context(), "acme", conversations.Inbound{
			Kind: conversations.InboundStatus, SenderID: "acme-wa", ProviderID: "wamid.1", Correlation: a.Outbound.Correlation, Status: status, At: s.Now(),
		})
		if err != nil {
			t.Fatalf("receive %s: %v", status, err)
		}
	}
	apply(t, s, r.ContactID, conversations.LinkOpened{RequestID: r.ID})
	apply(t, s, r.ContactID, conversations.LinkOpened{RequestID: r.ID})
	apply(t, s, r.ContactID, conversations.ContextIssued{RequestID: r.ID, Context: conversations.CaptureContext{KeyID: "k", ExpiresAt: s.Now().Add(time.Minute)}})
	a = apply(t, s, r.ContactID, conversations.AttemptStarted{RequestID: r.ID, Platform: "unified_checkout", TokenExpiresAt: s.Now().Add(time.Minute)})
	if a.Refused != nil || a.Request.Lifecycle != conversations.Processing {
		t.Fatalf("attempt: refused %v, lifecycle %s", a.Refused, a.Request.Lifecycle)
	}
	if again := apply(t, s, r.ContactID, conversations.AttemptStarted{RequestID: r.ID}); again.Refused == nil || again.Refused.Reason != "processing" {
		t.Fatalf("a second attempt in flight: refused %v, want reason processing", again.Refused)
	}
	a = apply(t, s, r.ContactID, conversations.AttemptAnswered{RequestID: r.ID, Attempt: 1, Result: conversations.Result{Outcome: conversations.OutcomeCaptured, PaymentID: "76", Amount: zar(14900)}})
	if a.Request.Lifecycle != conversations.Paid || a.Request.Receipt == nil || len(a.Request.Messages) != 2 {
		t.Fatalf("after the money: %s, receipt %v, messages %v", a.Request.Lifecycle, a.Request.Receipt, a.Request.Messages)
	}
	got := fmt.Sprint(types(t, s, r.ID))
	if want := "[created delivered read opened checkout_started attempt_started paid]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
}
