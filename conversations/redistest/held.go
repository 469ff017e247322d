package redistest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// When says at which moment a command is held.
type When string

const (
	// Before holds the command itself: Redis has not seen it.
	Before When = "before"
	// After holds the answer: the command has run and its client does not know.
	After When = "after"
)

// Held is a hold on one command: armed, then caught, then let go by Release or
// Drop. It catches once; the commands after it pass. Only a repetition of the
// very same command, which a client sends when it has waited too long, is held
// together with the first, so that a held command stays held however long
// the test takes. Its methods may be called from any goroutine.
type Held struct {
	match func([]string) bool
	when  When

	caught chan struct{} // closed when a command is held
	let    chan struct{} // closed by Release or Drop

	mu      sync.Mutex
	state   heldState
	dropped bool
	command []string
	conns   []*proxyConn // whose command is held: the first, then repetitions
}

type heldState string

const (
	armed    heldState = "armed"
	inFlight heldState = "in flight" // matched, its answer has not come yet
	catching heldState = "caught"
	over     heldState = "over"
)

func newHeld(match func([]string) bool, when When) *Held {
	if when != Before && when != After {
		panic(fmt.Sprintf("redistest: unknown moment %q", when))
	}
	return &Held{match: match, when: when, state: armed, caught: make(chan struct{}), let: make(chan struct{})}
}

// ErrLetGo is returned by [Held.Wait] when the hold was released or dropped
// before it caught anything.
var ErrLetGo = errors.New("redistest: the hold was let go before it caught a command")

// Wait returns nil once a command is held: with Before it has not reached
// Redis, with After it has run. It returns the context's error if that does
// not happen in time.
func (h *Held) Wait(ctx context.Context) error {
	select {
	case <-h.caught:
		return nil
	default:
	}
	select {
	case <-h.caught:
		return nil
	case <-h.let:
		return ErrLetGo
	case <-ctx.Done():
		return fmt.Errorf("redistest: no command was caught %s it ran: %w", h.when, context.Cause(ctx))
	}
}

// Command is the held command with its arguments, nil before Wait.
func (h *Held) Command() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == inFlight {
		return nil
	}
	return slices.Clone(h.command)
}

// Release lets the command (Before) or its answer (After) go on, even when the
// client has gone meanwhile: a command that a dead process had sent then
// arrives late. Before anything is caught it disarms the hold.
func (h *Held) Release() { h.letGo(false) }

// Drop cuts the connection of the held command: with Before it never runs, with
// After it has run and is never answered. A client that is alive and retries
// sends it again, and that one passes. Before anything is caught Drop disarms
// the hold.
func (h *Held) Drop() { h.letGo(true) }

func (h *Held) letGo(drop bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == over {
		return
	}
	if drop && h.state == catching {
		h.dropped = true
		for _, c := range h.conns {
			c.cut()
		}
	}
	h.state = over
	close(h.let)
}

// claim is what a hold wants with a command.
type claim string

const (
	claimNone   claim = "none"
	claimNow    claim = "hold the command"
	claimAnswer claim = "hold the answer"
)

// take says what the hold wants with the command. A claimed command goes to
// hold, now or with its answer, or to rearm.
func (h *Held) take(command []string) claim {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.state == catching && slices.Equal(command, h.command):
		return claimNow // a repetition
	case h.state != armed || !h.match(command):
		return claimNone
	}
	h.state, h.command = inFlight, command
	if h.when == Before {
		return claimNow
	}
	return claimAnswer
}

// rearm undoes take: the command turned out not to have run.
func (h *Held) rearm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == inFlight {
		h.state, h.command = armed, nil
	}
}

// hold keeps its caller until the hold is let go, and says whether to go on.
func (h *Held) hold(c *proxyConn) bool {
	h.mu.Lock()
	if h.state == inFlight {
		h.state = catching
		close(h.caught)
	}
	h.conns = append(h.conns, c)
	h.mu.Unlock()
	<-h.let
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.dropped
}

func (h *Held) isOver() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state == over
}

// Command matches every command of the given name, in any case.
func Command(name string) func([]string) bool {
	return func(command []string) bool { return strings.EqualFold(command[0], name) }
}

// ScriptWith matches a call of a script (EVAL, EVALSHA, FCALL) that has each of
// args among its keys or arguments: the way to name one commit by its event.
func ScriptWith(args ...string) func([]string) bool {
	return func(command []string) bool {
		switch strings.ToUpper(command[0]) {
		case "EVAL", "EVALSHA", "FCALL":
		default:
			return false
		}
		if len(command) < 3 {
			return false
		}
		for _, arg := range args {
			if !slices.Contains(command[3:], arg) {
				return false
			}
		}
		return true
	}
}
