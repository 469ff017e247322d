package conversations

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"

	"golang.org/x/text/unicode/norm"
)

// SMSEncoding is how the text of an SMS is written on the wire.
type SMSEncoding string

// The encodings.
const (
	GSM7 SMSEncoding = "gsm7" // 3GPP TS 23.038, default alphabet with its extension
	UCS2 SMSEncoding = "ucs2" // UTF-16 in practice
)

// SMSSegments is what an SMS takes: units are septets or 16-bit units, parts
// are the messages it is sent and charged as.
type SMSSegments struct {
	Encoding SMSEncoding
	Units    int
	Parts    int
}

// The default alphabet of 3GPP TS 23.038 without ESC, and the characters of
// its extension table, which take an ESC before them.
const (
	gsmAlphabet = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
		"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
	gsmExtension = "\f^{}\\[~]|€"
)

// smsLimits are the units of a message that goes alone, and of each part of a
// longer one, whose header with an 8-bit reference takes six bytes.
var smsLimits = map[SMSEncoding]struct{ single, part int }{GSM7: {160, 153}, UCS2: {70, 67}}

// Segments counts what a text takes as an SMS. One character outside the GSM
// alphabet makes the whole text UCS-2. A pair of ESC and character, or of
// surrogates, is never split over two parts, so that parts can hold less than
// their limit.
func Segments(text string) SMSSegments {
	s := SMSSegments{Encoding: GSM7, Parts: 1}
	if strings.ContainsFunc(text, outsideGSM) {
		s.Encoding = UCS2
	}
	limit := smsLimits[s.Encoding]
	parts, inPart := 1, 0
	for _, r := range text {
		n := gsmSeptets(r)
		if s.Encoding == UCS2 {
			n = utf16.RuneLen(r)
		}
		s.Units += n
		if inPart += n; inPart > limit.part {
			parts, inPart = parts+1, n
		}
	}
	if s.Units > limit.single {
		s.Parts = parts
	}
	return s
}

// gsmSeptets returns how many septets a character takes, 0 if it has none.
func gsmSeptets(r rune) int {
	switch {
	case strings.ContainsRune(gsmAlphabet, r):
		return 1
	case strings.ContainsRune(gsmExtension, r):
		return 2
	}
	return 0
}

func outsideGSM(r rune) bool { return gsmSeptets(r) == 0 }

// OutsideGSM returns the characters for which a text goes as UCS-2 even after
// what SMSText replaces, each once, in the order in which they stand; those that
// nobody would see are written as their code points (U+202E).
func OutsideGSM(text string) []string {
	var found []string
	for _, r := range plainText(text) {
		if !outsideGSM(r) {
			continue
		}
		c := string(r)
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) || unicode.IsMark(r) {
			c = fmt.Sprintf("%U", r)
		}
		if !slices.Contains(found, c) {
			found = append(found, c)
		}
	}
	return found
}

// SMSText returns a text as it is sent by SMS: typographic characters, which
// the GSM alphabet lacks, are replaced by plain ones, and invisible ones left
// out, if that makes the text GSM-7 and takes no more parts. One curly quote would more than halve what
// fits into a part. A text that stays UCS-2 all the same, because of a letter or
// an emoji, is left as it was written: there a plain character takes as much
// as a typographic one, an ellipsis of three takes more, and the invisible
// joiners hold emoji and the letters of some scripts together. Letters never
// lose their accents: that would be another word.
func SMSText(text string) string {
	plain := plainText(text)
	// Ellipses alone can grow by more than the shorter characters give back.
	if now := Segments(plain); now.Encoding == UCS2 || now.Parts > Segments(text).Parts {
		return text
	}
	return plain
}

// plainText replaces typographic characters by plain ones and composes letters
// with their accents.
func plainText(text string) string {
	var b strings.Builder
	for _, r := range norm.NFC.String(text) {
		if full := r - '！' + '!'; r >= '！' && r <= '～' {
			r = full // the full-width forms of ASCII
		}
		plain, replaced := typography[r]
		switch {
		case replaced:
			b.WriteString(plain)
		case r == '\u2028', r == '\u2029':
			b.WriteByte('\n')
		case unicode.Is(unicode.Zs, r), r == '\t':
			b.WriteByte(' ')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// typography are the characters with a plain counterpart, beside spaces and
// full-width forms.
var typography = replacements(map[string]string{
	`"`:   "«»“”„‟ʺ❝❞〝〞",
	"'":   "‘’‚‛‹›ʻʼʽ´ˋ`❛❜",
	"-":   "‐‑‒–—―−",
	"...": "…",
	"":    "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", // soft hyphen, zero-width spaces and joiners, marks of direction
})

func replacements(table map[string]string) map[rune]string {
	all := map[rune]string{}
	for plain, characters := range table {
		for _, r := range characters {
			all[r] = plain
		}
	}
	return all
}
