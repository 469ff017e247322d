package conversations

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// taking is a story in which the money has just come: in a sale, or held.
func taking(t testing.TB, o Outcome) *story {
	s := paying(t)
	s.request().Attempts[0].Capture = o == OutcomeCaptured
	s.answer(1, o)
	return s
}

func zar(minor int64) *Money {
	m := rand149(minor)
	return &m
}

func (s *story) ask(kind OperationKind, amount *Money) {
	s.t.Helper()
	s.do(OperationRequested{RequestID: theRequest, Operation: kind, Amount: amount, Note: "returned", Agent: "zoe"})
}

// asked asks and wants it allowed; it returns the last operation.
func (s *story) asked(kind OperationKind, amount *Money) Operation {
	s.t.Helper()
	s.ask(kind, amount)
	s.wantAllowed()
	return s.operation(-1)
}

// operation returns one of the request's operations, from the end if negative.
func (s *story) operation(i int) Operation {
	s.t.Helper()
	all := s.request().Operations
	if i < 0 {
		i += len(all)
	}
	if i < 0 || i >= len(all) {
		s.t.Fatalf("there is no operation %d: %+v", i, all)
	}
	return all[i]
}

// entries returns the outbox entries of an operation.
func (s *story) entries(id string) []string {
	var out []string
	for _, entry := range slices.Sorted(maps.Keys(s.outbox)) {
		if s.outbox[entry].Operation == id {
			out = append(out, entry)
		}
	}
	return out
}

// begun starts an operation by its one entry, as a worker would, and returns
// what it may carry out.
func (s *story) begun(id string) (*Operation, string) {
	s.t.Helper()
	entries := s.entries(id)
	if len(entries) != 1 {
		s.t.Fatalf("operation %s has entries %v, want one", id, entries)
	}
	return s.do(OperationStarted{RequestID: theRequest, OperationID: id, EntryID: entries[0]}).Operation, entries[0]
}

// done carries an operation out as a worker would.
func (s *story) done(id string, state OperationState, word string) {
	s.t.Helper()
	op, entry := s.begun(id)
	if op == nil {
		s.t.Fatalf("operation %s may not be carried out", id)
	}
	s.do(OperationAnswered{RequestID: theRequest, OperationID: id, State: state, Error: word, ResultID: "at-" + id, EntryID: entry})
}

func (s *story) wantTotals(captured, reversed, refunded int64) {
	s.t.Helper()
	r := s.request()
	if r.CapturedMinor != captured || r.ReversedMinor != reversed || r.RefundedMinor != refunded {
		s.t.Fatalf("captured %d, reversed %d, refunded %d; want %d, %d, %d", r.CapturedMinor, r.ReversedMinor, r.RefundedMinor, captured, reversed, refunded)
	}
}

func (s *story) wantLeft(capturable, refundable int64) {
	s.t.Helper()
	if r := s.request(); r.Capturable() != capturable || r.Refundable() != refundable {
		s.t.Fatalf("capturable %d, refundable %d; want %d, %d", r.Capturable(), r.Refundable(), capturable, refundable)
	}
}

// told returns the amounts that the customer was told went back.
func (s *story) told() []string {
	var out []string
	for _, id := range s.request().Messages {
		if m := s.state.Messages[id]; m.Purpose == PurposeRefund {
			out = append(out, m.Parameters.Amount)
		}
	}
	return out
}

func (s *story) wantTold(want ...string) {
	s.t.Helper()
	if got := s.told(); !slices.Equal(got, want) {
		s.t.Fatalf("the customer was told of %v, want %v", got, want)
	}
}

// logged returns the types of the events about operations, with their reasons.
func (s *story) operationLog() []string {
	var out []string
	for _, e := range s.events {
		if e.Operation != nil {
			out = append(out, fmt.Sprintf("%s.%s %s", e.Type, e.Operation.Reason, e.Operation.State))
		}
	}
	return out
}

func (s *story) wantLogged(want ...string) {
	s.t.Helper()
	if got := s.operationLog(); !slices.Equal(got, want) {
		s.t.Fatalf("logged %q, want %q", got, want)
	}
}

func TestCaptureInParts(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeAuthorized)
	s.wantLeft(14900, 0)
	first := s.asked(OperationCapture, zar(10000))
	if first.PaymentID != "1" || first.By != "zoe" || first.Note != "returned" || first.Reason != OperationAsked {
		t.Errorf("operation %+v", first)
	}
	s.wantLifecycle(Authorized, "")
	s.wantLeft(4900, 0)
	s.ask(OperationCapture, zar(4901))
	s.wantRefused("beyond_capturable")
	s.ask(OperationReversal, nil)
	s.wantRefused("not_reversible")
	second := s.asked(OperationCapture, nil)
	if second.Amount != rand149(4900) {
		t.Errorf("all that is left is %v", second.Amount)
	}
	s.wantLeft(0, 0)
	s.ask(OperationCapture, nil)
	s.wantRefused("not_capturable")

	s.done(first.ID, OperationSucceeded, "")
	s.wantLifecycle(Paid, "")
	s.wantLeft(0, 10000)
	s.done(second.ID, OperationFailed, "EXCEEDS_AUTH_AMOUNT")
	s.wantLifecycle(Paid, "")
	s.wantLeft(4900, 10000)
	s.wantTotals(10000, 0, 0)
	s.done(s.asked(OperationCapture, nil).ID, OperationSucceeded, "")
	s.wantTotals(14900, 0, 0)
	s.wantLeft(0, 14900)
	if r := s.request(); r.Receipt.Captured || r.Receipt.Paid != rand149(14900) {
		t.Errorf("the receipt's facts changed: %+v", r.Receipt)
	}
	s.wantLogged("operation_asked.asked pending", "operation_asked.asked pending", "captured.asked succeeded", "operation_failed.asked failed",
		"operation_asked.asked pending", "captured.asked succeeded")
	s.wantTold()

	// More than one capture cannot be voided; a refund takes from both.
	s.ask(OperationReversal, nil)
	s.wantRefused("not_reversible")
	s.ask(OperationRefund, zar(12000))
	s.wantAllowed()
	big, small := s.operation(-2), s.operation(-1)
	if big.PaymentID != "at-"+first.ID || big.Amount.Minor != 10000 || small.Amount.Minor != 2000 || small.PartOf != big.ID || big.PartOf != "" {
		t.Errorf("split into %+v and %+v", big, small)
	}
	s.wantLeft(0, 2900)
	s.done(big.ID, OperationSucceeded, "")
	s.wantLifecycle(PartiallyRefunded, "")
	s.wantTold()
	s.done(small.ID, OperationSucceeded, "")
	s.wantTold("ZAR 120.00")
	if rest := s.asked(OperationRefund, nil); rest.PaymentID != small.PaymentID || rest.Amount.Minor != 2900 {
		t.Errorf("the rest is %+v", rest)
	}
	s.done(s.operation(-1).ID, OperationSucceeded, "")
	s.wantLifecycle(Refunded, "")
	s.wantTotals(14900, 0, 14900)
	s.wantTold("ZAR 120.00", "ZAR 29.00")
}

// TestPartOfASplitFails: the customer is told what really went back.
func TestPartOfASplitFails(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeAuthorized)
	for _, minor := range []int64{10000, 4900} {
		s.done(s.asked(OperationCapture, zar(minor)).ID, OperationSucceeded, "")
	}
	s.asked(OperationRefund, nil)
	one, two := s.operation(-2).ID, s.operation(-1).ID
	s.done(one, OperationSucceeded, "")
	s.done(two, OperationFailed, "ACCOUNT_NOT_ALLOWED_CREDIT")
	s.wantTold("ZAR 100.00")
	s.wantLifecycle(PartiallyRefunded, "")
	s.wantLeft(0, 4900)
	// It was done all the same: then it is said, and counted, once.
	s.do(OperationAnswered{RequestID: theRequest, OperationID: two, State: OperationSucceeded, EntryID: "late"})
	s.do(OperationAnswered{RequestID: theRequest, OperationID: two, State: OperationSucceeded, EntryID: "late"})
	s.wantTold("ZAR 100.00", "ZAR 49.00")
	s.wantLifecycle(Refunded, "")
	s.wantTotals(14900, 0, 14900)
}

// TestRefundsInFullWaitForCaptures: what a capture still takes is not refunded.
func TestRefundsInFullWaitForCaptures(t *testing.T) {
	t.Parallel()
	for _, state := range []OperationState{OperationSucceeded, OperationFailed} {
		s := taking(t, OutcomeAuthorized)
		s.done(s.asked(OperationCapture, zar(10000)).ID, OperationSucceeded, "")
		capture := s.asked(OperationCapture, nil).ID
		s.done(s.asked(OperationRefund, nil).ID, OperationSucceeded, "")
		s.wantLifecycle(PartiallyRefunded, "")
		s.done(capture, state, "X")
		if state == OperationSucceeded {
			s.wantLifecycle(PartiallyRefunded, "")
			s.wantLeft(0, 4900)
		} else {
			s.wantLifecycle(Refunded, "")
			s.wantLeft(0, 0)
		}
	}
}

func TestRefundExpectations(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeCaptured)
	refund := func(amount, expected *Money) {
		s.do(OperationRequested{RequestID: theRequest, Operation: OperationRefund, Amount: amount, ExpectedRefundable: expected})
	}
	refund(zar(100), zar(14899))
	s.wantRefused("refundable_changed")
	if got := s.last.Refused.Message; got != "ZAR 149.00 can still be refunded, not ZAR 148.99; nothing was done" {
		t.Errorf("it says %q", got)
	}
	refund(zar(100), zar(14900))
	s.wantAllowed()
	refund(zar(100), zar(14900))
	s.wantRefused("refundable_changed") // what is under way counts
	refund(zar(14801), nil)
	s.wantRefused("beyond_refundable")
	refund(nil, zar(14800))
	s.wantAllowed()
	refund(nil, nil)
	s.wantRefused("not_refundable")
}

func TestOperationsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeCaptured)
	long := make([]byte, 201)
	for i := range long {
		long[i] = 'x'
	}
	for name, tt := range map[string]struct {
		e             OperationRequested
		field, reason string
	}{
		"another currency":         {OperationRequested{Operation: OperationRefund, Amount: &Money{Minor: 1, Currency: "USD"}}, "amount.currency", "wrong_currency"},
		"expected in another":      {OperationRequested{Operation: OperationRefund, ExpectedRefundable: &Money{Minor: 1, Currency: "USD"}}, "expected_refundable.currency", "wrong_currency"},
		"nothing":                  {OperationRequested{Operation: OperationRefund, Amount: zar(0)}, "amount", ""},
		"less than nothing":        {OperationRequested{Operation: OperationCapture, Amount: zar(-1)}, "amount", ""},
		"a reversal in part":       {OperationRequested{Operation: OperationReversal, Amount: zar(1)}, "amount", ""},
		"a capture with a refund":  {OperationRequested{Operation: OperationCapture, ExpectedRefundable: zar(1)}, "expected_refundable", ""},
		"a void":                   {OperationRequested{Operation: OperationVoid}, "operation", ""},
		"a long reason":            {OperationRequested{Operation: OperationRefund, Note: string(long)}, "reason", ""},
		"a reason with line break": {OperationRequested{Operation: OperationRefund, Note: "a\nb"}, "reason", ""},
	} {
		tt.e.RequestID = theRequest
		_, err := s.try(tt.e)
		var refused *Error
		if !errors.As(err, &refused) || refused.Code != CodeInvalid || refused.Field != tt.field || refused.Reason != tt.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(s.request().Operations); n != 0 {
		t.Errorf("%d operations", n)
	}
	for l, word := range map[Lifecycle]string{Open: "open", Processing: "processing", Expired: "expired"} {
		s := createdStory(t)
		s.request().Lifecycle = l
		for kind, reason := range map[OperationKind]string{OperationCapture: "not_capturable", OperationReversal: "not_reversible", OperationRefund: "not_refundable"} {
			s.ask(kind, nil)
			s.wantRefused(reason)
			if want := "the payment request is " + word; !slices.Contains([]string{want}, s.last.Refused.Message[len(s.last.Refused.Message)-len(want):]) {
				t.Errorf("it says %q", s.last.Refused.Message)
			}
		}
	}
}

func TestReverse(t *testing.T) {
	t.Parallel()
	t.Run("held", func(t *testing.T) {
		s := taking(t, OutcomeAuthorized)
		op := s.asked(OperationReversal, nil)
		if op.Kind != OperationReversal || op.Amount != rand149(14900) || op.PaymentID != "1" {
			t.Errorf("operation %+v", op)
		}
		s.wantLifecycle(Authorized, ReasonReversing)
		s.wantLeft(0, 0)
		for kind, reason := range map[OperationKind]string{OperationCapture: "not_capturable", OperationReversal: "not_reversible"} {
			s.ask(kind, nil)
			s.wantRefused(reason)
		}
		s.done(op.ID, OperationSucceeded, "")
		s.wantLifecycle(Reversed, "")
		s.wantTotals(0, 14900, 0)
		s.wantTold("ZAR 149.00")
		s.wantLogged("operation_asked.asked pending", "reversed.asked succeeded")
	})
	t.Run("a sale", func(t *testing.T) {
		s := taking(t, OutcomeCaptured)
		op := s.asked(OperationReversal, nil)
		if op.Kind != OperationVoid || op.PaymentID != "1" {
			t.Errorf("operation %+v", op)
		}
		s.ask(OperationRefund, zar(1))
		s.wantRefused("not_refundable")
		s.done(op.ID, OperationSucceeded, "")
		s.wantLifecycle(Reversed, "")
		s.wantTotals(0, 14900, 0)
		s.wantLeft(0, 0)
	})
	t.Run("the only capture", func(t *testing.T) {
		s := taking(t, OutcomeAuthorized)
		capture := s.asked(OperationCapture, zar(10000))
		s.done(capture.ID, OperationSucceeded, "")
		op := s.asked(OperationReversal, nil)
		if op.Kind != OperationVoid || op.PaymentID != "at-"+capture.ID || op.Amount != rand149(10000) {
			t.Errorf("operation %+v", op)
		}
		s.done(op.ID, OperationSucceeded, "")
		s.wantLifecycle(Reversed, "")
		s.wantTotals(0, 10000, 0)
		s.wantLeft(0, 0)
		s.wantTold("ZAR 100.00")
	})
	t.Run("after a refund", func(t *testing.T) {
		s := taking(t, OutcomeCaptured)
		s.done(s.asked(OperationRefund, zar(1)).ID, OperationSucceeded, "")
		s.ask(OperationReversal, nil)
		s.wantRefused("not_reversible")
	})
	t.Run("too late", func(t *testing.T) {
		s := taking(t, OutcomeCaptured)
		s.done(s.asked(OperationReversal, nil).ID, OperationFailed, ErrorSettled)
		s.wantLifecycle(Paid, "")
		s.wantLogged("operation_asked.asked pending", "operation_failed.asked failed")
		s.ask(OperationReversal, nil)
		s.wantRefused("not_reversible")
		if got := s.last.Refused.Message; got != "the money is on its way to the merchant already; refund it" {
			t.Errorf("it says %q", got)
		}
		s.done(s.asked(OperationRefund, nil).ID, OperationSucceeded, "")
		s.wantLifecycle(Refunded, "")
	})
	t.Run("refused for another reason: asked again", func(t *testing.T) {
		s := taking(t, OutcomeAuthorized)
		s.done(s.asked(OperationReversal, nil).ID, OperationFailed, "PROCESSOR_DOWN")
		s.wantLifecycle(Authorized, "")
		s.wantLeft(14900, 0)
		s.done(s.asked(OperationReversal, nil).ID, OperationSucceeded, "")
		s.wantLifecycle(Reversed, "")
	})
}

// TestVoidTooLateIsRefunded: what we have to give back goes back all the same.
func TestVoidTooLateIsRefunded(t *testing.T) {
	t.Parallel()
	t.Run("second success", func(t *testing.T) {
		s := paying(t)
		s.answer(1, OutcomeUnknown)
		s.notFound(1)
		s.do(Extended{RequestID: theRequest})
		s.start()
		s.answer(2, OutcomeCaptured)
		s.answer(1, OutcomeCaptured)
		s.done(s.operation(0).ID, OperationFailed, ErrorSettled)
		if op := s.operation(1); op.Kind != OperationRefund || op.PaymentID != "1" || op.Attempt != 1 || op.Reason != OperationSecondSuccess {
			t.Errorf("operation %+v", op)
		}
		s.wantLeft(0, 14900) // of the other payment
		s.done(s.operation(1).ID, OperationSucceeded, "")
		s.wantLifecycle(Paid, "")
		s.wantTotals(14900, 0, 0)
		s.wantTold("ZAR 149.00")
		s.wantLogged("reversal_started.second_success pending", "reversal_started.second_success pending", "refunded.second_success succeeded")
		if got := s.request().Attempt(1).State; got != AttemptReversed {
			t.Errorf("attempt 1 is %s", got)
		}
	})
	t.Run("late money", func(t *testing.T) {
		s := paying(t)
		s.state.Merchant.LatePayment.ReverseAfterExpiry = true
		s.answer(1, OutcomeUnknown)
		s.notFound(1)
		s.fire()
		s.answer(1, OutcomeCaptured)
		s.wantLifecycle(Paid, ReasonReversing)
		s.done(s.operation(0).ID, OperationFailed, ErrorSettled)
		s.wantLifecycle(Paid, ReasonReversing)
		s.ask(OperationRefund, nil)
		s.wantRefused("not_refundable")
		s.done(s.operation(1).ID, OperationSucceeded, "")
		s.wantLifecycle(Refunded, "")
		s.wantTold("ZAR 149.00")
	})
}

// TestWhatCouldNotGoBackCanBeTriedAgain by the merchant, who sees it.
func TestWhatCouldNotGoBackCanBeTriedAgain(t *testing.T) {
	t.Parallel()
	t.Run("a hold", func(t *testing.T) {
		s := paying(t)
		s.answer(1, OutcomePartial)
		s.ask(OperationReversal, nil)
		s.wantRefused("not_reversible")
		s.done(s.operation(0).ID, OperationFailed, "INVALID_AMOUNT")
		s.wantLifecycle(Processing, "")
		if !slices.Contains(Allowed(s.state.Merchant, s.state.Contact, s.request(), s.now), "reverse") {
			t.Error("nobody is offered to try again")
		}
		op := s.asked(OperationReversal, nil)
		if op.Reason != OperationPartial || op.By != "zoe" {
			t.Errorf("operation %+v", op)
		}
		s.done(op.ID, OperationSucceeded, "")
		s.wantLifecycle(Open, "")
		s.wantTold()
		s.wantLogged("reversal_started.partial pending", "reversal_failed.partial failed", "operation_asked.partial pending", "declined.partial succeeded")
	})
	t.Run("a second success, before the payment itself", func(t *testing.T) {
		s := paying(t)
		s.answer(1, OutcomeUnknown)
		s.notFound(1)
		s.do(Extended{RequestID: theRequest})
		s.start()
		s.answer(2, OutcomeCaptured)
		s.answer(1, OutcomeCaptured)
		s.done(s.operation(0).ID, OperationFailed, "X")
		if op := s.asked(OperationReversal, nil); op.Attempt != 1 || op.Reason != OperationSecondSuccess {
			t.Errorf("operation %+v", op)
		}
		s.wantLifecycle(Paid, "")
		s.done(s.operation(1).ID, OperationSucceeded, "")
		s.wantTotals(14900, 0, 0)
		if op := s.asked(OperationReversal, nil); op.Attempt != 2 || op.Reason != OperationAsked {
			t.Errorf("operation %+v", op)
		}
	})
}

// TestUnknownStaysUnknown: no number of tries says anything about money.
func TestUnknownStaysUnknown(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeCaptured)
	op := s.asked(OperationRefund, zar(100)).ID
	var waits []time.Duration
	for range 60 {
		s.done(op, OperationUnsettled, "no_answer")
		due := *s.operation(0).DueAt
		waits = append(waits, due.Sub(s.now))
		s.now = due
		s.fire()
	}
	got := s.operation(0)
	if got.State != OperationUnsettled || got.Tries != 60 || got.SentBy == nil {
		t.Errorf("operation %+v", got)
	}
	if waits[0] != 5*time.Second || waits[1] != 10*time.Second || waits[59] != time.Hour {
		t.Errorf("it waits %v", waits)
	}
	s.wantLeft(0, 14800) // for ever reserved
	// A try that surely did nothing says nothing about the earlier ones.
	s.done(op, OperationPending, "HTTP_401")
	if got := s.operation(0).State; got != OperationUnsettled {
		t.Errorf("the operation is %s", got)
	}
	s.after(time.Hour)
	s.done(op, OperationSucceeded, "")
	s.wantTotals(14900, 0, 100)
	s.wantLogged("operation_asked.asked pending", "operation_unknown.asked unknown", "refunded.asked succeeded")
	if len(s.timers) != 0 {
		t.Errorf("timers %v", s.timers)
	}
}

func TestUnderReviewIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := paying(t)
	s.answer(1, OutcomeInReview)
	s.do(ReviewDecided{RequestID: theRequest, Attempt: 1})
	for range 5 {
		s.done(s.operation(0).ID, OperationPending, ErrorUnderReview)
		if op := s.operation(0); op.State != OperationPending || op.DueAt.Sub(s.now) != time.Hour {
			t.Fatalf("operation %+v", op)
		}
		s.after(time.Hour)
	}
	s.done(s.operation(0).ID, OperationSucceeded, "")
	s.wantLifecycle(Open, "")
}

// TestOneProcessCalls: between a start and its answer nobody else calls, and an
// entry that comes again waits until no call can come through any more.
func TestOneProcessCalls(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeCaptured)
	id := s.asked(OperationRefund, nil).ID
	op, first := s.begun(id)
	if op == nil || op.State != OperationPending || !op.SendBy.Equal(s.now.Add(10*time.Second)) || op.Tries != 1 {
		t.Fatalf("started %+v", op)
	}
	// The process dies, or is stopped. Its entry is claimed at once by another.
	if again := s.do(OperationStarted{RequestID: theRequest, OperationID: id, EntryID: first}).Operation; again != nil {
		t.Fatalf("two processes may call: %+v", again)
	}
	if len(s.entries(id)) != 0 {
		t.Error("the entry is not put off")
	}
	s.after(2*time.Minute + 9*time.Second)
	if len(s.entries(id)) != 0 {
		t.Error("it comes back while a call may be on its way")
	}
	s.after(time.Second)
	op, second := s.begun(id)
	if op == nil || op.State != OperationUnsettled || op.Tries != 2 || !op.SentBy.Equal(noon.Add(2*time.Minute+10*time.Second)) {
		t.Fatalf("started %+v", op)
	}
	if got := s.operation(0); got.State != OperationUnsettled || !got.SendBy.Equal(s.now.Add(10*time.Second)) {
		t.Errorf("operation %+v", got)
	}
	// The first wakes up: it was not to call any more, and what it says of its
	// own try means nothing for the second.
	for _, state := range []OperationState{OperationPending, OperationUnsettled, OperationFailed} {
		s.do(OperationAnswered{RequestID: theRequest, OperationID: id, State: state, EntryID: first})
		if got := s.operation(0); got.State != OperationUnsettled || got.SendBy == nil || got.DueAt != nil {
			t.Fatalf("after %s of the first process: %+v", state, got)
		}
	}
	s.do(OperationAnswered{RequestID: theRequest, OperationID: id, State: OperationUnsettled, EntryID: second})
	if got := s.operation(0); got.SendBy != nil || got.DueAt == nil || !got.SentBy.Equal(s.now.Add(2*time.Minute)) {
		t.Errorf("operation %+v", got)
	}
	// That it was done is believed of anyone.
	s.do(OperationAnswered{RequestID: theRequest, OperationID: id, State: OperationSucceeded, ResultID: "R", EntryID: first})
	s.wantLifecycle(Refunded, "")
	if got := s.operation(0); got.ResultID != "R" || got.DueAt != nil || got.SentBy != nil || len(s.timers) != 0 {
		t.Errorf("operation %+v, timers %v", got, s.timers)
	}
	s.wantLogged("operation_asked.asked pending", "operation_unknown.asked unknown", "refunded.asked succeeded")
	// An entry that is left over has nothing to do.
	s.outbox["stale"] = OutboxEntry{Kind: OutboxOperation, RequestID: theRequest, Operation: id}
	if op := s.do(OperationStarted{RequestID: theRequest, OperationID: id, EntryID: "stale"}).Operation; op != nil || len(s.entries(id)) != 0 {
		t.Errorf("started %+v, entries %v", op, s.entries(id))
	}
}

// TestAnEntryStartsOnce: an entry that its process kept for too long is replaced,
// so that no answer of the first start is taken for one of the second.
func TestAnEntryStartsOnce(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeCaptured)
	id := s.asked(OperationRefund, nil).ID
	_, first := s.begun(id)
	s.now = s.now.Add(time.Hour)
	if op := s.do(OperationStarted{RequestID: theRequest, OperationID: id, EntryID: first}).Operation; op != nil {
		t.Fatalf("the entry starts it twice: %+v", op)
	}
	op, second := s.begun(id)
	if op == nil || second == first || op.State != OperationUnsettled || !op.SentBy.Equal(noon.Add(2*time.Minute+10*time.Second)) {
		t.Fatalf("started %+v by %s", op, second)
	}
	s.do(OperationAnswered{RequestID: theRequest, OperationID: id, State: OperationPending, EntryID: first})
	if s.operation(0).SendBy == nil {
		t.Error("an answer of the first start ended the second")
	}
}

// TestReversalNeedNotWait: the platform refuses the second one.
func TestReversalNeedNotWait(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeAuthorized)
	id := s.asked(OperationReversal, nil).ID
	s.begun(id)
	_, entry := s.begun(id)
	if entry == "" || len(s.entries(id)) != 0 {
		t.Fatal("it is not put off while the first process may call")
	}
	s.after(10 * time.Second)
	if op, _ := s.begun(id); op == nil || op.State != OperationUnsettled {
		t.Errorf("started %+v", op)
	}
}

// TestHolderPaidBesideOperations: what is given back is never more than is
// left, and what operations under way may bring goes back after them.
func TestHolderPaidBesideOperations(t *testing.T) {
	t.Parallel()
	holderPaid := OrderAlreadyPaid{RequestID: theRequest, By: "pr_0other"}
	for _, state := range []OperationState{OperationSucceeded, OperationFailed} {
		t.Run("a refund under way "+string(state), func(t *testing.T) {
			s := taking(t, OutcomeCaptured)
			refund := s.asked(OperationRefund, zar(4900)).ID
			s.do(holderPaid)
			s.wantAllowed()
			if op := s.operation(-1); op.Kind != OperationRefund || op.Amount.Minor != 10000 || op.Reason != OperationOrderPaid {
				t.Fatalf("operation %+v", op)
			}
			s.done(s.operation(-1).ID, OperationSucceeded, "")
			s.wantLifecycle(PartiallyRefunded, ReasonReversing)
			s.done(refund, state, "X")
			if state == OperationFailed {
				if op := s.operation(-1); op.Amount.Minor != 4900 || op.Reason != OperationOrderPaid {
					t.Fatalf("the rest does not go back: %+v", op)
				}
				s.done(s.operation(-1).ID, OperationSucceeded, "")
			}
			s.wantLifecycle(Refunded, "")
			s.wantTotals(14900, 0, 14900)
		})
		t.Run("a capture under way "+string(state), func(t *testing.T) {
			s := taking(t, OutcomeAuthorized)
			capture := s.asked(OperationCapture, zar(10000)).ID
			s.do(holderPaid)
			if n := len(s.request().Operations); n != 1 {
				t.Fatalf("%d operations: nobody knows what to reverse", n)
			}
			s.ask(OperationCapture, nil)
			s.wantRefused("not_capturable")
			s.done(capture, state, "X")
			back := s.operation(-1)
			if want := map[OperationState]OperationKind{OperationSucceeded: OperationVoid, OperationFailed: OperationReversal}[state]; back.Kind != want {
				t.Fatalf("operation %+v", back)
			}
			s.done(back.ID, OperationSucceeded, "")
			s.wantLifecycle(Reversed, "")
		})
	}
	t.Run("partly refunded", func(t *testing.T) {
		s := taking(t, OutcomeCaptured)
		s.done(s.asked(OperationRefund, zar(4900)).ID, OperationSucceeded, "")
		s.do(holderPaid)
		s.wantAllowed()
		s.do(holderPaid)
		if n := len(s.request().Operations); n != 2 {
			t.Fatalf("%d operations, want two", n)
		}
		s.done(s.operation(1).ID, OperationFailed, "X")
		s.wantLifecycle(PartiallyRefunded, "") // a person looks
		s.done(s.asked(OperationRefund, nil).ID, OperationSucceeded, "")
		s.wantLifecycle(Refunded, "")
	})
}

func TestReviewEndsByItself(t *testing.T) {
	t.Parallel()
	reviewing := func(t *testing.T) *story {
		s := paying(t)
		s.state.Merchant.ReviewWithin = 100 * time.Minute
		s.answer(1, OutcomeInReview)
		return s
	}
	t.Run("asked after, then given back", func(t *testing.T) {
		t.Parallel()
		s := reviewing(t)
		if by := s.request().Attempts[0].ReviewBy; by == nil || !by.Equal(noon.Add(100*time.Minute)) {
			t.Fatalf("review by %v", by)
		}
		var asked []time.Duration
		for s.request().Attempts[0].State == AttemptInReview {
			s.now = *s.request().Attempts[0].AskAt
			s.fire()
			for id, e := range s.outbox {
				if e.Kind == OutboxInquiry {
					asked = append(asked, s.now.Sub(noon))
					s.do(AttemptAnswered{RequestID: theRequest, Attempt: 1, Asked: true, EntryID: id, Result: Result{Outcome: OutcomeInReview}})
				}
			}
		}
		if m := time.Minute; !slices.Equal(asked, []time.Duration{30 * m, 60 * m, 90 * m}) || s.now.Sub(noon) != 100*m {
			t.Errorf("asked after %v, given back after %v", asked, s.now.Sub(noon))
		}
		s.wantLifecycle(InReview, "")
		s.wantLogged("reversal_started.review_timed_out pending")
		// Whatever the reviewers say now: it is given back, once.
		s.do(ReviewDecided{RequestID: theRequest, Attempt: 1, Accepted: true})
		s.do(ReviewDecided{RequestID: theRequest, Attempt: 1})
		s.answer(1, OutcomeCaptured)
		if n := len(s.request().Operations); n != 1 || s.request().PaidBy != 0 {
			t.Fatalf("%d operations, paid by %d", n, s.request().PaidBy)
		}
		if got := s.request().Attempts[0].Result.Outcome; got != OutcomeCaptured {
			t.Errorf("the platform is not told to void what was taken: %s", got)
		}
		s.done(s.operation(0).ID, OperationSucceeded, "")
		s.wantLifecycle(Open, "")
		s.wantTold()
	})
	t.Run("accepted in time", func(t *testing.T) {
		t.Parallel()
		s := reviewing(t)
		s.do(ReviewDecided{RequestID: theRequest, Attempt: 1, Accepted: true})
		s.after(5 * time.Hour)
		s.wantLifecycle(Paid, "")
		if len(s.request().Operations) != 0 || len(s.timers) != 0 {
			t.Errorf("operations %+v, timers %v", s.request().Operations, s.timers)
		}
	})
	t.Run("no end of the merchant's", func(t *testing.T) {
		t.Parallel()
		s := paying(t)
		s.answer(1, OutcomeInReview)
		for range 200 {
			s.after(time.Hour)
		}
		s.wantLifecycle(InReview, "")
	})
	t.Run("the agent decides", func(t *testing.T) {
		t.Parallel()
		s := reviewing(t)
		op := s.asked(OperationReversal, nil)
		if op.Kind != OperationReversal || op.Reason != OperationAsked || op.By != "zoe" {
			t.Errorf("operation %+v", op)
		}
		s.ask(OperationReversal, nil)
		s.wantRefused("not_reversible")
		s.do(ReviewDecided{RequestID: theRequest, Attempt: 1, Accepted: true})
		s.wantLifecycle(InReview, "")
		s.done(op.ID, OperationFailed, "X")
		s.done(s.asked(OperationReversal, nil).ID, OperationFailed, ErrorSettled)
		s.wantLifecycle(InReview, "")
		s.done(s.operation(-1).ID, OperationSucceeded, "") // the refund that follows by itself
		s.wantLifecycle(Open, "")
	})
}

func TestNewsOfAnAttempt(t *testing.T) {
	t.Parallel()
	news := AttemptNotified{RequestID: theRequest, Attempt: 1}
	for name, tt := range map[string]struct {
		arrange func(*story)
		asks    bool
	}{
		"sending":           {func(*story) {}, false},
		"sending too long":  {func(s *story) { s.now = s.now.Add(11 * time.Second) }, true},
		"unsettled":         {func(s *story) { s.answer(1, OutcomeUnknown) }, true},
		"in review":         {func(s *story) { s.answer(1, OutcomeInReview) }, true},
		"not found":         {func(s *story) { s.answer(1, OutcomeUnknown); s.notFound(1) }, true},
		"being reversed":    {func(s *story) { s.answer(1, OutcomeRiskDeclined) }, true},
		"with the customer": {func(s *story) { s.answer(1, OutcomeAuthenticationPending) }, false},
		"captured":          {func(s *story) { s.answer(1, OutcomeCaptured) }, false},
		"declined":          {func(s *story) { s.answer(1, OutcomeDeclined) }, false},
	} {
		s := paying(t)
		tt.arrange(s)
		s.last = Effects{}
		s.do(news)
		if got := slices.ContainsFunc(s.last.Outbox, func(e OutboxEntry) bool { return e.Kind == OutboxInquiry }); got != tt.asks {
			t.Errorf("%s: the platform is asked %v, want %v", name, got, tt.asks)
		}
		if len(s.request().Refusals) != 0 {
			t.Errorf("%s: refused %+v", name, s.request().Refusals)
		}
	}
	if _, err := paying(t).try(AttemptNotified{RequestID: theRequest, Attempt: 7}); CodeOf(err) != CodeNotFound {
		t.Errorf("of an attempt that is not there: %v", err)
	}
}

// found is news of an operation at the platform.
func found(kind OperationKind, minor int64, id, on, code string) OperationFound {
	return OperationFound{RequestID: theRequest, Attempt: 1, Operation: kind, Amount: rand149(minor), PlatformID: id, PaymentID: on, Code: code, At: noon}
}

func TestFoundIsKnownOnce(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeCaptured)
	for range 3 {
		s.do(found(OperationRefund, 4900, "R1", "1", "somebody's"))
	}
	s.wantTotals(14900, 0, 4900)
	s.wantLifecycle(PartiallyRefunded, "")
	s.wantTold("ZAR 49.00")
	if op := s.operation(0); !op.Elsewhere || op.Reason != OperationElsewhere || op.State != OperationSucceeded || !op.StartedAt.Equal(noon) || len(s.request().Operations) != 1 {
		t.Errorf("operation %+v", op)
	}
	s.do(found(OperationRefund, 10000, "R2", "1", "somebody's"))
	s.wantLifecycle(Refunded, "")
	s.wantLogged("refunded.elsewhere succeeded", "refunded.elsewhere succeeded")
	for _, bad := range []OperationFound{found(OperationRefund, 1, "", "1", ""), found("gift", 1, "R", "1", ""), {RequestID: theRequest, Attempt: 1, Operation: OperationRefund, PlatformID: "R", Amount: Money{1, "USD"}}} {
		if _, err := s.try(bad); CodeOf(err) != CodeInvalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestFoundIsOurs(t *testing.T) {
	t.Parallel()
	t.Run("by its reference", func(t *testing.T) {
		s := taking(t, OutcomeCaptured)
		id := s.asked(OperationRefund, zar(4900)).ID
		s.begun(id)
		s.do(found(OperationRefund, 4900, "R1", "1", id))
		if op := s.operation(0); op.State != OperationSucceeded || op.ResultID != "R1" || op.Elsewhere {
			t.Errorf("operation %+v", op)
		}
		// A second transaction in its name is a second refund, and shown as one.
		s.do(found(OperationRefund, 4900, "R2", "1", id))
		s.wantTotals(14900, 0, 9800)
		s.do(found(OperationRefund, 4900, "R1", "1", id))
		s.wantTotals(14900, 0, 9800)
	})
	t.Run("that we took for failed", func(t *testing.T) {
		s := taking(t, OutcomeCaptured)
		id := s.asked(OperationRefund, zar(4900)).ID
		s.done(id, OperationFailed, "X")
		s.request().Operations[0].ResultID = ""
		s.do(found(OperationRefund, 4900, "R1", "1", id))
		s.wantTotals(14900, 0, 4900)
		s.wantLifecycle(PartiallyRefunded, "")
	})
	t.Run("unknown, of the same amount", func(t *testing.T) {
		s := taking(t, OutcomeCaptured)
		id := s.asked(OperationRefund, zar(4900)).ID
		s.do(found(OperationRefund, 4900, "R0", "1", "")) // ours has not been sent
		if len(s.request().Operations) != 2 {
			t.Fatalf("operations %+v", s.request().Operations)
		}
		op, entry := s.begun(id)
		s.do(OperationAnswered{RequestID: theRequest, OperationID: op.ID, State: OperationUnsettled, EntryID: entry})
		s.do(found(OperationRefund, 4800, "R1", "1", ""))
		s.do(found(OperationRefund, 4900, "R2", "1", ""))
		if got := s.operation(0); got.State != OperationSucceeded || got.ResultID != "R2" {
			t.Errorf("operation %+v", got)
		}
		s.wantTotals(14900, 0, 4900+4800+4900)
	})
	t.Run("a reversal, which is done once", func(t *testing.T) {
		s := taking(t, OutcomeAuthorized)
		id := s.asked(OperationReversal, nil).ID
		s.do(found(OperationReversal, 14900, "V1", "1", "1042"))
		s.wantLifecycle(Reversed, "")
		if len(s.request().Operations) != 1 || s.operation(0).ID != id {
			t.Errorf("operations %+v", s.request().Operations)
		}
		s.wantTold("ZAR 149.00")
	})
	t.Run("the release after a void", func(t *testing.T) {
		for _, code := range []string{theRequest + "-op1", theRequest + "-1"} {
			s := taking(t, OutcomeCaptured)
			id := s.asked(OperationReversal, nil).ID
			s.done(id, OperationSucceeded, "")
			s.do(found(OperationReversal, 14900, "V2", "1", code))
			s.do(found(OperationReversal, 14900, "V2", "1", code))
			s.wantTotals(0, 14900, 0)
			s.wantTold("ZAR 149.00")
			if s.request().Unbalanced {
				t.Error("it looks like too much")
			}
		}
	})
	t.Run("the sale itself, captured when reviewers accepted it", func(t *testing.T) {
		s := paying(t)
		s.answer(1, OutcomeInReview)
		s.do(found(OperationCapture, 14900, "C", "1", theRequest+"-1"))
		if !slices.ContainsFunc(s.last.Outbox, func(e OutboxEntry) bool { return e.Kind == OutboxInquiry }) || len(s.request().Operations) != 0 {
			t.Errorf("not asked after: %+v", s.request().Operations)
		}
		s.answer(1, OutcomeCaptured)
		s.do(found(OperationCapture, 14900, "C", "1", theRequest+"-1"))
		s.wantTotals(14900, 0, 0)
	})
}

// TestFoundInAnyOrder: what was done before we knew of what it was done with.
func TestFoundInAnyOrder(t *testing.T) {
	t.Parallel()
	capture, refund := found(OperationCapture, 10000, "C1", "1", "x"), found(OperationRefund, 4000, "R1", "C1", "x")
	t.Run("a refund before its capture", func(t *testing.T) {
		s := taking(t, OutcomeAuthorized)
		s.do(refund)
		s.wantLifecycle(Authorized, "")
		s.wantTotals(0, 0, 0)
		s.wantLeft(14900, 0)
		if !s.request().Unbalanced {
			t.Error("nobody is told that something is missing")
		}
		s.do(capture)
		s.wantLifecycle(PartiallyRefunded, "")
		s.wantTotals(10000, 0, 4000)
		s.wantLeft(4900, 6000)
		if s.request().Unbalanced {
			t.Error("it is still said that something is missing")
		}
		if op := s.asked(OperationRefund, nil); op.PaymentID != "C1" || op.Amount.Minor != 6000 {
			t.Errorf("operation %+v", op)
		}
	})
	t.Run("a capture and its refund in full", func(t *testing.T) {
		s := taking(t, OutcomeAuthorized)
		s.do(found(OperationRefund, 10000, "R1", "C1", "x"))
		s.do(capture)
		s.wantLifecycle(Refunded, "")
	})
	t.Run("both before the money itself", func(t *testing.T) {
		s := paying(t)
		s.request().Attempts[0].Capture = false
		s.answer(1, OutcomeUnknown)
		s.do(refund)
		s.do(capture)
		s.wantLifecycle(Processing, "")
		s.wantTotals(0, 0, 0)
		if !slices.ContainsFunc(s.last.Outbox, func(e OutboxEntry) bool { return e.Kind == OutboxInquiry }) {
			t.Error("nobody asks after the money")
		}
		s.answer(1, OutcomeAuthorized)
		s.wantLifecycle(PartiallyRefunded, "")
		s.wantTotals(10000, 0, 4000)
	})
	t.Run("a void and its capture", func(t *testing.T) {
		s := taking(t, OutcomeAuthorized)
		s.do(capture)
		s.do(found(OperationCapture, 2000, "C2", "1", "x"))
		s.do(found(OperationVoid, 2000, "V2", "C2", "x"))
		s.wantLifecycle(Paid, "")
		s.wantTotals(10000, 2000, 0)
		s.do(found(OperationVoid, 10000, "V1", "C1", "x"))
		s.wantLifecycle(Reversed, "")
		s.wantTotals(0, 12000, 0)
		s.wantTold("ZAR 20.00", "ZAR 100.00")
	})
	t.Run("a refund that was taken back", func(t *testing.T) {
		s := taking(t, OutcomeCaptured)
		s.do(found(OperationRefund, 4000, "R1", "1", "x"))
		s.do(found(OperationVoid, 4000, "V1", "R1", "x"))
		s.wantLifecycle(Paid, "")
		s.wantTotals(14900, 0, 0)
		s.wantLeft(0, 14900)
		s.wantTold("ZAR 40.00")
		if op := s.asked(OperationRefund, nil); op.Amount.Minor != 14900 {
			t.Errorf("operation %+v", op)
		}
	})
	t.Run("a hold that we were giving back", func(t *testing.T) {
		for _, ours := range []OperationState{OperationPending, OperationFailed} {
			s := paying(t)
			s.answer(1, OutcomeRiskDeclined)
			if ours == OperationFailed {
				s.done(s.operation(0).ID, OperationFailed, "X")
			}
			s.do(found(OperationReversal, 14900, "V1", "1", "x"))
			s.wantLifecycle(Open, "")
			s.wantTold()
			if ours == OperationPending {
				if op, _ := s.begun(s.operation(0).ID); op != nil {
					t.Errorf("it is given back twice: %+v", op)
				}
			}
		}
	})
	t.Run("a hold, as the platform says when it is asked", func(t *testing.T) {
		s := paying(t)
		s.answer(1, OutcomeRiskDeclined)
		s.answer(1, OutcomeReversed)
		s.wantLifecycle(Open, "")
		if op := s.operation(0); op.State != OperationSucceeded {
			t.Errorf("operation %+v", op)
		}
	})
	t.Run("a second success", func(t *testing.T) {
		s := paying(t)
		s.answer(1, OutcomeUnknown)
		s.notFound(1)
		s.do(Extended{RequestID: theRequest})
		s.start()
		s.answer(2, OutcomeCaptured)
		s.answer(1, OutcomeCaptured)
		s.do(found(OperationVoid, 14900, "V1", "1", "x"))
		s.wantTotals(14900, 0, 0)
		s.wantLifecycle(Paid, "")
		s.wantTold("ZAR 149.00")
		if op := s.operation(0); op.State != OperationSucceeded || op.Reason != OperationSecondSuccess {
			t.Errorf("operation %+v", op)
		}
	})
}

// TestOperationsAreBounded: what callers ask for cannot grow a request without
// end, and what we must give back still can go.
func TestOperationsAreBounded(t *testing.T) {
	t.Parallel()
	s := taking(t, OutcomeCaptured)
	taken := 0
	for range maxOperations + 50 {
		if s.ask(OperationRefund, zar(1)); s.last.Refused == nil {
			taken++
		}
	}
	s.wantRefused("too_many_operations")
	if taken != maxOperations {
		t.Errorf("%d were taken", taken)
	}
	s.do(OrderAlreadyPaid{RequestID: theRequest, By: "pr_0other"})
	if op := s.operation(-1); op.Amount.Minor != 14900-maxOperations {
		t.Errorf("operation %+v", op)
	}
}
