package twilio

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The approvals of a template on WhatsApp.
const (
	contentApproved = "approved"
	contentPaused   = "paused"
	contentDisabled = "disabled"
)

// approvals are the states that a template can be put into.
var approvals = []string{contentApproved, "pending", "received", "rejected", contentPaused, contentDisabled, "unsubmitted"}

// registerResources puts on mux what a set-up check reads, and typing.
func (s *Simulator) registerResources(mux *http.ServeMux) {
	accounts := "/twilio/" + apiVersion + "/Accounts/"
	mux.HandleFunc("GET "+accounts+"{file}", s.logged(CallAccount, s.fetchAccount))
	read := func(path, call string, h func(*http.Request, *Account) (any, *apiError)) {
		mux.HandleFunc("GET /twilio/"+path, s.logged(call, s.reading(call, h)))
	}
	read(apiVersion+"/Accounts/{account}/IncomingPhoneNumbers.json", CallNumbers, s.listNumbers)
	read("v2/Channels/Senders", CallNumbers, s.listSenders)
	read("v1/Services/{service}", CallService, s.fetchService)
	read("v1/Services/{service}/PhoneNumbers", CallService, s.listServiceNumbers)
	read("v1/Content", CallContent, s.listContents)
	read("v1/Content/{content}", CallContent, s.fetchContent)
	read("v1/Content/{content}/ApprovalRequests", CallContent, s.fetchApproval)
	for _, v := range []string{"v2", "v3"} {
		mux.HandleFunc("POST /twilio/"+v+"/Indicators/Typing.json", s.logged(CallTyping, s.showTyping))
	}
}

// reading makes the handler of a read: credentials, faults, then the resource.
func (s *Simulator) reading(call string, h func(*http.Request, *Account) (any, *apiError)) func(http.ResponseWriter, *http.Request, *string) *apiError {
	return func(w http.ResponseWriter, r *http.Request, _ *string) *apiError {
		account, failure := s.authenticate(r, r.PathValue("account"))
		if failure != nil {
			return failure
		}
		body, failure := h(r, account)
		if failure != nil {
			return failure
		}
		fault, failure := s.fault(w, call)
		if failure != nil || fault.Before(w, r) || fault.After(w, r) {
			return failure
		}
		writeJSON(w, http.StatusOK, body)
		return nil
	}
}

func (s *Simulator) fetchAccount(w http.ResponseWriter, r *http.Request, ref *string) *apiError {
	sid, ok := strings.CutSuffix(r.PathValue("file"), ".json")
	if !ok {
		return notFound(r)
	}
	r.SetPathValue("account", sid)
	return s.reading(CallAccount, func(_ *http.Request, a *Account) (any, *apiError) {
		s.mu.Lock()
		status := map[bool]string{false: "active", true: "suspended"}[s.inactive[a.SID]]
		s.mu.Unlock()
		return map[string]string{"sid": a.SID, "status": status, "type": "Full", "friendly_name": "Simulated account",
			"owner_account_sid": a.SID, "date_created": date(dayOne), "date_updated": date(dayOne),
			"uri": "/" + apiVersion + "/Accounts/" + a.SID + ".json"}, nil
	})(w, r, ref)
}

// dayOne is when everything here was created.
var dayOne = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// sidOf is the SID of something that the configuration gives no SID, always the
// same.
func sidOf(prefix, of string) string {
	sum := sha256.Sum256([]byte(of))
	return prefix + hex.EncodeToString(sum[:16])
}

// orNull is a text, or null for an empty one.
func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// listNumbers lists an account's phone numbers; WhatsApp senders are not among
// them. PhoneNumber finds a part of a number.
func (s *Simulator) listNumbers(r *http.Request, a *Account) (any, *apiError) {
	wanted := strings.Trim(r.URL.Query().Get("PhoneNumber"), "*")
	rows := []map[string]any{}
	for _, n := range a.Numbers {
		if n.Channel != SMS || !strings.Contains(n.E164, wanted) {
			continue
		}
		sid := sidOf("PN", a.SID+n.E164)
		rows = append(rows, map[string]any{
			"sid": sid, "account_sid": a.SID, "phone_number": n.E164, "friendly_name": cmp.Or(n.Name, n.E164),
			"sms_url": n.InboundURL, "sms_method": cmp.Or(n.InboundMethod, http.MethodPost),
			"sms_fallback_url": n.FallbackURL, "sms_fallback_method": http.MethodPost, "sms_application_sid": "",
			"status_callback": n.StatusCallback, "status_callback_method": http.MethodPost,
			"voice_url": nil, "capabilities": map[string]bool{"sms": true, "mms": false, "voice": true, "fax": false},
			"status": "in-use", "origin": "twilio", "beta": false, "api_version": apiVersion,
			"date_created": date(dayOne), "date_updated": date(dayOne),
			"uri": "/" + apiVersion + "/Accounts/" + a.SID + "/IncomingPhoneNumbers/" + sid + ".json",
		})
	}
	uri := strings.TrimPrefix(r.URL.RequestURI(), "/twilio")
	return map[string]any{"incoming_phone_numbers": rows, "page": 0, "page_size": 50, "start": 0, "end": max(0, len(rows)-1),
		"uri": uri, "first_page_uri": uri, "next_page_uri": nil, "previous_page_uri": nil}, nil
}

// page is a list of Twilio's newer interfaces, whole.
func page(r *http.Request, key string, rows []map[string]any) map[string]any {
	self := "http://" + r.Host + r.URL.RequestURI()
	return map[string]any{key: rows, "meta": map[string]any{"page": 0, "page_size": 50, "key": key, "url": self,
		"first_page_url": self, "next_page_url": nil, "previous_page_url": nil}}
}

func (s *Simulator) listSenders(r *http.Request, a *Account) (any, *apiError) {
	rows := []map[string]any{}
	for _, n := range a.Numbers {
		if n.Channel != WhatsApp {
			continue
		}
		sid := sidOf("XE", a.SID+n.E164)
		rows = append(rows, map[string]any{
			"sid": sid, "sender_id": whatsAppPrefix + n.E164, "status": "ONLINE",
			"webhook": map[string]any{"callback_url": orNull(n.InboundURL), "callback_method": cmp.Or(n.InboundMethod, http.MethodPost),
				"fallback_url": orNull(n.FallbackURL), "fallback_method": http.MethodPost,
				"status_callback_url": orNull(n.StatusCallback), "status_callback_method": http.MethodPost},
			"profile": map[string]any{"name": n.Name}, "url": "http://" + r.Host + "/twilio/v2/Channels/Senders/" + sid,
		})
	}
	return page(r, "senders", rows), nil
}

func (s *Simulator) findService(r *http.Request, a *Account) (*Service, *apiError) {
	if sv := a.serviceBy(r.PathValue("service")); sv != nil {
		return sv, nil
	}
	return nil, notFound(r)
}

func (s *Simulator) fetchService(r *http.Request, a *Account) (any, *apiError) {
	sv, failure := s.findService(r, a)
	if failure != nil {
		return nil, failure
	}
	self := "http://" + r.Host + r.URL.Path
	return map[string]any{
		"sid": sv.SID, "account_sid": a.SID, "friendly_name": cmp.Or(sv.Name, sv.SID),
		"inbound_request_url": orNull(sv.InboundURL), "inbound_method": cmp.Or(sv.InboundMethod, http.MethodPost),
		"fallback_url": nil, "fallback_method": http.MethodPost, "status_callback": orNull(sv.StatusCallback),
		"use_inbound_webhook_on_number": sv.NumberURLs, "validity_period": cmp.Or(sv.ValidityPeriod, 36000),
		"sticky_sender": true, "mms_converter": true, "smart_encoding": true, "scan_message_content": "inherit",
		"fallback_to_long_code": false, "area_code_geomatch": true, "synchronous_validation": false, "usecase": "undeclared",
		"us_app_to_person_registered": false, "date_created": iso(dayOne), "date_updated": iso(dayOne),
		"url": self, "links": map[string]string{"phone_numbers": self + "/PhoneNumbers"},
	}, nil
}

// iso writes a time as Twilio's newer interfaces do.
func iso(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (s *Simulator) listServiceNumbers(r *http.Request, a *Account) (any, *apiError) {
	sv, failure := s.findService(r, a)
	if failure != nil {
		return nil, failure
	}
	rows := []map[string]any{}
	for _, number := range sv.Numbers {
		rows = append(rows, map[string]any{"sid": sidOf("PN", a.SID+number), "account_sid": a.SID, "service_sid": sv.SID,
			"phone_number": number, "country_code": "US", "capabilities": []string{"SMS"},
			"date_created": iso(dayOne), "date_updated": iso(dayOne)})
	}
	return page(r, "phone_numbers", rows), nil
}

// contentOf is a copy of the path's template as it is now.
func (s *Simulator) contentOf(r *http.Request, a *Account) (Content, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.contents[contentKey{a.SID, r.PathValue("content")}]
	if c == nil {
		return Content{}, notFound(r)
	}
	return *c, nil
}

func (c *Content) resource(a *Account, base string) map[string]any {
	samples := map[string]string{}
	for _, v := range variable.FindAllString(c.Body+c.ButtonURL, -1) {
		samples[strings.Trim(v, "{}")] = "sample"
	}
	kind, content := c.content()
	return map[string]any{
		"sid": c.SID, "account_sid": a.SID, "friendly_name": cmp.Or(c.Name, c.SID), "language": c.Language, "variables": samples,
		"types": map[string]any{kind: content}, "date_created": iso(dayOne), "date_updated": iso(dayOne), "url": base,
		"links": map[string]string{"approval_fetch": base + "/ApprovalRequests", "approval_create": base + "/ApprovalRequests/whatsapp"},
	}
}

// content is a template as the content type that has what it needs.
func (c *Content) content() (kind string, content map[string]any) {
	var actions []map[string]any
	if c.ButtonURL != "" {
		actions = append(actions, map[string]any{"type": "URL", "title": c.ButtonLabel, "url": c.ButtonURL})
	}
	for _, title := range c.QuickReplies {
		actions = append(actions, map[string]any{"type": "QUICK_REPLY", "title": title, "id": title})
	}
	switch {
	case actions == nil:
		return "twilio/text", map[string]any{"body": c.Body}
	case len(c.QuickReplies) == 0:
		kind = "twilio/call-to-action"
	case c.ButtonURL == "":
		kind = "twilio/quick-reply"
	default:
		return "twilio/card", map[string]any{"title": c.Body, "actions": actions}
	}
	return kind, map[string]any{"body": c.Body, "actions": actions}
}

func (s *Simulator) fetchContent(r *http.Request, a *Account) (any, *apiError) {
	c, failure := s.contentOf(r, a)
	if failure != nil {
		return nil, failure
	}
	return c.resource(a, "http://"+r.Host+r.URL.Path), nil
}

func (s *Simulator) listContents(r *http.Request, a *Account) (any, *apiError) {
	rows := []map[string]any{}
	for _, c := range a.Contents {
		s.mu.Lock()
		now := *s.contents[contentKey{a.SID, c.SID}]
		s.mu.Unlock()
		rows = append(rows, now.resource(a, "http://"+r.Host+r.URL.Path+"/"+c.SID))
	}
	return page(r, "contents", rows), nil
}

func (s *Simulator) fetchApproval(r *http.Request, a *Account) (any, *apiError) {
	c, failure := s.contentOf(r, a)
	if failure != nil {
		return nil, failure
	}
	kind, _ := c.content()
	return map[string]any{"sid": c.SID, "account_sid": a.SID, "url": "http://" + r.Host + r.URL.Path,
		"whatsapp": map[string]any{"type": "whatsapp", "name": cmp.Or(c.Name, strings.ToLower(c.SID)), "category": c.Category,
			"content_type": kind, "status": c.Status, "rejection_reason": c.Reason, "allow_category_change": true}}, nil
}

// showTyping shows that the business types, and has read: a reply to a message
// that the customer sent on WhatsApp.
func (s *Simulator) showTyping(w http.ResponseWriter, r *http.Request, _ *string) *apiError {
	account, failure := s.authenticate(r, "")
	if failure != nil {
		return failure.as(r)
	}
	channel, id, failure := typingOf(w, r)
	if failure != nil {
		return failure.as(r)
	}
	s.mu.Lock()
	m := s.messages[id]
	s.mu.Unlock()
	switch {
	case !strings.EqualFold(channel, WhatsApp):
		return refuse(20001, "channel must be WHATSAPP").as(r)
	case m == nil || m.account != account || m.Channel != WhatsApp || m.direction != directionInbound:
		return (&apiError{status: http.StatusNotFound, code: 20404, message: "messageId is not an inbound WhatsApp message"}).as(r)
	}
	fault, failure := s.fault(w, CallTyping)
	if failure != nil || fault.Before(w, r) {
		return failure.as(r)
	}
	if reader, ok := s.phones.(Reader); ok {
		reader.MarkedRead(m.From, m.ID, true)
	}
	if fault.After(w, r) {
		return nil
	}
	writeJSON(w, http.StatusOK, map[string]bool{"success": true})
	return nil
}

// as marks the refusal of a v3 call, which is a problem document.
func (e *apiError) as(r *http.Request) *apiError {
	if e == nil || !strings.HasPrefix(r.URL.Path, "/twilio/v3/") {
		return e
	}
	marked := *e
	marked.problem = true
	return &marked
}

// typingOf reads a typing call: JSON, or a form before v3.
func typingOf(w http.ResponseWriter, r *http.Request) (channel, id string, failure *apiError) {
	r.Body = http.MaxBytesReader(w, r.Body, longestForm)
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		var in struct {
			Channel   string `json:"channel"`
			MessageID string `json:"messageId"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil && !errors.Is(err, io.EOF) {
			return "", "", refuse(20001, "The body is not JSON.")
		}
		return in.Channel, in.MessageID, nil
	}
	if strings.HasPrefix(r.URL.Path, "/twilio/v3/") {
		return "", "", &apiError{status: http.StatusUnsupportedMediaType, code: 20415, message: "The body must be JSON."}
	}
	if err := r.ParseForm(); err != nil {
		return "", "", refuse(20001, "The body is not a form.")
	}
	return r.PostForm.Get("channel"), r.PostForm.Get("messageId"), nil
}

// SetApproval puts a template into another state of WhatsApp's approval, and
// reports whether there is such a template and such a state.
func (s *Simulator) SetApproval(account, content, status, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.contents[contentKey{account, content}]
	if c == nil || !slices.Contains(approvals, status) {
		return false
	}
	c.Status, c.Reason = status, reason
	return true
}
