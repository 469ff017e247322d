package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"paythread/conversations"
)

func itoa(i int) string { return strconv.Itoa(i) }

// fieldError returns the domain's error about a field, or nil.
func fieldError(err error) *conversations.Error {
	var e *conversations.Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// Idempotent is embedded by the input of every POST. The header is read and
// checked in enter; here it is described.
type Idempotent struct {
	IdempotencyKey string `header:"Idempotency-Key" minLength:"1" maxLength:"255" example:"6f1c0c1e-2d3a-4f0e-9a63-3f3a7b0f8a51" doc:"Makes a repeat of this call harmless: it has its effect once and gets the first answer. Another request with the same key gets 422."`
}

// createBody is the body of POST /v1/payment-requests.
type createBody struct {
	OrderFields
	Phone        *string `json:"phone,omitempty" maxLength:"40" example:"082 123 4567" doc:"In the national form of country, or with + and the country code. With an agent session token, missing: that of the sealed order."`
	Country      *string `json:"country,omitempty" maxLength:"2" example:"ZA" doc:"ISO 3166 alpha-2, for a national phone number; missing: the merchant's."`
	Channel      string  `json:"channel" enum:"whatsapp,sms" doc:"Where the customer is written to."`
	Locale       *string `json:"locale,omitempty" maxLength:"35" example:"en" doc:"Language of messages and pages; missing: the merchant's."`
	Note         *string `json:"note,omitempty" maxLength:"500" doc:"For the merchant's own eyes."`
	CustomerName *string `json:"customer_name,omitempty" maxLength:"120" doc:"Who is asked, for the agents' eyes, until the customer's own name is known."`
	TimeToOpen   *int64  `json:"time_to_open_seconds,omitempty" minimum:"1" maximum:"2678400" example:"86400" doc:"How long the link may stay unopened; missing: the merchant's."`
	TimeToPay    *int64  `json:"time_to_pay_seconds,omitempty" minimum:"1" maximum:"2678400" example:"900" doc:"How long the customer may take once the link is opened; missing: the merchant's."`
	Capture      *bool   `json:"capture,omitempty" doc:"True takes the money at once, false only holds it; missing: the merchant's."`

	Extra map[string]string `json:"extra,omitempty" example:"{\"branch\":\"Paarl\"}" doc:"Your own data, returned to your servers as it came and shown to nobody else: at most 20 entries with names of at most 40 and values of at most 500 characters."`
}

type createInput struct {
	Idempotent
	Body createBody
}

type requestOutput struct {
	Body *PaymentRequestDocument
}

type createdOutput struct {
	Location string `header:"Location" doc:"Where the payment request is read."`
	Body     *PaymentRequestDocument
}

// createRequest answers POST /v1/payment-requests.
func (a *api) createRequest(ctx context.Context, in *createInput) (*createdOutput, error) {
	c := callOf(ctx)
	create, err := a.asked(ctx, c, in.Body)
	if err != nil {
		return nil, err
	}
	r, err := a.store.Create(ctx, create)
	if err != nil {
		return nil, err
	}
	a.logAsked(ctx, "create", r)
	d, err := a.document(ctx, c, r)
	return &createdOutput{Location: "/v1/payment-requests/" + r.ID, Body: d}, err
}

// asked reads what is to be created. For an agent session the order is the
// sealed one: neither the agent nor the browser can change what is asked.
func (a *api) asked(ctx context.Context, c *call, b createBody) (conversations.CreateRequest, error) {
	create := conversations.CreateRequest{
		MerchantID: c.merchant.ID, Phone: valueOf(b.Phone), Country: valueOf(b.Country), Channel: conversations.Channel(b.Channel),
		Locale: valueOf(b.Locale), Note: valueOf(b.Note), CustomerName: valueOf(b.CustomerName),
		TimeToOpen: seconds(b.TimeToOpen), TimeToPay: seconds(b.TimeToPay), Capture: b.Capture, Extra: b.Extra,
		Agent: c.agent(), Once: c.once(),
	}
	if c.session != nil {
		if wrong := b.notForAgents(); len(wrong) > 0 {
			return create, invalid(wrong)
		}
		sealed, err := a.store.Sealed(ctx, c.merchant.ID, c.session.SealedOrder)
		if err != nil {
			return create, err
		}
		create.Order, create.Country, create.CustomerName, create.Extra = sealed.Order, sealed.Country, sealed.CustomerName, sealed.Extra
		if b.Phone == nil {
			create.Phone = sealed.Phone
		}
		return create, nil
	}
	order, wrong := b.order("")
	if b.Phone == nil {
		wrong = append(wrong, FieldProblem{Field: "phone", Message: "it is missing", Location: "body.phone"})
	}
	if len(wrong) > 0 {
		return create, invalid(wrong)
	}
	create.Order = order
	return create, nil
}

// notForAgents reports the fields that an agent session may not send.
func (b createBody) notForAgents() (wrong []FieldProblem) {
	names := b.sent()
	for _, f := range []struct {
		name string
		sent bool
	}{
		{"country", b.Country != nil}, {"customer_name", b.CustomerName != nil}, {"time_to_open_seconds", b.TimeToOpen != nil},
		{"time_to_pay_seconds", b.TimeToPay != nil}, {"capture", b.Capture != nil}, {"extra", b.Extra != nil},
	} {
		if f.sent {
			names = append(names, f.name)
		}
	}
	for _, name := range names {
		wrong = append(wrong, FieldProblem{
			Field: name, Location: "body." + name,
			Message: "an agent session may not send it: it comes from the sealed order; send phone, channel, locale and note only",
		})
	}
	return wrong
}

func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func seconds(n *int64) time.Duration { return time.Duration(valueOf(n)) * time.Second }

// IDInput is the input of whatever concerns one payment request.
type IDInput struct {
	ID string `path:"id" doc:"Of the payment request." example:"pr_0k3v9m2x7c1d5f8g4h6j"`
}

// getRequest answers GET /v1/payment-requests/{id}.
func (a *api) getRequest(ctx context.Context, in *IDInput) (*requestOutput, error) {
	c := callOf(ctx)
	r, err := a.requestFor(ctx, c, in.ID, grantReadAll)
	if err != nil {
		return nil, err
	}
	d, err := a.document(ctx, c, r)
	return &requestOutput{d}, err
}

// requestFor returns a payment request that the caller may use: one of the
// merchant's, and for an agent session without the grant the one that holds
// the sealed order. Any other is not there.
func (a *api) requestFor(ctx context.Context, c *call, id string, g grant) (*conversations.PaymentRequest, error) {
	r, err := a.store.Request(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.MerchantID != c.merchant.ID {
		return nil, conversations.NotFound("payment request")
	}
	if c.session == nil || c.session.may(g) {
		return r, nil
	}
	sealed, err := a.store.Sealed(ctx, c.merchant.ID, c.session.SealedOrder)
	if err != nil {
		return nil, err
	}
	if sealed.Order.Reference != r.Order.Reference {
		return nil, conversations.NotFound("payment request")
	}
	holder, err := a.store.Holder(ctx, c.merchant.ID, r.Order.Reference)
	if err != nil {
		return nil, err
	}
	if holder != r.ID {
		return nil, conversations.NotFound("payment request")
	}
	return r, nil
}

type listInput struct {
	Order     string `query:"order" maxLength:"50" doc:"Only those of this order."`
	Lifecycle string `query:"lifecycle" enum:"open,processing,authorized,paid,in_review,failed,expired,cancelled,reversed,partially_refunded,refunded" doc:"Only those that stand so."`
	Channel   string `query:"channel" enum:"whatsapp,sms" doc:"Only those whose first message went by it."`
	Limit     int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"Of a page."`
	Cursor    string `query:"cursor" maxLength:"64" doc:"next_cursor of the page before."`
}

type listOutput struct {
	Body struct {
		Items      []*PaymentRequestDocument `json:"items" doc:"Of this page."`
		NextCursor string                    `json:"next_cursor,omitempty" doc:"There are more: give it as cursor."`
	} `nameHint:"PaymentRequestList"`
}

// listRequests answers GET /v1/payment-requests.
func (a *api) listRequests(ctx context.Context, in *listInput) (*listOutput, error) {
	c := callOf(ctx)
	if err := c.needs(grantReadAll); err != nil {
		return nil, err
	}
	found, next, err := a.store.Requests(ctx, conversations.Filter{
		MerchantID: c.merchant.ID, Order: in.Order, Lifecycle: conversations.Lifecycle(in.Lifecycle), Channel: conversations.Channel(in.Channel),
	}, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listOutput{}
	out.Body.Items, out.Body.NextCursor = []*PaymentRequestDocument{}, next
	for _, r := range found {
		d, err := a.document(ctx, c, r)
		if err != nil {
			return nil, err
		}
		out.Body.Items = append(out.Body.Items, d)
	}
	return out, nil
}

type cancelInput struct {
	Idempotent
	IDInput
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"200" doc:"For the record; the customer does not see it."`
	} `nameHint:"CancelBody"`
}

// cancelRequest answers POST /v1/payment-requests/{id}/cancel.
func (a *api) cancelRequest(ctx context.Context, in *cancelInput) (*requestOutput, error) {
	e := conversations.CancelRequested{RequestID: in.ID, Agent: callOf(ctx).agent()}
	if in.Body != nil {
		e.Note = in.Body.Reason
	}
	return a.act(ctx, in.ID, "cancel", e)
}

type resendInput struct {
	Idempotent
	IDInput
	Body *struct {
		Message string `json:"message,omitempty" enum:"payment,receipt" doc:"Missing: what fits the lifecycle."`
	} `nameHint:"ResendBody"`
}

// resendMessage answers POST /v1/payment-requests/{id}/resend.
func (a *api) resendMessage(ctx context.Context, in *resendInput) (*requestOutput, error) {
	e := conversations.Resent{RequestID: in.ID, Agent: callOf(ctx).agent()}
	if in.Body != nil {
		e.Purpose = conversations.Purpose(in.Body.Message)
	}
	return a.act(ctx, in.ID, "resend", e)
}

type extendInput struct {
	Idempotent
	IDInput
	Body *struct{} `nameHint:"ExtendBody"`
}

// extendTime answers POST /v1/payment-requests/{id}/extend.
func (a *api) extendTime(ctx context.Context, in *extendInput) (*requestOutput, error) {
	return a.act(ctx, in.ID, "extend", conversations.Extended{RequestID: in.ID, Agent: callOf(ctx).agent()})
}

// act commits an event on a payment request and answers with what became of it.
// A repeat under the same Idempotency-Key gets the first answer.
func (a *api) act(ctx context.Context, id, call string, e conversations.Event) (*requestOutput, error) {
	c := callOf(ctx)
	r, err := a.requestFor(ctx, c, id, grantActAll)
	if err != nil {
		return nil, err
	}
	applied, err := a.store.Apply(ctx, r.ContactID, e, c.once(r.ID))
	if err != nil {
		return nil, err
	}
	if applied.Refused != nil {
		return nil, applied.Refused
	}
	if !applied.Duplicate {
		a.logAsked(ctx, call, r)
	}
	if applied.Request != nil {
		r = applied.Request
	}
	d, err := a.document(ctx, c, r)
	return &requestOutput{d}, err
}

// logAsked leaves the line of the audit that says who asked for something; what
// came of it follows, under the same id.
func (a *api) logAsked(ctx context.Context, call string, r *conversations.PaymentRequest) {
	c := callOf(ctx)
	a.log.InfoContext(ctx, "a caller asked for a change of a payment request", "audit", true, "merchant_id", r.MerchantID, "conversation_id", r.ContactID,
		"payment_request_id", r.ID, "call", call, "by", c.by())
}
