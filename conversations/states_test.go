package conversations

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// declared returns the constants of a type in states.go.
func declared(t *testing.T, typeName string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "states.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); !ok || id.Name != typeName {
				continue
			}
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, text)
		}
	}
	if len(out) == 0 {
		t.Fatalf("states.go declares no %s", typeName)
	}
	return out
}

// TestTablesAreWhole: each guard, effect and trigger that is declared stands in
// a table, each in a table is declared and has its function.
func TestTablesAreWhole(t *testing.T) {
	t.Parallel()
	usedGuards, usedEffects, usedTriggers := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, e := range paymentEdges {
		usedGuards[string(e.If)], usedTriggers[string(e.On)] = true, true
		if guards[e.If] == nil {
			t.Errorf("guard %q has no question", e.If)
		}
		for _, do := range e.Do {
			usedEffects[string(do)] = true
			if paymentEffects[do] == nil {
				t.Errorf("effect %s of a payment request does nothing", do)
			}
		}
		for _, l := range append(slices.Clone(e.From), e.To) {
			if l != LifecycleUnknown && !slices.Contains(Lifecycles, l) {
				t.Errorf("%q is not a lifecycle", l)
			}
		}
	}
	for _, e := range attemptEdges {
		usedTriggers[string(e.On)] = true
	}
	for _, e := range messageEdges {
		usedTriggers[string(e.On)] = true
		for _, do := range e.Do {
			usedEffects[string(do)] = true
			if messageEffects[do] == nil {
				t.Errorf("effect %s of a message does nothing", do)
			}
		}
	}
	for _, check := range []struct {
		what string
		used map[string]bool
	}{{"Guard", usedGuards}, {"Effect", usedEffects}, {"Trigger", usedTriggers}} {
		names := declared(t, check.what)
		for _, name := range names {
			if !check.used[name] {
				t.Errorf("%s %q stands in no table", check.what, name)
			}
		}
		for name := range check.used {
			if !slices.Contains(names, name) {
				t.Errorf("%s %q is not declared", check.what, name)
			}
		}
	}
	if len(guards) != len(usedGuards) {
		t.Errorf("%d guards have a question, %d are used", len(guards), len(usedGuards))
	}
	if len(paymentEffects)+len(messageEffects) != len(usedEffects) {
		t.Errorf("%d effects do something, %d are used", len(paymentEffects)+len(messageEffects), len(usedEffects))
	}
}

// TestEveryLifecycleKnowsEveryTrigger walks the whole product: each pair has an
// edge, or is refused with a reason and a sentence.
func TestEveryLifecycleKnowsEveryTrigger(t *testing.T) {
	t.Parallel()
	end := noon.Add(time.Minute)
	for _, l := range append([]Lifecycle{LifecycleUnknown}, Lifecycles...) {
		for _, on := range declared(t, "Trigger") {
			r := &PaymentRequest{
				Lifecycle: l, PayBy: &end, Attempts: []Attempt{{N: 1, State: AttemptCaptured}}, PaidBy: 1,
				Operations: []Operation{{ID: "op", Attempt: 1}},
			}
			p := &paymentTx{tx: &tx{State: State{Merchant: aMerchant()}, now: noon, contact: &Contact{}}, r: r, a: &r.Attempts[0], op: &r.Operations[0]}
			edge, refused := p.edge(Trigger(on))
			if refused == nil && !slices.Contains(edge.From, l) {
				t.Errorf("%s on %s took a row of %v", l, on, edge.From)
			}
			if refused != nil && (refused.Reason == "" && l != LifecycleUnknown || refused.Message == "" || refused.Code != CodeConflict) {
				t.Errorf("%s on %s is refused with reason %q, %q", l, on, refused.Reason, refused.Message)
			}
		}
	}
}

// TestNoRowIsShadowed: a row behind an unguarded one for the same pair could
// never be taken.
func TestNoRowIsShadowed(t *testing.T) {
	t.Parallel()
	taken := map[string]bool{}
	for i, e := range paymentEdges {
		reachable := false
		for _, from := range e.From {
			pair := string(from) + " on " + string(e.On)
			reachable = reachable || !taken[pair]
		}
		if !reachable {
			t.Errorf("row %d can never be taken: %v on %s", i, e.From, e.On)
		}
		if e.If == Always {
			for _, from := range e.From {
				taken[string(from)+" on "+string(e.On)] = true
			}
		}
	}
	seen := map[string]bool{}
	for _, e := range attemptEdges {
		for _, from := range e.From {
			if pair := string(from) + " on " + string(e.On); seen[pair] {
				t.Errorf("attempt: two rows for %s", pair)
			} else {
				seen[pair] = true
			}
		}
	}
	for _, e := range messageEdges {
		for _, from := range e.From {
			if pair := string(from) + " on " + string(e.On); seen[pair] {
				t.Errorf("message: two rows for %s", pair)
			} else {
				seen[pair] = true
			}
		}
	}
}

// TestFinalSchedulesNothing: no row leads out of a final lifecycle, and no row
// that arrives there or stays there starts a window or an attempt.
func TestFinalSchedulesNothing(t *testing.T) {
	t.Parallel()
	var final []Lifecycle
	for _, l := range Lifecycles {
		if !slices.ContainsFunc(paymentEdges, func(e Edge) bool { return slices.Contains(e.From, l) && e.To != LifecycleUnknown && e.To != l }) {
			final = append(final, l)
		}
	}
	if !slices.Equal(final, []Lifecycle{Reversed}) {
		t.Errorf("final are %v, want reversed", final)
	}
	final = append(final, Refunded) // but for what somebody undoes at the platform
	scheduling := []Effect{WatchWindow, StartPayWindow, StartAttempt, WaitForCustomer, TakeMoney}
	for _, e := range paymentEdges {
		stays := e.To == LifecycleUnknown && slices.ContainsFunc(e.From, func(l Lifecycle) bool { return slices.Contains(final, l) })
		if !slices.Contains(final, e.To) && !stays {
			continue
		}
		for _, do := range e.Do {
			if slices.Contains(scheduling, do) {
				t.Errorf("%v on %s schedules %s at its end", e.From, e.On, do)
			}
		}
	}
}

// TestEveryOutcomeHasATrigger, and no trigger of an answer moves an attempt
// that money is known of to one without.
func TestAttemptTable(t *testing.T) {
	t.Parallel()
	states := []AttemptState{AttemptSending, AttemptUnsettled, AttemptAuthenticating, AttemptReversing, AttemptInReview, AttemptAuthorized, AttemptCaptured, AttemptDeclined, AttemptNotTaken, AttemptNotFound, AttemptReversed}
	for _, s := range []AttemptState{AttemptAuthorized, AttemptCaptured, AttemptReversed} {
		for _, e := range attemptEdges {
			if slices.Contains(e.From, s) {
				t.Errorf("an attempt that is %s moves to %s on %s", s, e.To, e.On)
			}
		}
	}
	// Word of money is believed from everywhere else.
	for _, s := range states {
		for _, on := range []Trigger{MoneyTaken, MoneyHeld} {
			has := slices.ContainsFunc(attemptEdges, func(e AttemptEdge) bool { return e.On == on && slices.Contains(e.From, s) })
			want := s != AttemptAuthorized && s != AttemptCaptured && s != AttemptReversed && s != AttemptReversing
			if has != want {
				t.Errorf("%s on %s has a row: %v, want %v", s, on, has, want)
			}
		}
	}
	for _, o := range []Outcome{OutcomeUnknown, OutcomeAuthorized, OutcomeCaptured, OutcomeInReview, OutcomePartial, OutcomeRiskDeclined, OutcomeDeclined, OutcomeAuthenticationPending, OutcomeNotTaken, OutcomeNotFound, OutcomeReversed} {
		if attemptTriggers[o] == "" {
			t.Errorf("outcome %s means nothing", o)
		}
	}
}

// TestDeliveryRank gives a message every sequence of three statuses: the
// highest wins, and each leaves its time.
func TestDeliveryRank(t *testing.T) {
	t.Parallel()
	ranked := deliveryRank[2:]
	for _, a := range ranked {
		for _, b := range ranked {
			for _, c := range ranked {
				s := createdStory(t)
				s.send()
				id := s.request().Messages[0]
				highest := 0
				for _, status := range []DeliveryStatus{a, b, c} {
					highest = max(highest, slices.Index(deliveryRank, status))
					s.report(id, status, "")
				}
				m := s.state.Messages[id]
				if m.Status != deliveryRank[highest] {
					t.Fatalf("after %s, %s, %s it is %s", a, b, c, m.Status)
				}
				for _, status := range []DeliveryStatus{a, b, c} {
					if m.Times[status].IsZero() {
						t.Fatalf("after %s, %s, %s the time of %s is missing", a, b, c, status)
					}
				}
				s.report(id, DeliveryFailed, FailureBlocked)
				want := DeliveryFailed
				if highest >= slices.Index(deliveryRank, DeliveryDelivered) {
					want = m.Status
				}
				if got := s.state.Messages[id].Status; got != want {
					t.Fatalf("failed after %s makes it %s, want %s", m.Status, got, want)
				}
				s.report(id, DeliveryRead, "")
				if got := s.state.Messages[id]; got.Status != DeliveryRead || got.Reason != "" {
					t.Fatalf("read after failed makes it %s (%s)", got.Status, got.Reason)
				}
			}
		}
	}
}

func (s *story) report(messageID string, status DeliveryStatus, reason FailureReason) {
	s.t.Helper()
	s.do(StatusReported{MerchantID: "acme", MessageID: messageID, Inbound: Inbound{
		Kind: InboundStatus, SenderID: s.state.Messages[messageID].SenderID, ProviderID: "p-" + messageID, Status: status, Reason: reason, At: s.now,
	}})
}

// TestConsentTable walks consents × words.
func TestConsentTable(t *testing.T) {
	t.Parallel()
	for _, c := range []Consent{ConsentUnknown, ConsentOptedIn, ConsentOptedOut} {
		for _, i := range []Intent{IntentStop, IntentStart} {
			n := 0
			for _, e := range consentEdges {
				if e.On == i && slices.Contains(e.From, c) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%s on %s has %d rows", c, i, n)
			}
		}
	}
}

// TestModeTable walks modes × events, and holds the table against Apply.
func TestModeTable(t *testing.T) {
	t.Parallel()
	for _, m := range []Mode{ModeBot, ModeWithAgent} {
		for _, on := range []EventKind{"MessageReceived", "TakenOver", "HandedBack", "AgentWrote"} {
			rows := slices.DeleteFunc(slices.Clone(modeEdges), func(e ModeEdge) bool { return e.From != m || e.On != on })
			if len(rows) != 1 {
				t.Errorf("%s on %s has %d rows", m, on, len(rows))
				continue
			}
			s := createdStory(t)
			s.state.Contact.Mode = m
			switch on {
			case "MessageReceived":
				s.says(WhatsApp, "hello")
			case "TakenOver":
				s.do(TakenOver{Agent: "zoe"})
			case "HandedBack":
				s.do(HandedBack{Agent: "zoe"})
			case "AgentWrote":
				s.do(AgentWrote{MessageID: "m_0agent", Channel: SMS, Text: "hi", Agent: "zoe"})
			}
			if got := s.state.Contact.Mode; got != rows[0].To {
				t.Errorf("%s on %s leads to %s, the table says %s", m, on, got, rows[0].To)
			}
		}
	}
}

// TestRandomWalks gives contacts thousands of events in any order, many of them
// twice, and holds what must be true after each.
func TestRandomWalks(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			w := &walk{story: createdStory(t), r: rand.New(rand.NewPCG(seed, 7)), milestones: map[Milestone]bool{}, confirmations: map[Channel]int{}, consent: map[Channel]Consent{}}
			w.story.heed = w.heed
			w.state.Merchant.LatePayment = LatePayment{ReverseAfterExpiry: seed%2 == 0, ReverseAfterFailure: seed%3 == 0, ReverseAfterCancellation: seed%5 != 0}
			w.state.Merchant.ReviewWithin = time.Duration(seed%3) * 2 * time.Hour
			w.state.Merchant.Fallback = Fallback{OnFailure: seed%4 != 0, After: time.Duration(seed%3) * 20 * time.Minute}
			for range 200 {
				w.step()
				w.check()
			}
			w.settle()
		})
	}
}

type walk struct {
	*story
	r          *rand.Rand
	milestones map[Milestone]bool
	// confirmations are how many may still go to who has opted out.
	confirmations map[Channel]int
	consent       map[Channel]Consent // before the event
	answers       []MessageAnswered   // of every try, for those that come late or twice
	reports       []StatusReported
	done          []OperationAnswered // of every try
}

// heed holds what must be true of one event alone.
func (w *walk) heed(effects Effects) {
	w.t.Helper()
	for _, channel := range Channels {
		now := w.state.Contact.Consent[channel]
		if now == ConsentOptedOut && w.consent[channel] != now {
			w.confirmations[channel] = 1
		}
		w.consent[channel] = now
	}
	w.checkOutbound(effects.Outbound)
}

// checkOutbound: what goes out is allowed and still wanted at that moment.
func (w *walk) checkOutbound(o *Outbound) {
	w.t.Helper()
	if o == nil {
		return
	}
	c, m, r := w.state.Contact, w.state.Messages[o.MessageID], w.request()
	if c.Consent[o.Channel] == ConsentOptedOut {
		if o.Purpose != PurposeConsent {
			w.t.Fatalf("a %s message went by %s to who has opted out", o.Purpose, o.Channel)
		}
		if w.confirmations[o.Channel]--; w.confirmations[o.Channel] < 0 {
			w.t.Fatalf("a second confirmation went by %s", o.Channel)
		}
	}
	if c.IdentityChangedAt != nil && o.Purpose != PurposeAgent && o.Purpose != PurposeConsent {
		w.t.Fatalf("a %s message went by %s to who may be another person", o.Purpose, o.Channel)
	}
	if m.isNotice() && !r.wants(m.Purpose) {
		w.t.Fatalf("a %s message went out while the request is %s", m.Purpose, r.Lifecycle)
	}
	if m.isNotice() && o.Channel == WhatsApp && !o.Template && !w.now.Before(c.InboundAt[m.SenderID].Add(serviceWindow)) {
		w.t.Fatalf("free text went out with the window closed: %s", o.Purpose)
	}
	for before := w.state.Messages[m.Follows]; before != nil; before = w.state.Messages[before.Follows] {
		if m.isNotice() && (before.Status == DeliveryDelivered || before.Status == DeliveryRead) {
			w.t.Fatalf("%s went out in place of %s, which is %s", m.ID, before.ID, before.Status)
		}
	}
}

func (w *walk) one(of ...string) string { return of[w.r.IntN(len(of))] }

var walkOutcomes = []Outcome{OutcomeUnknown, OutcomeAuthorized, OutcomeCaptured, OutcomeInReview, OutcomePartial, OutcomeRiskDeclined, OutcomeDeclined, OutcomeAuthenticationPending, OutcomeNotTaken, OutcomeNotFound, OutcomeReversed}

// step does one thing that could happen.
func (w *walk) step() {
	w.t.Helper()
	r := w.request()
	attempt := 1
	what := w.r.IntN(32)
	if n := len(r.Attempts); n > 0 {
		attempt = 1 + w.r.IntN(n)
	} else if what >= 6 && what <= 9 || what == 15 || what >= 30 {
		what = 3 // there is no attempt to be answered
	}
	var e Event
	switch what {
	case 0, 1:
		e = LinkOpened{theRequest}
	case 2:
		e = ContextIssued{RequestID: theRequest, Context: CaptureContext{KeyID: "k", ExpiresAt: w.now.Add(15 * time.Minute)}}
	case 3, 4, 5:
		e = AttemptStarted{RequestID: theRequest, Platform: "p", TokenExpiresAt: w.now.Add(time.Duration(w.r.IntN(40)) * time.Minute)}
	case 6, 7, 8, 9:
		e = AttemptAnswered{RequestID: theRequest, Attempt: attempt, Result: Result{Outcome: walkOutcomes[w.r.IntN(len(walkOutcomes))], PaymentID: fmt.Sprint(attempt)}}
	case 10:
		e = CustomerExtended{theRequest}
	case 11:
		e = Extended{RequestID: theRequest}
	case 12:
		if w.r.IntN(4) == 0 {
			e = CancelRequested{RequestID: theRequest}
		} else {
			e = ReceiptViewed{theRequest}
		}
	case 13:
		e = Resent{RequestID: theRequest}
	case 14:
		if w.r.IntN(6) == 0 {
			e = OrderPaidElsewhere{RequestID: theRequest, By: "pr_0other"}
		} else {
			e = SupersededBy{RequestID: theRequest, By: "pr_0other"}
		}
	case 15:
		e = ReviewDecided{RequestID: theRequest, Attempt: attempt, Accepted: w.r.IntN(2) == 0}
	case 16:
		w.says(Channels[w.r.IntN(2)], w.one("stop", "start", "pay", "help", "status", "hello", "Yes", "cancel", "receipt?", "how much"))
		return
	case 17, 18:
		w.work()
		return
	case 19:
		if len(w.timers) > 0 { // any of them: early or late, and twice
			names := slices.Sorted(maps.Keys(w.timers))
			timer := w.timers[names[w.r.IntN(len(names))]]
			w.do(TimerFired{timer})
			w.do(TimerFired{timer})
		}
		return
	case 20:
		if n := len(r.Messages); n > 0 && w.state.Messages[r.Messages[w.r.IntN(n)]].Tries > 0 {
			statuses := append(slices.Clone(deliveryRank[2:]), DeliveryFailed)
			id := r.Messages[w.r.IntN(n)]
			e := StatusReported{MerchantID: "acme", MessageID: id, Inbound: Inbound{
				Kind: InboundStatus, SenderID: w.state.Messages[id].SenderID, ProviderID: "p-" + id, Status: statuses[w.r.IntN(len(statuses))],
				Reason: w.reason(), Lasting: w.r.IntN(3) == 0, At: w.now.Add(time.Duration(w.r.IntN(120)-60) * time.Minute),
			}}
			w.reports = append(w.reports, e)
			w.do(e)
		}
		return
	case 21, 22:
		w.after(time.Duration(w.r.IntN(90)) * time.Minute)
		return
	case 23:
		e = OrderAlreadyPaid{RequestID: theRequest, By: "pr_0other"}
		if w.r.IntN(4) != 0 {
			e = AgentWrote{MessageID: fmt.Sprintf("m_0agent%d", w.entry), Channel: Channels[w.r.IntN(2)], Text: "x", Agent: "zoe"}
			w.entry++
		}
	}
	switch what {
	case 24: // the customer has a new phone, or the number has a new owner
		if e = (IdentityVerified{Agent: "zoe"}); w.r.IntN(3) == 0 {
			w.identityChanges()
			return
		}
	case 25: // an answer that comes late, or twice
		if len(w.answers) == 0 {
			return
		}
		e = w.answers[w.r.IntN(len(w.answers))]
	case 26: // a report that comes late, or twice
		if len(w.reports) == 0 {
			return
		}
		e = w.reports[w.r.IntN(len(w.reports))]
	case 27: // an entry of before, which another worker has taken over
		w.entry++
		stale := r.Messages[w.r.IntN(len(r.Messages))]
		if slices.Contains(w.state.Contact.Lanes[w.state.Messages[stale].Channel].Waiting, stale) {
			return // those have had none
		}
		w.do(SendingStarted{MessageID: stale, EntryID: fmt.Sprintf("%d-9", w.entry)})
		return
	case 28, 29:
		kinds := []OperationKind{OperationCapture, OperationReversal, OperationRefund, OperationRefund}
		asked := OperationRequested{RequestID: theRequest, Operation: kinds[w.r.IntN(len(kinds))]}
		if asked.Operation != OperationReversal && w.r.IntN(3) != 0 {
			asked.Amount = zar(1 + w.r.Int64N(15000))
		}
		w.do(asked) // twice would be another wish
		return
	case 30:
		e = AttemptNotified{RequestID: theRequest, Attempt: attempt}
	case 31: // somebody does what the platform would not allow, too
		kinds := []OperationKind{OperationCapture, OperationReversal, OperationRefund, OperationVoid}
		w.entry++
		done := OperationFound{
			RequestID: theRequest, Attempt: attempt, Operation: kinds[w.r.IntN(len(kinds))], Amount: rand149(1 + w.r.Int64N(14900)),
			PlatformID: fmt.Sprint("found", w.entry), PaymentID: fmt.Sprint(attempt), At: w.now,
		}
		if n := len(r.Operations); n > 0 {
			about := r.Operations[w.r.IntN(n)]
			done.Code, done.PaymentID = w.one("", about.ID), w.one(done.PaymentID, about.PaymentID, about.ResultID)
		}
		e = done
	}
	_, again := e.(AgentWrote)
	w.do(e)
	if !again && w.r.IntN(4) == 0 {
		w.do(e)
	}
}

// reason returns any reason of a failure but those that end every story.
func (w *walk) reason() FailureReason {
	return FailureReason(w.one(string(FailureUnreachable), string(FailureRate), string(FailureNotOnChannel), string(FailureBlocked),
		string(FailureOutsideWindow), string(FailureTemplate), string(FailureProviderError), string(FailureUnknown), string(FailureOptedOut)))
}

// work takes one outbox entry, as a worker would.
func (w *walk) work() {
	w.t.Helper()
	ids := slices.Sorted(maps.Keys(w.outbox))
	if len(ids) > 0 {
		id := ids[w.r.IntN(len(ids))]
		e := w.outbox[id]
		switch e.Kind {
		case OutboxMessage:
			if w.r.IntN(6) == 0 {
				w.do(SendingPutOff{MessageID: e.MessageID, EntryID: id, For: time.Duration(w.r.IntN(9)) * time.Minute})
				return
			}
			effects := w.do(SendingStarted{MessageID: e.MessageID, EntryID: id})
			if effects.Outbound == nil {
				return
			}
			answer := MessageAnswered{MessageID: e.MessageID, EntryID: id, Sent: Sent{ProviderID: "p-" + e.MessageID}}
			defer func() { w.answers = append(w.answers, answer) }() // the one that dies may have sent it
			switch w.r.IntN(5) {
			case 0:
				answer = MessageAnswered{MessageID: e.MessageID, EntryID: id, Failed: true, Reason: w.reason()}
			case 1:
				answer = MessageAnswered{MessageID: e.MessageID, EntryID: id, Failed: true, Reason: FailureRate, RetryIn: time.Minute}
				if effects.Outbound.Purpose == PurposeConsent {
					w.confirmations[effects.Outbound.Channel]++ // that one surely did not go out
				}
			case 2:
				answer = MessageAnswered{MessageID: e.MessageID, EntryID: id, Unknown: true}
			case 3:
				return // it dies
			}
			w.do(answer)
		case OutboxInquiry:
			w.do(AttemptAnswered{RequestID: e.RequestID, Attempt: e.Attempt, Asked: true, EntryID: id, Result: Result{Outcome: walkOutcomes[w.r.IntN(len(walkOutcomes))]}})
		case OutboxOperation:
			if w.do(OperationStarted{RequestID: e.RequestID, OperationID: e.Operation, EntryID: id}).Operation == nil {
				return
			}
			states := []OperationState{OperationSucceeded, OperationSucceeded, OperationUnsettled, OperationPending, OperationFailed}
			answer := OperationAnswered{
				RequestID: e.RequestID, OperationID: e.Operation, EntryID: id, State: states[w.r.IntN(len(states))],
				ResultID: w.one("", "at-"+e.Operation), Error: w.one("", "X", ErrorSettled, ErrorUnderReview),
			}
			w.done = append(w.done, answer)
			if w.r.IntN(4) != 0 { // else it dies
				w.do(answer)
			}
			if w.r.IntN(4) == 0 { // an answer that comes late, or twice
				w.do(w.done[w.r.IntN(len(w.done))])
			}
		case OutboxHolder:
			if w.r.IntN(2) == 0 {
				w.do(HolderTold{RequestID: e.RequestID, EntryID: id})
			} else {
				w.do(OrderAlreadyPaid{RequestID: e.RequestID, By: "pr_0other", EntryID: id})
			}
		}
	}
}

func (w *walk) check() {
	w.t.Helper()
	r, fail := w.request(), w.t.Fatalf
	flying, counted := 0, 0
	for _, a := range r.Attempts {
		switch a.State {
		case AttemptSending, AttemptUnsettled, AttemptAuthenticating:
			flying++
		case AttemptAuthorized, AttemptCaptured:
			if !slices.ContainsFunc(r.Operations, func(o Operation) bool { return o.Attempt == a.N }) {
				counted++
			}
		}
	}
	if flying > 1 {
		fail("%d attempts are in flight", flying)
	}
	if counted > 1 {
		fail("the money of %d attempts is kept", counted)
	}
	if r.AuthorizedMinor < 0 || r.CapturedMinor < 0 || r.ReversedMinor < 0 || r.RefundedMinor < 0 || r.Capturable() < 0 || r.Refundable() < 0 {
		fail("a total is negative: %+v", r)
	}
	if r.CapturedMinor+r.ReversedMinor > r.AuthorizedMinor || r.RefundedMinor > r.CapturedMinor {
		fail("more was done than there is: %+v", r)
	}
	if s := r.sums(); r.PaidBy > 0 && (s != sums{r.CapturedMinor, r.ReversedMinor, r.RefundedMinor, r.Unbalanced}) {
		fail("the totals are %d, %d, %d, %v; the operations make %+v", r.CapturedMinor, r.ReversedMinor, r.RefundedMinor, r.Unbalanced, s)
	}
	if slices.Contains(afterMoney, r.Lifecycle) != (r.PaidBy > 0) || r.PaidBy > 0 && (r.Receipt == nil || !slices.Contains(w.messages(), PurposeReceipt)) {
		fail("%s, paid by attempt %d, receipt %v, messages %v", r.Lifecycle, r.PaidBy, r.Receipt != nil, w.messages())
	}
	for i, e := range w.events {
		if e.Seq != int64(i+1) {
			fail("event %d has number %d", i+1, e.Seq)
		}
	}
	for m := range w.milestones {
		if _, ok := r.Milestones[m]; !ok {
			fail("milestone %s went away", m)
		}
	}
	for m := range r.Milestones {
		w.milestones[m] = true
	}
	w.checkTimers()
	w.checkLanes()
	w.checkFollowUps()
}

// checkFollowUps: a message is followed by one at most, with the same link, and
// the timers are those that the messages wait for.
func (w *walk) checkFollowUps() {
	w.t.Helper()
	followed := map[string]string{}
	for id, m := range w.state.Messages {
		_, timer := w.timers[Timer{Kind: TimerFollowUp, ContactID: theContact, ID: id}.member()]
		if timer != (m.FollowUpAt != nil) {
			w.t.Fatalf("%s (%s) has a follow-up timer: %v, follows up at %v", id, m.Status, timer, m.FollowUpAt)
		}
		if m.Follows == "" {
			continue
		}
		before := w.state.Messages[m.Follows]
		if other, twice := followed[m.Follows]; twice || before.FollowedBy != id {
			w.t.Fatalf("%s and %s follow %s, which is followed by %s", id, other, m.Follows, before.FollowedBy)
		}
		followed[m.Follows] = id
		if m.Parameters.Link != before.Parameters.Link || m.Purpose != before.Purpose {
			w.t.Fatalf("%s is not what %s was", id, m.Follows)
		}
	}
}

// checkTimers: whatever must go on by itself has something that makes it.
func (w *walk) checkTimers() {
	w.t.Helper()
	r := w.request()
	window, ok := w.timers[Timer{Kind: TimerWindow, ContactID: theContact, ID: theRequest}.member()]
	if ok != (r.Lifecycle == Open) || ok && !window.At.Equal(r.deadline()) {
		w.t.Fatalf("%s has a window timer %v at %v, its window ends %v", r.Lifecycle, ok, window.At, r.deadline())
	}
	for _, a := range r.Attempts {
		_, timer := w.timers[Timer{Kind: TimerAttempt, ContactID: theContact, ID: theRequest, N: a.N}.member()]
		if timer != (a.AskAt != nil) {
			w.t.Fatalf("attempt %d (%s) has a timer: %v, is asked at %v", a.N, a.State, timer, a.AskAt)
		}
		givenBack := slices.ContainsFunc(r.Operations, func(o Operation) bool { return o.Attempt == a.N })
		switch a.State {
		case AttemptSending, AttemptUnsettled, AttemptAuthenticating, AttemptInReview:
			if !timer && !givenBack {
				w.t.Fatalf("attempt %d is %s and nobody will ask", a.N, a.State)
			}
		case AttemptReversing:
			if !givenBack {
				w.t.Fatalf("attempt %d is %s and nothing gives it back", a.N, a.State)
			}
		case AttemptNotFound: // searched for a day
		default:
			if timer {
				w.t.Fatalf("attempt %d is %s and still asked after", a.N, a.State)
			}
		}
	}
	for i, o := range r.Operations {
		_, timer := w.timers[Timer{Kind: TimerOperation, ContactID: theContact, ID: theRequest, N: i + 1}.member()]
		waits := timer
		for _, e := range w.outbox {
			waits = waits || e.Operation == o.ID
		}
		if over := o.State == OperationSucceeded || o.State == OperationFailed; !over && !waits || over && timer {
			w.t.Fatalf("operation %s is %s, waits: %v", o.ID, o.State, waits)
		}
	}
}

// checkLanes: at most one entry of a lane is out, and none stands still.
func (w *walk) checkLanes() {
	w.t.Helper()
	for channel, lane := range w.state.Contact.Lanes {
		out := map[string]int{}
		for _, e := range w.outbox {
			if e.Kind == OutboxMessage && w.state.Messages[e.MessageID].Channel == channel {
				out[e.MessageID]++
			}
		}
		for id := range out {
			if s := w.state.Messages[id].Status; id != lane.Current && (s == DeliveryQueued || s == DeliverySending) {
				w.t.Fatalf("%s is out, %s is at the head of the lane", id, lane.Current)
			}
		}
		if lane.Current == "" {
			if len(lane.Waiting) > 0 {
				w.t.Fatalf("%v wait for nothing", lane.Waiting)
			}
			continue
		}
		m := w.state.Messages[lane.Current]
		_, timer := w.timers[Timer{Kind: TimerMessage, ContactID: theContact, ID: m.ID}.member()]
		if out[m.ID] == 0 && !timer {
			w.t.Fatalf("%s stands at the head of its lane: %s, %d entries, timer %v", m.ID, m.Status, out[m.ID], timer)
		}
	}
}

// settle lets time run and every worker succeed: then nothing may be left.
func (w *walk) settle() {
	w.t.Helper()
	for range 40 {
		for _, id := range slices.Sorted(maps.Keys(w.outbox)) {
			e := w.outbox[id]
			switch e.Kind {
			case OutboxMessage:
				if w.do(SendingStarted{MessageID: e.MessageID, EntryID: id}).Outbound != nil {
					w.do(MessageAnswered{MessageID: e.MessageID, EntryID: id, Sent: Sent{ProviderID: "p-" + e.MessageID}})
				}
			case OutboxInquiry:
				w.do(AttemptAnswered{RequestID: e.RequestID, Attempt: e.Attempt, Asked: true, EntryID: id, Result: Result{Outcome: OutcomeDeclined}})
			case OutboxOperation:
				w.do(OperationAnswered{RequestID: e.RequestID, OperationID: e.Operation, EntryID: id, State: OperationSucceeded})
			case OutboxHolder:
				w.do(HolderTold{RequestID: e.RequestID, EntryID: id})
			}
		}
		w.check()
		w.after(3 * time.Hour)
	}
	r := w.request()
	if len(w.outbox) > 0 || len(w.timers) > 0 {
		w.t.Errorf("after all is done there are %v, %v", w.outbox, w.timers)
	}
	// Where a hold could not be given back a person has to look.
	failed := slices.ContainsFunc(r.Operations, func(o Operation) bool { return o.State == OperationFailed })
	if !failed && len(w.state.Contact.Requests) > 0 {
		w.t.Errorf("the request is still %s: %+v %+v", r.Lifecycle, r.Attempts, r.Operations)
	}
	if strings.Contains(string(r.Reason), ReasonReversing) && r.Lifecycle != Paid && r.Lifecycle != Authorized {
		w.t.Errorf("%s with reason %s: %+v", r.Lifecycle, r.Reason, r.Operations)
	}
}
