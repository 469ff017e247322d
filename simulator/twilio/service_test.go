package twilio

import (
	"strings"
	"testing"
	"time"

	"paythread/simulator/faults"
)

func TestAdvancedOptOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	a := &w.cfg.Accounts[0]
	a.Numbers = append(a.Numbers, Number{Channel: SMS, E164: "+15550783899"})
	a.Services[0].Numbers = append(a.Services[0].Numbers, "+15550783899")
	a.Services[0].OptOut = &OptOut{Stop: []string{"halt"}, StopReply: "No more."}
	for i, tc := range []struct{ text, kind, reply string }{
		{"Halt", "STOP", "No more."},
		{"STOP", "", ""}, // not one of the service's words
		{"start", "START", optReplies[startWord]},
		{"help", "HELP", optReplies[helpWord]},
		{"hi", "", ""},
	} {
		before := len(w.phones.texts())
		w.say(t, SMS, tc.text)
		await(t, "the webhook", func() bool { return len(w.hook.all()) == i+1 })
		f := w.hook.all()[i].form
		if f.Get("OptOutType") != tc.kind || f.Get("MessagingServiceSid") != "MG1" || f.Has("OptOutType") != (tc.kind != "") {
			t.Errorf("%s: got %v", tc.text, f)
		}
		if tc.reply != "" {
			await(t, "the reply", func() bool { return len(w.phones.texts()) == before+1 })
			if got := w.phones.texts()[before]; got != tc.reply {
				t.Errorf("%s: answered %q, want %q", tc.text, got, tc.reply)
			}
		}
		if tc.kind == "STOP" {
			for _, from := range []string{business, "+15550783899"} {
				if status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form("From", from)); status != 400 || !strings.Contains(body, "21610") {
					t.Errorf("from %s: got %d %s; an opt-out counts for the service", from, status, body)
				}
			}
		}
	}
	w.send(t, "From", "+15550783899")
}

func TestServiceSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	sv := &w.cfg.Accounts[0].Services[0]
	sv.StatusCallback, sv.InboundURL = w.hook.url+"/service-status", w.hook.url+"/service-in"
	w.send(t, "From", "", "MessagingServiceSid", "MG1", "StatusCallback", "")
	w.awaitStatuses(t, "queued", "sent", "delivered")
	if got := w.hook.all()[0].path; got != "/service-status" {
		t.Errorf("callback: got %s", got)
	}
	w.say(t, SMS, "hi")
	await(t, "the message", func() bool { return len(w.hook.all()) == 4 })
	if got := w.hook.all()[3].path; got != "/service-in" {
		t.Errorf("inbound: got %s", got)
	}
	sv.NumberURLs = true
	w.say(t, SMS, "hi")
	await(t, "the message", func() bool { return len(w.hook.all()) == 5 })
	if got := w.hook.all()[4].path; got != "/in?tenant=7" {
		t.Errorf("use_inbound_webhook_on_number: got %s", got)
	}
	// A pinned sender must be one of the service's.
	r := w.send(t, "MessagingServiceSid", "MG1")
	if r.Status != "queued" || *r.From != business || *r.MessagingServiceSID != "MG1" {
		t.Errorf("pinned: got %+v", r)
	}
	if status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form("MessagingServiceSid", "MG2")); status != 400 || !strings.Contains(body, "21606") {
		t.Errorf("pinned to another's: got %d %s", status, body)
	}
}

func TestQueueAndValidity(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.cfg.Accounts[0].Numbers[0].PerSecond = 0.5
	w.send(t)
	w.send(t, "ValidityPeriod", "1") // its turn comes after two seconds
	w.awaitStatuses(t, "sent", "delivered", "failed 30036")
	for _, period := range []string{"0", "36001", "soon"} {
		if status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form("ValidityPeriod", period)); status != 400 {
			t.Errorf("ValidityPeriod %s: got %d %s", period, status, body)
		}
	}
	w.cfg.Accounts[0].Numbers[0].PerSecond = 1.0 / (11 * 3600)
	w.send(t, "StatusCallback", "")
	if status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form()); status != 429 || !strings.Contains(body, `"code":21611`) {
		t.Errorf("full queue: got %d %s, want 429 with 21611", status, body)
	}
}

func TestServiceValidityCounts(t *testing.T) {
	t.Parallel()
	m := &message{account: &Account{Services: []Service{{SID: "MG1", ValidityPeriod: 90}}}, service: "MG1", validity: time.Hour}
	if failure := m.setValidity(""); failure != nil || m.validity != 90*time.Second {
		t.Errorf("got %v, %v", m.validity, failure)
	}
	if failure := m.setValidity("30"); failure != nil || m.validity != 30*time.Second {
		t.Errorf("the message's own: got %v, %v", m.validity, failure)
	}
}

func TestCarriers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.cfg.Filtered, w.cfg.NoReceipts = []string{"bit.ly"}, []string{"+44"}
	w.send(t, "Body", "see bit.ly/x")
	w.awaitStatuses(t, "sent", "undelivered 30007")
	w.send(t, "To", "+447700900123")
	await(t, "on the phone", func() bool { return len(w.phones.texts()) == 1 })
	w.cfg.Accounts[0].Numbers[0].Unregistered = true
	w.send(t)
	w.awaitStatuses(t, "sent", "undelivered 30007", "sent", "undelivered 30034")
}

func TestSuspendedAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.control(t, "accounts", `{"account":"`+sid+`","suspended":true}`, 204)
	if status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form()); status != 403 || !strings.Contains(body, `"code":20005`) {
		t.Errorf("got %d %s, want 403 with 20005", status, body)
	}
	if status, body := w.call(t, "GET", sid+".json", sid, token, ""); status != 200 || !strings.Contains(body, `"status":"suspended"`) {
		t.Errorf("account: got %d %s", status, body)
	}
	w.control(t, "accounts", `{"account":"`+sid+`"}`, 204)
	w.send(t)
}

func TestConcurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.cfg.Concurrency = 1
	if err := w.set.Replace([]faults.Rule{{ID: "h", Call: CallMessages, Do: faults.HoldBefore, Times: 1}}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan int, 1)
	go func() {
		status, _ := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form())
		answered <- status
	}()
	await(t, "one held", func() bool { return w.set.Rules()[0].Held == 1 })
	if status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form()); status != 429 || !strings.Contains(body, `"code":20429`) {
		t.Errorf("the second at a time: got %d %s, want 429 with 20429", status, body)
	}
	w.set.Release("h")
	if status := <-answered; status != 201 {
		t.Errorf("the first: got %d", status)
	}
	w.send(t)
}

func TestKeysAndTestCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.cfg.Accounts[0].Keys = map[string]string{"SK1": "key"}
	if status, body := w.call(t, "POST", sid+"/Messages.json", "SK1", "key", w.form()); status != 201 {
		t.Errorf("API key: got %d %s", status, body)
	}
	for _, c := range [][2]string{{"SK1", "no"}, {"SK2", "key"}, {"SK2", ""}} {
		if status, _ := w.call(t, "POST", sid+"/Messages.json", c[0], c[1], w.form()); status != 401 {
			t.Errorf("%v: got %d, want 401", c, status)
		}
	}

	magic := newWorld(t, "")
	magic.cfg.Accounts[0].Test = true
	from := func(number string) []string { return []string{"From", number} }
	to := func(number string) []string { return []string{"From", "+15005550006", "To", number} }
	for _, tc := range []struct {
		pairs []string
		code  string
	}{
		{to("+15005550001"), "21211"}, {to("+15005550002"), "21612"}, {to("+15005550003"), "21408"}, {to("+15005550004"), "21610"},
		{to("+15005550009"), "21614"}, {from("+15005550001"), "21212"}, {from("+15005550007"), "21606"}, {from("+15005550008"), "21611"},
	} {
		if status, body := magic.call(t, "POST", sid+"/Messages.json", sid, token, magic.form(tc.pairs...)); status < 400 || !strings.Contains(body, `"code":`+tc.code) {
			t.Errorf("%v: got %d %s, want %s", tc.pairs, status, body, tc.code)
		}
	}
	magic.send(t, from("+15005550006")...)
	magic.Simulator.Close()
	if n := len(magic.phones.texts()); n != 0 {
		t.Errorf("test credentials sent %d messages", n)
	}
}

func TestPrice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	r := w.send(t, "Body", strings.Repeat("a", 161))
	if r.Price != nil || r.PriceUnit != "USD" {
		t.Errorf("at first: got %v", r.Price)
	}
	w.awaitStatuses(t, "sent", "delivered")
	if _, body := w.call(t, "GET", sid+"/Messages/"+r.SID+".json", sid, token, ""); !strings.Contains(body, `"price":"-0.01580"`) {
		t.Errorf("two segments: got %s", body)
	}
}

func TestUserIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	hidden := w.phones.Handset(customer)
	hidden.UserID, hidden.HideNumber = "US.13491208655302741918", true
	w.phones.set(hidden)
	w.say(t, WhatsApp, "hi")
	await(t, "the webhook", func() bool { return len(w.hook.all()) == 1 })
	f := w.hook.all()[0].form
	if f.Get("From") != "whatsapp:"+hidden.UserID || f.Get("ExternalUserId") != "whatsapp:"+hidden.UserID || f.Has("WaId") {
		t.Errorf("inbound: got %v", f)
	}
	r := w.send(t, "To", "whatsapp:"+hidden.UserID, "From", "whatsapp:"+business)
	w.awaitStatuses(t, "sent", "delivered")
	if got := w.hook.all()[1].form.Get("To"); r.To != "whatsapp:"+hidden.UserID || got != r.To {
		t.Errorf("sent to %s, callback for %s", r.To, got)
	}
	if status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form("To", "whatsapp:US.9", "From", "whatsapp:"+business)); status != 400 || !strings.Contains(body, "21211") {
		t.Errorf("unknown user id: got %d %s", status, body)
	}
}

func TestAnyInboundParameters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.control(t, "messages", `{"channel":"whatsapp","from":"`+customer+`","to":"`+business+`","parameters":{"MessageType":"location","Latitude":"1.5","ListId":"row_1"}}`, 200)
	await(t, "the webhook", func() bool { return len(w.hook.all()) == 1 })
	if f := w.hook.all()[0].form; f.Get("MessageType") != "location" || f.Get("Latitude") != "1.5" || f.Get("ListId") != "row_1" || f.Get("Body") != "" {
		t.Errorf("got %v", f)
	}
	for _, tc := range []struct {
		path, body string
		status     int
	}{
		{"messages", `{"channel":"sms","from":"x","to":"` + business + `"}`, 400},
		{"messages", `{"channel":"sms","from":"` + customer + `","to":"+15550000000"}`, 404},
		{"contents", `{"sid":"` + content + `","status":"paused"}`, 400},
		{"contents", `{"account":"AC9","sid":"` + content + `","status":"paused"}`, 404},
		{"contents", `{"account":"` + sid + `","sid":"` + content + `","status":"gone"}`, 400},
		{"contents", `{"account":"` + sid + `","sid":"HX9","status":"paused"}`, 404},
		{"accounts", `{}`, 400},
		{"webhooks", `{"port":"random"}`, 400},
		{"webhooks", `{"xml":true}`, 400},
	} {
		w.control(t, tc.path, tc.body, tc.status)
	}
}
