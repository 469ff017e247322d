package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"paythread/checkout"
)

// volume is a folder of secrets as Kubernetes mounts one: what is read are links
// into ..data, itself a link to a folder with a name of its time, and an update
// swaps that link alone.
type volume struct {
	t   *testing.T
	dir string
	n   int
}

func newVolume(t *testing.T, files map[string]string) *volume {
	t.Helper()
	v := &volume{t: t, dir: t.TempDir()}
	v.put(files)
	for name := range files {
		v.must(os.Symlink(filepath.Join("..data", name), v.path(name)))
	}
	return v
}

func (v *volume) path(name string) string { return filepath.Join(v.dir, name) }

func (v *volume) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

// put makes files the content of the volume, at once.
func (v *volume) put(files map[string]string) {
	v.t.Helper()
	v.n++
	at := fmt.Sprintf("..2026_11_22_10_00_%02d", v.n)
	v.must(os.Mkdir(v.path(at), 0o700))
	for name, text := range files {
		file := filepath.Join(v.path(at), name)
		v.must(os.WriteFile(file, []byte(text), 0o600))
		v.must(os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0))) // their times tell nothing
	}
	v.must(os.Symlink(at, v.path("..data_tmp")))
	v.must(os.Rename(v.path("..data_tmp"), v.path("..data")))
}

// tokenDoor stands before the simulated Meta. It notes by which token it is
// called and hands on the one that Meta knows.
type tokenDoor struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

func newTokenDoor(t *testing.T, meta string) *tokenDoor {
	t.Helper()
	to, err := url.Parse(meta)
	if err != nil {
		t.Fatal(err)
	}
	d := &tokenDoor{}
	d.Server = httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		d.mu.Lock()
		if token := r.In.Header.Get("Authorization"); !slices.Contains(d.seen, token) {
			d.seen = append(d.seen, token)
		}
		d.mu.Unlock()
		r.SetURL(to)
		r.Out.Header.Set("Authorization", "Bearer "+demoMeta.AccessToken)
	}})
	t.Cleanup(d.Close)
	return d
}

func (d *tokenDoor) knows(token string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.seen, "Bearer "+token)
}

// openStream follows all of the merchant's events on one connection. The
// channel brings them, and is closed when the connection ends.
func (g *gatewayProcess) openStream(ctx context.Context) (<-chan streamedEvent, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.public+"/v1/events", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+demoAPIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("a stream is answered %d", resp.StatusCode)
	}
	events := make(chan streamedEvent, 10_000)
	go func() {
		defer close(events)
		defer func() { _ = resp.Body.Close() }() // it was read to its end
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			var e streamedEvent
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && json.Unmarshal([]byte(data), &e) == nil && e.RequestID != "" {
				events <- e
			}
		}
	}()
	return events, nil
}

// streamedEvent is what is looked at of an event.
type streamedEvent struct {
	RequestID string `json:"payment_request_id"`
	Seq       int    `json:"seq"`
}

// metric reads one number of the admin listener, 0 if it is not there.
func (g *gatewayProcess) metric(series string) (n float64) {
	name, _, _ := strings.Cut(series, "{")
	text, err := g.samples(name)
	g.s.must(err)
	if found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(text); found != nil {
		_, err = fmt.Sscan(string(found[1]), &n)
		g.s.must(err)
	}
	return n
}

// TestReloadUnderLoad changes everything that can change while messages, their
// webhooks and streams go on.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	s := newRig(t, aPlainRedis(t))
	door := newTokenDoor(t, s.world.URL+"/meta")
	secrets := map[string]string{"access-token": "first-access-token", "rotating": "first-rotating-key-of-the-shop"}
	v := newVolume(t, secrets)
	written, err := os.ReadFile(s.config)
	s.must(err)
	good := strings.NewReplacer(
		"base_url: "+s.world.URL+"/meta", "base_url: "+door.URL,
		"access_token: "+demoMeta.AccessToken, "access_token_file: "+v.path("access-token"),
		"{name: oms, secret: "+demoAPIKey+"}", "{name: oms, secret: "+demoAPIKey+"}, {name: rotating, secret_file: "+v.path("rotating")+"}",
	).Replace(string(written))
	write := func(text string) { t.Helper(); s.must(os.WriteFile(s.config, []byte(text), 0o600)) }
	write(good)
	g := s.startGateway()
	keyStatus := func(key string) int {
		t.Helper()
		status, _, err := s.call(http.MethodGet, "http://"+g.public+"/v1/payment-requests", http.Header{"Authorization": {"Bearer " + key}}, nil)
		s.must(err)
		return status
	}
	events, err := g.openStream(t.Context())
	s.must(err)

	// The load.
	stop, stopped := make(chan struct{}), make(chan error, 1)
	var ids []string
	go func() {
		for n := 0; ; n++ {
			id, err := s.ask(asked{Order: fmt.Sprintf("load-%d", n), Phone: fmt.Sprintf("+2782555%04d", n), Channel: "whatsapp", Amount: "10.00"})
			if err != nil {
				stopped <- err
				return
			}
			ids = append(ids, id)
			select {
			case <-stop:
				stopped <- nil
				return
			case <-time.After(150 * time.Millisecond):
			}
		}
	}()

	const applied = `paythread_config_reloads_total{outcome="applied"}`
	for range 5 {
		before := g.metric(applied)
		s.must(g.cmd.Process.Signal(syscall.SIGHUP))
		s.await("a signal is followed", func() bool { return g.metric(applied) > before })
	}

	// A volume is swapped: both of its secrets are new.
	s.await("the first access token is used", func() bool { return door.knows("first-access-token") })
	if got := keyStatus(secrets["rotating"]); got != http.StatusOK {
		t.Errorf("a key from a file is answered %d", got)
	}
	v.put(map[string]string{"access-token": "second-access-token", "rotating": "second-rotating-key-of-the-shop"})
	s.await("the new key is taken", func() bool { return keyStatus("second-rotating-key-of-the-shop") == http.StatusOK })
	if got := keyStatus(secrets["rotating"]); got != http.StatusUnauthorized {
		t.Errorf("the key before it is answered %d", got)
	}
	s.await("the new access token is used", func() bool { return door.knows("second-access-token") })

	// A file that is wrong changes nothing and is told of by its key.
	const successful = "paythread_config_last_reload_successful"
	write(strings.Replace(good, "country: ZA", "country: Nowhere", 1))
	s.await("the broken file is noticed", func() bool { return g.metric(successful) == 0 })
	if !g.log.contains(`"key":"merchants[0].country"`) {
		t.Error("the log does not name the key")
	}
	if got := keyStatus("second-rotating-key-of-the-shop"); got != http.StatusOK {
		t.Errorf("with a broken file a key is answered %d", got)
	}
	write(good)
	s.await("the mended file is taken", func() bool { return g.metric(successful) == 1 })

	// The link key is rotated: a page that is open goes on.
	c := s.payer("+27825550000", "whatsapp")
	s.must(c.follow("/p/"))
	keys := func() string {
		t.Helper()
		_, body, err := s.call(http.MethodGet, "http://"+g.public+"/.well-known/jwks.json", nil, nil)
		s.must(err)
		return string(body)
	}
	kid, err := checkout.Rotate(filepath.Dir(s.config), time.Now())
	s.must(err)
	s.await("the new key signs", func() bool { return strings.Contains(keys(), kid) })
	s.must(c.open())

	// A sender is taken out: its webhooks are a stranger's.
	hook := func() int {
		t.Helper()
		status, _, err := s.call(http.MethodPost, "http://"+g.public+"/webhooks/acme-sms", nil, nil)
		s.must(err)
		return status
	}
	if got := hook(); got != http.StatusForbidden {
		t.Errorf("an unsigned webhook of a sender is answered %d", got)
	}
	from, to := strings.Index(good, "      - id: acme-sms"), strings.Index(good, "    platform:")
	write(good[:from] + good[to:])
	s.await("the sender is gone", func() bool { return hook() == http.StatusNotFound })

	close(stop)
	if err := <-stopped; err != nil {
		t.Errorf("a call failed: %v", err)
	}
	for _, id := range ids {
		s.await("the message of "+id+" is delivered", func() bool {
			r := s.request(id)
			return len(r.Messages) > 0 && (r.Messages[0].Status == "delivered" || r.Messages[0].Status == "read")
		})
	}
	for _, outcome := range []string{"bad_signature", "unreadable", "unavailable"} {
		if n := g.metric(`paythread_webhooks_total{outcome="` + outcome + `",provider="meta"}`); n > 0 {
			t.Errorf("%v webhooks were %s", n, outcome)
		}
	}
	// On the one connection every event came, once and in order.
	last := map[string]int{}
	for _, id := range ids {
		for want := len(s.eventTypes(id)); last[id] < want; {
			select {
			case e, open := <-events:
				if !open {
					t.Fatal("the stream has ended")
				}
				if e.Seq != last[e.RequestID]+1 {
					t.Fatalf("after event %d of %s came %d", last[e.RequestID], e.RequestID, e.Seq)
				}
				last[e.RequestID] = e.Seq
			case <-time.After(longestWait):
				t.Fatalf("event %d of %s did not come", last[id]+1, id)
			}
		}
	}
	t.Logf("%d payment requests, %v reloads", len(ids), g.metric(applied))
}
