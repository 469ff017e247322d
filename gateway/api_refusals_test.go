package main

import (
	"fmt"
	"strings"
	"testing"

	"paythread/conversations"
)

// TestRefusedInput posts what is wrong with a payment request. Each gets the
// right status and a problem that names the field, and changes nothing.
func TestRefusedInput(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	b.create("kept") // so that there is something to change
	item := func(change object) []object {
		line := object{"name": "Service", "quantity": 1, "unit_price": zar("129.57"), "total": zar("129.57")}
		for k, v := range change {
			line[k] = v
			if v == nil {
				delete(line, k)
			}
		}
		return []object{line}
	}
	for _, c := range []struct {
		name   string
		change object
		fields []string
		says   string
	}{
		{"amount as a number", object{"total": object{"value": 149.00, "currency": "ZAR"}}, []string{"total.value"}, "decimal string"},
		{"amount without currency", object{"total": "149.00"}, []string{"total"}, `{"value":"149.00","currency":"ZAR"}`},
		{"bare number", object{"tax": 19.43}, []string{"tax"}, `{"value":"149.00","currency":"ZAR"}`},
		{"negative", object{"tax": zar("-19.43")}, []string{"tax.value"}, "not a decimal amount"},
		{"negative line", object{"line_items": item(object{"unit_price": zar("-1.00")})}, []string{"line_items[0].unit_price.value"}, "not a decimal amount"},
		{"over-precise", object{"tax": zar("19.430")}, []string{"tax.value"}, "2 decimals of ZAR"},
		{"exponent", object{"tax": zar("1e2")}, []string{"tax.value"}, "not a decimal amount"},
		{"separator", object{"total": zar("1,149.00")}, []string{"total.value"}, "not a decimal amount"},
		{"empty", object{"total": zar("")}, []string{"total.value"}, "not a decimal amount"},
		{"too large", object{"total": zar("9999999999999")}, []string{"total.value"}, "too large"},
		{"unknown currency", object{"total": object{"value": "149.00", "currency": "ZZZ"}}, []string{"total.currency"}, "ISO 4217"},
		{"small letters", object{"total": object{"value": "149.00", "currency": "zar"}}, []string{"total.currency"}, "ISO 4217"},
		{"mixed currencies", object{"tax": object{"value": "19.43", "currency": "USD"}}, []string{"tax.currency"}, "differs from the total's currency"},
		{"mixed in a line", object{"line_items": item(object{"total": object{"value": "129.57", "currency": "USD"}})}, []string{"line_items[0].total.currency"}, "differs"},
		{"currency not accepted", orderIn("EUR"), []string{"total.currency"}, "not accepted here"},
		{"sums", object{"total": zar("150.00")}, []string{"total"}, "do not add up"},
		{"line sums", object{"subtotal": zar("120.00"), "total": zar("139.43")}, []string{"subtotal"}, "line items add up"},
		{"line times", object{"line_items": item(object{"quantity": 2})}, []string{"line_items[0].total"}, "is not"},
		{"nothing to pay", object{"line_items": nil, "subtotal": zar("0.00"), "tax": zar("0.00"), "total": zar("0.00")}, []string{"total"}, "zero"},
		{"no quantity", object{"line_items": item(object{"quantity": nil})}, []string{"line_items[0].quantity"}, "missing"},
		{"zero quantity", object{"line_items": item(object{"quantity": 0})}, []string{"line_items[0].quantity"}, ""},
		{"half quantity", object{"line_items": item(object{"quantity": 1.5})}, []string{"line_items[0].quantity"}, "whole number"},
		{"no name", object{"line_items": item(object{"name": nil})}, []string{"line_items[0].name"}, "missing"},
		{"lines not a list", object{"line_items": object{}}, []string{"line_items"}, "list"},
		{"missing amounts", object{"subtotal": nil, "tax": nil, "total": nil}, []string{"subtotal", "tax", "total"}, "3 fields"},
		{"null total", object{"total": jsonNull{}}, []string{"total"}, "missing"},
		{"several wrong", object{"tax": zar("x"), "shipping": zar("-1")}, []string{"shipping.value", "tax.value"}, "2 fields"},
		{"no order", object{"order": nil}, []string{"order"}, "missing"},
		{"empty order", object{"order": ""}, []string{"order"}, "missing"},
		{"long order", object{"order": strings.Repeat("x", 51)}, []string{"order"}, ""},
		{"order as a number", object{"order": 1042}, []string{"order"}, "string"},
		{"no phone", object{"phone": nil}, []string{"phone"}, "missing"},
		{"impossible phone", object{"phone": "082 1"}, []string{"phone"}, "phone number"},
		{"words for a phone", object{"phone": "call me"}, []string{"phone"}, "phone number"},
		{"phone of nowhere", object{"phone": "+999 12345678"}, []string{"phone"}, "phone number"},
		{"no channel", object{"channel": nil}, []string{"channel"}, "missing"},
		{"unknown channel", object{"channel": "pigeon"}, []string{"channel"}, "whatsapp"},
		{"channel as a list", object{"channel": []string{"sms"}}, []string{"channel"}, "string"},
		{"unknown field", object{"totl": zar("1.00")}, []string{"totl"}, "no such field"},
		{"unknown inner field", object{"tax": object{"value": "19.43", "currency": "ZAR", "rate": 15}}, []string{"tax.rate"}, "no such field"},
		{"another case", object{"Order": "1042"}, []string{"Order"}, "no such field"},
		{"no time", object{"time_to_open_seconds": 0}, []string{"time_to_open_seconds"}, ""},
		{"too long a time", object{"time_to_pay_seconds": 99999999}, []string{"time_to_pay_seconds"}, ""},
		{"time as text", object{"time_to_pay_seconds": "900"}, []string{"time_to_pay_seconds"}, "whole number"},
		{"capture as text", object{"capture": "yes"}, []string{"capture"}, "true or false"},
		{"long note", object{"note": strings.Repeat("x", 501)}, []string{"note"}, ""},
		{"control character", object{"note": "a\u0007b"}, []string{"note"}, "control"},
		{"long country", object{"country": "ZAF"}, []string{"country"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := b.keep()
			r := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, key: "k-" + strings.ReplaceAll(c.name, " ", "-"), body: createBodyOf("1042", c.change)})
			r.problem(t, 422, "invalid", "", c.fields...)
			if !strings.Contains(r.raw, strings.ReplaceAll(c.says, `"`, `\"`)) {
				t.Errorf("it says %s, want it to say %q", r.raw, c.says)
			}
			for i, f := range c.fields {
				if got := r.text(fmt.Sprintf("errors.%d.location", i)); !strings.HasPrefix(got, "body.") {
					t.Errorf("location of %s is %q", f, got)
				}
			}
			b.unchanged(before)
		})
	}
}

// jsonNull is written as null.
type jsonNull struct{}

func (jsonNull) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

func orderIn(currency string) object {
	a := func(value string) object { return object{"value": value, "currency": currency} }
	return object{"line_items": nil, "subtotal": a("129.57"), "tax": a("19.43"), "shipping": nil, "discount": nil, "total": a("149.00")}
}

// TestRefusedRequests posts bodies that are not what they should be as a whole.
func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	b.create("kept")
	good := `{"order":"1042","phone":"0821234567","channel":"sms","subtotal":{"value":"1.00","currency":"ZAR"},"tax":{"value":"0.00","currency":"ZAR"},"total":{"value":"1.00","currency":"ZAR"}}`
	for _, c := range []struct {
		name, body, contentType, key string
		header                       map[string]string
		status                       int
		code, reason                 string
		fields                       []string
	}{
		{name: "cut off", body: good[:40], status: 400, code: "invalid", reason: "malformed"},
		{name: "not JSON", body: "order=1042", status: 400, code: "invalid", reason: "malformed"},
		{name: "a comma too many", body: strings.Replace(good, "}}", "},}", 1), status: 400, code: "invalid", reason: "malformed"},
		{name: "a list", body: "[" + good + "]", status: 400, code: "invalid", reason: "malformed"},
		{name: "trailing data", body: good + good, status: 400, code: "invalid", reason: "malformed"},
		{name: "trailing word", body: good + " x", status: 400, code: "invalid", reason: "malformed"},
		{name: "a name twice", body: strings.Replace(good, `"total"`, `"total":{"value":"9.00","currency":"ZAR"},"total"`, 1), status: 400, code: "invalid", reason: "malformed", fields: []string{"total"}},
		{name: "an inner name twice", body: strings.Replace(good, `"value":"1.00"`, `"value":"9.00","value":"1.00"`, 1), status: 400, code: "invalid", reason: "malformed", fields: []string{"subtotal.value"}},
		{name: "not UTF-8", body: strings.Replace(good, "1042", "10\xff42", 1), status: 400, code: "invalid", reason: "malformed"},
		{name: "deep", body: strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200), status: 400, code: "invalid", reason: "malformed"},
		{name: "empty", body: "", status: 400, code: "invalid", reason: "malformed"},
		{name: "form", body: good, contentType: "application/x-www-form-urlencoded", status: 415, code: "invalid", reason: "unsupported_media_type"},
		{name: "text", body: good, contentType: "text/plain", status: 415, code: "invalid", reason: "unsupported_media_type"},
		{name: "like JSON", body: good, contentType: "application/vnd.x+json", status: 415, code: "invalid", reason: "unsupported_media_type"},
		{name: "no type", body: good, contentType: "-", status: 415, code: "invalid", reason: "unsupported_media_type"},
		{name: "packed", body: good, header: map[string]string{"Content-Encoding": "gzip"}, status: 415, code: "invalid", reason: "unsupported_media_type"},
		{name: "oversized", body: strings.Replace(good, `"1042"`, `"`+strings.Repeat("x", 70<<10)+`"`, 1), status: 413, code: "invalid", reason: "too_large"},
		{name: "key with a space", body: good, key: "a b", status: 422, code: "invalid", fields: []string{"Idempotency-Key"}},
		{name: "key too long", body: good, key: strings.Repeat("k", 256), status: 422, code: "invalid", fields: []string{"Idempotency-Key"}},
		{name: "key not ASCII", body: good, key: "schl\u00fcssel", status: 422, code: "invalid", fields: []string{"Idempotency-Key"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := b.keep()
			header := map[string]string{"Origin": acmeOrigin}
			for k, v := range c.header {
				header[k] = v
			}
			switch c.contentType {
			case "":
			case "-":
				header["Content-Type"] = ""
			default:
				header["Content-Type"] = c.contentType
			}
			r := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, key: c.key, body: c.body, header: header})
			r.problem(t, c.status, c.code, c.reason, c.fields...)
			if got := r.header.Get("Access-Control-Allow-Origin"); got != acmeOrigin {
				t.Errorf("Access-Control-Allow-Origin %q: a page could not read why", got)
			}
			b.unchanged(before)
		})
	}
	for _, contentType := range []string{"application/json", "Application/JSON; charset=utf-8"} {
		b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: strings.Replace(good, "1042", contentType[:3], 1), header: map[string]string{"Content-Type": contentType}}).want(t, 201)
	}
}

// TestAmountsOfOtherCurrencies checks that decimals follow the currency, and
// that missing shipping and discount are zero.
func TestAmountsOfOtherCurrencies(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	b.config.Merchants[0].Currencies = nil
	b.store.SetMerchants([]conversations.Merchant{b.config.Merchants[0].Domain()})
	for currency, total := range map[string]string{"JPY": "1200", "KWD": "1.234", "USD": "0.01"} {
		a := func(v string) object { return object{"value": v, "currency": currency} }
		r := b.create(currency, object{"line_items": nil, "subtotal": a(total), "tax": a("0"), "shipping": nil, "discount": nil, "total": a(total)})
		if r.text("total.value") != total || r.text("shipping.currency") != currency || strings.Trim(r.text("shipping.value"), "0.") != "" {
			t.Errorf("%s: total %v, shipping %v", currency, r.get("total"), r.get("shipping"))
		}
	}
}

func TestRefusedByState(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	made := b.create("1042")
	before := b.keep()
	r := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: createBodyOf("1042")})
	r.problem(t, 409, "conflict", "order_held", "order")
	if id := b.request(made.text("id")); id.Superseded || id.LastEvent != 1 {
		t.Errorf("the holder was changed: %+v", id)
	}
	depth, _, err := b.store.OutboxDepth(t.Context())
	if err != nil || depth != 1 {
		t.Errorf("outbox depth %d, %v; want the first message only", depth, err)
	}
	for key, dump := range b.keep() { // but for the record of what was refused
		if strings.Contains(key, ":e:") && before[key] != dump {
			t.Errorf("%s was changed", key)
		}
	}

	old := b.request(made.text("id"))
	b.apply(old, conversations.CancelRequested{RequestID: old.ID})
	taken := b.create("1042")
	if taken.text("id") == old.ID || !b.request(old.ID).Superseded {
		t.Errorf("the order was not taken over by %s: %+v", taken.text("id"), b.request(old.ID))
	}
	b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + old.ID + "/extend", token: acmeKey}).problem(t, 409, "conflict", "cancelled")
}

func TestOptedOut(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	token, sealed := b.session("77")
	stop := func(id string, channel conversations.Channel) {
		t.Helper()
		err := b.store.Receive(t.Context(), "acme", conversations.Inbound{
			Kind: conversations.InboundText, SenderID: "acme-" + string(channel), ProviderID: id, Text: "STOP", At: b.store.Now(),
			Addresses: []conversations.Address{{Kind: conversations.AddressPhone, Value: "+27821234567"}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	open := b.create("1")
	stop("in-1", conversations.WhatsApp)
	before := b.keep()
	r := b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: createBodyOf("2")})
	r.problem(t, 409, "conflict", "opted_out", "channel")
	if !strings.Contains(r.text("detail"), "still allowed: sms") {
		t.Errorf("detail %q does not name the channel that is left", r.text("detail"))
	}
	b.unchanged(before)
	read := b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + open.text("id"), token: acmeKey}).want(t, 200)
	if got := fmt.Sprint(read.get("actions")); got != "[cancel extend]" {
		t.Errorf("actions %s, want no resend", got)
	}
	b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + open.text("id") + "/resend", token: acmeKey}).problem(t, 409, "conflict", "opted_out", "channel")
	order := b.call(apiCall{method: "GET", path: "/v1/sealed-orders/" + sealed, token: token}).want(t, 200)
	if got := fmt.Sprint(order.get("channels")); got != "[map[available:false channel:whatsapp reason:opted_out] map[available:true channel:sms]]" {
		t.Errorf("channels %s", got)
	}
	b.create("3", object{"channel": "sms"})
	stop("in-2", conversations.SMS)
	r = b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: createBodyOf("4", object{"channel": "sms"})})
	r.problem(t, 409, "conflict", "opted_out", "channel")
	if !strings.Contains(r.text("detail"), "no channel is left") {
		t.Errorf("detail %q", r.text("detail"))
	}
}

// TestNoSender: a merchant without a sender on the channel cannot use it.
func TestNoSender(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	before := b.keep()
	b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: betaKey, body: createBodyOf("1", object{"channel": "sms"})}).problem(t, 422, "invalid", "", "channel")
	b.unchanged(before)
}
