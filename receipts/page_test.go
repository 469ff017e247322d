package receipts_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
	"paythread/receipts"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const publicURL = "https://pay.acme.example"

var start = time.Date(2026, 3, 1, 10, 4, 0, 0, time.UTC)

// memoryStore keeps payment requests and the events that were applied; only a
// view of the receipt changes anything.
type memoryStore struct {
	mu       sync.Mutex
	requests map[string]*conversations.PaymentRequest
	events   []conversations.Event
	public   string
	fail     error
}

func (s *memoryStore) Now() time.Time { return start }

func (s *memoryStore) Merchant(id string) (conversations.Merchant, bool) {
	return conversations.Merchant{ID: id, Name: "Acme Tea & Co", PublicURL: s.public, Sandbox: true}, id == "acme"
}

func (s *memoryStore) Request(_ context.Context, id string) (*conversations.PaymentRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
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

func (s *memoryStore) Apply(_ context.Context, contactID string, event conversations.Event, _ conversations.Once) (conversations.Applied, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	viewed, ok := event.(conversations.ReceiptViewed)
	if !ok || s.requests[viewed.RequestID].ContactID != contactID {
		return conversations.Applied{}, fmt.Errorf("unexpected %T for %s", event, contactID)
	}
	s.events = append(s.events, event)
	r := *s.requests[viewed.RequestID]
	r.Milestones = map[conversations.Milestone]time.Time{conversations.MilestoneReceiptViewed: start}
	s.requests[r.ID] = &r
	return conversations.Applied{Request: &r}, nil
}

func (s *memoryStore) views() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.events)
}

// plainNonces are readable, so that a test can spoil them.
type plainNonces struct{}

func (plainNonces) Mint(purpose, id string, now time.Time) string {
	return fmt.Sprintf("%s-%s-%d", purpose, id, now.Unix())
}

func (n plainNonces) Check(purpose, id, nonce string, now time.Time) bool {
	return nonce == n.Mint(purpose, id, now)
}

// Links are "kind.id@issuer" here; their real form is the gateway's to give.
func mint(id, issuer string, _ time.Time) (string, error) {
	return "good." + id + "@" + strings.TrimPrefix(strings.TrimPrefix(issuer, "https://"), "http://"), nil
}

func redeem(public string) func(string, time.Time) (string, string, error) {
	return func(token string, _ time.Time) (string, string, error) {
		kind, rest, _ := strings.Cut(token, ".")
		id, host, _ := strings.Cut(rest, "@")
		scheme, _, _ := strings.Cut(public, "://")
		switch kind {
		case "good":
			return id, scheme + "://" + host, nil
		case "late":
			return "", "", fmt.Errorf("redeem: %w", receipts.ErrLinkExpired)
		}
		return "", "", errors.New("forged")
	}
}

func zar(minor int64) conversations.Money { return conversations.Money{Minor: minor, Currency: "ZAR"} }

func paid(id string) *conversations.PaymentRequest {
	order := conversations.Order{
		Reference: "1042",
		LineItems: []conversations.LineItem{
			{Name: "Rooibos tea, 500 g", Quantity: 2, UnitPrice: zar(4500), Total: zar(9000)},
			{Name: "Teapot <blue>", Quantity: 1, UnitPrice: zar(4957), Total: zar(4957)},
		},
		Subtotal: zar(13957), Tax: zar(1943), Discount: zar(1000), Total: zar(14900),
	}
	return &conversations.PaymentRequest{
		ID: id, MerchantID: "acme", ContactID: "contact-" + id, Order: order, Sandbox: true,
		Note: ownNote, Extra: map[string]string{"ledger": ownExtra},
		LinkCode: "link-" + id, ReceiptCode: "receipt-" + id, Lifecycle: conversations.Paid, PaidBy: 2,
		CapturedMinor: 14900, AuthorizedMinor: 14900,
		Receipt: &conversations.Receipt{
			Number: "7K2Q9", IssuedAt: start, MerchantName: "Acme Tea & Co", MerchantContact: "help@acme.example", Order: order,
			Paid: zar(14900), Captured: true, CardBrand: "VISA", CardLast4: "1111", ApprovalCode: "831000", ReconciliationID: "ABCD1234", Sandbox: true,
		},
	}
}

// documents are requests by what their receipt shows.
var documents = map[string]func(*conversations.PaymentRequest){
	"paid": func(*conversations.PaymentRequest) {},
	"authorized": func(r *conversations.PaymentRequest) {
		held(r)
		r.Receipt.Sandbox = false
	},
	"late_without_details": func(r *conversations.PaymentRequest) {
		r.Receipt.Late, r.Receipt.CardLast4, r.Receipt.ApprovalCode, r.Receipt.ReconciliationID, r.Receipt.MerchantContact = true, "", "", "", ""
	},
	"refunded_in_part": func(r *conversations.PaymentRequest) {
		r.Lifecycle, r.RefundedMinor = conversations.PartiallyRefunded, 5957
		// What the bank held for an attempt that did not succeed is no payment.
		later(r, conversations.OperationReversal, 14900, conversations.OperationSucceeded, 0).Attempt = 1
		r.Operations[0].Reason = conversations.OperationPartial
		later(r, conversations.OperationRefund, 4957, conversations.OperationSucceeded, 48).ReconciliationID = "RFND4957"
		later(r, conversations.OperationRefund, 100, conversations.OperationFailed, 49)
		later(r, conversations.OperationRefund, 200, conversations.OperationPending, 72)
		back := later(r, conversations.OperationRefund, 1000, conversations.OperationSucceeded, 60)
		back.Elsewhere, back.Reason, back.ReconciliationID = true, conversations.OperationElsewhere, "BACK1000"
	},
	"refunded": func(r *conversations.PaymentRequest) {
		r.Lifecycle, r.RefundedMinor = conversations.Refunded, 14900
		later(r, conversations.OperationRefund, 4957, conversations.OperationSucceeded, 24)
		later(r, conversations.OperationRefund, 9943, conversations.OperationSucceeded, 48)
	},
	"refund_stopped": func(r *conversations.PaymentRequest) {
		later(r, conversations.OperationRefund, 4957, conversations.OperationSucceeded, 24).ResultID = "7799"
		stopped := later(r, conversations.OperationVoid, 4957, conversations.OperationSucceeded, 25)
		stopped.PaymentID, stopped.Elsewhere, stopped.Reason = "7799", true, conversations.OperationElsewhere
	},
	"being_returned": func(r *conversations.PaymentRequest) {
		r.Reason = conversations.ReasonReversing
		later(r, conversations.OperationVoid, 14900, conversations.OperationUnsettled, 1)
	},
	"given_back": func(r *conversations.PaymentRequest) {
		r.Lifecycle, r.CapturedMinor, r.ReversedMinor, r.Receipt.Late = conversations.Reversed, 0, 14900, true
		later(r, conversations.OperationVoid, 14900, conversations.OperationSucceeded, 1)
	},
	"captured_later": func(r *conversations.PaymentRequest) {
		r.Receipt.Captured = false
		later(r, conversations.OperationCapture, 14900, conversations.OperationSucceeded, 24).ReconciliationID = "CAPT149"
	},
	"captured_in_part": func(r *conversations.PaymentRequest) {
		held(r)
		r.Lifecycle, r.CapturedMinor = conversations.Paid, 10000
		later(r, conversations.OperationCapture, 10000, conversations.OperationSucceeded, 24)
	},
	"captured_in_part_and_released": func(r *conversations.PaymentRequest) {
		held(r)
		r.Lifecycle, r.CapturedMinor, r.ReversedMinor = conversations.Paid, 10000, 4900
		later(r, conversations.OperationCapture, 10000, conversations.OperationSucceeded, 24)
		later(r, conversations.OperationReversal, 4900, conversations.OperationSucceeded, 25)
	},
	"captured_in_part_and_refunded_in_part": func(r *conversations.PaymentRequest) {
		held(r)
		r.Lifecycle, r.CapturedMinor, r.ReversedMinor, r.RefundedMinor = conversations.PartiallyRefunded, 10000, 4900, 2500
		later(r, conversations.OperationCapture, 10000, conversations.OperationSucceeded, 24)
		later(r, conversations.OperationReversal, 4900, conversations.OperationSucceeded, 25)
		later(r, conversations.OperationRefund, 2500, conversations.OperationSucceeded, 26)
	},
	"being_captured": func(r *conversations.PaymentRequest) {
		held(r)
		later(r, conversations.OperationCapture, 14900, conversations.OperationPending, 24)
	},
	"being_released": func(r *conversations.PaymentRequest) {
		held(r)
		later(r, conversations.OperationReversal, 14900, conversations.OperationPending, 24).Error = conversations.ErrorUnderReview
	},
	"released": func(r *conversations.PaymentRequest) {
		held(r)
		r.Lifecycle, r.ReversedMinor = conversations.Reversed, 14900
		later(r, conversations.OperationReversal, 14900, conversations.OperationSucceeded, 24)
	},
	"paid_twice": func(r *conversations.PaymentRequest) {
		r.Attempts = []conversations.Attempt{{N: 2}, {N: 3, Result: conversations.Result{Outcome: conversations.OutcomeCaptured}}}
		settled := later(r, conversations.OperationVoid, 14900, conversations.OperationFailed, 1)
		settled.Attempt, settled.Reason, settled.Error = 3, conversations.OperationSecondSuccess, conversations.ErrorSettled
		second := later(r, conversations.OperationRefund, 14900, conversations.OperationSucceeded, 2)
		second.Attempt, second.Reason, second.ReconciliationID = 3, conversations.OperationSecondSuccess, "SCND149"
	},
	"yen": func(r *conversations.PaymentRequest) {
		r.Lifecycle, r.RefundedMinor = conversations.PartiallyRefunded, 4957
		later(r, conversations.OperationRefund, 4957, conversations.OperationSucceeded, 24)
		inCurrency(r, "JPY")
	},
	"dinars": func(r *conversations.PaymentRequest) {
		r.Lifecycle, r.RefundedMinor = conversations.PartiallyRefunded, 4957
		later(r, conversations.OperationRefund, 4957, conversations.OperationSucceeded, 24)
		inCurrency(r, "KWD")
	},
	"not_paid": func(r *conversations.PaymentRequest) { r.Lifecycle, r.Receipt = conversations.Open, nil },
}

// held makes the payment one that the bank only holds.
func held(r *conversations.PaymentRequest) {
	r.Lifecycle, r.Receipt.Captured, r.CapturedMinor = conversations.Authorized, false, 0
}

// Words that nobody but the merchant may read.
const (
	ownNote  = "the customer complained"
	ownAgent = "agent-thandi"
	ownExtra = "ledger-4711"
	ownError = "PROCESSOR_SAYS_NO"
)

// later adds an operation on the payment, so many hours after it came.
func later(r *conversations.PaymentRequest, kind conversations.OperationKind, minor int64, state conversations.OperationState, hours int) *conversations.Operation {
	at := start.Add(time.Duration(hours) * time.Hour)
	r.Operations = append(r.Operations, conversations.Operation{
		ID: fmt.Sprintf("op-%d", len(r.Operations)+1), Kind: kind, Attempt: r.PaidBy, Amount: zar(minor), State: state, StartedAt: at.Add(-time.Minute),
		Reason: conversations.OperationAsked, Note: ownNote, By: ownAgent, Error: ownError, PaymentID: "7681", ResultID: "7682",
	})
	op := &r.Operations[len(r.Operations)-1]
	if state == conversations.OperationSucceeded {
		op.SettledAt = &at
	}
	return op
}

// inCurrency puts the same minor units into another currency.
func inCurrency(r *conversations.PaymentRequest, code string) {
	for _, o := range []*conversations.Order{&r.Order, &r.Receipt.Order} {
		o.LineItems = slices.Clone(o.LineItems)
		for i := range o.LineItems {
			o.LineItems[i].UnitPrice.Currency, o.LineItems[i].Total.Currency = code, code
		}
		for _, m := range []*conversations.Money{&o.Subtotal, &o.Tax, &o.Discount, &o.Total} {
			m.Currency = code
		}
	}
	r.Receipt.Paid.Currency = code
	for i := range r.Operations {
		r.Operations[i].Amount.Currency = code
	}
}

type house struct {
	store *memoryStore
	app   *fiber.App
}

func newHouse(t *testing.T, public string) *house {
	t.Helper()
	h := &house{store: &memoryStore{requests: map[string]*conversations.PaymentRequest{}, public: public}}
	page, err := receipts.NewPage(receipts.Options{
		Store: h.store, Mint: mint, Redeem: redeem(public), Nonces: plainNonces{}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.app = fiber.New(fiber.Config{Immutable: true, DisableStartupMessage: true})
	h.app.Get("/r/:code", page.FollowLink)
	h.app.Get("/receipts/:jwt", page.ShowReceipt)
	h.app.Post("/receipts/:jwt/viewed", page.RecordView)
	return h
}

func (h *house) do(t *testing.T, r *http.Request) (status int, header http.Header, body string) {
	t.Helper()
	response, err := h.app.Test(r, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(b)
}

const good = "/receipts/good.r1@pay.acme.example"

var inline = regexp.MustCompile(`(?s)<(style|script)>.*?</(style|script)>`)

func TestReceipts(t *testing.T) {
	t.Parallel()
	for name, change := range documents {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, publicURL)
			r := paid("r1")
			change(r)
			h.store.requests["r1"] = r
			status, header, body := h.do(t, httptest.NewRequest(http.MethodGet, good, nil))
			if status != 200 || len(body) > 60_000 {
				t.Fatalf("answered %d with %d bytes", status, len(body))
			}
			if csp := header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") {
				t.Errorf("the policy is %q", csp)
			}
			for _, own := range []string{ownNote, ownAgent, ownExtra, ownError, "op-1", "7681", "7682"} {
				if strings.Contains(body, own) {
					t.Errorf("the page shows %q", own)
				}
			}
			got := inline.ReplaceAllString(body, "<$1/>")
			path := filepath.Join("testdata", "receipt_"+name+".html")
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
		})
	}
	files, err := filepath.Glob("testdata/receipt_*.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if _, ok := documents[strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "receipt_"), ".html")]; !ok {
			t.Errorf("%s belongs to no document", file)
		}
	}
}

func TestFetchingChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, publicURL)
	h.store.requests["r1"] = paid("r1")
	agents := []string{
		"", "WhatsApp/2.24.6.77 A", "facebookexternalhit/1.1", "Twitterbot/1.0", "Slackbot-LinkExpanding 1.0", "TelegramBot (like TwitterBot)",
		"Mozilla/5.0 (Linux; Android 14; wv) Chrome/120", "Mozilla/5.0 (compatible; Googlebot/2.1)", "Mozilla/5.0 (iPhone)", "curl/8.5.0",
	}
	for path, want := range map[string]int{"/r/receipt-r1": 303, good: 200, "/r/nothing": 404, good + "/viewed": 405} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for _, agent := range agents {
				r := httptest.NewRequest(method, path, nil)
				r.Header.Set("User-Agent", agent)
				if status, _, _ := h.do(t, r); status != want {
					t.Errorf("%s %s as %q answered %d, want %d", method, path, agent, status, want)
				}
			}
		}
	}
	if n := h.store.views(); n != 0 {
		t.Errorf("%d views", n)
	}
}

func TestFollowLink(t *testing.T) {
	t.Parallel()
	h := newHouse(t, publicURL)
	h.store.requests["r1"] = paid("r1")
	_, header, _ := h.do(t, httptest.NewRequest(http.MethodGet, "/r/receipt-r1", nil))
	if got := header.Get("Location"); got != publicURL+good {
		t.Errorf("leads to %q", got)
	}
	if status, _, _ := h.do(t, httptest.NewRequest(http.MethodGet, "/r/link-r1", nil)); status != 404 {
		t.Errorf("a payment link's code answered %d", status)
	}
}

func TestLinksThatDoNotOpen(t *testing.T) {
	t.Parallel()
	h := newHouse(t, publicURL)
	h.store.requests["r1"] = paid("r1")
	h.store.requests["r2"] = paid("r2")
	h.store.requests["r2"].MerchantID = "unknown"
	for token, want := range map[string]int{
		"late.r1": 410, "forged": 404, "good.r1@pay.other.example": 404, "good.r2@pay.acme.example": 404, "good.r3@pay.acme.example": 404,
	} {
		if status, _, body := h.do(t, httptest.NewRequest(http.MethodGet, "/receipts/"+token, nil)); status != want || strings.Contains(body, "149.00") || strings.Contains(body, "<script>") {
			t.Errorf("%s answered %d, want %d", token, status, want)
		}
	}
	h.store.fail = conversations.Unavailable(errors.New("gone"))
	if status, _, body := h.do(t, httptest.NewRequest(http.MethodGet, good, nil)); status != 503 || strings.Contains(body, "gone") {
		t.Errorf("without a store it answered %d", status)
	}
}

func viewed(change func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodPost, good+"/viewed", nil)
	r.Header.Set("Origin", publicURL)
	r.Header.Set("X-Paythread-Nonce", plainNonces{}.Mint("receipt", "r1", start))
	if change != nil {
		change(r)
	}
	return r
}

func TestRecordView(t *testing.T) {
	t.Parallel()
	h := newHouse(t, publicURL)
	h.store.requests["r1"] = paid("r1")
	for name, spoil := range map[string]func(*http.Request){
		"foreign origin":    func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"no origin":         func(r *http.Request) { r.Header.Del("Origin") },
		"null, cross site":  func(r *http.Request) { r.Header.Set("Origin", "null"); r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"no nonce":          func(r *http.Request) { r.Header.Del("X-Paythread-Nonce") },
		"another page's":    func(r *http.Request) { r.Header.Set("X-Paythread-Nonce", plainNonces{}.Mint("pay", "r1", start)) },
		"another request's": func(r *http.Request) { r.Header.Set("X-Paythread-Nonce", plainNonces{}.Mint("receipt", "r2", start)) },
		"nonce past its time": func(r *http.Request) {
			r.Header.Set("X-Paythread-Nonce", plainNonces{}.Mint("receipt", "r1", start.Add(-time.Hour)))
		},
	} {
		if status, _, _ := h.do(t, viewed(spoil)); status != 403 || h.store.views() != 0 {
			t.Errorf("%s answered %d with %d views", name, status, h.store.views())
		}
	}
	for range 2 {
		if status, _, _ := h.do(t, viewed(nil)); status != 204 || h.store.views() != 1 {
			t.Errorf("answered %d with %d views, want 204 and one", status, h.store.views())
		}
	}
	h.store.requests["r1"].Milestones = nil
	h.store.requests["r1"].Receipt = nil
	if status, _, _ := h.do(t, viewed(nil)); status != 204 || h.store.views() != 1 {
		t.Errorf("without a receipt: answered %d with %d views", status, h.store.views())
	}
}
