package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"paythread/checkout"
	"paythread/conversations/redistest"
	"paythread/simulator"
	"paythread/simulator/cybersource"
)

// patience is how long anything is waited for that has to come. A story that
// goes well never waits so long, and one that does not tells what was missing.
const patience = 30 * time.Second

// quickTimings are the waits of a story that says nothing of its own: long
// enough that nothing runs out while the machine is busy.
const quickTimings = "{send_within: 10s, recover_after: 11s, ask_after: [12s], late_ask_after: [1h], token_grace: 0s, echo_within: 3s, retry_operation_in: 200ms}"

// stageOptions are what a story may want to be different.
type stageOptions struct {
	Redis       func(*testing.T) RedisConfig
	Timings     string // YAML
	Pace        time.Duration
	TokenLife   time.Duration // of transient tokens
	SearchDelay time.Duration // until the platform's search shows a payment
	TimeToOpen  time.Duration // the merchant's
	TimeToPay   time.Duration
	SMSAfter    time.Duration // without word of delivery on WhatsApp
	Money       moneyOfTheStage
	Providers   *providersOfTheStage // nil: the demo's
}

// stage is where a story is played: the simulated world, Redis, and a gateway
// that can be stopped and started again, each on a port of the system's choice.
type stage struct {
	t       *testing.T
	outside *world
	front   *door
	public  string // the gateway's address
	config  *Config
	app     *App
	logged  *logBook
	money   *moneyChecker
}

// newStage sets the stage and clears it at the end of the test.
func newStage(t *testing.T, o stageOptions) *stage {
	t.Helper()
	if o.Timings == "" {
		o.Timings = quickTimings
	}
	if o.Pace == 0 {
		o.Pace = 10 * time.Millisecond
	}
	s := &stage{t: t, front: newDoor(t), logged: &logBook{}}
	s.public = "http://" + s.front.Addr().String()
	log := slog.New(slog.NewTextHandler(s.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	socket, url, err := bindWorld("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	s.outside, err = startWorld(socket, url, worldOptions{
		GatewayURL: s.public, Pace: o.Pace, Log: log, Notify: o.Money.Notifies,
		Change: func(w *simulator.Config, c *cybersource.Config) {
			if o.Providers != nil {
				o.Providers.settle(w, s.public)
			}
			c.TokenLife, c.SearchDelay, c.SharedKeys = o.TokenLife, o.SearchDelay, 1
			if c.SearchDelay == 0 {
				c.SearchDelay = -1 // at once
			}
			c.ReviewsAllowReversals = o.Money.ReviewWithin > 0
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.outside.Stop(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop the world: %v", err)
		}
	})
	s.config = s.configure(o)
	t.Cleanup(s.stopGateway)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", s.logged.tail(6000))
		}
	})
	s.money = checkMoney(t, s.outside.URL, s.config)
	s.startGateway()
	return s
}

// timingsLine is the demo's line that a story's own timings stand in for.
var timingsLine = regexp.MustCompile(`(?m)^timings: .*$`)

// configure makes the demo's configuration with this stage's addresses, Redis
// and waits.
func (s *stage) configure(o stageOptions) *Config {
	s.t.Helper()
	keys := s.t.TempDir()
	if _, err := checkout.NewKeyFile(filepath.Join(keys, checkout.CurrentKeyFile)); err != nil {
		s.t.Fatal(err)
	}
	redis := o.Redis(s.t)
	var text bytes.Buffer
	err := demoTemplate.Execute(&text, map[string]any{
		"Listen": "127.0.0.1:0", "AdminListen": "127.0.0.1:0", "LogLevel": "debug", "Redis": redis.Addresses[0], "KeysDir": keys,
		"PublicURL": s.public, "SimulatorURL": s.outside.URL, "APIKey": demoAPIKey,
		"Meta": demoMeta, "Twilio": demoTwilio, "TwilioNumber": demoTwilioPhone, "CyberSource": demoCyberSource,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if !timingsLine.Match(text.Bytes()) {
		s.t.Fatal("demo.yaml has no line of timings")
	}
	written := timingsLine.ReplaceAll(text.Bytes(), []byte("timings: "+o.Timings))
	if o.Providers != nil {
		written = sendersBlock.ReplaceAll(written, []byte(o.Providers.senders(s)))
	}
	config, err := parseConfig("story.yaml", written, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	config.Redis = redis
	for _, m := range config.Merchants {
		m.Fallback.After = cmp.Or(o.SMSAfter, m.Fallback.After)
		o.Money.settle(m)
		m.TimeToOpen, m.TimeToPay = cmp.Or(o.TimeToOpen, m.TimeToOpen), cmp.Or(o.TimeToPay, m.TimeToPay)
	}
	config.Dispatcher.RetryAfter, config.Dispatcher.ClaimIdle = 200*time.Millisecond, 2*time.Second
	return config
}

// startGateway starts a gateway behind the door.
func (s *stage) startGateway() {
	s.t.Helper()
	app, err := newApp(context.Background(), s.config, slog.New(slog.NewJSONHandler(s.logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		s.t.Fatalf("make a gateway: %v", err)
	}
	s.app = app
	if err := app.Start(); err != nil {
		s.t.Fatalf("start the gateway: %v", err)
	}
	s.front.leadTo(app.Addr())
}

// stopGateway stops the gateway; connections that come meanwhile are cut.
func (s *stage) stopGateway() {
	if s.app == nil {
		return
	}
	s.front.leadTo("")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.app.Stop(ctx); err != nil {
		s.t.Errorf("stop the gateway: %v", err)
	}
	s.app = nil
}

func (s *stage) restartGateway() {
	s.t.Helper()
	s.stopGateway()
	s.startGateway()
}

// The kinds of Redis that stories are played on. Stories that share a server
// keep apart by the prefix of their keys.

func storyPrefix(t *testing.T) string {
	return "st" + regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "")
}

func onRealRedis(t *testing.T) RedisConfig {
	return RedisConfig{Mode: RedisSingle, Addresses: []string{redistest.Shared(t).Addr}, Prefix: storyPrefix(t), Partitions: 4, PoolSize: 16}
}

func onCluster(t *testing.T) RedisConfig {
	return RedisConfig{Mode: RedisCluster, Addresses: redistest.SharedCluster(t).Addrs(), Prefix: storyPrefix(t), Partitions: 6, PoolSize: 16}
}

// onEmbedded is the demo's own Redis.
func onEmbedded(t *testing.T) RedisConfig {
	embedded := miniredis.NewMiniRedis()
	embedded.ClockTTL(true)
	if err := embedded.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(embedded.Close)
	return RedisConfig{Mode: RedisSingle, Addresses: []string{embedded.Addr()}, Prefix: "pt", Partitions: 16, PoolSize: 32}
}

// door is the address under which the world knows the gateway. It stays while
// gateways behind it come and go, as a load balancer's does.
type door struct {
	net.Listener
	mu    sync.Mutex
	to    string
	open  map[net.Conn]bool
	going sync.WaitGroup
}

func newDoor(t *testing.T) *door {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{Listener: listener, open: map[net.Conn]bool{}}
	d.going.Go(d.accept)
	t.Cleanup(func() {
		_ = listener.Close() // ends accept
		d.leadTo("")
		d.going.Wait()
	})
	return d
}

// leadTo changes where the door leads and cuts what went through it before.
func (d *door) leadTo(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to = address
	for c := range d.open {
		_ = c.Close() // its copying ends
	}
}

func (d *door) accept() {
	for {
		in, err := d.Accept()
		if err != nil {
			return
		}
		d.going.Go(func() { d.pass(in) })
	}
}

// pass carries one connection both ways until either side ends it.
func (d *door) pass(in net.Conn) {
	defer func() { _ = in.Close() }() // it may have been cut
	d.mu.Lock()
	to := d.to
	d.mu.Unlock()
	if to == "" {
		return
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }() // as above
	if !d.keep(to, in, out) {
		return
	}
	defer d.forget(in, out)
	var both sync.WaitGroup
	carry := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // a cut connection is what ends it
		_ = to.Close()
	}
	both.Go(func() { carry(out, in) })
	carry(in, out)
	_ = in.Close()
	both.Wait()
}

// keep notes open connections, unless the door leads elsewhere by now.
func (d *door) keep(to string, both ...net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.to != to {
		return false
	}
	for _, c := range both {
		d.open[c] = true
	}
	return true
}

func (d *door) forget(both ...net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range both {
		delete(d.open, c)
	}
}

// logBook keeps what a gateway logs, to be shown when a story fails and to be
// searched for what must never be in it.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBook) tail(n int) string {
	s := b.String()
	return s[max(0, len(s)-n):]
}

// plainClient follows no redirect by itself and reuses no connection, which a
// restart of the gateway might have cut.
func plainClient(t *testing.T) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       2 * time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
