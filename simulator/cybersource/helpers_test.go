package cybersource

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"paythread/simulator/faults"
)

const (
	testKeyID    = "11111111-2222-3333-4444-555555555555"
	testSecret   = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	testMerchant = "testmerchant01"
	otherKeyID   = "99999999-2222-3333-4444-555555555555"
	other        = "othermerchant"
	testOrigin   = "https://pay.example.test"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 1, 15, 10, 20, 30, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// world is a simulator behind a real listener, with a merchant's client.
type world struct {
	t      testing.TB
	sim    *Simulator
	faults *faults.Set
	clock  *clock
	server *httptest.Server
	keyID  string
	id     string
}

func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, faults: faults.New(), clock: newClock(), keyID: testKeyID, id: testMerchant}
	mux := http.NewServeMux()
	w.server = httptest.NewServer(mux)
	t.Cleanup(w.server.Close)
	t.Cleanup(w.faults.Clear)
	cfg := Config{
		PublicURL: w.server.URL, Now: w.clock.now, SharedKeys: 1,
		Merchants: []Merchant{{testMerchant, testKeyID, testSecret}, {other, otherKeyID, testSecret}},
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if w.sim, err = New(cfg, w.faults); err != nil {
		t.Fatal(err)
	}
	w.sim.Register(mux)
	return w
}

// as is the same world seen by the other merchant.
func (w *world) asOther() *world {
	v := *w
	v.keyID, v.id = otherKeyID, other
	return &v
}

// response is an answer with its body read.
type response struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

func (r response) at(path string) any {
	var v any = r.json
	for name := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func (r response) text(path string) string {
	s, _ := r.at(path).(string)
	return s
}

func decodeResponse(t testing.TB, res *http.Response, err error) response {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := response{status: res.StatusCode, header: res.Header, body: string(b)}
	if strings.Contains(res.Header.Get("Content-Type"), "json") && bytes.HasPrefix(b, []byte("{")) {
		if err := json.Unmarshal(b, &r.json); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
	}
	return r
}

func (w *world) claims(method, path, body string) jwt.MapClaims {
	now := w.clock.now().Unix()
	host, _, _ := strings.Cut(strings.TrimPrefix(w.server.URL, "http://"), ":")
	c := jwt.MapClaims{
		"iat": now, "exp": now + 120, "iss": w.id, "jti": uuid.NewString(), "request-host": host,
		"request-method": strings.ToLower(method), "request-resource-path": path, "v-c-jwt-version": "2", "v-c-merchant-id": w.id,
	}
	if body != "" {
		c["digest"], c["digestAlgorithm"] = bodyDigest([]byte(body)), "SHA-256"
	}
	return c
}

func (w *world) sign(claims jwt.MapClaims) string {
	tok := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	tok.Header["kid"] = w.keyID
	signed, err := tok.SignedString([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

// request is a signed request that has not been sent yet.
func (w *world) request(method, path, body string) *http.Request {
	req, err := http.NewRequest(method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.sign(w.claims(method, path, body)))
	req.Header.Set("Content-Type", "application/json")
	return req
}

func (w *world) do(method, path, body string) response {
	w.t.Helper()
	res, err := w.server.Client().Do(w.request(method, path, body))
	return decodeResponse(w.t, res, err)
}

func (w *world) post(path, body string) response { w.t.Helper(); return w.do("POST", path, body) }
func (w *world) get(path string) response        { w.t.Helper(); return w.do("GET", path, "") }

// plain sends an unsigned request to the control API.
func (w *world) plain(path, body string) response {
	w.t.Helper()
	res, err := w.server.Client().Post(w.server.URL+path, "application/json", strings.NewReader(body))
	return decodeResponse(w.t, res, err)
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// session is a complete request for a capture context.
func session() object {
	return object{
		"targetOrigins": []string{testOrigin}, "country": "ZA", "locale": "en_GB",
		"allowedCardNetworks": []string{"VISA", "MASTERCARD", "AMEX"}, "allowedPaymentTypes": []string{"PANENTRY"},
		"captureMandate": object{"billingType": "FULL", "requestEmail": true},
		"data": object{
			"orderInformation":           object{"amountDetails": object{"totalAmount": "149.99", "currency": "ZAR"}},
			"clientReferenceInformation": object{"code": "INV-1001"},
		},
	}
}

func (w *world) context() string {
	w.t.Helper()
	r := w.post("/uc/v1/sessions", toJSON(w.t, session()))
	if r.status != http.StatusCreated {
		w.t.Fatalf("sessions: got %d %s", r.status, r.body)
	}
	return r.body
}

// token makes a transient token for a card as a script does.
func (w *world) token(number string) string {
	w.t.Helper()
	r := w.plain("/cybersource/transient-tokens", toJSON(w.t, object{
		"captureContext": w.context(), "card": object{"number": number, "expirationMonth": "12", "expirationYear": "2031", "securityCode": ""},
	}))
	if r.status != http.StatusCreated {
		w.t.Fatalf("transient token: got %d %s", r.status, r.body)
	}
	return r.text("transientToken")
}

// payment is a payment request with a token. set changes it.
func payment(token, code, total string, capture bool, set ...func(object)) object {
	p := object{
		"clientReferenceInformation": object{"code": code},
		"processingInformation":      object{"capture": capture},
		"tokenInformation":           object{"transientTokenJwt": token},
		"orderInformation":           object{"amountDetails": object{"totalAmount": total, "currency": "ZAR"}},
	}
	for _, f := range set {
		f(p)
	}
	return p
}

func withTransactionID(id string) func(object) {
	return func(p object) { p["clientReferenceInformation"].(object)["transactionId"] = id }
}

func (w *world) pay(p object) response {
	w.t.Helper()
	return w.post("/pts/v2/payments", toJSON(w.t, p))
}

// approve makes an approved payment and returns its id.
func (w *world) approve(code, total string, capture bool) string {
	w.t.Helper()
	r := w.pay(payment(w.token("4111111111111111"), code, total, capture))
	if r.status != 201 || r.text("status") != "AUTHORIZED" {
		w.t.Fatalf("payment: got %d %s", r.status, r.body)
	}
	return r.text("id")
}

func order(total string) string {
	return `{"orderInformation":{"amountDetails":{"totalAmount":"` + total + `","currency":"ZAR"}}}`
}

func reversal(total string) string {
	return `{"clientReferenceInformation":{"code":"rev"},"reversalInformation":{"amountDetails":{"totalAmount":"` + total + `","currency":"ZAR"},"reason":"cancelled"}}`
}

func wantRefused(t testing.TB, r response, status int, reason string) {
	t.Helper()
	if r.status != status || r.text("reason") != reason {
		t.Errorf("got %d %s, want %d %s", r.status, r.body, status, reason)
	}
	if r.at("errorInformation") != nil {
		t.Errorf("a refusal has a flat body, got %s", r.body)
	}
}

func wantStatus(t testing.TB, r response, status int, word string) {
	t.Helper()
	if r.status != status || r.text("status") != word {
		t.Errorf("got %d %s, want %d %s", r.status, r.body, status, word)
	}
}
