package meta

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// The fields that are not messages, and the kinds of system message.
const (
	fieldTemplateStatus   = "message_template_status_update"
	fieldTemplateQuality  = "message_template_quality_update"
	fieldTemplateCategory = "template_category_update"
	fieldAccount          = "account_update"
	fieldCapability       = "business_capability_update"
	fieldNumberQuality    = "phone_number_quality_update"
	fieldPreferences      = "user_preferences"
	fieldUserIDs          = "user_id_update"
	fieldEchoes           = "smb_message_echoes"

	systemNumber   = "user_changed_number"
	systemUserID   = "user_changed_user_id"
	systemIdentity = "customer_identity_changed"
)

type systemNotice struct {
	Body           string `json:"body"`
	Type           string `json:"type"`
	WaID           string `json:"wa_id,omitempty"`
	UserID         string `json:"user_id,omitempty"`
	PreviousUserID string `json:"previous_user_id,omitempty"`
	ParentUserID   string `json:"parent_user_id,omitempty"`
	PreviousParent string `json:"previous_parent_user_id,omitempty"`
}

type identityKeys struct {
	Acknowledged bool   `json:"acknowledged"`
	CreatedAt    string `json:"created_timestamp"`
	Hash         string `json:"hash"`
}

type preference struct {
	WaID      string `json:"wa_id,omitempty"`
	UserID    string `json:"user_id,omitempty"`
	Detail    string `json:"detail"`
	Category  string `json:"category"`
	Value     string `json:"value"`
	Timestamp int64  `json:"timestamp"` // a number here, unlike elsewhere
}

type userIDUpdate struct {
	WaID         string       `json:"wa_id,omitempty"`
	Detail       string       `json:"detail"`
	UserID       userIDChange `json:"user_id"`
	ParentUserID userIDChange `json:"parent_user_id,omitzero"`
	Timestamp    string       `json:"timestamp"`
}

type userIDChange struct {
	Previous string `json:"previous"`
	Current  string `json:"current"`
}

// announce tells every webhook of an account of a change that is not about one
// customer.
func (s *Simulator) announce(waba, field string, v any) {
	at := s.cfg.Now().Unix()
	told := map[boxKey]bool{}
	for i := range s.cfg.Numbers {
		n := &s.cfg.Numbers[i]
		if to := s.destination(n); n.WABAID == waba && !told[to] {
			told[to] = true
			s.tell(n, "account "+waba, CallWebhookAccount, at, change{v, field}, nil)
		}
	}
}

// TemplateEvent is what Meta does to a template. Empty members change nothing.
type TemplateEvent struct {
	Account  string
	Name     string
	Language string // may be empty when the template has one language
	Event    string // APPROVED, REJECTED, PAUSED, DISABLED, FLAGGED, REINSTATED, ...
	Reason   string // of a rejection
	Title    string // other_info.title, such as FIRST_PAUSE; counted when empty
	Quality  string
	Category string
	Hold     *bool // true keeps messages for a quality assessment, false lets them go
}

// ChangeTemplate does what the event says, and sends the webhooks that tell of
// it. It returns the template as it is then, and false when there is none.
func (s *Simulator) ChangeTemplate(e TemplateEvent) (Template, bool) {
	s.mu.Lock()
	i := slices.IndexFunc(s.templates, func(t *Template) bool {
		return t.WABAID == e.Account && t.Name == e.Name && (e.Language == "" || t.Language == e.Language)
	})
	if i < 0 {
		s.mu.Unlock()
		return Template{}, false
	}
	t := s.templates[i]
	type notice struct {
		field string
		value map[string]any
	}
	var notices []notice
	note := func(field string, members map[string]any) {
		members["message_template_id"] = t.id()
		members["message_template_name"] = t.Name
		members["message_template_language"] = t.Language
		notices = append(notices, notice{field, members})
	}
	if e.Event != "" {
		note(fieldTemplateStatus, t.become(e, s.cfg.Now()))
	}
	if e.Quality != "" && e.Quality != t.Quality {
		note(fieldTemplateQuality, map[string]any{"previous_quality_score": t.Quality, "new_quality_score": e.Quality})
		t.Quality = e.Quality
	}
	if e.Category != "" && e.Category != t.Category {
		note(fieldTemplateCategory, map[string]any{"previous_category": t.Category, "new_category": e.Category})
		t.Category = e.Category
	}
	if e.Hold != nil {
		t.Hold = *e.Hold
	}
	// Held messages go with the assessment, or are dropped with the template.
	var release []*message
	if unusable := t.unusable(); !t.Hold || unusable != nil {
		release = s.held[t.key()]
		delete(s.held, t.key())
		for _, m := range release {
			if unusable != nil {
				m.failure, m.failAfter = unusable, ""
			}
		}
	}
	now := *t
	s.mu.Unlock()
	for _, m := range release {
		s.start(m)
	}
	for _, n := range notices {
		s.announce(now.WABAID, n.field, n.value)
	}
	return now, true
}

// unusable is why a template in this state cannot be sent, or nil.
func (t *Template) unusable() *graphError {
	switch t.Status {
	case templatePaused:
		return errTemplatePaused
	case templateDisabled:
		return errTemplateDisabled
	}
	return nil
}

// pauseTitles are the pauses that come before a template is disabled.
var pauseTitles = []string{"FIRST_PAUSE", "SECOND_PAUSE"}

// become puts the template into the state of an event, and returns what the
// webhook says beside its name. A third pause disables.
func (t *Template) become(e TemplateEvent, now time.Time) map[string]any {
	event, title, wasPaused := e.Event, e.Title, t.Status == templatePaused
	if event == templatePaused && title == "" {
		if t.Pauses >= len(pauseTitles) {
			event = templateDisabled
		} else {
			title = pauseTitles[t.Pauses]
		}
		t.Pauses++
	}
	t.Status, t.Reason = event, ""
	v := map[string]any{"event": event, "reason": nil}
	switch event {
	case templateApproved, "REINSTATED", "UNPAUSED":
		t.Status = templateApproved
		v["reason"] = "NONE"
		if wasPaused {
			title = cmp.Or(title, "UNPAUSE")
		}
	case "REJECTED":
		t.Reason = cmp.Or(e.Reason, "INVALID_FORMAT")
		v["reason"] = t.Reason
		v["rejection_info"] = map[string]string{"reason": "The template does not meet the guidelines.", "recommendation": "Change it and submit it again."}
	case templateDisabled:
		title = cmp.Or(title, "DISABLED")
		v["disable_info"] = map[string]any{"disable_date": now.Unix()}
	}
	if title != "" {
		v["other_info"] = map[string]string{"title": title, "description": "Message templates are paused or disabled when customers report them."}
	}
	return v
}

// AccountEvent is an account_update.
type AccountEvent struct {
	Account     string
	Event       string        // ACCOUNT_RESTRICTION, DISABLED_UPDATE, ACCOUNT_VIOLATION, ...
	Restriction string        // of ACCOUNT_RESTRICTION; RESTRICTED_BIZ_INITIATED_MESSAGING when empty
	For         time.Duration // how long it holds; 24 h when 0
	State       string        // of DISABLED_UPDATE: DISABLE, REINSTATE, SCHEDULE_FOR_DISABLE
	Violation   string        // of ACCOUNT_VIOLATION
}

const restrictedBegin = "RESTRICTED_BIZ_INITIATED_MESSAGING"

// ChangeAccount does to a business account what the event says, and tells of it.
// A disabled account gets 131031 for every send, a restricted one 368 outside the
// customer service window. It reports whether there is such an account.
func (s *Simulator) ChangeAccount(e AccountEvent) bool {
	now := s.cfg.Now()
	v := map[string]any{"event": e.Event}
	s.mu.Lock()
	a := s.accounts[e.Account]
	if a == nil {
		s.mu.Unlock()
		return false
	}
	switch e.Event {
	case "ACCOUNT_RESTRICTION":
		until := now.Add(cmp.Or(e.For, 24*time.Hour))
		kind := cmp.Or(e.Restriction, restrictedBegin)
		if kind == restrictedBegin {
			a.restrictedUntil = until
		}
		v["restriction_info"] = []map[string]any{{"restriction_type": kind, "expiration": until.Unix()}}
	case "DISABLED_UPDATE":
		state := cmp.Or(e.State, "DISABLE")
		switch state {
		case "DISABLE":
			a.disabled = true
		case "REINSTATE":
			a.disabled, a.restrictedUntil = false, time.Time{}
		}
		v["ban_info"] = map[string]string{"waba_ban_state": state, "waba_ban_date": now.UTC().Format("January 2, 2006")}
	case "ACCOUNT_VIOLATION":
		v["violation_info"] = map[string]string{"violation_type": cmp.Or(e.Violation, "SCAM")}
	case "ACCOUNT_DELETED":
		a.disabled = true
	}
	s.mu.Unlock()
	s.announce(e.Account, fieldAccount, v)
	return true
}

// systemMessage tells a number's webhook something about a customer. It carries
// no contact, and opens no window: the customer has not written.
func (s *Simulator) systemMessage(n *Number, h Handset, notice *systemNotice, keys *identityKeys) string {
	in := inboundMessage{ID: NewID(), From: h.WaID, Timestamp: seconds(s.cfg.Now()), Type: "system", System: notice, Identity: keys}
	if h.HideNumber || notice.Type == systemUserID {
		in.From = ""
	}
	v := &value{Messages: []inboundMessage{in}}
	if notice.Type == systemIdentity {
		in.FromUserID = s.userID(n, h)
		v.Messages[0] = in
		v.Contacts = []contact{s.contactOf(n, h)}
	}
	s.deliver(n, "from "+h.E164, CallWebhookMessage, v, nil)
	return in.ID
}

// ChangeUserID gives a customer another business-scoped id, as happens with a new
// phone number: the old one reaches nobody any more. It tells by a system message
// and by the field user_id_update, and returns the new id.
func (s *Simulator) ChangeUserID(n *Number, customerE164 string) string {
	h := s.phones.Handset(customerE164)
	previous := s.userID(n, h)
	key := moveKey{n.WABAID, h.E164}
	s.mu.Lock()
	s.moves[key]++
	delete(s.userIDs, previous)
	delete(s.currentIDs, key)
	s.mu.Unlock()
	current := s.userID(n, h)
	notice := &systemNotice{
		Body: fmt.Sprintf("User changed from %s to %s", previous, current), Type: systemUserID,
		UserID: current, PreviousUserID: previous, ParentUserID: n.parentOf(current), PreviousParent: n.parentOf(previous),
	}
	update := userIDUpdate{
		Detail: "The user id has changed.", UserID: userIDChange{previous, current},
		ParentUserID: userIDChange{n.parentOf(previous), n.parentOf(current)}, Timestamp: seconds(s.cfg.Now()),
	}
	if !h.HideNumber {
		notice.WaID, update.WaID = h.WaID, h.WaID
	}
	s.systemMessage(n, h, notice, nil)
	s.tell(n, "from "+h.E164, CallWebhookAccount, s.cfg.Now().Unix(),
		change{s.about(n, &value{Contacts: []contact{s.contactOf(n, h)}, UserIDs: []userIDUpdate{update}}), fieldUserIDs}, nil)
	return current
}

// ChangeNumber tells that a customer has moved to another phone number.
func (s *Simulator) ChangeNumber(n *Number, customerE164, newE164 string) {
	h, moved := s.phones.Handset(customerE164), s.phones.Handset(newE164)
	s.systemMessage(n, h, &systemNotice{
		Body: fmt.Sprintf("User %s changed from %s to %s", h.Name, h.WaID, moved.WaID), Type: systemNumber, WaID: moved.WaID,
	}, nil)
}

// ChangeIdentity gives a customer new keys, as with a new phone or a number that
// has another owner: sends get 137000 until Acknowledge, or until one carries the
// new hash in recipient_identity_key_hash. It returns the hash.
func (s *Simulator) ChangeIdentity(n *Number, customerE164 string) string {
	h := s.phones.Handset(customerE164)
	hash := base64.StdEncoding.EncodeToString(randomBytes(8))
	s.mu.Lock()
	s.identities[pair{n.PhoneNumberID, h.E164}] = identity{hash: hash}
	s.mu.Unlock()
	s.systemMessage(n, h, &systemNotice{Body: "User identity changed", Type: systemIdentity},
		&identityKeys{CreatedAt: seconds(s.cfg.Now()), Hash: hash})
	return hash
}

// Acknowledge accepts a customer's new keys; it reports whether there were any.
func (s *Simulator) Acknowledge(n *Number, customerE164 string) bool {
	p := pair{n.PhoneNumberID, s.phones.Handset(customerE164).E164}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, changed := s.identities[p]
	id.acknowledged = true
	if changed {
		s.identities[p] = id
	}
	return changed
}

// SetPreference is a customer who stops a number's marketing, or lets it come
// again: value is stop, resume or signup.
func (s *Simulator) SetPreference(n *Number, customerE164, value string) {
	h := s.phones.Handset(customerE164)
	s.mu.Lock()
	if value == "stop" {
		s.stopped[pair{n.PhoneNumberID, h.E164}] = true
	} else {
		delete(s.stopped, pair{n.PhoneNumberID, h.E164})
	}
	s.mu.Unlock()
	c := s.contactOf(n, h)
	s.tellPreference(n, h, preference{
		WaID: c.WaID, UserID: c.UserID, Detail: "User requested to " + value + " marketing messages",
		Category: "marketing_messages", Value: value, Timestamp: s.cfg.Now().Unix(),
	}, c)
}

func (s *Simulator) tellPreference(n *Number, h Handset, p preference, c contact) {
	v := s.about(n, &value{Contacts: []contact{c}, Preferences: []preference{p}})
	s.tell(n, "from "+h.E164, CallWebhookAccount, 0, change{v, fieldPreferences}, nil)
}

// Echo is the business writing to a customer with its phone app: the customer
// gets the text, and the webhook an echo. It returns the message's id.
func (s *Simulator) Echo(n *Number, customerE164, text string) string {
	h := s.phones.Handset(customerE164)
	echo := inboundMessage{ID: NewID(), From: digits(n.DisplayNumber), To: h.WaID, ToUserID: s.userID(n, h),
		Timestamp: seconds(s.cfg.Now()), Type: "text", Text: &inboundText{text}}
	if h.HideNumber {
		echo.To = ""
	}
	s.phones.Deliver(Delivery{ID: echo.ID, From: n.DisplayNumber, To: h.E164, Text: text})
	s.tell(n, "to "+h.E164, CallWebhookEcho, 0, change{s.about(n, &value{Echoes: []inboundMessage{echo}}), fieldEchoes}, nil)
	return echo.ID
}

// TellError sends an error of the number itself, which belongs to no message.
func (s *Simulator) TellError(n *Number, code int, details string) {
	e := coded(code, 0)
	e.details = cmp.Or(details, e.details)
	s.tell(n, "number "+n.PhoneNumberID, CallWebhookAccount, 0,
		change{s.about(n, &value{Errors: []statusError{e.told()}}), fieldMessages}, nil)
}

// TellQuality sends a phone_number_quality_update.
func (s *Simulator) TellQuality(n *Number, event, quality string, limit any) {
	if quality != "" {
		s.mu.Lock()
		s.quality[n.PhoneNumberID] = quality
		s.mu.Unlock()
	}
	v := map[string]any{"display_phone_number": digits(n.DisplayNumber), "event": event}
	if limit != nil {
		v["max_daily_conversations_per_business"] = limit
		if s.payload(n) == PayloadV23 {
			v["current_limit"] = limit // gone since February 2026
		}
	}
	s.announce(n.WABAID, fieldNumberQuality, v)
}

// TellCapability sends a business_capability_update. Meta documents the limit as
// a TIER_... text and shows it as a number.
func (s *Simulator) TellCapability(waba string, limit json.RawMessage) {
	s.announce(waba, fieldCapability, map[string]any{
		"max_daily_conversations_per_business": limit, "max_phone_numbers_per_business": 25})
}
