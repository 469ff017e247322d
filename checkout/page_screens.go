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
	PayBy     *time.Time              `json:"pay_by,omitempty"`   // end of the window to pay, once opened
	CanRetry  bool                    `json:"can_retry"`          // a card may be entered now, or again
	RetryAt   *time.Time              `json:"retry_at,omitempty"` // a card may be entered again then
	Wait      string                  `json:"wait,omitempty"`     // how long that is, in words
	Receipt   bool                    `json:"receipt"`            // there is a receipt to be viewed
	Now       time.Time               `json:"now"`                // the store's clock
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
	conversations.Paid:              {"paid", "ok"},
	conversations.Authorized:        {"authorized", "ok"},
	conversations.InReview:          {"in_review", "hold"},
	conversations.Failed:            {"failed", "stop"},
	conversations.Reversed:          {"reversed", "warn"},
	conversations.PartiallyRefunded: {"partially_refunded", "ok"},
	conversations.Refunded:          {"refunded", "warn"},
}

// words name what a screen says: its texts, and the mark beside them.
type words struct{ screen, mark, title, message string }

// said names the texts of a screen that is called like them.
func said(screen, mark string) words {
	return words{screen, mark, screen + "_title", screen + "_message"}
}

// underway are the ways in which a payment is being processed. All are one
// screen to the script, which asks until it is another.
var underway = map[conversations.AttemptState]words{
	conversations.AttemptSending:        {"processing", "wait", "processing_title", "processing_message"},
	conversations.AttemptUnsettled:      {"processing", "wait", "unsettled_title", "unsettled_message"},
	conversations.AttemptAuthenticating: {"processing", "wait", "authenticating_title", "authenticating_message"},
	conversations.AttemptReversing:      {"processing", "hold", "releasing_title", "releasing_message"},
}

// unsuccessful are the ends of an attempt that let the customer try again.
var unsuccessful = map[conversations.AttemptState]words{
	conversations.AttemptDeclined: {"declined", "warn", "declined_title", "declined_message"},
	conversations.AttemptNotTaken: {"not_taken", "warn", "not_taken_title", "not_taken_message"},
	conversations.AttemptNotFound: {"not_taken", "warn", "not_taken_title", "not_found_message"},
	conversations.AttemptReversed: {"declined", "warn", "declined_title", "returned_message"},
}

// advice is what a customer can do about a decline, by the platform's word.
// It never says what is wrong with a card: who tries stolen ones would learn
// which of their numbers, dates and codes are right. So one advice stands for
// several words, and what was stolen, lost, blocked or thought to be a fraud is
// not here at all.
var advice = map[string]string{
	"INVALID_ACCOUNT": "declined_details", "INVALID_CVN": "declined_details", "CVN_NOT_MATCH": "declined_details",
	"CV_FAILED": "declined_details", "EXPIRED_CARD": "declined_details", "AVS_FAILED": "declined_details",
	"INVALID_CARD": "declined_details", "INVALID_CARD_TYPE": "declined_details", "CARD_TYPE_NOT_ACCEPTED": "declined_another",
	"INSUFFICIENT_FUND": "declined_another", "EXCEEDS_CREDIT_LIMIT": "declined_another", "UNAUTHORIZED_CARD": "declined_another",
	"CONTACT_PROCESSOR":  "declined_bank",
	"ISSUER_UNAVAILABLE": "declined_later", "PROCESSOR_UNAVAILABLE": "declined_later", "PROCESSOR_ERROR": "declined_later",
	"PROCESSOR_TIMEOUT":                "declined_later",
	"CONSUMER_AUTHENTICATION_REQUIRED": "declined_unconfirmed", "CONSUMER_AUTHENTICATION_FAILED": "declined_unconfirmed",
	"authentication_abandoned": "declined_unconfirmed",
}

// endOf names what is said of an attempt that came to nothing, and false for
// any other.
func endOf(a conversations.Attempt) (words, bool) {
	w, ok := unsuccessful[a.State]
	if !ok {
		return w, false
	}
	known := advice[a.Result.Reason]
	switch {
	case a.State == conversations.AttemptDeclined && a.Result.Final:
		w.message = "declined_another" // the bank will never approve this one
	case a.State == conversations.AttemptDeclined && known != "":
		w.message = known
	case a.State == conversations.AttemptNotTaken && known != "": // refused unasked, for what the customer can mend
		w = words{"declined", "warn", "declined_title", known}
	}
	return w, true
}

// limits are the screens of the limits against card testing.
var limits = map[string]words{
	conversations.ReasonTooSoon:         said("too_soon", "hold"),
	conversations.ReasonTooManyDeclines: {"too_many", "stop", "too_many_title", "too_many_declines"},
	conversations.ReasonTooManyTries:    {"too_many", "stop", "too_many_title", "too_many_tries"},
	conversations.ReasonTooManyAttempts: said("failed", "stop"),
}

// payable tells whether the customer may enter a card now: the request is
// open, was opened by a person, and its window runs.
func payable(r *conversations.PaymentRequest, now time.Time) bool {
	return r.Lifecycle == conversations.Open && !r.Superseded && r.PayBy != nil && now.Before(*r.PayBy)
}

// stateOf reads the state of a request's page. It never trusts that a timer
// has fired: a window that is over reads as over.
func (t texts) stateOf(v *visit) (State, error) {
	r := v.request
	s := State{
		Lifecycle: r.Lifecycle, Reason: r.Reason, Opened: r.PayBy != nil, PayBy: r.PayBy,
		CanRetry: payable(r, v.now) && v.limit == nil, Receipt: r.Receipt != nil, Now: v.now.UTC(),
	}
	w := screenOf(v)
	s.Screen, s.Mark = w.screen, w.mark
	of := func(minor int64) conversations.Money {
		return conversations.Money{Minor: minor, Currency: r.Order.Total.Currency}
	}
	fill := []any{
		"merchant", v.merchant.Name, "amount", r.Order.Total, "captured", of(r.CapturedMinor), "refunded", of(r.RefundedMinor),
	}
	var err error
	if s.Title, err = t.text(w.title, fill...); err != nil {
		return State{}, err
	}
	if w.message != "" {
		if s.Message, err = t.text(w.message, fill...); err != nil {
			return State{}, err
		}
	}
	if w.screen == "too_soon" && v.limit.RetryAt != nil {
		at := v.limit.RetryAt.UTC()
		s.RetryAt = &at
		if s.Wait, err = t.duration(at.Sub(v.now)); err != nil {
			return State{}, err
		}
	}
	if n := len(r.Attempts); n > 0 {
		last := r.Attempts[n-1]
		s.Attempt = &AttemptView{N: last.N, State: last.State}
		if end, ok := endOf(last); ok {
			if s.Attempt.Text, err = t.text(end.message, fill...); err != nil {
				return State{}, err
			}
		}
	}
	return s, nil
}

// duration returns how long something takes, in words and rounded up: never
// one of anything, so that no language needs two forms.
func (t texts) duration(d time.Duration) (string, error) {
	for _, unit := range []struct {
		key        string
		one, below time.Duration
	}{{"seconds", 5 * time.Second, 90 * time.Second}, {"minutes", time.Minute, 90 * time.Minute}, {"hours", time.Hour, 1 << 62}} {
		if d <= unit.below {
			n := max(1, int64((d+unit.one-1)/unit.one))
			if unit.key == "seconds" {
				n *= 5
			}
			return t.text(unit.key, "n", n)
		}
	}
	return "", nil // no time is longer
}

// screenOf says which screen a request's page shows.
func screenOf(v *visit) words {
	r := v.request
	expired := func(message string) words { return words{"expired", "hold", "expired_title", message} }
	switch {
	case r.Lifecycle == conversations.Processing:
		if a := r.InFlight(); a != nil {
			if w, ok := underway[a.State]; ok {
				return w
			}
		}
		return said("processing", "wait")
	case r.Reason == conversations.ReasonReversing && (r.Lifecycle == conversations.Paid || r.Lifecycle == conversations.Authorized):
		return said("reversing", "warn")
	case r.Lifecycle == conversations.Paid && r.CapturedMinor > 0 && r.CapturedMinor < r.Order.Total.Minor:
		return words{"paid", "ok", "paid_title", "paid_partly"}
	}
	if known, ok := lasting[r.Lifecycle]; ok && (r.Lifecycle != conversations.Failed || !r.Superseded) {
		return said(known.screen, known.mark)
	}
	switch {
	case r.Lifecycle == conversations.Cancelled && r.Reason == conversations.ReasonAlreadyPaid:
		return said("already_paid", "ok")
	case r.Superseded:
		return said("superseded", "warn")
	case r.Lifecycle == conversations.Cancelled:
		return said("cancelled", "stop")
	case r.Lifecycle == conversations.Expired && r.Reason == conversations.ReasonNotPaid:
		return expired("expired_not_paid")
	case r.Lifecycle == conversations.Expired:
		return expired("expired_not_opened")
	case r.Lifecycle != conversations.Open:
		return said("unavailable", "warn") // a lifecycle that this version does not know
	case r.PayBy == nil && !v.now.Before(r.OpenBy):
		return expired("expired_not_opened")
	case r.PayBy != nil && !payable(r, v.now):
		return expired("expired_not_paid")
	}
	if v.limit != nil {
		if w, ok := limits[v.limit.Reason]; ok {
			return w
		}
	}
	if n := len(r.Attempts); n > 0 {
		if w, ok := endOf(r.Attempts[n-1]); ok {
			return w
		}
	}
	return words{screen: "ask", title: "ask_title"}
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
	state, err := r.texts.stateOf(v)
	if err != nil {
		return nil, err
	}
	title, err := r.texts.text("page_title", "merchant", v.merchant.Name)
	if err != nil {
		return nil, err
	}
	return r.render(view{
		PageTitle: title, Merchant: v.merchant, Initial: initial(v.merchant.Name), Sandbox: v.request.Sandbox || v.merchant.Sandbox,
		Live: true, NeedsScript: state.Screen == "ask" || state.CanRetry || state.RetryAt != nil, Nonce: nonce,
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
