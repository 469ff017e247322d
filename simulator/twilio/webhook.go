package twilio

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"paythread/simulator/faults"
)

// optWord is what Twilio itself makes of an SMS that is one of these words.
type optWord int

const (
	noWord optWord = iota
	stopWord
	startWord
	helpWord
)

// optWords are Twilio's defaults for long codes. The whole message counts, in any
// case, without the space around it.
var optWords = map[string]optWord{
	"STOP": stopWord, "STOPALL": stopWord, "UNSUBSCRIBE": stopWord, "CANCEL": stopWord,
	"END": stopWord, "QUIT": stopWord, "REVOKE": stopWord, "OPTOUT": stopWord,
	"START": startWord, "YES": startWord, "UNSTOP": startWord,
	"HELP": helpWord, "INFO": helpWord,
}

// optReplies are what Twilio answers by itself.
var optReplies = map[optWord]string{
	stopWord:  "You have successfully been unsubscribed. You will not receive any more messages from this number. Reply START to resubscribe.",
	startWord: "You have successfully been re-subscribed to messages from this number. Reply HELP for help. Reply STOP to unsubscribe. Msg&Data Rates May Apply.",
	helpWord:  "Reply STOP to unsubscribe. Msg&Data Rates May Apply.",
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

// ErrNoSuchNumber is returned by Say for a number that no account has.
var ErrNoSuchNumber = errors.New("twilio: no such number on this channel")

// Say takes a customer's message: opt-out words take effect and are answered, the
// WhatsApp window opens, and the webhook goes out behind the customer's earlier
// ones.
func (s *Simulator) Say(said Said) error {
	account, number := s.numberOf(said.Channel, said.To)
	if number == nil {
		return ErrNoSuchNumber
	}
	handset := s.phones.Handset(said.From)
	m := &message{account: account, direction: directionInbound, createdAt: s.cfg.Now(), status: statusReceived}
	m.Delivery = Delivery{ID: said.ID, Channel: said.Channel, From: handset.E164, To: said.To, Text: said.Text}
	if said.Button != nil {
		m.Text = said.Button.Title
	}
	s.store(m)
	s.record(m, statusReceived, 0)

	p := pair{said.Channel, said.To, handset.E164}
	if said.Channel == WhatsApp {
		s.mu.Lock()
		s.windows[p] = m.createdAt
		s.mu.Unlock()
	} else {
		s.obey(account, p, m.Text)
	}
	if number.InboundURL != "" {
		form := s.inboundForm(m, handset, said)
		s.deliver("from "+handset.E164, CallWebhookInbound, account, number.InboundURL, form, func(res answer) {
			s.phones.Accepted(handset.E164, m.ID)
			for _, text := range res.replies(said.Channel) {
				s.reply(account, p, text)
			}
		})
	}
	return nil
}

// obey handles the opt-out words of an SMS.
func (s *Simulator) obey(a *Account, p pair, text string) {
	word := optWords[strings.ToUpper(strings.TrimSpace(text))]
	if word == noWord {
		return
	}
	s.mu.Lock()
	switch word {
	case stopWord:
		s.optedOut[p] = true
	case startWord:
		delete(s.optedOut, p)
	}
	s.mu.Unlock()
	s.begin(a, p, optReplies[word])
}

// reply sends what a webhook's answer said, unless the customer opted out.
func (s *Simulator) reply(a *Account, p pair, text string) {
	if p.channel == SMS && s.isOptedOut(p) {
		return
	}
	s.begin(a, p, text)
}

// begin sends a message of Twilio's own making, without a callback.
func (s *Simulator) begin(a *Account, p pair, text string) {
	m := &message{account: a, direction: directionReply, createdAt: s.cfg.Now(), status: statusQueued}
	m.Delivery = Delivery{ID: NewID(), Channel: p.channel, From: p.business, To: p.customer, Text: text}
	s.store(m)
	s.start(m)
}

// inboundForm holds the parameters of an inbound webhook. Those that are empty
// are sent all the same, and take part in the signature.
func (s *Simulator) inboundForm(m *message, h Handset, said Said) url.Values {
	form := url.Values{
		"MessageSid": {m.ID}, "SmsSid": {m.ID}, "SmsMessageSid": {m.ID},
		"AccountSid": {m.account.SID}, "ApiVersion": {apiVersion},
		"From": {m.address(m.From)}, "To": {m.address(m.To)}, "Body": {m.Text},
		"NumMedia": {"0"}, "NumSegments": {strconv.Itoa(segments(m.Text))}, "SmsStatus": {statusReceived},
	}
	if m.Channel == SMS {
		for _, end := range []string{"From", "To"} {
			for _, part := range []string{"City", "State", "Zip", "Country"} {
				form.Set(end+part, "")
			}
		}
		return form
	}
	form.Set("ProfileName", h.Name)
	form.Set("WaId", h.WaID)
	form.Set("MessageType", "text")
	form.Set("ChannelMetadata", `{"type":"whatsapp","data":{"context":{}}}`)
	if b := said.Button; b != nil {
		form.Set("MessageType", "button")
		form.Set("ButtonText", b.Title)
		form.Set("ButtonPayload", b.ID)
		form.Set("OriginalRepliedMessageSid", said.MessageID)
		form.Set("OriginalRepliedMessageSender", m.address(m.To))
	}
	return form
}

// report records a status and calls the message's callback.
func (s *Simulator) report(m *message, status string, code int) {
	s.record(m, status, code)
	if m.callback == "" {
		return
	}
	form := url.Values{
		"MessageSid": {m.ID}, "SmsSid": {m.ID}, "MessageStatus": {status}, "SmsStatus": {status},
		"To": {m.address(m.To)}, "From": {m.address(m.From)}, "AccountSid": {m.account.SID}, "ApiVersion": {apiVersion},
	}
	if m.service != "" {
		form.Set("MessagingServiceSid", m.service)
	}
	if code != 0 {
		form.Set("ErrorCode", strconv.Itoa(code))
		form.Set("ErrorMessage", errorTexts[code])
	}
	switch m.Channel {
	case WhatsApp:
		form.Set("ChannelPrefix", "whatsapp")
		form.Set("ChannelToAddress", mask(m.To))
		form.Set("EventType", strings.ToUpper(status))
		if code != 0 {
			form.Set("ChannelStatusMessage", errorTexts[code])
		}
	case SMS:
		if status != statusSent {
			form.Set("RawDlrDoneDate", s.cfg.Now().UTC().Format("0601021504"))
		}
	}
	s.deliver(m.ID, CallWebhookStatus, m.account, m.callback, form, nil)
}

// mask hides the end of a number, as Twilio does in ChannelToAddress.
func mask(number string) string { return number[:max(0, len(number)-4)] + "XXXX" }

// overrides are the connection settings in a callback's fragment, such as
// #rc=3&rp=ct,5xx.
type overrides struct {
	retries int
	on      []string
	total   time.Duration
}

// parseOverrides takes the fragment off the address. Values out of range leave
// the defaults: one retry, after a failure to connect only.
func parseOverrides(address string) (bare string, o overrides) {
	bare, fragment, _ := strings.Cut(address, "#")
	o = overrides{retries: 1, on: []string{"ct"}, total: 15 * time.Second}
	values, err := url.ParseQuery(fragment)
	if err != nil {
		return bare, o
	}
	if n, err := strconv.Atoi(values.Get("rc")); err == nil && n >= 0 && n <= 5 {
		o.retries = n
	}
	if rp := values.Get("rp"); rp != "" {
		o.on = strings.Split(rp, ",")
	}
	for _, name := range []string{"tt", "rt"} {
		if ms, err := strconv.Atoi(values.Get(name)); err == nil && ms >= 100 && ms <= 15000 {
			o.total = min(o.total, time.Duration(ms)*time.Millisecond)
		}
	}
	return bare, o
}

func (o overrides) retry(outcome string) bool {
	return outcome != "" && (slices.Contains(o.on, outcome) || slices.Contains(o.on, "all"))
}

// deliver posts a webhook and, where its settings say so, posts it again with the
// same idempotency token. taken runs when it was answered with 2xx.
func (s *Simulator) deliver(line, call string, a *Account, address string, form url.Values, taken func(answer)) {
	bare, o := parseOverrides(address)
	token := randomHex(16)
	s.courier.Send(line, call, func(ctx context.Context) {
		for try := 0; ; try++ {
			res, outcome := s.post(ctx, a, bare, form, token, o.total)
			if outcome == "" {
				if taken != nil {
					taken(res)
				}
				return
			}
			if try >= o.retries || !o.retry(outcome) {
				s.cfg.Log.Warn("twilio gave up on a webhook", "call", call, "outcome", outcome)
				return
			}
			if !faults.Wait(ctx, s.cfg.RetryPause) {
				return
			}
		}
	})
}

// answer is what a webhook was answered with.
type answer struct {
	contentType string
	body        []byte
}

// post makes one delivery. The outcome is empty for 2xx, else the kind of failure
// as retry policies name it: ct, rt, 4xx, 5xx, or the status itself.
func (s *Simulator) post(ctx context.Context, a *Account, address string, form url.Values, token string, limit time.Duration) (res answer, outcome string) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, "ct"
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	req.Header.Set("User-Agent", "TwilioProxy/1.1")
	req.Header.Set("I-Twilio-Idempotency-Token", token)
	req.Header.Set("X-Twilio-Signature", Sign(a.AuthToken, address, form))
	r, err := s.cfg.Client.Do(req)
	switch {
	case err != nil && connected.Load():
		return answer{}, "rt"
	case err != nil:
		return answer{}, "ct"
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	switch {
	case err != nil:
		return answer{}, "rt"
	case r.StatusCode >= 500:
		return answer{}, "5xx"
	case r.StatusCode >= 400:
		return answer{}, "4xx"
	case r.StatusCode >= 300:
		return answer{}, strconv.Itoa(r.StatusCode)
	}
	return answer{r.Header.Get("Content-Type"), body}, ""
}

// Sign returns the X-Twilio-Signature of a form posted to the address, whose
// fragment is neither sent nor signed.
func Sign(authToken, address string, form url.Values) string {
	address, _, _ = strings.Cut(address, "#")
	mac := hmac.New(sha1.New, []byte(authToken))
	_, _ = io.WriteString(mac, address) // a hash never fails
	names := make([]string, 0, len(form))
	for name := range form {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range form[name] {
			_, _ = io.WriteString(mac, name+value)
		}
	}
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// replies are the messages that a webhook's answer asks for: each <Message> of
// TwiML and, for SMS, any plain text at all.
func (a answer) replies(channel string) []string {
	kind, _, err := mime.ParseMediaType(a.contentType)
	if err != nil {
		return nil
	}
	switch kind {
	case "text/plain":
		if text := strings.TrimSpace(string(a.body)); text != "" && channel == SMS {
			return []string{text}
		}
	case "text/xml", "application/xml", "text/html":
		var twiml struct {
			XMLName  xml.Name `xml:"Response"`
			Messages []struct {
				Text string `xml:",chardata"`
				Body string `xml:"Body"`
			} `xml:"Message"`
		}
		if xml.Unmarshal(a.body, &twiml) != nil {
			return nil
		}
		var texts []string
		for _, m := range twiml.Messages {
			if text := strings.TrimSpace(m.Text + m.Body); text != "" {
				texts = append(texts, text)
			}
		}
		return texts
	}
	return nil
}
