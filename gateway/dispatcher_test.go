package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"paythread/checkout/platforms"
	"paythread/conversations"
	"paythread/conversations/redistest"
	"paythread/gateway/providers"
)

// company is a messaging company whose answers a test decides.
type company struct {
	// answer decides over the n-th call for a message, counted from 1: what is
	// answered, and whether the message is taken all the same.
	answer func(out conversations.Outbound, n int) (took bool, err error)

	mu    sync.Mutex
	calls map[string]int // by message
	taken map[string]int
	texts map[string][]string // that were taken, by contact
}

func newCompany(answer func(out conversations.Outbound, n int) (bool, error)) *company {
	return &company{answer: answer, calls: map[string]int{}, taken: map[string]int{}, texts: map[string][]string{}}
}

// takesAll is the answer of a company in good health.
func takesAll(conversations.Outbound, int) (bool, error) { return true, nil }

func (c *company) Verify(providers.Webhook) error { return nil }

func (c *company) Parse(providers.Webhook) ([]conversations.Inbound, error) { return nil, nil }

func (c *company) Send(_ context.Context, out conversations.Outbound) (conversations.Sent, error) {
	c.mu.Lock()
	c.calls[out.MessageID]++
	n := c.calls[out.MessageID]
	c.mu.Unlock()
	took, err := c.answer(out, n)
	if took {
		c.mu.Lock()
		c.taken[out.MessageID]++
		contact, _, _ := strings.Cut(out.Correlation, ".")
		c.texts[contact] = append(c.texts[contact], out.Text)
		c.mu.Unlock()
	}
	return conversations.Sent{ProviderID: "at-" + out.MessageID}, err
}

// counts returns the calls for a message and how often it was taken.
func (c *company) counts(messageID string) (calls, taken int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[messageID], c.taken[messageID]
}

// total returns the calls for all messages.
func (c *company) total() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, calls := range c.calls {
		n += calls
	}
	return n
}

func (c *company) textsTo(contactID string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.texts[contactID])
}

// dispatchBench is one merchant with a sender of each channel, on a real Redis.
type dispatchBench struct {
	t       *testing.T
	options conversations.Options
	config  DispatcherConfig
	live    map[string]*liveSender
	store   *conversations.Store // of the test itself
	phones  int
}

const waSender, smsSender = "acme-whatsapp", "acme-sms"

func newDispatchBench(t *testing.T, whatsapp, sms providers.Provider) *dispatchBench {
	t.Helper()
	timings := conversations.DefaultTimings()
	timings.EchoWithin = 300 * time.Millisecond
	server := redistest.Shared(t)
	b := &dispatchBench{
		t: t,
		options: conversations.Options{
			Addresses: []string{server.Addr}, Prefix: fmt.Sprintf("dispatch:%s:%d", t.Name(), time.Now().UnixNano()), Partitions: 2, Timings: timings,
			Merchants: []conversations.Merchant{{
				ID: "acme", Name: "Acme Energy", PublicURL: "https://pay.example", Country: "ZA", Locale: "en", TimeToOpen: time.Hour, TimeToPay: time.Hour, MaxAttempts: 5,
				Senders: map[conversations.Channel]string{conversations.WhatsApp: waSender, conversations.SMS: smsSender},
			}},
		},
		config: DispatcherConfig{
			Workers: 8, SenderConcurrency: 4, ClaimIdle: 20 * time.Second, SendTimeout: 10 * time.Second,
			RetryAfter: 10 * time.Millisecond, MaxTries: 8, BreakerFailures: 1000, BreakerOpen: time.Second,
		},
		live: map[string]*liveSender{},
	}
	for id, p := range map[string]providers.Provider{waSender: whatsapp, smsSender: sms} {
		channel := conversations.WhatsApp
		if id == smsSender {
			channel = conversations.SMS
		}
		b.live[id] = &liveSender{SenderConfig: &SenderConfig{ID: id, Provider: "company", Channel: channel}, provider: p}
	}
	b.store = b.connect()
	return b
}

func (b *dispatchBench) connect() *conversations.Store {
	b.t.Helper()
	s, err := conversations.Connect(b.t.Context(), b.options)
	if err != nil {
		b.t.Fatalf("connect: %v", err)
	}
	b.t.Cleanup(func() { _ = s.Close() })
	return s
}

// newTestDispatcher makes a dispatcher for senders that stay as they are.
func newTestDispatcher(store *conversations.Store, live map[string]*liveSender, c DispatcherConfig, log *slog.Logger) *dispatcher {
	senders, metrics := map[string]*outgoing{}, newDispatchMetrics(prometheus.NewRegistry())
	for id, s := range live {
		senders[id] = newOutgoing(s, limitsInForce(s.SenderConfig), store, c, log)
		metrics.knows(id)
	}
	return newDispatcher(store, always(senders), always(map[string]platforms.Platform{}), c, metrics, log)
}

// start runs a process's dispatcher until the test ends. change may alter it
// before it begins.
func (b *dispatchBench) start(name string, change ...func(*dispatcher)) *dispatcher {
	b.t.Helper()
	store, log := b.connect(), slog.New(slog.DiscardHandler)
	d := newTestDispatcher(store, b.live, b.config, log)
	for _, c := range change {
		c(d)
	}
	reader := &conversations.OutboxReader{
		Store: store, Worker: d, Consumer: name, Workers: b.config.Workers, SenderWorkers: b.config.SenderConcurrency, ClaimIdle: b.config.ClaimIdle, Log: log, Full: d.full,
	}
	timers := &conversations.TimerRunner{Store: store, Every: 10 * time.Millisecond, Log: log}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = reader.Run(ctx); d.wait() }) // both only end with ctx
	running.Go(func() { _ = timers.Run(ctx) })
	b.t.Cleanup(func() { cancel(); running.Wait() })
	return d
}

// ask makes payment requests, each of a customer of its own, and returns their
// first messages and the customers.
func (b *dispatchBench) ask(channel conversations.Channel, n int) (messages, contacts []string) {
	b.t.Helper()
	for range n {
		b.phones++
		amount := conversations.Money{Minor: 14900, Currency: "ZAR"}
		r, err := b.store.Create(b.t.Context(), conversations.CreateRequest{
			MerchantID: "acme", Phone: fmt.Sprintf("082%07d", b.phones), Channel: channel,
			Order: conversations.Order{
				Reference: fmt.Sprint(b.phones), Subtotal: amount, Total: amount, Tax: conversations.Money{Currency: "ZAR"},
				Shipping: conversations.Money{Currency: "ZAR"}, Discount: conversations.Money{Currency: "ZAR"},
			},
		})
		if err != nil {
			b.t.Fatalf("ask: %v", err)
		}
		messages, contacts = append(messages, r.Messages[0]), append(contacts, r.ContactID)
	}
	return messages, contacts
}

// write queues texts of an agent to one customer by SMS.
func (b *dispatchBench) write(contactID string, texts ...string) (messages []string) {
	b.t.Helper()
	for i, text := range texts {
		id := fmt.Sprintf("m_%s-%d", contactID[2:], i)
		a, err := b.store.Apply(b.t.Context(), contactID, conversations.AgentWrote{MessageID: id, Channel: conversations.SMS, Text: text}, conversations.Once{})
		if err != nil || a.Refused != nil {
			b.t.Fatalf("write: %v, %v", err, a.Refused)
		}
		messages = append(messages, id)
	}
	return messages
}

func (b *dispatchBench) message(contactID, id string) *conversations.Message {
	b.t.Helper()
	found, err := b.store.Messages(b.t.Context(), contactID, []string{id})
	if err != nil || len(found) != 1 {
		b.t.Fatalf("message %s: %d, %v", id, len(found), err)
	}
	return found[0]
}

func (b *dispatchBench) await(what string, is func() bool) {
	b.t.Helper()
	for limit := time.Now().Add(longestWait); !is(); {
		if time.Now().After(limit) {
			b.t.Fatalf("not within %v: %s", longestWait, what)
		}
		pause := time.NewTimer(10 * time.Millisecond)
		<-pause.C
	}
}

// awaitAll waits until every message is in a status, with a reason.
func (b *dispatchBench) awaitAll(messages, contacts []string, status conversations.DeliveryStatus, reason conversations.FailureReason) {
	b.t.Helper()
	for i, id := range messages {
		var m *conversations.Message
		b.await(fmt.Sprintf("message %d is %s", i, status), func() bool { m = b.message(contacts[i], id); return m.Status == status })
		if m.Reason != reason {
			b.t.Errorf("message %d: reason %q, want %q", i, m.Reason, reason)
		}
	}
}

func (b *dispatchBench) idle() {
	b.t.Helper()
	b.await("the outbox is empty", func() bool {
		depth, _, err := b.store.OutboxDepth(b.t.Context())
		return err == nil && depth == 0
	})
}

func waits(d *dispatcher, sender string, cause waitCause) float64 {
	return testutil.ToFloat64(d.metrics.waits.WithLabelValues(sender, string(cause)))
}

// The faults of a company, as an adapter tells of them.
var (
	tooMany    = &providers.Failure{Reason: conversations.FailureRate, Code: "429", Retryable: true, RetryAfter: 20 * time.Millisecond}
	notReached = &providers.Failure{Reason: conversations.FailureProviderError, Retryable: true}
	noAnswer   = &providers.Failure{Reason: conversations.FailureProviderError, Unknown: true}
)

// TestDispatchThroughFaults: two processes, one sender whose company answers
// with every fault in turn. No message is lost; only one whose outcome nobody
// could know is taken twice. The other sender's go out once, at the first try.
func TestDispatchThroughFaults(t *testing.T) {
	t.Parallel()
	const each = 6
	var b *dispatchBench
	kind := map[string]int{} // of fault, by message
	echo := func(out conversations.Outbound) {
		in := conversations.Inbound{Kind: conversations.InboundStatus, SenderID: out.SenderID, ProviderID: "at-" + out.MessageID, Correlation: out.Correlation, Status: conversations.DeliverySent, At: time.Now()}
		if err := b.store.Receive(context.Background(), "acme", in); err != nil {
			t.Errorf("echo: %v", err)
		}
	}
	faulty := newCompany(func(out conversations.Outbound, n int) (bool, error) {
		switch k := kind[out.MessageID]; {
		case k == 1 && n <= 3:
			return false, tooMany
		case k == 2 && n <= 2:
			return false, notReached
		case k == 3 && n == 1:
			return false, noAnswer // before it took effect
		case k == 4 && n == 1:
			return true, noAnswer // after it took effect, and no echo comes
		case k == 5:
			if n == 1 {
				echo(out)
			}
			return true, noAnswer // after it took effect, and its echo comes
		case k == 6 && n == 1:
			return false, errors.New("an adapter's own mistake")
		}
		return true, nil
	})
	well := newCompany(takesAll)
	b = newDispatchBench(t, faulty, well)
	slow, slowContacts := b.ask(conversations.WhatsApp, 7*each)
	for i, id := range slow {
		kind[id] = i % 7
	}
	fast, fastContacts := b.ask(conversations.SMS, 20)
	b.start("a")
	b.start("b")
	b.awaitAll(fast, fastContacts, conversations.DeliveryAccepted, "")
	for i, id := range fast {
		if calls, taken := well.counts(id); calls != 1 || taken != 1 {
			t.Errorf("message %d of the other sender: %d calls, taken %d times", i, calls, taken)
		}
	}
	for i, id := range slow {
		want := conversations.DeliveryAccepted
		if kind[id] == 5 {
			want = conversations.DeliverySent
		}
		b.awaitAll([]string{id}, slowContacts[i:i+1], want, "")
		most := 1
		if kind[id] == 4 {
			most = 2
		}
		if calls, taken := faulty.counts(id); taken < 1 || taken > most {
			t.Errorf("a message with fault %d: %d calls, taken %d times", kind[id], calls, taken)
		}
	}
	b.idle()
}

// TestDispatchKeepsOrder: to one customer on one channel, whatever fails in
// between and whoever sends.
func TestDispatchKeepsOrder(t *testing.T) {
	t.Parallel()
	well := newCompany(func(out conversations.Outbound, n int) (bool, error) {
		if strings.HasSuffix(out.Text, "3") && n < 3 {
			return false, tooMany
		}
		return true, nil
	})
	b := newDispatchBench(t, newCompany(takesAll), well)
	_, contacts := b.ask(conversations.SMS, 3)
	var want []string
	for i := range 12 {
		want = append(want, fmt.Sprint("text ", i))
	}
	for _, c := range contacts {
		b.write(c, want...)
	}
	b.start("a")
	b.start("b")
	for _, c := range contacts {
		b.await("all texts are sent", func() bool { return len(well.textsTo(c)) == 13 })
		if got := well.textsTo(c)[1:]; !slices.Equal(got, want) {
			t.Errorf("sent %q", got)
		}
	}
}

// TestSharedLimits: the sender's limit and that of messages to one customer hold
// over two processes. What is too much is put off and stays in line.
func TestSharedLimits(t *testing.T) {
	t.Parallel()
	t.Run("sender", func(t *testing.T) {
		t.Parallel()
		wa := newCompany(takesAll)
		b := newDispatchBench(t, wa, newCompany(takesAll))
		messages, contacts := b.ask(conversations.WhatsApp, 20)
		limit := conversations.Every(time.Hour, 5)
		limited := func(d *dispatcher) { d.senders()[waSender].limit = &limit }
		a, o := b.start("a", limited), b.start("b", limited)
		b.await("the rest is put off", func() bool { return waits(a, waSender, waitThrottle)+waits(o, waSender, waitThrottle) == 15 })
		if n := wa.total(); n != 5 {
			t.Errorf("%d were sent, the limit is 5", n)
		}
		b.idle()
		due := 0
		for i, id := range messages {
			if m := b.message(contacts[i], id); m.Status == conversations.DeliveryQueued && m.DueAt != nil && m.Tries == 0 {
				due++
			}
		}
		if due != 15 {
			t.Errorf("%d wait for their time, want 15", due)
		}
	})
	t.Run("pair", func(t *testing.T) {
		t.Parallel()
		sms := newCompany(takesAll)
		b := newDispatchBench(t, newCompany(takesAll), sms)
		_, contacts := b.ask(conversations.SMS, 2)
		b.write(contacts[0], "1", "2", "3", "4")
		pair := conversations.Every(time.Hour, 3)
		limited := func(d *dispatcher) { d.senders()[smsSender].pair = &pair }
		a, o := b.start("a", limited), b.start("b", limited)
		b.await("the fourth is put off", func() bool { return waits(a, smsSender, waitPair)+waits(o, smsSender, waitPair) == 1 })
		b.await("the other customer has theirs", func() bool { return len(sms.textsTo(contacts[1])) == 1 })
		if got := sms.textsTo(contacts[0]); len(got) != 3 || got[2] != "2" {
			t.Errorf("sent %q, want three in their order", got)
		}
	})
	t.Run("waits its turn", func(t *testing.T) {
		t.Parallel()
		wa := newCompany(takesAll)
		b := newDispatchBench(t, wa, newCompany(takesAll))
		messages, contacts := b.ask(conversations.WhatsApp, 6)
		limit := conversations.Every(50*time.Millisecond, 1)
		d := b.start("a", func(d *dispatcher) { d.senders()[waSender].limit = &limit })
		b.awaitAll(messages, contacts, conversations.DeliveryAccepted, "")
		if waits(d, waSender, waitTurn) == 0 || waits(d, waSender, waitThrottle) != 0 {
			t.Error("short waits are waited for in the lane")
		}
	})
}

// TestSenderIsHeld: what one process hears of a sender holds for the other one.
func TestSenderIsHeld(t *testing.T) {
	t.Parallel()
	t.Run("waits", func(t *testing.T) {
		t.Parallel()
		wa := newCompany(func(_ conversations.Outbound, n int) (bool, error) {
			return false, &providers.Failure{Reason: conversations.FailureRate, Code: "80007", Retryable: true, RetryAfter: time.Hour, Scope: providers.ScopeSender}
		})
		b := newDispatchBench(t, wa, newCompany(takesAll))
		first, firstContacts := b.ask(conversations.WhatsApp, 1)
		a := b.start("a")
		b.await("the first is to be tried again", func() bool { return b.message(firstContacts[0], first[0]).DueAt != nil })
		_, contacts := b.ask(conversations.WhatsApp, 10)
		o := b.start("b")
		b.await("the others are put off", func() bool {
			return waits(a, waSender, waitHold)+waits(o, waSender, waitHold) == float64(len(contacts))
		})
		if n := wa.total(); n != 1 {
			t.Errorf("%d calls, want the first only", n)
		}
		if n := testutil.ToFloat64(a.metrics.holds.WithLabelValues(waSender, "rate")); n != 1 {
			t.Errorf("%v holds are counted", n)
		}
		registry := prometheus.NewRegistry()
		registry.MustRegister(newSenderCollector(o.senders, func() []conversations.WorkLane { return nil }))
		gathered, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		held := false
		for _, f := range gathered {
			for _, m := range f.GetMetric() {
				if f.GetName() == "paythread_sender_hold_seconds" && m.GetLabel()[0].GetValue() == waSender {
					held = m.GetGauge().GetValue() > 3500
				}
			}
		}
		if !held {
			t.Error("the metric does not show the hold")
		}
	})
	t.Run("fails", func(t *testing.T) {
		t.Parallel()
		wa := newCompany(func(conversations.Outbound, int) (bool, error) {
			return false, &providers.Failure{Reason: conversations.FailureAuth, Code: "190"}
		})
		b := newDispatchBench(t, wa, newCompany(takesAll))
		first, firstContacts := b.ask(conversations.WhatsApp, 1)
		b.start("a")
		b.awaitAll(first, firstContacts, conversations.DeliveryFailed, conversations.FailureAuth)
		b.start("b")
		messages, contacts := b.ask(conversations.WhatsApp, 10)
		b.awaitAll(messages, contacts, conversations.DeliveryFailed, conversations.FailureAuth)
		for i, id := range messages {
			if calls, _ := wa.counts(id); calls != 0 || b.message(contacts[i], id).ErrorCode != "190" {
				t.Errorf("message %d: %d calls, code %q", i, calls, b.message(contacts[i], id).ErrorCode)
			}
		}
	})
	t.Run("an entry of before", func(t *testing.T) {
		t.Parallel()
		wa := newCompany(takesAll)
		b := newDispatchBench(t, wa, newCompany(takesAll))
		messages, contacts := b.ask(conversations.WhatsApp, 1)
		b.forgetSenders()
		if err := b.store.HoldSender(t.Context(), waSender, conversations.Hold{Reason: conversations.FailureRate, Until: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		b.start("a")
		b.await("it is put off", func() bool { return b.message(contacts[0], messages[0]).DueAt != nil })
		if wa.total() != 0 {
			t.Error("it was sent past the hold")
		}
	})
}

// forgetSenders makes the entries in the outbox those of a version that did not
// name their sender.
func (b *dispatchBench) forgetSenders() {
	b.t.Helper()
	client := redistest.Shared(b.t).Client(b.t)
	streams, err := client.Keys(b.t.Context(), b.options.Prefix+":*:out").Result()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, stream := range streams {
		entries, err := client.XRange(b.t.Context(), stream, "-", "+").Result()
		if err != nil {
			b.t.Fatal(err)
		}
		for _, e := range entries {
			text := strings.Replace(e.Values["o"].(string), `,"sender_id":"`+waSender+`"`, "", 1)
			if strings.Contains(text, waSender) {
				b.t.Fatalf("entry %s", text)
			}
			client.XDel(b.t.Context(), stream, e.ID)
			if err := client.XAdd(b.t.Context(), &redis.XAddArgs{Stream: stream, Values: []any{"o", text}}).Err(); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// approving is a company with approved templates.
type approving struct{ *company }

func (approving) Template(o conversations.Outbound) (name, language string) {
	if !o.Template {
		return "", ""
	}
	return "pay", "en"
}

// TestNoticesAreHeeded: a template or an account that the company has switched
// off is not tried.
func TestNoticesAreHeeded(t *testing.T) {
	t.Parallel()
	past, future := time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	template := func(name, language string, standing conversations.Standing, until *time.Time) conversations.Notice {
		return conversations.Notice{Subject: conversations.NoticeTemplate, Name: name, Language: language, Standing: standing, Word: "paused", Until: until, At: past}
	}
	for name, c := range map[string]struct {
		notice conversations.Notice
		want   conversations.FailureReason
	}{
		"paused":              {template("pay", "en", conversations.StandingUnusable, &future), conversations.FailureTemplate},
		"disabled for good":   {template("pay", "en", conversations.StandingUnusable, nil), conversations.FailureTemplate},
		"in every language":   {template("pay", "", conversations.StandingUnusable, nil), conversations.FailureTemplate},
		"paused until before": {template("pay", "en", conversations.StandingUnusable, &past), ""},
		"low quality":         {template("pay", "en", conversations.StandingLimited, nil), ""},
		"another language":    {template("pay", "de", conversations.StandingUnusable, nil), ""},
		"another template":    {template("receipt", "en", conversations.StandingUnusable, nil), ""},
		"account restricted":  {conversations.Notice{Subject: conversations.NoticeAccount, Standing: conversations.StandingUnusable, Word: "restricted", At: past}, conversations.FailureAccount},
		"number flagged":      {conversations.Notice{Subject: conversations.NoticeNumber, Standing: conversations.StandingUnusable, Word: "flagged", At: past}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wa := newCompany(takesAll)
			b := newDispatchBench(t, approving{wa}, newCompany(takesAll))
			if err := b.store.NoteSender(t.Context(), waSender, c.notice); err != nil {
				t.Fatal(err)
			}
			messages, contacts := b.ask(conversations.WhatsApp, 1)
			b.start("a")
			status, calls := conversations.DeliveryAccepted, 1
			if c.want != "" {
				status, calls = conversations.DeliveryFailed, 0
			}
			b.awaitAll(messages, contacts, status, c.want)
			if n := wa.total(); n != calls {
				t.Errorf("%d calls, want %d", n, calls)
			}
		})
	}
}

// TestBreaker: after faults in a row a sender is left alone, messages wait and
// none is lost; when the company is back, all go out. Refusals are no faults.
func TestBreaker(t *testing.T) {
	t.Parallel()
	var back atomic.Bool
	wa := newCompany(func(conversations.Outbound, int) (bool, error) {
		if back.Load() {
			return true, nil
		}
		return false, notReached
	})
	sms := newCompany(func(_ conversations.Outbound, n int) (bool, error) {
		if n < 4 {
			return false, tooMany
		}
		return true, nil
	})
	b := newDispatchBench(t, wa, sms)
	b.config.BreakerFailures, b.config.BreakerOpen, b.config.MaxTries = 3, 200*time.Millisecond, 100
	messages, contacts := b.ask(conversations.WhatsApp, 12)
	others, otherContacts := b.ask(conversations.SMS, 6)
	d := b.start("a")
	b.await("messages are put off", func() bool { return waits(d, waSender, waitBreaker) >= 12 })
	b.await("the breaker is open", func() bool { return d.senders()[waSender].breaker.State() == gobreaker.StateOpen })
	b.awaitAll(others, otherContacts, conversations.DeliveryAccepted, "")
	if waits(d, smsSender, waitBreaker) != 0 {
		t.Error("refusals opened the other sender's breaker")
	}
	back.Store(true)
	b.awaitAll(messages, contacts, conversations.DeliveryAccepted, "")
	for i, id := range messages {
		if _, taken := wa.counts(id); taken != 1 {
			t.Errorf("message %d was taken %d times", i, taken)
		}
	}
}

// answering is a company that can be asked about a message.
type answering struct {
	*company
	asks atomic.Int64
	say  func(n int64, o conversations.Outbound) (found bool, err error)
}

func (a *answering) Ask(_ context.Context, o conversations.Outbound) (conversations.Sent, bool, error) {
	found, err := a.say(a.asks.Add(1), o)
	return conversations.Sent{ProviderID: "at-" + o.MessageID}, found, err
}

// TestLostAnswersAreAskedAfter: found, it is not sent again; not found, it is;
// while nobody knows, neither.
func TestLostAnswersAreAskedAfter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		took  bool
		say   func(n int64, _ conversations.Outbound) (bool, error)
		calls int
		asks  int64
	}{
		"found":                 {true, func(int64, conversations.Outbound) (bool, error) { return true, nil }, 1, 1},
		"not found":             {false, func(int64, conversations.Outbound) (bool, error) { return false, nil }, 2, 1},
		"not known, then found": {true, func(n int64, _ conversations.Outbound) (bool, error) { return n > 1, errorBefore(n, 2) }, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wa := &answering{say: c.say, company: newCompany(func(_ conversations.Outbound, n int) (bool, error) {
				if n == 1 {
					return c.took, noAnswer
				}
				return true, nil
			})}
			b := newDispatchBench(t, wa, newCompany(takesAll))
			messages, contacts := b.ask(conversations.WhatsApp, 1)
			b.start("a")
			b.awaitAll(messages, contacts, conversations.DeliveryAccepted, "")
			calls, taken := wa.counts(messages[0])
			if calls != c.calls || taken != 1 || wa.asks.Load() != c.asks {
				t.Errorf("%d calls, taken %d times, asked %d times; want %d, 1, %d", calls, taken, wa.asks.Load(), c.calls, c.asks)
			}
		})
	}
}

func errorBefore(n, when int64) error {
	if n < when {
		return errors.New("no answer")
	}
	return nil
}

// reading is a company that can mark messages as read, and takes its time.
type reading struct {
	*company
	begun chan string
	end   chan struct{}
}

func (r *reading) MarkRead(_ context.Context, id string, _ bool) error {
	r.begun <- id
	<-r.end
	return errors.New("no")
}

// TestMarkedAsReadBesideTheAnswer: the answer does not wait for it, and its
// failure is counted and nothing more.
func TestMarkedAsReadBesideTheAnswer(t *testing.T) {
	t.Parallel()
	wa := &reading{company: newCompany(takesAll), begun: make(chan string, 10), end: make(chan struct{})}
	b := newDispatchBench(t, wa, newCompany(takesAll))
	in := conversations.Inbound{
		Kind: conversations.InboundText, SenderID: waSender, ProviderID: "wamid.1", Text: "help", At: b.store.Now(),
		Addresses: []conversations.Address{{Kind: conversations.AddressPhone, Value: "+27821234567"}},
	}
	if err := b.store.Receive(t.Context(), "acme", in); err != nil {
		t.Fatal(err)
	}
	d := b.start("a")
	if id := <-wa.begun; id != "wamid.1" {
		t.Errorf("%q is marked as read", id)
	}
	b.await("the answer is sent", func() bool { return wa.total() == 1 })
	b.idle()
	close(wa.end)
	b.await("the failure is counted", func() bool {
		return testutil.ToFloat64(d.metrics.marks.WithLabelValues("company", "failed")) == 1
	})
}

// TestRetryPolicy: what the failure says counts for more than the table.
func TestRetryPolicy(t *testing.T) {
	t.Parallel()
	policy := retryPolicy{First: 2 * time.Second, Tries: 8}
	f := func(reason conversations.FailureReason, change func(*providers.Failure)) *providers.Failure {
		failure := &providers.Failure{Reason: reason, Retryable: true}
		if change != nil {
			change(failure)
		}
		return failure
	}
	for _, c := range []struct {
		name        string
		f           *providers.Failure
		tries       int
		least, most time.Duration // both zero: no more
	}{
		{"first", f(conversations.FailureRate, nil), 1, time.Second, 2 * time.Second},
		{"doubles", f(conversations.FailureRate, nil), 4, 8 * time.Second, 16 * time.Second},
		{"last", f(conversations.FailureRate, nil), 7, 64 * time.Second, 128 * time.Second},
		{"enough", f(conversations.FailureRate, nil), 8, 0, 0},
		{"server", f(conversations.FailureProviderError, nil), 7, time.Minute, 2 * time.Minute},
		{"unreachable", f(conversations.FailureUnreachable, nil), 1, 30 * time.Second, time.Minute},
		{"unreachable again", f(conversations.FailureUnreachable, nil), 2, 0, 0},
		{"any other", f(conversations.FailurePolicyLimit, nil), 2, 2 * time.Second, 4 * time.Second},
		{"any other, enough", f(conversations.FailurePolicyLimit, nil), 3, 0, 0},
		{"asked for more", f(conversations.FailureRate, func(f *providers.Failure) { f.RetryAfter = time.Hour }), 1, time.Hour, time.Hour + 10*time.Second},
		{"asked for less", f(conversations.FailureRate, func(f *providers.Failure) { f.RetryAfter = time.Millisecond }), 1, time.Second, 2 * time.Second},
		{"own tries, fewer", f(conversations.FailureRate, func(f *providers.Failure) { f.Tries = 2 }), 2, 0, 0},
		{"own tries, more", f(conversations.FailureUnreachable, func(f *providers.Failure) { f.Tries = 4 }), 3, 30 * time.Second, time.Minute},
		{"pair, 4^n", f(conversations.FailureRate, func(f *providers.Failure) { f.RetryAfter, f.Growth = 4*time.Second, 4 }), 1, 4 * time.Second, 5 * time.Second},
		{"pair, 4^n", f(conversations.FailureRate, func(f *providers.Failure) { f.RetryAfter, f.Growth = 4*time.Second, 4 }), 3, 64 * time.Second, 74 * time.Second},
		{"pair, at most", f(conversations.FailureRate, func(f *providers.Failure) { f.RetryAfter, f.Growth = 4*time.Second, 4 }), 7, time.Hour, time.Hour + 10*time.Second},
	} {
		for range 50 {
			got, again := policy.wait(c.f, c.tries)
			if again != (c.most > 0) || got < c.least || got > c.most {
				t.Errorf("%s after %d tries: %v, %t; want %v to %v", c.name, c.tries, got, again, c.least, c.most)
				break
			}
		}
	}
}

// TestHoldFor: which failures hold back the whole sender, and how.
func TestHoldFor(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		name    string
		f       providers.Failure
		retryIn time.Duration
		want    *conversations.Hold
	}{
		{"this message", providers.Failure{Reason: conversations.FailureRate, Retryable: true, RetryAfter: time.Minute}, time.Minute, nil},
		{"this customer", providers.Failure{Reason: conversations.FailureRate, Retryable: true, RetryAfter: time.Minute, Scope: providers.ScopePair}, time.Minute, nil},
		{"sender", providers.Failure{Reason: conversations.FailureRate, Code: "4", Retryable: true, RetryAfter: time.Minute, Scope: providers.ScopeSender}, 2 * time.Minute,
			&conversations.Hold{Reason: conversations.FailureRate, Code: "4", Until: now.Add(2 * time.Minute)}},
		{"sender, this message no more", providers.Failure{Reason: conversations.FailureRate, Retryable: true, RetryAfter: time.Hour, Scope: providers.ScopeSender}, 0,
			&conversations.Hold{Reason: conversations.FailureRate, Until: now.Add(time.Hour)}},
		{"sender, no wait helps", providers.Failure{Reason: conversations.FailurePolicyLimit, Scope: providers.ScopeSender}, 0,
			&conversations.Hold{Reason: conversations.FailurePolicyLimit, Until: now.Add(providers.FailFor), Fail: true}},
		{"credentials", providers.Failure{Reason: conversations.FailureAuth}, 0, &conversations.Hold{Reason: conversations.FailureAuth, Until: now.Add(providers.FailFor), Fail: true}},
		{"account", providers.Failure{Reason: conversations.FailureAccount}, 0, &conversations.Hold{Reason: conversations.FailureAccount, Until: now.Add(providers.FailFor), Fail: true}},
		{"account, this customer", providers.Failure{Reason: conversations.FailureAccount, Scope: providers.ScopePair}, 0, nil},
		{"nobody knows", providers.Failure{Reason: conversations.FailureProviderError, Unknown: true, Scope: providers.ScopeSender}, 0, nil},
	} {
		got := holdFor(&c.f, c.retryIn, now)
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}
