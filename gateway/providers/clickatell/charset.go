package clickatell

import (
	"strings"
	"unicode/utf16"
)

// decodeText returns an inbound text as a person wrote it. In UTF-8 it stands
// as it is; in the other charsets its bytes are percent-encoded, as in a form,
// and only the bytes together make characters. A charset that is not known is
// left as it came.
func decodeText(s, charset string) string {
	switch strings.ToUpper(strings.TrimSpace(charset)) {
	case "ISO-8859-1":
		return latin1(percentDecoded(s))
	case "UTF-16BE":
		return utf16BE(percentDecoded(s))
	}
	return s
}

// percentDecoded returns the bytes of a percent-encoded text. A plus sign is a
// space, and a percent sign that begins no escape is itself: what cannot be
// decoded must not take the rest of the text with it.
func percentDecoded(s string) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			out = append(out, ' ')
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			out = append(out, hexValue(s[i+1])<<4|hexValue(s[i+2]))
			i += 2
		default:
			out = append(out, c)
		}
	}
	return out
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func hexValue(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

// latin1 returns the text of bytes whose values are the code points.
func latin1(bytes []byte) string {
	runes := make([]rune, len(bytes))
	for i, c := range bytes {
		runes[i] = rune(c)
	}
	return string(runes)
}

// utf16BE returns the text of pairs of bytes, surrogates joined. A byte
// without its other half is lost text and shown as such.
func utf16BE(bytes []byte) string {
	units := make([]uint16, 0, len(bytes)/2)
	for i := 0; i+1 < len(bytes); i += 2 {
		units = append(units, uint16(bytes[i])<<8|uint16(bytes[i+1]))
	}
	text := strings.TrimPrefix(string(utf16.Decode(units)), "\uFEFF") // a byte order mark is no text
	if len(bytes)%2 == 1 {
		text += "\uFFFD"
	}
	return text
}
