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
	ID           string    `json:"id"`
	MerchantID   string    `json:"merchant_id"`
	Order        Order     `json:"order"`
	Phone        string    `json:"phone"` // as it was handed over
	Country      string    `json:"country"`
	CustomerName string    `json:"customer_name,omitempty"`
	SealedAt     time.Time `json:"sealed_at"`
}

// Seal keeps an order for agent sessions. The amounts are checked as in
// Create; the phone is not, since an agent may still correct it.
func (s *Store) Seal(ctx context.Context, o SealedOrder) (*SealedOrder, error) {
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
	if o.Country == "" {
		o.Country = m.Country
	}
	o.ID, o.SealedAt = randomID(sealedOrderPrefix, 0), s.Now()
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("conversations: writing a sealed order: %w", err)
	}
	if err := s.rdb.Set(ctx, s.keys.sealed(o.ID), b, s.o.Retention.SealedOrders).Err(); err != nil {
		return nil, Unavailable(fmt.Errorf("seal an order: %w", err))
	}
	return &o, nil
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
