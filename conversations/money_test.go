package conversations

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestCurrencies(t *testing.T) {
	t.Parallel()
	if n := len(currencies); n != 164 {
		t.Errorf("%d currencies, want the 164 of the list that can be charged", n)
	}
	for code, want := range map[string]int{
		"ZAR": 2, "EUR": 2, "HUF": 2, "MGA": 2, "MRU": 2, "XCG": 2, "ZWG": 2, "SLE": 2, "VED": 2, "TWD": 2, "AFN": 2, "LBP": 2, "IDR": 2, "IRR": 2,
		"JPY": 0, "ISK": 0, "KRW": 0, "CLP": 0, "UGX": 0, "UYI": 0, "VND": 0, "XOF": 0, "PYG": 0,
		"KWD": 3, "BHD": 3, "TND": 3, "IQD": 3, "CLF": 4, "UYW": 4,
	} {
		if got, ok := CurrencyDigits(code); !ok || got != want {
			t.Errorf("%s has %d decimals (%v), want %d", code, got, ok, want)
		}
	}
	for code, successor := range withdrawnCurrencies {
		if _, ok := currencies[code]; ok {
			t.Errorf("%s is in use and withdrawn", code)
		}
		if _, ok := currencies[successor]; !ok {
			t.Errorf("%s, the successor of %s, is not in use", successor, code)
		}
		e, ok := CheckCurrency("total.currency", code).(*Error)
		if !ok || e.Field != "total.currency" || e.Code != CodeInvalid || !strings.Contains(e.Message, successor) {
			t.Errorf("%s: %v, want it refused in favour of %s", code, e, successor)
		}
	}
	for _, code := range []string{"XAU", "XAG", "XPT", "XPD", "XBA", "XDR", "XSU", "XUA", "XAD", "XTS", "XXX", "BGN", "HRK", "zar", "", "ZA", "ZARR", "BTC"} {
		if _, ok := CurrencyDigits(code); ok {
			t.Errorf("%q is taken for a currency", code)
		}
		if _, err := ParseMoney("1", code); CodeOf(err) != CodeInvalid {
			t.Errorf("an amount in %q: %v", code, err)
		}
	}
	for code, digits := range currencies {
		if len(code) != 3 || strings.ToUpper(code) != code || !slices.Contains([]int{0, 2, 3, 4}, digits) {
			t.Errorf("%q with %d decimals", code, digits)
		}
	}
}

func TestDecimalOfTheLargest(t *testing.T) {
	t.Parallel()
	for m, want := range map[Money]string{
		{math.MaxInt64, "ZAR"}: "92233720368547758.07", {math.MinInt64, "ZAR"}: "-92233720368547758.08", {math.MinInt64, "JPY"}: "-9223372036854775808",
		{-1, "KWD"}: "-0.001", {0, "JPY"}: "0", {0, "KWD"}: "0.000", {5, "CLF"}: "0.0005", {MaxMinor, "UYW"}: "9999999.9999",
	} {
		if got := m.Decimal(); got != want {
			t.Errorf("%d %s is %q, want %q", m.Minor, m.Currency, got, want)
		}
	}
}

// TestSumsDoNotOverflow: amounts that would add up if integers were allowed to
// wrap round.
func TestSumsDoNotOverflow(t *testing.T) {
	t.Parallel()
	zar := func(minor int64) Money { return Money{minor, "ZAR"} }
	line := func(quantity, price, total int64) LineItem {
		return LineItem{Name: "Service", Quantity: quantity, UnitPrice: zar(price), Total: zar(total)}
	}
	for _, tt := range []struct {
		name  string
		order Order
		field string
	}{
		{"the largest", Order{Subtotal: zar(MaxMinor), Total: zar(MaxMinor)}, ""},
		{"beyond it", Order{Subtotal: zar(MaxMinor), Tax: zar(1), Total: zar(MaxMinor + 1)}, "total"},
		{"parts that wrap round", Order{Subtotal: zar(math.MaxInt64), Tax: zar(math.MaxInt64), Shipping: zar(102), Total: zar(100)}, "subtotal"},
		{"a discount that wraps round", Order{Subtotal: zar(0), Discount: zar(math.MinInt64), Total: zar(math.MinInt64)}, "discount"},
		{"a line that wraps round", Order{LineItems: []LineItem{line(999_999, math.MaxInt64/999_999+1, 100)}, Subtotal: zar(100), Total: zar(100)}, "line_items[0].unit_price"},
		{"a line beyond the largest", Order{LineItems: []LineItem{line(999_999, MaxMinor, MaxMinor)}, Subtotal: zar(MaxMinor), Total: zar(MaxMinor)}, "line_items[0].total"},
		{"the largest line", Order{LineItems: []LineItem{line(999_999, 100_000, 99_999_900_000)}, Subtotal: zar(99_999_900_000), Total: zar(99_999_900_000)}, ""},
		{"many of the largest lines", Order{LineItems: slices.Repeat([]LineItem{line(1, MaxMinor, MaxMinor)}, maxLineItems), Subtotal: zar(MaxMinor), Total: zar(MaxMinor)}, "subtotal"},
		{"a negative quantity", Order{LineItems: []LineItem{line(-1, 100, -100)}, Subtotal: zar(-100), Total: zar(100)}, "subtotal"},
		{"a negative total", Order{Subtotal: zar(100), Discount: zar(200), Total: zar(-100)}, "total"},
		{"nothing to pay", Order{Subtotal: zar(100), Discount: zar(100), Total: zar(0)}, "total"},
	} {
		o := tt.order
		o.Reference = "1042"
		for _, m := range []*Money{&o.Tax, &o.Shipping, &o.Discount} {
			m.Currency = "ZAR"
		}
		var field string
		err := CheckOrder(o, aMerchant())
		if e, ok := err.(*Error); ok {
			field = e.Field
		}
		if field != tt.field || (err == nil) != (tt.field == "") {
			t.Errorf("%s: %v, want %q refused", tt.name, err, tt.field)
		}
	}
}

// FuzzMoney: what is parsed reads the same, and what is printed parses back.
func FuzzMoney(f *testing.F) {
	for _, code := range []string{"ZAR", "JPY", "KWD", "CLF", "DEM", "XAU", "é"} {
		for _, text := range []string{"149.00", "0", "999999999.99", "1.2345", "-1", "1e9", "0x10", "१", "9223372036854775808", strings.Repeat("9", 30), "00.10"} {
			f.Add(text, code, int64(14900))
		}
	}
	f.Add("", "ZAR", int64(math.MinInt64))
	f.Add("", "KWD", int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, text, code string, minor int64) {
		if m, err := ParseMoney(text, code); err == nil {
			again, err := ParseMoney(m.Decimal(), code)
			if err != nil || again != m || m.Minor < 0 || m.Minor > MaxMinor || m.Currency != code {
				t.Errorf("%q %s is %+v, then %+v, %v", text, code, m, again, err)
			}
			// Digits are neither lost nor moved.
			digits, _ := CurrencyDigits(code)
			whole, fraction, _ := strings.Cut(text, ".")
			want := strings.TrimLeft(whole+fraction+strings.Repeat("0", digits-len(fraction)), "0")
			if got := strings.TrimLeft(strings.ReplaceAll(m.Decimal(), ".", ""), "0"); got != want {
				t.Errorf("%q %s has the digits %q, want %q", text, code, got, want)
			}
		} else if CodeOf(err) != CodeInvalid || len(err.Error()) > 300 {
			t.Errorf("%q %q: %v", text, code, err)
		}
		if _, ok := CurrencyDigits(code); !ok {
			return
		}
		m := Money{minor, code}
		if back, err := ParseMoney(m.Decimal(), code); minor >= 0 && minor <= MaxMinor {
			if err != nil || back != m {
				t.Errorf("%+v prints %q and is then %+v, %v", m, m.Decimal(), back, err)
			}
		} else if err == nil {
			t.Errorf("%+v, which is out of bounds, is taken as %+v", m, back)
		}
		if got := strings.ReplaceAll(m.String(), ",", ""); got != code+" "+m.Decimal() {
			t.Errorf("%q and %q are different amounts", got, m.Decimal())
		}
	})
}
