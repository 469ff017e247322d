package main

import (
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// retryRule says when a message that a provider refused for now is tried again:
// after first, by growth longer each time, up to most, at most tries times in
// all. Zero leaves first and tries to the configuration.
type retryRule struct {
	tries  int
	first  time.Duration
	growth float64
	most   time.Duration
}

// retryRules are the rules by failure reason. Which failures may be tried again
// at all the adapters say; a reason without a row, if they say so, falls under
// otherRetries.
var retryRules = map[conversations.FailureReason]retryRule{
	conversations.FailureRate:          {growth: 2, most: 10 * time.Minute},
	conversations.FailureProviderError: {growth: 2, most: 2 * time.Minute},
	conversations.FailureUnreachable:   {tries: 2, first: time.Minute, growth: 1, most: time.Minute},
}

var otherRetries = retryRule{tries: 3, growth: 2, most: time.Minute}

// retryPolicy is what the configuration says of tries.
type retryPolicy struct {
	First time.Duration
	Tries int
}

// wait returns how long to wait after so many tries, and false when there were
// enough. What the failure itself says of waits and tries counts for more than
// the table: a provider that asks for a time is not asked again before.
func (r retryPolicy) wait(f *providers.Failure, tries int) (time.Duration, bool) {
	rule, ok := retryRules[f.Reason]
	if !ok {
		rule = otherRetries
	}
	if f.Tries > 0 {
		rule.tries = f.Tries
	} else if rule.tries == 0 {
		rule.tries = r.Tries
	}
	if tries >= rule.tries {
		return 0, false
	}
	if rule.first == 0 {
		rule.first = r.First
	}
	if f.Growth > 0 {
		// The provider's own timetable: never earlier than it says.
		first := f.RetryAfter
		if first == 0 {
			first = rule.first
		}
		return spread(grown(first, f.Growth, tries, max(rule.most, longestGrowth))), true
	}
	own := grown(rule.first, rule.growth, tries, max(rule.most, rule.first))
	own = own/2 + rand.N(own/2+1) // half of it is jitter, so that many do not come back at once
	if own < f.RetryAfter {
		return spread(f.RetryAfter), true
	}
	return own, true
}

// longestGrowth bounds a wait that grows by a provider's own timetable.
const longestGrowth = time.Hour

// grown returns first, by growth longer for each try after the first, up to
// most.
func grown(first time.Duration, growth float64, tries int, most time.Duration) time.Duration {
	d := float64(first) * math.Pow(growth, float64(max(tries, 1)-1))
	if d >= float64(most) {
		return max(most, first)
	}
	return time.Duration(d)
}

// spread makes a wait a little longer, never shorter, so that those who wait for
// the same moment do not all come in it.
func spread(d time.Duration) time.Duration {
	return d + rand.N(min(max(d/8, time.Millisecond), 10*time.Second))
}

// isFault tells whether an error is of the kind that a circuit breaker is for:
// no answer, a fault of the server, an unknown outcome. A refusal, however
// unwelcome, shows that the provider is there.
func isFault(err error) bool {
	var f *providers.Failure
	if errors.As(err, &f) {
		return f.Unknown || f.Reason == conversations.FailureProviderError
	}
	return err != nil
}
