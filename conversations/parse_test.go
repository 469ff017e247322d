package conversations

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseMoney(t *testing.T) {
	t.Parallel()
	tests := []struct {
		value, currency string
		want            int64
		field           string // of the refusal
	}{
		{"149.00", "ZAR", 14900, ""}, {"149", "ZAR", 14900, ""}, {"0.05", "ZAR", 5, ""}, {"1200", "JPY", 1200, ""}, {"1.234", "KWD", 1234, ""},
		{"999999999.99", "ZAR", 99_999_999_999, ""},
		{"12.5", "JPY", 0, "value"}, {"1.2345", "KWD", 0, "value"}, {"149.001", "ZAR", 0, "value"}, {"-1.00", "ZAR", 0, "value"}, {"+1.00", "ZAR", 0, "value"},
		{"1e3", "ZAR", 0, "value"}, {"1,000.00", "ZAR", 0, "value"}, {"", "ZAR", 0, "value"}, {".5", "ZAR", 0, "value"}, {"5.", "ZAR", 0, "value"},
		{" 5", "ZAR", 0, "value"}, {"٣", "ZAR", 0, "value"}, {"1000000000.00", "ZAR", 0, "value"}, {strings.Repeat("9", 40), "ZAR", 0, "value"},
		{"1", "zar", 0, "currency"}, {"1", "XXX", 0, "currency"}, {"1", "XAU", 0, "currency"}, {"1", "", 0, "currency"}, {"1", "ABC", 0, "currency"},
	}
	for _, tt := range tests {
		got, err := ParseMoney(tt.value, tt.currency)
		if tt.field == "" {
			if err != nil || got.Minor != tt.want {
				t.Errorf("%q %s: %d, %v, want %d", tt.value, tt.currency, got.Minor, err, tt.want)
			}
			continue
		}
		if e, ok := err.(*Error); !ok || e.Field != tt.field || e.Code != CodeInvalid {
			t.Errorf("%q %s: %v, %v, want %s refused", tt.value, tt.currency, got, err, tt.field)
		}
	}
	for m, want := range map[Money]string{{114900, "ZAR"}: "ZAR 1,149.00", {1200, "JPY"}: "JPY 1,200", {1234567, "KWD"}: "KWD 1,234.567", {-310, "ZAR"}: "ZAR -3.10"} {
		if got := m.String(); got != want {
			t.Errorf("%+v reads %q, want %q", m, got, want)
		}
	}
}

func TestCheckOrder(t *testing.T) {
	t.Parallel()
	m := aMerchant()
	m.Currencies = []string{"ZAR", "JPY"}
	tests := []struct {
		name   string
		change func(*Order)
		field  string
	}{
		{"as it should be", func(*Order) {}, ""},
		{"a discount", func(o *Order) { o.Discount.Minor, o.Total.Minor = 900, 14000 }, ""},
		{"no line items", func(o *Order) { o.LineItems = nil }, ""},
		{"sums", func(o *Order) { o.Total.Minor++ }, "total"},
		{"line items", func(o *Order) { o.LineItems[0].UnitPrice.Minor--; o.LineItems[0].Total.Minor-- }, "subtotal"},
		{"a line", func(o *Order) { o.LineItems[0].Quantity = 2 }, "line_items[0].total"},
		{"overflow", func(o *Order) { o.LineItems[0].Quantity, o.LineItems[0].UnitPrice.Minor = 999_999, MaxMinor }, "line_items[0].total"},
		{"negative tax", func(o *Order) { o.Tax.Minor, o.Shipping.Minor = -1, 1944 }, "tax"},
		{"two currencies", func(o *Order) { o.Tax.Currency = "JPY" }, "tax.currency"},
		{"another currency", func(o *Order) { o.Total.Currency = "KWD" }, "total.currency"},
		{"no currency", func(o *Order) { o.Total.Currency = "" }, "total.currency"},
		{"nothing to pay", func(o *Order) {
			*o = Order{Reference: "1", Subtotal: rand149(0), Tax: rand149(0), Shipping: rand149(0), Discount: rand149(0), Total: rand149(0)}
		}, "total"},
		{"too large", func(o *Order) { o.Total.Minor = MaxMinor + 1 }, "total"},
		{"no reference", func(o *Order) { o.Reference = "" }, "order"},
		{"a line break", func(o *Order) { o.Reference = "1\n2" }, "order"},
		{"a long reference", func(o *Order) { o.Reference = strings.Repeat("1", 51) }, "order"},
	}
	for _, tt := range tests {
		o := anOrder("1042")
		tt.change(&o)
		err := CheckOrder(o, m)
		var field string
		if e, ok := err.(*Error); ok {
			field = e.Field
		}
		if (err != nil) != (tt.field != "") || field != tt.field {
			t.Errorf("%s: %v, want %q refused", tt.name, err, tt.field)
		}
	}
}

func FuzzParsers(f *testing.F) {
	s := &Store{o: Options{Partitions: 4}}
	c := Cursor{{Ms: 1_700_000_000_000, Seq: 1}, {}, {Ms: 1_699_999_999_000}, {Ms: 1}}
	for _, seed := range []string{
		"", "149.00", "082 123 4567", "+5511987654321", c.String(), listCursor(1_700_000_000_000, "pr_0abc"), theRequest, theContact,
		Timer{Kind: TimerWindow, ContactID: theContact, ID: theRequest, N: 3}.member(), "window/a/b/c", "/////", "AAAA", "zz.", "\xff\xfe",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := s.ParseCursor(text); err == nil {
			again, err := s.ParseCursor(c.String())
			if err != nil || again.String() != c.String() {
				t.Errorf("cursor %v: %v, %v", c, again, err)
			}
			for _, id := range c {
				if id.Ms < 0 || id.Seq < 0 {
					t.Errorf("cursor %v leads before the beginning", c)
				}
			}
		}
		if at, id, err := parseListCursor(text); err == nil && text != "" {
			if at2, id2, err := parseListCursor(listCursor(at, id)); err != nil || at2 != at || id2 != id {
				t.Errorf("list cursor %d %q: %v", at, id, err)
			}
		}
		if timer, err := parseTimer(text, 5); err == nil {
			if again, err := parseTimer(timer.member(), 5); err != nil || again != timer {
				t.Errorf("timer %+v: %v", timer, err)
			}
		}
		for _, prefix := range []string{contactPrefix, requestPrefix, messagePrefix, sealedOrderPrefix, ""} {
			if p, ok := partitionOf(text, prefix, 4); ok && (p < 0 || p >= 4) {
				t.Errorf("%q lies in partition %d", text, p)
			}
		}
		for _, currency := range []string{"ZAR", "JPY", "KWD", text} {
			if m, err := ParseMoney(text, currency); err == nil {
				if again, err := ParseMoney(m.Decimal(), currency); err != nil || again != m || m.Minor < 0 || m.Minor > MaxMinor {
					t.Errorf("%q %s is %+v, then %+v, %v", text, currency, m, again, err)
				}
			} else if len(err.Error()) > 300 || utf8.ValidString(text) && !utf8.ValidString(err.Error()) {
				t.Errorf("%q: error %q", text, err)
			}
		}
		if canonical, _, err := ParsePhone(text, "ZA"); err == nil {
			if again, _, err := ParsePhone(canonical, ""); err != nil || again != canonical {
				t.Errorf("phone %q is %s, then %s, %v", text, canonical, again, err)
			}
		}
		Recognise(Heard{Channel: SMS, Text: text, Button: text})
		if sms := SMSText(text); Segments(sms).Parts > Segments(text).Parts || SMSText(sms) != sms {
			t.Errorf("%q as an SMS is %q, then %q", text, sms, SMSText(sms))
		}
	})
}
