package meta

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
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
	0:      {Reason: conversations.FailureAuth}, // cannot be checked
	3:      {Reason: conversations.FailureAuth}, // permission missing
	10:     {Reason: conversations.FailureAuth}, // permission missing
	104:    {Reason: conversations.FailureAuth}, // there is none
	190:    {Reason: conversations.FailureAuth}, // expired or revoked
	131005: {Reason: conversations.FailureAuth}, // access denied

	// The business account.
	368:    {Reason: conversations.FailureAccount},                             // restricted by policy
	130497: {Reason: conversations.FailureAccount, Scope: providers.ScopePair}, // may not message this country: others are not touched
	131031: {Reason: conversations.FailureAccount},                             // locked
	131042: {Reason: conversations.FailureAccount},                             // no way to pay Meta
	134011: {Reason: conversations.FailureAccount},                             // terms of WhatsApp payments

	// The number.
	33:     {Reason: conversations.FailureSenderConfig}, // deleted or unknown
	131037: {Reason: conversations.FailureSenderConfig}, // display name not approved
	131045: {Reason: conversations.FailureSenderConfig}, // registration fault
	131055: {Reason: conversations.FailureSenderConfig}, // Marketing Messages API only
	133000: {Reason: conversations.FailureSenderConfig}, // registration, and so on to 133016
	133004: {Reason: conversations.FailureSenderConfig},
	133005: {Reason: conversations.FailureSenderConfig},
	133006: {Reason: conversations.FailureSenderConfig},
	133007: {Reason: conversations.FailureSenderConfig},
	133008: {Reason: conversations.FailureSenderConfig},
	133009: {Reason: conversations.FailureSenderConfig},
	133010: {Reason: conversations.FailureSenderConfig}, // our number is not registered
	133015: {Reason: conversations.FailureSenderConfig},
	133016: {Reason: conversations.FailureSenderConfig},
	134100: {Reason: conversations.FailureSenderConfig}, // Marketing Messages API only
	134101: {Reason: conversations.FailureSenderConfig},
	134102: {Reason: conversations.FailureSenderConfig},

	// Too many at once. All but the pair's hold the whole sender.
	4:      {Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: 2 * time.Minute},          // calls of the app
	613:    {Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: 2 * time.Minute},          // custom limit
	80007:  {Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: 2 * time.Minute},          // calls of the business account
	130429: {Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: time.Second, Growth: 2},   // throughput of the number
	131048: {Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: time.Hour, Tries: 1},      // spam limit: for hours, so this one goes by SMS
	131056: {Reason: conversations.FailureRate, Scope: providers.ScopePair, Wait: 4 * time.Second, Growth: 4}, // to one customer: 4^n seconds
	131057: {Reason: conversations.FailureProviderError, Scope: providers.ScopeSender, Wait: time.Minute},     // maintenance, or more throughput is being given
	131064: {Reason: conversations.FailurePolicyLimit, Scope: providers.ScopeSender},                          // until a wrong template category is mended

	// Faults of Meta's.
	1:      {Reason: conversations.FailureProviderError, Tries: 2}, // or a request that is never taken
	2:      {Reason: conversations.FailureProviderError},           // overloaded for a while
	131000: {Reason: conversations.FailureProviderError, Tries: 4}, // something went wrong
	131016: {Reason: conversations.FailureProviderError, Tries: 4}, // service unavailable

	// The customer.
	130403: {Reason: conversations.FailureBlocked},         // blocked by the business
	130472: {Reason: conversations.FailurePolicyLimit},     // in an experiment of Meta's
	131021: {Reason: conversations.FailureInvalidNumber},   // ourselves
	131026: {Reason: conversations.FailureNotOnChannel},    // not on WhatsApp, old client, terms not accepted
	131030: {Reason: conversations.FailureInvalidNumber},   // a test number may not write to this one
	131047: {Reason: conversations.FailureOutsideWindow},   // wrote to us more than 24 hours ago
	131049: {Reason: conversations.FailurePolicyLimit},     // has enough marketing; not again within a day
	131050: {Reason: conversations.FailureOptedOut},        // stopped our marketing
	131062: {Reason: conversations.FailureInvalidNumber},   // user id not allowed for this template
	137000: {Reason: conversations.FailureIdentityChanged}, // other keys than we know

	// The message.
	100:    {Reason: conversations.FailureUnknown},         // bad parameter: a mistake of ours
	131008: {Reason: conversations.FailureUnknown},         // parameter missing: a mistake of ours
	131009: {Reason: conversations.FailureUnknown},         // parameter wrong: a mistake of ours
	131014: {Reason: conversations.FailureContentFiltered}, // media, in old payloads
	131051: {Reason: conversations.FailureContentFiltered}, // message type not supported
	131052: {Reason: conversations.FailureUnknown},         // the customer's media, inbound only
	131053: {Reason: conversations.FailureContentFiltered}, // our media could not be fetched
	135000: {Reason: conversations.FailureUnknown},         // bad parameter: a mistake of ours

	// The template.
	131063: {Reason: conversations.FailureTemplate}, // marketing templates switched off
	132000: {Reason: conversations.FailureTemplate}, // number of parameters
	132001: {Reason: conversations.FailureTemplate}, // no such name and language
	132005: {Reason: conversations.FailureTemplate}, // text too long once filled in
	132007: {Reason: conversations.FailureTemplate}, // policy
	132008: {Reason: conversations.FailureTemplate}, // parameter
	132012: {Reason: conversations.FailureTemplate}, // format of a parameter
	132015: {Reason: conversations.FailureTemplate}, // paused
	132016: {Reason: conversations.FailureTemplate}, // disabled for good
	132018: {Reason: conversations.FailureTemplate}, // validation
	132068: {Reason: conversations.FailureTemplate}, // flow blocked
	132069: {Reason: conversations.FailureTemplate}, // flow throttled
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
