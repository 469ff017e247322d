package meta

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

var (
	errDuplicate = errors.New("a key comes twice")
	errDeep      = errors.New("nested too deep")
	errEncoding  = errors.New("not UTF-8")
	errShape     = errors.New("not what was expected here")
)

// object reads one JSON object and leaves its members as they are, so that a
// bad one spoils nothing but itself.
func object(raw []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errShape
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if !ok {
			return nil, errShape
		}
		if _, twice := members[key]; twice {
			return nil, errDuplicate
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		members[key] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errShape // something follows
	}
	return members, nil
}

// list reads one JSON array and leaves its elements as they are. An absent or
// null one is empty.
func list(raw json.RawMessage) ([]json.RawMessage, error) {
	var elements []json.RawMessage
	if len(raw) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(raw, &elements); err != nil {
		return nil, errShape
	}
	return elements, nil
}

// text reads a string member; anything else is "".
func text(raw json.RawMessage) string {
	var s loose
	_ = s.UnmarshalJSON(raw) // it never fails, what cannot be read is ""
	return string(s)
}

// element reads one element of a batch into v after it was found sound.
func element(raw []byte, v any) error {
	if err := sound(raw); err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

// sound refuses what two readers could read differently: keys that come twice
// (the struct decoder also folds case), bytes that are not UTF-8, and depth
// that no payload has.
func sound(raw []byte) error {
	if !utf8.Valid(raw) {
		return errEncoding
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return soundValue(d, 0)
}

func soundValue(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return errDeep
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
				return errShape
			}
			key = strings.ToLower(key)
			if seen[key] {
				return errDuplicate
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

// loose is a value that is documented as a string and seen as a number, or the
// other way round. Anything else is "".
type loose string

// UnmarshalJSON takes a string or a number and never fails.
func (l *loose) UnmarshalJSON(raw []byte) error {
	*l = ""
	if len(raw) == 0 {
		return nil
	}
	switch c := raw[0]; {
	case c == '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			*l = loose(s)
		}
	case c == '-', c >= '0' && c <= '9':
		*l = loose(raw)
	}
	return nil
}
