package checkout

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const issuer = "https://pay.example.test"

// sign makes a token with every part chosen by the test.
func sign(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for name, value := range header {
		if value == nil {
			delete(token.Header, name)
			continue
		}
		token.Header[name] = value
	}
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestLinkOpensItsRequest(t *testing.T) {
	t.Parallel()
	_, ring := newRing(t)
	for _, kind := range []LinkKind{LinkPay, LinkReceipt} {
		token, err := ring.MintLink(kind, "pr_07abc", issuer, noon)
		if err != nil {
			t.Fatal(err)
		}
		if len(token) > 512 {
			t.Errorf("%s link is %d bytes long, want a short one", kind, len(token))
		}
		got, err := ring.RedeemLink(kind, token, issuer, noon.Add(LinkLife-time.Second))
		if err != nil || got != "pr_07abc" {
			t.Errorf("%s: got %q, %v, want the request", kind, got, err)
		}
		if _, err := ring.RedeemLink(kind, token, issuer, noon.Add(LinkLife)); !errors.Is(err, ErrLinkExpired) {
			t.Errorf("%s after a day: %v, want ErrLinkExpired", kind, err)
		}
	}
}

func TestLinkHoldsAnIDAndNoData(t *testing.T) {
	t.Parallel()
	_, ring := newRing(t)
	token, err := ring.MintLink(LinkPay, "pr_07abc", issuer, noon)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"iss":"https://pay.example.test","sub":"pr_07abc","aud":"pay","exp":1768564800}`; string(payload) != want {
		t.Errorf("claims %s, want %s", payload, want)
	}
}

func TestMintLinkRefusesWhatCannotBeRedeemed(t *testing.T) {
	t.Parallel()
	_, ring := newRing(t)
	for _, tt := range []struct {
		name, id, issuer string
		kind             LinkKind
	}{
		{"no kind", "pr_1", issuer, ""},
		{"other kind", "pr_1", issuer, "refund"},
		{"no id", "", issuer, LinkPay},
		{"long id", strings.Repeat("x", maxSubject+1), issuer, LinkPay},
		{"no issuer", "pr_1", "", LinkPay},
		{"long issuer", "pr_1", "https://" + strings.Repeat("x", maxLink), LinkPay},
	} {
		if token, err := ring.MintLink(tt.kind, tt.id, tt.issuer, noon); err == nil {
			t.Errorf("%s: minted %q, want an error", tt.name, token)
		}
	}
}

func TestForgedLinksAreInvalid(t *testing.T) {
	t.Parallel()
	_, ring := newRing(t)
	_, strangers := newRing(t)
	key := ring.pair.Load().current
	kid, public := key.id, key.public()
	header := map[string]any{"kid": kid, "typ": linkType}
	claims := func(change func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{"iss": issuer, "sub": "pr_1", "aud": "pay", "exp": noon.Add(time.Hour).Unix()}
		change(c)
		return c
	}
	same := claims(func(jwt.MapClaims) {})
	eddsa := func(header map[string]any, c jwt.MapClaims) string {
		return sign(t, jwt.SigningMethodEdDSA, key.private, header, c)
	}
	good := eddsa(header, same)
	if _, err := ring.RedeemLink(LinkPay, good, issuer, noon); err != nil {
		t.Fatalf("the good link: %v", err)
	}
	strange, err := strangers.MintLink(LinkPay, "pr_1", issuer, noon)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	for _, tt := range []struct{ name, token string }{
		{"empty", ""},
		{"dots", ".."},
		{"alg none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, header, same)},
		{"alg none, signature kept", strings.Join([]string{strings.Split(sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, header, same), ".")[0], parts[1], parts[2]}, ".")},
		{"no signature", parts[0] + "." + parts[1] + "."},
		{"HS256 with the public key", sign(t, jwt.SigningMethodHS256, []byte(public), header, same)},
		{"HS256 with the public key in base64", sign(t, jwt.SigningMethodHS256, []byte(encode(public)), header, same)},
		{"HS256 with the key set", sign(t, jwt.SigningMethodHS256, ring.JWKS(), header, same)},
		{"a stranger's key and kid", strange},
		{"a stranger's key under our kid", sign(t, jwt.SigningMethodEdDSA, strangers.pair.Load().current.private, header, same)},
		{"kid unknown", eddsa(map[string]any{"kid": strangers.KeyID(), "typ": linkType}, same)},
		{"kid absent", eddsa(map[string]any{"kid": nil, "typ": linkType}, same)},
		{"kid a number", eddsa(map[string]any{"kid": 1, "typ": linkType}, same)},
		{"typ JWT", eddsa(map[string]any{"kid": kid, "typ": "JWT"}, same)},
		{"typ absent", eddsa(map[string]any{"kid": kid, "typ": nil}, same)},
		{"issuer of another merchant", eddsa(header, claims(func(c jwt.MapClaims) { c["iss"] = "https://pay.other.test" }))},
		{"issuer absent", eddsa(header, claims(func(c jwt.MapClaims) { delete(c, "iss") }))},
		{"issuer wrong and expired", eddsa(header, claims(func(c jwt.MapClaims) { c["iss"] = "https://pay.other.test"; c["exp"] = 1 }))},
		{"audience of the receipt", eddsa(header, claims(func(c jwt.MapClaims) { c["aud"] = "receipt" }))},
		{"audience wrong and expired", eddsa(header, claims(func(c jwt.MapClaims) { c["aud"] = "receipt"; c["exp"] = 1 }))},
		{"audience absent", eddsa(header, claims(func(c jwt.MapClaims) { delete(c, "aud") }))},
		{"audience a list", eddsa(header, claims(func(c jwt.MapClaims) { c["aud"] = []string{"pay", "receipt"} }))},
		{"subject absent", eddsa(header, claims(func(c jwt.MapClaims) { delete(c, "sub") }))},
		{"expiry absent", eddsa(header, claims(func(c jwt.MapClaims) { delete(c, "exp") }))},
		{"expiry a text", eddsa(header, claims(func(c jwt.MapClaims) { c["exp"] = "tomorrow" }))},
		{"trailing dot", good + "."},
		{"trailing part", good + ".e30"},
		{"trailing letter", good + "A"},
		{"trailing padding", good + "=="},
		{"trailing line break", good + "\n"},
		{"line break inside", good[:20] + "\r\n" + good[20:]},
		{"leading space", " " + good},
		{"padded claims", parts[0] + "." + parts[1] + "=." + parts[2]},
		{"stray bits in the last letter", good[:len(good)-1] + nextLetter(good[len(good)-1])},
		{"too long", good + strings.Repeat("A", maxLink)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id, err := ring.RedeemLink(LinkPay, tt.token, issuer, noon)
			if !errors.Is(err, ErrLinkInvalid) || id != "" {
				t.Errorf("got %q, %v, want ErrLinkInvalid", id, err)
			}
		})
	}
	if _, err := ring.RedeemLink(LinkPay, eddsa(header, claims(func(c jwt.MapClaims) { c["iss"] = "" })), "", noon); !errors.Is(err, ErrLinkInvalid) {
		t.Errorf("an empty issuer was taken for an empty issuer: %v", err)
	}
}

// nextLetter returns the letter that follows in the base64url alphabet. The
// last letter of 64 bytes carries only two bits, so it stands for the same
// bytes unless decoding is strict.
func nextLetter(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[(strings.IndexByte(alphabet, c)+1)%64])
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	t.Parallel()
	_, ring := newRing(t)
	token, err := ring.MintLink(LinkPay, "pr_1", issuer, noon)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(token) {
		for bit := range 8 {
			flipped := []byte(token)
			flipped[i] ^= 1 << bit
			if id, err := ring.RedeemLink(LinkPay, string(flipped), issuer, noon); !errors.Is(err, ErrLinkInvalid) {
				t.Fatalf("bit %d of byte %d flipped: got %q, %v, want ErrLinkInvalid", bit, i, id, err)
			}
		}
	}
}

func TestPreviousKeyIsAcceptedFor48Hours(t *testing.T) {
	t.Parallel()
	dir, ring := newRing(t)
	old := ring.pair.Load().current
	minted, err := ring.MintLink(LinkPay, "pr_1", issuer, noon)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Rotate(dir, noon); err != nil {
		t.Fatal(err)
	}
	if err := ring.Reload(); err != nil {
		t.Fatal(err)
	}
	if id, err := ring.RedeemLink(LinkPay, minted, issuer, noon.Add(LinkLife-time.Second)); err != nil || id != "pr_1" {
		t.Errorf("a link minted just before the rotation: %q, %v, want it to live its day", id, err)
	}
	if _, err := ring.RedeemLink(LinkPay, minted, issuer, noon.Add(LinkLife)); !errors.Is(err, ErrLinkExpired) {
		t.Errorf("the same a day later: %v, want ErrLinkExpired", err)
	}
	// A process that has not reloaded yet goes on minting with the old key; and
	// whoever got hold of it would choose a far expiry.
	late := sign(t, jwt.SigningMethodEdDSA, ed25519.PrivateKey(old.private), map[string]any{"kid": old.id, "typ": linkType},
		jwt.MapClaims{"iss": issuer, "sub": "pr_1", "aud": "pay", "exp": noon.Add(1000 * time.Hour).Unix()})
	if _, err := ring.RedeemLink(LinkPay, late, issuer, noon.Add(PreviousKeyLife-time.Second)); err != nil {
		t.Errorf("within 48 hours: %v, want it accepted", err)
	}
	if _, err := ring.RedeemLink(LinkPay, late, issuer, noon.Add(PreviousKeyLife)); !errors.Is(err, ErrLinkInvalid) {
		t.Errorf("after 48 hours: %v, want ErrLinkInvalid", err)
	}
}

func FuzzRedeemLink(f *testing.F) {
	key := newKey()
	seed, err := decode(key.D, ed25519.SeedSize)
	if err != nil {
		f.Fatal(err)
	}
	ring := &KeyRing{}
	ring.pair.Store(&keyPair{current: &signingKey{id: key.KeyID, private: ed25519.NewKeyFromSeed(seed)}})
	good, err := ring.MintLink(LinkPay, "pr_1", issuer, noon)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good + ".")
	f.Add(strings.ToUpper(good))
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		id, err := ring.RedeemLink(LinkPay, token, issuer, noon)
		if token == good {
			if err != nil || id != "pr_1" {
				t.Fatalf("the good link: %q, %v", id, err)
			}
			return
		}
		if !errors.Is(err, ErrLinkInvalid) || id != "" {
			t.Fatalf("%q opened %q, %v", token, id, err)
		}
	})
}
