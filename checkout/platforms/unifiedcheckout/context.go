package unifiedcheckout

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/text/language"

	"paythread/checkout/platforms"
	"paythread/checkout/platforms/cybersource"
	"paythread/conversations"
)

// sessionRequest is the body of POST /uc/v1/sessions. clientVersion is left
// out, as the guide recommends. Exactly one origin is listed: the library
// refuses a context that names one which is not the page's.
type sessionRequest struct {
	TargetOrigins       []string       `json:"targetOrigins"`
	AllowedCardNetworks []string       `json:"allowedCardNetworks"`
	AllowedPaymentTypes []string       `json:"allowedPaymentTypes"`
	Country             string         `json:"country"`
	Locale              string         `json:"locale"`
	ButtonType          string         `json:"buttonType"`
	CaptureMandate      captureMandate `json:"captureMandate"`
	Data                sessionData    `json:"data"`
}

type captureMandate struct {
	BillingType              string `json:"billingType"`
	RequestEmail             bool   `json:"requestEmail"`
	RequestPhone             bool   `json:"requestPhone"`
	RequestShipping          bool   `json:"requestShipping"`
	ShowAcceptedNetworkIcons bool   `json:"showAcceptedNetworkIcons"`
}

type sessionData struct {
	OrderInformation           orderInformation `json:"orderInformation"`
	ClientReferenceInformation clientReference  `json:"clientReferenceInformation"`
}

type orderInformation struct {
	AmountDetails amountDetails `json:"amountDetails"`
}

type amountDetails struct {
	TotalAmount string `json:"totalAmount"`
	Currency    string `json:"currency"`
}

type clientReference struct {
	Code          string `json:"code,omitempty"`
	TransactionID string `json:"transactionId,omitempty"`
}

func amountOf(m conversations.Money) orderInformation {
	return orderInformation{AmountDetails: amountDetails{TotalAmount: m.Decimal(), Currency: m.Currency}}
}

// CreateContext implements platforms.Platform. What comes back is verified
// before anything of it is used: it names the script that the page will load.
func (p *Platform) CreateContext(ctx context.Context, r platforms.ContextRequest) (platforms.Context, error) {
	country := r.Country
	if !countryForm.MatchString(country) {
		country = p.country
	}
	answer, err := p.client.Do(ctx, cybersource.Call{
		Method: http.MethodPost, Path: "/uc/v1/sessions", Accept: "application/jwt",
		Body: sessionRequest{
			TargetOrigins: []string{r.Origin}, AllowedCardNetworks: p.networks, AllowedPaymentTypes: p.types,
			Country: country, Locale: localeFor(r.Locale), ButtonType: "PAY",
			// The payments API wants name, address and e-mail; the widget asks for them.
			CaptureMandate: captureMandate{BillingType: "FULL", RequestEmail: true, ShowAcceptedNetworkIcons: true},
			Data: sessionData{
				OrderInformation:           amountOf(r.Request.Order.Total),
				ClientReferenceInformation: clientReference{Code: r.Request.ID},
			},
		},
	})
	if err != nil {
		return platforms.Context{}, unavailable(fmt.Errorf("create capture context: %w", err))
	}
	if answer.Status != http.StatusCreated {
		err := fmt.Errorf("create capture context: CyberSource answered %d %s (correlation id %s)", answer.Status, refusalReason(answer.Body), answer.CorrelationID)
		if answer.Status == http.StatusTooManyRequests || answer.Status >= http.StatusInternalServerError {
			return platforms.Context{}, unavailable(err)
		}
		return platforms.Context{}, err
	}
	made, err := p.readContext(ctx, string(bytes.TrimSpace(answer.Body)), r.Origin)
	if err != nil {
		return platforms.Context{}, fmt.Errorf("create capture context: %w", err)
	}
	return made, nil
}

// unavailable marks an error that may pass by itself.
func unavailable(err error) error {
	return &conversations.Error{Code: conversations.CodeUnavailable, Message: "the payment platform does not answer, try again", Err: err}
}

// refusalReason reads the platform's word from an error body of any shape.
func refusalReason(body []byte) string {
	var refusal struct {
		Reason text `json:"reason"`
	}
	if decodeStrict(body, &refusal) != nil || word(string(refusal.Reason)) == "" {
		return "without a reason"
	}
	return word(string(refusal.Reason))
}

// contextClaims are the claims of a capture context that are used.
type contextClaims struct {
	claimTimes
	Flex struct {
		JWK json.RawMessage `json:"jwk"`
	} `json:"flx"`
	Contexts []struct {
		Data struct {
			ClientLibrary          string   `json:"clientLibrary"`
			ClientLibraryIntegrity string   `json:"clientLibraryIntegrity"`
			TargetOrigins          []string `json:"targetOrigins"`
		} `json:"data"`
	} `json:"ctx"`
}

// claimTimes makes a claims type a jwt.Claims. The times are checked by hand,
// against our clock.
type claimTimes struct {
	Expires *jwt.NumericDate `json:"exp"`
}

func (c claimTimes) GetExpirationTime() (*jwt.NumericDate, error) { return c.Expires, nil }
func (c claimTimes) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil }
func (c claimTimes) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (c claimTimes) GetIssuer() (string, error)                   { return "", nil }
func (c claimTimes) GetSubject() (string, error)                  { return "", nil }
func (c claimTimes) GetAudience() (jwt.ClaimStrings, error)       { return nil, nil }

// rs256 checks form, method and signature of contexts and transient tokens.
var rs256 = jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())

var integrityForm = regexp.MustCompile(`^sha(256|384|512)-[A-Za-z0-9+/]+={0,2}$`)

func (p *Platform) readContext(ctx context.Context, token, origin string) (platforms.Context, error) {
	claims, err := p.verifyContext(ctx, token)
	if err != nil {
		return platforms.Context{}, err
	}
	if claims.Expires == nil || !p.now().Before(claims.Expires.Time) {
		return platforms.Context{}, errors.New("the capture context has no end, or it has passed")
	}
	id, key, _, err := readJWK(claims.Flex.JWK)
	if err != nil {
		return platforms.Context{}, fmt.Errorf("the capture context's key: %w", err)
	}
	made := platforms.Context{Token: token, KeyID: id, Key: key, ExpiresAt: claims.Expires.UTC()}
	for _, c := range claims.Contexts {
		if c.Data.ClientLibrary == "" {
			continue
		}
		if len(c.Data.TargetOrigins) > 0 && !slices.Contains(c.Data.TargetOrigins, origin) {
			return platforms.Context{}, errors.New("the capture context is for another origin")
		}
		made.LibraryURL, made.LibraryIntegrity = c.Data.ClientLibrary, c.Data.ClientLibraryIntegrity
		break
	}
	library, err := url.Parse(made.LibraryURL)
	if err != nil || library.Host == "" || library.User != nil || library.Scheme != "https" && (library.Scheme != "http" || !p.plainHTTP) {
		return platforms.Context{}, errors.New("the capture context names no client library under an https address")
	}
	if !integrityForm.MatchString(made.LibraryIntegrity) {
		return platforms.Context{}, errors.New("the capture context has no integrity for the client library")
	}
	return made, nil
}

// verifyContext checks the signature with the key that CyberSource publishes.
// A key that does not fit is fetched once more: it may have been replaced
// under the same id.
func (p *Platform) verifyContext(ctx context.Context, token string) (contextClaims, error) {
	kid, err := keyIDOf(token)
	if err != nil {
		return contextClaims{}, errors.New("the capture context is no token with a key id")
	}
	for fresh := false; ; fresh = true {
		key, cached, err := p.publicKey(ctx, kid, fresh)
		if err != nil {
			return contextClaims{}, err
		}
		var claims contextClaims
		_, err = rs256.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return key, nil })
		if err == nil {
			return claims, nil
		}
		if !cached {
			return contextClaims{}, errors.New("the capture context's signature is not CyberSource's")
		}
	}
}

// kidForm keeps a foreign key id from becoming more than one part of a path.
var kidForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// keyIDOf reads the kid of a token that has not been verified.
func keyIDOf(token string) (string, error) {
	part, _, _ := strings.Cut(token, ".")
	header, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return "", err
	}
	var h struct {
		KeyID string `json:"kid"`
	}
	if err := decodeStrict(header, &h); err != nil {
		return "", err
	}
	if !kidForm.MatchString(h.KeyID) {
		return "", errors.New("no key id")
	}
	return h.KeyID, nil
}

// keyCache holds published keys by id. CyberSource uses few; the bound is
// against a far end that makes one up for each call.
type keyCache struct {
	mu   sync.Mutex
	byID map[string]*rsa.PublicKey
}

const maxCachedKeys = 32

func (c *keyCache) get(id string) *rsa.PublicKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

func (c *keyCache) put(id string, key *rsa.PublicKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID == nil || len(c.byID) >= maxCachedKeys {
		c.byID = map[string]*rsa.PublicKey{}
	}
	c.byID[id] = key
}

// publicKey returns the published key, and whether it came from the cache.
func (p *Platform) publicKey(ctx context.Context, kid string, fresh bool) (key *rsa.PublicKey, cached bool, err error) {
	if key := p.keys.get(kid); key != nil && !fresh {
		return key, true, nil
	}
	answer, err := p.client.Do(ctx, cybersource.Call{Method: http.MethodGet, Path: "/flex/v2/public-keys/" + kid, Public: true})
	if err != nil {
		return nil, false, unavailable(err)
	}
	if answer.Status != http.StatusOK {
		err := fmt.Errorf("CyberSource answered %d for its public key (correlation id %s)", answer.Status, answer.CorrelationID)
		if answer.Status == http.StatusTooManyRequests || answer.Status >= http.StatusInternalServerError {
			err = unavailable(err)
		}
		return nil, false, err
	}
	id, _, key, err := readJWK(answer.Body)
	if err != nil || id != kid {
		return nil, false, errors.New("CyberSource's public key cannot be read")
	}
	p.keys.put(kid, key)
	return key, false, nil
}

// jwk is an RSA public key as a JSON Web Key.
type jwk struct {
	KeyType string `json:"kty"`
	Use     string `json:"use,omitempty"`
	KeyID   string `json:"kid"`
	N       string `json:"n"`
	E       string `json:"e"`
}

// minKeyBits is what RFC 7518 asks of RS256.
const minKeyBits, maxKeyBits = 2048, 8192

// readJWK returns the key, its id, and its JSON with the public members alone.
func readJWK(raw []byte) (id, canonical string, key *rsa.PublicKey, err error) {
	var k jwk
	if err := decodeStrict(raw, &k); err != nil || k.KeyType != "RSA" || !kidForm.MatchString(k.KeyID) {
		return "", "", nil, errors.New("is no RSA key with an id")
	}
	n, err := base64.RawURLEncoding.DecodeString(k.N)
	if err != nil {
		return "", "", nil, errors.New("its modulus cannot be read")
	}
	e, err := base64.RawURLEncoding.DecodeString(k.E)
	if err != nil || len(e) == 0 || len(e) > 4 {
		return "", "", nil, errors.New("its exponent cannot be read")
	}
	key = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	if bits := key.N.BitLen(); bits < minKeyBits || bits > maxKeyBits || key.E < 3 || key.E%2 == 0 {
		return "", "", nil, errors.New("is too weak or odd")
	}
	body, err := json.Marshal(k)
	if err != nil {
		return "", "", nil, err
	}
	return k.KeyID, string(body), key, nil
}

// locales are published values of the locale field that we have met in the
// guide: all of English, and one for each other language. en_ZA is not among
// the published ones.
var locales = map[string]string{
	"en-AE": "en_AE", "en-AU": "en_AU", "en-CA": "en_CA", "en-GB": "en_GB", "en-IE": "en_IE",
	"en-LK": "en_LK", "en-NZ": "en_NZ", "en-PK": "en_PK", "en-QA": "en_QA", "en-US": "en_US",
	"ar": "ar_AE", "de": "de_DE", "es": "es_ES", "fr": "fr_FR", "ja": "ja_JP", "pt": "pt_BR", "zh": "zh_CN",
}

// localeFor maps a BCP 47 tag to a published locale: the very one, else one of
// the same language, else English: American for the United States and for a
// tag that says nothing, British elsewhere.
func localeFor(tag string) string {
	t, err := language.Parse(strings.ReplaceAll(tag, "_", "-"))
	if err != nil {
		return "en_US"
	}
	base, _ := t.Base()
	region, confidence := t.Region()
	if l, ok := locales[base.String()+"-"+region.String()]; ok {
		return l
	}
	if l, ok := locales[base.String()]; ok {
		return l
	}
	if tag == "" || confidence == language.No || region.String() == "US" {
		return "en_US"
	}
	return "en_GB"
}

// timePointer is the platform's time, if it can be read.
func timePointer(s string) *time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05-0700"} {
		if at, err := time.Parse(layout, s); err == nil {
			at = at.UTC()
			return &at
		}
	}
	return nil
}
