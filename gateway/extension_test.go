package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gofiber/fiber/v2"

	"paythread/gateway/web"
)

func TestServeExtension(t *testing.T) {
	t.Parallel()
	script, etag := web.Script()
	app := fiber.New(fiber.Config{Immutable: true})
	app.Get("/extension/paythread.js", serveExtension)

	for name, c := range map[string]struct {
		ifNoneMatch string
		status      int
		size        int
	}{
		"first visit":        {"", http.StatusOK, len(script)},
		"older script":       {`"AAAAAAAAAAAAAAAA"`, http.StatusOK, len(script)},
		"same script":        {etag, http.StatusNotModified, 0},
		"same, weakened":     {"W/" + etag, http.StatusNotModified, 0},
		"one of several":     {`"AAAAAAAAAAAAAAAA", ` + etag, http.StatusNotModified, 0},
		"anything":           {"*", http.StatusNotModified, 0},
		"tag without quotes": {etag[1 : len(etag)-1], http.StatusOK, len(script)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := httptest.NewRequest(http.MethodGet, "/extension/paythread.js", nil)
			req.Header.Set("Origin", "https://shop.example")
			if c.ifNoneMatch != "" {
				req.Header.Set("If-None-Match", c.ifNoneMatch)
			}
			res, err := app.Test(req, -1)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != c.status || len(body) != c.size {
				t.Errorf("got status %d with %d bytes, want %d with %d", res.StatusCode, len(body), c.status, c.size)
			}
			for header, want := range map[string]string{
				"Access-Control-Allow-Origin": "*", "Etag": etag, "X-Content-Type-Options": "nosniff",
				"Cross-Origin-Resource-Policy": "cross-origin", "Cache-Control": "public, max-age=300, stale-while-revalidate=86400",
			} {
				if got := res.Header.Get(header); got != want {
					t.Errorf("got %s: %q, want %q", header, got, want)
				}
			}
			if c.status == http.StatusOK && res.Header.Get("Content-Type") != "text/javascript; charset=utf-8" {
				t.Errorf("got Content-Type %q", res.Header.Get("Content-Type"))
			}
		})
	}
}
