package meta

import (
	"encoding/json"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// said is the value of a change about the account, read leniently: of the
// members that matter, several have been documented in one form and seen in
// another.
type said map[string]json.RawMessage

// at returns the text of a member, or of a member of a member. What is not
// there, or neither text nor number, is "".
func (v said) at(path ...string) string {
	for _, name := range path[:len(path)-1] {
		inner, err := providers.Object(v[name])
		if err != nil {
			return ""
		}
		v = inner
	}
	return text(v[path[len(path)-1]])
}

// first returns the first of several members that is there.
func (v said) first(paths ...[]string) string {
	for _, path := range paths {
		if s := v.at(path...); s != "" {
			return s
		}
	}
	return ""
}

// notices are the fields that tell of the account, the number or its templates:
// for the people who run the sender, and for what is sent. What a field says
// becomes a notice, or nil where it cannot be told what it is about; the change
// is then counted only. at is the time of the event.
var notices = map[string]func(v said, at time.Time) *conversations.Notice{
	"account_alerts":                  alert,
	"account_review_update":           review,
	"account_update":                  accountUpdate,
	"business_capability_update":      capability,
	"business_username_updates":       other("status"),
	"message_template_quality_update": templateQuality,
	"message_template_status_update":  templateStatus,
	"payment_configuration_update":    other("status"),
	"phone_number_name_update":        numberName,
	"phone_number_quality_update":     numberQuality,
	"security":                        security,
	"template_category_update":        templateCategory,
}

// notice reports one change about the account.
func (b *batch) notice(sender, field, waba, at string, raw json.RawMessage, value said, read func(said, time.Time) *conversations.Notice) {
	in := conversations.Inbound{
		Kind: conversations.InboundAccount, SenderID: sender, MediaType: field, Text: word(value.at("event")),
		ProviderID: providers.Digest(field, waba, at, string(raw)), At: b.time(providers.Loose(at)),
	}
	if number, ok := providers.Phone(value.at("display_phone_number")); ok && b.p.number != "" && number.Value != b.p.number {
		in.SenderID = "" // another number of the account
	}
	if n := read(value, in.At); n != nil {
		n.At = in.At
		in.Notice = n
	}
	b.add(in)
}

// word is a word of Meta's in lower case, or "" where there is none.
func word(s string) string {
	if s == "" {
		return ""
	}
	return providers.Word(s)
}

// templateStandings are the events of message_template_status_update.
var templateStandings = map[string]conversations.Standing{
	"approved":         conversations.StandingUsable,
	"reinstated":       conversations.StandingUsable, // no longer flagged or disabled
	"unpaused":         conversations.StandingUsable,
	"unarchived":       conversations.StandingUsable,
	"flagged":          conversations.StandingLimited, // bad feedback, at risk of being disabled
	"locked":           conversations.StandingLimited, // cannot be edited; it can be sent
	"limit_exceeded":   conversations.StandingLimited, // the account has as many templates as it may
	"pending":          conversations.StandingUnusable,
	"in_appeal":        conversations.StandingUnusable,
	"rejected":         conversations.StandingUnusable,
	"paused":           conversations.StandingUnusable, // bad feedback: for 3 hours, then for 6
	"disabled":         conversations.StandingUnusable, // after that for good
	"archived":         conversations.StandingUnusable,
	"pending_deletion": conversations.StandingUnusable,
	"deleted":          conversations.StandingUnusable,
}

// pauses are how long the pauses last that other_info.title names. One for
// rate limiting has no documented end.
var pauses = map[string]time.Duration{
	"first_pause":  3 * time.Hour,
	"second_pause": 6 * time.Hour,
}

// templateOf begins the notice of a template in a language, or is nil when the
// change does not name one.
func templateOf(v said, subject conversations.NoticeSubject) *conversations.Notice {
	name, language := v.at("message_template_name"), languageOf(v.at("message_template_language"))
	if !templateName.MatchString(name) || language == "" {
		return nil
	}
	return &conversations.Notice{Subject: subject, Name: name, Language: language}
}

func templateStatus(v said, at time.Time) *conversations.Notice {
	n := templateOf(v, conversations.NoticeTemplate)
	if n == nil {
		return nil
	}
	n.Word = providers.Word(v.at("event"))
	title := word(v.at("other_info", "title"))
	if n.Detail = title; title == "" {
		n.Detail = word(v.first([]string{"reason"}, []string{"rejection_info", "reason"}))
	}
	if n.Detail == "none" { // the reason of every pause
		n.Detail = ""
	}
	switch standing, known := templateStandings[n.Word]; {
	case known && n.Word == "paused" && title == "unpause": // how an end of a pause may be told
		n.Standing = conversations.StandingUsable
	case known:
		n.Standing = standing
	default: // a new event: somebody should look, and it is tried all the same
		n.Standing = conversations.StandingLimited
	}
	if d := pauses[title]; d > 0 && n.Standing == conversations.StandingUnusable {
		end := at.Add(d)
		n.Until = &end
	}
	return n
}

func templateQuality(v said, _ time.Time) *conversations.Notice {
	n := templateOf(v, conversations.NoticeQuality)
	if n == nil {
		return nil
	}
	n.Word, n.Detail = providers.Word(v.at("new_quality_score")), word(v.at("previous_quality_score"))
	switch n.Standing = conversations.StandingUsable; n.Word {
	case "yellow", "red":
		n.Standing = conversations.StandingLimited
	}
	return n
}

func templateCategory(v said, _ time.Time) *conversations.Notice {
	n := templateOf(v, conversations.NoticeCategory)
	if n == nil {
		return nil
	}
	n.Word = providers.Word(v.first([]string{"new_category"}, []string{"correct_category"}))
	n.Detail = word(v.at("previous_category"))
	n.Standing = conversations.StandingUsable
	if n.Word == "marketing" { // another price, limits per customer, opt-outs of its own
		n.Standing = conversations.StandingLimited
	}
	return n
}

// blocks are the restrictions under which nothing of ours is delivered.
// Others, such as on adding numbers, do not touch what is sent.
var blocks = map[string]bool{
	"restricted_biz_initiated_messaging":      true,
	"restricted_customer_initiated_messaging": true, // no answer to customers either
}

// bans are the words of ban_info.waba_ban_state.
var bans = map[string]conversations.Standing{
	"disable":              conversations.StandingUnusable,
	"schedule_for_disable": conversations.StandingLimited, // still works, and will not
	"reinstate":            conversations.StandingUsable,
}

// accountUpdate reads account_update. Only what forbids sending, or allows it
// again, is a notice of the account; all else must not cover such a one and is
// of subject other.
func accountUpdate(v said, at time.Time) *conversations.Notice {
	n := &conversations.Notice{Subject: conversations.NoticeOther, Standing: conversations.StandingUsable, Word: providers.Word(v.at("event"))}
	switch n.Word {
	case "account_restriction":
		restriction(n, v, at)
	case "disabled_update":
		n.Detail = word(v.at("ban_info", "waba_ban_state"))
		n.Standing = conversations.StandingLimited
		if standing, known := bans[n.Detail]; known {
			n.Subject, n.Standing = conversations.NoticeAccount, standing
		}
	case "account_deleted":
		n.Subject, n.Standing = conversations.NoticeAccount, conversations.StandingUnusable
	case "account_violation":
		n.Standing, n.Detail = conversations.StandingLimited, word(v.at("violation_info", "violation_type"))
	case "partner_removed", "partner_app_uninstalled", "account_offboarded":
		n.Standing = conversations.StandingLimited // perhaps ours was; sends will say
	case "partner_client_certification_status_update":
		n.Detail = word(v.at("partner_client_certification_info", "status"))
	}
	return n
}

// restriction fills in the notice of one or several restrictions. It ends when
// the last one ends that forbids sending; one that has ended forbids nothing.
func restriction(n *conversations.Notice, v said, at time.Time) {
	n.Standing = conversations.StandingLimited
	list, err := providers.List(v["restriction_info"])
	if err != nil {
		return // the restriction is told all the same, without its kind
	}
	var ends []*time.Time
	for _, raw := range list {
		one, err := providers.Object(raw)
		if err != nil {
			continue
		}
		kind := word(text(one["restriction_type"]))
		end, ok := moment(text(one["expiration"]))
		switch {
		case !blocks[kind]:
			if n.Detail == "" {
				n.Detail = kind
			}
			continue
		case ok:
			ends = append(ends, &end)
		default:
			ends = append(ends, nil)
		}
		if n.Standing != conversations.StandingUnusable {
			n.Subject, n.Standing, n.Detail = conversations.NoticeAccount, conversations.StandingUnusable, kind
		}
	}
	for i, end := range ends {
		switch {
		case end == nil:
			n.Until = nil
			return
		case i == 0 || end.After(*n.Until):
			n.Until = end
		}
	}
	if n.Until != nil && !n.Until.After(at) {
		n.Standing, n.Until = conversations.StandingUsable, nil
	}
}

// review reads account_review_update. A rejected review is for a person: that
// it stops messages by itself is documented nowhere.
func review(v said, _ time.Time) *conversations.Notice {
	n := &conversations.Notice{Subject: conversations.NoticeOther, Standing: conversations.StandingLimited, Word: "review_" + providers.Word(v.at("decision"))}
	if n.Word == "review_approved" {
		n.Standing = conversations.StandingUsable
	}
	return n
}

// alert reads account_alerts, whose members have been seen both in alert_info
// and beside it.
func alert(v said, _ time.Time) *conversations.Notice {
	member := func(name string) string {
		return v.first([]string{"alert_info", name}, []string{name})
	}
	severity := word(member("alert_severity"))
	n := &conversations.Notice{
		Subject: conversations.NoticeOther, Standing: conversations.StandingLimited,
		Word: providers.Word(member("alert_type")), Detail: severity,
	}
	if n.Word == "unknown" && severity != "" {
		n.Word, n.Detail = severity, word(member("alert_status"))
	}
	if severity == "informational" || severity == "info" {
		n.Standing = conversations.StandingUsable
	}
	return n
}

// limitOf returns how many customers may be written to in a day, in the new
// member or the one that it replaces: a tier's name or a number.
func limitOf(v said) string {
	return word(v.first([]string{"max_daily_conversations_per_business"}, []string{"max_daily_conversation_per_phone"}, []string{"current_limit"}))
}

func capability(v said, _ time.Time) *conversations.Notice {
	limit := limitOf(v)
	if limit == "" {
		return nil
	}
	return &conversations.Notice{Subject: conversations.NoticeLimit, Standing: conversations.StandingUsable, Word: limit}
}

func numberQuality(v said, _ time.Time) *conversations.Notice {
	n := &conversations.Notice{
		Subject: conversations.NoticeNumber, Standing: conversations.StandingUsable,
		Word: providers.Word(v.at("event")), Detail: limitOf(v),
	}
	switch n.Word {
	case "flagged", "downgrade", "onboarding": // onboarding: it is still being registered
		n.Standing = conversations.StandingLimited
	}
	return n
}

func numberName(v said, _ time.Time) *conversations.Notice {
	n := &conversations.Notice{
		Subject: conversations.NoticeNumber, Standing: conversations.StandingUsable,
		Word: "name_" + providers.Word(v.at("decision")), Detail: word(v.at("rejection_reason")),
	}
	if n.Word != "name_approved" {
		n.Standing = conversations.StandingLimited
	}
	return n
}

// security reads who did what with the number's PIN, which a person should see.
func security(v said, _ time.Time) *conversations.Notice {
	return &conversations.Notice{Subject: conversations.NoticeOther, Standing: conversations.StandingLimited, Word: providers.Word(v.at("event"))}
}

// other makes notices of fields that are only to be read; member has what
// happened.
func other(member string) func(said, time.Time) *conversations.Notice {
	return func(v said, _ time.Time) *conversations.Notice {
		return &conversations.Notice{
			Subject: conversations.NoticeOther, Standing: conversations.StandingUsable,
			Word: providers.Word(v.first([]string{member}, []string{"event"})),
		}
	}
}

// preference reads one element of user_preferences: what the customer chose in
// WhatsApp's own menu about a business's marketing messages. Stop is taken as
// an opt-out on WhatsApp altogether, although Meta stops marketing only: a
// template that Meta moved to that category would not arrive, and who wants
// fewer messages gets none rather than one too many; SMS is not touched.
// Resume takes it back. Signing up to marketing takes no opt-out back, and
// other categories, when they come, are counted only.
func (b *batch) preference(sender, waba string, raw json.RawMessage) {
	var u struct {
		WaID         providers.Loose `json:"wa_id"`
		UserID       providers.Loose `json:"user_id"`
		ParentUserID providers.Loose `json:"parent_user_id"`
		Category     providers.Loose `json:"category"`
		Value        providers.Loose `json:"value"`
		Timestamp    providers.Loose `json:"timestamp"`
	}
	if err := decode(raw, &u); err != nil {
		b.malformed(err)
		return
	}
	consent := preferences[string(u.Value)]
	if consent == "" || u.Category != "" && u.Category != "marketing_messages" {
		b.add(conversations.Inbound{
			Kind: conversations.InboundAccount, SenderID: sender, MediaType: "user_preferences", Text: providers.Word(string(u.Value)),
			ProviderID: providers.Digest("user_preferences", waba, string(u.Timestamp), string(raw)), At: b.time(u.Timestamp),
		})
		return
	}
	b.add(conversations.Inbound{
		Kind: conversations.InboundConsent, SenderID: sender, Consent: consent, At: b.time(u.Timestamp),
		ProviderID: providers.Digest("user_preferences", waba, string(u.WaID), string(u.UserID), string(u.Value), string(u.Timestamp)),
		Addresses:  addresses(u.WaID, u.UserID, u.ParentUserID),
	})
}

var preferences = map[string]conversations.Consent{
	"stop":   conversations.ConsentOptedOut,
	"resume": conversations.ConsentOptedIn,
}

// userIDUpdate reads one element of user_id_update: the customer changed the
// phone number and so got another user id.
func (b *batch) userIDUpdate(sender, waba string, raw json.RawMessage) {
	type change struct {
		Previous providers.Loose `json:"previous"`
		Current  providers.Loose `json:"current"`
	}
	var u struct {
		WaID         providers.Loose `json:"wa_id"`
		UserID       change          `json:"user_id"`
		ParentUserID change          `json:"parent_user_id"`
		Timestamp    providers.Loose `json:"timestamp"`
	}
	if err := decode(raw, &u); err != nil {
		b.malformed(err)
		return
	}
	in := conversations.Inbound{
		Kind: conversations.InboundAddress, SenderID: sender, At: b.time(u.Timestamp),
		ProviderID: providers.Digest("user_id_update", waba, string(u.UserID.Previous), string(u.UserID.Current), string(u.ParentUserID.Previous), string(u.ParentUserID.Current), string(u.Timestamp)),
		Addresses:  addresses(u.WaID, u.UserID.Current, u.ParentUserID.Current),
	}
	if previous := addresses(u.UserID.Previous, u.ParentUserID.Previous); len(previous) > 0 {
		in.Previous = previous[0]
	}
	b.add(in)
}
