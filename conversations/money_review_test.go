package conversations

import (
	"slices"
	"testing"
	"time"
)

// TestAcceptedReviewOfWhatIsNotHeld: what is reviewed before it is authorized
// holds nothing yet, so that the reviewers' word alone is no payment.
func TestAcceptedReviewOfWhatIsNotHeld(t *testing.T) {
	t.Parallel()
	s := paying(t)
	s.do(AttemptAnswered{RequestID: theRequest, Attempt: 1, Result: Result{Outcome: OutcomeInReview, PaymentID: "1", Reason: "DECISION_PROFILE_REVIEW"}})
	s.request().Attempts[0].Result.Amount = Money{Currency: "ZAR"} // as the platform tells it
	s.do(ReviewDecided{RequestID: theRequest, Attempt: 1, Accepted: true})
	s.wantLifecycle(InReview, "")
	if !slices.ContainsFunc(s.last.Outbox, func(e OutboxEntry) bool { return e.Kind == OutboxInquiry }) {
		t.Error("the platform is not asked what came of it")
	}
	// Given back all the same, it is for what the bank may hold by then.
	if op := s.asked(OperationReversal, nil); op.Amount != rand149(14900) {
		t.Errorf("%s is to be released", op.Amount)
	}
}

// TestDecisionOnWhatIsNotUnderReview: a decision ends a review and nothing
// else. It does not say for how much, nor under which number.
func TestDecisionOnWhatIsNotUnderReview(t *testing.T) {
	t.Parallel()
	for name, arrange := range map[string]func(*story){
		"in flight":  func(*story) {},
		"unsettled":  func(s *story) { s.answer(1, OutcomeUnknown) },
		"not found":  func(s *story) { s.answer(1, OutcomeUnknown); s.notFound(1) },
		"declined":   func(s *story) { s.answer(1, OutcomeDeclined) },
		"taken back": func(s *story) { s.answer(1, OutcomeReversed) },
	} {
		s := paying(t)
		arrange(s)
		was := s.request().Lifecycle
		s.do(ReviewDecided{RequestID: theRequest, Attempt: 1, Accepted: true})
		if r := s.request(); r.PaidBy != 0 || r.Lifecycle != was {
			t.Errorf("%s: it is %s, paid by attempt %d", name, r.Lifecycle, r.PaidBy)
		}
	}
}

// TestReviewedMoneyThatIsSettledIsRefunded: an agent gave up on a review that
// was accepted meanwhile. That money does not count, so nobody could ask for a
// refund of it.
func TestReviewedMoneyThatIsSettledIsRefunded(t *testing.T) {
	t.Parallel()
	s := paying(t)
	s.answer(1, OutcomeInReview)
	op := s.asked(OperationReversal, nil)
	s.answer(1, OutcomeCaptured)
	s.done(op.ID, OperationFailed, ErrorSettled)
	refund := s.operation(-1)
	if refund.Kind != OperationRefund || refund.State != OperationPending || refund.Amount != rand149(14900) {
		t.Fatalf("after a void that came too late: %+v", refund)
	}
	s.done(refund.ID, OperationSucceeded, "")
	s.wantLifecycle(Open, "")
}

// TestDecisionHastensWhatWaitsForIt: once the reviewers have decided, money that
// goes back anyway need not wait for the next hour: a void may come too late.
func TestDecisionHastensWhatWaitsForIt(t *testing.T) {
	t.Parallel()
	for _, accepted := range []bool{true, false} {
		s := paying(t)
		s.answer(1, OutcomeInReview)
		op := s.asked(OperationReversal, nil)
		s.done(op.ID, OperationPending, ErrorUnderReview)
		s.now = s.now.Add(time.Minute)
		s.do(ReviewDecided{RequestID: theRequest, Attempt: 1, Accepted: accepted})
		s.fire()
		if n := len(s.entries(op.ID)); n != 1 {
			t.Errorf("accepted %v: %d entries of the reversal, want one at once", accepted, n)
		}
	}
}

// TestVoidInTheNameOfAReversal: what is released while it is under review may
// have been taken by then, and is voided under the reversal's reference.
func TestVoidInTheNameOfAReversal(t *testing.T) {
	t.Parallel()
	for _, answered := range []bool{true, false} {
		s := paying(t)
		s.answer(1, OutcomeInReview)
		id := s.asked(OperationReversal, nil).ID
		s.answer(1, OutcomeCaptured)
		op, entry := s.begun(id)
		if answered {
			s.do(OperationAnswered{RequestID: theRequest, OperationID: op.ID, State: OperationSucceeded, ResultID: "V1", EntryID: entry})
		}
		s.do(found(OperationVoid, 14900, "V1", "1", id))
		s.do(found(OperationReversal, 14900, "V2", "1", id)) // the hold, after it
		if n := len(s.request().Operations); n != 1 || s.operation(0).State != OperationSucceeded {
			t.Errorf("answered %v: %d operations, the reversal %s", answered, n, s.operation(0).State)
		}
		s.wantLifecycle(Open, "")
	}
}
