package clickatell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// outbound is the body of POST /v1/message.
type outbound struct {
	Messages []message `json:"messages"`
}

type message struct {
	Channel         conversations.Channel `json:"channel"`
	To              string                `json:"to"`
	From            string                `json:"from,omitempty"`
	Content         string                `json:"content,omitempty"`
	PreviewFirstURL *bool                 `json:"previewFirstUrl,omitempty"` // WhatsApp only
	Template        *template             `json:"hsm,omitempty"`
	ClientMessageID string                `json:"clientMessageId,omitempty"`
}

var phoneForm = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// Send posts one message: on WhatsApp the template of its purpose when free
// text is not allowed now, else text. Clickatell has no buttons for free text.
func (p *Provider) Send(ctx context.Context, o conversations.Outbound) (conversations.Sent, error) {
	m, err := p.compose(o)
	if err != nil {
		return conversations.Sent{}, err
	}
	body, err := json.Marshal(outbound{Messages: []message{*m}})
	if err != nil {
		return conversations.Sent{}, &providers.Failure{Reason: conversations.FailureUnknown, Err: err}
	}
	req, err := p.request(ctx, http.MethodPost, "/v1/message", bytes.NewReader(body))
	if err != nil {
		return conversations.Sent{}, providers.Refuse(conversations.FailureSenderConfig, "base_url makes no address")
	}
	req.Header.Set("Content-Type", "application/json")
	a, err := providers.Call(p.client, req)
	if err != nil {
		return conversations.Sent{}, err
	}
	return readAnswer(a, o)
}

// request makes a request of the API. The key stands alone in Authorization:
// with "Bearer" before it, it is error 1.
func (p *Provider) request(ctx context.Context, method, path string, body *bytes.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", p.apiKey)
	return req, nil
}

// compose makes the message, or a *providers.Failure for what Clickatell would
// surely refuse.
func (p *Provider) compose(o conversations.Outbound) (*message, error) {
	if o.To.Kind != conversations.AddressPhone || !phoneForm.MatchString(o.To.Value) {
		return nil, providers.Refuse(conversations.FailureInvalidNumber, "the address is not an international number")
	}
	m := &message{Channel: p.channel, To: digits(o.To), From: p.from, ClientMessageID: o.Correlation}
	if p.channel == conversations.WhatsApp && o.Template {
		t, err := p.template(o)
		m.Template = t
		return m, err
	}

	m.Content = o.Text
	longest := maxSMS
	if p.channel == conversations.WhatsApp {
		longest = maxWhatsApp
		m.Content = withLink(o)
		m.PreviewFirstURL = new(bool) // a preview would make somebody's crawler fetch the customer's link
	}
	switch {
	case o.Text == "":
		return nil, providers.Refuse(conversations.FailureContentFiltered, "the text is empty")
	case utf8.RuneCountInString(m.Content) > longest:
		return nil, providers.Refuse(conversations.FailureContentFiltered, fmt.Sprintf("the text has more than %d characters", longest))
	}
	return m, nil
}

// withLink returns the text of a WhatsApp message with its link on a line of
// its own: the texts are written for providers that have a button for it.
func withLink(o conversations.Outbound) string {
	link := o.Parameters.Link
	linked := conversations.LinkButton(o.Purpose, o.Parameters.Locale) != ""
	if !linked || link == "" || strings.Contains(o.Text, link) {
		return o.Text
	}
	return o.Text + "\n" + link
}

// answer is the body of an answer to a send, accepted or not.
type answer struct {
	Messages  []answered      `json:"messages"`
	Error     apiError        `json:"error"`
	ErrorCode providers.Loose `json:"errorCode"` // of the older REST API
}

// answered is what became of one message.
type answered struct {
	ID              providers.Loose `json:"apiMessageId"`
	Accepted        *bool           `json:"accepted"`
	To              providers.Loose `json:"to"`
	ClientMessageID providers.Loose `json:"clientMessageId"`
	Error           apiError        `json:"error"`
	ErrorCode       providers.Loose `json:"errorCode"`
}

// apiError is an error of the One API (an object with a code) or of the older
// ones (a sentence). Of sentences, which quote numbers, nothing is kept.
type apiError struct {
	there  bool
	code   string
	twoWay bool // the sentence is about the integration's two-way numbers
}

// UnmarshalJSON takes any value and never fails.
func (e *apiError) UnmarshalJSON(raw []byte) error {
	*e = apiError{}
	var object struct {
		Code        providers.Loose `json:"code"`
		Description providers.Loose `json:"description"`
	}
	var sentence providers.Loose
	switch {
	case string(raw) == "null":
		return nil
	case json.Unmarshal(raw, &object) == nil:
		sentence = object.Description
	default:
		_ = sentence.UnmarshalJSON(raw) // it never fails
	}
	e.there, e.code = true, code(object.Code)
	e.twoWay = strings.HasPrefix(strings.ToLower(string(sentence)), "two-way")
	return nil
}

// or returns e with the code of the older API if it has none of its own.
func (e apiError) or(c providers.Loose) apiError {
	if c := code(c); e.code == "" && c != "" {
		e.there, e.code = true, c
	}
	return e
}

// code returns a code as text, if it is one.
func code(c providers.Loose) string {
	n, err := strconv.Atoi(string(c))
	if err != nil || n <= 0 || n >= 1e6 {
		return ""
	}
	return strconv.Itoa(n)
}

// about returns the element that answers o: the one with its correlation
// value, else one without any that has its number, or that is alone and has
// none. The order of the elements says nothing.
func (a answer) about(o conversations.Outbound) (answered, bool) {
	for _, m := range a.Messages {
		if o.Correlation != "" && string(m.ClientMessageID) == o.Correlation {
			return m, true
		}
	}
	for _, m := range a.Messages {
		to := strings.TrimPrefix(string(m.To), "+")
		if m.ClientMessageID == "" && (to == digits(o.To) || to == "" && len(a.Messages) == 1) {
			return m, true
		}
	}
	return answered{}, false
}

var errAnswer = errors.New("the body of the answer cannot be read")

// readAnswer tells acceptance, refusal and everything else apart. The status
// alone does not: a single refused message has the status of its error (400
// for too many at once), one among several has 207, and the older APIs refuse
// with 200.
func readAnswer(a providers.Answer, o conversations.Outbound) (conversations.Sent, error) {
	var body answer
	// One member of an unexpected type must not turn an acceptance into
	// something unknown: the others are read all the same.
	err := json.Unmarshal(a.Body, &body)
	var member *json.UnmarshalTypeError
	if err != nil && !errors.As(err, &member) || a.Status >= 300 && a.Status < 400 {
		return conversations.Sent{}, providers.StatusFailure(a, errAnswer)
	}
	m, ours := body.about(o)
	why, whole := m.Error.or(m.ErrorCode), body.Error.or(body.ErrorCode)
	switch accepted := m.Accepted != nil && *m.Accepted; {
	case ours && accepted && a.OK() && m.ID != "" && len(m.ID) <= maxID:
		return conversations.Sent{ProviderID: string(m.ID), Status: conversations.DeliveryAccepted}, nil
	case ours && accepted: // and by its status refused, or without an id
		return conversations.Sent{}, &providers.Failure{
			Reason: conversations.FailureProviderError, Code: providers.StatusFailure(a, nil).Code, Unknown: true, Err: errAnswer,
		}
	case ours && (m.Accepted != nil || why.there):
		return conversations.Sent{}, refused(a, why)
	case whole.there:
		return conversations.Sent{}, refused(a, whole)
	}
	return conversations.Sent{}, providers.StatusFailure(a, errAnswer)
}

// refused is the failure of an answer that refuses. A fault of Clickatell's
// (5xx, and codes 18 and 19 wherever they stand) leaves the outcome unknown:
// the message may have been made before.
func refused(a providers.Answer, e apiError) *providers.Failure {
	err := fmt.Errorf("clickatell error with status %d", a.Status)
	f := providers.StatusFailure(a, err)
	number := e.code
	if number == "" {
		number = f.Code
	}
	if a.Status >= 500 {
		f.Code = number
		return f
	}
	r, known := lookUp(e.code)
	switch {
	case known && r.Reason == conversations.FailureProviderError:
		return &providers.Failure{Reason: r.Reason, Code: number, Unknown: true, Err: err}
	case known:
	case e.twoWay:
		r.Reason = conversations.FailureSenderConfig
	case !a.OK():
		r.Reason = f.Reason
	}
	return r.Failure(number, a.RetryAfter(), err)
}

// lookUp returns what a code of the errors' table means, and false for one
// that is not known; it then means FailureUnknown.
func lookUp(c string) (providers.Refusal, bool) {
	if n, err := strconv.Atoi(c); err == nil {
		if r, ok := refusals[n]; ok {
			return r, true
		}
	}
	return providers.Refusal{Reason: conversations.FailureUnknown}, false
}

// refusals is what the codes of an answer mean. Those of statuses are other
// codes: 25 is a wrong number here and an empty account there.
// Source: docs.clickatell.com/channels/one-api/one-api-errors-table.
var refusals = map[int]providers.Refusal{
	1:  {Meaning: "no such API key", Reason: conversations.FailureAuth},
	2:  {Meaning: "account not active", Reason: conversations.FailureSenderConfig},
	3:  {Meaning: "integration not active", Reason: conversations.FailureSenderConfig},
	7:  {Meaning: "not from this IP address", Reason: conversations.FailureAuth},
	18: {Meaning: "internal error", Reason: conversations.FailureProviderError},
	19: {Meaning: "internal error, try again", Reason: conversations.FailureProviderError},
	20: {Meaning: "out of credit", Reason: conversations.FailureAccount},
	21: {Meaning: "malformed: a mistake of ours", Reason: conversations.FailureUnknown},
	22: {Meaning: "too many messages in a call: a mistake of ours", Reason: conversations.FailureUnknown},
	23: {Meaning: "parameter missing or wrong: a mistake of ours", Reason: conversations.FailureUnknown},
	24: {Meaning: "content too long", Reason: conversations.FailureContentFiltered},
	25: {Meaning: "recipient's address not valid", Reason: conversations.FailureInvalidNumber},
	26: {Meaning: "recipient opted out", Reason: conversations.FailureOptedOut},
	27: {Meaning: "recipient not on this channel", Reason: conversations.FailureNotOnChannel},
	28: {Meaning: "a sandbox may not write to this recipient", Reason: conversations.FailureSenderConfig},
	30: {Meaning: "content type", Reason: conversations.FailureContentFiltered},
	31: {Meaning: "media file too large", Reason: conversations.FailureContentFiltered},
	32: {Meaning: "media payload too large", Reason: conversations.FailureContentFiltered},
	33: {Meaning: "media not found", Reason: conversations.FailureContentFiltered},
	38: {Meaning: "channel or feature not active", Reason: conversations.FailureSenderConfig},
	39: {Meaning: "channel not available", Reason: conversations.FailureSenderConfig},
	40: {Meaning: "charset: a mistake of ours", Reason: conversations.FailureUnknown},
	41: {Meaning: "no such resource: base_url is another API's", Reason: conversations.FailureSenderConfig},
	42: {Meaning: "no such method: base_url is another API's", Reason: conversations.FailureSenderConfig},
	// The rate limit, with HTTP 400. No wait is documented, five seconds are ours.
	43:  {Meaning: "too many at once", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: 5 * time.Second},
	44:  {Meaning: "from is suspended", Reason: conversations.FailureSenderConfig},
	45:  {Meaning: "from is not the integration's", Reason: conversations.FailureSenderConfig},
	46:  {Meaning: "demo has expired", Reason: conversations.FailureSenderConfig},
	100: {Meaning: "too many parts", Reason: conversations.FailureContentFiltered},
	101: {Meaning: "from is not two-way there", Reason: conversations.FailureSenderConfig},
	110: {Meaning: "USA: needs a two-way integration", Reason: conversations.FailureSenderConfig},
	111: {Meaning: "USA: STOP commands must be switched on", Reason: conversations.FailureSenderConfig},
}
