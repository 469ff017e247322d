package platformtest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// Notifications says how a platform's notifications look.
type Notifications struct {
	// Sign returns the headers of a delivery with a body, signed at a time.
	Sign func(body []byte, at time.Time) map[string]string
	// News is a delivery about a transaction, Repeat the same news once more and
	// written as a repeat is, and Other news about the same transaction.
	News, Repeat, Other []byte
	// TransactionID and Code are what they name.
	TransactionID, Code string
	// Unknown is a delivery of a kind that the platform does not know.
	Unknown []byte
	// Accepted and Rejected end a review.
	Accepted, Rejected []byte
}

// followOn is one kind of operation with the call that carries it out.
type followOn struct {
	kind conversations.OperationKind
	of   func(platforms.Platform) func(context.Context, conversations.Operation, conversations.Attempt) (platforms.OperationResult, error)
	// searched says that an unknown one is looked for before it is sent again.
	searched bool
}

var followOns = []followOn{
	{conversations.OperationVoid, func(p platforms.Platform) func(context.Context, conversations.Operation, conversations.Attempt) (platforms.OperationResult, error) {
		if r, ok := p.(platforms.Reverser); ok {
			return r.Reverse
		}
		return nil
	}, false},
	{conversations.OperationCapture, func(p platforms.Platform) func(context.Context, conversations.Operation, conversations.Attempt) (platforms.OperationResult, error) {
		if c, ok := p.(platforms.Capturer); ok {
			return c.Capture
		}
		return nil
	}, true},
	{conversations.OperationRefund, func(p platforms.Platform) func(context.Context, conversations.Operation, conversations.Attempt) (platforms.OperationResult, error) {
		if r, ok := p.(platforms.Refunder); ok {
			return r.Refund
		}
		return nil
	}, true},
}

// operation returns a sale that succeeded and an operation on it that has not
// been sent.
func (s Suite) operation() (conversations.Attempt, conversations.Operation) {
	attempt := s.Charge.Attempt
	attempt.Result = conversations.Result{Outcome: conversations.OutcomeCaptured, PaymentID: "7681234567890123456789", Amount: attempt.Amount}
	return attempt, conversations.Operation{
		ID: "op-1", Attempt: attempt.N, PaymentID: attempt.Result.PaymentID, Amount: attempt.Amount,
		State: conversations.OperationPending, StartedAt: time.Now(),
	}
}

// abilities holds what is declared against what is there: a check that is left
// out because nobody declared the ability would never be missed.
func (s Suite) abilities(t *testing.T) {
	t.Parallel()
	p := s.make(t, nowhere(t), io.Discard)
	does := false
	for _, k := range followOns {
		does = does || k.of(p) != nil
	}
	_, takesBack := p.(platforms.TimeoutReverser)
	_, audits := p.(platforms.Auditor)
	_, notifies := p.(platforms.Notifying)
	for _, a := range []struct {
		name       string
		has, wants bool
	}{
		{"operations", does, s.Done != nil},
		{"time-out reversals", takesBack, s.TakenBack != ""},
		{"an audit", audits, s.Audits},
		{"notifications", notifies, s.Notifications != nil},
	} {
		if a.has != a.wants {
			t.Errorf("the platform has %s: %v; the suite says %v", a.name, a.has, a.wants)
		}
	}
}

// operationsDone checks that what was done is told with its transaction, and
// took one call. What a void does afterwards with the hold is answered alike.
func (s Suite) operationsDone(t *testing.T) {
	t.Parallel()
	if s.Done == nil {
		t.Skip("the platform has no operations")
	}
	attempt, op := s.operation()
	for _, k := range followOns {
		t.Run(string(k.kind), func(t *testing.T) {
			t.Parallel()
			op := op
			op.Kind = k.kind
			f := s.start(t, answer(s.ApprovedStatus, s.Done(op)))
			do := k.of(f.platform)
			if do == nil {
				t.Skip("the platform cannot do this")
			}
			got, err := do(t.Context(), op, attempt)
			if got.State != conversations.OperationSucceeded || got.ID != s.DoneID || err != nil {
				t.Errorf("%+v, %v, want it done as %s", got, err, s.DoneID)
			}
			want := int32(1)
			if k.kind == conversations.OperationVoid {
				want = 2 // the hold is released as well
			}
			f.wantCalls(want)
			s.wantSilence(t, f.log.String(), got, err)
		})
	}
}

// operationsInTime checks that nothing is sent when the right to do so has
// ended, and that what may have been done is looked for before it is sent again.
func (s Suite) operationsInTime(t *testing.T) {
	t.Parallel()
	attempt, op := s.operation()
	past := time.Unix(1, 0)
	for _, k := range followOns {
		op := op
		op.Kind = k.kind
		t.Run(string(k.kind)+", after its time", func(t *testing.T) {
			t.Parallel()
			op := op
			op.SendBy = &past
			f := s.start(t, answer(http.StatusInternalServerError, ""))
			do := k.of(f.platform)
			if do == nil {
				t.Skip("the platform cannot do this")
			}
			if got, err := do(t.Context(), op, attempt); got.State != conversations.OperationPending || err == nil {
				t.Errorf("%+v, %v, want it pending with an error", got, err)
			}
			f.wantCalls(0)
		})
		if !k.searched {
			continue
		}
		t.Run(string(k.kind)+", after a call of unknown outcome", func(t *testing.T) {
			t.Parallel()
			op := op
			op.State = conversations.OperationUnsettled
			f := s.start(t, answer(s.NothingFoundStatus, s.NothingFound))
			do := k.of(f.platform)
			if do == nil {
				t.Skip("the platform cannot do this")
			}
			if got, err := do(t.Context(), op, attempt); got.State != conversations.OperationUnsettled || err == nil {
				t.Errorf("%+v, %v, want it unknown as before", got, err)
			}
			f.wantCalls(1)
		})
		t.Run(string(k.kind)+", unknown, and nobody to ask", func(t *testing.T) {
			t.Parallel()
			op := op
			op.State = conversations.OperationUnsettled
			do := k.of(s.make(t, nowhere(t), io.Discard))
			if do == nil {
				t.Skip("the platform cannot do this")
			}
			if got, err := do(t.Context(), op, attempt); got.State != conversations.OperationUnsettled || err == nil {
				t.Errorf("%+v, %v, want it unknown as before", got, err)
			}
		})
	}
}

// takenBack checks that a charge counts as taken back only by a plain yes.
func (s Suite) takenBack(t *testing.T) {
	t.Parallel()
	if s.TakenBack == "" {
		t.Skip("the platform has no time-out reversal")
	}
	const unknown = conversations.OutcomeUnknown
	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc // nil: no far end
		want   conversations.Outcome
		err    bool
	}{
		{"no far end", nil, "", true},
		{"not authenticated", answer(http.StatusUnauthorized, "{}"), "", true},
		{"too many calls", answer(http.StatusTooManyRequests, "{}"), "", true},
		{"cut", cut, unknown, false},
		{"system error", answer(http.StatusBadGateway, "{}"), unknown, false},
		{"refused", answer(http.StatusBadRequest, s.Refused), unknown, false},
		{"duplicate", answer(http.StatusBadRequest, s.Duplicate), unknown, false},
		{"cut short", answer(s.ApprovedStatus, s.TakenBack[:len(s.TakenBack)-1]), unknown, false},
		{"empty", answer(s.ApprovedStatus, ""), unknown, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log := &safeBuffer{}
			var p platforms.Platform
			var f *farEnd
			if tt.handle == nil {
				p = s.make(t, nowhere(t), log)
			} else {
				f = s.start(t, tt.handle)
				p, log = f.platform, &f.log
			}
			result, err := p.(platforms.TimeoutReverser).ReverseUnsettled(t.Context(), s.Charge.Attempt)
			if result.Outcome != tt.want || (err != nil) != tt.err {
				t.Errorf("outcome %q, %v, want %q, an error: %v", result.Outcome, err, tt.want, tt.err)
			}
			if f != nil {
				f.wantCalls(1)
			}
			s.wantSilence(t, log.String(), result, err)
		})
	}
	t.Run("done", func(t *testing.T) {
		t.Parallel()
		f := s.start(t, answer(s.ApprovedStatus, s.TakenBack))
		result, err := f.platform.(platforms.TimeoutReverser).ReverseUnsettled(t.Context(), s.Charge.Attempt)
		if result.Outcome != conversations.OutcomeReversed || err != nil {
			t.Errorf("outcome %q, %v, want that it was taken back", result.Outcome, err)
		}
		s.wantSilence(t, f.log.String(), result)
	})
	t.Run("after the caller's time", func(t *testing.T) {
		t.Parallel()
		f := s.start(t, answer(s.ApprovedStatus, s.TakenBack))
		ctx, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
		defer cancel()
		if result, err := f.platform.(platforms.TimeoutReverser).ReverseUnsettled(ctx, s.Charge.Attempt); err == nil {
			t.Errorf("%+v, want an error", result)
		}
		f.wantCalls(0)
	})
}

// audit checks that a list that cannot be believed is none.
func (s Suite) audit(t *testing.T) {
	t.Parallel()
	if !s.Audits {
		t.Skip("the platform lists nothing")
	}
	from, to := time.Now().Add(-time.Hour), time.Now()
	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc // nil: no far end
		none   bool             // the answer is that there is nothing
	}{
		{"no far end", nil, false},
		{"nothing there", answer(s.NothingFoundStatus, s.NothingFound), true},
		{"cut short", answer(s.NothingFoundStatus, s.NothingFound[:len(s.NothingFound)-1]), false},
		{"not authenticated", answer(http.StatusUnauthorized, "{}"), false},
		{"out of order", answer(http.StatusInternalServerError, "{}"), false},
		{"cut", cut, false},
		{"oversized", answer(s.NothingFoundStatus, s.NothingFound+strings.Repeat(" ", 2<<20)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log := &safeBuffer{}
			var p platforms.Platform
			if tt.handle == nil {
				p = s.make(t, nowhere(t), log)
			} else {
				f := s.start(t, tt.handle)
				p, log = f.platform, &f.log
			}
			err := p.(platforms.Auditor).Transactions(t.Context(), from, to, func(f platforms.Found) error {
				t.Errorf("found %+v", f)
				return nil
			})
			if (err == nil) != tt.none || err != nil && conversations.CodeOf(err) != conversations.CodeUnavailable {
				t.Errorf("%v, want nothing and no error: %v; else that it is unavailable", err, tt.none)
			}
			s.wantSilence(t, log.String(), err)
		})
	}
	t.Run("one that is not there", func(t *testing.T) {
		t.Parallel()
		f := s.start(t, answer(http.StatusNotFound, "{}"))
		if found, there, err := f.platform.(platforms.Auditor).Transaction(t.Context(), "7681234567890123456789"); there || err != nil {
			t.Errorf("%+v, %v, %v", found, there, err)
		}
		f.wantCalls(1)
	})
	t.Run("one that cannot be asked for", func(t *testing.T) {
		t.Parallel()
		for _, handle := range []http.HandlerFunc{cut, answer(http.StatusInternalServerError, ""), answer(http.StatusOK, "{"), answer(http.StatusUnauthorized, "{}")} {
			f := s.start(t, handle)
			if found, there, err := f.platform.(platforms.Auditor).Transaction(t.Context(), "7681234567890123456789"); there || conversations.CodeOf(err) != conversations.CodeUnavailable {
				t.Errorf("%+v, %v, %v, want that it is unavailable", found, there, err)
			}
		}
	})
}

func (s Suite) notifications(t *testing.T) {
	t.Parallel()
	if s.Notifications == nil {
		t.Skip("the platform tells nothing")
	}
	n := s.Notifications
	var log safeBuffer
	p := s.make(t, nowhere(t), &log).(platforms.Notifying)
	now := time.Now()
	read := func(body []byte, headers map[string]string, at time.Time) (platforms.Notification, error) {
		got, err := p.ReadNotification(func(name string) string { return headers[name] }, body, at)
		s.wantSilence(t, log.String(), got, err)
		return got, err
	}
	good := func(body []byte) platforms.Notification {
		t.Helper()
		got, err := read(body, n.Sign(body, now), now)
		if err != nil {
			t.Fatalf("%.60s: %v", body, err)
		}
		return got
	}
	news := good(n.News)
	if !news.Known || news.Key == "" || news.TransactionID != n.TransactionID || news.Code != n.Code || news.Review != platforms.ReviewNone {
		t.Errorf("news: %+v", news)
	}
	if again := good(n.Repeat); again.Key != news.Key {
		t.Errorf("a repeat has the key %q, want %q", again.Key, news.Key)
	}
	if other := good(n.Other); other.Key == news.Key || other.TransactionID != news.TransactionID {
		t.Errorf("other news: %+v", other)
	}
	if got := good(n.Unknown); got.Known || got.Review != platforms.ReviewNone {
		t.Errorf("of an unknown kind: %+v", got)
	}
	for body, want := range map[string]platforms.Review{string(n.Accepted): platforms.ReviewAccepted, string(n.Rejected): platforms.ReviewRejected} {
		if got := good([]byte(body)); got.Review != want || got.TransactionID == "" && got.Code == "" {
			t.Errorf("the end of a review: %+v, want %s", got, want)
		}
	}
	for name, headers := range map[string]map[string]string{
		"unsigned":            {},
		"of another delivery": n.Sign(n.Other, now),
		"of nothing":          n.Sign(nil, now),
	} {
		if got, err := read(n.News, headers, now); !errors.Is(err, platforms.ErrNotificationSignature) || got != (platforms.Notification{}) {
			t.Errorf("%s: %+v, %v, want ErrNotificationSignature", name, got, err)
		}
	}
	for name, at := range map[string]time.Time{"old": now.Add(30 * 24 * time.Hour), "of the future": now.Add(-24 * time.Hour)} {
		if _, err := read(n.News, n.Sign(n.News, now), at); !errors.Is(err, platforms.ErrNotificationStale) {
			t.Errorf("%s: %v, want ErrNotificationStale", name, err)
		}
		if _, err := read(n.News, n.Sign(n.Other, now), at); !errors.Is(err, platforms.ErrNotificationSignature) {
			t.Errorf("%s and forged: %v, want ErrNotificationSignature", name, err)
		}
	}
	for _, body := range []string{"{", "[]", "hello", string(n.News[:len(n.News)-1]), string(n.News) + "{}", strings.Repeat("[", 50_000)} {
		if _, err := read([]byte(body), n.Sign([]byte(body), now), now); !errors.Is(err, platforms.ErrNotificationUnreadable) {
			t.Errorf("%.40q: %v, want ErrNotificationUnreadable", body, err)
		}
	}
	for _, body := range []string{"", strings.Repeat(" ", 8<<20)} {
		if _, err := read([]byte(body), n.Sign([]byte(body), now), now); err == nil {
			t.Errorf("%d bytes were taken", len(body))
		}
	}
}
