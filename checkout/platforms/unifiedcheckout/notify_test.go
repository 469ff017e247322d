package unifiedcheckout

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"paythread/checkout/platforms"
	"paythread/conversations"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

// The key and the deliveries of the test vectors: made up, as is the time.
const (
	hookKeyID    = "0c1f3f0e-6b0a-4c37-9d6e-0f3a5b9b7c11"
	hookKey      = "d2ViaG9vay1zaWduaW5nLWtleS0wMTIzNDU2Nzg5YWI="
	hookStamp    = "1768472462000"
	innerPayload = `{"id":"7681234567890123456789","status":"AUTHORIZED","outcome":"AUTHORIZED"}`
	wholeBody    = `{"eventType":"uc.orders.transactionresults","webhookId":"2d55e648-d96c-d727-e063-3cb8d30a938e","productId":"unifiedCheckout","organizationId":"testmerchant01","eventDate":"2026-01-15T10:21:02","payload":` + innerPayload + `}`
)

var hookTime = time.UnixMilli(1768472462000)

// hookSettings are settings with the vectors' key, the official sample's, and
// two private keys, of which the second is used.
func hookSettings(baseURL string) platforms.Settings {
	s := testSettings(baseURL)
	s.Values["webhook_keys"] = "old-key:dGVzdF9rZXk=, " + hookKeyID + ":" + hookKey
	s.Values["webhook_private_key"] = pemOf(signingKey()) + "\n" + pemOf(oneTimeKey())
	return s
}

func pemOf(key any) string {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func signedWith(key, stamp, text string) string {
	secret, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		panic(err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(stamp + "." + text))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// headers are those of a delivery, signed over a text.
func headers(text string) map[string]string {
	return map[string]string{"v-c-signature": "t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + signedWith(hookKey, hookStamp, text)}
}

func lookUp(h map[string]string) func(string) string {
	return func(name string) string { return h[name] }
}

func encrypted(t *testing.T, text string, change func(*jose.Recipient, *jose.EncrypterOptions, *jose.ContentEncryption)) string {
	t.Helper()
	to, options, content := jose.Recipient{Algorithm: jose.RSA_OAEP_256, Key: &oneTimeKey().PublicKey, KeyID: "k"}, jose.EncrypterOptions{}, jose.A256GCM
	if change != nil {
		change(&to, &options, &content)
	}
	e, err := jose.NewEncrypter(content, to, &options)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := e.Encrypt([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out, err := sealed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNotificationVectorD(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, hookSettings(""))
	official, ok := readSignature("t=1617830804768;keyId=old-key;sig=CzHY47nzJgCSD/BREtSIb+9l/vfkaaL4qf9n8MNJ4CY=")
	if !ok || !official.signs(p.webhook.keys["old-key"], []byte("this is a decrypted payload")) {
		t.Error("the official sample is not taken")
	}
	for name, sig := range map[string]string{
		"inner object": "jZa96ch+paUb7L5u7testE9BFjwHMU8e5N+dDRhw6uM=",
		"raw body":     "lCLKfBaBvKYLyW/0HmYFU9gf4GOZuOTLQ+/trH9ShXA=",
	} {
		for _, header := range []string{"t=%s;keyId=%s;sig=%s", "t=%s; keyId=%s; sig=%s", " t=%s ;keyId=%s ; sig=%s "} {
			h := map[string]string{"v-c-signature": fmt.Sprintf(header, hookStamp, hookKeyID, sig)}
			n, err := p.ReadNotification(lookUp(h), []byte(wholeBody), hookTime)
			if err != nil || !n.Known || n.TransactionID != "7681234567890123456789" || n.Product != "unifiedCheckout" || n.Type != "uc.orders.transactionresults" {
				t.Errorf("%s, %q: %+v, %v", name, header, n, err)
			}
		}
	}
}

func TestNotificationSignature(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, hookSettings(""))
	sig := signedWith(hookKey, hookStamp, wholeBody)
	flipped := []byte(sig)
	flipped[5] ^= 1
	for name, header := range map[string]string{
		"none":                "",
		"no parts":            "t",
		"no signature":        "t=" + hookStamp + ";keyId=" + hookKeyID,
		"no key":              "t=" + hookStamp + ";sig=" + sig,
		"another key":         "t=" + hookStamp + ";keyId=old-key;sig=" + sig,
		"an unknown key":      "t=" + hookStamp + ";keyId=x;sig=" + sig,
		"no time":             "keyId=" + hookKeyID + ";sig=" + sig,
		"another time":        "t=1768472462001;keyId=" + hookKeyID + ";sig=" + sig,
		"a time of more":      "t=+" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + sig,
		"an endless time":     "t=" + strings.Repeat("9", 30) + ";keyId=" + hookKeyID + ";sig=" + sig,
		"two times":           "t=" + hookStamp + ";t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + sig,
		"two signatures":      "t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + string(flipped) + ";sig=" + sig,
		"a bit changed":       "t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + string(flipped),
		"cut short":           "t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + sig[:len(sig)-4],
		"empty":               "t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=",
		"not base64":          "t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + strings.Repeat("!", 44),
		"a header too long":   "t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + sig + ";x=" + strings.Repeat("x", 1000),
		"of the empty text":   "t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + signedWith(hookKey, hookStamp, ""),
		"of another payload":  "t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + signedWith(hookKey, hookStamp, `{"id":"1"}`),
		"of its own envelope": "t=" + hookStamp + ";keyId=" + hookKeyID + ";sig=" + signedWith(hookKey, hookStamp, `"unifiedCheckout"`),
	} {
		if n, err := p.ReadNotification(lookUp(map[string]string{"v-c-signature": header}), []byte(wholeBody), hookTime); !errors.Is(err, platforms.ErrNotificationSignature) || n != (platforms.Notification{}) {
			t.Errorf("%s: %+v, %v, want ErrNotificationSignature", name, n, err)
		}
	}
	bare := newPlatform(t, testSettings(""))
	if _, err := bare.ReadNotification(lookUp(headers(wholeBody)), []byte(wholeBody), hookTime); !errors.Is(err, platforms.ErrNotificationSignature) {
		t.Errorf("without keys: %v", err)
	}
	for name, body := range map[string]string{"empty": "", "too large": wholeBody + strings.Repeat(" ", maxNotification)} {
		if _, err := p.ReadNotification(lookUp(headers(body)), []byte(body), hookTime); !errors.Is(err, platforms.ErrNotificationSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNotificationTime(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, hookSettings(""))
	short := hookSettings("")
	short.Values["webhook_tolerance"] = "5m"
	strict := newPlatform(t, short)
	for _, tt := range []struct {
		p    *Platform
		now  time.Time
		want error
	}{
		{p, hookTime, nil},
		{p, hookTime.Add(60 * time.Minute), nil},
		{p, hookTime.Add(60*time.Minute + time.Millisecond), platforms.ErrNotificationStale},
		{p, hookTime.Add(-5 * time.Minute), nil},
		{p, hookTime.Add(-5*time.Minute - time.Millisecond), platforms.ErrNotificationStale},
		{strict, hookTime.Add(5 * time.Minute), nil},
		{strict, hookTime.Add(6 * time.Minute), platforms.ErrNotificationStale},
	} {
		if _, err := tt.p.ReadNotification(lookUp(headers(wholeBody)), []byte(wholeBody), tt.now); !errors.Is(err, tt.want) {
			t.Errorf("%s after: %v, want %v", tt.now.Sub(hookTime), err, tt.want)
		}
	}
	forged := headers(wholeBody + " ")
	if _, err := p.ReadNotification(lookUp(forged), []byte(wholeBody), hookTime.Add(time.Hour*24)); !errors.Is(err, platforms.ErrNotificationSignature) {
		t.Errorf("forged and old: %v, want ErrNotificationSignature", err)
	}
}

// decision is a delivery that tells of the end of a review.
func decision(eventType, payload string) string {
	return `{"eventType":"` + eventType + `","webhookId":"w","productId":"decisionManager","organizationId":"testmerchant01","payload":` + payload + `}`
}

const (
	casePayload = `{"data":{"id":"7681234567890123456789","referenceNumber":"pr_07abc-1","notes":[{"comment":"ok"}]},"organizationId":"testmerchant01"}`
	accepted    = "risk.casemanagement.decision.accept"
	rejected    = "risk.casemanagement.decision.reject"
)

// What ends a review must have been signed with the rest. An envelope that was
// not is somebody's word.
func TestNotificationDecisionMustBeSigned(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, hookSettings(""))
	body := decision(accepted, casePayload)
	spaced := decision(accepted, strings.ReplaceAll(casePayload, `:`, ` : `))
	own := `{"eventType":"` + rejected + `","data":{"id":"7681234567890123456789"}}`
	list := `[{"eventType":"` + accepted + `","data":{"clientReferenceInformation":{"code":"pr_07abc-1"}}}]`
	for _, tt := range []struct {
		name, body, signed, header string
		want                       platforms.Review
	}{
		{"the whole", body, body, "", platforms.ReviewAccepted},
		{"the whole, rejected", decision(rejected, casePayload), decision(rejected, casePayload), "", platforms.ReviewRejected},
		{"the payload", body, casePayload, "", platforms.ReviewNone},
		{"the payload, which came with spaces", spaced, casePayload, "", platforms.ReviewNone},
		{"the payload with its spaces", spaced, strings.ReplaceAll(casePayload, `:`, ` : `), "", platforms.ReviewNone},
		{"the payload, and another envelope", decision(rejected, casePayload), casePayload, "", platforms.ReviewNone},
		{"the payload, and a header", `{"payload":` + casePayload + `}`, casePayload, accepted, platforms.ReviewNone},
		{"the whole, and the type in a header", `{"payload":` + casePayload + `}`, `{"payload":` + casePayload + `}`, accepted, platforms.ReviewNone},
		{"the payload that has the type itself", decision(accepted, own), own, "", platforms.ReviewRejected},
		{"a list of one", decision(accepted, list), list, "", platforms.ReviewAccepted},
		{"the whole, about nothing", decision(accepted, `{"data":{}}`), decision(accepted, `{"data":{}}`), "", platforms.ReviewNone},
		{"the whole, a profile's reject", decision("risk.profile.decision.reject", casePayload), decision("risk.profile.decision.reject", casePayload), "", platforms.ReviewNone},
		{"the whole, of another product", strings.Replace(body, "decisionManager", "payments", 1), strings.Replace(body, "decisionManager", "payments", 1), "", platforms.ReviewNone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := headers(tt.signed)
			h["v-c-event-type"] = tt.header
			n, err := p.ReadNotification(lookUp(h), []byte(tt.body), hookTime)
			if err != nil || n.Review != tt.want {
				t.Errorf("%+v, %v, want review %q", n, err, tt.want)
			}
			if tt.name != "the whole, about nothing" && n.TransactionID != "7681234567890123456789" && n.Code != "pr_07abc-1" {
				t.Errorf("%+v names nothing", n)
			}
		})
	}
	sealed := encrypted(t, body, nil)
	for name, text := range map[string]string{"the text inside": body, "the cipher": `{"encData":"` + sealed + `"}`} {
		if n, err := p.ReadNotification(lookUp(headers(text)), []byte(`{"encData":"`+sealed+`"}`), hookTime); err != nil || n.Review != platforms.ReviewAccepted {
			t.Errorf("encrypted, signed %s: %+v, %v", name, n, err)
		}
	}
}

// Everybody may encrypt to our public key: a cipher proves nothing, and nothing
// that was signed elsewhere proves a cipher beside it.
func TestNotificationCipherProvesNothing(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, hookSettings(""))
	forged := encrypted(t, decision(accepted, casePayload), nil)
	alone := encrypted(t, casePayload, nil)
	for name, body := range map[string]string{
		"a cipher beside a signed payload":              `{"encData":"` + forged + `","payload":` + innerPayload + `}`,
		"a cipher of a payload beside a signed payload": `{"encData":"` + alone + `","payload":` + innerPayload + `}`,
		"a cipher alone":                                `{"encData":"` + forged + `"}`,
		"a cipher as the body":                          forged,
	} {
		n, err := p.ReadNotification(lookUp(headers(innerPayload)), []byte(body), hookTime)
		if !errors.Is(err, platforms.ErrNotificationSignature) {
			t.Errorf("%s: %+v, %v, want ErrNotificationSignature", name, n, err)
		}
	}
	// A forged envelope around a signed payload, encrypted: still only the payload.
	around := encrypted(t, decision(accepted, casePayload), nil)
	if n, err := p.ReadNotification(lookUp(headers(casePayload)), []byte(`{"encData":"`+around+`"}`), hookTime); err != nil || n.Review != platforms.ReviewNone || n.Code != "pr_07abc-1" {
		t.Errorf("%+v, %v, want no decision", n, err)
	}
}

func TestNotificationEncrypted(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, hookSettings(""))
	whole := encrypted(t, wholeBody, nil)
	inside := encrypted(t, innerPayload, nil)
	outer := func(cipher string) string {
		return `{"eventType":"uc.orders.transactionresults","productId":"unifiedCheckout","payload":{"encData":"` + cipher + `"}}`
	}
	for _, tt := range []struct{ name, body, signed string }{
		{"all of it, signed inside", `{"encData":"` + whole + `"}`, wholeBody},
		{"all of it, signed outside", `{"encData":"` + whole + `"}`, `{"encData":"` + whole + `"}`},
		{"all of it, the payload signed", `{"encData":"` + whole + `"}`, innerPayload},
		{"all of it, spaced, signed compact", `{"encData":"` + encrypted(t, strings.ReplaceAll(wholeBody, ",", " ,\n"), nil) + `"}`, wholeBody},
		{"all of it, as it came, with an end of line", `{"encData":"` + encrypted(t, wholeBody+"\n", nil) + `"}`, wholeBody + "\n"},
		{"the cipher alone", whole, whole},
		{"the cipher alone, signed inside", whole, wholeBody},
		{"the payload, signed inside", outer(inside), innerPayload},
		{"the payload, the cipher signed", outer(inside), `{"encData":"` + inside + `"}`},
		{"the payload, signed outside", outer(inside), outer(inside)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n, err := p.ReadNotification(lookUp(headers(tt.signed)), []byte(tt.body), hookTime)
			if err != nil || n.TransactionID != "7681234567890123456789" || n.Type != "uc.orders.transactionresults" && tt.body != inside {
				t.Errorf("%+v, %v", n, err)
			}
		})
	}
	stranger := makeKey()
	for name, cipher := range map[string]string{
		"another's key": encrypted(t, wholeBody, func(r *jose.Recipient, _ *jose.EncrypterOptions, _ *jose.ContentEncryption) {
			r.Key = &stranger.PublicKey
		}),
		"RSA 1.5": encrypted(t, wholeBody, func(r *jose.Recipient, _ *jose.EncrypterOptions, _ *jose.ContentEncryption) {
			r.Algorithm = jose.RSA1_5
		}),
		"OAEP with SHA-1": encrypted(t, wholeBody, func(r *jose.Recipient, _ *jose.EncrypterOptions, _ *jose.ContentEncryption) {
			r.Algorithm = jose.RSA_OAEP
		}),
		"another content": encrypted(t, wholeBody, func(_ *jose.Recipient, _ *jose.EncrypterOptions, c *jose.ContentEncryption) { *c = jose.A128CBC_HS256 }),
		"a shared key": encrypted(t, wholeBody, func(r *jose.Recipient, _ *jose.EncrypterOptions, _ *jose.ContentEncryption) {
			r.Algorithm, r.Key = jose.DIRECT, bytes.Repeat([]byte("k"), 32)
		}),
		"cut short":            whole[:len(whole)-3],
		"nothing":              "....",
		"a text of no use":     encrypted(t, "hello", nil),
		"a text that is twice": encrypted(t, `{"eventType":"a","EventType":"b"}`, nil),
	} {
		body := `{"encData":"` + cipher + `"}`
		if n, err := p.ReadNotification(lookUp(headers(body)), []byte(body), hookTime); !errors.Is(err, platforms.ErrNotificationUnreadable) {
			t.Errorf("%s: %+v, %v, want ErrNotificationUnreadable", name, n, err)
		}
		if n, err := p.ReadNotification(lookUp(headers(wholeBody)), []byte(body), hookTime); !errors.Is(err, platforms.ErrNotificationSignature) {
			t.Errorf("%s, signed inside: %+v, %v, want ErrNotificationSignature", name, n, err)
		}
	}
	keyless := hookSettings("")
	delete(keyless.Values, "webhook_private_key")
	body := `{"encData":"` + whole + `"}`
	if _, err := newPlatform(t, keyless).ReadNotification(lookUp(headers(body)), []byte(body), hookTime); !errors.Is(err, platforms.ErrNotificationUnreadable) {
		t.Errorf("without a private key: %v", err)
	}
}

// The same news has the same key, however often and however late it comes; other
// news has another one, and so has a decision that was not signed.
func TestNotificationKey(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, hookSettings(""))
	read := func(body, signed string) platforms.Notification {
		t.Helper()
		n, err := p.ReadNotification(lookUp(headers(signed)), []byte(body), hookTime)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	delivery := func(retry int, more, payload string) string {
		return fmt.Sprintf(`{"eventType":"payments.capture.status.accepted","productId":"payments","transactionTraceId":"%d-x","retryNumber":%d%s,"payload":%s}`, retry, retry, more, payload)
	}
	first := read(delivery(0, "", innerPayload), delivery(0, "", innerPayload))
	for name, again := range map[string]string{
		"a repeat":                 delivery(1, `,"requestType":"RETRY"`, innerPayload),
		"written otherwise":        delivery(1, "", strings.ReplaceAll(innerPayload, ":", ": ")),
		"with more in the payload": delivery(2, "", strings.Replace(innerPayload, "{", `{"submitTimeUtc":"2026-01-15T10:21:02Z",`, 1)),
	} {
		if n := read(again, again); n.Key != first.Key || n.Key == "" {
			t.Errorf("%s: key %q, want %q", name, n.Key, first.Key)
		}
	}
	for name, other := range map[string]string{
		"another transaction": delivery(0, "", strings.Replace(innerPayload, "6789", "6780", 1)),
		"another status":      delivery(0, "", strings.Replace(innerPayload, "AUTHORIZED", "PENDING", 1)),
		"another type":        strings.Replace(delivery(0, "", innerPayload), "accepted", "rejected", 1),
	} {
		if n := read(other, other); n.Key == first.Key {
			t.Errorf("%s has the same key", name)
		}
	}
	whole, hint := read(decision(accepted, casePayload), decision(accepted, casePayload)), read(decision(accepted, casePayload), casePayload)
	if whole.Key == hint.Key {
		t.Error("a hint has the key of the decision, and would have it taken for known")
	}
	tms := func(n int, payload string) string {
		return fmt.Sprintf(`{"eventType":"tms.networktoken.updated","productId":"tokenManagement","retryNumber":%d,"payload":%s}`, n, payload)
	}
	one, again, two := tms(0, `{"data":{"x":1}}`), tms(1, `{ "data" : {"x":1} }`), tms(0, `{"data":{"x":2}}`)
	if a, b, c := read(one, one), read(again, again), read(two, two); a.Key != b.Key || a.Key == c.Key || a.TransactionID != "" {
		t.Errorf("without an id: keys %q %q %q", a.Key, b.Key, c.Key)
	}
}

func TestNotificationKinds(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, hookSettings(""))
	known := map[string]string{
		"uc.orders.transactionresults": "unifiedCheckout",
		"payByLink.merchant.payment":   "payByLink", "payByLink.customer.payment": "payByLink",
		accepted: "decisionManager", rejected: "decisionManager", "risk.profile.decision.reject": "decisionManager",
		"tms.networktoken.updated": "tokenManagement", "payments.payments.updated": "alternativePaymentMethods",
		"payments.payments.accepted": "eCheck", "payments.payments.failed": "eCheck", "payments.credits.accepted": "eCheck",
		"payments.credits.failed": "eCheck", "payments.voids.accepted": "eCheck", "payments.voids.failed": "eCheck",
		"invoicing.customer.invoice.paid": "customerInvoicing", "invoicing.customer.invoice.partial-payment": "customerInvoicing",
		"payments.payments.accept": "cardProcessing",
	}
	for _, what := range []string{"authorization", "capture", "refund", "credit", "void", "reversal"} {
		for _, how := range []string{"accepted", "updated", "rejected", "reviewed", "partiallyApproved"} {
			known["payments."+what+".status."+how] = "payments"
		}
	}
	delivery := func(product, name string) string {
		return `{"eventType":` + strconv.Quote(name) + `,"productId":` + strconv.Quote(product) + `,"payload":` + innerPayload + `}`
	}
	read := func(body string) platforms.Notification {
		t.Helper()
		n, err := p.ReadNotification(lookUp(headers(body)), []byte(body), hookTime)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, product := range known {
		if n := read(delivery(product, name)); !n.Known || n.Product != product || n.Type != name {
			t.Errorf("%s of %s: %+v", name, product, n)
		}
		if n := read(`{"eventType":"` + name + `","payload":` + innerPayload + `}`); !n.Known {
			t.Errorf("%s without a product: %+v", name, n)
		}
	}
	for _, other := range []string{
		delivery("newProduct", "new.thing.happened"), delivery("newProduct", "uc.orders.transactionresults"), delivery("unifiedCheckout", accepted),
		delivery("payments", "payments.capture.status."), delivery("tokenManagement", "tms.networktoken"), `{"payload":` + innerPayload + `}`,
		delivery("unifiedCheckout", "uc.orders.transactionresults\n{}"), delivery("unifiedCheckout", strings.Repeat("u", 1000)),
	} {
		if n := read(other); n.Known || n.Review != platforms.ReviewNone || strings.ContainsAny(n.Type+n.Product, "\n{ ") || len(n.Type) > 100 {
			t.Errorf("%.80s: %+v", other, n)
		}
	}
}

func TestNotificationShapes(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, hookSettings(""))
	for _, tt := range []struct{ name, payload, id, code string }{
		{"a result", `{"id":"768","details":{"clientReferenceInformation":{"code":"pr_07abc-1"}}}`, "768", "pr_07abc-1"},
		{"a transaction", `{"id":"768","clientReferenceInformation":{"code":"pr_07abc-op2"}}`, "768", "pr_07abc-op2"},
		{"a pending bank payment", `{"transactionResult":{"id":"768","status":"SETTLED"},"transactionStatus":{"url":"/x","method":"GET"}}`, "768", ""},
		{"with details of the result", `{"transactionResult":{"details":{"id":"768","clientReferenceInformation":{"code":"pr_07abc-1"}}}}`, "768", "pr_07abc-1"},
		{"a case", `{"data":{"id":"768","referenceNumber":"pr_07abc-1"}}`, "768", "pr_07abc-1"},
		{"a list of one", `[{"data":{"id":"768","clientReferenceInformation":{"code":"pr_07abc-1"}}}]`, "768", "pr_07abc-1"},
		{"an id as a number", `{"id":7681234567890123456789}`, "7681234567890123456789", ""},
		{"a huge number", `{"id":1e99999}`, "", ""},
		{"wrong types", `{"id":{"x":1},"data":[1,2],"details":"no","clientReferenceInformation":[],"transactionResult":null}`, "", ""},
		{"an id with a path", `{"id":"768/../x","clientReferenceInformation":{"code":"pr OR x"}}`, "", ""},
		{"nothing", `{}`, "", ""},
		{"null", `null`, "", ""},
		{"a text", `"this is a decrypted payload"`, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n, err := p.ReadNotification(lookUp(headers(tt.payload)), []byte(`{"eventType":"payments.capture.status.accepted","productId":"payments","payload":`+tt.payload+`}`), hookTime)
			if err != nil || n.TransactionID != tt.id || n.Code != tt.code || n.Key == "" {
				t.Errorf("%+v, %v, want %q and %q", n, err, tt.id, tt.code)
			}
		})
	}
	for name, body := range map[string]string{
		"not JSON":           "hello",
		"a list":             `[` + wholeBody + `]`,
		"a text":             `"x"`,
		"cut short":          wholeBody[:len(wholeBody)-1],
		"two of them":        wholeBody + wholeBody,
		"a member twice":     strings.Replace(wholeBody, "{", `{"eventType":"x",`, 1),
		"in other letters":   strings.Replace(wholeBody, "{", `{"EVENTTYPE":"x",`, 1),
		"twice further down": strings.Replace(wholeBody, innerPayload, `{"id":"1","id":"2"}`, 1),
		"a list of two":      strings.Replace(wholeBody, innerPayload, `[{"id":"1"},{"id":"2"}]`, 1),
		"very deep":          strings.Replace(wholeBody, innerPayload, strings.Repeat("[", 50_000)+strings.Repeat("]", 50_000), 1),
	} {
		if n, err := p.ReadNotification(lookUp(headers(body)), []byte(body), hookTime); !errors.Is(err, platforms.ErrNotificationUnreadable) {
			t.Errorf("%s: %+v, %v, want ErrNotificationUnreadable", name, n, err)
		}
	}
}

func TestNotificationSettings(t *testing.T) {
	t.Parallel()
	weak := `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----`
	for _, tt := range []struct{ name, value, wrong string }{
		{"webhook_keys", "", ""},
		{"webhook_keys", "a:dGVzdF9rZXk=", ""},
		{"webhook_keys", "a:dGVzdF9rZXk=,b:dGVzdF9rZXk=", ""},
		{"webhook_keys", "dGVzdF9rZXk=", "entry 1"},
		{"webhook_keys", "a:dGVzdF9rZXk=,b:not a secret!", "entry 2"},
		{"webhook_keys", "a:dGVzdF9rZXk=,", "entry 2"},
		{"webhook_keys", "a:", "entry 1"},
		{"webhook_keys", "a;b:dGVzdF9rZXk=", "entry 1"},
		{"webhook_keys", "a:dGVzdF9rZXk=,a:dGVzdF9rZXk=", "the same keyId"},
		{"webhook_private_key", "dGVzdF9rZXk=", "PEM"},
		{"webhook_private_key", pemOf(oneTimeKey()) + "and more", "PEM"},
		{"webhook_private_key", strings.ReplaceAll(pemOf(oneTimeKey()), "PRIVATE KEY", "CERTIFICATE"), "PEM"},
		{"webhook_private_key", weak, "RSA"},
		{"webhook_private_key", pemOf(oneTimeKey()), ""},
		{"webhook_tolerance", "5m", ""},
		{"webhook_tolerance", "5", "webhook_tolerance"},
		{"webhook_tolerance", "1s", "webhook_tolerance"},
		{"webhook_tolerance", "1000h", "webhook_tolerance"},
	} {
		s := testSettings("")
		s.Values[tt.name] = tt.value
		_, err := New(s, http.DefaultClient, quiet)
		if (err != nil) != (tt.wrong != "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s %.20q: %v, want %q", tt.name, tt.value, err, tt.wrong)
		}
		if err != nil && (strings.Contains(err.Error(), "dGVzdF9rZXk") || strings.Contains(err.Error(), "not a secret") || strings.Contains(err.Error(), "MC4CAQ")) {
			t.Errorf("%s: the error holds the secret: %v", tt.name, err)
		}
	}
}

// told is one delivery as it arrived.
type told struct {
	header http.Header
	body   []byte
}

// TestSimulatorNotifications has the simulator tell of one review in each of
// its ways, with every fault that it knows of deliveries.
func TestSimulatorNotifications(t *testing.T) {
	t.Parallel()
	for _, payload := range []string{cybersource.PayloadInner, cybersource.PayloadRaw, cybersource.PayloadEncrypted} {
		t.Run(payload, func(t *testing.T) {
			t.Parallel()
			arrived := make(chan told, 100)
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				arrived <- told{r.Header, body}
			}))
			t.Cleanup(receiver.Close)
			w := newWorld(t, func(c *cybersource.Config, values map[string]string) {
				for name, value := range hookSettings("").Values {
					if strings.HasPrefix(name, "webhook_") {
						values[name] = value
					}
				}
				c.Subscriptions = []cybersource.Subscription{{
					Organization: values["merchant_id"], URL: receiver.URL, KeyID: hookKeyID, Key: hookKey,
					Payload: payload, EncryptTo: &oneTimeKey().PublicKey, EncryptKeyID: "k",
				}}
			})
			t.Cleanup(w.simulator.Close)
			read := func(d told) (platforms.Notification, error) {
				return w.platform.ReadNotification(d.header.Get, d.body, time.Now())
			}
			next := func(eventType string) told {
				t.Helper()
				for {
					select {
					case d := <-arrived:
						if d.header.Get("v-c-event-type") == eventType {
							return d
						}
					case <-t.Context().Done():
						t.Fatal("it did not arrive")
					}
				}
			}
			a := w.charge("4000000000009235", true)
			w.want(a, conversations.OutcomeInReview)
			n, err := read(next("payments.authorization.status.reviewed"))
			if err != nil || !n.Known || n.TransactionID != a.Result.PaymentID || n.Code != a.Code || n.Review != platforms.ReviewNone {
				t.Errorf("reviewed: %+v, %v", n, err)
			}
			w.simulator.DecideReview(a.Result.PaymentID, true)
			d := next(accepted)
			n, err = read(d)
			want := platforms.ReviewAccepted
			if payload == cybersource.PayloadInner {
				want = platforms.ReviewNone // who says so is not signed: it is asked
			}
			if err != nil || !n.Known || n.TransactionID != a.Result.PaymentID || n.Code != a.Code || n.Review != want {
				t.Errorf("accepted: %+v, %v, want %q", n, err, want)
			}
			for i := range d.body {
				if i%7 != 0 {
					continue
				}
				changed := bytes.Clone(d.body)
				changed[i] ^= 0x20
				if got, err := w.platform.ReadNotification(d.header.Get, changed, time.Now()); err == nil && (got.TransactionID != n.TransactionID || got.Review != n.Review && got.Review != platforms.ReviewNone) {
					t.Errorf("changed at %d: %+v", i, got)
				}
			}
			w.breaks(faults.Rule{Call: cybersource.CallNotification, Do: faults.Forge, Times: 1})
			w.charge("4000000000009995", true)
			if got, err := read(next("payments.authorization.status.rejected")); !errors.Is(err, platforms.ErrNotificationSignature) {
				t.Errorf("forged: %+v, %v", got, err)
			}
		})
	}
}

func FuzzReadNotification(f *testing.F) {
	settings := hookSettings("")
	made, err := New(settings, http.DefaultClient, quiet)
	if err != nil {
		f.Fatal(err)
	}
	p := made.(*Platform)
	good := headers(wholeBody)["v-c-signature"]
	f.Add(good, wholeBody, uint8(0))
	f.Add(good, innerPayload, uint8(1))
	f.Add("t=1; keyId=x; sig=", `{"encData":"a.b.c.d.e"}`, uint8(2))
	f.Add("", decision(accepted, casePayload), uint8(3))
	f.Add("", `{"eventType":"`+accepted+`","payload":[{"data":{"id":"1"}}]}`, uint8(4))
	f.Fuzz(func(t *testing.T, header, body string, how uint8) {
		if _, err := p.ReadNotification(func(string) string { return header }, []byte(body), hookTime); err == nil && header != good {
			t.Fatalf("%q signs %q", header, body)
		}
		// Signed as a whole, anything may come, and only its payload: no decision.
		n, err := p.ReadNotification(lookUp(headers(body)), []byte(body), hookTime)
		if err == nil && (n.Key == "" || len(n.Type) > 100 || len(n.Code) > maxCode) {
			t.Fatalf("%+v of %q", n, body)
		}
		var envelope struct {
			Payload json.RawMessage `json:"payload"`
		}
		if json.Unmarshal([]byte(body), &envelope) != nil || len(envelope.Payload) == 0 || bytes.Contains(envelope.Payload, []byte("eventType")) || bytes.Contains(envelope.Payload, []byte(`\`)) {
			return
		}
		if n, err := p.ReadNotification(lookUp(headers(string(envelope.Payload))), []byte(body), hookTime); err == nil && n.Review != platforms.ReviewNone {
			t.Fatalf("a decision of an envelope that was not signed: %+v of %q", n, body)
		}
	})
}
