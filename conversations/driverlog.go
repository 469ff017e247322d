package conversations

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// driver is where go-redis says things of its own accord, such as a connection
// that it could not make or a master that Sentinel named. The library has one
// logger for the whole process, and without ours it prints to standard error.
var driver driverLog

type driverLog struct {
	to atomic.Pointer[slog.Logger]

	mu   sync.Mutex
	said map[string]time.Time // what was logged lately, and when
}

// sayAgainAfter is how long a sentence is not repeated: while Redis is down,
// every connection of both pools says the same, many times a second.
const sayAgainAfter = time.Minute

// Printf is called by go-redis. What matters fails a command as well, and is
// logged there; this only tells more.
func (d *driverLog) Printf(ctx context.Context, format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if log := d.to.Load(); log != nil && d.news(text, time.Now()) {
		log.InfoContext(ctx, "the redis client says", "said", text)
	}
}

// news tells whether a sentence was not said lately, and notes it.
func (d *driverLog) news(text string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.said, func(_ string, at time.Time) bool { return now.Sub(at) >= sayAgainAfter })
	if _, lately := d.said[text]; lately {
		return false
	}
	if d.said == nil {
		d.said = map[string]time.Time{}
	}
	d.said[text] = now
	return true
}

var takeOverDriverLog = sync.OnceFunc(func() { redis.SetLogger(&driver) })

// logDriver sends what go-redis says to a log; of several stores in a process,
// to that of the last one. A nil log changes nothing but the silence.
func logDriver(log *slog.Logger) {
	takeOverDriverLog()
	if log != nil {
		driver.to.Store(log)
	}
}
