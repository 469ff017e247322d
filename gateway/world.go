package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"paythread/conversations"
	"paythread/simulator"
	"paythread/simulator/clickatell"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
	"paythread/simulator/meta"
	"paythread/simulator/oms"
	"paythread/simulator/twilio"
)

// The made-up identities of the simulated world. The demo's merchant uses
// them; whoever integrates may use them against "paythread simulate", too.
const demoAPIKey = "demo-key-not-a-secret-0001"

var (
	demoMeta = meta.Number{
		PhoneNumberID: "100000000000001", WABAID: "200000000000001", DisplayNumber: "+27600000001", VerifiedName: "Acme Energy",
		AccessToken: "demo-access-token", AppSecret: "demo-app-secret", VerifyToken: "demo-verify-token", CountryCode: "27",
	}
	demoTwilio      = twilio.Account{SID: "AC00000000000000000000000000000001", AuthToken: "demo-auth-token"}
	demoTwilioPhone = "+27600000002"
	demoCyberSource = cybersource.Merchant{
		ID: "acme_sandbox", KeyID: "08c94330-f618-42a3-b09d-e1e43be5efda", SharedSecret: "ZGVtby1zaGFyZWQtc2VjcmV0LW5vdC1hLXNlY3JldCE=",
	}
	// demoNotificationKey signs CyberSource's notifications.
	demoNotificationKey = struct{ ID, Secret string }{"5f0d8f3e-6a3b-4c55-9d5c-2f4b1a7c9e10", "ZGVtby1ub3RpZmljYXRpb24ta2V5LW5vdC1hLXNlY3I="}
	// demoCustomer is the phone that the play and the start page use.
	demoCustomer = "+27821234567"
)

// What the merchant has at the companies beside that: the demo does not send
// through these, but whoever integrates may put any of them into a gateway's
// configuration. docs/simulator.md shows how.
const (
	otherTwilioPhone     = "+27600000011"
	otherClickatellPhone = "+27600000012"
	otherClickatellKey   = "demo-clickatell-api-key=="
	otherWebhookSecret   = "demo-webhook-secret-worth-nothing-0001"
)

// otherContents are Twilio's names of the templates.
var otherContents = map[string]string{
	"payment_request": "HX00000000000000000000000000000011", "payment_receipt": "HX00000000000000000000000000000012",
	"payment_cancelled": "HX00000000000000000000000000000013", "payment_refunded": "HX00000000000000000000000000000014",
}

// webhookPaths say below which address of the gateway the companies call: the
// ids that senders must have.
var webhookPaths = struct{ Meta, TwilioSMS, TwilioWhatsApp, Clickatell, CyberSource string }{
	"/webhooks/acme-wa", "/webhooks/acme-sms", "/webhooks/acme-twilio-wa", "/webhooks/acme-clickatell/" + otherWebhookSecret,
	"/webhooks/cybersource/acme",
}

// notifyRetryAfter is the wait before CyberSource tells again what was not
// taken: a minute in life.
const notifyRetryAfter = 5 * time.Second

// twilioOverrides make Twilio repeat a webhook that failed.
const twilioOverrides = "#rc=3&rp=ct,rt,5xx"

// worldOptions say where the simulated world lies and whom it calls.
type worldOptions struct {
	Listen     string // host:port
	GatewayURL string // the public URL of the gateway that it plays against
	Title      string // of the start page
	Steps      []simulator.Link
	Links      []simulator.Link
	Pace       time.Duration // between a message's statuses
	Others     bool          // with the merchant's accounts that the demo does not send through
	Notify     bool          // with the gateway's subscription to CyberSource's notifications
	Change     func(*simulator.Config, *cybersource.Config)
	Log        *slog.Logger
}

// world is the outside, running: the companies, the phones and the sample
// order-management system on one listener.
type world struct {
	*simulator.World
	CyberSource *cybersource.Simulator
	URL         string
	server      *http.Server
	done        chan error
}

// bindWorld binds the listener, so that the world's address is known before
// anything is made that needs it.
func bindWorld(listen string) (net.Listener, string, error) {
	socket, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, "", fmt.Errorf("simulator: %w", taken(err, "--simulator-listen", listen))
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil || host == "" {
		host = "localhost"
	}
	_, port, err := net.SplitHostPort(socket.Addr().String())
	if err != nil {
		return nil, "", errors.Join(err, socket.Close())
	}
	return socket, "http://" + net.JoinHostPort(host, port), nil
}

// startWorld makes the world and serves it on a bound listener, which it closes
// whatever happens.
func startWorld(socket net.Listener, url string, o worldOptions) (*world, error) {
	set := faults.New()
	number := demoMeta
	number.WebhookURL = o.GatewayURL + webhookPaths.Meta
	account := demoTwilio
	account.Numbers = []twilio.Number{{
		Channel: "sms", E164: demoTwilioPhone, Name: "Acme Energy", InboundURL: o.GatewayURL + webhookPaths.TwilioSMS + twilioOverrides,
	}}
	config := simulator.Config{
		PublicURL: url, Faults: set, Title: o.Title, Steps: o.Steps, Links: o.Links, Log: o.Log,
		Meta:   meta.Config{Numbers: []meta.Number{number}, Templates: demoTemplates(o.GatewayURL), SentAfter: o.Pace, DeliveredAfter: o.Pace},
		Twilio: twilio.Config{Accounts: []twilio.Account{account}, SentAfter: o.Pace, DeliveredAfter: o.Pace},
	}
	if o.Others {
		addOthers(&config, o)
	}
	card := cybersource.Config{
		PublicURL: url, Merchants: []cybersource.Merchant{demoCyberSource}, SearchDelay: 3 * time.Second,
		AllowHTTPOrigins: true, // the demo's pages are on loopback; CyberSource itself takes https only
		Processor:        "vpc", NotifyRetryAfter: notifyRetryAfter, Log: o.Log,
	}
	if o.Notify {
		card.Subscriptions = []cybersource.Subscription{{
			Organization: demoCyberSource.ID, Name: "Acme Energy", URL: o.GatewayURL + webhookPaths.CyberSource,
			HealthCheckURL: o.GatewayURL + webhookPaths.CyberSource + "/health",
			KeyID:          demoNotificationKey.ID, Key: demoNotificationKey.Secret,
		}}
	}
	if o.Change != nil {
		o.Change(&config, &card)
	}
	paid, err := cybersource.New(card, set)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	shop, err := oms.New(oms.Config{GatewayURL: o.GatewayURL, APIKey: demoAPIKey, PublicURL: url, Log: o.Log})
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	config.Parts = append(config.Parts, paid, shop)
	outside, err := simulator.New(config)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	w := &world{World: outside, CyberSource: paid, URL: url, done: make(chan error, 1)}
	w.server = &http.Server{Handler: outside.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { w.done <- w.server.Serve(socket) }()
	return w, nil
}

// addOthers gives the merchant a WhatsApp number at Twilio and an integration
// at Clickatell for both channels. Their names tell the chats on the customers'
// phones apart.
func addOthers(c *simulator.Config, o worldOptions) {
	account := &c.Twilio.Accounts[0]
	account.Numbers = append(account.Numbers, twilio.Number{
		Channel: twilio.WhatsApp, E164: otherTwilioPhone, Name: "Acme Energy (Twilio)", InboundURL: o.GatewayURL + webhookPaths.TwilioWhatsApp + twilioOverrides,
	})
	hook := o.GatewayURL + webhookPaths.Clickatell
	integration := clickatell.Integration{
		ID: "acme", Name: "Acme Energy", APIKey: otherClickatellKey, InboundURL: hook, StatusURL: hook,
		Numbers: []clickatell.Number{
			{Channel: clickatell.SMS, E164: otherClickatellPhone, Name: "Acme Energy (Clickatell)"},
			{Channel: clickatell.WhatsApp, E164: otherClickatellPhone, Name: "Acme Energy (Clickatell)"},
		},
	}
	for _, t := range approvedTemplates(o.GatewayURL) {
		account.Contents = append(account.Contents, twilio.Content{
			SID: otherContents[t.name], Name: t.name, Language: "en", Body: t.body, ButtonLabel: t.button, ButtonURL: t.link("{{4}}"),
		})
		integration.Templates = append(integration.Templates, clickatell.Template{
			Name: t.name, Body: t.body, ButtonLabel: t.button, ButtonURL: t.link("{{4}}"),
		})
	}
	c.Clickatell = clickatell.Config{Integrations: []clickatell.Integration{integration}, SentAfter: o.Pace, DeliveredAfter: o.Pace}
}

// approvedTemplate is a WhatsApp template as a merchant would have it approved:
// our own wording with numbers for the parameters, in the order in which the
// adapters send them.
type approvedTemplate struct {
	name, body  string
	button, url string // empty: no button
}

// link is the button's address with the company's placeholder for the code;
// empty without a button.
func (t approvedTemplate) link(code string) string {
	if t.button == "" {
		return ""
	}
	return t.url + code
}

// approvedTemplates are the merchant's templates at every company.
func approvedTemplates(gatewayURL string) []approvedTemplate {
	body := func(purpose conversations.Purpose, p conversations.Parameters) string {
		return conversations.Merchant{}.Text(conversations.WhatsApp, purpose, p)
	}
	priced := conversations.Parameters{Merchant: "{{1}}", Amount: "{{2}}", Order: "{{3}}"}
	unpriced := conversations.Parameters{Merchant: "{{1}}", Order: "{{2}}"}
	return []approvedTemplate{
		{"payment_request", body(conversations.PurposePayment, priced), "Pay securely", gatewayURL + "/p/"},
		{"payment_receipt", body(conversations.PurposeReceipt, priced), "View receipt", gatewayURL + "/r/"},
		{"payment_cancelled", body(conversations.PurposeCancelled, unpriced), "", ""},
		{"payment_refunded", body(conversations.PurposeRefund, priced), "View receipt", gatewayURL + "/r/"},
	}
}

// demoTemplates are the templates at Meta, where a button numbers its variables
// by itself.
func demoTemplates(gatewayURL string) []meta.Template {
	var all []meta.Template
	for _, t := range approvedTemplates(gatewayURL) {
		m := meta.Template{WABAID: demoMeta.WABAID, Name: t.name, Language: "en", Category: "UTILITY", Body: t.body}
		if t.button != "" {
			m.URLButton = &meta.URLButton{Label: t.button, URL: t.link("{{1}}")}
		}
		all = append(all, m)
	}
	return all
}

// identities lists what a gateway's configuration needs to talk to the world,
// and where the companies send their webhooks.
func identities(gatewayURL string) string {
	return fmt.Sprintf(`  Meta         phone_number_id %s, waba_id %s, access_token %s, app_secret %s, verify_token %s
               webhooks to %s
  Twilio       account_sid %s, auth_token %s
               SMS from %s, webhooks to %s
               WhatsApp from %s, webhooks to %s
               content_payment %s, content_receipt %s
               content_cancelled %s, content_refund %s
  Clickatell   api_key %s, webhook_secret %s
               SMS and WhatsApp from %s, webhooks to %s
  CyberSource  merchant_id %s, key_id %s, shared_secret %s
               notifications signed with key %s, secret %s, to %s
A sender's id is the word behind /webhooks/. WhatsApp templates at Meta and Clickatell: payment_request,
payment_receipt, payment_cancelled, payment_refunded. docs/simulator.md has all of it as configuration.
`, demoMeta.PhoneNumberID, demoMeta.WABAID, demoMeta.AccessToken, demoMeta.AppSecret, demoMeta.VerifyToken, gatewayURL+webhookPaths.Meta,
		demoTwilio.SID, demoTwilio.AuthToken, demoTwilioPhone, gatewayURL+webhookPaths.TwilioSMS, otherTwilioPhone, gatewayURL+webhookPaths.TwilioWhatsApp,
		otherContents["payment_request"], otherContents["payment_receipt"], otherContents["payment_cancelled"], otherContents["payment_refunded"],
		otherClickatellKey, otherWebhookSecret, strings.TrimPrefix(otherClickatellPhone, "+"), gatewayURL+webhookPaths.Clickatell,
		demoCyberSource.ID, demoCyberSource.KeyID, demoCyberSource.SharedSecret,
		demoNotificationKey.ID, demoNotificationKey.Secret, gatewayURL+webhookPaths.CyberSource)
}

// Stop ends the world: held calls first, then its listener.
func (w *world) Stop(ctx context.Context) error {
	w.World.Close()
	err := w.server.Shutdown(ctx)
	if served := <-w.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
