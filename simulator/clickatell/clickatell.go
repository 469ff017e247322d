// Package clickatell plays Clickatell's side of SMS and WhatsApp: the One API
// (POST /v1/message, message status, balance), the older REST and HTTP sends, and
// the callbacks of both generations. It checks what Clickatell checks and refuses
// what Clickatell refuses, with the codes of the public documentation
// (docs.clickatell.com/channels/one-api, help.clickatell.com). Where that is
// silent, the comments say what was chosen.
//
// The calls live under /clickatell/, so a client's base address is this server's
// with /clickatell behind it. Beside them lie two control calls, whose bodies
// are strict JSON; a wrong one is answered with a problem document whose field
// names what is wrong:
//
//	POST /clickatell/integrations/{id}  {["balance","callbacks","charset"]}: changes a running integration
//	POST /clickatell/replies            {"from"[,"to","channel","event","members"]}: a customer's message of any kind,
//	                                    such as {"event":"moMedia","members":{"contentType":"image/png","content":"..."}}
//
// Rules of package faults refuse sends with a code of the errors table, such as
// 18, 19 or 43, and let messages fail with one of the status table.
package clickatell

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"paythread/simulator/faults"
)

// The names under which calls and webhooks appear in fault rules and in the call
// log.
const (
	CallMessages       = "clickatell.messages"        // POST /v1/message: a send
	CallFetch          = "clickatell.messages.fetch"  // GET /v1/message/{id}
	CallBalance        = "clickatell.balance"         // GET /v1/balance
	CallLegacyMessages = "clickatell.legacy.messages" // POST /messages and GET /messages/http/send
	CallWebhookInbound = "clickatell.webhook.inbound" // a customer's message
	CallWebhookStatus  = "clickatell.webhook.status"  // a status callback
)

// SMS and WhatsApp are the channels of a number and of a delivery.
const (
	SMS      = "sms"
	WhatsApp = "whatsapp"
)

// The two generations of callbacks, which share no shape and few codes: the
// values of Integration.Callbacks.
const (
	OneAPI = "one_api"
	Legacy = "legacy"
)

// The character sets of the legacy reply callback: the values of
// Integration.Charset.
const (
	UTF8    = "UTF-8"      // the text as it is
	UTF16BE = "UTF-16BE"   // its bytes, percent-encoded
	Latin1  = "ISO-8859-1" // the same; a text that does not fit goes out as UTF-16BE
)

// Integration is one integration of an account: an API key, its numbers and its
// callback addresses.
type Integration struct {
	ID, Name  string
	APIKey    string
	Numbers   []Number
	Templates []Template

	// InboundURL and StatusURL receive replies and statuses; either may be empty.
	// Nothing signs a callback: a secret in the path and HTTP Basic are all that a
	// receiver can ask for.
	InboundURL, StatusURL string
	Username, Password    string // HTTP Basic on callbacks; none when Username is empty

	Callbacks string // OneAPI (the default) or Legacy
	Charset   string // of legacy replies; UTF8 is the default

	// HandlesStop makes the integration obey STOP and START on SMS: sends to who
	// wrote STOP are refused with 26. Without it the words are messages like any
	// other.
	HandlesStop bool
	// ChecksLate lets a WhatsApp message to a number without WhatsApp end with the
	// status RECIPIENT_DOES_NOT_EXIST instead of being refused with 27. The
	// documents have both.
	ChecksLate bool

	MaxParts  int // of one SMS, before it is refused with 100; 10
	PerSecond int // messages in one second, before a call is refused with 43; 0 for no limit

	Balance  float64 // what it begins with; 0 for 1000
	Currency string  // ZAR
}

// Number is one sender of an integration on one channel. A number that does both
// SMS and WhatsApp stands twice in the list.
type Number struct {
	Channel   string // SMS (the default) or WhatsApp
	E164      string
	Name      string // what the customer sees above the chat
	Suspended bool   // sends from it are refused with 44
	OneWay    bool   // sends from it are refused with 101
}

// Template is an approved WhatsApp template.
type Template struct {
	Name         string
	Body         string // with {{1}}, {{2}}, ...
	ButtonLabel  string // a link below the text; empty for none
	ButtonURL    string // may hold variables, of the same numbering
	QuickReplies []string
}

// Config says which integrations exist and how fast the network is. The zero
// value has none.
type Config struct {
	Integrations []Integration

	SentAfter      time.Duration // from the answer to SENT_TO_SUPPLIER
	DeliveredAfter time.Duration // from there to the phone and DEVICE_ACK
	Window         time.Duration // WhatsApp's customer service window; 24 h

	CallbackTimeout time.Duration   // 10 s; Clickatell's own is not published
	CallbackRetries []time.Duration // waits before each redelivery; neither is its schedule

	Now    func() time.Time
	Log    *slog.Logger
	Client *http.Client // for callbacks
}

// defaultRetries stands in for Clickatell's schedule, which is not published.
var defaultRetries = []time.Duration{
	200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second,
	10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute,
}

// Handset is what the network knows of one customer.
type Handset struct {
	E164            string
	WaID            string // WhatsApp's spelling of the number, digits only
	Name            string
	OnWhatsApp      bool
	Reachable       bool
	BlockedSMS      bool
	BlockedWhatsApp bool
}

// Button is a button below a message: a reply (ID set) or a link (URL set).
type Button struct {
	ID    string
	Title string
	URL   string
}

// Delivery is a message that has reached a phone.
type Delivery struct {
	ID       string // apiMessageId
	Channel  string
	From, To string // E.164
	Text     string
	Buttons  []Button
}

// Phones are the customers' phones, as far as the network needs them.
type Phones interface {
	// Handset returns the state of the phone with that number; every number has
	// a phone.
	Handset(e164 string) Handset
	// Deliver shows a message on the phone.
	Deliver(Delivery)
	// Accepted tells the phone that the business took the customer's message.
	Accepted(e164, id string)
}

// Simulator is Clickatell's side. It is safe for concurrent use; Close ends its
// callbacks.
type Simulator struct {
	cfg     Config
	set     *faults.Set
	phones  Phones
	courier *faults.Courier
	newID   func() string
	shuffle func(n int, swap func(i, j int)) // the order of a batch's answer

	mu       sync.Mutex
	accounts []*account
	messages map[string]*message // by id
	order    []string            // ids, oldest first
	keep     int                 // mostMessages
	waiting  map[string][]*message
	optedOut map[pair]bool
	windows  map[pair]time.Time
	lastSent map[pair]*message // what a reply answers
}

// account is an integration with what changes in it, guarded by Simulator.mu.
type account struct {
	Integration
	balance   float64
	callbacks string
	charset   string
	second    int64
	sent      int // messages in that second
}

// pair is a sender on its channel, and a customer.
type pair struct{ channel, business, customer string }

// message is one message to a customer. Its fields are guarded by Simulator.mu,
// but for those set when it is made.
type message struct {
	Delivery
	account   *account
	clientID  string
	requestID string // of the legacy callbacks
	failure   status // decided when it was accepted
	failAfter string // the status before it, sent or delivered; empty for none

	status    status
	updatedAt time.Time
}

// New checks cfg and returns a running simulator. The set and phones must not be
// nil.
func New(cfg Config, set *faults.Set, phones Phones) (*Simulator, error) {
	cfg.Window = cmp.Or(cfg.Window, 24*time.Hour)
	cfg.CallbackTimeout = cmp.Or(cfg.CallbackTimeout, 10*time.Second)
	if cfg.CallbackRetries == nil {
		cfg.CallbackRetries = defaultRetries
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
		cfg.Client = &http.Client{Transport: transport}
	}
	client := *cfg.Client // the caller's own follows redirects as it likes
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg.Client = &client
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Simulator{
		cfg:      cfg,
		set:      set,
		phones:   phones,
		courier:  set.NewCourier(),
		newID:    NewID,
		shuffle:  mathrand.Shuffle,
		keep:     mostMessages,
		messages: make(map[string]*message),
		waiting:  make(map[string][]*message),
		optedOut: make(map[pair]bool),
		windows:  make(map[pair]time.Time),
		lastSent: make(map[pair]*message),
	}
	for _, in := range cfg.Integrations {
		s.accounts = append(s.accounts, newAccount(in))
	}
	return s, nil
}

func newAccount(in Integration) *account {
	in.Numbers = slices.Clone(in.Numbers) // the defaults below are not the caller's
	for i := range in.Numbers {
		in.Numbers[i].Channel = cmp.Or(in.Numbers[i].Channel, SMS)
	}
	in.MaxParts = cmp.Or(in.MaxParts, 10)
	in.Currency = cmp.Or(in.Currency, "ZAR")
	return &account{
		Integration: in,
		balance:     cmp.Or(in.Balance, 1000),
		callbacks:   cmp.Or(in.Callbacks, OneAPI),
		charset:     cmp.Or(in.Charset, UTF8),
	}
}

var e164 = regexp.MustCompile(`^\+[1-9]\d{6,14}$`)

// check reports everything wrong with the configuration at once.
func (c Config) check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("clickatell: "+format, args...)) }
	ids, keys, numbers := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, in := range c.Integrations {
		switch {
		case in.ID == "" || ids[in.ID]:
			wrong("integration %d: ID is missing or used twice", i)
		case in.APIKey == "" || keys[in.APIKey]:
			wrong("integration %d: APIKey is missing or used twice", i)
		case !callable(in.InboundURL) || !callable(in.StatusURL):
			wrong("integration %d: InboundURL and StatusURL must be http addresses", i)
		case !slices.Contains([]string{"", OneAPI, Legacy}, in.Callbacks):
			wrong("integration %d: Callbacks must be one_api or legacy", i)
		case !slices.Contains(charsets, in.Charset):
			wrong("integration %d: Charset must be UTF-8, UTF-16BE or ISO-8859-1", i)
		}
		ids[in.ID], keys[in.APIKey] = true, true
		for j, n := range in.Numbers {
			key := cmp.Or(n.Channel, SMS) + n.E164
			switch {
			case !slices.Contains([]string{"", SMS, WhatsApp}, n.Channel):
				wrong("integration %d, number %d: Channel must be sms or whatsapp", i, j)
			case !e164.MatchString(n.E164):
				wrong("integration %d, number %d: E164 is not E.164", i, j)
			case numbers[key]:
				wrong("integration %d, number %d: the number is used twice", i, j)
			}
			numbers[key] = true
		}
		for j, t := range in.Templates {
			if t.Name == "" || t.Body == "" {
				wrong("integration %d, template %d: Name and Body are needed", i, j)
			}
		}
	}
	return errors.Join(errs...)
}

var charsets = []string{"", UTF8, UTF16BE, Latin1}

// callable says whether the address can be called; none at all is right, too.
func callable(address string) bool {
	u, err := url.Parse(address)
	return address == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// Close ends callbacks and statuses under way, and waits for them.
func (s *Simulator) Close() {
	s.courier.Close()
	s.cfg.Client.CloseIdleConnections()
}

// Numbers returns all senders, with their channels.
func (s *Simulator) Numbers() []Number {
	var numbers []Number
	for _, a := range s.accounts {
		numbers = append(numbers, a.Numbers...)
	}
	return numbers
}

func (s *Simulator) account(id string) *account {
	i := slices.IndexFunc(s.accounts, func(a *account) bool { return a.ID == id })
	if i < 0 {
		return nil
	}
	return s.accounts[i]
}

func (s *Simulator) accountOf(channel, businessE164 string) *account {
	for _, a := range s.accounts {
		if a.number(channel, businessE164) != nil {
			return a
		}
	}
	return nil
}

// number finds a sender of the channel; with an empty number the first there is.
func (a *account) number(channel, businessE164 string) *Number {
	i := slices.IndexFunc(a.Numbers, func(n Number) bool {
		return n.Channel == channel && (businessE164 == "" || n.E164 == businessE164)
	})
	if i < 0 {
		return nil
	}
	return &a.Numbers[i]
}

// mostMessages is how many messages can be asked about; a simulator that runs for
// weeks must not grow for ever.
const mostMessages = 100_000

// store keeps new messages.
func (s *Simulator) store(batch []*message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range batch {
		m.status, m.updatedAt = statusQueued, s.cfg.Now()
		s.messages[m.ID] = m
		s.order = append(s.order, m.ID)
	}
	if len(s.order) > s.keep {
		for _, old := range s.order[:s.keep/2] {
			delete(s.messages, old)
		}
		s.order = slices.Clone(s.order[s.keep/2:])
	}
}

// start sends an accepted message on its way through the network.
func (s *Simulator) start(m *message) {
	s.courier.Go(func(ctx context.Context) {
		if !faults.Wait(ctx, s.cfg.SentAfter) {
			return
		}
		if failure := s.failureAtOnce(m); failure.code != 0 {
			s.report(m, failure)
			return
		}
		s.report(m, statusSent)
		if !faults.Wait(ctx, s.cfg.DeliveredAfter) {
			return
		}
		handset := s.phones.Handset(m.To)
		switch {
		case m.failAfter == "sent":
			s.report(m, m.failure)
		case m.Channel == SMS && handset.BlockedSMS:
			s.report(m, statusUndelivered)
		case m.Channel == SMS && !handset.Reachable:
			// A carrier gives up on a handset; WhatsApp below keeps the message.
			s.report(m, statusExpired)
		case m.Channel == SMS:
			s.arrive(m)
		default:
			s.mu.Lock()
			s.waiting[m.To] = append(s.waiting[m.To], m)
			s.mu.Unlock()
			s.Reachable(m.To)
		}
	})
}

// failureAtOnce is why a message gets no further than Clickatell; its zero value
// lets it go on.
func (s *Simulator) failureAtOnce(m *message) status {
	handset := s.phones.Handset(m.To)
	switch {
	case m.failure.code != 0 && m.failAfter == "":
		return m.failure
	case s.isOptedOut(m.pair()):
		return statusStopped // the word came after the send
	case m.Channel == WhatsApp && !handset.OnWhatsApp:
		return statusNotOnChannel
	case m.Channel == WhatsApp && handset.BlockedWhatsApp:
		return statusUndelivered
	}
	return status{}
}

// Reachable delivers what waits for a phone on WhatsApp, if it can be reached.
// Call it when a phone is switched on.
func (s *Simulator) Reachable(customerE164 string) {
	handset := s.phones.Handset(customerE164)
	if !handset.Reachable || handset.BlockedWhatsApp {
		return
	}
	s.mu.Lock()
	due := s.waiting[handset.E164]
	delete(s.waiting, handset.E164)
	s.mu.Unlock()
	for _, m := range due {
		s.arrive(m)
	}
}

// arrive shows the message on the phone and reports it delivered. The state goes
// first, so that a customer who reads at once is heard.
func (s *Simulator) arrive(m *message) {
	s.mu.Lock()
	m.status = statusDelivered
	s.lastSent[m.pair()] = m
	s.mu.Unlock()
	s.phones.Deliver(m.Delivery)
	s.report(m, statusDelivered)
	if m.failure.code != 0 {
		s.report(m, m.failure) // failures can come late
	}
}

// Read reports as read those of the messages that were delivered on WhatsApp and
// not read before; SMS knows no read receipts. Unknown ids are passed over.
func (s *Simulator) Read(ids []string) {
	for _, id := range ids {
		s.mu.Lock()
		m := s.messages[id]
		unread := m != nil && m.Channel == WhatsApp && m.status == statusDelivered
		if unread {
			m.status = statusRead
		}
		s.mu.Unlock()
		if unread {
			s.report(m, statusRead)
		}
	}
}

// record notes a status. It never goes back from read.
func (s *Simulator) record(m *message, st status, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.status != statusRead {
		m.status = st
	}
	m.updatedAt = at
}

func (s *Simulator) windowOpen(p pair) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, wrote := s.windows[p]
	return wrote && s.cfg.Now().Sub(last) < s.cfg.Window
}

func (s *Simulator) isOptedOut(p pair) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.optedOut[p]
}

func (m *message) pair() pair { return pair{m.Channel, m.From, m.To} }

// digits is how Clickatell writes an E.164 number.
func digits(number string) string { return strings.TrimPrefix(number, "+") }

// NewID returns the id of a new message: 32 hex digits.
func NewID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
