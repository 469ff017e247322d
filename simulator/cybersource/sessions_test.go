package cybersource

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"paythread/simulator/faults"
)

// publicKey reads a JWK as a client would.
func publicKey(t *testing.T, jwk map[string]any) *rsa.PublicKey {
	t.Helper()
	n, err := base64.RawURLEncoding.DecodeString(jwk["n"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if jwk["kty"] != "RSA" || jwk["use"] != "enc" || jwk["e"] != "AQAB" {
		t.Fatalf("JWK: got %v", jwk)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
}

// open verifies a JWT and returns its header and claims. Times are the test's.
func open(t *testing.T, token string, key *rsa.PublicKey) (header, claims map[string]any) {
	t.Helper()
	c := jwt.MapClaims{}
	tok, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation()).ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return key, nil })
	if err != nil {
		t.Fatal(err)
	}
	return tok.Header, c
}

func headerOf(t *testing.T, token string) map[string]any {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	var h map[string]any
	if err := json.Unmarshal(b, &h); err != nil {
		t.Fatal(err)
	}
	return h
}

func (w *world) published(kid string) map[string]any {
	w.t.Helper()
	res, err := w.server.Client().Get(w.server.URL + "/flex/v2/public-keys/" + kid)
	r := decodeResponse(w.t, res, err)
	if r.status != http.StatusOK {
		w.t.Fatalf("public key: got %d %s", r.status, r.body)
	}
	return r.json
}

func TestCaptureContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.SharedKeys = 0 })
	r := w.post("/uc/v1/sessions", toJSON(t, session()))
	if r.status != http.StatusCreated || r.header.Get("Content-Type") != "application/jwt" {
		t.Fatalf("got %d %s", r.status, r.header.Get("Content-Type"))
	}
	kid := headerOf(t, r.body)["kid"].(string)
	header, claims := open(t, r.body, publicKey(t, w.published(kid)))
	if len(header) != 2 || header["alg"] != "RS256" {
		t.Errorf("header: got %v, want kid and alg only", header)
	}
	if claims["iss"] != "Flex API" || len(claims["jti"].(string)) != 16 {
		t.Errorf("iss and jti: got %v and %v", claims["iss"], claims["jti"])
	}
	if got, want := claims["exp"].(float64)-claims["iat"].(float64), (15 * time.Minute).Seconds(); got != want {
		t.Errorf("life: got %v, want %v", got, want)
	}
	ctx := claims["ctx"].([]any)[0].(map[string]any)
	data := ctx["data"].(map[string]any)
	if ctx["type"] != "uc-1.0" || data["country"] != "ZA" || data["locale"] != "en_GB" || data["targetOrigins"].([]any)[0] != testOrigin {
		t.Errorf("ctx: got %v", ctx)
	}
	if got := data["orderInformation"].(map[string]any)["amountDetails"].(map[string]any)["totalAmount"]; got != "149.99" {
		t.Errorf("amount: got %v", got)
	}

	library, err := w.server.Client().Get(data["clientLibrary"].(string))
	lib := decodeResponse(t, library, err)
	if lib.status != http.StatusOK || lib.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("library: got %d %v", lib.status, lib.header)
	}
	if got, want := integrityOf([]byte(lib.body)), data["clientLibraryIntegrity"]; got != want {
		t.Errorf("integrity: got %s, want %s", got, want)
	}

	one := claims["flx"].(map[string]any)["jwk"].(map[string]any)
	next := w.context()
	_, nextClaims := open(t, next, publicKey(t, w.published(kid)))
	two := nextClaims["flx"].(map[string]any)["jwk"].(map[string]any)
	if one["n"] == two["n"] || one["kid"] == two["kid"] || len(one["kid"].(string)) != 32 {
		t.Errorf("one-time keys: got %v and %v, want two different ones", one["kid"], two["kid"])
	}
	res, err := w.server.Client().Get(w.server.URL + "/flex/v2/public-keys/unknown")
	if r := decodeResponse(t, res, err); r.status != http.StatusNotFound {
		t.Errorf("unknown kid: got %d, want 404", r.status)
	}
}

func TestSessionRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	amountOf := func(s object) object {
		return s["data"].(object)["orderInformation"].(object)["amountDetails"].(object)
	}
	origins := func(list ...string) func(object) { return func(s object) { s["targetOrigins"] = list } }
	const fields, params = "UNIFIED_PAYMENTS_VALIDATION_FIELDS", "UNIFIED_PAYMENTS_VALIDATION_PARAMS"
	for _, tt := range []struct {
		name             string
		change           func(object)
		reason, location string
	}{
		{"no origins", func(s object) { delete(s, "targetOrigins") }, fields, "targetOrigins"},
		{"no country", func(s object) { delete(s, "country") }, fields, "country"},
		{"no locale", func(s object) { delete(s, "locale") }, fields, "locale"},
		{"no amount", func(s object) { delete(amountOf(s), "totalAmount") }, fields, "data.orderInformation.amountDetails.totalAmount"},
		{"no currency", func(s object) { delete(amountOf(s), "currency") }, fields, "data.orderInformation.amountDetails.currency"},
		{"http origin", origins("http://pay.example.test"), params, "targetOrigins[0]"},
		{"http localhost", origins("http://localhost:8080"), params, "targetOrigins[0]"},
		{"origin with a path", origins("https://pay.example.test/pay"), params, "targetOrigins[0]"},
		{"origin with a slash", origins("https://pay.example.test/"), params, "targetOrigins[0]"},
		{"wildcard", origins("https://*.example.test"), params, "targetOrigins[0]"},
		{"IP address", origins("https://192.0.2.7"), params, "targetOrigins[0]"},
		{"IPv6 address", origins("https://[2001:db8::1]:8443"), params, "targetOrigins[0]"},
		{"the second of two", origins(testOrigin, "ftp://pay.example.test"), params, "targetOrigins[1]"},
		{"too many origins", origins(slices.Repeat([]string{testOrigin}, 8)...), params, "targetOrigins"},
		{"negative amount", func(s object) { amountOf(s)["totalAmount"] = "-1" }, params, "data.orderInformation.amountDetails.totalAmount"},
		{"three decimals of rand", func(s object) { amountOf(s)["totalAmount"] = "1.001" }, params, "data.orderInformation.amountDetails.totalAmount"},
		{"unknown currency", func(s object) { amountOf(s)["currency"] = "ZZZ" }, params, "data.orderInformation.amountDetails.currency"},
		{"amount as a number", func(s object) { amountOf(s)["totalAmount"] = 149.99 }, params, "data.orderInformation.amountDetails.totalAmount"},
		{"unknown network", func(s object) { s["allowedCardNetworks"] = []string{"VISA", "BLUE"} }, params, "allowedCardNetworks[1]"},
		{"unknown type", func(s object) { s["allowedPaymentTypes"] = []string{"SRC"} }, params, "allowedPaymentTypes[0]"},
		{"unpublished locale", func(s object) { s["locale"] = "en_ZA" }, params, "locale"},
		{"amount outside of data", func(s object) { s["orderInformation"] = object{} }, params, "orderInformation"},
		{"mandate without a type", func(s object) { s["completeMandate"] = object{"type": "SALE"} }, params, "completeMandate.type"},
		{"AUTH with a bank transfer", func(s object) {
			s["completeMandate"], s["allowedPaymentTypes"] = object{"type": "AUTH"}, []string{"PANENTRY", "IDEAL"}
		}, params, "completeMandate.type"},
		{"consumer authentication of v0", func(s object) {
			s["completeMandate"] = object{"type": "AUTH", "consumerAuthentication": true}
		}, params, "completeMandate.consumerAuthentication"},
		{"billing type", func(s object) { s["captureMandate"] = object{"billingType": "ALL"} }, params, "captureMandate.billingType"},
		{"version of v0", func(s object) { s["clientVersion"] = "0.34" }, params, "clientVersion"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := session()
			tt.change(s)
			r := w.post("/uc/v1/sessions", toJSON(t, s))
			if r.status != http.StatusBadRequest || r.text("reason") != tt.reason || r.text("correlationId") == "" {
				t.Fatalf("got %d %s, want 400 %s", r.status, r.body, tt.reason)
			}
			details, _ := r.at("details").([]any)
			if len(details) == 0 || details[0].(map[string]any)["location"] != tt.location {
				t.Errorf("details: got %v, want %s first", details, tt.location)
			}
		})
	}
}

func TestHTTPOriginsByASetting(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.AllowHTTPOrigins = true })
	for origin, want := range map[string]int{
		"http://localhost:8080": 201, "http://127.0.0.1:8080": 201, "https://pay.example.test": 201,
		"http://localhost:8080/pay": 400, "ftp://localhost": 400,
	} {
		s := session()
		s["targetOrigins"] = []string{origin}
		if r := w.post("/uc/v1/sessions", toJSON(t, s)); r.status != want {
			t.Errorf("%s: got %d, want %d", origin, r.status, want)
		}
	}
}

func TestTransientToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	context := w.context()
	_, claims := open(t, context, publicKey(t, w.published(headerOf(t, context)["kid"].(string))))
	jwk := claims["flx"].(map[string]any)["jwk"].(map[string]any)
	r := w.plain("/cybersource/transient-tokens", toJSON(t, object{
		"captureContext": context,
		"card":           object{"number": "4111 1111 1111 1111", "expirationMonth": "3", "expirationYear": "31", "securityCode": "123"},
	}))
	token := r.text("transientToken")
	header, got := open(t, token, publicKey(t, jwk))
	if header["kid"] != jwk["kid"] {
		t.Errorf("kid: got %v, want %v", header["kid"], jwk["kid"])
	}
	jti := got["jti"].(string)
	if len(jti) != 64 || strings.Trim(jti, upperAlphanumerics) != "" {
		t.Errorf("jti: got %q, want 64 upper-case alphanumerics", jti)
	}
	if got["exp"].(float64)-got["iat"].(float64) != 900 || !strings.HasPrefix(got["iss"].(string), "Flex/") {
		t.Errorf("claims: got %v", got)
	}
	content := response{json: got["content"].(map[string]any)}
	if v := content.text("paymentInformation.card.number.maskedValue"); v != "XXXXXXXXXXXX1111" {
		t.Errorf("masked number: got %q", v)
	}
	if v := content.text("paymentInformation.card.expirationMonth.value"); v != "03" {
		t.Errorf("month: got %q", v)
	}
	if v, ok := content.at("orderInformation.billTo.email").(map[string]any); !ok || len(v) != 0 {
		t.Errorf("billTo.email: got %v, want an empty object", v)
	}
	if strings.Contains(toJSON(t, got), "4111111111111111") || strings.Contains(toJSON(t, got), `"123"`) {
		t.Error("the token holds the card")
	}
}

func TestTransientTokenRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.context()
	forged := good[:strings.LastIndex(good, ".")+1] + base64.RawURLEncoding.EncodeToString(make([]byte, 256))
	ask := func(context, number, month, year string) response {
		return w.plain("/cybersource/transient-tokens", toJSON(t, object{
			"captureContext": context, "card": object{"number": number, "expirationMonth": month, "expirationYear": year},
		}))
	}
	wantRefused(t, ask(forged, "4111111111111111", "12", "2031"), 400, "CAPTURE_CONTEXT_INVALID")
	wantRefused(t, ask("x", "4111111111111111", "12", "2031"), 400, "CAPTURE_CONTEXT_INVALID")
	wantRefused(t, ask(good, "4111111111111112", "12", "2031"), 400, "CHECKOUT_VALIDATION_PARAMS")
	wantRefused(t, ask(good, "6011111111111117", "12", "2031"), 400, "CHECKOUT_VALIDATION_PARAMS")
	wantRefused(t, ask(good, "4111111111111111", "13", "2031"), 400, "CHECKOUT_VALIDATION_PARAMS")
	wantRefused(t, ask(good, "4111111111111111", "12", "2025"), 400, "CHECKOUT_VALIDATION_PARAMS")
	if r := ask(good, "4111111111111111", "01", "2026"); r.status != 201 {
		t.Errorf("a card in its last month: got %d %s, want 201", r.status, r.body)
	}
	w.clock.add(15*time.Minute + time.Second)
	wantRefused(t, ask(good, "4111111111111111", "12", "2031"), 400, "CAPTURE_CONTEXT_EXPIRED")
}

func TestConfigRefusals(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"no address":        {},
		"address with path": {PublicURL: "http://localhost/x"},
		"secret not base64": {PublicURL: "http://localhost", Merchants: []Merchant{{"a", "k", "!"}}},
		"key twice":         {PublicURL: "http://localhost", Merchants: []Merchant{{"a", "k", testSecret}, {"b", "k", testSecret}}},
		"processor":         {PublicURL: "http://localhost", Processor: "acme"},
	} {
		if _, err := New(cfg, faults.New()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
