package unifiedcheckout

import (
	"context"
	"fmt"
	"maps"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// auditRows is how many transactions are asked for at once. The search gives up
// to 2500; a row is some kB, and an answer of more than 1 MB is not read.
const auditRows = 200

// Transactions implements platforms.Auditor.
//
// It goes on from the time of the last row rather than from its place: two rows
// of one second may change places between two searches, and one at a page's edge
// would never be seen. Places count only inside a second that fills a page.
func (p *Platform) Transactions(ctx context.Context, from, to time.Time, each func(platforms.Found) error) error {
	seen := map[string]time.Time{}
	for start, offset := from, 0; ; {
		page, err := p.searchPage(ctx, searchRequest{
			Offset: offset, Limit: auditRows, Sort: "submitTimeUtc:asc",
			Query: fmt.Sprintf("submitTimeUtc:[%d TO %d}", start.UnixMilli(), to.UnixMilli()),
		})
		if err != nil {
			return fmt.Errorf("list transactions: %w", err)
		}
		rows := page.Embedded.Rows
		fresh, last := 0, start
		for _, row := range rows {
			id, at := string(row.ID), row.at()
			if at.Before(last.Truncate(time.Second)) || !idForm.MatchString(id) {
				return fmt.Errorf("list transactions: %w", unavailable(errSearch)) // out of order, or of no time
			}
			last = at
			if _, known := seen[id]; known {
				continue
			}
			seen[id] = at
			fresh++
			if !p.mine(row) {
				continue
			}
			found, err := p.found(ctx, row)
			if err == nil {
				err = each(found)
			}
			if err != nil {
				return fmt.Errorf("list transactions: %w", err)
			}
		}
		switch {
		case offset+len(rows) >= page.TotalCount && len(rows) < auditRows, len(rows) == 0 && page.TotalCount <= offset:
			return nil
		case len(rows) < auditRows, offset > 0 && fresh == 0:
			return fmt.Errorf("list transactions: %w: it says that there is more, and does not give it", unavailable(errSearch))
		case last.After(start):
			start, offset = last, 0
			maps.DeleteFunc(seen, func(_ string, at time.Time) bool { return at.Before(start) })
		default:
			offset += len(rows)
		}
	}
}

// Transaction implements platforms.Auditor.
func (p *Platform) Transaction(ctx context.Context, id string) (platforms.Found, bool, error) {
	row, ok, err := p.details(ctx, id)
	if err != nil {
		return platforms.Found{}, false, fmt.Errorf("read transaction: %w", err)
	}
	if !ok || !p.mine(row) {
		return platforms.Found{}, false, nil
	}
	found, err := p.found(ctx, row)
	return found, err == nil, err
}

// followServices are the services that a follow-on transaction runs, by the
// kind of operation that it is. One that runs several is of the first kind.
var followServices = []struct {
	service string
	kind    conversations.OperationKind
}{
	{"ics_void", conversations.OperationVoid},
	{"ics_credit", conversations.OperationRefund},
	{"ics_bill", conversations.OperationCapture},
	{"ics_auth_reversal", conversations.OperationReversal},
	{"ics_timeout_auth_reversal", conversations.OperationReversal},
}

// found tells what a transaction is.
func (p *Platform) found(ctx context.Context, t transaction) (platforms.Found, error) {
	f := platforms.Found{ID: string(t.ID), At: t.at(), ReconciliationID: word(string(t.ReconciliationID))}
	if root := string(t.RootID); idForm.MatchString(root) {
		f.RootID = root
	}
	if code := string(t.ClientReferenceInformation.Code); codeForm.MatchString(code) && len(code) <= maxCode {
		f.Code = code // somebody else's may be anything, and is not needed
	}
	f.Amount, _ = t.OrderInformation.AmountDetails.authorized()
	if _, payment := t.application("ics_auth"); !payment {
		for _, follow := range followServices {
			ran, ok := t.application(follow.service)
			if !ok {
				continue
			}
			f.Operation, f.Succeeded = follow.kind, ran.RCode == rSuccess
			if f.ReconciliationID == "" {
				f.ReconciliationID = word(string(ran.ReconciliationID))
			}
			f.PaymentID = actedOn(t, f)
			return f, nil
		}
	}
	outcome, counts := rowOutcome(false, t)
	switch {
	case counts:
	case len(t.ApplicationInformation.Applications) == 0:
		outcome = conversations.OutcomeUnknown // it does not say what it was
	default:
		outcome = conversations.OutcomeNotFound // such as an authentication alone
	}
	if counts {
		var err error
		if t, err = p.complete(ctx, t, outcome); err != nil {
			return platforms.Found{}, err
		}
		f.Amount, _ = t.OrderInformation.AmountDetails.authorized()
	}
	f.Result = t.result(outcome, f.Amount)
	f.Succeeded = holds(f.Result.Outcome)
	if f.ReconciliationID == "" {
		f.ReconciliationID = f.Result.ReconciliationID
	}
	return f, nil
}

// actedOn returns the transaction that a follow-on acted on, as far as the
// details tell. Captures and reversals act on the authorization, where a chain
// begins; a refund or void on what it is related to, if that is only one:
// CyberSource does not say which of several.
func actedOn(t transaction, f platforms.Found) string {
	if f.Operation == conversations.OperationCapture || f.Operation == conversations.OperationReversal {
		if f.RootID != f.ID {
			return f.RootID
		}
		return ""
	}
	if related := t.related(); len(related) == 1 {
		return related[0]
	}
	return ""
}
