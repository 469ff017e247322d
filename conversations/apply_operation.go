package conversations

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// ReasonReversing beside a lifecycle with money says that it is being given
// back.
const ReasonReversing = "being_reversed"

// maxOperations bounds what a merchant's wishes can make a request grow by.
// What we have to give back is not bounded by it.
const maxOperations = 250

// defaultCallLife is how long after it was made a call may still reach the
// platform, held up by whatever lies between: CyberSource takes what was signed
// for up to 120 s, and refuses it after.
const defaultCallLife = 2 * time.Minute

// callLife returns how long a call for an operation may be on its way. A
// reversal or void that comes twice is refused by the platform, so nobody need
// wait for one.
func (t Timings) callLife(kind OperationKind) time.Duration {
	if kind == OperationReversal || kind == OperationVoid {
		return 0
	}
	return cmp.Or(t.CallLife, defaultCallLife)
}

// maxOperationWait bounds the wait between two tries: money that has to go back
// must not wait for days because the platform was away for hours.
const maxOperationWait = time.Hour

// operationWait returns how long to wait after so many tries: it doubles.
func (t Timings) operationWait(tries int) time.Duration {
	wait := t.RetryOperationIn
	for range tries - 1 {
		if wait *= 2; wait >= maxOperationWait {
			return maxOperationWait
		}
	}
	return wait
}

// open tells whether an operation's outcome is awaited. As long as it is, its
// amount is reserved.
func (o Operation) open() bool { return o.State == OperationPending || o.State == OperationUnsettled }

// returns tells whether an operation gives money back.
func (o Operation) returns() bool { return o.Kind != OperationCapture }

// sums are the totals that the operations make of the money that counts.
type sums struct {
	captured, reversed, refunded int64
	unbalanced                   bool // the platform did more than we know how it could
}

// soldAtOnce tells whether the money that counts was taken with its
// authorization.
func (r *PaymentRequest) soldAtOnce() bool { return r.Receipt != nil && r.Receipt.Captured }

// counts tells whether an operation is about the money that counts.
func (r *PaymentRequest) counts(o Operation) bool { return r.PaidBy != 0 && o.Attempt == r.PaidBy }

// undoesRefund tells whether an operation is the void of a refund, by which the
// merchant keeps the money after all. Only somebody at the platform does that.
func (r *PaymentRequest) undoesRefund(o Operation) bool {
	return o.Kind == OperationVoid && slices.ContainsFunc(r.Operations, func(other Operation) bool {
		return other.Kind == OperationRefund && other.ResultID != "" && other.ResultID == o.PaymentID
	})
}

// sums adds up what succeeded. It is never more than is possible: what was
// learnt in another order than it was done corrects itself.
func (r *PaymentRequest) sums() sums {
	var taken, voided, released, refunded int64
	if r.soldAtOnce() {
		taken = r.AuthorizedMinor
	}
	for _, o := range r.Operations {
		switch {
		case !r.counts(o) || o.State != OperationSucceeded:
		case o.Kind == OperationCapture:
			taken += o.Amount.Minor
		case o.Kind == OperationReversal:
			released += o.Amount.Minor
		case o.Kind == OperationRefund:
			refunded += o.Amount.Minor
		case r.undoesRefund(o):
			refunded -= o.Amount.Minor
		default:
			voided += o.Amount.Minor
		}
	}
	kept := taken - voided
	s := sums{captured: within(kept, r.AuthorizedMinor)}
	s.refunded = within(refunded, s.captured)
	s.reversed = within(voided+released, r.AuthorizedMinor-s.captured)
	s.unbalanced = kept != s.captured || refunded != s.refunded || s.captured+released > r.AuthorizedMinor
	return s
}

func within(minor, most int64) int64 { return max(0, min(minor, most)) }

// recount writes the totals anew.
func (r *PaymentRequest) recount() {
	if r.PaidBy == 0 {
		return
	}
	s := r.sums()
	r.CapturedMinor, r.ReversedMinor, r.RefundedMinor, r.Unbalanced = s.captured, s.reversed, s.refunded, s.unbalanced
}

// reserved returns how much of the money that counts operations of a kind may
// have moved or will.
func (r *PaymentRequest) reserved(kind OperationKind) int64 {
	var minor int64
	for _, o := range r.Operations {
		if r.counts(o) && o.Kind == kind && o.open() {
			minor += o.Amount.Minor
		}
	}
	return minor
}

// givingBack tells whether a reversal or void of the money that counts is under
// way: nothing else may be done with it.
func (r *PaymentRequest) givingBack() bool {
	return r.reserved(OperationReversal)+r.reserved(OperationVoid) > 0
}

// Capturable returns what may still be captured, in minor units: less what is
// reserved for captures under way.
func (r *PaymentRequest) Capturable() int64 {
	if r.Lifecycle != Authorized && r.Lifecycle != Paid && r.Lifecycle != PartiallyRefunded || r.givingBack() {
		return 0
	}
	return max(0, r.AuthorizedMinor-r.CapturedMinor-r.ReversedMinor-r.reserved(OperationCapture))
}

// Refundable returns what may still be refunded, in minor units: less what is
// reserved for refunds under way.
func (r *PaymentRequest) Refundable() int64 {
	if r.givingBack() {
		return 0
	}
	return max(0, r.CapturedMinor-r.RefundedMinor-r.reserved(OperationRefund))
}

// source is money that was taken, in the sale or by one capture, with what can
// still be given back of it.
type source struct {
	paymentID string
	left      int64
}

// sources returns what the money that counts was taken by, without what has
// nothing left.
func (r *PaymentRequest) sources() []source {
	a := r.Attempt(r.PaidBy)
	if a == nil {
		return nil
	}
	var all []source
	add := func(paymentID string, minor int64) {
		if i := slices.IndexFunc(all, func(s source) bool { return s.paymentID == paymentID }); i >= 0 {
			all[i].left += minor
			return
		}
		all = append(all, source{paymentID, minor})
	}
	if r.soldAtOnce() {
		add(a.Result.PaymentID, r.AuthorizedMinor)
	}
	for _, o := range r.Operations {
		if r.counts(o) && o.Kind == OperationCapture && o.State == OperationSucceeded {
			add(cmp.Or(o.ResultID, a.Result.PaymentID), o.Amount.Minor)
		}
	}
	var astray int64 // given back of a capture that we have not learnt of
	for _, o := range r.Operations {
		if !r.counts(o) || o.State != OperationSucceeded && !o.open() || r.undoesRefund(o) {
			continue
		}
		undone := o.ResultID != "" && slices.ContainsFunc(r.Operations, func(v Operation) bool {
			return v.Kind == OperationVoid && v.State == OperationSucceeded && v.PaymentID == o.ResultID
		})
		if o.Kind != OperationVoid && (o.Kind != OperationRefund || undone) {
			continue
		}
		minor := o.Amount.Minor
		if i := slices.IndexFunc(all, func(s source) bool { return s.paymentID == o.PaymentID }); i >= 0 {
			taken := min(minor, max(0, all[i].left))
			all[i].left -= taken
			minor -= taken
		}
		astray += minor
	}
	for i := range all {
		taken := min(astray, max(0, all[i].left))
		all[i].left -= taken
		astray -= taken
	}
	return slices.DeleteFunc(all, func(s source) bool { return s.left <= 0 })
}

func total(from []source) int64 {
	var minor int64
	for _, s := range from {
		minor += s.left
	}
	return minor
}

// split takes an amount from as few sources as can be.
func split(from []source, minor int64) []source {
	if minor <= 0 {
		return nil
	}
	slices.SortStableFunc(from, func(a, b source) int { return cmp.Compare(b.left, a.left) })
	for _, s := range slices.Backward(from) {
		if s.left >= minor { // the smallest that is large enough
			return []source{{s.paymentID, minor}}
		}
	}
	var parts []source
	for _, s := range from {
		if part := min(s.left, minor); part > 0 {
			parts = append(parts, source{s.paymentID, part})
			minor -= part
		}
	}
	return parts
}

// cameTooLate tells whether the platform refused to void a transaction because
// the money is on its way to the merchant.
func (r *PaymentRequest) cameTooLate(paymentID string) bool {
	return slices.ContainsFunc(r.Operations, func(o Operation) bool {
		return o.State == OperationFailed && o.Error == ErrorSettled && o.PaymentID == paymentID
	})
}

// failedGiveBacks returns the last operations of attempts whose money must not
// be kept and could not be given back.
func (r *PaymentRequest) failedGiveBacks() []Operation {
	var failed []Operation
	for _, a := range r.Attempts {
		switch a.State {
		case AttemptReversing, AttemptInReview, AttemptAuthorized, AttemptCaptured:
		default:
			continue
		}
		var last *Operation
		for i, o := range r.Operations {
			if o.Attempt == a.N && o.returns() && !o.Elsewhere {
				last = &r.Operations[i]
			}
		}
		if a.N != r.PaidBy && last != nil && last.State == OperationFailed {
			failed = append(failed, *last)
		}
	}
	return failed
}

// The refusals of what a merchant asks, each a stable word.
const (
	notCapturable     = "not_capturable"
	beyondCapturable  = "beyond_capturable"
	notReversible     = "not_reversible"
	notRefundable     = "not_refundable"
	beyondRefundable  = "beyond_refundable"
	refundableChanged = "refundable_changed"
	wrongCurrency     = "wrong_currency"
	tooManyOperations = "too_many_operations"
)

// asks are the triggers of what a merchant may ask, with how a lifecycle
// refuses it that has no row.
var asks = map[Trigger]struct{ reason, done string }{
	CaptureAsked:  {notCapturable, "captured"},
	ReversalAsked: {notReversible, "reversed"},
	RefundAsked:   {notRefundable, "refunded"},
}

// askTriggers say what a merchant's wish means.
var askTriggers = map[OperationKind]Trigger{
	OperationCapture: CaptureAsked, OperationReversal: ReversalAsked, OperationRefund: RefundAsked,
}

func (t *tx) operationRequested(e OperationRequested) error {
	r := t.request(e.RequestID)
	if r == nil {
		return NotFound("payment request")
	}
	if err := e.check(r.Order.Total.Currency); err != nil {
		return err
	}
	return t.onRequest(r.ID, askTriggers[e.Operation], func(p *paymentTx) { p.ask = e })
}

// check refuses a wish that no state could grant.
func (e OperationRequested) check(currency string) error {
	if askTriggers[e.Operation] == "" {
		return Invalid("operation", "%q is none that can be asked for", clip(string(e.Operation), 20))
	}
	if err := checkText("reason", e.Note, 200); err != nil {
		return err
	}
	if e.Operation == OperationReversal && e.Amount != nil {
		return Invalid("amount", "a reversal gives all of it back; leave the amount out, or refund a part")
	}
	if e.Operation != OperationRefund && e.ExpectedRefundable != nil {
		return Invalid("expected_refundable", "this is for refunds only; leave it out")
	}
	for _, given := range []struct {
		field string
		money *Money
		least int64
	}{{"amount", e.Amount, 1}, {"expected_refundable", e.ExpectedRefundable, 0}} {
		switch m := given.money; {
		case m == nil:
		case m.Currency != currency:
			return &Error{Code: CodeInvalid, Field: given.field + ".currency", Reason: wrongCurrency,
				Message: fmt.Sprintf("this payment is in %s, not in %q", currency, clip(m.Currency, 12))}
		case m.Minor < given.least || m.Minor > MaxMinor:
			return Invalid(given.field, "%s is no amount for this; leave it out for all that is left", m.Decimal())
		}
	}
	return nil
}

// asked returns the amount that was asked for, or all that is left.
func (p *paymentTx) asked(left int64) int64 {
	if p.ask.Amount == nil {
		return left
	}
	return p.ask.Amount.Minor
}

// money returns an amount in the request's currency.
func (r *PaymentRequest) money(minor int64) Money {
	return Money{Minor: minor, Currency: r.Order.Total.Currency}
}

func ifCapturable(p *paymentTx) *Error {
	left := p.r.Capturable()
	switch {
	case p.r.Reason == ReasonReversing || p.r.givingBack():
		return Refused(notCapturable, "the money is being given back")
	case left == 0:
		return Refused(notCapturable, "nothing is left to capture")
	case p.asked(left) > left:
		return Refused(beyondCapturable, "%s can still be captured, not more", p.r.money(left))
	}
	return p.hasRoom(1)
}

func ifRefundable(p *paymentTx) *Error {
	left := p.r.Refundable()
	if want := p.ask.ExpectedRefundable; want != nil && want.Minor != left {
		return Refused(refundableChanged, "%s can still be refunded, not %s; nothing was done", p.r.money(left), *want)
	}
	sources := p.r.sources()
	left = min(left, total(sources))
	switch {
	case p.r.Reason == ReasonReversing || p.r.givingBack():
		return Refused(notRefundable, "the money is being given back")
	case left == 0:
		return Refused(notRefundable, "nothing is left to refund")
	case p.asked(left) > left:
		return Refused(beyondRefundable, "%s can still be refunded, not more", p.r.money(left))
	}
	return p.hasRoom(len(split(sources, p.asked(left))))
}

func ifReversible(p *paymentTx) *Error {
	taken := p.r.sources()
	switch {
	case p.r.Attempt(p.r.PaidBy) == nil:
		return Refused(notReversible, "no money came")
	case p.r.Reason == ReasonReversing || p.r.givingBack():
		return Refused(notReversible, "the money is being given back")
	case p.r.reserved(OperationCapture)+p.r.reserved(OperationRefund) > 0:
		return Refused(notReversible, "a capture or refund is under way; wait for its outcome")
	case p.r.sums().refunded > 0:
		return Refused(notReversible, "a part was refunded; refund the rest")
	case len(taken) > 1:
		return Refused(notReversible, "the money was taken in %d parts; refund them", len(taken))
	case len(taken) == 1 && p.r.cameTooLate(taken[0].paymentID):
		return Refused(notReversible, "the money is on its way to the merchant already; refund it")
	case len(p.r.failedGiveBacks()) > 0:
		return Refused(notReversible, "another payment, which must not be kept, goes back first")
	}
	return p.hasRoom(1)
}

func ifUnderReview(p *paymentTx) *Error {
	if !slices.ContainsFunc(p.r.Attempts, func(a Attempt) bool { return a.State == AttemptInReview }) {
		return Refused(notReversible, "the money is being given back")
	}
	return nil
}

func ifGiveBackFailed(p *paymentTx) *Error {
	if len(p.r.failedGiveBacks()) == 0 {
		return noEdgeFor(ReversalAsked, p.r.Lifecycle)
	}
	return p.hasRoom(1)
}

// hasRoom refuses more operations than a person would ask for.
func (p *paymentTx) hasRoom(n int) *Error {
	if len(p.r.Operations)+n > maxOperations {
		return Refused(tooManyOperations, "%d operations were made with this payment; use the platform's own pages for more", len(p.r.Operations))
	}
	return nil
}

func ifCounts(p *paymentTx) *Error {
	if p.op == nil || !p.r.counts(*p.op) {
		return Refused("not_the_payment", "this is not the money that counts")
	}
	return nil
}

func ifAllReversed(p *paymentTx) *Error {
	if no := ifCounts(p); no != nil {
		return no
	}
	if p.r.sums().captured > 0 || p.r.undoesRefund(*p.op) {
		return Refused("not_reversed_in_full", "a part of the money was taken")
	}
	return nil
}

func ifNoneRefunded(p *paymentTx) *Error {
	if no := ifCounts(p); no != nil {
		return no
	}
	if p.r.sums().refunded > 0 {
		return Refused("refunded_in_part", "a part is refunded")
	}
	return nil
}

func ifRefundedInPart(p *paymentTx) *Error {
	if no := ifCounts(p); no != nil {
		return no
	}
	if p.r.sums().refunded == 0 {
		return Refused("not_refunded", "nothing is refunded")
	}
	return nil
}

func ifRefundedInFull(p *paymentTx) *Error {
	if no := ifCounts(p); no != nil {
		return no
	}
	if s := p.r.sums(); s.captured == 0 || s.refunded < s.captured || p.r.reserved(OperationCapture) > 0 {
		return Refused("not_refunded_in_full", "more can be refunded")
	}
	return nil
}

func ifGoneBefore(p *paymentTx) *Error {
	if !p.goneBefore {
		return Refused("not_gone_before", "this is what gives the money back")
	}
	return nil
}

func ifSettledTooLate(p *paymentTx) *Error {
	if p.op == nil || p.op.Error != ErrorSettled || p.op.Reason == OperationAsked || p.op.Kind == OperationRefund || p.op.Kind == OperationCapture {
		return Refused("not_settled", "the money was not on its way")
	}
	return nil
}

func ifAsked(p *paymentTx) *Error {
	if p.op == nil || p.op.Reason != OperationAsked {
		return Refused("not_asked", "the merchant did not ask for it")
	}
	return nil
}

func ifToBeLearnt(p *paymentTx) *Error {
	switch a := p.a; {
	case a == nil:
	case a.State == AttemptUnsettled, a.State == AttemptInReview, a.State == AttemptNotFound, a.State == AttemptReversing:
		return nil
	case a.State == AttemptSending && p.now.After(a.SendBy):
		return nil
	}
	return Refused("nothing_to_learn", "what became of the attempt is known, or about to be")
}

// begin starts an operation: a worker will carry it out.
func (p *paymentTx) begin(kind OperationKind, a *Attempt, paymentID string, amount Money, reason string) *Operation {
	p.r.Operations = append(p.r.Operations, Operation{
		ID: p.r.nextOperationID(), Kind: kind, Attempt: a.N, PaymentID: paymentID, Amount: amount, State: OperationPending,
		Reason: reason, Note: p.ask.Note, By: p.ask.Agent, StartedAt: p.now,
	})
	op := &p.r.Operations[len(p.r.Operations)-1]
	p.begun = append(p.begun, op.ID)
	p.outbox(OutboxEntry{Kind: OutboxOperation, RequestID: p.r.ID, Operation: op.ID})
	return op
}

// nextOperationID follows from the request and the number of its operations, so
// that a repeated application makes the same one.
func (r *PaymentRequest) nextOperationID() string {
	return fmt.Sprintf("%s-op%d", r.ID, len(r.Operations)+1)
}

func captureMoney(p *paymentTx) {
	a := p.r.Attempt(p.r.PaidBy)
	p.begin(OperationCapture, a, a.Result.PaymentID, p.r.money(p.asked(p.r.Capturable())), OperationAsked)
}

func refundMoney(p *paymentTx) {
	p.refund(p.asked(min(p.r.Refundable(), total(p.r.sources()))), OperationAsked)
}

// refund gives back so much of the money that counts, with one operation for
// each sale or capture that it takes from.
func (p *paymentTx) refund(minor int64, reason string) {
	first := ""
	for _, part := range split(p.r.sources(), minor) {
		op := p.begin(OperationRefund, p.r.Attempt(p.r.PaidBy), part.paymentID, p.r.money(part.left), reason)
		op.PartOf = first
		first = cmp.Or(first, op.ID)
	}
}

// giveBackReasons say why money goes back, by what made it.
var giveBackReasons = map[Trigger]string{
	PartlyHeld: OperationPartial, RiskRefused: OperationRiskDeclined, ReviewRejected: OperationRejected,
	ReviewOver: OperationReviewOver, ReversalAsked: OperationAsked, HolderPaid: OperationOrderPaid,
}

// giveBack starts the operation that returns what an attempt holds or took.
// While one is under way for the attempt, there is no second.
func (p *paymentTx) giveBack(a *Attempt, reason string) {
	p.forget(a)
	if a.N == p.r.PaidBy {
		p.giveBackMoney(reason)
		return
	}
	if slices.ContainsFunc(p.r.Operations, func(o Operation) bool { return o.Attempt == a.N && o.returns() && o.open() }) {
		return
	}
	kind := OperationReversal
	if a.State == AttemptCaptured || a.Result.Outcome == OutcomeCaptured {
		kind = OperationVoid
	}
	amount := a.Result.Amount
	if amount.IsZero() {
		amount = a.Amount
	}
	p.begin(kind, a, a.Result.PaymentID, amount, reason)
}

// giveBackMoney starts what returns the money that counts, as much as is left:
// what is held is reversed, what was taken at once is voided, all else is
// refunded. What another operation may be moving is waited for: GoOnGivingBack
// comes back here.
func (p *paymentTx) giveBackMoney(reason string) {
	a, s, taken := p.r.Attempt(p.r.PaidBy), p.r.sums(), p.r.sources()
	busy := p.r.reserved(OperationCapture)+p.r.reserved(OperationRefund) > 0
	switch {
	case p.r.givingBack():
	case s.captured == 0 && busy:
	case s.captured == 0:
		p.begin(OperationReversal, a, a.Result.PaymentID, p.r.money(p.r.AuthorizedMinor-s.reversed), reason)
	case !busy && s.refunded == 0 && len(taken) == 1 && !p.r.cameTooLate(taken[0].paymentID):
		p.begin(OperationVoid, a, taken[0].paymentID, p.r.money(taken[0].left), reason)
	default:
		p.refund(p.r.Refundable(), reason)
	}
	if !slices.ContainsFunc(p.r.Operations, func(o Operation) bool { return p.r.counts(o) && o.open() }) {
		p.r.Reason = "" // nothing that we know of is left
	}
}

// giveBackReview gives back every attempt that is in review.
func giveBackReview(p *paymentTx) {
	for i := range p.r.Attempts {
		a := &p.r.Attempts[i]
		if to, ok := attemptAfter(a.State, p.on); ok {
			a.State = to
			p.giveBack(a, giveBackReasons[p.on])
		}
	}
}

// giveBackAgain starts anew what could not be given back, for the reason that
// it had.
func giveBackAgain(p *paymentTx) {
	for _, last := range p.r.failedGiveBacks() {
		a := p.r.Attempt(last.Attempt)
		if last.Kind == OperationRefund {
			p.begin(OperationRefund, a, last.PaymentID, last.Amount, last.Reason)
			continue
		}
		p.giveBack(a, last.Reason)
	}
}

// goOnGivingBack follows an operation on money that must go back: what is left
// of it goes too, unless what should return it could not.
func goOnGivingBack(p *paymentTx) {
	if p.r.Reason != ReasonReversing || !p.r.counts(*p.op) {
		return
	}
	ours := p.op.Reason != OperationAsked && p.op.Reason != OperationElsewhere
	if p.op.State == OperationFailed && p.op.returns() && (ours || p.op.Kind != OperationRefund) {
		p.r.Reason = "" // a person has to look
		return
	}
	p.giveBackMoney(OperationOrderPaid)
}

// refundInstead follows a void that came too late.
func refundInstead(p *paymentTx) {
	op := *p.op
	if p.r.counts(op) {
		p.refund(min(op.Amount.Minor, p.r.Refundable()), op.Reason)
		return
	}
	p.begin(OperationRefund, p.r.Attempt(op.Attempt), op.PaymentID, op.Amount, op.Reason)
}

// markReversed notes that the money of an attempt went back, once all did.
func markReversed(p *paymentTx) {
	a := p.r.Attempt(p.op.Attempt)
	if p.op.Kind != OperationRefund || p.r.returned(a) {
		p.forget(a)
		a.State = AttemptReversed
	}
}

// returned tells whether all that an attempt held or took went back.
func (r *PaymentRequest) returned(a *Attempt) bool {
	left := cmp.Or(a.Result.Amount.Minor, a.Amount.Minor)
	for _, o := range r.Operations {
		if o.Attempt == a.N && o.returns() && o.State == OperationSucceeded {
			left -= o.Amount.Minor
		}
	}
	return left <= 0
}

// tellOfReturn tells the customer what went back, once all parts of a refund
// are settled.
func tellOfReturn(p *paymentTx) {
	op := *p.op
	if p.r.Receipt == nil || !op.returns() || p.r.undoesRefund(op) {
		return
	}
	sum := op.Amount
	if !p.corrected { // else its refund was told of without this part
		sum.Minor = 0
		for _, o := range p.r.Operations {
			if cmp.Or(o.PartOf, o.ID) != cmp.Or(op.PartOf, op.ID) {
				continue
			}
			if o.open() {
				return
			}
			if o.State == OperationSucceeded {
				sum.Minor += o.Amount.Minor
			}
		}
	}
	if sum.Minor > 0 {
		p.sendRefund(p.r, sum)
	}
}

// operationIn finds an operation and the request that it is of.
func (t *tx) operationIn(requestID, id string) (*PaymentRequest, int, error) {
	r := t.request(requestID)
	if r == nil {
		return nil, 0, NotFound("payment request")
	}
	t.effects.RequestID = r.ID
	i := slices.IndexFunc(r.Operations, func(o Operation) bool { return o.ID == id })
	if i < 0 {
		return nil, 0, NotFound("operation")
	}
	return r, i, nil
}

// operationStarted gives the right to call the platform to one process at a
// time, and each outbox entry gives it once. While an earlier call may still be
// on its way the entry is put off; after that the operation is unknown, and
// whoever takes it looks for it first.
func (t *tx) operationStarted(e OperationStarted) error {
	r, i, err := t.operationIn(e.RequestID, e.OperationID)
	if err != nil {
		return err
	}
	op := &r.Operations[i]
	if !op.open() || op.DueAt != nil {
		t.ack(e.EntryID) // settled, or its timer will bring another entry
		return nil
	}
	if op.SendBy != nil {
		until := op.SendBy.Add(t.Timings.callLife(op.Kind))
		if t.now.Before(until) {
			t.ack(e.EntryID)
			t.tryAt(r, i, until)
			return nil
		}
		again := e.EntryID != "" && op.EntryID == e.EntryID
		t.loseOperation(r, i, until)
		if again { // an answer to the first call could be taken for one to the second
			t.ack(e.EntryID)
			t.outbox(OutboxEntry{Kind: OutboxOperation, RequestID: r.ID, Operation: op.ID})
			return nil
		}
	}
	by := t.now.Add(t.Timings.SendWithin)
	op.SendBy, op.EntryID = &by, e.EntryID
	op.Tries++
	started := *op
	t.effects.Operation = &started
	return nil
}

// loseOperation notes that nobody knows whether an operation was done, and
// until when a call for it may still come through.
func (t *tx) loseOperation(r *PaymentRequest, i int, until time.Time) {
	op := &r.Operations[i]
	known := op.State != OperationUnsettled
	op.State, op.SendBy, op.SentBy = OperationUnsettled, nil, &until
	if known {
		p := &paymentTx{tx: t, r: r, was: r.Lifecycle, op: op}
		p.take(OperationLost)
	}
}

// tryAt sets when an operation is given to a worker again.
func (t *tx) tryAt(r *PaymentRequest, i int, at time.Time) {
	r.Operations[i].DueAt = &at
	t.setTimer(TimerOperation, r.ID, i+1, at)
}

// operationAnswered records the platform's answer. That it succeeded is
// believed of anyone and at any time; all else only of the newest process that
// was allowed to call. One that is unknown stays so until it is found or
// refused: a count of tries says nothing about money.
func (t *tx) operationAnswered(e OperationAnswered) error {
	t.ack(e.EntryID)
	r, i, err := t.operationIn(e.RequestID, e.OperationID)
	if err != nil {
		return err
	}
	op := &r.Operations[i]
	if e.State == OperationSucceeded {
		return t.operationSucceeded(r, i, e.ResultID, e.ReconciliationID)
	}
	if !op.open() || op.EntryID != "" && op.EntryID != e.EntryID {
		return nil
	}
	op.Error = e.Error
	op.ResultID, op.ReconciliationID = cmp.Or(e.ResultID, op.ResultID), cmp.Or(e.ReconciliationID, op.ReconciliationID)
	op.SendBy = nil
	wait := t.Timings.operationWait(op.Tries)
	switch e.State {
	case OperationFailed:
		op.State = OperationFailed
		t.settleOperation(r, i)
		p := &paymentTx{tx: t, r: r, was: r.Lifecycle, op: op}
		p.take(OperationDidNotSucceed)
		return nil
	case OperationUnsettled:
		t.loseOperation(r, i, t.now.Add(t.Timings.callLife(op.Kind)))
	case OperationPending:
		if e.Error == ErrorUnderReview {
			wait = maxOperationWait // people decide
		}
	default:
		return Invalid("state", "%q is not the state of an operation", clip(string(e.State), 20))
	}
	t.tryAt(r, i, t.now.Add(wait))
	return nil
}

// settleOperation ends the waiting for an operation.
func (t *tx) settleOperation(r *PaymentRequest, i int) {
	op := &r.Operations[i]
	if op.DueAt != nil {
		t.clearTimer(TimerOperation, r.ID, i+1)
	}
	op.SettledAt, op.DueAt, op.SendBy, op.SentBy = &t.now, nil, nil, nil
}

// operationSucceeded records that an operation was done, whatever was thought
// before, and does what follows.
func (t *tx) operationSucceeded(r *PaymentRequest, i int, resultID, reconciliationID string) error {
	op := &r.Operations[i]
	before := op.State
	op.ResultID, op.ReconciliationID = cmp.Or(op.ResultID, resultID), cmp.Or(op.ReconciliationID, reconciliationID)
	if before == OperationSucceeded {
		return nil
	}
	op.State, op.Error = OperationSucceeded, ""
	t.settleOperation(r, i)
	p := &paymentTx{tx: t, r: r, was: r.Lifecycle, op: op, corrected: before == OperationFailed}
	return p.operationDone()
}

// operationDone does what follows from an operation that was done.
func (p *paymentTx) operationDone() error {
	a := p.r.Attempt(p.op.Attempt)
	switch {
	case p.op.Kind == OperationCapture:
		p.take(CaptureDone)
	case a.State == AttemptReversing && (p.op.Kind != OperationRefund || p.r.returned(a)):
		return p.onAttemptBy(p.op, p.r.ID, a.N, HoldReleased, Result{})
	case p.op.Kind == OperationRefund:
		p.take(RefundDone)
	default:
		p.goneBefore = a.State == AttemptReversed
		p.take(ReversalDone)
	}
	return nil
}

// operationFound records what was done at the platform. What we asked for
// ourselves is settled by it; what is known already changes nothing.
func (t *tx) operationFound(e OperationFound) error {
	r := t.request(e.RequestID)
	if r == nil {
		return NotFound("payment request")
	}
	t.effects.RequestID = r.ID
	a := r.Attempt(e.Attempt)
	if a == nil {
		return NotFound("attempt")
	}
	if err := e.check(r.Order.Total.Currency); err != nil {
		return err
	}
	i, known := e.match(r)
	if known {
		return ErrNothing
	}
	if e.Operation == OperationCapture && a.Capture && e.Code == a.Code {
		return t.attemptNotified(AttemptNotified{RequestID: r.ID, Attempt: a.N}) // the sale itself, taken after its review
	}
	if i >= 0 {
		return t.operationSucceeded(r, i, e.PlatformID, e.ReconciliationID)
	}
	at := e.At.UTC().Truncate(time.Millisecond)
	if e.At.IsZero() || at.After(t.now) {
		at = t.now
	}
	r.Operations = append(r.Operations, Operation{
		ID: r.nextOperationID(), Kind: e.Operation, Attempt: a.N, PaymentID: cmp.Or(e.PaymentID, a.Result.PaymentID), Amount: e.Amount,
		State: OperationSucceeded, Reason: OperationElsewhere, Elsewhere: true, StartedAt: at, SettledAt: &t.now,
		ResultID: e.PlatformID, ReconciliationID: e.ReconciliationID,
	})
	p := &paymentTx{tx: t, r: r, a: a, was: r.Lifecycle}
	switch a.State {
	case AttemptAuthorized, AttemptCaptured, AttemptReversing, AttemptReversed:
		p.a, p.op = nil, &r.Operations[len(r.Operations)-1]
		return p.operationDone()
	}
	// The attempt itself has to be learnt of first; onAttempt comes back to it.
	askPlatform(p)
	return nil
}

func (e OperationFound) check(currency string) error {
	switch {
	case !slices.Contains([]OperationKind{OperationCapture, OperationReversal, OperationVoid, OperationRefund}, e.Operation):
		return Invalid("operation", "%q is not an operation", clip(string(e.Operation), 20))
	case e.PlatformID == "":
		return Invalid("platform_id", "without its id it could be counted twice")
	case e.Amount.Currency != currency:
		return &Error{Code: CodeInvalid, Field: "amount.currency", Reason: wrongCurrency,
			Message: fmt.Sprintf("this payment is in %s, not in %q", currency, clip(e.Amount.Currency, 12))}
	}
	return checkAmount("amount", e.Amount, currency)
}

// match returns the operation of ours that was found, or -1, or that it is known
// already.
func (e OperationFound) match(r *PaymentRequest) (i int, known bool) {
	for i, o := range r.Operations {
		if o.ResultID == e.PlatformID {
			return i, o.State == OperationSucceeded
		}
	}
	if i := slices.IndexFunc(r.Operations, func(o Operation) bool { return o.ID == e.Code }); i >= 0 {
		switch o := r.Operations[i]; {
		case o.Kind == OperationVoid && e.Operation == OperationReversal:
			return -1, true // after a void the hold is released in its name
		case o.Kind == e.Operation && o.ResultID == "":
			return i, false
		}
		return -1, false // done twice, or something else in its name
	}
	for i, o := range r.Operations {
		if o.Attempt != e.Attempt || o.Kind != e.Operation || !o.open() || o.ResultID != "" || e.PaymentID != "" && o.PaymentID != e.PaymentID {
			continue
		}
		// Money is reversed or voided once. A capture or refund of the same amount
		// may be another one, unless ours may have been done.
		if o.Kind == OperationReversal || o.Kind == OperationVoid || o.State == OperationUnsettled && o.Amount == e.Amount {
			return i, false
		}
	}
	return -1, false
}

// attemptNotified asks the platform now, if there is anything to be learnt.
func (t *tx) attemptNotified(e AttemptNotified) error {
	r := t.request(e.RequestID)
	if r == nil {
		return NotFound("payment request")
	}
	t.effects.RequestID = r.ID
	a := r.Attempt(e.Attempt)
	if a == nil {
		return NotFound("attempt")
	}
	p := &paymentTx{tx: t, r: r, a: a, was: r.Lifecycle}
	edge, refused := p.edge(NewsCame)
	if refused != nil {
		return ErrNothing // platforms tell of everything
	}
	p.follow(edge)
	return nil
}

// operationDue is the timer of an operation that is tried again.
func (t *tx) operationDue(r *PaymentRequest, timer Timer) error {
	if timer.N < 1 || timer.N > len(r.Operations) || r.Operations[timer.N-1].DueAt == nil {
		t.clearTimer(timer.Kind, timer.ID, timer.N)
		return nil
	}
	op := &r.Operations[timer.N-1]
	if t.now.Before(*op.DueAt) {
		return ErrNothing
	}
	op.DueAt = nil
	t.clearTimer(timer.Kind, timer.ID, timer.N)
	t.outbox(OutboxEntry{Kind: OutboxOperation, RequestID: r.ID, Operation: op.ID})
	return nil
}

func loggedOperation(o Operation) *LoggedOperation {
	return &LoggedOperation{ID: o.ID, Kind: o.Kind, Amount: o.Amount, State: o.State, Reason: o.Reason, Error: o.Error}
}
