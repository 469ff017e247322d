package unifiedcheckout

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// Keys are slow to make, so the tests share two.
var (
	signingKey = sync.OnceValue(makeKey)
	oneTimeKey = sync.OnceValue(makeKey)
)

func makeKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

func publicJWK(kid string, key *rsa.PrivateKey) map[string]any {
	return map[string]any{
		"kty": "RSA", "use": "enc", "kid": kid,
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func signRS256(t *testing.T, kid string, key *rsa.PrivateKey, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header = map[string]any{"alg": "RS256", "kid": kid}
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

const (
	contextKID = "08ABCDEFGHIJKLMNOPQRSTUVWXYZ0123"
	origin     = "https://pay.example.test"
)

// contextClaimsFor are the claims of a good context; change edits the data.
func contextClaimsFor(change func(claims jwt.MapClaims, data map[string]any)) jwt.MapClaims {
	data := map[string]any{
		"clientLibrary":          "https://apitest.cybersource.com/uc/v1/assets/1.2/UnifiedCheckout.js",
		"clientLibraryIntegrity": "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
		"targetOrigins":          []string{origin},
	}
	claims := jwt.MapClaims{
		"iss": "Flex API", "iat": time.Now().Unix(), "exp": time.Now().Add(15 * time.Minute).Unix(),
		"flx": map[string]any{"jwk": publicJWK(contextKID, oneTimeKey())},
		"ctx": []any{map[string]any{"type": "uc-1.0", "data": data}},
	}
	if change != nil {
		change(claims, data)
	}
	return claims
}

// flex plays the two calls that a context takes.
type flex struct {
	mu       sync.Mutex
	context  string
	jwk      map[string]any
	sessions []map[string]any
	keyCalls atomic.Int32
}

func (f *flex) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/uc/v1/sessions":
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Header.Get("Accept") != "application/jwt" || r.Header.Get("Authorization") == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		f.sessions = append(f.sessions, body)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, f.context+"\n")
	case r.Method == http.MethodGet && r.URL.Path == "/flex/v2/public-keys/zu" && r.Header.Get("Authorization") == "":
		f.keyCalls.Add(1)
		_ = json.NewEncoder(w).Encode(f.jwk)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (f *flex) set(context string, jwk map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.context, f.jwk = context, jwk
}

func newFlex(t *testing.T) (*flex, *Platform) {
	t.Helper()
	f := &flex{jwk: publicJWK("zu", signingKey())}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	p := newPlatform(t, testSettings(server.URL))
	p.plainHTTP = false // the rule of production, whatever the far end's address
	return f, p
}

func TestCreateContext(t *testing.T) {
	t.Parallel()
	f, p := newFlex(t)
	f.set(signRS256(t, "zu", signingKey(), contextClaimsFor(nil)), publicJWK("zu", signingKey()))
	made, err := p.CreateContext(t.Context(), platforms.ContextRequest{Request: request, Origin: origin, Locale: "en-ZA"})
	if err != nil {
		t.Fatal(err)
	}
	if made.LibraryURL != "https://apitest.cybersource.com/uc/v1/assets/1.2/UnifiedCheckout.js" || made.LibraryIntegrity != "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" {
		t.Errorf("library %s, %s", made.LibraryURL, made.LibraryIntegrity)
	}
	if made.KeyID != contextKID || made.Token != f.context || time.Until(made.ExpiresAt) > 15*time.Minute || time.Until(made.ExpiresAt) < 14*time.Minute {
		t.Errorf("context %+v", made)
	}
	want := `{"allowedCardNetworks":["VISA","MASTERCARD","AMEX"],"allowedPaymentTypes":["PANENTRY"],"buttonType":"PAY",` +
		`"captureMandate":{"billingType":"FULL","requestEmail":true,"requestPhone":false,"requestShipping":false,"showAcceptedNetworkIcons":true},"country":"ZA",` +
		`"data":{"clientReferenceInformation":{"code":"pr_07abc"},"orderInformation":{"amountDetails":{"currency":"ZAR","totalAmount":"149.00"}}},` +
		`"locale":"en_GB","targetOrigins":["https://pay.example.test"]}`
	if got := mustJSON(t, f.sessions[0]); got != want {
		t.Errorf("body\n got %s\nwant %s", got, want)
	}
	if _, err := p.CreateContext(t.Context(), platforms.ContextRequest{Request: request, Origin: origin, Country: "NA"}); err != nil {
		t.Fatal(err)
	}
	if f.sessions[1]["country"] != "NA" || f.keyCalls.Load() != 1 {
		t.Errorf("country %v, %d calls for the key, want NA and 1", f.sessions[1]["country"], f.keyCalls.Load())
	}
	// A token made with this context's key is taken.
	token := signRS256(t, contextKID, oneTimeKey(), tokenClaimsFor(nil))
	if _, err := p.CheckToken(token, []conversations.CaptureContext{made.Kept()}, time.Now()); err != nil {
		t.Errorf("a token of this context: %v", err)
	}
	var key map[string]any
	if err := json.Unmarshal([]byte(made.Key), &key); err != nil || key["d"] != nil {
		t.Errorf("key %s", made.Key)
	}
}

func TestCreateContextFetchesAReplacedKeyOnce(t *testing.T) {
	t.Parallel()
	f, p := newFlex(t)
	// Under one id, first one key and then another, as after a restart of what stands in for CyberSource.
	f.set(signRS256(t, "zu", oneTimeKey(), contextClaimsFor(nil)), publicJWK("zu", oneTimeKey()))
	if _, err := p.CreateContext(t.Context(), platforms.ContextRequest{Request: request, Origin: origin}); err != nil {
		t.Fatal(err)
	}
	f.set(signRS256(t, "zu", signingKey(), contextClaimsFor(nil)), publicJWK("zu", signingKey()))
	if _, err := p.CreateContext(t.Context(), platforms.ContextRequest{Request: request, Origin: origin}); err != nil {
		t.Errorf("after the key was replaced: %v", err)
	}
	if n := f.keyCalls.Load(); n != 2 {
		t.Errorf("%d calls for the key, want 2", n)
	}
}

func TestCreateContextVerifiesWhatItGets(t *testing.T) {
	t.Parallel()
	type change = func(claims jwt.MapClaims, data map[string]any)
	data := func(name string, value any) change {
		return func(_ jwt.MapClaims, d map[string]any) { d[name] = value }
	}
	claim := func(name string, value any) change {
		return func(c jwt.MapClaims, _ map[string]any) { c[name] = value }
	}
	weak := publicJWK(contextKID, oneTimeKey())
	weak["n"] = base64.RawURLEncoding.EncodeToString(oneTimeKey().N.Bytes()[:128])
	signed := func(c change) string { return signRS256(t, "zu", signingKey(), contextClaimsFor(c)) }
	hs := jwt.NewWithClaims(jwt.SigningMethodHS256, contextClaimsFor(nil))
	hs.Header["kid"] = "zu"
	hmac, err := hs.SignedString([]byte(mustJSON(t, publicJWK("zu", signingKey()))))
	if err != nil {
		t.Fatal(err)
	}
	good := signed(nil)
	for name, context := range map[string]string{
		"another key":         signRS256(t, "zu", oneTimeKey(), contextClaimsFor(nil)),
		"another kid":         signRS256(t, "ab", signingKey(), contextClaimsFor(nil)),
		"a path as kid":       signRS256(t, "../../pts/v2/payments", signingKey(), contextClaimsFor(nil)),
		"HS256":               hmac,
		"cut short":           good[:len(good)-2],
		"expired":             signed(claim("exp", time.Now().Unix()-1)),
		"without an end":      signed(func(c jwt.MapClaims, _ map[string]any) { delete(c, "exp") }),
		"without a key":       signed(claim("flx", map[string]any{})),
		"a weak key":          signed(claim("flx", map[string]any{"jwk": weak})),
		"without a library":   signed(data("clientLibrary", "")),
		"a library over http": signed(data("clientLibrary", "http://apitest.cybersource.com/x.js")),
		"a library as script": signed(data("clientLibrary", "javascript:alert(1)")),
		"without integrity":   signed(data("clientLibraryIntegrity", "")),
		"a broken integrity":  signed(data("clientLibraryIntegrity", `sha256-x" onload="y`)),
		"another origin":      signed(data("targetOrigins", []string{"https://evil.example.test"})),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, p := newFlex(t)
			f.set(context, publicJWK("zu", signingKey()))
			if made, err := p.CreateContext(t.Context(), platforms.ContextRequest{Request: request, Origin: origin}); err == nil {
				t.Errorf("taken: %+v", made)
			} else if strings.Contains(err.Error(), "eyJ") {
				t.Errorf("the error holds the context: %v", err)
			}
		})
	}
}

func TestLocales(t *testing.T) {
	t.Parallel()
	for tag, want := range map[string]string{
		"en-ZA": "en_GB", "en_US": "en_US", "en": "en_US", "en-IE": "en_IE", "fr": "fr_FR", "fr-CA": "fr_FR", "pt-PT": "pt_BR",
		"de-AT": "de_DE", "ar": "ar_AE", "zh-TW": "zh_CN", "af-ZA": "en_GB", "zu": "en_GB", "es-US": "es_ES", "": "en_US", "???": "en_US",
	} {
		if got := localeFor(tag); got != want {
			t.Errorf("%q: %s, want %s", tag, got, want)
		}
	}
}

// tokenClaimsFor are the claims of a good transient token.
func tokenClaimsFor(change func(jwt.MapClaims)) jwt.MapClaims {
	claims := jwt.MapClaims{
		"iss": "Flex/08", "type": "gda-0.10.0", "iat": time.Now().Unix(), "exp": time.Now().Add(15 * time.Minute).Unix(), "jti": "1D2B0KX0FT2A",
		"content": map[string]any{"paymentInformation": map[string]any{"card": map[string]any{
			"number": map[string]any{"maskedValue": "XXXXXXXXXXXX1111", "bin": "411111", "detectedCardTypes": []string{"001"}}, "securityCode": map[string]any{},
		}}, "orderInformation": map[string]any{"amountDetails": map[string]any{"totalAmount": map[string]any{}, "currency": map[string]any{}}}},
	}
	if change != nil {
		change(claims)
	}
	return claims
}

func TestCheckToken(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testSettings("http://127.0.0.1:1"))
	now := time.Now()
	kept := conversations.CaptureContext{KeyID: contextKID, Key: mustJSON(t, publicJWK(contextKID, oneTimeKey())), ExpiresAt: now.Add(time.Minute)}
	other := conversations.CaptureContext{KeyID: "08OTHER", Key: mustJSON(t, publicJWK("08OTHER", signingKey())), ExpiresAt: now.Add(time.Minute)}
	past, mislabelled := kept, other
	past.ExpiresAt = now
	mislabelled.KeyID = contextKID
	good := signRS256(t, contextKID, oneTimeKey(), tokenClaimsFor(nil))
	hs := jwt.NewWithClaims(jwt.SigningMethodHS256, tokenClaimsFor(nil))
	hs.Header["kid"] = contextKID
	hmac, err := hs.SignedString([]byte(kept.Key))
	if err != nil {
		t.Fatal(err)
	}
	none := jwt.NewWithClaims(jwt.SigningMethodNone, tokenClaimsFor(nil))
	none.Header["kid"] = contextKID
	unsigned, err := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	pss := jwt.NewWithClaims(jwt.SigningMethodPS256, tokenClaimsFor(nil))
	pss.Header["kid"] = contextKID
	ps256, err := pss.SignedString(oneTimeKey())
	if err != nil {
		t.Fatal(err)
	}
	list := func(c ...conversations.CaptureContext) []conversations.CaptureContext { return c }
	for _, tt := range []struct {
		name, token string
		contexts    []conversations.CaptureContext
		want        error
	}{
		{"good", good, list(other, kept), nil},
		{"no context", good, nil, platforms.ErrTokenInvalid},
		{"of another request's context", good, list(other), platforms.ErrTokenInvalid},
		{"signed with another context's key", signRS256(t, contextKID, signingKey(), tokenClaimsFor(nil)), list(kept, other), platforms.ErrTokenInvalid},
		{"kid of another context", signRS256(t, "08OTHER", oneTimeKey(), tokenClaimsFor(nil)), list(kept, other), platforms.ErrTokenInvalid},
		{"stored key under another id", good, list(mislabelled), platforms.ErrTokenInvalid},
		{"context over", good, list(past), platforms.ErrTokenExpired},
		{"context over and forged", signRS256(t, contextKID, signingKey(), tokenClaimsFor(nil)), list(past), platforms.ErrTokenInvalid},
		{"token over", signRS256(t, contextKID, oneTimeKey(), tokenClaimsFor(func(c jwt.MapClaims) { c["exp"] = now.Unix() - 1 })), list(kept), platforms.ErrTokenExpired},
		{"without an end", signRS256(t, contextKID, oneTimeKey(), tokenClaimsFor(func(c jwt.MapClaims) { delete(c, "exp") })), list(kept), platforms.ErrTokenInvalid},
		{"without a jti", signRS256(t, contextKID, oneTimeKey(), tokenClaimsFor(func(c jwt.MapClaims) { delete(c, "jti") })), list(kept), platforms.ErrTokenInvalid},
		{"HS256 with the stored key", hmac, list(kept), platforms.ErrTokenInvalid},
		{"alg none", unsigned, list(kept), platforms.ErrTokenInvalid},
		{"PS256", ps256, list(kept), platforms.ErrTokenInvalid},
		{"a letter more", good + "A", list(kept), platforms.ErrTokenInvalid},
		{"a line break inside", good[:30] + "\n" + good[30:], list(kept), platforms.ErrTokenInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := p.CheckToken(tt.token, tt.contexts, now)
			if !errors.Is(err, tt.want) || (err != nil && got != platforms.Token{}) {
				t.Errorf("got %+v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestCheckTokenReadsTheMaskedCard(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testSettings("http://127.0.0.1:1"))
	contexts := []conversations.CaptureContext{{KeyID: contextKID, Key: mustJSON(t, publicJWK(contextKID, oneTimeKey())), ExpiresAt: time.Now().Add(time.Minute)}}
	card := func(number map[string]any) func(jwt.MapClaims) {
		return func(c jwt.MapClaims) {
			c["content"] = map[string]any{"paymentInformation": map[string]any{"card": map[string]any{"number": number}}}
		}
	}
	for _, tt := range []struct {
		name, brand, last4 string
		change             func(jwt.MapClaims)
	}{
		{"Visa", "Visa", "1111", nil},
		{"Mastercard", "Mastercard", "4444", card(map[string]any{"maskedValue": "XXXXXXXXXXXX4444", "detectedCardTypes": []string{"002"}})},
		{"two brands", "", "4444", card(map[string]any{"maskedValue": "XXXXXXXXXXXX4444", "detectedCardTypes": []string{"002", "036"}})},
		{"a brand to come", "", "4444", card(map[string]any{"maskedValue": "XXXXXXXXXXXX4444", "detectedCardTypes": []string{"999"}})},
		{"a wallet", "", "2701", func(c jwt.MapClaims) {
			delete(c, "content")
			c["metadata"] = map[string]any{"cardDetails": map[string]any{"suffix": "2701"}}
		}},
		{"nothing", "", "", func(c jwt.MapClaims) { delete(c, "content") }},
		{"no digits", "", "", card(map[string]any{"maskedValue": "<b>x</b>"})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			claims := maps.Clone(tokenClaimsFor(tt.change))
			got, err := p.CheckToken(signRS256(t, contextKID, oneTimeKey(), claims), contexts, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if got.CardBrand != tt.brand || got.CardLast4 != tt.last4 || got.JTI != "1D2B0KX0FT2A" || got.ExpiresAt.Unix() != claims["exp"] {
				t.Errorf("got %+v, want %s %s", got, tt.brand, tt.last4)
			}
		})
	}
}
