package redistest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Proxy stands between clients and one Redis server and can hold a named
// command on its way there or its answer on the way back. It never changes or
// reorders a byte. While a command is held, what follows it on the same
// connection waits, as on a slow line; with After only the answers wait.
// Other connections go on.
//
// It reads requests that are arrays of bulk strings, which is what clients
// send, and answers of RESP2 and RESP3. A connection that subscribes, monitors,
// replicates, turns its replies off or speaks anything else is passed through
// from there on, without holds.
type Proxy struct {
	upstream string
	listener net.Listener
	wait     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	holds  []*Held
	conns  map[*proxyConn]struct{}
}

// NewProxy starts a proxy before upstream (host:port) on a loopback port of its
// own. It ends with the test, and every hold and connection with it. The
// server may be killed and restarted behind it.
func NewProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	p, err := listenProxy(upstream)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(p.close)
	return p
}

func listenProxy(upstream string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &Proxy{upstream: upstream, listener: listener, conns: map[*proxyConn]struct{}{}}
	p.wait.Go(p.accept)
	return p, nil
}

// Addr is the address for clients, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// URL is the address for clients as redis.ParseURL takes it.
func (p *Proxy) URL() string {
	return (&url.URL{Scheme: "redis", Host: p.Addr()}).String()
}

func (p *Proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Hold arms a hold: the first command from now on for which match returns true
// is held. match gets the command's name and arguments as sent (the name in
// any case), is called for one command at a time, and must not keep them.
//
// With After, an answer that says the command has not run (NOSCRIPT, MOVED,
// ASK, TRYAGAIN, CLUSTERDOWN, LOADING, QUEUED in a transaction) passes, and the
// hold waits for the repetition. With Before the first EVALSHA of a script that
// the server does not know yet is held like any other.
func (p *Proxy) Hold(match func(command []string) bool, when When) *Held {
	h := newHeld(match, when)
	p.arm(h)
	return h
}

func (p *Proxy) arm(h *Held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds = append(slices.DeleteFunc(p.holds, (*Held).isOver), h)
}

// take finds the hold that wants the command, if any does.
func (p *Proxy) take(command []string) (*Held, claim) {
	p.mu.Lock()
	holds := slices.Clone(p.holds)
	p.mu.Unlock()
	for _, h := range holds {
		if wanted := h.take(command); wanted != claimNone {
			return h, wanted
		}
	}
	return nil, claimNone
}

func (p *Proxy) close() {
	_ = p.listener.Close() // it was open; accept ends either way
	p.mu.Lock()
	p.closed = true
	holds, conns := slices.Clone(p.holds), p.conns
	p.conns = nil
	p.mu.Unlock()
	for c := range conns {
		c.cut()
	}
	for _, h := range holds {
		h.Drop()
	}
	p.wait.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wait.Go(func() { p.serve(client) })
	}
}

// serve relays one client's connection until either side ends it.
func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		_ = client.Close() // what a dead server's client would see
		return
	}
	c := &proxyConn{proxy: p, client: client, server: server}
	if !p.add(c) {
		c.cut()
		return
	}
	p.wait.Go(c.relayCommands)
	c.relayReplies()
	c.end()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

func (p *Proxy) add(c *proxyConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

// proxyConn is one client's connection and its counterpart to the server.
type proxyConn struct {
	proxy          *Proxy
	client, server net.Conn

	mu      sync.Mutex
	ended   bool
	pending []expected // commands sent whose answers have not come, oldest first
}

// expected is an answer to come.
type expected struct {
	held *Held // the hold on it, or nil
	last bool  // no answer can be told from another after this one
}

// relayCommands passes on what the client sends.
func (c *proxyConn) relayCommands() {
	in := bufio.NewReader(c.client)
	for {
		raw, command, err := readCommand(in)
		if errors.Is(err, errNotArray) {
			c.relayUnread(in)
			return
		}
		if err != nil {
			c.finishSending(err)
			return
		}
		if len(command) > 0 && endsCounting(command) {
			if c.expect(expected{last: true}) && c.send(raw) {
				c.copyToServer(in)
			}
			return
		}
		if len(command) > 0 && !c.admit(command) {
			c.cut()
			return
		}
		if !c.send(raw) {
			return
		}
	}
}

// admit holds the command if a hold wants it so, and notes its answer. It
// returns false when the command must not be sent.
func (c *proxyConn) admit(command []string) bool {
	held, wanted := c.proxy.take(command)
	if wanted == claimNow {
		if !held.hold(c) {
			return false
		}
		held = nil
	}
	return c.expect(expected{held: held})
}

// expect notes an answer to come, before its command is sent.
func (c *proxyConn) expect(e expected) bool {
	c.mu.Lock()
	ended := c.ended
	if !ended {
		c.pending = append(c.pending, e)
	}
	c.mu.Unlock()
	if ended && e.held != nil {
		e.held.rearm()
	}
	return !ended
}

// answered takes the expectation of the oldest answer to come.
func (c *proxyConn) answered() expected {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 {
		return expected{}
	}
	e := c.pending[0]
	if !e.last {
		c.pending = c.pending[1:]
	}
	return e
}

// uncounted says whether the next answer is beyond counting.
func (c *proxyConn) uncounted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending) > 0 && c.pending[0].last
}

// relayReplies passes on what the server answers.
func (c *proxyConn) relayReplies() {
	in := bufio.NewReader(c.server)
	for {
		// Wait for a byte first: what is pending may change until it is there.
		if _, err := in.Peek(1); err != nil {
			return
		}
		if c.uncounted() {
			_, _ = io.Copy(c.client, in) // either side's end is the end of both
			return
		}
		raw, err := readReply(in)
		if err != nil {
			return
		}
		if raw[0] != '>' && !c.holdReply(raw) {
			return
		}
		if _, err := c.client.Write(raw); err != nil {
			return
		}
	}
}

// holdReply holds an answer if a hold wants it, and says whether to go on.
func (c *proxyConn) holdReply(raw []byte) bool {
	held := c.answered().held
	if held == nil {
		return true
	}
	if hasNotRun(raw) {
		held.rearm()
		return true
	}
	return held.hold(c)
}

// send passes bytes to the server. When that fails both sides are ended.
func (c *proxyConn) send(raw []byte) bool {
	if _, err := c.server.Write(raw); err != nil {
		c.cut()
		return false
	}
	return true
}

// relayUnread passes the rest of a connection on whose words are not known.
func (c *proxyConn) relayUnread(in *bufio.Reader) {
	if c.expect(expected{last: true}) {
		c.copyToServer(in)
	}
}

func (c *proxyConn) copyToServer(in *bufio.Reader) {
	_, err := io.Copy(c.server, in)
	if err == nil {
		err = io.EOF
	}
	c.finishSending(err)
}

// finishSending ends the way to the server. After a proper end of the client's
// words the answers may still come.
func (c *proxyConn) finishSending(err error) {
	if errors.Is(err, io.EOF) {
		if half, ok := c.server.(*net.TCPConn); ok && half.CloseWrite() == nil {
			return
		}
	}
	c.cut()
}

// cut closes both sides.
func (c *proxyConn) cut() {
	_ = c.client.Close() // closed twice is closed
	_ = c.server.Close()
}

// end closes both sides and rearms the holds whose answers never came.
func (c *proxyConn) end() {
	c.cut()
	c.mu.Lock()
	c.ended = true
	pending := c.pending
	c.pending = nil
	c.mu.Unlock()
	for _, e := range pending {
		if e.held != nil {
			e.held.rearm()
		}
	}
}

// endsCounting says whether a command's answers, or those after it, can no
// longer be told apart by counting.
func endsCounting(command []string) bool {
	switch strings.ToUpper(command[0]) {
	case "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE",
		"MONITOR", "SYNC", "PSYNC":
		return true
	case "CLIENT":
		return len(command) > 1 && strings.EqualFold(command[1], "REPLY")
	}
	return false
}

// notRun are the beginnings of answers which say that the command has not run
// and will be sent again, here or elsewhere, or runs later.
var notRun = [][]byte{
	[]byte("-NOSCRIPT "), []byte("-MOVED "), []byte("-ASK "), []byte("-TRYAGAIN "),
	[]byte("-CLUSTERDOWN "), []byte("-LOADING "), []byte("+QUEUED\r\n"),
}

func hasNotRun(raw []byte) bool {
	return slices.ContainsFunc(notRun, func(start []byte) bool { return bytes.HasPrefix(raw, start) })
}
