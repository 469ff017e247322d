package simulator

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nyaruka/phonenumbers"

	"paythread/simulator/clickatell"
	"paythread/simulator/meta"
	"paythread/simulator/twilio"
)

// WhatsApp and SMS are the channels of a phone.
const (
	WhatsApp = "whatsapp"
	SMS      = "sms"
)

// Received and Sent are the directions of a message, as the phone's owner sees
// them.
const (
	Received = "received"
	Sent     = "sent"
)

// mostMessages is how many messages a phone keeps; the oldest go first.
const mostMessages = 1000

// typingFor is how long typing dots stay without an answer.
const typingFor = 25 * time.Second

// Message is one message on a customer's phone.
type Message struct {
	ID        string    `json:"id"`
	Channel   string    `json:"channel"`
	Direction string    `json:"direction"` // Received or Sent
	From      string    `json:"from"`      // E.164
	To        string    `json:"to"`        // E.164
	Text      string    `json:"text"`
	Buttons   []Button  `json:"buttons"`
	Links     []string  `json:"links"` // from the text and the buttons, in order
	At        time.Time `json:"at"`
	// Status of a received message is delivered or read (by the customer); of a
	// sent one sent, delivered (the business took it) or read (it says so).
	Status string `json:"status"`

	template bool // its replies come back as a template's
}

// Button is a button below a message: a reply with an id, or a link with a URL.
type Button struct {
	ID    string `json:"id,omitempty"`
	Title string `json:"title"`
	URL   string `json:"url,omitempty"`
}

// Contact is a business that a phone can write to.
type Contact struct {
	Channel string `json:"channel"`
	Number  string `json:"number"` // E.164
	Name    string `json:"name"`
	Typing  bool   `json:"typing"`
	Blocked bool   `json:"blocked"`
}

// Account is how a phone appears on WhatsApp.
type Account struct {
	On         bool   // false: the number is not on WhatsApp
	Name       string // profile name
	Username   string
	HideNumber bool   // businesses see a user id instead of the number
	WaID       string // WhatsApp's own spelling of the number, digits; empty for the usual one
}

// InputError is a refused wish of a phone's owner. Field names the part of the
// request that is wrong; it is empty when the phone's state forbids it.
type InputError struct {
	Field  string
	Reason string
}

func (e *InputError) Error() string { return strings.TrimSpace(e.Field + " " + e.Reason) }

func wrong(field, format string, args ...any) *InputError {
	return &InputError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

var (
	phoneNumber = regexp.MustCompile(`^\+?([1-9]\d{6,14})$`)
	waIDForm    = regexp.MustCompile(`^[1-9]\d{6,14}$`)
	linkForm    = regexp.MustCompile(`https?://[^\s<>"]+`)
)

// ParseNumber returns a phone number as E.164; a missing + is added.
func ParseNumber(number string) (string, error) {
	m := phoneNumber.FindStringSubmatch(strings.TrimSpace(number))
	if m == nil {
		return "", wrong("e164", "must be a phone number with its country code, such as +16505551234")
	}
	return "+" + m[1], nil
}

// carrier is a messaging company, as a phone uses it.
type carrier interface {
	newID() string
	say(said said) error
	// read and reachable pass over what is not the carrier's.
	read(ids []string)
	reachable(e164 string)
}

// said is what the owner of a phone says, to whichever carrier.
type said struct {
	id, channel, from, to, text string

	button    *Button
	messageID string
	template  bool
}

// line is one business number on one channel.
type line struct {
	channel, number, name string
	carrier               carrier
}

// Phones are all customers' phones. Every number has one: it comes into being
// when first used, switched on and with WhatsApp. Methods take E.164 numbers and
// are safe for concurrent use.
type Phones struct {
	now      func() time.Time
	lines    []line
	carriers []carrier

	mu     sync.Mutex
	phones map[string]*phone
	waIDs  map[string]string // other spellings, to E.164
}

type phone struct {
	e164        string
	account     Account
	unreachable bool
	blocked     map[string]bool      // by channel
	lastFrom    map[string]string    // by channel: who wrote last
	typing      map[string]time.Time // by business: dots until then
	messages    []*Message
	changed     chan struct{} // closed at the next change
	version     int
}

func newPhones(now func() time.Time) *Phones {
	return &Phones{now: now, phones: make(map[string]*phone), waIDs: make(map[string]string)}
}

// get returns the phone, made on first use. The lock is held.
func (p *Phones) get(e164 string) *phone {
	if other, ok := p.waIDs[e164]; ok {
		e164 = other
	}
	ph := p.phones[e164]
	if ph == nil {
		ph = &phone{
			e164: e164, account: Account{On: true, Name: "Customer"}, changed: make(chan struct{}),
			blocked: make(map[string]bool), lastFrom: make(map[string]string), typing: make(map[string]time.Time),
		}
		p.phones[e164] = ph
	}
	return ph
}

// touch tells watchers that something changed. The lock is held.
func (ph *phone) touch() {
	ph.version++
	close(ph.changed)
	ph.changed = make(chan struct{})
}

// Numbers lists the phones used so far.
func (p *Phones) Numbers() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.phones))
}

// Messages returns what the phone has received and sent, newest last.
func (p *Phones) Messages(e164 string) []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	messages := []Message{}
	for _, m := range p.get(e164).messages {
		messages = append(messages, *m)
	}
	return messages
}

// Contacts returns the businesses that the phone can write to, with what it sees
// of them now.
func (p *Phones) Contacts(e164 string) []Contact {
	p.mu.Lock()
	defer p.mu.Unlock()
	ph, now := p.get(e164), p.now()
	contacts := []Contact{}
	for _, l := range p.lines {
		contacts = append(contacts, Contact{
			Channel: l.channel, Number: l.number, Name: l.name, Blocked: ph.blocked[l.channel],
			Typing: l.channel == WhatsApp && ph.typing[l.number].After(now),
		})
	}
	return contacts
}

// Unreachable says whether the phone is switched off.
func (p *Phones) Unreachable(e164 string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.get(e164).unreachable
}

// Changes returns a number that grows with every change of the phone, and a
// channel that is closed at the next one.
func (p *Phones) Changes(e164 string) (version int, next <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ph := p.get(e164)
	return ph.version, ph.changed
}

// Say sends a text from the phone. An empty business means the one that wrote
// last on the channel, or the only one there is. It returns the message's id.
func (p *Phones) Say(e164, channel, business, text string) (id string, err error) {
	if strings.TrimSpace(text) == "" {
		return "", wrong("text", "is missing")
	}
	if channel != WhatsApp && channel != SMS {
		return "", wrong("channel", "must be whatsapp or sms")
	}
	return p.send(e164, said{channel: channel, to: business, text: text})
}

// Press presses a reply button, named by its id or its title, on the message with
// that id, or on the newest that has it. An empty channel means any.
func (p *Phones) Press(e164, channel, button, messageID string) (id string, err error) {
	m, b, err := p.findButton(e164, channel, button, messageID)
	if err != nil {
		return "", err
	}
	return p.send(e164, said{channel: m.Channel, to: m.From, text: b.Title, button: &b, messageID: m.ID, template: m.template})
}

func (p *Phones) findButton(e164, channel, button, messageID string) (Message, Button, error) {
	messages := p.Messages(e164)
	found := false
	for _, m := range slices.Backward(messages) {
		if (messageID != "" && m.ID != messageID) || (channel != "" && m.Channel != channel) {
			continue
		}
		found = true
		for _, b := range m.Buttons {
			if b.ID != button && b.Title != button {
				continue
			}
			if b.URL != "" {
				return Message{}, Button{}, wrong("button", "is a link: open its url instead")
			}
			return m, b, nil
		}
	}
	if messageID != "" && !found {
		return Message{}, Button{}, wrong("messageId", "is no message on this phone and channel")
	}
	return Message{}, Button{}, wrong("button", "is on no message that the phone received")
}

// send puts a message on the phone and hands it to the carrier. The message is on
// the phone before the business can answer it.
func (p *Phones) send(e164 string, s said) (string, error) {
	p.mu.Lock()
	ph := p.get(e164)
	l, err := p.pickLine(ph, s.channel, s.to)
	switch {
	case err != nil:
	case ph.unreachable:
		err = wrong("", "the phone is switched off")
	case s.channel == WhatsApp && !ph.account.On:
		err = wrong("", "the phone has no WhatsApp")
	case s.channel == WhatsApp && ph.blocked[WhatsApp]:
		err = wrong("", "the phone has blocked businesses on WhatsApp")
	}
	if err != nil {
		p.mu.Unlock()
		return "", err
	}
	s.id, s.from, s.to = l.carrier.newID(), ph.e164, l.number
	m := &Message{ID: s.id, Channel: s.channel, Direction: Sent, From: ph.e164, To: l.number, Text: s.text,
		Buttons: []Button{}, Links: linksOf(s.text, nil), At: p.now().UTC(), Status: "sent"}
	ph.add(m)
	p.mu.Unlock()
	return s.id, l.carrier.say(s)
}

// pickLine finds the business number to write to. The lock is held.
func (p *Phones) pickLine(ph *phone, channel, business string) (line, error) {
	var candidates []line
	for _, l := range p.lines {
		if l.channel == channel {
			candidates = append(candidates, l)
		}
	}
	if len(candidates) == 0 {
		return line{}, wrong("channel", "has no business number here")
	}
	wanted := business
	if wanted == "" {
		wanted = ph.lastFrom[channel]
	} else if e164, err := ParseNumber(wanted); err == nil {
		wanted = e164
	}
	for _, l := range candidates {
		if l.number == wanted || (wanted == "" && len(candidates) == 1) {
			return l, nil
		}
	}
	if wanted == "" {
		return line{}, wrong("to", "is missing: several businesses have this channel and none has written yet")
	}
	return line{}, wrong("to", "is no business number on this channel")
}

// add puts a message on the phone. The lock is held.
func (ph *phone) add(m *Message) {
	if len(ph.messages) >= mostMessages {
		ph.messages = slices.Clone(ph.messages[len(ph.messages)-mostMessages+1:])
	}
	ph.messages = append(ph.messages, m)
	ph.touch()
}

// linksOf collects the links of a text and of its buttons. Punctuation that ends
// the sentence is not part of a link.
func linksOf(text string, buttons []Button) []string {
	links := []string{}
	for _, l := range linkForm.FindAllString(text, -1) {
		links = append(links, strings.TrimRight(l, ".,;:!?)]}'’”…"))
	}
	for _, b := range buttons {
		if b.URL != "" {
			links = append(links, b.URL)
		}
	}
	return links
}

// Read marks as read what the phone has received, and sends the receipts that
// WhatsApp sends. An empty channel or business means all.
func (p *Phones) Read(e164, channel, business string) error {
	if channel != "" && channel != WhatsApp && channel != SMS {
		return wrong("channel", "must be whatsapp or sms")
	}
	p.mu.Lock()
	ph := p.get(e164)
	if ph.unreachable {
		p.mu.Unlock()
		return wrong("", "the phone is switched off")
	}
	var ids []string
	for _, m := range ph.messages {
		unread := m.Direction == Received && m.Status != "read"
		if unread && (channel == "" || m.Channel == channel) && (business == "" || m.From == business) {
			m.Status = "read"
			ids = append(ids, m.ID)
		}
	}
	if len(ids) > 0 {
		ph.touch()
	}
	p.mu.Unlock()
	for _, c := range p.carriers {
		c.read(ids)
	}
	return nil
}

// Block makes the phone block, or unblock, all businesses on a channel.
func (p *Phones) Block(e164, channel string, on bool) error {
	if channel != WhatsApp && channel != SMS {
		return wrong("channel", "must be whatsapp or sms")
	}
	p.mu.Lock()
	ph := p.get(e164)
	ph.blocked[channel] = on
	ph.touch()
	p.mu.Unlock()
	p.wake(ph.e164)
	return nil
}

// SwitchOff makes the phone unreachable, or reachable again: then WhatsApp
// delivers what waited.
func (p *Phones) SwitchOff(e164 string, off bool) {
	p.mu.Lock()
	ph := p.get(e164)
	ph.unreachable = off
	ph.touch()
	p.mu.Unlock()
	p.wake(ph.e164)
}

// wake lets every carrier deliver what can be delivered now.
func (p *Phones) wake(e164 string) {
	for _, c := range p.carriers {
		c.reachable(e164)
	}
}

// SetAccount changes how the phone appears on WhatsApp.
func (p *Phones) SetAccount(e164 string, a Account) error {
	if a.WaID != "" && !waIDForm.MatchString(a.WaID) {
		return wrong("waId", "must be the digits of a phone number")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ph := p.get(e164)
	if other := "+" + a.WaID; a.WaID != "" && other != ph.e164 {
		if owner, taken := p.waIDs[other]; p.phones[other] != nil || (taken && owner != ph.e164) {
			return wrong("waId", "belongs to another phone")
		}
		p.waIDs[other] = ph.e164
	}
	if a.Name == "" {
		a.Name = ph.account.Name
	}
	if old := "+" + ph.account.WaID; ph.account.WaID != a.WaID && p.waIDs[old] == ph.e164 {
		delete(p.waIDs, old)
	}
	ph.account = a
	ph.touch()
	return nil
}

// Account returns how the phone appears on WhatsApp.
func (p *Phones) Account(e164 string) Account {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.get(e164).account
}

// receive puts a carrier's message on the phone.
func (p *Phones) receive(m *Message) {
	m.Direction, m.Status, m.At = Received, "delivered", p.now().UTC()
	m.Links = linksOf(m.Text, m.Buttons)
	p.mu.Lock()
	defer p.mu.Unlock()
	ph := p.get(m.To)
	ph.lastFrom[m.Channel] = m.From
	if m.Channel == WhatsApp {
		delete(ph.typing, m.From)
	}
	ph.add(m)
}

// accepted marks a message of the phone's owner as taken by the business.
func (p *Phones) accepted(e164, id string) { p.mark(e164, id, "delivered") }

func (p *Phones) mark(e164, id, status string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ph := p.get(e164)
	for _, m := range slices.Backward(ph.messages) {
		if m.Direction == Sent && m.ID == id && m.Status != "read" {
			m.Status = status
			ph.touch()
			return
		}
	}
}

// markedRead shows that a business has read all up to id, and may be typing.
func (p *Phones) markedRead(e164, id string, typing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ph := p.get(e164)
	last := slices.IndexFunc(ph.messages, func(m *Message) bool { return m.Direction == Sent && m.ID == id })
	if last < 0 {
		return
	}
	business := ph.messages[last].To
	for _, m := range ph.messages[:last+1] {
		if m.Direction == Sent && m.Channel == WhatsApp && m.To == business {
			m.Status = "read"
		}
	}
	if typing {
		ph.typing[business] = p.now().Add(typingFor)
	}
	ph.touch()
}

// waID is the number's digits, unless the account has another spelling.
func (ph *phone) waID() string {
	if ph.account.WaID != "" {
		return ph.account.WaID
	}
	return ph.e164[1:]
}

// userID is the business-scoped user id that a WhatsApp business of Twilio's sees:
// a country and digits. Meta makes its own, one for each business account.
func (ph *phone) userID() string {
	region := "US"
	if number, err := phonenumbers.Parse(ph.e164, ""); err == nil {
		if r := phonenumbers.GetRegionCodeForNumber(number); len(r) == 2 && r != "ZZ" {
			region = r
		}
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, ph.e164) // a hash never fails
	return fmt.Sprintf("%s.%020d", region, h.Sum64())
}

// onMeta is the phones as Meta sees them, and Meta as the phones use it.
type onMeta struct {
	*Phones
	meta *meta.Simulator
}

func (o *onMeta) Handset(e164 string) meta.Handset {
	o.mu.Lock()
	defer o.mu.Unlock()
	ph := o.get(e164)
	return meta.Handset{
		E164: ph.e164, WaID: ph.waID(), Name: ph.account.Name, Username: ph.account.Username,
		HideNumber: ph.account.HideNumber, OnWhatsApp: ph.account.On,
		Reachable: !ph.unreachable, Blocked: ph.blocked[WhatsApp],
	}
}

func (o *onMeta) Deliver(d meta.Delivery) {
	m := &Message{ID: d.ID, Channel: WhatsApp, From: d.From, To: d.To, Text: d.Text, Buttons: []Button{}, template: d.Template}
	for _, b := range d.Buttons {
		m.Buttons = append(m.Buttons, Button(b))
	}
	o.receive(m)
}

func (o *onMeta) Accepted(e164, id string)                { o.accepted(e164, id) }
func (o *onMeta) MarkedRead(e164, id string, typing bool) { o.markedRead(e164, id, typing) }

func (o *onMeta) newID() string { return meta.NewID() }

func (o *onMeta) say(s said) error {
	out := meta.Said{ID: s.id, From: s.from, To: s.to, Text: s.text}
	if s.button != nil {
		out.Button = &meta.Pressed{Button: meta.Button(*s.button), MessageID: s.messageID, Template: s.template}
	}
	return o.meta.Say(out)
}

func (o *onMeta) read(ids []string)     { o.meta.Read(ids) }
func (o *onMeta) reachable(e164 string) { o.meta.Reachable(e164) }

// onTwilio is the phones as Twilio sees them, and Twilio as the phones use it.
type onTwilio struct {
	*Phones
	twilio *twilio.Simulator
}

func (o *onTwilio) Handset(e164 string) twilio.Handset {
	o.mu.Lock()
	defer o.mu.Unlock()
	ph := o.get(e164)
	return twilio.Handset{
		E164: ph.e164, WaID: ph.waID(), Name: ph.account.Name, OnWhatsApp: ph.account.On,
		Reachable: !ph.unreachable, BlockedSMS: ph.blocked[SMS], BlockedWhatsApp: ph.blocked[WhatsApp],
		UserID: ph.userID(), HideNumber: ph.account.HideNumber,
	}
}

func (o *onTwilio) Deliver(d twilio.Delivery) {
	m := &Message{ID: d.ID, Channel: d.Channel, From: d.From, To: d.To, Text: d.Text, Buttons: []Button{}}
	for _, b := range d.Buttons {
		m.Buttons = append(m.Buttons, Button(b))
	}
	o.receive(m)
}

func (o *onTwilio) Accepted(e164, id string)                { o.accepted(e164, id) }
func (o *onTwilio) MarkedRead(e164, id string, typing bool) { o.markedRead(e164, id, typing) }

func (o *onTwilio) newID() string { return twilio.NewID() }

func (o *onTwilio) say(s said) error {
	out := twilio.Said{ID: s.id, Channel: s.channel, From: s.from, To: s.to, Text: s.text, MessageID: s.messageID}
	if s.button != nil {
		b := twilio.Button(*s.button)
		out.Button = &b
	}
	return o.twilio.Say(out)
}

func (o *onTwilio) read(ids []string)     { o.twilio.Read(ids) }
func (o *onTwilio) reachable(e164 string) { o.twilio.Reachable(e164) }

// onClickatell is the phones as Clickatell sees them, and Clickatell as the
// phones use it.
type onClickatell struct {
	*Phones
	clickatell *clickatell.Simulator
}

func (o *onClickatell) Handset(e164 string) clickatell.Handset {
	o.mu.Lock()
	defer o.mu.Unlock()
	ph := o.get(e164)
	return clickatell.Handset{
		E164: ph.e164, WaID: ph.waID(), Name: ph.account.Name, OnWhatsApp: ph.account.On,
		Reachable: !ph.unreachable, BlockedSMS: ph.blocked[SMS], BlockedWhatsApp: ph.blocked[WhatsApp],
	}
}

func (o *onClickatell) Deliver(d clickatell.Delivery) {
	m := &Message{ID: d.ID, Channel: d.Channel, From: d.From, To: d.To, Text: d.Text, Buttons: []Button{}}
	for _, b := range d.Buttons {
		m.Buttons = append(m.Buttons, Button(b))
	}
	o.receive(m)
}

func (o *onClickatell) Accepted(e164, id string) { o.accepted(e164, id) }

func (o *onClickatell) newID() string { return clickatell.NewID() }

func (o *onClickatell) say(s said) error {
	out := clickatell.Said{ID: s.id, Channel: s.channel, From: s.from, To: s.to, Text: s.text, MessageID: s.messageID}
	if s.button != nil {
		b := clickatell.Button(*s.button)
		out.Button = &b
	}
	return o.clickatell.Say(out)
}

func (o *onClickatell) read(ids []string)     { o.clickatell.Read(ids) }
func (o *onClickatell) reachable(e164 string) { o.clickatell.Reachable(e164) }

// errLineTwice is returned by New when two companies claim one number on one
// channel: a phone could not tell whom it writes to.
var errLineTwice = errors.New("one number on one channel belongs to two companies")
