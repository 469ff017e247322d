package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
)

// documented is the API as it describes itself; it needs nothing to do so.
func documented(t *testing.T) *api {
	t.Helper()
	a := newAPI(apiOptions{})
	a.register(fiber.New())
	return a
}

func TestGeneratedOpenAPI(t *testing.T) {
	t.Parallel()
	got, err := documented(t).openAPI()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "openapi.json", got)
}

// TestOpenAPIIsWhole: every route is described, refers to nothing that is not
// there, and explains each field that callers send.
func TestOpenAPIIsWhole(t *testing.T) {
	t.Parallel()
	app := fiber.New()
	a := newAPI(apiOptions{})
	a.register(app)
	raw, err := a.openAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI    string `json:"openapi"`
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal(raw, &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("openapi %q, %v", doc.OpenAPI, err)
	}
	parameter := regexp.MustCompile(`:(\w+)`)
	served := 0
	for _, route := range app.GetRoutes(true) {
		if !strings.HasPrefix(route.Path, "/v1/") || route.Method == fiber.MethodHead {
			continue
		}
		served++
		path := parameter.ReplaceAllString(route.Path, "{$1}")
		if doc.Paths[path][strings.ToLower(route.Method)] == nil {
			t.Errorf("%s %s is not described", route.Method, path)
		}
	}
	described := 0
	for _, item := range doc.Paths {
		described += len(item)
	}
	if served != described || served != 39 {
		t.Errorf("%d routes are served, %d described, want 39", served, described)
	}
	for name, closed := range map[string]bool{"CreateBody": true, "Amount": true, "LineItem": true, "SessionAgent": true, "PaymentRequest": false, "SealedOrder": false, "Problem": false} {
		if got := strings.Contains(string(doc.Components.Schemas[name]), `"additionalProperties": false`); got != closed {
			t.Errorf("%s takes further fields: %v, want %v", name, !got, !closed)
		}
	}
	for _, ref := range regexp.MustCompile(`"\$ref": "#/components/schemas/([^"]+)"`).FindAllStringSubmatch(string(raw), -1) {
		if doc.Components.Schemas[ref[1]] == nil {
			t.Errorf("there is no schema %s", ref[1])
		}
	}
	var listed []string
	for _, l := range conversations.Lifecycles {
		listed = append(listed, string(l))
	}
	var request struct {
		Properties map[string]struct{ Enum []string }
	}
	if err := json.Unmarshal(doc.Components.Schemas["PaymentRequest"], &request); err != nil || !slices.Equal(request.Properties["lifecycle"].Enum, listed) {
		t.Errorf("lifecycles %v, want %v; %v", request.Properties["lifecycle"].Enum, listed, err)
	}
}

func TestDocsPages(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	want, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if r := b.call(apiCall{method: "GET", path: "/openapi.json"}); r.status != 200 || r.raw != string(want) {
		t.Errorf("/openapi.json: %d, %d bytes, want the %d of the file", r.status, len(r.raw), len(want))
	}
	outside := regexp.MustCompile(`(?i)<(script|link|img|iframe)|url\(|@import|(src|href)="(https?:)?//`)
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`)
	ids := map[string]bool{}
	var links []string
	for _, path := range []string{"/docs", "/docs/problems"} {
		r := b.call(apiCall{method: "GET", path: path})
		if r.status != 200 || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
			t.Fatalf("%s: %d %s", path, r.status, r.header.Get("Content-Type"))
		}
		if found := outside.FindString(r.raw); found != "" {
			t.Errorf("%s asks for something: %s", path, found)
		}
		csp := r.header.Get("Content-Security-Policy")
		if m := style.FindStringSubmatch(r.raw); m == nil || !strings.Contains(csp, "'sha256-"+hashOf(m[1])+"'") || !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: the policy %q does not fit the page", path, csp)
		}
		for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(r.raw, -1) {
			ids[path+"#"+m[1]] = true
		}
		for _, m := range regexp.MustCompile(`href="(#[^"]+)"`).FindAllStringSubmatch(r.raw, -1) {
			links = append(links, path+m[1])
		}
		if len(r.raw) > 260<<10 {
			t.Errorf("%s has %d bytes", path, len(r.raw))
		}
	}
	reference := b.call(apiCall{method: "GET", path: "/docs"}).raw
	if found := regexp.MustCompile("[^\n]{0,40}`[^\n]{0,40}").FindString(reference); found != "" {
		t.Errorf("the marks of a description are shown: %s", found)
	}
	if strings.Contains(reference, "map[") || !strings.Contains(reference, "<code>{&#34;branch&#34;:&#34;Paarl&#34;}</code>") {
		t.Error("an example of an object is not written as it is sent")
	}
	there := b.call(apiCall{method: "GET", path: "/docs", host: farHost}).raw
	if !strings.Contains(there, "curl https://"+farHost+"/v1/payment-requests") || !strings.Contains(reference, "curl https://"+sharedHost+"/v1/payment-requests") {
		t.Error("the call to try does not go where the page came from")
	}
	examples, err := readExamples(openAPIExamples)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range examples.Calls { // its answer stands in its section
		_, section, _ := strings.Cut(reference, `<section aria-labelledby="`+e.Operation+`"`)
		section, _, _ = strings.Cut(section, "</section>")
		if len(e.Answer) > 0 && !strings.Contains(section, "<summary>Example</summary>") {
			t.Errorf("%s has no example", e.Operation)
		}
	}
	first := strings.Index(reference, "<a ")
	if !strings.HasPrefix(reference[first:], `<a class="skip" href="#content">`) {
		t.Error("whoever has a keyboard alone cannot skip the contents")
	}
	for _, link := range links {
		if !ids[link] {
			t.Errorf("%s leads nowhere", link)
		}
	}
	for _, k := range problemKinds { // each problem's type leads to its explanation
		if !ids["/docs/problems#"+string(k.Code)] {
			t.Errorf("%s is not explained", k.Code)
		}
	}
}

// TestEverythingIsExplained: whoever reads the description finds a word about
// each operation, parameter and field, and where a field is an object, about it.
func TestEverythingIsExplained(t *testing.T) {
	t.Parallel()
	d := newDescribed(t)
	explained := func(what string, of any) {
		t.Helper()
		v, _ := of.(map[string]any)
		if text, _ := v["description"].(string); text == "" && v["$ref"] == nil {
			t.Errorf("nothing is said about %s", what)
		}
	}
	for path, item := range d.document["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			explained(method+" "+path, op)
			parameters, _ := op.(map[string]any)["parameters"].([]any)
			for _, p := range parameters {
				explained(method+" "+path+": "+p.(map[string]any)["name"].(string), p)
			}
		}
	}
	for name, schema := range d.document["components"].(map[string]any)["schemas"].(map[string]any) {
		properties, _ := schema.(map[string]any)["properties"].(map[string]any)
		for field, p := range properties {
			explained(name+"."+field, p)
		}
	}
}
