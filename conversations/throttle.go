package conversations

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
)

// Rate is a limit that all processes share: Events in each Per, Burst of them
// at once.
type Rate struct {
	Events int
	Per    time.Duration
	Burst  int
}

// Every returns the rate of one event in each d.
func Every(d time.Duration, burst int) Rate { return Rate{Events: 1, Per: d, Burst: burst} }

// Throttle asks for one permission of a shared rate limit and returns how long
// to wait before asking again; zero means that the permission is given. The
// clock is Redis's own.
func (s *Store) Throttle(ctx context.Context, name string, r Rate) (time.Duration, error) {
	if r.Events < 1 || r.Per <= 0 || r.Burst < 1 {
		return 0, errors.New("conversations: a rate has at least one event, in a time, and a burst of at least one")
	}
	limiter := redis_rate.NewLimiter(limiterKeys{s.rdb, s.keys})
	given, err := limiter.Allow(ctx, name, redis_rate.Limit{Rate: r.Events, Period: r.Per, Burst: r.Burst})
	switch {
	case err != nil:
		return 0, Unavailable(fmt.Errorf("ask the throttle: %w", err))
	case given.Allowed > 0:
		return 0, nil
	}
	return max(given.RetryAfter, time.Millisecond), nil
}

// limiterKey is how the limiter begins the names of its keys; ours are under
// the store's prefix like all others.
const limiterKey = "rate:"

// limiterKeys gives the limiter's scripts the keys of the store.
type limiterKeys struct {
	redis.UniversalClient
	keys keys
}

func (l limiterKeys) named(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = l.keys.throttle(strings.TrimPrefix(name, limiterKey))
	}
	return out
}

// EvalSha runs a script by its hash, as the limiter does.
func (l limiterKeys) EvalSha(ctx context.Context, sha1 string, names []string, args ...any) *redis.Cmd {
	return l.UniversalClient.EvalSha(ctx, sha1, l.named(names), args...)
}

// Eval runs a script by its text, as the limiter does where it is not loaded.
func (l limiterKeys) Eval(ctx context.Context, script string, names []string, args ...any) *redis.Cmd {
	return l.UniversalClient.Eval(ctx, script, l.named(names), args...)
}
