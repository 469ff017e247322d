package twilio_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/twilio"
)

// farEnd stands in for Twilio: it writes down what it is asked and answers by
// method and address, without the account's part of it.
type farEnd struct {
	t       *testing.T
	answers map[string]string // "GET /Messages.json?To=...": status and JSON

	mu    sync.Mutex
	asked []string
}

const accountPath = "/2010-04-01/Accounts/" + accountSID

func (f *farEnd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Errorf("reading the request: %v", err)
	}
	call := r.Method + " " + strings.TrimPrefix(r.URL.RequestURI(), accountPath)
	user, _, _ := r.BasicAuth()
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(call+" "+string(body))+" as "+user[:min(2, len(user))])
	f.mu.Unlock()
	answer, ok := f.answers[call]
	if !ok {
		answer = `404 {"code":20404,"message":"not found","status":404}`
	}
	var status int
	if _, err := fmt.Sscan(answer, &status); err != nil {
		f.t.Errorf("the answer to %s: %v", call, err)
		status = 500
	}
	_, text, _ := strings.Cut(answer, " ")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the client may be gone
}

// serve starts it and makes an adapter that talks to it.
func (f *farEnd) serve(channel conversations.Channel, change map[string]string) *twilio.Provider {
	f.t.Helper()
	server := httptest.NewServer(f)
	f.t.Cleanup(server.Close)
	values := with(change)
	values["base_url"] = server.URL
	p, err := twilio.New(providers.Settings{SenderID: "sender_1", Channel: channel, WebhookURL: webhookURL, Values: values}, server.Client(), slog.New(slog.DiscardHandler))
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// row is a Message resource in a list, with what differs from the usual.
func row(change map[string]any) string {
	r := map[string]any{
		"sid": "SM0a", "status": "sent", "direction": "outbound-api", "from": "+15550783881", "to": "+16505551234", "messaging_service_sid": nil,
		"body": "Pay: https://pay.acme.example/p/7Qk2mZ", "date_created": "Sun, 22 Nov 2026 10:00:01 +0000", "date_sent": nil,
		"num_segments": "1", "price": nil, "price_unit": "USD", "error_code": nil,
	}
	for k, v := range change {
		r[k] = v
	}
	data, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain data can be marshalled
	}
	return string(data)
}

func page(next string, rows ...string) string {
	quoted := "null"
	if next != "" {
		quoted = `"` + next + `"`
	}
	return `200 {"messages":[` + strings.Join(rows, ",") + `],"next_page_uri":` + quoted + `}`
}

func TestAsk(t *testing.T) {
	t.Parallel()
	doubt := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	const (
		since   = "GET /Messages.json?DateSent%3E=2026-11-22&PageSize=20&To=%2B16505551234"
		newest  = "GET /Messages.json?PageSize=20&To=%2B16505551234"
		second  = "GET /Messages.json?Page=1&PageToken=x"
		waSince = "GET /Messages.json?DateSent%3E=2026-11-22&PageSize=20&To=whatsapp%3A%2B16505551234"
		waNew   = "GET /Messages.json?PageSize=20&To=whatsapp%3A%2B16505551234"
	)
	sms := conversations.Outbound{
		Channel: conversations.SMS, To: conversations.Address{Kind: conversations.AddressPhone, Value: "+16505551234"}, Doubt: &doubt,
		Purpose: conversations.PurposePayment, Text: "Pay: https://pay.acme.example/p/7Qk2mZ",
		Parameters: conversations.Parameters{Merchant: "Acme", Amount: "ZAR 149.00", Order: "1042", LinkCode: "7Qk2mZ", Link: "https://pay.acme.example/p/7Qk2mZ"},
	}
	free := sms
	free.Channel, free.Text = conversations.WhatsApp, "Acme asks you to pay."
	template := free
	template.Template = true
	reply := sms
	reply.Purpose, reply.Text, reply.Parameters = conversations.PurposeReply, "hello", conversations.Parameters{}
	nobody := sms
	nobody.To.Value = "12345"
	undated := sms
	undated.Doubt = nil
	wa := map[string]any{"from": "whatsapp:+15550783881", "to": "whatsapp:+16505551234"}
	whats := func(change map[string]any) string {
		all := map[string]any{}
		for _, m := range []map[string]any{wa, change} {
			for k, v := range m {
				all[k] = v
			}
		}
		return row(all)
	}
	nothing := map[string]string{since: page(""), newest: page("")}
	both := func(rows ...string) map[string]string {
		return map[string]string{since: page("", rows...), newest: page("", rows...), waSince: page("", rows...), waNew: page("", rows...)}
	}

	for _, c := range []struct {
		name    string
		o       conversations.Outbound
		set     map[string]string
		answers map[string]string
		found   bool
		unknown bool
		calls   int
		status  conversations.DeliveryStatus // accepted when empty
	}{
		{name: "found", o: sms, answers: both(row(nil)), found: true, calls: 1, status: conversations.DeliverySent},
		{name: "found delivered", o: sms, answers: both(row(map[string]any{"status": "delivered"})), found: true, calls: 1, status: conversations.DeliveryDelivered},
		{name: "found failed: its callback says why", o: sms, answers: both(row(map[string]any{"status": "failed", "error_code": 30003})), found: true, calls: 1},
		{name: "found with a new status", o: sms, answers: both(row(map[string]any{"status": "teleported"})), found: true, calls: 1},
		{name: "found among others", o: sms, answers: both(row(map[string]any{"sid": "SM01", "body": "hello"}), row(nil)), found: true, calls: 1, status: conversations.DeliverySent},
		{name: "found on the second page", o: sms, answers: map[string]string{since: page("/2010-04-01/Accounts/x/Messages.json?Page=1&PageToken=x", row(map[string]any{"body": "hello"})), second: page("", row(nil))}, found: true, calls: 2, status: conversations.DeliverySent},
		{name: "found only while it waits to be sent", o: sms, answers: map[string]string{since: page(""), newest: page("", row(map[string]any{"status": "queued"}))}, found: true, calls: 2},
		{name: "found by the service", o: sms, set: map[string]string{"from": "", "messaging_service_sid": "MG00000000000000000000000000000004"}, answers: both(row(map[string]any{"from": nil, "messaging_service_sid": "MG00000000000000000000000000000004", "status": "accepted"})), found: true, calls: 1},
		{name: "found by its link, whatever became of the words", o: sms, answers: both(row(map[string]any{"body": "PAY https://pay.acme.example/p/7Qk2mZ"})), found: true, calls: 1, status: conversations.DeliverySent},
		{name: "a reply is known by its words", o: reply, answers: both(row(map[string]any{"body": "hello "})), found: true, calls: 1, status: conversations.DeliverySent},
		{name: "our clock runs ahead", o: sms, answers: both(row(map[string]any{"date_created": "Sun, 22 Nov 2026 09:59:10 +0000"})), found: true, calls: 1, status: conversations.DeliverySent},

		{name: "not found", o: sms, answers: nothing, calls: 2},
		{name: "another text", o: reply, answers: both(row(nil)), calls: 2},
		{name: "an earlier one", o: sms, answers: both(row(map[string]any{"date_created": "Sun, 22 Nov 2026 09:50:00 +0000"})), calls: 2},
		{name: "another number's", o: sms, answers: both(row(map[string]any{"from": "+15550783882"})), calls: 2},
		{name: "one that came in", o: sms, answers: both(row(map[string]any{"direction": "inbound"})), calls: 2},
		{name: "many old ones", o: sms, answers: map[string]string{since: page(""), newest: page("/x?Page=1&PageToken=x", row(map[string]any{"date_created": "Sun, 22 Nov 2026 09:50:00 +0000"}))}, calls: 2},

		{name: "WhatsApp, free text with its link", o: free, answers: both(whats(map[string]any{"body": "Acme asks you to pay.\nhttps://pay.acme.example/p/7Qk2mZ"})), found: true, calls: 1, status: conversations.DeliverySent},
		{name: "WhatsApp, by SMS alone", o: free, answers: both(row(nil)), calls: 2},
		{name: "a template is known by the order", o: template, answers: both(whats(map[string]any{"body": "Acme asks you to pay ZAR 149.00 for order 1042."})), found: true, calls: 1, status: conversations.DeliverySent},
		{name: "a template without the order", o: template, answers: both(whats(map[string]any{"body": "Something else."})), unknown: true, calls: 2},
		{name: "no template", o: template, answers: both(), calls: 2},

		{name: "a text that is not shown", o: sms, answers: both(row(map[string]any{"body": ""})), unknown: true, calls: 2},
		{name: "a time that cannot be read", o: sms, answers: both(row(map[string]any{"date_created": "yesterday"})), unknown: true, calls: 2},
		{name: "credentials refused", o: sms, answers: map[string]string{since: `401 {"code":20003,"message":"+16505551234","status":401}`}, unknown: true, calls: 1},
		{name: "fault", o: sms, answers: map[string]string{since: `503 <html>`}, unknown: true, calls: 1},
		{name: "fault at the second list", o: sms, answers: map[string]string{since: page(""), newest: `500 {}`}, unknown: true, calls: 2},
		{name: "no list", o: sms, answers: map[string]string{since: `200 {}`}, unknown: true, calls: 1},
		{name: "no JSON", o: sms, answers: map[string]string{since: `200 <html>`}, unknown: true, calls: 1},
		{name: "a list of something else", o: sms, answers: map[string]string{since: `200 {"messages":[1]}`}, unknown: true, calls: 1},
		{name: "too large", o: sms, answers: map[string]string{since: page("", row(map[string]any{"body": strings.Repeat("x", providers.MaxAnswer)}))}, unknown: true, calls: 1},
		{name: "no end", o: sms, answers: map[string]string{since: page("/x?Page=1&PageToken=x"), second: page("/x?Page=1&PageToken=x")}, unknown: true, calls: 5},
		{name: "a next page without a query", o: sms, answers: map[string]string{since: page("https://elsewhere.example/")}, unknown: true, calls: 1},
		{name: "no address", o: nobody, unknown: true},
		{name: "no time", o: undated, unknown: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			far := &farEnd{t: t, answers: c.answers}
			sent, found, err := far.serve(c.o.Channel, c.set).Ask(t.Context(), c.o)
			if found != c.found || (err != nil) != c.unknown {
				t.Fatalf("got %+v, found=%t, %v; want found=%t, unknown=%t (asked %q)", sent, found, err, c.found, c.unknown, far.asked)
			}
			if err != nil && (strings.Contains(err.Error(), "6505551234") || strings.Contains(err.Error(), "token")) {
				t.Errorf("the error says too much: %v", err)
			}
			want := conversations.Sent{}
			if c.found {
				want.ProviderID, want.Status = "SM0a", c.status
				if c.status == "" {
					want.Status = conversations.DeliveryAccepted
				}
			}
			if sent.ProviderID != want.ProviderID || sent.Status != want.Status {
				t.Errorf("got %+v, want %+v", sent, want)
			}
			if len(far.asked) != c.calls {
				t.Errorf("asked %q, want %d calls", far.asked, c.calls)
			}
		})
	}

	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, found, err := (&farEnd{t: t}).serve(conversations.SMS, nil).Ask(ctx, sms); found || err == nil || strings.Contains(err.Error(), "send:") {
			t.Errorf("got found=%t and %v, want an error about asking", found, err)
		}
	})
}

func TestMarkRead(t *testing.T) {
	t.Parallel()
	const (
		id   = "SM00000000000000000000000000000002"
		path = "POST /v3/Indicators/Typing.json"
		call = path + ` {"channel":"WHATSAPP","messageId":"` + id + `"} as AC`
	)
	for _, c := range []struct {
		name    string
		channel conversations.Channel
		id      string
		typing  bool
		answer  string
		asked   []string
		fails   bool
	}{
		{"typing", conversations.WhatsApp, id, true, `200 {"success":true}`, []string{call}, false},
		{"read alone cannot be said", conversations.WhatsApp, id, false, `200 {"success":true}`, nil, false},
		{"SMS has none", conversations.SMS, id, true, `200 {"success":true}`, nil, false},
		{"not an id", conversations.WhatsApp, "wamid.x", true, `200 {"success":true}`, nil, true},
		{"no success", conversations.WhatsApp, id, true, `200 {"success":false}`, []string{call}, true},
		{"refused", conversations.WhatsApp, id, true, `400 {"type":"https://www.twilio.com/docs/errors/63000","title":"no","status":400,"code":63000}`, []string{call}, true},
		{"not readable", conversations.WhatsApp, id, true, `200 ok`, []string{call}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			far := &farEnd{t: t, answers: map[string]string{path: c.answer}}
			err := far.serve(c.channel, nil).MarkRead(t.Context(), c.id, c.typing)
			if (err != nil) != c.fails || !slices.Equal(far.asked, c.asked) {
				t.Errorf("got %v, asked %q; want fails=%t and %q", err, far.asked, c.fails, c.asked)
			}
		})
	}
}

// recorder is a far end that is asked nothing but remembers where a call would
// have gone.
type recorder struct{ hosts []string }

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.hosts = append(r.hosts, req.URL.Host)
	return nil, io.ErrUnexpectedEOF
}

// TestAddresses holds where each kind of call goes: to Twilio's hosts beside
// base_url, and to base_url itself where that is something else.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		set  map[string]string
		want []string
	}{
		{map[string]string{}, []string{"api.twilio.com", "messaging.twilio.com"}},
		{map[string]string{"base_url": "https://api.dublin.ie1.twilio.com/"}, []string{"api.dublin.ie1.twilio.com", "messaging.dublin.ie1.twilio.com"}},
		{map[string]string{"base_url": "http://localhost:8090/twilio"}, []string{"localhost:8090", "localhost:8090"}},
		{map[string]string{"base_url": "https://api.twilio.com.example"}, []string{"api.twilio.com.example", "api.twilio.com.example"}},
		{map[string]string{"messaging_url": "https://m.example"}, []string{"api.twilio.com", "m.example"}},
	} {
		far := &recorder{}
		p, err := twilio.New(providers.Settings{SenderID: "s", Channel: conversations.WhatsApp, WebhookURL: webhookURL, Values: with(c.set)}, &http.Client{Transport: far}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Send(t.Context(), conversations.Outbound{To: conversations.Address{Kind: conversations.AddressPhone, Value: "+16505551234"}, Text: "hello"}); err == nil {
			t.Error("a send without an answer succeeds")
		}
		if err := p.MarkRead(t.Context(), "SM00000000000000000000000000000002", true); err == nil || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte(accountSID))) {
			t.Errorf("typing without an answer: %v", err)
		}
		if !slices.Equal(far.hosts, c.want) {
			t.Errorf("%v: calls go to %v, want %v", c.set, far.hosts, c.want)
		}
	}
}
