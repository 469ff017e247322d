package main

import (
	"context"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"paythread/conversations"
)

// sessionOrder is the order that a server seals.
type sessionOrder struct {
	OrderFields
	Phone        string `json:"phone,omitempty" maxLength:"40" example:"082 123 4567" doc:"The customer's; the agent may correct it."`
	Country      string `json:"country,omitempty" maxLength:"2" example:"ZA" doc:"ISO 3166 alpha-2, for a national phone number; missing: the merchant's."`
	CustomerName string `json:"customer_name,omitempty" maxLength:"120" doc:"Who is asked, for the agents' eyes, until the customer's own name is known."`
	// Extra stays on the server: the agent's browser neither sends nor sees it.
	Extra map[string]string `json:"extra,omitempty" example:"{\"branch\":\"Paarl\"}" doc:"Your own data for the payment request, returned to your servers as it came; the agent does not see it. At most 20 entries with names of at most 40 and values of at most 500 characters."`
}

// TransformSchema is asked by huma: what OrderFields leave open is required here.
func (sessionOrder) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Required = append(s.Required, "order", "subtotal", "tax", "total")
	return s
}

type sessionInput struct {
	Idempotent
	Body struct {
		Agent       *sessionAgent `json:"agent,omitempty" doc:"Who works in the browser, for the record."`
		Order       *sessionOrder `json:"order,omitempty" doc:"The order to seal."`
		SealedOrder string        `json:"sealed_order,omitempty" maxLength:"64" example:"so_00k3v9m2x7c1d5f8g4h6" doc:"Instead of order: the one sealed before, to renew its token."`
		TTL         *int64        `json:"ttl_seconds,omitempty" minimum:"60" maximum:"604800" example:"1800" doc:"How long the token is good; missing: the configured default."`
		Grants      []string      `json:"grants,omitempty" maxItems:"8" doc:"Rights beyond the order: read_all (read, list and follow every payment request of the merchant, read its conversations, see its senders), act_all (cancel, resend and extend them, write to customers, take conversations over), operate (capture, reverse and refund the payment request that holds the order; with act_all, every one)."`
	} `nameHint:"AgentSessionBody"`
}

type sessionOutput struct {
	Body struct {
		Token       string    `json:"token" doc:"For the agent's browser: Authorization: Bearer."`
		ExpiresAt   time.Time `json:"expires_at" doc:"When the token ends; renew it before."`
		SealedOrder string    `json:"sealed_order" example:"so_00k3v9m2x7c1d5f8g4h6" doc:"Keep it with the order: it renews the token."`
	} `nameHint:"AgentSession"`
}

// createSession answers POST /v1/agent-sessions. A repeat finds the same sealed
// order; that it gets another token, with a time of its own, harms nobody.
func (a *api) createSession(ctx context.Context, in *sessionInput) (*sessionOutput, error) {
	c, b := callOf(ctx), in.Body
	if err := c.needsKey(); err != nil {
		return nil, err
	}
	claims := sessionClaims{MerchantID: c.merchant.ID, Agent: b.Agent}
	for i, g := range b.Grants {
		if !slices.Contains(grants, grant(g)) {
			return nil, conversations.Invalid("grants["+itoa(i)+"]", "there is no such grant; use %s, %s or %s", grantReadAll, grantActAll, grantOperate)
		}
		claims.Grants = append(claims.Grants, grant(g))
	}
	settings := a.config().AgentSessions
	ttl := settings.TTL
	if b.TTL != nil {
		if ttl = seconds(b.TTL); ttl > settings.MaxTTL || ttl < 0 {
			return nil, conversations.Invalid("ttl_seconds", "the most is %d", int64(settings.MaxTTL.Seconds()))
		}
	}
	sealed, err := a.seal(ctx, c, b.Order, b.SealedOrder)
	if err != nil {
		return nil, err
	}
	claims.SealedOrder = sealed.ID
	out := &sessionOutput{}
	out.Body.SealedOrder = sealed.ID
	out.Body.Token, out.Body.ExpiresAt, err = a.sessions.Mint(claims, ttl)
	return out, err
}

// seal keeps a new order, or finds the one whose session is renewed.
func (a *api) seal(ctx context.Context, c *call, o *sessionOrder, renew string) (*conversations.SealedOrder, error) {
	if (o == nil) == (renew == "") {
		return nil, conversations.Invalid("order", "send either order, or sealed_order to renew")
	}
	if renew != "" {
		return a.store.Renew(ctx, c.merchant.ID, renew, c.once())
	}
	order, wrong := o.order("order.")
	if len(wrong) > 0 {
		return nil, invalid(wrong)
	}
	sealed, err := a.store.Seal(ctx, conversations.SealedOrder{
		MerchantID: c.merchant.ID, Order: order, Phone: o.Phone, Country: o.Country, CustomerName: o.CustomerName, Extra: o.Extra,
	}, c.once())
	if e := fieldError(err); e != nil && e.Field != "" && !slices.Contains(headerFields, e.Field) {
		inOrder := *e
		inOrder.Field = "order." + e.Field
		return nil, &inOrder
	}
	return sealed, err
}

// SealedOrderDocument is a sealed order as the panel shows it.
type SealedOrderDocument struct {
	ID             string                  `json:"id" example:"so_00k3v9m2x7c1d5f8g4h6" doc:"Names it in calls."`
	Order          string                  `json:"order" example:"1042" doc:"The merchant's order number."`
	LineItems      []LineItem              `json:"line_items" doc:"What is paid for."`
	Subtotal       Amount                  `json:"subtotal"`
	Tax            Amount                  `json:"tax"`
	Shipping       Amount                  `json:"shipping"`
	Discount       Amount                  `json:"discount"`
	Total          Amount                  `json:"total"`
	Phone          string                  `json:"phone" example:"+27821234567" doc:"As it was handed over, in E.164 where it could be read."`
	PhoneNational  string                  `json:"phone_national" example:"082 123 4567" doc:"The same as people write it in the country."`
	Country        string                  `json:"country" example:"ZA" doc:"That national phone numbers are read as one of, ISO 3166 alpha-2."`
	CustomerName   string                  `json:"customer_name,omitempty" doc:"As it was handed over."`
	Merchant       MerchantDocument        `json:"merchant"`
	Environment    string                  `json:"environment" enum:"sandbox,production" doc:"sandbox: no money moves. Or production."`
	Channels       []ChannelDocument       `json:"channels" doc:"By which the customer could be written to."`
	PaymentRequest *PaymentRequestDocument `json:"payment_request"`
}

// TransformSchema is asked by huma, which cannot say by itself that an object
// may be null.
func (SealedOrderDocument) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["payment_request"] = &huma.Schema{
		Description: "The one that holds the order, or null.", OneOf: []*huma.Schema{s.Properties["payment_request"], {Type: "null"}},
	}
	return s
}

// ChannelDocument says whether a channel can be used for a customer.
type ChannelDocument struct {
	Channel   conversations.Channel `json:"channel" enum:"whatsapp,sms" doc:"Which one."`
	Available bool                  `json:"available" doc:"Whether a message could be sent by it now."`
	Reason    string                `json:"reason,omitempty" enum:"no_sender,opted_out,sender_unusable,sender_held" doc:"Why not. With available: why another channel is better now. sender_unusable: the company takes no messages, and they fail or go by the other channel; sender_held: they wait."`
}

type sealedOrderInput struct {
	ID string `path:"id" doc:"Of the sealed order." example:"so_00k3v9m2x7c1d5f8g4h6"`
}

type sealedOrderOutput struct {
	Body *SealedOrderDocument
}

// getSealedOrder answers GET /v1/sealed-orders/{id}.
func (a *api) getSealedOrder(ctx context.Context, in *sealedOrderInput) (*sealedOrderOutput, error) {
	c := callOf(ctx)
	if c.session != nil && c.session.SealedOrder != in.ID {
		return nil, conversations.NotFound("sealed order")
	}
	o, err := a.store.Sealed(ctx, c.merchant.ID, in.ID)
	if err != nil {
		return nil, err
	}
	phone, national := phoneForms(o.Phone, o.Country)
	d := &SealedOrderDocument{
		ID: o.ID, Order: o.Order.Reference, LineItems: lineItems(o.Order.LineItems), Subtotal: amountOf(o.Order.Subtotal), Tax: amountOf(o.Order.Tax),
		Shipping: amountOf(o.Order.Shipping), Discount: amountOf(o.Order.Discount), Total: amountOf(o.Order.Total),
		Phone: phone, PhoneNational: national, Country: o.Country, CustomerName: o.CustomerName,
		Merchant: MerchantDocument{c.merchant.ID, c.merchant.Name}, Environment: environment(c.merchant.Sandbox),
	}
	if d.Channels, err = a.channels(ctx, c, phone); err != nil {
		return nil, err
	}
	r, err := a.store.RequestByOrder(ctx, c.merchant.ID, o.Order.Reference)
	switch {
	case conversations.CodeOf(err) == conversations.CodeNotFound: // nobody has asked yet
	case err != nil:
		return nil, err
	default:
		if d.PaymentRequest, err = a.document(ctx, c, r); err != nil {
			return nil, err
		}
	}
	return &sealedOrderOutput{d}, nil
}

// channels says which channels can be used for a phone number, and which of
// them stand badly at the moment.
func (a *api) channels(ctx context.Context, c *call, phone string) ([]ChannelDocument, error) {
	consent, err := a.store.ConsentOf(ctx, c.merchant.ID, phone)
	if err != nil {
		return nil, err
	}
	senders := c.merchant.Domain().Senders
	var out []ChannelDocument
	for _, channel := range conversations.Channels {
		d := ChannelDocument{Channel: channel}
		switch {
		case senders[channel] == "":
			d.Reason = "no_sender"
		case consent[channel] == conversations.ConsentOptedOut:
			d.Reason = "opted_out"
		default:
			d.Available = true
			if d.Reason, err = a.senderTrouble(ctx, c.merchant, senders[channel]); err != nil {
				return nil, err
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// senderTrouble says what keeps a sender's messages from going at once; empty
// if nothing does.
func (a *api) senderTrouble(ctx context.Context, m *MerchantConfig, id string) (string, error) {
	state, err := a.store.SenderState(ctx, id)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(m.Senders, func(s *SenderConfig) bool { return s.ID == id })
	switch standing, _ := standingOf(m.Senders[i], state, a.store.Now()); {
	case standing == conversations.StandingUnusable:
		return "sender_unusable", nil
	case state.Hold != nil:
		return "sender_held", nil
	}
	return "", nil
}

type previewInput struct {
	Idempotent
	Body struct {
		Channel string  `json:"channel" enum:"whatsapp,sms" doc:"What it goes by."`
		Phone   *string `json:"phone,omitempty" maxLength:"40" doc:"Checked if it is there."`
		Locale  *string `json:"locale,omitempty" maxLength:"35" example:"de-AT" doc:"Missing: the merchant's. One without texts of its own falls back to its language (de-AT: de), and then to English."`
	} `nameHint:"MessagePreviewBody"`
}

type previewOutput struct {
	Body struct {
		Channel     conversations.Channel     `json:"channel" enum:"whatsapp,sms" doc:"What it goes by."`
		Text        string                    `json:"text" doc:"As the customer reads it. SMS: with typographic characters replaced where that makes it cheaper. WhatsApp: above the button; the shipped body, which the approved template may differ from."`
		Button      string                    `json:"button,omitempty" example:"Pay securely" doc:"WhatsApp: the button that carries the link."`
		Encoding    conversations.SMSEncoding `json:"encoding,omitempty" enum:"gsm7,ucs2" doc:"SMS: how it is written on the wire."`
		Segments    int                       `json:"segments,omitempty" doc:"SMS: in how many parts it goes."`
		Units       int                       `json:"units,omitempty" doc:"SMS: septets or 16-bit units."`
		CostUnits   int                       `json:"cost_units" example:"1" doc:"How many messages a company charges for it: each part of an SMS, one on WhatsApp whatever its length."`
		OutsideGSM7 []string                  `json:"outside_gsm7,omitempty" doc:"SMS: the characters for which it is ucs2, with 70 characters to a part instead of 160; invisible ones as U+202E. Without them it would be gsm7."`
	} `nameHint:"MessagePreview"`
}

// sampleCode has the length of a real link code.
const sampleCode = "sample00000000"

// previewMessage answers POST /v1/message-previews. An API key has no order at
// hand and gets a sample of one.
func (a *api) previewMessage(ctx context.Context, in *previewInput) (*previewOutput, error) {
	c, b := callOf(ctx), in.Body
	country, total, order := c.merchant.Country, c.merchant.sampleAmount(14900), "1042"
	if c.session != nil {
		sealed, err := a.store.Sealed(ctx, c.merchant.ID, c.session.SealedOrder)
		if err != nil {
			return nil, err
		}
		country, total, order = sealed.Country, sealed.Order.Total, sealed.Order.Reference
	}
	if b.Phone != nil {
		if _, _, err := conversations.ParsePhone(*b.Phone, country); err != nil {
			return nil, err
		}
	}
	locale := c.merchant.Locale
	if b.Locale != nil && *b.Locale != "" {
		locale = *b.Locale
	}
	out := &previewOutput{}
	out.Body.Channel = conversations.Channel(b.Channel)
	out.Body.Text = c.merchant.Domain().Text(out.Body.Channel, conversations.PurposePayment, conversations.Parameters{
		Merchant: c.merchant.Name, Amount: total.String(), Order: order, LinkCode: sampleCode, Link: c.merchant.PublicURL + "/p/" + sampleCode, Locale: locale,
	})
	if out.Body.Channel == conversations.WhatsApp {
		out.Body.Button, out.Body.CostUnits = conversations.LinkButton(conversations.PurposePayment, locale), 1
		return out, nil
	}
	s := conversations.Segments(out.Body.Text)
	out.Body.Encoding, out.Body.Units, out.Body.Segments, out.Body.CostUnits = s.Encoding, s.Units, s.Parts, s.Parts
	out.Body.OutsideGSM7 = conversations.OutsideGSM(out.Body.Text)
	return out, nil
}
