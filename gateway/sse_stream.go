package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"paythread/conversations"
)

const (
	// writeAtOnce is the time that a stream may take from the writers, which
	// serve all streams. A live client's socket takes an event at once; one
	// that does not gets a goroutine of its own until it has caught up.
	writeAtOnce = 5 * time.Millisecond
	// writeWithin is how long a socket may take for writePiece bytes before its
	// client is given up: a far one may read a long replay slowly.
	writeWithin = 10 * time.Second
	writePiece  = 16 << 10
	// replayAtOnce is how many events of a request are read at a time.
	replayAtOnce = 200
	// untilSpread is over how long the ends of tokens are spread, so that not
	// all clients of a shift come back at once.
	untilSpread = 5 * time.Second
)

// stream is one client's connection. It first replays what the client missed;
// what happens meanwhile waits in its queue.
type stream struct {
	hub        *streams
	conn       net.Conn
	requestID  string // of a payment request's stream
	merchantID string // of a merchant's
	until      time.Time
	caller     streamCaller
	group      int // of heartbeats

	mu     sync.Mutex
	queue  []*frame
	due    bool                 // a writer has the stream, or will have it
	live   bool                 // what was missed has been written
	behind bool                 // the queue ran over before live: there is more to replay
	back   *wentBack            // to be told before anything else
	ending bool                 // the last word is being written
	after  int64                // number of the last event written, of a request's stream
	ahead  conversations.Cursor // places beyond the hub's that were replayed
	isCut  bool
	oldest time.Time // of the events that are being written
}

// endAt sets the end of the stream's token.
func (st *stream) endAt(t time.Time) {
	if !t.IsZero() {
		st.until = t.Add(rand.N(untilSpread))
	}
}

// begin writes the answer's head and what the client missed. It tells whether
// the stream goes on.
func (st *stream) begin(head []byte, replay func() error) bool {
	if st.send(head) != nil {
		return false
	}
	err := replay()
	if err != nil && !st.gone() {
		st.hub.log.Warn("a stream could not be brought up to date", "error", err)
	}
	return err == nil
}

// gone tells whether the stream was cut, as by a client that left.
func (st *stream) gone() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.isCut
}

// push queues a frame. A full queue cuts a live stream: its client is slower
// than its events, and resumes where it stopped. One that still replays reads
// on from where it is.
func (st *stream) push(f *frame) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.isCut || st.ending:
	case len(st.queue) < st.hub.queue:
		st.queue = append(st.queue, f)
		st.scheduleLocked()
	case st.live:
		st.hub.metrics.cut.Inc()
		st.cutLocked()
	default:
		st.queue, st.behind = nil, true
	}
}

// startOver replaces what is queued, which is of the time before the feed went
// back.
func (st *stream) startOver(b *wentBack) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.queue, st.back = nil, b
	st.scheduleLocked()
}

func (st *stream) scheduleLocked() {
	if st.live && !st.due && !st.isCut {
		st.due = true
		st.hub.due.add(st)
	}
}

// flush writes what is queued. due stays set meanwhile, so that one goroutine
// at a time writes into the socket and the order holds.
func (st *stream) flush() {
	for out := st.take(); out != nil; out = st.take() {
		n, err := st.write(out, writeAtOnce)
		switch {
		case err == nil:
			st.wrote()
		case errors.Is(err, os.ErrDeadlineExceeded):
			go st.catchUp(out[n:])
			return
		case err != nil:
			st.cut()
		}
	}
}

// catchUp is flush for a client that is slow at the moment.
func (st *stream) catchUp(out []byte) {
	for ; out != nil; out = st.take() {
		if st.send(out) == nil { // an error has cut the stream, and take ends the loop
			st.wrote()
		}
	}
}

// noteLocked notes when an event was committed that is about to be written; a
// later one of the same writing is not older.
func (st *stream) noteLocked(f *frame) {
	if st.oldest.IsZero() {
		st.oldest = f.at
	}
}

// wrote measures how long ago the oldest event was committed that was written
// just now.
func (st *stream) wrote() {
	st.mu.Lock()
	oldest := st.oldest
	st.oldest = time.Time{}
	st.mu.Unlock()
	if !oldest.IsZero() {
		st.hub.metrics.written.Observe(max(0, st.hub.store.Now().Sub(oldest).Seconds()))
	}
}

// take returns the bytes to write next, or nil if there are none, and then the
// stream is not due any more.
func (st *stream) take() []byte {
	st.mu.Lock()
	defer st.mu.Unlock()
	for !st.isCut {
		if st.back != nil {
			return st.tellBackLocked()
		}
		batch := st.queue
		st.queue = nil
		if st.ending {
			st.cutLocked()
		}
		if len(batch) == 0 {
			break
		}
		if len(batch) == 1 {
			if news := st.newsLocked(batch[0]); news != nil {
				st.noteLocked(batch[0])
				return news // shared, not copied
			}
			continue
		}
		var out []byte
		for _, f := range batch {
			if news := st.newsLocked(f); news != nil {
				st.noteLocked(f)
				out = append(out, news...)
			}
		}
		if out != nil {
			return out
		}
	}
	st.due = false
	return nil
}

// tellBackLocked returns what to say when the feed went back.
func (st *stream) tellBackLocked() []byte {
	b := st.back
	st.back = nil
	lower(st.ahead, b.end)
	if b.last {
		st.ending, st.queue = true, nil
	}
	return b.frame
}

// newsLocked returns the bytes of a frame, or nothing if its event was written
// before. A merchant's stream that has replayed beyond the hub's place shows
// its own place until the hub has caught up.
func (st *stream) newsLocked(f *frame) []byte {
	switch {
	case f.seq > 0:
		if f.seq <= st.after {
			return nil
		}
		st.after = f.seq
	case f.place != nil && st.ahead != nil:
		if f.data != nil {
			if f.entry.Compare(st.ahead[f.partition]) <= 0 {
				return nil
			}
			st.ahead[f.partition] = f.entry
		}
		switch beyond := st.ahead.Beyond(f.place); {
		case beyond && f.data == nil:
			return heartbeatFrame.bytes
		case beyond:
			return appendEvent(nil, st.ahead.String(), f.data)
		}
		st.ahead = nil
	}
	return f.bytes
}

// send writes all of b to a client that may be slow, as long as it goes on
// reading. An error has cut the stream.
func (st *stream) send(b []byte) error {
	for len(b) > 0 {
		n, err := st.write(b[:min(len(b), writePiece)], writeWithin)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				st.hub.metrics.cut.Inc()
			}
			st.cut()
			return err
		}
		b = b[n:]
	}
	return nil
}

func (st *stream) write(b []byte, within time.Duration) (int, error) {
	if err := st.conn.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return 0, err
	}
	return st.conn.Write(b)
}

func (st *stream) cut() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.cutLocked()
}

func (st *stream) cutLocked() {
	if !st.isCut {
		st.isCut, st.queue = true, nil
		_ = st.conn.Close() // it is given up; waitForLeave returns
	}
}

// goLive lets queued and further events through, and tells whether it could:
// if the queue ran over, what it lost is to be replayed first.
func (st *stream) goLive() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.behind {
		st.behind, st.queue = false, nil
		return false
	}
	st.live = true
	if len(st.queue) > 0 || st.back != nil {
		st.scheduleLocked()
	}
	return true
}

// replayRequest writes the events after the last one that the client saw. last
// is the number of the newest event when the call was checked.
func (st *stream) replayRequest(last int64) error {
	if st.after > last { // seldom: the client was faster, or a failover went back
		r, err := st.request()
		if err != nil {
			return err
		}
		if st.after > r.LastEvent {
			st.after = r.LastEvent
			if err := st.send(resetFrame(strconv.FormatInt(r.LastEvent, 10))); err != nil {
				return err
			}
		}
	}
	for {
		events, err := st.events()
		if err != nil {
			return err
		}
		var out []byte
		for _, e := range events {
			out = appendEvent(out, strconv.FormatInt(e.Seq, 10), st.hub.json(e))
			st.after = e.Seq
		}
		if err := st.send(out); err != nil {
			return err
		}
		if len(events) < replayAtOnce && st.goLive() {
			return nil
		}
	}
}

func (st *stream) request() (*conversations.PaymentRequest, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	defer cancel()
	return st.hub.store.Request(ctx, st.requestID)
}

func (st *stream) events() ([]conversations.LoggedEvent, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	defer cancel()
	return st.hub.store.Events(ctx, st.requestID, st.after, replayAtOnce)
}

// replayMerchant writes the events after the client's cursor, or says reset if
// some are gone. Without a cursor it begins at the feed's end.
//
// The stream is in the hub already: every entry that the hub had handed on by
// then lies before end, and every later one is in the queue.
func (st *stream) replayMerchant(last string) error {
	end, err := st.hub.feedEnd()
	if err != nil {
		return err
	}
	from, err := st.hub.store.ParseCursor(last)
	read := last == "" || err != nil // nothing is to be read up to end
	if read {
		from = end
		tell := idFrame("", end)
		if last != "" {
			tell = resetFrame(end.String())
		}
		if err := st.send(tell); err != nil {
			return err
		}
	}
	for to := from; ; from = to {
		if !read {
			if to, err = st.replayFeed(from); err != nil {
				return err
			}
		}
		read = false
		// A pass that finds nothing has read all there is, even where end is
		// that of an entry which was taken away.
		if end.Beyond(to) && to.Beyond(from) {
			continue
		}
		if st.goLiveAfter(to) {
			return nil
		}
		if end, err = st.hub.feedEnd(); err != nil {
			return err
		}
	}
}

// goLiveAfter is goLive for a stream that has replayed to a place.
func (st *stream) goLiveAfter(to conversations.Cursor) bool {
	st.mu.Lock()
	st.ahead = slices.Clone(to)
	st.mu.Unlock()
	return st.goLive()
}

// replayFeed writes a merchant's events after a place and returns the place
// after them.
func (st *stream) replayFeed(from conversations.Cursor) (conversations.Cursor, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	defer cancel()
	events, to, gone, err := st.hub.store.ReplayFeed(ctx, st.merchantID, from)
	if err != nil {
		return nil, err
	}
	if gone {
		return to, st.send(resetFrame(to.String()))
	}
	at := slices.Clone(from)
	var out []byte
	for _, e := range events {
		at[e.Partition] = e.ID
		if e.Event.Seq > 0 { // else it could not be read, and was logged
			out = appendEvent(out, at.String(), st.hub.json(e.Event))
		}
		if len(out) >= writePiece {
			if err := st.send(out); err != nil {
				return nil, err
			}
			out = out[:0]
		}
	}
	return to, st.send(out)
}

// waitForLeave returns when the client has gone or the stream was cut. Nothing
// is expected from a client; one that speaks is given up.
func (st *stream) waitForLeave() {
	var one [1]byte
	_, _ = st.conn.Read(one[:]) // whatever comes is the end
}
