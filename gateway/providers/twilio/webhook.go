package twilio

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// Verify checks X-Twilio-Signature: HMAC-SHA1 with the auth token over the
// configured address and, for a form, every parameter of the body sorted by
// name, empty ones too. Any other body is covered by its SHA-256 in the query,
// and both are checked. Twilio signs with and without the port of the scheme,
// so both spellings of the address count. The scheme has no time stamp: a
// replay is found by the message's id.
func (p *Provider) Verify(w providers.Webhook) error {
	headers := w.Header.Values("X-Twilio-Signature")
	if len(headers) != 1 {
		return providers.ErrSignature
	}
	tails := []string{""}
	switch {
	case isForm(w):
		var err error
		if tails, err = formTails(w.Body); err != nil {
			return providers.ErrSignature
		}
	case w.Method == http.MethodGet && len(w.Body) == 0:
	default:
		want, err := hex.DecodeString(w.Query.Get("bodySHA256"))
		sum := sha256.Sum256(w.Body)
		if err != nil || subtle.ConstantTimeCompare(want, sum[:]) != 1 {
			return providers.ErrSignature
		}
	}
	for _, token := range p.tokens {
		for _, address := range spellings(w.URL) {
			for _, tail := range tails {
				mac := hmac.New(sha1.New, token)
				_, _ = mac.Write([]byte(address + tail)) // a hash never fails
				want := base64.StdEncoding.EncodeToString(mac.Sum(nil))
				if hmac.Equal([]byte(headers[0]), []byte(want)) {
					return nil
				}
			}
		}
	}
	return providers.ErrSignature
}

// isForm tells whether the body is one of Twilio's usual forms. A POST without
// a body is signed like an empty form.
func isForm(w providers.Webhook) bool {
	if w.Method != http.MethodPost {
		return false
	}
	kind, _, err := mime.ParseMediaType(w.Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

// formTails returns what is signed after the address. For a name that comes
// more than once the libraries differ (every value in order of arrival, each
// value once and sorted, the first alone), so each is tried; without one there
// is a single tail.
func formTails(body []byte) ([]string, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	var all, set, first strings.Builder
	for _, name := range slices.Sorted(maps.Keys(form)) {
		values := form[name]
		for _, v := range values {
			all.WriteString(name + v)
		}
		for _, v := range slices.Compact(slices.Sorted(slices.Values(values))) {
			set.WriteString(name + v)
		}
		first.WriteString(name + values[0])
	}
	tails := []string{all.String(), set.String(), first.String()}
	return slices.Compact(tails), nil
}

// spellings returns the address without its fragment (which is never sent),
// and the same with the scheme's own port added or taken away.
func spellings(address string) []string {
	address, _, _ = strings.Cut(address, "#")
	scheme, rest, ok := strings.Cut(address, "://")
	port := map[string]string{"https": ":443", "http": ":80"}[scheme]
	if !ok || port == "" {
		return []string{address}
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host, path := rest[:end], rest[end:]
	if bare, had := strings.CutSuffix(host, port); had {
		return []string{address, scheme + "://" + bare + path}
	}
	// A colon after the user's part and outside brackets starts another port.
	name := host[strings.LastIndexByte(host, '@')+1:]
	if strings.LastIndexByte(name, ':') > strings.LastIndexByte(name, ']') {
		return []string{address}
	}
	return []string{address, scheme + "://" + host + port + path}
}

// Parse reads one webhook: an inbound message or a status callback. One of
// another account, or of another channel, has an empty SenderID.
func (p *Provider) Parse(w providers.Webhook) ([]conversations.Inbound, error) {
	form, err := parameters(w)
	if err != nil {
		return nil, fmt.Errorf("parse parameters: %w: %w", providers.ErrUnreadable, err)
	}
	id := firstOf(form, "MessageSid", "SmsSid", "SmsMessageSid")
	if id == "" || len(id) > maxID {
		return nil, fmt.Errorf("parse MessageSid: %w: %w", providers.ErrUnreadable, providers.ErrShape)
	}
	in := conversations.Inbound{
		SenderID: p.senderID, ProviderID: id,
		At: w.ReceivedAt.UTC(), // Twilio gives no time of the event
	}
	word := firstOf(form, "MessageStatus", "SmsStatus")
	inbound := form.Get("MessageStatus") == "" && (word == "" || word == "received" || word == "receiving")
	customer := form.Get("From")
	if !inbound {
		customer = form.Get("To")
		in.Correlation = providers.Correlation(w.Query.Get(correlationKey))
	}
	address, ok := providers.Phone(customer)
	switch {
	case form.Has("AccountSid") && form.Get("AccountSid") != p.accountSID:
		return aside(in, "unknown_account"), nil
	case strings.Contains(customer, ":"): // whatsapp:, messenger:, rcs:
		return aside(in, "unknown_channel"), nil
	case ok:
		in.Addresses = []conversations.Address{address}
	case in.Correlation == "": // a short code or a name: a notice of a carrier, no customer
		return aside(in, "unknown_address"), nil
	}
	if inbound {
		p.message(form, &in)
	} else {
		status(form, word, &in)
	}
	return []conversations.Inbound{in}, nil
}

// aside turns a report into one that is only counted.
func aside(in conversations.Inbound, why string) []conversations.Inbound {
	in.Kind, in.SenderID, in.MediaType, in.Correlation = conversations.InboundAccount, "", why, ""
	return []conversations.Inbound{in}
}

// parameters returns the parameters of a webhook, wherever they are: in a
// form, in a JSON object, or in the query of a GET.
func parameters(w providers.Webhook) (url.Values, error) {
	if w.Method == http.MethodGet {
		return w.Query, checked(w.Query)
	}
	if isForm(w) {
		form, err := url.ParseQuery(string(w.Body))
		if err != nil {
			return nil, providers.ErrShape // the error quotes the body
		}
		return form, checked(form)
	}
	members, err := providers.Object(w.Body)
	if err != nil {
		return nil, err
	}
	form := url.Values{}
	for name, raw := range members {
		var v string
		if !utf8.Valid(raw) {
			return nil, providers.ErrEncoding
		}
		if json.Unmarshal(raw, &v) == nil { // every parameter that is read is a string
			form.Set(name, v)
		}
	}
	return form, nil
}

// checked refuses bytes that are no text: what they say would depend on who
// reads them.
func checked(form url.Values) error {
	for name, values := range form {
		for _, v := range values {
			if !utf8.ValidString(name) || !utf8.ValidString(v) {
				return providers.ErrEncoding
			}
		}
	}
	return nil
}

func firstOf(form url.Values, names ...string) string {
	for _, name := range names {
		if v := form.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// message fills in what a customer said. With Advanced Opt-Out Twilio has
// answered STOP, START and HELP by itself and says so in OptOutType; without
// it they are ordinary text, which the domain reads.
func (p *Provider) message(form url.Values, in *conversations.Inbound) {
	in.Kind = conversations.InboundText
	in.Text = providers.Text(form.Get("Body"), maxBody*2) // longer ones come joined from several parts
	switch kind := form.Get("OptOutType"); kind {
	case "":
	case "STOP":
		in.Kind, in.Consent = conversations.InboundConsent, conversations.ConsentOptedOut
		return
	case "START":
		in.Kind, in.Consent = conversations.InboundConsent, conversations.ConsentOptedIn
		return
	default: // HELP, answered already
		in.Kind, in.MediaType = conversations.InboundOther, providers.Word(kind)
		return
	}
	if media := form.Get("MediaContentType0"); media != "" {
		in.Kind, in.MediaType = conversations.InboundMedia, mediaType(media)
	}
}

// mediaType returns the word for a kind of file that all providers share.
func mediaType(contentType string) string {
	major, _, _ := strings.Cut(strings.ToLower(contentType), "/")
	switch major {
	case "image", "video", "audio":
		return major
	}
	return "document"
}

// deliveryStatuses are the words of MessageStatus, and of status in the answer
// to a send.
var deliveryStatuses = map[string]conversations.DeliveryStatus{
	"accepted":            conversations.DeliveryAccepted,  // a service will choose the number
	"scheduled":           conversations.DeliveryAccepted,  // for later
	"queued":              conversations.DeliveryAccepted,  // waits for its turn
	"sending":             conversations.DeliveryAccepted,  // on its way to the carrier
	"sent":                conversations.DeliverySent,      // the carrier has it
	"delivered":           conversations.DeliveryDelivered, // the carrier says so
	"partially_delivered": conversations.DeliverySent,      // some parts: not delivered yet
	"read":                conversations.DeliveryRead,      // RCS and WhatsApp only
	"undelivered":         conversations.DeliveryFailed,    // refused by carrier or handset
	"failed":              conversations.DeliveryFailed,    // never left Twilio
	"canceled":            conversations.DeliveryFailed,    // a scheduled one
}

// status fills in what became of a message of ours. A word that is not known
// has no Status; MediaType keeps it for the log.
func status(form url.Values, word string, in *conversations.Inbound) {
	in.Kind, in.Status = conversations.InboundStatus, deliveryStatuses[word]
	switch in.Status {
	case conversations.DeliveryUnknown:
		in.MediaType = providers.Word(word)
	case conversations.DeliveryFailed:
		why, _ := lookUp(form.Get("ErrorCode"))
		in.Reason, in.ErrorCode = why.Reason, code(form.Get("ErrorCode"))
	}
}
