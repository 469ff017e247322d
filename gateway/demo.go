package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/alicebob/miniredis/v2"

	"paythread/checkout"
	"paythread/simulator"
)

//go:embed demo.yaml
var demoYAML string

var demoTemplate = template.Must(template.New("demo.yaml").Parse(demoYAML))

// demoPace is the wait between a message's statuses: long enough to watch.
const demoPace = 400 * time.Millisecond

// demoOptions are the demo's flags.
type demoOptions struct {
	Listen, AdminListen, SimulatorListen string
	RedisURL                             string
	Play                                 bool
	Verbose                              bool
}

// demoCommand runs everything in one process: gateway, Redis, the companies,
// the customer's phone and a sample order-management system.
func demoCommand(flags *flag.FlagSet) action {
	var o demoOptions
	flags.StringVar(&o.Listen, "listen", "127.0.0.1:8080", "`ADDRESS` of the gateway")
	flags.StringVar(&o.AdminListen, "admin-listen", "127.0.0.1:9090", "`ADDRESS` of metrics and health")
	flags.StringVar(&o.SimulatorListen, "simulator-listen", "localhost:8090", "`ADDRESS` of the simulated world")
	flags.StringVar(&o.RedisURL, "redis-url", "", "`URL` of a real Redis; without it an embedded one is used and nothing is kept")
	flags.BoolVar(&o.Play, "play", false, "play the whole story by itself, print each status, and end")
	flags.BoolVar(&o.Verbose, "verbose", false, "print the log")
	return func(ctx context.Context, p process) error { return runDemo(ctx, p, o) }
}

// runDemo starts the world and the gateway, and either plays the story or waits
// to be stopped.
func runDemo(ctx context.Context, p process, o demoOptions) error {
	d, err := startDemo(ctx, p, o)
	if err != nil {
		return err
	}
	if o.Play {
		err = play(ctx, p.stdout, d)
	} else {
		p.say(p.stdout, d.welcome(o.RedisURL != ""))
		select {
		case <-ctx.Done():
		case err = <-d.app.Failed():
		}
	}
	return errors.Join(err, d.stop())
}

// demo is everything that runs.
type demo struct {
	app     *App
	outside *world
	stops   []func() error // in the order of starting
	public  string         // the gateway's URL
}

// stop ends everything, last in first out, and goes on past what fails.
func (d *demo) stop() error {
	var errs []error
	for i := len(d.stops) - 1; i >= 0; i-- {
		errs = append(errs, d.stops[i]())
	}
	return errors.Join(errs...)
}

func startDemo(ctx context.Context, p process, o demoOptions) (d *demo, err error) {
	d = &demo{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	// The addresses are bound or tried first: the parts must know each other.
	socket, outsideURL, err := bindWorld(o.SimulatorListen)
	if err != nil {
		return d, err
	}
	listen, err := freeAddress("--listen", o.Listen)
	if err == nil {
		o.AdminListen, err = freeAddress("--admin-listen", o.AdminListen)
	}
	if err != nil {
		return d, errors.Join(err, socket.Close())
	}
	d.public = "http://" + listen
	log := LogConfig{Level: logLevel(o.Verbose), Format: "text"}.Logger(p.stderr)
	d.outside, err = startWorld(socket, outsideURL, worldOptions{
		Listen: o.SimulatorListen, GatewayURL: d.public, Pace: demoPace, Others: true, Notify: true, Log: log,
		Title: "Paythread demo", Steps: demoSteps(), Links: demoLinks(d.public, o.AdminListen),
	})
	if err != nil {
		return d, err
	}
	d.stops = append(d.stops, func() error {
		stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return d.outside.Stop(stop)
	})
	config, err := d.configure(o, listen, outsideURL)
	if err != nil {
		return d, err
	}
	if d.app, err = newApp(ctx, config, log); err != nil {
		return d, err
	}
	d.stops = append(d.stops, func() error { return d.app.Stop(context.Background()) })
	return d, d.app.Start()
}

func logLevel(verbose bool) slog.Level {
	if verbose {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// freeAddress finds out the port of an address that leaves it open (:0), and
// says clearly if another program has it.
func freeAddress(flag, address string) (string, error) {
	socket, err := net.Listen("tcp", address)
	if err != nil {
		return "", fmt.Errorf("gateway: %w", taken(err, flag, address))
	}
	return socket.Addr().String(), socket.Close()
}

// configure makes the keys and Redis, and the configuration that names them.
func (d *demo) configure(o demoOptions, listen, outsideURL string) (*Config, error) {
	keys, err := os.MkdirTemp("", "paythread-demo-")
	if err != nil {
		return nil, err
	}
	d.stops = append(d.stops, func() error { return os.RemoveAll(keys) })
	if _, err := checkout.NewKeyFile(filepath.Join(keys, checkout.CurrentKeyFile)); err != nil {
		return nil, err
	}
	redis := ""
	if o.RedisURL == "" {
		embedded := miniredis.NewMiniRedis()
		embedded.ClockTTL(true) // keys expire by the clock, as in a real Redis
		if err := embedded.Start(); err != nil {
			return nil, fmt.Errorf("embedded redis: %w", err)
		}
		d.stops = append(d.stops, func() error { embedded.Close(); return nil })
		redis = embedded.Addr()
	}
	var text bytes.Buffer
	err = demoTemplate.Execute(&text, map[string]any{
		"Listen": listen, "AdminListen": o.AdminListen, "LogLevel": "info", "Redis": redis, "KeysDir": keys,
		"PublicURL": d.public, "SimulatorURL": outsideURL, "APIKey": demoAPIKey,
		"Meta": demoMeta, "Twilio": demoTwilio, "TwilioNumber": demoTwilioPhone, "CyberSource": demoCyberSource,
	})
	if err != nil {
		return nil, err
	}
	if o.RedisURL == "" {
		return parseConfig("demo.yaml", text.Bytes(), nil)
	}
	plain := strings.Replace(text.String(), `redis: {mode: single, addresses: [""]}`, "redis: {}", 1)
	return parseConfig("demo.yaml", []byte(plain), []string{"PAYTHREAD_REDIS_URL=" + o.RedisURL})
}

// demoSteps are the way through the demo.
func demoSteps() []simulator.Link {
	return []simulator.Link{
		{Name: "Be the agent", URL: "/oms/", Text: "open an order, pick Chat to pay, press Send, and keep that page in sight"},
		{Name: "Be the customer", Text: "press Open the customer's phone in the order, read the message, press Pay securely"},
		{Name: "Pay with a test card", Text: "press Approved above the card form and it is filled in; the others are declined, reviewed or never answered"},
		{Name: "Watch the order turn paid", Text: "and open the receipt from the second message"},
	}
}

// demoLinks are the further lines of the start page.
func demoLinks(public, admin string) []simulator.Link {
	return []simulator.Link{
		{Name: "API documentation", URL: public + "/docs", Text: "the gateway's REST API"},
		{Name: "Test cards", URL: "/cybersource/test-cards", Text: "which number is approved, declined, reviewed"},
		{Name: "Metrics", URL: "http://" + admin + "/metrics", Text: "what Prometheus would scrape"},
	}
}

// welcome is what the demo prints once everything runs.
func (d *demo) welcome(keeps bool) string {
	kept := "Nothing is kept: Redis is embedded and ends with this process (--redis-url URL uses a real one)."
	if keeps {
		kept = "State is kept in the Redis that you named. The link keys are not: links end with this process."
	}
	return fmt.Sprintf(`
Paythread demo. Open the start page in a browser:

    %s/

  order system   %s/oms
  phone          %s/phone/%s
  API            %s/docs   key %s
  metrics        http://%s/metrics

The card form has test cards to press; the one named Approved is 4111 1111 1111 1111.
%s
Ctrl+C ends it.
`, d.outside.URL, d.outside.URL, d.outside.URL, strings.TrimPrefix(demoCustomer, "+"), d.public, demoAPIKey, d.app.AdminAddr(), kept)
}
