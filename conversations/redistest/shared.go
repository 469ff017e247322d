package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// shared holds what the tests of one process have in common.
var shared struct {
	mu      sync.Mutex
	server  *Server
	cluster *Cluster
	dirs    []string
}

// Shared returns the one redis-server that all tests of this process may use
// at once. It is started by the first call and keeps nothing on disk. Tests
// keep apart by a key prefix of their own, never flush it and never set its
// configuration; whoever needs that, or needs to kill it, calls [Start].
//
// It ends with the test process. On Linux nothing has to be done for that.
// Elsewhere, and to leave no empty directory behind, end it from TestMain:
//
//	func TestMain(m *testing.M) {
//		code := m.Run()
//		redistest.StopShared()
//		os.Exit(code)
//	}
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil {
		server, err := startShared()
		if err != nil {
			t.Fatalf("redistest: %v", err)
		}
		shared.server = server
	}
	return shared.server
}

func startShared() (*Server, error) {
	port, err := reservePort()
	if err != nil {
		return nil, err
	}
	dir, err := sharedDir(port)
	if err != nil {
		port.release()
		return nil, err
	}
	s := newServer(port, dir, []string{"--appendonly", "no"})
	if err := s.start(); err != nil {
		s.discard()
		return nil, err
	}
	return s, nil
}

// SharedCluster returns a cluster of three masters that all tests of this
// process may use at once, under the rules of [Shared].
func SharedCluster(t testing.TB) *Cluster {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster == nil {
		cluster, err := newCluster(3, clusterOptions{}, sharedDir, []string{"--appendonly", "no"})
		if err != nil {
			t.Fatalf("redistest: %v", err)
		}
		shared.cluster = cluster
	}
	return shared.cluster
}

// StopShared ends what [Shared] and [SharedCluster] started in this process and
// removes its files. It is called when no test runs any more; the next call of
// Shared would start anew.
func StopShared() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server != nil {
		shared.server.discard()
	}
	if shared.cluster != nil {
		shared.cluster.discard()
	}
	for _, dir := range shared.dirs {
		_ = os.RemoveAll(dir) // the next sweep tries again
	}
	shared.server, shared.cluster, shared.dirs = nil, nil, nil
}

const sharedDirPrefix = "paythread-redistest-"

// sharedDir makes the directory of a shared server. No test's end removes it,
// so it bears the port's name, and a later run sweeps it away.
func sharedDir(port *reservation) (string, error) {
	sweepSharedDirs()
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", sharedDirPrefix, port.port))
	if err != nil {
		return "", fmt.Errorf("make a shared server's directory: %w", err)
	}
	shared.dirs = append(shared.dirs, dir)
	return dir, nil
}

// sweepSharedDirs removes the directories whose test process is gone: their
// ports can be reserved.
func sweepSharedDirs() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), sharedDirPrefix+"*"))
	if err != nil {
		return // sweeping is a courtesy
	}
	for _, dir := range dirs {
		var port int
		if _, err := fmt.Sscanf(filepath.Base(dir), sharedDirPrefix+"%d-", &port); err != nil {
			continue
		}
		if r, err := reserve(port); err == nil {
			_ = os.RemoveAll(dir) // may be another user's
			r.release()
		}
	}
}
