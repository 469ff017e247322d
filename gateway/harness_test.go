package main

// The harness of the tests that run the gateway as a child process, against a
// real Redis and the simulated world over real HTTP:
//
//	s := newRig(t, aPlainRedis(t))          // Redis, the world, the public address; see also aSingleRedis, aCluster
//	g := s.startGateway()                   // a child process; several may run behind one public address
//	g.kill()                                // SIGKILL; startGateway starts another
//	id, err := s.ask(asked{...})           // the agent asks for a payment
//	c := s.payer(demoCustomer, "sms")    // the customer with the phone
//	c.follow("/p/"); c.open(); c.token(card); c.charge(token); c.viewReceipt()
//	s.request(id); s.eventTypes(id); s.charges()    // what everyone sees afterwards
//	s.await("what", func() bool {...})      // polls until it is so; fails the test when it takes too long
//	s.store.hold(...)                       // holds one commit, see aSingleRedis and redistest.Proxy; s.world.Faults holds calls
//
// The gateway child is this test binary, executed again with runAsGateway in its
// environment, so that the race detector watches it and nothing has to be
// built. It ends when its standard input does, which is when this process dies.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"paythread/checkout"
	"paythread/conversations"
	"paythread/conversations/redistest"
	"paythread/simulator"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

// runAsGateway names the configuration file that a child process serves.
const runAsGateway = "RUN_AS_GATEWAY"

func TestMain(m *testing.M) {
	if file := os.Getenv(runAsGateway); file != "" {
		os.Exit(gatewayChild(file))
	}
	code := m.Run()
	redistest.StopShared()
	os.Exit(code)
}

// gatewayChild is the whole life of a child process.
func gatewayChild(file string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent, however it ends
		stop()
		time.Sleep(stopWithin)
		os.Exit(exitFailed)
	}()
	var env []string
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "PAYTHREAD_") {
			env = append(env, v)
		}
	}
	return run(ctx, []string{"serve", "--config", file}, os.Stdin, os.Stdout, os.Stderr, env)
}

// longestWait bounds every wait. It is far above what anything needs, because the
// machine may be busy with other tests.
const longestWait = 60 * time.Second

// rigRedis is the Redis of one or more rigs, and how a command on its way
// there is held.
type rigRedis struct {
	addresses []string
	cluster   bool
	hold      func(match func([]string) bool, when redistest.When) *redistest.Held
}

// aPlainRedis is the redis-server that tests share, with nothing before it: for
// rigs of whose commands none is held.
func aPlainRedis(t *testing.T) rigRedis {
	return rigRedis{addresses: []string{redistest.Shared(t).Addr}}
}

// aSingleRedis starts a redis-server behind a proxy. Rigs may share it.
func aSingleRedis(t *testing.T) rigRedis {
	proxy := redistest.NewProxy(t, redistest.Start(t).Addr)
	return rigRedis{addresses: []string{proxy.Addr()}, hold: proxy.Hold}
}

// aCluster starts a Redis Cluster of three nodes that announce proxies. Rigs may
// share it.
func aCluster(t *testing.T) rigRedis {
	cluster := redistest.StartCluster(t, 3, redistest.WithProxies())
	return rigRedis{addresses: cluster.Addrs(), cluster: true, hold: cluster.Hold}
}

// rigOptions are what a test may change before its rig is set up.
type rigOptions struct {
	Env   map[string]string // configuration, by the names of its environment variables
	Pace  time.Duration     // between a message's statuses
	World func(*simulator.Config, *cybersource.Config)
}

// rig is everything around the gateway: Redis, the simulated world, the
// public address and the configuration.
type rig struct {
	t      *testing.T
	store  rigRedis
	prefix string // of its keys: rigs that share a Redis keep apart by it
	world  *world
	front  *front
	config string
	env    []string
	agent  *http.Client
	money  *moneyChecker

	mu       sync.Mutex
	gateways []*gatewayProcess
}

var rigs atomic.Int64

// newRig sets up what ends with the test.
func newRig(t *testing.T, store rigRedis, change ...func(*rigOptions)) *rig {
	t.Helper()
	o := rigOptions{Pace: 100 * time.Millisecond, Env: map[string]string{
		"LOG_FORMAT": "json", "REDIS_PARTITIONS": "3",
		"DISPATCHER_CLAIM_IDLE": "1s", "DISPATCHER_RETRY_AFTER": "200ms",
		// Everything in seconds, and each wait far enough from the next for a
		// machine that is busy.
		"TIMINGS_SEND_WITHIN": "3s", "TIMINGS_RECOVER_AFTER": "3500ms", "TIMINGS_ASK_AFTER": "4500ms,7s", "TIMINGS_LATE_ASK_AFTER": "9s,12s",
		"TIMINGS_TOKEN_GRACE": "100ms", "TIMINGS_ECHO_WITHIN": "2s", "TIMINGS_RETRY_OPERATION_IN": "500ms",
		"TIMINGS_CALL_LIFE": "500ms", "MERCHANTS_ACME_PLATFORM_SEARCH_LAG": "4s",
	}}
	for _, c := range change {
		c(&o)
	}
	s := &rig{t: t, store: store, prefix: fmt.Sprintf("rig%d", rigs.Add(1)), front: newFront(t)}
	s.agent = &http.Client{Timeout: longestWait, Transport: &http.Transport{}}
	t.Cleanup(s.agent.CloseIdleConnections)
	s.startWorld(o)
	o.Env["REDIS_ADDRESSES"], o.Env["REDIS_MODE"], o.Env["REDIS_PREFIX"] = strings.Join(store.addresses, ","), "single", s.prefix
	if store.cluster {
		o.Env["REDIS_MODE"] = "cluster"
	}
	for name, value := range o.Env {
		s.env = append(s.env, "PAYTHREAD_"+name+"="+value)
	}
	s.writeConfig()
	t.Cleanup(func() {
		for _, g := range s.running() {
			g.kill()
		}
		if t.Failed() {
			s.showLogs()
		}
	})
	config, err := loadConfig(s.config, s.env)
	s.must(err)
	s.money = checkMoney(t, s.world.URL, config)
	return s
}

func (s *rig) startWorld(o rigOptions) {
	s.t.Helper()
	socket, url, err := bindWorld("localhost:0")
	s.must(err)
	s.world, err = startWorld(socket, url, worldOptions{
		Listen: "localhost:0", GatewayURL: s.front.url, Pace: o.Pace, Log: slog.New(slog.DiscardHandler),
		Change: func(c *simulator.Config, card *cybersource.Config) {
			c.Meta.WebhookRetries = slices.Repeat([]time.Duration{300 * time.Millisecond}, 60)
			// The first search comes too early, and must not be believed; the last
			// one finds even a charge that was sent as late as it may be.
			card.SharedKeys, card.SearchDelay, card.TokenLife = 1, 3700*time.Millisecond, 5*time.Second
			if o.World != nil {
				o.World(c, card)
			}
		},
	})
	s.must(err)
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), longestWait)
		defer cancel()
		if err := s.world.Stop(ctx); err != nil {
			s.t.Errorf("stop the world: %v", err)
		}
	})
}

// writeConfig writes the demo's configuration into a file, and the keys it
// needs. What a test wants otherwise is in the environment.
func (s *rig) writeConfig() {
	s.t.Helper()
	dir := s.t.TempDir()
	_, err := checkout.NewKeyFile(filepath.Join(dir, checkout.CurrentKeyFile))
	s.must(err)
	var text bytes.Buffer
	s.must(demoTemplate.Execute(&text, map[string]any{
		"Listen": "127.0.0.1:0", "AdminListen": "127.0.0.1:0", "LogLevel": "info", "Redis": "127.0.0.1:1", "KeysDir": dir,
		"PublicURL": s.front.url, "SimulatorURL": s.world.URL, "APIKey": demoAPIKey,
		"Meta": demoMeta, "Twilio": demoTwilio, "TwilioNumber": demoTwilioPhone, "CyberSource": demoCyberSource,
	}))
	s.config = filepath.Join(dir, "paythread.yaml")
	s.must(os.WriteFile(s.config, text.Bytes(), 0o600))
}

func (s *rig) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// openStore connects to the store beside the gateways, to look at what they
// made.
func (s *rig) openStore() *conversations.Store {
	s.t.Helper()
	config, err := loadConfig(s.config, s.env)
	s.must(err)
	options, err := config.Store()
	s.must(err)
	store, err := conversations.Connect(s.t.Context(), options)
	s.must(err)
	s.t.Cleanup(func() { _ = store.Close() }) // it only looked
	return store
}

// await polls until is says so, and fails the test when it takes too long.
func (s *rig) await(what string, is func() bool) {
	s.t.Helper()
	for limit := time.Now().Add(longestWait); !is(); {
		if time.Now().After(limit) {
			s.t.Fatalf("not within %v: %s", longestWait, what)
		}
		pause := time.NewTimer(80 * time.Millisecond)
		select {
		case <-pause.C:
		case <-s.t.Context().Done():
			s.t.Fatalf("the test ended before: %s", what)
		}
	}
}

// commitOf matches this rig's commit of an event, as redistest holds it. If
// not empty, key ends one of the keys that the commit is given.
func (s *rig) commitOf(event, key string) func([]string) bool {
	named := redistest.ScriptWith(event)
	return func(command []string) bool {
		return named(command) && strings.HasPrefix(command[3], s.prefix+":") &&
			(key == "" || slices.ContainsFunc(command[3:], func(k string) bool {
				return strings.HasPrefix(k, s.prefix+":") && strings.HasSuffix(k, key)
			}))
	}
}

// gatewayProcess is one child process.
type gatewayProcess struct {
	s      *rig
	cmd    *exec.Cmd
	stdin  io.Closer
	log    *childLog
	public string // address of its own public listener, past the front
	admin  string
	ended  chan struct{}
}

// startGateway starts a child process, waits until it is ready, and puts it
// behind the public address.
func (s *rig) startGateway() *gatewayProcess {
	s.t.Helper()
	g := s.spawnGateway()
	s.front.add(g.public)
	return g
}

// spawnGateway starts a child process and waits until it is ready.
func (s *rig) spawnGateway() *gatewayProcess {
	s.t.Helper()
	self, err := os.Executable()
	s.must(err)
	g := &gatewayProcess{s: s, cmd: exec.Command(self), log: &childLog{}, ended: make(chan struct{})}
	g.cmd.Env = append([]string{runAsGateway + "=" + s.config, "HOME=" + os.Getenv("HOME"), "PATH=" + os.Getenv("PATH")}, s.env...)
	for _, name := range []string{"GORACE", "GOGC"} { // as make test sets them
		if value := os.Getenv(name); value != "" {
			g.cmd.Env = append(g.cmd.Env, name+"="+value)
		}
	}
	g.cmd.Stdout, g.cmd.Stderr = g.log, g.log
	g.stdin, err = g.cmd.StdinPipe()
	s.must(err)
	s.must(g.cmd.Start())
	s.mu.Lock()
	s.gateways = append(s.gateways, g)
	s.mu.Unlock()
	go func() {
		defer close(g.ended)
		_ = g.cmd.Wait() // how it ended is seen by those who wait for it
	}()
	s.await("the gateway is ready", func() bool {
		if g.hasEnded() {
			s.t.Fatal("the gateway ended before it was ready")
		}
		if g.public, g.admin = g.log.addresses(); g.admin == "" {
			return false
		}
		status, _, err := s.call(http.MethodGet, "http://"+g.admin+"/readyz", nil, nil)
		return err == nil && status == http.StatusOK
	})
	return g
}

func (g *gatewayProcess) hasEnded() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
	}
}

// kill ends the process as a crash does (SIGKILL) and returns when it is gone.
func (g *gatewayProcess) kill() {
	_ = g.cmd.Process.Kill() // fails only if it has ended already
	g.bury()
}

// terminate ends the process as an operator does (SIGTERM) and returns when it
// is gone.
func (g *gatewayProcess) terminate() {
	g.s.t.Helper()
	_ = g.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended already
	g.bury()
	if code := g.cmd.ProcessState.ExitCode(); code != exitOK {
		g.s.t.Errorf("a gateway that was asked to stop ended with exit code %d", code)
	}
}

// bury waits for the end of a process that was told to.
func (g *gatewayProcess) bury() {
	<-g.ended
	_ = g.stdin.Close() // the pipe's other end is gone
	g.s.front.remove(g.public)
	if g.log.contains("WARNING: DATA RACE") {
		g.s.t.Error("the gateway has a data race")
	}
}

func (s *rig) running() []*gatewayProcess {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.gateways), (*gatewayProcess).hasEnded)
}

func (s *rig) showLogs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, g := range s.gateways {
		s.t.Logf("log of gateway %d of %d:\n%s", i+1, len(s.gateways), g.log.text())
	}
}

// childLog keeps what a child process prints.
type childLog struct {
	mu   sync.Mutex
	data []byte
	gone bool
}

func (l *childLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return 0, io.ErrClosedPipe // which closes the child's pipe
	}
	l.data = append(l.data, p...)
	return len(p), nil
}

// leave lets nobody read what the child prints from now on.
func (l *childLog) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
}

func (l *childLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.data)
}

func (l *childLog) contains(text string) bool { return strings.Contains(l.text(), text) }

// addresses reads where the listeners are from the line that says so.
func (l *childLog) addresses() (public, admin string) {
	for line := range strings.Lines(l.text()) {
		var said struct {
			Listen string `json:"listen"`
			Admin  string `json:"admin_listen"`
		}
		if json.Unmarshal([]byte(line), &said) == nil && said.Admin != "" {
			return said.Listen, said.Admin
		}
	}
	return "", ""
}

// front is the public address: what stands before the gateways in production.
// It hands each connection to the next of those that run, and waits while there
// is none, so that a company's webhooks keep their order across a crash.
type front struct {
	url    string
	socket net.Listener
	closed chan struct{}

	mu       sync.Mutex
	backends []string
	changed  chan struct{} // closed when a gateway is added
	next     int
	conns    map[net.Conn]struct{}
	wait     sync.WaitGroup
}

func newFront(t *testing.T) *front {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{socket: socket, closed: make(chan struct{}), url: "http://" + socket.Addr().String(), conns: map[net.Conn]struct{}{}, changed: make(chan struct{})}
	f.wait.Go(f.accept)
	t.Cleanup(f.close)
	return f
}

func (f *front) add(backend string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backends = append(f.backends, backend)
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *front) remove(backend string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backends = slices.DeleteFunc(f.backends, func(b string) bool { return b == backend })
}

// pick returns the gateway whose turn it is, or a channel that is closed when
// there may be one.
func (f *front) pick() (backend string, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.backends) == 0 {
		return "", f.changed
	}
	f.next++
	return f.backends[f.next%len(f.backends)], nil
}

func (f *front) accept() {
	for {
		conn, err := f.socket.Accept()
		if err != nil {
			return // closed
		}
		f.wait.Go(func() { f.serve(conn) })
	}
}

// serve joins a client's connection with one to a gateway until either ends.
func (f *front) serve(client net.Conn) {
	defer client.Close()
	address, changed := f.pick()
	for address == "" {
		select {
		case <-changed:
			address, changed = f.pick()
		case <-f.closed:
			return
		}
	}
	backend, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer backend.Close()
	if !f.keep(client, backend) {
		return
	}
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{backend, client}, {client, backend}} {
		f.wait.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // ends when either side does
			done <- struct{}{}
		})
	}
	<-done
	f.forget(client, backend)
}

// keep remembers connections that close has to cut; false: it is closed.
func (f *front) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns == nil {
		return false
	}
	for _, c := range conns {
		f.conns[c] = struct{}{}
	}
	return true
}

func (f *front) forget(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.conns, c)
	}
}

func (f *front) close() {
	_ = f.socket.Close() // accept ends either way
	close(f.closed)
	f.mu.Lock()
	for c := range f.conns {
		_ = c.Close() // a second close is harmless
	}
	f.conns = nil
	f.mu.Unlock()
	f.wait.Wait()
}

// call makes one HTTP call and reads its answer.
func (s *rig) call(method, to string, header http.Header, body any) (int, []byte, error) {
	return callBy(s.t.Context(), s.agent, method, to, header, body)
}

func callBy(ctx context.Context, client *http.Client, method, to string, header http.Header, body any) (int, []byte, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, to, content)
	if err != nil {
		return 0, nil, err
	}
	if header != nil {
		req.Header = header.Clone()
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// api calls the REST API with the merchant's key; anything but 2xx is an error.
func (s *rig) api(method, path string, header http.Header, body, into any) error {
	if header == nil {
		header = http.Header{}
	}
	header.Set("Authorization", "Bearer "+demoAPIKey)
	status, answer, err := s.call(method, s.front.url+"/v1"+path, header, body)
	if err != nil {
		return err
	}
	if status/100 != 2 {
		return fmt.Errorf("%s %s answered %d: %s", method, path, status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// asked is what an agent asks for: one service at a price.
type asked struct {
	Order   string
	Phone   string
	Channel string
	Amount  string // in ZAR
	Key     string // Idempotency-Key; empty: none
	Hold    bool   // the money is only held
}

// ask asks for a payment and returns the payment request's id.
func (s *rig) ask(d asked) (string, error) {
	amount := map[string]string{"value": d.Amount, "currency": "ZAR"}
	body := map[string]any{
		"order": d.Order, "phone": d.Phone, "channel": d.Channel,
		"line_items": []any{map[string]any{"name": "Service", "quantity": 1, "unit_price": amount, "total": amount}},
		"subtotal":   amount, "tax": map[string]string{"value": "0.00", "currency": "ZAR"}, "total": amount,
	}
	if d.Hold {
		body["capture"] = false
	}
	header := http.Header{}
	if d.Key != "" {
		header.Set("Idempotency-Key", d.Key)
	}
	var made struct {
		ID string `json:"id"`
	}
	err := s.api(http.MethodPost, "/payment-requests", header, body, &made)
	return made.ID, err
}

// rigRequest is what the tests look at of a payment request in the API.
type rigRequest struct {
	ID        string `json:"id"`
	Lifecycle string `json:"lifecycle"`
	Reason    string `json:"reason"`
	Late      bool   `json:"late"`
	Totals    map[string]struct {
		Value    string `json:"value"`
		Currency string `json:"currency"`
	} `json:"totals"`
	Attempts []struct {
		Number int    `json:"number"`
		Code   string `json:"code"`
		State  string `json:"state"`
		Reason string `json:"reason"`
	} `json:"attempts"`
	Operations []rigOperation `json:"operations"`
	Messages   []struct {
		ID      string `json:"id"`
		Purpose string `json:"purpose"`
		Status  string `json:"status"`
	} `json:"messages"`
}

// rigOperation is one of its operations.
type rigOperation struct {
	ID    string `json:"id"`
	Kind  string `json:"kind"`
	State string `json:"state"`
	Error string `json:"error"`
}

// request reads a payment request as the merchant sees it.
func (s *rig) request(id string) rigRequest {
	s.t.Helper()
	var r rigRequest
	s.must(s.api(http.MethodGet, "/payment-requests/"+id, nil, nil, &r))
	return r
}

// eventTypes reads the event log of a payment request.
func (s *rig) eventTypes(id string) []string {
	s.t.Helper()
	var log struct {
		Items []struct {
			Seq  int    `json:"seq"`
			Type string `json:"type"`
		} `json:"items"`
	}
	s.must(s.api(http.MethodGet, "/payment-requests/"+id+"/events?limit=100", http.Header{"Accept": {"application/json"}}, nil, &log))
	var types []string
	for i, e := range log.Items {
		if e.Seq != i+1 {
			s.t.Errorf("event %d of the log has the number %d", i+1, e.Seq)
		}
		types = append(types, e.Type)
	}
	return types
}

// awaitEvent waits until the log of a payment request has an event.
func (s *rig) awaitEvent(id, kind string) {
	s.t.Helper()
	var seen []string
	defer func() {
		if s.t.Failed() {
			s.t.Logf("log of the payment request: %v", seen)
		}
	}()
	s.await("the event "+kind, func() bool { seen = s.eventTypes(id); return slices.Contains(seen, kind) })
}

// awaitLifecycle waits until a payment request has one of some lifecycles.
func (s *rig) awaitLifecycle(id string, any ...string) string {
	s.t.Helper()
	now := ""
	s.await("the lifecycle "+strings.Join(any, " or "), func() bool { now = s.request(id).Lifecycle; return slices.Contains(any, now) })
	return now
}

// samples reads one metric. To print all of them takes long under the race
// detector.
func (g *gatewayProcess) samples(name string) ([]byte, error) {
	_, text, err := g.s.call(http.MethodGet, "http://"+g.admin+"/metrics?name[]="+name, nil, nil)
	return text, err
}

var depthMetric = regexp.MustCompile(`(?m)^paythread_outbox_depth (\d+)`)

// awaitIdle waits until no work is left in the outbox: whatever a crash left
// behind has been done.
func (s *rig) awaitIdle() {
	s.t.Helper()
	s.await("nothing is left in the outbox", func() bool {
		for _, g := range s.running() {
			text, err := g.samples("paythread_outbox_depth")
			found := depthMetric.FindSubmatch(text)
			return err == nil && found != nil && string(found[1]) == "0"
		}
		return false
	})
}

// rigCharges are what the platform really did, by what became of it.
type rigCharges struct {
	Standing []cybersource.Transaction // sales and authorizations that were not given back
	Returned []cybersource.Transaction // those that were
}

// charges sorts the platform's own record.
func (s *rig) charges() rigCharges {
	list := s.world.CyberSource.Transactions()
	var c rigCharges
	for _, t := range list {
		if t.Kind != cybersource.KindSale && t.Kind != cybersource.KindAuthorization {
			continue
		}
		if slices.ContainsFunc(list, func(back cybersource.Transaction) bool {
			return back.ParentID == t.ID && (back.Kind == cybersource.KindReversal || back.Kind == cybersource.KindVoid)
		}) {
			c.Returned = append(c.Returned, t)
		} else {
			c.Standing = append(c.Standing, t)
		}
	}
	return c
}

// setFaults puts rules in force, instead of those before.
func (s *rig) setFaults(rules ...faults.Rule) {
	s.t.Helper()
	s.must(s.world.Faults.Replace(rules))
}

// awaitHeldCall waits until a fault rule holds a call.
func (s *rig) awaitHeldCall(id string) {
	s.t.Helper()
	s.await("a call is held by the rule "+id, func() bool {
		return slices.ContainsFunc(s.world.Faults.Rules(), func(r faults.State) bool { return r.ID == id && r.Held > 0 })
	})
}

// payer is a person with a phone and a browser.
type payer struct {
	s       *rig
	phone   string
	channel string
	client  *http.Client
	page    string // the page behind the link followed last
	nonce   string
	context string // the capture context that the card form was opened with
}

func (s *rig) payer(phone, channel string) *payer {
	c := &payer{s: s, phone: phone, channel: channel, client: &http.Client{
		Timeout: longestWait, Transport: &http.Transport{MaxIdleConnsPerHost: 32},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	s.t.Cleanup(c.client.CloseIdleConnections)
	return c
}

// links returns the links on the phone whose path begins so, oldest first: one
// for each message that carries one.
func (c *payer) links(path string) []string {
	var links []string
	for _, m := range c.s.world.Phones.Messages(c.phone) {
		if m.Channel != c.channel || m.Direction != simulator.Received {
			continue
		}
		for _, l := range m.Links {
			if strings.HasPrefix(l, c.s.front.url+path) {
				links = append(links, l)
			}
		}
	}
	return links
}

// follow opens the newest link on the phone whose path begins so ("/p/", "/r/"),
// and loads the page that it leads to.
func (c *payer) follow(path string) error {
	links := c.links(path)
	if len(links) == 0 {
		return fmt.Errorf("no message on the phone has a link to %s", path)
	}
	resp, err := c.client.Get(links[len(links)-1])
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // a redirect's body is empty
	if resp.StatusCode != http.StatusSeeOther {
		return fmt.Errorf("the link answered %d", resp.StatusCode)
	}
	c.page = resp.Header.Get("Location")
	status, body, err := callBy(c.s.t.Context(), c.client, http.MethodGet, c.page, nil, nil)
	if err != nil {
		return err
	}
	found := nonceInPage.FindSubmatch(body)
	if status != http.StatusOK || found == nil {
		return fmt.Errorf("the page answered %d", status)
	}
	c.nonce = string(found[1])
	return nil
}

// through sends the presses on the page to one of several gateways, past the
// public address.
func (c *payer) through(g *gatewayProcess) {
	c.page = strings.Replace(c.page, c.s.front.url, "http://"+g.public, 1)
}

// press makes a call of the page, as its script does.
func (c *payer) press(call string, body, into any) error {
	header := http.Header{"Origin": {c.s.front.url}, "X-Paythread-Nonce": {c.nonce}, "Accept": {"application/json"}}
	if body == nil {
		body = struct{}{}
	}
	status, answer, err := callBy(c.s.t.Context(), c.client, http.MethodPost, c.page+call, header, body)
	if err != nil {
		return err
	}
	if status/100 != 2 {
		return fmt.Errorf("%s answered %d: %s", call, status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// open presses the page's first button, or the one after a decline: the card
// form gets its capture context.
func (c *payer) open() error { return c.newContext("/open") }

// retry opens the card form once more.
func (c *payer) retry() error { return c.newContext("/context") }

func (c *payer) newContext(call string) error {
	var answer struct {
		Context string `json:"context"`
	}
	err := c.press(call, nil, &answer)
	c.context = answer.Context
	return err
}

// The numbers of cards with an outcome of their own.
const (
	panApproved    = "4111111111111111"
	panDeclined    = "4000000000000002"
	panRiskRefused = "4100000000000019"
)

// token enters a card into the card form.
func (c *payer) token(card string) (string, error) {
	if c.context == "" {
		return "", errors.New("there is no card form: the page gave no capture context")
	}
	body := map[string]any{"captureContext": c.context, "card": map[string]string{
		"number": card, "expirationMonth": "12", "expirationYear": strconv.Itoa(time.Now().Year() + 2), "securityCode": "123",
	}}
	status, answer, err := callBy(c.s.t.Context(), c.client, http.MethodPost, c.s.world.URL+"/cybersource/transient-tokens", nil, body)
	if err != nil {
		return "", err
	}
	var made struct {
		Token string `json:"transientToken"`
	}
	if status/100 != 2 {
		return "", fmt.Errorf("the card form answered %d: %s", status, answer)
	}
	err = json.Unmarshal(answer, &made)
	return made.Token, err
}

// shownState is what the pay page shows.
type shownState struct {
	Screen    string `json:"screen"`
	Lifecycle string `json:"lifecycle"`
	CanRetry  bool   `json:"can_retry"`
	Receipt   bool   `json:"receipt"`
}

// charge hands a transient token to the page and returns what it shows then.
func (c *payer) charge(token string) (shownState, error) {
	var state shownState
	err := c.press("/charge", map[string]string{"transient_token": token}, &state)
	return state, err
}

// pay enters a card and pays with it.
func (c *payer) pay(card string) (shownState, error) {
	token, err := c.token(card)
	if err != nil {
		return shownState{}, err
	}
	return c.charge(token)
}

// viewReceipt opens the receipt's link and touches the page.
func (c *payer) viewReceipt() error {
	if err := c.follow("/r/"); err != nil {
		return err
	}
	return c.press("/viewed", nil, nil)
}
