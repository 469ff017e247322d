package main

import (
	"fmt"
	"strings"
	"testing"

	"paythread/conversations"
)

// TestExtra: the merchant's own data comes back to its servers as it was, and
// to nobody else.
func TestExtra(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	const secret = "cost centre 4711"
	extra := object{"branch": "Paarl", "cost_centre": secret, "empty": ""}
	given := func(r apiReply) {
		t.Helper()
		if got := fmt.Sprint(r.get("extra")); got != fmt.Sprint(map[string]any(extra)) {
			t.Errorf("extra is %s, want %v", got, extra)
		}
	}
	created := b.create("1042", object{"extra": extra})
	given(created)
	given(b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + created.text("id"), token: acmeKey}).want(t, 200))
	given(b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + created.text("id") + "/extend", token: acmeKey}).want(t, 200))
	if r := b.create("1043"); r.get("extra") != nil {
		t.Errorf("without any, extra is %v", r.get("extra"))
	}

	// Through the agent: sealed by the server, and never shown to the browser.
	order := orderBody("1044", object{"extra": extra})
	opened := b.call(apiCall{method: "POST", path: "/v1/agent-sessions", token: acmeKey, body: object{"order": order}}).want(t, 201)
	token := opened.text("token")
	hidden := func(r apiReply) {
		t.Helper()
		if strings.Contains(string(r.raw), secret) || strings.Contains(string(r.raw), "extra") {
			t.Errorf("the agent's browser gets the merchant's data: %s", r.raw)
		}
	}
	hidden(opened)
	hidden(b.call(apiCall{method: "GET", path: "/v1/sealed-orders/" + opened.text("sealed_order"), token: token}))
	made := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: token, body: object{"phone": "082 123 4567", "channel": "whatsapp"}}).want(t, 201)
	hidden(made)
	hidden(b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + made.text("id"), token: token}).want(t, 200))
	given(b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + made.text("id"), token: acmeKey}).want(t, 200))
	for _, sent := range []object{extra, {}} {
		b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: token, body: object{"channel": "whatsapp", "extra": sent}}).
			problem(t, 422, "invalid", "", "extra")
	}
	if strings.Contains(b.log.String(), secret) {
		t.Error("the merchant's data is in the log")
	}
}

func TestExtraIsBounded(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	many := object{}
	for i := range 21 {
		many[fmt.Sprint("name", i)] = "value"
	}
	before := b.keep()
	for _, tt := range []struct {
		name  string
		extra any
		field string
	}{
		{"too many", many, "extra"},
		{"a long name", object{strings.Repeat("x", 41): "value"}, "extra"},
		{"a long value", object{"branch": strings.Repeat("x", 501)}, "extra.branch"},
		{"a number", object{"branch": 7}, "extra.branch"},
		{"nested", object{"branch": object{"name": "Paarl"}}, "extra.branch"},
		{"a text", "Paarl", "extra"},
		{"no name", object{"": "value"}, "extra"},
	} {
		b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: createBodyOf("1042", object{"extra": tt.extra})}).
			problem(t, 422, "invalid", "", tt.field)
		b.call(apiCall{method: "POST", path: "/v1/agent-sessions", token: acmeKey, body: object{"order": orderBody("1042", object{"extra": tt.extra})}}).
			problem(t, 422, "invalid", "", "order."+tt.field)
	}
	b.unchanged(before)
}

// TestAmountsOfEveryKind: an amount is a string of the currency's own decimals
// on its way in and on its way out, never a number.
func TestAmountsOfEveryKind(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t, func(o *conversations.Options) { o.Merchants[0].Currencies = nil })
	for code, tt := range map[string]struct{ sent, total, wrong string }{
		"JPY": {"1200", "1200", "1200.00"}, "KWD": {"1.234", "1.234", "1.2345"}, "ZAR": {"149", "149.00", "149.001"}, "ISK": {"5", "5", "5.0"},
	} {
		amount := func(value string) object { return object{"value": value, "currency": code} }
		body := func(value any) object {
			return createBodyOf("in "+code, object{
				"line_items": nil, "subtotal": value, "tax": amount("0"), "shipping": nil, "discount": nil, "total": value,
			})
		}
		r := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: body(amount(tt.sent))}).want(t, 201)
		if got := r.text("total.value"); got != tt.total || r.text("totals.captured.value") == "" {
			t.Errorf("%s %s is shown as %s", code, tt.sent, r.raw)
		}
		b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: body(amount(tt.wrong))}).
			problem(t, 422, "invalid", "", "subtotal.value", "total.value")
		for _, number := range []any{149, 149.5, "149.00"} {
			refused := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: body(number)})
			refused.problem(t, 422, "invalid", "", "subtotal", "total")
			if !strings.Contains(string(refused.raw), `{\"value\":\"149.00\",\"currency\":\"ZAR\"}`) {
				t.Errorf("%v: the answer does not say how it is done: %s", number, refused.raw)
			}
		}
		refused := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: body(object{"value": 149, "currency": code})})
		refused.problem(t, 422, "invalid", "", "subtotal.value", "total.value")
		if !strings.Contains(string(refused.raw), `use a decimal string such as \"149.00\", not a number`) {
			t.Errorf("a number: the answer does not say how it is done: %s", refused.raw)
		}
	}
	for code, successor := range map[string]string{"HRK": "EUR", "ANG": "XCG", "DEM": "EUR", "ZWL": "ZWG"} {
		body := createBodyOf("1050", object{"line_items": nil, "subtotal": object{"value": "1", "currency": code}, "tax": object{"value": "0", "currency": code}, "total": object{"value": "1", "currency": code}})
		refused := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: body})
		refused.problem(t, 422, "invalid", "", "subtotal.currency", "tax.currency", "total.currency")
		if !strings.Contains(string(refused.raw), successor) {
			t.Errorf("%s: the answer does not name its successor: %s", code, refused.raw)
		}
	}
}
