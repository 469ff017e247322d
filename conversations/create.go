package conversations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// CreateRequest is what Store.Create needs to make a payment request.
type CreateRequest struct {
	MerchantID   string
	Order        Order
	Phone        string // in national or international form
	Country      string // ISO 3166 alpha-2 of a national form; empty: the merchant's
	Channel      Channel
	Locale       string // empty: the merchant's
	Note         string
	CustomerName string
	TimeToOpen   time.Duration // zero: the merchant's
	TimeToPay    time.Duration
	Capture      *bool // nil: the merchant's
	Agent        string
	Once         Once // the caller's Idempotency-Key and the hash of its body
}

// plan is what was chosen for a create before anything was made, so that a
// retry runs the same steps with the same ids.
type plan struct {
	Hash        string `json:"hash"`
	ContactID   string `json:"contact"`
	RequestID   string `json:"request"`
	LinkCode    string `json:"link"`
	ReceiptCode string `json:"receipt"`
}

// Create makes a payment request and queues its first message. With Once, a
// repeat answers with the request that the first call made. Errors:
// CodeInvalid naming the field; CodeConflict with reason opted_out, or
// order_held when another request of the order still runs or is paid.
func (s *Store) Create(ctx context.Context, c CreateRequest) (*PaymentRequest, error) {
	r, merchant, err := s.drafted(c)
	if err != nil {
		return nil, err
	}
	contactID, err := s.Claim(ctx, merchant.ID, []Address{{Kind: AddressPhone, Value: r.Phone}})
	if err != nil {
		return nil, err
	}
	if err := s.mayWrite(ctx, contactID, r.Channel); err != nil {
		return nil, err
	}
	chosen, err := s.plan(ctx, merchant.ID, contactID, c.Once)
	if err != nil {
		return nil, err
	}
	r.ContactID, r.ID, r.LinkCode, r.ReceiptCode = chosen.ContactID, chosen.RequestID, chosen.LinkCode, chosen.ReceiptCode
	if made, err := s.Request(ctx, r.ID); err == nil {
		return made, nil
	} else if CodeOf(err) != CodeNotFound {
		return nil, err
	}
	if err := s.holdOrder(ctx, merchant.ID, r.Order.Reference, r.ID); err != nil {
		return nil, err
	}
	a, err := s.apply(ctx, r.ContactID, Created{Request: *r, Agent: c.Agent}, Once{}, writes{
		fresh: r.ID, links: map[string]string{r.LinkCode: r.ID, r.ReceiptCode: r.ID},
	})
	var exists *errExists
	if errors.As(err, &exists) {
		if exists.document == tombstone {
			return nil, orderHeld("another payment request took this order meanwhile")
		}
		return s.Request(ctx, r.ID) // a slower call of the same key made it
	}
	if err != nil {
		return nil, err
	}
	return a.Request, nil
}

func orderHeld(message string) *Error { return Refused("order_held", "%s", message) }

// drafted checks the input and fills what it leaves open.
func (s *Store) drafted(c CreateRequest) (*PaymentRequest, Merchant, error) {
	m, ok := s.Merchant(c.MerchantID)
	if !ok {
		return nil, m, NotFound("merchant")
	}
	if err := CheckOrder(c.Order, m); err != nil {
		return nil, m, err
	}
	if _, err := ParseChannel(string(c.Channel)); err != nil {
		return nil, m, err
	}
	if m.Senders[c.Channel] == "" {
		return nil, m, Invalid("channel", "there is no sender for %s; use another channel", c.Channel)
	}
	country := c.Country
	if country == "" {
		country = m.Country
	}
	phone, _, err := ParsePhone(c.Phone, country)
	if err != nil {
		return nil, m, err
	}
	for _, t := range []struct{ field, text string }{{"note", c.Note}, {"customer_name", c.CustomerName}, {"locale", c.Locale}} {
		if err := checkText(t.field, t.text, 500); err != nil {
			return nil, m, err
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"time_to_open_seconds", c.TimeToOpen}, {"time_to_pay_seconds", c.TimeToPay}} {
		if d.value < 0 || d.value > 31*24*time.Hour {
			return nil, m, Invalid(d.field, "use 1 second to 31 days")
		}
	}
	r := &PaymentRequest{
		MerchantID: m.ID, Order: c.Order, Phone: phone, Channel: c.Channel, Locale: c.Locale, Note: c.Note,
		Sandbox: m.Sandbox, Capture: m.Capture, TimeToOpen: c.TimeToOpen, TimeToPay: c.TimeToPay,
	}
	if r.Locale == "" {
		r.Locale = m.Locale
	}
	if c.Capture != nil {
		r.Capture = *c.Capture
	}
	if r.TimeToOpen == 0 {
		r.TimeToOpen = m.TimeToOpen
	}
	if r.TimeToPay == 0 {
		r.TimeToPay = m.TimeToPay
	}
	return r, m, nil
}

// mayWrite refuses a channel that the contact has opted out of.
func (s *Store) mayWrite(ctx context.Context, contactID string, channel Channel) error {
	c, err := s.Contact(ctx, contactID)
	if CodeOf(err) == CodeNotFound {
		return nil // not yet there
	}
	if err != nil {
		return err
	}
	if c.Consent[channel] == ConsentOptedOut {
		return optedOut(c, channel)
	}
	return nil
}

// plan chooses the ids of a create, or returns those that the first call with
// the same key chose.
func (s *Store) plan(ctx context.Context, merchantID, contactID string, once Once) (plan, error) {
	p, _ := partitionOf(contactID, contactPrefix, s.o.Partitions)
	chosen := plan{
		Hash: once.Hash, ContactID: contactID, RequestID: randomID(requestPrefix, p),
		LinkCode: newLinkCode(p), ReceiptCode: newLinkCode(p),
	}
	if once.Key == "" {
		return chosen, nil
	}
	b, err := json.Marshal(chosen)
	if err != nil {
		return plan{}, fmt.Errorf("conversations: writing an idempotency key: %w", err)
	}
	key := s.keys.idempotency(merchantID, once.Key)
	// SET NX GET would do it in one command, but only since Redis 7.
	if ok, err := s.rdb.SetNX(ctx, key, b, s.o.Retention.Idempotency).Result(); err != nil {
		return plan{}, Unavailable(fmt.Errorf("write an idempotency key: %w", err))
	} else if ok {
		return chosen, nil
	}
	text, err := s.rdb.Get(ctx, key).Result()
	if err != nil {
		return plan{}, Unavailable(fmt.Errorf("read an idempotency key: %w", err))
	}
	if err := json.Unmarshal([]byte(text), &chosen); err != nil {
		return plan{}, fmt.Errorf("conversations: reading an idempotency key: %w", err)
	}
	if chosen.Hash != once.Hash {
		return plan{}, mismatch()
	}
	return chosen, nil
}

// holdOrder makes a request the holder of an order, taking it over from one
// that has ended.
func (s *Store) holdOrder(ctx context.Context, merchantID, order, requestID string) error {
	key := s.keys.order(merchantID, order)
	for {
		holder, err := s.rdb.Get(ctx, key).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return Unavailable(fmt.Errorf("read the holder of an order: %w", err))
		}
		if holder == requestID {
			return nil
		}
		if holder != "" {
			if err := s.supersede(ctx, holder, requestID); err != nil {
				return err
			}
		}
		moved, err := moveScript.Run(ctx, s.rdb, []string{key}, holder, requestID, ms(s.o.Retention.Money)).Int()
		if err != nil {
			return Unavailable(fmt.Errorf("move the holder of an order: %w", err))
		}
		if moved == 1 {
			return nil
		}
	}
}

// supersede marks the holder of an order before another request takes it. A
// holder that was never made is tombstoned first, so that its slow creator
// finds it taken.
func (s *Store) supersede(ctx context.Context, holder, by string) error {
	p, ok := partitionOf(holder, requestPrefix, s.o.Partitions)
	if !ok {
		return nil // not one of ours: nothing to mark
	}
	if _, err := s.rdb.SetNX(ctx, s.keys.request(p, holder), tombstone, s.o.Retention.Idempotency).Result(); err != nil {
		return Unavailable(fmt.Errorf("mark the holder of an order: %w", err))
	}
	r, err := s.Request(ctx, holder)
	if CodeOf(err) == CodeNotFound {
		return nil // a tombstone
	}
	if err != nil {
		return err
	}
	if r.Superseded {
		return nil
	}
	a, err := s.Apply(ctx, r.ContactID, SupersededBy{RequestID: holder, By: by}, Once{})
	if err != nil {
		return err
	}
	if a.Refused != nil {
		e := orderHeld("another payment request of this order is " + string(a.Request.Lifecycle))
		e.Field = "order"
		return e
	}
	return nil
}

// Holder returns the id of the payment request that holds an order, or "".
func (s *Store) Holder(ctx context.Context, merchantID, order string) (string, error) {
	id, err := s.rdb.Get(ctx, s.keys.order(merchantID, order)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", Unavailable(fmt.Errorf("read the holder of an order: %w", err))
	}
	return id, nil
}

// TellHolder carries the news that a superseded request was paid late to the
// request that holds the order now, and acknowledges the outbox entry.
func (s *Store) TellHolder(ctx context.Context, e OutboxEntry, entryID string) error {
	r, err := s.Request(ctx, e.RequestID)
	if err != nil {
		return err
	}
	holder, err := s.Holder(ctx, r.MerchantID, r.Order.Reference)
	if err != nil {
		return err
	}
	if holder != "" && holder != r.ID {
		present, err := s.Request(ctx, holder)
		switch {
		case CodeOf(err) == CodeNotFound: // chosen and never made
		case err != nil:
			return err
		default:
			a, err := s.Apply(ctx, present.ContactID, OrderPaidElsewhere{RequestID: holder, By: r.ID}, Once{})
			if err != nil {
				return err
			}
			if a.Refused != nil {
				_, err := s.Apply(ctx, r.ContactID, OrderAlreadyPaid{RequestID: r.ID, By: holder, EntryID: entryID}, Once{})
				return err
			}
		}
	}
	_, err = s.Apply(ctx, r.ContactID, HolderTold{RequestID: r.ID, EntryID: entryID}, Once{})
	return err
}

// Claim returns the contact that owns the first claimed of some addresses; if
// none is claimed, the first one is claimed for a new contact. The contact
// itself exists by its first commit.
func (s *Store) Claim(ctx context.Context, merchantID string, addresses []Address) (string, error) {
	for _, a := range addresses {
		id, err := s.claimed(ctx, s.keys.address(merchantID, a))
		if err != nil || id != "" {
			return id, err
		}
	}
	if len(addresses) == 0 {
		return "", Invalid("addresses", "there is no address")
	}
	key := s.keys.address(merchantID, addresses[0])
	id := randomID(contactPrefix, randomPartition(s.o.Partitions))
	made, err := s.rdb.SetNX(ctx, key, id, s.o.Retention.Money).Result()
	if err != nil {
		return "", Unavailable(fmt.Errorf("claim an address: %w", err))
	}
	if made {
		s.claims.lru.put(key, claim{id, s.Now()})
		return id, nil
	}
	return s.claimed(ctx, key)
}

// claimed returns the owner of an address, or "", and renews the claim's life.
func (s *Store) claimed(ctx context.Context, key string) (string, error) {
	if c, ok := s.claims.lru.get(key); ok && s.Now().Sub(c.renewed) < s.o.Retention.Money/4 {
		return c.contactID, nil
	}
	id, err := s.rdb.GetEx(ctx, key, s.o.Retention.Money).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	if err != nil {
		return "", Unavailable(fmt.Errorf("read an address: %w", err))
	}
	s.claims.lru.put(key, claim{id, s.Now()})
	return id, nil
}

// learnAddresses claims the further addresses of a contact after its commit.
// Those that another contact owns stay there; the agent sees the link. If one
// of the contact's own takes the place of replaced, that is used no more.
func (s *Store) learnAddresses(ctx context.Context, c *Contact, addresses []Address, replaced Address) error {
	var own, linked []Address
	for _, a := range addresses {
		key := s.keys.address(c.MerchantID, a)
		owner, err := s.claimed(ctx, key)
		if err != nil {
			return err
		}
		if owner == "" {
			made, err := s.rdb.SetNX(ctx, key, c.ID, s.o.Retention.Money).Result()
			if err != nil {
				return Unavailable(fmt.Errorf("claim an address: %w", err))
			}
			if made {
				owner = c.ID
				s.claims.lru.put(key, claim{owner, s.Now()})
			} else if owner, err = s.claimed(ctx, key); err != nil {
				return err
			}
		}
		if owner == c.ID {
			own = append(own, a)
		} else {
			linked = append(linked, a)
		}
	}
	if len(own) == 0 || slices.Contains(own, replaced) {
		replaced = Address{}
	}
	_, err := s.Apply(ctx, c.ID, AddressesLearnt{Addresses: own, Linked: linked, Replaces: replaced}, Once{})
	return err
}
