package main

import (
	"context"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// told is a platform whose notifications say what a test wants.
type told struct {
	books
	note platforms.Notification
	err  error
}

func (p *told) ReadNotification(header func(string) string, body []byte, now time.Time) (platforms.Notification, error) {
	if header("v-c-signature") != "right" || !now.Equal(auditNow) {
		return platforms.Notification{}, platforms.ErrNotificationSignature
	}
	if string(body) == "panic" {
		panic("on purpose")
	}
	return p.note, p.err
}

// noticeBench is the notifications' routes before a platform and a store.
type noticeBench struct {
	t     *testing.T
	app   *fiber.App
	n     *notifications
	store *heldRequests
	acme  *told
}

func newNoticeBench(t *testing.T, state conversations.AttemptState) *noticeBench {
	t.Helper()
	b := &noticeBench{t: t, acme: &told{}, store: &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: audited(state)}}}
	b.n = &notifications{
		transactions: transactions{store: b.store, log: silent}, platforms: always(map[string]platforms.Platform{"acme": b.acme, "plain": &books{}}),
		now: b.store.Now, within: time.Second, every: time.Millisecond, metrics: newMoneyMetrics(prometheus.NewRegistry()),
	}
	gateway := &App{notifications: b.n, webhooks: &webhooks{metrics: newWebhookMetrics(prometheus.NewRegistry()), log: silent}}
	b.app = fiber.New(fiber.Config{DisableStartupMessage: true, Immutable: true, BodyLimit: maxWebhookBody, ErrorHandler: problemHandler(silent)})
	b.app.Use(recoverPanics)
	for _, r := range gateway.notificationRoutes() {
		mount(b.app, []route{r})
	}
	mount(b.app, []route{{both, "/webhooks/:sender_id/:secret", gateway.webhooks.Take}})
	return b
}

func (b *noticeBench) post(path, signature, body string) (status int, answer string) {
	b.t.Helper()
	request := httptest.NewRequest(fiber.MethodPost, path, strings.NewReader(body))
	request.Header.Set("V-C-Signature", signature)
	response, err := b.app.Test(request, -1)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func (b *noticeBench) counted(product string, outcome noticeOutcome) float64 {
	return testutil.ToFloat64(b.n.metrics.notifications.WithLabelValues(product, string(outcome)))
}

// TestNotifications: what is answered, what becomes known, and what is counted.
func TestNotifications(t *testing.T) {
	t.Parallel()
	const code = auditedRequest + "-1"
	payment := platforms.Notification{Key: "k", Product: "payments", Type: "payments.capture.status.accepted", Known: true, TransactionID: "7001", Code: code}
	with := func(change func(*platforms.Notification)) platforms.Notification {
		n := payment
		change(&n)
		return n
	}
	for _, c := range []struct {
		name    string
		note    platforms.Notification
		err     error
		down    error
		status  int
		product string
		outcome noticeOutcome
		applied string
		waits   int
	}{
		{name: "about a payment", note: payment, status: 200, product: "payments", outcome: noticeTaken, applied: "c_0 notified " + auditedRequest + " 1"},
		{name: "about what followed a payment", note: with(func(n *platforms.Notification) { n.TransactionID = "8001" }), status: 200, product: "payments", outcome: noticeTaken, applied: "c_0 notified " + auditedRequest + " 1", waits: 1},
		{name: "about an operation of another reference", note: with(func(n *platforms.Notification) { n.TransactionID, n.Code = "8001", "CREDIT-9" }), status: 200, product: "payments", outcome: noticeLater, waits: 1},
		{name: "about somebody else's, without a number", note: with(func(n *platforms.Notification) { n.TransactionID, n.Code = "", "CREDIT-9" }), status: 200, product: "payments", outcome: noticeForeign},
		{name: "about no request of ours", note: with(func(n *platforms.Notification) { n.Code = "pr_1k3v9m2x7c1d5f8g4h6j-1" }), status: 200, product: "payments", outcome: noticeForeign},
		{name: "a review that was accepted", note: with(func(n *platforms.Notification) { n.Product, n.Review = "decisionManager", platforms.ReviewAccepted }), status: 200, product: "decisionManager", outcome: noticeTaken, applied: "c_0 review " + auditedRequest + " 1 accepted=true"},
		{name: "a review that was rejected", note: with(func(n *platforms.Notification) { n.Product, n.Review = "decisionManager", platforms.ReviewRejected }), status: 200, product: "decisionManager", outcome: noticeTaken, applied: "c_0 review " + auditedRequest + " 1 accepted=false"},
		{name: "a product that is not known", note: with(func(n *platforms.Notification) { n.Product, n.Known = "moonShots", false }), status: 200, product: otherProduct, outcome: noticeIgnored},
		{name: "stale", err: platforms.ErrNotificationStale, status: 403, product: otherProduct, outcome: noticeStale},
		{name: "signed, and without sense", err: platforms.ErrNotificationUnreadable, status: 200, product: otherProduct, outcome: noticeUnreadable},
		{name: "while Redis is away", note: payment, down: conversations.Unavailable(io.ErrUnexpectedEOF), status: 503, product: "payments", outcome: noticeUnavailable},
		{name: "with a fault of ours", note: payment, down: io.ErrUnexpectedEOF, status: 200, product: "payments", outcome: noticeFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newNoticeBench(t, conversations.AttemptCaptured)
			b.acme.note, b.acme.err, b.store.down = c.note, c.err, c.down
			if status, answer := b.post("/webhooks/cybersource/acme", "right", "{}"); status != c.status {
				t.Fatalf("status %d: %s", status, answer)
			}
			if took := strings.Join(b.store.took(), "; "); took != c.applied {
				t.Errorf("applied %q, want %q", took, c.applied)
			}
			if got := b.counted(c.product, c.outcome); got != 1 {
				t.Errorf("counted %v as %s, %s", got, c.product, c.outcome)
			}
			if len(b.n.waiting) != c.waits {
				t.Errorf("%d transactions wait", len(b.n.waiting))
			}
			if len(b.acme.asked) > 0 {
				t.Error("the platform was asked while it waited for the answer")
			}
		})
	}
}

// TestForgedNotifications: nobody learns anything from a refusal, and nothing of
// a forgery is believed, not even its product.
func TestForgedNotifications(t *testing.T) {
	t.Parallel()
	b := newNoticeBench(t, conversations.AttemptInReview)
	b.acme.note = platforms.Notification{Key: "k", Product: "decisionManager", Known: true, Code: auditedRequest + "-1", Review: platforms.ReviewAccepted}
	var first string
	for _, signature := range []string{"", "wrong", "t=1;keyId=x;sig=y"} {
		status, answer := b.post("/webhooks/cybersource/acme", signature, `{"eventType":"x"}`)
		if first == "" {
			first = answer
		}
		if status != 403 || answer != first || !strings.Contains(answer, "the notification's signature is missing or wrong") {
			t.Errorf("%q: %d %s", signature, status, answer)
		}
	}
	if len(b.store.took()) > 0 || b.counted(otherProduct, noticeBadSignature) != 3 {
		t.Errorf("%v, counted %v", b.store.took(), b.counted(otherProduct, noticeBadSignature))
	}
	for _, merchant := range []string{"nobody", "plain", "acme/health/x"} {
		if status, _ := b.post("/webhooks/cybersource/"+merchant, "right", "{}"); status != 404 {
			t.Errorf("%s: %d", merchant, status)
		}
	}
	if status, _ := b.post("/webhooks/cybersource/acme", "right", "panic"); status != 500 {
		t.Errorf("a panic: %d", status)
	}
	for _, method := range []string{fiber.MethodGet, fiber.MethodPost} {
		for merchant, want := range map[string]int{"acme": 200, "plain": 404, "nobody": 404} {
			response, err := b.app.Test(httptest.NewRequest(method, "/webhooks/cybersource/"+merchant+"/health", nil), -1)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("%s health of %s: %d, want %d", method, merchant, response.StatusCode, want)
			}
		}
	}
}

// TestRepeatedNotifications: the same news, however often it is delivered, is
// taken once.
func TestRepeatedNotifications(t *testing.T) {
	t.Parallel()
	b := newNoticeBench(t, conversations.AttemptCaptured)
	b.acme.note = platforms.Notification{Key: "k", Product: "payments", Known: true, TransactionID: "8001", Code: auditedRequest + "-1"}
	for range 3 {
		if status, _ := b.post("/webhooks/cybersource/acme", "right", "{}"); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	if took := b.store.took(); len(took) != 1 || len(b.n.waiting) != 1 || b.counted("payments", noticeTaken) != 1 || b.counted("payments", noticeRepeated) != 2 {
		t.Errorf("applied %q, %d wait, counted %v and %v", took, len(b.n.waiting), b.counted("payments", noticeTaken), b.counted("payments", noticeRepeated))
	}
	b.acme.note.Key, b.acme.note.Code = "l", "CREDIT-9"
	for range 3 {
		if status, _ := b.post("/webhooks/cybersource/acme", "right", "{}"); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	if len(b.n.waiting) != 2 || b.counted("payments", noticeLater) != 1 {
		t.Errorf("%d wait, counted %v", len(b.n.waiting), b.counted("payments", noticeLater))
	}
	b.n.waiting = slices.Repeat(b.n.waiting[:1], maxLookups)
	b.acme.note.Key = "m"
	if status, _ := b.post("/webhooks/cybersource/acme", "right", "{}"); status != 503 || b.counted("payments", noticeUnavailable) != 1 {
		t.Errorf("with no room: %d, counted %v", status, b.counted("payments", noticeUnavailable))
	}
}

// TestLookups: a transaction that shows late is asked for until it does, and
// one that never shows is left to the audit.
func TestLookups(t *testing.T) {
	t.Parallel()
	b := newNoticeBench(t, conversations.AttemptCaptured)
	now := auditNow
	b.n.now = func() time.Time { return now }
	look := func() {
		for _, l := range b.n.takeDue() {
			b.n.lookUp(t.Context(), l)
		}
	}
	note := platforms.Notification{Key: "k", Product: "payments", Known: true, TransactionID: "8001", Code: "CREDIT-9"}
	if got := b.n.later("acme", note); got != noticeLater {
		t.Fatal(got)
	}
	look()
	look() // not due
	if len(b.acme.asked) != 1 || len(b.n.waiting) != 1 {
		t.Fatalf("asked %q, %d wait", b.acme.asked, len(b.n.waiting))
	}
	b.acme.down = io.ErrUnexpectedEOF
	now = now.Add(lookupWaits[0])
	look()
	b.acme.down, b.acme.all = nil, []platforms.Found{paymentFound("7001", auditedRequest+"-1", conversations.OutcomeCaptured), followOnFound("8001", "CREDIT-9", conversations.OperationRefund, 500)}
	now = now.Add(lookupWaits[1])
	look()
	want := "c_0 found " + auditedRequest + " 1 refund 5.00 as 8001 on 7001"
	if took := strings.Join(b.store.took(), "; "); took != want || len(b.n.waiting) != 0 {
		t.Fatalf("applied %q, want %q; %d wait", took, want, len(b.n.waiting))
	}
	if got := testutil.ToFloat64(b.n.metrics.findings.WithLabelValues(string(findingOperation))); got != 1 {
		t.Errorf("counted %v", got)
	}
	b.n.later("acme", platforms.Notification{Key: "never", TransactionID: "9999"})
	for range len(lookupWaits) + 1 {
		if len(b.n.waiting) != 1 {
			t.Fatal("it is given up too soon")
		}
		look()
		now = now.Add(time.Hour)
	}
	if len(b.n.waiting) != 0 {
		t.Error("it is asked for without end")
	}
}

// TestReviewOfAnotherReference: the end of a review whose notification names
// only the platform's number is found by it.
func TestReviewOfAnotherReference(t *testing.T) {
	t.Parallel()
	b := newNoticeBench(t, conversations.AttemptInReview)
	b.acme.all = []platforms.Found{paymentFound("7001", auditedRequest+"-1", conversations.OutcomeInReview)}
	b.n.later("acme", platforms.Notification{Key: "k", TransactionID: "7001", Review: platforms.ReviewRejected})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.n.Run(ctx) }()
	for limit := time.Now().Add(longestWait); len(b.store.took()) == 0 && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := strings.Join(b.store.took(), "; "); took != "c_0 review "+auditedRequest+" 1 accepted=false" {
		t.Errorf("applied %q", took)
	}
}
