package main

import (
	"context"
	"time"

	"github.com/gofiber/fiber/v2"
)

// drain lets the proxies in front learn that this process is about to stop:
// from its beginning /readyz answers 503, and every answer asks for its
// connection to be closed, so that none is left when the listener is. Until its
// end everything is served as ever, new event streams too, for whoever still
// comes has not heard of it.
func (a *App) drain(ctx context.Context) {
	if a.cancel == nil || a.config.Drain == 0 {
		return // it never started, or nobody stands in front
	}
	a.log.Info("the gateway is about to stop, and waits until nobody sends it calls", "drain", a.config.Drain.String())
	wait := time.NewTimer(a.config.Drain)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}

// closeWhenStopping asks the callers of a process that is about to stop for
// another connection, which leads them to another process.
func (a *App) closeWhenStopping(c *fiber.Ctx) error {
	if a.stopping.Load() {
		c.Context().SetConnectionClose()
	}
	return c.Next()
}
