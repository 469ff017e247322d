package conversations

import "slices"

// A Trigger is what an event means to a state machine: the columns of the
// tables. One event has one trigger; what a platform answered decides which.
type Trigger string

// The triggers of a payment request.
const (
	Requested              Trigger = "Requested"
	Opened                 Trigger = "Opened"
	CheckoutStarted        Trigger = "CheckoutStarted" // a capture context was issued
	AttemptBegun           Trigger = "AttemptBegun"
	AnswerLost             Trigger = "AnswerLost"    // the charge's answer did not come
	AnswerOverdue          Trigger = "AnswerOverdue" // time to ask the platform
	MoneyTaken             Trigger = "MoneyTaken"    // a sale was approved
	MoneyHeld              Trigger = "MoneyHeld"     // an authorization was approved
	ReviewAsked            Trigger = "ReviewAsked"   // approved, held for the platform's reviewers
	PartlyHeld             Trigger = "PartlyHeld"    // less than asked is held
	RiskRefused            Trigger = "RiskRefused"   // held, then refused by risk rules
	Declined               Trigger = "Declined"
	NothingTaken           Trigger = "NothingTaken" // the charge surely took nothing
	NothingFound           Trigger = "NothingFound" // asked to the end: there is nothing
	AuthenticationAsked    Trigger = "AuthenticationAsked"
	AuthenticationLeft     Trigger = "AuthenticationLeft" // 3-D Secure abandoned
	HoldReleased           Trigger = "HoldReleased"       // what was held is given back
	ReviewRejected         Trigger = "ReviewRejected"     // an accepted one is MoneyTaken or MoneyHeld
	WindowEnded            Trigger = "WindowEnded"
	CancelAsked            Trigger = "CancelAsked"
	ExtendedByAgent        Trigger = "ExtendedByAgent"
	ExtendedByCustomer     Trigger = "ExtendedByCustomer"
	PaymentAskedAgain      Trigger = "PaymentAskedAgain" // resend of the payment message
	ReceiptAskedAgain      Trigger = "ReceiptAskedAgain"
	TakenOverByOrder       Trigger = "TakenOverByOrder" // another request takes the order
	PaidElsewhere          Trigger = "PaidElsewhere"    // a superseded request of the order was paid
	HolderPaid             Trigger = "HolderPaid"       // superseded, paid late, and the holder is paid too
	ReceiptSeen            Trigger = "ReceiptSeen"
	ReviewOver             Trigger = "ReviewOver" // the merchant's time for a review has passed
	NewsCame               Trigger = "NewsCame"   // the platform has news of an attempt
	CaptureAsked           Trigger = "CaptureAsked"
	ReversalAsked          Trigger = "ReversalAsked" // to reverse, or void, or release what is in review
	RefundAsked            Trigger = "RefundAsked"
	CaptureDone            Trigger = "CaptureDone"
	ReversalDone           Trigger = "ReversalDone" // reversed or voided
	RefundDone             Trigger = "RefundDone"
	OperationLost          Trigger = "OperationLost" // nobody knows whether it was done
	OperationDidNotSucceed Trigger = "OperationDidNotSucceed"
)

// A Guard narrows an edge; where none of a pair's guards holds the event is
// refused with the guard's reason.
type Guard string

// The guards of a payment request. What they ask and say is in guards.go.
const (
	Always           Guard = ""
	IfUnopened       Guard = "unopened, in the window to open"
	IfChargeable     Guard = "payable, no attempt in flight, fewer than the most attempts of any kind, within the limits of card testing"
	IfContextFits    Guard = "payable, fewer than the most contexts at once"
	IfInWindow       Guard = "opened, in the window to pay"
	IfWindowOver     Guard = "the window is over"
	IfNotSuperseded  Guard = "not superseded"
	IfOtherAttempt   Guard = "another attempt is in flight or in review"
	IfLastTry        Guard = "the most attempts were made"
	IfPaidElsewhere  Guard = "the order was paid through another request"
	IfEndedExpired   Guard = "it had expired before this money came late"
	IfEndedCancelled Guard = "it had been cancelled before this money came late"
	IfEndedFailed    Guard = "it had failed before this money came late"
	IfToBeLearnt     Guard = "what became of the attempt is not known to the end"
	IfCapturable     Guard = "so much can be captured"
	IfRefundable     Guard = "so much can be refunded, and as much as was expected"
	IfReversible     Guard = "held, or taken at once, and nothing was refunded or is under way"
	IfUnderReview    Guard = "an attempt is in review"
	IfGiveBackFailed Guard = "money that must not be kept could not be given back"
	IfCounts         Guard = "it is the money that counts"
	IfAllReversed    Guard = "it is the money that counts, and nothing of it is left"
	IfNoneRefunded   Guard = "it is the money that counts, and no refund of it stands any more"
	IfRefundedInPart Guard = "it is the money that counts, and a part of it is refunded"
	IfRefundedInFull Guard = "it is the money that counts, all that was captured is refunded, and no capture is under way"
	IfGoneBefore     Guard = "this money had gone back before"
	IfSettledTooLate Guard = "money that must not be kept is on its way to the merchant: only a refund gives it back"
	IfAsked          Guard = "the merchant asked for it"
)

// An Effect is what is done when an edge is taken, an imperative. Effects are
// values; Apply turns them into entries of the one commit.
type Effect string

// The effects of a payment request.
const (
	SendPayment     Effect = "SendPayment"     // the message with the checkout link
	SendReceipt     Effect = "SendReceipt"     // the message with the receipt link
	SendCancelled   Effect = "SendCancelled"   // the customer is told
	StartPayWindow  Effect = "StartPayWindow"  // the time to pay begins
	WatchWindow     Effect = "WatchWindow"     // a timer for the window that runs
	ForgetWindow    Effect = "ForgetWindow"    // no window runs any more
	ExtendWindow    Effect = "ExtendWindow"    // to the later of its end and now plus its length
	GiveGrace       Effect = "GiveGrace"       // five minutes if the window is over
	KeepContext     Effect = "KeepContext"     // until it expires
	StartAttempt    Effect = "StartAttempt"    // the charge itself is made inline by whoever committed
	AskLater        Effect = "AskLater"        // a timer; it asks the platform, it never charges
	ForgetAsking    Effect = "ForgetAsking"    // the attempt is settled
	AskPlatform     Effect = "AskPlatform"     // an entry for the worker that asks
	WaitForCustomer Effect = "WaitForCustomer" // a timer for an abandoned 3-D Secure
	TakeMoney       Effect = "TakeMoney"       // totals, receipt document; late money by the merchant's policy
	GiveBackHold    Effect = "GiveBackHold"    // reverse what this attempt holds
	GiveBackSecond  Effect = "GiveBackSecond"  // reverse a second success
	GiveBackMoney   Effect = "GiveBackMoney"   // reverse, void or refund the money that counts
	GiveBackReview  Effect = "GiveBackReview"  // reverse what is in review
	GiveBackAgain   Effect = "GiveBackAgain"   // try again what could not be given back
	GoOnGivingBack  Effect = "GoOnGivingBack"  // if the money that counts must go back: what is left of it
	RefundInstead   Effect = "RefundInstead"   // of the void that came too late
	CaptureMoney    Effect = "CaptureMoney"    // as much as was asked for
	RefundMoney     Effect = "RefundMoney"     // as much as was asked for, split over the captures
	WatchReview     Effect = "WatchReview"     // until when the reviewers may take
	NoteDecline     Effect = "NoteDecline"     // the milestone of the last decline
	NameReason      Effect = "NameReason"      // why it expired, was cancelled, failed
	ForgetReason    Effect = "ForgetReason"
	KeepLateFrom    Effect = "KeepLateFrom" // where it stood, if this money in review came late
	ForgetLateFrom  Effect = "ForgetLateFrom"
	MarkSuperseded  Effect = "MarkSuperseded"
	MarkElsewhere   Effect = "MarkElsewhere" // a success that still comes will be given back
	Count           Effect = "Count"         // the operations in the totals
	MarkReversed    Effect = "MarkReversed"  // the attempt, if all of its money went back
	SendRefund      Effect = "SendRefund"    // the customer is told what went back
)

// Edge is one row of the payment request's table. The first row that fits a
// lifecycle and trigger and whose guard holds is taken.
type Edge struct {
	From []Lifecycle
	On   Trigger
	If   Guard
	To   Lifecycle // LifecycleUnknown: it stays where it is
	Do   []Effect
	Log  string // type of the event that the agent sees, empty for none
}

var (
	ended         = []Lifecycle{Expired, Cancelled, Failed}
	beforeMoney   = append([]Lifecycle{Open}, ended...)
	afterMoney    = []Lifecycle{Paid, Authorized, Reversed, PartiallyRefunded, Refunded}
	withReceipt   = []Lifecycle{Paid, Authorized, Reversed, PartiallyRefunded, Refunded}
	allButRunning = []Lifecycle{Open, Authorized, Paid, InReview, Failed, Expired, Cancelled, Reversed, PartiallyRefunded, Refunded}
)

// paymentEdges is the whole life of a payment request. Final means that no
// row leads out of a lifecycle; there is no second list.
var paymentEdges = slices.Concat([]Edge{
	{From: []Lifecycle{LifecycleUnknown}, On: Requested, To: Open, Do: []Effect{WatchWindow, SendPayment}, Log: "created"},

	{From: []Lifecycle{Open}, On: Opened, If: IfUnopened, Do: []Effect{StartPayWindow, WatchWindow}, Log: "opened"},
	{From: []Lifecycle{Open}, On: Opened, If: IfInWindow},
	{From: []Lifecycle{Processing}, On: Opened},
	{From: []Lifecycle{Open}, On: CheckoutStarted, If: IfContextFits, Do: []Effect{KeepContext}, Log: "checkout_started"},
	{From: []Lifecycle{Open}, On: AttemptBegun, If: IfChargeable, To: Processing, Do: []Effect{StartAttempt, AskLater, ForgetWindow}, Log: "attempt_started"},

	// The answer to the attempt in flight, or late money of an earlier one.
	{From: []Lifecycle{Processing}, On: MoneyTaken, To: Paid, Do: []Effect{TakeMoney, SendReceipt}, Log: "paid"},
	{From: []Lifecycle{Processing}, On: MoneyHeld, To: Authorized, Do: []Effect{TakeMoney, SendReceipt}, Log: "authorized"},
	{From: []Lifecycle{Processing}, On: ReviewAsked, To: InReview, Do: []Effect{KeepLateFrom, WatchReview, AskLater}, Log: "in_review"},
	{From: []Lifecycle{Processing}, On: PartlyHeld, Do: []Effect{GiveBackHold}, Log: "reversal_started"},
	{From: []Lifecycle{Processing}, On: RiskRefused, Do: []Effect{GiveBackHold}, Log: "reversal_started"},
	{From: []Lifecycle{Processing}, On: AnswerLost, Do: []Effect{AskLater}, Log: "attempt_unsettled"},
	{From: []Lifecycle{Processing}, On: AnswerOverdue, Do: []Effect{AskPlatform, AskLater}, Log: "attempt_unsettled"},
	{From: []Lifecycle{Processing}, On: AuthenticationAsked, Do: []Effect{WaitForCustomer}, Log: "authenticating"},
	{From: []Lifecycle{Processing}, On: WindowEnded},
	{From: []Lifecycle{Processing, InReview}, On: PaidElsewhere, Do: []Effect{MarkElsewhere}},
},
	backToOpen(Declined, "declined", ForgetAsking, GiveGrace),
	backToOpen(NothingTaken, "attempt_not_taken", ForgetAsking, GiveGrace),
	backToOpen(NothingFound, "attempt_not_found", AskLater),
	backToOpen(AuthenticationLeft, "declined", ForgetAsking),
	backToOpen(HoldReleased, "declined", ForgetAsking, GiveGrace),
	[]Edge{
		{From: []Lifecycle{InReview}, On: MoneyTaken, To: Paid, Do: []Effect{TakeMoney, SendReceipt}, Log: "paid"},
		{From: []Lifecycle{InReview}, On: MoneyHeld, To: Authorized, Do: []Effect{TakeMoney, SendReceipt}, Log: "authorized"},
		{From: []Lifecycle{InReview}, On: ReviewAsked, Do: []Effect{WatchReview, AskLater}},
		{From: []Lifecycle{InReview}, On: AnswerOverdue, Do: []Effect{AskPlatform, AskLater}},

		{From: []Lifecycle{Open}, On: WindowEnded, If: IfWindowOver, To: Expired, Do: []Effect{NameReason}, Log: "expired"},
		{From: []Lifecycle{Open}, On: CancelAsked, To: Cancelled, Do: []Effect{NameReason, ForgetWindow, SendCancelled}, Log: "cancelled"},
		{From: []Lifecycle{Open}, On: ExtendedByAgent, Do: []Effect{ExtendWindow, WatchWindow}, Log: "extended"},
		{From: []Lifecycle{Expired}, On: ExtendedByAgent, If: IfNotSuperseded, To: Open, Do: []Effect{ForgetReason, ExtendWindow, WatchWindow, SendPayment}, Log: "extended"},
		{From: []Lifecycle{Open}, On: ExtendedByCustomer, If: IfInWindow, Do: []Effect{ExtendWindow, WatchWindow}, Log: "extended"},
		{From: []Lifecycle{Open}, On: PaymentAskedAgain, Do: []Effect{SendPayment}, Log: "resent"},

		// Money that arrives late, for an attempt that was settled as not found.
		{From: beforeMoney, On: MoneyTaken, To: Paid, Do: []Effect{TakeMoney, ForgetWindow, SendReceipt}, Log: "late_payment"},
		{From: beforeMoney, On: MoneyHeld, To: Authorized, Do: []Effect{TakeMoney, ForgetWindow, SendReceipt}, Log: "late_payment"},
		{From: beforeMoney, On: ReviewAsked, To: InReview, Do: []Effect{KeepLateFrom, WatchReview, AskLater, ForgetWindow}, Log: "in_review"},

		// A second success is given back; the platform keeps being asked about
		// every attempt that is not settled, whatever became of the request.
		{From: append([]Lifecycle{InReview}, afterMoney...), On: PartlyHeld, Do: []Effect{GiveBackHold}, Log: "reversal_started"},
		{From: append([]Lifecycle{InReview}, afterMoney...), On: RiskRefused, Do: []Effect{GiveBackHold}, Log: "reversal_started"},
		{From: []Lifecycle{Open}, On: PartlyHeld, To: Processing, Do: []Effect{GiveBackHold, ForgetWindow}, Log: "reversal_started"},
		{From: []Lifecycle{Open}, On: RiskRefused, To: Processing, Do: []Effect{GiveBackHold, ForgetWindow}, Log: "reversal_started"},
		{From: ended, On: PartlyHeld, Do: []Effect{GiveBackHold}, Log: "reversal_started"},
		{From: ended, On: RiskRefused, Do: []Effect{GiveBackHold}, Log: "reversal_started"},
		{From: afterMoney, On: MoneyTaken, Do: []Effect{GiveBackSecond}, Log: "reversal_started"},
		{From: afterMoney, On: MoneyHeld, Do: []Effect{GiveBackSecond}, Log: "reversal_started"},
		{From: afterMoney, On: ReviewAsked, Do: []Effect{GiveBackSecond}, Log: "reversal_started"},
		{From: allButRunning, On: ReviewRejected, Do: []Effect{GiveBackHold}, Log: "reversal_started"},
		{From: allButRunning, On: ReviewOver, Do: []Effect{GiveBackHold}, Log: "reversal_started"},
		{From: allButRunning, On: AnswerOverdue, Do: []Effect{AskPlatform, AskLater}},
		{From: allButRunning, On: AnswerLost, Do: []Effect{AskLater}},
		{From: allButRunning, On: Declined, Do: []Effect{ForgetAsking}},
		{From: allButRunning, On: NothingTaken, Do: []Effect{ForgetAsking}},
		{From: allButRunning, On: NothingFound, Do: []Effect{AskLater}},
		{From: allButRunning, On: AuthenticationLeft, Do: []Effect{ForgetAsking}},
		{From: allButRunning, On: HoldReleased, Do: []Effect{ForgetAsking}, Log: "reversed"},

		{From: Lifecycles, On: NewsCame, If: IfToBeLearnt, Do: []Effect{AskPlatform}},

		// What the merchant does with the money. It is done by a worker, and
		// reserved at once.
		{From: []Lifecycle{Authorized, Paid, PartiallyRefunded}, On: CaptureAsked, If: IfCapturable, Do: []Effect{CaptureMoney}, Log: "operation_asked"},
		{From: afterMoney, On: RefundAsked, If: IfRefundable, Do: []Effect{RefundMoney}, Log: "operation_asked"},
		{From: []Lifecycle{Authorized, Paid}, On: ReversalAsked, If: IfReversible, Do: []Effect{GiveBackMoney}, Log: "operation_asked"},
		{From: []Lifecycle{InReview}, On: ReversalAsked, If: IfUnderReview, Do: []Effect{GiveBackReview}, Log: "operation_asked"},
		{From: Lifecycles, On: ReversalAsked, If: IfGiveBackFailed, Do: []Effect{GiveBackAgain}, Log: "operation_asked"},

		// What became of operations, ours and those done elsewhere. The lifecycle
		// follows from the totals.
		{From: []Lifecycle{Authorized, PartiallyRefunded, Refunded}, On: CaptureDone, If: IfRefundedInFull, To: Refunded, Do: []Effect{Count, ForgetReason}, Log: "captured"},
		{From: []Lifecycle{Authorized, Refunded}, On: CaptureDone, If: IfRefundedInPart, To: PartiallyRefunded, Do: []Effect{Count, GoOnGivingBack}, Log: "captured"},
		{From: []Lifecycle{Authorized}, On: CaptureDone, If: IfCounts, To: Paid, Do: []Effect{Count, GoOnGivingBack}, Log: "captured"},
		{From: []Lifecycle{Paid, PartiallyRefunded, Reversed, Refunded}, On: CaptureDone, If: IfCounts, Do: []Effect{Count, GoOnGivingBack}, Log: "captured"},
		{From: Lifecycles, On: CaptureDone, Log: "captured"},
		{From: Lifecycles, On: ReversalDone, If: IfGoneBefore, Do: []Effect{Count}},
		{From: []Lifecycle{Authorized, Paid, PartiallyRefunded}, On: ReversalDone, If: IfAllReversed, To: Reversed, Do: []Effect{Count, MarkReversed, ForgetReason, SendRefund}, Log: "reversed"},
		{From: []Lifecycle{PartiallyRefunded, Refunded}, On: ReversalDone, If: IfNoneRefunded, To: Paid, Do: []Effect{Count, GoOnGivingBack}, Log: "reversed"},
		{From: []Lifecycle{PartiallyRefunded, Refunded}, On: ReversalDone, If: IfRefundedInFull, To: Refunded, Do: []Effect{Count, ForgetReason, SendRefund}, Log: "reversed"},
		{From: []Lifecycle{Refunded}, On: ReversalDone, If: IfRefundedInPart, To: PartiallyRefunded, Do: []Effect{Count, GoOnGivingBack, SendRefund}, Log: "reversed"},
		{From: afterMoney, On: ReversalDone, If: IfCounts, Do: []Effect{Count, GoOnGivingBack, SendRefund}, Log: "reversed"},
		{From: Lifecycles, On: ReversalDone, Do: []Effect{MarkReversed, SendRefund}, Log: "reversed"},
		{From: []Lifecycle{Paid, PartiallyRefunded}, On: RefundDone, If: IfRefundedInFull, To: Refunded, Do: []Effect{Count, ForgetReason, SendRefund}, Log: "refunded"},
		{From: []Lifecycle{Paid, PartiallyRefunded}, On: RefundDone, If: IfCounts, To: PartiallyRefunded, Do: []Effect{Count, GoOnGivingBack, SendRefund}, Log: "refunded"},
		{From: []Lifecycle{Authorized, Reversed, Refunded}, On: RefundDone, If: IfCounts, Do: []Effect{Count, SendRefund}, Log: "refunded"},
		{From: Lifecycles, On: RefundDone, Do: []Effect{MarkReversed, SendRefund}, Log: "refunded"},
		{From: Lifecycles, On: OperationLost, Log: "operation_unknown"},
		{From: Lifecycles, On: OperationDidNotSucceed, If: IfSettledTooLate, Do: []Effect{RefundInstead}, Log: "reversal_started"},
		{From: []Lifecycle{PartiallyRefunded}, On: OperationDidNotSucceed, If: IfRefundedInFull, To: Refunded, Do: []Effect{ForgetReason, SendRefund}, Log: "operation_failed"},
		{From: Lifecycles, On: OperationDidNotSucceed, If: IfAsked, Do: []Effect{GoOnGivingBack, SendRefund}, Log: "operation_failed"},
		{From: Lifecycles, On: OperationDidNotSucceed, Do: []Effect{GoOnGivingBack, SendRefund}, Log: "reversal_failed"},

		{From: withReceipt, On: ReceiptAskedAgain, Do: []Effect{SendReceipt}, Log: "resent"},
		{From: withReceipt, On: ReceiptSeen, Log: "receipt_viewed"},

		{From: []Lifecycle{Expired, Cancelled, Failed, Reversed, Refunded}, On: TakenOverByOrder, Do: []Effect{MarkSuperseded}, Log: "superseded"},
		{From: []Lifecycle{Open, Expired}, On: PaidElsewhere, To: Cancelled, Do: []Effect{MarkElsewhere, NameReason, ForgetWindow, SendCancelled}, Log: "cancelled"},
		{From: []Lifecycle{Cancelled, Failed, Reversed, Refunded}, On: PaidElsewhere, Do: []Effect{MarkElsewhere}},
		{From: []Lifecycle{Paid, Authorized, PartiallyRefunded}, On: HolderPaid, Do: []Effect{GiveBackMoney}, Log: "reversal_started"},
		{From: []Lifecycle{Reversed, Refunded}, On: HolderPaid},
	})

// backToOpen returns the ways on from an attempt that took nothing: it waits
// for another attempt, ends, returns to the end that it had before late money
// was in review, or is open again.
func backToOpen(on Trigger, log string, settle Effect, open ...Effect) []Edge {
	from := []Lifecycle{Processing, InReview}
	return []Edge{
		{From: from, On: on, If: IfOtherAttempt, Do: []Effect{settle}},
		{From: from, On: on, If: IfPaidElsewhere, To: Cancelled, Do: []Effect{settle, ForgetLateFrom, NameReason, SendCancelled}, Log: "cancelled"},
		{From: from, On: on, If: IfEndedExpired, To: Expired, Do: []Effect{settle, ForgetLateFrom}, Log: "expired"},
		{From: from, On: on, If: IfEndedCancelled, To: Cancelled, Do: []Effect{settle, ForgetLateFrom}, Log: "cancelled"},
		{From: from, On: on, If: IfEndedFailed, To: Failed, Do: []Effect{settle, ForgetLateFrom}, Log: "failed"},
		{From: from, On: on, If: IfLastTry, To: Failed, Do: []Effect{settle, ForgetLateFrom, NoteDecline, NameReason}, Log: "failed"},
		{From: from, On: on, To: Open, Do: slices.Concat([]Effect{settle, ForgetLateFrom}, open, []Effect{WatchWindow}), Log: log},
	}
}

// AttemptEdge is one row of the attempt's table: what is known of one try.
type AttemptEdge struct {
	From []AttemptState
	On   Trigger
	To   AttemptState
}

var (
	attemptRunning = []AttemptState{AttemptSending, AttemptUnsettled, AttemptAuthenticating}
	attemptNothing = []AttemptState{AttemptDeclined, AttemptNotTaken, AttemptNotFound}
	attemptMoney   = slices.Concat(attemptRunning, attemptNothing)
)

// attemptEdges says which answers change what is known of an attempt. Word of
// money is believed whatever was concluded before; word of none is believed
// only while nothing is known.
var attemptEdges = []AttemptEdge{
	{From: attemptMoney, On: MoneyTaken, To: AttemptCaptured},
	{From: attemptMoney, On: MoneyHeld, To: AttemptAuthorized},
	{From: []AttemptState{AttemptInReview}, On: MoneyTaken, To: AttemptCaptured},
	{From: []AttemptState{AttemptInReview}, On: MoneyHeld, To: AttemptAuthorized},
	{From: attemptMoney, On: ReviewAsked, To: AttemptInReview},
	{From: []AttemptState{AttemptInReview}, On: ReviewAsked, To: AttemptInReview},
	{From: attemptMoney, On: PartlyHeld, To: AttemptReversing},
	{From: attemptMoney, On: RiskRefused, To: AttemptReversing},
	{From: attemptRunning, On: Declined, To: AttemptDeclined},
	{From: []AttemptState{AttemptNotFound}, On: Declined, To: AttemptDeclined},
	{From: attemptRunning, On: NothingTaken, To: AttemptNotTaken},
	{From: []AttemptState{AttemptSending, AttemptUnsettled}, On: NothingFound, To: AttemptNotFound},
	{From: []AttemptState{AttemptSending, AttemptUnsettled}, On: AnswerLost, To: AttemptUnsettled},
	{From: []AttemptState{AttemptSending, AttemptUnsettled}, On: AnswerOverdue, To: AttemptUnsettled},
	{From: []AttemptState{AttemptNotFound}, On: AnswerOverdue, To: AttemptNotFound},
	{From: []AttemptState{AttemptInReview}, On: AnswerOverdue, To: AttemptInReview},
	{From: attemptRunning, On: AuthenticationAsked, To: AttemptAuthenticating},
	{From: []AttemptState{AttemptAuthenticating}, On: AuthenticationLeft, To: AttemptNotTaken},
	{From: []AttemptState{AttemptReversing}, On: HoldReleased, To: AttemptReversed},
	{From: []AttemptState{AttemptInReview}, On: ReviewRejected, To: AttemptReversing},
	{From: []AttemptState{AttemptInReview}, On: ReviewOver, To: AttemptReversing},
	{From: []AttemptState{AttemptInReview}, On: ReversalAsked, To: AttemptReversing},
	{From: []AttemptState{AttemptInReview}, On: PartlyHeld, To: AttemptReversing},
	{From: []AttemptState{AttemptInReview}, On: RiskRefused, To: AttemptReversing},
	{From: []AttemptState{AttemptInReview}, On: Declined, To: AttemptDeclined},
	{From: []AttemptState{AttemptInReview}, On: NothingTaken, To: AttemptNotTaken},
}

// The triggers of a message.
const (
	SendBegun      Trigger = "SendBegun"
	AcceptedByProv Trigger = "Accepted"
	SentOut        Trigger = "Sent"
	DeliveredTo    Trigger = "Delivered"
	ReadBy         Trigger = "Read"
	SendFailed     Trigger = "Failed"
	RetryAllowed   Trigger = "RetryAllowed" // the failure may be tried again
	PutOff         Trigger = "PutOff"       // its sender cannot take it now
	RetryDue       Trigger = "RetryDue"
	OutcomeLost    Trigger = "OutcomeLost" // it may have been sent
	EchoOverdue    Trigger = "EchoOverdue" // no echo came
)

// The effects of a message.
const (
	CloseEntry   Effect = "CloseEntry"   // acknowledge its outbox entry, and append the next of the lane
	AppendEntry  Effect = "AppendEntry"  // an outbox entry for it
	ReleaseEntry Effect = "ReleaseEntry" // acknowledge its outbox entry; it stays at the head of the lane
	TryLater     Effect = "TryLater"     // a timer for the next try
	AwaitEcho    Effect = "AwaitEcho"    // a timer for the echo
	ForgetTimer  Effect = "ForgetTimer"
	ShowStatus   Effect = "ShowStatus"  // milestone and event of its payment request
	ShowFailure  Effect = "ShowFailure" // event of its payment request, with the reason
	FollowUp     Effect = "FollowUp"    // by the reason: as a template, again later, by SMS, or nothing
	CallOff      Effect = "CallOff"     // what would be sent in its place is not needed
)

// MessageEdge is one row of the message's table.
type MessageEdge struct {
	From []DeliveryStatus
	On   Trigger
	To   DeliveryStatus
	Do   []Effect
}

// deliveryRank orders the delivery statuses: higher evidence is taken from any
// lower state, lower evidence only fills in its time.
var deliveryRank = []DeliveryStatus{DeliveryQueued, DeliverySending, DeliveryAccepted, DeliverySent, DeliveryDelivered, DeliveryRead}

// messageEdges is the life of an outbound message. A pair without a row
// changes nothing: evidence is never refused, it only comes too late.
var messageEdges = []MessageEdge{
	{From: []DeliveryStatus{DeliveryQueued}, On: SendBegun, To: DeliverySending},
	{From: []DeliveryStatus{DeliverySending}, On: AcceptedByProv, To: DeliveryAccepted, Do: []Effect{ForgetTimer, CloseEntry}},
	{From: []DeliveryStatus{DeliverySending}, On: SentOut, To: DeliverySent, Do: []Effect{ForgetTimer, CloseEntry, ShowStatus}},
	{From: []DeliveryStatus{DeliverySending}, On: DeliveredTo, To: DeliveryDelivered, Do: []Effect{ForgetTimer, CloseEntry, ShowStatus, CallOff}},
	{From: []DeliveryStatus{DeliverySending}, On: ReadBy, To: DeliveryRead, Do: []Effect{ForgetTimer, CloseEntry, ShowStatus, CallOff}},
	{From: []DeliveryStatus{DeliverySending}, On: SendFailed, To: DeliveryFailed, Do: []Effect{ForgetTimer, CloseEntry, ShowFailure, FollowUp}},
	{From: []DeliveryStatus{DeliverySending}, On: RetryAllowed, To: DeliveryQueued, Do: []Effect{ReleaseEntry, TryLater}},
	{From: []DeliveryStatus{DeliverySending}, On: OutcomeLost, To: DeliverySending, Do: []Effect{AwaitEcho}},
	{From: []DeliveryStatus{DeliverySending}, On: EchoOverdue, To: DeliveryQueued, Do: []Effect{ReleaseEntry, AppendEntry}},
	{From: []DeliveryStatus{DeliveryQueued}, On: PutOff, To: DeliveryQueued, Do: []Effect{ReleaseEntry, TryLater}},
	{From: []DeliveryStatus{DeliveryQueued}, On: RetryDue, To: DeliveryQueued, Do: []Effect{AppendEntry}},
	{From: []DeliveryStatus{DeliveryQueued}, On: SendFailed, To: DeliveryFailed, Do: []Effect{ForgetTimer, CloseEntry, ShowFailure, FollowUp}},

	// An echo that comes when the message was already queued again for a
	// second try: it was sent, so the second try is called off.
	{From: []DeliveryStatus{DeliveryQueued}, On: AcceptedByProv, To: DeliveryAccepted, Do: []Effect{ForgetTimer, CloseEntry}},
	{From: []DeliveryStatus{DeliveryQueued}, On: SentOut, To: DeliverySent, Do: []Effect{ForgetTimer, CloseEntry, ShowStatus}},
	{From: []DeliveryStatus{DeliveryQueued}, On: DeliveredTo, To: DeliveryDelivered, Do: []Effect{ForgetTimer, CloseEntry, ShowStatus, CallOff}},
	{From: []DeliveryStatus{DeliveryQueued}, On: ReadBy, To: DeliveryRead, Do: []Effect{ForgetTimer, CloseEntry, ShowStatus, CallOff}},

	// That it was sent says no more of a message that has failed: reports come
	// in any order.
	{From: []DeliveryStatus{DeliveryAccepted}, On: SentOut, To: DeliverySent, Do: []Effect{ShowStatus}},
	{From: []DeliveryStatus{DeliveryAccepted, DeliverySent, DeliveryFailed}, On: DeliveredTo, To: DeliveryDelivered, Do: []Effect{ShowStatus, CallOff}},
	{From: []DeliveryStatus{DeliveryAccepted, DeliverySent, DeliveryDelivered, DeliveryFailed}, On: ReadBy, To: DeliveryRead, Do: []Effect{ShowStatus, CallOff}},
	{From: []DeliveryStatus{DeliveryAccepted, DeliverySent}, On: SendFailed, To: DeliveryFailed, Do: []Effect{ShowFailure, FollowUp}},
}

// ConsentEdge is one row of the consent's table, for one channel.
type ConsentEdge struct {
	From    []Consent
	On      Intent
	To      Consent
	Confirm bool // the one confirmation that the rules allow is sent
}

// consentEdges say what opt-out and opt-in words do.
var consentEdges = []ConsentEdge{
	{From: []Consent{ConsentUnknown, ConsentOptedIn}, On: IntentStop, To: ConsentOptedOut, Confirm: true},
	{From: []Consent{ConsentOptedOut}, On: IntentStop, To: ConsentOptedOut},
	{From: []Consent{ConsentOptedOut}, On: IntentStart, To: ConsentOptedIn, Confirm: true},
	{From: []Consent{ConsentUnknown, ConsentOptedIn}, On: IntentStart, To: ConsentOptedIn},
}

// ModeEdge is one row of the conversation's table.
type ModeEdge struct {
	From Mode
	On   EventKind
	To   Mode
	Do   string // what the bot does
}

// modeEdges say who answers a customer.
var modeEdges = []ModeEdge{
	{From: ModeBot, On: "MessageReceived", To: ModeBot, Do: "answer by intent and situation"},
	{From: ModeWithAgent, On: "MessageReceived", To: ModeWithAgent, Do: "opt-out, opt-in and help words only"},
	{From: ModeBot, On: "TakenOver", To: ModeWithAgent},
	{From: ModeWithAgent, On: "TakenOver", To: ModeWithAgent},
	{From: ModeBot, On: "AgentWrote", To: ModeWithAgent},
	{From: ModeWithAgent, On: "AgentWrote", To: ModeWithAgent},
	{From: ModeWithAgent, On: "HandedBack", To: ModeBot},
	{From: ModeBot, On: "HandedBack", To: ModeBot},
}
