package conversations

import (
	"strings"
	"testing"
)

// TestWritable: what an agent writes goes out as composed texts do, or is
// refused with a reason.
func TestWritable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		channel Channel
		text    string
		want    string // "" for refused
	}{
		{"plain", SMS, " Hello ", "Hello"},
		{"typographic characters cost as much as a second part", SMS, "It’s “ready” – soon…", `It's "ready" - soon...`},
		{"the same on WhatsApp", WhatsApp, "It’s “ready”", "It’s “ready”"},
		{"line breaks of another system", WhatsApp, "a\r\nb", "a\nb"},
		{"Hebrew with its marks", WhatsApp, "שלום \u200f!", "שלום \u200f!"},
		{"an emoji held together", SMS, "👩‍👧", "👩‍👧"},
		{"nothing", SMS, " \n\t ", ""},
		{"nothing that anybody sees", SMS, "\u200b\u200f\ufeff", ""},
		{"nothing that anybody sees on WhatsApp", WhatsApp, "\u200b\u00a0", ""},
		{"a control character", WhatsApp, "a\x00b", ""},
		{"a C1 control character", WhatsApp, "a\u0085b", ""},
		{"a lone carriage return", WhatsApp, "a\rb", ""},
		{"no UTF-8", WhatsApp, "a\xffb", ""},
		{"ten parts", SMS, strings.Repeat("a", 1530), strings.Repeat("a", 1530)},
		{"eleven parts", SMS, strings.Repeat("a", 1531), ""},
		{"ten parts but for a curly quote", SMS, strings.Repeat("a", 1529) + "’", strings.Repeat("a", 1529) + "'"},
		{"as long as WhatsApp takes", WhatsApp, strings.Repeat("ä", 4096), strings.Repeat("ä", 4096)},
		{"longer", WhatsApp, strings.Repeat("ä", 4097), ""},
	} {
		got, err := writable(c.channel, c.text)
		if got != c.want || (err != nil) != (c.want == "") || err != nil && CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}
