package conversations

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"
)

// noon is when the pure tests begin.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func rand149(minor int64) Money { return Money{Minor: minor, Currency: "ZAR"} }

func anOrder(reference string) Order {
	return Order{
		Reference: reference, Subtotal: rand149(12957), Tax: rand149(1943), Shipping: rand149(0), Discount: rand149(0), Total: rand149(14900),
		LineItems: []LineItem{{Name: "Service", Quantity: 1, UnitPrice: rand149(12957), Total: rand149(12957)}},
	}
}

func aMerchant() Merchant {
	return Merchant{
		ID: "acme", Name: "Acme Energy", PublicURL: "https://pay.acme.example", Country: "ZA", Locale: "en", Sandbox: true,
		Senders:    map[Channel]string{WhatsApp: "acme-wa", SMS: "acme-sms"},
		TimeToOpen: time.Hour, TimeToPay: 15 * time.Minute, MaxAttempts: 3, Capture: true,
		LatePayment: LatePayment{ReverseAfterCancellation: true},
	}
}

// story is a contact in memory: events go through Apply alone, and what a
// store would do with the effects is kept here.
type story struct {
	t      testing.TB
	now    time.Time
	state  State
	timers map[string]Timer
	outbox map[string]OutboxEntry // by entry id, until acknowledged
	events []LoggedEvent
	out    []Outbound
	last   Effects
	heed   func(Effects) // called after each event, may be nil
	entry  int
}

const (
	theContact = "c_0000000000000000000a"
	theRequest = "pr_0000000000000000000r"
)

func newStory(t testing.TB) *story {
	return &story{
		t: t, now: noon, timers: map[string]Timer{}, outbox: map[string]OutboxEntry{},
		state: State{Merchant: aMerchant(), Timings: DefaultTimings(), Requests: map[string]*PaymentRequest{}, Messages: map[string]*Message{}},
	}
}

// created is a story in which an agent has asked for a payment.
func createdStory(t testing.TB) *story {
	s := newStory(t)
	s.create(theRequest)
	return s
}

func (s *story) create(id string) {
	s.t.Helper()
	s.do(Created{Request: PaymentRequest{
		ID: id, MerchantID: "acme", ContactID: theContact, Order: anOrder("1042"), Phone: "+27821234567", Channel: WhatsApp, Locale: "en",
		Capture: true, LinkCode: "0link", ReceiptCode: "0receipt", TimeToOpen: time.Hour, TimeToPay: 15 * time.Minute, Sandbox: true,
	}})
}

// paying is a story in which the first attempt is in flight.
func paying(t testing.TB) *story {
	s := createdStory(t)
	s.do(LinkOpened{theRequest})
	s.do(ContextIssued{RequestID: theRequest, Context: CaptureContext{KeyID: "k", ExpiresAt: s.now.Add(15 * time.Minute)}})
	s.start()
	return s
}

func (s *story) start() {
	s.t.Helper()
	s.do(AttemptStarted{RequestID: theRequest, Platform: "unified_checkout", TokenExpiresAt: s.now.Add(15 * time.Minute), CardLast4: "1111"})
}

func (s *story) answer(n int, o Outcome) {
	s.t.Helper()
	result := Result{Outcome: o, PaymentID: fmt.Sprint(n)}
	if o == OutcomeInReview {
		result.Amount = rand149(14900) // held; nothing is when it is reviewed before
	}
	s.do(AttemptAnswered{RequestID: theRequest, Attempt: n, Result: result})
}

// notFound settles an attempt as not found, long after its token's end.
func (s *story) notFound(n int) {
	s.t.Helper()
	s.now = s.now.Add(26 * time.Minute)
	s.answer(n, OutcomeNotFound)
	if got := s.request().Attempt(n).State; got != AttemptNotFound {
		s.t.Fatalf("attempt %d is %s, want not found", n, got)
	}
}

func (s *story) request() *PaymentRequest { return s.state.Requests[theRequest] }

// do applies an event, fails on an error, and checks what must hold after
// every event.
func (s *story) do(e Event) Effects {
	s.t.Helper()
	effects, err := s.try(e)
	if err != nil && !errors.Is(err, ErrNothing) {
		s.t.Fatalf("%s: %v", e.Kind(), err)
	}
	if err == nil && s.heed != nil {
		s.heed(effects)
	}
	return effects
}

func (s *story) try(e Event) (Effects, error) {
	s.t.Helper()
	before := snapshot(s.t, s.state)
	changed, effects, err := Apply(s.state, e, s.now)
	if after := snapshot(s.t, s.state); after != before {
		s.t.Fatalf("%s changed the state it was given:\n%s\n%s", e.Kind(), before, after)
	}
	again, effectsAgain, errAgain := Apply(s.state, e, s.now)
	if !reflect.DeepEqual(changed, again) || !reflect.DeepEqual(effects, effectsAgain) || fmt.Sprint(err) != fmt.Sprint(errAgain) {
		s.t.Fatalf("%s: applied twice it gives two results", e.Kind())
	}
	var missing *Missing
	if errors.As(err, &missing) {
		// The store would load it, and find nothing.
		if missing.RequestID != "" {
			s.state.Requests[missing.RequestID] = nil
		} else {
			s.state.Messages[missing.MessageID] = nil
		}
		return s.try(e)
	}
	if err != nil {
		return effects, err
	}
	s.last = effects
	s.commit(changed, effects)
	return effects, nil
}

func (s *story) commit(changed State, effects Effects) {
	s.state.Contact = changed.Contact
	maps.Copy(s.state.Requests, changed.Requests)
	maps.Copy(s.state.Messages, changed.Messages)
	for _, id := range effects.Acks {
		delete(s.outbox, id)
	}
	for _, t := range effects.Timers {
		if t.At.IsZero() {
			delete(s.timers, t.member())
		} else {
			s.timers[t.member()] = t
		}
	}
	for _, e := range effects.Outbox {
		s.entry++
		s.outbox[fmt.Sprintf("%d-1", s.entry)] = e
	}
	s.events = append(s.events, effects.Events...)
	if effects.Outbound != nil {
		s.out = append(s.out, *effects.Outbound)
	}
}

func snapshot(t testing.TB, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fire fires every timer that is due now, in order.
func (s *story) fire() {
	s.t.Helper()
	due := slices.SortedFunc(maps.Values(s.timers), func(a, b Timer) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.member(), b.member())) })
	for _, t := range due {
		if !t.At.After(s.now) {
			s.do(TimerFired{Timer: t})
		}
	}
}

// after moves the time on and fires what is due.
func (s *story) after(d time.Duration) {
	s.t.Helper()
	s.now = s.now.Add(d)
	s.fire()
}

// operations carries out every operation that waits in the outbox.
func (s *story) operations(state OperationState) {
	s.t.Helper()
	for _, id := range slices.Sorted(maps.Keys(s.outbox)) {
		e := s.outbox[id]
		if e.Kind == OutboxOperation {
			s.do(OperationAnswered{RequestID: e.RequestID, OperationID: e.Operation, State: state, EntryID: id})
		}
	}
}

// send begins to send every message that is at the head of its lane.
func (s *story) send() (entries map[string]string) {
	s.t.Helper()
	entries = map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(s.outbox)) {
		e := s.outbox[id]
		if e.Kind == OutboxMessage {
			s.do(SendingStarted{MessageID: e.MessageID, EntryID: id})
			entries[e.MessageID] = id
		}
	}
	return entries
}

func (s *story) says(channel Channel, text string) {
	s.t.Helper()
	s.entry++
	s.do(MessageReceived{
		MessageID: fmt.Sprintf("m_0in%d", s.entry), MerchantID: "acme", ContactID: theContact,
		Inbound: Inbound{
			Kind: InboundText, SenderID: s.state.Merchant.Senders[channel], ProviderID: fmt.Sprint("in", s.entry), At: s.now, Text: text,
			Addresses: []Address{{AddressPhone, "+27821234567"}},
		},
	})
}

func (s *story) wantLifecycle(want Lifecycle, reason string) {
	s.t.Helper()
	if r := s.request(); r.Lifecycle != want || r.Reason != reason {
		s.t.Fatalf("the request is %s (%q), want %s (%q)", r.Lifecycle, r.Reason, want, reason)
	}
}

func (s *story) wantRefused(reason string) {
	s.t.Helper()
	if s.last.Refused == nil || s.last.Refused.Reason != reason {
		s.t.Fatalf("refused %v, want reason %s", s.last.Refused, reason)
	}
}

func (s *story) wantAllowed() {
	s.t.Helper()
	if s.last.Refused != nil {
		s.t.Fatalf("refused: %v", s.last.Refused)
	}
}

// messages returns the purposes of the request's messages.
func (s *story) messages() []Purpose {
	var out []Purpose
	for _, id := range s.request().Messages {
		out = append(out, s.state.Messages[id].Purpose)
	}
	return out
}
