package checkout

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

const (
	// storeWithin bounds one call of the store.
	storeWithin = 5 * time.Second
	// contextWithin bounds the platform's making of a capture context.
	contextWithin = 20 * time.Second
	// maxPress is the longest body that the page's calls have: a transient
	// token is some 3 KB.
	maxPress = 16 << 10
	// maxContexts bounds the living capture contexts of one request, because
	// each costs a call and a place in the store. A window of 15 minutes has
	// room for far fewer honest ones.
	maxContexts = 30
	nonceHeader = "X-Paythread-Nonce"
)

// Store is what the pay page needs of the store. Errors may be a
// *conversations.Error, with CodeNotFound for what does not exist.
type Store interface {
	Request(ctx context.Context, id string) (*conversations.PaymentRequest, error)
	RequestByLink(ctx context.Context, code string) (*conversations.PaymentRequest, error)
	Merchant(id string) (conversations.Merchant, bool)
	Apply(ctx context.Context, contactID string, event conversations.Event, once conversations.Once) (conversations.Applied, error)
	Now() time.Time
	// Contact and the tries are for the limits against card testing; address
	// is a name that cannot be turned back.
	Contact(ctx context.Context, id string) (*conversations.Contact, error)
	MayTry(ctx context.Context, merchantID, address string, limits conversations.CardTesting) error
	BeginTry(ctx context.Context, merchantID, address string, limits conversations.CardTesting) (conversations.Try, error)
	EndTry(ctx context.Context, try conversations.Try, declined bool) error
}

// Links mints and redeems signed links; a *KeyRing does.
type Links interface {
	MintLink(kind LinkKind, requestID, issuer string, now time.Time) (string, error)
	RedeemLink(kind LinkKind, token, issuer string, now time.Time) (requestID string, err error)
}

// Options are what a Page is made of. Those without a default are required.
type Options struct {
	Store        Store
	Links        Links
	Nonces       *Nonces
	Platform     func(merchantID string) (platforms.Platform, bool)
	PlatformName func(merchantID string) string // recorded with each attempt
	// PlatformOrigins are the origins that the merchant's platform loads its
	// library from, calls and shows frames of. The page's content policy names
	// them before any capture context exists.
	PlatformOrigins func(merchantID string) []string
	Log             *slog.Logger
	ChargeWithin    time.Duration // bounds a charge with its answer; default 40 s
	RecordWithin    time.Duration // bounds the recording of the answer; default 20 s
	// ClientAddress tells from which address on the internet a call comes;
	// default: the connection's other end, which may be a proxy.
	ClientAddress func(*fiber.Ctx) string
	// Refused is told of each press that a limit against card testing has
	// refused, and of the last try that a payment request allows.
	Refused func(limit string)
	// Charged is told what became of each charge that was sent, or was not sent
	// in time.
	Charged func(platform string, result conversations.Result)
}

// Page is the pay page: the screens a customer sees and the calls that its
// script makes. Its handlers are mounted by the gateway. Those for GET and
// HEAD change nothing, whoever asks and however often.
type Page struct {
	options Options
	render  *renderer
	log     *slog.Logger
}

// NewPage returns a Page. It fails when a required option is missing.
func NewPage(o Options) (*Page, error) {
	if o.Store == nil || o.Links == nil || o.Nonces == nil || o.Platform == nil || o.PlatformName == nil || o.PlatformOrigins == nil || o.Log == nil {
		return nil, errors.New("checkout: a page needs a store, links, nonces, platforms with names and origins, and a log")
	}
	if o.ChargeWithin == 0 {
		o.ChargeWithin = 40 * time.Second
	}
	if o.RecordWithin == 0 {
		o.RecordWithin = 20 * time.Second
	}
	if o.ClientAddress == nil {
		o.ClientAddress = func(c *fiber.Ctx) string { return c.Context().RemoteIP().String() }
	}
	if o.Refused == nil {
		o.Refused = func(string) {}
	}
	if o.Charged == nil {
		o.Charged = func(string, conversations.Result) {}
	}
	return &Page{options: o, render: newRenderer(), log: o.Log}, nil
}

// The ways in which a call of the page is refused. Anything else is a fault of
// ours or of something that we need.
var (
	errNoPlatform    = errors.New("the merchant has no payment platform")
	errForeign       = errors.New("the call does not come from the page")
	errNotPayable    = errors.New("the request cannot be paid now")
	errUnreadable    = errors.New("the call cannot be read")
	errUnexpectedLib = errors.New("the capture context names no library that the page may load")
)

// Redeem returns the payment request's id that a link opens, and the merchant's
// public base URL that it was minted for. The URL is the token's own word,
// trusted because the signature covers it: the caller compares it with that of
// the request's merchant. The errors are those of RedeemLink.
func Redeem(links Links, kind LinkKind, token string, now time.Time) (requestID, issuer string, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxLink {
		return "", "", ErrLinkInvalid
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", "", ErrLinkInvalid
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return "", "", ErrLinkInvalid
	}
	requestID, err = links.RedeemLink(kind, token, claims.Issuer, now)
	return requestID, claims.Issuer, err
}

// visit is one call under /pay/{jwt} whose link was redeemed.
type visit struct {
	token    string
	request  *conversations.PaymentRequest
	merchant conversations.Merchant
	now      time.Time
	caller   string               // of a press: names the network that it came from
	limit    *conversations.Error // keeps the customer from trying a card now, as far as is known
}

// redeem finds the payment request that the address opens.
func (p *Page) redeem(c *fiber.Ctx) (*visit, error) {
	v := &visit{token: strings.Clone(c.Params("jwt")), now: p.options.Store.Now()}
	id, issuer, err := Redeem(p.options.Links, LinkPay, v.token, v.now)
	if err != nil {
		return nil, err
	}
	if v.request, err = p.current(id); err != nil {
		return nil, err
	}
	var known bool
	if v.merchant, known = p.options.Store.Merchant(v.request.MerchantID); !known || v.merchant.PublicURL != issuer {
		return nil, ErrLinkInvalid
	}
	return v, nil
}

// FollowLink answers GET /p/{code}: it leads to the pay page by a link minted
// at this moment, whatever the payment request's state.
func (p *Page) FollowLink(c *fiber.Ctx) error {
	p.secure(c, false, nil)
	code := strings.Clone(c.Params("code"))
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	r, err := p.options.Store.RequestByLink(ctx, code)
	if err != nil {
		return p.refusePage(c, err)
	}
	// The store finds a request by its receipt's code too, which opens no payment.
	m, known := p.options.Store.Merchant(r.MerchantID)
	if !known || r.LinkCode != code {
		return p.refusePage(c, ErrLinkInvalid)
	}
	token, err := p.options.Links.MintLink(LinkPay, r.ID, m.PublicURL, p.options.Store.Now())
	if err != nil {
		return p.refusePage(c, err)
	}
	return c.Redirect(m.PublicURL+"/pay/"+token, fiber.StatusSeeOther)
}

// ShowPage answers GET /pay/{jwt} with the screen for the request's state.
func (p *Page) ShowPage(c *fiber.Ctx) error {
	p.secure(c, false, nil)
	v, err := p.redeem(c)
	if err != nil {
		return p.refusePage(c, err)
	}
	if err := p.findLimit(v); err != nil {
		return p.refusePage(c, err)
	}
	body, err := p.render.page(v, p.options.Nonces.Mint(NoncePay, v.request.ID, v.now))
	if err != nil {
		return p.refusePage(c, err)
	}
	p.secure(c, true, p.options.PlatformOrigins(v.merchant.ID))
	return c.Type("html", "utf-8").Send(body)
}

// ShowState answers GET /pay/{jwt}/state with the State, for a page that waits.
func (p *Page) ShowState(c *fiber.Ctx) error {
	p.secure(c, false, nil)
	v, err := p.redeem(c)
	if err != nil {
		return p.refuseCall(c, nil, err)
	}
	return p.sendState(c, v, fiber.StatusOK, "")
}

// ready is the answer to a press that leads to the card form.
type ready struct {
	Context          string     `json:"context"`
	Library          string     `json:"library"`
	Integrity        string     `json:"integrity"`
	ContextExpiresAt time.Time  `json:"context_expires_at"`
	PayBy            *time.Time `json:"pay_by"`
	Now              time.Time  `json:"now"`
}

// OpenRequest answers POST /pay/{jwt}/open, the press on the first screen: a
// person has opened the request. The commits come in this order: opened, which
// starts the window, then the platform's call, then the context's key, and only
// then does the browser get the context. Whatever stops in between, the page's
// next press finds the request opened and asks for a context again; and no
// browser ever holds a context whose tokens we could not verify.
func (p *Page) OpenRequest(c *fiber.Ctx) error {
	v, err := p.press(c)
	if err != nil {
		return p.refuseCall(c, v, err)
	}
	if v.request.PayBy == nil {
		outcome, err := p.apply(v, conversations.LinkOpened{RequestID: v.request.ID})
		if err != nil {
			return p.refuseCall(c, v, err)
		}
		// Refused may mean that another tab was quicker: the state decides.
		if err := p.reread(v, outcome); err != nil {
			return p.refuseCall(c, v, err)
		}
	}
	return p.issue(c, v)
}

// IssueContext answers POST /pay/{jwt}/context: a further capture context, for
// a request that is open, opened and inside its window.
func (p *Page) IssueContext(c *fiber.Ctx) error {
	v, err := p.press(c)
	if err != nil {
		return p.refuseCall(c, v, err)
	}
	return p.issue(c, v)
}

func (p *Page) issue(c *fiber.Ctx, v *visit) error {
	answer, err := p.newContext(v)
	if err != nil {
		return p.refuseCall(c, v, err)
	}
	return c.JSON(answer)
}

// crowded is the error of a press for a context while too many are alive.
type crowded struct{ until time.Time } // when the first of them ends

func (*crowded) Error() string { return "too many capture contexts are alive" }

// roomForContext refuses a further context while maxContexts are alive.
func roomForContext(contexts []conversations.CaptureContext, now time.Time) error {
	alive, first := 0, time.Time{}
	for _, kept := range contexts {
		if !now.Before(kept.ExpiresAt) {
			continue
		}
		if alive++; alive == 1 || kept.ExpiresAt.Before(first) {
			first = kept.ExpiresAt
		}
	}
	if alive >= maxContexts {
		return &crowded{first}
	}
	return nil
}

// newContext has the platform make a capture context and keeps its key.
func (p *Page) newContext(v *visit) (*ready, error) {
	r := v.request
	if !payable(r, v.now) {
		return nil, errNotPayable
	}
	if err := p.mayTry(v); err != nil {
		return nil, err
	}
	if err := roomForContext(r.Contexts, v.now); err != nil {
		return nil, err
	}
	platform, ok := p.options.Platform(r.MerchantID)
	if !ok {
		return nil, errNoPlatform
	}
	locale := r.Locale
	if locale == "" {
		locale = v.merchant.Locale
	}
	ctx, cancel := context.WithTimeout(context.Background(), contextWithin)
	defer cancel()
	made, err := platform.CreateContext(ctx, platforms.ContextRequest{
		Request: r, Origin: originOf(v.merchant.PublicURL), Locale: locale, Country: v.merchant.Country,
	})
	if err != nil {
		return nil, fmt.Errorf("create capture context: %w", err)
	}
	// The page loads the library only with its hash and from where its policy
	// allows; failing here tells the operator, failing there only the customer.
	if made.LibraryIntegrity == "" || !slices.Contains(p.options.PlatformOrigins(r.MerchantID), originOf(made.LibraryURL)) {
		return nil, errUnexpectedLib
	}
	outcome, err := p.apply(v, conversations.ContextIssued{RequestID: r.ID, Context: made.Kept()})
	if err != nil {
		return nil, err
	}
	if err := p.reread(v, outcome); err != nil {
		return nil, err
	}
	if outcome.Refused != nil {
		return nil, errNotPayable
	}
	return &ready{
		Context: made.Token, Library: made.LibraryURL, Integrity: made.LibraryIntegrity,
		ContextExpiresAt: made.ExpiresAt.UTC(), PayBy: v.request.PayBy, Now: p.options.Store.Now().UTC(),
	}, nil
}

// ChargeCard answers POST /pay/{jwt}/charge with the State after the charge.
// A press that may not charge, as the second of a double click, gets the State
// as it is.
func (p *Page) ChargeCard(c *fiber.Ctx) error {
	v, err := p.press(c)
	if err != nil {
		return p.refuseCall(c, v, err)
	}
	var body struct {
		TransientToken string `json:"transient_token"`
	}
	if err := json.Unmarshal(c.BodyRaw(), &body); err != nil || body.TransientToken == "" {
		return p.refuseCall(c, v, errUnreadable)
	}
	after, err := p.charge(v, body.TransientToken)
	if err != nil {
		return p.refuseCall(c, v, err)
	}
	v.request = after
	return p.sendState(c, v, fiber.StatusOK, "")
}

// ExtendTime answers POST /pay/{jwt}/extend: the customer's press for more time.
func (p *Page) ExtendTime(c *fiber.Ctx) error {
	v, err := p.press(c)
	if err != nil {
		return p.refuseCall(c, v, err)
	}
	outcome, err := p.apply(v, conversations.CustomerExtended{RequestID: v.request.ID})
	if err != nil {
		return p.refuseCall(c, v, err)
	}
	if err := p.reread(v, outcome); err != nil {
		return p.refuseCall(c, v, err)
	}
	if outcome.Refused != nil {
		return p.refuseCall(c, v, errNotPayable)
	}
	return p.sendState(c, v, fiber.StatusOK, "")
}

// ViewReceipt answers POST /pay/{jwt}/receipt, the press on "View receipt": the
// receipt counts as viewed, and the browser goes there. The page's script asks
// for JSON and gets the address; without it, the form is sent and gets 303.
func (p *Page) ViewReceipt(c *fiber.Ctx) error {
	v, err := p.press(c)
	if err != nil {
		return p.refuseEither(c, v, err)
	}
	location := v.merchant.PublicURL + "/pay/" + v.token // nothing to view yet: the page says why
	if v.request.Receipt != nil {
		if _, seen := v.request.Milestones[conversations.MilestoneReceiptViewed]; !seen {
			if _, err := p.apply(v, conversations.ReceiptViewed{RequestID: v.request.ID}); err != nil {
				// The customer gets the receipt all the same; the page there
				// reports the view once more.
				p.log.Error("view of a receipt not recorded", "payment_request_id", v.request.ID, "error", err)
			}
		}
		token, err := p.options.Links.MintLink(LinkReceipt, v.request.ID, v.merchant.PublicURL, v.now)
		if err != nil {
			return p.refuseEither(c, v, err)
		}
		location = v.merchant.PublicURL + "/receipts/" + token
	}
	if wantsJSON(c) {
		return c.JSON(fiber.Map{"location": location})
	}
	return c.Redirect(location, fiber.StatusSeeOther)
}

// press redeems the link of a POST and checks that it was made by a person's
// press on the page: from our own origin, with the page's nonce. The visit is
// nil or complete.
func (p *Page) press(c *fiber.Ctx) (*visit, error) {
	p.secure(c, false, nil)
	if len(c.BodyRaw()) > maxPress {
		return nil, errUnreadable
	}
	v, err := p.redeem(c)
	if err != nil {
		return nil, err
	}
	if !sameOrigin(c, originOf(v.merchant.PublicURL)) || !p.options.Nonces.Check(NoncePay, v.request.ID, nonceOf(c), v.now) {
		return nil, errForeign
	}
	v.caller = p.caller(c, v.merchant.ID)
	return v, nil
}

// sameOrigin tells whether the page itself made the call. A form's POST has
// the Origin "null" under the pages' referrer policy, and the browser's
// Sec-Fetch-Site, which no page can forge, tells where it came from.
func sameOrigin(c *fiber.Ctx, own string) bool {
	switch origin := c.Get(fiber.HeaderOrigin); origin {
	case "", "null":
		return c.Get("Sec-Fetch-Site") == "same-origin"
	default:
		return origin == own
	}
}

// nonceOf returns the nonce that a call carries: in a header, or as the field
// of a form.
func nonceOf(c *fiber.Ctx) string {
	if nonce := c.Get(nonceHeader); nonce != "" {
		return nonce
	}
	if !strings.HasPrefix(c.Get(fiber.HeaderContentType), fiber.MIMEApplicationForm) {
		return ""
	}
	fields, err := url.ParseQuery(string(c.BodyRaw()))
	if err != nil {
		return ""
	}
	return fields.Get("nonce")
}

func wantsJSON(c *fiber.Ctx) bool {
	return strings.HasPrefix(c.Get(fiber.HeaderAccept), fiber.MIMEApplicationJSON)
}

// apply commits an event of the visit's request.
func (p *Page) apply(v *visit, event conversations.Event) (conversations.Applied, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	outcome, err := p.options.Store.Apply(ctx, v.request.ContactID, event, conversations.Once{})
	if err != nil {
		return outcome, fmt.Errorf("apply %s: %w", event.Kind(), err)
	}
	return outcome, nil
}

// reread takes the request as it is after a commit.
func (p *Page) reread(v *visit, outcome conversations.Applied) error {
	v.now = p.options.Store.Now()
	if outcome.Request != nil {
		v.request = outcome.Request
		return nil
	}
	r, err := p.current(v.request.ID)
	if err != nil {
		return err
	}
	v.request = r
	return nil
}

// secure sets the headers of every answer. Live pages may load and show what
// the platform's origins serve.
func (p *Page) secure(c *fiber.Ctx, live bool, origins []string) {
	c.Set("Content-Security-Policy", p.render.policy(live, origins))
	c.Set("Permissions-Policy", permissions(origins))
	c.Set("Referrer-Policy", "no-referrer")
	c.Set("X-Content-Type-Options", "nosniff")
	c.Set("X-Robots-Tag", "noindex, nofollow")
	c.Set("Cache-Control", "no-store")
}

// sendState answers with the State, and with why a call was refused if code
// is not empty.
func (p *Page) sendState(c *fiber.Ctx, v *visit, status int, code string) error {
	v.now = p.options.Store.Now()
	if err := p.findLimit(v); err != nil {
		return p.refuseCall(c, nil, err)
	}
	state, err := p.render.texts.stateOf(v)
	if err != nil {
		return p.refuseCall(c, nil, err)
	}
	return c.Status(status).JSON(struct {
		State
		Code string `json:"code,omitempty"`
	}{state, code})
}

// refusal is how an error is told to the outside.
type refusal struct {
	status int
	code   string // of a call's answer
	notice string // prefix of a page's texts
}

// refusalOf finds out what an error means outside. Only what is our own fault,
// or that of something we need, is for the log.
func refusalOf(err error) (r refusal, log bool) {
	switch {
	case errors.Is(err, ErrLinkExpired):
		return refusal{fiber.StatusGone, "link_expired", "link_expired"}, false
	case errors.Is(err, ErrLinkInvalid), conversations.CodeOf(err) == conversations.CodeNotFound:
		return refusal{fiber.StatusNotFound, "link_invalid", "link_invalid"}, false
	case errors.Is(err, errForeign):
		return refusal{fiber.StatusForbidden, "foreign", "stale"}, false
	case errors.Is(err, errNotPayable):
		return refusal{fiber.StatusConflict, "not_payable", "unavailable"}, false
	case errors.Is(err, errUnreadable):
		return refusal{fiber.StatusBadRequest, "unreadable", "unavailable"}, false
	case errors.As(err, new(*crowded)):
		return refusal{fiber.StatusTooManyRequests, "too_many", "unavailable"}, false
	case errors.Is(err, errTokenRefused):
		return refusal{fiber.StatusUnprocessableEntity, "token_refused", "unavailable"}, true
	}
	return refusal{fiber.StatusServiceUnavailable, "unavailable", "unavailable"}, true
}

func (p *Page) logRefusal(c *fiber.Ctx, err error) refusal {
	r, log := refusalOf(err)
	if log {
		p.log.Warn("page call refused", "route", c.Route().Path, "code", r.code, "error", err)
	}
	return r
}

// refusePage answers a browser with a page that says what to do.
func (p *Page) refusePage(c *fiber.Ctx, err error) error {
	r := p.logRefusal(c, err)
	body, err := p.render.notice(r.notice, conversations.Merchant{})
	if err != nil {
		return err
	}
	return c.Status(r.status).Type("html", "utf-8").Send(body)
}

// refuseCall answers the page's script. Where the request's state is the
// reason, the State says it.
func (p *Page) refuseCall(c *fiber.Ctx, v *visit, err error) error {
	var no *limited
	if v != nil && errors.As(err, &no) {
		return p.refuseLimited(c, v, no)
	}
	var full *crowded
	if errors.As(err, &full) {
		p.retryAfter(c, full.until)
	}
	r := p.logRefusal(c, err)
	if v != nil && r.status == fiber.StatusConflict {
		return p.sendState(c, v, r.status, r.code)
	}
	return c.Status(r.status).JSON(fiber.Map{"code": r.code, "message": p.render.texts[r.notice+"_message"]})
}

// refuseEither answers whoever asked, the script or a form.
func (p *Page) refuseEither(c *fiber.Ctx, v *visit, err error) error {
	if wantsJSON(c) {
		return p.refuseCall(c, v, err)
	}
	return p.refusePage(c, err)
}

// originOf returns the origin of an address as a browser writes it, or "".
func originOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return ""
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return scheme + "://" + host
}
