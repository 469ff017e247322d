package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"paythread/conversations/redistest"
	"paythread/simulator"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

// opCrash is a place in the life of an operation at which the gateway dies.
type opCrash struct {
	name   string
	commit string         // of this event; empty: the platform's call
	when   redistest.When // held before it, or before its answer
	late   bool           // the commit still arrives after the gateway's death
}

// opCrashes are the gaps between the commits and the call of an operation.
var opCrashes = []opCrash{
	{name: "platform not reached", when: redistest.Before},
	{name: "platform reached, its answer lost", when: redistest.After},
	{name: "wish not committed", commit: "OperationRequested", when: redistest.Before},
	{name: "wish committed late", commit: "OperationRequested", when: redistest.Before, late: true},
	{name: "wish committed, its answer lost", commit: "OperationRequested", when: redistest.After},
	{name: "start not committed", commit: "OperationStarted", when: redistest.Before},
	{name: "start committed late", commit: "OperationStarted", when: redistest.Before, late: true},
	{name: "start committed, its answer lost", commit: "OperationStarted", when: redistest.After},
	{name: "outcome not committed", commit: "OperationAnswered", when: redistest.Before},
	{name: "outcome committed late", commit: "OperationAnswered", when: redistest.Before, late: true},
	{name: "outcome committed, its answer lost", commit: "OperationAnswered", when: redistest.After},
}

// opKind is one kind of operation as the merchant asks for it.
type opKind struct {
	name   string // at the platform
	action string // of the API
	call   string
	hold   bool // the money is only held
	amount string
	end    string // the lifecycle then
}

var opKinds = []opKind{
	{cybersource.KindCapture, "capture", "cybersource.captures", true, "100.00", "paid"},
	{cybersource.KindReversal, "reverse", "cybersource.reversals", true, "", "reversed"},
	{cybersource.KindVoid, "reverse", "cybersource.voids", false, "", "reversed"},
	{cybersource.KindRefund, "refund", "cybersource.refunds", false, "49.00", "partially_refunded"},
}

// opVictim is one operation that is under way when the gateway dies.
type opVictim struct {
	opCrash
	kind opKind
	id   string // of the payment request
	held *redistest.Held
}

// TestCrashInOperations kills one gateway while operations of every kind stand
// in every gap, and lets another one go on: each is done once.
func TestCrashInOperations(t *testing.T) {
	t.Parallel()
	s := newRig(t, aSingleRedis(t), func(o *rigOptions) {
		// Everything stands still at the same time.
		o.Env["DISPATCHER_WORKERS"], o.Env["REDIS_POOL_SIZE"] = "100", "150"
		o.Env["MERCHANTS_ACME_SENDERS_ACME_SMS_PER_SECOND"] = "1000"
		// A repeat is not refused for its transaction id, as at many processors.
		o.World = func(_ *simulator.Config, card *cybersource.Config) { card.Processor = "" }
	})
	gateway := s.startGateway()
	victims := s.victims()
	gone := s.strikeAll(gateway, victims)
	s.startGateway()
	gone.Wait()
	for _, v := range victims { // the merchant's system repeats what was never answered
		if err := s.operate(v); err != nil {
			t.Errorf("%s, %s: %v", v.kind.name, v.name, err)
		}
	}
	for _, v := range victims {
		s.awaitOperations(v.id, "succeeded")
		r := s.request(v.id)
		if len(r.Operations) != 1 || r.Operations[0].Kind != v.kind.name || r.Lifecycle != v.kind.end {
			t.Errorf("%s, %s: the request is %s with the operations %v", v.kind.name, v.name, r.Lifecycle, r.Operations)
		}
		made := slices.DeleteFunc(s.world.CyberSource.Transactions(), func(t cybersource.Transaction) bool {
			return t.Kind != v.kind.name || !strings.HasPrefix(t.Code, v.id)
		})
		if len(made) != 1 {
			t.Errorf("%s, %s: the platform did %v, want it once", v.kind.name, v.name, made)
		}
	}
}

// victims are paid payment requests, one for each kind and place.
func (s *rig) victims() []*opVictim {
	s.t.Helper()
	var all []*opVictim
	for _, place := range opCrashes {
		for _, kind := range opKinds {
			all = append(all, &opVictim{opCrash: place, kind: kind})
		}
	}
	wants := make([]asked, len(all))
	for i, v := range all {
		wants[i] = asked{Order: fmt.Sprint("op-", i), Phone: fmt.Sprintf("+2782123%04d", i), Channel: "sms", Amount: "149.00", Hold: v.kind.hold}
	}
	for i, id := range s.paid(wants...) {
		all[i].id = id
	}
	return all
}

// operate asks for the operation. A repeat is the same call.
func (s *rig) operate(v *opVictim) error {
	body := map[string]any{}
	if v.kind.amount != "" {
		body["amount"] = map[string]string{"value": v.kind.amount, "currency": "ZAR"}
	}
	return s.api(http.MethodPost, "/payment-requests/"+v.id+"/"+v.kind.action, http.Header{"Idempotency-Key": {v.id}}, body, nil)
}

// strikeAll brings every operation to its place, kills the gateway, and lets
// go on what was on its way. The group is done when every caller has given up.
func (s *rig) strikeAll(gateway *gatewayProcess, victims []*opVictim) *sync.WaitGroup {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), longestWait)
	defer cancel()
	gone := &sync.WaitGroup{}
	ask := func(v *opVictim) {
		gone.Go(func() { _ = s.operate(v) }) // it may never be answered: that is the point
	}
	var rules []faults.Rule
	for _, k := range opKinds {
		for _, when := range []redistest.When{redistest.Before, redistest.After} {
			rules = append(rules, faults.Rule{ID: k.call + string(when), Call: k.call, Do: "hold_" + string(when), Times: 1})
		}
	}
	s.setFaults(rules...)
	for _, v := range victims { // the calls come first, because a rule takes whichever comes
		if v.commit == "" {
			ask(v)
			s.awaitHeldCall(v.kind.call + string(v.when))
		}
	}
	for _, v := range victims {
		if v.commit != "" {
			v.held = s.store.hold(s.commitOf(v.commit, v.id), v.when)
			ask(v)
		}
	}
	for _, v := range victims {
		if v.held == nil {
			continue
		}
		if err := v.held.Wait(ctx); err != nil {
			s.t.Fatalf("%s, %s: %v", v.kind.name, v.name, err)
		}
	}
	gateway.kill()
	for _, v := range victims {
		switch {
		case v.held == nil:
		case v.late:
			v.held.Release()
		default:
			v.held.Drop()
		}
	}
	s.await("the held calls have ended", func() bool {
		return !slices.ContainsFunc(s.world.Faults.Rules(), func(r faults.State) bool { return r.Held > 0 })
	})
	return gone
}
