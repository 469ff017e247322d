package conversations

import "strings"

var botTexts = map[string]map[string]string{"en": mustReadTexts("en")}

// Locales are the languages that messages can be written in.
func Locales() []string { return []string{"en"} }

func mustReadTexts(locale string) map[string]string {
	texts := map[string]string{}
	mustRead("texts."+locale+".yaml", &texts)
	return texts
}

// text returns a text in a language, or in English where that one lacks it.
func text(locale, key string, p Parameters) string {
	texts, ok := botTexts[locale]
	if !ok {
		texts = botTexts["en"]
	}
	return strings.TrimSpace(strings.NewReplacer(
		"{merchant}", p.Merchant, "{amount}", p.Amount, "{order}", p.Order, "{link}", p.Link,
	).Replace(texts[key]))
}

// Text returns the message of a purpose as a customer reads it on a channel:
// the merchant's own wording where it has one. On WhatsApp it is the body of
// the template, whose button carries the link. The locale falls back to
// English.
func (m Merchant) Text(channel Channel, purpose Purpose, p Parameters) string {
	if on := text(p.Locale, string(purpose)+"."+string(channel), p); on != "" {
		return on
	}
	return text(p.Locale, string(purpose), p)
}
