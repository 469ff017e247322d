package checkout_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"

	"paythread/checkout"
	"paythread/checkout/platforms"
	"paythread/conversations"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	publicURL = "https://pay.acme.example"
	library   = "https://platform.example/library.js"
)

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// memoryStore keeps payment requests in memory and changes them by the
// domain's own tables, one event at a time.
type memoryStore struct {
	mu        sync.Mutex
	now       time.Time
	merchants map[string]conversations.Merchant
	requests  map[string]*conversations.PaymentRequest
	contacts  map[string]*conversations.Contact
	once      map[string]conversations.Applied
	kinds     []conversations.EventKind // what was committed, refused ones too
	// before and after, when set, may fail an Apply before or after its effect.
	before, after func(conversations.Event) error
	// tries are what was counted for addresses; refuseTry, when set, is the
	// answer to whoever asks for one.
	tries     []string
	refuseTry error
}

func (s *memoryStore) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *memoryStore) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *memoryStore) Merchant(id string) (conversations.Merchant, bool) {
	m, ok := s.merchants[id]
	return m, ok
}

func (s *memoryStore) Request(_ context.Context, id string) (*conversations.PaymentRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.requests[id]; ok {
		return r, nil
	}
	return nil, conversations.NotFound("payment request")
}

func (s *memoryStore) RequestByLink(_ context.Context, code string) (*conversations.PaymentRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.LinkCode == code || r.ReceiptCode == code {
			return r, nil
		}
	}
	return nil, conversations.NotFound("link")
}

func (s *memoryStore) Apply(_ context.Context, contactID string, event conversations.Event, once conversations.Once) (conversations.Applied, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before != nil {
		if err := s.before(event); err != nil {
			return conversations.Applied{}, err
		}
	}
	if first, ok := s.once[once.Key]; ok && once.Key != "" {
		first.Duplicate = true
		return first, nil
	}
	contact := s.contacts[contactID]
	state, effects, err := conversations.Apply(conversations.State{
		Merchant: s.merchants[contact.MerchantID], Timings: conversations.DefaultTimings(), Contact: contact,
		Requests: s.requests, Messages: map[string]*conversations.Message{},
	}, event, s.now)
	if err != nil && !errors.Is(err, conversations.ErrNothing) {
		return conversations.Applied{}, err
	}
	s.kinds = append(s.kinds, event.Kind())
	applied := conversations.Applied{Refused: effects.Refused}
	if err == nil {
		s.contacts[contactID] = state.Contact
		for id, r := range state.Requests {
			s.requests[id] = r
		}
		applied.Request = s.requests[effects.RequestID]
	}
	if once.Key != "" {
		s.once[once.Key] = applied
	}
	if s.after != nil {
		if err := s.after(event); errors.Is(err, conversations.ErrTooFewReplicas) {
			return applied, err // as the store does
		} else if err != nil {
			return conversations.Applied{}, err
		}
	}
	return applied, nil
}

func (s *memoryStore) Contact(_ context.Context, id string) (*conversations.Contact, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.contacts[id]; ok {
		return c, nil
	}
	return nil, conversations.NotFound("contact")
}

func (s *memoryStore) MayTry(context.Context, string, string, conversations.CardTesting) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refuseTry
}

func (s *memoryStore) BeginTry(_ context.Context, merchantID, address string, _ conversations.CardTesting) (conversations.Try, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries = append(s.tries, "begin "+merchantID+" "+address)
	return conversations.Try{}, s.refuseTry
}

func (s *memoryStore) EndTry(_ context.Context, _ conversations.Try, declined bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries = append(s.tries, map[bool]string{true: "declined", false: "given back"}[declined])
	return nil
}

func (s *memoryStore) counted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tries)
}

func (s *memoryStore) events() []conversations.EventKind {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kinds)
}

func (s *memoryStore) find(id string) *conversations.PaymentRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[id]
}

// edit changes a stored request without an event.
func (s *memoryStore) edit(id string, change func(*conversations.PaymentRequest)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := *s.requests[id]
	change(&r)
	s.requests[id] = &r
}

// fakePlatform takes every token that begins with "token" and answers charges
// as it is told.
type fakePlatform struct {
	mu       sync.Mutex
	contexts atomic.Int64
	charges  atomic.Int64
	library  string
	life     time.Duration
	now      func() time.Time
	failing  bool // contexts cannot be made
	answer   func(platforms.ChargeRequest) conversations.Result
	origins  []string // of the contexts that were asked for
}

func (p *fakePlatform) CreateContext(_ context.Context, r platforms.ContextRequest) (platforms.Context, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.contexts.Add(1)
	p.origins = append(p.origins, r.Origin)
	if p.failing {
		return platforms.Context{}, conversations.Unavailable(errors.New("the platform is away"))
	}
	return platforms.Context{
		Token: fmt.Sprintf("context-%d", n), LibraryURL: p.library, LibraryIntegrity: libraryIntegrity,
		KeyID: fmt.Sprintf("key-%d", n), Key: `{"kty":"RSA"}`, ExpiresAt: p.now().Add(p.life),
	}, nil
}

func (p *fakePlatform) CheckToken(token string, contexts []conversations.CaptureContext, now time.Time) (platforms.Token, error) {
	if !strings.HasPrefix(token, "token") || len(contexts) == 0 {
		return platforms.Token{}, platforms.ErrTokenInvalid
	}
	return platforms.Token{ExpiresAt: now.Add(15 * time.Minute), JTI: token, CardBrand: "VISA", CardLast4: "1111"}, nil
}

func (p *fakePlatform) Charge(_ context.Context, r platforms.ChargeRequest) conversations.Result {
	p.charges.Add(1)
	return p.answer(r)
}

func captured(r platforms.ChargeRequest) conversations.Result {
	return conversations.Result{Outcome: conversations.OutcomeCaptured, PaymentID: "pay-1", Amount: r.Attempt.Amount, ApprovalCode: "831000"}
}

func declined(platforms.ChargeRequest) conversations.Result {
	return conversations.Result{Outcome: conversations.OutcomeDeclined, Reason: "PROCESSOR_DECLINED"}
}

func zar(minor int64) conversations.Money {
	return conversations.Money{Minor: minor, Currency: "ZAR"}
}

func newRequest(id string) *conversations.PaymentRequest {
	return &conversations.PaymentRequest{
		ID: id, MerchantID: "acme", ContactID: "contact-" + id, Phone: "+27821234567", Channel: conversations.WhatsApp,
		Order: conversations.Order{
			Reference: "1042",
			LineItems: []conversations.LineItem{
				{Name: "Rooibos tea, 500 g", Quantity: 2, UnitPrice: zar(4500), Total: zar(9000)},
				{Name: "Teapot <blue> & \"white\"", Quantity: 1, UnitPrice: zar(4957), Total: zar(4957)},
			},
			Subtotal: zar(13957), Tax: zar(1943), Discount: zar(1000), Total: zar(14900),
		},
		Sandbox: true, Capture: true, LinkCode: "link-" + id, ReceiptCode: "receipt-" + id,
		CreatedAt: start, TimeToOpen: 24 * time.Hour, TimeToPay: 15 * time.Minute, OpenBy: start.Add(24 * time.Hour),
		Lifecycle: conversations.Open,
	}
}

// house is a pay page with everything around it.
type house struct {
	store    *memoryStore
	platform *fakePlatform
	keys     *checkout.KeyRing
	nonces   *checkout.Nonces
	app      *fiber.App
	log      *syncBuffer
	public   string
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var cardTesting = conversations.CardTesting{
	Window: 24 * time.Hour, ContactTries: 10, AddressTries: 30, FreeDeclines: 3, FirstDelay: 10 * time.Second, LongestDelay: time.Hour,
}

type setting func(*house, *checkout.Options)

func secrets(of ...string) func() [][]byte {
	var all [][]byte
	for _, s := range of {
		all = append(all, []byte(s))
	}
	return func() [][]byte { return all }
}

func newHouse(t *testing.T, settings ...setting) *house {
	t.Helper()
	path := filepath.Join(t.TempDir(), "link.key")
	if _, err := checkout.NewKeyFile(path); err != nil {
		t.Fatal(err)
	}
	keys, err := checkout.LoadKeys(path, "")
	if err != nil {
		t.Fatal(err)
	}
	nonces, err := checkout.NewNonces(secrets("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	h := &house{keys: keys, nonces: nonces, log: &syncBuffer{}, public: publicURL}
	h.store = &memoryStore{
		now: start, merchants: map[string]conversations.Merchant{},
		requests: map[string]*conversations.PaymentRequest{}, contacts: map[string]*conversations.Contact{},
		once: map[string]conversations.Applied{},
	}
	h.platform = &fakePlatform{library: library, life: 15 * time.Minute, now: h.store.Now, answer: captured}
	o := checkout.Options{
		Store: h.store, Links: keys, Nonces: nonces,
		Platform:     func(id string) (platforms.Platform, bool) { return h.platform, id == "acme" },
		PlatformName: func(string) string { return "fake" },
		PlatformOrigins: func(string) []string {
			u, _ := url.Parse(h.platform.library) // a test's own address
			return []string{u.Scheme + "://" + u.Host}
		},
		Log:          slog.New(slog.NewTextHandler(h.log, nil)),
		ChargeWithin: 20 * time.Second, RecordWithin: 5 * time.Second,
	}
	for _, set := range settings {
		set(h, &o)
	}
	for _, id := range []string{"acme", "other"} {
		public := h.public
		if id != "acme" {
			public = "https://pay.other.example"
		}
		h.store.merchants[id] = conversations.Merchant{
			ID: id, Name: "Acme Tea & Co", Contact: "help@acme.example", PublicURL: public, Sandbox: true, Country: "ZA", Locale: "en-ZA",
			MaxAttempts: 3, CardTesting: cardTesting, Senders: map[conversations.Channel]string{conversations.WhatsApp: "wa1"},
		}
	}
	page, err := checkout.NewPage(o)
	if err != nil {
		t.Fatal(err)
	}
	h.app = fiber.New(fiber.Config{Immutable: true, DisableStartupMessage: true, ReadBufferSize: 16 << 10})
	h.app.Get("/p/:code", page.FollowLink)
	h.app.Get("/pay/:jwt", page.ShowPage)
	h.app.Get("/pay/:jwt/state", page.ShowState)
	h.app.Post("/pay/:jwt/open", page.OpenRequest)
	h.app.Post("/pay/:jwt/context", page.IssueContext)
	h.app.Post("/pay/:jwt/charge", page.ChargeCard)
	h.app.Post("/pay/:jwt/extend", page.ExtendTime)
	h.app.Post("/pay/:jwt/receipt", page.ViewReceipt)
	return h
}

// add stores a request, changed from the usual one.
func (h *house) add(id string, change func(*conversations.PaymentRequest)) *conversations.PaymentRequest {
	r := newRequest(id)
	if change != nil {
		change(r)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	h.store.requests[id] = r
	h.store.contacts[r.ContactID] = &conversations.Contact{
		ID: r.ContactID, MerchantID: r.MerchantID, CreatedAt: start, Mode: conversations.ModeBot, Requests: []string{id},
		Addresses: []conversations.Address{{Kind: conversations.AddressPhone, Value: r.Phone}},
		Consent:   map[conversations.Channel]conversations.Consent{},
	}
	return r
}

// decline notes so many declines of the customer, the last one some time ago.
func (h *house) decline(contactID string, n int, ago time.Duration) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	c := *h.store.contacts[contactID]
	for i := range n {
		c.Declines = append(c.Declines, h.store.now.Add(-ago-time.Duration(n-1-i)*time.Minute))
	}
	h.store.contacts[contactID] = &c
}

// opened is a request whose window to pay runs and that has a context.
func opened(r *conversations.PaymentRequest) {
	end := start.Add(15 * time.Minute)
	r.PayBy = &end
	r.Contexts = []conversations.CaptureContext{{KeyID: "key-0", Key: "{}", ExpiresAt: end}}
}

func (h *house) token(t *testing.T, id string) string {
	t.Helper()
	token, err := h.keys.MintLink(checkout.LinkPay, id, h.public, h.store.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// press is a POST as the page's script makes it.
func (h *house) press(t *testing.T, id, call, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/pay/"+h.token(t, id)+"/"+call, strings.NewReader(body))
	r.Header.Set("Origin", h.public)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("X-Paythread-Nonce", h.nonces.Mint(checkout.NoncePay, id, h.store.Now()))
	return r
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (h *house) do(t *testing.T, r *http.Request) answer {
	t.Helper()
	response, err := h.app.Test(r, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// called is the answer of a call, with everything that one of them may hold.
type called struct {
	checkout.State
	Code             string    `json:"code"`
	Context          string    `json:"context"`
	Library          string    `json:"library"`
	Integrity        string    `json:"integrity"`
	ContextExpiresAt time.Time `json:"context_expires_at"`
	Location         string    `json:"location"`
}

func (h *house) call(t *testing.T, id, call, body string) (int, called) {
	t.Helper()
	a := h.do(t, h.press(t, id, call, body))
	var c called
	if err := json.Unmarshal([]byte(a.body), &c); err != nil {
		t.Fatalf("%s answered %d with %q: %v", call, a.status, a.body, err)
	}
	return a.status, c
}

func wantEvents(t *testing.T, h *house, want ...conversations.EventKind) {
	t.Helper()
	if got := h.store.events(); !slices.Equal(got, want) {
		t.Errorf("events are %v, want %v", got, want)
	}
}

var userAgents = []string{
	"", "WhatsApp/2.24.6.77 A", "facebookexternalhit/1.1", "Twitterbot/1.0", "Slackbot-LinkExpanding 1.0", "TelegramBot (like TwitterBot)",
	"Mozilla/5.0 (Linux; Android 14; wv) Chrome/120 Mobile Safari/537.36", "Mozilla/5.0 (compatible; Googlebot/2.1)",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148", "curl/8.5.0",
}

func TestFetchingChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", nil)
	token := h.token(t, "r1")
	for path, status := range map[string]int{"/p/link-r1": 303, "/pay/" + token: 200, "/pay/" + token + "/state": 200, "/p/nothing": 404} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for _, agent := range userAgents {
				r := httptest.NewRequest(method, path, nil)
				r.Header.Set("User-Agent", agent)
				r.Header.Set("Purpose", "prefetch")
				a := h.do(t, r)
				if a.status != status {
					t.Errorf("%s %s as %q answered %d, want %d", method, path, agent, a.status, status)
				}
				if method == http.MethodHead && a.body != "" {
					t.Errorf("HEAD %s has a body", path)
				}
				for name, want := range map[string]string{
					"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Robots-Tag": "noindex, nofollow",
				} {
					if got := a.header.Get(name); got != want {
						t.Errorf("%s %s: %s is %q, want %q", method, path, name, got, want)
					}
				}
			}
		}
	}
	wantEvents(t, h)
	if n := h.platform.contexts.Load() + h.platform.charges.Load(); n != 0 {
		t.Errorf("the platform was called %d times", n)
	}
}

func TestFollowLink(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", func(r *conversations.PaymentRequest) { r.Lifecycle = conversations.Expired })
	a := h.do(t, httptest.NewRequest(http.MethodGet, "/p/link-r1", nil))
	token, ok := strings.CutPrefix(a.header.Get("Location"), publicURL+"/pay/")
	if a.status != http.StatusSeeOther || !ok {
		t.Fatalf("answered %d to %q", a.status, a.header.Get("Location"))
	}
	if id, issuer, err := checkout.Redeem(h.keys, checkout.LinkPay, token, start); id != "r1" || issuer != publicURL || err != nil {
		t.Errorf("the link opens %q of %q, %v", id, issuer, err)
	}
	if a := h.do(t, httptest.NewRequest(http.MethodGet, "/p/receipt-r1", nil)); a.status != http.StatusNotFound {
		t.Errorf("a receipt's code opens the pay page: %d", a.status)
	}
}

func TestLinksThatDoNotOpen(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", nil)
	h.add("r2", func(r *conversations.PaymentRequest) { r.MerchantID = "other" })
	mint := func(kind checkout.LinkKind, id, issuer string, now time.Time) string {
		token, err := h.keys.MintLink(kind, id, issuer, now)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := h.token(t, "r1")
	cases := []struct {
		name, token string
		status      int
		title       string
	}{
		{"past its time", mint(checkout.LinkPay, "r1", publicURL, start.Add(-25*time.Hour)), 410, "Please open the link again"},
		{"of a receipt", mint(checkout.LinkReceipt, "r1", publicURL, start), 404, "This link does not work"},
		{"another merchant's request", mint(checkout.LinkPay, "r2", publicURL, start), 404, "This link does not work"},
		{"of nothing", mint(checkout.LinkPay, "r3", publicURL, start), 404, "This link does not work"},
		{"cut short", good[:len(good)-3], 404, "This link does not work"},
		{"no token", "hello", 404, "This link does not work"},
		{"three parts of nothing", "a.b.c", 404, "This link does not work"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := h.do(t, httptest.NewRequest(http.MethodGet, "/pay/"+c.token, nil))
			if a.status != c.status || !strings.Contains(a.body, "<h1 tabindex=\"-1\">"+c.title+"</h1>") {
				t.Errorf("answered %d, want %d and %q:\n%s", a.status, c.status, c.title, clean(a.body, c.token))
			}
			if strings.Contains(a.body, "<script") {
				t.Error("the page has a script")
			}
			for _, call := range []string{"open", "context", "charge", "extend", "receipt"} {
				r := h.press(t, "r1", call, `{"transient_token":"token"}`)
				r.URL.Path = "/pay/" + c.token + "/" + call
				r.RequestURI = r.URL.Path
				if a := h.do(t, r); a.status != c.status {
					t.Errorf("%s answered %d, want %d", call, a.status, c.status)
				}
			}
		})
	}
	t.Cleanup(func() { wantEvents(t, h) })
}

func TestPressesAreGuarded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", opened)
	h.add("r2", opened)
	cases := map[string]func(*http.Request){
		"foreign origin": func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"foreign origin, same site": func(r *http.Request) {
			r.Header.Set("Origin", "https://evil.example")
			r.Header.Set("Sec-Fetch-Site", "same-origin")
		},
		"origin that begins alike": func(r *http.Request) { r.Header.Set("Origin", publicURL+".evil.example") },
		"no origin":                func(r *http.Request) { r.Header.Del("Origin") },
		"null origin":              func(r *http.Request) { r.Header.Set("Origin", "null") },
		"null origin, cross site":  func(r *http.Request) { r.Header.Set("Origin", "null"); r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"no nonce":                 func(r *http.Request) { r.Header.Del("X-Paythread-Nonce") },
		"made-up nonce":            func(r *http.Request) { r.Header.Set("X-Paythread-Nonce", "bm9uY2U") },
		"another request's nonce": func(r *http.Request) {
			r.Header.Set("X-Paythread-Nonce", h.nonces.Mint(checkout.NoncePay, "r2", start))
		},
		"another page's nonce": func(r *http.Request) {
			r.Header.Set("X-Paythread-Nonce", h.nonces.Mint(checkout.NonceReceipt, "r1", start))
		},
		"nonce past its time": func(r *http.Request) {
			r.Header.Set("X-Paythread-Nonce", h.nonces.Mint(checkout.NoncePay, "r1", start.Add(-checkout.NonceLife)))
		},
	}
	for name, spoil := range cases {
		for _, call := range []string{"open", "context", "charge", "extend", "receipt"} {
			r := h.press(t, "r1", call, `{"transient_token":"token"}`)
			spoil(r)
			if a := h.do(t, r); a.status != http.StatusForbidden {
				t.Errorf("%s: %s answered %d, want 403", name, call, a.status)
			}
		}
	}
	wantEvents(t, h)
	if n := h.platform.contexts.Load() + h.platform.charges.Load(); n != 0 {
		t.Errorf("the platform was called %d times", n)
	}
}

func TestOpenMakesTheFirstContext(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", nil)
	status, got := h.call(t, "r1", "open", "{}")
	if status != 200 || got.Context != "context-1" || got.Library != library || got.Integrity != libraryIntegrity ||
		!got.ContextExpiresAt.Equal(start.Add(15*time.Minute)) || got.PayBy == nil || !got.PayBy.Equal(start.Add(15*time.Minute)) || !got.Now.Equal(start) {
		t.Errorf("open answered %d %+v", status, got)
	}
	if !slices.Equal(h.platform.origins, []string{publicURL}) {
		t.Errorf("contexts were made for %v", h.platform.origins)
	}
	if kept := h.store.find("r1").Contexts; len(kept) != 1 || kept[0].KeyID != "key-1" {
		t.Errorf("kept %+v", kept)
	}
	// A second tab opens nothing a second time.
	if status, got := h.call(t, "r1", "open", "{}"); status != 200 || got.Context != "context-2" {
		t.Errorf("the second open answered %d %+v", status, got)
	}
	wantEvents(t, h, "LinkOpened", "ContextIssued", "ContextIssued")
}

func TestOpenGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", nil)
	h.platform.failing = true
	if status, got := h.call(t, "r1", "open", "{}"); status != 503 || got.Code != "unavailable" {
		t.Errorf("open answered %d %+v", status, got)
	}
	wantEvents(t, h, "LinkOpened")
	h.platform.failing = false
	if status, got := h.call(t, "r1", "context", "{}"); status != 200 || got.Context == "" {
		t.Errorf("context answered %d %+v", status, got)
	}
	// A context whose key could not be kept never reaches the browser.
	h.store.before = func(e conversations.Event) error {
		if _, ok := e.(conversations.ContextIssued); ok {
			return conversations.Unavailable(errors.New("gone"))
		}
		return nil
	}
	if a := h.do(t, h.press(t, "r1", "context", "{}")); a.status != 503 || strings.Contains(a.body, "context-") {
		t.Errorf("context answered %d %s", a.status, a.body)
	}
}

func TestContextNeedsALibraryThatThePageMayLoad(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(_ *house, o *checkout.Options) {
		o.PlatformOrigins = func(string) []string { return []string{"https://elsewhere.example"} }
	})
	h.add("r1", opened)
	if status, _ := h.call(t, "r1", "context", "{}"); status != 503 {
		t.Errorf("answered %d, want 503", status)
	}
	wantEvents(t, h)
}

func TestContextsOnlyWhilePayable(t *testing.T) {
	t.Parallel()
	cases := map[string]func(*conversations.PaymentRequest){
		"not opened": nil,
		"window over": func(r *conversations.PaymentRequest) {
			opened(r)
			r.PayBy = &start
		},
		"superseded": func(r *conversations.PaymentRequest) { opened(r); r.Superseded = true },
	}
	for _, l := range conversations.Lifecycles {
		if l != conversations.Open {
			cases[string(l)] = func(r *conversations.PaymentRequest) { opened(r); r.Lifecycle = l }
		}
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.add("r1", change)
			if status, got := h.call(t, "r1", "context", "{}"); status != 409 || got.Code != "not_payable" || got.Screen == "" {
				t.Errorf("context answered %d %+v", status, got)
			}
			// A charge answers with the state, so that a late press shows how it stands.
			if status, got := h.call(t, "r1", "charge", `{"transient_token":"token-1"}`); status != 200 || got.Screen == "" {
				t.Errorf("charge answered %d %+v", status, got)
			}
			wantEvents(t, h)
			if n := h.platform.contexts.Load() + h.platform.charges.Load(); n != 0 {
				t.Errorf("the platform was called %d times", n)
			}
		})
	}
}

func TestContextsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", func(r *conversations.PaymentRequest) {
		opened(r)
		for range 29 {
			r.Contexts = append(r.Contexts, r.Contexts[0])
		}
	})
	if a := h.do(t, h.press(t, "r1", "context", "{}")); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") != "900" {
		t.Errorf("answered %d, to be repeated after %q seconds, want 429 and 900", a.status, a.header.Get("Retry-After"))
	}
	h.store.advance(14 * time.Minute)
	h.store.edit("r1", func(r *conversations.PaymentRequest) {
		for i := range r.Contexts {
			r.Contexts[i].ExpiresAt = start.Add(time.Minute)
		}
	})
	if status, _ := h.call(t, "r1", "context", "{}"); status != 200 {
		t.Errorf("answered %d when the old ones had expired", status)
	}
}

func TestCharge(t *testing.T) {
	t.Parallel()
	result := func(r conversations.Result) func(platforms.ChargeRequest) conversations.Result {
		return func(platforms.ChargeRequest) conversations.Result { return r }
	}
	cases := []struct {
		name      string
		answer    func(platforms.ChargeRequest) conversations.Result
		lifecycle conversations.Lifecycle
		screen    string
		text      string
		canRetry  bool
		receipt   bool
	}{
		{"captured", captured, conversations.Paid, "paid", "", false, true},
		{"declined", declined, conversations.Open, "declined", "did not approve", true, false},
		{"declined for good", result(conversations.Result{Outcome: conversations.OutcomeDeclined, Reason: "STOLEN_CARD", Final: true}), conversations.Open, "declined", "another card", true, false},
		{"not taken", result(conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "SYSTEM_ERROR"}), conversations.Open, "not_taken", "on our side", true, false},
		{"card that is none", result(conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "INVALID_CARD"}), conversations.Open, "declined", "check the card number", true, false},
		{"kind of card not taken", result(conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "CARD_TYPE_NOT_ACCEPTED"}), conversations.Open, "declined", "another card", true, false},
		{"processor away", result(conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: "PROCESSOR_UNAVAILABLE"}), conversations.Open, "declined", "few minutes", true, false},
		{"partly held", result(conversations.Result{Outcome: conversations.OutcomePartial, PaymentID: "p", Amount: zar(100)}), conversations.Processing, "processing", "", false, false},
		{"refused by risk rules", result(conversations.Result{Outcome: conversations.OutcomeRiskDeclined, Reason: "DECISION_PROFILE_REJECT", PaymentID: "p"}), conversations.Processing, "processing", "", false, false},
		{"unknown", result(conversations.Result{Outcome: conversations.OutcomeUnknown}), conversations.Processing, "processing", "", false, false},
		{"nothing said", result(conversations.Result{}), conversations.Processing, "processing", "", false, false},
		{"in review", result(conversations.Result{Outcome: conversations.OutcomeInReview, PaymentID: "p"}), conversations.InReview, "in_review", "", false, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.add("r1", opened)
			h.platform.answer = c.answer
			status, got := h.call(t, "r1", "charge", `{"transient_token":"token-1"}`)
			if status != 200 || got.Lifecycle != c.lifecycle || got.Screen != c.screen || got.CanRetry != c.canRetry || got.Receipt != c.receipt {
				t.Errorf("answered %d %+v, want %+v", status, got.State, c)
			}
			if got.Attempt == nil || got.Attempt.N != 1 || !strings.Contains(got.Attempt.Text, c.text) || c.text == "" && got.Attempt.Text != "" {
				t.Errorf("the attempt is %+v, want the text %q", got.Attempt, c.text)
			}
			wantEvents(t, h, "AttemptStarted", "AttemptAnswered")
			if a := h.store.find("r1").Attempts[0]; a.Platform != "fake" || a.Result.CardLast4 != "1111" {
				t.Errorf("the attempt holds %+v", a)
			}
			for _, raw := range []string{"STOLEN_CARD", "SYSTEM_ERROR", "PROCESSOR_DECLINED"} {
				if a := h.do(t, httptest.NewRequest(http.MethodGet, "/pay/"+h.token(t, "r1"), nil)); strings.Contains(a.body, raw) {
					t.Errorf("the page shows the platform's own word %s", raw)
				}
			}
			if strings.Contains(h.log.String(), "token-1") {
				t.Error("the token is in the log")
			}
			// The same token again is the same press.
			before := h.platform.charges.Load()
			if _, again := h.call(t, "r1", "charge", `{"transient_token":"token-1"}`); again.Screen != got.Screen || h.platform.charges.Load() != before {
				t.Errorf("the second press shows %q, charges %d", again.Screen, h.platform.charges.Load())
			}
		})
	}
}

func TestChargeRefusesTokens(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", opened)
	for body, want := range map[string]int{
		`{"transient_token":"forged"}`: 422, `{}`: 400, `not json`: 400,
		`{"transient_token":"token` + strings.Repeat("x", 20<<10) + `"}`: 400,
	} {
		if a := h.do(t, h.press(t, "r1", "charge", body)); a.status != want {
			t.Errorf("%.40s answered %d, want %d", body, a.status, want)
		}
	}
	wantEvents(t, h)
}

func TestTwoHundredPressesChargeOnce(t *testing.T) {
	t.Parallel()
	for name, token := range map[string]func(int) string{
		"one token":   func(int) string { return "token-1" },
		"many tokens": func(i int) string { return fmt.Sprintf("token-%d", i) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const presses = 200
			h := newHouse(t)
			h.add("r1", opened)
			var others sync.WaitGroup
			others.Add(presses - 1)
			// The charge is answered when all the others have their answer.
			h.platform.answer = func(r platforms.ChargeRequest) conversations.Result {
				others.Wait()
				return captured(r)
			}
			var processing, paid atomic.Int64
			var all sync.WaitGroup
			for i := range presses {
				r := h.press(t, "r1", "charge", fmt.Sprintf(`{"transient_token":%q}`, token(i)))
				all.Go(func() {
					a := h.do(t, r)
					var got called
					if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
						t.Errorf("answered %d: %v", a.status, err)
					}
					switch got.Screen {
					case "processing":
						processing.Add(1)
						others.Done()
					case "paid":
						paid.Add(1)
					default:
						t.Errorf("a press shows %q", got.Screen)
					}
				})
			}
			all.Wait()
			if n := h.platform.charges.Load(); n != 1 || paid.Load() != 1 || processing.Load() != presses-1 {
				t.Errorf("%d charges, %d presses show paid, %d processing", n, paid.Load(), processing.Load())
			}
		})
	}
}

func TestChargeSurvivesTheCustomersConnection(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", opened)
	charging, left := make(chan struct{}), make(chan struct{})
	h.platform.answer = func(r platforms.ChargeRequest) conversations.Result {
		close(charging)
		<-left
		return captured(r)
	}
	recorded := make(chan struct{})
	h.store.after = func(e conversations.Event) error {
		if _, ok := e.(conversations.AttemptAnswered); ok {
			close(recorded)
		}
		return nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.app.Listener(listener) }()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.press(t, "r1", "charge", `{"transient_token":"token-1"}`).Write(conn); err != nil {
		t.Fatal(err)
	}
	<-charging
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	close(left)
	<-recorded
	if got := h.store.find("r1").Lifecycle; got != conversations.Paid {
		t.Errorf("the request is %s, want paid", got)
	}
	if err := h.app.ShutdownWithTimeout(5 * time.Second); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestChargeIsNotSentTooLate(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", opened)
	h.store.after = func(e conversations.Event) error {
		if _, ok := e.(conversations.AttemptStarted); ok {
			h.store.now = h.store.now.Add(10 * time.Second) // to the very end of it
		}
		return nil
	}
	status, got := h.call(t, "r1", "charge", `{"transient_token":"token-1"}`)
	if status != 200 || got.Attempt.State != conversations.AttemptNotTaken || !got.CanRetry || h.platform.charges.Load() != 0 {
		t.Errorf("answered %d %+v with %d charges", status, got.Attempt, h.platform.charges.Load())
	}
	if reason := h.store.find("r1").Attempts[0].Result.Reason; reason != "not_sent_in_time" {
		t.Errorf("the reason is %q", reason)
	}
}

// TestChargeThatIsNotReplicated is not sent, and the customer may try again at
// once, unless that cannot be recorded.
func TestChargeThatIsNotReplicated(t *testing.T) {
	t.Parallel()
	for name, recorded := range map[string]bool{"recorded": true, "not recorded": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.add("r1", opened)
			h.store.after = func(e conversations.Event) error {
				if _, ok := e.(conversations.AttemptStarted); ok {
					return conversations.ErrTooFewReplicas
				}
				return nil
			}
			h.store.before = func(e conversations.Event) error {
				if a, ok := e.(conversations.AttemptAnswered); ok && !recorded {
					return conversations.Unavailable(errors.New("gone"))
				} else if ok && !a.StartedAt.Equal(h.store.requests["r1"].Attempts[0].StartedAt) {
					return errors.New("it does not say which attempt is meant")
				}
				return nil
			}
			status, got := h.call(t, "r1", "charge", `{"transient_token":"token-1"}`)
			if n := h.platform.charges.Load(); n != 0 {
				t.Fatalf("%d charges", n)
			}
			state := h.store.find("r1").Attempts[0].State
			if recorded && (status != 200 || state != conversations.AttemptNotTaken || !got.CanRetry) {
				t.Errorf("answered %d %+v, and the attempt is %s", status, got, state)
			}
			if !recorded && (status != 503 || state != conversations.AttemptSending) {
				t.Errorf("answered %d, and the attempt is %s", status, state)
			}
		})
	}
}

func TestChargeNeedsItsOwnCommit(t *testing.T) {
	t.Parallel()
	lost := conversations.Unavailable(errors.New("connection reset"))
	isStart := func(e conversations.Event) error {
		if _, ok := e.(conversations.AttemptStarted); ok {
			return lost
		}
		return nil
	}
	for name, set := range map[string]func(*memoryStore){
		"not committed":       func(s *memoryStore) { s.before = isStart },
		"committed, not told": func(s *memoryStore) { s.after = isStart },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.add("r1", opened)
			set(h.store)
			if status, _ := h.call(t, "r1", "charge", `{"transient_token":"token-1"}`); status != 503 {
				t.Errorf("answered %d, want 503", status)
			}
			if n := h.platform.charges.Load(); n != 0 {
				t.Errorf("charged %d times", n)
			}
		})
	}
}

func TestOutcomeIsRecordedThroughAStoreThatFails(t *testing.T) {
	t.Parallel()
	lost := conversations.Unavailable(errors.New("connection reset"))
	for name, after := range map[string]bool{"before its effect": false, "after its effect": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.add("r1", opened)
			failures := 3
			fail := func(e conversations.Event) error {
				if _, ok := e.(conversations.AttemptAnswered); ok && failures > 0 {
					failures--
					return lost
				}
				return nil
			}
			if h.store.before = fail; after {
				h.store.before, h.store.after = nil, fail
			}
			if status, got := h.call(t, "r1", "charge", `{"transient_token":"token-1"}`); status != 200 || got.Screen != "paid" {
				t.Errorf("answered %d %q", status, got.Screen)
			}
			wantEvents(t, h, "AttemptStarted", "AttemptAnswered")
			if n := h.platform.charges.Load(); n != 1 {
				t.Errorf("charged %d times", n)
			}
		})
	}
	t.Run("for good", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t, func(_ *house, o *checkout.Options) { o.RecordWithin = 200 * time.Millisecond })
		h.add("r1", opened)
		h.store.before = func(e conversations.Event) error {
			if _, ok := e.(conversations.AttemptAnswered); ok {
				return lost
			}
			return nil
		}
		if status, got := h.call(t, "r1", "charge", `{"transient_token":"token-1"}`); status != 200 || got.Screen != "processing" {
			t.Errorf("answered %d %q", status, got.Screen)
		}
		if !strings.Contains(h.log.String(), "not recorded") {
			t.Error("nothing was logged")
		}
	})
}

func TestExtend(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", opened)
	h.store.advance(14 * time.Minute)
	status, got := h.call(t, "r1", "extend", "{}")
	if want := start.Add(29 * time.Minute); status != 200 || got.PayBy == nil || !got.PayBy.Equal(want) {
		t.Errorf("answered %d until %v, want %v", status, got.PayBy, want)
	}
	h.store.advance(time.Hour)
	if status, got := h.call(t, "r1", "extend", "{}"); status != 409 || got.Screen != "expired" {
		t.Errorf("after the end it answered %d %q", status, got.Screen)
	}
}

func TestViewReceipt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", opened)
	if status, got := h.call(t, "r1", "receipt", "{}"); status != 200 || !strings.HasPrefix(got.Location, publicURL+"/pay/") {
		t.Errorf("before the payment it answered %d %q", status, got.Location)
	}
	wantEvents(t, h)
	h.call(t, "r1", "charge", `{"transient_token":"token-1"}`)

	form := h.press(t, "r1", "receipt", url.Values{"nonce": {h.nonces.Mint(checkout.NoncePay, "r1", start)}}.Encode())
	form.Header.Del("X-Paythread-Nonce")
	form.Header.Del("Accept")
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	form.Header.Set("Origin", "null") // as browsers send it under no-referrer
	form.Header.Set("Sec-Fetch-Site", "same-origin")
	a := h.do(t, form)
	token, ok := strings.CutPrefix(a.header.Get("Location"), publicURL+"/receipts/")
	if a.status != http.StatusSeeOther || !ok {
		t.Fatalf("answered %d to %q", a.status, a.header.Get("Location"))
	}
	if id, _, err := checkout.Redeem(h.keys, checkout.LinkReceipt, token, start); id != "r1" || err != nil {
		t.Errorf("the link opens %q, %v", id, err)
	}
	if status, got := h.call(t, "r1", "receipt", "{}"); status != 200 || !strings.HasPrefix(got.Location, publicURL+"/receipts/") {
		t.Errorf("the script got %d %q", status, got.Location)
	}
	wantEvents(t, h, "AttemptStarted", "AttemptAnswered", "ReceiptViewed")
}

// screens are requests in every state that has a screen of its own.
var screens = map[string]func(*conversations.PaymentRequest){
	"ask":    nil,
	"opened": opened,
	"jpy":    func(r *conversations.PaymentRequest) { inCurrency(r, "JPY") },
	"kwd":    func(r *conversations.PaymentRequest) { inCurrency(r, "KWD") },
	"plain": func(r *conversations.PaymentRequest) {
		r.Order.LineItems, r.Order.Tax, r.Order.Discount, r.Order.Subtotal = nil, zar(0), zar(0), zar(14900)
	},
	"processing":         inFlight(conversations.AttemptSending),
	"unsettled":          inFlight(conversations.AttemptUnsettled),
	"authenticating":     inFlight(conversations.AttemptAuthenticating),
	"releasing":          inFlight(conversations.AttemptReversing),
	"authorized":         lifecycle(conversations.Authorized, ""),
	"paid":               lifecycle(conversations.Paid, ""),
	"being_reversed":     lifecycle(conversations.Paid, conversations.ReasonReversing),
	"in_review":          lifecycle(conversations.InReview, ""),
	"failed":             lifecycle(conversations.Failed, conversations.ReasonTooManyAttempts),
	"expired_not_opened": lifecycle(conversations.Expired, conversations.ReasonNotOpened),
	"expired_not_paid":   lifecycle(conversations.Expired, conversations.ReasonNotPaid),
	"cancelled":          lifecycle(conversations.Cancelled, conversations.ReasonByAgent),
	"already_paid":       lifecycle(conversations.Cancelled, conversations.ReasonAlreadyPaid),
	"reversed":           lifecycle(conversations.Reversed, ""),
	"paid_partly": func(r *conversations.PaymentRequest) {
		lifecycle(conversations.Paid, "")(r)
		r.CapturedMinor = 5000
	},
	"partially_refunded": func(r *conversations.PaymentRequest) {
		lifecycle(conversations.PartiallyRefunded, "")(r)
		r.RefundedMinor = 4500
	},
	"refunded":          lifecycle(conversations.Refunded, ""),
	"unknown_lifecycle": lifecycle("frozen", ""),
	"superseded": func(r *conversations.PaymentRequest) {
		r.Lifecycle, r.Superseded = conversations.Expired, true
	},
	"window_over_to_open": func(r *conversations.PaymentRequest) { r.OpenBy = start },
	"window_over_to_pay":  func(r *conversations.PaymentRequest) { opened(r); r.PayBy = &start },
	"declined":            attempted(conversations.AttemptDeclined, false),
	"declined_final":      attempted(conversations.AttemptDeclined, true),
	"declined_details":    because(conversations.AttemptDeclined, "INVALID_CVN"),
	"declined_another":    because(conversations.AttemptDeclined, "INSUFFICIENT_FUND"),
	"declined_bank":       because(conversations.AttemptDeclined, "CONTACT_PROCESSOR"),
	"declined_later":      because(conversations.AttemptDeclined, "ISSUER_UNAVAILABLE"),
	"unconfirmed":         because(conversations.AttemptNotTaken, "authentication_abandoned"),
	"not_taken":           because(conversations.AttemptNotTaken, "SYSTEM_ERROR"),
	"not_found":           because(conversations.AttemptNotFound, ""),
	"returned":            because(conversations.AttemptReversed, "DECISION_PROFILE_REJECT"),
	"too_soon":            attempted(conversations.AttemptDeclined, false),
	"too_many":            attempted(conversations.AttemptDeclined, false),
}

// declinesOf are how many cards of the customer were declined, for the screens
// that are about that.
var declinesOf = map[string]int{"too_soon": 9, "too_many": 10}

// lastDecline is how long ago the last of them was.
const lastDecline = 20 * time.Second

func because(state conversations.AttemptState, reason string) func(*conversations.PaymentRequest) {
	return func(r *conversations.PaymentRequest) {
		attempted(state, false)(r)
		r.Attempts[0].Result.Reason = reason
	}
}

func inFlight(state conversations.AttemptState) func(*conversations.PaymentRequest) {
	return func(r *conversations.PaymentRequest) {
		because(state, "")(r)
		r.Lifecycle = conversations.Processing
	}
}

func inCurrency(r *conversations.PaymentRequest, code string) {
	o := &r.Order
	for _, m := range []*conversations.Money{&o.Subtotal, &o.Tax, &o.Shipping, &o.Discount, &o.Total} {
		m.Currency = code
	}
	for i := range o.LineItems {
		o.LineItems[i].UnitPrice.Currency, o.LineItems[i].Total.Currency = code, code
	}
}

func lifecycle(l conversations.Lifecycle, reason string) func(*conversations.PaymentRequest) {
	return func(r *conversations.PaymentRequest) {
		opened(r)
		r.Lifecycle, r.Reason = l, reason
		if slices.Contains([]conversations.Lifecycle{conversations.Paid, conversations.Authorized, conversations.Reversed, conversations.PartiallyRefunded, conversations.Refunded}, l) {
			r.Receipt = &conversations.Receipt{Number: "R1", IssuedAt: start, Order: r.Order, Paid: r.Order.Total}
		}
	}
}

func attempted(state conversations.AttemptState, final bool) func(*conversations.PaymentRequest) {
	return func(r *conversations.PaymentRequest) {
		opened(r)
		r.Attempts = []conversations.Attempt{{N: 1, State: state, Result: conversations.Result{Reason: "PROCESSOR_DECLINED", Final: final}}}
	}
}

var (
	inlineStyle  = regexp.MustCompile(`(?s)<style>.*</style>`)
	inlineScript = regexp.MustCompile(`(?s)<script>.*</script>`)
)

// clean takes out of a page what differs from run to run, and the parts that
// are files of their own.
func clean(page, token string) string {
	page = inlineScript.ReplaceAllString(inlineStyle.ReplaceAllString(page, "<style/>"), "<script/>")
	return strings.ReplaceAll(page, token, "TOKEN")
}

func TestScreens(t *testing.T) {
	t.Parallel()
	for name, change := range screens {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.add("r1", change)
			h.decline("contact-r1", declinesOf[name], lastDecline)
			token := h.token(t, "r1")
			a := h.do(t, httptest.NewRequest(http.MethodGet, "/pay/"+token, nil))
			if a.status != 200 {
				t.Fatalf("answered %d", a.status)
			}
			got := clean(a.body, token)
			path := filepath.Join("testdata", "page_"+name+".html")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the page differs from %s (rewrite with -update):\n%s", path, got)
			}
			if size := len(a.body); size > 60_000 {
				t.Errorf("the page has %d bytes, more than 60 kB", size)
			}
		})
	}
}

func TestGoldenFilesHaveScreens(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/page_*.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "page_"), ".html")
		if _, ok := screens[name]; !ok {
			t.Errorf("%s belongs to no screen", file)
		}
	}
}

func TestContentPolicy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.add("r1", nil)
	a := h.do(t, httptest.NewRequest(http.MethodGet, "/pay/"+h.token(t, "r1"), nil))
	rules := map[string]string{}
	for _, rule := range strings.Split(a.header.Get("Content-Security-Policy"), "; ") {
		name, sources, _ := strings.Cut(rule, " ")
		rules[name] = sources
	}
	for name, want := range map[string]string{
		"default-src": "'none'", "base-uri": "'none'", "form-action": "'self'", "frame-ancestors": "'none'",
		"connect-src": "'self' https://platform.example", "frame-src": "https://platform.example",
	} {
		if rules[name] != want {
			t.Errorf("%s is %q, want %q", name, rules[name], want)
		}
	}
	for _, name := range []string{"script-src", "style-src"} {
		if !regexp.MustCompile(`^'sha256-[A-Za-z0-9+/]{43}=' https://platform\.example$`).MatchString(rules[name]) {
			t.Errorf("%s is %q", name, rules[name])
		}
	}
	if got := a.header.Get("Permissions-Policy"); !strings.HasPrefix(got, `payment=(self "https://platform.example")`) {
		t.Errorf("Permissions-Policy is %q", got)
	}
	if foreign := regexp.MustCompile(`(?:src|href)="[^"]*"`).FindAllString(a.body, -1); foreign != nil {
		t.Errorf("the page loads %v", foreign)
	}
}

func TestTextsAreUsedAndThere(t *testing.T) {
	t.Parallel()
	var texts map[string]string
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if err := json.Unmarshal([]byte(read("web/texts.en.json")), &texts); err != nil {
		t.Fatal(err)
	}
	template, script, code := read("web/page.html"), read("web/pay.js"), read("page_screens.go")+read("page.go")
	for _, m := range regexp.MustCompile(`t "(\w+)"`).FindAllStringSubmatch(template, -1) {
		if texts[m[1]] == "" {
			t.Errorf("the template uses %q, which has no text", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`text\.(js_\w+)`).FindAllStringSubmatch(script, -1) {
		if texts[m[1]] == "" {
			t.Errorf("the script uses %q, which has no text", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`trouble\("(\w+)"\)`).FindAllStringSubmatch(script, -1) {
		if texts["js_trouble_"+m[1]] == "" {
			t.Errorf("the script uses js_trouble_%s, which has no text", m[1])
		}
	}
	for key := range texts {
		bare := strings.TrimSuffix(strings.TrimSuffix(key, "_title"), "_message")
		used := strings.Contains(template, `"`+key+`"`) || strings.Contains(script, "text."+key) ||
			strings.Contains(script, `trouble("`+strings.TrimPrefix(key, "js_trouble_")+`")`) ||
			strings.Contains(code, `"`+key+`"`) || strings.Contains(code, `"`+bare+`"`)
		if !used {
			t.Errorf("nothing uses the text %q", key)
		}
	}
}

func TestNonces(t *testing.T) {
	t.Parallel()
	const first, second = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	a, err := checkout.NewNonces(secrets(first))
	if err != nil {
		t.Fatal(err)
	}
	b, err := checkout.NewNonces(secrets(second, first))
	if err != nil {
		t.Fatal(err)
	}
	nonce := a.Mint("pay", "r1", start)
	if !b.Check("pay", "r1", nonce, start.Add(checkout.NonceLife-time.Second)) {
		t.Error("another process that still has the secret refuses the nonce")
	}
	for name, ok := range map[string]bool{
		"later":   a.Check("pay", "r1", nonce, start.Add(checkout.NonceLife)),
		"purpose": a.Check("payr", "1", nonce, start),
		"request": a.Check("pay", "r2", nonce, start),
		"changed": a.Check("pay", "r1", "B"+nonce[1:], start),
		"longer":  a.Check("pay", "r1", nonce+"AAAA", start),
		"empty":   a.Check("pay", "r1", "", start),
	} {
		if ok {
			t.Errorf("%s: the nonce is taken", name)
		}
	}
	if a.Check("pay", "r1", b.Mint("pay", "r1", start), start) {
		t.Error("a nonce of another secret is taken")
	}
	for _, bad := range []func() [][]byte{nil, secrets(), secrets(first[:31]), secrets(first, "short")} {
		if _, err := checkout.NewNonces(bad); err == nil {
			t.Error("bad secrets are taken")
		}
	}
}
