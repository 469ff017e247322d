package meta

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"paythread/simulator/faults"
)

// get makes a call with the good token and decodes its answer.
func (w *world) get(t *testing.T, path string, into any) (int, graphAnswer) {
	t.Helper()
	status, body, _ := w.call(t, "GET", "/meta/v25.0/"+path, "good", "")
	var failed graphAnswer
	if err := json.Unmarshal([]byte(body), &failed); err != nil {
		t.Fatalf("%s: %d %s", path, status, body)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(body), into); err != nil {
			t.Fatalf("%s: %v in %s", path, err, body)
		}
	}
	return status, failed
}

type graphAnswer struct {
	Error errorBody `json:"error"`
}

func TestNumberFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var n map[string]any
	w.get(t, "PN1?fields=quality_rating,status,webhook_configuration,verified_name", &n)
	if len(n) != 5 || n["id"] != "PN1" || n["quality_rating"] != "GREEN" || n["status"] != "CONNECTED" || n["verified_name"] != "Acme" {
		t.Errorf("fields: got %v, want those asked for and the id", n)
	}
	if c := n["webhook_configuration"].(map[string]any); c["application"] != w.cfg.Numbers[0].WebhookURL {
		t.Errorf("webhook_configuration: got %v", c)
	}
	status, failed := w.get(t, "PN1?fields=nothing", nil)
	if status != 400 || failed.Error.Code != 100 || !strings.Contains(failed.Error.Message, "nonexisting field (nothing)") {
		t.Errorf("unknown field: got %d %+v", status, failed)
	}
	if status, body, _ := w.call(t, "GET", "/meta/v25.0/PN1?access_token=good", "", ""); status != 200 {
		t.Errorf("token in the query: got %d %s", status, body)
	}
	for token, code := range map[string]string{"": `"code":104`, "bad": `"code":190`, "old": `"error_subcode":463`, "other": `"error_subcode":33`} {
		if status, body, _ := w.call(t, "GET", "/meta/v25.0/PN1", token, ""); status < 400 || !strings.Contains(body, code) {
			t.Errorf("token %q: got %d %s, want %s", token, status, body, code)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, tc := range []struct{ event, number, waba string }{
		{"", "AVAILABLE", "AVAILABLE"},
		{`{"account":"WABA1","event":"ACCOUNT_RESTRICTION"}`, "LIMITED", "LIMITED"},
		{`{"account":"WABA1","event":"DISABLED_UPDATE","state":"DISABLE"}`, "BLOCKED", "BLOCKED"},
		{`{"account":"WABA1","event":"DISABLED_UPDATE","state":"REINSTATE"}`, "AVAILABLE", "AVAILABLE"},
	} {
		if tc.event != "" {
			w.control(t, "accounts", tc.event)
		}
		for path, want := range map[string]string{"PN1": tc.number, "WABA1": tc.waba} {
			var got struct {
				Health struct {
					CanSend  string `json:"can_send_message"`
					Entities []struct {
						Type   string `json:"entity_type"`
						Errors []struct {
							Code int `json:"error_code"`
						}
					}
				} `json:"health_status"`
			}
			w.get(t, path+"?fields=health_status", &got)
			h := got.Health
			if h.CanSend != want || len(h.Entities) != 2 || h.Entities[0].Errors != nil || (h.Entities[1].Errors == nil) != (want == "AVAILABLE") {
				t.Errorf("%s after %s: got %+v, want %s", path, tc.event, h, want)
			}
		}
	}
	_, body, _ := w.call(t, "GET", "/meta/v25.0/PN2?fields=health_status,status", "other", "")
	if !strings.Contains(body, `"can_send_message":"BLOCKED"`) || !strings.Contains(body, `"error_code":133010`) || !strings.Contains(body, `"DISCONNECTED"`) {
		t.Errorf("a number that is not registered: got %s", body)
	}
}

func TestAccountReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var account struct{ ID, Name string }
	if status, _ := w.get(t, "WABA1?fields=name", &account); status != 200 || account.ID != "WABA1" || account.Name != "Acme" {
		t.Errorf("account: got %d %+v", status, account)
	}
	var numbers struct{ Data []struct{ ID string } }
	if w.get(t, "WABA1/phone_numbers", &numbers); len(numbers.Data) != 1 || numbers.Data[0].ID != "PN1" {
		t.Errorf("numbers: got %+v", numbers)
	}
	for _, path := range []string{"WABA2", "WABA9", "WABA2/phone_numbers", "WABA2/subscribed_apps", "PN9"} {
		if status, failed := w.get(t, path, nil); status != 400 || failed.Error.Code != 100 || failed.Error.Type != "GraphMethodException" {
			t.Errorf("%s: got %d %+v, want an object that cannot be loaded", path, status, failed)
		}
	}
}

func TestTemplateList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	type page struct {
		Data []struct {
			Name, Language, Status, Category, ID string
			Components                           []map[string]any
			RejectedReason                       string `json:"rejected_reason"`
		}
		Paging struct {
			Cursors struct{ After string }
			Next    string
		}
	}
	list := func(query string) (p page) {
		t.Helper()
		if status, failed := w.get(t, "WABA1/message_templates?"+query, &p); status != 200 {
			t.Fatalf("%s: got %d %+v", query, status, failed)
		}
		return p
	}
	for _, tc := range []struct {
		query string
		want  string
	}{
		{"", "payment_link plain paused disabled rejected"},
		{"name=pa", "payment_link paused"},
		{"name=plain&language=en", "plain"},
		{"name=plain&language=en_US", ""},
		{"status=REJECTED", "rejected"},
		{"category=MARKETING", ""},
	} {
		var names []string
		for _, row := range list(tc.query).Data {
			names = append(names, row.Name)
		}
		if got := strings.Join(names, " "); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.query, got, tc.want)
		}
	}

	row := list("name=payment_link").Data[0]
	text, _ := json.Marshal(row.Components)
	for _, want := range []string{`"type":"BODY"`, `{{1}}, please pay {{2}}`, `"type":"URL"`, `"url":"https://pay.example/p/{{1}}"`, `"type":"QUICK_REPLY"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("components: %s is missing in %s", want, text)
		}
	}
	if row.ID == "" || row.Status != "APPROVED" || row.Category != "UTILITY" || row.Language != "en_US" {
		t.Errorf("row: got %+v", row)
	}

	first := list("limit=3&fields=name")
	if len(first.Data) != 3 || first.Data[0].Status != "" || first.Paging.Next == "" {
		t.Errorf("first page: got %+v", first)
	}
	second := list("limit=3&after=" + first.Paging.Cursors.After)
	if len(second.Data) != 2 || second.Data[0].Name != "disabled" || second.Paging.Next != "" {
		t.Errorf("second page: got %+v", second)
	}
	if status, failed := w.get(t, "WABA1/message_templates?after=nowhere", nil); status != 400 || failed.Error.Code != 100 {
		t.Errorf("bad cursor: got %d %+v", status, failed)
	}
	if status, _ := w.get(t, "WABA1/message_templates?fields=name,sense", nil); status != 400 {
		t.Errorf("unknown field: got %d", status)
	}
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	other := &hook{}
	answer := "challenge"
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			if r.URL.Query().Get("hub.verify_token") == "tok" && answer == "challenge" {
				_, _ = w.Write([]byte(r.URL.Query().Get("hub.challenge")))
				return
			}
			w.WriteHeader(http.StatusForbidden)
			return
		}
		other.ServeHTTP(w, r)
	}))
	defer target.Close()

	w := newWorld(t, func(c *Config) { c.Unsubscribed = []string{"WABA1"} })
	subscribed := func() int {
		var apps struct{ Data []any }
		w.get(t, "WABA1/subscribed_apps", &apps)
		return len(apps.Data)
	}
	w.say(t, Said{Text: "lost"})
	if n := subscribed(); n != 0 {
		t.Errorf("apps: got %d, want none", n)
	}
	subscribe := func(body string) (int, string) {
		status, answer, _ := w.call(t, "POST", "/meta/v25.0/WABA1/subscribed_apps", "good", body)
		return status, answer
	}
	if status, answer := subscribe(""); status != 200 || !strings.Contains(answer, `"success":true`) || subscribed() != 1 {
		t.Errorf("subscribing: got %d %s", status, answer)
	}
	w.say(t, Said{Text: "heard"})
	await(t, "the webhook", func() bool { return len(w.hook.all()) == 1 })
	if text := w.hook.values(t)[0].Messages[0].Text.Body; text != "heard" {
		t.Errorf("got %q; an account without subscription has no webhooks", text)
	}

	override := func(token string) string {
		return `{"override_callback_uri":"` + target.URL + `/own","verify_token":"` + token + `"}`
	}
	if status, answer := subscribe(override("wrong")); status != 400 || !strings.Contains(answer, `"code":2200`) {
		t.Errorf("failed handshake: got %d %s, want 2200", status, answer)
	}
	if status, answer := subscribe(override("tok")); status != 200 {
		t.Errorf("own address: got %d %s", status, answer)
	}
	w.say(t, Said{Text: "elsewhere"})
	await(t, "the webhook at the own address", func() bool { return len(other.all()) == 1 })

	if status, _, _ := w.call(t, "DELETE", "/meta/v25.0/WABA1/subscribed_apps", "good", ""); status != 200 || subscribed() != 0 {
		t.Errorf("unsubscribing: got %d, %d apps", status, subscribed())
	}
}

// TestEveryCode plays each row of the error reference as an answer, and as a
// failed status of an accepted message.
func TestEveryCode(t *testing.T) {
	t.Parallel()
	want := map[int]int{
		0: 401, 190: 401, 104: 401, 3: 500, 10: 403, 200: 403, 131005: 403, 1: 400, 2: 503, 33: 400,
		100: 400, 131008: 400, 131009: 400, 131051: 400, 135000: 400, 368: 403, 4: 400, 613: 400, 80007: 400,
		130403: 400, 130429: 400, 130472: 400, 130497: 403, 131000: 500, 131016: 500, 131021: 400, 131026: 400,
		131030: 400, 131031: 403, 131037: 400, 131045: 500, 133010: 400, 131042: 400, 131047: 400, 131048: 400,
		131049: 400, 131050: 400, 131052: 400, 131053: 400, 131014: 400, 131055: 400, 131056: 400, 131057: 500,
		131062: 400, 131063: 400, 131064: 400, 132000: 400, 132008: 400, 132012: 400, 132001: 404, 132005: 400,
		132007: 400, 132018: 400, 132015: 400, 132016: 400, 132068: 400, 132069: 400, 134011: 400, 137000: 400,
	}
	for code, status := range want {
		if _, known := documented[code]; !known {
			t.Errorf("%d is not in the table", code)
		}
		w := newWorld(t, nil)
		if err := w.set.Replace([]faults.Rule{{Call: CallMessages, Do: faults.Refuse, Code: new(code), Times: 1}, {Call: CallMessages, Do: faults.Fail, Code: new(code), Times: 1}}); err != nil {
			t.Fatal(err)
		}
		got, body, header := w.call(t, "POST", "/meta/v25.0/PN1/messages", "good", templateTo)
		var failed graphAnswer
		if err := json.Unmarshal([]byte(body), &failed); err != nil || got != status || failed.Error.Code != code || failed.Error.Message == "" {
			t.Errorf("%d: got %d %s, want %d", code, got, body, status)
		}
		full := strings.Contains(header.Get("X-Business-Use-Case-Usage"), `"call_count":100`)
		if full != rated[code] {
			t.Errorf("%d: usage %s", code, header.Get("X-Business-Use-Case-Usage"))
		}
		w.send(t, templateTo)
		await(t, "the failed status", func() bool { return len(w.hook.reports(t)) == 1 })
		if st := w.hook.reports(t)[0]; st.Status != "failed" || st.Errors[0].Code != code || st.Errors[0].Title == "" || st.Callback != "att_2" {
			t.Errorf("%d: status %+v", code, st)
		}
	}
}

func TestFailureAfterOtherStatuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.set.Replace([]faults.Rule{
		{Call: CallMessages, Do: faults.Fail, Code: new(131026), After: "sent", Times: 1},
		{Call: CallMessages, Do: faults.Fail, Code: new(131049), After: "delivered", Times: 1},
	}); err != nil {
		t.Fatal(err)
	}
	w.send(t, templateTo)
	w.awaitStatuses(t, "sent", "failed 131026")
	if n := len(w.phones.got()); n != 0 {
		t.Errorf("phone: got %d messages, want none", n)
	}
	w.send(t, templateTo)
	w.awaitStatuses(t, "sent", "failed 131026", "sent", "delivered", "failed 131049")
}

func TestRefusalsOfOtherCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.set.Replace([]faults.Rule{{Call: "meta.*", Do: faults.Refuse, Code: new(777), Status: 418, Headers: map[string]string{"Retry-After": "5"}}}); err != nil {
		t.Fatal(err)
	}
	in := w.say(t, Said{Text: "hi"})
	for _, call := range []struct{ method, path, body string }{
		{"GET", "PN1", ""}, {"GET", "WABA1", ""}, {"GET", "WABA1/message_templates", ""}, {"GET", "WABA1/subscribed_apps", ""},
		{"POST", "WABA1/subscribed_apps", ""}, {"POST", "PN1/messages", templateTo},
		{"POST", "PN1/messages", `{"messaging_product":"whatsapp","status":"read","message_id":"` + in + `"}`},
	} {
		status, body, header := w.call(t, call.method, "/meta/v25.0/"+call.path, "good", call.body)
		if status != 418 || !strings.Contains(body, `"code":777`) || header.Get("Retry-After") != "5" {
			t.Errorf("%s %s: got %d %s", call.method, call.path, status, body)
		}
	}
}
