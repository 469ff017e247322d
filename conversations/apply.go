package conversations

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// State is what Apply looks at: a contact and those of its payment requests
// and messages that the event concerns. Apply does not change it.
type State struct {
	Merchant Merchant
	Timings  Timings
	Contact  *Contact
	// Requests and Messages hold what was loaded, by id; nil says that there
	// is no such thing any more.
	Requests map[string]*PaymentRequest
	Messages map[string]*Message

	newer map[string]bool // ids of what has fields that this version does not know
}

// Effects are what follows from an event, as values. They are committed with
// the new state in one step.
type Effects struct {
	Outbox []OutboxEntry // to append
	Acks   []string      // outbox entries that are done with
	Timers []Timer       // to set; a zero At takes the timer away
	Events []LoggedEvent // for the logs of the payment requests and the feed
	// Refused says why the event had no edge; only its record is committed.
	Refused *Error
	// Outbound is what SendingStarted allows the caller to send, or nil.
	Outbound *Outbound
	// Operation is what OperationStarted allows the caller to carry out, or nil.
	Operation *Operation
	// RequestID and MessageID name what the event concerned.
	RequestID, MessageID string
}

// OutboxKind says what a worker is to do.
type OutboxKind string

// The kinds of outbox entry.
const (
	OutboxMessage   OutboxKind = "message"   // send the message
	OutboxInquiry   OutboxKind = "inquiry"   // ask the platform about an attempt
	OutboxOperation OutboxKind = "operation" // reverse, void, capture or refund
	OutboxHolder    OutboxKind = "holder"    // tell the holder of the order that it was paid elsewhere
)

// OutboxEntry is one piece of work that a commit leaves behind.
type OutboxEntry struct {
	Kind       OutboxKind `json:"kind"`
	ContactID  string     `json:"contact_id"`
	MerchantID string     `json:"merchant_id"`
	RequestID  string     `json:"request_id,omitempty"`
	MessageID  string     `json:"message_id,omitempty"`
	Attempt    int        `json:"attempt,omitempty"`
	Operation  string     `json:"operation,omitempty"`
	SenderID   string     `json:"sender_id,omitempty"` // of a message
}

// Missing is returned by Apply when the state lacks something it needs. The
// caller loads it and applies again.
type Missing struct {
	RequestID string
	MessageID string
}

// Error names what is missing.
func (m *Missing) Error() string {
	return "the state lacks payment request " + m.RequestID + " or message " + m.MessageID
}

// possible refuses what no identifier of ours can be: it would be looked for
// without end among the other things.
func (m *Missing) possible(partitions int) error {
	if m.RequestID != "" {
		if _, ok := partitionOf(m.RequestID, requestPrefix, partitions); !ok {
			return NotFound("payment request")
		}
		return nil
	}
	if _, ok := partitionOf(m.MessageID, messagePrefix, partitions); !ok {
		return NotFound("message")
	}
	return nil
}

// ErrNothing is returned by Apply when an event changes nothing at all, such
// as a timer that was popped twice. There is nothing to commit.
var ErrNothing = errors.New("the event changes nothing")

// Apply says what an event makes of a state: the new state, holding only what
// changed, and the effects. It is pure: the same arguments give the same
// results, and state is not changed. An event that the tables have no edge for
// gives Effects.Refused and a state with no more than the record of it.
// Errors: *Missing, ErrNothing, or an *Error for input that makes no sense.
func Apply(state State, event Event, now time.Time) (_ State, _ Effects, err error) {
	t := &tx{
		State: state, now: now.UTC().Truncate(time.Millisecond), event: event,
		requests: map[string]*PaymentRequest{}, messages: map[string]*Message{},
	}
	t.contact = state.Contact.clone()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *Missing:
			err = r
		default:
			panic(r) // a mistake in the program must not look like an empty state
		}
	}()
	if err := t.apply(event); err != nil {
		return State{}, Effects{}, err
	}
	t.followUps()
	changed := State{Merchant: state.Merchant, Timings: state.Timings, Contact: t.contact, Requests: t.requests, Messages: t.messages}
	return changed, t.effects, nil
}

// tx is one application of an event: copies of what it touches, and the
// effects so far.
type tx struct {
	State
	now      time.Time
	event    Event
	contact  *Contact
	requests map[string]*PaymentRequest
	messages map[string]*Message
	effects  Effects
	// failed and arrived are messages with effects that may change others.
	failed, arrived []*Message
	lasting         bool // the failure will not pass soon
}

func (t *tx) apply(event Event) error {
	switch e := event.(type) {
	case Created:
		return t.created(e)
	case MessageReceived:
		return t.messageReceived(e)
	}
	if t.contact == nil {
		return NotFound("contact")
	}
	switch e := event.(type) {
	case LinkOpened:
		return t.onRequest(e.RequestID, Opened, nil)
	case ContextIssued:
		return t.onRequest(e.RequestID, CheckoutStarted, func(p *paymentTx) { p.context = e.Context })
	case AttemptStarted:
		return t.onRequest(e.RequestID, AttemptBegun, func(p *paymentTx) { p.start = e })
	case AttemptAnswered:
		return t.attemptAnswered(e)
	case CustomerExtended:
		return t.onRequest(e.RequestID, ExtendedByCustomer, nil)
	case Extended:
		return t.onRequest(e.RequestID, ExtendedByAgent, nil)
	case CancelRequested:
		if err := checkText("reason", e.Note, 200); err != nil {
			return err
		}
		return t.onRequest(e.RequestID, CancelAsked, func(p *paymentTx) { p.reason, p.note = ReasonByAgent, e.Note })
	case Resent:
		return t.resent(e)
	case SupersededBy:
		return t.onRequest(e.RequestID, TakenOverByOrder, nil)
	case OrderPaidElsewhere:
		return t.onRequest(e.RequestID, PaidElsewhere, func(p *paymentTx) { p.elsewhere = e.By })
	case OrderAlreadyPaid:
		t.ack(e.EntryID)
		return t.onRequest(e.RequestID, HolderPaid, nil)
	case HolderTold:
		t.ack(e.EntryID)
		return nil
	case ReceiptViewed:
		return t.onRequest(e.RequestID, ReceiptSeen, nil)
	case OperationRequested:
		return t.operationRequested(e)
	case OperationStarted:
		return t.operationStarted(e)
	case OperationAnswered:
		return t.operationAnswered(e)
	case OperationFound:
		return t.operationFound(e)
	case AttemptNotified:
		return t.attemptNotified(e)
	case ReviewDecided:
		return t.reviewDecided(e)
	case TimerFired:
		return t.timerFired(e.Timer)
	case SendingStarted:
		return t.sendingStarted(e)
	case SendingPutOff:
		return t.sendingPutOff(e)
	case MessageAnswered:
		return t.messageAnswered(e)
	case StatusReported:
		return t.statusReported(e)
	case AgentWrote:
		return t.agentWrote(e)
	case TakenOver:
		t.contact.Mode, t.contact.Agent = t.nextMode("TakenOver"), e.Agent
		return nil
	case HandedBack:
		t.contact.Mode, t.contact.Agent = t.nextMode("HandedBack"), ""
		return nil
	case AddressesLearnt:
		return t.addressesLearnt(e)
	case IdentityVerified:
		if t.contact.IdentityChangedAt == nil {
			return ErrNothing
		}
		t.contact.IdentityChangedAt = nil
		return nil
	}
	return fmt.Errorf("conversations: there is no event %T", event)
}

// request returns the copy of a payment request that this application may
// change, or nil if there is no such request.
func (t *tx) request(id string) *PaymentRequest {
	if r, ok := t.requests[id]; ok {
		return r
	}
	r, ok := t.Requests[id]
	if !ok {
		panic(&Missing{RequestID: id})
	}
	if !t.owns(r) {
		return nil
	}
	t.requests[id] = r.clone()
	return t.requests[id]
}

// owns tells whether a payment request is there and of this contact: another
// one's is under another version, and nobody's business here.
func (t *tx) owns(r *PaymentRequest) bool { return r != nil && r.ContactID == t.contact.ID }

// peek returns a payment request that this application only reads.
func (t *tx) peek(id string) *PaymentRequest {
	if r, ok := t.requests[id]; ok {
		return r
	}
	r, ok := t.Requests[id]
	if !ok {
		panic(&Missing{RequestID: id})
	}
	if !t.owns(r) {
		return nil
	}
	return r
}

// message returns the copy of a message that this application may change, or
// nil if there is no such message.
func (t *tx) message(id string) *Message {
	if m, ok := t.messages[id]; ok {
		return m
	}
	m, ok := t.Messages[id]
	if !ok {
		panic(&Missing{MessageID: id})
	}
	if m == nil || m.ContactID != t.contact.ID {
		return nil // another contact's is under another version
	}
	t.messages[id] = m.clone()
	return t.messages[id]
}

func (t *tx) ack(entryID string) {
	if entryID != "" && !slices.Contains(t.effects.Acks, entryID) {
		t.effects.Acks = append(t.effects.Acks, entryID)
	}
}

func (t *tx) setTimer(kind TimerKind, id string, n int, at time.Time) {
	t.effects.Timers = append(t.effects.Timers, Timer{Kind: kind, ContactID: t.contact.ID, ID: id, N: n, At: at})
}

func (t *tx) clearTimer(kind TimerKind, id string, n int) {
	t.setTimer(kind, id, n, time.Time{})
}

func (t *tx) outbox(e OutboxEntry) {
	e.ContactID, e.MerchantID = t.contact.ID, t.contact.MerchantID
	t.effects.Outbox = append(t.effects.Outbox, e)
}

// log appends an event to a request's own log; fill may add to it.
func (t *tx) log(r *PaymentRequest, kind string, fill func(*LoggedEvent)) {
	r.LastEvent++
	e := LoggedEvent{Seq: r.LastEvent, Type: kind, At: t.now, RequestID: r.ID, Order: r.Order.Reference, Lifecycle: r.Lifecycle, Reason: r.Reason}
	if fill != nil {
		fill(&e)
	}
	t.effects.Events = append(t.effects.Events, e)
}

// mark notes a milestone's first time and tells whether it is new. A later
// milestone of a message implies the earlier ones.
func (t *tx) mark(r *PaymentRequest, m Milestone) bool {
	if _, ok := r.Milestones[m]; ok && m != MilestoneDeclined {
		return false
	}
	if r.Milestones == nil {
		r.Milestones = map[Milestone]time.Time{}
	}
	r.Milestones[m] = t.now
	for _, line := range [][]Milestone{
		{MilestoneSent, MilestoneDelivered, MilestoneRead},
		{MilestoneReceiptSent, MilestoneReceiptDelivered, MilestoneReceiptRead},
	} {
		if i := slices.Index(line, m); i > 0 {
			t.mark(r, line[i-1])
		}
	}
	return true
}

// refuse records that an event had no edge: once for each pair of event and
// lifecycle, so that a flood of presses cannot grow the record.
func (t *tx) refuse(r *PaymentRequest, on Trigger, e *Error) {
	t.effects.Refused = e
	for _, seen := range r.Refusals {
		if seen.Event == string(on) && seen.Lifecycle == r.Lifecycle && seen.Reason == e.Reason {
			return
		}
	}
	r.Refusals = append(r.Refusals, Refusal{Event: string(on), Lifecycle: r.Lifecycle, Reason: e.Reason, At: t.now})
}

func (c *Contact) clone() *Contact {
	if c == nil {
		return nil
	}
	d := *c
	d.Addresses, d.Linked = slices.Clone(c.Addresses), slices.Clone(c.Linked)
	d.Consent, d.InboundAt, d.InboundIDs = maps.Clone(c.Consent), maps.Clone(c.InboundAt), maps.Clone(c.InboundIDs)
	d.Confirming, d.ConsentAt = maps.Clone(c.Confirming), maps.Clone(c.ConsentAt)
	d.Requests, d.Recent = slices.Clone(c.Requests), slices.Clone(c.Recent)
	d.Lanes = maps.Clone(c.Lanes)
	for channel, lane := range d.Lanes {
		lane.Waiting = slices.Clone(lane.Waiting)
		d.Lanes[channel] = lane
	}
	return &d
}

func (r *PaymentRequest) clone() *PaymentRequest {
	d := *r
	d.Milestones = maps.Clone(r.Milestones)
	d.Contexts, d.Attempts = slices.Clone(r.Contexts), slices.Clone(r.Attempts)
	d.Operations, d.Messages = slices.Clone(r.Operations), slices.Clone(r.Messages)
	d.Refusals, d.Newest = slices.Clone(r.Refusals), maps.Clone(r.Newest)
	return &d // times and the receipt behind pointers are replaced, never changed
}

func (m *Message) clone() *Message {
	d := *m
	d.Times = maps.Clone(m.Times)
	return &d
}
