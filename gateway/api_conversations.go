package main

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"paythread/conversations"
)

var (
	conversationTag = []string{"Conversations"}

	listConversationsOperation = huma.Operation{
		OperationID: "list-conversations", Method: http.MethodGet, Path: "/v1/conversations", Tags: conversationTag,
		Summary: "List conversations", Description: "In the order of their newest messages, newest first; with phone, only that customer's. For servers, and for agent sessions with the grant read_all.", Errors: []int{401, 403, 503},
	}
	getConversationOperation = huma.Operation{
		OperationID: "get-conversation", Method: http.MethodGet, Path: "/v1/conversations/{id}", Tags: conversationTag,
		Summary: "Read a conversation", Description: "Who answers the customer, what they agreed to, and their payment requests. For servers, and for agent sessions with the grant read_all.", Errors: []int{401, 403, 404, 503},
	}
	listMessagesOperation = huma.Operation{
		OperationID: "list-messages", Method: http.MethodGet, Path: "/v1/conversations/{id}/messages", Tags: conversationTag,
		Summary: "Read a transcript", Description: "What was said on all channels, newest first. For servers, and for agent sessions with the grant read_all.", Errors: []int{401, 403, 404, 503},
	}
	writeMessageOperation = huma.Operation{
		OperationID: "write-message", Method: http.MethodPost, Path: "/v1/conversations/{id}/messages", Tags: conversationTag, DefaultStatus: 201,
		Summary: "Write to the customer", Description: "The agent takes the conversation over: the bot is silent until it is handed back. Refused with the reason opted_out, outside_window (WhatsApp, more than 24 hours after the customer wrote), no_address or messages_waiting. For servers, and for agent sessions with the grant act_all.", Errors: actionErrors,
	}
	takeOverOperation = huma.Operation{
		OperationID: "take-over-conversation", Method: http.MethodPost, Path: "/v1/conversations/{id}/take-over", Tags: conversationTag,
		Summary: "Answer the customer oneself", Description: "The bot is silent but for opt-out, opt-in and help words. For servers, and for agent sessions with the grant act_all.", Errors: actionErrors,
	}
	handBackOperation = huma.Operation{
		OperationID: "hand-back-conversation", Method: http.MethodPost, Path: "/v1/conversations/{id}/hand-back", Tags: conversationTag,
		Summary: "Let the bot answer again", Description: "For servers, and for agent sessions with the grant act_all.", Errors: actionErrors,
	}
	verifyIdentityOperation = huma.Operation{
		OperationID: "verify-identity", Method: http.MethodPost, Path: "/v1/conversations/{id}/verify-identity", Tags: conversationTag,
		Summary: "Say that the customer is who they were", Description: "After identity_changed_at is set the number may have another owner: only agents can write on WhatsApp, the bot is silent, and no SMS stands in for a message that WhatsApp does not take. This says that an agent has made sure. For servers, and for agent sessions with the grant act_all.", Errors: actionErrors,
	}
)

// registerConversations puts the routes of conversations on the listener.
func (a *api) registerConversations() {
	operate(a, listConversationsOperation, a.listConversations)
	operate(a, getConversationOperation, a.getConversation)
	operate(a, listMessagesOperation, a.listMessages)
	operate(a, writeMessageOperation, a.writeMessage)
	operate(a, takeOverOperation, a.takeOver)
	operate(a, handBackOperation, a.handBack)
	operate(a, verifyIdentityOperation, a.verifyIdentity)
}

// ConversationDocument is a conversation with a customer as the API shows it.
type ConversationDocument struct {
	ID                string                                          `json:"id" example:"c_0k3v9m2x7c1d5f8g4h6j" doc:"Names it in calls."`
	CustomerName      string                                          `json:"customer_name,omitempty" doc:"As the merchant or the messaging company told it."`
	Addresses         []AddressDocument                               `json:"addresses" doc:"The customer's numbers and ids."`
	Linked            []AddressDocument                               `json:"linked,omitempty" doc:"Addresses that came with this customer's messages, and belong to another conversation."`
	Mode              conversations.Mode                              `json:"mode" enum:"bot,with_agent" doc:"Who answers."`
	Agent             string                                          `json:"agent,omitempty" doc:"Who took over."`
	Consent           map[conversations.Channel]conversations.Consent `json:"consent" doc:"By channel: unknown, opted_in, opted_out."`
	WroteAt           map[conversations.Channel]time.Time             `json:"wrote_at" doc:"When the customer last wrote, by channel. On WhatsApp free text is allowed for 24 hours from then."`
	IdentityChangedAt *time.Time                                      `json:"identity_changed_at,omitempty" doc:"WhatsApp told that the customer's keys changed: it may be another person. Until verify-identity only agents write on WhatsApp."`
	PaymentRequests   []string                                        `json:"payment_requests" doc:"Ids of those that are not over, oldest first."`
	Latest            string                                          `json:"latest_payment_request,omitempty" doc:"Id of the newest one, whatever became of it."`
	CreatedAt         time.Time                                       `json:"created_at" doc:"When the customer was first met."`
}

// AddressDocument is one way to reach a customer.
type AddressDocument struct {
	Kind  conversations.AddressKind `json:"kind" enum:"phone,user,parent_user" doc:"user and parent_user are WhatsApp's ids of customers who hide their number."`
	Value string                    `json:"value" example:"+27821234567" doc:"In E.164, or an id of the messaging company."`
}

// TranscriptMessage is one message of a transcript, with its text.
type TranscriptMessage struct {
	ID             string                       `json:"id" doc:"Names it."`
	Direction      string                       `json:"direction" enum:"inbound,outbound" doc:"inbound: from the customer. outbound: to them."`
	Channel        conversations.Channel        `json:"channel" enum:"whatsapp,sms" doc:"By which it went."`
	At             time.Time                    `json:"at" doc:"When the customer wrote, or the message was queued."`
	Text           string                       `json:"text,omitempty" doc:"What was said, as far as it is text."`
	Kind           string                       `json:"kind,omitempty" example:"text" doc:"Of an inbound one: text, button, image, location, reaction, ..."`
	Meant          conversations.Intent         `json:"meant,omitempty" example:"wants_stop" doc:"What the bot took an inbound one for, also where an agent answers: stop, start, help, link, amount, status, receipt, other; wants_stop, a wish to get no more messages that is not an opt-out word, and person, a wish to speak to one, are for somebody to see to."`
	Purpose        conversations.Purpose        `json:"purpose,omitempty" example:"payment" doc:"Of an outbound one: payment, receipt, cancelled, refund, reply, agent, consent."`
	Agent          string                       `json:"agent,omitempty" doc:"Who wrote it."`
	PaymentRequest string                       `json:"payment_request,omitempty" doc:"What it is about."`
	Status         conversations.DeliveryStatus `json:"status,omitempty" enum:"queued,sending,accepted,sent,delivered,read,failed" doc:"How far it has come, if it is outbound."`
	Reason         conversations.FailureReason  `json:"reason,omitempty" example:"not_on_channel" doc:"Why it failed, a stable word."`
	ReasonText     string                       `json:"reason_text,omitempty" doc:"The reason as a sentence for the agent."`
	Follows        string                       `json:"follows,omitempty" doc:"The message that it was sent instead of, or again for."`
	Template       bool                         `json:"template,omitempty" doc:"It went as an approved template."`
	Cost           *CostDocument                `json:"cost,omitempty" doc:"What the provider told of its price, as far as it did."`
}

// CostDocument is what a provider told of a message's price.
type CostDocument struct {
	Category string `json:"category,omitempty" example:"utility" doc:"The provider's own word."`
	Type     string `json:"type,omitempty" example:"regular" doc:"The provider's own word."`
	Free     bool   `json:"free,omitempty" doc:"Whether the company charges nothing for it."`
	Units    int    `json:"units,omitempty" doc:"Segments that are charged, of an SMS."`
	Amount   string `json:"amount,omitempty" example:"0.0075" doc:"A decimal string."`
	Currency string `json:"currency,omitempty" example:"USD" doc:"ISO 4217 code."`
}

func addressDocuments(addresses []conversations.Address) []AddressDocument {
	out := make([]AddressDocument, 0, len(addresses))
	for _, address := range addresses {
		out = append(out, AddressDocument{address.Kind, address.Value})
	}
	return out
}

func conversationDocument(m *MerchantConfig, c *conversations.Contact) *ConversationDocument {
	d := &ConversationDocument{
		ID: c.ID, CustomerName: c.Name, Addresses: addressDocuments(c.Addresses), Linked: addressDocuments(c.Linked), Mode: c.Mode, Agent: c.Agent,
		Consent: map[conversations.Channel]conversations.Consent{}, WroteAt: map[conversations.Channel]time.Time{},
		IdentityChangedAt: c.IdentityChangedAt, PaymentRequests: append([]string{}, c.Requests...), Latest: c.Latest, CreatedAt: c.CreatedAt,
	}
	for _, channel := range conversations.Channels {
		d.Consent[channel] = conversations.ConsentUnknown
		if consent := c.Consent[channel]; consent != "" {
			d.Consent[channel] = consent
		}
	}
	for _, s := range m.Senders {
		if at, wrote := c.InboundAt[s.ID]; wrote {
			d.WroteAt[s.Channel] = at
		}
	}
	return d
}

func transcriptMessage(m *conversations.Message) TranscriptMessage {
	d := TranscriptMessage{
		ID: m.ID, Direction: "outbound", Channel: m.Channel, At: m.At, Text: m.Text, Kind: m.Kind, Meant: m.Meant, Purpose: m.Purpose, Agent: m.By, PaymentRequest: m.RequestID,
		Status: m.Status, Reason: m.Reason, ReasonText: m.ReasonText(), Follows: m.Follows, Template: m.Template,
	}
	if m.Inbound {
		d.Direction = "inbound"
	}
	if m.Cost != nil {
		cost := CostDocument(*m.Cost)
		d.Cost = &cost
	}
	return d
}

type listConversationsInput struct {
	Phone  string `query:"phone" maxLength:"40" doc:"Only the customer with this number, with + and the country code, or in the national form of the merchant's country."`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"Of a page."`
	Cursor string `query:"cursor" maxLength:"64" doc:"next_cursor of the page before."`
}

type listConversationsOutput struct {
	Body struct {
		Items      []*ConversationDocument `json:"items" doc:"Of this page."`
		NextCursor string                  `json:"next_cursor,omitempty" doc:"There are more: give it as cursor."`
	} `nameHint:"ConversationList"`
}

// listConversations answers GET /v1/conversations.
func (a *api) listConversations(ctx context.Context, in *listConversationsInput) (*listConversationsOutput, error) {
	c := callOf(ctx)
	if err := c.needs(grantReadAll); err != nil {
		return nil, err
	}
	found, next, err := a.conversationsFor(ctx, c, in)
	if err != nil {
		return nil, err
	}
	out := &listConversationsOutput{}
	out.Body.Items, out.Body.NextCursor = []*ConversationDocument{}, next
	for _, contact := range found {
		out.Body.Items = append(out.Body.Items, conversationDocument(c.merchant, contact))
	}
	return out, nil
}

func (a *api) conversationsFor(ctx context.Context, c *call, in *listConversationsInput) ([]*conversations.Contact, string, error) {
	if in.Phone == "" {
		return a.store.Conversations(ctx, c.merchant.ID, in.Cursor, in.Limit)
	}
	phone, _, err := conversations.ParsePhone(in.Phone, c.merchant.Country)
	if err != nil {
		return nil, "", err
	}
	contact, err := a.store.ContactAt(ctx, c.merchant.ID, phone)
	if conversations.CodeOf(err) == conversations.CodeNotFound {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	return []*conversations.Contact{contact}, "", nil
}

// ConversationInput is the input of whatever concerns one conversation.
type ConversationInput struct {
	ID string `path:"id" doc:"Of the conversation." example:"c_0k3v9m2x7c1d5f8g4h6j"`
}

type conversationOutput struct {
	Body *ConversationDocument
}

// contactFor returns a contact of the caller's merchant. Another's is not there.
func (a *api) contactFor(ctx context.Context, id string, g grant) (*conversations.Contact, error) {
	c := callOf(ctx)
	if err := c.needs(g); err != nil {
		return nil, err
	}
	contact, err := a.store.Contact(ctx, id)
	if conversations.CodeOf(err) == conversations.CodeNotFound || err == nil && contact.MerchantID != c.merchant.ID {
		return nil, conversations.NotFound("conversation")
	}
	return contact, err
}

// getConversation answers GET /v1/conversations/{id}.
func (a *api) getConversation(ctx context.Context, in *ConversationInput) (*conversationOutput, error) {
	contact, err := a.contactFor(ctx, in.ID, grantReadAll)
	if err != nil {
		return nil, err
	}
	return &conversationOutput{conversationDocument(callOf(ctx).merchant, contact)}, nil
}

type listMessagesInput struct {
	ConversationInput
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"50" doc:"Of a page."`
	Cursor string `query:"cursor" maxLength:"64" doc:"next_cursor of the page before."`
}

type listMessagesOutput struct {
	Body struct {
		Items      []TranscriptMessage `json:"items" doc:"Of this page."`
		NextCursor string              `json:"next_cursor,omitempty" doc:"There are more: give it as cursor."`
	} `nameHint:"Transcript"`
}

// listMessages answers GET /v1/conversations/{id}/messages.
func (a *api) listMessages(ctx context.Context, in *listMessagesInput) (*listMessagesOutput, error) {
	contact, err := a.contactFor(ctx, in.ID, grantReadAll)
	if err != nil {
		return nil, err
	}
	said, next, err := a.store.Transcript(ctx, contact.ID, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listMessagesOutput{}
	out.Body.Items, out.Body.NextCursor = []TranscriptMessage{}, next
	for _, m := range said {
		out.Body.Items = append(out.Body.Items, transcriptMessage(m))
	}
	return out, nil
}

type writeMessageInput struct {
	Idempotent
	ConversationInput
	Body struct {
		Channel string `json:"channel,omitempty" enum:"whatsapp,sms" doc:"Missing: where the customer wrote last."`
		Text    string `json:"text" minLength:"1" maxLength:"4096" example:"Hello, this is Thandi. How can I help?" doc:"What the customer reads. An SMS has at most ten parts."`
	} `nameHint:"WriteBody"`
}

type transcriptMessageOutput struct {
	Body TranscriptMessage
}

// writeMessage answers POST /v1/conversations/{id}/messages.
func (a *api) writeMessage(ctx context.Context, in *writeMessageInput) (*transcriptMessageOutput, error) {
	contact, err := a.contactFor(ctx, in.ID, grantActAll)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	m, err := a.store.Write(ctx, contact.ID, conversations.Written{
		Channel: conversations.Channel(in.Body.Channel), Text: in.Body.Text, Agent: c.agent(),
	}, c.once(contact.ID))
	if err != nil {
		return nil, err
	}
	return &transcriptMessageOutput{transcriptMessage(m)}, nil
}

// conversationAction is the input of an action without a body.
type conversationAction struct {
	Idempotent
	ConversationInput
	Body *struct{} `nameHint:"ConversationActionBody"`
}

// takeOver answers POST /v1/conversations/{id}/take-over.
func (a *api) takeOver(ctx context.Context, in *conversationAction) (*conversationOutput, error) {
	return a.change(ctx, in.ID, conversations.TakenOver{Agent: callOf(ctx).agent()})
}

// handBack answers POST /v1/conversations/{id}/hand-back.
func (a *api) handBack(ctx context.Context, in *conversationAction) (*conversationOutput, error) {
	return a.change(ctx, in.ID, conversations.HandedBack{Agent: callOf(ctx).agent()})
}

// verifyIdentity answers POST /v1/conversations/{id}/verify-identity.
func (a *api) verifyIdentity(ctx context.Context, in *conversationAction) (*conversationOutput, error) {
	return a.change(ctx, in.ID, conversations.IdentityVerified{Agent: callOf(ctx).agent()})
}

// change commits an event on a conversation and answers with how it stands.
func (a *api) change(ctx context.Context, id string, e conversations.Event) (*conversationOutput, error) {
	contact, err := a.contactFor(ctx, id, grantActAll)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	applied, err := a.store.Apply(ctx, contact.ID, e, c.once(contact.ID))
	if err != nil {
		return nil, err
	}
	if applied.Refused != nil {
		return nil, applied.Refused
	}
	if applied.Contact != nil {
		contact = applied.Contact
	}
	return &conversationOutput{conversationDocument(c.merchant, contact)}, nil
}
