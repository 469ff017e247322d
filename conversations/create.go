package conversations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
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
	Extra        map[string]string // the merchant's own data, as CheckExtra takes it
	TimeToOpen   time.Duration     // zero: the merchant's
	TimeToPay    time.Duration
	Capture      *bool // nil: the merchant's
	Agent        string
	Once         Once // the caller's Idempotency-Key and the hash of its body
}

// localeForm is the shape of a language tag (BCP 47), written with - or _.
var localeForm = regexp.MustCompile(`^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$`)

// plan is what was chosen for a create, for the sealing of an order or for a
// change of a callback endpoint, before anything was made, so that a retry runs the same steps with the same ids.
type plan struct {
	Hash        string `json:"hash"`
	ContactID   string `json:"contact,omitempty"`
	RequestID   string `json:"request,omitempty"`
	LinkCode    string `json:"link,omitempty"`
	ReceiptCode string `json:"receipt,omitempty"`
	SealedID    string `json:"sealed,omitempty"`
	EndpointID  string `json:"endpoint,omitempty"`
	Secret      string `json:"secret,omitempty"` // of a callback endpoint
	AskedAt     int64  `json:"asked_at,omitempty"`
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
	// A repeat is answered before anything is looked at or changed that may
	// be otherwise by now, or that another body with this key must not touch.
	chosen, known, err := s.planned(ctx, merchant.ID, c.Once)
	if err != nil {
		return nil, err
	}
	if known {
		if made, err := s.Request(ctx, chosen.RequestID); CodeOf(err) != CodeNotFound {
			return made, err
		}
	}
	contactID, err := s.Claim(ctx, merchant.ID, []Address{{Kind: AddressPhone, Value: r.Phone}})
	if err != nil {
		return nil, err
	}
	if err := s.mayWrite(ctx, contactID, r.Channel); err != nil {
		return nil, err
	}
	if !known {
		if chosen, err = s.plan(ctx, merchant.ID, contactID, c.Once); err != nil {
			return nil, err
		}
	}
	r.ContactID, r.ID, r.LinkCode, r.ReceiptCode = chosen.ContactID, chosen.RequestID, chosen.LinkCode, chosen.ReceiptCode
	if err := s.holdOrder(ctx, merchant.ID, r.Order.Reference, r.ID); err != nil {
		return nil, err
	}
	a, err := s.apply(ctx, r.ContactID, Created{Request: *r, Agent: c.Agent, CustomerName: c.CustomerName}, Once{}, writes{
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

func orderHeld(message string) *Error {
	e := Refused("order_held", "%s", message)
	e.Field = "order"
	return e
}

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
	if err := CheckExtra(c.Extra); err != nil {
		return nil, m, err
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
	if c.Locale != "" && !localeForm.MatchString(c.Locale) {
		return nil, m, Invalid("locale", "this is not a language tag; use one such as \"en\" or \"en-ZA\"")
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
		MerchantID: m.ID, Order: c.Order, Phone: phone, Channel: c.Channel, Locale: c.Locale, Note: c.Note, Extra: maps.Clone(c.Extra),
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
	return s.choose(ctx, merchantID, chosen, once)
}

// choose keeps a plan under a key, or returns the one that the first call with
// the same key kept. Another input under the same key is refused.
func (s *Store) choose(ctx context.Context, merchantID string, chosen plan, once Once) (plan, error) {
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
	first, known, err := s.planned(ctx, merchantID, once)
	if err == nil && !known {
		err = Unavailable(errors.New("an idempotency key ran out while it was used"))
	}
	return first, err
}

// planned returns what the first call with a key chose, and false if there was
// none. Another input under the same key is refused.
func (s *Store) planned(ctx context.Context, merchantID string, once Once) (plan, bool, error) {
	if once.Key == "" {
		return plan{}, false, nil
	}
	text, err := s.rdb.Get(ctx, s.keys.idempotency(merchantID, once.Key)).Result()
	if errors.Is(err, redis.Nil) {
		return plan{}, false, nil
	}
	if err != nil {
		return plan{}, false, Unavailable(fmt.Errorf("read an idempotency key: %w", err))
	}
	var first plan
	if err := json.Unmarshal([]byte(text), &first); err != nil {
		return plan{}, false, fmt.Errorf("conversations: reading an idempotency key: %w", err)
	}
	if first.Hash != once.Hash {
		return plan{}, false, mismatch()
	}
	return first, true, nil
}

// holdOrder makes a request the holder of an order, taking it over from one
// that has ended.
func (s *Store) holdOrder(ctx context.Context, merchantID, order, requestID string) error {
	key := s.keys.order(merchantID, order)
	for {
		raw, err := s.rdb.Get(ctx, key).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return Unavailable(fmt.Errorf("read the holder of an order: %w", err))
		}
		holder, last, _ := strings.Cut(raw, " ")
		if holder == requestID {
			return s.notPaidElsewhere(ctx, last)
		}
		if holder != "" {
			made, err := s.supersede(ctx, holder, requestID)
			if err != nil {
				return err
			}
			if made {
				last = holder
			}
		}
		next := strings.TrimSpace(requestID + " " + last)
		moved, err := moveScript.Run(ctx, s.rdb, []string{key}, raw, next, ms(s.o.Retention.Money)).Int()
		if err != nil {
			return Unavailable(fmt.Errorf("move the holder of an order: %w", err))
		}
		if moved == 1 {
			return s.notPaidElsewhere(ctx, last)
		}
	}
}

// notPaidElsewhere refuses an order whose last holder has heard that the order
// is paid. It is asked after the holder was moved: TellHolder tells first and
// then looks who holds the order, so that one of the two sees the other.
func (s *Store) notPaidElsewhere(ctx context.Context, last string) error {
	if last == "" {
		return nil
	}
	r, err := s.Request(ctx, last)
	if CodeOf(err) == CodeNotFound || err == nil && r.PaidElsewhere == "" {
		return nil
	}
	if err != nil {
		return err
	}
	payer, err := s.Request(ctx, r.PaidElsewhere)
	if CodeOf(err) == CodeNotFound || err == nil && (payer.Lifecycle == Reversed || payer.Lifecycle == Refunded) {
		return nil // it was given back
	}
	if err != nil {
		return err
	}
	return orderHeld("this order was paid through an earlier payment request")
}

// supersede marks the holder of an order before another request takes it, and
// tells whether it was ever made. One that was not is tombstoned first, so that
// its slow creator finds it taken.
func (s *Store) supersede(ctx context.Context, holder, by string) (made bool, err error) {
	p, ok := partitionOf(holder, requestPrefix, s.o.Partitions)
	if !ok {
		return false, nil // not one of ours: nothing to mark
	}
	r, err := s.madeOrNever(ctx, p, holder)
	if err != nil || r == nil {
		return false, err
	}
	if !r.Superseded {
		a, err := s.Apply(ctx, r.ContactID, SupersededBy{RequestID: holder, By: by}, Once{})
		if err != nil {
			return true, err
		}
		if a.Refused != nil {
			return true, orderHeld("another payment request of this order is " + string(a.Request.Lifecycle))
		}
	}
	return true, s.notPaidElsewhere(ctx, holder)
}

// madeOrNever returns a request, or sees to it that it never will be made: its
// slow creator finds a tombstone.
func (s *Store) madeOrNever(ctx context.Context, p int, id string) (*PaymentRequest, error) {
	if err := s.rdb.SetNX(ctx, s.keys.request(p, id), tombstone, s.o.Retention.Idempotency).Err(); err != nil {
		return nil, Unavailable(fmt.Errorf("mark the holder of an order: %w", err))
	}
	r, err := s.readRequest(ctx, p, id)
	if CodeOf(err) == CodeNotFound {
		return nil, nil
	}
	return r, err
}

// Holder returns the id of the payment request that holds an order, or "". It
// may have been chosen and not yet made.
func (s *Store) Holder(ctx context.Context, merchantID, order string) (string, error) {
	// The id of the last holder that was made stands behind it.
	raw, err := s.rdb.Get(ctx, s.keys.order(merchantID, order)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", Unavailable(fmt.Errorf("read the holder of an order: %w", err))
	}
	holder, _, _ := strings.Cut(raw, " ")
	return holder, nil
}

// TellHolder carries the news that a superseded request was paid late to the
// request that holds the order now, and acknowledges the outbox entry. If the
// holder changes meanwhile, the next one is told too.
func (s *Store) TellHolder(ctx context.Context, e OutboxEntry, entryID string) error {
	r, err := s.Request(ctx, e.RequestID)
	if err != nil {
		return err
	}
	for told := r.ID; ; {
		holder, err := s.Holder(ctx, r.MerchantID, r.Order.Reference)
		if err != nil {
			return err
		}
		if holder == "" || holder == told {
			_, err = s.Apply(ctx, r.ContactID, HolderTold{RequestID: r.ID, EntryID: entryID}, Once{})
			return err
		}
		kept, err := s.tell(ctx, holder, r.ID)
		if err != nil {
			return err
		}
		if !kept {
			_, err := s.Apply(ctx, r.ContactID, OrderAlreadyPaid{RequestID: r.ID, By: holder, EntryID: entryID}, Once{})
			return err
		}
		told = holder
	}
}

// tell says to the holder of an order that payer was paid, and whether the
// money of payer is kept: not if the holder's is.
func (s *Store) tell(ctx context.Context, holder, payer string) (kept bool, err error) {
	p, ok := partitionOf(holder, requestPrefix, s.o.Partitions)
	if !ok {
		return true, nil
	}
	present, err := s.madeOrNever(ctx, p, holder)
	if err != nil || present == nil {
		return true, err
	}
	a, err := s.Apply(ctx, present.ContactID, OrderPaidElsewhere{RequestID: holder, By: payer}, Once{})
	return a.Refused == nil, err
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
