package providers

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"paythread/conversations"
)

// Phone returns the address of an international phone number as providers
// write it: digits, with or without a plus sign, spaces, dots, dashes and
// brackets. It is false for anything else, such as a short code. The national
// spellings of one number stay apart: making them one is the domain's.
func Phone(s string) (conversations.Address, bool) {
	digits := make([]byte, 1, 16)
	digits[0] = '+'
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits = append(digits, c)
		case c == '+' && len(digits) == 1, strings.IndexByte(" .-()", c) >= 0:
		default:
			return conversations.Address{}, false
		}
		if len(digits) > 16 { // E.164 has at most 15 digits
			return conversations.Address{}, false
		}
	}
	if len(digits) < 8 || digits[1] == '0' {
		return conversations.Address{}, false
	}
	return conversations.Address{Kind: conversations.AddressPhone, Value: string(digits)}, true
}

// MaxCorrelation is the length of the longest correlation value.
const MaxCorrelation = 64

// Correlation returns s if it has the form of an Outbound.Correlation, else
// "": other programs may send through the same number, with values of theirs.
func Correlation(s string) string {
	if len(s) > MaxCorrelation {
		return ""
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '_' && c != '-' && c != '.' {
			return ""
		}
	}
	return s
}

// Word returns a foreign word, such as the name of an unknown message type,
// made fit for logs and lists: lower-case letters, digits, "_", "-" and "/",
// at most 40 of them, and "unknown" if nothing is left.
func Word(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if b.Len() == 40 {
			break
		}
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("_-/", r) {
			b.WriteRune(r)
		}
	}
	if b.Len() == 0 {
		return "unknown"
	}
	return b.String()
}

// Text returns what a person wrote as valid UTF-8 without control characters
// (line feeds and tabs stay), at most max characters of it.
func Text(s string, max int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
	if utf8.RuneCountInString(s) > max {
		s = string([]rune(s)[:max])
	}
	return s
}

// NotAfter returns t in UTC, or received if t is later: a provider's clock
// that runs ahead must not put events into the future.
func NotAfter(t, received time.Time) time.Time {
	if t.After(received) {
		t = received
	}
	return t.UTC()
}

// Digest makes an id for an event to which the provider gives none: the same
// parts give the same id, and the parts cannot be read from it.
func Digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		// The length keeps ("ab","c") and ("a","bc") apart. A hash never fails.
		_, _ = h.Write([]byte{byte(len(p) >> 16), byte(len(p) >> 8), byte(len(p))})
		_, _ = h.Write([]byte(p))
	}
	return "digest:" + hex.EncodeToString(h.Sum(nil)[:16])
}
