package providers

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

// maxDepth is the deepest that a webhook is nested; the deepest that is known
// has about 12 levels.
const maxDepth = 32

// What is wrong with a foreign value. None of them quotes it.
var (
	ErrDuplicate = errors.New("a key comes twice")
	ErrDeep      = errors.New("nested too deep")
	ErrEncoding  = errors.New("not UTF-8")
	ErrShape     = errors.New("not what was expected here")
)

// Object reads one JSON object and leaves its members as they are, so that a
// bad one spoils nothing but itself. It refuses a name that comes twice, which
// two readers could read differently, and anything after the end.
func Object(raw []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, ErrShape
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, ErrShape
		}
		key, ok := t.(string)
		if !ok {
			return nil, ErrShape
		}
		if _, twice := members[key]; twice {
			return nil, ErrDuplicate
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, ErrShape
		}
		members[key] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, ErrShape
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, ErrShape // something follows
	}
	return members, nil
}

// List reads one JSON array and leaves its elements as they are. An absent or
// null one is empty.
func List(raw json.RawMessage) ([]json.RawMessage, error) {
	var elements []json.RawMessage
	if len(raw) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(raw, &elements); err != nil {
		return nil, ErrShape
	}
	return elements, nil
}

// Decode reads a value into v after it was found sound: UTF-8, no name twice
// in one object (in another case neither, for Go's decoder folds it), and not
// nested deeper than any webhook is.
func Decode(raw []byte, v any) error {
	if err := sound(raw); err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return ErrShape
	}
	return nil
}

func sound(raw []byte) error {
	if !utf8.Valid(raw) {
		return ErrEncoding
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return soundValue(d, 0)
}

func soundValue(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return ErrDeep
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('['):
		for d.More() {
			if err := soundValue(d, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			t, err := d.Token()
			if err != nil {
				return err
			}
			key, ok := t.(string)
			if !ok {
				return ErrShape
			}
			key = strings.ToLower(strings.ToUpper(key)) // as encoding/json folds them: ſ is an s
			if seen[key] {
				return ErrDuplicate
			}
			seen[key] = true
			if err := soundValue(d, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
	}
	return err
}

// plain tells that a JSON string means what it spells: nearly every id does.
func plain(inner []byte) bool {
	return !bytes.ContainsFunc(inner, func(r rune) bool { return r == '\\' || r > '~' })
}

// Loose is a value that is documented as a string and seen as a number, or the
// other way round. Anything else is "".
type Loose string

// UnmarshalJSON takes a string or a number and never fails.
func (l *Loose) UnmarshalJSON(raw []byte) error {
	*l = ""
	if len(raw) == 0 {
		return nil
	}
	switch c := raw[0]; {
	case c == '"':
		if inner := raw[1:max(1, len(raw)-1)]; plain(inner) {
			*l = Loose(inner)
			return nil
		}
		var s string
		if json.Unmarshal(raw, &s) == nil {
			*l = Loose(s)
		}
	case c == '-', c >= '0' && c <= '9':
		*l = Loose(raw)
	}
	return nil
}
