package meta

import (
	"encoding/json"
	"fmt"
	"regexp"
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

// Parse reads one delivery: up to 1,000 updates of several accounts and
// numbers in one body. Each change goes to the sender that has the number in
// its metadata. Objects and fields that are not known give nothing.
func (p *Provider) Parse(w providers.Webhook) ([]conversations.Inbound, error) {
	envelope, err := providers.Object(w.Body)
	if err != nil {
		return nil, fmt.Errorf("parse envelope: %w: %w", providers.ErrUnreadable, err)
	}
	if text(envelope["object"]) != "whatsapp_business_account" {
		return nil, nil
	}
	entries, err := providers.List(envelope["entry"])
	if err != nil {
		return nil, fmt.Errorf("parse entries: %w: %w", providers.ErrUnreadable, err)
	}

	b := &batch{p: p, receivedAt: w.ReceivedAt.UTC()}
	for _, raw := range entries {
		b.entry(raw)
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
	p          *Provider
	receivedAt time.Time
	out        []conversations.Inbound
	bad        int // elements left out
	firstErr   error
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
	case in.Kind != conversations.InboundAccount && len(in.Addresses) == 0:
		b.malformed(providers.ErrShape) // nobody's
	default:
		b.out = append(b.out, in)
	}
}

// each calls do with every element of a list, and counts a list that is none.
// Elements beyond any documented batch are left out, and counted as one.
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

func (b *batch) entry(raw json.RawMessage) {
	entry, err := providers.Object(raw)
	if err != nil {
		b.malformed(err)
		return
	}
	waba, at := text(entry["id"]), text(entry["time"])
	b.each(entry["changes"], func(raw json.RawMessage) {
		change, err := providers.Object(raw)
		if err != nil {
			b.malformed(err)
			return
		}
		b.change(waba, at, text(change["field"]), change["value"])
	})
}

// accountFields are the fields that tell of the account, the number or its
// templates: for the people who run the sender, not for a conversation.
var accountFields = map[string]bool{
	"account_alerts":                  true,
	"account_review_update":           true,
	"account_update":                  true, // restrictions, bans
	"business_capability_update":      true, // messaging limits
	"business_username_updates":       true,
	"message_template_quality_update": true,
	"message_template_status_update":  true, // paused, disabled, rejected
	"payment_configuration_update":    true,
	"phone_number_name_update":        true,
	"phone_number_quality_update":     true,
	"security":                        true,
	"template_category_update":        true,
}

// change reads one change. smb_message_echoes (what the merchant wrote in the
// phone app), history and smb_app_state_sync are left out like unknown fields:
// they are never a customer's words.
func (b *batch) change(waba, at, field string, raw json.RawMessage) {
	handled := field == "messages" || field == "user_preferences" || field == "user_id_update" || accountFields[field]
	if !handled {
		return
	}
	value, err := providers.Object(raw)
	if err != nil {
		b.malformed(err)
		return
	}
	sender := b.sender(waba, value["metadata"])
	switch field {
	case "messages":
		b.messages(sender, value)
	case "user_preferences":
		b.each(value["user_preferences"], func(raw json.RawMessage) { b.preference(sender, waba, raw) })
	case "user_id_update":
		b.each(value["user_id_update"], func(raw json.RawMessage) { b.userIDUpdate(sender, waba, raw) })
	default:
		b.account(sender, field, waba, at, raw, providers.Word(text(value["event"])))
	}
}

// sender returns which of the merchant's senders a change is for, or "". What
// concerns a whole account is the sender's whose webhook it came to, if the
// account is its own.
func (b *batch) sender(waba string, metadata json.RawMessage) string {
	if len(metadata) > 0 {
		if m, err := providers.Object(metadata); err == nil {
			number := text(m["phone_number_id"])
			if number == b.p.numberID {
				return b.p.senderID
			}
			return b.p.siblings[number]
		}
		return ""
	}
	if b.p.wabaID != "" && b.p.wabaID != waba {
		return ""
	}
	return b.p.senderID
}

// account reports something that is only counted and logged; Text is Meta's
// own word for the event.
func (b *batch) account(sender, field, waba, at string, raw json.RawMessage, word string) {
	b.add(conversations.Inbound{
		Kind: conversations.InboundAccount, SenderID: sender, MediaType: field, Text: word,
		ProviderID: providers.Digest(field, waba, at, string(raw)), At: b.time(providers.Loose(at)),
	})
}

// messages reads the value of the field "messages".
func (b *batch) messages(sender string, value map[string]json.RawMessage) {
	var people contacts
	b.each(value["contacts"], func(raw json.RawMessage) {
		var c contact
		if err := providers.Decode(raw, &c); err != nil {
			b.malformed(err)
			return
		}
		people = append(people, c)
	})
	b.each(value["messages"], func(raw json.RawMessage) {
		var m message
		if err := providers.Decode(raw, &m); err != nil {
			b.malformed(err)
			return
		}
		b.add(b.message(sender, people, &m))
	})
	b.each(value["statuses"], func(raw json.RawMessage) {
		var s status
		if err := providers.Decode(raw, &s); err != nil {
			b.malformed(err)
			return
		}
		b.status(sender, &s)
	})
	b.each(value["errors"], func(raw json.RawMessage) {
		var e graphError
		if err := providers.Decode(raw, &e); err != nil {
			b.malformed(err)
			return
		}
		why, _ := lookUp(e.Code)
		b.add(conversations.Inbound{
			Kind: conversations.InboundAccount, SenderID: sender, MediaType: "errors",
			ProviderID: providers.Digest("errors", sender, string(raw)), At: b.receivedAt,
			Reason: why.Reason, ErrorCode: code(e.Code),
		})
	})
}

// text reads a string member; anything else is "".
func text(raw json.RawMessage) string {
	var s providers.Loose
	_ = s.UnmarshalJSON(raw) // it never fails, what cannot be read is ""
	return string(s)
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
	for _, c := range cs {
		if waID != "" && c.WaID == waID || userID != "" && c.UserID == userID {
			return c
		}
	}
	return contact{}
}

// addresses returns the addresses among the identifiers, each kind once, in
// the order phone, user, parent user. Either identifier may stand in a place
// where the other is documented.
func addresses(ids ...providers.Loose) []conversations.Address {
	found := map[conversations.AddressKind]string{}
	for _, id := range ids {
		if a, ok := address(string(id)); ok && found[a.Kind] == "" {
			found[a.Kind] = a.Value
		}
	}
	var as []conversations.Address
	for _, kind := range []conversations.AddressKind{conversations.AddressPhone, conversations.AddressUser, conversations.AddressParentUser} {
		if v := found[kind]; v != "" {
			as = append(as, conversations.Address{Kind: kind, Value: v})
		}
	}
	return as
}

func address(id string) (conversations.Address, bool) {
	switch {
	case parentUserID.MatchString(id) && userID.MatchString(id):
		return conversations.Address{Kind: conversations.AddressParentUser, Value: id}, true
	case userID.MatchString(id):
		return conversations.Address{Kind: conversations.AddressUser, Value: id}, true
	}
	return providers.Phone(id)
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
	} `json:"interactive"`
	Image    *media `json:"image"`
	Video    *media `json:"video"`
	Audio    *media `json:"audio"`
	Voice    *media `json:"voice"`
	Document *media `json:"document"`
	Sticker  *media `json:"sticker"`
	Location *struct {
		Name    string `json:"name"`
		Address string `json:"address"`
	} `json:"location"`
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
		default: // nfm_reply (a flow), call_permission_reply and kinds to come
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
		}
	},
	"contacts": func(*message, *conversations.Inbound) {},
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
	"unsupported":     func(*message, *conversations.Inbound) {}, // polls, view-once and the like
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
	default: // customer_identity_changed and kinds to come
		in.MediaType = providers.Word(s.Type)
		return
	}
	in.MediaType = providers.Word(s.Type)
	if now := addresses(s.WaID, s.UserID, s.ParentUserID); len(now) > 0 && len(previous) > 0 {
		in.Kind, in.MediaType = conversations.InboundAddress, ""
		in.Addresses, in.Previous = now, previous[0]
	}
}

// message returns what one inbound message reports.
func (b *batch) message(sender string, people contacts, m *message) conversations.Inbound {
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
		return in
	}
	if fill := messageTypes[m.Type]; fill != nil {
		fill(m, &in)
	}
	in.Text = providers.Text(in.Text, maxText)
	in.Button = providers.Text(in.Button, maxText)
	return in
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
	Errors                []graphError    `json:"errors"`
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
	}
	switch {
	case s.Type == "payment": // of payments inside WhatsApp, which are not ours
		in.Kind, in.MediaType, in.Status = conversations.InboundAccount, "payment_status", conversations.DeliveryUnknown
	case s.RecipientType == "group":
		in.Kind, in.MediaType, in.Status = conversations.InboundAccount, "group_status", conversations.DeliveryUnknown
	case in.Status == conversations.DeliveryUnknown:
		in.MediaType = providers.Word(s.Status)
	case in.Status == conversations.DeliveryFailed:
		in.Reason = conversations.FailureUnknown
		if len(s.Errors) > 0 {
			why, _ := lookUp(s.Errors[0].Code)
			in.Reason, in.ErrorCode = why.Reason, code(s.Errors[0].Code)
		}
	}
	if len(in.Addresses) == 0 && in.Correlation != "" && in.ProviderID != "" && len(in.ProviderID) <= maxID {
		b.out = append(b.out, in) // the correlation value alone leads to the contact
		return
	}
	b.add(in)
}

// preference reads one element of user_preferences: what the customer chose in
// WhatsApp's own menu. Only the choice to stop, and to resume after it, are
// taken as consent: signing up to marketing takes no opt-out back.
func (b *batch) preference(sender, waba string, raw json.RawMessage) {
	var u struct {
		WaID      providers.Loose `json:"wa_id"`
		UserID    providers.Loose `json:"user_id"`
		Value     string          `json:"value"`
		Timestamp providers.Loose `json:"timestamp"`
	}
	if err := providers.Decode(raw, &u); err != nil {
		b.malformed(err)
		return
	}
	consent := map[string]conversations.Consent{
		"stop":   conversations.ConsentOptedOut,
		"resume": conversations.ConsentOptedIn,
	}[u.Value]
	if consent == "" {
		b.account(sender, "user_preferences", waba, string(u.Timestamp), raw, providers.Word(u.Value))
		return
	}
	b.add(conversations.Inbound{
		Kind: conversations.InboundConsent, SenderID: sender, Consent: consent, At: b.time(u.Timestamp),
		ProviderID: providers.Digest("user_preferences", waba, string(u.WaID), string(u.UserID), u.Value, string(u.Timestamp)),
		Addresses:  addresses(u.WaID, u.UserID),
	})
}

// userIDUpdate reads one element of user_id_update: the customer changed the
// phone number and so got another user id.
func (b *batch) userIDUpdate(sender, waba string, raw json.RawMessage) {
	type change struct {
		Previous providers.Loose `json:"previous"`
		Current  providers.Loose `json:"current"`
	}
	var u struct {
		WaID         providers.Loose `json:"wa_id"`
		UserID       change          `json:"user_id"`
		ParentUserID change          `json:"parent_user_id"`
		Timestamp    providers.Loose `json:"timestamp"`
	}
	if err := providers.Decode(raw, &u); err != nil {
		b.malformed(err)
		return
	}
	in := conversations.Inbound{
		Kind: conversations.InboundAddress, SenderID: sender, At: b.time(u.Timestamp),
		ProviderID: providers.Digest("user_id_update", waba, string(u.UserID.Previous), string(u.UserID.Current), string(u.ParentUserID.Previous), string(u.ParentUserID.Current), string(u.Timestamp)),
		Addresses:  addresses(u.WaID, u.UserID.Current, u.ParentUserID.Current),
	}
	if previous := addresses(u.UserID.Previous, u.ParentUserID.Previous); len(previous) > 0 {
		in.Previous = previous[0]
	}
	b.add(in)
}

// time reads Unix seconds, or milliseconds when there are more than ten
// digits. What cannot be read, and what lies in the future, is the time of
// receipt.
func (b *batch) time(l providers.Loose) time.Time {
	n, err := strconv.ParseInt(string(l), 10, 64)
	if err != nil || n <= 0 {
		return b.receivedAt
	}
	t := time.Unix(n, 0)
	if n > 9_999_999_999 {
		t = time.UnixMilli(n)
	}
	return providers.NotAfter(t, b.receivedAt)
}
