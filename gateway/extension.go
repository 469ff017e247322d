package main

import (
	"strings"

	"github.com/gofiber/fiber/v2"

	"paythread/gateway/web"
)

// serveExtension answers GET and HEAD /extension/paythread.js, the script that
// merchants include in their own pages. It holds no secret and knows no
// merchant, so every origin may read it; pages are asked to come back for a
// newer one, which the entity tag makes cheap.
func serveExtension(c *fiber.Ctx) error {
	body, etag := web.Script()
	c.Set(fiber.HeaderAccessControlAllowOrigin, "*")
	c.Set("Cross-Origin-Resource-Policy", "cross-origin")
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Set(fiber.HeaderCacheControl, "public, max-age=300, stale-while-revalidate=86400")
	c.Set(fiber.HeaderETag, etag)
	if matchesETag(c.Get(fiber.HeaderIfNoneMatch), etag) {
		return c.SendStatus(fiber.StatusNotModified)
	}
	c.Set(fiber.HeaderContentType, "text/javascript; charset=utf-8")
	return c.Send(body)
}

// matchesETag compares as If-None-Match asks: weakly, against each of a list or
// against anything (RFC 9110, 13.1.2).
func matchesETag(header, etag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == etag {
			return true
		}
	}
	return false
}
