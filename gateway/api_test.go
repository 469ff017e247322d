package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/redis/go-redis/v9"

	"paythread/conversations"
	"paythread/conversations/redistest"
)

// apiBench is the API over a real Redis on a listener of its own, with two
// merchants under one host and one under another.
type apiBench struct {
	t        *testing.T
	api      *api
	store    *conversations.Store
	config   *Config
	sessions *agentSessions
	streams  *recordedStreams
	log      *lockedBuffer
	redis    *redis.Client
	prefix   string
	client   *http.Client
	url      string
}

const (
	acmeKey, betaKey, farKey          = "acme-key-0123456789", "beta-key-0123456789", "far-key-0123456789"
	acmeOrigin, betaOrigin, farOrigin = "https://oms.acme.example", "https://oms.beta.example", "https://oms.far.example"
	sharedHost, farHost               = "pay.example", "far.example"
)

func benchConfig() *Config {
	merchant := func(id, name, host, key, origin string, channels ...conversations.Channel) *MerchantConfig {
		m := &MerchantConfig{
			ID: id, Name: name, Contact: "help@" + id + ".example", PublicURL: "https://" + host, Sandbox: true, Country: "ZA", Locale: "en",
			Currencies: []string{"ZAR", "USD"}, APIKeys: []*APIKeyConfig{{Name: "oms", Secret: Secret(key)}}, AllowedOrigins: []string{origin},
			TimeToOpen: time.Hour, TimeToPay: 15 * time.Minute, MaxAttempts: 5, Capture: true,
		}
		for _, c := range channels {
			m.Senders = append(m.Senders, &SenderConfig{ID: id + "-" + string(c), Channel: c})
		}
		return m
	}
	c := &Config{
		AgentSessions: AgentSessionsConfig{TTL: 30 * time.Minute, MaxTTL: 12 * time.Hour},
		Merchants: []*MerchantConfig{
			merchant("acme", "Acme Energy", sharedHost, acmeKey, acmeOrigin, conversations.WhatsApp, conversations.SMS),
			merchant("beta", "Beta Foods", sharedHost, betaKey, betaOrigin, conversations.WhatsApp),
			merchant("far", "Far Away", farHost, farKey, farOrigin, conversations.SMS),
		},
	}
	c.index()
	return c
}

// newAPIBench starts a bench. change may alter the store's options.
func newAPIBench(t *testing.T, change ...func(*conversations.Options)) *apiBench {
	t.Helper()
	b := &apiBench{t: t, config: benchConfig(), streams: &recordedStreams{}, log: &lockedBuffer{}}
	server := redistest.Shared(t)
	b.prefix = fmt.Sprintf("api:%s:%d", t.Name(), time.Now().UnixNano())
	b.redis = server.Client(t)
	o := conversations.Options{Addresses: []string{server.Addr}, Prefix: b.prefix, Partitions: 2}
	for _, m := range b.config.Merchants {
		o.Merchants = append(o.Merchants, m.Domain())
	}
	for _, c := range change {
		c(&o)
	}
	var err error
	if b.store, err = conversations.Connect(t.Context(), o); err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { _ = b.store.Close() })
	b.sessions = newAgentSessions(func() [][]byte { return [][]byte{[]byte(strings.Repeat("k", 32))} }, b.store.Now)
	log := slog.New(slog.NewTextHandler(b.log, nil))
	b.api = newAPI(apiOptions{Store: b.store, Config: func() *Config { return b.config }, Sessions: b.sessions, Streams: b.streams, Log: log})
	app := fiber.New(fiber.Config{DisableStartupMessage: true, Immutable: true, BodyLimit: maxWebhookBody, ReadBufferSize: 16 << 10, ErrorHandler: problemHandler(log, b.api.allowOrigin)})
	app.Server().HeaderReceived = limitBody
	app.Use(refuseEncodings)
	b.api.register(app)
	app.Get("/v1/deadline", func(c *fiber.Ctx) error {
		end, ok := c.UserContext().Deadline()
		return c.JSON(object{"bounded": ok && time.Until(end) <= callWithin})
	})
	app.Get("/v1/panic", func(*fiber.Ctx) error { panic("on purpose") })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.url = "http://" + listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- app.Listener(listener) }()
	// A connection that was dialled and never used would hold up the shutdown.
	transport := &http.Transport{DisableKeepAlives: true}
	b.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := app.ShutdownWithTimeout(20 * time.Second); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		<-served
	})
	return b
}

// lockedBuffer is where several goroutines log to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// recordedStreams keeps what the API hands over to the streams.
type recordedStreams struct {
	mu      sync.Mutex
	options []streamOptions
	of      []string
}

func (r *recordedStreams) serve(c *fiber.Ctx, of string, o streamOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of, r.options = append(r.of, of), append(r.options, o)
	return c.SendString("streamed " + of)
}

func (r *recordedStreams) serveRequestEvents(c *fiber.Ctx, p *conversations.PaymentRequest, o streamOptions) error {
	return r.serve(c, p.ID, o)
}

func (r *recordedStreams) serveMerchantEvents(c *fiber.Ctx, merchantID string, o streamOptions) error {
	return r.serve(c, merchantID, o)
}

type object = map[string]any

// apiCall is one HTTP call. body is sent as it is if it is a string, else as JSON.
type apiCall struct {
	method, path, token, host, key string
	body                           any
	header                         map[string]string
}

type apiReply struct {
	status int
	header http.Header
	raw    string
	doc    object
}

func (b *apiBench) call(a apiCall) apiReply {
	b.t.Helper()
	r, err := b.try(a)
	for try := 0; cutOff(a, err) && try < 20; try++ {
		r, err = b.try(a)
	}
	if err != nil {
		b.t.Fatalf("%s %s: %v", a.method, a.path, err)
	}
	return r
}

// cutOff tells whether a call's body is so large that it is refused unread, and
// the connection ended before its caller had seen why.
func cutOff(a apiCall, err error) bool {
	body, _ := a.body.(string)
	return len(body) > maxBody && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET))
}

func (b *apiBench) try(a apiCall) (apiReply, error) {
	var body io.Reader
	switch v := a.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(v)
	default:
		j, err := json.Marshal(v)
		if err != nil {
			return apiReply{}, err
		}
		body = bytes.NewReader(j)
	}
	req, err := http.NewRequest(a.method, b.url+a.path, body)
	if err != nil {
		return apiReply{}, err
	}
	req.Host = sharedHost
	if a.host != "" {
		req.Host = a.host
	}
	if a.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	if a.key != "" {
		req.Header.Set("Idempotency-Key", a.key)
	}
	for name, value := range a.header {
		req.Header.Set(name, value)
		if value == "" {
			req.Header.Del(name)
		}
	}
	answer, err := b.client.Do(req)
	if err != nil {
		return apiReply{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return apiReply{}, err
	}
	r := apiReply{status: answer.StatusCode, header: answer.Header, raw: string(raw)}
	if strings.Contains(answer.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(raw, &r.doc); err != nil {
			return apiReply{}, fmt.Errorf("%w in %q", err, raw)
		}
	}
	return r, nil
}

// get follows a dotted path into a document.
func (r apiReply) get(path string) any {
	var v any = r.doc
	for name := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case object:
			v = at[name]
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(at) {
				return nil
			}
			v = at[i]
		default:
			return nil
		}
	}
	return v
}

func (r apiReply) text(path string) string {
	s, _ := r.get(path).(string)
	return s
}

// fields are those that a problem names.
func (r apiReply) fields() []string {
	var names []string
	list, _ := r.get("errors").([]any)
	for _, e := range list {
		names = append(names, e.(object)["field"].(string))
	}
	slices.Sort(names)
	return names
}

// want checks the status, and that a failure is a whole problem document.
func (r apiReply) want(t *testing.T, status int) apiReply {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, want %d: %s", r.status, status, r.raw)
	}
	if status >= 400 {
		code := r.text("code")
		if r.header.Get("Content-Type") != problemType || r.get("status") != float64(status) || r.text("title") == "" || r.text("detail") == "" ||
			r.text("type") != "/docs/problems#"+code || kindOf(conversations.Code(code)).Code != conversations.Code(code) {
			t.Fatalf("this is no problem document: %s %s", r.header.Get("Content-Type"), r.raw)
		}
	}
	return r
}

// problem checks status, code and reason, and the fields that are named.
func (r apiReply) problem(t *testing.T, status int, code, reason string, fields ...string) {
	t.Helper()
	r.want(t, status)
	slices.Sort(fields)
	if r.text("code") != code || r.text("reason") != reason || !slices.Equal(r.fields(), fields) {
		t.Errorf("problem %q %q about %v, want %q %q about %v: %s", r.text("code"), r.text("reason"), r.fields(), code, reason, fields, r.raw)
	}
}

func zar(value string) object { return object{"value": value, "currency": "ZAR"} }

// orderBody is an order whose sums add up, with changes; nil takes a field away.
func orderBody(order string, changes ...object) object {
	body := object{
		"order": order,
		"line_items": []object{
			{"name": "Service", "sku": "S1", "quantity": 2, "unit_price": zar("50.00"), "total": zar("100.00")},
			{"name": "Part", "quantity": 1, "unit_price": zar("29.57"), "total": zar("29.57")},
		},
		"subtotal": zar("129.57"), "tax": zar("19.43"), "shipping": zar("5.00"), "discount": zar("5.00"), "total": zar("149.00"),
	}
	for _, c := range changes {
		for name, value := range c {
			body[name] = value
			if value == nil {
				delete(body, name)
			}
		}
	}
	return body
}

// createBodyOf is the body of a create by a server.
func createBodyOf(order string, changes ...object) object {
	return orderBody(order, append([]object{{"phone": "082 123 4567", "channel": "whatsapp"}}, changes...)...)
}

func (b *apiBench) create(order string, changes ...object) apiReply {
	b.t.Helper()
	return b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: acmeKey, body: createBodyOf(order, changes...)}).want(b.t, 201)
}

// session seals an order of acme and returns the agent's token and its id.
func (b *apiBench) session(order string, more ...object) (token, sealed string) {
	b.t.Helper()
	body := object{"agent": object{"id": "ag7", "name": "Thandi"}, "order": orderBody(order, object{"phone": "082 123 4567", "customer_name": "Lerato"})}
	for _, m := range more {
		for name, value := range m {
			body[name] = value
		}
	}
	r := b.call(apiCall{method: "POST", path: "/v1/agent-sessions", token: acmeKey, body: body}).want(b.t, 201)
	return r.text("token"), r.text("sealed_order")
}

func (b *apiBench) request(id string) *conversations.PaymentRequest {
	b.t.Helper()
	r, err := b.store.Request(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// apply commits an event on a payment request, as another part would.
func (b *apiBench) apply(r *conversations.PaymentRequest, e conversations.Event) conversations.Applied {
	b.t.Helper()
	a, err := b.store.Apply(b.t.Context(), r.ContactID, e, conversations.Once{})
	if err != nil {
		b.t.Fatalf("%s: %v", e.Kind(), err)
	}
	return a
}

// keep returns everything that the store holds, key by key.
func (b *apiBench) keep() map[string]string {
	b.t.Helper()
	ctx := context.Background()
	kept := map[string]string{}
	keys := b.redis.Scan(ctx, 0, "*"+b.prefix+"*", 1000).Iterator()
	for keys.Next(ctx) {
		dump, err := b.redis.Dump(ctx, keys.Val()).Result()
		if err != nil {
			b.t.Fatal(err)
		}
		kept[keys.Val()] = dump
	}
	if keys.Err() != nil || len(kept) == 0 {
		b.t.Fatalf("reading the store: %v, %d keys", keys.Err(), len(kept))
	}
	return kept
}

// unchanged tells that a call left everything in the store as it was.
func (b *apiBench) unchanged(before map[string]string) {
	b.t.Helper()
	after := b.keep()
	for key, dump := range after {
		if before[key] != dump {
			b.t.Errorf("%s was changed", key)
		}
	}
	for key := range before {
		if _, ok := after[key]; !ok {
			b.t.Errorf("%s is gone", key)
		}
	}
}

func TestCreateAndRead(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	r := b.create("1042", object{"note": "call first"})
	if r.header.Get("Location") != "/v1/payment-requests/"+r.text("id") {
		t.Errorf("Location %q", r.header.Get("Location"))
	}
	for path, want := range map[string]any{
		"order": "1042", "merchant.id": "acme", "merchant.name": "Acme Energy", "environment": "sandbox", "lifecycle": "open",
		"phone": "+27821234567", "phone_national": "082 123 4567", "channel": "whatsapp", "locale": "en", "note": "call first",
		"superseded": false, "late": false, "total.value": "149.00", "total.currency": "ZAR", "line_items.0.sku": "S1", "line_items.0.quantity": 2.0,
		"line_items.1.total.value": "29.57", "totals.authorized.value": "0.00", "totals.refundable.value": "0.00", "shipping.value": "5.00",
		"messages.0.purpose": "payment", "messages.0.status": "queued", "messages.0.channel": "whatsapp", "last_event": 1.0,
		"link": "https://pay.example/p/" + b.request(r.text("id")).LinkCode, "receipt_link": nil, "pay_by": nil, "reason": nil,
	} {
		if got := r.get(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if got := fmt.Sprint(r.get("actions")); got != "[cancel resend extend]" {
		t.Errorf("actions %s", got)
	}
	if got := fmt.Sprint(r.get("milestones"), r.get("attempts"), r.get("operations")); got != "map[] [] []" {
		t.Errorf("milestones, attempts, operations: %s", got)
	}
	again := b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + r.text("id"), token: acmeKey}).want(t, 200)
	if again.raw != r.raw {
		t.Errorf("read %s, want what was created: %s", again.raw, r.raw)
	}
}
