package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"
)

// serveCommand runs the gateway until it is asked to stop.
func serveCommand(flags *flag.FlagSet) action {
	load := configFlag(flags)
	return func(ctx context.Context, p process) error {
		config, err := load(p)
		if err != nil {
			return err
		}
		app, err := newApp(ctx, config, config.Log.Logger(p.stderr))
		if err != nil {
			return err
		}
		app.warnOfRedis(ctx)
		return runApp(ctx, app)
	}
}

// runApp starts a gateway, waits until it is asked to stop or cannot go on, and
// stops it.
func runApp(ctx context.Context, app *App) error {
	if err := app.Start(); err != nil {
		return errors.Join(err, app.Stop(context.Background()))
	}
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-app.Failed():
	}
	return errors.Join(failed, app.Stop(context.Background())) // ctx has ended; Stop bounds itself
}

// simulateCommand runs the outside world alone.
func simulateCommand(flags *flag.FlagSet) action {
	listen := flags.String("listen", "localhost:8090", "`ADDRESS` of the simulator")
	gateway := flags.String("gateway", "http://127.0.0.1:8080", "public `URL` of the gateway that webhooks go to")
	return func(ctx context.Context, p process) error {
		socket, url, err := bindWorld(*listen)
		if err != nil {
			return err
		}
		public := strings.TrimRight(*gateway, "/")
		outside, err := startWorld(socket, url, worldOptions{
			Listen: *listen, GatewayURL: public, Pace: demoPace, Others: true, Log: LogConfig{Format: "text"}.Logger(p.stderr),
		})
		if err != nil {
			return err
		}
		p.say(p.stdout, fmt.Sprintf("The outside world is at %s/\nIts control API is in docs/simulator.md; identities for your settings:\n%s", url, identities(public)))
		select {
		case <-ctx.Done():
		case err = <-outside.done:
			outside.done <- err
		}
		stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return outside.Stop(stop)
	}
}
