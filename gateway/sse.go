package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
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
//
// Locks are taken in the order streams.mu, stream.mu, dueStreams.mu.
type streams struct {
	store     *conversations.Store
	heartbeat time.Duration
	queue     int
	text      func(conversations.LoggedEvent) string
	log       *slog.Logger
	metrics   *streamMetrics

	ready   chan struct{} // closed once the feed is followed
	closing chan struct{}
	once    sync.Once
	due     dueStreams // those with something to write

	mu         sync.Mutex
	closed     bool
	added      int
	all        map[*stream]struct{}
	byRequest  map[string]map[*stream]struct{}
	byMerchant map[string]map[*stream]struct{}
	byCaller   map[[sha256.Size]byte]int // how many streams each has
	place      conversations.Cursor      // after the last entry that was handed on
}

// streamOptions are what a handler knows of a stream that it hands over.
type streamOptions struct {
	Header      [][2]string // to carry over into the answer, such as those of CORS
	Until       time.Time   // end of the token, zero for none
	LastEventID string      // after which the stream goes on, "" for its beginning
	Field       string      // of the call, in which LastEventID stands
	Caller      streamCaller
}

const (
	streamWriters = 8
	// readyWait bounds how long a new stream waits for the feed at start.
	readyWait = 3 * time.Second
	// askWithin bounds each question to Redis on a stream's behalf.
	askWithin = 10 * time.Second
	// watchEvery is how often the hub looks whether the feed went back.
	watchEvery = time.Second
	// beats is into how many groups the streams are divided, so that heartbeats
	// are spread over time.
	beats = 16
)

func newStreams(store *conversations.Store, heartbeat time.Duration, queue int, text func(conversations.LoggedEvent) string, r prometheus.Registerer, log *slog.Logger) *streams {
	return &streams{
		store: store, heartbeat: heartbeat, queue: queue, text: text, log: log, metrics: newStreamMetrics(r),
		ready: make(chan struct{}), closing: make(chan struct{}), due: dueStreams{wake: make(chan struct{}, streamWriters)},
		all: map[*stream]struct{}{}, byRequest: map[string]map[*stream]struct{}{}, byMerchant: map[string]map[*stream]struct{}{},
		byCaller: map[[sha256.Size]byte]int{},
	}
}

// Run follows the feed, beats hearts and writes, until ctx ends.
func (s *streams) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for range streamWriters {
		running.Go(func() { s.write(ctx) })
	}
	running.Go(func() { s.beat(ctx) })
	running.Go(func() { s.watch(ctx) })
	reader := conversations.FeedReader{Store: s.store, Handle: s.hand, Restarted: func() { s.restart(ctx) }, Log: s.log}
	err := reader.Run(ctx, func(from conversations.Cursor) {
		s.mu.Lock()
		s.place = slices.Clone(from)
		s.mu.Unlock()
		close(s.ready)
	})
	running.Wait()
	return err
}

// Close ends every stream at once; their clients come back by themselves.
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

// serveRequestEvents streams one payment request's events. The id of each is
// its number in the request's log.
func (s *streams) serveRequestEvents(c *fiber.Ctx, r *conversations.PaymentRequest, o streamOptions) error {
	var after int64
	if o.LastEventID != "" {
		n, err := strconv.ParseInt(o.LastEventID, 10, 64)
		if err != nil || n < 0 {
			return conversations.Invalid(o.Field, "this is not the number of an event; leave it out to begin at the first")
		}
		after = n
	}
	st := &stream{hub: s, requestID: r.ID, after: after}
	last := r.LastEvent // r is gone when the socket is taken over
	return s.serve(c, st, o, func() error { return st.replayRequest(last) })
}

// serveMerchantEvents streams all events of a merchant. The id of each is the
// feed's cursor after it. A stream without one begins at the feed's end and is
// told the cursor there at once, so that it resumes even if it is cut before
// its first event.
func (s *streams) serveMerchantEvents(c *fiber.Ctx, merchantID string, o streamOptions) error {
	st := &stream{hub: s, merchantID: merchantID}
	last := o.LastEventID
	return s.serve(c, st, o, func() error { return st.replayMerchant(last) })
}

// streamHeaders stand in every answer that is a stream.
var streamHeaders = [][2]string{
	{fiber.HeaderContentType, "text/event-stream"},
	{fiber.HeaderCacheControl, "no-store"},
	{"X-Accel-Buffering", "no"}, // nginx would collect events
	{fiber.HeaderXContentTypeOptions, "nosniff"},
	{fiber.HeaderConnection, "close"}, // the answer ends with the connection
}

// serve takes the socket over and streams into it. c is dead from then on.
func (s *streams) serve(c *fiber.Ctx, st *stream, o streamOptions, replay func() error) error {
	if err := s.awaitReady(); err != nil {
		return err
	}
	if c.Method() == fiber.MethodHead {
		for _, h := range streamHeaders {
			c.Set(h[0], h[1])
		}
		return nil
	}
	if s.full(o.Caller) {
		return errTooManyStreams(o.Caller.most)
	}
	st.caller = o.Caller
	st.endAt(o.Until)
	head := append([]byte(nil), "HTTP/1.1 200 OK\r\nDate: "+time.Now().UTC().Format(http.TimeFormat)+"\r\n"...)
	for _, h := range slices.Concat(streamHeaders, o.Header) {
		head = append(head, h[0]+": "+h[1]+"\r\n"...)
	}
	head = append(head, "\r\n: hello\n\n"...)
	kept := c.App().Server().KeepHijackedConns
	c.Context().HijackSetNoResponse(true)
	c.Context().Hijack(func(conn net.Conn) {
		st.conn = socketOf(conn)
		if !s.add(st) {
			_ = st.conn.Close() // streams have ended meanwhile, or others of the caller's were quicker
			return
		}
		// Of what was revoked since the call was let in, recheck did not know.
		if !st.caller.in() || !st.begin(head, replay) {
			s.remove(st)
			return
		}
		if kept {
			// The handler may return: that frees the request, its read buffer
			// and the stack that the replay needed.
			go s.follow(st)
			return
		}
		s.follow(st)
	})
	return nil
}

// socketOf returns the socket behind a hijacked connection. fasthttp's wrapper
// will not do: its Close does nothing, and it is used for another connection
// once the handler has returned, which a writer would then write into.
func socketOf(c net.Conn) net.Conn {
	if wrapper, ok := c.(interface{ UnsafeConn() net.Conn }); ok {
		return wrapper.UnsafeConn()
	}
	return c
}

// follow holds a stream until its client leaves or it is cut.
func (s *streams) follow(st *stream) {
	st.waitForLeave()
	s.remove(st)
}

// errStopping is answered to a stream that comes while the process starts or
// stops.
var errStopping = &conversations.Error{Code: conversations.CodeUnavailable, Message: "streams are not ready, try again"}

func (s *streams) awaitReady() error {
	wait := time.NewTimer(readyWait)
	defer wait.Stop()
	select {
	case <-s.ready:
	case <-s.closing:
	case <-wait.C:
		return errStopping
	}
	select {
	case <-s.closing:
		return errStopping
	default:
		return nil
	}
}

func (s *streams) add(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.fullLocked(st.caller) {
		return false
	}
	s.countLocked(st.caller, 1)
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
	s.countLocked(st.caller, -1)
	delete(s.all, st)
	if st.requestID != "" {
		leave(s.byRequest, st.requestID, st)
	} else {
		leave(s.byMerchant, st.merchantID, st)
	}
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

// frame is something to write. It is made once, shared by all streams that it
// goes to, and never changed.
type frame struct {
	bytes []byte
	seq   int64 // the event's number, for a request's streams
	// For a merchant's streams: the hub's place after the entry, which is also
	// the id in bytes, where the entry stands, and its JSON, for a stream that
	// has replayed beyond that place. A heartbeat has a place and no data.
	place     conversations.Cursor
	partition int
	entry     conversations.StreamID
	data      []byte
	at        time.Time // of the commit, of an event
}

const heartbeatComment = ": hb\n"

var heartbeatFrame = &frame{bytes: []byte(heartbeatComment + "\n")}

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
		if e.Event.Seq == 0 || len(ofRequest)+len(ofMerchant) == 0 {
			continue // an entry without an event could not be read, and was logged
		}
		data := s.json(e.Event)
		if len(ofRequest) > 0 {
			f := &frame{bytes: appendEvent(nil, strconv.FormatInt(e.Event.Seq, 10), data), seq: e.Event.Seq, at: time.UnixMilli(e.ID.Ms)}
			for st := range ofRequest {
				st.push(f)
			}
		}
		if len(ofMerchant) > 0 {
			f := &frame{
				bytes: appendEvent(nil, s.place.String(), data),
				place: slices.Clone(s.place), partition: e.Partition, entry: e.ID, data: data, at: time.UnixMilli(e.ID.Ms),
			}
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
		Operation *EventOperation `json:"operation,omitempty"` // instead of the domain's, whose amount is in minor units
		Text      string          `json:"text"`
	}{e, eventOperation(e.Operation), s.text(e)})
	if err != nil {
		panic("gateway: " + err.Error()) // strings, numbers and times always marshal
	}
	return b
}

// appendEvent appends an event as it stands in the stream.
func appendEvent(b []byte, id string, data []byte) []byte {
	b = slices.Grow(b, len(id)+len(data)+40)
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

// watch notices that the feed ends before what was handed on. The feed's reader
// notices it only if its connection broke for longer than the client's own
// tries, which a quick failover does not.
func (s *streams) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var behind behindFeed
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		place := slices.Clone(s.place)
		s.mu.Unlock()
		end, err := s.feedEnd()
		if err == nil && place.Beyond(end) {
			s.restart(ctx)
			behind = behindFeed{}
		}
		if err != nil {
			end = nil
		}
		s.metrics.behind.Set(behind.measure(place, end, s.store.Now()).Seconds())
	}
}

// behindFeed measures for how long a reader has not come to a place where the
// feed ended. A reader that stands still hands nothing on, and so no time from
// commit to hand-over would show it.
type behindFeed struct {
	target conversations.Cursor // nil: the reader has come to the feed's end
	since  time.Time
}

// measure takes the reader's place and the feed's end, nil if it is not known.
func (b *behindFeed) measure(place, end conversations.Cursor, now time.Time) time.Duration {
	if b.target != nil && !b.target.Beyond(place) {
		b.target = nil
	}
	if b.target == nil {
		if end == nil || place == nil || !end.Beyond(place) {
			return 0
		}
		b.target, b.since = end, now
	}
	return max(0, now.Sub(b.since))
}

// restart tells every stream that the feed went back, after a failover that
// lost entries: what they have shown may be undone. It returns once they are
// told, so that no later entry of the same partitions comes before.
func (s *streams) restart(ctx context.Context) {
	end, err := s.feedEnd()
	for err != nil {
		s.log.Warn("the feed went back, and its end is not known", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
			end, err = s.feedEnd()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lower(s.place, end)
	ofMerchant := &wentBack{frame: resetFrame(s.place.String()), end: end}
	// A request's log may grow past the number that was lost, with another
	// event under it: only the first number is safe to go on from.
	ofRequest := &wentBack{frame: resetFrame("0"), last: true}
	for st := range s.all {
		if st.requestID != "" {
			st.startOver(ofRequest)
		} else {
			st.startOver(ofMerchant)
		}
	}
}

// wentBack is what a stream is told when the feed went back.
type wentBack struct {
	frame []byte
	end   conversations.Cursor // of the feed as it is now
	last  bool                 // the stream ends with it, and its client comes back
}

// lower takes places that lie beyond an end back to it.
func lower(c, end conversations.Cursor) {
	for p := range c {
		if c[p].Compare(end[p]) > 0 {
			c[p] = end[p]
		}
	}
}

func (s *streams) feedEnd() (conversations.Cursor, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	defer cancel()
	return s.store.FeedEnd(ctx)
}

// beat writes a comment to every stream once a heartbeat, which shows lost
// clients and keeps proxies from closing, and ends those whose token has.
// Merchants' streams are told the place that they have reached, so that it does
// not grow old while nothing of theirs happens.
func (s *streams) beat(ctx context.Context) {
	tick := time.NewTicker(max(s.heartbeat/beats, time.Millisecond))
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.beatGroup(round%beats, now)
		}
	}
}

func (s *streams) beatGroup(group int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ofMerchant := heartbeatFrame
	if len(s.byMerchant) > 0 {
		ofMerchant = &frame{bytes: idFrame(heartbeatComment, s.place), place: slices.Clone(s.place)}
	}
	for st := range s.all {
		switch {
		case !st.until.IsZero() && now.After(st.until):
			st.cut()
		case st.group != group:
		case st.requestID != "":
			st.push(heartbeatFrame)
		default:
			st.push(ofMerchant)
		}
	}
}

// idFrame tells a client its place, without an event.
func idFrame(comment string, place conversations.Cursor) []byte {
	return []byte(comment + "id: " + place.String() + "\n\n")
}

// dueStreams is the line of streams that have something to write. Each stands
// in it at most once, so it is never longer than there are streams, and nobody
// waits to join.
type dueStreams struct {
	wake chan struct{} // as many as there are writers

	mu   sync.Mutex
	line []*stream
	head int
}

func (d *dueStreams) add(st *stream) {
	d.mu.Lock()
	d.line = append(d.line, st)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default: // every writer is awake, or about to be
	}
}

func (d *dueStreams) take() *stream {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.head == len(d.line) {
		d.line, d.head = d.line[:0], 0
		return nil
	}
	st := d.line[d.head]
	d.line[d.head] = nil
	d.head++
	return st
}

// write empties the queues of streams.
func (s *streams) write(ctx context.Context) {
	for ctx.Err() == nil {
		if st := s.due.take(); st != nil {
			st.flush()
			continue
		}
		select {
		case <-ctx.Done():
		case <-s.due.wake:
		}
	}
}

// streamMetrics are about server-sent events.
type streamMetrics struct {
	connections prometheus.Gauge
	cut         prometheus.Counter
	lag         prometheus.Histogram // to the hub
	written     prometheus.Histogram // to a client's socket
	behind      prometheus.Gauge
}

// feedBuckets have the second that the objective for the feed speaks of.
var feedBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

func newStreamMetrics(r prometheus.Registerer) *streamMetrics {
	m := &streamMetrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "paythread_sse_connections", Help: "Open event streams."}),
		cut:         prometheus.NewCounter(prometheus.CounterOpts{Name: "paythread_sse_cut_total", Help: "Event streams cut because their client was too slow."}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "paythread_feed_lag_seconds", Help: "Time from an event's commit to its hand-over to the streams of this process.",
			Buckets: feedBuckets,
		}),
		written: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "paythread_sse_lag_seconds", Help: "Time from an event's commit until it was written into a client's stream; of several at once, of the oldest.",
			Buckets: feedBuckets,
		}),
		behind: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "paythread_feed_behind_seconds", Help: "For how long this process's reader of the feed has not come to where the feed ended.",
		}),
	}
	r.MustRegister(m.connections, m.cut, m.lag, m.written, m.behind)
	return m
}
