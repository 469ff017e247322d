package meta

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"paythread/gateway/providers"
	"paythread/gateway/providers/providertest"
)

// newParser is a provider that parses for PN1 of WABA1, beside PN2.
func newParser(t testing.TB) *Provider {
	t.Helper()
	p, err := New(providers.Settings{
		SenderID: "sender_1", Siblings: map[string]string{"PN1": "sender_1", "PN2": "sender_2"},
		Values: map[string]string{
			"phone_number_id": "PN1", "waba_id": "WABA1", "access_token": "token", "app_secret": "secret", "verify_token": "verify",
		},
	}, http.DefaultClient, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sameBothWays holds the ways to read a body against each other, and tells
// whether it was read in one go. What is plain must be sound as well.
func sameBothWays(t *testing.T, p *Provider, body []byte) bool {
	t.Helper()
	if plain(body) && json.Valid(body) {
		var v any
		if err := providers.Decode(body, &v); err != nil {
			t.Errorf("plain, and not sound: %v", err)
		}
	}
	layers := &batch{p: p, receivedAt: providertest.ReceivedAt}
	layersErr := layers.layered(body, layers.entry)
	mixed := &batch{p: p, receivedAt: providertest.ReceivedAt}
	mixedErr := mixed.layered(body, mixed.eitherWay)
	if fmt.Sprint(layersErr) != fmt.Sprint(mixedErr) {
		t.Errorf("entry by entry: %v, in layers: %v", mixedErr, layersErr)
	}
	want := layers.end(body)
	if got := mixed.end(body); !reflect.DeepEqual(got, want) || mixed.bad != layers.bad {
		t.Errorf("entry by entry: %d left out, and\n%+v\nin layers: %d left out, and\n%+v", mixed.bad, got, layers.bad, want)
	}
	decoded, ok := decodeWhole(body)
	if !ok {
		return false
	}
	if layersErr != nil {
		t.Fatalf("read in one go, and in layers it is %v", layersErr)
	}
	one := &batch{p: p, receivedAt: providertest.ReceivedAt}
	one.whole(decoded)
	if got := one.end(body); !reflect.DeepEqual(got, want) || one.bad != layers.bad {
		t.Errorf("in one go: %d left out, and\n%+v\nin layers: %d left out, and\n%+v", one.bad, got, layers.bad, want)
	}
	return true
}

// TestDecodeBothWays reads every case of testdata both ways, and says of which
// the fast way must not shy away.
func TestDecodeBothWays(t *testing.T) {
	t.Parallel()
	p := newParser(t)
	plainCases := map[string]bool{
		"parse_text": true, "parse_statuses": true, "parse_status_delivered": true, "parse_status_failed": true,
		"parse_interactive": true, "parse_media": true, "parse_button": true, "parse_system": true, "parse_batch": true,
		"parse_malformed_elements": false, "parse_malformed_layers": false, "parse_account": false, "parse_echoes": false,
	}
	for _, c := range providertest.ParseCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			whole := sameBothWays(t, p, c.Webhook.Body)
			if want, ok := plainCases[c.Name]; ok && whole != want {
				t.Errorf("read in one go: %t, want %t", whole, want)
			}
		})
	}
}

// TestPlain names what the fast way leaves to the slow one, each in a body that
// both could read.
func TestPlain(t *testing.T) {
	t.Parallel()
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	manyNames := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"n%d":%d,`, i, i)
		}
		return "{" + b.String() + `"last":1}`
	}
	for _, c := range []struct {
		name, body string
		want       bool
	}{
		{"nothing", `{}`, true},
		{"values", `{"a":"B\"c\\","d":[1,-2.5e3,true,null,{"a":"a"},{"a":"a"}],"e":{"a":{"a":1}}}`, true},
		{"an escaped slash at the end", `{"a":"x\\","b":"y"}`, true},
		{"a value like a name that was there", `{"a":"b","b":"a"}`, true},
		{"a name again in a list's next object", `[{"a":1},{"a":2}]`, true},
		{"a name twice", `{"a":1,"a":2}`, false},
		{"a name twice, apart", `{"a":1,"b":{"c":[1,2]},"a":2}`, false},
		{"a name twice, deep within", `{"x":[{"y":{"a":1,"b":2,"a":3}}]}`, false},
		{"a name with a capital letter", `{"From":1}`, false},
		{"an escaped name", `{"\u0066rom":1}`, false},
		{"a name that folds to an ASCII one", `{"ſtatus":1}`, false},
		{"an empty name", `{"":1}`, true},
		{"not UTF-8", "{\"a\":\"\xff\"}", false},
		{"as deep as may be", nested(plainDepth), true},
		{"deeper", nested(plainDepth + 1), false},
		{"as many names as may be", manyNames(plainNames - 1), true},
		{"more names", manyNames(plainNames), false},
		{"a string without an end", `{"a":"b`, false},
		{"a string without an end after a slash", `{"a":"b\"`, false},
		{"more ends than beginnings", `]`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := plain([]byte(c.body)); got != c.want {
				t.Errorf("%.80s: got %t, want %t", c.body, got, c.want)
			}
		})
	}
}

// FuzzBothWays changes bodies until the two ways differ.
func FuzzBothWays(f *testing.F) {
	p := newParser(f)
	for _, c := range providertest.ParseCases(f) {
		var small bytes.Buffer
		if json.Compact(&small, c.Webhook.Body) == nil {
			f.Add(small.Bytes())
		}
		f.Add(c.Webhook.Body)
	}
	for _, value := range []string{`null`, `[]`, `{}`, `"x"`, `{"metadata":null}`, `{"metadata":{},"errors":[]}`,
		`{"metadata":{"phone_number_id":7},"messages":[null],"statuses":[null],"contacts":[null]}`} {
		f.Add([]byte(`{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"messages","value":` + value + `}]}]}`))
	}
	f.Fuzz(func(t *testing.T, body []byte) { sameBothWays(t, p, body) })
}

// Bodies as they come: a status, a message, and the largest batch that is
// documented, 1,000 updates and 3 MB.
func oneStatus() []byte {
	return []byte(`{"object":"whatsapp_business_account","entry":[{"id":"WABA1","changes":[{"value":{"messaging_product":"whatsapp",` +
		`"metadata":{"display_phone_number":"15550783881","phone_number_id":"PN1"},"contacts":[{"profile":{"name":"Zo\u00eb"},"wa_id":"16505551234","user_id":"US.900001"}],` +
		`"statuses":[{"id":"wamid.HBgLMTY1MDU1NTEyMzQVAgARGBI5QTNDQTVCM0Q0Q0Q2RTY3RTcA","status":"delivered","timestamp":"1781866805","recipient_id":"16505551234",` +
		`"recipient_user_id":"US.900001","biz_opaque_callback_data":"c_03_0123456789ab.m_03_0123456789abcdef",` +
		`"pricing":{"billable":true,"pricing_model":"PMP","type":"regular","category":"utility"}}]},"field":"messages"}]}]}`)
}

func oneText() []byte {
	return []byte(`{"object":"whatsapp_business_account","entry":[{"id":"WABA1","changes":[{"value":{"messaging_product":"whatsapp",` +
		`"metadata":{"display_phone_number":"15550783881","phone_number_id":"PN1"},"contacts":[{"profile":{"name":"Zo\u00eb"},"wa_id":"16505551234","user_id":"US.900001"}],` +
		`"messages":[{"from":"16505551234","from_user_id":"US.900001","id":"wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQzQTRBNjU5OUFFRTAzODEwMTQ0RgA=",` +
		`"timestamp":"1781866800","type":"text","text":{"body":"hello caf\u00e9 \ud83d\udc4d a\/b, is my order on its way?"}}]},"field":"messages"}]}]}`)
}

func largestBatch() []byte {
	const updates = 1000
	filler := strings.Repeat("x", 2700)
	var b bytes.Buffer
	b.WriteString(`{"object":"whatsapp_business_account","entry":[`)
	for i := range updates {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"WABA%d","changes":[{"field":"messages","value":{"messaging_product":"whatsapp","metadata":{"phone_number_id":"PN%d"},`+
			`"contacts":[{"profile":{"name":"Ana"},"wa_id":"1650555%04d"}],`+
			`"messages":[{"id":"wamid.%d","from":"1650555%04d","timestamp":"1781866800","type":"text","text":{"body":"%s"}}]}}]}`, i%3, i%3, i, i, i, filler)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// BenchmarkParse measures Parse, and beside it what the same body costs when it
// is taken apart layer by layer:
//
//	go test -run '^$' -bench Parse ./gateway/providers/meta
func BenchmarkParse(b *testing.B) {
	p := newParser(b)
	for _, c := range []struct {
		name string
		body []byte
	}{{"status", oneStatus()}, {"text", oneText()}, {"batch of 1000, 3 MB", largestBatch()}} {
		if _, ok := decodeWhole(c.body); !ok {
			b.Fatalf("%s is not read in one go", c.name)
		}
		b.Run(c.name+"/in one go", func(b *testing.B) {
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				if got, err := p.Parse(providers.Webhook{Body: c.body, ReceivedAt: providertest.ReceivedAt}); err != nil || len(got) == 0 {
					b.Fatalf("got %d reports and %v", len(got), err)
				}
			}
		})
		b.Run(c.name+"/in layers", func(b *testing.B) {
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				in := &batch{p: p, receivedAt: providertest.ReceivedAt}
				if err := in.layered(c.body, in.entry); err != nil || len(in.end(c.body)) == 0 {
					b.Fatalf("got %d reports and %v", len(in.out), err)
				}
			}
		})
	}
}

// BenchmarkParseBad measures the largest batch with one element in it that
// cannot be read, so that the body is taken apart, and one entry wholly so.
func BenchmarkParseBad(b *testing.B) {
	p := newParser(b)
	body := bytes.Replace(largestBatch(), []byte(`"id":"wamid.500"`), []byte(`"id":"wamid.500","id":"twice"`), 1)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if got, err := p.Parse(providers.Webhook{Body: body, ReceivedAt: providertest.ReceivedAt}); err != nil || len(got) != 1000 {
			b.Fatalf("got %d reports and %v", len(got), err)
		}
	}
}

func TestMoment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want time.Time
		ok   bool
	}{
		{"1781866800", time.Date(2026, 6, 19, 11, 0, 0, 0, time.UTC), true},
		{"1781866800123", time.Date(2026, 6, 19, 11, 0, 0, 123e6, time.UTC), true},
		{"9999999999", time.Date(2286, 11, 20, 17, 46, 39, 0, time.UTC), true},
		{"", time.Time{}, false},
		{"0", time.Time{}, false},
		{"-5", time.Time{}, false},
		{"1.5", time.Time{}, false},
		{"tomorrow", time.Time{}, false},
	} {
		if got, ok := moment(c.text); !got.Equal(c.want) || ok != c.ok {
			t.Errorf("%q: got %s and %t, want %s and %t", c.text, got, ok, c.want, c.ok)
		}
	}
}
