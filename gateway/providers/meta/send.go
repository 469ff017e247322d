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
	"slices"
	"strings"
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
	Type   string   `json:"type"`
	Body   bodyText `json:"body"`
	Action action   `json:"action"`
}

type bodyText struct {
	Text string `json:"text"`
}

// action is one button with a link (cta_url), or up to three that answer.
type action struct {
	Name       string        `json:"name,omitempty"`
	Parameters *linkButton   `json:"parameters,omitempty"`
	Buttons    []replyButton `json:"buttons,omitempty"`
}

type linkButton struct {
	DisplayText string `json:"display_text"`
	URL         string `json:"url"`
}

type replyButton struct {
	Type  string `json:"type"`
	Reply reply  `json:"reply"`
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

// Send posts one message: the template of its purpose when free text is not
// allowed now, a message with one link button for payment and receipt links,
// one with reply buttons where answers are offered, plain text for everything
// else. It never quotes the message that it answers.
func (p *Provider) Send(ctx context.Context, o conversations.Outbound) (conversations.Sent, error) {
	message, err := p.compose(o)
	if err != nil {
		return conversations.Sent{}, err
	}
	answer, err := p.post(ctx, message)
	if err != nil {
		return conversations.Sent{}, err
	}
	return p.readAnswer(answer)
}

// MarkRead shows the customer that a message of theirs, and all before it,
// were read. typing shows dots as well, until we send something or 25 seconds
// are over.
func (p *Provider) MarkRead(ctx context.Context, id string, typing bool) error {
	if id == "" || len(id) > maxID {
		return providers.Refuse(conversations.FailureUnknown, "the message has no id of Meta's")
	}
	type indicator struct {
		Type string `json:"type"`
	}
	mark := struct {
		Product   string     `json:"messaging_product"`
		Status    string     `json:"status"`
		MessageID string     `json:"message_id"`
		Typing    *indicator `json:"typing_indicator,omitempty"`
	}{Product: "whatsapp", Status: "read", MessageID: id}
	if typing {
		mark.Typing = &indicator{Type: "text"}
	}
	answer, err := p.post(ctx, mark)
	if err != nil {
		return err
	}
	body, err := readGraph(answer)
	switch {
	case err != nil:
		return err
	case !answer.OK():
		return providers.StatusFailure(answer, errAnswer)
	case body.Success != nil && !*body.Success:
		return providers.Refuse(conversations.FailureUnknown, "the message was not marked as read")
	}
	return nil
}

// post makes one call of the messages' address.
func (p *Provider) post(ctx context.Context, message any) (providers.Answer, error) {
	body, err := json.Marshal(message)
	if err != nil {
		return providers.Answer{}, &providers.Failure{Reason: conversations.FailureUnknown, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.messagesURL, bytes.NewReader(body))
	if err != nil {
		return providers.Answer{}, providers.Refuse(conversations.FailureSenderConfig, "base_url makes no address")
	}
	req.Header.Set("Content-Type", "application/json")
	return p.call(req)
}

// call makes a call in the name of the access token.
func (p *Provider) call(req *http.Request) (providers.Answer, error) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+p.token)
	return providers.Call(p.client, req)
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

	if !o.Template {
		return m, m.content(o)
	}
	t, err := p.template(o)
	if err != nil {
		return nil, err
	}
	m.Type, m.Template = "template", t
	return m, nil
}

// content fills in what is said freely.
func (m *outbound) content(o conversations.Outbound) error {
	if o.Text == "" {
		return providers.Refuse(conversations.FailureContentFiltered, "the text is empty")
	}
	text, link := o.Text, ""
	label := conversations.LinkButton(o.Purpose, o.Parameters.Locale) // none: the purpose has no link
	if label != "" && isWeb(o.Parameters.Link) {
		link = o.Parameters.Link
	}
	short := utf8.RuneCountInString(text) <= maxInteractive
	switch {
	case link != "" && short && utf8.RuneCountInString(label) <= maxButtonTitle:
		m.interactive("cta_url", text, action{Name: "cta_url", Parameters: &linkButton{
			DisplayText: label, URL: link,
		}})
		return nil
	case link == "" && short && fitButtons(o.Buttons):
		buttons := make([]replyButton, len(o.Buttons))
		for i, b := range o.Buttons {
			buttons[i] = replyButton{Type: "reply", Reply: reply{ID: b.ID, Title: b.Title}}
		}
		m.interactive("button", text, action{Buttons: buttons})
		return nil
	}
	if link != "" && !strings.Contains(text, link) {
		text += "\n" + link
	}
	if utf8.RuneCountInString(text) > maxText {
		return providers.Refuse(conversations.FailureContentFiltered, fmt.Sprintf("the text has more than %d characters", maxText))
	}
	// No preview: it would make Meta's crawler fetch the customer's link.
	m.Type, m.Text = "text", &textBody{Body: text}
	return nil
}

func (m *outbound) interactive(kind, text string, a action) {
	m.Type, m.Interactive = "interactive", &interactive{Type: kind, Body: bodyText{Text: text}, Action: a}
}

// fitButtons tells whether Meta takes these buttons. It would refuse the whole
// message for one that it does not take, so the text then goes without any.
func fitButtons(buttons []conversations.Button) bool {
	if len(buttons) == 0 || len(buttons) > maxButtons {
		return false
	}
	titles, ids := map[string]bool{}, map[string]bool{}
	for _, b := range buttons {
		switch {
		case strings.TrimSpace(b.Title) == "", utf8.RuneCountInString(b.Title) > maxButtonTitle, titles[b.Title],
			b.ID == "", utf8.RuneCountInString(b.ID) > maxButtonID, ids[b.ID]:
			return false
		}
		titles[b.Title], ids[b.ID] = true, true
	}
	return true
}

var phoneForm = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

func isWeb(link string) bool {
	u, err := url.Parse(link)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

// Template returns the template that o would be sent with and its language:
// the customer's own where templates are approved in it, else the base of it
// (de for de-AT), else the default. It implements providers.Templater.
func (p *Provider) Template(o conversations.Outbound) (name, language string) {
	if !o.Template {
		return "", ""
	}
	if name = p.templates[o.Purpose]; name == "" {
		return "", ""
	}
	exact := languageOf(o.Parameters.Locale)
	base, _, _ := strings.Cut(exact, "_")
	for _, language := range []string{exact, base} {
		if slices.Contains(p.languages, language) {
			return name, language
		}
	}
	return name, p.language
}

// template fills in the template of the message's purpose.
func (p *Provider) template(o conversations.Outbound) (*template, error) {
	name, language := p.Template(o)
	if name == "" {
		return nil, providers.Refuse(conversations.FailureTemplate, "no template is set for a message of purpose "+providers.Word(string(o.Purpose)))
	}
	t := &template{Name: name}
	t.Language.Code = language
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

// graphAnswer is what the Graph API answers to a call, with what is used.
type graphAnswer struct {
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
	Success *bool `json:"success"`
}

// readGraph reads an answer. The error is the *providers.Failure of one that
// cannot be read, and of one that carries a code of Meta's: the status alone
// does not say which it is, for Meta has used several for one code.
func readGraph(a providers.Answer) (*graphAnswer, error) {
	var body graphAnswer
	// One member of an unexpected type must not turn an acceptance into
	// something unknown: the others are read all the same.
	err := json.Unmarshal(a.Body, &body)
	var member *json.UnmarshalTypeError
	if err != nil && !errors.As(err, &member) {
		return nil, providers.StatusFailure(a, errAnswer)
	}
	if e := body.Error; e != nil && code(e.Code) != "" {
		return nil, refused(a, e.Code, e.Subcode, e.Transient, string(e.Trace))
	}
	return &body, nil
}

// readAnswer tells acceptance, refusal and everything else apart.
func (p *Provider) readAnswer(a providers.Answer) (conversations.Sent, error) {
	body, err := readGraph(a)
	switch {
	case err != nil:
		return conversations.Sent{}, err
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
