package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"paythread/simulator"
)

// serveCommand runs the gateway until it is asked to stop.
func serveCommand(flags *flag.FlagSet) action {
	read := configReader(flags)
	return func(ctx context.Context, p process) error {
		// Whoever reads the log may go: Go would end the process at the next line,
		// with payments in hand.
		signal.Ignore(syscall.SIGPIPE)
		asked := make(chan os.Signal, 1) // several at once are one
		signal.Notify(asked, syscall.SIGHUP)
		defer signal.Stop(asked)
		config, was, err := p.reported(read(p))
		if err != nil {
			return err
		}
		level := new(slog.LevelVar)
		level.Set(config.Log.Level)
		app, err := newApp(ctx, config, config.Log.loggerAt(p.stderr, level))
		if err != nil {
			return err
		}
		app.level = level
		app.follow(func() (*Config, contents, error) { return read(p) }, was, asked)
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
	var secure tlsOptions
	flags.BoolVar(&secure.On, "tls", false, "serve https, with a certificate made here")
	flags.StringVar(&secure.Dir, "tls-dir", "paythread-simulate-tls", "the `DIR` of the certificate authority; made if it is not there")
	flags.StringVar(&secure.CertFile, "tls-cert", "", "serve https with the certificate in this `FILE` (PEM)")
	flags.StringVar(&secure.KeyFile, "tls-key", "", "the `FILE` with the certificate's key (PEM)")
	return func(ctx context.Context, p process) error {
		certificate, trust, err := secure.certificate(*listen)
		if err != nil {
			return err
		}
		socket, url, err := bindWorld(*listen)
		if err != nil {
			return err
		}
		if certificate != nil {
			socket, url = overTLS(socket, url, certificate)
		}
		public := strings.TrimRight(*gateway, "/")
		outside, err := startWorld(socket, url, worldOptions{
			Listen: *listen, GatewayURL: public, Pace: demoPace, Others: true, Notify: true, Log: LogConfig{Format: "text"}.Logger(p.stderr),
		})
		if err != nil {
			return err
		}
		p.say(p.stdout, fmt.Sprintf("The outside world is at %s/\n%sIts control API is in docs/simulator.md; identities for your settings:\n%s", url, trust, identities(public)))
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

// tlsOptions are the flags of a world that is served over https.
type tlsOptions struct {
	On                     bool
	Dir, CertFile, KeyFile string
}

// certificate returns what to serve with, nil for plain http, and a line about
// whom to trust.
func (o tlsOptions) certificate(listen string) (*tls.Certificate, string, error) {
	switch {
	case o.CertFile != "" && o.KeyFile != "":
		made, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, "", fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
		return &made, "", nil
	case o.CertFile != "" || o.KeyFile != "":
		return nil, "", usageError{"--tls-cert and --tls-key come together"}
	case !o.On:
		return nil, "", nil
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" && !slices.Contains(hosts, host) {
		hosts = append(hosts, host)
	}
	made, err := simulator.LocalCertificate(o.Dir, time.Now(), hosts...)
	if err != nil {
		return nil, "", fmt.Errorf("--tls: %w", err)
	}
	trusted, err := filepath.Abs(filepath.Join(o.Dir, simulator.AuthorityFile))
	if err != nil {
		return nil, "", err
	}
	return &made, "Trust its certificate authority: " + trusted + "\n", nil
}

// overTLS serves a world's listener over https. HTTP/2 is left out: some faults
// cut a connection, which has to be one request's own.
func overTLS(socket net.Listener, url string, certificate *tls.Certificate) (net.Listener, string) {
	config := &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	return tls.NewListener(socket, config), "https" + strings.TrimPrefix(url, "http")
}
