package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"paythread/conversations"
)

// CallbackPayload is what an endpoint gets.
type CallbackPayload struct {
	Type      string    `json:"type" doc:"What happened: payment_request. and the type of the event, or one of the types about the callbacks themselves."`
	Timestamp time.Time `json:"timestamp" doc:"When it happened. When it was sent stands in the header webhook-timestamp."`
	Data      any       `json:"data" doc:"The fields below."`
}

// CallbackRequestData is the data of an event of a payment request. All of it
// but Now is the same however often and late the event is sent.
type CallbackRequestData struct {
	MerchantID   string `json:"merchant_id" doc:"Whose it is."`
	MerchantName string `json:"merchant_name" doc:"The business as customers read it, as configured now."`
	Environment  string `json:"environment" doc:"sandbox or production."`

	PaymentRequest string                  `json:"payment_request_id" doc:"The payment request."`
	Seq            int64                   `json:"seq" doc:"The event's number in the payment request: 1, 2, 3 without gaps. Order events by it."`
	Order          string                  `json:"order" doc:"The merchant's order number."`
	Status         conversations.Lifecycle `json:"status" doc:"The payment request's lifecycle right after the event."`
	Reason         string                  `json:"reason,omitempty" doc:"Why, a stable word, where there is one."`
	Milestone      conversations.Milestone `json:"milestone,omitempty" doc:"What was reached for the first time, if the event is about that."`
	Time           time.Time               `json:"time" doc:"When it happened; the same as timestamp."`

	Currency string `json:"currency" doc:"ISO 4217 code of every amount."`
	Total    string `json:"total" doc:"What is asked, a decimal string such as 149.00; so are all amounts."`
	Subtotal string `json:"subtotal" doc:"Of the order."`
	Tax      string `json:"tax" doc:"Of the order."`
	Shipping string `json:"shipping" doc:"Of the order."`
	Discount string `json:"discount" doc:"Of the order; it is taken off."`

	Channel    conversations.Channel `json:"channel" doc:"whatsapp or sms: the channel that was picked."`
	PhoneLast4 string                `json:"phone_last4" doc:"The last four digits of the customer's number."`
	Extra      map[string]string     `json:"extra,omitempty" doc:"The merchant's own data, as they were given with the payment request."`

	Attempt         int                          `json:"attempt,omitempty" doc:"Number of the try to pay, of events about one."`
	Reference       string                       `json:"reference,omitempty" doc:"That try's reference at the payment platform. Once paid, of every later event the one whose money counts."`
	TransactionType string                       `json:"transaction_type,omitempty" doc:"sale or authorization of a try to pay; capture, reversal, void or refund of an operation."`
	Reconciliation  string                       `json:"reconciliation_number,omitempty" doc:"What the platform's statements call the transaction, once it is settled."`
	Operation       *CallbackOperation           `json:"operation,omitempty" doc:"The capture, reversal, void or refund that the event is about: id, kind, amount, state (pending, succeeded, failed, unknown), reason, error."`
	Message         *conversations.LoggedMessage `json:"message,omitempty" doc:"The message that the event is about: id, purpose, channel, status, reason. Never its text."`
	ReceiptLink     string                       `json:"receipt_link,omitempty" doc:"The customer's receipt, once there is one."`
	Now             CallbackNow                  `json:"now" doc:"How the payment request stood when this was sent, which may be long after the event: status, reason, the totals authorized, captured, reversed and refunded, and last_seq, the number of its newest event."`
}

// CallbackOperation is what an event tells of an operation.
type CallbackOperation struct {
	ID     string                       `json:"id" doc:"Names it in the payment request."`
	Kind   conversations.OperationKind  `json:"kind" doc:"capture, reversal, void or refund."`
	Amount string                       `json:"amount" doc:"A decimal string."`
	State  conversations.OperationState `json:"state" doc:"pending, succeeded, failed or unknown."`
	Reason string                       `json:"reason,omitempty" doc:"Why it was done."`
	Error  string                       `json:"error,omitempty" doc:"The platform's word for why it failed."`
}

// CallbackNow is how a payment request stands when an event of it is sent.
type CallbackNow struct {
	Status     conversations.Lifecycle `json:"status" doc:"Its lifecycle."`
	Reason     string                  `json:"reason,omitempty" doc:"Why it stands so, a stable word, where there is one."`
	Authorized string                  `json:"authorized" doc:"Held by the platform so far."`
	Captured   string                  `json:"captured" doc:"Taken so far."`
	Reversed   string                  `json:"reversed" doc:"Given back before it was settled."`
	Refunded   string                  `json:"refunded" doc:"Given back after it was taken."`
	LastSeq    int64                   `json:"last_seq" doc:"Number of its newest event."`
}

// CallbackEndpointData is the data of the types callback_endpoint.*.
type CallbackEndpointData struct {
	MerchantID string                      `json:"merchant_id" doc:"Whose it is."`
	ID         string                      `json:"id" doc:"The endpoint."`
	Host       string                      `json:"host" doc:"Where it is; path and query are left out."`
	Events     []string                    `json:"events" doc:"The types that it gets; none: every one."`
	State      conversations.CallbackState `json:"state" doc:"active or disabled."`
	Reason     string                      `json:"reason,omitempty" doc:"Why it is disabled: by_merchant, failing, gone."`
}

// CallbackSettingsData is the data of merchant.settings_changed.
type CallbackSettingsData struct {
	MerchantID string   `json:"merchant_id" doc:"Whose they are."`
	Settings   []string `json:"settings" doc:"The keys that changed in the merchant's configuration, never their values."`
}

// CallbackResetData is the data of reset.
type CallbackResetData struct {
	MerchantID string `json:"merchant_id" doc:"Whose events are concerned."`
	Reason     string `json:"reason" doc:"events_lost: some were not taken in time and will not come. store_went_back: the store lost its newest entries, and what was told last may be undone."`
}

// requestPayload is the content of an event of a payment request.
func requestPayload(kind string, e conversations.LoggedEvent, r *conversations.PaymentRequest, m *MerchantConfig) ([]byte, error) {
	decimal := func(minor int64) string {
		return conversations.Money{Minor: minor, Currency: r.Order.Total.Currency}.Decimal()
	}
	d := CallbackRequestData{
		MerchantID: r.MerchantID, MerchantName: m.Name, Environment: environment(r.Sandbox),
		PaymentRequest: r.ID, Seq: e.Seq, Order: e.Order, Status: e.Lifecycle, Reason: e.Reason, Milestone: e.Milestone, Time: e.At,
		Currency: r.Order.Total.Currency, Total: r.Order.Total.Decimal(), Subtotal: r.Order.Subtotal.Decimal(), Tax: r.Order.Tax.Decimal(),
		Shipping: r.Order.Shipping.Decimal(), Discount: r.Order.Discount.Decimal(),
		Channel: r.Channel, PhoneLast4: lastDigits(r.Phone), Extra: r.Extra, Message: e.Message,
		Now: CallbackNow{
			Status: r.Lifecycle, Reason: r.Reason, Authorized: decimal(r.AuthorizedMinor), Captured: decimal(r.CapturedMinor),
			Reversed: decimal(r.ReversedMinor), Refunded: decimal(r.RefundedMinor), LastSeq: r.LastEvent,
		},
	}
	receipt := r.Receipt != nil && !e.At.Before(r.Receipt.IssuedAt)
	if receipt {
		d.ReceiptLink = m.PublicURL + "/r/" + r.ReceiptCode
	}
	d.addAttempt(e, r, receipt)
	d.addOperation(e, r)
	return encodePayload(kind, e.At, d)
}

// addAttempt tells of the try that an event is about, else of the one whose
// money counts. What was learnt of it after the event is left out, so that the
// event stays the same.
func (d *CallbackRequestData) addAttempt(e conversations.LoggedEvent, r *conversations.PaymentRequest, paid bool) {
	d.Attempt = e.Attempt
	n := e.Attempt
	if n == 0 && paid {
		n = r.PaidBy
	}
	a := r.Attempt(n)
	if a == nil {
		return
	}
	d.Reference = a.Code
	if e.Attempt != 0 {
		d.TransactionType = "authorization"
		if a.Capture {
			d.TransactionType = "sale"
		}
	}
	if a.SettledAt != nil && !e.At.Before(*a.SettledAt) {
		d.Reconciliation = a.Result.ReconciliationID
	}
}

func (d *CallbackRequestData) addOperation(e conversations.LoggedEvent, r *conversations.PaymentRequest) {
	if e.Operation == nil {
		return
	}
	o := *e.Operation
	d.Operation = &CallbackOperation{ID: o.ID, Kind: o.Kind, Amount: o.Amount.Decimal(), State: o.State, Reason: o.Reason, Error: o.Error}
	d.TransactionType = string(o.Kind)
	for _, kept := range r.Operations {
		if kept.ID == o.ID && kept.SettledAt != nil && !e.At.Before(*kept.SettledAt) {
			d.Reconciliation = kept.ReconciliationID
		}
	}
}

// lastDigits returns what may be told of a phone number.
func lastDigits(phone string) string {
	if len(phone) < 8 {
		return ""
	}
	return phone[len(phone)-4:]
}

func encodePayload(kind string, at time.Time, data any) ([]byte, error) {
	b, err := json.Marshal(CallbackPayload{Type: kind, Timestamp: at.UTC(), Data: data})
	if err != nil {
		return nil, fmt.Errorf("write a callback: %w", err)
	}
	return b, nil
}

// The types that are not about a payment request.
const (
	callbackCreated  = "callback_endpoint.created"
	callbackUpdated  = "callback_endpoint.updated"
	callbackDeleted  = "callback_endpoint.deleted"
	callbackDisabled = "callback_endpoint.disabled"
	callbackTest     = "callback_endpoint.test"
	settingsChanged  = "merchant.settings_changed"
	callbackReset    = "reset"
)

// callbackTypes returns the types that an endpoint may name. Those without a dot
// go to every endpoint.
var callbackTypes = sync.OnceValue(func() []string {
	types := []string{callbackCreated, callbackUpdated, callbackDeleted, callbackDisabled, callbackTest, settingsChanged}
	for kind := range eventTexts {
		if kind, _, because := strings.Cut(kind, "."); !because {
			types = append(types, "payment_request."+kind)
		}
	}
	slices.Sort(types)
	return types
})

func endpointData(e conversations.CallbackEndpoint) CallbackEndpointData {
	d := CallbackEndpointData{MerchantID: e.MerchantID, ID: e.ID, Host: callbackHost(e.URL), Events: e.Events, State: e.State, Reason: e.Reason}
	if d.Events == nil {
		d.Events = []string{}
	}
	return d
}

// endpointEvent is an event about an endpoint. What makes it once tells it from
// others of the type.
func endpointEvent(kind string, e conversations.CallbackEndpoint, at time.Time, once string) (conversations.CallbackEvent, error) {
	body, err := encodePayload(kind, at, endpointData(e))
	return conversations.CallbackEvent{ID: "evt_" + e.ID + "_" + once, Type: kind, At: at, Body: body}, err
}
