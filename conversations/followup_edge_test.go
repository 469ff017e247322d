package conversations

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// head returns the id of the message at the head of a lane.
func (s *story) head(channel Channel) string { return s.state.Contact.Lanes[channel].Current }

// drain lets the provider take everything that waits, but for what is being
// sent already.
func (s *story) drain() {
	s.t.Helper()
	for worked := true; worked; {
		worked = false
		for _, id := range slices.Sorted(maps.Keys(s.outbox)) {
			e, waits := s.outbox[id]
			if !waits || s.state.Messages[e.MessageID].Status == DeliverySending {
				continue
			}
			worked = true
			if s.do(SendingStarted{MessageID: e.MessageID, EntryID: id}).Outbound != nil {
				s.do(MessageAnswered{MessageID: e.MessageID, EntryID: id, Sent: Sent{ProviderID: "ext-" + e.MessageID}})
			}
		}
	}
}

// went returns how many messages of a purpose went to a provider by a channel.
func (s *story) went(channel Channel, purpose Purpose) int {
	n := 0
	for _, o := range s.out {
		if o.Channel == channel && o.Purpose == purpose {
			n++
		}
	}
	return n
}

func (s *story) identityChanges() {
	s.t.Helper()
	s.entry++
	s.do(MessageReceived{MessageID: fmt.Sprint("m_0id", s.entry), MerchantID: "acme", ContactID: theContact, Inbound: Inbound{
		Kind: InboundIdentity, SenderID: "acme-wa", ProviderID: fmt.Sprint("id", s.entry), At: s.now, Addresses: []Address{{AddressPhone, "+27821234567"}},
	}})
}

// TestOneSMSForTwoMessages: the agent sent the link again on WhatsApp before the
// first was known to be lost. Whatever happens to both, one SMS is enough.
func TestOneSMSForTwoMessages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		lose func(s *story, first, second string)
	}{
		{"the first fails, then the second", func(s *story, first, second string) {
			s.report(first, DeliveryFailed, FailureNotOnChannel)
			s.report(second, DeliveryFailed, FailureNotOnChannel)
		}},
		{"the second fails, then the first", func(s *story, first, second string) {
			s.report(second, DeliveryFailed, FailureNotOnChannel)
			s.report(first, DeliveryFailed, FailureNotOnChannel)
		}},
		{"neither is delivered", func(s *story, _, _ string) { s.after(30 * time.Minute) }},
		{"one fails, the other is never delivered", func(s *story, first, _ string) {
			s.report(first, DeliveryFailed, FailureRate)
			s.after(30 * time.Minute)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := fallingBack(t, 5*time.Minute)
			first := s.newest().ID
			s.taken(first)
			s.after(time.Minute)
			s.do(Resent{RequestID: theRequest})
			second := s.newest().ID
			s.taken(second)
			c.lose(s, first, second)
			s.drain()
			if n := s.went(SMS, PurposePayment); n != 1 {
				t.Errorf("%d SMS went out", n)
			}
			if n := s.went(WhatsApp, PurposePayment); n != 2 {
				t.Errorf("%d messages on WhatsApp, want the two that were asked for", n)
			}
		})
	}
}

// TestLateArrivalStopsTheWholeChain: what follows may have failed itself.
func TestLateArrivalStopsTheWholeChain(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	first := s.newest().ID
	s.taken(first)
	s.report(first, DeliveryFailed, FailureRate)
	s.after(s.state.Timings.ResendAfter)
	second := s.newest().ID
	s.taken(second)
	s.report(second, DeliveryFailed, FailureNotOnChannel) // SMS waits
	s.report(first, DeliveryDelivered, "")
	s.drain()
	if n := s.went(SMS, PurposePayment); n != 0 {
		t.Errorf("%d SMS went to who has the message", n)
	}
	if on := s.request().SendsOn(); on != WhatsApp {
		t.Errorf("WhatsApp works, and what follows goes by %s", on)
	}
	// The same while the second waits to be sent again.
	s = fallingBack(t, 0)
	first = s.newest().ID
	s.taken(first)
	s.report(first, DeliveryFailed, FailureRate)
	s.after(s.state.Timings.ResendAfter)
	second = s.newest().ID
	s.taken(second)
	s.report(second, DeliveryFailed, FailureRate)
	s.report(first, DeliveryRead, "")
	s.after(time.Hour / 2)
	if s.newest().ID != second {
		t.Error("it is sent again to who has read it")
	}
}

// TestLateArrivalWhileTheSMSIsInDoubt: its try was lost, and is not repeated.
func TestLateArrivalWhileTheSMSIsInDoubt(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	first := s.newest().ID
	s.taken(first)
	s.report(first, DeliveryFailed, FailureNotOnChannel)
	sms := s.newest().ID
	s.do(MessageAnswered{MessageID: sms, EntryID: s.send()[sms], Unknown: true})
	s.report(first, DeliveryDelivered, "")
	s.after(time.Hour / 2)
	s.drain()
	if n := s.went(SMS, PurposePayment); n != 1 {
		t.Errorf("the SMS went %d times", n)
	}
	if m := s.state.Messages[sms]; m.Status != DeliveryFailed || m.Reason != FailureNotNeeded {
		t.Errorf("the SMS is %s (%s)", m.Status, m.Reason)
	}
}

// TestSMSWhileWhatsAppIsInDoubt: SMS has taken over, so the try whose outcome
// was lost is not repeated.
func TestSMSWhileWhatsAppIsInDoubt(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 30*time.Second)
	first := s.newest().ID
	s.do(MessageAnswered{MessageID: first, EntryID: s.send()[first], Unknown: true})
	s.after(30 * time.Second)
	s.drain()
	s.after(time.Hour / 2)
	s.drain()
	if wa, sms := s.went(WhatsApp, PurposePayment), s.went(SMS, PurposePayment); wa != 1 || sms != 1 {
		t.Errorf("%d went on WhatsApp and %d by SMS", wa, sms)
	}
}

// TestTheMerchantsTimeHoldsForResends: it is counted from the first message, and
// a resend is watched as the first was.
func TestTheMerchantsTimeHoldsForResends(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		failed time.Duration // when the first one fails
		want   []Channel     // of what is sent by the end of the merchant's time
	}{
		{"at once", 0, []Channel{WhatsApp, WhatsApp, SMS}},
		{"near the end", 4 * time.Minute, []Channel{WhatsApp, SMS}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := fallingBack(t, 5*time.Minute)
			s.taken(s.newest().ID)
			s.after(c.failed)
			s.report(s.newest().ID, DeliveryFailed, FailureRate)
			for i := c.failed; i < 5*time.Minute; i += time.Minute {
				s.drain()
				s.after(time.Minute)
			}
			s.drain()
			var got []Channel
			for _, o := range s.out {
				got = append(got, o.Channel)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("it went by %v, want %v", got, c.want)
			}
		})
	}
}

// TestFailedIsNotDeliveredInTime: a merchant that lets no failure, but time
// decide, waits for that time.
func TestFailedIsNotDeliveredInTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reason FailureReason
		sms    int
	}{{FailureNotOnChannel, 1}, {FailureBlocked, 0}, {FailureOptedOut, 0}, {FailureInvalidNumber, 0}} {
		s := fallingBack(t, 5*time.Minute)
		s.state.Merchant.Fallback.OnFailure = false
		s.taken(s.newest().ID)
		s.report(s.newest().ID, DeliveryFailed, c.reason)
		s.after(5*time.Minute - time.Second)
		s.drain()
		if n := s.went(SMS, PurposePayment); n != 0 {
			t.Errorf("%s: SMS came early", c.reason)
		}
		s.after(time.Second)
		s.drain()
		if n := s.went(SMS, PurposePayment); n != c.sms {
			t.Errorf("%s: %d SMS, want %d", c.reason, n, c.sms)
		}
		if n := s.went(WhatsApp, PurposePayment); n != 1 {
			t.Errorf("%s: %d messages on WhatsApp", c.reason, n)
		}
	}
	// SMS is not allowed, and sending the same again would not help.
	s := fallingBack(t, 5*time.Minute)
	s.state.Merchant.Fallback.OnFailure = false
	s.taken(s.newest().ID)
	s.report(s.newest().ID, DeliveryFailed, FailureNotOnChannel)
	s.says(SMS, "STOP")
	s.after(time.Hour / 2)
	s.drain()
	if n := s.went(WhatsApp, PurposePayment) + s.went(SMS, PurposePayment); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// TestWhatIsOverIsNotSent: a message that waited until its request was over.
func TestWhatIsOverIsNotSent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(*story)
	}{
		{"expired", func(s *story) { s.after(time.Hour) }},
		{"cancelled", func(s *story) { s.do(CancelRequested{RequestID: theRequest}) }},
		{"superseded", func(s *story) { s.after(time.Hour); s.do(SupersededBy{RequestID: theRequest, By: "pr_0other"}) }},
		{"paid", func(s *story) {
			s.do(LinkOpened{theRequest})
			s.do(ContextIssued{RequestID: theRequest, Context: CaptureContext{KeyID: "k", ExpiresAt: s.now.Add(time.Hour)}})
			s.start()
			s.answer(1, OutcomeCaptured)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := createdStory(t)
			for id, e := range s.outbox {
				s.do(SendingPutOff{MessageID: e.MessageID, EntryID: id, For: time.Hour / 2})
			}
			c.end(s)
			s.after(time.Hour / 2)
			s.drain()
			if n := s.went(WhatsApp, PurposePayment); n != 0 {
				t.Error("it asks for a payment that is over")
			}
			if m := s.state.Messages[s.request().Messages[0]]; m.Reason != FailureNotNeeded {
				t.Errorf("it is %s (%s)", m.Status, m.Reason)
			}
		})
	}
}

// TestExtendedMeanwhile: the message of before does not come back beside that of
// the extension.
func TestExtendedMeanwhile(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 90*time.Minute)
	s.taken(s.newest().ID)
	s.after(time.Hour) // expired
	s.do(Extended{RequestID: theRequest})
	s.taken(s.newest().ID)
	s.after(31 * time.Minute) // the first one's time is up
	s.drain()
	if n := s.went(SMS, PurposePayment); n != 0 {
		t.Errorf("%d SMS, while the newer message has time left", n)
	}
}

// TestReportsInAnyOrder: sent after failed is no news, and the same reports in
// any order end the same way.
func TestReportsInAnyOrder(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	first := s.newest().ID
	s.taken(first)
	s.report(first, DeliveryFailed, FailureNotOnChannel)
	s.report(first, DeliverySent, "")
	if m := s.state.Messages[first]; m.Status != DeliveryFailed || m.Reason != FailureNotOnChannel || m.Times[DeliverySent].IsZero() {
		t.Errorf("%s (%s), times %v", m.Status, m.Reason, m.Times)
	}
	s.report(first, DeliveryFailed, FailureNotOnChannel)
	s.drain()
	if n := s.went(SMS, PurposePayment); n != 1 {
		t.Errorf("%d SMS", n)
	}
}

// TestAnswerOfALostTry: a refusal of the first try comes when the second is out;
// the second's outcome counts.
func TestAnswerOfALostTry(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	id := s.newest().ID
	lost := s.send()[id]
	s.do(MessageAnswered{MessageID: id, EntryID: lost, Unknown: true})
	s.after(s.state.Timings.EchoWithin)
	again := s.send()[id]
	s.do(MessageAnswered{MessageID: id, EntryID: lost, Failed: true, Reason: FailureNotOnChannel})
	s.do(MessageAnswered{MessageID: id, EntryID: again, Sent: Sent{ProviderID: "x"}})
	s.drain()
	if m := s.state.Messages[id]; m.Status != DeliveryAccepted || s.went(SMS, PurposePayment) != 0 {
		t.Errorf("%s (%s), %d SMS", m.Status, m.Reason, s.went(SMS, PurposePayment))
	}
}

// TestIdentityHoldsBackSMS: whoever has the number now gets its SMS too.
func TestIdentityHoldsBackSMS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		then func(*story)
	}{
		{"not delivered in time", func(s *story) { s.identityChanges(); s.after(time.Hour / 2) }},
		{"failed", func(s *story) { s.identityChanges(); s.report(s.newest().ID, DeliveryFailed, FailureNotOnChannel) }},
		{"refused for it", func(s *story) { s.report(s.newest().ID, DeliveryFailed, FailureIdentityChanged) }},
		{"the SMS waits already", func(s *story) { s.report(s.newest().ID, DeliveryFailed, FailureNotOnChannel); s.identityChanges() }},
		{"sent again by the agent", func(s *story) {
			s.report(s.newest().ID, DeliveryFailed, FailureNotOnChannel)
			s.identityChanges()
			s.do(Resent{RequestID: theRequest})
		}},
		{"cancelled", func(s *story) {
			s.report(s.newest().ID, DeliveryFailed, FailureNotOnChannel)
			s.identityChanges()
			s.do(CancelRequested{RequestID: theRequest})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := fallingBack(t, 5*time.Minute)
			s.taken(s.newest().ID)
			c.then(s)
			s.drain()
			for _, o := range s.out {
				if o.Channel == SMS {
					t.Errorf("a %s message went by SMS", o.Purpose)
				}
			}
			s.do(LinkOpened{theRequest}) // the page does not ask who it is
			if s.request().Lifecycle == Open {
				s.wantAllowed()
			}
		})
	}
	// What a merchant asks for by SMS has nothing to do with WhatsApp's keys.
	s := newStory(t)
	s.create("pr_0000000000000000000b")
	s.identityChanges()
	s.do(Created{Request: PaymentRequest{
		ID: theRequest, MerchantID: "acme", ContactID: theContact, Order: anOrder("1043"), Phone: "+27821234567", Channel: SMS, Locale: "en",
		LinkCode: "0link2", ReceiptCode: "0receipt2", TimeToOpen: time.Hour, TimeToPay: 15 * time.Minute,
	}})
	s.drain()
	if n := s.went(SMS, PurposePayment); n != 1 {
		t.Errorf("%d SMS that the merchant asked for", n)
	}
}

// TestOptedOutOfTheSMSThatTookOver: what follows is tried where it began.
func TestOptedOutOfTheSMSThatTookOver(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	s.taken(s.newest().ID)
	s.report(s.newest().ID, DeliveryFailed, FailureUnreachable)
	s.drain()
	s.says(SMS, "STOP")
	s.do(Resent{RequestID: theRequest})
	s.wantAllowed()
	if m := s.newest(); m.Channel != WhatsApp {
		t.Errorf("it goes by %s", m.Channel)
	}
}

func TestResendsAreBounded(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	for range 2 * maxRequestMessages {
		s.do(Resent{RequestID: theRequest})
		s.drain()
	}
	s.wantRefused("too_many_messages")
	if n := len(s.request().Messages); n != maxRequestMessages {
		t.Errorf("%d messages, want %d", n, maxRequestMessages)
	}
	if slices.Contains(Allowed(s.state.Merchant, s.state.Contact, s.request(), s.now), "resend") {
		t.Error("a resend is offered that would be refused")
	}
}

// TestWindowOpeners: what a customer writes opens the window, and nothing else
// does, nor for longer than a day by our clock.
func TestWindowOpeners(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		in   Inbound
		want time.Duration // how long free text is allowed from now
	}{
		{"text", Inbound{Kind: InboundText, Text: "hello"}, 24 * time.Hour},
		{"an hour late", Inbound{Kind: InboundText, Text: "hello", At: noon.Add(-time.Hour)}, 23 * time.Hour},
		{"a clock that runs ahead", Inbound{Kind: InboundText, Text: "hello", At: noon.Add(10 * time.Hour)}, 24 * time.Hour},
		{"a button", Inbound{Kind: InboundButton, Button: "status"}, 24 * time.Hour},
		{"a reaction", Inbound{Kind: InboundOther, MediaType: "reaction"}, 24 * time.Hour},
		{"other keys", Inbound{Kind: InboundIdentity}, 0},
		{"a setting", Inbound{Kind: InboundConsent, Consent: ConsentOptedIn}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := createdStory(t)
			c.in.SenderID, c.in.ProviderID, c.in.Addresses = "acme-wa", "in", []Address{{AddressPhone, "+27821234567"}}
			if c.in.At.IsZero() {
				c.in.At = s.now
			}
			s.do(MessageReceived{MessageID: "m_0in", MerchantID: "acme", ContactID: theContact, Inbound: c.in})
			if at := s.state.Messages["m_0in"].At; at.After(s.now) {
				t.Errorf("it was said at %v", at)
			}
			wrote := AgentWrote{MessageID: "m_0agent", Channel: WhatsApp, Text: "Hi", Agent: "zoe"}
			if c.want > 0 {
				s.now = noon.Add(c.want - time.Millisecond)
				s.do(wrote)
				s.wantAllowed()
				wrote.MessageID = "m_0agent2"
			}
			s.now = noon.Add(c.want)
			s.do(wrote)
			s.wantRefused("outside_window")
		})
	}
}

// TestLaterTryKnowsTheWindow: a try that was put off goes as a template once the
// window has closed meanwhile.
func TestLaterTryKnowsTheWindow(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	s.says(WhatsApp, "cancel")
	s.drain()
	s.now = s.now.Add(24*time.Hour - time.Minute)
	s.create(theRequest)
	id := s.newest().ID
	s.do(MessageAnswered{MessageID: id, EntryID: s.send()[id], Failed: true, Reason: FailureRate, RetryIn: time.Minute})
	s.after(time.Minute)
	s.out = s.out[len(s.out)-1:]
	s.send()
	if len(s.out) != 2 || s.out[0].Template || !s.out[1].Template {
		t.Errorf("sent %+v", s.out)
	}
}

// TestOneConfirmation: who has opted out gets one message more at most.
func TestOneConfirmation(t *testing.T) {
	t.Parallel()
	// Its outcome is lost: it is not sent again.
	s := createdStory(t)
	s.says(SMS, "STOP")
	id := s.head(SMS)
	s.do(MessageAnswered{MessageID: id, EntryID: s.send()[id], Unknown: true})
	s.after(time.Hour / 2)
	s.drain()
	if n := s.went(SMS, PurposeConsent); n != 1 {
		t.Errorf("%d confirmations after a time-out", n)
	}
	// Words to and fro while nothing can be sent.
	for _, c := range []struct {
		words                []string
		confirmed, restarted int
	}{
		{[]string{"STOP", "STOP"}, 1, 0},
		{[]string{"STOP", "START"}, 0, 1},
		{[]string{"STOP", "START", "STOP"}, 1, 0},
		{slices.Repeat([]string{"STOP", "START"}, 30), 0, 10},
	} {
		s := createdStory(t)
		for id, e := range s.outbox {
			s.do(SendingPutOff{MessageID: e.MessageID, EntryID: id, For: time.Minute})
		}
		for _, word := range c.words {
			s.says(WhatsApp, word)
		}
		if n := len(s.state.Contact.Lanes[WhatsApp].Waiting); n > maxWaiting {
			t.Errorf("%v: %d messages wait", c.words, n)
		}
		s.after(time.Minute)
		s.drain()
		if stop, start := s.went(WhatsApp, PurposeConsent), s.went(WhatsApp, PurposeReply); stop != c.confirmed || start != c.restarted {
			t.Errorf("%d words: %d confirmations of STOP and %d of START", len(c.words), stop, start)
		}
	}
	// The lane is full, and the word counts all the same.
	s = createdStory(t)
	for range 2 * maxWaiting {
		s.says(SMS, "pay")
	}
	s.says(SMS, "STOP")
	s.drain()
	if s.state.Contact.Consent[SMS] != ConsentOptedOut || len(s.out) != 1 {
		t.Errorf("%s, and %d messages went out", s.state.Contact.Consent[SMS], len(s.out))
	}
}

// TestWordsOutOfOrder: an opt-in that was said before an opt-out, and comes
// after it, does not undo it; nor does a refusal of before undo an opt-in.
func TestWordsOutOfOrder(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.taken(s.newest().ID)
	s.now = s.now.Add(time.Minute)
	s.says(WhatsApp, "STOP")
	s.do(MessageReceived{MessageID: "m_0late", MerchantID: "acme", ContactID: theContact, Inbound: Inbound{
		Kind: InboundText, SenderID: "acme-wa", ProviderID: "late", At: s.now.Add(-time.Second), Text: "START", Addresses: []Address{{AddressPhone, "+27821234567"}},
	}})
	if got := s.state.Contact.Consent[WhatsApp]; got != ConsentOptedOut {
		t.Fatalf("an opt-in of before makes it %s", got)
	}
	s.now = s.now.Add(time.Second)
	s.says(WhatsApp, "START")
	s.report(s.newest().ID, DeliveryFailed, FailureOptedOut)
	if got := s.state.Contact.Consent[WhatsApp]; got != ConsentOptedIn {
		t.Fatalf("a refusal of before makes it %s", got)
	}
	s.now = s.now.Add(time.Second)
	s.do(Resent{RequestID: theRequest})
	s.drain()
	s.report(s.newest().ID, DeliveryFailed, FailureOptedOut)
	if got := s.state.Contact.Consent[WhatsApp]; got != ConsentOptedOut {
		t.Errorf("a refusal makes it %s", got)
	}
}

// TestReportBeatsTheAnswer: the provider reports a failure before its answer to
// the call is here. It had taken the message all the same.
func TestReportBeatsTheAnswer(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	id := s.newest().ID
	entry := s.send()[id]
	s.report(id, DeliveryFailed, FailureRate)
	s.do(MessageAnswered{MessageID: id, EntryID: entry, Sent: Sent{ProviderID: "p-" + id}})
	if m := s.state.Messages[id]; m.FollowUpAt == nil || s.newest().ID != id || len(s.outbox) != 0 {
		t.Errorf("%s, followed by %s, outbox %v", m.Status, m.FollowedBy, s.outbox)
	}
}

func TestReasonText(t *testing.T) {
	t.Parallel()
	at := noon
	for _, c := range []struct {
		name string
		m    Message
		want string // the end of it
	}{
		{"no failure", Message{Status: DeliverySent}, ""},
		{"waits for its next try", Message{Status: DeliveryQueued, Reason: FailureRate, DueAt: &at}, "We try again by ourselves."},
		{"waits to be sent again", Message{Status: DeliveryFailed, Reason: FailureRate, FollowUpAt: &at}, "We send it again by ourselves."},
		{"followed", Message{Status: DeliveryFailed, Reason: FailureNotOnChannel, FollowedBy: "m_0"}, "Another message was sent in its place."},
		{"nobody answered", Message{Status: DeliveryFailed, Reason: FailureUnknown, Lost: 5}, "may have got it all the same."},
		{"over", Message{Status: DeliveryFailed, Reason: FailureRate}, FailureReasons[FailureRate]},
	} {
		if got := c.m.ReasonText(); !strings.HasSuffix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	for reason, said := range FailureReasons {
		if strings.Contains(said, "again by ourselves") {
			t.Errorf("%s promises what only the message knows: %q", reason, said)
		}
	}
}
