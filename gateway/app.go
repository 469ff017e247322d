package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"paythread/checkout"
	"paythread/checkout/platforms"
	"paythread/conversations"
	"paythread/receipts"
)

// stopWithin bounds Stop after the drain: longer than a charge with the
// recording of its answer may take. A deployment's grace period has to be longer
// than both together.
const stopWithin = 70 * time.Second

// App is the gateway: everything is built in newApp, by hand, and runs between
// Start and Stop.
type App struct {
	config        *Config // as it was at start
	live          atomic.Pointer[live]
	maker         *maker
	reloading     sync.Mutex     // held while a configuration is taken over
	level         *slog.LevelVar // of the log, where it may change
	readingKeys   sync.Mutex     // guards what was told of the link keys
	toldKey       string
	toldProblems  []string
	log           *slog.Logger
	registry      *prometheus.Registry
	store         *conversations.Store
	keys          *checkout.KeyRing
	webhooks      *webhooks
	notifications *notifications
	checkout      *checkout.Page
	receipts      *receipts.Page
	streams       *streams
	api           *api
	callbacks     *callbacks
	workers       []worker

	public, admin             *fiber.App
	publicSocket, adminSocket net.Listener

	stopping atomic.Bool
	stopOnce sync.Once
	stopErr  error
	cancel   context.CancelFunc
	running  sync.WaitGroup
	failed   chan error // the first listener that ended by itself
}

// worker is something that runs until its context ends.
type worker struct {
	name string
	run  func(context.Context) error
}

// newApp builds a gateway from a checked configuration. It connects to Redis
// and binds nothing.
func newApp(ctx context.Context, config *Config, log *slog.Logger) (*App, error) {
	a := &App{config: config, log: log, registry: prometheus.NewRegistry(), failed: make(chan error, 2)}
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	options, err := config.Store()
	if err != nil {
		return nil, err
	}
	options.Log = log
	options.Observe = newPaymentMetrics(a.registry, a.providerOf).count
	options.ObserveRedis = newRedisMetrics(a.registry).count
	if a.store, err = conversations.Connect(ctx, options); err != nil {
		return nil, err
	}
	if err := a.build(); err != nil {
		return nil, errors.Join(err, a.store.Close())
	}
	return a, nil
}

func (a *App) build() error {
	a.registry.MustRegister(newStoreCollector(a.store), newPoolCollector(a.store.RedisPools))
	var err error
	if a.keys, err = checkout.LoadKeys(a.config.LinkKeys.Files()); err != nil {
		return fmt.Errorf("link keys: %w", err)
	}
	a.tellKeys()
	a.maker = &maker{
		now: a.store.Now, client: outwardClient(), store: a.store, dispatcher: a.config.Dispatcher,
		metrics: newDispatchMetrics(a.registry), log: a.log,
	}
	first, err := a.maker.make(a.config, nil)
	if err != nil {
		return err
	}
	a.live.Store(first)
	money := newMoneyMetrics(a.registry)
	if err := a.buildPages(money); err != nil {
		return err
	}
	a.notifications = newNotifications(a.store, a.moneyPlatforms, a.config.Dispatcher.SendTimeout, money, a.log)
	a.webhooks = &webhooks{store: a.store, senders: a.liveSenders, metrics: newWebhookMetrics(a.registry), log: a.log}
	a.streams = newStreams(a.store, a.config.Events.Heartbeat, a.config.Events.Queue, eventText, a.registry, a.log)
	a.api = newAPI(apiOptions{
		Store: a.store, Config: a.liveConfig,
		Sessions: newAgentSessions(func() [][]byte { return a.keys.Secrets("agent session") }, a.store.Now),
		Streams:  a.streams, Typing: typistOf(a.liveSenders), Log: a.log, Callbacks: a.config.Callbacks.options(),
	})
	a.buildWorkers()
	a.callbacks = newLiveCallbacks(a.store, a.liveConfig, a.registry, a.log)
	a.workers = append(a.workers, worker{"callbacks", a.callbacks.Run})
	audits := newAuditJob(a.store, a.moneyPlatforms, a.config.Audit, money, a.log)
	a.registry.MustRegister(newAuditCollector(audits))
	a.workers = append(a.workers, worker{"notifications", a.notifications.Run}, worker{"audit", audits.Run})
	a.buildListeners()
	return nil
}

// providerOf names the provider of a sender.
func (a *App) providerOf(senderID string) string {
	if s, ok := a.liveConfig().Sender(senderID); ok {
		return s.Provider
	}
	return noProvider
}

// outwardClient makes the calls to providers and platforms. Each call brings
// its own deadline.
func outwardClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	transport.ResponseHeaderTimeout = time.Minute
	return &http.Client{Transport: transport}
}

// liveConfig returns the configuration in force.
func (a *App) liveConfig() *Config {
	if l := a.live.Load(); l != nil {
		return l.config
	}
	return a.config // nothing is built yet
}

// liveSenders returns the senders in force.
func (a *App) liveSenders() map[string]*liveSender { return a.live.Load().senders }

// moneyPlatforms returns the platforms at which there may be money of ours, by
// merchant: also of merchants that are not served any more.
func (a *App) moneyPlatforms() map[string]platforms.Platform { return a.live.Load().money }

func (a *App) buildPages(money *moneyMetrics) error {
	nonces, err := checkout.NewNonces(func() [][]byte { return a.keys.Secrets("page nonce") })
	if err != nil {
		return err
	}
	a.checkout, err = checkout.NewPage(checkout.Options{
		Store: a.store, Links: a.keys, Nonces: nonces, Log: a.log, ClientAddress: clientAddress(a.config.TrustedProxies),
		Charged: money.charged, Refused: money.refused,
		Platform: func(merchantID string) (platforms.Platform, bool) {
			p, ok := a.live.Load().served[merchantID]
			return p, ok
		},
		PlatformName: func(merchantID string) string {
			m, ok := a.liveConfig().Merchant(merchantID)
			if !ok {
				return ""
			}
			return m.Platform.Name
		},
		PlatformOrigins: func(merchantID string) []string {
			if p, ok := a.live.Load().served[merchantID].(platforms.Browsing); ok {
				return p.Origins()
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	a.receipts, err = receipts.NewPage(receipts.Options{
		Store: a.store, Nonces: nonces, Log: a.log,
		Mint: func(requestID, issuer string, now time.Time) (string, error) {
			return a.keys.MintLink(checkout.LinkReceipt, requestID, issuer, now)
		},
		Redeem: func(token string, now time.Time) (string, string, error) {
			id, issuer, err := checkout.Redeem(a.keys, checkout.LinkReceipt, token, now)
			if errors.Is(err, checkout.ErrLinkExpired) {
				err = receipts.ErrLinkExpired
			}
			return id, issuer, err
		},
	})
	return err
}

func (a *App) buildWorkers() {
	c, metrics := a.config.Dispatcher, a.maker.metrics
	dispatch := newDispatcher(a.store, func() map[string]*outgoing { return a.live.Load().outgoing }, a.moneyPlatforms, c, metrics, a.log)
	outbox := &conversations.OutboxReader{
		Store: a.store, Worker: dispatch, Consumer: consumerName(), Workers: c.Workers, SenderWorkers: c.SenderConcurrency,
		ClaimIdle: c.ClaimIdle, MaxDeliveries: 20, Log: a.log,
		Dead: func(conversations.OutboxEntry) { metrics.dead.Inc() }, Full: dispatch.full,
	}
	a.registry.MustRegister(newSenderCollector(dispatch.senders, outbox.WorkLanes))
	runOutbox := func(ctx context.Context) error {
		defer dispatch.wait()
		return outbox.Run(ctx)
	}
	timers := &conversations.TimerRunner{Store: a.store, Every: timersEvery, Log: a.log}
	a.workers = []worker{{"outbox", runOutbox}, {"timers", timers.Run}, {"streams", a.streams.Run}, {"link keys", a.followKeys}}
}

// keysEvery is how often the link keys are read again: a rotation reaches every
// process within it, and links signed with a new key are refused no longer.
const keysEvery = 30 * time.Second

// followKeys reads the link keys again now and then.
func (a *App) followKeys(ctx context.Context) error {
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			a.reloadKeys()
			a.streams.recheck() // tokens are signed with keys that come from these
		}
	}
}

// warnOfRedis logs what the doctor finds wrong with Redis, and goes on: a
// managed one may refuse to tell.
func (a *App) warnOfRedis(ctx context.Context) {
	for _, check := range redisChecks(a.config, a.store) {
		if f := check.run(ctx); f.status != statusOK {
			a.log.Warn("redis is not as it should be", "check", check.name, "found", f.found, "mend", f.mend)
		}
	}
}

// timersEvery is how often due timers are looked for.
const timersEvery = 200 * time.Millisecond

// consumerName is stable for one process: its host and process id.
func consumerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}

func (a *App) buildListeners() {
	a.public = fiber.New(fiber.Config{
		DisableStartupMessage: true, Immutable: true, BodyLimit: maxWebhookBody, ReadBufferSize: 16 << 10,
		ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, // no WriteTimeout: it would cut streams
		ErrorHandler:            problemHandler(a.log, a.api.allowOrigin),
		EnableTrustedProxyCheck: true, TrustedProxies: a.trustedProxies(), ProxyHeader: fiber.HeaderXForwardedFor,
	})
	a.public.Server().HeaderReceived = limitBody
	refuseUnknownMethods(a.public)
	a.public.Server().KeepHijackedConns = true // the streams close their sockets; see stream
	calls := newHTTPMetrics(a.registry)
	a.public.Use(calls.count, recoverPanics, a.closeWhenStopping, refuseTwoLengths, refuseEncodings)
	mount(a.public, a.publicRoutes())
	a.api.register(a.public)
	calls.prepare(a.public.GetRoutes(true))
	a.admin = fiber.New(fiber.Config{DisableStartupMessage: true, ErrorHandler: problemHandler(a.log), ReadTimeout: 30 * time.Second})
	mount(a.admin, a.adminRoutes())
}

func (a *App) trustedProxies() []string {
	var list []string
	for _, p := range a.config.TrustedProxies {
		list = append(list, p.String())
	}
	return list
}

// Start binds both sockets and then starts everything. A taken port is an
// error, and nothing is left running after one.
func (a *App) Start() error {
	var err error
	if a.publicSocket, err = net.Listen("tcp", a.config.Listen); err != nil {
		return fmt.Errorf("listen: %w", taken(err, "listen", a.config.Listen))
	}
	if a.adminSocket, err = net.Listen("tcp", a.config.AdminListen); err != nil {
		return errors.Join(fmt.Errorf("admin_listen: %w", taken(err, "admin_listen", a.config.AdminListen)), a.publicSocket.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	for _, w := range a.workers {
		a.running.Add(1)
		go func() {
			defer a.running.Done()
			if err := w.run(ctx); err != nil {
				a.log.Error("a worker ended", "worker", w.name, "error", err)
			}
		}()
	}
	a.serve("public", a.public, a.publicSocket)
	a.serve("admin", a.admin, a.adminSocket)
	a.log.Info("the gateway is ready", "listen", a.Addr(), "admin_listen", a.AdminAddr())
	return nil
}

func (a *App) serve(name string, app *fiber.App, on net.Listener) {
	go func() {
		if err := app.Listener(on); err != nil && !a.stopping.Load() {
			select {
			case a.failed <- fmt.Errorf("the %s listener ended: %w", name, err):
			default: // one is enough
			}
		}
	}()
}

// taken explains an address that another process listens on.
func taken(err error, key, address string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("another program listens on %s; stop it, or set %s to another address", address, key)
	}
	return err
}

// Failed gives the error of a listener that ended by itself.
func (a *App) Failed() <-chan error { return a.failed }

// Addr returns the address of the public listener, once started.
func (a *App) Addr() string { return a.publicSocket.Addr().String() }

// AdminAddr returns the address of the admin listener, once started.
func (a *App) AdminAddr() string { return a.adminSocket.Addr().String() }

// Stop drains, and then ends everything, last in first out, each step within
// what is left of stopWithin: streams first, since their clients come back by themselves, then
// HTTP, then the workers with what they have begun, then Redis. It goes on past
// a step that fails and joins the errors. Stopping twice is harmless.
func (a *App) Stop(ctx context.Context) error {
	a.stopOnce.Do(func() {
		a.stopping.Store(true)
		a.drain(ctx)
		ctx, cancel := context.WithTimeout(ctx, stopWithin)
		defer cancel()
		var errs []error
		step := func(name string, do func(context.Context) error) {
			if err := do(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", name, err))
			}
		}
		step("streams", func(context.Context) error { a.streams.Close(); return nil })
		step("public listener", a.public.ShutdownWithContext)
		step("workers", a.stopWorkers)
		step("admin listener", a.admin.ShutdownWithContext)
		step("redis", func(context.Context) error { return a.store.Close() })
		a.stopErr = errors.Join(errs...)
	})
	return a.stopErr
}

func (a *App) stopWorkers(ctx context.Context) error {
	if a.cancel == nil {
		return nil
	}
	a.cancel()
	done := make(chan struct{})
	go func() { a.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
