package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// everyCall is one call of each operation on a payment request and a sealed
// order.
func everyCall(request, sealed, newOrder string) []apiCall {
	return []apiCall{
		{method: "POST", path: "/v1/payment-requests", body: createBodyOf(newOrder)},
		{method: "GET", path: "/v1/payment-requests"},
		{method: "GET", path: "/v1/payment-requests/" + request},
		{method: "POST", path: "/v1/payment-requests/" + request + "/resend", body: object{}},
		{method: "POST", path: "/v1/payment-requests/" + request + "/extend", body: object{}},
		{method: "POST", path: "/v1/payment-requests/" + request + "/cancel", body: object{}},
		{method: "GET", path: "/v1/payment-requests/" + request + "/events"},
		{method: "GET", path: "/v1/events"},
		{method: "POST", path: "/v1/agent-sessions", body: object{"sealed_order": sealed}},
		{method: "GET", path: "/v1/sealed-orders/" + sealed},
		{method: "POST", path: "/v1/message-previews", body: object{"channel": "sms"}},
		{method: "GET", path: "/v1/conversations"},
		{method: "GET", path: "/v1/conversations/c_" + strings.TrimPrefix(request, "pr_")},
		{method: "GET", path: "/v1/conversations/c_" + strings.TrimPrefix(request, "pr_") + "/messages"},
		{method: "POST", path: "/v1/conversations/c_" + strings.TrimPrefix(request, "pr_") + "/messages", body: object{"text": "hello"}},
		{method: "POST", path: "/v1/conversations/c_" + strings.TrimPrefix(request, "pr_") + "/take-over"},
		{method: "POST", path: "/v1/conversations/c_" + strings.TrimPrefix(request, "pr_") + "/hand-back"},
		{method: "POST", path: "/v1/conversations/c_" + strings.TrimPrefix(request, "pr_") + "/typing"},
		{method: "POST", path: "/v1/conversations/c_" + strings.TrimPrefix(request, "pr_") + "/verify-identity"},
		{method: "GET", path: "/v1/senders"},
		{method: "GET", path: "/v1/senders/acme-whatsapp"},
	}
}

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	made := b.create("1042")
	_, sealed := b.session("1042")
	expired, _, err := b.sessions.Mint(sessionClaims{MerchantID: "acme", SealedOrder: sealed}, -time.Second)
	if err != nil {
		t.Fatal(err)
	}
	gone, _, err := b.sessions.Mint(sessionClaims{MerchantID: "nobody", SealedOrder: sealed}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	logged := b.log.String()
	before := b.keep()
	for _, c := range []struct{ name, authorization, reason string }{
		{"nothing", "", ""},
		{"unknown key", "Bearer acme-key-0123456780", ""},
		{"basic", "Basic " + acmeKey, ""},
		{"no scheme", acmeKey, ""},
		{"no token", "Bearer ", ""},
		{"expired token", "Bearer " + expired, "token_expired"},
		{"token of no merchant", "Bearer " + gone, ""},
		{"a long one", "Bearer " + strings.Repeat("x", 6000), ""},
	} {
		for _, call := range everyCall(made.text("id"), sealed, "new") {
			t.Run(c.name+" "+call.method+call.path, func(t *testing.T) {
				call.header = map[string]string{"Authorization": c.authorization}
				r := b.call(call)
				r.problem(t, 401, "unauthorized", c.reason)
				if r.header.Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("WWW-Authenticate %q", r.header.Get("WWW-Authenticate"))
				}
			})
		}
	}
	b.unchanged(before)
	b.call(apiCall{method: "GET", path: "/v1/payment-requests", header: map[string]string{"Authorization": "bearer  " + acmeKey}}).want(t, 200)
	if log := strings.TrimPrefix(b.log.String(), logged); log != "" {
		t.Errorf("refusals of callers were logged: %s", log)
	}
}

// TestMerchantsAreApart: nothing of one merchant is there for another.
func TestMerchantsAreApart(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	made := b.create("1042")
	_, sealed := b.session("1042")
	r := b.call(apiCall{method: "POST", path: "/v1/agent-sessions", token: betaKey, body: object{"order": orderBody("1042")}}).want(t, 201)
	betaToken := r.text("token")
	before := b.keep()
	for _, token := range []string{betaKey, betaToken} {
		for _, call := range everyCall(made.text("id"), sealed, "new") {
			own := strings.HasPrefix(call.path, "/v1/conversations") || // see TestConversationsAreApart
				call.path == "/v1/payment-requests" || call.path == "/v1/events" || call.path == "/v1/message-previews" || call.path == "/v1/senders" || token == betaToken && (call.path == "/v1/agent-sessions" || strings.HasPrefix(call.path, "/v1/senders/"))
			if own {
				continue
			}
			call.token = token
			b.call(call).problem(t, 404, "not_found", "")
		}
	}
	b.unchanged(before)
	list := b.call(apiCall{method: "GET", path: "/v1/payment-requests", token: betaKey}).want(t, 200)
	if items, _ := list.get("items").([]any); len(items) != 0 {
		t.Errorf("another merchant lists %s", list.raw)
	}
	// The same order number is another order.
	b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: betaKey, body: createBodyOf("1042")}).want(t, 201)
	if b.request(made.text("id")).Superseded {
		t.Error("another merchant took the order over")
	}
}

// TestAgentSession walks through what a token may and may not do.
func TestAgentSession(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	other := b.create("9000")
	token, sealed := b.session("1042")
	agent := func(method, path string, body any) apiReply {
		return b.call(apiCall{method: method, path: path, token: token, body: body})
	}
	order := agent("GET", "/v1/sealed-orders/"+sealed, nil).want(t, 200)
	for path, want := range map[string]any{
		"id": sealed, "order": "1042", "total.value": "149.00", "line_items.1.name": "Part", "phone": "+27821234567", "phone_national": "082 123 4567",
		"country": "ZA", "customer_name": "Lerato", "merchant.name": "Acme Energy", "environment": "sandbox", "payment_request": nil,
		"channels.0.channel": "whatsapp", "channels.0.available": true, "channels.1.channel": "sms", "channels.1.available": true,
	} {
		if got := order.get(path); got != want {
			t.Errorf("sealed order: %s is %v, want %v", path, got, want)
		}
	}
	if _, ok := order.doc["payment_request"]; !ok {
		t.Error("payment_request is left out, want null")
	}

	before := b.keep()
	for field, value := range map[string]any{
		"total": zar("1.00"), "subtotal": zar("1.00"), "tax": zar("1.00"), "shipping": zar("0.00"), "discount": zar("100.00"), "order": "1042",
		"line_items": []object{}, "country": "ZA", "customer_name": "X", "capture": false, "time_to_pay_seconds": 60, "time_to_open_seconds": 60,
	} {
		r := agent("POST", "/v1/payment-requests", object{"channel": "sms", "phone": "082 123 4567", field: value})
		r.problem(t, 422, "invalid", "", field)
	}
	b.unchanged(before)

	made := agent("POST", "/v1/payment-requests", object{"channel": "sms", "phone": "083 123 4567", "note": "door 3"}).want(t, 201)
	if made.text("total.value") != "149.00" || made.text("order") != "1042" || made.text("phone") != "+27831234567" || made.text("note") != "door 3" {
		t.Errorf("created %s", made.raw)
	}
	if made.get("link") != nil || strings.Contains(made.raw, b.request(made.text("id")).LinkCode) {
		t.Errorf("the agent's browser was given the link: %s", made.raw)
	}
	id := made.text("id")
	if got := agent("GET", "/v1/sealed-orders/"+sealed, nil).want(t, 200); got.text("payment_request.id") != id {
		t.Errorf("the sealed order shows %v", got.get("payment_request"))
	}
	agent("GET", "/v1/payment-requests/"+id, nil).want(t, 200)
	agent("POST", "/v1/payment-requests/"+id+"/resend", object{}).want(t, 200)
	agent("POST", "/v1/payment-requests/"+id+"/extend", nil).want(t, 200)
	b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id + "/events", token: token, header: map[string]string{"Accept": "application/json"}}).want(t, 200)

	for _, path := range []string{"/v1/payment-requests/" + other.text("id"), "/v1/payment-requests/" + other.text("id") + "/events", "/v1/sealed-orders/so_00000000000000000000"} {
		agent("GET", path, nil).problem(t, 404, "not_found", "")
	}
	for _, action := range []string{"cancel", "resend", "extend"} {
		agent("POST", "/v1/payment-requests/"+other.text("id")+"/"+action, object{}).problem(t, 404, "not_found", "")
	}
	agent("GET", "/v1/payment-requests", nil).problem(t, 403, "forbidden", "not_granted")
	agent("GET", "/v1/events", nil).problem(t, 403, "forbidden", "not_granted")
	agent("POST", "/v1/agent-sessions", object{"sealed_order": sealed}).problem(t, 403, "forbidden", "not_granted")

	agent("POST", "/v1/payment-requests/"+id+"/cancel", object{"reason": "wrong number"}).want(t, 200)
	second := agent("POST", "/v1/payment-requests", object{"channel": "whatsapp"}).want(t, 201)
	if second.text("phone") != "+27821234567" {
		t.Errorf("without a phone it goes to %s, want that of the sealed order", second.text("phone"))
	}
	agent("GET", "/v1/payment-requests/"+id, nil).problem(t, 404, "not_found", "") // no longer the holder
	agent("GET", "/v1/payment-requests/"+second.text("id"), nil).want(t, 200)
}

func TestGrants(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	other := b.create("9000").text("id")
	for _, c := range []struct {
		grants []string
		read   int // reading another order's payment request
		list   int
		act    int
	}{
		{nil, 404, 403, 404},
		{[]string{"read_all"}, 200, 200, 404},
		{[]string{"act_all"}, 404, 403, 200},
		{[]string{"read_all", "act_all"}, 200, 200, 200},
	} {
		token, _ := b.session("1042", object{"grants": c.grants})
		got := [3]int{
			b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + other, token: token}).status,
			b.call(apiCall{method: "GET", path: "/v1/payment-requests", token: token}).status,
			b.call(apiCall{method: "POST", path: "/v1/payment-requests/" + other + "/extend", token: token}).status,
		}
		if want := [3]int{c.read, c.list, c.act}; got != want {
			t.Errorf("with %v: read, list and act are %v, want %v", c.grants, got, want)
		}
	}
}

func TestMakingSessions(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	post := func(body any) apiReply {
		return b.call(apiCall{method: "POST", path: "/v1/agent-sessions", token: acmeKey, body: body})
	}
	r := post(object{"order": orderBody("7"), "ttl_seconds": 120}).want(t, 201)
	claims, err := b.sessions.Verify(r.text("token"))
	if err != nil || claims.MerchantID != "acme" || claims.SealedOrder != r.text("sealed_order") || claims.ExpiresAt.Sub(claims.IssuedAt.Time) != 2*time.Minute {
		t.Errorf("claims %+v, %v", claims, err)
	}
	if at, err := time.Parse(time.RFC3339, r.text("expires_at")); err != nil || !at.Equal(claims.ExpiresAt.Time) {
		t.Errorf("expires_at %q, the token ends %v", r.text("expires_at"), claims.ExpiresAt)
	}
	if strings.Contains(r.text("token"), "149") || claims.Agent != nil {
		t.Error("the token says more than it should")
	}
	again := post(object{"sealed_order": r.text("sealed_order"), "agent": object{"id": "ag7"}}).want(t, 201)
	if again.text("sealed_order") != r.text("sealed_order") || again.text("token") == r.text("token") {
		t.Errorf("renewed %s", again.raw)
	}
	before := b.keep()
	for _, c := range []struct {
		name   string
		body   any
		status int
		fields []string
	}{
		{"neither", object{}, 422, []string{"order"}},
		{"both", object{"order": orderBody("7"), "sealed_order": r.text("sealed_order")}, 422, []string{"order"}},
		{"unknown sealed order", object{"sealed_order": "so_00000000000000000000"}, 404, nil},
		{"no sealed order's id", object{"sealed_order": "pr_1"}, 404, nil},
		{"sums", object{"order": orderBody("7", object{"total": zar("1.00")})}, 422, []string{"order.total"}},
		{"number", object{"order": orderBody("7", object{"tax": object{"value": 1, "currency": "ZAR"}})}, 422, []string{"order.tax.value"}},
		{"over-precise", object{"order": orderBody("7", object{"tax": zar("1.001")})}, 422, []string{"order.tax.value"}},
		{"missing", object{"order": orderBody("7", object{"tax": nil, "order": nil})}, 422, []string{"order.order", "order.tax"}},
		{"unknown field", object{"order": orderBody("7", object{"amount": 1})}, 422, []string{"order.amount"}},
		{"unknown grant", object{"order": orderBody("7"), "grants": []string{"read_all", "everything"}}, 422, []string{"grants[1]"}},
		{"too long", object{"order": orderBody("7"), "ttl_seconds": 12*3600 + 1}, 422, []string{"ttl_seconds"}},
		{"overflowing", object{"order": orderBody("7"), "ttl_seconds": 1 << 40}, 422, []string{"ttl_seconds"}},
		{"too short", object{"order": orderBody("7"), "ttl_seconds": 5}, 422, []string{"ttl_seconds"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := post(c.body).want(t, c.status)
			if !slices.Equal(r.fields(), c.fields) {
				t.Errorf("it names %v, want %v: %s", r.fields(), c.fields, r.raw)
			}
		})
	}
	b.unchanged(before)
}

// TestOrigins walks through the matrix of hosts, origins and tokens.
func TestOrigins(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.create("1042").text("id")
	token, _ := b.session("1042")
	for _, c := range []struct {
		name, host, origin, token string
		status                    int
		readable                  bool // the answer carries the headers
	}{
		{"a server", sharedHost, "", acmeKey, 200, false},
		{"allowed, key", sharedHost, acmeOrigin, acmeKey, 200, true},
		{"allowed, session", sharedHost, acmeOrigin, token, 200, true},
		{"same origin", sharedHost, "https://pay.example", token, 200, false},
		{"another merchant's origin", sharedHost, betaOrigin, token, 403, true},
		{"another merchant's origin, key", sharedHost, betaOrigin, acmeKey, 403, true},
		{"foreign", sharedHost, "https://evil.example", token, 403, false},
		{"a prefix", sharedHost, acmeOrigin + ".evil.example", token, 403, false},
		{"another scheme", sharedHost, strings.Replace(acmeOrigin, "https", "http", 1), token, 403, false},
		{"null", sharedHost, "null", token, 403, false},
		{"origin of another host", sharedHost, farOrigin, token, 403, false},
		{"own origin at another host", farHost, acmeOrigin, token, 200, false},
		{"no token", sharedHost, acmeOrigin, "", 401, true},
		{"no token, foreign", sharedHost, "https://evil.example", "", 401, false},
		{"another merchant's thing", sharedHost, betaOrigin, betaKey, 404, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id, host: c.host, token: c.token, header: map[string]string{"Origin": c.origin}}).want(t, c.status)
			if c.status == 403 {
				r.problem(t, 403, "forbidden", "origin_not_allowed")
			}
			want := ""
			if c.readable {
				want = c.origin
			}
			if got := r.header.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("Access-Control-Allow-Origin %q, want %q", got, want)
			}
			if !slices.Contains(r.header.Values("Vary"), "Origin") {
				t.Errorf("Vary %q: a cache could give this to another origin", r.header.Values("Vary"))
			}
			if r.header.Get("Access-Control-Allow-Credentials") != "" || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("headers %v", r.header)
			}
		})
	}
	before := b.keep()
	for _, call := range everyCall(id, "so_00000000000000000000", "new") {
		call.token, call.header = acmeKey, map[string]string{"Origin": "https://evil.example"}
		b.call(call).problem(t, 403, "forbidden", "origin_not_allowed")
	}
	b.unchanged(before)
	for _, path := range []string{"/v1/payment-requests/nothing", "/v1/nothing"} {
		r := b.call(apiCall{method: "GET", path: path, token: acmeKey, header: map[string]string{"Origin": acmeOrigin}}).want(t, 404)
		if r.header.Get("Access-Control-Allow-Origin") != acmeOrigin {
			t.Errorf("%s: a page could not read the error", path)
		}
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	for _, c := range []struct {
		host, origin string
		status       int
	}{
		{sharedHost, acmeOrigin, 204}, {sharedHost, betaOrigin, 204}, {sharedHost, farOrigin, 403}, {sharedHost, "https://evil.example", 403}, {farHost, farOrigin, 204}, {farHost, acmeOrigin, 403},
	} {
		for _, path := range []string{"/v1/payment-requests", "/v1/payment-requests/pr_1/events", "/v1/agent-sessions"} {
			r := b.call(apiCall{method: "OPTIONS", path: path, host: c.host, header: map[string]string{
				"Origin": c.origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type",
			}}).want(t, c.status)
			got := [3]string{r.header.Get("Access-Control-Allow-Origin"), r.header.Get("Access-Control-Allow-Methods"), r.header.Get("Access-Control-Allow-Headers")}
			want := [3]string{}
			if c.status == 204 {
				want = [3]string{c.origin, "GET, POST", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID"}
			}
			if got != want || !slices.Contains(r.header.Values("Vary"), "Origin") {
				t.Errorf("%s from %s: %q, want %q; Vary %q", c.host, c.origin, got, want, r.header.Values("Vary"))
			}
		}
	}
	b.call(apiCall{method: "OPTIONS", path: "/v1/payment-requests"}).want(t, 405)
}

// TestStreamsAreHandedOver: who may stream is decided here, and the headers for
// other origins and the end of the token go along.
func TestStreamsAreHandedOver(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.create("1042").text("id")
	other := b.create("2").text("id")
	token, _ := b.session("1042")
	header := map[string]string{"Accept": "text/event-stream", "Last-Event-ID": "3", "Origin": acmeOrigin}
	r := b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id + "/events", token: token, header: header}).want(t, 200)
	if r.raw != "streamed "+id {
		t.Errorf("answer %q", r.raw)
	}
	b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + other + "/events", token: token, header: header}).problem(t, 404, "not_found", "")
	b.call(apiCall{method: "GET", path: "/v1/events", token: token, header: header}).problem(t, 403, "forbidden", "not_granted")
	b.call(apiCall{method: "GET", path: "/v1/events", token: acmeKey, header: map[string]string{"Accept": "*/*"}}).want(t, 200)
	stream := map[string]string{"Accept": eventStreamType}
	for _, path := range []string{"/v1/events?lastEventId=7", "/v1/events?after=8", "/v1/events?after=8&lastEventId=7"} {
		b.call(apiCall{method: "GET", path: path, token: acmeKey, header: stream}).want(t, 200)
	}
	b.call(apiCall{method: "GET", path: "/v1/events?lastEventId=7", token: acmeKey, header: map[string]string{"Accept": "application/json"}}).problem(t, 422, "invalid", "", "lastEventId")
	b.call(apiCall{method: "GET", path: "/v1/events?since=7", token: acmeKey, header: stream}).problem(t, 422, "invalid", "", "since")
	b.call(apiCall{method: "GET", path: "/v1/events", token: acmeKey, header: map[string]string{"Accept": "text/html"}}).problem(t, http.StatusNotAcceptable, "invalid", "not_acceptable")

	b.streams.mu.Lock()
	defer b.streams.mu.Unlock()
	if got := fmt.Sprint(b.streams.of); got != fmt.Sprintf("[%s acme acme acme acme]", id) {
		t.Fatalf("streamed %s", got)
	}
	claims, err := b.sessions.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	first, second := b.streams.options[0], b.streams.options[1]
	if first.LastEventID != "3" || !first.Until.Equal(claims.ExpiresAt.Time) || !slices.Contains(first.Header, [2]string{"Access-Control-Allow-Origin", acmeOrigin}) || !slices.Contains(first.Header, [2]string{"Vary", "Origin"}) {
		t.Errorf("options %+v", first)
	}
	if !second.Until.IsZero() || second.LastEventID != "" || len(second.Header) != 1 {
		t.Errorf("options of a server's stream %+v", second)
	}
	for i, want := range [][2]string{{"7", "lastEventId"}, {"8", "after"}, {"7", "lastEventId"}} {
		if o := b.streams.options[2+i]; o.LastEventID != want[0] || o.Field != want[1] {
			t.Errorf("a stream goes on after %q of %q, want %q", o.LastEventID, o.Field, want)
		}
	}
}
