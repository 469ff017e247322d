package providertest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

func (h *Harness) testSend(t *testing.T) {
	for _, c := range h.sendCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			var asked []byte
			var calls atomic.Int64
			server := farEnd(t, func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				asked = h.request(t, r)
				for name, value := range c.Header {
					w.Header().Set(name, value)
				}
				w.WriteHeader(c.Status)
				_, _ = w.Write(c.Body) // the client may be gone
			})
			b := h.bench(t, server.URL)
			sent, f := b.send(t.Context(), t, c.Outbound)
			server.Close() // so that asked is written
			if n := calls.Load(); n > 1 || n != b.dials.Load() {
				t.Errorf("%d calls over %d connections of the client that was given, want one at most", n, b.dials.Load())
			}
			c.file.compare(t, "want.request", asked)
			if f == nil {
				c.file.compare(t, "want.json", indented(t, map[string]any{"sent": compact(sent)}))
				return
			}
			c.file.compare(t, "want.json", indented(t, map[string]any{"failure": compact(struct {
				Reason             conversations.FailureReason
				Code               string
				Retryable, Unknown bool
				RetryAfter         string
				Error              string
			}{f.Reason, f.Code, f.Retryable, f.Unknown, wait(f.RetryAfter), f.Error()})}))
		})
	}
}

// testNotices sends each message that a business begins on WhatsApp. It has a
// setting of its own for its template, which may be left out: then what must be
// a template fails without a call, so that SMS can take over.
func (h *Harness) testNotices(t *testing.T) {
	if cmp.Or(h.Channel, h.Registration.Channels[0]) != conversations.WhatsApp {
		t.Skip("only WhatsApp has templates")
	}
	for _, purpose := range conversations.NoticePurposes {
		t.Run(string(purpose), func(t *testing.T) {
			i := slices.IndexFunc(h.Registration.Settings, func(s providers.Setting) bool { return strings.HasSuffix(s.Name, "_"+string(purpose)) })
			if i < 0 {
				t.Fatal("no setting names its template")
			}
			setting := h.Registration.Settings[i]
			if setting.Required || h.Values[setting.Name] == "" {
				t.Fatalf("%s must be optional, and have a value in the harness", setting.Name)
			}
			o := h.Outbound
			o.Purpose, o.Text = purpose, "A word from Acme Energy."
			p, linked := o.Parameters, conversations.LinkButton(purpose, "en") != ""

			o.Template = true
			asked, name, f := h.ask(t, h.Values, o)
			if f != nil || name == "" {
				t.Fatalf("as the template %q: %v", name, f)
			}
			for value, want := range map[string]bool{
				p.Merchant: true, p.Order: true, p.Amount: purpose != conversations.PurposeCancelled, p.LinkCode: linked, o.Text: false,
			} {
				if strings.Contains(asked, value) != want {
					t.Errorf("as a template, asked with %q: %t, want %t:\n%s", value, !want, want, asked)
				}
			}

			without := maps.Clone(h.Values)
			delete(without, setting.Name)
			if asked, name, f := h.ask(t, without, o); f == nil || f.Reason != conversations.FailureTemplate || name != "" || asked != "" {
				t.Errorf("without %s: got %v as the template %q, asked\n%s", setting.Name, f, name, asked)
			}

			o.Template = false
			asked, _, f = h.ask(t, without, o)
			if f != nil || !strings.Contains(asked, o.Text) || strings.Contains(asked, p.Link) != linked {
				t.Errorf("as free text: got %v, asked\n%s", f, asked)
			}
		})
	}
}

// ask sends a message to somebody who accepts it, with these settings, and
// returns what was asked and the name of the template.
func (h *Harness) ask(t *testing.T, values map[string]string, o conversations.Outbound) (asked, template string, f *providers.Failure) {
	t.Helper()
	server := farEnd(t, func(w http.ResponseWriter, r *http.Request) {
		asked = string(h.request(t, r))
		h.Accept(w, r)
	})
	values = maps.Clone(values)
	values[BaseURL] = server.URL
	b := h.benchWith(t, values)
	_, f = b.send(t.Context(), t, o)
	server.Close() // so that asked is written
	if named, ok := b.Provider.(providers.Templater); ok {
		template, _ = named.Template(o)
	}
	return asked, template, f
}

// wait is a duration as text, and empty for none.
func wait(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// request writes down what the provider is asked: secrets by the name of their
// setting, forms sorted and decoded, JSON indented.
func (h *Harness) request(t *testing.T, r *http.Request) []byte {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Errorf("reading the request: %v", err)
	}
	var b bytes.Buffer
	authorization := r.Header.Get("Authorization")
	if credentials, ok := strings.CutPrefix(authorization, "Basic "); ok {
		plain, err := base64.StdEncoding.DecodeString(credentials)
		if err != nil {
			t.Errorf("reading the credentials: %v", err)
		}
		authorization = "Basic " + string(plain)
	}
	for _, s := range h.Registration.Settings {
		if s.Secret {
			authorization = strings.ReplaceAll(authorization, h.Values[s.Name], "{"+s.Name+"}")
		}
	}
	fmt.Fprintf(&b, "%s %s\nAuthorization: %s\nContent-Type: %s\n\n", r.Method, r.URL.RequestURI(), authorization, r.Header.Get("Content-Type"))

	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(body))
		if err != nil {
			t.Errorf("reading the form: %v", err)
		}
		var lines []string
		for name, values := range form {
			for _, v := range values {
				lines = append(lines, name+"="+v)
			}
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, "\n"))
	default:
		if err := json.Indent(&b, body, "", "  "); err != nil {
			t.Errorf("reading the body: %v", err)
		}
	}
	return b.Bytes()
}

// testStatuses answers with every status there is, without a body that says
// more, and then with the provider's own form of refusal.
func (h *Harness) testStatuses(t *testing.T) {
	var status atomic.Int64
	var own atomic.Bool
	var redirected atomic.Bool
	server := farEnd(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			redirected.Store(true)
		}
		w.Header().Set("Location", "/elsewhere")
		if own.Load() {
			h.Refuse(w, int(status.Load()), "no")
			return
		}
		w.WriteHeader(int(status.Load()))
		if bodyAllowed(int(status.Load())) {
			_, _ = io.WriteString(w, "<html>not what was expected</html>") // the client may be gone
		}
	})
	b := h.bench(t, server.URL)
	wants := map[int]conversations.FailureReason{
		301: conversations.FailureSenderConfig,
		302: conversations.FailureSenderConfig,
		307: conversations.FailureSenderConfig,
		308: conversations.FailureSenderConfig,
		400: conversations.FailureUnknown,
		401: conversations.FailureAuth,
		402: conversations.FailureAccount,
		403: conversations.FailureAuth,
		404: conversations.FailureSenderConfig,
		408: conversations.FailureProviderError,
		413: conversations.FailureContentFiltered,
		429: conversations.FailureRate,
		451: conversations.FailurePolicyLimit,
		500: conversations.FailureProviderError,
		502: conversations.FailureProviderError,
		503: conversations.FailureProviderError,
		504: conversations.FailureProviderError,
		599: conversations.FailureProviderError,
	}
	for code := 200; code <= 599; code++ {
		status.Store(int64(code))
		own.Store(false)
		_, f := b.send(t.Context(), t, h.Outbound)
		if f == nil {
			t.Fatalf("%d without an acceptance in it: got no failure", code)
		}
		if want, ok := wants[code]; ok && f.Reason != want {
			t.Errorf("%d: got reason %s, want %s", code, f.Reason, want)
		}
		if want := code < 300 || code == 408 || code >= 500; f.Unknown != want {
			t.Errorf("%d: got unknown=%t, want %t", code, f.Unknown, want)
		}
		if f.Code != "http_"+strconv.Itoa(code) {
			t.Errorf("%d: got code %q", code, f.Code)
		}
		if code < 400 {
			continue
		}
		own.Store(true)
		_, f = b.send(t.Context(), t, h.Outbound)
		if f == nil {
			t.Fatalf("%d with a refusal: got no failure", code)
		}
		if want := code >= 500 && !h.Features.RefusesWith5xx; f.Unknown != want {
			t.Errorf("%d with a refusal: got unknown=%t, want %t", code, f.Unknown, want)
		}
	}
	if redirected.Load() {
		t.Error("a redirect was followed, with credentials and a customer's message")
	}
}

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// testNoAnswer breaks the call off at every place where it can break, and asks
// whether the message may be on its way.
func (h *Harness) testNoAnswer(t *testing.T) {
	want := func(t *testing.T, f *providers.Failure, unknown bool) {
		t.Helper()
		switch {
		case f == nil:
			t.Error("got no failure")
		case f.Reason != conversations.FailureProviderError || f.Unknown != unknown || f.Retryable == unknown:
			t.Errorf("got %+v, want a provider_error with unknown=%t and retryable=%t", f, unknown, !unknown)
		}
	}
	t.Run("connection refused", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		_, f := h.bench(t, "http://"+address).send(t.Context(), t, h.Outbound)
		want(t, f, false)
	})
	t.Run("no TLS at the other end", func(t *testing.T) {
		server := farEnd(t, func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") })
		_, f := h.bench(t, strings.Replace(server.URL, "http:", "https:", 1)).send(t.Context(), t, h.Outbound)
		want(t, f, false)
	})
	t.Run("certificate of nobody", func(t *testing.T) {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") }))
		server.Config.ErrorLog = quiet()
		server.StartTLS()
		t.Cleanup(server.Close)
		_, f := h.bench(t, server.URL).send(t.Context(), t, h.Outbound)
		want(t, f, false)
	})
	t.Run("cancelled before", func(t *testing.T) {
		server := farEnd(t, func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, f := h.bench(t, server.URL).send(ctx, t, h.Outbound)
		want(t, f, false)
		if !errors.Is(f, context.Canceled) {
			t.Errorf("got %v, want context.Canceled in the chain", f)
		}
	})

	// stalled serves until the far end has the request, then ends the call's
	// context: what a deadline does, without waiting for one.
	stalled := func(t *testing.T, answer func(http.ResponseWriter)) *providers.Failure {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		server := farEnd(t, func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Errorf("reading the request: %v", err)
			}
			answer(w)
			cancel()
			<-r.Context().Done()
		})
		_, f := h.bench(t, server.URL).send(ctx, t, h.Outbound)
		return f
	}
	t.Run("time-out after the request arrived", func(t *testing.T) {
		want(t, stalled(t, func(http.ResponseWriter) {}), true)
	})
	t.Run("time-out within the answer", func(t *testing.T) {
		want(t, stalled(t, func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"sid":`) // the client may be gone
			w.(http.Flusher).Flush()
		}), true)
	})

	cut := func(t *testing.T, answer string, reset bool) *providers.Failure {
		server := farEnd(t, func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Errorf("reading the request: %v", err)
			}
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, answer) // the client may be gone
			if tcp, ok := conn.(*net.TCPConn); ok && reset {
				_ = tcp.SetLinger(0) // so that closing resets; without it the case is the one above
			}
			_ = conn.Close() // breaking off is the point
		})
		_, f := h.bench(t, server.URL).send(t.Context(), t, h.Outbound)
		return f
	}
	t.Run("closed without an answer", func(t *testing.T) { want(t, cut(t, "", false), true) })
	t.Run("reset", func(t *testing.T) { want(t, cut(t, "", true), true) })
	t.Run("closed within the header", func(t *testing.T) { want(t, cut(t, "HTTP/1.1 201 Cre", false), true) })
	t.Run("closed within the body", func(t *testing.T) {
		want(t, cut(t, "HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{", false), true)
	})
	t.Run("not HTTP", func(t *testing.T) { want(t, cut(t, "SSH-2.0-x\r\n", false), true) })
	t.Run("refusal closed within the body", func(t *testing.T) {
		f := cut(t, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\n{", false)
		if f == nil || f.Reason != conversations.FailureAuth || f.Unknown {
			t.Errorf("got %+v, want what the status says", f)
		}
	})
	t.Run("answer too large", func(t *testing.T) {
		// An acceptance behind more blanks than are read, and then no end: only
		// a limit lets the call return.
		rec := httptest.NewRecorder()
		h.Accept(rec, httptest.NewRequest(http.MethodPost, "/", nil))
		blanks := bytes.Repeat([]byte(" "), providers.MaxAnswer)
		server := farEnd(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(rec.Code)
			_, err := w.Write(append(slices.Clone(blanks), rec.Body.Bytes()...))
			for err == nil {
				_, err = w.Write(blanks)
			}
		})
		_, f := h.bench(t, server.URL).send(t.Context(), t, h.Outbound)
		want(t, f, true)
	})
	t.Run("accepted", func(t *testing.T) { // so that the cases above fail for their own reason
		server := farEnd(t, h.Accept)
		sent, f := h.bench(t, server.URL).send(t.Context(), t, h.Outbound)
		if f != nil || sent.ProviderID == "" || sent.Status != conversations.DeliveryAccepted {
			t.Errorf("got %+v and %v, want it accepted", sent, f)
		}
	})
}

// testSecrets lets the far end say back all that it was told, as providers do
// in their error texts, and looks for it in errors and logs.
func (h *Harness) testSecrets(t *testing.T) {
	var status atomic.Int64
	var own atomic.Bool
	server := farEnd(t, func(w http.ResponseWriter, r *http.Request) {
		said := string(h.request(t, r)) + fmt.Sprint(r.Header)
		for _, s := range h.Registration.Settings {
			if s.Secret {
				said += " " + h.Values[s.Name]
			}
		}
		said += " " + h.Outbound.Text + " " + h.Outbound.To.Value
		if own.Load() {
			h.Refuse(w, int(status.Load()), said)
			return
		}
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, said) // the client may be gone
	})
	b := h.bench(t, server.URL)
	for _, code := range []int{200, 201, 400, 401, 404, 429, 500, 503} {
		for _, form := range []bool{false, true} {
			status.Store(int64(code))
			own.Store(form)
			if _, f := b.send(t.Context(), t, h.Outbound); f == nil { // send looks into the error
				t.Errorf("%d: got no failure", code)
			}
		}
	}

	s := h.settings(h.Values)
	log := &record{}
	log.logger().Info("made", "settings", s, "provider", b.Provider)
	h.checkSecrets(t, "a logged adapter", log.String())
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		h.checkSecrets(t, "formatted settings", fmt.Sprintf(format, s))
	}
}

// testConcurrent uses one adapter from several goroutines, as the edge and the
// dispatcher do; the race detector is what fails it, and answers that differ.
func (h *Harness) testConcurrent(t *testing.T) {
	server := farEnd(t, h.Accept)
	b := h.bench(t, server.URL)
	hook := h.webhook()
	h.Sign(&hook, h.Values[h.SigningKeys[0]])
	want, err := b.Parse(hook)
	if err != nil || len(want) != 1 {
		t.Fatalf("Parse of the harness's webhook: got %d reports and %v, want one", len(want), err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := b.Verify(hook); err != nil {
				t.Errorf("Verify: %v", err)
			}
			if got, err := b.Parse(hook); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("Parse: got %+v and %v, want %+v", got, err, want)
			}
			if _, err := b.Send(t.Context(), h.Outbound); err != nil {
				t.Errorf("Send: %v", err)
			}
		})
	}
	all.Wait()
}
