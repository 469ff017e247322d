package providers

import (
	"net/http"
	"strconv"
	"time"

	"paythread/conversations"
)

// Retryable tells whether a message that failed for this reason may be sent
// again as it is. A provider's refusal stays a refusal, but for too many at
// once and for a fault of its own.
func Retryable(r conversations.FailureReason) bool {
	return r == conversations.FailureRate || r == conversations.FailureProviderError
}

// Refusal is what one of a provider's own codes means: a row of an adapter's
// error table.
type Refusal struct {
	Meaning string // what the code means, in a few words, for people
	Reason  conversations.FailureReason
	Wait    time.Duration // least time before another try, when the provider's documents give one
	Scope   Scope         // what is held back for that time
	Growth  float64       // by what each further wait is longer, when they say so
	Tries   int           // most tries in all, when they say so
}

// Report says in a status report what a message's failure means for those that
// follow.
func (r Refusal) Report(in *conversations.Inbound) {
	in.Reason = r.Reason
	in.Lasting = r.Lasting()
	if r.Scope == ScopeSender {
		in.HoldFor = r.Wait
		if in.Lasting {
			in.HoldFor = max(r.Wait, FailFor)
		}
	}
}

// Lasting tells that no other try on this channel will help soon.
func (r Refusal) Lasting() bool {
	return r.Tries == 1 || !Retryable(r.Reason) && r.Scope == ScopeSender
}

// FailFor is how long a sender's messages fail without a call, at least, after
// one that showed that none can succeed. Then one is tried again.
const FailFor = time.Minute

// Failure returns the failure of this refusal. after is what the answer said
// about waiting; the longer of the two holds.
func (r Refusal) Failure(code string, after time.Duration, err error) *Failure {
	f := &Failure{Reason: r.Reason, Code: code, Retryable: Retryable(r.Reason), Scope: r.Scope, Growth: r.Growth, Tries: r.Tries, Err: err}
	if f.Retryable {
		f.RetryAfter = max(r.Wait, after)
	}
	return f
}

// statusReasons says what an HTTP status means when the body does not say it
// better. unknown marks those after which the message may be on its way.
var statusReasons = map[int]struct {
	reason  conversations.FailureReason
	unknown bool
}{
	http.StatusBadRequest:                 {conversations.FailureUnknown, false},
	http.StatusUnauthorized:               {conversations.FailureAuth, false},
	http.StatusPaymentRequired:            {conversations.FailureAccount, false},
	http.StatusForbidden:                  {conversations.FailureAuth, false},
	http.StatusNotFound:                   {conversations.FailureSenderConfig, false}, // the path holds our account or number
	http.StatusMethodNotAllowed:           {conversations.FailureSenderConfig, false}, // the base address is not an API's
	http.StatusProxyAuthRequired:          {conversations.FailureSenderConfig, false},
	http.StatusRequestTimeout:             {conversations.FailureProviderError, true},
	http.StatusGone:                       {conversations.FailureSenderConfig, false}, // an API version that was switched off
	http.StatusRequestEntityTooLarge:      {conversations.FailureContentFiltered, false},
	http.StatusTooEarly:                   {conversations.FailureRate, false},
	http.StatusTooManyRequests:            {conversations.FailureRate, false},
	http.StatusUnavailableForLegalReasons: {conversations.FailurePolicyLimit, false},
}

// StatusFailure returns what an answer's status means by itself: the table
// above, and by class what is not in it. Success without a readable
// acceptance, and every fault of the server, leave the outcome unknown.
func StatusFailure(a Answer, err error) *Failure {
	f := &Failure{Reason: conversations.FailureUnknown, Code: "http_" + strconv.Itoa(a.Status), Err: err}
	switch row, ok := statusReasons[a.Status]; {
	case ok:
		f.Reason, f.Unknown = row.reason, row.unknown
	case a.Status < 300, a.Status >= 500:
		f.Reason, f.Unknown = conversations.FailureProviderError, true
	case a.Status < 400:
		f.Reason = conversations.FailureSenderConfig // redirects are not followed: the base address is wrong
	}
	if Retryable(f.Reason) && !f.Unknown {
		f.Retryable, f.RetryAfter = true, a.RetryAfter()
	}
	return f
}
