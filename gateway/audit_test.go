package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

func newTestAudit(store *heldRequests, paid map[string]platforms.Platform, log *slog.Logger) *auditJob {
	return newAuditJob(store, always(paid), AuditConfig{Every: time.Hour, Window: 48 * time.Hour}, newMoneyMetrics(prometheus.NewRegistry()), log)
}

// TestAuditLearnsWhatIsMissing: of all that a platform did in the window, what
// is not known here is recorded and counted, once, and the rest left alone.
func TestAuditLearnsWhatIsMissing(t *testing.T) {
	t.Parallel()
	store := &heldRequests{requests: map[string]*conversations.PaymentRequest{
		auditedRequest: audited(conversations.AttemptNotFound, operationWith(1, conversations.OperationRefund, conversations.OperationUnsettled, 1000, "")),
	}}
	old := paymentFound("6001", "pr_1k3v9m2x7c1d5f8g4h6j-1", conversations.OutcomeCaptured)
	old.At = auditNow.Add(-49 * time.Hour)
	b := &books{all: []platforms.Found{
		old,
		paymentFound("6500", "SHOP-1", conversations.OutcomeCaptured),
		paymentFound("7001", auditedRequest+"-1", conversations.OutcomeCaptured),
		paymentFound("7777", "pr_1k3v9m2x7c1d5f8g4h6j-1", conversations.OutcomeCaptured),
	}}
	var log lockedBuffer
	j := newTestAudit(store, map[string]platforms.Platform{"acme": b, "plain": struct{ platforms.Platform }{}}, slog.New(slog.NewTextHandler(&log, nil)))
	for _, merchant := range []string{"acme", "plain"} {
		j.auditInTurn(t.Context(), merchant)
	}
	if want := []string{"c_0 answered " + auditedRequest + " 1 captured asked=true"}; !slices.Equal(store.took(), want) {
		t.Errorf("applied %q, want %q", store.took(), want)
	}
	for kind, want := range map[moneyNews]float64{findingPayment: 1, findingNoRequest: 1, findingOperation: 0, findingSettled: 0, findingAmount: 0} {
		if got := testutil.ToFloat64(j.metrics.findings.WithLabelValues(string(kind))); got != want {
			t.Errorf("%s counted %v, want %v", kind, got, want)
		}
	}
	if got := testutil.ToFloat64(j.metrics.audits.WithLabelValues("done")); got != 1 {
		t.Errorf("%v audits done", got)
	}
	if !slices.Equal(store.asked, []string{"audit:acme"}) {
		t.Errorf("throttles %q", store.asked)
	}
	if !strings.Contains(log.String(), "transactions=3") || strings.Contains(log.String(), "SHOP-1") {
		t.Errorf("the log says %s", log.String())
	}
}

// TestAuditInTurn: another process's turn is left to it, and a fault ends a
// round with a count and no more.
func TestAuditInTurn(t *testing.T) {
	t.Parallel()
	payment := paymentFound("7001", auditedRequest+"-1", conversations.OutcomeCaptured)
	for _, c := range []struct {
		name    string
		change  func(*heldRequests, *books)
		outcome string
		count   float64
		applied int
	}{
		{"another's turn", func(h *heldRequests, _ *books) { h.wait = time.Minute }, "done", 0, 0},
		{"the platform is away", func(_ *heldRequests, b *books) { b.down = errors.New("closed") }, "failed", 1, 0},
		{"one that cannot be read", func(_ *heldRequests, b *books) {
			b.all = append([]platforms.Found{followOnFound("8001", "CREDIT-9", conversations.OperationRefund, 500)}, b.all...)
			b.unread = "7001"
		}, "failed", 1, 1},
		{"one that cannot be recorded", func(h *heldRequests, b *books) {
			h.requests["pr_0other"] = &conversations.PaymentRequest{ID: "pr_0other", MerchantID: "acme"}
			b.all = append([]platforms.Found{paymentFound("1", "pr_0other-1", conversations.OutcomeCaptured)}, b.all...)
		}, "done", 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: audited(conversations.AttemptNotFound)}}
			b := &books{all: []platforms.Found{payment}}
			c.change(store, b)
			j := newTestAudit(store, map[string]platforms.Platform{"acme": b}, silent)
			j.auditInTurn(t.Context(), "acme")
			if got := testutil.ToFloat64(j.metrics.audits.WithLabelValues(c.outcome)); got != c.count || len(store.took()) != c.applied {
				t.Errorf("counted %v as %s, applied %q", got, c.outcome, store.took())
			}
		})
	}
	t.Run("the store goes away", func(t *testing.T) {
		t.Parallel()
		store := &heldRequests{down: conversations.Unavailable(io.ErrUnexpectedEOF)}
		j := newTestAudit(store, map[string]platforms.Platform{"acme": &books{}}, silent)
		j.auditInTurn(t.Context(), "acme")
		if err := j.audit(t.Context(), "acme", &books{all: []platforms.Found{payment}}); conversations.CodeOf(err) != conversations.CodeUnavailable {
			t.Errorf("the round ends with %v", err)
		}
	})
	t.Run("never", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		store := &heldRequests{}
		j := newTestAudit(store, map[string]platforms.Platform{"acme": &books{}}, silent)
		j.config.Every = 0
		if err := j.Run(ctx); err != nil || len(store.asked) > 0 {
			t.Errorf("%v, asked %q", err, store.asked)
		}
	})
}

// TestAuditAge: an audit that fails, or never runs, grows old; one that comes to
// its end is young; and who cannot be audited, or is not to be, has no age.
func TestAuditAge(t *testing.T) {
	t.Parallel()
	store, b := &heldRequests{}, &books{}
	j := newTestAudit(store, map[string]platforms.Platform{"acme": b, "late": &books{}, "plain": struct{ platforms.Platform }{}}, silent)
	store.late = time.Hour
	age := func() map[string]float64 {
		ages := map[string]float64{}
		registry := prometheus.NewRegistry()
		registry.MustRegister(newAuditCollector(j))
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "paythread_audit_interval_seconds" {
					ages["every"] = m.GetGauge().GetValue()
				} else {
					ages[m.GetLabel()[0].GetValue()] = float64(j.store.Now().Unix()) - m.GetGauge().GetValue()
				}
			}
		}
		return ages
	}
	is := func(what string, want map[string]float64) {
		t.Helper()
		if got := age(); !maps.Equal(got, want) {
			t.Errorf("%s: ages %v, want %v", what, got, want)
		}
	}
	b.down = errors.New("closed")
	j.auditInTurn(t.Context(), "acme")
	is("failed", map[string]float64{"every": 3600, "acme": 3600, "late": 3600})
	b.down = context.Canceled
	j.auditInTurn(t.Context(), "acme")
	is("broken off", map[string]float64{"every": 3600, "acme": 3600, "late": 3600})
	for outcome, want := range map[string]float64{"done": 0, "failed": 1} {
		if n := testutil.ToFloat64(j.metrics.audits.WithLabelValues(outcome)); n != want {
			t.Errorf("%v audits are counted as %s, want %v", n, outcome, want)
		}
	}
	b.down = nil
	j.auditInTurn(t.Context(), "acme")
	is("done", map[string]float64{"every": 3600, "acme": 0, "late": 3600})
	j.config.Every = 0
	is("switched off", map[string]float64{})
}

// TestComparison: the table that a person reads, row by row.
func TestComparison(t *testing.T) {
	t.Parallel()
	const code, op = auditedRequest + "-1", auditedRequest + "-op"
	refund := conversations.OperationRefund
	for _, c := range []struct {
		name    string
		request *conversations.PaymentRequest
		theirs  []platforms.Found
		want    string // the rows, without the request and its order
	}{
		{"they agree", audited(conversations.AttemptCaptured, operationWith(1, refund, conversations.OperationSucceeded, 1000, "8001")),
			[]platforms.Found{paymentFound("7001", code, conversations.OutcomeCaptured), followOnFound("8001", op+"1", refund, 1000)},
			"payment 1|ZAR 149.00|captured|captured|\nrefund|ZAR 10.00|succeeded|done|\n"},
		{"given back, as they say, too", audited(conversations.AttemptReversed, operationWith(1, conversations.OperationVoid, conversations.OperationSucceeded, 14900, "8001")),
			[]platforms.Found{paymentFound("7001", code, conversations.OutcomeReversed), followOnFound("8001", op+"1", conversations.OperationVoid, 14900), followOnFound("8002", op+"1", conversations.OperationReversal, 14900)},
			"payment 1|ZAR 149.00|reversed|reversed|\nvoid|ZAR 149.00|succeeded|done|\n"},
		{"money that we do not know of", audited(conversations.AttemptNotFound), []platforms.Found{paymentFound("7001", code, conversations.OutcomeCaptured)},
			"payment 1|ZAR 149.00|not_found|captured|they have the money, we do not know of it\n"},
		{"money that they do not show", audited(conversations.AttemptCaptured), nil, "payment 1|ZAR 149.00|captured|-|they do not show it\n"},
		{"money that they do not have", audited(conversations.AttemptCaptured), []platforms.Found{paymentFound("7001", code, conversations.OutcomeDeclined)},
			"payment 1|ZAR 149.00|captured|declined|we count on money that they do not have\n"},
		{"nothing on either side", audited(conversations.AttemptDeclined), nil, "payment 1|ZAR 149.00|declined|-|\n"},
		{"a refund from the back office", audited(conversations.AttemptCaptured), []platforms.Found{paymentFound("7001", code, conversations.OutcomeCaptured), followOnFound("8001", "CREDIT-9", refund, 500)},
			"payment 1|ZAR 149.00|captured|captured|\nrefund|ZAR 5.00|-|done|they did it, we do not know of it\n"},
		{"a refund whose answer was lost", audited(conversations.AttemptCaptured, operationWith(1, refund, conversations.OperationUnsettled, 1000, "")),
			[]platforms.Found{paymentFound("7001", code, conversations.OutcomeCaptured), followOnFound("8001", op+"1", refund, 1000)},
			"payment 1|ZAR 149.00|captured|captured|\nrefund|ZAR 10.00|unknown|done|they did it, we do not know of it\n"},
		{"a refund that they do not show", audited(conversations.AttemptCaptured, operationWith(1, refund, conversations.OperationSucceeded, 1000, "8001")),
			[]platforms.Found{paymentFound("7001", code, conversations.OutcomeCaptured)},
			"payment 1|ZAR 149.00|captured|captured|\nrefund|ZAR 10.00|succeeded|-|they do not show it\n"},
		{"another amount", audited(conversations.AttemptCaptured), []platforms.Found{func() platforms.Found {
			f := paymentFound("7001", code, conversations.OutcomeCaptured)
			f.Amount = inCents(14901)
			return f
		}()}, "payment 1|ZAR 149.00|captured|captured|their amount is ZAR 149.01\n"},
		{"too young to show", func() *conversations.PaymentRequest {
			r := audited(conversations.AttemptCaptured)
			r.Attempts[0].StartedAt = auditNow.Add(-time.Minute)
			return r
		}(), nil, ""},
		{"somebody else's", audited(conversations.AttemptDeclined), []platforms.Found{paymentFound("6500", "SHOP-1", conversations.OutcomeCaptured)}, "payment 1|ZAR 149.00|declined|-|\n"},
		{"nobody's", audited(conversations.AttemptDeclined), []platforms.Found{paymentFound("7777", "pr_1k3v9m2x7c1d5f8g4h6j-1", conversations.OutcomeCaptured)},
			"payment|ZAR 149.00|-|captured|no such payment request\npayment 1|ZAR 149.00|declined|-|\n"},
		{"charged twice", audited(conversations.AttemptCaptured), []platforms.Found{paymentFound("7001", code, conversations.OutcomeCaptured), paymentFound("7002", code, conversations.OutcomeAuthorized)},
			"payment 1|ZAR 149.00|captured|authorized|they have charged twice by one reference\n"},
		{"charged twice, and one was given back", audited(conversations.AttemptCaptured), []platforms.Found{
			paymentFound("7001", code, conversations.OutcomeCaptured), paymentFound("7002", code, conversations.OutcomeCaptured), func() platforms.Found {
				f := followOnFound("8001", code, conversations.OperationVoid, 14900)
				f.PaymentID, f.RootID = "7002", "7002"
				return f
			}()},
			"payment 1|ZAR 149.00|captured|captured|\n"},
		{"a decline that was forgotten", func() *conversations.PaymentRequest {
			r := audited(conversations.AttemptDeclined)
			r.Lifecycle, r.Attempts = conversations.Open, nil
			return r
		}(), []platforms.Found{paymentFound("7001", code, conversations.OutcomeDeclined)}, "payment|ZAR 149.00|open|declined|\n"},
		{"forgotten", func() *conversations.PaymentRequest {
			r := audited(conversations.AttemptDeclined)
			r.Lifecycle, r.Attempts = conversations.Open, nil
			return r
		}(), []platforms.Found{paymentFound("7001", code, conversations.OutcomeCaptured)}, "payment|ZAR 149.00|open|captured|it knows of no such payment\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: c.request}, pages: []*conversations.PaymentRequest{c.request}}
			got, err := compareMoney(t.Context(), store, &books{all: c.theirs}, "acme", auditNow.Add(-48*time.Hour), auditNow)
			if err != nil {
				t.Fatal(err)
			}
			var rows strings.Builder
			for _, r := range got.rows {
				rows.WriteString(strings.Join([]string{r.what, r.amount.String(), r.ours, r.theirs, r.difference}, "|") + "\n")
			}
			if rows.String() != c.want {
				t.Errorf("got\n%s\nwant\n%s", rows.String(), c.want)
			}
			if want := strings.Count(c.want, "\n") - strings.Count(c.want, "|\n"); got.differences() != want {
				t.Errorf("%d differences, want %d", got.differences(), want)
			}
			if len(store.took()) > 0 {
				t.Errorf("a comparison changed something: %q", store.took())
			}
		})
	}
}

func TestComparisonIsPrinted(t *testing.T) {
	t.Parallel()
	r := audited(conversations.AttemptCaptured)
	store := &heldRequests{requests: map[string]*conversations.PaymentRequest{auditedRequest: r}}
	theirs := []platforms.Found{paymentFound("7001", auditedRequest+"-1", conversations.OutcomeCaptured), followOnFound("8001", "CREDIT-9", conversations.OperationRefund, 500)}
	c, err := compareMoney(t.Context(), store, &books{all: theirs}, "acme", auditNow.Add(-48*time.Hour), auditNow)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := c.print(&out); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"PAYMENT REQUEST          ORDER  WHAT       AMOUNT      OURS      THEIRS    DIFFERENCE\n" +
		"pr_0k3v9m2x7c1d5f8g4h6j  1042   payment 1  ZAR 149.00  captured  captured  \n" +
		"                                refund     ZAR 5.00    -         done      they did it, we do not know of it\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	if err := (&comparison{}).print(&out); err != nil || !strings.Contains(out.String(), "Nobody has paid") {
		t.Errorf("%q, %v", out.String(), err)
	}
}
