package conversations

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

func TestCheckExtra(t *testing.T) {
	t.Parallel()
	many := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint("name", i)] = "value"
		}
		return m
	}
	for _, tt := range []struct {
		name  string
		extra map[string]string
		field string
	}{
		{"none", nil, ""},
		{"some", map[string]string{"branch": "Paarl", "empty": "", "lines": "one\ntwo"}, ""},
		{"the most", many(20), ""}, {"too many", many(21), "extra"},
		{"a long name", map[string]string{strings.Repeat("é", 40): "x"}, ""}, {"too long a name", map[string]string{strings.Repeat("é", 41): "x"}, "extra"},
		{"no name", map[string]string{"": "x"}, "extra"}, {"a line break in a name", map[string]string{"a\nb": "x"}, "extra"},
		{"a long value", map[string]string{"a": strings.Repeat("é", 500)}, ""}, {"too long a value", map[string]string{"a": strings.Repeat("x", 501)}, "extra.a"},
	} {
		err := CheckExtra(tt.extra)
		var field string
		if e, ok := err.(*Error); ok {
			field = e.Field
		}
		if field != tt.field || (err == nil) != (tt.field == "") {
			t.Errorf("%s: %v, want %q refused", tt.name, err, tt.field)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("%s: the error repeats too much: %v", tt.name, err)
		}
	}
}

func TestExtraIsKept(t *testing.T) {
	t.Parallel()
	s := open(t, embeddedOptions(t))
	given := map[string]string{"branch": "Paarl"}
	c := asked("1042", "082 123 4567")
	c.Extra = given
	r := made(t, s, c)
	sealed, err := s.Seal(t.Context(), SealedOrder{MerchantID: "acme", Order: anOrder("1043"), Extra: given}, Once{})
	if err != nil {
		t.Fatal(err)
	}
	given["branch"] = "Wellington" // the caller's own
	read, err := s.Request(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Sealed(t.Context(), "acme", sealed.ID)
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]map[string]string{"created": r.Extra, "read": read.Extra, "sealed": again.Extra} {
		if !maps.Equal(got, map[string]string{"branch": "Paarl"}) {
			t.Errorf("%s: %v", what, got)
		}
	}
	bad := map[string]string{"a": strings.Repeat("x", 501)}
	c = asked("1044", "082 123 4567")
	c.Extra = bad
	if _, err := s.Create(t.Context(), c); CodeOf(err) != CodeInvalid {
		t.Errorf("create: %v", err)
	}
	if _, err := s.Seal(t.Context(), SealedOrder{MerchantID: "acme", Order: anOrder("1044"), Extra: bad}, Once{}); CodeOf(err) != CodeInvalid {
		t.Errorf("seal: %v", err)
	}
}
