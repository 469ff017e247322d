package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// longestControl is how many bytes a control call may have: a webhook of the
// largest size, and some to spare.
const longestControl = 4 << 20

// InputError says what is wrong with a control call. Its Status is 400 for a
// wrong field, 404 for something that does not exist, 409 for a state that
// forbids the wish.
type InputError struct {
	Status int
	Field  string // the JSON name; may be empty for 404 and 409
	Reason string
}

func (e *InputError) Error() string { return strings.TrimSpace(e.Field + " " + e.Reason) }

// Wrong returns the error for a wrong field of a control call.
func Wrong(field, format string, args ...any) error {
	return &InputError{http.StatusBadRequest, field, fmt.Sprintf(format, args...)}
}

// Missing returns the error for a thing that a control call names and that does
// not exist.
func Missing(field, format string, args ...any) error {
	return &InputError{http.StatusNotFound, field, fmt.Sprintf(format, args...)}
}

// Control makes the handler of a control call, whose body is strict JSON: an
// unknown member is refused, an empty body leaves the zero In. What do returns
// is the answer: nil for 204, else 200 with it as JSON. An *InputError is
// answered with a problem document, as is anything else, with 500.
func Control[In any](do func(*http.Request, In) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		err := readControl(w, r, &in)
		var out any
		if err == nil {
			out, err = do(r, in)
		}
		switch {
		case err != nil:
			writeProblem(w, err)
		case out == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			_ = json.NewEncoder(w).Encode(out) // the client may have gone
		}
	}
}

func readControl(w http.ResponseWriter, r *http.Request, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, longestControl))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &kind):
		field := kind.Field
		if field == "" {
			field = "body"
		}
		return Wrong(field, "must not be a JSON %s", kind.Value)
	case err != nil && strings.Contains(err.Error(), "unknown field"):
		_, name, _ := strings.Cut(err.Error(), "unknown field ")
		return Wrong(strings.Trim(name, `"`), "is no member of this call")
	case err != nil:
		return Wrong("body", "is not JSON, or too large")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Wrong("body", "has something behind its JSON")
	}
	return nil
}

// writeProblem answers with an RFC 9457 problem document.
func writeProblem(w http.ResponseWriter, err error) {
	input := &InputError{Status: http.StatusInternalServerError, Reason: err.Error()}
	errors.As(err, &input)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(input.Status)
	_ = json.NewEncoder(w).Encode(struct { // the client may have gone
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Field  string `json:"field,omitempty"`
	}{"about:blank", http.StatusText(input.Status), input.Status, input.Error(), input.Field})
}
