package twilio

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
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
// so both spellings of the address count. A GET has its parameters in the
// address. The scheme has no time stamp: a replay is found by the message's id.
// I-Twilio-Idempotency-Token, equal for every delivery of one webhook, would
// find no more replays than that, and it is not signed.
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

// TakesGet says that a GET is a webhook like any other: at Twilio the merchant
// chooses the method.
func (*Provider) TakesGet() bool { return true }

// Parse reads one webhook: an inbound message or a status callback. One of
// another account, of another channel or to another number has an empty
// SenderID.
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
	customer, ours := form.Get("From"), form.Get("To")
	if !inbound {
		customer, ours = ours, customer
		in.Correlation = providers.Correlation(w.Query.Get(correlationKey))
	}
	if form.Has("AccountSid") && form.Get("AccountSid") != p.accountSID {
		return aside(in, "unknown_account"), nil
	}
	if channelOf(form) == p.channel {
		in.Addresses = p.addresses(form, customer, inbound)
	} else if in.Correlation == "" {
		return aside(in, "unknown_channel"), nil // of our own messages a service may send some by RCS
	}
	switch {
	case len(in.Addresses) == 0 && in.Correlation == "": // a short code or a name: a notice of a carrier, no customer
		return aside(in, "unknown_address"), nil
	case inbound && !p.isOurs(ours, &in):
		return aside(in, "unknown_number"), nil
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
	in.Kind, in.SenderID, in.MediaType, in.Correlation, in.Addresses = conversations.InboundAccount, "", why, "", nil
	return []conversations.Inbound{in}
}

// channelOf tells the channel of a webhook by its addresses. On WhatsApp one
// of the two, or both, have been seen without their prefix; what only WhatsApp
// tells of a customer then says so. Other channels (messenger:, rcs:) are none
// of ours.
func channelOf(form url.Values) conversations.Channel {
	channel := conversations.SMS
	for _, name := range []string{"From", "To"} {
		switch prefix, _, ok := strings.Cut(form.Get(name), ":"); {
		case ok && prefix+":" == whatsAppPrefix:
			channel = conversations.WhatsApp
		case ok:
			return conversations.ChannelUnknown
		}
	}
	if form.Get("ChannelPrefix") == "whatsapp" || form.Get("WaId") != "" || form.Get("ExternalUserId") != "" {
		channel = conversations.WhatsApp
	}
	return channel
}

// addresses returns what is told of the customer: the number, and on WhatsApp
// the user id, of which either may be hidden.
func (p *Provider) addresses(form url.Values, customer string, inbound bool) []conversations.Address {
	var phone, user, parent *conversations.Address
	take := func(s string) {
		s = strings.TrimPrefix(s, whatsAppPrefix)
		switch a, ok := providers.Phone(s); {
		case ok && phone == nil:
			phone = &a
		case ok || p.channel != conversations.WhatsApp:
		case userIDForm.MatchString(s) && user == nil:
			user = &conversations.Address{Kind: conversations.AddressUser, Value: s}
		case parentIDForm.MatchString(s) && parent == nil:
			parent = &conversations.Address{Kind: conversations.AddressParentUser, Value: s}
		}
	}
	take(customer)
	if p.channel == conversations.WhatsApp && inbound { // these tell of who wrote
		extra := metadata(form)
		take(form.Get("WaId"))
		take(form.Get("ExternalUserId"))
		take(extra["WaId"])
		take(extra["ExternalUserId"])
	}
	var all []conversations.Address
	for _, a := range []*conversations.Address{phone, user, parent} {
		if a != nil {
			all = append(all, *a)
		}
	}
	return all
}

// metadata returns the words of ChannelMetadata, which repeats some of what
// stands beside it: {"type":"whatsapp","data":{"context":{...}}}.
func metadata(form url.Values) map[string]string {
	var m struct {
		Data struct {
			Context map[string]providers.Loose `json:"context"`
		} `json:"data"`
	}
	words := map[string]string{}
	if raw := form.Get("ChannelMetadata"); raw == "" || providers.Decode([]byte(raw), &m) != nil {
		return words
	}
	for name, v := range m.Data.Context {
		words[name] = string(v)
	}
	return words
}

// isOurs tells whether a message came to this sender's number, and leaves it
// to a sibling if it came to that one's. A messaging service has any number of
// them.
func (p *Provider) isOurs(to string, in *conversations.Inbound) bool {
	to = strings.TrimPrefix(to, whatsAppPrefix)
	from := strings.TrimPrefix(p.from, whatsAppPrefix)
	// One number may be two senders, so a sibling's has the channel's prefix.
	if sibling, ok := p.siblings[p.prefix()+to]; ok {
		in.SenderID = sibling
		return true
	}
	return to == "" || p.serviceSID != "" || to == from || !phoneForm.MatchString(from)
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
		var v providers.Loose // a string, or a number such as ErrorCode; nothing else is read
		if !utf8.Valid(raw) {
			return nil, providers.ErrEncoding
		}
		if v.UnmarshalJSON(raw) == nil && v != "" {
			form.Set(name, string(v))
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
// it, and with any other word there, they are ordinary text, which the domain
// reads.
func (p *Provider) message(form url.Values, in *conversations.Inbound) {
	in.Kind = conversations.InboundText
	in.Text = providers.Text(firstOf(form, "Body", "ButtonText", "ListTitle"), maxBody*2) // longer ones come joined from several parts
	switch strings.ToUpper(form.Get("OptOutType")) {
	case "STOP":
		in.Kind, in.Consent = conversations.InboundConsent, conversations.ConsentOptedOut
		return
	case "START":
		in.Kind, in.Consent = conversations.InboundConsent, conversations.ConsentOptedIn
		return
	case "HELP": // answered already
		in.Kind, in.MediaType = conversations.InboundOther, "help"
		return
	}
	if p.channel == conversations.WhatsApp {
		in.Name = providers.Text(cmp.Or(form.Get("ProfileName"), metadata(form)["ProfileName"]), maxName)
		if read := messageTypes[form.Get("MessageType")]; read != nil {
			read(form, in)
			return
		}
	}
	whatever(form, in)
}

// messageTypes are the words of MessageType on WhatsApp. What has none, or a
// new one, is read by what it brings.
var messageTypes = map[string]func(url.Values, *conversations.Inbound){
	"text":        whatever,
	"button":      whatever, // a template's quick reply
	"interactive": whatever, // a list's row, a button, a form (flow)
	"image":       file("image"),
	"video":       file("video"),
	"audio":       file("audio"),
	"voice":       file("audio"),
	"document":    file("document"),
	"sticker":     file("sticker"),
	"location":    location,
	"contacts":    other("contacts"), // as a file that is none of ours
	"reaction":    other("reaction"),
	"order":       other("order"), // from the catalogue; not an order to pay
	"system":      other("system"),
	"unsupported": other("unsupported"),
}

func file(kind string) func(url.Values, *conversations.Inbound) {
	return func(_ url.Values, in *conversations.Inbound) {
		in.Kind, in.MediaType = conversations.InboundMedia, kind
	}
}

func other(kind string) func(url.Values, *conversations.Inbound) {
	return func(_ url.Values, in *conversations.Inbound) {
		in.Kind, in.MediaType = conversations.InboundOther, kind
	}
}

// location fills in a place, which may have a name and an address.
func location(form url.Values, in *conversations.Inbound) {
	in.Kind, in.MediaType = conversations.InboundOther, "location"
	if named := strings.Trim(form.Get("Label")+", "+form.Get("Address"), ", "); named != "" {
		in.Text = providers.Text(named, maxBody)
	}
}

// whatever reads a message by the parameters that it has. A pressed button
// counts by its payload, which is ours, and not by its label, which any
// customer can write.
func whatever(form url.Values, in *conversations.Inbound) {
	media := firstOf(form, "MediaContentType0", "MediaUrl0") // the kind of file is not always told
	kind := form.Get("MessageType")
	switch {
	case press(in, form.Get("ButtonPayload"), form.Get("ButtonText")):
	case press(in, form.Get("ListId"), form.Get("ListTitle")):
	case form.Get("Latitude") != "" && form.Get("Longitude") != "":
		location(form, in)
	case form.Get("FlowData") != "" || form.Get("InteractiveData") != "":
		in.Kind, in.MediaType = conversations.InboundOther, "interactive"
	case media != "":
		in.Kind, in.MediaType = conversations.InboundMedia, mediaType(form.Get("MediaContentType0"))
	case in.Text == "" && kind != "" && kind != "text":
		in.Kind, in.MediaType = conversations.InboundOther, providers.Word(kind)
	}
}

// press fills in a button or a row of a list, if there is one. Its label
// stands in Body too.
func press(in *conversations.Inbound, id, label string) bool {
	id = providers.Text(id, maxButton)
	if id == "" {
		return false
	}
	in.Kind, in.Button = conversations.InboundButton, id
	if label != "" {
		in.Text = providers.Text(label, maxBody)
	}
	return true
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
		why.Report(in)
		in.ErrorCode = code(form.Get("ErrorCode"))
	}
}
