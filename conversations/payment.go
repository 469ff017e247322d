package conversations

import "time"

// Lifecycle is where a payment request stands. Milestones are kept apart from
// it, because statuses come late, twice and out of order.
type Lifecycle string

// The lifecycles. The edges between them are in states.go.
const (
	LifecycleUnknown  Lifecycle = ""
	Open              Lifecycle = "open"
	Processing        Lifecycle = "processing" // an attempt is in flight, or its outcome is being asked for
	Authorized        Lifecycle = "authorized" // money is held, none captured
	Paid              Lifecycle = "paid"
	InReview          Lifecycle = "in_review" // the bank approved, the platform's reviewers have not
	Failed            Lifecycle = "failed"    // the merchant's most attempts were made
	Expired           Lifecycle = "expired"
	Cancelled         Lifecycle = "cancelled"
	Reversed          Lifecycle = "reversed"
	PartiallyRefunded Lifecycle = "partially_refunded"
	Refunded          Lifecycle = "refunded"
)

// Lifecycles lists every lifecycle in the order in which people meet them.
var Lifecycles = []Lifecycle{Open, Processing, Authorized, Paid, InReview, Failed, Expired, Cancelled, Reversed, PartiallyRefunded, Refunded}

// Reasons beside a lifecycle or an attempt, stable words of the API.
const (
	ReasonNotOpened       = "not_opened"        // expired: the link was never opened in time
	ReasonNotPaid         = "not_paid"          // expired: opened, not paid in time
	ReasonByAgent         = "by_agent"          // cancelled by the merchant
	ReasonAlreadyPaid     = "already_paid"      // cancelled: the order was paid through another request
	ReasonTooManyAttempts = "too_many_attempts" // failed
)

// Milestone is something that happened to a payment request at least once.
// Milestones only ever appear, whatever the order of arrival.
type Milestone string

// The milestones, each kept with its first time.
const (
	MilestoneSent             Milestone = "sent"
	MilestoneDelivered        Milestone = "delivered"
	MilestoneRead             Milestone = "read"
	MilestoneOpened           Milestone = "opened"
	MilestoneCheckoutStarted  Milestone = "checkout_started"
	MilestoneAuthenticating   Milestone = "authenticating"
	MilestoneDeclined         Milestone = "declined" // the last decline
	MilestonePaid             Milestone = "paid"
	MilestoneReceiptSent      Milestone = "receipt_sent"
	MilestoneReceiptDelivered Milestone = "receipt_delivered"
	MilestoneReceiptRead      Milestone = "receipt_read"
	MilestoneReceiptViewed    Milestone = "receipt_viewed"
)

// LineItem is one line of what is to be paid. Total is Quantity times
// UnitPrice; both are in the request's currency.
type LineItem struct {
	Name      string `json:"name"`
	SKU       string `json:"sku,omitempty"`
	Quantity  int64  `json:"quantity"`
	UnitPrice Money  `json:"unit_price"`
	Total     Money  `json:"total"`
}

// Order is what the merchant's own system says is to be paid. CheckOrder
// checks its sums.
type Order struct {
	Reference string     `json:"reference"` // the merchant's order number, at most 50 characters
	LineItems []LineItem `json:"line_items,omitempty"`
	Subtotal  Money      `json:"subtotal"`
	Tax       Money      `json:"tax"`
	Shipping  Money      `json:"shipping"`
	Discount  Money      `json:"discount"` // positive; it is taken off
	Total     Money      `json:"total"`
}

// PaymentRequest is what a customer is asked to pay, and all that became of it.
type PaymentRequest struct {
	ID         string  `json:"id"`
	MerchantID string  `json:"merchant_id"`
	ContactID  string  `json:"contact_id"`
	Order      Order   `json:"order"`
	Phone      string  `json:"phone"` // canonical E.164
	Channel    Channel `json:"channel"`
	Locale     string  `json:"locale"`
	Note       string  `json:"note,omitempty"`
	// Extra is the merchant's own data, given at creation and returned to its
	// systems as it came; nobody else sees it.
	Extra       map[string]string `json:"extra,omitempty"`
	Sandbox     bool              `json:"sandbox"`
	Capture     bool              `json:"capture"`      // sale when true, authorization only when false
	LinkCode    string            `json:"link_code"`    // the short code of /p/{code}
	ReceiptCode string            `json:"receipt_code"` // the short code of /r/{code}; of use once paid

	CreatedAt  time.Time     `json:"created_at"`
	TimeToOpen time.Duration `json:"time_to_open"` // nanoseconds, as all durations here
	TimeToPay  time.Duration `json:"time_to_pay"`
	OpenBy     time.Time     `json:"open_by"`          // end of the window to open
	PayBy      *time.Time    `json:"pay_by,omitempty"` // end of the window to pay, once opened

	Lifecycle  Lifecycle `json:"lifecycle"`
	Reason     string    `json:"reason,omitempty"`
	CancelNote string    `json:"cancel_note,omitempty"` // why it was cancelled, in the merchant's own words
	Superseded bool      `json:"superseded,omitempty"`  // another request holds the order now
	Late       bool      `json:"late,omitempty"`        // money came after expiry, cancellation or failure
	// LateFrom is where it stood when money came late and went into review: it
	// returns there if the reviewers reject it.
	LateFrom Lifecycle `json:"late_from,omitempty"`
	PaidBy   int       `json:"paid_by,omitempty"` // number of the attempt whose money counts
	// PaidElsewhere is the id of the superseded request of the same order that
	// was paid: the outcome in flight is awaited, and a success given back.
	PaidElsewhere string                  `json:"paid_elsewhere,omitempty"`
	Milestones    map[Milestone]time.Time `json:"milestones,omitempty"`
	Contexts      []CaptureContext        `json:"contexts,omitempty"` // each kept until it expires
	Attempts      []Attempt               `json:"attempts,omitempty"`
	Operations    []Operation             `json:"operations,omitempty"`
	Messages      []string                `json:"messages,omitempty"` // ids of its outbound messages, oldest first
	// Newest is the newest message of each purpose: only that one is followed
	// by another if it does not arrive.
	Newest map[Purpose]string `json:"newest,omitempty"`
	// FellBackTo is the channel of its messages once the picked one has failed.
	FellBackTo Channel   `json:"fell_back_to,omitempty"`
	Refusals   []Refusal `json:"refusals,omitempty"` // what was refused, once a kind
	Receipt    *Receipt  `json:"receipt,omitempty"`  // frozen when the money came

	// Totals in minor units of Order.Total.Currency; only what succeeded counts.
	AuthorizedMinor int64 `json:"authorized_minor"`
	CapturedMinor   int64 `json:"captured_minor"`
	ReversedMinor   int64 `json:"reversed_minor"`
	RefundedMinor   int64 `json:"refunded_minor"`
	// Unbalanced says that the platform did more with the money than we know how
	// it could, such as a refund of a capture that we have not learnt of. The
	// totals say no more than is possible; a person should look.
	Unbalanced bool `json:"unbalanced,omitempty"`

	LastEvent int64 `json:"last_event"` // number of the newest event in its log
}

// Attempt returns the attempt with that number, or nil.
func (r *PaymentRequest) Attempt(n int) *Attempt {
	for i := range r.Attempts {
		if r.Attempts[i].N == n {
			return &r.Attempts[i]
		}
	}
	return nil
}

// InFlight returns the attempt whose outcome is awaited, or nil. There is at
// most one.
func (r *PaymentRequest) InFlight() *Attempt {
	for i := range r.Attempts {
		if !r.Attempts[i].State.settled() {
			return &r.Attempts[i]
		}
	}
	return nil
}

// CaptureContext is what is kept of a context issued for this request: the key
// that verifies the transient tokens made with it, until it expires.
type CaptureContext struct {
	KeyID     string    `json:"key_id"`
	Key       string    `json:"key"` // the JWK, JSON
	ExpiresAt time.Time `json:"expires_at"`
}

// AttemptState is what is known of one try to pay.
type AttemptState string

// The attempt states.
const (
	AttemptUnknown        AttemptState = ""
	AttemptSending        AttemptState = "sending"        // the process whose commit made it may charge until SendBy
	AttemptUnsettled      AttemptState = "unsettled"      // the answer did not come; the platform is asked
	AttemptAuthenticating AttemptState = "authenticating" // 3-D Secure is with the customer
	AttemptReversing      AttemptState = "reversing"      // partial or risk-declined: held money is being given back
	AttemptInReview       AttemptState = "in_review"
	AttemptAuthorized     AttemptState = "authorized"
	AttemptCaptured       AttemptState = "captured"
	AttemptDeclined       AttemptState = "declined"
	AttemptNotTaken       AttemptState = "not_taken" // the call surely took nothing; not the customer's try
	AttemptNotFound       AttemptState = "not_found" // asked until the token was dead: nothing there
	AttemptReversed       AttemptState = "reversed"
)

// settled tells that the attempt no longer keeps the request in processing.
func (s AttemptState) settled() bool {
	switch s {
	case AttemptSending, AttemptUnsettled, AttemptAuthenticating, AttemptReversing:
		return false
	}
	return true
}

// Attempt is one try to pay a payment request.
type Attempt struct {
	N              int          `json:"n"`
	Code           string       `json:"code"`           // {request}-{n}, the reference at the platform
	TransactionID  string       `json:"transaction_id"` // unique at the platform, at most 30 characters
	Platform       string       `json:"platform"`
	State          AttemptState `json:"state"`
	Amount         Money        `json:"amount"`
	Capture        bool         `json:"capture"`
	StartedAt      time.Time    `json:"started_at"`
	SendBy         time.Time    `json:"send_by"`          // the charge may be sent until then, never after
	TokenExpiresAt time.Time    `json:"token_expires_at"` // read from the transient token
	Asked          int          `json:"asked,omitempty"`  // searches made so far
	AskAt          *time.Time   `json:"ask_at,omitempty"` // when the platform is asked next
	SettledAt      *time.Time   `json:"settled_at,omitempty"`
	ReviewBy       *time.Time   `json:"review_by,omitempty"` // in review: given back by itself after that
	Result         Result       `json:"result"`
}

// reversalShows is how long after a charge was given back the platform may show
// the one without the other.
const reversalShows = time.Hour

// TakenBack tells whether the platform has given the charge back just now: that
// it shows the charge alone is no news then.
func (a Attempt) TakenBack(now time.Time) bool {
	return a.State == AttemptNotTaken && a.Result.Outcome == OutcomeReversed && a.SettledAt != nil && now.Before(a.SettledAt.Add(reversalShows))
}

// Outcome is what a platform said of a charge, in one of a closed set.
type Outcome string

// The outcomes of a charge or of asking after one.
const (
	OutcomeUnknown               Outcome = "unknown"                // no definite answer: ask, never resend
	OutcomeAuthorized            Outcome = "authorized"             // held
	OutcomeCaptured              Outcome = "captured"               // taken: a sale
	OutcomeInReview              Outcome = "in_review"              // held, reviewers decide
	OutcomePartial               Outcome = "partial"                // held for less than asked: reverse it
	OutcomeRiskDeclined          Outcome = "risk_declined"          // held, then refused by risk rules: reverse it
	OutcomeDeclined              Outcome = "declined"               // nothing taken; the customer's try
	OutcomeAuthenticationPending Outcome = "authentication_pending" // 3-D Secure challenge
	OutcomeNotTaken              Outcome = "not_taken"              // surely nothing taken, not the customer's doing
	OutcomeNotFound              Outcome = "not_found"              // asked, and there is no such transaction (yet)
	OutcomeReversed              Outcome = "reversed"               // asked, and it was reversed or voided
)

// Result is what the platform told about a charge. Reason is the platform's
// own word; Final of a decline means that the issuer will never approve.
type Result struct {
	Outcome          Outcome    `json:"outcome,omitempty"`
	Reason           string     `json:"reason,omitempty"`
	PaymentID        string     `json:"payment_id,omitempty"`        // the platform's id of the transaction
	ReconciliationID string     `json:"reconciliation_id,omitempty"` // what statements call it
	ApprovalCode     string     `json:"approval_code,omitempty"`
	Amount           Money      `json:"amount"` // what was authorized or captured
	CardBrand        string     `json:"card_brand,omitempty"`
	CardLast4        string     `json:"card_last4,omitempty"`
	At               *time.Time `json:"at,omitempty"` // the platform's time
	Final            bool       `json:"final,omitempty"`
}

// OperationKind is one of the four things done to money after it came.
type OperationKind string

// The operations.
const (
	OperationCapture  OperationKind = "capture"
	OperationReversal OperationKind = "reversal" // of an authorization that is held
	OperationVoid     OperationKind = "void"     // of a sale or capture before settlement
	OperationRefund   OperationKind = "refund"
)

// OperationState is what is known of an operation.
type OperationState string

// The operation states.
const (
	OperationPending   OperationState = "pending"
	OperationSucceeded OperationState = "succeeded"
	OperationFailed    OperationState = "failed"
	OperationUnsettled OperationState = "unknown"
)

// Operation is one capture, reversal, void or refund of an attempt's money. Its
// ID is its reference at the platform.
type Operation struct {
	ID        string         `json:"id"`
	Kind      OperationKind  `json:"kind"`
	Attempt   int            `json:"attempt"`
	PaymentID string         `json:"payment_id"` // the platform's transaction it acts on
	Amount    Money          `json:"amount"`
	State     OperationState `json:"state"`
	Reason    string         `json:"reason,omitempty"` // why it is done, one of the operation reasons
	Note      string         `json:"note,omitempty"`   // why, in the merchant's own words; the customer does not see it
	By        string         `json:"by,omitempty"`     // the agent who asked for it
	Error     string         `json:"error,omitempty"`  // the platform's word, when it did not succeed
	Tries     int            `json:"tries,omitempty"`
	StartedAt time.Time      `json:"started_at"`
	// SendBy is set while a process may be calling the platform: it sends until
	// then, and nobody else does before the outcome is asked for.
	SendBy *time.Time `json:"send_by,omitempty"`
	// EntryID is the outbox entry that the newest process to call was given: of
	// any other it is believed only that the operation succeeded.
	EntryID string `json:"entry_id,omitempty"`
	// SentBy, of an unknown one, is until when an earlier call may still reach
	// the platform. What does not show there long enough after that was not done.
	SentBy    *time.Time `json:"sent_by,omitempty"`
	DueAt     *time.Time `json:"due_at,omitempty"` // when it is tried again, or asked after
	SettledAt *time.Time `json:"settled_at,omitempty"`
	// ResultID is the platform's own transaction for it, which later operations
	// act on: a refund on a capture.
	ResultID         string `json:"result_id,omitempty"`
	ReconciliationID string `json:"reconciliation_id,omitempty"`
	// Elsewhere says that somebody did it at the platform, such as in the
	// company's back office, and we learnt of it.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// PartOf is the first of the operations that one refund was split into, of
	// the others.
	PartOf string `json:"part_of,omitempty"`
}

// Why an operation is done: the words of Operation.Reason.
const (
	OperationAsked         = "asked" // by the merchant
	OperationElsewhere     = "elsewhere"
	OperationSecondSuccess = "second_success"
	OperationLatePayment   = "late_payment"
	OperationPartial       = "partial"
	OperationRiskDeclined  = "risk_declined"
	OperationRejected      = "review_rejected"
	OperationReviewOver    = "review_timed_out"
	OperationOrderPaid     = "order_already_paid"
)

// Words of Operation.Error that the domain acts on; every other is only shown.
const (
	// ErrorSettled: a void came too late, the money is on its way to the
	// merchant. Only a refund gives it back.
	ErrorSettled = "settled"
	// ErrorUnderReview: the platform releases nothing before its reviewers have
	// decided. The operation stays pending.
	ErrorUnderReview = "under_review"
)

// Refusal records an event that had no edge, once a pair of event and state.
type Refusal struct {
	Event     string    `json:"event"`
	Lifecycle Lifecycle `json:"lifecycle"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
}

// Receipt is the document of a paid request, frozen when the money came. Later
// captures, reversals and refunds are read from the request's operations.
type Receipt struct {
	Number           string    `json:"number"`
	IssuedAt         time.Time `json:"issued_at"`
	MerchantName     string    `json:"merchant_name"`
	MerchantContact  string    `json:"merchant_contact,omitempty"` // how a customer reaches the merchant
	Order            Order     `json:"order"`
	Paid             Money     `json:"paid"`
	Captured         bool      `json:"captured"` // false: authorized only
	CardBrand        string    `json:"card_brand,omitempty"`
	CardLast4        string    `json:"card_last4,omitempty"`
	ApprovalCode     string    `json:"approval_code,omitempty"`
	ReconciliationID string    `json:"reconciliation_id,omitempty"`
	Late             bool      `json:"late,omitempty"`
	Sandbox          bool      `json:"sandbox,omitempty"`
}
