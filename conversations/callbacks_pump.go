package conversations

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	callbackGroup = "callbacks"
	// requestEventPrefix begins the types of the events of payment requests.
	requestEventPrefix = "payment_request."
	// clockSlack is by how much the clocks of two masters, or the offsets that
	// two processes measured, may differ: an event so shortly before an endpoint
	// was made is told rather than missed.
	clockSlack = 2 * time.Second
)

// Why a merchant is told to read its lists again.
const (
	ResetTrimmed  = "events_lost" // nobody took events from the feed for longer than it keeps them
	ResetWentBack = "store_went_back"
)

// CallbackPump takes the events of the feed and queues each for the endpoints
// of its merchant. Several processes may run one: each event is taken by one of
// them, acknowledged when it is queued, and taken over by another if that does
// not happen within ClaimIdle.
type CallbackPump struct {
	Callbacks *Callbacks
	ClaimIdle time.Duration
	Log       *slog.Logger
	// Queued is called after something was queued for an endpoint, may be nil.
	Queued func(merchantID, endpointID string)
	// Reset is called when events are lost or what was told may be undone. It is
	// called again after an error.
	Reset func(ctx context.Context, reason string) error

	ends feedEnds
}

// feedEnds is how far the feed of each partition is known to have reached.
type feedEnds struct {
	mu sync.Mutex
	at map[int]StreamID
}

const (
	pumpedAtOnce  = 128
	pumpNotes     = time.Minute // how often it is noted that the feed is read
	pumpWatchTick = time.Second
)

// Run takes events until ctx ends. It is called once.
func (p *CallbackPump) Run(ctx context.Context) error {
	s := p.Callbacks.s
	p.ends.at = map[int]StreamID{}
	for p.prepare(ctx) != nil && sleep(ctx, time.Second) == nil {
	}
	var running sync.WaitGroup
	for _, group := range s.slotGroups() {
		running.Go(func() { p.read(ctx, group) })
	}
	running.Go(func() { p.reclaim(ctx) })
	running.Go(func() { p.watch(ctx) })
	running.Wait()
	return nil
}

// prepare makes the groups. A new one begins with the oldest event that is
// kept: endpoints get only what happened since they are there.
func (p *CallbackPump) prepare(ctx context.Context) error {
	s := p.Callbacks.s
	for i := range s.o.Partitions {
		err := s.rdb.XGroupCreateMkStream(ctx, s.keys.feed(i), callbackGroup, "0").Err()
		if err == nil || isBusyGroup(err) {
			err = p.note(ctx, i)
		}
		if err != nil && ctx.Err() == nil {
			p.Log.WarnContext(ctx, "preparing the callbacks failed and is tried again", "error", err)
			return err
		}
	}
	return nil
}

// note keeps that the feed of a partition is read now. If nobody did for longer
// than its events are kept, and the oldest that is left came later, some may be
// lost.
func (p *CallbackPump) note(ctx context.Context, partition int) error {
	s := p.Callbacks.s
	now := s.Now()
	text, err := s.rdb.Get(ctx, s.keys.pumped(partition)).Result()
	if ignoreNil(err) != nil {
		return err
	}
	if last := millisOf(text); last != nil && now.Sub(*last) > s.o.Retention.Feed {
		first, err := s.rdb.XRangeN(ctx, s.keys.feed(partition), "-", "+", 1).Result()
		if err != nil {
			return err
		}
		if len(first) > 0 && streamTime(first[0].ID).After(*last) {
			if err := p.reset(ctx, ResetTrimmed); err != nil {
				return err
			}
		}
	}
	return s.rdb.Set(ctx, s.keys.pumped(partition), strconv.FormatInt(now.UnixMilli(), 10), 0).Err()
}

func (p *CallbackPump) reset(ctx context.Context, reason string) error {
	p.Log.ErrorContext(ctx, "events may not have been told to the merchants' systems; they are told to read the lists again", "reason", reason)
	if p.Reset == nil {
		return nil
	}
	return p.Reset(ctx, reason)
}

// callbackConsumer is the one name under which all processes take events: whose
// an entry is does not matter, only for how long it was left.
const callbackConsumer = "pump"

func (p *CallbackPump) read(ctx context.Context, partitions []int) {
	s := p.Callbacks.s
	names := make([]string, 0, 2*len(partitions))
	byName := map[string]int{}
	for _, i := range partitions {
		names = append(names, s.keys.feed(i))
		byName[s.keys.feed(i)] = i
	}
	for range partitions {
		names = append(names, ">")
	}
	for ctx.Err() == nil {
		streams, err := s.blocking.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: callbackGroup, Consumer: callbackConsumer, Streams: names, Count: pumpedAtOnce, Block: blockFor,
		}).Result()
		if err != nil {
			if !errors.Is(err, redis.Nil) && ctx.Err() == nil {
				p.Log.WarnContext(ctx, "reading the feed for callbacks failed", "error", err)
				if redis.HasErrorPrefix(err, "NOGROUP") {
					_ = p.prepare(ctx) // it has logged why not; the next round tries again
				}
				_ = sleep(ctx, time.Second) // the loop looks at ctx
			}
			continue
		}
		for _, stream := range streams {
			p.hand(ctx, byName[stream.Stream], stream.Messages)
		}
	}
}

// hand queues entries of one partition and acknowledges them. What fails stays
// pending and is taken over later.
func (p *CallbackPump) hand(ctx context.Context, partition int, entries []redis.XMessage) {
	ctx = context.WithoutCancel(ctx) // what was taken is queued
	s := p.Callbacks.s
	byMerchant := map[string][]FeedEntry{}
	var done []string
	for _, m := range entries {
		done = append(done, m.ID)
		e := s.feedEntry(partition, m)
		p.ends.reached(partition, e.ID)
		if e.Event.Seq > 0 && e.MerchantID != "" { // else it could not be read, and was logged
			byMerchant[e.MerchantID] = append(byMerchant[e.MerchantID], e)
		}
	}
	failed := false
	for merchant, events := range byMerchant {
		if err := p.queue(ctx, merchant, events); err != nil {
			failed = true // the other merchants' go on
			p.Log.WarnContext(ctx, "events were not queued for callbacks and will be taken again", "merchant_id", merchant, "events", len(events), "error", err)
		}
	}
	if failed {
		return
	}
	if err := s.rdb.XAck(ctx, s.keys.feed(partition), callbackGroup, done...).Err(); err != nil {
		p.Log.WarnContext(ctx, "acknowledging events failed; they will be taken again and queued no second time", "events", len(done), "error", err)
	}
}

// queue gives a merchant's events to its endpoints. They are read after the
// events were, so that one made before an event is never missed.
func (p *CallbackPump) queue(ctx context.Context, merchantID string, entries []FeedEntry) error {
	endpoints, err := p.Callbacks.Endpoints(ctx, merchantID)
	if err != nil {
		return err
	}
	for _, to := range endpoints {
		var wanted []CallbackEvent
		for _, e := range entries {
			event := requestEvent(e.Event)
			if to.Wants(event.Type) && !event.At.Before(to.CreatedAt.Add(-clockSlack)) {
				wanted = append(wanted, event)
			}
		}
		if len(wanted) == 0 {
			continue
		}
		n, err := p.Callbacks.Queue(ctx, merchantID, to.ID, wanted...)
		if err != nil {
			return err
		}
		if n > 0 && p.Queued != nil {
			p.Queued(merchantID, to.ID)
		}
	}
	return nil
}

// requestEvent is an event of a payment request as endpoints get it.
func requestEvent(e LoggedEvent) CallbackEvent {
	return CallbackEvent{
		ID: "evt_" + e.RequestID + "_" + strconv.FormatInt(e.Seq, 10), Type: requestEventPrefix + e.Type, At: e.At,
		RequestID: e.RequestID, Seq: e.Seq,
		print: digest(strings.Join([]string{e.Type, e.At.UTC().Format(time.RFC3339Nano), string(e.Lifecycle)}, "\n")),
	}
}

// reclaim takes over entries that a dead process left, and notes now and then
// that the feed is read.
func (p *CallbackPump) reclaim(ctx context.Context) {
	s := p.Callbacks.s
	noted := s.Now()
	for sleep(ctx, p.ClaimIdle/2) == nil {
		again := s.Now().Sub(noted) > pumpNotes
		for i := range s.o.Partitions {
			err := p.reclaimPartition(ctx, i)
			if err == nil && again {
				err = p.note(ctx, i)
			}
			if err != nil && ctx.Err() == nil {
				p.Log.WarnContext(ctx, "claiming events for callbacks failed", "error", err)
			}
		}
		if again {
			noted = s.Now()
		}
	}
}

func (p *CallbackPump) reclaimPartition(ctx context.Context, partition int) error {
	s := p.Callbacks.s
	for ctx.Err() == nil {
		idle, err := s.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
			Stream: s.keys.feed(partition), Group: callbackGroup, Idle: p.ClaimIdle, Start: "-", End: "+", Count: pumpedAtOnce,
		}).Result()
		if err != nil || len(idle) == 0 {
			return err
		}
		ids, err := p.stillThere(ctx, partition, idle)
		if err != nil || len(ids) == 0 {
			return err
		}
		claimed, err := s.rdb.XClaim(ctx, &redis.XClaimArgs{
			Stream: s.keys.feed(partition), Group: callbackGroup, Consumer: callbackConsumer, MinIdle: p.ClaimIdle, Messages: ids,
		}).Result()
		if err != nil {
			return err
		}
		p.hand(ctx, partition, claimed)
		if len(idle) < pumpedAtOnce {
			return nil
		}
	}
	return nil
}

// stillThere returns the ids of the entries that the feed has not cut off. The
// others are lost: a process took them and died, and nobody took over in time.
func (p *CallbackPump) stillThere(ctx context.Context, partition int, idle []redis.XPendingExt) ([]string, error) {
	s := p.Callbacks.s
	first, err := s.rdb.XRangeN(ctx, s.keys.feed(partition), "-", "+", 1).Result()
	if err != nil {
		return nil, err
	}
	var there, lost []string
	for _, i := range idle {
		if len(first) > 0 && parseStreamID(i.ID).Compare(parseStreamID(first[0].ID)) >= 0 {
			there = append(there, i.ID)
		} else {
			lost = append(lost, i.ID)
		}
	}
	if len(lost) == 0 {
		return there, nil
	}
	if err := p.reset(ctx, ResetTrimmed); err != nil {
		return nil, err
	}
	return there, s.rdb.XAck(ctx, s.keys.feed(partition), callbackGroup, lost...).Err()
}

// watch notices that a feed ends before what was taken from it: a failover lost
// commits, and what was told of them is undone.
func (p *CallbackPump) watch(ctx context.Context) {
	s := p.Callbacks.s
	for sleep(ctx, pumpWatchTick) == nil {
		for i := range s.o.Partitions {
			// Asked afterwards: what is taken meanwhile lies beyond the answer.
			reached := p.ends.of(i)
			end, _, err := s.streamEnd(ctx, i)
			if err != nil {
				continue
			}
			if end.Compare(reached) >= 0 {
				p.ends.reached(i, end) // another process may have taken it
				continue
			}
			if err := p.reset(ctx, ResetWentBack); err == nil {
				p.ends.fell(i, reached, end)
			}
		}
	}
}

func (f *feedEnds) reached(partition int, id StreamID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at[partition].Compare(id) < 0 {
		f.at[partition] = id
	}
}

func (f *feedEnds) of(partition int) StreamID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at[partition]
}

// fell lowers an end, unless it has moved on meanwhile.
func (f *feedEnds) fell(partition int, from, to StreamID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at[partition] == from {
		f.at[partition] = to
	}
}
