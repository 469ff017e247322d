package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"paythread/conversations"
)

const callbacksPath = "/v1/callback-endpoints"

var (
	callbackTag = []string{"Callbacks"}

	createCallbackOperation = huma.Operation{
		OperationID: "create-callback-endpoint", Method: http.MethodPost, Path: callbacksPath, Tags: callbackTag, DefaultStatus: http.StatusCreated,
		Summary:     "Send events to an address of yours",
		Description: "Every event that happens from now on is sent there, signed by the Standard Webhooks scheme, until it answers with a status of 2xx. The secret that signs is in this answer and shown in no other (but to a repeat of the call under its Idempotency-Key). At most 10 a merchant. docs/callbacks.md says what is sent. For servers.",
		Errors:      []int{400, 401, 403, 409, 413, 415, 503},
	}
	listCallbacksOperation = huma.Operation{
		OperationID: "list-callback-endpoints", Method: http.MethodGet, Path: callbacksPath, Tags: callbackTag,
		Summary: "List the callback endpoints", Description: "Those of the gateway's configuration, too. The oldest first. For servers.", Errors: []int{401, 403, 503},
	}
	getCallbackOperation = huma.Operation{
		OperationID: "get-callback-endpoint", Method: http.MethodGet, Path: callbacksPath + "/{id}", Tags: callbackTag,
		Summary: "Read a callback endpoint", Description: "For servers.", Errors: []int{401, 403, 404, 503},
	}
	updateCallbackOperation = huma.Operation{
		OperationID: "update-callback-endpoint", Method: http.MethodPost, Path: callbacksPath + "/{id}/update", Tags: callbackTag,
		Summary: "Change where events go, or which", Description: "What is left out stays as it is. Refused with the reason configured for an endpoint that stands in the gateway's configuration. For servers.", Errors: callbackActionErrors,
	}
	enableCallbackOperation = huma.Operation{
		OperationID: "enable-callback-endpoint", Method: http.MethodPost, Path: callbacksPath + "/{id}/enable", Tags: callbackTag,
		Summary: "Switch an endpoint on", Description: "What happened meanwhile waits for it and goes out at once. For servers.", Errors: callbackActionErrors,
	}
	disableCallbackOperation = huma.Operation{
		OperationID: "disable-callback-endpoint", Method: http.MethodPost, Path: callbacksPath + "/{id}/disable", Tags: callbackTag,
		Summary: "Switch an endpoint off", Description: "Events wait for it as long as deliveries are kept, 30 days unless set otherwise. For servers.", Errors: callbackActionErrors,
	}
	rotateCallbackOperation = huma.Operation{
		OperationID: "rotate-callback-secret", Method: http.MethodPost, Path: callbacksPath + "/{id}/rotate-secret", Tags: callbackTag,
		Summary: "Replace the secret", Description: "The new one is in this answer and shown in no other. For 24 hours events are signed with the old one as well. For servers.", Errors: callbackActionErrors,
	}
	testCallbackOperation = huma.Operation{
		OperationID: "test-callback-endpoint", Method: http.MethodPost, Path: callbacksPath + "/{id}/test", Tags: callbackTag, DefaultStatus: http.StatusAccepted,
		Summary: "Send an event of the type callback_endpoint.test", Description: "What became of it stands among the deliveries. For servers.", Errors: callbackActionErrors,
	}
	deleteCallbackOperation = huma.Operation{
		OperationID: "delete-callback-endpoint", Method: http.MethodDelete, Path: callbacksPath + "/{id}", Tags: callbackTag, DefaultStatus: http.StatusNoContent,
		Summary: "Forget an endpoint", Description: "And what waits for it. For servers.", Errors: []int{401, 403, 404, 409, 503},
	}
	listDeliveriesOperation = huma.Operation{
		OperationID: "list-callback-deliveries", Method: http.MethodGet, Path: callbacksPath + "/{id}/deliveries", Tags: callbackTag,
		Summary: "List what was sent to an endpoint, or is to be", Description: "The newest events first. For servers.", Errors: []int{401, 403, 404, 503},
	}
	redeliverCallbackOperation = huma.Operation{
		OperationID: "redeliver-callback", Method: http.MethodPost, Path: callbacksPath + "/{id}/deliveries/{delivery}/redeliver", Tags: callbackTag, DefaultStatus: http.StatusAccepted,
		Summary: "Send an event again", Description: "At once, under the same webhook-id, and then by the timetable from its beginning. For servers.", Errors: callbackActionErrors,
	}
	replayCallbacksOperation = huma.Operation{
		OperationID: "replay-callbacks", Method: http.MethodPost, Path: callbacksPath + "/{id}/replay", Tags: callbackTag, DefaultStatus: http.StatusAccepted,
		Summary: "Send the events of a time again", Description: "Under the same webhook-ids, the oldest first. One call looks at about 10000 events; next_since says where to go on. For servers.", Errors: callbackActionErrors,
	}
	callbackActionErrors = []int{400, 401, 403, 404, 409, 413, 415, 503}
)

// oldSecretLife is for how long a replaced secret still signs.
const oldSecretLife = 24 * time.Hour

// registerCallbacks puts the routes of callback endpoints on the API.
func (a *api) registerCallbacks() {
	operate(a, createCallbackOperation, a.createCallback)
	operate(a, listCallbacksOperation, a.listCallbacks)
	operate(a, getCallbackOperation, a.getCallback)
	operate(a, updateCallbackOperation, a.updateCallback)
	operate(a, enableCallbackOperation, a.enableCallback)
	operate(a, disableCallbackOperation, a.disableCallback)
	operate(a, rotateCallbackOperation, a.rotateCallbackSecret)
	operate(a, testCallbackOperation, a.testCallback)
	operate(a, deleteCallbackOperation, a.deleteCallback)
	operate(a, listDeliveriesOperation, a.listDeliveries)
	operate(a, redeliverCallbackOperation, a.redeliverCallback)
	operate(a, replayCallbacksOperation, a.replayCallbacks)
}

// CallbackEndpointDocument is a callback endpoint as the API shows it.
type CallbackEndpointDocument struct {
	ID           string                       `json:"id" example:"ce_0k3v9m2x7c1d5f8g4h6j" doc:"Names it in calls."`
	URL          string                       `json:"url" format:"uri" example:"https://erp.acme.example/paythread" doc:"Where events go."`
	Description  string                       `json:"description,omitempty" doc:"Your own note."`
	Events       []string                     `json:"events" doc:"Types that are sent; none: every one."`
	Source       conversations.CallbackSource `json:"source" enum:"api,config" doc:"config: it stands in the gateway's configuration and can only be switched on and off here."`
	State        conversations.CallbackState  `json:"state" enum:"active,disabled" doc:"Events go to active ones alone."`
	Reason       string                       `json:"reason,omitempty" enum:"by_merchant,failing,gone" doc:"Why it is disabled. failing: no try succeeded for days. gone: it answered 410."`
	Since        time.Time                    `json:"since" doc:"Of the state."`
	FailingSince *time.Time                   `json:"failing_since,omitempty" doc:"Since when every try has failed; missing: the last one succeeded, or there was none."`
	DeliveredAt  *time.Time                   `json:"delivered_at,omitempty" doc:"The last delivery that succeeded."`
	CreatedAt    time.Time                    `json:"created_at" doc:"Events from then on are sent."`
	UpdatedAt    time.Time                    `json:"updated_at" doc:"When it was last changed."`
	Secret       string                       `json:"secret,omitempty" example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" doc:"What signs. Only in the answer to the call that made it."`
	OldSecrets   []OldSecretDocument          `json:"old_secrets,omitempty" doc:"How many secrets that were replaced still sign, and until when."`
}

// OldSecretDocument is a secret that was replaced.
type OldSecretDocument struct {
	Until time.Time `json:"until" doc:"When events are no longer signed with it."`
}

func (a *api) callbackDocument(e conversations.CallbackEndpoint, secret string) *CallbackEndpointDocument {
	d := &CallbackEndpointDocument{
		ID: e.ID, URL: e.URL, Description: e.Description, Events: e.Events, Source: e.Source, State: e.State, Reason: e.Reason, Since: e.Since,
		FailingSince: e.Failing, DeliveredAt: e.DeliveredAt, CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt, Secret: secret,
	}
	if d.Events == nil {
		d.Events = []string{}
	}
	now := a.store.Now()
	for _, s := range e.Secrets {
		if s.Until != nil && now.Before(*s.Until) {
			d.OldSecrets = append(d.OldSecrets, OldSecretDocument{*s.Until})
		}
	}
	return d
}

// CallbackDeliveryDocument is an event on its way to an endpoint.
type CallbackDeliveryDocument struct {
	ID             string                      `json:"id" example:"evt_pr_0k3v9m2x7c1d5f8g4h6j_7" doc:"The webhook-id that it is sent under."`
	Type           string                      `json:"type" example:"payment_request.paid" doc:"Of the event, such as payment_request.paid."`
	Time           time.Time                   `json:"time" doc:"Of the event."`
	PaymentRequest string                      `json:"payment_request_id,omitempty" doc:"The payment request that the event is about, if it is about one."`
	Seq            int64                       `json:"seq,omitempty" doc:"The event's number in the payment request."`
	State          conversations.DeliveryState `json:"state" enum:"pending,failed,delivered,given_up" doc:"pending: not tried yet, or wanted again. failed: the last try failed, and another follows. given_up: no further try follows by itself."`
	Tries          int                         `json:"tries" doc:"How often it was sent."`
	Status         int                         `json:"status,omitempty" example:"503" doc:"HTTP status of the last answer; missing if none came."`
	Error          string                      `json:"error,omitempty" example:"status" enum:"status,redirect,timeout,no_answer,tls,unknown_host,address_refused,event_gone,merchant_gone,not_sendable" doc:"What went wrong last."`
	TriedAt        *time.Time                  `json:"tried_at,omitempty" doc:"When it was last sent."`
	NextAt         *time.Time                  `json:"next_at,omitempty" doc:"When it is tried next."`
}

func deliveryDocument(d conversations.CallbackDelivery) CallbackDeliveryDocument {
	return CallbackDeliveryDocument{
		ID: d.ID, Type: d.Type, Time: d.At, PaymentRequest: d.RequestID, Seq: d.Seq, State: d.State, Tries: d.Tries, Status: d.Status,
		Error: d.Error, TriedAt: d.LastAt, NextAt: d.NextAt,
	}
}

// CallbackIDInput is the input of whatever concerns one callback endpoint.
type CallbackIDInput struct {
	ID string `path:"id" maxLength:"64" doc:"Of the endpoint." example:"ce_0k3v9m2x7c1d5f8g4h6j"`
}

type callbackOutput struct {
	Body *CallbackEndpointDocument
}

type createdCallbackOutput struct {
	Location string `header:"Location" doc:"Where the endpoint is read."`
	Body     *CallbackEndpointDocument
}

type createCallbackInput struct {
	Idempotent
	Body struct {
		URL         string   `json:"url" maxLength:"500" example:"https://erp.acme.example/paythread" doc:"https, on the public internet."`
		Description string   `json:"description,omitempty" maxLength:"200" doc:"Your own note."`
		Events      []string `json:"events,omitempty" maxItems:"50" example:"[\"payment_request.*\"]" doc:"Types to send, such as payment_request.paid, or payment_request.* for all that begin so; missing or empty: every one."`
	} `nameHint:"CreateCallbackEndpointBody"`
}

// callbackInputOf checks what a caller says of an endpoint.
func (a *api) callbackInputOf(url, description *string, events *[]string) (conversations.CallbackInput, error) {
	var wrong []FieldProblem
	if url != nil {
		if err := checkCallbackURL(*url, a.config().Callbacks.AllowPrivate); err != nil {
			wrong = append(wrong, FieldProblem{Field: "url", Message: err.Error(), Location: "body.url"})
		}
	}
	if events != nil {
		for i, e := range *events {
			if _, err := anEventFilter(e); err != nil {
				at := "events[" + itoa(i) + "]"
				wrong = append(wrong, FieldProblem{Field: at, Message: err.Error(), Location: "body." + at})
			}
		}
	}
	if len(wrong) > 0 {
		return conversations.CallbackInput{}, invalid(wrong)
	}
	return conversations.CallbackInput{URL: url, Description: description, Events: events}, nil
}

// createCallback answers POST /v1/callback-endpoints.
func (a *api) createCallback(ctx context.Context, in *createCallbackInput) (*createdCallbackOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	wanted, err := a.callbackInputOf(&in.Body.URL, &in.Body.Description, &in.Body.Events)
	if err != nil {
		return nil, err
	}
	e, err := a.callbacks.Create(ctx, c.merchant.ID, wanted, c.once())
	if err == nil {
		err = a.announce(ctx, callbackCreated, e, e.ID, "created", e.CreatedAt)
	}
	if err != nil {
		return nil, err
	}
	a.auditCallback(ctx, "a callback endpoint was created", e)
	return &createdCallbackOutput{Location: callbacksPath + "/" + e.ID, Body: a.callbackDocument(e, e.Secrets[0].Value)}, nil
}

// announce tells a merchant's endpoints of what was done to one, but for the one
// that is excepted. A repeat of the call announces the same event.
func (a *api) announce(ctx context.Context, kind string, e conversations.CallbackEndpoint, except, once string, at time.Time) error {
	event, err := endpointEvent(kind, e, at, once)
	if err != nil {
		return err
	}
	return a.callbacks.Tell(ctx, e.MerchantID, except, event)
}

func (a *api) auditCallback(ctx context.Context, what string, e conversations.CallbackEndpoint) {
	a.log.InfoContext(ctx, what, "audit", true, "merchant_id", e.MerchantID, "endpoint", e.ID, "host", callbackHost(e.URL), "by", callOf(ctx).by())
}

type callbacksOutput struct {
	Body struct {
		Items []*CallbackEndpointDocument `json:"items" doc:"All of the merchant's."`
	} `nameHint:"CallbackEndpointList"`
}

// listCallbacks answers GET /v1/callback-endpoints.
func (a *api) listCallbacks(ctx context.Context, _ *struct{}) (*callbacksOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	found, err := a.callbacks.Endpoints(ctx, c.merchant.ID)
	if err != nil {
		return nil, err
	}
	out := &callbacksOutput{}
	out.Body.Items = []*CallbackEndpointDocument{}
	for _, e := range found {
		out.Body.Items = append(out.Body.Items, a.callbackDocument(e, ""))
	}
	return out, nil
}

// getCallback answers GET /v1/callback-endpoints/{id}.
func (a *api) getCallback(ctx context.Context, in *CallbackIDInput) (*callbackOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	e, err := a.callbacks.Endpoint(ctx, c.merchant.ID, in.ID)
	if err != nil {
		return nil, err
	}
	return &callbackOutput{a.callbackDocument(e, "")}, nil
}

type updateCallbackInput struct {
	Idempotent
	CallbackIDInput
	Body struct {
		URL         *string   `json:"url,omitempty" maxLength:"500" doc:"https, on the public internet."`
		Description *string   `json:"description,omitempty" maxLength:"200" doc:"Your own note."`
		Events      *[]string `json:"events,omitempty" maxItems:"50" doc:"In the place of those before; an empty list: every type."`
	} `nameHint:"UpdateCallbackEndpointBody"`
}

// updateCallback answers POST /v1/callback-endpoints/{id}/update.
func (a *api) updateCallback(ctx context.Context, in *updateCallbackInput) (*callbackOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	wanted, err := a.callbackInputOf(in.Body.URL, in.Body.Description, in.Body.Events)
	if err != nil {
		return nil, err
	}
	e, err := a.callbacks.Update(ctx, c.merchant.ID, in.ID, wanted, c.once())
	return a.changedCallback(ctx, "a callback endpoint was changed", e, err)
}

// changedCallback tells of a change and answers with the endpoint.
func (a *api) changedCallback(ctx context.Context, what string, e conversations.CallbackEndpoint, err error) (*callbackOutput, error) {
	if err == nil {
		err = a.announce(ctx, callbackUpdated, e, "", fmt.Sprintf("updated_%d", e.UpdatedAt.UnixMilli()), e.UpdatedAt)
	}
	if err != nil {
		return nil, err
	}
	a.auditCallback(ctx, what, e)
	return &callbackOutput{a.callbackDocument(e, "")}, nil
}

type callbackActionInput struct {
	Idempotent
	CallbackIDInput
	Body *struct{} `nameHint:"CallbackActionBody"`
}

// enableCallback answers POST /v1/callback-endpoints/{id}/enable.
func (a *api) enableCallback(ctx context.Context, in *callbackActionInput) (*callbackOutput, error) {
	return a.switchCallback(ctx, in.ID, conversations.CallbackActive)
}

// disableCallback answers POST /v1/callback-endpoints/{id}/disable.
func (a *api) disableCallback(ctx context.Context, in *callbackActionInput) (*callbackOutput, error) {
	return a.switchCallback(ctx, in.ID, conversations.CallbackDisabled)
}

func (a *api) switchCallback(ctx context.Context, id string, to conversations.CallbackState) (*callbackOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	e, changed, err := a.callbacks.Switch(ctx, c.merchant.ID, id, to, c.once())
	if err != nil {
		return nil, err
	}
	if changed {
		if err := announceSwitch(ctx, a.callbacks, e); err != nil {
			return nil, err
		}
		a.auditCallback(ctx, "a callback endpoint was switched to "+string(to), e)
	}
	return &callbackOutput{a.callbackDocument(e, "")}, nil
}

// announceSwitch tells a merchant's other endpoints that one was switched on or
// off by somebody's wish.
func announceSwitch(ctx context.Context, queue *conversations.Callbacks, e conversations.CallbackEndpoint) error {
	kind := callbackUpdated
	if e.State == conversations.CallbackDisabled {
		kind = callbackDisabled
	}
	event, err := endpointEvent(kind, e, e.Since, fmt.Sprintf("%s_%d", e.State, e.Since.UnixMilli()))
	if err != nil {
		return err
	}
	return queue.Tell(ctx, e.MerchantID, e.ID, event)
}

// rotateCallbackSecret answers POST /v1/callback-endpoints/{id}/rotate-secret.
func (a *api) rotateCallbackSecret(ctx context.Context, in *callbackActionInput) (*callbackOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	e, secret, err := a.callbacks.RotateSecret(ctx, c.merchant.ID, in.ID, oldSecretLife, c.once())
	out, err := a.changedCallback(ctx, "the secret of a callback endpoint was replaced", e, err)
	if err != nil {
		return nil, err
	}
	out.Body.Secret = secret
	return out, nil
}

type deliveryOutput struct {
	Body struct {
		Delivery string `json:"delivery_id" doc:"Among the endpoint's deliveries."`
	} `nameHint:"CallbackDeliveryName"`
}

// testCallback answers POST /v1/callback-endpoints/{id}/test.
func (a *api) testCallback(ctx context.Context, in *callbackActionInput) (*deliveryOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	e, err := a.callbacks.Endpoint(ctx, c.merchant.ID, in.ID)
	if err != nil {
		return nil, err
	}
	at, err := a.callbacks.Asked(ctx, c.merchant.ID, c.once())
	if err != nil {
		return nil, err
	}
	event, err := endpointEvent(callbackTest, e, at, "test_"+onceName(c))
	if err == nil {
		_, err = a.callbacks.Queue(ctx, c.merchant.ID, e.ID, event)
	}
	if err != nil {
		return nil, err
	}
	out := &deliveryOutput{}
	out.Body.Delivery = event.ID
	return out, nil
}

// onceName is the same for repeats of a call under one key, and otherwise never.
func onceName(c *call) string {
	var name [10]byte
	rand.Read(name[:]) // never fails since Go 1.24
	if c.key != "" {
		sum := sha256.Sum256([]byte(c.key + "\n" + c.hash))
		copy(name[:], sum[:])
	}
	return hex.EncodeToString(name[:])
}

// deleteCallback answers DELETE /v1/callback-endpoints/{id}.
func (a *api) deleteCallback(ctx context.Context, in *CallbackIDInput) (*struct{}, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	e, err := a.callbacks.Endpoint(ctx, c.merchant.ID, in.ID)
	if err == nil && e.Source == conversations.CallbackFromAPI { // of the others the next step says why not
		err = a.announce(ctx, callbackDeleted, e, e.ID, "deleted", a.store.Now())
	}
	if err == nil {
		err = a.callbacks.Delete(ctx, c.merchant.ID, in.ID)
	}
	if err != nil {
		return nil, err
	}
	a.auditCallback(ctx, "a callback endpoint was deleted", e)
	return nil, nil
}

type deliveriesInput struct {
	CallbackIDInput
	State  string `query:"state" enum:"pending,failed,delivered,given_up" doc:"Only those in this state."`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"Of a page."`
	Cursor string `query:"cursor" maxLength:"160" doc:"next_cursor of the page before."`
}

type deliveriesOutput struct {
	Body struct {
		Items      []CallbackDeliveryDocument `json:"items" doc:"Of this page."`
		NextCursor string                     `json:"next_cursor,omitempty" doc:"There may be more: give it as cursor."`
	} `nameHint:"CallbackDeliveryList"`
}

// listDeliveries answers GET /v1/callback-endpoints/{id}/deliveries.
func (a *api) listDeliveries(ctx context.Context, in *deliveriesInput) (*deliveriesOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	found, next, err := a.callbacks.Deliveries(ctx, c.merchant.ID, in.ID, conversations.DeliveryState(in.State), in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &deliveriesOutput{}
	out.Body.Items, out.Body.NextCursor = []CallbackDeliveryDocument{}, next
	for _, d := range found {
		out.Body.Items = append(out.Body.Items, deliveryDocument(d))
	}
	return out, nil
}

type redeliverInput struct {
	Idempotent
	CallbackIDInput
	Delivery string    `path:"delivery" maxLength:"128" doc:"Of the delivery, as the list of deliveries has it." example:"evt_pr_0k3v9m2x7c1d5f8g4h6j_7"`
	Body     *struct{} `nameHint:"RedeliverBody"`
}

// redeliverCallback answers POST .../deliveries/{delivery}/redeliver.
func (a *api) redeliverCallback(ctx context.Context, in *redeliverInput) (*deliveryOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	if err := a.callbacks.Redeliver(ctx, c.merchant.ID, in.ID, in.Delivery, c.once()); err != nil {
		return nil, err
	}
	out := &deliveryOutput{}
	out.Body.Delivery = in.Delivery
	return out, nil
}

type replayInput struct {
	Idempotent
	CallbackIDInput
	Body struct {
		Since      time.Time  `json:"since" doc:"Events from this time on."`
		Until      *time.Time `json:"until,omitempty" doc:"Missing: now."`
		OnlyFailed bool       `json:"only_failed,omitempty" doc:"Only those whose last try failed, given up or not."`
	} `nameHint:"ReplayBody"`
}

type replayOutput struct {
	Body struct {
		Deliveries int        `json:"deliveries" doc:"How many are sent again."`
		Until      time.Time  `json:"until" doc:"Events after it were left out."`
		NextSince  *time.Time `json:"next_since,omitempty" doc:"There are more: call again with this as since, and another Idempotency-Key."`
	} `nameHint:"Replay"`
}

// replayCallbacks answers POST /v1/callback-endpoints/{id}/replay.
func (a *api) replayCallbacks(ctx context.Context, in *replayInput) (*replayOutput, error) {
	c := callOf(ctx)
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	r := conversations.Replay{Since: in.Body.Since, Until: valueOf(in.Body.Until), OnlyFailed: in.Body.OnlyFailed}
	if !r.Until.IsZero() && r.Until.Before(r.Since) {
		return nil, conversations.Invalid("until", "it is before since")
	}
	done, err := a.callbacks.Replay(ctx, c.merchant.ID, in.ID, r, c.once())
	if err != nil {
		return nil, err
	}
	a.log.InfoContext(ctx, "callbacks are sent again", "audit", true, "merchant_id", c.merchant.ID, "endpoint", in.ID, "deliveries", done.Deliveries, "by", c.by())
	out := &replayOutput{}
	out.Body.Deliveries, out.Body.Until, out.Body.NextSince = done.Deliveries, done.Until, done.Next
	return out, nil
}
