package providers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"paythread/conversations"
)

// MaxAnswer is the most that is read of a provider's answer. The answers that
// matter have less than 2 KB.
const MaxAnswer = 64 << 10

// longestWait bounds what a Retry-After header can make us wait.
const longestWait = time.Hour

// Answer is what a provider answered to a call.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // at most MaxAnswer
	Cut    bool   // there was more, or the rest did not come
}

// OK tells whether the status says that the call was accepted.
func (a Answer) OK() bool { return a.Status >= 200 && a.Status < 300 }

// RetryAfter returns the seconds of the Retry-After header, at most an hour,
// or zero.
func (a Answer) RetryAfter() time.Duration {
	s, err := strconv.Atoi(strings.TrimSpace(a.Header.Get("Retry-After")))
	if err != nil || s <= 0 {
		return 0
	}
	return min(time.Duration(min(s, int(longestWait/time.Second)))*time.Second, longestWait)
}

// WithoutRedirects returns a copy of client that hands a redirect back as the
// answer: following one would send credentials and message texts to an address
// that nobody configured.
func WithoutRedirects(client *http.Client) *http.Client {
	c := *client
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// Call makes one call of a provider's API and reads the answer. When there is
// none it returns a *Failure that tells apart what must not be confused: the
// call surely did not reach the provider (no connection was made; Retryable),
// or it may have (Unknown).
func Call(client *http.Client, req *http.Request) (Answer, error) {
	// A connection in hand is where certainty ends: from then on bytes may have
	// left. The transport asks for a connection again only if nothing was
	// written to the last one (a POST is not replayed), so asking resets it.
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{
		GetConn: func(string) { connected.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), trace))

	res, err := client.Do(req)
	if err != nil {
		return Answer{}, noAnswer(err, connected.Load())
	}
	defer func() { _ = res.Body.Close() }() // the answer is read, nothing is left to lose

	body, err := io.ReadAll(io.LimitReader(res.Body, MaxAnswer+1))
	a := Answer{Status: res.StatusCode, Header: res.Header, Body: body}
	if len(body) > MaxAnswer {
		a.Body, a.Cut = body[:MaxAnswer], true
	}
	if err != nil {
		if a.OK() || a.Status >= 500 {
			return Answer{}, noAnswer(err, true)
		}
		a.Cut = true // a refusal is one by its status alone
	}
	return a, nil
}

// noAnswer is the failure of a call without an answer.
func noAnswer(err error, connected bool) *Failure {
	return &Failure{
		Reason:    conversations.FailureProviderError,
		Retryable: !connected,
		Unknown:   connected,
		Err:       bare(err),
	}
}

// bare takes the address out of an error of the HTTP client, which may hold an
// account's name, and keeps what programs ask about.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("no answer: %w", context.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	}
	return fmt.Errorf("no answer: %w", err)
}
