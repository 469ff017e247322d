package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"paythread/conversations"
)

// mostAnswer bounds what is read of an endpoint's answer; nothing in it is used.
const mostAnswer = 64 << 10

// The words for what went wrong with a try: a closed set, on the API and in
// logs.
const (
	callbackRefused     = "address_refused" // the host leads to where callbacks do not go
	callbackNoHost      = "unknown_host"
	callbackTimeout     = "timeout"
	callbackTLS         = "tls"
	callbackNoAnswer    = "no_answer" // refused or broken connections, and answers that are no HTTP
	callbackRedirect    = "redirect"
	callbackStatus      = "status" // any other that is not 2xx
	callbackEventGone   = "event_gone"
	callbackUnsendable  = "not_sendable"
	callbackMerchantOut = "merchant_gone"
)

// deliver tries one delivery and records what came of it. If recording fails
// the event is sent again when the lease has run out, with the same id.
func (c *callbacks) deliver(ctx context.Context, e conversations.CallbackEndpoint, secrets []string, t conversations.Taken) {
	body, result, err := c.content(ctx, e, t)
	if err != nil {
		c.log.WarnContext(ctx, "a callback could not be made and is tried again", "merchant_id", e.MerchantID, "endpoint", e.ID, "delivery", t.ID, "payment_request_id", t.RequestID, "error", err)
		return
	}
	if body != nil {
		result = c.try(ctx, e, secrets, t.ID, body)
	}
	done, err := c.queue.Record(ctx, e, t, result)
	if err != nil {
		c.log.WarnContext(ctx, "what came of a callback was not recorded; it is sent again", "merchant_id", e.MerchantID, "endpoint", e.ID, "delivery", t.ID, "payment_request_id", t.RequestID, "error", err)
		return
	}
	if done.State == "" {
		return // deleted meanwhile
	}
	c.metrics.tries.WithLabelValues(string(done.State)).Inc()
	if result.Delivered {
		c.log.InfoContext(ctx, "a callback was delivered", "merchant_id", e.MerchantID, "endpoint", e.ID, "delivery", t.ID, "payment_request_id", t.RequestID, "tries", t.Tries+1)
	} else {
		c.log.WarnContext(ctx, "a callback was not delivered", "merchant_id", e.MerchantID, "endpoint", e.ID, "delivery", t.ID, "payment_request_id", t.RequestID, "state", string(done.State),
			"status", result.Status, "reason", result.Error, "tries", t.Tries+1)
	}
	if done.Disabled != "" {
		c.log.ErrorContext(ctx, "a callback endpoint was switched off; enable it when its owner has mended it", "audit", true,
			"merchant_id", e.MerchantID, "endpoint", e.ID, "host", callbackHost(e.URL), "reason", done.Disabled)
		c.nudge() // its merchant is told
	}
}

// content makes what is sent. No body and no error: it can never be made, and
// the result says why.
func (c *callbacks) content(ctx context.Context, e conversations.CallbackEndpoint, t conversations.Taken) ([]byte, conversations.CallbackResult, error) {
	if t.RequestID == "" {
		return t.Body, conversations.CallbackResult{}, nil
	}
	hopeless := func(why string) ([]byte, conversations.CallbackResult, error) {
		return nil, conversations.CallbackResult{Error: why, Hopeless: true}, nil
	}
	m, ok := c.config().Merchant(e.MerchantID)
	if !ok {
		return hopeless(callbackMerchantOut)
	}
	logged, err := c.queue.Event(ctx, t.CallbackDelivery)
	var r *conversations.PaymentRequest
	if err == nil {
		r, err = c.store.Request(ctx, t.RequestID)
	}
	switch {
	case conversations.CodeOf(err) == conversations.CodeNotFound:
		return hopeless(callbackEventGone)
	case err != nil:
		return nil, conversations.CallbackResult{}, err
	case r.MerchantID != e.MerchantID:
		return hopeless(callbackEventGone)
	}
	body, err := requestPayload(t.Type, logged, r, m)
	if err != nil {
		return nil, conversations.CallbackResult{}, err
	}
	return body, conversations.CallbackResult{}, nil
}

// try sends a body once.
func (c *callbacks) try(ctx context.Context, e conversations.CallbackEndpoint, secrets []string, id string, body []byte) conversations.CallbackResult {
	ctx, cancel := context.WithTimeout(ctx, c.config().Callbacks.Timeout)
	defer cancel()
	unsendable := conversations.CallbackResult{Error: callbackUnsendable}
	if checkCallbackURL(e.URL, c.config().Callbacks.AllowPrivate) != nil {
		unsendable.Error = callbackRefused
		return unsendable
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return unsendable
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Paythread")
	if err := signCallback(req.Header, secrets, id, c.store.Now(), body); err != nil {
		c.log.ErrorContext(ctx, "a callback cannot be signed", "merchant_id", e.MerchantID, "endpoint", e.ID, "error", err)
		return unsendable
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return conversations.CallbackResult{Error: callbackError(err)}
	}
	// Read, so that the connection can be used again; the answer has come by now.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, mostAnswer))
	_ = resp.Body.Close() // the same
	return answered(resp, c.store.Now())
}

// answered says what an answer means.
func answered(resp *http.Response, now time.Time) conversations.CallbackResult {
	r := conversations.CallbackResult{Status: resp.StatusCode}
	switch {
	case resp.StatusCode/100 == 2:
		r.Delivered = true
	case resp.StatusCode/100 == 3:
		r.Error = callbackRedirect // never followed: it could lead anywhere
	case resp.StatusCode == http.StatusGone:
		r.Error, r.Gone = callbackStatus, true
	default:
		r.Error = callbackStatus
		if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
			r.RetryAfter = retryAfterOf(resp.Header.Get("Retry-After"), now)
		}
	}
	return r
}

// retryAfterOf reads seconds or a date; zero for anything else.
func retryAfterOf(value string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
		return time.Duration(min(max(n, 0), 1<<20)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// callbackError returns the word for a call that got no answer. The error itself
// holds the address and is not shown.
func callbackError(err error) string {
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var timeout net.Error
	switch {
	case errors.Is(err, errAddressRefused):
		return callbackRefused
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return callbackTimeout
	case errors.As(err, &dns):
		return callbackNoHost
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert), errors.As(err, &unknown), errors.As(err, &name):
		return callbackTLS
	}
	return callbackNoAnswer
}

// callbackMetrics count deliveries.
type callbackMetrics struct {
	tries  *prometheus.CounterVec
	resets *prometheus.CounterVec
}

func newCallbackMetrics(r prometheus.Registerer) *callbackMetrics {
	m := &callbackMetrics{
		tries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_callbacks_total", Help: "Tries to deliver an event to a merchant's endpoint, by what became of it.",
		}, []string{"outcome"}),
		resets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_callback_resets_total", Help: "Times that the merchants' endpoints were told to read the lists again, by reason.",
		}, []string{"reason"}),
	}
	for _, s := range []conversations.DeliveryState{conversations.DeliveryDone, conversations.DeliveryRetried, conversations.DeliveryAbandoned} {
		m.tries.WithLabelValues(string(s))
	}
	for _, reason := range []string{conversations.ResetTrimmed, conversations.ResetWentBack} {
		m.resets.WithLabelValues(reason)
	}
	r.MustRegister(m.tries, m.resets)
	return m
}

// callbackCollector tells what waits for the endpoints when it is scraped.
type callbackCollector struct {
	queue     *conversations.Callbacks
	merchants func() []string

	endpoints *prometheus.Desc
	depth     *prometheus.Desc
	oldest    *prometheus.Desc
}

func newCallbackCollector(queue *conversations.Callbacks, merchants func() []string) *callbackCollector {
	return &callbackCollector{
		queue: queue, merchants: merchants,
		endpoints: prometheus.NewDesc("paythread_callback_endpoints", "Callback endpoints by state: active, of these failing (no try succeeded since one failed), disabled.", []string{"state"}, nil),
		depth:     prometheus.NewDesc("paythread_callbacks_depth", "Deliveries to active endpoints that are not settled.", nil, nil),
		oldest:    prometheus.NewDesc("paythread_callbacks_oldest_seconds", "Age of the oldest event that waits for an active endpoint.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *callbackCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.endpoints, c.depth, c.oldest} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *callbackCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeWithin)
	defer cancel()
	depth, err := c.queue.Depth(ctx, c.merchants())
	if err != nil {
		return // paythread_redis_up says it
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for state, n := range depth.Endpoints {
		gauge(c.endpoints, float64(n), string(state))
	}
	gauge(c.endpoints, float64(depth.Failing), "failing")
	gauge(c.depth, float64(depth.Waiting))
	gauge(c.oldest, depth.Oldest.Seconds())
}
