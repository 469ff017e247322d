package web_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/gateway/web"
)

// object is one JSON object as it goes over the wire.
type object = map[string]any

// fakeGateway speaks as much of the REST API as the panel and a merchant's
// server use. Its tokens are readable and not signed: the panel reads two
// claims and verifies nothing.
type fakeGateway struct {
	*httptest.Server

	mu       sync.Mutex
	changed  *sync.Cond
	tokens   map[string]bool // false: has run out
	orders   map[string]object
	requests []*fakeRequest
	answers  map[string][]byte // by Idempotency-Key
	calls    []fakeCall
	streams  map[*http.Request]chan struct{}
	lifetime time.Duration
	lose     int                      // creates whose answer is cut off, after their effect
	refusals map[string][]fakeRefusal // by last part of the path
	channels []object
	sms      object // what an SMS looks like
	serial   int
}

type fakeRequest struct {
	doc    object
	events []object
}

type fakeCall struct {
	method, path, key, lastEventID, body string
}

type fakeRefusal struct {
	status  int
	problem object
}

func newFakeGateway(t *testing.T) *fakeGateway {
	t.Helper()
	g := &fakeGateway{
		tokens: map[string]bool{}, orders: map[string]object{}, answers: map[string][]byte{}, streams: map[*http.Request]chan struct{}{},
		refusals: map[string][]fakeRefusal{}, lifetime: time.Hour,
		channels: []object{{"channel": "whatsapp", "available": true}, {"channel": "sms", "available": true}},
		sms:      object{"channel": "sms", "text": "Acme Energy: pay R1 723.85 for order 1042 here: https://pay.example/p/SAMPLE1 Reply STOP to opt out.", "encoding": "gsm7", "segments": 1, "units": 96, "cost_units": 1},
	}
	g.changed = sync.NewCond(&g.mu)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /extension/paythread.js", func(w http.ResponseWriter, _ *http.Request) {
		body, _ := web.Script()
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write(body)
	})
	mux.HandleFunc("POST /v1/agent-sessions", g.makeSession)
	mux.HandleFunc("GET /v1/payment-requests", g.listRequests)
	mux.HandleFunc("GET /v1/sealed-orders/{id}", g.asAgent(g.getOrder))
	mux.HandleFunc("POST /v1/message-previews", g.asAgent(g.preview))
	mux.HandleFunc("POST /v1/payment-requests", g.asAgent(g.create))
	mux.HandleFunc("GET /v1/payment-requests/{id}", g.asAgent(g.getRequest))
	mux.HandleFunc("GET /v1/payment-requests/{id}/events", g.asAgent(g.stream))
	mux.HandleFunc("POST /v1/payment-requests/{id}/{action}", g.asAgent(g.act))
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Expose-Headers", "Retry-After")
		if r.Method == http.MethodOptions {
			w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
			w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID")
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		g.cutStreams()
		g.CloseClientConnections()
		g.Close()
	})
	return g
}

const apiKey = "key-of-the-shop"

func amount(value string) object { return object{"value": value, "currency": "ZAR"} }

// seal keeps an order as POST /v1/agent-sessions would and returns its id.
func (g *fakeGateway) seal() string {
	return g.sealDoc(object{
		"order": "1042", "customer_name": "Lerato Mokoena", "phone": "+27821234567", "country": "ZA",
		"line_items": []object{
			{"name": "Geyser element 3 kW", "sku": "GE-3000", "quantity": 1, "unit_price": amount("849.00"), "total": amount("849.00")},
			{"name": "Call-out, first hour", "sku": "CO-1", "quantity": 1, "unit_price": amount("650.00"), "total": amount("650.00")},
		},
		"subtotal": amount("1499.00"), "tax": amount("224.85"), "shipping": amount("0.00"), "discount": amount("0.00"), "total": amount("1723.85"),
	})
}

func (g *fakeGateway) sealDoc(order object) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serial++
	id := fmt.Sprintf("so_%d", g.serial)
	order = maps.Clone(order)
	order["id"], order["merchant"], order["environment"] = id, object{"id": "acme", "name": "Acme Energy"}, "sandbox"
	if phone, ok := order["phone"].(string); ok && len(phone) == 12 {
		order["phone_national"] = "0" + phone[3:5] + " " + phone[5:8] + " " + phone[8:]
	}
	g.orders[id] = order
	return id
}

// token makes an agent session token for a sealed order.
func (g *fakeGateway) token(sealedOrder string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serial++
	now := time.Now()
	claims, err := json.Marshal(object{"so": sealedOrder, "iat": now.Unix(), "exp": now.Add(g.lifetime).Unix(), "jti": g.serial})
	if err != nil {
		panic(err)
	}
	token := "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln"
	g.tokens[token] = true
	return token
}

// endTokens lets every token run out and cuts the streams they opened.
func (g *fakeGateway) endTokens() {
	g.mu.Lock()
	for token := range g.tokens {
		g.tokens[token] = false
	}
	g.mu.Unlock()
	g.cutStreams()
}

// cutStreams ends every running stream in the middle.
func (g *fakeGateway) cutStreams() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for r, cut := range g.streams {
		close(cut)
		delete(g.streams, r)
	}
	g.changed.Broadcast()
}

// refuse answers the next call whose path ends in last with a problem.
func (g *fakeGateway) refuse(last string, status int, problem object) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refusals[last] = append(g.refusals[last], fakeRefusal{status, problem})
}

func (g *fakeGateway) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// called returns the calls with that method and path, in order.
func (g *fakeGateway) called(method, path string) []fakeCall {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(g.calls), func(c fakeCall) bool { return c.method != method || c.path != path })
}

func (g *fakeGateway) made() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.requests)
}

// happen appends an event to the newest request and changes its document.
func (g *fakeGateway) happen(kind, text string, change object, extra object) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.append(g.requests[len(g.requests)-1], kind, text, change, extra)
}

// milestone lets the newest request reach a milestone.
func (g *fakeGateway) milestone(name, text string, change object) {
	g.happen(name, text, change, object{"milestone": name})
}

func (g *fakeGateway) append(r *fakeRequest, kind, text string, change, extra object) {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	maps.Copy(r.doc, change)
	event := object{"seq": len(r.events) + 1, "type": kind, "time": now, "payment_request_id": r.doc["id"], "order": r.doc["order"], "lifecycle": r.doc["lifecycle"], "text": text}
	if reason, ok := r.doc["reason"]; ok && reason != "" {
		event["reason"] = reason
	}
	maps.Copy(event, extra)
	if name, ok := extra["milestone"].(string); ok {
		milestones := maps.Clone(r.doc["milestones"].(object))
		milestones[name] = now
		r.doc["milestones"] = milestones
	}
	r.events = append(r.events, event)
	r.doc["last_event"] = len(r.events)
	g.changed.Broadcast()
}

// asAgent checks the token, logs the call and deals out what was ordered.
func (g *fakeGateway) asAgent(h func(w http.ResponseWriter, r *http.Request, body string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var raw json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&raw) // a call without a body has none
		body := string(raw)
		g.mu.Lock()
		g.calls = append(g.calls, fakeCall{r.Method, r.URL.Path, r.Header.Get("Idempotency-Key"), r.Header.Get("Last-Event-ID"), body})
		good, known := g.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		var refusal *fakeRefusal
		if queue := g.refusals[last]; good && len(queue) > 0 && r.Method == http.MethodPost {
			refusal, g.refusals[last] = &queue[0], queue[1:]
		}
		g.mu.Unlock()
		switch {
		case !known:
			problem(w, 401, object{"code": "unauthorized", "title": "Unauthorized", "detail": "The token is not valid."})
		case !good:
			problem(w, 401, object{"code": "unauthorized", "reason": "token_expired", "detail": "The token has run out."})
		case refusal != nil:
			problem(w, refusal.status, refusal.problem)
		default:
			h(w, r, body)
		}
	}
}

func problem(w http.ResponseWriter, status int, doc object) {
	doc["status"] = status
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc)
}

func answer(w http.ResponseWriter, status int, doc any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc)
}

func (g *fakeGateway) makeSession(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+apiKey {
		problem(w, 401, object{"detail": "No such key."})
		return
	}
	var ask struct {
		Order       object `json:"order"`
		SealedOrder string `json:"sealed_order"`
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
		problem(w, 400, object{"detail": err.Error()})
		return
	}
	if ask.SealedOrder == "" {
		ask.SealedOrder = g.sealDoc(ask.Order)
	}
	answer(w, 201, object{"token": g.token(ask.SealedOrder), "expires_at": time.Now().Add(g.lifetime).UTC(), "sealed_order": ask.SealedOrder})
}

func (g *fakeGateway) listRequests(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	items := []object{}
	for _, request := range g.requests {
		if request.doc["order"] == r.URL.Query().Get("order") {
			items = append(items, request.doc)
		}
	}
	answer(w, 200, object{"items": items})
}

func (g *fakeGateway) getOrder(w http.ResponseWriter, r *http.Request, _ string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	order, ok := g.orders[r.PathValue("id")]
	if !ok {
		problem(w, 404, object{"detail": "No such order."})
		return
	}
	order = maps.Clone(order)
	order["channels"] = g.channels
	order["payment_request"] = nil
	for _, request := range g.requests {
		if request.doc["order"] == order["order"] {
			order["payment_request"] = request.doc
		}
	}
	answer(w, 200, order)
}

func (g *fakeGateway) preview(w http.ResponseWriter, _ *http.Request, body string) {
	var ask struct{ Channel, Phone string }
	_ = json.Unmarshal([]byte(body), &ask)
	if ask.Phone != "" && len(ask.Phone) < 9 {
		problem(w, 422, object{"detail": "The phone number is not right.", "errors": []object{{"field": "phone", "message": "This is not a phone number in South Africa.", "location": "body.phone"}}})
		return
	}
	if ask.Channel == "sms" {
		g.mu.Lock()
		defer g.mu.Unlock()
		answer(w, 200, g.sms)
		return
	}
	answer(w, 200, object{"channel": "whatsapp", "text": "Hello, this is Acme Energy.\nYour order 1042 comes to R1 723.85. Pay it securely with the button below. The link is good for 24 hours.", "button": "Pay securely", "cost_units": 1})
}

func (g *fakeGateway) create(w http.ResponseWriter, r *http.Request, body string) {
	key := r.Header.Get("Idempotency-Key")
	g.mu.Lock()
	defer g.mu.Unlock()
	raw, repeated := g.answers[key]
	if !repeated {
		var ask struct{ Phone, Channel, Note string }
		_ = json.Unmarshal([]byte(body), &ask)
		claims := strings.Split(r.Header.Get("Authorization"), ".")[1]
		payload, _ := base64.RawURLEncoding.DecodeString(claims)
		var who struct{ SO string }
		_ = json.Unmarshal(payload, &who)
		order := g.orders[who.SO]
		now := time.Now().UTC()
		id := fmt.Sprintf("pr_%d", len(g.requests)+1)
		request := &fakeRequest{doc: object{
			"id": id, "order": order["order"], "environment": "sandbox", "lifecycle": "open", "phone": "+27821234567", "phone_national": ask.Phone, "channel": ask.Channel, "note": ask.Note,
			"total": order["total"], "milestones": object{}, "attempts": []object{}, "operations": []object{}, "created_at": now, "open_by": now.Add(24 * time.Hour),
			"messages": []object{{"id": "m_" + id, "purpose": "payment", "channel": ask.Channel, "status": "queued", "queued_at": now}},
			"actions":  []string{"cancel", "resend", "extend"},
		}}
		g.requests = append(g.requests, request)
		g.append(request, "created", "The payment request was made.", nil, nil)
		raw, _ = json.Marshal(request.doc)
		g.answers[key] = raw
	}
	if g.lose > 0 {
		g.lose--
		panic(http.ErrAbortHandler) // the effect stands, the answer is gone
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(201)
	_, _ = w.Write(raw)
}

func (g *fakeGateway) find(id string) *fakeRequest {
	for _, request := range g.requests {
		if request.doc["id"] == id {
			return request
		}
	}
	return nil
}

func (g *fakeGateway) getRequest(w http.ResponseWriter, r *http.Request, _ string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	answer(w, 200, g.find(r.PathValue("id")).doc)
}

func (g *fakeGateway) act(w http.ResponseWriter, r *http.Request, _ string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	request := g.find(r.PathValue("id"))
	if raw, repeated := g.answers[r.Header.Get("Idempotency-Key")]; repeated {
		answer(w, 200, json.RawMessage(raw))
		return
	}
	switch r.PathValue("action") {
	case "cancel":
		g.append(request, "cancelled", "The request was cancelled.", object{"lifecycle": "cancelled", "reason": "by_agent", "actions": []string{}}, nil)
	case "extend":
		g.append(request, "extended", "More time was given.", object{"open_by": time.Now().UTC().Add(48 * time.Hour)}, nil)
	case "resend":
		g.append(request, "resent", "The message is being sent again.", nil, nil)
	}
	g.answers[r.Header.Get("Idempotency-Key")], _ = json.Marshal(request.doc)
	answer(w, 200, request.doc)
}

func (g *fakeGateway) stream(w http.ResponseWriter, r *http.Request, _ string) {
	after, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	cut := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	request := g.find(r.PathValue("id"))
	g.streams[r] = cut
	defer delete(g.streams, r)
	w.Header().Set("Content-Type", "text/event-stream")
	flush := w.(http.Flusher).Flush
	_, _ = fmt.Fprint(w, ": hb\n\n")
	if after > len(request.events) { // the log went back
		after = len(request.events)
		_, _ = fmt.Fprintf(w, "id: %d\nevent: reset\ndata: {}\n\n", after)
	}
	flush()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-r.Context().Done():
			g.mu.Lock()
			g.changed.Broadcast()
			g.mu.Unlock()
		case <-stop:
		}
	}()
	for r.Context().Err() == nil {
		select {
		case <-cut:
			// Half an event goes out before the line breaks: it must not count.
			_, _ = fmt.Fprintf(w, "id: %d\nevent: payment_request\ndata: {\"seq\":%d,\"type\":\"paid\"", after+1, after+1)
			flush()
			panic(http.ErrAbortHandler)
		default:
		}
		for ; after < len(request.events); after++ {
			data, _ := json.Marshal(request.events[after])
			_, _ = fmt.Fprintf(w, "id: %d\nevent: payment_request\ndata: %s\n\n", after+1, data)
			flush()
		}
		g.changed.Wait()
	}
}
