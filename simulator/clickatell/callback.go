package clickatell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf16"

	"paythread/simulator/faults"
)

// envelope is what every callback of the One API looks like. Its lists hold one
// element each, in life and here; Inject sends others.
type envelope struct {
	IntegrationID   string `json:"integrationId"`
	IntegrationName string `json:"integrationName"`
	Event           any    `json:"event"`
}

type repliesEvent struct {
	Texts []moText `json:"moText"`
}

type moText struct {
	Channel                string      `json:"channel"`
	MessageID              string      `json:"messageId"`
	RelatedMessageID       *string     `json:"relatedMessageId"`
	RelatedClientMessageID *string     `json:"relatedClientMessageId"`
	From                   string      `json:"from"`
	To                     string      `json:"to"`
	Timestamp              int64       `json:"timestamp"` // milliseconds
	Content                string      `json:"content"`
	Charset                string      `json:"charset"`
	SMS                    *moSMS      `json:"sms"`
	WhatsApp               *moWhatsApp `json:"whatsapp"`
}

type moSMS struct {
	Network string `json:"network"`
}

type moWhatsApp struct {
	ProfileName string `json:"profileName"`
}

type statusesEvent struct {
	Updates []statusUpdate `json:"messageStatusUpdate"`
}

type statusUpdate struct {
	Channel         string  `json:"channel"`
	Timestamp       int64   `json:"timestamp"` // milliseconds
	StatusCode      int     `json:"statusCode"`
	Status          string  `json:"status"`
	MessageID       string  `json:"messageId"`
	ClientMessageID *string `json:"clientMessageId"`
}

// legacyReply is the reply callback of the older APIs. It carries the API key.
type legacyReply struct {
	IntegrationID  string `json:"integrationId"`
	MessageID      string `json:"messageId"`
	ReplyMessageID string `json:"replyMessageId"` // the message that it answers
	APIKey         string `json:"apiKey"`
	FromNumber     string `json:"fromNumber"`
	ToNumber       string `json:"toNumber"`
	Timestamp      int64  `json:"timestamp"`
	Text           string `json:"text"`
	Charset        string `json:"charset"`
	UDH            string `json:"udh"`
	Network        string `json:"network"`
	Keyword        string `json:"keyword"`
}

// legacyUpdate is the status callback of the older APIs. Their documents name the
// integration by its name, or by its key: both are there.
type legacyUpdate struct {
	IntegrationName   string `json:"integrationName"`
	APIKey            string `json:"apiKey"`
	MessageID         string `json:"messageId"`
	RequestID         string `json:"requestId"`
	ClientMessageID   string `json:"clientMessageId"`
	To                string `json:"to"`
	From              string `json:"from"`
	StatusCode        int    `json:"statusCode"`
	Status            string `json:"status"`
	StatusDescription string `json:"statusDescription"`
	Timestamp         int64  `json:"timestamp"`
}

// Said is what a customer says to a business: a text, or a pressed button.
type Said struct {
	ID        string // from NewID
	Channel   string
	From      string // the customer, E.164
	To        string // the business, E.164
	Text      string
	Button    *Button // WhatsApp only
	MessageID string  // the message that carried the button
}

// ErrNoSuchNumber is returned by Say for a number that no integration has.
var ErrNoSuchNumber = errors.New("clickatell: no such number on this channel")

// Say takes a customer's message: the WhatsApp window opens, STOP and START take
// effect where the integration handles them, and the callback goes out behind the
// customer's earlier ones.
func (s *Simulator) Say(said Said) error {
	a := s.accountOf(said.Channel, said.To)
	if a == nil {
		return ErrNoSuchNumber
	}
	handset := s.phones.Handset(said.From)
	p := pair{said.Channel, said.To, handset.E164}
	if said.Button != nil {
		said.Text = said.Button.Title
	}
	now := s.cfg.Now()
	s.hear(a, p, said.Text, now)
	s.mu.Lock()
	callbacks, charset := a.callbacks, a.charset
	related, last := s.messages[said.MessageID], s.lastSent[p]
	s.mu.Unlock()

	var body any
	if said.Channel == SMS && callbacks == Legacy {
		reply := legacyReply{
			IntegrationID: a.ID, MessageID: said.ID, APIKey: a.APIKey,
			FromNumber: digits(handset.E164), ToNumber: digits(said.To), Timestamp: now.UnixMilli(),
		}
		reply.Text, reply.Charset = encodeText(said.Text, charset)
		if last != nil {
			reply.ReplyMessageID = last.ID
		}
		body = reply
	} else {
		body = a.envelope(repliesEvent{[]moText{newText(said, handset, related, now)}})
	}
	s.deliver("from "+handset.E164, CallWebhookInbound, a, a.InboundURL, body, func() {
		s.phones.Accepted(handset.E164, said.ID)
	})
	return nil
}

func (a *account) envelope(event any) envelope { return envelope{a.ID, a.Name, event} }

func newText(said Said, h Handset, related *message, at time.Time) moText {
	text := moText{
		Channel: said.Channel, MessageID: said.ID, From: digits(h.E164), To: digits(said.To),
		Timestamp: at.UnixMilli(), Content: said.Text, Charset: UTF8,
	}
	if related != nil {
		text.RelatedMessageID, text.RelatedClientMessageID = &related.ID, orNull(related.clientID)
	}
	if said.Channel == WhatsApp {
		text.From = h.WaID
		text.WhatsApp = &moWhatsApp{h.Name}
	} else {
		text.SMS = &moSMS{}
	}
	return text
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// hear is what a customer's message does by itself. What Clickatell answers to
// STOP, if anything, is not published: nothing is answered here.
func (s *Simulator) hear(a *account, p pair, text string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.channel == WhatsApp {
		s.windows[p] = at
		return
	}
	if !a.HandlesStop {
		return
	}
	switch strings.ToUpper(strings.TrimSpace(text)) {
	case "STOP":
		s.optedOut[p] = true
	case "START", "SUBSCRIBE":
		delete(s.optedOut, p)
	}
}

// encodeText writes a legacy reply's text in a character set, and returns the one
// that it took: bytes are percent-encoded, with + for 0x20.
func encodeText(text, charset string) (encoded, used string) {
	switch charset {
	case Latin1:
		var latin []byte
		for _, r := range text {
			if r > 0xff {
				return encodeText(text, UTF16BE)
			}
			latin = append(latin, byte(r))
		}
		return url.QueryEscape(string(latin)), Latin1
	case UTF16BE:
		var wide []byte
		for _, unit := range utf16.Encode([]rune(text)) {
			wide = append(wide, byte(unit>>8), byte(unit))
		}
		return url.QueryEscape(string(wide)), UTF16BE
	}
	return text, UTF8
}

// report records a status and calls the integration's callback.
func (s *Simulator) report(m *message, st status) {
	now := s.cfg.Now()
	s.record(m, st, now)
	a := m.account
	s.mu.Lock()
	callbacks := a.callbacks
	s.mu.Unlock()
	var body any
	if m.Channel == SMS && callbacks == Legacy {
		body = legacyUpdate{
			IntegrationName: a.Name, APIKey: a.APIKey, MessageID: m.ID, RequestID: m.requestID, ClientMessageID: m.clientID,
			To: digits(m.To), From: digits(m.From), StatusCode: st.legacy.code, Status: st.legacy.name,
			StatusDescription: st.legacy.text, Timestamp: now.UnixMilli(),
		}
	} else {
		body = a.envelope(statusesEvent{[]statusUpdate{{
			Channel: m.Channel, Timestamp: now.UnixMilli(), StatusCode: st.code, Status: st.name,
			MessageID: m.ID, ClientMessageID: orNull(m.clientID),
		}}})
	}
	s.deliver(m.ID, CallWebhookStatus, a, a.StatusURL, body, nil)
}

// deliver makes the bytes of a callback once, and posts them until they are
// taken. A retry leaves the line: Clickatell promises no order.
func (s *Simulator) deliver(line, call string, a *account, address string, content any, taken func()) {
	if address == "" {
		return
	}
	body := encode(content)
	s.courier.Send(line, call, func(ctx context.Context) {
		if !s.attempt(ctx, call, a, address, body, taken) {
			s.courier.Go(func(ctx context.Context) { s.redeliver(ctx, call, a, address, body, taken) })
		}
	})
}

func (s *Simulator) redeliver(ctx context.Context, call string, a *account, address string, body []byte, taken func()) {
	for _, pause := range s.cfg.CallbackRetries {
		if !faults.Wait(ctx, pause) {
			return
		}
		if s.attempt(ctx, call, a, address, body, taken) {
			return
		}
	}
	s.cfg.Log.Warn("clickatell gave up on a callback", "call", call, "integration", a.ID)
}

// attempt makes one delivery. True means that it is over: any 2xx takes the
// callback, and a redirect is neither followed nor tried again.
func (s *Simulator) attempt(ctx context.Context, call string, a *account, address string, body []byte, taken func()) bool {
	status := s.post(ctx, a, address, body)
	switch {
	case status >= 200 && status < 300:
		if taken != nil {
			taken()
		}
		return true
	case status >= 300 && status < 400:
		s.cfg.Log.Warn("a callback of clickatell's was redirected, and is lost", "call", call, "integration", a.ID)
		return true
	}
	return false
}

// post returns what one delivery was answered with; 0 for no answer.
func (s *Simulator) post(ctx context.Context, a *account, address string, body []byte) (status int) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CallbackTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Clickatell")
	if a.Username != "" {
		req.SetBasicAuth(a.Username, a.Password)
	}
	res, err := s.cfg.Client.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	return res.StatusCode
}

// ErrNoSuchCallback is returned by Inject for an integration that does not exist,
// or has no address for this kind of callback.
var ErrNoSuchCallback = errors.New("clickatell: no such integration, or no such address")

// ErrNotJSON is returned by Inject for a body that is not JSON.
var ErrNotJSON = errors.New("clickatell: the callback's body is not JSON")

// Inject posts a body of the caller's making to an integration's address for
// replies or, with toStatus, for statuses, as Clickatell would, once: media,
// locations, batches, unknown events, spoilt elements. It returns the HTTP status
// it was answered with, 0 for no answer.
func (s *Simulator) Inject(ctx context.Context, integrationID string, toStatus bool, body []byte) (status int, err error) {
	a := s.account(integrationID)
	if a == nil {
		return 0, ErrNoSuchCallback
	}
	address := a.InboundURL
	if toStatus {
		address = a.StatusURL
	}
	switch {
	case address == "":
		return 0, ErrNoSuchCallback
	case !json.Valid(body):
		return 0, ErrNotJSON
	}
	return s.post(ctx, a, address, body), nil
}

func encode(v any) []byte {
	var body bytes.Buffer
	if err := newEncoder(&body).Encode(v); err != nil {
		panic(err) // the types above always encode
	}
	return bytes.TrimRight(body.Bytes(), "\n")
}
