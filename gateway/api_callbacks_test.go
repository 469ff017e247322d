package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
)

const exampleEndpoint = `{"url":"https://erp.example.com/paythread?token=abc","events":["payment_request.*"],"description":"ERP"}`

func (b *apiBench) callback(method, path, key string, body any) apiReply {
	b.t.Helper()
	return b.call(apiCall{method: method, path: callbacksPath + path, token: acmeKey, key: key, body: body})
}

// TestCallbackEndpointsByAPI: from made to deleted.
func TestCallbackEndpointsByAPI(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	made := b.callback("POST", "", "k1", exampleEndpoint).want(t, http.StatusCreated)
	id, secret := made.text("id"), made.text("secret")
	if _, err := parseCallbackSecret(secret); err != nil || !strings.HasPrefix(id, "ce_") || made.header.Get("Location") != callbacksPath+"/"+id {
		t.Errorf("made %s, %v", made.raw, err)
	}
	for path, want := range map[string]any{
		"url": "https://erp.example.com/paythread?token=abc", "description": "ERP", "source": "api", "state": "active", "events.0": "payment_request.*", "reason": nil,
	} {
		if got := made.get(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if again := b.callback("POST", "", "k1", exampleEndpoint).want(t, http.StatusCreated); again.text("id") != id || again.text("secret") != secret {
		t.Errorf("a repeat made %s", again.raw)
	}
	b.callback("POST", "", "k1", strings.Replace(exampleEndpoint, "ERP", "other", 1)).problem(t, 422, "idempotency_mismatch", "idempotency_mismatch", "Idempotency-Key")
	list := b.callback("GET", "", "", nil).want(t, 200)
	if list.text("items.0.id") != id || list.get("items.1") != nil || strings.Contains(list.raw, "whsec_") {
		t.Errorf("listed %s", list.raw)
	}
	if one := b.callback("GET", "/"+id, "", nil).want(t, 200); one.text("id") != id || strings.Contains(one.raw, "whsec_") {
		t.Errorf("read %s", one.raw)
	}

	rotated := b.callback("POST", "/"+id+"/rotate-secret", "k2", nil).want(t, 200)
	if got := rotated.text("secret"); got == "" || got == secret || rotated.get("old_secrets.0.until") == nil {
		t.Errorf("rotated %s", rotated.raw)
	}
	if again := b.callback("POST", "/"+id+"/rotate-secret", "k2", nil).want(t, 200); again.text("secret") != rotated.text("secret") || again.get("old_secrets.1") != nil {
		t.Errorf("a repeat rotated again: %s", again.raw)
	}

	updated := b.callback("POST", "/"+id+"/update", "", `{"url":"https://new.example.com/","events":[]}`).want(t, 200)
	if updated.text("url") != "https://new.example.com/" || updated.text("description") != "ERP" || updated.get("events.0") != nil {
		t.Errorf("updated %s", updated.raw)
	}

	off := b.callback("POST", "/"+id+"/disable", "", nil).want(t, 200)
	if off.text("state") != "disabled" || off.text("reason") != "by_merchant" {
		t.Errorf("switched off %s", off.raw)
	}
	if on := b.callback("POST", "/"+id+"/enable", "", nil).want(t, 200); on.text("state") != "active" || on.get("reason") != nil {
		t.Errorf("switched on %s", on.raw)
	}

	sent := b.callback("POST", "/"+id+"/test", "k3", nil).want(t, http.StatusAccepted).text("delivery_id")
	if again := b.callback("POST", "/"+id+"/test", "k3", nil).want(t, http.StatusAccepted).text("delivery_id"); again != sent || sent == "" {
		t.Errorf("a repeat sends %q, first %q", again, sent)
	}
	b.callback("POST", "/"+id+"/test", "k2", nil).problem(t, 422, "idempotency_mismatch", "idempotency_mismatch", "Idempotency-Key")
	deliveries := func(query string) []string {
		t.Helper()
		var ids []string
		for cursor := ""; ; {
			page := b.callback("GET", "/"+id+"/deliveries?limit=1"+query+cursor, "", nil).want(t, 200)
			items, _ := page.get("items").([]any)
			for i := range items {
				ids = append(ids, page.text("items."+itoa(i)+".id"))
			}
			next := page.text("next_cursor")
			if next == "" {
				return ids
			}
			cursor = "&cursor=" + next
		}
	}
	if got := deliveries(""); !slices.Contains(got, sent) || len(got) != 2 { // and the change of what it wants
		t.Errorf("deliveries %v, want %s and one change", got, sent)
	}
	if got := deliveries("&state=pending"); len(got) != 2 {
		t.Errorf("pending %v", got)
	}
	if got := deliveries("&state=delivered"); len(got) != 0 {
		t.Errorf("delivered %v", got)
	}
	if got := b.callback("POST", "/"+id+"/deliveries/"+sent+"/redeliver", "k4", nil).want(t, http.StatusAccepted).text("delivery_id"); got != sent {
		t.Errorf("redelivered %q", got)
	}
	b.callback("POST", "/"+id+"/deliveries/evt_none/redeliver", "", nil).problem(t, 404, "not_found", "")
	since := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	if got := b.callback("POST", "/"+id+"/replay", "", object{"since": since}).want(t, http.StatusAccepted); got.get("deliveries") != 2.0 || got.get("until") == nil {
		t.Errorf("replayed %s", got.raw)
	}
	if got := b.callback("POST", "/"+id+"/replay", "", object{"since": since, "only_failed": true}).want(t, http.StatusAccepted); got.get("deliveries") != 0.0 {
		t.Errorf("replayed %s", got.raw)
	}
	b.callback("POST", "/"+id+"/replay", "", object{"since": since, "until": "2020-01-01T00:00:00Z"}).problem(t, 422, "invalid", "", "until")
	b.callback("POST", "/"+id+"/replay", "", object{}).want(t, 422)
	b.callback("GET", "/"+id+"/deliveries?cursor=nonsense", "", nil).problem(t, 422, "invalid", "", "cursor")

	b.callback("DELETE", "/"+id, "", nil).want(t, http.StatusNoContent)
	for _, c := range []apiReply{
		b.callback("GET", "/"+id, "", nil), b.callback("DELETE", "/"+id, "", nil), b.callback("POST", "/"+id+"/test", "", nil),
		b.callback("GET", "/"+id+"/deliveries", "", nil), b.callback("POST", "/"+id+"/enable", "", nil),
	} {
		c.problem(t, 404, "not_found", "")
	}
	text := b.log.String()
	for _, audited := range []string{"was created", "was changed", "was replaced", "switched to disabled", "switched to active", "sent again", "was deleted"} {
		if !strings.Contains(text, audited) {
			t.Errorf("the log has no line of it: %q", audited)
		}
	}
	if strings.Contains(text, "token=abc") || strings.Contains(text, "whsec_") || !strings.Contains(text, "host=erp.example.com") {
		t.Errorf("the log holds a secret, or no host: %s", text)
	}
}

// TestCallbackEndpointsAreTheMerchants: only its own servers see and change them.
func TestCallbackEndpointsAreTheMerchants(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.callback("POST", "", "", exampleEndpoint).want(t, http.StatusCreated).text("id")
	sealed := b.call(apiCall{method: "POST", path: "/v1/agent-sessions", token: acmeKey, body: object{
		"grants": []string{"read_all", "act_all"}, "order": object{
			"order": "1", "phone": "0821234567", "subtotal": object{"value": "1.00", "currency": "ZAR"}, "tax": object{"value": "0.00", "currency": "ZAR"}, "total": object{"value": "1.00", "currency": "ZAR"},
		},
	}}).want(t, http.StatusCreated).text("token")
	for _, op := range []apiCall{
		{method: "POST", path: "", body: exampleEndpoint}, {method: "GET", path: ""}, {method: "GET", path: "/" + id},
		{method: "POST", path: "/" + id + "/update", body: object{}}, {method: "POST", path: "/" + id + "/enable"}, {method: "POST", path: "/" + id + "/disable"},
		{method: "POST", path: "/" + id + "/rotate-secret"}, {method: "POST", path: "/" + id + "/test"}, {method: "GET", path: "/" + id + "/deliveries"},
		{method: "POST", path: "/" + id + "/deliveries/x/redeliver"}, {method: "POST", path: "/" + id + "/replay", body: object{"since": "2026-01-01T00:00:00Z"}},
		{method: "DELETE", path: "/" + id},
	} {
		op.path = callbacksPath + op.path
		op.token = sealed
		b.call(op).problem(t, 403, "forbidden", "not_granted")
		if op.path == callbacksPath {
			continue // what another merchant makes and lists is its own
		}
		op.token = betaKey
		b.call(op).problem(t, 404, "not_found", "")
	}
	if list := b.call(apiCall{method: "GET", path: callbacksPath, token: betaKey}).want(t, 200); list.get("items.0") != nil {
		t.Errorf("another merchant lists %s", list.raw)
	}
	b.callback("GET", "/"+id, "", nil).want(t, 200)
}

// TestCallbackEndpointsAreChecked: addresses inside and wrong types are refused,
// an eleventh endpoint too, and those of the configuration stay what they are.
func TestCallbackEndpointsAreChecked(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	for body, field := range map[string]string{
		`{"url":"http://erp.example.com/"}`:                                        "url",
		`{"url":"https://127.0.0.1/"}`:                                             "url",
		`{"url":"https://[::ffff:169.254.169.254]/"}`:                              "url",
		`{"url":"https://user:pw@erp.example.com/"}`:                               "url",
		`{"url":"https://erp.example.com/","events":["payment_request.*","Paid"]}`: "events[1]",
		`{"url":"https://erp.example.com/","events":["payment_request.payd"]}`:     "events[0]",
		`{"url":"https://erp.example.com/","events":["payment*"]}`:                 "events[0]",
		`{"url":"https://erp.example.com/","events":["reset"]}`:                    "events[0]",
		`{}`: "url",
	} {
		b.callback("POST", "", "", body).problem(t, 422, "invalid", "", field)
	}
	queue := b.api.callbacks
	if err := queue.Configure(t.Context(), "acme", []conversations.CallbackEndpoint{{ID: "erp", URL: "https://erp.example.com/"}}); err != nil {
		t.Fatal(err)
	}
	if erp := b.callback("GET", "/erp", "", nil).want(t, 200); erp.text("source") != "config" {
		t.Errorf("of the configuration: %s", erp.raw)
	}
	b.callback("POST", "/erp/update", "", `{"description":"mine"}`).problem(t, 409, "conflict", "configured")
	b.callback("POST", "/erp/rotate-secret", "", nil).problem(t, 409, "conflict", "configured")
	b.callback("DELETE", "/erp", "", nil).problem(t, 409, "conflict", "configured")
	b.callback("POST", "/erp/disable", "", nil).want(t, 200)
	for range conversations.MaxCallbackEndpoints - 1 {
		b.callback("POST", "", "", exampleEndpoint).want(t, http.StatusCreated)
	}
	b.callback("POST", "", "", exampleEndpoint).problem(t, 409, "conflict", "too_many_endpoints")
	// A change is told to the other endpoints, not to the one that is new.
	list := b.callback("GET", "", "", nil).want(t, 200)
	first, last := list.text("items.1.id"), list.text("items.9.id")
	for id, want := range map[string]int{first: 0, last: 0} { // they want payment_request.* only
		if got, _ := b.callback("GET", "/"+id+"/deliveries", "", nil).want(t, 200).get("items").([]any); len(got) != want {
			t.Errorf("%s was told %v", id, got)
		}
	}
	if got, _ := b.callback("GET", "/erp/deliveries?limit=100", "", nil).want(t, 200).get("items").([]any); len(got) != conversations.MaxCallbackEndpoints-1 {
		t.Errorf("the endpoint that wants everything was told of %d new ones", len(got))
	}
}
