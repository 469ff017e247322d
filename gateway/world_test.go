package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"paythread/checkout"
	"paythread/simulator"
	"paythread/simulator/cybersource"
)

// documentedSenders are the senders of docs/simulator.md, by id.
func documentedSenders(t *testing.T) map[string]map[string]string {
	t.Helper()
	blocks := fenced(t, "docs/simulator.md", "yaml")
	if len(blocks) != 1 {
		t.Fatalf("docs/simulator.md has %d blocks of YAML, want one", len(blocks))
	}
	var list []map[string]string
	if err := yaml.Unmarshal([]byte(blocks[0]), &list); err != nil {
		t.Fatal(err)
	}
	senders := map[string]map[string]string{}
	for _, s := range list {
		senders[s["id"]] = s
	}
	return senders
}

// newDocumentedStage is a world as "paythread simulate" serves it, and a
// gateway with some of the senders that its page documents.
func newDocumentedStage(t *testing.T, senders ...map[string]string) *stage {
	t.Helper()
	s := &stage{t: t, front: newDoor(t), logged: &logBook{}}
	s.public = "http://" + s.front.Addr().String()
	socket, url, err := bindWorld("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	s.outside, err = startWorld(socket, url, worldOptions{
		GatewayURL: s.public, Pace: 10 * time.Millisecond, Others: true, Notify: true, Log: slog.New(slog.DiscardHandler),
		Change: func(_ *simulator.Config, c *cybersource.Config) { c.SearchDelay = -1 },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.outside.Stop(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop the world: %v", err)
		}
	})
	list, err := yaml.Marshal(senders)
	if err != nil {
		t.Fatal(err)
	}
	keys := t.TempDir()
	if _, err := checkout.NewKeyFile(filepath.Join(keys, checkout.CurrentKeyFile)); err != nil {
		t.Fatal(err)
	}
	redis := onEmbedded(t)
	var text bytes.Buffer
	err = demoTemplate.Execute(&text, map[string]any{
		"Listen": "127.0.0.1:0", "AdminListen": "127.0.0.1:0", "LogLevel": "debug", "Redis": redis.Addresses[0], "KeysDir": keys,
		"PublicURL": s.public, "SimulatorURL": url, "APIKey": demoAPIKey,
		"Meta": demoMeta, "Twilio": demoTwilio, "TwilioNumber": demoTwilioPhone, "CyberSource": demoCyberSource,
	})
	if err != nil {
		t.Fatal(err)
	}
	indented := "      " + strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(string(list), "http://localhost:8090", url)), "\n", "\n      ")
	written := sendersBlock.ReplaceAllLiteral(text.Bytes(), []byte("    senders:\n"+indented+"\n    platform:"))
	if s.config, err = parseConfig("simulate.yaml", written, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stopGateway)
	s.money = checkMoney(t, url, s.config)
	s.startGateway()
	return s
}

// TestEveryProviderWorksAgainstSimulate: whoever copies senders from
// docs/simulator.md has messages that arrive, statuses, and answers that come
// back, on both channels.
func TestEveryProviderWorksAgainstSimulate(t *testing.T) {
	t.Parallel()
	documented := documentedSenders(t)
	used := map[string]bool{}
	for name, ids := range map[string][]string{
		"the demo's":                   {"acme-wa", "acme-sms"},
		"twilio":                       {"acme-twilio-wa", "acme-sms"},
		"clickatell":                   {"acme-clickatell-wa", "acme-clickatell"},
		"twilio and clickatell":        {"acme-twilio-wa", "acme-clickatell"},
		"clickatell by whatsapp alone": {"acme-clickatell-wa as acme-clickatell", "acme-sms"},
	} {
		var senders []map[string]string
		numbers := map[string]string{}
		for _, id := range ids {
			id, alias, renamed := strings.Cut(id, " as ")
			s, ok := documented[id]
			if !ok {
				t.Fatalf("docs/simulator.md has no sender %s", id)
			}
			used[id] = true
			if renamed {
				s = maps.Clone(s)
				s["id"] = alias
			}
			senders = append(senders, s)
			if numbers[s["channel"]] = "+" + strings.TrimPrefix(s["from"], "+"); s["from"] == "" {
				numbers[s["channel"]] = demoMeta.DisplayNumber
			}
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTale(t, newDocumentedStage(t, senders...))
			for _, channel := range []string{"whatsapp", "sms"} {
				s.at = channel
				s.agentAsks([]string{"149.00 ZAR", "10-" + channel, channel})
				s.customerReceives([]string{"payment", channel})
				if m := s.inbox(); m[len(m)-1].From != numbers[channel] {
					t.Errorf("the message by %s came from %s, want %s", channel, m[len(m)-1].From, numbers[channel])
				}
				s.await("news of the message's delivery", func() bool { return slices.Contains(s.current().types(), "delivered") })
				s.customerWrites([]string{"how much", channel})
				s.customerIsAnswered([]string{"149.00"})
			}
			s.customerOpens(nil)
			s.customerPays([]string{"approved"})
			s.customerReceives([]string{"receipt", "sms"})
		})
	}
	for id := range documented {
		if !used[id] {
			t.Errorf("the sender %s of docs/simulator.md is not tried here", id)
		}
	}
}

// TestSimulateTellsItsIdentities: what "paythread simulate" prints is what its
// page documents.
func TestSimulateTellsItsIdentities(t *testing.T) {
	t.Parallel()
	said := identities("https://pay.example")
	for id, s := range documentedSenders(t) {
		for key, value := range s {
			if slices.Contains([]string{"id", "provider", "channel", "base_url"}, key) {
				continue
			}
			if !strings.Contains(said, value) {
				t.Errorf("%s of %s is %s, which simulate does not tell", key, id, value)
			}
		}
	}
	for _, row := range tableRows(readPage(t, "docs/simulator.md"), "webhooks of") {
		if path := strings.Trim(row[1], " `"); !strings.Contains(said, "https://pay.example"+path+"\n") {
			t.Errorf("webhooks of%sgo to %s, which simulate does not tell", row[0], path)
		}
	}
}
