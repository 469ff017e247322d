package conversations

import (
	"strings"
	"unicode/utf16"
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
	if strings.ContainsFunc(text, func(r rune) bool { return gsmSeptets(r) == 0 }) {
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
