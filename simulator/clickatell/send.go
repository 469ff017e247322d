package clickatell

import (
	"cmp"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"paythread/simulator/faults"
)

const (
	mostPerCall     = 200
	longestWhatsApp = 4096
	longestTemplate = 1024
	longestRequest  = 20 << 20 // bytes of one call: media come inside
)

// Register puts the calls on mux, under /clickatell/.
func (s *Simulator) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST /clickatell/v1/message", s.logged(CallMessages, refuseCall, s.sendMessages))
	mux.HandleFunc("GET /clickatell/v1/message/{id}", s.logged(CallFetch, refuseCall, s.fetchMessage))
	mux.HandleFunc("GET /clickatell/v1/balance", s.logged(CallBalance, refuseCall, s.fetchBalance))
	mux.HandleFunc("POST /clickatell/messages", s.logged(CallLegacyMessages, refuseLegacy, s.sendLegacy))
	mux.HandleFunc("GET /clickatell/messages/http/send", s.logged(CallLegacyMessages, refuseLegacy, s.sendByQuery))
	s.registerControl(mux)
	for path, code := range map[string]int{
		"/clickatell/":                   codeNoResource,
		"/clickatell/v1/message":         codeNoMethod,
		"/clickatell/v1/message/{id}":    codeNoMethod,
		"/clickatell/v1/balance":         codeNoMethod,
		"/clickatell/messages":           codeNoMethod,
		"/clickatell/messages/http/send": codeNoMethod,
	} {
		mux.HandleFunc(path, s.logged("clickatell.unknown", refuseCall, func(_ http.ResponseWriter, r *http.Request, _ *string) *refusal {
			if _, refused := s.authenticate(r.Header.Get("Authorization")); refused != nil {
				return refused
			}
			return refuse(code)
		}))
	}
}

// answer is what every send is answered with. Error is an object in the One API,
// a sentence in the older ones, and null where nothing is wrong with the call.
type answer struct {
	Messages []any `json:"messages"`
	Error    any   `json:"error"`
}

type outcome struct {
	ID       *string  `json:"apiMessageId"`
	Accepted bool     `json:"accepted"`
	To       string   `json:"to"`
	ClientID *string  `json:"clientMessageId,omitempty"`
	Error    *problem `json:"error"`
}

type problem struct {
	Code        int    `json:"code"`
	Description string `json:"description"`
}

type legacyOutcome struct {
	ID       *string `json:"apiMessageId"`
	Accepted bool    `json:"accepted"`
	To       string  `json:"to"`
	Error    *string `json:"error"`
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = newEncoder(w).Encode(body) // the client may have gone
}

func newEncoder(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc
}

// refuseCall answers a call that is refused whole.
func refuseCall(w http.ResponseWriter, r *refusal) {
	writeJSON(w, r.status, answer{[]any{}, problem{r.code, r.text}})
}

func refuseLegacy(w http.ResponseWriter, r *refusal) {
	writeJSON(w, r.status, answer{[]any{}, r.text})
}

// logged answers a refusal, and puts the call in the call log when it has been
// answered. The handler may leave the caller's own references in its last
// argument.
func (s *Simulator) logged(call string, answerWith func(http.ResponseWriter, *refusal),
	h func(http.ResponseWriter, *http.Request, *string) *refusal) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rec := &faults.Recorder{ResponseWriter: w}
		ref := ""
		defer func() {
			s.set.Log(faults.Call{At: s.cfg.Now(), Call: call, Method: r.Method, Path: r.URL.Path, Status: rec.Status, Ref: ref})
		}()
		if refused := h(rec, r, &ref); refused != nil {
			answerWith(rec, refused)
		}
	}
}

// authenticate finds the integration with that key. The key stands alone in the
// header: "Bearer" before it makes it another key.
func (s *Simulator) authenticate(key string) (*account, *refusal) {
	for _, a := range s.accounts {
		if subtle.ConstantTimeCompare([]byte(a.APIKey), []byte(key)) == 1 {
			return a, nil
		}
	}
	return nil, refuse(codeBadKey)
}

// object is a JSON object whose members are found by their exact names; the
// decoder alone would take "Content" for "content".
type object map[string]json.RawMessage

// get reads a member that may be missing or null. It reports whether the type
// was right.
func (o object) get(name string, into any) bool { return decode(o[name], into) }

func decode(raw json.RawMessage, into any) bool {
	return raw == nil || json.Unmarshal(raw, into) == nil
}

// readObject reads the body of a send.
func readObject(w http.ResponseWriter, r *http.Request) (object, *refusal) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, refuse(codeContentType)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longestRequest))
	var tooLarge *http.MaxBytesError
	var o object
	switch {
	case errors.As(err, &tooLarge):
		return nil, refuse(codeTooLong)
	case err != nil || !utf8.Valid(body) || json.Unmarshal(body, &o) != nil || o == nil:
		return nil, refuse(codeMalformed)
	}
	return o, nil
}

// wish is one message as a caller asks for it.
type wish struct {
	channel, to, from, content string
	clientID                   *string
	contentType, caption       string
	template                   string
	parameters                 map[string]string
}

// readWish reads one element of a batch. A member of the wrong type spoils the
// whole call; what is missing or wrong inside is refused message by message.
func readWish(o object) (wish, bool) {
	var in wish
	var preview *bool
	var related *string
	ok := o.get("channel", &in.channel) && o.get("to", &in.to) && o.get("from", &in.from) && o.get("content", &in.content) &&
		o.get("clientMessageId", &in.clientID) && o.get("contentType", &in.contentType) && o.get("caption", &in.caption) &&
		o.get("previewFirstUrl", &preview) && o.get("relatedMessageId", &related)
	return in, ok && in.readTemplate(o)
}

// readTemplate reads a template's name and parameters, which are an object by
// number, or a list.
func (in *wish) readTemplate(o object) bool {
	name, parameters, ok := templateOf(o)
	if !ok || !decode(name, &in.template) {
		return false
	}
	var list []string
	if json.Unmarshal(parameters, &list) != nil {
		return decode(parameters, &in.parameters)
	}
	in.parameters = make(map[string]string, len(list))
	for i, value := range list {
		in.parameters[strconv.Itoa(i+1)] = value
	}
	return true
}

// templateOf finds a template's name and parameters. The documents nest them in
// hsm, the table of parameters has them flat, and newer examples nest them in
// template, with a body: all are taken.
func templateOf(o object) (name, parameters json.RawMessage, ok bool) {
	var hsm, named, body object
	if !o.get("hsm", &hsm) {
		return nil, nil, false
	}
	if hsm != nil {
		return hsm["template"], hsm["parameters"], true
	}
	if json.Unmarshal(o["template"], &named) != nil || named == nil {
		return o["template"], o["parameters"], true
	}
	if !named.get("body", &body) {
		return nil, nil, false
	}
	if body != nil {
		return named["templateName"], body["parameters"], true
	}
	return named["templateName"], named["parameters"], true
}

func (s *Simulator) sendMessages(w http.ResponseWriter, r *http.Request, ref *string) *refusal {
	a, refused := s.authenticate(r.Header.Get("Authorization"))
	if refused != nil {
		return refused
	}
	body, refused := readObject(w, r)
	if refused != nil {
		return refused
	}
	var elements []object
	if !body.get("messages", &elements) {
		return refuse(codeMalformed)
	}
	switch {
	case len(elements) == 0:
		return refuse(codeBadParameter, "messages")
	case len(elements) > mostPerCall:
		return refuse(codeTooMany)
	}
	wishes := make([]wish, 0, len(elements))
	for _, element := range elements {
		in, ok := readWish(element)
		if !ok {
			return refuse(codeMalformed)
		}
		wishes = append(wishes, in)
	}
	*ref = references(wishes)
	if refused := s.limit(a, len(wishes)); refused != nil {
		return refused
	}
	sent, unsent := s.newMessages(a, wishes)
	return s.dispatch(w, r, CallMessages, sent, unsent, func() {
		status := http.StatusAccepted
		var outcomes []any
		for i, in := range wishes {
			o := outcome{To: in.to, ClientID: in.clientID}
			if why := unsent[i]; why != nil {
				o.Error = &problem{why.code, why.text}
				status = why.status
			} else {
				o.ID, o.Accepted = &sent[i].ID, true
			}
			outcomes = append(outcomes, o)
		}
		if len(wishes) > 1 && status != http.StatusAccepted {
			status = http.StatusMultiStatus
		}
		// The order of the answer is not that of the request.
		s.shuffle(len(outcomes), func(i, j int) { outcomes[i], outcomes[j] = outcomes[j], outcomes[i] })
		writeJSON(w, status, answer{outcomes, nil})
	})
}

// references are the callers' own ids of a batch, for the call log.
func references(wishes []wish) string {
	var ids []string
	for _, in := range wishes {
		if in.clientID != nil {
			ids = append(ids, *in.clientID)
		}
	}
	return strings.Join(ids, ",")
}

// dispatch lets the messages of one call take effect, and answers, as far as its
// fault allows. An element is in sent or in unsent.
func (s *Simulator) dispatch(w http.ResponseWriter, r *http.Request, call string, sent []*message, unsent []*refusal, write func()) *refusal {
	fault, refused := s.fault(w, call)
	switch {
	case refused != nil && !refused.each:
		return refused
	case refused != nil:
		for i := range sent {
			sent[i], unsent[i] = nil, refused
		}
	case fault.Before(w, r):
		return nil
	}
	accepted := slices.DeleteFunc(slices.Clone(sent), func(m *message) bool { return m == nil })
	for _, m := range accepted {
		if f, ok := fault.Failure(); ok {
			m.failure, m.failAfter = failureOf(f.Code), f.After
		}
	}
	s.store(accepted)
	for _, m := range accepted {
		s.start(m)
	}
	if fault.After(w, r) {
		return nil
	}
	write()
	return nil
}

// limit counts n messages, and refuses the call that goes over the limit of this
// second.
func (s *Simulator) limit(a *account, n int) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.cfg.Now().Unix(); now != a.second {
		a.second, a.sent = now, 0
	}
	if a.PerSecond > 0 && a.sent+n > a.PerSecond {
		return refuse(codeRateLimit)
	}
	a.sent += n
	return nil
}

// newMessages checks every wish by itself: each becomes a message or a refusal.
func (s *Simulator) newMessages(a *account, wishes []wish) (sent []*message, unsent []*refusal) {
	sent, unsent = make([]*message, len(wishes)), make([]*refusal, len(wishes))
	request := NewID()
	for i, in := range wishes {
		sent[i], unsent[i] = s.newMessage(a, in)
		if sent[i] != nil {
			sent[i].requestID = request
		}
	}
	return sent, unsent
}

var recipient = regexp.MustCompile(`^[1-9]\d{6,14}$`)

func (s *Simulator) newMessage(a *account, in wish) (*message, *refusal) {
	m := &message{account: a}
	if in.clientID != nil {
		m.clientID = *in.clientID
	}
	m.Channel = cmp.Or(in.channel, SMS)
	switch {
	case m.Channel != SMS && m.Channel != WhatsApp:
		return nil, refuse(codeBadParameter, "channel")
	case in.to == "":
		return nil, refuse(codeBadParameter, "to")
	case !recipient.MatchString(in.to):
		return nil, refuse(codeBadRecipient, in.to)
	}
	handset := s.phones.Handset("+" + in.to)
	m.To = handset.E164
	if refused := m.pickSender(a, in.from); refused != nil {
		return nil, refused
	}
	s.mu.Lock()
	spent := a.balance <= 0
	s.mu.Unlock()
	switch {
	case spent:
		return nil, refuse(codeNoCredit)
	case s.isOptedOut(m.pair()):
		return nil, refuse(codeOptedOut)
	case m.Channel == WhatsApp && !handset.OnWhatsApp && !a.ChecksLate:
		return nil, refuse(codeNotOnChannel)
	}
	if refused := s.setContent(m, in); refused != nil {
		return nil, refused
	}
	m.ID = s.newID()
	return m, nil
}

// pickSender finds the number that sends: the first of the channel when the
// caller names none.
func (m *message) pickSender(a *account, from string) *refusal {
	n := a.number(m.Channel, "")
	if n == nil {
		return refuse(codeNoChannel)
	}
	if from != "" {
		n = a.number(m.Channel, "+"+from)
	}
	switch {
	case n == nil:
		return refuse(codeFromUnknown)
	case n.Suspended:
		return refuse(codeFromSuspended)
	case n.OneWay:
		return refuse(codeOneWay)
	}
	m.From = n.E164
	return nil
}

// setContent puts the text on the message. What is wrong with a text for WhatsApp
// mostly shows later, as a status.
func (s *Simulator) setContent(m *message, in wish) *refusal {
	m.Text = in.content
	switch {
	case in.template != "" && m.Channel != WhatsApp:
		return refuse(codeBadParameter, "template")
	case in.template != "":
		m.fillTemplate(in.template, in.parameters)
		return nil
	case in.content == "":
		return refuse(codeBadParameter, "content")
	case in.contentType != "" && m.Channel != WhatsApp:
		return refuse(codeContentType)
	case in.contentType != "":
		m.Text = cmp.Or(in.caption, in.contentType) // the content is the file itself
	case m.Channel == SMS && parts(in.content) > m.account.MaxParts:
		return refuse(codeTooManyParts)
	case m.Channel == WhatsApp && utf8.RuneCountInString(in.content) > longestWhatsApp:
		return refuse(codeTooLong)
	}
	if m.Channel == WhatsApp && !s.windowOpen(m.pair()) {
		m.failure = statusNoWindow
	}
	return nil
}

var variable = regexp.MustCompile(`\{\{\d+\}\}`)

// fillTemplate puts a template's words on the message, or decides how it fails.
func (m *message) fillTemplate(name string, parameters map[string]string) {
	i := slices.IndexFunc(m.account.Templates, func(t Template) bool { return t.Name == name })
	if i < 0 {
		m.failure = statusNoTemplate
		return
	}
	t := m.account.Templates[i]
	used := map[string]bool{}
	fill := func(text string) string {
		return variable.ReplaceAllStringFunc(text, func(v string) string {
			number := strings.Trim(v, "{}")
			used[number] = true
			return parameters[number]
		})
	}
	m.Text = fill(t.Body)
	if t.ButtonURL != "" {
		m.Buttons = append(m.Buttons, Button{Title: t.ButtonLabel, URL: fill(t.ButtonURL)})
	}
	for _, title := range t.QuickReplies {
		m.Buttons = append(m.Buttons, Button{ID: title, Title: title})
	}
	given := 0
	for number, value := range parameters {
		if used[number] && value != "" {
			given++
		}
		// WhatsApp refuses line breaks, tabs and more than four spaces in a row.
		if strings.ContainsAny(value, "\n\t") || strings.Contains(value, "     ") {
			m.failure = statusBadParameter
		}
	}
	switch {
	case given != len(used) || given != len(parameters):
		m.failure = statusMismatch
	case utf8.RuneCountInString(m.Text) > longestTemplate:
		m.failure = statusLongTemplate
	}
}

func (s *Simulator) fetchMessage(w http.ResponseWriter, r *http.Request, _ *string) *refusal {
	a, refused := s.authenticate(r.Header.Get("Authorization"))
	if refused != nil {
		return refused
	}
	fault, refused := s.fault(w, CallFetch)
	if refused != nil || fault.Before(w, r) || fault.After(w, r) {
		return refused
	}
	type entry struct {
		Status    string `json:"status"`
		Timestamp int64  `json:"timestamp"`
	}
	s.mu.Lock()
	m := s.messages[r.PathValue("id")]
	var body any = entry{"UNKNOWN", s.cfg.Now().UnixMilli()} // no message, so no channel and no time of its own
	if m != nil && m.account == a {
		body = map[string]entry{m.Channel: {m.status.name, m.updatedAt.UnixMilli()}}
	}
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, body)
	return nil
}

func (s *Simulator) fetchBalance(w http.ResponseWriter, r *http.Request, _ *string) *refusal {
	a, refused := s.authenticate(r.Header.Get("Authorization"))
	if refused != nil {
		return refused
	}
	fault, refused := s.fault(w, CallBalance)
	if refused != nil || fault.Before(w, r) || fault.After(w, r) {
		return refused
	}
	s.mu.Lock()
	balance := a.balance
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, struct {
		Balance  float64 `json:"balance"`
		Currency string  `json:"currency"`
	}{balance, a.Currency})
	return nil
}

// sendLegacy is POST /messages of the older REST API: one text for several
// numbers, SMS only.
func (s *Simulator) sendLegacy(w http.ResponseWriter, r *http.Request, ref *string) *refusal {
	a, refused := s.authenticate(r.Header.Get("Authorization"))
	if refused != nil {
		return refused
	}
	body, refused := readObject(w, r)
	if refused != nil {
		return refused
	}
	var in wish
	var to []string
	if !body.get("to", &to) || !body.get("content", &in.content) || !body.get("from", &in.from) || !body.get("clientMessageId", &in.clientID) {
		return refuse(codeMalformed)
	}
	return s.sendToAll(w, r, ref, a, in, to)
}

// sendByQuery is the older HTTP API, whose key stands in the address.
func (s *Simulator) sendByQuery(w http.ResponseWriter, r *http.Request, ref *string) *refusal {
	q := r.URL.Query()
	a, refused := s.authenticate(q.Get("apiKey"))
	if refused != nil {
		return refused
	}
	in := wish{content: q.Get("content"), from: digits(q.Get("from"))}
	if id := q.Get("clientMessageId"); id != "" {
		in.clientID = &id
	}
	var to []string
	if q.Get("to") != "" {
		to = strings.Split(q.Get("to"), ",")
	}
	return s.sendToAll(w, r, ref, a, in, to)
}

func (s *Simulator) sendToAll(w http.ResponseWriter, r *http.Request, ref *string, a *account, in wish, to []string) *refusal {
	switch {
	case len(to) == 0:
		return refuse(codeBadParameter, "to")
	case in.content == "":
		return refuse(codeBadParameter, "content")
	case len(to) > mostPerCall:
		return refuse(codeTooMany)
	}
	// A wrong sender is not an error to these APIs: 200, no messages, a sentence.
	if refused := (&message{Delivery: Delivery{Channel: SMS}}).pickSender(a, in.from); refused != nil {
		return &refusal{code: refused.code, status: http.StatusOK, text: "Two-Way integration error - " + refused.text}
	}
	wishes := make([]wish, 0, len(to))
	for _, number := range to {
		one := in
		one.to = strings.TrimSpace(number)
		wishes = append(wishes, one)
	}
	*ref = references(wishes[:1])
	if refused := s.limit(a, len(wishes)); refused != nil {
		return refused
	}
	sent, unsent := s.newMessages(a, wishes)
	return s.dispatch(w, r, CallLegacyMessages, sent, unsent, func() {
		var outcomes []any
		for i, one := range wishes {
			o := legacyOutcome{To: one.to}
			if why := unsent[i]; why != nil {
				o.Error = &why.text
			} else {
				o.ID, o.Accepted = &sent[i].ID, true
			}
			outcomes = append(outcomes, o)
		}
		writeJSON(w, http.StatusAccepted, answer{outcomes, nil})
	})
}
