// Package twilio speaks Twilio's Programmable Messaging API, for SMS and for
// WhatsApp: webhooks with X-Twilio-Signature, and POST
// .../Accounts/{sid}/Messages.json. One Provider is one sender on one of the
// two channels; what tells them apart on the wire is the prefix "whatsapp:" of
// the addresses.
//
// Twilio has no idempotency key on send, and its status callbacks bring no
// value of ours back; so each message gets a StatusCallback address of its own
// whose query holds the correlation value. When an answer is lost, Twilio's
// list of messages is asked (Ask).
//
// By default Twilio delivers a webhook once more only when it could not
// connect. The end of an address, from "#", says otherwise (Overrides): this
// package puts it on every StatusCallback, and the merchant on the address of
// the number or the messaging service. It is neither sent nor signed.
package twilio

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// The limits, from Twilio's page on the Message resource.
const (
	maxBody     = 1600  // characters of Body; more is error 21617
	maxValidity = 36000 // seconds of ValidityPeriod; pages before 2025 say 14400
	maxID       = 64    // ours: a SID has 34 characters
	maxName     = 128   // ours: a profile's name
	maxButton   = 256   // characters of a button's id, as of Outbound.Buttons
	maxVariable = 512   // ours: a whole template body has 1024 characters
)

// limits are how fast a sender may send. Twilio takes messages faster than a
// number may send them and queues up to ten hours' worth (error 21611 beyond);
// so for SMS the rate of its fastest kind of number stands here, a short
// code's. A US long code sends 1 a second and a toll-free number 3.
// WhatsApp's are a WhatsApp number's; the pair limit is Meta's own.
var limits = map[conversations.Channel]providers.Limits{
	conversations.SMS:      {PerSecond: 100, Burst: 100},
	conversations.WhatsApp: {PerSecond: 80, Burst: 80, PairEvery: 6 * time.Second, PairBurst: 45},
}

// Overrides is the end of a webhook's address that lets Twilio retry: three
// times, when it could not connect, got no answer in time or a 5xx. Without it
// a restart of ours loses what it met.
const Overrides = "#rc=3&rp=ct,rt,5xx"

var settings = []providers.Setting{
	{Name: "base_url", Default: "https://api.twilio.com", Required: true, Doc: "Address of Twilio's REST API."},
	{Name: "messaging_url", Doc: "Address of the API that shows a customer on WhatsApp that an answer is being written, and of messaging services. Empty: base_url, with messaging. in place of api. where that is Twilio's."},
	{Name: "content_url", Doc: "Address of the API of Content templates, which paythread doctor asks. Empty: base_url, with content. in place of api. where that is Twilio's."},
	{Name: "account_sid", Required: true, Doc: "The account (AC...) that owns the number or the messaging service."},
	{Name: "auth_token", Secret: true, Required: true, Doc: "The account's auth token: webhooks are signed with it, whatever messages are sent with."},
	{Name: "auth_token_previous", Secret: true, Doc: "The token before the last rotation, accepted from webhooks as well."},
	{Name: "api_key_sid", Doc: "An API key (SK...) to send with, instead of the auth token."},
	{Name: "api_key_secret", Secret: true, Doc: "The secret of the API key."},
	{Name: "from", Doc: "Number (+...) that messages come from; on SMS a short code or a name as well. This or messaging_service_sid, or both."},
	{Name: "messaging_service_sid", Doc: "Messaging service (MG...) that picks the number."},
	{Name: "validity_period", Doc: "Seconds, 1 to 36000, after which a message that still waits is given up. Twilio's default when empty."},
	{Name: "content_language", Default: "en", Doc: "WhatsApp: the language of a template for customers in whose language there is none."},
	{Name: "content_payment", Doc: "WhatsApp: Content template (HX...) that asks to pay, with the variables merchant, amount, order, link code. One for all, or one a language: en=HX..., de=HX..."},
	{Name: "content_receipt", Doc: "WhatsApp: Content template with the receipt, of the same variables and form."},
	{Name: "content_cancelled", Doc: "WhatsApp: Content template for a cancelled request, with the variables merchant, order; of the same form."},
	{Name: "content_refund", Doc: "WhatsApp: Content template for money that went back, of the variables and form of the receipt's."},
}

// Registration is Twilio for the registry.
var Registration = providers.Registration{
	Name:     "twilio",
	Channels: []conversations.Channel{conversations.SMS, conversations.WhatsApp},
	Confirms: []conversations.Channel{conversations.SMS}, // default replies and Advanced Opt-Out alike; nobody does on WhatsApp
	Settings: settings,
	Limits:   limits,
	Codes:    codes,
	New: func(s providers.Settings, c *http.Client, log *slog.Logger) (providers.Provider, error) {
		return New(s, c, log)
	},
}

// Provider is one sender at Twilio, on SMS or on WhatsApp. It implements
// providers.Provider, Answerer, Templater, Reader, Asker and Checker.
type Provider struct {
	senderID     string
	channel      conversations.Channel
	siblings     map[string]string
	accountSID   string
	tokens       [][]byte // current and previous auth token: the keys of signatures
	user         string   // of Basic authentication
	password     string
	accountURL   string // .../Accounts/{sid}, without .json
	messagesURL  string
	messagingURL string
	contentURL   string
	from         string // as Twilio spells it, with the channel's prefix
	serviceSID   string
	validity     string
	contents     map[conversations.Purpose]providers.Translations
	callback     *url.URL
	client       *http.Client
	log          *slog.Logger
}

var (
	accountForm = regexp.MustCompile(`^AC[0-9a-f]{32}$`)
	keyForm     = regexp.MustCompile(`^SK[0-9a-f]{32}$`)
	serviceForm = regexp.MustCompile(`^MG[0-9a-f]{32}$`)
	fromForm    = regexp.MustCompile(`^(\+[1-9][0-9]{6,14}|[0-9]{3,8}|[A-Za-z0-9 ]{0,10}[A-Za-z][A-Za-z0-9 ]{0,10})$`)
)

// maxSenderName is how long a name may be that messages come from. One of
// digits alone would be a national number.
const maxSenderName = 11

// whatsAppPrefix marks an address of WhatsApp.
const whatsAppPrefix = "whatsapp:"

// New returns the adapter for one sender, for SMS unless the settings say
// WhatsApp. Its error names every setting that is missing or wrong.
func New(s providers.Settings, client *http.Client, log *slog.Logger) (*Provider, error) {
	s, err := s.Complete(settings)
	base, baseErr := s.BaseURL("base_url")
	problems := []error{err, baseErr}
	add := func(err error) { problems = append(problems, err) }
	p := &Provider{
		senderID:   s.SenderID,
		channel:    conversations.SMS,
		siblings:   s.Siblings,
		accountSID: s.Values["account_sid"],
		user:       s.Values["account_sid"],
		password:   s.Values["auth_token"],
		accountURL: base + "/2010-04-01/Accounts/" + s.Values["account_sid"],
		from:       s.Values["from"],
		serviceSID: s.Values["messaging_service_sid"],
		validity:   s.Values["validity_period"],
		client:     providers.WithoutRedirects(client),
		log:        log.With("provider", "twilio", "sender", s.SenderID),
	}
	p.messagesURL = p.accountURL + "/Messages.json"
	for name, into := range map[string]*string{"messaging": &p.messagingURL, "content": &p.contentURL} {
		var err error
		*into, err = siblingURL(s, name, base)
		add(err)
	}

	check := func(name string, form *regexp.Regexp, say string) {
		if v := s.Values[name]; v != "" && !form.MatchString(v) {
			add(fmt.Errorf("%s %s", name, say))
		}
	}
	check("account_sid", accountForm, "must be AC and 32 hexadecimal digits")
	check("api_key_sid", keyForm, "must be SK and 32 hexadecimal digits")
	check("messaging_service_sid", serviceForm, "must be MG and 32 hexadecimal digits")
	if s.Channel == conversations.WhatsApp {
		add(p.useWhatsApp(s))
	} else {
		const say = "must be an international number with +, a short code, or a name of at most 11 characters with a letter among them"
		check("from", fromForm, say)
		if name := s.Values["from"]; len(name) > maxSenderName && fromForm.MatchString(name) && !phoneForm.MatchString(name) {
			add(errors.New("from " + say))
		}
		for _, c := range contentSettings {
			if s.Values[c.name] != "" {
				add(fmt.Errorf("%s is for WhatsApp: SMS has no templates", c.name))
			}
		}
	}
	if (s.Values["api_key_sid"] == "") != (s.Values["api_key_secret"] == "") {
		add(errors.New("api_key_sid and api_key_secret go together"))
	}
	for _, name := range []string{"auth_token", "auth_token_previous", "api_key_secret"} {
		if strings.ContainsFunc(s.Values[name], unicode.IsSpace) {
			add(fmt.Errorf("%s must not hold white space", name))
		}
	}
	if p.from == "" && p.serviceSID == "" {
		add(errors.New("from or messaging_service_sid is missing"))
	}
	if n, err := strconv.Atoi(p.validity); p.validity != "" && (err != nil || n < 1 || n > maxValidity) {
		add(fmt.Errorf("validity_period must be 1 to %d seconds", maxValidity))
	}
	var callbackErr error
	if p.callback, callbackErr = url.Parse(s.WebhookURL); callbackErr != nil || p.callback.Host == "" {
		add(errors.New("the address of the sender's webhooks is missing"))
	} else if strings.Contains(p.callback.Host, "_") {
		add(errors.New("the name of the public address holds _, which Twilio refuses with every message (21609)"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("twilio: %w", err)
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

// useWhatsApp makes p a sender on WhatsApp.
func (p *Provider) useWhatsApp(s providers.Settings) error {
	var problems []error
	p.channel = conversations.WhatsApp
	if number := strings.TrimPrefix(p.from, whatsAppPrefix); phoneForm.MatchString(number) {
		p.from = whatsAppPrefix + number
	} else if p.from != "" {
		problems = append(problems, errors.New("from must be the number of a WhatsApp sender, with +"))
	}
	var err error
	p.contents, err = readContents(s)
	return errors.Join(append(problems, err)...)
}

// twilioHost is the host of one of Twilio's own regions: api.twilio.com, or
// api.dublin.ie1.twilio.com.
var twilioHost = regexp.MustCompile(`^(https?://)api\.((?:[a-z0-9-]+\.)*twilio\.com(?::[0-9]+)?)$`)

// siblingURL returns the address of another of Twilio's APIs: the one that is
// set, else the one beside base. Whatever else stands in for Twilio serves all
// of them at one address, so that nothing of it goes to Twilio by mistake.
func siblingURL(s providers.Settings, name, base string) (string, error) {
	if s.Values[name+"_url"] != "" {
		return s.BaseURL(name + "_url")
	}
	return twilioHost.ReplaceAllString(base, "${1}"+name+".${2}"), nil
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
