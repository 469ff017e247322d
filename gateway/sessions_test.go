package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"paythread/conversations"
)

func TestAgentSessionTokens(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	newest, older, foreign := []byte(strings.Repeat("n", 32)), []byte(strings.Repeat("o", 32)), []byte(strings.Repeat("f", 32))
	secrets := [][]byte{older}
	s := newAgentSessions(func() [][]byte { return secrets }, func() time.Time { return now })
	claims := sessionClaims{MerchantID: "acme", SealedOrder: "so_1", Agent: &sessionAgent{ID: "ag7", Name: "Thandi"}, Grants: []grant{grantReadAll}}
	token, expires, err := s.Mint(claims, 30*time.Minute)
	if err != nil || !expires.Equal(now.Add(30*time.Minute)) {
		t.Fatalf("minted until %v, %v", expires, err)
	}
	secrets = [][]byte{newest, older} // rotated meanwhile

	// sign makes a token as somebody else might.
	sign := func(method jwt.SigningMethod, key any, typ string, change func(jwt.MapClaims)) string {
		c := jwt.MapClaims{"iss": "paythread", "m": "acme", "so": "so_1", "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(), "jti": "x"}
		if change != nil {
			change(c)
		}
		tok := jwt.NewWithClaims(method, c)
		tok.Header["typ"] = typ
		signed, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	hs := jwt.SigningMethodHS256
	parts := strings.Split(token, ".")
	tampered := func() string {
		raw, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		return parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(raw), "so_1", "so_2", 1))) + "." + parts[2]
	}()
	for _, c := range []struct {
		name, token, reason string
		good                bool
		at                  time.Duration
	}{
		{name: "ours, by the key before", token: token, good: true},
		{name: "ours, by the newest key", token: sign(hs, newest, sessionType, nil), good: true},
		{name: "in its last second", token: token, at: 30*time.Minute - time.Second, good: true},
		{name: "run out", token: token, at: 30 * time.Minute, reason: "token_expired"},
		{name: "run out and tampered", token: tampered, at: time.Hour},
		{name: "tampered", token: tampered},
		{name: "another key", token: sign(hs, foreign, sessionType, nil)},
		{name: "another method", token: sign(jwt.SigningMethodHS384, newest, sessionType, nil)},
		{name: "no signature", token: sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, sessionType, nil)},
		{name: "another type", token: sign(hs, newest, "JWT", nil)},
		{name: "another issuer", token: sign(hs, newest, sessionType, func(c jwt.MapClaims) { c["iss"] = "somebody" })},
		{name: "no end", token: sign(hs, newest, sessionType, func(c jwt.MapClaims) { delete(c, "exp") })},
		{name: "no order", token: sign(hs, newest, sessionType, func(c jwt.MapClaims) { delete(c, "so") })},
		{name: "no merchant", token: sign(hs, newest, sessionType, func(c jwt.MapClaims) { delete(c, "m") })},
		{name: "too long", token: sign(hs, newest, sessionType, func(c jwt.MapClaims) { c["x"] = strings.Repeat("x", maxToken) })},
		{name: "padded", token: token + "="},
		{name: "nothing", token: ""},
		{name: "dots", token: ".."},
	} {
		at := now.Add(c.at)
		got, err := newAgentSessions(s.secrets, func() time.Time { return at }).Verify(c.token)
		var e *conversations.Error
		switch {
		case c.good && (err != nil || got.SealedOrder != "so_1" || got.MerchantID != "acme"):
			t.Errorf("%s: %+v, %v", c.name, got, err)
		case !c.good && (!errors.As(err, &e) || e.Code != conversations.CodeUnauthorized || e.Reason != c.reason):
			t.Errorf("%s: %+v, %v; want unauthorized with reason %q", c.name, got, err, c.reason)
		}
	}

	got, err := s.Verify(token)
	if err != nil || *got.Agent != *claims.Agent || !got.may(grantReadAll) || got.may(grantActAll) {
		t.Errorf("verified %+v, %v", got, err)
	}
	secrets = [][]byte{newest}
	if _, err := s.Verify(token); err == nil {
		t.Error("a key that was dropped still verifies")
	}
	secrets = nil
	if _, _, err := s.Mint(claims, time.Minute); err == nil {
		t.Error("minted without a key")
	}
	if _, err := s.Verify(token); err == nil {
		t.Error("verified without a key")
	}

	// The panel reads these two claims; nothing of the order is in the token.
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var readable map[string]any
	if err := json.Unmarshal(raw, &readable); err != nil || readable["so"] != "so_1" || readable["exp"] == nil {
		t.Errorf("claims %s, %v", raw, err)
	}
	for name := range readable {
		if !strings.Contains(" iss m so agent grants exp iat jti ", " "+name+" ") {
			t.Errorf("the token says %s", name)
		}
	}
}
