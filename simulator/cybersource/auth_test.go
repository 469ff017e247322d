package cybersource

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"paythread/simulator/faults"
)

// The made-up inputs of the test vectors.
const (
	vectorHost   = "apitest.cybersource.com"
	vectorDate   = "Thu, 15 Jan 2026 10:20:30 GMT"
	vectorBody   = `{"clientReferenceInformation":{"code":"INV-1001"},"orderInformation":{"amountDetails":{"totalAmount":"149.99","currency":"ZAR"}}}`
	vectorDigest = "SHA-256=eac4GewYWzVW2Xtuldp3E8nbF/D+ibemCkuC1K4UX5Q="
)

func newVectorSimulator(t *testing.T, now func() time.Time) *Simulator {
	t.Helper()
	s, err := New(Config{
		PublicURL: "https://" + vectorHost, Now: now,
		Merchants: []Merchant{{testMerchant, testKeyID, testSecret}, {other, otherKeyID, testSecret}},
	}, faults.New())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// vector builds the request of vector A with a given list of headers and signature.
func vector(method, target, body, headers, signature string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = vectorHost
	r.Header.Set("v-c-merchant-id", testMerchant)
	r.Header.Set("Date", vectorDate)
	if body != "" {
		r.Header.Set("Digest", vectorDigest)
	}
	r.Header.Set("Signature", `keyid="`+testKeyID+`", algorithm="HmacSHA256", headers="`+headers+`", signature="`+signature+`"`)
	return r
}

const postHeaders, getHeaders = "host date request-target digest v-c-merchant-id", "host date request-target v-c-merchant-id"

func TestHTTPSignatureVectors(t *testing.T) {
	t.Parallel()
	s := newVectorSimulator(t, newClock().now)
	for _, tt := range []struct{ name, method, target, body, headers, signature string }{
		{"post", "POST", "/pts/v2/payments", vectorBody, postHeaders, "9N+PcNKMXcyfxe/G+hruNc/gqyEe6W+OVLpLuo1xIQ0="},
		{"v-c-date", "POST", "/pts/v2/payments", vectorBody, "host v-c-date request-target digest v-c-merchant-id", "VHwAEhKp6I5jQYnAMKKucR6VnfU9TzXok4Ajj5lXcdE="},
		{"old request target", "POST", "/pts/v2/payments", vectorBody, "host date (request-target) digest v-c-merchant-id", "eu9VCsUYYMzNoFmGzoNOfUFpUN3b+y3PD9IZirU86JU="},
		{"get", "GET", "/tss/v2/transactions/7681234567890123456789", "", getHeaders, "5JA6J2AHvhfGH87YRmcm1ir6Y/fDUFuwTQMHvm/cB90="},
		{"get with a query", "GET", "/tms/v2/customers/ABC123/payment-instruments?offset=0&limit=20", "", getHeaders, "SWqvbFHPDEPYuknO2Tq9nHvM0pAI5S/FA1ZsMegV124="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := s.authenticate(vector(tt.method, tt.target, tt.body, tt.headers, tt.signature), []byte(tt.body))
			if err != nil || m.id != testMerchant {
				t.Fatalf("got %v, %v; want %s", m, err, testMerchant)
			}
		})
	}
}

func TestHTTPSignatureRefusals(t *testing.T) {
	t.Parallel()
	const good = "9N+PcNKMXcyfxe/G+hruNc/gqyEe6W+OVLpLuo1xIQ0="
	// resign signs what the request now says, so that only the changed check can refuse it.
	resign := func(r *http.Request) {
		fields := signatureFields(r.Header.Get("Signature"))
		text, err := stringToSign(strings.Fields(fields["headers"]), r.Host, r)
		if err != nil {
			t.Fatal(err)
		}
		sig := base64.StdEncoding.EncodeToString(signText([]byte("0123456789abcdef0123456789abcdef"), text))
		r.Header.Set("Signature", strings.Replace(r.Header.Get("Signature"), fields["signature"], sig, 1))
	}
	list := func(names string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Signature", strings.Replace(r.Header.Get("Signature"), postHeaders, names, 1))
			resign(r)
		}
	}
	for _, tt := range []struct {
		name   string
		reason string
		change func(*http.Request)
	}{
		{"no header", "neither", func(r *http.Request) { r.Header.Del("Signature") }},
		{"unknown key", "keyid", func(r *http.Request) {
			r.Header.Set("Signature", strings.Replace(r.Header.Get("Signature"), testKeyID, "nobody", 1))
		}},
		{"key of another merchant", "key's merchant", func(r *http.Request) {
			r.Header.Set("Signature", strings.Replace(r.Header.Get("Signature"), testKeyID, otherKeyID, 1))
		}},
		{"wrong signature", "signature differs", func(r *http.Request) {
			r.Header.Set("Signature", strings.Replace(r.Header.Get("Signature"), good, "AAAA", 1))
		}},
		{"other path", "signature differs", func(r *http.Request) { r.RequestURI = "/pts/v2/payments?x=1" }},
		{"other host", "signature differs", func(r *http.Request) { r.Host = "api.cybersource.com" }},
		{"other algorithm", "algorithm", func(r *http.Request) {
			r.Header.Set("Signature", strings.Replace(r.Header.Get("Signature"), "HmacSHA256", "HmacSHA1", 1))
		}},
		{"host not signed", "host is not", list("date request-target digest v-c-merchant-id")},
		{"date not signed", "v-c-date is signed", list("host request-target digest v-c-merchant-id")},
		{"target not signed", "request-target is not", list("host date digest v-c-merchant-id")},
		{"merchant not signed", "v-c-merchant-id is not signed", list("host date request-target digest")},
		{"digest not signed", "digest is not", list("host date request-target v-c-merchant-id")},
		{"digest of another body", "digest differs", func(r *http.Request) { r.Header.Set("Digest", "SHA-256=AAAA"); resign(r) }},
		{"old date", "too far off", func(r *http.Request) { r.Header.Set("Date", "Thu, 15 Jan 2026 10:15:00 GMT"); resign(r) }},
		{"date ahead", "too far off", func(r *http.Request) { r.Header.Set("Date", "Thu, 15 Jan 2026 10:26:00 GMT"); resign(r) }},
		{"date malformed", "RFC 1123", func(r *http.Request) { r.Header.Set("Date", "2026-01-15"); resign(r) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newVectorSimulator(t, newClock().now)
			mux := http.NewServeMux()
			s.Register(mux)
			r := vector("POST", "/pts/v2/payments", vectorBody, postHeaders, good)
			tt.change(r)
			if _, err := s.authenticate(r, []byte(vectorBody)); err == nil || !strings.Contains(err.Error(), tt.reason) {
				t.Fatalf("got error %v, want one with %q", err, tt.reason)
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			if got, want := w.Body.String(), `{"response":{"rmsg":"Authentication Failed"}}`; w.Code != http.StatusUnauthorized || got != want {
				t.Errorf("got %d %s, want 401 %s", w.Code, got, want)
			}
			if w.Header().Get("v-c-correlation-id") == "" {
				t.Error("no v-c-correlation-id")
			}
		})
	}
}

const (
	vectorBHeader  = `{"alg":"HS256","kid":"11111111-2222-3333-4444-555555555555","typ":"JWT"}`
	vectorBClaims  = `{"digest":"eac4GewYWzVW2Xtuldp3E8nbF/D+ibemCkuC1K4UX5Q=","digestAlgorithm":"SHA-256","iat":1768472430,"exp":1768472550,"iss":"testmerchant01","jti":"9f1c2d3e-4a5b-4c6d-8e7f-a0b1c2d3e4f5","request-host":"apitest.cybersource.com","request-method":"post","request-resource-path":"/pts/v2/payments","v-c-jwt-version":"2","v-c-merchant-id":"testmerchant01"}`
	vectorBGet     = `{"iat":1768472430,"exp":1768472550,"iss":"testmerchant01","jti":"00000000-0000-4000-8000-000000000001","request-host":"apitest.cybersource.com","request-method":"get","request-resource-path":"/tss/v2/transactions/7681234567890123456789","v-c-jwt-version":"2","v-c-merchant-id":"testmerchant01"}`
	vectorBSig     = "tHSBADhMG0OJ3MwVmDtZajvewnMaNjpsdZcMoX6Bxp4"
	vectorBSigGet  = "KSIr-rKZbue8iHbyz-7HDMzypAdhUKUVBF5vDSEWgXw"
	vectorBEncoded = "eyJhbGciOiJIUzI1NiIsImtpZCI6IjExMTExMTExLTIyMjItMzMzMy00NDQ0LTU1NTU1NTU1NTU1NSIsInR5cCI6IkpXVCJ9"
)

func TestJWTVectors(t *testing.T) {
	t.Parallel()
	encode := base64.RawURLEncoding.EncodeToString
	if got := encode([]byte(vectorBHeader)); got != vectorBEncoded {
		t.Fatalf("header: got %s, want %s", got, vectorBEncoded)
	}
	s := newVectorSimulator(t, newClock().now)
	for _, tt := range []struct{ name, method, target, body, claims, signature string }{
		{"post", "POST", "/pts/v2/payments", vectorBody, vectorBClaims, vectorBSig},
		{"get", "GET", "/tss/v2/transactions/7681234567890123456789", "", vectorBGet, vectorBSigGet},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(tt.method, tt.target, nil)
			r.Host = vectorHost
			r.Header.Set("Authorization", "Bearer "+vectorBEncoded+"."+encode([]byte(tt.claims))+"."+tt.signature)
			m, err := s.authenticate(r, []byte(tt.body))
			if err != nil || m.id != testMerchant {
				t.Fatalf("got %v, %v; want %s", m, err, testMerchant)
			}
			if _, err := s.authenticate(r, []byte(tt.body)); err == nil || !strings.Contains(err.Error(), "jti") {
				t.Errorf("again: got %v, want a refusal of the jti", err)
			}
		})
	}
}

func TestJWTRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const path, body = "/pts/v2/payments", `{"clientReferenceInformation":{"code":"X"}}`
	now := w.clock.now().Unix()
	set := func(name string, v any) func(jwt.MapClaims) { return func(c jwt.MapClaims) { c[name] = v } }
	drop := func(name string) func(jwt.MapClaims) { return func(c jwt.MapClaims) { delete(c, name) } }
	for _, tt := range []struct {
		name   string
		change func(jwt.MapClaims)
		ok     bool
	}{
		{"untouched", func(jwt.MapClaims) {}, true},
		{"upper case method", set("request-method", "POST"), true},
		{"digest-algorithm", func(c jwt.MapClaims) { delete(c, "digestAlgorithm"); c["digest-algorithm"] = "SHA-256" }, true},
		{"lives too long", set("exp", now+121), false},
		{"expired", func(c jwt.MapClaims) { c["iat"], c["exp"] = now-130, now-10 }, false},
		{"a clock a little ahead", func(c jwt.MapClaims) { c["iat"], c["exp"] = now+2, now+60 }, true},
		{"issued in the future", func(c jwt.MapClaims) { c["iat"], c["exp"] = now+30, now+60 }, false},
		{"no iat", drop("iat"), false},
		{"no exp", drop("exp"), false},
		{"no jti", drop("jti"), false},
		{"no version", drop("v-c-jwt-version"), false},
		{"other version", set("v-c-jwt-version", "1"), false},
		{"other issuer", set("iss", other), false},
		{"other merchant", set("v-c-merchant-id", other), false},
		{"other host", set("request-host", vectorHost), false},
		{"other method", set("request-method", "get"), false},
		{"other path", set("request-resource-path", "/pts/v2/voids"), false},
		{"no digest", drop("digest"), false},
		{"no digest algorithm", drop("digestAlgorithm"), false},
		{"digest of another body", set("digest", bodyDigest([]byte("{}"))), false},
		{"digest with its prefix", set("digest", "SHA-256="+bodyDigest([]byte(body))), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			claims := w.claims("POST", path, body)
			tt.change(claims)
			req, err := http.NewRequest("POST", w.server.URL+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+w.sign(claims))
			res, err := w.server.Client().Do(req)
			r := decodeResponse(t, res, err)
			// A request that passes is refused later, for what it lacks.
			want := http.StatusUnauthorized
			if tt.ok {
				want = http.StatusBadRequest
			}
			if r.status != want {
				t.Errorf("got %d %s, want %d", r.status, r.body, want)
			}
		})
	}
}

func TestJWTOfUnknownKeyOrAlgorithmIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	claims := w.claims("GET", "/tss/v2/transactions/1", "")
	for name, token := range map[string]string{
		"none":                   mustSign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, testKeyID, claims),
		"unknown kid":            mustSign(t, jwt.SigningMethodHS256, []byte("0123456789abcdef0123456789abcdef"), "nobody", claims),
		"wrong key":              mustSign(t, jwt.SigningMethodHS256, []byte("another"), testKeyID, claims),
		"the secret not decoded": mustSign(t, jwt.SigningMethodHS256, []byte(testSecret), testKeyID, claims),
		"not a JWT":              "x",
	} {
		req := w.request("GET", "/tss/v2/transactions/1", "")
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := w.server.Client().Do(req)
		if r := decodeResponse(t, res, err); r.status != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want 401", name, r.status)
		}
	}
}

func mustSign(t *testing.T, method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, claims)
	tok.Header["kid"] = kid
	signed, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// A replay is refused over the wire too, and a refused request does not use its jti up.
func TestReplayedJTIIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const path = "/tss/v2/transactions/7681234567890123456789"
	token := w.sign(w.claims("GET", path, ""))
	for i, tt := range []struct {
		path string
		want int
	}{{"/tss/v2/transactions/1", 401}, {path, 404}, {path, 401}} {
		req := w.request("GET", tt.path, "")
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := w.server.Client().Do(req)
		if r := decodeResponse(t, res, err); r.status != tt.want {
			t.Errorf("request %d: got %d, want %d", i, r.status, tt.want)
		}
	}
}
