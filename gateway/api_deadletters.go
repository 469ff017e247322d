package main

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"paythread/conversations"
)

var (
	deadLetterTag = []string{"Dead letters"}

	listDeadLettersOperation = huma.Operation{
		OperationID: "list-dead-letters", Method: http.MethodGet, Path: "/v1/dead-letters", Tags: deadLetterTag,
		Summary: "List work that could not be done", Description: "Messages that could not be sent, and questions and operations about payments that could not be carried out, for a reason that does not pass by itself. Nothing happens to them until somebody retries or drops them. The oldest first. For servers.",
		Errors: []int{401, 403, 503},
	}
	retryDeadLetterOperation = huma.Operation{
		OperationID: "retry-dead-letter", Method: http.MethodPost, Path: "/v1/dead-letters/{id}/retry", Tags: deadLetterTag, DefaultStatus: http.StatusNoContent,
		Summary: "Do it again", Description: "When what was wrong is mended. What fails again comes back as another dead letter. For servers.", Errors: deadLetterErrors,
	}
	dropDeadLetterOperation = huma.Operation{
		OperationID: "drop-dead-letter", Method: http.MethodPost, Path: "/v1/dead-letters/{id}/drop", Tags: deadLetterTag, DefaultStatus: http.StatusNoContent,
		Summary: "Give it up", Description: "A message counts as failed then, and the next one to its customer goes out. For servers.", Errors: deadLetterErrors,
	}
	deadLetterErrors = []int{400, 401, 403, 404, 413, 415, 503}
)

// registerDeadLetters puts the routes of dead letters on the API.
func (a *api) registerDeadLetters() {
	operate(a, listDeadLettersOperation, a.listDeadLetters)
	operate(a, retryDeadLetterOperation, a.retryDeadLetter)
	operate(a, dropDeadLetterOperation, a.dropDeadLetter)
}

// DeadLetterDocument is work that could not be done, as the API shows it.
type DeadLetterDocument struct {
	ID             string                   `json:"id" example:"01795344400123-0" doc:"Names it in calls."`
	Kind           conversations.OutboxKind `json:"kind" enum:"message,inquiry,operation,holder" doc:"message: to be sent. inquiry: the platform was to be asked about an attempt. operation: a capture, reversal, void or refund. holder: another payment request of the order was to be told that it is paid."`
	Reason         string                   `json:"reason" doc:"Why it could not be done, for whoever mends it."`
	At             time.Time                `json:"at" doc:"When it was given up."`
	PaymentRequest string                   `json:"payment_request_id,omitempty" example:"pr_0k3v9m2x7c1d5f8g4h6j" doc:"The payment request that it is about."`
	Conversation   string                   `json:"conversation_id,omitempty" example:"c_0k3v9m2x7c1d5f8g4h6j" doc:"The conversation that it is about."`
	Message        string                   `json:"message_id,omitempty" example:"m_0k3v9m2x7c1d5f8g4h6j-1" doc:"The message that was to be sent."`
	Sender         string                   `json:"sender,omitempty" example:"acme-whatsapp" doc:"Of a message."`
	Attempt        int                      `json:"attempt,omitempty" doc:"Number of the attempt, of an inquiry."`
	Operation      string                   `json:"operation_id,omitempty" doc:"The operation that was to be done."`
}

func deadLetterDocument(d conversations.DeadLetter) DeadLetterDocument {
	e := d.Entry
	return DeadLetterDocument{
		ID: d.ID, Kind: e.Kind, Reason: d.Why, At: d.At, PaymentRequest: e.RequestID, Conversation: e.ContactID,
		Message: e.MessageID, Sender: e.SenderID, Attempt: e.Attempt, Operation: e.Operation,
	}
}

type deadLettersInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"Of a page."`
	Cursor string `query:"cursor" maxLength:"64" doc:"next_cursor of the page before."`
}

type deadLettersOutput struct {
	Body struct {
		Items      []DeadLetterDocument `json:"items" doc:"Of this page."`
		NextCursor string               `json:"next_cursor,omitempty" doc:"There may be more: give it as cursor."`
	} `nameHint:"DeadLetterList"`
}

// listDeadLetters answers GET /v1/dead-letters.
func (a *api) listDeadLetters(ctx context.Context, in *deadLettersInput) (*deadLettersOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	found, next, err := a.store.DeadLetters(ctx, c.merchant.ID, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &deadLettersOutput{}
	out.Body.Items, out.Body.NextCursor = []DeadLetterDocument{}, next
	for _, d := range found {
		out.Body.Items = append(out.Body.Items, deadLetterDocument(d))
	}
	return out, nil
}

type deadLetterInput struct {
	Idempotent
	ID   string    `path:"id" maxLength:"64" doc:"Of the dead letter." example:"01795344400123-0"`
	Body *struct{} `nameHint:"DeadLetterBody"`
}

// retryDeadLetter answers POST /v1/dead-letters/{id}/retry.
func (a *api) retryDeadLetter(ctx context.Context, in *deadLetterInput) (*struct{}, error) {
	return a.settleDeadLetter(ctx, in.ID, "retried", a.store.RetryDead)
}

// dropDeadLetter answers POST /v1/dead-letters/{id}/drop.
func (a *api) dropDeadLetter(ctx context.Context, in *deadLetterInput) (*struct{}, error) {
	return a.settleDeadLetter(ctx, in.ID, "dropped", a.store.DropDead)
}

func (a *api) settleDeadLetter(ctx context.Context, id, done string, settle func(ctx context.Context, merchantID, id string, once conversations.Once) error) (*struct{}, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	if err := settle(ctx, c.merchant.ID, id, c.once()); err != nil {
		return nil, err
	}
	a.log.InfoContext(ctx, "a dead letter was "+done, "audit", true, "merchant_id", c.merchant.ID, "dead_letter", id, "by", c.by())
	return nil, nil
}
