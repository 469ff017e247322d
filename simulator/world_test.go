package simulator

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/simulator/clickatell"
	"paythread/simulator/meta"
	"paythread/simulator/twilio"
)

const (
	metaNumber   = "+15550783881"
	smsNumber    = "+15550783882"
	customer     = "+16505551234"
	accountSID   = "AC00000000000000000000000000000001"
	waMessages   = "/meta/v25.0/PN1/messages"
	smsMessages  = "/twilio/2010-04-01/Accounts/" + accountSID + "/Messages.json"
	phoneControl = "/phones/" + customer

	oneAPINumber   = "+15550783885" // on both channels
	oneAPIKey      = "clickatell-key"
	oneAPIMessages = "/clickatell/v1/message"
)

// business receives all webhooks, and keeps their bodies.
type business struct {
	mu     sync.Mutex
	bodies []string
}

func (b *business) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bodies = append(b.bodies, string(body))
}

func (b *business) heard(what string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.bodies, func(body string) bool { return strings.Contains(body, what) })
}

type served struct {
	*World
	business *business
	url      string
}

func serve(t *testing.T, change func(*Config)) *served {
	t.Helper()
	b := &business{}
	hooks := httptest.NewServer(b)
	cfg := Config{
		PublicURL: "http://simulator.test",
		Meta: meta.Config{
			Numbers: []meta.Number{{PhoneNumberID: "PN1", WABAID: "W1", DisplayNumber: metaNumber, VerifiedName: "Acme",
				AccessToken: "token", AppSecret: "secret", VerifyToken: "verify", WebhookURL: hooks.URL}},
			Templates: []meta.Template{{WABAID: "W1", Name: "pay", Language: "en", Category: "UTILITY", Body: "Pay {{1}} now.",
				URLButton: &meta.URLButton{Label: "Pay", URL: "https://pay.example/p/{{1}}"}, QuickReplies: []string{"Help"}}},
			WebhookRetries: []time.Duration{},
		},
		Twilio: twilio.Config{Accounts: []twilio.Account{{SID: accountSID, AuthToken: "token",
			Numbers: []twilio.Number{{E164: smsNumber, Name: "Acme", InboundURL: hooks.URL}}}}},
		Links: []Link{{Name: "Orders", URL: "/oms/", Text: "the agent's desk"}},
	}
	if change != nil {
		change(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(w.Handler())
	t.Cleanup(func() {
		w.Close()
		srv.Close()
		hooks.Close()
	})
	return &served{w, b, srv.URL}
}

func (s *served) call(t *testing.T, method, path, body string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case strings.HasPrefix(path, "/meta/v"):
		req.Header.Set("Authorization", "Bearer token")
	case strings.HasPrefix(path, "/clickatell/v1/"):
		req.Header.Set("Authorization", oneAPIKey)
		req.Header.Set("Content-Type", "application/json")
	case strings.HasPrefix(path, "/twilio/"):
		req.SetBasicAuth(accountSID, "token")
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

// must makes a call that has to succeed.
func (s *served) must(t *testing.T, method, path, body string) string {
	t.Helper()
	status, answer, _ := s.call(t, method, path, body)
	if status >= 300 {
		t.Fatalf("%s %s: got %d %s", method, path, status, answer)
	}
	return answer
}

func (s *served) messages(t *testing.T) []Message {
	t.Helper()
	var got phoneState
	if err := json.Unmarshal([]byte(s.must(t, "GET", phoneControl+"/messages", "")), &got); err != nil {
		t.Fatal(err)
	}
	return got.Messages
}

func (s *served) awaitMessages(t *testing.T, n int) []Message {
	t.Helper()
	await(t, "messages on the phone", func() bool { return len(s.messages(t)) >= n })
	return s.messages(t)
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

const payTemplate = `{"messaging_product":"whatsapp","to":"+16505551234","type":"template","template":{"name":"pay","language":{"code":"en"},"components":[
	{"type":"body","parameters":[{"type":"text","text":"$42.10"}]},{"type":"button","sub_type":"url","index":"0","parameters":[{"type":"text","text":"7Qk2"}]}]}}`

func smsForm(text string) string {
	return url.Values{"To": {customer}, "From": {smsNumber}, "Body": {text}}.Encode()
}

func TestWhatsAppStory(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.must(t, "POST", waMessages, payTemplate)
	m := s.awaitMessages(t, 1)[0]
	want := []Button{{Title: "Pay", URL: "https://pay.example/p/7Qk2"}, {ID: "Help", Title: "Help"}}
	if m.Channel != WhatsApp || m.Direction != Received || m.From != metaNumber || m.Text != "Pay $42.10 now." ||
		!slices.Equal(m.Buttons, want) || !slices.Equal(m.Links, []string{"https://pay.example/p/7Qk2"}) || m.Status != "delivered" {
		t.Errorf("received: got %+v", m)
	}
	s.must(t, "POST", phoneControl+"/read", `{"channel":"sms"}`)
	if got := s.messages(t)[0].Status; got != "delivered" {
		t.Errorf("reading SMS marked WhatsApp %s", got)
	}
	s.must(t, "POST", "/phones/16505551234/read", "")
	await(t, "the read receipt", func() bool { return s.business.heard(`"status":"read"`) })

	s.must(t, "POST", phoneControl+"/messages", `{"channel":"whatsapp","button":"Help","messageId":"`+m.ID+`"}`)
	await(t, "the pressed button", func() bool { return s.business.heard(`"button":{"payload":"Help","text":"Help"}`) })
	s.must(t, "POST", phoneControl+"/messages", `{"channel":"whatsapp","text":"And https://a.example/x?y=1, please (see https://b.example)."}`)
	said := s.awaitMessages(t, 3)[2]
	if said.Direction != Sent || said.To != metaNumber || !slices.Equal(said.Links, []string{"https://a.example/x?y=1", "https://b.example"}) {
		t.Errorf("sent: got %+v", said)
	}
	await(t, "the tick", func() bool { return s.messages(t)[2].Status == "delivered" })
	s.must(t, "POST", waMessages, `{"messaging_product":"whatsapp","status":"read","message_id":"`+said.ID+`","typing_indicator":{"type":"text"}}`)
	if got := s.messages(t); got[1].Status != "read" || got[2].Status != "read" {
		t.Errorf("marked as read: got %s and %s", got[1].Status, got[2].Status)
	}
	if !s.Phones.Contacts(customer)[0].Typing {
		t.Error("no typing dots")
	}
	s.must(t, "POST", waMessages, `{"messaging_product":"whatsapp","to":"+16505551234","text":{"body":"Done."}}`)
	s.awaitMessages(t, 4)
	if s.Phones.Contacts(customer)[0].Typing {
		t.Error("typing dots after the answer")
	}
}

func TestSMSStory(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.must(t, "POST", smsMessages, smsForm("Pay: https://pay.example/p/7Qk2."))
	m := s.awaitMessages(t, 1)[0]
	if m.Channel != SMS || m.From != smsNumber || !slices.Equal(m.Links, []string{"https://pay.example/p/7Qk2"}) {
		t.Errorf("received: got %+v", m)
	}
	s.must(t, "POST", phoneControl+"/messages", `{"channel":"sms","text":"STOP"}`)
	got := s.awaitMessages(t, 3)
	if got[1].Text != "STOP" || got[1].Direction != Sent || !strings.Contains(got[2].Text, "unsubscribed") {
		t.Errorf("got %+v, want STOP and the network's answer", got[1:])
	}
	await(t, "the webhook", func() bool { return s.business.heard("Body=STOP") })
	if status, body, _ := s.call(t, "POST", smsMessages, smsForm("Once more")); status != 400 || !strings.Contains(body, "21610") {
		t.Errorf("after STOP: got %d %s", status, body)
	}
}

// withClickatell is a world whose business uses Clickatell, too.
func withClickatell(t *testing.T) *served {
	t.Helper()
	return serve(t, func(c *Config) { c.Clickatell = oneAPI(c) })
}

// oneAPI is a Clickatell that calls the business where Meta does.
func oneAPI(c *Config) clickatell.Config {
	hooks := c.Meta.Numbers[0].WebhookURL
	return clickatell.Config{Integrations: []clickatell.Integration{{
		ID: "int1", Name: "Acme", APIKey: oneAPIKey, InboundURL: hooks + "/in", StatusURL: hooks + "/status",
		Numbers:   []clickatell.Number{{E164: oneAPINumber, Name: "Acme Power"}, {E164: oneAPINumber, Channel: clickatell.WhatsApp}},
		Templates: []clickatell.Template{{Name: "pay", Body: "Pay {{1}} now.", ButtonLabel: "Pay", ButtonURL: "https://pay.example/p/{{2}}", QuickReplies: []string{"Help"}}},
	}}}
}

const (
	oneAPISMS      = `{"messages":[{"to":"16505551234","content":"Pay: https://pay.example/p/7Qk2.","clientMessageId":"att_1"}]}`
	oneAPITemplate = `{"messages":[{"channel":"whatsapp","to":"16505551234","template":"pay","parameters":{"1":"$42.10","2":"7Qk2"}}]}`
)

func TestClickatellStory(t *testing.T) {
	t.Parallel()
	s := withClickatell(t)
	s.must(t, "POST", oneAPIMessages, oneAPISMS)
	m := s.awaitMessages(t, 1)[0]
	if m.Channel != SMS || m.From != oneAPINumber || !slices.Equal(m.Links, []string{"https://pay.example/p/7Qk2"}) {
		t.Errorf("received: got %+v", m)
	}
	await(t, "the delivered status", func() bool {
		return s.business.heard(`"status":"DEVICE_ACK","messageId":"` + m.ID + `","clientMessageId":"att_1"`)
	})
	s.must(t, "POST", phoneControl+"/messages", `{"channel":"sms","text":"STOP"}`) // to whoever wrote last
	await(t, "STOP at the business", func() bool {
		return s.business.heard(`"to":"15550783885","timestamp":`) && s.business.heard(`"content":"STOP"`)
	})
	await(t, "the tick", func() bool { return s.messages(t)[1].Status == "delivered" })
	s.must(t, "POST", oneAPIMessages, oneAPISMS)
	s.awaitMessages(t, 3)

	s.must(t, "POST", oneAPIMessages, oneAPITemplate)
	m = s.awaitMessages(t, 4)[3]
	want := []Button{{Title: "Pay", URL: "https://pay.example/p/7Qk2"}, {ID: "Help", Title: "Help"}}
	if m.Channel != WhatsApp || m.From != oneAPINumber || m.Text != "Pay $42.10 now." || !slices.Equal(m.Buttons, want) {
		t.Errorf("template: got %+v", m)
	}
	s.must(t, "POST", phoneControl+"/read", `{"channel":"whatsapp"}`)
	await(t, "the read receipt", func() bool { return s.business.heard(`"statusCode":6,"status":"READ","messageId":"` + m.ID) })
	s.must(t, "POST", phoneControl+"/messages", `{"button":"Help"}`)
	await(t, "the pressed button", func() bool { return s.business.heard(`"relatedMessageId":"` + m.ID + `"`) })
	// Another business with the same channels hears nothing of it.
	if s.business.heard("MessageSid") || s.business.heard("whatsapp_business_account") {
		t.Error("a message for one company's number went to another company")
	}
}

func TestClickatellPhones(t *testing.T) {
	t.Parallel()
	s := withClickatell(t)
	s.must(t, "POST", phoneControl+"/unreachable", `{"on":true}`)
	s.must(t, "POST", oneAPIMessages, oneAPISMS)
	await(t, "the expired SMS", func() bool { return s.business.heard(`"statusCode":20,"status":"EXPIRED"`) })
	s.must(t, "POST", oneAPIMessages, oneAPITemplate)
	await(t, "the sent WhatsApp", func() bool { return s.business.heard(`{"channel":"whatsapp"`) })
	s.must(t, "POST", phoneControl+"/unreachable", `{"on":false}`)
	if got := s.awaitMessages(t, 1); len(got) != 1 || got[0].Channel != WhatsApp {
		t.Errorf("switched on: got %+v, want what WhatsApp kept", got)
	}
	s.must(t, "POST", phoneControl+"/block", `{"channel":"sms","on":true}`)
	s.must(t, "POST", oneAPIMessages, oneAPISMS)
	await(t, "the failure", func() bool { return s.business.heard(`"statusCode":23,"status":"DELIVERY_FAILURE"`) })
	s.must(t, "POST", phoneControl+"/whatsapp", `{"on":false}`)
	if status, body, _ := s.call(t, "POST", oneAPIMessages, oneAPITemplate); status != 400 || !strings.Contains(body, `"code":27`) {
		t.Errorf("without WhatsApp: got %d %s, want 400 with code 27", status, body)
	}
}

func TestClickatellControl(t *testing.T) {
	t.Parallel()
	s := withClickatell(t)
	const media = `{"integrationId":"int1","integrationName":"Acme","event":{"moMedia":[{"channel":"whatsapp","messageId":"m7","from":"16505551234","to":"15550783885","timestamp":1781866800000,"contentType":"image/jpeg","caption":"paid"}]}}`
	for _, path := range []string{"/clickatell/webhooks/int1", "/clickatell/webhooks/int1?to=status"} {
		if got := s.must(t, "POST", path, media); strings.TrimSpace(got) != `{"status":200}` {
			t.Errorf("%s: got %s", path, got)
		}
	}
	if !s.business.heard(media) {
		t.Error("the business heard nothing")
	}
	s.must(t, "PUT", "/faults", `[{"call":"clickatell.messages","do":"refuse","code":19,"times":1}]`)
	if status, body, _ := s.call(t, "POST", oneAPIMessages, oneAPISMS); status != 503 || !strings.Contains(body, `"code":19`) {
		t.Errorf("refused: got %d %s, want 503 with code 19", status, body)
	}
	s.must(t, "POST", "/clickatell/integrations/int1", `{"balance":0}`)
	if status, body, _ := s.call(t, "POST", oneAPIMessages, oneAPISMS); status != 402 || !strings.Contains(body, `"code":20`) {
		t.Errorf("no balance: got %d %s, want 402 with code 20", status, body)
	}
	s.must(t, "POST", "/clickatell/integrations/int1", `{"balance":9.5,"callbacks":"legacy","charset":"UTF-16BE"}`)
	s.must(t, "POST", oneAPIMessages, oneAPISMS)
	await(t, "a legacy status", func() bool { return s.business.heard(`"status":"RECEIVED_BY_RECIPIENT"`) })
	s.must(t, "POST", phoneControl+"/messages", `{"channel":"sms","text":"hi"}`)
	await(t, "a legacy reply", func() bool { return s.business.heard(`"text":"%00h%00i","charset":"UTF-16BE"`) })
	for _, tc := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/clickatell/webhooks/int1", `{`, 400, `"field":"body"`},
		{"/clickatell/webhooks/int1?to=nobody", `{}`, 400, `"field":"to"`},
		{"/clickatell/webhooks/int9", `{}`, 404, ""},
		{"/clickatell/integrations/int1", `{"charset":"UTF-7"}`, 400, `"field":"charset"`},
		{"/clickatell/integrations/int1", `{"balance":"0"}`, 400, `"field":"balance"`},
		{"/clickatell/integrations/int1", `{"apiKey":"x"}`, 400, `"field":"apiKey"`},
		{"/clickatell/integrations/int9", `{}`, 404, ""},
	} {
		if status, body, _ := s.call(t, "POST", tc.path, tc.body); status != tc.status || !strings.Contains(body, tc.want) {
			t.Errorf("%s %s: got %d %s, want %d with %s", tc.path, tc.body, status, body, tc.status, tc.want)
		}
	}
	if got := s.must(t, "GET", "/calls?call=clickatell.", ""); !strings.Contains(got, `"call":"clickatell.messages"`) || !strings.Contains(got, `"ref":"att_1"`) {
		t.Errorf("calls: got %s", got)
	}
}

func TestTwilioSeesWhatAWhatsAppPhoneShows(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *Config) {
		sms := c.Twilio.Accounts[0].Numbers[0]
		c.Twilio.Accounts[0].Numbers = append(c.Twilio.Accounts[0].Numbers, twilio.Number{Channel: WhatsApp, E164: smsNumber, InboundURL: sms.InboundURL})
	})
	s.must(t, "POST", phoneControl+"/messages", `{"channel":"whatsapp","text":"one","to":"`+smsNumber+`"}`)
	id := s.messages(t)[0].ID
	await(t, "the message from the number", func() bool {
		return s.business.heard("From=whatsapp%3A%2B16505551234") && s.business.heard("ExternalUserId=whatsapp%3AUS.")
	})
	s.must(t, "POST", "/twilio/v2/Indicators/Typing.json", url.Values{"messageId": {id}, "channel": {"whatsapp"}}.Encode())
	if s.messages(t)[0].Status != "read" || !slices.ContainsFunc(s.Phones.Contacts(customer), func(c Contact) bool { return c.Typing && c.Number == smsNumber }) {
		t.Errorf("typing: got %+v and %+v", s.messages(t), s.Phones.Contacts(customer))
	}
	s.must(t, "POST", phoneControl+"/whatsapp", `{"on":true,"hideNumber":true}`)
	s.must(t, "POST", phoneControl+"/messages", `{"channel":"whatsapp","text":"two","to":"`+smsNumber+`"}`)
	await(t, "the message from nobody's number", func() bool { return s.business.heard("From=whatsapp%3AUS.") })
}

func TestUnreachableAndBlocked(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.must(t, "POST", phoneControl+"/unreachable", `{"on":true}`)
	s.must(t, "POST", waMessages, payTemplate)
	await(t, "the sent status", func() bool { return s.business.heard(`"status":"sent"`) })
	if got := s.messages(t); len(got) != 0 {
		t.Errorf("a phone that is off has %+v", got)
	}
	for _, path := range []string{"/read", "/messages"} {
		if status, body, _ := s.call(t, "POST", phoneControl+path, `{"channel":"sms"`+map[string]string{"/messages": `,"text":"x"`}[path]+`}`); status != 409 {
			t.Errorf("%s of a phone that is off: got %d %s, want 409", path, status, body)
		}
	}
	s.must(t, "POST", phoneControl+"/unreachable", `{"on":false}`)
	s.awaitMessages(t, 1)
	await(t, "the delivered status", func() bool { return s.business.heard(`"status":"delivered"`) })

	s.must(t, "POST", phoneControl+"/block", `{"channel":"whatsapp","on":true}`)
	if status, _, _ := s.call(t, "POST", phoneControl+"/messages", `{"channel":"whatsapp","text":"x"}`); status != 409 {
		t.Errorf("writing to the blocked: got %d, want 409", status)
	}
	s.must(t, "POST", waMessages, payTemplate)
	await(t, "the failure", func() bool { return s.business.heard(`"code":130403`) })
	s.must(t, "POST", phoneControl+"/block", `{"channel":"whatsapp","on":false}`)
	s.must(t, "POST", phoneControl+"/whatsapp", `{"on":false}`)
	s.must(t, "POST", waMessages, payTemplate)
	await(t, "the second failure", func() bool { return s.business.heard(`"code":131026`) })
	if got := s.messages(t); len(got) != 1 {
		t.Errorf("phone: got %d messages, want the first alone", len(got))
	}
}

func TestOtherSpellingIsTheSamePhone(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.must(t, "POST", phoneControl+"/whatsapp", `{"on":true,"name":"Ana","waId":"165055512340"}`)
	s.must(t, "POST", waMessages, strings.ReplaceAll(payTemplate, customer, "+165055512340"))
	s.awaitMessages(t, 1)
	if got := s.Phones.Messages("+165055512340"); len(got) != 1 {
		t.Errorf("by the other spelling: got %d messages, want 1", len(got))
	}
	s.must(t, "GET", "/phones/+16505559999/messages", "")
	if status, body, _ := s.call(t, "POST", phoneControl+"/whatsapp", `{"on":true,"waId":"16505559999"}`); status != 400 || !strings.Contains(body, `"field":"waId"`) {
		t.Errorf("another phone's number: got %d %s, want 400", status, body)
	}
	s.must(t, "POST", phoneControl+"/whatsapp", `{"on":true}`)
	if got := s.Phones.Account(customer); got.WaID != "" || got.Name != "Ana" {
		t.Errorf("afterwards: got %+v, want the usual spelling and the same name", got)
	}
}

func TestWhichBusiness(t *testing.T) {
	t.Parallel()
	second := "+15550783889"
	s := serve(t, func(c *Config) {
		n := c.Meta.Numbers[0]
		n.PhoneNumberID, n.DisplayNumber, n.AccessToken = "PN2", second, "token2"
		c.Meta.Numbers = append(c.Meta.Numbers, n)
	})
	if status, body, _ := s.call(t, "POST", phoneControl+"/messages", `{"channel":"whatsapp","text":"hi"}`); status != 400 || !strings.Contains(body, `"field":"to"`) {
		t.Errorf("two businesses, none wrote: got %d %s, want 400 naming to", status, body)
	}
	s.must(t, "POST", phoneControl+"/messages", `{"channel":"whatsapp","text":"hi","to":"15550783889"}`)
	if got := s.awaitMessages(t, 1)[0].To; got != second {
		t.Errorf("explicit: went to %s, want %s", got, second)
	}
	s.must(t, "POST", waMessages, payTemplate)
	s.awaitMessages(t, 2)
	s.must(t, "POST", phoneControl+"/messages", `{"channel":"whatsapp","text":"hi"}`)
	if got := s.awaitMessages(t, 3)[2].To; got != metaNumber {
		t.Errorf("after one wrote: went to %s, want %s", got, metaNumber)
	}
}

func TestControlRefusals(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.must(t, "POST", waMessages, payTemplate)
	s.awaitMessages(t, 1)
	for _, tc := range []struct{ method, path, body, field string }{
		{"GET", "/phones/nobody/messages", "", "e164"},
		{"POST", "/phones/123/read", "{}", "e164"},
		{"POST", phoneControl + "/messages", `{`, "body"},
		{"POST", phoneControl + "/messages", `{} {}`, "body"},
		{"POST", phoneControl + "/messages", `[]`, "body"},
		{"POST", phoneControl + "/messages", `{"chanel":"sms"}`, "chanel"},
		{"POST", phoneControl + "/messages", `{"channel":7}`, "channel"},
		{"POST", phoneControl + "/messages", `{"channel":"sms"}`, "text"},
		{"POST", phoneControl + "/messages", `{"channel":"sms","text":" "}`, "text"},
		{"POST", phoneControl + "/messages", `{"channel":"fax","text":"x"}`, "channel"},
		{"POST", phoneControl + "/messages", `{"text":"x"}`, "channel"},
		{"POST", phoneControl + "/messages", `{"channel":"sms","text":"x","to":"+15550000000"}`, "to"},
		{"POST", phoneControl + "/messages", `{"channel":"sms","text":"x","messageId":"y"}`, "messageId"},
		{"POST", phoneControl + "/messages", `{"text":"x","button":"y"}`, "button"},
		{"POST", phoneControl + "/messages", `{"button":""}`, "button"},
		{"POST", phoneControl + "/messages", `{"button":"No such"}`, "button"},
		{"POST", phoneControl + "/messages", `{"button":"Pay"}`, "button"},
		{"POST", phoneControl + "/messages", `{"button":"Help","messageId":"y"}`, "messageId"},
		{"POST", phoneControl + "/messages", `{"button":"Help","channel":"sms"}`, "button"},
		{"POST", phoneControl + "/read", `{"channel":"fax"}`, "channel"},
		{"POST", phoneControl + "/read", `{"from":"Acme"}`, "from"},
		{"POST", phoneControl + "/block", `{"on":true}`, "channel"},
		{"POST", phoneControl + "/block", `{"channel":"sms"}`, "on"},
		{"POST", phoneControl + "/unreachable", ``, "on"},
		{"POST", phoneControl + "/whatsapp", `{"waId":"x"}`, "on"},
		{"POST", phoneControl + "/whatsapp", `{"on":true,"waId":"x"}`, "waId"},
		{"PUT", "/faults", `{}`, "body"},
		{"PUT", "/faults", ``, "body"},
		{"PUT", "/faults", `[{"call":"a","do":"drop"},{"call":"a","do":"explode"}]`, "[1].do"},
		{"PUT", "/faults", `[{"call":"a","do":"drop","often":1}]`, "often"},
	} {
		status, body, header := s.call(t, tc.method, tc.path, tc.body)
		var p problem
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Errorf("%s %s %s: answer is no problem: %s", tc.method, tc.path, tc.body, body)
			continue
		}
		if status != 400 || p.Status != 400 || p.Field != tc.field || header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s %s: got %d %+v, want 400 naming %s", tc.method, tc.path, tc.body, status, p, tc.field)
		}
	}
}

func TestFaultsOverHTTP(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.must(t, "PUT", "/faults", `[{"id":"h","call":"twilio.messages","do":"hold_before"}]`)
	answered := make(chan int, 1)
	go func() {
		status, _, _ := s.call(t, "POST", smsMessages, smsForm("hi"))
		answered <- status
	}()
	await(t, "the call is held", func() bool { return strings.Contains(s.must(t, "GET", "/faults", ""), `"held":1`) })
	if got := s.messages(t); len(got) != 0 {
		t.Errorf("held before its effect, and yet on the phone: %+v", got)
	}
	s.must(t, "POST", "/faults/h/release", "")
	if got := <-answered; got != 201 {
		t.Errorf("released: got %d, want 201", got)
	}
	s.awaitMessages(t, 1)
	if status, _, _ := s.call(t, "POST", "/faults/x/release", ""); status != 404 {
		t.Errorf("unknown rule: got %d, want 404", status)
	}
	s.must(t, "DELETE", "/faults", "")
	if got := s.must(t, "GET", "/faults", ""); strings.TrimSpace(got) != "[]" {
		t.Errorf("after DELETE: got %s", got)
	}
	if got := s.must(t, "GET", "/calls?call=twilio.", ""); !strings.Contains(got, `"call":"twilio.messages"`) || !strings.Contains(got, `"status":201`) {
		t.Errorf("calls: got %s", got)
	}
	if got := s.must(t, "GET", "/calls?call=meta.", ""); strings.TrimSpace(got) != `{"calls":[]}` {
		t.Errorf("Meta's calls: got %s", got)
	}
}

func TestMetaVerify(t *testing.T) {
	t.Parallel()
	s := serve(t, nil) // its business does not answer challenges
	if status, body, _ := s.call(t, "POST", "/meta/verify", ""); status != 502 || strings.Contains(body, "verify") {
		t.Errorf("got %d %s, want 502 without the token", status, body)
	}
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Query().Get("hub.challenge"))
	}))
	defer echo.Close()
	s = serve(t, func(c *Config) { c.Meta.Numbers[0].WebhookURL = echo.URL })
	s.must(t, "POST", "/meta/verify", "")
}

func TestInjectedWebhook(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	if got := s.must(t, "POST", "/meta/webhooks/PN1", `{"object":"strange"}`); strings.TrimSpace(got) != `{"status":200}` {
		t.Errorf("got %s", got)
	}
	if !s.business.heard(`{"object":"strange"}`) {
		t.Error("the business heard nothing")
	}
	for path, want := range map[string]int{"/meta/webhooks/PN1": 400, "/meta/webhooks/PN9": 404} {
		if status, _, _ := s.call(t, "POST", path, `{`); status != want {
			t.Errorf("%s: got %d, want %d", path, status, want)
		}
	}
}

var (
	documentedRow  = regexp.MustCompile("(?m)^\\| `(POST|PUT) (/(?:phones|faults|meta|twilio|clickatell)\\S*)` \\| (.*)$")
	documentedBody = regexp.MustCompile("`(\\{.*?\\})`")
)

// TestDocumentedControlCalls: what docs/simulator.md tells people to send is taken
// as it stands, with this world's names in the place of its own.
func TestDocumentedControlCalls(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	const content = "HX00000000000000000000000000000001"
	here := strings.NewReplacer("{e164}", customer, "{id}", "int1", "{pnid}", "PN1", "payment_request", "pay", "HX...", content, metaNumber, smsNumber)
	calls := 0
	for _, row := range documentedRow.FindAllStringSubmatch(string(page), -1) {
		for _, body := range documentedBody.FindAllStringSubmatch(row[3], -1) {
			if strings.Contains(body[1], `"button"`) || strings.Contains(body[1], `"..."`) {
				continue // of a message that has to be there, or not whole
			}
			s := serve(t, func(c *Config) {
				account := &c.Twilio.Accounts[0]
				account.Numbers = append(account.Numbers, twilio.Number{Channel: WhatsApp, E164: smsNumber})
				account.Contents = []twilio.Content{{SID: content, Body: "Pay."}}
				c.Clickatell = oneAPI(c)
			})
			s.must(t, "POST", smsMessages, smsForm("Somebody has to write first."))
			s.awaitMessages(t, 1)
			if status, answer, _ := s.call(t, row[1], here.Replace(row[2]), here.Replace(body[1])); status >= 300 {
				t.Errorf("%s %s %s: got %d %s", row[1], row[2], body[1], status, answer)
			}
			calls++
		}
	}
	if calls < 20 {
		t.Errorf("found %d calls in docs/simulator.md: this test does not see them", calls)
	}
}

var outside = regexp.MustCompile(`(?:src|href|action)="(?:https?:)?//([^"/]+)`)

func TestPages(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.must(t, "POST", phoneControl+"/messages", `{"channel":"sms","text":"</script><b>hi"}`)
	for _, tc := range []struct {
		path   string
		status int
		want   string
	}{
		{"/", 200, `<a href="/oms/">Orders</a>`},
		{"/", 200, `http://simulator.test/phone/`},
		{"/phone/", 200, `for="number"`},
		{"/phone/?number=12", 400, `aria-invalid="true"`},
		{"/phone/nobody", 404, `value="nobody"`},
		{"/phone/" + customer, 200, `role="log"`},
		{"/phone/%2B16505551234?channel=sms", 200, `data-number="&#43;16505551234"`},
		{"/phone/16505551234", 200, `\u003c/script\u003e`},
	} {
		status, body, header := s.call(t, "GET", tc.path, "")
		if status != tc.status || !strings.Contains(body, tc.want) {
			t.Errorf("%s: got %d, want %d with %s in\n%s", tc.path, status, tc.status, tc.want, body)
		}
		if !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: no content policy", tc.path)
		}
		for _, found := range outside.FindAllStringSubmatch(body, -1) {
			if found[1] != "simulator.test" {
				t.Errorf("%s: uses an outside host %s", tc.path, found[1])
			}
		}
	}
	status, _, header := s.call(t, "GET", "/phone/?number=16505551234", "")
	if status != 303 || !strings.HasSuffix(header.Get("Location"), "/phone/+16505551234") {
		t.Errorf("asked for a number: got %d to %s", status, header.Get("Location"))
	}
	for _, file := range []string{"phone.css", "phone.js"} {
		if status, body, _ := s.call(t, "GET", "/phone-assets/"+file, ""); status != 200 || strings.Contains(body, "://") && file == "phone.css" {
			t.Errorf("%s: got %d", file, status)
		}
	}
}

func TestChangesAreStreamed(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	res, err := http.Get(s.url + "/phone/+16505551234/changes")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() string {
		for lines.Scan() {
			if lines.Text() != "" {
				return lines.Text()
			}
		}
		return "end"
	}
	first := next()
	if !strings.HasPrefix(first, "data: ") {
		t.Fatalf("at once: got %q, want an event", first)
	}
	s.must(t, "POST", phoneControl+"/messages", `{"channel":"sms","text":"hi"}`)
	if second := next(); !strings.HasPrefix(second, "data: ") || second == first {
		t.Errorf("after a change: got %q, want another event than %q", second, first)
	}
	s.Close()
	for line := ""; line != "end"; line = next() {
	}
	if status, _, _ := s.call(t, "GET", "/phone/12/changes", ""); status != 400 {
		t.Errorf("no phone number: got %d, want 400", status)
	}
}

// part is one more company.
type part struct{ closed chan struct{} }

func (p part) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /part", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "part") })
}
func (p part) Close() { close(p.closed) }

func TestPartsAndExtras(t *testing.T) {
	t.Parallel()
	p := part{make(chan struct{})}
	s := serve(t, func(c *Config) {
		c.Parts = []Registrar{p}
		c.Extra = map[string]http.Handler{"/extra/": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "extra") })}
	})
	if got := s.must(t, "GET", "/part", "") + s.must(t, "GET", "/extra/x", ""); got != "partextra" {
		t.Errorf("got %q, want both", got)
	}
	s.Close()
	s.Close()
	select {
	case <-p.closed:
	default:
		t.Error("the part was not closed")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	number := meta.Number{PhoneNumberID: "P", WABAID: "W", DisplayNumber: metaNumber, AccessToken: "t", AppSecret: "s"}
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"address", Config{PublicURL: "localhost"}, "PublicURL"},
		{"both companies", Config{Meta: meta.Config{Numbers: []meta.Number{{}}}, Twilio: twilio.Config{Accounts: []twilio.Account{{}}}}, "twilio: account 0"},
		{"one number twice", Config{Meta: meta.Config{Numbers: []meta.Number{number}}, Twilio: twilio.Config{Accounts: []twilio.Account{{SID: accountSID, AuthToken: "t",
			Numbers: []twilio.Number{{E164: metaNumber, Channel: WhatsApp}}}}}}, "two companies"},
		{"one number at Clickatell, too", Config{Meta: meta.Config{Numbers: []meta.Number{number}}, Clickatell: clickatell.Config{Integrations: []clickatell.Integration{{
			ID: "1", APIKey: "k", Numbers: []clickatell.Number{{E164: metaNumber, Channel: WhatsApp}}}}}}, "two companies"},
		{"Clickatell", Config{Clickatell: clickatell.Config{Integrations: []clickatell.Integration{{}}}}, "clickatell: integration 0"},
	} {
		if _, err := New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want it to say %q", tc.name, err, tc.want)
		}
	}
}

func TestPhoneForgetsItsOldest(t *testing.T) {
	t.Parallel()
	p := newPhones(time.Now)
	for range mostMessages + 5 {
		p.receive(&Message{ID: "x", Channel: SMS, From: smsNumber, To: customer, Text: "hi"})
	}
	p.receive(&Message{ID: "last", Channel: SMS, From: smsNumber, To: customer, Text: "hi"})
	got := p.Messages(customer)
	if len(got) != mostMessages || got[len(got)-1].ID != "last" {
		t.Errorf("got %d messages, last %s; want %d and the newest last", len(got), got[len(got)-1].ID, mostMessages)
	}
}
