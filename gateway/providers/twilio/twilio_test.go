package twilio_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/providertest"
	"paythread/gateway/providers/twilio"
)

const (
	accountSID = "AC00000000000000000000000000000001"
	webhookURL = "https://pay.example.test/webhooks/sender_1"
)

var hello = url.Values{
	"AccountSid": {accountSID}, "ApiVersion": {"2010-04-01"}, "Body": {"hello é 👍 a/b"}, "From": {"+16505551234"}, "FromCity": {""},
	"MessageSid": {"SM00000000000000000000000000000002"}, "NumMedia": {"0"}, "NumSegments": {"1"}, "SmsStatus": {"received"}, "To": {"+15550783881"},
}

// harness is that of an SMS sender. Every request of the suite is held to
// Twilio's description of its API.
func harness(t testing.TB) providertest.Harness {
	return providertest.Harness{
		Registration: described(t, conversations.SMS),
		Values: map[string]string{
			"account_sid": accountSID, "auth_token": "current-auth-token", "auth_token_previous": "previous-auth-token",
			"api_key_sid": "SK00000000000000000000000000000003", "api_key_secret": "api-key-secret-for-tests",
			"from": "+15550783881", "messaging_service_sid": "MG00000000000000000000000000000004", "validity_period": "3600",
		},
		WebhookURL:      webhookURL,
		SigningKeys:     []string{"auth_token", "auth_token_previous"},
		SignatureHeader: "X-Twilio-Signature",
		Sign: func(w *providers.Webhook, key string) {
			form, err := url.ParseQuery(string(w.Body))
			if err != nil {
				return // Twilio sends no such form
			}
			signed := w.URL
			for _, name := range slices.Sorted(maps.Keys(form)) {
				signed += name + strings.Join(form[name], "")
			}
			w.Header.Set("X-Twilio-Signature", sign(key, signed))
		},
		Webhook: providers.Webhook{
			Method: http.MethodPost, URL: webhookURL, Body: []byte(hello.Encode()),
			Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=UTF-8"}},
		},
		Reserialise: func(body []byte) []byte { // as middleware does that drops what is empty
			form, err := url.ParseQuery(string(body))
			if err != nil {
				return body
			}
			maps.DeleteFunc(form, func(_ string, v []string) bool { return v[0] == "" })
			return []byte(form.Encode())
		},
		Outbound: conversations.Outbound{
			MessageID: "msg_1", Correlation: "p03_msg.1", SenderID: "sender_1", Channel: conversations.SMS,
			To: conversations.Address{Kind: conversations.AddressPhone, Value: "+16505551234"}, Purpose: conversations.PurposePayment,
			Text: "Acme Energy asks for ZAR 149.00: https://pay.acme.example/p/7Qk2mZ",
		},
		Accept: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			_, _ = fmt.Fprint(w, `{"sid":"SM00000000000000000000000000000009","status":"accepted","error_code":null}`)
		},
		Refuse: func(w http.ResponseWriter, status int, message string) {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"code": 99999, "message": message, "more_info": message, "status": status})
		},
		Features: providertest.Features{SignsParameters: true},
	}
}

func sign(key, signed string) string {
	mac := hmac.New(sha1.New, []byte(key))
	mac.Write([]byte(signed))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// whatsAppHarness is that of a WhatsApp sender. Its cases lie in
// testdata/whatsapp, where the caller must stand.
func whatsAppHarness(t testing.TB) providertest.Harness {
	h := harness(t)
	h.Registration = described(t, conversations.WhatsApp)
	maps.Copy(h.Values, map[string]string{
		"content_payment":   "en=HX00000000000000000000000000000001, de=HX00000000000000000000000000000002, pt_BR=HX00000000000000000000000000000003",
		"content_receipt":   "HX00000000000000000000000000000004",
		"content_cancelled": "de=HX00000000000000000000000000000006, en=HX00000000000000000000000000000005",
		"content_refund":    "HX00000000000000000000000000000007",
	})
	delete(h.Values, "messaging_service_sid")                                                       // a service would have other numbers as well
	h.Siblings = map[string]string{"whatsapp:+15550783889": "sender_2", "+15550783881": "sender_3"} // the SMS of its own number
	form := maps.Clone(hello)
	maps.Copy(form, url.Values{"From": {"whatsapp:+16505551234"}, "To": {"whatsapp:+15550783881"}, "MessageType": {"text"}, "WaId": {"16505551234"}})
	h.Webhook.Body = []byte(form.Encode())
	h.Outbound.Channel = conversations.WhatsApp
	h.Outbound.Text = "Acme Energy asks you to pay ZAR 149.00."
	h.Outbound.Parameters = conversations.Parameters{
		Merchant: "Acme Energy", Amount: "ZAR 149.00", Order: "1042", Locale: "en",
		LinkCode: "7Qk2mZ", Link: "https://pay.acme.example/p/7Qk2mZ",
	}
	return h
}

func TestProvider(t *testing.T) {
	t.Parallel()
	providertest.Run(t, harness(t))
}

// TestWhatsApp is not parallel: the suite reads its cases from the folder that
// the test stands in.
func TestWhatsApp(t *testing.T) {
	t.Chdir("testdata/whatsapp")
	providertest.Run(t, whatsAppHarness(t))
}

func FuzzParse(f *testing.F)  { providertest.FuzzParse(f, harness(f)) }
func FuzzVerify(f *testing.F) { providertest.FuzzVerify(f, harness(f)) }
func FuzzParseWhatsApp(f *testing.F) {
	// The processes that try out changed inputs begin where this one stands.
	if _, err := os.Stat("testdata/whatsapp"); err == nil {
		f.Chdir("testdata/whatsapp")
	}
	providertest.FuzzParse(f, whatsAppHarness(f))
}

func newProvider(t *testing.T, values map[string]string) *twilio.Provider {
	t.Helper()
	p, err := twilio.New(providers.Settings{SenderID: "sender_1", WebhookURL: webhookURL, Values: values}, http.DefaultClient, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func with(change map[string]string) map[string]string {
	values := map[string]string{"account_sid": accountSID, "auth_token": "pbc-test-auth-token", "from": "+15550783881"}
	maps.Copy(values, change)
	return values
}

// TestSignatureVectors holds Verify against signatures that another program
// made, for the address as configured, with and without the port.
func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	p := newProvider(t, with(nil))
	const (
		inbound = "https://pay.example.test/hooks/twilio/inbound?tenant=7"
		status  = "https://pay.example.test/hooks/twilio/status"
		body4   = `{"MessageSid":"SM4","MessageStatus":"read"}`
		query4  = "bodySHA256=36d46129d2eaaa80ecd3afb23ca4fb214cc13ac315fa6869e8c58379fa88217c"
		form    = "application/x-www-form-urlencoded"
	)
	v1 := url.Values{
		"AccountSid": {accountSID}, "ApiVersion": {"2010-04-01"}, "Body": {"Paid, thanks é 👍"}, "From": {"whatsapp:+16505551234"},
		"MessageSid": {"SM00000000000000000000000000000002"}, "SmsMessageSid": {"SM00000000000000000000000000000002"}, "SmsSid": {"SM00000000000000000000000000000002"},
		"MessageType": {"text"}, "NumMedia": {"0"}, "NumSegments": {"1"}, "ProfileName": {"Zoë"}, "SmsStatus": {"received"}, "To": {"whatsapp:+15550783881"}, "WaId": {"16505551234"},
	}.Encode()
	v2 := "MessageStatus=delivered&ErrorCode=&MessageSid=SM3"
	refused := providers.ErrSignature
	for _, c := range []struct {
		name, method, url, contentType, body, signature string
		want                                            error
	}{
		{"V1", "POST", inbound, form, v1, "ThzO8ghEaLXYTrKj2mFuK/N/2UE=", nil},
		{"V1 with the port", "POST", inbound, form, v1, "/lSrTpNbgh74OjXSs4Z4XdaG1aw=", nil},
		{"V1 configured with the port, signed without", "POST", strings.Replace(inbound, ".test/", ".test:443/", 1), form, v1, "ThzO8ghEaLXYTrKj2mFuK/N/2UE=", nil},
		{"V1 with a fragment, which is not signed", "POST", inbound + "#rc=3", form, v1, "ThzO8ghEaLXYTrKj2mFuK/N/2UE=", nil},
		{"V1 signed as http", "POST", inbound, form, v1, "aGa71maoUaUGj+kLlWTuJ7buWrw=", refused},
		{"V1 without the query", "POST", strings.TrimSuffix(inbound, "?tenant=7"), form, v1, "ThzO8ghEaLXYTrKj2mFuK/N/2UE=", refused},
		{"V1 on another port", "POST", strings.Replace(inbound, ".test/", ".test:8443/", 1), form, v1, "ThzO8ghEaLXYTrKj2mFuK/N/2UE=", refused},
		{"V1 as another type of body", "POST", inbound, "text/plain", v1, "ThzO8ghEaLXYTrKj2mFuK/N/2UE=", refused},
		{"V1 as another method", "GET", inbound, form, v1, "ThzO8ghEaLXYTrKj2mFuK/N/2UE=", refused},
		{"V2", "POST", status, form, v2, "hwSWWoC2tqEQHRKmBERjH3fEHBY=", nil},
		{"V2 signed without the empty parameter", "POST", status, form, v2, "XUDGc6bPmMfPR2tlmhSup0ASGV0=", refused},
		{"V2 without the empty parameter", "POST", status, form, "MessageStatus=delivered&MessageSid=SM3", "hwSWWoC2tqEQHRKmBERjH3fEHBY=", refused},
		{"V3", "POST", status, form, "b=1&A=2&a=3&B=4", "fWrWiCxadgMM1F+9hoGUiZR6XcE=", nil},
		{"V4", "POST", status + "?" + query4, "application/json", body4, "hNVVz54K479qYTxJ6X3uYjB+Arc=", nil},
		{"V4 with another body", "POST", status + "?" + query4, "application/json", strings.Replace(body4, "read", "sent", 1), "hNVVz54K479qYTxJ6X3uYjB+Arc=", refused},
		{"V4 re-serialised", "POST", status + "?" + query4, "application/json", strings.ReplaceAll(body4, ",", ", "), "hNVVz54K479qYTxJ6X3uYjB+Arc=", refused},
		{"V4 with the hash of another body", "POST", status + "?bodySHA256=" + strings.Repeat("0", 64), "application/json", body4, "hNVVz54K479qYTxJ6X3uYjB+Arc=", refused},
		{"V4 without the hash", "POST", status, "application/json", body4, "hNVVz54K479qYTxJ6X3uYjB+Arc=", refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(c.url)
			if err != nil {
				t.Fatal(err)
			}
			w := providers.Webhook{
				Method: c.method, URL: c.url, Query: u.Query(), Body: []byte(c.body),
				Header: http.Header{"X-Twilio-Signature": {c.signature}, "Content-Type": {c.contentType}},
			}
			if err := p.Verify(w); err != c.want { //nolint:errorlint // exactly this
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestSignedStrings checks what is signed in cases that the vectors leave out.
func TestSignedStrings(t *testing.T) {
	t.Parallel()
	p := newProvider(t, with(nil))
	const form = "application/x-www-form-urlencoded"
	for _, c := range []struct{ name, method, url, body, signed string }{
		{"GET", "GET", "https://a.example/x?m=1", "", "https://a.example/x?m=1"},
		{"GET with the port", "GET", "https://a.example/x?m=1", "", "https://a.example:443/x?m=1"},
		{"http with its port", "POST", "http://a.example/x", "A=1", "http://a.example:80/xA1"},
		{"http without its port", "POST", "http://a.example:80/x", "A=1", "http://a.example/xA1"},
		{"a port that is not the scheme's", "POST", "https://a.example:8443/x", "A=1", "https://a.example:8443/xA1"},
		{"user and password", "POST", "https://u:p@a.example/x", "A=1", "https://u:p@a.example:443/xA1"},
		{"IPv6", "POST", "https://[::1]/x", "A=1", "https://[::1]:443/xA1"},
		{"no path", "POST", "https://a.example?x=1", "A=1", "https://a.example:443?x=1A1"},
		{"empty form", "POST", "https://a.example/x", "", "https://a.example/x"},
		{"twice, every value", "POST", "https://a.example/x", "A=2&A=1&A=2", "https://a.example/xA2A1A2"},
		{"twice, as a sorted set", "POST", "https://a.example/x", "A=2&A=1&A=2", "https://a.example/xA1A2"},
		{"twice, the first", "POST", "https://a.example/x", "A=2&A=1&A=2", "https://a.example/xA2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := providers.Webhook{
				Method: c.method, URL: c.url, Body: []byte(c.body),
				Header: http.Header{"X-Twilio-Signature": {sign("pbc-test-auth-token", c.signed)}, "Content-Type": {form}},
			}
			if err := p.Verify(w); err != nil {
				t.Errorf("got %v, want it trusted", err)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	const hx1, hx2 = "HX00000000000000000000000000000001", "HX00000000000000000000000000000002"
	for _, c := range []struct {
		name    string
		channel conversations.Channel
		change  map[string]string
		want    string // part of the error, empty for none
	}{
		{"least", "", nil, ""},
		{"only a service", "", map[string]string{"from": "", "messaging_service_sid": "MG00000000000000000000000000000004"}, ""},
		{"a name", "", map[string]string{"from": "Acme Energy"}, ""},
		{"a name of digits with a letter", "", map[string]string{"from": "4Acme"}, ""},
		{"a short code", "", map[string]string{"from": "30303"}, ""},
		{"a national number", "", map[string]string{"from": "0825551234"}, "from must be"},
		{"a name too long", "", map[string]string{"from": "Acme Energy 1"}, "from must be"},
		{"a token with a line feed", "", map[string]string{"auth_token": "current-token\n"}, "auth_token must not hold white space"},
		{"a key's secret with a space", "", map[string]string{"api_key_sid": "SK00000000000000000000000000000003", "api_key_secret": " x"}, "api_key_secret must not hold white space"},
		{"neither number nor service", "", map[string]string{"from": ""}, "from or messaging_service_sid"},
		{"key without secret", "", map[string]string{"api_key_sid": "SK00000000000000000000000000000003"}, "go together"},
		{"secret without key", "", map[string]string{"api_key_secret": "s"}, "go together"},
		{"account", "", map[string]string{"account_sid": "AC1"}, "account_sid"},
		{"a WhatsApp sender for SMS", "", map[string]string{"from": "whatsapp:+15550783881"}, "from"},
		{"validity", "", map[string]string{"validity_period": "36001"}, "validity_period"},
		{"messaging address", "", map[string]string{"messaging_url": "messaging.example"}, "messaging_url"},
		{"content address", "", map[string]string{"content_url": "https://u:p@content.example"}, "content_url"},
		{"a template for SMS", "", map[string]string{"content_receipt": hx1}, "content_receipt is for WhatsApp"},

		{"WhatsApp", conversations.WhatsApp, nil, ""},
		{"WhatsApp, as Twilio spells it", conversations.WhatsApp, map[string]string{"from": "whatsapp:+15550783881"}, ""},
		{"WhatsApp by a service", conversations.WhatsApp, map[string]string{"from": "", "messaging_service_sid": "MG00000000000000000000000000000004"}, ""},
		{"WhatsApp from a name", conversations.WhatsApp, map[string]string{"from": "Acme Energy"}, "from must be the number of a WhatsApp sender"},
		{"WhatsApp from nobody", conversations.WhatsApp, map[string]string{"from": ""}, "from or messaging_service_sid"},
		{"one template", conversations.WhatsApp, map[string]string{"content_payment": hx1}, ""},
		{"templates", conversations.WhatsApp, map[string]string{"content_payment": " en = " + hx1 + " ,de=" + hx2}, ""},
		{"templates, the default in another spelling", conversations.WhatsApp, map[string]string{"content_language": "pt_BR", "content_payment": "pt-br=" + hx1}, ""},
		{"a template's name", conversations.WhatsApp, map[string]string{"content_payment": "payment_request"}, "content_payment must be HX"},
		{"no template for the default", conversations.WhatsApp, map[string]string{"content_payment": "de=" + hx1}, "content_payment names no template for en"},
		{"two for a language", conversations.WhatsApp, map[string]string{"content_payment": "en=" + hx1 + ",EN=" + hx2}, "content_payment names two templates for EN"},
		{"a language without a template", conversations.WhatsApp, map[string]string{"content_cancelled": "en=" + hx1 + ",de"}, "content_cancelled must be HX"},
		{"an end too many", conversations.WhatsApp, map[string]string{"content_receipt": "en=" + hx1 + ","}, "content_receipt must be HX"},
		{"the default language", conversations.WhatsApp, map[string]string{"content_language": "English (US)"}, "content_language"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := twilio.New(providers.Settings{SenderID: "s", Channel: c.channel, WebhookURL: webhookURL, Values: with(c.change)}, http.DefaultClient, slog.New(slog.DiscardHandler))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// TestTemplate holds which template is named for what.
func TestTemplate(t *testing.T) {
	t.Parallel()
	const en, de, pt, any = "HX00000000000000000000000000000001", "HX00000000000000000000000000000002", "HX00000000000000000000000000000003", "HX00000000000000000000000000000004"
	values := with(map[string]string{"content_payment": "de=" + de + ", en=" + en + ", pt_BR=" + pt, "content_receipt": any})
	p, err := twilio.New(providers.Settings{SenderID: "s", Channel: conversations.WhatsApp, WebhookURL: webhookURL, Values: values}, http.DefaultClient, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		purpose        conversations.Purpose
		free           bool
		locale         string
		name, language string
	}{
		{conversations.PurposePayment, false, "de", de, "de"},
		{conversations.PurposePayment, false, "de-AT", de, "de"},
		{conversations.PurposePayment, false, "pt-BR", pt, "pt_BR"},
		{conversations.PurposePayment, false, "pt", en, "en"}, // Brazil's is not everybody's
		{conversations.PurposePayment, false, "zu-ZA", en, "en"},
		{conversations.PurposePayment, false, "", en, "en"},
		{conversations.PurposePayment, true, "de", "", ""},
		{conversations.PurposeReceipt, false, "de", any, "en"},
		{conversations.PurposeCancelled, false, "de", "", ""},
		{conversations.PurposeRefund, false, "de", "", ""},
		{conversations.PurposeReply, false, "de", "", ""},
	} {
		name, language := p.Template(conversations.Outbound{Purpose: c.purpose, Template: !c.free, Parameters: conversations.Parameters{Locale: c.locale}})
		if name != c.name || language != c.language {
			t.Errorf("%s in %q: got %q in %q, want %q in %q", c.purpose, c.locale, name, language, c.name, c.language)
		}
	}
}

// TestWhoseNumber holds to which sender a message belongs by the number that
// it came to.
func TestWhoseNumber(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change map[string]string
		to     string
		want   string
	}{
		{"its own", nil, "+15550783881", "sender_1"},
		{"not told", nil, "", "sender_1"},
		{"another", nil, "+15550783882", ""},
		{"a sibling's", nil, "+15550783889", "sender_2"},
		{"one of a service", map[string]string{"messaging_service_sid": "MG00000000000000000000000000000004"}, "+15550783882", "sender_1"},
		{"to a name, which has no number", map[string]string{"from": "Acme"}, "+15550783882", "sender_1"},
	} {
		p, err := twilio.New(providers.Settings{
			SenderID: "sender_1", WebhookURL: webhookURL, Values: with(c.change), Siblings: map[string]string{"+15550783889": "sender_2"},
		}, http.DefaultClient, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		form := maps.Clone(hello)
		form.Set("To", c.to)
		got, err := p.Parse(providers.Webhook{Method: http.MethodPost, Body: []byte(form.Encode()), Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}})
		if err != nil || len(got) != 1 || got[0].SenderID != c.want {
			t.Errorf("%s: got %+v and %v, want the sender %q", c.name, got, err, c.want)
		}
	}
}

// TestCallbackHost: Twilio takes no StatusCallback whose host has an
// underscore, so no message would ever go out.
func TestCallbackHost(t *testing.T) {
	t.Parallel()
	_, err := twilio.New(providers.Settings{
		SenderID: "sender_1", WebhookURL: "https://pay_acme.example.test/webhooks/sender_1", Values: with(nil),
	}, http.DefaultClient, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "21609") {
		t.Errorf("got %v, want it refused", err)
	}
}
