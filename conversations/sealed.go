package conversations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// SealedOrder is what an order-management system's server handed over for one
// agent's browser, which holds only its id.
type SealedOrder struct {
	ID           string            `json:"id"`
	MerchantID   string            `json:"merchant_id"`
	Order        Order             `json:"order"`
	Phone        string            `json:"phone"` // as it was handed over
	Country      string            `json:"country"`
	CustomerName string            `json:"customer_name,omitempty"`
	Extra        map[string]string `json:"extra,omitempty"` // for the payment request; the browser does not see it
	SealedAt     time.Time         `json:"sealed_at"`
}

// Seal keeps an order for agent sessions. The amounts are checked as in
// Create; the phone is not, since an agent may still correct it. With once, a
// repeat gets the order that the first call sealed.
func (s *Store) Seal(ctx context.Context, o SealedOrder, once Once) (*SealedOrder, error) {
	m, ok := s.Merchant(o.MerchantID)
	if !ok {
		return nil, NotFound("merchant")
	}
	if err := CheckOrder(o.Order, m); err != nil {
		return nil, err
	}
	if err := checkText("phone", o.Phone, 40); err != nil {
		return nil, err
	}
	if err := checkText("customer_name", o.CustomerName, 120); err != nil {
		return nil, err
	}
	if err := CheckExtra(o.Extra); err != nil {
		return nil, err
	}
	if o.Country == "" {
		o.Country = m.Country
	}
	o.SealedAt = s.Now()
	chosen, err := s.choose(ctx, m.ID, plan{Hash: once.Hash, SealedID: randomID(sealedOrderPrefix, 0)}, once)
	if err != nil {
		return nil, err
	}
	o.ID = chosen.SealedID
	if once.Key != "" {
		if sealed, err := s.Sealed(ctx, m.ID, o.ID); CodeOf(err) != CodeNotFound {
			return sealed, err
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("conversations: writing a sealed order: %w", err)
	}
	if err := s.rdb.Set(ctx, s.keys.sealed(o.ID), b, s.o.Retention.SealedOrders).Err(); err != nil {
		return nil, Unavailable(fmt.Errorf("seal an order: %w", err))
	}
	return &o, nil
}

// Renew returns a merchant's sealed order for a further session. With once,
// the key is used up for this call: another one under it is refused.
func (s *Store) Renew(ctx context.Context, merchantID, id string, once Once) (*SealedOrder, error) {
	sealed, err := s.Sealed(ctx, merchantID, id)
	if err == nil {
		_, err = s.choose(ctx, merchantID, plan{Hash: once.Hash, SealedID: id}, once)
	}
	if err != nil {
		return nil, err
	}
	return sealed, nil
}

// Sealed returns a merchant's sealed order. CodeNotFound if there is none,
// also when it is another merchant's.
func (s *Store) Sealed(ctx context.Context, merchantID, id string) (*SealedOrder, error) {
	if _, ok := partitionOf(id, sealedOrderPrefix, s.o.Partitions); !ok {
		return nil, NotFound("sealed order")
	}
	b, err := s.rdb.GetEx(ctx, s.keys.sealed(id), s.o.Retention.SealedOrders).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, NotFound("sealed order")
	}
	if err != nil {
		return nil, Unavailable(fmt.Errorf("read a sealed order: %w", err))
	}
	var o SealedOrder
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, fmt.Errorf("conversations: reading a sealed order: %w", err)
	}
	if o.MerchantID != merchantID {
		return nil, NotFound("sealed order")
	}
	return &o, nil
}
