package conversations

import (
	"cmp"
	"embed"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
	"golang.org/x/text/unicode/norm"
)

// Intent is what a customer means.
type Intent string

// The intents. Anything else is IntentOther.
const (
	IntentStop      Intent = "stop"
	IntentStart     Intent = "start"
	IntentWantsStop Intent = "wants_stop" // no more messages, in words that are no opt-out
	IntentHelp      Intent = "help"
	IntentPerson    Intent = "person" // to talk to one
	IntentLink      Intent = "link"   // to pay
	IntentAmount    Intent = "amount" // how much
	IntentStatus    Intent = "status"
	IntentReceipt   Intent = "receipt"
	IntentOther     Intent = "other"
)

var intents = []Intent{
	IntentStop, IntentStart, IntentWantsStop, IntentHelp, IntentPerson, IntentLink, IntentAmount, IntentStatus, IntentReceipt, IntentOther,
}

//go:embed bot/*.yaml
var botFiles embed.FS

// intentRule is one rule of bot/intents.yaml, which explains its fields.
type intentRule struct {
	Intent   Intent    `yaml:"intent"`
	Channel  Channel   `yaml:"channel"`
	Country  []string  `yaml:"country"`
	From     []Consent `yaml:"from"`
	Provider bool      `yaml:"provider"`
	Locale   string    `yaml:"locale"`
	Exact    []string  `yaml:"exact"`
	Words    []string  `yaml:"words"`
	Buttons  []string  `yaml:"buttons"`
}

var intentRules = mustReadRules()

func mustRead(name string, into any) {
	b, err := botFiles.ReadFile("bot/" + name)
	if err == nil {
		err = yaml.Unmarshal(b, into)
	}
	if err != nil {
		panic(fmt.Sprintf("conversations: reading %s: %v", name, err))
	}
}

func mustReadRules() []intentRule {
	var rules []intentRule
	mustRead("intents.yaml", &rules)
	for i, r := range rules {
		if !slices.Contains(intents, r.Intent) {
			panic(fmt.Sprintf("conversations: rule %d of intents.yaml: there is no intent %q", i+1, r.Intent))
		}
		for j, w := range r.Words {
			r.Words[j] = " " + unaccented(w) + " "
		}
	}
	return rules
}

// Heard is what a customer sent, with what else decides how it is taken.
type Heard struct {
	Channel Channel
	Country string  // of the customer's phone, ISO 3166 alpha-2; "" where that is not known
	Consent Consent // of the customer on the channel, as it is now; "" is ConsentUnknown
	// Provider says that the provider heeds the carriers' words by itself
	// (Merchant.ProviderConfirms).
	Provider bool
	Text     string
	Button   string // the payload of a pressed button
}

// Meaning is what a customer means.
type Meaning struct {
	Intent Intent
	Locale string // the language of the word that said so; "" where it belongs to none
	// Provider says that it is a word that a provider heeds and confirms, if it
	// does so at all.
	Provider bool
}

// Recognise says what a customer means by a text, or by a button they pressed.
func Recognise(h Heard) Meaning {
	whole := normalised(h.Text)
	words := " " + strings.Join(strings.FieldsFunc(unaccented(whole), notInWord), " ") + " "
	for _, r := range intentRules {
		if r.holds(h) && r.fits(whole, words, h.Button) {
			return Meaning{Intent: r.Intent, Locale: r.Locale, Provider: r.Provider}
		}
	}
	return Meaning{Intent: IntentOther}
}

// holds tells whether a rule is one for this message, whatever it says.
func (r intentRule) holds(h Heard) bool {
	consent := cmp.Or(h.Consent, ConsentUnknown)
	switch {
	case r.Channel != "" && r.Channel != h.Channel:
		return false
	case len(r.From) > 0 && !slices.Contains(r.From, consent):
		return false
	case len(r.Country) > 0 && !slices.Contains(r.Country, h.Country):
		return r.Provider && h.Provider
	}
	return true
}

func (r intentRule) fits(whole, words, button string) bool {
	return slices.Contains(r.Exact, whole) ||
		button != "" && slices.Contains(r.Buttons, strings.ToLower(button)) ||
		slices.ContainsFunc(r.Words, func(w string) bool { return strings.Contains(words, w) })
}

// normalised returns a text without space and punctuation at its ends, folded
// in case, with single spaces and plain characters: full-width letters, curly
// apostrophes and invisible characters say nothing else than plain ones.
func normalised(text string) string {
	text = strings.Join(strings.Fields(strings.ToLower(plainText(norm.NFKC.String(text)))), " ")
	if trimmed := strings.TrimFunc(text, func(r rune) bool { return notInWord(r) || r == '\'' }); trimmed != "" {
		return trimmed
	}
	return text
}

// unaccented returns a normalised text with bare letters, as many people write
// on a phone.
func unaccented(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Mn, r):
			return -1
		case r == 'ł': // the one letter of our languages that has no accent to take off
			return 'l'
		}
		return r
	}, norm.NFD.String(text))
}

func notInWord(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) && r != '\''
}

// situations say how the bot speaks of a lifecycle.
var situations = map[Lifecycle]string{
	Open: "open", Processing: "processing", Authorized: "paid", Paid: "paid", InReview: "in_review", Failed: "failed",
	Expired: "expired", Cancelled: "cancelled", Reversed: "reversed", PartiallyRefunded: "partly_refunded", Refunded: "reversed",
}

// answer takes an inbound message's intent: consent first, then the bot's
// answer by intent and situation, unless an agent has taken over.
func (t *tx) answer(m *Message, in Inbound) {
	handled := in.Kind == InboundConsent
	meaning := Recognise(t.heard(m, in))
	if handled {
		meaning = Meaning{Intent: IntentStart}
		if in.Consent == ConsentOptedOut {
			meaning.Intent = IntentStop
		}
	}
	m.Meant = meaning.Intent
	if meaning.Intent == IntentStop || meaning.Intent == IntentStart {
		t.consent(m, meaning, handled)
		return
	}
	if t.contact.Mode == ModeWithAgent && meaning.Intent != IntentHelp {
		return
	}
	if t.contact.Consent[m.Channel] == ConsentOptedOut {
		return // an ordinary message after STOP is no opt-in
	}
	if t.contact.IdentityChangedAt != nil {
		return // it may be another person: an agent finds out
	}
	if t.contact.crowded(m.Channel) {
		return // whoever writes faster than we can send gets no more answers
	}
	situation, parameters := t.situation()
	parameters.Locale = cmp.Or(meaning.Locale, parameters.Locale)
	key := string(meaning.Intent) + "." + situation
	if text(parameters.Locale, key, parameters) == "" {
		key = string(meaning.Intent) + ".any"
	}
	var offered []Button
	if m.Channel == WhatsApp && (meaning.Intent == IntentHelp || meaning.Intent == IntentOther) {
		offered = buttons(parameters.Locale, offers[situation])
	}
	t.reply(m, PurposeReply, key, parameters, offered)
}

// heard returns what a customer sent as the rules want it.
func (t *tx) heard(m *Message, in Inbound) Heard {
	h := Heard{
		Channel: m.Channel, Consent: t.contact.Consent[m.Channel], Provider: t.Merchant.ProviderConfirms[m.Channel],
		Text: in.Text, Button: in.Button,
	}
	for _, a := range append([]Address{m.Address}, t.contact.Addresses...) {
		if a.Kind == AddressPhone && h.Country == "" {
			h.Country = countryOf(a.Value)
		}
	}
	return h
}

// situation returns how the payment request that a customer means stands, and
// what the texts about it show; "any" where there is none.
func (t *tx) situation() (string, Parameters) {
	r := t.subject()
	if r == nil {
		return "any", Parameters{Merchant: t.Merchant.Name, Locale: t.Merchant.Locale}
	}
	situation := situations[r.Lifecycle]
	if !slices.Contains(withReceipt, r.Lifecycle) {
		return situation, t.parameters(r, PurposeReply)
	}
	p := t.parameters(r, PurposeReceipt)
	p.Amount = r.standing().String()
	return situation, p
}

// standing returns the amount that the bot names once money came: what is paid
// now, or what went back of it when nothing is.
func (r *PaymentRequest) standing() Money {
	amount := r.Order.Total
	switch r.Lifecycle {
	case Paid, PartiallyRefunded:
		amount.Minor = r.CapturedMinor - r.RefundedMinor
	case Refunded:
		amount.Minor = r.RefundedMinor
	}
	return amount
}

// The payloads of the bot's buttons, at most three to a message; bot/intents.yaml
// says what each means.
var (
	offersAlways = []string{"status", "person"}
	offersPaid   = []string{"receipt", "status", "person"}
	offers       = map[string][]string{
		"any": offersAlways, "open": {"pay", "status", "person"}, "processing": offersAlways, "in_review": offersAlways,
		"paid": offersPaid, "partly_refunded": offersPaid, "reversed": offersPaid, "expired": offersAlways, "cancelled": offersAlways, "failed": offersAlways,
	}
)

// buttons returns the buttons of these payloads in the language of a locale.
func buttons(locale string, ids []string) []Button {
	out := make([]Button, 0, len(ids))
	for _, id := range ids {
		out = append(out, Button{ID: id, Title: text(locale, "button."+id, Parameters{})})
	}
	return out
}

// maxWaiting is with how many messages in a lane the bot falls silent and
// nothing is sent again, so that a flood of either cannot grow the contact, nor
// reach the customer all at once after an outage.
const maxWaiting = 20

// crowded tells whether that many messages wait on a channel.
func (c *Contact) crowded(channel Channel) bool { return len(c.Lanes[channel].Waiting) >= maxWaiting }

// subject returns the payment request that a customer means: the newest that
// still runs, else the newest of all.
func (t *tx) subject() *PaymentRequest {
	for _, id := range slices.Backward(t.contact.Requests) {
		if r := t.peek(id); r != nil {
			return r
		}
	}
	if t.contact.Latest != "" {
		return t.peek(t.contact.Latest)
	}
	return nil
}

// consent applies an opt-out or opt-in word by its table. Where the provider
// confirms it by itself, nothing more is sent.
func (t *tx) consent(m *Message, meaning Meaning, handled bool) {
	now := cmp.Or(t.contact.Consent[m.Channel], ConsentUnknown)
	if meaning.Intent == IntentStart && m.At.Before(t.contact.ConsentAt[m.Channel]) {
		return // said before what came first: an opt-out since then holds
	}
	for _, e := range consentEdges {
		if e.On != meaning.Intent || !slices.Contains(e.From, now) {
			continue
		}
		t.setConsent(m.Channel, e.To, m.At)
		if e.To != now {
			t.confirmBy(m.Channel, "")
		}
		confirmed := handled || meaning.Provider && t.Merchant.ProviderConfirms[m.Channel]
		if e.Confirm && !confirmed && !t.contact.crowded(m.Channel) {
			// Only the confirmation of an opt-out may go to who has opted out: that
			// of an opt-in is an ordinary answer, called off by a later STOP.
			purpose := PurposeReply
			if e.To == ConsentOptedOut {
				purpose = PurposeConsent
			}
			_, about := t.situation()
			p := Parameters{Merchant: t.Merchant.Name, Locale: cmp.Or(meaning.Locale, about.Locale)}
			id := t.reply(m, purpose, string(meaning.Intent)+".confirm", p, nil)
			if purpose == PurposeConsent {
				t.confirmBy(m.Channel, id)
			}
		}
		return
	}
}

// confirmBy notes the message that confirms the present opt-out: those of
// earlier ones, still waiting, are called off.
func (t *tx) confirmBy(channel Channel, messageID string) {
	if t.contact.Confirming == nil {
		t.contact.Confirming = map[Channel]string{}
	}
	if t.contact.Confirming[channel] = messageID; messageID == "" {
		delete(t.contact.Confirming, channel)
	}
}

// reply queues the answer to an inbound message and returns its id. That
// follows from the message's, so that a repeated application makes the same one.
func (t *tx) reply(to *Message, purpose Purpose, key string, p Parameters, offered []Button) string {
	answer := text(p.Locale, key, p)
	if to.Channel == SMS {
		answer = SMSText(answer)
	}
	m := &Message{
		ID: to.ID + "-r", Channel: to.Channel, Address: to.Address, Purpose: purpose,
		Text: answer, Parameters: p, Buttons: offered, InReplyTo: to.ProviderID,
	}
	t.queue(m)
	return m.ID
}
