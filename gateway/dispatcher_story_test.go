package main

import (
	"fmt"
	"net/http"
	"testing"

	"paythread/simulator"
	"paythread/simulator/faults"
)

// TestSendingThroughFaults lets two gateways write to many customers, by
// WhatsApp and by SMS, while each company in turn refuses, fails and loses
// answers, before and after the effect. Every customer has one message in the
// end: the echo, or Twilio's own word, settles what was lost.
func TestSendingThroughFaults(t *testing.T) {
	t.Parallel()
	s := newRig(t, aPlainRedis(t), func(o *rigOptions) {
		o.Env["DISPATCHER_BREAKER_OPEN"], o.Env["DISPATCHER_SEND_TIMEOUT"] = "500ms", "5s"
	})
	s.startGateway()
	s.startGateway()
	calls := map[string]string{"whatsapp": "meta.messages", "sms": "twilio.messages"}
	var rules []faults.Rule
	for channel, call := range calls {
		for i, do := range []faults.Rule{
			{Do: faults.Status, Status: http.StatusTooManyRequests, Times: 3, Headers: map[string]string{"Retry-After": "1"}},
			{Do: faults.Status, Status: http.StatusServiceUnavailable, Times: 3},
			{Do: faults.DropBefore, Times: 2},
			{Do: faults.DropAfter, Times: 3},
		} {
			do.ID, do.Call, do.Skip = fmt.Sprintf("%s-%d", channel, i), call, 2
			rules = append(rules, do)
		}
	}
	s.setFaults(rules...)
	type customer struct{ id, phone, channel string }
	var customers []customer
	for i := range 12 {
		for channel := range calls {
			customers = append(customers, customer{phone: fmt.Sprintf("+2782%07d", 7000000+len(customers)), channel: channel})
			c := &customers[len(customers)-1]
			var err error
			c.id, err = s.ask(asked{Order: fmt.Sprintf("%s-%d", channel, i), Phone: c.phone, Channel: channel, Amount: "149.00"})
			s.must(err)
		}
	}
	for _, c := range customers {
		s.awaitEvent(c.id, "delivered")
	}
	s.awaitIdle()
	for _, c := range customers {
		received := 0
		for _, m := range s.world.Phones.Messages(c.phone) {
			if m.Direction == simulator.Received {
				received++
			}
		}
		if received != 1 {
			t.Errorf("%s by %s: %d messages on the phone", c.id, c.channel, received)
		}
	}
	for _, r := range s.world.Faults.Rules() {
		if r.Taken < r.Times {
			t.Errorf("the fault %s happened %d times of %d: nothing was tried", r.ID, r.Taken, r.Times)
		}
	}
}
