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

// Register puts the calls and the control calls on mux, under /twilio/.
func (s *Simulator) Register(mux *http.ServeMux) {
	base := "/twilio/" + apiVersion + "/Accounts/{account}"
	mux.HandleFunc("POST "+base+"/Messages.json", s.logged(CallMessages, s.createMessage))
	mux.HandleFunc("GET "+base+"/Messages.json", s.logged(CallList, s.listMessages))
	mux.HandleFunc("GET "+base+"/Messages/{message}", s.logged(CallFetch, s.fetchMessage))
	s.registerResources(mux)
	s.registerControl(mux)
	mux.HandleFunc("/twilio/", s.logged("twilio.unknown", func(w http.ResponseWriter, r *http.Request, _ *string) *apiError {
		return notFound(r)
	}))
}

// apiError is one refusal.
type apiError struct {
	status  int
	code    int
	message string
	problem bool // answered as a problem document
}

func refuse(code int, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, code: code, message: fmt.Sprintf(format, args...)}
}

func notFound(r *http.Request) *apiError {
	path := strings.TrimPrefix(r.URL.Path, "/twilio")
	return &apiError{status: http.StatusNotFound, code: 20404, message: "The requested resource " + path + " was not found"}
}

func (e *apiError) write(w http.ResponseWriter) {
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="Twilio API"`)
	}
	if e.problem {
		e.writeProblem(w)
		return
	}
	writeJSON(w, e.status, struct {
		Code     int    `json:"code"`
		Message  string `json:"message"`
		MoreInfo string `json:"more_info"`
		Status   int    `json:"status"`
	}{e.code, e.message, fmt.Sprintf("https://www.twilio.com/docs/errors/%d", e.code), e.status})
}

// writeProblem answers by RFC 9457, as Twilio's v3 does.
func (e *apiError) writeProblem(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may have gone
		"type": fmt.Sprintf("https://www.twilio.com/docs/errors/%d", e.code), "title": http.StatusText(e.status),
		"status": e.status, "detail": e.message, "code": e.code})
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
// own. An empty sid stands for a path that names no account.
func (s *Simulator) authenticate(r *http.Request, sid string) (*Account, *apiError) {
	user, password, _ := r.BasicAuth()
	for i := range s.cfg.Accounts {
		a := &s.cfg.Accounts[i]
		secret, isKey := a.Keys[user]
		if user == a.SID {
			secret = a.AuthToken
		} else if !isKey {
			continue
		}
		if secret == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(password)) != 1 {
			continue
		}
		if sid != "" && sid != a.SID {
			return nil, notFound(r)
		}
		return a, nil
	}
	return nil, coded(20003, 0)
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
	leave, failure := s.enter(account)
	if failure != nil {
		return failure
	}
	defer leave()
	m, failure := s.newMessage(account, r.PostForm)
	if failure != nil {
		return failure
	}
	*ref = reference(m.callback)

	fault, failure := s.fault(w, CallMessages)
	if failure != nil || fault.Before(w, r) {
		return failure
	}
	if f, ok := fault.Failure(); ok {
		m.failure, m.failAfter, m.ending = f.Code, f.After, f.Ending
	}
	if failure := s.queue(m); failure != nil {
		return failure
	}
	s.store(m)
	answer := s.resource(m)
	if !account.Test {
		s.start(m)
	}
	if fault.After(w, r) {
		return nil
	}
	writeJSON(w, http.StatusCreated, answer)
	return nil
}

// enter counts a send of an account while it is worked on.
func (s *Simulator) enter(a *Account) (leave func(), failure *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.inactive[a.SID]:
		return nil, coded(20005, 0)
	case s.cfg.Concurrency > 0 && s.sending[a.SID] >= s.cfg.Concurrency:
		return nil, coded(20429, 0)
	}
	s.sending[a.SID]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sending[a.SID]--
	}, nil
}

// longestQueue is how much traffic a sender's queue holds.
const longestQueue = 10 * time.Hour

// queue gives an SMS its turn in the queue of its sender, or refuses it when the
// queue is full.
func (s *Simulator) queue(m *message) *apiError {
	n := m.account.number(m.Channel, m.From)
	if n == nil || n.PerSecond <= 0 {
		return nil
	}
	p := pair{m.Channel, m.From, ""}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if s.turns[p].Before(now) {
		s.turns[p] = now
	}
	m.turn = s.turns[p].Sub(now)
	if m.turn > longestQueue {
		return coded(21611, 0)
	}
	s.turns[p] = s.turns[p].Add(time.Duration(float64(segments(m.Text)) / n.PerSecond * float64(time.Second)))
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
		createdAt: s.cfg.Now(), status: statusQueued, callback: form.Get("StatusCallback"), validity: 36000 * time.Second}
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
	if failure := m.setValidity(form.Get("ValidityPeriod")); failure != nil {
		return nil, failure
	}
	m.ID = NewID()
	if len(media) > 0 {
		m.ID = newSID("MM")
	}
	switch {
	case m.Channel == SMS && s.isOptedOut(a, m.pair()):
		return nil, refuse(codeOptedOut, "Attempt to send to unsubscribed recipient")
	case utf8.RuneCountInString(body) > longestBody:
		return nil, refuse(21617, "The concatenated message body exceeds the %d character limit", longestBody)
	case m.callback != "" && !callable(m.callback):
		return nil, refuse(21609, "The 'StatusCallback' URL is not a valid URL.")
	case len(media) > mostMedia || !allCallable(media):
		return nil, refuse(21620, "Invalid media URL(s)")
	}
	if content != "" {
		if failure := s.setContent(m, content, form.Get("ContentVariables")); failure != nil {
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
	if m.Channel == WhatsApp && userIDForm.MatchString(m.To) {
		s.findUser(m)
	}
	if m.account.Test && magicTo[m.To] != 0 {
		return coded(magicTo[m.To], 0)
	}
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

var userIDForm = regexp.MustCompile(`^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}$`)

// findUser puts the number of a user id into To.
func (s *Simulator) findUser(m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number, known := s.userIDs[m.To]; known {
		m.addressed, m.To = m.To, number
	}
}

// magicTo and magicFrom are the outcomes of Twilio's magic numbers.
var (
	magicTo = map[string]int{"+15005550001": 21211, "+15005550002": 21612, "+15005550003": 21408,
		"+15005550004": 21610, "+15005550009": 21614}
	magicFrom = map[string]int{"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611, "+15005550006": 0}
)

// setValidity reads ValidityPeriod; without one, the service's counts.
func (m *message) setValidity(text string) *apiError {
	seconds := 0
	if text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 36000 {
			return refuse(20001, "ValidityPeriod must be from 1 to 36000")
		}
		seconds = n
	} else if sv := m.account.serviceBy(m.service); sv != nil {
		seconds = sv.ValidityPeriod
	}
	if seconds > 0 {
		m.validity = time.Duration(seconds) * time.Second
	}
	return nil
}

// serviceBy finds a Messaging Service by its SID, or nil.
func (a *Account) serviceBy(sid string) *Service {
	i := slices.IndexFunc(a.Services, func(sv Service) bool { return sv.SID == sid })
	if i < 0 {
		return nil
	}
	return &a.Services[i]
}

// pickSender finds the number that sends. A service without From chooses one; with
// it, From is pinned, and must be one of the service's.
func (m *message) pickSender(a *Account, from, service string) *apiError {
	number, isWhatsApp := strings.CutPrefix(from, whatsAppPrefix)
	if code, magic := magicFrom[number]; magic && a.Test {
		m.From = number
		if code != 0 {
			return coded(code, 0)
		}
		return nil
	}
	if service != "" {
		sv := a.serviceBy(service)
		switch {
		case sv == nil:
			return coded(21701, 0)
		case from == "":
			return m.chooseSender(sv)
		case !slices.Contains(sv.Numbers, number):
			return coded(21606, 0)
		}
		m.useService(sv)
	}
	switch {
	case isWhatsApp != (m.Channel == WhatsApp), isWhatsApp && a.number(WhatsApp, number) == nil:
		return coded(63007, 0)
	case !e164.MatchString(number):
		return coded(21212, 0)
	case a.number(m.Channel, number) == nil:
		return coded(21606, 0)
	}
	m.From = number
	return nil
}

// chooseSender takes the service's first number that has the channel.
func (m *message) chooseSender(sv *Service) *apiError {
	m.status = statusAccepted
	m.useService(sv)
	for _, number := range sv.Numbers {
		if m.account.number(m.Channel, number) != nil {
			m.From = number
			return nil
		}
	}
	return coded(21703, 0)
}

func (m *message) useService(sv *Service) { m.callback = cmp.Or(m.callback, sv.StatusCallback) }

var variable = regexp.MustCompile(`\{\{\d+\}\}`)

// setContent fills a template. Variables come as JSON text: an object of strings.
// What WhatsApp thinks of the template shows later, in a callback.
func (s *Simulator) setContent(m *message, sid, variables string) *apiError {
	s.mu.Lock()
	found := s.contents[contentKey{m.account.SID, sid}]
	var c Content
	if found != nil {
		c = *found
	}
	s.mu.Unlock()
	if found == nil {
		return coded(21655, 0)
	}
	if m.Channel == WhatsApp {
		switch {
		case c.Status == contentPaused:
			m.failure = codePaused
		case c.Status == contentDisabled:
			m.failure = codeDisabled
		case c.Status != contentApproved && !s.windowOpen(m.pair()):
			m.failure = codeOutsideWindow // what is not approved is free-form
		}
	}
	values := map[string]string{}
	if variables != "" && json.Unmarshal([]byte(variables), &values) != nil {
		return coded(21656, 0)
	}
	for _, v := range variable.FindAllString(c.Body+c.ButtonURL, -1) {
		if values[strings.Trim(v, "{}")] == "" {
			return coded(21656, 0)
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
	business, customer := m.address(m.From), m.recipient()
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
		if m.direction != directionInbound && m.errorCode == 0 {
			price := m.price()
			r.Price = &price
		}
	}
	if m.errorCode != 0 {
		code, text := m.errorCode, errorText(m.errorCode)
		r.ErrorCode, r.ErrorMessage = &code, &text
	}
	return r
}

// address is an E.164 number the way this message's channel writes it.
func (m *message) address(number string) string {
	if m.Channel == WhatsApp {
		return whatsAppPrefix + number
	}
	return number
}

// recipient is the customer, the way the message was addressed.
func (m *message) recipient() string {
	return m.address(cmp.Or(m.addressed, m.To))
}

// price is what a sent message cost, a negative number of dollars: each segment of
// an SMS, each WhatsApp message.
func (m *message) price() string {
	if m.Channel == WhatsApp {
		return "-0.00500"
	}
	return fmt.Sprintf("-%.5f", 0.0079*float64(segments(m.Text)))
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
	fault, failure := s.fault(w, CallFetch)
	if failure != nil || fault.Before(w, r) || fault.After(w, r) {
		return failure
	}
	writeJSON(w, http.StatusOK, s.resource(m))
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
	fault, failure := s.fault(w, CallList)
	if failure != nil || fault.Before(w, r) || fault.After(w, r) {
		return failure
	}

	s.mu.Lock()
	all := slices.Clone(s.order)
	s.mu.Unlock()
	slices.Reverse(all)
	rows := []resource{}
	seen, more := 0, false
	for _, m := range all {
		if m.account != account || !matches(q.Get("To"), m.recipient()) || !matches(q.Get("From"), m.address(m.From)) {
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
