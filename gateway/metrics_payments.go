package main

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"paythread/conversations"
)

// paymentMetrics count what commits change, where they are made: each once, in
// the process that made it.
type paymentMetrics struct {
	providerOf func(senderID string) string

	events   *prometheus.CounterVec
	created  *prometheus.CounterVec
	opened   prometheus.Counter
	paid     prometheus.Counter
	seconds  *prometheus.HistogramVec
	messages *prometheus.CounterVec
}

// The beginnings of the time to pay.
const (
	payFromSent   = "sent"
	payFromOpened = "opened"
)

// noProvider stands for what belongs to no provider that is known.
const noProvider = "none"

// otherEvent stands for an event of a type that agents have no sentence for.
const otherEvent = "other"

// eventTypes are the types of the events in the payment requests' logs, which
// agents have a sentence for.
func eventTypes() []string {
	var types []string
	seen := map[string]bool{}
	for key := range eventTexts {
		if kind, _, _ := strings.Cut(key, "."); !seen[kind] {
			seen[kind] = true
			types = append(types, kind)
		}
	}
	return types
}

// messageStatuses are the statuses that a message is counted in.
var messageStatuses = []conversations.DeliveryStatus{
	conversations.DeliveryQueued, conversations.DeliverySending, conversations.DeliveryAccepted, conversations.DeliverySent,
	conversations.DeliveryDelivered, conversations.DeliveryRead, conversations.DeliveryFailed,
}

func newPaymentMetrics(r prometheus.Registerer, providerOf func(senderID string) string) *paymentMetrics {
	m := &paymentMetrics{
		providerOf: providerOf,
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_payment_events_total", Help: "Events in the payment requests' logs, as agents see them, by type.",
		}, []string{"type"}),
		created: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_payment_requests_created_total", Help: "Payment requests that were made, by the channel of their message.",
		}, []string{"channel"}),
		opened: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "paythread_links_opened_total", Help: "Checkout links that a person opened, each counted at the first time.",
		}),
		paid: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "paythread_links_paid_total", Help: "Checkout links that were paid: the money was taken or is held, each counted at the first time.",
		}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "paythread_time_to_pay_seconds", Help: "Time until a link was paid, from its message being sent or from its being opened.",
			Buckets: []float64{15, 30, 60, 120, 300, 600, 900, 1800, 3600, 4 * 3600, 24 * 3600, 72 * 3600},
		}, []string{"since"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_messages_total", Help: "Statuses that outbound messages reached, by provider, channel and, where they failed, reason.",
		}, []string{"provider", "channel", "status", "reason"}),
	}
	for _, kind := range append(eventTypes(), otherEvent) {
		m.events.WithLabelValues(kind)
	}
	for _, channel := range []conversations.Channel{conversations.WhatsApp, conversations.SMS} {
		m.created.WithLabelValues(string(channel))
		m.prepareMessages(noProvider, string(channel))
	}
	for _, p := range providerRegistrations {
		for _, channel := range p.Channels {
			m.prepareMessages(p.Name, string(channel))
		}
	}
	for _, since := range []string{payFromSent, payFromOpened} {
		m.seconds.WithLabelValues(since)
	}
	r.MustRegister(m.events, m.created, m.opened, m.paid, m.seconds, m.messages)
	return m
}

func (m *paymentMetrics) prepareMessages(provider, channel string) {
	for _, status := range messageStatuses {
		if status != conversations.DeliveryFailed {
			m.messages.WithLabelValues(provider, channel, string(status), "")
			continue
		}
		for reason := range conversations.FailureReasons {
			m.messages.WithLabelValues(provider, channel, string(status), string(reason))
		}
	}
}

// count is told of every commit of this process.
func (m *paymentMetrics) count(c conversations.Committed) {
	for _, e := range c.Events {
		kind := e.Type
		if _, known := eventTexts[kind]; !known {
			kind = otherEvent
		}
		m.events.WithLabelValues(kind).Inc()
	}
	for _, message := range c.Messages {
		m.countMessage(message)
	}
	if c.Request == nil {
		return
	}
	if c.Before == nil {
		m.created.WithLabelValues(string(c.Request.Channel)).Inc()
	}
	if c.Reached(conversations.MilestoneOpened) {
		m.opened.Inc()
	}
	if c.Reached(conversations.MilestonePaid) {
		m.paid.Inc()
		m.timeToPay(payFromSent, c.Request, conversations.MilestoneSent)
		m.timeToPay(payFromOpened, c.Request, conversations.MilestoneOpened)
	}
}

func (m *paymentMetrics) countMessage(message conversations.Message) {
	reason := ""
	if message.Status == conversations.DeliveryFailed {
		if reason = string(message.Reason); conversations.FailureReasons[message.Reason] == "" {
			reason = string(conversations.FailureUnknown)
		}
	}
	m.messages.WithLabelValues(m.providerOf(message.SenderID), string(message.Channel), string(message.Status), reason).Inc()
}

// timeToPay measures from a milestone that the request has reached. The clock
// is the store's, but a provider's own may have been ahead of it.
func (m *paymentMetrics) timeToPay(since string, r *conversations.PaymentRequest, from conversations.Milestone) {
	begin, ok := r.Milestones[from]
	if !ok {
		return
	}
	took := r.Milestones[conversations.MilestonePaid].Sub(begin)
	m.seconds.WithLabelValues(since).Observe(max(took, time.Duration(0)).Seconds())
}
