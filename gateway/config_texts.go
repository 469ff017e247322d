package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/language"

	"paythread/conversations"
)

// TextsConfig is a merchant's own wording of its SMS messages in one language.
// An empty one is left to the shipped texts.
type TextsConfig struct {
	Locale    string
	Payment   string
	Receipt   string
	Cancelled string
	Refund    string
}

// ownText is one of the texts, with the rules that go with its purpose.
type ownText struct {
	key          string
	purpose      conversations.Purpose
	text         *string
	placeholders []string
}

func (t *TextsConfig) texts() []ownText {
	named := []string{"{merchant}", "{amount}", "{order}", "{link}"}
	return []ownText{
		{"payment", conversations.PurposePayment, &t.Payment, named},
		{"receipt", conversations.PurposeReceipt, &t.Receipt, named},
		{"cancelled", conversations.PurposeCancelled, &t.Cancelled, named[:3]},
		{"refund", conversations.PurposeRefund, &t.Refund, named},
	}
}

// domainTexts returns the texts as the domain looks them up.
func domainTexts(texts []*TextsConfig) map[string]map[string]string {
	all := make(map[string]map[string]string, len(texts))
	for _, t := range texts {
		own := map[string]string{}
		for _, x := range t.texts() {
			if *x.text != "" {
				own[string(x.purpose)] = *x.text
			}
		}
		all[t.Locale] = own
	}
	return all
}

func (m *MerchantConfig) textsField() field {
	return field{
		key: "texts", kind: kindItems, identity: "locale",
		doc: "The merchant's own wording of the SMS messages about a payment request, in place of the shipped ones: an element for each " +
			"language. {merchant}, {amount}, {order} and {link} stand for the values. \"paythread config check\" says when a text takes more than " +
			"one part of an SMS. On WhatsApp the wording is that of the approved templates.",
		add: func() section {
			t := &TextsConfig{}
			m.Texts = append(m.Texts, t)
			return section{fields: []field{
				value(&t.Locale, kindText, aLocale, "locale", "",
					"The language, such as en or pt-BR. de serves de-AT, too, if that has no text of its own.").names().like("en"),
				value(&t.Payment, kindText, trimmed, "payment", "",
					"Asks to pay. {link} stands in it once, followed by a space or nothing.").
					like("{merchant}: please pay {amount} for order {order}: {link} Reply STOP to opt out"),
				value(&t.Receipt, kindText, trimmed, "receipt", "", "Brings the receipt. {link} stands in it once, too."),
				value(&t.Cancelled, kindText, trimmed, "cancelled", "", "Says that there is nothing to pay any more. It has no link."),
				value(&t.Refund, kindText, trimmed, "refund", "", "Says that money went back: {amount} is what did, and {link} leads to the receipt and stands in it once."),
			}}
		},
	}
}

// trimmed takes a text without the line ends that YAML's blocks leave.
func trimmed(s string) (string, error) {
	if s = strings.TrimSpace(s); s == "" {
		return "", fmt.Errorf("want a text, or leave the key out")
	}
	return s, nil
}

// mostParts is how many parts of an SMS a text may take: with more, companies
// refuse it (Twilio: 1600 characters).
const mostParts = 10

// longestOrder is how many characters the domain takes of an order's reference.
const longestOrder = 50

// checkTexts looks at the merchant's own texts, and at whether there are texts
// in its language.
func (m *MerchantConfig) checkTexts(r *reader, path string) {
	seen := map[string]string{}
	for i, t := range m.Texts {
		p := fmt.Sprintf("%s.texts[%d]", path, i)
		unique(r, seen, t.Locale, p+".locale", "is the language of %s too, want one element for each language")
		if t.Payment+t.Receipt+t.Cancelled+t.Refund == "" && !r.anyWithin(p) {
			r.problem(p, "has no text, want payment, receipt, cancelled or refund")
		}
		for _, x := range t.texts() {
			if *x.text != "" {
				m.checkText(r, path, join(p, x.key), x, t.Locale)
			}
		}
	}
	if at := path + ".locale"; r.fine(at) && m.Locale != "" && !speaks(m, m.Locale) {
		r.hint(at, "there are no texts in %s and messages are in English; texts ship in %s", m.Locale, strings.Join(conversations.Locales(), ", "))
	}
}

// speaks tells whether there are texts in a locale's language.
func speaks(m *MerchantConfig, locale string) bool {
	base := func(l string) string { b, _ := language.Make(l).Base(); return b.String() }
	return base(conversations.Language(locale)) == base(locale) ||
		slices.ContainsFunc(m.Texts, func(t *TextsConfig) bool { return t.Payment != "" && base(t.Locale) == base(locale) })
}

// checkText reports what is wrong with the text at a key of the merchant at
// path; only if nothing is, how long it is.
func (m *MerchantConfig) checkText(r *reader, path, at string, x ownText, locale string) {
	wrong := false
	say := func(format string, args ...any) {
		wrong = true
		r.problem(at, format, args...)
	}
	for _, c := range *x.text {
		if unicode.IsControl(c) || c == utf8.RuneError {
			say("holds the control character %U, want one line of text", c)
			break
		}
	}
	rest := placeholderPattern.ReplaceAllStringFunc(*x.text, func(p string) string {
		if !slices.Contains(x.placeholders, p) {
			say("%s stands for nothing here, want %s%s", shorten(p), orList(x.placeholders), suggestion(p, x.placeholders))
		}
		return " "
	})
	if strings.ContainsAny(rest, "{}") {
		say("has a brace that belongs to no placeholder, want braces in %s only", orList(x.placeholders))
	}
	if name := strings.ToLower(m.Name); !strings.Contains(*x.text, "{merchant}") && (name == "" || !strings.Contains(strings.ToLower(*x.text), name)) {
		say("does not say who writes, want {merchant} in it, or the merchant's name")
	}
	if x.purpose != conversations.PurposeCancelled {
		checkLink(say, *x.text)
	}
	if !r.fine(path+".public_url", path+".name", path+".currencies") {
		return // the rest depends on them
	}
	for _, host := range foreignHosts(rest, m) {
		say("links to %s, want {link} alone, or a link on the merchant's own host (%s): carriers filter what leads elsewhere, and shorteners above all",
			shorten(host), m.Host())
	}
	if !wrong {
		m.checkLength(r, at, x.purpose, locale)
	}
}

var placeholderPattern = regexp.MustCompile(`\{[^{}]*\}`)

// checkLink wants one link that a phone finds whole.
func checkLink(say func(string, ...any), text string) {
	const link = "{link}"
	if n := strings.Count(text, link); n != 1 {
		say("has {link} %d times, want it exactly once", n)
		return
	}
	before, after, _ := strings.Cut(text, link)
	if c, _ := utf8.DecodeRuneInString(after); after != "" && !unicode.IsSpace(c) {
		say("has %q right behind {link}, want a space there, or the end: phones take it into the link", c)
	}
	if c, _ := utf8.DecodeLastRuneInString(before); before != "" && !unicode.IsSpace(c) && c != ':' && c != '(' {
		say("has %q right before {link}, want a space there: phones would not see where the link begins", c)
	}
}

// hostPattern finds what a phone may make a link of: something with a scheme,
// or words joined by dots.
var hostPattern = regexp.MustCompile(`(?i)(@)?(\b[a-z][a-z0-9+.-]*://)?((?:[\p{L}0-9_-]+\.)+\p{L}{2,}|localhost|\d+(?:\.\d+){3})(:\d+)?(/\S*)?`)

// topLevels are the most usual of the top-level domains that are no country's.
var topLevels = []string{"app", "biz", "cc", "club", "com", "dev", "eu", "gl", "gle", "info", "link", "live", "ly", "me", "mobi", "net", "online", "org", "page", "pay", "shop", "site", "store", "to", "top", "uk", "xyz"}

// foreignHosts returns the hosts that a text links to and that are not the
// merchant's own. A name with dots (Booking.com) is no link if it is the
// merchant's, nor is an address of mail.
func foreignHosts(text string, m *MerchantConfig) []string {
	if m.Name != "" {
		text = regexp.MustCompile(`(?i)`+regexp.QuoteMeta(m.Name)).ReplaceAllString(text, " ")
	}
	var found []string
	for _, match := range hostPattern.FindAllStringSubmatch(text, -1) {
		mail, scheme, name, port, path := match[1], match[2], strings.ToLower(match[3]), match[4], match[5]
		top := name[strings.LastIndexByte(name, '.')+1:]
		region, err := language.ParseRegion(top)
		isDomain := slices.Contains(topLevels, top) || len(top) == 2 && err == nil && region.IsCountry()
		isLink := scheme != "" || path != "" || strings.HasPrefix(name, "www.") || mail == "" && isDomain
		if isLink && !strings.EqualFold(name+port, m.Host()) {
			found = append(found, name)
		}
	}
	return found
}

// checkLength counts the parts that a text takes: with the longest values for
// what is refused, with usual ones for what is worth a hint.
func (m *MerchantConfig) checkLength(r *reader, at string, purpose conversations.Purpose, locale string) {
	p := conversations.Parameters{
		Merchant: m.Name, Amount: m.sampleAmount(1214900).String(), Order: "SO-104217",
		LinkCode: sampleCode, Link: m.PublicURL + "/p/" + sampleCode, Locale: locale,
	}
	usual := m.Domain().Text(conversations.SMS, purpose, p)
	p.Amount, p.Order = m.sampleAmount(conversations.MaxMinor).String(), strings.Repeat("0", longestOrder)
	if n := conversations.Segments(m.Domain().Text(conversations.SMS, purpose, p)).Parts; n > mostParts {
		r.problem(at, "takes %d parts of an SMS with the longest values, want at most %d", n, mostParts)
		return
	}
	switch s := conversations.Segments(usual); {
	case s.Parts == 1:
	case s.Encoding == conversations.UCS2:
		r.hint(at, "takes %d parts of an SMS with usual values and costs as many; because of %s only 70 characters fit into one, else 160",
			s.Parts, strings.Join(conversations.OutsideGSM(usual), " "))
	default:
		r.hint(at, "takes %d parts of an SMS with usual values and costs as many; one holds 160 characters and this has %d", s.Parts, s.Units)
	}
}

// sampleAmount returns so many minor units of the first currency that the
// merchant takes.
func (m *MerchantConfig) sampleAmount(minor int64) conversations.Money {
	currency := "ZAR"
	if len(m.Currencies) > 0 {
		currency = m.Currencies[0]
	}
	return conversations.Money{Minor: minor, Currency: currency}
}
