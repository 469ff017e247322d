package conversations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// commit is one try to write what an event makes of a contact, against the
// version that the event was applied to.
type commit struct {
	s       *Store
	p       int
	known   *knownContact
	before  State // what is known, as the event found it
	event   Event
	once    Once
	changed State
	effects Effects
	writes  writes

	names []string // KEYS
	index map[string]int
	ops   []any // the operations in ARGV
	next  *knownContact
}

// answer is what the script said. known is what the contact is now, after
// "done" and "conflict".
type answer struct {
	word  string
	value string
	known *knownContact
}

func (c *commit) run(ctx context.Context) (answer, error) {
	state, err := c.build()
	if err != nil {
		return answer{}, err
	}
	if c.changesNothing(state) {
		return answer{word: "unchanged"}, nil
	}
	dedupe, value := "0", ""
	if c.takesKey() {
		b, err := json.Marshal(first{Hash: c.once.Hash, RequestID: c.effects.RequestID, Refused: c.effects.Refused})
		if err != nil {
			return answer{}, fmt.Errorf("conversations: writing a dedupe key: %w", err)
		}
		dedupe, value = "1", string(b)
	}
	fresh := 0
	if c.writes.fresh != "" {
		fresh = c.key(c.s.keys.request(c.p, c.writes.fresh))
	}
	keep := c.s.o.Retention
	args := append([]any{
		string(c.event.Kind()), c.known.version, state, ms(keep.Money), ms(keep.Commits),
		dedupe, value, ms(keep.Dedupe), len(c.known.documents), fresh, versionAfter(c.known.version),
	}, c.ops...)
	reply, err := c.s.runCommit(ctx, c.p, c.event, c.names, args)
	if err != nil {
		return answer{}, err
	}
	return c.read(reply)
}

// versionAfter returns the version that follows one. Its number is for people;
// what makes it this commit's own is random, so that after a failover that lost
// commits nobody takes another's third version for the one that was lost.
func versionAfter(version string) string {
	number, _, _ := strings.Cut(version, ".")
	n, _ := strconv.ParseInt(number, 10, 64) // 0, or what was made here
	return strconv.FormatInt(n+1, 10) + "." + randomText(8)
}

func ms(d time.Duration) int64 { return d.Milliseconds() }

// build lists the keys and operations, and returns the contact's new state.
func (c *commit) build() (string, error) {
	s, p, id := c.s, c.p, c.known.id
	merchantID := c.changed.Contact.MerchantID
	contact, dedupe := s.keys.contact(p, id), s.keys.contact(p, id)
	if c.once.Key != "" {
		dedupe = s.keys.dedupe(p, merchantID+"/"+c.once.Key)
	}
	c.names = []string{
		contact, s.keys.commit(p, randomText(idLength)), dedupe, s.keys.outbox(p), s.keys.timers(p),
		s.keys.feed(p), s.keys.transcript(p, id), s.keys.requests(p, merchantID),
	}
	c.index = map[string]int{}
	for _, d := range c.known.ids() {
		c.key(s.documentKey(p, d))
	}
	state, err := c.text(id, c.known.state, c.changed.Contact, &Contact{})
	if err != nil {
		return "", fmt.Errorf("conversations: writing a contact: %w", err)
	}
	c.next = &knownContact{id: id, state: state, documents: maps.Clone(c.known.documents)}
	if err := c.buildDocuments(); err != nil {
		return "", err
	}
	c.buildUnsettled()
	c.buildEffects()
	return state, c.buildEvents(merchantID)
}

// text returns what is to be written of a document. blank is an empty one.
func (c *commit) text(id string, was document, thing, blank any) (document, error) {
	b, err := json.Marshal(thing)
	if err != nil || !c.before.newer[id] {
		return string(b), err
	}
	return withNewer(was, b, blank)
}

// key returns the place of a key in KEYS, adding it.
func (c *commit) key(name string) int {
	if i, ok := c.index[name]; ok {
		return i
	}
	c.names = append(c.names, name)
	c.index[name] = len(c.names)
	return len(c.names)
}

func (c *commit) do(op ...any) { c.ops = append(c.ops, op...) }

func (c *commit) buildDocuments() error {
	keep := c.s.o.Retention
	write := func(id string, thing, blank any, lifetime time.Duration) error {
		text, err := c.text(id, c.known.documents[id], thing, blank)
		if err != nil {
			return fmt.Errorf("conversations: writing %s: %w", id, err)
		}
		if text != c.known.documents[id] {
			c.do("set", c.key(c.s.documentKey(c.p, id)), text, ms(lifetime))
			c.next.documents[id] = text
		}
		return nil
	}
	for id, r := range c.changed.Requests {
		if err := write(id, r, &PaymentRequest{}, keep.Money); err != nil {
			return err
		}
		if c.known.documents[id] == "" {
			c.do("listed", id, r.CreatedAt.UnixMilli())
		}
	}
	var talked time.Time // the newest of the messages that are new
	for id, m := range c.changed.Messages {
		if err := write(id, m, &Message{}, keep.Chats); err != nil {
			return err
		}
		if c.known.documents[id] == "" {
			c.do("said", id, m.At.UnixMilli(), c.s.Now().Add(-keep.Chats).UnixMilli(), ms(keep.Chats))
			talked = later(talked, m.At)
		}
	}
	if !talked.IsZero() {
		list := c.key(c.s.keys.talks(c.p, c.changed.Contact.MerchantID))
		c.do("talked", list, c.known.id, talked.UnixMilli(), c.s.Now().Add(-keep.Chats).UnixMilli(), ms(keep.Chats))
	}
	for code, id := range c.writes.links {
		c.do("set", c.key(c.s.keys.link(c.p, code)), id, ms(keep.Money))
	}
	return nil
}

func (c *commit) buildEffects() {
	for _, id := range c.effects.Acks {
		c.do("ack", id)
	}
	for _, t := range c.effects.Timers {
		if t.At.IsZero() {
			c.do("untimer", t.member())
		} else {
			c.do("timer", t.member(), t.At.UnixMilli())
		}
	}
	for _, e := range c.effects.Outbox {
		b, _ := json.Marshal(e) // strings and a number: cannot fail
		c.do("out", string(b))
	}
}

func (c *commit) buildEvents(merchantID string) error {
	oldest := c.s.Now().Add(-c.s.o.Retention.Feed).UnixMilli()
	for _, e := range c.effects.Events {
		b, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("conversations: writing an event: %w", err)
		}
		c.do("event", c.key(c.s.keys.log(c.p, e.RequestID)), e.Seq, string(b), ms(c.s.o.Retention.Money))
		c.do("feed", merchantID, e.RequestID, string(b), oldest)
	}
	return nil
}

// changesNothing tells that there is nothing to write: a refusal that is on
// record already, or evidence that was known.
func (c *commit) changesNothing(state string) bool {
	return len(c.ops) == 0 && state == c.known.state && !c.takesKey()
}

// takesKey tells whether the commit uses up its business dedupe key.
func (c *commit) takesKey() bool {
	return c.once.Key != "" && (c.effects.Refused == nil || !c.once.OnlyDone)
}

func (c *commit) read(reply []string) (answer, error) {
	if len(reply) < 2 {
		return answer{}, fmt.Errorf("conversations: commit.lua answered %d values", len(reply))
	}
	a := answer{word: reply[0], value: reply[1]}
	switch a.word {
	case "done":
		c.next.version = reply[1]
		a.known = c.next
	case "conflict":
		a.known = &knownContact{id: c.known.id, version: reply[1], state: reply[2], documents: map[string]document{}}
		for i, id := range c.known.ids() {
			a.known.documents[id] = reply[3+i]
		}
	}
	return a, nil
}

// recordsMoney tells whether an event's commit must have reached replicas.
func recordsMoney(e Event) bool {
	switch e.(type) {
	case AttemptStarted, AttemptAnswered, ReviewDecided, OperationRequested, OperationStarted, OperationAnswered, OperationFound:
		return true
	}
	return false
}

// precedesCall tells whether an event's commit allows a call that moves money,
// which nothing has been sent of yet.
func precedesCall(e Event) bool {
	switch e.(type) {
	case AttemptStarted, OperationStarted:
		return true
	}
	return false
}

// ErrTooFewReplicas is returned by Apply when a commit of money was made, but
// fewer replicas than configured confirmed it in time. What it made is returned
// beside it: nothing may be called for it.
var ErrTooFewReplicas = &Error{Code: CodeUnavailable, Reason: "too_few_replicas", Message: "the payment could not be recorded safely, try again"}

// runCommit runs the script. Commits of money, where replicas are demanded,
// run on one connection with the WAIT that asks for them.
func (s *Store) runCommit(ctx context.Context, p int, e Event, names []string, args []any) ([]string, error) {
	if s.o.WaitReplicas == 0 || !recordsMoney(e) {
		reply, err := commitScript.Run(ctx, s.rdb, names, args...).StringSlice()
		if err != nil {
			return nil, Unavailable(fmt.Errorf("commit %s: %w", e.Kind(), err))
		}
		return reply, nil
	}
	// A connection of one's own is not replaced when it breaks, and does not
	// follow a slot that has moved: both are done here. The commit's id makes
	// the repetition harmless.
	for try := 1; ; try++ {
		reply, err := s.commitAndWait(ctx, e, names, args)
		if err == nil || errors.Is(err, ErrTooFewReplicas) {
			return reply, err
		}
		if try == moneyTries || ctx.Err() != nil {
			return nil, Unavailable(fmt.Errorf("commit %s: %w", e.Kind(), err))
		}
		if cluster, ok := s.rdb.(*redis.ClusterClient); ok {
			cluster.ReloadState(ctx)
		}
		if err := sleep(ctx, time.Duration(try)*50*time.Millisecond); err != nil {
			return nil, Unavailable(err)
		}
	}
}

const (
	moneyTries = 4               // runs of a commit of money, with one id
	waitTries  = 3               // questions for replicas after money has moved
	waitFor    = 1 * time.Second // each
)

// commitAndWait runs the script and asks for replicas on one connection. Before
// a charge too few of them are an error, and nothing must be called; after it
// the money has moved, so they are asked again, counted and logged.
func (s *Store) commitAndWait(ctx context.Context, e Event, names []string, args []any) ([]string, error) {
	conn, err := s.masterConn(ctx, names[0])
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reply, err := commitScript.Run(ctx, conn, names, args...).StringSlice()
	if err != nil || reply[0] != "done" {
		return reply, err
	}
	before := precedesCall(e)
	var have int64
	for range waitTries {
		have, err = conn.Wait(ctx, s.o.WaitReplicas, waitFor).Result()
		if err == nil && have >= int64(s.o.WaitReplicas) {
			return reply, nil
		}
		if before || err != nil {
			break
		}
	}
	s.tooFewReplicas.Add(1)
	s.log.ErrorContext(ctx, "too few replicas confirmed a commit of money", "event", e.Kind(), "replicas", have, "wanted", s.o.WaitReplicas, "error", err)
	if before {
		return nil, ErrTooFewReplicas
	}
	return reply, nil
}

// TooFewReplicas counts the commits of money, since the start, that fewer
// replicas than configured confirmed in time.
func (s *Store) TooFewReplicas() int64 { return s.tooFewReplicas.Load() }

// masterConn returns a connection of its own to the master of a key's slot.
func (s *Store) masterConn(ctx context.Context, key string) (*redis.Conn, error) {
	switch c := s.rdb.(type) {
	case *redis.ClusterClient:
		node, err := c.MasterForKey(ctx, key)
		if err != nil {
			return nil, err
		}
		return s.watchOwn(node.Conn()), nil
	case *redis.Client:
		return c.Conn(), nil
	}
	return nil, fmt.Errorf("conversations: no connection of its own from a %T", s.rdb)
}

// member spells a timer in the sorted set of its partition.
func (t Timer) member() string {
	return string(t.Kind) + "/" + t.ContactID + "/" + t.ID + "/" + strconv.Itoa(t.N)
}
