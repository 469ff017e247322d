// Package platforms is the contract between the checkout and the ways to take
// money. A platform is one product of one company behind Platform, and what
// only some can do is an interface of its own, found by type assertion.
//
// A platform never decides what becomes of a payment request: it answers with
// one of the closed set of conversations.Outcome, and when it cannot know, it
// says conversations.OutcomeUnknown. A charge is never repeated by a platform.
package platforms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"paythread/conversations"
)

// The ways in which a transient token is refused.
var (
	// ErrTokenExpired is returned for a token, or a capture context, whose time
	// has passed. The customer enters the card again in a new context.
	ErrTokenExpired = errors.New("the card entry has expired")
	// ErrTokenInvalid is returned for every other token that does not come from
	// a capture context issued for this request.
	ErrTokenInvalid = errors.New("the card entry is not valid")
)

// ContextRequest asks for a capture context. The amount is the request's own.
type ContextRequest struct {
	Request *conversations.PaymentRequest
	Origin  string // scheme://host[:port] of the pay page
	Locale  string // BCP 47, for example "en-ZA"
	Country string // ISO 3166 alpha-2; empty: the platform's setting
}

// Context is a capture context. Token and the library are for the browser; the
// key stays with the payment request and verifies what comes back.
type Context struct {
	Token            string
	LibraryURL       string
	LibraryIntegrity string // value of the script's integrity attribute
	KeyID            string
	Key              string // the JWK, JSON
	ExpiresAt        time.Time
}

// Kept returns what the payment request keeps of the context.
func (c Context) Kept() conversations.CaptureContext {
	return conversations.CaptureContext{KeyID: c.KeyID, Key: c.Key, ExpiresAt: c.ExpiresAt}
}

// ChargeRequest asks for the money of one attempt. Amount, references and
// whether it is a sale are the attempt's.
type ChargeRequest struct {
	Attempt        conversations.Attempt
	Request        *conversations.PaymentRequest
	TransientToken string
}

// LogValue names the attempt and leaves the token out.
func (c ChargeRequest) LogValue() slog.Value {
	return slog.GroupValue(slog.String("attempt", c.Attempt.Code), slog.String("platform", c.Attempt.Platform))
}

// Token is what a verified transient token says. The card is masked.
type Token struct {
	ExpiresAt time.Time
	JTI       string
	CardBrand string
	CardLast4 string
}

// Platform takes money. Implementations are safe for concurrent use.
type Platform interface {
	// CreateContext makes a capture context. An error with
	// conversations.CodeUnavailable may pass by itself; any other needs a person.
	CreateContext(context.Context, ContextRequest) (Context, error)
	// CheckToken verifies a transient token against the contexts that were issued
	// for one request. It returns ErrTokenExpired or ErrTokenInvalid.
	CheckToken(token string, contexts []conversations.CaptureContext, now time.Time) (Token, error)
	// Charge makes one call that may take money, and none once Attempt.SendBy has
	// passed. It never repeats the call and always returns an outcome.
	Charge(context.Context, ChargeRequest) conversations.Result
}

// Inquirer is a platform that can be asked what became of a charge.
type Inquirer interface {
	// Inquire returns conversations.OutcomeNotFound when the platform knows of no
	// such transaction (yet). An error means that it could not be asked.
	Inquire(context.Context, conversations.Attempt) (conversations.Result, error)
}

// Browsing is a platform whose script runs in the customer's browser.
type Browsing interface {
	// Origins returns the origins (scheme://host[:port]) that the pay page's
	// content policy has to allow for scripts, calls and frames.
	Origins() []string
}

// The follow-on calls answer alike:
//
//   - OperationSucceeded: done, or found to have been done before;
//   - OperationFailed: refused for good, reason is the platform's word;
//   - OperationPending with an error: surely not done this time, try later;
//   - OperationUnsettled with an error: it may or may not have been done. The
//     same operation may be given again in this state, and is then looked for
//     before it is sent.

// Reverser is a platform that can give back money before settlement: a
// reversal of an authorization, or a void of a sale or capture.
type Reverser interface {
	Reverse(ctx context.Context, op conversations.Operation, attempt conversations.Attempt) (state conversations.OperationState, reason string, err error)
}

// Capturer is a platform that can take money that is held.
type Capturer interface {
	Capture(ctx context.Context, op conversations.Operation, attempt conversations.Attempt) (state conversations.OperationState, reason string, err error)
}

// Refunder is a platform that can give back money after settlement.
type Refunder interface {
	Refund(ctx context.Context, op conversations.Operation, attempt conversations.Attempt) (state conversations.OperationState, reason string, err error)
}

// Setting describes one value that a platform is configured with. The example
// and the schema of the configuration are printed from it.
type Setting struct {
	Name     string
	Doc      string
	Default  string
	Secret   bool
	Required bool
}

// Settings is what a platform is made with. Secrets have been resolved.
type Settings struct {
	MerchantID string // ours, not the platform's
	Sandbox    bool
	Values     map[string]string
	Now        func() time.Time // nil: time.Now
}

// LogValue leaves the values out: some are secret.
func (s Settings) LogValue() slog.Value {
	return slog.GroupValue(slog.String("merchant_id", s.MerchantID), slog.Bool("sandbox", s.Sandbox))
}

// Registration is one platform in the gateway's list.
type Registration struct {
	Name     string
	Settings []Setting
	// New checks the settings and says all that is wrong with them at once.
	New func(Settings, *http.Client, *slog.Logger) (Platform, error)
}

// Resolve returns the values with defaults filled in, and one error that names
// every required value that is missing and every value that is not known.
func Resolve(known []Setting, given map[string]string) (map[string]string, error) {
	values := make(map[string]string, len(known))
	var problems []error
	for _, s := range known {
		value := given[s.Name]
		if value == "" {
			value = s.Default
		}
		if value == "" && s.Required {
			problems = append(problems, fmt.Errorf("%s is missing: %s", s.Name, s.Doc))
		}
		values[s.Name] = value
	}
	for name := range given {
		if _, ok := values[name]; !ok {
			problems = append(problems, fmt.Errorf("%s is not a setting of this platform", name))
		}
	}
	return values, errors.Join(problems...)
}
