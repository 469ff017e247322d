package twilio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// correlationKey is the query parameter of a StatusCallback address that holds
// the correlation value.
const correlationKey = "m"

// connectionOverrides is the fragment that tells Twilio how to retry a
// callback. By default it does not retry a 5xx or a slow answer, and a status
// would be lost with a restart of ours.
const connectionOverrides = "rc=3&rp=ct,rt,5xx"

var phoneForm = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// Send posts one SMS. Templates do not exist on SMS, so Outbound.Template
// makes no difference.
func (p *Provider) Send(ctx context.Context, o conversations.Outbound) (conversations.Sent, error) {
	form, err := p.compose(o)
	if err != nil {
		return conversations.Sent{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.messagesURL, strings.NewReader(form.Encode()))
	if err != nil {
		return conversations.Sent{}, providers.Refuse(conversations.FailureSenderConfig, "base_url makes no address")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.SetBasicAuth(p.user, p.password)
	answer, err := providers.Call(p.client, req)
	if err != nil {
		return conversations.Sent{}, err
	}
	return p.readAnswer(answer)
}

// compose makes the form, or a *providers.Failure for what Twilio would surely
// refuse.
func (p *Provider) compose(o conversations.Outbound) (url.Values, error) {
	switch {
	case o.To.Kind != conversations.AddressPhone || !phoneForm.MatchString(o.To.Value):
		return nil, providers.Refuse(conversations.FailureInvalidNumber, "the address is not an international number")
	case o.Text == "":
		return nil, providers.Refuse(conversations.FailureContentFiltered, "the text is empty")
	case utf8.RuneCountInString(o.Text) > maxBody:
		return nil, providers.Refuse(conversations.FailureContentFiltered, fmt.Sprintf("the text has more than %d characters", maxBody))
	}
	form := url.Values{"To": {o.To.Value}, "Body": {o.Text}, "StatusCallback": {p.statusCallback(o.Correlation)}}
	for name, value := range map[string]string{"From": p.from, "MessagingServiceSid": p.serviceSID, "ValidityPeriod": p.validity} {
		if value != "" {
			form.Set(name, value)
		}
	}
	return form, nil
}

// statusCallback returns the address that Twilio reports this message to.
func (p *Provider) statusCallback(correlation string) string {
	u := *p.callback
	if correlation != "" {
		q := u.Query()
		q.Set(correlationKey, correlation)
		u.RawQuery = q.Encode()
	}
	u.Fragment = ""
	return u.String() + "#" + connectionOverrides
}

var errAnswer = errors.New("the body of the answer cannot be read")

// readAnswer tells acceptance, refusal and everything else apart.
func (p *Provider) readAnswer(a providers.Answer) (conversations.Sent, error) {
	var body struct {
		SID       string `json:"sid"`
		Status    any    `json:"status"` // a word in a message, a number in an error
		Code      any    `json:"code"`   // of an error
		ErrorCode any    `json:"error_code"`
	}
	if err := json.Unmarshal(a.Body, &body); err != nil {
		return conversations.Sent{}, providers.StatusFailure(a, errAnswer)
	}
	if !a.OK() {
		return conversations.Sent{}, refused(a, number(body.Code))
	}
	if body.SID == "" || len(body.SID) > maxID {
		return conversations.Sent{}, providers.StatusFailure(a, errAnswer)
	}
	word, _ := body.Status.(string)
	sent := conversations.Sent{ProviderID: body.SID, Status: deliveryStatuses[word]}
	switch sent.Status {
	case conversations.DeliveryFailed:
		why, _ := lookUp(number(body.ErrorCode))
		return conversations.Sent{}, why.Failure(number(body.ErrorCode), a.RetryAfter(), fmt.Errorf("created as %s", word))
	case conversations.DeliveryUnknown:
		p.log.Warn("a message has a status that is not known", "status", providers.Word(word))
		sent.Status = conversations.DeliveryAccepted // it has an id
	}
	return sent, nil
}

// refused is the failure of an answer without success. A fault of Twilio's
// (5xx) leaves the outcome unknown even when it has a code: the message may
// have been made before. Twilio's own words are dropped, they quote the
// customer's number.
func refused(a providers.Answer, number string) *providers.Failure {
	err := fmt.Errorf("twilio error with status %d", a.Status)
	f := providers.StatusFailure(a, err)
	if number == "" {
		return f
	}
	if a.Status < 400 || a.Status > 499 {
		f.Code = number
		return f
	}
	r, known := lookUp(number)
	if !known {
		r.Reason = f.Reason
	}
	return r.Failure(number, a.RetryAfter(), err)
}

// number returns a code of the API, which is a JSON number, as text.
func number(v any) string {
	switch n := v.(type) {
	case float64:
		if n > 0 && n < 1e9 && n == float64(int(n)) {
			return strconv.Itoa(int(n))
		}
	case string:
		return code(n)
	}
	return ""
}

// code returns a code as text, if it is one.
func code(s string) string {
	if n, err := strconv.Atoi(s); err != nil || n <= 0 || n >= 1e9 {
		return ""
	}
	return s
}

// lookUp returns what a code means, and false for one that is not known; it
// then means FailureUnknown.
func lookUp(c string) (providers.Refusal, bool) {
	if n, err := strconv.Atoi(c); err == nil {
		if r, ok := refusals[n]; ok {
			return r, true
		}
	}
	return providers.Refusal{Reason: conversations.FailureUnknown}, false
}

// refusals is what Twilio's codes mean, in answers and in status callbacks.
// Source: twilio.com/docs/api/errors. The 63xxx are of WhatsApp; they stand
// here because a messaging service may fall back to it.
var refusals = map[int]providers.Refusal{
	20003: {Reason: conversations.FailureAuth},                                 // bad credentials or no permission
	20005: {Reason: conversations.FailureAccount},                              // account not active
	20404: {Reason: conversations.FailureAuth},                                 // no such account or resource
	20429: {Reason: conversations.FailureRate},                                 // too many requests
	20500: {Reason: conversations.FailureProviderError},                        // fault of Twilio
	20503: {Reason: conversations.FailureProviderError},                        // service unavailable
	21211: {Reason: conversations.FailureInvalidNumber},                        // To is not valid
	21212: {Reason: conversations.FailureSenderConfig},                         // From is not valid
	21408: {Reason: conversations.FailureSenderConfig},                         // SMS to this country is switched off
	21602: {Reason: conversations.FailureContentFiltered},                      // no body
	21603: {Reason: conversations.FailureSenderConfig},                         // no From
	21604: {Reason: conversations.FailureInvalidNumber},                        // no To
	21606: {Reason: conversations.FailureSenderConfig},                         // From cannot send
	21608: {Reason: conversations.FailureSenderConfig},                         // trial account, number not verified
	21609: {Reason: conversations.FailureSenderConfig},                         // StatusCallback is not valid
	21610: {Reason: conversations.FailureOptedOut},                             // customer replied STOP
	21611: {Reason: conversations.FailureRate, Wait: 10 * time.Minute},         // queue of the number is full
	21612: {Reason: conversations.FailureInvalidNumber},                        // no route to this number
	21614: {Reason: conversations.FailureInvalidNumber},                        // not a mobile number
	21617: {Reason: conversations.FailureContentFiltered},                      // body too long
	21655: {Reason: conversations.FailureTemplate},                             // ContentSid
	21656: {Reason: conversations.FailureTemplate},                             // ContentVariables
	21701: {Reason: conversations.FailureSenderConfig},                         // messaging service does not exist
	21703: {Reason: conversations.FailureSenderConfig},                         // messaging service has no number
	21704: {Reason: conversations.FailureSenderConfig},                         // messaging service has no fitting number
	21705: {Reason: conversations.FailureSenderConfig},                         // messaging service is not valid
	30001: {Reason: conversations.FailureUnreachable},                          // expired in the queue
	30002: {Reason: conversations.FailureAccount},                              // account suspended
	30003: {Reason: conversations.FailureUnreachable},                          // phone off or without signal
	30004: {Reason: conversations.FailureBlocked},                              // blocked by customer or carrier
	30005: {Reason: conversations.FailureInvalidNumber},                        // number is dead
	30006: {Reason: conversations.FailureInvalidNumber},                        // landline
	30007: {Reason: conversations.FailureContentFiltered},                      // filtered by the carrier
	30008: {Reason: conversations.FailureProviderError},                        // unknown to Twilio
	30018: {Reason: conversations.FailureSenderConfig},                         // name needs registration
	30022: {Reason: conversations.FailureRate},                                 // 10DLC rate
	30023: {Reason: conversations.FailureRate, Wait: time.Hour},                // 10DLC cap of the day
	30024: {Reason: conversations.FailureSenderConfig},                         // not provisioned at the carrier
	30027: {Reason: conversations.FailureRate, Wait: time.Hour},                // T-Mobile's limit of the day
	30032: {Reason: conversations.FailureSenderConfig},                         // toll-free number not verified
	30034: {Reason: conversations.FailureSenderConfig},                         // number not in a 10DLC campaign
	30036: {Reason: conversations.FailureUnreachable},                          // validity period over
	30410: {Reason: conversations.FailureProviderError, Wait: 1 * time.Minute}, // time-out of the carrier
	63003: {Reason: conversations.FailureNotOnChannel},                         // customer not found
	63005: {Reason: conversations.FailureContentFiltered},                      // content refused
	63007: {Reason: conversations.FailureSenderConfig},                         // From is no WhatsApp sender
	63013: {Reason: conversations.FailureContentFiltered},                      // policy
	63014: {Reason: conversations.FailureBlocked},                              // customer blocked us
	63015: {Reason: conversations.FailureNotOnChannel},                         // customer has not joined the sandbox
	63016: {Reason: conversations.FailureOutsideWindow},                        // outside 24 hours
	63017: {Reason: conversations.FailureRate},                                 // account's rate
	63018: {Reason: conversations.FailureRate},                                 // channel's rate
	63020: {Reason: conversations.FailureAccount},                              // business account at Meta
	63021: {Reason: conversations.FailureContentFiltered},                      // template's content refused
	63024: {Reason: conversations.FailureNotOnChannel},                         // customer's address not valid
	63027: {Reason: conversations.FailureTemplate},                             // not in this language
	63028: {Reason: conversations.FailureTemplate},                             // number of parameters
	63029: {Reason: conversations.FailureTemplate},                             // paused
	63030: {Reason: conversations.FailureTemplate},                             // parameter
	63032: {Reason: conversations.FailureNotOnChannel},                         // WhatsApp's limitation
	63033: {Reason: conversations.FailureBlocked},                              // customer is blocked
	63038: {Reason: conversations.FailureRate, Wait: time.Hour},                // account's limit of the day
	63040: {Reason: conversations.FailureTemplate},                             // rejected
	63041: {Reason: conversations.FailureTemplate},                             // paused or disabled
	63049: {Reason: conversations.FailurePolicyLimit},                          // Meta chose not to deliver
	63062: {Reason: conversations.FailureAccount},                              // marketing terms not accepted
}
