package faults

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestShareIsSpreadEvenly(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		rule Rule
		want string
	}{
		{"a third", Rule{Share: 1.0 / 3}, "..x..x..x"},
		{"all", Rule{Share: 1}, "xxxxxxxxx"},
		{"half, after two", Rule{Share: 0.5, Skip: 2}, "...x.x.x."},
		{"half, twice", Rule{Share: 0.5, Times: 2}, ".x.x....."},
		{"two thirds", Rule{Share: 0.7}, ".xx.xx.xx"},
	} {
		set := New()
		tc.rule.Call, tc.rule.Do = "a", Drop
		replace(t, set, tc.rule)
		var got strings.Builder
		for range 9 {
			if send, _, _ := set.Take("a").Webhook(); send == 0 {
				got.WriteByte('x')
			} else {
				got.WriteByte('.')
			}
		}
		if got.String() != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, &got, tc.want)
		}
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	set := New()
	replace(t, set,
		Rule{Call: "a", Do: Refuse, Code: new(0), Status: 503, Headers: map[string]string{"Retry-After": "7"}},
		Rule{Call: "b", Do: Fail, Code: new(30007), After: "sent", Ending: "failed"})

	fault := set.Take("a")
	if code, status, ok := fault.Refusal(); code != 0 || status != 503 || !ok {
		t.Errorf("refusal: got %d, %d, %t; code 0 is a code", code, status, ok)
	}
	if _, ok := fault.Failure(); ok {
		t.Error("a refused call also fails later")
	}
	header := http.Header{}
	if fault.SetHeaders(header); header.Get("Retry-After") != "7" {
		t.Errorf("headers: got %v", header)
	}

	fault = set.Take("b")
	if got, ok := fault.Failure(); !ok || got != (Failure{30007, "sent", "failed"}) {
		t.Errorf("failure: got %+v, %t", got, ok)
	}
	if _, _, ok := fault.Refusal(); ok {
		t.Error("a message that fails later is also refused")
	}
	w := httptest.NewRecorder()
	if fault.Before(w, nil) || fault.After(w, nil) {
		t.Error("a message that fails later was not accepted first")
	}

	var none Fault
	if _, _, ok := none.Refusal(); ok {
		t.Error("the zero fault refuses")
	}
	if _, ok := none.Failure(); ok {
		t.Error("the zero fault fails")
	}
	none.SetHeaders(header)
}

func TestRefuseOfACompanyWithoutCodes(t *testing.T) {
	t.Parallel()
	set := New()
	url, effects := server(t, set)
	replace(t, set, Rule{Call: "api.call", Do: Refuse, Code: new(7)})
	if status, body, err := post(t.Context(), url); status != 400 || body != `{"code":7}` || err != nil || effects.Load() != 0 {
		t.Errorf("got %d %s, %v, effects %d; want a refusal all the same", status, body, err, effects.Load())
	}
}

func TestStatusHeaders(t *testing.T) {
	t.Parallel()
	set := New()
	url, _ := server(t, set)
	replace(t, set, Rule{Call: "api.call", Do: Status, Status: 429, Headers: map[string]string{"Retry-After": "3"}})
	res, err := http.Post(url, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 429 || res.Header.Get("Retry-After") != "3" {
		t.Errorf("got %d with %v", res.StatusCode, res.Header)
	}
}

func TestReplaceChecksCodes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		rule  Rule
		field string
	}{
		{"refuse without code", Rule{Do: Refuse}, "code"},
		{"fail without code", Rule{Do: Fail}, "code"},
		{"code of a drop", Rule{Do: Drop, Code: new(1)}, "code"},
		{"refusal that is no error", Rule{Do: Refuse, Code: new(1), Status: 200}, "status"},
		{"after of a refusal", Rule{Do: Refuse, Code: new(1), After: "sent"}, "after"},
		{"after something else", Rule{Do: Fail, Code: new(1), After: "read"}, "after"},
		{"other ending", Rule{Do: Fail, Code: new(1), Ending: "lost"}, "ending"},
		{"headers of a drop", Rule{Do: Drop, Headers: map[string]string{"A": "b"}}, "headers"},
		{"share too large", Rule{Do: Drop, Share: 1.1}, "share"},
		{"negative share", Rule{Do: Drop, Share: -0.1}, "share"},
	} {
		tc.rule.Call = "a"
		err := New().Replace([]Rule{tc.rule})
		var wrong *RuleError
		if !errors.As(err, &wrong) || wrong.Field != tc.field {
			t.Errorf("%s: got %v, want field %s", tc.name, err, tc.field)
		}
	}
	var wrong *RuleError
	if err := New().Replace([]Rule{{Call: "meta.webhook.status", Do: Fail, Code: new(1)}}); !errors.As(err, &wrong) || wrong.Field != "do" {
		t.Errorf("fail of a webhook: got %v, want field do", err)
	}
}

func TestCarryTakesNoSecondFault(t *testing.T) {
	t.Parallel()
	set := New()
	replace(t, set, Rule{Call: "x", Do: Duplicate})
	c := set.NewCourier()
	defer c.Close()
	var got posted
	c.Carry("line", set.Take("x"), got.post("a"))
	await(t, "twice", func() bool { return got.String() == "a a" })
	if n := set.Rules()[0].Taken; n != 1 {
		t.Errorf("taken: got %d, want 1", n)
	}
	if set.Take("x").Holds() {
		t.Error("a duplicate holds")
	}
}

func TestControl(t *testing.T) {
	t.Parallel()
	type in struct {
		Name string `json:"name"`
		N    int    `json:"n"`
	}
	srv := httptest.NewServer(Control(func(_ *http.Request, in in) (any, error) {
		switch in.Name {
		case "":
			return nil, nil
		case "nobody":
			return nil, Missing("name", "is nobody")
		case "wrong":
			return nil, Wrong("name", "is %s", "wrong")
		case "broken":
			return nil, io.ErrUnexpectedEOF
		}
		return map[string]int{"n": in.N}, nil
	}))
	defer srv.Close()
	for _, tc := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"name":"a","n":3}`, 200, `{"n":3}`},
		{``, 204, ``},
		{`{"name":"nobody"}`, 404, `"field":"name"`},
		{`{"name":"wrong"}`, 400, `"detail":"name is wrong"`},
		{`{"name":"broken"}`, 500, `"status":500`},
		{`{"other":1}`, 400, `"field":"other"`},
		{`{"n":"x"}`, 400, `"field":"n"`},
		{`[]`, 400, `"field":"body"`},
		{`{`, 400, `"field":"body"`},
		{`{} {}`, 400, `"field":"body"`},
	} {
		status, answer, err := sendBody(t.Context(), srv.URL, tc.body)
		if err != nil || status != tc.status || !strings.Contains(answer, tc.want) {
			t.Errorf("%s: got %d %s, %v, want %d with %s", tc.body, status, answer, err, tc.status, tc.want)
		}
	}
}

func sendBody(ctx context.Context, url, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func TestOutcomesAreNamedByTheCompany(t *testing.T) {
	t.Parallel()
	set := New()
	set.Name("a.pay", func(outcome string) bool { return outcome == "BROKE" || outcome == "DOWN" })
	set.Name("a.void", func(outcome string) bool { return outcome == "DOWN" })
	replace(t, set, Rule{Call: "a.pay", Do: Refuse, Outcome: "BROKE", Headers: map[string]string{"Retry-After": "7"}})
	fault := set.Take("a.pay")
	if name, ok := fault.Outcome(); name != "BROKE" || !ok {
		t.Errorf("outcome: got %q, %t", name, ok)
	}
	if _, _, ok := fault.Refusal(); ok {
		t.Error("a named outcome has a code, too")
	}
	header := http.Header{}
	if fault.SetHeaders(header); header.Get("Retry-After") != "7" {
		t.Errorf("headers: got %v", header)
	}
	if _, ok := (Fault{}).Outcome(); ok || (Fault{}).Forges() {
		t.Error("the zero fault does something")
	}
	replace(t, set, Rule{Call: "a.webhook.status", Do: Forge}, Rule{Call: "a.*", Do: Refuse, Outcome: "DOWN"})
	if !set.Take("a.webhook.status").Forges() || set.Take("a.void").Forges() {
		t.Error("what is forged is not the webhook")
	}
	for field, rule := range map[string]Rule{
		"outcome": {Call: "a.*", Do: Refuse, Outcome: "BROKE"},                // a.void does not know it
		"status":  {Call: "a.pay", Do: Refuse, Outcome: "DOWN", Status: 500},  // it has one of its own
		"code":    {Call: "a.pay", Do: Refuse, Outcome: "DOWN", Code: new(1)}, // the same
		"do":      {Call: "a.pay", Do: Forge},                                 // not a webhook
		"other":   {Call: "b.pay", Do: Refuse, Outcome: "DOWN"},               // nobody gave names
		"delay":   {Call: "a.pay", Do: Delay, Delay: "1s", Outcome: "DOWN"},   // not a refusal
		"missing": {Call: "a.pay", Do: Refuse, Headers: map[string]string{}},  // neither code nor outcome
	} {
		if err := set.Replace([]Rule{rule}); err == nil {
			t.Errorf("%s: %+v was taken", field, rule)
		}
	}
}
