package conversations

import (
	"errors"
	"fmt"
	"time"
)

// Code is the coarse kind of an Error. The edge turns it into a status.
type Code string

// The codes that an Error may carry.
const (
	CodeInvalid      Code = "invalid"      // the input is wrong; the same input will always be refused
	CodeUnauthorized Code = "unauthorized" // the caller may not do this
	CodeNotFound     Code = "not_found"    // there is no such thing for this caller
	CodeConflict     Code = "conflict"     // the state does not allow it now
	CodeExpired      Code = "expired"      // it was allowed once, its time has passed
	CodeUnavailable  Code = "unavailable"  // something we need does not answer; trying again can help
)

// Error is a failure that a person may read. Message never holds a secret, a
// message's text or a whole phone number; Err is for the log only.
type Error struct {
	Code    Code
	Field   string // dotted path of the input that is wrong, empty if none is
	Reason  string // stable snake_case word for programs, empty if Code says it all
	Message string // a sentence for the person: what is wrong, what would be right
	Err     error  // the inner error, not shown outside
	// RetryAt is when the same may be tried again, nil if nobody knows.
	RetryAt *time.Time
}

// Error returns the sentence, and the inner error behind it.
func (e *Error) Error() string {
	s := e.Message
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the inner error.
func (e *Error) Unwrap() error { return e.Err }

// Invalid returns an Error with CodeInvalid about one field of the input.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// Refused returns an Error with CodeConflict: the state does not allow what
// was asked. reason is a stable word for programs.
func Refused(reason, format string, args ...any) *Error {
	return &Error{Code: CodeConflict, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// NotFound returns an Error with CodeNotFound; what names the kind of thing.
func NotFound(what string) *Error {
	return &Error{Code: CodeNotFound, Message: "there is no such " + what}
}

// Unavailable returns an Error with CodeUnavailable around err.
func Unavailable(err error) *Error {
	return &Error{Code: CodeUnavailable, Message: "the store does not answer, try again", Err: err}
}

// CodeOf returns the code of the first Error in err's chain, or "".
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
