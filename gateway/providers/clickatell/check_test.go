package clickatell_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/clickatell"
)

// checked asks a sender with these settings, whose provider answers so.
func checked(ctx context.Context, t *testing.T, s providers.Settings, status int, body string) map[string]providers.Finding {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/v1/balance" || r.Header.Get("Authorization") != "k" {
			t.Errorf("asked was %s %s with %q", r.Method, r.URL.Path, r.Header.Get("Authorization"))
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // the client may be gone
	}))
	t.Cleanup(server.Close)
	s.Values["base_url"] = server.URL
	s.SenderID = "sender_1"
	p, err := clickatell.New(s, server.Client(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	findings := map[string]providers.Finding{}
	for _, f := range p.Check(ctx) {
		if _, twice := findings[f.Check]; twice {
			t.Errorf("%s comes twice", f.Check)
		}
		findings[f.Check] = f
		said := fmt.Sprint(f)
		for name, v := range s.Values {
			if strings.HasPrefix(name, "webhook_") && name != "webhook_user" && strings.Contains(said, v) {
				t.Errorf("%s prints %s", f.Check, name)
			}
		}
		if f.State != providers.FindingOK && f.Mend == "" {
			t.Errorf("%s is %s, and nothing is said to mend it", f.Check, f.State)
		}
	}
	return findings
}

func TestCheckAccount(t *testing.T) {
	t.Parallel()
	const ok, warning, wrong = providers.FindingOK, providers.FindingWarning, providers.FindingWrong
	for _, c := range []struct {
		name   string
		status int
		body   string
		key    providers.FindingState
		say    string // in detail or mend of the key
		credit providers.FindingState
		amount string // in detail of the credit
	}{
		{"credit", 200, `{"balance":1267.92865,"currency":"ZAR"}`, ok, "takes it", ok, "1267.93 ZAR"},
		{"credit as text", 200, `{"balance":"12.5","currency":"EUR"}`, ok, "", ok, "12.50 EUR"},
		{"no currency", 200, `{"balance":1,"currency":"<b>"}`, ok, "", ok, "1.00 in the account's currency"},
		{"no credit", 200, `{"balance":0,"currency":"ZAR"}`, ok, "", warning, "0.00 ZAR"},
		{"owing", 200, `{"balance":-3,"currency":"ZAR"}`, ok, "", warning, "-3.00 ZAR"},
		{"no balance", 200, `{}`, ok, "", warning, "cannot be read"},
		{"no JSON", 200, `hello`, ok, "", warning, "cannot be read"},
		{"key", 401, `{"error":{"code":1,"description":"k"}}`, wrong, "copy the API key", "", ""},
		{"key, bare", 401, ``, wrong, "copy the API key", "", ""},
		{"address", 401, `{"error":{"code":7}}`, wrong, "allow this machine's address", "", ""},
		{"integration", 400, `{"error":{"code":3}}`, wrong, "switch account", "", ""},
		{"another API", 404, ``, wrong, "base_url", "", ""},
		{"another API by code", 400, `{"error":{"code":41}}`, wrong, "base_url", "", ""},
		{"rate", 400, `{"error":{"code":43}}`, warning, "try again", "", ""},
		{"fault", 503, `{"error":{"code":19}}`, warning, "try again", "", ""},
		{"redirect", 302, ``, wrong, "status 302", "", ""},
		{"something else", 400, `{"error":{"code":999}}`, wrong, "error 999", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			found := checked(t.Context(), t, providers.Settings{Channel: conversations.SMS, WebhookURL: webhookURL, Values: least(nil)}, c.status, c.body)
			key := found["api key"]
			if key.State != c.key || !strings.Contains(key.Detail+" "+key.Mend, c.say) {
				t.Errorf("got %+v, want %s and %q", key, c.key, c.say)
			}
			credit := found["credit"]
			if credit.State != c.credit || !strings.Contains(credit.Detail, c.amount) {
				t.Errorf("got %+v, want %s and %q", credit, c.credit, c.amount)
			}
		})
	}
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		found := checked(ctx, t, providers.Settings{Channel: conversations.SMS, WebhookURL: webhookURL, Values: least(nil)}, 200, `{}`)
		if key := found["api key"]; key.State != wrong || !strings.Contains(key.Detail, "does not answer") {
			t.Errorf("got %+v", key)
		}
		if len(found) != 3 {
			t.Errorf("got %d findings, want those that need no answer, too", len(found))
		}
	})
}

func TestCheckSettings(t *testing.T) {
	t.Parallel()
	const ok, warning, wrong = providers.FindingOK, providers.FindingWarning, providers.FindingWrong
	const user, password = "webhook_user", "webhook_password"
	templates := map[string]string{"template_payment": "a", "template_receipt": "b", "template_cancelled": "c", "template_refund": "d"}
	for _, c := range []struct {
		name    string
		channel conversations.Channel
		url     string
		change  map[string]string
		check   string
		state   providers.FindingState
		say     string
	}{
		{"secret", conversations.SMS, webhookURL, nil, "webhook secret", ok, "ends in webhook_secret"},
		{"secret and user", conversations.SMS, webhookURL, map[string]string{user: "u", password: "sixteen-and-more"}, "webhook secret", ok, "with user and password"},
		{"user alone", conversations.SMS, webhookURL, map[string]string{"webhook_secret": "", user: "u", password: "sixteen-and-more"}, "webhook secret", warning, "alone"},
		{"hexadecimal secret", conversations.SMS, webhookURL, map[string]string{"webhook_secret": "3b7e1f0a92c84d5566e0ab17d9c2f384"}, "webhook secret", ok, ""},
		{"dull secret", conversations.SMS, webhookURL, map[string]string{"webhook_secret": strings.Repeat("abcd", 10)}, "webhook secret", warning, "4 different"},
		{"not https", conversations.SMS, "http://pay.example.test/webhooks/sender_1", nil, "webhook secret", wrong, "https"},
		{"address", conversations.SMS, webhookURL, nil, "webhook address", ok, webhookURL + "/WEBHOOK_SECRET"},
		{"address with user", conversations.SMS, webhookURL, map[string]string{"webhook_secret": "", user: "u", password: "sixteen-and-more"}, "webhook address", ok, "enter " + webhookURL + " for"},
		{"templates", conversations.WhatsApp, webhookURL, templates, "templates", ok, "all four"},
		{"no receipt", conversations.WhatsApp, webhookURL, map[string]string{"template_payment": "a", "template_cancelled": "c", "template_refund": "d"}, "templates", warning, "not set: template_receipt"},
		{"no refund", conversations.WhatsApp, webhookURL, map[string]string{"template_payment": "a", "template_receipt": "b", "template_cancelled": "c"}, "templates", warning, "not set: template_refund"},
		{"no payment", conversations.WhatsApp, webhookURL, nil, "templates", wrong, "template_payment, template_receipt, template_cancelled, template_refund"},
		{"SMS has none", conversations.SMS, webhookURL, nil, "templates", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			found := checked(t.Context(), t, providers.Settings{Channel: c.channel, WebhookURL: c.url, Values: least(c.change)}, 200, `{"balance":1,"currency":"ZAR"}`)
			f := found[c.check]
			if f.State != c.state || !strings.Contains(f.Detail+" "+f.Mend, c.say) {
				t.Errorf("got %+v, want %s and %q", f, c.state, c.say)
			}
		})
	}
}
