package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"paythread/checkout"
)

// lookEvery is how often the files of the configuration are looked at. What has
// changed must be the same at two looks, so that no half is read of a file that
// is being written.
const lookEvery = 2 * time.Second

// digest tells one content from another; the zero value stands for a file that
// cannot be read.
type digest [sha256.Size]byte

func digestOf(data []byte) digest { return sha256.Sum256(data) }

// contents is what was in some files. Content is compared and never times:
// Kubernetes swaps a link to the folder in which a secret's files lie, whose
// times may go back.
type contents map[string]digest

func (c contents) note(file string, data []byte, err error) {
	c[file] = digest{}
	if err == nil {
		c[file] = digestOf(data)
	}
}

// look notes what is in files now; "" is none.
func (c contents) look(files ...string) {
	for _, f := range files {
		if f != "" {
			data, _, err := readBounded(f, largestConfig)
			c.note(f, data, err)
		}
	}
}

// now returns what is in the same files by now.
func (c contents) now() contents {
	next := make(contents, len(c))
	next.look(slices.Collect(maps.Keys(c))...)
	return next
}

// reloader reads the configuration again when it is asked to, and when a file
// that it came from has changed.
type reloader struct {
	read    func() (*Config, contents, error)
	take    func(*Config) (reloaded, error)
	asked   <-chan os.Signal // nil: nobody asks
	every   time.Duration
	metrics *reloadMetrics
	log     *slog.Logger

	last contents // of the files when they were read
	seen contents // when they were looked at
}

// reloaded is what a new configuration changed.
type reloaded struct {
	Merchants []string // those that were added, taken out or are configured otherwise
	Senders   []string // the same
	Restart   []string // keys under which something is written that only a restart changes
}

// Run reloads until ctx ends.
func (r *reloader) Run(ctx context.Context) error {
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.asked:
			r.reload(ctx, "signal")
		case <-tick.C:
			if r.changed() {
				r.reload(ctx, "file")
			}
		}
	}
}

// changed tells that the files are not what was read, and were left alone since
// the look before.
func (r *reloader) changed() bool {
	now := r.last.now()
	settled := maps.Equal(now, r.seen)
	r.seen = now
	return settled && !maps.Equal(now, r.last)
}

// reload reads and checks everything, and only then takes it over. Whatever is
// wrong, the gateway goes on as it was.
func (r *reloader) reload(ctx context.Context, why string) {
	config, read, err := r.read()
	if err != nil {
		// What was not come to is watched as it is now.
		before := r.last.now()
		maps.Copy(before, read)
		read = before
	}
	r.last = read
	var done reloaded
	if err == nil {
		done, err = r.takeOver(config)
	}
	if err != nil {
		r.metrics.refused()
		r.tellProblems(ctx, why, err)
		return
	}
	r.metrics.applied(len(done.Restart))
	for _, h := range config.Hints {
		r.log.WarnContext(ctx, "a setting is worth a look", "key", h.Path, "problem", h.Message)
	}
	for _, key := range done.Restart {
		r.log.WarnContext(ctx, "a setting needs a restart; until then it stays as it was", "key", key)
	}
	r.log.InfoContext(ctx, "the configuration was read again", "audit", true, "why", why, "config", *config, "merchants_changed", done.Merchants, "senders_changed", done.Senders)
}

func (r *reloader) takeOver(config *Config) (done reloaded, err error) {
	defer recovered(&err)
	return r.take(config)
}

// tellProblems logs each thing that is wrong by itself, under its key.
func (r *reloader) tellProblems(ctx context.Context, why string, err error) {
	var problems ConfigProblems
	if errors.As(err, &problems) {
		for _, p := range problems {
			r.log.ErrorContext(ctx, "the new configuration is wrong", "key", p.Path, "file", p.File, "line", p.Line, "variable", p.Variable, "problem", p.Message)
		}
		err = errors.New(countOf(len(problems), "problem"))
	}
	r.log.ErrorContext(ctx, "the configuration could not be read again and stays as it was", "why", why, "error", err)
}

// follow makes the gateway take over its configuration when one of the files is
// not as it was any more, and when asked says so. Call it before Start.
func (a *App) follow(read func() (*Config, contents, error), was contents, asked <-chan os.Signal) {
	r := &reloader{
		read: read, take: a.reload, asked: asked, every: lookEvery,
		metrics: newReloadMetrics(a.registry), log: a.log, last: was, seen: was,
	}
	a.workers = append(a.workers, worker{"configuration", r.Run})
}

// reload takes over a checked configuration. No webhook or charge notices: each
// works with what was live when it began. Streams go on, but for those of an
// API key, merchant or origin that was taken out.
func (a *App) reload(next *Config) (reloaded, error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	before := a.live.Load()
	done := reloaded{Restart: before.keepFixed(next)}
	next.index()
	if _, err := checkout.LoadKeys(next.LinkKeys.Files()); err != nil {
		return done, fmt.Errorf("link keys: %w", err)
	}
	now, err := a.maker.make(next, before)
	if err != nil {
		return done, err
	}
	// A merchant that is new must be known to the store before its API keys
	// are, and a sender of a known one to the dispatcher before the store sends
	// by it.
	known := before.domain()
	for _, m := range next.Merchants {
		if _, had := before.merchant(m.ID); !had {
			known = append(known, m.Domain())
		}
	}
	a.store.SetMerchants(known)
	a.live.Store(now)
	a.store.SetMerchants(now.domain())
	if a.level != nil {
		a.level.Set(next.Log.Level)
	}
	a.releaseSenders(before, now)
	a.reloadKeys()
	a.callbacks.reconfigure()
	a.streams.recheck()
	done.Merchants, done.Senders = changedMerchants(before.config, next), changedKeys(before.sendersMade(), now.sendersMade())
	return done, nil
}

// releaseWithin bounds how long a reload waits for Redis with each sender.
const releaseWithin = 2 * time.Second

// releaseSenders ends the holds that senders with new settings have from the
// ones before: nobody waits a minute for a token that was just mended.
func (a *App) releaseSenders(before, now *live) {
	for id, had := range before.outgoing {
		o, stays := now.outgoing[id]
		if !stays || o == had || plainText(reflect.ValueOf(o.Settings)) == plainText(reflect.ValueOf(had.Settings)) {
			continue
		}
		had.replaced.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), releaseWithin)
		o.release(ctx)
		cancel()
	}
}

// reloadKeys reads the link keys again. After a file that cannot be read they
// stay as they were.
func (a *App) reloadKeys() {
	a.readingKeys.Lock()
	defer a.readingKeys.Unlock()
	if err := a.keys.Reload(); err != nil {
		a.log.Error("the link keys could not be read again and stay as they were", "error", err)
		return
	}
	if now := a.keys.KeyID(); now != a.toldKey {
		a.log.Info("a new link key signs from now on", "kid", now)
	}
	a.tellKeys()
}

// tellKeys logs what should be mended about the link keys, each thing once.
func (a *App) tellKeys() {
	problems := a.keys.Problems()
	for _, problem := range problems {
		if !slices.Contains(a.toldProblems, problem) {
			a.log.Warn("a link key should be mended", "problem", problem)
		}
	}
	a.toldKey, a.toldProblems = a.keys.KeyID(), problems
}

// sendersMade returns what the senders were made from.
func (l *live) sendersMade() map[string]string {
	made := map[string]string{}
	for id := range l.senders {
		made[id] = l.made["sender "+id]
	}
	return made
}

// changedMerchants returns the ids of merchants that are not configured as they
// were.
func changedMerchants(before, now *Config) []string {
	text := func(c *Config) map[string]string {
		all := map[string]string{}
		for _, m := range c.Merchants {
			all[m.ID] = fmt.Sprint(merchantSettings(m)) // in the order of the keys
		}
		return all
	}
	return changedKeys(text(before), text(now))
}

// changedKeys returns the keys under which two maps differ.
func changedKeys(before, now map[string]string) []string {
	changed := []string{}
	for key := range merged(before, now) {
		if was, had := before[key]; !had || was != now[key] {
			changed = append(changed, key)
		} else if _, has := now[key]; !has {
			changed = append(changed, key)
		}
	}
	slices.Sort(changed)
	return changed
}

// reloadMetrics tell how the configuration was read again.
type reloadMetrics struct {
	reloads    *prometheus.CounterVec
	successful prometheus.Gauge
	at         prometheus.Gauge
	restart    prometheus.Gauge
}

// The outcomes of a reload.
const (
	reloadApplied = "applied"
	reloadRefused = "refused"
)

func newReloadMetrics(r prometheus.Registerer) *reloadMetrics {
	m := &reloadMetrics{
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_config_reloads_total", Help: "Times that the configuration was read again, by outcome: applied, or refused because something in it is wrong.",
		}, []string{"outcome"}),
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "paythread_config_last_reload_successful", Help: "Whether the configuration was right when it was last read: 1 or 0. With 0 the gateway works with the one before.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "paythread_config_last_reload_success_timestamp_seconds", Help: "When a configuration was last taken over, at start or later.",
		}),
		restart: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "paythread_config_restart_settings", Help: "Settings that are written otherwise than they were at start and that only a restart takes over.",
		}),
	}
	m.reloads.WithLabelValues(reloadApplied)
	m.reloads.WithLabelValues(reloadRefused)
	r.MustRegister(m.reloads, m.successful, m.at, m.restart)
	m.successful.Set(1)
	m.at.SetToCurrentTime()
	return m
}

func (m *reloadMetrics) applied(restart int) {
	m.reloads.WithLabelValues(reloadApplied).Inc()
	m.successful.Set(1)
	m.at.SetToCurrentTime()
	m.restart.Set(float64(restart))
}

func (m *reloadMetrics) refused() {
	m.reloads.WithLabelValues(reloadRefused).Inc()
	m.successful.Set(0)
}
