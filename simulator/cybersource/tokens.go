package cybersource

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// transientToken is a card that the browser handed over, until it expires or is authorized once.
type transientToken struct {
	jti      string
	merchant *account
	card     card
	billTo   billTo
	expires  time.Time
	used     bool // by a successful authorization
}

// tokenRequest makes a transient token: from the card frame with the frame's id, from a script with
// the capture context.
type tokenRequest struct {
	CaptureContext string  `json:"captureContext"`
	Frame          string  `json:"frame"`
	Card           card    `json:"card"`
	BillTo         *billTo `json:"billTo"`
}

// madeUp are the billing details of a token that a script makes without any.
func madeUp(country string) billTo {
	return billTo{
		FirstName: "Thandi", LastName: "Mokoena", Address1: "1 Long Street", Locality: "Cape Town",
		AdministrativeArea: "WC", PostalCode: "8001", Country: country, Email: "thandi@example.test",
	}
}

// readTokenRequest serves the card frame.
func (s *Simulator) readTokenRequest(c *call) (string, operation, *answer) {
	refuse := func(reason, message string, details ...fieldError) (string, operation, *answer) {
		a := flexRefusal(c, reason, message, details...)
		return "", nil, &a
	}
	// A form of another site cannot send this type without asking first, and is not allowed to.
	if mediaType, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";"); mediaType != "application/json" {
		return refuse("TOKENIZATION_ERROR", "The request is not JSON")
	}
	var req tokenRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		return refuse("TOKENIZATION_ERROR", "The request could not be read", fieldError{jsonField(err), "is not of the expected type"})
	}
	s.mu.Lock()
	f := s.frames[req.Frame]
	s.mu.Unlock()
	if f == nil {
		return refuse("CAPTURE_CONTEXT_INVALID", "The card form is not known")
	}
	ref := f.context.request.Data.ClientReferenceInformation.Code
	token, signed, details, err := s.mint(f.context, req)
	if err != nil {
		reason, message := tokenReason(err)
		a := flexRefusal(c, reason, message, details...)
		return ref, nil, &a
	}
	return ref, func(commit bool) (answer, bool) {
		if commit {
			s.tokens[token.jti] = token
		}
		return answer{status: http.StatusCreated, body: map[string]string{"transientToken": signed}}, true
	}, nil
}

// serveTransientToken makes a transient token as the browser library would, for scripts.
func (s *Simulator) serveTransientToken(w http.ResponseWriter, r *http.Request) {
	c := &call{r: r, correlationID: newCorrelationID()}
	var req tokenRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&req); err != nil {
		s.write(w, c.correlationID, flexRefusal(c, "TOKENIZATION_ERROR", "The request could not be read", fieldError{jsonField(err), "is not of the expected type"}))
		return
	}
	ctx, err := s.openContext(req.CaptureContext)
	if err != nil {
		reason, message := contextReason(err)
		s.write(w, c.correlationID, flexRefusal(c, reason, message, fieldError{"captureContext", err.Error()}))
		return
	}
	if req.BillTo == nil {
		bill := madeUp(ctx.request.Country)
		req.BillTo = &bill
	}
	token, signed, details, err := s.mint(ctx, req)
	if err != nil {
		reason, message := tokenReason(err)
		s.write(w, c.correlationID, flexRefusal(c, reason, message, details...))
		return
	}
	s.mu.Lock()
	s.tokens[token.jti] = token
	s.mu.Unlock()
	s.write(w, c.correlationID, answer{status: http.StatusCreated, body: map[string]string{"transientToken": signed}})
}

var (
	errCardInvalid     = errors.New("the card is not valid")
	errNetworkRefused  = errors.New("the card network is not allowed")
	errSignatureFailed = errors.New("the token could not be signed")
)

func tokenReason(err error) (reason, message string) {
	switch {
	case errors.Is(err, errCardInvalid):
		return "CHECKOUT_VALIDATION_PARAMS", "The card details are not valid."
	case errors.Is(err, errNetworkRefused):
		return "CHECKOUT_VALIDATION_PARAMS", "This card network is not accepted here."
	case errors.Is(err, errContextExpired):
		return contextReason(err)
	}
	return "TOKENIZATION_ERROR", "The token could not be made."
}

// mint checks the card and signs a token with the context's one-time key. It stores nothing.
func (s *Simulator) mint(ctx *captureContext, req tokenRequest) (*transientToken, string, []fieldError, error) {
	now := s.now()
	if !now.Before(ctx.expires) {
		return nil, "", nil, errContextExpired
	}
	pan := req.Card.tidy()
	if field, err := pan.check(); err != nil {
		return nil, "", []fieldError{{"card." + field, err.Error()}}, errCardInvalid
	}
	if pan.expired(now) {
		return nil, "", []fieldError{{"card.expirationYear", "is in the past"}}, errCardInvalid
	}
	network, _ := brandOf(pan.Number)
	if !slices.Contains(ctx.request.AllowedCardNetworks, network.Name) {
		return nil, "", []fieldError{{"card.number", network.Label + " is not accepted"}}, errNetworkRefused
	}
	expires := now.Add(s.cfg.TokenLife)
	t := &transientToken{
		// Real ones end in the expiry, in hexadecimal, and four more digits.
		jti:      randomText(upperAlphanumerics, 52) + fmt.Sprintf("%08X", expires.Unix()) + randomText("0123456789ABCDEF", 4),
		merchant: ctx.merchant, card: pan, expires: expires,
	}
	if req.BillTo != nil {
		t.billTo = *req.BillTo
	}
	signed, err := signRS256(ctx.kid, ctx.key, tokenClaims(ctx, t, network, now))
	if err != nil {
		return nil, "", nil, fmt.Errorf("%w: %w", errSignatureFailed, err)
	}
	return t, signed, nil, nil
}

// tokenClaims tell what was captured. An empty object stands for a value that is withheld.
func tokenClaims(ctx *captureContext, t *transientToken, network brand, now time.Time) jwt.MapClaims {
	withheld := object{}
	number := object{"maskedValue": t.card.masked(), "detectedCardTypes": []string{network.Code}}
	switch prefix := ctx.request.ResponseOptions.IncludeCardPrefix; {
	case prefix == nil:
		number["bin"] = t.card.prefix()
	case *prefix:
		number["prefix"] = t.card.Number[:8]
	}
	order := object{"amountDetails": object{"totalAmount": withheld, "currency": withheld}}
	bill := object{}
	for name, value := range map[string]string{
		"firstName": t.billTo.FirstName, "lastName": t.billTo.LastName, "address1": t.billTo.Address1,
		"address2": t.billTo.Address2, "locality": t.billTo.Locality, "administrativeArea": t.billTo.AdministrativeArea,
		"postalCode": t.billTo.PostalCode, "country": t.billTo.Country, "email": t.billTo.Email, "phoneNumber": t.billTo.PhoneNumber,
	} {
		if value != "" {
			bill[name] = withheld
		}
	}
	if len(bill) > 0 {
		order["billTo"] = bill
	}
	return jwt.MapClaims{
		"iss": "Flex/08", "type": "uc-1.0", "jti": t.jti, "iat": now.Unix(), "exp": t.expires.Unix(),
		"metadata": object{
			"sequenceNumber": 1, "paymentType": "PANENTRY", "cardholderAuthenticationStatus": false,
			"cardDetails": object{
				"prefix": t.card.prefix(), "suffix": t.card.suffix(),
				"expirationMonth": t.card.ExpirationMonth, "expirationYear": t.card.ExpirationYear,
			},
			"consumerPreference": object{"saveCard": false},
		},
		"content": object{
			"paymentInformation": object{"card": object{
				"number":          number,
				"expirationMonth": object{"value": t.card.ExpirationMonth},
				"expirationYear":  object{"value": t.card.ExpirationYear},
				"type":            object{"value": network.Code},
				"securityCode":    withheld,
			}},
			"orderInformation": order,
		},
	}
}

// verifyToken returns the token whose signature the key of its own context confirms, or nil. The
// caller holds the lock.
func (s *Simulator) verifyToken(signed string) *transientToken {
	var claims jwt.RegisteredClaims
	var ctx *captureContext
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation()).ParseWithClaims(signed, &claims, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string) // absent is as wrong as unknown
		if ctx = s.contexts[kid]; ctx == nil {
			return nil, errors.New("unknown kid")
		}
		return &ctx.key.PublicKey, nil
	})
	if err != nil {
		return nil
	}
	return s.tokens[claims.ID]
}

// usable says whether a token may still pay: it is this merchant's, alive, and no authorization with
// it has succeeded. A declined one leaves it alive.
func (s *Simulator) usable(t *transientToken, merchant *account) bool {
	return t != nil && t.merchant == merchant && !t.used && s.now().Before(t.expires)
}
