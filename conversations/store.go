package conversations

import (
	"cmp"
	"context"
	"crypto/tls"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/commit.lua
	commitLua string
	//go:embed lua/load.lua
	loadLua string
	//go:embed lua/move.lua
	moveLua string

	commitScript = redis.NewScript(commitLua)
	loadScript   = redis.NewScript(loadLua)
	moveScript   = redis.NewScript(moveLua)
)

// Retention is how long things are kept. No logic relies on a key having
// expired: stored times are compared.
type Retention struct {
	Dedupe       time.Duration // Meta repeats webhooks for 7 days
	Idempotency  time.Duration
	Chats        time.Duration
	Money        time.Duration // payment requests, receipts, contacts
	Feed         time.Duration // at least 24 hours
	SealedOrders time.Duration
	Commits      time.Duration // ids of commits: longer than any resent command takes
}

// DefaultRetention returns the lifetimes of production.
func DefaultRetention() Retention {
	day := 24 * time.Hour
	return Retention{
		Dedupe: 8 * day, Idempotency: 2 * day, Chats: 90 * day, Money: 400 * day, Feed: 2 * day,
		SealedOrders: 2 * day, Commits: 10 * time.Minute,
	}
}

// Options say where the store lies and how it behaves.
type Options struct {
	Addresses    []string // one for a single node; several for Cluster, or sentinels with MasterName
	MasterName   string   // of Sentinel
	Cluster      bool     // a cluster, even if one address is given
	Username     string
	Password     string
	SentinelUser string
	SentinelPass string
	DB           int // not with Cluster
	TLS          *tls.Config
	PoolSize     int // connections to each node, default 32
	Prefix       string
	Partitions   int // fixed at the store's first start
	WaitReplicas int // replicas that must have a commit of money
	Retention    Retention
	Timings      Timings
	Merchants    []Merchant
	Log          *slog.Logger
	Now          func() time.Time // the process's clock, default time.Now
	// Observe is told of each commit by the process that made it, and
	// ObserveRedis of each call of Redis. They are called at once, by many
	// goroutines, and must neither block nor keep what they are given. Nil: nobody.
	Observe      func(Committed)
	ObserveRedis func(RedisCall)
}

// Store is the domain's state in Redis. It is safe for concurrent use.
type Store struct {
	rdb       redis.UniversalClient // commands and scripts
	blocking  redis.UniversalClient // blocking reads have connections of their own
	keys      keys
	o         Options
	log       *slog.Logger
	offset    atomic.Int64 // Redis's clock minus ours, ns
	merchants atomic.Pointer[map[string]Merchant]

	tooFewReplicas atomic.Int64

	contacts *contactCache
	turns    turns // of those who met a conflict
	claims   *claimCache
	closed   sync.Once
}

// Connect connects to Redis and checks that it holds a store of ours with the
// same number of partitions, or an empty one. It fails with CodeUnavailable if
// Redis does not answer.
func Connect(ctx context.Context, o Options) (*Store, error) {
	logDriver(o.Log)
	o = o.withDefaults()
	if o.Partitions < 1 || o.Partitions > MaxPartitions {
		return nil, Invalid("partitions", "%d partitions are not possible, use 1 to %d", o.Partitions, MaxPartitions)
	}
	s := &Store{
		rdb: redis.NewUniversalClient(o.universal(o.PoolSize)), keys: newKeys(o.Prefix, o.Partitions), o: o, log: o.Log,
		contacts: newContactCache(20000), claims: newClaimCache(50000),
	}
	s.blocking = redis.NewUniversalClient(o.universal(3*o.Partitions + 4)) // outbox, feed and callbacks: one of each in each partition of a Cluster
	s.watchRedis()
	s.SetMerchants(o.Merchants)
	if err := s.prepare(ctx); err != nil {
		_ = s.Close() // the first error says more
		return nil, err
	}
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.Prefix == "" {
		o.Prefix = "pt"
	}
	if o.Partitions == 0 {
		o.Partitions = 16
	}
	if o.PoolSize == 0 {
		o.PoolSize = 32
	}
	if o.Retention == (Retention{}) {
		o.Retention = DefaultRetention()
	}
	if o.Timings.SendWithin == 0 {
		o.Timings = DefaultTimings()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func (o Options) universal(pool int) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs: o.Addresses, MasterName: o.MasterName, IsClusterMode: o.Cluster,
		Username: o.Username, Password: o.Password, SentinelUsername: o.SentinelUser, SentinelPassword: o.SentinelPass,
		DB: o.DB, TLSConfig: o.TLS, PoolSize: pool, ContextTimeoutEnabled: true, Protocol: 2, DisableIdentity: true,
		DialTimeout: 3 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		// A resent command is harmless: commits carry an id, the rest is idempotent.
		MaxRetries: 3, MinRetryBackoff: 20 * time.Millisecond, MaxRetryBackoff: 500 * time.Millisecond,
	}
}

// prepare records the number of partitions at the first start, makes the
// outboxes' consumer groups and measures the clock.
func (s *Store) prepare(ctx context.Context) error {
	want := strconv.Itoa(s.o.Partitions)
	if err := s.rdb.SetNX(ctx, s.keys.store(), want, 0).Err(); err != nil {
		return Unavailable(fmt.Errorf("connect to redis: %w", err))
	}
	have, err := s.rdb.Get(ctx, s.keys.store()).Result()
	if err != nil {
		return Unavailable(fmt.Errorf("read the store's settings: %w", err))
	}
	if have != want {
		return Invalid("partitions", "this store was started with %s partitions and cannot be used with %s; set partitions to %s", have, want, have)
	}
	for p := range s.o.Partitions {
		err := s.rdb.XGroupCreateMkStream(ctx, s.keys.outbox(p), outboxGroup, "0").Err()
		if err != nil && !isBusyGroup(err) {
			return Unavailable(fmt.Errorf("make the outbox: %w", err))
		}
	}
	return s.MeasureClock(ctx)
}

// Close ends all connections. Calls that are under way fail.
func (s *Store) Close() error {
	var err error
	s.closed.Do(func() {
		err = errors.Join(s.rdb.Close(), s.blocking.Close())
	})
	return err
}

// Ping tells whether Redis answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.rdb.Ping(ctx).Err(); err != nil {
		return Unavailable(err)
	}
	return nil
}

// Inspect reports on the Redis behind the store, for doctor and start-up.
func (s *Store) Inspect(ctx context.Context) (Inspection, error) { return Inspect(ctx, s.rdb) }

// Partitions returns the number of partitions.
func (s *Store) Partitions() int { return s.o.Partitions }

// Timings returns the waits that the store applies.
func (s *Store) Timings() Timings { return s.o.Timings }

// SetMerchants replaces the merchants, for a configuration that was reloaded.
func (s *Store) SetMerchants(merchants []Merchant) {
	m := make(map[string]Merchant, len(merchants))
	for _, merchant := range merchants {
		m[merchant.ID] = merchant
	}
	s.merchants.Store(&m)
}

// Merchant returns the merchant with that id.
func (s *Store) Merchant(id string) (Merchant, bool) {
	m, ok := (*s.merchants.Load())[id]
	return m, ok
}

// Now returns the time of the store: Redis's clock as this process knows it,
// in UTC. Windows and timers are compared with it.
func (s *Store) Now() time.Time {
	return s.o.Now().Add(time.Duration(s.offset.Load())).UTC()
}

// MeasureClock asks Redis for its time and keeps the offset of ours. It is
// called at start and now and then.
func (s *Store) MeasureClock(ctx context.Context) error {
	before := s.o.Now()
	theirs, err := s.rdb.Time(ctx).Result()
	if err != nil {
		return Unavailable(fmt.Errorf("ask redis for its time: %w", err))
	}
	after := s.o.Now()
	s.offset.Store(int64(theirs.Sub(before.Add(after.Sub(before) / 2))))
	return nil
}

// Apply gives an event to the transition function and commits what follows, in
// one atomic step, at most once for once.Key. An event that the state does not
// allow comes back as Applied.Refused, with no error. Errors: CodeNotFound,
// CodeInvalid (also a Key with another Hash, reason idempotency_mismatch), and
// CodeUnavailable, after which the event may or may not have been committed.
func (s *Store) Apply(ctx context.Context, contactID string, event Event, once Once) (Applied, error) {
	return s.apply(ctx, contactID, event, once, writes{})
}

// writes are keys that a commit sets beside the contact's documents.
type writes struct {
	fresh string // id of a payment request that must not exist yet
	links map[string]string
}

// errExists is returned by apply when writes.fresh exists, with what it is.
type errExists struct{ document string }

func (e *errExists) Error() string { return "the document exists" }

const maxConflicts = 1000

func (s *Store) apply(ctx context.Context, contactID string, event Event, once Once, w writes) (Applied, error) {
	p, ok := partitionOf(contactID, contactPrefix, s.o.Partitions)
	if !ok {
		return Applied{}, NotFound("contact")
	}
	known := s.contacts.get(contactID)
	fresh := known == nil // read from Redis in this call, not from memory
	var err error
	if fresh {
		if known, err = s.load(ctx, p, contactID, nil); err != nil {
			return Applied{}, err
		}
	}
	for conflicts := 0; ; {
		state, err := s.state(known)
		if err != nil {
			return Applied{}, err
		}
		if state.Contact == nil {
			state.Merchant, _ = s.Merchant(merchantOf(event))
		}
		changed, effects, err := Apply(state, event, s.Now())
		var missing *Missing
		if errors.As(err, &missing) {
			if err := missing.possible(s.o.Partitions); err != nil {
				return Applied{}, err
			}
			if known, err = s.load(ctx, p, contactID, known.and(missing)); err != nil {
				return Applied{}, err
			}
			fresh = true
			continue
		}
		c := &commit{s: s, p: p, known: known, before: state, event: event, once: once, changed: changed, effects: effects, writes: w}
		answer := answer{word: "unchanged"}
		if err == nil {
			answer, err = c.run(ctx)
		}
		if errors.Is(err, ErrTooFewReplicas) {
			return applied(changed, effects), err
		}
		if answer.word == "unchanged" && !fresh {
			// Nothing would be committed, so no version would be checked: what
			// was only remembered may be old.
			if known, err = s.load(ctx, p, contactID, known.ids()); err != nil {
				return Applied{}, err
			}
			fresh = true
			continue
		}
		if errors.Is(err, ErrNothing) {
			return Applied{Contact: state.Contact}, nil
		}
		if err != nil {
			return Applied{}, err
		}
		switch answer.word {
		case "done":
			s.contacts.put(answer.known)
			s.logEvents(ctx, changed.Contact, effects.Events)
			s.observe(event, state, changed, effects)
			return applied(changed, effects), nil
		case "unchanged":
			return applied(changed, effects), nil
		case "duplicate":
			return s.duplicate(ctx, answer.value, once)
		case "exists":
			return Applied{}, &errExists{document: answer.value}
		}
		if conflicts++; conflicts > maxConflicts {
			return Applied{}, Unavailable(errors.New("too many conflicts on one contact"))
		}
		known, fresh = answer.known, true
		s.contacts.put(known)
		if conflicts == 1 {
			done, err := s.turns.take(ctx, contactID)
			if err != nil {
				return Applied{}, Unavailable(err)
			}
			defer done()
			if latest := s.contacts.get(contactID); latest != nil { // what the one before left
				known, fresh = latest, false
			}
		}
		if conflicts > 3 {
			if err := sleep(ctx, time.Duration(rand.Int64N(int64(min(conflicts, 20)))*int64(time.Millisecond))); err != nil {
				return Applied{}, Unavailable(err)
			}
		}
	}
}

// merchantOf names the merchant of an event that may make a contact.
func merchantOf(e Event) string {
	switch e := e.(type) {
	case Created:
		return e.Request.MerchantID
	case MessageReceived:
		return e.MerchantID
	}
	return ""
}

// sleep waits, or returns the context's error if it ends before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func applied(changed State, effects Effects) Applied {
	return Applied{
		Refused: effects.Refused, Outbound: effects.Outbound, Operation: effects.Operation, Contact: changed.Contact,
		Request: changed.Requests[effects.RequestID], Message: changed.Messages[effects.MessageID],
	}
}

// first is what a dedupe key keeps of the first commit under it.
type first struct {
	Hash      string `json:"hash,omitempty"`
	RequestID string `json:"request,omitempty"`
	Refused   *Error `json:"refused,omitempty"`
}

func (s *Store) duplicate(ctx context.Context, value string, once Once) (Applied, error) {
	var f first
	if err := json.Unmarshal([]byte(value), &f); err != nil {
		return Applied{}, fmt.Errorf("conversations: reading a dedupe key: %w", err)
	}
	if f.Hash != once.Hash {
		return Applied{}, mismatch()
	}
	a := Applied{Duplicate: true, Refused: f.Refused}
	if f.RequestID != "" {
		r, err := s.Request(ctx, f.RequestID)
		if err != nil {
			return Applied{}, err
		}
		a.Request = r
	}
	return a, nil
}

func mismatch() *Error {
	return &Error{Code: CodeInvalid, Field: "Idempotency-Key", Reason: "idempotency_mismatch", Message: "this key was used before with another request; use a new key"}
}

// document is the raw text of one payment request or message; empty: there is
// none.
type document = string

// knownContact is what a process last saw of a contact, at one version. It is
// never changed, only replaced.
type knownContact struct {
	id        string
	version   string
	state     string
	documents map[string]document // by id
}

// state decodes what is known.
func (s *Store) state(k *knownContact) (State, error) {
	state := State{Timings: s.o.Timings, Requests: map[string]*PaymentRequest{}, Messages: map[string]*Message{}}
	if k.state != "" {
		state.Contact = &Contact{}
		if err := state.noteNewer(k.id, readDocument(k.state, state.Contact)); err != nil {
			return State{}, fmt.Errorf("conversations: reading contact %s: %w", k.id, err)
		}
		state.Merchant, _ = s.Merchant(state.Contact.MerchantID)
	}
	for id, text := range k.documents {
		if err := decodeInto(&state, id, text); err != nil {
			return State{}, fmt.Errorf("conversations: reading %s: %w", id, err)
		}
	}
	return state, nil
}

func decodeInto(state *State, id string, text document) error {
	if len(id) > len(requestPrefix) && id[:len(requestPrefix)] == requestPrefix {
		if text == "" || text == tombstone {
			state.Requests[id] = nil
			return nil
		}
		r := &PaymentRequest{}
		state.Requests[id] = r
		return state.noteNewer(id, readDocument(text, r))
	}
	if text == "" {
		state.Messages[id] = nil
		return nil
	}
	m := &Message{}
	state.Messages[id] = m
	return state.noteNewer(id, readDocument(text, m))
}

// tombstone stands where a payment request was chosen but never made.
const tombstone = `{"tombstone":true}`

func decodeRequest(text document) (*PaymentRequest, error) {
	if text == "" || text == tombstone {
		return nil, nil
	}
	r := &PaymentRequest{}
	return r, json.Unmarshal([]byte(text), r)
}

func (s *Store) documentKey(p int, id string) string {
	if len(id) > len(requestPrefix) && id[:len(requestPrefix)] == requestPrefix {
		return s.keys.request(p, id)
	}
	return s.keys.message(p, id)
}

// ids returns the ids of the documents that are known.
func (k *knownContact) ids() []string { return slices.Sorted(maps.Keys(k.documents)) }

// and returns the ids of the documents that are known, and the missing one.
func (k *knownContact) and(m *Missing) []string {
	return append(k.ids(), m.RequestID+m.MessageID) // one of the two is empty
}

// load reads a contact and documents of it at one version.
func (s *Store) load(ctx context.Context, p int, contactID string, ids []string) (*knownContact, error) {
	names := []string{s.keys.contact(p, contactID)}
	for _, id := range ids {
		names = append(names, s.documentKey(p, id))
	}
	answer, err := loadScript.Run(ctx, s.rdb, names).StringSlice()
	if err != nil {
		return nil, Unavailable(fmt.Errorf("load a contact: %w", err))
	}
	k := &knownContact{id: contactID, version: answer[0], state: answer[1], documents: make(map[string]document, len(ids))}
	for i, id := range ids {
		k.documents[id] = answer[2+i]
	}
	s.contacts.put(k)
	return k, nil
}

// Request returns a payment request by its id. CodeNotFound if there is none.
func (s *Store) Request(ctx context.Context, id string) (*PaymentRequest, error) {
	p, ok := partitionOf(id, requestPrefix, s.o.Partitions)
	if !ok {
		return nil, NotFound("payment request")
	}
	return s.readRequest(ctx, p, id)
}

func (s *Store) readRequest(ctx context.Context, p int, id string) (*PaymentRequest, error) {
	text, err := s.rdb.Get(ctx, s.keys.request(p, id)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, Unavailable(fmt.Errorf("read a payment request: %w", err))
	}
	r, err := decodeRequest(text)
	if err != nil {
		return nil, fmt.Errorf("conversations: reading %s: %w", id, err)
	}
	if r == nil {
		return nil, NotFound("payment request")
	}
	return r, nil
}

// RequestByLink returns the payment request that a short link's code leads to.
func (s *Store) RequestByLink(ctx context.Context, code string) (*PaymentRequest, error) {
	p, ok := partitionOf(code, "", s.o.Partitions)
	if !ok {
		return nil, NotFound("link")
	}
	id, err := s.rdb.Get(ctx, s.keys.link(p, code)).Result()
	if errors.Is(err, redis.Nil) {
		return nil, NotFound("link")
	}
	if err != nil {
		return nil, Unavailable(fmt.Errorf("read a link: %w", err))
	}
	return s.readRequest(ctx, p, id)
}

// RequestByOrder returns the payment request that holds a merchant's order.
func (s *Store) RequestByOrder(ctx context.Context, merchantID, order string) (*PaymentRequest, error) {
	id, err := s.Holder(ctx, merchantID, order)
	if err != nil {
		return nil, err
	}
	return s.Request(ctx, id) // "" is not found either
}

// Messages returns messages of a contact by their ids, those that are still
// kept.
func (s *Store) Messages(ctx context.Context, contactID string, ids []string) ([]*Message, error) {
	p, ok := partitionOf(contactID, contactPrefix, s.o.Partitions)
	if !ok || len(ids) == 0 {
		return nil, nil
	}
	k, err := s.load(ctx, p, contactID, ids)
	if err != nil {
		return nil, err
	}
	state, err := s.state(k)
	if err != nil {
		return nil, err
	}
	var out []*Message
	for _, id := range ids {
		if m := state.Messages[id]; m != nil {
			out = append(out, m)
		}
	}
	return out, nil
}

// Contact returns a contact by its id. CodeNotFound if there is none.
func (s *Store) Contact(ctx context.Context, id string) (*Contact, error) {
	p, ok := partitionOf(id, contactPrefix, s.o.Partitions)
	if !ok {
		return nil, NotFound("contact")
	}
	k, err := s.load(ctx, p, id, nil)
	if err != nil {
		return nil, err
	}
	state, err := s.state(k)
	if err != nil {
		return nil, err
	}
	if state.Contact == nil {
		return nil, NotFound("contact")
	}
	return state.Contact, nil
}

// Filter narrows a list of payment requests. Empty fields do not narrow.
type Filter struct {
	MerchantID string // required
	Order      string
	Lifecycle  Lifecycle
	Channel    Channel
}

// Requests returns a merchant's payment requests, newest first, at most limit,
// and the cursor of the next page, empty at the end. Where a filter wants few of
// many, a page may hold less than limit, even nothing, and still have a next.
// A cursor that is not one of ours is CodeInvalid.
func (s *Store) Requests(ctx context.Context, f Filter, cursor string, limit int) ([]*PaymentRequest, string, error) {
	below, belowID, err := parseListCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	var found []*PaymentRequest
	for scanned := 0; scanned < maxScanned; {
		batch, err := s.newest(ctx, func(p int) string { return s.keys.requests(p, f.MerchantID) }, below, belowID, max(limit, 50))
		if err != nil {
			return nil, "", err
		}
		if len(batch) == 0 {
			return found, "", nil
		}
		requests, err := s.readRequests(ctx, batch)
		if err != nil {
			return nil, "", err
		}
		for i, r := range requests {
			below, belowID = batch[i].at, batch[i].id
			if r == nil || !f.matches(r) { // nil: its retention has ended
				continue
			}
			if found = append(found, r); len(found) == limit {
				return found, listCursor(below, belowID), nil
			}
		}
		scanned += len(batch)
	}
	return found, listCursor(below, belowID), nil
}

// maxScanned bounds how many payment requests one call looks at for those that
// a filter wants.
const maxScanned = 5000

// readRequests reads payment requests at once; nil stands for one that is gone.
func (s *Store) readRequests(ctx context.Context, list []listed) ([]*PaymentRequest, error) {
	pipe := s.rdb.Pipeline()
	texts := make([]*redis.StringCmd, len(list))
	for i, l := range list {
		p, _ := partitionOf(l.id, requestPrefix, s.o.Partitions) // it was made here
		texts[i] = pipe.Get(ctx, s.keys.request(p, l.id))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, Unavailable(fmt.Errorf("read payment requests: %w", err))
	}
	requests := make([]*PaymentRequest, len(list))
	for i, text := range texts {
		if err := text.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return nil, Unavailable(fmt.Errorf("read payment requests: %w", err))
		}
		r, err := decodeRequest(text.Val())
		if err != nil {
			return nil, fmt.Errorf("conversations: reading %s: %w", list[i].id, err)
		}
		requests[i] = r
	}
	return requests, nil
}

func (f Filter) matches(r *PaymentRequest) bool {
	return (f.Order == "" || f.Order == r.Order.Reference) && (f.Lifecycle == "" || f.Lifecycle == r.Lifecycle) && (f.Channel == "" || f.Channel == r.Channel)
}

// listed is an entry of a list that is kept in each partition, in order of time.
type listed struct {
	at int64 // ms
	id string
}

// newest merges the partitions' lists below a place in their order: newer
// first, and by id within one millisecond.
func (s *Store) newest(ctx context.Context, listKey func(p int) string, below int64, belowID string, limit int) ([]listed, error) {
	pipe := s.rdb.Pipeline()
	var lists []*redis.ZSliceCmd
	for p := range s.o.Partitions {
		key, older := listKey(p), "+inf"
		if belowID != "" {
			// All of the cursor's own millisecond, since a count would be used
			// up by those that were seen; then what is older.
			at := strconv.FormatInt(below, 10)
			lists = append(lists, pipe.ZRevRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: at, Max: at}))
			older = "(" + at
		}
		lists = append(lists, pipe.ZRevRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: "-inf", Max: older, Count: int64(limit)}))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, Unavailable(fmt.Errorf("read a list: %w", err))
	}
	var all []listed
	for _, list := range lists {
		for _, z := range list.Val() {
			l := listed{at: int64(z.Score), id: z.Member.(string)}
			if belowID == "" || l.at < below || l.at == below && l.id < belowID {
				all = append(all, l)
			}
		}
	}
	slices.SortFunc(all, func(a, b listed) int {
		return cmp.Or(cmp.Compare(b.at, a.at), cmp.Compare(b.id, a.id))
	})
	return all[:min(len(all), limit)], nil
}

func listCursor(at int64, id string) string { return strconv.FormatInt(at, 36) + "." + id }

func parseListCursor(cursor string) (int64, string, error) {
	if cursor == "" {
		return 0, "", nil
	}
	for i := range len(cursor) {
		if cursor[i] == '.' {
			at, err := strconv.ParseInt(cursor[:i], 36, 64)
			if err == nil && i+1 < len(cursor) && len(cursor) < 64 {
				return at, cursor[i+1:], nil
			}
		}
	}
	return 0, "", Invalid("cursor", "this is not a cursor of this list; use next_cursor as it was given")
}

func randomPartition(partitions int) int { return rand.IntN(partitions) }

func isBusyGroup(err error) bool { return redis.HasErrorPrefix(err, "BUSYGROUP") }
