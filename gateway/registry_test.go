package main

import (
	"cmp"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

func TestRegistryMistakes(t *testing.T) {
	t.Parallel()
	type entry struct {
		name     string
		complete bool
	}
	parts := func(e entry) (string, bool) { return e.name, e.complete }
	for name, tt := range map[string]struct {
		list []entry
		want string
	}{
		"right":          {[]entry{{"a", true}, {"b", true}}, ""},
		"no name":        {[]entry{{"a", true}, {"", true}}, "registration 1 has no name"},
		"no constructor": {[]entry{{"a", false}}, `registration "a" has no constructor`},
		"twice":          {[]entry{{"a", true}, {"a", true}}, `registration "a" stands twice`},
		"all at once":    {[]entry{{"", true}, {"a", false}, {"a", true}}, "no name\nregistration \"a\" has no constructor\nregistration \"a\" stands twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := checkRegistry(parts, tt.list); err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("checkRegistry = %q, want %q", got, tt.want)
			}
		})
	}
	defer func() {
		if recover() == nil {
			t.Error("a list with a mistake does not end the program")
		}
	}()
	registered(parts, entry{})
}

// TestRegistryExamples: every provider takes what the printed example shows for
// it, on each of its channels.
func TestRegistryExamples(t *testing.T) {
	t.Parallel()
	for _, r := range providerRegistrations {
		values := map[string]string{}
		for _, x := range r.Settings {
			v := cmp.Or(x.Default, exampleSettings[r.Name][x.Name])
			if v == "" && x.Required {
				v = placeholder
			}
			values[x.Name] = v
		}
		for _, channel := range r.Channels {
			_, err := r.New(providers.Settings{SenderID: "s", Channel: channel, WebhookURL: "https://pay.acme.example/webhooks/s", Values: values}, &http.Client{}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Errorf("%s on %s: %v", r.Name, channel, err)
			}
		}
	}
}

// TestRegistrySettings: what a Registration asks for can stand beside the keys
// that every sender or platform has.
func TestRegistrySettings(t *testing.T) {
	t.Parallel()
	sections := map[string]section{"sender": (&SenderConfig{Settings: Settings{}}).section(), "platform": (&PlatformConfig{}).section()}
	for what, s := range sections {
		for _, v := range s.variants {
			seen := map[string]bool{}
			for _, key := range append(keysOf(s.fields), keysOf(v.fields)...) {
				if seen[key] {
					t.Errorf("%s %s: the key %s stands twice", what, v.name, key)
				}
				seen[key] = true
			}
		}
	}
}

func TestRegistrySiblings(t *testing.T) {
	t.Parallel()
	m := &MerchantConfig{ID: "acme"}
	add := func(id, provider, number, app string) *SenderConfig {
		s := &SenderConfig{ID: id, Provider: provider, Merchant: m, Settings: Settings{"phone_number_id": number, "app_secret": app}}
		m.Senders = append(m.Senders, s)
		return s
	}
	one := add("one", "meta", "1", "a")
	add("two", "meta", "2", "a")
	add("other-app", "meta", "3", "b")
	add("other-provider", "else", "4", "a")
	add("no-number", "meta", "", "a")
	got := siblings(one)
	if len(got) != 2 || got["1"] != "one" || got["2"] != "two" {
		t.Errorf("siblings = %v, want the two numbers of the same app", got)
	}

	m.Senders = nil
	both := func(id string, channel conversations.Channel, key string) *SenderConfig {
		s := &SenderConfig{ID: id, Provider: "clickatell", Channel: channel, Merchant: m, Settings: Settings{"api_key": key}}
		m.Senders = append(m.Senders, s)
		return s
	}
	sms := both("sms", conversations.SMS, "a")
	both("whatsapp", conversations.WhatsApp, "a")
	alone := both("other", conversations.WhatsApp, "b")
	if got := siblings(sms); len(got) != 2 || got["sms"] != "sms" || got["whatsapp"] != "whatsapp" {
		t.Errorf("siblings = %v, want both channels of the integration", got)
	}
	if got := siblings(alone); len(got) != 1 || got["whatsapp"] != "other" {
		t.Errorf("siblings = %v, want the integration's only channel", got)
	}

	m.Senders = nil
	number := func(id string, channel conversations.Channel, account, from string) *SenderConfig {
		s := &SenderConfig{ID: id, Provider: "twilio", Channel: channel, Merchant: m, Settings: Settings{"account_sid": account, "from": from}}
		m.Senders = append(m.Senders, s)
		return s
	}
	text := number("text", conversations.SMS, "AC1", "+27600000001")
	number("chat", conversations.WhatsApp, "AC1", "+27600000001")
	number("prefixed", conversations.WhatsApp, "AC1", "whatsapp:+27600000002")
	number("other-account", conversations.SMS, "AC2", "+27600000003")
	number("service", conversations.SMS, "AC1", "")
	want := map[string]string{"+27600000001": "text", "whatsapp:+27600000001": "chat", "whatsapp:+27600000002": "prefixed"}
	if got := siblings(text); !maps.Equal(got, want) {
		t.Errorf("siblings = %v, want %v", got, want)
	}
}

func TestRegistryMakesAdapters(t *testing.T) {
	t.Parallel()
	m := base(t).Merchants[0]
	client, log := &http.Client{}, slog.New(slog.DiscardHandler)
	for _, s := range m.Senders {
		if p, err := newProvider(s, nil, client, log); err != nil || p == nil {
			t.Errorf("newProvider(%s) = %v, %v", s.ID, p, err)
		}
	}
	if p, err := newPlatform(m, time.Now, client, log); err != nil || p == nil {
		t.Errorf("newPlatform = %v, %v", p, err)
	}
	if got := m.Platform.Settings[merchantsCountry]; got != m.Country {
		t.Errorf("the platform's country is %q, want the merchant's %q where it has none of its own", got, m.Country)
	}
	if _, err := newProvider(&SenderConfig{Provider: "none", Merchant: m}, nil, client, log); err == nil {
		t.Error("a provider that there is not was made")
	}
	if _, err := newPlatform(&MerchantConfig{Platform: PlatformConfig{Name: "none"}}, nil, client, log); err == nil {
		t.Error("a platform that there is not was made")
	}
}
