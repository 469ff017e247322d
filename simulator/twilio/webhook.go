package twilio

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"maps"
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
	// Parameters are added to the webhook's, or take their place: media, a
	// location, a list reply, whatever a message can have.
	Parameters url.Values
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
	form := s.inboundForm(m, handset, said)
	sv := account.serviceOf(said.To)
	if sv != nil {
		form.Set("MessagingServiceSid", sv.SID)
	}
	if said.Channel == WhatsApp {
		s.mu.Lock()
		s.windows[p] = m.createdAt
		if handset.UserID != "" {
			s.userIDs[handset.UserID] = handset.E164
		}
		s.mu.Unlock()
	} else if word := s.obey(account, sv, p, m.Text); sv != nil && sv.OptOut != nil && word != noWord {
		form.Set("OptOutType", optTypes[word])
	}
	maps.Copy(form, said.Parameters)
	if to := targetOf(number, sv); to.address != "" {
		s.deliver("from "+handset.E164, CallWebhookInbound, account, to, form, func(res answer) {
			s.phones.Accepted(handset.E164, m.ID)
			for _, text := range res.replies(said.Channel) {
				s.reply(account, p, text)
			}
		})
	}
	return nil
}

// target is where a webhook goes.
type target struct {
	address  string
	method   string // POST when empty
	fallback string
}

// targetOf is where the messages to a number go: to its service's address, if that
// has one and does not leave it to the number.
func targetOf(n *Number, sv *Service) target {
	if sv != nil && sv.InboundURL != "" && !sv.NumberURLs {
		return target{sv.InboundURL, sv.InboundMethod, n.FallbackURL}
	}
	return target{n.InboundURL, n.InboundMethod, n.FallbackURL}
}

// optTypes are the words as OptOutType has them.
var optTypes = map[optWord]string{stopWord: "STOP", startWord: "START", helpWord: "HELP"}

// obey handles the opt-out words of an SMS, and says which one it was.
func (s *Simulator) obey(a *Account, sv *Service, p pair, text string) optWord {
	words := &OptOut{}
	if sv != nil && sv.OptOut != nil {
		words = sv.OptOut
	}
	word, answer := words.find(strings.ToUpper(strings.TrimSpace(text)))
	if word == noWord {
		return noWord
	}
	scope := a.optOutScope(p)
	s.mu.Lock()
	switch word {
	case stopWord:
		s.optedOut[scope] = true
	case startWord:
		delete(s.optedOut, scope)
	}
	s.mu.Unlock()
	s.begin(a, p, answer)
	return word
}

// find looks a word up, and what to answer. A list of the service's own takes the
// place of Twilio's.
func (o *OptOut) find(text string) (optWord, string) {
	for _, row := range []struct {
		word  optWord
		own   []string
		reply string
	}{{stopWord, o.Stop, o.StopReply}, {startWord, o.Start, o.StartReply}, {helpWord, o.Help, o.HelpReply}} {
		is := optWords[text] == row.word
		if len(row.own) > 0 {
			is = slices.ContainsFunc(row.own, func(w string) bool { return strings.ToUpper(w) == text })
		}
		if is {
			return row.word, cmp.Or(row.reply, optReplies[row.word])
		}
	}
	return noWord, ""
}

// reply sends what a webhook's answer said, unless the customer opted out.
func (s *Simulator) reply(a *Account, p pair, text string) {
	if p.channel == SMS && s.isOptedOut(a, p) {
		return
	}
	s.begin(a, p, text)
}

// begin sends a message of Twilio's own making, without a callback.
func (s *Simulator) begin(a *Account, p pair, text string) {
	m := &message{account: a, direction: directionReply, createdAt: s.cfg.Now(), status: statusQueued, validity: longestQueue}
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
	if h.UserID != "" {
		form.Set("ExternalUserId", whatsAppPrefix+h.UserID)
		if h.HideNumber {
			form.Set("From", whatsAppPrefix+h.UserID)
			form.Del("WaId")
		}
	}
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
		"To": {m.recipient()}, "From": {m.address(m.From)}, "AccountSid": {m.account.SID}, "ApiVersion": {apiVersion},
	}
	if m.service != "" {
		form.Set("MessagingServiceSid", m.service)
	}
	if code != 0 {
		form.Set("ErrorCode", strconv.Itoa(code))
		form.Set("ErrorMessage", errorText(code))
	}
	switch m.Channel {
	case WhatsApp:
		form.Set("ChannelPrefix", "whatsapp")
		form.Set("ChannelToAddress", mask(m.To))
		form.Set("EventType", strings.ToUpper(status))
		if code != 0 {
			form.Set("ChannelStatusMessage", errorText(code))
		}
	case SMS:
		if status != statusSent {
			form.Set("RawDlrDoneDate", s.cfg.Now().UTC().Format("0601021504"))
		}
	}
	s.deliver(m.ID, CallWebhookStatus, m.account, target{address: m.callback}, form, nil)
}

// mask hides the end of a number, as Twilio does in ChannelToAddress.
func mask(number string) string { return number[:max(0, len(number)-4)] + "XXXX" }

// overrides are the connection settings in a callback's fragment, such as
// #rc=3&rp=ct,5xx.
type overrides struct {
	retries              int
	on                   []string
	connect, read, total time.Duration
}

// parseOverrides takes the fragment off the address. Values out of range leave
// the defaults: one retry, after a failure to connect only.
func parseOverrides(address string) (bare string, o overrides) {
	bare, fragment, _ := strings.Cut(address, "#")
	o = overrides{retries: 1, on: []string{"ct"}, connect: 5 * time.Second, read: 15 * time.Second, total: 15 * time.Second}
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
	for _, limit := range []struct {
		name string
		most int
		into *time.Duration
	}{{"ct", 10000, &o.connect}, {"rt", 15000, &o.read}, {"tt", 15000, &o.total}} {
		if ms, err := strconv.Atoi(values.Get(limit.name)); err == nil && ms >= 100 && ms <= limit.most {
			*limit.into = time.Duration(ms) * time.Millisecond
		}
	}
	return bare, o
}

func (o overrides) retry(outcome string) bool {
	return outcome != "" && (slices.Contains(o.on, outcome) || slices.Contains(o.on, "all"))
}

// deliver posts a webhook and, where its settings say so, posts it again with the
// same idempotency token; then it tries the fallback address, once. taken runs
// when it was answered with 2xx.
func (s *Simulator) deliver(line, call string, a *Account, to target, form url.Values, taken func(answer)) {
	bare, o := parseOverrides(to.address)
	w := s.write(to.method, bare, form)
	token := randomHex(16)
	s.courier.Send(line, call, func(ctx context.Context) {
		for try := 0; ; try++ {
			res, outcome := s.post(ctx, a, w, token, o)
			if outcome == "" {
				if taken != nil {
					taken(res)
				}
				return
			}
			if try >= o.retries || !o.retry(outcome) {
				s.cfg.Log.Warn("twilio gave up on a webhook", "call", call, "outcome", outcome)
				s.fallBack(ctx, a, to, form, outcome, taken)
				return
			}
			if !faults.Wait(ctx, s.cfg.RetryPause) {
				return
			}
		}
	})
}

// The errors that Twilio's console has for a webhook, and a fallback's ErrorCode.
const (
	codeHookStatus  = "11200"
	codeHookConnect = "11205"
)

// fallBack posts a webhook that failed to the number's second address, with what
// went wrong.
func (s *Simulator) fallBack(ctx context.Context, a *Account, to target, form url.Values, outcome string, taken func(answer)) {
	if to.fallback == "" {
		return
	}
	more := maps.Clone(form)
	more.Set("ErrorCode", codeHookStatus)
	if outcome == "ct" {
		more.Set("ErrorCode", codeHookConnect)
	}
	failed, _, _ := strings.Cut(to.address, "#")
	more.Set("ErrorUrl", failed)
	bare, o := parseOverrides(to.fallback)
	if res, outcome := s.post(ctx, a, s.write(http.MethodPost, bare, more), randomHex(16), o); outcome == "" && taken != nil {
		taken(res)
	}
}

// answer is what a webhook was answered with.
type answer struct {
	contentType string
	body        []byte
}

// post makes one delivery. The outcome is empty for 2xx, else the kind of failure
// as retry policies name it: ct, rt, 4xx, 5xx, or the status itself.
func (s *Simulator) post(ctx context.Context, a *Account, w written, token string, o overrides) (res answer, outcome string) {
	ctx, cancel := context.WithTimeout(ctx, o.total)
	defer cancel()
	var connected atomic.Bool
	connecting := time.AfterFunc(o.connect, cancel)
	defer connecting.Stop()
	reading := time.AfterFunc(o.total, cancel)
	defer reading.Stop()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { connected.Store(true); connecting.Stop() },
		WroteRequest: func(httptrace.WroteRequestInfo) { reading.Reset(o.read) },
	})
	req, err := http.NewRequestWithContext(ctx, w.method, w.address, bytes.NewReader(w.body))
	if err != nil {
		return answer{}, "ct"
	}
	if w.contentType != "" {
		req.Header.Set("Content-Type", w.contentType)
	}
	req.Header.Set("User-Agent", "TwilioProxy/1.1")
	req.Header.Set("I-Twilio-Idempotency-Token", token)
	req.Header.Set("X-Twilio-Signature", Sign(a.AuthToken, w.signed, w.signedForm))
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
