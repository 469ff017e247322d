package meta

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// pricedSince is when service messages, and utility templates inside the window,
// stopped being free.
var pricedSince = time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)

// priceOf says what a message costs, and counts it. False means that the month's
// free messages are used up and nobody pays. The lock is held.
func (s *Simulator) priceOf(m *message, windowOpen bool) (*pricing, bool) {
	now := s.cfg.Now()
	free := &pricing{Billable: false, PricingModel: "PMP", Type: "free_customer_service", Category: m.category}
	regular := &pricing{Billable: true, PricingModel: "PMP", Type: "regular", Category: m.category}
	switch {
	case m.category == "service" && now.Before(pricedSince):
		return free, true
	case m.category == "service":
		month := monthKey{m.number.PhoneNumberID, now.UTC().Format("2006-01")}
		s.services[month]++
		if s.services[month] <= s.cfg.FreeMessages {
			return free, true
		}
		return regular, !m.number.NoPaymentMethod
	case m.category == "utility" && windowOpen && now.Before(pricedSince):
		return free, true
	}
	return regular, true
}

func conversationOf(m *message, status string, expiry time.Time) *conversation {
	sum := sha256.Sum256([]byte(m.From + m.To + m.category))
	c := &conversation{ID: hex.EncodeToString(sum[:16]), Origin: origin{m.category}}
	if status == statusSent {
		c.Expiration = seconds(expiry)
	}
	return c
}
