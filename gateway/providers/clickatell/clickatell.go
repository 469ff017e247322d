// Package clickatell speaks Clickatell's One API for SMS and WhatsApp: POST
// /v1/message, and the callbacks of the One API and of the older REST API.
//
// Clickatell signs nothing. A callback is trusted because it comes to an
// address that ends in a secret, or with the user and password that were typed
// into its portal, or both.
package clickatell

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// The limits. Those of messages are from the One API's pages on plain text;
// Clickatell publishes none for ids, parameters and batches of callbacks.
const (
	maxWhatsApp  = 4096 // characters of content
	maxSMS       = 1600 // ours: about ten parts; too many are error 100
	maxParameter = 512  // ours: a whole template body has 1024
	maxID        = 128  // ours: an id has 32 characters
	maxName      = 128  // ours: a profile's name
	maxElements  = 1024 // ours: a list holds one element today

	shortestSecret   = 32 // ours: 32 random characters of the alphabet below are 192 bits
	shortestPassword = 16 // ours
)

// limits are conservative: Clickatell publishes no rate for the One API, only
// that there is one (error 43). The pair limit is WhatsApp's own, one message
// in six seconds to one customer after a burst.
var limits = map[conversations.Channel]providers.Limits{
	conversations.SMS:      {PerSecond: 10, Burst: 10},
	conversations.WhatsApp: {PerSecond: 10, Burst: 10, PairEvery: 6 * time.Second, PairBurst: 10},
}

// unverified ends what a template's setting says.
const unverified = " One name for all languages, or one a language: en=NAME, de=NAME. Unverified: Clickatell's only public description of templates is from 2019, so send one to yourself before customers get it."

var settings = []providers.Setting{
	{Name: "base_url", Default: "https://platform.clickatell.com", Required: true, Doc: "Address of Clickatell's One API."},
	{Name: "api_key", Secret: true, Required: true, Doc: "The API key of the One API integration."},
	{Name: "integration_id", Doc: "The id of the integration. When set, callbacks of other integrations are not taken for ours."},
	{Name: "from", Doc: "Two-way number of the integration that messages come from, in digits. Clickatell's choice when empty."},
	{Name: "webhook_secret", Secret: true, Doc: "Last part of the callback addresses: PUBLIC_URL/webhooks/ID/SECRET. At least 32 random letters, digits, - and _. This or webhook_user, or both."},
	{Name: "webhook_secret_previous", Secret: true, Doc: "The secret before the last rotation, accepted as well."},
	{Name: "webhook_user", Doc: "User that callbacks must come with (HTTP Basic), as typed into Clickatell's portal."},
	{Name: "webhook_password", Secret: true, Doc: "Password of webhook_user, at least 16 characters."},
	{Name: "webhook_password_previous", Secret: true, Doc: "The password before the last rotation, accepted as well."},
	{Name: "template_language", Default: "en", Required: true, Doc: "WhatsApp: the language of a template for customers in whose language there is none."},
	{Name: "template_payment", Doc: "WhatsApp template that asks to pay: {{1}} merchant, {{2}} amount, {{3}} order, and PUBLIC_URL/p/{{4}}." + unverified},
	{Name: "template_receipt", Doc: "WhatsApp template with the receipt: {{1}} merchant, {{2}} amount, {{3}} order, and PUBLIC_URL/r/{{4}}." + unverified},
	{Name: "template_cancelled", Doc: "WhatsApp template for a cancelled request: {{1}} merchant, {{2}} order." + unverified},
	{Name: "template_refund", Doc: "WhatsApp template for money that went back: {{1}} merchant, {{2}} amount, {{3}} order, and PUBLIC_URL/r/{{4}}." + unverified},
}

// Registration is Clickatell for the registry. It confirms no opt-out by
// itself unless an integration is set up so, which its API does not tell.
var Registration = providers.Registration{
	Name:     "clickatell",
	Channels: []conversations.Channel{conversations.SMS, conversations.WhatsApp},
	Settings: settings,
	Limits:   limits,
	Codes:    codes,
	New: func(s providers.Settings, c *http.Client, log *slog.Logger) (providers.Provider, error) {
		return New(s, c, log)
	},
}

// Provider is one sender at Clickatell, on one channel of one integration. It
// implements providers.Provider, providers.Templater and providers.Checker.
type Provider struct {
	senderID    string
	channel     conversations.Channel
	siblings    map[string]string // by channel: one integration has one callback address for both
	integration string
	webhookURL  string
	addresses   [][sha256.Size]byte // what a callback's address may be
	users       [][sha256.Size]byte // what its user and password may be; none: not asked for
	secret      string              // how good it is, is asked by the doctor only
	base        string
	apiKey      string
	from        string
	templates   map[conversations.Purpose]providers.Translations
	client      *http.Client
	log         *slog.Logger
}

var (
	digitsForm = regexp.MustCompile(`^[0-9]{3,15}$`)
	secretForm = regexp.MustCompile(`^[A-Za-z0-9_-]{32,128}$`)
	idForm     = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
	headerForm = regexp.MustCompile(`^[!-~]+$`)
	userForm   = regexp.MustCompile(`^[^:[:cntrl:]]{1,128}$`)
)

// New returns the adapter for one sender. Its error names every setting that
// is missing or wrong.
func New(s providers.Settings, client *http.Client, log *slog.Logger) (*Provider, error) {
	s, err := s.Complete(settings)
	base, baseErr := s.BaseURL("base_url")
	problems := []error{err, baseErr}
	check := func(name string, form *regexp.Regexp, say string) {
		if v := s.Values[name]; v != "" && !form.MatchString(v) {
			problems = append(problems, fmt.Errorf("%s %s", name, say))
		}
	}
	check("api_key", headerForm, "must not hold white space")
	check("integration_id", idForm, "must be an id as Clickatell shows it")
	check("from", digitsForm, "must be a number in digits, with its country code and without +")
	for _, name := range []string{"webhook_secret", "webhook_secret_previous"} {
		check(name, secretForm, fmt.Sprintf("must be %d to 128 letters, digits, - and _", shortestSecret))
	}
	check("webhook_user", userForm, "must be at most 128 characters without a colon")
	for _, name := range []string{"webhook_password", "webhook_password_previous"} {
		if v := s.Values[name]; v != "" && len(v) < shortestPassword {
			problems = append(problems, fmt.Errorf("%s must have at least %d characters", name, shortestPassword))
		}
	}
	templates, templatesErr := readTemplates(s)
	problems = append(problems, templatesErr)
	if s.Channel != conversations.SMS && s.Channel != conversations.WhatsApp {
		problems = append(problems, errors.New("the sender's channel is neither sms nor whatsapp"))
	}
	if u, err := url.Parse(s.WebhookURL); err != nil || u.Host == "" {
		problems = append(problems, errors.New("the address of the sender's webhooks is missing"))
	}
	problems = append(problems, trust(s.Values)...)
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("clickatell: %w", err)
	}

	p := &Provider{
		senderID:    s.SenderID,
		channel:     s.Channel,
		siblings:    s.Siblings,
		integration: s.Values["integration_id"],
		webhookURL:  s.WebhookURL,
		secret:      s.Values["webhook_secret"],
		base:        base,
		apiKey:      s.Values["api_key"],
		from:        s.Values["from"],
		templates:   templates,
		client:      providers.WithoutRedirects(client),
		log:         log.With("provider", "clickatell", "sender", s.SenderID),
	}
	for _, name := range []string{"webhook_secret", "webhook_secret_previous"} {
		if v := s.Values[name]; v != "" {
			p.addresses = append(p.addresses, sha256.Sum256([]byte(s.WebhookURL+"/"+v)))
		}
	}
	if len(p.addresses) == 0 { // user and password alone, at the bare address
		p.addresses = append(p.addresses, sha256.Sum256([]byte(s.WebhookURL)))
	}
	for _, name := range []string{"webhook_password", "webhook_password_previous"} {
		if v := s.Values[name]; v != "" {
			p.users = append(p.users, sha256.Sum256([]byte(s.Values["webhook_user"]+":"+v)))
		}
	}
	return p, nil
}

// trust tells what is missing for callbacks to be told from forgeries.
func trust(v map[string]string) []error {
	var problems []error
	if v["webhook_secret"] == "" && v["webhook_user"] == "" {
		problems = append(problems, errors.New("webhook_secret or webhook_user is missing: Clickatell signs nothing"))
	}
	if (v["webhook_user"] == "") != (v["webhook_password"] == "") {
		problems = append(problems, errors.New("webhook_user and webhook_password go together"))
	}
	for _, name := range []string{"webhook_secret", "webhook_password"} {
		if v[name] == "" && v[name+"_previous"] != "" {
			problems = append(problems, fmt.Errorf("%s_previous without %s", name, name))
		}
	}
	return problems
}

// LogValue keeps the secrets out of logs.
func (p *Provider) LogValue() slog.Value {
	return slog.GroupValue(slog.String("provider", "clickatell"), slog.String("sender", p.senderID))
}

// digits is a phone number as Clickatell writes it.
func digits(a conversations.Address) string { return strings.TrimPrefix(a.Value, "+") }
