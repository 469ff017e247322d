package twilio

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"paythread/simulator/faults"
)

// get makes a call below /twilio/ and decodes its answer.
func (w *world) get(t *testing.T, path string, into any) int {
	t.Helper()
	status, body := w.call(t, "GET", "../../"+path, sid, token, "")
	if err := json.Unmarshal([]byte(body), into); err != nil {
		t.Fatalf("%s: %d %s", path, status, body)
	}
	return status
}

type apiFailure struct {
	Code, Status int
	Message      string
}

func TestAccountAndNumbers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "#rc=3&rp=all")
	var account struct{ SID, Status string }
	if status := w.get(t, "2010-04-01/Accounts/"+sid+".json", &account); status != 200 || account.SID != sid || account.Status != "active" {
		t.Errorf("account: got %d %+v", status, account)
	}
	type numbers struct {
		Rows []struct {
			PhoneNumber  string `json:"phone_number"`
			SMSURL       string `json:"sms_url"`
			SMSMethod    string `json:"sms_method"`
			Callback     string `json:"status_callback"`
			Capabilities struct{ SMS bool }
		} `json:"incoming_phone_numbers"`
	}
	for query, want := range map[string]int{"": 1, "?PhoneNumber=%2B15550783881": 1, "?PhoneNumber=0783": 1, "?PhoneNumber=%2B15550000000": 0} {
		var got numbers
		if status := w.get(t, "2010-04-01/Accounts/"+sid+"/IncomingPhoneNumbers.json"+query, &got); status != 200 || len(got.Rows) != want {
			t.Errorf("numbers %s: got %d %+v, want %d", query, status, got, want)
		}
		if want == 1 && (got.Rows[0].SMSURL != w.hook.url+"/in?tenant=7#rc=3&rp=all" || got.Rows[0].SMSMethod != "POST" || !got.Rows[0].Capabilities.SMS) {
			t.Errorf("number: got %+v", got.Rows[0])
		}
	}
	var senders struct {
		Senders []struct {
			SenderID string `json:"sender_id"`
			Webhook  struct {
				URL string `json:"callback_url"`
			}
		}
	}
	if w.get(t, "v2/Channels/Senders?Channel=whatsapp", &senders); len(senders.Senders) != 1 || senders.Senders[0].SenderID != "whatsapp:"+business || senders.Senders[0].Webhook.URL == "" {
		t.Errorf("senders: got %+v", senders)
	}
	for _, path := range []string{"2010-04-01/Accounts/" + otherSID + ".json", "2010-04-01/Accounts/" + otherSID + "/IncomingPhoneNumbers.json", "v1/Services/MG9", "v1/Content/HX9", "v9/Nothing"} {
		var failed apiFailure
		if status := w.get(t, path, &failed); status != 404 || failed.Code != 20404 {
			t.Errorf("%s: got %d %+v, want 404", path, status, failed)
		}
	}
	if status, _ := w.call(t, "GET", "../../v1/Services/MG1", sid, "wrong", ""); status != 401 {
		t.Errorf("wrong token: got %d, want 401", status)
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	var sv struct {
		SID, URL   string
		Inbound    *string `json:"inbound_request_url"`
		NumberURLs bool    `json:"use_inbound_webhook_on_number"`
		Validity   int     `json:"validity_period"`
		Created    string  `json:"date_created"`
	}
	if status := w.get(t, "v1/Services/MG1", &sv); status != 200 || sv.SID != "MG1" || sv.Inbound != nil || sv.NumberURLs || sv.Validity != 36000 || sv.Created != "2026-01-01T00:00:00Z" {
		t.Errorf("service: got %d %+v", status, sv)
	}
	var numbers struct {
		Rows []struct {
			PhoneNumber string `json:"phone_number"`
		} `json:"phone_numbers"`
	}
	if w.get(t, "v1/Services/MG1/PhoneNumbers", &numbers); len(numbers.Rows) != 1 || numbers.Rows[0].PhoneNumber != business {
		t.Errorf("numbers: got %+v", numbers)
	}
}

func TestContents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	var c struct {
		SID, Language string
		Variables     map[string]string
		Types         map[string]struct {
			Title, Body string
			Actions     []map[string]string
		}
	}
	w.get(t, "v1/Content/"+content, &c)
	card := c.Types["twilio/card"]
	if c.SID != content || c.Language != "en" || len(c.Variables) != 2 || card.Title != "Hello {{1}}." || len(card.Actions) != 2 || card.Actions[0]["url"] != "https://pay.example/p/{{2}}" {
		t.Errorf("content: got %+v", c)
	}
	var all struct{ Contents []struct{ SID string } }
	if w.get(t, "v1/Content", &all); len(all.Contents) != 1 || all.Contents[0].SID != content {
		t.Errorf("contents: got %+v", all)
	}
	type approval struct {
		WhatsApp struct {
			Status, Category, Name string
			ContentType            string `json:"content_type"`
			Reason                 string `json:"rejection_reason"`
		} `json:"whatsapp"`
	}
	var got approval
	if w.get(t, "v1/Content/"+content+"/ApprovalRequests", &got); got.WhatsApp.Status != "approved" || got.WhatsApp.Category != "UTILITY" || got.WhatsApp.ContentType != "twilio/card" {
		t.Errorf("approval: got %+v", got)
	}
	w.control(t, "contents", `{"account":"`+sid+`","sid":"`+content+`","status":"rejected","reason":"too bold"}`, 204)
	if w.get(t, "v1/Content/"+content+"/ApprovalRequests", &got); got.WhatsApp.Status != "rejected" || got.WhatsApp.Reason != "too bold" {
		t.Errorf("rejected: got %+v", got)
	}
	if status, body := w.call(t, "GET", "../../contents", "", "", ""); status != 200 || !strings.Contains(body, `"status":"rejected"`) {
		t.Errorf("list: got %d %s", status, body)
	}
}

func TestContentTypes(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Content{
		"twilio/text":           {Body: "a"},
		"twilio/call-to-action": {Body: "a", ButtonURL: "https://a.example"},
		"twilio/quick-reply":    {Body: "a", QuickReplies: []string{"b"}},
	} {
		if got, content := c.content(); got != want || content["body"] != "a" {
			t.Errorf("got %s %v, want %s", got, content, want)
		}
	}
}

// TestApprovalsDecide sends one template in every state, outside the window.
func TestApprovalsDecide(t *testing.T) {
	t.Parallel()
	for status, want := range map[string][]string{
		"approved": {"sent", "delivered"}, "paused": {"failed 63040"}, "disabled": {"failed 63041"},
		"pending": {"undelivered 63016"}, "rejected": {"undelivered 63016"}, "unsubmitted": {"undelivered 63016"},
	} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			w.control(t, "contents", `{"account":"`+sid+`","sid":"`+content+`","status":"`+status+`"}`, 204)
			w.send(t, "To", "whatsapp:"+customer, "From", "whatsapp:"+business, "Body", "", "ContentSid", content, "ContentVariables", `{"1":"Ana","2":"x"}`)
			w.awaitStatuses(t, want...)
		})
	}
}

func TestTyping(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	in := w.say(t, WhatsApp, "hi")
	sms := w.say(t, SMS, "hi")
	post := func(version, contentType, body string) (int, string, string) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), "POST", w.url+"../../"+version+"/Indicators/Typing.json", strings.NewReader(body))
		req.Header.Set("Content-Type", contentType)
		req.SetBasicAuth(sid, token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var got map[string]any
		if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(got)
		return res.StatusCode, string(text), res.Header.Get("Content-Type")
	}
	if status, body, _ := post("v3", "application/json", `{"channel":"WHATSAPP","messageId":"`+in+`"}`); status != 200 || body != `{"success":true}` {
		t.Errorf("v3: got %d %s", status, body)
	}
	if status, body, _ := post("v2", "application/x-www-form-urlencoded", "channel=whatsapp&messageId="+in); status != 200 || body != `{"success":true}` {
		t.Errorf("v2: got %d %s", status, body)
	}
	if got := w.phones.read(); !slices.Equal(got, []string{in, in}) {
		t.Errorf("phone: got %v", got)
	}
	for _, tc := range []struct {
		name, contentType, body string
		status                  int
	}{
		{"an SMS", "application/json", `{"channel":"WHATSAPP","messageId":"` + sms + `"}`, 404},
		{"unknown", "application/json", `{"channel":"WHATSAPP","messageId":"SM9"}`, 404},
		{"other channel", "application/json", `{"channel":"SMS","messageId":"` + in + `"}`, 400},
		{"not JSON", "application/json", `{`, 400},
		{"a form", "application/x-www-form-urlencoded", "channel=whatsapp&messageId=" + in, 415},
	} {
		if status, body, kind := post("v3", tc.contentType, tc.body); status != tc.status || kind != "application/problem+json" || !strings.Contains(body, `"type":"https://www.twilio.com/docs/errors/`) {
			t.Errorf("%s: got %d %s %s, want a problem document with %d", tc.name, status, kind, body, tc.status)
		}
	}
}

// TestEveryCode plays each row of the error reference as an answer and as the end
// of an accepted message.
func TestEveryCode(t *testing.T) {
	t.Parallel()
	api := map[int]int{
		20003: 401, 20005: 403, 20404: 404, 20429: 429, 20500: 500, 20503: 503, 21211: 400, 21212: 400, 21603: 400,
		21606: 400, 21609: 400, 21701: 400, 21703: 400, 21704: 400, 21705: 400, 21408: 400, 21602: 400, 21604: 400,
		21617: 400, 21655: 400, 21656: 400, 21608: 400, 21610: 400, 21611: 429, 21612: 400, 21614: 400, 63007: 400,
		63017: 429, 63018: 429, 63038: 429, 63021: 400,
	}
	failed := []int{30002, 21610, 30001, 30036, 30022, 30023, 30027, 30032, 30410, 63005, 63013, 63018, 63020, 63021, 63027, 63028, 63029, 63030, 63040, 63041, 63062}
	undelivered := []int{30003, 30004, 30005, 30006, 30007, 30008, 30018, 30024, 30034, 63003, 63014, 63015, 63016, 63024, 63032, 63033, 63049}
	w := newWorld(t, "")
	one := func(r faults.Rule) {
		t.Helper()
		r.Call, r.Times = CallMessages, 1
		if err := w.set.Replace([]faults.Rule{r}); err != nil {
			t.Fatal(err)
		}
	}
	for code, want := range api {
		one(faults.Rule{Do: faults.Refuse, Code: new(code)})
		status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form())
		var got apiFailure
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != want || got.Code != code || got.Status != want || got.Message == "" || got.Message == "Unknown error" {
			t.Errorf("%d: got %d %s, want %d", code, status, body, want)
		}
	}
	for ending, codes := range map[string][]int{"failed": failed, "undelivered": undelivered} {
		for _, code := range codes {
			one(faults.Rule{Do: faults.Fail, Code: new(code)})
			r := w.send(t)
			var form map[string][]string
			await(t, "the callback", func() bool {
				i := slices.IndexFunc(w.hook.all(), func(p post) bool { return p.form.Get("MessageSid") == r.SID })
				if i >= 0 {
					form = w.hook.all()[i].form
				}
				return i >= 0
			})
			if form["MessageStatus"][0] != ending || form["ErrorCode"] == nil || form["ErrorMessage"][0] == "" || (errorRows[code].text == "" && code != 30008) {
				t.Errorf("%d: got %v, want %s", code, form, ending)
			}
		}
	}
	one(faults.Rule{Do: faults.Refuse, Code: new(99999)})
	if status, body := w.call(t, "POST", sid+"/Messages.json", sid, token, w.form()); status != 400 || !strings.Contains(body, `"code":99999`) {
		t.Errorf("unknown code: got %d %s", status, body)
	}
}

func TestFailureAfterOtherStatuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	if err := w.set.Replace([]faults.Rule{
		{Call: CallMessages, Do: faults.Fail, Code: new(30007), After: "sent", Times: 1},
		{Call: CallMessages, Do: faults.Fail, Code: new(30003), After: "delivered", Ending: "failed", Times: 1},
	}); err != nil {
		t.Fatal(err)
	}
	w.send(t)
	w.awaitStatuses(t, "sent", "undelivered 30007")
	w.send(t)
	w.awaitStatuses(t, "sent", "undelivered 30007", "sent", "delivered", "failed 30003")
}

func TestRefusalsOfOtherCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	r := w.send(t)
	if err := w.set.Replace([]faults.Rule{{Call: "twilio.*", Do: faults.Refuse, Code: new(20429), Headers: map[string]string{"Retry-After": "2"}}}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"2010-04-01/Accounts/" + sid + ".json", "2010-04-01/Accounts/" + sid + "/IncomingPhoneNumbers.json",
		"2010-04-01/Accounts/" + sid + "/Messages.json", "2010-04-01/Accounts/" + sid + "/Messages/" + r.SID + ".json",
		"v1/Services/MG1", "v1/Content/" + content, "v1/Content/" + content + "/ApprovalRequests", "v2/Channels/Senders"} {
		var failed apiFailure
		if status := w.get(t, path, &failed); status != 429 || failed.Code != 20429 {
			t.Errorf("%s: got %d %+v, want 429", path, status, failed)
		}
	}
}
