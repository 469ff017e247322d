package meta

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// control makes a control call that has to succeed.
func (w *world) control(t *testing.T, path, body string) string {
	t.Helper()
	status, answer, _ := w.call(t, "POST", "/meta/"+path, "", body)
	if status >= 300 {
		t.Fatalf("%s %s: got %d %s", path, body, status, answer)
	}
	return answer
}

// changes are the changes received of one field, with the time of their entry.
func (h *hook) changes(t *testing.T, field string) (values []map[string]any, times []int64) {
	t.Helper()
	for _, p := range h.all() {
		for _, en := range p.entries(t) {
			for _, c := range en.Changes {
				var v map[string]any
				if err := json.Unmarshal(c.Value, &v); c.Field == field && err == nil {
					values, times = append(values, v), append(times, en.Time)
				}
			}
		}
	}
	return values, times
}

// awaitChange waits for the n-th change of a field.
func (w *world) awaitChange(t *testing.T, field string, n int) map[string]any {
	t.Helper()
	await(t, fmt.Sprintf("%d times %s", n, field), func() bool { v, _ := w.hook.changes(t, field); return len(v) >= n })
	v, _ := w.hook.changes(t, field)
	return v[n-1]
}

// code sends and returns the code of the refusal, or 0.
func (w *world) code(t *testing.T, body string) int {
	t.Helper()
	_, answer, _ := w.call(t, "POST", "/meta/v25.0/PN1/messages", "good", body)
	var failed graphAnswer
	if err := json.Unmarshal([]byte(answer), &failed); err != nil {
		t.Fatal(err)
	}
	return failed.Error.Code
}

func at(v map[string]any, path ...string) any {
	var got any = v
	for _, name := range path {
		m, _ := got.(map[string]any)
		got = m[name]
	}
	return got
}

func TestTemplateStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const field = "message_template_status_update"
	for i, tc := range []struct {
		change, event, title string
		reason               any
		code                 int
		status               string
	}{
		{`"event":"PAUSED"`, "PAUSED", "FIRST_PAUSE", nil, 132015, "PAUSED"},
		{`"event":"REINSTATED"`, "REINSTATED", "UNPAUSE", "NONE", 0, "APPROVED"},
		{`"event":"paused"`, "PAUSED", "SECOND_PAUSE", nil, 132015, "PAUSED"},
		{`"event":"APPROVED"`, "APPROVED", "UNPAUSE", "NONE", 0, "APPROVED"},
		{`"event":"FLAGGED"`, "FLAGGED", "", nil, 0, "FLAGGED"},
		{`"event":"PAUSED"`, "DISABLED", "DISABLED", nil, 132016, "DISABLED"},
		{`"event":"REJECTED","reason":"ABUSIVE_CONTENT"`, "REJECTED", "", "ABUSIVE_CONTENT", 132001, "REJECTED"},
		{`"event":"PENDING"`, "PENDING", "", nil, 132001, "PENDING"},
		{`"event":"PAUSED","title":"RATE_LIMITING_PAUSE"`, "PAUSED", "RATE_LIMITING_PAUSE", nil, 132015, "PAUSED"},
		{`"event":"DELETED"`, "DELETED", "", nil, 132001, "DELETED"},
	} {
		answer := w.control(t, "templates", `{"account":"WABA1","name":"payment_link",`+tc.change+`}`)
		if !strings.Contains(answer, `"status":"`+tc.status+`"`) {
			t.Errorf("%s: answer %s", tc.change, answer)
		}
		v := w.awaitChange(t, field, i+1)
		title, _ := at(v, "other_info", "title").(string)
		if v["event"] != tc.event || title != tc.title || v["reason"] != tc.reason ||
			v["message_template_name"] != "payment_link" || v["message_template_language"] != "en_US" {
			t.Errorf("%s: webhook %v", tc.change, v)
		}
		if id, isNumber := v["message_template_id"].(float64); !isNumber || id <= 0 {
			t.Errorf("message_template_id: got %v, want a number", v["message_template_id"])
		}
		if got := w.code(t, templateTo); got != tc.code {
			t.Errorf("%s: a send gets %d, want %d", tc.change, got, tc.code)
		}
	}
	if _, times := w.hook.changes(t, field); times[0] != w.clock.now().Unix() {
		t.Errorf("entry time: got %d", times[0])
	}
	if _, body, _ := w.call(t, "GET", "/meta/templates", "", ""); !strings.Contains(body, `"name":"payment_link","language":"en_US","status":"DELETED"`) {
		t.Errorf("list: got %s", body)
	}
}

func TestTemplateQualityAndCategory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.control(t, "templates", `{"account":"WABA1","name":"payment_link","language":"en_US","quality":"YELLOW","category":"MARKETING"}`)
	q := w.awaitChange(t, "message_template_quality_update", 1)
	c := w.awaitChange(t, "template_category_update", 1)
	if q["previous_quality_score"] != "UNKNOWN" || q["new_quality_score"] != "YELLOW" {
		t.Errorf("quality: got %v", q)
	}
	if c["previous_category"] != "UTILITY" || c["new_category"] != "MARKETING" {
		t.Errorf("category: got %v", c)
	}
	w.send(t, templateTo)
	await(t, "a status", func() bool { return len(w.hook.reports(t)) > 0 })
	if p := w.hook.reports(t)[0].Pricing; p.Category != "marketing" {
		t.Errorf("price: got %+v, want that of the new category", p)
	}
}

func TestHeldForQualityAssessment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	hold := func(change string) {
		w.control(t, "templates", `{"account":"WABA1","name":"payment_link",`+change+`}`)
	}
	hold(`"hold":true`)
	_, answer, _ := w.call(t, "POST", "/meta/v25.0/PN1/messages", "good", templateTo)
	if !strings.Contains(answer, `"message_status":"held_for_quality_assessment"`) {
		t.Errorf("answer: got %s", answer)
	}
	hold(`"hold":false`)
	w.awaitStatuses(t, "sent", "delivered")
	hold(`"hold":true`)
	w.send(t, templateTo)
	hold(`"event":"PAUSED"`)
	w.awaitStatuses(t, "sent", "delivered", "failed 132015")
}

func TestAccountUpdates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.control(t, "accounts", `{"account":"WABA1","event":"ACCOUNT_RESTRICTION","for":"2h"}`)
	v := w.awaitChange(t, "account_update", 1)
	info, _ := v["restriction_info"].([]any)
	if v["event"] != "ACCOUNT_RESTRICTION" || len(info) != 1 || at(info[0].(map[string]any), "restriction_type") != "RESTRICTED_BIZ_INITIATED_MESSAGING" ||
		at(info[0].(map[string]any), "expiration") != float64(w.clock.now().Add(2*time.Hour).Unix()) {
		t.Errorf("restriction: got %v", v)
	}
	if got := w.code(t, templateTo); got != 368 {
		t.Errorf("beginning a conversation: got %d, want 368", got)
	}
	w.say(t, Said{Text: "hi"})
	if got := w.code(t, textTo); got != 0 {
		t.Errorf("an answer: got %d, want it sent", got)
	}
	w.clock.add(25 * time.Hour)
	if got := w.code(t, templateTo); got != 0 {
		t.Errorf("after the restriction: got %d", got)
	}

	w.control(t, "accounts", `{"account":"WABA1","event":"DISABLED_UPDATE"}`)
	if v := w.awaitChange(t, "account_update", 2); at(v, "ban_info", "waba_ban_state") != "DISABLE" || at(v, "ban_info", "waba_ban_date") != "November 2, 2026" {
		t.Errorf("disabled: got %v", v)
	}
	if got := w.code(t, templateTo); got != 131031 {
		t.Errorf("disabled: got %d, want 131031", got)
	}
	w.control(t, "accounts", `{"account":"WABA1","event":"DISABLED_UPDATE","state":"REINSTATE"}`)
	if v := w.awaitChange(t, "account_update", 3); at(v, "ban_info", "waba_ban_state") != "REINSTATE" {
		t.Errorf("reinstated: got %v", v)
	}
	if got := w.code(t, templateTo); got != 0 {
		t.Errorf("reinstated: got %d", got)
	}
	w.control(t, "accounts", `{"account":"WABA1","event":"ACCOUNT_VIOLATION","violation":"ADULT"}`)
	if v := w.awaitChange(t, "account_update", 4); at(v, "violation_info", "violation_type") != "ADULT" {
		t.Errorf("violation: got %v", v)
	}
}

func TestNumberAndCapabilityUpdates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Numbers[0].PayloadVersion = PayloadV23 })
	w.control(t, "numbers", `{"number":"PN1","event":"FLAGGED","limit":"TIER_2K","quality":"red"}`)
	v := w.awaitChange(t, "phone_number_quality_update", 1)
	if v["display_phone_number"] != business[1:] || v["event"] != "FLAGGED" || v["current_limit"] != "TIER_2K" || v["max_daily_conversations_per_business"] != "TIER_2K" {
		t.Errorf("quality: got %v", v)
	}
	var n map[string]any
	if w.get(t, "PN1?fields=quality_rating", &n); n["quality_rating"] != "RED" {
		t.Errorf("the number's own rating: got %v", n)
	}
	w.control(t, "capabilities", `{"account":"WABA1","limit":2000}`)
	w.control(t, "capabilities", `{"account":"WABA1","limit":"TIER_10K"}`)
	if v := w.awaitChange(t, "business_capability_update", 1); v["max_daily_conversations_per_business"] != float64(2000) {
		t.Errorf("limit as a number: got %v", v)
	}
	if v := w.awaitChange(t, "business_capability_update", 2); v["max_daily_conversations_per_business"] != "TIER_10K" {
		t.Errorf("limit as a text: got %v", v)
	}
}

func TestPreferences(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.control(t, "templates", `{"account":"WABA1","name":"payment_link","category":"MARKETING"}`)
	w.control(t, "preferences", `{"number":"PN1","phone":"`+customer+`","value":"stop"}`)
	v := w.awaitChange(t, "user_preferences", 1)
	p := v["user_preferences"].([]any)[0].(map[string]any)
	if p["value"] != "stop" || p["category"] != "marketing_messages" || p["wa_id"] != customer[1:] || p["timestamp"] != float64(w.clock.now().Unix()) ||
		at(v, "metadata", "phone_number_id") != "PN1" {
		t.Errorf("stop: got %v", v)
	}
	w.send(t, templateTo)
	w.awaitStatuses(t, "failed 131050")
	w.control(t, "preferences", `{"number":"PN1","phone":"`+customer+`","value":"resume"}`)
	w.awaitChange(t, "user_preferences", 2)
	w.send(t, templateTo)
	w.awaitStatuses(t, "failed 131050", "sent", "delivered")
}

func TestUserIDChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Numbers[0].ParentUserIDs = true })
	w.say(t, Said{Text: "hi"})
	await(t, "the message", func() bool { return len(w.hook.all()) == 1 })
	old := w.hook.values(t)[0].Messages[0]
	if !userIDForm.MatchString(old.FromParent) || !strings.Contains(old.FromParent, ".ENT.") {
		t.Errorf("parent id: got %q", old.FromParent)
	}
	var changed struct {
		ID string `json:"user_id"`
	}
	if err := json.Unmarshal([]byte(w.control(t, "customers", `{"number":"PN1","phone":"`+customer+`","do":"user_id"}`)), &changed); err != nil {
		t.Fatal(err)
	}
	u := w.awaitChange(t, "user_id_update", 1)["user_id_update"].([]any)[0].(map[string]any)
	if at(u, "user_id", "previous") != old.FromUserID || at(u, "user_id", "current") != changed.ID || changed.ID == old.FromUserID ||
		at(u, "parent_user_id", "previous") != old.FromParent {
		t.Errorf("user_id_update: got %v", u)
	}
	await(t, "the system message", func() bool { return len(w.hook.values(t)) >= 3 })
	for _, v := range w.hook.values(t)[1:] {
		for _, m := range v.Messages {
			s := m.System
			if m.Type != "system" || s.Type != "user_changed_user_id" || s.PreviousUserID != old.FromUserID || s.UserID != changed.ID || v.Contacts != nil || m.From != "" {
				t.Errorf("system message: got %+v", v)
			}
		}
	}
	to := func(id string) string { return strings.ReplaceAll(templateTo, `"to":"`+customer, `"recipient":"`+id) }
	if got := w.code(t, to(old.FromUserID)); got != 131026 {
		t.Errorf("the old id: got %d, want 131026", got)
	}
	if got := w.code(t, to(changed.ID)); got != 0 {
		t.Errorf("the new id: got %d", got)
	}

	w.control(t, "customers", `{"number":"PN1","phone":"`+customer+`","do":"number","to":"+16505559999"}`)
	await(t, "the change of number", func() bool {
		for _, v := range w.hook.values(t) {
			for _, m := range v.Messages {
				if m.System != nil && m.System.Type == "user_changed_number" {
					return m.From == customer[1:] && m.System.WaID == "16505559999" && v.Contacts == nil
				}
			}
		}
		return false
	})
}

func TestUserIDsCannotGetCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) {
		c.Templates = append(c.Templates, Template{WABAID: "WABA1", Name: "otp", Language: "en", Category: "AUTHENTICATION", Body: "Your code."})
	})
	h := w.phones.Handset(customer)
	id := w.userID(&w.cfg.Numbers[0], h)
	body := `{"messaging_product":"whatsapp","recipient":"` + id + `","type":"template","template":{"name":"otp","language":{"code":"en"}}}`
	if got := w.code(t, body); got != 131062 {
		t.Errorf("got %d, want 131062", got)
	}
}

func TestIdentityChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	change := func() (hash string) {
		t.Helper()
		var changed struct{ Hash string }
		if err := json.Unmarshal([]byte(w.control(t, "customers", `{"number":"PN1","phone":"`+customer+`","do":"identity"}`)), &changed); err != nil {
			t.Fatal(err)
		}
		return changed.Hash
	}
	hash := change()
	await(t, "the system message", func() bool { return len(w.hook.all()) == 1 })
	v := w.hook.values(t)[0]
	m := v.Messages[0]
	if m.Type != "system" || m.System.Type != "customer_identity_changed" || m.Identity.Hash != hash || m.Identity.Acknowledged || m.Identity.CreatedAt == "" ||
		v.Contacts[0].IdentityHash != hash {
		t.Errorf("system message: got %+v", v)
	}
	with := func(hash string) string {
		return strings.Replace(templateTo, `"type":"template"`, `"recipient_identity_key_hash":"`+hash+`","type":"template"`, 1)
	}
	if a, b := w.code(t, templateTo), w.code(t, with("old")); a != 137000 || b != 137000 {
		t.Errorf("not acknowledged: got %d and %d, want 137000", a, b)
	}
	if status, _, _ := w.call(t, "POST", "/meta/customers", "", `{"number":"PN1","phone":"+16505550000","do":"acknowledge"}`); status != 409 {
		t.Errorf("acknowledging nothing: got %d, want 409", status)
	}
	w.control(t, "customers", `{"number":"PN1","phone":"`+customer+`","do":"acknowledge"}`)
	if a, b := w.code(t, templateTo), w.code(t, with("old")); a != 0 || b != 137000 {
		t.Errorf("acknowledged: got %d, and %d with the old hash", a, b)
	}
	if second := change(); w.code(t, with(second)) != 0 || w.code(t, templateTo) != 0 {
		t.Error("a send with the new hash did not acknowledge it")
	}
	await(t, "a status", func() bool { return len(w.hook.reports(t)) > 0 })
	if got := w.hook.reports(t)[0].IdentityHash; got == "" {
		t.Error("statuses carry no hash")
	}
}

func TestEchoesErrorsAndAnyField(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.control(t, "echoes", `{"number":"PN1","phone":"`+customer+`","text":"from the shop"}`)
	e := w.awaitChange(t, "smb_message_echoes", 1)["message_echoes"].([]any)[0].(map[string]any)
	if e["from"] != business[1:] || e["to"] != customer[1:] || at(e, "text", "body") != "from the shop" || e["type"] != "text" {
		t.Errorf("echo: got %v", e)
	}
	if d := w.phones.got(); len(d) != 1 || d[0].Text != "from the shop" {
		t.Errorf("phone: got %+v", d)
	}
	w.control(t, "errors", `{"number":"PN1","code":131000,"details":"all broken"}`)
	await(t, "the error", func() bool { return len(w.hook.all()) == 2 })
	if v := w.hook.values(t)[1]; len(v.Errors) != 1 || v.Errors[0].Code != 131000 || v.Errors[0].ErrorData.Details != "all broken" || v.Messages != nil {
		t.Errorf("error: got %+v", v)
	}
	w.control(t, "fields", `{"account":"WABA1","field":"moon_phase","value":{"phase":"é"}}`)
	if v := w.awaitChange(t, "moon_phase", 1); v["phase"] != "é" {
		t.Errorf("unknown field: got %v", v)
	}
}

func TestAnyMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	answer := w.control(t, "messages", `{"number":"PN1","phone":"`+customer+`","message":{"type":"image","image":{"id":"M1","caption":"<ä/>"},"context":{"id":"wamid.X"},"referral":{"source_type":"ad"}}}`)
	await(t, "the message", func() bool { return len(w.hook.all()) == 1 })
	var got struct {
		ID, From, Type string
		Image          struct{ ID, Caption string }
		Context        struct{ ID string }
		Referral       map[string]string
	}
	v, _ := w.hook.changes(t, "messages")
	raw, _ := json.Marshal(v[0]["messages"].([]any)[0])
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.Type != "image" || got.Image.Caption != "<ä/>" || got.Context.ID != "wamid.X" || got.Referral["source_type"] != "ad" || got.From != customer[1:] || !strings.Contains(answer, got.ID) {
		t.Errorf("got %s", raw)
	}
	if got := w.code(t, textTo); got != 0 {
		t.Errorf("an answer: got %d; any message opens the window", got)
	}
}

func TestHabits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.control(t, "habits", `{"skipDeliveredEvery":1,"payload":"v23"}`)
	id := w.send(t, templateTo)
	await(t, "the phone has it", func() bool { return len(w.phones.got()) == 1 })
	w.Read([]string{id})
	w.awaitStatuses(t, "sent", "read")
	if w.hook.reports(t)[0].Conversation == nil {
		t.Error("a v23 status without conversation")
	}
	if got := w.control(t, "habits", `{"refuseOutsideWindow":true,"batch":"1ms","spoilEvery":1,"skipDeliveredEvery":0}`); !strings.Contains(got, `"payload":"v23"`) {
		t.Errorf("habits: got %s; what is missing stays", got)
	}
	if got := w.code(t, textTo); got != 131047 {
		t.Errorf("outside the window: got %d, want 131047 at once", got)
	}
	w.send(t, templateTo)
	w.awaitAnyOrder(t, "sent", "read", "sent", "delivered")
	if en := w.hook.all()[2].entries(t)[0]; len(en.Changes) != 2 {
		t.Errorf("the batch is not spoilt: %v", en)
	}
}

func TestControlRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, tc := range []struct {
		path, body string
		status     int
		field      string
	}{
		{"templates", `{"name":"plain","event":"PAUSED"}`, 400, "account"},
		{"templates", `{"account":"WABA9","name":"plain"}`, 404, "account"},
		{"templates", `{"account":"WABA1","name":"nothing"}`, 404, "name"},
		{"accounts", `{"account":"WABA1"}`, 400, "event"},
		{"accounts", `{"account":"WABA1","event":"X","for":"soon"}`, 400, "for"},
		{"capabilities", `{"account":"WABA1"}`, 400, "limit"},
		{"numbers", `{"number":"PN1"}`, 400, "event"},
		{"numbers", `{"number":"PN9","event":"X"}`, 404, "number"},
		{"preferences", `{"number":"PN1","phone":"` + customer + `","value":"maybe"}`, 400, "value"},
		{"preferences", `{"number":"PN1","phone":"12","value":"stop"}`, 400, "phone"},
		{"preferences", `{"phone":"` + customer + `","value":"stop"}`, 400, "number"},
		{"customers", `{"number":"PN1","phone":"` + customer + `","do":"leave"}`, 400, "do"},
		{"customers", `{"number":"PN1","phone":"` + customer + `","do":"number","to":"x"}`, 400, "to"},
		{"echoes", `{"number":"PN1","phone":"` + customer + `"}`, 400, "text"},
		{"errors", `{"number":"PN1"}`, 400, "code"},
		{"messages", `{"number":"PN1","phone":"` + customer + `","message":{}}`, 400, "message"},
		{"messages", `{"number":"PN1","phone":"` + customer + `","message":{"type":"text","id":"x"}}`, 400, "message.id"},
		{"batches", `{"number":"PN1","updates":1001}`, 400, "updates"},
		{"batches", `{"number":"PN1","updates":1,"bytes":99999999}`, 400, "bytes"},
		{"batches", `{"number":"PN2","updates":1}`, 404, "number"},
		{"fields", `{"account":"WABA1","value":1}`, 400, "field"},
		{"fields", `{"account":"WABA1","field":"x"}`, 400, "value"},
		{"fields", `{"account":"WABA1","colour":"x"}`, 400, "colour"},
		{"habits", `{"spoilEvery":-1}`, 400, "spoilEvery"},
		{"habits", `{"batch":"soon"}`, 400, "batch"},
		{"habits", `{"payload":"v99"}`, 400, "payload"},
	} {
		status, body, header := w.call(t, "POST", "/meta/"+tc.path, "", tc.body)
		var problem struct{ Field string }
		if err := json.Unmarshal([]byte(body), &problem); err != nil || status != tc.status || problem.Field != tc.field ||
			header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: got %d %s, want %d for %s", tc.path, tc.body, status, body, tc.status, tc.field)
		}
	}
	if n := len(w.hook.all()); n != 0 {
		t.Errorf("refused calls sent %d webhooks", n)
	}
}
