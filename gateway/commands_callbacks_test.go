package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/conversations/redistest"
)

// TestCallbackCommands lists, redelivers, replays and switches.
func TestCallbackCommands(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	prefix := fmt.Sprintf("told%d", time.Now().UnixNano()%1e12)
	file := filepath.Join(t.TempDir(), "paythread.yaml")
	if err := os.WriteFile(file, printExample(), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"PAYTHREAD_REDIS_URL=" + server.URL(), "PAYTHREAD_REDIS_PREFIX=" + prefix, "PAYTHREAD_REDIS_PARTITIONS=2"}
	store, err := conversations.Connect(t.Context(), conversations.Options{Addresses: []string{server.Addr}, Prefix: prefix, Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	queue := conversations.NewCallbacks(store, conversations.CallbackOptions{})
	run := func(want int, args ...string) string {
		t.Helper()
		code, out, errs := execute(t, env, append([]string{"callbacks", args[0], "--config", file}, args[1:]...)...)
		if code != want {
			t.Fatalf("%v: exit code %d, want %d\n%s%s", args, code, want, out, errs)
		}
		return out + errs
	}
	if out := run(exitOK, "list"); !strings.Contains(out, "0 callback endpoints") {
		t.Errorf("an empty list: %s", out)
	}
	if err := queue.Configure(t.Context(), "acme", []conversations.CallbackEndpoint{{ID: "erp", URL: "https://erp.example.com/secret-path"}}); err != nil {
		t.Fatal(err)
	}
	e, err := queue.Endpoint(t.Context(), "acme", "erp")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"evt_1", "evt_2"} {
		event := conversations.CallbackEvent{ID: id, Type: callbackTest, At: store.Now(), Body: []byte("{}")}
		if _, err := queue.Queue(t.Context(), "acme", "erp", event); err != nil {
			t.Fatal(err)
		}
	}
	settle := func() int {
		t.Helper()
		taken, err := queue.Take(t.Context(), e, 10, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range taken {
			if _, err := queue.Record(t.Context(), e, d, conversations.CallbackResult{Delivered: d.ID == "evt_1", Status: 418, Hopeless: true, Error: "status"}); err != nil {
				t.Fatal(err)
			}
		}
		return len(taken)
	}
	// A command measures Redis's clock for itself: what it has queued may be due
	// only in a moment by ours.
	settles := func(want int) {
		t.Helper()
		settled := 0
		eventually(t, fmt.Sprintf("%d are due", want), func() bool { settled += settle(); return settled >= want })
		if settled != want {
			t.Errorf("%d are due, want %d", settled, want)
		}
	}
	settles(2)
	if out := run(exitOK, "list"); !strings.Contains(out, "acme/erp") || !strings.Contains(out, "active") || !strings.Contains(out, "erp.example.com") || strings.Contains(out, "secret") {
		t.Errorf("list: %s", out)
	}
	if out := run(exitOK, "deliveries", "acme/erp"); !strings.Contains(out, "evt_1") || !strings.Contains(out, "evt_2") || !strings.Contains(out, "418") || !strings.Contains(out, "2 callbacks") {
		t.Errorf("deliveries: %s", out)
	}
	if out := run(exitOK, "deliveries", "--state", "given_up", "acme/erp"); strings.Contains(out, "evt_1") || !strings.Contains(out, "evt_2") {
		t.Errorf("those that were given up: %s", out)
	}
	if out := run(exitFailed, "redeliver", "acme/erp", "evt_1", "evt_9"); !strings.Contains(out, "evt_1 queued") || !strings.Contains(out, "evt_9: there is no such delivery") {
		t.Errorf("redeliver: %s", out)
	}
	settles(1)
	if out := run(exitOK, "replay", "--since", "1h", "--only-failed", "acme/erp"); !strings.Contains(out, "1 callback queued") {
		t.Errorf("replay of what failed: %s", out)
	}
	settles(1)
	since := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	if out := run(exitOK, "replay", "--since", since, "acme/erp"); !strings.Contains(out, "2 callbacks queued") {
		t.Errorf("replay: %s", out)
	}
	if out := run(exitOK, "disable", "acme/erp"); !strings.Contains(out, "acme/erp is disabled") {
		t.Errorf("disable: %s", out)
	}
	if n := settle(); n != 0 {
		t.Errorf("%d are due where it is switched off", n)
	}
	if out := run(exitOK, "list"); !strings.Contains(out, "disabled (by_merchant)") {
		t.Errorf("list: %s", out)
	}
	run(exitOK, "enable", "acme/erp")
	settles(2)
	for range 2 {
		if out := run(exitOK, "reset"); !strings.Contains(out, "1 merchant") {
			t.Errorf("reset: %s", out)
		}
	}
	if out := run(exitOK, "deliveries", "acme/erp"); strings.Count(out, "evt_acme_reset_") != 1 {
		t.Errorf("two resets at the same time: %s", out)
	}
	for _, args := range [][]string{{"reset", "acme/erp"}, {"deliveries"}, {"deliveries", "erp"}, {"redeliver", "acme/erp"}, {"replay", "acme/erp"}, {"replay", "--since", "yesterday", "acme/erp"}, {"enable"}, {"list", "x"},
		{"deliveries", "acme/erp", "--state", "failed"}, {"deliveries", "--state", "broken", "acme/erp"},
		{"replay", "--since", "1h", "acme/erp", "--only-failed"}, {"enable", "acme/erp", "acme/other"}, {"redeliver", "acme/erp", "--all"},
	} {
		run(exitUsage, args...)
	}
	run(exitFailed, "enable", "acme/none")
	run(exitFailed, "deliveries", "none/erp")
}

func TestConfigCallbacks(t *testing.T) {
	t.Parallel()
	c := base(t)
	if got := c.Callbacks.options(); got.Keep != 30*day || got.DisableAfter != 3*day || len(got.Timetable) != 13 || got.Timetable[12] != 24*time.Hour || c.Callbacks.AllowPrivate {
		t.Errorf("callbacks %+v", c.Callbacks)
	}
	m, _ := c.Merchant("acme")
	if len(m.Callbacks) != 1 || m.Callbacks[0].ID != "erp" || len(m.Callbacks[0].secrets()) != 1 {
		t.Errorf("the example's endpoints are %v", m.Callbacks)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", m.Callbacks[0], *m.Callbacks[0], *m.Callbacks[0], m.Callbacks); strings.Contains(text, "whsec_") {
		t.Errorf("a secret is printed: %s", text)
	}
	url, secret := `"https://erp.acme.example/paythread"`, m.Callbacks[0].Secret.Reveal()
	if !strings.Contains(string(printExample()), url) {
		url = strings.Trim(url, `"`)
	}
	for name, tt := range map[string]struct {
		old, new, want string
	}{
		"http":               {url, "http://erp.acme.example/", "merchants[0].callbacks[0].url: is wrong, want https://"},
		"private":            {url, "https://10.0.0.1/", "merchants[0].callbacks[0].url: is wrong, want a host on the public internet"},
		"a short secret":     {secret, "whsec_c2hvcnQ=", "merchants[0].callbacks[0].secret: want whsec_ and 24 to 64 random bytes in base64"},
		"the example's own":  {"environment: sandbox", "environment: production", "merchants[0].callbacks[0].secret: is still the placeholder"},
		"a wrong event type": {secret, secret + "\n        events: [Paid]", "events[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := strings.Replace(string(printExample()), tt.old, tt.new, 1)
			_, err := parseConfig("config.yaml", []byte(data), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q in it", err, tt.want)
			}
		})
	}
	private := strings.Replace(strings.Replace(string(printExample()), "allow_private: false", "allow_private: true", 1), url, "http://10.0.0.1/", 1)
	if _, err := parseConfig("config.yaml", []byte(private), nil); err != nil {
		t.Errorf("with allow_private: %v", err)
	}
}
