package twilio

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/simulator/faults"
)

const (
	sid      = "AC00000000000000000000000000000001"
	token    = "pbc-test-auth-token"
	otherSID = "AC00000000000000000000000000000002"
	business = "+15550783881"
	customer = "+16505551234"
	content  = "HX00000000000000000000000000000001"
)

// phones are phones without a screen.
type phones struct {
	mu        sync.Mutex
	handsets  map[string]Handset
	delivered []Delivery
	accepted  []string
	readIDs   []string
}

func (p *phones) Handset(e164 string) Handset {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h, ok := p.handsets[e164]; ok {
		return h
	}
	return Handset{E164: e164, WaID: e164[1:], Name: "Zoë", OnWhatsApp: true, Reachable: true}
}

func (p *phones) set(h Handset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handsets[h.E164] = h
}

func (p *phones) Deliver(d Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delivered = append(p.delivered, d)
}

func (p *phones) Accepted(_, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted = append(p.accepted, id)
}

func (p *phones) texts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var texts []string
	for _, d := range p.delivered {
		texts = append(texts, d.Text)
	}
	return texts
}

// hook receives webhooks; each must carry a right signature over its form.
type hook struct {
	t      *testing.T
	url    string
	mu     sync.Mutex
	posts  []post
	answer func(n int, w http.ResponseWriter)
}

type post struct {
	path   string
	form   url.Values
	header http.Header
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		h.t.Errorf("webhook is no form: %v", err)
	}
	if got, want := r.Header.Get("X-Twilio-Signature"), Sign(token, h.url+r.URL.String(), r.PostForm); got != want {
		h.t.Errorf("signature of %s: got %s, want %s", r.URL, got, want)
	}
	h.mu.Lock()
	h.posts = append(h.posts, post{r.URL.String(), r.PostForm, r.Header.Clone()})
	n, answer := len(h.posts), h.answer
	h.mu.Unlock()
	if answer != nil {
		answer(n, w)
	}
}

func (h *hook) all() []post {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.posts)
}

func (h *hook) statuses() []string {
	var all []string
	for _, p := range h.all() {
		if s := p.form.Get("MessageStatus"); s != "" {
			all = append(all, strings.TrimSpace(s+" "+p.form.Get("ErrorCode")))
		}
	}
	return all
}

type world struct {
	*Simulator
	set    *faults.Set
	phones *phones
	hook   *hook
	url    string
	mu     sync.Mutex
	at     time.Time
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(d)
}

// newWorld makes a network whose numbers call /in of the hook, with the fragment.
func newWorld(t *testing.T, fragment string) *world {
	t.Helper()
	w := &world{
		set: faults.New(), hook: &hook{t: t}, phones: &phones{handsets: map[string]Handset{}},
		at: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC),
	}
	receiver := httptest.NewServer(w.hook)
	w.hook.url = receiver.URL
	in := receiver.URL + "/in?tenant=7" + fragment
	sim, err := New(Config{
		Accounts: []Account{
			{SID: sid, AuthToken: token,
				Numbers:  []Number{{E164: business, InboundURL: in}, {E164: business, Channel: WhatsApp, InboundURL: in}},
				Services: []Service{{SID: "MG1", Numbers: []string{business}}, {SID: "MG2"}},
				Contents: []Content{{SID: content, Body: "Hello {{1}}.", ButtonLabel: "Pay", ButtonURL: "https://pay.example/p/{{2}}", QuickReplies: []string{"Help"}}}},
			{SID: otherSID, AuthToken: "other"},
		},
		Landlines: []string{"+16505550000"}, ClosedPrefixes: []string{"+53"},
		RetryPause: time.Millisecond, Now: w.now,
	}, w.set, w.phones)
	if err != nil {
		t.Fatal(err)
	}
	w.Simulator = sim
	mux := http.NewServeMux()
	sim.Register(mux)
	api := httptest.NewServer(mux)
	w.url = api.URL + "/twilio/2010-04-01/Accounts/"
	t.Cleanup(func() {
		w.set.Clear()
		sim.Close()
		api.Close()
		receiver.Close()
	})
	return w
}

func (w *world) call(t *testing.T, method, path, user, password, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// form makes a send to the customer out of name, value pairs.
func (w *world) form(pairs ...string) string {
	f := url.Values{"To": {customer}, "From": {business}, "Body": {"Hello"}, "StatusCallback": {w.hook.url + "/status?attempt=att_1"}}
	for i := 0; i < len(pairs); i += 2 {
		f.Set(pairs[i], pairs[i+1])
		if pairs[i+1] == "" {
			f.Del(pairs[i])
		}
	}
	return f.Encode()
}

func (w *world) send(t *testing.T, pairs ...string) resource {
	t.Helper()
	status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form(pairs...))
	if status != 201 {
		t.Fatalf("send: got %d %s", status, body)
	}
	var r resource
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) say(t *testing.T, channel, text string) string {
	t.Helper()
	s := Said{ID: NewID(), Channel: channel, From: customer, To: business, Text: text}
	if err := w.Say(s); err != nil {
		t.Fatal(err)
	}
	return s.ID
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) awaitStatuses(t *testing.T, want ...string) {
	t.Helper()
	await(t, strings.Join(want, ", "), func() bool { return len(w.hook.statuses()) >= len(want) })
	if got := w.hook.statuses(); !slices.Equal(got, want) {
		t.Errorf("statuses: got %v, want %v", got, want)
	}
}

func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	v1 := url.Values{
		"AccountSid": {sid}, "ApiVersion": {"2010-04-01"}, "Body": {"Paid, thanks é 👍"}, "From": {"whatsapp:+16505551234"},
		"MessageSid": {"SM00000000000000000000000000000002"}, "SmsMessageSid": {"SM00000000000000000000000000000002"},
		"SmsSid": {"SM00000000000000000000000000000002"}, "MessageType": {"text"}, "NumMedia": {"0"}, "NumSegments": {"1"},
		"ProfileName": {"Zoë"}, "SmsStatus": {"received"}, "To": {"whatsapp:+15550783881"}, "WaId": {"16505551234"},
	}
	v2 := url.Values{"ErrorCode": {""}, "MessageSid": {"SM3"}, "MessageStatus": {"delivered"}}
	const status = "https://pay.example.test/hooks/twilio/status"
	for _, tc := range []struct {
		name, url string
		form      url.Values
		want      string
	}{
		{"V1", "https://pay.example.test/hooks/twilio/inbound?tenant=7", v1, "ThzO8ghEaLXYTrKj2mFuK/N/2UE="},
		{"V1 with port", "https://pay.example.test:443/hooks/twilio/inbound?tenant=7", v1, "/lSrTpNbgh74OjXSs4Z4XdaG1aw="},
		{"V1 with a fragment", "https://pay.example.test/hooks/twilio/inbound?tenant=7#rc=3&rp=all", v1, "ThzO8ghEaLXYTrKj2mFuK/N/2UE="},
		{"V2, empty value", status, v2, "hwSWWoC2tqEQHRKmBERjH3fEHBY="},
		{"V3, byte order", status, url.Values{"b": {"1"}, "A": {"2"}, "a": {"3"}, "B": {"4"}}, "fWrWiCxadgMM1F+9hoGUiZR6XcE="},
	} {
		if got := Sign(token, tc.url, tc.form); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestSegments(t *testing.T) {
	t.Parallel()
	r := strings.Repeat
	for _, tc := range []struct {
		text string
		want int
	}{
		{"", 1}, {r("a", 160), 1}, {r("a", 161), 2}, {r("a", 306), 2}, {r("a", 307), 3},
		{r("€", 80), 1}, {r("€", 81), 2}, {r("a", 152) + "€" + r("a", 152), 3},
		{r("ч", 70), 1}, {r("ч", 71), 2}, {r("ч", 134), 2}, {r("ч", 135), 3},
		{r("ч", 66) + "👍" + r("ч", 66), 3}, {r("👍", 35), 1}, {r("👍", 36), 2},
		{"[x]", 1}, {r("Ç", 160), 1}, {r("ç", 71), 2}, {r("`", 71), 2},
	} {
		if got := segments(tc.text); got != tc.want {
			t.Errorf("%.12q… of %d bytes: got %d, want %d", tc.text, len(tc.text), got, tc.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		account      string
		user, secret string
		pairs        []string
		status, code int
	}{
		{"no credentials", sid, "", "", nil, 401, 20003},
		{"wrong token", sid, sid, "no", nil, 401, 20003},
		{"token of another account", sid, sid, "other", nil, 401, 20003},
		{"path of another account", otherSID, sid, token, nil, 404, 20404},
		{"no To", sid, sid, token, []string{"To", ""}, 400, 21604},
		{"no From", sid, sid, token, []string{"From", ""}, 400, 21603},
		{"no Body", sid, sid, token, []string{"Body", ""}, 400, 21602},
		{"To without +", sid, sid, token, []string{"To", "16505551234"}, 400, 21211},
		{"WhatsApp To not E.164", sid, sid, token, []string{"To", "whatsapp:1650", "From", "whatsapp:" + business}, 400, 21211},
		{"landline", sid, sid, token, []string{"To", "+16505550000"}, 400, 21614},
		{"closed country", sid, sid, token, []string{"To", "+5355512345"}, 400, 21408},
		{"From is no number", sid, sid, token, []string{"From", "ACME CORP LTD"}, 400, 21212},
		{"From not owned", sid, sid, token, []string{"From", "+15550783999"}, 400, 21606},
		{"From not on WhatsApp", sid, sid, token, []string{"To", "whatsapp:" + customer, "From", "whatsapp:+15550783999"}, 400, 63007},
		{"From of the other channel", sid, sid, token, []string{"To", "whatsapp:" + customer}, 400, 63007},
		{"unknown service", sid, sid, token, []string{"From", "", "MessagingServiceSid", "MG9"}, 400, 21701},
		{"empty service", sid, sid, token, []string{"From", "", "MessagingServiceSid", "MG2"}, 400, 21703},
		{"long body", sid, sid, token, []string{"Body", strings.Repeat("é", 1601)}, 400, 21617},
		{"callback without host", sid, sid, token, []string{"StatusCallback", "/status"}, 400, 21609},
		{"callback with underscore", sid, sid, token, []string{"StatusCallback", "http://a_b.example/"}, 400, 21609},
		{"unknown content", sid, sid, token, []string{"ContentSid", "HX9"}, 400, 21655},
		{"variables not JSON", sid, sid, token, []string{"ContentSid", content, "ContentVariables", "Ana"}, 400, 21656},
		{"variables missing", sid, sid, token, []string{"ContentSid", content, "ContentVariables", `{"1":"Ana"}`}, 400, 21656},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			status, body := w.call(t, "POST", tc.account+"/Messages.json", tc.user, tc.secret, w.form(tc.pairs...))
			var got struct {
				Code     int
				Message  string
				MoreInfo string `json:"more_info"`
				Status   int
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("answer is not JSON: %s", body)
			}
			if status != tc.status || got.Code != tc.code || got.Status != status {
				t.Errorf("got %d %s, want %d with %d", status, body, tc.status, tc.code)
			}
			if got.Message == "" || !strings.HasSuffix(got.MoreInfo, "/"+strconv.Itoa(tc.code)) {
				t.Errorf("incomplete error: %s", body)
			}
			if len(w.order) != 0 {
				t.Error("a refused message was kept")
			}
		})
	}
}

func TestSMS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	r := w.send(t)
	if r.Status != "queued" || r.Direction != "outbound-api" || r.DateSent != nil || r.Price != nil || r.ErrorCode != nil ||
		r.NumSegments != "1" || r.NumMedia != "0" || !strings.HasPrefix(r.SID, "SM") || len(r.SID) != 34 {
		t.Errorf("answer: got %+v", r)
	}
	if _, err := time.Parse(time.RFC1123Z, r.DateCreated); err != nil {
		t.Errorf("date_created: %v", err)
	}
	w.awaitStatuses(t, "sent", "delivered")
	last := w.hook.all()[1]
	if last.path != "/status?attempt=att_1" || last.form.Get("MessageSid") != r.SID || last.form.Get("AccountSid") != sid ||
		last.form.Get("To") != customer || last.form.Get("RawDlrDoneDate") != "2611011200" || last.form.Has("ErrorCode") {
		t.Errorf("callback: got %+v", last)
	}
	if got := w.phones.texts(); !slices.Equal(got, []string{"Hello"}) {
		t.Errorf("phone: got %v", got)
	}
	w.Read([]string{r.SID, "SM9"})
	status, body := w.call(t, "GET", sid+"/Messages/"+r.SID+".json", sid, token, "")
	var fetched resource
	if err := json.Unmarshal([]byte(body), &fetched); err != nil || status != 200 || fetched.Status != "delivered" || fetched.DateSent == nil {
		t.Errorf("fetch: got %d %s; an SMS is never read", status, body)
	}
	if calls := w.set.Calls(); calls[0].Call != CallMessages || calls[0].Ref != "attempt=att_1" || calls[0].Status != 201 {
		t.Errorf("call log: got %+v", calls[0])
	}
}

func TestUndelivered(t *testing.T) {
	t.Parallel()
	home := Handset{E164: customer, WaID: customer[1:], OnWhatsApp: true, Reachable: true}
	off, noSMS, absent, noWA := home, home, home, home
	off.Reachable, noSMS.BlockedSMS, absent.OnWhatsApp, noWA.BlockedWhatsApp = false, true, false, true
	wa := []string{"To", "whatsapp:" + customer, "From", "whatsapp:" + business}
	template := append([]string{"Body", "", "ContentSid", content, "ContentVariables", `{"1":"Ana","2":"x"}`}, wa...)
	for _, tc := range []struct {
		name    string
		handset Handset
		pairs   []string
		want    []string
	}{
		{"SMS to a phone that is off", off, nil, []string{"sent", "undelivered 30003"}},
		{"SMS blocked", noSMS, nil, []string{"sent", "undelivered 30004"}},
		{"WhatsApp outside the window", home, wa, []string{"undelivered 63016"}},
		{"not on WhatsApp", absent, template, []string{"undelivered 63024"}},
		{"blocked on WhatsApp", noWA, template, []string{"undelivered 63014"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			w.phones.set(tc.handset)
			r := w.send(t, tc.pairs...)
			w.awaitStatuses(t, tc.want...)
			if got := w.phones.texts(); len(got) != 0 {
				t.Errorf("phone: got %v, want nothing", got)
			}
			_, body := w.call(t, "GET", sid+"/Messages/"+r.SID+".json", sid, token, "")
			if !strings.Contains(body, `"status":"undelivered"`) || strings.Contains(body, `"error_code":null`) || strings.Contains(body, `"error_message":""`) {
				t.Errorf("resource: got %s", body)
			}
		})
	}
}

func TestWhatsApp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	off := Handset{E164: customer, WaID: customer[1:], Name: "Zoë", OnWhatsApp: true}
	w.phones.set(off)
	r := w.send(t, "To", "whatsapp:"+customer, "From", "whatsapp:"+business, "Body", "", "ContentSid", content, "ContentVariables", `{"1":"Ana","2":"7Q"}`)
	if r.To != "whatsapp:"+customer || *r.From != "whatsapp:"+business {
		t.Errorf("addresses: got %+v", r)
	}
	w.awaitStatuses(t, "sent")
	await(t, "the message waits", func() bool {
		w.Simulator.mu.Lock()
		defer w.Simulator.mu.Unlock()
		return len(w.waiting[customer]) == 1
	})
	off.Reachable = true
	w.phones.set(off)
	w.Reachable(customer)
	await(t, "on the phone", func() bool { return len(w.phones.texts()) == 1 })
	want := []Button{{Title: "Pay", URL: "https://pay.example/p/7Q"}, {ID: "Help", Title: "Help"}}
	if d := w.phones.delivered[0]; d.Text != "Hello Ana." || !slices.Equal(d.Buttons, want) {
		t.Errorf("phone: got %+v", d)
	}
	w.awaitStatuses(t, "sent", "delivered")
	w.Read([]string{r.SID})
	w.Read([]string{r.SID})
	w.awaitStatuses(t, "sent", "delivered", "read")
	if f := w.hook.all()[2].form; f.Get("ChannelPrefix") != "whatsapp" || f.Get("ChannelToAddress") != "+1650555XXXX" || f.Get("EventType") != "READ" {
		t.Errorf("callback: got %v", f)
	}

	if err := w.Say(Said{ID: NewID(), Channel: WhatsApp, From: customer, To: business, Button: &want[1], MessageID: r.SID}); err != nil {
		t.Fatal(err)
	}
	await(t, "the reply", func() bool { return len(w.hook.all()) == 4 })
	f := w.hook.all()[3].form
	if f.Get("From") != "whatsapp:"+customer || f.Get("Body") != "Help" || f.Get("ButtonPayload") != "Help" || f.Get("MessageType") != "button" ||
		f.Get("WaId") != customer[1:] || f.Get("ProfileName") == "" || f.Get("OriginalRepliedMessageSid") != r.SID {
		t.Errorf("inbound: got %v", f)
	}
	// The reply opened the window.
	w.send(t, "To", "whatsapp:"+customer, "From", "whatsapp:"+business)
	w.awaitStatuses(t, "sent", "delivered", "read", "sent", "delivered")
	w.pass(24 * time.Hour)
	w.send(t, "To", "whatsapp:"+customer, "From", "whatsapp:"+business)
	w.awaitStatuses(t, "sent", "delivered", "read", "sent", "delivered", "undelivered 63016")
}

func TestMessagingService(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	r := w.send(t, "From", "", "MessagingServiceSid", "MG1")
	if r.Status != "accepted" || r.From != nil || r.NumSegments != "0" || *r.MessagingServiceSID != "MG1" {
		t.Errorf("answer: got %+v", r)
	}
	w.awaitStatuses(t, "queued", "sent", "delivered")
	if f := w.hook.all()[0].form; f.Get("MessagingServiceSid") != "MG1" || f.Get("From") != business {
		t.Errorf("callback: got %v", f)
	}
}

func TestOptOut(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"STOP", " stop ", "Cancel", "END", "optout"} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			w.say(t, SMS, word)
			await(t, "the automatic reply", func() bool { return len(w.phones.texts()) == 1 })
			await(t, "the webhook all the same", func() bool { return len(w.hook.all()) == 1 })
			if f := w.hook.all()[0].form; f.Get("Body") != word {
				t.Errorf("webhook: got %v", f)
			}
			status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form())
			if status != 400 || !strings.Contains(body, `"code":21610`) {
				t.Errorf("send after STOP: got %d %s, want 400 with 21610", status, body)
			}
			w.say(t, SMS, "start")
			await(t, "the second reply", func() bool { return len(w.phones.texts()) == 2 })
			w.send(t)
		})
	}
	w := newWorld(t, "")
	w.say(t, SMS, "please stop")
	w.say(t, WhatsApp, "STOP")
	await(t, "both webhooks", func() bool { return len(w.hook.all()) == 2 })
	w.send(t)
	await(t, "the message", func() bool { return slices.Contains(w.phones.texts(), "Hello") })
	if got := w.phones.texts(); len(got) != 1 {
		t.Errorf("phone: got %v; neither a sentence nor WhatsApp opts out by itself", got)
	}
}

func TestInboundSMSHasItsEmptyParameters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "#rc=2&rp=all")
	id := w.say(t, SMS, "hi")
	await(t, "the webhook", func() bool { return len(w.hook.all()) == 1 })
	p := w.hook.all()[0]
	if p.path != "/in?tenant=7" || p.form.Get("MessageSid") != id || p.form.Get("SmsStatus") != "received" {
		t.Errorf("got %+v", p)
	}
	for _, name := range []string{"FromCity", "ToZip"} {
		if !p.form.Has(name) {
			t.Errorf("%s is missing; it is sent empty", name)
		}
	}
	if p.header.Get("I-Twilio-Idempotency-Token") == "" {
		t.Error("no idempotency token")
	}
	await(t, "the tick", func() bool {
		w.phones.mu.Lock()
		defer w.phones.mu.Unlock()
		return slices.Equal(w.phones.accepted, []string{id})
	})
}

func TestAnswersBecomeMessages(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, channel, contentType, body string
		want                             []string
	}{
		{"empty TwiML", SMS, "text/xml", `<?xml version="1.0" encoding="UTF-8"?><Response/>`, nil},
		{"TwiML", SMS, "text/xml; charset=utf-8", `<Response><Message>One &amp; only</Message><Message><Body>Two</Body></Message></Response>`, []string{"One & only", "Two"}},
		{"TwiML on WhatsApp", WhatsApp, "application/xml", `<Response><Message>One</Message></Response>`, []string{"One"}},
		{"plain text", SMS, "text/plain", "OK", []string{"OK"}},
		{"plain text on WhatsApp", WhatsApp, "text/plain", "OK", nil},
		{"JSON", SMS, "application/json", `{"ok":true}`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			w.hook.answer = func(n int, rw http.ResponseWriter) {
				if n > 1 {
					return
				}
				rw.Header().Set("Content-Type", tc.contentType)
				_, _ = io.WriteString(rw, tc.body)
			}
			w.say(t, tc.channel, "hi")
			w.say(t, tc.channel, "again") // taken after the first one's answer was read
			await(t, "both ticks", func() bool { w.phones.mu.Lock(); defer w.phones.mu.Unlock(); return len(w.phones.accepted) == 2 })
			got := w.replies()
			if !slices.Equal(got, tc.want) {
				t.Errorf("replies: got %q, want %q", got, tc.want)
			}
		})
	}
}

// replies are the texts that Twilio was asked to send by a webhook's answer.
func (w *world) replies() []string {
	w.Simulator.mu.Lock()
	defer w.Simulator.mu.Unlock()
	var texts []string
	for _, m := range w.order {
		if m.direction == directionReply {
			texts = append(texts, m.Text)
		}
	}
	return texts
}

func TestWebhookRetries(t *testing.T) {
	t.Parallel()
	fail := func(_ int, w http.ResponseWriter) { w.WriteHeader(500) }
	cut := func(_ int, w http.ResponseWriter) { panic(http.ErrAbortHandler) }
	notFound := func(_ int, w http.ResponseWriter) { w.WriteHeader(404) }
	for _, tc := range []struct {
		name, fragment string
		answer         func(int, http.ResponseWriter)
		want           int
	}{
		{"no retry of a 500 by default", "", fail, 1},
		{"a 500 as told", "#rc=3&rp=ct,5xx", fail, 4},
		{"a 404 is no 500", "#rc=3&rp=5xx", notFound, 1},
		{"everything", "#rc=2&rp=all", notFound, 3},
		{"no answer is not a failure to connect", "#rc=2", cut, 1},
		{"no answer as told", "#rc=2&rp=rt", cut, 3},
		{"too many retries asked", "#rc=9&rp=all", fail, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tc.fragment)
			w.hook.answer = tc.answer
			w.say(t, SMS, "hi")
			await(t, "all tries", func() bool { return len(w.hook.all()) >= tc.want })
			w.Simulator.Close()
			posts := w.hook.all()
			if len(posts) != tc.want {
				t.Errorf("posts: got %d, want %d", len(posts), tc.want)
			}
			for _, p := range posts {
				if p.header.Get("I-Twilio-Idempotency-Token") != posts[0].header.Get("I-Twilio-Idempotency-Token") {
					t.Error("a retry has another idempotency token")
				}
			}
		})
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	// Nobody listens on the port of a server that has closed.
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	a := &w.cfg.Accounts[0]
	_, o := parseOverrides("")
	if _, outcome := w.post(t.Context(), a, w.write("", gone.URL, url.Values{}), "x", o); outcome != "ct" {
		t.Errorf("refused connection: got %q, want ct", outcome)
	}
	w.hook.answer = func(_ int, rw http.ResponseWriter) { rw.WriteHeader(204) }
	if _, outcome := w.post(t.Context(), a, w.write("", w.hook.url+"/", url.Values{}), "x", o); outcome != "" {
		t.Errorf("204: got %q, want success", outcome)
	}
}

func TestOverrides(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		address, bare string
		want          overrides
	}{
		{"https://a/b?c=d", "https://a/b?c=d", overrides{1, []string{"ct"}, 5 * time.Second, 15 * time.Second, 15 * time.Second}},
		{"https://a/b#rc=0", "https://a/b", overrides{0, []string{"ct"}, 5 * time.Second, 15 * time.Second, 15 * time.Second}},
		{"https://a/b#rc=3&rp=ct,rt,5xx&rt=4000&tt=9000", "https://a/b", overrides{3, []string{"ct", "rt", "5xx"}, 5 * time.Second, 4 * time.Second, 9 * time.Second}},
		{"https://a/b#tt=20&ct=100&rt=15001", "https://a/b", overrides{1, []string{"ct"}, 100 * time.Millisecond, 15 * time.Second, 15 * time.Second}},
	} {
		bare, got := parseOverrides(tc.address)
		if bare != tc.bare || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %s %+v, want %s %+v", tc.address, bare, got, tc.bare, tc.want)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	first := w.send(t)
	w.send(t, "To", "+16505559999")
	await(t, "both delivered", func() bool { return len(w.hook.statuses()) == 4 })
	w.pass(24 * time.Hour)
	last := w.send(t)
	list := func(query string) (sids []string, next any) {
		t.Helper()
		status, body := w.call(t, "GET", sid+"/Messages.json?"+query, sid, token, "")
		var page struct {
			Messages []resource
			Next     any `json:"next_page_uri"`
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || status != 200 {
			t.Fatalf("%s: got %d %s", query, status, body)
		}
		for _, m := range page.Messages {
			sids = append(sids, m.SID)
		}
		return sids, page.Next
	}
	to := "To=" + url.QueryEscape(customer)
	for _, tc := range []struct {
		query string
		want  []string
	}{
		{to, []string{last.SID, first.SID}},
		{to + "&DateSent=2026-11-01", []string{first.SID}},
		{to + "&DateSent%3E=2026-11-02", []string{last.SID}},
		{to + "&DateSent%3C=2026-11-01", []string{first.SID}},
		{to + "&DateSent%3E=2026-11-02T12:00:00Z", []string{last.SID}},
		{"To=%2B16505550001", nil},
	} {
		if got, _ := list(tc.query); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.query, got, tc.want)
		}
	}
	got, next := list(to + "&PageSize=1")
	if len(got) != 1 || next == nil {
		t.Errorf("first page: got %v, next %v", got, next)
	}
	got, next = list(to + "&PageSize=1&Page=1")
	if !slices.Equal(got, []string{first.SID}) || next != nil {
		t.Errorf("second page: got %v, next %v", got, next)
	}
	if status, _ := w.call(t, "GET", otherSID+"/Messages/"+first.SID+".json", otherSID, "other", ""); status != 404 {
		t.Errorf("another account's message: got %d, want 404", status)
	}
	if status, _ := w.call(t, "GET", sid+"/Messages.json?DateSent=soon", sid, token, ""); status != 400 {
		t.Errorf("bad date: got %d, want 400", status)
	}
}

func TestMessagesAreForgottenInTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.keep = 10
	for range w.keep + 1 {
		w.store(&message{Delivery: Delivery{ID: NewID()}})
	}
	w.store(&message{Delivery: Delivery{ID: "last"}})
	if len(w.order) > w.keep || len(w.messages) != len(w.order) || w.messages["last"] == nil {
		t.Errorf("kept %d in order and %d by SID, the last one %t", len(w.order), len(w.messages), w.messages["last"] != nil)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	if err := w.set.Replace([]faults.Rule{
		{Call: CallMessages, Do: faults.Status, Status: 429, Body: `{"code":20429}`, Times: 1},
		{Call: CallMessages, Do: faults.DropAfter, Times: 1},
		{Call: CallWebhookStatus, Do: faults.Drop, Times: 1},
		{Call: CallWebhookInbound, Do: faults.Duplicate, Times: 1},
	}); err != nil {
		t.Fatal(err)
	}
	if status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form()); status != 429 || body != `{"code":20429}` {
		t.Errorf("got %d %s, want 429", status, body)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", w.url+sid+"/Messages.json", strings.NewReader(w.form()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(sid, token)
	if res, err := http.DefaultClient.Do(req); err == nil {
		_ = res.Body.Close()
		t.Errorf("got %d, want a cut connection", res.StatusCode)
	}
	w.awaitStatuses(t, "delivered") // sent was lost, the message was not
	w.say(t, SMS, "hi")
	await(t, "the message twice", func() bool { return len(w.hook.all()) == 3 })
	if a, b := w.hook.all()[1], w.hook.all()[2]; a.form.Encode() != b.form.Encode() {
		t.Error("the second copy differs")
	}
}

func TestNewReportsEverythingWrong(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Accounts: []Account{
		{SID: "AC1"}, {SID: sid},
		{SID: otherSID, AuthToken: "x", Numbers: []Number{{E164: "1"}, {E164: business}, {E164: business}, {E164: business, Channel: "fax"}},
			Contents: []Content{{SID: "HX1"}}},
	}}, faults.New(), &phones{})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"account 0: SID", "account 1: AuthToken", "number 0: E164", "number 2: the number is used twice", "number 3: Channel", "content 0"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}
