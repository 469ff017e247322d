package meta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/simulator/faults"
)

const (
	business = "+15550783881"
	customer = "+16505551234"
	secret   = "pbc-test-app-secret"
)

// phones are phones without a screen.
type phones struct {
	mu        sync.Mutex
	handsets  map[string]Handset
	delivered []Delivery
	accepted  []string
	readUpTo  string
	typing    bool
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

func (p *phones) MarkedRead(_, id string, typing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readUpTo, p.typing = id, typing
}

func (p *phones) got() []Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.delivered)
}

// hook is a webhook's receiver.
type hook struct {
	mu     sync.Mutex
	posts  []post
	answer func(n int) int // status for the n-th post, from 1; nil for 200
}

type post struct {
	body   []byte
	header http.Header
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	h.posts = append(h.posts, post{body, r.Header.Clone()})
	n, answer := len(h.posts), h.answer
	h.mu.Unlock()
	if answer != nil {
		w.WriteHeader(answer(n))
	}
}

func (h *hook) all() []post {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.posts)
}

// statuses returns "status" or "status code" of every status received, in order.
func (h *hook) statuses(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, st := range h.reports(t) {
		text := st.Status
		for _, e := range st.Errors {
			text += " " + strconv.Itoa(e.Code)
		}
		all = append(all, text)
	}
	return all
}

func (h *hook) reports(t *testing.T) []statusReport {
	t.Helper()
	var all []statusReport
	for _, v := range h.values(t) {
		all = append(all, v.Statuses...)
	}
	return all
}

func (h *hook) values(t *testing.T) []value {
	t.Helper()
	var all []value
	for _, p := range h.all() {
		for _, en := range p.entries(t) {
			for _, c := range en.Changes {
				var v value
				if err := json.Unmarshal(c.Value, &v); err == nil {
					all = append(all, v)
				}
			}
		}
	}
	return all
}

// told is an entry as a receiver reads it.
type told struct {
	ID      string
	Time    int64
	Changes []struct {
		Field string
		Value json.RawMessage
	}
}

func (p post) entries(t *testing.T) []told {
	t.Helper()
	var e struct {
		Object string
		Entry  []told
	}
	if err := json.Unmarshal(p.body, &e); err != nil || e.Object != "whatsapp_business_account" {
		t.Fatalf("no envelope: %v, %.80s", err, p.body)
	}
	return e.Entry
}

type world struct {
	*Simulator
	set    *faults.Set
	phones *phones
	hook   *hook
	url    string
	clock  *clock
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{
		set: faults.New(), hook: &hook{}, phones: &phones{handsets: map[string]Handset{}},
		clock: &clock{at: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)},
	}
	receiver := httptest.NewServer(w.hook)
	cfg := Config{
		Numbers: []Number{{PhoneNumberID: "PN1", WABAID: "WABA1", DisplayNumber: business, VerifiedName: "Acme",
			AccessToken: "good", ExpiredTokens: []string{"old"}, AppSecret: secret, WebhookURL: receiver.URL},
			{PhoneNumberID: "PN2", WABAID: "WABA2", DisplayNumber: "+15550783882", AccessToken: "other", AppSecret: "x", Unregistered: true}},
		Templates: []Template{
			{WABAID: "WABA1", Name: "payment_link", Language: "en_US", Category: "UTILITY", Body: "Hello {{1}}, please pay {{2}} today.",
				URLButton: &URLButton{"Pay now", "https://pay.example/p/{{1}}"}, QuickReplies: []string{"Help"}},
			{WABAID: "WABA1", Name: "plain", Language: "en", Category: "UTILITY", Body: "Thank you."},
			{WABAID: "WABA1", Name: "paused", Language: "en", Category: "UTILITY", Body: "Hello.", Status: "PAUSED"},
			{WABAID: "WABA1", Name: "disabled", Language: "en", Category: "UTILITY", Body: "Hello.", Status: "DISABLED"},
			{WABAID: "WABA1", Name: "rejected", Language: "en", Category: "UTILITY", Body: "Hello.", Status: "REJECTED"},
		},
		WebhookRetries: []time.Duration{0, 0, 0},
		Now:            w.clock.now,
	}
	if change != nil {
		change(&cfg)
	}
	sim, err := New(cfg, w.set, w.phones)
	if err != nil {
		t.Fatal(err)
	}
	w.Simulator = sim
	mux := http.NewServeMux()
	sim.Register(mux)
	api := httptest.NewServer(mux)
	w.url = api.URL
	t.Cleanup(func() {
		w.set.Clear()
		sim.Close()
		api.Close()
		receiver.Close()
	})
	return w
}

func (w *world) call(t *testing.T, method, path, token, body string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
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
	return res.StatusCode, string(b), res.Header
}

// send sends and returns the wamid.
func (w *world) send(t *testing.T, body string) string {
	t.Helper()
	status, answer, _ := w.call(t, "POST", "/meta/v25.0/PN1/messages", "good", body)
	if status != 200 {
		t.Fatalf("send: got %d %s", status, answer)
	}
	var a sendAnswer
	if err := json.Unmarshal([]byte(answer), &a); err != nil {
		t.Fatal(err)
	}
	return a.Messages[0].ID
}

func (w *world) say(t *testing.T, s Said) string {
	t.Helper()
	s.ID, s.From, s.To = NewID(), customer, business
	if err := w.Say(s); err != nil {
		t.Fatal(err)
	}
	return s.ID
}

// await polls until cond holds; the bound is far beyond any machine's slowness.
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
	await(t, strings.Join(want, ", "), func() bool { return len(w.hook.statuses(t)) >= len(want) })
	if got := w.hook.statuses(t); !slices.Equal(got, want) {
		t.Errorf("statuses: got %v, want %v", got, want)
	}
}

// awaitAnyOrder is awaitStatuses where Meta promises no order.
func (w *world) awaitAnyOrder(t *testing.T, want ...string) {
	t.Helper()
	await(t, strings.Join(want, ", "), func() bool { return len(w.hook.statuses(t)) >= len(want) })
	if got := w.hook.statuses(t); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("statuses: got %v, want %v", got, want)
	}
}

const (
	textTo     = `{"messaging_product":"whatsapp","to":"+16505551234","type":"text","text":{"body":"hi"},"biz_opaque_callback_data":"att_1"}`
	templateTo = `{"messaging_product":"whatsapp","to":"+16505551234","type":"template","template":{"name":"payment_link","language":{"code":"en_US"},"components":[
		{"type":"body","parameters":[{"type":"text","text":"Ana"},{"type":"text","text":"$42.10"}]},
		{"type":"button","sub_type":"url","index":"0","parameters":[{"type":"text","text":"7Qk2mZ"}]},
		{"type":"button","sub_type":"quick_reply","index":1,"parameters":[{"type":"payload","payload":"help_1"}]}]},"biz_opaque_callback_data":"att_2"}`
)

func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ body, want string }{
		{`{"entry":[{"changes":[],"id":"0"}],"object":"whatsapp_business_account"}`, "6891c40f650eb75bbe945b9f4f0d5af7e73d0ae7add4dd6247305466bd4b479c"},
		{`{"text":"caf\u00e9 \ud83d\udc4d a\/b"}`, "50002dbbb08b78c0c14c8d30d7904f9b7b603d68d2b0675e363a14a539a00ae1"},
		{`{"text":"café 👍 a/b"}`, "85ad91e72def6899095db4fb46c1592738166d81786c992e6c874d8c3e49669d"},
	} {
		if got := Sign(secret, []byte(tc.body)); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.body, got, tc.want)
		}
	}
}

func TestEscape(t *testing.T) {
	t.Parallel()
	got := string(encode(map[string]string{"text": "café 👍 a/b <&> \u2028 \n"}))
	want := `{"text":"caf\u00e9 \ud83d\udc4d a\/b <&> \u2028 \n"}`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	msg := func(rest string) string { return `{"messaging_product":"whatsapp","to":"+16505551234",` + rest + `}` }
	buttons := func(list string) string {
		return msg(`"type":"interactive","interactive":{"type":"button","body":{"text":"?"},"action":{"buttons":[` + list + `]}}`)
	}
	reply := func(id, title string) string {
		return `{"type":"reply","reply":{"id":"` + id + `","title":"` + title + `"}}`
	}
	link := func(label, url string) string {
		return msg(`"type":"interactive","interactive":{"type":"cta_url","body":{"text":"?"},"action":{"name":"cta_url","parameters":{"display_text":"` + label + `","url":"` + url + `"}}}`)
	}
	tmpl := func(name, language, components string) string {
		return msg(`"type":"template","template":{"name":"` + name + `","language":{"code":"` + language + `"},"components":[` + components + `]}`)
	}
	two := `{"type":"body","parameters":[{"type":"text","text":"Ana"},{"type":"text","text":"$1"}]}`
	suffix := `{"type":"button","sub_type":"url","index":"0","parameters":[{"type":"text","text":"x"}]}`
	for _, tc := range []struct {
		name, path, token, body string
		status, code            int
	}{
		{"no token", "v25.0/PN1", "", textTo, 401, 104},
		{"wrong token", "v25.0/PN1", "bad", textTo, 401, 190},
		{"expired token", "v25.0/PN1", "old", textTo, 401, 190},
		{"unknown number", "v25.0/PN9", "good", textTo, 400, 100},
		{"another's number", "v25.0/PN1", "other", textTo, 400, 100},
		{"no version", "latest/PN1", "good", textTo, 400, 2500},
		{"not registered", "v25.0/PN2", "other", textTo, 400, 133010},
		{"not JSON", "v25.0/PN1", "good", `{`, 400, 100},
		{"wrong type of member", "v25.0/PN1", "good", `{"messaging_product":7}`, 400, 100},
		{"not UTF-8", "v25.0/PN1", "good", msg("\"type\":\"text\",\"text\":{\"body\":\"\xff\"}"), 400, 100},
		{"no product", "v25.0/PN1", "good", `{"to":"+1650","type":"text"}`, 400, 100},
		{"other product", "v25.0/PN1", "good", `{"messaging_product":"sms"}`, 400, 100},
		{"no recipient", "v25.0/PN1", "good", `{"messaging_product":"whatsapp","type":"text","text":{"body":"x"}}`, 400, 100},
		{"bad number", "v25.0/PN1", "good", `{"messaging_product":"whatsapp","to":"+12","text":{"body":"x"}}`, 400, 131009},
		{"bad user id", "v25.0/PN1", "good", `{"messaging_product":"whatsapp","recipient":"nobody","text":{"body":"x"}}`, 400, 131009},
		{"to itself", "v25.0/PN1", "good", `{"messaging_product":"whatsapp","to":"` + business + `","text":{"body":"x"}}`, 400, 131021},
		{"unknown type", "v25.0/PN1", "good", msg(`"type":"telegram"`), 400, 100},
		{"type not carried", "v25.0/PN1", "good", msg(`"type":"image","image":{}`), 400, 131051},
		{"no text object", "v25.0/PN1", "good", msg(`"type":"text"`), 400, 131008},
		{"empty text", "v25.0/PN1", "good", msg(`"type":"text","text":{"body":""}`), 400, 131008},
		{"long text", "v25.0/PN1", "good", msg(`"type":"text","text":{"body":"` + strings.Repeat("é", 4097) + `"}`), 400, 131009},
		{"long callback data", "v25.0/PN1", "good", msg(`"text":{"body":"x"},"biz_opaque_callback_data":"` + strings.Repeat("x", 513) + `"`), 400, 131009},
		{"no buttons", "v25.0/PN1", "good", buttons(""), 400, 131009},
		{"four buttons", "v25.0/PN1", "good", buttons(strings.Join([]string{reply("1", "a"), reply("2", "b"), reply("3", "c"), reply("4", "d")}, ",")), 400, 131009},
		{"long title", "v25.0/PN1", "good", buttons(reply("1", strings.Repeat("a", 21))), 400, 131009},
		{"same title", "v25.0/PN1", "good", buttons(reply("1", "a") + "," + reply("2", "a")), 400, 131009},
		{"same id", "v25.0/PN1", "good", buttons(reply("1", "a") + "," + reply("1", "b")), 400, 131009},
		{"long id", "v25.0/PN1", "good", buttons(reply(strings.Repeat("1", 257), "a")), 400, 131009},
		{"long label", "v25.0/PN1", "good", link(strings.Repeat("a", 21), "https://a.example"), 400, 131009},
		{"no address", "v25.0/PN1", "good", link("Pay", "pay.example"), 400, 131009},
		{"long body", "v25.0/PN1", "good", msg(`"type":"interactive","interactive":{"type":"button","body":{"text":"` + strings.Repeat("a", 1025) + `"},"action":{}}`), 400, 131009},
		{"unknown interactive", "v25.0/PN1", "good", msg(`"type":"interactive","interactive":{"type":"flow","body":{"text":"a"},"action":{}}`), 400, 131009},
		{"unknown template", "v25.0/PN1", "good", tmpl("nothing", "en_US", two), 404, 132001},
		{"other language", "v25.0/PN1", "good", tmpl("payment_link", "en", two), 404, 132001},
		{"rejected template", "v25.0/PN1", "good", tmpl("rejected", "en", ""), 404, 132001},
		{"paused template", "v25.0/PN1", "good", tmpl("paused", "en", ""), 400, 132015},
		{"disabled template", "v25.0/PN1", "good", tmpl("disabled", "en", ""), 400, 132016},
		{"too few parameters", "v25.0/PN1", "good", tmpl("payment_link", "en_US", suffix), 400, 132000},
		{"parameters for none", "v25.0/PN1", "good", tmpl("plain", "en", two), 400, 132000},
		{"no suffix", "v25.0/PN1", "good", tmpl("payment_link", "en_US", two), 400, 131008},
		{"suffix for none", "v25.0/PN1", "good", tmpl("plain", "en", suffix), 400, 132000},
		{"image parameter", "v25.0/PN1", "good", tmpl("payment_link", "en_US", `{"type":"body","parameters":[{"type":"image"}]}`), 400, 132012},
		{"new line in parameter", "v25.0/PN1", "good", tmpl("payment_link", "en_US", `{"type":"body","parameters":[{"type":"text","text":"a\nb"}]}`), 400, 132018},
		{"long parameter", "v25.0/PN1", "good", tmpl("payment_link", "en_US", `{"type":"body","parameters":[{"type":"text","text":"`+strings.Repeat("a", 1030)+`"},{"type":"text","text":"b"}]},`+suffix), 400, 132005},
		{"read of an unknown message", "v25.0/PN1", "good", `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.X"}`, 400, 100},
		{"unknown status", "v25.0/PN1", "good", `{"messaging_product":"whatsapp","status":"gone","message_id":"wamid.X"}`, 400, 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			status, body, header := w.call(t, "POST", "/meta/"+tc.path+"/messages", tc.token, tc.body)
			var got struct {
				Error errorBody `json:"error"`
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("answer is not JSON: %s", body)
			}
			if status != tc.status || got.Error.Code != tc.code {
				t.Errorf("got %d with code %d (%s), want %d with %d", status, got.Error.Code, got.Error.Message, tc.status, tc.code)
			}
			if got.Error.FBTraceID == "" || got.Error.Type == "" || got.Error.Message == "" {
				t.Errorf("incomplete error: %s", body)
			}
			if header.Get("Facebook-Api-Version") == "" {
				t.Error("no facebook-api-version")
			}
			if calls := w.set.Calls(); len(calls) != 1 || calls[0].Status != tc.status {
				t.Errorf("call log: got %+v, want this one call", calls)
			}
			if len(w.messages) != 0 {
				t.Error("a refused message was kept")
			}
		})
	}
}

func TestExpiredTokenSubcode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if _, body, _ := w.call(t, "POST", "/meta/v25.0/PN1/messages", "old", textTo); !strings.Contains(body, `"error_subcode":463`) {
		t.Errorf("got %s, want subcode 463", body)
	}
}

func TestTextInsideTheWindow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	in := w.say(t, Said{Text: "Zoë says a/b 👍"})
	await(t, "the inbound webhook", func() bool { return len(w.hook.all()) == 1 })
	first := w.hook.all()[0]
	if got, want := first.header.Get("X-Hub-Signature-256"), "sha256="+Sign(secret, first.body); got != want {
		t.Errorf("signature: got %s, want %s", got, want)
	}
	if !strings.HasPrefix(first.header.Get("X-Hub-Signature"), "sha1=") {
		t.Error("the legacy signature is missing")
	}
	if !bytes.Contains(first.body, []byte(`Zo\u00eb says a\/b \ud83d\udc4d`)) {
		t.Errorf("body is not escaped as Meta does: %s", first.body)
	}
	v := w.hook.values(t)[0]
	if v.Metadata.PhoneNumberID != "PN1" || v.Contacts[0].WaID != "16505551234" || v.Contacts[0].UserID == "" {
		t.Errorf("envelope: got %+v", v)
	}
	m := v.Messages[0]
	if m.ID != in || m.From != "16505551234" || m.Timestamp != "1793534400" || m.Type != "text" || m.FromUserID != v.Contacts[0].UserID {
		t.Errorf("message: got %+v", m)
	}
	await(t, "the tick", func() bool { w.phones.mu.Lock(); defer w.phones.mu.Unlock(); return len(w.phones.accepted) == 1 })

	id := w.send(t, textTo)
	w.awaitStatuses(t, "sent", "delivered")
	if d := w.phones.got(); len(d) != 1 || d[0].ID != id || d[0].Text != "hi" || d[0].From != business {
		t.Errorf("phone: got %+v", d)
	}
	w.Read([]string{id, "wamid.unknown"})
	w.Read([]string{id})
	w.awaitStatuses(t, "sent", "delivered", "read")
	for _, st := range w.hook.reports(t) {
		if st.ID != id || st.Callback != "att_1" || st.RecipientID != "16505551234" || st.Conversation != nil || len(st.Timestamp) != 10 {
			t.Errorf("status: got %+v", st)
		}
		if (st.Pricing != nil) != (st.Status != "read") {
			t.Errorf("%s: pricing %+v", st.Status, st.Pricing)
		}
	}
	if c := w.set.Calls(); len(c) != 1 || c[0].Ref != "att_1" || c[0].Call != CallMessages || c[0].Status != 200 {
		t.Errorf("call log: got %+v", c)
	}
}

func TestTemplateReachesThePhoneFilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Numbers[0].PayloadVersion = PayloadV23 })
	status, answer, _ := w.call(t, "POST", "/meta/v25.0/PN1/messages", "good", templateTo)
	if status != 200 || !strings.Contains(answer, `"message_status":"accepted"`) || !strings.Contains(answer, `"input":"+16505551234","wa_id":"16505551234","user_id":"US.`) {
		t.Errorf("answer: got %d %s", status, answer)
	}
	w.awaitStatuses(t, "sent", "delivered")
	want := []Button{{Title: "Pay now", URL: "https://pay.example/p/7Qk2mZ"}, {ID: "help_1", Title: "Help"}}
	d := w.phones.got()[0]
	if d.Text != "Hello Ana, please pay $42.10 today." || !slices.Equal(d.Buttons, want) || !d.Template {
		t.Errorf("phone: got %+v", d)
	}
	for _, st := range w.hook.reports(t) {
		if st.Conversation == nil || (st.Conversation.Expiration != "") != (st.Status == "sent") {
			t.Errorf("v23 %s: conversation %+v", st.Status, st.Conversation)
		}
		if st.Pricing == nil || st.Pricing.Category != "utility" || !st.Pricing.Billable {
			t.Errorf("pricing: got %+v", st.Pricing)
		}
	}
}

func TestButtonsComeBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.say(t, Said{Button: &Pressed{Button: Button{ID: "help_1", Title: "Help"}, MessageID: "wamid.T", Template: true}})
	w.say(t, Said{Button: &Pressed{Button: Button{ID: "pay", Title: "Card"}, MessageID: "wamid.I"}})
	await(t, "both", func() bool { return len(w.hook.all()) == 2 })
	v := w.hook.values(t)
	fromTemplate, fromSession := v[0].Messages[0], v[1].Messages[0]
	if fromTemplate.Type != "button" || *fromTemplate.Button != (inboundButton{"help_1", "Help"}) || fromTemplate.Context.ID != "wamid.T" {
		t.Errorf("template reply: got %+v", fromTemplate)
	}
	if fromSession.Type != "interactive" || *fromSession.Interactive != (inboundReply{"button_reply", buttonReply{"pay", "Card"}}) {
		t.Errorf("session reply: got %+v", fromSession)
	}
}

func TestInteractiveReachesThePhone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.say(t, Said{Text: "hi"})
	w.send(t, `{"messaging_product":"whatsapp","to":"+1 (650) 555-1234","type":"interactive","interactive":{"type":"button","header":{"type":"text","text":"Acme"},"body":{"text":"Pay how?"},"footer":{"text":"Thanks"},"action":{"buttons":[{"type":"reply","reply":{"id":"c","title":"Card"}}]}}}`)
	w.send(t, `{"messaging_product":"whatsapp","to":"16505551234","recipient":"US.9","type":"interactive","interactive":{"type":"cta_url","body":{"text":"Bill"},"action":{"name":"cta_url","parameters":{"display_text":"Pay now","url":"https://a.example/p"}}}}`)
	await(t, "both", func() bool { return len(w.phones.got()) == 2 })
	seen := map[string]Button{}
	for _, d := range w.phones.got() {
		seen[d.Text] = d.Buttons[0]
	}
	if seen["Acme\nPay how?\nThanks"] != (Button{ID: "c", Title: "Card"}) || seen["Bill"] != (Button{Title: "Pay now", URL: "https://a.example/p"}) {
		t.Errorf("phone: got %+v", seen)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	absent := Handset{E164: customer, WaID: customer[1:], Reachable: true}
	blocking := Handset{E164: customer, WaID: customer[1:], Reachable: true, OnWhatsApp: true, Blocked: true}
	for _, tc := range []struct {
		name    string
		handset *Handset
		body    string
		want    string
	}{
		{"closed window", nil, textTo, "failed 131047"},
		{"not on WhatsApp", &absent, templateTo, "failed 131026"},
		{"blocked", &blocking, templateTo, "failed 130403"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			if tc.handset != nil {
				w.phones.set(*tc.handset)
			}
			id := w.send(t, tc.body)
			w.awaitStatuses(t, tc.want)
			v := w.hook.values(t)[0]
			if st := v.Statuses[0]; st.ID != id || st.Errors[0].Title != st.Errors[0].Message || st.Errors[0].ErrorData.Details == "" || st.RecipientUserID != "" {
				t.Errorf("status: got %+v", st)
			}
			if v.Contacts != nil {
				t.Error("a failed status came with contacts")
			}
			if d := w.phones.got(); len(d) != 0 {
				t.Errorf("phone: got %+v, want nothing", d)
			}
		})
	}
}

func TestWindowEndsAndCanRefuseAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.RefuseOutsideWindow = true })
	w.say(t, Said{Text: "hi"})
	w.clock.add(24*time.Hour - time.Second)
	w.send(t, textTo)
	w.clock.add(time.Second)
	if status, body, _ := w.call(t, "POST", "/meta/v25.0/PN1/messages", "good", textTo); status != 400 || !strings.Contains(body, `"code":131047`) {
		t.Errorf("after 24 h: got %d %s, want 400 with 131047", status, body)
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	code := func(w *world, to string) (int, string, http.Header) {
		return w.call(t, "POST", "/meta/v25.0/PN1/messages", "good", strings.ReplaceAll(textTo, customer, to))
	}
	w := newWorld(t, nil)
	for i := range 45 {
		if status, body, _ := code(w, customer); status != 200 {
			t.Fatalf("message %d: got %d %s", i, status, body)
		}
	}
	status, body, header := code(w, customer)
	if status != 400 || !strings.Contains(body, `"code":131056`) || header.Get("X-Business-Use-Case-Usage") == "" {
		t.Errorf("46th to one customer: got %d %s", status, body)
	}
	if status, body, _ := code(w, "+16505559999"); status != 200 {
		t.Errorf("to another customer: got %d %s", status, body)
	}
	w.clock.add(6 * time.Second)
	if status, _, _ := code(w, customer); status != 200 {
		t.Errorf("six seconds later: got %d, want 200", status)
	}

	slow := newWorld(t, func(c *Config) { c.MessagesPerSecond = 1 })
	code(slow, customer)
	if status, body, _ := code(slow, "+16505559999"); status != 400 || !strings.Contains(body, `"code":130429`) {
		t.Errorf("above the number's rate: got %d %s", status, body)
	}

	free := newWorld(t, func(c *Config) { c.MessagesPerSecond, c.PairBurst = -1, -1 })
	for range 60 {
		if status, body, _ := code(free, customer); status != 200 {
			t.Fatalf("without limits: got %d %s", status, body)
		}
	}
}

func TestUnreachablePhoneGetsItsMessagesLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	off := w.phones.Handset(customer)
	off.Reachable = false
	w.phones.set(off)
	w.send(t, templateTo)
	w.awaitStatuses(t, "sent")
	await(t, "the message waits", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.waiting[customer]) == 1 })
	w.Reachable(customer)
	if d := w.phones.got(); len(d) != 0 {
		t.Errorf("delivered to a phone that is off: %+v", d)
	}
	off.Reachable = true
	w.phones.set(off)
	w.Reachable(customer)
	w.awaitStatuses(t, "sent", "delivered")
}

func TestSkippedDelivered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.SkipDeliveredEvery = 1 })
	id := w.send(t, templateTo)
	await(t, "the phone has it", func() bool { return len(w.phones.got()) == 1 })
	w.Read([]string{id})
	w.awaitStatuses(t, "sent", "read")
}

func TestUserIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	hidden := w.phones.Handset(customer)
	hidden.HideNumber, hidden.Username = true, "zoe.pay"
	w.phones.set(hidden)
	w.say(t, Said{Text: "hi"})
	await(t, "the webhook", func() bool { return len(w.hook.all()) == 1 })
	if raw := string(w.hook.all()[0].body); strings.Contains(raw, customer[1:]) {
		t.Errorf("the webhook shows a hidden number: %s", raw)
	}
	v := w.hook.values(t)[0]
	id := v.Contacts[0].UserID
	if !userIDForm.MatchString(id) || v.Messages[0].FromUserID != id || v.Contacts[0].Profile.Username != "zoe.pay" {
		t.Errorf("sender: got %+v", v)
	}
	_, answer, _ := w.call(t, "POST", "/meta/v25.0/PN1/messages", "good", strings.ReplaceAll(textTo, `"to":"`+customer, `"recipient":"`+id))
	if !strings.Contains(answer, `"user_id":"`+id) || strings.Contains(answer, "wa_id") {
		t.Errorf("answer: got %s, want the user id alone", answer)
	}
	w.awaitStatuses(t, "sent", "delivered")
	for _, st := range w.hook.reports(t) {
		if st.RecipientID != "" || st.RecipientUserID != id {
			t.Errorf("status: got %+v", st)
		}
	}
}

func TestOtherSpellingOfANumber(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Numbers[0].CountryCode = "1" })
	w.phones.set(Handset{E164: customer, WaID: "165055512340", OnWhatsApp: true, Reachable: true})
	_, answer, _ := w.call(t, "POST", "/meta/v25.0/PN1/messages", "good", strings.ReplaceAll(templateTo, customer, "6505551234"))
	if !strings.Contains(answer, `"input":"6505551234","wa_id":"165055512340"`) {
		t.Errorf("got %s, want the country code put before and WhatsApp's own spelling", answer)
	}
}

func TestMarkRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.say(t, Said{Text: "hi"})
	status, body, _ := w.call(t, "POST", "/meta/v25.0/PN1/messages", "good",
		`{"messaging_product":"whatsapp","status":"read","message_id":"`+id+`","typing_indicator":{"type":"text"}}`)
	if status != 200 || strings.TrimSpace(body) != `{"success":true}` {
		t.Errorf("got %d %s", status, body)
	}
	if w.phones.readUpTo != id || !w.phones.typing {
		t.Errorf("phone: got %q, typing %t", w.phones.readUpTo, w.phones.typing)
	}
}

func TestRetriesCarryTheSameBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.hook.answer = func(n int) int {
		switch n {
		case 1:
			return 500
		case 2:
			return 202 // only 200 is success
		}
		return 200
	}
	w.say(t, Said{Text: "é"})
	await(t, "taken at last", func() bool { w.phones.mu.Lock(); defer w.phones.mu.Unlock(); return len(w.phones.accepted) == 1 })
	posts := w.hook.all()
	if len(posts) != 3 {
		t.Fatalf("posts: got %d, want 3", len(posts))
	}
	for _, p := range posts[1:] {
		if !bytes.Equal(p.body, posts[0].body) || p.header.Get("X-Hub-Signature-256") != posts[0].header.Get("X-Hub-Signature-256") {
			t.Error("a redelivery differs from the first delivery")
		}
	}
}

func TestRetryAfterTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.WebhookTimeout = 50 * time.Millisecond })
	release := make(chan struct{})
	w.hook.answer = func(n int) int {
		if n == 1 {
			<-release
		}
		return 200
	}
	defer close(release)
	w.say(t, Said{Text: "hi"})
	await(t, "a second delivery", func() bool { return len(w.hook.all()) >= 2 })
}

func TestCallFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		rule     faults.Rule
		status   int // 0: no answer
		statuses []string
	}{
		{"server fault", faults.Rule{Do: faults.Status, Status: 500, Body: `{"error":{"code":131000}}`}, 500, nil},
		{"not JSON", faults.Rule{Do: faults.Status, Status: 502, Body: "<html>"}, 502, nil},
		{"dropped before", faults.Rule{Do: faults.DropBefore}, 0, nil},
		{"dropped after", faults.Rule{Do: faults.DropAfter}, 0, []string{"sent", "delivered"}},
		{"time-out after", faults.Rule{Do: faults.TimeoutAfter}, 0, []string{"sent", "delivered"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			tc.rule.Call = "meta.*"
			tc.rule.Times = 1
			if err := w.set.Replace([]faults.Rule{tc.rule}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "POST", w.url+"/meta/v25.0/PN1/messages", strings.NewReader(templateTo))
			req.Header.Set("Authorization", "Bearer good")
			status := 0
			if res, err := http.DefaultClient.Do(req); err == nil {
				status = res.StatusCode
				_ = res.Body.Close()
			}
			if status != tc.status {
				t.Errorf("got status %d, want %d", status, tc.status)
			}
			await(t, "the call log", func() bool { return len(w.set.Calls()) == 1 })
			if got := w.set.Calls()[0]; got.Status != tc.status || got.Ref != "att_2" {
				t.Errorf("call log: got %+v", got)
			}
			if len(tc.statuses) > 0 {
				w.awaitStatuses(t, tc.statuses...)
			} else if len(w.messages) != 0 {
				t.Error("a call without effect kept a message")
			}
		})
	}
}

func TestStatusBeatsAHeldAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.set.Replace([]faults.Rule{{ID: "h", Call: CallMessages, Do: faults.HoldAfter}}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan string, 1)
	go func() { answered <- w.send(t, templateTo) }()
	w.awaitStatuses(t, "sent", "delivered")
	select {
	case <-answered:
		t.Error("answered while held")
	default:
	}
	w.set.Release("h")
	if id := <-answered; id != w.hook.reports(t)[0].ID {
		t.Errorf("answer: got %q, want the id of the statuses", id)
	}
}

func TestWebhookFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		rule faults.Rule
		want []string
	}{
		{"delivered is lost", faults.Rule{Do: faults.Drop, Skip: 1, Times: 1}, []string{"sent", "read"}},
		{"sent comes twice", faults.Rule{Do: faults.Duplicate, Times: 1}, []string{"sent", "sent", "delivered", "read"}},
		{"sent comes second", faults.Rule{Do: faults.Reorder, Times: 1}, []string{"delivered", "sent", "read"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			tc.rule.Call = CallWebhookStatus
			if err := w.set.Replace([]faults.Rule{tc.rule}); err != nil {
				t.Fatal(err)
			}
			id := w.send(t, templateTo)
			// The phone has the message just before its delivered status is handed
			// over; reading must not come between.
			await(t, "what comes before read", func() bool { return len(w.hook.all()) == len(tc.want)-1 })
			await(t, "the phone has it", func() bool { return len(w.phones.got()) == 1 })
			await(t, "delivered was handed over", func() bool { return w.taken(tc.rule) })
			w.Read([]string{id})
			w.awaitStatuses(t, tc.want...)
		})
	}
}

// taken says whether the world's only rule has taken all its turns.
func (w *world) taken(r faults.Rule) bool { return w.set.Rules()[0].Taken == r.Times }

func TestVerifyWebhook(t *testing.T) {
	t.Parallel()
	good := func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("hub.mode") == "subscribe" && q.Get("hub.verify_token") == "tok" {
			_, _ = io.WriteString(w, q.Get("hub.challenge"))
			return
		}
		w.WriteHeader(403)
	}
	quoted := func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(r.URL.Query().Get("hub.challenge"))
	}
	for _, tc := range []struct {
		name, token string
		h           http.HandlerFunc
		ok          bool
	}{{"right", "tok", good, true}, {"wrong token", "other", good, false}, {"challenge as JSON", "tok", quoted, false}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			receiver := httptest.NewServer(tc.h)
			defer receiver.Close()
			w := newWorld(t, func(c *Config) {
				c.Numbers[0].WebhookURL, c.Numbers[0].VerifyToken = receiver.URL+"/hook?a=1", tc.token
			})
			err := w.VerifyWebhook(t.Context())
			if (err == nil) != tc.ok {
				t.Errorf("got %v, want ok %t", err, tc.ok)
			}
			if err != nil && strings.Contains(err.Error(), tc.token) {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
}

func TestInject(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.hook.answer = func(int) int { return 403 }
	status, err := w.Inject(t.Context(), "PN1", []byte(`{ "object": "other", "text": "é/\/\\/" }`))
	if err != nil || status != 403 {
		t.Errorf("got %d, %v, want the answer's 403", status, err)
	}
	p := w.hook.all()[0]
	if got, want := string(p.body), `{"object":"other","text":"\u00e9\/\/\\\/"}`; got != want {
		t.Errorf("body: got %s, want %s", got, want)
	}
	if got := p.header.Get("X-Hub-Signature-256"); got != "sha256="+Sign(secret, p.body) {
		t.Error("the signature is not over the bytes sent")
	}
	if _, err := w.Inject(t.Context(), "PN1", []byte(`{`)); !errors.Is(err, ErrNotJSON) {
		t.Errorf("got %v, want ErrNotJSON", err)
	}
	if _, err := w.Inject(t.Context(), "PN9", []byte(`{}`)); !errors.Is(err, ErrNoSuchNumber) {
		t.Errorf("got %v, want ErrNoSuchNumber", err)
	}
	if n := len(w.hook.all()); n != 1 {
		t.Errorf("posts: got %d, want 1 without any retry", n)
	}
}

func TestInboundMessagesAreForgottenInTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.keep = 10
	for i := range w.keep + 1 {
		w.remember(strconv.Itoa(i), pair{"PN1", customer}, w.clock.now())
	}
	w.remember("last", pair{"PN1", customer}, w.clock.now())
	if _, known := w.inbound["last"]; !known || len(w.inbound) > w.keep || len(w.inbound) != len(w.heard) {
		t.Errorf("kept %d messages by id and %d in order, the last one %t", len(w.inbound), len(w.heard), known)
	}
}

func TestSetUpCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if status, body, _ := w.call(t, "GET", "/meta/v25.0/PN1", "good", ""); status != 200 || !strings.Contains(body, `"+1 555-078-3881"`) {
		t.Errorf("phone number: got %d %s", status, body)
	}
	if status, body, _ := w.call(t, "GET", "/meta/v25.0/WABA1/message_templates?name=paused", "good", ""); status != 200 || !strings.Contains(body, `"PAUSED"`) || strings.Contains(body, "plain") {
		t.Errorf("templates: got %d %s", status, body)
	}
	for _, token := range []string{"", "bad", "other"} {
		if status, _, _ := w.call(t, "GET", "/meta/v25.0/WABA1/message_templates", token, ""); status == 200 {
			t.Errorf("templates with token %q: got 200", token)
		}
	}
	if status, _, _ := w.call(t, "DELETE", "/meta/v25.0/PN1", "good", ""); status != 400 {
		t.Errorf("unknown call: got %d, want 400", status)
	}
}

func TestNewReportsEverythingWrong(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		Numbers:   []Number{{PhoneNumberID: "P", DisplayNumber: "1", WebhookURL: "ftp://x"}, {PhoneNumberID: "P", WABAID: "W", AccessToken: "a", AppSecret: "s", DisplayNumber: business}},
		Templates: []Template{{Name: "Bad Name"}, {Name: "a", Language: "en", Body: "b", URLButton: &URLButton{URL: "https://{{1}}/x"}}},
	}, faults.New(), &phones{})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"WABAID is missing", "AccessToken is missing", "AppSecret is missing", "DisplayNumber is not E.164",
		"WebhookURL", "number 1: PhoneNumberID is used twice", "template 0: Name", "template 1: the variable"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}
