package conversations

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// watcher keeps what a store tells of its commits and calls.
type watcher struct {
	mu      sync.Mutex
	commits []Committed
	calls   map[RedisClass]int
	failed  int
	waits   int // calls of class other that took about as long as WAIT does
}

func (w *watcher) commit(c Committed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commits = append(w.commits, c)
}

func (w *watcher) call(c RedisCall) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls == nil {
		w.calls = map[RedisClass]int{}
	}
	w.calls[c.Class]++
	if c.Failed {
		w.failed++
	}
	if c.Class == RedisOther && c.Took > waitFor/2 {
		w.waits++
	}
}

// told returns the calls since it was last asked.
func (w *watcher) told() map[RedisClass]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

// unsettledThings leaves an attempt and a refund whose outcomes are not known,
// each of a payment request of its own, which it returns.
func unsettledThings(t *testing.T, s *Store) (lost, refunded *PaymentRequest) {
	t.Helper()
	begin := func(order, phone string) (*PaymentRequest, int) {
		r := made(t, s, asked(order, phone))
		did(t, s, r.ContactID, LinkOpened{r.ID})
		a := did(t, s, r.ContactID, AttemptStarted{RequestID: r.ID, Platform: "unified_checkout", TokenExpiresAt: s.Now().Add(time.Minute)})
		if a.Refused != nil {
			t.Fatalf("the attempt: %v", a.Refused)
		}
		return r, a.Request.Attempts[len(a.Request.Attempts)-1].N
	}
	lost, n := begin("lost", "0825550001")
	did(t, s, lost.ContactID, AttemptAnswered{RequestID: lost.ID, Attempt: n, Result: Result{Outcome: OutcomeUnknown}})
	refunded, n = begin("refunded", "0825550002")
	did(t, s, refunded.ContactID, AttemptAnswered{RequestID: refunded.ID, Attempt: n, Result: Result{Outcome: OutcomeCaptured, PaymentID: "7", Amount: refunded.Order.Total}})
	asked := did(t, s, refunded.ContactID, OperationRequested{RequestID: refunded.ID, Operation: OperationRefund})
	if asked.Refused != nil {
		t.Fatalf("the refund: %v", asked.Refused)
	}
	id := asked.Request.Operations[0].ID
	did(t, s, refunded.ContactID, OperationStarted{RequestID: refunded.ID, OperationID: id, EntryID: "1-1"})
	answered := did(t, s, refunded.ContactID, OperationAnswered{RequestID: refunded.ID, OperationID: id, State: OperationUnsettled, EntryID: "1-1"})
	if got := answered.Request.Operations[0].State; got != OperationUnsettled {
		t.Fatalf("the refund is %s", got)
	}
	return lost, answered.Request
}

// TestUnsettledIsCounted: what is not known is counted with its age until it is
// known, over all partitions, on every kind of Redis.
func TestUnsettledIsCounted(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, options(t))
			count := func(wantAttempts, wantOperations int64, what string) {
				t.Helper()
				attempts, operations, err := s.Unsettled(t.Context())
				if err != nil || attempts.Count != wantAttempts || operations.Count != wantOperations {
					t.Fatalf("%s: got %+v, %+v, %v; want %d and %d", what, attempts, operations, err, wantAttempts, wantOperations)
				}
				if attempts.Oldest.IsZero() != (wantAttempts == 0) || operations.Oldest.IsZero() != (wantOperations == 0) {
					t.Fatalf("%s: the oldest are %v and %v", what, attempts.Oldest, operations.Oldest)
				}
			}
			count(0, 0, "at first")
			lost, refunded := unsettledThings(t, s)
			count(1, 1, "with answers lost")
			attempts, _, _ := s.Unsettled(t.Context())
			if r, err := s.Request(t.Context(), lost.ID); err != nil || !attempts.Oldest.Equal(r.Attempts[0].StartedAt) {
				t.Errorf("the oldest attempt began %v, the request says %v, %v", attempts.Oldest, r.Attempts[0].StartedAt, err)
			}
			did(t, s, lost.ContactID, AttemptAnswered{RequestID: lost.ID, Attempt: 1, Asked: true, Result: Result{Outcome: OutcomeCaptured, PaymentID: "8", Amount: lost.Order.Total}})
			count(0, 1, "with the attempt known")
			did(t, s, refunded.ContactID, OperationFound{
				RequestID: refunded.ID, Attempt: 1, Operation: OperationRefund, Amount: refunded.Operations[0].Amount,
				PlatformID: "9", PaymentID: "7", Code: refunded.Operations[0].ID, At: s.Now(),
			})
			count(0, 0, "with both known")
		})
	}
}

// TestCommitsAreTold: each commit is told once by whoever made it, with what it
// changed, and a repeated or refused one is not told again.
func TestCommitsAreTold(t *testing.T) {
	t.Parallel()
	var first, second watcher
	o := serverOptions(t)
	o.Observe, o.ObserveRedis = first.commit, first.call
	one := open(t, o)
	o.Observe, o.ObserveRedis = second.commit, second.call
	two := open(t, o)

	r := made(t, one, asked("1", "0821234567"))
	for range 2 {
		if _, err := two.Apply(t.Context(), r.ContactID, LinkOpened{r.ID}, Once{Key: "press"}); err != nil {
			t.Fatal(err)
		}
	}
	did(t, one, r.ContactID, LinkOpened{r.ID}) // opened already
	did(t, one, r.ContactID, AttemptStarted{RequestID: r.ID, TokenExpiresAt: one.Now().Add(time.Minute)})
	did(t, one, r.ContactID, AttemptAnswered{RequestID: r.ID, Attempt: 1, Result: Result{Outcome: OutcomeCaptured, PaymentID: "7", Amount: r.Order.Total}})

	reached := func(w *watcher, m Milestone) (n int) {
		for _, c := range w.commits {
			if c.Reached(m) {
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		w         *watcher
		milestone Milestone
		want      int
	}{{&first, MilestoneOpened, 0}, {&second, MilestoneOpened, 1}, {&first, MilestonePaid, 1}, {&second, MilestonePaid, 0}} {
		if got := reached(c.w, c.milestone); got != c.want {
			t.Errorf("%s was told %d times, want %d", c.milestone, got, c.want)
		}
	}
	i := slices.IndexFunc(first.commits, func(c Committed) bool { return c.Kind == "Created" })
	if i < 0 || len(first.commits[i].Messages) != 1 || first.commits[i].Messages[0].Status != DeliveryQueued || first.commits[i].Before != nil {
		t.Errorf("the first commit was not told with its message: %+v", first.commits)
	}
	if first.calls[RedisScript] == 0 || first.calls[RedisWrite] == 0 || first.failed > 0 {
		t.Errorf("calls of Redis: %v, %d failed", first.calls, first.failed)
	}
	if pools := one.RedisPools(); len(pools) != 2 || pools[0].Hits+pools[0].News == 0 || pools[0].Name != "commands" {
		t.Errorf("the pools: %+v", pools)
	}
}

// TestFailedCallsAreTold: a Redis that does not answer shows in the calls, and
// an answer that there is nothing is no failure.
func TestFailedCallsAreTold(t *testing.T) {
	t.Parallel()
	var w watcher
	o := serverOptions(t)
	o.ObserveRedis = w.call
	s := open(t, o)
	if _, err := s.Request(t.Context(), "pr_0nothing"); CodeOf(err) != CodeNotFound {
		t.Fatalf("reading what is not there: %v", err)
	}
	if w.failed != 0 {
		t.Errorf("%d calls failed before Redis was gone", w.failed)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if err := s.Ping(ctx); err == nil {
		t.Fatal("a ping without time was answered")
	}
	if w.failed != 1 {
		t.Errorf("%d calls failed, want the one that had no time", w.failed)
	}
}

// TestCommitsWithReplicasAreTold: a commit of money that waits for replicas is
// one script and one question, on a connection of its own, and both are told on
// every kind of Redis, once.
func TestCommitsWithReplicasAreTold(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		if name == "embedded" { // it knows no WAIT
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			s := open(t, o)
			r := made(t, s, asked("1", "0821234567"))
			did(t, s, r.ContactID, LinkOpened{r.ID})
			var w watcher
			o.WaitReplicas, o.ObserveRedis = 1, w.call // there is none
			strict := open(t, o)
			w.told()
			if _, err := strict.Apply(t.Context(), r.ContactID, AttemptStarted{RequestID: r.ID, TokenExpiresAt: s.Now()}, Once{}); err != ErrTooFewReplicas {
				t.Errorf("without a replica: %v", err)
			}
			// Scripts are called elsewhere too, WAIT on this connection only; the
			// clock is asked after now and then.
			if calls := w.told(); calls[RedisScript] == 0 || w.waits == 0 {
				t.Errorf("told of %v, of them %d of a second", calls, w.waits)
			}
		})
	}
}

// TestDepthIsOneCall: a scrape's question after the outbox costs one way to
// Redis, however many partitions there are.
func TestDepthIsOneCall(t *testing.T) {
	t.Parallel()
	var w watcher
	o := serverOptions(t)
	o.ObserveRedis = w.call
	s := open(t, o)
	made(t, s, asked("1", "0821234567"))
	w.told()
	if depth, oldest, err := s.OutboxDepth(t.Context()); depth != 1 || oldest < 0 || err != nil {
		t.Errorf("%d entries, the oldest of %v, %v", depth, oldest, err)
	}
	if calls := w.told(); calls[RedisPipeline] != 1 || calls[RedisRead] != 0 {
		t.Errorf("it made the calls %v", calls)
	}
}
