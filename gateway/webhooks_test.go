package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"paythread/conversations"
	"paythread/conversations/redistest"
)

// The secrets and the customer of the webhook tests. None of them may stand in
// a log or an answer.
const (
	hookToken     = "twilio-auth-token-of-acme"
	hookFarToken  = "twilio-auth-token-of-far"
	hookAppSecret = "meta-app-secret-of-acme"
	hookVerify    = "verify-token-of-acme"
	hookSecret    = "q8Zr1-vX4kLw7Tn_2bYh5JmC9dPs0GfA"
	hookFarSecret = "H3uE6tBx9cQ_1aWz-7oRiK5nVy2MgL8D"
	hookPassword  = "a-password-of-acme"
	hookCustomer  = "27821234567"
	hookWords     = "hello there"
)

// hookSenders are the senders of the webhook tests, by merchant. All three
// providers stand beside each other at acme; far has senders like acme's, with
// secrets of its own.
var hookSenders = map[string][]SenderConfig{
	"acme": {
		{ID: "acme-tw", Provider: "twilio", Channel: conversations.SMS, Settings: Settings{
			"account_sid": "AC00000000000000000000000000000001", "auth_token": hookToken, "from": "+27600000001"}},
		{ID: "acme-meta", Provider: "meta", Channel: conversations.WhatsApp, Settings: Settings{
			"phone_number_id": "PN1", "access_token": "meta-access-token", "app_secret": hookAppSecret, "verify_token": hookVerify}},
	},
	"beta": {
		{ID: "beta-user", Provider: "clickatell", Channel: conversations.WhatsApp, Settings: Settings{
			"api_key": "key-1", "webhook_user": "clickatell", "webhook_password": hookPassword}},
	},
	"far": {
		{ID: "far-ct", Provider: "clickatell", Channel: conversations.SMS, Settings: Settings{
			"api_key": "key-2", "integration_id": "int2", "webhook_secret": hookSecret, "webhook_secret_previous": hookFarSecret}},
		{ID: "far-tw", Provider: "twilio", Channel: conversations.WhatsApp, Settings: Settings{
			"account_sid": "AC00000000000000000000000000000002", "auth_token": hookFarToken, "from": "+27600000001"}},
	},
}

// hookBench is the webhook routes on a socket, before a store of the test's.
type hookBench struct {
	t       *testing.T
	config  *Config
	metrics *webhookMetrics
	log     *lockedBuffer
	address string
	client  *http.Client
}

// newHookBench serves the routes. The limits, the middleware and the order of
// both are the public listener's.
func newHookBench(t *testing.T, store func(*Config) receiver) *hookBench {
	t.Helper()
	b := &hookBench{t: t, config: benchConfig(), metrics: newWebhookMetrics(prometheus.NewRegistry()), log: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	live := map[string]*liveSender{}
	for _, m := range b.config.Merchants {
		m.Senders = nil
		for _, s := range hookSenders[m.ID] {
			s.Settings, s.Merchant = maps.Clone(s.Settings), m
			m.Senders = append(m.Senders, &s)
		}
	}
	b.config.index()
	for _, m := range b.config.Merchants {
		for _, s := range m.Senders {
			p, err := newProvider(s, nil, http.DefaultClient, log)
			if err != nil {
				t.Fatalf("%s: %v", s.ID, err)
			}
			live[s.ID] = &liveSender{SenderConfig: s, provider: p}
		}
	}
	hooks := &webhooks{store: store(b.config), senders: always(live), metrics: b.metrics, log: log}
	app := fiber.New(fiber.Config{
		DisableStartupMessage: true, Immutable: true, BodyLimit: maxWebhookBody, ReadBufferSize: 16 << 10, ErrorHandler: problemHandler(log),
	})
	app.Server().HeaderReceived = limitBody
	app.Use(recoverPanics, refuseTwoLengths, refuseEncodings)
	for _, r := range (&App{webhooks: hooks}).publicRoutes() {
		if strings.HasPrefix(r.path, "/webhooks/:sender_id") {
			mount(app, []route{r})
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.address = listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- app.Listener(listener) }()
	b.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	t.Cleanup(func() {
		if err := app.ShutdownWithTimeout(20 * time.Second); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		_ = listener.Close() // a test that ended at once may have been faster than the server
		<-served
		b.silent("the log", b.log.String())
	})
	return b
}

// silent looks for what must not be told.
func (b *hookBench) silent(where, text string) {
	b.t.Helper()
	for _, secret := range []string{hookToken, hookFarToken, hookAppSecret, hookVerify, hookSecret, hookFarSecret, hookPassword, hookCustomer, hookWords} {
		if strings.Contains(text, secret) {
			b.t.Errorf("%s holds %q:\n%s", where, secret, text)
		}
	}
}

// hook is one call of a webhook.
type hook struct {
	method, path, body string
	header             http.Header
}

// call makes a call and returns the answer, which must be a problem unless it
// is a success.
func (b *hookBench) call(h hook) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequest(h.method, "http://"+b.address, strings.NewReader(h.body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.URL.Opaque = h.path // as it stands, however odd
	if path, query, ok := strings.Cut(h.path, "?"); ok {
		r.URL.Opaque, r.URL.RawQuery = path, query
	}
	if h.body == "" {
		r.Body = nil
	}
	r.Header = h.header.Clone()
	answer, err := b.client.Do(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", h.method, h.path, err)
	}
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if answer.StatusCode >= 300 && h.method != http.MethodHead && answer.Header.Get("Content-Type") != problemType {
		b.t.Errorf("%s %s: answered %d as %q", h.method, h.path, answer.StatusCode, answer.Header.Get("Content-Type"))
	}
	b.silent("the answer", string(said))
	return answer, string(said)
}

// kept is a store that keeps what it is given.
type kept struct {
	keeper
	mu sync.Mutex
}

// Receive keeps a report.
func (k *kept) Receive(ctx context.Context, merchantID string, in conversations.Inbound) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keeper.Receive(ctx, merchantID, in)
}

func (k *kept) all() []conversations.Inbound {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.taken)
}

const formType = "application/x-www-form-urlencoded"

func twilioSigned(token, address string, form url.Values) string {
	for _, name := range slices.Sorted(maps.Keys(form)) {
		address += name + strings.Join(form[name], "")
	}
	mac := hmac.New(sha1.New, []byte(token))
	mac.Write([]byte(address))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func metaSigned(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func basicAuth(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// The genuine webhooks: each an inbound text.
var (
	twilioText = url.Values{
		"ToCountry": {"ZA"}, "ToCity": {""}, "SmsMessageSid": {"SM10"}, "NumMedia": {"0"}, "FromCountry": {"ZA"}, "SmsStatus": {"received"},
		"Body": {hookWords}, "To": {"+27600000001"}, "NumSegments": {"1"}, "MessageSid": {"SM10"}, "SmsSid": {"SM10"},
		"AccountSid": {"AC00000000000000000000000000000001"}, "From": {"+" + hookCustomer}, "ApiVersion": {"2010-04-01"},
	}
	metaText = `{"object":"whatsapp_business_account","entry":[{"id":"W1","changes":[{"value":{"messaging_product":"whatsapp",` +
		`"metadata":{"display_phone_number":"27600000001","phone_number_id":"PN1"},"contacts":[{"profile":{"name":"Thandi"},"wa_id":"` + hookCustomer + `"}],` +
		`"messages":[{"from":"` + hookCustomer + `","id":"wamid.A","timestamp":"1795341600","type":"text","text":{"body":"` + hookWords + ` \u00e9 \ud83d\udc4d a\/b"}}]},"field":"messages"}]}]}`
	clickatellText = `{"integrationId":"int2","integrationName":"Far","event":{"moText":[{"channel":"sms","messageId":"mo1","from":"` + hookCustomer + `",` +
		`"to":"27600000001","timestamp":1795341600000,"content":"` + hookWords + `","charset":"UTF-8"}]}}`
	clickatellWhatsApp = strings.NewReplacer(`"sms"`, `"whatsapp"`, `"int2"`, `"int1"`).Replace(clickatellText)
)

const (
	acmeHooks = "https://" + sharedHost + "/webhooks/"
	farHooks  = "https://" + farHost + "/webhooks/"
)

// TestWebhooksAtTheEdge calls the routes as senders, strangers and proxies
// would. Nothing but a genuine webhook reaches the store, and each refusal says
// nothing of why.
func TestWebhooksAtTheEdge(t *testing.T) {
	t.Parallel()
	form := twilioText.Encode()
	sms := func(signature ...string) http.Header {
		return http.Header{"Content-Type": {formType}, "X-Twilio-Signature": signature}
	}
	signed := twilioSigned(hookToken, acmeHooks+"acme-tw", twilioText)
	meta := func(signature ...string) http.Header {
		return http.Header{"Content-Type": {"application/json"}, "X-Hub-Signature-256": signature}
	}
	metaSignature := metaSigned(hookAppSecret, []byte(metaText))
	user := func(authorization ...string) http.Header {
		return http.Header{"Content-Type": {"application/json"}, "Authorization": authorization}
	}
	plain := http.Header{"Content-Type": {"application/json"}}
	get := twilioText.Encode()
	getSigned := twilioSigned(hookToken, acmeHooks+"acme-tw?"+get, nil)
	for _, c := range []struct {
		name   string
		hook   hook
		status int
		taken  int
	}{
		{"Twilio", hook{"POST", "/webhooks/acme-tw", form, sms(signed)}, 200, 1},
		{"Twilio at an address with a slash at its end", hook{"POST", "/webhooks/acme-tw/", form, sms(twilioSigned(hookToken, acmeHooks+"acme-tw/", twilioText))}, 200, 1},
		{"Twilio at an address with a query", hook{"POST", "/webhooks/acme-tw?a=%20b&c", form, sms(twilioSigned(hookToken, acmeHooks+"acme-tw?a=%20b&c", twilioText))}, 200, 1},
		{"Twilio signed with the port", hook{"POST", "/webhooks/acme-tw", form, sms(twilioSigned(hookToken, strings.Replace(acmeHooks, "/webhooks", ":443/webhooks", 1)+"acme-tw", twilioText))}, 200, 1},
		{"Twilio by GET", hook{"GET", "/webhooks/acme-tw?" + get, "", http.Header{"X-Twilio-Signature": {getSigned}}}, 200, 1},
		{"Twilio unsigned", hook{"POST", "/webhooks/acme-tw", form, sms()}, 403, 0},
		{"Twilio signed twice", hook{"POST", "/webhooks/acme-tw", form, sms(signed, signed)}, 403, 0},
		{"Twilio, a second signature that is wrong", hook{"POST", "/webhooks/acme-tw", form, sms(signed, "x")}, 403, 0},
		{"Twilio, two signatures in one header", hook{"POST", "/webhooks/acme-tw", form, sms(signed + ", " + signed)}, 403, 0},
		{"Twilio signed by another merchant", hook{"POST", "/webhooks/acme-tw", form, sms(twilioSigned(hookFarToken, acmeHooks+"acme-tw", twilioText))}, 403, 0},
		{"Twilio signed for another sender", hook{"POST", "/webhooks/acme-tw", form, sms(twilioSigned(hookToken, acmeHooks+"acme-meta", twilioText))}, 403, 0},
		{"Twilio at another merchant's sender", hook{"POST", "/webhooks/far-tw", form, sms(signed)}, 403, 0},
		{"Twilio with the Host of another", hook{"POST", "/webhooks/acme-tw", form, sms(twilioSigned(hookToken, "https://"+farHost+"/webhooks/acme-tw", twilioText))}, 403, 0},
		{"Twilio signed without the query that came", hook{"POST", "/webhooks/acme-tw?m=c_0x.m_0y", form, sms(signed)}, 403, 0},
		{"Twilio by GET, the POST's signature", hook{"GET", "/webhooks/acme-tw?" + get, "", http.Header{"X-Twilio-Signature": {signed}}}, 403, 0},
		{"Twilio by GET, one parameter more", hook{"GET", "/webhooks/acme-tw?" + get + "&x=1", "", http.Header{"X-Twilio-Signature": {getSigned}}}, 403, 0},
		{"Twilio by GET with a body", hook{"GET", "/webhooks/acme-tw?" + get, form, sms(getSigned)}, 403, 0},
		{"Twilio as JSON without its hash", hook{"POST", "/webhooks/acme-tw", `{"MessageSid":"SM10"}`, http.Header{"Content-Type": {"application/json"}, "X-Twilio-Signature": {twilioSigned(hookToken, acmeHooks+"acme-tw", nil)}}}, 403, 0},
		{"Twilio of another account", hook{"POST", "/webhooks/far-tw", form, sms(twilioSigned(hookFarToken, farHooks+"far-tw", twilioText))}, 200, 0},
		{"Twilio with nothing in it", hook{"POST", "/webhooks/acme-tw", "", sms(twilioSigned(hookToken, acmeHooks+"acme-tw", nil))}, 400, 0},
		{"HEAD", hook{"HEAD", "/webhooks/acme-tw?" + get, "", http.Header{"X-Twilio-Signature": {getSigned}}}, 405, 0},
		{"PUT", hook{"PUT", "/webhooks/acme-tw", form, sms(signed)}, 405, 0},
		{"another method in a header", hook{"PUT", "/webhooks/acme-tw", form, http.Header{"Content-Type": {formType}, "X-Twilio-Signature": {signed}, "X-Http-Method-Override": {"POST"}}}, 405, 0},
		{"OPTIONS", hook{"OPTIONS", "/webhooks/acme-tw", "", sms(signed)}, 405, 0},
		{"packed", hook{"POST", "/webhooks/acme-tw", form, http.Header{"Content-Type": {formType}, "X-Twilio-Signature": {signed}, "Content-Encoding": {"gzip"}}}, 415, 0},

		{"Meta", hook{"POST", "/webhooks/acme-meta", metaText, meta(metaSignature)}, 200, 1},
		{"Meta with the older signature beside", hook{"POST", "/webhooks/acme-meta", metaText, http.Header{"X-Hub-Signature-256": {metaSignature}, "X-Hub-Signature": {"sha1=00"}}}, 200, 1},
		{"Meta with the older signature alone", hook{"POST", "/webhooks/acme-meta", metaText, http.Header{"X-Hub-Signature": {metaSignature}}}, 403, 0},
		{"Meta re-serialised", hook{"POST", "/webhooks/acme-meta", strings.ReplaceAll(metaText, `\/`, `/`), meta(metaSignature)}, 403, 0},
		{"Meta twice", hook{"POST", "/webhooks/acme-meta", metaText, meta(metaSignature, metaSignature)}, 403, 0},
		{"Meta signed by Twilio's token", hook{"POST", "/webhooks/acme-meta", metaText, meta(metaSigned(hookToken, []byte(metaText)))}, 403, 0},
		{"Meta's webhook at Twilio's sender", hook{"POST", "/webhooks/acme-tw", metaText, meta(metaSignature)}, 403, 0},
		{"Meta of a number nobody has", hook{"POST", "/webhooks/acme-meta", strings.ReplaceAll(metaText, "PN1", "PN2"), meta(metaSigned(hookAppSecret, []byte(strings.ReplaceAll(metaText, "PN1", "PN2"))))}, 200, 0},
		{"Meta by GET", hook{"GET", "/webhooks/acme-meta", "", meta(metaSignature)}, 403, 0},
		{"Meta's handshake", hook{"GET", "/webhooks/acme-meta?hub.mode=subscribe&hub.challenge=115&hub.verify_token=" + hookVerify, "", nil}, 200, 0},
		{"Meta's handshake with another token", hook{"GET", "/webhooks/acme-meta?hub.mode=subscribe&hub.challenge=115&hub.verify_token=x", "", nil}, 403, 0},
		{"Meta's handshake, as others spell it", hook{"GET", "/webhooks/acme-meta?hub_mode=subscribe&hub_challenge=115&hub_verify_token=" + hookVerify, "", nil}, 403, 0},
		{"Meta's handshake at Clickatell's sender", hook{"GET", "/webhooks/far-ct/" + hookSecret + "?hub.mode=subscribe&hub.challenge=115", "", nil}, 405, 0},

		{"Clickatell", hook{"POST", "/webhooks/far-ct/" + hookSecret, clickatellText, plain}, 200, 1},
		{"Clickatell with the previous secret", hook{"POST", "/webhooks/far-ct/" + hookFarSecret, clickatellText, plain}, 200, 1},
		{"Clickatell with a slash at the end", hook{"POST", "/webhooks/far-ct/" + hookSecret + "/", clickatellText, plain}, 200, 1},
		{"Clickatell with two slashes at the end", hook{"POST", "/webhooks/far-ct/" + hookSecret + "//", clickatellText, plain}, 403, 0},
		{"Clickatell with two slashes before", hook{"POST", "/webhooks/far-ct//" + hookSecret, clickatellText, plain}, 404, 0},
		{"Clickatell without the secret", hook{"POST", "/webhooks/far-ct", clickatellText, plain}, 403, 0},
		{"Clickatell with an empty secret", hook{"POST", "/webhooks/far-ct/", clickatellText, plain}, 403, 0},
		{"Clickatell, most of the secret", hook{"POST", "/webhooks/far-ct/" + hookSecret[:31], clickatellText, plain}, 403, 0},
		{"Clickatell, secret and more", hook{"POST", "/webhooks/far-ct/" + hookSecret + "A", clickatellText, plain}, 403, 0},
		{"Clickatell, secret in another case", hook{"POST", "/webhooks/far-ct/" + strings.ToLower(hookSecret), clickatellText, plain}, 403, 0},
		{"Clickatell, secret escaped", hook{"POST", "/webhooks/far-ct/%71" + hookSecret[1:], clickatellText, plain}, 403, 0},
		{"Clickatell, secret with a NUL", hook{"POST", "/webhooks/far-ct/" + hookSecret + "%00", clickatellText, plain}, 403, 0},
		{"Clickatell, secret behind dots", hook{"POST", "/webhooks/far-ct/x/../" + hookSecret, clickatellText, plain}, 404, 0},
		{"Clickatell, secret in the query", hook{"POST", "/webhooks/far-ct?secret=" + hookSecret, clickatellText, plain}, 403, 0},
		{"Clickatell, secret as the sender", hook{"POST", "/webhooks/" + hookSecret, clickatellText, plain}, 404, 0},
		{"Clickatell, secret at another sender", hook{"POST", "/webhooks/beta-user/" + hookSecret, clickatellWhatsApp, plain}, 403, 0},
		{"Clickatell of another integration", hook{"POST", "/webhooks/far-ct/" + hookSecret, strings.ReplaceAll(clickatellText, "int2", "int3"), plain}, 200, 0},
		{"Clickatell by GET", hook{"GET", "/webhooks/far-ct/" + hookSecret, "", nil}, 405, 0},
		{"Clickatell as a form", hook{"POST", "/webhooks/far-ct/" + hookSecret, form, http.Header{"Content-Type": {formType}}}, 400, 0},
		{"Clickatell with a user", hook{"POST", "/webhooks/beta-user", clickatellWhatsApp, user(basicAuth("clickatell", hookPassword))}, 200, 1},
		{"Clickatell without the user", hook{"POST", "/webhooks/beta-user", clickatellWhatsApp, plain}, 403, 0},
		{"Clickatell, another user", hook{"POST", "/webhooks/beta-user", clickatellWhatsApp, user(basicAuth("Clickatell", hookPassword))}, 403, 0},
		{"Clickatell, the user twice", hook{"POST", "/webhooks/beta-user", clickatellWhatsApp, user(basicAuth("clickatell", hookPassword), "Basic x")}, 403, 0},
		{"Clickatell, the password as a token", hook{"POST", "/webhooks/beta-user", clickatellWhatsApp, user("Bearer " + hookPassword)}, 403, 0},
		{"Clickatell, credentials with a line feed", hook{"POST", "/webhooks/beta-user", clickatellWhatsApp, user(basicAuth("clickatell", hookPassword+"\n"))}, 403, 0},
		{"nobody", hook{"POST", "/webhooks/nobody", form, sms(signed)}, 404, 0},
		{"another case", hook{"POST", "/webhooks/ACME-TW", form, sms(signed)}, 404, 0},
		{"escaped", hook{"POST", "/webhooks/acme%2Dtw", form, sms(signed)}, 404, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := &kept{}
			b := newHookBench(t, func(*Config) receiver { return store })
			answer, said := b.call(c.hook)
			if taken := store.all(); answer.StatusCode != c.status || len(taken) != c.taken {
				t.Errorf("answered %d and took %d reports, want %d and %d: %s", answer.StatusCode, len(taken), c.status, c.taken, said)
			}
			for _, word := range []string{"port", "twice", "previous", "password", "secret"} {
				if c.status == 403 && strings.Contains(said, word) {
					t.Errorf("a forger learns of a %s: %s", word, said)
				}
			}
		})
	}
}

// hookStore is a real store under the webhook routes.
func hookStore(t *testing.T, into **conversations.Store) func(*Config) receiver {
	return func(c *Config) receiver {
		o := conversations.Options{
			Addresses: []string{redistest.Shared(t).Addr}, Prefix: fmt.Sprintf("hooks:%s:%d", t.Name(), time.Now().UnixNano()), Partitions: 2,
		}
		for _, m := range c.Merchants {
			o.Merchants = append(o.Merchants, m.Domain())
		}
		store, err := conversations.Connect(t.Context(), o)
		if err != nil {
			t.Fatalf("connect: %v", err)
		}
		t.Cleanup(func() { _ = store.Close() }) // the test is over, nothing is left to lose
		*into = store
		return store
	}
}

// asTwilio posts a form to a sender at Twilio, as Twilio would.
func (b *hookBench) asTwilio(address, path, token string, form url.Values) {
	b.t.Helper()
	answer, said := b.call(hook{"POST", path, form.Encode(), http.Header{
		"Content-Type": {formType}, "X-Twilio-Signature": {twilioSigned(token, address, form)},
	}})
	if answer.StatusCode != 200 || said != `<?xml version="1.0" encoding="UTF-8"?><Response/>` {
		b.t.Errorf("Twilio is answered %d with %q", answer.StatusCode, said)
	}
}

// posts posts a body that must be answered with 200 and nothing that matters.
func (b *hookBench) posts(path, body string, header http.Header) {
	b.t.Helper()
	if header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/json")
	}
	if answer, said := b.call(hook{"POST", path, body, header}); answer.StatusCode != 200 {
		b.t.Errorf("%s is answered %d: %s", path, answer.StatusCode, said)
	}
}

// outcomes returns how many reports a provider's webhooks had of an outcome.
func (b *hookBench) outcomes(provider, kind, outcome string) int {
	return int(testutil.ToFloat64(b.metrics.reports.WithLabelValues(provider, kind, outcome)))
}

// askedBySMS makes a payment request of acme's to the customer.
func askedBySMS(t *testing.T, store *conversations.Store) *conversations.PaymentRequest {
	t.Helper()
	amount, nothing := conversations.Money{Minor: 14900, Currency: "ZAR"}, conversations.Money{Currency: "ZAR"}
	r, err := store.Create(t.Context(), conversations.CreateRequest{
		MerchantID: "acme", Phone: "+" + hookCustomer, Channel: conversations.SMS,
		Order: conversations.Order{Reference: "1042", Subtotal: amount, Tax: nothing, Shipping: nothing, Discount: nothing, Total: amount},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestStatusOfAnothersMessage has everybody report statuses of acme's message,
// with its very correlation value and id: another merchant's senders, another
// sender of acme's, and acme's own about somebody else. None of it touches
// anything; the status that its own sender reports does.
func TestStatusOfAnothersMessage(t *testing.T) {
	t.Parallel()
	var store *conversations.Store
	b := newHookBench(t, hookStore(t, &store))
	r := askedBySMS(t, store)
	commit := func(e conversations.Event) conversations.Applied {
		t.Helper()
		a, err := store.Apply(t.Context(), r.ContactID, e, conversations.Once{})
		if err != nil {
			t.Fatalf("%s: %v", e.Kind(), err)
		}
		return a
	}
	correlation := commit(conversations.SendingStarted{MessageID: r.Messages[0], EntryID: "1-1"}).Outbound.Correlation
	commit(conversations.MessageAnswered{MessageID: r.Messages[0], EntryID: "1-1", Sent: conversations.Sent{ProviderID: "SM77"}})
	status := func() conversations.DeliveryStatus {
		t.Helper()
		all, err := store.Messages(t.Context(), r.ContactID, r.Messages[:1])
		if err != nil || len(all) != 1 {
			t.Fatalf("read the message: %d, %v", len(all), err)
		}
		return all[0].Status
	}
	contact, message, _ := strings.Cut(correlation, ".")
	clickatell := func(integration, channel string, code int, correlation string) string {
		return fmt.Sprintf(`{"integrationId":%q,"event":{"messageStatusUpdate":[{"channel":%q,"timestamp":1795341600000,"statusCode":%d,"status":"","messageId":"SM77","to":%q,"clientMessageId":%q}]}}`,
			integration, channel, code, hookCustomer, correlation)
	}
	meta := func(correlation string) string {
		return fmt.Sprintf(`{"object":"whatsapp_business_account","entry":[{"id":"W1","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"PN1"},"statuses":[{"id":"SM77","status":"read",`+
			`"timestamp":"1795341600","recipient_id":%q,"biz_opaque_callback_data":%q},{"id":"SM77","status":"failed","timestamp":"1795341601","recipient_id":%q,"biz_opaque_callback_data":%q,`+
			`"errors":[{"code":131026}]}]}}]}]}`, hookCustomer, correlation, hookCustomer, correlation)
	}
	form := func(account string, more url.Values) url.Values {
		f := url.Values{"AccountSid": {account}, "MessageSid": {"SM77"}, "To": {"+" + hookCustomer}, "From": {"+27600000001"}}
		maps.Copy(f, more)
		return f
	}
	const acme, far = "AC00000000000000000000000000000001", "AC00000000000000000000000000000002"
	delivered := url.Values{"MessageStatus": {"delivered"}}

	for _, correlation := range []string{correlation, contact + ".m_00", "", "c_00." + message, strings.Repeat("c", 64), correlation + "x"} {
		for _, code := range []int{5, 6, 23, 21} { // delivered, read, failed, opted out
			b.posts("/webhooks/far-ct/"+hookSecret, clickatell("int2", "sms", code, correlation), http.Header{})
			b.posts("/webhooks/beta-user", clickatell("int1", "whatsapp", code, correlation), http.Header{"Authorization": {basicAuth("clickatell", hookPassword)}})
		}
		body := meta(correlation)
		b.posts("/webhooks/acme-meta", body, http.Header{"X-Hub-Signature-256": {metaSigned(hookAppSecret, []byte(body))}})
		whatsApp := form(far, url.Values{"MessageStatus": {"undelivered"}, "ErrorCode": {"63014"}, "To": {"whatsapp:+" + hookCustomer}, "From": {"whatsapp:+27600000001"}})
		b.asTwilio(farHooks+"far-tw?m="+correlation, "/webhooks/far-tw?m="+correlation, hookFarToken, whatsApp)
		if correlation != "" { // without one acme's own statuses are found by the number, as they should be
			b.asTwilio(acmeHooks+"acme-tw?m="+correlation, "/webhooks/acme-tw?m="+correlation, hookToken, form(far, delivered)) // of another account
		}
	}
	for _, correlation := range []string{contact + ".m_00", "c_00." + message, "c_00.m_00"} {
		b.asTwilio(acmeHooks+"acme-tw?m="+correlation, "/webhooks/acme-tw?m="+correlation, hookToken, form(acme, delivered))
	}
	if got := status(); got != conversations.DeliveryAccepted {
		t.Fatalf("the message is %s by the words of others", got)
	}
	c, err := store.Contact(t.Context(), r.ContactID)
	if err != nil {
		t.Fatal(err)
	}
	if consent := c.Consent[conversations.SMS]; consent == conversations.ConsentOptedOut {
		t.Error("the customer is opted out by the words of others")
	}
	if n := b.outcomes("clickatell", "status", "taken") + b.outcomes("meta", "status", "taken") + b.outcomes("twilio", "status", "taken"); n != 0 {
		t.Errorf("%d foreign statuses were taken", n)
	}
	if n := b.outcomes("clickatell", "status", "unmatched"); n == 0 {
		t.Error("foreign statuses are not counted")
	}

	// Its own sender, with the correlation value, without it, out of order and
	// again.
	genuine := func(query, word string) {
		t.Helper()
		b.asTwilio(acmeHooks+"acme-tw"+query, "/webhooks/acme-tw"+query, hookToken, form(acme, url.Values{"MessageStatus": {word}}))
	}
	genuine("", "sent")
	if got := status(); got != conversations.DeliverySent {
		t.Errorf("the message is %s, want it sent", got)
	}
	for _, word := range []string{"delivered", "sent", "delivered", "failed", "queued", "Teleported"} {
		genuine("?m="+correlation, word)
		if got := status(); got != conversations.DeliveryDelivered {
			t.Errorf("after %s the message is %s, want it delivered", word, got)
		}
	}
	if got, err := store.Request(t.Context(), r.ID); err != nil || got.Lifecycle != conversations.Open {
		t.Errorf("the request is %v, %v: no status may change it", got.Lifecycle, err)
	}
}

// TestReplayedMessages delivers a customer's words again: at once, days later,
// reordered, in one batch twice, and with both secrets of one address. They
// are said once, and words about a payment are words.
func TestReplayedMessages(t *testing.T) {
	t.Parallel()
	var store *conversations.Store
	b := newHookBench(t, hookStore(t, &store))
	r := askedBySMS(t, store)
	said := func(merchant string) []string {
		t.Helper()
		people, _, err := store.Conversations(t.Context(), merchant, "", 10)
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, c := range people {
			all, _, err := store.Transcript(t.Context(), c.ID, "", 50)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range all {
				if m.Inbound {
					texts = append(texts, m.Text)
				}
			}
		}
		slices.Sort(texts)
		return texts
	}
	paid := maps.Clone(twilioText)
	maps.Copy(paid, url.Values{"MessageSid": {"SM11"}, "SmsSid": {"SM11"}, "SmsMessageSid": {"SM11"}, "Body": {"payment received, status=paid"}})
	for _, form := range []url.Values{twilioText, paid, twilioText, paid, twilioText} {
		b.asTwilio(acmeHooks+"acme-tw", "/webhooks/acme-tw", hookToken, form)
	}
	element := metaText[strings.Index(metaText, `{"from"`):strings.Index(metaText, `]},"field"`)]
	odd := `{"from":[],"id":{}},7,null,{"id":"wamid.B"}`
	batch := strings.Replace(metaText, element, element+","+odd+","+element, 1)
	for range 2 {
		b.posts("/webhooks/acme-meta", batch, http.Header{"X-Hub-Signature-256": {metaSigned(hookAppSecret, []byte(batch))}})
	}
	if got, want := said("acme"), []string{hookWords, hookWords + " é 👍 a/b", "payment received, status=paid"}; !slices.Equal(got, want) {
		t.Errorf("acme hears %q, want %q", got, want)
	}
	if after, err := store.Request(t.Context(), r.ID); err != nil || after.Lifecycle != conversations.Open || len(after.Attempts) != 0 {
		t.Errorf("after words about money the request is %+v, %v; want it open and untouched", after, err)
	}

	late := strings.Replace(clickatellText, "1795341600000", "1795341700000", 1) // the same event, told another time
	for _, body := range []string{clickatellText, late, clickatellText} {
		b.posts("/webhooks/far-ct/"+hookSecret, body, http.Header{})
		b.posts("/webhooks/far-ct/"+hookFarSecret, body, http.Header{})
	}
	if got, want := said("far"), []string{hookWords}; !slices.Equal(got, want) {
		t.Errorf("far hears %q, want %q", got, want)
	}
	if got := said("beta"); len(got) != 0 {
		t.Errorf("beta hears %q, which was said to others", got)
	}
}

// unsteady is a store that does not answer for some reports.
type unsteady struct {
	kept
	failing map[string]error
}

// Receive fails as it was told to.
func (u *unsteady) Receive(ctx context.Context, merchantID string, in conversations.Inbound) error {
	if err := u.failing[in.ProviderID]; err != nil {
		return err
	}
	return u.kept.Receive(ctx, merchantID, in)
}

// TestBatchesWithTrouble: one report never holds back the others, and only what
// another delivery would mend asks for one.
func TestBatchesWithTrouble(t *testing.T) {
	t.Parallel()
	message := func(id string) string {
		return `{"from":"` + hookCustomer + `","id":"` + id + `","timestamp":"1795341600","type":"text","text":{"body":"` + hookWords + `"}}`
	}
	body := `{"object":"whatsapp_business_account","entry":[{"id":"W1","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"PN1"},"messages":[` +
		strings.Join([]string{message("1"), message("2"), message("3")}, ",") + `]}}]}]}`
	for name, c := range map[string]struct {
		err    error
		status int
	}{
		"down":     {conversations.Unavailable(io.ErrUnexpectedEOF), 503},
		"unknown":  {conversations.NotFound("contact"), 200},
		"invalid":  {conversations.Invalid("addresses", "no"), 200},
		"our slip": {io.ErrUnexpectedEOF, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &unsteady{failing: map[string]error{"2": c.err}}
			b := newHookBench(t, func(*Config) receiver { return store })
			answer, _ := b.call(hook{"POST", "/webhooks/acme-meta", body, http.Header{"X-Hub-Signature-256": {metaSigned(hookAppSecret, []byte(body))}}})
			if taken := store.all(); answer.StatusCode != c.status || len(taken) != 2 {
				t.Errorf("answered %d and took %d of 3, want %d and 2", answer.StatusCode, len(taken), c.status)
			}
			if c.status == 503 && answer.Header.Get("Retry-After") == "" {
				t.Error("it is not said when to come again")
			}
		})
	}
}

// TestWebhooksOfAnySize: what a provider sends fits, and nothing beyond it is
// read.
func TestWebhooksOfAnySize(t *testing.T) {
	t.Parallel()
	store := &kept{}
	b := newHookBench(t, func(*Config) receiver { return store })
	padded := func(size int) string {
		return metaText + strings.Repeat(" ", size-len(metaText))
	}
	whole := padded(3 << 20)
	b.posts("/webhooks/acme-meta", whole, http.Header{"X-Hub-Signature-256": {metaSigned(hookAppSecret, []byte(whole))}})
	if n := len(store.all()); n != 1 {
		t.Errorf("of 3 MB %d reports were taken, want 1", n)
	}

	// raw writes bytes as they are and returns the status that comes back.
	raw := func(head string, body io.Reader) string {
		t.Helper()
		conn, err := net.Dial("tcp", b.address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(longestWait)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(conn, body) }() // the far end may stop reading
		answer := bufio.NewReader(conn)
		line, err := answer.ReadString('\n')
		if strings.HasPrefix(line, "HTTP/1.1 100") { // go on; the next line is the end of that answer
			_, _ = answer.ReadString('\n')
			line, err = answer.ReadString('\n')
		}
		if err != nil {
			t.Errorf("no answer to %q: %v", head[:20], err)
		}
		return strings.TrimSpace(line)
	}
	const host = "Host: " + sharedHost + "\r\nContent-Type: application/json\r\n"
	over := maxWebhookBody + 1
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10))
	for name, c := range map[string]struct {
		head string
		body string
		want string
	}{
		"too large, by its length":         {fmt.Sprintf("POST /webhooks/acme-meta HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n", host, over), "", "413"},
		"too large, in chunks":             {"POST /webhooks/acme-meta HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n", strings.Repeat(chunk, 52), "413"},
		"too large, waits to be asked":     {fmt.Sprintf("POST /webhooks/acme-meta HTTP/1.1\r\n%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", host, over), "", "413"},
		"two lengths":                      {"POST /webhooks/acme-meta HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "400"},
		"a header that never ends":         {"POST /webhooks/acme-meta HTTP/1.1\r\n" + host + "X-Hub-Signature-256: " + strings.Repeat("a", 32<<10) + "\r\n\r\n", "", "431"},
		"a secret in a line that is wrong": {"POST /webhooks/far-ct/" + hookSecret + " HTTP/1.1\r\n" + host + "X bad " + hookPassword + "\r\n\r\n", "", "400"},
		"an address with the secret, bent": {"POST  /webhooks/far-ct/" + hookSecret + "\x00 HTTP/1.1\r\n" + host + "\r\n", "", "40"},
	} {
		if got := raw(c.head, strings.NewReader(c.body)); !strings.HasPrefix(got, "HTTP/1.1 "+c.want) {
			t.Errorf("%s: %q, want %s", name, got, c.want)
		}
	}

	// Ten thousand parameters are no message of anybody's, and cost little.
	many := url.Values{}
	for i := range 10_000 {
		many.Set(fmt.Sprintf("p%d", i), "x")
	}
	answer, _ := b.call(hook{"POST", "/webhooks/acme-tw", many.Encode(), http.Header{"Content-Type": {formType}, "X-Twilio-Signature": {"x"}}})
	if answer.StatusCode != 403 {
		t.Errorf("10,000 parameters: answered %d, want 403", answer.StatusCode)
	}
	if n := len(store.all()); n != 1 {
		t.Errorf("%d reports were taken in the end, want 1", n)
	}
}
