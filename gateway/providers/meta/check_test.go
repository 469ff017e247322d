package meta_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/meta"
)

// graph is Meta's side of the doctor's questions, written from its documents:
// a number PN1 of the account WABA1, to which the app APP1 is subscribed, with
// three templates that are approved in English and German.
type graph struct {
	number    map[string]any
	numbers   []any
	apps      []any
	templates []map[string]any
	refuse    map[string]string // by path: an error's members
	unknown   string            // a field that this version does not know
	page      int               // elements on a page of a list; zero: all
	asked     []string
}

func newGraph() *graph {
	g := &graph{
		number: map[string]any{
			"id": "PN1", "display_phone_number": "+1 555-078-3881", "verified_name": "Acme Energy", "quality_rating": "GREEN", "name_status": "APPROVED",
			"status": "CONNECTED", "platform_type": "CLOUD_API", "account_mode": "LIVE", "throughput": map[string]any{"level": "STANDARD"},
			"health_status":         map[string]any{"can_send_message": "AVAILABLE", "entities": []any{}},
			"webhook_configuration": map[string]any{"application": "https://pay.example.test/webhooks/sender_1"},
		},
		numbers: []any{map[string]any{"id": "PN7"}, map[string]any{"id": "PN1"}},
		apps:    []any{map[string]any{"whatsapp_business_api_data": map[string]any{"id": "APP1", "name": "Pay", "link": "https://x.example"}}},
		refuse:  map[string]string{},
	}
	for _, language := range []string{"de", "en"} {
		g.templates = append(g.templates,
			approvedTemplate("payment_request", language, "{{1}} asks for {{2}} for order {{3}}.", "https://pay.example.test/p/{{1}}"),
			approvedTemplate("receipt_ready", language, "{{1}}: {{2}} paid for {{3}}. {{1}} thanks you.", "https://pay.example.test/r/{{1}}"),
			approvedTemplate("request_cancelled", language, "{{1}} cancelled order {{2}}.", ""),
			approvedTemplate("money_returned", language, "{{1}} returned {{2}} for order {{3}}.", "https://pay.example.test/r/{{1}}"),
		)
	}
	g.templates = append(g.templates, approvedTemplate("payment_request_old", "en", "No.", ""))
	return g
}

func approvedTemplate(name, language, body, link string) map[string]any {
	components := []any{map[string]any{"type": "BODY", "text": body}}
	if link != "" {
		components = append(components, map[string]any{"type": "BUTTONS", "buttons": []any{map[string]any{"type": "URL", "text": "Open", "url": link, "example": []any{"x"}}}})
	}
	return map[string]any{"name": name, "language": language, "status": "APPROVED", "category": "UTILITY", "parameter_format": "POSITIONAL", "components": components}
}

func (g *graph) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.asked = append(g.asked, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Authorization"))
	path := strings.TrimPrefix(r.URL.Path, "/v25.0/")
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) } // the client may be gone
	if members := g.refuse[path]; members != "" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"error":{"message":"secret EAAB-access-token-for-tests",%s}}`, members)
		return
	}
	if g.unknown != "" && strings.Contains(r.URL.Query().Get("fields"), g.unknown) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprint(w, `{"error":{"message":"(#100) Tried accessing nonexisting field","type":"OAuthException","code":100}}`)
		return
	}
	switch path {
	case "PN1":
		answer(g.number)
	case "WABA1/phone_numbers":
		answer(g.list(r.URL.Query(), g.numbers))
	case "WABA1/subscribed_apps":
		answer(g.list(r.URL.Query(), g.apps))
	case "WABA1/message_templates":
		var found []any
		for _, t := range g.templates { // the filter takes parts of names, too
			if strings.Contains(t["name"].(string), r.URL.Query().Get("name")) {
				found = append(found, t)
			}
		}
		answer(g.list(r.URL.Query(), found))
	default:
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprint(w, `{"error":{"message":"Unsupported get request","type":"GraphMethodException","code":100,"error_subcode":33}}`)
	}
}

// list answers an edge, page by page.
func (g *graph) list(query url.Values, all []any) any {
	var from int
	_, _ = fmt.Sscanf(query.Get("after"), "c%d", &from) // none: from the start
	to := len(all)
	if g.page > 0 {
		to = min(from+g.page, len(all))
	}
	paging := map[string]any{"cursors": map[string]any{"before": "b", "after": fmt.Sprintf("c%d", to)}}
	if to < len(all) {
		paging["next"] = "https://graph.example/next"
	}
	return map[string]any{"data": all[from:to], "paging": paging}
}

// checkup asks the doctor's questions and returns the findings that are not
// fine, each as "state check: detail", and how many are.
func checkup(t *testing.T, g *graph, change map[string]string) (bad []string, fine int) {
	t.Helper()
	server := httptest.NewServer(g)
	defer server.Close()
	p := checked(t, server.URL, server.Client(), change)
	for _, f := range p.Check(t.Context()) {
		if f.Check == "" || f.Detail == "" || strings.Contains(f.Detail+f.Mend, "EAAB") || strings.Contains(f.Detail+f.Mend, "5550783881") {
			t.Errorf("%+v has no detail, or tells a secret or a whole number", f)
		}
		if (f.State == providers.FindingOK) != (f.Mend == "") {
			t.Errorf("%+v: what is fine needs no mending, everything else does", f)
		}
		if f.State == providers.FindingOK {
			fine++
			continue
		}
		bad = append(bad, string(f.State)+" "+f.Check+": "+f.Detail)
	}
	return bad, fine
}

func checked(t *testing.T, base string, client *http.Client, change map[string]string) *meta.Provider {
	t.Helper()
	h := harness()
	h.Values["base_url"], h.Values["template_languages"], h.Values["app_id"] = base, "de", "APP1"
	maps.Copy(h.Values, change)
	p, err := meta.New(providers.Settings{SenderID: "sender_1", WebhookURL: h.WebhookURL, Values: h.Values, Siblings: h.Siblings}, client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCheck(t *testing.T) {
	t.Parallel()
	number := func(key string, value any) func(*graph) {
		return func(g *graph) { g.number[key] = value }
	}
	first := func(change func(template map[string]any)) func(*graph) { // payment_request in German
		return func(g *graph) { change(g.templates[0]) }
	}
	for _, c := range []struct {
		name     string
		change   func(*graph)
		settings map[string]string
		want     []string // begin and part of each finding that is not fine, in order
	}{
		{name: "all is well"},
		{name: "small pages", change: func(g *graph) { g.page = 1 }},
		{name: "a field that this version does not know", change: func(g *graph) { g.unknown = "health_status" }},
		{name: "a field of templates that this version does not know", change: func(g *graph) { g.unknown = "parameter_format" }},
		{name: "the number, as configured", settings: map[string]string{"phone_number": "+1 555 078 3881"}},
		{name: "the webhook is another sender's of the app", change: number("webhook_configuration", map[string]any{"phone_number": "https://pay.example.test/webhooks/sender_2/secret"})},
		{name: "nothing but the needed fields", change: func(g *graph) {
			g.number = map[string]any{"id": "PN1"}
			g.templates[0]["components"] = nil
		}},
		{name: "members of other types than documented", change: func(g *graph) {
			g.number["throughput"], g.number["health_status"] = "x", []any{}
			g.numbers[0] = map[string]any{"id": 7}
		}},

		{name: "token expired", change: func(g *graph) { g.refuse["PN1"] = `"type":"OAuthException","code":190,"error_subcode":463` }, want: []string{"wrong access token: Meta refused it (code 190)"}},
		{name: "token without a permission", change: func(g *graph) { g.refuse["PN1"] = `"code":200` }, want: []string{"wrong access token: It lacks a permission (code 200)"}},
		{name: "account locked", change: func(g *graph) { g.refuse["PN1"] = `"code":131031` }, want: []string{"wrong account: It is restricted"}},
		{name: "too many questions", change: func(g *graph) { g.refuse["PN1"] = `"code":80007` }, want: []string{"warning access token: Meta refused the question for now"}},
		{name: "no such number", settings: map[string]string{"phone_number_id": "PN404"}, want: []string{"wrong number: Meta knows no number"}},

		{name: "another number", settings: map[string]string{"phone_number": "+15550783999"}, want: []string{"wrong number: phone_number_id is of another number, ending in 3881"}},
		{name: "number banned", change: number("status", "BANNED"), want: []string{"wrong number: Its status is banned"}},
		{name: "number flagged", change: number("status", "FLAGGED"), want: []string{"warning number: Its status is flagged"}},
		{name: "a status to come", change: number("status", "BRAND_NEW"), want: []string{"warning number: Its status is brand_new"}},
		{name: "number not registered", change: number("platform_type", "NOT_APPLICABLE"), want: []string{"wrong number: It is not registered"}},
		{name: "name declined", change: number("name_status", "DECLINED"), want: []string{"warning number: Its display name is not approved"}},
		{name: "quality red", change: number("quality_rating", "RED"), want: []string{"warning number: Its quality is red"}},
		{name: "test number", change: number("account_mode", "SANDBOX"), want: []string{"warning number: It is a test number"}},
		{name: "sending blocked", change: number("health_status", map[string]any{"can_send_message": "BLOCKED", "entities": []any{
			map[string]any{"entity_type": "PHONE_NUMBER", "can_send_message": "AVAILABLE"},
			map[string]any{"entity_type": "WABA", "can_send_message": "BLOCKED", "errors": []any{map[string]any{"error_code": 141006, "error_description": "x", "possible_solution": "y"}}},
		}}), want: []string{"wrong sending: Meta says that messages cannot be sent: waba is blocked (code 141006)"}},
		{name: "sending limited", change: number("health_status", map[string]any{"can_send_message": "LIMITED"}), want: []string{"warning sending: Meta says that messages can be sent within limits: the reason is not told"}},

		{name: "no account configured", settings: map[string]string{"waba_id": ""}, want: []string{"warning account: waba_id is not set"}},
		{name: "no such account", settings: map[string]string{"waba_id": "WABA404"}, want: []string{"wrong account: Meta refused the question (code 100)"}},
		{name: "the account may not be read", change: func(g *graph) { g.refuse["WABA1/phone_numbers"] = `"code":200` }, want: []string{"warning account: Meta refused the question (code 200): the token may not read this"}},
		{name: "the number is of another account", change: func(g *graph) { g.numbers = g.numbers[:1] }, want: []string{"wrong account: The number is none of the account's"}},

		{name: "no app subscribed", change: func(g *graph) { g.apps = nil }, want: []string{"wrong webhook subscription: No app is subscribed"}},
		{name: "another app subscribed", settings: map[string]string{"app_id": "APP2"}, want: []string{"wrong webhook subscription: The app is not among those"}},
		{name: "no app configured", settings: map[string]string{"app_id": ""}},
		{name: "webhooks go elsewhere", change: number("webhook_configuration", map[string]any{"application": "https://pay.example.test/webhooks/sender_1", "whatsapp_business_account": "https://old.example/hook/secret"}),
			want: []string{"wrong webhook address: Webhooks go to old.example, not to https://pay.example.test/webhooks/sender_1"}},
		{name: "webhooks are overridden", change: func(g *graph) {
			delete(g.number, "webhook_configuration")
			g.apps[0].(map[string]any)["override_callback_uri"] = "https://pay.example.test/webhooks/sender_10"
		}, want: []string{"wrong webhook address: Webhooks go to pay.example.test"}},

		{name: "webhooks go elsewhere, and the account cannot be looked at", settings: map[string]string{"waba_id": ""},
			change: number("webhook_configuration", map[string]any{"application": "https://old.example/hook"}),
			want:   []string{"warning account: waba_id is not set", "wrong webhook address: Webhooks go to old.example"}},

		{name: "template not set", settings: map[string]string{"template_receipt": ""}, want: []string{"warning template receipt: template_receipt is not set"}},
		{name: "the optional template not set", settings: map[string]string{"template_refund": ""}, want: []string{"warning template refund: template_refund is not set"}},
		{name: "template missing", settings: map[string]string{"template_payment": "payment_404"}, want: []string{
			"wrong template payment_404 (en): The account has no such template", "wrong template payment_404 (de): The account has no such template"}},
		{name: "template missing in a language", settings: map[string]string{"template_languages": "de, pt-BR"}, want: []string{
			"wrong template payment_request (pt_BR): ", "wrong template receipt_ready (pt_BR): ", "wrong template request_cancelled (pt_BR): ", "wrong template money_returned (pt_BR): "}},
		{name: "templates may not be read", change: func(g *graph) { g.refuse["WABA1/message_templates"] = `"code":10` }, want: []string{
			"warning template payment_request: Meta refused", "warning template receipt_ready: Meta refused", "warning template request_cancelled: Meta refused", "warning template money_returned: Meta refused"}},
		{name: "template paused", change: first(func(t map[string]any) { t["status"] = "PAUSED" }), want: []string{"wrong template payment_request (de): Its status is paused"}},
		{name: "template flagged", change: first(func(t map[string]any) { t["status"] = "FLAGGED" }), want: []string{"warning template payment_request (de): Its status is flagged"}},
		{name: "template of a status to come", change: first(func(t map[string]any) { t["status"] = "BRAND_NEW" }), want: []string{"warning template payment_request (de): Its status is brand_new"}},
		{name: "template is marketing", change: first(func(t map[string]any) { t["category"] = "MARKETING" }), want: []string{"warning template payment_request (de): Meta has put it into the category marketing"}},
		{name: "template with names", change: first(func(t map[string]any) { t["parameter_format"] = "NAMED" }), want: []string{"wrong template payment_request (de): Its variables have names"}},
		{name: "template with too few variables", change: func(g *graph) {
			g.templates[0] = approvedTemplate("payment_request", "de", "{{1}} {{2}}", "https://pay.example.test/p/{{1}}")
		}, want: []string{"wrong template payment_request (de): Its body has 2 variables; 3 values are sent"}},
		{name: "template without a button", change: func(g *graph) {
			g.templates[0] = approvedTemplate("payment_request", "de", "{{1}} {{2}} {{3}}", "")
		}, want: []string{"wrong template payment_request (de): It has 0 link buttons"}},
		{name: "template with a fixed link", change: func(g *graph) {
			g.templates[0] = approvedTemplate("payment_request", "de", "{{1}} {{2}} {{3}}", "https://pay.example.test/")
		}, want: []string{"wrong template payment_request (de): It has 0 link buttons"}},
		{name: "template with the receipt's link", change: func(g *graph) {
			g.templates[0] = approvedTemplate("payment_request", "de", "{{1}} {{2}} {{3}}", "https://pay.example.test/r/{{1}}")
		}, want: []string{"wrong template payment_request (de): Its link button opens another address than https://pay.example.test/p/{{1}}"}},
		{name: "template with a button that is not wanted", change: func(g *graph) {
			g.templates[2] = approvedTemplate("request_cancelled", "de", "{{1}} {{2}}", "https://pay.example.test/p/{{1}}")
		}, want: []string{"wrong template request_cancelled (de): It has a link button with a variable"}},
		{name: "template whose link is the second button", change: first(func(t map[string]any) {
			buttons := t["components"].([]any)[1].(map[string]any)
			buttons["buttons"] = append([]any{map[string]any{"type": "QUICK_REPLY", "text": "Help"}}, buttons["buttons"].([]any)...)
		}), want: []string{"wrong template payment_request (de): Its link button is not the first button"}},
		{name: "template with a picture", change: first(func(t map[string]any) {
			t["components"] = append(t["components"].([]any), map[string]any{"type": "HEADER", "format": "IMAGE"})
		}), want: []string{"wrong template payment_request (de): Its header needs a value"}},
		{name: "template with a plain header", change: first(func(t map[string]any) {
			t["components"] = append(t["components"].([]any), map[string]any{"type": "HEADER", "format": "TEXT", "text": "Your bill"}, map[string]any{"type": "FOOTER", "text": "Bye"})
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGraph()
			if c.change != nil {
				c.change(g)
			}
			bad, fine := checkup(t, g, c.settings)
			if len(bad) != len(c.want) {
				t.Fatalf("got\n%s\nwant\n%s", strings.Join(bad, "\n"), strings.Join(c.want, "\n"))
			}
			for i, want := range c.want {
				if !strings.HasPrefix(bad[i], want) {
					t.Errorf("got %q, want %q", bad[i], want)
				}
			}
			if c.name == "all is well" && fine != 14 {
				t.Errorf("%d things are fine, want 14: token, number, sending, account, subscription, address and eight templates", fine)
			}
			for _, asked := range g.asked {
				if !strings.HasPrefix(asked, "GET ") || !strings.HasSuffix(asked, " Bearer EAAB-access-token-for-tests") || strings.Count(asked, "EAAB") != 1 {
					t.Errorf("asked %q, want a GET with the token in its header alone", asked)
				}
			}
		})
	}
}

// TestCheckUnreachable ends after the first question that has no answer.
func TestCheckUnreachable(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	got := checked(t, server.URL, server.Client(), nil).Check(t.Context())
	if len(got) != 1 || got[0].State != providers.FindingWrong || got[0].Mend == "" {
		t.Errorf("got %+v, want that Meta could not be reached", got)
	}

	server = httptest.NewServer(newGraph())
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := checked(t, server.URL, server.Client(), nil).Check(ctx); len(got) != 1 || got[0].State == providers.FindingOK {
		t.Errorf("with a context that has ended: got %+v", got)
	}
}

func TestMarkRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, id, answer string
		status           int
		typing           bool
		want             string // the request's body; empty: none
		reason           conversations.FailureReason
	}{
		{name: "read", id: "wamid.A1", status: 200, answer: `{"success":true}`, want: `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.A1"}`},
		{name: "read and typing", id: "wamid.A1", typing: true, status: 200, answer: `{"success":true}`,
			want: `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.A1","typing_indicator":{"type":"text"}}`},
		{name: "an answer to come", id: "wamid.A1", status: 200, answer: `{"ok":1}`, want: `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.A1"}`},
		{name: "unknown id", id: "wamid.A1", status: 400, answer: `{"error":{"message":"(#100) wamid.A1","code":100}}`,
			want: `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.A1"}`, reason: conversations.FailureUnknown},
		{name: "not marked", id: "wamid.A1", status: 200, answer: `{"success":false}`,
			want: `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.A1"}`, reason: conversations.FailureUnknown},
		{name: "not JSON", id: "wamid.A1", status: 502, answer: `<html>`,
			want: `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.A1"}`, reason: conversations.FailureProviderError},
		{name: "token expired", id: "wamid.A1", status: 401, answer: `{"error":{"code":190}}`,
			want: `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.A1"}`, reason: conversations.FailureAuth},
		{name: "no id", reason: conversations.FailureUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan string, 2)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var body json.RawMessage
				if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != http.MethodPost || r.URL.Path != "/v25.0/PN1/messages" {
					t.Errorf("%s %s: %v", r.Method, r.URL, err)
				}
				asked <- string(body)
				w.WriteHeader(c.status)
				_, _ = fmt.Fprint(w, c.answer)
			}))
			defer server.Close()
			var reader providers.Reader = checked(t, server.URL, server.Client(), nil)
			err := reader.MarkRead(t.Context(), c.id, c.typing)
			close(asked)
			if got := <-asked; got != c.want {
				t.Errorf("asked %s, want %s", got, c.want)
			}
			var f *providers.Failure
			if errors.As(err, &f) != (c.reason != "") || f != nil && f.Reason != c.reason {
				t.Errorf("got %v, want reason %q", err, c.reason)
			}
		})
	}
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	var p providers.Templater = newProvider(t, map[string]string{"template_language": "en-US", "template_languages": "de pt_BR,de-CH", "template_receipt": ""})
	for _, c := range []struct {
		name           string
		o              conversations.Outbound
		wantName, want string
	}{
		{"exact", outboundIn("pt-BR"), "payment_request", "pt_BR"},
		{"exact, with a base that is approved too", outboundIn("de-CH"), "payment_request", "de_CH"},
		{"base", outboundIn("de-AT"), "payment_request", "de"},
		{"the base alone is not approved", outboundIn("pt"), "payment_request", "en_US"},
		{"default", outboundIn("fr"), "payment_request", "en_US"},
		{"the default's own", outboundIn("en-US"), "payment_request", "en_US"},
		{"no locale", outboundIn(""), "payment_request", "en_US"},
		{"no template needed", conversations.Outbound{Purpose: conversations.PurposePayment}, "", ""},
		{"no template set", conversations.Outbound{Purpose: conversations.PurposeReceipt, Template: true}, "", ""},
		{"no template for an agent's words", conversations.Outbound{Purpose: conversations.PurposeAgent, Template: true}, "", ""},
	} {
		if name, language := p.Template(c.o); name != c.wantName || language != c.want {
			t.Errorf("%s: got %q in %q, want %q in %q", c.name, name, language, c.wantName, c.want)
		}
	}
}

func outboundIn(locale string) conversations.Outbound {
	return conversations.Outbound{Purpose: conversations.PurposePayment, Template: true, Parameters: conversations.Parameters{Locale: locale}}
}

// TestNoticesOfAnotherNumber keeps what is told of another number of the
// account away from this sender, when it knows its own.
func TestNoticesOfAnotherNumber(t *testing.T) {
	t.Parallel()
	const body = `{"object":"whatsapp_business_account","entry":[{"id":"WABA1","changes":[{"field":"phone_number_quality_update","value":{"display_phone_number":"15550783881","event":"FLAGGED"}}]}]}`
	for number, want := range map[string]string{"": "sender_1", "+15550783881": "sender_1", "+15550783999": ""} {
		got, err := newProvider(t, map[string]string{"phone_number": number}).Parse(providers.Webhook{Body: []byte(body)})
		if err != nil || len(got) != 1 || got[0].SenderID != want || got[0].Notice == nil {
			t.Errorf("%q: got %+v and %v, want one notice for %q", number, got, err, want)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"template_language": "english", "template_languages": "en, x", "phone_number": "five", "waba_id": "a b", "app_id": "a/b",
		"template_payment": "Payment Request", "api_version": "25", "access_token": "a b",
	} {
		h := harness()
		h.Values[name] = value
		_, err := meta.New(providers.Settings{SenderID: "sender_1", Values: h.Values}, http.DefaultClient, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s %q: got %v, want an error that names it", name, value, err)
		}
	}
	limits := meta.Registration.Limits[conversations.WhatsApp]
	if limits.PerSecond != 80 || limits.PairBurst != 45 || limits.PairEvery.Seconds() != 6 {
		t.Errorf("got limits %+v", limits)
	}
}
