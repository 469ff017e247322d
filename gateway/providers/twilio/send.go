package twilio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
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

var phoneForm = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// userIDForm is that of a WhatsApp user id. Other parts of Twilio's documents
// than those on the Message resource show one as an address.
var userIDForm = regexp.MustCompile(`^[A-Z]{2}\.[A-Za-z0-9]{1,128}$`)

// parentIDForm is that of an id that the customer has for a group of
// businesses. It is known by, and never sent to.
var parentIDForm = regexp.MustCompile(`^[A-Z]{2}\.ENT\.[A-Za-z0-9]{1,128}$`)

// Send posts one message. On WhatsApp it is the Content template of its
// purpose when free text is not allowed now; SMS has no templates, so
// Outbound.Template makes no difference there. Twilio has no buttons outside
// Content templates: Outbound.Buttons are left out, and a link goes on a line
// of its own. Nor can a preview of it be switched off, so opening a link must
// change nothing, as with every link of ours.
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
	answer, err := p.callAs(req, p.user, p.password)
	if err != nil {
		return conversations.Sent{}, err
	}
	return p.readAnswer(answer)
}

// callAs makes a call with these credentials.
func (p *Provider) callAs(req *http.Request, user, password string) (providers.Answer, error) {
	req.Header.Set("Accept", "application/json")
	req.SetBasicAuth(user, password)
	return providers.Call(p.client, req)
}

// compose makes the form, or a *providers.Failure for what Twilio would surely
// refuse.
func (p *Provider) compose(o conversations.Outbound) (url.Values, error) {
	to, err := p.recipient(o.To)
	if err != nil {
		return nil, err
	}
	form := url.Values{"To": {to}, "StatusCallback": {p.statusCallback(o.Correlation)}}
	for name, value := range map[string]string{"From": p.from, "MessagingServiceSid": p.serviceSID, "ValidityPeriod": p.validity} {
		if value != "" {
			form.Set(name, value)
		}
	}
	text := p.text(o)
	switch {
	case p.channel == conversations.WhatsApp && o.Template:
		if err := p.fillContent(form, o); err != nil {
			return nil, err
		}
	case text == "":
		return nil, providers.Refuse(conversations.FailureContentFiltered, "the text is empty")
	case utf8.RuneCountInString(text) > maxBody:
		return nil, providers.Refuse(conversations.FailureContentFiltered, fmt.Sprintf("the text has more than %d characters", maxBody))
	default:
		form.Set("Body", text)
	}
	return form, nil
}

// recipient spells an address as Twilio does.
func (p *Provider) recipient(to conversations.Address) (string, error) {
	switch {
	case to.Kind == conversations.AddressPhone && phoneForm.MatchString(to.Value):
		return p.prefix() + to.Value, nil
	case p.channel == conversations.WhatsApp && to.Kind == conversations.AddressUser && userIDForm.MatchString(to.Value):
		return whatsAppPrefix + to.Value, nil
	case p.channel == conversations.WhatsApp:
		return "", providers.Refuse(conversations.FailureInvalidNumber, "the address is neither an international number nor a WhatsApp user id")
	}
	return "", providers.Refuse(conversations.FailureInvalidNumber, "the address is not an international number")
}

// prefix is what stands before a number on the sender's channel.
func (p *Provider) prefix() string {
	if p.channel == conversations.WhatsApp {
		return whatsAppPrefix
	}
	return ""
}

// text returns the free text of a message, on WhatsApp with the link that its
// purpose needs.
func (p *Provider) text(o conversations.Outbound) string {
	link := o.Parameters.Link
	linked := conversations.LinkButton(o.Purpose, o.Parameters.Locale) != ""
	if p.channel != conversations.WhatsApp || !linked || link == "" || o.Text == "" || strings.Contains(o.Text, link) {
		return o.Text
	}
	return o.Text + "\n" + link
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
	return u.String() + Overrides
}

var errAnswer = errors.New("the body of the answer cannot be read")

// resource is what is read of a Message resource, and of a refusal. Members
// that are documented as strings have been seen as numbers, and the other way
// round.
type resource struct {
	SID         string          `json:"sid"`
	Status      any             `json:"status"` // a word in a message, a number in an error
	Code        providers.Loose `json:"code"`   // of an error
	ErrorCode   providers.Loose `json:"error_code"`
	Direction   string          `json:"direction"`
	From        string          `json:"from"`
	Service     string          `json:"messaging_service_sid"`
	Body        string          `json:"body"`
	DateCreated string          `json:"date_created"` // RFC 2822
	NumSegments providers.Loose `json:"num_segments"`
	Price       providers.Loose `json:"price"`
	PriceUnit   string          `json:"price_unit"`
}

// word returns the status as Twilio spells it.
func (r *resource) word() string {
	word, _ := r.Status.(string)
	return word
}

// sent returns what the resource says of an accepted message, as far as it is
// known: any status that is not has at least an id behind it.
func (p *Provider) sent(r *resource) conversations.Sent {
	s := conversations.Sent{ProviderID: r.SID, Status: deliveryStatuses[r.word()], Cost: p.cost(r)}
	if s.Status == conversations.DeliveryUnknown {
		p.log.Warn("a message has a status that is not known", "message_status", providers.Word(r.word()))
		s.Status = conversations.DeliveryAccepted
	}
	return s
}

// amountForm is that of a price: negative, because it is what the account pays.
var (
	amountForm   = regexp.MustCompile(`^-?([0-9]{1,9}(\.[0-9]{1,9})?)$`)
	currencyForm = regexp.MustCompile(`^[A-Za-z]{3}$`)
)

// cost returns what the resource tells of the price. The price itself comes
// some time after the message was made; a service that has yet to choose a
// number tells 0 segments. WhatsApp is not charged by segments.
func (p *Provider) cost(r *resource) *conversations.Cost {
	var c conversations.Cost
	if n, err := strconv.Atoi(string(r.NumSegments)); err == nil && n > 0 && n <= maxBody && p.channel == conversations.SMS {
		c.Units = n
	}
	if amount := amountForm.FindStringSubmatch(string(r.Price)); amount != nil && currencyForm.MatchString(r.PriceUnit) {
		c.Amount, c.Currency = amount[1], strings.ToUpper(r.PriceUnit)
	}
	if c == (conversations.Cost{}) {
		return nil
	}
	return &c
}

// readAnswer tells acceptance, refusal and everything else apart.
func (p *Provider) readAnswer(a providers.Answer) (conversations.Sent, error) {
	r, ok := readResource(a.Body)
	switch {
	case !ok:
		return conversations.Sent{}, providers.StatusFailure(a, errAnswer)
	case !a.OK():
		return conversations.Sent{}, refused(a, code(string(r.Code)))
	case r.SID == "" || len(r.SID) > maxID:
		return conversations.Sent{}, providers.StatusFailure(a, errAnswer)
	}
	if deliveryStatuses[r.word()] == conversations.DeliveryFailed {
		number := code(string(r.ErrorCode))
		return conversations.Sent{}, failure(number, a.RetryAfter(), fmt.Errorf("created as %s", r.word()))
	}
	return p.sent(r), nil
}

// readResource reads a JSON object. One member of an unexpected type must not
// turn an acceptance into something unknown: the others are read all the same.
func readResource(body []byte) (*resource, bool) {
	r := &resource{}
	err := json.Unmarshal(body, r)
	var member *json.UnmarshalTypeError
	return r, err == nil || errors.As(err, &member) && member.Field != ""
}

// refused is the failure of an answer without success. A fault of Twilio's
// (5xx) leaves the outcome unknown even when it has a code: the message may
// have been made before. Twilio's own words are dropped, they quote the
// customer's number.
func refused(a providers.Answer, number string) *providers.Failure {
	err := fmt.Errorf("twilio error with status %d", a.Status)
	f := providers.StatusFailure(a, err)
	switch _, known := lookUp(number); {
	case number == "":
	case a.Status < 400 || a.Status > 499:
		f.Code = number
	case known:
		f = failure(number, a.RetryAfter(), err)
	default:
		f = providers.Refusal{Reason: f.Reason}.Failure(number, a.RetryAfter(), err)
	}
	return f
}

// failure is the failure that a code means.
func failure(number string, after time.Duration, err error) *providers.Failure {
	r, _ := lookUp(number)
	f := r.Failure(number, after, err)
	if uncertain[number] {
		f.Unknown, f.Retryable, f.RetryAfter, f.Scope = true, false, 0, providers.ScopeMessage
	}
	return f
}

// uncertain are the codes after which a message may be on its way all the
// same, whatever the status of the answer: Twilio is asked before it is sent
// again. In a status callback 30410 is a failure like any other, for nothing
// more can be asked then; it is sent again after a while, not at once.
var uncertain = map[string]bool{
	"20500": true, // fault of Twilio
	"20503": true, // service unavailable
	"30410": true, // time-out of the carrier
}

// code returns a code as Twilio's list has it, if it is one.
func code(s string) string {
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 || n >= 1e9 {
		return ""
	}
	return strconv.Itoa(n)
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

// codes lists the table, for the documentation. Those below 30000 answer the
// call, those of the carriers come with a status, those of WhatsApp with either.
func codes() []providers.Code {
	var all []providers.Code
	for _, number := range slices.Sorted(maps.Keys(refusals)) {
		all = append(all, providers.Code{
			Code: strconv.Itoa(number), Refusal: refusals[number], Answered: number < 30000 || number >= 60000, Reported: number >= 30000 || number == 21610,
		})
	}
	return all
}

// untilTomorrow is how long a sender waits that has used up its day. It asks
// again each hour: nobody tells which midnight counts.
const untilTomorrow = time.Hour

// refusals is what Twilio's codes mean, in answers and in status callbacks.
// What follows a failure that a callback brought is decided by its reason
// alone; scope, wait and tries are for those of an answer. Source:
// twilio.com/docs/api/errors.
var refusals = map[int]providers.Refusal{
	20003: {Meaning: "bad credentials or no permission", Reason: conversations.FailureAuth},
	20005: {Meaning: "account not active", Reason: conversations.FailureAccount},
	20404: {Meaning: "no such account or resource", Reason: conversations.FailureAuth},
	20429: {Meaning: "too many requests", Reason: conversations.FailureRate, Wait: time.Second, Growth: 2},
	20500: {Meaning: "fault of Twilio", Reason: conversations.FailureProviderError},
	20503: {Meaning: "service unavailable", Reason: conversations.FailureProviderError},

	21211: {Meaning: "To is not valid", Reason: conversations.FailureInvalidNumber},
	21212: {Meaning: "From is not valid", Reason: conversations.FailureSenderConfig},
	21408: {Meaning: "SMS to this country is switched off", Reason: conversations.FailureSenderConfig},
	21602: {Meaning: "no body", Reason: conversations.FailureContentFiltered},
	21603: {Meaning: "no From", Reason: conversations.FailureSenderConfig},
	21604: {Meaning: "no To", Reason: conversations.FailureInvalidNumber},
	21606: {Meaning: "From cannot send", Reason: conversations.FailureSenderConfig},
	21608: {Meaning: "trial account, number not verified", Reason: conversations.FailureSenderConfig},
	21609: {Meaning: "StatusCallback is not valid", Reason: conversations.FailureSenderConfig},
	21610: {Meaning: "customer replied STOP", Reason: conversations.FailureOptedOut},
	21611: {Meaning: "queue of the number is full: ten hours of messages", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: 10 * time.Minute},
	21612: {Meaning: "no route to this number", Reason: conversations.FailureInvalidNumber},
	21614: {Meaning: "not a mobile number", Reason: conversations.FailureInvalidNumber},
	21617: {Meaning: "body too long", Reason: conversations.FailureContentFiltered},
	21655: {Meaning: "ContentSid", Reason: conversations.FailureTemplate},
	21656: {Meaning: "ContentVariables", Reason: conversations.FailureTemplate},
	21701: {Meaning: "messaging service does not exist", Reason: conversations.FailureSenderConfig},
	21703: {Meaning: "messaging service has no number", Reason: conversations.FailureSenderConfig},
	21704: {Meaning: "messaging service has no fitting number", Reason: conversations.FailureSenderConfig},
	21705: {Meaning: "messaging service is not valid", Reason: conversations.FailureSenderConfig},

	30001: {Meaning: "expired in the queue", Reason: conversations.FailureUnreachable, Tries: 2},
	30002: {Meaning: "account suspended", Reason: conversations.FailureAccount},
	30003: {Meaning: "phone off or without signal", Reason: conversations.FailureUnreachable, Tries: 2},
	30004: {Meaning: "blocked by customer or carrier", Reason: conversations.FailureBlocked},
	30005: {Meaning: "number is dead", Reason: conversations.FailureInvalidNumber},
	30006: {Meaning: "landline", Reason: conversations.FailureInvalidNumber},
	30007: {Meaning: "filtered by the carrier", Reason: conversations.FailureContentFiltered},
	30008: {Meaning: "unknown to Twilio", Reason: conversations.FailureProviderError, Tries: 2},
	30018: {Meaning: "name needs registration", Reason: conversations.FailureSenderConfig},
	30022: {Meaning: "10DLC rate", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: time.Minute},
	30023: {Meaning: "10DLC cap of the day", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: untilTomorrow},
	30024: {Meaning: "not provisioned at the carrier", Reason: conversations.FailureSenderConfig},
	30027: {Meaning: "T-Mobile's limit of the day", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: untilTomorrow},
	30032: {Meaning: "toll-free number not verified", Reason: conversations.FailureSenderConfig},
	30034: {Meaning: "number not in a 10DLC campaign", Reason: conversations.FailureSenderConfig},
	30036: {Meaning: "validity period over", Reason: conversations.FailureUnreachable, Tries: 2},
	30410: {Meaning: "time-out of the carrier", Reason: conversations.FailureProviderError, Wait: time.Minute, Tries: 2},

	63003: {Meaning: "customer not found", Reason: conversations.FailureNotOnChannel},
	63005: {Meaning: "content refused", Reason: conversations.FailureContentFiltered},
	63007: {Meaning: "From is no WhatsApp sender", Reason: conversations.FailureSenderConfig},
	63013: {Meaning: "policy", Reason: conversations.FailureContentFiltered},
	63014: {Meaning: "customer blocked us", Reason: conversations.FailureBlocked},
	63015: {Meaning: "customer has not joined the sandbox", Reason: conversations.FailureNotOnChannel},
	63016: {Meaning: "outside 24 hours", Reason: conversations.FailureOutsideWindow},
	63017: {Meaning: "account's rate, 2,000 a second", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: time.Second},
	63018: {Meaning: "channel's rate", Reason: conversations.FailureRate, Wait: 2 * time.Second, Growth: 2},
	63020: {Meaning: "business account at Meta", Reason: conversations.FailureAccount},
	63021: {Meaning: "template's content refused", Reason: conversations.FailureContentFiltered},
	63024: {Meaning: "customer's address not valid", Reason: conversations.FailureNotOnChannel},
	63027: {Meaning: "not in this language", Reason: conversations.FailureTemplate},
	63028: {Meaning: "number of parameters", Reason: conversations.FailureTemplate},
	63029: {Meaning: "paused", Reason: conversations.FailureTemplate},
	63030: {Meaning: "parameter", Reason: conversations.FailureTemplate},
	63032: {Meaning: "WhatsApp's limitation", Reason: conversations.FailureNotOnChannel},
	63033: {Meaning: "customer is blocked", Reason: conversations.FailureBlocked},
	63038: {Meaning: "account's limit of the day", Reason: conversations.FailureRate, Scope: providers.ScopeSender, Wait: untilTomorrow},
	63040: {Meaning: "rejected", Reason: conversations.FailureTemplate},
	63041: {Meaning: "paused or disabled", Reason: conversations.FailureTemplate},
	63049: {Meaning: "Meta chose not to deliver", Reason: conversations.FailurePolicyLimit},
	63062: {Meaning: "marketing terms not accepted", Reason: conversations.FailureAccount},
}
