package main

import (
	"fmt"
	"slices"
	"testing"

	"paythread/conversations"
	"paythread/simulator/cybersource"
)

// bookkeeping makes both sides of books that agree, for the checker's own test.
type bookkeeping struct {
	there []cybersource.Transaction
	ours  []*conversations.PaymentRequest
}

func cents(minor int64) conversations.Money {
	return conversations.Money{Minor: minor, Currency: "ZAR"}
}

// did adds a transaction at the platform and returns its id.
func (b *bookkeeping) did(kind, code, parent string, minor int64) string {
	id := fmt.Sprintf("7%021d", len(b.there)+1)
	b.there = append(b.there, cybersource.Transaction{
		ID: id, Kind: kind, Merchant: demoCyberSource.ID, Code: code, ParentID: parent,
		Amount: cents(minor).Decimal(), Currency: "ZAR", Status: "AUTHORIZED",
	})
	return id
}

// asks adds a payment request of 149.00.
func (b *bookkeeping) asks(order string) *conversations.PaymentRequest {
	r := &conversations.PaymentRequest{ID: "pr_" + order, MerchantID: "acme", Order: conversations.Order{Reference: order, Total: cents(14900)}}
	b.ours = append(b.ours, r)
	return r
}

// tries adds an attempt, and the platform's payment for it if there is a kind.
func (b *bookkeeping) tries(r *conversations.PaymentRequest, state conversations.AttemptState, kind string, minor int64) *conversations.Attempt {
	n := len(r.Attempts) + 1
	a := conversations.Attempt{N: n, Code: fmt.Sprintf("%s-%d", r.ID, n), State: state, Amount: r.Order.Total}
	if kind != "" {
		a.Result = conversations.Result{PaymentID: b.did(kind, a.Code, "", minor), Amount: cents(minor)}
	}
	r.Attempts = append(r.Attempts, a)
	return &r.Attempts[n-1]
}

// does adds an operation that was carried out, and returns the platform's id.
func (b *bookkeeping) does(r *conversations.PaymentRequest, attempt int, kind conversations.OperationKind, on string, minor int64) string {
	op := conversations.Operation{
		ID: fmt.Sprintf("%s-op%d", r.ID, len(r.Operations)+1), Kind: kind, Attempt: attempt, PaymentID: on,
		Amount: cents(minor), State: conversations.OperationSucceeded,
	}
	op.ResultID = b.did(string(kind), op.ID, on, minor)
	r.Operations = append(r.Operations, op)
	return op.ResultID
}

// Where each request of goodBooks stands in the list of them.
const (
	refundedSale = iota
	capturedTwice
	secondSuccess
	tooLittle
	takenBack
	voidedCapture
	stillAsked
	declinedOnce
	orderAgain
)

// goodBooks have every way in which money comes and goes.
func goodBooks() *bookkeeping {
	b := &bookkeeping{}
	r := b.asks("sale")
	a := b.tries(r, conversations.AttemptCaptured, cybersource.KindSale, 14900)
	b.does(r, 1, conversations.OperationRefund, a.Result.PaymentID, 4900)
	b.does(r, 1, conversations.OperationRefund, a.Result.PaymentID, 1000)
	r.PaidBy, r.AuthorizedMinor, r.CapturedMinor, r.RefundedMinor = 1, 14900, 14900, 5900

	r = b.asks("auth")
	a = b.tries(r, conversations.AttemptAuthorized, cybersource.KindAuthorization, 14900)
	first := b.does(r, 1, conversations.OperationCapture, a.Result.PaymentID, 6000)
	b.does(r, 1, conversations.OperationCapture, a.Result.PaymentID, 4000)
	b.does(r, 1, conversations.OperationRefund, first, 1500)
	r.PaidBy, r.AuthorizedMinor, r.CapturedMinor, r.RefundedMinor = 1, 14900, 10000, 1500

	r = b.asks("second")
	b.tries(r, conversations.AttemptReversed, cybersource.KindSale, 14900)
	b.tries(r, conversations.AttemptCaptured, cybersource.KindSale, 14900)
	b.does(r, 1, conversations.OperationVoid, r.Attempts[0].Result.PaymentID, 14900)
	r.PaidBy, r.AuthorizedMinor, r.CapturedMinor = 2, 14900, 14900

	r = b.asks("partial")
	a = b.tries(r, conversations.AttemptReversed, cybersource.KindAuthorization, 7450)
	b.does(r, 1, conversations.OperationReversal, a.Result.PaymentID, 7450)

	r = b.asks("timeout")
	a = b.tries(r, conversations.AttemptNotTaken, cybersource.KindAuthorization, 14900)
	a.Result.Outcome = conversations.OutcomeReversed
	b.did(cybersource.KindReversal, a.Code, a.Result.PaymentID, 14900)

	r = b.asks("voided")
	a = b.tries(r, conversations.AttemptReversed, cybersource.KindAuthorization, 14900)
	first = b.does(r, 1, conversations.OperationCapture, a.Result.PaymentID, 14900)
	b.does(r, 1, conversations.OperationVoid, first, 14900)
	b.did(cybersource.KindReversal, r.Operations[1].ID, a.Result.PaymentID, 14900) // the hold behind it
	r.PaidBy, r.AuthorizedMinor, r.CapturedMinor, r.ReversedMinor = 1, 14900, 0, 14900

	r = b.asks("asked")
	b.tries(r, conversations.AttemptUnsettled, cybersource.KindSale, 14900)

	r = b.asks("declined")
	b.tries(r, conversations.AttemptDeclined, "", 0)
	a = b.tries(r, conversations.AttemptCaptured, cybersource.KindSale, 14900)
	r.PaidBy, r.AuthorizedMinor, r.CapturedMinor = 2, 14900, 14900
	b.does(r, 2, conversations.OperationRefund, a.Result.PaymentID, 100)
	r.Operations[0].State = conversations.OperationUnsettled // done, and not known yet

	r = b.asks("again")
	a = b.tries(r, conversations.AttemptCaptured, cybersource.KindSale, 14900)
	b.does(r, 1, conversations.OperationRefund, a.Result.PaymentID, 14900)
	r.PaidBy, r.AuthorizedMinor, r.CapturedMinor, r.RefundedMinor = 1, 14900, 14900, 14900

	b.there = append(b.there, cybersource.Transaction{ID: "1", Kind: cybersource.KindSale, Merchant: "somebody_else", Code: "x", Amount: "1.00", Currency: "ZAR"})
	return b
}

// of returns the index of a request's first transaction of a kind.
func (b *bookkeeping) of(request int, kind string) int {
	return slices.IndexFunc(b.there, func(t cybersource.Transaction) bool {
		r := b.ours[request]
		return t.Kind == kind && len(t.Code) > len(r.ID) && t.Code[:len(r.ID)+1] == r.ID+"-"
	})
}

// TestMoneyCheckerSeesEverything plants one difference of each kind at a time.
func TestMoneyCheckerSeesEverything(t *testing.T) {
	t.Parallel()
	if b := goodBooks(); len(compareBooks(demoCyberSource.ID, b.there, b.ours)) > 0 {
		t.Fatalf("books that agree: got %v, want no difference", compareBooks(demoCyberSource.ID, b.there, b.ours))
	}
	for name, c := range map[string]struct {
		plant func(*bookkeeping)
		want  differenceKind
	}{
		"a charge with a reference that is nobody's": {func(b *bookkeeping) { b.did(cybersource.KindSale, "pr_nobody-1", "", 100) }, unknownCharge},
		"a charge without a reference":               {func(b *bookkeeping) { b.did(cybersource.KindAuthorization, "", "", 100) }, unknownCharge},
		"a request that is gone":                     {func(b *bookkeeping) { b.ours = slices.Delete(b.ours, refundedSale, refundedSale+1) }, unknownCharge},
		"a payment that was never made": {func(b *bookkeeping) {
			b.there = slices.Delete(b.there, b.of(stillAsked, cybersource.KindSale), b.of(stillAsked, cybersource.KindSale)+1)
			b.ours[stillAsked].Attempts[0].State = conversations.AttemptCaptured
		}, missingCharge},
		"another payment than ours":        {func(b *bookkeeping) { b.ours[refundedSale].Attempts[0].Result.PaymentID = "7" }, missingCharge},
		"a success that we call not found": {func(b *bookkeeping) { b.ours[stillAsked].Attempts[0].State = conversations.AttemptNotFound }, hiddenSuccess},
		"a success that we call a decline": {func(b *bookkeeping) { b.did(cybersource.KindSale, b.ours[declinedOnce].Attempts[0].Code, "", 14900) }, hiddenSuccess},
		"one attempt charged twice":        {func(b *bookkeeping) { b.did(cybersource.KindSale, b.ours[refundedSale].Attempts[0].Code, "", 14900) }, twoSuccesses},
		"a second success that stands":     {func(b *bookkeeping) { b.undo(secondSuccess, cybersource.KindVoid) }, twoSuccesses},
		"a second success of another state": {func(b *bookkeeping) {
			b.tries(b.ours[capturedTwice], conversations.AttemptAuthorized, cybersource.KindAuthorization, 14900)
		}, twoSuccesses},
		"an order paid by two requests": {func(b *bookkeeping) { b.ours[declinedOnce].Order.Reference = b.ours[refundedSale].Order.Reference }, twoSuccesses},
		"an unknown second success": {func(b *bookkeeping) {
			b.tries(b.ours[refundedSale], conversations.AttemptUnsettled, cybersource.KindSale, 14900)
		}, twoSuccesses},
		"a refund that nobody knows of": {func(b *bookkeeping) {
			b.did(cybersource.KindRefund, "elsewhere", b.ours[refundedSale].Attempts[0].Result.PaymentID, 100)
		}, unknownOperation},
		"a refund of nothing":             {func(b *bookkeeping) { b.did(cybersource.KindRefund, "x", "none", 100) }, unknownOperation},
		"a refund that we say has failed": {func(b *bookkeeping) { b.ours[refundedSale].Operations[0].State = conversations.OperationFailed }, unknownOperation},
		"a refund of another capture": {func(b *bookkeeping) {
			b.ours[capturedTwice].Operations[2].PaymentID = b.ours[capturedTwice].Operations[1].ResultID
		}, unknownOperation},
		"a reversal that nobody knows of": {func(b *bookkeeping) {
			b.ours[takenBack].Attempts[0].State, b.ours[takenBack].Attempts[0].Result.Outcome = conversations.AttemptDeclined, ""
		}, unknownOperation},
		"a capture that was never made":  {func(b *bookkeeping) { b.cut(capturedTwice, 1) }, missingOperation},
		"a refund that was never made":   {func(b *bookkeeping) { b.cut(refundedSale, 1) }, missingOperation},
		"a reversal that was never made": {func(b *bookkeeping) { b.cut(tooLittle, 0) }, missingOperation},
		"a refund made twice":            {func(b *bookkeeping) { b.repeat(refundedSale, 0) }, repeatedOperation},
		"a capture made twice":           {func(b *bookkeeping) { b.repeat(capturedTwice, 1) }, repeatedOperation},
		"an unknown refund made twice":   {func(b *bookkeeping) { b.repeat(declinedOnce, 0) }, repeatedOperation},
		"a voided capture, released twice": {func(b *bookkeeping) {
			b.did(cybersource.KindReversal, b.ours[voidedCapture].Operations[1].ID, b.ours[voidedCapture].Attempts[0].Result.PaymentID, 14900)
		}, repeatedOperation},
		"a cent too much captured":      {func(b *bookkeeping) { b.ours[refundedSale].CapturedMinor++ }, totalsDiffer},
		"a cent too little authorized":  {func(b *bookkeeping) { b.ours[capturedTwice].AuthorizedMinor-- }, totalsDiffer},
		"a cent too much refunded":      {func(b *bookkeeping) { b.ours[orderAgain].RefundedMinor++ }, totalsDiffer},
		"a cent too little reversed":    {func(b *bookkeeping) { b.ours[voidedCapture].ReversedMinor-- }, totalsDiffer},
		"a total without a payment":     {func(b *bookkeeping) { b.ours[tooLittle].CapturedMinor = 1 }, totalsDiffer},
		"an unknown refund that counts": {func(b *bookkeeping) { b.ours[declinedOnce].RefundedMinor = 100 }, totalsDiffer},
		"a refund of another amount":    {func(b *bookkeeping) { b.there[b.of(refundedSale, cybersource.KindRefund)].Amount = "49.01" }, totalsDiffer},
		"a charge in another currency":  {func(b *bookkeeping) { b.there[b.of(declinedOnce, cybersource.KindSale)].Currency = "USD" }, totalsDiffer},
		"an amount that is no amount":   {func(b *bookkeeping) { b.there[b.of(stillAsked, cybersource.KindSale)].Amount = "149.001" }, totalsDiffer},
		"more refunded than was taken": {func(b *bookkeeping) {
			b.does(b.ours[refundedSale], 1, conversations.OperationRefund, b.ours[refundedSale].Attempts[0].Result.PaymentID, 9001)
		}, beyondWhatCame},
		"more captured than was allowed": {func(b *bookkeeping) {
			b.does(b.ours[capturedTwice], 1, conversations.OperationCapture, b.ours[capturedTwice].Attempts[0].Result.PaymentID, 4901)
		}, beyondWhatCame},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := goodBooks()
			c.plant(b)
			found := compareBooks(demoCyberSource.ID, b.there, b.ours)
			if !slices.ContainsFunc(found, func(d difference) bool { return d.Kind == c.want }) {
				t.Errorf("got the differences %v, want one of the kind %q", found, c.want)
			}
		})
	}
}

// undo takes away the first transaction of a kind of a request.
func (b *bookkeeping) undo(request int, kind string) {
	at := b.of(request, kind)
	b.there = slices.Delete(b.there, at, at+1)
}

// cut takes away what the platform did for an operation.
func (b *bookkeeping) cut(request, operation int) {
	id := b.ours[request].Operations[operation].ResultID
	b.there = slices.DeleteFunc(b.there, func(t cybersource.Transaction) bool { return t.ID == id || t.ParentID == id })
}

// repeat lets the platform do an operation again.
func (b *bookkeeping) repeat(request, operation int) {
	op := b.ours[request].Operations[operation]
	b.did(string(op.Kind), op.ID, op.PaymentID, op.Amount.Minor)
}

// TestMoneyLeftovers: what a test declares is let pass, and only that; what it
// declares for nothing is told.
func TestMoneyLeftovers(t *testing.T) {
	t.Parallel()
	m := &moneyChecker{t: t}
	m.leaves(hiddenSuccess, "the platform is away")
	if wrong := m.sort([]difference{{hiddenSuccess, "pr_1", "it stands"}}); len(wrong) > 0 {
		t.Errorf("a difference that was declared: got %q, want nothing", wrong)
	}
	if wrong := m.sort([]difference{{hiddenSuccess, "pr_1", "it stands"}, {unknownCharge, "", "x"}}); len(wrong) != 1 {
		t.Errorf("another difference beside it: got %q, want that one", wrong)
	}
	if wrong := m.sort(nil); len(wrong) != 1 {
		t.Errorf("a declaration for nothing: got %q, want word of it", wrong)
	}
}
