package conversations

import "time"

// Mode says who answers a customer.
type Mode string

// The modes.
const (
	ModeBot       Mode = "bot"
	ModeWithAgent Mode = "with_agent"
)

// Consent is whether a contact may be messaged on a channel.
type Consent string

// The consents.
const (
	ConsentUnknown  Consent = "unknown"
	ConsentOptedIn  Consent = "opted_in"
	ConsentOptedOut Consent = "opted_out"
)

// Contact is one customer of one merchant, with the conversation held with
// them. It is the aggregate: its version covers the conversation, its payment
// requests and its messages.
type Contact struct {
	ID         string    `json:"id"`
	MerchantID string    `json:"merchant_id"`
	CreatedAt  time.Time `json:"created_at"`
	Name       string    `json:"name,omitempty"`
	Locale     string    `json:"locale,omitempty"`
	Addresses  []Address `json:"addresses,omitempty"`
	// Linked are addresses that another contact owns; the agent sees the link.
	Linked []Address `json:"linked,omitempty"`

	Mode    Mode                `json:"mode"`
	Agent   string              `json:"agent,omitempty"` // who took over
	Consent map[Channel]Consent `json:"consent,omitempty"`
	// ConsentAt is when the customer said so, or a provider did.
	ConsentAt map[Channel]time.Time `json:"consent_at,omitempty"`
	// Confirming is the message that confirms the present opt-out: the one that
	// may still go to who has opted out.
	Confirming map[Channel]string `json:"confirming,omitempty"`
	// InboundAt is when the customer last wrote, by the provider's time, for
	// each of our senders: it opens the 24-hour window and never moves back.
	InboundAt map[string]time.Time `json:"inbound_at,omitempty"`
	// InboundIDs are the providers' ids of those messages.
	InboundIDs map[string]string `json:"inbound_ids,omitempty"`
	// IdentityChangedAt is when WhatsApp told that the customer's keys changed:
	// until an agent has verified who it is, only agents write there.
	IdentityChangedAt *time.Time `json:"identity_changed_at,omitempty"`

	Requests []string         `json:"requests,omitempty"` // ids of those not yet final, oldest first
	Latest   string           `json:"latest,omitempty"`   // id of the newest request, whatever became of it
	Lanes    map[Channel]Lane `json:"lanes,omitempty"`
	// Declines are the times when a card of theirs was declined, oldest first,
	// as far as CardTesting looks at them.
	Declines []time.Time `json:"declines,omitempty"`
	// Recent finds a message by the provider's id when a status carries no
	// correlation value; bounded, newest last.
	Recent []RecentMessage `json:"recent,omitempty"`
}

// Lane is the order of outbound messages on one channel: one is out at a time,
// the others wait for its outcome.
type Lane struct {
	Current string   `json:"current,omitempty"`
	Waiting []string `json:"waiting,omitempty"`
}

// RecentMessage pairs a provider's message id with ours.
type RecentMessage struct {
	ProviderID string `json:"p"`
	MessageID  string `json:"m"`
}

// Merchant is what the domain must know of a business: everything else is the
// edge's. It comes from configuration and is not stored.
type Merchant struct {
	ID        string
	Name      string             // as customers read it
	Contact   string             // how customers reach the merchant, for receipts
	PublicURL string             // base of its links, without a slash at the end
	Sandbox   bool               // shows "test payment"
	Country   string             // ISO 3166 alpha-2: how national phone numbers are read
	Locale    string             // default of messages and pages
	Senders   map[Channel]string // the sender id that is used on each channel
	// ProviderConfirms says on which channels the provider answers opt-out
	// and opt-in words by itself, so that we send no confirmation.
	ProviderConfirms map[Channel]bool

	Currencies  []string      // accepted; empty: every one
	TimeToOpen  time.Duration // default of new requests
	TimeToPay   time.Duration
	MaxAttempts int  // most tries that count
	Capture     bool // sale or authorization, default of new requests
	LatePayment LatePayment
	// ReviewWithin is how long a payment may be under review before it is given
	// back by itself; zero: as long as the reviewers take.
	ReviewWithin time.Duration
	CardTesting  CardTesting

	Fallback Fallback
	// Texts are the merchant's own wordings, by locale and key ("payment",
	// "receipt", "cancelled", "refund"), in place of the shipped SMS texts.
	Texts map[string]map[string]string
}

// Fallback says when a message about a payment request goes by SMS instead of
// WhatsApp, with the same link.
type Fallback struct {
	OnFailure bool          // WhatsApp failed for good
	After     time.Duration // not delivered on WhatsApp after this time; zero: never
}

// LatePayment is what is done with money that comes after the end.
type LatePayment struct {
	ReverseAfterExpiry       bool
	ReverseAfterFailure      bool
	ReverseAfterCancellation bool
}

// CardTesting bounds how often one customer, or one address on the internet,
// may try cards within a time, over all payment requests of a merchant. After
// the free declines each further one doubles the wait before the next try.
type CardTesting struct {
	Window       time.Duration // in which tries count
	ContactTries int           // most declined tries of one contact
	AddressTries int           // most tries of one address, an IPv6 network of 64 bits counting as one
	FreeDeclines int           // declines without a wait
	FirstDelay   time.Duration // after the first decline that is not free; doubles
	LongestDelay time.Duration
}

// Timings are the waits of the state machines, all settable.
type Timings struct {
	SendWithin       time.Duration   // a charge is sent within this of its commit
	RecoverAfter     time.Duration   // then the platform is asked for the first time
	AskAfter         []time.Duration // searches after the first, counted from the attempt's start
	LateAskAfter     []time.Duration // searches that follow all the same
	TokenGrace       time.Duration   // "not found" may be concluded this long after the token's end
	AuthenticateIn   time.Duration   // an abandoned 3-D Secure
	DeclineGrace     time.Duration   // left after a decline past the window
	EchoWithin       time.Duration   // the echo of a message of unknown outcome
	RetryOperationIn time.Duration   // first wait before an operation is tried again; doubles
	CallLife         time.Duration   // how long after it was made a call may still reach the platform; zero: two minutes
	ReviewAskEvery   time.Duration   // the platform is asked how a review stands
	ResendAfter      time.Duration   // a message that was accepted and then failed for a while is sent again
}

// DefaultTimings returns the waits of production.
func DefaultTimings() Timings {
	m := time.Minute
	return Timings{
		SendWithin:       10 * time.Second,
		RecoverAfter:     m,
		AskAfter:         []time.Duration{5 * m, 10 * m, 15 * m, 20 * m, 25 * m},
		LateAskAfter:     []time.Duration{time.Hour, 24 * time.Hour},
		TokenGrace:       5 * m,
		AuthenticateIn:   10 * m,
		DeclineGrace:     5 * m,
		EchoWithin:       m,
		RetryOperationIn: 5 * time.Second,
		CallLife:         defaultCallLife,
		ReviewAskEvery:   30 * m,
		ResendAfter:      2 * m,
	}
}
