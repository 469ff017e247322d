package conversations

import (
	"context"
	"sync"
)

// turns lets the writers of one contact that have met a conflict go on one
// after the other in this process. Without them a crowd of n writers would
// mostly conflict with itself, n² commits in all, and no one of it would be
// done in time. Who meets no conflict waits for nobody. The zero value is ready.
type turns struct {
	mu     sync.Mutex
	queues map[string]*turnQueue
}

type turnQueue struct {
	turn  chan struct{} // full while somebody has the turn
	users int           // who has it and who waits
}

// take waits for the contact's turn, which the returned function gives on. It
// returns the context's error if that ends before.
func (t *turns) take(ctx context.Context, id string) (done func(), err error) {
	t.mu.Lock()
	q := t.queues[id]
	if q == nil {
		if t.queues == nil {
			t.queues = map[string]*turnQueue{}
		}
		q = &turnQueue{turn: make(chan struct{}, 1)}
		t.queues[id] = q
	}
	q.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if q.users--; q.users == 0 {
			delete(t.queues, id)
		}
	}
	select {
	case q.turn <- struct{}{}:
		return func() { <-q.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
