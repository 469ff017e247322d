package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"paythread/conversations"
)

// deadLettersWithin bounds a command about dead letters.
const deadLettersWithin = 30 * time.Second

// storeFlag defines --config and returns what opens the store that it names.
func storeFlag(flags *flag.FlagSet) func(context.Context, process) (*conversations.Store, error) {
	load := configFlag(flags)
	return func(ctx context.Context, p process) (*conversations.Store, error) {
		config, err := load(p)
		if err != nil {
			return nil, err
		}
		options, err := config.Store()
		if err != nil {
			return nil, err
		}
		options.Log = slog.New(slog.DiscardHandler) // the error says it
		return conversations.Connect(ctx, options)
	}
}

// deadLettersListCommand prints every dead letter of every merchant.
func deadLettersListCommand(flags *flag.FlagSet) action {
	open := storeFlag(flags)
	return func(ctx context.Context, p process) (err error) {
		ctx, cancel := context.WithTimeout(ctx, deadLettersWithin)
		defer cancel()
		store, err := open(ctx, p)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		n := 0
		for cursor := ""; ; {
			page, next, err := store.DeadLetters(ctx, "", cursor, 100)
			if err != nil {
				return err
			}
			for _, d := range page {
				if n++; n == 1 {
					_, _ = fmt.Fprintln(w, "ID\tSINCE\tMERCHANT\tKIND\tABOUT\tREASON") // Flush tells
				}
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.At.Format(time.RFC3339), // the same
					cmp.Or(d.Entry.MerchantID, "-"), cmp.Or(string(d.Entry.Kind), "unreadable"), cmp.Or(d.Entry.MessageID, d.Entry.RequestID, "-"), oneLine(errors.New(d.Why)))
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		p.say(p.stderr, countOf(n, "dead letter")+"\n")
		return nil
	}
}

// deadLettersSettleCommand retries or drops the dead letters that are named. It
// goes on past one that fails.
func deadLettersSettleCommand(done string, settle func(*conversations.Store, context.Context, string) error) func(*flag.FlagSet) action {
	return func(flags *flag.FlagSet) action {
		open := storeFlag(flags)
		all := flags.Bool("all", false, "every dead letter there is now, instead of those that are named")
		return func(ctx context.Context, p process) (err error) {
			ids := flags.Args()
			if *all == (len(ids) > 0) {
				return usageError{"name the dead letters by their IDs, or say --all"}
			}
			ctx, cancel := context.WithTimeout(ctx, deadLettersWithin)
			defer cancel()
			store, err := open(ctx, p)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			if *all {
				if ids, err = everyDeadLetter(ctx, store); err != nil {
					return err
				}
			}
			failed := 0
			for _, id := range ids {
				if err := settle(store, ctx, id); err != nil {
					failed++
					p.say(p.stderr, fmt.Sprintf("%s: %s\n", shorten(id), oneLine(err)))
					continue
				}
				p.say(p.stdout, id+" "+done+"\n")
			}
			if failed > 0 {
				return fmt.Errorf("%s of %d not %s", countOf(failed, "dead letter"), len(ids), done)
			}
			return nil
		}
	}
}

func everyDeadLetter(ctx context.Context, store *conversations.Store) ([]string, error) {
	var ids []string
	for cursor := ""; ; {
		page, next, err := store.DeadLetters(ctx, "", cursor, 100)
		if err != nil {
			return nil, err
		}
		for _, d := range page {
			ids = append(ids, d.ID)
		}
		if cursor = next; cursor == "" {
			return ids, nil
		}
	}
}

var (
	deadLettersRetryCommand = deadLettersSettleCommand("retried", func(s *conversations.Store, ctx context.Context, id string) error {
		return s.RetryDead(ctx, "", id, conversations.Once{})
	})
	deadLettersDropCommand = deadLettersSettleCommand("dropped", func(s *conversations.Store, ctx context.Context, id string) error {
		return s.DropDead(ctx, "", id, conversations.Once{})
	})
)
