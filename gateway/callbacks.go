package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"paythread/conversations"
)

// callbacks tells the merchants' own systems what happens: it queues every
// event for the endpoints that want it, and sends what is due. Several processes
// share the work by themselves.
type callbacks struct {
	store   *conversations.Store
	queue   *conversations.Callbacks
	config  func() *Config // in force
	client  *http.Client
	metrics *callbackMetrics
	log     *slog.Logger

	wake  chan struct{} // something may be due
	again chan struct{} // the configuration has changed
	mu    sync.Mutex
	at    map[string]*callbackLane // by endpoint
	busy  sync.WaitGroup
}

// callbackLane bounds how many deliveries to one endpoint are under way here:
// one that is slow starves no other.
type callbackLane struct {
	slots    chan struct{}
	draining bool // guarded by callbacks.mu
}

const (
	// callbacksEvery is how often due deliveries are looked for. What was queued
	// in this process is looked for at once.
	callbacksEvery = 500 * time.Millisecond
	// pumpIdle is after how long events that a dead process took are taken over.
	pumpIdle = 10 * time.Second
	// resetWithin is for how long one reset stands for all that is noticed.
	resetWithin = 10 * time.Minute
)

func newCallbacks(store *conversations.Store, queue *conversations.Callbacks, config func() *Config, client *http.Client, metrics *callbackMetrics, log *slog.Logger) *callbacks {
	return &callbacks{
		store: store, queue: queue, config: config, client: client, metrics: metrics, log: log,
		wake: make(chan struct{}, 1), again: make(chan struct{}, 1), at: map[string]*callbackLane{},
	}
}

// newLiveCallbacks returns the callbacks of a gateway, which are counted.
func newLiveCallbacks(store *conversations.Store, config func() *Config, r prometheus.Registerer, log *slog.Logger) *callbacks {
	queue := conversations.NewCallbacks(store, config().Callbacks.options())
	r.MustRegister(newCallbackCollector(queue, func() []string { return merchantIDs(config()) }))
	return newCallbacks(store, queue, config, callbackClient(config().Callbacks.AllowPrivate, nil), newCallbackMetrics(r), log)
}

// Run works until ctx ends, and waits for the deliveries under way.
func (c *callbacks) Run(ctx context.Context) error {
	if !c.prepare(ctx) {
		return nil
	}
	pump := &conversations.CallbackPump{
		Callbacks: c.queue, ClaimIdle: pumpIdle, Log: c.log, Queued: func(string, string) { c.nudge() }, Reset: c.tellReset,
	}
	var running sync.WaitGroup
	running.Go(func() { _ = pump.Run(ctx) }) // it ends with ctx and has no other error
	running.Go(func() { c.watch(ctx) })
	running.Go(func() { c.follow(ctx) })
	running.Wait()
	c.busy.Wait()
	return nil
}

// prepare makes the endpoints of the configuration those of the store, and tells
// of settings that have changed. It goes on trying until that is done, because
// nothing may be missed; false: ctx has ended.
func (c *callbacks) prepare(ctx context.Context) bool {
	for {
		err := c.configure(ctx)
		if err == nil {
			return true
		}
		c.log.WarnContext(ctx, "preparing the callbacks failed and is tried again", "error", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Second):
		}
	}
}

// reconfigure says that the configuration has changed.
func (c *callbacks) reconfigure() {
	select {
	case c.again <- struct{}{}:
	default: // it is about to be looked at
	}
}

// follow prepares anew after each change, until ctx ends.
func (c *callbacks) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.again:
			c.prepare(ctx)
			c.nudge()
		}
	}
}

func (c *callbacks) configure(ctx context.Context) error {
	for _, m := range c.config().Merchants {
		var wanted []conversations.CallbackEndpoint
		for _, e := range m.Callbacks {
			wanted = append(wanted, e.endpoint())
		}
		if err := c.queue.Configure(ctx, m.ID, wanted); err != nil {
			return err
		}
		err := c.queue.NoteSettings(ctx, m.ID, merchantSettings(m), func(names []string, version string) error {
			c.log.InfoContext(ctx, "settings of a merchant have changed", "audit", true, "merchant_id", m.ID, "settings", names)
			now := c.store.Now()
			body, err := encodePayload(settingsChanged, now, CallbackSettingsData{MerchantID: m.ID, Settings: names})
			if err != nil {
				return err
			}
			return c.queue.Tell(ctx, m.ID, "", conversations.CallbackEvent{ID: "evt_" + m.ID + "_settings_" + version, Type: settingsChanged, At: now, Body: body})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tellReset tells every endpoint to read the lists again, once for all that is
// noticed about the same time.
func (c *callbacks) tellReset(ctx context.Context, reason string) error {
	c.metrics.resets.WithLabelValues(reason).Inc()
	return tellReset(ctx, c.queue, c.config(), c.store.Now(), reason)
}

// tellReset queues the event for every endpoint of every merchant.
func tellReset(ctx context.Context, queue *conversations.Callbacks, config *Config, now time.Time, reason string) error {
	at := now.Truncate(resetWithin)
	for _, m := range config.Merchants {
		body, err := encodePayload(callbackReset, at, CallbackResetData{MerchantID: m.ID, Reason: reason})
		if err != nil {
			return err
		}
		err = queue.Tell(ctx, m.ID, "", conversations.CallbackEvent{
			ID: fmt.Sprintf("evt_%s_reset_%d", m.ID, at.Unix()), Type: callbackReset, At: at, Body: body,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// nudge says that something may be due now.
func (c *callbacks) nudge() {
	select {
	case c.wake <- struct{}{}:
	default: // it is about to be looked for
	}
}

// watch looks for what is due until ctx ends.
func (c *callbacks) watch(ctx context.Context) {
	tick := time.NewTicker(callbacksEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.wake:
		}
		waiting, err := c.queue.Look(ctx, c.merchantIDs())
		if err != nil {
			if ctx.Err() == nil {
				c.log.WarnContext(ctx, "looking for callbacks failed", "error", err)
			}
			continue
		}
		for _, e := range waiting.Due {
			c.drain(ctx, e)
		}
		for _, e := range waiting.Fallen {
			c.tellFallen(ctx, e)
		}
	}
}

func (c *callbacks) merchantIDs() []string { return merchantIDs(c.config()) }

func merchantIDs(c *Config) []string {
	ids := make([]string, 0, len(c.Merchants))
	for _, m := range c.Merchants {
		ids = append(ids, m.ID)
	}
	return ids
}

// tellFallen tells a merchant's other endpoints that one was switched off. It is
// told again until that is noted, each time as the same event.
func (c *callbacks) tellFallen(ctx context.Context, e conversations.CallbackEndpoint) {
	event, err := endpointEvent(callbackDisabled, e, e.Since, fmt.Sprintf("disabled_%d", e.Since.UnixMilli()))
	if err == nil {
		err = c.queue.Tell(ctx, e.MerchantID, e.ID, event)
	}
	if err == nil {
		err = c.queue.Told(ctx, e)
	}
	if err != nil {
		c.log.WarnContext(ctx, "telling of a callback endpoint that was switched off failed and is tried again", "merchant_id", e.MerchantID, "endpoint", e.ID, "error", err)
		return
	}
	c.nudge()
}

// drain sends what is due at an endpoint, unless that is being done already.
func (c *callbacks) drain(ctx context.Context, e conversations.CallbackEndpoint) {
	if _, ours := c.secretsOf(e); !ours {
		return // another process knows its secret
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	lane := c.at[e.String()]
	if lane == nil {
		lane = &callbackLane{slots: make(chan struct{}, max(1, c.config().Callbacks.Concurrency))}
		c.at[e.String()] = lane
	}
	if lane.draining {
		return
	}
	lane.draining = true
	c.busy.Go(func() {
		defer func() {
			c.mu.Lock()
			lane.draining = false
			c.mu.Unlock()
		}()
		c.drainLane(ctx, lane, e.MerchantID, e.ID)
	})
}

// secretsOf returns what signs for an endpoint. Those of the configuration are
// in no store: false where this process was configured otherwise.
func (c *callbacks) secretsOf(e conversations.CallbackEndpoint) ([]string, bool) {
	if e.Source != conversations.CallbackFromConfig {
		return e.SecretsAt(c.store.Now()), true
	}
	m, ok := c.config().Merchant(e.MerchantID)
	if !ok {
		return nil, false
	}
	i := slices.IndexFunc(m.Callbacks, func(own *CallbackConfig) bool { return own.ID == e.ID && own.URL == e.URL })
	if i < 0 {
		return nil, false
	}
	return m.Callbacks[i].secrets(), true
}

// drainLane takes as many deliveries as there are free slots, until nothing is
// due. Who holds a slot sends. The endpoint is read anew each time: it may move,
// and its secret may be replaced, while much waits for it.
func (c *callbacks) drainLane(ctx context.Context, lane *callbackLane, merchantID, endpointID string) {
	for {
		free := 0
		select {
		case lane.slots <- struct{}{}:
			free++
		case <-ctx.Done():
			return
		}
		for more := true; more && free < cap(lane.slots); {
			select {
			case lane.slots <- struct{}{}:
				free++
			default:
				more = false
			}
		}
		e, secrets, taken := c.take(ctx, merchantID, endpointID, free)
		for range free - len(taken) {
			<-lane.slots
		}
		for _, t := range taken {
			c.busy.Go(func() {
				defer func() { <-lane.slots }()
				c.deliver(context.WithoutCancel(ctx), e, secrets, t) // what was begun is finished
			})
		}
		if len(taken) == 0 {
			return
		}
	}
}

// take takes deliveries that are due, with where they go and what signs them.
func (c *callbacks) take(ctx context.Context, merchantID, endpointID string, most int) (conversations.CallbackEndpoint, []string, []conversations.Taken) {
	if ctx.Err() != nil {
		return conversations.CallbackEndpoint{}, nil, nil
	}
	var taken []conversations.Taken
	e, err := c.queue.Endpoint(ctx, merchantID, endpointID)
	secrets, ours := c.secretsOf(e)
	if err == nil && ours {
		taken, err = c.queue.Take(ctx, e, most, c.lease())
	}
	if err != nil && ctx.Err() == nil && conversations.CodeOf(err) != conversations.CodeNotFound {
		c.log.WarnContext(ctx, "taking callbacks failed", "merchant_id", merchantID, "endpoint", endpointID, "error", err)
	}
	return e, secrets, taken
}

// lease is for how long a delivery is left to the process that took it: longer
// than it takes to try it and to record what came of it.
func (c *callbacks) lease() time.Duration { return 2*c.config().Callbacks.Timeout + 5*time.Second }
