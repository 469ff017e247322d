package twilio

import (
	"cmp"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"paythread/simulator/faults"
)

const (
	apiVersion  = "2010-04-01"
	longestBody = 1600
	longestForm = 1 << 20 // bytes of one call
	mostMedia   = 10
)

// Register puts the calls on mux, under /twilio/.
func (s *Simulator) Register(mux *http.ServeMux) {
	base := "/twilio/" + apiVersion + "/Accounts/{account}"
	mux.HandleFunc("POST "+base+"/Messages.json", s.logged(CallMessages, s.createMessage))
	mux.HandleFunc("GET "+base+"/Messages.json", s.logged(CallList, s.listMessages))
	mux.HandleFunc("GET "+base+"/Messages/{message}", s.logged(CallFetch, s.fetchMessage))
	mux.HandleFunc("GET /twilio/"+apiVersion+"/Accounts/{file}", s.logged(CallAccount, s.fetchAccount))
	mux.HandleFunc("/twilio/", s.logged("twilio.unknown", func(w http.ResponseWriter, r *http.Request, _ *string) *apiError {
		return notFound(r)
	}))
}

// apiError is one refusal.
type apiError struct {
	status  int
	code    int
	message string
}

func refuse(code int, format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

func notFound(r *http.Request) *apiError {
	path := strings.TrimPrefix(r.URL.Path, "/twilio")
	return &apiError{http.StatusNotFound, 20404, "The requested resource " + path + " was not found"}
}

func (e *apiError) write(w http.ResponseWriter) {
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="Twilio API"`)
	}
	writeJSON(w, e.status, struct {
		Code     int    `json:"code"`
		Message  string `json:"message"`
		MoreInfo string `json:"more_info"`
		Status   int    `json:"status"`
	}{e.code, e.message, fmt.Sprintf("https://www.twilio.com/docs/errors/%d", e.code), e.status})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json;charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}

// logged answers a refusal, gives the call its request id, and puts it in the
// call log when it has been answered.
func (s *Simulator) logged(call string, h func(http.ResponseWriter, *http.Request, *string) *apiError) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rec := &faults.Recorder{ResponseWriter: w}
		ref := ""
		defer func() {
			s.set.Log(faults.Call{At: s.cfg.Now(), Call: call, Method: r.Method, Path: r.URL.Path, Status: rec.Status, Ref: ref})
		}()
		rec.Header().Set("Twilio-Request-Id", newSID("RQ"))
		if failure := h(rec, r, &ref); failure != nil {
			failure.write(rec)
		}
	}
}

// authenticate checks the Basic credentials, and that the path is the account's
// own.
func (s *Simulator) authenticate(r *http.Request, sid string) (*Account, *apiError) {
	user, password, _ := r.BasicAuth()
	for i := range s.cfg.Accounts {
		a := &s.cfg.Accounts[i]
		if a.SID != user || subtle.ConstantTimeCompare([]byte(a.AuthToken), []byte(password)) != 1 {
			continue
		}
		if sid != a.SID {
			return nil, notFound(r)
		}
		return a, nil
	}
	return nil, &apiError{http.StatusUnauthorized, 20003, "Authenticate"}
}

func (s *Simulator) createMessage(w http.ResponseWriter, r *http.Request, ref *string) *apiError {
	account, failure := s.authenticate(r, r.PathValue("account"))
	if failure != nil {
		return failure
	}
	r.Body = http.MaxBytesReader(w, r.Body, longestForm)
	if err := r.ParseForm(); err != nil {
		return refuse(21602, "The body is not a form.")
	}
	m, failure := s.newMessage(account, r.PostForm)
	if failure != nil {
		return failure
	}
	*ref = reference(m.callback)

	fault := s.set.Take(CallMessages)
	if fault.Before(w, r) {
		return nil
	}
	s.store(m)
	answer := s.resource(m)
	s.start(m)
	if fault.After(w, r) {
		return nil
	}
	writeJSON(w, http.StatusCreated, answer)
	return nil
}

// reference is what a client put into its callback's query: Twilio has no other
// place for it.
func reference(callback string) string {
	u, err := url.Parse(callback)
	if err != nil {
		return ""
	}
	return u.RawQuery
}

// newMessage checks a send in the order in which Twilio does.
func (s *Simulator) newMessage(a *Account, form url.Values) (*message, *apiError) {
	to, from, service := form.Get("To"), form.Get("From"), form.Get("MessagingServiceSid")
	body, content, media := form.Get("Body"), form.Get("ContentSid"), form["MediaUrl"]
	switch {
	case to == "":
		return nil, refuse(21604, "A 'To' phone number is required.")
	case from == "" && service == "":
		return nil, refuse(21603, "A 'From' phone number is required.")
	case body == "" && content == "" && len(media) == 0:
		return nil, refuse(21602, "Message body is required.")
	}
	m := &message{account: a, service: service, direction: directionAPI, media: len(media),
		createdAt: s.cfg.Now(), status: statusQueued, callback: form.Get("StatusCallback")}
	m.Channel, m.Text = SMS, body
	m.To = to
	if number, ok := strings.CutPrefix(to, whatsAppPrefix); ok {
		m.Channel, m.To = WhatsApp, number
	}
	if failure := s.checkRecipient(m); failure != nil {
		return nil, failure
	}
	if failure := m.pickSender(a, from, service); failure != nil {
		return nil, failure
	}
	m.ID = NewID()
	if len(media) > 0 {
		m.ID = newSID("MM")
	}
	switch {
	case m.Channel == SMS && s.isOptedOut(m.pair()):
		return nil, refuse(codeOptedOut, "Attempt to send to unsubscribed recipient")
	case utf8.RuneCountInString(body) > longestBody:
		return nil, refuse(21617, "The concatenated message body exceeds the %d character limit", longestBody)
	case m.callback != "" && !callable(m.callback):
		return nil, refuse(21609, "The 'StatusCallback' URL is not a valid URL.")
	case len(media) > mostMedia || !allCallable(media):
		return nil, refuse(21620, "Invalid media URL(s)")
	}
	if content != "" {
		if failure := m.setContent(a, content, form.Get("ContentVariables")); failure != nil {
			return nil, failure
		}
	}
	for _, link := range media {
		m.Buttons = append(m.Buttons, Button{Title: "Media", URL: link})
	}
	if m.Channel == WhatsApp && content == "" && !s.windowOpen(m.pair()) {
		m.failure = codeOutsideWindow
	}
	return m, nil
}

func (m *message) pair() pair { return pair{m.Channel, m.From, m.To} }

func allCallable(addresses []string) bool {
	return !slices.ContainsFunc(addresses, func(a string) bool { return !callable(a) })
}

func (s *Simulator) checkRecipient(m *message) *apiError {
	switch {
	case !e164.MatchString(m.To):
		return refuse(21211, "The 'To' number is not a valid phone number.")
	case m.Channel == SMS && slices.Contains(s.cfg.Landlines, m.To):
		return refuse(21614, "'To' number is not a valid mobile number")
	case m.Channel == SMS && slices.ContainsFunc(s.cfg.ClosedPrefixes, func(p string) bool { return strings.HasPrefix(m.To, p) }):
		return refuse(21408, "Permission to send an SMS has not been enabled for the region indicated by the 'To' number")
	}
	m.To = s.phones.Handset(m.To).E164
	return nil
}

// pickSender finds the number that sends. A service without From chooses one.
func (m *message) pickSender(a *Account, from, service string) *apiError {
	if service != "" {
		i := slices.IndexFunc(a.Services, func(sv Service) bool { return sv.SID == service })
		if i < 0 {
			return refuse(21701, "The Messaging Service does not exist")
		}
		if from == "" {
			m.status = statusAccepted
			for _, number := range a.Services[i].Numbers {
				if a.number(m.Channel, number) != nil {
					m.From = number
					return nil
				}
			}
			return refuse(21703, "The Messaging Service does not contain a phone number for this channel")
		}
	}
	number, isWhatsApp := strings.CutPrefix(from, whatsAppPrefix)
	switch {
	case isWhatsApp != (m.Channel == WhatsApp), isWhatsApp && a.number(WhatsApp, number) == nil:
		return refuse(63007, "Twilio could not find a Channel with the specified From address")
	case !e164.MatchString(number):
		return refuse(21212, "The 'From' number is not a valid phone number, shortcode, or alphanumeric sender ID.")
	case a.number(m.Channel, number) == nil:
		return refuse(21606, "The 'From' phone number provided is not a valid message-capable Twilio phone number for this destination/account.")
	}
	m.From = number
	return nil
}

var variable = regexp.MustCompile(`\{\{\d+\}\}`)

// setContent fills a template. Variables come as JSON text: an object of strings.
func (m *message) setContent(a *Account, sid, variables string) *apiError {
	i := slices.IndexFunc(a.Contents, func(c Content) bool { return c.SID == sid })
	if i < 0 {
		return refuse(21655, "The ContentSid is Invalid")
	}
	values := map[string]string{}
	if variables != "" && json.Unmarshal([]byte(variables), &values) != nil {
		return refuse(21656, "The ContentVariables Parameter is invalid")
	}
	c := a.Contents[i]
	for _, v := range variable.FindAllString(c.Body+c.ButtonURL, -1) {
		if values[strings.Trim(v, "{}")] == "" {
			return refuse(21656, "The ContentVariables Parameter is invalid")
		}
	}
	fill := func(text string) string {
		return variable.ReplaceAllStringFunc(text, func(v string) string { return values[strings.Trim(v, "{}")] })
	}
	m.Text = fill(c.Body)
	if c.ButtonURL != "" {
		m.Buttons = append(m.Buttons, Button{Title: c.ButtonLabel, URL: fill(c.ButtonURL)})
	}
	for _, title := range c.QuickReplies {
		m.Buttons = append(m.Buttons, Button{ID: title, Title: title})
	}
	return nil
}

// resource is the Message resource. All members are strings or null, but for
// error_code.
type resource struct {
	AccountSID          string            `json:"account_sid"`
	APIVersion          string            `json:"api_version"`
	Body                string            `json:"body"`
	DateCreated         string            `json:"date_created"`
	DateSent            *string           `json:"date_sent"`
	DateUpdated         string            `json:"date_updated"`
	Direction           string            `json:"direction"`
	ErrorCode           *int              `json:"error_code"`
	ErrorMessage        *string           `json:"error_message"`
	From                *string           `json:"from"`
	MessagingServiceSID *string           `json:"messaging_service_sid"`
	NumMedia            string            `json:"num_media"`
	NumSegments         string            `json:"num_segments"`
	Price               *string           `json:"price"`
	PriceUnit           string            `json:"price_unit"`
	SID                 string            `json:"sid"`
	Status              string            `json:"status"`
	SubresourceURIs     map[string]string `json:"subresource_uris"`
	To                  string            `json:"to"`
	URI                 string            `json:"uri"`
}

func (s *Simulator) resource(m *message) resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := "/" + apiVersion + "/Accounts/" + m.account.SID + "/Messages/" + m.ID
	business, customer := m.address(m.From), m.address(m.To)
	r := resource{
		AccountSID: m.account.SID, APIVersion: apiVersion, Body: m.Text, Direction: m.direction, PriceUnit: "USD",
		DateCreated: date(m.createdAt), DateUpdated: date(m.updatedAt),
		From: &business, To: customer, SID: m.ID, Status: m.status, URI: path + ".json",
		NumMedia: strconv.Itoa(m.media), NumSegments: strconv.Itoa(segments(m.Text)),
		SubresourceURIs: map[string]string{"media": path + "/Media.json"},
	}
	if m.service != "" {
		r.MessagingServiceSID = &m.service
		if m.status == statusAccepted {
			r.From, r.NumSegments = nil, "0" // the service is still choosing
		}
	}
	if !m.sentAt.IsZero() {
		sent := date(m.sentAt)
		r.DateSent = &sent
	}
	if m.errorCode != 0 {
		code, text := m.errorCode, errorTexts[m.errorCode]
		r.ErrorCode, r.ErrorMessage = &code, &text
	}
	return r
}

// errorTexts are the sentences of the codes a message can end with.
var errorTexts = map[int]string{
	codeUnreachable:   "Unreachable destination handset",
	codeBlockedSMS:    "Message blocked",
	codeNotOnWhatsApp: "Channel invalid recipient",
	codeBlockedByUser: "Message Failed because user blocked sender",
	codeOutsideWindow: "Failed to send freeform message because you are outside the allowed window",
	codeOptedOut:      "Attempt to send to unsubscribed recipient",
}

// address is an E.164 number the way this message's channel writes it.
func (m *message) address(number string) string {
	if m.Channel == WhatsApp {
		return whatsAppPrefix + number
	}
	return number
}

// date writes a time as Twilio does, by RFC 2822.
func date(t time.Time) string { return t.UTC().Format(time.RFC1123Z) }

func (s *Simulator) fetchMessage(w http.ResponseWriter, r *http.Request, _ *string) *apiError {
	account, failure := s.authenticate(r, r.PathValue("account"))
	if failure != nil {
		return failure
	}
	sid, ok := strings.CutSuffix(r.PathValue("message"), ".json")
	s.mu.Lock()
	m := s.messages[sid]
	s.mu.Unlock()
	if !ok || m == nil || m.account != account {
		return notFound(r)
	}
	fault := s.set.Take(CallFetch)
	if fault.Before(w, r) || fault.After(w, r) {
		return nil
	}
	writeJSON(w, http.StatusOK, s.resource(m))
	return nil
}

func (s *Simulator) fetchAccount(w http.ResponseWriter, r *http.Request, _ *string) *apiError {
	sid, ok := strings.CutSuffix(r.PathValue("file"), ".json")
	account, failure := s.authenticate(r, sid)
	if failure != nil {
		return failure
	}
	if !ok {
		return notFound(r)
	}
	fault := s.set.Take(CallAccount)
	if fault.Before(w, r) || fault.After(w, r) {
		return nil
	}
	writeJSON(w, http.StatusOK, map[string]string{"sid": account.SID, "status": "active", "type": "Full",
		"friendly_name": "Simulated account", "uri": "/" + apiVersion + "/Accounts/" + account.SID + ".json"})
	return nil
}

// listMessages answers newest first, filtered by To, From and the day or time of
// sending.
func (s *Simulator) listMessages(w http.ResponseWriter, r *http.Request, _ *string) *apiError {
	account, failure := s.authenticate(r, r.PathValue("account"))
	if failure != nil {
		return failure
	}
	q := r.URL.Query()
	size, page := 50, 0
	for name, into := range map[string]*int{"PageSize": &size, "Page": &page} {
		if text := q.Get(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 {
				return refuse(20001, "%s must be a number", name)
			}
			*into = n
		}
	}
	size = min(max(size, 1), longestMessageList)
	within, failure := sentWithin(q)
	if failure != nil {
		return failure
	}
	fault := s.set.Take(CallList)
	if fault.Before(w, r) || fault.After(w, r) {
		return nil
	}

	s.mu.Lock()
	all := slices.Clone(s.order)
	s.mu.Unlock()
	slices.Reverse(all)
	rows := []resource{}
	seen, more := 0, false
	for _, m := range all {
		if m.account != account || !matches(q.Get("To"), m.address(m.To)) || !matches(q.Get("From"), m.address(m.From)) {
			continue
		}
		s.mu.Lock()
		sentAt := cmp.Or(m.sentAt, m.createdAt)
		s.mu.Unlock()
		if !within(sentAt) {
			continue
		}
		if seen++; seen <= page*size {
			continue
		}
		if len(rows) == size {
			more = true
			break
		}
		rows = append(rows, s.resource(m))
	}
	writeJSON(w, http.StatusOK, listPage(r, rows, page, size, more))
	return nil
}

func matches(wanted, got string) bool { return wanted == "" || wanted == got }

// sentWithin reads DateSent, DateSent> and DateSent<: a day or a time.
func sentWithin(q url.Values) (func(time.Time) bool, *apiError) {
	type bound struct {
		name string
		ok   func(at, from, to time.Time) bool
	}
	var checks []func(time.Time) bool
	for _, b := range []bound{
		{"DateSent", func(at, from, to time.Time) bool { return !at.Before(from) && at.Before(to) }},
		{"DateSent>", func(at, from, _ time.Time) bool { return !at.Before(from) }},
		{"DateSent<", func(at, _, to time.Time) bool { return at.Before(to) }},
	} {
		text := q.Get(b.name)
		if text == "" {
			continue
		}
		from, err := time.Parse(time.DateOnly, text)
		to := from.Add(24 * time.Hour)
		if err != nil {
			if from, err = time.Parse(time.RFC3339, text); err != nil {
				return nil, refuse(20001, "%s is not a date", b.name)
			}
			to = from.Add(time.Second)
		}
		checks = append(checks, func(at time.Time) bool { return b.ok(at, from, to) })
	}
	return func(at time.Time) bool {
		return !slices.ContainsFunc(checks, func(ok func(time.Time) bool) bool { return !ok(at) })
	}, nil
}

func listPage(r *http.Request, rows []resource, page, size int, more bool) map[string]any {
	uri := func(n int) string {
		q := r.URL.Query()
		q.Set("Page", strconv.Itoa(n))
		q.Set("PageSize", strconv.Itoa(size))
		return strings.TrimPrefix(r.URL.Path, "/twilio") + "?" + q.Encode()
	}
	body := map[string]any{
		"messages": rows, "page": page, "page_size": size, "start": page * size,
		"end": page*size + max(0, len(rows)-1), "uri": uri(page), "first_page_uri": uri(0),
		"next_page_uri": nil, "previous_page_uri": nil,
	}
	if more {
		body["next_page_uri"] = uri(page + 1)
	}
	if page > 0 {
		body["previous_page_uri"] = uri(page - 1)
	}
	return body
}
