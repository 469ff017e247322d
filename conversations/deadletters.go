package conversations

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/revive.lua
var reviveLua string

var reviveScript = redis.NewScript(reviveLua)

// DeadLetter is an outbox entry that could not be worked.
type DeadLetter struct {
	ID    string      // names it for RetryDead and DropDead
	Entry OutboxEntry // empty if it cannot be read
	Why   string
	At    time.Time // when it was parked
}

// deadPlace is a dead letter's place among all: by time, then by partition.
type deadPlace struct {
	StreamID
	p int
}

func (a deadPlace) compare(b deadPlace) int {
	return cmp.Or(a.Compare(b.StreamID), cmp.Compare(a.p, b.p))
}

// id spells the place as the letter's id.
func (a deadPlace) id() string { return string(idAlphabet[a.p]) + a.StreamID.String() }

// deadPlaceOf reads a letter's id.
func (s *Store) deadPlaceOf(id string) (deadPlace, bool) {
	p, ok := partitionOf(id, "", s.o.Partitions)
	if !ok {
		return deadPlace{}, false
	}
	a := deadPlace{StreamID: parseStreamID(id[1:]), p: p}
	return a, a.id() == id
}

// DeadLetters returns a merchant's dead letters, the oldest first, at most
// limit, and the cursor of the next page, empty at the end. Without a merchant
// it returns everybody's, and those that cannot be read. A cursor that is not
// one of ours is CodeInvalid.
func (s *Store) DeadLetters(ctx context.Context, merchantID, cursor string, limit int) ([]DeadLetter, string, error) {
	after := deadPlace{p: -1}
	if cursor != "" {
		var ok bool
		if after, ok = s.deadPlaceOf(cursor); !ok {
			return nil, "", Invalid("cursor", "this is not a cursor of this list; use next_cursor as it was given")
		}
	}
	found := []DeadLetter{}
	for scanned := 0; scanned < maxScanned; {
		batch, err := s.deadAfter(ctx, after, max(limit, 50))
		if err != nil {
			return nil, "", err
		}
		if len(batch) == 0 {
			return found, "", nil
		}
		for _, d := range batch {
			after, _ = s.deadPlaceOf(d.ID) // it was made here
			if merchantID != "" && d.Entry.MerchantID != merchantID {
				continue
			}
			if found = append(found, d); len(found) == limit {
				return found, d.ID, nil
			}
		}
		scanned += len(batch)
	}
	return found, after.id(), nil
}

// deadAfter merges the partitions' dead letters behind a place.
func (s *Store) deadAfter(ctx context.Context, after deadPlace, limit int) ([]DeadLetter, error) {
	pipe := s.rdb.Pipeline()
	lists := make([]*redis.XMessageSliceCmd, s.o.Partitions)
	for p := range lists {
		from := after.StreamID.String()
		if p <= after.p {
			from = "(" + from
		}
		lists[p] = pipe.XRangeN(ctx, s.keys.dead(p), from, "+", int64(limit))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, Unavailable(fmt.Errorf("read the dead letters: %w", err))
	}
	type placed struct {
		deadPlace
		DeadLetter
	}
	var all []placed
	for p, list := range lists {
		for _, m := range list.Val() {
			d := deadLetter(p, m)
			place, ok := s.deadPlaceOf(d.ID)
			if !ok {
				return nil, fmt.Errorf("conversations: reading the dead letters: entry %q", m.ID)
			}
			all = append(all, placed{place, d})
		}
	}
	slices.SortFunc(all, func(a, b placed) int { return a.compare(b.deadPlace) })
	var out []DeadLetter
	for _, a := range all[:min(len(all), limit)] {
		out = append(out, a.DeadLetter)
	}
	return out, nil
}

func deadLetter(p int, m redis.XMessage) DeadLetter {
	d := DeadLetter{ID: string(idAlphabet[p]) + m.ID}
	text, _ := m.Values["o"].(string)
	if json.Unmarshal([]byte(text), &d.Entry) != nil {
		d.Entry = OutboxEntry{} // listed all the same, with its reason
	}
	d.Why, _ = m.Values["why"].(string)
	at, _ := m.Values["at"].(string)
	millis, _ := strconv.ParseInt(at, 10, 64)
	d.At = time.UnixMilli(millis).UTC()
	return d
}

// DeadCount returns how many dead letters there are.
func (s *Store) DeadCount(ctx context.Context) (int64, error) {
	pipe := s.rdb.Pipeline()
	counts := make([]*redis.IntCmd, s.o.Partitions)
	for p := range counts {
		counts[p] = pipe.XLen(ctx, s.keys.dead(p))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, Unavailable(fmt.Errorf("count the dead letters: %w", err))
	}
	var n int64
	for _, c := range counts {
		n += c.Val()
	}
	return n, nil
}

// RetryDead puts a merchant's dead letter back into its outbox; without a
// merchant, whoever's it is. With once, a repeat gets the first answer.
// CodeNotFound if there is none with that id.
func (s *Store) RetryDead(ctx context.Context, merchantID, id string, once Once) error {
	return s.settleDead(ctx, merchantID, id, once, func(ctx context.Context, p int, m redis.XMessage) error {
		revived, err := reviveScript.Run(ctx, s.rdb, []string{s.keys.dead(p), s.keys.outbox(p)}, m.ID).Int()
		if err != nil {
			return Unavailable(fmt.Errorf("retry a dead letter: %w", err))
		}
		if revived == 0 {
			return NotFound("dead letter") // another call was faster
		}
		return nil
	})
}

// DropDead forgets a merchant's dead letter; without a merchant, whoever's it
// is. A message that it was about has failed then, visibly, and the next of its
// lane goes out. With once, a repeat gets the first answer. CodeNotFound if
// there is none with that id.
func (s *Store) DropDead(ctx context.Context, merchantID, id string, once Once) error {
	return s.settleDead(ctx, merchantID, id, once, func(ctx context.Context, p int, m redis.XMessage) error {
		if err := s.giveUp(ctx, m); err != nil {
			return err
		}
		if err := s.rdb.XDel(ctx, s.keys.dead(p), m.ID).Err(); err != nil {
			return Unavailable(fmt.Errorf("drop a dead letter: %w", err))
		}
		return nil
	})
}

// settleDead does something about a dead letter, once for once.Key: whoever
// repeats a call whose letter is gone had it settled by the first.
func (s *Store) settleDead(ctx context.Context, merchantID, id string, once Once, settle func(context.Context, int, redis.XMessage) error) error {
	_, known, err := s.planned(ctx, merchantID, once)
	if err != nil {
		return err
	}
	p, m, err := s.dead(ctx, merchantID, id)
	if err == nil && !known {
		_, err = s.choose(ctx, merchantID, plan{Hash: once.Hash}, once)
	}
	if err == nil {
		err = settle(ctx, p, m)
	}
	if known && CodeOf(err) == CodeNotFound {
		return nil
	}
	return err
}

// dead returns a dead letter as it lies in its stream.
func (s *Store) dead(ctx context.Context, merchantID, id string) (int, redis.XMessage, error) {
	place, ok := s.deadPlaceOf(id)
	if !ok {
		return 0, redis.XMessage{}, NotFound("dead letter")
	}
	found, err := s.rdb.XRangeN(ctx, s.keys.dead(place.p), place.StreamID.String(), place.StreamID.String(), 1).Result()
	if err != nil {
		return 0, redis.XMessage{}, Unavailable(fmt.Errorf("read a dead letter: %w", err))
	}
	if len(found) == 0 || merchantID != "" && deadLetter(place.p, found[0]).Entry.MerchantID != merchantID {
		return 0, redis.XMessage{}, NotFound("dead letter")
	}
	return place.p, found[0], nil
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
