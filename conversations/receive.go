package conversations

import (
	"context"
	"slices"
	"strings"
)

// ErrUnknownSender is returned by Receive for an event of a sender that no
// merchant has. Receiving it again will not help.
var ErrUnknownSender = NotFound("sender")

// Receive takes one report of a provider: a message of a customer, a delivery
// status, a consent, further addresses. It takes effect once, however often it
// is delivered and in whatever order. Errors: CodeUnavailable, after which the
// provider should deliver it again; CodeNotFound or CodeInvalid, where that
// would not help.
func (s *Store) Receive(ctx context.Context, merchantID string, in Inbound) error {
	merchant, ok := s.Merchant(merchantID)
	if !ok {
		return NotFound("merchant")
	}
	switch in.Kind {
	case InboundStatus:
		return s.receiveStatus(ctx, merchant, in)
	case InboundAccount:
		if in.Notice == nil {
			return nil
		}
		return s.NoteSender(ctx, in.SenderID, *in.Notice)
	case InboundAddress:
		return s.receiveAddress(ctx, merchant, in)
	}
	addresses := canonicalAddresses(in.Addresses)
	contactID, err := s.Claim(ctx, merchant.ID, addresses)
	if err != nil {
		return err
	}
	p, ok := partitionOf(contactID, contactPrefix, s.o.Partitions)
	if !ok {
		return NotFound("contact")
	}
	key := string(in.Kind) + "/" + in.SenderID + "/" + in.ProviderID
	a, err := s.Apply(ctx, contactID, MessageReceived{
		MessageID:  derivedID(messagePrefix, p, in.SenderID, in.ProviderID),
		MerchantID: merchant.ID, ContactID: contactID, Inbound: in,
	}, Once{Key: key})
	if err != nil {
		return err
	}
	if a.Contact != nil && len(addresses) > 1 && !knows(a.Contact, addresses) {
		return s.learnAddresses(ctx, a.Contact, addresses, Address{})
	}
	return nil
}

// knows tells whether all addresses are the contact's, or linked to it.
func knows(c *Contact, addresses []Address) bool {
	have := map[Address]bool{}
	for _, a := range c.Addresses {
		have[a] = true
	}
	for _, a := range c.Linked {
		have[a] = true
	}
	for _, a := range addresses {
		if !have[a] {
			return false
		}
	}
	return true
}

// receiveStatus goes to the contact in the correlation value, if it has one,
// else to the owner of its first claimed address.
func (s *Store) receiveStatus(ctx context.Context, merchant Merchant, in Inbound) error {
	contactID, messageID, _ := strings.Cut(in.Correlation, ".")
	_, okContact := partitionOf(contactID, contactPrefix, s.o.Partitions)
	_, okMessage := partitionOf(messageID, messagePrefix, s.o.Partitions)
	if !okContact || !okMessage {
		messageID, contactID = "", ""
		for _, a := range canonicalAddresses(in.Addresses) {
			id, err := s.claimed(ctx, s.keys.address(merchant.ID, a))
			if err != nil {
				return err
			}
			if id != "" {
				contactID = id
				break
			}
		}
		if contactID == "" {
			return NotFound("contact")
		}
	}
	a, err := s.Apply(ctx, contactID, StatusReported{MerchantID: merchant.ID, MessageID: messageID, Inbound: in},
		Once{Key: "status/" + in.SenderID + "/" + in.ProviderID + "/" + string(in.Status)})
	if err != nil || a.Duplicate || in.HoldFor <= 0 {
		return err
	}
	return s.HoldSender(ctx, in.SenderID, Hold{
		Reason: in.Reason, Code: in.ErrorCode, Until: s.Now().Add(in.HoldFor), Fail: in.Lasting,
	})
}

// receiveAddress follows a customer who changed their number or user id.
func (s *Store) receiveAddress(ctx context.Context, merchant Merchant, in Inbound) error {
	known := canonicalAddresses([]Address{in.Previous})
	addresses := canonicalAddresses(in.Addresses)
	// A number that somebody shares may be known as another contact's already:
	// who shares it is told by the other addresses.
	told := slices.Concat(known, addresses)
	if len(addresses) > 1 && addresses[0].Kind == AddressPhone { // canonicalAddresses puts it first
		told = slices.Concat(known, addresses[1:], addresses[:1])
	}
	for _, a := range told {
		id, err := s.claimed(ctx, s.keys.address(merchant.ID, a))
		if err != nil {
			return err
		}
		if id == "" {
			continue
		}
		c, err := s.Contact(ctx, id)
		if err != nil {
			return err
		}
		var replaced Address
		if len(known) > 0 {
			replaced = known[0]
		}
		return s.learnAddresses(ctx, c, addresses, replaced)
	}
	return NotFound("contact")
}
