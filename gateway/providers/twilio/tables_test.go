package twilio

import (
	"net/url"
	"testing"

	"paythread/conversations"
	"paythread/gateway/providers/providertest"
)

// TestStatusesHaveCases holds the table of statuses against testdata.
func TestStatusesHaveCases(t *testing.T) {
	t.Parallel()
	statuses := map[string]bool{}
	for _, c := range providertest.ParseCases(t) {
		if form, err := url.ParseQuery(string(c.Webhook.Body)); err == nil {
			statuses[form.Get("MessageStatus")] = true
		}
	}
	for name := range deliveryStatuses {
		if !statuses[name] {
			t.Errorf("no case of testdata has the status %q", name)
		}
	}
}

// TestRefusals spells out what each code of Twilio's list means, apart from
// the table itself, so that a slip in it shows.
func TestRefusals(t *testing.T) {
	t.Parallel()
	codes := map[conversations.FailureReason][]string{
		conversations.FailureNotOnChannel:    {"63003", "63015", "63024", "63032"},
		conversations.FailureOutsideWindow:   {"63016"},
		conversations.FailureTemplate:        {"21655", "21656", "63027", "63028", "63029", "63030", "63040", "63041"},
		conversations.FailureOptedOut:        {"21610"},
		conversations.FailureBlocked:         {"30004", "63014", "63033"},
		conversations.FailurePolicyLimit:     {"63049"},
		conversations.FailureRate:            {"20429", "21611", "30022", "30023", "30027", "63017", "63018", "63038"},
		conversations.FailureInvalidNumber:   {"21211", "21604", "21612", "21614", "30005", "30006"},
		conversations.FailureUnreachable:     {"30001", "30003", "30036"},
		conversations.FailureContentFiltered: {"21602", "21617", "30007", "63005", "63013", "63021"},
		conversations.FailureSenderConfig:    {"21212", "21408", "21603", "21606", "21608", "21609", "21701", "21703", "21704", "21705", "30018", "30024", "30032", "30034", "63007"},
		conversations.FailureAuth:            {"20003", "20404"},
		conversations.FailureAccount:         {"20005", "30002", "63020", "63062"},
		conversations.FailureProviderError:   {"20500", "20503", "30008", "30410"},
		conversations.FailureUnknown:         {"1", "99999", "", "x", "-21610"},
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
	if seen != len(refusals) {
		t.Errorf("the table has %d rows, %d are spelt out here", len(refusals), seen)
	}
}
