package conversations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// busy is a worker that sends messages as a dispatcher does, but for those of
// senders that it is told to hold up.
type busy struct {
	s    *Store
	hold map[string]chan struct{} // by sender; a message waits for it to be closed

	mu     sync.Mutex
	now    map[string]int // being worked, by sender
	most   map[string]int
	sent   map[string]int // by message
	others int
}

func newBusy(s *Store, hold ...string) *busy {
	w := &busy{s: s, hold: map[string]chan struct{}{}, now: map[string]int{}, most: map[string]int{}, sent: map[string]int{}}
	for _, id := range hold {
		w.hold[id] = make(chan struct{})
	}
	return w
}

func (w *busy) Work(ctx context.Context, e OutboxEntry, d Delivery) error {
	if e.Kind != OutboxMessage {
		w.mu.Lock()
		w.others++
		w.mu.Unlock()
		_, err := w.s.Apply(ctx, e.ContactID, HolderTold{RequestID: e.RequestID, EntryID: d.EntryID}, Once{})
		return err
	}
	w.mu.Lock()
	w.now[e.SenderID]++
	w.most[e.SenderID] = max(w.most[e.SenderID], w.now[e.SenderID])
	w.mu.Unlock()
	defer func() { w.mu.Lock(); w.now[e.SenderID]--; w.mu.Unlock() }()
	if hold, ok := w.hold[e.SenderID]; ok {
		<-hold
	}
	a, err := w.s.Apply(ctx, e.ContactID, SendingStarted{MessageID: e.MessageID, EntryID: d.EntryID}, Once{})
	if err != nil || a.Outbound == nil {
		return err
	}
	w.mu.Lock()
	w.sent[e.MessageID]++
	w.mu.Unlock()
	_, err = w.s.Apply(ctx, e.ContactID, MessageAnswered{MessageID: e.MessageID, EntryID: d.EntryID, Sent: Sent{ProviderID: e.MessageID}}, Once{})
	return err
}

func (w *busy) sentOf(ids []string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, id := range ids {
		n += min(w.sent[id], 1)
	}
	return n
}

// twice returns the messages that were sent more than once.
func (w *busy) twice() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for id, n := range w.sent {
		if n > 1 {
			ids = append(ids, id)
		}
	}
	return ids
}

// asking makes payment requests on a channel, each of a customer of its own,
// and returns their first messages.
func asking(t *testing.T, s *Store, channel Channel, from, n int) []string {
	t.Helper()
	var ids []string
	for i := range n {
		c := asked(fmt.Sprint(channel, "-", from+i), fmt.Sprintf("082%07d", from+i))
		c.Channel = channel
		ids = append(ids, made(t, s, c).Messages[0])
	}
	return ids
}

func runTimers(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = (&TimerRunner{Store: s, Every: 20 * time.Millisecond, Log: quiet}).Run(ctx) // it only ends with ctx
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// TestSlowSenderStarvesNobody: while one sender hangs with more messages than
// its lane holds, the other sender's go out, and other work is done. What did not fit comes back, and is sent once.
func TestSlowSenderStarvesNobody(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, options(t))
			slow := asking(t, s, WhatsApp, 0, 30)
			fast := asking(t, s, SMS, 1000, 30)
			r := made(t, s, asked("held", "0831234567"))
			p, _ := partitionOf(r.ContactID, contactPrefix, 4)
			money := `{"kind":"holder","contact_id":"` + r.ContactID + `","merchant_id":"acme","request_id":"` + r.ID + `"}`
			if err := s.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: s.keys.outbox(p), Values: []any{"o", money}}).Err(); err != nil {
				t.Fatal(err)
			}
			w := newBusy(s, "acme-wa")
			var mu sync.Mutex
			full := 0
			reader := &OutboxReader{}
			reading(t, s, "a", time.Hour, w, func(o *OutboxReader) {
				o.Workers, o.SenderWorkers, o.LaneLength, o.PutOff = 1, 2, 3, 50*time.Millisecond
				o.Full = func(e OutboxEntry) {
					mu.Lock()
					defer mu.Unlock()
					full++
					if e.Kind != OutboxMessage {
						t.Errorf("an entry of kind %s was put off", e.Kind)
					}
				}
				reader = o
			})
			runTimers(t, s)
			awaitFor(t, "the fast sender's messages and the other work are done", func() bool {
				w.mu.Lock()
				others := w.others
				w.mu.Unlock()
				return others == 1 && w.sentOf(fast) == len(fast)
			})
			if n := w.sentOf(slow); n != 0 {
				t.Errorf("%d messages of the sender that hangs were sent", n)
			}
			mu.Lock()
			if full == 0 {
				t.Error("nothing was put off: the lane has no bound")
			}
			mu.Unlock()
			for _, lane := range reader.WorkLanes() {
				if lane.Waiting > 3 || lane.Working > 2 {
					t.Errorf("lane %+v is longer than it may be", lane)
				}
			}
			close(w.hold["acme-wa"])
			awaitFor(t, "all are sent", func() bool { return w.sentOf(slow) == len(slow) })
			if twice := w.twice(); len(twice) > 0 {
				t.Errorf("sent twice: %v", twice)
			}
			awaitFor(t, "the outbox is empty", func() bool {
				depth, _, err := s.OutboxDepth(t.Context())
				return err == nil && depth == 0
			})
		})
	}
}

// TestWaitingEntriesAreGivenBack: what waited in a reader that ends can be
// claimed at once; what it had begun is finished first, and not taken over.
func TestWaitingEntriesAreGivenBack(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, options(t))
			ids := asking(t, s, WhatsApp, 0, 12)
			w := newBusy(s, "acme-wa")
			reader := &OutboxReader{}
			stop := reading(t, s, "ends", time.Hour, w, func(o *OutboxReader) {
				o.SenderWorkers = 2
				reader = o
			})
			awaitFor(t, "all are in the lane", func() bool {
				lanes := reader.WorkLanes()
				return len(lanes) == 1 && lanes[0].Waiting == 10 && lanes[0].Working == 2
			})
			ended := make(chan struct{})
			go func() { defer close(ended); stop() }()
			idle := func() (n int) {
				for p := range 4 {
					found, err := s.rdb.XPendingExt(t.Context(), &redis.XPendingExtArgs{Stream: s.keys.outbox(p), Group: outboxGroup, Idle: time.Hour, Start: "-", End: "+", Count: 100}).Result()
					if err != nil {
						t.Fatal(err)
					}
					n += len(found)
				}
				return n
			}
			awaitFor(t, "what waited is given back", func() bool { return idle() == 10 })
			select {
			case <-ended:
				t.Error("the reader ended before its work")
			default:
			}
			close(w.hold["acme-wa"])
			<-ended
			if n := w.sentOf(ids); n != 2 {
				t.Errorf("%d were sent by the reader that ended, want the 2 that it had begun", n)
			}
			next := newBusy(s)
			reading(t, s, "next", 200*time.Millisecond, next, nil)
			awaitFor(t, "the next reader sends the rest", func() bool { return next.sentOf(ids) == 10 })
		})
	}
}

// TestLanes: the workers of a lane and what waits in it are bounded, and no lane
// takes another's.
func TestLanes(t *testing.T) {
	t.Parallel()
	const length = 3
	var l workLanes
	begun, end := make(chan struct{}, 100), make(chan struct{})
	l.start(2, 1, length, func(taken) { begun <- struct{}{}; <-end })
	waiting := 0
	for _, lane := range []struct {
		kind    OutboxKind
		id      string
		workers int
	}{
		{OutboxMessage, "a", 2}, {OutboxMessage, "b", 2}, {OutboxMessage, "c", 2}, {OutboxInquiry, "a", 1}, {OutboxOperation, "b", 1},
	} {
		put := func() bool {
			fits, _ := l.put(taken{entry: OutboxEntry{Kind: lane.kind, SenderID: lane.id, MerchantID: lane.id}})
			return fits
		}
		for i := range lane.workers {
			if !put() {
				t.Fatalf("lane %+v: entry %d does not fit", lane, i)
			}
			<-begun
		}
		for i := range length {
			waiting++
			if !put() {
				t.Errorf("lane %+v: entry %d does not fit", lane, lane.workers+i)
			}
		}
		if put() {
			t.Errorf("lane %+v is full, and took another", lane)
		}
	}
	for _, d := range l.depths() {
		if d.Waiting != length {
			t.Errorf("in lane %+v, want %d to wait", d, length)
		}
	}
	select {
	case <-begun:
		t.Error("a lane has more workers than it may have")
	default:
	}
	close(end)
	for range waiting {
		<-begun
	}
	l.running.Wait()
	if depths := l.depths(); len(depths) != 0 {
		t.Errorf("left over: %v", depths)
	}
}

// TestDeadLetterPages: every letter once, the oldest first, a merchant's own
// only; settled once, whoever repeats the call.
func TestDeadLetterPages(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, options(t))
			const n = 30
			for i := range n {
				merchant := []string{"acme", "beta", "acme"}[i%3]
				entry := fmt.Sprintf(`{"kind":"inquiry","contact_id":"c_0","merchant_id":%q,"request_id":"%d"}`, merchant, i)
				if i == 7 {
					entry = "not json"
				}
				// Several partitions at one millisecond, so that the order has ties.
				add := &redis.XAddArgs{Stream: s.keys.dead(i % 4), ID: fmt.Sprintf("%d-%d", 1000+i/8, 1+i%8/4), Values: []any{"o", entry, "why", "test", "at", "1000"}}
				if err := s.rdb.XAdd(t.Context(), add).Err(); err != nil {
					t.Fatal(err)
				}
			}
			all := func(merchant string, limit int) (ids, requests []string) {
				t.Helper()
				for cursor := ""; ; {
					page, next, err := s.DeadLetters(t.Context(), merchant, cursor, limit)
					if err != nil || len(page) > limit {
						t.Fatalf("%d letters, %v", len(page), err)
					}
					for _, d := range page {
						ids, requests = append(ids, d.ID), append(requests, d.Entry.RequestID)
					}
					if cursor = next; cursor == "" {
						return ids, requests
					}
				}
			}
			for _, limit := range []int{1, 4, 100} {
				if ids, _ := all("", limit); len(ids) != n || len(slices.Compact(slices.Sorted(slices.Values(ids)))) != n {
					t.Errorf("by %d: %d letters", limit, len(ids))
				}
				if ids, requests := all("beta", limit); len(ids) != n/3-1 || requests[0] != "1" {
					t.Errorf("by %d: beta's are %v", limit, requests)
				}
			}
			if count, err := s.DeadCount(t.Context()); err != nil || count != n {
				t.Errorf("%d are counted, %v", count, err)
			}
			for _, cursor := range []string{"x", "01-1x", "z1-1", "0-"} {
				if _, _, err := s.DeadLetters(t.Context(), "", cursor, 1); CodeOf(err) != CodeInvalid {
					t.Errorf("cursor %q: %v", cursor, err)
				}
			}

			ids, _ := all("acme", 100)
			once := Once{Key: "k", Hash: "h"}
			if err := s.RetryDead(t.Context(), "beta", ids[0], once); CodeOf(err) != CodeNotFound {
				t.Errorf("another merchant retries: %v", err)
			}
			var wg sync.WaitGroup
			var gone, done int
			var mu sync.Mutex
			for range 8 {
				wg.Go(func() {
					err := s.RetryDead(t.Context(), "acme", ids[0], Once{})
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						done++
					case CodeOf(err) == CodeNotFound:
						gone++
					default:
						t.Errorf("retry: %v", err)
					}
				})
			}
			wg.Wait()
			if depth, _, err := s.OutboxDepth(t.Context()); done != 1 || gone != 7 || depth != 1 || err != nil {
				t.Errorf("%d retried, %d found it gone, %d in the outbox, %v", done, gone, depth, err)
			}
			for i := range 3 { // a repeat gets the first answer
				if err := s.DropDead(t.Context(), "acme", ids[1], once); err != nil {
					t.Errorf("drop %d: %v", i, err)
				}
			}
			if err := s.DropDead(t.Context(), "acme", ids[2], Once{Key: "k", Hash: "other"}); CodeOf(err) != CodeInvalid {
				t.Errorf("another call with the same key: %v", err)
			}
			var e *Error
			if err := s.DropDead(t.Context(), "", "nothing", Once{}); !errors.As(err, &e) || e.Code != CodeNotFound {
				t.Errorf("what is no id: %v", err)
			}
		})
	}
}
