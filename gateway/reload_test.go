package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"paythread/checkout"
	"paythread/conversations"
)

// reloadBench is a gateway that was built and not started, and the file that it
// was configured by.
type reloadBench struct {
	t    *testing.T
	dir  string
	app  *App
	text string // of the file
}

// benchSecond is a second merchant, as the file's lines.
const benchSecond = `
  - id: zeta
    name: Zeta
    public_url: http://localhost:7003
    environment: sandbox
    country: ZA
    api_keys: [{name: shop, secret: zeta-key-with-24-characters-or-more}]
    senders:
      - {id: zeta-sms, provider: twilio, channel: sms, base_url: "http://localhost:7002", account_sid: AC0123456789abcdef0123456789abcdef, auth_token: zeta-token, from: "+27600000002"}
    platform: {name: unified_checkout, base_url: "http://localhost:7002", merchant_id: zeta_mid, key_id: zeta, shared_secret: c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=}
`

func newReloadBench(t *testing.T) *reloadBench {
	t.Helper()
	b := &reloadBench{t: t, dir: t.TempDir()}
	if _, err := checkout.NewKeyFile(filepath.Join(b.dir, checkout.CurrentKeyFile)); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	err := demoTemplate.Execute(&text, map[string]any{
		"Listen": "127.0.0.1:0", "AdminListen": "127.0.0.1:0", "LogLevel": "info", "Redis": onEmbedded(t).Addresses[0], "KeysDir": b.dir,
		"PublicURL": "http://localhost:7001", "SimulatorURL": "http://localhost:7002", "APIKey": demoAPIKey,
		"Meta": demoMeta, "Twilio": demoTwilio, "TwilioNumber": demoTwilioPhone, "CyberSource": demoCyberSource,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.text = text.String()
	if b.app, err = newApp(t.Context(), b.parse(b.text), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.app.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return b
}

func (b *reloadBench) parse(text string) *Config {
	b.t.Helper()
	c, err := parseConfig(filepath.Join(b.dir, "paythread.yaml"), []byte(text), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// change takes over the file with some words replaced: old, new, old, new.
func (b *reloadBench) change(words ...string) reloaded {
	b.t.Helper()
	for i := 0; i < len(words); i += 2 {
		if !strings.Contains(b.text, words[i]) {
			b.t.Fatalf("%q is not in the file", words[i])
		}
	}
	done, err := b.app.reload(b.parse(strings.NewReplacer(words...).Replace(b.text)))
	if err != nil {
		b.t.Fatal(err)
	}
	return done
}

// status calls the public listener.
func (b *reloadBench) status(method, path, key string) int {
	b.t.Helper()
	req := httptest.NewRequest(method, path, nil)
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	answer, err := b.app.public.Test(req, -1)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = answer.Body.Close() // nothing is read of it
	return answer.StatusCode
}

func TestReloadKeepsWhatIsAsItWas(t *testing.T) {
	t.Parallel()
	b := newReloadBench(t)
	before := b.app.live.Load()
	done := b.change("Acme Energy", "Acme Power", demoMeta.AccessToken, "another-access-token")
	now := b.app.live.Load()
	if !slices.Equal(done.Merchants, []string{"acme"}) || !slices.Equal(done.Senders, []string{"acme-wa"}) || len(done.Restart) > 0 {
		t.Errorf("changed: %+v", done)
	}
	if now.outgoing["acme-sms"] != before.outgoing["acme-sms"] {
		t.Error("a sender that was not changed has lost its circuit breaker")
	}
	if now.served["acme"] != before.served["acme"] {
		t.Error("a platform that was not changed was made anew")
	}
	if now.outgoing["acme-wa"] == before.outgoing["acme-wa"] || now.senders["acme-wa"].Settings["access_token"] != "another-access-token" {
		t.Error("a sender with a new token still has the old one")
	}
	if m, _ := b.app.store.Merchant("acme"); m.Name != "Acme Power" {
		t.Errorf("the store knows the merchant as %q", m.Name)
	}
	// Who began with the old configuration goes on with it.
	if before.config.Merchants[0].Name != "Acme Energy" || before.senders["acme-wa"].Settings["access_token"] != demoMeta.AccessToken {
		t.Error("the configuration before was changed")
	}
	if done := b.change(); len(done.Merchants) != 1 || len(done.Senders) != 1 {
		t.Errorf("changed back: %+v", done)
	}
}

func TestReloadTakesMerchantsInAndOut(t *testing.T) {
	t.Parallel()
	b := newReloadBench(t)
	const key = "zeta-key-with-24-characters-or-more"
	look := func(when string, api, hook int) {
		t.Helper()
		if got := b.status("GET", "/v1/payment-requests", key); got != api {
			t.Errorf("%s: the merchant's key is answered %d, want %d", when, got, api)
		}
		if got := b.status("POST", "/webhooks/zeta-sms", ""); got != hook {
			t.Errorf("%s: its sender's webhook is answered %d, want %d", when, got, hook)
		}
	}
	look("before", 401, 404)
	alone := b.text
	b.text += benchSecond
	b.change()
	look("added", 200, 403)
	added := b.app.live.Load()
	b.text = alone
	if done := b.change(); !slices.Equal(done.Merchants, []string{"zeta"}) || !slices.Equal(done.Senders, []string{"zeta-sms"}) {
		t.Errorf("changed: %+v", done)
	}
	look("taken out", 401, 404)
	gone := b.app.live.Load()
	if gone.served["zeta"] != nil || gone.outgoing["zeta-sms"] != nil {
		t.Error("it is still served")
	}
	// Its money may be under way.
	if gone.money["zeta"] == nil || gone.money["zeta"] != added.money["zeta"] {
		t.Error("its platform cannot be asked any more")
	}
	if m, ok := b.app.store.Merchant("zeta"); !ok || m.Name != "Zeta" {
		t.Error("the store does not know it any more")
	}
	b.change("Acme Energy", "Acme Power") // and once more
	if b.app.live.Load().money["zeta"] != added.money["zeta"] {
		t.Error("after a further change its platform cannot be asked any more")
	}
	b.text += benchSecond
	b.change()
	look("back", 200, 403)
	if b.app.live.Load().money["zeta"] != added.money["zeta"] || len(b.app.live.Load().retired) != 0 {
		t.Error("it came back as another one")
	}
}

func TestReloadKeepsTheAccountOfMoneyUnderWay(t *testing.T) {
	t.Parallel()
	b := newReloadBench(t)
	before := b.app.live.Load()
	done := b.change("merchant_id: "+demoCyberSource.ID, "merchant_id: other_mid", "key_id: "+demoCyberSource.KeyID, "key_id: other", "environment: sandbox", "environment: production",
		"Acme Energy", "Acme Power")
	want := []string{"merchants[acme].environment", "merchants[acme].platform.merchant_id"}
	if !slices.Equal(done.Restart, want) {
		t.Errorf("needs a restart: %v, want %v", done.Restart, want)
	}
	now := b.app.live.Load()
	m := now.config.Merchants[0]
	if now.money["acme"] != before.money["acme"] || !m.Sandbox || m.Platform.Settings["merchant_id"] != demoCyberSource.ID || m.Platform.Settings["key_id"] != demoCyberSource.KeyID {
		t.Error("the merchant has moved to another account")
	}
	if m.Name != "Acme Power" {
		t.Error("what could change did not")
	}
}

func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	t.Parallel()
	b := newReloadBench(t)
	done := b.change("drain: 0s", "drain: 1s", "format: text", "format: json", "level: info", "level: debug", "{recover_after: 15s", "{recover_after: 16s", "mode: single", "mode: auto")
	if want := []string{"drain", "log.format", "redis.mode", "timings.recover_after"}; !slices.Equal(done.Restart, want) {
		t.Errorf("needs a restart: %v, want %v", done.Restart, want)
	}
	c := b.app.liveConfig()
	if c.Drain != 0 || c.Log.Format != "text" || c.Timings.RecoverAfter != 15*time.Second || c.Redis.Mode != RedisSingle {
		t.Error("what needs a restart was taken over")
	}
	if c.Log.Level != slog.LevelDebug {
		t.Error("the log's level was not taken over")
	}
	if done := b.change(); len(done.Restart) > 0 {
		t.Errorf("needs a restart, although all is as it was: %v", done.Restart)
	}
}

// TestRestartMarksAreRight holds the marks of the table to what keepFixed does:
// all but a few sections are marked, and those are taken over.
func TestRestartMarksAreRight(t *testing.T) {
	t.Parallel()
	for _, f := range new(Config).section().fields {
		live := slices.Contains([]string{"log", "agent_sessions", "merchants"}, f.key)
		if f.restart == live {
			t.Errorf("%s: marked %v", f.key, f.restart)
		}
	}
}

func TestReloadRefusesBadLinkKeys(t *testing.T) {
	t.Parallel()
	b := newReloadBench(t)
	before := b.app.live.Load()
	if err := os.WriteFile(filepath.Join(b.dir, checkout.CurrentKeyFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.app.reload(b.parse(strings.ReplaceAll(b.text, "Acme Energy", "Acme Power"))); err == nil {
		t.Error("a link key that cannot be read is taken")
	}
	if b.app.live.Load() != before {
		t.Error("half of it was taken over")
	}
}

// TestReloadTellsOfKeys: a rotation is told once, and once that somebody took a
// key away whose links may be in use.
func TestReloadTellsOfKeys(t *testing.T) {
	t.Parallel()
	b := newReloadBench(t)
	var log bytes.Buffer
	b.app.log = slog.New(slog.NewTextHandler(&log, nil))
	look := func(signs, mend int) {
		t.Helper()
		for range 2 {
			b.app.reloadKeys()
		}
		if got := strings.Count(log.String(), "a new link key signs"); got != signs {
			t.Errorf("a new key was told of %d times, want %d:\n%s", got, signs, log.String())
		}
		if got := strings.Count(log.String(), "a link key should be mended"); got != mend {
			t.Errorf("a key was complained of %d times, want %d:\n%s", got, mend, log.String())
		}
	}
	look(0, 0)
	if _, err := checkout.Rotate(b.dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	look(1, 0)
	if err := os.Remove(filepath.Join(b.dir, checkout.PreviousKeyFile)); err != nil {
		t.Fatal(err)
	}
	look(1, 1)
}

// TestReloaderFollowsFiles tells when the files are read again, on a clock of
// its own.
func TestReloaderFollowsFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, secret := filepath.Join(dir, "paythread.yaml"), filepath.Join(dir, "token")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, "good")
	write(secret, "one")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		taken, reads := []string{}, 0
		asked := make(chan os.Signal, 1)
		metrics := newReloadMetrics(prometheus.NewRegistry())
		r := &reloader{
			read: func() (*Config, contents, error) {
				reads++
				read := contents{}
				read.look(file)
				if data, _ := os.ReadFile(file); string(data) != "good" {
					return nil, read, ConfigProblems{{File: file, Line: 3, Path: "merchants[0].name", Message: "is missing"}}
				}
				read.look(secret)
				return &Config{}, read, nil
			},
			take: func(*Config) (reloaded, error) {
				data, err := os.ReadFile(secret)
				if string(data) == "panics" {
					panic("at the end")
				}
				taken = append(taken, string(data))
				return reloaded{Restart: []string{"listen"}}, err
			},
			asked: asked, every: lookEvery, metrics: metrics, log: slog.New(slog.NewTextHandler(&log, nil)),
		}
		_, r.last, _ = r.read()
		r.seen, reads = r.last, 0
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = r.Run(ctx) }() // it only ends with ctx
		defer func() { cancel(); <-done }()
		pass := func(want int, what string) {
			t.Helper()
			time.Sleep(3*lookEvery + 1)
			synctest.Wait()
			if reads != want {
				t.Fatalf("%s: read %d times, want %d; log:\n%s", what, reads, want, log.String())
			}
		}
		successful := func(want float64) {
			t.Helper()
			if got := testutil.ToFloat64(metrics.successful); got != want {
				t.Errorf("last reload successful: %v, want %v", got, want)
			}
		}
		pass(0, "nothing has changed")
		write(secret, "two")
		pass(1, "a secret has changed")
		if err := os.Chtimes(secret, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		pass(1, "its time alone has changed")
		write(file, "bad")
		pass(2, "the file is wrong")
		successful(0)
		if text := log.String(); !strings.Contains(text, "key=merchants[0].name") || !strings.Contains(text, "line=3") {
			t.Errorf("the problem is not in the log:\n%s", text)
		}
		pass(2, "it is still wrong, and was told")
		write(secret, "three")
		pass(3, "a secret has changed beside it")
		write(file, "good")
		pass(4, "it is right again")
		successful(1)
		asked <- os.Interrupt
		pass(5, "somebody asks")
		write(secret, "panics")
		pass(6, "taking it over panics")
		successful(0)
		write(secret, "four")
		pass(7, "and life goes on")
		successful(1)
		if want := []string{"two", "three", "three", "four"}; !slices.Equal(taken, want) {
			t.Errorf("taken over: %v, want %v", taken, want)
		}
		if got := testutil.ToFloat64(metrics.reloads.WithLabelValues(reloadApplied)); got != 4 {
			t.Errorf("%v reloads are counted as applied", got)
		}
		if got := testutil.ToFloat64(metrics.restart); got != 1 {
			t.Errorf("%v settings need a restart", got)
		}
	})
}

// TestPipesAreReadOnce: a configuration, or a secret, that comes through a pipe
// is not looked at again, and is what it was where all is read again.
func TestPipesAreReadOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := checkout.NewKeyFile(filepath.Join(dir, checkout.CurrentKeyFile)); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("dir: keys", "dir: .", "auth_token: replaceme", "auth_token_file: token", "app_secret: replaceme", "app_secret_file: secret").Replace(string(printExample()))
	file, token, secret := filepath.Join(dir, "config"), filepath.Join(dir, "token"), filepath.Join(dir, "secret")
	given := make(chan error, 2)
	for name, content := range map[string]string{file: text, token: "from-a-pipe"} {
		if err := syscall.Mkfifo(name, 0o600); err != nil {
			t.Fatal(err)
		}
		go func() { given <- os.WriteFile(name, []byte(content), 0o600) }()
	}
	if err := os.WriteFile(secret, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	once := pipes{}
	c, read, err := readConfig(file, nil, once)
	if err = errors.Join(err, <-given, <-given); err != nil {
		t.Fatal(err)
	}
	if _, looks := read[secret]; !looks || len(read) != 3 { // and both link keys
		t.Errorf("looks at %v", slices.Collect(maps.Keys(read)))
	}
	if s, _ := c.Sender("acme-sms"); s.Settings["auth_token"] != "from-a-pipe" {
		t.Error("the secret of a pipe was not read")
	}
	if err := os.WriteFile(secret, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if maps.Equal(read.now(), read) {
		t.Error("a change of a secret is not seen")
	}
	if c, _, err = readConfig(file, nil, once); err != nil {
		t.Fatal(err)
	}
	sms, _ := c.Sender("acme-sms")
	wa, _ := c.Sender("acme-whatsapp")
	if sms.Settings["auth_token"] != "from-a-pipe" || wa.Settings["app_secret"] != "second" {
		t.Error("what was read again is not what there is")
	}
}

// TestReloadReleasesSenders: a sender that was held back for its credentials
// sends again as soon as it has other ones, and no other sender does.
func TestReloadReleasesSenders(t *testing.T) {
	t.Parallel()
	b := newReloadBench(t)
	store, until := b.app.store, time.Now().Add(time.Hour)
	hold := func(sender string, reason conversations.FailureReason) {
		t.Helper()
		if err := store.HoldSender(t.Context(), sender, conversations.Hold{Reason: reason, Until: until, Fail: true}); err != nil {
			t.Fatal(err)
		}
	}
	held := func(sender string, want bool) {
		t.Helper()
		if state, err := store.SenderState(t.Context(), sender); err != nil || (state.Hold != nil) != want {
			t.Errorf("%s is held back: %v, %v, want %v", sender, state.Hold, err, want)
		}
	}
	before := b.app.live.Load().outgoing["acme-wa"]
	hold("acme-wa", conversations.FailureAuth)
	hold("acme-sms", conversations.FailureAuth)
	b.change("Acme Energy", "Acme Power")
	held("acme-wa", true)
	b.change("Acme Energy", "Acme Power", demoMeta.AccessToken, "another-access-token")
	held("acme-wa", false)
	held("acme-sms", true)
	// The answer to a call that was under way with the token of before.
	before.hold(t.Context(), conversations.Hold{Reason: conversations.FailureAuth, Until: until, Fail: true})
	held("acme-wa", false)
	before.hold(t.Context(), conversations.Hold{Reason: conversations.FailureRate, Until: until})
	held("acme-wa", true)
	b.change()
	held("acme-wa", true) // no credentials change what the company takes in a second
}

// TestReloadTellsMerchants: what a reload changes for a merchant is told to its
// systems, once, by the names of the settings alone.
func TestReloadTellsMerchants(t *testing.T) {
	t.Parallel()
	system := newListeningSystem(t, nil)
	b := newReloadBench(t)
	b.text = strings.Replace(b.text, "    senders:\n", "    callbacks: [{id: erp, url: "+system.url+", secret: "+exampleCallbackSecret+", events: [merchant.settings_changed]}]\n    senders:\n", 1)
	b.change()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.app.callbacks.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "the endpoint is made", func() bool {
		endpoints, err := b.app.callbacks.queue.Endpoints(t.Context(), "acme")
		return err == nil && len(endpoints) == 1
	})
	told := func(want ...any) {
		t.Helper()
		var all []any
		eventually(t, fmt.Sprintf("%v is told", want), func() bool {
			all = nil
			for id := range system.received() {
				all = append(all, system.data(id)["settings"].([]any)...)
			}
			return len(all) >= len(want)
		})
		slices.SortFunc(all, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		if !slices.Equal(all, want) {
			t.Errorf("told of %v, want %v", all, want)
		}
	}
	b.change("level: info", "level: debug") // is no merchant's
	b.change("Acme Energy", "Acme Power", demoMeta.AccessToken, "another-access-token")
	told("name", "senders.acme-wa")
	b.change("Acme Energy", "Acme Power", demoMeta.AccessToken, "another-access-token", demoTwilio.AuthToken, "another-auth-token")
	told("name", "senders.acme-sms", "senders.acme-wa")
	for id, bodies := range system.received() {
		if len(bodies) != 1 || strings.Contains(bodies[0], "another-") || strings.Contains(bodies[0], "Acme Power") {
			t.Errorf("%s came as %q", id, bodies)
		}
	}
}

// TestReloadLeavesNothing: after many reloads there are no more goroutines, files
// or series than before.
func TestReloadLeavesNothing(t *testing.T) {
	b := newReloadBench(t) // not beside others: it counts what the process has
	other := strings.NewReplacer("Acme Energy", "Acme Power", demoMeta.AccessToken, "another-access-token", demoTwilio.AuthToken, "another-auth-token",
		demoCyberSource.KeyID, "another-key").Replace(b.text)
	configs := [2]func() *Config{func() *Config { return b.parse(other) }, func() *Config { return b.parse(b.text) }}
	count := func() (goroutines, files, series int) {
		t.Helper()
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc here")
		}
		families, err := b.app.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			series += len(f.GetMetric())
		}
		return runtime.NumGoroutine(), len(open), series
	}
	reloads := func(n int) {
		t.Helper()
		for i := range n {
			if _, err := b.app.reload(configs[i%2]()); err != nil {
				t.Fatal(err)
			}
		}
	}
	reloads(10)
	goroutines, files, series := count()
	reloads(100)
	eventually(t, "all is as it was", func() bool {
		g, f, s := count()
		return g <= goroutines+5 && f <= files+5 && s == series
	})
}

// TestReloadAmongCalls takes configurations over while much else reads them, for
// the race detector.
func TestReloadAmongCalls(t *testing.T) {
	t.Parallel()
	b := newReloadBench(t)
	both := b.parse(b.text + benchSecond)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var errs []error
		for i := 0; ctx.Err() == nil; i++ {
			c := *both
			if i%2 > 0 {
				c.Merchants = both.Merchants[:1]
			}
			_, err := b.app.reload(&c)
			errs = append(errs, err)
		}
		done <- errors.Join(errs...)
	}()
	for range 100 {
		if got := b.status("GET", "/v1/payment-requests", demoAPIKey); got != 200 {
			t.Errorf("a call of a merchant that stays is answered %d", got)
		}
		if got := b.status("POST", "/webhooks/acme-sms", ""); got != 403 {
			t.Errorf("a webhook of a sender that stays is answered %d", got)
		}
		if _, ok := b.app.store.Merchant("acme"); !ok {
			t.Error("the store does not know a merchant that stays")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
