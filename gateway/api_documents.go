package main

import (
	"context"
	"slices"
	"time"

	"paythread/conversations"
)

// Amount is money on the wire.
type Amount struct {
	Value    string `json:"value" example:"149.00" doc:"A decimal string with at most the decimals of the currency; never a number."`
	Currency string `json:"currency" example:"ZAR" doc:"ISO 4217 code."`
}

func amountOf(m conversations.Money) Amount { return Amount{m.Decimal(), m.Currency} }

// LineItem is one line of an order.
type LineItem struct {
	Name      string `json:"name" example:"Service" doc:"What it is, as the customer reads it."`
	SKU       string `json:"sku,omitempty" example:"S1" doc:"The merchant's article number."`
	Quantity  int64  `json:"quantity" minimum:"1" maximum:"999999" example:"1" doc:"How many."`
	UnitPrice Amount `json:"unit_price"`
	Total     Amount `json:"total" doc:"Quantity times unit_price."`
}

// MerchantDocument names a merchant.
type MerchantDocument struct {
	ID   string `json:"id" example:"acme" doc:"As configured."`
	Name string `json:"name" example:"Acme Energy" doc:"As customers read it."`
}

// PaymentRequestDocument is a payment request as the API shows it.
type PaymentRequestDocument struct {
	ID            string                                `json:"id" example:"pr_0k3v9m2x7c1d5f8g4h6j" doc:"Names it in calls."`
	Order         string                                `json:"order" example:"1042" doc:"The merchant's order number."`
	Merchant      MerchantDocument                      `json:"merchant"`
	Environment   string                                `json:"environment" enum:"sandbox,production" doc:"sandbox: no money moves. Or production."`
	Lifecycle     conversations.Lifecycle               `json:"lifecycle" enum:"open,processing,authorized,paid,in_review,failed,expired,cancelled,reversed,partially_refunded,refunded" doc:"Where it stands; see docs/states.md."`
	Reason        string                                `json:"reason,omitempty" example:"not_opened" doc:"Why, beside the lifecycle: not_opened, not_paid, by_agent, already_paid, too_many_attempts, being_reversed."`
	CancelReason  string                                `json:"cancel_reason,omitempty" doc:"What the merchant gave as the reason of the cancellation; for the merchant's own eyes."`
	Superseded    bool                                  `json:"superseded" doc:"Another payment request has taken the order."`
	Late          bool                                  `json:"late" doc:"Money came after expiry, cancellation or failure."`
	Unbalanced    bool                                  `json:"unbalanced,omitempty" doc:"The platform did more with the money than is known how it could; the totals say no more than is possible. Somebody should compare both."`
	Phone         string                                `json:"phone" example:"+27821234567" doc:"E.164."`
	PhoneNational string                                `json:"phone_national" example:"082 123 4567" doc:"As it is dialled in its country."`
	Channel       conversations.Channel                 `json:"channel" enum:"whatsapp,sms" doc:"That was picked for the first message."`
	FellBackTo    conversations.Channel                 `json:"fell_back_to,omitempty" enum:"sms" doc:"Where its messages go now, because the channel failed."`
	Locale        string                                `json:"locale" example:"en" doc:"Language of messages and pages."`
	Note          string                                `json:"note,omitempty" doc:"For the merchant's own eyes."`
	Extra         map[string]string                     `json:"extra,omitempty" doc:"The merchant's own data, as it was given; for API keys only."`
	LineItems     []LineItem                            `json:"line_items" doc:"What is paid for."`
	Subtotal      Amount                                `json:"subtotal"`
	Tax           Amount                                `json:"tax"`
	Shipping      Amount                                `json:"shipping"`
	Discount      Amount                                `json:"discount"`
	Total         Amount                                `json:"total"`
	Totals        TotalsDocument                        `json:"totals"`
	Milestones    map[conversations.Milestone]time.Time `json:"milestones" doc:"When each was first reached; only those that were: sent, delivered, read, opened, checkout_started, authenticating, declined, paid, receipt_sent, receipt_delivered, receipt_read, receipt_viewed."`
	CreatedAt     time.Time                             `json:"created_at" doc:"When it was made."`
	OpenBy        time.Time                             `json:"open_by" doc:"End of the time to open the link."`
	PayBy         *time.Time                            `json:"pay_by,omitempty" doc:"End of the time to pay, once opened."`
	Link          string                                `json:"link,omitempty" format:"uri" doc:"The customer's link; for API keys only."`
	ReceiptLink   string                                `json:"receipt_link,omitempty" format:"uri" doc:"The receipt, once paid; for API keys only."`
	Attempts      []AttemptDocument                     `json:"attempts" doc:"The tries to pay, the first one first."`
	Operations    []OperationDocument                   `json:"operations" doc:"Captures, reversals, voids and refunds, the first one first."`
	Messages      []MessageDocument                     `json:"messages" doc:"Those that went out about it, the first one first."`
	Actions       []string                              `json:"actions" example:"[\"cancel\",\"resend\",\"extend\"]" doc:"What would be accepted now from this caller: cancel, resend, extend, capture, reverse, refund."`
	LastEvent     int64                                 `json:"last_event" doc:"Number of the newest event."`
}

// TotalsDocument is what became of the money.
type TotalsDocument struct {
	Authorized Amount `json:"authorized"`
	Captured   Amount `json:"captured"`
	Reversed   Amount `json:"reversed"`
	Refunded   Amount `json:"refunded"`
	Capturable Amount `json:"capturable"`
	Refundable Amount `json:"refundable"`
}

// AttemptDocument is one try to pay.
type AttemptDocument struct {
	Number    int                        `json:"number" doc:"1, 2, 3 in the payment request."`
	Code      string                     `json:"code" doc:"The reference at the payment platform."`
	State     conversations.AttemptState `json:"state" enum:"sending,unsettled,authenticating,reversing,in_review,authorized,captured,declined,not_taken,not_found,reversed" doc:"How far it has come; see docs/states.md."`
	Reason    string                     `json:"reason,omitempty" example:"INSUFFICIENT_FUND" doc:"The platform's own word."`
	Text      string                     `json:"text" doc:"A sentence for the agent."`
	Amount    Amount                     `json:"amount"`
	Card      *CardDocument              `json:"card,omitempty"`
	StartedAt time.Time                  `json:"started_at" doc:"When the card was submitted, or the form given out where the platform charges by itself."`
	SettledAt *time.Time                 `json:"settled_at,omitempty" doc:"When its outcome was known."`
}

// CardDocument is what may be shown of a card.
type CardDocument struct {
	Brand string `json:"brand,omitempty" example:"Visa" doc:"As its name is written."`
	Last4 string `json:"last4,omitempty" example:"1111" doc:"The last four digits of its number."`
}

// OperationDocument is one capture, reversal, void or refund.
type OperationDocument struct {
	ID        string                       `json:"id" doc:"Names it in the payment request."`
	Kind      conversations.OperationKind  `json:"kind" enum:"capture,reversal,void,refund" doc:"What was asked of the platform."`
	State     conversations.OperationState `json:"state" enum:"pending,succeeded,failed,unknown" doc:"How far it has come. What is unknown is being asked for, and its amount stays reserved."`
	Amount    Amount                       `json:"amount"`
	Reason    string                       `json:"reason,omitempty" enum:"asked,elsewhere,second_success,late_payment,partial,risk_declined,review_rejected,review_timed_out,order_already_paid" doc:"Why it is done. asked: by the merchant; elsewhere: by somebody at the platform, and we learnt of it; every other one by Paythread."`
	Note      string                       `json:"note,omitempty" doc:"Why, in the merchant's own words; the customer does not see it."`
	By        string                       `json:"by,omitempty" example:"ag7" doc:"The agent who asked for it; missing for a server."`
	Error     string                       `json:"error,omitempty" example:"settled" doc:"The platform's word, where it did not succeed. settled: a void came too late; under_review: reviewers decide first."`
	Elsewhere bool                         `json:"elsewhere" doc:"It was done at the platform, and we learnt of it."`
	Statement string                       `json:"reconciliation_id,omitempty" doc:"What the platform's statements call it."`
	Text      string                       `json:"text" doc:"A sentence for the agent."`
	StartedAt time.Time                    `json:"started_at" doc:"When it was asked for."`
	SettledAt *time.Time                   `json:"settled_at,omitempty" doc:"When its outcome was known."`
}

// MessageDocument is what became of one message. Its text is not shown here.
type MessageDocument struct {
	ID          string                       `json:"id" doc:"Names it in the transcript."`
	Purpose     conversations.Purpose        `json:"purpose" example:"payment" doc:"What it is for, such as payment or receipt."`
	Channel     conversations.Channel        `json:"channel" enum:"whatsapp,sms" doc:"What it goes by."`
	Status      conversations.DeliveryStatus `json:"status" enum:"queued,sending,accepted,sent,delivered,read,failed" doc:"How far it has come."`
	Reason      conversations.FailureReason  `json:"reason,omitempty" example:"not_on_channel" doc:"Why it failed, a stable word; reason_text says it for people."`
	ReasonText  string                       `json:"reason_text,omitempty" doc:"The reason as a sentence for the agent."`
	Follows     string                       `json:"follows,omitempty" doc:"The message that it was sent instead of, or again for."`
	QueuedAt    time.Time                    `json:"queued_at" doc:"When it was made."`
	SentAt      *time.Time                   `json:"sent_at,omitempty" doc:"When the company had sent it."`
	DeliveredAt *time.Time                   `json:"delivered_at,omitempty" doc:"When it was on the customer's phone."`
	ReadAt      *time.Time                   `json:"read_at,omitempty" doc:"When the customer read it, where the channel tells."`
}

// EventDocument is one event of a payment request's log.
type EventDocument struct {
	Seq       int64                        `json:"seq" doc:"Counts from 1 in each payment request, without gaps."`
	Type      string                       `json:"type" example:"delivered" doc:"What happened. New types may be added."`
	Time      time.Time                    `json:"time" doc:"When it happened."`
	RequestID string                       `json:"payment_request_id" doc:"The payment request."`
	Order     string                       `json:"order" doc:"The merchant's order number."`
	Lifecycle conversations.Lifecycle      `json:"lifecycle" doc:"Of the payment request after the event."`
	Reason    string                       `json:"reason,omitempty" doc:"Why, a stable word, where there is one."`
	Milestone conversations.Milestone      `json:"milestone,omitempty" doc:"What was reached for the first time, if it is about that."`
	Attempt   int                          `json:"attempt,omitempty" doc:"Number of the try to pay that it is about."`
	Message   *conversations.LoggedMessage `json:"message,omitempty"`
	Operation *EventOperation              `json:"operation,omitempty"`
	Text      string                       `json:"text" doc:"A sentence for the agent."`
}

// EventOperation is what an event tells of a capture, reversal, void or refund.
type EventOperation struct {
	ID     string                       `json:"id" doc:"Names it in the payment request."`
	Kind   conversations.OperationKind  `json:"kind" enum:"capture,reversal,void,refund" doc:"What was asked of the platform."`
	State  conversations.OperationState `json:"state" enum:"pending,succeeded,failed,unknown" doc:"How far it has come."`
	Amount Amount                       `json:"amount"`
	Reason string                       `json:"reason,omitempty" doc:"Why it is done."`
	Error  string                       `json:"error,omitempty" doc:"The platform's word, where it did not succeed."`
}

func eventOperation(o *conversations.LoggedOperation) *EventOperation {
	if o == nil {
		return nil
	}
	return &EventOperation{ID: o.ID, Kind: o.Kind, State: o.State, Amount: amountOf(o.Amount), Reason: o.Reason, Error: o.Error}
}

func eventDocument(e conversations.LoggedEvent) EventDocument {
	return EventDocument{
		Seq: e.Seq, Type: e.Type, Time: e.At, RequestID: e.RequestID, Order: e.Order, Lifecycle: e.Lifecycle, Reason: e.Reason,
		Milestone: e.Milestone, Attempt: e.Attempt, Message: e.Message, Operation: eventOperation(e.Operation), Text: eventText(e),
	}
}

// document returns a payment request as a caller may see it.
func (a *api) document(ctx context.Context, c *call, r *conversations.PaymentRequest) (*PaymentRequestDocument, error) {
	messages, err := a.store.Messages(ctx, r.ContactID, r.Messages)
	if err != nil {
		return nil, err
	}
	actions, err := a.store.Allowed(ctx, r)
	if err != nil {
		return nil, err
	}
	if c.needs(grantOperate) != nil {
		actions = slices.DeleteFunc(actions, func(action string) bool { return slices.Contains(operations, action) })
	}
	_, national := phoneForms(r.Phone, "")
	d := &PaymentRequestDocument{
		ID: r.ID, Order: r.Order.Reference, Merchant: MerchantDocument{c.merchant.ID, c.merchant.Name}, Environment: environment(r.Sandbox),
		Lifecycle: r.Lifecycle, Reason: r.Reason, CancelReason: r.CancelNote, Superseded: r.Superseded, Late: r.Late, Unbalanced: r.Unbalanced,
		Phone: r.Phone, PhoneNational: national, Channel: r.Channel, FellBackTo: r.FellBackTo, Locale: r.Locale, Note: r.Note,
		LineItems: lineItems(r.Order.LineItems), Subtotal: amountOf(r.Order.Subtotal), Tax: amountOf(r.Order.Tax),
		Shipping: amountOf(r.Order.Shipping), Discount: amountOf(r.Order.Discount), Total: amountOf(r.Order.Total), Totals: totals(r),
		Milestones: r.Milestones, CreatedAt: r.CreatedAt, OpenBy: r.OpenBy, PayBy: r.PayBy,
		Attempts: []AttemptDocument{}, Operations: []OperationDocument{}, Messages: []MessageDocument{}, Actions: actions, LastEvent: r.LastEvent,
	}
	if d.Milestones == nil {
		d.Milestones = map[conversations.Milestone]time.Time{}
	}
	if c.session == nil {
		d.Extra = r.Extra
		d.Link = c.merchant.PublicURL + "/p/" + r.LinkCode
		if r.Receipt != nil {
			d.ReceiptLink = c.merchant.PublicURL + "/r/" + r.ReceiptCode
		}
	}
	for _, attempt := range r.Attempts {
		d.Attempts = append(d.Attempts, attemptDocument(attempt))
	}
	for _, o := range r.Operations {
		d.Operations = append(d.Operations, operationDocument(o))
	}
	for _, m := range messages {
		d.Messages = append(d.Messages, messageDocument(m))
	}
	return d, nil
}

func environment(sandbox bool) string {
	if sandbox {
		return "sandbox"
	}
	return "production"
}

// phoneForms returns a number in both forms, or as it was given where it
// cannot be read.
func phoneForms(phone, country string) (canonical, national string) {
	canonical, national, err := conversations.ParsePhone(phone, country)
	if err != nil {
		return phone, phone
	}
	return canonical, national
}

func lineItems(items []conversations.LineItem) []LineItem {
	out := make([]LineItem, 0, len(items))
	for _, l := range items {
		out = append(out, LineItem{Name: l.Name, SKU: l.SKU, Quantity: l.Quantity, UnitPrice: amountOf(l.UnitPrice), Total: amountOf(l.Total)})
	}
	return out
}

func totals(r *conversations.PaymentRequest) TotalsDocument {
	of := func(minor int64) Amount {
		return amountOf(conversations.Money{Minor: minor, Currency: r.Order.Total.Currency})
	}
	return TotalsDocument{
		Authorized: of(r.AuthorizedMinor), Captured: of(r.CapturedMinor), Reversed: of(r.ReversedMinor), Refunded: of(r.RefundedMinor),
		Capturable: of(r.Capturable()), Refundable: of(r.Refundable()),
	}
}

func attemptDocument(a conversations.Attempt) AttemptDocument {
	d := AttemptDocument{
		Number: a.N, Code: a.Code, State: a.State, Reason: a.Result.Reason, Text: attemptText(a), Amount: amountOf(a.Amount),
		StartedAt: a.StartedAt, SettledAt: a.SettledAt,
	}
	if a.Result.CardBrand != "" || a.Result.CardLast4 != "" {
		d.Card = &CardDocument{a.Result.CardBrand, a.Result.CardLast4}
	}
	return d
}

func operationDocument(o conversations.Operation) OperationDocument {
	return OperationDocument{
		ID: o.ID, Kind: o.Kind, State: o.State, Amount: amountOf(o.Amount), Reason: o.Reason, Note: o.Note, By: o.By, Error: o.Error,
		Elsewhere: o.Elsewhere, Statement: o.ReconciliationID, Text: operationText(o.Kind, o.State, o.Amount, o.Reason, o.Error),
		StartedAt: o.StartedAt, SettledAt: o.SettledAt,
	}
}

func messageDocument(m *conversations.Message) MessageDocument {
	at := func(s conversations.DeliveryStatus) *time.Time {
		if t, ok := m.Times[s]; ok {
			return &t
		}
		return nil
	}
	return MessageDocument{
		ID: m.ID, Purpose: m.Purpose, Channel: m.Channel, Status: m.Status, Reason: m.Reason, ReasonText: m.ReasonText(),
		Follows: m.Follows, QueuedAt: m.At, SentAt: at(conversations.DeliverySent), DeliveredAt: at(conversations.DeliveryDelivered), ReadAt: at(conversations.DeliveryRead),
	}
}

// OrderFields are an order as callers send it. Whether a field was sent
// matters, so all are pointers.
type OrderFields struct {
	Order     *string    `json:"order,omitempty" example:"1042" doc:"The merchant's order number, at most 50 characters. Required with an API key."`
	LineItems []LineItem `json:"line_items,omitempty" doc:"Where there are any, their totals add up to subtotal."`
	Subtotal  *Amount    `json:"subtotal,omitempty" doc:"Required with an API key."`
	Tax       *Amount    `json:"tax,omitempty" doc:"Required with an API key."`
	Shipping  *Amount    `json:"shipping,omitempty" doc:"Missing: zero."`
	Discount  *Amount    `json:"discount,omitempty" doc:"Taken off; missing: zero."`
	Total     *Amount    `json:"total,omitempty" doc:"Subtotal, tax and shipping less discount. Required with an API key."`
}

// order reads the amounts; at is the path of the fields. It reports each that
// is missing or cannot be read. Whether the sums add up is the domain's to say.
func (f OrderFields) order(at string) (o conversations.Order, wrong []FieldProblem) {
	complain := func(field, message string) {
		wrong = append(wrong, FieldProblem{Field: at + field, Message: message, Location: "body." + at + field})
	}
	read := func(field string, a Amount) conversations.Money {
		m, err := conversations.ParseMoney(a.Value, a.Currency)
		if e := fieldError(err); e != nil {
			complain(field+"."+e.Field, e.Message)
		}
		return m
	}
	if f.Order == nil {
		complain("order", "it is missing")
	} else {
		o.Reference = *f.Order
	}
	if f.Total == nil {
		complain("total", "it is missing")
	} else {
		o.Total = read("total", *f.Total)
	}
	zero := conversations.Money{Currency: o.Total.Currency}
	for _, part := range []struct {
		field    string
		sent     *Amount
		optional bool
		into     *conversations.Money
	}{
		{"subtotal", f.Subtotal, false, &o.Subtotal}, {"tax", f.Tax, false, &o.Tax},
		{"shipping", f.Shipping, true, &o.Shipping}, {"discount", f.Discount, true, &o.Discount},
	} {
		switch {
		case part.sent != nil:
			*part.into = read(part.field, *part.sent)
		case part.optional:
			*part.into = zero
		default:
			complain(part.field, "it is missing")
		}
	}
	for i, l := range f.LineItems {
		path := "line_items[" + itoa(i) + "]."
		o.LineItems = append(o.LineItems, conversations.LineItem{
			Name: l.Name, SKU: l.SKU, Quantity: l.Quantity, UnitPrice: read(path+"unit_price", l.UnitPrice), Total: read(path+"total", l.Total),
		})
	}
	return o, wrong
}

// sent names the fields that were sent.
func (f OrderFields) sent() []string {
	var names []string
	for _, field := range []struct {
		name string
		sent bool
	}{
		{"order", f.Order != nil}, {"line_items", f.LineItems != nil}, {"subtotal", f.Subtotal != nil}, {"tax", f.Tax != nil},
		{"shipping", f.Shipping != nil}, {"discount", f.Discount != nil}, {"total", f.Total != nil},
	} {
		if field.sent {
			names = append(names, field.name)
		}
	}
	return slices.Clip(names)
}
