package providers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"paythread/conversations"
)

// ErrSignature is what Verify returns for every webhook that it does not
// trust: signature missing, malformed, of another key or over another body. It
// says no more, because the caller may be an attacker.
var ErrSignature = errors.New("the webhook's signature is missing or wrong")

// ErrUnreadable is in the chain of Parse's error: nothing in the body can be
// read, so delivering it again will not help.
var ErrUnreadable = errors.New("the webhook cannot be read")

// Webhook is one delivery as it came in. Body holds the bytes of the wire,
// before any decoding. The slices and maps are the adapter's to read, not to
// change or to keep.
type Webhook struct {
	Method string
	// URL is the public address of the route as configured, never rebuilt from
	// Host or X-Forwarded headers, with "?" and the raw query if there was one:
	// it is part of what some providers sign.
	URL        string
	Header     http.Header
	Body       []byte
	Query      url.Values
	ReceivedAt time.Time
}

// Provider is one messaging company's API, set up for one sender. Verify and
// Parse serve the webhook edge, Send serves the dispatcher. Implementations
// are safe for concurrent use.
type Provider interface {
	// Verify returns nil for a webhook signed with the sender's current or
	// previous secret, else ErrSignature and nothing more.
	Verify(Webhook) error

	// Parse returns what a verified webhook reports, in the order of the body.
	// One bad element never holds back the others: it is left out, and an
	// InboundAccount with MediaType Malformed stands for it. What is addressed
	// to a sender or an account that is not known has an empty SenderID, to be
	// counted and otherwise ignored. The error has ErrUnreadable in its chain,
	// and only comes when nothing can be read.
	Parse(Webhook) ([]conversations.Inbound, error)

	// Send asks the provider to deliver one message, in one call. A *Failure
	// says why it did not, or that nobody knows.
	Send(context.Context, conversations.Outbound) (conversations.Sent, error)
}

// Malformed is the MediaType of the InboundAccount that stands for elements of
// a batch that could not be read.
const Malformed = "malformed"

// Handshaker is implemented by providers that verify a webhook's address with
// a GET before they use it.
type Handshaker interface {
	// Handshake returns the body of the 200 answer, to be sent as text/plain
	// exactly as it is, and false when the GET must be refused.
	Handshake(Webhook) (body string, ok bool)
}

// Answerer is implemented by providers to whom an empty 200 is not the right
// answer to a webhook.
type Answerer interface {
	Answer() (contentType, body string)
}

// Reader is implemented by providers that can tell a customer that their
// message was read. id is the provider's id of the inbound message; typing
// also shows that an answer is being written. It is a courtesy: a failure is
// counted, never retried and holds nothing up.
type Reader interface {
	MarkRead(ctx context.Context, id string, typing bool) error
}

// Templater is implemented by providers with approved templates. Template
// names the one that o would be sent with, and its language as the provider
// spells it; both are empty when o would not go as a template, or there is
// none for it.
type Templater interface {
	Template(o conversations.Outbound) (name, language string)
}

// Asker is implemented by providers that can be asked whether a message whose
// answer was lost reached them. o.Doubt is when it was sent first. found is
// false when the provider surely has no such message; an error says that
// nobody knows.
type Asker interface {
	Ask(ctx context.Context, o conversations.Outbound) (sent conversations.Sent, found bool, err error)
}

// Finding is one thing that a Checker looked at.
type Finding struct {
	Check  string // what was looked at, a few words: "access token", "webhook address"
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
	FindingWrong   FindingState = "wrong"   // messages are lost or not sent
)

// Checker is implemented by providers that can be asked whether the sender is
// set up right: credentials, number, templates, webhook address. It changes
// nothing at the provider. "paythread doctor" prints what it finds.
type Checker interface {
	Check(ctx context.Context) []Finding
}

// Code is one of a provider's own codes: a row of its error tables.
type Code struct {
	Code    string // as Failure.Code and Inbound.ErrorCode have it
	Refusal Refusal
	// Answered and Reported say where it can come: in the answer to a send, and
	// in a later status.
	Answered, Reported bool
}

// Limits are how fast a sender may send, by the provider's documents.
type Limits struct {
	PerSecond float64 // messages of the sender
	Burst     int     // of them at once
	// PairEvery and PairBurst bound the messages to one customer; zero: not
	// bounded.
	PairEvery time.Duration
	PairBurst int
}

// Scope is what a failure holds back.
type Scope string

// The scopes.
const (
	ScopeMessage Scope = ""       // this message only
	ScopePair    Scope = "pair"   // the sender's messages to this customer
	ScopeSender  Scope = "sender" // everything of this sender
)

// Failure is why a message was not sent, or that it is unknown whether it was.
type Failure struct {
	Reason conversations.FailureReason
	Code   string // the provider's own code, or "http_503"; empty when there was no answer

	// Retryable says that the same message may be sent again as it is. It is
	// false when Unknown is true: then an echo is awaited first.
	Retryable bool

	// Unknown says that the message may or may not be on its way: time-out or
	// lost connection after the call may have reached the provider, or an
	// answer that is neither acceptance nor refusal.
	Unknown bool

	// RetryAfter is how long the provider wants to be left alone; zero when it
	// did not say.
	RetryAfter time.Duration

	// Scope is what the failure holds back for RetryAfter.
	Scope Scope

	// Growth is by what each further wait for the same message is longer; zero
	// leaves it to the dispatcher.
	Growth float64

	// Tries bounds how often the message is sent in all when it keeps failing
	// like this; zero leaves it to the dispatcher.
	Tries int

	// Err is the inner error. It holds no secret, no text, no phone number.
	Err error
}

// Error names the reason, the provider's code and the inner error.
func (f *Failure) Error() string {
	var b strings.Builder
	b.WriteString("send: ")
	if f.Unknown {
		b.WriteString("outcome unknown: ")
	}
	b.WriteString(string(f.Reason))
	if f.Code != "" {
		b.WriteString(" (code " + f.Code + ")")
	}
	if f.Err != nil {
		b.WriteString(": " + f.Err.Error())
	}
	return b.String()
}

// Unwrap returns the inner error.
func (f *Failure) Unwrap() error { return f.Err }

// Refuse returns a Failure for a message that the adapter itself does not
// send, because the provider surely would not take it.
func Refuse(reason conversations.FailureReason, why string) *Failure {
	return &Failure{Reason: reason, Retryable: Retryable(reason), Err: errors.New(why)}
}

// Setting describes one value that an adapter is configured with.
type Setting struct {
	Name     string
	Doc      string // a sentence for whoever writes the configuration
	Default  string
	Secret   bool
	Required bool
}

// Settings are the values that one sender's adapter is made from.
type Settings struct {
	SenderID   string
	Channel    conversations.Channel
	MerchantID string
	WebhookURL string            // public address of this sender's webhooks, without a secret part of the path
	Values     map[string]string // by Setting.Name, secrets resolved

	// Siblings leads from the provider's name of a number (Meta:
	// phone_number_id) to the sender that has it, for the senders of the same
	// merchant and app whose webhooks may arrive at this one's address.
	Siblings map[string]string

	Now func() time.Time // nil: time.Now
}

// LogValue keeps the secrets out of logs.
func (s Settings) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("sender", s.SenderID),
		slog.String("channel", string(s.Channel)),
		slog.String("merchant_id", s.MerchantID),
	)
}

// String keeps the secrets out of formatted text.
func (s Settings) String() string {
	return "settings of sender " + s.SenderID
}

// GoString keeps the secrets out of %#v.
func (s Settings) GoString() string { return s.String() }

// Complete returns a copy of s with the defaults of known filled in. Its error
// names everything that is wrong at once: required values that are missing,
// and values that nobody reads, which are most often misspelt.
func (s Settings) Complete(known []Setting) (Settings, error) {
	values := make(map[string]string, len(known))
	var problems []error
	for _, k := range known {
		v := s.Values[k.Name]
		if v == "" {
			v = k.Default
		}
		if v == "" && k.Required {
			problems = append(problems, fmt.Errorf("%s is missing", k.Name))
		}
		values[k.Name] = v
	}
	names := make([]string, 0, len(s.Values))
	for name := range s.Values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if _, ok := values[name]; !ok {
			problems = append(problems, fmt.Errorf("%s is not a setting of this provider", name))
		}
	}
	if s.SenderID == "" {
		problems = append(problems, errors.New("the sender has no id"))
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	s.Values = values
	return s, errors.Join(problems...)
}

// BaseURL checks that the named setting, such as "base_url", is an address of
// a server, and returns it without a slash at the end.
func (s Settings) BaseURL(name string) (string, error) {
	v := strings.TrimRight(s.Values[name], "/")
	u, err := url.Parse(v)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Host == "", u.RawQuery != "", u.Fragment != "":
		return "", fmt.Errorf("%s is not an http or https address without query and fragment", name)
	case u.User != nil:
		return "", fmt.Errorf("%s must not hold a user name or password", name)
	}
	return v, nil
}

// Registration is what an adapter's folder exports.
type Registration struct {
	Name     string
	Channels []conversations.Channel
	// Confirms are the channels on which the provider itself answers opt-out
	// and opt-in words, so that we must not.
	Confirms []conversations.Channel
	Settings []Setting
	// Codes lists the provider's own codes with what follows from each, for the
	// documentation.
	Codes func() []Code
	// Limits are the documented ones of each channel; a sender's configuration
	// can be stricter or, where the company granted more, wider.
	Limits map[conversations.Channel]Limits

	// New returns an adapter for one sender, or an error that names every
	// setting that is missing or wrong. The client carries the call's time-out
	// and proxy; the adapter never follows redirects.
	New func(Settings, *http.Client, *slog.Logger) (Provider, error)
}
