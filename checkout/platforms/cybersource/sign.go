// Package cybersource signs and makes calls of CyberSource's REST API, and
// tells a call that surely did nothing from one that may have done something.
// The platforms built on it share no more than that.
//
// Facts are from the REST getting started guide
// (developer.cybersource.com/docs/cybs/en-us/platform/developer/all/rest/rest-getting-started/).
package cybersource

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Credentials are a merchant's REST shared-secret key. One key serves both
// schemes.
type Credentials struct {
	MerchantID   string
	KeyID        string
	SharedSecret string // base64, as the Business Center shows it
}

// LogValue leaves the secret out.
func (c Credentials) LogValue() slog.Value {
	return slog.GroupValue(slog.String("merchant_id", c.MerchantID), slog.String("key_id", c.KeyID))
}

// String leaves the secret out.
func (c Credentials) String() string { return c.MerchantID + "/" + c.KeyID }

// GoString leaves the secret out, for %#v.
func (c Credentials) GoString() string { return "cybersource.Credentials{" + c.String() + "}" }

// check returns the decoded secret.
func (c Credentials) check() ([]byte, error) {
	if c.MerchantID == "" || c.KeyID == "" {
		return nil, errors.New("merchant id and key id are needed")
	}
	// Both end up in a header, the key id between quotation marks.
	if strings.ContainsFunc(c.MerchantID+c.KeyID, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
		return nil, errors.New("merchant id or key id holds a character that no header can carry")
	}
	secret, err := base64.StdEncoding.DecodeString(c.SharedSecret)
	if err != nil || len(secret) == 0 {
		return nil, errors.New("the shared secret is not base64")
	}
	return secret, nil
}

// Signer authenticates one request. body is what will be sent, byte for byte,
// and empty for a request without one. Every call makes a fresh signature, so
// a signed request must not be sent twice. sendBy is the time after which
// CyberSource should refuse the request, zero for none; only a scheme with an
// end of its own can carry it.
type Signer interface {
	Sign(req *http.Request, body []byte, sendBy time.Time) error
}

// jwtLife is the longest that CyberSource lets a request token live.
const jwtLife = 120 * time.Second

// jwtSigner sends version 2 claims as a Bearer token, signed with HS256.
//
// Its tokens end when the right to send the request does. No check of our own
// can hold that line: between the last look at the clock and the write, a
// process may be stopped for an hour, in which the payment is settled, found
// missing and made again. Woken, it writes what it had signed before, and it is
// CyberSource that refuses it.
type jwtSigner struct {
	credentials Credentials
	secret      []byte
	now         func() time.Time
	newID       func() string
}

// NewJWTSigner returns the scheme that CyberSource recommends: a JWT signed
// with the shared secret. newID makes a UUID for each request.
func NewJWTSigner(c Credentials, now func() time.Time, newID func() string) (Signer, error) {
	secret, err := c.check()
	if err != nil {
		return nil, fmt.Errorf("cybersource credentials: %w", err)
	}
	return &jwtSigner{credentials: c, secret: secret, now: now, newID: newID}, nil
}

type jwtHeader struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// jwtClaims are the version 2 claims. The method is in lower case and the
// digest's name in camel case, as the guide has them; the SDKs differ.
type jwtClaims struct {
	Digest          string `json:"digest,omitempty"`
	DigestAlgorithm string `json:"digestAlgorithm,omitempty"`
	IssuedAt        int64  `json:"iat"`
	ExpiresAt       int64  `json:"exp"`
	Issuer          string `json:"iss"`
	ID              string `json:"jti"`
	Host            string `json:"request-host"`
	Method          string `json:"request-method"`
	Path            string `json:"request-resource-path"`
	Version         string `json:"v-c-jwt-version"`
	MerchantID      string `json:"v-c-merchant-id"`
}

// Sign implements Signer.
func (s *jwtSigner) Sign(req *http.Request, body []byte, sendBy time.Time) error {
	issued := s.now()
	claims := jwtClaims{
		IssuedAt: issued.Unix(), ExpiresAt: expiry(issued, sendBy),
		Issuer: s.credentials.MerchantID, ID: s.newID(),
		Host: host(req), Method: strings.ToLower(req.Method), Path: req.URL.RequestURI(),
		Version: "2", MerchantID: s.credentials.MerchantID,
	}
	if len(body) > 0 {
		claims.Digest, claims.DigestAlgorithm = digest(body), "SHA-256"
	}
	header, err := encodePart(jwtHeader{Algorithm: "HS256", KeyID: s.credentials.KeyID, Type: "JWT"})
	if err != nil {
		return err
	}
	payload, err := encodePart(claims)
	if err != nil {
		return err
	}
	signed := header + "." + payload
	req.Header.Set("Authorization", "Bearer "+signed+"."+base64.RawURLEncoding.EncodeToString(sum(s.secret, signed)))
	return nil
}

// expiry is the end of a token in whole seconds: sendBy rounded up, so that no
// request in time is refused, and never beyond what CyberSource takes.
func expiry(issued, sendBy time.Time) int64 {
	latest := issued.Unix() + int64(jwtLife/time.Second)
	if sendBy.IsZero() {
		return latest
	}
	end := sendBy.Unix()
	if sendBy.Nanosecond() > 0 {
		end++
	}
	return min(end, latest)
}

func encodePart(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // "&" of a query stays "&"
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(bytes.TrimRight(b.Bytes(), "\n")), nil
}

// httpSigner sends the Signature header. CyberSource has deprecated it; it
// stays as a way out when a JWT is refused. Its requests have a beginning and no
// end: how long one is good for after its date, CyberSource does not say.
type httpSigner struct {
	credentials Credentials
	secret      []byte
	now         func() time.Time
}

// NewHTTPSigner returns the older scheme, HTTP Signature.
func NewHTTPSigner(c Credentials, now func() time.Time) (Signer, error) {
	secret, err := c.check()
	if err != nil {
		return nil, fmt.Errorf("cybersource credentials: %w", err)
	}
	return &httpSigner{credentials: c, secret: secret, now: now}, nil
}

// Sign implements Signer.
func (s *httpSigner) Sign(req *http.Request, body []byte, _ time.Time) error {
	names := []string{"host", "date", "request-target"}
	date := s.now().UTC().Format(http.TimeFormat)
	values := []string{host(req), date, strings.ToLower(req.Method) + " " + req.URL.RequestURI()}
	req.Header.Set("Date", date) // the guide also calls it v-c-date, but signs it as date
	if len(body) > 0 {
		value := "SHA-256=" + digest(body)
		req.Header.Set("Digest", value)
		names, values = append(names, "digest"), append(values, value)
	}
	req.Header.Set("v-c-merchant-id", s.credentials.MerchantID)
	names, values = append(names, "v-c-merchant-id"), append(values, s.credentials.MerchantID)
	var text strings.Builder
	for i, name := range names {
		if i > 0 {
			text.WriteByte('\n') // between the lines and not after the last
		}
		text.WriteString(name + ": " + values[i])
	}
	req.Header.Set("Signature", fmt.Sprintf(`keyid="%s", algorithm="HmacSHA256", headers="%s", signature="%s"`,
		s.credentials.KeyID, strings.Join(names, " "), base64.StdEncoding.EncodeToString(sum(s.secret, text.String()))))
	return nil
}

// host is what net/http will send: the Host field, not the header map.
func host(req *http.Request) string {
	if req.Host != "" {
		return req.Host
	}
	return req.URL.Host
}

// digest is over the raw bytes; one example in the guide encodes the
// hexadecimal text, which CyberSource does not accept.
func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func sum(secret []byte, text string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text)) // a hash never fails
	return mac.Sum(nil)
}
