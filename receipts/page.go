package receipts

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
)

const (
	// storeWithin bounds one call of the store.
	storeWithin = 5 * time.Second
	nonceHeader = "X-Paythread-Nonce"
	// noncePurpose keeps the nonces of other pages out.
	noncePurpose = "receipt"
)

// ErrLinkExpired is what Options.Redeem returns, or wraps, for a link that is
// right in everything but its time.
var ErrLinkExpired = errors.New("the link has expired")

// Store is what the receipt page needs of the store. Errors may be a
// *conversations.Error, with CodeNotFound for what does not exist.
type Store interface {
	Request(ctx context.Context, id string) (*conversations.PaymentRequest, error)
	RequestByLink(ctx context.Context, code string) (*conversations.PaymentRequest, error)
	Merchant(id string) (conversations.Merchant, bool)
	Apply(ctx context.Context, contactID string, event conversations.Event, once conversations.Once) (conversations.Applied, error)
	Now() time.Time
}

// Nonces makes and checks the values that prove that a call comes from our own
// page.
type Nonces interface {
	Mint(purpose, requestID string, now time.Time) string
	Check(purpose, requestID, nonce string, now time.Time) bool
}

// Options are what a Page is made of. All of them are required.
type Options struct {
	Store Store
	// Mint returns a link's token for a payment request's receipt, good under
	// that issuer, the merchant's public base URL.
	Mint func(requestID, issuer string, now time.Time) (string, error)
	// Redeem is its reverse. An error that is not ErrLinkExpired says that the
	// link is not valid.
	Redeem func(token string, now time.Time) (requestID, issuer string, err error)
	Nonces Nonces
	Log    *slog.Logger
}

// Page is the receipt's page. Its handlers are mounted by the gateway. Those
// for GET and HEAD change nothing, whoever asks and however often.
type Page struct {
	options    Options
	template   *template.Template
	styleHash  string
	scriptHash string
}

//go:embed web/receipt.html
var pageTemplate string

//go:embed web/receipt.css
var pageStyle string

//go:embed web/receipt.js
var pageScript string

// NewPage returns a Page. It fails when an option is missing.
func NewPage(o Options) (*Page, error) {
	if o.Store == nil || o.Mint == nil || o.Redeem == nil || o.Nonces == nil || o.Log == nil {
		return nil, errors.New("receipts: a page needs a store, links, nonces and a log")
	}
	return &Page{
		options: o,
		template: template.Must(template.New("").Funcs(template.FuncMap{
			"t":       english.text,
			"date":    func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") },
			"rfc3339": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
			"style":   func() template.HTML { return template.HTML("<style>" + pageStyle + "</style>") },
			"script":  func() template.HTML { return template.HTML("<script>" + pageScript + "</script>") },
		}).Parse(pageTemplate)),
		styleHash:  sourceHash(pageStyle),
		scriptHash: sourceHash(pageScript),
	}, nil
}

// sourceHash returns the content policy's name for an inline style or script.
func sourceHash(source string) string {
	h := sha256.Sum256([]byte(source))
	return "'sha256-" + base64.StdEncoding.EncodeToString(h[:]) + "'"
}

var (
	errLinkInvalid = errors.New("the link is not valid")
	errForeign     = errors.New("the call does not come from the page")
)

// view is what a page is rendered from: a document, or a few words.
type view struct {
	Lang      string
	PageTitle string
	Merchant  string
	Initial   string
	Sandbox   bool
	Nonce     string
	Document  *Document
	Title     string
	Message   string
}

// visit is one call under /receipts/{jwt} whose link was redeemed.
type visit struct {
	request  *conversations.PaymentRequest
	merchant conversations.Merchant
	now      time.Time
}

// FollowLink answers GET /r/{code}: it leads to the receipt by a link minted at
// this moment, whatever the payment request's state.
func (p *Page) FollowLink(c *fiber.Ctx) error {
	p.secure(c)
	code := strings.Clone(c.Params("code"))
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	r, err := p.options.Store.RequestByLink(ctx, code)
	if err != nil {
		return p.refuse(c, err)
	}
	// The store finds a request by its payment link's code too, which shows no receipt.
	m, known := p.options.Store.Merchant(r.MerchantID)
	if !known || r.ReceiptCode != code {
		return p.refuse(c, errLinkInvalid)
	}
	token, err := p.options.Mint(r.ID, m.PublicURL, p.options.Store.Now())
	if err != nil {
		return p.refuse(c, err)
	}
	return c.Redirect(m.PublicURL+"/receipts/"+token, fiber.StatusSeeOther)
}

// ShowReceipt answers GET /receipts/{jwt} with the document, or with a page
// that says that there is none yet.
func (p *Page) ShowReceipt(c *fiber.Ctx) error {
	p.secure(c)
	v, err := p.redeem(c)
	if err != nil {
		return p.refuse(c, err)
	}
	shown := view{Merchant: v.merchant.Name, Sandbox: v.request.Sandbox || v.merchant.Sandbox}
	if document, paid := DocumentOf(v.request); paid {
		shown.Document, shown.Merchant = document, document.MerchantName
		shown.PageTitle = english.text("page_title", "number", document.Number, "merchant", document.MerchantName)
		shown.Nonce = p.options.Nonces.Mint(noncePurpose, v.request.ID, v.now)
	} else {
		shown.PageTitle = english["not_paid_title"]
		shown.Title, shown.Message = shown.PageTitle, english.text("not_paid_message", "merchant", v.merchant.Name)
	}
	return p.send(c, fiber.StatusOK, shown)
}

// RecordView answers POST /receipts/{jwt}/viewed: a person's first input on the
// page. Repeats are harmless and answered alike.
func (p *Page) RecordView(c *fiber.Ctx) error {
	p.secure(c)
	v, err := p.redeem(c)
	if err != nil {
		return p.refuseCall(c, err)
	}
	if !sameOrigin(c, originOf(v.merchant.PublicURL)) || !p.options.Nonces.Check(noncePurpose, v.request.ID, c.Get(nonceHeader), v.now) {
		return p.refuseCall(c, errForeign)
	}
	_, seen := v.request.Milestones[conversations.MilestoneReceiptViewed]
	if v.request.Receipt != nil && !seen {
		ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
		defer cancel()
		event := conversations.ReceiptViewed{RequestID: v.request.ID}
		if _, err := p.options.Store.Apply(ctx, v.request.ContactID, event, conversations.Once{}); err != nil {
			return p.refuseCall(c, fmt.Errorf("apply %s: %w", event.Kind(), err))
		}
	}
	return c.SendStatus(fiber.StatusNoContent)
}

// redeem finds the payment request that the address opens. The issuer is the
// token's own word, so it is held against the request's merchant.
func (p *Page) redeem(c *fiber.Ctx) (*visit, error) {
	v := &visit{now: p.options.Store.Now()}
	id, issuer, err := p.options.Redeem(strings.Clone(c.Params("jwt")), v.now)
	if errors.Is(err, ErrLinkExpired) {
		return nil, err
	} else if err != nil {
		return nil, errLinkInvalid
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	if v.request, err = p.options.Store.Request(ctx, id); err != nil {
		return nil, err
	}
	var known bool
	if v.merchant, known = p.options.Store.Merchant(v.request.MerchantID); !known || v.merchant.PublicURL != issuer {
		return nil, errLinkInvalid
	}
	return v, nil
}

// sameOrigin tells whether the page itself made the call, by the browser's own
// word, which no page can forge.
func sameOrigin(c *fiber.Ctx, own string) bool {
	switch origin := c.Get(fiber.HeaderOrigin); origin {
	case "", "null":
		return c.Get("Sec-Fetch-Site") == "same-origin"
	default:
		return origin == own
	}
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

// secure sets the headers of every answer. The policy allows the page's own
// style and script by their hashes, its one call, and nothing else.
func (p *Page) secure(c *fiber.Ctx) {
	c.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "+
		"script-src "+p.scriptHash+"; style-src "+p.styleHash+"; connect-src 'self'")
	c.Set("Permissions-Policy", "payment=(), camera=(), microphone=(), geolocation=(), usb=()")
	c.Set("Referrer-Policy", "no-referrer")
	c.Set("X-Content-Type-Options", "nosniff")
	c.Set("X-Robots-Tag", "noindex, nofollow")
	c.Set("Cache-Control", "no-store")
}

// refusal returns the status and the texts' prefix for an error, after logging
// what is our fault or that of something we need.
func (p *Page) refusal(c *fiber.Ctx, err error) (status int, notice string) {
	switch {
	case errors.Is(err, ErrLinkExpired):
		return fiber.StatusGone, "link_expired"
	case errors.Is(err, errLinkInvalid), conversations.CodeOf(err) == conversations.CodeNotFound:
		return fiber.StatusNotFound, "link_invalid"
	case errors.Is(err, errForeign):
		return fiber.StatusForbidden, "link_expired" // opening it again helps
	}
	p.options.Log.Warn("receipt call refused", "route", c.Route().Path, "error", err)
	return fiber.StatusServiceUnavailable, "unavailable"
}

// refuse answers a browser with a page that says what to do.
func (p *Page) refuse(c *fiber.Ctx, err error) error {
	status, notice := p.refusal(c, err)
	title := english[notice+"_title"]
	return p.send(c, status, view{PageTitle: title, Title: title, Message: english[notice+"_message"]})
}

// refuseCall answers the page's script.
func (p *Page) refuseCall(c *fiber.Ctx, err error) error {
	status, notice := p.refusal(c, err)
	return c.Status(status).JSON(fiber.Map{"message": english[notice+"_message"]})
}

// send renders to a buffer: a page is sent whole or not at all.
func (p *Page) send(c *fiber.Ctx, status int, v view) error {
	v.Lang, v.Initial = "en", initial(v.Merchant)
	var b bytes.Buffer
	if err := p.template.ExecuteTemplate(&b, "page", v); err != nil {
		return fmt.Errorf("render receipt: %w", err)
	}
	return c.Status(status).Type("html", "utf-8").Send(b.Bytes())
}

// initial returns the letter that stands for a merchant.
func initial(name string) string {
	for _, r := range name {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return string(unicode.ToUpper(r))
		}
	}
	return ""
}
