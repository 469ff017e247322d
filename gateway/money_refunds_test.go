package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"

	"paythread/conversations"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

// wantedRefund is one call of the API, and what was answered.
type wantedRefund struct {
	amount   int64  // minor units
	expected *int64 // expected_refundable
	key      string // Idempotency-Key; two calls may have the same
	reason   string // of the refusal; empty: accepted
}

// body is the call's body.
func (w *wantedRefund) body() map[string]any {
	amount := func(minor int64) map[string]string {
		return map[string]string{"value": conversations.Money{Minor: minor, Currency: "ZAR"}.Decimal(), "currency": "ZAR"}
	}
	body := map[string]any{"amount": amount(w.amount), "reason": "one of many"}
	if w.expected != nil {
		body["expected_refundable"] = amount(*w.expected)
	}
	return body
}

// refundAt asks a gateway for a refund, again under the same key while it has
// no time.
func (s *rig) refundAt(g *gatewayProcess, id string, w *wantedRefund) error {
	header := http.Header{"Authorization": {"Bearer " + demoAPIKey}, "Idempotency-Key": {w.key}}
	for range 20 {
		status, answer, err := s.call(http.MethodPost, "http://"+g.public+"/v1/payment-requests/"+id+"/refund", header, w.body())
		switch {
		case err != nil:
			return err
		case status == http.StatusOK:
			return nil
		case status == http.StatusServiceUnavailable:
			continue
		}
		var problem Problem
		if err := json.Unmarshal(answer, &problem); err != nil || problem.Reason == "" {
			return fmt.Errorf("answered %d: %s", status, answer)
		}
		w.reason = problem.Reason
		return nil
	}
	return errors.New("the gateway never had time")
}

// TestThousandRefunds: of a thousand partial refunds asked for at once through
// two gateways as many are made as there is money for, each once, although
// every tenth answer of the platform is lost.
func TestThousandRefunds(t *testing.T) {
	t.Parallel()
	const calls, paid = 1000, 14900
	s := newRig(t, aPlainRedis(t), func(o *rigOptions) { o.Env["REDIS_POOL_SIZE"] = "200" })
	gateways := []*gatewayProcess{s.startGateway(), s.startGateway()}
	id := s.paid(asked{Order: "1042", Phone: demoCustomer, Channel: "sms", Amount: "149.00"})[0]
	s.setFaults(faults.Rule{ID: "lost", Call: "cybersource.refunds", Do: faults.DropAfter, Share: 0.1})

	r := rand.New(rand.NewPCG(7, 14900))
	all := make([]*wantedRefund, calls)
	for i := range all {
		w := &wantedRefund{amount: 1 + r.Int64N(3000), key: fmt.Sprint("refund-", i)}
		switch i % 5 {
		case 0: // two people look at the same screen
			w.expected = new(int64(paid))
		case 1:
			w.expected = new(paid - 100*r.Int64N(100))
		case 2: // the panel repeats a call
			w.amount, w.key = all[i-1].amount, all[i-1].key
			w.expected = all[i-1].expected
		}
		all[i] = w
	}
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i, w := range all {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			if err := s.refundAt(gateways[i%len(gateways)], id, w); err != nil {
				t.Errorf("refund %d: %v", i, err)
			}
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	if t.Failed() {
		return
	}
	s.checkRefunds(id, all, paid)
}

// checkRefunds waits until every accepted refund has ended, and adds up.
func (s *rig) checkRefunds(id string, all []*wantedRefund, paid int64) {
	s.t.Helper()
	accepted, refused := map[string]int64{}, map[string]int{}
	for i, w := range all {
		if w.reason == "" {
			accepted[w.key] = w.amount
			continue
		}
		refused[w.reason]++
		if !slices.Contains([]string{"beyond_refundable", "refundable_changed", "not_refundable"}, w.reason) {
			s.t.Errorf("refund %d was refused with %q", i, w.reason)
		}
	}
	var sum int64
	for _, amount := range accepted {
		sum += amount
	}
	if len(accepted) == 0 || refused["beyond_refundable"] == 0 || refused["refundable_changed"] == 0 || sum > paid {
		s.t.Errorf("%d refunds of %d in all were accepted, and refused: %v; want some of each, and %d at most", len(accepted), sum, refused, paid)
	}
	var now rigRequest
	s.await("every refund has ended", func() bool {
		now = s.request(id)
		return !slices.ContainsFunc(now.Operations, func(o rigOperation) bool { return o.State != "succeeded" })
	})
	var made []int64
	for _, t := range s.world.CyberSource.Transactions() {
		if t.Kind == cybersource.KindRefund {
			m, err := conversations.ParseMoney(t.Amount, t.Currency)
			s.must(err)
			made = append(made, m.Minor)
		}
	}
	want := slices.Sorted(maps.Values(accepted))
	slices.Sort(made)
	if !slices.Equal(made, want) || len(now.Operations) != len(want) {
		s.t.Errorf("the platform made refunds of\n%v; accepted were\n%v, and the request has %d", made, want, len(now.Operations))
	}
	left := conversations.Money{Minor: paid - sum, Currency: "ZAR"}.Decimal()
	if got := now.Totals["refundable"].Value; got != left {
		s.t.Errorf("refundable is %s, want %s", got, left)
	}
	for i, w := range all {
		if w.reason == "beyond_refundable" && w.amount <= paid-sum {
			s.t.Errorf("refund %d of %d was refused with beyond_refundable, and %s is left", i, w.amount, left)
		}
	}
}

// paid lets customers pay new payment requests, one of which each of them has.
func (s *rig) paid(wants ...asked) (ids []string) {
	s.t.Helper()
	for _, want := range wants {
		id, err := s.ask(want)
		s.must(err)
		ids = append(ids, id)
	}
	for i, want := range wants {
		c := s.payer(want.Phone, want.Channel)
		s.await("the message on the phone", func() bool { return len(c.links("/p/")) > 0 })
		s.must(c.follow("/p/"))
		s.must(c.open())
		_, err := c.pay(panApproved)
		s.must(err)
		s.awaitLifecycle(ids[i], "paid", "authorized")
	}
	return ids
}
