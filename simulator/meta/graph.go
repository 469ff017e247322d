package meta

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// registerGraph puts the reads and the subscription calls on mux: what a set-up
// check asks.
func (s *Simulator) registerGraph(mux *http.ServeMux) {
	mux.HandleFunc("GET /meta/{version}/{id}", s.getObject)
	mux.HandleFunc("GET /meta/{version}/{id}/phone_numbers", s.accountCall(CallAccount, s.getNumbers))
	mux.HandleFunc("GET /meta/{version}/{id}/message_templates", s.accountCall(CallTemplates, s.getTemplates))
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		mux.HandleFunc(method+" /meta/{version}/{id}/subscribed_apps", s.accountCall(CallSubscriptions, s.subscriptions))
	}
}

// tokenOf is the call's access token, which Graph takes in the query, too.
func tokenOf(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return token
	}
	return r.URL.Query().Get("access_token")
}

// checkToken refuses a token that nobody has, and a path without a version.
func (s *Simulator) checkToken(r *http.Request) *graphError {
	token := tokenOf(r)
	if token == "" {
		return errNoToken
	}
	known := false
	for _, n := range s.cfg.Numbers {
		if slices.Contains(n.ExpiredTokens, token) {
			return errExpiredToken
		}
		known = known || n.AccessToken == token
	}
	switch {
	case !known:
		return errBadToken
	case !version.MatchString(r.PathValue("version")):
		return errPath.with("The path must begin with a version such as v25.0.")
	}
	return nil
}

// authorize finds the number of the path and checks that the token may use it.
func (s *Simulator) authorize(r *http.Request) (*Number, *graphError) {
	if failure := s.checkToken(r); failure != nil {
		return nil, failure
	}
	id, token := r.PathValue("id"), tokenOf(r)
	for i := range s.cfg.Numbers {
		if n := &s.cfg.Numbers[i]; n.PhoneNumberID == id && n.AccessToken == token {
			return n, nil
		}
	}
	return nil, errUnknownObject(r.Method, id)
}

// authorizeAccount finds the numbers of the path's business account that the
// token may use; there is at least one.
func (s *Simulator) authorizeAccount(r *http.Request) ([]*Number, *graphError) {
	if failure := s.checkToken(r); failure != nil {
		return nil, failure
	}
	var numbers []*Number
	id, token := r.PathValue("id"), tokenOf(r)
	for i := range s.cfg.Numbers {
		if n := &s.cfg.Numbers[i]; n.WABAID == id && n.AccessToken == token {
			numbers = append(numbers, n)
		}
	}
	if numbers == nil {
		return nil, errUnknownObject(r.Method, id)
	}
	return numbers, nil
}

// accountCall makes the handler of a call to a business account.
func (s *Simulator) accountCall(call string, h func(http.ResponseWriter, *http.Request, []*Number) *graphError) http.HandlerFunc {
	return s.logged(call, func(w http.ResponseWriter, r *http.Request, _ *string) {
		numbers, failure := s.authorizeAccount(r)
		if failure == nil {
			fault, refusal := s.fault(w, call)
			if failure = refusal; failure == nil {
				if fault.Before(w, r) || fault.After(w, r) {
					return
				}
				s.addUsage(w, numbers[0], nil)
				failure = h(w, r, numbers)
			}
		}
		if failure != nil {
			if numbers != nil {
				s.addUsage(w, numbers[0], failure)
			}
			failure.write(w)
		}
	})
}

// getObject answers for a phone number or a business account: Graph has one path
// for all objects.
func (s *Simulator) getObject(w http.ResponseWriter, r *http.Request) {
	if slices.ContainsFunc(s.cfg.Numbers, func(n Number) bool { return n.WABAID == r.PathValue("id") }) {
		s.accountCall(CallAccount, s.getAccount)(w, r)
		return
	}
	s.logged(CallPhoneNumber, s.getPhoneNumber)(w, r)
}

// fields are an object's fields, by name.
type fields map[string]any

// pick answers with the fields that the query asks for, or with the usual ones.
func (f fields) pick(w http.ResponseWriter, r *http.Request, node string, usual ...string) *graphError {
	picked, failure := f.only(r.URL.Query().Get("fields"), node, usual...)
	if failure == nil {
		writeJSON(w, http.StatusOK, picked)
	}
	return failure
}

func (f fields) only(asked, node string, usual ...string) (fields, *graphError) {
	names := usual
	if asked != "" {
		names = strings.Split(asked, ",")
	}
	picked := fields{"id": f["id"]}
	for _, name := range names {
		name = strings.TrimSpace(name)
		value, known := f[name]
		if !known {
			e := *errParameter
			e.title = fmt.Sprintf("Tried accessing nonexisting field (%s) on node type (%s)", name, node)
			return nil, &e
		}
		picked[name] = value
	}
	return picked, nil
}

func (s *Simulator) numberFields(n *Number) fields {
	const tier = "TIER_2K"
	status := "CONNECTED"
	if n.Unregistered {
		status = "DISCONNECTED"
	}
	s.mu.Lock()
	callback, health := s.accounts[n.WABAID].callback, s.health(n)
	quality := cmp.Or(s.quality[n.PhoneNumberID], "GREEN")
	s.mu.Unlock()
	return fields{
		"id":                       n.PhoneNumberID,
		"display_phone_number":     international(n.DisplayNumber),
		"verified_name":            n.VerifiedName,
		"quality_rating":           quality,
		"code_verification_status": "VERIFIED",
		"name_status":              "APPROVED",
		"platform_type":            "CLOUD_API",
		"account_mode":             "LIVE",
		"status":                   status,
		"throughput":               map[string]string{"level": "STANDARD"},
		"health_status":            health,
		"messaging_limit_tier":     tier,
		"whatsapp_business_manager_messaging_limit": tier,
		"webhook_configuration":                     webhookConfiguration(n.WebhookURL, callback),
	}
}

// health says of a number and its account whether messages can be sent, and which
// of the two is in the way. The lock is held.
func (s *Simulator) health(n *Number) map[string]any {
	a, whole := s.accounts[n.WABAID], "AVAILABLE"
	entity := func(kind, id, can string, e *graphError) map[string]any {
		row := map[string]any{"entity_type": kind, "id": id, "can_send_message": can}
		if can != "AVAILABLE" {
			row["errors"] = []map[string]any{{"error_code": e.code, "error_description": e.title, "possible_solution": "See WhatsApp Manager."}}
			if whole != "BLOCKED" {
				whole = can
			}
		}
		return row
	}
	number, account := "AVAILABLE", "AVAILABLE"
	if n.Unregistered {
		number = "BLOCKED"
	}
	reason := errRestricted
	switch {
	case a.disabled:
		account, reason = "BLOCKED", errLocked
	case s.cfg.Now().Before(a.restrictedUntil):
		account = "LIMITED"
	}
	entities := []map[string]any{
		entity("PHONE_NUMBER", n.PhoneNumberID, number, errUnregistered), entity("WABA", n.WABAID, account, reason)}
	return map[string]any{"can_send_message": whole, "entities": entities}
}

func webhookConfiguration(application, account string) map[string]string {
	c := map[string]string{"application": application}
	if account != "" {
		c["whatsapp_business_account"] = account
	}
	return c
}

// international writes a number as Meta displays it, with spaces.
func international(number string) string {
	parsed, err := phonenumbers.Parse(number, "")
	if err != nil {
		return number
	}
	return phonenumbers.Format(parsed, phonenumbers.INTERNATIONAL)
}

func (s *Simulator) getPhoneNumber(w http.ResponseWriter, r *http.Request, _ *string) {
	n, failure := s.authorize(r)
	if failure == nil {
		fault, refusal := s.fault(w, CallPhoneNumber)
		if failure = refusal; failure == nil {
			if fault.Before(w, r) || fault.After(w, r) {
				return
			}
			failure = s.numberFields(n).pick(w, r, "WhatsAppBusinessPhoneNumber", "verified_name", "code_verification_status",
				"display_phone_number", "quality_rating", "platform_type", "throughput", "webhook_configuration")
		}
	}
	if failure != nil {
		failure.write(w)
	}
}

func (s *Simulator) getAccount(w http.ResponseWriter, r *http.Request, numbers []*Number) *graphError {
	s.mu.Lock()
	health := s.health(numbers[0])
	s.mu.Unlock()
	return fields{
		"id": numbers[0].WABAID, "name": numbers[0].VerifiedName, "currency": "USD", "timezone_id": "1",
		"account_review_status": "APPROVED", "health_status": health,
		"message_template_namespace": fmt.Sprintf("%016x", number64(numbers[0].WABAID)), "business_verification_status": "verified",
	}.pick(w, r, "WhatsAppBusinessAccount", "name", "currency", "timezone_id", "message_template_namespace")
}

func (s *Simulator) getNumbers(w http.ResponseWriter, r *http.Request, numbers []*Number) *graphError {
	rows := []fields{}
	for _, n := range numbers {
		row, failure := s.numberFields(n).only(r.URL.Query().Get("fields"), "WhatsAppBusinessPhoneNumber",
			"verified_name", "display_phone_number", "quality_rating")
		if failure != nil {
			return failure
		}
		rows = append(rows, row)
	}
	writeJSON(w, http.StatusOK, map[string]any{"data": rows})
	return nil
}

// getTemplates lists an account's templates by pages, filtered as Graph does: name
// finds a part of a name, the others must be equal.
func (s *Simulator) getTemplates(w http.ResponseWriter, r *http.Request, numbers []*Number) *graphError {
	q := r.URL.Query()
	limit, from := 25, 0
	for name, into := range map[string]*int{"limit": &limit, "after": &from} {
		if text := q.Get(name); text != "" {
			n, err := strconv.Atoi(strings.TrimPrefix(text, cursorPrefix))
			if err != nil || n < 0 {
				return errParameter.with("%s is not valid", name)
			}
			*into = n
		}
	}
	limit = max(1, limit)
	s.mu.Lock()
	var found []Template
	for _, t := range s.templates {
		if t.WABAID == numbers[0].WABAID && strings.Contains(t.Name, q.Get("name")) && equalIfAsked(q.Get("language"), t.Language) &&
			equalIfAsked(strings.ToUpper(q.Get("status")), t.Status) && equalIfAsked(strings.ToUpper(q.Get("category")), t.Category) {
			found = append(found, *t)
		}
	}
	s.mu.Unlock()
	from = min(from, len(found))
	to := min(from+limit, len(found))
	rows := []fields{}
	for _, t := range found[from:to] {
		row, failure := t.fields().only(q.Get("fields"), "WhatsAppMessageTemplate",
			"name", "parameter_format", "components", "language", "status", "category")
		if failure != nil {
			return failure
		}
		rows = append(rows, row)
	}
	answer := map[string]any{"data": rows}
	if len(rows) > 0 {
		paging := map[string]any{"cursors": map[string]string{"before": cursor(from), "after": cursor(to)}}
		if to < len(found) {
			next := r.URL.Query()
			next.Del("access_token")
			next.Set("after", cursor(to))
			paging["next"] = "http://" + r.Host + r.URL.Path + "?" + next.Encode()
		}
		answer["paging"] = paging
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

const cursorPrefix = "QVFI"

func cursor(at int) string { return cursorPrefix + strconv.Itoa(at) }

func equalIfAsked(asked, got string) bool { return asked == "" || asked == got }

// number64 is a number for an id, always the same.
func number64(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // a hash never fails
	return h.Sum64()
}

// id is the template's own, a number below 2^53, so that every JSON reader can
// hold it.
func (t *Template) id() int64 {
	return int64(number64(t.WABAID+"/"+t.Name+"/"+t.Language) >> 12)
}

func (t *Template) fields() fields {
	f := fields{
		"id": strconv.FormatInt(t.id(), 10), "name": t.Name, "language": t.Language, "status": t.Status, "category": t.Category,
		"parameter_format": "POSITIONAL", "components": t.components(),
		"quality_score": map[string]string{"score": t.Quality}, "rejected_reason": cmp.Or(t.Reason, "NONE"),
	}
	if t.TTL > 0 {
		f["message_send_ttl_seconds"] = int(t.TTL.Seconds())
	}
	return f
}

// components are the parts of a template, as they were submitted.
func (t *Template) components() []map[string]any {
	body := map[string]any{"type": "BODY", "text": t.Body}
	if n := variables(t.Body); n > 0 {
		samples := make([]string, n)
		for i := range samples {
			samples[i] = "sample"
		}
		body["example"] = map[string]any{"body_text": [][]string{samples}}
	}
	parts := []map[string]any{body}
	if t.Footer != "" {
		parts = append(parts, map[string]any{"type": "FOOTER", "text": t.Footer})
	}
	var buttons []map[string]any
	if b := t.URLButton; b != nil {
		button := map[string]any{"type": "URL", "text": b.Label, "url": b.URL}
		if prefix, variable := strings.CutSuffix(b.URL, "{{1}}"); variable {
			button["example"] = []string{prefix + "sample"}
		}
		buttons = append(buttons, button)
	}
	for _, title := range t.QuickReplies {
		buttons = append(buttons, map[string]any{"type": "QUICK_REPLY", "text": title})
	}
	if buttons != nil {
		parts = append(parts, map[string]any{"type": "BUTTONS", "buttons": buttons})
	}
	return parts
}

// subscriptions lists the app, subscribes it, with an address of its own if that
// passes the handshake, or ends the subscription.
func (s *Simulator) subscriptions(w http.ResponseWriter, r *http.Request, numbers []*Number) *graphError {
	waba := numbers[0].WABAID
	switch r.Method {
	case http.MethodDelete:
		s.subscribe(waba, false, "")
	case http.MethodPost:
		var in struct {
			Callback string `json:"override_callback_uri"`
			Token    string `json:"verify_token"`
		}
		in.Callback, in.Token = r.URL.Query().Get("override_callback_uri"), r.URL.Query().Get("verify_token")
		if r.ContentLength != 0 {
			if failure := readJSON(w, r, &in); failure != nil {
				return failure
			}
		}
		if in.Callback != "" {
			n := *numbers[0]
			n.WebhookURL, n.VerifyToken = in.Callback, in.Token
			if !isHTTP(in.Callback) || len(in.Callback) > 200 {
				return errParameter.with("override_callback_uri is not an address of at most 200 characters")
			}
			if err := s.verify(r.Context(), &n); err != nil {
				return &graphError{status: 400, code: 2200, title: "Callback verification failed with the following errors: " + err.Error()}
			}
		}
		s.subscribe(waba, true, in.Callback)
	default:
		writeJSON(w, http.StatusOK, map[string]any{"data": s.apps(waba)})
		return nil
	}
	writeJSON(w, http.StatusOK, map[string]bool{"success": true})
	return nil
}

func (s *Simulator) subscribe(waba string, on bool, callback string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[waba].subscribed, s.accounts[waba].callback = on, callback
}

// apps are the apps that get an account's webhooks: at most this one.
func (s *Simulator) apps(waba string) []map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[waba]
	if !a.subscribed {
		return []map[string]any{}
	}
	app := map[string]any{"whatsapp_business_api_data": map[string]string{
		"id": "670843887433847", "name": "Acme payments", "link": "https://www.facebook.com/games/?app_id=670843887433847"}}
	if a.callback != "" {
		app["override_callback_uri"] = a.callback
	}
	return []map[string]any{app}
}
