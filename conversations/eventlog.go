package conversations

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
)

// moneyEvents are the types of events that tell of money: the log keeps their
// lines apart, as those of an audit.
var moneyEvents = []string{
	"attempt_started", "attempt_not_taken", "attempt_unsettled", "attempt_not_found", "declined", "authenticating",
	"paid", "authorized", "in_review", "late_payment",
	"operation_asked", "captured", "refunded", "operation_unknown", "operation_failed",
	"reversal_started", "reversed", "reversal_failed",
}

// logEvents leaves one line for each event of a payment request that a commit
// has written, and no other: whoever looks for a payment request's id in the log
// finds its whole life. A commit that was made before leaves none again.
func (s *Store) logEvents(ctx context.Context, contact *Contact, events []LoggedEvent) {
	if len(events) == 0 || !s.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	line := make(logLine, 0, mostAttributes)
	for _, e := range events {
		line = e.attributes(line[:0], contact)
		s.log.LogAttrs(ctx, slog.LevelInfo, "a payment request has news", line...)
	}
}

// mostAttributes is how many a line has at most. Room for them is made once:
// every webhook and every press leaves a line.
const mostAttributes = 20

// logLine is what stands in a line of the log.
type logLine []slog.Attr

func (l *logLine) text(name, value string) {
	if value != "" {
		*l = append(*l, slog.String(name, value))
	}
}

func (e LoggedEvent) attributes(of logLine, contact *Contact) logLine {
	text := of.text
	if slices.Contains(moneyEvents, e.Type) {
		of = append(of, slog.Bool("audit", true))
	}
	text("merchant_id", contact.MerchantID)
	text("conversation_id", contact.ID)
	text("payment_request_id", e.RequestID)
	of = append(of, slog.Int64("seq", e.Seq))
	text("event", e.Type)
	text("lifecycle", string(e.Lifecycle))
	text("reason", e.Reason)
	if e.Attempt > 0 {
		text("attempt", attemptCode(e.RequestID, e.Attempt))
	}
	if o := e.Operation; o != nil {
		text("operation", o.ID)
		text("kind", string(o.Kind))
		text("amount", o.Amount.Decimal())
		text("currency", o.Amount.Currency)
		text("state", string(o.State))
		text("why", o.Reason)
	}
	if m := e.Message; m != nil {
		text("message_id", m.ID)
		text("purpose", string(m.Purpose))
		text("channel", string(m.Channel))
		text("delivery_status", string(m.Status))
		text("failure", string(m.Reason))
	}
	return of
}

// attemptCode names an attempt at the platform and in the log.
func attemptCode(requestID string, n int) string { return fmt.Sprintf("%s-%d", requestID, n) }
