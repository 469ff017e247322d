package conversations

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

// deed is something that was done at the bank.
type deed struct {
	kind         OperationKind
	id, on, code string
	minor        int64
	at           time.Time
}

// bank is a platform that forgets no call: each that arrives has its effect,
// however often the same one arrives. Its search shows what was done only after
// a while. One that counts refuses captures and refunds beyond the money.
type bank struct {
	counts     bool
	authorized int64
	settled    bool // voids come too late
	deeds      []deed
}

const bankLag = 20 * time.Second

func (b *bank) sum(kind OperationKind, on string) int64 {
	var minor int64
	for _, d := range b.deeds {
		if d.kind == kind && (on == "" || d.on == on) {
			minor += d.minor
		}
	}
	return minor
}

// take does what a call asks for, and answers.
func (b *bank) take(kind OperationKind, on, code string, minor int64, now time.Time) (id string, state OperationState, word string) {
	kept := b.sum(OperationCapture, "") - b.sum(OperationVoid, "")
	left := int64(0)
	for _, d := range b.deeds {
		if d.kind == OperationCapture && d.id == on {
			left = d.minor - b.sum(OperationVoid, on) - b.sum(OperationRefund, on)
		}
	}
	fits := !b.counts
	switch kind {
	case OperationCapture:
		fits = fits || b.sum(OperationReversal, "") == 0 && b.sum(OperationCapture, "")+minor <= b.authorized
	case OperationReversal:
		fits = kept == 0 && len(b.deeds) == 0
	case OperationVoid:
		if b.settled {
			return "", OperationFailed, ErrorSettled
		}
		fits = left == minor
	case OperationRefund:
		fits = fits || minor <= left
	}
	if !fits {
		return "", OperationFailed, "INVALID_DATA"
	}
	id = fmt.Sprint("T", len(b.deeds)+1)
	b.deeds = append(b.deeds, deed{kind, id, on, code, minor, now})
	return id, OperationSucceeded, ""
}

// seen returns what a search for a reference shows.
func (b *bank) seen(code string, now time.Time) (deed, bool) {
	for _, d := range b.deeds {
		if d.code == code && !now.Before(d.at.Add(bankLag)) {
			return d, true
		}
	}
	return deed{}, false
}

// call is one that a process makes, from the moment at which it may.
type call struct {
	op           Operation
	entry        string
	sent, arrive time.Time
	lost         bool // the process dies before the answer
}

// banking is a contact whose operations are carried out by processes that stop
// anywhere for as long as they like, at a bank that believes them all.
type banking struct {
	*story
	r         *rand.Rand
	bank      *bank
	calls     []call
	answers   []OperationAnswered
	elsewhere bool
}

// work gives an entry to a process: it looks for what is unknown, as an adapter
// does, and then calls, at once or after a pause.
func (b *banking) work(entry string) {
	e := b.outbox[entry]
	op := b.do(OperationStarted{RequestID: theRequest, OperationID: e.Operation, EntryID: entry}).Operation
	if op == nil {
		return
	}
	if op.State == OperationUnsettled {
		if d, ok := b.bank.seen(op.ID, b.now); ok {
			b.answer(call{op: *op, entry: entry}, d.id, OperationSucceeded, "")
			return
		}
		if b.now.Before(op.SentBy.Add(bankLag)) {
			b.answer(call{op: *op, entry: entry}, "", OperationUnsettled, "")
			return
		}
	}
	c := call{op: *op, entry: entry, sent: b.now, lost: b.r.IntN(3) == 0}
	if b.r.IntN(2) == 0 {
		c.sent = b.now.Add(b.while(12, 1200)) // stopped, and woken up
	}
	c.arrive = c.sent
	if b.r.IntN(2) == 0 {
		c.arrive = c.sent.Add(time.Duration(b.r.IntN(120)) * time.Second)
	}
	b.calls = append(b.calls, c)
}

// while is a time of up to so many seconds, one of them.
func (b *banking) while(seconds ...int) time.Duration {
	return time.Duration(b.r.IntN(seconds[b.r.IntN(len(seconds))])) * time.Second
}

func (b *banking) answer(c call, id string, state OperationState, word string) {
	answer := OperationAnswered{RequestID: theRequest, OperationID: c.op.ID, State: state, Error: word, ResultID: id, EntryID: c.entry}
	b.answers = append(b.answers, answer)
	if !c.lost {
		b.do(answer)
	}
}

// pass lets time run: calls arrive, timers fire.
func (b *banking) pass(d time.Duration) {
	until := b.now.Add(d)
	for {
		slices.SortStableFunc(b.calls, func(x, y call) int { return x.arrive.Compare(y.arrive) })
		if len(b.calls) == 0 || b.calls[0].arrive.After(until) {
			break
		}
		c := b.calls[0]
		b.calls = b.calls[1:]
		b.now = c.arrive
		b.fire()
		if c.sent.After(*c.op.SendBy) { // a process that wakes up late sends nothing
			b.answer(c, "", OperationPending, "not_sent")
			continue
		}
		id, state, word := b.bank.take(c.op.Kind, c.op.PaymentID, c.op.ID, c.op.Amount.Minor, b.now)
		b.answer(c, id, state, word)
	}
	b.now = until
	b.fire()
}

func (b *banking) operationEntries() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(b.outbox)), func(id string) bool { return b.outbox[id].Kind != OutboxOperation })
}

func (b *banking) step() {
	b.t.Helper()
	switch b.r.IntN(12) {
	case 0:
		b.ask(OperationCapture, zar(1+b.r.Int64N(9000)))
	case 1:
		b.ask(OperationRefund, zar(1+b.r.Int64N(4000)))
	case 2:
		if b.r.IntN(4) == 0 {
			b.ask(OperationReversal, nil)
		} else {
			b.ask(OperationRefund, nil)
		}
	case 3, 4, 5, 6:
		if entries := b.operationEntries(); len(entries) > 0 {
			b.work(entries[b.r.IntN(len(entries))])
		}
	case 7, 8, 9:
		b.pass(b.while(15, 150, 1500))
	case 10:
		if n := len(b.answers); n > 0 { // one that comes late, or twice
			b.do(b.answers[b.r.IntN(n)])
		}
	case 11:
		b.backOffice()
	}
}

// backOffice does something at the bank, or tells of something that was done.
func (b *banking) backOffice() {
	if b.elsewhere && b.r.IntN(3) == 0 {
		kinds := []OperationKind{OperationCapture, OperationRefund, OperationRefund, OperationVoid}
		on := "1"
		kind := kinds[b.r.IntN(len(kinds))]
		if n := len(b.bank.deeds); kind != OperationCapture && n > 0 {
			on = b.bank.deeds[b.r.IntN(n)].id
		}
		b.bank.take(kind, on, "somebody's", 1+b.r.Int64N(5000), b.now)
	}
	if n := len(b.bank.deeds); n > 0 {
		b.learn(b.bank.deeds[b.r.IntN(n)])
	}
}

func (b *banking) learn(d deed) {
	b.do(OperationFound{
		RequestID: theRequest, Attempt: 1, Operation: d.kind, Amount: rand149(d.minor),
		PlatformID: d.id, PaymentID: d.on, Code: d.code, At: d.at,
	})
}

// check holds what must be true at every moment.
func (b *banking) check() {
	b.t.Helper()
	r, fail := b.request(), b.t.Fatalf
	made := map[string]int{}
	for _, d := range b.bank.deeds {
		if made[d.code]++; d.code != "somebody's" && made[d.code] > 1 {
			fail("%s of %s was done twice: %+v", d.kind, d.code, b.bank.deeds)
		}
	}
	if r.CapturedMinor < 0 || r.ReversedMinor < 0 || r.RefundedMinor < 0 || r.CapturedMinor+r.ReversedMinor > r.AuthorizedMinor || r.RefundedMinor > r.CapturedMinor {
		fail("captured %d, reversed %d, refunded %d of %d", r.CapturedMinor, r.ReversedMinor, r.RefundedMinor, r.AuthorizedMinor)
	}
	if b.elsewhere {
		return // there, others may take what we have reserved
	}
	if got := r.CapturedMinor + r.ReversedMinor + r.reserved(OperationCapture) + r.Capturable(); got > r.AuthorizedMinor {
		fail("captured, reserved and capturable are %d of %d", got, r.AuthorizedMinor)
	}
	if got := r.RefundedMinor + r.reserved(OperationRefund) + r.Refundable(); got > r.CapturedMinor {
		fail("refunded, reserved and refundable are %d of %d", got, r.CapturedMinor)
	}
	from := map[string]int64{}
	for _, o := range r.Operations {
		switch {
		case o.Kind == OperationCapture && o.State == OperationSucceeded:
			from[o.ResultID] += o.Amount.Minor
		case o.Kind == OperationRefund && (o.State == OperationSucceeded || o.open()):
			from[o.PaymentID] -= o.Amount.Minor
		}
	}
	for id, left := range from {
		if left < 0 {
			fail("%d too much goes back of %s: %+v", -left, id, r.Operations)
		}
	}
	if r.Unbalanced {
		fail("it looks as if somebody else had done something: %+v", r.Operations)
	}
}

// end lets everybody come to an end, and holds our totals against the bank's.
func (b *banking) end() {
	b.t.Helper()
	for range 60 {
		for _, entry := range b.operationEntries() {
			b.work(entry)
		}
		for i := range b.calls {
			b.calls[i].lost = false
		}
		b.pass(20 * time.Minute)
		for _, d := range b.bank.deeds {
			b.learn(d)
		}
		b.check()
	}
	r := b.request()
	if entries := b.operationEntries(); len(entries) > 0 || slices.ContainsFunc(r.Operations, Operation.open) {
		b.t.Fatalf("after all is done %v wait, of %+v", entries, r.Operations)
	}
	captured, refunded := b.bank.sum(OperationCapture, "")-b.bank.sum(OperationVoid, ""), b.bank.sum(OperationRefund, "")
	if r.CapturedMinor != captured || r.RefundedMinor != refunded || r.Unbalanced {
		b.t.Errorf("captured %d, refunded %d, unbalanced %v; the bank says %d, %d: %+v %+v", r.CapturedMinor, r.RefundedMinor, r.Unbalanced, captured, refunded, r.Operations, b.bank.deeds)
	}
	want := map[Lifecycle]bool{
		Authorized:        captured == 0 && len(b.bank.deeds) == 0,
		Paid:              captured > 0 && refunded == 0,
		PartiallyRefunded: refunded > 0 && refunded < captured,
		Refunded:          captured > 0 && refunded == captured,
		Reversed:          captured == 0 && len(b.bank.deeds) > 0,
	}
	if !b.elsewhere && !want[r.Lifecycle] {
		b.t.Errorf("%s with captured %d, refunded %d", r.Lifecycle, captured, refunded)
	}
	if r.Reason != "" {
		b.t.Errorf("%s with reason %s", r.Lifecycle, r.Reason)
	}
}

// TestNothingIsDoneTwice plays merchants that ask for anything at any time,
// processes that die and are stopped anywhere, calls that arrive late, and a
// bank that would do everything twice. With a back office, too.
func TestNothingIsDoneTwice(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			b := &banking{
				story: taking(t, OutcomeAuthorized), r: rand.New(rand.NewPCG(seed, 11)), elsewhere: seed%3 == 2,
				bank: &bank{authorized: 14900, settled: seed%2 == 0, counts: seed%3 == 2},
			}
			for range 120 {
				b.step()
				b.check()
			}
			b.end()
		})
	}
}

// TestOneRefundIsDoneOnce gives one refund to many processes in a row, each of
// which dies, sleeps, wakes up or is slow at the worst moments.
func TestOneRefundIsDoneOnce(t *testing.T) {
	t.Parallel()
	done := 0
	for seed := range uint64(250) {
		b := &banking{story: taking(t, OutcomeCaptured), r: rand.New(rand.NewPCG(seed, 13)), bank: &bank{authorized: 14900}}
		id := b.asked(OperationRefund, zar(100)).ID
		for range 40 {
			switch entries := b.operationEntries(); {
			case b.r.IntN(3) == 0 && len(entries) > 0:
				b.work(entries[b.r.IntN(len(entries))])
			case b.r.IntN(4) == 0 && len(b.answers) > 0:
				b.do(b.answers[b.r.IntN(len(b.answers))])
			default:
				b.pass(b.while(5, 15, 60))
			}
			if n := b.bank.sum(OperationRefund, ""); n > 100 {
				t.Fatalf("seed %d: %s was done twice: %+v", seed, id, b.bank.deeds)
			}
		}
		done += len(b.bank.deeds)
	}
	if done < 100 {
		t.Errorf("%d of 250 were done at all", done)
	}
}
