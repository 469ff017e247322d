package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// auditStore is what the audit needs of the store.
type auditStore interface {
	requestStore
	Throttle(ctx context.Context, name string, r conversations.Rate) (time.Duration, error)
	Now() time.Time
}

// auditJob compares what the merchants' platforms did with what is known here,
// again and again, and records what is missing. A transaction may take minutes
// to show at a platform; it is found by a later round.
type auditJob struct {
	transactions
	store     auditStore
	platforms func() map[string]platforms.Platform // by merchant
	config    AuditConfig
	metrics   *moneyMetrics
	met       map[string]*metTransactions // by merchant: what is not ours is read once, and not in each round

	mu    sync.Mutex
	ended map[string]time.Time // by merchant: when its last audit came to its end in this process
}

func newAuditJob(store auditStore, paid func() map[string]platforms.Platform, c AuditConfig, metrics *moneyMetrics, log *slog.Logger) *auditJob {
	j := &auditJob{
		transactions: transactions{store: store, log: log}, store: store, platforms: paid, config: c, metrics: metrics,
		met: map[string]*metTransactions{}, ended: map[string]time.Time{},
	}
	j.lastEnded()
	return j
}

// lastEnded returns, of each merchant that is audited, when its last audit came
// to its end in this process. Where none has it is when the merchant was first
// met: an audit that never runs grows old like one that always fails.
func (j *auditJob) lastEnded() map[string]time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	last := map[string]time.Time{}
	for merchantID, p := range j.platforms() {
		if _, ok := p.(platforms.Auditor); !ok {
			continue
		}
		if j.ended[merchantID].IsZero() {
			j.ended[merchantID] = j.store.Now()
		}
		last[merchantID] = j.ended[merchantID]
	}
	return last
}

// auditPace bounds how long a process waits before it asks whether it is its
// turn. All processes share the turns.
const auditPace = time.Minute

// auditWithin bounds the audit of one merchant.
const auditWithin = 15 * time.Minute

// Run audits every merchant until ctx ends.
func (j *auditJob) Run(ctx context.Context) error {
	if j.config.Every == 0 {
		<-ctx.Done()
		return nil
	}
	for pause(ctx, min(j.config.Every/2, auditPace)) == nil {
		for _, merchantID := range slices.Sorted(maps.Keys(j.platforms())) {
			if ctx.Err() != nil {
				return nil
			}
			j.auditInTurn(ctx, merchantID)
		}
	}
	return nil
}

// auditInTurn audits a merchant if no process has done so lately.
func (j *auditJob) auditInTurn(ctx context.Context, merchantID string) {
	auditor, ok := j.platforms()[merchantID].(platforms.Auditor)
	if !ok {
		return
	}
	wait, err := j.store.Throttle(ctx, "audit:"+merchantID, conversations.Every(j.config.Every, 1))
	if err != nil {
		j.log.WarnContext(ctx, "an audit has to wait: the store does not answer", "merchant_id", merchantID, "error", err)
		return
	}
	if wait > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, auditWithin)
	defer cancel()
	switch err := j.audit(ctx, merchantID, auditor); {
	case errors.Is(err, context.Canceled): // this process ends
	case err != nil:
		j.log.ErrorContext(ctx, "an audit did not come to its end", "merchant_id", merchantID, "error", err)
		j.metrics.audits.WithLabelValues("failed").Inc()
	default:
		j.metrics.audits.WithLabelValues("done").Inc()
		j.mu.Lock()
		j.ended[merchantID] = j.store.Now()
		j.mu.Unlock()
	}
}

// audit goes through all that a platform did in the window. A transaction that
// cannot be recorded does not hold back the others, unless it is for want of
// the store or the platform.
func (j *auditJob) audit(ctx context.Context, merchantID string, auditor platforms.Auditor) (err error) {
	defer recovered(&err)
	now := j.store.Now()
	counted, seen := map[moneyNews]int{}, j.met[merchantID]
	if seen == nil {
		seen = newMetTransactions()
		j.met[merchantID] = seen
	}
	seen.nextRound()
	total, unread := 0, 0
	err = auditor.Transactions(ctx, now.Add(-j.config.Window), now, func(found platforms.Found) error {
		total++
		news, err := j.learn(ctx, merchantID, auditor, found, seen)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errNotAsked):
			unread++
			j.log.WarnContext(ctx, "a transaction of the platform could not be read", "merchant_id", merchantID, "platform_id", found.ID, "error", err)
			return nil
		case conversations.CodeOf(err) == conversations.CodeUnavailable:
			return fmt.Errorf("transaction %s: %w", found.ID, err)
		case err != nil:
			j.log.ErrorContext(ctx, "a transaction of the platform could not be recorded", "audit", true, "merchant_id", merchantID, "platform_id", found.ID, "error", err)
			return nil
		}
		if news != findingNone {
			counted[news]++
			j.metrics.findings.WithLabelValues(string(news)).Inc()
		}
		return nil
	})
	j.log.InfoContext(ctx, "what the platform did was compared", "audit", true, "merchant_id", merchantID, "transactions", total, "findings", counted, "unread", unread)
	if err == nil && unread > 0 {
		err = fmt.Errorf("%s could not be read", countOf(unread, "transaction"))
	}
	return err
}
