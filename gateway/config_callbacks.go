package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"paythread/conversations"
)

// CallbacksConfig is how events are delivered to the merchants' systems.
type CallbacksConfig struct {
	AllowPrivate bool
	Timetable    []time.Duration // waits before each try
	Timeout      time.Duration   // of one try
	Concurrency  int             // tries at one endpoint at the same time, in one process
	DisableAfter time.Duration
	Keep         time.Duration
}

// options returns what the domain must know of it.
func (c CallbacksConfig) options() conversations.CallbackOptions {
	return conversations.CallbackOptions{Keep: c.Keep, DisableAfter: c.DisableAfter, Timetable: c.Timetable}
}

func (c *CallbacksConfig) field() field {
	return group("callbacks", "Delivery of events to the merchants' own systems, signed; see docs/callbacks.md.",
		toggle(&c.AllowPrivate, "allow_private", "false",
			"Whether endpoints may be http, and may lie in private networks or on this machine. Leave it off where merchants who set "+
				"endpoints by the API are not to reach what stands behind your firewall."),
		durations(&c.Timetable, 0, 7*day, "timetable", "0s, 5s, 30s, 2m, 10m, 30m, 1h, 2h, 5h, 10h, 14h, 20h, 24h",
			"The wait before each try, the first one included. Each is made a tenth shorter or longer at random. After the last one the event is given up."),
		duration(&c.Timeout, second/10, minute, "timeout", "15s", "How long an endpoint may take to answer."),
		number(&c.Concurrency, 1, 100, "concurrency", "4", "Deliveries to one endpoint that a process may make at the same time."),
		duration(&c.DisableAfter, second, 90*day, "disable_after", "3d",
			"An endpoint at which every try has failed for so long is switched off. Events wait for it meanwhile, until they are forgotten."),
		duration(&c.Keep, minute, 365*day, "keep", "30d", "How long deliveries can be listed and made again."),
	)
}

// CallbackConfig is an endpoint of a merchant that stands in the configuration.
type CallbackConfig struct {
	ID             string
	URL            string
	Secret         Secret
	SecretPrevious Secret
	Events         []string
}

// LogValue names the endpoint and none of its settings.
func (c CallbackConfig) LogValue() slog.Value { return slog.StringValue(c.ID) }

// String returns the endpoint's id.
func (c CallbackConfig) String() string { return c.ID }

// Format writes what String returns, whatever the verb.
func (c CallbackConfig) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) } // fmt keeps no error

// secrets returns what signs, the newest first.
func (c *CallbackConfig) secrets() []string {
	secrets := []string{c.Secret.Reveal()}
	if c.SecretPrevious != "" {
		secrets = append(secrets, c.SecretPrevious.Reveal())
	}
	return secrets
}

// endpoint returns the endpoint as the domain keeps it: without its secrets.
func (c *CallbackConfig) endpoint() conversations.CallbackEndpoint {
	return conversations.CallbackEndpoint{ID: c.ID, URL: c.URL, Events: c.Events}
}

func (m *MerchantConfig) callbacksField() field {
	return field{
		key: "callbacks", kind: kindItems, identity: "id",
		doc: fmt.Sprintf("Addresses of the merchant's systems that every event is sent to. With those that are made by the API at most %d. They "+
			"cannot be changed by the API.", conversations.MaxCallbackEndpoints),
		add: func() section {
			c := &CallbackConfig{}
			m.Callbacks = append(m.Callbacks, c)
			sample := callbackSecretPrefix + base64.StdEncoding.EncodeToString([]byte(placeholder+"-with-32-random-bytes"))
			return section{fields: []field{
				value(&c.ID, kindText, anID, "id", "", "Names the endpoint among the merchant's.").names().like("erp"),
				value(&c.URL, kindText, anyText, "url", "", "Where events are sent: https.").must().like("https://erp.acme.example/paythread"),
				secret(&c.Secret, aCallbackSecret, "secret",
					"What signs them: whsec_ and 24 to 64 random bytes in base64, such as \"openssl rand -base64 32\" makes.").must().like(sample),
				secret(&c.SecretPrevious, aCallbackSecret, "secret_previous", "The secret before it, which signs as well until the systems know the new one."),
				values(&c.Events, kindText, anEventFilter, "events", "",
					"Types that are sent, such as payment_request.paid, or payment_request.* for all that begin so. Without it every one."),
			}}
		},
	}
}

const (
	callbackSecretPrefix = "whsec_"
	leastCallbackSecret  = 24 // bytes, as the Standard Webhooks scheme says
	mostCallbackSecret   = 64
)

func aCallbackSecret(s string) (string, error) {
	if _, err := parseCallbackSecret(s); err != nil {
		return "", err
	}
	return s, nil
}

// parseCallbackSecret returns the key that a secret stands for.
func parseCallbackSecret(s string) ([]byte, error) {
	text, ok := strings.CutPrefix(s, callbackSecretPrefix)
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(key) < leastCallbackSecret || len(key) > mostCallbackSecret {
		return nil, fmt.Errorf("want %s and %d to %d random bytes in base64", callbackSecretPrefix, leastCallbackSecret, mostCallbackSecret)
	}
	return key, nil
}

// anEventFilter allows the types of events that there are, each kind's with *,
// and * for all. A type that is misspelt would never be sent.
func anEventFilter(s string) (string, error) {
	kind, all := strings.CutSuffix(s, "*")
	known := slices.ContainsFunc(callbackTypes(), func(t string) bool {
		return t == s || all && strings.HasPrefix(t, kind) && (kind == "" || strings.HasSuffix(kind, "."))
	})
	if !known {
		return "", fmt.Errorf("want the type of an event, such as payment_request.paid, or payment_request.* for all of a kind; docs/callbacks.md lists them")
	}
	return s, nil
}

// checkCallbacks looks at a merchant's endpoints together.
func (m *MerchantConfig) checkCallbacks(r *reader, path string, allowPrivate bool) {
	if len(m.Callbacks) > conversations.MaxCallbackEndpoints {
		r.problem(path+".callbacks", "has %d endpoints, want at most %d", len(m.Callbacks), conversations.MaxCallbackEndpoints)
	}
	ids := map[string]string{}
	for i, c := range m.Callbacks {
		p := fmt.Sprintf("%s.callbacks[%d]", path, i)
		unique(r, ids, c.ID, p+".id", "is the id of %s too, want one for each endpoint of a merchant")
		if c.URL != "" && r.fine(p+".url") {
			if err := checkCallbackURL(c.URL, allowPrivate); err != nil {
				r.problem(p+".url", "is wrong, %v", err)
			}
		}
		if key, err := parseCallbackSecret(c.Secret.Reveal()); err == nil && strings.HasPrefix(string(key), placeholder) {
			r.unfilled = append(r.unfilled, p+".secret")
		}
	}
}
