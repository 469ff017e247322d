package conversations

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestWriteAgain: a repeat gets the first answer, whatever has become of the
// window or the customer's consent meanwhile.
func TestWriteAgain(t *testing.T) {
	t.Parallel()
	now := &clock{at: time.Now()}
	o := serverOptions(t)
	o.Now = now.read
	s := open(t, o)
	says := func(id, text string) {
		t.Helper()
		err := s.Receive(t.Context(), "acme", Inbound{
			Kind: InboundText, SenderID: "acme-wa", ProviderID: id, Text: text, At: s.Now(), Addresses: []Address{{AddressPhone, "+27821234567"}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	says("in1", "hello")
	c, err := s.ContactAt(t.Context(), "acme", "+27821234567")
	if err != nil {
		t.Fatal(err)
	}
	write := func(key, text string) (*Message, string) {
		t.Helper()
		m, err := s.Write(t.Context(), c.ID, Written{Channel: WhatsApp, Text: text, Agent: "zoe"}, Once{Key: key, Hash: text})
		var refused *Error
		if err != nil && !errors.As(err, &refused) {
			t.Fatal(err)
		}
		if refused != nil {
			return m, refused.Reason
		}
		return m, ""
	}
	first, refused := write("k1", "hi")
	if refused != "" {
		t.Fatal(refused)
	}
	now.add(25 * time.Hour)
	if again, refused := write("k1", "hi"); refused != "" || again.ID != first.ID {
		t.Errorf("after the window has closed a repeat gets %v, %s", again, refused)
	}
	if _, refused := write("k2", "hi"); refused != "outside_window" {
		t.Errorf("with the window closed: %q", refused)
	}
	says("in2", "hello")
	if _, refused := write("k2", "hi"); refused != "outside_window" {
		t.Errorf("a repeat of what was refused: %q", refused)
	}
	says("in3", "STOP")
	if again, refused := write("k1", "hi"); refused != "" || again.ID != first.ID {
		t.Errorf("after STOP a repeat gets %v, %s", again, refused)
	}
	if _, refused := write("k3", "hi"); refused != "opted_out" {
		t.Errorf("after STOP: %q", refused)
	}
	if _, refused := write("k1", "something else"); refused != "idempotency_mismatch" {
		t.Errorf("another text with the same key: %q", refused)
	}
}

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
