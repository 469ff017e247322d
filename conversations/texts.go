package conversations

import (
	"maps"
	"slices"
	"strings"
)

// defaultLanguage is the language of whoever's own is not shipped. It has
// every text.
const defaultLanguage = "en"

// botTexts are the shipped texts by language: bot/texts.<language>.yaml.
var botTexts = mustReadTexts()

func mustReadTexts() map[string]map[string]string {
	files, err := botFiles.ReadDir("bot")
	if err != nil {
		panic("conversations: reading the texts: " + err.Error())
	}
	all := map[string]map[string]string{}
	for _, f := range files {
		name, isTexts := strings.CutPrefix(f.Name(), "texts.")
		if !isTexts {
			continue
		}
		texts := map[string]string{}
		mustRead(f.Name(), &texts)
		all[strings.TrimSuffix(name, ".yaml")] = texts
	}
	return all
}

// Locales are the languages that messages can be written in, in alphabetical
// order.
func Locales() []string { return slices.Sorted(maps.Keys(botTexts)) }

// Language returns the one of Locales in which a message for a locale is
// written: that of the locale itself, else of its base language (de-AT: de),
// else English. Case does not matter, and _ is read as -.
func Language(locale string) string {
	for _, l := range fallbacks(locale) {
		if _, shipped := botTexts[l]; shipped {
			return l
		}
	}
	return defaultLanguage
}

// fallbacks returns the locales whose texts serve a locale, nearest first:
// itself, each shorter form of it, and English.
func fallbacks(locale string) []string {
	var all []string
	for l := foldLocale(locale); l != ""; {
		all = append(all, l)
		l = l[:max(0, strings.LastIndexByte(l, '-'))]
	}
	if !slices.Contains(all, defaultLanguage) {
		all = append(all, defaultLanguage)
	}
	return all
}

// foldLocale writes a locale in the one spelling that is compared.
func foldLocale(locale string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimSpace(locale), "_", "-"))
}

// text returns a shipped text in the language of a locale, or in English where
// that one lacks it; "" if there is none.
func text(locale, key string, p Parameters) string {
	template, ok := botTexts[Language(locale)][key]
	if !ok {
		template = botTexts[defaultLanguage][key]
	}
	return filled(template, p)
}

// filled puts the values in the place of their names.
func filled(template string, p Parameters) string {
	return strings.TrimSpace(strings.NewReplacer(
		"{merchant}", p.Merchant, "{amount}", p.Amount, "{order}", p.Order, "{link}", p.Link,
	).Replace(template))
}

// Text returns the message of a purpose as a customer reads it on a channel. An
// SMS is in the merchant's own wording where it has one, and in characters
// that cost the least. On WhatsApp it is the body of the template, whose button
// carries the link. A locale without texts falls back as Language says; a
// merchant's own text goes before the shipped one of the same language, and
// not before one of a nearer language.
func (m Merchant) Text(channel Channel, purpose Purpose, p Parameters) string {
	if channel == SMS {
		return SMSText(m.smsText(purpose, p))
	}
	if on := text(p.Locale, string(purpose)+"."+string(channel), p); on != "" {
		return on
	}
	return text(p.Locale, string(purpose), p)
}

func (m Merchant) smsText(purpose Purpose, p Parameters) string {
	for _, l := range fallbacks(p.Locale) {
		for own, texts := range m.Texts {
			if foldLocale(own) == l && texts[string(purpose)] != "" {
				return filled(texts[string(purpose)], p)
			}
		}
		if template, ok := botTexts[l][string(purpose)]; ok {
			return filled(template, p)
		}
	}
	return ""
}

// LinkButton returns the label of the button that carries the link of a message
// of a purpose on WhatsApp, at most 20 characters; "" for a purpose without a
// link.
func LinkButton(purpose Purpose, locale string) string {
	return text(locale, string(purpose)+".button", Parameters{})
}
