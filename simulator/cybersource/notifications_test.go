package cybersource

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/simulator/faults"
)

const (
	notifyKeyID  = "2d55e648-d96c-d727-e063-3cb8d30a938e"
	notifySecret = "d2ViaG9vay1zaWduaW5nLWtleS0wMTIzNDU2Nzg5YWI="
)

// delivery is a notification as it came in.
type delivery struct {
	path   string
	header http.Header
	body   []byte
}

func (d delivery) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(d.body, &v); err != nil {
		t.Fatalf("%s: %v", d.body, err)
	}
	return v
}

// summary is the event and the transaction's reference, or what else tells deliveries apart.
func (d delivery) summary(t testing.TB) string {
	t.Helper()
	payload, _ := d.json(t)["payload"].(map[string]any)
	if data, ok := payload["data"].(map[string]any); ok {
		payload = data
	}
	ref, _ := payload["clientReferenceInformation"].(map[string]any)
	code, _ := ref["code"].(string)
	return strings.TrimSpace(d.header.Get("v-c-event-type") + " " + code)
}

// inbox is a merchant's address for notifications.
type inbox struct {
	t      testing.TB
	server *httptest.Server
	mu     sync.Mutex
	list   []delivery
	status func(n int) int // of the answer to the nth delivery, from 1
	more   chan struct{}
}

func newInbox(t testing.TB) *inbox {
	b := &inbox{t: t, more: make(chan struct{}, 1000), status: func(int) int { return 200 }}
	b.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.list = append(b.list, delivery{r.Method + " " + r.URL.Path, r.Header.Clone(), body})
		status := b.status(len(b.list))
		b.mu.Unlock()
		w.WriteHeader(status)
		b.more <- struct{}{}
	}))
	t.Cleanup(b.server.Close)
	return b
}

// await returns all deliveries once there are n.
func (b *inbox) await(n int) []delivery {
	b.t.Helper()
	deadline := time.After(time.Minute)
	for {
		b.mu.Lock()
		list := append([]delivery{}, b.list...)
		b.mu.Unlock()
		if len(list) >= n {
			return list
		}
		select {
		case <-b.more:
		case <-deadline:
			b.t.Fatalf("%d deliveries came, want %d", len(list), n)
		}
	}
}

func (b *inbox) want(events ...string) {
	b.t.Helper()
	list := b.await(len(events))
	var got []string
	for _, d := range list {
		got = append(got, d.summary(b.t))
	}
	if strings.Join(got, "\n") != strings.Join(events, "\n") {
		b.t.Errorf("deliveries: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(events, "\n"))
	}
}

// newNotifiedWorld has a subscription of the test merchant to everything.
func newNotifiedWorld(t testing.TB, b *inbox, change ...func(*Config)) *world {
	t.Helper()
	subscribed := func(c *Config) {
		c.NotifyRetryAfter = time.Millisecond
		c.Subscriptions = []Subscription{{Organization: testMerchant, URL: b.server.URL + "/hook", KeyID: notifyKeyID, Key: notifySecret}}
	}
	w := newWorld(t, append([]func(*Config){subscribed}, change...)...)
	t.Cleanup(w.sim.Close)
	return w
}

// signedOver is the signature that t and a text come to.
func signedOver(t testing.TB, stamp string, text []byte) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(notifySecret)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(stamp + "."))
	mac.Write(text)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// signature takes v-c-signature apart.
func (d delivery) signature() (stamp, keyID, sig string) {
	parts := map[string]string{}
	for part := range strings.SplitSeq(d.header.Get("v-c-signature"), ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		parts[name] = value
	}
	return parts["t"], parts["keyId"], parts["sig"]
}

func (d delivery) wantSigned(t testing.TB, text []byte, right bool) {
	t.Helper()
	stamp, keyID, sig := d.signature()
	if len(stamp) != 13 || keyID != notifyKeyID || (sig == signedOver(t, stamp, text)) != right {
		t.Errorf("v-c-signature %s over %s, want right: %t", d.header.Get("v-c-signature"), text, right)
	}
}

// innerPayload is the payload member as it stands in the body.
func (d delivery) innerPayload(t testing.TB) []byte {
	t.Helper()
	var body struct{ Payload json.RawMessage }
	if err := json.Unmarshal(d.body, &body); err != nil {
		t.Fatal(err)
	}
	return body.Payload
}

// TestSignatureOfNotifications: the published example, and one computed by hand.
func TestSignatureOfNotifications(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ key, text, sig string }{
		{"dGVzdF9rZXk=", "this is a decrypted payload", "t=1617830804768;keyId=k;sig=CzHY47nzJgCSD/BREtSIb+9l/vfkaaL4qf9n8MNJ4CY="},
		{notifySecret, `{"id":"7681234567890123456789","status":"AUTHORIZED","outcome":"AUTHORIZED"}`, ""},
	} {
		key, err := base64.StdEncoding.DecodeString(tc.key)
		if err != nil {
			t.Fatal(err)
		}
		at := int64(1617830804768)
		want := tc.sig
		if want == "" {
			at, want = 1768472462000, "t=1768472462000;keyId=k;sig=jZa96ch+paUb7L5u7testE9BFjwHMU8e5N+dDRhw6uM="
		}
		s := newWorld(t).sim
		s.notify.keys["org"] = notifyKey{id: "k", key: key}
		if got := s.signature("org", time.UnixMilli(at), []byte(tc.text), false); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestNotificationsOfEverything(t *testing.T) {
	t.Parallel()
	b := newInbox(t)
	w := newNotifiedWorld(t, b)
	sale := w.approve("SALE", "10.00", true)
	w.post("/pts/v2/payments/"+sale+"/refunds", order("4.00"))
	w.post("/pts/v2/payments/"+w.approve("VOID", "10.00", true)+"/voids", `{}`)
	auth := w.approve("AUTH", "10.00", false)
	w.post("/pts/v2/payments/"+auth+"/captures", order("10.00"))
	w.post("/pts/v2/payments/"+w.approve("HOLD", "10.00", false)+"/reversals", strings.Replace(reversal("10.00"), `"rev"`, `"HOLD-R"`, 1))
	w.pay(payment(w.token("4000000000000002"), "NO", "10.00", true))
	w.pay(payment(w.token("4100000000000019"), "RISK", "10.00", true))
	w.pay(payment(w.token("4012888888881881"), "HALF", "10.00", true))
	w.pay(payment(w.token("4000000000000119"), "ERROR", "10.00", true))
	held := w.pay(payment(w.token("4000000000009235"), "HELD", "10.00", true)).text("id")
	w.sim.DecideReview(held, true)
	held = w.pay(payment(w.token("4000000000009235"), "BAD", "10.00", true)).text("id")
	w.sim.DecideReview(held, false)
	b.want("payments.authorization.status.accepted SALE", "payments.capture.status.accepted SALE", "payments.refund.status.accepted SALE",
		"payments.authorization.status.accepted VOID", "payments.capture.status.accepted VOID", "payments.void.status.accepted VOID",
		"payments.authorization.status.accepted AUTH", "payments.capture.status.accepted AUTH",
		"payments.authorization.status.accepted HOLD", "payments.reversal.status.accepted HOLD-R",
		"payments.authorization.status.rejected NO", "payments.authorization.status.rejected RISK", "risk.profile.decision.reject RISK",
		"payments.authorization.status.partiallyApproved HALF",
		"payments.authorization.status.reviewed HELD", "risk.casemanagement.decision.accept HELD", "payments.authorization.status.updated HELD", "payments.capture.status.accepted HELD",
		"payments.authorization.status.reviewed BAD", "risk.casemanagement.decision.reject BAD", "payments.authorization.status.updated BAD")
	for _, d := range b.await(1) {
		d.wantSigned(t, d.innerPayload(t), true)
		body, h := d.json(t), d.header
		for name, want := range map[string]any{
			"v-c-event-type": body["eventType"], "v-c-organization-id": body["organizationId"], "v-c-product-name": body["productId"],
			"v-c-webhook-id": body["webhookId"], "v-c-request-type": body["requestType"], "v-c-transaction-trace-id": body["transactionTraceId"],
		} {
			if want == "" || h.Get(name) != want {
				t.Errorf("%s is %q, the body has %v", name, h.Get(name), want)
			}
		}
		if h.Get("v-c-request-type") != "NEW" || h.Get("v-c-retry-count") != "0" || body["organizationId"] != testMerchant || d.path != "POST /hook" {
			t.Errorf("delivery: got %v %s", h, d.body)
		}
	}
}

func TestNotificationsAreRepeated(t *testing.T) {
	t.Parallel()
	b := newInbox(t)
	b.status = func(n int) int { return 500 } // nothing is ever taken
	w := newNotifiedWorld(t, b)
	w.approve("A", "10.00", false)
	list := b.await(4)
	traces := map[string]bool{}
	for i, d := range list {
		body := d.json(t)
		traces[d.header.Get("v-c-transaction-trace-id")] = true
		wantType := "RETRY"
		if i == 0 {
			wantType = "NEW"
		}
		if retry, _ := body["retryNumber"].(float64); int(retry) != i || body["requestType"] != wantType || d.header.Get("v-c-retry-count") != string(rune('0'+i)) {
			t.Errorf("attempt %d: got %v %s", i, d.header, d.body)
		}
		d.wantSigned(t, d.innerPayload(t), true)
	}
	if len(traces) != 4 {
		t.Errorf("%d trace ids, want one for each attempt", len(traces))
	}
	// The fourth was the last: the next event comes behind it.
	b.mu.Lock()
	b.status = func(int) int { return 204 }
	b.mu.Unlock()
	w.approve("B", "10.00", false)
	if got := b.await(5)[4].summary(t); got != "payments.authorization.status.accepted B" {
		t.Errorf("after the last attempt: got %s", got)
	}
}

func TestFaultsOfNotifications(t *testing.T) {
	t.Parallel()
	b := newInbox(t)
	w := newNotifiedWorld(t, b)
	rule := func(do string) faults.Rule { return faults.Rule{Call: CallNotification, Do: do, Times: 1} }
	w.rules(rule(faults.Duplicate), rule(faults.Drop), rule(faults.Reorder), faults.Rule{Call: CallNotification, Do: faults.Forge, Skip: 1, Times: 1})
	for _, code := range []string{"TWICE", "LOST", "LATE", "EARLY", "FORGED"} {
		w.approve(code, "10.00", false)
	}
	const accepted = "payments.authorization.status.accepted "
	b.want(accepted+"TWICE", accepted+"TWICE", accepted+"EARLY", accepted+"LATE", accepted+"FORGED")
	for i, d := range b.await(5) {
		d.wantSigned(t, d.innerPayload(t), i < 4)
	}
	if err := w.faults.Replace([]faults.Rule{{Call: callPayments, Do: faults.Forge}}); err == nil {
		t.Error("a call can be forged")
	}
}

func TestWaysToWriteNotifications(t *testing.T) {
	t.Parallel()
	b := newInbox(t)
	w := newNotifiedWorld(t, b)
	key, err := newRSAKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	set := func(body object, want int) {
		t.Helper()
		if r := w.plain("/cybersource/subscriptions", toJSON(t, body)); r.status != want {
			t.Fatalf("%v: got %d %s, want %d", body, r.status, r.body, want)
		}
	}
	set(object{"payload": "encrypted"}, 400)
	set(object{"payload": "upside down"}, 400)
	set(object{"encryptTo": "MA==", "organization": testMerchant}, 400)
	set(object{"payload": "raw", "nested": true}, 200)
	w.approve("RAW", "10.00", false)
	b.want("payments.authorization.status.accepted RAW")
	b.await(1)[0].wantSigned(t, b.await(1)[0].body, true)
	set(object{"organization": testMerchant, "payload": "encrypted", "nested": false, "encryptTo": base64.StdEncoding.EncodeToString(public), "encryptKeyId": "mle-1"}, 200)
	w.approve("SEALED", "10.00", false)
	d := b.await(2)[1]
	sealed, _ := d.json(t)["encData"].(string)
	header, text := openJWE(t, key, sealed)
	if header["alg"] != "RSA-OAEP-256" || header["enc"] != "A256GCM" || header["kid"] != "mle-1" {
		t.Errorf("header of the JWE: %v", header)
	}
	d.wantSigned(t, text, true)
	if got := (delivery{header: d.header, body: text}).summary(t); got != "payments.authorization.status.accepted SEALED" {
		t.Errorf("inside: got %s", got)
	}
}

// openJWE decrypts what sealJWE made, step by step.
func openJWE(t testing.TB, key *rsa.PrivateKey, sealed string) (map[string]any, []byte) {
	t.Helper()
	parts := strings.Split(sealed, ".")
	if len(parts) != 5 {
		t.Fatalf("a JWE of %d parts: %s", len(parts), sealed)
	}
	raw := make([][]byte, 5)
	for i, part := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			t.Fatal(err)
		}
	}
	var header map[string]any
	if err := json.Unmarshal(raw[0], &header); err != nil {
		t.Fatal(err)
	}
	secret, err := rsa.DecryptOAEP(sha256.New(), nil, key, raw[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		t.Fatal(err)
	}
	opener, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	text, err := opener.Open(nil, raw[2], append(raw[3], raw[4]...), []byte(parts[0]))
	if err != nil {
		t.Fatal(err)
	}
	return header, text
}

func TestMadeUpNotifications(t *testing.T) {
	t.Parallel()
	b := newInbox(t)
	b.status = func(n int) int { return map[bool]int{true: 200, false: 401}[n < 3] }
	w := newNotifiedWorld(t, b)
	r := w.plain("/cybersource/notifications", `{"productId":"payments","eventType":"payments.refund.status.accepted","payload":{"id":"1"},"age":"2h","times":3}`)
	if r.status != 200 || r.body != `{"statuses":[200,200,401]}`+"\n" && r.body != `{"statuses":[200,200,401]}` {
		t.Errorf("got %d %s", r.status, r.body)
	}
	d := b.await(3)[2]
	d.wantSigned(t, []byte(`{"id":"1"}`), true)
	if stamp, _, _ := d.signature(); stamp != "1768465230000" { // the clock's time, two hours before
		t.Errorf("t: got %s", stamp)
	}
	w.plain("/cybersource/notifications", `{"forged":true}`)
	b.await(4)[3].wantSigned(t, []byte(`{}`), false)
	for body, want := range map[string]int{`{"organization":"nobody"}`: 404, `{"age":"old"}`: 400, `{"x":1}`: 400} {
		if r := w.plain("/cybersource/notifications", body); r.status != want {
			t.Errorf("%s: got %d, want %d", body, r.status, want)
		}
	}
}

func TestSubscribing(t *testing.T) {
	t.Parallel()
	b := newInbox(t)
	w := newWorld(t, func(c *Config) { c.AllowHTTPOrigins, c.NotifyRetryAfter = true, time.Millisecond })
	t.Cleanup(w.sim.Close)
	const hooks = "/notification-subscriptions/v2/webhooks"
	sub := object{
		"name": "pay-by-chat", "organizationId": testMerchant, "products": []Product{{productPayments, []string{"payments.capture.status.accepted"}}},
		"webhookUrl": b.server.URL + "/hook", "notificationScope": "SELF",
		"retryPolicy": object{"algorithm": "ARITHMETIC", "firstRetry": "1", "interval": 1, "numberOfRetries": 1, "deactivateFlag": "false"},
	}
	wantRefused(t, w.post(hooks, toJSON(t, sub)), 400, "INVALID_DATA") // no key to sign with
	keys := w.post("/kms/egress/v2/keys-sym", `{"clientRequestAction":"CREATE","keyInformation":{"provider":"nrtd","tenant":"testmerchant01","keyType":"sharedSecret","organizationId":"testmerchant01","expiryDuration":"365"}}`)
	if keys.status != 201 || keys.text("keyInformation.keyId") == "" || keys.text("keyInformation.key") == "" {
		t.Fatalf("key: got %d %s", keys.status, keys.body)
	}
	wantRefused(t, w.post("/kms/egress/v2/keys-sym", `{"clientRequestAction":"CREATE","keyInformation":{"keyType":"sharedSecret","organizationId":"othermerchant"}}`), 400, "INVALID_DATA")
	if r := w.get("/notification-subscriptions/v2/products/" + testMerchant); r.status != 200 || !strings.Contains(r.body, eventResults) {
		t.Errorf("products: got %d %s", r.status, r.body)
	}
	for field, value := range map[string]any{"organizationId": other, "webhookUrl": "ftp://x", "products": []Product{{"payments", []string{"payments.made"}}}} {
		wrong := object{}
		for k, v := range sub {
			wrong[k] = v
		}
		wrong[field] = value
		wantRefused(t, w.post(hooks, toJSON(t, wrong)), 400, "INVALID_DATA")
	}
	made := w.post(hooks, toJSON(t, sub))
	wantStatus(t, made, 201, subscriptionInactive)
	own := hooks + "/" + made.text("webhookId")
	w.approve("UNHEARD", "1.00", true)
	// A test delivery comes whatever the state; another merchant sees nothing of it all.
	wantStatus(t, w.post(strings.Replace(own, "/v2/", "/v1/", 1), ""), 201, "SUCCESS")
	b.want("payments.capture.status.accepted")
	if r := w.asOther().get(own); r.status != 404 {
		t.Errorf("another merchant's subscription: got %d", r.status)
	}
	// A good health check activates it.
	w.do("PATCH", own, `{"healthCheckUrl":"`+b.server.URL+`/health"}`)
	list := b.await(3)
	if list[1].path != "GET /health" || list[2].path != "POST /health" {
		t.Errorf("health check: got %s, %s", list[1].path, list[2].path)
	}
	for w.get(own).text("status") != subscriptionActive {
		time.Sleep(time.Millisecond) // the ping has been answered; its result is noted next
	}
	w.approve("HEARD", "1.00", true)
	if got := b.await(4)[3].summary(t); got != "payments.capture.status.accepted HEARD" {
		t.Errorf("got %s; the authorization was not subscribed to", got)
	}
	wantStatus(t, w.do("PUT", own+"/status", `{"status":"INACTIVE"}`), 200, subscriptionInactive)
	w.approve("MISSED", "1.00", true)
	wantStatus(t, w.do("PUT", own+"/status", `{"status":"ACTIVE"}`), 200, subscriptionActive)
	w.approve("AGAIN", "1.00", true)
	if got := b.await(5)[4].summary(t); got != "payments.capture.status.accepted AGAIN" {
		t.Errorf("got %s", got)
	}
	if r := w.get(hooks + "?organizationId=" + testMerchant + "&productId=payments"); r.status != 200 || !strings.Contains(r.body, made.text("webhookId")) {
		t.Errorf("list: got %d %s", r.status, r.body)
	}
	if r := w.do("DELETE", own, ""); r.status != 200 {
		t.Errorf("delete: got %d", r.status)
	}
	if r := w.get(own); r.status != 404 {
		t.Errorf("after its end: got %d", r.status)
	}
}

func TestResultOfTheWidgetIsNotified(t *testing.T) {
	t.Parallel()
	b := newInbox(t)
	w := newNotifiedWorld(t, b, func(c *Config) {
		c.Subscriptions[0].Products = []Product{{ID: productCheckout}}
	})
	w.approve("SERVER", "1.00", true) // not completed by the widget: not told
	w.complete("WIDGET")
	b.want("uc.orders.transactionresults")
	payload, _ := b.await(1)[0].json(t)["payload"].(map[string]any)
	details, _ := payload["details"].(map[string]any)
	if ref, _ := details["clientReferenceInformation"].(map[string]any); payload["outcome"] != "AUTHORIZED" || ref["code"] != "WIDGET" {
		t.Errorf("payload: got %v", payload)
	}
}

// complete pays as a page does whose widget completes by itself.
func (w *world) complete(code string) {
	w.t.Helper()
	body := session()
	body["completeMandate"] = object{"type": "CAPTURE"}
	body["data"].(object)["clientReferenceInformation"] = object{"code": code}
	context := w.post("/uc/v1/sessions", toJSON(w.t, body))
	page := func(path string, v any) response {
		w.t.Helper()
		req, err := http.NewRequest(http.MethodPost, w.server.URL+path, strings.NewReader(toJSON(w.t, v)))
		if err != nil {
			w.t.Fatal(err)
		}
		req.Header.Set("Origin", testOrigin)
		req.Header.Set("Content-Type", "application/json")
		res, err := w.server.Client().Do(req)
		r := decodeResponse(w.t, res, err)
		if r.status != http.StatusCreated {
			w.t.Fatalf("%s: got %d %s", path, r.status, r.body)
		}
		return r
	}
	frame := page("/uc/v1/clients", object{"captureContext": context.body}).text("frame")
	bill := madeUp("ZA")
	token := page("/flex/v2/tokens", object{"frame": frame, "card": object{"number": "4111111111111111", "expirationMonth": "12", "expirationYear": "2031", "securityCode": "123"}, "billTo": bill}).text("transientToken")
	if result := page("/flex/v2/complete", object{"frame": frame, "transientToken": token}).text("result"); result == "" {
		w.t.Fatal("no result")
	}
}
