// Package checkout leads a customer from a message to a payment: signed links
// and their keys, the pay page, and the payment platforms behind it.
package checkout

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// LinkLife is how long a link is good for after it was minted. A short code in
// a message mints a new one each time, so this bounds what a copied address is
// worth; it says nothing about the payment request, whose state decides.
const LinkLife = 24 * time.Hour

// LinkKind is what a link leads to. It is the token's audience.
type LinkKind string

// The kinds of link.
const (
	LinkPay     LinkKind = "pay"     // the pay page
	LinkReceipt LinkKind = "receipt" // the receipt
)

// The two ways in which a link is refused.
var (
	// ErrLinkExpired is returned for a link that is right in everything but its
	// time. The customer is asked to open the link in the message again.
	ErrLinkExpired = errors.New("the link has expired")
	// ErrLinkInvalid is returned for everything else: it says no more, because
	// whoever forges links learns from it.
	ErrLinkInvalid = errors.New("the link is not valid")
)

const (
	linkType   = "link+jwt" // explicit typing, RFC 8725 section 3.11
	linkMethod = "EdDSA"
	// maxLink is refused before it is parsed. A link is some 350 bytes long.
	maxLink = 2 << 10
	// maxSubject is more than any payment request's id takes.
	maxSubject = 64
)

// linkClaims is all that a link says: who issued it, what it is for, until
// when, and which payment request it opens.
type linkClaims struct {
	Issuer   string           `json:"iss"`
	Subject  string           `json:"sub"`
	Audience string           `json:"aud"`
	Expires  *jwt.NumericDate `json:"exp"`
}

// The methods that make linkClaims a jwt.Claims.
func (c linkClaims) GetExpirationTime() (*jwt.NumericDate, error) { return c.Expires, nil }
func (c linkClaims) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil }
func (c linkClaims) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (c linkClaims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c linkClaims) GetSubject() (string, error)                  { return c.Subject, nil }
func (c linkClaims) GetAudience() (jwt.ClaimStrings, error)       { return jwt.ClaimStrings{c.Audience}, nil }

// MintLink returns a token that opens one payment request for LinkLife from
// now on. issuer is the merchant's public base URL; the token is good under
// that one only. It holds the request's id and no other data.
func (k *KeyRing) MintLink(kind LinkKind, requestID, issuer string, now time.Time) (string, error) {
	if kind != LinkPay && kind != LinkReceipt {
		return "", fmt.Errorf("mint link: %q is no kind of link", kind)
	}
	if requestID == "" || len(requestID) > maxSubject || issuer == "" {
		return "", errors.New("mint link: a request id of at most 64 characters and an issuer are needed")
	}
	key := k.pair.Load().current
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, linkClaims{
		Issuer: issuer, Subject: requestID, Audience: string(kind), Expires: jwt.NewNumericDate(now.Add(LinkLife)),
	})
	token.Header["typ"] = linkType
	token.Header["kid"] = key.id
	signed, err := token.SignedString(key.private)
	if err != nil {
		return "", fmt.Errorf("mint link: %w", err)
	}
	if len(signed) > maxLink {
		return "", errors.New("mint link: the issuer is too long")
	}
	return signed, nil
}

// linkParser checks form, method and signature. The claims are checked by
// RedeemLink, because the library cannot tell a link that is only late from
// one that is late and wrong.
var linkParser = jwt.NewParser(
	jwt.WithValidMethods([]string{linkMethod}),
	jwt.WithStrictDecoding(),
	jwt.WithoutClaimsValidation(),
)

// RedeemLink returns the id of the payment request that a token opens, or
// ErrLinkExpired or ErrLinkInvalid. It checks, in this order:
//
//   - length: at most 2 KB, before anything is parsed;
//   - strict decoding: three parts, unpadded base64url without stray bits or
//     line breaks, nothing after them;
//   - method: EdDSA and no other, whatever the token says;
//   - kid: the current key's, or the previous one's until 48 hours after its
//     stored time of retirement;
//   - the signature;
//   - typ: a link, no other kind of token signed with the same key;
//   - issuer: this merchant's public base URL;
//   - audience: the kind of link that the route is for;
//   - subject: a request id;
//   - expiry: present, and not before now by our clock, without leeway.
func (k *KeyRing) RedeemLink(kind LinkKind, token, issuer string, now time.Time) (requestID string, err error) {
	// The library's decoder skips line breaks, so that one token would have many spellings.
	if token == "" || len(token) > maxLink || strings.ContainsAny(token, "\r\n") {
		return "", ErrLinkInvalid
	}
	var claims linkClaims
	parsed, err := linkParser.ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string) // no kid is as unknown as any
		public, ok := k.find(id, now)
		if !ok {
			return nil, ErrLinkInvalid
		}
		return public, nil
	})
	switch {
	case err != nil:
		return "", ErrLinkInvalid
	case parsed.Header["typ"] != linkType:
		return "", ErrLinkInvalid
	case issuer == "" || claims.Issuer != issuer:
		return "", ErrLinkInvalid
	case claims.Audience != string(kind):
		return "", ErrLinkInvalid
	case claims.Subject == "" || len(claims.Subject) > maxSubject:
		return "", ErrLinkInvalid
	case claims.Expires == nil:
		return "", ErrLinkInvalid
	case !now.Before(claims.Expires.Time):
		return "", ErrLinkExpired
	}
	return claims.Subject, nil
}
