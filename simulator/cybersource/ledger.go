package cybersource

import (
	"fmt"
	"slices"
	"time"
)

// The kinds of a Transaction. Money moves with sale, authorization, capture, reversal, void and refund;
// decline, authentication (a 3-D Secure challenge was asked for), pending (nothing is decided yet) and
// error (502, nothing taken) leave a row in search but move nothing.
const (
	KindSale           = "sale"
	KindAuthorization  = "authorization"
	KindCapture        = "capture"
	KindReversal       = "reversal"
	KindVoid           = "void"
	KindRefund         = "refund"
	KindDecline        = "decline"
	KindAuthentication = "authentication"
	KindPending        = "pending"
	KindError          = "error"
)

// Transaction is one thing that CyberSource really did, whether or not the merchant got the answer.
//
// What a chain, all transactions of one RootID, has really charged is the sum of its sales and captures
// that are not Voided, less that of its refunds that are not Voided. It holds money as long as its first
// one is an authorization or a voided sale that is not Reversed.
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
	ParentID      string    `json:"parentId,omitempty"` // what it acted on; empty for a payment
	RootID        string    `json:"rootId"`             // the payment at the head of its chain, its own id for a payment
	Review        string    `json:"review,omitempty"`   // open, accepted or rejected
	Voided        bool      `json:"voided,omitempty"`   // by a void that has a row of its own
	Reversed      bool      `json:"reversed,omitempty"` // by a reversal that has a row of its own
	Settled       bool      `json:"settled,omitempty"`
	BackOffice    bool      `json:"backOffice,omitempty"` // done by a person in the Business Center
	Time          time.Time `json:"time"`
}

// review is where the manual review of a payment stands.
type review string

const (
	notReviewed    review = ""
	underReview    review = "open"
	reviewAccepted review = "accepted"
	reviewRejected review = "rejected"
)

// record is a transaction with everything that later calls ask about. It is guarded by Simulator.mu.
type record struct {
	Transaction
	requested    amount
	authorized   amount // what the bank holds or held
	captured     amount // of a payment: what its live captures, or the sale itself, took
	refunded     amount // of a capture or sale
	review       review
	timeout      bool // of a reversal: by transactionId, after an answer that never came
	wantsCapture bool
	result       outcome // as the books have it
	told         outcome // what the merchant was told of a payment
	card         card
	billTo       billTo
	parent       *record
	children     []*record

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
	if r.parent != nil {
		r.parent.children = append(r.parent.children, r)
	}
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
		list[i] = r.shown()
	}
	return list
}

// shown is the transaction with what later calls have made of it.
func (r *record) shown() Transaction {
	t := r.Transaction
	t.RootID, t.Review = r.root().ID, string(r.review)
	return t
}

// Settle sends off the day's batch: what is captured or refunded so far can no longer be voided.
func (s *Simulator) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.ledger.list {
		if !r.Voided && slices.Contains([]string{KindSale, KindCapture, KindRefund}, r.Kind) {
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
	s.decideReview(r, accept)
	return true
}

// decideReview ends a review. The caller holds the lock and has seen that there is one.
func (s *Simulator) decideReview(r *record, accept bool) {
	r.review = reviewRejected
	if accept {
		r.review = reviewAccepted
	}
	switch {
	case accept && r.Kind == KindPending: // nobody has asked the bank yet
		r.Status, r.Reason, r.result = statusAuthorized, "", approved
		s.hold(r)
	case accept:
		r.Status, r.Reason, r.result = statusAuthorized, "", approved
		if r.wantsCapture {
			r.Kind = KindSale
			r.captured = r.authorized
		}
	case r.Kind == KindPending:
		r.Kind = KindDecline
		r.Status, r.Reason, r.result = statusDeclined, "DECISION_PROFILE_REJECT", declined("DECISION_PROFILE_REJECT")
	default:
		r.Status, r.Reason = "REJECTED", "DECISION_PROFILE_REJECT"
		r.result = outcome{status: statusRiskDeclined, reason: "DECISION_PROFILE_REJECT"}
	}
	s.announceDecision(r, accept)
}
