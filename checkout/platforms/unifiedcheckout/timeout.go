package unifiedcheckout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"paythread/conversations"
)

// The processors that know a time-out reversal, as the setting names them.
const (
	timeoutNone = "none"
	timeoutVPC  = "vpc" // Visa Platform Connect
)

// leastTimeoutWait is how long CyberSource has a merchant wait for an answer
// before a charge is taken back by its transactionId.
const leastTimeoutWait = time.Minute

// TimeoutReversalAfter implements platforms.TimeoutReverser.
func (p *Platform) TimeoutReversalAfter() time.Duration { return p.timeoutAfter }

var errNoTimeoutReversal = errors.New("this account's processor knows no time-out reversal, or the charge cannot be named to it")

// ReverseUnsettled implements platforms.TimeoutReverser. A sale is voided, an
// authorization reversed, by the transactionId of the charge. It is refused, too,
// when it was done before, so that only a plain yes counts here; the search tells
// the rest, as what is done here has the attempt's own reference.
func (p *Platform) ReverseUnsettled(ctx context.Context, a conversations.Attempt) (conversations.Result, error) {
	if p.timeoutAfter == 0 || !codeForm.MatchString(a.Code) || len(a.Code) > maxCode ||
		a.TransactionID == "" || len(a.TransactionID) > maxTransactionID || a.Amount.Minor <= 0 {
		return conversations.Result{}, errNoTimeoutReversal
	}
	v := p.reverseUnsettled(ctx, a)
	result := conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: v.reason}
	switch v.state {
	case conversations.OperationSucceeded:
		result = conversations.Result{Outcome: conversations.OutcomeReversed}
	case conversations.OperationPending:
		return conversations.Result{}, fmt.Errorf("time-out reversal: %w", v.err)
	}
	p.log.Info("time-out reversal answered", "audit", true, "attempt", a.Code, "outcome", string(result.Outcome), "reason", v.reason, "platform_id", v.id)
	return result, nil
}

func (p *Platform) reverseUnsettled(ctx context.Context, a conversations.Attempt) verdict {
	// The caller's time is the right to ask: woken after it, nothing is taken back
	// that was found, and counted, meanwhile.
	by, _ := ctx.Deadline()
	charge := clientReference{Code: a.Code, TransactionID: a.TransactionID}
	reversal := followRequest{
		ClientReferenceInformation: charge,
		ReversalInformation:        &reversalInformation{AmountDetails: amountOf(a.Amount).AmountDetails, Reason: "timeout"},
	}
	if !a.Capture {
		return p.follow(ctx, by, "/pts/v2/reversals", reversal, "REVERSED")
	}
	v := p.follow(ctx, by, "/pts/v2/voids", followRequest{ClientReferenceInformation: charge}, "VOIDED")
	if v.state != conversations.OperationSucceeded {
		return v
	}
	// The money is not taken. The hold is released, too, where the processor can.
	if hold := p.follow(ctx, by, "/pts/v2/reversals", reversal, "REVERSED"); hold.state != conversations.OperationSucceeded {
		p.log.Info("hold not released after a time-out void", "attempt", a.Code, "reason", hold.reason)
	}
	return v
}
