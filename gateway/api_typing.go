package main

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"paythread/conversations"
	"paythread/gateway/providers"
)

var showTypingOperation = huma.Operation{
	OperationID: "show-typing", Method: http.MethodPost, Path: "/v1/conversations/{id}/typing", Tags: conversationTag,
	Summary: "Show that an answer is being written", Description: "On WhatsApp the customer's last message is marked as read and dots show that somebody writes, until the answer comes or for 25 seconds. A courtesy: where the company cannot do it, or does not answer, nothing happens. For servers, and for agent sessions with the grant act_all.", Errors: actionErrors,
}

// typist tells a customer that an answer to a message of theirs is being
// written.
type typist func(ctx context.Context, senderID, inboundID string) error

// typistOf returns the typist of live senders. It has none to tell where the
// company cannot.
func typistOf(senders func() map[string]*liveSender) typist {
	return func(ctx context.Context, senderID, inboundID string) error {
		s, ok := senders()[senderID]
		if !ok {
			return nil
		}
		if r, ok := s.provider.(providers.Reader); ok {
			return r.MarkRead(ctx, inboundID, true)
		}
		return nil
	}
}

// typingWithin bounds the call: dots that come late are worse than none.
const typingWithin = 5 * time.Second

// showTyping answers POST /v1/conversations/{id}/typing.
func (a *api) showTyping(ctx context.Context, in *conversationAction) (*conversationOutput, error) {
	contact, err := a.contactFor(ctx, in.ID, grantActAll)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	for _, s := range c.merchant.Senders {
		id := contact.InboundIDs[s.ID]
		if s.Channel != conversations.WhatsApp || id == "" || a.typing == nil {
			continue
		}
		call, cancel := context.WithTimeout(ctx, typingWithin)
		err := a.typing(call, s.ID, id)
		cancel()
		if err != nil {
			a.log.DebugContext(ctx, "that an answer is being written could not be shown", "sender", s.ID, "error", err)
		}
	}
	return &conversationOutput{conversationDocument(c.merchant, contact)}, nil
}
