package conversations

import (
	"testing"
	"time"
)

// TestUnknownIsLookedAtLateEnough: a platform concludes that an operation was not
// done only some time after the last call for it can have come through. Each look
// counts as one, so the longest wait has to be longer than both together.
func TestUnknownIsLookedAtLateEnough(t *testing.T) {
	t.Parallel()
	const longestCallLife, longestLag = 10 * time.Minute, 45 * time.Minute // as the settings allow
	s := taking(t, OutcomeCaptured)
	s.state.Timings.CallLife = longestCallLife
	id := s.asked(OperationRefund, zar(4900)).ID
	for range 20 {
		op, entry := s.begun(id)
		if op.SentBy != nil && !s.now.Before(op.SentBy.Add(longestLag)) {
			return
		}
		s.do(OperationAnswered{RequestID: theRequest, OperationID: id, State: OperationUnsettled, Error: "NO_ANSWER", EntryID: entry})
		s.now = *s.operation(0).DueAt
		s.fire()
	}
	t.Error("an operation of unknown outcome is never looked at late enough to be sent again")
}
