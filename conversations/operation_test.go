package conversations

import (
	"testing"
	"time"
)

func TestOperationWait(t *testing.T) {
	t.Parallel()
	timings := Timings{RetryOperationIn: 5 * time.Second}
	for tries, want := range map[int]time.Duration{
		1: 5 * time.Second, 2: 10 * time.Second, 5: 80 * time.Second, 10: 2560 * time.Second,
		11: time.Hour, 12: time.Hour, 64: time.Hour, 1000: time.Hour,
	} {
		if got := timings.operationWait(tries); got != want {
			t.Errorf("after %d tries it waits %s, want %s", tries, got, want)
		}
	}
}
