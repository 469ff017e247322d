package conversations

import (
	"cmp"
	"time"
)

// Channel is what an agent picks: WhatsApp or SMS.
type Channel string

// The channels.
const (
	ChannelUnknown Channel = ""
	WhatsApp       Channel = "whatsapp"
	SMS            Channel = "sms"
)

// Channels lists every channel.
var Channels = []Channel{WhatsApp, SMS}

// ParseChannel returns the channel of that name, or an *Error.
func ParseChannel(s string) (Channel, error) {
	for _, c := range Channels {
		if string(c) == s {
			return c, nil
		}
	}
	return ChannelUnknown, Invalid("channel", "%q is not a channel, use \"whatsapp\" or \"sms\"", clip(s, 20))
}

// Purpose says why a message is sent; adapters map it to their templates.
type Purpose string

// The purposes.
const (
	PurposePayment   Purpose = "payment"   // asks to pay, carries the checkout link
	PurposeReceipt   Purpose = "receipt"   // carries the receipt link
	PurposeCancelled Purpose = "cancelled" // the request was cancelled
	PurposeRefund    Purpose = "refund"    // money was given back, carries the receipt link
	PurposeDeclined  Purpose = "declined"  // free text only, inside the window
	PurposeReply     Purpose = "reply"     // the bot answers
	PurposeAgent     Purpose = "agent"     // an agent writes
	PurposeConsent   Purpose = "consent"   // the one confirmation of an opt-out
)

// NoticePurposes are those of the messages that the business begins, about one
// payment request: on WhatsApp they go as approved templates once the customer
// has been silent for a day.
var NoticePurposes = []Purpose{PurposePayment, PurposeReceipt, PurposeCancelled, PurposeRefund}

// DeliveryStatus is what became of one outbound message, in rank order.
type DeliveryStatus string

// The delivery statuses. Higher evidence is taken from any lower state.
const (
	DeliveryUnknown   DeliveryStatus = ""
	DeliveryQueued    DeliveryStatus = "queued"
	DeliverySending   DeliveryStatus = "sending"
	DeliveryAccepted  DeliveryStatus = "accepted" // the provider gave an id
	DeliverySent      DeliveryStatus = "sent"
	DeliveryDelivered DeliveryStatus = "delivered"
	DeliveryRead      DeliveryStatus = "read"
	DeliveryFailed    DeliveryStatus = "failed"
)

// FailureReason is why a message was not delivered, one of a closed set. It
// decides retry, metric label and the agent's text.
type FailureReason string

// The failure reasons.
const (
	FailureUnknown         FailureReason = "unknown" // any other code; not retried
	FailureNotOnChannel    FailureReason = "not_on_channel"
	FailureOutsideWindow   FailureReason = "outside_window"
	FailureTemplate        FailureReason = "template"
	FailureOptedOut        FailureReason = "opted_out"
	FailureBlocked         FailureReason = "blocked"
	FailurePolicyLimit     FailureReason = "policy_limit"
	FailureRate            FailureReason = "rate" // retried
	FailureInvalidNumber   FailureReason = "invalid_number"
	FailureUnreachable     FailureReason = "unreachable"
	FailureContentFiltered FailureReason = "content_filtered"
	FailureSenderConfig    FailureReason = "sender_config"
	FailureAuth            FailureReason = "auth"
	FailureAccount         FailureReason = "account"
	FailureIdentityChanged FailureReason = "identity_changed"
	FailureProviderError   FailureReason = "provider_error" // retried, a few times
	FailureNotNeeded       FailureReason = "not_needed"     // called off by us, such as when the customer got it after all
)

// FailureReasons lists the closed set with the sentence that an agent reads. It
// says what happened; Message.ReasonText adds what we do about it.
var FailureReasons = map[FailureReason]string{
	FailureUnknown:         "The provider refused the message for a reason we do not know.",
	FailureNotOnChannel:    "This number cannot be reached on WhatsApp; SMS may work.",
	FailureOutsideWindow:   "WhatsApp allows free text only within 24 hours of the customer's last message.",
	FailureTemplate:        "The message template is missing, paused or wrong. Ask your administrator.",
	FailureOptedOut:        "The customer has opted out on this channel.",
	FailureBlocked:         "The customer or the carrier blocks our messages on this channel.",
	FailurePolicyLimit:     "The provider's policy holds this message back; the other channel may work.",
	FailureRate:            "Too many messages were sent at once.",
	FailureInvalidNumber:   "This phone number is not valid for the channel. Ask the customer for another.",
	FailureUnreachable:     "The phone could not be reached: it may be off or without signal.",
	FailureContentFiltered: "The carrier or provider filtered the message because of its content.",
	FailureSenderConfig:    "Our sender is not set up for this message. Ask your administrator.",
	FailureAuth:            "The provider refused our credentials. Ask your administrator.",
	FailureAccount:         "The provider restricted our account. Ask your administrator.",
	FailureIdentityChanged: "The customer's WhatsApp identity changed. Verify who they are before you send again.",
	FailureProviderError:   "The provider had a fault.",
	FailureNotNeeded:       "It was called off: it is no longer needed.",
}

// AddressKind tells what kind of address an Address is.
type AddressKind string

// The kinds of address, in the order in which they identify a contact.
const (
	AddressPhone      AddressKind = "phone"       // canonical E.164 with +
	AddressUser       AddressKind = "user"        // a WhatsApp business-scoped user id
	AddressParentUser AddressKind = "parent_user" // the same across a group of businesses
)

// Address is one way to reach or recognise a contact.
type Address struct {
	Kind  AddressKind `json:"kind"`
	Value string      `json:"value"`
}

// Message is one inbound or outbound message of a conversation.
type Message struct {
	ID         string                       `json:"id"`
	ContactID  string                       `json:"contact_id"`
	RequestID  string                       `json:"request_id,omitempty"`
	Inbound    bool                         `json:"inbound,omitempty"`
	Channel    Channel                      `json:"channel"`
	SenderID   string                       `json:"sender_id"` // which of the merchant's senders
	Address    Address                      `json:"address"`   // the customer's
	Purpose    Purpose                      `json:"purpose,omitempty"`
	Text       string                       `json:"text,omitempty"`
	Kind       string                       `json:"kind,omitempty"`  // of an inbound one: text, button, image, location, ...
	Meant      Intent                       `json:"meant,omitempty"` // what the bot took it for, whoever answered
	Parameters Parameters                   `json:"parameters"`
	At         time.Time                    `json:"at"`
	Status     DeliveryStatus               `json:"status,omitempty"`
	Times      map[DeliveryStatus]time.Time `json:"times,omitempty"`
	Reason     FailureReason                `json:"reason,omitempty"`
	ErrorCode  string                       `json:"error_code,omitempty"` // the provider's own
	ProviderID string                       `json:"provider_id,omitempty"`
	EntryID    string                       `json:"entry_id,omitempty"` // the outbox entry while sending
	Tries      int                          `json:"tries,omitempty"`
	DueAt      *time.Time                   `json:"due_at,omitempty"`  // queued again until then
	EchoBy     *time.Time                   `json:"echo_by,omitempty"` // outcome unknown: an echo is awaited until then
	By         string                       `json:"by,omitempty"`      // the agent who wrote it

	Buttons   []Button `json:"buttons,omitempty"`     // answers offered with it
	InReplyTo string   `json:"in_reply_to,omitempty"` // provider's id of the inbound message that it answers
	Cost      *Cost    `json:"cost,omitempty"`        // what the provider told of its price
	// Template says that it went, or must go, as an approved template.
	Template bool `json:"template,omitempty"`
	// Follows is the id of the message that it was sent instead of, or again
	// for; Resends counts those before it on the same channel.
	Follows    string     `json:"follows,omitempty"`
	FollowedBy string     `json:"followed_by,omitempty"`
	Resends    int        `json:"resends,omitempty"`
	FollowUpAt *time.Time `json:"follow_up_at,omitempty"` // when it is sent again, or by SMS if it has not arrived
	// FallBackBy is when SMS takes over if WhatsApp has not delivered by then,
	// however often it was sent again.
	FallBackBy *time.Time `json:"fall_back_by,omitempty"`
	// DoubtSince is when an earlier try's outcome was lost: that try may have
	// reached the customer.
	DoubtSince *time.Time `json:"doubt_since,omitempty"`
	Lost       int        `json:"lost,omitempty"` // sends whose outcome was lost
}

// ReasonText returns why a message has not gone out, in a sentence for the
// agent, and what we do about it by ourselves; "" if there is no reason.
func (m *Message) ReasonText() string {
	said := FailureReasons[m.Reason]
	if m.Reason == FailureUnknown && m.Lost > 0 && m.ErrorCode == "" {
		said = "The provider gave no answer; the customer may have got it all the same."
	}
	switch {
	case said == "":
		return ""
	case m.Status == DeliveryQueued:
		return said + " We try again by ourselves."
	case m.FollowedBy != "":
		return said + " Another message was sent in its place."
	case m.FollowUpAt != nil:
		return said + " We send it again by ourselves."
	}
	return said
}

// Button is an answer that a customer can press instead of writing it. ID
// comes back as Inbound.Button, at most 256 characters; Title is what the
// customer reads, at most 20.
type Button struct {
	ID    string `json:"id"`
	Title string `json:"title"`
}

// Cost is what a provider told of a message's price, as far as it did.
type Cost struct {
	Category string `json:"category,omitempty"` // the provider's own word: utility, service, marketing, …
	Type     string `json:"type,omitempty"`     // regular, free_customer_service, …; the provider's own word
	Free     bool   `json:"free,omitempty"`     // the provider said that it is not charged
	Units    int    `json:"units,omitempty"`    // segments that are charged, of an SMS
	Amount   string `json:"amount,omitempty"`   // decimal, positive
	Currency string `json:"currency,omitempty"` // ISO 4217
}

// with returns what is known of a cost after the provider told more.
func (c *Cost) with(more *Cost) *Cost {
	if more == nil {
		return c
	}
	merged := Cost{}
	if c != nil {
		merged = *c
	}
	merged.Category, merged.Type = cmp.Or(more.Category, merged.Category), cmp.Or(more.Type, merged.Type)
	merged.Units, merged.Amount = max(more.Units, merged.Units), cmp.Or(more.Amount, merged.Amount)
	merged.Currency, merged.Free = cmp.Or(more.Currency, merged.Currency), more.Free || merged.Free
	return &merged
}

// Standing says what a notice means for what is sent.
type Standing string

// The standings.
const (
	StandingUsable   Standing = "usable"
	StandingLimited  Standing = "limited"  // usable, and somebody should look: quality, a tier, a warning
	StandingUnusable Standing = "unusable" // not to be tried: rejected, paused, disabled, restricted
)

// NoticeSubject is what a notice is about.
type NoticeSubject string

// The subjects.
const (
	NoticeTemplate NoticeSubject = "template" // one template in one language
	NoticeQuality  NoticeSubject = "quality"  // the quality rating of a template
	NoticeCategory NoticeSubject = "category" // a template was put into another category
	NoticeNumber   NoticeSubject = "number"   // quality, name or throughput of the sender's number
	NoticeLimit    NoticeSubject = "limit"    // how many customers may be written to in a day
	NoticeAccount  NoticeSubject = "account"  // restriction, ban, review of the account
	NoticeOther    NoticeSubject = "other"    // for a person to read
)

// Notice is a provider's word about a sender or one of its templates.
type Notice struct {
	Subject  NoticeSubject `json:"subject"`
	Name     string        `json:"name,omitempty"`     // of the template
	Language string        `json:"language,omitempty"` // of the template, spelt as the provider does
	Standing Standing      `json:"standing"`
	Word     string        `json:"word"`             // the provider's own word for what happened, lower case: paused, rejected, tier_1k
	Detail   string        `json:"detail,omitempty"` // the provider's own word for why, lower case
	Until    *time.Time    `json:"until,omitempty"`  // when the standing ends by itself
	At       time.Time     `json:"at"`
}

// Parameters are the values that the text of a purpose shows, for providers
// whose templates take them one by one.
type Parameters struct {
	Merchant string `json:"merchant,omitempty"`
	Amount   string `json:"amount,omitempty"` // for people, such as "ZAR 149.00"
	Order    string `json:"order,omitempty"`
	LinkCode string `json:"link_code,omitempty"` // last part of the short link
	Link     string `json:"link,omitempty"`      // the whole short link
	Locale   string `json:"locale,omitempty"`
}

// Outbound is one message as a provider's adapter gets it. Template says that
// free text is not allowed now: the adapter uses the template that its
// settings name for Purpose, or fails with FailureTemplate.
type Outbound struct {
	MessageID   string
	Correlation string // opaque, comes back in statuses; at most 64 ASCII characters of [0-9a-z_.]
	SenderID    string
	Channel     Channel
	To          Address
	Purpose     Purpose
	Template    bool
	Text        string
	Parameters  Parameters

	// Buttons are answers to offer; a provider without them leaves them out.
	Buttons []Button
	// InReplyTo is the provider's id of the inbound message that this answers,
	// or "".
	InReplyTo string
	// Doubt is when the outcome of an earlier try was lost. A provider that can
	// be asked is asked before the message is sent again.
	Doubt *time.Time
}

// Sent is a provider's word that it accepted a message.
type Sent struct {
	ProviderID string
	Status     DeliveryStatus // DeliveryAccepted unless the provider said more
	Addresses  []Address      // further addresses of the contact that it told
	Cost       *Cost          // what it told of the price
}

// InboundKind tells what a provider reports.
type InboundKind string

// The kinds of report.
const (
	InboundText    InboundKind = "text"    // Text
	InboundButton  InboundKind = "button"  // Button (payload) and Text (label)
	InboundMedia   InboundKind = "media"   // MediaType
	InboundOther   InboundKind = "other"   // anything else a person sent; MediaType names it
	InboundStatus  InboundKind = "status"  // Status, Reason, ErrorCode of an earlier message
	InboundConsent InboundKind = "consent" // the provider handled an opt-out (Consent) itself
	InboundAddress InboundKind = "address" // the contact has further addresses
	InboundAccount InboundKind = "account" // about the merchant's account, in Notice; without one counted and logged only
	// InboundIdentity says that the customer's identity keys changed: it may be
	// another person, who must be verified before anything is shown to them.
	InboundIdentity InboundKind = "identity"
)

// Inbound is one report of a provider, as its adapter's Parse returns it.
type Inbound struct {
	Kind        InboundKind
	SenderID    string    // which of the merchant's senders; empty: unknown, counted
	ProviderID  string    // the provider's id of the message, the de-duplication key with Kind and Status
	Addresses   []Address // the customer's, in the order phone, user, parent user
	Name        string    // the customer's profile name
	Correlation string    // what Outbound.Correlation was, if it came back
	At          time.Time // the provider's time, or that of receipt; UTC
	Text        string
	Button      string
	MediaType   string
	Status      DeliveryStatus
	Reason      FailureReason
	ErrorCode   string
	Consent     Consent
	Previous    Address // of InboundAddress: the address that this one replaces
	Cost        *Cost   // of a status
	// Lasting says of a failed status that the same message will not get through
	// on this channel soon; HoldFor, that the whole sender should wait so long.
	Lasting bool
	HoldFor time.Duration
	Notice  *Notice // of InboundAccount
}
