package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"paythread/conversations"
)

// streamRun is one measurement of the streams of one server.
type streamRun struct {
	name     string
	url      string // of a stream; {i} stands for its number or its payment request
	key      string // API key, of a gateway
	redis    string
	merchant string
	requests string // file with what makeRequests made
	publish  string // "commit" (a gateway), or to a floor by "http" or "redis"
	conns    int
	rate     float64
	duration time.Duration
	hold     time.Duration
	pid      int

	clients []*client
	failed  atomic.Int64
	open    atomic.Int64
	closing atomic.Bool
}

// client is one stream and what came over it.
type client struct {
	id     string // what stands for {i}
	conn   net.Conn
	last   atomic.Int64 // number of the last event
	base   int64        // number of the last event before publishing
	sentAt []int64      // when the events after base were published, ns
	toTell atomic.Int64 // how many of sentAt are set

	delays   []time.Duration
	got      int64
	repeated int64
	leftOut  int64 // numbers that were skipped
}

func measureStreams(ctx context.Context, args []string) error {
	r := &streamRun{}
	flags := flag.NewFlagSet("streams", flag.ExitOnError)
	flags.StringVar(&r.name, "name", "sse", "first part of the results' `NAMES`")
	flags.StringVar(&r.url, "url", "", "`URL` of a stream, {i} in it")
	flags.StringVar(&r.key, "key", "", "API `KEY` of the gateway's merchant")
	flags.StringVar(&r.redis, "redis", "", "`ADDRESS` of the Redis that is published through")
	flags.StringVar(&r.merchant, "merchant", "", "`ID` of the gateway's merchant")
	flags.StringVar(&r.requests, "requests", "", "`FILE` that names a payment request for each stream")
	flags.StringVar(&r.publish, "publish", "commit", "`HOW`: commit, http or redis")
	flags.IntVar(&r.conns, "conns", 1000, "streams")
	flags.Float64Var(&r.rate, "rate", 0, "events a second, each to one stream; 0 measures idle streams only")
	flags.DurationVar(&r.duration, "duration", 10*time.Second, "time of publishing")
	flags.DurationVar(&r.hold, "hold", 2*time.Second, "idle time before memory is read")
	flags.IntVar(&r.pid, "pid", 0, "process of the server")
	_ = flags.Parse(args) // it exits by itself
	u, err := url.Parse(r.url)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("only a loopback address is loaded, not %q", u.Host)
	}
	publish, done, err := r.publisher(ctx)
	if err != nil {
		return err
	}
	defer done()
	before := usageOf(r.pid)
	var reading sync.WaitGroup
	if err := r.connect(u.Host, &reading); err != nil {
		return err
	}
	if err := pause(ctx, r.hold); err != nil {
		return err
	}
	idle := usageOf(r.pid)
	r.say("idle.up", float64(r.open.Load()), "connections")
	r.say("idle.rss_per_connection", float64(idle.rss-before.rss)/float64(r.conns)/1e3, "kB")
	if r.rate > 0 {
		if err := r.publishAll(ctx, publish); err != nil {
			return err
		}
	}
	lost := int64(r.conns) - r.open.Load()
	r.closing.Store(true)
	for _, c := range r.clients {
		_ = c.conn.Close() // the measurement is over
	}
	reading.Wait()
	r.say("connections_lost", float64(lost), "connections")
	r.report()
	if r.failed.Load() > 0 {
		return fmt.Errorf("%d events could not be published", r.failed.Load())
	}
	return nil
}

func (r *streamRun) say(name string, value float64, unit string) {
	fmt.Printf("%s.%s %.5g %s\n", r.name, name, value, unit)
}

// connect opens all streams.
func (r *streamRun) connect(host string, reading *sync.WaitGroup) error {
	return inParallel(len(r.clients), func(i int) error {
		c := r.clients[i]
		u, err := url.Parse(strings.ReplaceAll(r.url, "{i}", c.id))
		if err != nil {
			return err
		}
		if c.conn, err = net.DialTimeout("tcp", host, 10*time.Second); err != nil {
			return err
		}
		request := "GET " + u.RequestURI() + " HTTP/1.1\r\nHost: " + host + "\r\nAccept: text/event-stream\r\n"
		if r.key != "" {
			request += "Authorization: Bearer " + r.key + "\r\n"
		}
		if _, err := io.WriteString(c.conn, request+"\r\n"); err != nil {
			return err
		}
		lines := bufio.NewReaderSize(c.conn, 1024)
		status, err := lines.ReadString('\n')
		if err != nil || !strings.Contains(status, " 200 ") {
			return fmt.Errorf("stream %s answered %q, %v", c.id, strings.TrimSpace(status), err)
		}
		r.open.Add(1)
		reading.Go(func() {
			defer r.open.Add(-1)
			c.read(lines)
		})
		return nil
	})
}

// read takes events until the stream ends.
func (c *client) read(lines *bufio.Reader) {
	for {
		line, err := lines.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // the number stands at the beginning
			_, err = lines.ReadSlice('\n')
		}
		if err != nil {
			return
		}
		if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			c.take(data, time.Now().UnixNano())
		}
	}
}

// take counts an event, {"seq":N,...}, and the time since it was published.
func (c *client) take(data []byte, now int64) {
	digits, ok := bytes.CutPrefix(data, []byte(`{"seq":`))
	end := bytes.IndexByte(digits, ',')
	if !ok || end < 0 {
		return
	}
	seq, err := strconv.ParseInt(string(digits[:end]), 10, 64)
	if err != nil {
		return
	}
	last := c.last.Load()
	if seq <= last {
		c.repeated++
		return
	}
	c.leftOut += seq - last - 1
	c.last.Store(seq)
	if n := seq - c.base; c.sentAt != nil && n >= 1 && n <= c.toTell.Load() {
		c.got++
		c.delays = append(c.delays, time.Duration(now-c.sentAt[n-1]))
	}
}

// publishAll publishes in turn to each stream, at the rate, and waits for the
// last events.
func (r *streamRun) publishAll(ctx context.Context, publish func(*client, int64) error) error {
	total := int(r.rate * r.duration.Seconds())
	for _, c := range r.clients {
		c.base = c.last.Load()
		c.sentAt = make([]int64, total/len(r.clients)+1)
	}
	const workers = 8
	type job struct{ client, n int }
	jobs := make([]chan job, workers)
	var working sync.WaitGroup
	var calls [workers][]time.Duration
	for w := range workers {
		jobs[w] = make(chan job, total)
		working.Go(func() {
			for j := range jobs[w] {
				c := r.clients[j.client]
				now := time.Now()
				c.sentAt[j.n] = now.UnixNano()
				c.toTell.Store(int64(j.n + 1))
				if err := publish(c, c.base+int64(j.n)+1); err != nil {
					if r.failed.Add(1) == 1 {
						log.Print(err)
					}
				}
				calls[w] = append(calls[w], time.Since(now))
			}
		})
	}
	before, began := usageOf(r.pid), time.Now()
	for q := range total {
		if err := pause(ctx, time.Until(began.Add(time.Duration(float64(q)/r.rate*1e9)))); err != nil {
			return err
		}
		i := q % len(r.clients)
		jobs[i%workers] <- job{i, q / len(r.clients)}
	}
	for w := range jobs {
		close(jobs[w])
	}
	working.Wait()
	took, after := time.Since(began), usageOf(r.pid)
	r.say("published", float64(total)-float64(r.failed.Load()), "events")
	r.say("publish.rate", float64(total)/took.Seconds(), "events/s")
	r.say("publish.p50", quantile(slices.Concat(calls[:]...), .5), "ms")
	r.say("server_cpu", 100*(after.cpu-before.cpu).Seconds()/took.Seconds(), "%")
	return pause(ctx, 2*time.Second)
}

// report prints what came. The streams have ended.
func (r *streamRun) report() {
	if r.rate <= 0 {
		return
	}
	var delays []time.Duration
	var got, repeated, leftOut, missing int64
	for _, c := range r.clients {
		delays = append(delays, c.delays...)
		got, repeated, leftOut = got+c.got, repeated+c.repeated, leftOut+c.leftOut
		missing += c.toTell.Load() - c.got
	}
	r.say("latency.p50", quantile(delays, .5), "ms")
	r.say("latency.p95", quantile(delays, .95), "ms")
	r.say("latency.p99", quantile(delays, .99), "ms")
	r.say("latency.max", quantile(delays, 1), "ms")
	r.say("received", float64(got), "events")
	r.say("missing", float64(missing), "events")
	r.say("repeated", float64(repeated), "events")
	r.say("left_out", float64(leftOut), "events")
}

// quantile returns a quantile in milliseconds.
func quantile(v []time.Duration, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return float64(v[int(q*float64(len(v)-1))].Microseconds()) / 1e3
}

// publisher makes the clients and returns what publishes one event to one of
// them.
func (r *streamRun) publisher(ctx context.Context) (publish func(*client, int64) error, done func(), err error) {
	for i := range r.conns {
		r.clients = append(r.clients, &client{id: strconv.Itoa(i)})
	}
	switch r.publish {
	case "commit":
		return r.committer(ctx)
	case "http":
		u, err := url.Parse(r.url)
		if err != nil {
			return nil, nil, err
		}
		h := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 10 * time.Second}
		return func(c *client, seq int64) error {
			response, err := h.Post("http://"+u.Host+"/pub?to="+c.id, "application/json", strings.NewReader(floorEvent(seq)))
			if err != nil {
				return err
			}
			return response.Body.Close()
		}, func() {}, nil
	case "redis":
		return redisPublisher(r.redis)
	}
	return nil, nil, fmt.Errorf("events are not published by %q", r.publish)
}

// floorEvent is as long as an event of the gateway.
func floorEvent(seq int64) string {
	return fmt.Sprintf(`{"seq":%d,"pad":%q}`, seq, strings.Repeat("x", 250))
}

// redisPublisher publishes to a floor server that has subscribed.
func redisPublisher(address string) (func(*client, int64) error, func(), error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	answers := bufio.NewReader(conn)
	var mu sync.Mutex
	return func(c *client, seq int64) error {
		mu.Lock()
		defer mu.Unlock()
		var b bytes.Buffer
		b.WriteString("*3\r\n")
		for _, word := range []string{"PUBLISH", "agent:" + c.id, floorEvent(seq)} {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
		}
		if _, err := conn.Write(b.Bytes()); err != nil {
			return err
		}
		answer, err := answers.ReadString('\n')
		if err == nil && answer[0] == '-' {
			err = errors.New(answer)
		}
		return err
	}, func() { _ = conn.Close() }, nil
}

// committer publishes by extending the time of each stream's payment request:
// one event and one commit.
func (r *streamRun) committer(ctx context.Context) (func(*client, int64) error, func(), error) {
	text, err := os.ReadFile(r.requests)
	if err != nil {
		return nil, nil, err
	}
	made := strings.Fields(string(text)) // request, contact, request, contact
	if len(made) != 2*r.conns {
		return nil, nil, fmt.Errorf("%s names %d payment requests for %d streams", r.requests, len(made)/2, r.conns)
	}
	contacts := make(map[string]string, r.conns)
	for i, c := range r.clients {
		c.id = made[2*i]
		contacts[c.id] = made[2*i+1]
	}
	s, err := connect(ctx, r.redis, r.merchant)
	if err != nil {
		return nil, nil, err
	}
	return func(c *client, _ int64) error {
		a, err := s.Apply(ctx, contacts[c.id], conversations.Extended{RequestID: c.id}, conversations.Once{})
		if err == nil && a.Refused != nil {
			err = a.Refused
		}
		return err
	}, func() { _ = s.Close() }, nil
}

// makeRequests makes a payment request for every stream to come, and waits
// until the messages that they begin with are sent: neither is what is measured.
func makeRequests(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("requests", flag.ExitOnError)
	redis := flags.String("redis", "", "`ADDRESS` of the gateway's Redis")
	merchant := flags.String("merchant", "", "`ID` of the merchant")
	n := flags.Int("n", 1000, "how many")
	file := flags.String("file", "", "`FILE` that names them and their contacts afterwards")
	_ = flags.Parse(args) // it exits by itself
	s, err := connect(ctx, *redis, *merchant)
	if err != nil {
		return err
	}
	defer s.Close()
	price, none := conversations.Money{Minor: 14900, Currency: "ZAR"}, conversations.Money{Currency: "ZAR"}
	made := make([]string, *n)
	err = inParallel(*n, func(i int) error {
		p, err := s.Create(ctx, conversations.CreateRequest{
			MerchantID: *merchant, Phone: fmt.Sprintf("+2761%07d", i), Channel: conversations.WhatsApp,
			Order: conversations.Order{
				Reference: fmt.Sprint("bench-", i), Subtotal: price, Tax: none, Shipping: none, Discount: none, Total: price,
				LineItems: []conversations.LineItem{{Name: "Service", Quantity: 1, UnitPrice: price, Total: price}},
			},
		})
		if err == nil {
			made[i] = p.ID + " " + p.ContactID + "\n"
		}
		return err
	})
	if err != nil {
		return err
	}
	for {
		depth, _, err := s.OutboxDepth(ctx)
		if err != nil {
			return err
		}
		if depth == 0 {
			return os.WriteFile(*file, []byte(strings.Join(made, "")), 0o600)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("%d messages are still to be sent: %w", depth, err)
		}
	}
}

// usage is what a process has used.
type usage struct {
	rss int64
	cpu time.Duration
}

// usageOf reads /proc; elsewhere than on Linux memory and CPU are zero.
func usageOf(pid int) usage {
	var u usage
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			pages, _ := strconv.ParseInt(f[1], 10, 64) // zero if it is none
			u.rss = pages * int64(os.Getpagesize())
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 12 {
			user, _ := strconv.ParseInt(f[11], 10, 64)
			system, _ := strconv.ParseInt(f[12], 10, 64)
			u.cpu = time.Duration(user+system) * 10 * time.Millisecond
		}
	}
	return u
}

// pause waits, or returns the context's error if it ends before.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
