package meta

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// A webhook is read in one of two ways. Nearly all hold nothing but messages
// and statuses and nothing odd: those are decoded whole, in one go. Everything
// else is taken apart layer by layer, so that what cannot be read spoils
// nothing but itself: slower by far, and right for every body there is. The
// same choice is made once more for each entry of a body that is taken apart,
// so that one bad element does not make a large batch slow. Both ways give the
// same reports wherever the first gives any; the fuzz tests hold them against
// each other.

// wholeBody is a webhook decoded in one go. Elements that are objects to the
// layered way are pointers here: it counts a null, and so must not be skipped.
type wholeBody struct {
	Object providers.Loose `json:"object"`
	Entry  []*wholeEntry   `json:"entry"`
}

type wholeEntry struct {
	ID      providers.Loose `json:"id"`
	Changes []*wholeChange  `json:"changes"`
}

type wholeChange struct {
	Field providers.Loose `json:"field"`
	Value *wholeValue     `json:"value"`
}

type wholeValue struct {
	Metadata *struct {
		PhoneNumberID providers.Loose `json:"phone_number_id"`
	} `json:"metadata"`
	Contacts contacts          `json:"contacts"`
	Messages []message         `json:"messages"`
	Statuses []status          `json:"statuses"`
	Errors   []json.RawMessage `json:"errors"`
}

// decodeWhole reads a body in one go. It is false for a body that only the
// layered way can do justice: one that is odd anywhere, and one that holds
// anything but messages and statuses.
func decodeWhole(raw []byte) (*wholeBody, bool) {
	if !plain(raw) {
		return nil, false
	}
	var body wholeBody
	if json.Unmarshal(raw, &body) != nil || body.Object != businessAccount {
		return nil, false
	}
	for _, e := range body.Entry {
		if !e.simple() {
			return nil, false
		}
	}
	return &body, true
}

// decodeEntry does the same with one entry.
func decodeEntry(raw []byte) (*wholeEntry, bool) {
	if !plain(raw) {
		return nil, false
	}
	var e *wholeEntry
	if json.Unmarshal(raw, &e) != nil || !e.simple() {
		return nil, false
	}
	return e, true
}

func (e *wholeEntry) simple() bool {
	if e == nil || len(e.Changes) > maxElements {
		return false
	}
	for _, c := range e.Changes {
		if c == nil || c.Field != "messages" || !c.Value.simple() {
			return false
		}
	}
	return true
}

// simple tells whether a value has only what is read in one go. What errors
// and a value without metadata mean is for the layered way.
func (v *wholeValue) simple() bool {
	return v != nil && v.Metadata != nil && len(v.Errors) == 0 &&
		max(len(v.Contacts), len(v.Messages), len(v.Statuses)) <= maxElements
}

func (b *batch) whole(body *wholeBody) {
	for _, e := range body.Entry {
		b.wholeEntry(e)
	}
}

func (b *batch) wholeEntry(e *wholeEntry) {
	for _, c := range e.Changes {
		sender := b.p.senderOf(string(c.Value.Metadata.PhoneNumberID))
		for i := range c.Value.Messages {
			b.message(sender, c.Value.Contacts, &c.Value.Messages[i])
		}
		for i := range c.Value.Statuses {
			b.status(sender, &c.Value.Statuses[i])
		}
	}
}

// The most that a plain body has: of levels, and of names in the objects that
// are open at one time. Real ones stay far below both.
const (
	plainDepth = 32
	plainNames = 128
)

// plain tells whether a body, if it is JSON at all, has nothing in it that two
// readers could read differently, nor anything that is not decoded in one go:
// it is UTF-8, nested no deeper than any webhook is, and every name in it is of
// lower-case letters, digits and _, and comes once in its object. encoding/json
// folds the case of names and lets the last of two win; with such names it does
// neither.
func plain(raw []byte) bool {
	if !utf8.Valid(raw) {
		return false
	}
	var (
		names [plainNames][]byte // of the objects that are open, outermost first
		count int
		first [plainDepth]int // where in names the object of a level begins; -1 for an array
		depth int
		name  bool // a string that comes now is a name
	)
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '{', '[':
			if depth == plainDepth {
				return false
			}
			first[depth], name = -1, false
			if raw[i] == '{' {
				first[depth], name = count, true
			}
			depth++
		case '}', ']':
			if depth == 0 {
				return false
			}
			depth--
			if first[depth] >= 0 {
				count = first[depth]
			}
			name = false
		case ',':
			name = depth > 0 && first[depth-1] >= 0
		case ':':
			name = false
		case '"':
			end := stringEnd(raw, i+1)
			if end < 0 {
				return false
			}
			if name {
				word := raw[i+1 : end]
				if count == plainNames || !plainName(word) {
					return false
				}
				for _, before := range names[first[depth-1]:count] {
					if bytes.Equal(before, word) {
						return false
					}
				}
				names[count] = word
				count++
			}
			i = end
		}
	}
	return true
}

// stringEnd returns where the quote is that ends the string whose text begins
// at from, or -1.
func stringEnd(raw []byte, from int) int {
	for at := from; ; at++ {
		quote := bytes.IndexByte(raw[at:], '"')
		if quote < 0 {
			return -1
		}
		at += quote
		slashes := 0
		for at-slashes > from && raw[at-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return at
		}
	}
}

func plainName(word []byte) bool {
	for _, c := range word {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// layered takes a body apart and hands each of its entries to entry. The error
// has ErrUnreadable in its chain, and only comes when nothing can be read.
func (b *batch) layered(body []byte, entry func(json.RawMessage)) error {
	envelope, err := providers.Object(body)
	if err != nil {
		return fmt.Errorf("parse envelope: %w: %w", providers.ErrUnreadable, err)
	}
	if object := text(envelope["object"]); object != businessAccount {
		// Another of the app's subscriptions came to this address.
		b.aside(b.p.senderID, "unknown_object", object, string(body))
		return nil
	}
	entries, err := providers.List(envelope["entry"])
	if err != nil {
		return fmt.Errorf("parse entries: %w: %w", providers.ErrUnreadable, err)
	}
	for _, raw := range entries {
		entry(raw)
	}
	return nil
}

// eitherWay reads an entry in one go, or else layer by layer.
func (b *batch) eitherWay(raw json.RawMessage) {
	if e, ok := decodeEntry(raw); ok {
		b.wholeEntry(e)
		return
	}
	b.entry(raw)
}

// aside reports something that nothing is done with, so that it is counted.
func (b *batch) aside(sender, what, said, raw string) {
	b.add(conversations.Inbound{
		Kind: conversations.InboundAccount, SenderID: sender, MediaType: what, Text: word(said),
		ProviderID: providers.Digest(what, raw), At: b.receivedAt,
	})
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

// entry takes an entry apart layer by layer.
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

// leftOut are fields that are known and never a customer's words to us: what
// the merchant wrote in the phone app, and what that app brought along. They
// are counted under their own names.
var leftOut = map[string]bool{
	"smb_message_echoes":                 true,
	"message_echoes":                     true,
	"history":                            true,
	"smb_app_state_sync":                 true,
	"calls":                              true,
	"flows":                              true,
	"automatic_events":                   true,
	"tracking_events":                    true,
	"partner_solutions":                  true,
	"account_settings_update":            true,
	"message_template_components_update": true,
}

// change reads one change.
func (b *batch) change(waba, at, field string, raw json.RawMessage) {
	read, isNotice := notices[field]
	value, err := providers.Object(raw)
	sender := b.sender(waba, value["metadata"])
	switch {
	case leftOut[field]:
		b.aside(sender, field, "", string(raw))
		return
	case !isNotice && field != "messages" && field != "user_preferences" && field != "user_id_update":
		b.aside(sender, "unknown_field", field, string(raw))
		return
	case err != nil:
		b.malformed(err)
		return
	}
	switch {
	case field == "messages":
		b.messages(sender, value)
	case field == "user_preferences":
		b.each(value["user_preferences"], func(raw json.RawMessage) { b.preference(sender, waba, raw) })
	case field == "user_id_update":
		b.each(value["user_id_update"], func(raw json.RawMessage) { b.userIDUpdate(sender, waba, raw) })
	default:
		b.notice(sender, field, waba, at, raw, value, read)
	}
}

// sender returns which of the merchant's senders a change is for, or "". What
// concerns a whole account is the sender's whose webhook it came to, if the
// account is its own.
func (b *batch) sender(waba string, metadata json.RawMessage) string {
	if len(metadata) > 0 {
		if m, err := providers.Object(metadata); err == nil {
			return b.p.senderOf(text(m["phone_number_id"]))
		}
		return ""
	}
	if b.p.wabaID != "" && b.p.wabaID != waba {
		return ""
	}
	return b.p.senderID
}

// senderOf returns the sender that has a number, or "".
func (p *Provider) senderOf(numberID string) string {
	if numberID == p.numberID {
		return p.senderID
	}
	return p.siblings[numberID]
}

// messages reads the value of the field "messages".
func (b *batch) messages(sender string, value map[string]json.RawMessage) {
	var people contacts
	b.each(value["contacts"], func(raw json.RawMessage) {
		var c contact
		if err := decode(raw, &c); err != nil {
			b.malformed(err)
			return
		}
		people = append(people, c)
	})
	b.each(value["messages"], func(raw json.RawMessage) {
		var m message
		if err := decode(raw, &m); err != nil {
			b.malformed(err)
			return
		}
		b.message(sender, people, &m)
	})
	b.each(value["statuses"], func(raw json.RawMessage) {
		var s status
		if err := decode(raw, &s); err != nil {
			b.malformed(err)
			return
		}
		b.status(sender, &s)
	})
	b.each(value["errors"], func(raw json.RawMessage) {
		var e graphError
		if err := decode(raw, &e); err != nil {
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

// decode reads a value that was found sound, as providers.Decode does, and does
// so in one go if the value is plain.
func decode(raw []byte, v any) error {
	if !plain(raw) {
		return providers.Decode(raw, v)
	}
	if json.Unmarshal(raw, v) != nil {
		return providers.ErrShape
	}
	return nil
}

// text reads a string member; anything else is "".
func text(raw json.RawMessage) string {
	var s providers.Loose
	_ = s.UnmarshalJSON(raw) // it never fails, what cannot be read is ""
	return string(s)
}

// lenient is a member that is good to have and must not spoil its element when
// it is of another type than documented: it is then empty.
type lenient[T any] struct{ Value T }

// UnmarshalJSON takes anything.
func (l *lenient[T]) UnmarshalJSON(raw []byte) error {
	var v T
	if json.Unmarshal(raw, &v) == nil {
		l.Value = v
	}
	return nil
}
