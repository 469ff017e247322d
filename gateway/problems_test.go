package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
	"paythread/conversations/redistest"
)

func TestProblemOf(t *testing.T) {
	t.Parallel()
	inner := errors.New("dial tcp 10.0.0.7: refused")
	for _, c := range []struct {
		name         string
		err          error
		status       int
		code, reason string
		location     string
	}{
		{"invalid", conversations.Invalid("tax.value", "wrong"), 422, "invalid", "", "body.tax.value"},
		{"wrapped", fmt.Errorf("create: %w", conversations.Invalid("cursor", "wrong")), 422, "invalid", "", "query.cursor"},
		{"header", conversations.Invalid("Last-Event-ID", "wrong"), 422, "invalid", "", "header.Last-Event-ID"},
		{"mismatch", &conversations.Error{Code: conversations.CodeInvalid, Field: "Idempotency-Key", Reason: "idempotency_mismatch", Message: "m"}, 422, "idempotency_mismatch", "idempotency_mismatch", "header.Idempotency-Key"},
		{"unauthorized", &conversations.Error{Code: conversations.CodeUnauthorized, Reason: "token_expired", Message: "m"}, 401, "unauthorized", "token_expired", ""},
		{"not found", conversations.NotFound("thing"), 404, "not_found", "", ""},
		{"refused", conversations.Refused("processing", "m"), 409, "conflict", "processing", ""},
		{"expired", &conversations.Error{Code: conversations.CodeExpired, Message: "m"}, 410, "expired", "", ""},
		{"unavailable", conversations.Unavailable(inner), 503, "unavailable", "", ""},
		{"too slow", fmt.Errorf("read: %w", context.DeadlineExceeded), 503, "unavailable", "", ""},
		{"no code", &conversations.Error{Message: "secret words"}, 500, "internal", "", ""},
		{"anything else", inner, 500, "internal", "", ""},
		{"fiber 404", fiber.ErrNotFound, 404, "not_found", "", ""},
		{"fiber 405", fiber.ErrMethodNotAllowed, 405, "invalid", "method_not_allowed", ""},
		{"fiber 413", fiber.ErrRequestEntityTooLarge, 413, "invalid", "too_large", ""},
		{"fiber 426", fiber.ErrUpgradeRequired, 426, "invalid", "", ""},
		{"fiber 500", fiber.NewError(500, "secret words"), 500, "internal", "", ""},
		{"fiber 503", fiber.ErrServiceUnavailable, 503, "unavailable", "", ""},
	} {
		p := problemOf(c.err)
		if p.Status != c.status || string(p.Code) != c.code || p.Reason != c.reason || p.Title == "" || p.Detail == "" || p.Type != "/docs/problems#"+c.code {
			t.Errorf("%s: %+v", c.name, p)
		}
		if strings.Contains(p.Detail, "10.0.0.7") || strings.Contains(p.Detail, "secret") {
			t.Errorf("%s shows what is for the log: %q", c.name, p.Detail)
		}
		location := ""
		if len(p.Errors) > 0 {
			location = p.Errors[0].Location
		}
		if location != c.location {
			t.Errorf("%s: location %q, want %q", c.name, location, c.location)
		}
		if got := p.GetHeaders().Get("Retry-After"); (got != "") != (c.status == 503) {
			t.Errorf("%s: Retry-After %q", c.name, got)
		}
	}
}

// TestUniformProblems: what Fiber refuses by itself, and what breaks, looks
// like everything else.
func TestUniformProblems(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	secret := "eyJhbGciOi.secret.link"
	b.call(apiCall{method: "GET", path: "/pay-not-there/" + secret}).problem(t, 404, "not_found", "")
	b.call(apiCall{method: "GET", path: "/v1/nothing", token: acmeKey}).problem(t, 404, "not_found", "")
	for _, call := range []apiCall{{method: "DELETE", path: "/v1/payment-requests"}, {method: "PUT", path: "/v1/payment-requests/pr_1"}, {method: "GET", path: "/v1/agent-sessions"}} {
		call.token = acmeKey
		r := b.call(call)
		r.problem(t, 405, "invalid", "method_not_allowed")
		if r.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", call.method, call.path)
		}
	}
	if b.log.String() != "" {
		t.Errorf("refusals were logged: %s", b.log.String())
	}
	if r := b.call(apiCall{method: "GET", path: "/v1/deadline", token: acmeKey}).want(t, 200); r.get("bounded") != true {
		t.Error("a handler runs without an end")
	}
	b.call(apiCall{method: "GET", path: "/v1/panic", token: acmeKey}).problem(t, 500, "internal", "")
	if log := b.log.String(); strings.Count(log, "on purpose") != 1 || strings.Count(log, "level=") != 1 {
		t.Errorf("the panic was logged as %s", log)
	}
	b.call(apiCall{method: "GET", path: "/v1/payment-requests", token: acmeKey}).want(t, 200) // and the process lives on
}

// TestRedisAway: every call says that it may be tried again, and each failure
// is logged once.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := newAPIBench(t, func(o *conversations.Options) { o.Addresses = []string{server.Addr} })
	id := b.create("1042").text("id")
	token, sealed := b.session("1042")
	server.Kill()
	calls := everyCall(id, sealed, "new")
	var asked sync.WaitGroup
	for _, call := range calls { // at once: each is tried for some seconds
		call.token, call.key, call.header = acmeKey, "k", map[string]string{"Accept": "application/json", "Origin": acmeOrigin}
		if call.path == "/v1/message-previews" {
			call.token = token // a server's has nothing to read
		}
		asked.Add(1)
		go func() {
			defer asked.Done()
			r, err := b.try(call)
			if err != nil || r.status != 503 || r.text("code") != "unavailable" || r.header.Get("Content-Type") != problemType {
				t.Errorf("%s %s: %v %d %s", call.method, call.path, err, r.status, r.raw)
			}
			if r.header.Get("Retry-After") == "" || r.header.Get("Access-Control-Allow-Origin") != acmeOrigin {
				t.Errorf("%s %s: headers %v", call.method, call.path, r.header)
			}
			if strings.Contains(r.raw, "refused") || strings.Contains(r.raw, server.Addr) {
				t.Errorf("it shows what is for the log: %s", r.raw)
			}
		}()
	}
	asked.Wait()
	if got := strings.Count(b.log.String(), "level=ERROR"); got != len(calls) {
		t.Errorf("%d failures were logged as %d: %s", len(calls), got, b.log.String())
	}
	for _, secret := range []string{acmeKey, token, "821234567"} {
		if strings.Contains(b.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}
