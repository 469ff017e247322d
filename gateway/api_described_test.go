package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"
)

// describedRefusal resolves how an operation's answer of a status is described.
func (d *described) describedRefusal(op map[string]any, status int) (name string, answer map[string]any) {
	of, _ := op["responses"].(map[string]any)[fmt.Sprint(status)].(map[string]any)
	ref, _ := of["$ref"].(string)
	name = strings.TrimPrefix(ref, "#/components/responses/")
	answer, _ = d.document["components"].(map[string]any)["responses"].(map[string]any)[name].(map[string]any)
	return name, answer
}

// TestEveryRefusalIsDescribed calls every operation in every wrong way there is
// for all of them: what comes back is a problem that its description knows.
func TestEveryRefusalIsDescribed(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	d := newDescribed(t)
	token, _ := b.session("1042")
	examples, err := readExamples(openAPIExamples)
	if err != nil {
		t.Fatal(err)
	}
	body := map[string]string{}
	for _, e := range examples.Calls {
		if len(e.Body) > 0 {
			body[e.Operation] = string(e.Body)
		}
	}
	as := func(key, value string) map[string]string { return map[string]string{key: value} }
	ways := []struct {
		name   string
		method string // only of this one; empty: of every one
		wants  []int
		change func(*apiCall, string) // and the example's body
	}{
		{"no key", "", []int{401}, func(c *apiCall, _ string) { c.token = "" }},
		{"another's key", "", []int{401}, func(c *apiCall, _ string) { c.token = "no-such-key" }},
		{"basic", "", []int{401}, func(c *apiCall, _ string) { c.header = as("Authorization", "Basic eDp5") }},
		{"elsewhere", "", []int{403}, func(c *apiCall, _ string) { c.header = as("Origin", "https://evil.example") }},
		{"an agent", "", nil, func(c *apiCall, _ string) { c.token = token }},
		{"nothing there", "", nil, func(*apiCall, string) {}},
		{"unknown parameter", "", []int{404, 422}, func(c *apiCall, _ string) { c.path += "?wat=1" }},
		{"long id", "", nil, func(c *apiCall, _ string) { c.path = strings.ReplaceAll(c.path, "nope", strings.Repeat("n", 300)) }},
		{"wrong cursor", "GET", nil, func(c *apiCall, _ string) { c.path += "?limit=-1" }},
		{"plain text", "POST", []int{415}, func(c *apiCall, _ string) { c.body, c.header = "hello", as("Content-Type", "text/plain") }},
		{"compressed", "POST", []int{415}, func(c *apiCall, _ string) { c.header = as("Content-Encoding", "gzip") }},
		{"not whole", "POST", []int{400}, func(c *apiCall, _ string) { c.body = "{" }},
		{"a list", "POST", []int{400}, func(c *apiCall, _ string) { c.body = "[]" }},
		{"large", "POST", []int{413}, func(c *apiCall, _ string) { c.body = `{"a":"` + strings.Repeat("x", maxBody) + `"}` }},
		{"unknown field", "POST", []int{422}, func(c *apiCall, example string) {
			if c.body = `{"wat":1}`; example != "" && example != "{}" {
				c.body = `{"wat":1,` + example[1:]
			}
		}},
		{"no time", "POST", nil, func(c *apiCall, _ string) { c.body = `{"since":"yesterday"}` }},
		{"long key", "POST", []int{422}, func(c *apiCall, _ string) { c.key = strings.Repeat("k", 256) }},
	}
	for path, item := range d.document["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			op := op.(map[string]any)
			for _, way := range ways {
				method := strings.ToUpper(method)
				if way.method != "" && way.method != method {
					continue
				}
				call := apiCall{method: method, path: strings.NewReplacer("{id}", "nope", "{delivery}", "nope").Replace(path), token: acmeKey}
				example := body[op["operationId"].(string)]
				if method == "POST" {
					if call.body = example; example == "" {
						call.body = "{}"
					}
				}
				if call.path == "/v1/events" {
					call.header = as("Accept", "application/json")
				}
				way.change(&call, example)
				r := b.call(call)
				what := fmt.Sprintf("%s %s, %s", method, path, way.name)
				if way.wants != nil && !slices.Contains(way.wants, r.status) {
					t.Errorf("%s: %d, want %d: %s", what, r.status, way.wants, r.raw)
				}
				if r.status < 400 {
					continue
				}
				r.want(t, r.status)
				name, answer := d.describedRefusal(op, r.status)
				if answer == nil {
					t.Errorf("%s: an answer of %d is not described: %s", what, r.status, r.raw)
					continue
				}
				d.check(what, []byte(r.raw), "components", "responses", name, "content", problemType, "schema")
				for header := range headersOf(answer) {
					if r.header.Get(header) == "" {
						t.Errorf("%s: %d without %s", what, r.status, header)
					}
				}
				if r.status == 422 && len(r.fields()) == 0 {
					t.Errorf("%s: no field is named: %s", what, r.raw)
				}
				named, _ := r.get("errors").([]any)
				for _, e := range named {
					if m := e.(object)["message"].(string); strings.HasPrefix(m, "expected") {
						t.Errorf("%s: the words are another's: %s", what, m)
					}
				}
			}
		}
	}
}

func headersOf(answer map[string]any) map[string]any {
	headers, _ := answer["headers"].(map[string]any)
	return headers
}

// TestRefusalsShownAreReal: each example of a refusal is, letter by letter, what
// a call is answered that is wrong in this way.
func TestRefusalsShownAreReal(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	token, _ := b.session("1042")
	id := b.create("1043").text("id")
	cancel := apiCall{method: "POST", path: "/v1/payment-requests/" + id + "/cancel", token: acmeKey, body: object{}}
	b.call(cancel).want(t, 200)
	create := apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey}
	with := func(call apiCall, change func(*apiCall)) apiCall { change(&call); return call }
	calls := map[int]apiCall{
		400: with(create, func(c *apiCall) { c.body = `{"order":` }),
		401: {method: "GET", path: "/v1/senders", token: "no-such-key"},
		403: {method: "POST", path: "/v1/agent-sessions", token: token, body: object{"sealed_order": "so_1"}},
		404: {method: "GET", path: "/v1/payment-requests/pr_none", token: acmeKey},
		406: {method: "GET", path: "/v1/events", token: acmeKey, header: map[string]string{"Accept": "text/html"}},
		409: cancel,
		413: with(create, func(c *apiCall) { c.body = `{"note":"` + strings.Repeat("x", maxBody) + `"}` }),
		415: with(create, func(c *apiCall) {
			c.body, c.header = "order=1042", map[string]string{fiber.HeaderContentType: "text/plain"}
		}),
		422: with(create, func(c *apiCall) { c.body = createBodyOf("1", object{"total": object{"value": 149, "currency": "ZAR"}}) }),
		500: {method: "GET", path: "/v1/panic", token: acmeKey},
	}
	d := newDescribed(t)
	for _, r := range refusals {
		shown, err := json.Marshal(problemOf(r.example))
		if err != nil {
			t.Fatal(err)
		}
		d.check(r.name, shown, "components", "responses", r.name, "content", problemType, "schema")
		call, ok := calls[r.status]
		if !ok {
			continue // 429 and 503: TestStreamsOfOneCallerAreBounded, TestRedisAway
		}
		delete(calls, r.status)
		if got := b.call(call).want(t, r.status); sameJSON(t, []byte(got.raw)) != sameJSON(t, shown) {
			t.Errorf("%d: got  %s\nshown %s", r.status, got.raw, shown)
		}
	}
	if len(calls) > 0 {
		t.Errorf("nothing is shown of %v", slices.Sorted(maps.Keys(calls)))
	}
}
