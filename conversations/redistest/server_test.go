package redistest

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(runChild())
	}
	code := m.Run()
	StopShared()
	os.Exit(code)
}

func TestServerKeepsAnsweredWritesOverAKill(t *testing.T) {
	t.Parallel()
	s := Start(t)
	client := s.Client(t)
	ctx := t.Context()
	for i := range 100 {
		if err := client.RPush(ctx, "written", i).Err(); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill()
	if err := s.probe().Ping(ctx).Err(); err == nil {
		t.Error("a killed server still answers")
	}
	s.Kill() // a second kill is nothing
	addr := s.Addr
	s.Restart()
	if s.Addr != addr {
		t.Errorf("address after restart: got %s, want %s", s.Addr, addr)
	}
	got, err := client.LLen(ctx, "written").Result()
	if err != nil || got != 100 {
		t.Errorf("after the restart: got %d, %v, want 100 answered writes", got, err)
	}
}

func TestServerArgumentsWin(t *testing.T) {
	t.Parallel()
	s := Start(t, "--appendonly", "no", "--maxmemory", "3mb")
	client := s.Client(t)
	for name, want := range map[string]string{"appendonly": "no", "maxmemory": "3145728", "save": ""} {
		got, err := client.ConfigGet(t.Context(), name).Result()
		if err != nil || got[name] != want {
			t.Errorf("%s: got %q, %v, want %q", name, got[name], err, want)
		}
	}
}

func TestServerURL(t *testing.T) {
	t.Parallel()
	s := Shared(t)
	options, err := redis.ParseURL(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	if options.Addr != s.Addr {
		t.Errorf("address in %s: got %s, want %s", s.URL(), options.Addr, s.Addr)
	}
}

func TestServerThatCannotStartShowsItsLog(t *testing.T) {
	t.Parallel()
	_, err := launch(t.TempDir(), []string{"--no-such-option", "1"})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("got %v, want an error with what redis-server said", err)
	}
}

func TestSharedIsOneAndMayNotBeKilled(t *testing.T) {
	t.Parallel()
	a, b := Shared(t), Shared(t)
	if a != b {
		t.Error("two calls of Shared gave two servers")
	}
	for name, kill := range map[string]func(){"Kill": a.Kill, "Restart": a.Restart} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s of a shared server did not panic", name)
				}
			}()
			kill()
		}()
	}
	if err := a.Client(t).Ping(t.Context()).Err(); err != nil {
		t.Errorf("the shared server after that: %v", err)
	}
}

func TestMissingBinaryNamesTheInstaller(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := launch(t.TempDir(), nil)
	if !errors.Is(err, errMissing) || !strings.Contains(err.Error(), "scripts/install-test-tools") {
		t.Errorf("got %v, want an error that names the installer", err)
	}
}

func TestPortsAreReservedOnce(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	var all []*reservation
	for range 50 {
		r, err := reservePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[r.port] {
			t.Errorf("port %d was given twice", r.port)
		}
		seen[r.port] = true
		all = append(all, r)
	}
	taken := all[0].port
	if _, err := reserve(taken); err == nil {
		t.Errorf("port %d could be reserved a second time", taken)
	}
	for _, r := range all {
		r.release()
	}
}

// The tests below run this test binary again as a child, because what they
// look at happens at the end of a process.
const childEnv = "REDISTEST_CHILD"

// runChild starts the shared server, names its address and directory, and then
// either waits to be killed or stops what it started.
func runChild() int {
	s := Shared(&testing.T{})
	os.Stdout.WriteString(s.Addr + "\n" + s.dir + "\n")
	if os.Getenv(childEnv) == "stops" {
		StopShared()
		return 0
	}
	<-make(chan struct{})
	return 1
}

func startChild(t *testing.T, mode string) (cmd *exec.Cmd, addr, dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+mode)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := startTied(cmd); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, line := range []*string{&addr, &dir} {
		if !lines.Scan() {
			t.Fatalf("the child said nothing: %v", lines.Err())
		}
		*line = lines.Text()
	}
	return cmd, addr, dir
}

// awaitGone waits until nothing listens on addr.
func awaitGone(t *testing.T, addr string) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialTimeout: time.Second})
	defer client.Close()
	err := poll(nil, func(ctx context.Context) error {
		if client.Ping(ctx).Err() == nil {
			return errors.New("the server still answers")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSharedEndsWithAKilledProcess(t *testing.T) {
	t.Parallel()
	cmd, addr, dir := startChild(t, "waits")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	awaitGone(t, addr)
	sweepSharedDirs() // another test's or process's sweep may have been first
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s after a sweep: %v, want it gone", filepath.Base(dir), err)
	}
}

func TestStopSharedLeavesNothing(t *testing.T) {
	t.Parallel()
	cmd, addr, dir := startChild(t, "stops")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, addr)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v, want it gone", filepath.Base(dir), err)
	}
}

func TestSweepLeavesWhatIsUsed(t *testing.T) {
	t.Parallel()
	s := Shared(t)
	sweepSharedDirs()
	if _, err := os.Stat(s.dir); err != nil {
		t.Errorf("the directory of a running server: %v", err)
	}
}
