package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"
)

// openAPIExamples are calls as a test made them of a running gateway, one for
// each operation, with made-up identifiers, times and secrets in the places of
// the real ones. The test makes them again each time it runs.
//
//go:embed openapi_examples.json
var openAPIExamples []byte

// apiExample is one call and its answer.
type apiExample struct {
	Operation string            `json:"operation"`
	Path      map[string]string `json:"path,omitempty"`
	Query     map[string]string `json:"query,omitempty"`
	Body      json.RawMessage   `json:"body,omitempty"`
	Status    int               `json:"status"`
	Answer    json.RawMessage   `json:"answer,omitempty"`
}

// apiExamples are all examples.
type apiExamples struct {
	Calls []apiExample `json:"calls"`
	// Callback is the body of a callback about a payment request.
	Callback json.RawMessage `json:"callback"`
}

func readExamples(text []byte) (apiExamples, error) {
	var e apiExamples
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("read the examples of the API: %w", err)
	}
	return e, nil
}

// describeExamples puts the examples into the description.
func (a *api) describeExamples() {
	examples, err := readExamples(openAPIExamples)
	if err != nil {
		panic("gateway: " + err.Error()) // a mistake in the program
	}
	for _, path := range a.huma.OpenAPI().Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Delete} {
			if op == nil {
				continue
			}
			if i := slices.IndexFunc(examples.Calls, func(e apiExample) bool { return e.Operation == op.OperationID }); i >= 0 {
				examples.Calls[i].describe(op)
			}
		}
	}
}

func (e apiExample) describe(op *huma.Operation) {
	for _, p := range op.Parameters {
		text, ok := e.Path[p.Name]
		if p.In == "query" {
			text, ok = e.Query[p.Name]
		}
		if !ok {
			continue
		}
		p.Example = text
		if n, err := strconv.Atoi(text); err == nil && p.Schema.Type == huma.TypeInteger {
			p.Example = n
		}
	}
	if op.RequestBody != nil && len(e.Body) > 0 {
		op.RequestBody.Content[fiber.MIMEApplicationJSON].Example = e.Body
	}
	if answer := op.Responses[strconv.Itoa(e.Status)]; answer != nil && len(e.Answer) > 0 {
		answer.Content[fiber.MIMEApplicationJSON].Example = e.Answer
	}
}

// describeProblems lists the problem types where the description's readers look
// for them: at the code of a problem.
func (a *api) describeProblems() {
	o := a.huma.OpenAPI()
	code := o.Components.Schemas.Map()["Problem"].Properties["code"]
	var list strings.Builder
	list.WriteString(code.Description)
	for _, k := range problemKinds {
		fmt.Fprintf(&list, "\n- `%s` (%d): %s. %s", k.Code, k.Status, k.Title, k.Meaning)
	}
	code.Description = list.String()
}

// callbackKinds are the kinds of callbacks, by the names under which they are
// described.
var callbackKinds = []struct {
	name, summary, about string
	data                 any
	types                []string // empty: payment_request. and the type of an event
}{
	{"payment_request", "Something happened to a payment request", "The type is payment_request. and the type of an event; further ones may come.", CallbackRequestData{}, nil},
	{"callback_endpoint", "An endpoint was made, changed, deleted, switched off or tested", "", CallbackEndpointData{},
		[]string{callbackCreated, callbackUpdated, callbackDeleted, callbackDisabled, callbackTest}},
	{"merchant", "The gateway works with other settings of the merchant, from a start or a new configuration on", "", CallbackSettingsData{}, []string{settingsChanged}},
	{"reset", "Events may be missing", "Read the lists of payment requests again.", CallbackResetData{}, []string{callbackReset}},
}

// describeCallbacks describes what the gateway sends to the merchants' endpoints.
func (a *api) describeCallbacks() {
	o := a.huma.OpenAPI()
	examples, err := readExamples(openAPIExamples)
	if err != nil {
		panic("gateway: " + err.Error()) // a mistake in the program
	}
	text := func(about string) *huma.Schema { return &huma.Schema{Type: huma.TypeString, Description: about} }
	o.Webhooks = map[string]*huma.PathItem{}
	for _, k := range callbackKinds {
		kind := text("What happened.")
		for _, t := range k.types {
			kind.Enum = append(kind.Enum, t)
		}
		if k.types == nil {
			kind.Pattern = `^payment_request\.[a-z_]+$`
		}
		body := &huma.MediaType{Schema: &huma.Schema{
			Type: huma.TypeObject, Required: []string{"type", "timestamp", "data"},
			Properties: map[string]*huma.Schema{
				"type": kind,
				"timestamp": {Type: huma.TypeString, Format: "date-time",
					Description: "When it happened. When it was sent stands in the header webhook-timestamp."},
				"data": o.Components.Schemas.Schema(reflect.TypeOf(k.data), true, ""),
			},
		}}
		if k.types == nil && len(examples.Callback) > 0 {
			body.Example = examples.Callback
		}
		o.Webhooks[k.name] = &huma.PathItem{Post: &huma.Operation{
			OperationID: "receive-" + strings.ReplaceAll(k.name, "_", "-"), Tags: callbackTag, Summary: k.summary,
			Description: strings.TrimSpace("Sent to the merchant's endpoints, signed by the scheme of Standard Webhooks, and tried again until it is taken. " + k.about),
			Security:    []map[string][]string{},
			Parameters: []*huma.Param{
				{Name: "webhook-id", In: "header", Required: true, Schema: text("Names the event: the same for every try.")},
				{Name: "webhook-timestamp", In: "header", Required: true, Schema: text("Seconds since 1970 of this try.")},
				{Name: "webhook-signature", In: "header", Required: true, Schema: text("v1, and the base64 of HMAC-SHA256 over id.timestamp.body; several, separated by spaces, while the secret is being replaced.")},
			},
			RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{fiber.MIMEApplicationJSON: body}},
			Responses: map[string]*huma.Response{
				"2XX": {Description: "It was taken."},
				"410": {Description: "The endpoint is gone: it is switched off."},
			},
		}}
	}
}
