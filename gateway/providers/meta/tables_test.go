package meta

import (
	"testing"

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

// TestRefusals spells out what each code of Meta's list means, apart from the
// table itself, so that a slip in it shows.
func TestRefusals(t *testing.T) {
	t.Parallel()
	codes := map[conversations.FailureReason][]providers.Loose{
		conversations.FailureNotOnChannel:    {"131026"},
		conversations.FailureOutsideWindow:   {"131047"},
		conversations.FailureTemplate:        {"131063", "132000", "132001", "132005", "132007", "132008", "132012", "132015", "132016", "132018", "132068", "132069", "132999"},
		conversations.FailureOptedOut:        {"131050"},
		conversations.FailureBlocked:         {"130403"},
		conversations.FailurePolicyLimit:     {"130472", "131049", "131064"},
		conversations.FailureRate:            {"4", "613", "80007", "130429", "131048", "131056"},
		conversations.FailureInvalidNumber:   {"131021", "131030", "131062"},
		conversations.FailureContentFiltered: {"131014", "131051", "131053"},
		conversations.FailureSenderConfig:    {"33", "131037", "131045", "131055", "133000", "133004", "133005", "133006", "133007", "133008", "133009", "133010", "133015", "133016", "134100", "134101", "134102"},
		conversations.FailureAuth:            {"0", "3", "10", "104", "190", "200", "299", "131005"},
		conversations.FailureAccount:         {"368", "130497", "131031", "131042", "134011"},
		conversations.FailureIdentityChanged: {"137000"},
		conversations.FailureProviderError:   {"1", "2", "131000", "131016", "131057"},
		conversations.FailureUnknown:         {"100", "131008", "131009", "131052", "135000", "300", "138000", "147001", "-1", "", "x"},
	}
	seen := 0
	for want, list := range codes {
		for _, c := range list {
			got, known := lookUp(c)
			if got.Reason != want {
				t.Errorf("%q: got %s, want %s", c, got.Reason, want)
			}
			if known {
				seen++
			}
		}
	}
	if ranges := 3; seen-ranges != len(refusals) { // 200, 299 and 132999 are in no row
		t.Errorf("the table has %d rows, %d are spelt out here", len(refusals), seen-ranges)
	}
}
