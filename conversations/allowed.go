package conversations

import (
	"context"
	"slices"
	"time"
)

// allowedActions are what an agent may be offered, with the trigger of each. A
// resend asks for the payment's or the receipt's message, whichever fits.
var allowedActions = []struct {
	Action string
	On     []Trigger
}{
	{"cancel", []Trigger{CancelAsked}},
	{"resend", []Trigger{PaymentAskedAgain, ReceiptAskedAgain}},
	{"extend", []Trigger{ExtendedByAgent}},
	{"capture", []Trigger{CaptureAsked}},
	{"reverse", []Trigger{ReversalAsked}},
	{"refund", []Trigger{RefundAsked}},
}

// Allowed returns the actions that the tables would accept now for a payment
// request: cancel, resend, extend, capture, reverse, refund. It asks edges and guards and changes
// nothing. contact is the one that the request belongs to.
func Allowed(m Merchant, contact *Contact, r *PaymentRequest, now time.Time) []string {
	p := &paymentTx{tx: &tx{State: State{Merchant: m, Contact: contact}, now: now, contact: contact}, r: r, was: r.Lifecycle}
	actions := []string{}
	for _, a := range allowedActions {
		if a.Action == "resend" && contact != nil && contact.mayResend(r) != nil {
			continue
		}
		if slices.ContainsFunc(a.On, func(on Trigger) bool { _, refused := p.edge(on); return refused == nil }) {
			actions = append(actions, a.Action)
		}
	}
	return actions
}

// Allowed returns the actions that would be accepted now for a payment request.
func (s *Store) Allowed(ctx context.Context, r *PaymentRequest) ([]string, error) {
	contact, err := s.Contact(ctx, r.ContactID)
	if CodeOf(err) == CodeNotFound {
		return []string{}, nil // its retention has ended: nothing can be applied any more
	}
	if err != nil {
		return nil, err
	}
	m, _ := s.Merchant(r.MerchantID)
	return Allowed(m, contact, r, s.Now()), nil
}

// ConsentOf returns what the owner of a canonical phone number has agreed to,
// by channel; nothing for a number that nobody has used yet. It claims nothing.
func (s *Store) ConsentOf(ctx context.Context, merchantID, phone string) (map[Channel]Consent, error) {
	id, err := s.claimed(ctx, s.keys.address(merchantID, Address{Kind: AddressPhone, Value: phone}))
	if err != nil || id == "" {
		return nil, err
	}
	contact, err := s.Contact(ctx, id)
	if CodeOf(err) == CodeNotFound {
		return nil, nil // claimed, and not yet made
	}
	if err != nil {
		return nil, err
	}
	return contact.Consent, nil
}
