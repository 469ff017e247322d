package receipts

import (
	"slices"
	"strings"

	"paythread/conversations"
)

// balance is where the money of a payment stands, in minor units. It is made so
// that approved = taken + held + spared and taken = returned + left.
type balance struct {
	currency  string
	approved  int64 // what the bank agreed to
	taken     int64 // of it, whether or not it went back since
	held      int64 // of it, may still be taken
	spared    int64 // of it, neither: released, or it lapses by itself
	returned  int64 // of what was taken: voided or refunded
	refunded  int64 // of that, refunded
	returning int64 // of what was taken: on its way back
	releasing int64 // of what is held: being released
}

// mayBeTaken are the lifecycles in which what is held may still be taken.
var mayBeTaken = map[conversations.Lifecycle]bool{
	conversations.Authorized: true, conversations.Paid: true, conversations.PartiallyRefunded: true,
}

// balanceOf reads the totals of a payment request, which are never more than is
// possible. A void takes from what was captured and adds to what was reversed, so
// the voids are told apart by the operations.
func balanceOf(r *conversations.PaymentRequest) balance {
	b := balance{currency: r.Receipt.Paid.Currency, approved: r.Receipt.Paid.Minor, refunded: r.RefundedMinor}
	var voided int64
	for _, op := range r.Operations {
		if op.Attempt != r.PaidBy {
			continue
		}
		under := op.State == conversations.OperationPending || op.State == conversations.OperationUnsettled
		switch {
		case undoesRefund(r, op):
		case op.Kind == conversations.OperationVoid && op.State == conversations.OperationSucceeded:
			voided += op.Amount.Minor
		case under && (op.Kind == conversations.OperationVoid || op.Kind == conversations.OperationRefund):
			b.returning += op.Amount.Minor
		case under && op.Kind == conversations.OperationReversal:
			b.releasing += op.Amount.Minor
		}
	}
	b.taken = min(b.approved, r.CapturedMinor+voided)
	b.returned = b.taken - (r.CapturedMinor - r.RefundedMinor)
	if mayBeTaken[r.Lifecycle] {
		b.held = max(0, b.approved-b.taken-max(0, r.ReversedMinor-voided))
	}
	b.spared = b.approved - b.taken - b.held
	// Somebody may have done elsewhere what is still under way here.
	b.returning, b.releasing = min(b.returning, b.left()), min(b.releasing, b.held)
	return b
}

// undoesRefund tells whether an operation is the void of a refund: somebody at
// the platform kept the money after all.
func undoesRefund(r *conversations.PaymentRequest, op conversations.Operation) bool {
	return op.Kind == conversations.OperationVoid && slices.ContainsFunc(r.Operations, func(other conversations.Operation) bool {
		return other.Kind == conversations.OperationRefund && other.ResultID != "" && other.ResultID == op.PaymentID
	})
}

// left returns what is paid now.
func (b balance) left() int64 { return b.taken - b.returned }

func (b balance) money(minor int64) conversations.Money {
	return conversations.Money{Minor: minor, Currency: b.currency}
}

// spoken is an amount within a sentence, which no line may break in two.
func (b balance) spoken(minor int64) string {
	return strings.ReplaceAll(b.money(minor).String(), " ", "\u00a0")
}

// headline returns the amount that the receipt is about.
func (b balance) headline() conversations.Money {
	switch {
	case b.taken > 0:
		return b.money(b.taken)
	case b.held > 0:
		return b.money(b.held)
	}
	return b.money(b.approved)
}

// stamp names in a word of the texts what becomes of the headline's amount, also
// if that is still on its way.
func (b balance) stamp() string {
	switch {
	case b.taken == 0 && b.held > 0 && b.releasing == b.held:
		return "being_released"
	case b.left() > 0 && b.returning == b.left():
		return "being_returned"
	}
	return b.done()
}

// done names what became of the headline's amount so far.
func (b balance) done() string {
	switch {
	case b.taken == 0 && b.held > 0:
		return "held"
	case b.taken == 0:
		return "released"
	case b.left() == 0 && b.refunded > 0:
		return "refunded"
	case b.left() == 0:
		return "given_back"
	case b.returned > 0:
		return "partly_refunded"
	case b.taken < b.approved:
		return "paid_in_part"
	}
	return "paid"
}

// sentences say the same with amounts, and what is still on its way.
func (b balance) sentences() []string {
	var said []string
	say := func(key string) {
		said = append(said, english.text(key,
			"approved", b.spoken(b.approved), "taken", b.spoken(b.taken), "held", b.spoken(b.held),
			"returned", b.spoken(b.returned), "returning", b.spoken(b.returning), "releasing", b.spoken(b.releasing), "left", b.spoken(b.left())))
	}
	done := b.done()
	if done != "paid" {
		say("standing_" + done)
	}
	if b.taken > 0 && b.held > 0 {
		say("standing_still_held")
	}
	if b.releasing > 0 {
		say("standing_releasing")
	}
	if b.returning > 0 {
		say("standing_returning")
	}
	if b.returned+b.returning+b.releasing > 0 || done == "released" {
		say("standing_bank_takes_time")
	}
	return said
}

// rows list what the changes come to, the last one being what is paid now. sale
// says that the money was taken at once, so that nothing was held first.
func (b balance) rows(sale bool) []Sum {
	var rows []Sum
	add := func(key string, minor int64) {
		rows = append(rows, Sum{Name: english[key], Amount: b.money(minor)})
	}
	if !sale {
		add("approved", b.approved)
		if b.spared > 0 {
			add("spared", -b.spared)
		}
		if b.held > 0 {
			add("held", b.held)
		}
	}
	total := "paid"
	if b.returned > 0 {
		add("taken", b.taken)
		add("returned", -b.returned)
		total = "left"
	}
	add(total, b.left())
	rows[len(rows)-1].Total = true
	return rows
}
