package redistest

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestSentinelFailsOverAndBack(t *testing.T) {
	t.Parallel()
	s := StartSentinel(t)
	options, err := redis.ParseFailoverURL(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewFailoverClient(options)
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Set(t.Context(), "key", "first", 0).Err(); err != nil {
		t.Fatal(err)
	}
	first, second := s.Master(t), s.Replica(t)
	s.Failover(t)
	if s.Master(t) != second || s.Replica(t) != first {
		t.Fatal("the two did not change places")
	}
	follow(t, client, "second")
	if got, err := second.Client(t).Get(t.Context(), "key").Result(); err != nil || got != "second" {
		t.Errorf("at the new master: got %q, %v, want second", got, err)
	}
	s.Failover(t)
	if s.Master(t) != first {
		t.Fatal("the second failover did not go back")
	}
	follow(t, client, "third")
}

func TestSentinelFailsOverFromADeadMaster(t *testing.T) {
	t.Parallel()
	s := StartSentinel(t)
	client := s.Client(t)
	if err := client.Set(t.Context(), "key", "first", 0).Err(); err != nil {
		t.Fatal(err)
	}
	dead, next := s.Master(t), s.Replica(t)
	dead.Kill()
	s.Failover(t)
	if s.Master(t) != next {
		t.Fatal("the replica did not take over")
	}
	follow(t, client, "second")

	dead.Restart()
	if err := s.settled(next.Addr); err != nil {
		t.Errorf("the old master does not follow: %v", err)
	}
}

// follow writes through a client that has to find the new master first.
func follow(t *testing.T, client *redis.Client, value string) {
	t.Helper()
	err := poll(nil, func(ctx context.Context) error { return client.Set(ctx, "key", value, 0).Err() })
	if err != nil {
		t.Errorf("write after a failover: %v", err)
	}
}
