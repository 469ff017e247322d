package clickatell

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// Verify checks what there is to check: that the webhook came to an address
// that ends in the secret, and with the user and password, each if it is
// configured. Nothing covers the body, and a replay is found by the message's
// id. A slash at the end, as portals and people add, makes no difference.
func (p *Provider) Verify(w providers.Webhook) error {
	address, _, _ := strings.Cut(w.URL, "?")
	ok := among(p.addresses, strings.TrimSuffix(address, "/"))
	if len(p.users) > 0 {
		ok &= among(p.users, userOf(w.Header))
	}
	if ok != 1 {
		return providers.ErrSignature
	}
	return nil
}

// among tells in constant time, as 1 or 0, whether said is one of known. The
// hashes hide the lengths.
func among(known [][sha256.Size]byte, said string) int {
	sum, found := sha256.Sum256([]byte(said)), 0
	for _, k := range known {
		found |= subtle.ConstantTimeCompare(sum[:], k[:])
	}
	return found
}

// userOf returns user and password of HTTP Basic as they were joined by a
// colon, or "", which is nobody's.
func userOf(h http.Header) string {
	headers := h.Values("Authorization")
	if len(headers) != 1 {
		return ""
	}
	scheme, credentials, _ := strings.Cut(headers[0], " ")
	plain, err := base64.StdEncoding.DecodeString(credentials)
	if err != nil || !strings.EqualFold(scheme, "Basic") {
		return ""
	}
	return string(plain)
}

// Parse reads one delivery of the One API or of the older REST API. The two
// share no shape, and the numbers of their statuses clash; the One API's has
// an event.
func (p *Provider) Parse(w providers.Webhook) ([]conversations.Inbound, error) {
	envelope, err := providers.Object(w.Body)
	if err != nil {
		return nil, fmt.Errorf("parse envelope: %w: %w", providers.ErrUnreadable, err)
	}
	b := &batch{p: p, receivedAt: w.ReceivedAt.UTC(), integration: text(envelope["integrationId"])}
	if raw, ok := envelope["event"]; ok {
		event, err := providers.Object(raw)
		if err != nil {
			return nil, fmt.Errorf("parse event: %w: %w", providers.ErrUnreadable, err)
		}
		b.event(event)
	} else if err := b.legacy(envelope, w.Body); err != nil {
		return nil, fmt.Errorf("parse legacy: %w: %w", providers.ErrUnreadable, err)
	}
	if b.bad > 0 {
		p.log.Warn("webhook elements cannot be read", "count", b.bad, "first_error", b.firstErr.Error())
		b.out = append(b.out, conversations.Inbound{
			Kind: conversations.InboundAccount, MediaType: providers.Malformed, SenderID: p.senderID,
			ProviderID: providers.Digest(providers.Malformed, string(w.Body)), At: b.receivedAt,
		})
	}
	return b.out, nil
}

// batch collects what one delivery reports.
type batch struct {
	p           *Provider
	receivedAt  time.Time
	integration string // whose events these are
	out         []conversations.Inbound
	bad         int // elements left out
	firstErr    error
}

// malformed counts an element that is left out.
func (b *batch) malformed(err error) {
	b.bad++
	if b.firstErr == nil {
		b.firstErr = err
	}
}

// add takes a report if it has an id that can be kept.
func (b *batch) add(in conversations.Inbound) {
	if in.ProviderID == "" || len(in.ProviderID) > maxID {
		b.malformed(providers.ErrShape)
		return
	}
	b.out = append(b.out, in)
}

// aside takes a report that is only counted.
func (b *batch) aside(in conversations.Inbound, why string) {
	b.add(conversations.Inbound{Kind: conversations.InboundAccount, MediaType: why, ProviderID: in.ProviderID, At: in.At})
}

// eventKinds are the kinds of event that are read, in the order in which they
// are reported: Clickatell gives the kinds no order among each other.
var eventKinds = []struct {
	name string
	read func(*batch, json.RawMessage)
}{
	{"moText", (*batch).moText},
	{"moMedia", (*batch).moMedia},
	{"moLocation", (*batch).moLocation},
	{"messageStatusUpdate", (*batch).statusUpdate},
}

// event reads the event of a One API callback: lists by kind, of one element
// each today. A kind that is not known but begins like the kinds of inbound
// message is taken for one; all others, such as statusIsTyping and
// messageFallback, are counted.
func (b *batch) event(event map[string]json.RawMessage) {
	for _, k := range eventKinds {
		b.each(event[k.name], func(raw json.RawMessage) { k.read(b, raw) })
		delete(event, k.name)
	}
	for _, name := range slices.Sorted(maps.Keys(event)) {
		word, inbound := strings.CutPrefix(name, "mo")
		b.each(event[name], func(raw json.RawMessage) {
			if inbound {
				b.moOther(raw, providers.Word(word))
				return
			}
			b.out = append(b.out, conversations.Inbound{
				Kind: conversations.InboundAccount, SenderID: b.sender(b.p.channel), MediaType: providers.Word(name),
				ProviderID: providers.Digest(name, b.integration, string(raw)), At: b.receivedAt,
			})
		})
	}
}

// each calls do with every element of a list, and counts a list that is none.
// Elements beyond any batch that makes sense are left out, and counted as one.
func (b *batch) each(raw json.RawMessage, do func(json.RawMessage)) {
	elements, err := providers.List(raw)
	if err != nil {
		b.malformed(err)
		return
	}
	if len(elements) > maxElements {
		elements = elements[:maxElements]
		b.malformed(providers.ErrShape)
	}
	for _, e := range elements {
		do(e)
	}
}

// sender returns which of the merchant's senders an event on a channel is for,
// or "": an integration with both channels has one callback address for both,
// and several integrations may have been given one address by mistake.
func (b *batch) sender(channel conversations.Channel) string {
	switch {
	case b.p.integration != "" && b.integration != b.p.integration:
		return ""
	case channel == b.p.channel || channel == conversations.ChannelUnknown:
		return b.p.senderID
	}
	return b.p.siblings[string(channel)]
}

// channelOf reads the name of a channel; the documents' own examples have a
// space behind it.
func channelOf(l providers.Loose) conversations.Channel {
	return conversations.Channel(strings.ToLower(strings.TrimSpace(string(l))))
}

// text reads a string member; anything else is "".
func text(raw json.RawMessage) string {
	var s providers.Loose
	_ = s.UnmarshalJSON(raw) // it never fails, what cannot be read is ""
	return string(s)
}

// mo is one inbound message, with the members that are used of any kind.
type mo struct {
	Channel     providers.Loose `json:"channel"`
	MessageID   providers.Loose `json:"messageId"`
	From        providers.Loose `json:"from"`
	Timestamp   providers.Loose `json:"timestamp"`
	Content     providers.Loose `json:"content"` // text, or a file in base64
	Charset     providers.Loose `json:"charset"`
	ContentType providers.Loose `json:"contentType"`
	Caption     providers.Loose `json:"caption"`
	Name        providers.Loose `json:"name"`    // of a place
	Address     providers.Loose `json:"address"` // of a place
	Files       json.RawMessage `json:"files"`
	WhatsApp    json.RawMessage `json:"whatsapp"`
}

// message reads what all kinds of inbound message have in common, and adds it
// after fill has filled in the rest.
func (b *batch) message(raw json.RawMessage, fill func(*mo, *conversations.Inbound)) {
	var m mo
	if err := providers.Decode(raw, &m); err != nil {
		b.malformed(err)
		return
	}
	in := conversations.Inbound{
		Kind: conversations.InboundText, SenderID: b.sender(channelOf(m.Channel)), ProviderID: string(m.MessageID),
		At: b.time(m.Timestamp), Name: profileName(m.WhatsApp),
	}
	who, ok := address(m.From)
	if !ok { // a short code, a name: a notice of a carrier, no customer
		b.aside(in, "unknown_address")
		return
	}
	in.Addresses = []conversations.Address{who}
	fill(&m, &in)
	in.Text = providers.Text(in.Text, maxWhatsApp)
	b.add(in)
}

func (b *batch) moText(raw json.RawMessage) {
	b.message(raw, func(m *mo, in *conversations.Inbound) { in.Text = decodeText(string(m.Content), string(m.Charset)) })
}

// moMedia reports a file by its kind and caption. The file itself, which an
// older form of the callback carries in base64, is not kept.
func (b *batch) moMedia(raw json.RawMessage) {
	b.message(raw, func(m *mo, in *conversations.Inbound) {
		var file struct {
			ContentType providers.Loose `json:"contentType"`
			FileName    providers.Loose `json:"fileName"`
		}
		if files, err := providers.List(m.Files); err == nil && len(files) > 0 {
			_ = json.Unmarshal(files[0], &file) // a file that cannot be read is still a file
		}
		in.Kind = conversations.InboundMedia
		in.MediaType = mediaType(cmp.Or(string(m.ContentType), string(file.ContentType)))
		in.Text = cmp.Or(string(m.Caption), string(file.FileName))
	})
}

func (b *batch) moLocation(raw json.RawMessage) {
	b.message(raw, func(m *mo, in *conversations.Inbound) {
		in.Kind, in.MediaType = conversations.InboundOther, "location"
		in.Text = strings.Trim(string(m.Name)+", "+string(m.Address), ", ")
	})
}

// moOther reports an inbound message of a kind that is not known. Its content
// may be anything, so it is left alone.
func (b *batch) moOther(raw json.RawMessage, word string) {
	b.message(raw, func(_ *mo, in *conversations.Inbound) { in.Kind, in.MediaType = conversations.InboundOther, word })
}

// profileName is the customer's name on WhatsApp.
func profileName(raw json.RawMessage) string {
	var w struct {
		ProfileName providers.Loose `json:"profileName"`
	}
	_ = json.Unmarshal(raw, &w) // no name is told, or it cannot be read: then there is none
	return strings.TrimSpace(providers.Text(string(w.ProfileName), maxName))
}

// mediaType returns the word for a kind of file that all providers share.
func mediaType(contentType string) string {
	major, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(contentType)), "/")
	switch major {
	case "image", "video", "audio":
		return major
	}
	return "document"
}

// userID is the form of a WhatsApp user id. Clickatell's statuses speak of
// anonymous users, though no page shows one: then it stands where the number
// would.
var userID = regexp.MustCompile(`^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,124}$`)

func address(from providers.Loose) (conversations.Address, bool) {
	if userID.MatchString(string(from)) {
		kind := conversations.AddressUser
		if strings.HasPrefix(string(from)[2:], ".ENT.") {
			kind = conversations.AddressParentUser
		}
		return conversations.Address{Kind: kind, Value: string(from)}, true
	}
	return providers.Phone(string(from))
}

// status is one element of messageStatusUpdate, and the body of a legacy
// status callback.
type status struct {
	Channel         providers.Loose `json:"channel"`
	MessageID       providers.Loose `json:"messageId"`
	ClientMessageID providers.Loose `json:"clientMessageId"`
	To              providers.Loose `json:"to"`
	StatusCode      providers.Loose `json:"statusCode"`
	Status          providers.Loose `json:"status"`
	Timestamp       providers.Loose `json:"timestamp"`
}

func (b *batch) statusUpdate(raw json.RawMessage) {
	var s status
	if err := providers.Decode(raw, &s); err != nil {
		b.malformed(err)
		return
	}
	b.status(&s, channelOf(s.Channel), statuses)
}

// status reports what became of one message of ours, by the table of the API
// that says so. One that is not known has no Status; MediaType keeps its name.
func (b *batch) status(s *status, channel conversations.Channel, table statusTable) {
	in := conversations.Inbound{
		Kind: conversations.InboundStatus, SenderID: b.sender(channel), ProviderID: string(s.MessageID),
		Correlation: providers.Correlation(string(s.ClientMessageID)), At: b.time(s.Timestamp),
	}
	if who, ok := address(s.To); ok {
		in.Addresses = []conversations.Address{who}
	}
	if in.Correlation == "" && len(in.Addresses) == 0 { // of another program that sends through the integration
		b.aside(in, "unknown_address")
		return
	}
	row, known := table.lookUp(string(s.StatusCode), string(s.Status))
	in.Status = row.status
	if !known || row.status == conversations.DeliveryUnknown {
		in.MediaType = providers.Word(cmp.Or(string(s.Status), string(s.StatusCode)))
	}
	if row.status == conversations.DeliveryFailed {
		row.refusal().Report(&in)
		in.ErrorCode = table.code(string(s.StatusCode), row)
	}
	b.add(in)
}

// time reads Unix milliseconds, or seconds when there are at most ten digits.
// What cannot be read, and what lies in the future, is the time of receipt.
func (b *batch) time(l providers.Loose) time.Time {
	n, err := strconv.ParseInt(string(l), 10, 64)
	if err != nil || n <= 0 {
		return b.receivedAt
	}
	t := time.UnixMilli(n)
	if n <= 9_999_999_999 {
		t = time.Unix(n, 0)
	}
	return providers.NotAfter(t, b.receivedAt)
}
