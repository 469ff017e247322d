package meta

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"paythread/simulator/faults"
)

// Limits of the Cloud API, in characters unless they say otherwise.
const (
	longestBody        = 1 << 20 // bytes of one call
	longestText        = 4096
	longestInteractive = 1024
	longestFooter      = 60
	longestHeader      = 60
	longestTitle       = 20
	longestButtonID    = 256
	longestURL         = 2000
	longestCallback    = 512
	longestTemplate    = 1024
	mostButtons        = 3
)

var (
	version    = regexp.MustCompile(`^v\d+\.\d+$`)
	userIDForm = regexp.MustCompile(`^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}$`)
	digitsOnly = regexp.MustCompile(`^[1-9]\d{6,14}$`)
)

// Register puts the Graph calls and the control calls on mux, under /meta/.
func (s *Simulator) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST /meta/{version}/{id}/messages", s.postMessages)
	s.registerGraph(mux)
	s.registerControl(mux)
	mux.HandleFunc("/meta/", s.logged("meta.unknown", func(w http.ResponseWriter, r *http.Request, _ *string) {
		errPath.with("No such call.").write(w)
	}))
}

// handler is a call that may name its reference for the log.
type handler func(w http.ResponseWriter, r *http.Request, ref *string)

// logged puts the call in the call log when it has been answered.
func (s *Simulator) logged(call string, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rec := &faults.Recorder{ResponseWriter: w}
		ref := ""
		defer func() {
			s.set.Log(faults.Call{At: s.cfg.Now(), Call: call, Method: r.Method, Path: r.URL.Path, Status: rec.Status, Ref: ref})
		}()
		if v := r.PathValue("version"); v != "" {
			rec.Header().Set("facebook-api-version", v)
		}
		h(rec, r, &ref)
	}
}

// sendRequest is the body of POST messages, as far as this side reads it.
type sendRequest struct {
	MessagingProduct string `json:"messaging_product"`
	RecipientType    string `json:"recipient_type"`
	To               string `json:"to"`
	Recipient        string `json:"recipient"`
	Type             string `json:"type"`
	Callback         string `json:"biz_opaque_callback_data"`
	IdentityHash     string `json:"recipient_identity_key_hash"`

	Text        *textContent     `json:"text"`
	Interactive *interactive     `json:"interactive"`
	Template    *templateContent `json:"template"`

	Status          string           `json:"status"`
	MessageID       string           `json:"message_id"`
	TypingIndicator *typingIndicator `json:"typing_indicator"`
}

type textContent struct {
	PreviewURL bool   `json:"preview_url"`
	Body       string `json:"body"`
}

type typingIndicator struct {
	Type string `json:"type"`
}

type interactive struct {
	Type   string `json:"type"`
	Header *struct {
		Type string `json:"type"`
		Text string `json:"text"`
	} `json:"header"`
	Body *struct {
		Text string `json:"text"`
	} `json:"body"`
	Footer *struct {
		Text string `json:"text"`
	} `json:"footer"`
	Action *struct {
		Name    string `json:"name"`
		Buttons []struct {
			Type  string `json:"type"`
			Reply struct {
				ID    string `json:"id"`
				Title string `json:"title"`
			} `json:"reply"`
		} `json:"buttons"`
		Parameters *struct {
			DisplayText string `json:"display_text"`
			URL         string `json:"url"`
		} `json:"parameters"`
	} `json:"action"`
}

// postMessages sends a message, or marks one as read: Meta has one path for both.
func (s *Simulator) postMessages(w http.ResponseWriter, r *http.Request) {
	number, failure := s.authorize(r)
	var req sendRequest
	if failure == nil {
		failure = readJSON(w, r, &req)
	}
	call, h := CallMessages, s.send
	if req.Status != "" {
		call, h = CallMarkRead, s.markRead
	}
	s.logged(call, func(w http.ResponseWriter, r *http.Request, ref *string) {
		*ref = req.Callback
		if failure == nil {
			failure = h(w, r, number, &req)
		}
		if failure != nil {
			s.addUsage(w, number, failure)
			failure.write(w)
		}
	})(w, r)
}

func readJSON(w http.ResponseWriter, r *http.Request, into any) *graphError {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longestBody))
	if err != nil {
		return errParameter.with("The body could not be read or is too large.")
	}
	if !utf8.Valid(body) {
		return errParameter.with("The body is not UTF-8.")
	}
	err = json.Unmarshal(body, into)
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType):
		return errParameter.with("%s has the wrong type", wrongType.Field)
	case err != nil:
		return errParameter.with("The body is not JSON.")
	}
	return nil
}

func (s *Simulator) send(w http.ResponseWriter, r *http.Request, n *Number, req *sendRequest) *graphError {
	m, failure := s.newMessage(n, req)
	if failure == nil {
		failure = s.mayBegin(m, req)
	}
	if failure != nil {
		return failure
	}
	fault, failure := s.fault(w, CallMessages)
	if failure != nil || fault.Before(w, r) {
		return failure
	}
	if f, ok := fault.Failure(); ok {
		m.failure, m.failAfter = coded(f.Code, 0), f.After
	}
	answer := answerTo(m, s.userID(n, m.handset)) // made first: from start on, m belongs to the network
	wait := s.accept(m)
	if fault.After(w, r) {
		return nil
	}
	wait(r.Context())
	s.addUsage(w, n, nil)
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// mayBegin checks a good message against what the number may do now, and settles
// what is to become of it.
func (s *Simulator) mayBegin(m *message, req *sendRequest) *graphError {
	n, p := m.number, pair{m.number.PhoneNumberID, m.To}
	open := s.windowOpen(p)
	switch {
	case n.Unregistered:
		return errUnregistered
	case !s.take(n.PhoneNumberID, s.cfg.MessagesPerSecond, time.Second/time.Duration(max(1, s.cfg.MessagesPerSecond))):
		return errThroughput.at(s.cfg.RateStatus).with("Message failed to send because there were too many messages sent from this phone number in a short period of time.")
	case !s.take(p, s.cfg.PairBurst, s.cfg.PairInterval):
		return errPairRate.at(s.cfg.RateStatus).with("Message failed to send because there were too many messages sent from this phone number to the same user in a short period of time.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[n.WABAID]
	switch {
	case a.disabled:
		return errLocked
	case !open && s.cfg.Now().Before(a.restrictedUntil):
		return errRestricted
	}
	// A send that carries the customer's new hash acknowledges it; one that carries
	// another is not for this customer any more.
	if id, changed := s.identities[p]; changed {
		id.acknowledged = id.acknowledged || req.IdentityHash == id.hash
		if !id.acknowledged || (req.IdentityHash != "" && req.IdentityHash != id.hash) {
			return errIdentity
		}
		s.identities[p] = id
	}
	var paid bool
	m.pricing, paid = s.priceOf(m, open)
	switch {
	case !m.Template && !open && s.habits.RefuseOutsideWindow:
		return errOutsideWindow
	case !m.Template && !open:
		m.failure = errOutsideWindow
	case !paid:
		m.failure = errPayment
	case m.category == "marketing" && s.stopped[p]:
		m.failure = errStopped
	}
	return nil
}

// accept keeps a message and sends it on its way. The answer calls wait first: it
// takes its time where a status is to come before the answer.
func (s *Simulator) accept(m *message) (wait func(context.Context)) {
	wait = func(context.Context) {}
	heard := s.destination(m.number).url != "" // else no status will ever be posted
	s.mu.Lock()
	s.messages[m.ID] = m
	s.accepted++
	m.noReceipt = s.habits.SkipDeliveredEvery > 0 && s.accepted%s.habits.SkipDeliveredEvery == 0
	m.expiresAt = s.cfg.Now().Add(cmp.Or(m.ttl, s.cfg.TTL))
	if heard && s.habits.StatusFirstEvery > 0 && s.accepted%s.habits.StatusFirstEvery == 0 {
		posted := make(chan struct{})
		m.first = sync.OnceFunc(func() { close(posted) })
		wait = func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, longestStatusFirst)
			defer cancel()
			select {
			case <-posted:
			case <-ctx.Done():
			}
		}
	}
	held := m.held
	if held {
		s.held[m.template] = append(s.held[m.template], m)
	}
	s.mu.Unlock()
	if !held {
		s.start(m)
	}
	return wait
}

// longestStatusFirst bounds how long an answer waits for a status: the webhook
// may never be taken.
const longestStatusFirst = 3 * time.Second

type sendAnswer struct {
	MessagingProduct string          `json:"messaging_product"`
	Contacts         []answerContact `json:"contacts"`
	Messages         []answerMessage `json:"messages"`
}

type answerContact struct {
	Input  string `json:"input"`
	WaID   string `json:"wa_id,omitempty"`
	UserID string `json:"user_id,omitempty"`
}

type answerMessage struct {
	ID     string `json:"id"`
	Status string `json:"message_status,omitempty"`
}

func answerTo(m *message, userID string) sendAnswer {
	contact := answerContact{Input: m.addressed, UserID: userID}
	if !m.byUserID {
		contact.WaID = m.handset.WaID
	}
	sent := answerMessage{ID: m.ID}
	switch {
	case m.held:
		sent.Status = "held_for_quality_assessment"
	case m.Template:
		sent.Status = "accepted"
	}
	return sendAnswer{"whatsapp", []answerContact{contact}, []answerMessage{sent}}
}

// newMessage checks a send, and says what the phone will show.
func (s *Simulator) newMessage(n *Number, req *sendRequest) (*message, *graphError) {
	switch {
	case req.MessagingProduct == "":
		return nil, errRequired("messaging_product")
	case req.MessagingProduct != "whatsapp":
		return nil, errParameter.with("messaging_product must be whatsapp")
	case req.RecipientType != "" && req.RecipientType != "individual":
		return nil, errValue.with("recipient_type must be individual")
	case req.To == "" && req.Recipient == "":
		return nil, errRequired("to")
	case utf8.RuneCountInString(req.Callback) > longestCallback:
		return nil, errValue.with("biz_opaque_callback_data is longer than %d characters", longestCallback)
	}
	m := &message{number: n, callback: req.Callback, category: "service"}
	m.ID, m.From = NewID(), n.DisplayNumber
	if failure := s.address(m, req); failure != nil {
		return nil, failure
	}
	var failure *graphError
	switch cmp.Or(req.Type, "text") {
	case "text":
		failure = m.setText(req.Text)
	case "interactive":
		failure = m.setInteractive(req.Interactive)
	case "template":
		failure = s.setTemplate(m, req.Template)
	case "audio", "contacts", "document", "image", "location", "reaction", "sticker", "video":
		failure = errMessageType.with("This simulated network carries text, interactive and template messages.")
	default:
		failure = errParameter.with("type is not one of the message types")
	}
	if failure != nil {
		return nil, failure
	}
	return m, nil
}

// address finds the phone of a send. When both are given, to wins over recipient.
func (s *Simulator) address(m *message, req *sendRequest) *graphError {
	if req.To == "" {
		if !userIDForm.MatchString(req.Recipient) {
			return errValue.with("recipient is not a business-scoped user id")
		}
		m.addressed, m.byUserID = req.Recipient, true
		s.mu.Lock()
		phone, known := s.userIDs[req.Recipient]
		s.mu.Unlock()
		if !known {
			return errUndeliverable
		}
		m.handset = s.phones.Handset(phone)
		m.To = m.handset.E164
		return nil
	}
	m.addressed = req.To
	digits := strings.NewReplacer("+", "", "-", "", "(", "", ")", "", " ", "").Replace(req.To)
	if !strings.HasPrefix(req.To, "+") {
		digits = m.number.CountryCode + digits
	}
	if !digitsOnly.MatchString(digits) {
		return errValue.with("to is not a phone number")
	}
	m.handset = s.phones.Handset("+" + digits)
	m.To = m.handset.E164
	if m.To == m.number.DisplayNumber {
		return errToSelf
	}
	return nil
}

func (m *message) setText(t *textContent) *graphError {
	switch {
	case t == nil:
		return errMissing.with("text is missing")
	case t.Body == "":
		return errMissing.with("text.body is missing")
	case utf8.RuneCountInString(t.Body) > longestText:
		return errValue.with("text.body is longer than %d characters", longestText)
	}
	m.Text = t.Body
	return nil
}

func (m *message) setInteractive(in *interactive) *graphError {
	switch {
	case in == nil:
		return errMissing.with("interactive is missing")
	case in.Body == nil || in.Body.Text == "":
		return errMissing.with("interactive.body.text is missing")
	case utf8.RuneCountInString(in.Body.Text) > longestInteractive:
		return errValue.with("interactive.body.text is longer than %d characters", longestInteractive)
	case in.Action == nil:
		return errMissing.with("interactive.action is missing")
	}
	lines := []string{in.Body.Text}
	if h := in.Header; h != nil {
		if h.Type != "text" || h.Text == "" || utf8.RuneCountInString(h.Text) > longestHeader {
			return errValue.with("interactive.header must be a text of at most %d characters", longestHeader)
		}
		lines = append([]string{h.Text}, lines...)
	}
	if f := in.Footer; f != nil {
		if f.Text == "" || utf8.RuneCountInString(f.Text) > longestFooter {
			return errValue.with("interactive.footer.text must have 1 to %d characters", longestFooter)
		}
		lines = append(lines, f.Text)
	}
	m.Text = strings.Join(lines, "\n")
	switch in.Type {
	case "button":
		return m.setReplies(in)
	case "cta_url":
		return m.setLink(in)
	case "":
		return errMissing.with("interactive.type is missing")
	}
	return errValue.with("interactive.type must be button or cta_url on this simulated network")
}

func (m *message) setReplies(in *interactive) *graphError {
	if n := len(in.Action.Buttons); n < 1 || n > mostButtons {
		return errValue.with("interactive.action.buttons must be 1 to %d, not %d", mostButtons, n)
	}
	ids, titles := map[string]bool{}, map[string]bool{}
	for i, b := range in.Action.Buttons {
		at := fmt.Sprintf("interactive.action.buttons[%d]", i)
		idLength, titleLength := utf8.RuneCountInString(b.Reply.ID), utf8.RuneCountInString(b.Reply.Title)
		switch {
		case b.Type != "reply":
			return errValue.with("%s.type must be reply", at)
		case idLength < 1 || idLength > longestButtonID:
			return errValue.with("%s.reply.id must have 1 to %d characters", at, longestButtonID)
		case titleLength < 1 || titleLength > longestTitle:
			return errValue.with("%s.reply.title must have 1 to %d characters", at, longestTitle)
		case ids[b.Reply.ID]:
			return errValue.with("%s.reply.id is used twice", at)
		case titles[b.Reply.Title]:
			return errValue.with("%s.reply.title is used twice", at)
		}
		ids[b.Reply.ID], titles[b.Reply.Title] = true, true
		m.Buttons = append(m.Buttons, Button{ID: b.Reply.ID, Title: b.Reply.Title})
	}
	return nil
}

func (m *message) setLink(in *interactive) *graphError {
	p := in.Action.Parameters
	switch {
	case in.Action.Name != "cta_url":
		return errValue.with("interactive.action.name must be cta_url")
	case p == nil || p.DisplayText == "" || p.URL == "":
		return errMissing.with("interactive.action.parameters needs display_text and url")
	case utf8.RuneCountInString(p.DisplayText) > longestTitle:
		return errValue.with("interactive.action.parameters.display_text is longer than %d characters", longestTitle)
	case len(p.URL) > longestURL || !isHTTP(p.URL):
		return errValue.with("interactive.action.parameters.url must be an http address of at most %d characters", longestURL)
	}
	m.Buttons = []Button{{Title: p.DisplayText, URL: p.URL}}
	return nil
}

// markRead shows the customer that the business has read, and may type.
func (s *Simulator) markRead(w http.ResponseWriter, r *http.Request, n *Number, req *sendRequest) *graphError {
	typing := req.TypingIndicator != nil
	switch {
	case req.MessagingProduct != "whatsapp":
		return errRequired("messaging_product")
	case req.Status != "read":
		return errParameter.with("status must be read")
	case req.MessageID == "":
		return errRequired("message_id")
	case typing && req.TypingIndicator.Type != "text":
		return errParameter.with("typing_indicator.type must be text")
	}
	s.mu.Lock()
	p, known := s.inbound[req.MessageID]
	s.mu.Unlock()
	if !known || p.pnid != n.PhoneNumberID {
		return errParameter.with("message_id is not a message this number received")
	}
	fault, failure := s.fault(w, CallMarkRead)
	if failure != nil || fault.Before(w, r) {
		return failure
	}
	s.phones.MarkedRead(p.e164, req.MessageID, typing)
	if fault.After(w, r) {
		return nil
	}
	writeJSON(w, http.StatusOK, map[string]bool{"success": true})
	return nil
}

// addUsage puts Graph's usage figures on an answer: full ones on a refusal for
// rate, low ones on others. The figures are percentages; minutes are whole.
func (s *Simulator) addUsage(w http.ResponseWriter, n *Number, e *graphError) {
	if n == nil {
		return
	}
	count, minutes := 3, 0
	if e != nil && rated[e.code] {
		count, minutes = 100, 1
	}
	w.Header().Set("X-App-Usage", fmt.Sprintf(`{"call_count":%d,"total_cputime":2,"total_time":3}`, count))
	w.Header().Set("X-Business-Use-Case-Usage", fmt.Sprintf(
		`{%q:[{"type":"whatsapp","call_count":%d,"total_cputime":2,"total_time":3,"estimated_time_to_regain_access":%d}]}`,
		n.WABAID, count, minutes))
}
