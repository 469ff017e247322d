package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"paythread/conversations"
)

// A grant is a right that the maker of an agent session may give beyond its
// own order.
type grant string

// The grants.
const (
	grantReadAll grant = "read_all" // read, list and follow every payment request of the merchant, its conversations and its senders
	grantActAll  grant = "act_all"  // cancel, resend and extend every payment request of the merchant, and speak to its customers
	grantOperate grant = "operate"  // capture, reverse and refund the payment request that holds the order; with act_all, every one
)

var grants = []grant{grantReadAll, grantActAll, grantOperate}

const (
	sessionIssuer = "paythread"
	sessionType   = "agent-session+jwt"
	// maxToken bounds what is parsed at all; ours stay far below it.
	maxToken = 4096
)

// sessionClaims are what an agent session token says: the sealed order's id,
// rights and an end, and nothing about the order itself.
type sessionClaims struct {
	MerchantID  string        `json:"m"`
	SealedOrder string        `json:"so"`
	Agent       *sessionAgent `json:"agent,omitempty"`
	Grants      []grant       `json:"grants,omitempty"`
	jwt.RegisteredClaims
}

// sessionAgent is who works in the browser, as the merchant's system names them.
type sessionAgent struct {
	ID   string `json:"id,omitempty" maxLength:"64" example:"ag7" doc:"As your system names them; it stands in records and in the gateway's log."`
	Name string `json:"name,omitempty" maxLength:"64" example:"Thandi" doc:"As colleagues read it."`
}

// agentSessions mints and verifies the tokens of agents' browsers.
type agentSessions struct {
	secrets func() [][]byte // newest first; all verify
	now     func() time.Time
}

func newAgentSessions(secrets func() [][]byte, now func() time.Time) *agentSessions {
	return &agentSessions{secrets: secrets, now: now}
}

// Mint signs claims into a token that is good for ttl.
func (s *agentSessions) Mint(claims sessionClaims, ttl time.Duration) (token string, expires time.Time, err error) {
	secrets := s.secrets()
	if len(secrets) == 0 {
		return "", time.Time{}, errors.New("mint an agent session: there is no key")
	}
	now := s.now().UTC().Truncate(time.Second)
	expires = now.Add(ttl)
	claims.RegisteredClaims = jwt.RegisteredClaims{
		Issuer: sessionIssuer, ID: uuid.NewString(), IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
	}
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	t.Header["typ"] = sessionType
	if token, err = t.SignedString(secrets[0]); err != nil {
		return "", time.Time{}, fmt.Errorf("mint an agent session: %w", err)
	}
	return token, expires, nil
}

var errUnknownToken = &conversations.Error{Code: conversations.CodeUnauthorized, Message: "the API key or agent session token is not known"}

// Verify returns what a token says. It checks its length, method, type,
// signature, issuer and end, by our clock, with strict decoding. The error is
// CodeUnauthorized, with reason token_expired when all but the end is right.
func (s *agentSessions) Verify(token string) (*sessionClaims, error) {
	if len(token) > maxToken {
		return nil, errUnknownToken
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithIssuer(sessionIssuer),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(s.now), jwt.WithStrictDecoding(),
	)
	claims := &sessionClaims{}
	_, err := parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if t.Header["typ"] != sessionType {
			return nil, errors.New("this is another kind of token")
		}
		var keys jwt.VerificationKeySet
		for _, secret := range s.secrets() {
			keys.Keys = append(keys.Keys, secret)
		}
		return keys, nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, &conversations.Error{Code: conversations.CodeUnauthorized, Reason: "token_expired", Message: "the agent session has run out; get a new token"}
	case err != nil || claims.MerchantID == "" || claims.SealedOrder == "":
		return nil, errUnknownToken
	}
	return claims, nil
}

// may tells whether the session's maker granted a right.
func (c *sessionClaims) may(g grant) bool { return slices.Contains(c.Grants, g) }
