package conversations

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/sender.lua
var senderLua string

var senderScript = redis.NewScript(senderLua)

//go:embed lua/release.lua
var releaseLua string

var releaseScript = redis.NewScript(releaseLua)

// Hold keeps all messages of a sender back, in every process.
type Hold struct {
	Reason FailureReason `json:"reason"`
	Code   string        `json:"code,omitempty"` // the provider's own
	Until  time.Time     `json:"until"`
	// Fail says that messages meanwhile fail with Reason instead of waiting:
	// no wait would help them, another channel may.
	Fail bool `json:"fail,omitempty"`
}

// SenderState is what all processes know of one of the merchant's senders.
type SenderState struct {
	Notices []Notice // the newest of each subject, name and language, newest first
	Hold    *Hold    // nil when none is in force
}

const (
	// maxNotices bounds how many notices of a sender are kept.
	maxNotices = 200
	// maxNoticeText bounds each of a notice's texts.
	maxNoticeText = 600
)

// The fields of a sender's hash.
const (
	noticeField = "n/"
	holdField   = "hold"
)

// NoteSender keeps a provider's word about a sender, unless a newer one about
// the same is there: webhooks come in any order, any number of times. Of more
// than maxNotices the oldest are forgotten.
func (s *Store) NoteSender(ctx context.Context, senderID string, n Notice) error {
	n.Name, n.Language = clip(n.Name, maxNoticeText), clip(n.Language, maxNoticeText)
	n.Word, n.Detail = clip(n.Word, maxNoticeText), clip(n.Detail, maxNoticeText)
	n.At = n.At.UTC()
	field := noticeField + digest(string(n.Subject)+"\n"+n.Name+"\n"+n.Language)
	return s.writeSender(ctx, senderID, field, n.At, n)
}

// HoldSender keeps a sender's messages back until h.Until, in every process. Of
// two holds the one that ends later stands.
func (s *Store) HoldSender(ctx context.Context, senderID string, h Hold) error {
	h.Until = h.Until.UTC()
	return s.writeSender(ctx, senderID, holdField, h.Until, h)
}

// ReleaseSender ends a sender's hold in every process, if it is for one of the
// reasons: what they blamed is mended. It tells whether there was one.
func (s *Store) ReleaseSender(ctx context.Context, senderID string, reasons ...FailureReason) (bool, error) {
	failed := func(err error) (bool, error) {
		return false, Unavailable(fmt.Errorf("release a sender: %w", err))
	}
	kept, err := s.rdb.HGet(ctx, s.keys.sender(senderID), holdField).Result()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return failed(err)
	}
	h, err := readHold(kept)
	if err != nil || !slices.Contains(reasons, h.Reason) {
		return false, err
	}
	done, err := releaseScript.Run(ctx, s.rdb, []string{s.keys.sender(senderID)}, holdField, kept).Int()
	if err != nil {
		return failed(err)
	}
	return done == 1 && s.Now().Before(h.Until), nil
}

// readHold reads a hold as it is kept, behind its rank.
func readHold(kept string) (*Hold, error) {
	_, text, _ := strings.Cut(kept, " ")
	h := &Hold{}
	if err := json.Unmarshal([]byte(text), h); err != nil {
		return nil, fmt.Errorf("conversations: reading the hold of a sender: %w", err)
	}
	return h, nil
}

func (s *Store) writeSender(ctx context.Context, senderID, field string, rank time.Time, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("conversations: writing what is known of a sender: %w", err)
	}
	err = senderScript.Run(ctx, s.rdb, []string{s.keys.sender(senderID)},
		field, rank.UnixMilli(), string(b), ms(s.o.Retention.Money), maxNotices+1).Err()
	if err != nil {
		return Unavailable(fmt.Errorf("note what was said of a sender: %w", err))
	}
	return nil
}

// SenderState returns what is known of a sender; of one that nobody spoke of
// that is nothing.
func (s *Store) SenderState(ctx context.Context, senderID string) (SenderState, error) {
	fields, err := s.rdb.HGetAll(ctx, s.keys.sender(senderID)).Result()
	if err != nil {
		return SenderState{}, Unavailable(fmt.Errorf("read what is known of a sender: %w", err))
	}
	var state SenderState
	for field, kept := range fields {
		if field == holdField {
			h, err := readHold(kept)
			if err != nil {
				return SenderState{}, err
			}
			if s.Now().Before(h.Until) {
				state.Hold = h
			}
			continue
		}
		_, text, _ := strings.Cut(kept, " ")
		var n Notice
		if err := json.Unmarshal([]byte(text), &n); err != nil {
			return SenderState{}, fmt.Errorf("conversations: reading a notice about a sender: %w", err)
		}
		state.Notices = append(state.Notices, n)
	}
	slices.SortFunc(state.Notices, func(a, b Notice) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Language, b.Language))
	})
	return state, nil
}
