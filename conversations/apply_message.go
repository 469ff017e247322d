package conversations

import (
	"slices"
	"time"
)

// serviceWindow is how long after a customer's last message WhatsApp allows
// free text (Meta, "customer service window").
const serviceWindow = 24 * time.Hour

// maxBlindTries is after how many sends without an answer or an echo a message
// has failed, for the agent to see: the customer may have got every one.
const maxBlindTries = 5

// maxRecent bounds how many provider ids a contact remembers.
const maxRecent = 40

func newContact(id, merchantID string, now time.Time) *Contact {
	return &Contact{ID: id, MerchantID: merchantID, CreatedAt: now, Mode: ModeBot}
}

// learn adds addresses to the contact.
func (t *tx) learn(addresses []Address) {
	for _, a := range addresses {
		if a.Value != "" && !slices.Contains(t.contact.Addresses, a) {
			t.contact.Addresses = append(t.contact.Addresses, a)
		}
	}
}

func (t *tx) addressesLearnt(e AddressesLearnt) error {
	before := len(t.contact.Addresses) + len(t.contact.Linked)
	t.learn(e.Addresses)
	for _, a := range e.Linked {
		if !slices.Contains(t.contact.Linked, a) {
			t.contact.Linked = append(t.contact.Linked, a)
		}
	}
	if e.Replaces.Value != "" {
		if i := slices.Index(t.contact.Addresses, e.Replaces); i >= 0 && len(t.contact.Addresses) > 1 {
			t.contact.Addresses = slices.Delete(t.contact.Addresses, i, i+1)
			return nil
		}
	}
	if len(t.contact.Addresses)+len(t.contact.Linked) == before {
		return ErrNothing
	}
	return nil
}

// sendAbout queues a message about a payment request.
func (t *tx) sendAbout(r *PaymentRequest, purpose Purpose) {
	t.sendNotice(r, purpose, t.parameters(r, purpose))
}

// sendRefund tells the customer that so much went back of the money that
// counted. Where many messages wait already, or were sent about the request, the
// receipt alone tells it: a system that refunds in a thousand parts must neither
// grow the contact nor reach the customer a thousand times, nor take from the
// agent what may be sent again.
func (t *tx) sendRefund(r *PaymentRequest, amount Money) {
	if t.contact.crowded(t.contact.channelFor(r)) || len(r.Messages) >= maxRequestMessages/2 {
		return
	}
	p := t.parameters(r, PurposeRefund)
	p.Amount = amount.String()
	t.sendNotice(r, PurposeRefund, p)
}

func (t *tx) sendNotice(r *PaymentRequest, purpose Purpose, p Parameters) {
	m := &Message{
		ID:         nextMessageID(r),
		RequestID:  r.ID,
		Channel:    t.contact.channelFor(r),
		Address:    t.addressFor(r),
		Purpose:    purpose,
		Parameters: p,
	}
	m.Text = t.Merchant.Text(m.Channel, purpose, m.Parameters)
	r.addMessage(m)
	t.queue(m)
	t.watchDelivery(m)
}

// addressFor returns the address of a payment request's messages: its phone.
func (t *tx) addressFor(r *PaymentRequest) Address {
	return Address{Kind: AddressPhone, Value: r.Phone}
}

// parameters returns what the texts about a payment request show.
func (t *tx) parameters(r *PaymentRequest, purpose Purpose) Parameters {
	p := Parameters{Merchant: t.Merchant.Name, Amount: r.Order.Total.String(), Order: r.Order.Reference, Locale: r.Locale}
	switch purpose {
	case PurposeReceipt, PurposeRefund:
		p.LinkCode, p.Link = r.ReceiptCode, t.Merchant.PublicURL+"/r/"+r.ReceiptCode
	case PurposeCancelled:
	default:
		p.LinkCode, p.Link = r.LinkCode, t.Merchant.PublicURL+"/p/"+r.LinkCode
	}
	return p
}

// queue puts an outbound message into its channel's lane. One entry of a lane
// is out at a time; the commit that records its outcome appends the next.
func (t *tx) queue(m *Message) {
	m.ContactID, m.At, m.Status = t.contact.ID, t.now, DeliveryQueued
	m.SenderID = t.Merchant.Senders[m.Channel]
	m.Times = map[DeliveryStatus]time.Time{DeliveryQueued: t.now}
	t.messages[m.ID] = m
	lane := t.contact.Lanes[m.Channel]
	if lane.Current == "" {
		lane.Current = m.ID
		t.outbox(entryOf(m))
	} else {
		lane.Waiting = append(lane.Waiting, m.ID)
	}
	t.setLane(m.Channel, lane)
}

// entryOf returns the outbox entry that has a message sent.
func entryOf(m *Message) OutboxEntry {
	return OutboxEntry{Kind: OutboxMessage, MessageID: m.ID, RequestID: m.RequestID, SenderID: m.SenderID}
}

func (t *tx) setLane(c Channel, l Lane) {
	if t.contact.Lanes == nil {
		t.contact.Lanes = map[Channel]Lane{}
	}
	t.contact.Lanes[c] = l
}

// messageTriggers say what a delivery status means.
var messageTriggers = map[DeliveryStatus]Trigger{
	DeliveryAccepted: AcceptedByProv, DeliverySent: SentOut, DeliveryDelivered: DeliveredTo,
	DeliveryRead: ReadBy, DeliveryFailed: SendFailed,
}

// onMessage applies a trigger to a message by its table and tells whether it
// had an edge.
func (t *tx) onMessage(m *Message, on Trigger) bool {
	i := slices.IndexFunc(messageEdges, func(e MessageEdge) bool { return e.On == on && slices.Contains(e.From, m.Status) })
	if i < 0 {
		return false
	}
	edge := messageEdges[i]
	m.Status = edge.To
	if m.Status != DeliveryFailed {
		m.Reason, m.ErrorCode = "", ""
	}
	for _, do := range edge.Do {
		messageEffects[do](t, m)
	}
	return true
}

// messageEffects turn the effects of the table into entries of the commit.
var messageEffects = map[Effect]func(*tx, *Message){
	AppendEntry: func(t *tx, m *Message) {
		t.outbox(entryOf(m))
	},
	ReleaseEntry: func(t *tx, m *Message) { t.ack(m.EntryID); m.EntryID = "" },
	CloseEntry: func(t *tx, m *Message) {
		t.ack(m.EntryID)
		m.EntryID = ""
		t.advance(m.ID)
	},
	TryLater:  func(t *tx, m *Message) { t.setTimer(TimerMessage, m.ID, 0, *m.DueAt) },
	AwaitEcho: func(t *tx, m *Message) { t.setTimer(TimerMessage, m.ID, 0, *m.EchoBy) },
	ForgetTimer: func(t *tx, m *Message) {
		if m.DueAt != nil || m.EchoBy != nil {
			m.DueAt, m.EchoBy = nil, nil
			t.clearTimer(TimerMessage, m.ID, 0)
		}
	},
	ShowStatus:  func(t *tx, m *Message) { t.show(m) },
	ShowFailure: func(t *tx, m *Message) { t.show(m) },
	FollowUp:    func(t *tx, m *Message) { t.failed = append(t.failed, m) },
	CallOff:     func(t *tx, m *Message) { t.arrived = append(t.arrived, m) },
}

// advance takes a message off the head of its lane and appends the entry of the
// next one.
func (t *tx) advance(messageID string) {
	for _, channel := range Channels {
		lane := t.contact.Lanes[channel]
		if lane.Current != messageID {
			continue
		}
		lane.Current = ""
		if len(lane.Waiting) > 0 {
			lane.Current, lane.Waiting = lane.Waiting[0], lane.Waiting[1:]
			t.outbox(OutboxEntry{Kind: OutboxMessage, MessageID: lane.Current, SenderID: t.Merchant.Senders[channel]})
		}
		t.setLane(channel, lane)
	}
}

// messageMilestones are the milestones that a message's status marks.
var messageMilestones = map[Purpose]map[DeliveryStatus]Milestone{
	PurposePayment: {DeliverySent: MilestoneSent, DeliveryDelivered: MilestoneDelivered, DeliveryRead: MilestoneRead},
	PurposeReceipt: {DeliverySent: MilestoneReceiptSent, DeliveryDelivered: MilestoneReceiptDelivered, DeliveryRead: MilestoneReceiptRead},
}

// show puts a message's new status into the log of its payment request: as its
// milestone the first time, else as news of the message.
func (t *tx) show(m *Message) {
	if m.RequestID == "" {
		return
	}
	r := t.request(m.RequestID)
	if r == nil {
		return
	}
	kind := "message_updated"
	milestone := messageMilestones[m.Purpose][m.Status]
	switch {
	case m.Status == DeliveryFailed:
		kind = "message_failed"
	case milestone != "" && t.mark(r, milestone):
		kind = string(milestone)
	}
	t.log(r, kind, func(e *LoggedEvent) {
		if kind == string(milestone) {
			e.Milestone = milestone
		}
		e.Message = loggedMessage(m)
	})
}

func loggedMessage(m *Message) *LoggedMessage {
	return &LoggedMessage{ID: m.ID, Purpose: m.Purpose, Channel: m.Channel, Status: m.Status, Reason: m.Reason}
}

// sendingStarted moves a message to sending, or says why it is not sent.
func (t *tx) sendingStarted(e SendingStarted) error {
	m := t.message(e.MessageID)
	if m == nil { // its retention has ended
		t.ack(e.EntryID)
		t.advance(e.MessageID)
		return nil
	}
	t.effects.MessageID = m.ID
	switch {
	case m.Status == DeliverySending:
		// Taken over from a worker that died or lost its answer, or put back
		// from the dead letters: it may have been sent, so its echo is awaited
		// before it is sent again.
		if m.EntryID != e.EntryID {
			t.ack(m.EntryID)
			m.EntryID = e.EntryID
		}
		t.loseOutcome(m)
		return nil
	case m.Status != DeliveryQueued || m.DueAt != nil:
		t.ack(e.EntryID)
		if m.Status != DeliveryQueued {
			t.advance(m.ID) // it is over, and must not stand at the head of its lane
		}
		return nil
	}
	m.EntryID = e.EntryID
	if reason := t.mayNotSend(m); reason != "" {
		t.fail(m, reason, "")
		return nil
	}
	m.Tries++
	m.EchoBy = nil // of an earlier try
	m.Template = m.Template || m.Channel == WhatsApp && m.isNotice() && !t.windowOpen(m)
	m.Times[DeliverySending] = t.now
	t.onMessage(m, SendBegun)
	t.effects.Outbound = &Outbound{
		MessageID: m.ID, Correlation: m.ContactID + "." + m.ID, SenderID: m.SenderID, Channel: m.Channel, To: m.Address,
		Purpose: m.Purpose, Template: m.Template, Text: m.Text, Parameters: m.Parameters,
		Buttons: m.Buttons, InReplyTo: m.InReplyTo, Doubt: m.DoubtSince,
	}
	return nil
}

// sendingPutOff leaves a queued message for later.
func (t *tx) sendingPutOff(e SendingPutOff) error {
	m := t.message(e.MessageID)
	if m == nil || m.Status != DeliveryQueued || m.DueAt != nil {
		// Gone, over, waiting already, or left by a worker that died: what is to
		// be done with its entry does not depend on the sender.
		return t.sendingStarted(SendingStarted{MessageID: e.MessageID, EntryID: e.EntryID})
	}
	t.effects.MessageID = m.ID
	due := t.now.Add(max(e.For, time.Millisecond))
	m.EntryID, m.DueAt = e.EntryID, &due
	t.onMessage(m, PutOff)
	return nil
}

// loseOutcome awaits the echo of a message that may have been sent: longer each
// time, so that a provider that answers nobody does not write to the customer
// every minute.
func (t *tx) loseOutcome(m *Message) {
	if m.EchoBy != nil {
		return
	}
	by := t.now.Add(t.Timings.EchoWithin << m.Lost)
	m.EchoBy = &by
	m.Lost++
	if m.DoubtSince == nil {
		began := m.Times[DeliverySending]
		m.DoubtSince = &began
	}
	t.onMessage(m, OutcomeLost)
}

// windowOpen tells whether WhatsApp allows free text to the customer now.
func (t *tx) windowOpen(m *Message) bool {
	return t.now.Before(t.contact.InboundAt[m.SenderID].Add(serviceWindow))
}

// isNotice tells whether a message is one that the business begins.
func (m *Message) isNotice() bool { return slices.Contains(NoticePurposes, m.Purpose) }

// mayNotSend says why a message must not go out now, or "".
func (t *tx) mayNotSend(m *Message) FailureReason {
	switch {
	case m.SenderID == "":
		return FailureSenderConfig
	case m.Purpose == PurposeConsent && t.contact.Confirming[m.Channel] != m.ID:
		return FailureNotNeeded // of an opt-out that was taken back
	case t.contact.Consent[m.Channel] == ConsentOptedOut && m.Purpose != PurposeConsent:
		return FailureOptedOut
	case t.unverified(m):
		return FailureIdentityChanged // it may be another person: only an agent writes, to find out
	case m.Channel == WhatsApp && !m.isNotice() && !t.windowOpen(m):
		return FailureOutsideWindow
	case t.needless(m):
		return FailureNotNeeded
	}
	return ""
}

func (t *tx) fail(m *Message, reason FailureReason, code string) {
	before := m.Status
	m.Reason, m.ErrorCode = reason, code
	i := slices.IndexFunc(messageEdges, func(e MessageEdge) bool { return e.On == SendFailed && slices.Contains(e.From, before) })
	if i < 0 {
		m.Reason, m.ErrorCode = "", "" // delivered or read: failed comes too late
		return
	}
	t.fillTime(m, DeliveryFailed, t.now)
	m.Status = messageEdges[i].To
	for _, do := range messageEdges[i].Do {
		messageEffects[do](t, m)
	}
}

// heedRefusal notes what a provider knows better: that the customer has opted
// out there. It says so in answer to a send, or later in a status.
func (t *tx) heedRefusal(m *Message, reason FailureReason) {
	switch reason {
	case FailureOptedOut:
		if t.contact.Consent[m.Channel] == ConsentOptedIn && m.At.Before(t.contact.ConsentAt[m.Channel]) {
			return // the customer has opted in again since it was queued
		}
		t.setConsent(m.Channel, ConsentOptedOut, t.now)
	case FailureIdentityChanged:
		t.identityChanged()
	}
}

// identityChanged holds back what would show a payment to somebody who may not
// be the customer any more.
func (t *tx) identityChanged() {
	if t.contact.IdentityChangedAt == nil {
		now := t.now
		t.contact.IdentityChangedAt = &now
	}
}

func (t *tx) fillTime(m *Message, s DeliveryStatus, at time.Time) {
	if m.Times == nil {
		m.Times = map[DeliveryStatus]time.Time{}
	}
	if _, ok := m.Times[s]; !ok {
		m.Times[s] = at
	}
}

// messageAnswered records the provider's answer to a send.
func (t *tx) messageAnswered(e MessageAnswered) error {
	m := t.message(e.MessageID)
	if m == nil {
		t.ack(e.EntryID)
		t.advance(e.MessageID)
		return nil
	}
	t.effects.MessageID = m.ID
	switch {
	case e.Unknown:
		if m.Status == DeliverySending && m.EntryID == e.EntryID {
			t.loseOutcome(m)
		}
	case e.Failed && e.RetryIn > 0:
		if m.Status != DeliverySending || m.EntryID != e.EntryID {
			break // an echo, or another try, knows more
		}
		due := t.now.Add(e.RetryIn)
		m.DueAt, m.EchoBy, m.Reason, m.ErrorCode = &due, nil, e.Reason, e.ErrorCode
		reason, code := m.Reason, m.ErrorCode
		t.onMessage(m, RetryAllowed)
		m.Reason, m.ErrorCode = reason, code // shown while it waits
	case e.Failed:
		t.heedRefusal(m, e.Reason)
		if m.EntryID == e.EntryID { // else it was taken for lost, and another try knows more
			t.fail(m, e.Reason, e.ErrorCode)
		}
	default:
		t.learn(canonicalAddresses(e.Sent.Addresses))
		t.remember(m, e.Sent.ProviderID)
		m.Cost = m.Cost.with(e.Sent.Cost)
		status := e.Sent.Status
		if _, ok := messageTriggers[status]; !ok || status == DeliveryFailed {
			status = DeliveryAccepted
		}
		t.evidence(m, status, t.now)
	}
	t.ackIfLeft(m, e.EntryID)
	return nil
}

// ackIfLeft acknowledges an entry whose message is no longer being sent by it.
func (t *tx) ackIfLeft(m *Message, entryID string) {
	if m.Status != DeliverySending || m.EntryID != entryID {
		t.ack(entryID)
	}
}

// remember notes the provider's id of a message.
func (t *tx) remember(m *Message, providerID string) {
	if providerID == "" || m.ProviderID == providerID {
		return
	}
	m.ProviderID = providerID
	t.contact.Recent = append(t.contact.Recent, RecentMessage{ProviderID: providerID, MessageID: m.ID})
	if n := len(t.contact.Recent); n > maxRecent {
		t.contact.Recent = t.contact.Recent[n-maxRecent:]
	}
}

// evidence takes a status from a provider: a higher one moves the message, a
// lower one only fills in its time.
func (t *tx) evidence(m *Message, status DeliveryStatus, at time.Time) {
	t.fillTime(m, status, at)
	if status == DeliveryRead {
		t.fillTime(m, DeliveryDelivered, at) // a report of delivery is left out when the customer looks on
	}
	t.onMessage(m, messageTriggers[status])
}

// statusReported takes a delivery status that a provider reported.
func (t *tx) statusReported(e StatusReported) error {
	if e.MerchantID != t.contact.MerchantID {
		return NotFound("contact")
	}
	id := e.MessageID
	if id == "" {
		i := slices.IndexFunc(t.contact.Recent, func(r RecentMessage) bool { return r.ProviderID == e.Inbound.ProviderID })
		if i < 0 {
			return NotFound("message")
		}
		id = t.contact.Recent[i].MessageID
	}
	m := t.message(id)
	if m == nil || m.Inbound || m.SenderID != e.Inbound.SenderID {
		return NotFound("message")
	}
	t.effects.MessageID = m.ID
	t.learn(canonicalAddresses(e.Inbound.Addresses))
	t.remember(m, e.Inbound.ProviderID)
	m.Cost = m.Cost.with(e.Inbound.Cost)
	at := t.notAhead(e.Inbound.At)
	switch e.Inbound.Status {
	case DeliveryFailed:
		t.heedRefusal(m, e.Inbound.Reason)
		t.fillTime(m, DeliveryAccepted, at) // else there would be no report
		t.lasting = e.Inbound.Lasting
		t.fail(m, e.Inbound.Reason, e.Inbound.ErrorCode)
	case DeliveryUnknown:
	default:
		t.evidence(m, e.Inbound.Status, at)
	}
	return nil
}

// messageDue is the timer of a message that waits: to be tried again, or for
// its echo.
func (t *tx) messageDue(timer Timer) error {
	m := t.message(timer.ID)
	t.clearTimer(TimerMessage, timer.ID, 0)
	if m == nil {
		return nil
	}
	t.effects.MessageID = m.ID
	switch {
	case m.DueAt != nil:
		if t.now.Before(*m.DueAt) {
			return ErrNothing
		}
		m.DueAt = nil
		t.onMessage(m, RetryDue)
	case m.EchoBy != nil:
		if t.now.Before(*m.EchoBy) {
			return ErrNothing
		}
		m.EchoBy = nil
		if m.Lost >= maxBlindTries || m.Purpose == PurposeConsent { // who has opted out gets one confirmation at most
			t.fail(m, FailureUnknown, "")
			return nil
		}
		t.onMessage(m, EchoOverdue)
	}
	return nil
}

// messageReceived takes what a customer wrote: into the transcript, as consent
// if it is an opt-out or opt-in word, and as an intent that the bot answers.
func (t *tx) messageReceived(e MessageReceived) error {
	in := e.Inbound
	channel := t.channelOf(in.SenderID)
	if channel == ChannelUnknown {
		return NotFound("sender")
	}
	if t.contact == nil {
		t.contact = newContact(e.ContactID, e.MerchantID, t.now)
	}
	addresses := canonicalAddresses(in.Addresses)
	if len(t.contact.Addresses) == 0 {
		t.learn(addresses[:min(1, len(addresses))]) // the one it was claimed by; the rest are added after the commit
	}
	if in.Name != "" {
		t.contact.Name = clip(in.Name, 80)
	}
	if t.contact.InboundAt == nil {
		t.contact.InboundAt = map[string]time.Time{}
	}
	if t.contact.InboundIDs == nil {
		t.contact.InboundIDs = map[string]string{}
	}
	at := t.notAhead(in.At)
	wrote := in.Kind != InboundIdentity && in.Kind != InboundConsent // a notice opens no window
	if wrote && !at.Before(t.contact.InboundAt[in.SenderID]) {
		t.contact.InboundAt[in.SenderID] = at
		t.contact.InboundIDs[in.SenderID] = in.ProviderID
	}
	m := &Message{
		ID: e.MessageID, ContactID: t.contact.ID, Inbound: true, Channel: channel, SenderID: in.SenderID,
		Kind: string(in.Kind), Text: in.Text, At: at, ProviderID: in.ProviderID,
	}
	if len(addresses) > 0 {
		m.Address = addresses[0]
	}
	if in.Kind == InboundMedia || in.Kind == InboundOther {
		m.Kind = in.MediaType
	}
	t.messages[m.ID] = m
	t.effects.MessageID = m.ID
	switch in.Kind {
	case InboundIdentity:
		t.identityChanged()
		return nil
	case InboundOther:
		return nil // a reaction, a system notice: nothing to answer
	}
	t.answer(m, in)
	return nil
}

// notAhead returns a provider's time, or ours if its clock runs ahead or it told
// none: a window must not stay open for longer, nor a message stay the newest.
func (t *tx) notAhead(at time.Time) time.Time {
	if at.IsZero() || at.After(t.now) {
		return t.now
	}
	return at.UTC()
}

// channelOf returns the channel of one of the merchant's senders.
func (t *tx) channelOf(senderID string) Channel {
	for _, c := range Channels {
		if t.Merchant.Senders[c] == senderID && senderID != "" {
			return c
		}
	}
	return ChannelUnknown
}

func (t *tx) setConsent(channel Channel, consent Consent, at time.Time) {
	if t.contact.Consent == nil {
		t.contact.Consent = map[Channel]Consent{}
	}
	if t.contact.ConsentAt == nil {
		t.contact.ConsentAt = map[Channel]time.Time{}
	}
	t.contact.Consent[channel] = consent
	t.contact.ConsentAt[channel] = later(at, t.contact.ConsentAt[channel])
}

// resent sends the payment or the receipt message once more.
func (t *tx) resent(e Resent) error {
	r := t.request(e.RequestID)
	if r == nil {
		return NotFound("payment request")
	}
	on := PaymentAskedAgain
	if e.Purpose == PurposeReceipt || e.Purpose == "" && slices.Contains(withReceipt, r.Lifecycle) {
		on = ReceiptAskedAgain
	}
	if no := t.contact.mayResend(r); no != nil {
		t.effects.RequestID = r.ID
		t.refuse(r, on, no)
		return nil
	}
	return t.onRequest(r.ID, on, nil)
}

// agentWrote queues what an agent wrote, and the agent answers from now on.
func (t *tx) agentWrote(e AgentWrote) error {
	if t.contact.Consent[e.Channel] == ConsentOptedOut {
		t.effects.Refused = optedOut(t.contact, e.Channel)
		return nil
	}
	if e.Channel == WhatsApp && !t.now.Before(t.contact.InboundAt[t.Merchant.Senders[WhatsApp]].Add(serviceWindow)) {
		t.effects.Refused = Refused("outside_window", "WhatsApp allows free text only within 24 hours of the customer's last message; use SMS, or wait until the customer writes")
		return nil
	}
	to := t.replyAddress(e.Channel)
	if to.Value == "" {
		t.effects.Refused = Refused("no_address", "the customer has no address on %s", e.Channel)
		return nil
	}
	if t.contact.crowded(e.Channel) {
		t.effects.Refused = messagesWaiting()
		return nil
	}
	t.contact.Mode, t.contact.Agent = t.nextMode("AgentWrote"), e.Agent
	t.effects.MessageID = e.MessageID
	t.queue(&Message{
		ID: e.MessageID, Channel: e.Channel, Address: to, Purpose: PurposeAgent, Text: e.Text, By: e.Agent, InReplyTo: t.lastInbound(e.Channel),
	})
	return nil
}

// lastInbound returns the provider's id of what the customer wrote last on a
// channel, or "".
func (t *tx) lastInbound(channel Channel) string {
	return t.contact.InboundIDs[t.Merchant.Senders[channel]]
}

// replyAddress returns where a contact is written to on a channel: a phone
// number, or on WhatsApp a user id if there is no number.
func (t *tx) replyAddress(channel Channel) Address {
	for _, kind := range []AddressKind{AddressPhone, AddressUser} {
		for _, a := range t.contact.Addresses {
			if a.Kind == kind && (kind == AddressPhone || channel == WhatsApp) {
				return a
			}
		}
	}
	return Address{}
}

// nextMode looks the conversation's mode up in its table.
func (t *tx) nextMode(on EventKind) Mode {
	for _, e := range modeEdges {
		if e.From == t.contact.Mode && e.On == on {
			return e.To
		}
	}
	return t.contact.Mode
}
