package unifiedcheckout

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"paythread/conversations"
)

// text is a string that some answers write as a number.
type text string

// UnmarshalJSON takes a string, a number, or null.
func (t *text) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if len(b) > 0 && b[0] == '"' {
		var s string
		err := json.Unmarshal(b, &s)
		*t = text(s)
		return err
	}
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	*t = text(n)
	return nil
}

var errAmbiguous = errors.New("the JSON has a member twice, or something after its end")

// decodeStrict reads one JSON value whose objects have no member twice, not
// even in other letters: encoding/json would take the last one, and what an
// answer says of money must not depend on who reads it.
func decodeStrict(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := unique(d); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errAmbiguous
	}
	return json.Unmarshal(body, v)
}

// unique walks one value. Its stack is a slice, so that depth costs no calls.
func unique(d *json.Decoder) error {
	type level struct {
		names map[string]bool // nil in an array
		name  bool            // a member's name is next
	}
	var stack []level
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		top := len(stack) - 1
		switch t := token.(type) {
		case json.Delim:
			switch t {
			case '{', '[':
				if top >= 0 {
					stack[top].name = stack[top].names != nil
				}
				l := level{}
				if t == '{' {
					l = level{names: map[string]bool{}, name: true}
				}
				stack = append(stack, l)
				continue
			default:
				stack = stack[:top]
			}
		case string:
			if top >= 0 && stack[top].names != nil && stack[top].name {
				folded := strings.ToLower(strings.ToUpper(t)) // both, as encoding/json folds letters like U+017F
				if stack[top].names[folded] {
					return errAmbiguous
				}
				stack[top].names[folded] = true
				stack[top].name = false
				continue
			}
			if top >= 0 {
				stack[top].name = stack[top].names != nil
			}
		default:
			if top >= 0 {
				stack[top].name = stack[top].names != nil
			}
		}
		if len(stack) == 0 {
			return nil
		}
	}
}

// word keeps a platform's word only if it looks like one, so that nothing else
// of a foreign body gets into a record or a log.
func word(s string) string {
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) {
		return ""
	}
	return s
}

// parseAmount reads an amount of an answer. Some write more decimals than the
// currency has; zeros among them change nothing, anything else is refused.
func parseAmount(value, currency string) (conversations.Money, bool) {
	digits, ok := conversations.CurrencyDigits(currency)
	if !ok {
		return conversations.Money{}, false
	}
	if whole, fraction, dotted := strings.Cut(value, "."); dotted && len(fraction) > digits && strings.Trim(fraction[digits:], "0") == "" {
		value = whole
		if digits > 0 {
			value += "." + fraction[:digits]
		}
	}
	m, err := conversations.ParseMoney(value, currency)
	return m, err == nil
}
