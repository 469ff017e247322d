package main

import (
	"bytes"
	"encoding/json"
	"html/template"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"
)

// describeEvents describes by hand the routes that stream: huma does not serve
// them.
func (a *api) describeEvents() {
	registry := a.huma.OpenAPI().Components.Schemas
	schema := func(of any) *huma.Schema { return registry.Schema(reflect.TypeOf(of), true, "") }
	event := schema(EventDocument{})
	problem := &huma.Response{Description: "Error", Content: map[string]*huma.MediaType{problemType: {Schema: schema(Problem{})}}}
	integer := func(least, most float64) *huma.Schema {
		s := &huma.Schema{Type: huma.TypeInteger, Minimum: &least}
		if most > 0 {
			s.Maximum = &most
		}
		return s
	}
	text := &huma.Schema{Type: huma.TypeString}
	limit := &huma.Param{Name: "limit", In: "query", Description: "Of a page; missing: 100.", Schema: integer(1, maxEventsAtOnce)}
	stream := "\n\nAsked for text/event-stream, which is what a caller gets who does not say, the events come as they happen: `id`, `event: payment_request`, and in `data` one event in one line of JSON. Comments (`: hb`) keep the connection alive. Browsers stream with fetch, since EventSource cannot send Authorization."
	answer := func(page *huma.Schema) map[string]*huma.Response {
		return map[string]*huma.Response{
			"200": {Description: "OK", Content: map[string]*huma.MediaType{
				fiber.MIMEApplicationJSON: {Schema: page},
				eventStreamType:           {Schema: &huma.Schema{Type: huma.TypeString, Description: "Each data line is an EventDocument: " + event.Ref}},
			}},
			"default": problem,
		}
	}
	secured := []map[string][]string{{"bearer": {}}}
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "show-payment-request-events", Method: http.MethodGet, Path: "/v1/payment-requests/{id}/events", Tags: eventTag, Security: secured,
		Summary: "Follow a payment request", Description: "Its own log, numbered from 1 without gaps. A stream resumes after the number in Last-Event-ID; `event: reset` says that the log went back, and to read the payment request again." + stream,
		Parameters: []*huma.Param{
			{Name: "id", In: "path", Required: true, Schema: text},
			{Name: "Last-Event-ID", In: "header", Description: "Of a stream: the number of the last event that was seen.", Schema: integer(0, 0)},
			{Name: "after", In: "query", Description: "Of a page: the number of the last event that was seen.", Schema: integer(0, 0)},
			limit,
		},
		Responses: answer(schema(EventList{})),
	})
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "show-events", Method: http.MethodGet, Path: "/v1/events", Tags: eventTag, Security: secured,
		Summary: "Follow all payment requests of the merchant", Description: "For servers, and for agent sessions with the grant read_all. The id of an event is an opaque place in the feed; `event: reset` says that events are missing, and to read the lists again." + stream,
		Parameters: []*huma.Param{
			{Name: "Last-Event-ID", In: "header", Description: "Of a stream: the id of the last event that was seen; missing: from now on.", Schema: text},
			{Name: "after", In: "query", Description: "Of a page: last of the page before; missing: an empty page with the present place.", Schema: text},
			limit,
		},
		Responses: answer(schema(MerchantEventList{})),
	})
}

// openAPI returns the description of the API, the same bytes each time.
func (a *api) openAPI() ([]byte, error) {
	b, err := json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
	return append(b, '\n'), err
}

// registerDocs serves the description and the pages made from it. They are made
// once: the description is complete when the routes are.
func (a *api) registerDocs(router fiber.Router) {
	document, err := a.openAPI()
	if err != nil {
		panic("gateway: " + err.Error()) // a mistake in the program
	}
	reference, problems := renderDocs(a.huma.OpenAPI())
	serve := func(contentType string, body []byte) fiber.Handler {
		return func(c *fiber.Ctx) error {
			c.Set(fiber.HeaderContentType, contentType)
			c.Set(fiber.HeaderCacheControl, "public, max-age=300")
			c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
			c.Set(fiber.HeaderContentSecurityPolicy, docsPolicy)
			return c.Send(body)
		}
	}
	router.Get("/openapi.json", serve("application/vnd.oai.openapi+json;version=3.1", document))
	router.Get("/docs", serve(fiber.MIMETextHTMLCharsetUTF8, reference))
	router.Get("/docs/problems", serve(fiber.MIMETextHTMLCharsetUTF8, problems))
}

var docsTemplate = template.Must(template.New("docs").Parse(`<!doctype html><title>{{.}}</title>`))

const docsPolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func renderDocs(o *huma.OpenAPI) (reference, problems []byte) {
	var b bytes.Buffer
	if err := docsTemplate.Execute(&b, o.Info.Title); err != nil {
		panic("gateway: " + err.Error())
	}
	return b.Bytes(), b.Bytes()
}
