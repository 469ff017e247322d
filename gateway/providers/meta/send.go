package meta

import (
	"bytes"
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

// outbound is the body of POST /messages.
type outbound struct {
	Product       string       `json:"messaging_product"`
	RecipientType string       `json:"recipient_type"`
	To            string       `json:"to,omitempty"`
	Recipient     string       `json:"recipient,omitempty"` // a user id, instead of to
	Type          string       `json:"type"`
	Text          *textBody    `json:"text,omitempty"`
	Interactive   *interactive `json:"interactive,omitempty"`
	Template      *template    `json:"template,omitempty"`
	Correlation   string       `json:"biz_opaque_callback_data,omitempty"`
}

type textBody struct {
	PreviewURL bool   `json:"preview_url"`
	Body       string `json:"body"`
}

type interactive struct {
	Type string `json:"type"`
	Body struct {
		Text string `json:"text"`
	} `json:"body"`
	Action struct {
		Name       string `json:"name"`
		Parameters struct {
			DisplayText string `json:"display_text"`
			URL         string `json:"url"`
		} `json:"parameters"`
	} `json:"action"`
}

type template struct {
	Name     string `json:"name"`
	Language struct {
		Code string `json:"code"`
	} `json:"language"`
	Components []component `json:"components"`
}

type component struct {
	Type       string      `json:"type"`
	SubType    string      `json:"sub_type,omitempty"`
	Index      string      `json:"index,omitempty"`
	Parameters []parameter `json:"parameters"`
}

type parameter struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// buttonTexts are the labels of the button that opens a link, at most 20
// characters. Purposes without one are sent as text.
var buttonTexts = map[conversations.Purpose]string{
	conversations.PurposePayment: "Pay securely",
	conversations.PurposeReceipt: "View receipt",
}

// Send posts one message: the template of its purpose when free text is not
// allowed now, a message with one link button for payment and receipt links,
// plain text for everything else.
func (p *Provider) Send(ctx context.Context, o conversations.Outbound) (conversations.Sent, error) {
	message, err := p.compose(o)
	if err != nil {
		return conversations.Sent{}, err
	}
	body, err := json.Marshal(message)
	if err != nil {
		return conversations.Sent{}, &providers.Failure{Reason: conversations.FailureUnknown, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.messagesURL, bytes.NewReader(body))
	if err != nil {
		return conversations.Sent{}, providers.Refuse(conversations.FailureSenderConfig, "base_url makes no address")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+p.token)
	answer, err := providers.Call(p.client, req)
	if err != nil {
		return conversations.Sent{}, err
	}
	return p.readAnswer(answer)
}

// compose makes the message, or a *providers.Failure for what Meta would
// surely refuse.
func (p *Provider) compose(o conversations.Outbound) (*outbound, error) {
	m := &outbound{Product: "whatsapp", RecipientType: "individual", Correlation: o.Correlation}
	switch o.To.Kind {
	case conversations.AddressPhone:
		// Without the plus sign Meta may put our own country code before it.
		if !phoneForm.MatchString(o.To.Value) {
			return nil, providers.Refuse(conversations.FailureInvalidNumber, "the address is not an international number")
		}
		m.To = o.To.Value
	case conversations.AddressUser, conversations.AddressParentUser:
		if !userID.MatchString(o.To.Value) {
			return nil, providers.Refuse(conversations.FailureInvalidNumber, "the address is not a WhatsApp user id")
		}
		m.Recipient = o.To.Value
	default:
		return nil, providers.Refuse(conversations.FailureInvalidNumber, "the address is of no kind that WhatsApp has")
	}

	length := utf8.RuneCountInString(o.Text)
	label, link := buttonTexts[o.Purpose], o.Parameters.Link
	switch {
	case o.Template:
		t, err := p.template(o)
		if err != nil {
			return nil, err
		}
		m.Type, m.Template = "template", t
	case length == 0:
		return nil, providers.Refuse(conversations.FailureContentFiltered, "the text is empty")
	case length > maxText:
		return nil, providers.Refuse(conversations.FailureContentFiltered, fmt.Sprintf("the text has more than %d characters", maxText))
	case label != "" && isWeb(link) && length <= maxInteractive:
		m.Type, m.Interactive = "interactive", &interactive{Type: "cta_url"}
		m.Interactive.Body.Text = o.Text
		m.Interactive.Action.Name = "cta_url"
		m.Interactive.Action.Parameters.DisplayText = label
		m.Interactive.Action.Parameters.URL = link
	default:
		// No preview: it would make Meta's crawler fetch the customer's link.
		m.Type, m.Text = "text", &textBody{Body: o.Text}
	}
	return m, nil
}

var phoneForm = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

func isWeb(link string) bool {
	u, err := url.Parse(link)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

// template fills in the template of the message's purpose.
func (p *Provider) template(o conversations.Outbound) (*template, error) {
	name := p.templates[o.Purpose]
	if name == "" {
		return nil, providers.Refuse(conversations.FailureTemplate, "no template is set for a message of purpose "+providers.Word(string(o.Purpose)))
	}
	t := &template{Name: name}
	t.Language.Code = p.language
	v := o.Parameters
	if o.Purpose == conversations.PurposeCancelled {
		t.Components = []component{{Type: "body", Parameters: parameters(v.Merchant, v.Order)}}
		return t, nil
	}
	if v.LinkCode == "" {
		return nil, providers.Refuse(conversations.FailureTemplate, "the message has no link")
	}
	t.Components = []component{
		{Type: "body", Parameters: parameters(v.Merchant, v.Amount, v.Order)},
		// Only the end of the address, which Meta appends as it is.
		{Type: "button", SubType: "url", Index: "0", Parameters: []parameter{{Type: "text", Text: url.PathEscape(v.LinkCode)}}},
	}
	return t, nil
}

// parameters makes values fit for a template: one line, no runs of spaces, and
// never empty, all of which Meta refuses.
func parameters(values ...string) []parameter {
	ps := make([]parameter, len(values))
	for i, v := range values {
		v = providers.Text(strings.Join(strings.Fields(v), " "), maxParameter)
		if v == "" {
			v = "-"
		}
		ps[i] = parameter{Type: "text", Text: v}
	}
	return ps
}

var errAnswer = errors.New("the body of the answer cannot be read")

// readAnswer tells acceptance, refusal and everything else apart. The status
// alone does not: Meta has used several for one code.
func (p *Provider) readAnswer(a providers.Answer) (conversations.Sent, error) {
	var body struct {
		Error *struct {
			Code      providers.Loose `json:"code"`
			Subcode   providers.Loose `json:"error_subcode"`
			Transient bool            `json:"is_transient"`
			Trace     providers.Loose `json:"fbtrace_id"`
		} `json:"error"`
		Contacts []contact `json:"contacts"`
		Messages []struct {
			ID     string `json:"id"`
			Status string `json:"message_status"`
		} `json:"messages"`
	}
	// One member of an unexpected type must not turn an acceptance into
	// something unknown: the others are read all the same.
	err := json.Unmarshal(a.Body, &body)
	var member *json.UnmarshalTypeError
	if err != nil && !errors.As(err, &member) {
		return conversations.Sent{}, providers.StatusFailure(a, errAnswer)
	}
	switch e := body.Error; {
	case e != nil && code(e.Code) != "":
		return conversations.Sent{}, refused(a, e.Code, e.Subcode, e.Transient, string(e.Trace))
	case !a.OK() || len(body.Messages) == 0 || body.Messages[0].ID == "" || len(body.Messages[0].ID) > maxID:
		return conversations.Sent{}, providers.StatusFailure(a, errAnswer)
	}
	message := body.Messages[0]
	if message.Status != "" && message.Status != "accepted" {
		// held_for_quality_assessment or paused: a template is being watched. The
		// message has an id, so its own statuses will say what became of it.
		p.log.Warn("a template message is held back", "message_status", providers.Word(message.Status))
	}
	sent := conversations.Sent{ProviderID: message.ID, Status: conversations.DeliveryAccepted}
	if len(body.Contacts) > 0 {
		c := body.Contacts[0]
		sent.Addresses = addresses(c.WaID, c.UserID, c.ParentUserID)
	}
	return sent, nil
}

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
	return r.Failure(code(number), a.RetryAfter(), err)
}

// refusals is what Meta's codes mean, in answers and in failed statuses.
// Source: the Cloud API's page of error codes, December 2025 and September
// 2026.
var refusals = map[int]providers.Refusal{
	0:      {Reason: conversations.FailureAuth},                                 // token cannot be checked
	1:      {Reason: conversations.FailureProviderError},                        // fault of the server, or of the request
	2:      {Reason: conversations.FailureProviderError},                        // overloaded for a while
	3:      {Reason: conversations.FailureAuth},                                 // permission missing
	4:      {Reason: conversations.FailureRate, Wait: time.Minute},              // calls of the app
	10:     {Reason: conversations.FailureAuth},                                 // permission missing
	33:     {Reason: conversations.FailureSenderConfig},                         // number deleted or unknown
	100:    {Reason: conversations.FailureUnknown},                              // bad parameter: a mistake of ours
	104:    {Reason: conversations.FailureAuth},                                 // no token
	190:    {Reason: conversations.FailureAuth},                                 // token expired or revoked
	368:    {Reason: conversations.FailureAccount},                              // restricted by policy
	613:    {Reason: conversations.FailureRate, Wait: time.Minute},              // custom limit
	80007:  {Reason: conversations.FailureRate, Wait: time.Minute},              // calls of the business account
	130403: {Reason: conversations.FailureBlocked},                              // the business has blocked this customer
	130429: {Reason: conversations.FailureRate},                                 // throughput of the number
	130472: {Reason: conversations.FailurePolicyLimit},                          // customer is in an experiment
	130497: {Reason: conversations.FailureAccount},                              // may not message this country
	131000: {Reason: conversations.FailureProviderError},                        // something went wrong
	131005: {Reason: conversations.FailureAuth},                                 // access denied
	131008: {Reason: conversations.FailureUnknown},                              // parameter missing: a mistake of ours
	131009: {Reason: conversations.FailureUnknown},                              // parameter wrong: a mistake of ours
	131014: {Reason: conversations.FailureContentFiltered},                      // media, in old payloads
	131016: {Reason: conversations.FailureProviderError},                        // service unavailable
	131021: {Reason: conversations.FailureInvalidNumber},                        // to ourselves
	131026: {Reason: conversations.FailureNotOnChannel},                         // not on WhatsApp, old client, terms not accepted
	131030: {Reason: conversations.FailureInvalidNumber},                        // a test number may not write to this one
	131031: {Reason: conversations.FailureAccount},                              // locked
	131037: {Reason: conversations.FailureSenderConfig},                         // display name not approved
	131042: {Reason: conversations.FailureAccount},                              // no way to pay Meta
	131045: {Reason: conversations.FailureSenderConfig},                         // registration fault
	131047: {Reason: conversations.FailureOutsideWindow},                        // more than 24 hours since the customer wrote
	131048: {Reason: conversations.FailureRate, Wait: time.Hour},                // spam limit of the number: hours
	131049: {Reason: conversations.FailurePolicyLimit},                          // limit per customer
	131050: {Reason: conversations.FailureOptedOut},                             // customer stopped our marketing
	131051: {Reason: conversations.FailureContentFiltered},                      // message type not supported
	131052: {Reason: conversations.FailureUnknown},                              // the customer's media, inbound only
	131053: {Reason: conversations.FailureContentFiltered},                      // our media could not be fetched
	131055: {Reason: conversations.FailureSenderConfig},                         // Marketing Messages API only
	131056: {Reason: conversations.FailureRate, Wait: 6 * time.Second},          // one in 6 s to one customer
	131057: {Reason: conversations.FailureProviderError, Wait: 1 * time.Minute}, // maintenance
	131062: {Reason: conversations.FailureInvalidNumber},                        // user id not allowed for this template
	131063: {Reason: conversations.FailureTemplate},                             // marketing templates switched off
	131064: {Reason: conversations.FailurePolicyLimit},                          // limit after a wrong template category
	132000: {Reason: conversations.FailureTemplate},                             // number of parameters
	132001: {Reason: conversations.FailureTemplate},                             // no such name and language
	132005: {Reason: conversations.FailureTemplate},                             // text too long once filled in
	132007: {Reason: conversations.FailureTemplate},                             // policy
	132008: {Reason: conversations.FailureTemplate},                             // parameter
	132012: {Reason: conversations.FailureTemplate},                             // format of a parameter
	132015: {Reason: conversations.FailureTemplate},                             // paused
	132016: {Reason: conversations.FailureTemplate},                             // disabled for good
	132018: {Reason: conversations.FailureTemplate},                             // validation
	132068: {Reason: conversations.FailureTemplate},                             // flow blocked
	132069: {Reason: conversations.FailureTemplate},                             // flow throttled
	133000: {Reason: conversations.FailureSenderConfig},                         // registration, and so on to 133016
	133004: {Reason: conversations.FailureSenderConfig},
	133005: {Reason: conversations.FailureSenderConfig},
	133006: {Reason: conversations.FailureSenderConfig},
	133007: {Reason: conversations.FailureSenderConfig},
	133008: {Reason: conversations.FailureSenderConfig},
	133009: {Reason: conversations.FailureSenderConfig},
	133010: {Reason: conversations.FailureSenderConfig}, // our number is not registered
	133015: {Reason: conversations.FailureSenderConfig},
	133016: {Reason: conversations.FailureSenderConfig},
	134011: {Reason: conversations.FailureAccount},      // terms of WhatsApp payments
	134100: {Reason: conversations.FailureSenderConfig}, // Marketing Messages API only
	134101: {Reason: conversations.FailureSenderConfig},
	134102: {Reason: conversations.FailureSenderConfig},
	135000: {Reason: conversations.FailureUnknown}, // bad parameter: a mistake of ours
	137000: {Reason: conversations.FailureIdentityChanged},
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
