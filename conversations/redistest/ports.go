package redistest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
)

// A server that is killed and started again needs the same port in between,
// so a port that the kernel hands out for one moment is not enough: any
// outgoing connection could take it. Ports are therefore chosen below the
// range the kernel hands out (32768 and up on Linux, 49152 elsewhere), and
// each is guarded by a listener of its own for as long as it is reserved. The
// guard also keeps the test processes that run beside this one away, and the
// kernel removes it when this process dies.
//
//	first port + n            the server
//	first port + n +  5000    its guard
//	first port + n + 10000    its cluster bus: Redis's default distance
const (
	firstPort   = 11000
	portCount   = 5000
	guardOffset = 5000
	busOffset   = 10000
)

// nextPort moves on with every reservation, so that a client which outlives
// its server does not find another test's server at the old address. It
// starts at a different place in each process.
var nextPort atomic.Uint32

func init() { nextPort.Store(uint32(os.Getpid()) * 61) }

// reservation is a port that nobody else who reserves through this package
// is given until it is released.
type reservation struct {
	port  int
	guard net.Listener
}

func reservePort() (*reservation, error) {
	for range portCount {
		port := firstPort + int(nextPort.Add(1)%portCount)
		if r, err := reserve(port); err == nil {
			return r, nil
		}
	}
	return nil, errors.New("no free port from " + strconv.Itoa(firstPort) + " on")
}

// reserve takes the given port if neither it nor its bus port is in use.
func reserve(port int) (*reservation, error) {
	guard, err := net.Listen("tcp", loopback(port+guardOffset))
	if err != nil {
		return nil, fmt.Errorf("reserve port %d: %w", port, err)
	}
	for _, p := range []int{port, port + busOffset} {
		probe, err := net.Listen("tcp", loopback(p))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("reserve port %d: %w", port, err), guard.Close())
		}
		if err := probe.Close(); err != nil {
			return nil, errors.Join(fmt.Errorf("reserve port %d: %w", port, err), guard.Close())
		}
	}
	return &reservation{port: port, guard: guard}, nil
}

func (r *reservation) release() {
	_ = r.guard.Close() // a listener that was open; nothing depends on the answer
}

func (r *reservation) addr() string { return loopback(r.port) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
