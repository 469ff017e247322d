package conversations

import "testing"

// TestRestGoesBackForTheSameReason: what somebody took at the platform while the
// hold was being released goes back as well, and the agent reads why.
func TestRestGoesBackForTheSameReason(t *testing.T) {
	t.Parallel()
	late := func(s *story) {
		s.answer(1, OutcomeUnknown)
		s.notFound(1)
		s.do(CancelRequested{RequestID: theRequest})
		s.answer(1, OutcomeAuthorized)
	}
	for want, arrange := range map[string]func(*story){
		OperationLatePayment: late,
		OperationAsked:       func(s *story) { s.answer(1, OutcomeAuthorized); s.ask(OperationReversal, nil) },
		OperationOrderPaid: func(s *story) {
			s.answer(1, OutcomeAuthorized)
			s.do(OrderAlreadyPaid{RequestID: theRequest, By: "pr_0other"})
		},
	} {
		s := paying(t)
		s.request().Attempts[0].Capture = false
		arrange(s)
		hold := s.operation(0)
		s.do(found(OperationCapture, 4900, "C1", "1", "somebody's"))
		s.done(hold.ID, OperationSucceeded, "")
		if op := s.operation(-1); op.Kind != OperationVoid || op.Amount.Minor != 4900 || op.Reason != want {
			t.Errorf("%s: the rest goes back as %+v", want, op)
		}
	}
}
