package conversations

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// fallingBack is a story whose merchant lets SMS take over.
func fallingBack(t testing.TB, after time.Duration) *story {
	s := newStory(t)
	s.state.Merchant.Fallback = Fallback{OnFailure: true, After: after}
	s.create(theRequest)
	return s
}

// taken lets the provider take the message that is at the head of its lane.
func (s *story) taken(id string) {
	s.t.Helper()
	entry := s.send()[id]
	if entry == "" {
		s.t.Fatalf("%s is not sent", id)
	}
	s.do(MessageAnswered{MessageID: id, EntryID: entry, Sent: Sent{ProviderID: "ext-" + id, Status: DeliveryAccepted}})
}

// newest returns the newest message of the request.
func (s *story) newest() *Message {
	ids := s.request().Messages
	return s.state.Messages[ids[len(ids)-1]]
}

func (s *story) logged(kind string) bool {
	return slices.ContainsFunc(s.events, func(e LoggedEvent) bool { return e.Type == kind })
}

func TestStepAfter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		reason   FailureReason
		channel  Channel
		taken    bool
		template bool
		resends  int
		want     NextStep
	}{
		{"not on WhatsApp", FailureNotOnChannel, WhatsApp, true, true, 0, StepSMS},
		{"window closed for free text", FailureOutsideWindow, WhatsApp, true, false, 0, StepTemplate},
		{"window closed for a template", FailureOutsideWindow, WhatsApp, true, true, 0, StepSMS},
		{"opted out", FailureOptedOut, WhatsApp, true, true, 0, StepStop},
		{"blocked", FailureBlocked, WhatsApp, true, true, 0, StepStop},
		{"another person", FailureIdentityChanged, WhatsApp, false, true, 0, StepStop},
		{"a wrong number", FailureInvalidNumber, WhatsApp, false, true, 0, StepStop},
		{"called off", FailureNotNeeded, WhatsApp, false, true, 0, StepStop},
		{"too fast, reported later", FailureRate, WhatsApp, true, true, 0, StepResend},
		{"too fast, again and again", FailureRate, WhatsApp, true, true, 2, StepSMS},
		{"too fast, after the dispatcher's tries", FailureRate, WhatsApp, false, true, 0, StepSMS},
		{"phone off, SMS", FailureUnreachable, SMS, true, false, 0, StepResend},
		{"phone still off, SMS", FailureUnreachable, SMS, true, false, 1, StepStop},
		{"phone off, WhatsApp", FailureUnreachable, WhatsApp, true, true, 0, StepSMS},
		{"fault, SMS", FailureProviderError, SMS, true, false, 0, StepResend},
		{"fault twice, SMS", FailureProviderError, SMS, true, false, 1, StepStop},
		{"filtered, SMS", FailureContentFiltered, SMS, true, false, 0, StepStop},
		{"unknown, SMS", FailureUnknown, SMS, true, false, 0, StepStop},
	} {
		if got := StepAfter(c.reason, c.channel, c.taken, c.template, c.resends); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	for reason := range FailureReasons {
		if step := StepAfter(reason, SMS, true, false, 9); step != StepStop {
			t.Errorf("%s on SMS, after many resends: %s, want an end", reason, step)
		}
	}
}

func TestSMSTakesOver(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	first := s.request().Messages[0]
	s.taken(first)
	s.report(first, DeliveryFailed, FailureNotOnChannel)
	m := s.newest()
	if m.Channel != SMS || m.Follows != first || s.state.Messages[first].FollowedBy != m.ID || !s.logged("fell_back") {
		t.Fatalf("followed by %+v", m)
	}
	if m.Parameters.Link != s.state.Messages[first].Parameters.Link || !strings.Contains(m.Text, m.Parameters.Link) {
		t.Errorf("the SMS has another link, or none: %q", m.Text)
	}
	// What follows goes by SMS too.
	s.do(LinkOpened{theRequest})
	s.do(CancelRequested{RequestID: theRequest})
	if got := s.newest(); got.Purpose != PurposeCancelled || got.Channel != SMS {
		t.Errorf("the cancellation goes by %s", got.Channel)
	}
	// A second report of the same changes nothing.
	n := len(s.request().Messages)
	s.report(first, DeliveryFailed, FailureNotOnChannel)
	if len(s.request().Messages) != n {
		t.Error("SMS took over twice")
	}
}

func TestSMSDoesNotTakeOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*story)
		reason FailureReason
	}{
		{"opted out of SMS", func(s *story) { s.says(SMS, "STOP") }, FailureNotOnChannel},
		{"no SMS sender", func(s *story) { delete(s.state.Merchant.Senders, SMS) }, FailureNotOnChannel},
		{"not wanted by the merchant", func(s *story) { s.state.Merchant.Fallback = Fallback{} }, FailureNotOnChannel},
		{"the customer stopped WhatsApp", func(*story) {}, FailureOptedOut},
		{"the customer blocks us", func(*story) {}, FailureBlocked},
		{"paid meanwhile", func(s *story) {
			s.do(LinkOpened{theRequest})
			s.do(ContextIssued{RequestID: theRequest, Context: CaptureContext{KeyID: "k", ExpiresAt: s.now.Add(time.Hour)}})
			s.start()
			s.answer(1, OutcomeCaptured)
		}, FailureNotOnChannel},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := fallingBack(t, 0)
			first := s.request().Messages[0]
			s.taken(first)
			c.change(s)
			s.report(first, DeliveryFailed, c.reason)
			for _, id := range s.request().Messages {
				if m := s.state.Messages[id]; m.Follows != "" {
					t.Errorf("%s goes by %s", m.Purpose, m.Channel)
				}
			}
		})
	}
}

// TestOptOutWhileTheSMSWaits: the opt-out holds at the moment of sending.
func TestOptOutWhileTheSMSWaits(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	first := s.request().Messages[0]
	s.taken(first)
	s.report(first, DeliveryFailed, FailureNotOnChannel)
	s.says(SMS, "STOP")
	s.out = nil
	s.send()
	for _, o := range s.out {
		if o.Channel == SMS && o.Purpose != PurposeConsent {
			t.Errorf("a %s message went to who has opted out", o.Purpose)
		}
	}
}

func TestNotDeliveredInTime(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 5*time.Minute)
	first := s.request().Messages[0]
	s.taken(first)
	s.report(first, DeliverySent, "")
	s.after(4 * time.Minute)
	if len(s.request().Messages) != 1 {
		t.Fatal("SMS came too early")
	}
	s.after(time.Minute)
	sms := s.newest()
	if sms.Channel != SMS || sms.Status != DeliveryQueued {
		t.Fatalf("after the merchant's time: %+v", sms)
	}
	// It arrives on WhatsApp before the SMS has gone out: one is enough.
	s.report(first, DeliveryDelivered, "")
	if sms = s.state.Messages[sms.ID]; sms.Status != DeliveryFailed || sms.Reason != FailureNotNeeded {
		t.Errorf("the SMS is %s (%s)", sms.Status, sms.Reason)
	}
	s.out = nil
	s.send()
	if len(s.out) != 0 || len(s.outbox) != 0 {
		t.Errorf("sent %v, outbox %v", s.out, s.outbox)
	}
}

func TestDeliveredInTime(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 5*time.Minute)
	first := s.request().Messages[0]
	s.taken(first)
	s.report(first, DeliveryRead, "")
	m := s.state.Messages[first]
	if _, ok := m.Times[DeliveryDelivered]; !ok {
		t.Error("what is read was delivered")
	}
	s.after(time.Hour / 2)
	if len(s.request().Messages) != 1 || m.FollowUpAt != nil {
		t.Errorf("%d messages, follow-up at %v", len(s.request().Messages), m.FollowUpAt)
	}
}

// TestNeverSentInTime: WhatsApp's sender is held back so long that SMS takes
// over; then the WhatsApp message is called off.
func TestNeverSentInTime(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 5*time.Minute)
	first := s.request().Messages[0]
	for range 5 {
		for id, e := range s.outbox {
			s.do(SendingPutOff{MessageID: e.MessageID, EntryID: id, For: time.Minute})
		}
		s.after(time.Minute)
	}
	if m := s.state.Messages[first]; m.Status != DeliveryFailed || m.Reason != FailureNotNeeded || s.newest().Channel != SMS {
		t.Fatalf("%s (%s), then %s", m.Status, m.Reason, s.newest().Channel)
	}
	s.send()
	if len(s.out) != 1 || s.out[0].Channel != SMS {
		t.Errorf("sent %v", s.out)
	}
}

func TestPutOff(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	id := s.request().Messages[0]
	for entry, e := range s.outbox {
		s.do(SendingPutOff{MessageID: e.MessageID, EntryID: entry, For: time.Minute})
	}
	if m := s.state.Messages[id]; m.Status != DeliveryQueued || m.Tries != 0 || len(s.outbox) != 0 {
		t.Fatalf("%s after %d tries, outbox %v", m.Status, m.Tries, s.outbox)
	}
	s.after(time.Minute)
	s.taken(id)
	if len(s.out) != 1 {
		t.Errorf("sent %d times", len(s.out))
	}
	// A worker that finds a message in sending learns that it may have gone out.
	s.do(Resent{RequestID: theRequest})
	next := s.newest().ID
	entry := s.send()[next]
	s.do(SendingPutOff{MessageID: next, EntryID: entry, For: time.Minute})
	if m := s.state.Messages[next]; m.Status != DeliverySending || m.EchoBy == nil || m.DoubtSince == nil {
		t.Errorf("%s, echo by %v", m.Status, m.EchoBy)
	}
}

func TestResendsLater(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	for want := range 2 {
		m := s.newest()
		s.taken(m.ID)
		s.report(m.ID, DeliveryFailed, FailureRate)
		if s.newest().ID != m.ID {
			t.Fatalf("resend %d came at once", want)
		}
		s.after(s.state.Timings.ResendAfter << want)
		if n := s.newest(); n.ID == m.ID || n.Channel != WhatsApp || n.Resends != want+1 {
			t.Fatalf("resend %d: %+v", want, n)
		}
	}
	m := s.newest()
	s.taken(m.ID)
	s.report(m.ID, DeliveryFailed, FailureRate)
	if n := s.newest(); n.Channel != SMS {
		t.Errorf("after two resends: %s", n.Channel)
	}
}

// TestLastingFailure: the company said that the same would fail again.
func TestLastingFailure(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	m := s.newest()
	s.taken(m.ID)
	s.do(StatusReported{MerchantID: "acme", MessageID: m.ID, Inbound: Inbound{
		Kind: InboundStatus, SenderID: m.SenderID, ProviderID: "ext-" + m.ID, Status: DeliveryFailed, Reason: FailureRate, Lasting: true, At: s.now,
	}})
	if n := s.newest(); n.Channel != SMS {
		t.Errorf("followed by %s on %s", n.ID, n.Channel)
	}
}

// TestArrivedAfterAll: the first report was wrong, so nothing is sent again.
func TestArrivedAfterAll(t *testing.T) {
	t.Parallel()
	s := fallingBack(t, 0)
	m := s.newest()
	s.taken(m.ID)
	s.report(m.ID, DeliveryFailed, FailureRate)
	s.report(m.ID, DeliveryDelivered, "")
	s.after(time.Hour / 2)
	if len(s.request().Messages) != 1 {
		t.Errorf("%d messages", len(s.request().Messages))
	}
}

func TestTemplateWhenTheWindowIsClosed(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.taken(s.newest().ID)
	if !s.out[0].Template {
		t.Error("the customer never wrote, and it goes as free text")
	}
	s.says(WhatsApp, "hello")
	s.do(Resent{RequestID: theRequest})
	s.send()
	last := func() Outbound {
		i := slices.IndexFunc(s.out, func(o Outbound) bool { return o.MessageID == s.newest().ID })
		if i < 0 {
			t.Fatalf("%s was not sent", s.newest().ID)
		}
		return s.out[i]
	}
	s.send()
	for id, e := range s.outbox {
		s.do(MessageAnswered{MessageID: e.MessageID, EntryID: id, Sent: Sent{ProviderID: e.MessageID}})
	}
	s.send()
	if last().Template {
		t.Fatal("the window is open, and it goes as a template")
	}
	// Meta's window has closed before ours.
	m := s.newest()
	for id, e := range s.outbox {
		s.do(MessageAnswered{MessageID: e.MessageID, EntryID: id, Sent: Sent{ProviderID: e.MessageID}})
	}
	s.report(m.ID, DeliveryFailed, FailureOutsideWindow)
	if s.newest().ID == m.ID {
		t.Fatal("nothing followed")
	}
	s.send()
	if !last().Template || last().Channel != WhatsApp {
		t.Errorf("then it goes as %+v", last())
	}
}

// TestWindowLag: an answer that WhatsApp refuses because its window lags
// behind is tried once more.
func TestWindowLag(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.says(WhatsApp, "help")
	s.out = nil
	s.send()
	for id, e := range s.outbox {
		s.do(MessageAnswered{MessageID: e.MessageID, EntryID: id, Sent: Sent{ProviderID: e.MessageID}})
	}
	s.send()
	i := slices.IndexFunc(s.out, func(o Outbound) bool { return o.Purpose == PurposeReply })
	if i < 0 {
		t.Fatal("the bot says nothing")
	}
	first := s.out[i].MessageID
	s.do(MessageAnswered{MessageID: first, EntryID: s.state.Messages[first].EntryID, Failed: true, Reason: FailureOutsideWindow})
	s.after(windowPause)
	s.out = nil
	s.send()
	if len(s.out) != 1 || s.out[0].Purpose != PurposeReply {
		t.Fatalf("sent %v", s.out)
	}
	again := s.out[0].MessageID
	s.do(MessageAnswered{MessageID: again, EntryID: s.state.Messages[again].EntryID, Failed: true, Reason: FailureOutsideWindow})
	s.after(windowPause)
	if len(s.outbox) != 0 || s.state.Messages[again].FollowedBy != "" {
		t.Error("it is tried for ever")
	}
}

func TestIdentityChanged(t *testing.T) {
	t.Parallel()
	s := createdStory(t)
	s.taken(s.newest().ID)
	s.says(WhatsApp, "cancel") // no opt-out word there; the bot's answer goes out
	s.taken(s.head(WhatsApp))
	s.entry++
	s.do(MessageReceived{MessageID: "m_0id", MerchantID: "acme", ContactID: theContact, Inbound: Inbound{
		Kind: InboundIdentity, SenderID: "acme-wa", ProviderID: "id1", At: s.now, Addresses: []Address{{AddressPhone, "+27821234567"}},
	}})
	s.do(Resent{RequestID: theRequest})
	s.send()
	if m := s.newest(); m.Status != DeliveryFailed || m.Reason != FailureIdentityChanged {
		t.Errorf("the link goes to whoever it is: %s (%s)", m.Status, m.Reason)
	}
	s.do(AgentWrote{MessageID: "m_0agent", Channel: WhatsApp, Text: "Who is it?", Agent: "a1"})
	s.says(WhatsApp, "me")
	s.out = nil
	s.send()
	if len(s.out) != 1 || s.out[0].Purpose != PurposeAgent {
		t.Errorf("sent %v", s.out)
	}
	s.do(IdentityVerified{Agent: "a1"})
	s.do(Resent{RequestID: theRequest})
	for id, e := range s.outbox {
		if e.MessageID == "m_0agent" {
			s.do(MessageAnswered{MessageID: e.MessageID, EntryID: id, Sent: Sent{ProviderID: "x"}})
		}
	}
	s.send()
	if m := s.newest(); m.Status != DeliverySending {
		t.Errorf("after the agent has made sure: %s (%s)", m.Status, m.Reason)
	}
}

func TestCost(t *testing.T) {
	t.Parallel()
	var c *Cost
	c = c.with(nil).with(&Cost{Category: "utility", Units: 1}).with(&Cost{Type: "regular", Amount: "0.02", Currency: "USD"}).with(nil)
	if *c != (Cost{Category: "utility", Type: "regular", Units: 1, Amount: "0.02", Currency: "USD"}) {
		t.Errorf("got %+v", *c)
	}
}
