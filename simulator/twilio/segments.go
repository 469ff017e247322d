package twilio

import (
	"strings"
	"unicode/utf16"
)

// The GSM 03.38 default alphabet, and the characters of its extension table,
// which take an escape before them.
const (
	gsmBasic = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
		"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
	gsmExtension = "\f^{}\\[~]|€"
)

// segments counts the SMS parts of a text. One character outside the GSM alphabet
// turns the whole text into UCS-2; neither an escape pair nor a surrogate pair is
// ever split between parts.
func segments(text string) int {
	single, part := 160, 153
	size := func(r rune) int {
		if strings.ContainsRune(gsmExtension, r) {
			return 2
		}
		return 1
	}
	for _, r := range text {
		if !strings.ContainsRune(gsmBasic, r) && !strings.ContainsRune(gsmExtension, r) {
			single, part = 70, 67
			size = utf16.RuneLen
			break
		}
	}
	total, parts, used := 0, 1, 0
	for _, r := range text {
		n := size(r)
		total += n
		if used+n > part {
			parts++
			used = 0
		}
		used += n
	}
	if total <= single {
		return 1
	}
	return parts
}
