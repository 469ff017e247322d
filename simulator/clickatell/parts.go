package clickatell

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

// septets is what a character takes in the GSM alphabet; 0 when it is not in it.
func septets(r rune) int {
	switch {
	case strings.ContainsRune(gsmBasic, r):
		return 1
	case strings.ContainsRune(gsmExtension, r):
		return 2
	}
	return 0
}

// parts counts the SMS that a text takes. One character outside the GSM alphabet
// turns the whole text into UTF-16; a pair of units is never split.
func parts(text string) int {
	single, each, size := 160, 153, septets
	if strings.ContainsFunc(text, func(r rune) bool { return septets(r) == 0 }) {
		single, each, size = 70, 67, utf16.RuneLen
	}
	total, n, room := 0, 1, each
	for _, r := range text {
		units := size(r)
		total += units
		if units > room {
			n++
			room = each
		}
		room -= units
	}
	if total <= single {
		return 1
	}
	return n
}
