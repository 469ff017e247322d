package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"paythread/checkout/platforms"
	"paythread/checkout/platforms/unifiedcheckout"
	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/clickatell"
	"paythread/gateway/providers/meta"
	"paythread/gateway/providers/twilio"
)

// providerRegistrations are the messaging companies that a sender can be at. A
// new one is one more line here.
var providerRegistrations = registered(providerParts,
	meta.Registration,
	twilio.Registration,
	clickatell.Registration,
)

// platformRegistrations are the ways to pay that a merchant can choose. A new
// one is one more line here.
var platformRegistrations = registered(platformParts,
	unifiedcheckout.Registration,
)

func providerParts(r providers.Registration) (string, bool) { return r.Name, r.New != nil }
func platformParts(r platforms.Registration) (string, bool) { return r.Name, r.New != nil }

// registered returns the list as it is. A list with a mistake is the program's
// own and ends it at start.
func registered[R any](parts func(R) (name string, complete bool), list ...R) []R {
	if err := checkRegistry(parts, list); err != nil {
		panic("gateway: " + err.Error())
	}
	return list
}

// checkRegistry refuses an empty name, a missing constructor and a name that
// stands twice.
func checkRegistry[R any](parts func(R) (name string, complete bool), list []R) error {
	var problems []error
	seen := make(map[string]bool, len(list))
	for i, r := range list {
		name, complete := parts(r)
		switch {
		case name == "":
			problems = append(problems, fmt.Errorf("registration %d has no name", i))
		case seen[name]:
			problems = append(problems, fmt.Errorf("registration %q stands twice", name))
		case !complete:
			problems = append(problems, fmt.Errorf("registration %q has no constructor", name))
		}
		seen[name] = true
	}
	return errors.Join(problems...)
}

func providerNamed(name string) (providers.Registration, bool) {
	return named(providerParts, providerRegistrations, name)
}

func platformNamed(name string) (platforms.Registration, bool) {
	return named(platformParts, platformRegistrations, name)
}

func named[R any](parts func(R) (string, bool), list []R, name string) (R, bool) {
	for _, r := range list {
		if n, _ := parts(r); n == name {
			return r, true
		}
	}
	var none R
	return none, false
}

// newProvider makes the adapter of a sender. now may be nil: time.Now.
func newProvider(s *SenderConfig, now func() time.Time, client *http.Client, log *slog.Logger) (providers.Provider, error) {
	r, ok := providerNamed(s.Provider)
	if !ok {
		return nil, fmt.Errorf("there is no provider %q", s.Provider)
	}
	return r.New(providers.Settings{
		SenderID:   s.ID,
		Channel:    s.Channel,
		MerchantID: s.Merchant.ID,
		WebhookURL: s.WebhookURL(),
		Values:     s.Settings,
		Siblings:   siblings(s),
		Now:        now,
	}, client, log)
}

// sharedWebhooks tells of the providers at which the webhooks of several senders
// come to one address: what the provider calls a sender in them, and the secret
// that such senders have in common.
var sharedWebhooks = map[string]struct {
	name   func(*SenderConfig) string
	secret string
}{
	"meta":       {func(s *SenderConfig) string { return s.Settings["phone_number_id"] }, "app_secret"}, // the app's, which signs them
	"clickatell": {func(s *SenderConfig) string { return string(s.Channel) }, "api_key"},                // the integration's, which may have both channels
	"twilio":     {twilioNumber, "account_sid"},                                                         // one address typed in for several numbers of an account
}

// twilioNumber spells a sender's number as Twilio's webhooks do.
func twilioNumber(s *SenderConfig) string {
	number := strings.TrimPrefix(s.Settings["from"], "whatsapp:")
	if number != "" && s.Channel == conversations.WhatsApp {
		return "whatsapp:" + number
	}
	return number
}

// siblings finds the senders whose webhooks may come to the address of s, by
// what their provider calls them: those of the same merchant that have the same
// app at Meta, integration at Clickatell, or account at Twilio.
func siblings(s *SenderConfig) map[string]string {
	found := make(map[string]string)
	shared, ok := sharedWebhooks[s.Provider]
	if !ok {
		return found
	}
	for _, other := range s.Merchant.Senders {
		if other.Provider != s.Provider || other.Settings[shared.secret] != s.Settings[shared.secret] {
			continue
		}
		if name := shared.name(other); name != "" {
			found[name] = other.ID
		}
	}
	return found
}

// newPlatform makes the adapter of a merchant's payment platform. now may be
// nil: time.Now.
func newPlatform(m *MerchantConfig, now func() time.Time, client *http.Client, log *slog.Logger) (platforms.Platform, error) {
	r, ok := platformNamed(m.Platform.Name)
	if !ok {
		return nil, fmt.Errorf("there is no platform %q", m.Platform.Name)
	}
	return r.New(platforms.Settings{
		MerchantID: m.ID,
		Sandbox:    m.Sandbox,
		Values:     m.Platform.Settings,
		Now:        now,
	}, client, log)
}

// merchantsCountry is the setting of a platform that is the merchant's own
// country unless it says otherwise.
const merchantsCountry = "country"

// exampleSettings are values for the printed example where a provider or
// platform looks at their form.
var exampleSettings = map[string]map[string]string{
	"meta":   {"phone_number_id": "106540352242922", "template_payment": "payment_request", "template_receipt": "payment_receipt", "template_cancelled": "payment_cancelled", "template_refund": "payment_refunded"},
	"twilio": {"account_sid": "AC0123456789abcdef0123456789abcdef", "from": "+27600000001"},
	// One of webhook_secret and webhook_user is needed; the secret has a least length.
	"clickatell": {"webhook_secret": placeholder + "-with-a-long-random-secret", "template_payment": "payment_request", "template_receipt": "payment_receipt", "template_cancelled": "payment_cancelled", "template_refund": "payment_refunded"},
	"unified_checkout": {
		"merchant_id":   "acme_sandbox",
		"key_id":        "08c94330-f618-42a3-b09d-e1e43be5efda",
		"shared_secret": placeholder + placeholder + placeholder + placeholder, // base64, as it must be
	},
}

// channelNames returns what a provider can do, for a sentence.
func channelNames(channels []conversations.Channel) []string {
	names := make([]string, len(channels))
	for i, c := range channels {
		names[i] = string(c)
	}
	return names
}
