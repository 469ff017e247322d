package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"paythread/conversations"
	"paythread/gateway/providers"
)

var (
	senderTag = []string{"Senders"}

	listSendersOperation = huma.Operation{
		OperationID: "list-senders", Method: http.MethodGet, Path: "/v1/senders", Tags: senderTag,
		Summary: "List the senders", Description: "The merchant's identities at the messaging companies, and how each of them stands. For servers, and for agent sessions with the grant read_all.", Errors: []int{401, 403, 503},
	}
	getSenderOperation = huma.Operation{
		OperationID: "get-sender", Method: http.MethodGet, Path: "/v1/senders/{id}", Tags: senderTag,
		Summary: "Read a sender", Description: "For servers, and for agent sessions with the grant read_all.", Errors: []int{401, 403, 404, 503},
	}
)

// SenderDocument is a sender as the API shows it: none of its settings.
type SenderDocument struct {
	ID       string                 `json:"id" example:"acme-whatsapp" doc:"As configured."`
	Channel  conversations.Channel  `json:"channel" enum:"whatsapp,sms" doc:"What it sends by."`
	Provider string                 `json:"provider" example:"meta" doc:"The messaging company."`
	Standing conversations.Standing `json:"standing" enum:"usable,limited,unusable" doc:"limited: messages go, and somebody should look. unusable: messages fail, and those about a payment request go by another channel where the merchant lets them."`
	Text     string                 `json:"text" example:"Messages are sent as usual." doc:"The standing as a sentence for people."`
	Hold     *HoldDocument          `json:"hold,omitempty" doc:"Missing while nothing is held back."`
	Notices  []NoticeDocument       `json:"notices" doc:"What the company said last of the account, the number, its limits and each template; newest first."`
	Limits   LimitsDocument         `json:"limits"`
}

// HoldDocument says that all messages of a sender are held back for a while.
type HoldDocument struct {
	Reason conversations.FailureReason `json:"reason" example:"rate" doc:"Why, a stable word."`
	Code   string                      `json:"code,omitempty" example:"131048" doc:"The company's own."`
	Until  time.Time                   `json:"until" doc:"When sending is tried again."`
	Fails  bool                        `json:"fails" doc:"Messages fail meanwhile instead of waiting, because waiting would not help."`
	Text   string                      `json:"text" doc:"A sentence for people."`
}

// NoticeDocument is a company's word about a sender.
type NoticeDocument struct {
	Subject  conversations.NoticeSubject `json:"subject" enum:"template,quality,category,number,limit,account,other" doc:"What it is about: a template; a template's quality or category; the number; how many customers may be written to in a day; the account; anything else."`
	Name     string                      `json:"name,omitempty" example:"payment_request" doc:"Of the template."`
	Language string                      `json:"language,omitempty" example:"en" doc:"Of the template, as the company spells it."`
	Standing conversations.Standing      `json:"standing" enum:"usable,limited,unusable" doc:"What the notice says of its subject."`
	Word     string                      `json:"word" example:"paused" doc:"The company's own word for what happened."`
	Detail   string                      `json:"detail,omitempty" example:"first_pause" doc:"The company's own word for why."`
	At       time.Time                   `json:"at" doc:"When it was told."`
	Until    *time.Time                  `json:"until,omitempty" doc:"When it ends by itself, if the company said so."`
	Ended    bool                        `json:"ended" doc:"until has passed: it changes nothing any more."`
	Text     string                      `json:"text" doc:"A sentence for people."`
}

// LimitsDocument is how fast a sender may send.
type LimitsDocument struct {
	PerSecond   float64 `json:"per_second" example:"80" doc:"Messages of the sender; 0: not limited."`
	Burst       int     `json:"burst" example:"8" doc:"Of them at once."`
	PairSeconds float64 `json:"pair_seconds,omitempty" example:"6" doc:"Seconds between two messages to one customer, once the burst is used up."`
	PairBurst   int     `json:"pair_burst,omitempty" example:"45" doc:"Messages to one customer at once."`
}

type sendersOutput struct {
	Body struct {
		Items []*SenderDocument `json:"items" doc:"All of the merchant's."`
	} `nameHint:"SenderList"`
}

// listSenders answers GET /v1/senders.
func (a *api) listSenders(ctx context.Context, _ *struct{}) (*sendersOutput, error) {
	c := callOf(ctx)
	if err := c.needs(grantReadAll); err != nil {
		return nil, err
	}
	out := &sendersOutput{}
	out.Body.Items = []*SenderDocument{}
	for _, s := range c.merchant.Senders {
		d, err := a.senderDocument(ctx, s)
		if err != nil {
			return nil, err
		}
		out.Body.Items = append(out.Body.Items, d)
	}
	return out, nil
}

type senderInput struct {
	ID string `path:"id" doc:"Of the sender, as configured." example:"acme-whatsapp"`
}

type senderOutput struct {
	Body *SenderDocument
}

// getSender answers GET /v1/senders/{id}.
func (a *api) getSender(ctx context.Context, in *senderInput) (*senderOutput, error) {
	c := callOf(ctx)
	if err := c.needs(grantReadAll); err != nil {
		return nil, err
	}
	for _, s := range c.merchant.Senders {
		if s.ID == in.ID {
			d, err := a.senderDocument(ctx, s)
			return &senderOutput{d}, err
		}
	}
	return nil, conversations.NotFound("sender")
}

func (a *api) senderDocument(ctx context.Context, s *SenderConfig) (*SenderDocument, error) {
	state, err := a.store.SenderState(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	now := a.store.Now()
	d := &SenderDocument{ID: s.ID, Channel: s.Channel, Provider: s.Provider, Notices: []NoticeDocument{}, Limits: limitsDocument(limitsInForce(s))}
	d.Standing, d.Text = standingOf(s, state, now)
	if h := state.Hold; h != nil {
		d.Hold = &HoldDocument{Reason: h.Reason, Code: h.Code, Until: h.Until, Fails: h.Fail, Text: holdText(*h)}
	}
	for _, n := range state.Notices {
		d.Notices = append(d.Notices, NoticeDocument{
			Subject: n.Subject, Name: n.Name, Language: n.Language, Standing: n.Standing, Word: n.Word, Detail: n.Detail, At: n.At, Until: n.Until,
			Ended: ended(n, now), Text: noticeText(n),
		})
	}
	return d, nil
}

func limitsDocument(l providers.Limits) LimitsDocument {
	return LimitsDocument{PerSecond: l.PerSecond, Burst: l.Burst, PairSeconds: l.PairEvery.Seconds(), PairBurst: l.PairBurst}
}

// limitsInForce returns how fast a sender may send: as its configuration says,
// else as the provider's documents do.
func limitsInForce(s *SenderConfig) providers.Limits {
	r, _ := providerNamed(s.Provider) // a sender of no provider has no limits
	l := r.Limits[s.Channel]
	if s.PerSecond > 0 {
		l.PerSecond = float64(s.PerSecond)
		l.Burst = max(1, min(l.Burst, s.PerSecond))
	}
	return l
}

// ended tells that a notice was for a time that has passed.
func ended(n conversations.Notice, now time.Time) bool {
	return n.Until != nil && !now.Before(*n.Until)
}

// standingOf says how a sender stands, with the sentence that explains it. A
// template that the sender does not use does not count.
func standingOf(s *SenderConfig, state conversations.SenderState, now time.Time) (conversations.Standing, string) {
	if h := state.Hold; h != nil && h.Fail {
		return conversations.StandingUnusable, holdText(*h)
	}
	limited := ""
	for _, n := range state.Notices {
		if ended(n, now) || !concerns(n, s) {
			continue
		}
		switch {
		case n.Standing == conversations.StandingUnusable && stopsAll(n.Subject):
			return conversations.StandingUnusable, noticeText(n)
		case n.Standing == conversations.StandingUnusable, n.Standing == conversations.StandingLimited && limited == "":
			limited = noticeText(n)
		}
	}
	switch {
	case state.Hold != nil:
		return conversations.StandingLimited, holdText(*state.Hold)
	case limited != "":
		return conversations.StandingLimited, limited
	}
	return conversations.StandingUsable, "Messages are sent as usual."
}

// stopsAll tells that nothing can be sent while this is unusable.
func stopsAll(s conversations.NoticeSubject) bool {
	return s == conversations.NoticeAccount || s == conversations.NoticeNumber
}

// concerns tells that a notice is not about a template that the sender does
// not name in its settings.
func concerns(n conversations.Notice, s *SenderConfig) bool {
	if n.Name == "" {
		return true
	}
	for _, v := range s.Settings {
		// One name, or one for each language: en=NAME, de=NAME.
		if slices.Contains(strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(",= ", r) }), n.Name) {
			return true
		}
	}
	return false
}

// holdText is what people read about a hold.
func holdText(h conversations.Hold) string {
	what := "Messages wait"
	if h.Fail {
		what = "Messages are not sent"
	}
	return fmt.Sprintf("%s until %s. %s", what, moment(h.Until), heldBecause[h.Reason].or(conversations.FailureReasons[h.Reason]))
}

// because is a reason in words; some hold a sender for another cause than they
// fail a message.
type because string

func (b because) or(other string) string {
	if b != "" {
		return string(b)
	}
	return other
}

// heldBecause says why a sender is held, where the sentence for one message
// does not fit.
var heldBecause = map[conversations.FailureReason]because{
	conversations.FailureAuth:          "The provider refuses our credentials.",
	conversations.FailureAccount:       "The provider has restricted our account, or wants to be paid.",
	conversations.FailureRate:          "The provider asked us to send less.",
	conversations.FailureProviderError: "The provider has a fault.",
	conversations.FailurePolicyLimit:   "The provider's policy holds this sender back.",
	conversations.FailureUnknown:       "The provider refuses our messages.",
	conversations.FailureSenderConfig:  "This sender is not set up right at the provider.",
}

// moment is a time as people read it; the API's own fields have it exactly.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// templateTexts are what people read about a template's status, behind its
// name.
var templateTexts = map[string]string{
	"approved":         "is approved",
	"reinstated":       "may be used again",
	"unpaused":         "may be used again",
	"flagged":          "gets bad feedback and may be paused soon",
	"locked":           "can be sent and not be changed",
	"pending":          "is being reviewed and cannot be sent yet",
	"in_appeal":        "was rejected and is being reviewed again",
	"rejected":         "was rejected",
	"paused":           "is paused because of bad feedback",
	"disabled":         "is disabled for good",
	"archived":         "is archived and cannot be sent",
	"pending_deletion": "is being deleted",
	"deleted":          "is deleted",
}

// noticeText is what people read about a notice.
func noticeText(n conversations.Notice) string {
	var b strings.Builder
	template := "The template " + n.Name + " (" + n.Language + ")"
	word, detail := inWords(n.Word), inWords(n.Detail)
	switch n.Subject {
	case conversations.NoticeTemplate:
		said, ok := templateTexts[n.Word]
		if !ok {
			said = "is " + word
		}
		b.WriteString(template + " " + said + ".")
		if n.Standing == conversations.StandingUnusable {
			b.WriteString(" Customers who have not written in the last 24 hours do not get what it says.")
		}
	case conversations.NoticeQuality:
		b.WriteString("The quality of the template " + n.Name + " (" + n.Language + ") is " + word + ".")
	case conversations.NoticeCategory:
		b.WriteString(template + " is in the category " + word + " now.")
		if n.Standing != conversations.StandingUsable {
			b.WriteString(" It costs more, and not every customer gets it.")
		}
	case conversations.NoticeLimit:
		b.WriteString("New customers that may be written to in 24 hours: " + word + ".")
	case conversations.NoticeNumber:
		b.WriteString("Of the number the provider says: " + word + ".")
	case conversations.NoticeAccount:
		b.WriteString("Of the account the provider says: " + word + ".")
		if n.Standing == conversations.StandingUnusable {
			b.WriteString(" Nothing can be sent.")
		}
	default:
		b.WriteString("The provider says: " + word + ".")
	}
	if detail != "" {
		b.WriteString(" " + detailName(n.Subject) + ": " + detail + ".")
	}
	if n.Until != nil {
		b.WriteString(" Until " + moment(*n.Until) + ".")
	}
	return b.String()
}

// detailName is what the detail of a notice is.
func detailName(s conversations.NoticeSubject) string {
	if slices.Contains([]conversations.NoticeSubject{conversations.NoticeQuality, conversations.NoticeCategory}, s) {
		return "Before"
	}
	return "Detail"
}

// inWords writes a company's word as people do.
func inWords(s string) string { return strings.ReplaceAll(s, "_", " ") }
