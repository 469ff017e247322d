package conversations

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Committed is what Options.Observe is told of a commit: what it changed, for
// counting. Whatever two processes do, each commit is told once, by the process
// that made it; one that dies between the commit and the telling tells nothing.
type Committed struct {
	Kind   EventKind
	Events []LoggedEvent // of the payment requests' logs
	// Request is the payment request that the event concerned as it is now, and
	// Before as it was; nil if there is, or was, none.
	Request, Before *PaymentRequest
	// Messages are the outbound messages that reached another status.
	Messages []Message
}

// Reached tells whether the commit marked a milestone of the request.
func (c Committed) Reached(m Milestone) bool {
	if c.Request == nil {
		return false
	}
	_, now := c.Request.Milestones[m]
	if c.Before == nil {
		return now
	}
	_, then := c.Before.Milestones[m]
	return now && !then
}

// observe tells of a commit that was made.
func (s *Store) observe(e Event, before, changed State, effects Effects) {
	if s.o.Observe == nil {
		return
	}
	c := Committed{
		Kind: e.Kind(), Events: effects.Events,
		Request: changed.Requests[effects.RequestID], Before: before.Requests[effects.RequestID],
	}
	for id, m := range changed.Messages {
		was := before.Messages[id]
		if m != nil && m.Status != DeliveryUnknown && (was == nil || was.Status != m.Status) {
			c.Messages = append(c.Messages, *m)
		}
	}
	s.o.Observe(c)
}

// RedisClass groups Redis commands for counting.
type RedisClass string

// The classes of commands.
const (
	RedisRead     RedisClass = "read"
	RedisWrite    RedisClass = "write"
	RedisScript   RedisClass = "script"   // commits, above all
	RedisPipeline RedisClass = "pipeline" // several commands at once
	RedisBlocking RedisClass = "blocking" // reads that wait for news
	RedisOther    RedisClass = "other"    // asking after the server itself
)

// RedisClasses lists the classes.
var RedisClasses = []RedisClass{RedisRead, RedisWrite, RedisScript, RedisPipeline, RedisBlocking, RedisOther}

var redisClasses = map[string]RedisClass{
	"get": RedisRead, "hget": RedisRead, "hgetall": RedisRead, "hkeys": RedisRead, "hmget": RedisRead, "xinfo": RedisRead, "xlen": RedisRead,
	"xpending": RedisRead, "xrange": RedisRead, "zcard": RedisRead, "zrange": RedisRead, "zrangebyscore": RedisRead,
	"zrevrangebyscore": RedisRead, "zscore": RedisRead,
	"del": RedisWrite, "getex": RedisWrite, "hdel": RedisWrite, "set": RedisWrite, "setnx": RedisWrite, "xack": RedisWrite, "xadd": RedisWrite,
	"xclaim": RedisWrite, "xdel": RedisWrite, "xgroup": RedisWrite, "zadd": RedisWrite, "zrem": RedisWrite,
	"eval": RedisScript, "evalsha": RedisScript, "eval_ro": RedisScript, "evalsha_ro": RedisScript, "script": RedisScript,
}

func classOf(command string) RedisClass {
	if class, ok := redisClasses[strings.ToLower(command)]; ok {
		return class
	}
	return RedisOther
}

// RedisCall is one call of Redis, with the client's own repetitions. Failed
// tells that no answer came, or an error; an answer that there is nothing is
// none.
type RedisCall struct {
	Class  RedisClass
	Took   time.Duration
	Failed bool
}

// redisWatch is a hook of the client that tells of its calls.
type redisWatch struct {
	tell     func(RedisCall)
	blocking bool // the client of blocking reads
}

// DialHook implements redis.Hook. Dialling is part of the call that needs it.
func (w redisWatch) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// ProcessHook implements redis.Hook.
func (w redisWatch) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		began := time.Now()
		err := next(ctx, cmd)
		class := classOf(cmd.Name())
		if w.blocking {
			class = RedisBlocking
		}
		w.tell(RedisCall{Class: class, Took: time.Since(began), Failed: redisFailed(err)})
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (w redisWatch) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		began := time.Now()
		err := next(ctx, cmds)
		w.tell(RedisCall{Class: RedisPipeline, Took: time.Since(began), Failed: redisFailed(err)})
		return err
	}
}

// redisFailed leaves out what is an answer: that there is nothing, that a script
// is not known yet, that a group is there already; and a caller who gave up.
func redisFailed(err error) bool {
	switch {
	case err == nil, errors.Is(err, redis.Nil), errors.Is(err, context.Canceled), errors.Is(err, redis.ErrClosed):
		return false
	}
	return !strings.HasPrefix(err.Error(), "NOSCRIPT") && !isBusyGroup(err) && !strings.Contains(err.Error(), "no such key")
}

// watchRedis has every call told, where somebody wants to know.
func (s *Store) watchRedis() {
	if s.o.ObserveRedis == nil {
		return
	}
	s.rdb.AddHook(redisWatch{tell: s.o.ObserveRedis})
	s.blocking.AddHook(redisWatch{tell: s.o.ObserveRedis, blocking: true})
}

// watchOwn has the calls of a connection of one's own told. Only that of a plain
// client brings its client's hooks along; a node of a cluster has none.
func (s *Store) watchOwn(conn *redis.Conn) *redis.Conn {
	if s.o.ObserveRedis != nil {
		conn.AddHook(redisWatch{tell: s.o.ObserveRedis})
	}
	return conn
}

// RedisPool is how the connections of one of the store's two pools stand, over
// all nodes. Counts are since the start.
type RedisPool struct {
	Name        string // "commands" or "blocking"
	Used, Idle  int
	Hits, News  uint64 // calls that found an idle connection, and that had to make one
	Timeouts    uint64 // calls that got none in time
	StaleClosed uint64
}

// RedisPoolNames lists the names of the pools.
var RedisPoolNames = []string{"commands", "blocking"}

// RedisPools returns how the pools stand.
func (s *Store) RedisPools() []RedisPool {
	pool := func(name string, p *redis.PoolStats) RedisPool {
		total, idle := int(p.TotalConns), int(p.IdleConns)
		return RedisPool{
			Name: name, Used: max(total-idle, 0), Idle: idle,
			Hits: uint64(p.Hits), News: uint64(p.Misses), Timeouts: uint64(p.Timeouts), StaleClosed: uint64(p.StaleConns),
		}
	}
	return []RedisPool{pool(RedisPoolNames[0], s.rdb.PoolStats()), pool(RedisPoolNames[1], s.blocking.PoolStats())}
}

// unsettledAttempts returns, by their references, since when the outcome of
// each of a request's attempts is not known.
func unsettledAttempts(r *PaymentRequest) map[string]time.Time {
	since := map[string]time.Time{}
	if r != nil {
		for _, a := range r.Attempts {
			if a.State == AttemptUnsettled {
				since[a.Code] = a.StartedAt
			}
		}
	}
	return since
}

// unsettledOperations is the same of operations, and of those that were tried and
// put off: a platform that does not let us in is tried for ever.
func unsettledOperations(r *PaymentRequest) map[string]time.Time {
	since := map[string]time.Time{}
	if r != nil {
		for _, o := range r.Operations {
			putOff := o.State == OperationPending && o.Error != "" && o.Error != ErrorUnderReview
			if o.State == OperationUnsettled || putOff {
				since[o.ID] = o.StartedAt
			}
		}
	}
	return since
}

// buildUnsettled keeps the lists of what is not known up to date, so that they
// can be counted without reading every payment request. What an older version
// left is listed with the next writing of its request.
func (c *commit) buildUnsettled() {
	keep := c.s.o.Retention.Money
	for id, r := range c.changed.Requests {
		if c.next.documents[id] == c.known.documents[id] {
			continue
		}
		for _, list := range []struct {
			key string
			of  func(*PaymentRequest) map[string]time.Time
		}{{c.s.keys.unsettledAttempts(c.p), unsettledAttempts}, {c.s.keys.unsettledOperations(c.p), unsettledOperations}} {
			before, now := list.of(c.before.Requests[id]), list.of(r)
			for _, name := range sortedKeys(now) {
				c.do("unsettled", c.key(list.key), name, now[name].UnixMilli(), c.s.Now().Add(-keep).UnixMilli(), ms(keep))
			}
			for _, name := range sortedKeys(before) {
				if _, still := now[name]; !still {
					c.do("settled", c.key(list.key), name)
				}
			}
		}
	}
}

func sortedKeys(m map[string]time.Time) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Unsettled is how many of a kind have an outcome that is not known, and since
// when the oldest was begun; zero if there are none.
type Unsettled struct {
	Count  int64
	Oldest time.Time
}

// Unsettled counts the attempts and the operations whose outcome at the platform
// is not known, and operations that were put off. It reads two short answers a partition, however many payment
// requests there are.
func (s *Store) Unsettled(ctx context.Context) (attempts, operations Unsettled, err error) {
	pipe := s.rdb.Pipeline()
	type answer struct {
		count *redis.IntCmd
		first *redis.ZSliceCmd
		of    *Unsettled
	}
	var answers []answer
	for p := range s.o.Partitions {
		for key, of := range map[string]*Unsettled{s.keys.unsettledAttempts(p): &attempts, s.keys.unsettledOperations(p): &operations} {
			answers = append(answers, answer{pipe.ZCard(ctx, key), pipe.ZRangeWithScores(ctx, key, 0, 0), of})
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return Unsettled{}, Unsettled{}, Unavailable(err)
	}
	for _, a := range answers {
		a.of.Count += a.count.Val()
		for _, z := range a.first.Val() {
			at := time.UnixMilli(int64(z.Score)).UTC()
			if a.of.Oldest.IsZero() || at.Before(a.of.Oldest) {
				a.of.Oldest = at
			}
		}
	}
	return attempts, operations, nil
}
