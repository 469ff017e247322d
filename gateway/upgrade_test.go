package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/simulator/meta"
)

// What the upgrade is played with.
const (
	upgradeStreams  = 200 // of agents, a fifth of them for all events of the merchant
	upgradeAsked    = 20  // payment requests that the others watch
	upgradeWriters  = 3   // of webhooks, one each upgradeEvery
	upgradeEvery    = 100 * time.Millisecond
	upgradePayers   = 3 // customers at the same time
	upgradeDrain    = 2 * time.Second
	visitEvery      = 40 * time.Millisecond
	probeEvery      = 200 * time.Millisecond
	betweenReplaced = 15 // webhooks, before the second process is replaced
)

// TestUpgradeUnderLoad replaces two processes behind a proxy one after the
// other, as a Deployment of Kubernetes with surge one and unavailable none does:
// a new one is ready before an old one is asked to stop. Meanwhile a company
// sends webhooks and repeats none, customers pay, and agents watch. None of them
// is answered with an error, and nothing is missed.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	u := newUpgrade(t)
	first := []*gatewayProcess{u.join(), u.join()}
	u.watch("/events", upgradeStreams/5)
	u.askAll()
	for _, r := range u.asked {
		u.watch("/payment-requests/"+r.ID+"/events", (upgradeStreams-upgradeStreams/5)/upgradeAsked)
	}
	if n := len(u.watchers); n != upgradeStreams {
		t.Fatalf("%d streams", n)
	}
	u.load()
	for _, old := range first {
		u.join()
		old.terminate()
		u.awaitWebhooks(betweenReplaced)
	}
	u.rest()
	u.check()
}

// upgrade is a rig whose public address leads to a proxy, and what happens
// behind it.
type upgrade struct {
	*rig
	proxy *probingProxy
	store *conversations.Store
	asked []*conversations.PaymentRequest

	watchers []*watcher
	watching sync.WaitGroup
	agents   context.Context // until they leave
	leave    context.CancelFunc

	working sync.WaitGroup
	over    chan struct{} // closed when nobody begins anything more
	written atomic.Int64  // webhooks that were answered
	next    atomic.Int64  // the next customer

	mu    sync.Mutex
	texts map[string][]string // what was written, by the contact
	paid  []string            // payment requests
	wrong []string
}

func newUpgrade(t *testing.T) *upgrade {
	t.Helper()
	u := &upgrade{over: make(chan struct{}), texts: map[string][]string{}}
	u.rig = newRig(t, aPlainRedis(t), func(o *rigOptions) {
		o.Env["DRAIN"] = upgradeDrain.String()
		o.Env["MERCHANTS_ACME_SENDERS_ACME_WA_PER_SECOND"] = "1000"
	})
	u.agent.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	u.proxy = newProbingProxy(t)
	u.front.add(u.proxy.address())
	u.store = u.openStore()
	u.agents, u.leave = context.WithCancel(context.Background())
	t.Cleanup(func() { u.leave(); u.watching.Wait() })
	return u
}

// fails notes what somebody should not have met.
func (u *upgrade) fails(format string, values ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.wrong = append(u.wrong, fmt.Sprintf(format, values...))
}

// join starts a process and waits until the proxy knows that it is ready.
func (u *upgrade) join() *gatewayProcess {
	u.t.Helper()
	g := u.spawnGateway()
	u.proxy.add(g)
	u.await("the proxy sends calls to the new process", func() bool { return u.proxy.serves(g) })
	return g
}

// askAll asks for the payments that are watched, of customers with whom an
// agent talks, so that what they write is not answered by the bot.
func (u *upgrade) askAll() {
	u.t.Helper()
	for i := range upgradeAsked {
		id, err := u.ask(asked{Order: fmt.Sprint("watched-", i), Phone: stormPhone(i), Channel: "whatsapp", Amount: "149.00"})
		u.must(err)
		r, err := u.store.Request(u.t.Context(), id)
		u.must(err)
		_, err = u.store.Apply(u.t.Context(), r.ContactID, conversations.TakenOver{Agent: "zoe"}, conversations.Once{})
		u.must(err)
		u.asked = append(u.asked, r)
	}
}

// load lets companies, customers and agents begin.
func (u *upgrade) load() {
	for writer := range upgradeWriters {
		u.working.Go(func() { u.write(writer) })
	}
	u.working.Go(u.visit)
	for range upgradePayers {
		u.working.Go(func() {
			for u.goesOn() {
				u.customer(int(u.next.Add(1) - 1))
			}
		})
	}
}

func (u *upgrade) goesOn() bool {
	select {
	case <-u.over:
		return false
	default:
		return true
	}
}

// write sends webhooks at a steady rate, each once.
func (u *upgrade) write(writer int) {
	tick := time.NewTicker(upgradeEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-u.over:
			return
		case <-tick.C:
		}
		i := (n*upgradeWriters + writer) % upgradeAsked
		text := fmt.Sprintf("word %d of %d", n, writer)
		phone := stormPhone(i)[1:]
		body := batchOf([]string{fmt.Sprintf(`{"messaging_product":"whatsapp","metadata":{"phone_number_id":%q},
			"messages":[{"from":%q,"id":"wamid.up-%d-%d","timestamp":"%d","type":"text","text":{"body":%q}}]}`,
			demoMeta.PhoneNumberID, phone, writer, n, time.Now().Unix(), text)}, 1)
		header := http.Header{"X-Hub-Signature-256": {"sha256=" + meta.Sign(demoMeta.AppSecret, body)}, "Content-Type": {"application/json"}}
		status, err := u.post(u.front.url+"/webhooks/acme-wa", header, body)
		if err != nil || status/100 != 2 {
			u.fails("a webhook was answered with %d, %v", status, err)
			continue
		}
		u.mu.Lock()
		u.texts[u.asked[i].ContactID] = append(u.texts[u.asked[i].ContactID], text)
		u.mu.Unlock()
		u.written.Add(1)
	}
}

// visit opens a stream now and then, and leaves when it has begun: also at a
// process that is about to stop, since whoever comes has not heard of it.
func (u *upgrade) visit() {
	tick := time.NewTicker(visitEvery)
	defer tick.Stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for n := 0; ; n++ {
		select {
		case <-u.over:
			return
		case <-tick.C:
		}
		w := u.watcher("/payment-requests/"+u.asked[n%upgradeAsked].ID+"/events", client)
		ctx, leave := context.WithTimeout(u.agents, longestWait)
		go func() {
			defer leave()
			select {
			case <-w.begun:
			case <-ctx.Done():
			}
		}()
		if _, err := w.read(ctx, ""); err != nil && ctx.Err() == nil {
			u.fails("a stream that was opened under way: %v", err)
		}
		leave()
	}
}

func (u *upgrade) watcher(path string, client *http.Client) *watcher {
	return &watcher{path: path, url: u.front.url + "/v1" + path, client: client, begun: make(chan struct{}), logs: logs{last: map[string]int64{}}}
}

func (u *upgrade) post(to string, header http.Header, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(u.t.Context(), http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header = header
	answer, err := u.agent.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, errors.Join(err, answer.Body.Close())
}

// customer pays: the first ones what was asked before, all others what they are
// asked now.
func (u *upgrade) customer(i int) {
	phone := stormPhone(i)
	var id string
	if i < len(u.asked) {
		id = u.asked[i].ID
	} else {
		var err error
		if id, err = u.ask(asked{Order: fmt.Sprint("new-", i), Phone: phone, Channel: "whatsapp", Amount: "149.00"}); err != nil {
			u.fails("customer %d was not asked: %v", i, err)
			return
		}
	}
	c := u.payer(phone, "whatsapp")
	steps := []struct {
		name string
		do   func() error
	}{
		{"the link", func() error { return u.arrives(c, "/p/") }},
		{"opening", c.open},
		{"paying", func() error { _, err := c.pay(panApproved); return err }},
		{"the receipt's link", func() error { return u.arrives(c, "/r/") }},
		{"viewing", func() error { return c.press("/viewed", nil, nil) }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			u.fails("customer %d, %s: %v", i, s.name, err)
			return
		}
	}
	u.mu.Lock()
	u.paid = append(u.paid, id)
	u.mu.Unlock()
}

// arrives waits for a message with a link, and follows it.
func (u *upgrade) arrives(c *payer, path string) error {
	ctx, cancel := context.WithTimeout(u.t.Context(), longestWait)
	defer cancel()
	for len(c.links(path)) == 0 {
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return fmt.Errorf("no message with a link to %s within %v", path, longestWait)
		}
	}
	return c.follow(path)
}

// awaitWebhooks waits until so many more were answered.
func (u *upgrade) awaitWebhooks(more int64) {
	u.t.Helper()
	before := u.written.Load()
	u.await("more webhooks are answered", func() bool { return u.written.Load() >= before+more })
}

// rest lets everybody finish what they began.
func (u *upgrade) rest() {
	close(u.over)
	u.working.Wait()
	u.awaitIdle()
}

// check looks at what each of them has met, and at what is there.
func (u *upgrade) check() {
	u.t.Helper()
	u.mu.Lock()
	wrong := slices.Concat(u.wrong, u.proxy.failures())
	u.mu.Unlock()
	for _, w := range wrong {
		u.t.Error(w)
	}
	total := 0
	for _, r := range u.asked {
		var texts []string
		for _, m := range u.transcriptOf(u.store, r.ContactID) {
			if m.Inbound {
				texts = append(texts, m.Text)
			}
		}
		want := slices.Sorted(slices.Values(u.texts[r.ContactID]))
		if slices.Sort(texts); !slices.Equal(texts, want) {
			u.t.Errorf("the customer of %s wrote %q, want %q", r.Order.Reference, texts, want)
		}
		total += len(want)
	}
	for _, id := range u.paid {
		u.awaitLifecycle(id, "paid")
		u.awaitEvent(id, "receipt_viewed")
	}
	if total < 2*betweenReplaced || len(u.paid) < 2*upgradePayers {
		u.t.Errorf("%d webhooks, %d payments: that was no load", total, len(u.paid))
	}
	u.checkStreams()
	u.t.Logf("%d webhooks, %d payments, %d streams", total, len(u.paid), len(u.watchers))
}

// checkStreams waits until every stream has come to the end of every log that
// it shows.
func (u *upgrade) checkStreams() {
	u.t.Helper()
	ends := map[string]int64{}
	for cursor := ""; ; {
		page, next, err := u.store.Requests(u.t.Context(), conversations.Filter{MerchantID: "acme"}, cursor, 100)
		u.must(err)
		for _, r := range page {
			ends[r.ID] = r.LastEvent
		}
		if next == "" {
			break
		}
		cursor = next
	}
	for _, w := range u.watchers {
		u.await("a stream of "+w.path+" has seen everything", func() bool { return w.failure() != "" || w.hasSeen(ends) })
	}
	u.leave()
	u.watching.Wait()
	for _, w := range u.watchers {
		if wrong := w.failure(); wrong != "" {
			u.t.Errorf("a stream of %s: %s", w.path, wrong)
		}
		if w.opened < 2 {
			u.t.Errorf("a stream of %s was never cut: it is on a process that has ended", w.path)
		}
	}
}

// watch opens so many streams, and returns when the server has answered each.
func (u *upgrade) watch(path string, streams int) {
	u.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var begun []*watcher
	for range streams {
		w := u.watcher(path, client)
		begun = append(begun, w)
		u.watching.Go(func() { w.run(u.agents) })
	}
	u.watchers = append(u.watchers, begun...)
	for _, w := range begun {
		select {
		case <-w.begun:
		case <-time.After(longestWait):
			u.t.Fatalf("a stream of %s did not begin within %v: %s", path, longestWait, w.failure())
		}
	}
}

// watcher is an agent's browser: it comes back when its stream ends, with the
// id of the last thing that it saw.
type watcher struct {
	path, url string
	client    *http.Client
	begun     chan struct{} // closed when the first block has come

	mu     sync.Mutex
	logs   logs
	opened int // how often it came
	wrong  string
}

// comesBackAfter is how long a browser waits before it opens a stream again.
const comesBackAfter = 150 * time.Millisecond

func (w *watcher) run(ctx context.Context) {
	last := ""
	for ctx.Err() == nil {
		var err error
		if last, err = w.read(ctx, last); err != nil && ctx.Err() == nil {
			w.fail(err)
			return
		}
		wait := time.NewTimer(comesBackAfter)
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
	}
}

// read opens the stream once and reads it to its end. It returns the last id,
// and an error that a browser's user would see.
func (w *watcher) read(ctx context.Context, last string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err != nil {
		return last, err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+demoAPIKey)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	answer, err := w.client.Do(req)
	if err != nil {
		return last, err
	}
	defer func() { _ = answer.Body.Close() }() // it has ended, or nobody reads on
	if answer.StatusCode != http.StatusOK {
		return last, fmt.Errorf("it was answered with %d", answer.StatusCode)
	}
	w.mu.Lock()
	w.opened++
	w.mu.Unlock()
	l := &listener{response: answer, lines: bufio.NewScanner(answer.Body), id: last}
	l.lines.Buffer(nil, 1<<20)
	for {
		b, err := l.next()
		if err != nil {
			return l.id, nil // the process ended: the browser comes back
		}
		if err := w.take(b); err != nil {
			return l.id, err
		}
	}
}

func (w *watcher) take(b block) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.begun:
	default:
		close(w.begun)
	}
	switch {
	case b.data == "":
		return nil
	case b.event == "reset":
		return errors.New("it was told to read the lists again, although Redis never went back")
	}
	var e seen
	if err := json.Unmarshal([]byte(b.data), &e); err != nil {
		return err
	}
	return w.logs.take(e)
}

func (w *watcher) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = err.Error()
}

func (w *watcher) failure() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrong
}

// hasSeen tells whether the stream has come to the ends of the logs that it
// shows.
func (w *watcher) hasSeen(ends map[string]int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, end := range ends {
		if (w.path == "/events" || strings.Contains(w.path, id)) && w.logs.last[id] != end {
			return false
		}
	}
	return true
}

// probingProxy is what stands before the gateways where they are rolled: it
// asks each whether it is ready, now and then, and believes the last answer. So
// it goes on sending calls for a while to one that is about to stop. It tries
// nothing twice.
type probingProxy struct {
	server *httptest.Server
	ended  chan struct{}
	wait   sync.WaitGroup
	prober *http.Client

	mu    sync.Mutex
	known []*proxied
	turn  int
	wrong []string
}

type proxied struct {
	gateway *gatewayProcess
	through *httputil.ReverseProxy
	ready   bool
}

func newProbingProxy(t *testing.T) *probingProxy {
	t.Helper()
	p := &probingProxy{ended: make(chan struct{}), prober: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	p.server = httptest.NewServer(p)
	p.wait.Go(p.probe)
	t.Cleanup(func() {
		close(p.ended)
		p.wait.Wait()
		p.server.CloseClientConnections()
		p.server.Close()
	})
	return p
}

func (p *probingProxy) address() string { return p.server.Listener.Addr().String() }

func (p *probingProxy) add(g *gatewayProcess) {
	to := &url.URL{Scheme: "http", Host: g.public}
	through := &httputil.ReverseProxy{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // a stream that is cut is none
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode >= http.StatusInternalServerError {
				p.note("%s %s was answered with %d", r.Request.Method, r.Request.URL.Path, r.StatusCode)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil { // else the caller has gone
				p.note("%s %s: %v", r.Method, r.URL.Path, err)
			}
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = append(p.known, &proxied{gateway: g, through: through})
}

func (p *probingProxy) note(format string, values ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = append(p.wrong, "through the proxy: "+fmt.Sprintf(format, values...))
}

func (p *probingProxy) failures() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.wrong)
}

func (p *probingProxy) serves(g *gatewayProcess) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.known, func(b *proxied) bool { return b.gateway == g && b.ready })
}

// probe asks all processes, one after the other.
func (p *probingProxy) probe() {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.ended:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		known := slices.Clone(p.known)
		p.mu.Unlock()
		for _, b := range known {
			answer, err := p.prober.Get("http://" + b.gateway.admin + "/readyz")
			ready := err == nil && answer.StatusCode == http.StatusOK
			if err == nil {
				_ = answer.Body.Close() // the status says it
			}
			p.mu.Lock()
			b.ready = ready
			p.mu.Unlock()
		}
	}
}

// ServeHTTP sends a call to the next process that was ready when it was asked.
func (p *probingProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	ready := slices.DeleteFunc(slices.Clone(p.known), func(b *proxied) bool { return !b.ready })
	p.turn++
	turn := p.turn
	p.mu.Unlock()
	if len(ready) == 0 {
		p.note("%s %s: no process is ready", r.Method, r.URL.Path)
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	ready[turn%len(ready)].through.ServeHTTP(w, r)
}
