package conversations

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// Reasons of a refused try to pay, beside ReasonTooManyAttempts of one payment
// request: stable words for programs.
const (
	ReasonTooManyDeclines = "too_many_declines" // of the contact, over all its payment requests
	ReasonTooManyTries    = "too_many_tries"    // of the address on the internet
	ReasonTooSoon         = "too_soon"          // the wait after the last decline is not over
)

// eventCardTesting is the type of the event that tells the agent that a
// contact's declines have reached the limit.
const eventCardTesting = "card_testing"

// wait returns how long after the last of so many declines the next try has to
// wait.
func (l CardTesting) wait(declines int) time.Duration {
	if declines <= l.FreeDeclines {
		return 0
	}
	wait := min(l.FirstDelay, l.LongestDelay)
	for range declines - l.FreeDeclines - 1 {
		if wait *= 2; wait >= l.LongestDelay {
			return l.LongestDelay
		}
	}
	return wait
}

// recent returns those of some declines, oldest first, that still count.
func (l CardTesting) recent(declines []time.Time, now time.Time) []time.Time {
	i := slices.IndexFunc(declines, func(at time.Time) bool { return now.Sub(at) < l.Window })
	if i < 0 {
		return nil
	}
	return declines[i:]
}

// MayTry refuses a further try of a card, with ReasonTooManyDeclines or
// ReasonTooSoon and the time when one is taken again. Limits that are zero
// refuse nothing.
func (c *Contact) MayTry(limits CardTesting, now time.Time) *Error {
	if limits.Window <= 0 {
		return nil
	}
	var refused *Error
	// Each turn goes to the time when the present reason ends; another may
	// hold by then. The declines only grow fewer, so it comes to an end.
	for at := now; ; {
		declines := limits.recent(c.Declines, at)
		n := len(declines)
		if n == 0 {
			return refused
		}
		var no *Error
		until := at
		if limits.ContactTries > 0 && n >= limits.ContactTries {
			no = Refused(ReasonTooManyDeclines, "too many cards were declined; ask for another way to pay")
			until = declines[n-limits.ContactTries].Add(limits.Window)
		} else if next := declines[n-1].Add(limits.wait(n)); next.After(at) {
			no = Refused(ReasonTooSoon, "several cards were declined; the next try has to wait")
			until = next
			if fewer := declines[0].Add(limits.Window); fewer.Before(until) {
				until = fewer // and then the wait may be shorter
			}
		}
		if no == nil {
			return refused
		}
		if refused == nil {
			refused = no
		}
		refused.RetryAt, at = &until, until
	}
}

// tells says of a trigger whether it told the person who tried that the card
// was refused. What took nothing for reasons of ours, or of the connection, is
// not the customer's doing.
func (on Trigger) tells() bool { return on == Declined || on == RiskRefused || on == PartlyHeld }

// noteDecline keeps the time of a decline with the contact, as many as the
// limits look at, and tells the agent when they are reached.
func (p *paymentTx) noteDecline(on Trigger) {
	limits := p.Merchant.CardTesting
	if !on.tells() || p.repeated || limits.Window <= 0 {
		return
	}
	before := limits.recent(p.contact.Declines, p.now)
	most := max(limits.ContactTries, limits.FreeDeclines+maxDoublings)
	if len(before) >= most {
		before = before[len(before)-most+1:]
	}
	p.contact.Declines = append(slices.Clone(before), p.now)
	if len(p.contact.Declines) == limits.ContactTries {
		p.warnOfDeclines()
	}
}

// maxDoublings is more than any wait doubles before it is the longest.
const maxDoublings = 40

// warnOfDeclines tells the agent of a payment request that its customer's
// cards are not taken for a while.
func (p *paymentTx) warnOfDeclines() {
	no := p.contact.MayTry(p.Merchant.CardTesting, p.now)
	if no == nil || no.Reason != ReasonTooManyDeclines {
		return
	}
	p.log(p.r, eventCardTesting, func(l *LoggedEvent) { l.Reason = ReasonTooManyDeclines })
}

//go:embed lua/tries.lua
var triesLua string

var triesScript = redis.NewScript(triesLua)

// Try is a try to pay that Store.BeginTry has counted.
type Try struct {
	key    string
	began  int64 // of the window that it counts in
	limits CardTesting
}

// BeginTry counts a try of an address on the internet against its limits, over
// all payment requests of a merchant and all processes; EndTry has to follow.
// The address is kept as it is given: it should be a digest that nobody can
// turn back. Errors: CodeConflict with ReasonTooManyTries or ReasonTooSoon and
// the time when a try is taken again, or CodeUnavailable.
func (s *Store) BeginTry(ctx context.Context, merchantID, address string, limits CardTesting) (Try, error) {
	t := Try{key: s.keys.tries(merchantID, address), limits: limits}
	var err error
	t.began, err = s.askTries(ctx, t, "begin")
	return t, err
}

// MayTry is BeginTry without the counting.
func (s *Store) MayTry(ctx context.Context, merchantID, address string, limits CardTesting) error {
	_, err := s.askTries(ctx, Try{key: s.keys.tries(merchantID, address), limits: limits}, "look")
	return err
}

// EndTry says what became of a try: a declined one stays counted and makes the
// next one wait, any other is given back.
func (s *Store) EndTry(ctx context.Context, t Try, declined bool) error {
	verb := "give"
	if declined {
		verb = "decline"
	}
	_, err := s.askTries(ctx, t, verb)
	return err
}

func (s *Store) askTries(ctx context.Context, t Try, verb string) (began int64, err error) {
	if t.limits.Window <= 0 || t.limits.AddressTries <= 0 {
		return 0, nil
	}
	now := s.Now()
	answer, err := triesScript.Run(ctx, s.rdb, []string{t.key}, verb, now.UnixMilli(), t.limits.Window.Milliseconds(),
		t.limits.AddressTries, t.limits.FreeDeclines, t.limits.FirstDelay.Milliseconds(), t.limits.LongestDelay.Milliseconds(), t.began).Slice()
	if err != nil {
		return 0, Unavailable(fmt.Errorf("count a try to pay: %w", err))
	}
	if len(answer) != 2 {
		return 0, errors.New("conversations: tries.lua returned something else")
	}
	word, _ := answer[0].(string)
	at, _ := answer[1].(int64)
	var refused *Error
	switch word {
	case "ok":
		return at, nil
	case ReasonTooSoon:
		refused = Refused(ReasonTooSoon, "several payments were declined; the next try has to wait")
	case ReasonTooManyTries:
		refused = Refused(ReasonTooManyTries, "too many payments were tried from this address")
	default:
		return 0, fmt.Errorf("conversations: tries.lua returned %q", clip(word, 20))
	}
	until := time.UnixMilli(at).UTC()
	refused.RetryAt = &until
	return 0, refused
}
