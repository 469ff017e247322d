package clickatell

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/simulator/faults"
)

const (
	key      = "pbc-test-key=="
	otherKey = "other-key=="
	business = "+15550783881"
	oneWay   = "+15550783882"
	customer = "+16505551234"
	inPath   = "/in/0b9c7d?tenant=7"
	stPath   = "/status/5e1f2a"
)

// phones are phones without a screen.
type phones struct {
	mu        sync.Mutex
	handsets  map[string]Handset
	delivered []Delivery
	accepted  []string
}

func (p *phones) Handset(e164 string) Handset {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h, ok := p.handsets[e164]; ok {
		return h
	}
	return Handset{E164: e164, WaID: e164[1:], Name: "Ana", OnWhatsApp: true, Reachable: true}
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

func (p *phones) got() []Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.delivered)
}

func (p *phones) taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.accepted)
}

// hook receives callbacks; each must carry the configured credentials.
type hook struct {
	t      *testing.T
	mu     sync.Mutex
	posts  []post
	answer func(n int, w http.ResponseWriter, r *http.Request) // to the n-th post, from 1
}

type post struct{ path, body string }

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	user, password, _ := r.BasicAuth()
	if err != nil || user != "pay" || password != "s3cret" || r.Header.Get("Content-Type") != "application/json" {
		h.t.Errorf("callback: got user %q, content type %q, error %v", user, r.Header.Get("Content-Type"), err)
	}
	h.mu.Lock()
	h.posts = append(h.posts, post{r.URL.String(), string(body)})
	n, answer := len(h.posts), h.answer
	h.mu.Unlock()
	if answer != nil {
		answer(n, w, r)
	}
}

// all returns the bodies posted to one path, in order.
func (h *hook) all(path string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var bodies []string
	for _, p := range h.posts {
		if p.path == path {
			bodies = append(bodies, p.body)
		}
	}
	return bodies
}

// statuses returns "code name" of every status of the One API, in order.
func (h *hook) statuses() []string {
	var all []string
	for _, body := range h.all(stPath) {
		var in struct{ Event statusesEvent }
		if err := json.Unmarshal([]byte(body), &in); err != nil || len(in.Event.Updates) != 1 {
			h.t.Errorf("status callback: got %s", body)
			continue
		}
		all = append(all, strconv.Itoa(in.Event.Updates[0].StatusCode)+" "+in.Event.Updates[0].Status)
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

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := &world{
		set: faults.New(), hook: &hook{t: t}, phones: &phones{handsets: map[string]Handset{}},
		at: time.UnixMilli(1781866800000),
	}
	receiver := httptest.NewServer(w.hook)
	cfg := Config{
		Integrations: []Integration{
			{ID: "int1", Name: "Acme", APIKey: key,
				Numbers: []Number{
					{E164: business}, {E164: business, Channel: WhatsApp},
					{E164: oneWay, OneWay: true}, {E164: "+15550783883", Suspended: true},
				},
				Templates: []Template{{Name: "pay", Body: "Hello {{1}}, pay {{2}}.", ButtonLabel: "Pay", ButtonURL: "https://pay.example/p/{{3}}", QuickReplies: []string{"Help"}},
					{Name: "plain", Body: "Hello."}, {Name: "long", Body: "{{1}}"}},
				InboundURL: receiver.URL + inPath, StatusURL: receiver.URL + stPath, Username: "pay", Password: "s3cret"},
			{ID: "int2", APIKey: otherKey},
		},
		CallbackRetries: []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond}, Now: w.now,
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
	w.url = api.URL + "/clickatell"
	t.Cleanup(func() {
		w.set.Clear()
		sim.Close()
		api.Close()
		receiver.Close()
	})
	return w
}

func (w *world) call(t *testing.T, method, path, authorization, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
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
	return res.StatusCode, strings.TrimSpace(string(b))
}

// sent is an answer to a send, in the caller's own types.
type sent struct {
	Messages []struct {
		APIMessageID    *string
		Accepted        bool
		To              string
		ClientMessageID *string
		Error           *struct {
			Code        int
			Description string
		}
	}
	Error *struct{ Code int }
}

func (w *world) send(t *testing.T, messages string) (int, sent) {
	t.Helper()
	status, body := w.call(t, "POST", "/v1/message", key, `{"messages":[`+messages+`]}`)
	var s sent
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	return status, s
}

// must sends one message that has to be accepted, and returns its id.
func (w *world) must(t *testing.T, message string) string {
	t.Helper()
	status, s := w.send(t, message)
	if status != 202 || len(s.Messages) != 1 || s.Messages[0].APIMessageID == nil {
		t.Fatalf("send %s: got %d %+v", message, status, s)
	}
	return *s.Messages[0].APIMessageID
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

const (
	plainSMS      = `{"channel":"sms","to":"16505551234","content":"Hello","clientMessageId":"att_1"}`
	plainWhatsApp = `{"channel":"whatsapp","to":"16505551234","content":"Hello","clientMessageId":"att_1"}`
	payTemplate   = `{"channel":"whatsapp","to":"16505551234","template":{"templateName":"pay","body":{"parameters":{"1":"Ana","2":"$5.00","3":"7Qk2"}}}}`
)

// compact is a JSON example without the line breaks that its page gave it.
func compact(t *testing.T, example string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(example)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestDocumentedExamples holds what goes over the wire, byte by byte, against the
// examples of the documentation, with made-up ids in the place of its ellipses.
func TestDocumentedExamples(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ids := []string{"0f1e2d3c4b5a69788796a5b4c3d2e1f0", "77fb29998253415fa5d66971d519d362", "fd496adebb6e422587368077937cfb5d"}
	w.newID = func() string {
		id := ids[0]
		ids = ids[1:]
		return id
	}
	w.shuffle = func(int, func(i, j int)) {}

	status, body := w.call(t, "POST", "/v1/message", key, `{"messages":[{"channel":"sms","to":"16505551234","content":"Pay: https://pay.acme.example/p/7Qk2","clientMessageId":"att_01J"},
             {"channel":"whatsapp","to":"1650","content":"Hello Ana","clientMessageId":"att_01K"}]}`)
	want := compact(t, `{"messages":[{"apiMessageId":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","accepted":true,"to":"16505551234","clientMessageId":"att_01J","error":null},
 {"apiMessageId":null,"accepted":false,"to":"1650","clientMessageId":"att_01K","error":{"code":25,"description":"Invalid recipient address: 1650"}}],"error":null}`)
	if status != 207 || body != want {
		t.Errorf("mixed batch: got %d\n%s\nwant 207\n%s", status, body, want)
	}

	w.awaitStatuses(t, "4 SENT_TO_SUPPLIER", "5 DEVICE_ACK")
	want = compact(t, `{"integrationId":"int1","integrationName":"Acme","event":{"messageStatusUpdate":[{"channel":"sms","timestamp":1781866800000,
 "statusCode":5,"status":"DEVICE_ACK","messageId":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","clientMessageId":"att_01J"}]}}`)
	if got := w.hook.all(stPath)[1]; got != want {
		t.Errorf("status callback: got\n%s\nwant\n%s", got, want)
	}
	status, body = w.call(t, "GET", "/v1/message/0f1e2d3c4b5a69788796a5b4c3d2e1f0", key, "")
	if want = `{"sms":{"status":"DEVICE_ACK","timestamp":1781866800000}}`; status != 200 || body != want {
		t.Errorf("message status: got %d %s, want 200 %s", status, body, want)
	}
	status, body = w.call(t, "GET", "/v1/balance", key, "")
	if want = `{"balance":1000,"currency":"ZAR"}`; status != 200 || body != want {
		t.Errorf("balance: got %d %s, want 200 %s", status, body, want)
	}

	if err := w.Say(Said{ID: "m1", Channel: WhatsApp, From: customer, To: business, Text: "hi"}); err != nil {
		t.Fatal(err)
	}
	await(t, "the reply callback", func() bool { return len(w.hook.all(inPath)) == 1 })
	want = compact(t, `{"integrationId":"int1","integrationName":"Acme","event":{"moText":[{"channel":"whatsapp","messageId":"m1","relatedMessageId":null,
 "relatedClientMessageId":null,"from":"16505551234","to":"15550783881","timestamp":1781866800000,"content":"hi","charset":"UTF-8",
 "sms":null,"whatsapp":{"profileName":"Ana"}}]}}`)
	if got := w.hook.all(inPath)[0]; got != want {
		t.Errorf("reply callback: got\n%s\nwant\n%s", got, want)
	}

	// The older documents' templated message, whose answer has no clientMessageId.
	status, body = w.call(t, "POST", "/v1/message", key, `{
    "messages":[
       {
          "to":"2799900001",
          "channel": "whatsapp",
          "hsm" : {
             "template":"pay",
             "parameters" : {
                "1":"John",
                "2":" Clickatell",
                "3":"x"
             }
          }
       }
    ]
 }`)
	want = `{"messages":[{"apiMessageId":"77fb29998253415fa5d66971d519d362","accepted":true,"to":"2799900001","error":null}],"error":null}`
	if status != 202 || body != want {
		t.Errorf("templated message: got %d %s, want 202 %s", status, body, want)
	}
	status, body = w.call(t, "POST", "/messages", key, `{"content":"Test Message Text","to":["16505551234"]}`)
	want = `{"messages":[{"apiMessageId":"fd496adebb6e422587368077937cfb5d","accepted":true,"to":"16505551234","error":null}],"error":null}`
	if status != 202 || body != want {
		t.Errorf("REST send: got %d %s, want 202 %s", status, body, want)
	}
}

func TestMessageRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Integrations[0].MaxParts = 2 })
	w.phones.set(Handset{E164: "+16505550001", WaID: "16505550001", Reachable: true})
	for _, tc := range []struct {
		name, message string
		status, code  int
	}{
		{"letters in the number", `{"to":"1650555CALL","content":"x"}`, 400, 25},
		{"a plus", `{"to":"+16505551234","content":"x"}`, 400, 25},
		{"a short number", `{"to":"1650","content":"x"}`, 400, 25},
		{"a national number", `{"to":"06505551234","content":"x"}`, 400, 25},
		{"no number", `{"content":"x"}`, 400, 23},
		{"no text", `{"to":"16505551234"}`, 400, 23},
		{"text under another case", `{"to":"16505551234","Content":"x"}`, 400, 23},
		{"unknown channel", `{"channel":"fax","to":"16505551234","content":"x"}`, 400, 23},
		{"template on SMS", `{"to":"16505551234","template":"pay"}`, 400, 23},
		{"media on SMS", `{"to":"16505551234","content":"aGk=","contentType":"image/png"}`, 400, 30},
		{"from of nobody", `{"to":"16505551234","content":"x","from":"15550000000"}`, 400, 45},
		{"from with a plus", `{"to":"16505551234","content":"x","from":"+15550783881"}`, 400, 45},
		{"from of the other channel", `{"channel":"whatsapp","to":"16505551234","content":"x","from":"15550783882"}`, 400, 45},
		{"from that is one-way", `{"to":"16505551234","content":"x","from":"15550783882"}`, 400, 101},
		{"from that is suspended", `{"to":"16505551234","content":"x","from":"15550783883"}`, 400, 44},
		{"not on WhatsApp", `{"channel":"whatsapp","to":"16505550001","content":"x"}`, 400, 27},
		{"too many parts", `{"to":"16505551234","content":"` + strings.Repeat("a", 307) + `"}`, 400, 100},
		{"too long for WhatsApp", `{"channel":"whatsapp","to":"16505551234","content":"` + strings.Repeat("é", 4097) + `"}`, 400, 24},
	} {
		status, got := w.send(t, tc.message)
		if status != tc.status || len(got.Messages) != 1 || got.Error != nil {
			t.Errorf("%s: got %d %+v, want %d for the one message", tc.name, status, got, tc.status)
			continue
		}
		if m := got.Messages[0]; m.Accepted || m.APIMessageID != nil || m.Error == nil || m.Error.Code != tc.code || m.Error.Description == "" {
			t.Errorf("%s: got %+v, want code %d", tc.name, m, tc.code)
		}
	}
	w.must(t, `{"to":"16505551234","content":"`+strings.Repeat("a", 306)+`","from":"15550783881"}`)
	w.must(t, `{"channel":"whatsapp","to":"16505551234","content":"`+strings.Repeat("é", 4096)+`"}`)
	await(t, "the one SMS", func() bool { return len(w.phones.got()) == 1 })
}

func TestCallRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	good := `{"messages":[` + plainSMS + `]}`
	for _, tc := range []struct {
		name, method, path, authorization, body string
		status, code                            int
	}{
		{"no key", "POST", "/v1/message", "", good, 401, 1},
		{"wrong key", "POST", "/v1/message", "nobody", good, 401, 1},
		{"key behind Bearer", "POST", "/v1/message", "Bearer " + key, good, 401, 1},
		{"key behind Bearer, balance", "GET", "/v1/balance", "Bearer " + key, "", 401, 1},
		{"key behind Bearer, status", "GET", "/v1/message/x", "Bearer " + key, "", 401, 1},
		{"unknown path without a key", "GET", "/v1/nothing", "", "", 401, 1},
		{"not JSON", "POST", "/v1/message", key, `{`, 400, 21},
		{"not UTF-8", "POST", "/v1/message", key, "{\"messages\":[{\"content\":\"\xff\"}]}", 400, 21},
		{"null", "POST", "/v1/message", key, `null`, 400, 21},
		{"messages is an object", "POST", "/v1/message", key, `{"messages":{}}`, 400, 21},
		{"to is a list", "POST", "/v1/message", key, `{"messages":[{"to":["16505551234"],"content":"x"}]}`, 400, 21},
		{"preview is a word", "POST", "/v1/message", key, `{"messages":[{"to":"16505551234","content":"x","previewFirstUrl":"no"}]}`, 400, 21},
		{"hsm is a word", "POST", "/v1/message", key, `{"messages":[{"to":"16505551234","hsm":"pay"}]}`, 400, 21},
		{"template is a number", "POST", "/v1/message", key, `{"messages":[{"to":"16505551234","template":7}]}`, 400, 21},
		{"template body is a word", "POST", "/v1/message", key, `{"messages":[{"to":"16505551234","template":{"templateName":"pay","body":"x"}}]}`, 400, 21},
		{"no messages", "POST", "/v1/message", key, `{"messages":[]}`, 400, 23},
		{"too many messages", "POST", "/v1/message", key, `{"messages":[` + strings.Repeat(plainSMS+",", 200) + plainSMS + `]}`, 400, 22},
		{"no body", "POST", "/v1/message", key, "", 400, 30},
		{"no such path", "GET", "/v1/media", key, "", 400, 41},
		{"no such method", "DELETE", "/v1/message", key, "", 400, 42},
	} {
		status, body := w.call(t, tc.method, tc.path, tc.authorization, tc.body)
		var got struct {
			Messages []any
			Error    problem
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != tc.status || got.Error.Code != tc.code || got.Messages == nil || len(got.Messages) != 0 {
			t.Errorf("%s: got %d %s, want %d with code %d", tc.name, status, body, tc.status, tc.code)
		}
	}
	if status, got := w.call(t, "POST", "/v1/message", otherKey, good); status != 400 || !strings.Contains(got, `"code":39`) {
		t.Errorf("a channel that the integration lacks: got %d %s, want 400 with code 39", status, got)
	}
	if got := w.phones.got(); len(got) != 0 {
		t.Errorf("phone: got %+v", got)
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var messages []string
	for i := range 20 {
		messages = append(messages, `{"to":"165055512`+strconv.Itoa(10+i)+`","content":"x","clientMessageId":"`+strconv.Itoa(i)+`"}`)
	}
	order := func(s sent) (ids []string) {
		for _, m := range s.Messages {
			ids = append(ids, *m.ClientMessageID)
		}
		return ids
	}
	status, got := w.send(t, strings.Join(messages, ","))
	ids := order(got)
	if status != 202 || len(ids) != 20 {
		t.Fatalf("20 good ones: got %d %+v", status, got)
	}
	// One in 20! runs answers in the order of the request by chance.
	if slices.IsSortedFunc(ids, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y }) {
		t.Error("the answer has the order of the request")
	}
	await(t, "all on the phones", func() bool { return len(w.phones.got()) == 20 })

	status, got = w.send(t, messages[0]+`,{"to":"x","content":"y","clientMessageId":"bad"}`)
	if status != 207 || len(got.Messages) != 2 {
		t.Fatalf("mixed: got %d %+v, want 207", status, got)
	}
	for _, m := range got.Messages {
		if good := *m.ClientMessageID == "0"; m.Accepted != good || (m.APIMessageID != nil) != good || (m.Error == nil) != good {
			t.Errorf("mixed: got %+v", m)
		}
	}
	if status, _ = w.send(t, `{"to":"x","content":"y"},{"to":"y","content":"y"}`); status != 207 {
		t.Errorf("two bad ones: got %d, want 207", status)
	}
	if calls := w.set.Calls(); calls[1].Call != CallMessages || calls[1].Ref != "0,bad" || calls[1].Status != 207 {
		t.Errorf("call log: got %+v", calls[1])
	}
}

func TestSMSBothWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.must(t, plainSMS)
	w.awaitStatuses(t, "4 SENT_TO_SUPPLIER", "5 DEVICE_ACK")
	if got := w.phones.got(); len(got) != 1 || got[0].ID != id || got[0].From != business || got[0].To != customer || got[0].Text != "Hello" {
		t.Errorf("phone: got %+v", got)
	}
	w.Read([]string{id}) // SMS knows no receipts
	said := w.say(t, SMS, "STOP")
	await(t, "the reply", func() bool { return len(w.hook.all(inPath)) == 1 })
	want := `{"integrationId":"int1","integrationName":"Acme","event":{"moText":[{"channel":"sms","messageId":"` + said + `","relatedMessageId":null,` +
		`"relatedClientMessageId":null,"from":"16505551234","to":"15550783881","timestamp":1781866800000,"content":"STOP","charset":"UTF-8","sms":{"network":""},"whatsapp":null}]}}`
	if got := w.hook.all(inPath)[0]; got != want {
		t.Errorf("reply: got\n%s\nwant\n%s", got, want)
	}
	await(t, "the tick", func() bool { return slices.Equal(w.phones.taken(), []string{said}) })
	w.must(t, plainSMS) // STOP was a word like any other
	w.awaitStatuses(t, "4 SENT_TO_SUPPLIER", "5 DEVICE_ACK", "4 SENT_TO_SUPPLIER", "5 DEVICE_ACK")
	if len(w.phones.got()) != 2 {
		t.Errorf("phone: got %+v; Clickatell answers nothing by itself", w.phones.got())
	}
	if err := w.Say(Said{ID: "x", Channel: SMS, From: customer, To: "+15550000000"}); err != ErrNoSuchNumber {
		t.Errorf("to a number of nobody: got %v", err)
	}
}

func TestStopWhereItIsHandled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Integrations[0].HandlesStop = true })
	w.say(t, SMS, " stop ")
	w.say(t, WhatsApp, "STOP")
	await(t, "both delivered all the same", func() bool { return len(w.hook.all(inPath)) == 2 })
	if status, got := w.send(t, plainSMS); status != 400 || got.Messages[0].Error.Code != 26 {
		t.Errorf("after STOP: got %d %+v, want 400 with code 26", status, got)
	}
	w.must(t, plainWhatsApp) // it is SMS that the word is for
	w.awaitStatuses(t, "4 SENT_TO_SUPPLIER", "5 DEVICE_ACK")
	w.say(t, SMS, "Start")
	w.must(t, plainSMS)
	w.awaitStatuses(t, "4 SENT_TO_SUPPLIER", "5 DEVICE_ACK", "4 SENT_TO_SUPPLIER", "5 DEVICE_ACK")
}

func TestStopBehindASend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Integrations[0].HandlesStop = true })
	if err := w.set.Replace([]faults.Rule{{ID: "h", Call: CallMessages, Do: faults.HoldBefore}}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan string, 1)
	go func() {
		_, body := w.call(t, "POST", "/v1/message", key, `{"messages":[`+plainSMS+`]}`)
		answered <- body
	}()
	await(t, "the call is held", func() bool { return w.set.Rules()[0].Held == 1 })
	w.say(t, SMS, "STOP")
	w.set.Release("h")
	if got := <-answered; !strings.Contains(got, `"accepted":true`) {
		t.Errorf("got %s, want it accepted: it came first", got)
	}
	w.awaitStatuses(t, "21 STOPPED_BY_USER")
}

func TestUndelivered(t *testing.T) {
	t.Parallel()
	home := Handset{E164: customer, WaID: customer[1:], OnWhatsApp: true, Reachable: true}
	off, noSMS, absent, noWA := home, home, home, home
	off.Reachable, noSMS.BlockedSMS, absent.OnWhatsApp, noWA.BlockedWhatsApp = false, true, false, true
	for _, tc := range []struct {
		name    string
		handset Handset
		message string
		want    []string
	}{
		{"SMS to a phone that is off", off, plainSMS, []string{"4 SENT_TO_SUPPLIER", "20 EXPIRED"}},
		{"SMS blocked", noSMS, plainSMS, []string{"4 SENT_TO_SUPPLIER", "23 DELIVERY_FAILURE"}},
		{"WhatsApp outside the window", home, plainWhatsApp, []string{"131 WHATSAPP_RE_ENGAGEMENT_REQUIRED"}},
		{"not on WhatsApp, told late", absent, payTemplate, []string{"29 RECIPIENT_DOES_NOT_EXIST"}},
		{"blocked on WhatsApp", noWA, payTemplate, []string{"23 DELIVERY_FAILURE"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) { c.Integrations[0].ChecksLate = true })
			w.phones.set(tc.handset)
			id := w.must(t, tc.message)
			w.awaitStatuses(t, tc.want...)
			if got := w.phones.got(); len(got) != 0 {
				t.Errorf("phone: got %v, want nothing", got)
			}
			_, name, _ := strings.Cut(tc.want[len(tc.want)-1], " ")
			if _, body := w.call(t, "GET", "/v1/message/"+id, key, ""); !strings.Contains(body, name) {
				t.Errorf("message status: got %s, want %s", body, name)
			}
		})
	}
}

func TestMessageStatusOfNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.must(t, plainSMS)
	for who, path := range map[string]string{key: "/v1/message/0123", otherKey: "/v1/message/" + id} {
		if status, body := w.call(t, "GET", path, who, ""); status != 200 || body != `{"status":"UNKNOWN","timestamp":1781866800000}` {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
}

func TestWhatsApp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	off := Handset{E164: customer, WaID: customer[1:], Name: "Zoë", OnWhatsApp: true}
	w.phones.set(off)
	id := w.must(t, payTemplate)
	w.awaitStatuses(t, "4 SENT_TO_SUPPLIER")
	await(t, "the message waits", func() bool {
		w.Simulator.mu.Lock()
		defer w.Simulator.mu.Unlock()
		return len(w.waiting[customer]) == 1
	})
	off.Reachable = true
	w.phones.set(off)
	w.Reachable(customer)
	w.awaitStatuses(t, "4 SENT_TO_SUPPLIER", "5 DEVICE_ACK")
	buttons := []Button{{Title: "Pay", URL: "https://pay.example/p/7Qk2"}, {ID: "Help", Title: "Help"}}
	if d := w.phones.got()[0]; d.Text != "Hello Ana, pay $5.00." || !slices.Equal(d.Buttons, buttons) {
		t.Errorf("phone: got %+v", d)
	}
	w.Read([]string{id, "unknown"})
	w.Read([]string{id})
	w.awaitStatuses(t, "4 SENT_TO_SUPPLIER", "5 DEVICE_ACK", "6 READ")

	if err := w.Say(Said{ID: NewID(), Channel: WhatsApp, From: customer, To: business, Button: &buttons[1], MessageID: id}); err != nil {
		t.Fatal(err)
	}
	await(t, "the pressed button", func() bool { return len(w.hook.all(inPath)) == 1 })
	got := w.hook.all(inPath)[0]
	for _, want := range []string{`"content":"Help"`, `"relatedMessageId":"` + id + `"`, `"relatedClientMessageId":null`, `"whatsapp":{"profileName":"Zoë"}`} {
		if !strings.Contains(got, want) {
			t.Errorf("pressed button: got %s, want %s in it", got, want)
		}
	}
	// The button opened the window.
	w.must(t, plainWhatsApp)
	w.must(t, `{"channel":"whatsapp","to":"16505551234","content":"aGk=","contentType":"image/png","caption":"Receipt"}`)
	await(t, "text and picture on the phone", func() bool { return len(w.phones.got()) == 3 })
	w.pass(24 * time.Hour)
	w.must(t, plainWhatsApp)
	await(t, "the closed window", func() bool { return slices.Contains(w.hook.statuses(), "131 WHATSAPP_RE_ENGAGEMENT_REQUIRED") })
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	delivered := []string{"4 SENT_TO_SUPPLIER", "5 DEVICE_ACK"}
	for _, tc := range []struct {
		name, content string
		want          []string
	}{
		{"hsm", `"hsm":{"template":"pay","parameters":{"1":"Ana","2":"$5","3":"x"}}`, delivered},
		{"flat", `"template":"pay","parameters":{"1":"Ana","2":"$5","3":"x"}`, delivered},
		{"flat, a list", `"template":"pay","parameters":["Ana","$5","x"]`, delivered},
		{"nested", `"template":{"templateName":"pay","body":{"parameters":{"1":"Ana","2":"$5","3":"x"}}}`, delivered},
		{"nested without a body", `"template":{"templateName":"pay","parameters":{"1":"Ana","2":"$5","3":"x"}}`, delivered},
		{"no parameters", `"template":"plain"`, delivered},
		{"no such template", `"template":"pays"`, []string{"134 WHATSAPP_HSM_NOT_AVAILABLE"}},
		{"a parameter too few", `"template":"pay","parameters":{"1":"Ana","2":"$5"}`, []string{"141 WHATSAPP_TEMPLATE_FORMAT_MISMATCH"}},
		{"a parameter too many", `"template":"plain","parameters":{"1":"Ana"}`, []string{"141 WHATSAPP_TEMPLATE_FORMAT_MISMATCH"}},
		{"an empty parameter", `"template":"pay","parameters":{"1":"","2":"$5","3":"x"}`, []string{"141 WHATSAPP_TEMPLATE_FORMAT_MISMATCH"}},
		{"a line break in a parameter", `"template":"pay","parameters":{"1":"A\na","2":"$5","3":"x"}`, []string{"142 WHATSAPP_TEMPLATE_FORMATTING_POLICY_VIOLATED"}},
		{"five spaces in a parameter", `"template":"long","parameters":{"1":"A     a"}`, []string{"142 WHATSAPP_TEMPLATE_FORMATTING_POLICY_VIOLATED"}},
		{"too long", `"template":"long","parameters":{"1":"` + strings.Repeat("a", 1025) + `"}`, []string{"140 WHATSAPP_TEMPLATE_TEXT_TOO_LONG"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.must(t, `{"channel":"whatsapp","to":"16505551234",`+tc.content+`}`)
			w.awaitStatuses(t, tc.want...)
		})
	}
}

func TestLegacySends(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Integrations[0].PerSecond = 6 })
	query := func(pairs ...string) string {
		q := url.Values{"apiKey": {key}, "to": {"16505551234"}, "content": {"Hi & bye"}}
		for i := 0; i < len(pairs); i += 2 {
			q.Set(pairs[i], pairs[i+1])
		}
		return "/messages/http/send?" + q.Encode()
	}
	for _, tc := range []struct {
		name, method, path, authorization, body string
		status                                  int
		want                                    []string
	}{
		{"no key", "POST", "/messages", "", `{"to":["16505551234"],"content":"x"}`, 401, []string{`{"messages":[],"error":"Invalid or missing Integration API Key"}`}},
		{"key behind Bearer", "POST", "/messages", "Bearer " + key, `{"to":["16505551234"],"content":"x"}`, 401, []string{`"messages":[]`}},
		{"key in the address", "GET", query("apiKey", "nobody"), "", "", 401, []string{`"messages":[]`}},
		{"to is no list", "POST", "/messages", key, `{"to":"16505551234","content":"x"}`, 400, []string{`"messages":[]`}},
		{"no text", "POST", "/messages", key, `{"to":["16505551234"]}`, 400, []string{`"messages":[]`}},
		{"no number", "GET", query("to", ""), "", "", 400, []string{`"messages":[]`}},
		{"two numbers, one of them bad", "POST", "/messages", key, `{"to":["16505551234","1650CALL"],"content":"x","clientMessageId":"att_7"}`, 202,
			[]string{`"accepted":true,"to":"16505551234","error":null}`, `{"apiMessageId":null,"accepted":false,"to":"1650CALL","error":"Invalid recipient address: 1650CALL"}`}},
		{"the same in the address", "GET", query("to", "16505551234,1650CALL"), "", "", 202,
			[]string{`"accepted":true,"to":"16505551234","error":null}`, `"accepted":false,"to":"1650CALL"`}},
		{"from of nobody", "POST", "/messages", key, `{"to":["16505551234"],"content":"x","from":"15550000000"}`, 200,
			[]string{`{"messages":[],"error":"Two-Way integration error - FROM number is not related to integration"}`}},
		{"from in the address of nobody", "GET", query("from", "15550000000"), "", "", 200, []string{`{"messages":[],"error":"Two-Way integration error - `}},
		{"from in the address", "GET", query("from", "+15550783881", "clientMessageId", "att_8"), "", "", 202, []string{`"accepted":true`}},
		{"over the limit", "POST", "/messages", key, `{"to":["16505551234","16505551235"],"content":"x"}`, 400, []string{`{"messages":[],"error":"Rate limit"}`}},
	} {
		status, body := w.call(t, tc.method, tc.path, tc.authorization, tc.body)
		if status != tc.status {
			t.Errorf("%s: got %d %s, want %d", tc.name, status, body, tc.status)
		}
		for _, want := range tc.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s: got %s, want %s in it", tc.name, body, want)
			}
		}
	}
	await(t, "three messages on the phone", func() bool { return len(w.phones.got()) == 3 })
	refs := map[string]bool{}
	for _, c := range w.set.Calls() {
		if c.Call != CallLegacyMessages || strings.Contains(c.Path, key) {
			t.Errorf("call log: got %+v", c)
		}
		refs[c.Ref] = true
	}
	if !refs["att_7"] || !refs["att_8"] {
		t.Errorf("references in the call log: got %v", refs)
	}
}

func TestLegacyCallbacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Integrations[0].Callbacks = Legacy })
	id := w.must(t, plainSMS)
	await(t, "both statuses", func() bool { return len(w.hook.all(stPath)) == 2 })
	var updates []legacyUpdate
	for _, body := range w.hook.all(stPath) {
		var u legacyUpdate
		if err := json.Unmarshal([]byte(body), &u); err != nil || strings.Contains(body, "event") {
			t.Fatalf("status callback: got %s, %v", body, err)
		}
		updates = append(updates, u)
	}
	want := legacyUpdate{
		IntegrationName: "Acme", APIKey: key, MessageID: id, RequestID: updates[0].RequestID, ClientMessageID: "att_1", To: "16505551234", From: "15550783881",
		StatusCode: 4, Status: "RECEIVED_BY_RECIPIENT", StatusDescription: "Received by recipient", Timestamp: 1781866800000,
	}
	if updates[0].StatusCode != 3 || updates[0].Status != "DELIVERED_TO_GATEWAY" || updates[0].RequestID == "" || updates[1] != want {
		t.Errorf("statuses: got %+v, want 3 and then %+v", updates, want)
	}

	said := w.say(t, SMS, "não 👍")
	utf16 := UTF16BE
	if err := w.Change("int1", Change{Charset: &utf16}); err != nil {
		t.Fatal(err)
	}
	w.say(t, SMS, "não 👍")
	await(t, "both replies", func() bool { return len(w.hook.all(inPath)) == 2 })
	reply := `{"integrationId":"int1","messageId":"` + said + `","replyMessageId":"` + id + `","apiKey":"` + key + `","fromNumber":"16505551234","toNumber":"15550783881",` +
		`"timestamp":1781866800000,"text":"não 👍","charset":"UTF-8","udh":"","network":"","keyword":""}`
	got := w.hook.all(inPath)
	if got[0] != reply {
		t.Errorf("reply: got\n%s\nwant\n%s", got[0], reply)
	}
	if !strings.Contains(got[1], `"text":"%00n%00%E3%00o%00+%D8%3D%DCM","charset":"UTF-16BE"`) {
		t.Errorf("reply in UTF-16BE: got %s", got[1])
	}

	// WhatsApp had no place in the older callbacks.
	w.must(t, payTemplate)
	await(t, "a status of the One API", func() bool {
		return strings.Contains(strings.Join(w.hook.all(stPath), ""), `"event":{"messageStatusUpdate"`)
	})
	oneAPI := OneAPI
	if err := w.Change("int1", Change{Callbacks: &oneAPI}); err != nil {
		t.Fatal(err)
	}
	w.say(t, SMS, "hi")
	await(t, "a reply of the One API", func() bool { return strings.Contains(strings.Join(w.hook.all(inPath), ""), `"content":"hi"`) })
}

func TestEncodeText(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ text, charset, want, used string }{
		{"hello!", Latin1, "hello%21", Latin1},
		{"dinero, tenía 5%", Latin1, "dinero%2C+ten%EDa+5%25", Latin1},
		{"5 €", Latin1, "%005%00++%AC", UTF16BE},
		{"hi", UTF16BE, "%00h%00i", UTF16BE},
		{"a ì", UTF16BE, "%00a%00+%00%EC", UTF16BE},
		{"‰", UTF16BE, "+0", UTF16BE}, // U+2030: a byte that looks like a space, and one like a digit
		{"👍", UTF16BE, "%D8%3D%DCM", UTF16BE},
		{"a+b %", UTF8, "a+b %", UTF8},
	} {
		if got, used := encodeText(tc.text, tc.charset); got != tc.want || used != tc.used {
			t.Errorf("%q in %s: got %s in %s, want %s in %s", tc.text, tc.charset, got, used, tc.want, tc.used)
		}
	}
}

func TestCallbackRetries(t *testing.T) {
	t.Parallel()
	status := func(code, until int) func(int, http.ResponseWriter, *http.Request) {
		return func(n int, w http.ResponseWriter, _ *http.Request) {
			if n <= until {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(code)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		answer func(int, http.ResponseWriter, *http.Request)
		posts  int
		taken  bool
	}{
		{"204", status(204, 9), 1, true},
		{"500 twice", status(500, 2), 3, true},
		{"404 once", status(404, 1), 2, true},
		{"401 for ever", status(401, 9), 4, false},
		{"a redirect", status(302, 9), 1, false},
		{"another redirect", status(307, 9), 1, false},
		{"cut off once", func(n int, w http.ResponseWriter, _ *http.Request) {
			if n == 1 {
				panic(http.ErrAbortHandler)
			}
		}, 2, true},
		{"slow once", func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				<-r.Context().Done()
			}
		}, 2, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) {
				if strings.HasPrefix(tc.name, "slow") {
					c.CallbackTimeout = 300 * time.Millisecond
				}
			})
			w.hook.answer = tc.answer
			said := w.say(t, SMS, "hi")
			await(t, "all tries", func() bool { return len(w.hook.all(inPath)) >= tc.posts })
			if tc.taken {
				await(t, "the tick", func() bool { return slices.Equal(w.phones.taken(), []string{said}) })
			}
			w.Simulator.Close()
			posts := w.hook.all(inPath)
			if len(posts) != tc.posts || slices.ContainsFunc(posts, func(body string) bool { return body != posts[0] }) {
				t.Errorf("posts: got %d %s, want the same one %d times", len(posts), posts, tc.posts)
			}
			if got := w.phones.taken(); !tc.taken && len(got) > 0 {
				t.Errorf("taken: got %v", got)
			}
			if got := w.hook.all("/elsewhere"); len(got) > 0 {
				t.Errorf("the redirect was followed: %s", got)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.set.Replace([]faults.Rule{
		{Call: CallMessages, Do: faults.Status, Status: 500, Body: `{"oops":true}`, Times: 1},
		{Call: CallMessages, Do: faults.DropAfter, Times: 1},
		{Call: CallWebhookStatus, Do: faults.Reorder, Times: 1},
		{Call: CallWebhookInbound, Do: faults.Duplicate, Times: 1},
		{Call: CallBalance, Do: faults.Status, Status: 503, Body: "no", Times: 1},
		{Call: CallFetch, Do: faults.Status, Status: 502, Body: "no", Times: 1},
		{Call: CallLegacyMessages, Do: faults.Status, Status: 504, Body: "no", Times: 1},
	}); err != nil {
		t.Fatal(err)
	}
	good := `{"messages":[` + plainSMS + `]}`
	if status, body := w.call(t, "POST", "/v1/message", key, good); status != 500 || body != `{"oops":true}` {
		t.Errorf("got %d %s, want 500", status, body)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", w.url+"/v1/message", strings.NewReader(good))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", key)
	if res, err := http.DefaultClient.Do(req); err == nil {
		_ = res.Body.Close()
		t.Errorf("got %d, want a cut connection", res.StatusCode)
	}
	w.awaitStatuses(t, "5 DEVICE_ACK", "4 SENT_TO_SUPPLIER")
	w.say(t, SMS, "hi")
	await(t, "the reply twice", func() bool { return len(w.hook.all(inPath)) == 2 })
	if got := w.hook.all(inPath); got[0] != got[1] {
		t.Error("the second copy differs")
	}
	for path, want := range map[string]int{"/v1/balance": 503, "/v1/message/x": 502} {
		if status, _ := w.call(t, "GET", path, key, ""); status != want {
			t.Errorf("%s: got %d, want %d", path, status, want)
		}
	}
	if status, _ := w.call(t, "POST", "/messages", key, `{"to":["16505551234"],"content":"x"}`); status != 504 {
		t.Errorf("legacy send: got %d, want 504", status)
	}
}

func TestStatusBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if err := w.set.Replace([]faults.Rule{{ID: "h", Call: CallMessages, Do: faults.HoldAfter}}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan string, 1)
	go func() {
		_, body := w.call(t, "POST", "/v1/message", key, `{"messages":[`+plainSMS+`]}`)
		answered <- body
	}()
	w.awaitStatuses(t, "4 SENT_TO_SUPPLIER", "5 DEVICE_ACK")
	select {
	case body := <-answered:
		t.Fatalf("answered already: %s", body)
	default:
	}
	w.set.Release("h")
	if body := <-answered; !strings.Contains(body, w.phones.got()[0].ID) {
		t.Errorf("got %s, want the id of the message on the phone", body)
	}
}

// rules puts fault rules in force.
func (w *world) rules(t *testing.T, rules ...faults.Rule) {
	t.Helper()
	if err := w.set.Replace(rules); err != nil {
		t.Fatal(err)
	}
}

// refused sends one message that has to be refused with this status and code.
func (w *world) refused(t *testing.T, status, code int) {
	t.Helper()
	got, body := w.call(t, "POST", "/v1/message", key, `{"messages":[`+plainSMS+`]}`)
	if got != status || !strings.Contains(body, `"error":{"code":`+strconv.Itoa(code)+`,"description":"`) {
		t.Errorf("got %d %s, want %d with code %d", got, body, status, code)
	}
}

// TestEveryCode: a rule can refuse a send with any row of the errors table, at the
// level where Clickatell refuses it, and with its HTTP status.
func TestEveryCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for code, row := range refusals {
		w.rules(t, faults.Rule{Call: CallMessages, Do: faults.Refuse, Code: &code, Times: 1, Headers: map[string]string{"X-Test": "yes"}})
		w.refused(t, row.status, code)
		w.rules(t, faults.Rule{Call: CallMessages, Do: faults.Refuse, Code: &code})
		status, got := w.send(t, plainSMS+","+plainSMS)
		if want := map[bool]int{true: 207, false: row.status}[row.each]; status != want || (got.Error == nil) != row.each || (len(got.Messages) == 2) != row.each {
			t.Errorf("%d in a batch: got %d %+v, want %d", code, status, got, want)
		}
	}
	unknown := 77
	w.rules(t, faults.Rule{Call: "clickatell.*", Do: faults.Refuse, Code: &unknown, Status: 418})
	w.refused(t, 418, 77)
	for _, path := range []string{"/v1/balance", "/v1/message/x"} {
		if status, body := w.call(t, "GET", path, key, ""); status != 418 || !strings.Contains(body, `"code":77`) {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
	for _, code := range []int{codeOptedOut, 19} {
		w.rules(t, faults.Rule{Call: CallLegacyMessages, Do: faults.Refuse, Code: &code})
		status, body := w.call(t, "POST", "/messages", key, `{"to":["16505551234"],"content":"x"}`)
		if want := map[int]int{codeOptedOut: 202, 19: 503}[code]; status != want || !strings.Contains(body, `"error":"`+refusals[code].text+`"`) {
			t.Errorf("legacy send with %d: got %d %s, want %d", code, status, body, want)
		}
	}
	if got := w.phones.got(); len(got) != 0 {
		t.Errorf("phone: got %+v", got)
	}
}

func TestEveryStatus(t *testing.T) {
	t.Parallel()
	for _, st := range append(failures, status{code: 999, name: "STATUS_999"}) {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.rules(t, faults.Rule{Call: CallMessages, Do: faults.Fail, Code: &st.code})
			w.must(t, plainSMS)
			w.awaitStatuses(t, strconv.Itoa(st.code)+" "+st.name)
		})
	}
	code := 23
	for after, want := range map[string][]string{
		"sent":      {"4 SENT_TO_SUPPLIER", "23 DELIVERY_FAILURE"},
		"delivered": {"4 SENT_TO_SUPPLIER", "5 DEVICE_ACK", "23 DELIVERY_FAILURE"},
	} {
		w := newWorld(t, nil)
		w.rules(t, faults.Rule{Call: CallMessages, Do: faults.Fail, Code: &code, After: after})
		w.must(t, plainSMS)
		w.awaitStatuses(t, want...)
		if got := len(w.phones.got()); got != len(want)-2 {
			t.Errorf("after %s: %d messages on the phone", after, got)
		}
	}
}

func TestLegacyFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Integrations[0].Callbacks = Legacy })
	want := []int{10, 6, 12, 9, 14, 7}
	for i, code := range []int{20, 21, 25, 100, 28, 22} {
		w.rules(t, faults.Rule{Call: CallMessages, Do: faults.Fail, Code: &code})
		w.must(t, plainSMS)
		await(t, "the status", func() bool { return len(w.hook.all(stPath)) == i+1 })
		var got legacyUpdate
		if err := json.Unmarshal([]byte(w.hook.all(stPath)[i]), &got); err != nil || got.StatusCode != want[i] || got.Status == "" || got.StatusDescription == "" {
			t.Errorf("%d: got %+v, %v, want %d", code, got, err, want[i])
		}
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Integrations[0].PerSecond = 2 })
	w.must(t, plainSMS)
	w.must(t, plainSMS)
	w.refused(t, 400, 43)
	w.pass(time.Second)
	if status, got := w.send(t, plainSMS+","+plainSMS); status != 202 {
		t.Errorf("both at once: got %d %+v", status, got)
	}
	w.refused(t, 400, 43)
}

func TestChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, balance := range []float64{0, 0.5} {
		if err := w.Change("int1", Change{Balance: &balance}); err != nil {
			t.Fatal(err)
		}
		if balance == 0 {
			w.refused(t, 402, 20)
		} else {
			w.must(t, plainSMS)
		}
		want := `{"balance":` + strconv.FormatFloat(balance, 'f', -1, 64) + `,"currency":"ZAR"}`
		if _, body := w.call(t, "GET", "/v1/balance", key, ""); body != want {
			t.Errorf("balance: got %s, want %s", body, want)
		}
	}
	word, low := "morse", -1.0
	for field, bad := range map[string]Change{"balance": {Balance: &low}, "callbacks": {Callbacks: &word}, "charset": {Charset: &word}} {
		if err, ok := w.Change("int1", bad).(*faults.InputError); !ok || err.Status != 400 || err.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if err, ok := w.Change("int9", Change{}).(*faults.InputError); !ok || err.Status != 404 {
		t.Errorf("unknown integration: got %v", err)
	}
	status, body := w.call(t, "POST", "/integrations/int1", "", `{"callbacks":"legacy"}`)
	w.Simulator.mu.Lock()
	callbacks := w.account("int1").callbacks
	w.Simulator.mu.Unlock()
	if status != 204 || callbacks != Legacy {
		t.Errorf("over HTTP: got %d %s, callbacks are %s", status, body, callbacks)
	}
}

func TestRepliesOfAnyKind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) {
		c.Integrations[0].Callbacks = Legacy
		c.Integrations[0].HandlesStop = true
	})
	reply := func(body string) (int, string) { return w.call(t, "POST", "/replies", "", body) }
	status, answer := reply(`{"from":"16505551234","members":{"contentType":"image/png","content":"aGk=","caption":"paid"}}`)
	var got struct{ ID string }
	if err := json.Unmarshal([]byte(answer), &got); err != nil || status != 200 || got.ID == "" {
		t.Fatalf("a picture: got %d %s", status, answer)
	}
	await(t, "the picture", func() bool { return len(w.hook.all(inPath)) == 1 })
	want := `{"integrationId":"int1","integrationName":"Acme","event":{"moMedia":[{"caption":"paid","channel":"whatsapp","content":"aGk=","contentType":"image/png",` +
		`"from":"16505551234","messageId":"` + got.ID + `","relatedClientMessageId":null,"relatedMessageId":null,"timestamp":1781866800000,"to":"15550783881",` +
		`"whatsapp":{"profileName":"Ana"}}]}}`
	if body := w.hook.all(inPath)[0]; body != want {
		t.Errorf("a picture: got\n%s\nwant\n%s", body, want)
	}
	w.must(t, plainWhatsApp) // it opened the window
	await(t, "the answer on the phone", func() bool { return len(w.phones.got()) == 1 })

	if status, answer = reply(`{"channel":"sms","from":"+16505551234","to":"15550783881","event":"moLocation","members":{"location":{"latitude":-33.9}}}`); status != 200 {
		t.Fatalf("a place: got %d %s", status, answer)
	}
	await(t, "the place", func() bool { return len(w.hook.all(inPath)) == 2 })
	if body := w.hook.all(inPath)[1]; !strings.Contains(body, `"moLocation":[{"channel":"sms","from":"16505551234","location":{"latitude":-33.9},`) {
		t.Errorf("a place: got %s", body)
	}
	for field, body := range map[string]string{
		"from": `{"from":"Ana"}`, "channel": `{"from":"16505551234","channel":"fax"}`, "event": `{"from":"16505551234","event":"a b"}`,
		"to": `{"from":"16505551234","channel":"sms"}`, "members": `{"from":"16505551234","members":[]}`,
	} {
		if status, answer := reply(body); status != 400 || !strings.Contains(answer, `"field":"`+field+`"`) {
			t.Errorf("%s: got %d %s, want 400 naming %s", body, status, answer, field)
		}
	}
	if status, answer := reply(`{"from":"16505551234","to":"15550000000"}`); status != 404 {
		t.Errorf("to nobody: got %d %s, want 404", status, answer)
	}
}

func TestInject(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	media := `{"integrationId":"int1","event":{"moMedia":[{"channel":"whatsapp","files":[]}],"new":1}}`
	w.hook.answer = func(_ int, rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/in/0b9c7d" {
			rw.WriteHeader(503)
		}
	}
	for _, tc := range []struct {
		toStatus bool
		path     string
		want     int
	}{{false, inPath, 200}, {true, stPath, 503}} {
		if got, err := w.Inject(t.Context(), "int1", tc.toStatus, []byte(media)); err != nil || got != tc.want {
			t.Errorf("to %s: got %d, %v, want %d", tc.path, got, err, tc.want)
		}
		if got := w.hook.all(tc.path); !slices.Equal(got, []string{media}) {
			t.Errorf("to %s: got %s, want the bytes once", tc.path, got)
		}
	}
	if _, err := w.Inject(t.Context(), "int1", false, []byte("{")); err != ErrNotJSON {
		t.Errorf("no JSON: got %v", err)
	}
	for _, id := range []string{"int2", "int9"} {
		if _, err := w.Inject(t.Context(), id, false, []byte(media)); err != ErrNoSuchCallback {
			t.Errorf("%s: got %v", id, err)
		}
	}
}

func TestParts(t *testing.T) {
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
		if got := parts(tc.text); got != tc.want {
			t.Errorf("%.12q… of %d bytes: got %d, want %d", tc.text, len(tc.text), got, tc.want)
		}
	}
}

func TestMessagesAreForgottenInTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.keep = 10
	for range w.keep + 1 {
		w.store([]*message{{Delivery: Delivery{ID: NewID()}}})
	}
	w.store([]*message{{Delivery: Delivery{ID: "last"}}})
	if len(w.order) > w.keep || len(w.messages) != len(w.order) || w.messages["last"] == nil {
		t.Errorf("kept %d in order and %d by id, the last one %t", len(w.order), len(w.messages), w.messages["last"] != nil)
	}
}

func TestNewReportsEverythingWrong(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Integrations: []Integration{
		{APIKey: "a"}, {ID: "1"}, {ID: "2", APIKey: "b", StatusURL: "ftp://x"}, {ID: "3", APIKey: "c", Callbacks: "new"}, {ID: "4", APIKey: "d", Charset: "UTF-7"},
		{ID: "5", APIKey: "a"},
		{ID: "6", APIKey: "e", Numbers: []Number{{E164: "1"}, {E164: business}, {E164: business}, {E164: business, Channel: "fax"}}, Templates: []Template{{Name: "x"}}},
	}}, faults.New(), &phones{})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		"integration 0: ID", "integration 1: APIKey", "integration 2: InboundURL", "integration 3: Callbacks", "integration 4: Charset", "integration 5: APIKey",
		"number 0: E164", "number 2: the number is used twice", "number 3: Channel", "template 0",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	empty, err := New(Config{}, faults.New(), &phones{})
	if err != nil || len(empty.Numbers()) != 0 {
		t.Fatalf("zero value: got %v, %v", empty, err)
	}
	empty.Close()
}
