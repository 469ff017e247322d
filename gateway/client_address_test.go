package main

import (
	"net"
	"net/netip"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ffff::/48")}
	for _, tt := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"nobody between", "203.0.113.7", nil, "203.0.113.7"},
		{"forged, past the proxies", "203.0.113.7", []string{"198.51.100.1"}, "203.0.113.7"},
		{"forged as a proxy, past the proxies", "203.0.113.7", []string{"10.0.0.1"}, "203.0.113.7"},
		{"a proxy", "10.0.0.1", []string{"203.0.113.7"}, "203.0.113.7"},
		{"two proxies", "10.0.0.1", []string{"203.0.113.7, 10.0.0.2"}, "203.0.113.7"},
		{"forged, through a proxy", "10.0.0.1", []string{"198.51.100.1, 203.0.113.7"}, "203.0.113.7"},
		{"forged as a proxy, through a proxy", "10.0.0.1", []string{"198.51.100.1,10.9.9.9,203.0.113.7"}, "203.0.113.7"},
		{"forged in a line of its own", "10.0.0.1", []string{"198.51.100.1", "203.0.113.7"}, "203.0.113.7"},
		{"rubbish, through a proxy", "10.0.0.1", []string{"198.51.100.1, <script>, 203.0.113.7"}, "203.0.113.7"},
		{"rubbish only", "10.0.0.1", []string{"unknown"}, "10.0.0.1"},
		{"a proxy that says nothing", "10.0.0.1", nil, "10.0.0.1"},
		{"proxies only", "10.0.0.1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"with a port", "10.0.0.1", []string{"203.0.113.7:4711"}, "203.0.113.7"},
		{"IPv6", "2001:db8:ffff::1", []string{"2001:db8::7"}, "2001:db8::7"},
		{"IPv6 with a port", "10.0.0.1", []string{"[2001:db8::7]:4711"}, "2001:db8::7"},
		{"IPv6 in brackets", "10.0.0.1", []string{"[2001:db8::7]"}, "2001:db8::7"},
		{"IPv4 in IPv6", "::ffff:10.0.0.1", []string{"::ffff:203.0.113.7"}, "203.0.113.7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var request fasthttp.RequestCtx
			request.Init(&fasthttp.Request{}, &net.TCPAddr{IP: net.ParseIP(tt.peer), Port: 1}, nil)
			for _, line := range tt.forwarded {
				request.Request.Header.Add(fiber.HeaderXForwardedFor, line)
			}
			app := fiber.New()
			c := app.AcquireCtx(&request)
			defer app.ReleaseCtx(c)
			if got := clientAddress(trusted)(c); got != tt.want {
				t.Errorf("the client is %s, want %s", got, tt.want)
			}
		})
	}
}
