package main

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"paythread/conversations/redistest"
)

// TestStreamsOfOneCallerAreBounded: a further stream is refused in words,
// also when many come at once, and room is made by each that ends.
func TestStreamsOfOneCallerAreBounded(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	one := streamCaller{id: sha256.Sum256([]byte("one")), most: 3}
	server := startStreams(t, s, streamServerOptions{caller: one, keep: true})
	url := server.url + "/requests/" + r.ID
	opened := make(chan *listener, 12)
	for range cap(opened) { // of those at once, whoever is not refused in words is cut
		go func() {
			l, err := tryListen(url, "")
			if err != nil {
				l = nil
			}
			opened <- l
		}()
	}
	var held []*listener
	for range cap(opened) {
		if l := <-opened; l != nil {
			t.Cleanup(l.leave)
			held = append(held, l)
		}
	}
	eventually(t, "as many streams as are allowed", func() bool { return server.count() == one.most })
	if len(held) != one.most {
		t.Fatalf("%d streams were opened, want %d", len(held), one.most)
	}
	if server.add(&stream{hub: server.streams, requestID: r.ID, caller: one}) { // as one that came at the same moment
		t.Error("one too many was taken")
	}
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusTooManyRequests || answer.Header.Get("Content-Type") != problemType || answer.Header.Get("Retry-After") == "" {
		t.Errorf("one too many is answered %d %v", answer.StatusCode, answer.Header)
	}
	held[0].leave()
	eventually(t, "room for another stream", func() bool { return !server.full(one) })
	l := listen(t, url, "")
	l.expect(t, 1)
	for _, l := range append(held[1:], l) {
		l.leave()
	}
	eventually(t, "nothing is counted any more", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		return len(server.byCaller) == 0
	})
}

// TestStreamsEndWithTheirRight: what is taken away ends open streams, and those
// that were let in at the same moment.
func TestStreamsEndWithTheirRight(t *testing.T) {
	t.Parallel()
	s := streamStore(t, redistest.Shared(t).Addr)
	r := newRequest(t, s, "acme", "1042")
	var revoked atomic.Bool
	server := startStreams(t, s, streamServerOptions{caller: streamCaller{most: 10, still: func() bool { return !revoked.Load() }}})
	l := listen(t, server.url+"/requests/"+r.ID, "")
	l.expect(t, 1)
	server.recheck()
	extendTimes(t, s, r, 1)
	l.expect(t, 2) // nothing was taken away
	revoked.Store(true)
	server.recheck()
	l.expectEnd(t)
	if late, err := tryListen(server.url+"/requests/"+r.ID, ""); err == nil {
		late.expectEnd(t)
		t.Error("a stream began whose right had gone")
	}
	eventually(t, "no stream", func() bool { return server.count() == 0 })
}

// TestReloadEndsStreamsOfRemovedKeys: an API key that is taken out of the
// configuration ends its streams, and no others; so does a merchant.
func TestReloadEndsStreamsOfRemovedKeys(t *testing.T) {
	t.Parallel()
	b := newReloadBench(t)
	const going, zeta = "going-key-with-24-characters-or-more", "zeta-key-with-24-characters-or-more"
	keys := "api_keys: [{name: oms, secret: " + demoAPIKey + "}]"
	stays := b.text
	b.text = strings.Replace(b.text, keys, "api_keys: [{name: oms, secret: "+demoAPIKey+"}, {name: going, secret: "+going+"}]", 1) + benchSecond
	b.change()
	if err := b.app.Start(); err != nil {
		t.Fatal(err)
	}
	follow := func(key string) *listener {
		t.Helper()
		l, err := b.follow(key)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.leave)
		return l
	}
	kept, removed, moved := follow(demoAPIKey), follow(going), follow(zeta)
	b.change() // nothing
	if got := b.openStreams(); got != 3 {
		t.Fatalf("%d streams after a reload that changed nothing, want 3", got)
	}
	b.text = strings.Replace(stays, keys, "api_keys: [{name: oms, secret: "+demoAPIKey+"}, {name: moved, secret: "+zeta+"}]", 1)
	b.change() // the second merchant's key is now one of the first
	if got := b.openStreams(); got != 1 {
		t.Errorf("%d streams after the reload, want 1", got)
	}
	removed.expectEnd(t)
	moved.expectEnd(t)
	if l, err := b.follow(going); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("its client comes back and gets %v, %v", l, err)
	}
	b.app.streams.Close()
	kept.expectEnd(t)
}

// follow opens a stream of all of a merchant's events.
func (b *reloadBench) follow(key string) (*listener, error) {
	return tryListenAs("http://"+b.app.Addr()+"/v1/events", "", key)
}

// openStreams counts those that were not cut.
func (b *reloadBench) openStreams() int {
	b.app.streams.mu.Lock()
	defer b.app.streams.mu.Unlock()
	open := 0
	for st := range b.app.streams.all {
		if !st.gone() {
			open++
		}
	}
	return open
}

// TestStreamsAreBoundByTheirCall: the API hands over who streams, how many
// streams they may have, and how to tell that they still may.
func TestStreamsAreBoundByTheirCall(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	b.config.Events = EventsConfig{StreamsPerToken: 2, StreamsPerKey: 3}
	id := b.create("1042").text("id")
	token, _ := b.session("1042")
	for _, call := range []apiCall{
		{token: token, header: map[string]string{"Origin": acmeOrigin}}, {token: acmeKey},
		{header: map[string]string{"Authorization": "bEARER   " + token}}, // the same token, written otherwise
	} {
		call.method, call.path = "GET", "/v1/payment-requests/"+id+"/events"
		b.call(call).want(t, 200)
	}
	agent, server, again := b.streams.options[0].Caller, b.streams.options[1].Caller, b.streams.options[2].Caller
	if agent.most != 2 || server.most != 3 || agent.id == server.id || agent.id != again.id {
		t.Errorf("callers %+v, %+v and %+v", agent, server, again)
	}
	acme := b.config.Merchants[0]
	changed := func(change func(*MerchantConfig)) *Config {
		c, m := *b.config, *acme
		change(&m)
		c.Merchants = append([]*MerchantConfig{&m}, b.config.Merchants[1:]...)
		c.index()
		return &c
	}
	before := b.config
	for name, c := range map[string]struct {
		config        *Config
		agent, server bool
	}{
		"nothing": {before, true, true},
		"key":     {changed(func(m *MerchantConfig) { m.APIKeys = nil }), true, false},
		"origin":  {changed(func(m *MerchantConfig) { m.AllowedOrigins = nil }), false, true},
		"merchant": {func() *Config {
			c := *before
			c.Merchants = before.Merchants[1:]
			c.index()
			return &c
		}(), false, false},
	} {
		b.config = c.config
		if agent.in() != c.agent || server.in() != c.server {
			t.Errorf("%s changed: the agent may %v, the server %v; want %v and %v", name, agent.in(), server.in(), c.agent, c.server)
		}
	}
	b.config = before
	b.sessions.secrets = func() [][]byte { return [][]byte{[]byte(strings.Repeat("z", 32))} }
	if agent.in() || !server.in() {
		t.Error("a token goes on whose key was taken away")
	}
	b.sessions.secrets, b.sessions.now = func() [][]byte { return [][]byte{[]byte(strings.Repeat("k", 32))} }, func() time.Time { return time.Now().Add(time.Hour) }
	if agent.in() {
		t.Error("a token goes on that has run out")
	}
}
