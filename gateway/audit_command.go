package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"text/tabwriter"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// auditCommand compares ours with theirs, changes nothing, and prints what it
// found.
func auditCommand(flags *flag.FlagSet) action {
	load := configFlag(flags)
	merchantID := flags.String("merchant", "", "the `ID` of the merchant")
	since := spanFlag(flags, "since", 48*time.Hour, "how far `BACK`, such as 48h or 3d")
	return func(ctx context.Context, p process) (err error) {
		if *merchantID == "" {
			return usageError{"--merchant ID is missing"}
		}
		if *since <= 0 {
			return usageError{"--since wants a time, such as 48h"}
		}
		config, err := load(p)
		if err != nil {
			return err
		}
		m, ok := config.Merchant(*merchantID)
		if !ok {
			return fmt.Errorf("there is no merchant %s in the configuration", shorten(*merchantID))
		}
		options, err := config.Store()
		if err != nil {
			return err
		}
		options.Log = slog.New(slog.DiscardHandler) // the error says it
		ctx, cancel := context.WithTimeout(ctx, auditWithin)
		defer cancel()
		store, err := conversations.Connect(ctx, options)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		platform, err := newPlatform(m, store.Now, outwardClient(), options.Log)
		if err != nil {
			return err
		}
		auditor, ok := platform.(platforms.Auditor)
		if !ok {
			return fmt.Errorf("the platform %s cannot list what it did", m.Platform.Name)
		}
		c, err := compareMoney(ctx, store, auditor, m.ID, store.Now().Add(-*since), store.Now())
		if err != nil {
			return err
		}
		if err := c.print(p.stdout); err != nil {
			return err
		}
		p.say(p.stderr, fmt.Sprintf("%s, %s\n", countOf(len(c.rows), "transaction"), countOf(c.differences(), "difference")))
		if c.differences() > 0 {
			return errReported
		}
		return nil
	}
}

// showsWithin is how long a platform may take to show a transaction: what is
// younger and not there yet is no difference.
const showsWithin = 30 * time.Minute

// listedBefore is how long before the time that is compared a payment request
// may have been made: a link lives that long, extended now and then.
const listedBefore = 31 * day

// comparison is what a platform did beside what we know.
type comparison struct {
	rows []comparedRow
}

// comparedRow is one payment or operation.
type comparedRow struct {
	requestID, order string
	created, at      time.Time
	what             string
	amount           conversations.Money
	ours, theirs     string
	difference       string // empty: they agree
}

func (c *comparison) differences() (n int) {
	for _, r := range c.rows {
		if r.difference != "" {
			n++
		}
	}
	return n
}

// comparedStore is what a comparison reads.
type comparedStore interface {
	requestStore
	Requests(ctx context.Context, f conversations.Filter, cursor string, limit int) ([]*conversations.PaymentRequest, string, error)
}

// theirs is what a platform did for one payment request.
type theirs struct {
	request    *conversations.PaymentRequest
	payments   map[int][]platforms.Found // by attempt
	operations []followedOn
}

// followedOn is an operation of theirs with the attempt whose money it moved.
type followedOn struct {
	platforms.Found
	attempt int
}

// takenBack tells whether they gave an attempt's money back, or never took it
// after all: a charge whose answer was lost is taken back by our own reference.
func (t *theirs) takenBack(attempt int) bool {
	return slices.ContainsFunc(t.operations, func(f followedOn) bool {
		return f.attempt == attempt && f.Succeeded && (f.Operation == conversations.OperationReversal || f.Operation == conversations.OperationVoid)
	})
}

// gaveBack tells whether they gave back one payment.
func (t *theirs) gaveBack(payment platforms.Found) bool {
	return slices.ContainsFunc(t.operations, func(f followedOn) bool {
		return f.Succeeded && f.Operation != conversations.OperationCapture && (f.PaymentID == payment.ID || f.RootID == payment.ID)
	})
}

// onSecond tells whether they did an operation on a charge that is one too many.
func (t *theirs) onSecond(a conversations.Attempt, f followedOn) bool {
	return slices.ContainsFunc(t.payments[a.N], func(p platforms.Found) bool { return isSecond(a, p) && (f.PaymentID == p.ID || f.RootID == p.ID) })
}

// compareMoney compares everything between two times and changes nothing.
func compareMoney(ctx context.Context, store comparedStore, auditor platforms.Auditor, merchantID string, from, to time.Time) (*comparison, error) {
	t := &transactions{store: store, log: slog.New(slog.DiscardHandler)}
	c, known, seen := &comparison{}, map[string]*theirs{}, newMetTransactions()
	err := auditor.Transactions(ctx, from, to, func(found platforms.Found) error {
		found = seen.meet(found)
		ref, ours, err := t.origin(ctx, auditor, found, seen)
		if err != nil || !ours {
			return err
		}
		at, there, err := t.locate(ctx, merchantID, ref)
		if err != nil {
			return err
		}
		if !there {
			row := comparedRow{
				requestID: ref.requestID, order: "-", at: found.At, what: whatOf(found), amount: found.Amount,
				ours: "-", theirs: theirWord(found), difference: "no such payment request",
			}
			if r := at.request; r != nil { // it is there, as it was before it was paid
				row.order, row.created, row.ours, row.difference = r.Order.Reference, r.CreatedAt, string(r.Lifecycle), "it knows of no such payment"
			}
			if !mayHaveMoved(found) {
				row.difference = ""
			}
			c.rows = append(c.rows, row)
			return nil
		}
		k := known[at.request.ID]
		if k == nil {
			k = &theirs{request: at.request, payments: map[int][]platforms.Found{}}
			known[at.request.ID] = k
		}
		if found.Operation != "" {
			k.operations = append(k.operations, followedOn{found, at.attempt.N})
		} else {
			k.payments[at.attempt.N] = append(k.payments[at.attempt.N], found)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := addOurs(ctx, store, merchantID, from, known); err != nil {
		return nil, err
	}
	for _, k := range known {
		c.compare(k, from, to)
	}
	slices.SortStableFunc(c.rows, func(a, b comparedRow) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.requestID, b.requestID), a.at.Compare(b.at))
	})
	return c, nil
}

// addOurs adds the payment requests that the platform did nothing for.
func addOurs(ctx context.Context, store comparedStore, merchantID string, from time.Time, known map[string]*theirs) error {
	for cursor := ""; ; {
		page, next, err := store.Requests(ctx, conversations.Filter{MerchantID: merchantID}, cursor, 100)
		if err != nil {
			return err
		}
		for _, r := range page {
			if r.CreatedAt.Before(from.Add(-listedBefore)) {
				return nil // the newest come first
			}
			if known[r.ID] == nil && len(r.Attempts) > 0 {
				known[r.ID] = &theirs{request: r, payments: map[int][]platforms.Found{}}
			}
		}
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

// compare adds the rows of one payment request.
func (c *comparison) compare(k *theirs, from, to time.Time) {
	r := k.request
	add := func(row comparedRow) {
		row.requestID, row.order, row.created = r.ID, r.Order.Reference, r.CreatedAt
		c.rows = append(c.rows, row)
	}
	// What is too old or too young to be in the platform's list is not missed.
	expected := func(at time.Time) bool { return !at.Before(from) && at.Before(to.Add(-showsWithin)) }
	for _, a := range r.Attempts {
		row := comparedRow{at: a.StartedAt, what: fmt.Sprintf("payment %d", a.N), amount: a.Amount, ours: string(a.State), theirs: "-"}
		found := k.payments[a.N]
		took := ourMoney(a.State)
		var best platforms.Found
		for _, f := range found {
			if best.ID == "" || slices.Contains(held, f.Result.Outcome) {
				best = f
			}
		}
		theyTook := slices.Contains(held, best.Result.Outcome)
		switch {
		case best.ID != "":
			row.theirs = theirWord(best)
			switch {
			case slices.ContainsFunc(found, func(f platforms.Found) bool { return isSecond(a, f) && !k.gaveBack(f) }):
				row.difference = "they have charged twice by one reference"
			case theyTook && slices.Contains(nothingTaken, a.State) && k.takenBack(a.N):
				row.theirs += ", given back"
			case theyTook && slices.Contains(nothingTaken, a.State):
				row.difference = "they have the money, we do not know of it"
			case !theyTook && took && best.Result.Outcome != conversations.OutcomeReversed && best.Result.Outcome != conversations.OutcomeUnknown:
				row.difference = "we count on money that they do not have"
			case a.State == conversations.AttemptUnsettled:
				row.difference = "they know, we do not yet"
			case theyTook && !best.Amount.IsZero() && best.Amount != cmp.Or(a.Result.Amount, a.Amount):
				row.difference = "their amount is " + best.Amount.String()
			}
		case took && expected(a.StartedAt):
			row.difference = "they do not show it"
		case !expected(a.StartedAt):
			continue
		}
		add(row)
	}
	matched := map[string]bool{}
	for _, o := range r.Operations {
		row := comparedRow{at: o.StartedAt, what: string(o.Kind), amount: o.Amount, ours: string(o.State), theirs: "-"}
		for _, f := range k.operations {
			if f.ID == o.ResultID || f.Code == o.ID || !matched[f.ID] && o.ResultID == "" && f.Operation == o.Kind && f.Amount == o.Amount && f.PaymentID == o.PaymentID {
				matched[f.ID] = true
				if row.theirs == "-" || f.Succeeded {
					row.theirs = theirWord(f.Found)
				}
			}
		}
		switch {
		case row.theirs == "done" && o.State != conversations.OperationSucceeded:
			row.difference = "they did it, we do not know of it"
		case row.theirs == "-" && o.State == conversations.OperationSucceeded && expected(o.StartedAt):
			row.difference = "they do not show it"
		case row.theirs == "-" && !expected(o.StartedAt):
			continue
		}
		add(row)
	}
	for _, f := range k.operations {
		if a := r.Attempt(f.attempt); matched[f.ID] || !f.Succeeded || k.onSecond(*a, f) || k.takenBack(f.attempt) && slices.Contains(nothingTaken, a.State) {
			continue
		}
		add(comparedRow{at: f.At, what: whatOf(f.Found), amount: f.Amount, ours: "-", theirs: theirWord(f.Found), difference: "they did it, we do not know of it"})
	}
}

// ourMoney tells whether an attempt holds or has taken money, or did.
func ourMoney(s conversations.AttemptState) bool {
	switch s {
	case conversations.AttemptAuthorized, conversations.AttemptCaptured, conversations.AttemptInReview, conversations.AttemptReversing, conversations.AttemptReversed:
		return true
	}
	return false
}

func whatOf(f platforms.Found) string {
	if f.Operation != "" {
		return string(f.Operation)
	}
	return "payment"
}

func theirWord(f platforms.Found) string {
	switch {
	case f.Operation == "":
		return cmp.Or(string(f.Result.Outcome), "unknown")
	case f.Succeeded:
		return "done"
	}
	return "not done"
}

// print writes the table; each payment request is named once.
func (c *comparison) print(to io.Writer) error {
	if len(c.rows) == 0 {
		_, err := fmt.Fprintln(to, "Nobody has paid in that time, neither here nor there.")
		return err
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "PAYMENT REQUEST\tORDER\tWHAT\tAMOUNT\tOURS\tTHEIRS\tDIFFERENCE") // Flush tells
	last := ""
	for _, r := range c.rows {
		id, order := r.requestID, r.order
		if id == last {
			id, order = "", ""
		}
		last = r.requestID
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", id, order, r.what, r.amount, r.ours, r.theirs, r.difference) // the same
	}
	return w.Flush()
}
