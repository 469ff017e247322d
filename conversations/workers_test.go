package conversations

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"paythread/conversations/redistest"
)

// workerFunc is a Worker.
type workerFunc func(context.Context, OutboxEntry, Delivery) error

func (f workerFunc) Work(ctx context.Context, e OutboxEntry, d Delivery) error { return f(ctx, e, d) }

var quiet = slog.New(slog.DiscardHandler)

// reading runs an outbox reader until the returned function is called.
func reading(t *testing.T, s *Store, consumer string, idle time.Duration, w Worker, change func(*OutboxReader)) (stop func()) {
	t.Helper()
	reader := &OutboxReader{Store: s, Worker: w, Consumer: consumer, Workers: 4, ClaimIdle: idle, Log: quiet, MaxDeliveries: 3}
	if change != nil {
		change(reader)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = reader.Run(ctx) // it only ends with ctx
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

// sender is a worker that sends messages as a dispatcher does.
type sender struct {
	s    *Store
	mu   sync.Mutex
	out  map[Channel]int // now
	sent []string
	bad  []string
}

func (w *sender) Work(ctx context.Context, e OutboxEntry, d Delivery) error {
	a, err := w.s.Apply(ctx, e.ContactID, SendingStarted{MessageID: e.MessageID, EntryID: d.EntryID}, Once{})
	if err != nil || a.Outbound == nil {
		return err
	}
	w.mu.Lock()
	if w.out[a.Outbound.Channel]++; w.out[a.Outbound.Channel] > 1 {
		w.bad = append(w.bad, "two messages of one lane are out at once")
	}
	w.sent = append(w.sent, a.Outbound.Text)
	w.out[a.Outbound.Channel]--
	w.mu.Unlock()
	_, err = w.s.Apply(ctx, e.ContactID, MessageAnswered{MessageID: e.MessageID, EntryID: d.EntryID, Sent: Sent{ProviderID: e.MessageID}}, Once{})
	return err
}

func (w *sender) texts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sent)
}

// TestOutboxKeepsOrder: two processes work one lane, one message at a time.
func TestOutboxKeepsOrder(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			s := open(t, o)
			r := made(t, s, asked("1", "0821234567"))
			w := &sender{s: s, out: map[Channel]int{}}
			want := []string{""}
			for i := range 15 {
				text := fmt.Sprint("message ", i)
				want = append(want, text)
				if err := s.Receive(t.Context(), "acme", Inbound{Kind: InboundOther, SenderID: "acme-wa", ProviderID: text, At: s.Now(), Addresses: []Address{{AddressPhone, "27821234567"}}}); err != nil {
					t.Fatal(err)
				}
				did(t, s, r.ContactID, AgentWrote{MessageID: fmt.Sprintf("m_%cagent%d", r.ContactID[2], i), Channel: WhatsApp, Text: text})
			}
			reading(t, s, "a", time.Hour, w, nil)
			reading(t, open(t, o), "b", time.Hour, w, nil)
			awaitFor(t, "all messages are sent", func() bool { return len(w.texts()) == len(want) })
			got := w.texts()
			if !slices.Equal(got[1:], want[1:]) || len(w.bad) > 0 {
				t.Errorf("sent %q, %v", got, w.bad)
			}
			awaitFor(t, "the outbox is empty", func() bool {
				depth, _, err := s.OutboxDepth(t.Context())
				return err == nil && depth == 0
			})
		})
	}
}

// TestOutboxIsReclaimed: a worker that fails, and one that dies with its
// reader, lose nothing; a living one keeps its claim however long it takes.
func TestOutboxIsReclaimed(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			s := open(t, o)
			made(t, s, asked("1", "0821234567"))
			failed := make(chan struct{}, 100)
			stop := reading(t, s, "dies", time.Hour, workerFunc(func(context.Context, OutboxEntry, Delivery) error {
				failed <- struct{}{}
				return errors.New("no")
			}), nil)
			<-failed
			stop()

			begun, end := make(chan Delivery, 100), make(chan struct{})
			reading(t, s, "slow", 100*time.Millisecond, workerFunc(func(_ context.Context, _ OutboxEntry, d Delivery) error {
				begun <- d
				<-end
				return nil
			}), nil)
			d := <-begun
			if !d.Claimed || d.Times < 2 {
				t.Errorf("delivered %+v, want claimed", d)
			}
			// While it works, its claim grows young again and again.
			before := time.Duration(0)
			awaitFor(t, "the claim is renewed", func() bool {
				for p := range 4 {
					pending, _ := s.rdb.XPendingExt(t.Context(), &redis.XPendingExtArgs{Stream: s.keys.outbox(p), Group: outboxGroup, Start: "-", End: "+", Count: 1}).Result()
					for _, e := range pending {
						renewed := e.Idle < before && e.Consumer == "slow"
						before = e.Idle
						return renewed
					}
				}
				return false
			})
			close(end)
		})
	}
}

// TestPoisonIsParked, listed, retried and dropped; a dropped message has failed
// and the next of its lane goes out.
func TestPoisonIsParked(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, options(t))
			r := made(t, s, asked("1", "0821234567"))
			did(t, s, r.ContactID, Resent{RequestID: r.ID})
			p, _ := partitionOf(r.ContactID, contactPrefix, 4)
			if err := s.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: s.keys.outbox(p), Values: []any{"o", "not json"}}).Err(); err != nil {
				t.Fatal(err)
			}
			stop := reading(t, s, "a", time.Hour, workerFunc(func(context.Context, OutboxEntry, Delivery) error {
				return fmt.Errorf("bad: %w", ErrPoison)
			}), nil)
			var dead []DeadLetter
			awaitFor(t, "both are parked", func() bool {
				dead, _, _ = s.DeadLetters(t.Context(), "", "", 10)
				return len(dead) == 2
			})
			stop()
			if depth, _, err := s.OutboxDepth(t.Context()); depth != 0 || err != nil {
				t.Errorf("%d entries are left, %v", depth, err)
			}
			i := slices.IndexFunc(dead, func(d DeadLetter) bool { return d.Entry.MessageID == r.Messages[0] })
			if i < 0 {
				t.Fatalf("dead letters %+v", dead)
			}
			if err := s.RetryDead(t.Context(), "", dead[i].ID, Once{}); err != nil {
				t.Fatal(err)
			}
			if err := s.DropDead(t.Context(), "", dead[i].ID, Once{}); CodeOf(err) != CodeNotFound {
				t.Errorf("dropping what was retried: %v", err)
			}
			stop = reading(t, s, "a", time.Hour, workerFunc(func(context.Context, OutboxEntry, Delivery) error { return ErrPoison }), nil)
			awaitFor(t, "it is parked again", func() bool {
				dead, _, _ = s.DeadLetters(t.Context(), "", "", 10)
				return len(dead) == 2
			})
			stop()
			for _, d := range dead {
				if err := s.DropDead(t.Context(), "", d.ID, Once{}); err != nil {
					t.Fatal(err)
				}
			}
			messages, err := s.Messages(t.Context(), r.ContactID, r.Messages)
			if err != nil || len(messages) != 1 || messages[0].Status != DeliveryFailed {
				t.Errorf("the dropped message: %+v, %v", messages, err)
			}
			w := &sender{s: s, out: map[Channel]int{}}
			reading(t, s, "b", time.Hour, w, nil)
			awaitFor(t, "the next of the lane is sent", func() bool { return len(w.texts()) == 1 })
		})
	}
}

// TestOutboxGroupIsMadeAnew after a flush.
func TestOutboxGroupIsMadeAnew(t *testing.T) {
	t.Parallel()
	s := open(t, serverOptions(t))
	got := make(chan struct{}, 10)
	reading(t, s, "a", time.Hour, workerFunc(func(context.Context, OutboxEntry, Delivery) error { got <- struct{}{}; return nil }), nil)
	for p := range 4 {
		if err := s.rdb.Del(t.Context(), s.keys.outbox(p)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	made(t, s, asked("1", "0821234567"))
	<-got
}

// TestTimers: two runners, a timer that was moved, one popped twice, one that
// cannot be read: the window ends once.
func TestTimers(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			now := &clock{at: time.Now()}
			o.Now = now.read
			s := open(t, o)
			r := made(t, s, asked("1", "0821234567"))
			now.add(50 * time.Minute)
			did(t, s, r.ContactID, Extended{RequestID: r.ID})
			p, _ := partitionOf(r.ContactID, contactPrefix, 4)
			window := Timer{Kind: TimerWindow, ContactID: r.ContactID, ID: r.ID}
			if at := s.rdb.ZScore(t.Context(), s.keys.timers(p), window.member()).Val(); at < float64(now.read().Add(59*time.Minute).UnixMilli()) {
				t.Errorf("the timer was not moved")
			}
			now.add(30 * time.Minute)
			if a, err := s.Apply(t.Context(), r.ContactID, TimerFired{window}, Once{}); err != nil || a.Refused != nil {
				t.Errorf("an early timer: %+v, %v", a, err)
			}
			foreign := Timer{Kind: TimerWindow, ContactID: "c_zzz", ID: "x"}
			for _, member := range []string{"nonsense", foreign.member(), "window/" + r.ContactID + "/x/1"} {
				if err := s.rdb.ZAdd(t.Context(), s.keys.timers(p), redis.Z{Score: 1, Member: member}).Err(); err != nil {
					t.Fatal(err)
				}
			}
			now.add(31 * time.Minute)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() { _ = (&TimerRunner{Store: s, Every: 5 * time.Millisecond, Log: quiet}).Run(ctx) })
			}
			awaitFor(t, "no timer is left", func() bool {
				return s.rdb.ZCard(t.Context(), s.keys.timers(p)).Val() == 0
			})
			cancel()
			wg.Wait()
			did(t, s, r.ContactID, TimerFired{window})
			events, err := s.Events(t.Context(), r.ID, 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			var types []string
			for _, e := range events {
				types = append(types, e.Type)
			}
			if !slices.Equal(types, []string{"created", "extended", "expired"}) {
				t.Errorf("events %v", types)
			}
		})
	}
}

// TestFeedReplays over all partitions, from every cursor that was handed out.
func TestFeedReplays(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, options(t))
			start, err := s.FeedEnd(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			cursors := []Cursor{start}
			for i := range 10 {
				made(t, s, asked(strconv.Itoa(i), fmt.Sprintf("08212345%02d", i)))
				end, err := s.FeedEnd(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				cursors = append(cursors, end)
			}
			for i, c := range cursors {
				if i == 0 {
					continue // of an empty feed: it cannot tell what was lost
				}
				parsed, err := s.ParseCursor(c.String())
				if err != nil || !slices.Equal(parsed, c) {
					t.Fatalf("cursor %d: %v, %v", i, parsed, err)
				}
				events, to, reset, err := s.ReplayFeed(t.Context(), "acme", parsed)
				if err != nil || reset || len(events) != 10-i || !slices.Equal(to, cursors[10]) {
					t.Errorf("after %d: %d events, reset %v, %v", i, len(events), reset, err)
				}
				if others, _, _, err := s.ReplayFeed(t.Context(), "other", parsed); err != nil || len(others) != 0 {
					t.Errorf("another merchant sees %d events, %v", len(others), err)
				}
			}
			beyond := slices.Clone(cursors[10])
			for p := range beyond {
				if beyond[p].Ms == beyond.newest() {
					beyond[p].Ms += 1000
					break
				}
			}
			if _, to, reset, err := s.ReplayFeed(t.Context(), "acme", beyond); err != nil || !reset || !slices.Equal(to, cursors[10]) {
				t.Errorf("beyond the end: reset %v, %v", reset, err)
			}
		})
	}
}

// TestFeedAfterLongIdleness: a partition that was quiet for days is no reason
// for a reset, one that was trimmed is.
func TestFeedAfterLongIdleness(t *testing.T) {
	t.Parallel()
	s := open(t, serverOptions(t))
	now := s.Now().UnixMilli()
	add := func(p int, at int64) {
		t.Helper()
		if err := s.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: s.keys.feed(p), ID: fmt.Sprintf("%d-0", at), Values: []any{"m", "acme", "r", "x", "e", "{}"}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	day := int64(24 * time.Hour / time.Millisecond)
	add(0, now-9*day)
	add(1, now-1000)
	end, err := s.FeedEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := s.ParseCursor(end.String())
	if err != nil {
		t.Fatal(err)
	}
	if parsed.Beyond(end) {
		t.Error("a rounded place counts as beyond the end")
	}
	if events, _, reset, err := s.ReplayFeed(t.Context(), "acme", parsed); err != nil || reset || len(events) != 0 {
		t.Errorf("resumed with %d events, reset %v, %v", len(events), reset, err)
	}
	add(0, now)
	if events, _, reset, err := s.ReplayFeed(t.Context(), "acme", parsed); err != nil || reset || len(events) != 1 {
		t.Errorf("after an event: %d, reset %v, %v", len(events), reset, err)
	}
	old := Cursor{{Ms: now - 8*day}, {Ms: now - 8*day}, {}, {}}
	if _, _, reset, err := s.ReplayFeed(t.Context(), "acme", old); err != nil || !reset {
		t.Errorf("a cursor older than what is kept: reset %v, %v", reset, err)
	}
}

func TestCursorTextIsShort(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{16, 32} {
		now := time.Now().UnixMilli()
		c := make(Cursor, partitions)
		for p := range c {
			c[p] = StreamID{Ms: now - int64(p)*int64(2*time.Hour/time.Millisecond), Seq: 127}
		}
		if n := len(c.String()); n > 250 {
			t.Errorf("%d partitions: %d characters", partitions, n)
		}
	}
}

// TestFeedHasNoGapAcrossARestart: the reader hands on every event, once and in
// order, although its Redis is killed in between.
func TestFeedHasNoGapAcrossARestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := ownOptions(Options{Addresses: []string{server.Addr}})
	s := open(t, o)
	var mu sync.Mutex
	var got []string
	ready := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	reader := &FeedReader{Store: s, Log: quiet, Restarted: func() { t.Error("the feed is said to have gone back") }, Handle: func(entries []FeedEntry) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range entries {
			got = append(got, e.Event.RequestID)
		}
	}}
	go func() {
		defer close(done)
		_ = reader.Run(ctx, func(Cursor) { close(ready) }) // it only ends with ctx
	}()
	<-ready
	var want []string
	for i := range 6 {
		if i == 3 {
			server.Kill()
			server.Restart()
		}
		awaitFor(t, "a request is made", func() bool {
			r, err := s.Create(t.Context(), asked(strconv.Itoa(i), fmt.Sprintf("08212345%02d", i)))
			if err == nil {
				want = append(want, r.ID)
			}
			return err == nil
		})
	}
	awaitFor(t, "all events are handed on", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) >= len(want)
	})
	cancel()
	<-done
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("handed on %v, made %v", got, want)
	}
}
