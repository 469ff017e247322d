package oms_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/simulator/oms"
)

const key = "secret-key-of-the-shop"

// gateway answers what the order system asks and keeps what it was asked.
type gateway struct {
	mu       sync.Mutex
	sessions []map[string]any
	asked    int
	items    []map[string]any
	status   int // of the next answers; 0 is success
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+key {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if g.status != 0 {
		w.WriteHeader(g.status)
		_, _ = io.WriteString(w, `{"title":"Conflict","detail":"The sums do not add up."}`)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "POST /v1/agent-sessions":
		var ask map[string]any
		_ = json.NewDecoder(r.Body).Decode(&ask)
		g.sessions = append(g.sessions, ask)
		if ask["sealed_order"] == "so_lost" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"token":"a.b.c","expires_at":"2030-01-01T00:00:00Z","sealed_order":"so_1"}`)
	case "GET /v1/payment-requests":
		g.asked++
		_ = json.NewEncoder(w).Encode(map[string]any{"items": g.items})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

type shop struct {
	t       *testing.T
	url     string
	gateway *gateway
	log     *bytes.Buffer
	clock   *clock
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newShop(t *testing.T) *shop {
	t.Helper()
	g := &gateway{}
	outside := httptest.NewServer(g)
	t.Cleanup(outside.Close)
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s := &shop{t: t, url: server.URL, gateway: g, log: &bytes.Buffer{}, clock: &clock{at: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)}}
	system, err := oms.New(oms.Config{
		GatewayURL: outside.URL, APIKey: key, PublicURL: server.URL,
		Log: slog.New(slog.NewTextHandler(s.log, nil)), Now: s.clock.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	system.Register(mux)
	return s
}

// call returns status and body of one call.
func (s *shop) call(method, path, contentType, body string, header ...string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

func (s *shop) create(draft string) oms.Order {
	s.t.Helper()
	status, body := s.call("POST", "/oms/api/orders", "application/json", draft)
	if status != http.StatusCreated {
		s.t.Fatalf("got %d %s, want an order", status, body)
	}
	var order oms.Order
	if err := json.Unmarshal([]byte(body), &order); err != nil {
		s.t.Fatal(err)
	}
	return order
}

func (s *shop) get(number string) oms.Order {
	s.t.Helper()
	_, body := s.call("GET", "/oms/api/orders/"+number, "", "")
	var order oms.Order
	if err := json.Unmarshal([]byte(body), &order); err != nil {
		s.t.Fatalf("%v in %s", err, body)
	}
	return order
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	good := oms.Config{GatewayURL: "http://127.0.0.1:8080", APIKey: key, PublicURL: "http://localhost:8090"}
	for name, c := range map[string]struct {
		change func(*oms.Config)
		want   string
	}{
		"no gateway":      {func(c *oms.Config) { c.GatewayURL = "" }, "GatewayURL"},
		"relative public": {func(c *oms.Config) { c.PublicURL = "/oms" }, "PublicURL"},
		"no key":          {func(c *oms.Config) { c.APIKey = "" }, "APIKey"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := good
			c.change(&config)
			if _, err := oms.New(config); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one about %s", err, c.want)
			}
		})
	}
}

func TestOrdersAddUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		draft                string
		subtotal, tax, total int64
	}{
		"nothing typed":    {`{}`, 149900, 22485, 172385},
		"tax rounds":       {`{"lines":[{"name":"a","quantity":3,"unit_price":333}]}`, 999, 150, 1149},
		"half a cent up":   {`{"lines":[{"name":"a","quantity":1,"unit_price":10}]}`, 10, 2, 12},
		"shipping, rebate": {`{"lines":[{"name":"a","quantity":2,"unit_price":5000}],"shipping":1000,"discount":2000,"tax_rate":1000}`, 10000, 900, 9900},
		"no tax":           {`{"lines":[{"name":"a","quantity":1,"unit_price":100}],"tax_rate":0}`, 100, 0, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newShop(t).create(c.draft)
			if o.Subtotal != c.subtotal || o.Tax != c.tax || o.Total != c.total {
				t.Errorf("got subtotal %d, tax %d, total %d, want %d, %d, %d", o.Subtotal, o.Tax, o.Total, c.subtotal, c.tax, c.total)
			}
			if o.Subtotal+o.Shipping-o.Discount+o.Tax != o.Total {
				t.Errorf("the sums of %+v do not add up", o)
			}
		})
	}
}

func TestImpossibleOrdersAreRefused(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for name, c := range map[string]struct {
		draft  string
		status int
	}{
		"not JSON":           {`{`, 400},
		"unknown field":      {`{"total":1}`, 400},
		"local phone":        {`{"phone":"0821234567"}`, 422},
		"negative price":     {`{"lines":[{"name":"a","quantity":1,"unit_price":-1}]}`, 422},
		"no quantity":        {`{"lines":[{"name":"a","unit_price":1}]}`, 422},
		"discount too large": {`{"discount":999999999}`, 422},
		"nothing to pay":     {`{"lines":[{"name":"a","quantity":1,"unit_price":0}]}`, 422},
		"a huge body":        {`{"customer":"` + strings.Repeat("a", 100_000) + `"}`, 400},
	} {
		if status, body := s.call("POST", "/oms/api/orders", "application/json", c.draft); status != c.status {
			t.Errorf("%s: got %d %s, want %d", name, status, body, c.status)
		}
	}
}

func TestOtherSitesCannotAct(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	o := s.create(`{}`)
	for _, path := range []string{"/oms/orders", "/oms/api/orders", "/oms/api/orders/" + o.Number + "/session", "/oms/orders/" + o.Number + "/record"} {
		status, _ := s.call("POST", path, "application/json", "{}", "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example")
		if status != http.StatusForbidden {
			t.Errorf("POST %s from another site: got %d, want 403", path, status)
		}
	}
	if len(s.gateway.sessions) != 0 {
		t.Error("another site got an agent session made")
	}
}

func TestSessionHandsOrderOverOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	o := s.create(`{"shipping":1000}`)
	path := "/oms/api/orders/" + o.Number + "/session"
	for range 2 {
		status, body := s.call("POST", path, "", "")
		if status != http.StatusOK || !strings.Contains(body, `"token":"a.b.c"`) || !strings.Contains(body, `"gateway":"http://127.0.0.1:`) {
			t.Fatalf("got %d %s, want a token and the gateway", status, body)
		}
		if strings.Contains(body, key) {
			t.Fatal("the API key goes to the browser")
		}
	}
	first, second := s.gateway.sessions[0], s.gateway.sessions[1]
	order, ok := first["order"].(map[string]any)
	if !ok {
		t.Fatalf("got first session %v, want the order in it", first)
	}
	total := order["total"].(map[string]any)
	if order["order"] != o.Number || total["value"] != "1735.35" || total["currency"] != "ZAR" || order["discount"] != nil {
		t.Errorf("got %v handed over", order)
	}
	if second["sealed_order"] != "so_1" || second["order"] != nil {
		t.Errorf("got second session %v, want only the sealed order", second)
	}
}

func TestSessionSaysWhatTheGatewaySays(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	o := s.create(`{}`)
	s.gateway.status = http.StatusUnprocessableEntity
	status, body := s.call("POST", "/oms/api/orders/"+o.Number+"/session", "", "")
	if status != http.StatusBadGateway || !strings.Contains(body, "The sums do not add up.") {
		t.Errorf("got %d %s, want the refusal", status, body)
	}
	if strings.Contains(s.log.String(), key) || strings.Contains(s.log.String(), o.Phone) {
		t.Errorf("the log holds a secret: %s", s.log)
	}
	if status, _ := s.call("POST", "/oms/api/orders/none/session", "", ""); status != http.StatusNotFound {
		t.Errorf("got %d for an unknown order, want 404", status)
	}
}

func TestOrderFollowsTheGateway(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	o := s.create(`{}`)
	if got := s.get(o.Number); got.Status != oms.Unpaid || s.gateway.asked != 0 {
		t.Fatalf("got %s after %d questions, want unpaid and none: nothing was handed over", got.Status, s.gateway.asked)
	}
	s.call("POST", "/oms/api/orders/"+o.Number+"/session", "", "")
	request := func(id, lifecycle, created string, superseded bool) map[string]any {
		return map[string]any{"id": id, "lifecycle": lifecycle, "created_at": created, "superseded": superseded}
	}
	for _, step := range []struct {
		name   string
		items  []map[string]any
		status oms.Status
		id     string
	}{
		{"none made", nil, oms.Unpaid, ""},
		{"asked", []map[string]any{request("pr_1", "open", "1", false)}, oms.Asked, "pr_1"},
		{"ran out", []map[string]any{request("pr_1", "expired", "1", false)}, oms.Unpaid, "pr_1"},
		{"asked again", []map[string]any{request("pr_1", "expired", "1", true), request("pr_2", "processing", "2", false)}, oms.Processing, "pr_2"},
		{"late money on the first", []map[string]any{request("pr_1", "paid", "1", true), request("pr_2", "cancelled", "2", false)}, oms.Paid, "pr_1"},
		{"refunded", []map[string]any{request("pr_1", "refunded", "1", false)}, oms.Refunded, "pr_1"},
	} {
		s.gateway.mu.Lock()
		s.gateway.items = step.items
		s.gateway.mu.Unlock()
		s.clock.pass(2 * time.Second)
		if got := s.get(o.Number); got.Status != step.status || got.Request != step.id {
			t.Errorf("%s: got %s by %q, want %s by %q", step.name, got.Status, got.Request, step.status, step.id)
		}
	}
	asked := s.gateway.asked
	s.get(o.Number)
	if s.gateway.asked != asked {
		t.Error("the gateway was asked twice within a moment")
	}
	s.gateway.status = http.StatusServiceUnavailable
	s.clock.pass(2 * time.Second)
	if got := s.get(o.Number); got.Status != oms.Refunded {
		t.Errorf("got %s while the gateway is away, want what was known", got.Status)
	}
}

func TestPagesCreateAndRecord(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	form := url.Values{"customer": {"<b>Ayşe</b>"}, "phone": {"+27 82 123 4567"}, "country": {"ZA"}, "tax_rate": {"15"}, "shipping": {"1.5"}, "line_name": {"Cable", ""}, "line_quantity": {"2", ""}, "line_price": {"10.05", ""}}
	const urlencoded = "application/x-www-form-urlencoded"
	status, body := s.call("POST", "/oms/orders", urlencoded, form.Encode())
	if status != http.StatusOK || !strings.Contains(body, "&lt;b&gt;Ayşe&lt;/b&gt;") || !strings.Contains(body, "R\u00a024.84") || !strings.Contains(body, "/phone/&#43;27821234567") && !strings.Contains(body, "/phone/%2b27821234567") && !strings.Contains(body, "/phone/+27821234567") {
		t.Errorf("got %d, want the order's page: %s", status, body)
	}
	form.Set("line_price", "ten")
	if status, body := s.call("POST", "/oms/orders", urlencoded, form.Encode()); status != http.StatusUnprocessableEntity || !strings.Contains(body, "The price of line 1 must be a number") || !strings.Contains(body, `value="ten"`) {
		t.Errorf("got %d, want the form again with what is wrong: %s", status, body)
	}
	o := s.create(`{}`)
	if status, _ := s.call("POST", "/oms/orders/"+o.Number+"/record", urlencoded, "method=cash"); status != http.StatusUnprocessableEntity {
		t.Errorf("got %d for an unknown method, want 422", status)
	}
	s.call("POST", "/oms/orders/"+o.Number+"/record", urlencoded, "method=eft")
	if got := s.get(o.Number); got.Status != oms.Paid || got.Method != "eft" {
		t.Errorf("got %s by %s, want paid by eft", got.Status, got.Method)
	}
	for path, want := range map[string]int{"/oms/": 200, "/oms/orders/new": 200, "/oms/orders/none": 404, "/oms/assets/order.js": 200, "/oms/api/orders": 200} {
		if status, _ := s.call("GET", path, "", ""); status != want {
			t.Errorf("GET %s: got %d, want %d", path, status, want)
		}
	}
}
