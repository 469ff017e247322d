package conversations

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"paythread/conversations/redistest"
)

func TestInspectServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	got, err := Inspect(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	if got.AppendOnly == nil || !*got.AppendOnly || got.MaxMemoryPolicy != "noeviction" || got.Mode != "standalone" || got.SlotsCovered != nil ||
		len(got.Denied) > 0 || CompareVersions(got.Version, "6.2") < 0 || got.ClockOffset.Abs() > time.Minute {
		t.Errorf("Inspect = %+v", got)
	}

	for _, setting := range [][2]string{{"appendonly", "no"}, {"maxmemory-policy", "allkeys-lru"}} {
		if err := client.ConfigSet(t.Context(), setting[0], setting[1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	got, err = Inspect(t.Context(), client)
	if err != nil || *got.AppendOnly || got.MaxMemoryPolicy != "allkeys-lru" {
		t.Errorf("Inspect after the change = %+v, %v", got, err)
	}
}

// TestInspectDenied: a managed server refuses CONFIG; INFO still tells.
func TestInspectDenied(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config").Err(); err != nil {
		t.Fatal(err)
	}
	got, err := InspectServers(t.Context(), Options{Addresses: []string{server.Addr}, Username: "app", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Denied, []string{"CONFIG"}) || got.AppendOnly == nil || !*got.AppendOnly || got.MaxMemoryPolicy != "noeviction" || got.Version == "" {
		t.Errorf("Inspect = %+v, want CONFIG denied and the rest from INFO", got)
	}
}

func TestInspectCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.SharedCluster(t)
	got, err := InspectServers(t.Context(), Options{Addresses: cluster.Addrs(), Cluster: true})
	if err != nil {
		t.Fatal(err)
	}
	if got.Mode != "cluster" || got.SlotsCovered == nil || !*got.SlotsCovered || got.Version == "" {
		t.Errorf("Inspect = %+v, want a cluster with all slots served", got)
	}
}

// TestInspectEmbedded: the demo's Redis tells little, and that is no failure.
func TestInspectEmbedded(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	got, err := InspectServers(t.Context(), Options{Addresses: []string{server.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(got.Denied, "CONFIG") || got.AppendOnly != nil || got.MaxMemoryPolicy != "" {
		t.Errorf("Inspect = %+v, want CONFIG denied and nothing claimed", got)
	}
}

func TestInspectUnreachable(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() }) // nothing was opened
	if _, err := Inspect(t.Context(), client); err == nil {
		t.Error("nobody listens, and Inspect found something")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Inspect(ctx, client); !errors.Is(err, context.Canceled) {
		t.Errorf("Inspect with an ended context = %v, want that", err)
	}
}

func TestInspectWorst(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	good := Inspection{Version: "7.2.0", Mode: "cluster", AppendOnly: &yes, MaxMemoryPolicy: "noeviction", Replicas: 2, SlotsCovered: &yes, ClockOffset: time.Millisecond}
	bad := Inspection{Version: "7.0.10", Mode: "cluster", AppendOnly: &no, MaxMemoryPolicy: "allkeys-lru", Replicas: 0, SlotsCovered: &no, ClockOffset: -time.Second, Denied: []string{"CONFIG"}}
	for _, all := range [][]Inspection{{good, bad}, {bad, good}, {good, bad, good, bad}} {
		got := worstOf(all)
		if got.Version != "7.0.10" || *got.AppendOnly || got.MaxMemoryPolicy != "allkeys-lru" || got.Replicas != 0 || *got.SlotsCovered ||
			got.ClockOffset != -time.Second || !slices.Equal(got.Denied, []string{"CONFIG"}) {
			t.Errorf("worstOf = %+v, want what the worse one says", got)
		}
	}
	unknown := good
	unknown.AppendOnly = nil
	if got := worstOf([]Inspection{good, unknown}); got.AppendOnly != nil {
		t.Errorf("one master does not tell, and AppendOnly = %v", *got.AppendOnly)
	}
	if got := worstOf([]Inspection{unknown, bad}); got.AppendOnly == nil || *got.AppendOnly {
		t.Error("one master keeps no file, and AppendOnly does not say so")
	}
}

func TestInspectOffset(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if got := offsetOf(start.Add(3*time.Second), start, start.Add(2*time.Second)); got != 2*time.Second {
		t.Errorf("offset = %v, want 2s: the answer was made half-way", got)
	}
}

func TestParseInfo(t *testing.T) {
	t.Parallel()
	got := parseInfo("# Server\r\nredis_version:7.2.4\r\nos:Linux: x\r\n\r\n# Replication\nconnected_slaves:2")
	if got["redis_version"] != "7.2.4" || got["os"] != "Linux: x" || got["connected_slaves"] != "2" || len(got) != 3 {
		t.Errorf("parseInfo = %v", got)
	}
	if !slotsCovered(map[string]string{"cluster_state": "ok", "cluster_slots_ok": "16384"}) ||
		slotsCovered(map[string]string{"cluster_state": "fail", "cluster_slots_ok": "16384"}) || slotsCovered(map[string]string{"cluster_state": "ok", "cluster_slots_ok": "16383"}) {
		t.Error("slots count as covered only where the state is ok and all 16384 are")
	}
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want int
	}{{"6.2", "6.2", 0}, {"6.2.0", "6.2", 0}, {"6.2.1", "6.2", 1}, {"6.10", "6.9", 1}, {"6.0.16", "6.2", -1}, {"", "6.2", -1}, {"7", "6.2", 1}, {"6", "6.0.1", -1}} {
		if got := CompareVersions(tt.a, tt.b); got != tt.want {
			t.Errorf("CompareVersions(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
