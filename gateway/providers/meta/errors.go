package meta

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// traceForm is what may be quoted of fbtrace_id, which Meta's support asks
// for. Nothing else of a foreign body is: its texts quote tokens and numbers.
var traceForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// refused is the failure of an answer that carries one of Meta's codes: a
// clear refusal, even with a status of 500.
func refused(a providers.Answer, number, subcode providers.Loose, transient bool, trace string) *providers.Failure {
	err := fmt.Errorf("graph error with status %d", a.Status)
	if s := code(subcode); s != "" {
		err = fmt.Errorf("%w, subcode %s", err, s)
	}
	if traceForm.MatchString(trace) {
		err = fmt.Errorf("%w, trace %s", err, trace)
	}
	r, known := lookUp(number)
	switch {
	case number == "100" && subcode == "33":
		r = providers.Refusal{Reason: conversations.FailureSenderConfig} // no such number, or not with this token
	case known:
	case transient, a.Status >= 500:
		r = providers.Refusal{Reason: conversations.FailureProviderError}
	default:
		r = providers.Refusal{Reason: providers.StatusFailure(a, nil).Reason}
	}
	after := a.RetryAfter() // documented for no send, and heeded all the same
	if r.Scope == providers.ScopeSender {
		after = max(after, regainAfter(a.Header))
	}
	return r.Failure(code(number), after, err)
}

// longestWait bounds what the usage header can make us wait.
const longestWait = time.Hour

// regainAfter reads X-Business-Use-Case-Usage: for each business object, how
// much of its limits is used up, and in how many minutes calls are let through
// again. Its members are not documented for sends, so whatever cannot be read
// is no wait.
func regainAfter(h http.Header) time.Duration {
	var usage map[string]lenient[[]struct {
		Minutes providers.Loose `json:"estimated_time_to_regain_access"`
	}]
	if json.Unmarshal([]byte(h.Get("X-Business-Use-Case-Usage")), &usage) != nil {
		return 0
	}
	var wait time.Duration
	for _, uses := range usage {
		for _, use := range uses.Value {
			n, err := strconv.Atoi(string(use.Minutes))
			if err == nil && n > 0 {
				wait = max(wait, min(time.Duration(min(n, 60))*time.Minute, longestWait))
			}
		}
	}
	return wait
}

// refusals is what Meta's codes mean, in answers and in failed statuses.
// Source: the Cloud API's page of error codes, December 2025 and September
// 2026. A wait is the least that the page, or practice, asks for; the domain
// has it grow. Where a row bounds the tries, the page says how often it helps.
var refusals = map[int]providers.Refusal{
	// The token, and what it may do.
	0:      {Meaning: "token: cannot be checked", Reason: conversations.FailureAuth},
	3:      {Meaning: "token: permission missing", Reason: conversations.FailureAuth},
	10:     {Meaning: "token: permission missing", Reason: conversations.FailureAuth},
	104:    {Meaning: "token: there is none", Reason: conversations.FailureAuth},
	190:    {Meaning: "token: expired or revoked", Reason: conversations.FailureAuth},
	131005: {Meaning: "token: access denied", Reason: conversations.FailureAuth},

	// The business account.
	368:    {Meaning: "business account: restricted by policy", Reason: conversations.FailureAccount},
	130497: {Meaning: "business account: may not message this country: others are not touched", Reason: conversations.FailureAccount, Scope: providers.ScopePair},
	131031: {Meaning: "business account: locked", Reason: conversations.FailureAccount},
	131042: {Meaning: "business account: no way to pay Meta", Reason: conversations.FailureAccount},
	134011: {Meaning: "business account: terms of WhatsApp payments", Reason: conversations.FailureAccount},

	// The number.
	33:     {Meaning: "number: deleted or unknown", Reason: conversations.FailureSenderConfig},
	131037: {Meaning: "number: display name not approved", Reason: conversations.FailureSenderConfig},
	131045: {Meaning: "number: registration fault", Reason: conversations.FailureSenderConfig},
	131055: {Meaning: "number: Marketing Messages API only", Reason: conversations.FailureSenderConfig},
	133000: {Meaning: "number: registration", Reason: conversations.FailureSenderConfig},
	133004: {Meaning: "number: registration", Reason: conversations.FailureSenderConfig},
	133005: {Meaning: "number: registration", Reason: conversations.FailureSenderConfig},
	133006: {Meaning: "number: registration", Reason: conversations.FailureSenderConfig},
	133007: {Meaning: "number: registration", Reason: conversations.FailureSenderConfig},
	133008: {Meaning: "number: registration", Reason: conversations.FailureSenderConfig},
	133009: {Meaning: "number: registration", Reason: conversations.FailureSenderConfig},
	133010: {Meaning: "number: our number is not registered", Reason: conversations.FailureSenderConfig},
	133015: {Meaning: "number: registration", Reason: conversations.FailureSenderConfig},
	133016: {Meaning: "number: registration", Reason: conversations.FailureSenderConfig},
	134100: {Meaning: "number: Marketing Messages API only", Reason: conversations.FailureSenderConfig},
	134101: {Meaning: "number: Marketing Messages API only", Reason: conversations.FailureSenderConfig},
	134102: {Meaning: "number: Marketing Messages API only", Reason: conversations.FailureSenderConfig},

	// Too many at once. All but the pair's hold the whole sender.
	4:      {Meaning: "too many: calls of the app", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: 2 * time.Minute},
	613:    {Meaning: "too many: custom limit", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: 2 * time.Minute},
	80007:  {Meaning: "too many: calls of the business account", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: 2 * time.Minute},
	130429: {Meaning: "too many: throughput of the number", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: time.Second, Growth: 2},
	131048: {Meaning: "too many: spam limit: for hours, so this one goes by SMS", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: time.Hour, Tries: 1},
	131056: {Meaning: "too many: to one customer: 4^n seconds", Reason: conversations.FailureRate, Scope: providers.ScopePair, Wait: 4 * time.Second, Growth: 4},
	131057: {Meaning: "too many: maintenance, or more throughput is being given", Reason: conversations.FailureProviderError, Scope: providers.ScopeSender, Wait: time.Minute},
	131064: {Meaning: "too many: until a wrong template category is mended", Reason: conversations.FailurePolicyLimit, Scope: providers.ScopeSender},

	// Faults of Meta's.
	1:      {Meaning: "fault of Meta: or a request that is never taken", Reason: conversations.FailureProviderError, Tries: 2},
	2:      {Meaning: "fault of Meta: overloaded for a while", Reason: conversations.FailureProviderError},
	131000: {Meaning: "fault of Meta: something went wrong", Reason: conversations.FailureProviderError, Tries: 4},
	131016: {Meaning: "fault of Meta: service unavailable", Reason: conversations.FailureProviderError, Tries: 4},

	// The customer.
	130403: {Meaning: "customer: blocked by the business", Reason: conversations.FailureBlocked},
	130472: {Meaning: "customer: in an experiment of Meta's", Reason: conversations.FailurePolicyLimit},
	131021: {Meaning: "customer: ourselves", Reason: conversations.FailureInvalidNumber},
	131026: {Meaning: "customer: not on WhatsApp, old client, terms not accepted", Reason: conversations.FailureNotOnChannel},
	131030: {Meaning: "customer: a test number may not write to this one", Reason: conversations.FailureInvalidNumber},
	131047: {Meaning: "customer: wrote to us more than 24 hours ago", Reason: conversations.FailureOutsideWindow},
	131049: {Meaning: "customer: has enough marketing; not again within a day", Reason: conversations.FailurePolicyLimit},
	131050: {Meaning: "customer: stopped our marketing", Reason: conversations.FailureOptedOut},
	131062: {Meaning: "customer: user id not allowed for this template", Reason: conversations.FailureInvalidNumber},
	137000: {Meaning: "customer: other keys than we know", Reason: conversations.FailureIdentityChanged},

	// The message.
	100:    {Meaning: "message: bad parameter: a mistake of ours", Reason: conversations.FailureUnknown},
	131008: {Meaning: "message: parameter missing: a mistake of ours", Reason: conversations.FailureUnknown},
	131009: {Meaning: "message: parameter wrong: a mistake of ours", Reason: conversations.FailureUnknown},
	131014: {Meaning: "message: media, in old payloads", Reason: conversations.FailureContentFiltered},
	131051: {Meaning: "message: message type not supported", Reason: conversations.FailureContentFiltered},
	131052: {Meaning: "message: the customer's media, inbound only", Reason: conversations.FailureUnknown},
	131053: {Meaning: "message: our media could not be fetched", Reason: conversations.FailureContentFiltered},
	135000: {Meaning: "message: bad parameter: a mistake of ours", Reason: conversations.FailureUnknown},

	// The template.
	131063: {Meaning: "template: marketing templates switched off", Reason: conversations.FailureTemplate},
	132000: {Meaning: "template: number of parameters", Reason: conversations.FailureTemplate},
	132001: {Meaning: "template: no such name and language", Reason: conversations.FailureTemplate},
	132005: {Meaning: "template: text too long once filled in", Reason: conversations.FailureTemplate},
	132007: {Meaning: "template: policy", Reason: conversations.FailureTemplate},
	132008: {Meaning: "template: parameter", Reason: conversations.FailureTemplate},
	132012: {Meaning: "template: format of a parameter", Reason: conversations.FailureTemplate},
	132015: {Meaning: "template: paused", Reason: conversations.FailureTemplate},
	132016: {Meaning: "template: disabled for good", Reason: conversations.FailureTemplate},
	132018: {Meaning: "template: validation", Reason: conversations.FailureTemplate},
	132068: {Meaning: "template: flow blocked", Reason: conversations.FailureTemplate},
	132069: {Meaning: "template: flow throttled", Reason: conversations.FailureTemplate},
}

// codes lists the table, for the documentation. Meta puts a code into the
// answer or into a later status, and documents where for few.
func codes() []providers.Code {
	var all []providers.Code
	for _, number := range slices.Sorted(maps.Keys(refusals)) {
		all = append(all, providers.Code{Code: strconv.Itoa(number), Refusal: refusals[number], Answered: true, Reported: true})
	}
	return all
}

// lookUp returns what a code means, and false for one that is not known; it
// then means FailureUnknown.
func lookUp(c providers.Loose) (providers.Refusal, bool) {
	unknown := providers.Refusal{Reason: conversations.FailureUnknown}
	n, err := strconv.Atoi(string(c))
	if err != nil {
		return unknown, false
	}
	if r, ok := refusals[n]; ok {
		return r, true
	}
	switch { // what Meta documents as ranges
	case n >= 200 && n <= 299: // permissions
		return providers.Refusal{Reason: conversations.FailureAuth}, true
	case n >= 132000 && n <= 132999: // templates
		return providers.Refusal{Reason: conversations.FailureTemplate}, true
	}
	return unknown, false
}

// code returns a code of Meta as text, if it is one.
func code(c providers.Loose) string {
	if _, err := strconv.Atoi(string(c)); err != nil {
		return ""
	}
	return string(c)
}
