package main

import (
	"net"
	"net/http"
	"testing"

	"paythread/simulator/faults"
)

// TestStopFinishesWhatItHas: a process that was asked to stop takes calls while
// it drains, asks for their connections to be closed, and ends only when the
// charge that it has begun is answered.
func TestStopFinishesWhatItHas(t *testing.T) {
	t.Parallel()
	s := newRig(t, aSingleRedis(t), func(o *rigOptions) { o.Env["DRAIN"] = "3s" })
	g := s.startGateway()
	id, err := s.ask(asked{Order: "drain-1", Phone: demoCustomer, Channel: "sms", Amount: "149.00"})
	s.must(err)
	c := s.payer(demoCustomer, "sms")
	s.await("the link on the phone", func() bool { return c.follow("/p/") == nil })
	s.must(c.open())
	token, err := c.token(panApproved)
	s.must(err)
	s.setFaults(faults.Rule{ID: "slow", Call: "cybersource.payments", Do: faults.HoldAfter, Times: 1})
	paid := make(chan error, 1)
	var state shownState
	go func() {
		var err error
		state, err = c.charge(token)
		paid <- err
	}()
	s.awaitHeldCall("slow")
	stopped := make(chan struct{})
	go func() { defer close(stopped); g.terminate() }()

	s.await("it is not ready any more", func() bool {
		status, _, err := s.call(http.MethodGet, "http://"+g.admin+"/readyz", nil, nil)
		return err == nil && status == http.StatusServiceUnavailable
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.public+"/.well-known/jwks.json", nil)
	s.must(err)
	answer, err := s.agent.Do(req)
	s.must(err)
	s.must(answer.Body.Close())
	if answer.StatusCode != http.StatusOK || !answer.Close {
		t.Errorf("while it drains a call is answered %d, and its connection is to be closed: %v", answer.StatusCode, answer.Close)
	}
	if _, err := s.ask(asked{Order: "drain-2", Phone: "+27825550002", Channel: "sms", Amount: "10.00"}); err != nil {
		t.Errorf("while it drains nothing can be asked for: %v", err)
	}
	s.await("nobody is let in any more", func() bool {
		conn, err := net.Dial("tcp", g.public)
		if err == nil {
			_ = conn.Close() // it was only knocked
		}
		return err != nil
	})
	select {
	case <-stopped:
		t.Fatal("it has ended with a charge in hand")
	default:
	}
	s.setFaults()
	if err := <-paid; err != nil || state.Lifecycle != "paid" {
		t.Errorf("the customer was told %+v, %v", state, err)
	}
	<-stopped
	s.startGateway()
	// What the company said of its delivery came while nobody was there, and is
	// not said twice: the phone tells.
	s.await("the receipt's link on the phone", func() bool { return c.viewReceipt() == nil })
	s.awaitEvent(id, "receipt_viewed")
	if made := s.charges(); len(made.Standing) != 1 {
		t.Errorf("charged: %v", made.Standing)
	}
}
