// Package receipts shows what a customer gets for a payment: the document that
// was frozen when the money came, with what happened to the money since.
package receipts

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"paythread/conversations"
)

// Document is a receipt as people read it, whatever it is shown on. All of it
// but Captured, Standing and Later was frozen when the money came.
type Document struct {
	Number          string
	IssuedAt        time.Time
	MerchantName    string
	MerchantContact string
	Sandbox         bool
	Order           string // the merchant's reference
	Lines           []conversations.LineItem
	Sums            []Sum
	Paid            conversations.Money
	Captured        bool // taken, then or since; false: set aside by the bank
	Late            bool
	Method          string // the card, masked; empty if unknown
	ApprovalCode    string
	Reference       string // what the payment is called on statements
	Standing        string // a sentence when the money, or part of it, went back
	Later           []Change
}

// Sum is one row under the line items.
type Sum struct {
	Name   string
	Amount conversations.Money
	Total  bool
}

// Change is one thing that happened to the money after it came.
type Change struct {
	Name   string
	Amount conversations.Money
	At     time.Time
}

// DocumentOf returns the receipt of a payment request, and false if it has not
// been paid.
func DocumentOf(r *conversations.PaymentRequest) (*Document, bool) {
	f := r.Receipt
	if f == nil {
		return nil, false
	}
	d := &Document{
		Number: f.Number, IssuedAt: f.IssuedAt, MerchantName: f.MerchantName, MerchantContact: f.MerchantContact,
		Sandbox: f.Sandbox, Order: f.Order.Reference, Lines: f.Order.LineItems, Sums: sumsOf(f.Order),
		Paid: f.Paid, Captured: f.Captured || r.CapturedMinor > 0, Late: f.Late, Method: methodOf(f),
		ApprovalCode: f.ApprovalCode, Reference: f.ReconciliationID,
		Standing: english[standings[r.Lifecycle]],
	}
	for _, op := range r.Operations {
		if name, ok := changeOf(r, op); ok {
			at := op.StartedAt
			if op.SettledAt != nil {
				at = *op.SettledAt
			}
			d.Later = append(d.Later, Change{Name: name, Amount: op.Amount, At: at})
		}
	}
	return d, true
}

// standings are the texts for lifecycles in which money went back.
var standings = map[conversations.Lifecycle]string{
	conversations.Reversed:          "standing_reversed",
	conversations.Refunded:          "standing_refunded",
	conversations.PartiallyRefunded: "standing_partially_refunded",
}

// changeOf names an operation for the customer. Those that failed changed
// nothing, and those on another attempt are none of this receipt's money, but
// for a second payment that was given back: the customer sees both on the
// bank's statement and looks for it here.
func changeOf(r *conversations.PaymentRequest, op conversations.Operation) (string, bool) {
	key := string(op.Kind)
	switch {
	case op.State == conversations.OperationFailed:
		return "", false
	case op.Reason == "second_success":
		key = "second"
	case op.Attempt != r.PaidBy:
		return "", false
	}
	if op.State != conversations.OperationSucceeded {
		key += "_pending"
	}
	name, ok := english[key]
	return name, ok
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
