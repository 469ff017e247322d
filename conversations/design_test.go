package conversations

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Each test here holds one sentence of the design against Apply.

func TestExpiryNamesItsReason(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.after(59 * time.Minute)
	s.wantLifecycle(Open, "")
	s.after(time.Minute)
	s.wantLifecycle(Expired, ReasonNotOpened)

	s = createdStory(t)
	s.do(LinkOpened{theRequest})
	s.after(15 * time.Minute)
	s.wantLifecycle(Expired, ReasonNotPaid)
}

func TestOpeningStartsTheTimeToPayOnce(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.now = s.now.Add(50 * time.Minute)
	s.do(LinkOpened{theRequest})
	end := *s.request().PayBy
	if want := s.now.Add(15 * time.Minute); !end.Equal(want) {
		t.Errorf("pay by %v, want %v", end, want)
	}
	s.now = s.now.Add(5 * time.Minute)
	s.do(LinkOpened{theRequest})
	s.wantAllowed()
	if !s.request().PayBy.Equal(end) {
		t.Error("the second opening moved the window")
	}
	s.now = s.now.Add(15 * time.Minute)
	s.do(LinkOpened{theRequest})
	s.wantRefused("window_ended")
}

func TestContextOnlyWhilePayable(t *testing.T) {
	t.Parallel()
	context := ContextIssued{RequestID: theRequest, Context: CaptureContext{KeyID: "k", ExpiresAt: noon.Add(time.Hour)}}
	s := createdStory(t)
	s.do(context)
	s.wantRefused("not_opened")
	s.do(LinkOpened{theRequest})
	for range maxContexts {
		s.do(context)
		s.wantAllowed()
	}
	s.do(context)
	s.wantRefused("too_many_contexts")
	if n := len(slices.DeleteFunc(slices.Clone(s.events), func(e LoggedEvent) bool { return e.Type != "checkout_started" })); n != 1 {
		t.Errorf("%d events of checkout_started, want the first time only", n)
	}
	s.now = s.now.Add(15 * time.Minute)
	s.do(context)
	s.wantRefused("window_ended")
}

func TestExtend(t *testing.T) {
	t.Parallel()
	t.Run("agent, unopened", func(t *testing.T) {
		s := createdStory(t)
		s.now = s.now.Add(30 * time.Minute)
		s.do(Extended{RequestID: theRequest})
		if want := s.now.Add(time.Hour); !s.request().OpenBy.Equal(want) {
			t.Errorf("open by %v, want %v", s.request().OpenBy, want)
		}
	})
	t.Run("never to an earlier end", func(t *testing.T) {
		s := createdStory(t)
		s.do(LinkOpened{theRequest})
		for range 12 {
			s.do(CustomerExtended{theRequest})
			s.wantAllowed()
		}
		if want := s.now.Add(15 * time.Minute); !s.request().PayBy.Equal(want) {
			t.Errorf("pay by %v, want %v", s.request().PayBy, want)
		}
	})
	t.Run("customer, ten times and more, before it ends", func(t *testing.T) {
		s := createdStory(t)
		s.do(CustomerExtended{theRequest})
		s.wantRefused("not_opened")
		s.do(LinkOpened{theRequest})
		for range 12 {
			s.after(14 * time.Minute)
			s.do(CustomerExtended{theRequest})
			s.wantAllowed()
		}
		s.now = s.now.Add(16 * time.Minute)
		s.do(CustomerExtended{theRequest})
		s.wantRefused("window_ended")
		s.fire()
		s.do(CustomerExtended{theRequest})
		s.wantRefused("expired")
	})
	t.Run("agent, expired: the link again, with the same code", func(t *testing.T) {
		s := createdStory(t)
		code := s.request().LinkCode
		s.after(2 * time.Hour)
		s.do(Extended{RequestID: theRequest})
		s.wantLifecycle(Open, "")
		if got := s.messages(); !slices.Equal(got, []Purpose{PurposePayment, PurposePayment}) || s.request().LinkCode != code {
			t.Errorf("messages %v, code %s", got, s.request().LinkCode)
		}
		s.after(time.Hour)
		s.wantLifecycle(Expired, ReasonNotOpened)
	})
	t.Run("not superseded", func(t *testing.T) {
		s := createdStory(t)
		s.after(2 * time.Hour)
		s.do(SupersededBy{RequestID: theRequest, By: "pr_0x"})
		s.do(Extended{RequestID: theRequest})
		s.wantRefused("superseded")
		s.wantLifecycle(Expired, ReasonNotOpened)
	})
}

func TestCancel(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.do(CancelRequested{RequestID: theRequest})
	s.wantLifecycle(Cancelled, ReasonByAgent)
	if got := s.messages(); !slices.Equal(got, []Purpose{PurposePayment, PurposeCancelled}) {
		t.Errorf("messages %v: the customer is told", got)
	}
	s = paying(t)
	s.do(CancelRequested{RequestID: theRequest})
	s.wantRefused("processing")
	s.answer(1, OutcomeCaptured)
	s.do(CancelRequested{RequestID: theRequest})
	s.wantRefused("paid")
}

func TestOneAttemptAtATime(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.start()
	s.wantRefused("not_opened")
	s.do(LinkOpened{theRequest})
	s.start()
	s.wantAllowed()
	s.start()
	s.wantRefused("processing")
	a := s.request().Attempts[0]
	if a.Code != theRequest+"-1" || len(a.TransactionID) > 30 || !a.SendBy.Equal(s.now.Add(10*time.Second)) {
		t.Errorf("attempt %+v", a)
	}
}

func TestDecline(t *testing.T) {
	t.Parallel()
	s := paying(t)
	s.answer(1, OutcomeDeclined)
	s.wantLifecycle(Open, "")
	if got := *s.request().PayBy; !got.Equal(noon.Add(15 * time.Minute)) {
		t.Errorf("a decline inside the window moved it to %v", got)
	}
	s.start()
	s.now = s.now.Add(20 * time.Minute)
	s.answer(2, OutcomeDeclined)
	s.wantLifecycle(Open, "")
	if got := *s.request().PayBy; !got.Equal(s.now.Add(5 * time.Minute)) {
		t.Errorf("a decline after the window gives until %v, want five minutes", got)
	}
	s.start()
	s.now = s.now.Add(time.Minute)
	s.answer(3, OutcomeDeclined)
	s.wantLifecycle(Failed, ReasonTooManyAttempts)
	if at := s.request().Milestones[MilestoneDeclined]; !at.Equal(s.now) {
		t.Errorf("the last decline is marked %v, want %v", at, s.now)
	}
	s.start()
	s.wantRefused("failed")
}

func TestWhatSurelyTookNothingIsNoTry(t *testing.T) {
	t.Parallel()
	s := paying(t)
	for n := 1; n <= 5; n++ {
		s.answer(n, OutcomeNotTaken)
		s.wantLifecycle(Open, "")
		s.start()
		s.wantAllowed()
	}
	if !slices.ContainsFunc(s.events, func(e LoggedEvent) bool { return e.Type == "attempt_not_taken" }) {
		t.Error("it is not shown to the agent")
	}
}

func TestAuthenticationAbandoned(t *testing.T) {
	t.Parallel()
	s := paying(t)
	s.answer(1, OutcomeAuthenticationPending)
	s.wantLifecycle(Processing, "")
	s.after(9 * time.Minute)
	s.wantLifecycle(Processing, "")
	s.after(time.Minute)
	s.wantLifecycle(Open, "")
	if s.request().tries() != 0 {
		t.Error("it counts as a try")
	}
}

func TestHoldIsReleasedBeforeReopening(t *testing.T) {
	t.Parallel()
	for _, o := range []Outcome{OutcomePartial, OutcomeRiskDeclined} {
		s := paying(t)
		s.answer(1, o)
		s.wantLifecycle(Processing, "")
		s.operations(OperationUnsettled)
		s.wantLifecycle(Processing, "")
		s.after(time.Minute)
		s.operations(OperationSucceeded)
		s.wantLifecycle(Open, "")
		if got := s.request().Operations[0]; got.Kind != OperationReversal || got.Reason != string(o) {
			t.Errorf("operation %+v", got)
		}
	}
}

func TestNotFoundOnlyAtTheEnd(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		token time.Duration
		end   time.Duration
	}{
		{"token ends first: the last search decides", 10 * time.Minute, 25 * time.Minute},
		{"searches end first: the token and its grace decide", 40 * time.Minute, 45 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := createdStory(t)
			s.do(LinkOpened{theRequest})
			s.do(AttemptStarted{RequestID: theRequest, TokenExpiresAt: s.now.Add(tt.token)})
			s.answer(1, OutcomeUnknown)
			var asked []time.Duration
			for s.request().Lifecycle == Processing && len(asked) < 50 {
				next := s.request().Attempts[0].AskAt
				if next == nil {
					t.Fatal("nobody asks any more")
				}
				s.now = *next
				s.fire()
				asked = append(asked, s.now.Sub(noon))
				for id, e := range s.outbox {
					if e.Kind == OutboxInquiry {
						s.do(AttemptAnswered{RequestID: theRequest, Attempt: 1, Asked: true, EntryID: id, Result: Result{Outcome: OutcomeNotFound}})
						break
					}
				}
			}
			m := time.Minute
			for _, want := range []time.Duration{m, 5 * m, 10 * m, 15 * m, 20 * m, 25 * m} {
				if !slices.Contains(asked, want) {
					t.Errorf("asked after %v, not after %v", asked, want)
				}
			}
			if got := asked[len(asked)-1]; got != tt.end {
				t.Errorf("concluded after %v, want %v", got, tt.end)
			}
			// The searches at one hour and one day follow all the same.
			var late []time.Duration
			for a := s.request().Attempts[0]; a.AskAt != nil; a = s.request().Attempts[0] {
				s.now = *a.AskAt
				s.fire()
				late = append(late, s.now.Sub(noon))
			}
			if !slices.Equal(late, []time.Duration{time.Hour, 24 * time.Hour}) {
				t.Errorf("later searches after %v", late)
			}
		})
	}
}

// lateMoney brings an attempt settled as not found into a lifecycle and then
// lets its money arrive.
func TestLateMoney(t *testing.T) {
	t.Parallel()
	into := map[Lifecycle]func(*story){
		Open: func(s *story) { s.do(Extended{RequestID: theRequest}) },
		Processing: func(s *story) {
			s.do(Extended{RequestID: theRequest})
			s.start()
		},
		Expired: func(*story) {},
		Cancelled: func(s *story) {
			s.do(Extended{RequestID: theRequest})
			s.do(CancelRequested{RequestID: theRequest})
		},
		Failed: func(s *story) {
			s.do(Extended{RequestID: theRequest})
			for n := 2; n <= 4; n++ {
				s.start()
				s.answer(n, OutcomeDeclined)
			}
		},
	}
	all := LatePayment{ReverseAfterExpiry: true, ReverseAfterFailure: true, ReverseAfterCancellation: true}
	for l, arrange := range into {
		for _, review := range []bool{false, true} {
			for _, policy := range []LatePayment{{ReverseAfterCancellation: true}, all, {}} {
				for o, want := range map[Outcome]Lifecycle{OutcomeCaptured: Paid, OutcomeAuthorized: Authorized} {
					s := paying(t)
					s.state.Merchant.LatePayment = policy
					s.request().Attempts[0].Capture = want == Paid
					s.answer(1, OutcomeUnknown)
					s.notFound(1)
					s.fire()
					arrange(s)
					if got := s.request().Lifecycle; got != l {
						t.Fatalf("arranged %s, want %s", got, l)
					}
					if review {
						s.answer(1, OutcomeInReview)
						if got := s.request().Lifecycle; got != InReview {
							t.Fatalf("late review in %s: %s", l, got)
						}
						s.do(ReviewDecided{RequestID: theRequest, Attempt: 1, Accepted: true})
					} else {
						s.answer(1, o)
					}
					back := l == Cancelled && policy.ReverseAfterCancellation || l == Expired && policy.ReverseAfterExpiry || l == Failed && policy.ReverseAfterFailure
					reason := ""
					if back {
						reason = ReasonReversing
					}
					s.wantLifecycle(want, reason)
					r := s.request()
					if !r.Late || !r.Receipt.Late || r.PaidBy != 1 {
						t.Errorf("%s: late %v, receipt %v, paid by %d", l, r.Late, r.Receipt.Late, r.PaidBy)
					}
					if got := s.messages(); got[len(got)-1] != PurposeReceipt {
						t.Errorf("%s: no receipt message, %v", l, got)
					}
					if (len(r.Operations) > 0) != back {
						t.Errorf("%s, review %v, policy %+v: operations %+v", l, review, policy, r.Operations)
					}
					if back {
						s.operations(OperationSucceeded)
						s.wantLifecycle(Reversed, "")
						if r := s.request(); r.CapturedMinor != 0 || r.ReversedMinor != 14900 {
							t.Errorf("totals after the reversal: captured %d, reversed %d", r.CapturedMinor, r.ReversedMinor)
						}
					}
					if l == Processing {
						s.answer(2, OutcomeCaptured)
						if ops := s.request().Operations; len(ops) == 0 || ops[len(ops)-1].Attempt != 2 || ops[len(ops)-1].Reason != "second_success" {
							t.Errorf("the second success is not given back: %+v", ops)
						}
					}
				}
			}
		}
	}
}

func TestLateReviewRejectedEndsAsBefore(t *testing.T) {
	t.Parallel()
	s := paying(t)
	s.answer(1, OutcomeNotTaken)
	s.do(CancelRequested{RequestID: theRequest})
	s.answer(1, OutcomeInReview)
	s.do(ReviewDecided{RequestID: theRequest, Attempt: 1})
	s.wantLifecycle(InReview, ReasonByAgent)
	s.operations(OperationSucceeded)
	s.wantLifecycle(Cancelled, ReasonByAgent)
}

func TestReview(t *testing.T) {
	t.Parallel()
	s := paying(t)
	s.answer(1, OutcomeInReview)
	s.wantLifecycle(InReview, "")
	s.do(ReviewDecided{RequestID: theRequest, Attempt: 1, Accepted: true})
	s.wantLifecycle(Paid, "")

	for _, told := range []Outcome{"", OutcomeReversed, OutcomeDeclined, OutcomeRiskDeclined} {
		s = paying(t)
		s.answer(1, OutcomeInReview)
		if told == "" {
			s.do(ReviewDecided{RequestID: theRequest, Attempt: 1})
		} else {
			s.answer(1, told) // the platform, when asked
		}
		s.operations(OperationSucceeded)
		s.wantLifecycle(Open, "")
	}
}

// TestLateHoldBesideAnAttempt: releasing a hold of an earlier attempt does not
// open the request while another may still take money.
func TestLateHoldBesideAnAttempt(t *testing.T) {
	t.Parallel()
	for _, flying := range []Outcome{OutcomeUnknown, OutcomeInReview} {
		s := paying(t)
		s.answer(1, OutcomeUnknown)
		s.notFound(1)
		s.fire()
		s.do(Extended{RequestID: theRequest})
		s.start()
		s.answer(1, OutcomePartial)
		s.answer(2, flying)
		s.operations(OperationSucceeded)
		if got := s.request().Lifecycle; got != Processing && got != InReview {
			t.Fatalf("the request is %s while attempt 2 is in flight", got)
		}
		s.start()
		if s.last.Refused == nil {
			t.Fatal("a third attempt starts beside the second")
		}
		s.answer(2, OutcomeDeclined)
		s.wantLifecycle(Open, "")
	}
	// And while it is open no attempt starts beside the hold.
	s := paying(t)
	s.answer(1, OutcomeUnknown)
	s.notFound(1)
	s.fire()
	s.do(Extended{RequestID: theRequest})
	s.answer(1, OutcomeRiskDeclined)
	s.wantLifecycle(Processing, "")
	s.operations(OperationSucceeded)
	s.wantLifecycle(Open, "")
}

func TestSupersededOnlyWhenOver(t *testing.T) {
	t.Parallel()
	legal := []Lifecycle{Expired, Cancelled, Failed, Reversed, Refunded}
	for _, l := range Lifecycles {
		s := createdStory(t)
		s.request().Lifecycle = l
		s.do(SupersededBy{RequestID: theRequest, By: "pr_0x"})
		if got := s.last.Refused == nil; got != slices.Contains(legal, l) {
			t.Errorf("%s: superseded %v", l, got)
		}
		if s.request().Superseded != slices.Contains(legal, l) {
			t.Errorf("%s: mark %v", l, s.request().Superseded)
		}
	}
}

func TestLateMoneyOnASupersededRequest(t *testing.T) {
	t.Parallel()
	for _, reversed := range []bool{false, true} {
		s := paying(t)
		s.state.Merchant.LatePayment.ReverseAfterExpiry = reversed
		s.answer(1, OutcomeUnknown)
		s.notFound(1)
		s.fire()
		s.do(SupersededBy{RequestID: theRequest, By: "pr_0x"})
		s.answer(1, OutcomeCaptured)
		told := slices.ContainsFunc(s.last.Outbox, func(e OutboxEntry) bool { return e.Kind == OutboxHolder })
		if told == reversed {
			t.Errorf("given back %v, holder told %v", reversed, told)
		}
	}
}

func TestOrderPaidElsewhere(t *testing.T) {
	t.Parallel()
	news := OrderPaidElsewhere{RequestID: theRequest, By: "pr_0other"}
	s := createdStory(t)
	s.do(news)
	s.wantLifecycle(Cancelled, ReasonAlreadyPaid)

	s = createdStory(t)
	s.after(2 * time.Hour)
	s.do(news)
	s.wantLifecycle(Cancelled, ReasonAlreadyPaid)

	for _, first := range []Outcome{OutcomeUnknown, OutcomeInReview} {
		s = paying(t)
		s.answer(1, first)
		s.do(news)
		s.wantAllowed()
		s.answer(1, OutcomeCaptured)
		s.wantLifecycle(Paid, ReasonReversing)
		s.operations(OperationSucceeded)
		s.wantLifecycle(Reversed, "")

		s = paying(t)
		s.answer(1, first)
		s.do(news)
		s.answer(1, OutcomeDeclined)
		s.wantLifecycle(Cancelled, ReasonAlreadyPaid)
	}

	s = paying(t)
	s.answer(1, OutcomeCaptured)
	s.do(news)
	s.wantRefused("paid") // so the late one is reversed instead
	s.do(OrderAlreadyPaid{RequestID: theRequest, By: "pr_0other"})
	s.wantLifecycle(Paid, ReasonReversing)
	s.do(OrderAlreadyPaid{RequestID: theRequest, By: "pr_0other"})
	if n := len(s.request().Operations); n != 1 {
		t.Errorf("%d operations, want one", n)
	}

	// In every other state the news is kept: late money there is given back,
	// whatever the policy.
	for _, l := range []Lifecycle{Cancelled, Failed, Expired} {
		s = paying(t)
		s.state.Merchant.LatePayment = LatePayment{}
		s.answer(1, OutcomeUnknown)
		s.notFound(1)
		s.request().Lifecycle = l
		delete(s.timers, Timer{Kind: TimerWindow, ContactID: theContact, ID: theRequest}.member())
		s.do(news)
		s.wantAllowed()
		s.answer(1, OutcomeCaptured)
		s.wantLifecycle(Paid, ReasonReversing)
	}
}

func TestResend(t *testing.T) {
	t.Parallel()
	s := paying(t)
	s.do(Resent{RequestID: theRequest})
	s.wantRefused("processing")
	s.answer(1, OutcomeCaptured)
	s.do(Resent{RequestID: theRequest})
	s.wantAllowed()
	if got := s.messages(); !slices.Equal(got, []Purpose{PurposePayment, PurposeReceipt, PurposeReceipt}) {
		t.Errorf("messages %v, want the receipt again", got)
	}
	s.do(Resent{RequestID: theRequest, Purpose: PurposePayment})
	s.wantRefused("paid")
	s = createdStory(t)
	s.do(Resent{RequestID: theRequest})
	s.wantAllowed()
	s.do(Resent{RequestID: theRequest, Purpose: PurposeReceipt})
	s.wantRefused("not_paid")
	s.says(WhatsApp, "STOP")
	s.do(Resent{RequestID: theRequest})
	s.wantRefused("opted_out")
}

func TestRefundsAndCaptures(t *testing.T) {
	t.Parallel()
	s := paying(t)
	s.answer(1, OutcomeCaptured)
	op := func(kind OperationKind, minor int64) {
		t.Helper()
		id := string(kind) + string(rune('0'+len(s.request().Operations)))
		s.request().Operations = append(s.request().Operations, Operation{ID: id, Kind: kind, Attempt: 1, Amount: rand149(minor), State: OperationPending})
		s.do(OperationAnswered{RequestID: theRequest, OperationID: id, State: OperationSucceeded})
	}
	op(OperationRefund, 4900)
	s.wantLifecycle(PartiallyRefunded, "")
	if got := s.request().Refundable(); got != 10000 {
		t.Errorf("refundable %d", got)
	}
	op(OperationRefund, 10000)
	s.wantLifecycle(Refunded, "")

	s = paying(t)
	s.request().Attempts[0].Capture = false
	s.answer(1, OutcomeAuthorized)
	if got := s.request().Capturable(); got != 14900 {
		t.Errorf("capturable %d", got)
	}
	op(OperationCapture, 10000)
	s.wantLifecycle(Paid, "")
	if r := s.request(); r.Capturable() != 4900 || r.Refundable() != 10000 {
		t.Errorf("capturable %d, refundable %d", r.Capturable(), r.Refundable())
	}
}

func TestFailedOnlyWhileNotDelivered(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	id := s.request().Messages[0]
	entry := s.send()[id]
	s.report(id, DeliveryDelivered, "") // the echo comes before the answer
	if len(s.outbox) != 0 {
		t.Errorf("the echo did not acknowledge the entry: %v", s.outbox)
	}
	s.do(MessageAnswered{MessageID: id, EntryID: entry, Failed: true, Reason: FailureRate, RetryIn: time.Minute})
	s.do(MessageAnswered{MessageID: id, EntryID: entry, Failed: true, Reason: FailureBlocked})
	if m := s.state.Messages[id]; m.Status != DeliveryDelivered || m.Reason != "" || len(s.timers) != 1 {
		t.Errorf("message %s (%s), timers %v", m.Status, m.Reason, s.timers)
	}
}

func TestRetryAndEcho(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	id := s.request().Messages[0]
	entry := s.send()[id]
	s.do(MessageAnswered{MessageID: id, EntryID: entry, Failed: true, Reason: FailureRate, RetryIn: time.Minute})
	if m := s.state.Messages[id]; m.Status != DeliveryQueued || len(s.outbox) != 0 {
		t.Fatalf("%s, outbox %v", m.Status, s.outbox)
	}
	s.after(time.Minute)
	entry = s.send()[id]
	if len(s.out) != 2 || entry == "" {
		t.Fatalf("sent %d times", len(s.out))
	}
	// The worker dies: the entry is claimed again and the echo awaited.
	s.do(SendingStarted{MessageID: id, EntryID: entry})
	if len(s.out) != 2 {
		t.Fatal("sent again without waiting for the echo")
	}
	s.after(time.Minute)
	next := s.send()[id]
	if len(s.out) != 3 || next == entry {
		t.Fatalf("no echo came: sent %d times", len(s.out))
	}
	// Now another worker dies in the second try: the wait begins anew.
	s.do(SendingStarted{MessageID: id, EntryID: next})
	if s.state.Messages[id].EchoBy == nil {
		t.Fatal("nobody waits for the echo of the second try")
	}
	s.report(id, DeliverySent, "")
	if m := s.state.Messages[id]; m.Status != DeliverySent || len(s.outbox) != 0 || m.EchoBy != nil {
		t.Errorf("%s, outbox %v", m.Status, s.outbox)
	}
}

func TestBlindSendsEnd(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.do(Extended{RequestID: theRequest})
	id := s.request().Messages[0]
	for range 40 {
		if entry := s.send()[id]; entry != "" {
			s.do(MessageAnswered{MessageID: id, EntryID: entry, Unknown: true})
		}
		s.now = s.now.Add(time.Minute)
		s.do(TimerFired{Timer{Kind: TimerMessage, ContactID: theContact, ID: id, At: s.now}})
	}
	if m := s.state.Messages[id]; m.Status != DeliveryFailed || len(s.out) != maxBlindTries {
		t.Errorf("%s after %d sends", m.Status, len(s.out))
	}
}

func TestMessageOfAnotherContact(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.state.Messages["m_0foreign"] = &Message{ID: "m_0foreign", ContactID: "c_0other", SenderID: "acme-wa", Status: DeliveryAccepted}
	s.state.Requests["pr_0foreign"] = &PaymentRequest{ID: "pr_0foreign", ContactID: "c_0other", Lifecycle: Open}
	for _, e := range []Event{
		StatusReported{MerchantID: "acme", MessageID: "m_0foreign", Inbound: Inbound{SenderID: "acme-wa", Status: DeliveryRead}},
		StatusReported{MerchantID: "other", MessageID: s.request().Messages[0], Inbound: Inbound{SenderID: "acme-wa", Status: DeliveryRead}},
		CancelRequested{RequestID: "pr_0foreign"},
		LinkOpened{RequestID: "pr_0foreign"},
	} {
		if _, err := s.try(e); CodeOf(err) != CodeNotFound {
			t.Errorf("%s: %v, want not found", e.Kind(), err)
		}
	}
}

func TestConsentIsPerChannel(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.says(SMS, "STOP")
	s.says(SMS, "STOP")
	s.send()
	var kinds []Purpose
	for _, o := range s.out {
		kinds = append(kinds, o.Purpose)
	}
	slices.Sort(kinds)
	if !slices.Equal(kinds, []Purpose{PurposeConsent, PurposePayment}) {
		t.Errorf("sent %v, want the payment on WhatsApp and one confirmation on SMS", kinds)
	}
	s.says(SMS, "pay")
	s.do(AgentWrote{MessageID: "m_0a", Channel: SMS, Text: "x"})
	s.wantRefused("opted_out")
	s.says(WhatsApp, "hello")
	s.do(AgentWrote{MessageID: "m_0b", Channel: WhatsApp, Text: "x"})
	s.wantAllowed()
	if lane := s.state.Contact.Lanes[SMS]; len(lane.Waiting) != 0 {
		t.Errorf("the bot answered who has opted out: %+v", lane)
	}
}

// TestStartThenStop: the confirmation of START, still waiting, is called off.
func TestStartThenStop(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.says(SMS, "stop")
	stopped := s.send()
	s.says(SMS, "start")
	s.says(SMS, "stop")
	for id, entry := range stopped {
		if s.state.Messages[id].Channel == SMS {
			s.do(MessageAnswered{MessageID: id, EntryID: entry, Sent: Sent{ProviderID: id}})
		}
	}
	s.out = nil
	s.send()
	for _, o := range s.out {
		if o.Channel == SMS && o.Purpose != PurposeConsent {
			t.Errorf("sent %q to who has opted out", o.Text)
		}
	}
	for _, m := range s.state.Messages {
		if m != nil && m.Purpose == PurposeReply && m.Status != DeliveryFailed && m.Channel == SMS {
			t.Errorf("the confirmation of START is %s", m.Status)
		}
	}
}

func TestFreeTextOnlyInsideTheWindow(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	for id, entry := range s.send() {
		s.do(MessageAnswered{MessageID: id, EntryID: entry, Sent: Sent{ProviderID: "p"}})
	}
	s.says(WhatsApp, "hello")
	s.now = s.now.Add(24 * time.Hour)
	s.send()
	for _, m := range s.state.Messages {
		if m != nil && m.Purpose == PurposeReply && m.Reason != FailureOutsideWindow {
			t.Errorf("free text after 24 hours: %s (%s)", m.Status, m.Reason)
		}
	}
}

// TestBotAnswersEverything: every intent in every situation, with and without
// a payment request, gets one answer that is about it.
func TestBotAnswersEverything(t *testing.T) {
	t.Parallel()
	words := map[Intent]string{IntentHelp: "help", IntentPerson: "a human please", IntentWantsStop: "stop texting me", IntentLink: "pay", IntentAmount: "how much", IntentStatus: "status", IntentReceipt: "receipt", IntentOther: "hello there"}
	for _, l := range append([]Lifecycle{LifecycleUnknown}, Lifecycles...) {
		for intent, word := range words {
			s := newStory(t)
			if l != LifecycleUnknown {
				s.create(theRequest)
				s.request().Lifecycle = l
				if situations[l] == "" {
					t.Fatalf("%s is no situation", l)
				}
			}
			s.says(SMS, word)
			var replies []*Message
			for _, m := range s.state.Messages {
				if m != nil && m.Purpose == PurposeReply {
					replies = append(replies, m)
				}
			}
			if len(replies) != 1 {
				t.Fatalf("%s, %s: %d replies", l, intent, len(replies))
			}
			got := replies[0].Text
			if got == "" || strings.ContainsAny(got, "{}") || strings.Contains(got, "  ") {
				t.Errorf("%s, %s: %q", l, intent, got)
			}
			paid := slices.Contains([]Lifecycle{Paid, Authorized, PartiallyRefunded}, l)
			if strings.Contains(got, "/p/") && l != Open || strings.Contains(got, "/r/") && !paid && l != Reversed && l != Refunded {
				t.Errorf("%s, %s: a link that does not fit: %q", l, intent, got)
			}
			if (intent == IntentLink || intent == IntentAmount) && l == Open && !strings.Contains(got, "/p/") {
				t.Errorf("%s, %s: no link: %q", l, intent, got)
			}
			if strings.Contains(got, "already paid") && !paid {
				t.Errorf("%s, %s: %q", l, intent, got)
			}
		}
	}
}
