package main

import (
	"bytes"
	"context"
	"net/http/pprof"
	"slices"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
)

// The most that a request's body may hold, by the beginning of its path: it is
// limited before it is read.
const (
	maxWebhookBody = 3<<20 + 64<<10 // Meta delivers up to 3 MB
	maxBody        = 64 << 10
	// maxNotification is for what CyberSource tells.
	maxNotification = 1 << 20
)

// route is one row of a listener: everything that it answers to stands here,
// but for the REST API, which describes its own operations.
type route struct {
	methods []string
	path    string
	handler fiber.Handler
}

var (
	get  = []string{fiber.MethodGet, fiber.MethodHead}
	post = []string{fiber.MethodPost}
	both = []string{fiber.MethodGet, fiber.MethodPost}
)

// publicRoutes are what customers, providers and merchants reach.
func (a *App) publicRoutes() []route {
	return append(a.notificationRoutes(), []route{
		{both, "/webhooks/:sender_id", a.webhooks.Take},
		{both, "/webhooks/:sender_id/:secret", a.webhooks.Take},
		{get, "/p/:code", a.checkout.FollowLink},
		{get, "/pay/:jwt", a.checkout.ShowPage},
		{get, "/pay/:jwt/state", a.checkout.ShowState},
		{post, "/pay/:jwt/open", a.checkout.OpenRequest},
		{post, "/pay/:jwt/context", a.checkout.IssueContext},
		{post, "/pay/:jwt/charge", a.checkout.ChargeCard},
		{post, "/pay/:jwt/extend", a.checkout.ExtendTime},
		{post, "/pay/:jwt/receipt", a.checkout.ViewReceipt},
		{get, "/r/:code", a.receipts.FollowLink},
		{get, "/receipts/:jwt", a.receipts.ShowReceipt},
		{post, "/receipts/:jwt/viewed", a.receipts.RecordView},
		{get, "/extension/paythread.js", serveExtension},
		{get, "/.well-known/jwks.json", a.showKeys},
	}...)
}

// notificationRoutes are what payment platforms reach. They stand before those
// of senders, whose pattern they fit.
func (a *App) notificationRoutes() []route {
	return []route{
		{post, "/webhooks/" + cybersourcePath + "/:merchant_id", a.notifications.takeNotification},
		{both, "/webhooks/" + cybersourcePath + "/:merchant_id/health", a.notifications.answerHealth},
	}
}

// adminRoutes are for the operator; they are not for the internet.
func (a *App) adminRoutes() []route {
	// One metric that cannot be told must not take the others away.
	metrics := promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{Registry: a.registry, ErrorHandling: promhttp.ContinueOnError})
	return []route{
		{get, "/metrics", adaptor.HTTPHandler(metrics)},
		{get, "/livez", func(c *fiber.Ctx) error { return c.SendString("ok\n") }},
		{get, "/readyz", a.showReadiness},
		{get, "/debug/pprof/", adaptor.HTTPHandlerFunc(pprof.Index)},
		{get, "/debug/pprof/profile", adaptor.HTTPHandlerFunc(pprof.Profile)},
		{get, "/debug/pprof/symbol", adaptor.HTTPHandlerFunc(pprof.Symbol)},
		{get, "/debug/pprof/trace", adaptor.HTTPHandlerFunc(pprof.Trace)},
		{get, "/debug/pprof/:profile", adaptor.HTTPHandlerFunc(pprof.Index)},
	}
}

// mount puts rows on a listener.
func mount(to *fiber.App, rows []route) {
	for _, r := range rows {
		for _, method := range r.methods {
			to.Add(method, r.path, r.handler)
		}
	}
}

// showKeys answers GET /.well-known/jwks.json.
func (a *App) showKeys(c *fiber.Ctx) error {
	c.Set(fiber.HeaderContentType, "application/jwk-set+json")
	c.Set(fiber.HeaderCacheControl, "public, max-age=300")
	c.Set(fiber.HeaderAccessControlAllowOrigin, "*")
	return c.Send(a.keys.JWKS())
}

// readyWithin bounds the question to Redis behind /readyz.
const readyWithin = 2 * time.Second

// showReadiness answers GET /readyz: whether Redis answers, and this process
// is not about to stop.
func (a *App) showReadiness(c *fiber.Ctx) error {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	if a.stopping.Load() {
		return c.Status(fiber.StatusServiceUnavailable).SendString("stopping\n")
	}
	if err := a.store.Ping(ctx); err != nil {
		return c.Status(fiber.StatusServiceUnavailable).SendString("redis does not answer\n")
	}
	return c.SendString("ready\n")
}

// limitBody limits a request's body before it is read, by its path.
func limitBody(header *fasthttp.RequestHeader) fasthttp.RequestConfig {
	limit := maxBody
	switch {
	case hasPrefix(header.RequestURI(), "/webhooks/"+cybersourcePath+"/"):
		limit = maxNotification
	case hasPrefix(header.RequestURI(), "/webhooks/"):
		limit = maxWebhookBody
	}
	return fasthttp.RequestConfig{MaxRequestBodySize: limit}
}

func hasPrefix(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

// refuseUnknownMethods makes a call by a method that nobody has heard of one by
// a method that no route takes: Fiber would answer it by itself, in plain text
// and past all of our handlers.
func refuseUnknownMethods(app *fiber.App) {
	next := app.Server().Handler
	app.Server().Handler = func(c *fasthttp.RequestCtx) {
		if !slices.Contains(fiber.DefaultMethods, string(c.Method())) {
			c.Request.Header.SetMethod(fiber.MethodTrace)
		}
		next(c)
	}
}

// refuseTwoLengths refuses a request that gives its body's length twice, in
// Content-Length and by chunks: a proxy in front may believe the one and we the
// other, and take what follows for the next caller's request (RFC 9112, 6.1).
func refuseTwoLengths(c *fiber.Ctx) error {
	// As it came: of an empty body in chunks the server has made a length of 0.
	raw := bytes.ToLower(c.Request().Header.RawHeaders())
	if bytes.Contains(raw, []byte("transfer-encoding:")) && bytes.Contains(raw, []byte("content-length:")) {
		c.Set(fiber.HeaderConnection, "close")
		return badRequest(fiber.StatusBadRequest, "two_lengths", "Content-Length and Transfer-Encoding do not go together; send one of them")
	}
	return c.Next()
}

// refuseEncodings refuses compressed bodies, which nobody sends us and which
// could exhaust the memory once unpacked.
func refuseEncodings(c *fiber.Ctx) error {
	if encoding := c.Get(fiber.HeaderContentEncoding); encoding != "" && encoding != "identity" {
		return fiber.NewError(fiber.StatusUnsupportedMediaType, "a Content-Encoding is not accepted; send the body as it is")
	}
	return c.Next()
}

// recoverPanics answers a handler's panic as an internal error, which is logged
// with its stack, and lets the process live.
func recoverPanics(c *fiber.Ctx) (err error) {
	defer recovered(&err)
	return c.Next()
}
