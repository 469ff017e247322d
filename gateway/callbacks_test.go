package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"paythread/conversations"
	"paythread/conversations/redistest"
)

// callbackBench is a store with merchants, and processes that send its
// callbacks.
type callbackBench struct {
	t      *testing.T
	store  *conversations.Store
	config *Config
	log    *lockedBuffer
	o      conversations.Options
	queue  *conversations.Callbacks
}

func newCallbackBench(t *testing.T, change ...func(*Config)) *callbackBench {
	t.Helper()
	b := &callbackBench{t: t, config: benchConfig(), log: &lockedBuffer{}}
	b.config.Callbacks = CallbacksConfig{
		AllowPrivate: true, Timeout: 5 * time.Second, Concurrency: 4, DisableAfter: time.Hour, Keep: time.Hour,
		Timetable: append([]time.Duration{0}, slices.Repeat([]time.Duration{100 * time.Millisecond}, 30)...),
	}
	for _, c := range change {
		c(b.config)
	}
	b.o = conversations.Options{Addresses: []string{redistest.Shared(t).Addr}, Prefix: fmt.Sprintf("callbacks:%s:%d", t.Name(), time.Now().UnixNano()), Partitions: 2}
	for _, m := range b.config.Merchants {
		b.o.Merchants = append(b.o.Merchants, m.Domain())
	}
	b.store = b.connect()
	b.queue = conversations.NewCallbacks(b.store, b.config.Callbacks.options())
	return b
}

func (b *callbackBench) connect() *conversations.Store {
	b.t.Helper()
	s, err := conversations.Connect(b.t.Context(), b.o)
	b.must(err)
	b.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (b *callbackBench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// process sends callbacks until the returned function is called.
func (b *callbackBench) process(change ...func(*callbacks)) (stop func()) {
	b.t.Helper()
	store := b.connect()
	c := newCallbacks(store, conversations.NewCallbacks(store, b.config.Callbacks.options()), always(b.config),
		callbackClient(b.config.Callbacks.AllowPrivate, nil), newCallbackMetrics(prometheus.NewRegistry()), slog.New(slog.NewTextHandler(b.log, nil)))
	for _, f := range change {
		f(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }() // it only ends with ctx
	stop = sync.OnceFunc(func() { cancel(); <-done; c.client.CloseIdleConnections() })
	b.t.Cleanup(stop)
	return stop
}

func (b *callbackBench) await(what string, is func() bool) {
	b.t.Helper()
	for limit := time.Now().Add(longestWait); !is(); {
		if time.Now().After(limit) {
			b.t.Fatalf("not within %v: %s\n%s", longestWait, what, b.log)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-b.t.Context().Done():
			b.t.Fatalf("the test ended before: %s", what)
		}
	}
}

func (b *callbackBench) endpoint(url string, events ...string) conversations.CallbackEndpoint {
	b.t.Helper()
	e, err := b.queue.Create(b.t.Context(), "acme", conversations.CallbackInput{URL: &url, Events: &events}, conversations.Once{})
	b.must(err)
	return e
}

// ask makes a payment request: the first event.
func (b *callbackBench) ask(order int) *conversations.PaymentRequest {
	b.t.Helper()
	zar := func(minor int64) conversations.Money { return conversations.Money{Minor: minor, Currency: "ZAR"} }
	r, err := b.store.Create(b.t.Context(), conversations.CreateRequest{
		MerchantID: "acme", Phone: fmt.Sprintf("082%07d", order), Channel: conversations.SMS,
		Order: conversations.Order{Reference: fmt.Sprint(order), Subtotal: zar(12957), Tax: zar(1943), Shipping: zar(0), Discount: zar(0), Total: zar(14900)},
	})
	b.must(err)
	return r
}

func (b *callbackBench) do(r *conversations.PaymentRequest, e conversations.Event) *conversations.PaymentRequest {
	b.t.Helper()
	a, err := b.store.Apply(b.t.Context(), r.ContactID, e, conversations.Once{})
	b.must(err)
	if a.Refused != nil {
		b.t.Fatalf("%s is refused: %v", e.Kind(), a.Refused)
	}
	return a.Request
}

// listeningSystem is a merchant's system: it checks signatures and keeps what came.
type listeningSystem struct {
	t      *testing.T
	url    string
	secret func() string
	answer func(w http.ResponseWriter, id string, times int)

	mu     sync.Mutex
	bodies map[string][]string // by webhook-id, in the order of arrival
}

func newListeningSystem(t *testing.T, answer func(w http.ResponseWriter, id string, times int)) *listeningSystem {
	t.Helper()
	r := &listeningSystem{t: t, answer: answer, bodies: map[string][]string{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *listeningSystem) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" {
		r.t.Errorf("a callback is %s %q, %v", req.Method, req.Header.Get("Content-Type"), err)
	}
	id := req.Header.Get("webhook-id")
	r.mu.Lock()
	r.bodies[id] = append(r.bodies[id], string(body))
	times := len(r.bodies[id])
	r.mu.Unlock()
	if r.secret != nil {
		again := http.Header{}
		var stamp int64
		if _, err := fmt.Sscan(req.Header.Get("webhook-timestamp"), &stamp); err != nil || time.Since(time.Unix(stamp, 0)).Abs() > time.Minute {
			r.t.Errorf("the timestamp is %q", req.Header.Get("webhook-timestamp"))
		}
		if err := signCallback(again, []string{r.secret()}, id, time.Unix(stamp, 0), body); err != nil || again.Get("webhook-signature") != req.Header.Get("webhook-signature") {
			r.t.Errorf("the signature is %q, %v", req.Header.Get("webhook-signature"), err)
		}
	}
	if r.answer != nil {
		r.answer(w, id, times)
	}
}

func (r *listeningSystem) received() map[string][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := map[string][]string{}
	for id, bodies := range r.bodies {
		got[id] = slices.Clone(bodies)
	}
	return got
}

// data returns the data of what came first under an id.
func (r *listeningSystem) data(id string) map[string]any {
	r.t.Helper()
	bodies := r.received()[id]
	if len(bodies) == 0 {
		r.t.Fatalf("%s has not come", id)
	}
	var payload struct {
		Data map[string]any
	}
	if err := json.Unmarshal([]byte(bodies[0]), &payload); err != nil {
		r.t.Fatalf("%s: %v", bodies[0], err)
	}
	return payload.Data
}

// TestCallbacksAllArrive: two hundred events and an endpoint that refuses every
// other try: all arrive, as the same each time, from two processes.
func TestCallbacksAllArrive(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t)
	var secret atomic.Value
	r := newListeningSystem(t, func(w http.ResponseWriter, _ string, times int) {
		switch times {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			panic(http.ErrAbortHandler) // the connection breaks
		}
	})
	r.secret = func() string { return secret.Load().(string) }
	secret.Store(b.endpoint(r.url).Secrets[0].Value)
	b.process()
	b.process()
	want := map[string]bool{}
	for i := range 100 {
		pr := b.ask(i + 1)
		b.do(pr, conversations.LinkOpened{RequestID: pr.ID})
		want["evt_"+pr.ID+"_1"], want["evt_"+pr.ID+"_2"] = true, true
	}
	b.await("all has arrived", func() bool {
		got := r.received()
		for id := range want {
			if len(got[id]) < 3 {
				return false
			}
		}
		return true
	})
	for id, bodies := range r.received() {
		if !want[id] {
			t.Errorf("nobody made %s: %s", id, bodies[0])
		}
		for _, body := range bodies[1:] {
			if withoutNow(t, body) != withoutNow(t, bodies[0]) {
				t.Errorf("%s came with another content:\n%s\n%s", id, bodies[0], body)
			}
		}
	}
	b.await("all is recorded", func() bool {
		depth, err := b.queue.Depth(t.Context(), []string{"acme"})
		return err == nil && depth.Waiting == 0
	})
}

// withoutNow takes the one part away that is as of the sending.
func withoutNow(t *testing.T, body string) string {
	t.Helper()
	var payload map[string]any
	if err := json.Unmarshal([]byte(body), &payload); err != nil {
		t.Fatal(err)
	}
	if data, ok := payload["data"].(map[string]any); ok {
		delete(data, "now")
	}
	rest, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	return string(rest)
}

// TestCallbacksOnceInCalm: two processes, nothing goes wrong, nothing is sent
// twice; a slow endpoint holds up no other.
func TestCallbacksOnceInCalm(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t)
	let := make(chan struct{})
	slow := newListeningSystem(t, func(http.ResponseWriter, string, int) { <-let })
	quick := newListeningSystem(t, nil)
	b.endpoint(slow.url)
	b.endpoint(quick.url)
	b.process()
	b.process()
	for i := range 40 {
		b.ask(i + 1)
	}
	b.await("the quick one has all", func() bool { return len(quick.received()) == 40 })
	if n := len(slow.received()); n > 2*b.config.Callbacks.Concurrency {
		t.Errorf("%d deliveries to one endpoint are under way, want at most %d in each process", n, b.config.Callbacks.Concurrency)
	}
	close(let)
	b.await("the slow one has all", func() bool { return len(slow.received()) == 40 })
	b.await("all is recorded", func() bool {
		depth, err := b.queue.Depth(t.Context(), []string{"acme"})
		return err == nil && depth.Waiting == 0
	})
	for _, r := range []*listeningSystem{slow, quick} {
		for id, bodies := range r.received() {
			if len(bodies) != 1 {
				t.Errorf("%s came %d times", id, len(bodies))
			}
		}
	}
}

// TestCallbackEndpointMoves: an endpoint that moves while much waits for it gets
// the rest at its new place.
func TestCallbackEndpointMoves(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t)
	let := make(chan struct{})
	before := newListeningSystem(t, func(http.ResponseWriter, string, int) { <-let })
	after := newListeningSystem(t, nil)
	e := b.endpoint(before.url)
	for i := range 20 {
		b.ask(i + 1)
	}
	b.process()
	b.await("the old place is busy", func() bool { return len(before.received()) == b.config.Callbacks.Concurrency })
	_, err := b.queue.Update(t.Context(), "acme", e.ID, conversations.CallbackInput{URL: &after.url}, conversations.Once{})
	b.must(err)
	close(let)
	b.await("the new place has the rest", func() bool { return len(after.received()) >= 20-2*b.config.Callbacks.Concurrency })
	b.await("all is recorded", func() bool {
		depth, err := b.queue.Depth(t.Context(), []string{"acme"})
		return err == nil && depth.Waiting == 0
	})
	if got := len(before.received()) + len(after.received()); got != 20 {
		t.Errorf("%d came, want each of 20 once", got)
	}
}

// TestCallbackContent: what an event tells of a payment, and that later changes
// do not change it.
func TestCallbackContent(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t)
	r := newListeningSystem(t, nil)
	b.endpoint(r.url)
	pr := b.ask(7)
	pr = b.do(pr, conversations.LinkOpened{RequestID: pr.ID})
	pr = b.do(pr, conversations.AttemptStarted{RequestID: pr.ID, Platform: "unified_checkout", TokenExpiresAt: time.Now().Add(time.Minute)})
	started := b.store.Now()
	b.await("the clock has moved on", func() bool { return b.store.Now().Sub(started) > time.Millisecond })
	pr = b.do(pr, conversations.AttemptAnswered{RequestID: pr.ID, Attempt: 1, Result: conversations.Result{
		Outcome: conversations.OutcomeCaptured, PaymentID: "7000", ReconciliationID: "RECON1", Amount: pr.Order.Total,
	}})
	b.process()
	events, err := b.store.Events(t.Context(), pr.ID, 0, 50)
	b.must(err)
	byType := map[string]string{}
	for _, e := range events {
		byType[e.Type] = fmt.Sprintf("evt_%s_%d", pr.ID, e.Seq)
	}
	b.await("all has come", func() bool { return len(r.received()) >= len(events) })
	paid := r.data(byType["paid"])
	for field, want := range map[string]any{
		"merchant_id": "acme", "merchant_name": "Acme Energy", "environment": "sandbox", "payment_request_id": pr.ID, "order": "7", "status": "paid",
		"currency": "ZAR", "total": "149.00", "subtotal": "129.57", "tax": "19.43", "shipping": "0.00", "discount": "0.00", "channel": "sms", "phone_last4": "0007",
		"attempt": 1.0, "reference": pr.ID + "-1", "transaction_type": "sale", "reconciliation_number": "RECON1",
		"receipt_link": "https://" + sharedHost + "/r/" + pr.ReceiptCode,
	} {
		if paid[field] != want {
			t.Errorf("%s is %v, want %v", field, paid[field], want)
		}
	}
	if now, ok := paid["now"].(map[string]any); !ok || now["status"] != "paid" || now["captured"] != "149.00" || now["refunded"] != "0.00" {
		t.Errorf("now is %v", paid["now"])
	}
	begun := r.data(byType["attempt_started"])
	if begun["reconciliation_number"] != nil || begun["receipt_link"] != nil || begun["transaction_type"] != "sale" || begun["status"] != "processing" {
		t.Errorf("an event before the money tells what came later: %v", begun)
	}
	created := r.data(byType["created"])
	if created["attempt"] != nil || created["reference"] != nil || created["transaction_type"] != nil || created["status"] != "open" {
		t.Errorf("the first event tells what came later: %v", created)
	}
	for id, bodies := range r.received() {
		if strings.Contains(bodies[0], pr.Phone[1:]) {
			t.Errorf("%s holds a whole phone number", id)
		}
	}
}

// TestCallbackOperationContent: what an event tells of an operation.
func TestCallbackOperationContent(t *testing.T) {
	t.Parallel()
	at := time.Now().UTC()
	earlier := at.Add(-time.Minute)
	zar := func(minor int64) conversations.Money { return conversations.Money{Minor: minor, Currency: "ZAR"} }
	r := &conversations.PaymentRequest{
		ID: "pr_0x", MerchantID: "acme", Phone: "+27821234567", ReceiptCode: "0code", PaidBy: 2, Extra: map[string]string{"pos": "7"},
		Order: conversations.Order{Total: zar(14900), Subtotal: zar(14900), Tax: zar(0), Shipping: zar(0), Discount: zar(0)}, Receipt: &conversations.Receipt{IssuedAt: earlier},
		Attempts:   []conversations.Attempt{{N: 2, Code: "pr_0x-2", SettledAt: &earlier, Result: conversations.Result{ReconciliationID: "SALE"}}},
		Operations: []conversations.Operation{{ID: "op_1", SettledAt: &at, ReconciliationID: "REFUND"}},
	}
	read := func(e conversations.LoggedEvent) map[string]any {
		t.Helper()
		body, err := requestPayload("payment_request."+e.Type, e, r, benchConfig().Merchants[0])
		if err != nil {
			t.Fatal(err)
		}
		var payload struct {
			Type string
			Data map[string]any
		}
		if err := json.Unmarshal(body, &payload); err != nil || payload.Type != "payment_request.refunded" {
			t.Fatalf("%s: %v", body, err)
		}
		return payload.Data
	}
	op := conversations.LoggedOperation{ID: "op_1", Kind: conversations.OperationRefund, Amount: zar(5000), State: conversations.OperationSucceeded, Reason: "asked"}
	d := read(conversations.LoggedEvent{Seq: 9, Type: "refunded", At: at, RequestID: r.ID, Lifecycle: conversations.PartiallyRefunded, Operation: &op})
	want := map[string]any{"id": "op_1", "kind": "refund", "amount": "50.00", "state": "succeeded", "reason": "asked"}
	if got, _ := d["operation"].(map[string]any); !maps.Equal(got, want) {
		t.Errorf("operation %v, want %v", got, want)
	}
	if d["transaction_type"] != "refund" || d["reconciliation_number"] != "REFUND" || d["reference"] != "pr_0x-2" || !reflect.DeepEqual(d["extra"], map[string]any{"pos": "7"}) {
		t.Errorf("data %v", d)
	}
	// Asked for, before it was settled.
	if d := read(conversations.LoggedEvent{Seq: 8, Type: "refunded", At: at.Add(-time.Second), RequestID: r.ID, Operation: &op}); d["reconciliation_number"] != "SALE" {
		t.Errorf("before it is settled the reconciliation number is %v", d["reconciliation_number"])
	}
}

// TestCallbackEndpointFalls: 410 switches an endpoint off, loudly; the others
// are told.
func TestCallbackEndpointFalls(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t)
	gone := newListeningSystem(t, func(w http.ResponseWriter, _ string, _ int) { w.WriteHeader(http.StatusGone) })
	other := newListeningSystem(t, nil)
	e := b.endpoint(gone.url + "/secret-path?token=secret-query")
	b.endpoint(other.url, callbackDisabled)
	b.process()
	b.process()
	b.ask(1)
	b.await("the other endpoint is told", func() bool { return len(other.received()) == 1 })
	off, err := b.queue.Endpoint(t.Context(), "acme", e.ID)
	b.must(err)
	if off.State != conversations.CallbackDisabled || off.Reason != conversations.CallbackGone {
		t.Errorf("the endpoint is %+v", off)
	}
	d := other.data(fmt.Sprintf("evt_%s_disabled_%d", e.ID, off.Since.UnixMilli()))
	if d["id"] != e.ID || d["state"] != "disabled" || d["reason"] != "gone" || d["host"] != strings.TrimPrefix(gone.url, "http://") {
		t.Errorf("told %v", d)
	}
	b.await("it is logged", func() bool { return strings.Contains(b.log.String(), "was switched off") })
	if text := b.log.String(); strings.Contains(text, "secret") || strings.Contains(text, "whsec_") {
		t.Errorf("the log holds a secret: %s", text)
	}
}

// TestCallbackAnswers: what each answer means.
func TestCallbackAnswers(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		status int
		after  string
		want   conversations.CallbackResult
	}{
		{status: 200, want: conversations.CallbackResult{Delivered: true}},
		{status: 204, want: conversations.CallbackResult{Delivered: true}},
		{status: 301, want: conversations.CallbackResult{Error: "redirect"}},
		{status: 304, want: conversations.CallbackResult{Error: "redirect"}},
		{status: 400, want: conversations.CallbackResult{Error: "status"}},
		{status: 410, want: conversations.CallbackResult{Error: "status", Gone: true}},
		{status: 429, after: "120", want: conversations.CallbackResult{Error: "status", RetryAfter: 2 * time.Minute}},
		{status: 503, after: "Sun, 22 Nov 2026 13:00:00 GMT", want: conversations.CallbackResult{Error: "status", RetryAfter: time.Hour}},
		{status: 503, after: "Sun, 22 Nov 2026 11:00:00 GMT", want: conversations.CallbackResult{Error: "status"}},
		{status: 503, after: "soon", want: conversations.CallbackResult{Error: "status"}},
		{status: 503, after: "-5", want: conversations.CallbackResult{Error: "status"}},
		{status: 503, after: "99999999", want: conversations.CallbackResult{Error: "status", RetryAfter: (1 << 20) * time.Second}},
		{status: 500, after: "120", want: conversations.CallbackResult{Error: "status"}},
	} {
		tt.want.Status = tt.status
		if got := answered(&http.Response{StatusCode: tt.status, Header: http.Header{"Retry-After": {tt.after}}}, now); got != tt.want {
			t.Errorf("%d %q: %+v, want %+v", tt.status, tt.after, got, tt.want)
		}
	}
}

// TestPublicAddress: what a callback may connect to.
func TestPublicAddress(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"93.184.216.34": true, "1.1.1.1": true, "172.32.0.1": true, "100.128.0.1": true, "192.169.0.1": true, "223.255.255.254": true,
		"2606:4700::1111": true, "2a00:1450:4001::1": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false, "100.127.255.255": false, "127.0.0.1": false, "127.9.9.9": false,
		"169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "192.0.0.1": false, "192.0.2.1": false, "192.88.99.1": false,
		"192.168.1.1": false, "198.18.0.1": false, "198.19.255.255": false, "198.51.100.1": false, "203.0.113.1": false, "224.0.0.1": false,
		"239.255.255.255": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::ffff:169.254.169.254": false, "::127.0.0.1": false,
		"::ffff:93.184.216.34": true, "64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b:1::1": false, "100::1": false,
		"2001::1": false, "2001:db8::1": false, "2002:7f00:1::1": false, "2002:a9fe:a9fe::1": false, "3fff::1": false,
		"fc00::1": false, "fd12:3456::1": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "ff02::1": false, "5f00::1": false,
	} {
		if got := publicAddress(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}

func TestCallbackURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string][2]bool{ // without and with allow_private
		"https://erp.example.com/paythread?x=1":             {true, true},
		"https://erp.example.com:8443":                      {true, true},
		"http://erp.example.com/":                           {false, true},
		"https://localhost/":                                {false, true},
		"https://127.0.0.1/":                                {false, true},
		"https://[::1]/":                                    {false, true},
		"https://[::ffff:10.0.0.1]/":                        {false, true},
		"https://169.254.169.254/latest/":                   {false, true},
		"https://user:pass@erp.example.com/":                {false, false},
		"https://erp.example.com/#part":                     {false, false},
		"ftp://erp.example.com/":                            {false, false},
		"https://erp.example.com:0/":                        {false, false},
		"https://erp.example.com:/":                         {false, false},
		"https://erp.example.com:65536/":                    {false, false},
		"https://erp.example.com:65535/":                    {true, true},
		"https://b%C3%BCcher.example/":                      {false, false},
		"https://%E2%91%A0.%E2%91%A0.%E2%91%A0.%E2%91%A0/":  {false, false},
		"https:///path":                                     {false, false},
		"erp.example.com":                                   {false, false},
		"https://erp.example.com/a b":                       {false, false},
		"https://erp.example.com/é":                         {false, false},
		"":                                                  {false, false},
		"https://a.example/" + strings.Repeat("a", mostURL): {false, false},
	} {
		for i, allow := range []bool{false, true} {
			if err := checkCallbackURL(url, allow); (err == nil) != want[i] {
				t.Errorf("%.60s with allow_private %v: %v", url, allow, err)
			}
		}
	}
}

// liar is a DNS server that gives every name the address that it is told.
func liar(t *testing.T, address func() [4]byte) *net.Resolver {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return // closed
			}
			end := 12 + bytes.IndexByte(buffer[12:n], 0) + 5 // header, name, type and class
			if n < 17 || end > n {
				continue
			}
			reply := slices.Clone(buffer[:end])
			// An answer to one question, with nothing beside it.
			copy(reply[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
			if kind := reply[end-3]; kind == 1 { // A: the name above, for a minute
				a := address()
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, a[0], a[1], a[2], a[3])
			}
			_, _ = socket.WriteTo(reply, from) // the asker asks again
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", socket.LocalAddr().String())
	}}
}

// TestCallbacksReachNothingPrivate: neither a name that leads inside, nor one
// that does so only the second time, nor a redirect.
func TestCallbacksReachNothingPrivate(t *testing.T) {
	t.Parallel()
	b := newCallbackBench(t, func(c *Config) { c.Callbacks.AllowPrivate = false })
	inside := newListeningSystem(t, nil)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(inside.url, "http://"))
	b.must(err)
	try := func(client *http.Client, config CallbacksConfig, url string) conversations.CallbackResult {
		t.Helper()
		own := *b.config
		own.Callbacks = config
		c := newCallbacks(b.store, b.queue, always(&own), client, newCallbackMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
		defer client.CloseIdleConnections()
		return c.try(t.Context(), conversations.CallbackEndpoint{URL: url}, []string{exampleCallbackSecret}, "evt_1", []byte("{}"))
	}
	var asked atomic.Int64
	private := func() [4]byte { asked.Add(1); return [4]byte{127, 0, 0, 1} }
	if got := try(callbackClient(false, liar(t, private)), b.config.Callbacks, "https://erp.example.com:"+port+"/"); got.Error != callbackRefused || got.Status != 0 {
		t.Errorf("a name that leads inside: %+v", got)
	}
	if asked.Load() == 0 {
		t.Error("the name was not looked up: this test does not see what it should")
	}
	if got := try(callbackClient(false, nil), b.config.Callbacks, "https://[::ffff:127.0.0.1]:"+port+"/"); got.Error != callbackRefused {
		t.Errorf("loopback in disguise: %+v", got)
	}
	if got := try(callbackClient(false, nil), b.config.Callbacks, inside.url); got.Error != callbackRefused {
		t.Errorf("http: %+v", got)
	}
	// Where private addresses are allowed the same name is reached: what refused
	// it above is the address.
	allowed := b.config.Callbacks
	allowed.AllowPrivate = true
	if got := try(callbackClient(true, liar(t, private)), allowed, "http://erp.example.com:"+port+"/"); !got.Delivered {
		t.Errorf("with allow_private: %+v", got)
	}
	before := len(inside.received()["evt_1"])
	for _, status := range []int{301, 302, 303, 307, 308} {
		redirects := newListeningSystem(t, func(w http.ResponseWriter, _ string, _ int) {
			w.Header().Set("Location", inside.url)
			w.WriteHeader(status)
		})
		if got := try(callbackClient(true, nil), allowed, redirects.url); got.Error != callbackRedirect || got.Status != status || got.Delivered {
			t.Errorf("a redirect: %+v", got)
		}
	}
	if got := len(inside.received()["evt_1"]); got != before || before != 1 {
		t.Errorf("a redirect was followed: %d calls inside, %d before", got, before)
	}
	if transport := callbackClient(false, nil).Transport.(*http.Transport); transport.Proxy != nil {
		t.Error("callbacks take a proxy from the environment")
	}
}

const exampleCallbackSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" // of the specification

// TestCallbackErrors: each way to get no answer has its word.
func TestCallbackErrors(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	stuck := newListeningSystem(t, nil)
	let := make(chan struct{})
	stuck.answer = func(http.ResponseWriter, string, int) { <-let }
	t.Cleanup(func() { close(let) })
	client := callbackClient(true, nil)
	t.Cleanup(client.CloseIdleConnections)
	for url, want := range map[string]string{
		secure.URL: callbackTLS, strings.Replace(closed.URL, "http:", "https:", 1): callbackNoAnswer, closed.URL: callbackNoAnswer,
		stuck.url: callbackTimeout, "http://nobody.invalid/": callbackNoHost,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if url == stuck.url {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close() // it should not be there
			t.Errorf("%s answered %s", url, resp.Status)
		} else if got := callbackError(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
		cancel()
	}
}

// documentedBlock returns the block of a language in docs/callbacks.md.
func documentedBlock(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "callbacks.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```"+language+"\n")
	block, _, _ := strings.Cut(rest, "```")
	if !ok {
		t.Fatalf("docs/callbacks.md has no block of %s", language)
	}
	return block
}

// documentedReceiver runs a receiver as docs/callbacks.md has it.
func documentedReceiver(t *testing.T, secret, language string) (url string, lines <-chan string) {
	t.Helper()
	const install = "install what the tests need with scripts/install-test-tools"
	dir := t.TempDir()
	var cmd *exec.Cmd
	switch language {
	case "js":
		modules, err := filepath.Abs(filepath.Join("..", "scripts", "testclients", "node_modules"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(modules, "standardwebhooks", "package.json")); errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the library of Standard Webhooks for Node.js is missing: %s", install)
		}
		node, err := exec.LookPath("node")
		if err != nil {
			t.Fatalf("Node.js is missing: %s", install)
		}
		file := filepath.Join(dir, "receiver.js")
		if err := os.WriteFile(file, []byte(documentedBlock(t, language)), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(node, file)
		cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	case "go":
		source, binary := filepath.Join(dir, "receiver.go"), filepath.Join(dir, "receiver")
		if err := os.WriteFile(source, []byte(documentedBlock(t, language)), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source).CombinedOutput(); err != nil {
			t.Fatalf("the receiver of docs/callbacks.md does not build: %v\n%s", err, out)
		}
		cmd = exec.Command(binary)
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "CALLBACK_SECRET="+secret, "PORT=0")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			said <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails only if it has ended already
		<-ended
		_ = cmd.Wait() // it was killed
	})
	select {
	case line := <-said:
		port, ok := strings.CutPrefix(line, "listening ")
		if !ok {
			t.Fatalf("the receiver says %q", line)
		}
		return "http://127.0.0.1:" + port, said
	case <-ended:
		t.Fatalf("the receiver ended: %s", complaint.String())
	case <-time.After(longestWait):
		t.Fatal("the receiver does not listen")
	}
	return "", nil
}

// TestCallbacksAgainstTheLibrary: the receivers of docs/callbacks.md, one of them
// with the official library of Standard Webhooks, take what we send, also while
// a secret is being replaced, and refuse what is forged, altered or old.
func TestCallbacksAgainstTheLibrary(t *testing.T) {
	t.Parallel()
	for _, language := range []string{"js", "go"} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			b := newCallbackBench(t)
			e := b.endpoint("http://127.0.0.1:1/")
			secret := e.Secrets[0].Value
			url, lines := documentedReceiver(t, secret, language)
			_, err := b.queue.Update(t.Context(), "acme", e.ID, conversations.CallbackInput{URL: &url}, conversations.Once{})
			b.must(err)
			b.process()
			pr := b.ask(1)
			next := func() string {
				t.Helper()
				select {
				case line := <-lines:
					return line
				case <-time.After(longestWait):
					t.Fatalf("the receiver took nothing\n%s", b.log)
					return ""
				}
			}
			if got, want := next(), "new evt_"+pr.ID+"_1 payment_request.created 1 open"; got != want {
				t.Errorf("the receiver took %q, want %q", got, want)
			}
			// Two secrets sign, and the receiver knows the old one still.
			_, _, err = b.queue.RotateSecret(t.Context(), "acme", e.ID, time.Hour, conversations.Once{})
			b.must(err)
			b.do(pr, conversations.LinkOpened{RequestID: pr.ID})
			if got, want := next(), "new evt_"+pr.ID+"_2 payment_request.opened 1 open"; got != want {
				t.Errorf("while the secret is replaced the receiver took %q, want %q", got, want)
			}
			b.must(b.queue.Redeliver(t.Context(), "acme", e.ID, "evt_"+pr.ID+"_1", conversations.Once{}))
			b.await("it is delivered again", func() bool {
				all, _, err := b.queue.Deliveries(t.Context(), "acme", e.ID, conversations.DeliveryDone, "", 10)
				return err == nil && slices.ContainsFunc(all, func(d conversations.CallbackDelivery) bool { return d.Tries == 2 })
			})

			body := []byte(`{"type":"payment_request.paid","data":{"order":"1","status":"paid"}}`)
			post := func(body []byte, change func(http.Header)) int {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
				b.must(err)
				change(req.Header)
				resp, err := http.DefaultClient.Do(req)
				b.must(err)
				_ = resp.Body.Close() // the status says it all
				return resp.StatusCode
			}
			sign := func(h http.Header, secret string, at time.Time) {
				b.must(signCallback(h, []string{secret}, "evt_own", at, []byte(`{"type":"payment_request.paid","data":{"order":"1","status":"paid"}}`)))
			}
			for name, try := range map[string]struct {
				body   []byte
				change func(http.Header)
				want   int
			}{
				"ours":            {body, func(h http.Header) { sign(h, secret, time.Now()) }, 204},
				"forged":          {body, func(h http.Header) { sign(h, exampleCallbackSecret, time.Now()) }, 401},
				"old":             {body, func(h http.Header) { sign(h, secret, time.Now().Add(-10*time.Minute)) }, 401},
				"from the future": {body, func(h http.Header) { sign(h, secret, time.Now().Add(10*time.Minute)) }, 401},
				"altered":         {bytes.Replace(body, []byte("paid"), []byte("open"), 1), func(h http.Header) { sign(h, secret, time.Now()) }, 401},
				"another id":      {body, func(h http.Header) { sign(h, secret, time.Now()); h.Set("webhook-id", "evt_other") }, 401},
				"made newer": {body, func(h http.Header) {
					sign(h, secret, time.Now().Add(-10*time.Minute))
					h.Set("webhook-timestamp", fmt.Sprint(time.Now().Unix()))
				}, 401},
				"without signature": {body, func(h http.Header) { sign(h, secret, time.Now()); h.Del("webhook-signature") }, 401},
				"nothing":           {body, func(http.Header) {}, 401},
			} {
				if got := post(try.body, try.change); got != try.want {
					t.Errorf("%s: the receiver answers %d, want %d", name, got, try.want)
				}
			}
			if got := next(); got != "new evt_own payment_request.paid 1 paid" {
				t.Errorf("the receiver took %q: what was redelivered is not new", got)
			}
			if len(lines) > 0 {
				t.Errorf("the receiver took more: %q", <-lines)
			}
		})
	}
}

// TestSignCallback holds the signature against the example of the specification's
// libraries.
func TestSignCallback(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	err := signCallback(h, []string{exampleCallbackSecret}, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if got, want := h.Get("webhook-signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; err != nil || got != want {
		t.Errorf("signature %q, %v, want %q", got, err, want)
	}
	if err := signCallback(h, nil, "evt", time.Now(), nil); err == nil {
		t.Error("signed without a secret")
	}
	for _, wrong := range []string{"", "whsec_", "whsec_!!!", strings.TrimPrefix(exampleCallbackSecret, "whsec_"), "whsec_c2hvcnQ="} {
		if _, err := parseCallbackSecret(wrong); err == nil {
			t.Errorf("%q passes for a secret", wrong)
		}
	}
}

// TestCallbackSettings: every setting of a merchant is looked at, under the key
// that it has in the configuration, and telling that one changed tells no value.
func TestCallbackSettings(t *testing.T) {
	t.Parallel()
	var keys []string
	for _, f := range new(MerchantConfig).section().fields {
		keys = append(keys, f.key)
	}
	b := newCallbackBench(t)
	m := b.config.Merchants[0]
	m.Callbacks = []*CallbackConfig{{ID: "erp", URL: "https://erp.example.com/", Secret: exampleCallbackSecret}}
	for name := range merchantSettings(m) {
		if top, _, _ := strings.Cut(name, "."); !slices.Contains(keys, top) {
			t.Errorf("the setting %s is no key of the configuration", name)
		}
	}
	r := newListeningSystem(t, nil)
	b.endpoint(r.url)
	b.process(func(c *callbacks) { b.must(c.configure(t.Context())) })() // the first start
	m.Callbacks[0].Secret += "x"
	m.APIKeys[0].Secret = "another-secret-value"
	m.Platform.Settings = Settings{"shared_secret": "new-secret-value"}
	m.TimeToPay += time.Second
	b.process()
	b.process()
	b.await("it is told", func() bool { return len(r.received()) > 0 })
	b.await("all is recorded", func() bool {
		depth, err := b.queue.Depth(t.Context(), []string{"acme"})
		return err == nil && depth.Waiting == 0
	})
	got := r.received()
	if len(got) != 1 {
		t.Errorf("told %d times: %v", len(got), got)
	}
	for id, bodies := range got {
		d := r.data(id)
		if want := []any{"api_keys.oms", "callbacks.erp", "platform", "time_to_pay"}; !reflect.DeepEqual(d["settings"], want) {
			t.Errorf("changed are %v, want %v", d["settings"], want)
		}
		if strings.Contains(bodies[0], "secret-value") {
			t.Errorf("a value is told: %s", bodies[0])
		}
	}
	before := merchantSettings(m)
	for i := range reflect.TypeFor[MerchantConfig]().NumField() {
		changed := *m
		v := reflect.ValueOf(&changed).Elem().Field(i)
		switch v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int, reflect.Int64:
			v.SetInt(v.Int() + 1)
		default:
			continue
		}
		if maps.Equal(before, merchantSettings(&changed)) {
			t.Errorf("a change of %s is not seen", reflect.TypeFor[MerchantConfig]().Field(i).Name)
		}
	}
}

// TestCallbacksOfTheConfiguration: its endpoints get events, signed with both
// secrets, and none of them is in the store.
func TestCallbacksOfTheConfiguration(t *testing.T) {
	t.Parallel()
	r := newListeningSystem(t, nil)
	older := "whsec_" + strings.Repeat("QUJD", 8)
	b := newCallbackBench(t, func(c *Config) {
		c.Merchants[0].Callbacks = []*CallbackConfig{{ID: "erp", URL: r.url, Secret: exampleCallbackSecret, SecretPrevious: Secret(older), Events: []string{"payment_request.*"}}}
	})
	b.process()
	b.await("the endpoint is there", func() bool { _, err := b.queue.Endpoint(t.Context(), "acme", "erp"); return err == nil })
	// A process that was told of another place leaves this one alone.
	other := *b
	other.config = benchConfig()
	other.config.Callbacks = b.config.Callbacks
	c := newCallbacks(b.store, b.queue, always(other.config), nil, nil, nil)
	e, err := b.queue.Endpoint(t.Context(), "acme", "erp")
	b.must(err)
	if secrets, ours := c.secretsOf(e); ours {
		t.Errorf("another process signs with %d secrets", len(secrets))
	}
	if len(e.Secrets) != 0 {
		t.Error("a secret of the configuration is in the store")
	}
	b.ask(1)
	b.await("it has come", func() bool { return len(r.received()) == 1 })
	h := http.Header{}
	b.must(signCallback(h, b.config.Merchants[0].Callbacks[0].secrets(), "evt", time.Now(), nil))
	if n := len(strings.Fields(h.Get("webhook-signature"))); n != 2 {
		t.Errorf("%d signatures, want 2", n)
	}
}

var docRow = regexp.MustCompile(`(?s)(<!-- printed: ([a-z' ]+) -->\n).*?(<!-- end of printed -->)`)

// TestGeneratedCallbackFields keeps the tables of docs/callbacks.md what the
// payload has.
func TestGeneratedCallbackFields(t *testing.T) {
	t.Parallel()
	file := filepath.Join("..", "docs", "callbacks.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rows := func(of reflect.Type) string {
		var b strings.Builder
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			doc := of.Field(i).Tag.Get("doc")
			if name == "" || doc == "" {
				t.Errorf("%s.%s is not documented", of, of.Field(i).Name)
			}
			fmt.Fprintf(&b, "| `%s` | %s |\n", name, strings.TrimSuffix(doc, "."))
		}
		return b.String()
	}
	const head = "| field | what it is |\n| --- | --- |\n"
	printed := map[string]string{
		"fields of a payment request's event": head + rows(reflect.TypeFor[CallbackRequestData]()),
		"fields of the other events": "`callback_endpoint.*`:\n\n" + head + rows(reflect.TypeFor[CallbackEndpointData]()) +
			"\n`merchant.settings_changed`:\n\n" + head + rows(reflect.TypeFor[CallbackSettingsData]()) + "\n`reset`:\n\n" + head + rows(reflect.TypeFor[CallbackResetData]()),
	}
	made := docRow.ReplaceAllStringFunc(string(text), func(part string) string {
		m := docRow.FindStringSubmatch(part)
		table, ok := printed[m[2]]
		if !ok {
			t.Errorf("docs/callbacks.md has an unknown printed part %q", m[2])
		}
		delete(printed, m[2])
		return m[1] + table + m[3]
	})
	for name := range printed {
		t.Errorf("docs/callbacks.md has no place for %q", name)
	}
	golden(t, file, []byte(made))
}
