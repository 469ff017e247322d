package conversations

import (
	"fmt"
	"strconv"
	"strings"
)

// Money is an amount in the minor units of an ISO 4217 currency: cents for
// ZAR, whole yen for JPY, fils (thousandths) for KWD. Never a float.
type Money struct {
	Minor    int64  `json:"minor"`
	Currency string `json:"currency"`
}

// MaxMinor bounds every amount: CyberSource takes at most 15 characters.
const MaxMinor = 99_999_999_999

// ParseMoney reads a decimal string such as "149.00" in the given currency.
// It refuses signs, exponents, separators, more decimals than the currency
// has, and amounts beyond MaxMinor. The error is an *Error about the field
// "value" or "currency".
func ParseMoney(value, code string) (Money, error) {
	if err := CheckCurrency("currency", code); err != nil {
		return Money{}, err
	}
	digits, _ := CurrencyDigits(code)
	example := Money{Minor: 149 * pow10(digits), Currency: code}.Decimal()
	whole, fraction, dotted := strings.Cut(value, ".")
	if !allDigits(whole) || dotted && !allDigits(fraction) {
		return Money{}, Invalid("value", "%q is not a decimal amount, for example %q", clip(value, 24), example)
	}
	if len(fraction) > digits {
		return Money{}, Invalid("value", "%q has more than the %d decimals of %s, for example %q", clip(value, 24), digits, code, example)
	}
	minor, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", digits-len(fraction)), 10, 64)
	if err != nil || minor > MaxMinor {
		return Money{}, Invalid("value", "%q is too large, the most is %q", clip(value, 24), Money{Minor: MaxMinor, Currency: code}.Decimal())
	}
	return Money{Minor: minor, Currency: code}, nil
}

// Decimal returns the amount as the currency's decimal string, without
// separators: "149.00", "-3.10", "1200" for JPY.
func (m Money) Decimal() string {
	digits, _ := CurrencyDigits(m.Currency)
	sign, minor := "", uint64(m.Minor)
	if m.Minor < 0 {
		sign, minor = "-", -minor // as unsigned, the least of all has an opposite too
	}
	if digits == 0 {
		return sign + strconv.FormatUint(minor, 10)
	}
	unit := uint64(pow10(digits))
	return fmt.Sprintf("%s%d.%0*d", sign, minor/unit, digits, minor%unit)
}

// String returns the amount for a person, in characters that an SMS of the
// GSM alphabet can carry: "ZAR 1,149.00".
func (m Money) String() string {
	whole, fraction, dotted := strings.Cut(strings.TrimPrefix(m.Decimal(), "-"), ".")
	var b strings.Builder
	b.WriteString(m.Currency + " ")
	if m.Minor < 0 {
		b.WriteByte('-')
	}
	for i, c := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	if dotted {
		b.WriteString("." + fraction)
	}
	return b.String()
}

// IsZero tells whether there is neither an amount nor a currency.
func (m Money) IsZero() bool { return m == Money{} }

// Plus returns the sum. It panics on different currencies: that is a mistake
// in the program, since sums are checked when a payment request is created.
func (m Money) Plus(n Money) Money {
	if m.Currency != n.Currency {
		panic("conversations: adding " + n.Currency + " to " + m.Currency)
	}
	return Money{Minor: m.Minor + n.Minor, Currency: m.Currency}
}

func pow10(n int) int64 {
	p := int64(1)
	for range n {
		p *= 10
	}
	return p
}

func allDigits(s string) bool {
	return s != "" && len(s) <= 18 && strings.Trim(s, "0123456789") == ""
}

// clip shortens foreign text that goes into an error.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
