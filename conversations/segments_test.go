package conversations_test

import (
	"slices"
	"strings"
	"testing"

	"paythread/conversations"
)

func TestSegments(t *testing.T) {
	t.Parallel()
	const gsm, ucs = conversations.GSM7, conversations.UCS2
	a := func(n int) string { return strings.Repeat("a", n) }
	che := func(n int) string { return strings.Repeat("ч", n) }
	for _, c := range []struct {
		name, text   string
		encoding     conversations.SMSEncoding
		units, parts int
	}{
		{"nothing", "", gsm, 0, 1},
		{"one full", a(160), gsm, 160, 1},
		{"one more", a(161), gsm, 161, 2},
		{"two full", a(306), gsm, 306, 2},
		{"into the third", a(307), gsm, 307, 3},
		{"euro, one full", strings.Repeat("€", 80), gsm, 160, 1},
		{"euro, two", strings.Repeat("€", 81), gsm, 162, 2},
		{"an ESC pair at the seam", a(152) + "€" + a(152), gsm, 306, 3},
		{"an ESC pair before the seam", a(151) + "€" + a(152), gsm, 305, 2},
		{"ucs2, one full", che(70), ucs, 70, 1},
		{"ucs2, one more", che(71), ucs, 71, 2},
		{"ucs2, two full", che(134), ucs, 134, 2},
		{"ucs2, into the third", che(135), ucs, 135, 3},
		{"surrogates at the seam", che(66) + "👍" + che(66), ucs, 134, 3},
		{"surrogates before the seam", che(65) + "👍" + che(67), ucs, 134, 2},
		{"emoji, one full", strings.Repeat("👍", 35), ucs, 70, 1},
		{"emoji, two", strings.Repeat("👍", 36), ucs, 72, 2},
		{"brackets", "[x]", gsm, 5, 1},
		{"capital cedilla", "Ç", gsm, 1, 1},
		{"small cedilla", "ç", ucs, 1, 1},
		{"back-tick", "`", ucs, 1, 1},
		{"tab", "\t", ucs, 1, 1},
		{"line feed and form feed", "\n\f", gsm, 3, 1},
		{"acute", "á", ucs, 1, 1},
		{"curly quote", "’", ucs, 1, 1},
		{"no-break space", "\u00a0", ucs, 1, 1},
		{"ESC itself", "\x1b", ucs, 1, 1},
		{"one stranger in a long text", a(159) + "ч", ucs, 160, 3},
		{"broken UTF-8", "\xff", ucs, 1, 1},
	} {
		if got, want := conversations.Segments(c.text), (conversations.SMSSegments{Encoding: c.encoding, Units: c.units, Parts: c.parts}); got != want {
			t.Errorf("%s: %+v, want %+v", c.name, got, want)
		}
	}
}

// TestGSMAlphabet counts the characters: 127 beside ESC, and ten behind it.
func TestGSMAlphabet(t *testing.T) {
	t.Parallel()
	one, two := 0, 0
	for r := rune(0); r < 0x3000; r++ {
		s := conversations.Segments(string(r))
		switch {
		case s.Encoding == conversations.GSM7 && s.Units == 1:
			one++
		case s.Encoding == conversations.GSM7 && s.Units == 2:
			two++
		}
	}
	if one != 127 || two != 10 {
		t.Errorf("%d characters take one septet and %d two, want 127 and 10", one, two)
	}
}

// TestThePaymentMessageFitsOneSegment: with usual names and a usual host.
func TestThePaymentMessageFitsOneSegment(t *testing.T) {
	t.Parallel()
	for _, purpose := range conversations.NoticePurposes {
		text := conversations.Merchant{}.Text(conversations.SMS, purpose, conversations.Parameters{
			Merchant: "Acme Energy", Amount: "ZAR 1,149.00", Order: "SO-104217", Link: "https://pay.acme.example/p/0abcdefghjkmnp", Locale: "en",
		})
		if s := conversations.Segments(text); s.Encoding != conversations.GSM7 || s.Parts != 1 {
			t.Errorf("%s: %+v for %q", purpose, s, text)
		}
	}
}

func TestSMSText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"plain", "Pay 5 € now [here]\n", "Pay 5 € now [here]\n"},
		{"double quotes", "«a» “b” ʺc‟ ❝d❞ 〝e〞 ＂f＂ „g“", `"a" "b" "c" "d" "e" "f" "g"`},
		{"single quotes", "‘a’ ʻb ʼc ʽd ‛e ´f ˋg ❛h❜ `i ‚j", "'a' 'b 'c 'd 'e 'f 'g 'h' 'i 'j"},
		{"dashes", "a‐b‑c‒d–e—f―g−h", "a-b-c-d-e-f-g-h"},
		{"ellipsis", "wait…", "wait..."},
		{"full-width", "ＰＡＹ　１２～", "PAY 12~"},
		{"full-width back-tick", "\uff40", "'"},
		{"odd spaces", "a\u00a0b\u2009c\u202fd\u3000e\tf", "a b c d e f"},
		{"line separator", "a\u2028b", "a\nb"},
		{"zero-width", "a\u200bb\u200cc\u200dd\u2060e\ufefff\u00adg", "abcdefg"},
		{"accents apart", "caffe\u0300", "caffè"},
		{"another letter", "São Paulo – “x”", "São Paulo – “x”"},
		{"an emoji family", "“ok” 👩\u200d👧", "“ok” 👩\u200d👧"},
		{"joiners of a script", "می\u200cخواهم", "می\u200cخواهم"},
		{"nothing", "", ""},
		{"ellipses alone", strings.Repeat("…", 60), strings.Repeat("…", 60)},
		{"broken UTF-8", "\xff“", "\xff“"},
	} {
		if got := conversations.SMSText(c.text); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// The example of the reference for what one dash costs.
	long := "Acme Energy: your June bill of $42.10 is ready – pay securely: https://pay.acme.example/p/7Qk2mZ Questions? Reply here. STOP to opt out"
	if before, after := conversations.Segments(long).Parts, conversations.Segments(conversations.SMSText(long)).Parts; before != 3 || after != 1 {
		t.Errorf("%d parts before and %d after, want 3 and 1", before, after)
	}
}

func TestOutsideGSM(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"plain € [x]\n": nil, "": nil, "ção ção": {"ç", "ã"}, "a\u00a0b\u200b “c”": nil, "👍 “o\u0301”\u202e": {"👍", "ó", "U+202E"},
	} {
		if got := conversations.OutsideGSM(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
