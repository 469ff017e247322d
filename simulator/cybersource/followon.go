package cybersource

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// follow adds a transaction that hangs on another one. The caller holds the lock.
func (s *Simulator) follow(parent *record, kind, status string, ref clientReference, moved amount) *record {
	r := &record{
		Transaction: Transaction{
			Kind: kind, Merchant: parent.Merchant, Code: orElse(ref.Code, parent.Code), TransactionID: ref.TransactionID,
			Amount: moved.in(parent.Currency), Currency: parent.Currency, Status: status, ParentID: parent.ID,
		},
		requested: moved, card: parent.card, billTo: parent.billTo, parent: parent, result: approved,
	}
	s.add(r)
	s.announceFollowOn(r)
	return r
}

func followBody(r *record, path string) object {
	return object{
		"id": r.ID, "status": r.Status, "submitTimeUtc": stamp(r.Time), "reconciliationId": r.reconciliationID,
		"clientReferenceInformation": referenceBody(r),
		"_links":                     object{"self": link(http.MethodGet, "/pts/v2/%s/%s", path, r.ID)},
	}
}

// sum reads the amount of a follow-on request, which must be in the parent's currency. Its form was
// checked before.
func (s *Simulator) sum(d amountDetails, parent *record, path string) (amount, *answer) {
	if d.Currency != parent.Currency {
		a := s.refuse("INVALID_DATA", path+".currency")
		return 0, &a
	}
	v, err := parseAmount(d.TotalAmount, d.Currency)
	if err != nil || v == 0 {
		a := s.refuse("INVALID_DATA", path+".totalAmount")
		return 0, &a
	}
	return v, nil
}

const orderAmount, reversalAmount = "orderInformation.amountDetails", "reversalInformation.amountDetails"

func (s *Simulator) readCapture(c *call) (string, operation, *answer) {
	req, refusal := s.decode(c)
	ref := req.ClientReferenceInformation
	if refusal == nil {
		refusal = s.checkAmount(req.OrderInformation.AmountDetails, orderAmount)
	}
	if refusal != nil {
		return ref.Code, nil, refusal
	}
	id := c.r.PathValue("id")
	return ref.Code, func(commit bool) (answer, bool) {
		if refusal := s.checkTransactionID(c.merchant, ref.TransactionID); refusal != nil {
			return *refusal, false
		}
		return s.capture(s.ledger.find(c.merchant.id, id), req.OrderInformation.AmountDetails, ref, commit)
	}, nil
}

// capture takes money that is held. The caller holds the lock.
func (s *Simulator) capture(auth *record, d amountDetails, ref clientReference, commit bool) (answer, bool) {
	switch {
	case auth == nil || !auth.isPayment():
		return s.refuse("INVALID_DATA", "id"), false
	case auth.Reversed:
		return s.refuse("AUTH_ALREADY_REVERSED"), false
	case auth.Kind == KindSale && auth.Settled:
		return s.refuse("TRANSACTION_ALREADY_SETTLED"), false
	case auth.Kind == KindSale:
		return s.refuse("TRANSACTION_ALREADY_REVERSED_OR_SETTLED"), false
	case auth.Kind != KindAuthorization:
		return s.refuse("MISSING_AUTH"), false
	case auth.review == underReview || auth.review == reviewRejected || auth.result.status == statusRiskDeclined:
		return s.refuseWith("INVALID_DATA", "Declined - The authorization has not been accepted", "id"), false
	}
	v, refusal := s.sum(d, auth, orderAmount)
	if refusal != nil {
		return *refusal, false
	}
	if auth.captured+v > auth.authorized {
		return s.refuse("EXCEEDS_AUTH_AMOUNT", orderAmount+".totalAmount"), false
	}
	if !commit {
		return answer{}, true
	}
	auth.captured += v
	r := s.follow(auth, KindCapture, "PENDING", ref, v)
	body := followBody(r, "captures")
	links := body["_links"].(object)
	links["void"] = link(http.MethodPost, "/pts/v2/captures/%s/voids", r.ID)
	links["refund"] = link(http.MethodPost, "/pts/v2/captures/%s/refunds", r.ID)
	body["orderInformation"] = object{"amountDetails": object{"totalAmount": r.Amount, "currency": r.Currency}}
	return answer{status: http.StatusCreated, body: body}, true
}

func (s *Simulator) readReversal(c *call) (string, operation, *answer) {
	req, refusal := s.decode(c)
	if refusal == nil {
		refusal = s.checkAmount(req.ReversalInformation.AmountDetails, reversalAmount)
	}
	if refusal != nil {
		return req.ClientReferenceInformation.Code, nil, refusal
	}
	id := c.r.PathValue("id")
	return req.ClientReferenceInformation.Code, func(commit bool) (answer, bool) {
		return s.reverse(s.ledger.find(c.merchant.id, id), "id", req.ReversalInformation.AmountDetails, req.ClientReferenceInformation, commit)
	}, nil
}

// readTimeoutReversal serves a merchant that never got an answer and so knows no id.
func (s *Simulator) readTimeoutReversal(c *call) (string, operation, *answer) {
	req, refusal := s.decode(c)
	ref := req.ClientReferenceInformation
	if refusal == nil && ref.TransactionID == "" {
		a := s.refuse("MISSING_FIELD", "clientReferenceInformation.transactionId")
		refusal = &a
	}
	if refusal == nil {
		refusal = s.checkAmount(req.ReversalInformation.AmountDetails, reversalAmount)
	}
	if refusal != nil {
		return ref.Code, nil, refusal
	}
	return ref.Code, func(commit bool) (answer, bool) {
		r := s.byTransactionID(c.merchant, ref.TransactionID, commit)
		// The reference names the transaction to cancel; the reversal itself has none of its own.
		return s.reverse(r, "clientReferenceInformation.transactionId", req.ReversalInformation.AmountDetails, clientReference{Code: ref.Code}, commit)
	}, nil
}

func (s *Simulator) byTransactionID(merchant *account, id string, commit bool) *record {
	r := s.ledger.transactionIDs[[2]string{merchant.id, id}]
	if r != nil && commit && s.now().Sub(r.Time) < timeoutReversalWait {
		s.log.Warn("cancelled by transactionId too early", "id", r.ID, "wait", timeoutReversalWait.String())
	}
	return r
}

// reverse releases the hold of a payment. The caller holds the lock.
func (s *Simulator) reverse(r *record, field string, d amountDetails, ref clientReference, commit bool) (answer, bool) {
	switch {
	case r == nil || !r.isPayment() || !slices.Contains([]string{KindAuthorization, KindSale}, r.Kind):
		return s.refuse("INVALID_DATA", field), false
	case r.Reversed || r.Settled || r.captured > 0:
		return s.refuse("TRANSACTION_ALREADY_REVERSED_OR_SETTLED"), false
	case r.review == underReview && !s.cfg.ReviewsAllowReversals:
		return s.refuseWith("INVALID_DATA", "Declined - The authorization has not been accepted or rejected", field), false
	}
	v, refusal := s.sum(d, r, reversalAmount)
	if refusal != nil {
		return *refusal, false
	}
	if v != r.authorized {
		return s.refuse("INVALID_DATA", reversalAmount+".totalAmount"), false
	}
	if !commit {
		return answer{}, true
	}
	r.Reversed = true
	if r.review == underReview {
		r.review = notReviewed // there is nothing left to decide
	}
	made := s.follow(r, KindReversal, "REVERSED", ref, v)
	made.timeout = field != "id" // asked for by transactionId
	body := followBody(made, "reversals")
	body["reversalAmountDetails"] = object{"reversedAmount": made.Amount, "originalTransactionAmount": r.requested.in(r.Currency), "currency": made.Currency}
	body["processorInformation"] = object{"responseCode": "00"}
	return answer{status: http.StatusCreated, body: body}, true
}

// refundable says whether a refund may be made of the record at a path: a sale under payments, a
// capture under captures.
func refundable(r *record, path string) bool {
	if strings.HasPrefix(path, "/pts/v2/captures/") {
		return r.Kind == KindCapture
	}
	return r.Kind == KindSale
}

func (s *Simulator) readRefund(c *call) (string, operation, *answer) {
	req, refusal := s.decode(c)
	ref := req.ClientReferenceInformation
	if refusal == nil {
		refusal = s.checkAmount(req.OrderInformation.AmountDetails, orderAmount)
	}
	if refusal != nil {
		return ref.Code, nil, refusal
	}
	id := c.r.PathValue("id")
	return ref.Code, func(commit bool) (answer, bool) {
		r := s.ledger.find(c.merchant.id, id)
		if refusal := s.checkTransactionID(c.merchant, ref.TransactionID); refusal != nil {
			return *refusal, false
		}
		if r == nil || !refundable(r, c.r.URL.Path) {
			return s.refuse("INVALID_DATA", "id"), false
		}
		return s.refund(r, req.OrderInformation.AmountDetails, ref, commit)
	}, nil
}

// refund gives back money of a sale or capture. The caller holds the lock.
func (s *Simulator) refund(r *record, d amountDetails, ref clientReference, commit bool) (answer, bool) {
	switch {
	case s.now().Sub(r.Time) > refundWindow:
		return s.refuse("INVALID_DATA", "id"), false
	case r.Voided || r.Reversed:
		return s.refuse("CAPTURE_ALREADY_VOIDED"), false
	}
	v, refusal := s.sum(d, r, orderAmount)
	if refusal != nil {
		return *refusal, false
	}
	if r.refunded+v > r.taken() {
		return s.refuse("INVALID_DATA", orderAmount+".totalAmount"), false
	}
	if !commit {
		return answer{}, true
	}
	r.refunded += v
	made := s.follow(r, KindRefund, "PENDING", ref, v)
	body := followBody(made, "refunds")
	body["_links"].(object)["void"] = link(http.MethodPost, "/pts/v2/refunds/%s/voids", made.ID)
	body["refundAmountDetails"] = object{"refundAmount": made.Amount, "currency": made.Currency}
	body["orderInformation"] = object{"amountDetails": object{"totalAmount": made.Amount, "currency": made.Currency}}
	return answer{status: http.StatusCreated, body: body}, true
}

// taken is what a sale or capture took.
func (r *record) taken() amount {
	if r.isPayment() {
		return r.captured
	}
	return r.requested
}

// voidableKinds says what each path may void.
var voidableKinds = map[string]string{
	"payments": KindSale,
	"captures": KindCapture,
	"refunds":  KindRefund,
}

func (s *Simulator) readVoid(c *call) (string, operation, *answer) {
	req, refusal := s.decode(c)
	ref := req.ClientReferenceInformation
	if refusal != nil {
		return ref.Code, nil, refusal
	}
	id := c.r.PathValue("id")
	family := strings.Split(c.r.URL.Path, "/")[3]
	return ref.Code, func(commit bool) (answer, bool) {
		r := s.ledger.find(c.merchant.id, id)
		if r == nil {
			return s.refuse("INVALID_DATA", "id"), false
		}
		if r.Kind != voidableKinds[family] {
			return s.refuse("NOT_VOIDABLE"), false
		}
		return s.void(r, ref, commit)
	}, nil
}

// readTimeoutVoid cancels a sale, capture or refund that was never answered.
func (s *Simulator) readTimeoutVoid(c *call) (string, operation, *answer) {
	req, refusal := s.decode(c)
	ref := req.ClientReferenceInformation
	if refusal == nil && ref.TransactionID == "" {
		a := s.refuse("MISSING_FIELD", "clientReferenceInformation.transactionId")
		refusal = &a
	}
	if refusal != nil {
		return ref.Code, nil, refusal
	}
	return ref.Code, func(commit bool) (answer, bool) {
		r := s.byTransactionID(c.merchant, ref.TransactionID, commit)
		if r == nil {
			return s.refuse("INVALID_DATA", "clientReferenceInformation.transactionId"), false
		}
		return s.void(r, clientReference{Code: ref.Code}, commit)
	}, nil
}

// void takes a capture, sale or refund out of the batch. The hold behind a capture stays until it is
// reversed. The caller holds the lock.
func (s *Simulator) void(r *record, ref clientReference, commit bool) (answer, bool) {
	if r.Voided || r.Settled || r.Reversed || r.refunded > 0 ||
		!slices.Contains([]string{KindSale, KindCapture, KindRefund}, r.Kind) {
		return s.refuse("NOT_VOIDABLE"), false
	}
	if !commit {
		return answer{}, true
	}
	r.Voided = true
	moved := r.requested
	switch r.Kind {
	case KindSale:
		moved = r.captured
		r.captured = 0
	case KindCapture:
		r.parent.captured -= moved
	case KindRefund:
		r.parent.refunded -= moved
	}
	made := s.follow(r, KindVoid, "VOIDED", ref, moved)
	body := followBody(made, "voids")
	body["voidAmountDetails"] = object{"voidAmount": made.Amount, "originalTransactionAmount": r.requested.in(r.Currency), "currency": made.Currency}
	return answer{status: http.StatusCreated, body: body}, true
}

// visible says whether search and details know the record yet.
func (r *record) visible(now time.Time) bool { return !now.Before(r.visibleAt) }
