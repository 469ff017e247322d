package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"paythread/conversations"
	"paythread/conversations/redistest"
)

// bury makes dead letters: each merchant's work that failed for good.
func bury(t *testing.T, client *redis.Client, prefix string, entries ...string) {
	t.Helper()
	streams, err := client.Keys(t.Context(), prefix+":*:out").Result()
	if err != nil || len(streams) == 0 {
		t.Fatalf("%d outboxes, %v", len(streams), err)
	}
	for i, e := range entries {
		dead := strings.TrimSuffix(streams[0], ":out") + ":dead"
		add := &redis.XAddArgs{Stream: dead, ID: fmt.Sprintf("%d-0", 1000+i), Values: []any{"o", e, "why", "the platform is gone", "at", "1700000000000"}}
		if err := client.XAdd(t.Context(), add).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func inquiryOf(merchant, request string) string {
	return fmt.Sprintf(`{"kind":"inquiry","contact_id":"c_0x","merchant_id":%q,"request_id":%q,"attempt":1}`, merchant, request)
}

// TestDeadLettersAPI: a merchant sees and settles its own, once.
func TestDeadLettersAPI(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	token, _ := b.session("1042")
	bury(t, b.redis, b.prefix, inquiryOf("acme", "pr_01"), inquiryOf("beta", "pr_02"), inquiryOf("acme", "pr_03"), "not json", inquiryOf("acme", "pr_04"))
	get := func(token, query string) apiReply {
		return b.call(apiCall{method: "GET", path: "/v1/dead-letters" + query, token: token})
	}
	first := get(acmeKey, "?limit=2").want(t, 200)
	for path, want := range map[string]any{
		"items.0.kind": "inquiry", "items.0.reason": "the platform is gone", "items.0.at": "2023-11-14T22:13:20Z", "items.0.payment_request_id": "pr_01",
		"items.0.conversation_id": "c_0x", "items.0.attempt": 1.0, "items.1.payment_request_id": "pr_03", "items.2": nil,
	} {
		if got := first.get(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	rest := get(acmeKey, "?cursor="+first.text("next_cursor")).want(t, 200)
	if rest.text("items.0.payment_request_id") != "pr_04" || rest.get("items.1") != nil || rest.get("next_cursor") != nil {
		t.Errorf("the rest is %s", rest.raw)
	}
	get(token, "").problem(t, 403, "forbidden", "not_granted")
	get(acmeKey, "?cursor=x").want(t, 422)

	id := first.text("items.0.id")
	post := func(token, id, what, key string) apiReply {
		return b.call(apiCall{method: "POST", path: "/v1/dead-letters/" + id + "/" + what, token: token, key: key, body: object{}})
	}
	before := b.keep()
	for _, what := range []string{"retry", "drop"} {
		post(betaKey, id, what, "").problem(t, 404, "not_found", "")
		post(token, id, what, "").problem(t, 403, "forbidden", "not_granted")
		post(acmeKey, "0nothing", what, "").problem(t, 404, "not_found", "")
	}
	b.unchanged(before)
	for range 2 { // the second gets the first answer
		post(acmeKey, id, "retry", "k1").want(t, 204)
	}
	if depth, _, err := b.store.OutboxDepth(t.Context()); depth != 1 || err != nil {
		t.Errorf("%d entries in the outbox, %v", depth, err)
	}
	post(acmeKey, id, "retry", "k2").problem(t, 404, "not_found", "")
	post(acmeKey, first.text("items.1.id"), "drop", "k1").want(t, 422)
	post(acmeKey, first.text("items.1.id"), "drop", "").want(t, 204)
	if left := get(acmeKey, "").want(t, 200); left.get("items.1") != nil || left.text("items.0.payment_request_id") != "pr_04" {
		t.Errorf("left are %s", left.raw)
	}
}

// TestDeadLettersCommands lists, retries and drops, also what cannot be read.
func TestDeadLettersCommands(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	prefix := fmt.Sprintf("dead%d", time.Now().UnixNano()%1e12)
	_, example, _ := execute(t, nil, "config", "example")
	file := filepath.Join(t.TempDir(), "paythread.yaml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"PAYTHREAD_REDIS_URL=" + server.URL(), "PAYTHREAD_REDIS_PREFIX=" + prefix, "PAYTHREAD_REDIS_PARTITIONS=2"}
	store, err := conversations.Connect(t.Context(), conversations.Options{Addresses: []string{server.Addr}, Prefix: prefix, Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	dead := func(args ...string) (int, string, string) {
		return execute(t, env, append([]string{"dead-letters", args[0], "--config", file}, args[1:]...)...)
	}
	if code, out, errs := dead("list"); code != exitOK || out != "" || !strings.Contains(errs, "0 dead letters") {
		t.Fatalf("an empty list: %d %q %q", code, out, errs)
	}
	bury(t, server.Client(t), prefix, inquiryOf("acme", "pr_01"), inquiryOf("beta", "pr_02"), "not json", inquiryOf("acme", "pr_03"))
	code, out, errs := dead("list")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != exitOK || len(lines) != 5 || !strings.Contains(errs, "4 dead letters") {
		t.Fatalf("list: %d %q %q", code, out, errs)
	}
	for i, want := range []string{"REASON", "pr_01", "beta", "unreadable", "pr_03"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %d is %q, want %q in it", i, lines[i], want)
		}
	}
	ids := make([]string, 5)
	for i, line := range lines {
		ids[i] = strings.Fields(line)[0]
	}
	if code, out, errs := dead("retry", ids[1], "0nothing"); code != exitFailed || out != ids[1]+" retried\n" || !strings.Contains(errs, "0nothing: there is no such dead letter") {
		t.Errorf("retry: %d %q %q", code, out, errs)
	}
	if depth, _, err := store.OutboxDepth(context.Background()); depth != 1 || err != nil {
		t.Errorf("%d entries in the outbox, %v", depth, err)
	}
	if code, out, _ := dead("drop", ids[3]); code != exitOK || out != ids[3]+" dropped\n" {
		t.Errorf("drop: %d %q", code, out)
	}
	for _, args := range [][]string{{"retry"}, {"drop"}, {"drop", "--all", ids[2]}, {"list", "x"}} {
		if code, _, _ := dead(args...); code != exitUsage {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
	if code, out, _ := dead("drop", "--all"); code != exitOK || strings.Count(out, "dropped") != 2 {
		t.Errorf("drop all: %d %q", code, out)
	}
	if n, err := store.DeadCount(context.Background()); n != 0 || err != nil {
		t.Errorf("%d are left, %v", n, err)
	}
}
