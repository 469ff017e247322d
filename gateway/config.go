package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"paythread/checkout"
	"paythread/conversations"
)

// Config is everything that a gateway is told: read by loadConfig, complete and
// checked, never changed afterwards. A running gateway replaces it by another.
type Config struct {
	Listen         string
	AdminListen    string
	Drain          time.Duration // from the wish to stop until the listener closes
	TrustedProxies []netip.Prefix
	Log            LogConfig
	Redis          RedisConfig
	LinkKeys       LinkKeysConfig
	Timings        conversations.Timings
	Retention      conversations.Retention
	AgentSessions  AgentSessionsConfig
	Events         EventsConfig
	Dispatcher     DispatcherConfig
	Callbacks      CallbacksConfig
	Audit          AuditConfig
	Merchants      []*MerchantConfig

	// Hints are what is right and yet worth a look, in the form of problems.
	Hints []ConfigProblem

	fixed     map[string]digest // what is written under the keys that only a restart changes
	merchants map[string]*MerchantConfig
	senders   map[string]*SenderConfig
	callers   map[[sha256.Size]byte]Caller // by the hash of the API key
}

// LogValue tells how large the configuration is, and nothing that is in it.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String tells how large the configuration is.
func (c Config) String() string {
	return "configuration of " + countOf(len(c.Merchants), "merchant")
}

// Format writes what String returns, whatever the verb: what is inside would be
// printed without asking its types.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) } // fmt keeps no error

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  slog.Level
	Format string // json or text
}

// Logger returns a logger that writes to w.
func (l LogConfig) Logger(w io.Writer) *slog.Logger { return l.loggerAt(w, l.Level) }

// loggerAt returns a logger whose level may change.
func (l LogConfig) loggerAt(w io.Writer, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: inUTC}
	if l.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// inUTC writes times in UTC, wherever the machine is: the lines of several, and
// the times of the API, can be held against each other.
func inUTC(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindTime {
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	}
	return a
}

// RedisMode is how the servers of Redis are found.
type RedisMode string

// The modes. A checked configuration holds one of the last three.
const (
	RedisAuto     RedisMode = "auto"
	RedisSingle   RedisMode = "single"
	RedisSentinel RedisMode = "sentinel"
	RedisCluster  RedisMode = "cluster"
)

// RedisConfig is how Redis is reached. A URL in the file has been taken apart:
// the other fields say all that it said.
type RedisConfig struct {
	Mode       RedisMode
	Addresses  []string
	MasterName string // of a sentinel
	Username   string
	Password   Secret
	Database   int
	Sentinel   SentinelConfig
	TLS        TLSConfig

	Prefix       string // of every key
	Partitions   int
	WaitReplicas int
	PoolSize     int // to each server

	url Secret
}

// LogValue leaves out what opens the door.
func (c RedisConfig) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("mode", string(c.Mode)),
		slog.String("addresses", strings.Join(c.Addresses, " ")),
		slog.Bool("tls", c.TLS.Enabled),
		slog.String("prefix", c.Prefix),
	)
}

// String leaves out what opens the door.
func (c RedisConfig) String() string {
	return string(c.Mode) + " " + strings.Join(c.Addresses, " ")
}

// Format writes what String returns, whatever the verb.
func (c RedisConfig) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) } // fmt keeps no error

// SentinelConfig is how the Sentinels themselves are spoken to.
type SentinelConfig struct {
	Username string
	Password Secret
}

// LinkKeysConfig is where the keys lie that sign links: a directory that
// "paythread keys new" fills, or two files.
type LinkKeysConfig struct {
	Dir          string
	CurrentFile  string
	PreviousFile string
}

// AgentSessionsConfig is how long the token of an agent's browser is good.
type AgentSessionsConfig struct {
	TTL    time.Duration
	MaxTTL time.Duration
}

// EventsConfig is how events are streamed to agents.
type EventsConfig struct {
	Heartbeat       time.Duration
	Queue           int
	StreamsPerToken int // open at a time in one process
	StreamsPerKey   int // the same
}

// DispatcherConfig is how messages are sent.
type DispatcherConfig struct {
	Workers     int
	ClaimIdle   time.Duration
	SendTimeout time.Duration
	RetryAfter  time.Duration // first wait after a failure that may pass; doubles
	MaxTries    int

	SenderConcurrency int           // calls of one sender at the same time
	BreakerFailures   int           // failures in a row that open a sender's circuit breaker
	BreakerOpen       time.Duration // how long it stays open before one call is let through
}

// MerchantConfig is one business.
type MerchantConfig struct {
	ID             string
	Name           string
	Contact        string
	PublicURL      string
	Sandbox        bool
	Country        string
	Locale         string
	Currencies     []string
	APIKeys        []*APIKeyConfig
	AllowedOrigins []string
	TimeToOpen     time.Duration
	TimeToPay      time.Duration
	MaxAttempts    int
	Capture        bool
	LatePayment    conversations.LatePayment
	ReviewWithin   time.Duration
	CardTesting    conversations.CardTesting
	Fallback       conversations.Fallback
	Texts          []*TextsConfig
	Callbacks      []*CallbackConfig
	Senders        []*SenderConfig
	Platform       PlatformConfig
}

// LogValue names the merchant and nothing it keeps to itself.
func (m MerchantConfig) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", m.ID), slog.Bool("sandbox", m.Sandbox))
}

// String returns the merchant's id.
func (m MerchantConfig) String() string { return m.ID }

// Format writes what String returns, whatever the verb.
func (m MerchantConfig) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, m.String()) } // fmt keeps no error

// Host returns the host, with a port if there is one, under which the
// merchant's pages are served.
func (m *MerchantConfig) Host() string {
	_, host, _ := strings.Cut(m.PublicURL, "://")
	return host
}

// Domain returns what the domain must know of the merchant.
func (m *MerchantConfig) Domain() conversations.Merchant {
	senders := make(map[conversations.Channel]string, len(m.Senders))
	confirms := make(map[conversations.Channel]bool)
	for _, s := range m.Senders {
		senders[s.Channel] = s.ID
		if r, ok := providerNamed(s.Provider); ok && slices.Contains(r.Confirms, s.Channel) {
			confirms[s.Channel] = true
		}
	}
	return conversations.Merchant{
		ProviderConfirms: confirms,
		ID:               m.ID,
		Name:             m.Name,
		Contact:          m.Contact,
		PublicURL:        m.PublicURL,
		Sandbox:          m.Sandbox,
		Country:          m.Country,
		Locale:           m.Locale,
		Senders:          senders,
		Currencies:       m.Currencies,
		TimeToOpen:       m.TimeToOpen,
		TimeToPay:        m.TimeToPay,
		MaxAttempts:      m.MaxAttempts,
		Capture:          m.Capture,
		LatePayment:      m.LatePayment,
		ReviewWithin:     m.ReviewWithin,
		CardTesting:      m.CardTesting,
		Fallback:         m.Fallback,
		Texts:            domainTexts(m.Texts),
	}
}

// APIKeyConfig is one key with which a merchant's server calls the REST API.
type APIKeyConfig struct {
	Name   string
	Secret Secret
}

// LogValue names the key and does not show it.
func (k APIKeyConfig) LogValue() slog.Value { return slog.StringValue(k.Name) }

// String returns the key's name.
func (k APIKeyConfig) String() string { return k.Name }

// Format writes what String returns, whatever the verb.
func (k APIKeyConfig) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) } // fmt keeps no error

// SenderConfig is one sending identity of a merchant at a provider.
type SenderConfig struct {
	ID       string
	Provider string
	Channel  conversations.Channel
	// PerSecond is how many messages a second the company lets this sender
	// send; 0: what the provider's documents say.
	PerSecond int
	Settings  Settings // by the names of the provider's Registration, secrets resolved
	Merchant  *MerchantConfig
}

// LogValue names the sender and none of its settings.
func (s SenderConfig) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("id", s.ID),
		slog.String("provider", s.Provider),
		slog.String("channel", string(s.Channel)),
	)
}

// String returns the sender's id.
func (s SenderConfig) String() string { return s.ID }

// Format writes what String returns, whatever the verb.
func (s SenderConfig) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) } // fmt keeps no error

// WebhookURL returns the public address of the sender's webhooks.
func (s *SenderConfig) WebhookURL() string {
	return s.Merchant.PublicURL + "/webhooks/" + url.PathEscape(s.ID)
}

// PlatformConfig is how a merchant's customers pay.
type PlatformConfig struct {
	Name     string
	Settings Settings // by the names of the platform's Registration, secrets resolved
}

// LogValue names the platform and none of its settings.
func (p PlatformConfig) LogValue() slog.Value { return slog.StringValue(p.Name) }

// String returns the platform's name.
func (p PlatformConfig) String() string { return p.Name }

// Format writes what String returns, whatever the verb.
func (p PlatformConfig) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) } // fmt keeps no error

// Caller is whose API key was presented.
type Caller struct {
	Merchant *MerchantConfig
	Key      string // the key's name
}

// Merchant returns the merchant of that id.
func (c *Config) Merchant(id string) (*MerchantConfig, bool) {
	m, ok := c.merchants[id]
	return m, ok
}

// Sender returns the sender of that id, whichever merchant's it is.
func (c *Config) Sender(id string) (*SenderConfig, bool) {
	s, ok := c.senders[id]
	return s, ok
}

// Caller returns whose API key this is. Keys are compared by their hashes, so
// that the time it takes tells nothing about them.
func (c *Config) Caller(key string) (Caller, bool) {
	caller, ok := c.callers[sha256.Sum256([]byte(key))]
	return caller, ok
}

// MerchantsAt returns the merchants that are served under a Host header.
func (c *Config) MerchantsAt(host string) []*MerchantConfig {
	var found []*MerchantConfig
	for _, m := range c.Merchants {
		if strings.EqualFold(m.Host(), host) {
			found = append(found, m)
		}
	}
	return found
}

// index builds what the accessors look things up in. Whoever makes a Config
// without loadConfig calls it once the merchants are complete.
func (c *Config) index() {
	c.merchants = make(map[string]*MerchantConfig, len(c.Merchants))
	c.senders = make(map[string]*SenderConfig)
	c.callers = make(map[[sha256.Size]byte]Caller)
	for _, m := range c.Merchants {
		c.merchants[m.ID] = m
		for _, s := range m.Senders {
			s.Merchant = m
			c.senders[s.ID] = s
		}
		for _, k := range m.APIKeys {
			c.callers[sha256.Sum256([]byte(k.Secret.Reveal()))] = Caller{Merchant: m, Key: k.Name}
		}
	}
}

// Files returns the paths of the key that signs and of the one before it.
func (l LinkKeysConfig) Files() (current, previous string) {
	if l.Dir != "" {
		return filepath.Join(l.Dir, checkout.CurrentKeyFile), filepath.Join(l.Dir, checkout.PreviousKeyFile)
	}
	return l.CurrentFile, l.PreviousFile
}

// Store returns what conversations needs to open the store, but for the log.
func (c *Config) Store() (conversations.Options, error) {
	o, err := c.Redis.options()
	if err != nil {
		return o, err
	}
	o.Retention = c.Retention
	o.Timings = c.Timings
	for _, m := range c.Merchants {
		o.Merchants = append(o.Merchants, m.Domain())
	}
	return o, nil
}

func (c RedisConfig) options() (conversations.Options, error) {
	tls, err := c.TLS.Client()
	if err != nil {
		return conversations.Options{}, err
	}
	return conversations.Options{
		Addresses:    c.Addresses,
		MasterName:   c.MasterName,
		Cluster:      c.Mode == RedisCluster,
		Username:     c.Username,
		Password:     c.Password.Reveal(),
		SentinelUser: c.Sentinel.Username,
		SentinelPass: c.Sentinel.Password.Reveal(),
		DB:           c.Database,
		TLS:          tls,
		PoolSize:     c.PoolSize,
		Prefix:       c.Prefix,
		Partitions:   c.Partitions,
		WaitReplicas: c.WaitReplicas,
	}, nil
}
