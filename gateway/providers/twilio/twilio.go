// Package twilio speaks Twilio's Programmable Messaging API for SMS: webhooks
// with X-Twilio-Signature, and POST .../Accounts/{sid}/Messages.json.
//
// Twilio has no idempotency key on send, and its status callbacks bring no
// value of ours back; so each message gets a StatusCallback address of its own
// whose query holds the correlation value.
package twilio

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// The limits, from Twilio's page on the Message resource.
const (
	maxBody     = 1600  // characters of Body; more is error 21617
	maxValidity = 36000 // seconds of ValidityPeriod
	maxID       = 64    // ours: a SID has 34 characters
)

var settings = []providers.Setting{
	{Name: "base_url", Default: "https://api.twilio.com", Required: true, Doc: "Address of Twilio's REST API."},
	{Name: "account_sid", Required: true, Doc: "The account (AC...) that owns the number or the messaging service."},
	{Name: "auth_token", Secret: true, Required: true, Doc: "The account's auth token: webhooks are signed with it, whatever messages are sent with."},
	{Name: "auth_token_previous", Secret: true, Doc: "The token before the last rotation, accepted from webhooks as well."},
	{Name: "api_key_sid", Doc: "An API key (SK...) to send with, instead of the auth token."},
	{Name: "api_key_secret", Secret: true, Doc: "The secret of the API key."},
	{Name: "from", Doc: "Number (+...), short code or name that messages come from. This or messaging_service_sid, or both."},
	{Name: "messaging_service_sid", Doc: "Messaging service (MG...) that picks the number."},
	{Name: "validity_period", Doc: "Seconds, 1 to 36000, after which a message that still waits is given up. Twilio's default when empty."},
}

// Registration is Twilio for the registry.
var Registration = providers.Registration{
	Name:     "twilio",
	Channels: []conversations.Channel{conversations.SMS},
	Confirms: []conversations.Channel{conversations.SMS}, // default replies and Advanced Opt-Out alike
	Settings: settings,
	New: func(s providers.Settings, c *http.Client, log *slog.Logger) (providers.Provider, error) {
		return New(s, c, log)
	},
}

// Provider is one SMS sender at Twilio. It implements providers.Provider and
// providers.Answerer.
type Provider struct {
	senderID    string
	accountSID  string
	tokens      [][]byte // current and previous auth token: the keys of signatures
	user        string   // of Basic authentication
	password    string
	messagesURL string
	from        string
	serviceSID  string
	validity    string
	callback    *url.URL
	client      *http.Client
	log         *slog.Logger
}

var (
	accountForm = regexp.MustCompile(`^AC[0-9a-f]{32}$`)
	keyForm     = regexp.MustCompile(`^SK[0-9a-f]{32}$`)
	serviceForm = regexp.MustCompile(`^MG[0-9a-f]{32}$`)
	fromForm    = regexp.MustCompile(`^(\+[1-9][0-9]{6,14}|[0-9]{3,8}|[A-Za-z0-9 ]{1,11})$`)
)

// New returns the adapter for one sender. Its error names every setting that
// is missing or wrong.
func New(s providers.Settings, client *http.Client, log *slog.Logger) (*Provider, error) {
	s, err := s.Complete(settings)
	base, baseErr := s.BaseURL("base_url")
	callback, callbackErr := url.Parse(s.WebhookURL)
	problems := []error{err, baseErr}
	check := func(name string, form *regexp.Regexp, say string) {
		if v := s.Values[name]; v != "" && !form.MatchString(v) {
			problems = append(problems, fmt.Errorf("%s %s", name, say))
		}
	}
	check("account_sid", accountForm, "must be AC and 32 hexadecimal digits")
	check("api_key_sid", keyForm, "must be SK and 32 hexadecimal digits")
	check("messaging_service_sid", serviceForm, "must be MG and 32 hexadecimal digits")
	check("from", fromForm, "must be an international number with +, a short code, or a name of at most 11 characters")
	if (s.Values["api_key_sid"] == "") != (s.Values["api_key_secret"] == "") {
		problems = append(problems, errors.New("api_key_sid and api_key_secret go together"))
	}
	if s.Values["from"] == "" && s.Values["messaging_service_sid"] == "" {
		problems = append(problems, errors.New("from or messaging_service_sid is missing"))
	}
	if v := s.Values["validity_period"]; v != "" {
		if n, err := strconv.Atoi(v); err != nil || n < 1 || n > maxValidity {
			problems = append(problems, fmt.Errorf("validity_period must be 1 to %d seconds", maxValidity))
		}
	}
	if callbackErr != nil || callback.Host == "" {
		problems = append(problems, errors.New("the address of the sender's webhooks is missing"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("twilio: %w", err)
	}

	p := &Provider{
		senderID:    s.SenderID,
		accountSID:  s.Values["account_sid"],
		user:        s.Values["account_sid"],
		password:    s.Values["auth_token"],
		messagesURL: base + "/2010-04-01/Accounts/" + s.Values["account_sid"] + "/Messages.json",
		from:        s.Values["from"],
		serviceSID:  s.Values["messaging_service_sid"],
		validity:    s.Values["validity_period"],
		callback:    callback,
		client:      providers.WithoutRedirects(client),
		log:         log.With("provider", "twilio", "sender", s.SenderID),
	}
	if s.Values["api_key_sid"] != "" {
		p.user, p.password = s.Values["api_key_sid"], s.Values["api_key_secret"]
	}
	for _, name := range []string{"auth_token", "auth_token_previous"} {
		if v := s.Values[name]; v != "" {
			p.tokens = append(p.tokens, []byte(v))
		}
	}
	return p, nil
}

// LogValue keeps the secrets out of logs.
func (p *Provider) LogValue() slog.Value {
	return slog.GroupValue(slog.String("provider", "twilio"), slog.String("sender", p.senderID))
}

// Answer is the empty TwiML document: Twilio would send an answer in plain text
// to the customer.
func (*Provider) Answer() (contentType, body string) {
	return "text/xml", `<?xml version="1.0" encoding="UTF-8"?><Response/>`
}
