package conversations

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Events returns a payment request's own log after a number, oldest first, at
// most limit entries.
func (s *Store) Events(ctx context.Context, requestID string, after int64, limit int64) ([]LoggedEvent, error) {
	p, ok := partitionOf(requestID, requestPrefix, s.o.Partitions)
	if !ok {
		return nil, NotFound("payment request")
	}
	entries, err := s.rdb.XRangeN(ctx, s.keys.log(p, requestID), strconv.FormatInt(after, 10)+"-2", "+", limit).Result()
	if err != nil {
		return nil, Unavailable(fmt.Errorf("read the events of a payment request: %w", err))
	}
	out := make([]LoggedEvent, 0, len(entries))
	for _, entry := range entries {
		text, _ := entry.Values["e"].(string)
		var e LoggedEvent
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return nil, fmt.Errorf("conversations: reading event %s of %s: %w", entry.ID, requestID, err)
		}
		out = append(out, e)
	}
	return out, nil
}

// FeedEntry is one event in the feed of all merchants.
type FeedEntry struct {
	Partition  int
	ID         StreamID
	MerchantID string
	Event      LoggedEvent
}

// StreamID is the place of an entry in a stream.
type StreamID struct {
	Ms  int64 // Redis's time of the entry
	Seq int64
}

// Compare orders two places.
func (a StreamID) Compare(b StreamID) int {
	return cmp.Or(cmp.Compare(a.Ms, b.Ms), cmp.Compare(a.Seq, b.Seq))
}

func (a StreamID) String() string {
	return strconv.FormatInt(a.Ms, 10) + "-" + strconv.FormatInt(a.Seq, 10)
}

func parseStreamID(s string) StreamID {
	ms, seq, _ := strings.Cut(s, "-")
	var id StreamID
	id.Ms, _ = strconv.ParseInt(ms, 10, 64)
	id.Seq, _ = strconv.ParseInt(seq, 10, 64)
	return id
}

func streamTime(id string) time.Time { return time.UnixMilli(parseStreamID(id).Ms) }

// Cursor is a place in the feed: one in each partition's stream. Its text is
// opaque and at most 250 characters.
type Cursor []StreamID

// String returns the cursor's text.
func (c Cursor) String() string {
	newest := c.newest()
	b := binary.AppendUvarint(nil, uint64(newest))
	for _, id := range c {
		// An idle partition's place is old and may be rounded up, since nothing
		// lies between: the cursor was up to date at its newest place.
		age, seq := newest-id.Ms, id.Seq
		switch {
		case id == (StreamID{}):
			age = neverUsed
		case age >= maxCursorAge.Milliseconds():
			age, seq = maxCursorAge.Milliseconds(), 0
		}
		b = binary.AppendUvarint(b, uint64(age))
		b = binary.AppendUvarint(b, uint64(seq))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

const (
	// maxCursorAge bounds a place's age in a cursor's text: 2^28-2 ms, three
	// days, are four bytes, so that 32 partitions fit into 250 characters.
	maxCursorAge = (1<<28 - 2) * time.Millisecond
	// neverUsed stands for the age of a place in a stream without entries.
	neverUsed = 1<<28 - 1
)

// Beyond tells whether c is ahead of other in any partition.
func (c Cursor) Beyond(other Cursor) bool {
	for p := range c {
		if c[p].Compare(other[p]) > 0 && !c.rounded(p) {
			return true
		}
	}
	return false
}

// rounded tells whether a place may have been rounded up by the cursor's text:
// it may then lie beyond the end of a stream that has long been idle.
func (c Cursor) rounded(p int) bool {
	return c.newest()-c[p].Ms >= maxCursorAge.Milliseconds()
}

// newest returns until when all places of the cursor were up to date.
func (c Cursor) newest() int64 {
	newest := int64(0)
	for _, id := range c {
		newest = max(newest, id.Ms)
	}
	return newest
}

// ParseCursor reads the text of a cursor. CodeInvalid if it is not one.
func (s *Store) ParseCursor(text string) (Cursor, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	bad := Invalid("Last-Event-ID", "this is not an event id of this feed")
	if err != nil || len(text) > 250 {
		return nil, bad
	}
	next := func() (int64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<60 {
			return 0, false
		}
		b = b[n:]
		return int64(v), true
	}
	newest, ok := next()
	c := make(Cursor, s.o.Partitions)
	for i := range c {
		age, okAge := next()
		seq, okSeq := next()
		if ok = ok && okAge && okSeq; !ok {
			return nil, bad
		}
		if age != neverUsed {
			if age > newest || age > maxCursorAge.Milliseconds() {
				return nil, bad
			}
			c[i] = StreamID{Ms: newest - age, Seq: seq}
		}
	}
	if len(b) > 0 {
		return nil, bad
	}
	return c, nil
}

// FeedEnd returns the present end of the feed.
func (s *Store) FeedEnd(ctx context.Context) (Cursor, error) {
	c := make(Cursor, s.o.Partitions)
	for p := range c {
		id, _, err := s.streamEnd(ctx, p)
		if err != nil {
			return nil, err
		}
		c[p] = id
	}
	return c, nil
}

// streamEnd returns the last id that a partition's feed gave out, and whether
// the feed surely still holds every entry that it ever had. Servers before
// Redis 7 do not tell that.
func (s *Store) streamEnd(ctx context.Context, p int) (end StreamID, whole bool, err error) {
	info, err := s.rdb.XInfoStream(ctx, s.keys.feed(p)).Result()
	if err != nil {
		if strings.Contains(err.Error(), "no such key") {
			return StreamID{}, true, nil
		}
		return StreamID{}, false, Unavailable(fmt.Errorf("read the end of the feed: %w", err))
	}
	return parseStreamID(info.LastGeneratedID), info.EntriesAdded > 0 && info.EntriesAdded == info.Length, nil
}

// replayAtOnce is how many entries of a partition one replay reads at most.
const replayAtOnce = 500

// ReplayFeed returns a merchant's events after a cursor, oldest first, and the
// cursor after what was read. One call reads a bounded piece of the feed: all is
// read when the cursor no longer moves. reset says that some are lost: the cursor is older
// than what is kept, or newer than the feed, after a failover that went back;
// the reader must read the lists again.
func (s *Store) ReplayFeed(ctx context.Context, merchantID string, from Cursor) (events []FeedEntry, to Cursor, reset bool, err error) {
	to = slices.Clone(from)
	old := from.newest() < s.Now().Add(-s.o.Retention.Feed).UnixMilli()
	for p := range from {
		lost, err := s.lost(ctx, p, from, old)
		if err != nil {
			return nil, nil, false, err
		}
		if lost {
			end, err := s.FeedEnd(ctx)
			return nil, end, true, err
		}
		entries, err := s.rdb.XRangeN(ctx, s.keys.feed(p), "("+to[p].String(), "+", replayAtOnce).Result()
		if err != nil {
			return nil, nil, false, Unavailable(fmt.Errorf("read the feed: %w", err))
		}
		for _, m := range entries {
			e := s.feedEntry(p, m)
			to[p] = e.ID
			if e.MerchantID == merchantID {
				events = append(events, e)
			}
		}
	}
	slices.SortStableFunc(events, func(a, b FeedEntry) int { return a.ID.Compare(b.ID) })
	return events, to, false, nil
}

// lost tells whether entries after a place may be gone: the place lies beyond
// the stream's end, or the cursor is older than what is kept and the place lies
// before the first entry. The cursor of a feed that was never used has no time:
// nothing is lost after it while the stream holds all that it ever had.
func (s *Store) lost(ctx context.Context, p int, from Cursor, old bool) (bool, error) {
	end, whole, err := s.streamEnd(ctx, p)
	if err != nil || from[p].Compare(end) > 0 && !from.rounded(p) {
		return true, err
	}
	if !old || whole && from.newest() == 0 {
		return false, nil
	}
	first, err := s.rdb.XRangeN(ctx, s.keys.feed(p), "-", "+", 1).Result()
	if err != nil {
		return false, Unavailable(fmt.Errorf("read the feed: %w", err))
	}
	return len(first) > 0 && parseStreamID(first[0].ID).Compare(from[p]) > 0, nil
}

func (s *Store) feedEntry(p int, m redis.XMessage) FeedEntry {
	e := FeedEntry{Partition: p, ID: parseStreamID(m.ID)}
	e.MerchantID, _ = m.Values["m"].(string)
	text, _ := m.Values["e"].(string)
	if err := json.Unmarshal([]byte(text), &e.Event); err != nil {
		s.log.Error("a feed entry cannot be read", "entry", m.ID, "error", err)
	}
	return e
}

// FeedReader follows the feed of all partitions and hands on every entry, each
// partition's in order. Restarted reports that the feed went back (a failover
// that lost entries), so that whoever follows must read the lists again.
type FeedReader struct {
	Store     *Store
	Handle    func([]FeedEntry)
	Restarted func()
	Log       *slog.Logger
}

// Run follows the feed from its end at the call until ctx ends. ready is
// called once with that end: every entry after it will be handed on.
func (f *FeedReader) Run(ctx context.Context, ready func(from Cursor)) error {
	var from Cursor
	for {
		var err error
		if from, err = f.Store.FeedEnd(ctx); err == nil {
			break
		}
		if sleep(ctx, time.Second) != nil {
			return nil
		}
	}
	ready(from)
	var wg sync.WaitGroup
	for _, group := range f.Store.slotGroups() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f.follow(ctx, group, from)
		}()
	}
	wg.Wait()
	return nil
}

func (f *FeedReader) follow(ctx context.Context, partitions []int, from Cursor) {
	s := f.Store
	at := slices.Clone(from)
	byName := map[string]int{}
	for _, p := range partitions {
		byName[s.keys.feed(p)] = p
	}
	for ctx.Err() == nil {
		args := make([]string, 0, 2*len(partitions))
		for _, p := range partitions {
			args = append(args, s.keys.feed(p))
		}
		for _, p := range partitions {
			args = append(args, at[p].String())
		}
		streams, err := s.blocking.XRead(ctx, &redis.XReadArgs{Streams: args, Count: 256, Block: blockFor}).Result()
		if err != nil {
			if !errors.Is(err, redis.Nil) && ctx.Err() == nil {
				f.Log.WarnContext(ctx, "reading the feed failed", "error", err)
				_ = sleep(ctx, 500*time.Millisecond) // the loop looks at ctx
				f.goneBack(ctx, partitions, at)
			}
			continue
		}
		for _, stream := range streams {
			p := byName[stream.Stream]
			batch := make([]FeedEntry, 0, len(stream.Messages))
			for _, m := range stream.Messages {
				batch = append(batch, s.feedEntry(p, m))
				at[p] = parseStreamID(m.ID)
			}
			f.Handle(batch)
		}
	}
}

// goneBack notices, after an error, that a stream ends before what was read.
func (f *FeedReader) goneBack(ctx context.Context, partitions []int, at Cursor) {
	for _, p := range partitions {
		end, _, err := f.Store.streamEnd(ctx, p)
		if err == nil && end.Compare(at[p]) < 0 {
			at[p] = end
			f.Restarted()
		}
	}
}
