package main

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"paythread/conversations"
)

var (
	capturePaymentOperation = huma.Operation{
		OperationID: "capture-payment", Method: http.MethodPost, Path: "/v1/payment-requests/{id}/capture", Tags: requestTag,
		Summary: "Take money that is held", Description: "Without an amount all that is left. The answer shows the operation pending; events say what becomes of it. Refused with not_capturable or beyond_capturable. For servers, and for agent sessions with the grant operate.",
		Errors: actionErrors,
	}
	reversePaymentOperation = huma.Operation{
		OperationID: "reverse-payment", Method: http.MethodPost, Path: "/v1/payment-requests/{id}/reverse", Tags: requestTag,
		Summary: "Give back money before it is settled", Description: "Releases what is held, or voids what was taken and is not settled yet; also what is under review. Always the whole of it. A void that comes too late fails with the error settled: refund then. Refused with not_reversible. For servers, and for agent sessions with the grant operate.",
		Errors: actionErrors,
	}
	refundPaymentOperation = huma.Operation{
		OperationID: "refund-payment", Method: http.MethodPost, Path: "/v1/payment-requests/{id}/refund", Tags: requestTag,
		Summary: "Give back money that was taken", Description: "Without an amount all that is left. With expected_refundable nothing is done unless so much can still be refunded: two people who refund at once then notice each other. Refused with not_refundable, beyond_refundable or refundable_changed. For servers, and for agent sessions with the grant operate.",
		Errors: actionErrors,
	}
)

// registerMoney puts the operations on money that came under the API.
func (a *api) registerMoney() {
	operate(a, capturePaymentOperation, a.capturePayment)
	operate(a, reversePaymentOperation, a.reversePayment)
	operate(a, refundPaymentOperation, a.refundPayment)
}

type captureInput struct {
	Idempotent
	IDInput
	Body *struct {
		Amount OptionalAmount `json:"amount,omitempty" doc:"Missing: all that is left."`
		Reason string         `json:"reason,omitempty" maxLength:"200" doc:"For the record; the customer does not see it."`
	} `nameHint:"CaptureBody"`
}

// capturePayment answers POST /v1/payment-requests/{id}/capture.
func (a *api) capturePayment(ctx context.Context, in *captureInput) (*requestOutput, error) {
	e := conversations.OperationRequested{RequestID: in.ID, Operation: conversations.OperationCapture}
	var wrong []FieldProblem
	if in.Body != nil {
		e.Note = in.Body.Reason
		e.Amount = readAmount("amount", in.Body.Amount, &wrong)
	}
	return a.askOperation(ctx, e, wrong)
}

type reverseInput struct {
	Idempotent
	IDInput
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"200" doc:"For the record; the customer does not see it."`
	} `nameHint:"ReverseBody"`
}

// reversePayment answers POST /v1/payment-requests/{id}/reverse.
func (a *api) reversePayment(ctx context.Context, in *reverseInput) (*requestOutput, error) {
	e := conversations.OperationRequested{RequestID: in.ID, Operation: conversations.OperationReversal}
	if in.Body != nil {
		e.Note = in.Body.Reason
	}
	return a.askOperation(ctx, e, nil)
}

type refundInput struct {
	Idempotent
	IDInput
	Body *struct {
		Amount             OptionalAmount `json:"amount,omitempty" doc:"Missing: all that is left."`
		Reason             string         `json:"reason,omitempty" maxLength:"200" doc:"For the record; the customer does not see it."`
		ExpectedRefundable OptionalAmount `json:"expected_refundable,omitempty" doc:"What the caller believes can still be refunded (totals.refundable). If it is not so any more, nothing is done."`
	} `nameHint:"RefundBody"`
}

// refundPayment answers POST /v1/payment-requests/{id}/refund.
func (a *api) refundPayment(ctx context.Context, in *refundInput) (*requestOutput, error) {
	e := conversations.OperationRequested{RequestID: in.ID, Operation: conversations.OperationRefund}
	var wrong []FieldProblem
	if in.Body != nil {
		e.Note = in.Body.Reason
		e.Amount = readAmount("amount", in.Body.Amount, &wrong)
		e.ExpectedRefundable = readAmount("expected_refundable", in.Body.ExpectedRefundable, &wrong)
	}
	return a.askOperation(ctx, e, wrong)
}

// OptionalAmount is an amount that may be left out. null is no way to do that:
// it is what a program sends that could not work the amount out, and must not
// move all the money that there is.
type OptionalAmount struct {
	sent *Amount
	null bool
}

// Schema is that of an amount.
func (OptionalAmount) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[Amount](), true, "Amount")
}

// UnmarshalJSON is called for null, too, but not for what is left out.
func (a *OptionalAmount) UnmarshalJSON(b []byte) error {
	a.null = string(b) == "null"
	return json.Unmarshal(b, &a.sent)
}

// readAmount reads an amount that may be left out, and adds what is wrong with
// it.
func readAmount(field string, given OptionalAmount, wrong *[]FieldProblem) *conversations.Money {
	if given.null {
		*wrong = append(*wrong, FieldProblem{Field: field, Message: "it is null; leave it out, or send an amount", Location: "body." + field})
	}
	if given.sent == nil {
		return nil
	}
	m, err := conversations.ParseMoney(given.sent.Value, given.sent.Currency)
	if e := fieldError(err); e != nil {
		path := field + "." + e.Field
		*wrong = append(*wrong, FieldProblem{Field: path, Message: e.Message, Location: "body." + path})
	}
	return &m
}

// askOperation commits the merchant's wish. Whether the caller may at all comes
// before what is wrong with the amounts.
func (a *api) askOperation(ctx context.Context, e conversations.OperationRequested, wrong []FieldProblem) (*requestOutput, error) {
	c := callOf(ctx)
	if err := c.needs(grantOperate); err != nil {
		return nil, err
	}
	if len(wrong) > 0 {
		return nil, invalid(wrong)
	}
	e.Agent = c.agent()
	return a.act(ctx, e.RequestID, string(e.Operation), e)
}

// operations are the actions that an agent session needs the grant for.
var operations = []string{"capture", "reverse", "refund"}
