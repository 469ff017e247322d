package main

import (
	"slices"
	"sync"
	"testing"

	"paythread/simulator"
	"paythread/simulator/cybersource"
)

// TestPayAtOnce lets one customer pay one payment request 200 times at the same
// moment: from four browsers, over two gateways, each press with a card of its
// own entered before. One charge stands, and everyone sees the same.
func TestPayAtOnce(t *testing.T) {
	t.Parallel()
	const browsers, presses = 4, 50
	s := newRig(t, aSingleRedis(t), func(o *rigOptions) {
		o.Env["TIMINGS_SEND_WITHIN"], o.Env["TIMINGS_RECOVER_AFTER"] = "20s", "21s"
		o.Env["TIMINGS_ASK_AFTER"], o.Env["TIMINGS_LATE_ASK_AFTER"] = "22s,23s", "30s"
		o.World = func(_ *simulator.Config, card *cybersource.Config) { card.TokenLife = longestWait }
	})
	gateways := []*gatewayProcess{s.startGateway(), s.startGateway()}
	id, err := s.ask(asked{Order: "1042", Phone: demoCustomer, Channel: "whatsapp", Amount: "149.00"})
	s.must(err)
	s.awaitEvent(id, "delivered")

	type press struct {
		by    *payer
		token string
	}
	var all []press
	for i := range browsers {
		c := s.payer(demoCustomer, "whatsapp")
		s.must(c.follow("/p/"))
		c.through(gateways[i%len(gateways)])
		s.must(c.open())
		for range presses {
			token, err := c.token(panApproved)
			s.must(err)
			all = append(all, press{c, token})
		}
	}
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	shown := make([]string, len(all))
	for i, p := range all {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			state, err := p.by.charge(p.token)
			if shown[i] = state.Lifecycle; err != nil {
				t.Errorf("press %d: %v", i, err)
			}
		})
	}
	ready.Wait()
	close(start)
	done.Wait()

	for i, lifecycle := range shown {
		if lifecycle != "processing" && lifecycle != "paid" {
			t.Errorf("press %d shows the customer %q, want processing or paid", i, lifecycle)
		}
	}
	if !slices.Contains(shown, "paid") {
		t.Error("no press shows the customer that it is paid")
	}
	s.awaitEvent(id, "receipt_delivered")
	s.awaitIdle()
	want := slices.Concat(logToCard, logPaid, []string{"receipt_sent", "receipt_delivered"})
	if got := s.eventTypes(id); !slices.Equal(got, want) {
		t.Errorf("the event log is\n%v, want\n%v", got, want)
	}
	if made := s.charges(); len(made.Standing) != 1 || len(made.Returned) != 0 {
		t.Errorf("the platform has charged %v and given back %v, want one charge", made.Standing, made.Returned)
	}
	r := s.request(id)
	if len(r.Attempts) != 1 || r.Totals["captured"].Value != "149.00" {
		t.Errorf("the request has %d attempts and the totals %v, want one and 149.00", len(r.Attempts), r.Totals)
	}
	if got := len(s.payer(demoCustomer, "whatsapp").links("/r/")); got != 1 {
		t.Errorf("the phone has %d receipt messages, want 1", got)
	}
}
