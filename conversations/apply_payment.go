package conversations

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// paymentTx is one trigger on one payment request: what the guards look at and
// the effects change.
type paymentTx struct {
	*tx
	r          *PaymentRequest
	on         Trigger
	a          *Attempt       // the attempt concerned, nil if none
	late       bool           // a had been settled as having taken nothing
	repeated   bool           // the answer left the attempt's state as it was
	was        Lifecycle      // before the edge
	start      AttemptStarted // of AttemptBegun
	context    CaptureContext // of CheckoutStarted
	result     Result         // of an answer
	op         *Operation     // of an operation's outcome
	released   *Operation     // that gave back what the attempt held
	goneBefore bool           // the money that op gives back had gone back before
	corrected  bool           // op had been taken for failed
	ask        OperationRequested
	begun      []string // ids of the operations that the edge began
	reason     string
	note       string // of CancelAsked
	elsewhere  string
}

// onRequest applies one trigger to a payment request by its table.
func (t *tx) onRequest(id string, on Trigger, fill func(*paymentTx)) error {
	r := t.request(id)
	if r == nil {
		return NotFound("payment request")
	}
	t.effects.RequestID = id
	p := &paymentTx{tx: t, r: r, was: r.Lifecycle}
	if fill != nil {
		fill(p)
	}
	p.take(on)
	return nil
}

// take looks the trigger up and follows the edge, or refuses.
func (p *paymentTx) take(on Trigger) {
	p.on = on
	edge, refused := p.edge(on)
	if refused != nil {
		p.refuse(p.r, on, refused)
		return
	}
	p.follow(edge)
}

func (p *paymentTx) edge(on Trigger) (Edge, *Error) {
	var refused *Error
	for _, e := range paymentEdges {
		if e.On != on || !slices.Contains(e.From, p.r.Lifecycle) {
			continue
		}
		no := guards[e.If](p)
		if no == nil {
			return e, nil
		}
		if refused == nil {
			refused = no
		}
	}
	if refused == nil {
		refused = noEdgeFor(on, p.r.Lifecycle)
	}
	return Edge{}, refused
}

func (p *paymentTx) follow(e Edge) {
	if e.To != LifecycleUnknown {
		p.r.Lifecycle = e.To
	}
	for _, do := range e.Do {
		paymentEffects[do](p)
	}
	p.listInContact()
	if p.repeated {
		return
	}
	if milestone, ok := loggedMilestones[e.Log]; ok {
		if !p.mark(p.r, milestone) && !slices.Contains(repeatable, e.Log) {
			return
		}
	}
	if e.Log != "" {
		p.show(e.Log)
	}
}

// show puts an edge into the request's log, and every operation that it began.
func (p *paymentTx) show(kind string) {
	began := "reversal_started"
	if kind == "operation_asked" || kind == began {
		began = kind
	}
	if kind != began || len(p.begun) == 0 {
		p.showOne(kind, p.op)
	}
	for _, id := range p.begun {
		i := slices.IndexFunc(p.r.Operations, func(o Operation) bool { return o.ID == id })
		p.showOne(began, &p.r.Operations[i])
	}
}

func (p *paymentTx) showOne(kind string, op *Operation) {
	p.log(p.r, kind, func(l *LoggedEvent) {
		l.Milestone = loggedMilestones[kind]
		if p.a != nil {
			l.Attempt = p.a.N
			if l.Reason == "" {
				l.Reason = p.a.Result.Reason
			}
		}
		if p.released != nil {
			l.Operation = loggedOperation(*p.released)
		}
		if op != nil {
			l.Attempt, l.Reason, l.Operation = op.Attempt, op.Reason, loggedOperation(*op)
		}
	})
}

// loggedMilestones are the milestones that a row's event marks.
var loggedMilestones = map[string]Milestone{
	"opened": MilestoneOpened, "checkout_started": MilestoneCheckoutStarted, "authenticating": MilestoneAuthenticating,
	"declined": MilestoneDeclined, "paid": MilestonePaid, "authorized": MilestonePaid, "late_payment": MilestonePaid,
	"receipt_viewed": MilestoneReceiptViewed,
}

// repeatable are the milestones whose event is shown every time.
var repeatable = []string{"declined", "paid", "authorized", "late_payment", "authenticating"}

// listInContact keeps the contact's list of requests that still run.
func (p *paymentTx) listInContact() {
	runs := p.r.Lifecycle == Open || p.r.Lifecycle == Processing || p.r.Lifecycle == InReview
	at := slices.Index(p.contact.Requests, p.r.ID)
	switch {
	case runs && at < 0:
		p.contact.Requests = append(p.contact.Requests, p.r.ID)
	case !runs && at >= 0:
		p.contact.Requests = slices.Delete(p.contact.Requests, at, at+1)
	}
}

// deadline returns the end of the window that runs.
func (r *PaymentRequest) deadline() time.Time {
	if r.PayBy != nil {
		return *r.PayBy
	}
	return r.OpenBy
}

func (r *PaymentRequest) opened() bool { return r.PayBy != nil }

// tries counts the customer's tries.
func (r *PaymentRequest) tries() int {
	n := 0
	for _, a := range r.Attempts {
		if a.State == AttemptDeclined || a.State == AttemptReversed {
			n++
		}
	}
	return n
}

// guards are the questions that narrow an edge: nil is yes, an *Error no.
var guards = map[Guard]func(*paymentTx) *Error{
	Always: func(*paymentTx) *Error { return nil },
	IfUnopened: func(p *paymentTx) *Error {
		if no := p.windowRuns(); no != nil {
			return no // first: it is what the person must be told
		}
		if p.r.opened() {
			return Refused("opened", "the link was opened before")
		}
		return nil
	},
	IfInWindow: func(p *paymentTx) *Error {
		if no := p.isOpened(); no != nil {
			return no
		}
		return p.windowRuns()
	},
	IfChargeable: func(p *paymentTx) *Error {
		if no := p.isPayable(); no != nil {
			return no
		}
		if p.r.InFlight() != nil {
			return noEdge(Processing) // a hold that came late is being given back
		}
		if len(p.r.Attempts) >= maxAttempts {
			return Refused(ReasonTooManyAttempts, "too many attempts were made; ask for another way to pay")
		}
		return p.contact.MayTry(p.Merchant.CardTesting, p.now)
	},
	IfContextFits: func(p *paymentTx) *Error {
		if no := p.isPayable(); no != nil {
			return no
		}
		if n := len(unexpired(p.r.Contexts, p.now)); n >= maxContexts {
			return Refused("too_many_contexts", "the checkout was started too often; wait a few minutes")
		}
		return nil
	},
	IfWindowOver: func(p *paymentTx) *Error {
		if p.now.Before(p.r.deadline()) {
			return Refused("window_open", "the window has not ended")
		}
		return nil
	},
	IfNotSuperseded: func(p *paymentTx) *Error {
		if p.r.Superseded {
			return Refused("superseded", "another payment request has taken this order")
		}
		return nil
	},
	IfOtherAttempt: func(p *paymentTx) *Error {
		for _, a := range p.r.Attempts {
			if a.N != p.a.N && (!a.State.settled() || a.State == AttemptInReview) {
				return nil
			}
		}
		return Refused("no_other_attempt", "no other attempt is in flight")
	},
	IfLastTry: func(p *paymentTx) *Error {
		if p.Merchant.MaxAttempts <= 0 || p.r.tries() < p.Merchant.MaxAttempts {
			return Refused("tries_left", "more attempts are allowed")
		}
		return nil
	},
	IfPaidElsewhere: func(p *paymentTx) *Error {
		if p.r.PaidElsewhere == "" {
			return Refused("not_paid_elsewhere", "the order was not paid through another request")
		}
		return nil
	},
	IfEndedExpired:   func(p *paymentTx) *Error { return p.endedAs(Expired) },
	IfEndedCancelled: func(p *paymentTx) *Error { return p.endedAs(Cancelled) },
	IfEndedFailed:    func(p *paymentTx) *Error { return p.endedAs(Failed) },
	IfToBeLearnt:     ifToBeLearnt,
	IfCapturable:     ifCapturable,
	IfRefundable:     ifRefundable,
	IfReversible:     ifReversible,
	IfUnderReview:    ifUnderReview,
	IfGiveBackFailed: ifGiveBackFailed,
	IfCounts:         ifCounts,
	IfAllReversed:    ifAllReversed,
	IfNoneRefunded:   ifNoneRefunded,
	IfRefundedInPart: ifRefundedInPart,
	IfRefundedInFull: ifRefundedInFull,
	IfGoneBefore:     ifGoneBefore,
	IfSettledTooLate: ifSettledTooLate,
	IfAsked:          ifAsked,
}

func (p *paymentTx) isOpened() *Error {
	if !p.r.opened() {
		return Refused("not_opened", "the customer has not opened the link")
	}
	return nil
}

func (p *paymentTx) endedAs(l Lifecycle) *Error {
	if p.r.LateFrom != l {
		return Refused("not_ended", "the payment request had not ended so")
	}
	return nil
}

func (p *paymentTx) isPayable() *Error {
	if no := p.isOpened(); no != nil {
		return no
	}
	if p.r.Superseded {
		return Refused("superseded", "another payment request has taken this order")
	}
	return p.windowRuns()
}

func (p *paymentTx) windowRuns() *Error {
	if !p.now.Before(p.r.deadline()) {
		return Refused("window_ended", "the time for this payment request has ended")
	}
	return nil
}

// noEdgeFor says why a lifecycle does not allow what a trigger asks for.
func noEdgeFor(on Trigger, l Lifecycle) *Error {
	if ask, ok := asks[on]; ok {
		return Refused(ask.reason, "nothing can be %s: the payment request is %s", ask.done, strings.ReplaceAll(string(l), "_", " "))
	}
	return noEdge(l)
}

// noEdge says why a lifecycle does not allow something, by the lifecycle.
func noEdge(l Lifecycle) *Error {
	switch l {
	case Processing:
		return Refused("processing", "a payment is being processed; wait for its outcome")
	case InReview:
		return Refused("in_review", "the payment is under review")
	case Open:
		return Refused("not_paid", "the payment request is still open")
	}
	return Refused(string(l), "the payment request is %s", strings.ReplaceAll(string(l), "_", " "))
}

// paymentEffects turn the effects of the table into entries of the commit.
var paymentEffects = map[Effect]func(*paymentTx){
	SendPayment:   func(p *paymentTx) { p.sendAbout(p.r, PurposePayment) },
	SendReceipt:   func(p *paymentTx) { p.sendAbout(p.r, PurposeReceipt) },
	SendCancelled: func(p *paymentTx) { p.sendAbout(p.r, PurposeCancelled) },
	StartPayWindow: func(p *paymentTx) {
		end := p.now.Add(p.r.TimeToPay)
		p.r.PayBy = &end
	},
	WatchWindow:  func(p *paymentTx) { p.setTimer(TimerWindow, p.r.ID, 0, p.r.deadline()) },
	ForgetWindow: func(p *paymentTx) { p.clearTimer(TimerWindow, p.r.ID, 0) },
	ExtendWindow: func(p *paymentTx) {
		if p.r.opened() {
			end := later(*p.r.PayBy, p.now.Add(p.r.TimeToPay))
			p.r.PayBy = &end
			return
		}
		p.r.OpenBy = later(p.r.OpenBy, p.now.Add(p.r.TimeToOpen))
	},
	GiveGrace: func(p *paymentTx) {
		if p.r.opened() && !p.now.Before(*p.r.PayBy) {
			end := p.now.Add(p.Timings.DeclineGrace)
			p.r.PayBy = &end
		}
	},
	KeepContext: func(p *paymentTx) {
		p.r.Contexts = append(unexpired(p.r.Contexts, p.now), p.context)
	},
	StartAttempt:    startAttempt,
	AskLater:        askLater,
	ForgetAsking:    forgetAsking,
	WaitForCustomer: func(p *paymentTx) { p.askAt(p.now.Add(p.Timings.AuthenticateIn)) },
	AskPlatform:     askPlatform,
	WatchReview: func(p *paymentTx) {
		if within := p.Merchant.ReviewWithin; within > 0 && p.a.ReviewBy == nil {
			by := p.now.Add(within)
			p.a.ReviewBy = &by
		}
	},
	TakeMoney:      takeMoney,
	GiveBackHold:   func(p *paymentTx) { p.giveBack(p.a, giveBackReasons[p.on]) },
	GiveBackSecond: func(p *paymentTx) { p.giveBack(p.a, OperationSecondSuccess) },
	GiveBackMoney: func(p *paymentTx) {
		p.r.Reason = ReasonReversing
		p.giveBack(p.r.Attempt(p.r.PaidBy), giveBackReasons[p.on])
	},
	GiveBackReview: giveBackReview,
	GiveBackAgain:  giveBackAgain,
	GoOnGivingBack: goOnGivingBack,
	RefundInstead:  refundInstead,
	CaptureMoney:   captureMoney,
	RefundMoney:    refundMoney,
	SendRefund:     tellOfReturn,
	MarkReversed:   markReversed,
	NoteDecline:    func(p *paymentTx) { p.mark(p.r, MilestoneDeclined) },
	NameReason: func(p *paymentTx) {
		switch {
		case p.r.Lifecycle == Expired && p.r.opened():
			p.r.Reason = ReasonNotPaid
		case p.r.Lifecycle == Expired:
			p.r.Reason = ReasonNotOpened
		case p.r.Lifecycle == Failed:
			p.r.Reason = ReasonTooManyAttempts
		case p.r.PaidElsewhere != "":
			p.r.Reason = ReasonAlreadyPaid
		default:
			p.r.Reason, p.r.CancelNote = p.reason, p.note
		}
	},
	ForgetReason: func(p *paymentTx) { p.r.Reason = "" },
	KeepLateFrom: func(p *paymentTx) {
		switch {
		case slices.Contains(ended, p.was):
			p.r.LateFrom = p.was
		case p.late:
			p.r.LateFrom = Open
		}
	},
	ForgetLateFrom: func(p *paymentTx) { p.r.LateFrom = "" },
	MarkSuperseded: func(p *paymentTx) { p.r.Superseded = true },
	MarkElsewhere:  func(p *paymentTx) { p.r.PaidElsewhere = p.elsewhere },
	Count:          func(p *paymentTx) { p.r.recount() },
}

func askPlatform(p *paymentTx) {
	p.a.Asked++
	p.outbox(OutboxEntry{Kind: OutboxInquiry, RequestID: p.r.ID, Attempt: p.a.N})
}

// Bounds on what a customer can make a request grow by: contexts live for
// minutes, and attempts that took nothing do not count as tries.
const (
	maxContexts = 40
	maxAttempts = 100
)

func unexpired(contexts []CaptureContext, now time.Time) []CaptureContext {
	return slices.DeleteFunc(slices.Clone(contexts), func(c CaptureContext) bool { return !now.Before(c.ExpiresAt) })
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func startAttempt(p *paymentTx) {
	n := len(p.r.Attempts) + 1
	p.r.Attempts = append(p.r.Attempts, Attempt{
		N:              n,
		Code:           attemptCode(p.r.ID, n),
		TransactionID:  fmt.Sprintf("%s%03d", strings.ToUpper(strings.TrimPrefix(p.r.ID, requestPrefix)), n),
		Platform:       p.start.Platform,
		State:          AttemptSending,
		Amount:         p.r.Order.Total,
		Capture:        p.r.Capture,
		StartedAt:      p.now,
		SendBy:         p.now.Add(p.Timings.SendWithin),
		TokenExpiresAt: p.start.TokenExpiresAt,
		Result:         Result{CardBrand: p.start.CardBrand, CardLast4: p.start.CardLast4},
	})
	p.a = &p.r.Attempts[n-1]
}

// askLater sets when the platform is asked next about the attempt: at the
// documented pace while it is not settled, then at one hour and one day all the
// same; during a review at its own pace.
func askLater(p *paymentTx) {
	if p.a == nil {
		return
	}
	if p.a.State == AttemptInReview {
		p.askAt(p.reviewStep())
		return
	}
	var steps []time.Duration
	if p.a.State != AttemptNotFound {
		steps = append(steps, p.Timings.RecoverAfter)
		steps = append(steps, p.Timings.AskAfter...)
		steps = append(steps, p.a.TokenExpiresAt.Add(p.Timings.TokenGrace).Sub(p.a.StartedAt))
		slices.Sort(steps)
	}
	steps = append(steps, p.Timings.LateAskAfter...)
	for _, step := range steps {
		if at := p.a.StartedAt.Add(step); at.After(p.now) {
			p.askAt(at)
			return
		}
	}
	if p.a.State == AttemptNotFound {
		forgetAsking(p)
		return
	}
	p.askAt(p.now.Add(p.lastStep())) // unsettled beyond the timetable: keep asking, slowly
}

// lastStep is the wait between questions beyond the timetable.
func (p *paymentTx) lastStep() time.Duration {
	if n := len(p.Timings.LateAskAfter); n > 0 {
		return p.Timings.LateAskAfter[n-1]
	}
	return time.Hour
}

// reviewStep returns when a review is looked after next: when the platform is
// asked, or the merchant's time for it ends.
func (p *paymentTx) reviewStep() time.Time {
	at := p.now.Add(cmp.Or(p.Timings.ReviewAskEvery, p.lastStep()))
	if by := p.a.ReviewBy; by != nil && p.now.Before(*by) && at.After(*by) {
		return *by
	}
	return at
}

func (p *paymentTx) askAt(at time.Time) {
	p.a.AskAt = &at
	p.setTimer(TimerAttempt, p.r.ID, p.a.N, at)
}

func forgetAsking(p *paymentTx) { p.forget(p.a) }

// forget ends the asking after an attempt.
func (p *paymentTx) forget(a *Attempt) {
	if a != nil && a.AskAt != nil {
		a.AskAt = nil
		p.clearTimer(TimerAttempt, p.r.ID, a.N)
	}
}

// notFoundIsFinal tells whether "nothing there" may be concluded now: the
// token is dead, and the last search of the timetable was made.
func (p *paymentTx) notFoundIsFinal() bool {
	end := p.a.TokenExpiresAt.Add(p.Timings.TokenGrace)
	for _, step := range append([]time.Duration{p.Timings.RecoverAfter}, p.Timings.AskAfter...) {
		end = later(end, p.a.StartedAt.Add(step))
	}
	return !p.now.Before(end)
}

// takeMoney records the money that counts: totals, the frozen receipt, and for
// money that came late what the merchant's policy says.
func takeMoney(p *paymentTx) {
	forgetAsking(p)
	a, r := p.a, p.r
	r.PaidBy = a.N
	paid := a.Amount
	r.AuthorizedMinor = paid.Minor
	was := p.was
	if was == InReview && r.LateFrom != "" {
		was = r.LateFrom
	}
	late := p.late || r.LateFrom != "" || slices.Contains(ended, was)
	r.Late, r.LateFrom = r.Late || late, ""
	r.Receipt = &Receipt{
		Number: strings.ToUpper(strings.TrimPrefix(r.ID, requestPrefix)), IssuedAt: p.now,
		MerchantName: p.Merchant.Name, MerchantContact: p.Merchant.Contact,
		Order: r.Order, Paid: paid, Captured: r.Lifecycle == Paid,
		CardBrand: a.Result.CardBrand, CardLast4: a.Result.CardLast4,
		ApprovalCode: a.Result.ApprovalCode, ReconciliationID: a.Result.ReconciliationID,
		Late: late, Sandbox: r.Sandbox,
	}
	r.recount()
	policy := p.Merchant.LatePayment
	back := r.PaidElsewhere != "" ||
		was == Expired && policy.ReverseAfterExpiry ||
		was == Failed && policy.ReverseAfterFailure ||
		was == Cancelled && policy.ReverseAfterCancellation
	switch {
	case r.PaidElsewhere != "":
		p.giveBack(a, OperationOrderPaid)
	case back:
		p.giveBack(a, OperationLatePayment)
	case r.Superseded:
		p.outbox(OutboxEntry{Kind: OutboxHolder, RequestID: r.ID})
	}
	r.Reason = ""
	if back {
		r.Reason = ReasonReversing
	}
}

// created makes a payment request.
func (t *tx) created(e Created) error {
	r := e.Request.clone()
	r.Lifecycle, r.CreatedAt = LifecycleUnknown, t.now
	r.OpenBy = t.now.Add(r.TimeToOpen)
	t.requests[r.ID] = r
	if t.contact == nil {
		t.contact = newContact(r.ContactID, r.MerchantID, t.now)
	}
	t.learn([]Address{{Kind: AddressPhone, Value: r.Phone}})
	t.contact.Latest = r.ID
	if t.contact.Name == "" {
		t.contact.Name = clip(e.CustomerName, 80)
	}
	t.effects.RequestID = r.ID
	if t.contact.Consent[r.Channel] == ConsentOptedOut {
		return optedOut(t.contact, r.Channel)
	}
	p := &paymentTx{tx: t, r: r}
	p.take(Requested)
	p.warnOfDeclines()
	return nil
}

// optedOut refuses a channel, naming those that are left.
func optedOut(c *Contact, channel Channel) *Error {
	var left []string
	for _, other := range Channels {
		if c.Consent[other] != ConsentOptedOut {
			left = append(left, string(other))
		}
	}
	rest := "no channel is left"
	if len(left) > 0 {
		rest = "still allowed: " + strings.Join(left, ", ")
	}
	e := Refused("opted_out", "the customer has opted out of %s; %s", channel, rest)
	e.Field = "channel"
	return e
}

// attemptTriggers say what a platform's outcome means.
var attemptTriggers = map[Outcome]Trigger{
	OutcomeUnknown: AnswerLost, OutcomeAuthorized: MoneyHeld, OutcomeCaptured: MoneyTaken, OutcomeInReview: ReviewAsked,
	OutcomePartial: PartlyHeld, OutcomeRiskDeclined: RiskRefused, OutcomeDeclined: Declined,
	OutcomeAuthenticationPending: AuthenticationAsked, OutcomeNotTaken: NothingTaken, OutcomeNotFound: NothingFound,
	OutcomeReversed: NothingTaken,
}

func (t *tx) attemptAnswered(e AttemptAnswered) error {
	t.ack(e.EntryID)
	on, ok := attemptTriggers[e.Result.Outcome]
	if !ok {
		return Invalid("outcome", "%q is not an outcome", clip(string(e.Result.Outcome), 20))
	}
	if !e.StartedAt.IsZero() {
		r := t.request(e.RequestID)
		if r == nil {
			return NotFound("payment request")
		}
		if a := r.Attempt(e.Attempt); a == nil || !a.StartedAt.Equal(e.StartedAt) {
			return ErrNothing
		}
	}
	if e.Result.Outcome == OutcomeReversed {
		return t.foundReversed(e)
	}
	return t.onAttempt(e.RequestID, e.Attempt, on, e.Result)
}

// foundReversed takes the platform's word that what an attempt held or took is
// given back: so what was to give it back is done.
func (t *tx) foundReversed(e AttemptAnswered) error {
	r := t.request(e.RequestID)
	if r == nil {
		return NotFound("payment request")
	}
	a := r.Attempt(e.Attempt)
	if a == nil || a.State != AttemptReversing {
		return t.onAttempt(e.RequestID, e.Attempt, NothingTaken, e.Result)
	}
	t.effects.RequestID = r.ID
	for i, o := range r.Operations {
		if o.Attempt == a.N && o.open() && (o.Kind == OperationReversal || o.Kind == OperationVoid) {
			return t.operationSucceeded(r, i, "", "")
		}
	}
	return t.onAttempt(e.RequestID, e.Attempt, HoldReleased, Result{})
}

// attemptAfter looks an attempt's next state up.
func attemptAfter(s AttemptState, on Trigger) (AttemptState, bool) {
	i := slices.IndexFunc(attemptEdges, func(e AttemptEdge) bool { return e.On == on && slices.Contains(e.From, s) })
	if i < 0 {
		return s, false
	}
	return attemptEdges[i].To, true
}

func (t *tx) onAttempt(requestID string, n int, on Trigger, result Result) error {
	return t.onAttemptBy(nil, requestID, n, on, result)
}

// onAttemptBy applies a trigger to an attempt by its table, and then to its
// payment request. An answer that tells nothing new changes nothing. by is the
// operation that brought it about, if one did.
func (t *tx) onAttemptBy(by *Operation, requestID string, n int, on Trigger, result Result) error {
	r := t.request(requestID)
	if r == nil {
		return NotFound("payment request")
	}
	t.effects.RequestID = requestID
	a := r.Attempt(n)
	if a == nil {
		return NotFound("attempt")
	}
	p := &paymentTx{tx: t, r: r, a: a, was: r.Lifecycle, result: result, released: by}
	if on == NothingFound && !p.notFoundIsFinal() {
		on = AnswerLost // it may still show up
	}
	to, ok := attemptAfter(a.State, on)
	if ok && a.TakenBack(t.now) {
		return nil // a charge shows before its reversal does
	}
	if !ok {
		if a.State == AttemptReversing {
			if on == MoneyTaken {
				a.Result = merged(a.Result, result) // the reviewers accepted too late: it goes back all the same
			}
			if on == MoneyTaken || on == MoneyHeld || on == ReviewRejected {
				t.hasten(r, a.N)
			}
		}
		return nil // nothing new
	}
	p.repeated = a.State == to
	p.late = slices.Contains(attemptNothing, a.State)
	a.State = to
	a.Result = merged(a.Result, result)
	if a.State.settled() && (a.SettledAt == nil || !p.repeated) { // late money settles it anew
		a.SettledAt = &t.now
	}
	counted := r.PaidBy
	p.take(on)
	p.noteDecline(on)
	if r.PaidBy != n || counted == n {
		return nil
	}
	// What was done elsewhere with money that we had not heard of.
	for i, o := range r.Operations {
		if o.Attempt == n && o.Elsewhere {
			followed := &paymentTx{tx: t, r: r, was: r.Lifecycle, op: &r.Operations[i]}
			if err := followed.operationDone(); err != nil {
				return err
			}
		}
	}
	return nil
}

// merged adds what a later answer told to what was known.
func merged(known, told Result) Result {
	if told.Outcome == "" || told.Outcome == OutcomeUnknown && known.Outcome != "" {
		told.Outcome = known.Outcome
	}
	for _, f := range []struct{ to, from *string }{
		{&told.Reason, &known.Reason}, {&told.PaymentID, &known.PaymentID}, {&told.ReconciliationID, &known.ReconciliationID},
		{&told.ApprovalCode, &known.ApprovalCode}, {&told.CardBrand, &known.CardBrand}, {&told.CardLast4, &known.CardLast4},
	} {
		if *f.to == "" {
			*f.to = *f.from
		}
	}
	if told.Amount.IsZero() {
		told.Amount = known.Amount
	}
	if told.At == nil {
		told.At = known.At
	}
	return told
}

// reviewDecided ends a review. A decision says neither how much is held nor
// under which number: where that is not known, or nothing was held yet, or the
// attempt is not under review at all, the platform is asked what came of it.
func (t *tx) reviewDecided(e ReviewDecided) error {
	r := t.request(e.RequestID)
	if r == nil {
		return NotFound("payment request")
	}
	a := r.Attempt(e.Attempt)
	switch {
	case a == nil:
		return NotFound("attempt")
	case a.State == AttemptReversing:
	case a.State != AttemptInReview, a.Result.Amount.Minor == 0:
		return t.attemptNotified(AttemptNotified{RequestID: r.ID, Attempt: a.N})
	}
	switch {
	case !e.Accepted:
		return t.onAttempt(e.RequestID, e.Attempt, ReviewRejected, Result{})
	case a.Capture:
		return t.onAttempt(e.RequestID, e.Attempt, MoneyTaken, Result{Outcome: OutcomeCaptured})
	}
	return t.onAttempt(e.RequestID, e.Attempt, MoneyHeld, Result{Outcome: OutcomeAuthorized})
}

// timerFired compares a timer with the state's own deadline: a timer is only a
// hint.
func (t *tx) timerFired(timer Timer) error {
	switch timer.Kind {
	case TimerMessage:
		return t.messageDue(timer)
	case TimerFollowUp:
		return t.followUpDue(timer)
	case TimerWindow, TimerAttempt, TimerOperation:
	default:
		return fmt.Errorf("conversations: a timer of kind %q, which a newer version may know", clip(string(timer.Kind), 20))
	}
	r := t.request(timer.ID)
	if r == nil {
		t.clearTimer(timer.Kind, timer.ID, timer.N)
		return nil
	}
	t.effects.RequestID = r.ID
	switch timer.Kind {
	case TimerWindow:
		t.clearTimer(timer.Kind, timer.ID, 0)
		if r.Lifecycle == Open && t.now.Before(r.deadline()) {
			t.effects.Timers = nil
			return ErrNothing // it was moved meanwhile
		}
		if r.Lifecycle == Open || r.Lifecycle == Processing {
			return t.onRequest(r.ID, WindowEnded, nil)
		}
		return nil
	case TimerAttempt:
		a := r.Attempt(timer.N)
		if a == nil || a.AskAt == nil {
			t.clearTimer(timer.Kind, timer.ID, timer.N)
			return nil
		}
		if t.now.Before(*a.AskAt) {
			return ErrNothing
		}
		a.AskAt = nil
		t.clearTimer(timer.Kind, timer.ID, timer.N)
		if a.State == AttemptAuthenticating {
			return t.onAttempt(r.ID, a.N, AuthenticationLeft, Result{Reason: "authentication_abandoned"})
		}
		if a.State == AttemptInReview && a.ReviewBy != nil && !t.now.Before(*a.ReviewBy) {
			return t.onAttempt(r.ID, a.N, ReviewOver, Result{})
		}
		return t.onAttempt(r.ID, a.N, AnswerOverdue, Result{})
	}
	return t.operationDue(r, timer)
}
