package main

import (
	"net/http"
	"slices"
	"time"

	"paythread/simulator/cybersource"
)

// moneyOfTheStage is what a story may want of the merchant's platform.
type moneyOfTheStage struct {
	ReviewWithin  time.Duration // then a payment under review is given back, which this platform lets happen
	Notifies      bool          // the platform tells of everything by webhook
	TakeBackAfter time.Duration // a charge of unknown outcome is taken back by our own reference
}

func (m moneyOfTheStage) settle(c *MerchantConfig) {
	c.ReviewWithin = m.ReviewWithin
	if m.TakeBackAfter > 0 {
		c.Platform.Settings["timeout_reversal"], c.Platform.Settings["timeout_reversal_after"] = "vpc", m.TakeBackAfter.String()
	}
}

// shopAsksToHold asks for money that is only held until the shop captures it.
func (s *tale) shopAsksToHold(w []string) {
	s.sell(w[0], w[1])
	s.openSession() // the agent looks at it in the panel
	body := map[string]any{"channel": w[2], "capture": false}
	for k, v := range s.order {
		body[k] = v
	}
	s.follow(s.want(s.call(http.MethodPost, s.public+"/v1/payment-requests", bearer(demoAPIKey), body), http.StatusCreated))
}

// wish asks for an operation, as the shop's server does.
func (s *tale) wish(action string, body map[string]any) response {
	return s.call(http.MethodPost, s.public+"/v1/payment-requests/"+s.current().id+"/"+action, bearer(demoAPIKey), body)
}

func (s *tale) shopCaptures(w []string) {
	body := map[string]any{"reason": "the parcel has left"}
	if len(w) > 0 {
		body["amount"] = moneyOf(w[0])
	}
	s.want(s.wish("capture", body), http.StatusOK)
}

func (s *tale) shopReverses([]string) {
	s.want(s.wish("reverse", map[string]any{"reason": "out of stock"}), http.StatusOK)
}

func (s *tale) shopCannot(w []string) {
	r := s.want(s.wish(w[0], map[string]any{}), http.StatusConflict)
	if _, reason := r.problem(s); reason != w[1] {
		s.fail("got the reason %q, want %q", reason, w[1])
	}
}

// shopCounts waits until the totals are those.
func (s *tale) shopCounts(w []string) {
	want := [3]apiMoney{moneyOf(w[0]), moneyOf(w[1]), moneyOf(w[2])}
	s.await("the totals "+w[0]+", "+w[1]+", "+w[2], func() bool {
		var r struct {
			Totals struct{ Captured, Reversed, Refunded apiMoney }
		}
		s.want(s.call(http.MethodGet, s.public+"/v1/payment-requests/"+s.current().id, bearer(demoAPIKey), nil), http.StatusOK).into(s, &r)
		return [3]apiMoney{r.Totals.Captured, r.Totals.Reversed, r.Totals.Refunded} == want
	})
}

// payment returns the newest payment in the platform's books.
func (s *tale) payment() cybersource.Transaction {
	s.t.Helper()
	var all []cybersource.Transaction
	s.want(s.call(http.MethodGet, s.outside.URL+"/cybersource/transactions", nil, nil), http.StatusOK).into(s, &all)
	for _, t := range slices.Backward(all) {
		if t.Kind == cybersource.KindSale || t.Kind == cybersource.KindAuthorization {
			return t
		}
	}
	s.fail("nobody has paid")
	return cybersource.Transaction{}
}

// inBusinessCenter is what a person does on the platform's own pages.
func (s *tale) inBusinessCenter(action, amount string) {
	s.t.Helper()
	body := map[string]any{"action": action, "id": s.payment().ID}
	if amount != "" {
		body["amount"] = amount
	}
	if r := s.call(http.MethodPost, s.outside.URL+"/cybersource/back-office", nil, body); r.status/100 != 2 {
		s.fail("the business center answered %d: %s", r.status, r.body)
	}
}

func (s *tale) personRefunds(w []string) { s.inBusinessCenter("refund", moneyOf(w[0]).Value) }

func (s *tale) reviewerDecides(w []string) {
	s.inBusinessCenter(map[string]string{"accepts": "accept", "rejects": "reject"}[w[0]], "")
}
