package conversations

import (
	"testing"
	"time"
)

// TestWhatWasTakenBackIsNotPaid: a charge shows in a platform's search before
// its reversal does. Until both must show, the charge alone is no news.
func TestWhatWasTakenBackIsNotPaid(t *testing.T) {
	t.Parallel()
	for _, o := range []Outcome{OutcomeCaptured, OutcomeAuthorized, OutcomeInReview, OutcomePartial, OutcomeRiskDeclined} {
		s := paying(t)
		s.answer(1, OutcomeUnknown)
		s.now = s.now.Add(2 * time.Minute)
		s.answer(1, OutcomeReversed)
		s.wantLifecycle(Open, "")
		s.now = s.now.Add(10 * time.Minute)
		s.answer(1, o)
		s.wantLifecycle(Open, "")
		if n := len(s.request().Operations); n != 0 || s.request().PaidBy != 0 {
			t.Errorf("%s: %d operations, paid by %d", o, n, s.request().PaidBy)
		}
	}
	s := paying(t)
	s.answer(1, OutcomeUnknown)
	s.answer(1, OutcomeReversed)
	s.now = s.now.Add(61 * time.Minute)
	s.answer(1, OutcomeCaptured) // still there, and nothing has reversed it
	s.wantLifecycle(Paid, "")
}
