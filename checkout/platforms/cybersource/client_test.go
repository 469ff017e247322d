package cybersource

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

// newClient returns a client for base, and its log.
func newClient(t *testing.T, base string, transport http.RoundTripper) (*Client, *lockedBuffer) {
	t.Helper()
	signer, err := NewJWTSigner(vectorCredentials, time.Now, uuid.NewString)
	if err != nil {
		t.Fatal(err)
	}
	log := &lockedBuffer{}
	c, err := NewClient(base, signer, &http.Client{Transport: transport}, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return c, log
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newTransport(t *testing.T) *http.Transport {
	t.Helper()
	transport := &http.Transport{ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

var payment = Call{Method: http.MethodPost, Path: "/pts/v2/payments", Body: map[string]string{"secret_token": "transient-token-text"}}

// wantNoAnswer checks the error and that nothing secret is in it.
func wantNoAnswer(t *testing.T, err error, sent bool, reason string) {
	t.Helper()
	var e *NoAnswerError
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want a *NoAnswerError", err)
	}
	if e.Sent != sent || e.Reason != reason {
		t.Errorf("sent %v, reason %q, want %v, %q (%v)", e.Sent, e.Reason, sent, reason, e.Err)
	}
	for _, secret := range []string{"transient-token-text", "eyJ", vectorSecret} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error holds %q: %v", secret, err)
		}
	}
}

func TestDoSendsTheBytesItSigned(t *testing.T) {
	t.Parallel()
	type seen struct {
		host, accept, digest, path string
		body                       []byte
		authorization              string
	}
	calls := make(chan seen, 3)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		calls <- seen{host: r.Host, accept: r.Header.Get("Accept"), digest: r.Header.Get("Digest"), path: r.URL.Path, body: body, authorization: r.Header.Get("Authorization")}
		w.Header().Set("v-c-correlation-id", "abc-123")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, `{"status":"X"}`)
	}))
	defer server.Close()
	c, log := newClient(t, server.URL+"/", newTransport(t))
	for range 2 {
		answer, err := c.Do(t.Context(), payment)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status != http.StatusTeapot || string(answer.Body) != `{"status":"X"}` || answer.CorrelationID != "abc-123" {
			t.Errorf("answer %+v", answer)
		}
	}
	first, second := <-calls, <-calls
	if first.path != "/pts/v2/payments" || first.host != strings.TrimPrefix(server.URL, "http://") || first.accept != "application/json" {
		t.Errorf("request %+v", first)
	}
	if string(first.body) != `{"secret_token":"transient-token-text"}` {
		t.Errorf("body %s", first.body)
	}
	if first.authorization == "" || first.authorization == second.authorization {
		t.Error("two calls carried the same token: the jti must be fresh")
	}
	if _, err := c.Do(t.Context(), Call{Method: http.MethodGet, Path: "/flex/v2/public-keys/zu", Public: true}); err != nil {
		t.Fatal(err)
	}
	if public := <-calls; public.authorization != "" || len(public.body) != 0 {
		t.Errorf("a public call was signed or had a body: %+v", public)
	}
	if out := log.String(); !strings.Contains(out, "abc-123") || strings.Contains(out, "eyJ") || strings.Contains(out, "transient-token-text") {
		t.Errorf("log: %s", out)
	}
}

// A process that is stopped after its last look at the clock sends what it had
// signed: the far end must be able to tell that it is too late.
func TestTheFarEndLearnsUntilWhenACallMayBeSent(t *testing.T) {
	t.Parallel()
	authorization := make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { authorization <- r.Header.Get("Authorization") }))
	defer server.Close()
	c, _ := newClient(t, server.URL, newTransport(t))
	call := payment
	if _, err := c.Do(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	if claims := claimsOf(t, <-authorization); claims.ExpiresAt != claims.IssuedAt+120 {
		t.Errorf("a call that may be sent any time is good for %d s, want 120", claims.ExpiresAt-claims.IssuedAt)
	}
	call.SendBy = time.Now().Add(10 * time.Second).Truncate(time.Second)
	if _, err := c.Do(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	if claims := claimsOf(t, <-authorization); claims.ExpiresAt != call.SendBy.Unix() {
		t.Errorf("good until %d, want %d", claims.ExpiresAt, call.SendBy.Unix())
	}
}

func TestDoFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	c, _ := newClient(t, server.URL, newTransport(t))
	answer, err := c.Do(t.Context(), payment)
	if err != nil || answer.Status != http.StatusTemporaryRedirect {
		t.Errorf("answer %+v, %v, want the redirect itself", answer, err)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

func TestNothingIsSentWithoutAConnection(t *testing.T) {
	t.Parallel()
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		c, _ := newClient(t, "http://"+address, newTransport(t))
		_, err = c.Do(t.Context(), payment)
		wantNoAnswer(t, err, false, "the connection was refused")
	})
	t.Run("unknown host", func(t *testing.T) {
		t.Parallel()
		transport := newTransport(t)
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "api.example.test", IsNotFound: true}}
		}
		c, _ := newClient(t, "https://api.example.test", transport)
		_, err := c.Do(t.Context(), payment)
		wantNoAnswer(t, err, false, "the host name could not be looked up")
	})
	t.Run("untrusted certificate", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") }))
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		server.StartTLS()
		defer server.Close()
		c, _ := newClient(t, server.URL, newTransport(t))
		_, err := c.Do(t.Context(), payment)
		wantNoAnswer(t, err, false, "no TLS connection could be made")
	})
	t.Run("not TLS at all", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") }))
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		defer server.Close()
		c, _ := newClient(t, "https://"+strings.TrimPrefix(server.URL, "http://"), newTransport(t))
		_, err := c.Do(t.Context(), payment)
		wantNoAnswer(t, err, false, "no TLS connection could be made")
	})
	t.Run("context ended before", func(t *testing.T) {
		t.Parallel()
		c, _ := newClient(t, "http://127.0.0.1:1", newTransport(t))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Do(ctx, payment)
		wantNoAnswer(t, err, false, "the call was cancelled")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is not context.Canceled", err)
		}
	})
	t.Run("context ended while dialling", func(t *testing.T) {
		t.Parallel()
		dialling := make(chan struct{})
		transport := newTransport(t)
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			close(dialling)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		c, _ := newClient(t, "http://api.example.test", transport)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-dialling; cancel() }()
		_, err := c.Do(ctx, payment)
		wantNoAnswer(t, err, false, "the call was cancelled")
	})
	t.Run("send-by passed before", func(t *testing.T) {
		t.Parallel()
		c, _ := newClient(t, "http://127.0.0.1:1", newTransport(t))
		call := payment
		call.SendBy = time.Now().Add(-time.Millisecond)
		_, err := c.Do(t.Context(), call)
		wantNoAnswer(t, err, false, ErrSendByPassed.Error())
	})
	t.Run("send-by passed while dialling", func(t *testing.T) {
		t.Parallel()
		transport := newTransport(t)
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		c, _ := newClient(t, "http://api.example.test", transport)
		call := payment
		call.SendBy = time.Now().Add(20 * time.Millisecond)
		_, err := c.Do(t.Context(), call)
		wantNoAnswer(t, err, false, ErrSendByPassed.Error())
		if !errors.Is(err, ErrSendByPassed) {
			t.Errorf("%v is not ErrSendByPassed", err)
		}
	})
}

func TestSendByDoesNotCutTheAnswer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.WriteHeader(http.StatusCreated)
	}))
	defer server.Close()
	c, _ := newClient(t, server.URL, newTransport(t))
	call := payment
	call.SendBy = time.Now().Add(2 * time.Second)
	// The answer is held until the time to send has passed.
	time.AfterFunc(time.Until(call.SendBy)+50*time.Millisecond, func() { close(release) })
	answer, err := c.Do(t.Context(), call)
	if err != nil || answer.Status != http.StatusCreated {
		t.Errorf("answer %+v, %v, want the answer", answer, err)
	}
}

func TestAnAnswerThatDoesNotComeIsUnknown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, reason string
		cancel       bool
		handle       http.HandlerFunc
	}{
		{name: "cut before the answer", reason: "the connection was lost", handle: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{name: "cut inside the body", reason: "the connection was lost", handle: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"status":"AUTHORIZED"`)
			panic(http.ErrAbortHandler)
		}},
		{name: "too large", reason: ErrAnswerTooLarge.Error(), handle: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, strings.Repeat(" ", maxAnswer+1))
		}},
		{name: "not HTTP", reason: "the connection failed", handle: func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "transient-token-text "+r.Header.Get("Authorization")+"\r\n\r\n")
			_ = conn.Close()
		}},
		{name: "cancelled while waiting", reason: "the call was cancelled", cancel: true, handle: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
	} {
		for _, protocol := range []int{1, 2} {
			if protocol == 2 && tt.name == "not HTTP" {
				continue // HTTP/2 has no connection to take over
			}
			t.Run(fmt.Sprintf("%s, HTTP/%d", tt.name, protocol), func(t *testing.T) {
				t.Parallel()
				var calls atomic.Int32
				arrived := make(chan struct{}, 8)
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if r.ProtoMajor != protocol {
						t.Errorf("HTTP/%d, want %d", r.ProtoMajor, protocol)
					}
					calls.Add(1)
					arrived <- struct{}{}
					tt.handle(w, r)
				}))
				server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
				server.EnableHTTP2 = protocol == 2
				server.StartTLS()
				defer server.Close()
				c, log := newClient(t, server.URL, server.Client().Transport)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.cancel {
					go func() { <-arrived; cancel() }()
				}
				_, err := c.Do(ctx, payment)
				reason := tt.reason
				var e *NoAnswerError
				if protocol == 2 && reason == "the connection was lost" && errors.As(err, &e) {
					reason = e.Reason // HTTP/2 has its own errors for a reset stream
				}
				wantNoAnswer(t, err, true, reason)
				if n := calls.Load(); n != 1 {
					t.Errorf("%d calls reached the server, want exactly 1", n)
				}
				if out := log.String(); strings.Contains(out, "eyJ") || strings.Contains(out, "transient-token-text") {
					t.Errorf("log: %s", out)
				}
			})
		}
	}
}

// A silent round tripper proves nothing, so its errors count as sent.
func TestWithoutATraceNothingIsProven(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, "https://api.example.test", roundTripper(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }))
	_, err := c.Do(t.Context(), payment)
	wantNoAnswer(t, err, true, "the connection was lost")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A POST over a kept connection that the server closes is the case in which
// net/http repeats requests by itself. A request that was read must not be.
func TestPOSTIsNotRepeatedOnADeadConnection(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					if requests.Add(1) > 1 {
						return // read whole, then cut without a word
					}
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
				}
			})
		}
	})
	transport := newTransport(t)
	c, _ := newClient(t, "http://"+l.Addr().String(), transport)
	if _, err := c.Do(t.Context(), payment); err != nil {
		t.Fatal(err)
	}
	_, err = c.Do(t.Context(), payment)
	wantNoAnswer(t, err, true, "the connection was lost")
	if n := requests.Load(); n != 2 {
		t.Errorf("%d requests reached the server, want 2: one for each call", n)
	}
	transport.CloseIdleConnections()
	_ = l.Close() // ends the accept loop
	wg.Wait()
}

// deadConn is a kept connection on which no byte of the next request can be
// written.
type deadConn struct {
	net.Conn
	dead *atomic.Bool
}

func (c deadConn) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return 0, errors.New("write on a dead connection")
	}
	return c.Conn.Write(p)
}

// When nothing could be written to the kept connection, the transport dials
// again; if that is refused, nothing was sent, although there once was a
// connection.
func TestDeadConnectionAndNoNewOneIsNotSent(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		_, _ = io.WriteString(w, "{}")
	}))
	defer server.Close()
	var dead, refuse atomic.Bool
	transport := newTransport(t)
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dead.Load() && refuse.Load() {
			return nil, errors.New("refused")
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if dead.Load() {
			return conn, err
		}
		return deadConn{Conn: conn, dead: &dead}, err
	}
	c, _ := newClient(t, server.URL, transport)
	if _, err := c.Do(t.Context(), payment); err != nil {
		t.Fatal(err)
	}
	dead.Store(true)
	refuse.Store(true)
	_, err := c.Do(t.Context(), payment)
	wantNoAnswer(t, err, false, "the connection failed")
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

func TestNewClientRefusesAddresses(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"", "api.cybersource.com", "ftp://api.cybersource.com", "https://user:pass@api.cybersource.com", "https://api.cybersource.com?x=y", "https://", "https://\x7f"} {
		if _, err := NewClient(base, nil, http.DefaultClient, slog.Default(), time.Now); err == nil {
			t.Errorf("%q was taken", base)
		} else if strings.Contains(err.Error(), "pass") {
			t.Errorf("the error repeats the address: %v", err)
		}
	}
}

func TestTLSAlertIsNotSent(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	server.StartTLS()
	defer server.Close()
	transport := server.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.MaxVersion = tls.VersionTLS12
	t.Cleanup(transport.CloseIdleConnections)
	c, _ := newClient(t, server.URL, transport)
	_, err := c.Do(t.Context(), payment)
	var e *NoAnswerError
	if !errors.As(err, &e) || e.Sent {
		t.Errorf("error %v, want one that was not sent", err)
	}
}
