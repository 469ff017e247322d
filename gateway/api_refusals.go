package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
)

// refusal is what calls are answered with under one status, whichever call it
// is.
type refusal struct {
	status  int
	name    string // of the response in the description
	about   string
	header  string // that comes with it, if any
	value   string // what the header says
	example error
}

// refusals are all statuses above 399 that operations are described with. The
// examples are made by what makes the real ones.
var refusals = []refusal{
	{status: 400, name: "Malformed", about: "The body is not one JSON object.", example: malformed("the JSON ends too early")},
	{
		status: 401, name: "Unauthorized", about: "There is no API key or agent session token, or it is not known, or not any more.", example: errUnknownToken,
		header: fiber.HeaderWWWAuthenticate, value: "Bearer.",
	},
	{status: 403, name: "Forbidden", about: "The caller is known and may not do this, or not from this page.", example: errNeedsKey},
	{status: 404, name: "NotFound", about: "There is no such thing for this caller.", example: conversations.NotFound("payment request")},
	{status: 406, name: "NotAcceptable", about: "Accept names nothing that can be answered.", example: errNotAcceptable},
	{status: 409, name: "Conflict", about: "The state does not allow it now; reason says which.", example: conversations.Refused("cancelled", "the payment request is cancelled")},
	{status: 413, name: "TooLarge", about: fmt.Sprintf("The body has more than %d kB.", maxBody>>10), example: fiber.ErrRequestEntityTooLarge},
	{status: 415, name: "UnsupportedMediaType", about: "The body is not JSON by its Content-Type, or it is compressed.", example: errNotJSON},
	{status: 422, name: "Invalid", about: "Something in the request is wrong; errors names each field. Or the Idempotency-Key was used for another request.", example: invalid([]FieldProblem{
		{Field: "total.value", Message: `use a decimal string such as "149.00", not a number`, Location: "body.total.value"},
	})},
	{
		status: 429, name: "TooMany", about: "The caller has as many of these under way as it may.", example: errTooManyStreams(20),
		header: fiber.HeaderRetryAfter, value: "Seconds after which to try again.",
	},
	{status: 500, name: "Internal", about: "A fault of the gateway; it was logged.", example: errors.New("a fault")},
	{
		status: 503, name: "Unavailable", about: "Something that is needed does not answer. Try again, with the same Idempotency-Key.", example: conversations.Unavailable(errors.New("no answer")),
		header: fiber.HeaderRetryAfter, value: "Seconds after which to try again.",
	},
}

// describeRefusals describes the answers of every operation that failed, each
// status once for all. Whatever is asked, a parameter that is not known gets 422.
func (a *api) describeRefusals() {
	o := a.huma.OpenAPI()
	problem := &huma.Schema{Ref: "#/components/schemas/Problem"}
	o.Components.Responses = map[string]*huma.Response{}
	for _, r := range refusals {
		described := &huma.Response{Description: r.about, Content: map[string]*huma.MediaType{problemType: {Schema: problem, Example: problemOf(r.example)}}}
		if r.header != "" {
			described.Headers = map[string]*huma.Param{r.header: {Description: r.value, Schema: &huma.Schema{Type: huma.TypeString}}}
		}
		o.Components.Responses[r.name] = described
	}
	for _, path := range o.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Delete} {
			if op == nil {
				continue
			}
			op.Responses["422"] = nil
			for status := range op.Responses {
				if status >= "400" {
					op.Responses[status] = &huma.Response{Ref: "#/components/responses/" + refusalOf(status).name}
				}
			}
		}
	}
}

func refusalOf(status string) refusal {
	i := slices.IndexFunc(refusals, func(r refusal) bool { return strconv.Itoa(r.status) == status })
	if i < 0 {
		panic("gateway: nobody says what an answer of " + status + " means") // a mistake in the program
	}
	return refusals[i]
}
