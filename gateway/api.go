package main

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
)

// api is the REST API under /v1, with its description and documentation.
type api struct {
	store    *conversations.Store
	config   func() *Config
	sessions *agentSessions
	streams  eventStreams
	log      *slog.Logger
	typing   typist // may be nil
	// callbacks are the merchants' endpoints.
	callbacks *conversations.Callbacks
	huma      huma.API
}

// eventStreams serves events as they happen.
type eventStreams interface {
	serveRequestEvents(*fiber.Ctx, *conversations.PaymentRequest, streamOptions) error
	serveMerchantEvents(c *fiber.Ctx, merchantID string, o streamOptions) error
}

// apiOptions are what the API works with.
type apiOptions struct {
	Store    *conversations.Store
	Config   func() *Config // the current one
	Sessions *agentSessions
	Streams  eventStreams
	Typing   typist // nil: nobody is told
	Log      *slog.Logger

	Callbacks conversations.CallbackOptions
}

func newAPI(o apiOptions) *api {
	setUpHuma()
	return &api{store: o.Store, config: o.Config, sessions: o.Sessions, streams: o.Streams, typing: o.Typing, log: o.Log, callbacks: conversations.NewCallbacks(o.Store, o.Callbacks)}
}

// setUpHuma sets what huma keeps in package variables.
var setUpHuma = sync.OnceFunc(func() {
	huma.NewError = humaProblem
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false // our lists are empty, never null
})

// register puts the API's routes on the public listener.
func (a *api) register(router fiber.Router) {
	router.Use("/v1/", a.enter)
	a.huma = humafiber.NewWithGroup(nil, router, a.humaConfig())
	operate(a, createRequestOperation, a.createRequest)
	operate(a, listRequestsOperation, a.listRequests)
	operate(a, getRequestOperation, a.getRequest)
	operate(a, cancelRequestOperation, a.cancelRequest)
	operate(a, resendMessageOperation, a.resendMessage)
	operate(a, extendTimeOperation, a.extendTime)
	a.registerMoney()
	operate(a, createSessionOperation, a.createSession)
	operate(a, getSealedOrderOperation, a.getSealedOrder)
	operate(a, previewMessageOperation, a.previewMessage)
	a.registerConversations()
	operate(a, showTypingOperation, a.showTyping)
	operate(a, listSendersOperation, a.listSenders)
	operate(a, getSenderOperation, a.getSender)
	a.registerDeadLetters()
	a.registerCallbacks()
	router.Get("/v1/payment-requests/:id/events", a.showRequestEvents)
	router.Get("/v1/events", a.showMerchantEvents)
	a.describeEvents()
	a.describeCallbacks()
	a.describeProblems()
	a.describeRefusals()
	a.openAnswers()
	a.describeExamples()
	a.registerDocs(router)
}

// operate registers one operation. Its errors become problems here.
func operate[I, O any](a *api, op huma.Operation, do func(context.Context, *I) (*O, error)) {
	op.MaxBodyBytes = maxBody + 1
	op.Security = []map[string][]string{{"bearer": {}}}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (out *O, err error) {
		out, err = attempt(ctx, in, do)
		if err != nil {
			p := problemOf(err)
			logProblem(a.log, op.Method, op.Path, p)
			return nil, p
		}
		return out, nil
	})
}

// attempt calls a handler and turns its panic into an error.
func attempt[I, O any](ctx context.Context, in *I, do func(context.Context, *I) (*O, error)) (out *O, err error) {
	defer recovered(&err)
	return do(ctx, in)
}

func (a *api) humaConfig() huma.Config {
	c := huma.DefaultConfig("Paythread", apiVersion)
	c.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", func(t reflect.Type, hint string) string {
		return strings.TrimSuffix(huma.DefaultSchemaNamer(t, hint), "Document")
	})
	c.Info.Description = apiDescription
	c.Servers = []*huma.Server{{URL: "/", Description: "The gateway that this was read from"}}
	for _, t := range tags {
		c.Tags = append(c.Tags, &huma.Tag{Name: t.of[0], Description: t.about})
	}
	c.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", Description: "An API key of the merchant's servers, or an agent session token of one agent's browser."},
	}
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", "" // served by registerDocs
	c.CreateHooks = nil                                   // no "$schema" in answers
	c.RejectUnknownQueryParameters = true
	return c
}

// apiVersion is that of the interface: it changes only with what callers see.
const apiVersion = "1"

const apiDescription = `Ask customers for payments over WhatsApp and SMS, and watch what becomes of each.

Amounts are decimal strings with a currency. Times are RFC 3339 in UTC. Identifiers are opaque. Every POST honours Idempotency-Key: the same key with the same request has its effect once, and a repeat gets the first answer. Errors are problem documents (RFC 9457), explained at /docs/problems.

Servers call with an API key. A browser gets an agent session token, made by the merchant's server for one sealed order: with it an agent may read that order, ask for its payment, and follow, resend, extend and cancel whichever payment request holds the order; amounts come from the sealed order and cannot be sent.`

var (
	requestTag = []string{"Payment requests"}
	sessionTag = []string{"Agent sessions"}
	eventTag   = []string{"Events"}

	// tags are the parts of the interface, in the order in which they are shown.
	tags = []struct {
		of    []string
		about string
	}{
		{requestTag, "What customers are asked to pay, from the first message to the refund."},
		{conversationTag, "What was said between the merchant and a customer, on all channels, and who answers: the bot or an agent."},
		{eventTag, "What happens, as it happens, in streams or page by page."},
		{sessionTag, "Tokens for agents' browsers, and the orders that they are for."},
		{senderTag, "The merchant's identities at the messaging companies, and how each of them stands."},
		{callbackTag, "The merchant's own endpoints, to which events are sent."},
		{deadLetterTag, "Work that could not be done, and waits for a person's decision."},
	}

	createRequestOperation = huma.Operation{
		OperationID: "create-payment-request", Method: http.MethodPost, Path: "/v1/payment-requests", Tags: requestTag, DefaultStatus: 201,
		Summary: "Ask for a payment", Description: "Creates a payment request and sends the customer its first message. With an API key the order, its sums and a phone number are required. With an agent session token they come from the sealed order: only phone, channel, locale and note may be sent. An order is held by one live payment request; once that has expired, failed or was cancelled, the next one takes the order over.",
		Errors: []int{400, 401, 403, 404, 409, 413, 415, 503},
	}
	listRequestsOperation = huma.Operation{
		OperationID: "list-payment-requests", Method: http.MethodGet, Path: "/v1/payment-requests", Tags: requestTag,
		Summary: "List payment requests", Description: "Newest first. For servers, and for agent sessions with the grant read_all.", Errors: []int{401, 403, 503},
	}
	getRequestOperation = huma.Operation{
		OperationID: "get-payment-request", Method: http.MethodGet, Path: "/v1/payment-requests/{id}", Tags: requestTag,
		Summary: "Read a payment request", Description: "As it stands now: its state, totals, attempts, operations and messages, its link, and the actions that would be accepted. For servers, and for the agent session of the order that it holds.", Errors: []int{401, 403, 404, 503},
	}
	cancelRequestOperation = huma.Operation{
		OperationID: "cancel-payment-request", Method: http.MethodPost, Path: "/v1/payment-requests/{id}/cancel", Tags: requestTag,
		Summary: "Cancel an open payment request", Description: "The customer is told. Refused while a payment is being processed, with the reason processing.", Errors: actionErrors,
	}
	resendMessageOperation = huma.Operation{
		OperationID: "resend-message", Method: http.MethodPost, Path: "/v1/payment-requests/{id}/resend", Tags: requestTag,
		Summary: "Send the payment or the receipt message again", Description: "With the same link. Without message it is the one that fits the lifecycle.", Errors: actionErrors,
	}
	extendTimeOperation = huma.Operation{
		OperationID: "extend-payment-request", Method: http.MethodPost, Path: "/v1/payment-requests/{id}/extend", Tags: requestTag,
		Summary: "Give the customer more time", Description: "Moves the end of the window that is running, or that ran out, to now plus the window's length if that is later. An expired payment request is open again, and its link is sent again.", Errors: actionErrors,
	}
	createSessionOperation = huma.Operation{
		OperationID: "create-agent-session", Method: http.MethodPost, Path: "/v1/agent-sessions", Tags: sessionTag, DefaultStatus: 201,
		Summary: "Seal an order for an agent's browser", Description: "For servers. Give the order the first time, and sealed_order to renew the token of one that is sealed already.", Errors: []int{400, 401, 403, 404, 413, 415, 503},
	}
	getSealedOrderOperation = huma.Operation{
		OperationID: "get-sealed-order", Method: http.MethodGet, Path: "/v1/sealed-orders/{id}", Tags: sessionTag,
		Summary: "Read a sealed order", Description: "With what it takes to ask for its payment: the channels that can be used, and the payment request that holds the order.", Errors: []int{401, 403, 404, 503},
	}
	previewMessageOperation = huma.Operation{
		OperationID: "preview-message", Method: http.MethodPost, Path: "/v1/message-previews", Tags: sessionTag,
		Summary: "See the payment message before it is sent", Description: "Changes nothing. The link in the text is a sample of the right length.", Errors: []int{400, 401, 403, 404, 413, 415, 503},
	}
	actionErrors = []int{400, 401, 403, 404, 409, 413, 415, 503}
)
