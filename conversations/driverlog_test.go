package conversations

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// lockedBuffer is written to by go-redis's goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The logger is the process's, so this test runs by itself, before the
// parallel ones go on.
func TestDriverSpeaksToTheStoresLog(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := socket.Addr().String()
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	var said lockedBuffer
	before := driver.to.Load()
	defer driver.to.Store(before)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	o := Options{Addresses: []string{address}, Log: slog.New(slog.NewTextHandler(&said, nil))}
	if _, err := Connect(ctx, o); CodeOf(err) != CodeUnavailable {
		t.Fatalf("connecting to nobody: %v", err)
	}
	if got := said.String(); strings.Count(got, "the redis client says") != 1 || !strings.Contains(got, address) {
		t.Errorf("the log holds %q, want once that %s could not be reached", got, address)
	}
}

func TestDriverRepeatsNothing(t *testing.T) {
	t.Parallel()
	var d driverLog
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		text  string
		after time.Duration
		news  bool
	}{{"a", 0, true}, {"a", 1, false}, {"b", 2, true}, {"a", sayAgainAfter - 1, false}, {"a", sayAgainAfter, true}, {"b", sayAgainAfter + 1, false}} {
		if got := d.news(c.text, start.Add(c.after)); got != c.news {
			t.Errorf("%q after %v is news: %v, want %v", c.text, c.after, got, c.news)
		}
	}
}
