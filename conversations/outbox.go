package conversations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const outboxGroup = "workers"

// Worker does what outbox entries ask for. It is called by several goroutines
// at once. An error leaves the entry where it is, to be claimed again after
// its idle time; ErrPoison parks it among the dead letters.
type Worker interface {
	Work(ctx context.Context, e OutboxEntry, d Delivery) error
}

// Delivery is how an outbox entry came to a worker.
type Delivery struct {
	EntryID string
	Claimed bool // another worker had it before, and did not finish
	Times   int64
}

// ErrPoison is wrapped by a Worker's error for an entry that can never be
// worked.
var ErrPoison = errors.New("the entry cannot be worked")

// OutboxReader takes outbox entries of all partitions and gives them to a
// Worker. Entries left by a worker that died are claimed after ClaimIdle.
type OutboxReader struct {
	Store     *Store
	Worker    Worker
	Consumer  string        // a stable name of this process
	Workers   int           // entries worked at once
	ClaimIdle time.Duration // longer than the work between two renewals
	Log       *slog.Logger
	// MaxDeliveries is after how many deliveries without an outcome an entry
	// is parked.
	MaxDeliveries int64
	Dead          func(OutboxEntry) // called for every parked entry, may be nil
}

// Run reads until ctx ends, then waits for the work under way.
func (o *OutboxReader) Run(ctx context.Context) error {
	slots := make(chan struct{}, o.Workers)
	var working, reading sync.WaitGroup
	read := func(partitions []int) {
		defer reading.Done()
		o.read(ctx, partitions, slots, &working)
	}
	for _, group := range o.Store.slotGroups() {
		reading.Add(1)
		go read(group)
	}
	reading.Add(1)
	go func() {
		defer reading.Done()
		o.reclaim(ctx, slots, &working)
	}()
	reading.Wait()
	working.Wait()
	return nil
}

// slotGroups returns the partitions that one blocking read may name: all of
// them, or in Cluster one at a time.
func (s *Store) slotGroups() [][]int {
	var all []int
	var each [][]int
	for p := range s.o.Partitions {
		all = append(all, p)
		each = append(each, []int{p})
	}
	if _, cluster := s.rdb.(*redis.ClusterClient); cluster {
		return each
	}
	return [][]int{all}
}

// blockFor bounds every blocking read: ending a context does not end one.
const blockFor = time.Second

func (o *OutboxReader) read(ctx context.Context, partitions []int, slots chan struct{}, working *sync.WaitGroup) {
	s := o.Store
	names := make([]string, 0, 2*len(partitions))
	byName := map[string]int{}
	for _, p := range partitions {
		names = append(names, s.keys.outbox(p))
		byName[s.keys.outbox(p)] = p
	}
	for range partitions {
		names = append(names, ">")
	}
	for ctx.Err() == nil {
		streams, err := s.blocking.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: outboxGroup, Consumer: o.Consumer, Streams: names, Count: int64(o.Workers), Block: blockFor,
		}).Result()
		if err != nil {
			if !errors.Is(err, redis.Nil) && ctx.Err() == nil {
				o.Log.WarnContext(ctx, "reading the outbox failed", "error", err)
				s.regroup(ctx, partitions, err)
				_ = sleep(ctx, time.Second) // the loop looks at ctx
			}
			continue
		}
		var entries []taken
		for _, stream := range streams {
			for _, m := range stream.Messages {
				entries = append(entries, taken{p: byName[stream.Stream], XMessage: m, times: 1})
			}
		}
		o.hand(ctx, entries, slots, working)
	}
}

// taken is an entry that this consumer holds.
type taken struct {
	redis.XMessage
	p       int
	claimed bool
	times   int64
}

// regroup makes the consumer groups anew after a failover that lost them.
func (s *Store) regroup(ctx context.Context, partitions []int, err error) {
	if !redis.HasErrorPrefix(err, "NOGROUP") {
		return
	}
	for _, p := range partitions {
		if err := s.rdb.XGroupCreateMkStream(ctx, s.keys.outbox(p), outboxGroup, "0").Err(); err != nil && !isBusyGroup(err) {
			s.log.WarnContext(ctx, "making the outbox's group failed", "error", err)
		}
	}
}

// hand gives entries to the worker as there is room, and returns when the last
// has been begun. Meanwhile the claims of all are renewed: one that waits must
// not be taken for a dead worker's.
func (o *OutboxReader) hand(ctx context.Context, entries []taken, slots chan struct{}, working *sync.WaitGroup) {
	stops := make([]func(), len(entries))
	for i, e := range entries {
		stops[i] = o.renew(context.WithoutCancel(ctx), e.p, e.ID)
	}
	for i, e := range entries {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			for _, stop := range stops[i:] {
				stop() // they stay pending and are claimed again
			}
			return
		}
		working.Add(1)
		go func() {
			defer func() { <-slots; working.Done() }()
			// What was begun is finished, whatever ends the reader.
			o.work(context.WithoutCancel(ctx), e, stops[i])
		}()
	}
}

// work gives one entry to the worker and then ends its renewal.
func (o *OutboxReader) work(ctx context.Context, m taken, stop func()) {
	text, _ := m.Values["o"].(string)
	var e OutboxEntry
	if err := json.Unmarshal([]byte(text), &e); err != nil || e.ContactID == "" {
		stop()
		o.park(ctx, m.p, m.ID, text, e, errors.Join(ErrPoison, err))
		return
	}
	err := o.Worker.Work(ctx, e, Delivery{EntryID: m.ID, Claimed: m.claimed, Times: m.times})
	stop()
	switch {
	case err == nil:
	case errors.Is(err, ErrPoison) || o.MaxDeliveries > 0 && m.times >= o.MaxDeliveries && CodeOf(err) != CodeUnavailable:
		o.park(ctx, m.p, m.ID, text, e, err)
	default:
		o.Log.WarnContext(ctx, "an outbox entry was not worked and will be claimed again", "kind", e.Kind, "entry", m.ID, "error", err)
	}
}

// renew keeps an entry's claim while the worker is busy, so that nobody else
// takes it over from a living worker.
func (o *OutboxReader) renew(ctx context.Context, p int, entryID string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(ctx, o.ClaimIdle/3) == nil {
			err := o.Store.rdb.XClaimJustID(ctx, &redis.XClaimArgs{
				Stream: o.Store.keys.outbox(p), Group: outboxGroup, Consumer: o.Consumer, Messages: []string{entryID},
			}).Err()
			if err != nil && ctx.Err() == nil {
				o.Log.WarnContext(ctx, "renewing an outbox claim failed", "entry", entryID, "error", err)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// reclaim takes over entries whose worker has not renewed them.
func (o *OutboxReader) reclaim(ctx context.Context, slots chan struct{}, working *sync.WaitGroup) {
	for sleep(ctx, o.ClaimIdle/2) == nil {
		for p := range o.Store.o.Partitions {
			if err := o.reclaimPartition(ctx, p, slots, working); err != nil && ctx.Err() == nil {
				o.Log.WarnContext(ctx, "claiming outbox entries failed", "error", err)
			}
		}
	}
}

func (o *OutboxReader) reclaimPartition(ctx context.Context, p int, slots chan struct{}, working *sync.WaitGroup) error {
	s := o.Store
	idle, err := s.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: s.keys.outbox(p), Group: outboxGroup, Idle: o.ClaimIdle, Start: "-", End: "+", Count: int64(o.Workers),
	}).Result()
	if err != nil || len(idle) == 0 {
		return err
	}
	times := map[string]int64{}
	ids := make([]string, 0, len(idle))
	for _, i := range idle {
		times[i.ID] = i.RetryCount + 1
		ids = append(ids, i.ID)
	}
	// Only those still idle: another process may have been faster.
	claimed, err := s.rdb.XClaim(ctx, &redis.XClaimArgs{
		Stream: s.keys.outbox(p), Group: outboxGroup, Consumer: o.Consumer, MinIdle: o.ClaimIdle, Messages: ids,
	}).Result()
	if err != nil {
		return err
	}
	entries := make([]taken, 0, len(claimed))
	for _, m := range claimed {
		entries = append(entries, taken{p: p, XMessage: m, claimed: true, times: times[m.ID]})
	}
	o.hand(ctx, entries, slots, working)
	return nil
}

// park moves an entry that cannot be worked to the dead letters.
func (o *OutboxReader) park(ctx context.Context, p int, id, text string, e OutboxEntry, why error) {
	s := o.Store
	o.Log.ErrorContext(ctx, "an outbox entry was parked among the dead letters", "kind", e.Kind, "entry", id, "error", why)
	pipe := s.rdb.TxPipeline() // one slot, so all or nothing in Cluster too
	pipe.XAdd(ctx, &redis.XAddArgs{Stream: s.keys.dead(p), Values: []any{"o", text, "why", clip(why.Error(), 300), "at", strconv.FormatInt(s.Now().UnixMilli(), 10)}})
	pipe.XAck(ctx, s.keys.outbox(p), outboxGroup, id)
	pipe.XDel(ctx, s.keys.outbox(p), id)
	if _, err := pipe.Exec(ctx); err != nil {
		o.Log.ErrorContext(ctx, "parking an outbox entry failed", "entry", id, "error", err)
		return
	}
	if o.Dead != nil {
		o.Dead(e)
	}
}

// DeadLetter is an outbox entry that could not be worked.
type DeadLetter struct {
	ID    string // names it for RetryDead and DropDead
	Entry OutboxEntry
	Why   string
	At    time.Time
}

// DeadLetters returns the parked entries, at most limit from each partition.
func (s *Store) DeadLetters(ctx context.Context, limit int64) ([]DeadLetter, error) {
	var out []DeadLetter
	for p := range s.o.Partitions {
		found, err := s.rdb.XRangeN(ctx, s.keys.dead(p), "-", "+", limit).Result()
		if err != nil {
			return nil, Unavailable(fmt.Errorf("read the dead letters: %w", err))
		}
		for _, m := range found {
			d := DeadLetter{ID: string(idAlphabet[p]) + m.ID}
			text, _ := m.Values["o"].(string)
			// What cannot be read is listed all the same, with its reason.
			_ = json.Unmarshal([]byte(text), &d.Entry)
			d.Why, _ = m.Values["why"].(string)
			at, _ := m.Values["at"].(string)
			millis, _ := strconv.ParseInt(at, 10, 64)
			d.At = time.UnixMilli(millis).UTC()
			out = append(out, d)
		}
	}
	return out, nil
}

// RetryDead puts a dead letter back into its outbox. CodeNotFound if there is
// none with that id.
func (s *Store) RetryDead(ctx context.Context, id string) error {
	return s.removeDead(ctx, id, true)
}

// DropDead forgets a dead letter. A message that it was about has failed then,
// visibly, and the next of its lane goes out. CodeNotFound if there is none
// with that id.
func (s *Store) DropDead(ctx context.Context, id string) error {
	return s.removeDead(ctx, id, false)
}

func (s *Store) removeDead(ctx context.Context, id string, again bool) error {
	p, ok := partitionOf(id, "", s.o.Partitions)
	if !ok {
		return NotFound("dead letter")
	}
	found, err := s.rdb.XRangeN(ctx, s.keys.dead(p), id[1:], id[1:], 1).Result()
	if err != nil {
		return Unavailable(fmt.Errorf("read a dead letter: %w", err))
	}
	if len(found) == 0 {
		return NotFound("dead letter")
	}
	if !again {
		if err := s.giveUp(ctx, found[0]); err != nil {
			return err
		}
	}
	pipe := s.rdb.TxPipeline()
	if again {
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: s.keys.outbox(p), Values: []any{"o", found[0].Values["o"]}})
	}
	pipe.XDel(ctx, s.keys.dead(p), id[1:])
	if _, err := pipe.Exec(ctx); err != nil {
		return Unavailable(fmt.Errorf("remove a dead letter: %w", err))
	}
	return nil
}

// giveUp lets the message of a dropped entry fail.
func (s *Store) giveUp(ctx context.Context, m redis.XMessage) error {
	text, _ := m.Values["o"].(string)
	var e OutboxEntry
	if json.Unmarshal([]byte(text), &e) != nil || e.Kind != OutboxMessage {
		return nil // not to be read, or about nothing that waits
	}
	_, err := s.Apply(ctx, e.ContactID, MessageAnswered{MessageID: e.MessageID, Failed: true, Reason: FailureUnknown}, Once{})
	if CodeOf(err) == CodeNotFound {
		return nil // gone with its retention
	}
	return err
}

// OutboxDepth returns how many entries wait or are being worked, and the age
// of the oldest, zero if there is none.
func (s *Store) OutboxDepth(ctx context.Context) (int64, time.Duration, error) {
	var depth int64
	var oldest time.Duration
	for p := range s.o.Partitions {
		n, err := s.rdb.XLen(ctx, s.keys.outbox(p)).Result()
		if err != nil {
			return 0, 0, Unavailable(err)
		}
		depth += n
		if n == 0 {
			continue
		}
		first, err := s.rdb.XRangeN(ctx, s.keys.outbox(p), "-", "+", 1).Result()
		if err != nil {
			return 0, 0, Unavailable(err)
		}
		for _, m := range first {
			oldest = max(oldest, s.Now().Sub(streamTime(m.ID)))
		}
	}
	return depth, oldest, nil
}
