package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/template"
	"time"

	"paythread/conversations"
	"paythread/simulator"
	"paythread/simulator/clickatell"
	"paythread/simulator/faults"
	"paythread/simulator/meta"
	"paythread/simulator/twilio"
)

// outage is one thing that a provider does to every send for a while.
type outage struct {
	name string
	rule faults.Rule
	// unknowable says that a message may have arrived without our learning of
	// it, so that a second one is no mistake.
	unknowable bool
}

var outages = []outage{
	{"429", faults.Rule{Do: faults.Status, Status: http.StatusTooManyRequests}, false},
	{"503", faults.Rule{Do: faults.Status, Status: http.StatusServiceUnavailable}, true},
	{"timeout_before", faults.Rule{Do: faults.TimeoutBefore}, true},
	{"timeout_after", faults.Rule{Do: faults.TimeoutAfter}, true},
}

// benchProvider is one of the merchants of the measurement, each at a provider
// of its own.
type benchProvider struct {
	id, channel, call string
}

var benchProviders = []benchProvider{
	{"meta", "whatsapp", meta.CallMessages}, {"twilio", "sms", twilio.CallMessages}, {"clickatell", "sms", clickatell.CallMessages},
}

// measureOutages runs a gateway against the simulated providers, lets one after
// the other fail in each way, and compares how long messages take at the others
// with a run in which none fails. Every message is looked for on its phone.
func measureOutages(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("outages", flag.ExitOnError)
	o := outageRun{}
	flags.StringVar(&o.binary, "gateway", "", "`FILE` of the gateway's program")
	flags.StringVar(&o.redis, "redis", "", "`ADDRESS` of an empty Redis")
	flags.DurationVar(&o.long, "duration", time.Minute, "how long each outage lasts")
	flags.IntVar(&o.rate, "rate", 10, "messages a second of each merchant")
	flags.StringVar(&o.only, "only", "", "one `OUTAGE` alone, such as meta.503")
	flags.StringVar(&o.dir, "dir", "", "`FOLDER` for keys, configuration and log")
	_ = flags.Parse(args) // it exits by itself
	if err := o.start(ctx); err != nil {
		return err
	}
	defer o.stop()
	return o.run(ctx)
}

// outageRun is the measurement: the world, the gateway, and what was asked.
type outageRun struct {
	binary, redis, dir string
	only               string
	long               time.Duration
	rate               int

	world   *simulator.World
	server  *http.Server
	gateway *exec.Cmd
	public  string
	client  *http.Client
	phone   int
	wrong   int
}

// message is one that was asked for.
type message struct {
	phone string
	at    time.Time
}

const outageKey = "-key-0123456789abcdef-0123456789abcdef"

var outageConfig = template.Must(template.New("paythread.yaml").Parse(`listen: {{.Listen}}
admin_listen: 127.0.0.1:0
log: {level: warn, format: text}
redis: {mode: single, addresses: ["{{.Redis}}"]}
link_keys: {dir: "{{.Dir}}/keys"}
timings: {echo_within: 10s}
dispatcher: {send_timeout: 5s}
merchants:{{range .Merchants}}
  - id: {{.ID}}
    name: Acme Energy
    contact: help@acme.example
    public_url: {{$.Public}}
    environment: sandbox
    country: ZA
    card_testing: {contact_tries: 10000, address_tries: 100000, free_declines: 1000}
    api_keys: [{name: bench, secret: {{.ID}}{{$.Key}}}]
    senders:
      - id: {{.ID}}-sender
        per_second: 1000
{{.Sender}}
    platform: {name: unified_checkout, base_url: "{{$.World}}", merchant_id: bench, key_id: 08c94330-f618-42a3-b09d-e1e43be5efda, shared_secret: YmVuY2gtc2VjcmV0LW5vdC1hLXNlY3JldC1hdC1hbGw=}
{{end}}`))

func (o *outageRun) start(ctx context.Context) error {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	world := "http://" + socket.Addr().String()
	listen, err := freeAddress()
	if err != nil {
		return err
	}
	o.public = "http://" + listen
	if err := o.startWorld(socket, world); err != nil {
		return err
	}
	senders := map[string]string{
		"meta": "        provider: meta\n        channel: whatsapp\n        base_url: " + world + "/meta\n        phone_number_id: \"100\"\n" +
			"        access_token: bench-token\n        app_secret: bench-secret\n        verify_token: bench-verify\n        template_payment: payment_request\n" +
			"        template_receipt: payment_receipt\n        template_cancelled: payment_cancelled",
		"twilio": "        provider: twilio\n        channel: sms\n        base_url: " + world + "/twilio\n        account_sid: " + benchAccount +
			"\n        auth_token: bench-token\n        from: \"+27600000002\"",
		"clickatell": "        provider: clickatell\n        channel: sms\n        base_url: " + world + "/clickatell\n        api_key: bench-key\n        webhook_secret: " + benchSecret,
	}
	type entry struct{ ID, Sender string }
	var merchants []entry
	for _, p := range benchProviders {
		merchants = append(merchants, entry{p.id, senders[p.id]})
	}
	var text bytes.Buffer
	err = outageConfig.Execute(&text, map[string]any{
		"Listen": listen, "Redis": o.redis, "Dir": o.dir, "Public": o.public, "World": world, "Key": outageKey, "Merchants": merchants,
	})
	if err != nil {
		return err
	}
	file := filepath.Join(o.dir, "outages.yaml")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, o.binary, "keys", "new", "--dir", filepath.Join(o.dir, "keys")).CombinedOutput(); err != nil {
		return fmt.Errorf("making keys: %w: %s", err, out)
	}
	log, err := os.Create(filepath.Join(o.dir, "gateway.log"))
	if err != nil {
		return err
	}
	o.gateway = exec.CommandContext(ctx, o.binary, "serve", "--config", file)
	o.gateway.Stdout, o.gateway.Stderr = log, log
	if err := o.gateway.Start(); err != nil {
		return err
	}
	o.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	return o.awaitGateway(ctx)
}

const (
	benchAccount = "AC00000000000000000000000000000001"
	benchSecret  = "bench-secret-in-the-path-0123456789abcdef"
)

// freeAddress finds a port for the gateway, which the world must know before
// it starts.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (o *outageRun) startWorld(socket net.Listener, url string) error {
	const quick = time.Millisecond
	p := func(purpose conversations.Purpose, v conversations.Parameters) string {
		return conversations.Merchant{}.Text(conversations.WhatsApp, purpose, v)
	}
	v := conversations.Parameters{Merchant: "{{1}}", Amount: "{{2}}", Order: "{{3}}"}
	hook := func(id string) string { return o.public + "/webhooks/" + id + "-sender" }
	var err error
	o.world, err = simulator.New(simulator.Config{
		PublicURL: url,
		Meta: meta.Config{
			Numbers: []meta.Number{{
				PhoneNumberID: "100", WABAID: "200", DisplayNumber: "+27600000001", AccessToken: "bench-token", AppSecret: "bench-secret", VerifyToken: "bench-verify", WebhookURL: hook("meta"),
			}},
			Templates: []meta.Template{{
				WABAID: "200", Name: "payment_request", Language: "en", Category: "UTILITY", Body: p(conversations.PurposePayment, v),
				URLButton: &meta.URLButton{Label: "Pay securely", URL: o.public + "/p/{{1}}"},
			}},
			SentAfter: quick, DeliveredAfter: quick, MessagesPerSecond: -1,
		},
		Twilio: twilio.Config{
			Accounts: []twilio.Account{{
				SID: benchAccount, AuthToken: "bench-token", Numbers: []twilio.Number{{Channel: "sms", E164: "+27600000002", InboundURL: hook("twilio")}},
			}},
			SentAfter: quick, DeliveredAfter: quick,
		},
		Clickatell: clickatell.Config{
			Integrations: []clickatell.Integration{{
				ID: "bench", APIKey: "bench-key", InboundURL: hook("clickatell") + "/" + benchSecret, StatusURL: hook("clickatell") + "/" + benchSecret,
				Numbers: []clickatell.Number{{Channel: "sms", E164: "+27600000003"}}, Balance: 1e9,
			}},
			SentAfter: quick, DeliveredAfter: quick,
		},
	})
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	o.server = &http.Server{Handler: o.world.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = o.server.Serve(socket) }() // it ends with stop
	return nil
}

func (o *outageRun) awaitGateway(ctx context.Context) error {
	for range 200 {
		answer, err := o.client.Get(o.public + "/openapi.json")
		if err == nil {
			_ = answer.Body.Close() // only that it answers matters
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("the gateway does not answer; see %s", filepath.Join(o.dir, "gateway.log"))
}

func (o *outageRun) stop() {
	_ = o.gateway.Process.Signal(os.Interrupt) // it may have ended
	_ = o.gateway.Wait()                       // as above
	o.world.Close()
	_ = o.server.Close() // nothing is left to answer
}

// run measures each provider's outages in turn, and before each a while without
// one: machines have better and worse minutes, so only neighbours compare.
func (o *outageRun) run(ctx context.Context) error {
	worst := 0.0
	for _, failing := range benchProviders {
		for _, how := range outages {
			if o.only != "" && o.only != failing.id+"."+how.name {
				continue
			}
			calm, err := o.phase(ctx, failing.id+"."+how.name+".before", "", outage{})
			if err != nil {
				return err
			}
			took, err := o.phase(ctx, failing.id+"."+how.name, failing.call, how)
			if err != nil {
				return err
			}
			for _, p := range benchProviders {
				if p.id == failing.id {
					continue
				}
				ratio := took[p.id] / calm[p.id]
				worst = max(worst, ratio)
				fmt.Printf("outages.%s.%s.%s.p99_ratio %.2f ratio\n", failing.id, how.name, p.id, ratio)
			}
		}
	}
	fmt.Printf("outages.others.worst_p99_ratio %.2f ratio\n", worst)
	fmt.Printf("outages.wrong %d messages\n", o.wrong)
	if o.wrong > 0 {
		return fmt.Errorf("%d messages were lost, or sent twice without need", o.wrong)
	}
	return nil
}

// phase sends at a steady rate to every merchant while one provider fails, ends
// the outage, waits until everything has arrived, and returns each merchant's
// p99 in milliseconds.
func (o *outageRun) phase(ctx context.Context, name, call string, how outage) (map[string]float64, error) {
	if call != "" {
		rule := how.rule
		rule.Call = call
		if err := o.world.Faults.Replace([]faults.Rule{rule}); err != nil {
			return nil, err
		}
	}
	asked, err := o.load(ctx)
	o.world.Faults.Clear()
	if err != nil {
		return nil, err
	}
	p99 := map[string]float64{}
	for _, p := range benchProviders {
		took, twice, lost := o.arrivals(ctx, asked[p.id])
		p99[p.id] = quantile(took, 0.99)
		mistaken := twice
		if p.call == call && how.unknowable {
			mistaken = 0
		}
		o.wrong += lost + mistaken
		fmt.Printf("outages.%s.%s.messages %d messages\n", name, p.id, len(asked[p.id]))
		fmt.Printf("outages.%s.%s.p50 %.1f ms\n", name, p.id, quantile(took, 0.5))
		fmt.Printf("outages.%s.%s.p99 %.1f ms\n", name, p.id, p99[p.id])
		fmt.Printf("outages.%s.%s.twice %d messages\n", name, p.id, twice)
		fmt.Printf("outages.%s.%s.lost %d messages\n", name, p.id, lost)
	}
	return p99, nil
}

// load asks for payments, evenly spread over the time.
func (o *outageRun) load(ctx context.Context) (map[string][]message, error) {
	asked := map[string][]message{}
	var mu sync.Mutex
	var asking sync.WaitGroup
	var first error
	tick := time.NewTicker(time.Second / time.Duration(o.rate))
	defer tick.Stop()
	for end := time.Now().Add(o.long); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		for _, p := range benchProviders {
			o.phone++
			m := message{phone: fmt.Sprintf("+2782%07d", 1_000_000+o.phone), at: time.Now()}
			asked[p.id] = append(asked[p.id], m)
			asking.Go(func() {
				if err := o.ask(ctx, p, m); err != nil {
					mu.Lock()
					first = err
					mu.Unlock()
				}
			})
		}
	}
	asking.Wait()
	return asked, first
}

// ask makes one payment request.
func (o *outageRun) ask(ctx context.Context, p benchProvider, m message) error {
	amount := map[string]string{"value": "149.00", "currency": "ZAR"}
	body, err := json.Marshal(map[string]any{
		"order": "bench-" + m.phone[1:], "phone": m.phone, "channel": p.channel, "subtotal": amount, "total": amount,
		"tax": map[string]string{"value": "0.00", "currency": "ZAR"},
	})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.public+"/v1/payment-requests", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+p.id+outageKey)
	req.Header.Set("Content-Type", "application/json")
	answer, err := o.client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 300)) // for the error only
		return fmt.Errorf("a payment request was answered with %d: %s", answer.StatusCode, strings.TrimSpace(string(text)))
	}
	return nil
}

// recoverWithin is how long after an outage the last message may take: the
// longest wait between two tries, and a few echoes that are awaited.
const recoverWithin = 5 * time.Minute

// arrivals waits until every message is on its phone and tells how long each
// took; then what came twice, and what never came.
func (o *outageRun) arrivals(ctx context.Context, asked []message) (took []time.Duration, twice, lost int) {
	for end := time.Now().Add(recoverWithin); time.Now().Before(end); {
		missing := slices.ContainsFunc(asked, func(m message) bool { return len(o.received(m)) == 0 })
		if !missing || pause(ctx, 200*time.Millisecond) != nil {
			break
		}
	}
	for _, m := range asked {
		got := o.received(m)
		switch {
		case len(got) == 0:
			lost++
			continue
		case len(got) > 1:
			twice++
		}
		took = append(took, got[0].At.Sub(m.at))
	}
	slices.Sort(took)
	return took, twice, lost
}

func (o *outageRun) received(m message) []simulator.Message {
	return slices.DeleteFunc(slices.Clone(o.world.Phones.Messages(m.phone)), func(s simulator.Message) bool { return s.Direction != simulator.Received })
}
