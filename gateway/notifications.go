package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// cybersourcePath is where CyberSource's notifications come, before those of
// senders: no sender may have its name.
const cybersourcePath = "cybersource"

// notifications takes what payment platforms tell by webhook. A notification is
// a hint: what happened is asked for at the platform, but for the end of a
// review, which the signature vouches for.
//
// The status decides whether CyberSource delivers again, three times a minute
// apart: 403 and 503, because our keys or our Redis may be right by then; 200
// for all else, also for what is signed and makes no sense, because a repeat
// would make none either. What is lost all the same the audit finds.
type notifications struct {
	transactions
	platforms func() map[string]platforms.Platform // by merchant
	now       func() time.Time
	within    time.Duration // of one call of a platform
	every     time.Duration // between two looks at what waits
	metrics   *moneyMetrics

	mu      sync.Mutex
	waiting []lookup
}

func newNotifications(store *conversations.Store, paid func() map[string]platforms.Platform, within time.Duration, metrics *moneyMetrics, log *slog.Logger) *notifications {
	return &notifications{
		transactions: transactions{store: store, log: log}, platforms: paid, now: store.Now,
		within: within, every: lookupsEvery, metrics: metrics,
	}
}

// lookup is a transaction that is to be looked up at the platform, because the
// notification does not say enough of it.
type lookup struct {
	merchantID    string
	transactionID string
	key           string // of the notification
	review        platforms.Review
	tries         int
	due           time.Time
}

// lookupWaits are the waits before a transaction is looked up once more: it
// takes minutes to show. Afterwards the audit finds it.
var lookupWaits = []time.Duration{10 * time.Second, 30 * time.Second, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute}

// maxLookups bounds how many wait in one process.
const maxLookups = 10_000

// lookupsEvery is how often what waits is looked at.
const lookupsEvery = 500 * time.Millisecond

// answerHealth answers GET and POST /webhooks/cybersource/{merchant_id}/health:
// CyberSource activates a subscription only after this.
func (n *notifications) answerHealth(c *fiber.Ctx) error {
	if _, ok := n.platforms()[c.Params("merchant_id")].(platforms.Notifying); !ok {
		return conversations.NotFound("merchant with this id, or it takes no notifications")
	}
	return c.SendString("ok\n")
}

// takeNotification answers POST /webhooks/cybersource/{merchant_id}.
func (n *notifications) takeNotification(c *fiber.Ctx) error {
	merchantID := c.Params("merchant_id")
	platform, ok := n.platforms()[merchantID].(platforms.Notifying)
	if !ok {
		n.count(otherProduct, noticeForeign)
		return conversations.NotFound("merchant with this id, or it takes no notifications")
	}
	header := func(name string) string { return c.Get(name) }
	note, err := platform.ReadNotification(header, slices.Clone(c.Request().Body()), n.now())
	switch {
	case errors.Is(err, platforms.ErrNotificationSignature):
		n.count(otherProduct, noticeBadSignature)
		return forged("bad_signature", "header.v-c-signature", "the notification's signature is missing or wrong")
	case errors.Is(err, platforms.ErrNotificationStale):
		n.count(otherProduct, noticeStale)
		return forged("stale", "header.v-c-signature", "the notification was signed too long ago, or in the future")
	case errors.Is(err, platforms.ErrNotificationUnreadable):
		n.count(otherProduct, noticeUnreadable)
		n.log.Warn("a signed notification cannot be read", "merchant_id", merchantID, "error", err)
		return c.SendStatus(fiber.StatusOK)
	case err != nil:
		n.count(otherProduct, noticeFailed)
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), webhookWithin)
	defer cancel()
	outcome, err := n.take(ctx, merchantID, note)
	n.count(note.Product, outcome)
	switch {
	case outcome == noticeUnavailable && err == nil:
		return fiber.ErrServiceUnavailable
	case outcome == noticeUnavailable:
		return err
	case err != nil:
		n.log.Error("a notification could not be taken", "merchant_id", merchantID, "product", note.Product, "type", note.Type, "error", err)
	}
	return c.SendStatus(fiber.StatusOK)
}

func (n *notifications) count(product string, outcome noticeOutcome) {
	if !slices.Contains(notifiedProducts, product) {
		product = otherProduct
	}
	n.metrics.notifications.WithLabelValues(product, string(outcome)).Inc()
}

// take makes known what a notification tells. The platform is never called
// here: CyberSource waits for the answer.
func (n *notifications) take(ctx context.Context, merchantID string, note platforms.Notification) (outcome noticeOutcome, err error) {
	defer recovered(&err)
	outcome = noticeFailed // if it panics
	if !note.Known {
		return noticeIgnored, nil
	}
	ref, ours := readReference(note.Code)
	if !ours {
		return n.later(merchantID, note), nil
	}
	at, there, err := n.locate(ctx, merchantID, ref)
	if err != nil {
		return outcomeOf(err), err
	}
	if !there {
		n.log.WarnContext(ctx, "a notification refers to no payment request of the merchant", "merchant_id", merchantID, "reference", note.Code)
		return noticeForeign, nil
	}
	return n.tell(ctx, at, note)
}

// tell commits the news to a payment request, once for each notification.
func (n *notifications) tell(ctx context.Context, at belonging, note platforms.Notification) (noticeOutcome, error) {
	applied, err := n.store.Apply(ctx, at.request.ContactID, newsOf(at, note.Review), conversations.Once{Key: "notified:" + note.Key})
	switch {
	case err != nil:
		return outcomeOf(err), err
	case applied.Duplicate:
		return noticeRepeated, nil
	}
	if note.Review != platforms.ReviewNone {
		n.log.InfoContext(ctx, "the platform's reviewers have decided", "audit", true, "payment_request_id", at.request.ID, "attempt", at.attempt.Code, "decision", note.Review)
		return noticeTaken, nil
	}
	// What acts on a payment has a number of its own; whether it is known is
	// found out once the platform shows it.
	if note.TransactionID != "" && note.TransactionID != at.attempt.Result.PaymentID {
		n.later(at.request.MerchantID, note)
	}
	return noticeTaken, nil
}

// newsOf returns the event of a notification.
func newsOf(at belonging, review platforms.Review) conversations.Event {
	if review == platforms.ReviewNone {
		return conversations.AttemptNotified{RequestID: at.request.ID, Attempt: at.attempt.N}
	}
	return conversations.ReviewDecided{RequestID: at.request.ID, Attempt: at.attempt.N, Accepted: review == platforms.ReviewAccepted}
}

// outcomeOf says what an error means for a notification.
func outcomeOf(err error) noticeOutcome {
	switch conversations.CodeOf(err) {
	case conversations.CodeUnavailable:
		return noticeUnavailable
	case conversations.CodeNotFound:
		return noticeForeign // its retention has ended
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return noticeUnavailable
	}
	return noticeFailed
}

// later has a notification's transaction looked up, soon and by this process.
// Should the process end before, the audit finds what it was about.
func (n *notifications) later(merchantID string, note platforms.Notification) noticeOutcome {
	if _, ok := n.platforms()[merchantID].(platforms.Auditor); !ok || note.TransactionID == "" {
		return noticeForeign
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.ContainsFunc(n.waiting, func(l lookup) bool { return l.merchantID == merchantID && l.key == note.Key }) {
		return noticeRepeated
	}
	if len(n.waiting) >= maxLookups {
		return noticeUnavailable
	}
	n.waiting = append(n.waiting, lookup{merchantID: merchantID, transactionID: note.TransactionID, key: note.Key, review: note.Review, due: n.now()})
	return noticeLater
}

// Run looks up what waits until ctx ends.
func (n *notifications) Run(ctx context.Context) error {
	tick := time.NewTicker(n.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, l := range n.takeDue() {
			if ctx.Err() != nil {
				return nil
			}
			n.lookUp(ctx, l)
		}
	}
}

// takeDue takes out what is due.
func (n *notifications) takeDue() (due []lookup) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	n.waiting = slices.DeleteFunc(n.waiting, func(l lookup) bool {
		if now.Before(l.due) {
			return false
		}
		due = append(due, l)
		return true
	})
	return due
}

// lookUp asks the platform for a transaction and makes it known; what does not
// show yet is asked for again.
func (n *notifications) lookUp(ctx context.Context, l lookup) {
	call, cancel := context.WithTimeout(ctx, n.within)
	defer cancel()
	done, err := n.lookUpOnce(call, l)
	if err != nil {
		n.log.WarnContext(ctx, "a notification's transaction could not be looked up", "merchant_id", l.merchantID, "platform_id", l.transactionID, "error", err)
	}
	if done {
		return
	}
	if l.tries == len(lookupWaits) {
		n.log.WarnContext(ctx, "a notification's transaction did not show; it is left to the audit", "merchant_id", l.merchantID, "platform_id", l.transactionID)
		return
	}
	l.due = n.now().Add(lookupWaits[l.tries])
	l.tries++
	n.mu.Lock()
	n.waiting = append(n.waiting, l)
	n.mu.Unlock()
}

func (n *notifications) lookUpOnce(ctx context.Context, l lookup) (done bool, err error) {
	defer recovered(&err)
	auditor, ok := n.platforms()[l.merchantID].(platforms.Auditor)
	if !ok {
		return true, nil
	}
	found, there, err := auditor.Transaction(ctx, l.transactionID)
	if err != nil || !there {
		return false, err
	}
	if l.review == platforms.ReviewNone {
		news, err := n.learn(ctx, l.merchantID, auditor, found, newMetTransactions())
		if err == nil && news != findingNone {
			n.metrics.findings.WithLabelValues(string(news)).Inc()
		}
		return err == nil, err
	}
	ref, ours, err := n.origin(ctx, auditor, found, newMetTransactions())
	if err != nil || !ours {
		return err == nil, err
	}
	at, there, err := n.locate(ctx, l.merchantID, ref)
	if err != nil || !there {
		return err == nil, err
	}
	_, err = n.tell(ctx, at, platforms.Notification{Key: l.key, Known: true, Review: l.review})
	return err == nil, err
}
