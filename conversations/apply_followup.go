package conversations

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// NextStep is what follows when a message has failed.
type NextStep string

// The next steps.
const (
	StepStop     NextStep = "stop"     // nothing more is sent; the agent sees why
	StepResend   NextStep = "resend"   // sent again on the same channel, later
	StepTemplate NextStep = "template" // sent again at once, as an approved template
	StepSMS      NextStep = "sms"      // sent by SMS, with the same link
)

// followUps say by the reason of a failure what may follow: how often a message
// that the provider had taken, and then reported as failed, is sent again on
// its channel; and whether SMS takes over from WhatsApp in the end. A reason
// that is not here ends in StepStop. Source: the next steps that the providers'
// tables of errors recommend.
var followUps = map[FailureReason]struct {
	Resends map[Channel]int
	SMS     bool
}{
	FailureUnknown:         {SMS: true},
	FailureNotOnChannel:    {SMS: true},
	FailureOutsideWindow:   {SMS: true},
	FailureTemplate:        {SMS: true},
	FailurePolicyLimit:     {SMS: true},
	FailureRate:            {Resends: map[Channel]int{WhatsApp: 2, SMS: 2}, SMS: true},
	FailureUnreachable:     {Resends: map[Channel]int{SMS: 1}, SMS: true},
	FailureContentFiltered: {SMS: true},
	FailureSenderConfig:    {SMS: true},
	FailureAuth:            {SMS: true},
	FailureAccount:         {SMS: true},
	FailureProviderError:   {Resends: map[Channel]int{WhatsApp: 2, SMS: 1}, SMS: true},
}

// windowLag is how long after a customer wrote WhatsApp may still refuse free
// text, because its window lags behind its webhook; then one more try is made
// after windowPause.
const (
	windowLag   = time.Minute
	windowPause = 10 * time.Second
)

// StepAfter says what follows when a message about a payment request fails for
// a reason. taken tells that the provider had accepted it first, and did not say
// that trying again is useless; resends is how often it was sent again on its
// channel already; template, that it went as one.
func StepAfter(reason FailureReason, channel Channel, taken, template bool, resends int) NextStep {
	f := followUps[reason]
	switch {
	case reason == FailureOutsideWindow && channel == WhatsApp && !template:
		return StepTemplate
	case taken && resends < f.Resends[channel]:
		return StepResend
	case f.SMS && channel == WhatsApp:
		return StepSMS
	}
	return StepStop
}

// followUps does what the effects FollowUp and CallOff ask for.
func (t *tx) followUps() {
	for len(t.failed)+len(t.arrived) > 0 {
		failed, arrived := t.failed, t.arrived
		t.failed, t.arrived = nil, nil
		for _, m := range failed {
			t.followUp(m)
		}
		for _, m := range arrived {
			t.callOffFollowUp(m)
		}
	}
}

// followUp does what follows when a message has failed.
func (t *tx) followUp(m *Message) {
	t.forgetFollowUp(m)
	if !m.isNotice() {
		t.retryInWindow(m)
		return
	}
	_, accepted := m.Times[DeliveryAccepted]
	_, sent := m.Times[DeliverySent]
	taken := (accepted || sent) && !t.lasting
	switch StepAfter(m.Reason, m.Channel, taken, m.Template, m.Resends) {
	case StepTemplate:
		t.sendInstead(m, m.Channel, func(n *Message) { n.Template = true })
	case StepResend:
		t.followUpAt(m, t.resendAt(m))
	case StepSMS:
		switch {
		case t.Merchant.Fallback.OnFailure:
			t.fallBack(m)
		case m.FallBackBy != nil && t.now.Before(*m.FallBackBy):
			t.followUpAt(m, *m.FallBackBy) // it will not be delivered in time
		}
	}
}

// retryInWindow sends free text once more that was refused for a window which
// the customer has opened only now.
func (t *tx) retryInWindow(m *Message) {
	wrote := t.contact.InboundAt[m.SenderID]
	if m.Reason == FailureOutsideWindow && m.Resends == 0 && t.now.Before(wrote.Add(windowLag)) {
		t.followUpAt(m, t.now.Add(windowPause))
	}
}

func (t *tx) followUpAt(m *Message, at time.Time) {
	m.FollowUpAt = &at
	t.setTimer(TimerFollowUp, m.ID, 0, at)
}

func (t *tx) forgetFollowUp(m *Message) {
	if m.FollowUpAt != nil {
		m.FollowUpAt = nil
		t.clearTimer(TimerFollowUp, m.ID, 0)
	}
}

// resendAt returns when a message that failed for a while is sent again, or
// goes by SMS because the merchant's time is up by then.
func (t *tx) resendAt(m *Message) time.Time {
	at := t.now.Add(t.Timings.ResendAfter << m.Resends)
	if by := m.FallBackBy; by != nil && t.now.Before(*by) && at.After(*by) {
		return *by
	}
	return at
}

// watchDelivery sets the timer of a WhatsApp message that goes by SMS if it has
// not been delivered in the merchant's time. That is counted from the first of
// those that follow each other.
func (t *tx) watchDelivery(m *Message) {
	if m.Channel != WhatsApp || !m.isNotice() || t.Merchant.Fallback.After <= 0 {
		return
	}
	if m.FallBackBy == nil {
		by := t.now.Add(t.Merchant.Fallback.After)
		m.FallBackBy = &by
	}
	if t.now.Before(*m.FallBackBy) {
		t.followUpAt(m, *m.FallBackBy)
	}
}

// followUpDue is the timer of a message that has failed for a while, or was to
// be delivered by now.
func (t *tx) followUpDue(timer Timer) error {
	m := t.message(timer.ID)
	if m == nil || m.FollowUpAt == nil {
		t.clearTimer(TimerFollowUp, timer.ID, 0)
		return nil
	}
	if t.now.Before(*m.FollowUpAt) {
		return ErrNothing
	}
	t.effects.MessageID = m.ID
	t.forgetFollowUp(m)
	switch m.Status {
	case DeliveryFailed:
		if m.FallBackBy != nil && !t.now.Before(*m.FallBackBy) && t.fallBack(m) {
			return nil
		}
		if !m.isNotice() || m.Resends < followUps[m.Reason].Resends[m.Channel] {
			t.sendInstead(m, m.Channel, func(n *Message) { n.Resends, n.Template = m.Resends+1, m.Template })
		}
	case DeliveryDelivered, DeliveryRead:
	default:
		if t.fallBack(m) && m.Status == DeliveryQueued {
			t.fail(m, FailureNotNeeded, "") // it has not gone out: one of the two is enough
		}
	}
	return nil
}

// fallBack sends a WhatsApp message by SMS, and what follows on its payment
// request too. It tells whether it did.
func (t *tx) fallBack(m *Message) bool {
	if t.Merchant.Senders[SMS] == "" || !t.sendInstead(m, SMS, nil) {
		return false
	}
	if r := t.request(m.RequestID); r != nil {
		r.FellBackTo = SMS
	}
	return true
}

// sendInstead queues a message in place of one that did not arrive, if it is
// still wanted, no newer one was sent, and the customer allows it. It carries
// the same link.
func (t *tx) sendInstead(m *Message, channel Channel, change func(*Message)) bool {
	if m.FollowedBy != "" || t.contact.Consent[channel] == ConsentOptedOut || t.contact.crowded(channel) {
		return false
	}
	n := &Message{
		ID: m.ID + "-f", RequestID: m.RequestID, Channel: channel, Address: m.Address, Purpose: m.Purpose, Parameters: m.Parameters,
		Text: m.Text, Buttons: m.Buttons, InReplyTo: m.InReplyTo, By: m.By, Follows: m.ID, FallBackBy: m.FallBackBy,
	}
	if t.unverified(n) {
		return false
	}
	if m.isNotice() {
		r := t.request(m.RequestID)
		if r == nil || !r.wants(m.Purpose) || r.outdates(m) {
			return false
		}
		n.ID = nextMessageID(r)
		r.addMessage(n)
		n.Text = t.Merchant.Text(channel, n.Purpose, n.Parameters)
		kind := "resending"
		if channel != m.Channel {
			kind = "fell_back"
		}
		t.log(r, kind, func(e *LoggedEvent) { e.Message = loggedMessage(m) })
	}
	if change != nil {
		change(n)
	}
	m.FollowedBy = n.ID
	t.queue(n)
	t.watchDelivery(n)
	return true
}

// callOffFollowUp stops all that would be sent in place of a message that has
// arrived after all. If SMS was to take over and has not, it does not.
func (t *tx) callOffFollowUp(m *Message) {
	t.forgetFollowUp(m)
	for m.FollowedBy != "" {
		n := t.message(m.FollowedBy)
		if n == nil {
			return
		}
		t.forgetFollowUp(n)
		if n.Status == DeliveryQueued {
			t.fail(n, FailureNotNeeded, "")
			if n.Channel != m.Channel {
				t.stayOn(n)
			}
		}
		m = n
	}
}

// stayOn takes back that what follows goes where a message was to go that is
// called off.
func (t *tx) stayOn(n *Message) {
	if r := t.request(n.RequestID); r != nil && r.FellBackTo == n.Channel {
		r.FellBackTo = ChannelUnknown
	}
}

// needless tells that a notice need not go out any more: what it is about is
// over, another one went in its place, or the one that it replaces has arrived.
func (t *tx) needless(m *Message) bool {
	if m.RequestID == "" || !m.isNotice() {
		return false
	}
	if r := t.peek(m.RequestID); m.FollowedBy != "" || r != nil && !r.wants(m.Purpose) {
		return true
	}
	for id := m.Follows; id != ""; {
		before := t.message(id)
		if before == nil {
			return false
		}
		if before.Status == DeliveryDelivered || before.Status == DeliveryRead {
			return true
		}
		id = before.Follows
	}
	return false
}

// unverified tells whether a message would show a payment to somebody who may
// not be the customer any more. A new owner of the number gets its SMS too, so
// none goes in WhatsApp's place; one that a merchant asked for by SMS does.
func (t *tx) unverified(m *Message) bool {
	if t.contact.IdentityChangedAt == nil || m.Purpose == PurposeAgent || m.Purpose == PurposeConsent {
		return false
	}
	if m.Channel == WhatsApp || m.RequestID == "" {
		return true
	}
	r := t.peek(m.RequestID)
	return r == nil || r.Channel == WhatsApp
}

// wants tells whether a message of a purpose still makes sense.
func (r *PaymentRequest) wants(p Purpose) bool {
	switch p {
	case PurposePayment:
		return r.Lifecycle == Open
	case PurposeReceipt, PurposeRefund:
		return slices.Contains(withReceipt, r.Lifecycle)
	case PurposeCancelled:
		return r.Lifecycle == Cancelled
	}
	return true
}

// outdates tells whether a newer message says what this one does. Each about
// money that went back tells of another sum.
func (r *PaymentRequest) outdates(m *Message) bool {
	newest := r.Newest[m.Purpose]
	return m.Purpose != PurposeRefund && newest != "" && newest != m.ID
}

// addMessage lists a message among those of its request.
func (r *PaymentRequest) addMessage(m *Message) {
	r.Messages = append(r.Messages, m.ID)
	if r.Newest == nil {
		r.Newest = map[Purpose]string{}
	}
	r.Newest[m.Purpose] = m.ID
}

// SendsOn is the channel of a request's next message: the one that the agent
// picked, or SMS once WhatsApp has failed.
func (r *PaymentRequest) SendsOn() Channel {
	if r.FellBackTo != ChannelUnknown {
		return r.FellBackTo
	}
	return r.Channel
}

// channelFor is the channel of a request's next message to the contact. Who has
// opted out of the SMS that took over gets it on the picked channel again.
func (c *Contact) channelFor(r *PaymentRequest) Channel {
	on := r.SendsOn()
	if c.Consent[on] == ConsentOptedOut && c.Consent[r.Channel] != ConsentOptedOut {
		return r.Channel
	}
	return on
}

// maxRequestMessages bounds how many messages about one payment request there
// are before a resend is refused.
const maxRequestMessages = 100

// mayResend says why a message about a payment request is not sent once more,
// or nil.
func (c *Contact) mayResend(r *PaymentRequest) *Error {
	on := c.channelFor(r)
	switch {
	case c.Consent[on] == ConsentOptedOut:
		return optedOut(c, on)
	case c.crowded(on):
		return messagesWaiting()
	case len(r.Messages) >= maxRequestMessages:
		return Refused("too_many_messages", "%d messages about this payment request were sent; speak to the customer another way", len(r.Messages))
	}
	return nil
}

func messagesWaiting() *Error {
	return Refused("messages_waiting", "many messages to this customer wait to be sent; wait until they are out")
}

// nextMessageID follows from the request and the number of its messages, so
// that a repeated application makes the same one.
func nextMessageID(r *PaymentRequest) string {
	return fmt.Sprintf("%s%s-%d", messagePrefix, strings.TrimPrefix(r.ID, requestPrefix), len(r.Messages)+1)
}
