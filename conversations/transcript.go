package conversations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Transcript returns the messages of a contact, newest first, at most limit,
// and the cursor of the next page, empty at the end. A cursor that is not one
// of ours is CodeInvalid.
func (s *Store) Transcript(ctx context.Context, contactID, cursor string, limit int) ([]*Message, string, error) {
	p, ok := partitionOf(contactID, contactPrefix, s.o.Partitions)
	if !ok {
		return nil, "", NotFound("conversation")
	}
	below, belowID, err := parseListCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	key, top := s.keys.transcript(p, contactID), "+inf"
	var said []redis.Z
	if belowID != "" {
		// All of the cursor's own millisecond: a count would be used up by
		// those that were seen.
		at := strconv.FormatInt(below, 10)
		same, err := s.rdb.ZRevRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: at, Max: at}).Result()
		if err != nil {
			return nil, "", Unavailable(fmt.Errorf("read a transcript: %w", err))
		}
		for _, z := range same {
			if z.Member.(string) < belowID {
				said = append(said, z)
			}
		}
		top = "(" + at
	}
	older, err := s.rdb.ZRevRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: "-inf", Max: top, Count: int64(limit) + 1}).Result()
	if err != nil {
		return nil, "", Unavailable(fmt.Errorf("read a transcript: %w", err))
	}
	said = append(said, older...)
	next := ""
	if len(said) > limit {
		said = said[:limit]
		last := said[limit-1]
		next = listCursor(int64(last.Score), last.Member.(string))
	}
	ids := make([]string, len(said))
	for i, z := range said {
		ids[i] = z.Member.(string)
	}
	messages, err := s.Messages(ctx, contactID, ids)
	return messages, next, err
}

// Conversations returns a merchant's contacts in the order of their newest
// messages, newest first, at most limit, and the cursor of the next page, empty
// at the end. A cursor that is not one of ours is CodeInvalid.
func (s *Store) Conversations(ctx context.Context, merchantID, cursor string, limit int) ([]*Contact, string, error) {
	below, belowID, err := parseListCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	list, err := s.newest(ctx, func(p int) string { return s.keys.talks(p, merchantID) }, below, belowID, limit+1)
	if err != nil {
		return nil, "", err
	}
	next := ""
	if len(list) > limit {
		list = list[:limit]
		next = listCursor(list[limit-1].at, list[limit-1].id)
	}
	pipe := s.rdb.Pipeline()
	states := make([]*redis.StringCmd, len(list))
	for i, l := range list {
		p, _ := partitionOf(l.id, contactPrefix, s.o.Partitions) // it was made here
		states[i] = pipe.HGet(ctx, s.keys.contact(p, l.id), "s")
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, "", Unavailable(fmt.Errorf("read conversations: %w", err))
	}
	contacts := make([]*Contact, 0, len(list))
	for i, text := range states {
		if text.Val() == "" {
			continue // its retention has ended
		}
		c := &Contact{}
		if err := json.Unmarshal([]byte(text.Val()), c); err != nil {
			return nil, "", fmt.Errorf("conversations: reading %s: %w", list[i].id, err)
		}
		contacts = append(contacts, c)
	}
	return contacts, next, nil
}

// ContactAt returns the contact that owns a canonical phone number. It claims
// nothing; CodeNotFound if nobody has used the number yet.
func (s *Store) ContactAt(ctx context.Context, merchantID, phone string) (*Contact, error) {
	id, err := s.claimed(ctx, s.keys.address(merchantID, Address{Kind: AddressPhone, Value: phone}))
	if err != nil {
		return nil, err
	}
	if id == "" {
		return nil, NotFound("conversation with this phone number")
	}
	return s.Contact(ctx, id)
}
