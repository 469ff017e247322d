package checkout

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode"

	"paythread/conversations"
)

// State is what the pay page knows of a payment request, and all that its
// script is told. Screen, Title and Message are what the customer sees; they
// never hold the platform's own words.
type State struct {
	Screen    string                  `json:"screen"`
	Mark      string                  `json:"mark,omitempty"` // ok, warn, stop, hold or wait
	Title     string                  `json:"title"`
	Message   string                  `json:"message"`
	Lifecycle conversations.Lifecycle `json:"lifecycle"`
	Reason    string                  `json:"reason,omitempty"`
	Attempt   *AttemptView            `json:"attempt,omitempty"` // the last one
	Opened    bool                    `json:"opened"`
	PayBy     *time.Time              `json:"pay_by,omitempty"` // end of the window to pay, once opened
	CanRetry  bool                    `json:"can_retry"`        // a card may be entered now, or again
	Receipt   bool                    `json:"receipt"`          // there is a receipt to be viewed
	Now       time.Time               `json:"now"`              // the store's clock
}

// AttemptView is what the page tells of an attempt.
type AttemptView struct {
	N     int                        `json:"n"`
	State conversations.AttemptState `json:"state"`
	Text  string                     `json:"text"` // for the customer; empty when the screen says it all
}

// lasting are the screens of lifecycles that need no second look. Texts are
// those of the screen's name with _title and _message.
var lasting = map[conversations.Lifecycle]struct{ screen, mark string }{
	conversations.Processing:        {"processing", "wait"},
	conversations.Paid:              {"paid", "ok"},
	conversations.Authorized:        {"authorized", "ok"},
	conversations.InReview:          {"in_review", "hold"},
	conversations.Failed:            {"failed", "stop"},
	conversations.Reversed:          {"reversed", "warn"},
	conversations.PartiallyRefunded: {"partially_refunded", "ok"},
	conversations.Refunded:          {"refunded", "warn"},
}

// unsuccessful are the ends of an attempt that let the customer try again,
// with the text that says so.
var unsuccessful = map[conversations.AttemptState]string{
	conversations.AttemptDeclined: "declined_message",
	conversations.AttemptNotTaken: "not_taken_message",
	conversations.AttemptNotFound: "not_taken_message",
	conversations.AttemptReversed: "returned_message",
}

// payable tells whether the customer may enter a card now: the request is
// open, was opened by a person, and its window runs.
func payable(r *conversations.PaymentRequest, now time.Time) bool {
	return r.Lifecycle == conversations.Open && !r.Superseded && r.PayBy != nil && now.Before(*r.PayBy)
}

// stateOf reads the state of a request's page. It never trusts that a timer
// has fired: a window that is over reads as over.
func (t texts) stateOf(r *conversations.PaymentRequest, m conversations.Merchant, now time.Time) (State, error) {
	s := State{
		Lifecycle: r.Lifecycle, Reason: r.Reason, Opened: r.PayBy != nil, PayBy: r.PayBy,
		CanRetry: payable(r, now), Receipt: r.Receipt != nil, Now: now.UTC(),
	}
	title, message := t.screenOf(r, now, &s)
	words := []any{"merchant", m.Name, "amount", r.Order.Total}
	var err error
	if s.Title, err = t.text(title, words...); err != nil {
		return State{}, err
	}
	if message != "" {
		if s.Message, err = t.text(message, words...); err != nil {
			return State{}, err
		}
	}
	if n := len(r.Attempts); n > 0 {
		last := r.Attempts[n-1]
		s.Attempt = &AttemptView{N: last.N, State: last.State}
		if key := attemptText(last); key != "" {
			if s.Attempt.Text, err = t.text(key, words...); err != nil {
				return State{}, err
			}
		}
	}
	return s, nil
}

// attemptText names the text for an attempt that came to nothing, or "".
func attemptText(a conversations.Attempt) string {
	if a.State == conversations.AttemptDeclined && a.Result.Final {
		return "declined_final"
	}
	return unsuccessful[a.State]
}

// screenOf fills in the screen and its mark, and names its texts.
func (t texts) screenOf(r *conversations.PaymentRequest, now time.Time, s *State) (title, message string) {
	show := func(screen, mark string) (string, string) {
		s.Screen, s.Mark = screen, mark
		return screen + "_title", screen + "_message"
	}
	expired := func(reason string) (string, string) {
		title, _ := show("expired", "hold")
		if reason == conversations.ReasonNotPaid {
			return title, "expired_not_paid"
		}
		return title, "expired_not_opened"
	}
	if r.Reason == conversations.ReasonReversing && (r.Lifecycle == conversations.Paid || r.Lifecycle == conversations.Authorized) {
		return show("reversing", "warn")
	}
	if known, ok := lasting[r.Lifecycle]; ok && (r.Lifecycle != conversations.Failed || !r.Superseded) {
		return show(known.screen, known.mark)
	}
	switch {
	case r.Lifecycle == conversations.Cancelled && r.Reason == conversations.ReasonAlreadyPaid:
		return show("already_paid", "ok")
	case r.Superseded:
		return show("superseded", "warn")
	case r.Lifecycle == conversations.Cancelled:
		return show("cancelled", "stop")
	case r.Lifecycle == conversations.Expired:
		return expired(r.Reason)
	case r.Lifecycle != conversations.Open:
		return show("unavailable", "warn") // a lifecycle that this version does not know
	case r.PayBy == nil && !now.Before(r.OpenBy):
		return expired(conversations.ReasonNotOpened)
	case r.PayBy != nil && !s.CanRetry:
		return expired(conversations.ReasonNotPaid)
	}
	if n := len(r.Attempts); n > 0 {
		if text := attemptText(r.Attempts[n-1]); text != "" {
			title, _ := show("declined", "warn")
			return title, text
		}
	}
	s.Screen = "ask"
	return "ask_title", ""
}

// sum is one row under the line items.
type sum struct {
	Name   string
	Amount conversations.Money
	Total  bool
}

// sumsOf lists the rows under the line items, leaving out what is nothing.
func (t texts) sumsOf(o conversations.Order) []sum {
	var rows []sum
	add := func(key string, m conversations.Money) {
		if m.Minor != 0 {
			rows = append(rows, sum{Name: t[key], Amount: m})
		}
	}
	add("subtotal", o.Subtotal)
	add("discount", conversations.Money{Minor: -o.Discount.Minor, Currency: o.Discount.Currency})
	add("shipping", o.Shipping)
	add("tax", o.Tax)
	return append(rows, sum{Name: t["total"], Amount: o.Total, Total: true})
}

// view is what a page is rendered from. Live pages have a payment request and
// the script; the others are a few words.
type view struct {
	Lang          string
	PageTitle     string
	Merchant      conversations.Merchant
	Initial       string
	Sandbox       bool
	Live          bool
	NeedsScript   bool // nothing can be done on this screen without it
	Nonce         string
	ReceiptAction string
	Request       *conversations.PaymentRequest
	State         State
	Sums          []sum
	ScriptTexts   texts
}

// Blank is the view with nothing said yet, for the screen that the script fills in.
func (v view) Blank() view {
	v.State = State{Mark: "wait"}
	return v
}

//go:embed web/page.html
var pageTemplate string

//go:embed web/page.css
var pageStyle string

//go:embed web/pay.js
var pageScript string

// renderer turns views into pages. Style and script are inside the page, so
// that a page and its script always come from the same version while a new one
// is rolled out; the content policy allows them by their hashes.
type renderer struct {
	texts      texts
	template   *template.Template
	styleHash  string
	scriptHash string
}

// newRenderer panics on a template that cannot be parsed: it is compiled in.
func newRenderer() *renderer {
	t := parseTexts(englishTexts)
	return &renderer{
		texts: t,
		template: template.Must(template.New("").Funcs(template.FuncMap{
			"t":      t.text,
			"style":  func() template.HTML { return template.HTML("<style>" + pageStyle + "</style>") },
			"script": func() template.HTML { return template.HTML("<script>" + pageScript + "</script>") },
		}).Parse(pageTemplate)),
		styleHash:  sourceHash(pageStyle),
		scriptHash: sourceHash(pageScript),
	}
}

// sourceHash returns the content policy's name for an inline style or script.
func sourceHash(source string) string {
	h := sha256.Sum256([]byte(source))
	return "'sha256-" + base64.StdEncoding.EncodeToString(h[:]) + "'"
}

// page renders the page of a payment request.
func (r *renderer) page(v *visit, nonce string) ([]byte, error) {
	state, err := r.texts.stateOf(v.request, v.merchant, v.now)
	if err != nil {
		return nil, err
	}
	title, err := r.texts.text("page_title", "merchant", v.merchant.Name)
	if err != nil {
		return nil, err
	}
	return r.render(view{
		PageTitle: title, Merchant: v.merchant, Initial: initial(v.merchant.Name), Sandbox: v.request.Sandbox || v.merchant.Sandbox,
		Live: true, NeedsScript: state.Screen == "ask" || state.CanRetry, Nonce: nonce,
		// Relative, because the public address may have a path before /pay.
		ReceiptAction: v.token + "/receipt",
		Request:       v.request, State: state, Sums: r.texts.sumsOf(v.request.Order), ScriptTexts: r.texts.forScript(),
	})
}

// notice renders a page that only says something. name is the texts' prefix.
func (r *renderer) notice(name string, m conversations.Merchant) ([]byte, error) {
	title, message := r.texts[name+"_title"], r.texts[name+"_message"]
	return r.render(view{
		PageTitle: title, Merchant: m, Initial: initial(m.Name), Sandbox: m.Sandbox,
		State: State{Screen: name, Mark: "warn", Title: title, Message: message},
	})
}

// render goes to a buffer: a page is sent whole or not at all.
func (r *renderer) render(v view) ([]byte, error) {
	v.Lang = pageLanguage
	var b bytes.Buffer
	if err := r.template.ExecuteTemplate(&b, "page", v); err != nil {
		return nil, fmt.Errorf("render page: %w", err)
	}
	return b.Bytes(), nil
}

// policy returns the Content-Security-Policy of a page. origins are the
// platform's: its library, its calls and its frames. Nothing else is loaded
// from anywhere.
func (r *renderer) policy(live bool, origins []string) string {
	rules := []string{
		"default-src 'none'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
	}
	if !live {
		return strings.Join(append(rules, "style-src "+r.styleHash), "; ")
	}
	from := strings.Join(origins, " ")
	return strings.Join(append(rules,
		join("script-src", r.scriptHash, from),
		join("style-src", r.styleHash, from),
		join("connect-src", "'self'", from),
		join("frame-src", from),
		join("img-src", "data:", from),
		join("font-src", from),
	), "; ")
}

// join makes one rule; a rule without sources allows none.
func join(rule string, sources ...string) string {
	joined := strings.TrimSpace(strings.Join(sources, " "))
	if joined == "" {
		joined = "'none'"
	}
	return rule + " " + joined
}

// permissions returns the Permissions-Policy: the wallets of the platform may
// ask for payment, and nobody for anything else that a pay page could be
// abused for.
func permissions(origins []string) string {
	allowed := "self"
	for _, o := range origins {
		allowed += fmt.Sprintf(" %q", o)
	}
	return "payment=(" + allowed + "), camera=(), microphone=(), geolocation=(), usb=()"
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
