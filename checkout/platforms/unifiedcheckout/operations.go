package unifiedcheckout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"paythread/checkout/platforms"
	"paythread/checkout/platforms/cybersource"
	"paythread/conversations"
)

// searchLag is the default of search_lag: the guide lets a transaction take five
// tries, five minutes apart, to appear in a search.
const searchLag = 25 * time.Minute

// maxSearchLag is less than the longest wait between two looks at an operation
// of unknown outcome. With more, each look would come too early to conclude
// anything, and put the next one off as well.
const maxSearchLag = 45 * time.Minute

// Words of our own for operations, beside those for charges.
const (
	reasonNoPaymentID = "NO_PAYMENT_ID" // there is nothing to act on
	reasonNotFoundYet = "NOT_FOUND_YET" // searched, and it does not show
	reasonNoID        = "NO_ID_GIVEN"   // done, they say, and name no transaction
	reasonInvalidData = "INVALID_DATA"  // of CyberSource: a field that it names is wrong
	reasonNotVoidable = "NOT_VOIDABLE"  // of CyberSource: voided, settled, or of the wrong kind
	reasonReversed    = "AUTH_ALREADY_REVERSED"
	reasonSettled     = "TRANSACTION_ALREADY_SETTLED"
	reasonEither      = "TRANSACTION_ALREADY_REVERSED_OR_SETTLED"
	reasonVoided      = "CAPTURE_ALREADY_VOIDED"
	// reasonProcessorAway refuses nothing for good: the processor did not answer,
	// and nothing was done.
	reasonProcessorAway = "PROCESSOR_UNAVAILABLE"
)

// followRequest is the body of every follow-on call; each uses some of it.
type followRequest struct {
	ClientReferenceInformation clientReference      `json:"clientReferenceInformation"`
	OrderInformation           *orderInformation    `json:"orderInformation,omitempty"`
	ReversalInformation        *reversalInformation `json:"reversalInformation,omitempty"`
}

type reversalInformation struct {
	AmountDetails amountDetails `json:"amountDetails"`
	Reason        string        `json:"reason"`
}

// verdict is what became of one follow-on call.
type verdict struct {
	state            conversations.OperationState
	reason           string
	id               string   // the platform's transaction
	reconciliationID string   //
	fields           []string // what a refusal names
	err              error
}

func (v verdict) refused(reasons ...string) bool {
	return v.state == conversations.OperationFailed && slices.Contains(reasons, v.reason)
}

// ofAmount tells that a refusal names the amount.
func (v verdict) ofAmount() bool {
	return slices.ContainsFunc(v.fields, func(f string) bool {
		return strings.HasSuffix(f, "Amount") || strings.HasSuffix(f, "currency") || strings.HasSuffix(f, "amountDetails")
	})
}

var succeeded = verdict{state: conversations.OperationSucceeded}

func failed(reason string) verdict {
	return verdict{state: conversations.OperationFailed, reason: reason}
}

func pending(reason string, err error) verdict {
	return verdict{state: conversations.OperationPending, reason: reason, err: err}
}

func unsettled(reason string, err error) verdict {
	return verdict{state: conversations.OperationUnsettled, reason: reason, err: err}
}

// foundAs is the success that a search has shown.
func foundAs(t transaction, application application) verdict {
	v := succeeded
	if id := string(t.ID); idForm.MatchString(id) {
		v.id = id
	}
	v.reconciliationID = word(string(t.ReconciliationID))
	if v.reconciliationID == "" {
		v.reconciliationID = word(string(application.ReconciliationID))
	}
	return v
}

// The causes of a verdict that is not the network's.
var (
	errNotVisible  = errors.New("the transaction does not show in CyberSource's search yet")
	errUnderReview = errors.New("CyberSource's reviewers have not decided yet")
	errOddAnswer   = errors.New("CyberSource's answer is not about what was asked")
)

// sendBy is when the right to call for the operation ends.
func sendBy(op conversations.Operation) time.Time {
	if op.SendBy == nil {
		return time.Time{}
	}
	return *op.SendBy
}

// reference is what the operation can be found by. Where it may carry a
// transactionId (what takes or gives money: captures and refunds) the processor
// that knows it refuses a second one, even when the search shows nothing of the
// first.
func reference(op conversations.Operation, moves bool) clientReference {
	r := clientReference{Code: op.ID}
	if id := transactionIDOf(op.ID); moves && len(id) <= maxTransactionID {
		r.TransactionID = id
	}
	return r
}

// transactionIDOf writes an operation's id as a transactionId: capital letters
// and digits. The ids of attempts are shorter, so that the two never meet.
func transactionIDOf(id string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return -1
	}, id)
}

// named tells whether the operation has a reference that can be searched for.
func named(op conversations.Operation) bool {
	return codeForm.MatchString(op.ID) && len(op.ID) <= maxCode
}

// told turns a verdict into the contract's answer, and leaves a line for
// everything that may have moved money.
func (p *Platform) told(message string, op conversations.Operation, v verdict) (platforms.OperationResult, error) {
	p.log.Info(message, "audit", true, "operation", op.ID, "kind", string(op.Kind), "parent_id", op.PaymentID,
		"state", string(v.state), "reason", v.reason, "platform_id", v.id)
	return platforms.OperationResult{State: v.state, Reason: v.reason, ID: v.id, ReconciliationID: v.reconciliationID}, v.err
}

// Reverse implements platforms.Reverser. Giving money back twice is impossible
// there: the second call is refused. So it is repeated without fear.
func (p *Platform) Reverse(ctx context.Context, op conversations.Operation, a conversations.Attempt) (platforms.OperationResult, error) {
	v := p.reverse(ctx, op, a)
	if op.State == conversations.OperationUnsettled && v.state == conversations.OperationPending && v.reason != conversations.ErrorUnderReview {
		v.state = conversations.OperationUnsettled // this call did nothing, and an earlier one may have
	}
	return p.told("reversal answered", op, v)
}

// reverse voids what is captured, and releases what is only held.
func (p *Platform) reverse(ctx context.Context, op conversations.Operation, a conversations.Attempt) verdict {
	payment := a.Result.PaymentID
	if payment == "" {
		payment = op.PaymentID
	}
	if !idForm.MatchString(payment) || !named(op) {
		return failed(reasonNoPaymentID)
	}
	taken := a.Result.Outcome == conversations.OutcomeCaptured || a.Capture && a.Result.Reason == reasonAmountDiffers
	if op.Kind != conversations.OperationVoid && !taken {
		return p.release(ctx, payment, op, a)
	}
	return p.void(ctx, payment, op, a)
}

// release gives back money that is only held.
func (p *Platform) release(ctx context.Context, payment string, op conversations.Operation, a conversations.Attempt) verdict {
	v := p.releaseHold(ctx, sendBy(op), payment, op, a)
	switch {
	case v.refused(reasonReversed):
		return succeeded
	case a.Capture && v.refused(reasonEither, reasonSettled, reasonInvalidData) && p.takenMeanwhile(ctx, a):
		return p.void(ctx, payment, op, a)
	case v.refused(reasonEither):
		if o := a.Result.Outcome; (o == conversations.OutcomePartial || o == conversations.OutcomeRiskDeclined) && a.Result.Reason != reasonReviewDiffers {
			return succeeded // CyberSource captures neither by itself, so it is not settled
		}
		return p.reversedOrSettled(ctx, op, a, v)
	case v.refused(reasonInvalidData) && !v.ofAmount():
		return p.orUnderReview(ctx, a, v)
	}
	return v
}

// takenMeanwhile tells whether a sale that was only held, for its reviewers, was
// taken since: they have accepted it.
func (p *Platform) takenMeanwhile(ctx context.Context, a conversations.Attempt) bool {
	_, outcome, err := p.look(ctx, a)
	return err == nil && outcome == conversations.OutcomeCaptured
}

// void takes back money before it is settled: of the sale, or of the capture
// that the operation names.
func (p *Platform) void(ctx context.Context, payment string, op conversations.Operation, a conversations.Attempt) verdict {
	path, ok := takenBy(op, a, payment)
	if !ok {
		return failed(reasonNoPaymentID)
	}
	v := p.follow(ctx, sendBy(op), path+"/voids", followRequest{ClientReferenceInformation: reference(op, false)}, "VOIDED", "CANCELLED", "REVERSED")
	switch {
	case v.refused(reasonNotVoidable, reasonEither, reasonSettled, reasonReversed, reasonVoided):
		v = p.voidedOrSettled(ctx, op, a, v)
	case v.refused(reasonInvalidData):
		v = p.orUnderReview(ctx, a, v)
	}
	if v.state != conversations.OperationSucceeded {
		return v
	}
	// A void does not release the hold. Not every processor can; where it
	// cannot, the hold runs out by itself, and the money was not taken. Nothing
	// can be taken on this hold any more, so that it is never too late for it.
	if hold := p.releaseHold(ctx, time.Time{}, payment, op, a); hold.state != conversations.OperationSucceeded {
		p.log.Info("hold not released after a void", "attempt", a.Code, "operation", op.ID, "reason", hold.reason)
	}
	return v
}

// takenBy returns the path of the transaction that took the money which an
// operation gives back: a sale is a payment, everything else a capture.
func takenBy(op conversations.Operation, a conversations.Attempt, payment string) (path string, ok bool) {
	taker := op.PaymentID
	if taker == "" {
		taker = payment
	}
	switch {
	case !idForm.MatchString(taker):
		return "", false
	case taker != payment:
		return "/pts/v2/captures/" + taker, true
	case a.Capture || a.Result.Outcome == conversations.OutcomeCaptured:
		return "/pts/v2/payments/" + taker, true
	}
	return "", false // an authorization has taken nothing
}

// releaseHold reverses an authorization. The amount has to be the authorized
// one, which is the reply's and not always the request's.
func (p *Platform) releaseHold(ctx context.Context, by time.Time, payment string, op conversations.Operation, a conversations.Attempt) verdict {
	amount := a.Result.Amount
	if amount.Minor <= 0 {
		amount = op.Amount
	}
	reason := op.Reason
	if reason == "" {
		reason = "cancelled"
	}
	return p.follow(ctx, by, "/pts/v2/payments/"+payment+"/reversals", followRequest{
		ClientReferenceInformation: reference(op, false),
		ReversalInformation:        &reversalInformation{AmountDetails: amountOf(amount).AmountDetails, Reason: reason},
	}, "REVERSED")
}

// orUnderReview makes sure of a refusal that names the payment itself: such is
// the answer while reviewers have it, and they may take days.
func (p *Platform) orUnderReview(ctx context.Context, a conversations.Attempt, refusal verdict) verdict {
	_, outcome, err := p.look(ctx, a)
	believed := a.Result.Outcome == conversations.OutcomeInReview
	switch {
	case err == nil && outcome == conversations.OutcomeReversed:
		return succeeded
	case err == nil && believed && (outcome == conversations.OutcomeDeclined || outcome == conversations.OutcomeNotTaken):
		return succeeded // it was rejected before the bank was asked: nothing is held
	case err == nil && outcome == conversations.OutcomeInReview,
		believed && (err != nil || outcome == conversations.OutcomeNotFound || outcome == conversations.OutcomeUnknown):
		return pending(conversations.ErrorUnderReview, errUnderReview)
	case err != nil:
		return pending(refusal.reason, err)
	}
	return refusal
}

// reversedOrSettled tells the two apart, which CyberSource's refusal does not:
// the first is what was wanted, the second leaves only a refund.
func (p *Platform) reversedOrSettled(ctx context.Context, op conversations.Operation, a conversations.Attempt, refusal verdict) verdict {
	rows, err := p.search(ctx, a.StartedAt, op.ID, a.Code)
	if err != nil {
		return unsettled(refusal.reason, err)
	}
	for _, row := range rows {
		if given, ok := row.application(reversals...); ok && given.RCode == rSuccess {
			return foundAs(row, given)
		}
	}
	if p.mayYetShow(op) {
		return unsettled(refusal.reason, errNotVisible)
	}
	return refusal
}

// voidedOrSettled tells apart what CyberSource's refusal of a void does not. A
// void elsewhere has the reference of what it voided, as has one of a refund:
// where there is a refund, voids say nothing, and nothing was voided before it.
func (p *Platform) voidedOrSettled(ctx context.Context, op conversations.Operation, a conversations.Attempt, refusal verdict) verdict {
	codes := []string{op.ID, a.Code}
	if op.PaymentID != a.Result.PaymentID && idForm.MatchString(op.PaymentID) {
		capture, found, err := p.details(ctx, op.PaymentID)
		if err != nil {
			return unsettled(refusal.reason, err)
		}
		if code := string(capture.ClientReferenceInformation.Code); found && codeForm.MatchString(code) && len(code) <= maxCode {
			codes = []string{op.ID, code}
		}
	}
	rows, err := p.search(ctx, a.StartedAt, codes...)
	if err != nil {
		return unsettled(refusal.reason, err)
	}
	refunded := slices.ContainsFunc(rows, transaction.refunds)
	for _, services := range [][]string{{"ics_void"}, reversals} { // the release of the hold follows the void, with its reference
		for _, row := range rows {
			ours := string(row.ClientReferenceInformation.Code) == op.ID
			if given, ok := row.application(services...); ok && given.RCode == rSuccess && (ours || !refunded) {
				return foundAs(row, given)
			}
		}
	}
	// Without an earlier call of ours this refusal needs no waiting: money that is
	// settled has to be refunded, and a customer who paid twice waits for it. Had
	// somebody voided it a minute ago, the refund would be refused.
	if op.State == conversations.OperationUnsettled && p.mayYetShow(op) {
		return unsettled(refusal.reason, errNotVisible)
	}
	p.log.Info("void refused as settled", "operation", op.ID, "attempt", a.Code, "reason", refusal.reason)
	return failed(conversations.ErrorSettled)
}

// mayYetShow tells whether a call that was made for the operation may still be
// missing in the search.
func (p *Platform) mayYetShow(op conversations.Operation) bool {
	sent := op.StartedAt
	if op.SentBy != nil && op.SentBy.After(sent) {
		sent = *op.SentBy // it may have waited for days before that
	}
	return p.now().Before(sent.Add(p.searchLag))
}

// Capture implements platforms.Capturer.
func (p *Platform) Capture(ctx context.Context, op conversations.Operation, a conversations.Attempt) (platforms.OperationResult, error) {
	return p.told("capture answered", op, p.capture(ctx, op, a))
}

func (p *Platform) capture(ctx context.Context, op conversations.Operation, a conversations.Attempt) verdict {
	payment := a.Result.PaymentID
	if !idForm.MatchString(payment) || !named(op) {
		return failed(reasonNoPaymentID)
	}
	if op.State == conversations.OperationUnsettled {
		if v, again := p.soughtBefore(ctx, op, "ics_bill"); !again {
			return v
		}
	}
	return p.moved(ctx, op, "/pts/v2/payments/"+payment+"/captures")
}

// Refund implements platforms.Refunder.
func (p *Platform) Refund(ctx context.Context, op conversations.Operation, a conversations.Attempt) (platforms.OperationResult, error) {
	return p.told("refund answered", op, p.refund(ctx, op, a))
}

func (p *Platform) refund(ctx context.Context, op conversations.Operation, a conversations.Attempt) verdict {
	path, ok := takenBy(op, a, a.Result.PaymentID)
	if !ok || !named(op) {
		return failed(reasonNoPaymentID)
	}
	if op.State == conversations.OperationUnsettled {
		if v, again := p.soughtBefore(ctx, op, "ics_credit"); !again {
			return v
		}
	}
	return p.moved(ctx, op, path+"/refunds")
}

// soughtBefore looks for an operation that was sent and never answered. again
// says that it can be sent once more: it has had time to show, and does not.
func (p *Platform) soughtBefore(ctx context.Context, op conversations.Operation, service string) (v verdict, again bool) {
	rows, err := p.search(ctx, op.StartedAt, op.ID)
	if err != nil {
		return unsettled(reasonNotFoundYet, err), false
	}
	var refusal *verdict
	for _, row := range rows {
		ran, ok := row.application(service)
		if !ok {
			continue
		}
		switch ran.RCode {
		case rSuccess:
			if amount, known := row.OrderInformation.AmountDetails.authorized(); known && amount != op.Amount {
				return unsettled(reasonAmountDiffers, errOddAnswer), false
			}
			return foundAs(row, ran), false
		case rDecline:
			no := failed(row.reason())
			refusal = &no
		}
	}
	switch {
	case refusal != nil:
		return *refusal, false
	case p.mayYetShow(op):
		return unsettled(reasonNotFoundYet, errNotVisible), false
	}
	return verdict{}, true
}

// moved makes the call of a capture or refund. One whose earlier call was never
// answered stays unknown as long as this one proves nothing about it: a call
// that did not leave, and a refusal that the earlier one's success would cause.
func (p *Platform) moved(ctx context.Context, op conversations.Operation, path string) verdict {
	order := amountOf(op.Amount)
	v := p.follow(ctx, sendBy(op), path, followRequest{ClientReferenceInformation: reference(op, true), OrderInformation: &order}, "PENDING", "TRANSMITTED")
	if v.state == conversations.OperationSucceeded && v.id == "" {
		return unsettled(reasonNoID, errOddAnswer) // what follows acts on its id, which the search has
	}
	if op.State != conversations.OperationUnsettled {
		return v
	}
	switch {
	case v.state == conversations.OperationPending:
		v.state = conversations.OperationUnsettled
	case v.state == conversations.OperationFailed && (v.ofAmount() || v.refused("EXCEEDS_AUTH_AMOUNT", "INVALID_AMOUNT", reasonReversed, reasonSettled, reasonEither)):
		v = unsettled(v.reason, errNotVisible)
	}
	return v
}

// follow makes one follow-on call, not after by. done are the statuses of
// success.
func (p *Platform) follow(ctx context.Context, by time.Time, path string, body followRequest, done ...string) verdict {
	answer, err := p.client.Do(ctx, cybersource.Call{Method: http.MethodPost, Path: path, Body: body, SendBy: by})
	if err != nil {
		var none *cybersource.NoAnswerError
		if errors.As(err, &none) && !none.Sent {
			return pending(reasonNotSent, err)
		}
		return unsettled(reasonNoAnswer, err)
	}
	var told paymentAnswer
	unreadable := decodeStrict(answer.Body, &told) != nil
	if unreadable {
		told = paymentAnswer{}
	}
	reason := told.reason()
	if reason == "" {
		reason = fmt.Sprintf("HTTP_%d", answer.Status)
	}
	refusal := failed(reason)
	for _, d := range told.Details {
		refusal.fields = append(refusal.fields, string(d.Field))
	}
	cause := fmt.Errorf("CyberSource answered %d (correlation id %s)", answer.Status, answer.CorrelationID)
	switch answer.Status {
	case http.StatusCreated:
		switch {
		case unreadable:
		case slices.Contains(done, string(told.Status)):
			return told.success(body)
		case slices.Contains([]string{"DECLINED", "FAILED", "INVALID_REQUEST"}, string(told.Status)) && !told.duplicate():
			return refusal
		}
	case http.StatusBadRequest:
		switch {
		case unreadable, told.Reason == "", told.duplicate():
		case told.Reason == reasonProcessorAway:
			return pending(reason, cause)
		default:
			return refusal
		}
	case http.StatusNotFound:
		return refusal
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return pending(reason, cause)
	}
	return unsettled(reason, cause)
}

// success reads the answer to a follow-on call that was done, and does not take
// it for one about another reference or another amount.
func (t paymentAnswer) success(asked followRequest) verdict {
	if code := t.ClientReferenceInformation.Code; code != "" && asked.ClientReferenceInformation.Code != "" && string(code) != asked.ClientReferenceInformation.Code {
		return unsettled(reasonOtherPayment, errOddAnswer)
	}
	var amount amountDetails
	switch {
	case asked.OrderInformation != nil:
		amount = asked.OrderInformation.AmountDetails
	case asked.ReversalInformation != nil:
		amount = asked.ReversalInformation.AmountDetails
	}
	if want, ok := parseAmount(amount.TotalAmount, amount.Currency); ok {
		for _, told := range []struct{ value, currency text }{
			{t.OrderInformation.AmountDetails.TotalAmount, t.OrderInformation.AmountDetails.Currency},
			{t.RefundAmountDetails.RefundAmount, t.RefundAmountDetails.Currency},
			{t.ReversalAmountDetails.ReversedAmount, t.ReversalAmountDetails.Currency},
		} {
			if got, ok := parseAmount(string(told.value), string(told.currency)); ok && got != want {
				return unsettled(reasonAmountDiffers, errOddAnswer)
			}
		}
	}
	v := succeeded
	if id := string(t.ID); idForm.MatchString(id) {
		v.id = id
	}
	v.reconciliationID = word(string(t.ReconciliationID))
	return v
}
