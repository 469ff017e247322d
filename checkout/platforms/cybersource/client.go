package cybersource

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// maxAnswer bounds what is read of an answer. Real ones are a few kB.
	maxAnswer = 1 << 20
	// DefaultTimeout ends a call whose context has no earlier deadline.
	// CyberSource gives up on a processor earlier than that.
	DefaultTimeout = 30 * time.Second
)

// Client makes signed calls. It is safe for concurrent use.
type Client struct {
	base   *url.URL
	signer Signer
	http   http.Client
	log    *slog.Logger
	now    func() time.Time
}

// NewClient returns a client for the API at baseURL, for example
// https://api.cybersource.com. Redirects are not followed, whatever client
// says: a signature covers host and path, and a followed redirect is a second
// call.
func NewClient(baseURL string, signer Signer, client *http.Client, log *slog.Logger, now func() time.Time) (*Client, error) {
	base, err := url.Parse(baseURL)
	if err != nil || (base.Scheme != "https" && base.Scheme != "http") || base.Host == "" || base.RawQuery != "" || base.Fragment != "" || base.User != nil {
		return nil, errors.New("base_url is not an address like https://api.cybersource.com")
	}
	base.Path = strings.TrimRight(base.Path, "/")
	c := &Client{base: base, signer: signer, http: *client, log: log, now: now}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http.Jar = nil
	return c, nil
}

// Call is one call of the API.
type Call struct {
	Method string
	Path   string    // absolute, without a query
	Body   any       // marshalled once; nil for none
	Accept string    // empty: application/json
	SendBy time.Time // zero: any time
	// Public calls go without a signature.
	Public bool
}

// Answer is what came back, whatever the status.
type Answer struct {
	Status        int
	Body          []byte
	CorrelationID string // CyberSource's v-c-correlation-id, to quote to its support
	// At is when it was answered, by CyberSource's clock, to the second; zero where
	// that was not told.
	At time.Time
}

// NoAnswerError says that no usable answer came, and whether the call may have
// reached CyberSource. Its text is one of a fixed set of words: an answer that
// cannot be read may hold anything.
type NoAnswerError struct {
	// Sent is false when the request surely never left: nothing was done. It is
	// true from the moment at which a connection was there to write to.
	Sent   bool
	Call   string // method and path
	Reason string // why, one of a fixed set of words
	Err    error  // for errors.Is; not part of the text
}

// Error names the call and the reason.
func (e *NoAnswerError) Error() string {
	if e.Sent {
		return fmt.Sprintf("cybersource: %s: no answer: %s", e.Call, e.Reason)
	}
	return fmt.Sprintf("cybersource: %s: not sent: %s", e.Call, e.Reason)
}

// Unwrap returns the inner error.
func (e *NoAnswerError) Unwrap() error { return e.Err }

// The errors behind a NoAnswerError that do not come from the network.
var (
	ErrAnswerTooLarge = errors.New("the answer is larger than 1 MB")
	ErrSendByPassed   = errors.New("the time to send it had passed")
)

// Do makes exactly one call and returns its answer with whatever status it
// has, or a *NoAnswerError. It never repeats a call.
//
// Call.SendBy, unless zero, is the time after which the request is not sent
// any more; it does not bound the wait for the answer, which is ctx's. It goes
// into the signature, where the scheme has a place for it.
func (c *Client) Do(ctx context.Context, call Call) (Answer, error) {
	name := call.Method + " " + call.Path
	refuse := func(reason string, err error) (Answer, error) {
		return Answer{}, &NoAnswerError{Call: name, Reason: reason, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return refuse(reasonOf(err), err)
	}
	if !call.SendBy.IsZero() && !c.now().Before(call.SendBy) {
		return refuse(ErrSendByPassed.Error(), ErrSendByPassed)
	}
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	sent := &sending{cancel: cancel}
	if !call.SendBy.IsZero() {
		timer := time.AfterFunc(call.SendBy.Sub(c.now()), sent.tooLate)
		defer timer.Stop()
	}
	req, err := c.request(httptrace.WithClientTrace(ctx, sent.trace()), call)
	if err != nil {
		return refuse("the request could not be made", err)
	}
	started := c.now()
	resp, err := c.http.Do(req)
	if err != nil {
		err = sent.failure(name, err)
		c.log.Warn("cybersource call failed", "method", call.Method, "path", call.Path, "error", err, "duration", c.now().Sub(started))
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }() // what was read counts; closing can add nothing
	answer := Answer{Status: resp.StatusCode, CorrelationID: clean(resp.Header.Get("v-c-correlation-id"))}
	answer.At, _ = http.ParseTime(resp.Header.Get("Date")) // zero, as said
	answer.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer.Body) > maxAnswer {
		err = ErrAnswerTooLarge
	}
	level := slog.LevelDebug
	// What was looked up and does not show yet is what a search lag looks like.
	notYet := call.Method == http.MethodGet && answer.Status == http.StatusNotFound
	if err != nil || answer.Status >= 300 && !notYet {
		level = slog.LevelWarn
	}
	c.log.Log(ctx, level, "cybersource call answered", "method", call.Method, "path", call.Path,
		"status", answer.Status, "correlation_id", answer.CorrelationID, "duration", c.now().Sub(started))
	if err != nil {
		return Answer{}, &NoAnswerError{Sent: true, Call: name, Reason: reasonOf(err), Err: err}
	}
	return answer, nil
}

// request marshals the body once, so that what is signed is what is sent.
func (c *Client) request(ctx context.Context, call Call) (*http.Request, error) {
	target := *c.base
	target.Path += call.Path
	var body []byte
	var reader io.Reader
	if call.Body != nil {
		var err error
		if body, err = json.Marshal(call.Body); err != nil {
			return nil, err
		}
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, call.Method, target.String(), reader)
	if err != nil {
		return nil, err
	}
	req.Host = c.base.Host // net/http ignores a Host in the header map
	if call.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	accept := call.Accept
	if accept == "" {
		accept = "application/json"
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "paythread")
	if call.Public {
		return req, nil
	}
	return req, c.signer.Sign(req, body, call.SendBy)
}

// sending watches whether a request can have left this machine.
//
// The line is drawn where the transport gets a connection to write to, and not
// where it reports to have written: cancelled in between, it may still be
// writing after the call has returned. Before that line (looking up the name,
// dialling, the TLS handshake) no byte of the request can have left.
//
// The transport makes a second try by itself in one case only that a POST
// without an idempotency key allows: a reused connection was dead before
// anything was written. Asking for a connection again therefore proves that
// the try before did nothing.
type sending struct {
	cancel context.CancelFunc

	mu        sync.Mutex
	asked     bool // the transport reported at all: without that nothing is proven
	connected bool
	late      bool // SendBy passed before there was a connection
}

func (s *sending) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked, s.connected = true, false
		},
		GotConn: func(httptrace.GotConnInfo) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.connected = true
		},
	}
}

// tooLate ends a call that has no connection yet. One that has is sent, and
// its answer is awaited.
func (s *sending) tooLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.connected {
		s.late = true
		s.cancel()
	}
}

func (s *sending) failure(call string, err error) *NoAnswerError {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &NoAnswerError{Sent: !s.asked || s.connected, Call: call, Reason: reasonOf(err), Err: inner(err)}
	if s.late && !e.Sent {
		e.Reason, e.Err = ErrSendByPassed.Error(), ErrSendByPassed
	}
	return e
}

// inner takes off the *url.Error, which repeats the address.
func inner(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// reasonOf turns a transport's error into one of a fixed set of words.
func reasonOf(err error) string {
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var alert tls.AlertError
	var timeout net.Error
	switch {
	case errors.Is(err, ErrAnswerTooLarge):
		return ErrAnswerTooLarge.Error()
	case errors.Is(err, context.Canceled):
		return "the call was cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		return "the time for it ran out"
	case errors.As(err, &dns):
		return "the host name could not be looked up"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused"
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert), errors.Is(err, http.ErrSchemeMismatch):
		return "no TLS connection could be made"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was lost"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "the time for it ran out"
	}
	return "the connection failed"
}

// clean keeps a foreign header value fit for a log.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r > ' ' && r <= '~' {
			return r
		}
		return -1
	}, s)
	return s[:min(len(s), 64)]
}
