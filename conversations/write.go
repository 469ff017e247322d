package conversations

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The most that an agent may write in one message.
const (
	maxWhatsAppText = 4096 // characters, as WhatsApp has it
	maxSMSParts     = 10   // beyond it carriers and providers refuse
)

// Written is what an agent writes to a customer.
type Written struct {
	Channel Channel // empty: where the customer wrote last
	Text    string
	Agent   string
}

// Write queues a message of an agent in a conversation, and the agent answers
// from then on. With Once, a repeat answers with the message of the first
// call. Errors: CodeInvalid naming the field; CodeConflict with reason
// opted_out, outside_window, no_address or messages_waiting; CodeNotFound.
func (s *Store) Write(ctx context.Context, contactID string, w Written, once Once) (*Message, error) {
	p, ok := partitionOf(contactID, contactPrefix, s.o.Partitions)
	if !ok {
		return nil, NotFound("conversation")
	}
	contact, err := s.Contact(ctx, contactID)
	if err != nil {
		return nil, err
	}
	merchant, _ := s.Merchant(contact.MerchantID)
	if w.Channel == ChannelUnknown {
		w.Channel = contact.lastChannel(merchant)
	}
	if merchant.Senders[w.Channel] == "" {
		return nil, Invalid("channel", "there is no sender for %s; use another channel", w.Channel)
	}
	if w.Text, err = writable(w.Channel, w.Text); err != nil {
		return nil, err
	}
	id := randomID(messagePrefix, p)
	if once.Key != "" {
		id = derivedID(messagePrefix, p, contactID, once.Key)
	}
	a, err := s.Apply(ctx, contactID, AgentWrote{MessageID: id, Channel: w.Channel, Text: w.Text, Agent: w.Agent}, once)
	if err != nil {
		return nil, err
	}
	if a.Refused != nil {
		return nil, a.Refused
	}
	if a.Message != nil {
		return a.Message, nil
	}
	found, err := s.Messages(ctx, contactID, []string{id}) // a repeat
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, NotFound("message")
	}
	return found[0], nil
}

// lastChannel is where the customer wrote last; WhatsApp if they never did.
func (c *Contact) lastChannel(m Merchant) Channel {
	last := WhatsApp
	if m.Senders[last] == "" {
		last = SMS
	}
	for _, channel := range Channels {
		if c.InboundAt[m.Senders[channel]].After(c.InboundAt[m.Senders[last]]) {
			last = channel
		}
	}
	return last
}

// writable returns a text in the form in which it is sent, or says what is
// wrong with it.
func writable(channel Channel, text string) (string, error) {
	text = strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n"))
	if channel == SMS {
		text = SMSText(text)
	}
	switch {
	case !strings.ContainsFunc(text, visible):
		return "", Invalid("text", "it is empty; write what the customer shall read")
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }):
		return "", Invalid("text", "it holds control characters; line breaks are allowed")
	case channel == SMS:
		if n := Segments(text).Parts; n > maxSMSParts {
			return "", Invalid("text", "it takes %d SMS parts, the most is %d; write less", n, maxSMSParts)
		}
	case utf8.RuneCountInString(text) > maxWhatsAppText:
		return "", Invalid("text", "%d characters are too many, the most is %d", utf8.RuneCountInString(text), maxWhatsAppText)
	}
	return text, nil
}

// visible tells whether a customer sees anything of a character.
func visible(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) }
