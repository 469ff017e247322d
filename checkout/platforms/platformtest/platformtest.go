// Package platformtest is the suite that every payment platform runs. It plays
// a far end that fails in every way a far end can, and holds the platform to
// the rules that keep a customer from being charged twice: one call at most,
// "not taken" only when that is certain, "paid" only for what was asked.
package platformtest

import (
	"bytes"
	"context"
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

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// Suite says how to make a platform and what its far end answers.
type Suite struct {
	// New makes the platform against a far end at baseURL.
	New func(t *testing.T, baseURL string, client *http.Client, log *slog.Logger) platforms.Platform
	// Charge is a charge that is right in everything. Its attempt is a sale.
	Charge platforms.ChargeRequest
	// Secrets must never show in an error, a result or a log. The transient
	// token is one without being listed.
	Secrets []string
	// ApprovedStatus and Approved are an approval of the attempt for an amount.
	ApprovedStatus int
	Approved       func(a conversations.Attempt, amount conversations.Money) string
	// Refused and Duplicate are bodies of a 400: one that surely took nothing,
	// and one that says that the reference has been used before.
	Refused, Duplicate string
	// NotTaken lists the statuses that surely took nothing, whatever the body.
	NotTaken []int
	// NothingFoundStatus and NothingFound answer an inquiry about nothing.
	NothingFoundStatus int
	NothingFound       string

	// What only some platforms can do. One that can and does not say so, or says
	// so and cannot, fails.

	// Done is the answer of a follow-on call of some kind that was done as the
	// transaction DoneID; nil: the platform has no operations.
	Done   func(op conversations.Operation) string
	DoneID string
	// TakenBack answers every call of a time-out reversal that was done; empty:
	// the platform has none.
	TakenBack string
	// Audits says that the platform can list what it did; NothingFound answers
	// that, too, and a status of 404 the question for one transaction.
	Audits bool
	// Notifications are those that the platform reads; nil: none.
	Notifications *Notifications
}

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	t.Helper()
	t.Run("charge", s.charge)
	t.Run("charge without a far end", s.unreachable)
	t.Run("every status", s.statuses)
	t.Run("capture context", s.contexts)
	t.Run("transient token", s.tokens)
	t.Run("inquiry", s.inquiries)
	t.Run("abilities", s.abilities)
	t.Run("operations", s.operations)
	t.Run("operations that are done", s.operationsDone)
	t.Run("operations at the wrong time", s.operationsInTime)
	t.Run("time-out reversal", s.takenBack)
	t.Run("audit", s.audit)
	t.Run("notifications", s.notifications)
}

// farEnd is one server with a platform that talks to it.
type farEnd struct {
	t        *testing.T
	suite    Suite
	platform platforms.Platform
	calls    atomic.Int32
	log      safeBuffer
	arrived  chan struct{}
}

// safeBuffer is a log that may be written while it is read.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what was written so far.
func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (s Suite) start(t *testing.T, handle http.HandlerFunc) *farEnd {
	t.Helper()
	f := &farEnd{t: t, suite: s, arrived: make(chan struct{}, 4096)}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the request has arrived whole
		f.calls.Add(1)
		f.arrived <- struct{}{}
		handle(w, r)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	t.Cleanup(server.Close)
	f.platform = s.make(t, server.URL, &f.log)
	return f
}

func (s Suite) make(t *testing.T, baseURL string, log io.Writer) platforms.Platform {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return s.New(t, baseURL, &http.Client{Transport: transport}, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if status != http.StatusNoContent && status != http.StatusNotModified {
			_, _ = io.WriteString(w, body)
		}
	}
}

func cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// wantCalls checks how many calls the far end has seen.
func (f *farEnd) wantCalls(n int32) {
	f.t.Helper()
	if got := f.calls.Load(); got != n {
		f.t.Errorf("%d calls reached the far end, want %d", got, n)
	}
}

// wantSilence checks that nothing secret is in the log or in what came back.
func (s Suite) wantSilence(t *testing.T, log string, values ...any) {
	t.Helper()
	for _, v := range values {
		log += fmt.Sprintf(" %v %+v", v, v)
	}
	for _, secret := range append([]string{s.Charge.TransientToken, "Bearer"}, s.Secrets...) {
		if secret != "" && strings.Contains(log, secret) {
			t.Errorf("a secret of %d bytes shows in a log, a result or an error", len(secret))
		}
	}
}

func (s Suite) charge(t *testing.T) {
	t.Parallel()
	asked := s.Charge.Attempt.Amount
	approved := s.Approved(s.Charge.Attempt, asked)
	other := s.Charge.Attempt
	other.Code += "9"
	less, more := asked, asked
	less.Minor--
	more.Minor++
	foreign := conversations.Money{Minor: asked.Minor, Currency: "EUR"}
	if asked.Currency == "EUR" {
		foreign.Currency = "USD"
	}
	const unknown, notTaken = conversations.OutcomeUnknown, conversations.OutcomeNotTaken
	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc
		cancel bool // once the request has arrived
		want   []conversations.Outcome
	}{
		{name: "approved", handle: answer(s.ApprovedStatus, approved), want: []conversations.Outcome{conversations.OutcomeCaptured}},
		{name: "refused", handle: answer(http.StatusBadRequest, s.Refused), want: []conversations.Outcome{notTaken}},
		{name: "duplicate", handle: answer(http.StatusBadRequest, s.Duplicate), want: []conversations.Outcome{unknown}},
		{name: "refused, but not readable", handle: answer(http.StatusBadRequest, s.Refused[:len(s.Refused)-1]), want: []conversations.Outcome{unknown}},
		{name: "approved for less", handle: answer(s.ApprovedStatus, s.Approved(s.Charge.Attempt, less)), want: []conversations.Outcome{conversations.OutcomePartial, unknown}},
		{name: "approved for more", handle: answer(s.ApprovedStatus, s.Approved(s.Charge.Attempt, more)), want: []conversations.Outcome{conversations.OutcomePartial, unknown}},
		{name: "approved in another currency", handle: answer(s.ApprovedStatus, s.Approved(s.Charge.Attempt, foreign)), want: []conversations.Outcome{unknown}},
		{name: "approved for another reference", handle: answer(s.ApprovedStatus, s.Approved(other, asked)), want: []conversations.Outcome{unknown}},
		{name: "approved, cut short", handle: answer(s.ApprovedStatus, approved[:len(approved)-1]), want: []conversations.Outcome{unknown}},
		{name: "approved, with something after it", handle: answer(s.ApprovedStatus, approved+`{}`), want: []conversations.Outcome{unknown}},
		{name: "a member twice", handle: answer(s.ApprovedStatus, `{"status":"DECLINED",`+approved[1:]), want: []conversations.Outcome{unknown}},
		{name: "a member twice in other letters", handle: answer(s.ApprovedStatus, `{"STATUS":"DECLINED",`+approved[1:]), want: []conversations.Outcome{unknown}},
		{name: "not JSON", handle: answer(s.ApprovedStatus, "<html>"+s.Charge.TransientToken), want: []conversations.Outcome{unknown}},
		{name: "empty", handle: answer(s.ApprovedStatus, ""), want: []conversations.Outcome{unknown}},
		{name: "oversized", handle: answer(s.ApprovedStatus, approved+strings.Repeat(" ", 2<<20)), want: []conversations.Outcome{unknown}},
		{name: "echo of the request", handle: answer(s.ApprovedStatus, `{"status":"`+s.Charge.TransientToken+`","reason":"`+s.Charge.TransientToken+`","id":"`+s.Charge.TransientToken+`"}`), want: []conversations.Outcome{unknown}},
		{name: "cut before the answer", handle: cut, want: []conversations.Outcome{unknown}},
		{name: "cancelled while waiting", handle: hang, cancel: true, want: []conversations.Outcome{unknown}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := s.start(t, tt.handle)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.cancel {
				go func() { <-f.arrived; cancel() }()
			}
			result := f.platform.Charge(ctx, s.Charge)
			wantOutcome(t, result, tt.want...)
			if result.Outcome == conversations.OutcomeCaptured && result.Amount != asked {
				t.Errorf("captured %v, want exactly %v", result.Amount, asked)
			}
			f.wantCalls(1)
			s.wantSilence(t, f.log.String(), result)
		})
	}
}

func wantOutcome(t *testing.T, got conversations.Result, want ...conversations.Outcome) {
	t.Helper()
	for _, w := range want {
		if got.Outcome == w {
			return
		}
	}
	t.Errorf("outcome %q (%s), want one of %q", got.Outcome, got.Reason, want)
}

// nowhere is an address that refuses connections.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // its port stays free for as long as the test takes
	return "http://" + l.Addr().String()
}

func (s Suite) unreachable(t *testing.T) {
	t.Parallel()
	t.Run("refused connection", func(t *testing.T) {
		t.Parallel()
		var log safeBuffer
		result := s.make(t, nowhere(t), &log).Charge(t.Context(), s.Charge)
		wantOutcome(t, result, conversations.OutcomeNotTaken)
		s.wantSilence(t, log.String(), result)
	})
	t.Run("context ended before", func(t *testing.T) {
		t.Parallel()
		f := s.start(t, answer(s.ApprovedStatus, s.Approved(s.Charge.Attempt, s.Charge.Attempt.Amount)))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantOutcome(t, f.platform.Charge(ctx, s.Charge), conversations.OutcomeNotTaken)
		f.wantCalls(0)
	})
	t.Run("after the time to send", func(t *testing.T) {
		t.Parallel()
		f := s.start(t, answer(s.ApprovedStatus, s.Approved(s.Charge.Attempt, s.Charge.Attempt.Amount)))
		late := s.Charge
		late.Attempt.SendBy = time.Unix(1, 0)
		wantOutcome(t, f.platform.Charge(t.Context(), late), conversations.OutcomeNotTaken)
		f.wantCalls(0)
	})
}

// statuses walks every status with a body that says nothing.
func (s Suite) statuses(t *testing.T) {
	t.Parallel()
	var status atomic.Int32
	f := s.start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		answer(int(status.Load()), "{}")(w, r)
	})
	var calls int32
	for code := 200; code < 600; code++ {
		status.Store(int32(code))
		want := conversations.OutcomeUnknown
		for _, taken := range s.NotTaken {
			if taken == code {
				want = conversations.OutcomeNotTaken
			}
		}
		result := f.platform.Charge(t.Context(), s.Charge)
		if result.Outcome != want {
			t.Errorf("HTTP %d: outcome %q (%s), want %q", code, result.Outcome, result.Reason, want)
		}
		if result.Reason == "" {
			t.Errorf("HTTP %d: no reason", code)
		}
		calls++
	}
	f.wantCalls(calls)
	s.wantSilence(t, f.log.String())
}

func (s Suite) contexts(t *testing.T) {
	t.Parallel()
	request := platforms.ContextRequest{Request: s.Charge.Request, Origin: "https://pay.example.test", Locale: "en-ZA"}
	for _, tt := range []struct {
		name        string
		handle      http.HandlerFunc
		unavailable bool
	}{
		{"not a token", answer(http.StatusCreated, "hello"), false},
		{"an empty body", answer(http.StatusCreated, ""), false},
		{"unsigned", answer(http.StatusCreated, "eyJhbGciOiJub25lIiwia2lkIjoienUifQ.e30."), false},
		{"refused", answer(http.StatusBadRequest, s.Refused), false},
		{"not authenticated", answer(http.StatusUnauthorized, `{"response":{"rmsg":"Authentication Failed"}}`), false},
		{"too many calls", answer(http.StatusTooManyRequests, ""), true},
		{"out of order", answer(http.StatusServiceUnavailable, ""), true},
		{"cut", cut, true},
		{"oversized", answer(http.StatusCreated, strings.Repeat("A", 2<<20)), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := s.start(t, tt.handle)
			made, err := f.platform.CreateContext(t.Context(), request)
			if err == nil {
				t.Fatalf("a context was made of it: %+v", made)
			}
			if got := conversations.CodeOf(err) == conversations.CodeUnavailable; got != tt.unavailable {
				t.Errorf("unavailable %v, want %v: %v", got, tt.unavailable, err)
			}
			s.wantSilence(t, f.log.String(), err)
		})
	}
}

func (s Suite) tokens(t *testing.T) {
	t.Parallel()
	p := s.make(t, nowhere(t), io.Discard)
	contexts := []conversations.CaptureContext{{KeyID: "zu", Key: `{"kty":"RSA","kid":"zu","n":"","e":""}`, ExpiresAt: time.Now().Add(time.Hour)}}
	for _, token := range []string{"", ".", "..", "a.b.c", "eyJhbGciOiJub25lIiwia2lkIjoienUifQ.e30.", strings.Repeat("A", 1<<20), s.Charge.TransientToken + "\n"} {
		for _, known := range [][]conversations.CaptureContext{nil, contexts} {
			_, err := p.CheckToken(token, known, time.Now())
			if !errors.Is(err, platforms.ErrTokenInvalid) {
				t.Errorf("a token of %d bytes: %v, want ErrTokenInvalid", len(token), err)
			}
			if err != nil {
				s.wantSilence(t, err.Error())
			}
		}
	}
}

func (s Suite) inquiries(t *testing.T) {
	t.Parallel()
	probe, ok := s.make(t, nowhere(t), io.Discard).(platforms.Inquirer)
	if !ok {
		t.Skip("the platform cannot be asked")
	}
	if _, err := probe.Inquire(t.Context(), s.Charge.Attempt); err == nil {
		t.Error("no far end: an answer, want an error")
	}
	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc
		found  bool // the answer is that there is nothing
	}{
		{"nothing there", answer(s.NothingFoundStatus, s.NothingFound), true},
		{"cut short", answer(s.NothingFoundStatus, s.NothingFound[:len(s.NothingFound)-1]), false},
		{"not authenticated", answer(http.StatusUnauthorized, "{}"), false},
		{"out of order", answer(http.StatusInternalServerError, "{}"), false},
		{"cut", cut, false},
		{"oversized", answer(s.NothingFoundStatus, s.NothingFound+strings.Repeat(" ", 2<<20)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := s.start(t, tt.handle)
			result, err := f.platform.(platforms.Inquirer).Inquire(t.Context(), s.Charge.Attempt)
			if tt.found && (err != nil || result.Outcome != conversations.OutcomeNotFound) || !tt.found && err == nil {
				t.Errorf("outcome %q, error %v", result.Outcome, err)
			}
			s.wantSilence(t, f.log.String(), result, err)
		})
	}
}

// operations checks what becomes of a follow-on call that is not answered. For
// all of them "not done" must be certain.
func (s Suite) operations(t *testing.T) {
	t.Parallel()
	attempt, op := s.operation()
	for _, k := range followOns {
		op := op
		op.Kind = k.kind
		for _, tt := range []struct {
			name    string
			handle  http.HandlerFunc // nil: no far end
			want    conversations.OperationState
			wantErr bool
		}{
			{"no far end", nil, conversations.OperationPending, true},
			{"cut", cut, conversations.OperationUnsettled, true},
			{"system error", answer(http.StatusBadGateway, `{"status":"SERVER_ERROR","reason":"SYSTEM_ERROR"}`), conversations.OperationUnsettled, true},
			{"not readable", answer(http.StatusCreated, "{"), conversations.OperationUnsettled, true},
			{"duplicate", answer(http.StatusBadRequest, s.Duplicate), conversations.OperationUnsettled, true},
			{"not authenticated", answer(http.StatusUnauthorized, "{}"), conversations.OperationPending, true},
			{"too many calls", answer(http.StatusTooManyRequests, "{}"), conversations.OperationPending, true},
			{"refused", answer(http.StatusBadRequest, s.Refused), conversations.OperationFailed, false},
		} {
			t.Run(string(k.kind)+", "+tt.name, func(t *testing.T) {
				t.Parallel()
				var log *safeBuffer
				var p platforms.Platform
				var f *farEnd
				if tt.handle == nil {
					log = &safeBuffer{}
					p = s.make(t, nowhere(t), log)
				} else {
					f = s.start(t, tt.handle)
					p, log = f.platform, &f.log
				}
				do := k.of(p)
				if do == nil {
					t.Skip("the platform cannot do this")
				}
				got, err := do(t.Context(), op, attempt)
				if got.State != tt.want || (err != nil) != tt.wantErr {
					t.Errorf("state %q (%s), error %v, want %q, an error: %v", got.State, got.Reason, err, tt.want, tt.wantErr)
				}
				if f != nil {
					f.wantCalls(1)
				}
				s.wantSilence(t, log.String(), got.Reason, err)
			})
		}
	}
}
