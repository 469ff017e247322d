package cybersource

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"paythread/simulator/faults"
)

// Outcome is one answer that CyberSource gives to a call, with the name by which a fault rule asks
// for it.
type Outcome struct {
	Call   string `json:"call"`             // such as cybersource.payments
	Name   string `json:"name"`             // HTTP status, status and reason: 201/DECLINED/EXPIRED_CARD
	HTTP   int    `json:"http"`             // the HTTP status
	Status string `json:"status,omitempty"` // the status in the body; empty where the body has none
	Reason string `json:"reason,omitempty"` // errorInformation.reason, or the flat body's reason
	// Moves says that the effect happens: money is held, taken, given back, whatever the answer says.
	Moves bool `json:"moves"`
	// Cards are the numbers that come to it without a rule.
	Cards []string `json:"cards,omitempty"`
}

// Rule makes the next such call come to the outcome.
func (o Outcome) Rule() faults.Rule {
	return faults.Rule{Call: o.Call, Do: faults.Refuse, Outcome: o.Name, Times: 1}
}

// Outcomes lists every answer that can be asked for, by call, approvals first. A lost answer is
// asked for with drop_before and drop_after instead, or timeout_before and timeout_after.
func Outcomes() []Outcome {
	var list []Outcome
	for _, call := range calls {
		for _, o := range call.outcomes {
			listed := Outcome{Call: call.name, Name: o.name(), HTTP: o.code(), Status: o.status, Reason: o.reason, Moves: o.holds()}
			if call.name == callPayments {
				for _, c := range testCards {
					if c.comesTo().name() == o.name() {
						listed.Cards = append(listed.Cards, c.Number)
					}
				}
			}
			list = append(list, listed)
		}
	}
	return list
}

const (
	callSessions     = "cybersource.sessions"
	callPayments     = "cybersource.payments"
	callCaptures     = "cybersource.captures"
	callReversals    = "cybersource.reversals"
	callRefunds      = "cybersource.refunds"
	callVoids        = "cybersource.voids"
	callSearches     = "cybersource.searches"
	callTransactions = "cybersource.transactions"
)

// newWord stands for a status or reason that CyberSource may add.
const newWord = "SOMETHING_NEW"

// The words of the API reference.
var (
	reviewReasons  = strings.Fields("AVS_FAILED CV_FAILED CONTACT_PROCESSOR DECISION_PROFILE_REVIEW")
	riskReasons    = strings.Fields("DECISION_PROFILE_REJECT SCORE_EXCEEDS_THRESHOLD")
	declineReasons = strings.Fields(`PROCESSOR_DECLINED INSUFFICIENT_FUND EXPIRED_CARD STOLEN_LOST_CARD ISSUER_UNAVAILABLE UNAUTHORIZED_CARD
		CVN_NOT_MATCH EXCEEDS_CREDIT_LIMIT INVALID_CVN BLOCKED_BY_CARDHOLDER DECLINED_CHECK BLACKLISTED_CUSTOMER SUSPENDED_ACCOUNT
		PAYMENT_REFUSED INVALID_ACCOUNT GENERAL_DECLINE INVALID_MERCHANT_CONFIGURATION PENDING_AUTHENTICATION ACH_VERIFICATION_FAILED
		CONSUMER_AUTHENTICATION_REQUIRED CONSUMER_AUTHENTICATION_FAILED ALLOWABLE_PIN_RETRIES_EXCEEDED PROCESSOR_ERROR
		CUSTOMER_WATCHLIST_MATCH ADDRESS_COUNTRY_WATCHLIST_MATCH EMAIL_COUNTRY_WATCHLIST_MATCH IP_COUNTRY_WATCHLIST_MATCH
		AVS_FAILED CV_FAILED CONTACT_PROCESSOR SCORE_EXCEEDS_THRESHOLD DECISION_PROFILE_REJECT DECISION_PROFILE_REVIEW`)
	serverReasons  = strings.Fields("SYSTEM_ERROR SERVER_TIMEOUT SERVICE_TIMEOUT")
	genericRefused = strings.Fields("MISSING_FIELD INVALID_DATA DUPLICATE_REQUEST INVALID_AMOUNT INVALID_MERCHANT_CONFIGURATION PROCESSOR_UNAVAILABLE NOT_SUPPORTED INVALID_PAYMENT_ID")
	paymentRefused = append(slices.Clone(genericRefused), "INVALID_CARD", "CARD_TYPE_NOT_ACCEPTED", "INVALID_CARD_TYPE")
	captureRefused = append(slices.Clone(genericRefused), "EXCEEDS_AUTH_AMOUNT", "AUTH_ALREADY_REVERSED", "TRANSACTION_ALREADY_SETTLED", "MISSING_AUTH", "TRANSACTION_ALREADY_REVERSED_OR_SETTLED")
	reverseRefused = append(slices.Clone(genericRefused), "AUTH_ALREADY_REVERSED", "TRANSACTION_ALREADY_SETTLED", "TRANSACTION_ALREADY_REVERSED_OR_SETTLED")
	refundRefused  = append(slices.Clone(genericRefused), "CAPTURE_ALREADY_VOIDED", "ACCOUNT_NOT_ALLOWED_CREDIT")
	voidRefused    = append(slices.Clone(genericRefused), "NOT_VOIDABLE")
	outages        = []outcome{{http: 401}, {http: 403}, {http: 404}, {http: 429}, {http: 503}}
)

// namedCall is a call with the answers that it knows by name. Where a rule gives a status or a reason
// alone, the first that has it is meant.
type namedCall struct {
	name     string
	outcomes []outcome
}

var calls = []namedCall{
	{callPayments, slices.Concat(
		[]outcome{approved, {status: statusPartial}},
		each(outcome{status: statusReview}, reviewReasons),
		each(outcome{status: statusRiskDeclined}, riskReasons),
		[]outcome{
			{status: statusPendingAuthentication, reason: "CONSUMER_AUTHENTICATION_REQUIRED"},
			{status: statusPendingReview, reason: "DECISION_PROFILE_REVIEW"}, {status: statusPending},
		},
		each(outcome{status: statusDeclined}, slices.Concat(declineReasons, []string{newWord})),
		refusals(paymentRefused),
		[]outcome{{status: statusInvalid, reason: "INVALID_DATA"}},
		lost(outcome{status: newWord}), serverErrors(), outages,
	)},
	{callCaptures, slices.Concat(
		[]outcome{{status: "PENDING", charged: true}, {status: "TRANSMITTED", charged: true}},
		refusals(captureRefused), lost(outcome{status: newWord}), serverErrors(), outages,
	)},
	{callReversals, slices.Concat(
		[]outcome{{status: "REVERSED", charged: true}},
		refusals(reverseRefused), lost(outcome{status: newWord}), serverErrors(), outages,
	)},
	{callRefunds, slices.Concat(
		[]outcome{{status: "PENDING", charged: true}, {status: "TRANSMITTED", charged: true}, {status: statusDeclined, reason: "PROCESSOR_DECLINED"}},
		refusals(refundRefused), []outcome{{status: statusInvalid, reason: "INVALID_DATA"}}, lost(outcome{status: newWord}), serverErrors(), outages,
	)},
	{callVoids, slices.Concat(
		[]outcome{{status: "VOIDED", charged: true}, {status: "CANCELLED", charged: true}, {status: "FAILED"}},
		refusals(voidRefused), lost(outcome{status: newWord}), serverErrors(), outages,
	)},
	{callSearches, append([]outcome{{http: 500}}, outages...)},
	{callTransactions, append([]outcome{{http: 500}}, outages...)},
	{callSessions, append([]outcome{{http: 500}}, outages...)},
}

func each(o outcome, reasons []string) []outcome {
	var list []outcome
	for _, reason := range reasons {
		o.reason = reason
		list = append(list, o)
	}
	return list
}

func refusals(reasons []string) []outcome {
	return each(outcome{http: http.StatusBadRequest, status: statusInvalid}, reasons)
}

// lost are an outcome without an effect and with one.
func lost(o outcome) []outcome {
	done := o
	done.charged = true
	return []outcome{o, done}
}

func serverErrors() []outcome {
	var list []outcome
	for _, o := range append(each(outcome{status: statusServerError}, serverReasons), outcome{http: http.StatusInternalServerError, status: "500", reason: "SYSTEM_ERROR"}) {
		list = append(list, lost(o)...)
	}
	return list
}

// name is what a rule calls the outcome.
func (o outcome) name() string {
	name := strconv.Itoa(o.code())
	for _, part := range []string{o.status, o.reason} {
		if part != "" {
			name += "/" + part
		}
	}
	if o.charged && (o.code() != http.StatusCreated || o.status == newWord) {
		name += "/done"
	}
	return name
}

// findOutcome returns what a call's rule asks for: a name, or the first outcome with that status or reason.
func findOutcome(call, word string) (outcome, bool) {
	for _, c := range calls {
		if c.name != call {
			continue
		}
		for _, matches := range []func(outcome) bool{
			func(o outcome) bool { return o.name() == word },
			func(o outcome) bool { return o.reason == word || o.status == word },
		} {
			if i := slices.IndexFunc(c.outcomes, matches); i >= 0 && word != "" {
				return c.outcomes[i], true
			}
		}
	}
	return outcome{}, false
}

// nameOutcomes tells the fault set which words it may take.
func nameOutcomes(set *faults.Set) {
	for _, c := range calls {
		set.Name(c.name, func(word string) bool {
			_, known := findOutcome(c.name, word)
			return known
		})
	}
}

// refuses says whether the outcome is an answer to a request that leaves no trace of it.
func (o outcome) refuses() bool {
	return o.code() < 500 && o.code() >= 400 || o.code() == http.StatusServiceUnavailable || o.status == ""
}

// refusalBodies are what the gateway in front of CyberSource's services says. Only the first is
// documented by anyone who saw it.
var refusalBodies = map[int]string{
	http.StatusUnauthorized:        "Authentication Failed",
	http.StatusForbidden:           "Forbidden",
	http.StatusNotFound:            "Resource not found",
	http.StatusTooManyRequests:     "Too many requests",
	http.StatusInternalServerError: "Internal error",
	http.StatusServiceUnavailable:  "Service unavailable",
}

// refusal is the answer of an outcome that leaves no trace.
func (s *Simulator) refusal(o outcome) answer {
	if o.code() == http.StatusBadRequest {
		var fields []string
		if o.reason == "MISSING_FIELD" || o.reason == "INVALID_DATA" {
			fields = []string{"orderInformation.billTo.email"}
		}
		message := refusalMessages[o.reason]
		switch o.reason {
		case "DUPLICATE_REQUEST":
			message = duplicateTransactionID
		case "":
			message = "Declined"
		}
		return s.refuseWith(o.reason, message, fields...)
	}
	return answer{status: o.code(), body: object{"response": object{"rmsg": refusalBodies[o.code()]}}}
}

// serverError is the answer of a 500 or 502; id is the transaction's, whether or not it came to be.
func (s *Simulator) serverError(o outcome, id, submitted string) answer {
	message := reasons[o.reason].message
	if o.code() == http.StatusInternalServerError {
		return answer{status: o.code(), body: object{"id": id, "submitTimeUtc": submitted, "status": "500", "errorInformation": object{
			"reason": o.reason, "message": "Request failed due to system error.", "details": []detail{{"reasonCode", "212"}},
		}}}
	}
	return answer{status: o.code(), body: object{
		"id": id, "submitTimeUtc": submitted, "status": statusServerError, "reason": o.reason, "message": message,
	}}
}

// told is what a follow-on call answers when a rule has named its outcome: done is the true answer,
// if it was done.
func (s *Simulator) told(o outcome, done answer) answer {
	body, ok := done.body.(object)
	if !ok {
		// What is answered as declined has an id of its own, which nobody can look up.
		s.mu.Lock()
		body = object{"id": s.ledger.newID(s.now()), "submitTimeUtc": stamp(s.now())}
		s.mu.Unlock()
	}
	if o.code() >= 500 {
		return s.serverError(o, fmt.Sprint(body["id"]), fmt.Sprint(body["submitTimeUtc"]))
	}
	body["status"] = o.status
	if o.reason != "" {
		body["errorInformation"] = object{"reason": o.reason, "message": o.facts().message}
	}
	return answer{status: o.code(), body: body}
}
