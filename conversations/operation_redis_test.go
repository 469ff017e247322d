package conversations

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// paidFor makes a payment request that was paid in a sale.
func paidFor(t *testing.T, s *Store) *PaymentRequest {
	t.Helper()
	r := made(t, s, asked("1", "082 123 4567"))
	for _, e := range []Event{
		LinkOpened{r.ID}, AttemptStarted{RequestID: r.ID, TokenExpiresAt: time.Now().Add(time.Minute)},
		AttemptAnswered{RequestID: r.ID, Attempt: 1, Result: Result{Outcome: OutcomeCaptured, PaymentID: "1"}},
	} {
		if a := did(t, s, r.ContactID, e); a.Refused != nil {
			t.Fatalf("%s: %v", e.Kind(), a.Refused)
		}
	}
	return r
}

// TestRefundsAtOnceStayWithinTheMoney: two hundred callers at two gateways ask
// for a part each, and every operation that is begun may be called for once.
func TestRefundsAtOnceStayWithinTheMoney(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			stores := []*Store{open(t, o), open(t, o)}
			r := paidFor(t, stores[0])
			callers := 200
			if name == "embedded" {
				callers = 60
			}
			part := rand149(700) // 21 of them fit
			var taken, refused, calls atomic.Int64
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					s := stores[i%2]
					a, err := s.Apply(t.Context(), r.ContactID, OperationRequested{RequestID: r.ID, Operation: OperationRefund, Amount: &part}, Once{})
					switch {
					case err != nil:
						t.Errorf("ask: %v", err)
					case a.Refused != nil:
						if a.Refused.Reason != beyondRefundable {
							t.Errorf("refused: %v", a.Refused)
						}
						refused.Add(1)
						return
					}
					taken.Add(1)
				})
			}
			wg.Wait()
			if taken.Load() != 21 || refused.Load() != int64(callers-21) {
				t.Fatalf("%d taken, %d refused", taken.Load(), refused.Load())
			}
			got, err := stores[1].Request(t.Context(), r.ID)
			if err != nil {
				t.Fatal(err)
			}
			// Both gateways are given every operation, as after a claim.
			for _, op := range got.Operations {
				for i, s := range stores {
					wg.Go(func() {
						entry := fmt.Sprintf("%d-%d", time.Now().UnixMilli(), i)
						a, err := s.Apply(t.Context(), r.ContactID, OperationStarted{RequestID: r.ID, OperationID: op.ID, EntryID: entry}, Once{})
						if err != nil {
							t.Errorf("start: %v", err)
							return
						}
						if a.Operation == nil {
							return
						}
						calls.Add(1)
						_, err = s.Apply(t.Context(), r.ContactID, OperationAnswered{RequestID: r.ID, OperationID: op.ID, State: OperationSucceeded, ResultID: op.ID, EntryID: entry}, Once{})
						if err != nil {
							t.Errorf("answer: %v", err)
						}
					})
				}
			}
			wg.Wait()
			if got, err = stores[0].Request(t.Context(), r.ID); err != nil {
				t.Fatal(err)
			}
			if calls.Load() != 21 || got.RefundedMinor != 21*700 || got.Refundable() != 200 || got.Lifecycle != PartiallyRefunded {
				t.Errorf("%d calls, refunded %d, refundable %d, %s", calls.Load(), got.RefundedMinor, got.Refundable(), got.Lifecycle)
			}
		})
	}
}

// TestAStoppedProcessRefundsNothing: a gateway stops between its commit and its
// call. Another takes over only when no call can come through any more, looks
// first, and what the first says when it wakes up undoes nothing.
func TestAStoppedProcessRefundsNothing(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ahead atomic.Int64 // how much later it is for both gateways
			o := options(t)
			o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			stopped, other := open(t, o), open(t, o)
			r := paidFor(t, stopped)
			did(t, other, r.ContactID, OperationRequested{RequestID: r.ID, Operation: OperationRefund})
			start := func(s *Store, entry string) *Operation {
				return did(t, s, r.ContactID, OperationStarted{RequestID: r.ID, OperationID: r.ID + "-op1", EntryID: entry}).Operation
			}
			answer := func(s *Store, entry string, state OperationState) {
				did(t, s, r.ContactID, OperationAnswered{RequestID: r.ID, OperationID: r.ID + "-op1", State: state, ResultID: entry, EntryID: entry})
			}
			first := start(stopped, "1-1")
			if first == nil || first.State != OperationPending {
				t.Fatalf("started %+v", first)
			}
			if op := start(other, "1-1"); op != nil {
				t.Fatalf("two gateways may call at once: %+v", op)
			}
			ahead.Add(int64(time.Minute))
			if op := start(other, "1-2"); op != nil {
				t.Fatalf("the first call may still be on its way: %+v", op)
			}
			ahead.Add(int64(2 * time.Minute))
			did(t, other, r.ContactID, TimerFired{Timer{Kind: TimerOperation, ContactID: r.ContactID, ID: r.ID, N: 1}})
			second := start(other, "1-3")
			if second == nil || second.State != OperationUnsettled || second.SentBy == nil || !second.SentBy.After(*first.SendBy) {
				t.Fatalf("started %+v, after %+v", second, first)
			}
			if !o.Now().After(*first.SendBy) {
				t.Fatal("the first may still send")
			}
			answer(stopped, "1-1", OperationPending)
			answer(stopped, "1-1", OperationFailed)
			answer(other, "1-3", OperationSucceeded)
			got, err := stopped.Request(t.Context(), r.ID)
			if err != nil {
				t.Fatal(err)
			}
			if op := got.Operations[0]; op.State != OperationSucceeded || op.ResultID != "1-3" || got.Lifecycle != Refunded || len(got.Operations) != 1 {
				t.Errorf("%s, operations %+v", got.Lifecycle, got.Operations)
			}
		})
	}
}
