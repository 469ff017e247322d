package conversations

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// maxLineItems is what CyberSource's forms take (Secure Acceptance,
// line_item_count).
const maxLineItems = 200

// CheckOrder checks what is to be paid: the reference, that every amount is in
// one currency that the merchant accepts and not negative, and that the sums
// add up. The error is an *Error about one field.
func CheckOrder(o Order, m Merchant) error {
	if err := checkText("order", o.Reference, 50); err != nil {
		return err
	}
	if strings.TrimSpace(o.Reference) == "" {
		return Invalid("order", "the order number is missing")
	}
	code := o.Total.Currency
	if err := CheckCurrency("total.currency", code); err != nil {
		return err
	}
	if len(m.Currencies) > 0 && !slices.Contains(m.Currencies, code) {
		return Invalid("total.currency", "%s is not accepted here; use %s", code, strings.Join(m.Currencies, ", "))
	}
	for _, part := range []struct {
		field string
		money Money
	}{{"subtotal", o.Subtotal}, {"tax", o.Tax}, {"shipping", o.Shipping}, {"discount", o.Discount}, {"total", o.Total}} {
		if err := checkAmount(part.field, part.money, code); err != nil {
			return err
		}
	}
	if o.Total.Minor == 0 {
		return Invalid("total", "the total is zero; there is nothing to pay")
	}
	if sum := o.Subtotal.Minor + o.Tax.Minor + o.Shipping.Minor - o.Discount.Minor; sum != o.Total.Minor {
		return Invalid("total", "the sums do not add up: subtotal, tax and shipping less discount are %s, the total is %s",
			Money{sum, code}.Decimal(), o.Total.Decimal())
	}
	return checkLineItems(o, code)
}

func checkLineItems(o Order, code string) error {
	if len(o.LineItems) > maxLineItems {
		return Invalid("line_items", "%d line items are too many, the most is %d", len(o.LineItems), maxLineItems)
	}
	var sum int64
	for i, l := range o.LineItems {
		at := fmt.Sprintf("line_items[%d]", i)
		if l.Name == "" {
			return Invalid(at+".name", "the name is missing")
		}
		if err := checkText(at+".name", l.Name, 255); err != nil {
			return err
		}
		if err := checkText(at+".sku", l.SKU, 255); err != nil {
			return err
		}
		if l.Quantity < 1 || l.Quantity > 999_999 {
			return Invalid(at+".quantity", "%d is not a quantity, use 1 to 999999", l.Quantity)
		}
		if err := checkAmount(at+".unit_price", l.UnitPrice, code); err != nil {
			return err
		}
		if err := checkAmount(at+".total", l.Total, code); err != nil {
			return err
		}
		if l.UnitPrice.Minor > MaxMinor/l.Quantity || l.UnitPrice.Minor*l.Quantity != l.Total.Minor {
			return Invalid(at+".total", "%d times %s is not %s", l.Quantity, l.UnitPrice.Decimal(), l.Total.Decimal())
		}
		sum += l.Total.Minor
	}
	if len(o.LineItems) > 0 && sum != o.Subtotal.Minor {
		return Invalid("subtotal", "the line items add up to %s, the subtotal is %s", Money{sum, code}.Decimal(), o.Subtotal.Decimal())
	}
	return nil
}

func checkAmount(field string, m Money, code string) error {
	switch {
	case m.Currency != code:
		return Invalid(field+".currency", "%q differs from the total's currency %s", clip(m.Currency, 12), code)
	case m.Minor < 0:
		return Invalid(field, "%s is negative", m.Decimal())
	case m.Minor > MaxMinor:
		return Invalid(field, "%s is too large", m.Decimal())
	}
	return nil
}

// checkText refuses text that is too long or holds control characters.
func checkText(field, s string, most int) error {
	if n := len([]rune(s)); n > most {
		return Invalid(field, "%d characters are too many, the most is %d", n, most)
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return Invalid(field, "it holds control characters such as line breaks")
	}
	return nil
}
