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
//
// Operation.SendBy is the time after which nothing is sent any more. A call
// carries the operation's ID as its reference, so that it can be found again.

// OperationResult is what became of a follow-on call.
type OperationResult struct {
	State  conversations.OperationState
	Reason string // the platform's word, or conversations.ErrorSettled or ErrorUnderReview
	// ID is the platform's own transaction for the operation, and
	// ReconciliationID what statements call it, as far as they are known.
	ID               string
	ReconciliationID string
}

// Reverser is a platform that can give back money before settlement: a
// reversal of an authorization, or a void of a sale or capture. A void that came
// too late fails with conversations.ErrorSettled.
type Reverser interface {
	Reverse(ctx context.Context, op conversations.Operation, attempt conversations.Attempt) (OperationResult, error)
}

// Capturer is a platform that can take money that is held.
type Capturer interface {
	Capture(ctx context.Context, op conversations.Operation, attempt conversations.Attempt) (OperationResult, error)
}

// Refunder is a platform that can give back money after settlement. The
// operation's PaymentID is the sale or capture that it takes from.
type Refunder interface {
	Refund(ctx context.Context, op conversations.Operation, attempt conversations.Attempt) (OperationResult, error)
}

// TimeoutReverser is a platform that can take back a charge whose answer never
// came, by our own reference of it.
type TimeoutReverser interface {
	// TimeoutReversalAfter returns how long after the charge that may be asked
	// for; zero: the processor behind the account does not know it.
	TimeoutReversalAfter() time.Duration
	// ReverseUnsettled returns conversations.OutcomeReversed when the charge is
	// surely taken back, and conversations.OutcomeUnknown when nothing is known
	// that was not before. An error means that the platform could not be asked.
	// Nothing is sent after the context's deadline, which is when the caller's
	// right to ask ends: it should have one.
	ReverseUnsettled(context.Context, conversations.Attempt) (conversations.Result, error)
}

// Found is one transaction that a platform knows of, whoever asked for it.
type Found struct {
	ID string
	// PaymentID is the transaction that it acted on, and RootID the first of its
	// chain, as far as they were told. A list tells less than Transaction does.
	PaymentID string
	RootID    string
	// Code is its reference: an attempt's code, an operation's id, or somebody
	// else's. With an operation's id it belongs to that operation, whatever its
	// kind: a void is followed by the reversal that releases the hold. What is
	// done in the company's back office mostly has the code of what it is done to.
	Code string
	// Operation is what kind of operation it is, empty for a payment: then
	// Result is as Inquire would tell for the amount that it was made for. A
	// capture with the code of a sale is the sale itself, taken when reviewers
	// accepted it.
	Operation        conversations.OperationKind
	Amount           conversations.Money
	Succeeded        bool // of a payment: money is held or taken by it
	ReconciliationID string
	At               time.Time
	Result           conversations.Result
}

// Auditor is a platform that can list what it did.
type Auditor interface {
	// Transactions calls each for every transaction submitted between two times,
	// oldest first. What is younger than the platform's own delay is missing.
	// It ends with the first error of each.
	Transactions(ctx context.Context, from, to time.Time, each func(Found) error) error
	// Transaction returns one of them; false if there is none (yet).
	Transaction(ctx context.Context, id string) (Found, bool, error)
}

// The ways in which a notification is refused.
var (
	// ErrNotificationSignature is returned for a notification that the platform
	// did not sign with a key of ours.
	ErrNotificationSignature = errors.New("the notification's signature is not right")
	// ErrNotificationStale is returned for one that was signed too long ago, or in
	// the future.
	ErrNotificationStale = errors.New("the notification is too old")
	// ErrNotificationUnreadable is returned for one that was signed and makes no
	// sense; a repeat will make none either.
	ErrNotificationUnreadable = errors.New("the notification cannot be read")
)

// Notification is a platform's word that something happened. Beyond a review's
// end it is a hint: what happened is asked for.
type Notification struct {
	Key     string // the same for every delivery of the same news
	Product string // the platform's own words for what it is about; of a known kind if Known
	Type    string
	Known   bool
	// TransactionID and Code name the transaction that it is about, as far as
	// they were told.
	TransactionID string
	Code          string
	Review        Review
}

// Review is how a review ended.
type Review string

// The ends of a review.
const (
	ReviewNone     Review = ""
	ReviewAccepted Review = "accepted"
	ReviewRejected Review = "rejected"
)

// Notifying is a platform that tells by webhook what happened.
type Notifying interface {
	// ReadNotification verifies and reads a notification; header returns the
	// value of a request header. Errors: one of the three above.
	ReadNotification(header func(string) string, body []byte, now time.Time) (Notification, error)
}

// Finding is one thing that a Checker looked at.
type Finding struct {
	Check  string // what was looked at, a few words
	State  FindingState
	Detail string // what was found: one sentence, without secrets
	Mend   string // what to do about it; empty when it is fine
}

// FindingState is how a finding is judged.
type FindingState string

// The states of a finding.
const (
	FindingOK      FindingState = "ok"
	FindingWarning FindingState = "warning" // works, and should be looked at
	FindingWrong   FindingState = "wrong"   // no payment can be made, or none be followed
)

// Checker is a platform that can be asked whether it is set up right. It changes
// nothing there. "paythread doctor" prints what it finds.
type Checker interface {
	Check(context.Context) []Finding
}

// Setting describes one value that a platform is configured with. The example
// and the schema of the configuration are printed from it.
type Setting struct {
	Name     string
	Doc      string
	Default  string
	Secret   bool
	Required bool
	// Account: it says at which account the money is. Payments of one account
	// are not known at another, so that it cannot change while any is open.
	Account bool
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
