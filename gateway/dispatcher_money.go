package main

import (
	"context"
	"fmt"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// inquire asks the merchant's platform what became of an attempt. If it cannot
// be asked, the next question of the timetable is waited for.
func (d *dispatcher) inquire(ctx context.Context, e conversations.OutboxEntry, by conversations.Delivery) error {
	r, err := d.store.Request(ctx, e.RequestID)
	if err != nil {
		return err
	}
	a := r.Attempt(e.Attempt)
	asker, ok := d.platforms[r.MerchantID].(platforms.Inquirer)
	if a == nil || !ok {
		return fmt.Errorf("no platform to ask about attempt %d of %s: %w", e.Attempt, e.RequestID, conversations.ErrPoison)
	}
	call, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	result, err := asker.Inquire(call, *a)
	if err != nil {
		d.log.WarnContext(ctx, "the platform could not be asked about an attempt", "payment_request_id", r.ID, "attempt", a.N, "error", err)
		result = conversations.Result{Outcome: conversations.OutcomeUnknown}
	}
	d.metrics.inquiries.WithLabelValues(a.Platform, string(result.Outcome)).Inc()
	if result.Outcome != conversations.OutcomeUnknown {
		d.log.InfoContext(ctx, "an attempt was asked after", "audit", true, "payment_request_id", r.ID, "attempt", a.N, "outcome", result.Outcome, "payment_id", result.PaymentID)
	}
	return d.record(ctx, e.ContactID, conversations.AttemptAnswered{RequestID: r.ID, Attempt: a.N, Result: result, Asked: true, EntryID: by.EntryID})
}

// operate carries out an operation at the platform. A reversal or void may be
// sent again: the platform refuses the second.
func (d *dispatcher) operate(ctx context.Context, e conversations.OutboxEntry, by conversations.Delivery) error {
	r, err := d.store.Request(ctx, e.RequestID)
	if err != nil {
		return err
	}
	op := operationOf(r, e.Operation)
	if op == nil {
		return fmt.Errorf("no operation %s: %w", e.Operation, conversations.ErrPoison)
	}
	if op.State == conversations.OperationSucceeded || op.State == conversations.OperationFailed {
		return d.record(ctx, e.ContactID, conversations.OperationAnswered{RequestID: r.ID, OperationID: op.ID, State: op.State, EntryID: by.EntryID})
	}
	answer := conversations.OperationAnswered{RequestID: r.ID, OperationID: op.ID, State: conversations.OperationUnsettled, EntryID: by.EntryID}
	attempt := r.Attempt(op.Attempt)
	reverser, ok := d.platforms[r.MerchantID].(platforms.Reverser)
	if attempt == nil || !ok {
		return fmt.Errorf("no platform to reverse attempt %d of %s: %w", op.Attempt, r.ID, conversations.ErrPoison)
	}
	call, cancel := context.WithTimeout(ctx, d.within)
	defer cancel()
	result, err := reverser.Reverse(call, *op, *attempt)
	answer.State, answer.Error, answer.ResultID, answer.ReconciliationID = result.State, result.Reason, result.ID, result.ReconciliationID
	if err != nil {
		d.log.WarnContext(ctx, "an operation was not carried out, or nobody knows", "payment_request_id", r.ID, "operation", op.ID, "state", result.State, "error", err)
		if result.State != conversations.OperationPending { // pending: it surely was not, and is tried again
			answer.State = conversations.OperationUnsettled
		}
	}
	d.metrics.operations.WithLabelValues(string(op.Kind), string(answer.State)).Inc()
	d.log.InfoContext(ctx, "money was asked to be given back", "audit", true, "payment_request_id", r.ID, "operation", op.ID,
		"kind", op.Kind, "amount", op.Amount.Decimal(), "currency", op.Amount.Currency, "state", answer.State)
	return d.record(ctx, e.ContactID, answer)
}

func operationOf(r *conversations.PaymentRequest, id string) *conversations.Operation {
	for i := range r.Operations {
		if r.Operations[i].ID == id {
			return &r.Operations[i]
		}
	}
	return nil
}
