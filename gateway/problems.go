package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
)

// Codes that only the edge gives out, beside those of conversations.
const (
	codeForbidden conversations.Code = "forbidden"
	codeMismatch  conversations.Code = "idempotency_mismatch"
	codeTooMany   conversations.Code = "too_many"
	codeInternal  conversations.Code = "internal"
)

// problemKind is one code as callers meet it. The table is the one place where
// an error becomes a status; /docs/problems is printed from it.
type problemKind struct {
	Code    conversations.Code
	Status  int
	Title   string
	Meaning string
}

var problemKinds = []problemKind{
	{conversations.CodeInvalid, 422, "The request is not valid", "Something in the request is wrong; errors names each field. The same request will always be refused. Also with status 400 (not JSON), 405, 406, 413 (too large) and 415 (not JSON by its Content-Type)."},
	{conversations.CodeUnauthorized, 401, "Not authorized", "There is no API key or agent session token, or it is not known. The reason token_expired says that it was good and has run out: get a new one."},
	{codeForbidden, 403, "Not allowed", "The caller is known and may not do this. Reasons: origin_not_allowed (the merchant does not allow calls from this page's origin), not_granted (the agent session lacks the right)."},
	{conversations.CodeNotFound, 404, "Not found", "There is no such thing for this caller, or nothing at this address."},
	{conversations.CodeConflict, 409, "Refused by the state", "The state does not allow it now; the reason says which: for example processing, superseded, opted_out, order_held, beyond_refundable, refundable_changed, or the lifecycle that the payment request is in."},
	{conversations.CodeExpired, 410, "Expired", "It was allowed once and its time has passed."},
	{codeMismatch, 422, "Idempotency-Key used before", "The Idempotency-Key was used before with another request. Use a new key for a new request."},
	{codeTooMany, 429, "Too many at a time", "The caller has as many of these under way as it may: with the reason too_many_streams, event streams. Try again after the seconds in Retry-After, when some have ended."},
	{conversations.CodeUnavailable, 503, "Not available now", "Something that is needed does not answer. Try again after the seconds in Retry-After, with the same Idempotency-Key."},
	{codeInternal, 500, "Internal error", "A fault on our side; it was logged."},
}

// kindOf returns the row of a code; anything unknown is our own fault.
func kindOf(code conversations.Code) problemKind {
	for _, k := range problemKinds {
		if k.Code == code {
			return k
		}
	}
	return problemKinds[len(problemKinds)-1]
}

// Problem is what a call that failed is answered with (RFC 9457).
type Problem struct {
	Type   string             `json:"type" format:"uri-reference" example:"/docs/problems#invalid" doc:"Where this kind of problem is explained."`
	Title  string             `json:"title" example:"The request is not valid" doc:"The kind of problem in words."`
	Status int                `json:"status" example:"422" doc:"The HTTP status."`
	Detail string             `json:"detail" example:"total: the total is zero; there is nothing to pay" doc:"What is wrong this time, for a person."`
	Code   conversations.Code `json:"code" enum:"invalid,unauthorized,forbidden,not_found,conflict,expired,idempotency_mismatch,too_many,unavailable,internal" example:"invalid" doc:"The kind of problem, for programs."`
	Reason string             `json:"reason,omitempty" example:"token_expired" doc:"A stable word that says more than the code."`
	Errors []FieldProblem     `json:"errors,omitempty" doc:"Each field that is wrong."`

	err error // for the log, not shown
}

// FieldProblem says what is wrong with one field.
type FieldProblem struct {
	Field    string `json:"field" example:"tax.value" doc:"Path of the field."`
	Message  string `json:"message" example:"\"1.005\" has more than the 2 decimals of ZAR, for example \"149.00\"" doc:"What is wrong and what would be right."`
	Location string `json:"location" example:"body.tax.value" doc:"The same path with the part of the request: body, query, header or path."`
}

// Error returns the detail, and the inner error behind it.
func (p *Problem) Error() string {
	if p.err != nil {
		return p.Detail + ": " + p.err.Error()
	}
	return p.Detail
}

// Unwrap returns the inner error.
func (p *Problem) Unwrap() error { return p.err }

// GetStatus is asked by huma.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is asked by huma.
func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// GetHeaders is asked by huma for a handler's error.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		h.Set("Retry-After", retryAfter)
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	return h
}

// retryAfter is how many seconds a caller should wait before it tries again.
const retryAfter = "2"

// newProblem makes a problem of a code with that code's status.
func newProblem(code conversations.Code, reason, detail string) *Problem {
	k := kindOf(code)
	return &Problem{Type: "/docs/problems#" + string(k.Code), Title: k.Title, Status: k.Status, Detail: detail, Code: k.Code, Reason: reason}
}

// badRequest makes a problem about the request as a whole: its status says
// more than the code.
func badRequest(status int, reason, detail string) *Problem {
	p := newProblem(conversations.CodeInvalid, reason, detail)
	p.Status, p.Title = status, http.StatusText(status)
	return p
}

// invalid makes a problem that names each of some fields.
func invalid(fields []FieldProblem) *Problem {
	p := newProblem(conversations.CodeInvalid, "", "")
	p.Errors = fields
	if len(fields) == 1 {
		p.Detail = fields[0].Message
		if fields[0].Field != "" {
			p.Detail = fields[0].Field + ": " + p.Detail
		}
		return p
	}
	names := make([]string, 0, len(fields))
	for _, f := range fields {
		names = append(names, f.Field)
	}
	p.Detail = fmt.Sprintf("%d fields are wrong: %s", len(fields), strings.Join(names, ", "))
	return p
}

// headerFields and queryFields are the fields that do not lie in the body.
var (
	headerFields = []string{"Idempotency-Key", "Last-Event-ID"}
	queryFields  = []string{"cursor", "after", "limit"}
)

func locationOf(field string) string {
	switch {
	case slices.Contains(headerFields, field):
		return "header." + field
	case slices.Contains(queryFields, field):
		return "query." + field
	}
	return "body." + field
}

// problemOf says what an error is outside. What it does not know is our fault,
// and its words stay inside.
func problemOf(err error) *Problem {
	var (
		p *Problem
		e *conversations.Error
		f *fiber.Error
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &e):
		return domainProblem(e)
	case errors.As(err, &f):
		return statusProblem(f)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		p = newProblem(conversations.CodeUnavailable, "", "it took too long; try again")
	default:
		p = newProblem(codeInternal, "", "an internal error; it was logged")
	}
	p.err = err
	return p
}

func domainProblem(e *conversations.Error) *Problem {
	code := e.Code
	if e.Reason == "idempotency_mismatch" {
		code = codeMismatch
	}
	p := newProblem(code, e.Reason, e.Message)
	if e.Code == "" {
		p.Detail = "an internal error; it was logged"
	}
	if e.Field != "" {
		p.Errors = []FieldProblem{{Field: e.Field, Message: e.Message, Location: locationOf(e.Field)}}
	}
	p.err = e.Err
	return p
}

// statusProblem names what Fiber refused by itself. Its own words are not
// passed on: they repeat the address, which may hold a link's token.
func statusProblem(f *fiber.Error) *Problem {
	switch f.Code {
	case fiber.StatusNotFound:
		return newProblem(conversations.CodeNotFound, "", "there is nothing at this address")
	case fiber.StatusMethodNotAllowed:
		return badRequest(f.Code, "method_not_allowed", "this address does not take this method; see Allow")
	case fiber.StatusRequestEntityTooLarge:
		return badRequest(f.Code, "too_large", "the body is too large")
	case fiber.StatusUnsupportedMediaType:
		return badRequest(f.Code, "unsupported_media_type", f.Message)
	case fiber.StatusServiceUnavailable:
		return newProblem(conversations.CodeUnavailable, "", "not available now, try again")
	}
	if f.Code >= 400 && f.Code < 500 {
		return badRequest(f.Code, "", http.StatusText(f.Code))
	}
	p := newProblem(codeInternal, "", "an internal error; it was logged")
	p.err = f
	return p
}

// problemHandler answers every error that a handler returned, or Fiber found,
// with a problem document, and logs those that are ours. decorate adds headers
// to answers that no handler had a chance to touch, such as that to a body
// that was too large to be read.
func problemHandler(log *slog.Logger, decorate ...func(*fiber.Ctx)) fiber.ErrorHandler {
	return func(c *fiber.Ctx, err error) error {
		for _, d := range decorate {
			d(c)
		}
		p := problemOf(err)
		logProblem(log, c.Method(), c.Route().Path, p)
		for name, values := range p.GetHeaders() {
			c.Set(name, values[0])
		}
		c.Set(fiber.HeaderCacheControl, "no-store")
		c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
		c.Status(p.Status)
		if err := c.JSON(p); err != nil {
			return err
		}
		c.Set(fiber.HeaderContentType, problemType)
		return nil
	}
}

// logProblem logs what is not the caller's doing: once, where it is answered.
func logProblem(log *slog.Logger, method, route string, p *Problem) {
	if p.Status >= 500 {
		log.Error("a call failed", "method", method, "route", route, "status", p.Status, "error", p.Error())
	}
}

// recovered turns a panic under way into an error, for a deferred call.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
	}
}

// humaProblem is huma.NewError: what huma finds in a request becomes a problem
// that names each field.
func humaProblem(status int, _ string, errs ...error) huma.StatusError {
	var fields []FieldProblem
	for _, err := range errs {
		var d huma.ErrorDetailer
		if errors.As(err, &d) {
			fields = append(fields, humaField(d.ErrorDetail()))
		}
	}
	slices.SortStableFunc(fields, func(a, b FieldProblem) int { return strings.Compare(a.Location, b.Location) })
	switch {
	case status == http.StatusUnprocessableEntity && len(fields) > 0:
		return invalid(fields)
	case status == http.StatusBadRequest:
		return badRequest(status, "malformed", "the body is missing; send a JSON object")
	case status >= 400 && status < 500:
		return badRequest(status, "", http.StatusText(status))
	}
	p := newProblem(codeInternal, "", "an internal error; it was logged")
	p.err = errors.Join(errs...)
	return p
}

// amountFields are the names under which amounts stand.
var amountFields = []string{"subtotal", "tax", "shipping", "discount", "total", "unit_price", "amount", "expected_refundable"}

// humaWords are huma's messages in ours.
var humaWords = map[string]string{
	"unexpected property": "there is no such field here; check its spelling", "unknown query parameter": "there is no such parameter here; check its spelling",
	"expected string": "use a string", "expected integer": "use a whole number", "expected number": "use a number", "expected boolean": "use true or false",
	"expected array": "use a list", "expected object": "use an object", "invalid integer": "use a whole number",
	"expected string to be RFC 3339 date-time": `use a time such as "2026-11-22T08:00:00Z"`,
}

func humaField(d *huma.ErrorDetail) FieldProblem {
	_, field, _ := strings.Cut(d.Location, ".")
	f := FieldProblem{Field: field, Location: d.Location, Message: d.Message}
	last := field[strings.LastIndexByte(field, '.')+1:]
	if name, ok := strings.CutPrefix(d.Message, "expected required property "); ok {
		name = strings.TrimSuffix(name, " to be present")
		f.Field = strings.TrimPrefix(field+"."+name, ".")
		f.Location, f.Message = d.Location+"."+name, "it is missing"
		return f
	}
	switch words := humaWords[d.Message]; {
	case d.Message == "expected string" && last == "value":
		f.Message = `use a decimal string such as "149.00", not a number`
	case d.Message == "expected object" && slices.Contains(amountFields, last):
		f.Message = `use an amount such as {"value":"149.00","currency":"ZAR"}`
	case words != "":
		f.Message = words
	case humaBounds(d.Message) != "":
		f.Message = humaBounds(d.Message)
	case d.Location == "body":
		f.Message = "the body cannot be read; check the types of its fields"
	}
	return f
}

// humaBounds returns huma's messages about a bound in ours, or nothing for
// others.
func humaBounds(message string) string {
	for theirs, ours := range map[string]string{
		"expected length <= ": "use at most %s characters", "expected length >= ": "use at least %s characters",
		"expected number <= ": "use at most %s", "expected number >= ": "use at least %s",
		"expected array length <= ": "give at most %s", "expected array length >= ": "give at least %s",
		"expected value to be one of ": "use one of %s",
	} {
		if bound, ok := strings.CutPrefix(message, theirs); ok {
			if bound == "1" {
				ours = strings.Replace(ours, "characters", "character", 1)
			}
			return fmt.Sprintf(ours, strings.Trim(bound, `"`))
		}
	}
	return ""
}
