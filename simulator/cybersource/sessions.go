package cybersource

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signingKey signs contexts and results, and is published under a short kid.
type signingKey struct {
	kid string
	key *rsa.PrivateKey
}

// captureContext is an issued context. Its one-time key signs the transient tokens made from it.
type captureContext struct {
	merchant *account
	kid      string
	key      *rsa.PrivateKey
	expires  time.Time
	request  sessionRequest
}

// sessionRequest is what POST /uc/v1/sessions is checked for. Fields that are only echoed are kept raw.
type sessionRequest struct {
	ClientVersion       string          `json:"clientVersion"`
	TargetOrigins       []string        `json:"targetOrigins"`
	AllowedCardNetworks []string        `json:"allowedCardNetworks"`
	AllowedPaymentTypes []string        `json:"allowedPaymentTypes"`
	Country             string          `json:"country"`
	Locale              string          `json:"locale"`
	ButtonType          string          `json:"buttonType"`
	CaptureMandate      captureMandate  `json:"captureMandate"`
	CompleteMandate     *mandate        `json:"completeMandate"`
	Data                sessionData     `json:"data"`
	OrderInformation    json.RawMessage `json:"orderInformation"`
	ResponseOptions     struct {
		IncludeCardPrefix *bool `json:"includeCardPrefix"`
	} `json:"transientTokenResponseOptions"`
	PaymentConfigurations json.RawMessage `json:"paymentConfigurations"`
}

type captureMandate struct {
	BillingType              string   `json:"billingType,omitempty"`
	RequestEmail             *bool    `json:"requestEmail,omitempty"`
	RequestPhone             bool     `json:"requestPhone"`
	RequestShipping          bool     `json:"requestShipping"`
	ShipToCountries          []string `json:"shipToCountries,omitempty"`
	ShowAcceptedNetworkIcons bool     `json:"showAcceptedNetworkIcons"`
}

// mandate lets the widget complete the payment by itself.
type mandate struct {
	Type                   string          `json:"type"`
	DecisionManager        *bool           `json:"decisionManager,omitempty"`
	ConsumerAuthentication string          `json:"consumerAuthentication,omitempty"`
	TMS                    json.RawMessage `json:"tms,omitempty"`
}

type sessionData struct {
	OrderInformation           orderInformation `json:"orderInformation"`
	ClientReferenceInformation clientReference  `json:"clientReferenceInformation"`
}

var (
	networks = strings.Fields("VISA MASTERCARD AMEX CARNET CARTESBANCAIRES CUP DINERSCLUB DISCOVER EFTPOS ELO JAYWAN JCB JCREW KCP MADA MAESTRO MEEZA PAYPAK UATP")
	// paymentTypes holds every published value; bankTransfers are those that cannot only authorise.
	paymentTypes  = strings.Fields("PANENTRY CLICKTOPAY GOOGLEPAY APPLEPAY PAZE CHECK AFTERPAY BANCONTACT DRAGONPAY IDEAL MULTIBANCO MYBANK P24 PRZELEWY24 TINKPAYBYBANK KONBINI TMS_TOKEN PAYPAL VENMO AFFIRM")
	bankTransfers = strings.Fields("BANCONTACT DRAGONPAY IDEAL MULTIBANCO MYBANK P24 PRZELEWY24 TINKPAYBYBANK KONBINI")
	buttonTypes   = strings.Fields("PAY CHECKOUT PAY_WITH_CARD CARD_PAYMENT DEBIT_CREDIT CHECKOUT_AND_CONTINUE DONATE ADD_CARD SAVE_CARD SUBSCRIBE_WITH_CARD")
	// englishLocales is the whole published list for English; en_ZA is not in it. Other languages are
	// only checked for their form.
	englishLocales = strings.Fields("en_AE en_AU en_CA en_GB en_IE en_LK en_NZ en_PK en_QA en_US")
	localeForm     = regexp.MustCompile(`^[a-z]{2}_[A-Z]{2}$`)
	countryForm    = regexp.MustCompile(`^[A-Z]{2}$`)
)

const maxTargetOrigins = 7

// fieldError is one detail of the error body that sessions and tokens share.
type fieldError struct {
	Location string `json:"location"`
	Message  string `json:"message"`
}

// flexError is the error body of sessions, tokens and the widget.
type flexError struct {
	CorrelationID   string       `json:"correlationId"`
	Reason          string       `json:"reason"`
	Message         string       `json:"message"`
	Details         []fieldError `json:"details"`
	InformationLink string       `json:"informationLink"`
}

func flexRefusal(c *call, reason, message string, details ...fieldError) answer {
	return answer{status: http.StatusBadRequest, body: flexError{
		CorrelationID: c.correlationID, Reason: reason, Message: message, Details: append([]fieldError{}, details...),
		InformationLink: "https://developer.cybersource.com/docs/cybs/en-us/unified-checkout/developer/all/rest/unified-checkout/",
	}}
}

func (s *Simulator) readSession(c *call) (string, operation, *answer) {
	var req sessionRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		a := flexRefusal(c, "UNIFIED_PAYMENTS_VALIDATION_PARAMS", "The request could not be read", fieldError{jsonField(err), "is not of the expected type"})
		return "", nil, &a
	}
	ref := req.Data.ClientReferenceInformation.Code
	missing, invalid := s.checkSession(&req)
	if len(missing) > 0 {
		a := flexRefusal(c, "UNIFIED_PAYMENTS_VALIDATION_FIELDS", "Required fields are missing", append(missing, invalid...)...)
		return ref, nil, &a
	}
	if len(invalid) > 0 {
		a := flexRefusal(c, "UNIFIED_PAYMENTS_VALIDATION_PARAMS", "Fields have invalid values", invalid...)
		return ref, nil, &a
	}
	// Made here and not under the lock: a key takes a tenth of a second.
	key, err := s.oneTimeKey()
	if err != nil {
		a := answer{status: http.StatusInternalServerError}
		return ref, nil, &a
	}
	return ref, func(commit bool) (answer, bool) {
		if !commit {
			return answer{}, true
		}
		now := s.now()
		ctx := &captureContext{merchant: c.merchant, kid: "08" + randomText(upperAlphanumerics, 30), key: key, expires: now.Add(s.cfg.ContextLife), request: req}
		token, err := s.signContext(ctx, now)
		if err != nil {
			s.log.Error("context not signed", "error", err)
			return answer{status: http.StatusInternalServerError}, true
		}
		s.contexts[ctx.kid] = ctx
		return answer{status: http.StatusCreated, body: token, contentType: "application/jwt"}, true
	}, nil
}

// checkSession returns what is missing and what is wrong, and fills in the defaults of the account.
func (s *Simulator) checkSession(req *sessionRequest) (missing, invalid []fieldError) {
	lack := func(location string) { missing = append(missing, fieldError{location, "is required"}) }
	wrong := func(location, message string) { invalid = append(invalid, fieldError{location, message}) }

	if len(req.TargetOrigins) == 0 {
		lack("targetOrigins")
	}
	if len(req.TargetOrigins) > maxTargetOrigins {
		wrong("targetOrigins", fmt.Sprintf("has more than %d entries", maxTargetOrigins))
	}
	for i, origin := range req.TargetOrigins {
		if err := checkOrigin(origin, s.cfg.AllowHTTPOrigins); err != nil {
			wrong(fmt.Sprintf("targetOrigins[%d]", i), err.Error())
		}
	}
	switch {
	case req.Country == "":
		lack("country")
	case !countryForm.MatchString(req.Country):
		wrong("country", "is not an ISO 3166 two-letter code")
	}
	switch {
	case req.Locale == "":
		lack("locale")
	case !localeForm.MatchString(req.Locale),
		strings.HasPrefix(req.Locale, "en_") && !slices.Contains(englishLocales, req.Locale):
		wrong("locale", "is not supported")
	}

	details := req.Data.OrderInformation.AmountDetails
	inside, outside := "data.orderInformation.amountDetails", details.TotalAmount != "" || details.Currency != ""
	if len(req.OrderInformation) > 0 {
		if outside {
			wrong("orderInformation", "must not be given beside data.orderInformation")
		} else {
			wrong("orderInformation", "belongs into data")
		}
	}
	if details.Currency == "" {
		lack(inside + ".currency")
	} else if !validCurrency(details.Currency) {
		wrong(inside+".currency", "is not an ISO 4217 code")
	}
	if details.TotalAmount == "" {
		lack(inside + ".totalAmount")
	} else if _, err := parseAmount(details.TotalAmount, details.Currency); err != nil {
		wrong(inside+".totalAmount", err.Error())
	}

	listed := func(location string, values, known []string) {
		for i, v := range values {
			if !slices.Contains(known, v) {
				wrong(fmt.Sprintf("%s[%d]", location, i), "is not supported")
			}
		}
	}
	listed("allowedCardNetworks", req.AllowedCardNetworks, networks)
	listed("allowedPaymentTypes", req.AllowedPaymentTypes, paymentTypes)
	if v := req.ClientVersion; v != "" && v != "1" && !strings.HasPrefix(v, "1.") {
		wrong("clientVersion", "is not a version of this API")
	}
	if req.ButtonType != "" && !slices.Contains(buttonTypes, req.ButtonType) {
		wrong("buttonType", "is not supported")
	}
	if !slices.Contains([]string{"", "FULL", "PARTIAL", "NONE"}, req.CaptureMandate.BillingType) {
		wrong("captureMandate.billingType", "is not FULL, PARTIAL or NONE")
	}
	if m := req.CompleteMandate; m != nil {
		if !slices.Contains([]string{"AUTH", "CAPTURE", "PREFER_AUTH"}, m.Type) {
			wrong("completeMandate.type", "is not AUTH, CAPTURE or PREFER_AUTH")
		}
		if !slices.Contains([]string{"", "3DS", "PASSKEY", "NONE"}, m.ConsumerAuthentication) {
			wrong("completeMandate.consumerAuthentication", "is not 3DS, PASSKEY or NONE")
		}
		for _, t := range req.AllowedPaymentTypes {
			if m.Type == "AUTH" && slices.Contains(bankTransfers, t) {
				wrong("completeMandate.type", "AUTH is not possible with "+t)
			}
		}
	}
	if len(req.AllowedCardNetworks) == 0 {
		req.AllowedCardNetworks = []string{"VISA", "MASTERCARD", "AMEX"}
	}
	if len(req.AllowedPaymentTypes) == 0 {
		req.AllowedPaymentTypes = []string{"PANENTRY"}
	}
	if req.CaptureMandate.BillingType == "" {
		req.CaptureMandate.BillingType = "FULL"
	}
	return missing, invalid
}

// checkOrigin says what is wrong with a target origin: CyberSource wants https and a name, nothing more.
func checkOrigin(origin string, allowHTTP bool) error {
	u, err := url.Parse(origin)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.Opaque != "":
		return errors.New("is not an origin")
	case strings.Contains(origin, "*"):
		return errors.New("must not hold a wildcard")
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(origin, "#") || strings.HasSuffix(origin, "?"):
		return errors.New("must not have a path or a trailing slash")
	case u.Scheme != "https" && (!allowHTTP || u.Scheme != "http"):
		return errors.New("is not https")
	case net.ParseIP(u.Hostname()) != nil && !allowHTTP:
		return errors.New("must not be an IP address")
	}
	return nil
}

func (s *Simulator) signContext(ctx *captureContext, now time.Time) (string, error) {
	req := ctx.request
	data := map[string]any{
		"clientLibrary":          s.origin + s.library.path,
		"clientLibraryIntegrity": s.library.integrity,
		"targetOrigins":          req.TargetOrigins,
		"allowedCardNetworks":    req.AllowedCardNetworks,
		"allowedPaymentTypes":    req.AllowedPaymentTypes,
		"country":                req.Country,
		"locale":                 req.Locale,
		"clientVersion":          "1.0",
		"captureMandate":         req.CaptureMandate,
		"orderInformation":       map[string]any{"amountDetails": req.Data.OrderInformation.AmountDetails},
		"serviceOrigin":          s.origin,
		"assetsPath":             "/uc/v1/assets",
	}
	if len(req.PaymentConfigurations) > 0 {
		data["paymentConfigurations"] = req.PaymentConfigurations
	}
	flx := map[string]any{
		"path":                     "/flex/v2/tokens",
		"origin":                   s.origin,
		"jwk":                      publicJWK(ctx.kid, &ctx.key.PublicKey),
		"data":                     randomText(upperAlphanumerics, 64),
		"transientTokenOperations": []string{"CREATE"},
	}
	if req.CompleteMandate != nil {
		data["completeMandate"] = req.CompleteMandate
		flx["completePath"] = "/flex/v2/complete"
		flx["completeUrl"] = s.origin + "/flex/v2/complete"
	}
	return signRS256(s.signing.kid, s.signing.key, jwt.MapClaims{
		"flx": flx,
		"ctx": []any{map[string]any{"type": "uc-1.0", "data": data}},
		"iss": "Flex API",
		"jti": randomText(upperAlphanumerics, 16),
		"iat": now.Unix(),
		"exp": ctx.expires.Unix(),
	})
}

// signRS256 signs with the header that CyberSource writes: kid and alg only.
func signRS256(kid string, key *rsa.PrivateKey, claims jwt.Claims) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	t.Header = map[string]any{"kid": kid, "alg": "RS256"}
	return t.SignedString(key)
}

func publicJWK(kid string, key *rsa.PublicKey) map[string]string {
	return map[string]string{
		"kty": "RSA", "use": "enc", "kid": kid,
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}
}

func newRSAKey() (*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("cybersource: make a key: %w", err)
	}
	return key, nil
}

// keyPool makes keys once and hands out the same ones again.
type keyPool struct {
	mu   sync.Mutex
	made []*rsa.PrivateKey
}

// keysOfProcess are those of Config.SharedKeys.
var keysOfProcess keyPool

func (p *keyPool) first(n int) ([]*rsa.PrivateKey, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.made) < n {
		key, err := newRSAKey()
		if err != nil {
			return nil, err
		}
		p.made = append(p.made, key)
	}
	return slices.Clone(p.made[:n]), nil
}

func (s *Simulator) oneTimeKey() (*rsa.PrivateKey, error) {
	if n := len(s.shared); n > 0 {
		var b [1]byte
		_, _ = rand.Read(b[:]) // documented never to return an error
		return s.shared[int(b[0])%n], nil
	}
	return newRSAKey()
}

// servePublicKey publishes the signing key and the one-time keys of live contexts.
func (s *Simulator) servePublicKey(w http.ResponseWriter, r *http.Request) {
	kid := r.PathValue("kid")
	allowAnyOrigin(w)
	s.mu.Lock()
	ctx := s.contexts[kid]
	s.mu.Unlock()
	switch {
	case kid == s.signing.kid:
		s.write(w, newCorrelationID(), answer{status: http.StatusOK, body: publicJWK(kid, &s.signing.key.PublicKey)})
	case ctx != nil:
		s.write(w, newCorrelationID(), answer{status: http.StatusOK, body: publicJWK(kid, &ctx.key.PublicKey)})
	default:
		c := &call{correlationID: newCorrelationID()}
		a := flexRefusal(c, "NOT_FOUND", "No key has this kid", fieldError{"kid", "is unknown"})
		a.status = http.StatusNotFound
		s.write(w, c.correlationID, a)
	}
}

// contextClaims are the parts of a capture context that lead back to the issued one.
type contextClaims struct {
	Flx struct {
		JWK struct {
			Kid string `json:"kid"`
		} `json:"jwk"`
	} `json:"flx"`
	jwt.RegisteredClaims
}

// errContextExpired is returned by openContext for a context that is right but too old.
var errContextExpired = errors.New("capture context has expired")

// openContext checks a capture context's signature and age, as every browser-side call does.
func (s *Simulator) openContext(token string) (*captureContext, error) {
	var claims contextClaims
	_, err := jwt.NewParser(
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithTimeFunc(s.now), jwt.WithExpirationRequired(), jwt.WithIssuer("Flex API"),
	).ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		if t.Header["kid"] != s.signing.kid {
			return nil, errors.New("unknown kid")
		}
		return &s.signing.key.PublicKey, nil
	})
	if errors.Is(err, jwt.ErrTokenExpired) {
		return nil, errContextExpired
	}
	if err != nil {
		return nil, errors.New("capture context is not valid")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx := s.contexts[claims.Flx.JWK.Kid]
	if ctx == nil {
		return nil, errors.New("capture context is not known")
	}
	return ctx, nil
}

// contextReason is the reason that the widget gives for an error of openContext.
func contextReason(err error) (reason, message string) {
	if errors.Is(err, errContextExpired) {
		return "CAPTURE_CONTEXT_EXPIRED", "The capture context has expired. Ask for a new one."
	}
	return "CAPTURE_CONTEXT_INVALID", "The capture context is not valid."
}

// integrityOf is the value of a script's integrity attribute.
func integrityOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// jsonField names the field that could not be read, if the decoder knows it.
func jsonField(err error) string {
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) && typed.Field != "" {
		return typed.Field
	}
	return "body"
}
