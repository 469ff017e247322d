package meta

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"paythread/simulator/faults"
)

// What one delivery holds at most.
const (
	mostUpdates = 1000
	longestPost = 3 << 20 // bytes
)

// boxKey is where webhooks go, and what signs them.
type boxKey struct{ url, secret string }

// box gathers the updates for one address.
type box struct{ updates []update }

// update is one change, before it is put into an envelope.
type update struct {
	waba   string
	at     int64 // entry[].time; 0 for messages
	change change
	taken  func()
}

// collect puts an update into the box of its address. The first one of a box sets
// the time at which it is posted; a full box goes at once.
func (s *Simulator) collect(to boxKey, u update, wait time.Duration) {
	s.mu.Lock()
	b := s.boxes[to]
	if b == nil {
		b = &box{}
		s.boxes[to] = b
	}
	b.updates = append(b.updates, u)
	count := len(b.updates)
	s.mu.Unlock()
	switch count {
	case 1:
		s.courier.Go(func(ctx context.Context) {
			if faults.Wait(ctx, wait) {
				s.empty(ctx, to)
			}
		})
	case mostUpdates:
		s.courier.Go(func(ctx context.Context) { s.empty(ctx, to) })
	}
}

// empty posts what a box holds.
func (s *Simulator) empty(ctx context.Context, to boxKey) {
	s.mu.Lock()
	b := s.boxes[to]
	delete(s.boxes, to)
	s.mu.Unlock()
	if b == nil {
		return // it was full, and went before its time
	}
	for chunk := range slices.Chunk(b.updates, mostUpdates) {
		s.postBatch(ctx, to, chunk)
	}
}

// postBatch posts updates in one delivery, or in as many as their size asks for.
func (s *Simulator) postBatch(ctx context.Context, to boxKey, updates []update) {
	s.mu.Lock()
	s.batches++
	spoil := s.habits.SpoilEvery > 0 && s.batches%s.habits.SpoilEvery == 0
	s.mu.Unlock()
	e := bundle(updates)
	if spoil {
		e.spoil()
	}
	body := encode(e)
	if len(body) > longestPost && len(updates) > 1 {
		half := len(updates) / 2
		s.postBatch(ctx, to, updates[:half])
		s.postBatch(ctx, to, updates[half:])
		return
	}
	s.deliverBody(ctx, to, body, func() {
		for _, u := range updates {
			if u.taken != nil {
				u.taken()
			}
		}
	})
}

// bundle puts updates into one envelope: an entry for each account and time, in
// it a change for each number and kind, in that all messages or statuses.
func bundle(updates []update) envelope {
	e := envelope{Object: "whatsapp_business_account"}
	for _, u := range updates {
		i := slices.IndexFunc(e.Entry, func(en entry) bool { return en.ID == u.waba && en.Time == u.at })
		if i < 0 {
			i = len(e.Entry)
			e.Entry = append(e.Entry, entry{ID: u.waba, Time: u.at})
		}
		e.Entry[i].add(u.change)
	}
	return e
}

// add puts a change into an entry, or into a change of the same kind there. The
// given one stays as it is: it may be posted again.
func (en *entry) add(c change) {
	v, ok := c.Value.(*value)
	for i := range en.Changes {
		if old, is := en.Changes[i].Value.(*value); ok && is && old.joins(v) && en.Changes[i].Field == c.Field {
			old.Messages = append(old.Messages, v.Messages...)
			old.Statuses = append(old.Statuses, v.Statuses...)
			for _, contact := range v.Contacts {
				if !slices.Contains(old.Contacts, contact) {
					old.Contacts = append(old.Contacts, contact)
				}
			}
			return
		}
	}
	if ok {
		own := *v
		own.Messages, own.Statuses, own.Contacts = slices.Clone(v.Messages), slices.Clone(v.Statuses), slices.Clone(v.Contacts)
		c.Value = &own
	}
	en.Changes = append(en.Changes, c)
}

// joins says whether two values are messages, or statuses, of one number.
func (v *value) joins(other *value) bool {
	return v.Metadata == other.Metadata &&
		((len(v.Messages) > 0 && len(other.Messages) > 0) || (len(v.Statuses) > 0 && len(other.Statuses) > 0))
}

// spoil puts an element that cannot be read beside the first change: Meta would
// redeliver the whole batch to whoever answers anything but 200.
func (e *envelope) spoil() {
	if len(e.Entry) == 0 {
		return
	}
	bad := change{json.RawMessage(`{"messaging_product":"whatsapp","metadata":{"display_phone_number":7,"phone_number_id":null},` +
		`"messages":[{"id":7,"from":{},"timestamp":[],"type":"text","text":"no object"}]}`), fieldMessages}
	e.Entry[0].Changes = slices.Insert(e.Entry[0].Changes, 0, bad)
}

// Batch is a delivery of many updates, for Simulator.SendBatch.
type Batch struct {
	Number  string // the phone number id whose webhook gets it
	Updates int    // texts, each from a customer of its own
	Bytes   int    // the size that the texts are grown to; 0 for short ones
	Spoil   bool   // with an element that cannot be read
	Twice   bool   // with the first message a second time, at the end
}

// Sent is what became of a batch.
type Sent struct {
	Status int      `json:"status"` // of the first delivery; 0 for no answer
	Bytes  int      `json:"bytes"`
	IDs    []string `json:"ids"` // of the messages
}

// SendBatch posts one delivery with texts of many customers to a number and to
// all others with the same webhook, in turn. It answers once it was posted; what
// is not taken with 200 is posted again on Meta's schedule.
func (s *Simulator) SendBatch(ctx context.Context, b Batch) (Sent, error) {
	i := slices.IndexFunc(s.cfg.Numbers, func(n Number) bool { return n.PhoneNumberID == b.Number && n.WebhookURL != "" })
	if i < 0 {
		return Sent{}, ErrNoSuchNumber
	}
	to := s.destination(&s.cfg.Numbers[i])
	var numbers []*Number
	for j := range s.cfg.Numbers {
		if n := &s.cfg.Numbers[j]; s.destination(n) == to {
			numbers = append(numbers, n)
		}
	}
	sent := Sent{IDs: []string{}}
	var updates []update
	for j := range b.Updates {
		n := numbers[j%len(numbers)]
		handset := s.phones.Handset(batchCustomer(j))
		in := s.message(n, handset, Said{ID: NewID(), Text: "batch"})
		s.remember(in.ID, pair{n.PhoneNumberID, handset.E164}, s.cfg.Now())
		sent.IDs = append(sent.IDs, in.ID)
		v := s.about(n, &value{Contacts: []contact{s.contactOf(n, handset)}, Messages: []inboundMessage{in}})
		updates = append(updates, update{waba: n.WABAID, change: change{v, fieldMessages}})
	}
	if b.Twice {
		updates = append(updates, updates[0])
	}
	e := bundle(updates)
	if b.Spoil {
		e.spoil()
	}
	body := encode(e)
	if more := (b.Bytes - len(body)) / max(1, len(updates)); more > 0 {
		for _, u := range updates {
			for _, m := range u.change.Value.(*value).Messages {
				m.Text.Body = "batch" + strings.Repeat("x", more)
			}
		}
		body = encode(e) // the texts are shared with the envelope
	}
	sent.Bytes = len(body)
	if sent.Status = s.post(ctx, to, body); sent.Status != http.StatusOK {
		s.courier.Go(func(ctx context.Context) { s.redeliver(ctx, to, body, nil) })
	}
	return sent, nil
}
