package main

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestBodiesWithTwoLengths sends what a smuggler would: the proxy in front and
// we must not disagree where a request ends.
func TestBodiesWithTwoLengths(t *testing.T) {
	t.Parallel()
	app := fiber.New(fiber.Config{DisableStartupMessage: true, ErrorHandler: problemHandler(slog.New(slog.DiscardHandler))})
	app.Use(recoverPanics, refuseTwoLengths, refuseEncodings)
	app.Post("/", func(c *fiber.Ctx) error { return c.SendString("taken") })
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- app.Listener(socket) }()
	t.Cleanup(func() {
		if err := app.ShutdownWithTimeout(10 * time.Second); err != nil {
			t.Error(err)
		}
		<-served
	})
	const body = "5\r\nhello\r\n0\r\n\r\n"
	for name, c := range map[string]struct {
		headers string
		body    string
		status  int
		close   bool
	}{
		"chunks":              {"Transfer-Encoding: chunked\r\n", body, 200, false},
		"both":                {"Content-Length: 20\r\nTransfer-Encoding: chunked\r\n", body, 400, true},
		"both, the other way": {"Transfer-Encoding: chunked\r\ncontent-length: 4\r\n", body, 400, true},
		"both, no chunk":      {"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400, true},
		"a length":            {"Content-Length: 15\r\n", body, 200, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", socket.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n%s", c.headers, c.body); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != c.status || resp.Close != c.close {
				t.Errorf("answered %d, closing %t; want %d, %t", resp.StatusCode, resp.Close, c.status, c.close)
			}
		})
	}
}

// TestCallsAreCountedByTheirRoute holds that no address becomes a label: it may
// hold a link, and anybody can make up new ones.
func TestCallsAreCountedByTheirRoute(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	app := fiber.New(fiber.Config{DisableStartupMessage: true, ErrorHandler: problemHandler(slog.New(slog.DiscardHandler))})
	app.Use(newHTTPMetrics(registry).count, recoverPanics)
	app.Get("/pay/:jwt", func(c *fiber.Ctx) error { return c.SendString("a page") })
	app.Get("/broken/:how", func(*fiber.Ctx) error { panic("at the first word") })
	for path, status := range map[string]int{"/pay/secret-token": 200, "/nothing/secret-token": 404, "/broken/secret-token": 500} {
		resp, err := app.Test(httptest.NewRequest(http.MethodGet, path, nil))
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != status {
			t.Errorf("%s answers %d, want %d", path, resp.StatusCode, status)
		}
	}
	want := `# HELP paythread_http_requests_total Calls of the public listener, by method, route and status.
# TYPE paythread_http_requests_total counter
paythread_http_requests_total{method="GET",route="/broken/:how",status="500"} 1
paythread_http_requests_total{method="GET",route="/pay/:jwt",status="200"} 1
paythread_http_requests_total{method="GET",route="none",status="404"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "paythread_http_requests_total"); err != nil {
		t.Error(err)
	}
}

// TestUnknownMethods: a method that nobody has heard of is refused like any
// other that an address does not take.
func TestUnknownMethods(t *testing.T) {
	t.Parallel()
	app := fiber.New(fiber.Config{ErrorHandler: problemHandler(slog.New(slog.DiscardHandler))})
	refuseUnknownMethods(app)
	app.Get("/v1/things", func(c *fiber.Ctx) error { return c.SendString("here") })
	for method, want := range map[string]int{"GET": 200, "QUERY": 405, "get": 405, "PUT": 405, "PROPFIND": 405} {
		answer, err := app.Test(httptest.NewRequest(method, "/v1/things", nil), -1)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close() // the head says enough
		if answer.StatusCode != want || want == 405 && (answer.Header.Get("Content-Type") != problemType || answer.Header.Get("Allow") == "") {
			t.Errorf("%s: %d %v, want %d", method, answer.StatusCode, answer.Header, want)
		}
	}
}
