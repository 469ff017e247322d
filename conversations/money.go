package conversations

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/text/currency"
)

// Money is an amount in the minor units of an ISO 4217 currency: cents for
// ZAR, whole yen for JPY, fils (thousandths) for KWD. Never a float.
type Money struct {
	Minor    int64  `json:"minor"`
	Currency string `json:"currency"`
}

// minorDigits holds the currencies whose number of decimals in ISO 4217 is not
// two. (The Unicode locale data differ from the standard for several of them,
// so they are not used here.)
var minorDigits = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0,
	"RWF": 0, "UGX": 0, "UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
	"CLF": 4, "UYW": 4,
}

// notMoney are codes of ISO 4217 that name no currency one can charge:
// metals, bond units, drawing rights, tests and "no currency".
const notMoney = " XAU XAG XPT XPD XBA XBB XBC XBD XDR XSU XUA XTS XXX "

// MaxMinor bounds every amount: CyberSource takes at most 15 characters.
const MaxMinor = 99_999_999_999

// CurrencyDigits returns the number of decimals of an ISO 4217 code in upper
// case, and false if there is no such currency.
func CurrencyDigits(code string) (int, bool) {
	if d, ok := minorDigits[code]; ok {
		return d, true
	}
	if len(code) != 3 || strings.ToUpper(code) != code || strings.Contains(notMoney, " "+code+" ") {
		return 0, false
	}
	if _, err := currency.ParseISO(code); err != nil {
		return 0, false
	}
	return 2, true
}

// ParseMoney reads a decimal string such as "149.00" in the given currency.
// It refuses signs, exponents, separators, more decimals than the currency
// has, and amounts beyond MaxMinor. The error is an *Error about the field
// "value" or "currency".
func ParseMoney(value, code string) (Money, error) {
	digits, ok := CurrencyDigits(code)
	if !ok {
		return Money{}, Invalid("currency", "%q is not an ISO 4217 currency code, for example \"ZAR\"", clip(code, 12))
	}
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
	sign, minor := "", m.Minor
	if minor < 0 {
		sign, minor = "-", -minor
	}
	unit := pow10(digits)
	if digits == 0 {
		return sign + strconv.FormatInt(minor, 10)
	}
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

func pow10(n int) int64 { return int64(math.Pow10(n)) }

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
