package main

import (
	"context"
	"runtime"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"paythread/conversations"
)

// webhookMetrics count what providers deliver.
type webhookMetrics struct {
	received *prometheus.CounterVec
	reports  *prometheus.CounterVec
}

func newWebhookMetrics(r prometheus.Registerer) *webhookMetrics {
	m := &webhookMetrics{
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_webhooks_total", Help: "Webhooks of messaging providers, by how they were answered.",
		}, []string{"provider", "outcome"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_webhook_reports_total", Help: "Messages, statuses and other reports inside webhooks, by what became of them.",
		}, []string{"provider", "kind", "outcome"}),
	}
	for _, p := range providerRegistrations {
		for _, outcome := range []string{"accepted", "bad_signature", "bad_handshake", "unreadable", "unavailable"} {
			m.received.WithLabelValues(p.Name, outcome)
		}
	}
	r.MustRegister(m.received, m.reports)
	return m
}

// dispatchMetrics count what the dispatcher does.
type dispatchMetrics struct {
	operationMetrics

	sent      *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	inquiries *prometheus.CounterVec
	dead      prometheus.Counter
	waits     *prometheus.CounterVec
	holds     *prometheus.CounterVec
	questions *prometheus.CounterVec
	marks     *prometheus.CounterVec
}

func newDispatchMetrics(r prometheus.Registerer) *dispatchMetrics {
	m := &dispatchMetrics{
		operationMetrics: newOperationMetrics(r),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_messages_sent_total", Help: "Calls that send a message, by the provider's answer and the reason of a failure.",
		}, []string{"provider", "purpose", "outcome", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "paythread_message_send_seconds", Help: "Time of a call that sends a message.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 11),
		}, []string{"provider"}),
		inquiries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_attempt_inquiries_total", Help: "Questions to a platform about an attempt, by its answer.",
		}, []string{"platform", "outcome"}),
		dead: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "paythread_dead_letters_total", Help: "Outbox entries that were parked because they could not be worked.",
		}),
	}
	m.waits = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "paythread_message_waits_total", Help: "Times that a message had to wait before it was sent, by sender and cause.",
	}, []string{"sender", "cause"})
	m.holds = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "paythread_sender_holds_total", Help: "Times that a provider's answer held back a whole sender, by its reason.",
	}, []string{"sender", "reason"})
	m.questions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "paythread_message_questions_total", Help: "Questions to a provider about a message whose answer was lost, by what it said.",
	}, []string{"provider", "outcome"})
	m.marks = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "paythread_mark_read_total", Help: "Customers who were told that their message was read, by outcome.",
	}, []string{"provider", "outcome"})
	for _, p := range providerRegistrations {
		m.seconds.WithLabelValues(p.Name)
	}
	r.MustRegister(m.sent, m.seconds, m.inquiries, m.dead, m.waits, m.holds, m.questions, m.marks)
	return m
}

// otherWork is the label of the lanes that are no sender's.
const otherWork = "other work"

// senderCollector tells how the senders stand when it is scraped.
type senderCollector struct {
	senders map[string]*outgoing
	lanes   func() []conversations.WorkLane

	depth   *prometheus.Desc
	breaker *prometheus.Desc
	hold    *prometheus.Desc
}

func newSenderCollector(senders map[string]*outgoing, lanes func() []conversations.WorkLane) *senderCollector {
	return &senderCollector{
		senders: senders, lanes: lanes,
		depth:   prometheus.NewDesc("paythread_lane_depth", "Outbox entries in this process by lane, a sender's or that of other work, waiting or being worked.", []string{"lane", "state"}, nil),
		breaker: prometheus.NewDesc("paythread_sender_breaker_state", "The sender's circuit breaker in this process: 0 closed, 1 half open, 2 open.", []string{"sender"}, nil),
		hold:    prometheus.NewDesc("paythread_sender_hold_seconds", "For how long the sender's messages are still held back, in all processes; 0: they are not.", []string{"sender"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *senderCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.depth, c.breaker, c.hold} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *senderCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeWithin)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	depths := map[string][2]int{otherWork: {}}
	for id := range c.senders {
		depths[id] = [2]int{}
	}
	for _, lane := range c.lanes() {
		name := otherWork
		if _, ours := c.senders[lane.SenderID]; ours {
			name = lane.SenderID
		}
		d := depths[name]
		depths[name] = [2]int{d[0] + lane.Waiting, d[1] + lane.Working}
	}
	for name, d := range depths {
		gauge(c.depth, float64(d[0]), name, "waiting")
		gauge(c.depth, float64(d[1]), name, "working")
	}
	for id, s := range c.senders {
		gauge(c.breaker, float64(s.breaker.State()), id)
		left := 0.0
		if h := s.held(ctx); h != nil {
			left = h.Until.Sub(s.store.Now()).Seconds()
		}
		gauge(c.hold, left, id)
	}
}

// httpMetrics count the calls of the public listener, by the pattern of their
// route and never by their address, which may hold a link.
type httpMetrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newHTTPMetrics(r prometheus.Registerer) *httpMetrics {
	m := &httpMetrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_http_requests_total", Help: "Calls of the public listener, by method, route and status.",
		}, []string{"method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "paythread_http_request_seconds", Help: "Time until a call of the public listener was answered; of a stream, until it began.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}, []string{"route"}),
	}
	r.MustRegister(m.calls, m.seconds)
	return m
}

// count is a middleware. It answers an error itself, as Fiber would, because
// only then is the status known.
func (m *httpMetrics) count(c *fiber.Ctx) error {
	began := time.Now()
	if err := c.Next(); err != nil {
		if err := c.App().ErrorHandler(c, err); err != nil {
			return err
		}
	}
	route := c.Route().Path
	if c.Response().StatusCode() == fiber.StatusNotFound && route == "/" {
		route = "none" // no row fits: addresses that are made up must not become labels
	}
	m.calls.WithLabelValues(methodLabel(c.Method()), route, strconv.Itoa(c.Response().StatusCode())).Inc()
	m.seconds.WithLabelValues(route).Observe(time.Since(began).Seconds())
	return nil
}

// methodLabel keeps the methods a closed set.
func methodLabel(method string) string {
	switch method {
	case fiber.MethodGet, fiber.MethodHead, fiber.MethodPost, fiber.MethodOptions:
		return method
	}
	return "other"
}

// buildInfo is a constant that names the version that runs.
func buildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "paythread_build_info", Help: "Always 1; its labels say what runs.",
		ConstLabels: prometheus.Labels{"version": versionLine(), "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}

// storeCollector asks the store for its depths when it is scraped.
type storeCollector struct {
	store  *conversations.Store
	depth  *prometheus.Desc
	oldest *prometheus.Desc
	late   *prometheus.Desc
	up     *prometheus.Desc
	few    *prometheus.Desc
	dead   *prometheus.Desc
}

// scrapeWithin bounds the questions to Redis of one scrape.
const scrapeWithin = 3 * time.Second

func newStoreCollector(s *conversations.Store) *storeCollector {
	return &storeCollector{
		store:  s,
		depth:  prometheus.NewDesc("paythread_outbox_depth", "Outbox entries that wait or are being worked.", nil, nil),
		oldest: prometheus.NewDesc("paythread_outbox_oldest_seconds", "Age of the oldest outbox entry.", nil, nil),
		late:   prometheus.NewDesc("paythread_timers_late_seconds", "By how much the oldest due timer is late.", nil, nil),
		up:     prometheus.NewDesc("paythread_redis_up", "Whether Redis answered this scrape's questions.", nil, nil),
		dead:   prometheus.NewDesc("paythread_dead_letters", "Dead letters that wait to be retried or dropped.", nil, nil),
		few:    prometheus.NewDesc("paythread_commits_unreplicated_total", "Commits of money that fewer replicas than configured confirmed in time.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *storeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.depth, c.oldest, c.late, c.up, c.few, c.dead} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *storeCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeWithin)
	defer cancel()
	out <- prometheus.MustNewConstMetric(c.few, prometheus.CounterValue, float64(c.store.TooFewReplicas()))
	up := 1.0
	depth, oldest, err := c.store.OutboxDepth(ctx)
	if err == nil {
		out <- prometheus.MustNewConstMetric(c.depth, prometheus.GaugeValue, float64(depth))
		out <- prometheus.MustNewConstMetric(c.oldest, prometheus.GaugeValue, oldest.Seconds())
	}
	late, lateErr := c.store.TimersLate(ctx)
	if lateErr == nil {
		out <- prometheus.MustNewConstMetric(c.late, prometheus.GaugeValue, late.Seconds())
	}
	dead, deadErr := c.store.DeadCount(ctx)
	if deadErr == nil {
		out <- prometheus.MustNewConstMetric(c.dead, prometheus.GaugeValue, float64(dead))
	}
	if err != nil || lateErr != nil || deadErr != nil {
		up = 0
	}
	out <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up)
}
