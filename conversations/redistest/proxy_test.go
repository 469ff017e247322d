package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// setScript writes its argument to its key.
var setScript = redis.NewScript(`return redis.call("SET", KEYS[1], ARGV[1])`)

// runScript runs setScript in the background and hands over how it ended.
func runScript(client redis.Scripter, key, value string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- setScript.Run(context.Background(), client, []string{key}, value).Err() }()
	return done
}

func waitHeld(t *testing.T, h *Held) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := h.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

// proxied is a server, a proxy before it, and a client on each side. The one
// through the proxy neither retries nor gives up by itself.
type proxied struct {
	proxy           *Proxy
	direct, through *redis.Client
	server          *Server
}

func startProxied(t *testing.T, protocol int) proxied {
	t.Helper()
	s := Start(t)
	p := NewProxy(t, s.Addr)
	through := redis.NewClient(&redis.Options{
		Addr: p.Addr(), Protocol: protocol, MaxRetries: -1, ReadTimeout: -1, ContextTimeoutEnabled: true,
	})
	t.Cleanup(func() { _ = through.Close() })
	return proxied{proxy: p, direct: s.Client(t), through: through, server: s}
}

func TestProxyHolds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		when     When
		letGo    func(*Held)
		ranHeld  bool // while it is held
		ranAfter bool
		answered bool
	}{
		{"before, released", Before, (*Held).Release, false, true, true},
		{"before, dropped", Before, (*Held).Drop, false, false, false},
		{"after, released", After, (*Held).Release, true, true, true},
		{"after, dropped", After, (*Held).Drop, true, true, false},
	}
	for _, tt := range tests {
		for _, protocol := range []int{2, 3} {
			t.Run(fmt.Sprintf("%s, RESP%d", tt.name, protocol), func(t *testing.T) {
				t.Parallel()
				x := startProxied(t, protocol)
				ctx := t.Context()
				ran := func() bool { return x.direct.Exists(ctx, "key").Val() == 1 }

				held := x.proxy.Hold(ScriptWith("payment_processing"), tt.when)
				// Another event of the same script passes, before and while it is held.
				if err := <-runScript(x.through, "other", "payment_opened"); err != nil {
					t.Fatal(err)
				}
				if got := held.Command(); got != nil {
					t.Errorf("the held command before any is: got %q", got)
				}
				done := runScript(x.through, "key", "payment_processing")
				waitHeld(t, held)
				if got := held.Command(); len(got) != 5 || got[3] != "key" {
					t.Errorf("the held command: got %q", got)
				}
				if got := ran(); got != tt.ranHeld {
					t.Errorf("ran while held: got %v, want %v", got, tt.ranHeld)
				}
				if err := <-runScript(x.through, "other", "payment_processing"); err != nil {
					t.Errorf("another connection, same command: %v", err)
				}
				tt.letGo(held)
				err := <-done
				if answered := err == nil; answered != tt.answered {
					t.Errorf("after letting go: got %v, want answered: %v", err, tt.answered)
				}
				if got := ran(); got != tt.ranAfter {
					t.Errorf("ran in the end: got %v, want %v", got, tt.ranAfter)
				}
				tt.letGo(held) // a second time is nothing
				if err := x.through.Ping(ctx).Err(); err != nil {
					t.Errorf("a new connection after that: %v", err)
				}
			})
		}
	}
}

func TestProxyLateCommandOfADeadClient(t *testing.T) {
	t.Parallel()
	x := startProxied(t, 3)
	held := x.proxy.Hold(Command("SET"), Before)
	ctx, die := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.through.Set(ctx, "key", "late", 0).Err() }()
	waitHeld(t, held)
	die()
	_ = x.through.Close() // the dead client
	held.Release()
	<-done
	err := poll(nil, func(ctx context.Context) error { return x.direct.Get(ctx, "key").Err() })
	if err != nil {
		t.Errorf("the late command did not run: %v", err)
	}
}

func TestProxyRepeatedCommandIsNotHeldAgain(t *testing.T) {
	t.Parallel()
	x := startProxied(t, 3)
	retrying := redis.NewClient(&redis.Options{Addr: x.proxy.Addr(), ReadTimeout: -1, MaxRetries: 3})
	t.Cleanup(func() { _ = retrying.Close() })
	held := x.proxy.Hold(Command("incr"), After)
	done := make(chan error, 1)
	go func() { done <- retrying.Incr(context.Background(), "count").Err() }()
	waitHeld(t, held)
	held.Drop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := x.direct.Get(t.Context(), "count").Val(); got != "2" {
		t.Errorf("a command resent after its answer was lost: ran %s times, want 2", got)
	}
}

func TestProxyHoldsRepetitionsWithTheFirst(t *testing.T) {
	t.Parallel()
	for _, when := range []When{Before, After} {
		t.Run(string(when), func(t *testing.T) {
			t.Parallel()
			x := startProxied(t, 3)
			ctx := t.Context()
			held := x.proxy.Hold(Command("incr"), when)
			done := make(chan error, 2)
			incr := func() { done <- x.through.Incr(ctx, "count").Err() }
			go incr()
			waitHeld(t, held)
			go incr() // what a client sends that has waited too long
			err := poll(nil, func(context.Context) error {
				held.mu.Lock()
				defer held.mu.Unlock()
				if len(held.conns) != 2 {
					return fmt.Errorf("%d connections are held, want 2", len(held.conns))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			want := map[When]int64{Before: 0, After: 1}[when]
			ran := func(moment string) {
				t.Helper()
				got, err := x.direct.IncrBy(ctx, "count", 0).Result()
				if err != nil || got != want {
					t.Errorf("%s: ran %d times, %v, want %d", moment, got, err, want)
				}
			}
			ran("while held")
			held.Drop()
			for range 2 {
				if err := <-done; err == nil {
					t.Error("a dropped command was answered")
				}
			}
			ran("after the drop")
			if err := x.through.Incr(ctx, "count").Err(); err != nil {
				t.Errorf("the next repetition: %v", err)
			}
		})
	}
}

func TestProxyAfterWaitsForTheRealRun(t *testing.T) {
	t.Parallel()
	x := startProxied(t, 3)
	ctx := t.Context()
	held := x.proxy.Hold(ScriptWith("event"), After)

	// Unknown script: the answer is NOSCRIPT, and nothing has run.
	err := x.through.EvalSha(ctx, setScript.Hash(), []string{"key"}, "event").Err()
	if !redis.HasErrorPrefix(err, "NOSCRIPT") {
		t.Fatalf("got %v, want NOSCRIPT to pass", err)
	}
	// In a transaction it only queues.
	cmds, err := x.through.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.Eval(ctx, `return ARGV[1]`, nil, "event")
		return nil
	})
	if err != nil || len(cmds) != 1 {
		t.Fatalf("a transaction: %v", err)
	}
	if held.Command() != nil {
		t.Fatal("caught what has not run")
	}
	done := runScript(x.through, "key", "event")
	waitHeld(t, held)
	if got := x.direct.Get(ctx, "key").Val(); got != "event" {
		t.Errorf("caught before it ran: key is %q", got)
	}
	held.Release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestProxyPipelineIsHeldInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, when := range []When{Before, After} {
		t.Run(string(when), func(t *testing.T) {
			t.Parallel()
			x := startProxied(t, 3)
			held := x.proxy.Hold(func(command []string) bool {
				return strings.EqualFold(command[0], "set") && command[1] == "2"
			}, when)
			big := strings.Repeat("x", 3<<20)
			var cmds []redis.Cmder
			done := make(chan error, 1)
			go func() {
				var err error
				cmds, err = x.through.Pipelined(context.Background(), func(p redis.Pipeliner) error {
					for i := range 5 {
						p.Set(context.Background(), fmt.Sprint(i), big, 0)
						p.Get(context.Background(), fmt.Sprint(i))
						p.HGetAll(context.Background(), "none")
					}
					return nil
				})
				done <- err
			}()
			waitHeld(t, held)
			if got := x.direct.Exists(t.Context(), "2").Val() == 1; got != (when == After) {
				t.Errorf("ran while held: got %v", got)
			}
			if got := x.direct.Exists(t.Context(), "1").Val(); got != 1 {
				t.Error("the command before it has not run")
			}
			held.Release()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if len(cmds) != 15 {
				t.Fatalf("got %d answers, want 15", len(cmds))
			}
			for i := 1; i < len(cmds); i += 3 {
				if got := cmds[i].(*redis.StringCmd).Val(); got != big {
					t.Errorf("answer %d: got %d bytes, want %d", i, len(got), len(big))
				}
			}
		})
	}
}

func TestProxySubscriptionsPass(t *testing.T) {
	t.Parallel()
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprintf("RESP%d", protocol), func(t *testing.T) {
			t.Parallel()
			x := startProxied(t, protocol)
			held := x.proxy.Hold(Command("get"), After)
			sub := x.through.Subscribe(t.Context(), "a", "b")
			defer sub.Close()
			for range 2 {
				if _, err := sub.Receive(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := x.through.Publish(t.Context(), "b", "hello").Err(); err != nil {
				t.Fatal(err)
			}
			message, err := sub.ReceiveMessage(t.Context())
			if err != nil || message.Payload != "hello" {
				t.Fatalf("got %v, %v", message, err)
			}
			held.Release() // never caught
			if err := held.Wait(t.Context()); !errors.Is(err, ErrLetGo) {
				t.Errorf("waiting for a disarmed hold: got %v, want ErrLetGo", err)
			}
			if err := x.through.Get(t.Context(), "none").Err(); !errors.Is(err, redis.Nil) {
				t.Errorf("a command after the disarmed hold: got %v", err)
			}
		})
	}
}

func TestProxyRearmsWhenTheServerDies(t *testing.T) {
	t.Parallel()
	x := startProxied(t, 3)
	held := x.proxy.Hold(Command("blpop"), After)
	done := make(chan error, 1)
	go func() { done <- x.through.BLPop(context.Background(), 0, "queue").Err() }()
	blocked := func(ctx context.Context) error {
		info, err := x.direct.Info(ctx, "clients").Result()
		if err == nil && !strings.Contains(info, "blocked_clients:1") {
			err = errors.New("no client waits yet")
		}
		return err
	}
	if err := poll(nil, blocked); err != nil {
		t.Fatal(err)
	}
	x.server.Kill()
	if err := <-done; err == nil {
		t.Fatal("a dead server answered")
	}
	x.server.Restart()
	go func() { done <- x.through.BLPop(context.Background(), 0, "queue").Err() }()
	if err := x.direct.RPush(t.Context(), "queue", "item").Err(); err != nil {
		t.Fatal(err)
	}
	waitHeld(t, held)
	held.Release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHeldWaitGivesUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	held := NewProxy(t, "127.0.0.1:1").Hold(Command("get"), Before)
	if err := held.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestProxyBeforeADeadServer(t *testing.T) {
	t.Parallel()
	x := startProxied(t, 2)
	x.server.Kill()
	if err := x.through.Ping(t.Context()).Err(); err == nil {
		t.Error("a dead server answered through the proxy")
	}
	x.server.Restart()
	if err := x.through.Ping(t.Context()).Err(); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

func TestProxyPassesWhatIsNotRESP(t *testing.T) {
	t.Parallel()
	x := startProxied(t, 2)
	conn := dial(t, x.proxy.Addr())
	if _, err := conn.Write([]byte("PING\r\nECHO inline\r\n")); err != nil {
		t.Fatal(err)
	}
	want := "+PONG\r\n$6\r\ninline\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Errorf("inline commands: got %q, %v, want %q", got, err, want)
	}
}

// Every kind of answer comes through as it was, in both protocols, while a
// hold makes the proxy count them.
func TestProxyPassesEveryKindOfAnswer(t *testing.T) {
	t.Parallel()
	commands := [][]string{
		{"HELLO", "3"}, {"SET", "k", "v"}, {"GET", "k"}, {"GET", "none"}, {"INCR", "n"}, {"HSET", "h", "a", "1", "b", "2"},
		{"HGETALL", "h"}, {"SADD", "s", "x"}, {"SMEMBERS", "s"}, {"ZADD", "z", "1.5", "m"}, {"ZSCORE", "z", "m"},
		{"NOSUCH"}, {"DEBUG", "PROTOCOL", "attrib"}, {"DEBUG", "PROTOCOL", "push"}, {"DEBUG", "PROTOCOL", "verbatim"},
		{"DEBUG", "PROTOCOL", "bignum"}, {"DEBUG", "PROTOCOL", "true"}, {"DEBUG", "PROTOCOL", "null"},
		{"DEBUG", "PROTOCOL", "double"}, {"DEBUG", "PROTOCOL", "map"}, {"DEBUG", "PROTOCOL", "set"}, {"ECHO", "end"},
	}
	for _, protocol := range []string{"2", "3"} {
		t.Run("RESP"+protocol, func(t *testing.T) {
			t.Parallel()
			s := Start(t, "--enable-debug-command", "local")
			p := NewProxy(t, s.Addr)
			commands := append([][]string{{"HELLO", protocol}}, commands[1:]...)
			var request []byte
			for _, command := range commands {
				request = append(request, encode(command)...)
			}
			end := []byte("$3\r\nend\r\n")

			read := func(addr string) []byte {
				conn := dial(t, addr)
				if _, err := conn.Write(append(encode([]string{"FLUSHALL"}), request...)); err != nil {
					t.Fatal(err)
				}
				var got []byte
				buf := make([]byte, 4096)
				for !bytes.HasSuffix(got, end) {
					n, err := conn.Read(buf)
					got = append(got, buf[:n]...)
					if err != nil {
						t.Fatalf("%v after %q", err, got)
					}
				}
				return got
			}
			want := read(s.Addr)
			held := p.Hold(Command("echo"), After)
			go func() {
				if held.Wait(context.Background()) == nil {
					held.Release()
				}
			}()
			got := read(p.Addr())
			// HELLO names the connection's own id.
			if a, b := withoutID(got), withoutID(want); !bytes.Equal(a, b) {
				t.Errorf("through the proxy:\n%q\nwant\n%q", a, b)
			}
			if held.Command() == nil {
				t.Error("the last command was not counted right: its answer was not held")
			}
		})
	}
}
