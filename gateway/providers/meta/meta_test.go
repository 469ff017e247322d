package meta_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/meta"
	"paythread/gateway/providers/providertest"
)

const hello = `{"object":"whatsapp_business_account","entry":[{"id":"WABA1","changes":[{"field":"messages","value":{` +
	`"messaging_product":"whatsapp","metadata":{"display_phone_number":"15550783881","phone_number_id":"PN1"},` +
	`"contacts":[{"profile":{"name":"Zo\u00eb"},"wa_id":"16505551234"}],` +
	`"messages":[{"from":"16505551234","id":"wamid.A1","timestamp":"1781866800","type":"text","text":{"body":"hello caf\u00e9 \ud83d\udc4d a\/b"}}]}}]}]}`

func harness() providertest.Harness {
	return providertest.Harness{
		Registration: meta.Registration,
		Values: map[string]string{
			"api_version": "v25.0", "phone_number_id": "PN1", "waba_id": "WABA1",
			"access_token": "EAAB-access-token-for-tests", "app_secret": "current-app-secret", "app_secret_previous": "previous-app-secret",
			"verify_token": "verify-token-for-tests", "template_language": "en", "template_languages": "de, pt-BR de_CH",
			"template_payment": "payment_request", "template_receipt": "receipt_ready", "template_cancelled": "request_cancelled", "template_refund": "money_returned",
		},
		WebhookURL:      "https://pay.example.test/webhooks/sender_1",
		Siblings:        map[string]string{"PN1": "sender_1", "PN2": "sender_2"},
		SigningKeys:     []string{"app_secret", "app_secret_previous"},
		SignatureHeader: "X-Hub-Signature-256",
		Sign: func(w *providers.Webhook, key string) {
			mac := hmac.New(sha256.New, []byte(key))
			mac.Write(w.Body)
			w.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		},
		Webhook: providers.Webhook{
			Method: http.MethodPost, URL: "https://pay.example.test/webhooks/sender_1",
			Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(hello),
		},
		Reserialise: func(body []byte) []byte {
			var v any
			if json.Unmarshal(body, &v) != nil {
				return body
			}
			out, err := json.Marshal(v)
			if err != nil {
				return body
			}
			return out
		},
		Outbound: conversations.Outbound{
			MessageID: "msg_1", Correlation: "p03_msg.1", SenderID: "sender_1", Channel: conversations.WhatsApp,
			To: conversations.Address{Kind: conversations.AddressPhone, Value: "+16505551234"}, Purpose: conversations.PurposePayment,
			Text: "Acme Energy asks for ZAR 149.00.",
			Parameters: conversations.Parameters{
				Merchant: "Acme Energy", Amount: "ZAR 149.00", Order: "1042",
				LinkCode: "7Qk2mZ", Link: "https://pay.acme.example/p/7Qk2mZ", Locale: "en",
			},
		},
		Accept: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprint(w, `{"messaging_product":"whatsapp","contacts":[{"input":"+16505551234","wa_id":"16505551234"}],"messages":[{"id":"wamid.OUT1"}]}`)
		},
		Refuse: func(w http.ResponseWriter, status int, message string) {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
				"message": message, "type": message, "code": 999999, "fbtrace_id": message,
				"error_data": map[string]string{"details": message}, "error_user_msg": message,
			}})
		},
		Features: providertest.Features{RefusesWith5xx: true},
	}
}

func TestProvider(t *testing.T) {
	t.Parallel()
	providertest.Run(t, harness())
}

func FuzzParse(f *testing.F)  { providertest.FuzzParse(f, harness()) }
func FuzzVerify(f *testing.F) { providertest.FuzzVerify(f, harness()) }

func newProvider(t *testing.T, change map[string]string) *meta.Provider {
	t.Helper()
	h := harness()
	for k, v := range change {
		h.Values[k] = v
	}
	p, err := meta.New(providers.Settings{SenderID: "sender_1", WebhookURL: h.WebhookURL, Values: h.Values, Siblings: h.Siblings}, http.DefaultClient, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSignatureVectors holds Verify against signatures that another program
// made. The last two are right for another spelling of the same value.
func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	p := newProvider(t, map[string]string{"app_secret": "pbc-test-app-secret"})
	const envelope = `{"entry":[{"changes":[],"id":"0"}],"object":"whatsapp_business_account"}`
	const escaped = `{"text":"caf\u00e9 \ud83d\udc4d a\/b"}`
	for _, c := range []struct {
		name, body, signature string
		want                  error
	}{
		{"plain", envelope, "6891c40f650eb75bbe945b9f4f0d5af7e73d0ae7add4dd6247305466bd4b479c", nil},
		{"as on the wire", escaped, "50002dbbb08b78c0c14c8d30d7904f9b7b603d68d2b0675e363a14a539a00ae1", nil},
		{"signature of plain UTF-8", escaped, "85ad91e72def6899095db4fb46c1592738166d81786c992e6c874d8c3e49669d", providers.ErrSignature},
		{"signature of an unescaped slash", escaped, "ea69d34c741cf187e00b9e83bacb15466db609d765d4a2f896bcdfd730243b56", providers.ErrSignature},
		{"plain UTF-8 with the wire's signature", `{"text":"café 👍 a/b"}`, "50002dbbb08b78c0c14c8d30d7904f9b7b603d68d2b0675e363a14a539a00ae1", providers.ErrSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := providers.Webhook{Header: http.Header{"X-Hub-Signature-256": {"sha256=" + c.signature}}, Body: []byte(c.body)}
			if err := p.Verify(w); err != c.want { //nolint:errorlint // exactly this
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	p := newProvider(t, map[string]string{"verify_token": "my-token"})
	for _, c := range []struct{ name, query, want string }{
		{"right", "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=my-token", "1158201444"},
		{"the challenge is opaque", "hub.mode=subscribe&hub.challenge=007%3Cb%3E+x&hub.verify_token=my-token", "007<b> x"},
		{"wrong token", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=my-toke", ""},
		{"no token", "hub.mode=subscribe&hub.challenge=1", ""},
		{"wrong mode", "hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=my-token", ""},
		{"no challenge", "hub.mode=subscribe&hub.verify_token=my-token", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			query, err := url.ParseQuery(c.query)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := p.Handshake(providers.Webhook{Method: http.MethodGet, Query: query})
			if got != c.want || ok != (c.want != "") {
				t.Errorf("got %q and %t, want %q", got, ok, c.want)
			}
		})
	}
}

// TestLargestBatch parses what Meta may put into one POST at most: 1,000
// updates and 3 MB, from several accounts and numbers, one of them broken.
func TestLargestBatch(t *testing.T) {
	t.Parallel()
	const updates, broken = 1000, 500
	filler := strings.Repeat("x", 2900)
	var b bytes.Buffer
	b.WriteString(`{"object":"whatsapp_business_account","entry":[`)
	for i := range updates {
		if i > 0 {
			b.WriteString(",")
		}
		id := fmt.Sprintf("wamid.%d", i)
		if i == broken {
			id = `","id":"twice`
		}
		fmt.Fprintf(&b, `{"id":"WABA%d","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"PN%d"},"messages":[`+
			`{"id":"%s","from":"1650555%04d","timestamp":"1781866800","type":"text","text":{"body":"%s"}}]}}]}`, i%3, i%3, id, i, filler)
	}
	b.WriteString(`]}`)
	if b.Len() < 3_000_000 {
		t.Fatalf("the body has %d bytes, want 3 MB", b.Len())
	}
	got, err := newProvider(t, nil).Parse(providers.Webhook{Body: b.Bytes(), ReceivedAt: providertest.ReceivedAt})
	if err != nil {
		t.Fatal(err)
	}
	senders := map[string]int{}
	for _, in := range got {
		senders[in.SenderID+" "+in.MediaType]++
	}
	want := map[string]int{" ": 334, "sender_1 ": 333, "sender_2 ": 332, "sender_1 malformed": 1} // the broken one is of PN2
	if fmt.Sprint(senders) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", senders, want)
	}
}
