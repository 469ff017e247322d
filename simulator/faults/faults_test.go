package faults

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// server answers "done" after counting an effect, passing faults of "api.call".
func server(t *testing.T, set *Set) (url string, effects *atomic.Int32) {
	t.Helper()
	effects = new(atomic.Int32)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault := set.Take("api.call")
		if fault.Before(w, r) {
			return
		}
		effects.Add(1)
		if fault.After(w, r) {
			return
		}
		_, _ = io.WriteString(w, "done")
	}))
	t.Cleanup(func() {
		set.Clear()
		srv.Close()
	})
	return srv.URL, effects
}

func post(ctx context.Context, url string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"a":1}`))
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

func replace(t *testing.T, set *Set, rules ...Rule) {
	t.Helper()
	if err := set.Replace(rules); err != nil {
		t.Fatal(err)
	}
}

// await polls until cond holds; the test's own deadline bounds it.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestStatusTakesItsTurnsAndThenPasses(t *testing.T) {
	t.Parallel()
	set := New()
	url, effects := server(t, set)
	replace(t, set, Rule{Call: "api.*", Do: Status, Status: 502, Body: "<html>", Times: 1, Skip: 1})
	want := []int{200, 502, 200}
	for i, w := range want {
		status, _, err := post(t.Context(), url)
		if err != nil || status != w {
			t.Errorf("call %d: got %d, %v, want %d", i, status, err, w)
		}
	}
	if n := effects.Load(); n != 2 {
		t.Errorf("effects: got %d, want 2", n)
	}
	if got := set.Rules()[0]; got.Taken != 1 || got.Held != 0 || got.ID == "" {
		t.Errorf("rule afterwards: got %+v, want one taken, none held, an id", got)
	}
}

func TestConnectionCuts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		do      string
		effects int32
	}{{DropBefore, 0}, {Drop, 0}, {DropAfter, 1}} {
		t.Run(tc.do, func(t *testing.T) {
			t.Parallel()
			set := New()
			url, effects := server(t, set)
			replace(t, set, Rule{Call: "api.call", Do: tc.do})
			if status, _, err := post(t.Context(), url); err == nil {
				t.Errorf("got status %d, want a cut connection", status)
			}
			if n := effects.Load(); n != tc.effects {
				t.Errorf("effects: got %d, want %d", n, tc.effects)
			}
		})
	}
}

func TestHoldsWaitForRelease(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		do     string
		before int32 // effects while held
	}{{HoldBefore, 0}, {HoldAfter, 1}} {
		t.Run(tc.do, func(t *testing.T) {
			t.Parallel()
			set := New()
			url, effects := server(t, set)
			replace(t, set, Rule{ID: "h", Call: "api.call", Do: tc.do})
			answers := make(chan string, 1)
			go func() {
				_, body, err := post(context.Background(), url)
				answers <- body + errText(err)
			}()
			await(t, "one call held", func() bool { return set.Rules()[0].Held == 1 })
			if n := effects.Load(); n != tc.before {
				t.Errorf("effects while held: got %d, want %d", n, tc.before)
			}
			if !set.Release("h") {
				t.Error("Release: got false, want true")
			}
			if got := <-answers; got != "done" {
				t.Errorf("answer: got %q, want done", got)
			}
			if n := effects.Load(); n != 1 {
				t.Errorf("effects: got %d, want 1", n)
			}
			if _, body, err := post(t.Context(), url); body != "done" || err != nil {
				t.Errorf("a released rule still acts: %q, %v", body, err)
			}
		})
	}
	if New().Release("nobody") {
		t.Error("Release of an unknown rule: got true, want false")
	}
}

func errText(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestTimeoutsEndWithTheClient(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		do      string
		effects int32
	}{{TimeoutBefore, 0}, {TimeoutAfter, 1}, {HoldBefore, 0}} {
		t.Run(tc.do, func(t *testing.T) {
			t.Parallel()
			set := New()
			url, effects := server(t, set)
			replace(t, set, Rule{Call: "api.call", Do: tc.do})
			ctx, giveUp := context.WithCancel(t.Context())
			answers := make(chan error, 1)
			go func() {
				_, _, err := post(ctx, url)
				answers <- err
			}()
			await(t, "one call held", func() bool { return set.Rules()[0].Held == 1 })
			giveUp()
			if err := <-answers; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want the client's own end", err)
			}
			await(t, "the handler let go", func() bool { return set.Rules()[0].Held == 0 })
			if n := effects.Load(); n != tc.effects {
				t.Errorf("effects: got %d, want %d", n, tc.effects)
			}
		})
	}
}

func TestClearEndsDelaysAndTimeouts(t *testing.T) {
	t.Parallel()
	set := New()
	url, _ := server(t, set)
	replace(t, set, Rule{Call: "api.call", Do: TimeoutBefore})
	answers := make(chan error, 1)
	go func() {
		_, _, err := post(context.Background(), url)
		answers <- err
	}()
	await(t, "one call held", func() bool { return set.Rules()[0].Held == 1 })
	set.Clear()
	if err := <-answers; err == nil {
		t.Error("a released timeout answered; want a cut connection")
	}
	if got := set.Rules(); len(got) != 0 {
		t.Errorf("rules after Clear: got %v, want none", got)
	}
}

func TestDelayGoesOn(t *testing.T) {
	t.Parallel()
	set := New()
	url, effects := server(t, set)
	replace(t, set, Rule{Call: "api.call", Do: Delay, Delay: "1ms"})
	if _, body, err := post(t.Context(), url); body != "done" || err != nil {
		t.Errorf("got %q, %v, want done", body, err)
	}
	if effects.Load() != 1 {
		t.Error("a delayed call had no effect")
	}
}

func TestWebhookFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		do    string
		send  int
		hold  bool
		delay time.Duration
	}{
		{Drop, 0, false, 0},
		{Duplicate, 2, false, 0},
		{Reorder, 1, true, 0},
		{Delay, 1, false, 3 * time.Second},
		{HoldBefore, 1, false, 0},
	} {
		set := New()
		replace(t, set, Rule{Call: "meta.webhook.status", Do: tc.do, Delay: "3s", Times: 1})
		send, hold, delay := set.Take("meta.webhook.status").Webhook()
		if send != tc.send || hold != tc.hold || delay != tc.delay {
			t.Errorf("%s: got %d %t %s, want %d %t %s", tc.do, send, hold, delay, tc.send, tc.hold, tc.delay)
		}
		if send, hold, delay := set.Take("meta.webhook.status").Webhook(); send != 1 || hold || delay != 0 {
			t.Errorf("%s, turns used up: got %d %t %s, want 1 false 0s", tc.do, send, hold, delay)
		}
	}
}

func TestWebhookHold(t *testing.T) {
	t.Parallel()
	set := New()
	replace(t, set, Rule{ID: "h", Call: "meta.webhook.*", Do: HoldBefore})
	went := make(chan bool, 1)
	fault := set.Take("meta.webhook.status")
	go func() { went <- fault.Hold(context.Background()) }()
	await(t, "held", func() bool { return set.Rules()[0].Held == 1 })
	set.Release("h")
	if !<-went {
		t.Error("a released webhook: got false, want true")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	replace(t, set, Rule{Call: "meta.webhook.*", Do: HoldBefore})
	if set.Take("meta.webhook.message").Hold(ended) {
		t.Error("after the end: got true, want false")
	}
}

func TestReplaceNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	good := Rule{Call: "a", Do: Drop}
	for _, tc := range []struct {
		name  string
		rule  Rule
		field string
	}{
		{"no call", Rule{Do: Drop}, "call"},
		{"star inside", Rule{Call: "a*b", Do: Drop}, "call"},
		{"no do", Rule{Call: "a"}, "do"},
		{"unknown do", Rule{Call: "a", Do: "explode"}, "do"},
		{"status of a webhook", Rule{Call: "meta.webhook.status", Do: Status, Status: 500}, "do"},
		{"no status", Rule{Call: "a", Do: Status}, "status"},
		{"bad delay", Rule{Call: "a", Do: Delay, Delay: "soon"}, "delay"},
		{"negative times", Rule{Call: "a", Do: Drop, Times: -1}, "times"},
		{"negative skip", Rule{Call: "a", Do: Drop, Skip: -1}, "skip"},
		{"id twice", Rule{ID: "x", Call: "a", Do: Drop}, "id"},
	} {
		set := New()
		replace(t, set, Rule{ID: "kept", Call: "a", Do: Drop})
		first := good
		if tc.field == "id" {
			first.ID = tc.rule.ID
		}
		err := set.Replace([]Rule{first, tc.rule})
		var wrong *RuleError
		if !errors.As(err, &wrong) || wrong.Index != 1 || wrong.Field != tc.field {
			t.Errorf("%s: got %v, want rule 1, field %s", tc.name, err, tc.field)
		}
		if rules := set.Rules(); len(rules) != 1 || rules[0].ID != "kept" {
			t.Errorf("%s: a refused list changed the rules to %v", tc.name, rules)
		}
	}
}

func TestReplaceGivesIDsThatNobodyHas(t *testing.T) {
	t.Parallel()
	set := New()
	replace(t, set, Rule{Call: "a", Do: Drop}, Rule{ID: "rule-1", Call: "b", Do: Drop}, Rule{Call: "c", Do: Drop})
	seen := map[string]bool{}
	for _, r := range set.Rules() {
		if r.ID == "" || seen[r.ID] {
			t.Errorf("id %q: empty or twice", r.ID)
		}
		seen[r.ID] = true
	}
}

func TestCallLog(t *testing.T) {
	t.Parallel()
	set := New()
	for range longestLog + 1 {
		set.Log(Call{Call: "a"})
	}
	calls := set.Calls()
	if len(calls) > longestLog {
		t.Errorf("kept %d calls, want at most %d", len(calls), longestLog)
	}
	last := calls[len(calls)-1]
	if last.N != longestLog+1 || last.At.IsZero() {
		t.Errorf("last call: got %+v, want number %d and a time", last, longestLog+1)
	}
}
