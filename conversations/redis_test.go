package conversations

import (
	"context"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"paythread/conversations/redistest"
)

// prefixes keep the tests that share a server apart.
var prefixes atomic.Int64

// backends are the kinds of Redis that a store must behave the same on. Each
// returns the options of a store of the test's own.
var backends = map[string]func(*testing.T) Options{
	"server": serverOptions,
	"cluster": func(t *testing.T) Options {
		return ownOptions(Options{Addresses: redistest.SharedCluster(t).Addrs(), Cluster: true})
	},
	"embedded": embeddedOptions,
}

func serverOptions(t *testing.T) Options {
	return ownOptions(Options{Addresses: []string{redistest.Shared(t).Addr}})
}

func embeddedOptions(t *testing.T) Options {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return ownOptions(Options{Addresses: []string{m.Addr()}})
}

func ownOptions(o Options) Options {
	o.Prefix = fmt.Sprintf("own%d", prefixes.Add(1))
	o.Partitions = 4
	o.Merchants = []Merchant{aMerchant()}
	return o
}

func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Connect(t.Context(), o)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func asked(order, phone string) CreateRequest {
	return CreateRequest{MerchantID: "acme", Order: anOrder(order), Phone: phone, Channel: WhatsApp}
}

func made(t *testing.T, s *Store, c CreateRequest) *PaymentRequest {
	t.Helper()
	r, err := s.Create(t.Context(), c)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return r
}

func did(t *testing.T, s *Store, contactID string, e Event) Applied {
	t.Helper()
	a, err := s.Apply(t.Context(), contactID, e, Once{})
	if err != nil {
		t.Fatalf("%s: %v", e.Kind(), err)
	}
	return a
}

// calls counts the scripts that a store runs.
type calls struct{ n atomic.Int64 }

func (c *calls) DialHook(next redis.DialHook) redis.DialHook { return next }
func (c *calls) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}
func (c *calls) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

// TestOneChargeAtMost: many presses from two gateways, one right to charge.
func TestOneChargeAtMost(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			stores := []*Store{open(t, o), open(t, o)}
			r := made(t, stores[0], asked("1", "082 123 4567"))
			did(t, stores[0], r.ContactID, LinkOpened{r.ID})
			did(t, stores[1], r.ContactID, LinkOpened{r.ID}) // it remembers, and will be wrong
			presses := 200
			if name == "embedded" {
				presses = 60
			}
			var allowed, refused atomic.Int64
			var wg sync.WaitGroup
			for i := range presses {
				wg.Go(func() {
					a, err := stores[i%2].Apply(t.Context(), r.ContactID, AttemptStarted{RequestID: r.ID, TokenExpiresAt: time.Now().Add(time.Minute)}, Once{})
					switch {
					case err != nil:
						t.Errorf("press: %v", err)
					case a.Refused == nil:
						allowed.Add(1)
					case a.Refused.Reason == "processing":
						refused.Add(1)
					default:
						t.Errorf("refused: %v", a.Refused)
					}
				})
			}
			wg.Wait()
			if allowed.Load() != 1 || refused.Load() != int64(presses-1) {
				t.Errorf("%d allowed, %d refused", allowed.Load(), refused.Load())
			}
			got, err := stores[1].Request(t.Context(), r.ID)
			if err != nil || len(got.Attempts) != 1 {
				t.Errorf("attempts %+v, %v", got.Attempts, err)
			}
		})
	}
}

func TestDedupe(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, options(t))
			r := made(t, s, asked("1", "0821234567"))
			once := Once{Key: "cancel-1", Hash: "a"}
			first, err := s.Apply(t.Context(), r.ContactID, CancelRequested{RequestID: r.ID}, once)
			if err != nil || first.Duplicate || first.Refused != nil {
				t.Fatalf("first: %+v, %v", first, err)
			}
			again, err := s.Apply(t.Context(), r.ContactID, CancelRequested{RequestID: r.ID}, once)
			if err != nil || !again.Duplicate || again.Refused != nil || again.Request.Lifecycle != Cancelled {
				t.Errorf("again: %+v, %v", again, err)
			}
			if _, err := s.Apply(t.Context(), r.ContactID, CancelRequested{RequestID: r.ID}, Once{Key: "cancel-1", Hash: "b"}); err == nil || err.(*Error).Reason != "idempotency_mismatch" {
				t.Errorf("another body: %v", err)
			}
			// A refusal is the first answer too, even when the state has changed.
			resend := Once{Key: "extend-1", Hash: "a"}
			refused, err := s.Apply(t.Context(), r.ContactID, Extended{RequestID: r.ID}, resend)
			if err != nil || refused.Refused == nil {
				t.Fatalf("extending a cancelled one: %+v, %v", refused, err)
			}
			repeat, err := s.Apply(t.Context(), r.ContactID, Extended{RequestID: r.ID}, resend)
			if err != nil || !repeat.Duplicate || repeat.Refused == nil || repeat.Refused.Reason != refused.Refused.Reason {
				t.Errorf("repeat of a refusal: %+v, %v", repeat, err)
			}
		})
	}
}

// TestResentCommit: the answer is lost on the way, go-redis sends the command
// again, and it takes effect once.
func TestResentCommit(t *testing.T) {
	t.Parallel()
	proxy := redistest.NewProxy(t, redistest.Shared(t).Addr)
	o := serverOptions(t)
	o.Addresses = []string{proxy.Addr()}
	s := open(t, o)
	r := made(t, s, asked("1", "0821234567"))
	did(t, s, r.ContactID, LinkOpened{r.ID})
	held := proxy.Hold(redistest.ScriptWith("CancelRequested"), redistest.After)
	done := make(chan Applied, 1)
	go func() {
		a, err := s.Apply(context.Background(), r.ContactID, CancelRequested{RequestID: r.ID}, Once{})
		if err != nil {
			t.Errorf("cancel: %v", err)
		}
		done <- a
	}()
	if err := held.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	held.Drop()
	if a := <-done; a.Refused != nil {
		t.Errorf("the resent command was refused: %v", a.Refused)
	}
	events, err := s.Events(t.Context(), r.ID, 0, 100)
	if err != nil || len(events) != 3 {
		t.Errorf("events %+v, %v", events, err)
	}
}

// TestOneCallAnEvent: an event of a known contact costs one script call, a
// conflict one more, whatever passed before.
func TestOneCallAnEvent(t *testing.T) {
	t.Parallel()
	o := serverOptions(t)
	s, other := open(t, o), open(t, o)
	r := made(t, s, asked("1", "0821234567"))
	count := &calls{}
	s.rdb.AddHook(count)
	cost := func(what string, want int64, f func() error) {
		t.Helper()
		before := count.n.Load()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := count.n.Load() - before; got != want {
			t.Errorf("%s cost %d calls, want %d", what, got, want)
		}
	}
	cost("opening", 1, func() error { did(t, s, r.ContactID, LinkOpened{r.ID}); return nil })
	var correlation string
	cost("sending", 1, func() error {
		correlation = did(t, s, r.ContactID, SendingStarted{MessageID: r.Messages[0], EntryID: "1-1"}).Outbound.Correlation
		return nil
	})
	cost("its answer", 1, func() error {
		did(t, s, r.ContactID, MessageAnswered{MessageID: r.Messages[0], EntryID: "1-1", Sent: Sent{ProviderID: "w1"}})
		return nil
	})
	for i := range 12 {
		cost("a message", 1, func() error {
			return s.Receive(t.Context(), "acme", Inbound{Kind: InboundText, SenderID: "acme-wa", ProviderID: fmt.Sprint("in", i), Text: "pay", At: s.Now(), Addresses: []Address{{AddressPhone, "27821234567"}}})
		})
	}
	for _, status := range []DeliveryStatus{DeliverySent, DeliveryDelivered, DeliveryRead, DeliveryRead} {
		cost("status "+string(status), 1, func() error {
			return s.Receive(t.Context(), "acme", Inbound{Kind: InboundStatus, SenderID: "acme-wa", ProviderID: "w1", Correlation: correlation, Status: status, At: s.Now()})
		})
	}
	cost("a refusal", 1, func() error { did(t, s, r.ContactID, ReceiptViewed{r.ID}); return nil })
	did(t, other, r.ContactID, CustomerExtended{r.ID})
	cost("a conflict", 2, func() error { did(t, s, r.ContactID, CustomerExtended{r.ID}); return nil })
}

// TestStaleMemoryNeverRefuses: what was refused and recorded long ago is asked
// again of Redis before it is refused from memory.
func TestStaleMemoryNeverRefuses(t *testing.T) {
	t.Parallel()
	o := serverOptions(t)
	s, other := open(t, o), open(t, o)
	r := made(t, s, asked("1", "0821234567"))
	for range 2 {
		if a := did(t, s, r.ContactID, CustomerExtended{r.ID}); a.Refused == nil || a.Refused.Reason != "not_opened" {
			t.Fatalf("refused %v", a.Refused)
		}
	}
	did(t, other, r.ContactID, LinkOpened{r.ID})
	if a := did(t, s, r.ContactID, CustomerExtended{r.ID}); a.Refused != nil {
		t.Errorf("refused from memory: %v", a.Refused)
	}
}

func TestCreateIsIdempotent(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, options(t))
			c := asked("1", "0821234567")
			c.Once = Once{Key: "k", Hash: "h"}
			ids := make([]string, 8)
			var wg sync.WaitGroup
			for i := range ids {
				wg.Go(func() {
					r, err := s.Create(t.Context(), c)
					if err != nil {
						t.Errorf("create: %v", err)
						return
					}
					ids[i] = r.ID
				})
			}
			wg.Wait()
			if slices.Sort(ids); ids[0] == "" || ids[0] != ids[len(ids)-1] {
				t.Errorf("one key made %v", slices.Compact(ids))
			}
			other := c
			other.Once.Hash, other.Phone = "other", "0831234567"
			if _, err := s.Create(t.Context(), other); err == nil || err.(*Error).Reason != "idempotency_mismatch" {
				t.Errorf("another body: %v", err)
			}
			if id, err := s.claimed(t.Context(), s.keys.address("acme", Address{AddressPhone, "+27831234567"})); id != "" || err != nil {
				t.Errorf("the refused body claimed an address for %q, %v", id, err)
			}
			// After an opt-out the repeat still gets the first answer.
			r := made(t, s, c)
			if err := s.Receive(t.Context(), "acme", Inbound{Kind: InboundText, SenderID: "acme-wa", ProviderID: "x", Text: "stop", At: s.Now(), Addresses: []Address{{AddressPhone, "27821234567"}}}); err != nil {
				t.Fatal(err)
			}
			if again := made(t, s, c); again.ID != r.ID {
				t.Errorf("the repeat made %s, not %s", again.ID, r.ID)
			}
			if _, err := s.Create(t.Context(), asked("2", "0821234567")); err == nil || err.(*Error).Reason != "opted_out" {
				t.Errorf("a new one: %v", err)
			}
		})
	}
}

// cutAfter lets a number of commands through and then fails all, as a process
// that dies there would see it.
type cutAfter struct {
	calls
	left atomic.Int64
}

func (c *cutAfter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if c.left.Add(-1) < 0 {
			cmd.SetErr(context.Canceled)
			return context.Canceled
		}
		return next(ctx, cmd)
	}
}

// TestCreateSurvivesACrashAnywhere: after a crash behind every single command
// the same key makes the same request, and another key makes one too.
func TestCreateSurvivesACrashAnywhere(t *testing.T) {
	t.Parallel()
	o := serverOptions(t)
	s := open(t, o)
	for steps := int64(0); ; steps++ {
		crashed := open(t, o)
		cut := &cutAfter{}
		cut.left.Store(steps)
		crashed.rdb.AddHook(cut)
		whole := false
		for _, sameKey := range []bool{true, false} {
			cut.left.Store(steps)
			order := fmt.Sprintf("%d-%v", steps, sameKey)
			// The order has ended once before, so that there is a takeover.
			old := made(t, s, asked(order, "0821234567"))
			did(t, s, old.ContactID, CancelRequested{RequestID: old.ID})
			c := asked(order, "0821234567")
			c.Once = Once{Key: "k" + order, Hash: "h"}
			_, err := crashed.Create(t.Context(), c)
			whole = err == nil
			if !sameKey && !whole {
				c.Once.Key = "other" + order
			}
			r, err := s.Create(t.Context(), c)
			if err != nil {
				t.Fatalf("after %d commands, same key %v: %v", steps, sameKey, err)
			}
			if holder, err := s.Holder(t.Context(), "acme", order); holder != r.ID || err != nil || r.Lifecycle != Open {
				t.Fatalf("after %d commands the order is held by %s, %v; made was %s", steps, holder, err, r.ID)
			}
			if before, err := s.Request(t.Context(), old.ID); err != nil || !before.Superseded {
				t.Fatalf("after %d commands the old one is not superseded, %v", steps, err)
			}
			if again, err := s.Create(t.Context(), c); err != nil || again.ID != r.ID {
				t.Fatalf("after %d commands the retry is not stable: %v", steps, err)
			}
		}
		if whole {
			if steps < 5 {
				t.Errorf("a create takes %d commands: nothing was cut", steps)
			}
			return
		}
	}
}

func TestOneLiveRequestForAnOrder(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			stores := []*Store{open(t, o), open(t, o)}
			var mu sync.Mutex
			var ids []string
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					r, err := stores[i%2].Create(t.Context(), asked("1", fmt.Sprintf("08212345%02d", i)))
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						ids = append(ids, r.ID)
					} else if e, ok := err.(*Error); !ok || e.Reason != "order_held" {
						t.Errorf("create: %v", err)
					}
				})
			}
			wg.Wait()
			holder, err := stores[0].Holder(t.Context(), "acme", "1")
			if len(ids) != 1 || ids[0] != holder || err != nil {
				t.Errorf("made %v, held by %s, %v", ids, holder, err)
			}
		})
	}
}

// TestLatePaymentTellsTheHolder: a superseded request is paid late; whoever
// holds the order is cancelled, a holder not yet made never will be, and a
// request that comes after is refused.
func TestLatePaymentTellsTheHolder(t *testing.T) {
	t.Parallel()
	now := &clock{at: time.Now()}
	o := serverOptions(t)
	o.Now = now.read
	s := open(t, o)
	r := made(t, s, asked("1", "0821234567"))
	did(t, s, r.ContactID, LinkOpened{r.ID})
	did(t, s, r.ContactID, AttemptStarted{RequestID: r.ID, TokenExpiresAt: s.Now()})
	did(t, s, r.ContactID, AttemptAnswered{RequestID: r.ID, Attempt: 1, Result: Result{Outcome: OutcomeNotTaken}})
	now.add(time.Hour)
	did(t, s, r.ContactID, TimerFired{Timer{Kind: TimerWindow, ContactID: r.ContactID, ID: r.ID}})
	second := made(t, s, asked("1", "0831234567"))
	a := did(t, s, r.ContactID, AttemptAnswered{RequestID: r.ID, Attempt: 1, Result: Result{Outcome: OutcomeCaptured}})
	if a.Request.Lifecycle != Paid || !a.Request.Superseded {
		t.Fatalf("late money: %s", a.Request.Lifecycle)
	}
	if err := s.TellHolder(t.Context(), OutboxEntry{Kind: OutboxHolder, RequestID: r.ID}, "9-9"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Request(t.Context(), second.ID); err != nil || got.Lifecycle != Cancelled || got.Reason != ReasonAlreadyPaid {
		t.Errorf("the holder is %+v, %v", got, err)
	}
	if _, err := s.Create(t.Context(), asked("1", "0841234567")); err == nil || err.(*Error).Reason != "order_held" {
		t.Errorf("a third request of a paid order: %v", err)
	}
	// A holder that was chosen and not made is tombstoned.
	ghost := randomID(requestPrefix, 0)
	if err := s.rdb.Set(t.Context(), s.keys.order("acme", "1"), ghost+" "+second.ID, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.TellHolder(t.Context(), OutboxEntry{Kind: OutboxHolder, RequestID: r.ID}, "9-9"); err != nil {
		t.Fatal(err)
	}
	if text := s.rdb.Get(t.Context(), s.keys.request(0, ghost)).Val(); text != tombstone {
		t.Errorf("the slow creator would find %q", text)
	}
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) read() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			stores := []*Store{open(t, o), open(t, o)}
			s := stores[0]
			owners := map[string]bool{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					id, err := stores[i%2].Claim(t.Context(), "acme", []Address{{AddressPhone, "+27820000001"}})
					mu.Lock()
					defer mu.Unlock()
					owners[id] = true
					if err != nil {
						t.Errorf("claim: %v", err)
					}
				})
			}
			wg.Wait()
			if len(owners) != 1 {
				t.Errorf("one address has %d owners", len(owners))
			}
			for _, spellings := range [][]string{
				{"+5511987654321", "551187654321", "+55 11 8765-4321"},
				{"+525512345678", "5215512345678"},
				{"+5491123456789", "541123456789"},
			} {
				ids := map[string]bool{}
				for _, number := range spellings {
					id, err := s.Claim(t.Context(), "acme", canonicalAddresses([]Address{{AddressPhone, number}}))
					if err != nil {
						t.Fatal(err)
					}
					ids[id] = true
				}
				if len(ids) != 1 {
					t.Errorf("%v are %d contacts", spellings, len(ids))
				}
			}
			says := func(id string, addresses ...Address) *Contact {
				t.Helper()
				if err := s.Receive(t.Context(), "acme", Inbound{Kind: InboundText, SenderID: "acme-wa", ProviderID: id, Text: "hello", At: s.Now(), Addresses: addresses}); err != nil {
					t.Fatal(err)
				}
				owner, err := s.Claim(t.Context(), "acme", canonicalAddresses(addresses))
				if err != nil {
					t.Fatal(err)
				}
				c, err := s.Contact(t.Context(), owner)
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			user := Address{AddressUser, "ZA.1"}
			alone := says("1", user)
			if got := says("2", user, Address{AddressPhone, "27820000009"}); got.ID != alone.ID || len(got.Addresses) != 2 {
				t.Errorf("a user id that shows its number became %+v", got)
			}
			phone := says("3", Address{AddressPhone, "27820000010"})
			both := says("4", user, Address{AddressPhone, "27820000010"})
			if both.ID != phone.ID || !slices.Contains(both.Linked, user) {
				t.Errorf("two known contacts in one event: %+v", both)
			}
			// A new number takes the old one's place.
			if err := s.Receive(t.Context(), "acme", Inbound{
				Kind: InboundAddress, SenderID: "acme-wa", ProviderID: "5", At: s.Now(),
				Addresses: []Address{{AddressPhone, "27820000011"}}, Previous: Address{AddressPhone, "27820000010"},
			}); err != nil {
				t.Fatal(err)
			}
			moved, err := s.Contact(t.Context(), phone.ID)
			if err != nil || !slices.Equal(moved.Addresses, []Address{{AddressPhone, "+27820000011"}}) {
				t.Errorf("after the move: %+v, %v", moved, err)
			}
		})
	}
}

func TestWrongPartitionCount(t *testing.T) {
	t.Parallel()
	o := serverOptions(t)
	open(t, o)
	o.Partitions = 8
	if _, err := Connect(t.Context(), o); CodeOf(err) != CodeInvalid || !strings.Contains(err.Error(), "4 partitions") {
		t.Errorf("connected with another number: %v", err)
	}
}

func TestWaitReplicas(t *testing.T) {
	t.Parallel()
	o := serverOptions(t)
	s := open(t, o)
	r := made(t, s, asked("1", "0821234567"))
	did(t, s, r.ContactID, LinkOpened{r.ID})
	o.WaitReplicas = 1 // there is none
	strict := open(t, o)
	begun, err := strict.Apply(t.Context(), r.ContactID, AttemptStarted{RequestID: r.ID, TokenExpiresAt: s.Now()}, Once{})
	if err != ErrTooFewReplicas || strict.TooFewReplicas() != 1 {
		t.Errorf("before a charge: %v, counted %d", err, strict.TooFewReplicas())
	}
	if begun.Request == nil || len(begun.Request.Attempts) != 1 {
		t.Fatalf("what was made is not returned: %+v", begun.Request)
	}
	at := begun.Request.Attempts[0].StartedAt
	for _, another := range []AttemptAnswered{{Attempt: 1, StartedAt: at.Add(time.Millisecond)}, {Attempt: 2, StartedAt: at}} {
		another.RequestID, another.Result = r.ID, Result{Outcome: OutcomeNotTaken}
		if a := did(t, s, r.ContactID, another); a.Request != nil {
			t.Errorf("an answer about another attempt was taken: %+v", a.Request.Attempts)
		}
	}
	a, err := strict.Apply(t.Context(), r.ContactID, AttemptAnswered{RequestID: r.ID, Attempt: 1, Result: Result{Outcome: OutcomeCaptured}}, Once{})
	if err != nil || a.Request.Lifecycle != Paid || strict.TooFewReplicas() != 2 {
		t.Errorf("after a charge: %+v, %v, counted %d", a.Request, err, strict.TooFewReplicas())
	}
}

// TestSentinelFailover: with a replica confirmed, money survives the master, and
// what senders share goes on at the new one, which knows none of the scripts.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinel(t)
	o := ownOptions(Options{Addresses: []string{sentinel.Addr}, MasterName: sentinel.MasterName, WaitReplicas: 1})
	s := open(t, o)
	r := made(t, s, asked("1", "0821234567"))
	did(t, s, r.ContactID, LinkOpened{r.ID})
	did(t, s, r.ContactID, AttemptStarted{RequestID: r.ID, TokenExpiresAt: s.Now()})
	did(t, s, r.ContactID, AttemptAnswered{RequestID: r.ID, Attempt: 1, Result: Result{Outcome: OutcomeCaptured}})
	share := func(name string) {
		t.Helper()
		for i, given := range []bool{true, false} {
			wait, err := s.Throttle(t.Context(), name, Every(time.Hour, 1))
			if err != nil || (wait == 0) != given {
				t.Errorf("throttle %s, permission %d: wait %v, %v", name, i, wait, err)
			}
		}
		if err := s.HoldSender(t.Context(), name, Hold{Reason: FailureRate, Until: s.Now().Add(time.Hour)}); err != nil {
			t.Error(err)
		}
		if state, err := s.SenderState(t.Context(), name); err != nil || state.Hold == nil {
			t.Errorf("hold of %s: %+v, %v", name, state.Hold, err)
		}
	}
	share("before")
	sentinel.Master(t).Kill()
	sentinel.Failover(t)
	var got *PaymentRequest
	awaitFor(t, "the new master answers", func() bool {
		var err error
		got, err = s.Request(t.Context(), r.ID)
		return err == nil
	})
	share("after")
	if got.Lifecycle != Paid || s.TooFewReplicas() != 0 {
		t.Errorf("after the failover it is %s", got.Lifecycle)
	}
}

// awaitFor waits until a condition holds.
func awaitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		_ = sleep(t.Context(), 5*time.Millisecond)
	}
}

// TestVersionsOfALostBranch: after a failover that lost a commit, the next one
// is not taken for it.
func TestVersionsOfALostBranch(t *testing.T) {
	t.Parallel()
	o := serverOptions(t)
	s, other := open(t, o), open(t, o)
	r := made(t, s, asked("1", "0821234567"))
	p, _ := partitionOf(r.ContactID, contactPrefix, 4)
	saved := map[string]string{}
	keys := []string{s.keys.contact(p, r.ContactID), s.keys.request(p, r.ID), s.keys.log(p, r.ID)}
	for _, key := range keys {
		saved[key] = s.rdb.Dump(t.Context(), key).Val()
	}
	did(t, s, r.ContactID, CancelRequested{RequestID: r.ID}) // s remembers it; the servers lose it
	for key, dump := range saved {
		if err := s.rdb.RestoreReplace(t.Context(), key, time.Hour, dump).Err(); err != nil {
			t.Fatal(err)
		}
	}
	did(t, other, r.ContactID, LinkOpened{r.ID})
	if a := did(t, s, r.ContactID, CustomerExtended{r.ID}); a.Refused != nil || a.Request.Lifecycle != Open {
		t.Errorf("a lost branch lives on: %v, %s", a.Refused, a.Request.Lifecycle)
	}
}

// TestEveryKeyHasItsLifetime walks all keys after a story: each is in the
// schema, and runs out unless the schema says why not.
func TestEveryKeyHasItsLifetime(t *testing.T) {
	t.Parallel()
	o := serverOptions(t)
	s := open(t, o)
	c := asked("1", "0821234567")
	c.Once = Once{Key: "k", Hash: "h"}
	r := made(t, s, c)
	did(t, s, r.ContactID, LinkOpened{r.ID})
	callbackKeys(t, s)
	unsettledThings(t, s)
	if _, err := s.Seal(t.Context(), SealedOrder{MerchantID: "acme", Order: anOrder("2"), Phone: "0821234567"}, Once{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Receive(t.Context(), "acme", Inbound{Kind: InboundText, SenderID: "acme-wa", ProviderID: "1", Text: "pay", At: s.Now(), Addresses: []Address{{AddressPhone, "27821234567"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Throttle(t.Context(), "meta", Every(time.Second, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.HoldSender(t.Context(), "acme-wa", Hold{Reason: FailureRate, Until: s.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BeginTry(t.Context(), "acme", "digest", someLimits); err != nil {
		t.Fatal(err)
	}
	p, _ := partitionOf(r.ContactID, contactPrefix, 4)
	if err := s.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: s.keys.dead(p), Values: []any{"o", "{}"}}).Err(); err != nil {
		t.Fatal(err)
	}
	names, err := s.rdb.Keys(t.Context(), o.Prefix+":*").Result()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	tag := regexp.MustCompile(`\{[0-9.]+\}`)
	for _, name := range names {
		spelled := tag.ReplaceAllString(strings.TrimPrefix(name, o.Prefix+":"), "{p}")
		i := slices.IndexFunc(schema, func(k schemaKey) bool {
			pattern := "^" + regexp.MustCompile(`<[^>]+>`).ReplaceAllString(regexp.QuoteMeta(k.Key), ".+") + "$"
			return regexp.MustCompile(pattern).MatchString(spelled)
		})
		if i < 0 {
			t.Errorf("key %s is not in the schema", spelled)
			continue
		}
		seen[schema[i].Key] = true
		if kind := s.rdb.Type(t.Context(), name).Val(); kind != schema[i].Type {
			t.Errorf("%s is a %s, the schema says %s", spelled, kind, schema[i].Type)
		}
		forEver := s.rdb.PTTL(t.Context(), name).Val() < 0
		if forEver != strings.HasPrefix(schema[i].Lifetime, "none: ") {
			t.Errorf("%s lives for ever: %v, the schema says %q", spelled, forEver, schema[i].Lifetime)
		}
	}
	for _, k := range schema {
		if !seen[k.Key] {
			t.Errorf("the story wrote no %s", k.Key)
		}
	}
}

func TestThrottleIsShared(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			stores := []*Store{open(t, o), open(t, o)}
			var given, waits atomic.Int64
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					wait, err := stores[i%2].Throttle(t.Context(), "sender", Every(time.Hour, 10))
					switch {
					case err != nil:
						t.Errorf("throttle: %v", err)
					case wait == 0:
						given.Add(1)
					case wait > time.Hour:
						t.Errorf("wait for %v", wait)
					default:
						waits.Add(1)
					}
				})
			}
			wg.Wait()
			if given.Load() != 10 || waits.Load() != 30 {
				t.Errorf("%d permissions of a burst of 10", given.Load())
			}
		})
	}
}

func TestListIsWhole(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			at := time.Now()
			o.Now = func() time.Time { return at } // all within one millisecond
			s := open(t, o)
			want := map[string]bool{}
			for i := range 130 {
				want[made(t, s, asked(fmt.Sprint(i), fmt.Sprintf("0821234%03d", i%3))).ID] = true
			}
			got := map[string]bool{}
			cursor := ""
			for {
				page, next, err := s.Requests(t.Context(), Filter{MerchantID: "acme"}, cursor, 7)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range page {
					if got[r.ID] {
						t.Fatalf("%s is listed twice", r.ID)
					}
					got[r.ID] = true
				}
				if cursor = next; cursor == "" {
					break
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%d of %d are listed", len(got), len(want))
			}
			if page, _, err := s.Requests(t.Context(), Filter{MerchantID: "other"}, "", 7); err != nil || len(page) != 0 {
				t.Errorf("another merchant sees %d, %v", len(page), err)
			}
		})
	}
}

// TestRedisAway: a store whose Redis does not answer says so, and with a code.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o := ownOptions(Options{Addresses: []string{addr}})
	if _, err := Connect(t.Context(), o); CodeOf(err) != CodeUnavailable {
		t.Errorf("connect to nothing: %v", err)
	}
}
