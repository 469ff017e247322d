package conversations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
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
// Worker. Each sender's messages have a work lane of their own, and so has a
// merchant's other work: who is slow holds up nobody else. Entries left by a
// worker that died are claimed after ClaimIdle.
type OutboxReader struct {
	Store    *Store
	Worker   Worker
	Consumer string // a stable name of this process
	// SenderWorkers bounds how many messages of one sender are worked at once,
	// Workers how much other work of one merchant. Default of the first: the
	// second.
	SenderWorkers, Workers int
	// LaneLength bounds how many entries wait in one lane; default 256. What
	// does not fit goes back for PutOff at least, default two seconds: the
	// longer, the more there is of it.
	LaneLength int
	PutOff     time.Duration
	ClaimIdle  time.Duration // longer than the work between two renewals
	Log        *slog.Logger
	// MaxDeliveries is after how many deliveries without an outcome an entry
	// is parked.
	MaxDeliveries int64
	Dead          func(OutboxEntry) // called for every parked entry, may be nil
	Full          func(OutboxEntry) // called for every entry whose lane is full, may be nil

	lanes workLanes
	held  heldEntries
	back  chan struct{} // one for each entry that is being put off
}

const (
	readAtOnce     = 64 // entries of one partition
	putOffAtOnce   = 16
	defaultLength  = 256
	defaultPutOff  = 2 * time.Second
	longestPutOff  = 30 * time.Second
	renewedAtOnce  = 500
	claimedAtOnce  = 100
	giveBackWithin = 5 * time.Second
)

// Run reads until ctx ends, then waits for the work under way. It is called
// once.
func (o *OutboxReader) Run(ctx context.Context) error {
	o.prepare()
	var reading, renewing sync.WaitGroup
	for _, group := range o.Store.slotGroups() {
		reading.Go(func() { o.read(ctx, group) })
	}
	reading.Go(func() { o.reclaim(ctx) })
	// What was begun is finished, whatever ends the reader, and stays ours
	// until then.
	working, done := context.WithCancel(context.WithoutCancel(ctx))
	renewing.Go(func() { o.renew(working) })
	reading.Wait()
	o.giveBack(working, o.lanes.close())
	o.lanes.running.Wait()
	done()
	renewing.Wait()
	return nil
}

func (o *OutboxReader) prepare() {
	if o.LaneLength == 0 {
		o.LaneLength = defaultLength
	}
	if o.SenderWorkers == 0 {
		o.SenderWorkers = o.Workers
	}
	if o.PutOff == 0 {
		o.PutOff = defaultPutOff
	}
	o.back = make(chan struct{}, putOffAtOnce)
	o.lanes.start(o.SenderWorkers, o.Workers, o.LaneLength, o.work)
}

// WorkLanes returns what waits and what is worked in this process.
func (o *OutboxReader) WorkLanes() []WorkLane { return o.lanes.depths() }

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

func (o *OutboxReader) read(ctx context.Context, partitions []int) {
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
			Group: outboxGroup, Consumer: o.Consumer, Streams: names, Count: readAtOnce, Block: blockFor,
		}).Result()
		if err != nil {
			if !errors.Is(err, redis.Nil) && ctx.Err() == nil {
				o.Log.WarnContext(ctx, "reading the outbox failed", "error", err)
				s.regroup(ctx, partitions, err)
				_ = sleep(ctx, time.Second) // the loop looks at ctx
			}
			continue
		}
		for _, stream := range streams {
			for _, m := range stream.Messages {
				o.offer(ctx, taken{XMessage: m, p: byName[stream.Stream], times: 1})
			}
		}
	}
}

// taken is an entry that this consumer holds.
type taken struct {
	redis.XMessage
	p       int
	claimed bool
	times   int64
	text    string
	entry   OutboxEntry
}

// offer puts an entry that was read into its lane. It waits for no lane: what
// finds its lane full is put off, and reading goes on.
func (o *OutboxReader) offer(ctx context.Context, t taken) {
	if !o.held.add(t.p, t.ID) {
		return // it is in a lane already: renewing its claim failed for a while
	}
	t.text, _ = t.Values["o"].(string)
	if err := json.Unmarshal([]byte(t.text), &t.entry); err != nil || t.entry.ContactID == "" {
		o.park(context.WithoutCancel(ctx), t, errors.Join(ErrPoison, err))
		o.held.release(t.p, t.ID)
		return
	}
	fits, overflow := o.lanes.put(t)
	if fits {
		return
	}
	if o.Full != nil {
		o.Full(t.entry)
	}
	if t.entry.Kind != OutboxMessage {
		// Nothing puts other work off: it stays pending, and whoever claims it
		// after its idle time may have room.
		o.held.release(t.p, t.ID)
		return
	}
	select {
	case o.back <- struct{}{}:
	case <-ctx.Done():
		o.held.release(t.p, t.ID)
		return
	}
	o.lanes.running.Go(func() {
		defer func() { o.held.release(t.p, t.ID); <-o.back }()
		o.putOff(context.WithoutCancel(ctx), t, overflow)
	})
}

// putOff sends a message back for a while; the more are sent back, the longer,
// so that they do not come again and again.
func (o *OutboxReader) putOff(ctx context.Context, t taken, overflow int) {
	wait := o.PutOff + rand.N(o.PutOff*3/2+1)
	wait = min(wait*time.Duration(1+overflow/o.LaneLength), longestPutOff+rand.N(o.PutOff))
	_, err := o.Store.Apply(ctx, t.entry.ContactID, SendingPutOff{MessageID: t.entry.MessageID, EntryID: t.ID, For: wait}, Once{})
	if err != nil {
		o.Log.WarnContext(ctx, "an outbox entry was not put off and will be claimed again", "entry", t.ID, "error", err)
	}
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

// work gives one entry to the worker, and lets go of it.
func (o *OutboxReader) work(t taken) {
	ctx := context.Background() // what was begun is finished
	defer o.held.release(t.p, t.ID)
	err := o.Worker.Work(ctx, t.entry, Delivery{EntryID: t.ID, Claimed: t.claimed, Times: t.times})
	switch {
	case err == nil:
	case errors.Is(err, ErrPoison) || o.MaxDeliveries > 0 && t.times >= o.MaxDeliveries && CodeOf(err) != CodeUnavailable:
		o.park(ctx, t, err)
	default:
		o.Log.WarnContext(ctx, "an outbox entry was not worked and will be claimed again", "kind", t.entry.Kind, "entry", t.ID, "error", err)
	}
}

// renew keeps the claims of all entries that wait or are worked here, so that
// nobody takes them over from a living process.
func (o *OutboxReader) renew(ctx context.Context) {
	for sleep(ctx, o.ClaimIdle/3) == nil {
		for p, ids := range o.held.all() {
			for some := range slices.Chunk(ids, renewedAtOnce) {
				err := o.Store.rdb.XClaimJustID(ctx, &redis.XClaimArgs{
					Stream: o.Store.keys.outbox(p), Group: outboxGroup, Consumer: o.Consumer, Messages: some,
				}).Err()
				if err != nil && ctx.Err() == nil {
					o.Log.WarnContext(ctx, "renewing outbox claims failed", "entries", len(some), "error", err)
				}
			}
		}
	}
}

// giveBack lets others claim at once what waited here when the reader ended.
// If it fails, they claim it after its idle time.
func (o *OutboxReader) giveBack(ctx context.Context, waiting []taken) {
	ctx, cancel := context.WithTimeout(ctx, giveBackWithin)
	defer cancel()
	byPartition := map[int][]any{}
	for _, t := range waiting {
		o.held.release(t.p, t.ID)
		byPartition[t.p] = append(byPartition[t.p], t.ID)
	}
	for p, ids := range byPartition {
		args := append([]any{"XCLAIM", o.Store.keys.outbox(p), outboxGroup, o.Consumer, 0}, ids...)
		if err := o.Store.rdb.Do(ctx, append(args, "IDLE", ms(o.ClaimIdle), "JUSTID")...).Err(); err != nil {
			o.Log.WarnContext(ctx, "giving outbox entries back failed", "entries", len(ids), "error", err)
		}
	}
}

// reclaim takes over entries whose worker has not renewed them.
func (o *OutboxReader) reclaim(ctx context.Context) {
	for sleep(ctx, o.ClaimIdle/2) == nil {
		for p := range o.Store.o.Partitions {
			if err := o.reclaimPartition(ctx, p); err != nil && ctx.Err() == nil {
				o.Log.WarnContext(ctx, "claiming outbox entries failed", "error", err)
			}
		}
	}
}

func (o *OutboxReader) reclaimPartition(ctx context.Context, p int) error {
	s := o.Store
	for ctx.Err() == nil {
		idle, err := s.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: s.keys.outbox(p), Group: outboxGroup, Idle: o.ClaimIdle, Start: "-", End: "+", Count: claimedAtOnce,
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
		for _, m := range claimed {
			o.offer(ctx, taken{XMessage: m, p: p, claimed: true, times: times[m.ID]})
		}
		if len(idle) < claimedAtOnce {
			return nil
		}
	}
	return nil
}

// park moves an entry that cannot be worked to the dead letters.
func (o *OutboxReader) park(ctx context.Context, t taken, why error) {
	s := o.Store
	o.Log.ErrorContext(ctx, "an outbox entry was parked among the dead letters", "kind", t.entry.Kind, "entry", t.ID, "payment_request_id", t.entry.RequestID, "message_id", t.entry.MessageID, "error", why)
	pipe := s.rdb.TxPipeline() // one slot, so all or nothing in Cluster too
	pipe.XAdd(ctx, &redis.XAddArgs{Stream: s.keys.dead(t.p), Values: []any{"o", t.text, "why", clip(why.Error(), 300), "at", strconv.FormatInt(s.Now().UnixMilli(), 10)}})
	pipe.XAck(ctx, s.keys.outbox(t.p), outboxGroup, t.ID)
	pipe.XDel(ctx, s.keys.outbox(t.p), t.ID)
	if _, err := pipe.Exec(ctx); err != nil {
		o.Log.ErrorContext(ctx, "parking an outbox entry failed", "entry", t.ID, "error", err)
		return
	}
	if o.Dead != nil {
		o.Dead(t.entry)
	}
}

// OutboxDepth returns how many entries wait or are being worked, and the age
// of the oldest, zero if there is none. It asks for all partitions at once.
func (s *Store) OutboxDepth(ctx context.Context) (int64, time.Duration, error) {
	pipe := s.rdb.Pipeline()
	counts, firsts := make([]*redis.IntCmd, s.o.Partitions), make([]*redis.XMessageSliceCmd, s.o.Partitions)
	for p := range counts {
		counts[p], firsts[p] = pipe.XLen(ctx, s.keys.outbox(p)), pipe.XRangeN(ctx, s.keys.outbox(p), "-", "+", 1)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, 0, Unavailable(fmt.Errorf("count the outbox: %w", err))
	}
	var depth int64
	var oldest time.Duration
	for p := range counts {
		depth += counts[p].Val()
		for _, m := range firsts[p].Val() {
			oldest = max(oldest, s.Now().Sub(streamTime(m.ID)))
		}
	}
	return depth, oldest, nil
}
