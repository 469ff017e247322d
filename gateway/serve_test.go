package main

import (
	"syscall"
	"testing"
)

// TestServeOutlivesItsLog: whoever reads the log may go, as when the collector is
// restarted or somebody looks at the first lines through a pipe. Payments go on.
func TestServeOutlivesItsLog(t *testing.T) {
	t.Parallel()
	s := newRig(t, aSingleRedis(t))
	g := s.startGateway()
	g.log.leave()
	const applied = `paythread_config_reloads_total{outcome="applied"}`
	for range 3 { // each writes a line
		before := g.metric(applied)
		s.must(g.cmd.Process.Signal(syscall.SIGHUP))
		s.await("a signal is followed", func() bool {
			if g.hasEnded() {
				t.Fatalf("the gateway ended with its log: %v", g.cmd.ProcessState)
			}
			return g.metric(applied) > before
		})
	}
	id, err := s.ask(asked{Order: "unheard-1", Phone: demoCustomer, Channel: "sms", Amount: "149.00"})
	s.must(err)
	s.awaitEvent(id, "delivered")
	g.terminate()
}
