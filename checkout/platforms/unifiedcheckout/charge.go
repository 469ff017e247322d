package unifiedcheckout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"paythread/checkout/platforms"
	"paythread/checkout/platforms/cybersource"
	"paythread/conversations"
)

// Words of our own beside CyberSource's, where its answer is not what it says.
const (
	reasonNotSent       = "NOT_SENT"              // surely nothing left this machine
	reasonNoAnswer      = "NO_ANSWER"             // sent, and no usable answer came
	reasonUnreadable    = "UNREADABLE"            // an answer that cannot be understood
	reasonOtherPayment  = "OTHER_PAYMENT"         // an answer about another reference
	reasonAmountDiffers = "AMOUNT_DIFFERS"        // approved, but not for what was asked
	reasonAmountMissing = "AMOUNT_MISSING"        // approved, and it does not say for how much, or under which id
	reasonReviewDiffers = "REVIEW_AMOUNT_DIFFERS" // held for another amount, and under review: nothing is taken yet
)

// paymentRequest is the body of POST /pts/v2/payments. Fields in it override
// what the token carries, so the amount is always ours.
type paymentRequest struct {
	ClientReferenceInformation clientReference       `json:"clientReferenceInformation"`
	ProcessingInformation      processingInformation `json:"processingInformation"`
	TokenInformation           tokenInformation      `json:"tokenInformation"`
	OrderInformation           orderInformation      `json:"orderInformation"`
}

type processingInformation struct {
	Capture           bool   `json:"capture"`
	CommerceIndicator string `json:"commerceIndicator"`
}

type tokenInformation struct {
	TransientTokenJWT string `json:"transientTokenJwt"`
}

// paymentAnswer is what is read of any answer to it: a 201, the flat body of a
// 400, or that of a 5xx.
type paymentAnswer struct {
	ID               text `json:"id"`
	Status           text `json:"status"`
	Reason           text `json:"reason"`
	SubmitTime       text `json:"submitTimeUtc"`
	ReconciliationID text `json:"reconciliationId"`
	Details          []struct {
		Field text `json:"field"`
	} `json:"details"`
	ClientReferenceInformation struct {
		Code text `json:"code"`
	} `json:"clientReferenceInformation"`
	ErrorInformation struct {
		Reason text `json:"reason"`
	} `json:"errorInformation"`
	OrderInformation struct {
		AmountDetails amountsTold `json:"amountDetails"`
	} `json:"orderInformation"`
	RefundAmountDetails struct {
		RefundAmount text `json:"refundAmount"`
		Currency     text `json:"currency"`
	} `json:"refundAmountDetails"`
	ReversalAmountDetails struct {
		ReversedAmount text `json:"reversedAmount"`
		Currency       text `json:"currency"`
	} `json:"reversalAmountDetails"`
	PaymentInformation struct {
		Card struct {
			Type text `json:"type"`
		} `json:"card"`
	} `json:"paymentInformation"`
	ProcessorInformation struct {
		ApprovalCode text `json:"approvalCode"`
	} `json:"processorInformation"`
	PaymentInsightsInformation struct {
		ResponseInsights struct {
			CategoryCode text `json:"categoryCode"`
		} `json:"responseInsights"`
	} `json:"paymentInsightsInformation"`
}

type amountsTold struct {
	AuthorizedAmount text `json:"authorizedAmount"`
	TotalAmount      text `json:"totalAmount"`
	Currency         text `json:"currency"`
}

// authorized returns what the bank approved, and false if it is not said.
func (a amountsTold) authorized() (conversations.Money, bool) {
	value := a.AuthorizedAmount
	if value == "" {
		value = a.TotalAmount
	}
	return parseAmount(string(value), string(a.Currency))
}

// paymentStatuses are the statuses of a 201, which declines have too. One that
// is not listed is unknown.
var paymentStatuses = map[string]conversations.Outcome{
	"AUTHORIZED":                conversations.OutcomeAuthorized, // captured, if it was a sale
	"PARTIAL_AUTHORIZED":        conversations.OutcomePartial,    // for less, and never captured
	"AUTHORIZED_PENDING_REVIEW": conversations.OutcomeInReview,   // the bank approved, a rule holds it
	"AUTHORIZED_RISK_DECLINED":  conversations.OutcomeRiskDeclined,
	"PENDING_AUTHENTICATION":    conversations.OutcomeAuthenticationPending,
	"PENDING_REVIEW":            conversations.OutcomeInReview, // reviewed before it is authorized: nothing is held yet
	"PENDING":                   conversations.OutcomeUnknown,  // of alternative payments
	"DECLINED":                  conversations.OutcomeDeclined,
	"INVALID_REQUEST":           conversations.OutcomeNotTaken,
}

// checkReasons are declines after which the guide has the transaction looked
// up before it is tried again: the processor or the issuer did not answer. As
// reasons of a 400 they are refusals like every other: CyberSource went no
// further than the request.
var checkReasons = []string{
	"ISSUER_UNAVAILABLE", "PROCESSOR_UNAVAILABLE", "PROCESSOR_ERROR", "SYSTEM_ERROR", "SYSTEM_TIMEOUT", "SERVER_TIMEOUT", "SERVICE_TIMEOUT",
}

// neverAgain is the category of a decline that the issuer will never approve.
const neverAgain = "01"

// Charge implements platforms.Platform.
func (p *Platform) Charge(ctx context.Context, r platforms.ChargeRequest) conversations.Result {
	result := p.charge(ctx, r)
	p.log.Info("charge answered", "audit", true, "attempt", r.Attempt.Code, "outcome", string(result.Outcome), "reason", result.Reason, "platform_id", result.PaymentID)
	return result
}

func (p *Platform) charge(ctx context.Context, r platforms.ChargeRequest) conversations.Result {
	a := r.Attempt
	if !codeForm.MatchString(a.Code) || len(a.Code) > maxCode || len(a.TransactionID) > maxTransactionID || a.Amount.Minor <= 0 || r.TransientToken == "" {
		return conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: reasonNotSent}
	}
	answer, err := p.client.Do(ctx, cybersource.Call{
		Method: http.MethodPost, Path: "/pts/v2/payments", SendBy: a.SendBy,
		Body: paymentRequest{
			ClientReferenceInformation: clientReference{Code: a.Code, TransactionID: a.TransactionID},
			ProcessingInformation:      processingInformation{Capture: a.Capture, CommerceIndicator: "internet"},
			TokenInformation:           tokenInformation{TransientTokenJWT: r.TransientToken},
			OrderInformation:           amountOf(a.Amount),
		},
	})
	var none *cybersource.NoAnswerError
	switch {
	case errors.As(err, &none) && !none.Sent:
		return conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: reasonNotSent}
	case err != nil:
		return conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: reasonNoAnswer}
	}
	return readCharge(a, answer.Status, answer.Body)
}

// readCharge maps every answer. HTTP's status says little: declines are 201,
// and only a 400 that can be read is a refusal for certain.
func readCharge(a conversations.Attempt, status int, body []byte) conversations.Result {
	var told paymentAnswer
	unreadable := decodeStrict(body, &told) != nil
	if unreadable {
		told = paymentAnswer{} // nothing of it counts, not even what was read
	}
	result := conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: told.reason(), At: timePointer(string(told.SubmitTime))}
	if id := string(told.ID); idForm.MatchString(id) {
		result.PaymentID = id // a 502 has one too, and it can be asked for
	}
	if result.Reason == "" {
		result.Reason = fmt.Sprintf("HTTP_%d", status)
	}
	switch status {
	case http.StatusCreated:
		if unreadable {
			result.Reason = reasonUnreadable
			return result
		}
		return readCreated(a, told, result)
	case http.StatusBadRequest:
		if !unreadable && told.Reason != "" && !told.duplicate() {
			result.Outcome = conversations.OutcomeNotTaken
		}
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusTooManyRequests:
		result.Outcome = conversations.OutcomeNotTaken
	}
	return result
}

// reason is the platform's word: the reason if there is one, else the status.
func (t paymentAnswer) reason() string {
	for _, s := range []text{t.ErrorInformation.Reason, t.Reason, t.Status} {
		if w := word(string(s)); w != "" {
			return w
		}
	}
	return ""
}

// duplicate tells that the first use of the reference may have gone through.
// A repeated transactionId has also been answered with INVALID_DATA.
func (t paymentAnswer) duplicate() bool {
	return t.Reason == "DUPLICATE_REQUEST" || slices.ContainsFunc(t.Details, func(d struct {
		Field text `json:"field"`
	}) bool {
		return strings.HasSuffix(string(d.Field), "transactionId")
	})
}

func readCreated(a conversations.Attempt, told paymentAnswer, result conversations.Result) conversations.Result {
	if code := string(told.ClientReferenceInformation.Code); code != "" && code != a.Code {
		return conversations.Result{Outcome: conversations.OutcomeUnknown, Reason: reasonOtherPayment}
	}
	outcome, ok := paymentStatuses[string(told.Status)]
	if !ok {
		return result
	}
	result.CardBrand = cardBrands[string(told.PaymentInformation.Card.Type)]
	result.ReconciliationID = word(string(told.ReconciliationID))
	result.ApprovalCode = word(string(told.ProcessorInformation.ApprovalCode))
	switch outcome {
	case conversations.OutcomeAuthorized:
		result.Reason = ""
		if a.Capture {
			outcome = conversations.OutcomeCaptured
		}
	case conversations.OutcomeDeclined:
		result.Final = told.PaymentInsightsInformation.ResponseInsights.CategoryCode == neverAgain
		if slices.Contains(checkReasons, result.Reason) {
			outcome = conversations.OutcomeUnknown
		}
	case conversations.OutcomeNotTaken:
		if told.duplicate() || result.Reason == "DUPLICATE_REQUEST" {
			outcome = conversations.OutcomeUnknown
		}
	}
	if told.Status == "PENDING_REVIEW" {
		result.Outcome, result.Amount = outcome, conversations.Money{Currency: a.Amount.Currency}
		return result
	}
	amount, known := told.OrderInformation.AmountDetails.authorized()
	return weigh(result, outcome, a.Amount, amount, known)
}

// weigh sets outcome and amount, and lets nothing pass as paid that is not
// exactly what was asked. Money held for another amount is partial, which has
// it given back; in another currency, or for no stated amount, it is unknown,
// which a person will see.
func weigh(result conversations.Result, outcome conversations.Outcome, asked, amount conversations.Money, known bool) conversations.Result {
	result.Outcome = outcome
	switch outcome {
	case conversations.OutcomeAuthorized, conversations.OutcomeCaptured, conversations.OutcomePartial:
		if !known || amount.Minor == 0 || result.PaymentID == "" {
			result.Outcome, result.Reason = conversations.OutcomeUnknown, reasonAmountMissing
			return result
		}
	case conversations.OutcomeInReview, conversations.OutcomeRiskDeclined:
		if result.PaymentID == "" { // nobody could give that back
			result.Outcome, result.Reason = conversations.OutcomeUnknown, reasonAmountMissing
			return result
		}
		if !known || amount.Minor == 0 {
			amount = asked // the bank approved, and it was asked for this
		}
	default:
		return result
	}
	switch {
	case amount.Currency != asked.Currency:
		result.Outcome, result.Reason = conversations.OutcomeUnknown, reasonAmountDiffers
		return result
	case amount != asked && outcome == conversations.OutcomeInReview:
		result.Outcome, result.Reason = conversations.OutcomePartial, reasonReviewDiffers
	case amount != asked && outcome != conversations.OutcomePartial && outcome != conversations.OutcomeRiskDeclined:
		result.Outcome, result.Reason = conversations.OutcomePartial, reasonAmountDiffers
	}
	result.Amount = amount
	return result
}
