package conversations

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestTurns(t *testing.T) {
	t.Parallel()
	var all turns
	var running sync.WaitGroup
	counts := map[string]*int{"a": new(int), "b": new(int)}
	for id, count := range counts {
		for range 200 {
			running.Go(func() {
				done, err := all.take(t.Context(), id)
				if err != nil {
					t.Error(err)
					return
				}
				defer done()
				*count++ // a race, if two had the turn
			})
		}
	}
	running.Wait()
	if *counts["a"] != 200 || *counts["b"] != 200 {
		t.Errorf("got %d and %d turns, want 200 each", *counts["a"], *counts["b"])
	}

	done, err := all.take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := all.take(gone, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("who cannot wait for a turn: got %v, want its context's error", err)
	}
	if other, err := all.take(t.Context(), "b"); err != nil {
		t.Errorf("another contact: got %v, want its turn", err)
	} else {
		other()
	}
	done()
	if len(all.queues) != 0 {
		t.Errorf("%d queues are left, want none", len(all.queues))
	}
}
