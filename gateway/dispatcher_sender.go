package main

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// outgoing is a sender as the dispatcher uses it: its adapter, and all that may
// keep a message from being sent by it now.
type outgoing struct {
	*liveSender
	store *conversations.Store
	log   *slog.Logger

	limit *conversations.Rate // of the sender, nil: none
	pair  *conversations.Rate // of its messages to one customer, nil: none
	asks  chan struct{}       // whoever asks the throttle, one at a time in this process

	breaker     *gobreaker.TwoStepCircuitBreaker[struct{}]
	openFor     time.Duration
	openedUntil atomic.Int64 // ns since 1970, by this process's clock

	// replaced is set once another outgoing with other settings has taken this
	// one's place: what a call by the old credentials says holds nobody back.
	replaced atomic.Bool

	mu     sync.Mutex // held while state is read, so that it is read once
	state  conversations.SenderState
	readAt time.Time
}

// stateAge is how old what a process knows of a sender may be.
const stateAge = time.Second

func newOutgoing(live *liveSender, limits providers.Limits, store *conversations.Store, c DispatcherConfig, log *slog.Logger) *outgoing {
	o := &outgoing{liveSender: live, store: store, log: log, asks: make(chan struct{}, 1), openFor: c.BreakerOpen}
	o.limit, o.pair = rates(limits)
	o.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: live.ID, Timeout: c.BreakerOpen,
		ReadyToTrip:  func(n gobreaker.Counts) bool { return int(n.ConsecutiveFailures) >= max(c.BreakerFailures, 1) },
		IsSuccessful: func(err error) bool { return !isFault(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errNotCalled) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				o.openedUntil.Store(time.Now().Add(c.BreakerOpen).UnixNano())
			}
			log.Warn("a sender's circuit breaker changed", "sender", live.ID, "provider", live.Provider, "from", from.String(), "to", to.String())
		},
	})
	return o
}

// errNotCalled is the outcome of a permission of the breaker that was not used.
var errNotCalled = errors.New("the provider was not called")

// rates are a sender's limits as the shared throttle takes them.
func rates(l providers.Limits) (sender, pair *conversations.Rate) {
	if l.PerSecond > 0 {
		r := conversations.Every(time.Duration(float64(time.Second)/l.PerSecond), max(l.Burst, 1))
		sender = &r
	}
	if l.PairEvery > 0 {
		r := conversations.Every(l.PairEvery, max(l.PairBurst, 1))
		pair = &r
	}
	return sender, pair
}

// known returns what is known of the sender, at most stateAge old. While Redis
// does not answer it is what was known before.
func (o *outgoing) known(ctx context.Context) conversations.SenderState {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.readAt) < stateAge {
		return o.state
	}
	state, err := o.store.SenderState(ctx, o.ID)
	o.readAt = time.Now()
	if err != nil {
		o.log.WarnContext(ctx, "what is known of a sender could not be read", "sender", o.ID, "error", err)
		return o.state
	}
	o.state = state
	return state
}

// held returns what holds the sender's messages back, or nil.
func (o *outgoing) held(ctx context.Context) *conversations.Hold {
	if h := o.known(ctx).Hold; h != nil && o.store.Now().Before(h.Until) {
		return h
	}
	return nil
}

// hold keeps the sender's messages back in every process, in this one at once.
func (o *outgoing) hold(ctx context.Context, h conversations.Hold) {
	if o.replaced.Load() && slices.Contains(holdsOfCredentials, h.Reason) {
		return
	}
	if err := o.store.HoldSender(ctx, o.ID, h); err != nil {
		o.log.WarnContext(ctx, "a sender could not be held back for all processes", "sender", o.ID, "error", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state.Hold == nil || o.state.Hold.Until.Before(h.Until) {
		o.state.Hold = &h
	}
}

// holdsOfCredentials are the reasons of holds that other credentials may end.
var holdsOfCredentials = []conversations.FailureReason{conversations.FailureAuth, conversations.FailureAccount}

// release ends what the credentials that this sender had before have brought
// about. Where Redis does not answer the hold ends by itself.
func (o *outgoing) release(ctx context.Context) {
	switch was, err := o.store.ReleaseSender(ctx, o.ID, holdsOfCredentials...); {
	case err != nil:
		o.log.WarnContext(ctx, "a sender with new settings could not be released and is held back until its time", "sender", o.ID, "error", err)
	case was:
		o.log.InfoContext(ctx, "a sender has new settings and is held back no longer", "sender", o.ID, "provider", o.Provider)
	}
}

// waitCause is why a message waits.
type waitCause string

// The causes, labels of a metric.
const (
	waitThrottle waitCause = "throttle" // the sender's limit, put off
	waitTurn     waitCause = "turn"     // the sender's limit, waited for in the lane
	waitPair     waitCause = "pair"     // the limit of messages to one customer
	waitHold     waitCause = "hold"
	waitBreaker  waitCause = "breaker"
	waitFull     waitCause = "full" // the sender's lane
)

var waitCauses = []waitCause{waitThrottle, waitTurn, waitPair, waitHold, waitBreaker, waitFull}

// delay says that a message cannot be sent now, why, and for how long.
type delay struct {
	cause waitCause
	wait  time.Duration
}

const (
	// longestTurn is how long a message waits for the sender's limit where it
	// is; beyond that it makes room for others.
	longestTurn = 2 * time.Second
	// probeWait is how long a message waits while another one tries whether the
	// provider is back.
	probeWait = 2 * time.Second
)

// clear waits until a message to a contact may be sent, or says for how long it
// has to be put off. Without a delay, done must be told the outcome of the
// call, or errNotCalled. turned tells that the message waited for its turn.
func (o *outgoing) clear(ctx context.Context, contactID string) (done func(error), put *delay, turned bool, err error) {
	// Those that need nobody's permission come first, so that a lane full of
	// messages that cannot go is put off without wearing the limits down.
	if put := o.obstacle(ctx); put != nil {
		return nil, put, false, nil
	}
	put, turned, err = o.turn(ctx)
	if put != nil || err != nil {
		return nil, put, turned, err
	}
	if o.pair != nil {
		// One contact is one customer, whatever their addresses are: an address
		// belongs to one contact only.
		wait, err := o.store.Throttle(ctx, "pair/"+o.ID+"/"+contactID, *o.pair)
		if err != nil {
			return nil, nil, turned, err
		}
		if wait > 0 {
			return nil, &delay{waitPair, spread(wait)}, turned, nil
		}
	}
	if put := o.obstacle(ctx); put != nil {
		return nil, put, turned, nil
	}
	done, err = o.breaker.Allow()
	if err != nil {
		return nil, o.tripped(), turned, nil
	}
	return done, nil, turned, nil
}

// obstacle returns what stands in the way for some time: a hold, or an open
// circuit breaker.
func (o *outgoing) obstacle(ctx context.Context) *delay {
	if h := o.held(ctx); h != nil && !h.Fail {
		return &delay{waitHold, spread(h.Until.Sub(o.store.Now()))}
	}
	if o.breaker.State() == gobreaker.StateOpen {
		return o.tripped()
	}
	return nil
}

// tripped is the delay of a message that the breaker lets not through: until it
// half opens, or until the one that was let through has its answer.
func (o *outgoing) tripped() *delay {
	left := time.Until(time.Unix(0, o.openedUntil.Load()))
	if o.breaker.State() != gobreaker.StateOpen || left <= 0 {
		left = min(probeWait, o.openFor)
	}
	return &delay{waitBreaker, left + rand.N(max(left/2, time.Millisecond))}
}

// turn waits for the sender's shared limit. In each process one message asks at
// a time, so that they do not all wake for the same permission.
func (o *outgoing) turn(ctx context.Context) (put *delay, turned bool, err error) {
	if o.limit == nil {
		return nil, false, nil
	}
	select {
	case o.asks <- struct{}{}:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	defer func() { <-o.asks }()
	for began := time.Now(); ; {
		wait, err := o.store.Throttle(ctx, "sender/"+o.ID, *o.limit)
		if wait == 0 || err != nil {
			return nil, turned, err
		}
		if time.Since(began)+wait > longestTurn {
			return &delay{waitThrottle, spread(wait + time.Second)}, turned, nil
		}
		turned = true
		if err := pause(ctx, wait); err != nil {
			return nil, turned, err
		}
	}
}

// pause waits, or returns the context's error if it ends before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// refused says why a message surely would not be taken, by what the provider
// has told of its template or of the account; "" when nothing speaks against
// it.
func (o *outgoing) refused(ctx context.Context, out conversations.Outbound) (conversations.FailureReason, string) {
	name, language := "", ""
	if t, ok := o.provider.(providers.Templater); ok {
		name, language = t.Template(out)
	}
	if name == "" && !out.Template {
		return "", ""
	}
	now := o.store.Now()
	for _, n := range o.known(ctx).Notices {
		if n.Standing != conversations.StandingUnusable || n.Until != nil && !now.Before(*n.Until) {
			continue
		}
		switch {
		case n.Subject == conversations.NoticeAccount:
			return conversations.FailureAccount, n.Word
		case n.Subject == conversations.NoticeTemplate && name != "" && n.Name == name && (n.Language == "" || n.Language == language):
			return conversations.FailureTemplate, n.Word
		}
	}
	return "", ""
}
