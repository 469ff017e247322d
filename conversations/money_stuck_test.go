package conversations

import "testing"

// TestBothGiveBack: somebody at the platform refunds what we are voiding, and
// quicker. It goes back once.
func TestBothGiveBack(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeCaptured)
	s.do(OrderAlreadyPaid{RequestID: theRequest, By: "pr_0other"})
	void := s.operation(0)
	s.do(found(OperationRefund, 14900, "R1", "1", "somebody's"))
	s.wantLifecycle(Refunded, "")
	s.done(void.ID, OperationFailed, ErrorSettled)
	if n := len(s.request().Operations); n != 2 {
		t.Fatalf("%d operations: it is given back twice", n)
	}
	s.wantLifecycle(Refunded, "")
	s.wantLeft(0, 0)
}

// TestRefundedIsUndoneThere: somebody at the platform calls refunds off, or
// takes more of what is held. The merchant has money then, and the lifecycle says
// so: an order whose payment is refunded could be taken over and paid again.
func TestRefundedIsUndoneThere(t *testing.T) {
	t.Parallel()
	t.Run("the only refund", func(t *testing.T) {
		t.Parallel()
		s := taking(t, OutcomeCaptured)
		refund := s.asked(OperationRefund, nil).ID
		s.done(refund, OperationSucceeded, "")
		s.wantLifecycle(Refunded, "")
		s.do(found(OperationVoid, 14900, "V1", "at-"+refund, "somebody's"))
		s.wantLifecycle(Paid, "")
		s.wantTotals(14900, 0, 0)
		s.wantTold("ZAR 149.00")
	})
	t.Run("one of two", func(t *testing.T) {
		t.Parallel()
		s := taking(t, OutcomeCaptured)
		first := s.asked(OperationRefund, zar(4900)).ID
		s.done(first, OperationSucceeded, "")
		s.done(s.asked(OperationRefund, nil).ID, OperationSucceeded, "")
		s.wantLifecycle(Refunded, "")
		s.do(found(OperationVoid, 4900, "V1", "at-"+first, "somebody's"))
		s.wantLifecycle(PartiallyRefunded, "")
		s.wantLeft(0, 4900)
		s.wantTold("ZAR 49.00", "ZAR 100.00")
	})
	t.Run("a capture after it", func(t *testing.T) {
		t.Parallel()
		s := taking(t, OutcomeAuthorized)
		s.done(s.asked(OperationCapture, zar(10000)).ID, OperationSucceeded, "")
		s.done(s.asked(OperationRefund, nil).ID, OperationSucceeded, "")
		s.wantLifecycle(Refunded, "")
		s.do(found(OperationCapture, 4900, "C2", "1", "somebody's"))
		s.wantLifecycle(PartiallyRefunded, "")
		s.wantLeft(0, 4900)
	})
	t.Run("the sale is voided after all", func(t *testing.T) {
		t.Parallel()
		s := taking(t, OutcomeCaptured)
		s.done(s.asked(OperationRefund, nil).ID, OperationSucceeded, "")
		s.do(found(OperationVoid, 14900, "V1", "1", "somebody's"))
		s.wantLifecycle(Refunded, "")
		s.wantLeft(0, 0)
	})
}
