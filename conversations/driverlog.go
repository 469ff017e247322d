package conversations

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// driver is where go-redis says things of its own accord, such as a connection
// that it could not make or a master that Sentinel named. The library has one
// logger for the whole process, and without ours it prints to standard error.
var driver driverLog

type driverLog struct{ to atomic.Pointer[slog.Logger] }

// Printf is called by go-redis. What matters fails a command as well, and is
// logged there; this only tells more.
func (d *driverLog) Printf(ctx context.Context, format string, v ...any) {
	if log := d.to.Load(); log != nil {
		log.InfoContext(ctx, "the redis client says", "said", fmt.Sprintf(format, v...))
	}
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
