// Package meta plays Meta's side of the WhatsApp Cloud API: the Graph calls that
// send messages, and the webhooks that report what became of them and what
// customers say. It checks what Meta checks and refuses what Meta refuses, with
// the error bodies and signatures of the public documentation
// (developers.facebook.com/documentation/business-messaging/whatsapp).
//
// The calls live under /meta/{version}/..., so a client's base address is this
// server's with /meta behind it:
//
//	POST   {PNID}/messages             send, mark as read, show typing
//	GET    {PNID}?fields=...           a phone number
//	GET    {WABA}?fields=...           a business account
//	GET    {WABA}/phone_numbers        its numbers
//	GET    {WABA}/message_templates    its templates; ?name= &language= &status= &fields= &limit= &after=
//	GET, POST, DELETE {WABA}/subscribed_apps
//
// # Control calls
//
// What Meta, its reviewers and customers do by themselves is made to happen with
// the control calls below. Bodies are strict JSON; a wrong one is answered with a
// problem document whose field names what is wrong. "number" is a phone number
// id, "account" a WABA id; each may be left out when there is only one. Every
// webhook that follows goes out with Meta's signature and on Meta's schedule.
//
//	GET  /meta/templates     all templates with their states
//	POST /meta/templates     {"name"[,"language","account"]} and any of:
//	                         "event": APPROVED, REJECTED, PAUSED, DISABLED, FLAGGED, REINSTATED, PENDING, ...,
//	                         with "reason" for a rejection and "title" such as FIRST_PAUSE (counted when left out);
//	                         "quality": GREEN, YELLOW, RED, UNKNOWN; "category": a new one;
//	                         "hold": true keeps what is sent for a quality assessment, false lets it go
//	POST /meta/accounts      {"event"} of account_update: ACCOUNT_RESTRICTION with "restriction" and "for" (a duration),
//	                         DISABLED_UPDATE with "state" DISABLE, REINSTATE or SCHEDULE_FOR_DISABLE, ACCOUNT_VIOLATION
//	                         with "violation", or any other
//	POST /meta/capabilities  {"limit"}: business_capability_update, with a TIER_... text or a number
//	POST /meta/numbers       {"event"[,"limit","quality"]}: phone_number_quality_update
//	POST /meta/preferences   {"phone","value"}: stop, resume or signup for marketing
//	POST /meta/customers     {"phone","do"}: user_id (a new business-scoped id), number (with "to", the new number),
//	                         identity (new keys: sends get 137000 until acknowledged), acknowledge
//	POST /meta/echoes        {"phone","text"}: the business writes with its phone app
//	POST /meta/errors        {"code"[,"details"]}: an error of the number itself
//	POST /meta/messages      {"phone","message":{"type":"image","image":{...}}}: a customer's message of any type
//	POST /meta/batches       {"updates"[,"bytes","spoil","twice"]}: that many customers' texts in as few deliveries as Meta
//	                         would make, grown to so many bytes, with a bad element among them, with one message twice
//	POST /meta/fields        {"field","value"}: any other field, with any value
//	POST /meta/habits        changes how Meta goes about it, and answers with how it is then; what is missing stays:
//	                         "skipDeliveredEvery" and "statusFirstEvery" n messages, "batch": a duration over which webhooks
//	                         are gathered, "spoilEvery" n batches, "refuseOutsideWindow": at once, "payload": v23 or v24
package meta

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nyaruka/phonenumbers"

	"paythread/simulator/faults"
)

// The names under which calls and webhooks appear in fault rules and in the call
// log.
const (
	CallMessages       = "meta.messages"        // POST .../messages: a send
	CallMarkRead       = "meta.mark_read"       // POST .../messages with a status
	CallPhoneNumber    = "meta.phone_number"    // GET of a phone number
	CallAccount        = "meta.account"         // GET of a business account, or of its numbers
	CallTemplates      = "meta.templates"       // GET .../message_templates
	CallSubscriptions  = "meta.subscriptions"   // .../subscribed_apps
	CallWebhookMessage = "meta.webhook.message" // a customer's message
	CallWebhookStatus  = "meta.webhook.status"  // sent, delivered, read, failed
	CallWebhookEcho    = "meta.webhook.echo"    // a message that the business wrote with its phone app
	CallWebhookAccount = "meta.webhook.account" // templates, limits, quality, preferences, user ids, errors
)

// PayloadV23 and PayloadV24 are the shapes a webhook can have: up to v23.0 every
// status carries a conversation object, since v24.0 none does.
const (
	PayloadV23 = "v23"
	PayloadV24 = "v24"
)

// Number is one business phone number with its app and account.
type Number struct {
	PhoneNumberID  string
	WABAID         string
	DisplayNumber  string   // E.164
	VerifiedName   string   // what the customer sees above the chat
	AccessToken    string   // the Bearer of this number's calls
	ExpiredTokens  []string // tokens answered with subcode 463
	AppSecret      string   // signs the webhooks
	VerifyToken    string   // sent in the handshake
	WebhookURL     string   // where webhooks go; empty for a number without
	PayloadVersion string   // PayloadV23 or PayloadV24 (the default)
	CountryCode    string   // digits put before a recipient without +; empty to take it as it is
	Unregistered   bool     // sends are refused with 133010
	ParentUserIDs  bool     // user ids come with those of the parent portfolio
	// NoPaymentMethod makes service messages fail with 131042 once the month's
	// free ones are used up.
	NoPaymentMethod bool
}

// Template is one approved (or no longer approved) translation of a template.
type Template struct {
	WABAID       string
	Name         string
	Language     string
	Category     string // UTILITY, MARKETING or AUTHENTICATION
	Body         string // with {{1}}, {{2}}, ...
	URLButton    *URLButton
	QuickReplies []string
	Footer       string
	Status       string // APPROVED (the default), PAUSED, DISABLED, PENDING, REJECTED, ...
	Quality      string // GREEN, YELLOW, RED or UNKNOWN (the default)
	Reason       string // why it was rejected
	// TTL is how long a message waits for a phone; then it is dropped without a
	// word. 0 takes Config.TTL, or ten minutes for AUTHENTICATION.
	TTL    time.Duration
	Hold   bool // messages are held for a quality assessment
	Pauses int  // so far; the third one disables
}

// URLButton is a template's link. A URL ending in {{1}} takes a suffix with each
// send.
type URLButton struct {
	Label string
	URL   string
}

// Config says which numbers exist and how fast the network is. A zero duration
// or count takes the real network's value where one is named; a negative count
// or rate switches that limit off.
type Config struct {
	Numbers   []Number
	Templates []Template

	SentAfter      time.Duration // from the answer to "sent"
	DeliveredAfter time.Duration // from "sent" to the phone and "delivered"
	// SkipDeliveredEvery leaves out the delivered status of every n-th message,
	// as happens when the customer is looking at the chat. 0: never.
	SkipDeliveredEvery int
	// StatusFirstEvery keeps the answer of every n-th send until its first status
	// has been posted. 0: never.
	StatusFirstEvery int

	// Batch is how long webhooks to one address are gathered, to be posted
	// together; 0 posts each by itself. SpoilEvery puts a bad element into every
	// n-th batch.
	Batch      time.Duration
	SpoilEvery int

	TTL          time.Duration // how long a message waits for a phone; 30 days
	FreeMessages int           // service messages of a number and month without a price since October 2026; 1,000
	Unsubscribed []string      // WABAs whose webhooks the app has not subscribed to

	Window              time.Duration // customer service window; 24 h
	RefuseOutsideWindow bool          // answer 400 with 131047 instead of a failed status

	MessagesPerSecond int           // per number; 80
	PairBurst         int           // to one customer at once; 45
	PairInterval      time.Duration // and then one per; 6 s
	RateStatus        int           // HTTP status of 130429 and 131056; 400

	WebhookTimeout time.Duration   // 10 s
	WebhookRetries []time.Duration // waits before each redelivery; a short version of Meta's days

	Now    func() time.Time
	Log    *slog.Logger
	Client *http.Client // for webhooks
}

// defaultRetries is Meta's decreasing frequency over days, compressed.
var defaultRetries = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second,
	15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute}

// Handset is what the network knows of one customer.
type Handset struct {
	E164       string // the number on the SIM
	WaID       string // WhatsApp's spelling of it, digits only; may differ from E164
	Name       string
	Username   string
	HideNumber bool // the business sees a user id instead of a number
	OnWhatsApp bool
	Reachable  bool
	Blocked    bool // the customer blocked businesses on this channel
}

// Button is a button below a message: a reply (ID set) or a link (URL set).
type Button struct {
	ID    string
	Title string
	URL   string
}

// Delivery is a message that has reached a phone.
type Delivery struct {
	ID       string // the wamid
	From, To string // E.164
	Text     string
	Buttons  []Button
	Template bool // so a tapped reply is a "button", not an "interactive"
}

// Phones are the customers' phones, as far as the network needs them.
type Phones interface {
	// Handset returns the state of the phone with that number, in either
	// spelling; every number has a phone.
	Handset(e164 string) Handset
	// Deliver shows a message on the phone.
	Deliver(Delivery)
	// Accepted tells the phone that the business took the customer's message.
	Accepted(e164, id string)
	// MarkedRead tells the phone that the business has read all up to id, and
	// whether it is typing.
	MarkedRead(e164, id string, typing bool)
}

// Simulator is Meta's side. It is safe for concurrent use; Close ends its
// webhooks.
type Simulator struct {
	cfg     Config
	set     *faults.Set
	phones  Phones
	courier *faults.Courier

	mu         sync.Mutex
	messages   map[string]*message // outbound, by wamid, until read or failed
	waiting    map[string][]*message
	held       map[templateKey][]*message // for a quality assessment
	inbound    map[string]pair            // customer's wamid to the pair it belongs to
	heard      []string                   // the keys of inbound, oldest first
	keep       int                        // mostInbound
	windows    map[pair]time.Time         // last inbound
	buckets    map[any]*bucket            // by pair, and by phone number id
	userIDs    map[string]string          // user id to E.164
	currentIDs map[moveKey]string         // the other way, as they are now
	moves      map[moveKey]int            // how often a user id was changed
	identities map[pair]identity
	stopped    map[pair]bool     // customers who want no marketing
	services   map[monthKey]int  // service messages
	quality    map[string]string // by phone number id
	accounts   map[string]*account
	templates  []*Template
	accepted   int // for SkipDeliveredEvery and StatusFirstEvery
	boxes      map[boxKey]*box
	batches    int // for SpoilEvery
	habits     Habits
}

// account is what can change of a business account.
type account struct {
	subscribed      bool
	callback        string // override_callback_uri; empty for the numbers' own
	disabled        bool
	restrictedUntil time.Time // no conversation may be begun before
}

// identity is a customer's keys, since they changed.
type identity struct {
	hash         string
	acknowledged bool
}

type moveKey struct{ waba, e164 string }

type monthKey struct{ pnid, month string }

// pair is a business number and a customer.
type pair struct{ pnid, e164 string }

type templateKey struct{ waba, name, language string }

// message is one outbound message on its way.
type message struct {
	Delivery
	number    *Number
	handset   Handset
	addressed string // to or recipient, as the client wrote it
	byUserID  bool
	category  string
	callback  string // biz_opaque_callback_data
	pricing   *pricing
	failure   *graphError
	failAfter string // the status that comes before the failure
	template  templateKey
	held      bool // for a quality assessment
	ttl       time.Duration
	expiresAt time.Time
	noReceipt bool // its delivered status is skipped
	delivered bool
	first     func() // called when the first status has been posted
}

// New checks cfg and returns a running simulator. The set and phones must not be
// nil.
func New(cfg Config, set *faults.Set, phones Phones) (*Simulator, error) {
	cfg.Window = cmp.Or(cfg.Window, 24*time.Hour)
	cfg.MessagesPerSecond = cmp.Or(cfg.MessagesPerSecond, 80)
	cfg.PairBurst = cmp.Or(cfg.PairBurst, 45)
	cfg.PairInterval = cmp.Or(cfg.PairInterval, 6*time.Second)
	cfg.RateStatus = cmp.Or(cfg.RateStatus, http.StatusBadRequest)
	cfg.TTL = cmp.Or(cfg.TTL, 30*24*time.Hour)
	cfg.FreeMessages = cmp.Or(cfg.FreeMessages, 1000)
	cfg.WebhookTimeout = cmp.Or(cfg.WebhookTimeout, 10*time.Second)
	if cfg.WebhookRetries == nil {
		cfg.WebhookRetries = defaultRetries
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = 64
		cfg.Client = &http.Client{Transport: transport, CheckRedirect: noRedirect}
	}
	s := &Simulator{
		cfg:        cfg,
		keep:       mostInbound,
		set:        set,
		phones:     phones,
		courier:    set.NewCourier(),
		messages:   make(map[string]*message),
		waiting:    make(map[string][]*message),
		held:       make(map[templateKey][]*message),
		inbound:    make(map[string]pair),
		windows:    make(map[pair]time.Time),
		buckets:    make(map[any]*bucket),
		userIDs:    make(map[string]string),
		currentIDs: make(map[moveKey]string),
		moves:      make(map[moveKey]int),
		identities: make(map[pair]identity),
		stopped:    make(map[pair]bool),
		services:   make(map[monthKey]int),
		quality:    make(map[string]string),
		accounts:   make(map[string]*account),
		boxes:      make(map[boxKey]*box),
		habits: Habits{SkipDeliveredEvery: cfg.SkipDeliveredEvery, StatusFirstEvery: cfg.StatusFirstEvery, Batch: cfg.Batch,
			SpoilEvery: cfg.SpoilEvery, RefuseOutsideWindow: cfg.RefuseOutsideWindow},
	}
	if err := s.check(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// noRedirect makes a redirect an ordinary answer, which Meta takes as a failure.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// check reports everything wrong with the configuration at once.
func (s *Simulator) check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("meta: "+format, args...)) }
	ids := make(map[string]bool)
	for i, n := range s.cfg.Numbers {
		for name, value := range map[string]string{"PhoneNumberID": n.PhoneNumberID, "WABAID": n.WABAID,
			"AccessToken": n.AccessToken, "AppSecret": n.AppSecret} {
			if value == "" {
				wrong("number %d: %s is missing", i, name)
			}
		}
		if !e164.MatchString(n.DisplayNumber) {
			wrong("number %d: DisplayNumber is not E.164", i)
		}
		if n.WebhookURL != "" && !isHTTP(n.WebhookURL) {
			wrong("number %d: WebhookURL is not an http address", i)
		}
		if ids[n.PhoneNumberID] {
			wrong("number %d: PhoneNumberID is used twice", i)
		}
		ids[n.PhoneNumberID] = true
		s.accounts[n.WABAID] = &account{subscribed: !slices.Contains(s.cfg.Unsubscribed, n.WABAID)}
	}
	for i, t := range s.cfg.Templates {
		t.Status, t.Quality = cmp.Or(t.Status, templateApproved), cmp.Or(t.Quality, "UNKNOWN")
		switch {
		case !templateName.MatchString(t.Name):
			wrong("template %d: Name must be lower-case letters, digits and _", i)
		case t.Language == "" || t.Body == "":
			wrong("template %d: Language and Body are needed", i)
		case s.templateAt(t.key()) != nil:
			wrong("template %d: the same name and language twice", i)
		case t.URLButton != nil && strings.Contains(strings.TrimSuffix(t.URLButton.URL, "{{1}}"), "{{"):
			wrong("template %d: the variable of a URL button must be {{1}} at its end", i)
		}
		s.templates = append(s.templates, &t)
	}
	return errors.Join(errs...)
}

var (
	e164         = regexp.MustCompile(`^\+[1-9]\d{6,14}$`)
	templateName = regexp.MustCompile(`^[a-z0-9_]{1,512}$`)
)

func isHTTP(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// Close ends webhooks, retries and statuses under way, and waits for them.
func (s *Simulator) Close() {
	s.courier.Close()
	s.cfg.Client.CloseIdleConnections()
}

// Numbers returns the E.164 numbers that customers can write to.
func (s *Simulator) Numbers() []string {
	var numbers []string
	for _, n := range s.cfg.Numbers {
		numbers = append(numbers, n.DisplayNumber)
	}
	return numbers
}

// Name returns what a customer sees as the name of a business number; empty when
// the number has none or is unknown.
func (s *Simulator) Name(businessE164 string) string {
	if n := s.numberOf(businessE164); n != nil {
		return n.VerifiedName
	}
	return ""
}

func (s *Simulator) numberOf(businessE164 string) *Number {
	i := slices.IndexFunc(s.cfg.Numbers, func(n Number) bool { return n.DisplayNumber == businessE164 })
	if i < 0 {
		return nil
	}
	return &s.cfg.Numbers[i]
}

// start sends an accepted message on its way through the network.
func (s *Simulator) start(m *message) {
	s.courier.Go(func(ctx context.Context) {
		if !faults.Wait(ctx, s.cfg.SentAfter) {
			return
		}
		// Asked again now: the customer may have left WhatsApp since the answer.
		m.handset = s.phones.Handset(m.To)
		switch {
		case m.failure != nil:
		case !m.handset.OnWhatsApp:
			m.failure = errUndeliverable
		case m.handset.Blocked:
			m.failure = errBlocked
		}
		if m.failure != nil && m.failAfter == "" {
			s.fail(m)
			return
		}
		s.report(m, statusSent)
		if !faults.Wait(ctx, s.cfg.DeliveredAfter) {
			return
		}
		if m.failure != nil && m.failAfter == statusSent {
			s.fail(m)
			return
		}
		s.mu.Lock()
		s.waiting[m.To] = append(s.waiting[m.To], m)
		s.mu.Unlock()
		s.Reachable(m.To)
	})
}

func (s *Simulator) fail(m *message) {
	s.forget(m)
	s.report(m, statusFailed)
}

// Reachable delivers what waits for a phone, if it can be reached. Call it when
// a phone is switched on. What has waited longer than its life is dropped, and
// nobody is told.
func (s *Simulator) Reachable(customerE164 string) {
	handset := s.phones.Handset(customerE164)
	if !handset.Reachable || handset.Blocked {
		return
	}
	now := s.cfg.Now()
	s.mu.Lock()
	var due []*message
	for _, m := range s.waiting[handset.E164] {
		if now.After(m.expiresAt) {
			delete(s.messages, m.ID)
			continue
		}
		m.delivered = true
		due = append(due, m)
	}
	delete(s.waiting, handset.E164)
	s.mu.Unlock()
	for _, m := range due {
		s.phones.Deliver(m.Delivery)
		if !m.noReceipt {
			s.report(m, statusDelivered)
		}
		if m.failure != nil {
			s.fail(m)
		}
	}
}

// Read reports as read those of the messages that were delivered and not read
// before. Unknown ids are passed over.
func (s *Simulator) Read(ids []string) {
	for _, id := range ids {
		s.mu.Lock()
		m := s.messages[id]
		known := m != nil && m.delivered
		if known {
			delete(s.messages, id)
		}
		s.mu.Unlock()
		if known {
			s.report(m, statusRead)
		}
	}
}

func (s *Simulator) forget(m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.messages, m.ID)
}

// mostInbound is how many customers' messages can still be marked as read; a
// simulator that runs for weeks must not grow for ever.
const mostInbound = 100_000

// remember notes a customer's message, and opens the service window.
func (s *Simulator) remember(id string, p pair, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.windows[p] = at
	s.inbound[id] = p
	s.heard = append(s.heard, id)
	if len(s.heard) > s.keep {
		for _, old := range s.heard[:s.keep/2] {
			delete(s.inbound, old)
		}
		s.heard = slices.Clone(s.heard[s.keep/2:])
	}
}

// windowOpen says whether the customer wrote to the number recently enough for a
// message that is not a template.
func (s *Simulator) windowOpen(p pair) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, wrote := s.windows[p]
	return wrote && s.cfg.Now().Sub(last) < s.cfg.Window
}

// bucket limits a rate: it holds up to burst turns and gains one per interval.
type bucket struct {
	turns float64
	at    time.Time
}

// take uses one turn; false when there is none. A burst below zero is no limit.
func (s *Simulator) take(key any, burst int, interval time.Duration) bool {
	if burst < 0 || interval < 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	b := s.buckets[key]
	if b == nil {
		b = &bucket{turns: float64(burst), at: now}
		s.buckets[key] = b
	}
	b.turns = min(float64(burst), b.turns+float64(now.Sub(b.at))/float64(interval))
	b.at = now
	if b.turns < 1 {
		return false
	}
	b.turns--
	return true
}

// userID returns the business-scoped user id of a customer: another for each
// business account and after each change, and remembered so that it can be sent
// to.
func (s *Simulator) userID(n *Number, handset Handset) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := moveKey{n.WABAID, handset.E164}
	id, known := s.currentIDs[key]
	if !known {
		id = userIDOf(n.WABAID, handset.E164, s.moves[key])
		s.currentIDs[key] = id
		s.userIDs[id] = handset.E164
	}
	return id
}

func userIDOf(waba, e164 string, move int) string {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s/%s", waba, e164) // a hash never fails
	if move > 0 {
		_, _ = fmt.Fprintf(h, "/%d", move)
	}
	region := "US"
	if parsed, err := phonenumbers.Parse(e164, ""); err == nil {
		if r := phonenumbers.GetRegionCodeForNumber(parsed); len(r) == 2 && r != "ZZ" {
			region = r
		}
	}
	return fmt.Sprintf("%s.%020d", region, h.Sum64())
}

// parentOf is the id of the parent portfolio for a user id, or empty where the
// number's portfolio has no parent.
func (n *Number) parentOf(userID string) string {
	if !n.ParentUserIDs || userID == "" {
		return ""
	}
	region, rest, _ := strings.Cut(userID, ".")
	return region + ".ENT." + rest
}

// NewID returns a message id like Meta's: opaque, and with characters that a
// client would have to escape.
func NewID() string { return "wamid." + base64.StdEncoding.EncodeToString(randomBytes(28)) }

func newTrace() string { return "A" + base64.RawURLEncoding.EncodeToString(randomBytes(16)) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
