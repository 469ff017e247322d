package providertest

import (
	"bytes"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"paythread/conversations"
	"paythread/gateway/providers"
)

func (h *Harness) testRegistration(t *testing.T) {
	r := h.Registration
	if r.Name == "" || len(r.Channels) == 0 || r.New == nil {
		t.Fatal("the registration lacks a name, channels or a constructor")
	}
	seen := map[string]bool{}
	for _, s := range r.Settings {
		if s.Name == "" || s.Doc == "" || seen[s.Name] {
			t.Errorf("setting %q has no name or no doc, or comes twice", s.Name)
		}
		seen[s.Name] = true
		if s.Secret && s.Default != "" {
			t.Errorf("the secret %s has a default", s.Name)
		}
		if s.Secret && h.Values[s.Name] == "" {
			t.Errorf("the harness has no value for the secret %s", s.Name)
		}
	}
	refused := func(t *testing.T, change func(map[string]string), want string) {
		t.Helper()
		values := map[string]string{}
		for k, v := range h.Values {
			values[k] = v
		}
		change(values)
		_, err := r.New(h.settings(values), http.DefaultClient, (&record{}).logger())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("New: got %v, want an error that names %s", err, want)
		}
		h.checkSecrets(t, "the error of New", err.Error())
	}
	for _, s := range r.Settings {
		if s.Required && s.Default == "" {
			t.Run("without "+s.Name, func(t *testing.T) {
				refused(t, func(v map[string]string) { delete(v, s.Name) }, s.Name)
			})
		}
	}
	t.Run("misspelt", func(t *testing.T) {
		refused(t, func(v map[string]string) { v["acess_token"] = "x" }, "acess_token")
	})
	for _, address := range []string{"provider.example", "ftp://provider.example", "https://", "https://user:pass@provider.example", "https://provider.example?x=1"} {
		t.Run("base_url "+address, func(t *testing.T) {
			refused(t, func(v map[string]string) { v[BaseURL] = address }, BaseURL)
		})
	}
}

// webhook returns a fresh copy of the harness's genuine webhook.
func (h *Harness) webhook() providers.Webhook {
	w := h.Webhook
	w.Header = w.Header.Clone()
	w.Body = bytes.Clone(w.Body)
	if w.ReceivedAt.IsZero() {
		w.ReceivedAt = ReceivedAt
	}
	return w
}

// signature returns what Sign has put into w.
func (h *Harness) signature(w *providers.Webhook) string {
	if h.Features.Unsigned {
		return strings.TrimPrefix(w.URL, h.WebhookURL+"/")
	}
	return w.Header.Get(h.SignatureHeader)
}

// setSignature puts s where Sign puts a signature.
func (h *Harness) setSignature(w *providers.Webhook, s string) {
	if h.Features.Unsigned {
		w.URL = h.WebhookURL + "/" + s
		return
	}
	w.Header.Set(h.SignatureHeader, s)
}

// addSignature puts s beside the signature that is there.
func (h *Harness) addSignature(w *providers.Webhook, s string) {
	if h.Features.Unsigned {
		w.URL += "/" + s
		return
	}
	w.Header.Add(h.SignatureHeader, s)
}

func (h *Harness) testVerify(t *testing.T) {
	b := h.bench(t, "https://provider.invalid")
	key := h.Values[h.SigningKeys[0]]
	if len(h.SigningKeys) < 2 {
		t.Error("the harness names no previous key: rotation is not tested")
	}
	for _, name := range h.SigningKeys {
		t.Run("signed with "+name, func(t *testing.T) {
			w := h.webhook()
			h.Sign(&w, h.Values[name])
			if err := b.Verify(w); err != nil {
				t.Errorf("got %v, want it trusted", err)
			}
		})
	}
	if h.Features.Timestamped {
		t.Run("stale", func(t *testing.T) {
			w := h.webhook()
			w.ReceivedAt = ReceivedAt.AddDate(0, 0, -1)
			h.Sign(&w, key)
			w.ReceivedAt = ReceivedAt
			h.checkRefused(t, b, w)
		})
	}

	signed := func(w *providers.Webhook) string {
		h.Sign(w, key)
		return h.signature(w)
	}
	set := func(value func(genuine string) string) func(*providers.Webhook) {
		return func(w *providers.Webhook) { h.setSignature(w, value(signed(w))) }
	}
	type forgery struct {
		name  string
		forge func(*providers.Webhook)
	}
	forgeries := []forgery{
		{"missing", func(*providers.Webhook) {}},
		{"empty", set(func(string) string { return "" })},
		{"another tenant's key", func(w *providers.Webhook) { h.Sign(w, "the secret of another tenant") }},
		{"the empty key", func(w *providers.Webhook) { h.Sign(w, "") }},
		{"cut", set(func(s string) string { return s[:len(s)-2] })},
		{"longer", set(func(s string) string { return s + "00" })},
		{"one character changed", set(func(s string) string {
			at := len(s) - 10
			other := byte('0')
			if s[at] == other {
				other = '1'
			}
			return s[:at] + string(other) + s[at+1:]
		})},
		{"garbage", set(func(s string) string { return strings.Repeat("\xff!", len(s)/2) })},
		{"without its end", set(func(s string) string { return s[:len(s)/8] })},
		{"in upper case", set(strings.ToUpper)},
		{"twice", func(w *providers.Webhook) { h.addSignature(w, signed(w)) }},
	}
	ofTheBody := []forgery{
		{"body with one byte more", func(w *providers.Webhook) { signed(w); w.Body = append(w.Body, 'x') }},
		{"body with one byte changed", func(w *providers.Webhook) { signed(w); w.Body[len(w.Body)/2]++ }},
		{"signed without the body", func(w *providers.Webhook) {
			body := w.Body
			w.Body = nil
			signed(w)
			w.Body = body
		}},
		{"another body", func(w *providers.Webhook) { signed(w); w.Body = []byte("{}") }},
		{"no body", func(w *providers.Webhook) { signed(w); w.Body = nil }},
		{"re-serialised body", func(w *providers.Webhook) {
			signed(w)
			body := h.Reserialise(w.Body)
			if bytes.Equal(body, w.Body) {
				t.Error("Reserialise returned the same bytes, so nothing is tested")
			}
			w.Body = body
		}},
	}
	if !h.Features.Unsigned {
		forgeries = append(forgeries, ofTheBody...)
	}
	for _, f := range forgeries {
		t.Run(f.name, func(t *testing.T) {
			w := h.webhook()
			f.forge(&w)
			h.checkRefused(t, b, w)
		})
	}
}

// checkRefused wants exactly ErrSignature: more would tell a forger something.
func (h *Harness) checkRefused(t *testing.T, b *bench, w providers.Webhook) {
	t.Helper()
	if err := b.Verify(w); err != providers.ErrSignature { //nolint:errorlint // exactly this, wrapped in nothing
		t.Errorf("got %v, want ErrSignature itself", err)
	}
}

func (h *Harness) testParse(t *testing.T) {
	b := h.bench(t, "https://provider.invalid")
	cases := h.parseCases(t)
	names := map[string]bool{}
	for _, c := range cases {
		names[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			got, err := b.Parse(c.Webhook)
			c.check(t, got, err)
			checkInbound(t, c.Webhook, got)

			again, err2 := b.Parse(c.Webhook)
			if !reflect.DeepEqual(again, got) || (err == nil) != (err2 == nil) {
				t.Errorf("the same webhook again: got %+v, want %+v", again, got)
			}
			later := c.Webhook
			later.ReceivedAt = later.ReceivedAt.AddDate(0, 0, 3)
			late, err := b.Parse(later)
			if (err == nil) != (err2 == nil) || !slices.EqualFunc(got, late, sameEvent) {
				t.Errorf("delivered again days later it is another event: got %+v, want %+v", late, got)
			}
		})
	}
	// What every provider must have a case of.
	for _, want := range []string{"parse_text", "parse_status_delivered", "parse_status_failed", "parse_status_unknown", "parse_type_unknown", "parse_foreign"} {
		if !names[want] {
			t.Errorf("the case %s.txtar is missing", want)
		}
	}
	for _, c := range cases {
		got, err := b.Parse(c.Webhook)
		switch c.Name {
		case "parse_status_unknown":
			if err != nil || len(got) != 1 || got[0].Kind != conversations.InboundStatus || got[0].Status != conversations.DeliveryUnknown || got[0].MediaType == "" {
				t.Errorf("%s: got %+v and %v, want one status that is recorded as unknown", c.Name, got, err)
			}
		case "parse_type_unknown":
			if err != nil || len(got) != 1 {
				t.Errorf("%s: got %+v and %v, want one report", c.Name, got, err)
			}
		case "parse_foreign":
			for _, in := range got {
				if err != nil || in.SenderID != "" {
					t.Errorf("%s: got %+v and %v, want no sender", c.Name, in, err)
				}
			}
		}
	}
}

// sameEvent tells whether two reports are one event to the store.
func sameEvent(a, b conversations.Inbound) bool {
	return a.Kind == b.Kind && a.ProviderID == b.ProviderID && a.Status == b.Status && a.SenderID == b.SenderID
}

// checkInbound holds each report to what the domain relies on.
func checkInbound(t testing.TB, w providers.Webhook, got []conversations.Inbound) {
	t.Helper()
	order := []conversations.AddressKind{conversations.AddressPhone, conversations.AddressUser, conversations.AddressParentUser}
	for i, in := range got {
		at := func(format string, args ...any) {
			t.Helper()
			t.Errorf("report %d: "+format, append([]any{i}, args...)...)
		}
		if in.ProviderID == "" {
			at("it has no id")
		}
		if in.At.IsZero() || in.At.After(w.ReceivedAt) || in.At.Location().String() != "UTC" {
			at("its time is %s, received at %s", in.At, w.ReceivedAt)
		}
		last := -1
		for _, a := range in.Addresses {
			place := slices.Index(order, a.Kind)
			if place <= last || a.Value == "" {
				at("its addresses are %v, want each kind once and in order", in.Addresses)
			}
			last = place
			if a.Kind == conversations.AddressPhone {
				if p, ok := providers.Phone(a.Value); !ok || p != a {
					at("%q is no international number", a.Value)
				}
			}
		}
		if len(in.Addresses) == 0 && in.Correlation == "" && in.Kind != conversations.InboundAccount {
			at("it is of kind %s and nobody's", in.Kind)
		}
		if in.Reason != "" {
			if _, ok := conversations.FailureReasons[in.Reason]; !ok {
				at("the reason %q is not of the closed set", in.Reason)
			}
		}
		if (in.Status == conversations.DeliveryFailed) != (in.Reason != "") && in.Kind == conversations.InboundStatus {
			at("its status is %q and its reason %q", in.Status, in.Reason)
		}
		if (in.Kind == conversations.InboundConsent) != (in.Consent != "") {
			at("it is of kind %s with consent %q", in.Kind, in.Consent)
		}
		if (in.Kind == conversations.InboundButton) != (in.Button != "") {
			at("it is of kind %s with button %q", in.Kind, in.Button)
		}
		if in.MediaType != "" && in.MediaType != providers.Word(in.MediaType) {
			at("the word %q is not fit for a log", in.MediaType)
		}
	}
}

// testHostile parses what a provider would not send. Nothing may panic, and
// what is refused is refused as unreadable.
func (h *Harness) testHostile(t *testing.T) {
	b := h.bench(t, "https://provider.invalid")
	genuine := string(h.Webhook.Body)
	bodies := map[string]string{
		"empty":            "",
		"null":             "null",
		"number":           "1",
		"array":            "[[]]",
		"nothing in it":    "{}",
		"cut":              genuine[:len(genuine)/2],
		"not UTF-8":        strings.Replace(genuine, "hello", "\xff\xfe\xc3", 1),
		"NUL":              strings.Replace(genuine, "hello", "\x00", 1),
		"deep array":       strings.Repeat("[", 200_000),
		"deep object":      strings.Repeat(`{"entry":`, 100_000),
		"deep, but closed": `{"object":"whatsapp_business_account","entry":[` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `]}`,
		"keys twice":       `{"entry":[],"entry":[],"MessageSid":"SM1","MessageSid":"SM2"}`,
		"many parameters":  strings.Repeat("a=1&", 50_000),
		"bad escapes":      "MessageSid=%zz&Body=%",
		"semicolons":       "MessageSid=SM1;Body=x",
	}
	for name, body := range bodies {
		for _, contentType := range []string{h.Webhook.Header.Get("Content-Type"), "application/json", "application/x-www-form-urlencoded", "x/y; =", ""} {
			w := h.webhook()
			w.Body = []byte(body)
			w.Header.Set("Content-Type", contentType)
			got, err := b.Parse(w)
			if err != nil && !errors.Is(err, providers.ErrUnreadable) {
				t.Errorf("%s as %q: got %v, want ErrUnreadable in the chain", name, contentType, err)
			}
			if err != nil && len(got) > 0 {
				t.Errorf("%s as %q: got both %d reports and an error", name, contentType, len(got))
			}
			checkInbound(t, w, got)
			h.checkRefused(t, b, w)
		}
	}
}

func (h *Harness) testExtras(t *testing.T) {
	b := h.bench(t, "https://provider.invalid")
	if a, ok := b.Provider.(providers.Answerer); ok {
		if kind, _ := a.Answer(); kind == "" || kind == "text/plain" {
			t.Errorf("the answer to a webhook is %q: some providers send plain text to the customer", kind)
		}
	}
	if s, ok := b.Provider.(providers.Handshaker); ok {
		if body, ok := s.Handshake(providers.Webhook{Method: http.MethodGet, URL: h.WebhookURL}); ok || body != "" {
			t.Errorf("a bare GET is answered with %q", body)
		}
	}
}
