package conversations

import (
	"cmp"
	"slices"
)

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

// money returns an amount in the request's currency.
func (r *PaymentRequest) money(minor int64) Money {
	return Money{Minor: minor, Currency: r.Order.Total.Currency}
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
