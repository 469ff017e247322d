package twilio

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/simulator/faults"
)

// control makes a control call.
func (w *world) control(t *testing.T, path, body string, want int) string {
	t.Helper()
	status, answer := w.call(t, "POST", "../../"+path, "", "", body)
	if status != want {
		t.Fatalf("%s %s: got %d %s, want %d", path, body, status, answer, want)
	}
	return answer
}

// MarkedRead makes these phones show typing.
func (p *phones) MarkedRead(_, id string, _ bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readIDs = append(p.readIDs, id)
}

func (p *phones) read() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.readIDs)
}

// raw is a webhook as it came.
type raw struct {
	method, url, signature, contentType string
	body                                []byte
}

// recorder keeps webhooks as they came, and answers with 204.
type recorder struct {
	mu   sync.Mutex
	raws []raw
}

func (h *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	h.raws = append(h.raws, raw{r.Method, r.URL.String(), r.Header.Get("X-Twilio-Signature"), r.Header.Get("Content-Type"), body})
	h.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (h *recorder) all() []raw {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.raws)
}

// newNetwork makes a network whose webhooks all reach the recorder, whatever
// their host.
func newNetwork(t *testing.T, change func(*Config)) (*Simulator, *phones, *recorder, string) {
	t.Helper()
	rec := &recorder{}
	receiver := httptest.NewServer(rec)
	dialer := &net.Dialer{}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, receiver.Listener.Addr().String())
	}}}
	cfg := Config{Accounts: []Account{{SID: sid, AuthToken: token, Numbers: []Number{
		{E164: business, InboundURL: "http://pay.example.test/in"}, {E164: business, Channel: WhatsApp, InboundURL: "http://pay.example.test/in"}}}},
		Client: client, RetryPause: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	p := &phones{handsets: map[string]Handset{}}
	set := faults.New()
	sim, err := New(cfg, set, p)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	sim.Register(mux)
	api := httptest.NewServer(mux)
	t.Cleanup(func() { set.Clear(); sim.Close(); api.Close(); receiver.Close() })
	return sim, p, rec, api.URL + "/twilio/"
}

func say(t *testing.T, s *Simulator, channel, text string) {
	t.Helper()
	if err := s.Say(Said{ID: NewID(), Channel: channel, From: customer, To: business, Text: text}); err != nil {
		t.Fatal(err)
	}
}

func TestJSONWebhooks(t *testing.T) {
	t.Parallel()
	s, _, rec, _ := newNetwork(t, func(c *Config) { c.Accounts[0].Numbers[0].InboundURL = "http://pay.example.test/in?tenant=7" })
	s.SetHabits(Habits{JSON: true, Extra: true})
	say(t, s, SMS, "né")
	await(t, "the webhook", func() bool { return len(rec.all()) == 1 })
	got := rec.all()[0]
	sum := sha256.Sum256(got.body)
	want := "/in?tenant=7&bodySHA256=" + hex.EncodeToString(sum[:])
	if got.url != want || got.contentType != "application/json" || got.signature != Sign(token, "http://pay.example.test"+want, nil) {
		t.Errorf("got %+v, want %s", got, want)
	}
	var members map[string]string
	if err := json.Unmarshal(got.body, &members); err != nil || members["Body"] != "né" || members["BrandNewParameter"] == "" || members["FromCity"] != "" {
		t.Errorf("body: got %s, %v", got.body, err)
	}
}

func TestSignatureVectorOfJSON(t *testing.T) {
	t.Parallel()
	const address = "https://pay.example.test/hooks/twilio/status?bodySHA256=36d46129d2eaaa80ecd3afb23ca4fb214cc13ac315fa6869e8c58379fa88217c"
	if got := Sign(token, address, nil); got != "hNVVz54K479qYTxJ6X3uYjB+Arc=" {
		t.Errorf("V4: got %s", got)
	}
}

func TestGETWebhooks(t *testing.T) {
	t.Parallel()
	s, _, rec, _ := newNetwork(t, func(c *Config) { c.Accounts[0].Numbers[0].InboundMethod = "GET" })
	say(t, s, SMS, "a b&c")
	await(t, "the webhook", func() bool { return len(rec.all()) == 1 })
	got := rec.all()[0]
	u, err := url.Parse(got.url)
	if err != nil || got.method != "GET" || u.Query().Get("Body") != "a b&c" || len(got.body) != 0 || got.signature != Sign(token, "http://pay.example.test"+got.url, nil) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestNewParameters(t *testing.T) {
	t.Parallel()
	s, _, rec, _ := newNetwork(t, nil)
	s.SetHabits(Habits{Extra: true})
	say(t, s, WhatsApp, "hi")
	await(t, "the webhook", func() bool { return len(rec.all()) == 1 })
	got := rec.all()[0]
	form, err := url.ParseQuery(string(got.body))
	if err != nil || !form.Has("EmptyNewParameter") || form.Get("EmptyNewParameter") != "" || form.Get("BrandNewParameter") == "" {
		t.Errorf("form: got %v, %v", form, err)
	}
	if got.signature != Sign(token, "http://pay.example.test/in", form) {
		t.Error("the new parameters are not signed")
	}
}

func TestPortsInTheSignedAddress(t *testing.T) {
	t.Parallel()
	s, _, rec, api := newNetwork(t, nil)
	res, err := http.Post(api+"webhooks", "application/json", strings.NewReader(`{"port":"alternate"}`))
	if err != nil || res.StatusCode != 204 {
		t.Fatalf("got %v, %v", res, err)
	}
	_ = res.Body.Close()
	say(t, s, SMS, "one")
	say(t, s, SMS, "two")
	await(t, "both", func() bool { return len(rec.all()) == 2 })
	for i, address := range []string{"http://pay.example.test:80/in", "http://pay.example.test/in"} {
		got := rec.all()[i]
		form, _ := url.ParseQuery(string(got.body))
		if got.signature != Sign(token, address, form) {
			t.Errorf("webhook %d is not signed for %s", i, address)
		}
	}
	for _, tc := range []struct{ address, port, want string }{
		{"https://a.example/x?y=http://b:1", PortAdd, "https://a.example:443/x?y=http://b:1"},
		{"https://a.example:443/x", PortAdd, "https://a.example:443/x"},
		{"https://a.example:443/x", PortDrop, "https://a.example/x"},
		{"https://a.example:8443/x", PortAdd, "https://a.example:8443/x"},
		{"https://a.example:8443/x", PortDrop, "https://a.example:8443/x"},
		{"https://u:p@a.example/x", PortAdd, "https://u:p@a.example:443/x"},
		{"http://a.example?x", PortAdd, "http://a.example:80?x"},
		{"https://[::1]/x", PortAdd, "https://[::1]:443/x"},
		{"https://[::1]:7/x", PortAdd, "https://[::1]:7/x"},
		{"https://a.example", "", "https://a.example"},
	} {
		if got := signedAddress(tc.address, tc.port, false); got != tc.want {
			t.Errorf("%s, %s: got %s, want %s", tc.address, tc.port, got, tc.want)
		}
	}
}

func TestFallback(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	w := newWorld(t, "")
	w.cfg.Accounts[0].Numbers[0].FallbackURL = w.hook.url + "/fallback"
	w.hook.answer = func(n int, rw http.ResponseWriter) {
		if n == 1 {
			rw.WriteHeader(500)
			return
		}
		rw.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(rw, `<Response><Message>later</Message></Response>`)
	}
	w.say(t, SMS, "hi")
	await(t, "the fallback's answer", func() bool { return slices.Equal(w.phones.texts(), []string{"later"}) })
	f := w.hook.all()[1]
	if f.path != "/fallback" || f.form.Get("ErrorCode") != "11200" || f.form.Get("ErrorUrl") != w.hook.url+"/in?tenant=7" || f.form.Get("Body") != "hi" {
		t.Errorf("got %+v", f)
	}
	gone.Close()
	w.cfg.Accounts[0].Numbers[0].InboundURL = gone.URL
	w.say(t, SMS, "again")
	await(t, "the second fallback", func() bool { return len(w.hook.all()) == 3 })
	if got := w.hook.all()[2].form.Get("ErrorCode"); got != "11205" {
		t.Errorf("nobody listens: got %s, want 11205", got)
	}
}

func TestReadTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "#rt=100&rc=1&rp=rt")
	release := make(chan struct{})
	defer close(release)
	w.hook.answer = func(n int, _ http.ResponseWriter) {
		if n == 1 {
			<-release
		}
	}
	w.say(t, SMS, "hi")
	await(t, "a second try", func() bool { return len(w.hook.all()) == 2 })
}
