package main

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"
)

// describeEvents describes by hand the routes that stream: huma does not serve
// them.
func (a *api) describeEvents() {
	registry := a.huma.OpenAPI().Components.Schemas
	schema := func(of any) *huma.Schema { return registry.Schema(reflect.TypeOf(of), true, "") }
	event := schema(EventDocument{})
	schema(Problem{})
	integer := func(least, most float64) *huma.Schema {
		s := &huma.Schema{Type: huma.TypeInteger, Minimum: &least}
		if most > 0 {
			s.Maximum = &most
		}
		return s
	}
	text := &huma.Schema{Type: huma.TypeString}
	limit := &huma.Param{Name: "limit", In: "query", Description: "Of a page; missing: 100.", Schema: integer(1, maxEventsAtOnce)}
	sameAsHeader := "Of a stream: the same as Last-Event-ID, from clients that stand in for EventSource. The header goes first."
	stream := "\n\nAsked for text/event-stream, which is what a caller gets who does not say, the events come as they happen: `id`, `event: payment_request`, and in `data` one event in one line of JSON. Comments (`: hb`) keep the connection alive. Browsers stream with fetch, since EventSource cannot send Authorization."
	answer := func(page *huma.Schema, more ...string) map[string]*huma.Response {
		answers := map[string]*huma.Response{
			"200": {Description: "OK", Content: map[string]*huma.MediaType{
				fiber.MIMEApplicationJSON: {Schema: page},
				eventStreamType:           {Schema: &huma.Schema{Type: huma.TypeString, Description: "Each data line is an Event: " + event.Ref}},
			}},
		}
		for _, status := range append(more, "401", "403", "406", "422", "429", "500", "503") {
			answers[status] = nil // for describeRefusals
		}
		return answers
	}
	secured := []map[string][]string{{"bearer": {}}}
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "show-payment-request-events", Method: http.MethodGet, Path: "/v1/payment-requests/{id}/events", Tags: eventTag, Security: secured,
		Summary: "Follow a payment request", Description: "Its own log, numbered from 1 without gaps. A stream resumes after the number in Last-Event-ID; `event: reset` says that the log went back, and to read the payment request again." + stream,
		Parameters: []*huma.Param{
			{Name: "id", In: "path", Required: true, Description: "Of the payment request.", Schema: text},
			{Name: "Last-Event-ID", In: "header", Description: "Of a stream: the number of the last event that was seen.", Schema: integer(0, 0)},
			{Name: lastEventParameter, In: "query", Description: sameAsHeader, Schema: integer(0, 0)},
			{Name: "after", In: "query", Description: "The number of the last event that was seen: of a page, or of a stream that says nothing else.", Schema: integer(0, 0)},
			limit,
		},
		Responses: answer(schema(EventList{}), "404"),
	})
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "show-events", Method: http.MethodGet, Path: "/v1/events", Tags: eventTag, Security: secured,
		Summary: "Follow all payment requests of the merchant", Description: "For servers, and for agent sessions with the grant read_all. The id of an event is an opaque place in the feed; `event: reset` says that events are missing, and to read the lists again." + stream,
		Parameters: []*huma.Param{
			{Name: "Last-Event-ID", In: "header", Description: "Of a stream: the id of the last event that was seen; missing: from now on.", Schema: text},
			{Name: lastEventParameter, In: "query", Description: sameAsHeader, Schema: text},
			{Name: "after", In: "query", Description: "`last` of the page before; missing: an empty page with the present place. A stream goes on from there if it says nothing else.", Schema: text},
			limit,
		},
		Responses: answer(schema(MerchantEventList{})),
	})
}

// openAnswers lets answers hold more than is described: they grow, and a client
// made from an older description must not mind. What callers send stays closed.
func (a *api) openAnswers() {
	o := a.huma.OpenAPI()
	sent := map[string]bool{}
	var mark func(*huma.Schema)
	mark = func(s *huma.Schema) {
		if s == nil {
			return
		}
		if name := refName(s); name != "" && !sent[name] {
			sent[name] = true
			mark(resolved(o, s))
		}
		mark(s.Items)
		for _, p := range s.Properties {
			mark(p)
		}
	}
	for _, item := range o.Paths {
		if item.Post != nil && item.Post.RequestBody != nil {
			mark(item.Post.RequestBody.Content[fiber.MIMEApplicationJSON].Schema)
		}
	}
	for name, s := range o.Components.Schemas.Map() {
		if closed, ok := s.AdditionalProperties.(bool); ok && !closed && !sent[name] {
			s.AdditionalProperties = nil
		}
	}
}

// openAPI returns the description of the API, the same bytes each time.
func (a *api) openAPI() ([]byte, error) {
	b, err := json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
	return append(b, '\n'), err
}

// registerDocs serves the description and the pages made from it. They are made
// once, for the first who asks: most processes are never asked, and would start
// later for it. The description is complete when the routes are.
func (a *api) registerDocs(router fiber.Router) {
	made := sync.OnceValues(func() (pages [3][]byte, err error) {
		pages[0], err = a.openAPI()
		pages[1], pages[2] = renderDocs(a.huma.OpenAPI())
		return pages, err
	})
	for i, p := range []struct{ path, contentType string }{
		{"/openapi.json", "application/vnd.oai.openapi+json;version=3.1"},
		{"/docs", fiber.MIMETextHTMLCharsetUTF8},
		{"/docs/problems", fiber.MIMETextHTMLCharsetUTF8},
	} {
		router.Get(p.path, func(c *fiber.Ctx) error {
			pages, err := made()
			if err != nil {
				return err
			}
			c.Set(fiber.HeaderContentType, p.contentType)
			c.Set(fiber.HeaderCacheControl, "public, max-age=300")
			c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
			c.Set(fiber.HeaderContentSecurityPolicy, docsPolicy)
			page := pages[i]
			if here := a.config().MerchantsAt(c.Hostname()); len(here) > 0 {
				page = bytes.Replace(page, []byte(docsTryAt+docsExample), []byte(docsTryAt+template.HTMLEscapeString(here[0].PublicURL)), 1)
			}
			return c.Send(page)
		})
	}
}

//go:embed api_docs.html
var docsHTML string

//go:embed api_docs.css
var docsCSS string

// The pages hold no script and ask for nothing: whoever opens them tells nobody.
var (
	docsTemplates = template.Must(template.New("docs").Funcs(template.FuncMap{"words": docsWords}).Parse(docsHTML))
	docsPolicy    = "default-src 'none'; style-src 'sha256-" + hashOf(docsCSS) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// docsPage is what the templates show.
type docsPage struct {
	Title      string
	Style      template.CSS
	Paragraphs []string
	Try        string
	Groups     []docsGroup
	Refusals   []docsAnswer
	Schemas    []docsSchema
	Problems   []problemKind
}

type docsGroup struct {
	ID, Name, About string
	Operations      []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary string
	Paragraphs                []string
	Params, Body              []docsField
	Example                   string // of the body
	Answers                   []docsAnswer
	Refusals                  []string // statuses
}

type docsAnswer struct {
	Status, Text, Example string
	Links                 []docsSchema
}

type docsSchema struct {
	ID, Name string
	Fields   []docsField
}

type docsField struct {
	Name, In, List, Type, Link, Text, Limits, Example string
	Enum                                              []any
	Required                                          bool
}

// docsTry is a call to try. Where a merchant is served under the page's host, it
// goes there.
const (
	docsTryAt   = "curl "
	docsExample = "https://pay.example"
	docsTry     = docsTryAt + docsExample + `/v1/payment-requests \
  -H 'Authorization: Bearer YOUR-API-KEY' \
  -H 'Content-Type: application/json' \
  -H "Idempotency-Key: $(uuidgen)" \
  -d '{"order":"1042","phone":"082 123 4567","channel":"whatsapp",
       "subtotal":{"value":"129.57","currency":"ZAR"},
       "tax":{"value":"19.43","currency":"ZAR"},
       "total":{"value":"149.00","currency":"ZAR"}}'`
)

// docsWords makes HTML of a description: words in backquotes are code, lines
// that begin with a dash are a list, and the page of problems is a link.
func docsWords(text string) template.HTML {
	text = docsCode.ReplaceAllString(template.HTMLEscapeString(text), "<code>$1</code>")
	text = strings.ReplaceAll(text, " at /docs/problems", ` at <a href="/docs/problems">/docs/problems</a>`)
	said, list, ok := strings.Cut(text, "\n- ")
	if ok {
		said += "<ul><li>" + strings.ReplaceAll(list, "\n- ", "</li><li>") + "</li></ul>"
	}
	return template.HTML(said) //nolint:gosec // escaped above
}

var docsCode = regexp.MustCompile("`([^`]+)`")

// renderDocs makes the two pages from the description and the table of problems.
func renderDocs(o *huma.OpenAPI) (reference, problems []byte) {
	page := docsPage{Title: "Paythread API", Style: template.CSS(docsCSS), Paragraphs: paragraphs(o.Info.Description), Try: docsTry, Groups: docsGroups(o)}
	for name, schema := range o.Components.Schemas.Map() {
		page.Schemas = append(page.Schemas, docsSchema{ID: schemaID(name), Name: name, Fields: docsFields(schema)})
	}
	for _, r := range refusals {
		page.Refusals = append(page.Refusals, docsAnswerOf(o, fmt.Sprint(r.status), o.Components.Responses[r.name]))
	}
	slices.SortFunc(page.Schemas, func(a, b docsSchema) int { return strings.Compare(a.Name, b.Name) })
	render := func(name string, page docsPage) []byte {
		var b bytes.Buffer
		if err := docsTemplates.ExecuteTemplate(&b, name, page); err != nil {
			panic("gateway: " + err.Error()) // a mistake in the program
		}
		return b.Bytes()
	}
	return render("reference", page), render("problems", docsPage{Title: "Problems", Style: page.Style, Problems: problemKinds})
}

func paragraphs(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n\n")
}

func schemaID(name string) string { return "object-" + name }

// docsGroups orders the operations by tag, path and method.
func docsGroups(o *huma.OpenAPI) []docsGroup {
	var groups []docsGroup
	for _, tag := range tags {
		g := docsGroup{ID: strings.ReplaceAll(strings.ToLower(tag.of[0]), " ", "-"), Name: tag.of[0], About: tag.about}
		for _, path := range slices.Sorted(maps.Keys(o.Paths)) {
			item := o.Paths[path]
			for _, op := range []*huma.Operation{item.Post, item.Get, item.Delete} {
				if op != nil && slices.Equal(op.Tags, tag.of) {
					g.Operations = append(g.Operations, docsOperationOf(o, op))
				}
			}
		}
		groups = append(groups, g)
	}
	sent := docsGroup{ID: "sent-to-you", Name: "Sent to your endpoints", About: "What a callback endpoint gets. It answers 2xx, and does the work afterwards."}
	for _, k := range callbackKinds {
		op := docsOperationOf(o, o.Webhooks[k.name].Post)
		op.Method, op.Path = http.MethodPost, "your address"
		sent.Operations = append(sent.Operations, op)
	}
	return append(groups, sent)
}

func docsOperationOf(o *huma.OpenAPI, op *huma.Operation) docsOperation {
	d := docsOperation{ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary, Paragraphs: paragraphs(op.Description)}
	for _, p := range op.Parameters {
		f := docsFieldOf(p.Name, p.Schema, p.Required)
		f.In = p.In
		if p.Description != "" {
			f.Text = p.Description
		}
		d.Params = append(d.Params, f)
	}
	if op.RequestBody != nil {
		body := op.RequestBody.Content[fiber.MIMEApplicationJSON]
		d.Body, d.Example = docsFields(resolved(o, body.Schema)), indented(body.Example)
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		if r := op.Responses[status]; r.Ref != "" {
			d.Refusals = append(d.Refusals, status)
		} else {
			d.Answers = append(d.Answers, docsAnswerOf(o, status, r))
		}
	}
	return d
}

func docsAnswerOf(o *huma.OpenAPI, status string, r *huma.Response) docsAnswer {
	a := docsAnswer{Status: status, Text: r.Description}
	for _, media := range slices.Sorted(maps.Keys(r.Content)) {
		if name := refName(r.Content[media].Schema); name != "" {
			a.Links = append(a.Links, docsSchema{ID: schemaID(name), Name: name})
		}
		if shown := indented(r.Content[media].Example); shown != "" {
			a.Example = shown
		}
	}
	return a
}

// indented writes an example as a person reads it.
func indented(example any) string {
	if example == nil {
		return ""
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(example); err != nil {
		panic("gateway: " + err.Error()) // a mistake in the program
	}
	return strings.TrimSpace(b.String())
}

func resolved(o *huma.OpenAPI, s *huma.Schema) *huma.Schema {
	if s.Ref != "" {
		return o.Components.Schemas.SchemaFromRef(s.Ref)
	}
	return s
}

func refName(s *huma.Schema) string {
	if s == nil || s.Ref == "" {
		return ""
	}
	return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
}

func docsFields(s *huma.Schema) []docsField {
	var fields []docsField
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		fields = append(fields, docsFieldOf(name, s.Properties[name], slices.Contains(s.Required, name)))
	}
	slices.SortStableFunc(fields, func(a, b docsField) int { return strings.Compare(fmt.Sprint(b.Required), fmt.Sprint(a.Required)) })
	return fields
}

func docsFieldOf(name string, s *huma.Schema, required bool) docsField {
	f := docsField{Name: name, Required: required, Text: s.Description, Enum: s.Enum, Type: s.Type}
	of := s
	if s.Type == huma.TypeArray && s.Items != nil {
		f.List, of = "list of ", s.Items
		f.Type = of.Type
	}
	if len(of.OneOf) > 0 {
		of = of.OneOf[0] // or null, as its description says
	}
	if ref := refName(of); ref != "" {
		f.Type, f.Link = ref, schemaID(ref)
	} else if of.Format != "" {
		f.Type += ", " + of.Format
	}
	var limits []string
	limit := func(words string, n any) { limits = append(limits, fmt.Sprintf(words, n)) }
	if s.MaxLength != nil {
		limit("At most %d characters.", *s.MaxLength)
	}
	if s.Minimum != nil {
		limit("At least %.0f.", *s.Minimum)
	}
	if s.Maximum != nil {
		limit("At most %.0f.", *s.Maximum)
	}
	f.Limits = strings.Join(limits, " ")
	if len(s.Examples) > 0 {
		f.Example = exampleText(s.Examples[0])
	}
	return f
}

// exampleText writes an example as it is sent, a word without its quotes.
func exampleText(v any) string {
	if word, ok := v.(string); ok {
		return word
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic("gateway: " + err.Error()) // a mistake in the program
	}
	return string(text)
}
