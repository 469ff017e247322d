package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	// startTimeout bounds every wait for a server, a cluster or a failover. It
	// is far above what they need, because the machine may be busy with the
	// other packages' tests.
	startTimeout = 60 * time.Second
	pollEvery    = 20 * time.Millisecond
	// logTail is how much of a server's log a failed test shows.
	logTail = 2000
)

var errMissing = errors.New("redis-server is not in PATH: install it with scripts/install-test-tools" +
	" from the top of the repository, or by hand (Debian, Ubuntu: apt-get install redis-server)")

// process is one running redis-server.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// spawn starts redis-server in dir. What it prints goes into a file there.
func spawn(dir string, args []string) (*process, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errMissing
	}
	log := filepath.Join(dir, "redis.log")
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start redis-server: %w", err)
	}
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	if err := errors.Join(startTied(cmd), out.Close()); err != nil {
		return nil, fmt.Errorf("start redis-server: %w", err)
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // a killed server's exit status says nothing; the log says why another ended
	}()
	return p, nil
}

// kill ends the process as a crash does and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended already
	<-p.done
}

// await calls ready until it returns nil. It gives up when the process ends
// or the time is over, and then shows the last error and the end of the log.
func (p *process) await(what string, ready func(context.Context) error) error {
	err := poll(p.done, ready)
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w; end of its log:\n%s", what, err, p.tail())
}

func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-logTail):])
}

// poll calls ready until it returns nil, ended is closed or the time is over.
func poll(ended <-chan struct{}, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("the server ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", startTimeout, err)
		case <-tick.C:
		}
	}
}
