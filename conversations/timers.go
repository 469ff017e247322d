package conversations

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// TimerRunner applies timers that are due. Several processes may run one: a
// timer is a hint, and what it finds decides.
type TimerRunner struct {
	Store *Store
	Every time.Duration // how often it looks
	Log   *slog.Logger
	Late  func(time.Duration) // called with how late each timer was, may be nil
}

// timersAtOnce bounds how many timers of a partition are taken in one look.
const timersAtOnce = 64

// Run looks for due timers until ctx ends. Once a minute it measures Redis's
// clock again.
func (r *TimerRunner) Run(ctx context.Context) error {
	measured := r.Store.Now()
	for sleep(ctx, r.Every) == nil {
		if now := r.Store.Now(); now.Sub(measured) > time.Minute {
			if err := r.Store.MeasureClock(ctx); err != nil {
				r.Log.WarnContext(ctx, "measuring redis's clock failed", "error", err)
			}
			measured = r.Store.Now()
		}
		due, err := r.Store.dueTimers(ctx)
		if err != nil {
			if ctx.Err() == nil {
				r.Log.WarnContext(ctx, "reading timers failed", "error", err)
			}
			continue
		}
		for _, t := range due {
			r.fire(ctx, t)
		}
	}
	return nil
}

func (r *TimerRunner) fire(ctx context.Context, t Timer) {
	if r.Late != nil {
		r.Late(r.Store.Now().Sub(t.At))
	}
	_, err := r.Store.Apply(context.WithoutCancel(ctx), t.ContactID, TimerFired{Timer: t}, Once{})
	switch CodeOf(err) {
	case CodeNotFound, CodeInvalid:
		// What it was for is gone with its retention.
		if err := r.Store.forgetTimer(ctx, t); err != nil {
			r.Log.WarnContext(ctx, "taking a timer away failed", "kind", t.Kind, "error", err)
		}
	case "":
		if err != nil {
			r.Log.ErrorContext(ctx, "a timer could not be applied and is tried again later", "kind", t.Kind, "id", t.ID, "error", err)
			if err := r.Store.putOff(ctx, t); err != nil {
				r.Log.WarnContext(ctx, "putting a timer off failed", "kind", t.Kind, "error", err)
			}
		}
	default:
		r.Log.WarnContext(ctx, "a timer was not applied and stays due", "kind", t.Kind, "id", t.ID, "error", err)
	}
}

// dueTimers returns timers whose time has come, the oldest of each partition
// first.
func (s *Store) dueTimers(ctx context.Context) ([]Timer, error) {
	now := strconv.FormatInt(s.Now().UnixMilli(), 10)
	pipe := s.rdb.Pipeline()
	lists := make([]*redis.ZSliceCmd, s.o.Partitions)
	for p := range lists {
		lists[p] = pipe.ZRangeByScoreWithScores(ctx, s.keys.timers(p), &redis.ZRangeBy{Min: "-inf", Max: now, Count: timersAtOnce})
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, Unavailable(err)
	}
	var due []Timer
	for p, list := range lists {
		for _, z := range list.Val() {
			t, err := parseTimer(z.Member.(string), z.Score)
			if at, ok := partitionOf(t.ContactID, contactPrefix, s.o.Partitions); err == nil && (!ok || at != p) {
				err = errors.New("a timer names a contact of its partition")
			}
			if err != nil {
				s.log.ErrorContext(ctx, "a timer cannot be read and is taken away", "error", err)
				if err := s.rdb.ZRem(ctx, s.keys.timers(p), z.Member).Err(); err != nil {
					return nil, Unavailable(err)
				}
				continue
			}
			due = append(due, t)
		}
	}
	return due, nil
}

// putOff moves a timer that cannot be applied, so that it does not stand before
// others; it is not set where it was taken away meanwhile.
func (s *Store) putOff(ctx context.Context, t Timer) error {
	p, ok := partitionOf(t.ContactID, contactPrefix, s.o.Partitions)
	if !ok {
		return NotFound("contact")
	}
	at := float64(s.Now().Add(time.Minute).UnixMilli())
	return s.rdb.ZAddXX(ctx, s.keys.timers(p), redis.Z{Score: at, Member: t.member()}).Err()
}

func (s *Store) forgetTimer(ctx context.Context, t Timer) error {
	p, ok := partitionOf(t.ContactID, contactPrefix, s.o.Partitions)
	if !ok {
		return NotFound("contact")
	}
	return s.rdb.ZRem(ctx, s.keys.timers(p), t.member()).Err()
}

// TimersLate returns by how much the oldest due timer is late.
func (s *Store) TimersLate(ctx context.Context) (time.Duration, error) {
	due, err := s.dueTimers(ctx)
	var late time.Duration
	for _, t := range due {
		late = max(late, s.Now().Sub(t.At))
	}
	return late, err
}

func parseTimer(member string, score float64) (Timer, error) {
	parts := strings.Split(member, "/")
	if len(parts) != 4 {
		return Timer{}, errors.New("a timer has four parts")
	}
	n, err := strconv.Atoi(parts[3])
	if err != nil {
		return Timer{}, errors.New("a timer ends in a number")
	}
	return Timer{Kind: TimerKind(parts[0]), ContactID: parts[1], ID: parts[2], N: n, At: time.UnixMilli(int64(score)).UTC()}, nil
}
