package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"paythread/conversations"
)

// callbacksWithin bounds a command about callbacks.
const callbacksWithin = 2 * time.Minute

// callbackCommands are those about the merchants' callback endpoints.
var callbackCommands = []command{
	{
		name:     "callbacks list",
		synopsis: "--config FILE",
		short:    "list the merchants' callback endpoints",
		long:     "Lists every callback endpoint of every merchant: its state, since when it fails, and where it is (without the path).",
		prepare:  callbacksListCommand,
	},
	{
		name:     "callbacks deliveries",
		synopsis: "--config FILE MERCHANT/ENDPOINT [--state STATE]",
		operands: true,
		short:    "list what was sent to an endpoint, or is to be",
		long:     "Lists the deliveries to an endpoint, the newest events first. Flags stand before the endpoint.",
		prepare:  callbacksDeliveriesCommand,
	},
	{
		name:     "callbacks redeliver",
		synopsis: "--config FILE MERCHANT/ENDPOINT DELIVERY...",
		operands: true,
		short:    "send events to an endpoint again",
		long:     "Queues deliveries once more, under the same webhook-ids; a running gateway sends them at once.",
		prepare:  callbacksRedeliverCommand,
	},
	{
		name:     "callbacks replay",
		synopsis: "--config FILE --since TIME [--until TIME] [--only-failed] MERCHANT/ENDPOINT",
		operands: true,
		short:    "send the events of a time to an endpoint again",
		long:     "Queues every delivery whose event happened in that time once more, the oldest first, under the same webhook-ids.\nTimes are written 2026-11-22T14:00:00Z, or as a duration that has passed: 2h, 3d.",
		prepare:  callbacksReplayCommand,
	},
	{
		name:     "callbacks reset",
		synopsis: "--config FILE",
		short:    "tell all endpoints that the store went back",
		long: "Sends every endpoint of every merchant the event \"reset\", which asks to read the lists again: after a restore, which no\n" +
			"gateway can notice that was stopped meanwhile. Within ten minutes it is one event, however often this is run.",
		prepare: callbacksResetCommand,
	},
	{
		name:     "callbacks enable",
		synopsis: "--config FILE MERCHANT/ENDPOINT",
		operands: true,
		short:    "switch an endpoint on",
		long:     "What happened since it was switched off waits for it, and goes out at once.",
		prepare:  callbacksSwitchCommand(conversations.CallbackActive),
	},
	{
		name:     "callbacks disable",
		synopsis: "--config FILE MERCHANT/ENDPOINT",
		operands: true,
		short:    "switch an endpoint off",
		long:     "Events wait for it as long as deliveries are kept (callbacks.keep).",
		prepare:  callbacksSwitchCommand(conversations.CallbackDisabled),
	},
}

// callbacksAction is what a command does with the callbacks of a configuration.
type callbacksAction func(ctx context.Context, p process, config *Config, queue *conversations.Callbacks) error

// withCallbacks defines --config, opens the store that it names and closes it.
func withCallbacks(flags *flag.FlagSet, do callbacksAction) action {
	load := configFlag(flags)
	return func(ctx context.Context, p process) (err error) {
		config, err := load(p)
		if err != nil {
			return err
		}
		options, err := config.Store()
		if err != nil {
			return err
		}
		options.Log = slog.New(slog.DiscardHandler) // the error says it
		ctx, cancel := context.WithTimeout(ctx, callbacksWithin)
		defer cancel()
		store, err := conversations.Connect(ctx, options)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		return do(ctx, p, config, conversations.NewCallbacks(store, config.Callbacks.options()))
	}
}

// noFlagsBehind refuses flags that stand behind an operand: they would be read
// as further operands, and a replay of what failed be one of everything.
func noFlagsBehind(flags *flag.FlagSet) error {
	for _, word := range flags.Args() {
		if strings.HasPrefix(word, "-") {
			return usageError{"write " + shorten(word) + " before the endpoint"}
		}
	}
	return nil
}

// onlyEndpoint reads MERCHANT/ENDPOINT where nothing else may stand.
func onlyEndpoint(flags *flag.FlagSet) (merchant, endpoint string, err error) {
	if flags.NArg() > 1 {
		return "", "", usageError{"name one endpoint, not " + itoa(flags.NArg())}
	}
	return endpointOperand(flags)
}

// endpointOperand reads MERCHANT/ENDPOINT, the first operand.
func endpointOperand(flags *flag.FlagSet) (merchant, endpoint string, err error) {
	if err := noFlagsBehind(flags); err != nil {
		return "", "", err
	}
	merchant, endpoint, ok := strings.Cut(flags.Arg(0), "/")
	if !ok || merchant == "" || endpoint == "" {
		return "", "", usageError{"name the endpoint as MERCHANT/ENDPOINT; \"paythread callbacks list\" shows them"}
	}
	return merchant, endpoint, nil
}

func callbacksListCommand(flags *flag.FlagSet) action {
	return withCallbacks(flags, func(ctx context.Context, p process, config *Config, queue *conversations.Callbacks) error {
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		p.say(w, "ENDPOINT\tSTATE\tSINCE\tFAILING SINCE\tLAST DELIVERED\tHOST\n")
		n := 0
		for _, m := range config.Merchants {
			found, err := queue.Endpoints(ctx, m.ID)
			if err != nil {
				return err
			}
			for _, e := range found {
				n++
				state := string(e.State)
				if e.Reason != "" {
					state += " (" + e.Reason + ")"
				}
				p.say(w, strings.Join([]string{e.String(), state, e.Since.Format(time.RFC3339), timeOrDash(e.Failing), timeOrDash(e.DeliveredAt), callbackHost(e.URL)}, "\t")+"\n")
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		p.say(p.stderr, countOf(n, "callback endpoint")+"\n")
		return nil
	})
}

func timeOrDash(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

func callbacksDeliveriesCommand(flags *flag.FlagSet) action {
	state := flags.String("state", "", "only those in this `STATE`: pending, failed, delivered or given_up")
	return withCallbacks(flags, func(ctx context.Context, p process, _ *Config, queue *conversations.Callbacks) error {
		merchant, endpoint, err := onlyEndpoint(flags)
		if err != nil {
			return err
		}
		if *state != "" && !slices.Contains(conversations.DeliveryStates, conversations.DeliveryState(*state)) {
			return usageError{"--state: want pending, failed, delivered or given_up"}
		}
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		p.say(w, "DELIVERY\tTYPE\tTIME\tSTATE\tTRIES\tLAST ANSWER\tNEXT TRY\n")
		n := 0
		for cursor := ""; ; {
			page, next, err := queue.Deliveries(ctx, merchant, endpoint, conversations.DeliveryState(*state), cursor, 100)
			if err != nil {
				return err
			}
			for _, d := range page {
				n++
				answer := cmp.Or(d.Error, "-")
				if d.Status != 0 {
					answer = fmt.Sprint(d.Status)
				}
				p.say(w, strings.Join([]string{d.ID, d.Type, d.At.Format(time.RFC3339), string(d.State), fmt.Sprint(d.Tries), answer, timeOrDash(d.NextAt)}, "\t")+"\n")
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		p.say(p.stderr, countOf(n, "callback")+"\n")
		return nil
	})
}

func callbacksRedeliverCommand(flags *flag.FlagSet) action {
	return withCallbacks(flags, func(ctx context.Context, p process, _ *Config, queue *conversations.Callbacks) error {
		merchant, endpoint, err := endpointOperand(flags)
		if err != nil {
			return err
		}
		ids := flags.Args()[1:]
		if len(ids) == 0 {
			return usageError{"name the deliveries; \"paythread callbacks deliveries\" shows them"}
		}
		failed := 0
		for _, id := range ids {
			if err := queue.Redeliver(ctx, merchant, endpoint, id, conversations.Once{}); err != nil {
				failed++
				p.say(p.stderr, fmt.Sprintf("%s: %s\n", shorten(id), oneLine(err)))
				continue
			}
			p.say(p.stdout, id+" queued\n")
		}
		if failed > 0 {
			return fmt.Errorf("%d of %d not queued", failed, len(ids))
		}
		return nil
	})
}

func callbacksReplayCommand(flags *flag.FlagSet) action {
	since := flags.String("since", "", "events from this `TIME` on")
	until := flags.String("until", "", "events up to this `TIME`; without it, now")
	onlyFailed := flags.Bool("only-failed", false, "only those whose last try failed, given up or not")
	return withCallbacks(flags, func(ctx context.Context, p process, _ *Config, queue *conversations.Callbacks) error {
		merchant, endpoint, err := onlyEndpoint(flags)
		if err != nil {
			return err
		}
		r := conversations.Replay{OnlyFailed: *onlyFailed}
		if r.Since, err = timeOperand("since", *since); err != nil {
			return err
		}
		if *until != "" {
			if r.Until, err = timeOperand("until", *until); err != nil {
				return err
			}
		}
		n := 0
		for {
			done, err := queue.Replay(ctx, merchant, endpoint, r, conversations.Once{})
			if err != nil {
				return err
			}
			n, r.Until = n+done.Deliveries, done.Until
			if done.Next == nil {
				break
			}
			r.Since = *done.Next
		}
		p.say(p.stdout, countOf(n, "callback")+" queued\n")
		return nil
	})
}

// timeOperand reads a time, or a duration that has passed.
func timeOperand(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, usageError{"--" + name + " TIME is missing"}
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at, nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return time.Time{}, usageError{"--" + name + ": want a time such as 2026-11-22T14:00:00Z, or a duration such as 2h"}
	}
	return time.Now().Add(-d), nil
}

func callbacksResetCommand(flags *flag.FlagSet) action {
	return withCallbacks(flags, func(ctx context.Context, p process, config *Config, queue *conversations.Callbacks) error {
		if err := tellReset(ctx, queue, config, time.Now(), conversations.ResetWentBack); err != nil {
			return err
		}
		p.say(p.stdout, "queued for the endpoints of "+countOf(len(config.Merchants), "merchant")+"\n")
		return nil
	})
}

func callbacksSwitchCommand(to conversations.CallbackState) func(*flag.FlagSet) action {
	return func(flags *flag.FlagSet) action {
		return withCallbacks(flags, func(ctx context.Context, p process, _ *Config, queue *conversations.Callbacks) error {
			merchant, endpoint, err := onlyEndpoint(flags)
			if err != nil {
				return err
			}
			e, changed, err := queue.Switch(ctx, merchant, endpoint, to, conversations.Once{})
			if err == nil && changed {
				err = announceSwitch(ctx, queue, e)
			}
			if err != nil {
				return err
			}
			p.say(p.stdout, e.String()+" is "+string(e.State)+"\n")
			return nil
		})
	}
}
