package conversations

import (
	"container/list"
	"sync"
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

func (c *contactCache) put(k *knownContact) {
	if len(k.documents) > maxKnownDocuments {
		k = &knownContact{id: k.id, version: k.version, state: k.state}
	}
	c.lru.put(k.id, k)
}

// claimCache keeps which contact owns an address; claims never change.
type claimCache struct{ lru *lru[string] }

func newClaimCache(size int) *claimCache { return &claimCache{lru: newLRU[string](size)} }
