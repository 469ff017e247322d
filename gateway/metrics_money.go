package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"paythread/checkout"
	"paythread/conversations"
)

// moneyMetrics count what becomes of customers' tries, and what is learnt of
// money from elsewhere.
type moneyMetrics struct {
	attempts      *prometheus.CounterVec
	refusals      *prometheus.CounterVec
	notifications *prometheus.CounterVec
	findings      *prometheus.CounterVec
	audits        *prometheus.CounterVec
}

// chargeOutcomes are what a charge can be answered with.
var chargeOutcomes = []conversations.Outcome{
	conversations.OutcomeUnknown, conversations.OutcomeAuthorized, conversations.OutcomeCaptured, conversations.OutcomeInReview,
	conversations.OutcomePartial, conversations.OutcomeRiskDeclined, conversations.OutcomeDeclined,
	conversations.OutcomeAuthenticationPending, conversations.OutcomeNotTaken,
}

// inquiryOutcomes are what a platform can say when it is asked about a charge.
var inquiryOutcomes = append([]conversations.Outcome{conversations.OutcomeNotFound, conversations.OutcomeReversed}, chargeOutcomes...)

// cardTestingLimits are the limits on tries that a customer can meet.
var cardTestingLimits = []string{checkout.LimitRequest, checkout.LimitContact, checkout.LimitAddress}

// notifiedProducts are the products whose notifications are counted by name;
// whoever signs could name any, and labels are a closed set.
var notifiedProducts = []string{"unifiedCheckout", "payments", "cardProcessing", "decisionManager", "fraudManagementEssentials", "payByLink", "alternativePaymentMethods", "eCheck", "tokenManagement", "customerInvoicing", otherProduct}

// otherProduct stands for every product that is not known, and for what nobody
// has signed, of which nothing is believed.
const otherProduct = "other"

// noticeOutcome is what became of a notification.
type noticeOutcome string

// The outcomes of a notification.
const (
	noticeTaken        noticeOutcome = "taken"         // the payment request knows of it now
	noticeRepeated     noticeOutcome = "repeated"      // it had been taken before
	noticeLater        noticeOutcome = "later"         // its transaction is looked up first
	noticeForeign      noticeOutcome = "foreign"       // about nothing of ours
	noticeIgnored      noticeOutcome = "ignored"       // of a kind that is not known
	noticeBadSignature noticeOutcome = "bad_signature" // refused
	noticeStale        noticeOutcome = "stale"         // refused
	noticeUnreadable   noticeOutcome = "unreadable"    // signed, and it makes no sense
	noticeUnavailable  noticeOutcome = "unavailable"   // to be delivered again
	noticeFailed       noticeOutcome = "failed"        // our fault, and logged
)

var noticeOutcomes = []noticeOutcome{
	noticeTaken, noticeRepeated, noticeLater, noticeForeign, noticeIgnored,
	noticeBadSignature, noticeStale, noticeUnreadable, noticeUnavailable, noticeFailed,
}

func newMoneyMetrics(r prometheus.Registerer) *moneyMetrics {
	m := &moneyMetrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_attempts_total", Help: "Charges, by what the platform answered at once.",
		}, []string{"platform", "outcome"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_card_testing_refusals_total", Help: "Tries to pay that were refused because there had been too many, by the limit.",
		}, []string{"limit"}),
		notifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_notifications_total", Help: "Notifications of payment platforms, by what became of them.",
		}, []string{"product", "outcome"}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_audit_findings_total", Help: "Transactions of a platform that we did not know, or knew otherwise.",
		}, []string{"kind"}),
		audits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_audits_total", Help: "Comparisons of what a platform did with what we know, by outcome.",
		}, []string{"outcome"}),
	}
	for _, p := range platformRegistrations {
		for _, outcome := range chargeOutcomes {
			m.attempts.WithLabelValues(p.Name, string(outcome))
		}
	}
	for _, limit := range cardTestingLimits {
		m.refusals.WithLabelValues(limit)
	}
	for _, product := range notifiedProducts {
		for _, outcome := range noticeOutcomes {
			m.notifications.WithLabelValues(product, string(outcome))
		}
	}
	for _, kind := range findingKinds {
		m.findings.WithLabelValues(string(kind))
	}
	for _, outcome := range []string{"done", "failed"} {
		m.audits.WithLabelValues(outcome)
	}
	r.MustRegister(m.attempts, m.refusals, m.notifications, m.findings, m.audits)
	return m
}

// charged counts the answer to a charge.
func (m *moneyMetrics) charged(platform string, result conversations.Result) {
	m.attempts.WithLabelValues(platform, string(result.Outcome)).Inc()
}

// refused counts a try that came too soon or once too often.
func (m *moneyMetrics) refused(limit string) {
	m.refusals.WithLabelValues(limit).Inc()
}

// operationMetrics count the calls that move money which came.
type operationMetrics struct {
	operations *prometheus.CounterVec
	timeouts   *prometheus.CounterVec
}

// timeoutOutcomes are what a time-out reversal comes to; failed: the platform
// could not be asked.
var timeoutOutcomes = []string{string(conversations.OutcomeReversed), string(conversations.OutcomeUnknown), "failed"}

func newOperationMetrics(r prometheus.Registerer) operationMetrics {
	m := operationMetrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_operations_total", Help: "Calls that capture, reverse, void or refund, by the outcome.",
		}, []string{"kind", "state"}),
		timeouts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_timeout_reversals_total", Help: "Charges of unknown outcome that were asked to be taken back by our own reference, by outcome.",
		}, []string{"platform", "outcome"}),
	}
	for _, kind := range []conversations.OperationKind{conversations.OperationCapture, conversations.OperationReversal, conversations.OperationVoid, conversations.OperationRefund} {
		for _, state := range []conversations.OperationState{conversations.OperationPending, conversations.OperationSucceeded, conversations.OperationFailed, conversations.OperationUnsettled} {
			m.operations.WithLabelValues(string(kind), string(state))
		}
	}
	for _, p := range platformRegistrations {
		for _, outcome := range timeoutOutcomes {
			m.timeouts.WithLabelValues(p.Name, outcome)
		}
	}
	r.MustRegister(m.operations, m.timeouts)
	return m
}

// auditCollector tells how old the audits are when it is scraped.
type auditCollector struct {
	job *auditJob

	ended    *prometheus.Desc
	interval *prometheus.Desc
}

func newAuditCollector(j *auditJob) *auditCollector {
	return &auditCollector{
		job:      j,
		ended:    prometheus.NewDesc("paythread_audit_last_success_timestamp_seconds", "When a merchant's audit last came to its end in this process, and if none has, since when it is due here.", []string{"merchant"}, nil),
		interval: prometheus.NewDesc("paythread_audit_interval_seconds", "How often each merchant is to be audited, by all processes together.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *auditCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.ended
	out <- c.interval
}

// Collect implements prometheus.Collector. Where nothing is to be audited there
// is nothing that could be late.
func (c *auditCollector) Collect(out chan<- prometheus.Metric) {
	if c.job.config.Every == 0 {
		return
	}
	out <- prometheus.MustNewConstMetric(c.interval, prometheus.GaugeValue, c.job.config.Every.Seconds())
	for merchantID, at := range c.job.lastEnded() {
		out <- prometheus.MustNewConstMetric(c.ended, prometheus.GaugeValue, float64(at.UnixMilli())/1000, merchantID)
	}
}
