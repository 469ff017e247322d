package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const examplesFile = "openapi_examples.json"

// described is the API's description with a validator that is not the one that
// made it.
type described struct {
	t        *testing.T
	document map[string]any
	compiler *jsonschema.Compiler
}

func newDescribed(t *testing.T) *described {
	t.Helper()
	raw, err := documented(t).openAPI()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	d := &described{t: t, document: parsed.(map[string]any), compiler: jsonschema.NewCompiler()}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource("https://paythread.test/openapi.json", parsed); err != nil {
		t.Fatal(err)
	}
	return d
}

// check holds a value against the schema at a place of the description.
func (d *described) check(what string, value []byte, place ...string) {
	d.t.Helper()
	var pointer strings.Builder
	for _, p := range place {
		pointer.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
	}
	schema, err := d.compiler.Compile("https://paythread.test/openapi.json#" + (&url.URL{Path: pointer.String()}).EscapedPath())
	if err != nil {
		d.t.Errorf("%s: no schema: %v", what, err)
		return
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err == nil {
		err = schema.Validate(parsed)
	}
	if err != nil {
		d.t.Errorf("%s is not as described: %v\n%s", what, err, value)
	}
}

// operation returns an operation with its path and method.
func (d *described) operation(id string) (path, method string, op map[string]any) {
	d.t.Helper()
	for path, item := range d.document["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			if op := op.(map[string]any); op["operationId"] == id {
				return path, method, op
			}
		}
	}
	d.t.Fatalf("no operation is called %s", id)
	return "", "", nil
}

// exampleNames gives made-up names to what is random in a call: the same
// everywhere in it.
type exampleNames struct{ known map[string]string }

var (
	randomIDs  = regexp.MustCompile(`_([0-9a-hj-km-np-tv-z]{20})\b`)
	exampleFix = []struct {
		form *regexp.Regexp
		in   string
	}{
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "2026-11-22T10:00:00Z"},
		{regexp.MustCompile(`https?://(localhost|127\.0\.0\.1)(:\d+)?/(p|r)/[0-9A-Za-z_-]+`), "https://pay.example/$3/4fzk9m2x7c1d5f8g"},
		{regexp.MustCompile(`https?://127\.0\.0\.1(:\d+)/callbacks`), "https://erp.acme.example/paythread"},
		{regexp.MustCompile(`https?://(localhost|127\.0\.0\.1)(:\d+)?`), "https://pay.example"},
		{regexp.MustCompile(`127\.0\.0\.1:\d+`), "erp.acme.example"},
		{regexp.MustCompile(`eyJ[0-9A-Za-z_.-]+`), "eyJhbGciOiJIUzI1NiJ9.a-made-up-token.x"},
		{regexp.MustCompile(`whsec_[0-9A-Za-z+/=]+`), "whsec_bWFkZS11cC1zZWNyZXQtb2YtYW4tZXhhbXBsZQ=="},
		{regexp.MustCompile(`\b\d{19,26}\b`), "7179536009291100000001"},
		{regexp.MustCompile(`"(last|next_cursor|cursor)":"[^"]*"`), `"$1":"made-up-place"`},
		{regexp.MustCompile(`_test_[0-9a-f]{20}`), "_test_0123456789abcdef0123"},
	}
)

func (n *exampleNames) apply(text string) string {
	for _, m := range randomIDs.FindAllStringSubmatch(text, -1) {
		if n.known[m[1]] == "" {
			n.known[m[1]] = fmt.Sprintf("0k3v9m2x7c1d5f8g4h%02d", len(n.known)+1)
		}
	}
	for id, name := range n.known {
		text = strings.ReplaceAll(text, id, name)
		text = strings.ReplaceAll(text, strings.ToUpper(id), strings.ToUpper(name))
	}
	for _, f := range exampleFix {
		text = f.form.ReplaceAllString(text, f.in)
	}
	return text
}

// exampleRun makes the calls of the examples.
type exampleRun struct {
	*tale
	*described
	names exampleNames
	made  apiExamples
}

// options of an example call.
type exampleCall struct {
	token       string // missing: the API key
	path, query map[string]string
	body        any
	status      int // missing: 200
}

// do makes one call, holds it and its answer against the description, and keeps
// both.
func (x *exampleRun) do(id string, c exampleCall) response {
	t := x.tale.t
	t.Helper()
	x.at = id
	path, method, op := x.operation(id)
	example := apiExample{Operation: id, Path: map[string]string{}, Query: map[string]string{}, Status: c.status}
	if example.Status == 0 {
		example.Status = http.StatusOK
	}
	to := path
	for name, value := range c.path {
		to = strings.ReplaceAll(to, "{"+name+"}", url.PathEscape(value))
		example.Path[name] = x.names.apply(value)
	}
	query := url.Values{}
	for name, value := range c.query {
		query.Set(name, value)
		example.Query[name] = x.names.apply(value)
	}
	header := bearer(demoAPIKey)
	if c.token != "" {
		header = bearer(c.token)
	}
	header.Set("Accept", "application/json")
	if c.body != nil {
		raw, err := json.Marshal(c.body)
		if err != nil {
			t.Fatal(err)
		}
		x.check(id+": the request", raw, "paths", path, method, "requestBody", "content", "application/json", "schema")
		example.Body = json.RawMessage(x.names.apply(string(raw)))
	} else if op["requestBody"] != nil {
		t.Errorf("%s: the example has no body", id)
	}
	if len(query) > 0 {
		to += "?" + query.Encode()
	}
	r := x.want(x.call(strings.ToUpper(method), x.public+to, header, c.body), example.Status)
	if example.Status != http.StatusNoContent {
		x.check(id+": the answer", r.body, "paths", path, method, "responses", fmt.Sprint(example.Status), "content", "application/json", "schema")
		example.Answer = json.RawMessage(x.names.apply(string(r.body)))
		x.check(id+": the answer, renamed", example.Answer, "paths", path, method, "responses", fmt.Sprint(example.Status), "content", "application/json", "schema")
	}
	x.made.Calls = append(x.made.Calls, example)
	return r
}

// field reads a text of an answer.
func (x *exampleRun) field(r response, name string) string {
	x.tale.t.Helper()
	var of map[string]any
	r.into(x.tale, &of)
	text, _ := of[name].(string)
	if text == "" {
		x.fail("the answer has no %s: %s", name, r.body)
	}
	return text
}

// first reads a text of the first item of a list.
func (x *exampleRun) first(r response, name string) string {
	x.tale.t.Helper()
	var of struct{ Items []map[string]any }
	r.into(x.tale, &of)
	if len(of.Items) == 0 {
		x.fail("the list is empty: %s", r.body)
	}
	text, _ := of.Items[0][name].(string)
	return text
}

// orderOf is what a shop sells in the examples.
func orderOf(number string) map[string]any {
	amount := func(v string) map[string]any { return map[string]any{"value": v, "currency": "ZAR"} }
	return map[string]any{
		"order": number, "phone": "082 123 4567", "country": "ZA", "customer_name": "Lerato Mokoena",
		"line_items": []any{map[string]any{"name": "Service", "sku": "S1", "quantity": 1, "unit_price": amount("129.57"), "total": amount("129.57")}},
		"subtotal":   amount("129.57"), "tax": amount("19.43"), "total": amount("149.00"),
	}
}

func with(of map[string]any, more map[string]any) map[string]any {
	of = maps.Clone(of)
	maps.Copy(of, more)
	return of
}

// play makes a call of each operation, in an order in which each has something
// to do.
func (x *exampleRun) play(callbackURL string, bodies <-chan []byte) {
	t := x.tale.t
	endpoint := x.field(x.do("create-callback-endpoint", exampleCall{status: 201, body: map[string]any{"url": callbackURL, "events": []string{"payment_request.*"}}}), "id")
	ofEndpoint := map[string]string{"id": endpoint}
	x.do("list-callback-endpoints", exampleCall{})
	x.do("list-senders", exampleCall{})
	x.do("get-sender", exampleCall{path: map[string]string{"id": "acme-wa"}})

	// An agent looks at an order, and asks for its payment.
	session := x.do("create-agent-session", exampleCall{status: 201, body: map[string]any{"agent": map[string]any{"id": "ag7", "name": "Thandi"}, "order": orderOf("1042")}})
	x.token = x.field(session, "token")
	x.do("get-sealed-order", exampleCall{token: x.token, path: map[string]string{"id": x.field(session, "sealed_order")}})
	x.do("preview-message", exampleCall{token: x.token, body: map[string]any{"channel": "sms"}})
	x.token = demoAPIKey // the server follows the rest

	// The shop's server asks for money that it takes once the parcel has left.
	asked := x.do("create-payment-request", exampleCall{status: 201, body: with(orderOf("1043"), map[string]any{"channel": "whatsapp", "capture": false})})
	held := map[string]string{"id": x.field(asked, "id")}
	x.follow(asked)
	x.customerReceives([]string{"payment", "whatsapp"})
	x.customerOpens(nil)
	x.customerPays([]string{"approved"})
	x.agentSees([]string{"authorized"})
	x.agentSees([]string{"receipt sent"})
	x.do("get-payment-request", exampleCall{path: held})
	x.do("list-payment-requests", exampleCall{query: map[string]string{"order": "1043", "limit": "10"}})
	x.do("show-payment-request-events", exampleCall{path: held, query: map[string]string{"after": "0", "limit": "5"}})
	x.do("show-events", exampleCall{query: map[string]string{"limit": "5"}})
	x.do("capture-payment", exampleCall{path: held, body: map[string]any{"reason": "the parcel has left"}})
	x.agentSees([]string{"captured"})
	x.do("refund-payment", exampleCall{path: held, body: map[string]any{
		"amount": map[string]any{"value": "10.00", "currency": "ZAR"}, "reason": "one part was missing", "expected_refundable": map[string]any{"value": "149.00", "currency": "ZAR"},
	}})
	x.agentSees([]string{"refunded"})

	// Another one is given back whole, a third is not wanted any more.
	x.paid = nil
	returned := x.want(x.call(http.MethodPost, x.public+"/v1/payment-requests", bearer(demoAPIKey), with(orderOf("1044"), map[string]any{"channel": "whatsapp"})), http.StatusCreated)
	x.follow(returned)
	x.customerReceives([]string{"payment", "whatsapp"})
	x.customerOpens(nil)
	x.customerPays([]string{"approved"})
	x.agentSees([]string{"paid"})
	x.do("reverse-payment", exampleCall{path: map[string]string{"id": x.current().id}, body: map[string]any{"reason": "out of stock"}})
	x.agentSees([]string{"reversed"})
	third := x.want(x.call(http.MethodPost, x.public+"/v1/payment-requests", bearer(demoAPIKey), with(orderOf("1045"), map[string]any{"channel": "whatsapp"})), http.StatusCreated)
	x.follow(third)
	x.agentSees([]string{"sent"})
	unwanted := map[string]string{"id": x.current().id}
	x.do("resend-message", exampleCall{path: unwanted, body: map[string]any{"message": "payment"}})
	x.do("extend-payment-request", exampleCall{path: unwanted, body: map[string]any{}})
	x.do("cancel-payment-request", exampleCall{path: unwanted, body: map[string]any{"reason": "the customer pays in the shop"}})

	// The customer writes, and a person answers.
	x.customerWrites([]string{"Is this for the repair?", "whatsapp"})
	x.customerIsAnswered([]string{"Acme Energy"})
	talk := map[string]string{"id": x.first(x.do("list-conversations", exampleCall{query: map[string]string{"phone": "082 123 4567"}}), "id")}
	x.do("get-conversation", exampleCall{path: talk})
	x.do("take-over-conversation", exampleCall{path: talk, body: map[string]any{}})
	x.do("show-typing", exampleCall{path: talk, body: map[string]any{}})
	x.do("write-message", exampleCall{path: talk, status: 201, body: map[string]any{"text": "Yes, it is for the repair of Tuesday."}})
	x.do("list-messages", exampleCall{path: talk, query: map[string]string{"limit": "3"}})
	x.do("hand-back-conversation", exampleCall{path: talk, body: map[string]any{}})
	x.do("verify-identity", exampleCall{path: talk, body: map[string]any{}})

	// Callbacks, once the first have come.
	for len(x.made.Callback) == 0 {
		body := <-bodies
		x.check("a callback", body, "webhooks", "payment_request", "post", "requestBody", "content", "application/json", "schema")
		if strings.Contains(string(body), `"payment_request.captured"`) {
			x.made.Callback = json.RawMessage(x.names.apply(string(body)))
		}
	}
	x.do("get-callback-endpoint", exampleCall{path: ofEndpoint})
	x.do("update-callback-endpoint", exampleCall{path: ofEndpoint, body: map[string]any{"description": "the ledger"}})
	x.do("test-callback-endpoint", exampleCall{path: ofEndpoint, status: 202, body: map[string]any{}})
	delivery := x.first(x.do("list-callback-deliveries", exampleCall{path: ofEndpoint, query: map[string]string{"state": "delivered", "limit": "2"}}), "id")
	x.do("redeliver-callback", exampleCall{path: map[string]string{"id": endpoint, "delivery": delivery}, status: 202, body: map[string]any{}})
	x.do("replay-callbacks", exampleCall{path: ofEndpoint, status: 202, body: map[string]any{"since": "2026-11-22T08:00:00Z"}})
	x.do("rotate-callback-secret", exampleCall{path: ofEndpoint, body: map[string]any{}})
	x.do("disable-callback-endpoint", exampleCall{path: ofEndpoint, body: map[string]any{}})
	x.do("enable-callback-endpoint", exampleCall{path: ofEndpoint, body: map[string]any{}})
	x.do("delete-callback-endpoint", exampleCall{path: ofEndpoint, status: 204})

	// What could not be worked.
	client := redis.NewClient(&redis.Options{Addr: x.config.Redis.Addresses[0]})
	t.Cleanup(func() { _ = client.Close() })
	bury(t, client, x.config.Redis.Prefix, inquiryOf("acme", held["id"]), inquiryOf("acme", held["id"]))
	dead := x.first(x.do("list-dead-letters", exampleCall{query: map[string]string{"limit": "1"}}), "id")
	x.do("drop-dead-letter", exampleCall{path: map[string]string{"id": dead}, status: 204, body: map[string]any{}})
	again := x.first(x.want(x.call(http.MethodGet, x.public+"/v1/dead-letters", bearer(demoAPIKey), nil), http.StatusOK), "id")
	x.do("retry-dead-letter", exampleCall{path: map[string]string{"id": again}, status: 204, body: map[string]any{}})
}

// TestAPIExamples makes every call that the description gives as an
// example of a running gateway. Each has to go as it is written there, and to be
// answered as it is described.
func TestAPIExamples(t *testing.T) {
	t.Parallel()
	bodies := make(chan []byte, 200)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(http.MaxBytesReader(w, r.Body, 1<<20)) // what is cut short is no JSON
		select {
		case bodies <- body.Bytes():
		default: // nobody reads any more
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(receiver.Close)
	x := &exampleRun{tale: newTale(t, newStage(t, stageOptions{Redis: onRealRedis})), described: newDescribed(t), names: exampleNames{known: map[string]string{}}}
	x.play(receiver.URL+"/callbacks", bodies)

	for path, item := range x.document["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			id := op.(map[string]any)["operationId"].(string)
			if !slices.ContainsFunc(x.made.Calls, func(e apiExample) bool { return e.Operation == id }) {
				t.Errorf("%s %s: %s has no example", method, path, id)
			}
		}
	}
	if *update {
		text, err := json.MarshalIndent(x.made, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, examplesFile, append(text, '\n'))
		return
	}
	shown, err := readExamples(openAPIExamples)
	if err != nil {
		t.Fatal(err)
	}
	if len(shown.Calls) != len(x.made.Calls) {
		t.Fatalf("%d examples are shown and %d calls were made: go test ./gateway -run '^%s$' -update", len(shown.Calls), len(x.made.Calls), t.Name())
	}
	for i, made := range x.made.Calls {
		holdExample(t, shown.Calls[i], made)
	}
	x.check("the callback that is shown", shown.Callback, "webhooks", "payment_request", "post", "requestBody", "content", "application/json", "schema")
}

// holdExample compares an example with what was sent and came back just now:
// the call has to be the same, the answer to have the same fields.
func holdExample(t *testing.T, shown, made apiExample) {
	t.Helper()
	if shown.Operation != made.Operation || shown.Status != made.Status || !maps.Equal(shown.Query, made.Query) || len(shown.Path) != len(made.Path) ||
		sameJSON(t, shown.Body) != sameJSON(t, made.Body) {
		t.Errorf("the example of %s is not the call that is made; look at the difference after -update", shown.Operation)
	}
	if was, is := fieldsOf(t, shown.Answer), fieldsOf(t, made.Answer); !slices.Equal(was, is) {
		t.Errorf("the answer of the example of %s has the fields %q, and now %q", shown.Operation, was, is)
	}
}

func sameJSON(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	if len(raw) == 0 {
		return ""
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fieldsOf are the fields of an answer, and of a list those of its first item.
func fieldsOf(t *testing.T, raw json.RawMessage) []string {
	t.Helper()
	if len(raw) == 0 {
		return nil
	}
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(v))
}

// TestDescribedExamplesAreRight: what the description shows fits what it says,
// for every operation.
func TestDescribedExamplesAreRight(t *testing.T) {
	t.Parallel()
	d := newDescribed(t)
	for path, item := range d.document["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			op := op.(map[string]any)
			what := fmt.Sprint(op["operationId"])
			if body, ok := op["requestBody"].(map[string]any); ok {
				d.example(what+": the request", body, "paths", path, method, "requestBody")
			}
			shown := 0
			for status, answer := range op["responses"].(map[string]any) {
				if content, ok := answer.(map[string]any)["content"].(map[string]any); ok && strings.HasPrefix(status, "2") && content["application/json"] != nil {
					d.example(what+": the answer", answer.(map[string]any), "paths", path, method, "responses", status)
					shown++
				} else if status == "204" {
					shown++
				}
			}
			if shown != 1 {
				t.Errorf("%s shows %d answers, want 1", what, shown)
			}
		}
	}
	for _, k := range problemKinds {
		about := d.document["components"].(map[string]any)["schemas"].(map[string]any)["Problem"].(map[string]any)["properties"].(map[string]any)["code"].(map[string]any)["description"].(string)
		if !strings.Contains(about, fmt.Sprintf("`%s` (%d): %s", k.Code, k.Status, k.Title)) {
			t.Errorf("the description does not explain the problem %s", k.Code)
		}
	}
	if got := len(d.document["webhooks"].(map[string]any)); got != len(callbackKinds) {
		t.Errorf("%d callbacks are described, want %d", got, len(callbackKinds))
	}
}

// example holds the example beside a schema against it.
func (d *described) example(what string, of map[string]any, place ...string) {
	d.t.Helper()
	media := of["content"].(map[string]any)["application/json"].(map[string]any)
	if media["example"] == nil {
		d.t.Errorf("%s has no example", what)
		return
	}
	raw, err := json.Marshal(media["example"])
	if err != nil {
		d.t.Fatal(err)
	}
	d.check(what, raw, append(place, "content", "application/json", "schema")...)
}
