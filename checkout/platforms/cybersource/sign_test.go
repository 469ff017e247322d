package cybersource

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Inputs of the test vectors: a made-up key, a request of the payments guide.
const (
	vectorSecret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	vectorBody   = `{"clientReferenceInformation":{"code":"INV-1001"},"orderInformation":{"amountDetails":{"totalAmount":"149.99","currency":"ZAR"}}}`
)

var (
	vectorCredentials = Credentials{MerchantID: "testmerchant01", KeyID: "11111111-2222-3333-4444-555555555555", SharedSecret: vectorSecret}
	vectorTime        = time.Date(2026, 1, 15, 10, 20, 30, 0, time.UTC)
)

func vectorNow() time.Time { return vectorTime }

func request(t *testing.T, method, path string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, "https://apitest.cybersource.com"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestHTTPSignatureVectorA(t *testing.T) {
	t.Parallel()
	signer, err := NewHTTPSigner(vectorCredentials, vectorNow)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, method, path, body, headers, signature string }{
		{"POST", "POST", "/pts/v2/payments", vectorBody, "host date request-target digest v-c-merchant-id", "9N+PcNKMXcyfxe/G+hruNc/gqyEe6W+OVLpLuo1xIQ0="},
		{"GET", "GET", "/tss/v2/transactions/7681234567890123456789", "", "host date request-target v-c-merchant-id", "5JA6J2AHvhfGH87YRmcm1ir6Y/fDUFuwTQMHvm/cB90="},
		{"GET with a query", "GET", "/tms/v2/customers/ABC123/payment-instruments?offset=0&limit=20", "", "host date request-target v-c-merchant-id", "SWqvbFHPDEPYuknO2Tq9nHvM0pAI5S/FA1ZsMegV124="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req := request(t, tt.method, tt.path)
			if err := signer.Sign(req, []byte(tt.body), time.Time{}); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf(`keyid="11111111-2222-3333-4444-555555555555", algorithm="HmacSHA256", headers="%s", signature="%s"`, tt.headers, tt.signature)
			if got := req.Header.Get("Signature"); got != want {
				t.Errorf("Signature\n got %s\nwant %s", got, want)
			}
			wantDigest := ""
			if tt.body != "" {
				wantDigest = "SHA-256=eac4GewYWzVW2Xtuldp3E8nbF/D+ibemCkuC1K4UX5Q="
			}
			for name, want := range map[string]string{"Date": "Thu, 15 Jan 2026 10:20:30 GMT", "Digest": wantDigest, "v-c-merchant-id": "testmerchant01", "Authorization": ""} {
				if got := req.Header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestJWTVectorB(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, method, path, body, jti, claims, signature string }{
		{
			"POST", "POST", "/pts/v2/payments", vectorBody, "9f1c2d3e-4a5b-4c6d-8e7f-a0b1c2d3e4f5",
			`{"digest":"eac4GewYWzVW2Xtuldp3E8nbF/D+ibemCkuC1K4UX5Q=","digestAlgorithm":"SHA-256","iat":1768472430,"exp":1768472550,"iss":"testmerchant01","jti":"9f1c2d3e-4a5b-4c6d-8e7f-a0b1c2d3e4f5","request-host":"apitest.cybersource.com","request-method":"post","request-resource-path":"/pts/v2/payments","v-c-jwt-version":"2","v-c-merchant-id":"testmerchant01"}`,
			"tHSBADhMG0OJ3MwVmDtZajvewnMaNjpsdZcMoX6Bxp4",
		},
		{
			"GET", "GET", "/tss/v2/transactions/7681234567890123456789", "", "00000000-0000-4000-8000-000000000001",
			`{"iat":1768472430,"exp":1768472550,"iss":"testmerchant01","jti":"00000000-0000-4000-8000-000000000001","request-host":"apitest.cybersource.com","request-method":"get","request-resource-path":"/tss/v2/transactions/7681234567890123456789","v-c-jwt-version":"2","v-c-merchant-id":"testmerchant01"}`,
			"KSIr-rKZbue8iHbyz-7HDMzypAdhUKUVBF5vDSEWgXw",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			signer, err := NewJWTSigner(vectorCredentials, vectorNow, func() string { return tt.jti })
			if err != nil {
				t.Fatal(err)
			}
			req := request(t, tt.method, tt.path)
			if err := signer.Sign(req, []byte(tt.body), time.Time{}); err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "), ".")
			if len(parts) != 3 {
				t.Fatalf("Authorization %q is no JWS", req.Header.Get("Authorization"))
			}
			if want := "eyJhbGciOiJIUzI1NiIsImtpZCI6IjExMTExMTExLTIyMjItMzMzMy00NDQ0LTU1NTU1NTU1NTU1NSIsInR5cCI6IkpXVCJ9"; parts[0] != want {
				t.Errorf("header %s, want %s", parts[0], want)
			}
			claims, err := base64.RawURLEncoding.DecodeString(parts[1])
			if err != nil || string(claims) != tt.claims {
				t.Errorf("claims\n got %s\nwant %s", claims, tt.claims)
			}
			if parts[2] != tt.signature {
				t.Errorf("signature %s, want %s", parts[2], tt.signature)
			}
			for _, name := range []string{"Signature", "Digest", "v-c-merchant-id"} {
				if got := req.Header.Get(name); got != "" {
					t.Errorf("%s: %q, want none beside a JWT", name, got)
				}
			}
		})
	}
}

func TestJWTEndsWhenTheRightToSendDoes(t *testing.T) {
	t.Parallel()
	const second = time.Second
	issued := vectorTime.Add(700 * time.Millisecond)
	for _, tt := range []struct {
		name   string
		sendBy time.Time
		want   int64 // seconds after the whole second of issue
	}{
		{"no end", time.Time{}, 120},
		{"a whole second", vectorTime.Add(10 * second), 10},
		{"rounded up", vectorTime.Add(10*second + time.Nanosecond), 11},
		{"within the same second", vectorTime.Add(900 * time.Millisecond), 1},
		{"the longest life", vectorTime.Add(120 * second), 120},
		{"beyond the longest life", vectorTime.Add(time.Hour), 120},
		{"in another zone", vectorTime.Add(10 * second).In(time.FixedZone("", 7200)), 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			signer, err := NewJWTSigner(vectorCredentials, func() time.Time { return issued }, func() string { return "j" })
			if err != nil {
				t.Fatal(err)
			}
			req := request(t, "POST", "/pts/v2/payments")
			if err := signer.Sign(req, []byte(vectorBody), tt.sendBy); err != nil {
				t.Fatal(err)
			}
			claims := claimsOf(t, req.Header.Get("Authorization"))
			if claims.IssuedAt != vectorTime.Unix() || claims.ExpiresAt-claims.IssuedAt != tt.want {
				t.Errorf("issued %d, good for %d s, want %d, %d s", claims.IssuedAt, claims.ExpiresAt-claims.IssuedAt, vectorTime.Unix(), tt.want)
			}
		})
	}
}

func claimsOf(t *testing.T, authorization string) jwtClaims {
	t.Helper()
	parts := strings.Split(strings.TrimPrefix(authorization, "Bearer "), ".")
	if len(parts) != 3 {
		t.Fatalf("Authorization %q is no JWS", authorization)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims jwtClaims
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestCredentialsAreCheckedAndNotShown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Credentials{
		"no merchant":       {KeyID: "k", SharedSecret: vectorSecret},
		"no key":            {MerchantID: "m", SharedSecret: vectorSecret},
		"quotation mark":    {MerchantID: "m", KeyID: `k",x="`, SharedSecret: vectorSecret},
		"line break":        {MerchantID: "m\nX: y", KeyID: "k", SharedSecret: vectorSecret},
		"secret not base64": {MerchantID: "m", KeyID: "k", SharedSecret: "not-base64-secret!"},
		"secret empty":      {MerchantID: "m", KeyID: "k"},
	} {
		_, err := NewJWTSigner(c, vectorNow, nil)
		_, err2 := NewHTTPSigner(c, vectorNow)
		if err == nil || err2 == nil {
			t.Errorf("%s: errors %v and %v, want both", name, err, err2)
			continue
		}
		if c.SharedSecret != "" && strings.Contains(err.Error()+err2.Error(), c.SharedSecret) {
			t.Errorf("%s: the error holds the secret", name)
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "credentials", vectorCredentials)
	shown := log.String() + fmt.Sprintf("%v %+v %#v %s", vectorCredentials, vectorCredentials, vectorCredentials, vectorCredentials)
	if strings.Contains(shown, vectorSecret) || !strings.Contains(shown, "testmerchant01") {
		t.Errorf("shown as %s", shown)
	}
}
