package conversations

import (
	"maps"
	"slices"
	"sync"
)

// WorkLane tells how much there is to do in one lane of an OutboxReader: one
// sender's messages, or one merchant's other work.
type WorkLane struct {
	SenderID   string
	MerchantID string // empty for messages
	Waiting    int
	Working    int
}

// laneKey names a lane: a sender's messages, or a merchant's other work. Money
// waits behind no message, and behind no other merchant's platform.
type laneKey struct {
	messages bool
	id       string // the sender's or the merchant's
}

func laneOf(e OutboxEntry) laneKey {
	if e.Kind == OutboxMessage {
		return laneKey{messages: true, id: e.SenderID}
	}
	return laneKey{id: e.MerchantID}
}

// workLane is what waits and what is worked of one kind.
type workLane struct {
	waiting  []taken
	working  int
	overflow int // entries that did not fit since the lane was empty, less those that came to fit
}

// workLanes hand entries to workers: in each lane in the order of arrival, a
// bounded number at once. Lanes share no workers: some that all hang would
// otherwise leave the rest none.
type workLanes struct {
	mu      sync.Mutex
	lanes   map[laneKey]*workLane
	senders int // most workers of a lane of messages
	others  int // most workers of a lane of other work
	length  int // most entries that wait in one
	closed  bool
	work    func(taken)
	running sync.WaitGroup
}

func (l *workLanes) start(senders, others, length int, work func(taken)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lanes, l.senders, l.others, l.length, l.work = map[laneKey]*workLane{}, senders, others, length, work
}

// put adds an entry to its lane, or says by how many entries there are too
// many.
func (l *workLanes) put(t taken) (fits bool, overflow int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := laneOf(t.entry)
	lane := l.lanes[key]
	if lane == nil {
		lane = &workLane{}
		l.lanes[key] = lane
	}
	if len(lane.waiting) >= l.length {
		lane.overflow++
		return false, lane.overflow
	}
	lane.overflow = max(0, lane.overflow-1)
	lane.waiting = append(lane.waiting, t)
	l.grow(key, lane)
	return true, 0
}

// grow begins a further worker of a lane if there is work and room for one. The
// caller holds the lock.
func (l *workLanes) grow(key laneKey, lane *workLane) {
	most := l.others
	if key.messages {
		most = l.senders
	}
	if l.closed || len(lane.waiting) == 0 || lane.working >= max(most, 1) {
		return
	}
	lane.working++
	l.running.Go(func() { l.run(key, lane) })
}

// run works a lane until nothing waits in it.
func (l *workLanes) run(key laneKey, lane *workLane) {
	for {
		t, ok := l.next(key, lane)
		if !ok {
			return
		}
		l.work(t)
	}
}

// next takes the entry that has waited longest, or ends the worker.
func (l *workLanes) next(key laneKey, lane *workLane) (taken, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(lane.waiting) > 0 && !l.closed {
		t := lane.waiting[0]
		lane.waiting[0] = taken{} // let go of its text
		lane.waiting = lane.waiting[1:]
		l.grow(key, lane)
		return t, true
	}
	lane.working--
	if lane.working == 0 {
		delete(l.lanes, key)
	}
	return taken{}, false
}

// close ends the lanes: what was begun is finished, what waits is returned.
func (l *workLanes) close() []taken {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var waiting []taken
	for _, lane := range l.lanes {
		waiting = append(waiting, lane.waiting...)
		lane.waiting = nil
	}
	return waiting
}

func (l *workLanes) depths() []WorkLane {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []WorkLane
	for key, lane := range l.lanes {
		w := WorkLane{MerchantID: key.id, Waiting: len(lane.waiting), Working: lane.working}
		if key.messages {
			w.SenderID, w.MerchantID = key.id, ""
		}
		out = append(out, w)
	}
	return out
}

// heldEntries are the outbox entries that a process has taken and not yet
// finished, by partition: the claims that it renews.
type heldEntries struct {
	mu  sync.Mutex
	ids map[int]map[string]struct{}
}

// add notes an entry; false: it is held already.
func (h *heldEntries) add(p int, id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.ids[p][id]; ok {
		return false
	}
	if h.ids == nil {
		h.ids = map[int]map[string]struct{}{}
	}
	if h.ids[p] == nil {
		h.ids[p] = map[string]struct{}{}
	}
	h.ids[p][id] = struct{}{}
	return true
}

func (h *heldEntries) release(p int, id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.ids[p], id)
}

func (h *heldEntries) all() map[int][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[int][]string{}
	for p, ids := range h.ids {
		if len(ids) > 0 {
			out[p] = slices.Collect(maps.Keys(ids))
		}
	}
	return out
}
