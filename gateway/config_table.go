package main

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"paythread/conversations"
)

const (
	second = time.Second
	minute = time.Minute
	hour   = time.Hour
	day    = 24 * time.Hour
)

// placeholder begins every secret of the printed example. No production
// merchant may have one.
const placeholder = "replaceme"

// section returns the fields of the whole configuration, bound to c.
func (c *Config) section() section {
	return section{fields: []field{
		value(&c.Listen, kindText, aListenAddress, "listen", ":8080",
			"Address of the public listener: pages, webhooks, REST API. Put a TLS proxy before it.").atStart(),
		value(&c.AdminListen, kindText, aListenAddress, "admin_listen", ":9090",
			"Address of the admin listener: metrics, health, profiles. Keep it away from the internet.").atStart(),
		duration(&c.Drain, 0, 5*minute, "drain", "5s",
			"How long a process that is asked to stop goes on serving, while /readyz answers 503 already: the time that the proxies before it "+
				"need to notice. A Service of Kubernetes needs a few seconds; a proxy that asks by itself needs its interval times the failures it wants.").atStart(),
		values(&c.TrustedProxies, kindText, aProxy, "trusted_proxies", "",
			"Networks of the proxies before the public listener. Only from these is X-Forwarded-For believed; none by default, "+
				"because whoever can write the header could otherwise choose the address that limits are counted for.").atStart(),
		c.Log.field(),
		c.Redis.field().atStart(),
		c.LinkKeys.field().atStart(),
		timingsField(&c.Timings).atStart(),
		retentionField(&c.Retention).atStart(),
		c.AgentSessions.field(),
		c.Events.field().atStart(),
		c.Dispatcher.field().atStart(),
		c.Callbacks.field().atStart(),
		c.Audit.field().atStart(),
		{
			key: "merchants", kind: kindItems, required: true, identity: "id",
			doc: "The businesses that this deployment serves.",
			add: func() section {
				m := &MerchantConfig{}
				c.Merchants = append(c.Merchants, m)
				return m.section()
			},
		},
	}}
}

func (l *LogConfig) field() field {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	return group("log", "What is logged, and how. Logs go to standard error.",
		choice(&l.Level, func(s string) slog.Level { return levels[s] }, []string{"debug", "info", "warn", "error"},
			"level", "info", "The least level that is written."),
		choice(&l.Format, itself, []string{"json", "text"},
			"format", "json", "json for machines, text for people at a terminal.").atStart(),
	)
}

func (c *RedisConfig) field() field {
	modes := []string{string(RedisAuto), string(RedisSingle), string(RedisSentinel), string(RedisCluster)}
	url := secret(&c.url, aRedisURL, "url",
		"redis://[username:password@]host:port[/database], or rediss:// for TLS. More servers go into ?addr=host:port, once for "+
			"each; ?master_name=NAME says that they are Sentinels. Give this, or addresses and the fields below it.").like("redis://127.0.0.1:6379")
	return group("redis", "The store. Production wants appendonly yes, maxmemory-policy noeviction and a replica; \"paythread doctor\" looks.",
		url,
		choice(&c.Mode, func(s string) RedisMode { return RedisMode(s) }, modes, "mode", "auto",
			"How the servers are found. auto: sentinel where there is a master_name, cluster where there is more than one address, else "+
				"single. A Cluster that is known by one address needs the word."),
		values(&c.Addresses, kindText, aHostPort, "addresses", "",
			"host:port of the server, of the Sentinels, or of some nodes of the Cluster (the others are found)."),
		text(&c.MasterName, "master_name", "", "The name under which the Sentinels know the master."),
		text(&c.Username, "username", "", "User of the access list. Without it the default user."),
		secret(&c.Password, anyText, "password", "Password of that user."),
		number(&c.Database, 0, 1000, "database", "0", "Number of the database. A Cluster has only 0."),
		value(&c.Prefix, kindText, aKeyPrefix, "prefix", "pt", "Begins every key, so that several deployments can share a server."),
		number(&c.Partitions, 1, 32, "partitions", "16",
			"In how many parts the keys are spread over the masters of a Cluster. Fixed by the first start: a different number is refused later."),
		number(&c.WaitReplicas, 0, 5, "wait_replicas", "0",
			"How many replicas must have a commit that records money before it counts. 0 trusts the master alone."),
		number(&c.PoolSize, 1, 10000, "pool_size", "32", "Connections to each server."),
		group("sentinel", "How to log in to the Sentinels themselves, if they want it.",
			text(&c.Sentinel.Username, "username", "", "User of the Sentinels."),
			secret(&c.Sentinel.Password, anyText, "password", "Password of the Sentinels."),
		),
		c.TLS.field(),
	)
}

func (t *TLSConfig) field() field {
	return group("tls", "TLS to Redis. rediss:// switches it on as well.",
		toggle(&t.Enabled, "enabled", "false", "Whether the connection is encrypted."),
		text(&t.CAFile, "ca_file", "", "PEM file with the authorities to trust. Without it those of the system."),
		text(&t.CertFile, "cert_file", "", "PEM file with our certificate, where the server wants one."),
		text(&t.KeyFile, "key_file", "", "PEM file with the key of our certificate."),
		text(&t.ServerName, "server_name", "", "Name to find in the server's certificate. Without it the host of the address."),
	)
}

func (l *LinkKeysConfig) field() field {
	return group("link_keys", "The keys that sign checkout and receipt links. Make them with \"paythread keys new --dir DIR\". Give dir, or current_file.",
		text(&l.Dir, "dir", "", "Directory that \"paythread keys new\" writes.").like("keys"),
		text(&l.CurrentFile, "current_file", "", "File of the key that signs."),
		text(&l.PreviousFile, "previous_file", "", "File of the key before it. Keep it 48 hours: links live for 24."),
	)
}

func timingsField(t *conversations.Timings) field {
	const least = second / 10 // short enough for tests that wait for real
	return group("timings", "The waits of the state machines. The defaults are for production; tests shorten them.",
		duration(&t.SendWithin, least, minute, "send_within", "10s",
			"A charge is sent within this time of the commit that allows it, or never."),
		duration(&t.RecoverAfter, least, hour, "recover_after", "1m",
			"After this time without an answer the platform is asked what became of a charge. Longer than send_within."),
		durations(&t.AskAfter, least, day, "ask_after", "5m, 10m, 15m, 20m, 25m",
			"Further searches, counted from the start of the attempt. A platform's search can lag minutes behind."),
		durations(&t.LateAskAfter, least, 30*day, "late_ask_after", "1h, 24h",
			"Searches that follow even after an attempt was settled as not found, to catch money that comes late."),
		duration(&t.TokenGrace, 0, hour, "token_grace", "5m",
			"\"Not found\" is believed only this long after the transient token has expired."),
		duration(&t.AuthenticateIn, least, day, "authenticate_in", "10m",
			"How long a customer may take for 3-D Secure before it counts as abandoned."),
		duration(&t.DeclineGrace, 0, hour, "decline_grace", "5m",
			"What is left to try again after a decline when the window to pay has ended."),
		duration(&t.EchoWithin, least, day, "echo_within", "1m",
			"How long the echo of a message of unknown outcome is awaited before the message is sent again."),
		duration(&t.RetryOperationIn, least, hour, "retry_operation_in", "5s",
			"First wait before a capture, reversal or refund is tried again. It doubles each time."),
		duration(&t.CallLife, least, 10*minute, "call_life", "2m",
			"How long after it was made a capture or refund may still reach the platform. One that was never answered is not made again before."),
		duration(&t.ReviewAskEvery, least, day, "review_ask_every", "30m",
			"How often the platform is asked how the review of a payment stands. Its notifications come sooner, where they are set up."),
		duration(&t.ResendAfter, least, day, "resend_after", "2m",
			"After this time a message is sent again that a provider took and then reported as failed for a while, such as a phone that was off."),
	)
}

func retentionField(c *conversations.Retention) field {
	const most = 3650 * day
	return group("retention", "How long records are kept in Redis.",
		duration(&c.Dedupe, minute, most, "dedupe", "8d",
			"Keys that recognise an event delivered again. Meta repeats for 7 days; in production not less."),
		duration(&c.Idempotency, minute, most, "idempotency", "48h", "Idempotency-Keys of the REST API."),
		duration(&c.Chats, minute, most, "chats", "90d", "Conversations and their messages."),
		duration(&c.Money, minute, most, "money", "400d",
			"Payment requests and receipts. More than a year, for disputes and yearly accounts."),
		duration(&c.Feed, minute, most, "feed", "48h",
			"How far back GET /v1/events can resume; in production not less than 24h."),
		duration(&c.SealedOrders, minute, most, "sealed_orders", "48h",
			"Order details handed over for an agent session. A payment request keeps its own copy."),
		duration(&c.Commits, minute, most, "commits", "10m",
			"Ids of commits, which make a command that was sent twice harmless. Longer than any client goes on resending."),
	)
}

func (c *AgentSessionsConfig) field() field {
	return group("agent_sessions", "Tokens of agents' browsers.",
		duration(&c.TTL, minute, day, "ttl", "30m", "Life of a token whose maker does not say."),
		duration(&c.MaxTTL, minute, 7*day, "max_ttl", "12h", "Longest life that a maker may ask for: a long shift."),
	)
}

func (c *EventsConfig) field() field {
	return group("events", "Event streams (SSE) to agents.",
		duration(&c.Heartbeat, second, 5*minute, "heartbeat", "15s",
			"A comment goes out after this time of silence. Many proxies cut a connection after 30 or 60 seconds without a byte."),
		number(&c.Queue, 1, 10000, "queue", "64",
			"Events that may wait for a slow reader. With more the stream is cut; the reader resumes where it was."),
		number(&c.StreamsPerToken, 1, 100000, "streams_per_token", "1000",
			"Streams that one agent session token may have open at a time in each process. A further one is answered with 429."),
		number(&c.StreamsPerKey, 1, 1000000, "streams_per_key", "20000",
			"The same of one API key. A server needs a single stream: GET /v1/events has all payment requests of the merchant."),
	)
}

func (c *DispatcherConfig) field() field {
	return group("dispatcher", "Sending of messages.",
		number(&c.Workers, 1, 1000, "workers", "16", "Questions and operations about payments of one merchant that may be under way at the same time, beside all messages."),
		duration(&c.ClaimIdle, second/10, hour, "claim_idle", "30s",
			"A message left by a process that died is taken over after this time. Living ones renew their claim."),
		duration(&c.SendTimeout, second, 2*minute, "send_timeout", "15s", "How long a provider may take to answer."),
		duration(&c.RetryAfter, second/10, hour, "retry_after", "2s",
			"First wait before a message is tried again that the provider refused for now. It doubles each time; a provider that asks for more gets it."),
		number(&c.MaxTries, 1, 100, "max_tries", "8",
			"Tries after which such a message counts as failed. With the default wait, two to four minutes later."),
		number(&c.SenderConcurrency, 1, 1000, "sender_concurrency", "8",
			"Messages of one sender that may be on their way at the same time, so that a slow provider leaves room for the others."),
		number(&c.BreakerFailures, 1, 1000, "breaker_failures", "5",
			"Faults in a row (no answer, server errors) after which a sender is left alone for breaker_open."),
		duration(&c.BreakerOpen, second/10, hour, "breaker_open", "15s",
			"How long a sender is left alone after breaker_failures. Then one message is let through, and its outcome decides."),
	)
}

func (m *MerchantConfig) section() section {
	late := func(to *bool, key, def, doc string) field {
		return choice(to, func(s string) bool { return s == "reverse" }, []string{"keep", "reverse"}, key, def, doc)
	}
	return section{fields: []field{
		value(&m.ID, kindText, anID, "id", "", "Names the merchant in the API, in logs and in keys of the store. It cannot change later.").names().like("acme"),
		value(&m.Name, kindText, aShortText, "name", "", "Name of the business as customers read it.").must().like("Acme Outfitters"),
		value(&m.Contact, kindText, aShortText, "contact", "", "How customers reach the business; stands on receipts.").like("help@acme.example, +27 21 555 0100"),
		value(&m.PublicURL, kindText, aPublicURL, "public_url", "",
			"Base of the merchant's links and webhooks, https. Several merchants may share a host or have their own. http is taken for loopback only.").must().like("https://pay.acme.example"),
		choice(&m.Sandbox, func(s string) bool { return s == "sandbox" }, []string{"sandbox", "production"}, "environment", "",
			"sandbox shows \"test payment\" everywhere. There is no default: nobody shall take real money, or fail to, by leaving a line out.").must().like("sandbox").atStart(),
		value(&m.Country, kindText, aCountry, "country", "", "How phone numbers in national form are read.").must().like("ZA"),
		value(&m.Locale, kindText, aLocale, "locale", "en", "Language of messages and pages where a request does not say. Messages ship in "+strings.Join(conversations.Locales(), ", ")+
			"; a locale such as de-AT falls back to its language, and one without texts to English."),
		values(&m.Currencies, kindText, aCurrency, "currencies", "", "Currencies that are taken. Without it every one.").like("ZAR"),
		{
			key: "api_keys", kind: kindItems, required: true, identity: "name",
			doc: "Keys with which the merchant's servers call the REST API. To change one, add the new one, move the servers, remove the old one.",
			add: func() section {
				k := &APIKeyConfig{}
				m.APIKeys = append(m.APIKeys, k)
				f := secret(&k.Secret, anAPIKey, "secret", "The key itself, at least 24 characters of the kind \"openssl rand -base64 32\" makes.").must()
				return section{fields: []field{
					value(&k.Name, kindText, anID, "name", "", "Names the key in logs.").names().like("oms"),
					f.like(placeholder + "-with-a-long-random-key"),
				}}
			},
		},
		values(&m.AllowedOrigins, kindText, anOrigin, "allowed_origins", "",
			"Origins of the web pages that embed the agent's panel.").like("https://oms.acme.example"),
		duration(&m.TimeToOpen, second, 30*day, "time_to_open", "24h", "How long a customer may take to open the link."),
		duration(&m.TimeToPay, second, day, "time_to_pay", "15m", "How long a customer may take to pay once it is opened. The customer can extend it."),
		number(&m.MaxAttempts, 1, 50, "max_attempts", "5", "Declined tries after which a payment request fails."),
		toggle(&m.Capture, "capture", "true", "true takes the money at once; false holds it until it is captured."),
		group("late_payment", "What is done with money that comes after the end: keep it and tell the agent, or reverse it.",
			late(&m.LatePayment.ReverseAfterExpiry, "after_expiry", "keep", "After the window has ended. The customer wanted to pay."),
			late(&m.LatePayment.ReverseAfterFailure, "after_failure", "keep", "After the most attempts."),
			late(&m.LatePayment.ReverseAfterCancellation, "after_cancellation", "reverse", "After the merchant cancelled: it no longer wants the money."),
		),
		duration(&m.ReviewWithin, 0, 30*day, "review_within", "0s",
			"A payment that is under review for longer is given back by itself. 0s never: the reviewers take what they take."),
		cardTestingField(&m.CardTesting),
		group("fallback", "When messages about a payment request go by SMS instead of WhatsApp, with the same link. Never past an opt-out.",
			toggle(&m.Fallback.OnFailure, "on_failure", "true", "When WhatsApp has failed for good, such as a number without WhatsApp."),
			duration(&m.Fallback.After, 0, day, "after", "0s",
				"When a message has not been delivered on WhatsApp after this time. 0s never: an SMS costs money, and a phone that is off gets both later."),
		),
		m.textsField(),
		m.callbacksField(),
		{
			key: "senders", kind: kindItems, required: true, identity: "id",
			doc: "The merchant's sending identities: at most one for each channel.",
			add: func() section {
				s := &SenderConfig{Merchant: m, Settings: Settings{}}
				m.Senders = append(m.Senders, s)
				return s.section()
			},
		},
		{key: "platform", kind: kindSection, doc: "How the merchant's customers pay.", section: m.Platform.section()},
	}}
}

func cardTestingField(c *conversations.CardTesting) field {
	return group("card_testing", "Against people who try stolen cards. Beside max_attempts, which is of one payment request, these count over all of the merchant's.",
		duration(&c.Window, minute, 30*day, "window", "24h", "In what time tries count."),
		number(&c.ContactTries, 1, 10000, "contact_tries", "10", "Declined tries of one customer in that time, after which no further is taken."),
		number(&c.AddressTries, 1, 100000, "address_tries", "30",
			"Tries from one address on the internet in that time. Several customers may share one: an office, a mobile network. Set trusted_proxies, or all share the proxy's."),
		number(&c.FreeDeclines, 0, 1000, "free_declines", "3", "Declines after which the next try need not wait: people mistype, and have more than one card."),
		duration(&c.FirstDelay, 0, hour, "first_delay", "10s", "Wait after the first decline beyond those. It doubles each time."),
		duration(&c.LongestDelay, 0, day, "longest_delay", "1h", "The wait does not grow beyond this."),
	)
}

func (s *SenderConfig) section() section {
	var names []string
	var variants []variant
	for _, p := range providerRegistrations {
		names = append(names, p.Name)
		v := variant{name: p.Name, samples: map[string]string{"provider": p.Name}}
		if slices.Contains(p.Channels, conversations.SMS) {
			v.samples["id"], v.samples["channel"] = "acme-sms", string(conversations.SMS)
		}
		for _, x := range p.Settings {
			v.fields = append(v.fields, s.Settings.field(x.Name, x.Doc, x.Default, x.Secret, x.Required).like(exampleSettings[p.Name][x.Name]))
		}
		variants = append(variants, v)
	}
	channels := channelNames(conversations.Channels)
	return section{
		fields: []field{
			value(&s.ID, kindText, anID, "id", "", "Names the sender in the webhook's path, over all merchants. The provider is given PUBLIC_URL/webhooks/ID.").names().like("acme-whatsapp"),
			choice(&s.Provider, itself, names, "provider", "", "The messaging company.").must().like(names[0]),
			choice(&s.Channel, func(w string) conversations.Channel { return conversations.Channel(w) }, channels, "channel", "", "What the sender is for.").must().like(channels[0]),
			number(&s.PerSecond, 0, 10000, "per_second", "0",
				"Messages a second that the company lets this sender send. 0 is what its documents say of an ordinary sender."),
		},
		by:       "provider",
		chosen:   func() string { return s.Provider },
		variants: variants,
	}
}

func (p *PlatformConfig) section() section {
	p.Settings = Settings{}
	var names []string
	var variants []variant
	for _, r := range platformRegistrations {
		names = append(names, r.Name)
		v := variant{name: r.Name}
		for _, x := range r.Settings {
			f := p.Settings.field(x.Name, x.Doc, x.Default, x.Secret, x.Required).like(exampleSettings[r.Name][x.Name])
			f.restart = x.Account
			if x.Name == merchantsCountry {
				f.required, f.doc = false, f.doc+" Without it the merchant's country."
			}
			v.fields = append(v.fields, f)
		}
		variants = append(variants, v)
	}
	return section{
		fields: []field{
			choice(&p.Name, itself, names, "name", "", "The payment platform.").must().like(names[0]).atStart(),
		},
		by:       "name",
		chosen:   func() string { return p.Name },
		variants: variants,
	}
}

// sentence gives a remark the form that the other explanations have.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// field makes a field of one setting of a provider or platform.
func (s Settings) field(name, doc, def string, isSecret, required bool) field {
	return field{
		key: name, kind: kindText, doc: sentence(doc), def: def, secret: isSecret, required: required && def == "",
		set: func(written string) error { s[name] = written; return nil },
	}
}
