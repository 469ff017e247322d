package twilio

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/providertest"
)

// words returns the statuses and the types of messages that the cases of the
// folder have.
func words(t *testing.T) (statuses, types map[string]bool) {
	t.Helper()
	statuses, types = map[string]bool{}, map[string]bool{}
	for _, c := range providertest.ParseCases(t) {
		form, err := parameters(c.Webhook)
		if err != nil {
			continue
		}
		for name, into := range map[string]map[string]bool{"MessageStatus": statuses, "MessageType": types} {
			if v := form.Get(name); v != "" {
				into[v] = true
			}
		}
	}
	return statuses, types
}

// both holds the rows of a table against the words of testdata: each row has a
// case, and each word has a row or is one that nobody knows.
func both[V any](t *testing.T, what string, table map[string]V, seen map[string]bool, unknown ...string) {
	t.Helper()
	for name := range table {
		if !seen[name] {
			t.Errorf("no case of testdata has the %s %q", what, name)
		}
	}
	for name := range seen {
		if _, known := table[name]; !known && !slices.Contains(unknown, name) {
			t.Errorf("testdata has the %s %q, which has no row", what, name)
		}
	}
}

func TestStatusesHaveCases(t *testing.T) {
	t.Parallel()
	statuses, _ := words(t)
	both(t, "status", deliveryStatuses, statuses, "Teleported <b>")
}

// TestWhatsAppWordsHaveCases is not parallel: it reads from the folder that it
// stands in.
func TestWhatsAppWordsHaveCases(t *testing.T) {
	t.Chdir("testdata/whatsapp")
	statuses, types := words(t)
	both(t, "status", deliveryStatuses, statuses, "Teleported!")
	both(t, "type", messageTypes, types, "Hologram 3D!")
}

// TestRefusals spells out what each code of Twilio's list means, apart from
// the table itself, so that a slip in it shows: once as an answer to a send and
// once as the end of a message.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const (
		sender = providers.ScopeSender
		again  = 2 // tries: once more
	)
	rows := []struct {
		code   int
		reason conversations.FailureReason
		scope  providers.Scope
		wait   time.Duration
		growth float64
		tries  int
		ask    bool // nobody knows whether the message is on its way
	}{
		{code: 20003, reason: conversations.FailureAuth},
		{code: 20005, reason: conversations.FailureAccount},
		{code: 20404, reason: conversations.FailureAuth},
		{code: 20429, reason: conversations.FailureRate, wait: time.Second, growth: 2},
		{code: 20500, reason: conversations.FailureProviderError, ask: true},
		{code: 20503, reason: conversations.FailureProviderError, ask: true},
		{code: 21211, reason: conversations.FailureInvalidNumber},
		{code: 21212, reason: conversations.FailureSenderConfig},
		{code: 21408, reason: conversations.FailureSenderConfig},
		{code: 21602, reason: conversations.FailureContentFiltered},
		{code: 21603, reason: conversations.FailureSenderConfig},
		{code: 21604, reason: conversations.FailureInvalidNumber},
		{code: 21606, reason: conversations.FailureSenderConfig},
		{code: 21608, reason: conversations.FailureSenderConfig},
		{code: 21609, reason: conversations.FailureSenderConfig},
		{code: 21610, reason: conversations.FailureOptedOut},
		{code: 21611, reason: conversations.FailureRate, scope: sender, wait: 10 * time.Minute},
		{code: 21612, reason: conversations.FailureInvalidNumber},
		{code: 21614, reason: conversations.FailureInvalidNumber},
		{code: 21617, reason: conversations.FailureContentFiltered},
		{code: 21655, reason: conversations.FailureTemplate},
		{code: 21656, reason: conversations.FailureTemplate},
		{code: 21701, reason: conversations.FailureSenderConfig},
		{code: 21703, reason: conversations.FailureSenderConfig},
		{code: 21704, reason: conversations.FailureSenderConfig},
		{code: 21705, reason: conversations.FailureSenderConfig},
		{code: 30001, reason: conversations.FailureUnreachable, tries: again},
		{code: 30002, reason: conversations.FailureAccount},
		{code: 30003, reason: conversations.FailureUnreachable, tries: again},
		{code: 30004, reason: conversations.FailureBlocked},
		{code: 30005, reason: conversations.FailureInvalidNumber},
		{code: 30006, reason: conversations.FailureInvalidNumber},
		{code: 30007, reason: conversations.FailureContentFiltered},
		{code: 30008, reason: conversations.FailureProviderError, tries: again},
		{code: 30018, reason: conversations.FailureSenderConfig},
		{code: 30022, reason: conversations.FailureRate, scope: sender, wait: time.Minute},
		{code: 30023, reason: conversations.FailureRate, scope: sender, wait: time.Hour},
		{code: 30024, reason: conversations.FailureSenderConfig},
		{code: 30027, reason: conversations.FailureRate, scope: sender, wait: time.Hour},
		{code: 30032, reason: conversations.FailureSenderConfig},
		{code: 30034, reason: conversations.FailureSenderConfig},
		{code: 30036, reason: conversations.FailureUnreachable, tries: again},
		{code: 30410, reason: conversations.FailureProviderError, tries: again, ask: true},
		{code: 63003, reason: conversations.FailureNotOnChannel},
		{code: 63005, reason: conversations.FailureContentFiltered},
		{code: 63007, reason: conversations.FailureSenderConfig},
		{code: 63013, reason: conversations.FailureContentFiltered},
		{code: 63014, reason: conversations.FailureBlocked},
		{code: 63015, reason: conversations.FailureNotOnChannel},
		{code: 63016, reason: conversations.FailureOutsideWindow},
		{code: 63017, reason: conversations.FailureRate, scope: sender, wait: time.Second},
		{code: 63018, reason: conversations.FailureRate, wait: 2 * time.Second, growth: 2},
		{code: 63020, reason: conversations.FailureAccount},
		{code: 63021, reason: conversations.FailureContentFiltered},
		{code: 63024, reason: conversations.FailureNotOnChannel},
		{code: 63027, reason: conversations.FailureTemplate},
		{code: 63028, reason: conversations.FailureTemplate},
		{code: 63029, reason: conversations.FailureTemplate},
		{code: 63030, reason: conversations.FailureTemplate},
		{code: 63032, reason: conversations.FailureNotOnChannel},
		{code: 63033, reason: conversations.FailureBlocked},
		{code: 63038, reason: conversations.FailureRate, scope: sender, wait: time.Hour},
		{code: 63040, reason: conversations.FailureTemplate},
		{code: 63041, reason: conversations.FailureTemplate},
		{code: 63049, reason: conversations.FailurePolicyLimit},
		{code: 63062, reason: conversations.FailureAccount},

		{code: 1, reason: conversations.FailureUnknown}, // codes without a row
		{code: 99999, reason: conversations.FailureUnknown},
	}
	known := map[int]bool{}
	p := &Provider{senderID: "sender_1", channel: conversations.SMS, accountSID: "AC1", log: slog.New(slog.DiscardHandler)}
	for _, row := range rows {
		number := strconv.Itoa(row.code)
		if _, ok := refusals[row.code]; ok {
			known[row.code] = true
		}
		_, err := p.readAnswer(providers.Answer{Status: http.StatusBadRequest, Body: []byte(`{"code":` + number + `,"status":400}`)})
		var f *providers.Failure
		if !errors.As(err, &f) {
			t.Errorf("%d: got %v, want a failure", row.code, err)
			continue
		}
		f.Err = nil
		want := providers.Failure{
			Reason: row.reason, Code: number, Scope: row.scope, RetryAfter: row.wait, Growth: row.growth, Tries: row.tries,
			Unknown: row.ask, Retryable: providers.Retryable(row.reason) && !row.ask,
		}
		if *f != want {
			t.Errorf("%d in an answer: got %+v, want %+v", row.code, *f, want)
		}

		for _, word := range []string{"undelivered", "failed"} {
			form := url.Values{"MessageSid": {"SM1"}, "MessageStatus": {word}, "ErrorCode": {number}, "To": {"+16505551234"}}
			got, err := p.Parse(providers.Webhook{
				Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, Body: []byte(form.Encode()),
			})
			if err != nil || len(got) != 1 || got[0].Status != conversations.DeliveryFailed || got[0].Reason != row.reason || got[0].ErrorCode != number {
				t.Errorf("%d in a callback: got %+v and %v, want it failed by %s", row.code, got, err, row.reason)
			}
		}
	}
	for c := range refusals {
		if !known[c] {
			t.Errorf("%d has a row in the table and is not spelt out here", c)
		}
	}
	for _, c := range []string{"", "x", "-21610", "21610.0"} {
		if got, known := lookUp(c); known || got.Reason != conversations.FailureUnknown {
			t.Errorf("%q: got %+v, want it unknown", c, got)
		}
	}
}
