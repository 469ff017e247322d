package conversations

import "time"

// An Event is something that happened. Store.Apply gives it to the pure
// transition function and commits what follows from it in one atomic step.
type Event interface {
	// Kind is the event's name in the tables, in logs and as the commit's name.
	Kind() EventKind
}

// EventKind is the name of an event, a past participle.
type EventKind string

// Created makes a payment request and sends its first message. Store.Create
// applies it; nobody else does.
type Created struct {
	Request PaymentRequest // complete but for what Apply decides: lifecycle, windows, messages
	Agent   string         // who asked, empty for a server
	// CustomerName names a contact that has told no name of its own.
	CustomerName string
}

// LinkOpened says that a person pressed the page's first button.
type LinkOpened struct{ RequestID string }

// ContextIssued keeps what verifies the tokens of a capture context that was
// made for the request, and says that checkout has started.
type ContextIssued struct {
	RequestID string
	Context   CaptureContext
}

// AttemptStarted asks for the right to charge. When it commits, and only in
// the process whose commit it was, the charge may be sent until the attempt's
// SendBy. The new attempt is the last one of the request.
type AttemptStarted struct {
	RequestID      string
	Platform       string
	TokenExpiresAt time.Time // end of the transient token
	CardBrand      string
	CardLast4      string
}

// AttemptAnswered brings what the platform said of a charge: at once, when it
// was asked later (Asked), or when it notified us. OutcomeUnknown from the
// charge itself says that no definite answer came.
type AttemptAnswered struct {
	RequestID string
	Attempt   int
	Result    Result
	Asked     bool
	EntryID   string // the outbox entry that asked, acknowledged by this commit
	// StartedAt, if it is set, is when the attempt began that is meant: after a
	// failover another one may have its number.
	StartedAt time.Time
}

// CustomerExtended is the customer's one press for more time.
type CustomerExtended struct{ RequestID string }

// Extended is the agent's extension.
type Extended struct {
	RequestID string
	Agent     string
}

// CancelRequested is the merchant's cancellation.
type CancelRequested struct {
	RequestID string
	Agent     string
	Note      string // why, in the merchant's own words; the customer does not see it
}

// Resent asks for the payment or the receipt message once more.
type Resent struct {
	RequestID string
	Purpose   Purpose // PurposePayment or PurposeReceipt; empty: what fits the lifecycle
	Agent     string
}

// SupersededBy marks the holder of an order before another request takes it.
type SupersededBy struct{ RequestID, By string }

// OrderPaidElsewhere says that a superseded request of the order, By, got
// money that is kept. RequestID is the present holder.
type OrderPaidElsewhere struct{ RequestID, By string }

// OrderAlreadyPaid says that the order's present holder, By, is paid, so that
// the late money of RequestID is given back instead.
type OrderAlreadyPaid struct{ RequestID, By, EntryID string }

// HolderTold acknowledges that the present holder of the order knows of the
// late money of RequestID.
type HolderTold struct{ RequestID, EntryID string }

// ReceiptViewed says that a person looked at the receipt.
type ReceiptViewed struct{ RequestID string }

// OperationRequested is the merchant's wish to capture, reverse or refund money
// that came. A reversal of money that was taken is a void. Amount nil is all
// that is left; a reversal has none. ExpectedRefundable, of a refund, is what
// the caller believes could still be refunded: if it is not, nothing is done.
type OperationRequested struct {
	RequestID          string
	Operation          OperationKind // OperationCapture, OperationReversal or OperationRefund
	Amount             *Money
	ExpectedRefundable *Money
	Note               string // why, in the merchant's own words, at most 200 characters
	Agent              string
}

// OperationStarted asks for the right to call the platform for an operation.
// When it commits, and only in the process whose commit it was, the call may be
// sent until the operation's SendBy. Applied.Operation is the operation to carry
// out, nil if nothing may be called now.
type OperationStarted struct {
	RequestID   string
	OperationID string
	EntryID     string // the outbox entry, acknowledged if there is nothing to do
}

// OperationAnswered brings what became of an operation at the platform.
type OperationAnswered struct {
	RequestID        string
	OperationID      string
	State            OperationState
	Error            string
	ResultID         string // the platform's own transaction for it
	ReconciliationID string
	EntryID          string // the outbox entry that it acknowledges
}

// OperationFound is an operation that was done at the platform and is not, or
// not surely, one of ours. PlatformID makes it known only once.
type OperationFound struct {
	RequestID        string
	Attempt          int
	Operation        OperationKind
	Amount           Money
	PlatformID       string // the platform's transaction
	PaymentID        string // the one that it acted on
	Code             string // its reference there: an operation's id if it is one of ours
	ReconciliationID string
	At               time.Time
}

// AttemptNotified says that the platform has news of an attempt: it is asked
// now and not only by the timetable.
type AttemptNotified struct {
	RequestID string
	Attempt   int
}

// ReviewDecided says what the platform's reviewers decided.
type ReviewDecided struct {
	RequestID string
	Attempt   int
	Accepted  bool
}

// TimerFired says that a timer is due. Apply compares with the state's own
// deadline, so a second or early one does nothing.
type TimerFired struct{ Timer Timer }

// MessageReceived is something the customer wrote or pressed.
type MessageReceived struct {
	MessageID  string // ours
	MerchantID string
	ContactID  string // the contact is made by this commit if it is not yet there
	Inbound    Inbound
}

// SendingStarted moves a message to sending before the provider is called.
type SendingStarted struct {
	MessageID string
	EntryID   string
}

// SendingPutOff leaves a queued message for later: its sender is held back or
// has enough to do. Its outbox entry is acknowledged, a timer appends another.
type SendingPutOff struct {
	MessageID string
	EntryID   string
	For       time.Duration
}

// MessageAnswered brings the provider's answer to a send.
type MessageAnswered struct {
	MessageID string
	EntryID   string
	Sent      Sent
	Failed    bool
	Reason    FailureReason
	ErrorCode string
	Unknown   bool          // the outcome is not known: an echo is awaited
	RetryIn   time.Duration // not zero: it may be tried again after this
}

// StatusReported is a delivery status that a provider reported.
type StatusReported struct {
	MerchantID string // whose sender reported it
	MessageID  string // empty: found by Inbound.ProviderID
	Inbound    Inbound
}

// AgentWrote is a message of an agent in the conversation.
type AgentWrote struct {
	MessageID string
	Channel   Channel
	Text      string
	Agent     string
}

// TakenOver and HandedBack change who answers the customer.
type (
	TakenOver  struct{ Agent string }
	HandedBack struct{ Agent string }
)

// IdentityVerified says that an agent has made sure who the customer is, after
// their identity on WhatsApp had changed.
type IdentityVerified struct{ Agent string }

// AddressesLearnt adds addresses to a contact; Linked are those that another
// contact owns.
type AddressesLearnt struct {
	Addresses []Address
	Linked    []Address
	Replaces  Address // an address that is no longer the customer's
}

// Kind implements Event.
func (Created) Kind() EventKind            { return "Created" }
func (LinkOpened) Kind() EventKind         { return "LinkOpened" }
func (ContextIssued) Kind() EventKind      { return "ContextIssued" }
func (AttemptStarted) Kind() EventKind     { return "AttemptStarted" }
func (AttemptAnswered) Kind() EventKind    { return "AttemptAnswered" }
func (CustomerExtended) Kind() EventKind   { return "CustomerExtended" }
func (Extended) Kind() EventKind           { return "Extended" }
func (CancelRequested) Kind() EventKind    { return "CancelRequested" }
func (Resent) Kind() EventKind             { return "Resent" }
func (SupersededBy) Kind() EventKind       { return "SupersededBy" }
func (OrderPaidElsewhere) Kind() EventKind { return "OrderPaidElsewhere" }
func (OrderAlreadyPaid) Kind() EventKind   { return "OrderAlreadyPaid" }
func (HolderTold) Kind() EventKind         { return "HolderTold" }
func (ReceiptViewed) Kind() EventKind      { return "ReceiptViewed" }
func (OperationRequested) Kind() EventKind { return "OperationRequested" }
func (OperationStarted) Kind() EventKind   { return "OperationStarted" }
func (OperationAnswered) Kind() EventKind  { return "OperationAnswered" }
func (OperationFound) Kind() EventKind     { return "OperationFound" }
func (AttemptNotified) Kind() EventKind    { return "AttemptNotified" }
func (ReviewDecided) Kind() EventKind      { return "ReviewDecided" }
func (TimerFired) Kind() EventKind         { return "TimerFired" }
func (MessageReceived) Kind() EventKind    { return "MessageReceived" }
func (SendingStarted) Kind() EventKind     { return "SendingStarted" }
func (SendingPutOff) Kind() EventKind      { return "SendingPutOff" }
func (MessageAnswered) Kind() EventKind    { return "MessageAnswered" }
func (StatusReported) Kind() EventKind     { return "StatusReported" }
func (AgentWrote) Kind() EventKind         { return "AgentWrote" }
func (TakenOver) Kind() EventKind          { return "TakenOver" }
func (HandedBack) Kind() EventKind         { return "HandedBack" }
func (IdentityVerified) Kind() EventKind   { return "IdentityVerified" }
func (AddressesLearnt) Kind() EventKind    { return "AddressesLearnt" }

// Timer is a hint that something is due for one thing of a contact. There is
// at most one of a kind for each thing; setting it again moves it.
type Timer struct {
	Kind      TimerKind `json:"kind"`
	ContactID string    `json:"contact_id"`
	ID        string    `json:"id"`          // the request's or message's
	N         int       `json:"n,omitempty"` // the attempt's number
	At        time.Time `json:"at"`
}

// TimerKind names what is due.
type TimerKind string

// The timers.
const (
	TimerWindow    TimerKind = "window"    // the window that runs ends
	TimerAttempt   TimerKind = "attempt"   // the platform is asked about an attempt
	TimerMessage   TimerKind = "message"   // a message waits to be tried again, or for its echo
	TimerOperation TimerKind = "operation" // an operation waits to be tried again
	TimerFollowUp  TimerKind = "follow_up" // a message is sent again or by SMS, if it has not arrived
)

// LoggedEvent is one entry of a payment request's own log, which the agent
// sees. Seq counts from 1 without gaps.
type LoggedEvent struct {
	Seq       int64            `json:"seq"`
	Type      string           `json:"type"`
	At        time.Time        `json:"time"`
	RequestID string           `json:"payment_request_id"`
	Order     string           `json:"order"`
	Lifecycle Lifecycle        `json:"lifecycle"`
	Reason    string           `json:"reason,omitempty"`
	Milestone Milestone        `json:"milestone,omitempty"`
	Attempt   int              `json:"attempt,omitempty"`
	Message   *LoggedMessage   `json:"message,omitempty"`
	Operation *LoggedOperation `json:"operation,omitempty"`
}

// LoggedOperation is what an event tells of an operation.
type LoggedOperation struct {
	ID     string         `json:"id"`
	Kind   OperationKind  `json:"kind"`
	Amount Money          `json:"amount"`
	State  OperationState `json:"state"`
	Reason string         `json:"reason,omitempty"`
	Error  string         `json:"error,omitempty"`
}

// LoggedMessage is what an event tells of a message: never its text.
type LoggedMessage struct {
	ID      string         `json:"id" doc:"Names it in the transcript."`
	Purpose Purpose        `json:"purpose" doc:"What it is for, such as payment or receipt."`
	Channel Channel        `json:"channel" doc:"What it went by: whatsapp or sms."`
	Status  DeliveryStatus `json:"status" doc:"How far it had come."`
	Reason  FailureReason  `json:"reason,omitempty" doc:"Why it failed."`
}

// Once makes a commit happen at most once for a business key, such as a
// provider's message id or an API call's Idempotency-Key. Hash is that of the
// caller's input: the same key with another hash is refused. The zero Once
// asks for nothing.
type Once struct {
	Key  string
	Hash string
	// OnlyDone keeps refusals out of it: the key stays free for another try,
	// and a crowd of refused calls commits nothing.
	OnlyDone bool
}

// Applied is what Store.Apply did.
type Applied struct {
	Duplicate bool            // the Once key was here before; nothing happened now
	Refused   *Error          // the state did not allow it; recorded. For a duplicate: the first answer
	Request   *PaymentRequest // the request after the event, if it concerns one
	Contact   *Contact
	Message   *Message // the message after the event, if it concerns one
	// Outbound is what SendingStarted allows the caller to send now, or nil.
	Outbound *Outbound
	// Operation is what OperationStarted allows the caller to carry out now, or
	// nil.
	Operation *Operation
}
