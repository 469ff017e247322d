package conversations

import (
	"container/list"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"
)

// lru is a bounded map: the least recently used falls out. Safe for
// concurrent use.
type lru[V any] struct {
	mu    sync.Mutex
	size  int
	order *list.List // of *lruItem[V], newest first
	items map[string]*list.Element
}

type lruItem[V any] struct {
	key   string
	value V
}

func newLRU[V any](size int) *lru[V] {
	return &lru[V]{size: size, order: list.New(), items: make(map[string]*list.Element)}
}

func (c *lru[V]) get(key string) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[key]
	if !ok {
		var zero V
		return zero, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*lruItem[V]).value, true
}

func (c *lru[V]) put(key string, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[key]; ok {
		e.Value.(*lruItem[V]).value = value
		c.order.MoveToFront(e)
		return
	}
	c.items[key] = c.order.PushFront(&lruItem[V]{key: key, value: value})
	if c.order.Len() > c.size {
		oldest := c.order.Back()
		c.order.Remove(oldest)
		delete(c.items, oldest.Value.(*lruItem[V]).key)
	}
}

// contactCache keeps what this process last saw of contacts. It may be old: a
// commit against an old version conflicts and brings the present one.
type contactCache struct{ lru *lru[*knownContact] }

func newContactCache(size int) *contactCache { return &contactCache{lru: newLRU[*knownContact](size)} }

func (c *contactCache) get(id string) *knownContact {
	k, _ := c.lru.get(id)
	return k
}

// maxKnownDocuments bounds how many documents of a contact are kept in memory
// and shown in a conflict.
const maxKnownDocuments = 6

// put keeps what is known of a contact. What is known at the same version is
// added to; of too many documents those are kept that the next event is most
// likely about.
func (c *contactCache) put(k *knownContact) {
	if before, ok := c.lru.get(k.id); ok && before.version == k.version {
		documents := maps.Clone(before.documents)
		if documents == nil {
			documents = map[string]document{}
		}
		maps.Copy(documents, k.documents)
		k = &knownContact{id: k.id, version: k.version, state: k.state, documents: documents}
	}
	if len(k.documents) > maxKnownDocuments {
		k = &knownContact{id: k.id, version: k.version, state: k.state, documents: k.likely()}
	}
	c.lru.put(k.id, k)
}

// likely returns the documents that the next event is most likely about: what
// is at the head of a lane and goes out next, the request that a customer
// means, those that run, and the messages whose statuses are still coming.
func (k *knownContact) likely() map[string]document {
	var c Contact
	if json.Unmarshal([]byte(k.state), &c) != nil {
		return nil // whoever applies an event to it will say so
	}
	likely := map[string]document{}
	keep := func(id string) {
		if text, ok := k.documents[id]; ok && len(likely) < maxKnownDocuments {
			likely[id] = text
		}
	}
	for _, channel := range Channels {
		keep(c.Lanes[channel].Current)
	}
	keep(c.Latest)
	if n := len(c.Requests); n > 0 {
		keep(c.Requests[n-1])
	}
	for _, m := range slices.Backward(c.Recent) {
		keep(m.MessageID)
	}
	for _, id := range slices.Backward(c.Requests) {
		keep(id)
	}
	return likely
}

// claimCache keeps which contact owns an address. Claims never change, but are
// renewed in Redis now and then, so that those in use do not run out there.
type claimCache struct{ lru *lru[claim] }

type claim struct {
	contactID string
	renewed   time.Time
}

func newClaimCache(size int) *claimCache { return &claimCache{lru: newLRU[claim](size)} }
