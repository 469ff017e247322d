package conversations

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/throttle.lua
var throttleLua string

var throttleScript = redis.NewScript(throttleLua)

// Throttle asks for one permission of a rate limit that all processes share,
// burst at once and then one every so often. It returns how long to wait
// before asking again; zero means that the permission is given.
func (s *Store) Throttle(ctx context.Context, name string, every time.Duration, burst int) (time.Duration, error) {
	wait, err := throttleScript.Run(ctx, s.rdb, []string{s.keys.throttle(name)}, float64(every.Microseconds())/1000, burst).Int64()
	if err != nil {
		return 0, Unavailable(fmt.Errorf("ask the throttle: %w", err))
	}
	return time.Duration(wait) * time.Millisecond, nil
}
