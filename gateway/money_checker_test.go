package main

// The money checker holds what the platform really did against what Paythread
// says of it, at the end of every test that has a world of its own. The harness
// registers it:
//
//	s.money = checkMoney(t, world, config)     // runs before the world and the gateways stop
//	s.money.leaves(twoSuccesses, "the platform is away until the end") // what a test cannot help
//
// It waits until the books agree: reversals may be on their way. What is still
// asked after, or still being carried out, may have happened or not; both agree.

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/simulator/cybersource"
)

// differenceKind is one way in which the books can disagree.
type differenceKind string

const (
	unknownCharge     differenceKind = "a charge that we know nothing of"
	missingCharge     differenceKind = "a payment of ours that was never made"
	hiddenSuccess     differenceKind = "money stands that we say was not taken"
	twoSuccesses      differenceKind = "charged twice"
	unknownOperation  differenceKind = "an operation that we know nothing of"
	missingOperation  differenceKind = "an operation of ours that was never done"
	repeatedOperation differenceKind = "an operation done more than once"
	totalsDiffer      differenceKind = "totals that differ"
	beyondWhatCame    differenceKind = "more taken or given back than there was"
)

// difference is one disagreement, about a payment request if it has one.
type difference struct {
	Kind    differenceKind
	Request string
	Text    string
}

func (d difference) String() string {
	return fmt.Sprintf("%s (%s): %s", d.Kind, cmp.Or(d.Request, "no payment request"), d.Text)
}

// compareBooks returns every difference between a platform's transactions of
// one merchant of its own and our payment requests.
func compareBooks(merchant string, there []cybersource.Transaction, ours []*conversations.PaymentRequest) []difference {
	b := &bothBooks{ours: ours, chains: map[string]*chain{}, byCode: map[string][]*chain{}, pending: map[string]bool{}}
	for _, t := range there { // oldest first: a parent stands before its children
		if t.Merchant == merchant {
			b.enter(t)
		}
	}
	known := map[string]bool{}
	for _, r := range ours {
		for i := range r.Attempts {
			known[r.Attempts[i].Code] = true
			b.attempt(r, &r.Attempts[i])
		}
		b.operations(r)
		b.totals(r)
	}
	for _, code := range sortedKeys(b.byCode) {
		for _, c := range b.byCode[code] {
			if !known[code] {
				b.differs(unknownCharge, "", "%s %s of %s %s with the reference %q", c.root.Kind, c.root.ID, c.root.Amount, c.root.Currency, code)
			}
			c.bounds(b)
		}
	}
	b.orders()
	return b.found
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// bothBooks are both sides while they are compared.
type bothBooks struct {
	ours   []*conversations.PaymentRequest
	chains map[string]*chain   // by the id of each of their transactions
	byCode map[string][]*chain // by the reference of the payment
	// pending are the references of what may come to money later.
	pending map[string]bool
	found   []difference
}

func (b *bothBooks) differs(kind differenceKind, request, format string, values ...any) {
	b.found = append(b.found, difference{kind, request, fmt.Sprintf(format, values...)})
}

// chain is a payment that came to money, with all that followed it.
type chain struct {
	root    cybersource.Transaction
	follows []*followed
}

// followed is one capture, reversal, void or refund at the platform.
type followed struct {
	cybersource.Transaction
	minor  int64
	voided bool
	op     *conversations.Operation // of ours; nil: none
	aside  bool                     // part of another one, or of settling the attempt
}

// enter adds a transaction to its chain. What moved no money is left out.
func (b *bothBooks) enter(t cybersource.Transaction) {
	switch t.Kind {
	case cybersource.KindPending:
		b.pending[t.Code] = true
	case cybersource.KindSale, cybersource.KindAuthorization:
		c := &chain{root: t}
		b.chains[t.ID], b.byCode[t.Code] = c, append(b.byCode[t.Code], c)
	case cybersource.KindCapture, cybersource.KindReversal, cybersource.KindVoid, cybersource.KindRefund:
		c := b.chains[t.ParentID]
		if c == nil {
			b.differs(unknownOperation, "", "%s %s of %s, which is no payment", t.Kind, t.ID, t.ParentID)
			return
		}
		for _, f := range c.follows {
			f.voided = f.voided || t.Kind == cybersource.KindVoid && f.ID == t.ParentID
		}
		c.follows = append(c.follows, &followed{Transaction: t, minor: b.minor(t)})
		b.chains[t.ID] = c
	}
}

// minor reads an amount exactly.
func (b *bothBooks) minor(t cybersource.Transaction) int64 {
	m, err := conversations.ParseMoney(t.Amount, t.Currency)
	if err != nil {
		b.differs(totalsDiffer, "", "%s %s has the amount %q %s", t.Kind, t.ID, t.Amount, t.Currency)
	}
	return m.Minor
}

// sums are a chain's totals in minor units, of the transactions that counts
// picks. Reversed is what was given back before settlement: a hold, or a sale or
// capture that was voided.
type sums struct{ Authorized, Captured, Reversed, Refunded int64 }

func (c *chain) sums(b *bothBooks, counts func(*followed) bool) sums {
	s := sums{Authorized: b.minor(c.root)}
	if c.root.Kind == cybersource.KindSale {
		s.Captured = s.Authorized
	}
	refunds := map[string]bool{}
	for _, f := range c.follows {
		refunds[f.ID] = f.Kind == cybersource.KindRefund
		switch {
		case !counts(f):
		case f.Kind == cybersource.KindCapture:
			s.Captured += f.minor
		case f.Kind == cybersource.KindReversal:
			s.Reversed += f.minor
		case f.Kind == cybersource.KindRefund:
			s.Refunded += f.minor
		case refunds[f.ParentID]: // a refund that was called off
			s.Refunded -= f.minor
		default:
			s.Captured -= f.minor
			s.Reversed += f.minor
		}
	}
	return s
}

func everything(*followed) bool { return true }

// released tells whether the hold itself was given back.
func (c *chain) released() bool {
	return slices.ContainsFunc(c.follows, func(f *followed) bool { return f.Kind == cybersource.KindReversal })
}

// stands tells whether the customer is left with a charge or a hold.
func (c *chain) stands(b *bothBooks) bool {
	s := c.sums(b, everything)
	if s.Captured > s.Refunded {
		return true
	}
	voidedSale := c.root.Kind == cybersource.KindSale && s.Captured == 0
	return s.Captured == 0 && !voidedSale && !c.released()
}

// bounds looks at the platform alone: what it gave back was there.
func (c *chain) bounds(b *bothBooks) {
	s := c.sums(b, everything)
	if s.Captured > s.Authorized || s.Refunded > s.Captured || s.Captured < 0 {
		b.differs(beyondWhatCame, c.root.Code, "authorized %d, captured %d, refunded %d", s.Authorized, s.Captured, s.Refunded)
	}
}

// attempt compares one try to pay.
func (b *bothBooks) attempt(r *conversations.PaymentRequest, a *conversations.Attempt) {
	made := b.byCode[a.Code]
	if len(made) > 1 {
		b.differs(twoSuccesses, r.ID, "the attempt %s made %d charges", a.Code, len(made))
	}
	switch a.State {
	case conversations.AttemptSending, conversations.AttemptUnsettled, conversations.AttemptAuthenticating:
		return // it is asked after
	case conversations.AttemptDeclined, conversations.AttemptNotTaken, conversations.AttemptNotFound:
		for _, c := range made {
			if c.stands(b) {
				b.differs(hiddenSuccess, r.ID, "the attempt %s is %s, and %s %s stands", a.Code, a.State, c.root.Kind, c.root.ID)
			}
		}
		return
	}
	switch {
	case a.State == conversations.AttemptInReview && b.pending[a.Code]:
		// Reviewed before the bank is asked: there is no money yet.
	case len(made) == 0:
		b.differs(missingCharge, r.ID, "the attempt %s is %s", a.Code, a.State)
	case made[0].root.ID != a.Result.PaymentID:
		b.differs(missingCharge, r.ID, "the attempt %s says %q, and %s was made", a.Code, a.Result.PaymentID, made[0].root.ID)
	}
}

// operations pairs our operations with the platform's and reports what has no
// counterpart.
func (b *bothBooks) operations(r *conversations.PaymentRequest) {
	chains := map[int]*chain{}
	for _, a := range r.Attempts {
		if made := b.byCode[a.Code]; len(made) > 0 {
			chains[a.N] = made[0]
		}
	}
	b.pair(r, chains)
	for i := range r.Operations {
		b.operation(r, &r.Operations[i], chains[r.Operations[i].Attempt])
	}
	for _, a := range r.Attempts {
		c := chains[a.N]
		if c == nil {
			continue
		}
		c.setAside(a)
		for _, f := range c.follows {
			if f.op == nil && !f.aside {
				b.differs(unknownOperation, r.ID, "%s %s of %s %s with the reference %q", f.Kind, f.ID, f.Amount, f.Currency, f.Code)
			}
		}
	}
}

// pair finds the counterparts: by the platform's id first, then by our own
// reference, and at last, for what was found to have been done before it was
// sent, by what it is.
func (b *bothBooks) pair(r *conversations.PaymentRequest, chains map[int]*chain) {
	for _, fits := range []func(*conversations.Operation, *followed) bool{
		func(o *conversations.Operation, f *followed) bool { return o.ResultID == f.ID },
		func(o *conversations.Operation, f *followed) bool { return o.ID == f.Code && sameKind(o, f) },
		func(o *conversations.Operation, f *followed) bool {
			return o.State == conversations.OperationSucceeded && o.ResultID == "" && sameKind(o, f) && o.Amount.Minor == f.minor && !b.paired(chains[o.Attempt], o)
		},
	} {
		for i := range r.Operations {
			op := &r.Operations[i]
			c := chains[op.Attempt]
			if c == nil {
				continue
			}
			for _, f := range c.follows {
				if f.op == nil && fits(op, f) {
					f.op = op
				}
			}
		}
	}
}

// paired tells whether an operation has a counterpart in a chain already.
func (b *bothBooks) paired(c *chain, op *conversations.Operation) bool {
	return slices.ContainsFunc(c.follows, func(f *followed) bool { return f.op == op })
}

// sameKind tells whether a transaction can be an operation's. What is to be
// given back is released or voided, as the platform needs it.
func sameKind(o *conversations.Operation, f *followed) bool {
	switch o.Kind {
	case conversations.OperationReversal, conversations.OperationVoid:
		return f.Kind == cybersource.KindReversal || f.Kind == cybersource.KindVoid
	}
	return string(o.Kind) == f.Kind
}

// operation compares one operation with its counterparts.
func (b *bothBooks) operation(r *conversations.PaymentRequest, op *conversations.Operation, c *chain) {
	var done []*followed
	if c != nil {
		for _, f := range c.follows {
			if f.op == op {
				done = append(done, f)
			}
		}
	}
	// A capture that is voided leaves the hold, which is released after it.
	if len(done) == 2 && op.Kind == conversations.OperationVoid && done[0].Kind == cybersource.KindVoid && done[1].Kind == cybersource.KindReversal {
		done[1].aside, done = true, done[:1]
	}
	switch {
	case len(done) > 1:
		b.differs(repeatedOperation, r.ID, "%s %s is %s, and was done %d times", op.Kind, op.ID, op.State, len(done))
	case op.State == conversations.OperationSucceeded && len(done) == 0:
		b.differs(missingOperation, r.ID, "%s %s of %s", op.Kind, op.ID, op.Amount)
	case op.State == conversations.OperationFailed && len(done) > 0:
		b.differs(unknownOperation, r.ID, "%s %s has failed, and was done as %s", op.Kind, op.ID, done[0].ID)
	case len(done) == 1 && (done[0].minor != op.Amount.Minor || done[0].Currency != op.Amount.Currency):
		b.differs(totalsDiffer, r.ID, "%s %s is of %s, and was done for %s %s", op.Kind, op.ID, op.Amount, done[0].Amount, done[0].Currency)
	case len(done) == 1 && op.PaymentID != "" && done[0].ParentID != op.PaymentID:
		b.differs(unknownOperation, r.ID, "%s %s is of %s, and was done to %s", op.Kind, op.ID, op.PaymentID, done[0].ParentID)
	}
}

// setAside marks what needs no operation of its own: a charge whose answer was
// lost may be taken back by its reference, which settles the attempt.
func (c *chain) setAside(a conversations.Attempt) {
	running := a.State == conversations.AttemptSending || a.State == conversations.AttemptUnsettled
	for _, f := range c.follows {
		back := f.Kind == cybersource.KindReversal || f.Kind == cybersource.KindVoid
		if f.op == nil && back && (a.Result.Outcome == conversations.OutcomeReversed || running) {
			f.aside = true
		}
	}
}

// totals compares the sums of the money that counts. What is not known yet to
// have happened is in neither sum.
func (b *bothBooks) totals(r *conversations.PaymentRequest) {
	have := sums{r.AuthorizedMinor, r.CapturedMinor, r.ReversedMinor, r.RefundedMinor}
	var want sums
	if a := r.Attempt(r.PaidBy); a != nil && len(b.byCode[a.Code]) > 0 {
		c := b.byCode[a.Code][0]
		if c.root.Currency != r.Order.Total.Currency {
			b.differs(totalsDiffer, r.ID, "paid in %s, asked in %s", c.root.Currency, r.Order.Total.Currency)
		}
		want = c.sums(b, func(f *followed) bool {
			return !f.aside && (f.op == nil || f.op.State == conversations.OperationSucceeded)
		})
	}
	if have != want {
		b.differs(totalsDiffer, r.ID, "we say %+v, the platform did %+v, in minor units of %s", have, want, r.Order.Total.Currency)
	}
}

// orders looks for customers who paid more than once for the same order.
func (b *bothBooks) orders() {
	standing := map[string][]string{}
	request := map[string]string{}
	for _, r := range b.ours {
		order := r.MerchantID + " " + r.Order.Reference
		for _, a := range r.Attempts {
			for _, c := range b.byCode[a.Code] {
				if c.stands(b) {
					standing[order], request[order] = append(standing[order], c.root.ID+" ("+a.Code+")"), r.ID
				}
			}
		}
	}
	for _, order := range sortedKeys(standing) {
		if n := len(standing[order]); n > 1 {
			b.differs(twoSuccesses, request[order], "for the order %s stand %s", order, strings.Join(standing[order], " and "))
		}
	}
}

// moneyChecker compares the books of one test's world.
type moneyChecker struct {
	t         *testing.T
	outside   string // the simulator's URL
	merchants []string
	open      func(context.Context) (*conversations.Store, error)

	mu       sync.Mutex
	expected []leftover
}

// leftover is a difference that a test cannot help.
type leftover struct {
	kind differenceKind
	why  string
}

// booksAgreeWithin is how long money may be on its way when a test ends. A test
// in which the books agree does not wait.
const booksAgreeWithin = 45 * time.Second

// checkMoney compares the books when the test ends, before whatever was
// registered earlier is cleaned up: register it last.
func checkMoney(t *testing.T, outside string, config *Config) *moneyChecker {
	t.Helper()
	m := &moneyChecker{t: t, outside: outside, open: func(ctx context.Context) (*conversations.Store, error) {
		options, err := config.Store()
		if err != nil {
			return nil, err
		}
		return conversations.Connect(ctx, options)
	}}
	for _, merchant := range config.Merchants {
		m.merchants = append(m.merchants, merchant.ID)
	}
	t.Cleanup(m.check)
	return m
}

// leaves says that a difference of a kind is left when the test ends, and why
// that is right. If there is none the test fails, so that nobody forgets to take
// the declaration away.
func (m *moneyChecker) leaves(kind differenceKind, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expected = append(m.expected, leftover{kind, why})
}

// sort tells what is wrong with some differences: those that nobody declared,
// and declarations that nothing came of.
func (m *moneyChecker) sort(found []difference) (wrong []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range found {
		if !slices.ContainsFunc(m.expected, func(l leftover) bool { return l.kind == d.Kind }) {
			wrong = append(wrong, d.String())
		}
	}
	for _, l := range m.expected {
		if !slices.ContainsFunc(found, func(d difference) bool { return d.Kind == l.kind }) {
			wrong = append(wrong, fmt.Sprintf("%s: there is none, although %s", l.kind, l.why))
		}
	}
	return wrong
}

func (m *moneyChecker) check() {
	ctx, cancel := context.WithTimeout(context.Background(), booksAgreeWithin)
	defer cancel()
	store, err := m.open(ctx)
	if err != nil {
		m.t.Errorf("the money was not checked: %v", err)
		return
	}
	defer func() { _ = store.Close() }() // it was only read from
	var wrong []string
	for {
		now, err := m.compare(ctx, store)
		if err == nil {
			wrong = now
		}
		switch {
		case err == nil && len(wrong) == 0:
			return
		case err != nil && (ctx.Err() == nil || wrong == nil):
			m.t.Errorf("the money was not checked: %v", err)
			return
		case ctx.Err() != nil || m.t.Failed(): // nobody waits for a test that has failed
			m.t.Errorf("the money does not agree:\n%s", strings.Join(wrong, "\n"))
			return
		}
		pause := time.NewTimer(100 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

// compare reads both sides and sorts their differences.
func (m *moneyChecker) compare(ctx context.Context, store *conversations.Store) ([]string, error) {
	there, err := readTransactions(ctx, m.outside)
	if err != nil {
		return nil, err
	}
	var ours []*conversations.PaymentRequest
	for _, merchant := range m.merchants {
		for cursor := ""; ; {
			page, next, err := store.Requests(ctx, conversations.Filter{MerchantID: merchant}, cursor, 500)
			if err != nil {
				return nil, err
			}
			if ours = append(ours, page...); next == "" {
				break
			}
			cursor = next
		}
	}
	return m.sort(compareBooks(demoCyberSource.ID, there, ours)), nil
}

// readTransactions asks the simulator what was really done.
func readTransactions(ctx context.Context, outside string) ([]cybersource.Transaction, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, outside+"/cybersource/transactions", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // all of it is read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the simulator answered %d for its transactions", resp.StatusCode)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var list []cybersource.Transaction
	return list, json.Unmarshal(body, &list)
}
