package conversations

import "testing"

// TestPutOffIsUnsettled: what the platform does not let in is tried for ever, and
// somebody has to hear of it; what waits for reviewers, people know of.
func TestPutOffIsUnsettled(t *testing.T) {
	t.Parallel()
	for word, counted := range map[string]bool{"HTTP_401": true, "NOT_SENT": true, ErrorUnderReview: false} {
		s := taking(t, OutcomeCaptured)
		id := s.asked(OperationRefund, nil).ID
		if n := len(unsettledOperations(s.request())); n != 0 {
			t.Errorf("%d are counted that nobody has tried", n)
		}
		s.done(id, OperationPending, word)
		if got := unsettledOperations(s.request()); len(got) == 1 != counted {
			t.Errorf("put off by %s: %v", word, got)
		}
		s.now = *s.operation(0).DueAt
		s.fire()
		s.done(id, OperationSucceeded, "")
		if n := len(unsettledOperations(s.request())); n != 0 {
			t.Errorf("%d are counted that are done", n)
		}
	}
}
