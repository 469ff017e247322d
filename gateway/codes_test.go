package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/conversations/redistest"
	"paythread/gateway/providers"
	"paythread/simulator/twilio"
)

// codesPage is the part of docs/providers/errors.md that is written by hand.
const codesPage = `<!-- Printed by go test ./gateway -run '^TestGeneratedCodes$' -update. Do not edit. -->
# What follows from each code

Each row was played: a payment message met this code, in the answer to the send or in a later status, and the table says what
became of it. The merchant of the table has senders for both channels, and lets SMS take over (` + "`fallback.on_failure`" + `). Codes that
are not here count as ` + "`unknown`" + `.

- **again**: the same message is sent again by itself, after a growing wait.
- **later**: it had been taken, so it is sent again as a new message, after ` + "`timings.resend_after`" + `, doubling.
- **SMS**: it goes by SMS, with the same link. **stops**: nothing more is sent, and the agent sees why.
- On WhatsApp the message was a template. Free text that is refused outside the 24-hour window is sent again as a template first.
- **awaited**: nobody knows whether it was sent. Its status is awaited, where the company can be asked it is asked, and only then
  it is sent again.
- **sender waits**, **sender fails**: so do the other messages of the sender, in every process, for that time.
`

// codesBench plays one code at a time.
type codesBench struct {
	t     *testing.T
	store *conversations.Store
	cases atomic.Int64
	lines map[string]string // by provider, code, channel and place
}

// TestGeneratedCodes plays every code of every provider on each of its
// channels, and keeps docs/providers/errors.md what came of them.
func TestGeneratedCodes(t *testing.T) {
	t.Parallel()
	b := &codesBench{t: t, lines: map[string]string{}}
	var err error
	b.store, err = conversations.Connect(t.Context(), conversations.Options{
		Addresses: []string{redistest.Shared(t).Addr}, Prefix: fmt.Sprintf("codes%d", time.Now().UnixNano()), Partitions: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.store.Close() })
	var page bytes.Buffer
	page.WriteString(codesPage)
	for _, r := range providerRegistrations {
		if r.Codes == nil {
			t.Fatalf("%s lists no codes", r.Name)
		}
		fmt.Fprintf(&page, "\n## %s\n\n| code | meaning | reason |", strings.ToUpper(r.Name[:1])+r.Name[1:])
		for _, c := range r.Channels {
			fmt.Fprintf(&page, " %s, in the answer | %s, in a status |", c, c)
		}
		page.WriteString("\n| --- | --- | --- |" + strings.Repeat(" --- | --- |", len(r.Channels)) + "\n")
		seen := map[string]bool{}
		for _, code := range r.Codes() {
			key := fmt.Sprint(code.Code, code.Answered)
			if seen[key] || code.Refusal.Reason == "" || conversations.FailureReasons[code.Refusal.Reason] == "" {
				t.Errorf("%s %s stands twice, or its reason %q has no sentence for the agent", r.Name, code.Code, code.Refusal.Reason)
			}
			seen[key] = true
			fmt.Fprintf(&page, "| %s | %s | %s |", code.Code, cmp.Or(code.Refusal.Meaning, "-"), code.Refusal.Reason)
			for _, channel := range r.Channels {
				for _, reported := range []bool{false, true} {
					outcome := "-"
					if (reported && code.Reported || !reported && code.Answered) && !(olderAPI(r.Name, code.Code) && channel == conversations.WhatsApp) {
						outcome = b.play(r, channel, code, reported)
					}
					fmt.Fprintf(&page, " %s |", outcome)
				}
			}
			page.WriteString("\n")
		}
	}
	page.WriteString("\n## What the agent reads\n\n| reason | sentence |\n| --- | --- |\n")
	for _, reason := range slices.Sorted(maps.Keys(conversations.FailureReasons)) {
		fmt.Fprintf(&page, "| %s | %s |\n", reason, conversations.FailureReasons[reason])
	}
	golden(t, filepath.Join("..", "docs", "providers", "errors.md"), page.Bytes())
}

// olderAPI tells the statuses of Clickatell's older API, which had SMS only.
func olderAPI(provider, code string) bool {
	return provider == "clickatell" && len(code) == 3 && code[0] == '0'
}

// codesCase is a merchant of its own with both senders, one of them at the
// provider that is played.
type codesCase struct {
	*codesBench
	merchant string
	channel  conversations.Channel
	live     *liveSender
	d        *dispatcher
	answer   http.HandlerFunc
}

// play lets one message meet a code and returns what became of it.
func (b *codesBench) play(r providers.Registration, channel conversations.Channel, row providers.Code, reported bool) string {
	b.t.Helper()
	code := row.Code
	c := b.setUp(r, channel)
	c.answer = codeAnswers[r.Name].accept
	if !reported {
		c.answer = func(w http.ResponseWriter, q *http.Request) { codeAnswers[r.Name].refuse(w, q, code) }
	}
	ctx := b.t.Context()
	p, err := b.store.Create(ctx, conversations.CreateRequest{MerchantID: c.merchant, Order: codesOrder, Phone: "0821234567", Channel: channel})
	if err != nil {
		b.t.Fatal(err)
	}
	entry := conversations.OutboxEntry{Kind: conversations.OutboxMessage, ContactID: p.ContactID, MerchantID: c.merchant, RequestID: p.ID, MessageID: p.Messages[0], SenderID: c.live.ID}
	if err := c.d.Work(ctx, entry, conversations.Delivery{EntryID: "1-1", Times: 1}); err != nil {
		b.t.Fatalf("%s %s: %v", r.Name, code, err)
	}
	if reported {
		c.report(r.Name, p, code)
	}
	return c.outcome(p, row)
}

var codesOrder = conversations.Order{
	Reference: "1042", Subtotal: conversations.Money{Minor: 14900, Currency: "ZAR"}, Tax: conversations.Money{Currency: "ZAR"},
	Shipping: conversations.Money{Currency: "ZAR"}, Discount: conversations.Money{Currency: "ZAR"}, Total: conversations.Money{Minor: 14900, Currency: "ZAR"},
}

// setUp makes the merchant, its adapter and a dispatcher.
func (b *codesBench) setUp(r providers.Registration, channel conversations.Channel) *codesCase {
	b.t.Helper()
	n := b.cases.Add(1)
	c := &codesCase{codesBench: b, merchant: fmt.Sprint("m", n), channel: channel}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { c.answer(w, q) }))
	b.t.Cleanup(server.Close)
	m := &MerchantConfig{
		ID: c.merchant, Name: "Acme Energy", PublicURL: "https://pay.example", Sandbox: true, Country: "ZA", Locale: "en",
		TimeToOpen: time.Hour, TimeToPay: time.Hour, MaxAttempts: 3, Fallback: conversations.Fallback{OnFailure: true},
	}
	for _, each := range conversations.Channels {
		m.Senders = append(m.Senders, &SenderConfig{ID: c.merchant + "-" + string(each), Provider: r.Name, Channel: each, Merchant: m})
	}
	sender := m.Senders[slices.Index(conversations.Channels, channel)]
	sender.Settings = codeSettings(r.Name, channel, server.URL)
	b.store.SetMerchants([]conversations.Merchant{m.Domain()})
	adapter, err := newProvider(sender, b.store.Now, http.DefaultClient, slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	c.live = &liveSender{SenderConfig: sender, provider: adapter}
	c.d = newTestDispatcher(b.store, map[string]*liveSender{sender.ID: c.live},
		DispatcherConfig{Workers: 1, SendTimeout: 10 * time.Second, RetryAfter: 2 * time.Second, MaxTries: 8, SenderConcurrency: 1, BreakerFailures: 5, BreakerOpen: time.Second},
		slog.New(slog.DiscardHandler))
	return c
}

func codeSettings(provider string, channel conversations.Channel, base string) Settings {
	s := Settings{"base_url": base}
	switch provider {
	case "meta":
		maps.Copy(s, Settings{
			"api_version": "v25.0", "phone_number_id": "100", "access_token": "token-of-tests", "app_secret": codesSecret, "verify_token": "v", "template_language": "en",
			"template_payment": "payment_request", "template_receipt": "payment_receipt", "template_cancelled": "payment_cancelled",
		})
	case "twilio":
		maps.Copy(s, Settings{"account_sid": demoTwilio.SID, "auth_token": codesSecret, "from": "+27600000002", "content_language": "en", "content_payment": "HX00000000000000000000000000000001"})
	case "clickatell":
		maps.Copy(s, Settings{"api_key": "key-of-tests", "webhook_secret": codesSecret, "template_payment": "payment_request"})
	}
	if provider != "meta" && channel == conversations.SMS {
		delete(s, "content_payment")
		delete(s, "template_payment")
	}
	return s
}

const codesSecret = "secret-of-tests-0123456789abcdefghijklmnop"

// codeAnswers are how each company takes and refuses a send.
var codeAnswers = map[string]struct {
	accept http.HandlerFunc
	refuse func(w http.ResponseWriter, r *http.Request, code string)
}{
	"meta": {
		func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"messaging_product":"whatsapp","messages":[{"id":"wamid.1"}]}`)
		},
		func(w http.ResponseWriter, _ *http.Request, code string) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"error":{"message":"(#%s)","type":"OAuthException","code":%s}}`, code, code)
		},
	},
	"twilio": {
		func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"sid":"SM00000000000000000000000000000001","status":"queued"}`)
		},
		func(w http.ResponseWriter, r *http.Request, code string) {
			if r.Method == http.MethodGet { // it is asked whether it has the message
				_, _ = io.WriteString(w, `{"messages":[]}`)
				return
			}
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"code":%s,"message":"","status":400}`, code)
		},
	},
	"clickatell": {
		func(w http.ResponseWriter, r *http.Request) { clickatellAnswers(w, r, http.StatusAccepted, "null") },
		func(w http.ResponseWriter, r *http.Request, code string) {
			clickatellAnswers(w, r, http.StatusBadRequest, `{"code":`+code+`,"description":""}`)
		},
	},
}

func clickatellAnswers(w http.ResponseWriter, r *http.Request, status int, failure string) {
	var sent struct {
		Messages []struct{ To, ClientMessageID string }
	}
	if json.NewDecoder(r.Body).Decode(&sent) != nil || len(sent.Messages) != 1 {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	m := sent.Messages[0]
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"messages":[{"apiMessageId":"0f1e","accepted":%t,"to":%q,"clientMessageId":%q,"error":%s}],"error":null}`,
		status == http.StatusAccepted, m.To, m.ClientMessageID, failure)
}

// report lets the company say in a webhook that the message has failed.
func (c *codesCase) report(provider string, p *conversations.PaymentRequest, code string) {
	c.t.Helper()
	correlation := p.ContactID + "." + p.Messages[0]
	hook := providers.Webhook{Method: http.MethodPost, URL: c.live.WebhookURL(), Header: http.Header{}, Query: url.Values{}, ReceivedAt: c.store.Now()}
	switch provider {
	case "meta":
		hook.Body = fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"100"},
			"statuses":[{"id":"wamid.1","status":"failed","timestamp":"%d","recipient_id":"27821234567","biz_opaque_callback_data":%q,"errors":[{"code":%s}]}]}}]}]}`,
			time.Now().Unix(), correlation, code)
		mac := hmac.New(sha256.New, []byte(codesSecret))
		mac.Write(hook.Body)
		hook.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	case "twilio":
		form := url.Values{
			"AccountSid": {demoTwilio.SID}, "MessageSid": {"SM00000000000000000000000000000001"}, "MessageStatus": {"undelivered"}, "ErrorCode": {code},
			"From": {"+27600000002"}, "To": {"+27821234567"},
		}
		if c.channel == conversations.WhatsApp {
			form.Set("From", "whatsapp:+27600000002")
			form.Set("To", "whatsapp:+27821234567")
		}
		hook.Body = []byte(form.Encode())
		hook.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		hook.Header.Set("X-Twilio-Signature", twilio.Sign(codesSecret, hook.URL, form))
	case "clickatell":
		hook.URL += "/" + codesSecret
		hook.Header.Set("Content-Type", "application/json")
		status := `"status":"` + strings.ToUpper(code) + `"`
		if _, err := strconv.Atoi(code); err == nil {
			status = `"statusCode":` + strings.TrimLeft(code, "0")
		}
		hook.Body = fmt.Appendf(nil, `{"integrationId":"i","event":{"messageStatusUpdate":[{"channel":%q,"messageId":"0f1e","clientMessageId":%q,"timestamp":%d,%s}]}}`,
			c.channel, correlation, time.Now().UnixMilli(), status)
		if olderAPI(provider, code) {
			hook.Body = fmt.Appendf(nil, `{"integrationName":"i","messageId":"0f1e","clientMessageId":%q,"to":"27821234567","timestamp":%d,"statusCode":%q}`,
				correlation, time.Now().UnixMilli(), code)
		}
	}
	if err := c.live.provider.Verify(hook); err != nil {
		c.t.Fatalf("%s %s: %v", provider, code, err)
	}
	reports, err := c.live.provider.Parse(hook)
	if err != nil || len(reports) != 1 || reports[0].Kind != conversations.InboundStatus || reports[0].Status != conversations.DeliveryFailed {
		c.t.Fatalf("%s %s: %d reports, %v", provider, code, len(reports), err)
	}
	if err := c.store.Receive(context.Background(), c.merchant, reports[0]); err != nil {
		c.t.Fatalf("%s %s: %v", provider, code, err)
	}
}

// outcome says what became of the message and of the sender, in the words of
// the page.
func (c *codesCase) outcome(p *conversations.PaymentRequest, row providers.Code) string {
	c.t.Helper()
	code, reason := row.Code, row.Refusal.Reason
	ctx := c.t.Context()
	r, err := c.store.Request(ctx, p.ID)
	if err != nil {
		c.t.Fatal(err)
	}
	found, err := c.store.Messages(ctx, p.ContactID, r.Messages)
	if err != nil {
		c.t.Fatal(err)
	}
	contact, err := c.store.Contact(ctx, p.ContactID)
	if err != nil {
		c.t.Fatal(err)
	}
	m, words := found[0], []string{}
	switch {
	case m.Status == conversations.DeliverySending && m.EchoBy != nil:
		words = append(words, "awaited")
	case m.Status == conversations.DeliveryQueued && m.DueAt != nil:
		tries, f := 1, row.Refusal.Failure(code, 0, nil)
		for ; tries < 100; tries++ {
			if _, more := c.d.retry.wait(f, tries); !more {
				break
			}
		}
		words = append(words, fmt.Sprintf("again (%d in all), then %s", tries, stepWord(conversations.StepAfter(reason, c.channel, false, m.Template, 0))))
	case m.Status != conversations.DeliveryFailed:
		c.t.Errorf("%s: the message is %s", code, m.Status)
	case len(found) > 1 && found[1].Follows == m.ID:
		if found[1].Parameters.Link != m.Parameters.Link {
			c.t.Errorf("%s: another link goes out", code)
		}
		words = append(words, map[bool]string{true: "template", false: "SMS"}[found[1].Channel == conversations.WhatsApp && found[1].Template])
	case m.FollowUpAt != nil:
		n := 1
		for conversations.StepAfter(reason, c.channel, true, m.Template, n) == conversations.StepResend {
			n++
		}
		words = append(words, fmt.Sprintf("later (%d in all), then %s", n+1, stepWord(conversations.StepAfter(reason, c.channel, true, m.Template, n))))
	default:
		words = append(words, "stops")
	}
	if contact.Consent[c.channel] == conversations.ConsentOptedOut {
		words = append(words, "opted out")
	}
	if contact.IdentityChangedAt != nil {
		words = append(words, "who it is must be verified")
	}
	state, err := c.store.SenderState(ctx, c.live.ID)
	if err != nil {
		c.t.Fatal(err)
	}
	if h := state.Hold; h != nil {
		want := row.Refusal.Wait // of which a part has passed, and to which a spread was added
		if h.Fail {
			want = max(want, providers.FailFor)
		}
		if left := h.Until.Sub(c.store.Now()); left < 0 || left > 2*want+10*time.Second {
			c.t.Errorf("%s: the sender is held for %v, want about %v", code, left, want)
		}
		words = append(words, map[bool]string{true: "sender fails ", false: "sender waits "}[h.Fail]+formatDuration(want))
	}
	return strings.Join(words, ", ")
}

// stepWord is the page's word for what comes last.
func stepWord(s conversations.NextStep) string {
	return map[conversations.NextStep]string{conversations.StepSMS: "SMS", conversations.StepStop: "stops"}[s]
}
