package clickatell_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/clickatell"
	"paythread/gateway/providers/providertest"
)

const (
	webhookURL     = "https://pay.example.test/webhooks/sender_1"
	secret         = "q8Zr1-vX4kLw7Tn_2bYh5JmC9dPs0GfA"
	previousSecret = "H3uE6tBx9cQ_1aWz-7oRiK5nVy2MgL8D"
)

const hello = `{"integrationId":"int1","integrationName":"Acme","event":{"moText":[{"channel":"sms","messageId":"mo1","relatedMessageId":null,` +
	`"relatedClientMessageId":null,"from":"16505551234","to":"15550783881","timestamp":1781866800000,"content":"hello é 👍 a/b","charset":"UTF-8",` +
	`"sms":{"network":"310260"},"whatsapp":null}]}}`

// harness is an SMS sender whose callbacks come with secret, user and
// password.
func harness() providertest.Harness {
	return providertest.Harness{
		Registration: clickatell.Registration,
		Values: map[string]string{
			"api_key": "KuUgDS0pSiOYrnltdo0opA==", "integration_id": "int1", "from": "15550783881",
			"webhook_secret": secret, "webhook_secret_previous": previousSecret,
			"webhook_user": "clickatell", "webhook_password": "current-password-for-tests", "webhook_password_previous": "previous-password-for-tests",
			"template_language": "en", "template_payment": "en=payment_request,de=payment_request_de", "template_receipt": "payment_receipt", "template_cancelled": "payment_cancelled",
			"template_refund": "payment_refunded",
		},
		WebhookURL:  webhookURL,
		Siblings:    map[string]string{"sms": "sender_1", "whatsapp": "sender_2"},
		SigningKeys: []string{"webhook_secret", "webhook_secret_previous"},
		Sign: func(w *providers.Webhook, key string) {
			w.URL = webhookURL + "/" + key
			w.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("clickatell:current-password-for-tests")))
		},
		Webhook: providers.Webhook{
			Method: http.MethodPost, URL: webhookURL, Body: []byte(hello), Header: http.Header{"Content-Type": {"application/json"}},
		},
		Outbound: conversations.Outbound{
			MessageID: "msg_1", Correlation: "p03_msg.1", SenderID: "sender_1", Channel: conversations.SMS,
			To: conversations.Address{Kind: conversations.AddressPhone, Value: "+16505551234"}, Purpose: conversations.PurposePayment,
			Text: "Acme Energy asks for ZAR 149.00: https://pay.acme.example/p/7Qk2mZ",
			Parameters: conversations.Parameters{
				Merchant: "Acme Energy", Amount: "ZAR 149.00", Order: "1042", LinkCode: "7Qk2mZ", Link: "https://pay.acme.example/p/7Qk2mZ", Locale: "en",
			},
		},
		Accept: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			_, _ = fmt.Fprint(w, `{"messages":[{"apiMessageId":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","accepted":true,"to":"16505551234","clientMessageId":"p03_msg.1","error":null}],"error":null}`)
		},
		Refuse: func(w http.ResponseWriter, status int, message string) {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": nil, "messages": []any{map[string]any{
				"apiMessageId": nil, "accepted": false, "to": "16505551234", "clientMessageId": "p03_msg.1",
				"error": map[string]any{"code": 99999, "description": message},
			}}})
		},
		Features: providertest.Features{Unsigned: true},
	}
}

// onWhatsApp is the WhatsApp sender of the same integration.
func onWhatsApp() providertest.Harness {
	h := harness()
	h.Channel, h.Testdata = conversations.WhatsApp, "testdata/whatsapp"
	h.Siblings = map[string]string{"sms": "sender_2", "whatsapp": "sender_1"}
	h.Outbound.Channel, h.Outbound.Text = conversations.WhatsApp, "Acme Energy asks for ZAR 149.00."
	h.Webhook.Body = bytes.Replace(h.Webhook.Body, []byte(`"channel":"sms"`), []byte(`"channel":"whatsapp"`), 1)
	return h
}

func TestProvider(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]providertest.Harness{"sms": harness(), "whatsapp": onWhatsApp()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			providertest.Run(t, h)
		})
	}
}

func FuzzParse(f *testing.F)         { providertest.FuzzParse(f, harness()) }
func FuzzParseWhatsApp(f *testing.F) { providertest.FuzzParse(f, onWhatsApp()) }
func FuzzVerify(f *testing.F)        { providertest.FuzzVerify(f, harness()) }

// least are the settings of a sender without anything optional.
func least(change map[string]string) map[string]string {
	values := map[string]string{"api_key": "k", "webhook_secret": secret}
	maps.Copy(values, change)
	maps.DeleteFunc(values, func(_, v string) bool { return v == "" })
	return values
}

func made(channel conversations.Channel, values map[string]string) (*clickatell.Provider, error) {
	return clickatell.New(providers.Settings{
		SenderID: "sender_1", Channel: channel, WebhookURL: webhookURL, Values: values,
	}, http.DefaultClient, slog.New(slog.DiscardHandler))
}

func newProvider(t *testing.T, channel conversations.Channel, values map[string]string) *clickatell.Provider {
	t.Helper()
	p, err := made(channel, values)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSettings(t *testing.T) {
	t.Parallel()
	const password = "sixteen-and-more"
	for _, c := range []struct {
		name   string
		change map[string]string
		want   string // part of the error, empty for none
	}{
		{"least", nil, ""},
		{"user instead of a secret", map[string]string{"webhook_secret": "", "webhook_user": "u", "webhook_password": password}, ""},
		{"neither secret nor user", map[string]string{"webhook_secret": ""}, "webhook_secret or webhook_user is missing"},
		{"secret too short", map[string]string{"webhook_secret": secret[1:]}, "webhook_secret must be"},
		{"secret that an address would spell otherwise", map[string]string{"webhook_secret": secret + "/x"}, "webhook_secret must be"},
		{"previous secret too short", map[string]string{"webhook_secret_previous": "short"}, "webhook_secret_previous must be"},
		{"previous secret alone", map[string]string{"webhook_secret": "", "webhook_secret_previous": secret, "webhook_user": "u", "webhook_password": password}, "webhook_secret_previous without"},
		{"user without password", map[string]string{"webhook_user": "u"}, "go together"},
		{"password without user", map[string]string{"webhook_password": password}, "go together"},
		{"password too short", map[string]string{"webhook_user": "u", "webhook_password": "short"}, "webhook_password must have"},
		{"previous password alone", map[string]string{"webhook_password_previous": password}, "webhook_password_previous without"},
		{"user with a colon", map[string]string{"webhook_user": "a:b", "webhook_password": password}, "webhook_user must be"},
		{"key with a space", map[string]string{"api_key": "Bearer k"}, "api_key"},
		{"number with +", map[string]string{"from": "+15550783881"}, "from must be"},
		{"integration", map[string]string{"integration_id": "a b"}, "integration_id"},
		{"template", map[string]string{"template_payment": "a b"}, "template_payment must be"},
		{"template without its language", map[string]string{"template_payment": "en=a,b"}, "template_payment must be"},
		{"template twice", map[string]string{"template_receipt": "en=a,EN=b"}, "template_receipt names two templates for EN"},
		{"template without the default language", map[string]string{"template_cancelled": "de=a,fr=b"}, "template_cancelled names no template for en"},
		{"template in another default language", map[string]string{"template_language": "pt_BR", "template_payment": "en=a,pt-br=b"}, ""},
		{"template language", map[string]string{"template_language": "english"}, "template_language"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := made(conversations.SMS, least(c.change))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), password)) {
				t.Errorf("the error %v holds a secret", err)
			}
		})
	}
	if _, err := made("fax", least(nil)); err == nil || !strings.Contains(err.Error(), "channel") {
		t.Errorf("a channel of no kind: got %v", err)
	}
	if _, err := clickatell.New(providers.Settings{SenderID: "s", Channel: conversations.SMS, Values: least(nil)}, http.DefaultClient, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "webhooks") {
		t.Errorf("without an address: got %v", err)
	}
}

// TestTrust walks through what is configured and what comes: everything that
// is configured must be there, and nothing else counts.
func TestTrust(t *testing.T) {
	t.Parallel()
	const current, previous = "current-password", "previous-password"
	basic := func(userAndPassword string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(userAndPassword))
	}
	paths := newProvider(t, conversations.SMS, least(map[string]string{"webhook_secret_previous": previousSecret}))
	users := newProvider(t, conversations.SMS, least(map[string]string{
		"webhook_secret": "", "webhook_user": "u", "webhook_password": current, "webhook_password_previous": previous,
	}))
	both := newProvider(t, conversations.SMS, least(map[string]string{"webhook_user": "u", "webhook_password": current}))
	inPath := webhookURL + "/" + secret
	for _, c := range []struct {
		name          string
		p             *clickatell.Provider
		url           string
		authorization []string
		trusted       bool
	}{
		{"secret", paths, inPath, nil, true},
		{"previous secret", paths, webhookURL + "/" + previousSecret, nil, true},
		{"secret with a query", paths, inPath + "?a=b", nil, true},
		{"secret and a user nobody asked for", paths, inPath, []string{basic("x:y")}, true},
		{"secret and a slash", paths, inPath + "/", nil, true},
		{"secret and two slashes", paths, inPath + "//", nil, false},
		{"no secret", paths, webhookURL, nil, false},
		{"empty secret", paths, webhookURL + "/", nil, false},
		{"secret in the query", paths, webhookURL + "?" + secret, nil, false},
		{"secret of another sender's address", paths, "https://pay.example.test/webhooks/sender_2/" + secret, nil, false},
		{"secret escaped", paths, webhookURL + "/%71" + secret[1:], nil, false},
		{"secret and more", paths, inPath + "/x", nil, false},
		{"secret as a user", paths, webhookURL, []string{basic(secret)}, false},

		{"user", users, webhookURL, []string{basic("u:" + current)}, true},
		{"user, previous password", users, webhookURL, []string{basic("u:" + previous)}, true},
		{"user, scheme in lower case", users, webhookURL, []string{strings.Replace(basic("u:"+current), "Basic", "basic", 1)}, true},
		{"nobody", users, webhookURL, nil, false},
		{"no credentials", users, webhookURL, []string{"Basic"}, false},
		{"empty user and password", users, webhookURL, []string{basic(":")}, false},
		{"user without password", users, webhookURL, []string{basic("u:")}, false},
		{"other user", users, webhookURL, []string{basic("v:" + current)}, false},
		{"other password", users, webhookURL, []string{basic("u:x" + current)}, false},
		{"colon elsewhere", users, webhookURL, []string{basic("u" + current)}, false},
		{"twice", users, webhookURL, []string{basic("u:" + current), basic("u:" + current)}, false},
		{"not base64", users, webhookURL, []string{"Basic u:" + current}, false},
		{"other scheme", users, webhookURL, []string{strings.Replace(basic("u:"+current), "Basic", "Bearer", 1)}, false},
		{"user at an address with something behind it", users, webhookURL + "/x", []string{basic("u:" + current)}, false},

		{"both", both, inPath, []string{basic("u:" + current)}, true},
		{"both, secret alone", both, inPath, nil, false},
		{"both, user alone", both, webhookURL, []string{basic("u:" + current)}, false},
		{"both, wrong password", both, inPath, []string{basic("u:" + previous)}, false},
		{"both, wrong secret", both, webhookURL + "/" + previousSecret, []string{basic("u:" + current)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := c.p.Verify(providers.Webhook{Method: http.MethodPost, URL: c.url, Header: http.Header{"Authorization": c.authorization}, Body: []byte(hello)})
			if c.trusted && err != nil || !c.trusted && err != providers.ErrSignature { //nolint:errorlint // exactly this
				t.Errorf("got %v, want trusted=%t", err, c.trusted)
			}
		})
	}
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	values := least(map[string]string{"template_payment": "de=pay_de, en = pay_en,pt_BR=pay_br", "template_receipt": "receipt"})
	whatsapp, sms := newProvider(t, conversations.WhatsApp, values), newProvider(t, conversations.SMS, values)
	for _, c := range []struct {
		name           string
		p              *clickatell.Provider
		purpose        conversations.Purpose
		free           bool
		locale         string
		want, language string
	}{
		{"the customer's language", whatsapp, conversations.PurposePayment, false, "de", "pay_de", "de"},
		{"its base language", whatsapp, conversations.PurposePayment, false, "de-AT", "pay_de", "de"},
		{"spelt otherwise", whatsapp, conversations.PurposePayment, false, "pt-br", "pay_br", "pt_BR"},
		{"another country", whatsapp, conversations.PurposePayment, false, "pt-PT", "pay_en", "en"},
		{"the default", whatsapp, conversations.PurposePayment, false, "fr", "pay_en", "en"},
		{"no locale", whatsapp, conversations.PurposePayment, false, "", "pay_en", "en"},
		{"one for all", whatsapp, conversations.PurposeReceipt, false, "de", "receipt", "en"},
		{"free text", whatsapp, conversations.PurposePayment, true, "en", "", ""},
		{"none for it", whatsapp, conversations.PurposeCancelled, false, "en", "", ""},
		{"SMS has none", sms, conversations.PurposePayment, false, "en", "", ""},
	} {
		name, language := c.p.Template(conversations.Outbound{Purpose: c.purpose, Template: !c.free, Parameters: conversations.Parameters{Locale: c.locale}})
		if name != c.want || language != c.language {
			t.Errorf("%s: got %q and %q, want %q and %q", c.name, name, language, c.want, c.language)
		}
	}
}
