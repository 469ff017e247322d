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
	m.received.WithLabelValues(noProvider, "unknown_sender")
	for _, p := range providerRegistrations {
		for _, outcome := range []string{"accepted", "bad_signature", "bad_handshake", "unreadable", "unavailable"} {
			m.received.WithLabelValues(p.Name, outcome)
		}
		for _, kind := range reportKinds {
			for _, outcome := range []string{"taken", "unmatched", "unknown_sender", "unavailable", "failed"} {
				m.reports.WithLabelValues(p.Name, string(kind), outcome)
			}
		}
	}
	r.MustRegister(m.received, m.reports)
	return m
}

// reportKinds are the kinds of reports inside webhooks.
var reportKinds = []conversations.InboundKind{
	conversations.InboundText, conversations.InboundButton, conversations.InboundMedia, conversations.InboundOther, conversations.InboundStatus,
	conversations.InboundConsent, conversations.InboundAddress, conversations.InboundAccount, conversations.InboundIdentity,
}

// sendOutcomes are what a call that sends a message comes to. Only the first
// has no reason.
const (
	sendAccepted = "accepted"
	sendRetried  = "retry"
	sendFailed   = "failed"
	sendUnknown  = "unknown"
	sendNotTried = "not_tried"
)

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
		}, []string{"provider", "outcome", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "paythread_message_send_seconds", Help: "Time of a call that sends a message.", Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
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
		m.sent.WithLabelValues(p.Name, sendAccepted, "")
		for _, outcome := range []string{sendRetried, sendFailed, sendUnknown, sendNotTried} {
			for reason := range conversations.FailureReasons {
				m.sent.WithLabelValues(p.Name, outcome, string(reason))
			}
		}
		for _, outcome := range []string{"found", "not_found", "failed"} {
			m.questions.WithLabelValues(p.Name, outcome)
		}
		for _, outcome := range []string{"done", "failed", "left_out"} {
			m.marks.WithLabelValues(p.Name, outcome)
		}
	}
	for _, p := range platformRegistrations {
		for _, outcome := range inquiryOutcomes {
			m.inquiries.WithLabelValues(p.Name, string(outcome))
		}
	}
	m.waits.WithLabelValues(otherWork, string(waitFull))
	r.MustRegister(m.sent, m.seconds, m.inquiries, m.dead, m.waits, m.holds, m.questions, m.marks)
	return m
}

// knows creates the labels of a sender.
func (m *dispatchMetrics) knows(senderID string) {
	for _, cause := range waitCauses {
		m.waits.WithLabelValues(senderID, string(cause))
	}
	for reason := range conversations.FailureReasons {
		m.holds.WithLabelValues(senderID, string(reason))
	}
}

// otherWork is the label of the lanes that are no sender's.
const otherWork = "other work"

// senderCollector tells how the senders stand when it is scraped.
type senderCollector struct {
	senders func() map[string]*outgoing
	lanes   func() []conversations.WorkLane

	depth   *prometheus.Desc
	breaker *prometheus.Desc
	hold    *prometheus.Desc
}

func newSenderCollector(senders func() map[string]*outgoing, lanes func() []conversations.WorkLane) *senderCollector {
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
	senders := c.senders()
	for id := range senders {
		depths[id] = [2]int{}
	}
	for _, lane := range c.lanes() {
		name := otherWork
		if _, ours := senders[lane.SenderID]; ours {
			name = lane.SenderID
		}
		d := depths[name]
		depths[name] = [2]int{d[0] + lane.Waiting, d[1] + lane.Working}
	}
	for name, d := range depths {
		gauge(c.depth, float64(d[0]), name, "waiting")
		gauge(c.depth, float64(d[1]), name, "working")
	}
	for id, s := range senders {
		gauge(c.breaker, float64(s.breaker.State()), id)
		// Asked anew, and not of what the workers know: they may be waiting for
		// Redis, and while it does not answer nobody knows.
		state, err := s.store.SenderState(ctx, id)
		if err != nil {
			continue // paythread_redis_up says it
		}
		left := 0.0
		if state.Hold != nil {
			left = max(0, state.Hold.Until.Sub(s.store.Now()).Seconds())
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
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route"}),
	}
	r.MustRegister(m.calls, m.seconds)
	return m
}

// prepare creates the series of each route with the statuses that rules ask for.
func (m *httpMetrics) prepare(routes []fiber.Route) {
	for _, r := range routes {
		if method := methodLabel(r.Method); method == r.Method && method != fiber.MethodOptions {
			for _, status := range []int{fiber.StatusOK, fiber.StatusInternalServerError, fiber.StatusServiceUnavailable} {
				m.calls.WithLabelValues(method, r.Path, strconv.Itoa(status))
			}
			m.seconds.WithLabelValues(r.Path)
		}
	}
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

	attempts, attemptsAge     *prometheus.Desc
	operations, operationsAge *prometheus.Desc
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

		attempts:      prometheus.NewDesc("paythread_attempts_unsettled", "Charges whose outcome is not known; the platform is being asked.", nil, nil),
		attemptsAge:   prometheus.NewDesc("paythread_attempts_unsettled_oldest_seconds", "Time since the oldest charge began whose outcome is not known.", nil, nil),
		operations:    prometheus.NewDesc("paythread_operations_unsettled", "Captures, reversals, voids and refunds whose outcome is not known, or that the platform has put off.", nil, nil),
		operationsAge: prometheus.NewDesc("paythread_operations_unsettled_oldest_seconds", "Time since the oldest operation was asked for whose outcome is not known, or that the platform has put off.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *storeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.depth, c.oldest, c.late, c.up, c.few, c.dead, c.attempts, c.attemptsAge, c.operations, c.operationsAge} {
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
	attempts, operations, unsettledErr := c.store.Unsettled(ctx)
	if unsettledErr == nil {
		out <- prometheus.MustNewConstMetric(c.attempts, prometheus.GaugeValue, float64(attempts.Count))
		out <- prometheus.MustNewConstMetric(c.attemptsAge, prometheus.GaugeValue, c.age(attempts))
		out <- prometheus.MustNewConstMetric(c.operations, prometheus.GaugeValue, float64(operations.Count))
		out <- prometheus.MustNewConstMetric(c.operationsAge, prometheus.GaugeValue, c.age(operations))
	}
	if err != nil || lateErr != nil || deadErr != nil || unsettledErr != nil {
		up = 0
	}
	out <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up)
}

func (c *storeCollector) age(u conversations.Unsettled) float64 {
	if u.Oldest.IsZero() {
		return 0
	}
	return max(0, c.store.Now().Sub(u.Oldest).Seconds())
}
