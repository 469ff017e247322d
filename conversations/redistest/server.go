package redistest

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Server is one redis-server on a loopback port. Its methods may be called
// from any goroutine.
type Server struct {
	// Addr is host:port.
	Addr string

	owner testing.TB // nil for a shared server, which nobody may kill
	port  *reservation
	dir   string
	args  []string
	// ready says when the server may be used, beyond answering PING.
	ready func(context.Context, *redis.Client) error

	mu      sync.Mutex
	running *process
}

// Start starts a redis-server that belongs to the test and is killed at its
// end. It keeps an append-only file in a directory of its own, so that what it
// has answered is there again after [Server.Kill] and [Server.Restart]. args are
// options as on redis-server's command line ("--maxmemory", "1mb") and win over
// those set here. Start returns when the server answers PING.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := launch(t.TempDir(), append(durable(), args...))
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	s.own(t)
	return s
}

// durable are the options of a server that survives a kill. Without an fsync
// policy Redis writes before it answers, every time; with "everysec" it may
// put the write off while an fsync runs, and a kill then loses answered
// commands. Only the machine's own crash needs fsync.
func durable() []string {
	return []string{"--appendonly", "yes", "--appendfsync", "no"}
}

// launch starts a server in dir and waits until it answers.
func launch(dir string, args []string) (*Server, error) {
	port, err := reservePort()
	if err != nil {
		return nil, err
	}
	s := newServer(port, dir, args)
	if err := s.start(); err != nil {
		s.discard()
		return nil, err
	}
	return s, nil
}

// newServer describes a server that is not started yet.
func newServer(port *reservation, dir string, args []string) *Server {
	base := []string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port.port), "--dir", dir,
		"--save", "", "--daemonize", "no",
	}
	return &Server{Addr: port.addr(), port: port, dir: dir, args: append(base, args...)}
}

// own ties the server to the test.
func (s *Server) own(t testing.TB) {
	s.owner = t
	t.Cleanup(s.discard)
}

// discard kills the server if it runs and gives its port back.
func (s *Server) discard() {
	s.kill()
	s.port.release()
}

// URL is the server's address as redis.ParseURL takes it.
func (s *Server) URL() string {
	return (&url.URL{Scheme: "redis", Host: s.Addr}).String()
}

// Client returns a client of the server that is closed at the end of the test.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.Addr, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = client.Close() }) // the test may have closed it itself
	return client
}

// Kill ends the server as a crash does (SIGKILL) and returns when it is gone.
// Its port stays reserved and its files stay for [Server.Restart]. Killing a
// server that is dead does nothing; killing a shared one panics.
func (s *Server) Kill() {
	s.mustBeOwned()
	s.kill()
}

// Restart starts the server again, on its port and with its files, and returns
// when it answers; a node of a cluster also has to see the whole cluster. If
// it still runs it is killed first. It fails the test that started the server
// when the server does not come up.
func (s *Server) Restart() {
	s.mustBeOwned()
	s.owner.Helper()
	s.kill()
	if err := s.start(); err != nil {
		s.owner.Fatalf("redistest: restart: %v", err)
	}
}

func (s *Server) mustBeOwned() {
	if s.owner == nil {
		panic("redistest: a shared server is used by other tests: start one of your own to kill it")
	}
}

func (s *Server) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running != nil
}

func (s *Server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		s.running.kill()
		s.running = nil
	}
}

func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := spawn(s.dir, s.args)
	if err != nil {
		return err
	}
	s.running = p
	client := s.probe()
	defer func() { _ = client.Close() }() // a client made for this wait only
	return p.await("redis-server on "+s.Addr, func(ctx context.Context) error {
		if err := client.Ping(ctx).Err(); err != nil {
			return err
		}
		if s.ready != nil {
			return s.ready(ctx, client)
		}
		return nil
	})
}

// awaitServer waits for something the server comes to by itself.
func (s *Server) awaitServer(what string, ready func(context.Context, *redis.Client) error) error {
	s.mu.Lock()
	p := s.running
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s: the server on %s is not running", what, s.Addr)
	}
	client := s.probe()
	defer func() { _ = client.Close() }() // a client made for this wait only
	return p.await(what, func(ctx context.Context) error { return ready(ctx, client) })
}

// probe is a client for the package's own questions: it neither retries nor
// introduces itself, so that a refused connection shows at once.
func (s *Server) probe() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: s.Addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1,
		PoolSize: 1, ContextTimeoutEnabled: true,
	})
}
