package unifiedcheckout

import (
	"crypto/rsa"
	"errors"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// maxToken is far more than a transient token takes (about 3 kB).
const maxToken = 16 << 10

// tokenClaims are the claims of a transient token that are used. Everything
// else in it is withheld or not ours to know.
type tokenClaims struct {
	claimTimes
	ID       string `json:"jti"`
	Metadata struct {
		CardDetails struct {
			Suffix text `json:"suffix"`
		} `json:"cardDetails"`
	} `json:"metadata"`
	Content struct {
		PaymentInformation struct {
			Card struct {
				Number struct {
					MaskedValue       string `json:"maskedValue"`
					DetectedCardTypes []text `json:"detectedCardTypes"`
				} `json:"number"`
				Type struct {
					Value text `json:"value"`
				} `json:"type"`
			} `json:"card"`
		} `json:"paymentInformation"`
	} `json:"content"`
}

// cardBrands are CyberSource's card type codes.
var cardBrands = map[string]string{
	"001": "Visa", "002": "Mastercard", "003": "American Express", "004": "Discover", "005": "Diners Club", "007": "JCB",
	"024": "Maestro", "036": "Cartes Bancaires", "042": "Maestro", "054": "Elo", "060": "mada", "061": "RuPay",
	"062": "UnionPay", "067": "Meeza", "070": "eftpos", "081": "Jaywan",
}

// CheckToken implements platforms.Platform. The key that verifies a transient
// token is the one inside a context that we stored, never one that is fetched:
// only so does a token belong to this request.
func (p *Platform) CheckToken(token string, contexts []conversations.CaptureContext, now time.Time) (platforms.Token, error) {
	if token == "" || len(token) > maxToken || strings.ContainsAny(token, "\r\n") {
		return platforms.Token{}, platforms.ErrTokenInvalid
	}
	kid, err := keyIDOf(token)
	if err != nil {
		return platforms.Token{}, platforms.ErrTokenInvalid
	}
	key, contextEnd, err := contextKey(kid, contexts)
	if err != nil {
		return platforms.Token{}, platforms.ErrTokenInvalid
	}
	var claims tokenClaims
	if _, err := rs256.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
		return platforms.Token{}, platforms.ErrTokenInvalid
	}
	if claims.Expires == nil || claims.ID == "" || len(claims.ID) > 128 {
		return platforms.Token{}, platforms.ErrTokenInvalid
	}
	if !now.Before(contextEnd) || !now.Before(claims.Expires.Time) {
		return platforms.Token{}, platforms.ErrTokenExpired
	}
	card := claims.Content.PaymentInformation.Card
	made := platforms.Token{ExpiresAt: claims.Expires.UTC(), JTI: claims.ID, CardLast4: lastFour(card.Number.MaskedValue)}
	if made.CardLast4 == "" { // wallets have no card content
		made.CardLast4 = lastFour(string(claims.Metadata.CardDetails.Suffix))
	}
	if len(card.Number.DetectedCardTypes) == 1 { // several: the number fits more than one brand
		made.CardBrand = cardBrands[string(card.Number.DetectedCardTypes[0])]
	}
	if made.CardBrand == "" {
		made.CardBrand = cardBrands[string(card.Type.Value)]
	}
	return made, nil
}

// contextKey finds the stored key with that id and when its context ends.
func contextKey(kid string, contexts []conversations.CaptureContext) (*rsa.PublicKey, time.Time, error) {
	for _, c := range contexts {
		if c.KeyID != kid {
			continue
		}
		id, _, key, err := readJWK([]byte(c.Key))
		if err != nil || id != kid {
			return nil, time.Time{}, platforms.ErrTokenInvalid
		}
		return key, c.ExpiresAt, nil
	}
	return nil, time.Time{}, errors.New("no such context")
}

// lastFour returns the last four digits of a masked number, or nothing.
func lastFour(masked string) string {
	if len(masked) < 4 {
		return ""
	}
	last := masked[len(masked)-4:]
	if strings.Trim(last, "0123456789") != "" {
		return ""
	}
	return last
}
