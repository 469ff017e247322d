package conversations

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// While versions work side by side, and after a way back, a document may have
// fields that this version does not know. Whoever writes it keeps them.

// errNewer says that a document was read, and has fields that are not known.
var errNewer = errors.New("fields of a newer version")

// readDocument reads a document into a thing. Of errNewer it was read whole, but
// for what is not known.
func readDocument(text document, into any) error {
	known := json.NewDecoder(strings.NewReader(text))
	known.DisallowUnknownFields()
	if known.Decode(into) == nil {
		return nil
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return err
	}
	return errNewer
}

// noteNewer notes what has such fields, which is no error.
func (s *State) noteNewer(id string, err error) error {
	if !errors.Is(err, errNewer) {
		return err
	}
	if s.newer == nil {
		s.newer = map[string]bool{}
	}
	s.newer[id] = true
	return nil
}

// withNewer returns what is to be written of a document, with the fields of what
// was read that this version does not know. blank is an empty thing of its kind.
func withNewer(was document, now []byte, blank any) (document, error) {
	if err := json.Unmarshal([]byte(was), blank); err != nil {
		return "", err
	}
	understood, err := json.Marshal(blank)
	if err != nil {
		return "", err
	}
	var trees [3]any
	for i, text := range [][]byte{[]byte(was), understood, now} {
		exact := json.NewDecoder(bytes.NewReader(text))
		exact.UseNumber()
		if err := exact.Decode(&trees[i]); err != nil {
			return "", fmt.Errorf("keep newer fields: %w", err)
		}
	}
	kept, err := json.Marshal(keepNewer(trees[0], trees[1], trees[2]))
	return string(kept), err
}

// keepNewer returns now with what was in was and could not be understood.
func keepNewer(was, understood, now any) any {
	switch now := now.(type) {
	case map[string]any:
		was, isObject := was.(map[string]any)
		understood, wasRead := understood.(map[string]any)
		if !isObject || !wasRead {
			return now
		}
		kept := maps.Clone(now)
		for name, value := range was {
			read, isKnown := understood[name]
			present, isThere := now[name]
			switch {
			case isKnown && isThere:
				kept[name] = keepNewer(value, read, present)
			case !isKnown && !isThere:
				kept[name] = value
			}
		}
		return kept
	case []any:
		was, isList := was.([]any)
		understood, wasRead := understood.([]any)
		if !isList || !wasRead || len(was) != len(understood) {
			return now
		}
		kept, taken := slices.Clone(now), make([]bool, len(was))
		for n, item := range now {
			for i, read := range understood {
				if !taken[i] && sameItem(read, item) {
					taken[i] = true
					kept[n] = keepNewer(was[i], read, item)
					break
				}
			}
		}
		return kept
	}
	return now
}

// itemNames are the fields by which an item of a list is known again after it
// has changed: an operation's id, an attempt's number.
var itemNames = []string{"id", "n"}

// sameItem tells whether two items of a list are the same one.
func sameItem(a, b any) bool {
	x, isObject := a.(map[string]any)
	y, areObjects := b.(map[string]any)
	if !isObject || !areObjects {
		return false // what is no object has no fields
	}
	for _, name := range itemNames {
		if id, ok := x[name]; ok {
			return id == y[name]
		}
	}
	return fmt.Sprint(x) == fmt.Sprint(y) // maps are printed in order
}
