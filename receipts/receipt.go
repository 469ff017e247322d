// Package receipts shows what a customer gets for a payment: the document that
// was frozen when the money came, with what happened to the money since.
package receipts

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"paythread/conversations"
)

// Document is a receipt as people read it, whatever it is shown on. What the
// payment was is frozen from when the money came; Amount, Stamp, Standing, Later,
// Balance and Second say what became of it since. They are made from the same
// totals, so that they never contradict each other.
type Document struct {
	Number          string
	IssuedAt        time.Time
	MerchantName    string
	MerchantContact string
	Sandbox         bool
	Order           string // the merchant's reference
	Lines           []conversations.LineItem
	Sums            []Sum
	Amount          conversations.Money // what was taken; what the bank holds, if nothing was
	Stamp           string              // what became of that, in few words
	Good            bool                // nothing of it went back
	Standing        []string            // the same in sentences, unless it was simply paid
	Late            bool
	Method          string // the card, masked; empty if unknown
	ApprovalCode    string
	Reference       string   // what the payment is called on statements
	Later           []Change // what happened to the money since, oldest first
	Balance         []Sum    // what that comes to; empty if nothing happened
	// Second is what happened to a second payment of the order: none of this
	// receipt's money, but the customer sees it on the bank's statement and looks
	// for it here.
	Second []Change
}

// Sum is one row under a table.
type Sum struct {
	Name   string
	Amount conversations.Money
	Total  bool
}

// Change is one thing that happened to the money after it came, or that is
// under way.
type Change struct {
	Name      string
	Amount    conversations.Money
	At        time.Time
	Reference string // what it is called on statements; empty if that is not known
}

// DocumentOf returns the receipt of a payment request, and false if it has not
// been paid.
func DocumentOf(r *conversations.PaymentRequest) (*Document, bool) {
	f := r.Receipt
	if f == nil {
		return nil, false
	}
	b := balanceOf(r)
	stamp := b.stamp()
	d := &Document{
		Number: f.Number, IssuedAt: f.IssuedAt, MerchantName: f.MerchantName, MerchantContact: f.MerchantContact,
		Sandbox: f.Sandbox, Order: f.Order.Reference, Lines: f.Order.LineItems, Sums: sumsOf(f.Order),
		Amount: b.headline(), Stamp: english["stamp_"+stamp], Good: stamp == "paid" || stamp == "paid_in_part", Standing: b.sentences(),
		Late: f.Late, Method: methodOf(f), ApprovalCode: f.ApprovalCode, Reference: f.ReconciliationID,
	}
	for _, op := range r.Operations {
		change, shown := changeOf(r, op)
		switch {
		case !shown:
		case op.Attempt == r.PaidBy:
			d.Later = append(d.Later, change)
		case returnsSecondPayment(r, op):
			d.Second = append(d.Second, change)
		}
	}
	for _, changes := range [][]Change{d.Later, d.Second} {
		slices.SortStableFunc(changes, func(a, b Change) int { return a.At.Compare(b.At) })
	}
	if len(d.Later) > 0 {
		d.Balance = b.rows(f.Captured)
	}
	return d, true
}

// changeOf describes an operation for the customer. One that failed changed
// nothing. Who asked for it, and why, is the merchant's alone.
func changeOf(r *conversations.PaymentRequest, op conversations.Operation) (Change, bool) {
	key := string(op.Kind)
	if undoesRefund(r, op) {
		key = "refund_undone"
	}
	switch op.State {
	case conversations.OperationSucceeded:
	case conversations.OperationPending, conversations.OperationUnsettled:
		key += "_pending"
	default:
		return Change{}, false
	}
	at := op.StartedAt
	if op.SettledAt != nil {
		at = *op.SettledAt
	}
	name, known := english[key]
	return Change{Name: name, Amount: op.Amount, At: at, Reference: op.ReconciliationID}, known
}

// returnsSecondPayment tells whether an operation gives back money of an
// attempt that succeeded beside the one that counts. What a bank held by mistake
// for one that did not is no payment.
func returnsSecondPayment(r *conversations.PaymentRequest, op conversations.Operation) bool {
	if op.Kind == conversations.OperationCapture {
		return false
	}
	if op.Reason == conversations.OperationSecondSuccess {
		return true
	}
	a := r.Attempt(op.Attempt)
	return op.Elsewhere && a != nil && (a.Result.Outcome == conversations.OutcomeCaptured || a.Result.Outcome == conversations.OutcomeAuthorized)
}

// sumsOf lists the rows under the line items, leaving out what is nothing.
func sumsOf(o conversations.Order) []Sum {
	var rows []Sum
	add := func(key string, m conversations.Money) {
		if m.Minor != 0 {
			rows = append(rows, Sum{Name: english[key], Amount: m})
		}
	}
	add("subtotal", o.Subtotal)
	add("discount", conversations.Money{Minor: -o.Discount.Minor, Currency: o.Discount.Currency})
	add("shipping", o.Shipping)
	add("tax", o.Tax)
	return append(rows, Sum{Name: english["total"], Amount: o.Total, Total: true})
}

// brands are the networks by their name on cards. Another one is shown as the
// platform spells it.
var brands = map[string]string{
	"VISA": "Visa", "MASTERCARD": "Mastercard", "AMEX": "American Express", "DINERSCLUB": "Diners Club", "DISCOVER": "Discover",
}

func methodOf(f *conversations.Receipt) string {
	if f.CardLast4 == "" {
		return ""
	}
	if f.CardBrand == "" {
		return english.text("card_unbranded", "last4", f.CardLast4)
	}
	brand, ok := brands[strings.ToUpper(f.CardBrand)]
	if !ok {
		brand = f.CardBrand
	}
	return english.text("card", "brand", brand, "last4", f.CardLast4)
}

//go:embed web/texts.en.json
var englishTexts []byte

// english are the words of receipts, in the one language that there is so far.
var english = parseTexts(englishTexts)

type texts map[string]string

// parseTexts panics on texts that cannot be read: they are compiled in.
func parseTexts(raw []byte) texts {
	var t texts
	if err := json.Unmarshal(raw, &t); err != nil {
		panic("receipts: texts: " + err.Error())
	}
	return t
}

// text fills the placeholders of a text: "merchant", "Acme" fills {merchant}.
func (t texts) text(key string, pairs ...any) string {
	replace := make([]string, 0, len(pairs))
	for i, p := range pairs {
		word := fmt.Sprint(p)
		if i%2 == 0 {
			word = "{" + word + "}"
		}
		replace = append(replace, word)
	}
	return strings.NewReplacer(replace...).Replace(t[key])
}
