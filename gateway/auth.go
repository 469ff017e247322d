package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
)

// callWithin bounds every call of the API. Neither of Fiber's contexts tells
// that the client left, so each has an end of its own.
const callWithin = 15 * time.Second

// call is what is known of a call of the API before its handler runs.
type call struct {
	merchant *MerchantConfig
	keyName  string            // of an API key
	session  *sessionClaims    // nil for an API key
	secret   [sha256.Size]byte // digest of the key or token, however the header was written
	cors     [][2]string       // headers for the answer, for streams, which write their own
	key      string            // Idempotency-Key
	hash     string            // of method, path and canonical body
}

type callKey struct{}

// callOf returns the call that a handler serves.
func callOf(ctx context.Context) *call {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		panic("gateway: a handler of the API runs outside enter")
	}
	return c
}

// agent names who asks, for the record; empty for a server.
func (c *call) agent() string {
	if c.session == nil || c.session.Agent == nil {
		return ""
	}
	if c.session.Agent.ID != "" {
		return c.session.Agent.ID
	}
	return c.session.Agent.Name
}

// by names who asks, for the log: the agent, or the name of the API key.
func (c *call) by() string {
	if c.session == nil {
		return c.keyName
	}
	return "agent " + c.agent()
}

// once returns what makes a change happen once under the caller's
// Idempotency-Key. Servers of a merchant share their keys; an agent session
// has those of its order, so that a renewed token still repeats its call.
func (c *call) once(scope ...string) conversations.Once {
	if c.key == "" {
		return conversations.Once{}
	}
	who := "server"
	if c.session != nil {
		who = c.session.SealedOrder
	}
	parts := append([]string{"api", c.merchant.ID, who}, scope...)
	return conversations.Once{Key: strings.Join(append(parts, c.key), ":"), Hash: c.hash}
}

// needs refuses an agent session that lacks a grant.
func (c *call) needs(g grant) error {
	if c.session != nil && !c.session.may(g) {
		return newProblem(codeForbidden, "not_granted", "this agent session may not do this; its maker can grant "+string(g))
	}
	return nil
}

// needsKey refuses agent sessions.
func (c *call) needsKey() error {
	if c.session != nil {
		return errNeedsKey
	}
	return nil
}

var errNeedsKey = newProblem(codeForbidden, "not_granted", "only a server with an API key may do this")

// enter is passed by every call of the API: headers for other origins, who is
// calling, whether they may call from there, what they sent.
func (a *api) enter(c *fiber.Ctx) (err error) {
	defer recovered(&err)
	a.allowOrigin(c)
	c.Set(fiber.HeaderCacheControl, "no-store")
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	if c.Method() == fiber.MethodOptions {
		return a.preflight(c)
	}
	who, err := a.admit(c.Get(fiber.HeaderAuthorization), c.Get(fiber.HeaderOrigin))
	if err != nil {
		return err
	}
	if who.key, err = idempotencyKey(c); err != nil {
		return err
	}
	if who.hash, err = checkBody(c); err != nil {
		return err
	}
	for _, name := range corsHeaders {
		if v := c.GetRespHeader(name); v != "" {
			who.cors = append(who.cors, [2]string{name, v})
		}
	}
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), callKey{}, who), callWithin)
	defer cancel()
	c.SetUserContext(ctx)
	return c.Next()
}

// admit says who is calling, and refuses who may not call from there.
func (a *api) admit(authorization, origin string) (*call, error) {
	who, err := a.authenticate(authorization)
	if err != nil {
		return nil, err
	}
	if origin != "" && !mayCallFrom(who.merchant, origin) {
		return nil, newProblem(codeForbidden, "origin_not_allowed", "the merchant does not allow calls from this origin; add it to allowed_origins")
	}
	return who, nil
}

// authenticate says whose API key or agent session token a call carries.
func (a *api) authenticate(header string) (*call, error) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, &conversations.Error{Code: conversations.CodeUnauthorized, Message: "send an API key or an agent session token: Authorization: Bearer ..."}
	}
	secret := sha256.Sum256([]byte(token))
	if caller, ok := a.config().Caller(token); ok {
		return &call{merchant: caller.Merchant, keyName: caller.Key, secret: secret}, nil
	}
	claims, err := a.sessions.Verify(token)
	if err != nil {
		return nil, err
	}
	merchant, ok := a.config().Merchant(claims.MerchantID)
	if !ok {
		return nil, &conversations.Error{Code: conversations.CodeUnauthorized, Message: "the merchant of this agent session is not served here any more"}
	}
	return &call{merchant: merchant, session: claims, secret: secret}, nil
}

// corsHeaders are those that allowOrigin may set.
var corsHeaders = []string{fiber.HeaderVary, fiber.HeaderAccessControlAllowOrigin, fiber.HeaderAccessControlExposeHeaders}

// allowOrigin lets pages read the answer whose origin any merchant served
// under this host allows: which merchant is called is not yet known, and a
// page must be able to read why it was refused.
func (a *api) allowOrigin(c *fiber.Ctx) {
	if !strings.HasPrefix(c.Path(), "/v1/") {
		return
	}
	c.Vary(fiber.HeaderOrigin)
	origin := c.Get(fiber.HeaderOrigin)
	if origin == "" || !slices.ContainsFunc(a.config().MerchantsAt(c.Hostname()), func(m *MerchantConfig) bool { return slices.Contains(m.AllowedOrigins, origin) }) {
		return
	}
	c.Set(fiber.HeaderAccessControlAllowOrigin, origin)
	c.Set(fiber.HeaderAccessControlExposeHeaders, "Location, Retry-After")
}

// preflight answers a browser that asks before it calls.
func (a *api) preflight(c *fiber.Ctx) error {
	if c.Get(fiber.HeaderOrigin) == "" || c.Get(fiber.HeaderAccessControlRequestMethod) == "" {
		c.Set(fiber.HeaderAllow, "GET, POST")
		return fiber.ErrMethodNotAllowed
	}
	if c.GetRespHeader(fiber.HeaderAccessControlAllowOrigin) == "" {
		return newProblem(codeForbidden, "origin_not_allowed", "no merchant here allows calls from this origin")
	}
	c.Set(fiber.HeaderAccessControlAllowMethods, "GET, POST")
	c.Set(fiber.HeaderAccessControlAllowHeaders, "Authorization, Content-Type, Idempotency-Key, Last-Event-ID")
	c.Set(fiber.HeaderAccessControlMaxAge, "600")
	return c.SendStatus(fiber.StatusNoContent)
}

// mayCallFrom tells whether a merchant's token may be used by a page of an
// origin: one that the merchant allows, or that of its own pages.
func mayCallFrom(m *MerchantConfig, origin string) bool {
	if slices.Contains(m.AllowedOrigins, origin) {
		return true
	}
	u, err := url.Parse(m.PublicURL)
	return err == nil && strings.EqualFold(origin, u.Scheme+"://"+u.Host)
}

// idempotencyKey reads and checks the header of a call that changes something.
func idempotencyKey(c *fiber.Ctx) (string, error) {
	values := c.Request().Header.PeekAll("Idempotency-Key")
	if len(values) == 0 || c.Method() != fiber.MethodPost {
		return "", nil
	}
	key := string(values[0])
	visible := !strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' })
	if len(values) > 1 || len(key) < 1 || len(key) > 255 || !visible {
		return "", conversations.Invalid("Idempotency-Key", "use one key of 1 to 255 visible ASCII characters, such as a UUID")
	}
	return key, nil
}

var errNotJSON = badRequest(fiber.StatusUnsupportedMediaType, "unsupported_media_type", "send JSON: Content-Type: application/json")

// checkBody checks a call's body before anything reads it, and returns the
// hash that tells a repeated call from another.
func checkBody(c *fiber.Ctx) (hash string, err error) {
	body := c.Request().Body() // raw: refuseEncodings has turned away what is packed
	canonical := []byte{}
	if len(body) > 0 {
		if len(body) > maxBody {
			return "", fiber.ErrRequestEntityTooLarge
		}
		media, _, _ := strings.Cut(c.Get(fiber.HeaderContentType), ";")
		if !strings.EqualFold(strings.TrimSpace(media), fiber.MIMEApplicationJSON) {
			return "", errNotJSON
		}
		c.Request().Header.SetContentType(fiber.MIMEApplicationJSON) // huma looks it up as it is written
		if canonical, err = canonicalJSON(body); err != nil {
			return "", err
		}
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(c.Method()), []byte(c.Path()), canonical} {
		h.Write(part)
		h.Write([]byte{'\n'})
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
