package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"paythread/conversations/redistest"
	"paythread/simulator/faults"
)

// TestBackupAndRestore follows docs/operate.md to the letter: its commands take
// a backup of a Redis in use and bring it back on an empty server. Everything
// that was in the backup is there, and goes on; what was paid after it is found.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	// The servers are the outer test's: they are there until the money has been
	// checked.
	t.Run("story", func(inner *testing.T) {
		b := newBackupStory(inner, redistest.Start(t))
		g := b.startGateway()
		b.live()
		g.kill() // whatever it had in hand stays in hand; nothing changes any more
		before := b.dump()
		backup := filepath.Join(t.TempDir(), "paythread.rdb")
		b.follow("Backup", "BACKUP="+backup, "REDIS_URL="+b.server.URL())

		g = b.startGateway()
		b.liveOn()
		g.kill()
		b.server.Kill() // and its disk is never seen again
		b.money.leaves(unknownCharge, "two payments came after the backup, and the merchant settles them")

		dir := t.TempDir()
		b.follow("Restore", "BACKUP="+backup, "REDIS_DIR="+dir)
		b.server = redistest.Start(t, "--dir", dir)
		b.way.leadTo(b.server.Addr)
		b.sameKeys(before, b.dump())
		b.auditFinds()
		b.startGateway()
		b.goOn()
	})
}

// backupStory is a rig whose Redis is lost and restored, with payment requests
// at every stage.
type backupStory struct {
	*rig
	server *redistest.Server
	way    *door // to the server in use
	system *listeningSystem
	taken  atomic.Bool // the merchant's system answers its callbacks

	endpoint string
	seen     map[string]string // by the path of a stream: the last id that an agent saw
	// Payment requests: paid and its receipt delivered; open; its message not
	// yet sent; charged, and the answer was lost; open, and paid after the
	// backup; made and paid after it.
	paid, open, unsent, unsettled, later, forgotten string
	customers                                       map[string]*payer // by the payment request
}

func newBackupStory(t *testing.T, server *redistest.Server) *backupStory {
	t.Helper()
	b := &backupStory{server: server, way: newDoor(t), customers: map[string]*payer{}}
	b.way.leadTo(b.server.Addr)
	b.rig = newRig(t, rigRedis{addresses: []string{b.way.Addr().String()}}, func(o *rigOptions) {
		o.Env["AUDIT_EVERY"], o.Env["DISPATCHER_MAX_TRIES"], o.Env["DISPATCHER_BREAKER_OPEN"] = "1s", "100", "1s"
	})
	b.system = newListeningSystem(t, func(w http.ResponseWriter, _ string, _ int) {
		if !b.taken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	return b
}

// asks makes a payment request of a customer of its own.
func (b *backupStory) asks(order int, channel string) string {
	b.t.Helper()
	id, err := b.ask(asked{Order: fmt.Sprint("backup-", order), Phone: stormPhone(order), Channel: channel, Amount: "149.00"})
	b.must(err)
	b.customers[id] = b.payer(stormPhone(order), channel)
	return id
}

// pays lets the customer pay, which ends with the receipt's message.
func (b *backupStory) pays(id string) {
	b.t.Helper()
	b.charge(id)
	b.awaitEvent(id, "receipt_delivered")
}

// charge lets the customer press the button.
func (b *backupStory) charge(id string) {
	b.t.Helper()
	c := b.customers[id]
	b.await("the link on the phone", func() bool { return c.follow("/p/") == nil })
	b.must(c.open())
	_, err := c.pay(panApproved)
	b.must(err)
}

// live is everything before the backup. The merchant's system is down, and so is
// one of the companies.
func (b *backupStory) live() {
	b.t.Helper()
	var e struct {
		ID string `json:"id"`
	}
	b.must(b.api(http.MethodPost, "/callback-endpoints", nil, map[string]any{"url": b.system.url}, &e))
	b.endpoint = e.ID
	down := faults.Rule{ID: "down", Call: "meta.messages", Do: faults.Status, Status: http.StatusServiceUnavailable}
	b.setFaults(down)
	b.paid, b.open, b.later = b.asks(1, "sms"), b.asks(2, "sms"), b.asks(3, "sms")
	b.unsent = b.asks(4, "whatsapp")
	b.pays(b.paid)
	for _, id := range []string{b.open, b.later} {
		b.awaitEvent(id, "delivered")
	}
	b.await("the callbacks wait", func() bool { return len(b.deliveries("")) > 8 })
	b.unsettled = b.asks(5, "sms")
	b.setFaults(down, faults.Rule{ID: "lost", Call: "cybersource.payments", Do: faults.DropAfter, Times: 1})
	b.charge(b.unsettled)
	b.awaitEvent(b.unsettled, "attempt_unsettled")
}

// liveOn is what happens after the backup, and is forgotten.
func (b *backupStory) liveOn() {
	b.t.Helper()
	b.pays(b.later)
	b.forgotten = b.asks(6, "sms")
	b.pays(b.forgotten)
	request := "/payment-requests/" + b.later + "/events"
	b.seen = map[string]string{
		"/events": b.watch("/events", "", func(k block) bool { return k.id != "" }).id,
		request:   b.watch(request, "", func(k block) bool { return strings.Contains(k.data, "receipt_delivered") }).id,
	}
}

// watch opens a stream, as an agent does who has seen something already, and
// returns the first block that is looked for.
func (b *backupStory) watch(path, last string, is func(block) bool) block {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), longestWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.front.url+"/v1"+path, nil)
	b.must(err)
	req.Header = http.Header{"Accept": {"text/event-stream"}, "Authorization": {"Bearer " + demoAPIKey}}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	answer, err := b.agent.Do(req)
	b.must(err)
	defer func() { _ = answer.Body.Close() }() // nobody reads on
	l := &listener{response: answer, lines: bufio.NewScanner(answer.Body)}
	for {
		k, err := l.next()
		b.must(err)
		if is(k) {
			return k
		}
	}
}

// deliveries are those of the merchant's endpoint, in a state or in any.
func (b *backupStory) deliveries(state string) []string {
	b.t.Helper()
	var ids []string
	for cursor := ""; ; {
		var page struct {
			Items []struct {
				ID    string `json:"id"`
				State string `json:"state"`
			} `json:"items"`
			Next string `json:"next_cursor"`
		}
		b.must(b.api(http.MethodGet, "/callback-endpoints/"+b.endpoint+"/deliveries?cursor="+cursor, nil, nil, &page))
		for _, d := range page.Items {
			if state == "" || d.State == state {
				ids = append(ids, d.ID)
			}
		}
		if cursor = page.Next; cursor == "" {
			return ids
		}
	}
}

// follow runs the one block of commands under a heading of docs/operate.md, as
// it stands there.
func (b *backupStory) follow(heading string, env ...string) {
	b.t.Helper()
	script := blockUnder(b.t, "docs/operate.md", heading)
	ctx, cancel := context.WithTimeout(b.t.Context(), longestWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.t.TempDir()}, env...)
	cmd.Dir = b.t.TempDir()
	if said, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("the commands under %q: %v\n%s", heading, err, said)
	}
}

// runAsThePageSays runs the line under "Restore" with a command of paythread.
func (b *backupStory) runAsThePageSays(name string) {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "operate.md"))
	b.must(err)
	_, below, _ := strings.Cut(string(text), "\n## Restore\n")
	below, _, _ = strings.Cut(below, "\n## ")
	_, line, found := strings.Cut(below, "paythread "+name+" ")
	if !found {
		b.t.Fatalf("the page has no line paythread %s", name)
	}
	line, _, _ = strings.Cut(line, "\n")
	args := strings.Fields(name + " " + strings.ReplaceAll(line, "FILE", b.config))
	var out, problems bytes.Buffer
	if code := run(b.t.Context(), args, strings.NewReader(""), &out, &problems, b.env); code != exitOK {
		b.t.Fatalf("%v: exit code %d: %s", args, code, problems.String())
	}
}

// blockUnder returns the first block of shell commands under a heading.
func blockUnder(t *testing.T, file, heading string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(text), "\n## "+heading+"\n")
	below, _, _ = strings.Cut(below, "\n## ")
	_, block, fenced := strings.Cut(below, "\n```sh\n")
	block, _, ends := strings.Cut(block, "\n```\n")
	if !found || !fenced || !ends {
		t.Fatalf("%s has no block of commands under %q", file, heading)
	}
	return block
}

// dump reads everything that the server holds: each key with its value and its
// end.
func (b *backupStory) dump() map[string]string {
	b.t.Helper()
	client, ctx := b.server.Client(b.t), b.t.Context()
	b.await("nobody else talks to Redis", func() bool {
		others, err := client.ClientList(ctx).Result()
		b.must(err)
		return strings.Count(others, "\n") == 1
	})
	kept := map[string]string{}
	for keys := client.Scan(ctx, 0, "*", 1000).Iterator(); ; {
		if !keys.Next(ctx) {
			b.must(keys.Err())
			return kept
		}
		key := keys.Val()
		kept[key] = b.valueOf(client, key)
	}
}

// valueOf is when a key ends, in ms, or -1, and what it holds.
func (b *backupStory) valueOf(client *redis.Client, key string) string {
	b.t.Helper()
	ctx := b.t.Context()
	ends, err := client.Do(ctx, "PEXPIRETIME", key).Int64()
	b.must(err)
	kind, err := client.Type(ctx, key).Result()
	b.must(err)
	if kind == "hash" { // whose DUMP is in an order of the process's own
		fields, err := client.HGetAll(ctx, key).Result()
		b.must(err)
		return fmt.Sprintf("%d %q", ends, fields) // a map is printed in order
	}
	if kind == "string" { // whose DUMP tells how it is encoded
		value, err := client.Get(ctx, key).Result()
		if !errors.Is(err, redis.Nil) {
			b.must(err)
			return fmt.Sprintf("%d %q", ends, value)
		}
	}
	value, err := client.Dump(ctx, key).Result()
	if errors.Is(err, redis.Nil) {
		return "0 " // it has ended meanwhile
	}
	b.must(err)
	return fmt.Sprintf("%d %x", ends, value)
}

// sameKeys compares two dumps. What has ended by itself between them is missed
// by nobody.
func (b *backupStory) sameKeys(before, after map[string]string) {
	b.t.Helper()
	kinds := map[string]bool{}
	for key, was := range before {
		kinds[keyKind(b.prefix, key)] = true
		now, there := after[key]
		var ends int64
		_, err := fmt.Sscan(was, &ends)
		b.must(err)
		switch {
		case !there && (ends < 0 || time.Now().UnixMilli() < ends):
			b.t.Errorf("%s was not restored", key)
		case there && now != was:
			b.t.Errorf("%s was restored as another value", key)
		}
	}
	for key := range after {
		if _, was := before[key]; !was {
			b.t.Errorf("%s was not in the backup", key)
		}
	}
	for _, kind := range []string{"c", "r", "m", "e", "l", "out", "t", "f", "a", "o", "ep", "due", "d"} {
		if !kinds[kind] {
			b.t.Errorf("there was no key of the kind %q to be restored: %v", kind, slices.Sorted(maps.Keys(kinds)))
		}
	}
}

// keyKind is the part of a key that names what it holds.
func keyKind(prefix, key string) string {
	key = strings.TrimPrefix(key, prefix+":")
	if _, behind, tagged := strings.Cut(key, "}:"); tagged {
		key = behind
	}
	kind, _, _ := strings.Cut(key, ":")
	return kind
}

// auditFinds: before anybody is let in, the command names both payments that
// Redis has forgotten.
func (b *backupStory) auditFinds() {
	b.t.Helper()
	table := ""
	b.await("the audit finds what was paid after the backup", func() bool {
		var code int
		code, table = b.audit("--since", "1h")
		return code == exitFailed && strings.Contains(table, b.later) && strings.Contains(table, b.forgotten)
	})
	for id, want := range map[string]string{
		b.later:     "it knows of no such payment",
		b.forgotten: "no such payment request",
		b.unsettled: "they know, we do not yet",
	} {
		i := strings.Index(table, id)
		line, _, _ := strings.Cut(table[max(0, i):], "\n")
		if i < 0 || !strings.HasSuffix(strings.TrimSpace(line), want) {
			b.t.Errorf("the audit says %q, want %s", line, want)
		}
	}
	if strings.Contains(table, b.open) {
		b.t.Errorf("the audit names a payment request that nobody has paid:\n%s", table)
	}
}

// goOn is life after the restore.
func (b *backupStory) goOn() {
	b.t.Helper()
	for path, last := range b.seen {
		if got := b.watch(path, last, func(k block) bool { return k.id != "" }); got.event != "reset" {
			b.t.Errorf("an agent who has seen %s of %s, which is forgotten, was told %+v", last, path, got)
		}
	}
	b.runAsThePageSays("callbacks reset")
	b.must(b.api(http.MethodPost, "/payment-requests/"+b.later+"/cancel", nil, nil, nil)) // as the page says
	b.awaitLifecycle(b.unsettled, "paid")
	b.setFaults()
	b.taken.Store(true)
	b.awaitEvent(b.unsent, "delivered")
	b.must(b.customers[b.paid].viewReceipt())
	b.awaitEvent(b.paid, "receipt_viewed")
	if _, err := b.ask(asked{Order: "backup-2", Phone: demoCustomer, Channel: "sms", Amount: "149.00"}); err == nil || !strings.Contains(err.Error(), "409") {
		b.t.Errorf("an order that a restored payment request holds was asked for again: %v", err)
	}
	b.pays(b.open)
	b.await("the callbacks have arrived", func() bool { return len(b.deliveries("")) == len(b.deliveries("delivered")) })
	got := b.system.received()
	if !slices.ContainsFunc(slices.Collect(maps.Keys(got)), func(id string) bool { return strings.HasPrefix(id, "evt_acme_reset_") }) {
		b.t.Error("the merchant's system was not told that the store went back")
	}
	for _, id := range []string{b.paid, b.open, b.unsent, b.unsettled, b.later} {
		if len(got["evt_"+id+"_1"]) == 0 {
			b.t.Errorf("the merchant's system has not heard that %s was made", id)
		}
	}
}
