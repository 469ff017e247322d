package conversations

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/callback_queue.lua
	callbackQueueLua string
	//go:embed lua/callback_take.lua
	callbackTakeLua string
	//go:embed lua/callback_record.lua
	callbackRecordLua string
	//go:embed lua/callback_again.lua
	callbackAgainLua string

	callbackQueueScript  = redis.NewScript(callbackQueueLua)
	callbackTakeScript   = redis.NewScript(callbackTakeLua)
	callbackRecordScript = redis.NewScript(callbackRecordLua)
	callbackAgainScript  = redis.NewScript(callbackAgainLua)
)

// CallbackEvent is something to tell an endpoint. One of a payment request is
// named by the request and its number there, and its content is made when it is
// sent; any other brings its content.
type CallbackEvent struct {
	ID   string // the same however often it is queued: it is queued once
	Type string
	At   time.Time

	RequestID string
	Seq       int64
	Body      []byte

	print string // tells it from another event of the same id
}

// DeliveryState is what became of an event at an endpoint.
type DeliveryState string

// The states of a delivery.
const (
	DeliveryPending   DeliveryState = "pending"   // not tried yet, or again by somebody's wish
	DeliveryRetried   DeliveryState = "failed"    // the last try failed, another follows
	DeliveryDone      DeliveryState = "delivered" // the endpoint took it
	DeliveryAbandoned DeliveryState = "given_up"  // the timetable has ended: nothing more is tried
)

// DeliveryStates are all of them, in the order in which a delivery may come to them.
var DeliveryStates = []DeliveryState{DeliveryPending, DeliveryRetried, DeliveryDone, DeliveryAbandoned}

// CallbackDelivery is an event on its way to an endpoint.
type CallbackDelivery struct {
	CallbackEvent
	State  DeliveryState
	Tries  int
	Status int    // HTTP status of the last answer, 0 if none came
	Error  string // a word for what went wrong last, empty if nothing
	LastAt *time.Time
	NextAt *time.Time // when it is tried next

	step  int // of the timetable: tries since it was queued, or queued again
	asked int64
}

// queuedAtOnce bounds how many events one script call queues.
const queuedAtOnce = 100

// Queue gives events to an endpoint, each once, and returns how many were new.
// An endpoint that is not there gets nothing, which is no error.
func (c *Callbacks) Queue(ctx context.Context, merchantID, endpointID string, events ...CallbackEvent) (int, error) {
	queued := 0
	for some := range slices.Chunk(events, queuedAtOnce) {
		answers, err := c.queue(ctx, merchantID, endpointID, some)
		if err != nil {
			return queued, err
		}
		var anew []CallbackEvent
		for i, answer := range answers {
			switch {
			case answer > 0:
				queued++
			case answer < 0:
				// A failover lost the event that had this number, and another got
				// it since. It is told under an id of its own.
				e := some[i]
				e.ID += "_" + e.print[:8]
				anew = append(anew, e)
			}
		}
		if len(anew) == 0 {
			continue
		}
		if answers, err = c.queue(ctx, merchantID, endpointID, anew); err != nil {
			return queued, err
		}
		for _, answer := range answers {
			queued += max(0, int(answer))
		}
	}
	return queued, nil
}

func (c *Callbacks) queue(ctx context.Context, merchantID, endpointID string, events []CallbackEvent) ([]int64, error) {
	keys, now := c.queueKeys(merchantID, endpointID), c.s.Now()
	args := []any{now.Add(c.o.Timetable[0]).UnixMilli(), ms(c.o.Keep), now.Add(-c.o.Keep).UnixMilli()}
	for i, e := range events {
		if e.print == "" {
			e.print = digest(e.ID) // whoever makes it means the same
			events[i].print = e.print
		}
		keys = append(keys, c.s.keys.callback(merchantID, endpointID, "d", e.ID))
		args = append(args, e.ID, e.print, e.Type, e.At.UnixMilli(), e.RequestID, e.Seq, string(e.Body))
	}
	answers, err := callbackQueueScript.Run(ctx, c.s.rdb, keys, args...).Int64Slice()
	if err != nil {
		return nil, Unavailable(fmt.Errorf("queue callbacks: %w", err))
	}
	return answers, nil
}

func (c *Callbacks) queueKeys(merchantID, endpointID string) []string {
	var keys []string
	for _, part := range []string{"ep", "due", "open", "all"} {
		keys = append(keys, c.s.keys.callback(merchantID, endpointID, part))
	}
	return keys
}

// Tell queues an event for each of a merchant's endpoints that wants its type,
// but for one that may be named.
func (c *Callbacks) Tell(ctx context.Context, merchantID, except string, e CallbackEvent) error {
	endpoints, err := c.Endpoints(ctx, merchantID)
	if err != nil {
		return err
	}
	for _, to := range endpoints {
		if to.ID == except || !to.Wants(e.Type) {
			continue
		}
		if _, err := c.Queue(ctx, merchantID, to.ID, e); err != nil {
			return err
		}
	}
	return nil
}

// Waiting is what a look at all endpoints found.
type Waiting struct {
	Due []CallbackEndpoint // switched on, with a delivery that is due
	// Fallen are those that were switched off because they failed, and whose
	// merchant has not been told.
	Fallen []CallbackEndpoint
}

// Look finds the endpoints of some merchants for which there is something to do.
func (c *Callbacks) Look(ctx context.Context, merchantIDs []string) (Waiting, error) {
	var found Waiting
	refs, err := c.refs(ctx, merchantIDs)
	if err != nil || len(refs) == 0 {
		return found, err
	}
	now := strconv.FormatInt(c.s.Now().UnixMilli(), 10)
	pipe := c.s.rdb.Pipeline()
	states, due := make([]*redis.SliceCmd, len(refs)), make([]*redis.StringSliceCmd, len(refs))
	for i, r := range refs {
		states[i] = pipe.HMGet(ctx, c.s.keys.callback(r.merchant, r.id, "ep"), stateField, toldField)
		due[i] = pipe.ZRangeByScore(ctx, c.s.keys.callback(r.merchant, r.id, "due"), &redis.ZRangeBy{Min: "-inf", Max: now, Count: 1})
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return found, Unavailable(fmt.Errorf("look for callbacks: %w", err))
	}
	for i, r := range refs {
		state, _ := states[i].Val()[0].(string)
		told := states[i].Val()[1] != nil
		active := CallbackState(state) == CallbackActive
		fallen := CallbackState(state) == CallbackDisabled && !told
		if !fallen && (!active || len(due[i].Val()) == 0) {
			continue
		}
		e, err := c.Endpoint(ctx, r.merchant, r.id)
		if errors.Is(err, errEndpoint) {
			continue
		}
		if err != nil {
			return found, err
		}
		if fallen {
			found.Fallen = append(found.Fallen, e)
		} else {
			found.Due = append(found.Due, e)
		}
	}
	return found, nil
}

// endpointRef names an endpoint.
type endpointRef struct{ merchant, id string }

func (c *Callbacks) refs(ctx context.Context, merchantIDs []string) ([]endpointRef, error) {
	pipe := c.s.rdb.Pipeline()
	lists := make([]*redis.StringSliceCmd, len(merchantIDs))
	for i, m := range merchantIDs {
		lists[i] = pipe.HKeys(ctx, c.s.keys.callbacks(m))
	}
	if len(lists) == 0 {
		return nil, nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, Unavailable(fmt.Errorf("read the callback endpoints: %w", err))
	}
	var refs []endpointRef
	for i, list := range lists {
		for _, id := range list.Val() {
			refs = append(refs, endpointRef{merchantIDs[i], id})
		}
	}
	return refs, nil
}

// Told notes that a merchant knows that its endpoint was switched off.
func (c *Callbacks) Told(ctx context.Context, e CallbackEndpoint) error {
	_, err := c.set(ctx, c.s.keys.callback(e.MerchantID, e.ID, "ep"), sinceField, strconv.FormatInt(e.Since.UnixMilli(), 10), toldField, "1")
	return err
}

// Taken is a delivery that this process may try until Until: then another one
// may take it.
type Taken struct {
	CallbackDelivery
	Until time.Time
}

// Take takes deliveries of an endpoint that are due, at most so many, and leaves
// them to the caller for a while. Whoever takes one tries it and records what
// became of it; if the process dies before, it is due again.
func (c *Callbacks) Take(ctx context.Context, e CallbackEndpoint, most int, lease time.Duration) ([]Taken, error) {
	now := c.s.Now()
	until := now.Add(lease).Truncate(time.Millisecond)
	ids, err := callbackTakeScript.Run(ctx, c.s.rdb, c.queueKeys(e.MerchantID, e.ID)[:2], now.UnixMilli(), until.UnixMilli(), most).StringSlice()
	if err != nil {
		return nil, Unavailable(fmt.Errorf("take callbacks: %w", err))
	}
	deliveries, err := c.read(ctx, e.MerchantID, e.ID, ids)
	if err != nil {
		return nil, err
	}
	var taken []Taken
	for i, d := range deliveries {
		t := Taken{Until: until}
		if d != nil {
			t.CallbackDelivery = *d
			taken = append(taken, t)
			continue
		}
		// It is older than deliveries are kept: recording finds it gone.
		t.ID = ids[i]
		if _, err := c.Record(ctx, e, t, CallbackResult{}); err != nil {
			return taken, err
		}
	}
	return taken, nil
}

// read reads deliveries; nil stands for one that is gone.
func (c *Callbacks) read(ctx context.Context, merchantID, endpointID string, ids []string) ([]*CallbackDelivery, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	pipe := c.s.rdb.Pipeline()
	hashes, next := make([]*redis.MapStringStringCmd, len(ids)), make([]*redis.FloatCmd, len(ids))
	for i, id := range ids {
		hashes[i] = pipe.HGetAll(ctx, c.s.keys.callback(merchantID, endpointID, "d", id))
		next[i] = pipe.ZScore(ctx, c.s.keys.callback(merchantID, endpointID, "due"), id)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, Unavailable(fmt.Errorf("read callback deliveries: %w", err))
	}
	found := make([]*CallbackDelivery, len(ids))
	for i, id := range ids {
		if err := cmp.Or(hashes[i].Err(), ignoreNil(next[i].Err())); err != nil {
			return nil, Unavailable(fmt.Errorf("read callback deliveries: %w", err))
		}
		if len(hashes[i].Val()) == 0 {
			continue
		}
		found[i] = deliveryOf(id, hashes[i].Val())
		if next[i].Err() == nil {
			at := time.UnixMilli(int64(next[i].Val())).UTC()
			found[i].NextAt = &at
		}
	}
	return found, nil
}

func ignoreNil(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

func deliveryOf(id string, fields map[string]string) *CallbackDelivery {
	d := &CallbackDelivery{State: DeliveryState(fields["state"]), Error: fields["error"], LastAt: millisOf(fields["last"])}
	d.ID, d.Type, d.RequestID, d.print = id, fields["type"], fields["request"], fields["print"]
	if at := millisOf(fields["at"]); at != nil {
		d.At = *at
	}
	if fields["body"] != "" {
		d.Body = []byte(fields["body"])
	}
	// Numbers that a script has written; 0 where there is none.
	d.Seq, _ = strconv.ParseInt(fields["seq"], 10, 64)
	d.Tries, _ = strconv.Atoi(fields["tries"])
	d.step, _ = strconv.Atoi(fields["step"])
	d.Status, _ = strconv.Atoi(fields["status"])
	d.asked, _ = strconv.ParseInt(fields["asked"], 10, 64)
	return d
}

// Event returns the event of a payment request that a delivery is about.
// CodeNotFound if it is gone.
func (c *Callbacks) Event(ctx context.Context, d CallbackDelivery) (LoggedEvent, error) {
	found, err := c.s.Events(ctx, d.RequestID, d.Seq-1, 1)
	if err != nil {
		return LoggedEvent{}, err
	}
	if len(found) == 0 || found[0].Seq != d.Seq {
		return LoggedEvent{}, NotFound("event")
	}
	return found[0], nil
}

// CallbackResult is what came of a try.
type CallbackResult struct {
	Delivered  bool
	Status     int           // HTTP status, 0 if no answer came
	Error      string        // a word for what went wrong
	RetryAfter time.Duration // how long the endpoint asked to be left alone
	Hopeless   bool          // no further try can help
	Gone       bool          // the endpoint is to be switched off
}

// Recorded is what followed from a try.
type Recorded struct {
	State    DeliveryState // empty if there is no such delivery or endpoint any more
	NextAt   *time.Time
	Disabled string // why the endpoint was switched off by this, empty if it was not
}

const (
	// longestRetryAfter bounds what an endpoint may ask for.
	longestRetryAfter = 24 * time.Hour
	// retryJitter spreads tries over time: a tenth earlier or later.
	retryJitter = 0.1
)

// Record keeps what came of a try, and when the next one is. The endpoint is as
// it was read before the try: if it was changed since, a failure is none of its.
func (c *Callbacks) Record(ctx context.Context, e CallbackEndpoint, t Taken, r CallbackResult) (Recorded, error) {
	now := c.s.Now()
	done := Recorded{State: DeliveryAbandoned}
	next, why := "", ""
	switch {
	case r.Delivered:
		done.State = DeliveryDone
	case !r.Hopeless && t.step+1 < len(c.o.Timetable):
		done.State = DeliveryRetried
		at := now.Add(max(jittered(c.o.Timetable[t.step+1]), min(r.RetryAfter, longestRetryAfter))).Truncate(time.Millisecond)
		done.NextAt, next = &at, strconv.FormatInt(at.UnixMilli(), 10)
	}
	if r.Gone {
		why = CallbackGone
	}
	since := now.Add(-c.o.DisableAfter).UnixMilli()
	if r.Hopeless {
		since = 0 // our own failure says nothing of the endpoint
	}
	keys := append(c.queueKeys(e.MerchantID, e.ID)[:3], c.s.keys.callback(e.MerchantID, e.ID, "d", t.ID))
	answer, err := callbackRecordScript.Run(ctx, c.s.rdb, keys, t.ID, now.UnixMilli(), t.Until.UnixMilli(), string(done.State), r.Status,
		clip(r.Error, 100), next, t.step+1, why, since, e.raw).Text()
	if err != nil {
		return Recorded{}, Unavailable(fmt.Errorf("record a callback: %w", err))
	}
	if answer == "missing" {
		return Recorded{}, nil
	}
	done.Disabled = answer
	return done, nil
}

func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - retryJitter + 2*retryJitter*rand.Float64()))
}

// Deliveries returns what was queued for an endpoint, the newest events first,
// at most limit, and the cursor of the next page, empty at the end. A state, if
// not empty, narrows it. A cursor that is not one of ours is CodeInvalid.
func (c *Callbacks) Deliveries(ctx context.Context, merchantID, endpointID string, state DeliveryState, cursor string, limit int) ([]CallbackDelivery, string, error) {
	if _, err := c.Endpoint(ctx, merchantID, endpointID); err != nil {
		return nil, "", err
	}
	below, belowID, err := parseDeliveryCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	found := []CallbackDelivery{}
	for scanned := 0; scanned < maxScanned; {
		batch, err := c.newest(ctx, c.s.keys.callback(merchantID, endpointID, "all"), below, belowID, max(limit, 50))
		if err != nil {
			return nil, "", err
		}
		if len(batch) == 0 {
			return found, "", nil
		}
		ids := make([]string, len(batch))
		for i, l := range batch {
			ids[i] = l.id
		}
		deliveries, err := c.read(ctx, merchantID, endpointID, ids)
		if err != nil {
			return nil, "", err
		}
		for i, d := range deliveries {
			below, belowID = batch[i].at, batch[i].id
			if d == nil || state != "" && d.State != state {
				continue
			}
			if found = append(found, *d); len(found) == limit {
				return found, listCursor(below, belowID), nil
			}
		}
		scanned += len(batch)
	}
	return found, listCursor(below, belowID), nil
}

// parseDeliveryCursor reads what listCursor wrote of a delivery.
func parseDeliveryCursor(cursor string) (int64, string, error) {
	if cursor == "" {
		return 0, "", nil
	}
	millis, id, _ := strings.Cut(cursor, ".")
	at, err := strconv.ParseInt(millis, 36, 64)
	if err != nil || id == "" {
		return 0, "", Invalid("cursor", "this is not a cursor of this list; use next_cursor as it was given")
	}
	return at, id, nil
}

// newest returns a list below a place in its order: newer first, and by id
// within one millisecond.
func (c *Callbacks) newest(ctx context.Context, key string, below int64, belowID string, limit int) ([]listed, error) {
	pipe := c.s.rdb.Pipeline()
	var parts []*redis.ZSliceCmd
	older := "+inf"
	if belowID != "" {
		// All of the cursor's own millisecond, then what is older.
		at := strconv.FormatInt(below, 10)
		parts = append(parts, pipe.ZRevRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: at, Max: at}))
		older = "(" + at
	}
	parts = append(parts, pipe.ZRevRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: "-inf", Max: older, Count: int64(limit)}))
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, Unavailable(fmt.Errorf("read callback deliveries: %w", err))
	}
	var all []listed
	for _, part := range parts {
		for _, z := range part.Val() { // within one score the ids fall, too
			l := listed{at: int64(z.Score), id: z.Member.(string)}
			if belowID == "" || l.at < below || l.at == below && l.id < belowID {
				all = append(all, l)
			}
		}
	}
	return all[:min(len(all), limit)], nil
}

// Redeliver tries a delivery again, at once and then from the beginning of the
// timetable, whatever became of it.
func (c *Callbacks) Redeliver(ctx context.Context, merchantID, endpointID, id string, once Once) error {
	if _, err := c.Endpoint(ctx, merchantID, endpointID); err != nil {
		return err
	}
	w, err := c.asked(ctx, merchantID, plan{}, once)
	if err != nil {
		return err
	}
	n, err := c.again(ctx, merchantID, endpointID, []string{id}, w)
	if err == nil && n == 0 {
		err = NotFound("delivery")
	}
	return err
}

func (c *Callbacks) again(ctx context.Context, merchantID, endpointID string, ids []string, w wish) (int, error) {
	keys := c.queueKeys(merchantID, endpointID)[1:3]
	args := []any{c.s.Now().UnixMilli(), w.AskedAt, w.repeat}
	for _, id := range ids {
		keys, args = append(keys, c.s.keys.callback(merchantID, endpointID, "d", id)), append(args, id)
	}
	n, err := callbackAgainScript.Run(ctx, c.s.rdb, keys, args...).Int()
	if err != nil {
		return 0, Unavailable(fmt.Errorf("queue callbacks again: %w", err))
	}
	return n, nil
}

// Replay is which deliveries are to be tried again.
type Replay struct {
	Since      time.Time // of their events
	Until      time.Time // zero: now
	OnlyFailed bool      // those that were not delivered
}

// Replayed is what a replay did.
type Replayed struct {
	Deliveries int
	Until      time.Time
	// Next is where to go on, if there were more than one call looks at.
	Next *time.Time
}

const (
	replayedAtOnce = 200
	mostReplayed   = 10_000 // looked at by one call, more or less
)

// Replay tries deliveries of an endpoint again, the oldest first. With once, a
// repeat queues nothing twice.
func (c *Callbacks) Replay(ctx context.Context, merchantID, endpointID string, r Replay, once Once) (Replayed, error) {
	if _, err := c.Endpoint(ctx, merchantID, endpointID); err != nil {
		return Replayed{}, err
	}
	w, err := c.asked(ctx, merchantID, plan{}, once)
	if err != nil {
		return Replayed{}, err
	}
	done := Replayed{Until: r.Until}
	if r.Until.IsZero() {
		done.Until = w.at
	}
	since := r.Since.UnixMilli()
	from, behind := since, 0 // a millisecond, and how many of it were looked at
	for looked := 0; ; {
		batch, err := c.s.rdb.ZRangeByScoreWithScores(ctx, c.s.keys.callback(merchantID, endpointID, "all"), &redis.ZRangeBy{
			Min: strconv.FormatInt(from, 10), Max: strconv.FormatInt(done.Until.UnixMilli(), 10), Offset: int64(behind), Count: replayedAtOnce,
		}).Result()
		if err != nil {
			return done, Unavailable(fmt.Errorf("read callback deliveries: %w", err))
		}
		var ids []string
		for _, z := range batch {
			id, _ := z.Member.(string)
			at := int64(z.Score)
			if at != from {
				from, behind = at, 0
			}
			ids, behind = append(ids, id), behind+1
		}
		n, err := c.replay(ctx, merchantID, endpointID, ids, r.OnlyFailed, w)
		if done.Deliveries += n; err != nil || len(batch) < replayedAtOnce {
			return done, err
		}
		// The next call looks at the last millisecond again, so it has to be
		// another one than this call began with.
		if looked += len(batch); looked >= mostReplayed && from > since {
			at := time.UnixMilli(from).UTC()
			done.Next = &at
			return done, nil
		}
	}
}

func (c *Callbacks) replay(ctx context.Context, merchantID, endpointID string, ids []string, onlyFailed bool, w wish) (int, error) {
	if onlyFailed {
		deliveries, err := c.read(ctx, merchantID, endpointID, ids)
		if err != nil {
			return 0, err
		}
		ids = ids[:0]
		for _, d := range deliveries {
			if d != nil && (d.State == DeliveryRetried || d.State == DeliveryAbandoned || d.asked == w.AskedAt) {
				ids = append(ids, d.ID)
			}
		}
	}
	if len(ids) == 0 {
		return 0, nil
	}
	return c.again(ctx, merchantID, endpointID, ids, w)
}

// CallbackDepth is how much waits for endpoints.
type CallbackDepth struct {
	Endpoints map[CallbackState]int
	// Failing is how many active ones have answered no try since one failed.
	Failing int
	Waiting int64         // deliveries to active endpoints that are not settled
	Oldest  time.Duration // the age of the oldest of their events
}

// Depth looks at the endpoints of some merchants.
func (c *Callbacks) Depth(ctx context.Context, merchantIDs []string) (CallbackDepth, error) {
	depth := CallbackDepth{Endpoints: map[CallbackState]int{CallbackActive: 0, CallbackDisabled: 0}}
	refs, err := c.refs(ctx, merchantIDs)
	if err != nil || len(refs) == 0 {
		return depth, err
	}
	pipe := c.s.rdb.Pipeline()
	states, counts, oldest := make([]*redis.SliceCmd, len(refs)), make([]*redis.IntCmd, len(refs)), make([]*redis.ZSliceCmd, len(refs))
	for i, r := range refs {
		states[i] = pipe.HMGet(ctx, c.s.keys.callback(r.merchant, r.id, "ep"), stateField, failingField)
		open := c.s.keys.callback(r.merchant, r.id, "open")
		counts[i], oldest[i] = pipe.ZCard(ctx, open), pipe.ZRangeWithScores(ctx, open, 0, 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return depth, Unavailable(fmt.Errorf("count callbacks: %w", err))
	}
	now := c.s.Now()
	for i := range refs {
		text, _ := states[i].Val()[0].(string)
		state := CallbackState(text)
		if state == "" {
			continue // deleted meanwhile
		}
		depth.Endpoints[state]++
		if state != CallbackActive {
			continue
		}
		if states[i].Val()[1] != nil {
			depth.Failing++
		}
		depth.Waiting += counts[i].Val()
		for _, z := range oldest[i].Val() {
			depth.Oldest = max(depth.Oldest, now.Sub(time.UnixMilli(int64(z.Score))))
		}
	}
	return depth, nil
}

// LogValue names the delivery and leaves its content out.
func (d CallbackDelivery) LogValue() slog.Value { return slog.StringValue(d.ID) }
