package faults

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// longestReorder bounds how long a reordered webhook waits for one to overtake
// it, so that the last webhook of a story still arrives.
const longestReorder = 5 * time.Second

// Courier carries the webhooks of one company: in order where the company keeps
// one, and lost, late, twice or out of order where a rule says so. It is safe
// for concurrent use.
type Courier struct {
	set    *Set
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	lines  map[string][]func(context.Context) // waiting behind the one that runs
	kept   []func(context.Context)            // reordered, waiting to be overtaken
}

// NewCourier returns a courier that asks the set for the fault of each webhook.
// Whoever made it calls Close.
func (s *Set) NewCourier() *Courier {
	ctx, cancel := context.WithCancel(context.Background())
	return &Courier{set: s, ctx: ctx, cancel: cancel, lines: make(map[string][]func(context.Context))}
}

// Send hands over one webhook and returns at once. Webhooks with the same line
// are posted one after the other, others side by side. The fault of call is
// taken now, so rules count webhooks in the order they were handed over. A
// webhook that a rule delays or holds leaves its line and can be overtaken.
func (c *Courier) Send(line, call string, post func(context.Context)) {
	c.Carry(line, c.set.Take(call), post)
}

// Carry is Send with a fault that was taken before.
func (c *Courier) Carry(line string, fault Fault, post func(context.Context)) {
	times, reorder, delay := fault.Webhook()
	run := func(ctx context.Context) {
		for range times {
			post(ctx)
		}
	}
	switch {
	case times == 0:
	case delay > 0 || fault.Holds():
		c.Go(func(ctx context.Context) {
			if fault.Hold(ctx) && Wait(ctx, delay) {
				run(ctx)
			}
		})
	case reorder && c.keep(run):
	default:
		c.enqueue(line, func(ctx context.Context) {
			run(ctx)
			c.postKept(ctx)
		})
	}
}

// Holds says whether a webhook with this fault waits for a release.
func (f Fault) Holds() bool { return f.rule != nil && f.rule.Do == HoldBefore }

// keep holds a webhook back until another has been posted. It reports false when
// one is held back already: then this one is the one that overtakes.
func (c *Courier) keep(run func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) > 0 {
		return false
	}
	c.kept = append(c.kept, run)
	c.start(func(ctx context.Context) {
		if Wait(ctx, longestReorder) {
			c.postKept(ctx)
		}
	})
	return true
}

func (c *Courier) postKept(ctx context.Context) {
	c.mu.Lock()
	kept := c.kept
	c.kept = nil
	c.mu.Unlock()
	for _, run := range kept {
		run(ctx)
	}
}

// enqueue runs f after whatever is in line already.
func (c *Courier) enqueue(line string, f func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if waiting, busy := c.lines[line]; busy {
		c.lines[line] = append(waiting, f)
		return
	}
	c.lines[line] = nil
	c.start(func(ctx context.Context) {
		for f != nil && ctx.Err() == nil {
			f(ctx)
			f = c.next(line)
		}
	})
}

// next takes the first of a line, and removes the line when it is empty.
func (c *Courier) next(line string) func(context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting := c.lines[line]
	if len(waiting) == 0 {
		delete(c.lines, line)
		return nil
	}
	c.lines[line] = waiting[1:]
	return waiting[0]
}

// Go runs f until it returns or Close ends its context; after Close it does not
// run at all.
func (c *Courier) Go(f func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start(f)
}

// start is Go with the lock held.
func (c *Courier) start(f func(context.Context)) {
	if !c.closed {
		c.wg.Go(func() { f(c.ctx) })
	}
}

// Close ends all that runs and waits for it. What has not been posted is lost.
// A second call does nothing.
func (c *Courier) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}

// Wait returns true after d, false when ctx ended first.
func Wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Recorder is a ResponseWriter that remembers the status for the call log; 0
// when nothing was answered.
type Recorder struct {
	http.ResponseWriter
	Status int
}

// WriteHeader remembers the first status and passes it on.
func (r *Recorder) WriteHeader(status int) {
	if r.Status == 0 {
		r.Status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write passes the body on; without a status before, it means 200.
func (r *Recorder) Write(b []byte) (int, error) {
	if r.Status == 0 {
		r.Status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection behind.
func (r *Recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
