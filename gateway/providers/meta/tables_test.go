package meta

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/providertest"
)

// TestTypesHaveCases holds the tables of message types and statuses against
// testdata, in both directions.
func TestTypesHaveCases(t *testing.T) {
	t.Parallel()
	types, statuses := map[string]bool{}, map[string]bool{}
	for _, c := range providertest.ParseCases(t) {
		for _, field := range providertest.StringsAt(t, c.Webhook.Body, "entry", "changes", "value", "messages", "type") {
			types[field] = true
		}
		for _, field := range providertest.StringsAt(t, c.Webhook.Body, "entry", "changes", "value", "statuses", "status") {
			statuses[field] = true
		}
	}
	for name := range messageTypes {
		if !types[name] {
			t.Errorf("no case of testdata has a message of type %q", name)
		}
	}
	for name := range deliveryStatuses {
		if !statuses[name] {
			t.Errorf("no case of testdata has the status %q", name)
		}
	}
}

// TestNoticesHaveCases holds the tables of account webhooks against testdata:
// each field, each event of a template, each state of a ban, each pause, each
// choice of a customer, and each field that is left out has a case.
func TestNoticesHaveCases(t *testing.T) {
	t.Parallel()
	seen := map[string]map[string]bool{}
	note := func(table string, words []string) {
		if seen[table] == nil {
			seen[table] = map[string]bool{}
		}
		for _, w := range words {
			seen[table][w] = true
		}
	}
	for _, c := range providertest.ParseCases(t) {
		value := func(path ...string) []string {
			found := providertest.StringsAt(t, c.Webhook.Body, append([]string{"entry", "changes", "value"}, path...)...)
			for i := range found {
				found[i] = word(found[i])
			}
			return found
		}
		note("field", providertest.StringsAt(t, c.Webhook.Body, "entry", "changes", "field"))
		note("event", value("event"))
		note("ban", value("ban_info", "waba_ban_state"))
		note("block", value("restriction_info", "restriction_type"))
		note("pause", value("other_info", "title"))
		note("preference", value("user_preferences", "value"))
	}
	check := func(table string, rows []string) {
		for _, row := range rows {
			if !seen[table][row] {
				t.Errorf("no case of testdata has the %s %q", table, row)
			}
		}
	}
	check("field", slices.Collect(maps.Keys(notices)))
	check("field", slices.Collect(maps.Keys(leftOut)))
	check("event", slices.Collect(maps.Keys(templateStandings)))
	check("ban", slices.Collect(maps.Keys(bans)))
	check("block", slices.Collect(maps.Keys(blocks)))
	check("pause", slices.Collect(maps.Keys(pauses)))
	check("preference", slices.Collect(maps.Keys(preferences)))
}

// TestTemplateStandings spells out what each event means for sending, apart
// from the table itself.
func TestTemplateStandings(t *testing.T) {
	t.Parallel()
	wants := map[conversations.Standing][]string{
		conversations.StandingUsable:   {"approved", "reinstated", "unpaused", "unarchived"},
		conversations.StandingLimited:  {"flagged", "locked", "limit_exceeded"},
		conversations.StandingUnusable: {"pending", "in_appeal", "rejected", "paused", "disabled", "archived", "pending_deletion", "deleted"},
	}
	rows := 0
	for want, events := range wants {
		for _, event := range events {
			rows++
			if got := templateStandings[event]; got != want {
				t.Errorf("%s: got %q, want %q", event, got, want)
			}
		}
	}
	if rows != len(templateStandings) {
		t.Errorf("the table has %d rows, %d are spelt out here", len(templateStandings), rows)
	}
}

// TestDeliveryStatuses spells out the table of statuses.
func TestDeliveryStatuses(t *testing.T) {
	t.Parallel()
	wants := map[string]conversations.DeliveryStatus{
		"sent": conversations.DeliverySent, "delivered": conversations.DeliveryDelivered, "read": conversations.DeliveryRead,
		"played": conversations.DeliveryRead, "failed": conversations.DeliveryFailed,
		"deleted": conversations.DeliveryUnknown, "warning": conversations.DeliveryUnknown,
	}
	if !maps.Equal(deliveryStatuses, wants) {
		t.Errorf("got %v, want %v", deliveryStatuses, wants)
	}
}

// TestErrorRows walks the rows of Meta's list of error codes, in answers and in
// failed statuses, and says of each what comes of it: whether it is tried
// again, how soon, how often and what else waits with it.
func TestErrorRows(t *testing.T) {
	t.Parallel()
	const (
		pair   = providers.ScopePair
		sender = providers.ScopeSender
	)
	type row struct {
		codes  string
		status int
		reason conversations.FailureReason
		retry  bool
		scope  providers.Scope
		wait   time.Duration
		growth float64
		tries  int
	}
	rows := []row{
		{codes: "0 190 104", status: 401, reason: conversations.FailureAuth},
		{codes: "3", status: 500, reason: conversations.FailureAuth},
		{codes: "10 200 299 131005", status: 403, reason: conversations.FailureAuth},
		{codes: "1", status: 400, reason: conversations.FailureProviderError, retry: true, tries: 2},
		{codes: "2", status: 503, reason: conversations.FailureProviderError, retry: true},
		{codes: "33", status: 400, reason: conversations.FailureSenderConfig},
		{codes: "100 131008 131009 135000", status: 400, reason: conversations.FailureUnknown},
		{codes: "131051", status: 400, reason: conversations.FailureContentFiltered},
		{codes: "368", status: 403, reason: conversations.FailureAccount},
		{codes: "4 613 80007", status: 400, reason: conversations.FailureRate, retry: true, scope: sender, wait: 2 * time.Minute},
		{codes: "4 613 80007", status: 429, reason: conversations.FailureRate, retry: true, scope: sender, wait: 2 * time.Minute},
		{codes: "130403", status: 400, reason: conversations.FailureBlocked},
		{codes: "130429", status: 400, reason: conversations.FailureRate, retry: true, scope: sender, wait: time.Second, growth: 2},
		{codes: "130429", status: 403, reason: conversations.FailureRate, retry: true, scope: sender, wait: time.Second, growth: 2},
		{codes: "130472", status: 400, reason: conversations.FailurePolicyLimit},
		{codes: "130497", status: 403, reason: conversations.FailureAccount, scope: pair},
		{codes: "131000 131016", status: 500, reason: conversations.FailureProviderError, retry: true, tries: 4},
		{codes: "131021 131030", status: 400, reason: conversations.FailureInvalidNumber},
		{codes: "131026", status: 400, reason: conversations.FailureNotOnChannel},
		{codes: "131031", status: 403, reason: conversations.FailureAccount},
		{codes: "131037 133010", status: 400, reason: conversations.FailureSenderConfig},
		{codes: "131045", status: 500, reason: conversations.FailureSenderConfig},
		{codes: "131042", status: 400, reason: conversations.FailureAccount},
		{codes: "131047", status: 400, reason: conversations.FailureOutsideWindow},
		{codes: "131048", status: 400, reason: conversations.FailureRate, retry: true, scope: sender, wait: time.Hour, tries: 1},
		{codes: "131049", status: 400, reason: conversations.FailurePolicyLimit},
		{codes: "131050", status: 400, reason: conversations.FailureOptedOut},
		{codes: "131052", status: 400, reason: conversations.FailureUnknown},
		{codes: "131053 131014", status: 400, reason: conversations.FailureContentFiltered},
		{codes: "131055 134100 134101 134102", status: 500, reason: conversations.FailureSenderConfig},
		{codes: "131056", status: 403, reason: conversations.FailureRate, retry: true, scope: pair, wait: 4 * time.Second, growth: 4},
		{codes: "131057", status: 500, reason: conversations.FailureProviderError, retry: true, scope: sender, wait: time.Minute},
		{codes: "131062", status: 400, reason: conversations.FailureInvalidNumber},
		{codes: "131063", status: 400, reason: conversations.FailureTemplate},
		{codes: "131064", status: 400, reason: conversations.FailurePolicyLimit, scope: sender},
		{codes: "132000 132008 132012 132005 132007 132018 132015 132016 132068 132069 132999", status: 400, reason: conversations.FailureTemplate},
		{codes: "132001", status: 404, reason: conversations.FailureTemplate},
		{codes: "133000 133004 133005 133006 133007 133008 133009 133015 133016", status: 400, reason: conversations.FailureSenderConfig},
		{codes: "134011", status: 400, reason: conversations.FailureAccount},
		{codes: "137000", status: 400, reason: conversations.FailureIdentityChanged},
		{codes: "138000 139000 147001", status: 400, reason: conversations.FailureUnknown},
	}
	p := newParser(t)
	walked := map[string]bool{}
	for _, r := range rows {
		for _, c := range strings.Fields(r.codes) {
			walked[c] = true
			body := fmt.Sprintf(`{"error":{"message":"no","type":"OAuthException","code":%s}}`, c)
			_, err := p.readAnswer(providers.Answer{Status: r.status, Header: http.Header{}, Body: []byte(body)})
			var f *providers.Failure
			if !errors.As(err, &f) {
				t.Fatalf("%s with status %d: got %v, want a *providers.Failure", c, r.status, err)
			}
			got := row{codes: r.codes, status: r.status, reason: f.Reason, retry: f.Retryable, scope: f.Scope, wait: f.RetryAfter, growth: f.Growth, tries: f.Tries}
			if got != r || f.Code != c || f.Unknown {
				t.Errorf("%s with status %d: got %+v, want %+v", c, r.status, f, r)
			}
			if _, ok := conversations.FailureReasons[f.Reason]; !ok {
				t.Errorf("%s: the agent has no sentence for %s", c, f.Reason)
			}

			hook := fmt.Sprintf(`{"object":"whatsapp_business_account","entry":[{"id":"WABA1","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"PN1"},`+
				`"statuses":[{"id":"wamid.1","status":"failed","timestamp":"1781866805","recipient_id":"16505551234","errors":[{"code":%s,"title":"no"}]}]}}]}]}`, c)
			in, err := p.Parse(providers.Webhook{Body: []byte(hook), ReceivedAt: providertest.ReceivedAt})
			if err != nil || len(in) != 1 || in[0].Status != conversations.DeliveryFailed || in[0].Reason != r.reason || in[0].ErrorCode != c {
				t.Errorf("%s in a status: got %+v and %v, want it failed for %s", c, in, err, r.reason)
			}
		}
	}
	for n := range refusals {
		if !walked[strconv.Itoa(n)] {
			t.Errorf("the code %d of the table is in no row here", n)
		}
	}
}

// TestCodesThatAreNone names codes that mean nothing to us.
func TestCodesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, c := range []providers.Loose{"300", "999999", "-1", "", "x", "1e3", "131026.0"} {
		if got, known := lookUp(c); known || got.Reason != conversations.FailureUnknown {
			t.Errorf("%q: got %+v, known %t", c, got, known)
		}
	}
}

func TestFitButtons(t *testing.T) {
	t.Parallel()
	button := func(id, title string) conversations.Button { return conversations.Button{ID: id, Title: title} }
	for _, c := range []struct {
		name    string
		buttons []conversations.Button
		want    bool
	}{
		{"none", nil, false},
		{"one", []conversations.Button{button("a", "A")}, true},
		{"three", []conversations.Button{button("a", "A"), button("b", "B"), button("c", "C")}, true},
		{"four", []conversations.Button{button("a", "A"), button("b", "B"), button("c", "C"), button("d", "D")}, false},
		{"title of 20 characters", []conversations.Button{button("a", strings.Repeat("ä", 20))}, true},
		{"title of 21 characters", []conversations.Button{button("a", strings.Repeat("a", 21))}, false},
		{"blank title", []conversations.Button{button("a", " ")}, false},
		{"title twice", []conversations.Button{button("a", "A"), button("b", "A")}, false},
		{"no id", []conversations.Button{button("", "A")}, false},
		{"id of 256 characters", []conversations.Button{button(strings.Repeat("a", 256), "A")}, true},
		{"id of 257 characters", []conversations.Button{button(strings.Repeat("a", 257), "A")}, false},
		{"id twice", []conversations.Button{button("a", "A"), button("a", "B")}, false},
	} {
		if got := fitButtons(c.buttons); got != c.want {
			t.Errorf("%s: got %t, want %t", c.name, got, c.want)
		}
	}
}

func TestLanguageOf(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"en": "en", "EN": "en", "en_US": "en_US", "en-US": "en_US", "en-us": "en_US", " pt-br ": "pt_BR", "fil": "fil", "zh_HK": "zh_HK",
		"es_419": "es_419", "": "", "english": "", "e": "", "en_": "", "en_U": "", "en_US_x": "", "1n": "", "en US": "",
	} {
		if got := languageOf(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
