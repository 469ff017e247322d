package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// canonicalJSON checks that a body is exactly one JSON object, in UTF-8, with
// no name twice in any object, and returns it in one form whatever its spaces
// and the order of its names. What encoding/json would let pass silently must
// not: of two amounts of one name, which one was meant?
func canonicalJSON(body []byte) ([]byte, error) {
	if !utf8.Valid(body) {
		return nil, malformed("the body is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	v, err := readValue(d, "", maxDepth)
	var p *Problem
	switch {
	case errors.As(err, &p):
		return nil, p
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, malformed("the JSON ends too early")
	case err != nil:
		return nil, malformed(fmt.Sprintf("the body is not JSON, at byte %d", d.InputOffset()))
	}
	if _, ok := v.(map[string]any); !ok {
		return nil, malformed("the body is not a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("something follows the JSON object")
	}
	return json.Marshal(v)
}

func malformed(detail string) *Problem { return badRequest(400, "malformed", detail) }

// maxDepth is how deep values may nest; ours nest four deep.
const maxDepth = 32

// readValue reads the next value. path names it in a complaint.
func readValue(d *json.Decoder, path string, depth int) (any, error) {
	if depth == 0 {
		return nil, malformed("the values nest too deep")
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			t, err := d.Token()
			if err != nil {
				return nil, err
			}
			name, at := t.(string), path
			if at != "" {
				at += "."
			}
			at += name
			if _, twice := object[name]; twice {
				p := malformed("the field " + clipped(at) + " is there twice")
				p.Errors = []FieldProblem{{Field: clipped(at), Message: "it is there twice", Location: "body." + clipped(at)}}
				return nil, p
			}
			if object[name], err = readValue(d, at, depth-1); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := readValue(d, fmt.Sprintf("%s[%d]", path, len(list)), depth-1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	return t, nil
}

// clipped shortens foreign text that goes into an answer.
func clipped(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return string(bytes.ToValidUTF8([]byte(s[:most]), nil)) + "..."
}
