// benchload does for scripts/bench, scripts/bench-outages and scripts/bench-memory what a general load client cannot: it makes
// customers known, makes payment requests, opens their event streams, commits events and measures how
// long each takes to arrive; and it lets the simulated providers fail in turn, and
// measures what the others notice. Against the floor servers it does the same with
// their events, so that both are measured by one client.
//
//	benchload learn   -redis ADDR -merchant ID -senders N [-takeover]
//	benchload requests -redis ADDR -merchant ID -n N -file FILE
//	benchload outages -gateway FILE -redis ADDR -dir FOLDER [-duration 1m] [-rate 10]
//	benchload records -redis ADDR -stage asked|paid|written [-n N]
//	benchload streams -redis ADDR -url URL [-key API_KEY -requests FILE | -publish http|redis] ...
//
// Every result is a line "name value unit".
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"paythread/conversations"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("benchload: ")
	if len(os.Args) < 2 {
		log.Fatal("say what to do: learn, requests, records, streams or outages")
	}
	limit := 3 * time.Minute
	if os.Args[1] == "outages" {
		limit = 90 * time.Minute // a dozen outages, and what they leave behind
	}
	asked, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop() // whatever it has started ends with it
	ctx, cancel := context.WithTimeout(asked, limit)
	defer cancel()
	var err error
	switch os.Args[1] {
	case "learn":
		err = learn(ctx, os.Args[2:])
	case "requests":
		err = makeRequests(ctx, os.Args[2:])
	case "records":
		err = makeRecords(ctx, os.Args[2:])
	case "streams":
		err = measureStreams(ctx, os.Args[2:])
	case "outages":
		err = measureOutages(ctx, os.Args[2:])
	default:
		err = fmt.Errorf("there is nothing called %q: learn, requests, records, streams or outages", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// connect opens the gateway's store, as one more process of it. The merchant
// has to be like the one in the gateway's configuration.
func connect(ctx context.Context, address, merchant string) (*conversations.Store, error) {
	return conversations.Connect(ctx, conversations.Options{
		Addresses: []string{address},
		Merchants: []conversations.Merchant{{
			ID: merchant, Name: merchant, PublicURL: "https://pay.example", Country: "ZA", Locale: "en", Sandbox: true,
			Senders:    map[conversations.Channel]string{conversations.WhatsApp: merchant + "-wa"},
			TimeToOpen: time.Hour, TimeToPay: 15 * time.Minute, MaxAttempts: 3, Capture: true,
		}},
	})
}

// learn makes the customers who write in the webhook measurement known: each
// has written once before. With -takeover an agent takes over their
// conversations, so that the bot does not answer and each further message is
// one commit and nothing more.
func learn(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("learn", flag.ExitOnError)
	redis := flags.String("redis", "", "`ADDRESS` of the gateway's Redis")
	merchant := flags.String("merchant", "", "`ID` of the merchant")
	senders := flags.Int("senders", 0, "how many customers write")
	takeOver := flags.Bool("takeover", false, "an agent takes over")
	_ = flags.Parse(args) // it exits by itself
	s, err := connect(ctx, *redis, *merchant)
	if err != nil {
		return err
	}
	defer s.Close()
	return inParallel(*senders, func(i int) error {
		from := []conversations.Address{{Kind: conversations.AddressPhone, Value: fmt.Sprintf("+2507%08d", 80000000+i)}}
		err := s.Receive(ctx, *merchant, conversations.Inbound{
			Kind: conversations.InboundText, SenderID: *merchant + "-wa", ProviderID: fmt.Sprint("learn-", i),
			Addresses: from, At: time.Now(), Text: "Hello",
		})
		if err != nil || !*takeOver {
			return err
		}
		id, err := s.Claim(ctx, *merchant, from)
		if err != nil {
			return err
		}
		_, err = s.Apply(ctx, id, conversations.TakenOver{Agent: "bench"}, conversations.Once{})
		return err
	})
}

// inParallel calls do for 0 to n-1, several at a time, and returns the first
// error.
func inParallel(n int, do func(int) error) error {
	var mu sync.Mutex
	var first error
	next := make(chan int)
	var working sync.WaitGroup
	for range 16 {
		working.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	working.Wait()
	return first
}
