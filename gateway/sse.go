package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"paythread/conversations"
)

// streams is the hub of the server-sent events of one process. One feed reader
// follows all merchants' events; every stream has a bounded queue, and a few
// writers empty the queues into the sockets. A stream so costs a socket, the
// goroutine that notices when its client leaves, and little else.
type streams struct {
	store     *conversations.Store
	heartbeat time.Duration
	queue     int
	text      func(conversations.LoggedEvent) string
	log       *slog.Logger
	metrics   *streamMetrics

	ready   chan struct{} // closed once the feed is followed
	writing chan *stream  // streams with something to write
	closing chan struct{}
	once    sync.Once

	mu         sync.Mutex
	closed     bool
	added      int
	all        map[*stream]struct{}
	byRequest  map[string]map[*stream]struct{}
	byMerchant map[string]map[*stream]struct{}
	place      conversations.Cursor // after the last entry that was handed on
}

// streamOptions are what a handler knows of a stream that it hands over.
type streamOptions struct {
	Header      [][2]string // to carry over into the answer, such as those of CORS
	Until       time.Time   // end of the token, zero for none
	LastEventID string
}

const (
	streamWriters = 8
	// writeWithin is how long a socket may refuse what is written before its
	// client is cut; the kernel's buffer takes what a live one has not read.
	writeWithin = 50 * time.Millisecond
	// readyWait bounds how long a new stream waits for the feed at start.
	readyWait    = 3 * time.Second
	replayAtOnce = 200
)

func newStreams(store *conversations.Store, heartbeat time.Duration, queue int, text func(conversations.LoggedEvent) string, r prometheus.Registerer, log *slog.Logger) *streams {
	return &streams{
		store: store, heartbeat: heartbeat, queue: queue, text: text, log: log, metrics: newStreamMetrics(r),
		ready: make(chan struct{}), closing: make(chan struct{}), writing: make(chan *stream, 1024),
		all: map[*stream]struct{}{}, byRequest: map[string]map[*stream]struct{}{}, byMerchant: map[string]map[*stream]struct{}{},
	}
}

// Run follows the feed, beats hearts and writes, until ctx ends.
func (s *streams) Run(ctx context.Context) error {
	var running sync.WaitGroup
	start := func(run func()) {
		running.Add(1)
		go func() { defer running.Done(); run() }()
	}
	for range streamWriters {
		start(func() { s.write(ctx) })
	}
	start(func() { s.beat(ctx) })
	reader := conversations.FeedReader{Store: s.store, Handle: s.hand, Restarted: s.restart, Log: s.log}
	err := reader.Run(ctx, func(from conversations.Cursor) {
		s.mu.Lock()
		s.place = slices.Clone(from)
		s.mu.Unlock()
		close(s.ready)
	})
	running.Wait()
	return err
}

// Close ends every stream; their clients come back by themselves.
func (s *streams) Close() {
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		ending := make([]*stream, 0, len(s.all))
		for st := range s.all {
			ending = append(ending, st)
		}
		s.mu.Unlock()
		close(s.closing)
		for _, st := range ending {
			st.cut()
		}
	})
}

// stream is one client's connection.
type stream struct {
	hub        *streams
	conn       net.Conn
	requestID  string // of a payment request's stream
	merchantID string // of a merchant's
	until      time.Time
	group      int // of heartbeats

	mu     sync.Mutex
	queue  []frame
	queued bool                 // stands in hub.writing
	live   bool                 // what was missed has been written
	after  int64                // number of the last event written, of a request's stream
	ahead  conversations.Cursor // places beyond the hub's that were replayed
	isCut  bool
}

// frame is something to write. seq and entry say which event it is; both are
// zero for a heartbeat or a reset.
type frame struct {
	bytes []byte
	seq   int64
	entry conversations.FeedEntry
	data  []byte               // the event's JSON, for a merchant's frame that needs an id of its own
	place conversations.Cursor // the hub's after the entry
}

// serveRequestEvents streams one payment request's events. The id of each is
// its number in the request's log.
func (s *streams) serveRequestEvents(c *fiber.Ctx, r *conversations.PaymentRequest, o streamOptions) error {
	var after int64
	if o.LastEventID != "" {
		n, err := strconv.ParseInt(o.LastEventID, 10, 64)
		if err != nil || n < 0 {
			return conversations.Invalid("Last-Event-ID", "this is not the number of an event; leave the header out to begin at the first")
		}
		after = n
	}
	st := &stream{hub: s, requestID: r.ID, after: after}
	id := r.ID // r is gone when the socket is taken over
	return s.serve(c, st, o, func(ctx context.Context) error { return st.replayRequest(ctx, id) })
}

// serveMerchantEvents streams all events of a merchant. The id of each is the
// feed's cursor after it.
func (s *streams) serveMerchantEvents(c *fiber.Ctx, merchantID string, o streamOptions) error {
	st := &stream{hub: s, merchantID: merchantID}
	last := o.LastEventID
	return s.serve(c, st, o, func(ctx context.Context) error { return st.replayMerchant(ctx, last) })
}

func (s *streams) serve(c *fiber.Ctx, st *stream, o streamOptions, replay func(context.Context) error) error {
	select {
	case <-s.ready:
	case <-s.closing:
		return errStopping
	case <-time.After(readyWait):
		return errStopping
	}
	if !o.Until.IsZero() {
		st.until = o.Until.Add(rand.N(5 * time.Second)) // not all of a shift at once
	}
	head := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n")
	for _, h := range o.Header {
		head = append(head, h[0]+": "+h[1]+"\r\n"...)
	}
	head = append(head, "\r\n: hello\n\n"...)
	c.Context().HijackSetNoResponse(true)
	c.Context().Hijack(func(conn net.Conn) {
		st.conn = conn
		if !s.add(st) {
			return
		}
		defer s.remove(st)
		if err := st.send(head); err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		err := replay(ctx)
		cancel()
		if err != nil {
			s.log.Warn("a stream could not be brought up to date", "error", err)
			return
		}
		st.waitForLeave()
	})
	return nil
}

// errStopping is answered to a stream that comes while the process starts or
// stops.
var errStopping = &conversations.Error{Code: conversations.CodeUnavailable, Message: "streams are not ready, try again"}

func (s *streams) add(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.added++
	st.group = s.added % beats
	s.all[st] = struct{}{}
	if st.requestID != "" {
		enter(s.byRequest, st.requestID, st)
	} else {
		enter(s.byMerchant, st.merchantID, st)
	}
	s.metrics.connections.Inc()
	return true
}

func (s *streams) remove(st *stream) {
	st.cut()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, st)
	leave(s.byRequest, st.requestID, st)
	leave(s.byMerchant, st.merchantID, st)
	s.metrics.connections.Dec()
}

func enter(in map[string]map[*stream]struct{}, key string, st *stream) {
	if in[key] == nil {
		in[key] = map[*stream]struct{}{}
	}
	in[key][st] = struct{}{}
}

func leave(in map[string]map[*stream]struct{}, key string, st *stream) {
	delete(in[key], st)
	if len(in[key]) == 0 {
		delete(in, key)
	}
}

// hand gives entries of the feed to the streams that want them. An event is
// written as JSON once, not once a stream.
func (s *streams) hand(entries []conversations.FeedEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.store.Now()
	for _, e := range entries {
		s.place[e.Partition] = e.ID
		s.metrics.lag.Observe(max(0, now.Sub(time.UnixMilli(e.ID.Ms)).Seconds()))
		ofRequest, ofMerchant := s.byRequest[e.Event.RequestID], s.byMerchant[e.MerchantID]
		if len(ofRequest) == 0 && len(ofMerchant) == 0 {
			continue
		}
		data := s.json(e.Event)
		if len(ofRequest) > 0 {
			f := frame{bytes: eventFrame(strconv.FormatInt(e.Event.Seq, 10), data), seq: e.Event.Seq}
			for st := range ofRequest {
				st.push(f)
			}
		}
		if len(ofMerchant) > 0 {
			f := frame{bytes: eventFrame(s.place.String(), data), entry: e, data: data, place: slices.Clone(s.place)}
			for st := range ofMerchant {
				st.push(f)
			}
		}
	}
}

// json returns an event as the API shows it, in one line.
func (s *streams) json(e conversations.LoggedEvent) []byte {
	b, err := json.Marshal(struct {
		conversations.LoggedEvent
		Text string `json:"text"`
	}{e, s.text(e)})
	if err != nil {
		panic("gateway: " + err.Error()) // strings, numbers and times always marshal
	}
	return b
}

func eventFrame(id string, data []byte) []byte {
	b := make([]byte, 0, len(id)+len(data)+40)
	b = append(b, "id: "...)
	b = append(b, id...)
	b = append(b, "\nevent: payment_request\ndata: "...)
	b = append(b, data...)
	return append(b, "\n\n"...)
}

// resetFrame says that events may be missing: the lists are to be read again.
func resetFrame(id string) []byte {
	return []byte("id: " + id + "\nevent: reset\ndata: {}\n\n")
}

// restart follows a feed that went back, after a failover that lost entries.
// A merchant's streams are told; a request's are cut, and resume from its log.
func (s *streams) restart() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	end, err := s.store.FeedEnd(ctx)
	if err != nil {
		s.log.Warn("the feed went back, and its end is not known", "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.all {
		if st.requestID != "" {
			st.cut()
		} else {
			st.push(frame{bytes: resetFrame(end.String())})
		}
	}
}

// push queues a frame. A full queue cuts the stream: its client is slower than
// its events, and resumes where it stopped.
func (st *stream) push(f frame) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.isCut {
		return
	}
	if len(st.queue) >= st.hub.queue {
		st.hub.metrics.cut.Inc()
		st.cutLocked()
		return
	}
	st.queue = append(st.queue, f)
	st.scheduleLocked()
}

func (st *stream) scheduleLocked() {
	if !st.live || st.queued || len(st.queue) == 0 {
		return
	}
	st.queued = true
	select {
	case st.hub.writing <- st:
	default: // the writers are far behind: wait for them without holding anyone up
		go func() {
			select {
			case st.hub.writing <- st:
			case <-st.hub.closing:
			}
		}()
	}
}

// write empties the queues of streams.
func (s *streams) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case st := <-s.writing:
			st.flush()
		}
	}
}

// flush writes what is queued. queued stays set meanwhile, so that one writer
// at a time has a stream and the order holds.
func (st *stream) flush() {
	for {
		st.mu.Lock()
		if st.isCut || len(st.queue) == 0 {
			st.queued, st.queue = false, nil
			st.mu.Unlock()
			return
		}
		batch := st.queue
		st.queue = nil
		var out []byte
		for _, f := range batch {
			out = append(out, st.newsLocked(f)...)
		}
		st.mu.Unlock()
		if len(out) == 0 {
			continue
		}
		if err := st.send(out); err != nil {
			st.cut()
		}
	}
}

// newsLocked returns the bytes of a frame, or nothing if its event was written
// before. A merchant's stream that has replayed beyond the hub's place shows
// its own place until the hub has caught up.
func (st *stream) newsLocked(f frame) []byte {
	switch {
	case f.seq > 0:
		if f.seq <= st.after {
			return nil
		}
		st.after = f.seq
	case f.data != nil && st.ahead != nil:
		p := f.entry.Partition
		if f.entry.ID.Compare(st.ahead[p]) <= 0 {
			return nil
		}
		st.ahead[p] = f.entry.ID
		if !st.ahead.Beyond(f.place) {
			st.ahead = nil
			return f.bytes
		}
		return eventFrame(st.ahead.String(), f.data)
	}
	return f.bytes
}

func (st *stream) send(b []byte) error {
	if err := st.conn.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	_, err := st.conn.Write(b)
	return err
}

func (st *stream) cut() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.cutLocked()
}

func (st *stream) cutLocked() {
	if !st.isCut {
		st.isCut = true
		st.queue = nil
		_ = st.conn.Close() // it is given up; waitForLeave returns
	}
}

// goLive lets queued and further events through. What was replayed is not
// written again.
func (st *stream) goLive() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.live = true
	st.scheduleLocked()
}

// replayRequest writes the events after the last one that the client saw. The
// stream is in the hub already, so what happens meanwhile waits in its queue.
func (st *stream) replayRequest(ctx context.Context, requestID string) error {
	r, err := st.hub.store.Request(ctx, requestID)
	if err != nil {
		return err
	}
	if st.after > r.LastEvent { // a failover went back
		st.after = r.LastEvent
		if err := st.send(resetFrame(strconv.FormatInt(r.LastEvent, 10))); err != nil {
			return nil
		}
	}
	for {
		events, err := st.hub.store.Events(ctx, requestID, st.after, replayAtOnce)
		if err != nil {
			return err
		}
		var out []byte
		for _, e := range events {
			out = append(out, eventFrame(strconv.FormatInt(e.Seq, 10), st.hub.json(e))...)
			st.after = e.Seq
		}
		if len(out) > 0 && st.send(out) != nil {
			return nil // the client left
		}
		if len(events) < replayAtOnce {
			st.goLive()
			return nil
		}
	}
}

// replayMerchant writes the events after the client's cursor, or says reset if
// some are gone. Without a cursor it begins at the feed's end.
func (st *stream) replayMerchant(ctx context.Context, last string) error {
	s := st.hub
	var from conversations.Cursor
	reset := false
	if last != "" {
		var err error
		if from, err = s.store.ParseCursor(last); err != nil {
			reset = true
		}
	}
	if from == nil {
		end, err := s.store.FeedEnd(ctx)
		if err != nil {
			return err
		}
		from = end
	}
	events, to, gone, err := s.store.ReplayFeed(ctx, st.merchantID, from)
	if err != nil {
		return err
	}
	var out []byte
	if reset || gone {
		out = resetFrame(to.String())
	}
	at := slices.Clone(from)
	for _, e := range events {
		at[e.Partition] = e.ID
		out = append(out, eventFrame(at.String(), s.json(e.Event))...)
	}
	if len(out) > 0 && st.send(out) != nil {
		return nil // the client left
	}
	st.mu.Lock()
	st.ahead = to
	st.mu.Unlock()
	st.goLive()
	return nil
}

// waitForLeave returns when the client has gone or the stream was cut: nothing
// is expected from it.
func (st *stream) waitForLeave() {
	var one [1]byte
	for {
		if _, err := st.conn.Read(one[:]); err != nil {
			return
		}
	}
}

// beats is into how many groups the streams are divided, so that heartbeats
// are spread over time.
const beats = 16

// beat writes a comment to every stream once a heartbeat, which shows lost
// clients and keeps proxies from closing, and ends those whose token has.
func (s *streams) beat(ctx context.Context) {
	tick := time.NewTicker(max(s.heartbeat/beats, time.Millisecond))
	defer tick.Stop()
	comment := frame{bytes: []byte(": hb\n\n")}
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.mu.Lock()
			for st := range s.all {
				switch {
				case !st.until.IsZero() && now.After(st.until):
					st.cut()
				case st.group == round%beats:
					st.push(comment)
				}
			}
			s.mu.Unlock()
		}
	}
}

// streamMetrics are about server-sent events.
type streamMetrics struct {
	connections prometheus.Gauge
	cut         prometheus.Counter
	lag         prometheus.Histogram
}

func newStreamMetrics(r prometheus.Registerer) *streamMetrics {
	m := &streamMetrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "paythread_sse_connections", Help: "Open event streams."}),
		cut:         prometheus.NewCounter(prometheus.CounterOpts{Name: "paythread_sse_cut_total", Help: "Event streams cut because their client was too slow."}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "paythread_feed_lag_seconds", Help: "Time from an event's commit to its hand-over to the streams of this process.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
	r.MustRegister(m.connections, m.cut, m.lag)
	return m
}
