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

// stopWithin bounds Stop: longer than a charge with the recording of its answer
// may take. A deployment's grace period has to be longer still.
const stopWithin = 70 * time.Second

// App is the gateway: everything is built in newApp, by hand, and runs between
// Start and Stop.
type App struct {
	config        *Config
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
	if a.store, err = conversations.Connect(ctx, options); err != nil {
		return nil, err
	}
	if err := a.build(); err != nil {
		return nil, errors.Join(err, a.store.Close())
	}
	return a, nil
}

func (a *App) build() error {
	a.registry.MustRegister(newStoreCollector(a.store))
	var err error
	if a.keys, err = checkout.LoadKeys(a.config.LinkKeys.Files()); err != nil {
		return fmt.Errorf("link keys: %w", err)
	}
	for _, problem := range a.keys.Problems() {
		a.log.Warn("a link key should be mended", "problem", problem)
	}
	client := outwardClient()
	senders, err := a.liveSenders(client)
	if err != nil {
		return err
	}
	paid, err := a.livePlatforms(client)
	if err != nil {
		return err
	}
	money := newMoneyMetrics(a.registry)
	if err := a.buildPages(paid, money); err != nil {
		return err
	}
	a.notifications = newNotifications(a.store, paid, a.config.Dispatcher.SendTimeout, money, a.log)
	a.webhooks = &webhooks{store: a.store, senders: senders, metrics: newWebhookMetrics(a.registry), log: a.log}
	a.streams = newStreams(a.store, a.config.Events.Heartbeat, a.config.Events.Queue, eventText, a.registry, a.log)
	a.api = newAPI(apiOptions{
		Store: a.store, Config: func() *Config { return a.config },
		Sessions: newAgentSessions(func() [][]byte { return a.keys.Secrets("agent session") }, a.store.Now),
		Streams:  a.streams, Typing: typistOf(senders), Log: a.log, Callbacks: a.config.Callbacks.options(),
	})
	a.buildWorkers(senders, paid)
	told := newLiveCallbacks(a.store, a.config, a.registry, a.log)
	a.workers = append(a.workers, worker{"callbacks", told.Run})
	audits := newAuditJob(a.store, paid, a.config.Audit, money, a.log)
	a.workers = append(a.workers, worker{"notifications", a.notifications.Run}, worker{"audit", audits.Run})
	a.buildListeners()
	return nil
}

// outwardClient makes the calls to providers and platforms. Each call brings
// its own deadline.
func outwardClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	transport.ResponseHeaderTimeout = time.Minute
	return &http.Client{Transport: transport}
}

// liveSenders makes an adapter for every configured sender.
func (a *App) liveSenders(client *http.Client) (map[string]*liveSender, error) {
	live := map[string]*liveSender{}
	for _, m := range a.config.Merchants {
		for _, s := range m.Senders {
			p, err := newProvider(s, a.store.Now, client, a.log)
			if err != nil {
				return nil, fmt.Errorf("sender %s: %w", s.ID, err)
			}
			live[s.ID] = &liveSender{SenderConfig: s, provider: p}
		}
	}
	return live, nil
}

// livePlatforms makes every merchant's payment platform.
func (a *App) livePlatforms(client *http.Client) (map[string]platforms.Platform, error) {
	live := map[string]platforms.Platform{}
	for _, m := range a.config.Merchants {
		p, err := newPlatform(m, a.store.Now, client, a.log)
		if err != nil {
			return nil, fmt.Errorf("merchant %s: platform: %w", m.ID, err)
		}
		live[m.ID] = p
	}
	return live, nil
}

func (a *App) buildPages(paid map[string]platforms.Platform, money *moneyMetrics) error {
	nonces, err := checkout.NewNonces(func() [][]byte { return a.keys.Secrets("page nonce") })
	if err != nil {
		return err
	}
	a.checkout, err = checkout.NewPage(checkout.Options{
		Store: a.store, Links: a.keys, Nonces: nonces, Log: a.log, ClientAddress: clientAddress(a.config.TrustedProxies),
		Charged: money.charged, Refused: money.refused,
		Platform: func(merchantID string) (platforms.Platform, bool) { p, ok := paid[merchantID]; return p, ok },
		PlatformName: func(merchantID string) string {
			m, ok := a.config.Merchant(merchantID)
			if !ok {
				return ""
			}
			return m.Platform.Name
		},
		PlatformOrigins: func(merchantID string) []string {
			if p, ok := paid[merchantID].(platforms.Browsing); ok {
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

func (a *App) buildWorkers(senders map[string]*liveSender, paid map[string]platforms.Platform) {
	c, metrics := a.config.Dispatcher, newDispatchMetrics(a.registry)
	dispatch := newDispatcher(a.store, senders, paid, c, metrics, a.log)
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

// followKeys reads the link keys again now and then. After a file that cannot
// be read the keys stay as they were.
func (a *App) followKeys(ctx context.Context) error {
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			before := a.keys.KeyID()
			if err := a.keys.Reload(); err != nil {
				a.log.Error("the link keys could not be read again and stay as they were", "error", err)
			} else if now := a.keys.KeyID(); now != before {
				a.log.Info("a new link key signs from now on", "kid", now)
			}
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
	a.public.Server().KeepHijackedConns = true // the streams close their sockets; see stream
	a.public.Use(newHTTPMetrics(a.registry).count, recoverPanics, refuseTwoLengths, refuseEncodings)
	mount(a.public, a.publicRoutes())
	a.api.register(a.public)
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

// Stop ends everything, last in first out, each step within what is left of
// stopWithin: streams first, since their clients come back by themselves, then
// HTTP, then the workers with what they have begun, then Redis. It goes on past
// a step that fails and joins the errors. Stopping twice is harmless.
func (a *App) Stop(ctx context.Context) error {
	a.stopOnce.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, stopWithin)
		defer cancel()
		a.stopping.Store(true)
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
