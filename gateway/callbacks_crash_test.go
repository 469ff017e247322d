package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"paythread/conversations/redistest"
)

// scriptOn matches this rig's call of a script on keys of callbacks that end so,
// in this order.
func (s *rig) scriptOn(suffixes ...string) func([]string) bool {
	script := redistest.ScriptWith()
	return func(command []string) bool {
		if !script(command) || len(command) < 3+len(suffixes) || command[2] != fmt.Sprint(len(suffixes)) && len(suffixes) != 4 {
			return false
		}
		for i, suffix := range suffixes {
			key := command[3+i]
			if !strings.HasPrefix(key, s.prefix+":{cb.") || !strings.Contains(key, "}:"+suffix) {
				return false
			}
		}
		return true
	}
}

// TestCallbacksSurviveCrashes kills a gateway between any two steps on an
// event's way to the merchant. Another one goes on: every event arrives, and
// what arrives twice is the same.
func TestCallbacksSurviveCrashes(t *testing.T) {
	t.Parallel()
	store := aSingleRedis(t)
	for name, step := range map[string]struct {
		match func(*rig) func([]string) bool
		when  redistest.When
	}{
		"taken from the feed, not queued": {func(s *rig) func([]string) bool { return s.scriptOn("ep", "due", "open", "all") }, redistest.Before},
		"queued, not acknowledged": {func(s *rig) func([]string) bool {
			return func(c []string) bool {
				return strings.EqualFold(c[0], "xack") && strings.HasPrefix(c[1], s.prefix+":") && c[2] == "callbacks"
			}
		}, redistest.Before},
		"taken from the queue, not sent": {func(s *rig) func([]string) bool { return s.scriptOn("ep", "due") }, redistest.After},
		"sent, not recorded":             {func(s *rig) func([]string) bool { return s.scriptOn("ep", "due", "open", "d:") }, redistest.Before},
		"recorded, not known":            {func(s *rig) func([]string) bool { return s.scriptOn("ep", "due", "open", "d:") }, redistest.After},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newRig(t, store, func(o *rigOptions) {
				o.Env["CALLBACKS_ALLOW_PRIVATE"], o.Env["CALLBACKS_TIMEOUT"] = "true", "1s"
			})
			r := newListeningSystem(t, nil)
			first := s.startGateway()
			var e struct {
				ID string `json:"id"`
			}
			s.must(s.api(http.MethodPost, "/callback-endpoints", nil, map[string]any{"url": r.url, "events": []string{"payment_request.created", "payment_request.extended"}}, &e))
			held := s.store.hold(step.match(s), step.when)
			id, err := s.ask(asked{Order: "1", Phone: demoCustomer, Channel: "sms", Amount: "10.00"})
			s.must(err)
			s.must(held.Wait(t.Context()))
			first.kill()
			held.Drop()
			s.startGateway()
			s.must(s.api(http.MethodPost, "/payment-requests/"+id+"/extend", nil, nil, nil))
			s.await("every event has arrived and is recorded", func() bool {
				var list struct {
					Items []struct {
						State string `json:"state"`
					} `json:"items"`
				}
				s.must(s.api(http.MethodGet, "/callback-endpoints/"+e.ID+"/deliveries", nil, nil, &list))
				return len(list.Items) == 2 && list.Items[0].State == "delivered" && list.Items[1].State == "delivered"
			})
			got := r.received()
			if len(got) != 2 || len(got["evt_"+id+"_1"]) == 0 {
				t.Errorf("received %v", got)
			}
			for id, bodies := range got {
				for _, again := range bodies[1:] {
					if withoutNow(t, again) != withoutNow(t, bodies[0]) {
						t.Errorf("%s came with another content:\n%s\n%s", id, bodies[0], again)
					}
				}
			}
		})
	}
}
