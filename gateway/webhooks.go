package main

import (
	"context"
	"errors"
	"hash/crc32"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// webhookWithin bounds the work of one webhook. Providers give up after
// seconds and deliver it again; what was taken by then is not taken twice.
const webhookWithin = 10 * time.Second

// receiver is what the webhooks need of the store.
type receiver interface {
	Receive(ctx context.Context, merchantID string, in conversations.Inbound) error
	Now() time.Time
}

// webhooks takes what the messaging companies report: it verifies, parses and
// commits, and only then answers.
type webhooks struct {
	store   receiver
	senders func() map[string]*liveSender // in force
	metrics *webhookMetrics
	log     *slog.Logger
}

// liveSender is a configured sender with its adapter.
type liveSender struct {
	*SenderConfig
	provider providers.Provider
}

// getter is implemented by providers whose webhooks may come by GET, as the
// merchant chose there: the parameters stand in the address, which is signed,
// so that a GET by anybody else changes nothing.
type getter interface{ TakesGet() bool }

// Take answers GET and POST /webhooks/{sender_id}[/{secret}].
func (w *webhooks) Take(c *fiber.Ctx) error {
	sender, ok := w.senders()[c.Params("sender_id")]
	if !ok {
		w.metrics.received.WithLabelValues(noProvider, "unknown_sender").Inc()
		return conversations.NotFound("sender with this id")
	}
	hook := webhookOf(c, sender, w.store.Now())
	if g, ok := sender.provider.(getter); c.Method() == fiber.MethodGet && (!ok || !g.TakesGet()) {
		return w.shakeHands(c, sender, hook)
	}
	if err := sender.provider.Verify(hook); err != nil {
		w.metrics.received.WithLabelValues(sender.Provider, "bad_signature").Inc()
		return forged("bad_signature", "header."+signatureHeader(sender.Provider), "the webhook's signature is missing or wrong")
	}
	reports, err := sender.provider.Parse(hook)
	if err != nil {
		w.metrics.received.WithLabelValues(sender.Provider, "unreadable").Inc()
		w.log.WarnContext(c.UserContext(), "a signed webhook cannot be read", "provider", sender.Provider, "sender", sender.ID, "error", err)
		p := badRequest(fiber.StatusBadRequest, "unreadable", "body: this is not a webhook of "+sender.Provider+" that can be read")
		p.Errors = []FieldProblem{{Field: "body", Message: "it cannot be read", Location: "body"}}
		return p
	}
	if err := w.commit(sender, reports); err != nil {
		w.metrics.received.WithLabelValues(sender.Provider, "unavailable").Inc()
		return err
	}
	w.metrics.received.WithLabelValues(sender.Provider, "accepted").Inc()
	if a, ok := sender.provider.(providers.Answerer); ok {
		contentType, body := a.Answer()
		c.Set(fiber.HeaderContentType, contentType)
		return c.SendString(body)
	}
	return c.SendStatus(fiber.StatusOK)
}

func (w *webhooks) shakeHands(c *fiber.Ctx, sender *liveSender, hook providers.Webhook) error {
	h, ok := sender.provider.(providers.Handshaker)
	if !ok {
		c.Set(fiber.HeaderAllow, fiber.MethodPost)
		return fiber.ErrMethodNotAllowed
	}
	body, ok := h.Handshake(hook)
	if !ok {
		w.metrics.received.WithLabelValues(sender.Provider, "bad_handshake").Inc()
		return forged("bad_handshake", "query.hub.verify_token", "the verify token is missing or wrong")
	}
	c.Set(fiber.HeaderContentType, "text/plain; charset=utf-8")
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	return c.SendString(body)
}

// forged refuses a webhook that nobody we trust has signed, with one fixed
// sentence: whoever forges learns nothing from it.
func forged(reason, location, sentence string) *Problem {
	p := newProblem(codeForbidden, reason, sentence)
	_, field, _ := strings.Cut(location, ".")
	p.Errors = []FieldProblem{{Field: field, Message: sentence, Location: location}}
	return p
}

// abreast is how many reports of one webhook are taken at the same time. Those
// of one customer are taken one after the other, in the order of the body.
const abreast = 8

// commit gives every report to the store. One that fails never holds back the
// others; if any failed because Redis did not answer, the provider is asked to
// deliver all of it again, and what was taken is not taken twice.
func (w *webhooks) commit(sender *liveSender, reports []conversations.Inbound) error {
	ctx, cancel := context.WithTimeout(context.Background(), webhookWithin)
	defer cancel()
	if len(reports) < 2 {
		return w.takeAll(ctx, sender, reports)
	}
	var lanes [abreast][]conversations.Inbound
	for _, in := range reports {
		n := crc32.ChecksumIEEE([]byte(customerOf(in))) % abreast
		lanes[n] = append(lanes[n], in)
	}
	var errs [abreast]error
	var taking sync.WaitGroup
	for n, lane := range lanes {
		taking.Go(func() { errs[n] = w.takeAll(ctx, sender, lane) })
	}
	taking.Wait()
	return errors.Join(errs[:]...)
}

// customerOf tells the reports of different customers apart.
func customerOf(in conversations.Inbound) string {
	if contact, _, ok := strings.Cut(in.Correlation, "."); ok {
		return contact
	}
	if len(in.Addresses) > 0 {
		return in.Addresses[0].Value
	}
	return in.ProviderID
}

// takeAll gives reports to the store, one after the other. The error says that
// some could not be taken for now.
func (w *webhooks) takeAll(ctx context.Context, sender *liveSender, reports []conversations.Inbound) error {
	var unavailable error
	for _, in := range reports {
		if err := w.take(ctx, sender, in); err != nil {
			unavailable = err
		}
	}
	return unavailable
}

// take gives one report to the store.
func (w *webhooks) take(ctx context.Context, sender *liveSender, in conversations.Inbound) error {
	to, known := w.senders()[in.SenderID]
	if !known {
		w.metrics.reports.WithLabelValues(sender.Provider, string(in.Kind), "unknown_sender").Inc()
		return nil
	}
	err := w.receive(ctx, to.Merchant.ID, in)
	outcome := "unmatched"
	switch conversations.CodeOf(err) {
	case "":
		if err != nil {
			w.failed(ctx, sender, in, err)
			return nil
		}
		outcome = "taken"
	case conversations.CodeUnavailable:
		outcome = "unavailable"
	}
	w.metrics.reports.WithLabelValues(sender.Provider, string(in.Kind), outcome).Inc()
	if outcome == "unavailable" {
		return err
	}
	return nil
}

// receive is the store's, whose panic about one report is an error about it.
func (w *webhooks) receive(ctx context.Context, merchantID string, in conversations.Inbound) (err error) {
	defer recovered(&err)
	return w.store.Receive(ctx, merchantID, in)
}

func (w *webhooks) failed(ctx context.Context, sender *liveSender, in conversations.Inbound, err error) {
	w.metrics.reports.WithLabelValues(sender.Provider, string(in.Kind), "failed").Inc()
	w.log.ErrorContext(ctx, "a provider's report could not be taken", "provider", sender.Provider, "sender", in.SenderID, "kind", in.Kind, "error", err)
}

// webhookOf copies what an adapter may look at. The address is the configured
// one, never rebuilt from the Host header: Twilio signs it.
func webhookOf(c *fiber.Ctx, sender *liveSender, now time.Time) providers.Webhook {
	address := sender.WebhookURL()
	if secret := c.Params("secret"); secret != "" {
		address += "/" + url.PathEscape(secret)
	}
	// The routes do not mind slashes at the end; who signs the address does.
	path := string(c.Request().URI().PathOriginal())
	address += path[len(strings.TrimRight(path, "/")):]
	raw := string(c.Request().URI().QueryString())
	if raw != "" {
		address += "?" + raw
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		query = url.Values{} // what cannot be read is not there; the signature covers the raw text
	}
	header := http.Header{}
	for k, v := range c.Request().Header.All() {
		header.Add(string(k), string(v))
	}
	return providers.Webhook{
		Method: c.Method(), URL: address, Header: header, Body: append([]byte(nil), c.Request().Body()...), Query: query, ReceivedAt: now,
	}
}

// signatureHeader names where a provider's signature is expected.
func signatureHeader(provider string) string {
	switch provider {
	case "meta":
		return "X-Hub-Signature-256"
	case "twilio":
		return "X-Twilio-Signature"
	case "clickatell":
		return "Authorization" // or the secret that ends the path, of which a problem says nothing
	}
	return "signature"
}
