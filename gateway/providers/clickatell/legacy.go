package clickatell

import (
	"encoding/json"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// legacy reads a callback of the REST API that came before the One API, and
// which is of SMS alone: a status or a reply, one to a body, told apart by the
// members that only one of them has. Of any other body the arrival is counted:
// refusing it would only bring it back.
func (b *batch) legacy(envelope map[string]json.RawMessage, body json.RawMessage) error {
	_, isReply := envelope["fromNumber"]
	_, hasCode := envelope["statusCode"]
	_, hasStatus := envelope["status"]
	if b.integration == "" {
		b.integration = b.p.integration // a status names no integration by its id
	}
	switch {
	case isReply:
		return b.legacyReply(body)
	case hasCode || hasStatus:
		var s status
		if err := providers.Decode(body, &s); err != nil {
			return err
		}
		b.status(&s, conversations.SMS, legacyStatuses)
	default:
		b.out = append(b.out, conversations.Inbound{
			Kind: conversations.InboundAccount, MediaType: "unknown_shape",
			ProviderID: providers.Digest("unknown_shape", string(body)), At: b.receivedAt,
		})
	}
	return nil
}

// legacyReply reads what a customer answered by SMS. Two ids come with it, and
// the documents do not say which of them may repeat in another reply, so the
// report is known by both.
func (b *batch) legacyReply(body json.RawMessage) error {
	var r struct {
		MessageID      providers.Loose `json:"messageId"`
		ReplyMessageID providers.Loose `json:"replyMessageId"`
		From           providers.Loose `json:"fromNumber"`
		Timestamp      providers.Loose `json:"timestamp"`
		Text           providers.Loose `json:"text"`
		Charset        providers.Loose `json:"charset"`
	}
	if err := providers.Decode(body, &r); err != nil {
		return err
	}
	in := conversations.Inbound{
		Kind: conversations.InboundText, SenderID: b.sender(conversations.SMS), ProviderID: string(r.MessageID), At: b.time(r.Timestamp),
		Text: providers.Text(decodeText(string(r.Text), string(r.Charset)), maxWhatsApp),
	}
	switch {
	case r.MessageID == "":
		in.ProviderID = string(r.ReplyMessageID)
	case r.ReplyMessageID != "" && r.ReplyMessageID != r.MessageID:
		in.ProviderID += "." + string(r.ReplyMessageID)
	}
	who, ok := providers.Phone(string(r.From))
	if !ok { // a short code or a name: a notice of a carrier, no customer
		b.aside(in, "unknown_address")
		return nil
	}
	in.Addresses = []conversations.Address{who}
	b.add(in)
	return nil
}
