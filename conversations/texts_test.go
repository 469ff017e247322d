package conversations

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// usual are values of a usual length: a name of two words, a five-figure
// amount, a host of its own and a real code.
var usual = Parameters{
	Merchant: "Acme Outfitters", Amount: "ZAR 12,149.00", Order: "SO-104217", Link: "https://pay.acme.example/p/" + strings.Repeat("0", 1+codeLength),
}

// notGSM are the languages whose own letters the GSM alphabet lacks.
var notGSM = []string{"pl"}

func TestLocales(t *testing.T) {
	t.Parallel()
	if got, want := Locales(), []string{"af", "de", "en", "es", "fr", "it", "nl", "pl", "pt"}; !slices.Equal(got, want) {
		t.Errorf("Locales() = %v, want %v", got, want)
	}
	for locale, want := range map[string]string{
		"de": "de", "de-AT": "de", "de_AT": "de", "DE-at": "de", "de-Latn-AT": "de", " de ": "de", "pt-BR": "pt", "pt_PT": "pt", "zh-Hans-CN": "en", "sv": "en", "": "en",
		"en-ZA": "en", "d": "en", "-": "en", "--de": "en", "deutsch": "en",
	} {
		if got := Language(locale); got != want {
			t.Errorf("Language(%q) = %q, want %q", locale, got, want)
		}
	}
}

// TestTexts: every language has every text, and each text stands in a place
// where it is asked for.
func TestTexts(t *testing.T) {
	t.Parallel()
	keys := slices.Sorted(maps.Keys(botTexts[defaultLanguage]))
	placeholder := regexp.MustCompile(`\{[a-z]+\}`)
	for _, locale := range Locales() {
		texts := botTexts[locale]
		if got := slices.Sorted(maps.Keys(texts)); !slices.Equal(got, keys) {
			t.Errorf("%s has the texts %v, want %v", locale, got, keys)
		}
		for key, template := range texts {
			p := usual
			p.Locale = locale
			if got := text(locale, key, p); strings.ContainsAny(got, "{}") || got == "" || strings.Contains(got, "  ") {
				t.Errorf("%s %s: %q", locale, key, got)
			}
			english := placeholder.FindAllString(botTexts[defaultLanguage][key], -1)
			for _, want := range english {
				if key != "cancelled" && key != "person.any" && !strings.Contains(template, want) {
					t.Errorf("%s %s lacks %s: %q", locale, key, want, template)
				}
			}
			for _, got := range placeholder.FindAllString(template, -1) {
				if !slices.Contains(english, got) {
					t.Errorf("%s %s shows %s, which the English text does not", locale, key, got)
				}
			}
			if _, after, found := strings.Cut(template, "{link}"); found && after != "" && after[0] != ' ' {
				t.Errorf("%s %s: something is glued to the link: %q", locale, key, template)
			}
			intent, situation, dotted := strings.Cut(key, ".")
			switch {
			case !dotted, situation == string(WhatsApp), situation == "button":
				if !(&Message{Purpose: Purpose(intent)}).isNotice() {
					t.Errorf("%s: %s is for no message", locale, key)
				}
			case intent == "button":
				if !slices.ContainsFunc(slices.Collect(maps.Values(offers)), func(ids []string) bool { return slices.Contains(ids, situation) }) {
					t.Errorf("%s: %s is offered nowhere", locale, key)
				}
			case situation != "any" && situation != "confirm" && !slices.Contains(slices.Collect(maps.Values(situations)), situation), !slices.Contains(intents, Intent(intent)):
				t.Errorf("%s: %s answers nothing", locale, key)
			}
		}
	}
}

// TestOneSegment: the messages that a business begins, and the confirmations,
// cost one part of an SMS with usual values.
func TestOneSegment(t *testing.T) {
	t.Parallel()
	for _, locale := range Locales() {
		p := usual
		p.Locale = locale
		for _, key := range []string{"payment", "receipt", "cancelled", "refund", "stop.confirm", "start.confirm"} {
			got := SMSText(text(locale, key, p))
			s := Segments(got)
			switch {
			case slices.Contains(notGSM, locale):
				if s.Encoding != UCS2 || s.Parts > 3 {
					t.Errorf("%s %s: %+v for %q", locale, key, s, got)
				}
			case s.Encoding != GSM7 || s.Parts != 1:
				t.Errorf("%s %s: %+v because of %v in %q", locale, key, s, OutsideGSM(got), got)
			}
		}
	}
}

// TestWhatsAppBodies: what Meta asks of the body of a template, and in what
// order the adapters give the values.
func TestWhatsAppBodies(t *testing.T) {
	t.Parallel()
	for _, locale := range Locales() {
		for purpose, want := range map[Purpose][]string{
			PurposePayment: {"{1}", "{2}", "{3}"}, PurposeReceipt: {"{1}", "{2}", "{3}"}, PurposeCancelled: {"{1}", "{3}"}, PurposeRefund: {"{1}", "{2}", "{3}"},
		} {
			body := Merchant{}.Text(WhatsApp, purpose, Parameters{Merchant: "{1}", Amount: "{2}", Order: "{3}", Link: "{4}", Locale: locale})
			values := regexp.MustCompile(`\{\d\}`)
			if got := values.FindAllString(body, -1); !slices.Equal(got, want) {
				t.Errorf("%s %s shows %v, want %v: %q", locale, purpose, got, want, body)
			}
			if strings.HasPrefix(body, "{") || strings.HasSuffix(body, "}") || regexp.MustCompile(`\}\s*\{`).MatchString(body) || utf8.RuneCountInString(body) > 500 {
				t.Errorf("%s %s: a value stands first, last or beside another, or the text is long: %q", locale, purpose, body)
			}
		}
		for purpose, has := range map[Purpose]bool{PurposePayment: true, PurposeReceipt: true, PurposeRefund: true, PurposeCancelled: false, PurposeReply: false} {
			if n := utf8.RuneCountInString(LinkButton(purpose, locale+"-XX")); n > 20 || (n > 0) != has {
				t.Errorf("%s %s: the button is %q", locale, purpose, LinkButton(purpose, locale))
			}
		}
	}
}

func TestMerchantsOwnTexts(t *testing.T) {
	t.Parallel()
	m := Merchant{Name: "Acme", Texts: map[string]map[string]string{
		"en":    {"payment": "{merchant} asks “{amount}”: {link}"},
		"de-AT": {"payment": "{merchant} AT {link}"},
		"de":    {"receipt": "{merchant} DE {link}"},
		"sv":    {"payment": "{merchant} SV {link}"},
	}}
	p := Parameters{Merchant: "Acme", Amount: "EUR 5.00", Order: "1", Link: "https://x/p/1"}
	for _, tt := range []struct {
		locale  string
		channel Channel
		purpose Purpose
		want    string
	}{
		{"en", SMS, PurposePayment, `Acme asks "EUR 5.00": https://x/p/1`},
		{"en-GB", SMS, PurposePayment, `Acme asks "EUR 5.00": https://x/p/1`},
		{"", SMS, PurposePayment, `Acme asks "EUR 5.00": https://x/p/1`},
		{"xx", SMS, PurposePayment, `Acme asks "EUR 5.00": https://x/p/1`},
		{"de_at", SMS, PurposePayment, "Acme AT https://x/p/1"},
		{"de-AT", SMS, PurposeReceipt, "Acme DE https://x/p/1"},
		{"de-CH", SMS, PurposePayment, text("de", "payment", p)},
		{"sv-SE", SMS, PurposePayment, "Acme SV https://x/p/1"},
		{"sv", SMS, PurposeReceipt, text("en", "receipt", p)},
		{"fr", SMS, PurposePayment, text("fr", "payment", p)},
		{"en", WhatsApp, PurposePayment, text("en", "payment.whatsapp", p)},
	} {
		p.Locale = tt.locale
		if got := m.Text(tt.channel, tt.purpose, p); got != tt.want {
			t.Errorf("%s %s %s: %q, want %q", tt.locale, tt.channel, tt.purpose, got, tt.want)
		}
	}
}

// TestCommandWords: whoever writes the words that a text names is understood,
// and in every language the same is on offer.
func TestCommandWords(t *testing.T) {
	t.Parallel()
	words := regexp.MustCompile(`\p{Lu}{3,}`)
	offered := func(locale, key string) (meant []Intent) {
		plain := Parameters{Merchant: "acme", Amount: "5", Order: "1", Link: "x", Locale: locale}
		for _, word := range words.FindAllString(text(locale, key, plain), -1) {
			if word == "SMS" {
				continue
			}
			for _, channel := range Channels {
				m := Recognise(Heard{Channel: channel, Text: word})
				if m.Intent == IntentOther {
					t.Errorf("%s %s: nobody understands %s", locale, key, word)
				}
				if m.Locale != "" && m.Locale != locale {
					t.Errorf("%s %s: %s is answered in %s", locale, key, word, m.Locale)
				}
				if channel == SMS {
					meant = append(meant, m.Intent)
				}
			}
		}
		return meant
	}
	for key := range botTexts[defaultLanguage] {
		want := offered(defaultLanguage, key)
		for _, locale := range Locales() {
			if got := offered(locale, key); !slices.Equal(got, want) {
				t.Errorf("%s %s offers %v, in English %v", locale, key, got, want)
			}
		}
	}
}
