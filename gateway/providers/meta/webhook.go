package meta

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// userID is the form of a business-scoped user id; parentUserID that of one
// shared by a group of businesses.
var (
	userID       = regexp.MustCompile(`^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}$`)
	parentUserID = regexp.MustCompile(`^[A-Z]{2}\.ENT\.`)
)

// businessAccount is the object whose webhooks are read.
const businessAccount = "whatsapp_business_account"

// Parse reads one delivery: up to 1,000 updates of several accounts and
// numbers in one body. Each change goes to the sender that has the number in
// its metadata. Objects and fields that are not known are counted and
// otherwise ignored.
func (p *Provider) Parse(w providers.Webhook) ([]conversations.Inbound, error) {
	b := &batch{p: p, receivedAt: w.ReceivedAt.UTC()}
	if body, ok := decodeWhole(w.Body); ok {
		b.whole(body)
	} else if err := b.layered(w.Body, b.eitherWay); err != nil {
		return nil, err
	}
	return b.end(w.Body), nil
}

// batch collects what one delivery reports.
type batch struct {
	p          *Provider
	receivedAt time.Time
	out        []conversations.Inbound
	bad        int // elements left out
	firstErr   error
}

// end returns what was collected, with one report for all that was left out.
func (b *batch) end(body []byte) []conversations.Inbound {
	if b.bad > 0 {
		b.p.log.Warn("webhook elements cannot be read", "count", b.bad, "first_error", b.firstErr.Error())
		b.out = append(b.out, conversations.Inbound{
			Kind: conversations.InboundAccount, MediaType: providers.Malformed, SenderID: b.p.senderID,
			ProviderID: providers.Digest(providers.Malformed, string(body)), At: b.receivedAt,
		})
	}
	return b.out
}

// malformed counts an element that is left out.
func (b *batch) malformed(err error) {
	b.bad++
	if b.firstErr == nil {
		b.firstErr = err
	}
}

// add takes a report if something can be done with it.
func (b *batch) add(in conversations.Inbound) {
	switch {
	case in.ProviderID == "" || len(in.ProviderID) > maxID:
		b.malformed(providers.ErrShape)
	case len(in.Addresses) > 0, in.Kind == conversations.InboundAccount,
		in.Kind == conversations.InboundStatus && in.Correlation != "": // which alone leads to the contact
		b.out = append(b.out, in)
	default:
		b.malformed(providers.ErrShape) // nobody's
	}
}

// contact is who an update is about, with everything known of them.
type contact struct {
	WaID         providers.Loose `json:"wa_id"`
	UserID       providers.Loose `json:"user_id"`
	ParentUserID providers.Loose `json:"parent_user_id"`
	Profile      struct {
		Name string `json:"name"`
	} `json:"profile"`
}

type contacts []contact

// of returns the contact with that number or user id. The order of contacts
// and messages says nothing, only the identifiers pair them.
func (cs contacts) of(waID, userID providers.Loose) contact {
	for i := range cs {
		if c := &cs[i]; waID != "" && c.WaID == waID || userID != "" && c.UserID == userID {
			return *c
		}
	}
	return contact{}
}

// addresses returns the addresses among the identifiers, each kind once, in
// the order phone, user, parent user. Either identifier may stand in a place
// where the other is documented.
func addresses(ids ...providers.Loose) []conversations.Address {
	var phone, user, parent conversations.Address
	for i, id := range ids {
		if id == "" || slices.Contains(ids[:i], id) {
			continue
		}
		switch a, _ := address(string(id)); {
		case a.Kind == conversations.AddressPhone && phone.Value == "":
			phone = a
		case a.Kind == conversations.AddressUser && user.Value == "":
			user = a
		case a.Kind == conversations.AddressParentUser && parent.Value == "":
			parent = a
		}
	}
	as := make([]conversations.Address, 0, 3)
	for _, a := range [...]conversations.Address{phone, user, parent} {
		if a.Value != "" {
			as = append(as, a)
		}
	}
	if len(as) == 0 {
		return nil
	}
	return as
}

func address(id string) (conversations.Address, bool) {
	// Only a user id begins with a letter: the forms are tried on nothing else.
	if id == "" || id[0] < 'A' || id[0] > 'Z' {
		return providers.Phone(id)
	}
	switch {
	case !userID.MatchString(id):
		return conversations.Address{}, false
	case parentUserID.MatchString(id):
		return conversations.Address{Kind: conversations.AddressParentUser, Value: id}, true
	}
	return conversations.Address{Kind: conversations.AddressUser, Value: id}, true
}

// message is one inbound message, with the members that are used.
type message struct {
	ID               string          `json:"id"`
	From             providers.Loose `json:"from"`
	FromUserID       providers.Loose `json:"from_user_id"`
	FromParentUserID providers.Loose `json:"from_parent_user_id"`
	GroupID          providers.Loose `json:"group_id"`
	Timestamp        providers.Loose `json:"timestamp"`
	Type             string          `json:"type"`
	Origin           providers.Loose `json:"origin"` // of contacts: contact_request, other

	Errors lenient[[]graphError] `json:"errors"`

	Text *struct {
		Body string `json:"body"`
	} `json:"text"`
	Button *struct {
		Payload string `json:"payload"`
		Text    string `json:"text"`
	} `json:"button"`
	Interactive *struct {
		Type        string `json:"type"`
		ButtonReply *reply `json:"button_reply"`
		ListReply   *reply `json:"list_reply"`
		FlowReply   *struct {
			Body     providers.Loose `json:"body"`
			Response providers.Loose `json:"response_json"` // JSON in a string, or nothing, or anything
		} `json:"nfm_reply"`
	} `json:"interactive"`
	Image    *media `json:"image"`
	Video    *media `json:"video"`
	Audio    *media `json:"audio"`
	Voice    *media `json:"voice"`
	Document *media `json:"document"`
	Sticker  *media `json:"sticker"`
	Location *struct {
		Name      string          `json:"name"`
		Address   string          `json:"address"`
		Latitude  providers.Loose `json:"latitude"`
		Longitude providers.Loose `json:"longitude"`
	} `json:"location"`
	Contacts lenient[[]sharedContact] `json:"contacts"`
	Reaction *struct {
		Emoji string `json:"emoji"`
	} `json:"reaction"`
	Order *struct {
		Text string `json:"text"`
	} `json:"order"`
	System *struct {
		Type                 string          `json:"type"`
		WaID                 providers.Loose `json:"wa_id"`
		UserID               providers.Loose `json:"user_id"`
		ParentUserID         providers.Loose `json:"parent_user_id"`
		PreviousUserID       providers.Loose `json:"previous_user_id"`
		PreviousParentUserID providers.Loose `json:"previous_parent_user_id"`
	} `json:"system"`
	Edit *struct {
		Message struct {
			Text struct {
				Body string `json:"body"`
			} `json:"text"`
		} `json:"message"`
	} `json:"edit"`
}

type reply struct {
	ID    string `json:"id"`
	Title string `json:"title"`
}

type media struct {
	Caption  string `json:"caption"`
	Filename string `json:"filename"`
}

// messageTypes fills in what a message says, by its type. A type that is not
// here, or whose object is missing, stays InboundOther under its own name.
var messageTypes = map[string]func(*message, *conversations.Inbound){
	"text": func(m *message, in *conversations.Inbound) {
		if m.Text != nil {
			in.Kind, in.MediaType, in.Text = conversations.InboundText, "", m.Text.Body
		}
	},
	"button": func(m *message, in *conversations.Inbound) { // a quick reply of a template
		if m.Button != nil {
			press(in, m.Button.Payload, m.Button.Text)
		}
	},
	"interactive": func(m *message, in *conversations.Inbound) { // a reply button or list of a session message
		switch i := m.Interactive; {
		case i == nil:
		case i.Type == "button_reply" && i.ButtonReply != nil:
			press(in, i.ButtonReply.ID, i.ButtonReply.Title)
		case i.Type == "list_reply" && i.ListReply != nil:
			press(in, i.ListReply.ID, i.ListReply.Title)
		case i.Type == "nfm_reply" && i.FlowReply != nil: // the answers to a flow
			in.MediaType, in.Text = "nfm_reply", flowAnswers(string(i.FlowReply.Response), string(i.FlowReply.Body))
		default: // call_permission_reply, confirmations of payments and kinds to come
			in.MediaType = providers.Word(i.Type)
		}
	},
	"image":    func(m *message, in *conversations.Inbound) { m.Image.fill(in) },
	"video":    func(m *message, in *conversations.Inbound) { m.Video.fill(in) },
	"audio":    func(m *message, in *conversations.Inbound) { m.Audio.fill(in) },
	"voice":    func(m *message, in *conversations.Inbound) { m.Voice.fill(in) }, // audio, in old payloads
	"document": func(m *message, in *conversations.Inbound) { m.Document.fill(in) },
	"sticker":  func(m *message, in *conversations.Inbound) { m.Sticker.fill(in) },
	"location": func(m *message, in *conversations.Inbound) {
		if m.Location != nil {
			in.Text = strings.Trim(m.Location.Name+", "+m.Location.Address, ", ")
			if in.Text == "" { // a bare pin
				in.Text = strings.Trim(string(m.Location.Latitude+", "+m.Location.Longitude), ", ")
			}
		}
	},
	"contacts": func(m *message, in *conversations.Inbound) { // Meta's word for cards; see sharedPhone
		var names []string
		for _, c := range m.Contacts.Value {
			if c.Name.Formatted != "" {
				names = append(names, string(c.Name.Formatted))
			}
		}
		in.Text = strings.Join(names, ", ")
	},
	"reaction": func(m *message, in *conversations.Inbound) { // no emoji: a reaction was taken back
		if m.Reaction != nil {
			in.Text = m.Reaction.Emoji
		}
	},
	"order": func(m *message, in *conversations.Inbound) { // from the catalogue; not an order to pay
		if m.Order != nil {
			in.Text = m.Order.Text
		}
	},
	"system": func(m *message, in *conversations.Inbound) { m.system(in) },
	"edit": func(m *message, in *conversations.Inbound) { // not text: it must not be acted upon twice
		if m.Edit != nil {
			in.Text = m.Edit.Message.Text.Body
		}
	},
	"revoke":          func(*message, *conversations.Inbound) {},
	"unsupported":     func(*message, *conversations.Inbound) {}, // polls, view-once and the like; errors[] says so
	"request_welcome": func(*message, *conversations.Inbound) {},
	"unknown":         func(*message, *conversations.Inbound) {},
}

// press reports a pressed button. One without a payload means what it says.
func press(in *conversations.Inbound, payload, label string) {
	if payload == "" {
		payload = label
	}
	in.Kind, in.MediaType, in.Button, in.Text = conversations.InboundButton, "", payload, label
}

func (d *media) fill(in *conversations.Inbound) {
	in.Kind = conversations.InboundMedia
	if d == nil {
		return
	}
	if in.Text = d.Caption; in.Text == "" {
		in.Text = d.Filename
	}
}

// system reads a message that WhatsApp itself writes: the customer has another
// number or user id, or another device with new keys.
func (m *message) system(in *conversations.Inbound) {
	if m.System == nil {
		return
	}
	s := m.System
	var previous []conversations.Address
	switch s.Type {
	case "user_changed_number", "customer_changed_number": // from holds the old number
		previous = addresses(m.From)
	case "user_changed_user_id":
		previous = addresses(s.PreviousUserID)
		if len(previous) == 0 {
			previous = addresses(s.PreviousParentUserID)
		}
	case "customer_identity_changed":
		// Sends to this customer are refused (137000) until somebody is sure that
		// it is still the same person.
		in.Kind, in.MediaType = conversations.InboundIdentity, ""
		return
	default: // kinds to come
		in.MediaType = providers.Word(s.Type)
		return
	}
	in.MediaType = providers.Word(s.Type)
	if now := addresses(s.WaID, s.UserID, s.ParentUserID); len(now) > 0 && len(previous) > 0 {
		in.Kind, in.MediaType = conversations.InboundAddress, ""
		in.Addresses, in.Previous = now, previous[0]
	}
}

// sharedContact is a card that the customer sent.
type sharedContact struct {
	Name struct {
		Formatted providers.Loose `json:"formatted_name"`
	} `json:"name"`
	Phones []struct {
		Phone providers.Loose `json:"phone"`
		WaID  providers.Loose `json:"wa_id"`
	} `json:"phones"`
	Origin providers.Loose `json:"origin"`
}

// sharedPhone returns the customer's own number when they answered a request
// for it. A card that they sent by themselves may be anybody's.
func (m *message) sharedPhone() providers.Loose {
	if m.Type != "contacts" {
		return ""
	}
	for _, c := range m.Contacts.Value {
		if m.Origin != contactRequest && c.Origin != contactRequest {
			continue
		}
		for _, p := range c.Phones {
			for _, number := range []providers.Loose{p.Phone, p.WaID} {
				if _, ok := providers.Phone(string(number)); ok {
					return number
				}
			}
		}
	}
	return ""
}

// contactRequest is the origin of a card that answers a request for the
// customer's number. It has been documented beside the cards and in each.
const contactRequest = "contact_request"

// flowAnswers writes down what a customer filled into a flow, a line for each
// field, in the order of their names. The token is ours and says nothing. What
// is not an object of simple values is told by what Meta wrote beside it.
func flowAnswers(response, beside string) string {
	fields, err := providers.Object([]byte(response))
	if err != nil {
		return beside
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if v := text(fields[name]); v != "" && name != "flow_token" {
			lines = append(lines, name+": "+v)
		}
	}
	if len(lines) == 0 {
		return beside
	}
	return strings.Join(lines, "\n")
}

// message reports one inbound message. A card with the customer's own number
// is two reports: a message in the conversation, and a further address.
func (b *batch) message(sender string, people contacts, m *message) {
	who := people.of(m.From, m.FromUserID)
	in := conversations.Inbound{
		Kind:       conversations.InboundOther,
		SenderID:   sender,
		ProviderID: m.ID,
		Addresses:  addresses(m.From, m.FromUserID, m.FromParentUserID, who.WaID, who.UserID, who.ParentUserID),
		Name:       strings.TrimSpace(providers.Text(who.Profile.Name, maxName)),
		At:         b.time(m.Timestamp),
		MediaType:  providers.Word(m.Type),
	}
	if m.GroupID != "" { // said to a group, not to us
		in.Kind, in.MediaType = conversations.InboundAccount, "group_message"
		b.add(in)
		return
	}
	if fill := messageTypes[m.Type]; fill != nil {
		fill(m, &in)
	}
	in.Text = providers.Text(in.Text, maxText)
	in.Button = providers.Text(in.Button, maxText)
	if len(m.Errors.Value) > 0 && in.Kind == conversations.InboundOther {
		in.ErrorCode = code(m.Errors.Value[0].Code)
	}
	b.add(in)
	b.shared(&in, m)
}

// shared reports the number that a customer shared whom we knew by nothing but
// a user id.
func (b *batch) shared(in *conversations.Inbound, m *message) {
	number := m.sharedPhone()
	if number == "" || len(in.Addresses) == 0 || in.Addresses[0].Kind == conversations.AddressPhone {
		return
	}
	ids := []providers.Loose{number}
	for _, a := range in.Addresses {
		ids = append(ids, providers.Loose(a.Value))
	}
	b.add(conversations.Inbound{
		Kind: conversations.InboundAddress, SenderID: in.SenderID, ProviderID: in.ProviderID,
		Addresses: addresses(ids...), Name: in.Name, At: in.At,
	})
}

// deliveryStatuses are the words of statuses[].status. Read implies delivered:
// Meta skips delivered when the customer is looking at the chat.
var deliveryStatuses = map[string]conversations.DeliveryStatus{
	"sent":      conversations.DeliverySent,      // left Meta's servers
	"delivered": conversations.DeliveryDelivered, // on a device
	"read":      conversations.DeliveryRead,      // shown in an open chat
	"played":    conversations.DeliveryRead,      // a voice message, played for the first time
	"failed":    conversations.DeliveryFailed,    // errors[] says why
	"deleted":   conversations.DeliveryUnknown,   // by the customer, in old payloads: changes nothing
	"warning":   conversations.DeliveryUnknown,   // a catalogue's problem, in old payloads: changes nothing
}

// status is one element of statuses[].
type status struct {
	ID                    string          `json:"id"`
	Status                string          `json:"status"`
	Type                  string          `json:"type"`
	Timestamp             providers.Loose `json:"timestamp"`
	RecipientType         string          `json:"recipient_type"`
	RecipientID           providers.Loose `json:"recipient_id"`
	RecipientUserID       providers.Loose `json:"recipient_user_id"`
	RecipientParentUserID providers.Loose `json:"recipient_parent_user_id"`
	Correlation           providers.Loose `json:"biz_opaque_callback_data"`
	ParticipantID         providers.Loose `json:"recipient_participant_id"` // of a group

	Errors  lenient[[]graphError] `json:"errors"`
	Pricing lenient[*pricing]     `json:"pricing"`
	Payment json.RawMessage       `json:"payment"`
}

// pricing is what Meta tells of a message's price: on sent and on one of
// delivered and read, or on only one of them. It names no amount.
type pricing struct {
	Billable lenient[*bool]  `json:"billable"` // announced for removal
	Type     providers.Loose `json:"type"`
	Category providers.Loose `json:"category"`
}

// cost is nil when nothing was told. The type says what is charged, and
// billable only where there is no type. A category is spelt with dashes and
// with underscores; here it is underscores.
func (p *pricing) cost() *conversations.Cost {
	if p == nil || p.Type == "" && p.Category == "" && p.Billable.Value == nil {
		return nil
	}
	c := &conversations.Cost{}
	if p.Category != "" {
		c.Category = strings.ReplaceAll(providers.Word(string(p.Category)), "-", "_")
	}
	if p.Type != "" {
		c.Type = providers.Word(string(p.Type))
		c.Free = strings.HasPrefix(c.Type, "free_")
	} else if p.Billable.Value != nil {
		c.Free = !*p.Billable.Value
	}
	return c
}

// graphError has the one member that all its shapes agree on.
type graphError struct {
	Code providers.Loose `json:"code"`
}

// status reports what became of one message of ours. A word that is not known
// has no Status; MediaType keeps it for the log.
func (b *batch) status(sender string, s *status) {
	in := conversations.Inbound{
		Kind:        conversations.InboundStatus,
		SenderID:    sender,
		ProviderID:  s.ID,
		Addresses:   addresses(s.RecipientID, s.RecipientUserID, s.RecipientParentUserID),
		Correlation: providers.Correlation(string(s.Correlation)),
		At:          b.time(s.Timestamp),
		Status:      deliveryStatuses[s.Status],
		Cost:        s.Pricing.Value.cost(),
	}
	switch {
	case s.Type == "payment" || len(s.Payment) > 0 && string(s.Payment) != "null": // of payments inside WhatsApp, which are not ours
		in.Kind, in.MediaType, in.Text, in.Status = conversations.InboundAccount, "payment_status", providers.Word(s.Status), conversations.DeliveryUnknown
	case s.RecipientType == "group" || s.ParticipantID != "":
		in.Kind, in.MediaType, in.Text, in.Status = conversations.InboundAccount, "group_status", providers.Word(s.Status), conversations.DeliveryUnknown
	case in.Status == conversations.DeliveryUnknown:
		in.MediaType = providers.Word(s.Status)
	case in.Status == conversations.DeliveryFailed:
		in.Reason = conversations.FailureUnknown
		if len(s.Errors.Value) > 0 {
			why, _ := lookUp(s.Errors.Value[0].Code)
			why.Report(&in)
			in.ErrorCode = code(s.Errors.Value[0].Code)
		}
	}
	b.add(in)
}

// time reads Unix seconds, or milliseconds when there are more than ten
// digits. What cannot be read, and what lies in the future, is the time of
// receipt.
func (b *batch) time(l providers.Loose) time.Time {
	t, ok := moment(string(l))
	if !ok {
		return b.receivedAt
	}
	return providers.NotAfter(t, b.receivedAt)
}

// moment reads Unix seconds or, when there are more than ten digits,
// milliseconds.
func moment(s string) (time.Time, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil, n <= 0:
		return time.Time{}, false
	case n > 9_999_999_999:
		return time.UnixMilli(n).UTC(), true
	}
	return time.Unix(n, 0).UTC(), true
}
