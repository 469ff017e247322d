package main

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
)

// pay opens the link and pays, as the pay page would.
func (b *apiBench) pay(id string, outcome conversations.Outcome) *conversations.PaymentRequest {
	b.t.Helper()
	r := b.request(id)
	b.apply(r, conversations.LinkOpened{RequestID: id})
	b.apply(r, conversations.ContextIssued{RequestID: id, Context: conversations.CaptureContext{KeyID: "k", ExpiresAt: b.store.Now().Add(time.Minute)}})
	a := b.apply(r, conversations.AttemptStarted{RequestID: id, Platform: "unified_checkout", TokenExpiresAt: b.store.Now().Add(time.Minute), CardBrand: "visa", CardLast4: "1111"})
	if a.Refused != nil {
		b.t.Fatal(a.Refused)
	}
	if outcome == "" {
		return a.Request
	}
	result := conversations.Result{Outcome: outcome, PaymentID: "76", Amount: r.Order.Total}
	if outcome == conversations.OutcomeDeclined {
		result.Reason = "INSUFFICIENT_FUND"
	}
	a = b.apply(r, conversations.AttemptAnswered{RequestID: id, Attempt: len(a.Request.Attempts), Result: result})
	return a.Request
}

func TestReadingAPaidRequest(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.create("1042").text("id")
	b.pay(id, conversations.OutcomeDeclined)
	read := func() apiReply {
		return b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id, token: acmeKey}).want(t, 200)
	}
	r := read()
	for path, want := range map[string]any{
		"lifecycle": "open", "attempts.0.state": "declined", "attempts.0.reason": "INSUFFICIENT_FUND", "attempts.0.number": 1.0, "attempts.0.code": id + "-1",
		"attempts.0.card.brand": "visa", "attempts.0.card.last4": "1111", "attempts.0.amount.value": "149.00", "attempts.0.text": declineTexts["INSUFFICIENT_FUND"],
	} {
		if got := r.get(path); got != want {
			t.Errorf("after a decline %s is %v, want %v", path, got, want)
		}
	}
	if r.text("pay_by") == "" || r.text("milestones.opened") == "" || r.text("milestones.declined") == "" || r.text("attempts.0.settled_at") == "" {
		t.Errorf("times are missing: %s", r.raw)
	}
	b.pay(id, "")
	if r = read(); r.text("lifecycle") != "processing" || fmt.Sprint(r.get("actions")) != "[]" || r.get("attempts.1.settled_at") != nil {
		t.Errorf("while it is processed: %s", r.raw)
	}
	b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + id + "/cancel", token: acmeKey}).problem(t, 409, "conflict", "processing")
	paid := b.request(id)
	b.apply(paid, conversations.AttemptAnswered{RequestID: id, Attempt: 2, Result: conversations.Result{Outcome: conversations.OutcomeCaptured, PaymentID: "77", Amount: paid.Order.Total}})
	r = read()
	for path, want := range map[string]any{
		"lifecycle": "paid", "totals.captured.value": "149.00", "totals.refundable.value": "149.00", "totals.capturable.value": "0.00",
		"messages.1.purpose": "receipt", "receipt_link": "https://pay.example/r/" + paid.ReceiptCode, "attempts.1.state": "captured",
	} {
		if got := r.get(path); got != want {
			t.Errorf("once paid %s is %v, want %v", path, got, want)
		}
	}
	if got := fmt.Sprint(r.get("actions")); got != "[resend reverse refund]" {
		t.Errorf("actions %s", got)
	}
	resent := b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + id + "/resend", token: acmeKey}).want(t, 200)
	if resent.text("messages.2.purpose") != "receipt" {
		t.Errorf("resent %s", resent.raw)
	}
	for _, action := range []string{"extend", "cancel"} {
		b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + id + "/" + action, token: acmeKey}).problem(t, 409, "conflict", "paid")
	}
	b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + id + "/resend", token: acmeKey, body: object{"message": "payment"}}).problem(t, 409, "conflict", "paid")
}

// TestActions: what actions offers is what is accepted, and their bodies are
// checked like any other.
func TestActions(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.create("1042").text("id")
	act := func(action string, body any) apiReply {
		return b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + id + "/" + action, token: acmeKey, body: body})
	}
	before := b.keep()
	act("resend", object{"message": "invoice"}).problem(t, 422, "invalid", "", "message")
	act("resend", object{"massage": "payment"}).problem(t, 422, "invalid", "", "massage")
	act("extend", object{"seconds": 60}).problem(t, 422, "invalid", "", "seconds")
	act("cancel", object{"reason": strings.Repeat("x", 201)}).problem(t, 422, "invalid", "", "reason")
	act("cancel", object{"reason": 7}).problem(t, 422, "invalid", "", "reason")
	act("cancel", "{").problem(t, 400, "invalid", "malformed")
	act("settle", object{}).problem(t, 404, "not_found", "")
	b.unchanged(before)
	if r := act("resend", object{"message": "payment"}).want(t, 200); r.text("messages.1.purpose") != "payment" {
		t.Errorf("resent %s", r.raw)
	}
	first := b.request(id).OpenBy
	if r := act("extend", nil).want(t, 200); !b.request(id).OpenBy.After(first) || r.text("open_by") == "" {
		t.Errorf("extended to %s from %v", r.text("open_by"), first)
	}
	if r := act("cancel", nil).want(t, 200); r.text("lifecycle") != "cancelled" || r.text("reason") != "by_agent" || r.text("messages.2.purpose") != "cancelled" {
		t.Errorf("cancelled %s", r.raw)
	}
	for _, action := range []string{"cancel", "resend", "extend"} {
		act(action, object{}).problem(t, 409, "conflict", "cancelled")
	}
	events := b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id + "/events", token: acmeKey, header: map[string]string{"Accept": "application/json"}}).want(t, 200)
	var types []string
	for i := range events.get("items").([]any) {
		types = append(types, events.text(fmt.Sprintf("items.%d.type", i)))
		if events.text(fmt.Sprintf("items.%d.text", i)) == "" || events.get(fmt.Sprintf("items.%d.seq", i)) != float64(i+1) {
			t.Errorf("event %d: %v", i, events.get(fmt.Sprintf("items.%d", i)))
		}
	}
	if got := strings.Join(types, " "); got != "created resent extended cancelled" {
		t.Errorf("events %s", got)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	var ids []string
	for i := range 5 {
		ids = append(ids, b.create(fmt.Sprint(i), object{"channel": []string{"whatsapp", "sms"}[i%2]}).text("id"))
	}
	b.pay(ids[3], conversations.OutcomeCaptured)
	list := func(query string) apiReply {
		return b.call(apiCall{method: "GET", path: "/v1/payment-requests?" + query, token: acmeKey})
	}
	orders := func(r apiReply) string {
		r.want(t, 200)
		var got []string
		for i := range r.get("items").([]any) {
			got = append(got, r.text(fmt.Sprintf("items.%d.order", i)))
		}
		return strings.Join(got, " ")
	}
	for query, want := range map[string]string{
		"": "4 3 2 1 0", "channel=sms": "3 1", "order=2": "2", "lifecycle=paid": "3", "lifecycle=open&channel=sms": "1", "order=nothing": "", "limit=100": "4 3 2 1 0",
	} {
		if got := orders(list(query)); got != want {
			t.Errorf("?%s lists %q, want %q", query, got, want)
		}
	}
	var paged []string
	cursor := ""
	for {
		r := list("limit=2&cursor=" + url.QueryEscape(cursor))
		paged = append(paged, orders(r))
		if cursor = r.text("next_cursor"); cursor == "" {
			break
		}
	}
	if got := strings.TrimSpace(strings.Join(paged, "|")); got != "4 3|2 1|0" && got != "4 3|2 1|0|" {
		t.Errorf("pages %q", got)
	}
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=101": "limit", "limit=x": "limit", "lifecycle=closed": "lifecycle", "channel=mail": "channel", "cursor=x": "cursor", "status=open": "status",
	} {
		list(query).problem(t, 422, "invalid", "", field)
	}
	if got := list("limit=0").text("errors.0.location"); got != "query.limit" {
		t.Errorf("location %q", got)
	}
}

func TestEventPages(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	get := func(path string) apiReply {
		return b.call(apiCall{method: "GET", path: path, token: acmeKey, header: map[string]string{"Accept": "application/json"}})
	}
	b.create("before") // so that the feed has begun
	start := get("/v1/events").want(t, 200)
	if start.text("last") == "" || len(start.get("items").([]any)) != 0 {
		t.Errorf("the start is %s", start.raw)
	}
	id := b.create("1042").text("id")
	b.pay(id, conversations.OutcomeCaptured)
	b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: betaKey, body: createBodyOf("1")}).want(t, 201)

	page := get("/v1/payment-requests/"+id+"/events?after=1&limit=2").want(t, 200)
	if page.text("items.0.type") != "opened" || page.get("items.1.seq") != 3.0 || page.get("items.2") != nil || page.get("last") != 5.0 {
		t.Errorf("page %s", page.raw)
	}
	if got := page.text("items.0.milestone"); got != "opened" || page.text("items.0.payment_request_id") != id || page.text("items.0.order") != "1042" || page.text("items.0.time") == "" {
		t.Errorf("event %s", page.raw)
	}

	var types []string
	after := start.text("last")
	for range 10 {
		page := get("/v1/events?limit=2&after="+after).want(t, 200)
		items := page.get("items").([]any)
		if len(items) == 0 {
			break
		}
		for i := range items {
			types = append(types, page.text(fmt.Sprintf("items.%d.type", i)))
		}
		after = page.text("last")
	}
	if got := strings.Join(types, " "); got != "created opened checkout_started attempt_started paid" {
		t.Errorf("the merchant's events are %q", got)
	}
	for path, field := range map[string]string{
		"/v1/events?after=x": "after", "/v1/events?limit=501": "limit",
		"/v1/payment-requests/" + id + "/events?after=-1": "after", "/v1/payment-requests/" + id + "/events?after=x": "after", "/v1/payment-requests/" + id + "/events?limit=0": "limit",
	} {
		if path == "/v1/events?limit=501" {
			path += "&after=" + after
		}
		get(path).problem(t, 422, "invalid", "", field)
	}
}

func TestPreviews(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	token, _ := b.session("1042")
	post := func(token string, body any) apiReply {
		return b.call(apiCall{method: "POST", path: "/v1/message-previews", token: token, body: body})
	}
	sms := post(token, object{"channel": "sms", "locale": "en", "phone": "082 123 4567"}).want(t, 200)
	text := sms.text("text")
	if !strings.Contains(text, "ZAR 149.00") || !strings.Contains(text, "1042") || !strings.Contains(text, "https://pay.example/p/"+sampleCode) {
		t.Errorf("text %q", text)
	}
	if sms.text("encoding") != "gsm7" || sms.get("segments") != 1.0 || sms.get("units") != float64(len(text)) || sms.get("button") != nil {
		t.Errorf("preview %s", sms.raw)
	}
	real := b.request(b.create("5").text("id"))
	if len(real.LinkCode) != len(sampleCode) {
		t.Errorf("the sample code has %d characters, a real one %d", len(sampleCode), len(real.LinkCode))
	}
	before := b.keep()
	whatsapp := post(token, object{"channel": "whatsapp"}).want(t, 200)
	if whatsapp.text("button") != "Pay securely" || whatsapp.get("segments") != nil || whatsapp.get("encoding") != nil || whatsapp.get("cost_units") != 1.0 {
		t.Errorf("preview %s", whatsapp.raw)
	}
	german := post(token, object{"channel": "whatsapp", "locale": "de_AT"}).want(t, 200)
	if german.text("button") != "Sicher bezahlen" || !strings.HasPrefix(german.text("text"), "Guten Tag von ") {
		t.Errorf("preview %s", german.raw)
	}
	polish := post(token, object{"channel": "sms", "locale": "pl"}).want(t, 200)
	if polish.text("encoding") != "ucs2" || polish.get("cost_units") != polish.get("segments") || polish.get("cost_units").(float64) < 2 ||
		!strings.Contains(polish.raw, `"outside_gsm7":["ł","ę"`) || sms.get("outside_gsm7") != nil || sms.get("cost_units") != 1.0 {
		t.Errorf("preview %s, then %s", polish.raw, sms.raw)
	}
	post(acmeKey, object{"channel": "sms"}).want(t, 200)
	post(token, object{"channel": "sms", "phone": "123"}).problem(t, 422, "invalid", "", "phone")
	post(token, object{"channel": "mail"}).problem(t, 422, "invalid", "", "channel")
	post(token, object{}).problem(t, 422, "invalid", "", "channel")
	post(token, object{"channel": "sms", "total": zar("1.00")}).problem(t, 422, "invalid", "", "total")
	b.unchanged(before)
}
