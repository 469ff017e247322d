package receipts_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/receipts"
)

// ledger is a payment with what was done to its money since, counted as the
// domain does.
type ledger struct {
	r conversations.PaymentRequest
}

func newLedger(sale bool, currency string) ledger {
	total := conversations.Money{Minor: 14900, Currency: currency}
	l := ledger{conversations.PaymentRequest{
		Lifecycle: conversations.Authorized, PaidBy: 1, AuthorizedMinor: total.Minor,
		Receipt: &conversations.Receipt{Number: "1", IssuedAt: start, Order: conversations.Order{Total: total}, Paid: total, Captured: sale},
	}}
	if sale {
		l.r.Lifecycle, l.r.CapturedMinor = conversations.Paid, total.Minor
	}
	return l
}

func (l ledger) capturable() int64 {
	if l.r.Lifecycle == conversations.Reversed || l.r.Lifecycle == conversations.Refunded {
		return 0
	}
	return l.r.AuthorizedMinor - l.r.CapturedMinor - l.r.ReversedMinor
}

func (l ledger) refundable() int64 { return l.r.CapturedMinor - l.r.RefundedMinor }

// with returns the ledger after an operation, and false if the totals do not
// allow it.
func (l ledger) with(kind conversations.OperationKind, part bool, state conversations.OperationState) (ledger, bool) {
	var amount int64
	switch kind {
	case conversations.OperationCapture, conversations.OperationReversal:
		amount = l.capturable()
	case conversations.OperationVoid:
		if l.r.RefundedMinor == 0 && !part {
			amount = l.r.CapturedMinor
		}
	case conversations.OperationRefund:
		amount = l.refundable()
	}
	if part {
		amount /= 3
	}
	if amount <= 0 || l.r.Lifecycle == conversations.Reversed || l.r.Lifecycle == conversations.Refunded {
		return l, false
	}
	at := start.Add(time.Duration(len(l.r.Operations)) * time.Hour)
	op := conversations.Operation{
		Kind: kind, Attempt: 1, Amount: conversations.Money{Minor: amount, Currency: l.r.Receipt.Paid.Currency}, State: state, StartedAt: at,
	}
	l.r.Operations = append(slices.Clone(l.r.Operations), op)
	if state != conversations.OperationSucceeded {
		return l, true
	}
	switch kind {
	case conversations.OperationCapture:
		if l.r.CapturedMinor += amount; l.r.Lifecycle == conversations.Authorized {
			l.r.Lifecycle = conversations.Paid
		}
	case conversations.OperationReversal:
		if l.r.ReversedMinor += amount; l.r.ReversedMinor == l.r.AuthorizedMinor {
			l.r.Lifecycle = conversations.Reversed
		}
	case conversations.OperationVoid:
		l.r.ReversedMinor, l.r.CapturedMinor, l.r.Lifecycle = l.r.ReversedMinor+amount, l.r.CapturedMinor-amount, conversations.Reversed
	case conversations.OperationRefund:
		l.r.RefundedMinor += amount
		if l.r.Lifecycle = conversations.PartiallyRefunded; l.refundable() == 0 {
			l.r.Lifecycle = conversations.Refunded
		}
	}
	return l, true
}

// stamps are what a receipt may say of a lifecycle.
var stamps = map[conversations.Lifecycle][]string{
	conversations.Authorized:        {"Approved, not yet taken", "Being released"},
	conversations.Paid:              {"Paid", "Paid in part", "Being returned"},
	conversations.PartiallyRefunded: {"Partly refunded", "Being returned"},
	conversations.Refunded:          {"Refunded"},
	conversations.Reversed:          {"Given back", "Released, nothing taken"},
}

// TestReceiptsAddUp walks every mix of up to three operations, each in every
// state, on sales and on authorizations: no receipt contradicts itself or the
// totals.
func TestReceiptsAddUp(t *testing.T) {
	t.Parallel()
	kinds := []conversations.OperationKind{conversations.OperationCapture, conversations.OperationReversal, conversations.OperationVoid, conversations.OperationRefund}
	states := []conversations.OperationState{conversations.OperationSucceeded, conversations.OperationFailed, conversations.OperationPending, conversations.OperationUnsettled}
	seen := map[string]int{}
	var walk func(l ledger, depth int)
	walk = func(l ledger, depth int) {
		seen[addsUp(t, l)]++
		if depth == 0 || t.Failed() {
			return
		}
		for _, kind := range kinds {
			for _, part := range []bool{false, true} {
				for _, state := range states {
					if next, ok := l.with(kind, part, state); ok {
						walk(next, depth-1)
					}
				}
			}
		}
	}
	for _, sale := range []bool{true, false} {
		for currency, depth := range map[string]int{"ZAR": 3, "JPY": 2, "KWD": 2} {
			walk(newLedger(sale, currency), depth)
		}
	}
	for _, all := range stamps {
		for _, stamp := range all {
			if seen[stamp] == 0 {
				t.Errorf("no mix is %q", stamp)
			}
		}
	}
}

// addsUp holds one receipt of a ledger against the totals, as agrees does, and
// its sums against its rows. It returns the stamp.
func addsUp(t *testing.T, l ledger) string {
	t.Helper()
	r := &l.r
	agrees(t, r)
	d, _ := receipts.DocumentOf(r)
	if !slices.Contains(stamps[r.Lifecycle], d.Stamp) {
		t.Errorf("%s is stamped %s", r.Lifecycle, d.Stamp)
	}
	if len(d.Balance) == 0 {
		return d.Stamp
	}
	changed, sums := map[string]int64{}, map[string]int64{}
	for _, c := range d.Later {
		changed[c.Name] += c.Amount.Minor
	}
	for _, s := range d.Balance {
		sums[s.Name] = s.Amount.Minor
	}
	taken := sums["Taken"]
	if sums["Returned"] == 0 {
		taken = sums["Paid"]
	}
	if !r.Receipt.Captured && taken != changed["Taken"] || sums["Returned"] != -(changed["Refunded"]+changed["Given back"]) {
		t.Errorf("the sums are not those of the rows: %+v", d)
	}
	if sums["Still held"] != l.capturable() {
		t.Errorf("%d may still be taken: %+v", l.capturable(), d)
	}
	return d.Stamp
}

// agrees holds one receipt against the totals and against itself, and returns
// its stamp.
func agrees(t *testing.T, r *conversations.PaymentRequest) string {
	t.Helper()
	d, ok := receipts.DocumentOf(r)
	if !ok {
		t.Fatal("there is no receipt")
	}
	fail := func(why string) {
		t.Errorf("%s: %s, captured %d, reversed %d, refunded %d, operations %+v give %+v", why, r.Lifecycle, r.CapturedMinor, r.ReversedMinor, r.RefundedMinor, r.Operations, d)
	}
	if d.Amount.Minor <= 0 || d.Amount.Minor > r.Receipt.Paid.Minor || d.Amount.Currency != r.Receipt.Paid.Currency {
		fail("the amount is none of the payment's")
	}
	var shown int
	changed := map[string]int64{}
	for _, op := range r.Operations {
		if op.State != conversations.OperationFailed {
			shown++
		}
	}
	for i, c := range d.Later {
		changed[c.Name] += c.Amount.Minor
		if i > 0 && c.At.Before(d.Later[i-1].At) {
			fail("the changes are not in order")
		}
	}
	if len(d.Later) != shown || (shown > 0) != (len(d.Balance) > 0) || len(d.Second) > 0 {
		fail("not every operation is shown, or one that failed is")
	}
	if shown == 0 {
		return d.Stamp
	}
	sums := map[string]int64{}
	for i, s := range d.Balance {
		if sums[s.Name] = s.Amount.Minor; s.Total != (i == len(d.Balance)-1) {
			fail("the last sum is not the total")
		}
		if minus := s.Name == "Not taken" || s.Name == "Returned"; s.Amount.Minor != 0 && minus != (s.Amount.Minor < 0) {
			fail("a sum has the wrong sign")
		}
	}
	last := d.Balance[len(d.Balance)-1].Amount
	if last.Minor != r.CapturedMinor-r.RefundedMinor {
		fail("what is left is not that of the totals")
	}
	taken, returned := sums["Taken"], sums["Returned"] != 0
	if !returned {
		taken = sums["Paid"]
	}
	if returned && taken+sums["Returned"] != last.Minor {
		fail("taken less returned is not what is left")
	}
	if approved, told := sums["Approved"]; told == r.Receipt.Captured || told && approved+sums["Not taken"]-sums["Still held"] != taken {
		fail("approved less held and not taken is not what was taken")
	}
	if good := d.Stamp == "Paid" || d.Stamp == "Paid in part"; good != d.Good || d.Stamp != "Paid" && len(d.Standing) == 0 {
		fail("the stamp is not explained")
	}
	if (d.Stamp == "Refunded" || d.Stamp == "Given back" || d.Stamp == "Released, nothing taken" || d.Stamp == "Approved, not yet taken") && last.Minor != 0 {
		fail("something is left, and the stamp says that nothing is")
	}
	// What was also done elsewhere cannot be on its way once more.
	sentences := strings.ReplaceAll(strings.Join(d.Standing, " "), "\u00a0", " ")
	for _, way := range []struct {
		name, word string
		most       int64
		all        bool // then the stamp says so
	}{
		{"Being returned", " is being returned", last.Minor, true},
		{"Being released", " is being released", sums["Still held"], taken == 0},
	} {
		amount := min(changed[way.name], way.most)
		told := conversations.Money{Minor: amount, Currency: last.Currency}.String() + way.word
		if strings.Count(sentences, way.word) != min(1, int(amount)) || amount > 0 && !strings.Contains(sentences, told) {
			fail("of what is on its way it does not say " + told)
		}
		if want := way.all && amount > 0 && amount == way.most; (d.Stamp == way.name) != want {
			fail("the stamp says that all of it is on its way, or does not")
		}
	}
	return d.Stamp
}

func TestDocumentKeepsToItsOwnMoney(t *testing.T) {
	t.Parallel()
	r := paid("r1")
	documents["paid_twice"](r)
	elsewhere := later(r, conversations.OperationRefund, 300, conversations.OperationSucceeded, 3)
	elsewhere.Attempt, elsewhere.Elsewhere, elsewhere.Reason = 3, true, conversations.OperationElsewhere
	d, _ := receipts.DocumentOf(r)
	if d.Stamp != "Paid" || d.Amount != zar(14900) || len(d.Later) != 0 || len(d.Balance) != 0 || len(d.Standing) != 0 {
		t.Errorf("a second payment changed the receipt of the first: %+v", d)
	}
	var told []string
	for _, c := range d.Second {
		told = append(told, c.Name+" "+c.Amount.String())
	}
	if want := []string{"Refunded ZAR 149.00", "Refunded ZAR 3.00"}; !slices.Equal(told, want) {
		t.Errorf("of the second payment it tells %q, want %q", told, want)
	}
}

// TestStoppedRefund: money that was to go back and stayed was taken once.
func TestStoppedRefund(t *testing.T) {
	t.Parallel()
	r := paid("r1")
	documents["captured_in_part"](r)
	later(r, conversations.OperationRefund, 2500, conversations.OperationSucceeded, 25).ResultID = "7799"
	later(r, conversations.OperationVoid, 2500, conversations.OperationSucceeded, 26).PaymentID = "7799"
	d, _ := receipts.DocumentOf(r)
	if d.Stamp != "Paid in part" || d.Amount != zar(10000) || len(d.Later) != 3 || d.Later[2].Name != "Refund stopped" || d.Balance[len(d.Balance)-1].Amount != zar(10000) {
		t.Errorf("a refund that was stopped left %+v", d)
	}
	agrees(t, r)
}

func TestDocumentOfUnpaid(t *testing.T) {
	t.Parallel()
	if d, ok := receipts.DocumentOf(&conversations.PaymentRequest{Lifecycle: conversations.Open}); ok || d != nil {
		t.Errorf("a request that was not paid has the receipt %+v", d)
	}
}
