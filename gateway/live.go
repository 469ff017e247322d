package main

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// live is what a gateway works with until its configuration is read again. It
// never changes and is replaced as a whole: whoever has begun something goes on
// with the objects that it began with.
type live struct {
	config   *Config
	senders  map[string]*liveSender
	outgoing map[string]*outgoing          // the same senders, as the dispatcher uses them
	served   map[string]platforms.Platform // by merchant
	money    map[string]platforms.Platform // served, and those of retired
	retired  map[string]*MerchantConfig    // taken out of the configuration since the start: money of theirs may still move
	made     map[string]string             // what each adapter was made from; holds secrets
}

// always gives the same value each time.
func always[T any](v T) func() T { return func() T { return v } }

// maker makes what is live from a configuration.
type maker struct {
	now        func() time.Time
	client     *http.Client
	store      *conversations.Store
	dispatcher DispatcherConfig
	metrics    *dispatchMetrics
	log        *slog.Logger
}

// make makes what is live under a configuration. Adapters whose settings are
// those that they were made from are kept, with all that they have learned: a
// sender's circuit breaker, a platform's keys. before may be nil.
func (k *maker) make(config *Config, before *live) (*live, error) {
	if before == nil {
		before = &live{config: &Config{}}
	}
	l := &live{
		config: config, senders: map[string]*liveSender{}, outgoing: map[string]*outgoing{},
		served: map[string]platforms.Platform{}, money: map[string]platforms.Platform{},
		retired: map[string]*MerchantConfig{}, made: map[string]string{},
	}
	for _, m := range config.Merchants {
		for _, s := range m.Senders {
			if err := k.sender(l, before, s); err != nil {
				return nil, fmt.Errorf("sender %s: %w", s.ID, err)
			}
		}
		if err := k.platform(l, before, m); err != nil {
			return nil, fmt.Errorf("merchant %s: platform: %w", m.ID, err)
		}
	}
	for _, m := range slices.Concat(before.config.Merchants, slices.Collect(maps.Values(before.retired))) {
		if _, stays := l.money[m.ID]; !stays {
			l.retired[m.ID], l.money[m.ID], l.made["platform "+m.ID] = m, before.money[m.ID], before.made["platform "+m.ID]
		}
	}
	return l, nil
}

func (k *maker) sender(l, before *live, s *SenderConfig) error {
	from := strings.Join([]string{plainText(reflect.ValueOf(*s)), s.Merchant.ID, s.WebhookURL(), plainText(reflect.ValueOf(siblings(s)))}, "\n")
	l.made["sender "+s.ID] = from
	if had := before.outgoing[s.ID]; had != nil && before.made["sender "+s.ID] == from {
		l.senders[s.ID], l.outgoing[s.ID] = before.senders[s.ID], had
		return nil
	}
	p, err := newProvider(s, k.now, k.client, k.log)
	if err != nil {
		return err
	}
	l.senders[s.ID] = &liveSender{SenderConfig: s, provider: p}
	l.outgoing[s.ID] = newOutgoing(l.senders[s.ID], limitsInForce(s), k.store, k.dispatcher, k.log)
	k.metrics.knows(s.ID)
	return nil
}

func (k *maker) platform(l, before *live, m *MerchantConfig) error {
	from := fmt.Sprint(m.Sandbox, plainText(reflect.ValueOf(m.Platform)))
	p := before.money[m.ID]
	if p == nil || before.made["platform "+m.ID] != from {
		var err error
		if p, err = newPlatform(m, k.now, k.client, k.log); err != nil {
			return err
		}
	}
	l.made["platform "+m.ID], l.served[m.ID], l.money[m.ID] = from, p, p
	return nil
}

// merchant returns one that is served, or that was since the start.
func (l *live) merchant(id string) (*MerchantConfig, bool) {
	if m, ok := l.config.Merchant(id); ok {
		return m, true
	}
	m, ok := l.retired[id]
	return m, ok
}

// domain returns what the store must know of the merchants: of those that were
// taken out, too, because it decides about their money.
func (l *live) domain() []conversations.Merchant {
	var all []conversations.Merchant
	for _, m := range slices.Concat(l.config.Merchants, slices.Collect(maps.Values(l.retired))) {
		all = append(all, m.Domain())
	}
	return all
}

// keepFixed takes over what only a restart changes, and returns the keys under
// which something else is written now.
func (l *live) keepFixed(next *Config) []string {
	running := l.config
	var differ []string
	for key := range maps.Keys(merged(running.fixed, next.fixed)) {
		if running.fixed[key] != next.fixed[key] && !strings.HasPrefix(key, "merchants[") { // those are compared below, by their ids
			differ = append(differ, key)
		}
	}
	all := *running // but for what is read while the gateway runs
	all.Log.Level, all.AgentSessions, all.Merchants, all.Hints = next.Log.Level, next.AgentSessions, next.Merchants, next.Hints
	*next = all
	for _, m := range next.Merchants {
		if had, ok := l.merchant(m.ID); ok {
			differ = append(differ, m.keepAccount(had)...)
		}
	}
	slices.Sort(differ)
	return differ
}

// account returns what says where a merchant's money is, by its key.
func (m *MerchantConfig) account() map[string]string {
	keys := map[string]string{"environment": fmt.Sprint(m.Sandbox), "platform.name": m.Platform.Name}
	r, _ := platformNamed(m.Platform.Name)
	for _, x := range r.Settings {
		if x.Account {
			keys["platform."+x.Name] = m.Platform.Settings[x.Name]
		}
	}
	return keys
}

// keepAccount keeps the platform as it was where the merchant has moved to
// another account: what became of payments under way is asked for at the one
// where they were made. It returns the keys that say so.
func (m *MerchantConfig) keepAccount(had *MerchantConfig) []string {
	ours, theirs := had.account(), m.account()
	var differ []string
	for key := range merged(ours, theirs) {
		if ours[key] != theirs[key] {
			differ = append(differ, "merchants["+m.ID+"]."+key)
		}
	}
	if len(differ) > 0 {
		m.Sandbox, m.Platform = had.Sandbox, had.Platform
	}
	return differ
}

// merged returns all keys of two maps.
func merged[V any](a, b map[string]V) map[string]V {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return all
}
