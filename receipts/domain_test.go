package receipts_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"paythread/conversations"
)

// desk is one payment that the domain itself keeps the books of.
type desk struct {
	t     *testing.T
	state conversations.State
	now   time.Time
	work  map[string]string // operations that wait in the outbox, by entry
	n     int
}

const deskRequest = "pr_0000000000000000000r"

// newDesk is a desk at which 149.00 were just taken, or are held.
func newDesk(t *testing.T, sale bool) *desk {
	t.Helper()
	d := &desk{t: t, now: start, work: map[string]string{}, state: conversations.State{
		Merchant: conversations.Merchant{
			ID: "acme", Name: "Acme Tea & Co", PublicURL: publicURL, MaxAttempts: 3, TimeToOpen: time.Hour, TimeToPay: time.Hour,
			Senders: map[conversations.Channel]string{conversations.SMS: "acme-sms"},
		},
		Timings:  conversations.DefaultTimings(),
		Requests: map[string]*conversations.PaymentRequest{}, Messages: map[string]*conversations.Message{},
	}}
	outcome := conversations.OutcomeAuthorized
	if sale {
		outcome = conversations.OutcomeCaptured
	}
	for _, event := range []conversations.Event{
		conversations.Created{Request: conversations.PaymentRequest{
			ID: deskRequest, MerchantID: "acme", ContactID: "c_0000000000000000000a", Phone: "+27821234567", Channel: conversations.SMS,
			Order: conversations.Order{Reference: "1042", Subtotal: zar(14900), Total: zar(14900)}, Capture: sale, TimeToOpen: time.Hour, TimeToPay: time.Hour,
		}},
		conversations.LinkOpened{RequestID: deskRequest},
		conversations.ContextIssued{RequestID: deskRequest, Context: conversations.CaptureContext{KeyID: "k", ExpiresAt: start.Add(time.Hour)}},
		conversations.AttemptStarted{RequestID: deskRequest, TokenExpiresAt: start.Add(time.Hour)},
		conversations.AttemptAnswered{RequestID: deskRequest, Attempt: 1, Result: conversations.Result{Outcome: outcome, PaymentID: "1", Amount: zar(14900)}},
	} {
		d.do(event)
	}
	return d
}

func (d *desk) request() *conversations.PaymentRequest { return d.state.Requests[deskRequest] }

// do applies an event as the store does.
func (d *desk) do(event conversations.Event) {
	d.t.Helper()
	changed, effects, err := conversations.Apply(d.state, event, d.now)
	var missing *conversations.Missing
	switch {
	case errors.As(err, &missing):
		if missing.RequestID != "" { // the store would look for it, and find nothing
			d.state.Requests[missing.RequestID] = nil
		} else {
			d.state.Messages[missing.MessageID] = nil
		}
		d.do(event)
		return
	case errors.Is(err, conversations.ErrNothing):
		return
	case err != nil:
		d.t.Fatalf("%s: %v", event.Kind(), err)
	}
	d.state.Contact = changed.Contact
	maps.Copy(d.state.Requests, changed.Requests)
	maps.Copy(d.state.Messages, changed.Messages)
	for _, id := range effects.Acks {
		delete(d.work, id)
	}
	for _, e := range effects.Outbox {
		if e.Kind == conversations.OutboxOperation {
			d.n++
			d.work[fmt.Sprintf("%d-1", d.n)] = e.Operation
		}
	}
}

// step lets something happen to the money: the merchant asks, the platform
// answers, or somebody acts in the platform's back office.
func (d *desk) step(r *rand.Rand) {
	d.t.Helper()
	d.now = d.now.Add(time.Duration(1+r.IntN(600)) * time.Minute)
	amount := zar(int64(1 + r.IntN(9000)))
	kinds := []conversations.OperationKind{conversations.OperationCapture, conversations.OperationReversal, conversations.OperationRefund}
	switch r.IntN(6) {
	case 0, 1:
		ask := conversations.OperationRequested{RequestID: deskRequest, Operation: kinds[r.IntN(len(kinds))], Note: ownNote, Agent: ownAgent}
		if ask.Operation != conversations.OperationReversal && r.IntN(2) == 0 {
			ask.Amount = &amount
		}
		d.do(ask)
	case 5:
		d.n++
		kind := append(kinds, conversations.OperationVoid)[r.IntN(4)]
		d.do(conversations.OperationFound{
			RequestID: deskRequest, Attempt: 1, Operation: kind, Amount: amount, PlatformID: fmt.Sprint("e", d.n), PaymentID: "1", At: d.now,
		})
	default:
		states := []conversations.OperationState{conversations.OperationSucceeded, conversations.OperationSucceeded, conversations.OperationFailed, conversations.OperationUnsettled}
		for _, entry := range slices.Sorted(maps.Keys(d.work)) {
			id := d.work[entry]
			d.do(conversations.OperationStarted{RequestID: deskRequest, OperationID: id, EntryID: entry})
			state := states[r.IntN(len(states))]
			d.n++
			answer := conversations.OperationAnswered{RequestID: deskRequest, OperationID: id, State: state, EntryID: entry, ResultID: fmt.Sprint("o", d.n)}
			if state == conversations.OperationFailed && r.IntN(2) == 0 {
				answer.Error = conversations.ErrorSettled
			}
			d.do(answer)
		}
	}
}

// TestReceiptsFollowTheDomain: whatever merchants ask and platforms answer, and
// whatever is done in a back office, the receipt says what the domain's totals
// say, and does not contradict itself.
func TestReceiptsFollowTheDomain(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 4))
		d := newDesk(t, seed%2 == 0)
		for range 12 {
			d.step(r)
			seen[agrees(t, d.request())]++
		}
		if t.Failed() {
			t.Fatalf("with the seed %d", seed)
		}
	}
	if len(seen) < 8 {
		t.Errorf("the walks led to %v only", seen)
	}
}
