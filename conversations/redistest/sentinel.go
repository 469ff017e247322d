package redistest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// masterName is what the Sentinel calls its master.
const masterName = "mymaster"

// Sentinel is one master, one replica and the Sentinel that watches them.
type Sentinel struct {
	// Addr is the Sentinel's own host:port.
	Addr string
	// MasterName is the name under which the Sentinel knows the master.
	MasterName string

	watcher *Server
	servers []*Server
}

// StartSentinel starts a master, its replica and a Sentinel whose word alone is
// enough (quorum 1). All belong to the test and are killed at its end. It
// returns when the replica is in step and the Sentinel knows both.
//
// The Sentinel does not act by itself within a test's time, because a busy
// machine looks like a dead master to it: a test says when, by
// [Sentinel.Failover].
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	s := &Sentinel{MasterName: masterName}
	if err := s.start(t); err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return s
}

func (s *Sentinel) start(t testing.TB) error {
	master, err := startConfigured(t, durable())
	if err != nil {
		return err
	}
	port := strconv.Itoa(master.port.port)
	replica, err := startConfigured(t, durable(), "replicaof 127.0.0.1 "+port)
	if err != nil {
		return err
	}
	s.servers = []*Server{master, replica}
	// First in step, then watched: what the Sentinel sees when it comes, it
	// keeps until it asks again.
	err = master.awaitServer("replica of "+master.Addr, func(ctx context.Context, _ *redis.Client) error {
		return s.replicating(ctx, master.Addr)
	})
	if err != nil {
		return err
	}
	s.watcher, err = startConfigured(t, []string{"--sentinel"},
		"sentinel monitor "+masterName+" 127.0.0.1 "+port+" 1",
		"sentinel down-after-milliseconds "+masterName+" 600000",
		"sentinel failover-timeout "+masterName+" 10000",
	)
	if err != nil {
		return err
	}
	s.Addr = s.watcher.Addr
	if err := s.hurry(t.Context()); err != nil {
		return err
	}
	return s.settled(master.Addr)
}

// hurry makes the Sentinel look twice a second instead of every 10 s, so that
// a failover is over in about 10 s and not in half a minute.
func (s *Sentinel) hurry(ctx context.Context) error {
	client := s.watcher.probe()
	defer func() { _ = client.Close() }() // a client made for this only
	err := client.Do(ctx, "SENTINEL", "DEBUG", "info-period", 500, "publish-period", 100).Err()
	if err != nil {
		return fmt.Errorf("make the sentinel look more often: %w", err)
	}
	return nil
}

// startConfigured starts a server of the test with a configuration file. There
// a Sentinel writes what it learns, and has its servers write whom they
// follow, so that a restart does not go back to the beginning.
func startConfigured(t testing.TB, args []string, lines ...string) (*Server, error) {
	port, err := reservePort()
	if err != nil {
		return nil, err
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "redis.conf")
	s := newServer(port, dir, args)
	s.args = append([]string{file}, s.args...)
	s.own(t)
	text := strings.Join(append(lines, ""), "\n")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configure a server: %w", err)
	}
	return s, s.start()
}

// settled waits until the Sentinel names master, the other server follows it
// in step, and the Sentinel knows that one as fit to take over.
func (s *Sentinel) settled(master string) error {
	return s.watcher.awaitServer("sentinel "+s.Addr, func(ctx context.Context, watcher *redis.Client) error {
		if err := s.names(ctx, watcher, master); err != nil {
			return err
		}
		reply, err := watcher.Do(ctx, "SENTINEL", "REPLICAS", masterName).Slice()
		if err != nil {
			return err
		}
		if text := fmt.Sprint(reply); len(reply) != 1 || !strings.Contains(text, "master-link-status ok") {
			return fmt.Errorf("the replica is not known to be in step: %s", text)
		}
		return s.replicating(ctx, master)
	})
}

// names returns nil if the Sentinel takes the given address for the master.
func (s *Sentinel) names(ctx context.Context, watcher *redis.Client, master string) error {
	reply, err := watcher.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName).StringSlice()
	if err != nil {
		return err
	}
	if named := strings.Join(reply, ":"); named != master {
		return fmt.Errorf("the master is %s, want %s", named, master)
	}
	return nil
}

// replicating returns nil if the master has a replica that is online.
func (s *Sentinel) replicating(ctx context.Context, master string) error {
	info, err := s.info(ctx, master)
	if err != nil {
		return err
	}
	if !strings.Contains(info, "role:master") || !strings.Contains(info, "state=online") {
		return fmt.Errorf("the replica is not online: %q", info)
	}
	return nil
}

func (s *Sentinel) info(ctx context.Context, addr string) (string, error) {
	i := slices.IndexFunc(s.servers, func(server *Server) bool { return server.Addr == addr })
	if i < 0 {
		return "", fmt.Errorf("no server has the address %s", addr)
	}
	client := s.servers[i].probe()
	defer func() { _ = client.Close() }() // a client made for this only
	return client.Info(ctx, "replication").Result()
}

// URL leads to the Sentinel, as redis.ParseFailoverURL takes it:
// redis://127.0.0.1:26379?master_name=mymaster.
func (s *Sentinel) URL() string {
	query := url.Values{"master_name": {masterName}}
	return (&url.URL{Scheme: "redis", Host: s.Addr, RawQuery: query.Encode()}).String()
}

// Client returns a client that follows the master and is closed at the end of
// the test.
func (s *Sentinel) Client(t testing.TB) *redis.Client {
	t.Helper()
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: masterName, SentinelAddrs: []string{s.Addr}, ContextTimeoutEnabled: true,
	})
	t.Cleanup(func() { _ = client.Close() }) // the test may have closed it itself
	return client
}

// Master is the server that the Sentinel names as master now.
func (s *Sentinel) Master(t testing.TB) *Server {
	t.Helper()
	i, err := s.masterIndex(t.Context())
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return s.servers[i]
}

// Replica is the server that is not the master now.
func (s *Sentinel) Replica(t testing.TB) *Server {
	t.Helper()
	i, err := s.masterIndex(t.Context())
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return s.servers[1-i]
}

func (s *Sentinel) masterIndex(ctx context.Context) (int, error) {
	watcher := s.watcher.probe()
	defer func() { _ = watcher.Close() }() // a client made for this only
	for i, server := range s.servers {
		if s.names(ctx, watcher, server.Addr) == nil {
			return i, nil
		}
	}
	return 0, errors.New("the sentinel names neither server as master")
}

// Failover makes the replica the master and returns when the Sentinel tells
// clients so. A master that runs becomes the replica, and Failover waits for
// that too, so that it can be called again. A master that the test killed
// before loses what it had not passed on, and follows once it is restarted.
func (s *Sentinel) Failover(t testing.TB) {
	t.Helper()
	old, next := s.Master(t), s.Replica(t)
	if err := s.failover(old, next); err != nil {
		t.Fatalf("redistest: failover: %v", err)
	}
}

func (s *Sentinel) failover(old, next *Server) error {
	err := s.watcher.awaitServer("sentinel "+s.Addr, func(ctx context.Context, watcher *redis.Client) error {
		// A Sentinel that has not heard from the replica lately gives up at once,
		// so it is asked again: but only if it was idle before it named the old
		// master, or a second request could undo what the first just did.
		state, err := watcher.Do(ctx, "SENTINEL", "MASTER", masterName).Slice()
		if err != nil {
			return err
		}
		if err := s.names(ctx, watcher, next.Addr); err != nil {
			if !strings.Contains(fmt.Sprint(state), "failover_in_progress") {
				err = errors.Join(err, watcher.Do(ctx, "SENTINEL", "FAILOVER", masterName).Err())
			}
			return err
		}
		info, err := s.info(ctx, next.Addr)
		if err == nil && !strings.Contains(info, "role:master") {
			err = errors.New("the replica is not yet master")
		}
		return err
	})
	if err != nil || !old.alive() {
		return err
	}
	return s.settled(next.Addr)
}
