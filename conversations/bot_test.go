package conversations

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestConsentWords: the carriers' words per country and channel, and nothing
// that only resembles them.
func TestConsentWords(t *testing.T) {
	t.Parallel()
	out, handles := ConsentOptedOut, true
	tests := []struct {
		name    string
		country string
		h       Heard
		want    Intent
	}{
		{"the word", "", Heard{Channel: SMS, Text: "STOP"}, IntentStop},
		{"the word on WhatsApp", "", Heard{Channel: WhatsApp, Text: "stop"}, IntentStop},
		{"space and full stop", "", Heard{Channel: SMS, Text: " \t Stop. \n"}, IntentStop},
		{"in quotation marks", "", Heard{Channel: SMS, Text: "“STOP”"}, IntentStop},
		{"in apostrophes", "", Heard{Channel: SMS, Text: "'Stop'!"}, IntentStop},
		{"full-width letters", "", Heard{Channel: SMS, Text: "ＳＴＯＰ"}, IntentStop},
		{"no-break spaces", "", Heard{Channel: SMS, Text: "\u00a0STOP\u202f"}, IntentStop},
		{"no-break space within", "", Heard{Channel: SMS, Text: "STOP\u00a0ALL"}, IntentStop},
		{"zero-width characters", "", Heard{Channel: SMS, Text: "\ufeffST\u200bOP\u200d"}, IntentStop},
		{"no-break hyphen", "", Heard{Channel: SMS, Text: "opt\u2011out"}, IntentStop},
		{"an emoji behind it", "", Heard{Channel: WhatsApp, Text: "stop 🛑"}, IntentStop},

		{"stopall", "US", Heard{Channel: SMS, Text: "StopAll"}, IntentStop},
		{"unsubscribe", "GB", Heard{Channel: SMS, Text: "UNSUBSCRIBE"}, IntentStop},
		{"end", "ZA", Heard{Channel: SMS, Text: "end"}, IntentStop},
		{"cancel", "GB", Heard{Channel: SMS, Text: "Cancel"}, IntentStop},
		{"quit", "CA", Heard{Channel: SMS, Text: "Quit"}, IntentStop},
		{"revoke", "US", Heard{Channel: SMS, Text: "revoke"}, IntentStop},
		{"optout", "US", Heard{Channel: SMS, Text: "OptOut"}, IntentStop},
		{"opt out", "US", Heard{Channel: SMS, Text: "OPT OUT"}, IntentStop},
		{"remove in the US", "US", Heard{Channel: SMS, Text: "remove"}, IntentStop},
		{"remove in Puerto Rico", "PR", Heard{Channel: SMS, Text: "remove"}, IntentStop},
		{"remove elsewhere", "GB", Heard{Channel: SMS, Text: "remove"}, IntentOther},
		{"remove, and the provider does not know it", "GB", Heard{Channel: SMS, Text: "remove", Provider: handles}, IntentOther},
		{"remove from nobody knows where", "", Heard{Channel: SMS, Text: "remove"}, IntentOther},
		{"unsub in Canada", "CA", Heard{Channel: SMS, Text: "unsub"}, IntentStop},
		{"unsub in the US", "US", Heard{Channel: SMS, Text: "unsub"}, IntentOther},
		{"arret", "CA", Heard{Channel: SMS, Text: "ARRET"}, IntentStop},
		{"arrêt", "FR", Heard{Channel: SMS, Text: "ARRÊT"}, IntentStop},
		{"arrêt, accent apart", "CA", Heard{Channel: SMS, Text: "ARRE\u0302T"}, IntentStop},
		{"arret on WhatsApp", "CA", Heard{Channel: WhatsApp, Text: "arret"}, IntentStop},

		{"cancel on WhatsApp", "US", Heard{Channel: WhatsApp, Text: "CANCEL"}, IntentOther},
		{"end on WhatsApp", "US", Heard{Channel: WhatsApp, Text: "END"}, IntentOther},
		{"remove on WhatsApp", "US", Heard{Channel: WhatsApp, Text: "REMOVE"}, IntentOther},
		{"unsub on WhatsApp", "CA", Heard{Channel: WhatsApp, Text: "UNSUB"}, IntentOther},
		{"yes on WhatsApp", "US", Heard{Channel: WhatsApp, Text: "YES", Consent: out}, IntentOther},

		{"start", "", Heard{Channel: SMS, Text: "start"}, IntentStart},
		{"unstop on WhatsApp", "", Heard{Channel: WhatsApp, Text: "Unstop!"}, IntentStart},
		{"yes after STOP", "US", Heard{Channel: SMS, Text: "yes", Consent: out}, IntentStart},
		{"yes in a chat", "US", Heard{Channel: SMS, Text: "yes"}, IntentOther},
		{"yes of who has opted in", "US", Heard{Channel: SMS, Text: "yes", Consent: ConsentOptedIn}, IntentOther},
		{"yes where it is no carrier's word", "GB", Heard{Channel: SMS, Text: "yes", Consent: out}, IntentOther},
		{"yes where the provider heeds it", "GB", Heard{Channel: SMS, Text: "yes", Consent: out, Provider: handles}, IntentStart},
		{"yes in a chat where the provider heeds it", "GB", Heard{Channel: SMS, Text: "yes", Provider: handles}, IntentOther},

		{"help", "", Heard{Channel: SMS, Text: "HELP"}, IntentHelp},
		{"info", "", Heard{Channel: SMS, Text: "info"}, IntentHelp},
		{"aide", "CA", Heard{Channel: SMS, Text: "AIDE"}, IntentHelp},
		{"a question mark", "", Heard{Channel: WhatsApp, Text: "?"}, IntentHelp},

		{"one letter more", "", Heard{Channel: SMS, Text: "stops"}, IntentOther},
		{"a letter for another", "", Heard{Channel: SMS, Text: "st0p"}, IntentOther},
		{"an accent too many", "", Heard{Channel: SMS, Text: "stóp"}, IntentOther},
		{"a word before it", "", Heard{Channel: SMS, Text: "don't stop"}, IntentOther},
		{"an article", "", Heard{Channel: SMS, Text: "the end"}, IntentOther},
		{"twice", "", Heard{Channel: SMS, Text: "stop stop"}, IntentOther},
		{"within an order", "", Heard{Channel: SMS, Text: "cancel my order"}, IntentOther},
		{"a start", "", Heard{Channel: SMS, Text: "start over"}, IntentOther},
		{"please", "", Heard{Channel: SMS, Text: "please stop"}, IntentWantsStop},
		{"freely", "US", Heard{Channel: SMS, Text: "Please stop texting me."}, IntentWantsStop},
		{"with a curly apostrophe", "US", Heard{Channel: WhatsApp, Text: "Don’t text me again"}, IntentWantsStop},
	}
	for _, tt := range tests {
		tt.h.Country = tt.country
		if got := Recognise(tt.h); got.Intent != tt.want {
			t.Errorf("%s: %q by %s in %q means %s, want %s", tt.name, tt.h.Text, tt.h.Channel, tt.country, got.Intent, tt.want)
		}
	}
}

// TestIntents: what customers write, a language at a time, with and without
// accents.
func TestIntents(t *testing.T) {
	t.Parallel()
	texts := map[Intent][]string{
		IntentAmount: {
			"how much do I owe", "What is the total?", "Hoeveel is dit?", "Wie viel muss ich zahlen?", "¿Cuánto debo?", "cuanto es", "C'est combien ?",
			"Quanto devo pagare?", "Hoeveel moet ik betalen", "Quanto é?", "Ile mam zapłacić?", "Jaka jest kwota",
		},
		IntentLink: {
			"send me the link", "I want to pay", "stuur die skakel", "Ek wil betaal", "Wo kann ich bezahlen?", "der Link ist abgelaufen", "quiero pagar",
			"envíeme el enlace", "Je voudrais payer", "le lien a expiré", "vorrei pagare", "mi manda il link?", "ik wil betalen", "quero pagar", "manda o link",
			"Chcę zapłacić", "chce zaplacic", "prosze o link",
		},
		IntentReceipt: {
			"where is my receipt?", "reçu", "Où est mon reçu", "Ich brauche eine Quittung", "RECHNUNG bitte", "waar is my kwitansie", "necesito mi recibo", "una factura",
			"la ricevuta per favore", "mag ik een betaalbewijs", "o comprovante", "o meu recibo", "Poproszę potwierdzenie", "paragon",
		},
		IntentStatus: {
			"I paid already", "did it go through?", "Ek het betaal", "Ich habe schon bezahlt", "ist das Geld angekommen", "ya pagué", "ya pague", "he pagado",
			"j'ai déjà payé", "Avez-vous reçu mon paiement ?", "ho già pagato", "Ik heb al betaald", "já paguei", "ja paguei", "już zapłaciłem", "zaplacilam wczoraj",
		},
		IntentHelp: {
			"I have a question", "hulp asseblief", "Hilfe!", "ich habe eine Frage", "Ayuda", "tengo una duda", "j'ai besoin d'aide, aide moi", "Aiuto", "ho una domanda",
			"ik heb een vraag", "ajuda", "tenho uma dúvida", "tenho uma duvida", "Pomoc", "mam pytanie",
		},
		IntentPerson: {
			"can I talk to a human", "AGENT", "Kan ek met iemand praat", "Ich möchte mit einem Menschen sprechen", "hablar con una persona", "hay alguien?",
			"parler à quelqu’un", "un conseiller svp", "voglio un operatore", "posso parlare con qualcuno", "een medewerker graag", "quero falar com alguém",
			"atendente", "chcę rozmawiać z człowiekiem",
		},
		IntentWantsStop: {
			"stop sending me these", "Remove me from your list", "take me off", "unsubscribe please", "Moet my asseblief geen boodskappe meer stuur", "geen boodskappe meer asseblief",
			"Bitte keine Nachrichten mehr", "Hören Sie auf", "hoeren sie auf mir zu schreiben, keine SMS mehr", "no me envíen más mensajes", "quiero darme de baja", "BAJA",
			"Ne m’envoyez plus de SMS", "arretez de m'ecrire", "non voglio più messaggi", "basta messaggi", "geen berichten meer aub", "AFMELDEN", "não quero receber mais",
			"parem de mandar mensagem", "SAIR", "proszę nie pisać", "nie chce wiadomosci od was",
		},
		IntentOther: {"", "🙂", "repayment", "hello there", "Zeig mir", "ok", "merci beaucoup", "buenos días", "tomorrow", "Danke!", "dziękuję", "Dankie"},
	}
	for want, said := range texts {
		for _, text := range said {
			if got := Recognise(Heard{Channel: WhatsApp, Text: text}); got.Intent != want {
				t.Errorf("%q means %s, want %s", text, got.Intent, want)
			}
		}
	}
	if got := Recognise(Heard{Channel: WhatsApp, Text: "Zeig mir", Button: "Receipt"}); got.Intent != IntentReceipt {
		t.Errorf("a button means %s", got.Intent)
	}
}

// TestTheBotUnderstandsItself: what a text says to write, and what a button
// says, means that in its language.
func TestTheBotUnderstandsItself(t *testing.T) {
	t.Parallel()
	said := regexp.MustCompile(`\p{Lu}{4,}`)
	for _, locale := range Locales() {
		for key, text := range botTexts[locale] {
			for _, word := range said.FindAllString(text, -1) {
				for _, channel := range Channels {
					got := Recognise(Heard{Channel: channel, Text: word}).Intent
					if got == IntentOther || got == IntentWantsStop {
						t.Errorf("%s: %s says to write %s, which means %s by %s", locale, key, word, got, channel)
					}
				}
			}
		}
		for _, word := range []string{"STOP", "START"} {
			if all := strings.Join([]string{botTexts[locale]["stop.confirm"], botTexts[locale]["start.confirm"]}, " "); !strings.Contains(all, word) {
				t.Errorf("%s: the confirmations do not name %s", locale, word)
			}
		}
		if got := said.FindAllString(botTexts[locale]["wants_stop.any"], -1); !slices.Equal(got, []string{"STOP"}) {
			t.Errorf("%s: who wants no more messages is told to write %v", locale, got)
		}
		means := map[string]Intent{"pay": IntentLink, "status": IntentStatus, "receipt": IntentReceipt, "person": IntentPerson}
		for situation, ids := range offers {
			titles := map[string]bool{}
			for _, b := range buttons(locale, ids) {
				if got := Recognise(Heard{Channel: WhatsApp, Text: b.Title, Button: b.ID}); got.Intent != means[b.ID] {
					t.Errorf("%s: the button %s (%s) means %s", locale, b.ID, b.Title, got.Intent)
				}
				if n := utf8.RuneCountInString(b.Title); n == 0 || n > 20 || titles[b.Title] {
					t.Errorf("%s, %s: the button %s is called %q", locale, situation, b.ID, b.Title)
				}
				titles[b.Title] = true
			}
			if len(ids) > 3 {
				t.Errorf("%s offers %d buttons", situation, len(ids))
			}
		}
	}
	for _, situation := range situations {
		if offers[situation] == nil {
			t.Errorf("no buttons in situation %s", situation)
		}
	}
}

func TestCountryOf(t *testing.T) {
	t.Parallel()
	for phone, want := range map[string]string{
		"+27821234567": "ZA", "+14165550123": "CA", "+12125550123": "US", "+17875550123": "PR", "+447400123456": "GB", "+33612345678": "FR",
		"+999123": "", "": "", "5550123": "", "US.13491208655302741918": "",
	} {
		if got := countryOf(phone); got != want {
			t.Errorf("%q is of %q, want %q", phone, got, want)
		}
	}
}

// replies returns the answers of the bot that are not yet sent, oldest first.
func (s *story) replies() []*Message {
	var found []*Message
	for _, m := range s.state.Messages {
		if m != nil && (m.Purpose == PurposeReply || m.Purpose == PurposeConsent) {
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(a, b *Message) int { return strings.Compare(a.ID, b.ID) })
	return found
}

// hears has the customer of a phone number say something.
func (s *story) hears(phone string, in Inbound) {
	s.t.Helper()
	s.entry++
	in.At, in.Addresses = s.now, []Address{{AddressPhone, phone}}
	s.do(MessageReceived{MessageID: "m_0in" + string(rune('a'+s.entry)), MerchantID: "acme", ContactID: theContact, Inbound: in})
}

func TestConfirmations(t *testing.T) {
	t.Parallel()
	const za, ca, us = "+27821234567", "+14165550123", "+12125550123"
	say := func(channel Channel, text string) Inbound {
		return Inbound{Kind: InboundText, SenderID: map[Channel]string{SMS: "acme-sms", WhatsApp: "acme-wa"}[channel], ProviderID: "in", Text: text}
	}
	handled := func(in Inbound, c Consent) Inbound { in.Kind, in.Consent = InboundConsent, c; return in }
	tests := []struct {
		name     string
		phone    string
		locale   string // the merchant's
		confirms bool   // the provider does
		said     []Inbound
		consent  Consent
		want     []string // what each answer holds
	}{
		{"stop, twice", za, "en", false, []Inbound{say(SMS, "STOP"), say(SMS, "stop")}, ConsentOptedOut, []string{"no more messages"}},
		{"the language of the merchant", za, "af-ZA", false, []Inbound{say(SMS, "STOP")}, ConsentOptedOut, []string{"geen verdere boodskappe"}},
		{"the language of the word", ca, "en", false, []Inbound{say(SMS, "ARRET")}, ConsentOptedOut, []string{"Répondez START"}},
		{"help in the language of the word", ca, "en", false, []Inbound{say(SMS, "AIDE")}, "", []string{"Ici Acme"}},
		{"the provider confirms", za, "en", true, []Inbound{say(SMS, "STOP"), say(SMS, "START")}, ConsentOptedIn, nil},
		{"a word that the provider does not know", ca, "en", true, []Inbound{say(SMS, "ARRÊT")}, ConsentOptedOut, []string{"Répondez START"}},
		{"a provider's report", za, "en", false, []Inbound{handled(say(SMS, "STOP"), ConsentOptedOut)}, ConsentOptedOut, nil},
		{"a provider's report of an opt-in", za, "en", false, []Inbound{say(SMS, "STOP"), handled(say(SMS, "START"), ConsentOptedIn)}, ConsentOptedIn, []string{"no more"}},
		{"stop, start", za, "en", false, []Inbound{say(WhatsApp, "stop"), say(WhatsApp, "start")}, ConsentOptedIn, []string{"no more messages", "here again"}},
		{"a start for nothing", za, "en", false, []Inbound{say(SMS, "start")}, ConsentOptedIn, nil},
		{"yes after stop", us, "en", false, []Inbound{say(SMS, "stop"), say(SMS, "yes")}, ConsentOptedIn, []string{"no more messages", "here again"}},
		{"yes is no opt-in elsewhere", za, "en", false, []Inbound{say(SMS, "stop"), say(SMS, "yes")}, ConsentOptedOut, []string{"no more messages"}},
		{"cancel on WhatsApp", us, "en", false, []Inbound{say(WhatsApp, "CANCEL")}, "", []string{"Thank you"}},
		{"free text", us, "en", false, []Inbound{say(SMS, "please stop texting me")}, "", []string{"the one word STOP"}},
		{"free text in German", za, "en", false, []Inbound{say(SMS, "Bitte keine Nachrichten mehr")}, "", []string{"the one word STOP"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStory(t)
			s.state.Merchant.Locale = tt.locale
			s.state.Merchant.ProviderConfirms = map[Channel]bool{SMS: tt.confirms}
			for _, in := range tt.said {
				in.SenderID = s.state.Merchant.Senders[channelNamed(in.SenderID)]
				s.hears(tt.phone, in)
			}
			channel := channelNamed(tt.said[0].SenderID)
			if got := s.state.Contact.Consent[channel]; got != tt.consent {
				t.Errorf("consent %q, want %q", got, tt.consent)
			}
			replies := s.replies()
			if len(replies) != len(tt.want) {
				t.Fatalf("%d answers, want %d", len(replies), len(tt.want))
			}
			for i, want := range tt.want {
				if r := replies[i]; !strings.Contains(r.Text, want) || r.InReplyTo != "in" || len(r.Buttons) > 0 && r.Channel == SMS {
					t.Errorf("answer %d is %q to %q with %v, want %q", i+1, r.Text, r.InReplyTo, r.Buttons, want)
				}
			}
		})
	}
}

func channelNamed(sender string) Channel {
	if sender == "acme-sms" {
		return SMS
	}
	return WhatsApp
}

// TestButtons: on WhatsApp the bot offers what can be done, in the language of
// the payment request; by SMS it offers nothing.
func TestButtons(t *testing.T) {
	t.Parallel()
	ids := func(m *Message) (all []string) {
		for _, b := range m.Buttons {
			all = append(all, b.ID)
		}
		return all
	}
	for _, tt := range []struct {
		lifecycle Lifecycle
		channel   Channel
		text      string
		want      []string
	}{
		{Open, WhatsApp, "hello there", []string{"pay", "status", "person"}},
		{Open, WhatsApp, "help", []string{"pay", "status", "person"}},
		{Paid, WhatsApp, "help", []string{"receipt", "status", "person"}},
		{Processing, WhatsApp, "hello there", []string{"status", "person"}},
		{LifecycleUnknown, WhatsApp, "hello there", []string{"status", "person"}},
		{Open, WhatsApp, "status", nil},
		{Open, WhatsApp, "stop", nil},
		{Open, WhatsApp, "stop texting me", nil},
		{Open, SMS, "help", nil},
	} {
		s := newStory(t)
		if tt.lifecycle != LifecycleUnknown {
			s.create(theRequest)
			s.request().Lifecycle, s.request().Locale = tt.lifecycle, "de_AT"
		}
		s.says(tt.channel, tt.text)
		r := s.replies()
		if len(r) != 1 || !slices.Equal(ids(r[0]), tt.want) {
			t.Fatalf("%s, %q by %s: %+v, want the buttons %v", tt.lifecycle, tt.text, tt.channel, r, tt.want)
		}
		if len(tt.want) == 3 && r[0].Buttons[1].Title != "Status" || len(tt.want) > 0 && tt.lifecycle != LifecycleUnknown && r[0].Buttons[len(tt.want)-1].Title != "Mit jemandem reden" {
			t.Errorf("%s: the buttons are %+v", tt.lifecycle, r[0].Buttons)
		}
	}
}
