package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"paythread/conversations/redistest"
	"paythread/simulator"
	"paythread/simulator/cybersource"
)

// A gateway may be stopped between its commit and its call, by a debugger, a
// frozen virtual machine or a swapping host, and go on hours later as if nothing
// had been. These tests stop a process there with SIGSTOP and wake it when others
// have done its work.

// slowLine stands before the simulated CyberSource, speaks TLS, and can keep a
// connection waiting in its handshake: at that moment a caller has decided to
// send, and nothing has left.
type slowLine struct {
	url    string
	ca     string // file with the certificate to trust
	socket net.Listener
	target atomic.Pointer[url.URL]

	mu   sync.Mutex
	held *heldConn
}

// newSlowLine starts one that ends with the test. It leads nowhere before leadTo.
func newSlowLine(t *testing.T) *slowLine {
	t.Helper()
	l := &slowLine{ca: filepath.Join(t.TempDir(), "ca.pem")}
	certificate := selfSigned(t, l.ca)
	var err error
	if l.socket, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	l.url = "https://" + l.socket.Addr().String()
	transport := &http.Transport{}
	server := &http.Server{
		ReadHeaderTimeout: longestWait, ErrorLog: log.New(io.Discard, "", 0),
		Handler: &httputil.ReverseProxy{
			Transport: transport,
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(l.target.Load())
				r.Out.Host = r.In.Host // what was signed
			},
			ErrorLog: log.New(io.Discard, "", 0),
		},
	}
	server.SetKeepAlivesEnabled(false) // each call has its own connection and handshake
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}})) // ends by Close
	}()
	t.Cleanup(func() {
		l.release()
		_ = server.Close() // nobody waits for an answer any more
		<-done
		transport.CloseIdleConnections()
	})
	return l
}

// leadTo says where the simulated CyberSource is.
func (l *slowLine) leadTo(t *testing.T, to string) {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l.target.Store(target)
}

// selfSigned makes a certificate for 127.0.0.1 and writes it to a file.
func selfSigned(t *testing.T, file string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// holdNext keeps the next connection waiting until release.
func (l *slowLine) holdNext() *heldConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = &heldConn{arrived: make(chan struct{}), released: make(chan struct{})}
	return l.held
}

// release lets the held connection go on, if there is one.
func (l *slowLine) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held != nil {
		l.held.let.Do(func() { close(l.held.released) })
	}
}

// Accept implements net.Listener.
func (l *slowLine) Accept() (net.Conn, error) {
	conn, err := l.socket.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held; h != nil && h.Conn == nil {
		h.Conn = conn
		return h, nil
	}
	return conn, nil
}

// Close implements net.Listener.
func (l *slowLine) Close() error { return l.socket.Close() }

// Addr implements net.Listener.
func (l *slowLine) Addr() net.Addr { return l.socket.Addr() }

// heldConn is a connection whose first bytes are not read before it is released.
type heldConn struct {
	net.Conn
	arrived, released chan struct{}
	seen, let         sync.Once
}

// Read implements net.Conn.
func (c *heldConn) Read(p []byte) (int, error) {
	c.seen.Do(func() { close(c.arrived) })
	<-c.released
	return c.Conn.Read(p)
}

// stop freezes the process and takes it from behind the public address.
func (g *gatewayProcess) stop() {
	g.s.t.Helper()
	g.s.front.remove(g.public)
	g.s.front.cut()
	g.s.must(g.cmd.Process.Signal(syscall.SIGSTOP))
	// The signal is on its way: its threads run on until each has met it.
	var status syscall.WaitStatus
	err := error(syscall.EINTR)
	for errors.Is(err, syscall.EINTR) {
		_, err = syscall.Wait4(g.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
	}
	if g.s.must(err); !status.Stopped() {
		g.s.t.Fatalf("the gateway has the status %v, want stopped", status)
	}
}

// cut ends every connection: those to a gateway that is stopped would stay open
// without an answer.
func (f *front) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close() // it may have ended by itself
	}
}

// wake lets a frozen process go on.
func (g *gatewayProcess) wake() {
	g.s.t.Helper()
	g.s.must(g.cmd.Process.Signal(syscall.SIGCONT))
}

var workingMetric = regexp.MustCompile(`(?m)^paythread_lane_depth\{.*state="working"\} (\d+)`)

// awaitResting waits until the process works on nothing.
func (g *gatewayProcess) awaitResting() {
	g.s.t.Helper()
	g.s.await("the gateway rests", func() bool {
		text, err := g.samples("paythread_lane_depth")
		lanes := workingMetric.FindAllSubmatch(text, -1)
		return err == nil && len(lanes) > 0 && !slices.ContainsFunc(lanes, func(l [][]byte) bool { return string(l[1]) != "0" })
	})
}

// pauseStory is one place between a commit and the call that it allows.
type pauseStory struct {
	*rig
	line  *slowLine // nil: the answer of the commit waits
	first *gatewayProcess
}

// freeze lets somebody do something, and stops the first gateway when it has
// committed the event and not yet called. What it waited for goes on.
func (p *pauseStory) freeze(event string, act func()) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), longestWait)
	defer cancel()
	if p.line != nil {
		held := p.line.holdNext()
		act()
		select {
		case <-held.arrived:
		case <-ctx.Done():
			p.t.Fatalf("no call came after %s", event)
		}
		p.first.stop()
		p.line.release()
		return
	}
	held := p.store.hold(p.commitOf(event, ""), redistest.After)
	act()
	p.must(held.Wait(ctx))
	p.first.stop()
	held.Release()
}

// TestStoppedGateway: a gateway that was stopped between its commit and its
// call, and woken when others had settled what it began and gone on, charges
// nothing and refunds nothing.
func TestStoppedGateway(t *testing.T) {
	t.Parallel()
	store := aSingleRedis(t)
	for name, slow := range map[string]bool{"the commit's answer waits": false, "the call's handshake waits": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &pauseStory{}
			if slow {
				p.line = newSlowLine(t)
			}
			s := newRig(t, store, func(o *rigOptions) {
				o.World = func(_ *simulator.Config, card *cybersource.Config) {
					// No second line of defence: CyberSource refuses a repeated
					// transaction id at some processors only.
					if card.Processor = ""; p.line != nil {
						card.PublicURL = p.line.url
					}
				}
			})
			if p.rig = s; slow {
				p.line.leadTo(t, s.world.URL)
				s.env = append(s.env, "PAYTHREAD_MERCHANTS_ACME_PLATFORM_BASE_URL="+p.line.url, "SSL_CERT_FILE="+p.line.ca)
			}
			id, second := p.charge()
			p.refund(id, second)
		})
	}
}

// charge stops the gateway in a charge. The customer pays again through another
// one, then the first is woken.
func (p *pauseStory) charge() (id string, second *gatewayProcess) {
	p.t.Helper()
	p.first = p.startGateway()
	id, err := p.ask(asked{Order: "1042", Phone: demoCustomer, Channel: "sms", Amount: "149.00"})
	p.must(err)
	p.awaitEvent(id, "delivered")
	c := p.payer(demoCustomer, "sms")
	p.must(c.follow("/p/"))
	p.must(c.open())
	c.through(p.first)
	token, err := c.token(panApproved)
	p.must(err)
	var pressed sync.WaitGroup
	p.freeze("AttemptStarted", func() {
		pressed.Go(func() { _, _ = c.charge(token) }) // the customer has long gone when it is answered
	})
	second = p.startGateway()
	p.awaitLifecycle(id, "open") // it was looked for, and is not there
	again := p.payer(demoCustomer, "sms")
	p.must(again.follow("/p/"))
	p.must(again.retry())
	_, err = again.pay(panApproved)
	p.must(err)
	p.awaitLifecycle(id, "paid")
	p.first.wake()
	pressed.Wait() // the woken gateway has ended its charge
	p.awaitEvent(id, "receipt_delivered")
	r := p.request(id)
	if r.Lifecycle != "paid" || len(r.Attempts) != 2 || r.Attempts[0].State != "not_found" || r.Attempts[1].State != "captured" {
		p.t.Errorf("the request is %s with the attempts %+v, want paid by the second, and the first not found", r.Lifecycle, r.Attempts)
	}
	if made := p.charges(); len(made.Standing) != 1 || len(made.Returned) != 0 {
		p.t.Errorf("the platform has charged %v and given back %v, want one charge", made.Standing, made.Returned)
	}
	return id, second
}

// refund stops the gateway in a refund, which another one then carries out.
func (p *pauseStory) refund(id string, other *gatewayProcess) {
	p.t.Helper()
	other.kill()
	p.front.add(p.first.public)
	p.freeze("OperationStarted", func() {
		p.must(p.refundAt(p.first, id, &wantedRefund{amount: 4900, key: "once"}))
	})
	p.startGateway()
	p.awaitOperations(id, "succeeded")
	p.first.wake()
	p.first.awaitResting()
	p.awaitIdle()
	refunds := slices.DeleteFunc(p.world.CyberSource.Transactions(), func(t cybersource.Transaction) bool { return t.Kind != cybersource.KindRefund })
	if r := p.request(id); len(refunds) != 1 || r.Totals["refunded"].Value != "49.00" {
		p.t.Errorf("the platform made the refunds %v, and the totals are %v, want one of 49.00", refunds, r.Totals)
	}
}

// awaitOperations waits until every operation of a payment request is in one of
// some states.
func (s *rig) awaitOperations(id string, states ...string) {
	s.t.Helper()
	var seen []rigOperation
	s.await(fmt.Sprintf("every operation is one of %v", states), func() bool {
		seen = s.request(id).Operations
		return len(seen) > 0 && !slices.ContainsFunc(seen, func(o rigOperation) bool { return !slices.Contains(states, o.State) })
	})
}
