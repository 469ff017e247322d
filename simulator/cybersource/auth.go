package cybersource

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// authenticationFailed is the one answer to every failed check, as CyberSource gives it. The reason is
// only logged.
var authenticationFailed = answer{
	status: http.StatusUnauthorized,
	body:   map[string]any{"response": map[string]any{"rmsg": "Authentication Failed"}},
}

const (
	// maxJWTLife is the longest a request JWT may be good for.
	maxJWTLife = 120 * time.Second
	// clockSkew is how far a client's clock may be ahead: iat has whole seconds, and clocks differ.
	clockSkew = 5 * time.Second
)

// authenticate finds the merchant that made the request. The error names the failed check for the
// log and never holds a value of the request.
func (s *Simulator) authenticate(r *http.Request, body []byte) (*account, error) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return s.authenticateJWT(token, r, body)
	}
	if header := r.Header.Get("Signature"); header != "" {
		return s.authenticateSignature(header, r, body)
	}
	return nil, errors.New("neither Signature nor Authorization: Bearer")
}

// authenticateSignature checks the HTTP Signature scheme. Both spellings of the date and of the
// request target are taken, as the string is rebuilt from the names that the client lists.
func (s *Simulator) authenticateSignature(header string, r *http.Request, body []byte) (*account, error) {
	fields := signatureFields(header)
	owner := s.byKey[fields["keyid"]]
	if owner == nil {
		return nil, errors.New("unknown keyid")
	}
	if !strings.EqualFold(fields["algorithm"], "HmacSHA256") {
		return nil, errors.New("algorithm is not HmacSHA256")
	}
	if r.Header.Get("v-c-merchant-id") != owner.id {
		return nil, errors.New("v-c-merchant-id is not the key's merchant")
	}
	names := strings.Fields(fields["headers"])
	listed := map[string]bool{}
	for _, name := range names {
		listed[strings.ToLower(name)] = true
	}
	switch {
	case !listed["host"]:
		return nil, errors.New("host is not signed")
	case !listed["date"] && !listed["v-c-date"]:
		return nil, errors.New("neither date nor v-c-date is signed")
	case !listed["request-target"] && !listed["(request-target)"]:
		return nil, errors.New("request-target is not signed")
	case !listed["v-c-merchant-id"]:
		return nil, errors.New("v-c-merchant-id is not signed")
	case len(body) > 0 && !listed["digest"]:
		return nil, errors.New("digest is not signed")
	}
	if listed["digest"] && r.Header.Get("Digest") != "SHA-256="+bodyDigest(body) {
		return nil, errors.New("digest differs from the body's")
	}
	date, err := http.ParseTime(signedDate(r))
	if err != nil {
		return nil, errors.New("date is missing or not RFC 1123")
	}
	if off := s.now().Sub(date); off > s.cfg.DateTolerance || off < -s.cfg.DateTolerance {
		return nil, errors.New("date is too far off")
	}
	given, err := base64.StdEncoding.DecodeString(fields["signature"])
	if err != nil {
		return nil, errors.New("signature is not base64")
	}
	for _, host := range hostForms(r.Host) {
		text, err := stringToSign(names, host, r)
		if err != nil {
			return nil, err
		}
		if hmac.Equal(given, signText(owner.key, text)) {
			return owner, nil
		}
	}
	return nil, errors.New("signature differs")
}

// signatureFields reads the comma separated name="value" pairs of a Signature header.
func signatureFields(header string) map[string]string {
	fields := map[string]string{}
	for part := range strings.SplitSeq(header, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if ok {
			fields[strings.ToLower(strings.TrimSpace(name))] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return fields
}

func signedDate(r *http.Request) string {
	if v := r.Header.Get("v-c-date"); v != "" {
		return v
	}
	return r.Header.Get("Date")
}

// stringToSign rebuilds what the client signed: "name: value" for each listed name, in its order.
func stringToSign(names []string, host string, r *http.Request) (string, error) {
	lines := make([]string, len(names))
	for i, name := range names {
		var value string
		switch strings.ToLower(name) {
		case "host":
			value = host
		case "request-target", "(request-target)":
			value = strings.ToLower(r.Method) + " " + r.RequestURI
		case "date", "v-c-date":
			// One guide names the header v-c-date and signs it as date, so either header will do.
			value = signedDate(r)
		default:
			if value = r.Header.Get(name); value == "" {
				return "", errors.New("a signed header is missing")
			}
		}
		lines[i] = strings.ToLower(name) + ": " + value
	}
	return strings.Join(lines, "\n"), nil
}

func signText(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func bodyDigest(body []byte) string {
	sum := sha256.Sum256(body)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// hostForms are the spellings of the host that a client may sign: as sent, and without its port,
// which CyberSource's own hosts never have.
func hostForms(host string) []string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return []string{host, name}
	}
	return []string{host}
}

// requestClaims are the version 2 claims of a request JWT.
type requestClaims struct {
	IssuedAt         int64  `json:"iat"`
	ExpiresAt        int64  `json:"exp"`
	Issuer           string `json:"iss"`
	ID               string `json:"jti"`
	Host             string `json:"request-host"`
	Method           string `json:"request-method"`
	Path             string `json:"request-resource-path"`
	Digest           string `json:"digest"`
	DigestAlgorithm  string `json:"digestAlgorithm"`
	DigestAlgorithm2 string `json:"digest-algorithm"` // as the Node SDK spells it
	Merchant         string `json:"v-c-merchant-id"`
	Version          string `json:"v-c-jwt-version"`
}

// The times are checked by authenticateJWT against the simulator's clock; the library only needs the methods.
func (requestClaims) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil }
func (requestClaims) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil }
func (requestClaims) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (requestClaims) GetIssuer() (string, error)                   { return "", nil }
func (requestClaims) GetSubject() (string, error)                  { return "", nil }
func (requestClaims) GetAudience() (jwt.ClaimStrings, error)       { return nil, nil }

var requestJWTParser = jwt.NewParser(
	jwt.WithValidMethods([]string{"HS256", "HS384", "HS512"}),
	jwt.WithoutClaimsValidation(),
	jwt.WithStrictDecoding(),
)

func (s *Simulator) authenticateJWT(token string, r *http.Request, body []byte) (*account, error) {
	var owner *account
	claims := &requestClaims{}
	_, err := requestJWTParser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string) // absent is as wrong as unknown
		if owner = s.byKey[kid]; owner == nil {
			return nil, errors.New("unknown kid")
		}
		return owner.key, nil
	})
	if err != nil {
		if owner == nil {
			return nil, errors.New("JWT is malformed, of another algorithm, or of an unknown kid")
		}
		return nil, errors.New("JWT signature differs or its claims cannot be read")
	}
	now := s.now()
	issued, expires := time.Unix(claims.IssuedAt, 0), time.Unix(claims.ExpiresAt, 0)
	switch {
	case claims.Version != "2":
		return nil, errors.New("v-c-jwt-version is not 2")
	case claims.Issuer != owner.id || claims.Merchant != owner.id:
		return nil, errors.New("iss or v-c-merchant-id is not the key's merchant")
	case claims.IssuedAt == 0 || claims.ExpiresAt == 0:
		return nil, errors.New("iat or exp is missing")
	case issued.After(now.Add(clockSkew)):
		return nil, errors.New("iat is in the future")
	case !expires.After(now):
		return nil, errors.New("JWT has expired")
	case expires.Sub(issued) > maxJWTLife:
		return nil, fmt.Errorf("exp is more than %s after iat", maxJWTLife)
	case !containsFold(hostForms(r.Host), claims.Host):
		return nil, errors.New("request-host differs")
	case !strings.EqualFold(claims.Method, r.Method):
		return nil, errors.New("request-method differs")
	case claims.Path != r.URL.Path && claims.Path != r.RequestURI:
		return nil, errors.New("request-resource-path differs")
	case claims.ID == "":
		return nil, errors.New("jti is missing")
	}
	if len(body) > 0 {
		if claims.DigestAlgorithm != "SHA-256" && claims.DigestAlgorithm2 != "SHA-256" {
			return nil, errors.New("digestAlgorithm is not SHA-256")
		}
		if claims.Digest != bodyDigest(body) {
			return nil, errors.New("digest differs from the body's")
		}
	}
	// Last, so that a refused request does not use up its jti.
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	key := owner.id + " " + claims.ID
	if _, seen := s.seenJTI[key]; seen {
		return nil, errors.New("jti was used before")
	}
	s.seenJTI[key] = expires
	return owner, nil
}

func containsFold(list []string, v string) bool {
	for _, x := range list {
		if strings.EqualFold(x, v) {
			return true
		}
	}
	return false
}
