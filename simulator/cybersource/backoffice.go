package cybersource

import (
	"errors"
	"fmt"
	"net/http"

	"paythread/simulator/faults"
)

// ErrUnknownTransaction is returned by BackOffice for an id that no transaction has.
var ErrUnknownTransaction = errors.New("cybersource: no transaction has this id")

// RefusedError is returned by BackOffice for what the Business Center does not offer.
type RefusedError struct {
	Reason  string // as the API would say it
	Message string
}

func (e *RefusedError) Error() string { return "cybersource: " + e.Reason + ": " + e.Message }

// BackOffice does what a person does in the Business Center: capture, reversal, void, refund, accept or
// reject, of the transaction with an id. An empty amount means all that is left. The new transaction
// carries the reference of the one that it acts on, since people rarely type another. After accept and
// reject the payment itself is returned.
func (s *Simulator) BackOffice(action, id, amount string) (Transaction, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.ledger.byID[id]
	if r == nil {
		return Transaction{}, ErrUnknownTransaction
	}
	left := r.requested
	switch {
	case action == "capture":
		left = r.authorized - r.captured
	case action == "reversal":
		left = r.authorized
	case action == "refund":
		left = r.taken() - r.refunded
	}
	d := amountDetails{TotalAmount: orElse(amount, left.in(r.Currency)), Currency: r.Currency}
	var a answer
	var ok bool
	switch action {
	case "capture":
		a, ok = s.capture(r, d, clientReference{}, true)
	case "reversal":
		a, ok = s.reverse(r, "id", d, clientReference{}, true)
	case "void":
		a, ok = s.void(r, clientReference{}, true)
	case "refund":
		if r.Kind != KindSale && r.Kind != KindCapture {
			return Transaction{}, &RefusedError{"INVALID_DATA", "only a sale or a capture can be refunded"}
		}
		a, ok = s.refund(r, d, clientReference{}, true)
	case "accept", "reject":
		if r.review != underReview {
			return Transaction{}, &RefusedError{"INVALID_DATA", "the payment is not under review"}
		}
		s.decideReview(r, action == "accept")
		return r.shown(), nil
	default:
		return Transaction{}, &RefusedError{"NOT_SUPPORTED", "the action is not capture, reversal, void, refund, accept or reject"}
	}
	body, _ := a.body.(object) // every answer of these is one
	if !ok {
		return Transaction{}, &RefusedError{fmt.Sprint(body["reason"]), fmt.Sprint(body["message"])}
	}
	made := s.ledger.byID[fmt.Sprint(body["id"])]
	made.BackOffice = true
	return made.shown(), nil
}

// backOfficeRequest is the body of POST /cybersource/back-office.
type backOfficeRequest struct {
	Action string `json:"action"`
	ID     string `json:"id"`
	Amount string `json:"amount"`
}

// backOffice serves BackOffice to scripts.
func (s *Simulator) backOffice(_ *http.Request, in backOfficeRequest) (any, error) {
	switch {
	case in.Action == "":
		return nil, faults.Wrong("action", "is missing")
	case in.ID == "":
		return nil, faults.Wrong("id", "is missing")
	}
	t, err := s.BackOffice(in.Action, in.ID, in.Amount)
	var refused *RefusedError
	switch {
	case errors.Is(err, ErrUnknownTransaction):
		return nil, faults.Missing("id", "is no transaction")
	case errors.As(err, &refused):
		return nil, &faults.InputError{Status: http.StatusConflict, Field: refused.Reason, Reason: refused.Message}
	case err != nil:
		return nil, err
	}
	return t, nil
}
