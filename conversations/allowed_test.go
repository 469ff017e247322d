package conversations_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"paythread/conversations"
)

// TestAllowedIsWhatApplyAccepts walks every lifecycle, opened or not, in its
// window or past it, superseded or not, opted out or not: an action is offered
// exactly where Apply takes its event. Asking changes nothing.
func TestAllowedIsWhatApplyAccepts(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	offered := map[string]int{}
	for _, lifecycle := range conversations.Lifecycles {
		for mask := range 16 {
			opened, over, superseded, out := mask&1 != 0, mask&2 != 0, mask&4 != 0, mask&8 != 0
			end := now.Add(time.Minute)
			if over {
				end = now.Add(-time.Minute)
			}
			r := &conversations.PaymentRequest{
				ID: "pr_0a", MerchantID: "acme", ContactID: "c_0a", Order: testOrder("1042"), Phone: "+27821234567", Channel: conversations.SMS,
				Lifecycle: lifecycle, Superseded: superseded, OpenBy: end, TimeToOpen: time.Hour, TimeToPay: time.Hour,
			}
			if opened {
				r.PayBy = &end
				paid(r, !over)
			}
			contact := &conversations.Contact{ID: "c_0a", MerchantID: "acme", Mode: conversations.ModeBot}
			if out {
				contact.Consent = map[conversations.Channel]conversations.Consent{conversations.SMS: conversations.ConsentOptedOut}
			}
			before := fmt.Sprintf("%+v %+v", *r, *contact)
			allowed := conversations.Allowed(testMerchant, contact, r, now)
			if after := fmt.Sprintf("%+v %+v", *r, *contact); after != before {
				t.Fatalf("asking changed %s to %s", before, after)
			}
			for action, event := range map[string]conversations.Event{
				"cancel": conversations.CancelRequested{RequestID: r.ID}, "resend": conversations.Resent{RequestID: r.ID}, "extend": conversations.Extended{RequestID: r.ID},
				"capture": conversations.OperationRequested{RequestID: r.ID, Operation: conversations.OperationCapture},
				"reverse": conversations.OperationRequested{RequestID: r.ID, Operation: conversations.OperationReversal},
				"refund":  conversations.OperationRequested{RequestID: r.ID, Operation: conversations.OperationRefund},
			} {
				_, effects, err := conversations.Apply(conversations.State{
					Merchant: testMerchant, Timings: conversations.DefaultTimings(), Contact: contact,
					Requests: map[string]*conversations.PaymentRequest{r.ID: r}, Messages: map[string]*conversations.Message{},
				}, event, now)
				if err != nil {
					t.Fatal(err)
				}
				if accepted := effects.Refused == nil; accepted != slices.Contains(allowed, action) {
					t.Errorf("%s, opened %v, over %v, superseded %v, opted out %v: %s is accepted %v, offered %v", lifecycle, opened, over, superseded, out, action, accepted, allowed)
				}
			}
			for _, action := range allowed {
				offered[action]++
			}
		}
	}
	for _, action := range []string{"cancel", "resend", "extend", "capture", "reverse", "refund"} {
		if offered[action] == 0 {
			t.Errorf("offered %v, want %s somewhere", offered, action)
		}
	}
}

// paid gives a payment request the money that fits its lifecycle: of a sale, or
// held first.
func paid(r *conversations.PaymentRequest, sale bool) {
	total := r.Order.Total
	attempt := conversations.Attempt{N: 1, State: conversations.AttemptAuthorized, Amount: total, Capture: sale, Result: conversations.Result{PaymentID: "1"}}
	done := func(kind conversations.OperationKind, minor int64) {
		r.Operations = append(r.Operations, conversations.Operation{
			ID: string(kind), Kind: kind, Attempt: 1, PaymentID: "1", ResultID: "1", State: conversations.OperationSucceeded,
			Amount: conversations.Money{Minor: minor, Currency: total.Currency},
		})
	}
	switch r.Lifecycle {
	case conversations.InReview:
		attempt.State = conversations.AttemptInReview
	case conversations.Paid, conversations.Authorized, conversations.PartiallyRefunded:
		r.PaidBy, r.AuthorizedMinor = 1, total.Minor
		r.Receipt = &conversations.Receipt{Captured: sale && r.Lifecycle != conversations.Authorized}
		if r.Receipt.Captured {
			attempt.State, r.CapturedMinor = conversations.AttemptCaptured, total.Minor
		} else if r.Lifecycle != conversations.Authorized {
			r.CapturedMinor = total.Minor - 100
			done(conversations.OperationCapture, r.CapturedMinor)
		}
		if r.Lifecycle == conversations.PartiallyRefunded {
			r.RefundedMinor = 100
			done(conversations.OperationRefund, 100)
		}
	default:
		return
	}
	r.Attempts = append(r.Attempts, attempt)
}

func TestConsentOf(t *testing.T) {
	t.Parallel()
	s := connect(t, nil)
	of := func(merchant, phone string) map[conversations.Channel]conversations.Consent {
		t.Helper()
		c, err := s.ConsentOf(t.Context(), merchant, phone)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := of("acme", "+27821234567"); len(c) != 0 {
		t.Errorf("nobody has used this number, it has %v", c)
	}
	create(t, s, "1", nil)
	err := s.Receive(t.Context(), "acme", conversations.Inbound{
		Kind: conversations.InboundText, SenderID: "acme-sms", ProviderID: "in-1", Text: "STOP", At: s.Now(),
		Addresses: []conversations.Address{{Kind: conversations.AddressPhone, Value: "+27821234567"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c := of("acme", "+27821234567"); len(c) != 1 {
		t.Errorf("after STOP: %v", c)
	}
	if c := of("other", "+27821234567"); len(c) != 0 {
		t.Errorf("another merchant's customer: %v", c)
	}
	if c := of("acme", "+27821234568"); len(c) != 0 {
		t.Errorf("another number: %v", c)
	}
}
