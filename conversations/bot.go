package conversations

import (
	"embed"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Intent is what a customer means.
type Intent string

// The intents. Anything else is IntentOther.
const (
	IntentStop    Intent = "stop"
	IntentStart   Intent = "start"
	IntentHelp    Intent = "help"
	IntentLink    Intent = "link"   // to pay
	IntentAmount  Intent = "amount" // how much
	IntentStatus  Intent = "status"
	IntentReceipt Intent = "receipt"
	IntentOther   Intent = "other"
)

var intents = []Intent{IntentStop, IntentStart, IntentHelp, IntentLink, IntentAmount, IntentStatus, IntentReceipt, IntentOther}

//go:embed bot/*.yaml
var botFiles embed.FS

// intentRule is one rule of bot/intents.yaml.
type intentRule struct {
	Intent  Intent   `yaml:"intent"`
	Channel Channel  `yaml:"channel"`
	Exact   []string `yaml:"exact"`
	Words   []string `yaml:"words"`
	Buttons []string `yaml:"buttons"`
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
	}
	return rules
}

// RecogniseIntent says what a customer means by a text, or by the payload of
// a button they pressed.
func RecogniseIntent(channel Channel, text, button string) Intent {
	whole := normalised(text)
	words := " " + strings.Join(strings.FieldsFunc(whole, notInWord), " ") + " "
	for _, r := range intentRules {
		if r.Channel != "" && r.Channel != channel {
			continue
		}
		if slices.Contains(r.Exact, whole) || button != "" && slices.Contains(r.Buttons, strings.ToLower(button)) {
			return r.Intent
		}
		for _, w := range r.Words {
			if strings.Contains(words, " "+w+" ") {
				return r.Intent
			}
		}
	}
	return IntentOther
}

// normalised returns a text without space and punctuation at its ends, folded
// in case, with single spaces.
func normalised(text string) string {
	text = strings.Join(strings.Fields(strings.ToLower(text)), " ")
	if trimmed := strings.TrimFunc(text, notInWord); trimmed != "" {
		return trimmed
	}
	return text
}

func notInWord(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '\''
}

// situations say how the bot speaks of a lifecycle.
var situations = map[Lifecycle]string{
	Open: "open", Processing: "processing", Authorized: "paid", Paid: "paid", InReview: "in_review", Failed: "failed",
	Expired: "expired", Cancelled: "cancelled", Reversed: "reversed", PartiallyRefunded: "paid", Refunded: "reversed",
}

// answer takes an inbound message's intent: consent first, then the bot's
// answer by intent and situation, unless an agent has taken over.
func (t *tx) answer(m *Message, in Inbound) {
	intent := RecogniseIntent(m.Channel, in.Text, in.Button)
	if in.Kind == InboundConsent {
		intent = IntentStart
		if in.Consent == ConsentOptedOut {
			intent = IntentStop
		}
	}
	if intent == IntentStop || intent == IntentStart {
		t.consent(m, intent, in.Kind == InboundConsent)
		return
	}
	if t.contact.Mode == ModeWithAgent && intent != IntentHelp {
		return
	}
	if t.contact.Consent[m.Channel] == ConsentOptedOut {
		return // an ordinary message after STOP is no opt-in
	}
	r := t.subject()
	parameters := Parameters{Merchant: t.Merchant.Name, Locale: t.Merchant.Locale}
	situation := "any"
	if r != nil {
		situation = situations[r.Lifecycle]
		purpose := PurposeReply
		if situation == "paid" || situation == "reversed" {
			purpose = PurposeReceipt
		}
		parameters = t.parameters(r, purpose)
	}
	key := string(intent) + "." + situation
	if text(parameters.Locale, key, parameters) == "" {
		key = string(intent) + ".any"
	}
	if t.contact.crowded(m.Channel) {
		return // whoever writes faster than we can send gets no more answers
	}
	t.reply(m, PurposeReply, key, parameters)
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
// confirms by itself, nothing more is sent.
func (t *tx) consent(m *Message, intent Intent, handled bool) {
	now := t.contact.Consent[m.Channel]
	if now == "" {
		now = ConsentUnknown
	}
	for _, e := range consentEdges {
		if e.On != intent || !slices.Contains(e.From, now) {
			continue
		}
		t.setConsent(m.Channel, e.To)
		if e.Confirm && !handled && !t.Merchant.ProviderConfirms[m.Channel] {
			// Only the confirmation of an opt-out may go to who has opted out: that
			// of an opt-in is an ordinary answer, called off by a later STOP.
			purpose := PurposeReply
			if e.To == ConsentOptedOut {
				purpose = PurposeConsent
			}
			t.reply(m, purpose, string(intent)+".confirm", Parameters{Merchant: t.Merchant.Name, Locale: t.Merchant.Locale})
		}
		return
	}
}

// reply queues the answer to an inbound message. Its id follows from that
// message's, so that a repeated application makes the same one.
func (t *tx) reply(to *Message, purpose Purpose, key string, p Parameters) {
	t.queue(&Message{
		ID: to.ID + "-r", Channel: to.Channel, Address: to.Address, Purpose: purpose,
		Text: text(p.Locale, key, p), Parameters: p,
	})
}
