package meta

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"paythread/simulator/faults"
)

const (
	statusSent      = "sent"
	statusDelivered = "delivered"
	statusRead      = "read"
	statusFailed    = "failed"
)

// The envelope of a webhook.
type envelope struct {
	Object string  `json:"object"`
	Entry  []entry `json:"entry"`
}

type entry struct {
	ID      string   `json:"id"`
	Time    int64    `json:"time,omitempty"` // not for messages
	Changes []change `json:"changes"`
}

type change struct {
	Value any    `json:"value"` // a *value for the field messages
	Field string `json:"field"`
}

// fieldMessages is the field of messages and statuses.
const fieldMessages = "messages"

type value struct {
	MessagingProduct string           `json:"messaging_product"`
	Metadata         metadata         `json:"metadata"`
	Contacts         []contact        `json:"contacts,omitempty"`
	Messages         []inboundMessage `json:"messages,omitempty"`
	Statuses         []statusReport   `json:"statuses,omitempty"`
	Errors           []statusError    `json:"errors,omitempty"`
	Echoes           []inboundMessage `json:"message_echoes,omitempty"`
	Preferences      []preference     `json:"user_preferences,omitempty"`
	UserIDs          []userIDUpdate   `json:"user_id_update,omitempty"`
}

type metadata struct {
	DisplayPhoneNumber string `json:"display_phone_number"`
	PhoneNumberID      string `json:"phone_number_id"`
}

type contact struct {
	Profile      profile `json:"profile"`
	WaID         string  `json:"wa_id,omitempty"`
	UserID       string  `json:"user_id,omitempty"`
	ParentUserID string  `json:"parent_user_id,omitempty"`
	IdentityHash string  `json:"identity_key_hash,omitempty"`
}

type profile struct {
	Name     string `json:"name"`
	Username string `json:"username,omitempty"`
}

type inboundMessage struct {
	Context     *quoted        `json:"context,omitempty"`
	From        string         `json:"from,omitempty"`
	FromUserID  string         `json:"from_user_id,omitempty"`
	FromParent  string         `json:"from_parent_user_id,omitempty"`
	To          string         `json:"to,omitempty"` // of an echo only
	ToUserID    string         `json:"to_user_id,omitempty"`
	ID          string         `json:"id"`
	Timestamp   string         `json:"timestamp"`
	Type        string         `json:"type"`
	Text        *inboundText   `json:"text,omitempty"`
	Button      *inboundButton `json:"button,omitempty"`
	Interactive *inboundReply  `json:"interactive,omitempty"`
	System      *systemNotice  `json:"system,omitempty"`
	Identity    *identityKeys  `json:"identity,omitempty"`

	content map[string]json.RawMessage // of any other type, merged in
}

// MarshalJSON writes the message, and what it holds of other types.
func (m inboundMessage) MarshalJSON() ([]byte, error) {
	type plain inboundMessage
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // Meta escapes in its own way, see encode
	if err := enc.Encode(plain(m)); err != nil || len(m.content) == 0 {
		return out.Bytes(), err
	}
	out.Truncate(out.Len() - len("}\n"))
	for _, name := range slices.Sorted(maps.Keys(m.content)) {
		fmt.Fprintf(&out, ",%q:%s", name, m.content[name])
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

type quoted struct {
	From string `json:"from"`
	ID   string `json:"id"`
}

type inboundText struct {
	Body string `json:"body"`
}

type inboundButton struct {
	Payload string `json:"payload"`
	Text    string `json:"text"`
}

type inboundReply struct {
	Type        string      `json:"type"`
	ButtonReply buttonReply `json:"button_reply"`
}

type buttonReply struct {
	ID    string `json:"id"`
	Title string `json:"title"`
}

type statusReport struct {
	ID              string        `json:"id"`
	Status          string        `json:"status"`
	Timestamp       string        `json:"timestamp"`
	RecipientID     string        `json:"recipient_id,omitempty"`
	RecipientUserID string        `json:"recipient_user_id,omitempty"`
	RecipientParent string        `json:"recipient_parent_user_id,omitempty"`
	IdentityHash    string        `json:"recipient_identity_key_hash,omitempty"`
	Callback        string        `json:"biz_opaque_callback_data,omitempty"`
	Conversation    *conversation `json:"conversation,omitempty"`
	Pricing         *pricing      `json:"pricing,omitempty"`
	Errors          []statusError `json:"errors,omitempty"`
}

type conversation struct {
	ID         string `json:"id"`
	Expiration string `json:"expiration_timestamp,omitempty"`
	Origin     origin `json:"origin"`
}

type origin struct {
	Type string `json:"type"`
}

type pricing struct {
	Billable     bool   `json:"billable"`
	PricingModel string `json:"pricing_model"`
	Type         string `json:"type"`
	Category     string `json:"category"`
}

type statusError struct {
	Code      int        `json:"code"`
	Title     string     `json:"title"`
	Message   string     `json:"message"`
	ErrorData *errorData `json:"error_data,omitempty"`
	Href      string     `json:"href"`
}

// Said is what a customer says to a business: a text, or a pressed button.
type Said struct {
	ID     string // from NewID
	From   string // the customer, E.164
	To     string // the business, E.164
	Text   string
	Button *Pressed
	// Content is a message of any other type: its "type", the object of that name,
	// and what else belongs to it. Text and Button are not used then.
	Content map[string]json.RawMessage
}

// Pressed is a reply button that the customer pressed.
type Pressed struct {
	Button
	MessageID string // the message that carried it
	Template  bool   // it came with a template
}

// ErrNoSuchNumber is returned for a business number that Meta does not have, and
// by Inject also for one without a webhook.
var ErrNoSuchNumber = errors.New("meta: no such business number")

// Say takes a customer's message: it opens the service window, and the webhook
// goes out behind the customer's earlier ones.
func (s *Simulator) Say(said Said) error {
	n := s.numberOf(said.To)
	if n == nil {
		return ErrNoSuchNumber
	}
	handset := s.phones.Handset(said.From)
	in := s.message(n, handset, said)
	s.remember(in.ID, pair{n.PhoneNumberID, handset.E164}, s.cfg.Now())
	s.deliver(n, "from "+handset.E164, CallWebhookMessage, &value{
		Contacts: []contact{s.contactOf(n, handset)},
		Messages: []inboundMessage{in},
	}, func() { s.phones.Accepted(handset.E164, in.ID) })
	return nil
}

// message is what a customer says, as Meta tells it.
func (s *Simulator) message(n *Number, handset Handset, said Said) inboundMessage {
	userID := s.userID(n, handset)
	in := inboundMessage{
		From:       handset.WaID,
		FromUserID: userID,
		FromParent: n.parentOf(userID),
		ID:         said.ID,
		Timestamp:  seconds(s.cfg.Now()),
		Type:       "text",
	}
	if handset.HideNumber {
		in.From = ""
	}
	switch b := said.Button; {
	case said.Content != nil:
		in.Type, in.content = "", said.Content
		if err := json.Unmarshal(said.Content["type"], &in.Type); err == nil {
			in.content = maps.Clone(said.Content)
			delete(in.content, "type")
		}
	case b == nil:
		in.Text = &inboundText{said.Text}
	case b.Template:
		in.Type, in.Button = "button", &inboundButton{b.ID, b.Title}
	default:
		in.Type, in.Interactive = "interactive", &inboundReply{"button_reply", buttonReply{b.ID, b.Title}}
	}
	if said.Button != nil {
		in.Context = &quoted{From: digits(n.DisplayNumber), ID: said.Button.MessageID}
	}
	return in
}

// contactOf is the contact beside a message. Who hides the number shows a
// username instead.
func (s *Simulator) contactOf(n *Number, h Handset) contact {
	userID := s.userID(n, h)
	c := contact{Profile: profile{Name: h.Name, Username: h.Username}, WaID: h.WaID, UserID: userID,
		ParentUserID: n.parentOf(userID), IdentityHash: s.identityHash(n, h)}
	if h.HideNumber {
		c.WaID = ""
	}
	return c
}

// identityHash is the hash of a customer's keys, once they have changed.
func (s *Simulator) identityHash(n *Number, h Handset) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identities[pair{n.PhoneNumberID, h.E164}].hash
}

// report sends one status of a message.
func (s *Simulator) report(m *message, status string) {
	now := s.cfg.Now()
	userID := s.userID(m.number, m.handset)
	st := statusReport{
		ID:              m.ID,
		Status:          status,
		Timestamp:       seconds(now),
		RecipientID:     m.handset.WaID,
		RecipientUserID: userID,
		RecipientParent: m.number.parentOf(userID),
		IdentityHash:    s.identityHash(m.number, m.handset),
		Callback:        m.callback,
	}
	if m.byUserID {
		st.RecipientID = ""
	}
	v := &value{}
	switch {
	case status == statusFailed:
		if !m.byUserID {
			st.RecipientUserID, st.RecipientParent = "", "" // Meta leaves it out of failures to a phone number
		}
		st.Errors = []statusError{m.failure.told()}
	default:
		c := s.contactOf(m.number, m.handset)
		if m.byUserID {
			c.WaID = ""
		}
		if status == statusSent {
			c.Profile.Username = ""
		}
		v.Contacts = []contact{c}
	}
	// The price comes with sent and with one of delivered and read.
	if status == statusSent || status == statusDelivered || (status == statusRead && m.noReceipt) {
		st.Pricing = m.pricing
		if s.payload(m.number) == PayloadV23 {
			st.Conversation = conversationOf(m, status, now.Add(s.cfg.Window))
		}
	}
	v.Statuses = []statusReport{st}
	s.deliver(m.number, m.ID, CallWebhookStatus, v, m.first)
}

// told is the error as a webhook has it, which is not the shape of an answer.
func (e *graphError) told() statusError {
	return statusError{
		Code: e.code, Title: e.title, Message: e.title,
		ErrorData: &errorData{Details: cmp.Or(e.details, e.title)},
		Href:      "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
	}
}

func seconds(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

func digits(e164 string) string { return e164[1:] }

// deliver hands over a webhook of the field messages.
func (s *Simulator) deliver(n *Number, line, call string, v *value, taken func()) {
	s.tell(n, line, call, 0, change{s.about(n, v), fieldMessages}, taken)
}

// about names the number that a value is about.
func (s *Simulator) about(n *Number, v *value) *value {
	v.MessagingProduct = "whatsapp"
	v.Metadata = metadata{DisplayPhoneNumber: digits(n.DisplayNumber), PhoneNumberID: n.PhoneNumberID}
	return v
}

// tell posts a change, by itself or in a batch, until it is taken.
func (s *Simulator) tell(n *Number, line, call string, at int64, c change, taken func()) {
	to := s.destination(n)
	if to.url == "" {
		return
	}
	fault := s.set.Take(call)
	u := update{waba: n.WABAID, at: at, change: c, taken: taken}
	wait := s.Habits().Batch
	if times, hold, delay := fault.Webhook(); wait > 0 && !hold && delay == 0 && !fault.Holds() {
		for range times {
			s.collect(to, u, wait)
		}
		return
	}
	body := encode(bundle([]update{u}))
	s.courier.Carry(line, fault, func(ctx context.Context) { s.deliverBody(ctx, to, body, taken) })
}

// destination is where the webhooks of a number go: nowhere without an address or
// a subscription.
func (s *Simulator) destination(n *Number) boxKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[n.WABAID]
	if !a.subscribed {
		return boxKey{}
	}
	return boxKey{cmp.Or(a.callback, n.WebhookURL), n.AppSecret}
}

// deliverBody posts bytes made once. What is not taken is posted again, beside
// what follows.
func (s *Simulator) deliverBody(ctx context.Context, to boxKey, body []byte, taken func()) {
	if s.post(ctx, to, body) == http.StatusOK {
		if taken != nil {
			taken()
		}
		return
	}
	s.courier.Go(func(ctx context.Context) { s.redeliver(ctx, to, body, taken) })
}

// redeliver posts the same bytes on Meta's schedule, until they are taken or the
// schedule ends.
func (s *Simulator) redeliver(ctx context.Context, to boxKey, body []byte, taken func()) {
	for _, pause := range s.cfg.WebhookRetries {
		if !faults.Wait(ctx, pause) {
			return
		}
		if s.post(ctx, to, body) == http.StatusOK {
			if taken != nil {
				taken()
			}
			return
		}
	}
	s.cfg.Log.Warn("meta gave up on a webhook", "bytes", len(body))
}

// post makes one delivery and returns what it was answered with; 0 for no answer.
// Nothing but 200 counts as taken.
func (s *Simulator) post(ctx context.Context, to boxKey, body []byte) (status int) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WebhookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.url, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "facebookexternalua")
	req.Header.Set("X-Hub-Signature", "sha1="+sum(sha1.New, to.secret, body))
	req.Header.Set("X-Hub-Signature-256", "sha256="+Sign(to.secret, body))
	res, err := s.cfg.Client.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	return res.StatusCode
}

// ErrNotJSON is returned by Inject for a body that is not JSON.
var ErrNotJSON = errors.New("meta: the webhook's body is not JSON")

// Inject posts a webhook with a body of the caller's making, written and signed
// as Meta would, once: batches, unknown fields, other events, spoilt elements. It
// returns the HTTP status it was answered with, 0 for no answer.
func (s *Simulator) Inject(ctx context.Context, phoneNumberID string, body []byte) (status int, err error) {
	i := slices.IndexFunc(s.cfg.Numbers, func(n Number) bool { return n.PhoneNumberID == phoneNumberID && n.WebhookURL != "" })
	if i < 0 {
		return 0, ErrNoSuchNumber
	}
	var compact bytes.Buffer
	if json.Compact(&compact, body) != nil {
		return 0, ErrNotJSON
	}
	n := &s.cfg.Numbers[i]
	return s.post(ctx, boxKey{n.WebhookURL, n.AppSecret}, escape(compact.Bytes())), nil
}

// Sign returns the hex HMAC-SHA256 of the body's bytes: what follows "sha256="
// in X-Hub-Signature-256.
func Sign(appSecret string, body []byte) string { return sum(sha256.New, appSecret, body) }

func sum(h func() hash.Hash, secret string, body []byte) string {
	mac := hmac.New(h, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// encode writes JSON the way it leaves Meta: ASCII only, with lowercase \u
// escapes, surrogate pairs, and every slash escaped. Whoever parses and writes it
// again gets other bytes and another signature.
func encode(v any) []byte {
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // the types above always encode
	}
	return escape(bytes.TrimRight(plain.Bytes(), "\n"))
}

func escape(plain []byte) []byte {
	out := make([]byte, 0, len(plain)+len(plain)/8)
	for len(plain) > 0 {
		i := bytes.IndexFunc(plain, needsEscape)
		if i < 0 {
			return append(out, plain...)
		}
		out, plain = append(out, plain[:i]...), plain[i:]
		r, size := utf8.DecodeRune(plain)
		switch {
		case r == '\\' && len(plain) > 1:
			size = 2 // an escape already, such as \/ or \\
			out = append(out, plain[:size]...)
		case r == '/':
			out = append(out, '\\', '/')
		case r < utf8.RuneSelf:
			out = append(out, byte(r))
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		plain = plain[size:]
	}
	return out
}

func needsEscape(r rune) bool { return r == '\\' || r == '/' || r >= utf8.RuneSelf }

// VerifyWebhook makes the handshake that Meta makes when a callback URL is saved,
// for every number that has one, and reports each that does not answer as it
// must.
func (s *Simulator) VerifyWebhook(ctx context.Context) error {
	var errs []error
	for i := range s.cfg.Numbers {
		n := &s.cfg.Numbers[i]
		if n.WebhookURL == "" {
			continue
		}
		if err := s.verify(ctx, n); err != nil {
			errs = append(errs, fmt.Errorf("number %s: %w", n.PhoneNumberID, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Simulator) verify(ctx context.Context, n *Number) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WebhookTimeout)
	defer cancel()
	address, err := url.Parse(n.WebhookURL)
	if err != nil {
		return errors.New("the callback URL cannot be parsed")
	}
	challenge := strconv.FormatUint(uint64(s.cfg.Now().UnixNano()), 10)
	q := address.Query()
	q.Set("hub.mode", "subscribe")
	q.Set("hub.challenge", challenge)
	q.Set("hub.verify_token", n.VerifyToken)
	address.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return errors.New("the callback URL cannot be called")
	}
	res, err := s.cfg.Client.Do(req)
	if err != nil {
		return errors.New("the callback URL did not answer") // the error itself would carry the verify token
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	switch {
	case err != nil:
		return errors.New("the answer could not be read")
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("answered %d, not 200", res.StatusCode)
	case string(body) != challenge:
		return errors.New("did not answer the challenge, exactly")
	}
	return nil
}
