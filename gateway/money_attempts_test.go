package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"paythread/simulator"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

// A crowd is many browsers with the card form of one payment request open, half
// of them at each of two gateways. Every card is entered once and submitted from
// two tabs.
const (
	crowdBrowsers = 20
	crowdTabs     = 2
)

// crowdPress is one press on "Pay", and what it showed.
type crowdPress struct {
	by    *payer
	token string
	shown shownState
	err   error
}

// gather opens the browsers and enters so many cards that there is one press
// for each pair of card and tab.
func gather(s *rig, phone string, gateways []*gatewayProcess, presses int) []*crowdPress {
	s.t.Helper()
	var all []*crowdPress
	for i := range crowdBrowsers {
		c := s.payer(phone, "whatsapp")
		c.client.Transport.(*http.Transport).MaxIdleConnsPerHost = presses / crowdBrowsers
		s.must(c.follow("/p/"))
		c.through(gateways[i%len(gateways)])
		s.must(c.open())
		for range presses / crowdBrowsers / crowdTabs {
			token, err := c.token(panApproved)
			s.must(err)
			for range crowdTabs {
				all = append(all, &crowdPress{by: c, token: token})
			}
		}
	}
	if len(all) != presses {
		s.t.Fatalf("%d presses, want %d", len(all), presses)
	}
	return all
}

// press pays. A gateway that has no time for a press says so and has done nothing
// or all of it; the page then asks how it stands.
func (p *crowdPress) press() {
	if p.shown, p.err = p.by.charge(p.token); p.err == nil {
		return
	}
	for range 20 {
		status, answer, err := callBy(p.by.s.t.Context(), p.by.client, http.MethodGet, p.by.page+"/state", nil, nil)
		if err == nil && status == http.StatusOK {
			p.err = json.Unmarshal(answer, &p.shown)
			return
		}
	}
}

// pressAll lets everybody press at the same moment.
func pressAll(all []*crowdPress) {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for _, p := range all {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			p.press()
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
}

// TestThousandAttempts: a thousand presses at once on one payment request are
// one charge, whether or not its answer arrives, and everybody is told how it
// stands.
func TestThousandAttempts(t *testing.T) {
	t.Parallel()
	s := newRig(t, aPlainRedis(t), func(o *rigOptions) {
		o.Env["REDIS_POOL_SIZE"] = "200"
		// A crowd on a small machine takes its time, and shares one address.
		o.Env["TIMINGS_SEND_WITHIN"], o.Env["TIMINGS_RECOVER_AFTER"] = "15s", "16s"
		o.Env["TIMINGS_ASK_AFTER"], o.Env["TIMINGS_LATE_ASK_AFTER"] = "17s,18s,20s,25s", "30s,40s"
		o.Env["MERCHANTS_ACME_CARD_TESTING_ADDRESS_TRIES"] = "100000"
		o.World = func(_ *simulator.Config, card *cybersource.Config) { card.TokenLife = longestWait }
	})
	gateways := []*gatewayProcess{s.startGateway(), s.startGateway()}
	var settled []func() // both requests settle at the same time
	for _, c := range []struct {
		name    string
		phone   string
		presses int
		lost    bool // the answer of the one charge
		shown   []string
		log     []string
	}{
		{"answer lost", "+27821234501", 200, true, []string{"processing"}, []string{"attempt_started", "attempt_unsettled", "paid"}},
		{"answered", demoCustomer, 1000, false, []string{"processing", "paid"}, logPaid},
	} {
		id, err := s.ask(asked{Order: c.name, Phone: c.phone, Channel: "whatsapp", Amount: "149.00"})
		s.must(err)
		s.awaitEvent(id, "delivered")
		all := gather(s, c.phone, gateways, c.presses)
		if c.lost {
			s.setFaults(faults.Rule{ID: "lost", Call: "cybersource.payments", Do: faults.DropAfter, Times: 1})
		}
		pressAll(all)
		seen := map[string]int{}
		for i, p := range all {
			if seen[p.shown.Lifecycle]++; p.err != nil || p.shown.Screen == "" || !slices.Contains(c.shown, p.shown.Lifecycle) {
				t.Fatalf("%s: press %d shows %+v, %v; want the lifecycle %v", c.name, i, p.shown, p.err, c.shown)
			}
		}
		if seen["paid"] == 0 && !c.lost {
			t.Errorf("%s: no press shows that it is paid, but %v", c.name, seen)
		}
		settled = append(settled, func() {
			s.awaitEvent(id, "receipt_delivered")
			s.awaitIdle()
			want := slices.Concat(logToCard, c.log, []string{"receipt_sent", "receipt_delivered"})
			if got := s.eventTypes(id); !slices.Equal(got, want) {
				t.Errorf("%s: the event log is\n%v, want\n%v", c.name, got, want)
			}
			if r := s.request(id); len(r.Attempts) != 1 || r.Lifecycle != "paid" || r.Totals["captured"].Value != "149.00" {
				t.Errorf("%s: the request is %s with %d attempts and the totals %v, want paid by one", c.name, r.Lifecycle, len(r.Attempts), r.Totals)
			}
			var did []string // of this request's, also what gives money back
			for _, made := range s.world.CyberSource.Transactions() {
				if strings.HasPrefix(made.Code, id+"-") {
					did = append(did, made.Kind)
				}
			}
			if !slices.Equal(did, []string{cybersource.KindSale}) {
				t.Errorf("%s: the platform made %v, want one charge", c.name, did)
			}
			if got := len(s.payer(c.phone, "whatsapp").links("/r/")); got != 1 {
				t.Errorf("%s: the phone has %d receipt messages, want 1", c.name, got)
			}
		})
	}
	for _, check := range settled {
		check()
	}
}
