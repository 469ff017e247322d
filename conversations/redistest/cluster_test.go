package redistest

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"
)

// spread writes keys that lie on every node and reads them back.
func spread(t *testing.T, client *redis.ClusterClient, prefix string) {
	t.Helper()
	for i := range 30 {
		key := fmt.Sprintf("%s:%d", prefix, i)
		if err := client.Set(t.Context(), key, i, 0).Err(); err != nil {
			t.Fatalf("set %s: %v", key, err)
		}
		if got, err := client.Get(t.Context(), key).Int(); err != nil || got != i {
			t.Fatalf("get %s: got %d, %v, want %d", key, got, err, i)
		}
	}
}

func TestClusterServesByItsURL(t *testing.T) {
	t.Parallel()
	c := SharedCluster(t)
	options, err := redis.ParseClusterURL(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(options.Addrs), fmt.Sprint(c.Addrs()); got != want {
		t.Errorf("addresses in %s: got %s, want %s", c.URL(), got, want)
	}
	client := redis.NewClusterClient(options)
	t.Cleanup(func() { _ = client.Close() })
	spread(t, client, t.Name())
	for i, node := range c.Nodes() {
		size, err := node.Client(t).DBSize(t.Context()).Result()
		if err != nil || size == 0 {
			t.Errorf("node %d holds %d keys, %v, want some", i, size, err)
		}
	}
}

func TestClusterOwnerHoldsTheKey(t *testing.T) {
	t.Parallel()
	c := SharedCluster(t)
	client := c.Client(t)
	for i := range 10 {
		key := fmt.Sprintf("%s:%d", t.Name(), i)
		if err := client.Set(t.Context(), key, i, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Owner(t, key).Client(t).Get(t.Context(), key).Int(); err != nil || got != i {
			t.Errorf("%s at its owner: got %d, %v, want %d", key, got, err, i)
		}
	}
}

func TestClusterNodeComesBackWithItsKeys(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, 3)
	client := c.Client(t)
	if err := client.Set(t.Context(), "kept", "yes", 0).Err(); err != nil {
		t.Fatal(err)
	}
	owner := c.Owner(t, "kept")
	owner.Kill()
	if c.Owner(t, "kept") != owner {
		t.Error("the owner changed with its death")
	}
	owner.Restart()
	if got, err := client.Get(t.Context(), "kept").Result(); err != nil || got != "yes" {
		t.Errorf("after the restart: got %q, %v, want yes", got, err)
	}
}

func TestClusterAnnouncesItsProxies(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, 3, WithProxies())
	slots, err := announced(t.Context(), c.Nodes()[0].Client(t))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, s := range slots {
		for _, node := range s.Nodes {
			known[node.Addr] = true
		}
	}
	for i, addr := range c.Addrs() {
		if !known[addr] {
			t.Errorf("CLUSTER SLOTS does not name proxy %s", addr)
		}
		if addr == c.Nodes()[i].Addr {
			t.Errorf("node %d is announced without its proxy", i)
		}
	}
	client := c.Client(t)
	spread(t, client, "through")

	// Whichever node it lies on, a named script is caught.
	for i := range 6 {
		key := fmt.Sprintf("caught:%d", i)
		held := c.Hold(ScriptWith("paid", key), After)
		done := runScript(client, key, "paid")
		waitHeld(t, held)
		direct := c.Owner(t, key).Client(t)
		if got, err := direct.Get(t.Context(), key).Result(); err != nil || got != "paid" {
			t.Errorf("%s while its answer is held: got %q, %v, want paid", key, got, err)
		}
		select {
		case err := <-done:
			t.Errorf("%s: the client was answered: %v", key, err)
		default:
		}
		held.Release()
		if err := <-done; err != nil {
			t.Errorf("%s after the release: %v", key, err)
		}
	}
}

// A node that redirects has not run the command: the hold waits for the one
// that does.
func TestClusterHoldPassesRedirections(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, 2, WithProxies())
	const key = "redirected"
	owner := slices.Index(c.Nodes(), c.Owner(t, key))
	held := c.Hold(Command("set"), After)
	wrong := redis.NewClient(&redis.Options{Addr: c.Addrs()[1-owner]})
	t.Cleanup(func() { _ = wrong.Close() })
	if err := wrong.Set(t.Context(), key, "x", 0).Err(); !redis.HasErrorPrefix(err, "MOVED") {
		t.Fatalf("at the wrong node: got %v, want MOVED to pass", err)
	}
	client := c.Client(t)
	done := make(chan error, 1)
	go func() { done <- client.Set(context.Background(), key, "x", 0).Err() }()
	waitHeld(t, held)
	held.Release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHoldNeedsProxies(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("Hold on a cluster without proxies did not panic")
		}
	}()
	SharedCluster(t).Hold(Command("get"), Before)
}
