package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"paythread/conversations"
	"paythread/simulator"
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
	// demoCustomer is the phone that the play and the start page use.
	demoCustomer = "+27821234567"
)

// worldOptions say where the simulated world lies and whom it calls.
type worldOptions struct {
	Listen     string // host:port
	GatewayURL string // the public URL of the gateway that it plays against
	Title      string // of the start page
	Steps      []simulator.Link
	Links      []simulator.Link
	Pace       time.Duration // between a message's statuses
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
	number.WebhookURL = o.GatewayURL + "/webhooks/acme-wa"
	account := demoTwilio
	account.Numbers = []twilio.Number{{
		Channel: "sms", E164: demoTwilioPhone, Name: "Acme Energy", InboundURL: o.GatewayURL + "/webhooks/acme-sms#rc=3&rp=ct,rt,5xx",
	}}
	config := simulator.Config{
		PublicURL: url, Faults: set, Title: o.Title, Steps: o.Steps, Links: o.Links, Log: o.Log,
		Meta:   meta.Config{Numbers: []meta.Number{number}, Templates: demoTemplates(o.GatewayURL), SentAfter: o.Pace, DeliveredAfter: o.Pace},
		Twilio: twilio.Config{Accounts: []twilio.Account{account}, SentAfter: o.Pace, DeliveredAfter: o.Pace},
	}
	card := cybersource.Config{
		PublicURL: url, Merchants: []cybersource.Merchant{demoCyberSource}, SearchDelay: 3 * time.Second,
		AllowHTTPOrigins: true, // the demo's pages are on loopback; CyberSource itself takes https only
		Processor:        "vpc", Log: o.Log,
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

// demoTemplates are the WhatsApp templates of the demo's merchant, approved as
// a merchant would have them: our own wording with Meta's numbers for the
// parameters, in the order in which the adapter sends them.
func demoTemplates(gatewayURL string) []meta.Template {
	numbered := conversations.Parameters{Merchant: "{{1}}", Amount: "{{2}}", Order: "{{3}}"}
	template := func(name string, purpose conversations.Purpose, p conversations.Parameters, button *meta.URLButton) meta.Template {
		return meta.Template{
			WABAID: demoMeta.WABAID, Name: name, Language: "en", Category: "UTILITY",
			Body: conversations.Merchant{}.Text(conversations.WhatsApp, purpose, p), URLButton: button,
		}
	}
	unpriced := conversations.Parameters{Merchant: numbered.Merchant, Order: numbered.Amount}
	return []meta.Template{
		template("payment_request", conversations.PurposePayment, numbered, &meta.URLButton{Label: "Pay securely", URL: gatewayURL + "/p/{{1}}"}),
		template("payment_receipt", conversations.PurposeReceipt, numbered, &meta.URLButton{Label: "View receipt", URL: gatewayURL + "/r/{{1}}"}),
		template("payment_cancelled", conversations.PurposeCancelled, unpriced, nil),
	}
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
