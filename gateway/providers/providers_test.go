package providers_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

func TestPhone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"16505551234", "+16505551234"},
		{"+16505551234", "+16505551234"},
		{"+1 (650) 555-1234", "+16505551234"},
		{"27.82.555.1234", "+27825551234"},
		{"+123456789012345", "+123456789012345"},
		{"+1234567890123456", ""}, // 16 digits
		{"30303", ""},             // a short code
		{"0825551234", ""},        // a national number
		{"1+6505551234", ""},
		{"US.900001", ""},
		{"whatsapp:+16505551234", ""},
		{"+", ""},
		{"", ""},
		{"+1650555123４", ""}, // a digit that is not ASCII
	} {
		got, ok := providers.Phone(c.in)
		if got.Value != c.want || ok != (c.want != "") || ok && got.Kind != conversations.AddressPhone {
			t.Errorf("Phone(%q): got %v and %t, want %q", c.in, got, ok, c.want)
		}
	}
}

func TestCorrelation(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", providers.MaxCorrelation)
	for in, want := range map[string]string{
		"p03_msg.1": "p03_msg.1", "c_07qk2.m_07zr4-12": "c_07qk2.m_07zr4-12", long: long, long + "a": "", "": "", "P03": "", "a b": "", "a'": "", "é": "",
	} {
		if got := providers.Correlation(in); got != want {
			t.Errorf("Correlation(%q): got %q, want %q", in, got, want)
		}
	}
}

func TestWord(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"nfm_reply": "nfm_reply", "APPROVED": "approved", "": "unknown", "<>": "unknown", "a\nb": "ab",
		strings.Repeat("x", 99): strings.Repeat("x", 40),
	} {
		if got := providers.Word(in); got != want {
			t.Errorf("Word(%q): got %q, want %q", in, got, want)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		max  int
		want string
	}{
		{"café 👍", 6, "café 👍"},
		{"café 👍", 4, "café"},
		{"a\x00b\u0085c\nd\te", 99, "abc\nd\te"},
		{"a\xffb", 99, "a\uFFFDb"},
	} {
		if got := providers.Text(c.in, c.max); got != c.want {
			t.Errorf("Text(%q, %d): got %q, want %q", c.in, c.max, got, c.want)
		}
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	if got, want := providers.Digest("a", "b"), "digest:8feb2d64eb74ee5bc402c72ad8689999"; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s...: another id makes an event of last week a new one", got, want)
	}
	seen := map[string][]string{}
	for _, parts := range [][]string{{"ab", "c"}, {"a", "bc"}, {"abc"}, {"abc", ""}, {}, {""}} {
		d := providers.Digest(parts...)
		if other, ok := seen[d]; ok {
			t.Errorf("%q and %q have one id", parts, other)
		}
		seen[d] = parts
	}
}

func TestNotAfter(t *testing.T) {
	t.Parallel()
	received := time.Date(2026, 11, 22, 12, 0, 0, 0, time.FixedZone("", 7200))
	for _, c := range []struct{ t, want time.Time }{
		{received.Add(-time.Hour), received.Add(-time.Hour).UTC()},
		{received.Add(time.Hour), received.UTC()},
	} {
		if got := providers.NotAfter(c.t, received); got != c.want {
			t.Errorf("NotAfter(%s): got %s, want %s", c.t, got, c.want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-7": 0, "0": 0, "soon": 0,
		"Wed, 21 Oct 2026 07:28:00 GMT": 0, "86400": time.Hour, "9223372036854775807": time.Hour, "99999999999999999999": 0,
	} {
		a := providers.Answer{Header: http.Header{"Retry-After": {header}}}
		if got := a.RetryAfter(); got != want {
			t.Errorf("Retry-After %q: got %s, want %s", header, got, want)
		}
	}
}

func TestComplete(t *testing.T) {
	t.Parallel()
	known := []providers.Setting{{Name: "base_url", Default: "https://x.example"}, {Name: "token", Required: true, Secret: true}, {Name: "note"}}
	s, err := providers.Settings{SenderID: "s", Values: map[string]string{"token": "t"}}.Complete(known)
	if err != nil || s.Values["base_url"] != "https://x.example" || s.Values["token"] != "t" || s.Now == nil {
		t.Errorf("got %v and %v, want the defaults filled in", s.Values, err)
	}
	_, err = providers.Settings{Values: map[string]string{"tokn": "secret-value"}}.Complete(known)
	for _, want := range []string{"token is missing", "tokn is not", "no id"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if strings.Contains(err.Error(), "secret-value") {
		t.Errorf("the error holds a value: %v", err)
	}
}

func TestFailureText(t *testing.T) {
	t.Parallel()
	inner := errors.New("no answer")
	f := &providers.Failure{Reason: conversations.FailureProviderError, Code: "http_502", Unknown: true, Err: inner}
	if got, want := f.Error(), "send: outcome unknown: provider_error (code http_502): no answer"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(f, inner) {
		t.Error("the inner error is not in the chain")
	}
}

// TestReasonsAreRetryable walks the closed set: two reasons are, no other.
func TestReasonsAreRetryable(t *testing.T) {
	t.Parallel()
	for r := range conversations.FailureReasons {
		want := r == conversations.FailureRate || r == conversations.FailureProviderError
		if providers.Retryable(r) != want {
			t.Errorf("%s: got %t, want %t", r, !want, want)
		}
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in string
		want     error
	}{
		{"sound", `{"a":[{"b":1},{"b":"2"}],"c":null}`, nil},
		{"twice", `{"a":1,"a":2}`, providers.ErrDuplicate},
		{"twice in another case", `{"a":1,"A":2}`, providers.ErrDuplicate},
		{"twice by escape", `{"a":1,"\u0061":2}`, providers.ErrDuplicate},
		{"twice, deep inside", `[{"x":{"a":1,"a":2}}]`, providers.ErrDuplicate},
		{"the same name in two objects", `[{"a":1},{"a":{"a":2}}]`, nil},
		{"deep", strings.Repeat("[", 33) + strings.Repeat("]", 33), nil},
		{"too deep", strings.Repeat("[", 34) + strings.Repeat("]", 34), providers.ErrDeep},
		{"not UTF-8", "\"\xff\"", providers.ErrEncoding},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var v any
			if err := providers.Decode([]byte(c.in), &v); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	var into struct{ A int }
	if err := providers.Decode([]byte(`{"a":"text"}`), &into); !errors.Is(err, providers.ErrShape) {
		t.Errorf("another type: got %v, want ErrShape", err)
	}
}

func TestObject(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]error{
		`{"a":1,"b":[}`: providers.ErrShape, `{"a":1`: providers.ErrShape, `[]`: providers.ErrShape, ``: providers.ErrShape,
		`{} {}`: providers.ErrShape, `{}}`: providers.ErrShape, `{"a":1,"a":1}`: providers.ErrDuplicate, ` {"a":{"b":1,"b":2}} `: nil,
	} {
		if _, err := providers.Object([]byte(in)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", in, err, want)
		}
	}
}
