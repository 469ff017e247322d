package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"paythread/conversations"
	"paythread/conversations/redistest"
)

// streamWait bounds every wait of these tests, far above what anything needs.
const streamWait = time.Minute

// streamStore connects to a store of the test's own.
func streamStore(t *testing.T, address string) *conversations.Store {
	t.Helper()
	s, err := conversations.Connect(t.Context(), conversations.Options{
		Addresses: []string{address}, Prefix: fmt.Sprintf("t:%s:%d", t.Name(), time.Now().UnixNano()), Partitions: 4,
		Merchants: []conversations.Merchant{streamMerchant("acme"), streamMerchant("other")},
	})
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() }) // the end of the test
	return s
}

func streamMerchant(id string) conversations.Merchant {
	return conversations.Merchant{
		ID: id, Name: id, PublicURL: "https://pay.example", Country: "ZA", Locale: "en", Sandbox: true,
		Senders:    map[conversations.Channel]string{conversations.WhatsApp: id + "-wa"},
		TimeToOpen: time.Hour, TimeToPay: 15 * time.Minute, MaxAttempts: 3, Capture: true,
	}
}

// newRequest makes a payment request, whose log then has its first events.
func newRequest(t *testing.T, s *conversations.Store, merchant, order string) *conversations.PaymentRequest {
	t.Helper()
	price := conversations.Money{Minor: 14900, Currency: "ZAR"}
	none := conversations.Money{Currency: "ZAR"}
	r, err := s.Create(t.Context(), conversations.CreateRequest{
		MerchantID: merchant, Phone: fmt.Sprintf("+2782%07d", rand.IntN(1e7)), Channel: conversations.WhatsApp,
		Order: conversations.Order{
			Reference: order, Subtotal: price, Tax: none, Shipping: none, Discount: none, Total: price,
			LineItems: []conversations.LineItem{{Name: "Service", Quantity: 1, UnitPrice: price, Total: price}},
		},
	})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return r
}

// extend commits one event, and returns the number of the newest.
func extend(ctx context.Context, s *conversations.Store, r *conversations.PaymentRequest) (int64, error) {
	a, err := s.Apply(ctx, r.ContactID, conversations.Extended{RequestID: r.ID}, conversations.Once{})
	if err != nil {
		return 0, err
	}
	if a.Refused != nil {
		return 0, a.Refused
	}
	return a.Request.LastEvent, nil
}

func extendTimes(t *testing.T, s *conversations.Store, r *conversations.PaymentRequest, times int) (last int64) {
	t.Helper()
	for range times {
		var err error
		if last, err = extend(t.Context(), s, r); err != nil {
			t.Fatalf("extend: %v", err)
		}
	}
	return last
}

// streamServer is a hub behind a listener.
type streamServer struct {
	*streams
	url      string
	registry *prometheus.Registry
}

type streamServerOptions struct {
	heartbeat time.Duration
	queue     int
	until     time.Time
	header    [][2]string
	caller    streamCaller
	keep      bool // sockets, as the gateway does
	idle      bool // the hub does not run
}

func startStreams(t *testing.T, s *conversations.Store, o streamServerOptions) *streamServer {
	t.Helper()
	if o.heartbeat == 0 {
		o.heartbeat = time.Minute
	}
	if o.queue == 0 {
		o.queue = 64
	}
	log := slog.New(slog.DiscardHandler)
	registry := prometheus.NewRegistry()
	hub := newStreams(s, o.heartbeat, o.queue, func(e conversations.LoggedEvent) string { return "it was " + e.Type }, registry, log)
	app := fiber.New(fiber.Config{DisableStartupMessage: true, Immutable: true, ErrorHandler: problemHandler(log)})
	app.Server().KeepHijackedConns = o.keep
	options := func(c *fiber.Ctx) streamOptions {
		return streamOptions{Header: o.header, Until: o.until, LastEventID: c.Get("Last-Event-ID"), Field: "Last-Event-ID", Caller: o.caller}
	}
	app.Get("/requests/:id", func(c *fiber.Ctx) error {
		r, err := s.Request(c.Context(), c.Params("id"))
		if err != nil {
			return err
		}
		return hub.serveRequestEvents(c, r, options(c))
	})
	app.Get("/merchants/:id", func(c *fiber.Ctx) error { return hub.serveMerchantEvents(c, c.Params("id"), options(c)) })
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = app.Listener(socket) }) // ends with Shutdown
	if !o.idle {
		running.Go(func() { _ = hub.Run(ctx) }) // says nothing but nil
	}
	t.Cleanup(func() {
		hub.Close()
		_ = app.ShutdownWithTimeout(streamWait) // connections are idle or gone
		cancel()
		running.Wait()
	})
	return &streamServer{streams: hub, url: "http://" + socket.Addr().String(), registry: registry}
}

// metric returns the value of a gauge or counter.
func (s *streamServer) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if m := f.GetMetric()[0]; f.GetName() == name {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() // one of them is nil, and so zero
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// count returns how many streams are open.
func (s *streamServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// block is what stands between two empty lines of a stream.
type block struct{ id, event, data, comment string }

// seen is an event as a client reads it.
type seen struct {
	Seq       int64  `json:"seq"`
	Type      string `json:"type"`
	RequestID string `json:"payment_request_id"`
	Order     string `json:"order"`
	Text      string `json:"text"`
}

// listener is a client of a stream.
type listener struct {
	response *http.Response
	lines    *bufio.Scanner
	cancel   context.CancelFunc
	id       string // of the last block that had one
}

// listen opens a stream. lastID is that of the client's last event, if any.
func listen(t *testing.T, url, lastID string) *listener {
	t.Helper()
	l, err := tryListen(url, lastID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.leave)
	return l
}

func tryListen(url, lastID string) (*listener, error) { return tryListenAs(url, lastID, "") }

// tryListenAs is tryListen with an API key or token.
func tryListenAs(url, lastID, key string) (*listener, error) {
	ctx, cancel := context.WithTimeout(context.Background(), streamWait)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	r.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		cancel()
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		cancel()
		_ = response.Body.Close() // the status says enough
		return nil, fmt.Errorf("stream answered %d", response.StatusCode)
	}
	l := &listener{response: response, lines: bufio.NewScanner(response.Body), cancel: cancel, id: lastID}
	l.lines.Buffer(nil, 1<<20)
	return l, nil
}

// leave cuts the connection.
func (l *listener) leave() {
	l.cancel()
	_ = l.response.Body.Close() // it is cut
}

// next reads one block. io.EOF says that the server ended the stream.
func (l *listener) next() (block, error) {
	var b block
	for l.lines.Scan() {
		line := l.lines.Text()
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if b.id != "" {
				l.id = b.id
			}
			return b, nil
		case name == "":
			b.comment = value
		case name == "id":
			b.id = value
		case name == "event":
			b.event = value
		case name == "data":
			b.data = value
		default:
			return b, fmt.Errorf("a line that is no field: %q", line)
		}
	}
	if err := l.lines.Err(); err != nil {
		return b, err
	}
	return b, io.EOF
}

// news reads the next block that has data.
func (l *listener) news() (block, seen, error) {
	for {
		b, err := l.next()
		if err != nil {
			return b, seen{}, err
		}
		if b.data == "" {
			continue
		}
		var e seen
		return b, e, json.Unmarshal([]byte(b.data), &e)
	}
}

// expect reads one event with a number.
func (l *listener) expect(t *testing.T, seq int64) {
	t.Helper()
	b, e, err := l.news()
	if err != nil || b.event != "payment_request" || e.Seq != seq {
		t.Fatalf("got %s %d, %v; want payment_request %d", b.event, e.Seq, err, seq)
	}
}

// expectReset reads a reset.
func (l *listener) expectReset(t *testing.T) {
	t.Helper()
	if b, _, err := l.news(); err != nil || b.event != "reset" {
		t.Fatalf("got %q %s, %v; want reset", b.event, b.data, err)
	}
}

// expectEnd reads until the server ends the stream.
func (l *listener) expectEnd(t *testing.T) {
	t.Helper()
	for {
		if _, err := l.next(); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				t.Fatal("the stream did not end")
			}
			return
		}
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(streamWait); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: it never came to that", what)
		}
	}
}

func TestRequestStream(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep=%v", keep), func(t *testing.T) {
			t.Parallel()
			s := streamStore(t, redistest.Shared(t).Addr)
			server := startStreams(t, s, streamServerOptions{keep: keep, header: [][2]string{{"Vary", "Origin"}, {"Access-Control-Allow-Origin", "https://oms.example"}}})
			r, another := newRequest(t, s, "acme", "1042"), newRequest(t, s, "acme", "1043")
			last := extendTimes(t, s, r, 5)
			for after := range last + 1 {
				l := listen(t, server.url+"/requests/"+r.ID, strconv.FormatInt(after, 10))
				for seq := after + 1; seq <= last; seq++ {
					l.expect(t, seq)
				}
				extendTimes(t, s, another, 1) // not for this stream
				last = extendTimes(t, s, r, 1)
				l.expect(t, last)
				l.leave()
			}
			l := listen(t, server.url+"/requests/"+r.ID, "")
			for seq := range last {
				l.expect(t, seq+1)
			}
			for name, want := range map[string]string{
				"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
				"Vary": "Origin", "Access-Control-Allow-Origin": "https://oms.example", "X-Content-Type-Options": "nosniff",
			} {
				if got := l.response.Header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			if _, err := http.ParseTime(l.response.Header.Get("Date")); err != nil {
				t.Errorf("Date: %v", err)
			}
		})
	}
}

func TestStreamShowsWhatTheAPIShows(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	events, err := s.Events(t.Context(), r.ID, 0, 10)
	if err != nil || len(events) == 0 {
		t.Fatalf("got %d events, %v", len(events), err)
	}
	hub := newStreams(s, time.Minute, 1, eventText, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	for _, e := range events {
		want, err := json.Marshal(eventDocument(e))
		if err != nil {
			t.Fatal(err)
		}
		if got := hub.json(e); !bytes.Equal(got, want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestStreamRefuses(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	server := startStreams(t, s, streamServerOptions{})
	for _, id := range []string{"x", "-1", "1.5", "1e3", "99999999999999999999", "1 2"} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.url+"/requests/"+r.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Last-Event-ID", id)
		response, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body) // what could be read is shown
		_ = response.Body.Close()            // read
		if response.StatusCode/100 != 4 || !strings.Contains(string(body), "Last-Event-ID") {
			t.Errorf("Last-Event-ID %q: got %d %s, want a refusal that names the header", id, response.StatusCode, body)
		}
	}
	if n := server.count(); n != 0 {
		t.Errorf("%d streams are open", n)
	}
}

func TestStreamHead(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	server := startStreams(t, s, streamServerOptions{})
	for _, path := range []string{"/requests/" + r.ID, "/merchants/acme"} {
		response, err := http.Head(server.url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close() // HEAD has none
		if got := response.Header.Get("Content-Type"); response.StatusCode != 200 || got != "text/event-stream" {
			t.Errorf("HEAD %s: got %d %s, want 200 text/event-stream", path, response.StatusCode, got)
		}
	}
	if n := server.count(); n != 0 {
		t.Errorf("%d streams are open", n)
	}
}

// TestMerchantStreamResumes cuts a merchant's stream after every event, while
// commits go on, and resumes it at another hub each time.
func TestMerchantStreamResumes(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	hubs := []*streamServer{startStreams(t, s, streamServerOptions{}), startStreams(t, s, streamServerOptions{keep: true})}
	before := newRequest(t, s, "acme", "before")
	l := listen(t, hubs[0].url+"/merchants/acme", "")
	if b, err := l.next(); err != nil || b.comment != "hello" {
		t.Fatalf("got %+v, %v; want hello", b, err)
	}
	if b, err := l.next(); err != nil || b.id == "" || b.data != "" {
		t.Fatalf("got %+v, %v; want a place to resume from", b, err)
	}
	l.leave() // before its first event
	extendTimes(t, s, before, 1)

	const requests, times = 6, 12
	var committing sync.WaitGroup
	logs := newLogs(before.ID, before.LastEvent)
	for i := range requests {
		committing.Go(func() {
			r := newRequest(t, s, "acme", fmt.Sprint("order-", i))
			foreign := newRequest(t, s, "other", fmt.Sprint("order-", i))
			extendTimes(t, s, r, times)
			extendTimes(t, s, foreign, 2)
		})
	}
	want := 1 + requests*(times+1) // each request is created once
	for n := 0; n < want; n++ {
		next := listen(t, hubs[n%2].url+"/merchants/acme", l.id)
		b, e, err := next.news()
		if err != nil || b.event != "payment_request" {
			t.Fatalf("after %d of %d events: got %q, %v", n, want, b.event, err)
		}
		if len(b.id) > 250 {
			t.Errorf("an id of %d characters", len(b.id))
		}
		if err := logs.take(e); err != nil {
			t.Fatal(err)
		}
		next.leave()
		l = next
	}
	committing.Wait()
	l = listen(t, hubs[0].url+"/merchants/acme", l.id)
	mark := newRequest(t, s, "acme", "mark") // the next event, if none was left
	if b, e, err := l.news(); err != nil || e.RequestID != mark.ID {
		t.Fatalf("got %q of %s, %v; want the first event of %s", b.event, e.Order, err, mark.ID)
	}
}

// logs is what a client has seen of several requests: it refuses a gap, a
// repetition and a wrong order.
type logs struct{ last map[string]int64 }

func newLogs(id string, seq int64) *logs { return &logs{last: map[string]int64{id: seq}} }

func (l *logs) take(e seen) error {
	if e.Seq != l.last[e.RequestID]+1 {
		return fmt.Errorf("order %s: got event %d after %d", e.Order, e.Seq, l.last[e.RequestID])
	}
	l.last[e.RequestID] = e.Seq
	return nil
}

// TestStreamsUnderCuts commits from many goroutines while many clients of two
// hubs connect, are cut and resume, by short queues too. Each must see every
// event once and in the order of its request.
func TestStreamsUnderCuts(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	hubs := []*streamServer{startStreams(t, s, streamServerOptions{queue: 4, keep: true}), startStreams(t, s, streamServerOptions{queue: 4})}
	const committers, times, clients = 20, 25, 50
	requests := make([]*conversations.PaymentRequest, committers)
	for i := range requests {
		requests[i] = newRequest(t, s, "acme", fmt.Sprint("order-", i))
	}
	end, err := s.FeedEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := requests[0].LastEvent
	failed := make(chan error, committers+clients)
	var all sync.WaitGroup
	for _, r := range requests {
		all.Go(func() {
			for range times {
				if _, err := extend(t.Context(), s, r); err != nil {
					failed <- fmt.Errorf("extend: %w", err)
					return
				}
			}
		})
	}
	for i := range clients {
		all.Go(func() {
			path, id, total := "/merchants/acme", end.String(), committers*times
			if i%2 == 1 {
				path, id, total = "/requests/"+requests[i%committers].ID, strconv.FormatInt(first, 10), times
			}
			if err := readCut(hubs, path, id, first, total); err != nil {
				failed <- fmt.Errorf("client %d of %s: %w", i, path, err)
			}
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

// readCut reads so many events in pieces of random length, each from a hub
// chosen at random.
func readCut(hubs []*streamServer, path, id string, first int64, total int) error {
	seenLogs := &logs{last: map[string]int64{}}
	for n := 0; n < total; {
		l, err := tryListen(hubs[rand.IntN(len(hubs))].url+path, id)
		if err != nil {
			return err
		}
		for piece := rand.IntN(60); piece >= 0 && n < total; piece-- {
			b, e, err := l.news()
			if endedByServer(err) {
				break // a short queue ran over
			}
			if err != nil {
				return fmt.Errorf("after %d of %d: %w", n, total, err)
			}
			if b.event != "payment_request" {
				return fmt.Errorf("after %d of %d: got %q", n, total, b.event)
			}
			if _, known := seenLogs.last[e.RequestID]; !known {
				seenLogs.last[e.RequestID] = first
			}
			if err := seenLogs.take(e); err != nil {
				return err
			}
			n++
		}
		id = l.id
		l.leave()
	}
	return nil
}

// endedByServer tells an end, or a connection that was closed before all that
// was written had been read.
func endedByServer(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) && !op.Timeout()
}

func TestMerchantStreamResets(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	server := startStreams(t, s, streamServerOptions{})
	beyond, err := s.FeedEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for p := range beyond {
		beyond[p].Ms += time.Hour.Milliseconds()
	}
	old := make(conversations.Cursor, s.Partitions())
	for p := range old {
		old[p].Ms = time.Now().Add(-30 * 24 * time.Hour).UnixMilli()
	}
	for name, id := range map[string]string{
		"garbled": "?", "of another store": strings.Repeat("A", 20), "too long": strings.Repeat("A", 300),
		"beyond the feed": beyond.String(), "too old": old.String(),
	} {
		l := listen(t, server.url+"/merchants/acme", id)
		l.expectReset(t)
		last := extendTimes(t, s, r, 1)
		l.expect(t, last)
		l.leave()
		// The id of a reset is a place to go on from.
		last = extendTimes(t, s, r, 1)
		l = listen(t, server.url+"/merchants/acme", l.id)
		if _, e, err := l.news(); err != nil || e.Seq != last {
			t.Errorf("%s: got %d, %v; want %d", name, e.Seq, err, last)
		}
		l.leave()
	}
}

func TestRequestStreamResetsBeyondItsLog(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	server := startStreams(t, s, streamServerOptions{})
	l := listen(t, server.url+"/requests/"+r.ID, "1000")
	l.expectReset(t)
	if want := strconv.FormatInt(r.LastEvent, 10); l.id != want {
		t.Errorf("the reset's id: got %s, want %s", l.id, want)
	}
	l.expect(t, extendTimes(t, s, r, 1))
}

// TestSlowClientIsCut has a client that does not read. It is cut, nobody else
// is, and it resumes.
func TestSlowClientIsCut(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	server := startStreams(t, s, streamServerOptions{queue: 16})
	r := newRequest(t, s, "acme", "1042")
	fast := listen(t, server.url+"/requests/"+r.ID, "0")
	slow, err := net.Dial("tcp", strings.TrimPrefix(server.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if err := slow.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(slow, "GET /requests/%s HTTP/1.1\r\nHost: x\r\n\r\n", r.ID)
	eventually(t, "two streams", func() bool { return server.count() == 2 })
	for seq := range r.LastEvent {
		fast.expect(t, seq+1)
	}
	// Large entries fill the sockets' buffers, which may hold megabytes.
	big := strings.Repeat("x", 256<<10)
	next := r.LastEvent
	for n := 0; server.metric(t, "paythread_sse_cut_total") == 0; n++ {
		if n == 2000 {
			t.Fatal("the slow client was never cut")
		}
		next++
		server.hand([]conversations.FeedEntry{{MerchantID: "acme", Event: conversations.LoggedEvent{RequestID: r.ID, Seq: next, Order: big}}})
		for {
			b, err := fast.next()
			if err != nil {
				t.Fatalf("the fast client was cut too: %v", err)
			}
			if b.id == strconv.FormatInt(next, 10) {
				break
			}
		}
	}
	eventually(t, "one stream", func() bool { return server.count() == 1 })
	l := listen(t, server.url+"/requests/"+r.ID, "")
	l.expect(t, 1)
}

func TestStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	server := startStreams(t, s, streamServerOptions{heartbeat: 50 * time.Millisecond, until: time.Now().Add(-2 * untilSpread)})
	l := listen(t, server.url+"/requests/"+r.ID, "")
	l.expectEnd(t)
	eventually(t, "no stream", func() bool { return server.count() == 0 })
}

func TestStreamHeartbeats(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	server := startStreams(t, s, streamServerOptions{heartbeat: 20 * time.Millisecond})
	l := listen(t, server.url+"/requests/"+r.ID, "")
	for n := 0; n < 3; {
		b, err := l.next()
		if err != nil {
			t.Fatal(err)
		}
		if b.comment == "hb" {
			n++
			if b.id != "" || b.data != "" {
				t.Errorf("a heartbeat with more than a comment: %+v", b)
			}
		}
	}
	m := listen(t, server.url+"/merchants/acme", "")
	newRequest(t, s, "other", "of nobody's concern")
	end, err := s.FeedEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for m.id != end.String() {
		if b, err := m.next(); err != nil || b.data != "" {
			t.Fatalf("got %+v, %v; want a heartbeat with the place %s", b, err, end)
		}
	}
}

// TestIdleStreamsAreFreed is not parallel: it counts the goroutines that this
// package's streams have, and other tests have some.
func TestIdleStreamsAreFreed(t *testing.T) {
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	for _, keep := range []bool{false, true} {
		server := startStreams(t, s, streamServerOptions{keep: keep})
		l := listen(t, server.url+"/requests/"+r.ID, "")
		l.expect(t, 1)
		before := streamGoroutines()
		const n = 1000
		conns := make([]net.Conn, n)
		for i := range conns {
			c, err := net.Dial("tcp", strings.TrimPrefix(server.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			conns[i] = c
			path := "/requests/" + r.ID
			if i%10 == 0 {
				path = "/merchants/acme"
			}
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		}
		eventually(t, "all streams", func() bool { return server.count() == n+1 })
		if got := server.metric(t, "paythread_sse_connections"); got != n+1 {
			t.Errorf("got %v connections in the metric, want %d", got, n+1)
		}
		for _, c := range conns {
			_ = c.Close() // it leaves
		}
		eventually(t, "one stream", func() bool { return server.count() == 1 })
		eventually(t, "no goroutine more than before", func() bool { return streamGoroutines() <= before })
		server.mu.Lock()
		if len(server.byRequest) != 1 || len(server.byMerchant) != 0 {
			t.Errorf("left behind: %d requests and %d merchants", len(server.byRequest), len(server.byMerchant))
		}
		server.mu.Unlock()
	}
}

// streamGoroutines counts the goroutines that serve streams.
func streamGoroutines() int {
	buf := make([]byte, 16<<20)
	n := 0
	for _, g := range bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n")) {
		if bytes.Contains(g, []byte("(*stream).")) || bytes.Contains(g, []byte("hijackConnHandler")) {
			n++
		}
	}
	return n
}

func TestCloseEndsStreams(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	for _, keep := range []bool{false, true} {
		server := startStreams(t, s, streamServerOptions{keep: keep})
		ofRequest, ofMerchant := listen(t, server.url+"/requests/"+r.ID, ""), listen(t, server.url+"/merchants/acme", "")
		ofRequest.expect(t, 1)
		server.Close()
		server.Close()
		ofRequest.expectEnd(t)
		ofMerchant.expectEnd(t)
		eventually(t, "no stream", func() bool { return server.count() == 0 })
		if l, err := tryListen(server.url+"/requests/"+r.ID, ""); err == nil {
			l.leave()
			t.Error("a stream was opened after Close")
		}
	}
}

func TestStreamIsUnavailableBeforeTheFeedIsFollowed(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	server := startStreams(t, s, streamServerOptions{idle: true})
	response, err := http.Get(server.url + "/merchants/acme")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close() // the status says enough
	if response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", response.StatusCode)
	}
}

// TestStreamsSurviveARedisRestart kills a Redis that keeps its data.
func TestStreamsSurviveARedisRestart(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	s := streamStore(t, redis.Addr)
	server := startStreams(t, s, streamServerOptions{})
	r := newRequest(t, s, "acme", "1042")
	ofMerchant := listen(t, server.url+"/merchants/acme", "")
	ofRequest := listen(t, server.url+"/requests/"+r.ID, "")
	for range 2 { // hello and the place: it is in the hub and reads on
		if _, err := ofMerchant.next(); err != nil {
			t.Fatal(err)
		}
	}
	ofRequest.expect(t, 1)
	last := extendTimes(t, s, r, 1)
	ofRequest.expect(t, last)
	ofMerchant.expect(t, last)
	redis.Restart()
	last = extendTimes(t, s, r, 1)
	ofRequest.expect(t, last)
	ofMerchant.expect(t, last)
}

// TestStreamsAreToldOfALostFeed kills a Redis that keeps nothing, as a failover
// does that lost entries.
func TestStreamsAreToldOfALostFeed(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--appendonly", "no")
	s := streamStore(t, redis.Addr)
	server := startStreams(t, s, streamServerOptions{})
	r := newRequest(t, s, "acme", "1042")
	ofMerchant := listen(t, server.url+"/merchants/acme", "")
	ofRequest := listen(t, server.url+"/requests/"+r.ID, "")
	for range 2 {
		if _, err := ofMerchant.next(); err != nil {
			t.Fatal(err)
		}
	}
	ofRequest.expect(t, 1)
	redis.Restart()
	ofMerchant.expectReset(t)
	ofRequest.expectReset(t)
	if ofRequest.id != "0" {
		t.Errorf("a request's stream goes on after %q, want after 0", ofRequest.id)
	}
	ofRequest.expectEnd(t)
	after := newRequest(t, s, "acme", "1043")
	b, e, err := ofMerchant.news()
	for err == nil && b.event == "reset" { // one for every partition that went back
		b, e, err = ofMerchant.news()
	}
	if err != nil || e.RequestID != after.ID || e.Seq != 1 {
		t.Fatalf("got %q %d of %s, %v; want the first event of %s", b.event, e.Seq, e.RequestID, err, after.ID)
	}
	ofMerchant.leave()
	resumed := listen(t, server.url+"/merchants/acme", ofMerchant.id)
	last := extendTimes(t, s, after, 1)
	resumed.expect(t, last)
}
