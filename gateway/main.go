// Command paythread is a self-hosted chat-to-pay gateway: it sends a customer a
// link by WhatsApp or SMS, takes the payment on its own page, sends a receipt,
// and lets the merchant's agent watch.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default comes back: a second one ends a
	// process that hangs in its graceful stop.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
