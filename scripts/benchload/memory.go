package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"paythread/conversations"
)

// makeRecords fills a Redis with the records of so many customers, up to a
// stage, so that scripts/bench-memory can tell how large each is: a payment
// request whose message was delivered; the same, paid, with a receipt that was
// delivered; a text of each customer. It stands in for the provider and the
// platform, and prints how fast Redis took the commits.
func makeRecords(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("records", flag.ExitOnError)
	redis := flags.String("redis", "", "`ADDRESS` of a Redis of its own")
	n := flags.Int("n", 10000, "how many customers")
	stage := flags.String("stage", "", "`STAGE` to go to from the one before: asked, paid or written")
	_ = flags.Parse(args) // it exits by itself
	s, err := connect(ctx, *redis, "records")
	if err != nil {
		return err
	}
	defer s.Close()
	r := &records{store: s, n: *n}
	stages := map[string]func(context.Context) error{"asked": r.ask, "paid": r.pay, "written": r.write}
	if stages[*stage] == nil {
		return fmt.Errorf("there is no stage %q: asked, paid or written", *stage)
	}
	began := time.Now()
	if err := r.during(ctx, stages[*stage]); err != nil {
		return err
	}
	fmt.Printf("records.%s.commits %d commits\n", *stage, r.commits.Load())
	fmt.Printf("records.%s.rate %.0f commits/s\n", *stage, float64(r.commits.Load())/time.Since(began).Seconds())
	return nil
}

// records are the customers.
type records struct {
	store   *conversations.Store
	n       int
	commits atomic.Int64
}

// during sends messages while do works, and until none is left.
func (r *records) during(ctx context.Context, do func(context.Context) error) error {
	working, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	reader := &conversations.OutboxReader{
		Store: r.store, Worker: r, Consumer: "bench", Workers: 16, SenderWorkers: 16, ClaimIdle: time.Minute, MaxDeliveries: 20,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	go func() { ended <- reader.Run(working) }()
	err := do(ctx)
	for err == nil {
		var depth int64
		if depth, _, err = r.store.OutboxDepth(ctx); err == nil && depth == 0 {
			break
		}
		if err == nil {
			err = pause(ctx, 100*time.Millisecond)
		}
	}
	stop()
	if ran := <-ended; err == nil {
		err = ran
	}
	return err
}

// Work plays a provider that takes a message and delivers it.
func (r *records) Work(ctx context.Context, e conversations.OutboxEntry, d conversations.Delivery) error {
	at := time.Now()
	for _, event := range []conversations.Event{
		conversations.SendingStarted{MessageID: e.MessageID, EntryID: d.EntryID},
		conversations.MessageAnswered{MessageID: e.MessageID, EntryID: d.EntryID, Sent: conversations.Sent{ProviderID: "wamid." + e.MessageID}},
		conversations.StatusReported{MerchantID: e.MerchantID, MessageID: e.MessageID, Inbound: conversations.Inbound{
			Kind: conversations.InboundStatus, SenderID: e.SenderID, ProviderID: "wamid." + e.MessageID, Status: conversations.DeliveryDelivered, At: at,
		}},
	} {
		if err := r.apply(ctx, e.ContactID, event); err != nil {
			return err
		}
	}
	return nil
}

func (r *records) apply(ctx context.Context, contactID string, e conversations.Event) error {
	r.commits.Add(1)
	a, err := r.store.Apply(ctx, contactID, e, conversations.Once{})
	if err == nil && a.Refused != nil {
		err = fmt.Errorf("%T: %w", e, a.Refused)
	}
	return err
}

func recordPhone(i int) string { return fmt.Sprintf("+2761%07d", i) }

func (r *records) ask(ctx context.Context) error {
	price, none := conversations.Money{Minor: 14900, Currency: "ZAR"}, conversations.Money{Currency: "ZAR"}
	return inParallel(r.n, func(i int) error {
		r.commits.Add(1)
		_, err := r.store.Create(ctx, conversations.CreateRequest{
			MerchantID: "records", Phone: recordPhone(i), Channel: conversations.WhatsApp,
			Order: conversations.Order{
				Reference: fmt.Sprint("order-", i), Subtotal: price, Tax: none, Shipping: none, Discount: none, Total: price,
				LineItems: []conversations.LineItem{{Name: "Service", Quantity: 1, UnitPrice: price, Total: price}},
			},
		})
		return err
	})
}

func (r *records) pay(ctx context.Context) error {
	var open []*conversations.PaymentRequest
	for cursor := ""; ; {
		page, next, err := r.store.Requests(ctx, conversations.Filter{MerchantID: "records"}, cursor, 500)
		if err != nil {
			return err
		}
		if open = append(open, page...); next == "" {
			break
		}
		cursor = next
	}
	return inParallel(len(open), func(i int) error {
		p, now := open[i], time.Now()
		for _, e := range []conversations.Event{
			conversations.LinkOpened{RequestID: p.ID},
			conversations.AttemptStarted{RequestID: p.ID, Platform: "unified_checkout", TokenExpiresAt: now.Add(15 * time.Minute), CardBrand: "visa", CardLast4: "1111"},
			conversations.AttemptAnswered{RequestID: p.ID, Attempt: 1, Result: conversations.Result{
				Outcome: conversations.OutcomeCaptured, PaymentID: fmt.Sprintf("74%020d", i), ReconciliationID: fmt.Sprintf("%016d", i),
				ApprovalCode: "888888", Amount: p.Order.Total, CardBrand: "visa", CardLast4: "1111", At: &now,
			}},
		} {
			if err := r.apply(ctx, p.ContactID, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// write lets each customer write once, to an agent.
func (r *records) write(ctx context.Context) error {
	return inParallel(r.n, func(i int) error {
		contact, err := r.store.ContactAt(ctx, "records", recordPhone(i))
		if err != nil {
			return err
		}
		if err := r.apply(ctx, contact.ID, conversations.TakenOver{Agent: "bench"}); err != nil {
			return err
		}
		r.commits.Add(1)
		return r.store.Receive(ctx, "records", conversations.Inbound{
			Kind: conversations.InboundText, SenderID: "records-wa", ProviderID: fmt.Sprint("wamid.in-", i), At: time.Now(),
			Addresses: []conversations.Address{{Kind: conversations.AddressPhone, Value: recordPhone(i)}}, Text: "When will somebody come to look at it?",
		})
	})
}
