package cybersource

import (
	"fmt"
	"slices"
	"time"
)

// The kinds of a Transaction. Money moves with sale, authorization, capture, reversal, void and refund;
// decline, authentication (a 3-D Secure challenge was asked for) and error (502, nothing taken) leave a
// row in search but move nothing.
const (
	KindSale           = "sale"
	KindAuthorization  = "authorization"
	KindCapture        = "capture"
	KindReversal       = "reversal"
	KindVoid           = "void"
	KindRefund         = "refund"
	KindDecline        = "decline"
	KindAuthentication = "authentication"
	KindError          = "error"
)

// Transaction is one thing that CyberSource really did, whether or not the merchant got the answer.
type Transaction struct {
	ID            string    `json:"id"`
	Kind          string    `json:"kind"`
	Merchant      string    `json:"merchant"`
	Code          string    `json:"code"`
	TransactionID string    `json:"transactionId,omitempty"`
	Amount        string    `json:"amount"` // what moved, or what was asked for if nothing did
	Currency      string    `json:"currency"`
	Status        string    `json:"status"`
	Reason        string    `json:"reason,omitempty"`
	ParentID      string    `json:"parentId,omitempty"`
	Settled       bool      `json:"settled,omitempty"`
	Time          time.Time `json:"time"`
}

// review is where the manual review of a payment stands.
type review int

const (
	notReviewed review = iota
	underReview
	reviewAccepted
	reviewRejected
)

// record is a transaction with everything that later calls ask about. It is guarded by Simulator.mu.
type record struct {
	Transaction
	requested    amount
	authorized   amount // what the bank holds or held
	captured     amount // of a payment: what its live captures, or the sale itself, took
	refunded     amount // of a capture or sale
	reversed     bool
	voided       bool
	review       review
	wantsCapture bool
	result       outcome
	card         card
	billTo       billTo
	parent       *record

	approvalCode     string
	networkID        string
	reconciliationID string
	visibleAt        time.Time // in search and details
}

// root is the first transaction of the record's chain.
func (r *record) root() *record {
	for r.parent != nil {
		r = r.parent
	}
	return r
}

// isPayment says whether the record was made by POST /pts/v2/payments.
func (r *record) isPayment() bool { return r.parent == nil }

type ledger struct {
	list   []*record
	byID   map[string]*record
	serial int
	// transactionIDs and codes hold the latest record, by merchant and the merchant's own value.
	transactionIDs map[[2]string]*record
	codes          map[[2]string]*record // only successful payments
}

func newLedger() ledger {
	return ledger{byID: map[string]*record{}, transactionIDs: map[[2]string]*record{}, codes: map[[2]string]*record{}}
}

// find returns a merchant's own transaction. Another merchant's does not exist for it.
func (l *ledger) find(merchant, id string) *record {
	if r := l.byID[id]; r != nil && r.Merchant == merchant {
		return r
	}
	return nil
}

// newID makes a 22-digit id that begins with the time, as CyberSource's do.
func (l *ledger) newID(now time.Time) string {
	l.serial++
	return fmt.Sprintf("7%013d%08d", now.UnixMilli()%1e13, l.serial%1e8)
}

// add stores a record under a new id. The caller holds the lock.
func (s *Simulator) add(r *record) {
	now := s.now()
	r.ID = s.ledger.newID(now)
	r.Time = now.UTC()
	r.visibleAt = now.Add(s.cfg.SearchDelay)
	r.reconciliationID = randomText(upperAlphanumerics, 16)
	s.ledger.list = append(s.ledger.list, r)
	s.ledger.byID[r.ID] = r
	if r.TransactionID != "" {
		s.ledger.transactionIDs[[2]string{r.Merchant, r.TransactionID}] = r
	}
	s.log.Info("transaction", "kind", r.Kind, "id", r.ID, "code", r.Code, "status", r.Status)
}

// Transactions lists everything that was done, oldest first.
func (s *Simulator) Transactions() []Transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Transaction, len(s.ledger.list))
	for i, r := range s.ledger.list {
		list[i] = r.Transaction
	}
	return list
}

// Settle sends off the day's batch: what is captured or refunded so far can no longer be voided.
func (s *Simulator) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.ledger.list {
		if !r.voided && slices.Contains([]string{KindSale, KindCapture, KindRefund}, r.Kind) {
			r.Settled = true
		}
	}
}

// Index makes everything visible to search and details now, whatever SearchDelay says.
func (s *Simulator) Index() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, r := range s.ledger.list {
		if r.visibleAt.After(now) {
			r.visibleAt = now
		}
	}
}

// DecideReview ends the review of a payment. An accepted sale is captured then; a rejected payment
// keeps its hold until it is reversed. It reports whether the payment was under review.
func (s *Simulator) DecideReview(id string, accept bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.ledger.byID[id]
	if r == nil || r.review != underReview {
		return false
	}
	if !accept {
		r.review = reviewRejected
		r.Status, r.Reason = "REJECTED", "DECISION_PROFILE_REJECT"
		r.result = outcome{status: statusRiskDeclined, reason: "DECISION_PROFILE_REJECT"}
		return true
	}
	r.review = reviewAccepted
	r.Status, r.Reason, r.result = statusAuthorized, "", approved
	if r.wantsCapture {
		r.Kind = KindSale
		r.captured = r.authorized
	}
	return true
}
