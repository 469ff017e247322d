package main

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// clientAddress returns a function that tells from which address on the
// internet a request comes. X-Forwarded-For is believed as far as trusted
// proxies wrote it, from its end: each appends whom it was called by, and what
// stands before the first stranger is that stranger's own word.
func clientAddress(trusted []netip.Prefix) func(*fiber.Ctx) string {
	isTrusted := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return func(c *fiber.Ctx) string {
		client, ok := netip.AddrFromSlice(c.Context().RemoteIP())
		if !ok {
			return ""
		}
		client = client.Unmap()
		if !isTrusted(client) {
			return client.String()
		}
		var hops []string
		for _, line := range c.Request().Header.PeekAll(fiber.HeaderXForwardedFor) {
			hops = append(hops, strings.Split(string(line), ",")...)
		}
		for _, hop := range slices.Backward(hops) {
			before, ok := hopAddress(strings.TrimSpace(hop))
			if !ok {
				break
			}
			if client = before; !isTrusted(client) {
				break
			}
		}
		return client.String()
	}
}

// hopAddress reads one entry of X-Forwarded-For; some proxies add the port.
func hopAddress(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr().Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}
