// Package meta speaks the WhatsApp Cloud API: webhooks of the object
// whatsapp_business_account, and POST /{version}/{phone number id}/messages.
//
// Every field of a webhook is optional to it. The version of a payload follows
// the app's subscription and not the version used for sending, so old and new
// shapes arrive side by side.
//
// decode.go takes webhooks apart, webhook.go reads messages and statuses,
// notices.go what is told of the account; send.go sends, errors.go says what a
// refusal means, check.go asks whether the sender is set up right.
package meta

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// The limits, from the Cloud API's pages on messages, interactive messages and
// template components.
const (
	maxText        = 4096 // characters of a text body
	maxInteractive = 1024 // characters of the body of a message with a button
	maxParameter   = 512  // ours: a whole template body has 1024
	maxID          = 512  // a message id is about 60 characters; its length is not promised
	maxName        = 128  // ours: a profile's name
	maxElements    = 4096 // ours: at most 1,000 updates are documented for one POST

	maxButtons     = 3  // reply buttons of one message
	maxButtonTitle = 20 // characters of a button's label
	maxButtonID    = 256
)

// limits are those of a number as it comes: 80 messages a second, in and out
// together, and to one customer a message each 6 seconds after the first 45.
// Numbers with higher throughput have 1,000, those that are used in the phone
// app as well have 20. The burst is small, for Meta counts within the second.
var limits = map[conversations.Channel]providers.Limits{
	conversations.WhatsApp: {PerSecond: 80, Burst: 8, PairEvery: 6 * time.Second, PairBurst: 45},
}

var settings = []providers.Setting{
	{Name: "base_url", Default: "https://graph.facebook.com", Required: true, Doc: "Address of the Graph API."},
	{Name: "api_version", Default: "v25.0", Required: true, Doc: "Version of the Graph API that messages are sent with."},
	{Name: "phone_number_id", Required: true, Doc: "The id of the WhatsApp number, not the number itself."},
	{Name: "phone_number", Doc: "The number itself, with country code. When set, notices about other numbers of the account are not taken for ours."},
	{Name: "waba_id", Doc: "The id of the WhatsApp Business Account. When set, notices about other accounts are not taken for ours, and the doctor can look at templates and subscription."},
	{Name: "app_id", Doc: "The id of the app that owns the webhook subscription, for the doctor to find it among the subscribed ones."},
	{Name: "access_token", Secret: true, Required: true, Doc: "A system user's token with whatsapp_business_messaging, and whatsapp_business_management for the doctor."},
	{Name: "app_secret", Secret: true, Required: true, Doc: "The secret of the app that owns the webhook subscription."},
	{Name: "app_secret_previous", Secret: true, Doc: "The secret before the last rotation, accepted as well."},
	{Name: "verify_token", Secret: true, Required: true, Doc: "The word that Meta must say when the webhook address is saved."},
	{Name: "template_language", Default: "en", Required: true, Doc: "Language of the templates when the customer's is not among template_languages, spelt exactly as approved: en is not en_US."},
	{Name: "template_languages", Doc: "Every language in which all templates are approved, separated by commas, such as \"en, de, pt_BR\". A customer gets their own, else its base language, else template_language."},
	{Name: "template_payment", Doc: "Template that asks to pay: merchant, amount, order; its URL button ends in the link's code. How long Meta tries to deliver it is part of the template, not of the message: give it a validity period, such as an hour, when it is made."},
	{Name: "template_receipt", Doc: "Template with the receipt: merchant, amount, order; its URL button ends in the link's code."},
	{Name: "template_cancelled", Doc: "Template for a cancelled request: merchant, order; no button."},
	{Name: "template_refund", Doc: "Template for money that went back: merchant, amount, order; its URL button ends in the receipt link's code."},
}

// Registration is the WhatsApp Cloud API for the registry.
var Registration = providers.Registration{
	Name:     "meta",
	Channels: []conversations.Channel{conversations.WhatsApp},
	Settings: settings,
	Limits:   limits,
	Codes:    codes,
	New: func(s providers.Settings, c *http.Client, log *slog.Logger) (providers.Provider, error) {
		return New(s, c, log)
	},
}

// Provider is one WhatsApp number at Meta. Besides providers.Provider it
// implements Handshaker, Reader, Templater and Checker.
type Provider struct {
	senderID    string
	numberID    string
	number      string // canonical, empty when it is not set
	wabaID      string
	appID       string
	siblings    map[string]string
	webhookURL  string
	secrets     [][]byte // current and previous app secret
	verifyToken string
	graphURL    string // with the version
	messagesURL string
	token       string
	language    string   // the default
	languages   []string // every one that templates are approved in, the default first
	templates   map[conversations.Purpose]string
	client      *http.Client
	log         *slog.Logger
}

var (
	_ providers.Provider   = (*Provider)(nil)
	_ providers.Handshaker = (*Provider)(nil)
	_ providers.Reader     = (*Provider)(nil)
	_ providers.Templater  = (*Provider)(nil)
	_ providers.Checker    = (*Provider)(nil)
)

var (
	pathPart     = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	versionForm  = regexp.MustCompile(`^v[0-9]{1,3}\.[0-9]{1,3}$`)
	templateName = regexp.MustCompile(`^[a-z0-9_]{1,512}$`)
	languageCode = regexp.MustCompile(`^[a-z]{2,3}(_[A-Z0-9]{2,8})?$`)
)

// languageOf spells a language as Meta's templates do: en-us and EN_US are
// en_US. Webhooks have been seen with both signs. What is no language is "".
func languageOf(s string) string {
	base, region, split := strings.Cut(strings.ReplaceAll(strings.TrimSpace(s), "-", "_"), "_")
	code := strings.ToLower(base)
	if split {
		code += "_" + strings.ToUpper(region)
	}
	if !languageCode.MatchString(code) {
		return ""
	}
	return code
}

// New returns the adapter for one number. Its error names every setting that
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
	check("api_version", versionForm, `must look like "v25.0"`)
	check("phone_number_id", pathPart, "must be an id as Meta shows it")
	check("waba_id", pathPart, "must be an id as Meta shows it")
	check("app_id", pathPart, "must be an id as Meta shows it")
	for _, f := range templateForms {
		check(f.setting, templateName, "must be lower-case letters, digits and _")
	}
	for _, name := range []string{"access_token", "app_secret", "app_secret_previous", "verify_token"} {
		if strings.ContainsAny(s.Values[name], "\r\n\t ") {
			problems = append(problems, fmt.Errorf("%s must not hold white space", name))
		}
	}
	language := languageOf(s.Values["template_language"])
	if language == "" {
		problems = append(problems, errors.New(`template_language must be a language code such as "en" or "en_US"`))
	}
	languages, err := languageList(language, s.Values["template_languages"])
	problems = append(problems, err)
	number, numberOK := providers.Phone(s.Values["phone_number"])
	if s.Values["phone_number"] != "" && !numberOK {
		problems = append(problems, errors.New("phone_number must be an international number"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("meta: %w", err)
	}

	graphURL := base + "/" + s.Values["api_version"]
	p := &Provider{
		senderID:    s.SenderID,
		numberID:    s.Values["phone_number_id"],
		number:      number.Value,
		wabaID:      s.Values["waba_id"],
		appID:       s.Values["app_id"],
		siblings:    s.Siblings,
		webhookURL:  s.WebhookURL,
		verifyToken: s.Values["verify_token"],
		graphURL:    graphURL,
		messagesURL: graphURL + "/" + s.Values["phone_number_id"] + "/messages",
		token:       s.Values["access_token"],
		language:    language,
		languages:   languages,
		templates:   map[conversations.Purpose]string{},
		client:      providers.WithoutRedirects(client),
		log:         log.With("provider", "meta", "sender", s.SenderID),
	}
	for _, f := range templateForms {
		p.templates[f.purpose] = s.Values[f.setting]
	}
	for _, name := range []string{"app_secret", "app_secret_previous"} {
		if v := s.Values[name]; v != "" {
			p.secrets = append(p.secrets, []byte(v))
		}
	}
	return p, nil
}

// languageList reads template_languages. The default is always one of them.
func languageList(first, list string) ([]string, error) {
	all := []string{first}
	for _, one := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		code := languageOf(one)
		if code == "" {
			return nil, errors.New(`template_languages must be language codes such as "en, de, pt_BR"`)
		}
		if !slices.Contains(all, code) {
			all = append(all, code)
		}
	}
	return all, nil
}

// LogValue keeps the secrets out of logs.
func (p *Provider) LogValue() slog.Value {
	return slog.GroupValue(slog.String("provider", "meta"), slog.String("sender", p.senderID))
}

// Handshake answers the GET that Meta makes when the address or the verify
// token is saved. The challenge goes back exactly as it came: it is opaque.
func (p *Provider) Handshake(w providers.Webhook) (string, bool) {
	said := []byte(w.Query.Get("hub.verify_token"))
	same := subtle.ConstantTimeCompare(said, []byte(p.verifyToken)) == 1
	challenge := w.Query.Get("hub.challenge")
	if !same || w.Query.Get("hub.mode") != "subscribe" || challenge == "" {
		return "", false
	}
	return challenge, true
}

// Verify checks X-Hub-Signature-256: HMAC-SHA256 with the app secret over the
// body's bytes as they were on the wire. Meta escapes non-ASCII characters and
// slashes, so any other spelling of the same JSON has another signature. The
// older X-Hub-Signature (SHA-1) is not looked at.
func (p *Provider) Verify(w providers.Webhook) error {
	headers := w.Header.Values("X-Hub-Signature-256")
	if len(headers) != 1 {
		return providers.ErrSignature
	}
	for _, secret := range p.secrets {
		mac := hmac.New(sha256.New, secret)
		_, _ = mac.Write(w.Body) // a hash never fails
		want := "sha256=" + hex.EncodeToString(mac.Sum(nil))
		if hmac.Equal([]byte(headers[0]), []byte(want)) {
			return nil
		}
	}
	return providers.ErrSignature
}
