// Package twilio plays Twilio's side of Programmable Messaging, SMS and
// WhatsApp: the Messages resource, status callbacks, inbound webhooks, and the
// opt-out words that Twilio handles by itself. It checks what Twilio checks and
// refuses what Twilio refuses, with the error bodies and signatures of the public
// documentation (twilio.com/docs/messaging, twilio.com/docs/usage/security).
//
// The calls live under /twilio/..., so a client's base address is this server's
// with /twilio behind it, whichever of Twilio's hosts a call has:
//
//	POST 2010-04-01/Accounts/{AC}/Messages.json     send
//	GET  2010-04-01/Accounts/{AC}/Messages.json     list; ?To= &From= &DateSent= &DateSent>= &DateSent<= &PageSize= &Page=
//	GET  2010-04-01/Accounts/{AC}/Messages/{SM}.json
//	GET  2010-04-01/Accounts/{AC}.json
//	GET  2010-04-01/Accounts/{AC}/IncomingPhoneNumbers.json     ?PhoneNumber=
//	GET  v1/Services/{MG}, v1/Services/{MG}/PhoneNumbers        of messaging.twilio.com
//	GET  v2/Channels/Senders                                    WhatsApp senders
//	GET  v1/Content, v1/Content/{HX}, v1/Content/{HX}/ApprovalRequests
//	POST v3/Indicators/Typing.json                  JSON; v2 takes a form
//
// # Control calls
//
// Bodies are strict JSON; a wrong one is answered with a problem document whose
// field names what is wrong. "account" may be left out when there is only one.
//
//	GET  /twilio/contents    all templates with their approval
//	POST /twilio/contents    {"sid","status"[,"reason"]}: approved, pending, rejected, paused, disabled, unsubmitted
//	POST /twilio/accounts    {"suspended"}: sends are refused with 20005
//	POST /twilio/messages    {"channel","from","to","text","parameters":{...}}: a customer's message, with any parameters
//	POST /twilio/webhooks    how webhooks are written from now on: "json" bodies with bodySHA256, "get", "extra" for new
//	                         parameters, some of them empty, and "port" of the signed address: add, drop, alternate
package twilio

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
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
	CallMessages       = "twilio.messages"        // POST Messages.json: a send
	CallFetch          = "twilio.messages.fetch"  // GET of one message
	CallList           = "twilio.messages.list"   // GET Messages.json
	CallAccount        = "twilio.account"         // GET of the account
	CallNumbers        = "twilio.numbers"         // GET of its phone numbers, or of WhatsApp senders
	CallService        = "twilio.service"         // GET of a Messaging Service, or of its numbers
	CallContent        = "twilio.content"         // GET of a template, or of its approval
	CallTyping         = "twilio.typing"          // POST of a typing indicator
	CallWebhookInbound = "twilio.webhook.inbound" // a customer's message
	CallWebhookStatus  = "twilio.webhook.status"  // a status callback
)

// SMS and WhatsApp are the channels of a number and of a delivery.
const (
	SMS      = "sms"
	WhatsApp = "whatsapp"
)

// Account is one Twilio account.
type Account struct {
	SID       string
	AuthToken string
	Keys      map[string]string // API keys and their secrets
	Suspended bool              // sends are refused with 20005
	// Test makes these test credentials: nothing is sent, and Twilio's magic
	// numbers have their outcomes.
	Test     bool
	Numbers  []Number
	Services []Service
	Contents []Content
}

// Number is one sender of an account on one channel. A number that does both SMS
// and WhatsApp stands twice in the list.
type Number struct {
	Channel    string // SMS (the default) or WhatsApp
	E164       string
	Name       string // what the customer sees above the chat
	InboundURL string // with Twilio's connection overrides in its fragment; may be empty

	InboundMethod  string  // POST (the default) or GET
	FallbackURL    string  // called when InboundURL fails
	StatusCallback string  // only shown by IncomingPhoneNumbers
	PerSecond      float64 // segments that leave its queue; 0 for no queue
	Unregistered   bool    // its messages to +1 end with 30034
}

// Service is a Messaging Service; it sends from the first of its numbers that
// has the recipient's channel. An opt-out from one of its numbers counts for all.
type Service struct {
	SID     string
	Name    string
	Numbers []string // E.164

	InboundURL     string // takes the place of its numbers' own, unless NumberURLs
	InboundMethod  string
	NumberURLs     bool   // use_inbound_webhook_on_number
	StatusCallback string // for messages without one
	ValidityPeriod int    // seconds; 36000 when 0
	OptOut         *OptOut
}

// OptOut is Advanced Opt-Out: a service's own words, and what it answers. Empty
// lists and answers are Twilio's usual ones.
type OptOut struct {
	Stop, Start, Help                []string
	StopReply, StartReply, HelpReply string
}

// Content is a message template of the Content API.
type Content struct {
	SID          string // HX...
	Body         string // with {{1}}, {{2}}, ...
	ButtonLabel  string // a link below the text; empty for none
	ButtonURL    string // may hold variables
	QuickReplies []string

	Name     string
	Language string // en when empty
	Category string // UTILITY when empty
	Status   string // of WhatsApp's approval: approved (the default), pending, rejected, paused, disabled, unsubmitted
	Reason   string // of a rejection
}

// Config says which accounts exist and how fast the network is.
type Config struct {
	Accounts []Account

	SentAfter      time.Duration // from the answer to "sent"
	DeliveredAfter time.Duration // from "sent" to the phone and "delivered"
	Window         time.Duration // WhatsApp's customer service window; 24 h
	RetryPause     time.Duration // before a webhook is tried again

	Landlines      []string // E.164 numbers that cannot get an SMS (21614)
	ClosedPrefixes []string // such as +53: countries the account may not send to (21408)
	NoReceipts     []string // prefixes of countries whose carriers send no receipts: the last status is sent
	Filtered       []string // parts of an SMS that make carriers filter it (30007)
	Concurrency    int      // sends of one account at a time, else 20429; 0 for no limit
	ExpiryCode     int      // of a message whose validity period ends in the queue; 30036

	Now    func() time.Time
	Log    *slog.Logger
	Client *http.Client // for webhooks
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
	UserID          string // business-scoped user id on WhatsApp; may be empty
	HideNumber      bool   // with a UserID: businesses do not see the number
}

// Button is a button below a message: a reply (ID set) or a link (URL set).
type Button struct {
	ID    string
	Title string
	URL   string
}

// Delivery is a message that has reached a phone.
type Delivery struct {
	ID       string // the message's SID
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

// Reader is what Phones may have, too: it shows that the business has read all up
// to id, and is typing.
type Reader interface {
	MarkedRead(e164, id string, typing bool)
}

// Simulator is Twilio's side. It is safe for concurrent use; Close ends its
// webhooks.
type Simulator struct {
	cfg     Config
	set     *faults.Set
	phones  Phones
	courier *faults.Courier

	mu       sync.Mutex
	messages map[string]*message // by SID
	order    []*message          // oldest first, for lists
	keep     int                 // mostMessages
	waiting  map[string][]*message
	optedOut map[pair]bool
	windows  map[pair]time.Time
	turns    map[pair]time.Time // when a sender's queue is empty; without a customer
	sending  map[string]int     // sends in progress, by account
	inactive map[string]bool    // suspended accounts
	contents map[contentKey]*Content
	userIDs  map[string]string // to E.164
	habits   Habits
	posted   int // webhooks so far, for Habits.Port
}

type contentKey struct{ account, content string }

// pair is a sender on its channel, and a customer.
type pair struct{ channel, business, customer string }

// message is one message, either way. Its fields are guarded by Simulator.mu,
// but for those set when it is made.
type message struct {
	Delivery
	account   *Account
	service   string // the Messaging Service it was sent with
	direction string
	callback  string
	media     int
	createdAt time.Time
	failure   int           // decided when it was accepted
	failAfter string        // the status that comes before the failure
	ending    string        // failed or undelivered; empty for the code's usual one
	validity  time.Duration // how long it may wait in the queue
	turn      time.Duration // how long it has to
	addressed string        // To, when it was a user id

	status    string
	sentAt    time.Time
	updatedAt time.Time
	errorCode int
}

// New checks cfg and returns a running simulator. The set and phones must not be
// nil.
func New(cfg Config, set *faults.Set, phones Phones) (*Simulator, error) {
	cfg.Window = cmp.Or(cfg.Window, 24*time.Hour)
	cfg.ExpiryCode = cmp.Or(cfg.ExpiryCode, codeExpired)
	cfg.RetryPause = cmp.Or(cfg.RetryPause, 200*time.Millisecond)
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
	s := &Simulator{
		cfg:      cfg,
		keep:     mostMessages,
		set:      set,
		phones:   phones,
		courier:  set.NewCourier(),
		messages: make(map[string]*message),
		waiting:  make(map[string][]*message),
		optedOut: make(map[pair]bool),
		windows:  make(map[pair]time.Time),
		turns:    make(map[pair]time.Time),
		sending:  make(map[string]int),
		inactive: make(map[string]bool),
		contents: make(map[contentKey]*Content),
		userIDs:  make(map[string]string),
	}
	if err := s.check(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

var (
	e164       = regexp.MustCompile(`^\+[1-9]\d{6,14}$`)
	accountSID = regexp.MustCompile(`^AC[0-9a-f]{32}$`)
	contentSID = regexp.MustCompile(`^HX[0-9a-f]{32}$`)
)

// check reports everything wrong with the configuration at once.
func (s *Simulator) check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("twilio: "+format, args...)) }
	sids, numbers := map[string]bool{}, map[string]bool{}
	for i := range s.cfg.Accounts {
		a := &s.cfg.Accounts[i]
		switch {
		case !accountSID.MatchString(a.SID):
			wrong("account %d: SID must be AC and 32 hex digits", i)
		case sids[a.SID]:
			wrong("account %d: SID is used twice", i)
		case a.AuthToken == "":
			wrong("account %d: AuthToken is missing", i)
		}
		sids[a.SID], s.inactive[a.SID] = true, a.Suspended
		a.Numbers = slices.Clone(a.Numbers) // the defaults below are not the caller's
		for j := range a.Numbers {
			n := &a.Numbers[j]
			n.Channel = cmp.Or(n.Channel, SMS)
			switch {
			case n.Channel != SMS && n.Channel != WhatsApp:
				wrong("account %d, number %d: Channel must be sms or whatsapp", i, j)
			case !e164.MatchString(n.E164):
				wrong("account %d, number %d: E164 is not E.164", i, j)
			case numbers[n.Channel+n.E164]:
				wrong("account %d, number %d: the number is used twice", i, j)
			case n.InboundURL != "" && !callable(n.InboundURL):
				wrong("account %d, number %d: InboundURL is not an http address", i, j)
			}
			numbers[n.Channel+n.E164] = true
		}
		for j, c := range a.Contents {
			if !contentSID.MatchString(c.SID) || c.Body == "" {
				wrong("account %d, content %d: SID must be HX and 32 hex digits, and Body is needed", i, j)
			}
			c.Status, c.Language, c.Category = cmp.Or(c.Status, contentApproved), cmp.Or(c.Language, "en"), cmp.Or(c.Category, "UTILITY")
			s.contents[contentKey{a.SID, c.SID}] = &c
		}
	}
	return errors.Join(errs...)
}

// callable says whether Twilio would call the address: http, and a host name that
// is valid, so without an underscore.
func callable(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && !strings.Contains(u.Hostname(), "_")
}

// Close ends webhooks and statuses under way, and waits for them.
func (s *Simulator) Close() {
	s.courier.Close()
	s.cfg.Client.CloseIdleConnections()
}

// Numbers returns all senders, with their channels.
func (s *Simulator) Numbers() []Number {
	var numbers []Number
	for _, a := range s.cfg.Accounts {
		numbers = append(numbers, a.Numbers...)
	}
	return numbers
}

func (s *Simulator) numberOf(channel, businessE164 string) (*Account, *Number) {
	for i := range s.cfg.Accounts {
		a := &s.cfg.Accounts[i]
		if n := a.number(channel, businessE164); n != nil {
			return a, n
		}
	}
	return nil, nil
}

func (a *Account) number(channel, businessE164 string) *Number {
	i := slices.IndexFunc(a.Numbers, func(n Number) bool { return n.Channel == channel && n.E164 == businessE164 })
	if i < 0 {
		return nil
	}
	return &a.Numbers[i]
}

// serviceOf is the Messaging Service that a number is in, or nil.
func (a *Account) serviceOf(businessE164 string) *Service {
	i := slices.IndexFunc(a.Services, func(sv Service) bool { return slices.Contains(sv.Numbers, businessE164) })
	if i < 0 {
		return nil
	}
	return &a.Services[i]
}

// Error codes that a message can end with.
const (
	codeUnreachable    = 30003
	codeBlockedSMS     = 30004
	codeNotOnWhatsApp  = 63024
	codeBlockedByUser  = 63014
	codeOutsideWindow  = 63016
	codeOptedOut       = 21610
	codeFiltered       = 30007
	codeUnregistered   = 30034
	codeExpired        = 30036
	codePaused         = 63040
	codeDisabled       = 63041
	statusSent         = "sent"
	statusDelivered    = "delivered"
	statusRead         = "read"
	statusUndelivered  = "undelivered"
	directionAPI       = "outbound-api"
	directionReply     = "outbound-reply"
	directionInbound   = "inbound"
	statusReceived     = "received"
	statusQueued       = "queued"
	statusAccepted     = "accepted"
	whatsAppPrefix     = "whatsapp:"
	longestMessageList = 1000
)

// mostMessages is how many messages can be fetched and listed; a simulator that
// runs for weeks must not grow for ever.
const mostMessages = 100_000

// store keeps a new message.
func (s *Simulator) store(m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.updatedAt = m.createdAt
	s.messages[m.ID] = m
	s.order = append(s.order, m)
	if len(s.order) > s.keep {
		for _, old := range s.order[:s.keep/2] {
			delete(s.messages, old.ID)
		}
		s.order = slices.Clone(s.order[s.keep/2:])
	}
}

// start sends an accepted message on its way through the network.
func (s *Simulator) start(m *message) {
	s.courier.Go(func(ctx context.Context) {
		if m.turn > m.validity {
			if faults.Wait(ctx, m.validity) {
				s.report(m, statusFailed, s.cfg.ExpiryCode)
			}
			return
		}
		if m.service != "" && m.status == statusAccepted {
			s.report(m, statusQueued, 0) // the service has chosen its sender
		}
		if !faults.Wait(ctx, m.turn+s.cfg.SentAfter) {
			return
		}
		if m.failure == 0 {
			m.failure, m.failAfter = s.networkFailure(m)
		}
		if m.failure != 0 && m.failAfter == "" {
			s.fail(m)
			return
		}
		s.report(m, statusSent, 0)
		if !faults.Wait(ctx, s.cfg.DeliveredAfter) {
			return
		}
		handset := s.phones.Handset(m.To)
		switch {
		case m.failure != 0 && m.failAfter == statusSent:
			s.fail(m)
		case m.Channel == SMS && handset.BlockedSMS:
			s.report(m, statusUndelivered, codeBlockedSMS)
		case m.Channel == SMS && !handset.Reachable:
			// A carrier gives up on a handset; WhatsApp below keeps the message.
			s.report(m, statusUndelivered, codeUnreachable)
		case m.Channel == SMS && slices.ContainsFunc(s.cfg.NoReceipts, m.toPrefix):
			s.phones.Deliver(m.Delivery)
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

// networkFailure is what a channel or a carrier refuses, and the status that the
// message has by then.
func (s *Simulator) networkFailure(m *message) (code int, after string) {
	handset := s.phones.Handset(m.To)
	switch {
	case m.Channel == WhatsApp && !handset.OnWhatsApp:
		return codeNotOnWhatsApp, ""
	case m.Channel == WhatsApp && handset.BlockedWhatsApp:
		return codeBlockedByUser, ""
	case m.Channel == WhatsApp:
		return 0, ""
	case strings.HasPrefix(m.To, "+1") && m.account.number(SMS, m.From).Unregistered:
		return codeUnregistered, ""
	case slices.ContainsFunc(s.cfg.Filtered, func(part string) bool { return strings.Contains(m.Text, part) }):
		return codeFiltered, statusSent
	}
	return 0, ""
}

func (m *message) toPrefix(prefix string) bool { return strings.HasPrefix(m.To, prefix) }

// fail ends a message with its failure.
func (s *Simulator) fail(m *message) {
	s.report(m, cmp.Or(m.ending, endingOf(m.failure)), m.failure)
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
	s.mu.Unlock()
	s.phones.Deliver(m.Delivery)
	s.report(m, statusDelivered, 0)
	if m.failure != 0 {
		s.fail(m)
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
			s.report(m, statusRead, 0)
		}
	}
}

// record notes a status on the resource. It never goes back from read.
func (s *Simulator) record(m *message, status string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if m.sentAt.IsZero() && status != statusQueued {
		m.sentAt = now
	}
	if m.status != statusRead {
		m.status = status
	}
	m.updatedAt, m.errorCode = now, code
}

func (s *Simulator) windowOpen(p pair) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, wrote := s.windows[p]
	return wrote && s.cfg.Now().Sub(last) < s.cfg.Window
}

func (s *Simulator) isOptedOut(a *Account, p pair) bool {
	p = a.optOutScope(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.optedOut[p]
}

// optOutScope is who a customer opts out of: the number, or the service that it
// is in.
func (a *Account) optOutScope(p pair) pair {
	if sv := a.serviceOf(p.business); sv != nil {
		p.business = sv.SID
	}
	return p
}

// NewID returns the SID of a new message.
func NewID() string { return newSID("SM") }

// newSID returns an id like Twilio's: two letters and 32 hex digits.
func newSID(prefix string) string { return prefix + randomHex(16) }

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
