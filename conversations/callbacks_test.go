package conversations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// callbackBench is a store with a clock that the test moves.
type callbackBench struct {
	t   *testing.T
	s   *Store
	c   *Callbacks
	now *clock
	o   Options
}

func newCallbackBench(t *testing.T, o Options) *callbackBench {
	t.Helper()
	b := &callbackBench{t: t, now: &clock{at: time.Now()}}
	o.Now = b.now.read
	b.o = o
	b.s = open(t, o)
	b.c = NewCallbacks(b.s, CallbackOptions{Timetable: []time.Duration{0, time.Minute, time.Hour}})
	return b
}

func (b *callbackBench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func input(url string, events ...string) CallbackInput {
	return CallbackInput{URL: &url, Events: &events}
}

func (b *callbackBench) endpoint(events ...string) CallbackEndpoint {
	b.t.Helper()
	e, err := b.c.Create(b.t.Context(), "acme", input("https://erp.example/", events...), Once{})
	b.must(err)
	return b.reread(e)
}

func (b *callbackBench) reread(e CallbackEndpoint) CallbackEndpoint {
	b.t.Helper()
	e, err := b.c.Endpoint(b.t.Context(), e.MerchantID, e.ID)
	b.must(err)
	return e
}

// test queues an event of its own content.
func (b *callbackBench) event(e CallbackEndpoint, id string) CallbackEvent {
	b.t.Helper()
	event := CallbackEvent{ID: id, Type: "callback_endpoint.test", At: b.s.Now(), Body: []byte(`{"type":"callback_endpoint.test"}`)}
	_, err := b.c.Queue(b.t.Context(), e.MerchantID, e.ID, event)
	b.must(err)
	return event
}

func (b *callbackBench) take(e CallbackEndpoint, most int) []Taken {
	b.t.Helper()
	taken, err := b.c.Take(b.t.Context(), e, most, time.Minute)
	b.must(err)
	return taken
}

func (b *callbackBench) takeOne(e CallbackEndpoint) Taken {
	b.t.Helper()
	taken := b.take(e, 5)
	if len(taken) != 1 {
		b.t.Fatalf("%d deliveries are due, want 1", len(taken))
	}
	return taken[0]
}

func (b *callbackBench) record(e CallbackEndpoint, t Taken, r CallbackResult) Recorded {
	b.t.Helper()
	done, err := b.c.Record(b.t.Context(), e, t, r)
	b.must(err)
	return done
}

func (b *callbackBench) delivery(e CallbackEndpoint, id string) CallbackDelivery {
	b.t.Helper()
	all, _, err := b.c.Deliveries(b.t.Context(), e.MerchantID, e.ID, "", "", 100)
	b.must(err)
	for _, d := range all {
		if d.ID == id {
			return d
		}
	}
	b.t.Fatalf("there is no delivery %s among %v", id, all)
	return CallbackDelivery{}
}

// pumping runs a pump until the returned function is called.
func (b *callbackBench) pumping(change func(*CallbackPump)) (stop func()) {
	b.t.Helper()
	p := &CallbackPump{Callbacks: b.c, ClaimIdle: 100 * time.Millisecond, Log: quiet}
	if change != nil {
		change(p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }() // it only ends with ctx
	stop = sync.OnceFunc(func() { cancel(); <-done })
	b.t.Cleanup(stop)
	return stop
}

func (b *callbackBench) ids(e CallbackEndpoint) []string {
	b.t.Helper()
	var ids []string
	for cursor := ""; ; {
		page, next, err := b.c.Deliveries(b.t.Context(), e.MerchantID, e.ID, "", cursor, 3)
		b.must(err)
		for _, d := range page {
			ids = append(ids, d.ID)
		}
		if cursor = next; cursor == "" {
			slices.Sort(ids)
			return ids
		}
	}
}

// TestCallbackPump: every event since an endpoint was made is queued for it
// once, whatever processes take it; older ones, and those that it does not want,
// are not.
func TestCallbackPump(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newCallbackBench(t, options(t))
			old := made(t, b.s, asked("0", "0821234560"))
			b.now.add(time.Minute)
			all, some, none := b.endpoint(), b.endpoint("payment_request.opened"), b.endpoint("callback_endpoint.*")
			b.now.add(time.Millisecond)
			did(t, b.s, old.ContactID, LinkOpened{old.ID})
			var want []string
			for i := range 4 {
				r := made(t, b.s, asked(fmt.Sprint(i+1), fmt.Sprintf("082123456%d", i+1)))
				did(t, b.s, r.ContactID, LinkOpened{r.ID})
				want = append(want, "evt_"+r.ID+"_2")
			}
			want = append(want, "evt_"+old.ID+"_2")
			slices.Sort(want)
			b.pumping(nil)
			second := *b
			second.s = open(t, b.o)
			second.c = NewCallbacks(second.s, CallbackOptions{})
			second.pumping(nil)
			awaitFor(t, "all is queued", func() bool { return len(b.ids(all)) == 9 && len(b.ids(some)) == 5 })
			if got := b.ids(some); !slices.Equal(got, want) {
				t.Errorf("queued %v, want %v", got, want)
			}
			if got := b.ids(none); len(got) != 0 {
				t.Errorf("queued %v where nothing of the kind is wanted", got)
			}
			if slices.Contains(b.ids(all), "evt_"+old.ID+"_1") {
				t.Error("an event is queued that is older than the endpoint")
			}
			d := b.delivery(some, want[0])
			logged, err := b.c.Event(t.Context(), d)
			if err != nil || logged.Type != "opened" || logged.RequestID != d.RequestID || d.Type != "payment_request.opened" || !d.At.Equal(logged.At.Truncate(time.Millisecond)) {
				t.Errorf("delivery %+v is of %+v, %v", d, logged, err)
			}
			awaitFor(t, "everything is acknowledged", func() bool {
				for p := range b.s.o.Partitions {
					pending, err := b.s.rdb.XPending(t.Context(), b.s.keys.feed(p), callbackGroup).Result()
					if err != nil || pending.Count > 0 {
						return false
					}
				}
				return true
			})
		})
	}
}

// TestCallbackPumpTakesOver: what a process took and neither queued nor
// acknowledged is queued by another; what it queued is not queued twice.
func TestCallbackPumpTakesOver(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	e := b.endpoint()
	stop := b.pumping(nil) // makes the groups
	awaitFor(t, "the groups are there", func() bool {
		return b.s.rdb.XPending(t.Context(), b.s.keys.feed(b.s.o.Partitions-1), callbackGroup).Err() == nil
	})
	stop()
	r := made(t, b.s, asked("1", "0821234561"))
	did(t, b.s, r.ContactID, LinkOpened{r.ID})
	p, _ := partitionOf(r.ID, requestPrefix, b.s.o.Partitions)
	taken, err := b.s.rdb.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: callbackGroup, Consumer: "pump", Streams: []string{b.s.keys.feed(p), ">"}, Count: 9}).Result()
	if err != nil || len(taken[0].Messages) != 2 {
		t.Fatalf("took %v, %v", taken, err)
	}
	// The first of the two was queued, and delivered even, before the process died.
	first := requestEvent(b.s.feedEntry(p, taken[0].Messages[0]).Event)
	if n, err := b.c.Queue(t.Context(), "acme", e.ID, first); n != 1 || err != nil {
		t.Fatalf("queued %d, %v", n, err)
	}
	b.record(e, b.takeOne(e), CallbackResult{Delivered: true, Status: 200})
	b.pumping(nil)
	awaitFor(t, "the other is queued", func() bool { return len(b.ids(e)) == 2 })
	awaitFor(t, "both are acknowledged", func() bool {
		pending, err := b.s.rdb.XPending(t.Context(), b.s.keys.feed(p), callbackGroup).Result()
		return err == nil && pending.Count == 0
	})
	if got := b.takeOne(e); got.ID != "evt_"+r.ID+"_2" {
		t.Errorf("due is %s, want only the second event", got.ID)
	}
}

// TestCallbackReset: what the feed cut off before it was taken, and a feed that
// ends before what was taken, are noticed; being idle for long is neither.
func TestCallbackReset(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	b.endpoint()
	r := made(t, b.s, asked("1", "0821234561"))
	p, _ := partitionOf(r.ID, requestPrefix, b.s.o.Partitions)
	feed := b.s.keys.feed(p)
	resets := make(chan string, 100)
	fails := true
	var pump *CallbackPump
	told := func(p *CallbackPump) {
		pump = p
		p.Reset = func(_ context.Context, reason string) error {
			if fails {
				fails = false
				return errors.New("once more")
			}
			resets <- reason
			return nil
		}
	}
	last := func() time.Time {
		at := millisOf(b.s.rdb.Get(t.Context(), b.s.keys.pumped(p)).Val())
		if at == nil {
			return time.Time{}
		}
		return *at
	}
	b.now.add(time.Minute)
	stop := b.pumping(told)
	awaitFor(t, "the feed is read", func() bool { return !last().IsZero() })
	stop()
	// Away for long, and the feed still has what was there before: nothing lost.
	b.now.add(b.s.o.Retention.Feed + time.Hour)
	before := last()
	stop = b.pumping(told)
	awaitFor(t, "the feed is read again", func() bool { return last().After(before) })
	stop()
	if len(resets) > 0 || !fails {
		t.Fatalf("being away for long lost something: %s", <-resets)
	}
	// The same, and the feed was cut meanwhile. The stream's ids are Redis's own
	// time, so the note is moved instead.
	old := b.s.Now().Add(-100 * 24 * time.Hour).UnixMilli()
	b.must(b.s.rdb.Set(t.Context(), b.s.keys.pumped(p), old, 0).Err())
	stop = b.pumping(told)
	if got := <-resets; got != ResetTrimmed {
		t.Errorf("told %s, want %s", got, ResetTrimmed)
	}
	awaitFor(t, "the feed is read again", func() bool { return last().After(before) })
	// A failover that lost the newest entries, together with what the group knew.
	b.must(b.s.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: feed, ID: fmt.Sprint(time.Now().Add(time.Hour).UnixMilli(), "-1"), Values: []any{"m", "nobody", "r", "x", "e", `{"seq":1}`}}).Err())
	awaitFor(t, "it is taken", func() bool { return pump.ends.of(p).Ms > time.Now().UnixMilli() })
	b.must(b.s.rdb.Del(t.Context(), feed).Err())
	b.must(b.s.rdb.XGroupCreateMkStream(t.Context(), feed, callbackGroup, "0").Err())
	if got := <-resets; got != ResetWentBack {
		t.Errorf("told %s, want %s", got, ResetWentBack)
	}
	stop()
	if len(resets) > 0 {
		t.Errorf("told again: %s", <-resets)
	}
}

// TestCallbackNumberTwice: after a failover another event may get a number that
// was told already. It is told, too.
func TestCallbackNumberTwice(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	e := b.endpoint()
	event := requestEvent(LoggedEvent{Seq: 3, Type: "opened", RequestID: "pr_0x", At: b.s.Now(), Lifecycle: Open})
	other := requestEvent(LoggedEvent{Seq: 3, Type: "cancelled", RequestID: "pr_0x", At: b.s.Now(), Lifecycle: Cancelled})
	for range 2 {
		for _, queued := range []CallbackEvent{event, other} {
			_, err := b.c.Queue(t.Context(), "acme", e.ID, queued)
			b.must(err)
		}
	}
	if got := b.ids(e); len(got) != 2 || got[0] != "evt_pr_0x_3" || !strings.HasPrefix(got[1], "evt_pr_0x_3_") {
		t.Errorf("queued %v, want the number twice under two ids", got)
	}
}

// TestCallbackTimetable: tries follow the timetable, an endpoint may ask for
// more, and after the last one the event is given up.
func TestCallbackTimetable(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newCallbackBench(t, options(t))
			e := b.endpoint()
			id := b.event(e, "evt_1").ID
			failed := CallbackResult{Status: 500, Error: "status"}
			near := func(got *time.Time, want time.Duration) {
				t.Helper()
				if got == nil {
					t.Fatal("no further try follows")
				}
				if d := got.Sub(b.s.Now()); d < want*9/10-time.Second || d > want*11/10+time.Second {
					t.Errorf("the next try is in %v, want about %v", d, want)
				}
			}
			done := b.record(e, b.takeOne(e), failed)
			near(done.NextAt, time.Minute)
			if got := b.take(e, 5); len(got) > 0 {
				t.Errorf("due before its time: %v", got)
			}
			b.now.add(2 * time.Minute)
			asked := failed
			asked.Status, asked.RetryAfter = 429, 5*time.Hour
			done = b.record(e, b.takeOne(e), asked)
			near(done.NextAt, 5*time.Hour)
			if d := b.delivery(e, id); d.State != DeliveryRetried || d.Tries != 2 || d.Status != 429 || d.Error != "status" || d.NextAt == nil || !d.NextAt.Equal(*done.NextAt) {
				t.Errorf("delivery %+v", d)
			}
			b.now.add(6 * time.Hour)
			if done = b.record(e, b.takeOne(e), failed); done.State != DeliveryAbandoned || done.NextAt != nil {
				t.Errorf("after the last try %+v", done)
			}
			b.now.add(48 * time.Hour)
			if got := b.take(e, 5); len(got) > 0 {
				t.Errorf("due after it was given up: %v", got)
			}
			depth, err := b.c.Depth(t.Context(), []string{"acme", "nobody"})
			if err != nil || depth.Waiting != 0 || depth.Endpoints[CallbackActive] != 1 || depth.Failing != 1 {
				t.Errorf("depth %+v, %v", depth, err)
			}
			// By somebody's wish all begins anew.
			for range 2 {
				b.must(b.c.Redeliver(t.Context(), "acme", e.ID, id, Once{Key: "k", Hash: "h"}))
			}
			if depth, _ := b.c.Depth(t.Context(), []string{"acme"}); depth.Waiting != 1 || depth.Oldest < 48*time.Hour {
				t.Errorf("depth %+v", depth)
			}
			again := b.takeOne(e)
			if done = b.record(e, again, failed); done.State != DeliveryRetried {
				t.Errorf("redelivered and failed: %+v", done)
			}
			b.now.add(2 * time.Minute)
			b.record(e, b.takeOne(e), CallbackResult{Delivered: true, Status: 204})
			if d := b.delivery(e, id); d.State != DeliveryDone || d.Tries != 5 || d.Error != "" || d.NextAt != nil {
				t.Errorf("delivery %+v", d)
			}
			if e := b.reread(e); e.Failing != nil || e.DeliveredAt == nil {
				t.Errorf("endpoint %+v", e)
			}
			b.must(b.c.Redeliver(t.Context(), "acme", e.ID, id, Once{Key: "k", Hash: "h"}))
			if got := b.take(e, 5); len(got) > 0 {
				t.Error("a repeat of the wish sends once more")
			}
			if err := b.c.Redeliver(t.Context(), "acme", e.ID, "evt_2", Once{}); CodeOf(err) != CodeNotFound {
				t.Errorf("of a delivery that is not there: %v", err)
			}
		})
	}
}

// TestCallbackFirstWait: the timetable says when the first try is, too.
func TestCallbackFirstWait(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	b.c = NewCallbacks(b.s, CallbackOptions{Timetable: []time.Duration{time.Minute, time.Minute}})
	e := b.endpoint()
	b.event(e, "evt_1")
	if got := b.take(e, 5); len(got) > 0 {
		t.Errorf("due at once: %v", got)
	}
	b.now.add(time.Minute)
	b.takeOne(e)
}

// TestCallbackLease: a delivery is one process's until its lease has run out. A
// late failure of the one that had it changes nothing, a late success counts.
func TestCallbackLease(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	e := b.endpoint()
	b.event(e, "evt_1")
	slow := b.takeOne(e)
	if got := b.take(e, 5); len(got) > 0 {
		t.Fatalf("two have it: %v", got)
	}
	b.now.add(2 * time.Minute)
	fast := b.takeOne(e)
	b.record(e, slow, CallbackResult{Status: 500, Error: "status"})
	if d := b.delivery(e, "evt_1"); d.Tries != 0 || d.State != DeliveryPending || !d.NextAt.Equal(fast.Until) {
		t.Errorf("after the late failure %+v", d)
	}
	b.record(e, slow, CallbackResult{Delivered: true, Status: 200})
	if d := b.delivery(e, "evt_1"); d.State != DeliveryDone {
		t.Errorf("after the late success %+v", d)
	}
	b.record(e, fast, CallbackResult{Delivered: true, Status: 200})
	b.now.add(time.Hour)
	if got := b.take(e, 5); len(got) > 0 {
		t.Errorf("due again: %v", got)
	}
}

// TestCallbackEndpointIsSwitchedOff: after days without a success, or at once
// when it is gone. What happens meanwhile waits.
func TestCallbackEndpointIsSwitchedOff(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	e := b.endpoint()
	failed := CallbackResult{Status: 500, Error: "status"}
	look := func() Waiting {
		t.Helper()
		found, err := b.c.Look(t.Context(), []string{"acme"})
		b.must(err)
		return found
	}
	try := func(id string, r CallbackResult) Recorded {
		t.Helper()
		b.event(e, id)
		for _, got := range b.take(e, 50) {
			if got.ID == id {
				return b.record(e, got, r)
			}
		}
		t.Fatalf("%s is not due", id)
		return Recorded{}
	}
	try("evt_1", failed)
	b.now.add(2 * 24 * time.Hour)
	if got := try("evt_2", failed); got.Disabled != "" {
		t.Errorf("after two days: %+v", got)
	}
	try("evt_3", CallbackResult{Delivered: true, Status: 200})
	b.now.add(2 * 24 * time.Hour)
	try("evt_4", failed)
	b.now.add(3*24*time.Hour - time.Minute)
	if got := try("evt_5", failed); got.Disabled != "" {
		t.Errorf("a success between: %+v", got)
	}
	b.now.add(2 * time.Minute)
	if got := try("evt_6", CallbackResult{Error: "event_gone", Hopeless: true}); got.Disabled != "" || got.State != DeliveryAbandoned {
		t.Errorf("what is not its fault: %+v", got)
	}
	if got := try("evt_7", failed); got.Disabled != CallbackFailing {
		t.Errorf("after three days: %+v", got)
	}
	off := b.reread(e)
	if off.State != CallbackDisabled || off.Reason != CallbackFailing {
		t.Errorf("endpoint %+v", off)
	}
	if got := look(); len(got.Due) != 0 || len(got.Fallen) != 1 || got.Fallen[0].ID != e.ID {
		t.Errorf("found %+v", got)
	}
	b.must(b.c.Told(t.Context(), off))
	if got := look(); len(got.Fallen) != 0 {
		t.Errorf("still to be told: %+v", got)
	}
	b.event(e, "evt_8")
	if got := b.take(e, 50); len(got) > 0 {
		t.Errorf("taken although it is off: %v", got)
	}
	b.now.add(time.Hour)
	on, changed, err := b.c.Switch(t.Context(), "acme", e.ID, CallbackActive, Once{})
	if err != nil || !changed || on.State != CallbackActive || on.Failing != nil {
		t.Errorf("switched on: %+v, %v, %v", on, changed, err)
	}
	if got := look(); len(got.Due) != 1 {
		t.Errorf("found %+v", got)
	}
	if got := try("evt_9", CallbackResult{Status: 410, Error: "status", Gone: true}); got.Disabled != CallbackGone {
		t.Errorf("gone: %+v", got)
	}
	b.now.add(2 * time.Minute) // what was taken and not recorded is due again
	if _, _, err := b.c.Switch(t.Context(), "acme", e.ID, CallbackActive, Once{}); err != nil {
		t.Fatal(err)
	}
	if got := b.take(e, 50); !slices.ContainsFunc(got, func(d Taken) bool { return d.ID == "evt_8" }) {
		t.Errorf("what happened meanwhile is not due: %v", got)
	}
	// By the merchant: whoever did it tells of it.
	b.now.add(time.Second)
	if _, _, err := b.c.Switch(t.Context(), "acme", e.ID, CallbackDisabled, Once{}); err != nil {
		t.Fatal(err)
	}
	if got := look(); len(got.Fallen) != 0 || b.reread(e).Reason != CallbackByMerchant {
		t.Errorf("found %+v of %+v", got, b.reread(e))
	}
}

// TestCallbackReplay: of a time, all or what failed; a repeat of the call queues
// nothing twice.
func TestCallbackReplay(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	e := b.endpoint()
	began := b.s.Now()
	const n = replayedAtOnce + 50
	for i := range n {
		b.event(e, fmt.Sprintf("evt_%03d", i))
		b.now.add(time.Second)
	}
	for len(b.take(e, 0)) == 0 {
		taken := b.take(e, 100)
		for i, d := range taken {
			b.record(e, d, CallbackResult{Delivered: i%2 == 0, Hopeless: i%2 == 1, Error: "event_gone"})
		}
		if len(taken) == 0 {
			break
		}
	}
	replay := func(r Replay, once Once, want int) {
		t.Helper()
		done, err := b.c.Replay(t.Context(), "acme", e.ID, r, once)
		if err != nil || done.Deliveries != want || done.Next != nil {
			t.Errorf("replayed %+v, %v, want %d", done, err, want)
		}
	}
	b.now.add(time.Second)
	replay(Replay{Since: began, Until: began.Add(9 * time.Second)}, Once{Key: "a", Hash: "1"}, 10)
	if got := b.take(e, 1000); len(got) != 10 || got[0].ID != "evt_000" {
		t.Errorf("%d are due", len(got))
	}
	b.now.add(time.Second)
	replay(Replay{Since: began, Until: began.Add(9 * time.Second)}, Once{Key: "a", Hash: "1"}, 10)
	if got := b.take(e, 1000); len(got) != 0 {
		t.Errorf("a repeat made %d due", len(got))
	}
	if _, err := b.c.Replay(t.Context(), "acme", e.ID, Replay{Since: began}, Once{Key: "a", Hash: "2"}); CodeOf(err) != CodeInvalid {
		t.Errorf("the key with another input: %v", err)
	}
	replay(Replay{Since: began.Add(10 * time.Second), OnlyFailed: true}, Once{Key: "b"}, (n-10)/2)
	replay(Replay{Since: began.Add(10 * time.Second), OnlyFailed: true}, Once{Key: "b"}, (n-10)/2)
	if got := b.take(e, 1000); len(got) != (n-10)/2 {
		t.Errorf("%d are due, want %d", len(got), (n-10)/2)
	}
	b.now.add(time.Second)
	replay(Replay{Since: began}, Once{}, n)
	if got := b.take(e, 1000); len(got) != n {
		t.Errorf("%d are due, want %d", len(got), n)
	}
}

// TestCallbackEndpointThatMoved: what an endpoint's old address still answers
// says nothing of the new one, which begins anew.
func TestCallbackEndpointThatMoved(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	e := b.endpoint()
	move := func(url string) {
		t.Helper()
		_, err := b.c.Update(t.Context(), "acme", e.ID, CallbackInput{URL: &url}, Once{})
		b.must(err)
	}
	b.event(e, "evt_1")
	old := b.takeOne(e)
	move("https://new.example/")
	if done := b.record(e, old, CallbackResult{Status: 410, Error: "status", Gone: true}); done.Disabled != "" || b.reread(e).State != CallbackActive || b.reread(e).Failing != nil {
		t.Errorf("the old address's 410: %+v of %+v", done, b.reread(e))
	}
	if d := b.delivery(e, "evt_1"); d.State != DeliveryRetried || d.Status != 410 {
		t.Errorf("the delivery is %s after %d", d.State, d.Status)
	}
	b.now.add(2 * time.Minute)
	e = b.reread(e)
	b.record(e, b.takeOne(e), CallbackResult{Status: 500, Error: "status"})
	if b.reread(e).Failing == nil {
		t.Error("its own failure is not counted")
	}
	b.now.add(4 * 24 * time.Hour)
	move("https://newest.example/")
	e = b.reread(e)
	if done := b.record(e, b.takeOne(e), CallbackResult{Status: 503, Error: "status"}); done.Disabled != "" || b.reread(e).State != CallbackActive {
		t.Errorf("switched off by the first try at its new address: %+v", done)
	}
	same := "https://newest.example/"
	failing := *b.reread(e).Failing
	b.now.add(time.Minute)
	move(same)
	if got := b.reread(e).Failing; got == nil || !got.Equal(failing) {
		t.Errorf("it did not move, and fails since %v, not %v", got, failing)
	}
}

// TestCallbackWishesWhenTheClockGoesBack: the store's clock may go back in a
// failover. What is asked for then is no repeat, and is done.
func TestCallbackWishesWhenTheClockGoesBack(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	ctx := t.Context()
	e := b.endpoint()
	b.event(e, "evt_1")
	url := func(u string, once Once) {
		t.Helper()
		_, err := b.c.Update(ctx, "acme", e.ID, CallbackInput{URL: &u}, once)
		b.must(err)
		if got := b.reread(e).URL; got != u {
			t.Errorf("the address is %s, want %s", got, u)
		}
	}
	redeliver := func(once Once, want int) {
		t.Helper()
		b.now.add(time.Millisecond)
		b.must(b.c.Redeliver(ctx, "acme", e.ID, "evt_1", once))
		taken := b.take(e, 5)
		for _, d := range taken {
			b.record(e, d, CallbackResult{Delivered: true})
		}
		if len(taken) != want {
			t.Errorf("%d are due, want %d", len(taken), want)
		}
	}
	for _, once := range []Once{{}, {Key: "back", Hash: "1"}} {
		b.now.add(time.Hour)
		url("https://first.example/", Once{})
		_, _, err := b.c.Switch(ctx, "acme", e.ID, CallbackDisabled, Once{})
		b.must(err)
		b.now.add(-30 * time.Minute)
		url("https://second.example/", Once{Key: once.Key + "u"})
		if got, changed, err := b.c.Switch(ctx, "acme", e.ID, CallbackActive, once); err != nil || !changed || got.State != CallbackActive {
			t.Errorf("switched on: %v, %v, %v", got.State, changed, err)
		}
		b.now.add(time.Hour)
		redeliver(Once{}, 1)
		b.now.add(-30 * time.Minute)
		redeliver(Once{}, 1)
		redeliver(Once{Key: once.Key + "r"}, 1)
		redeliver(Once{Key: "twice" + once.Key}, 1)
		redeliver(Once{Key: "twice" + once.Key}, 0)
		b.now.add(time.Hour)
	}
}

// TestCallbackReplayIsBounded: one call looks at so many deliveries, whether or
// not it queues them, and the next one goes on where it ended, also within one
// millisecond.
func TestCallbackReplayIsBounded(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	e := b.endpoint()
	began := b.s.Now()
	const n = mostReplayed + 2*replayedAtOnce
	var events []CallbackEvent
	for i := range n {
		at := began
		if i >= 3*replayedAtOnce { // before, all at once
			at = began.Add(time.Duration(i) * time.Millisecond)
		}
		events = append(events, CallbackEvent{ID: fmt.Sprintf("evt_%05d", i), Type: "callback_endpoint.test", At: at, Body: []byte("{}")})
	}
	if _, err := b.c.Queue(t.Context(), "acme", e.ID, events...); err != nil {
		t.Fatal(err)
	}
	b.now.add(time.Hour)
	for _, only := range []bool{true, false} {
		r, queued, calls := Replay{Since: began, OnlyFailed: only}, 0, 0
		for more := true; more; calls++ {
			done, err := b.c.Replay(t.Context(), "acme", e.ID, r, Once{})
			b.must(err)
			queued += done.Deliveries
			if more = done.Next != nil; more {
				r.Since, r.Until = *done.Next, done.Until
			}
		}
		want := n
		if only {
			want = 0
		}
		if calls != 2 || queued < want || queued > want+1 {
			t.Errorf("only those that failed %v: %d calls queued %d, want 2 and %d", only, calls, queued, want)
		}
	}
}

// TestCallbackEndpoints: made once under a key, at most ten, changed one after
// the other, signed with the old secret for a while.
func TestCallbackEndpoints(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newCallbackBench(t, options(t))
			once := Once{Key: "k", Hash: "h"}
			first, err := b.c.Create(t.Context(), "acme", input("https://one.example/"), once)
			b.must(err)
			again, err := b.c.Create(t.Context(), "acme", input("https://one.example/"), once)
			if err != nil || again.ID != first.ID || again.Secrets[0].Value != first.Secrets[0].Value {
				t.Errorf("a repeat made %+v, %v", again, err)
			}
			if _, err := b.c.Create(t.Context(), "acme", input("https://two.example/"), Once{Key: "k", Hash: "other"}); CodeOf(err) != CodeInvalid {
				t.Errorf("the key with another input: %v", err)
			}
			if got := fmt.Sprintf("%v %+v %s", first.Secrets, first, first.Secrets[0]); strings.Contains(got, "whsec_") {
				t.Errorf("a secret is printed: %s", got)
			}
			b.must(b.c.Configure(t.Context(), "acme", []CallbackEndpoint{{ID: "erp", URL: "https://erp.example/"}}))
			var wg sync.WaitGroup
			for range 2 * MaxCallbackEndpoints {
				wg.Go(func() {
					_, err := b.c.Create(t.Context(), "acme", input("https://more.example/"), Once{})
					var refused *Error
					if err != nil && (!errors.As(err, &refused) || refused.Reason != "too_many_endpoints") {
						t.Errorf("create: %v", err)
					}
				})
			}
			wg.Wait()
			all, err := b.c.Endpoints(t.Context(), "acme")
			if err != nil || len(all) != MaxCallbackEndpoints {
				t.Fatalf("%d endpoints, %v", len(all), err)
			}
			if other, err := b.c.Endpoints(t.Context(), "beta"); err != nil || len(other) != 0 {
				t.Errorf("another merchant has %v, %v", other, err)
			}
			if _, err := b.c.Endpoint(t.Context(), "beta", first.ID); CodeOf(err) != CodeNotFound {
				t.Errorf("another merchant reads it: %v", err)
			}

			// Everybody who rotates gets a secret that signs.
			var mu sync.Mutex
			var given []string
			for range 3 {
				wg.Go(func() {
					_, secret, err := b.c.RotateSecret(t.Context(), "acme", first.ID, time.Hour, Once{})
					if err != nil {
						t.Errorf("rotate: %v", err)
					}
					mu.Lock()
					given = append(given, secret)
					mu.Unlock()
				})
			}
			wg.Wait()
			given = append(given, first.Secrets[0].Value)
			signing := b.reread(first).SecretsAt(b.s.Now())
			slices.Sort(given)
			sorted := slices.Sorted(slices.Values(signing))
			if !slices.Equal(sorted, given) {
				t.Errorf("%d secrets sign, want all %d that were given out", len(signing), len(given))
			}
			if _, _, err := b.c.RotateSecret(t.Context(), "acme", first.ID, time.Hour, Once{}); CodeOf(err) != CodeConflict {
				t.Errorf("a fifth secret: %v", err)
			}
			b.now.add(2 * time.Hour)
			if got := b.reread(first).SecretsAt(b.s.Now()); len(got) != 1 || got[0] != signing[0] {
				t.Errorf("later %d secrets sign", len(got))
			}
			for range 2 { // a repeat rotates no further
				_, secret, err := b.c.RotateSecret(t.Context(), "acme", first.ID, time.Hour, Once{Key: "r", Hash: "h"})
				if got := b.reread(first).SecretsAt(b.s.Now()); err != nil || len(got) != 2 || got[0] != secret {
					t.Errorf("%d secrets sign, %v", len(got), err)
				}
			}

			url := "https://moved.example/"
			for _, change := range []func() error{
				func() error {
					_, err := b.c.Update(t.Context(), "acme", "erp", CallbackInput{URL: &url}, Once{})
					return err
				},
				func() error {
					_, _, err := b.c.RotateSecret(t.Context(), "acme", "erp", time.Hour, Once{})
					return err
				},
				func() error { return b.c.Delete(t.Context(), "acme", "erp") },
			} {
				var refused *Error
				if err := change(); !errors.As(err, &refused) || refused.Reason != "configured" {
					t.Errorf("an endpoint of the configuration is changed: %v", err)
				}
			}
			moved, err := b.c.Update(t.Context(), "acme", first.ID, CallbackInput{URL: &url}, Once{})
			if err != nil || moved.URL != url || b.reread(first).URL != url {
				t.Errorf("moved %+v, %v", moved, err)
			}
			b.event(first, "evt_1")
			b.must(b.c.Delete(t.Context(), "acme", first.ID))
			if _, err := b.c.Endpoint(t.Context(), "acme", first.ID); CodeOf(err) != CodeNotFound {
				t.Errorf("deleted: %v", err)
			}
			b.event(first, "evt_2") // queued for nobody
			if left, err := b.s.rdb.Exists(t.Context(), b.s.keys.callback("acme", first.ID, "due")).Result(); err != nil || left != 0 {
				t.Errorf("something is left of it: %v, %v", left, err)
			}
		})
	}
}

// TestCallbackConfigure: the configuration's endpoints come and go with it, and
// one that moved is switched on again.
func TestCallbackConfigure(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	kept := b.endpoint()
	configure := func(list ...CallbackEndpoint) {
		t.Helper()
		b.now.add(time.Second)
		b.must(b.c.Configure(t.Context(), "acme", list))
	}
	a, z := CallbackEndpoint{ID: "a", URL: "https://a.example/"}, CallbackEndpoint{ID: "z", URL: "https://z.example/", Events: []string{"payment_request.paid"}}
	configure(a, z)
	before, err := b.c.Endpoint(t.Context(), "acme", "a")
	b.must(err)
	b.event(before, "evt_1")
	b.record(before, b.takeOne(before), CallbackResult{Status: 410, Gone: true})
	configure(a)
	now, err := b.c.Endpoint(t.Context(), "acme", "a")
	if err != nil || now.State != CallbackDisabled || !now.CreatedAt.Equal(before.CreatedAt) || !now.UpdatedAt.Equal(before.UpdatedAt) {
		t.Errorf("the same again: %+v, %v", now, err)
	}
	if _, err := b.c.Endpoint(t.Context(), "acme", "z"); CodeOf(err) != CodeNotFound {
		t.Errorf("one that was taken out is there: %v", err)
	}
	a.URL = "https://mended.example/"
	configure(a)
	if now, err := b.c.Endpoint(t.Context(), "acme", "a"); err != nil || now.State != CallbackActive || now.URL != a.URL || !now.CreatedAt.Equal(before.CreatedAt) {
		t.Errorf("moved: %+v, %v", now, err)
	}
	configure()
	if all, err := b.c.Endpoints(t.Context(), "acme"); err != nil || len(all) != 1 || all[0].ID != kept.ID {
		t.Errorf("left are %v, %v", all, err)
	}
}

// TestNoteSettings: what changed is named once, by whoever notices first, and
// again if telling of it failed; values are not kept.
func TestNoteSettings(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, serverOptions(t))
	var told [][]string
	versions := map[string]int{}
	fail := false
	note := func(settings map[string]string) error {
		return b.c.NoteSettings(t.Context(), "acme", settings, func(names []string, version string) error {
			told = append(told, names)
			versions[version]++
			if fail {
				return errors.New("not now")
			}
			return nil
		})
	}
	first := map[string]string{"name": "Acme", "api_keys.oms": "a-very-secret-key", "gone": "x"}
	second := map[string]string{"name": "Acme", "api_keys.oms": "another-secret-key", "new": "y"}
	b.must(note(first))
	b.must(note(first))
	if len(told) != 0 {
		t.Errorf("told of %v at the first start", told)
	}
	fail = true
	if note(second) == nil {
		t.Error("a failure to tell is passed over")
	}
	fail = false
	b.must(note(second))
	b.must(note(second))
	want := []string{"api_keys.oms", "gone", "new"}
	if len(told) != 2 || !slices.Equal(told[0], want) || !slices.Equal(told[1], want) || len(versions) != 1 {
		t.Errorf("told of %v in versions %v, want %v, as one", told, versions, want)
	}
	b.must(note(first))
	if len(versions) != 2 {
		t.Errorf("back again is another change: %v", versions)
	}
	kept, err := b.s.rdb.HGetAll(t.Context(), b.s.keys.settings("acme")).Result()
	if text := fmt.Sprint(kept); err != nil || strings.Contains(text, "secret-key") || strings.Contains(text, "Acme") {
		t.Errorf("kept %s, %v", text, err)
	}
}

func TestCallbackWants(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		events []string
		kind   string
		want   bool
	}{
		{nil, "payment_request.paid", true},
		{[]string{"payment_request.paid"}, "payment_request.paid", true},
		{[]string{"payment_request.paid"}, "payment_request.paid_late", false},
		{[]string{"payment_request.opened", "merchant.*"}, "merchant.settings_changed", true},
		{[]string{"payment_request.*"}, "callback_endpoint.created", false},
		{[]string{"*"}, "callback_endpoint.created", true},
		{[]string{"payment_request.paid"}, "reset", true},
	} {
		if got := (CallbackEndpoint{Events: tt.events}).Wants(tt.kind); got != tt.want {
			t.Errorf("%v wants %s: %v, want %v", tt.events, tt.kind, got, tt.want)
		}
	}
}

// callbackKeys writes every kind of key that callbacks have.
func callbackKeys(t *testing.T, s *Store) {
	t.Helper()
	b := &callbackBench{t: t, s: s, c: NewCallbacks(s, CallbackOptions{})}
	b.event(b.endpoint(), "evt_1")
	b.must(b.c.NoteSettings(t.Context(), "acme", map[string]string{"name": "Acme"}, nil))
	stop := b.pumping(nil)
	defer stop()
	awaitFor(t, "the feed was read", func() bool { return s.rdb.Exists(t.Context(), s.keys.pumped(0)).Val() == 1 })
}
