package clickatell

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
	"paythread/gateway/providers/providertest"
)

// spelt is what a table says, written a second time so that a slip in the
// table shows: reason by numbers and names, and status for what did not fail.
type spelt[K comparable] map[K][]string

// sayings returns by word, which is a number or the name of one that has none,
// what the lists say of it.
func sayings(t *testing.T, ok spelt[conversations.DeliveryStatus], failed spelt[conversations.FailureReason]) map[string]outcome {
	t.Helper()
	all := map[string]outcome{}
	add := func(words []string, o outcome) {
		for _, w := range words {
			if _, twice := all[w]; twice {
				t.Errorf("%s is spelt out twice", w)
			}
			all[w] = o
		}
	}
	for status, words := range ok {
		add(words, outcome{status: status})
	}
	for reason, words := range failed {
		add(words, outcome{status: conversations.DeliveryFailed, reason: reason})
	}
	return all
}

// checkTable holds a table against what is spelt out and against the statuses
// that testdata brings, in all directions.
func checkTable(t *testing.T, table statusTable, want map[string]outcome, inTestdata map[string]bool) {
	t.Helper()
	seen, codes, names := map[string]bool{}, map[int]bool{}, map[string]bool{}
	for _, row := range table.rows {
		word := row.name
		if row.code != 0 {
			word = strconv.Itoa(row.code)
		}
		seen[word] = true
		w, ok := want[word]
		if !ok {
			t.Errorf("the row %s is not spelt out", word)
		}
		if w.status != row.status || w.reason != row.reason {
			t.Errorf("%s: the table says %q %q, spelt out is %q %q", word, row.status, row.reason, w.status, w.reason)
		}
		if !inTestdata[word] {
			t.Errorf("no case of testdata has the status %s", word)
		}
		if row.code == 0 && row.name == "" || row.code != 0 && codes[row.code] || row.name != "" && names[row.name] {
			t.Errorf("the row %q %d has nothing to be found by, or stands twice", row.name, row.code)
		}
		codes[row.code], names[row.name] = true, true
	}
	for word := range want {
		if !seen[word] {
			t.Errorf("%s is spelt out and in no row", word)
		}
	}
}

// wordsOf returns the numbers of the statuses in testdata, and the names of
// those that have none.
func wordsOf(t *testing.T, legacy bool) map[string]bool {
	t.Helper()
	words := map[string]bool{}
	note := func(raw json.RawMessage) {
		var s status
		if providers.Decode(raw, &s) != nil {
			return
		}
		if c := code(s.StatusCode); c != "" {
			words[c] = true
		} else {
			words[strings.TrimPrefix(strings.ToUpper(string(s.Status)), "WHATSAPP_")] = true
		}
	}
	for _, c := range providertest.ParseCases(t) {
		var body struct {
			Event *struct {
				Updates []json.RawMessage `json:"messageStatusUpdate"`
			} `json:"event"`
		}
		if err := json.Unmarshal(c.Webhook.Body, &body); err != nil {
			continue
		}
		if body.Event == nil && legacy {
			note(c.Webhook.Body)
		}
		if body.Event != nil && !legacy {
			for _, raw := range body.Event.Updates {
				note(raw)
			}
		}
	}
	return words
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	checkTable(t, statuses, sayings(t, spelt[conversations.DeliveryStatus]{
		conversations.DeliveryUnknown:   {"1"},
		conversations.DeliveryAccepted:  {"2", "3"},
		conversations.DeliverySent:      {"4"},
		conversations.DeliveryDelivered: {"5", "24"},
		conversations.DeliveryRead:      {"6"},
	}, spelt[conversations.FailureReason]{
		conversations.FailureUnreachable:     {"20", "100"},
		conversations.FailureOptedOut:        {"21"},
		conversations.FailureAccount:         {"22", "25", "26", "27", "28", "130"},
		conversations.FailureProviderError:   {"23"},
		conversations.FailureNotOnChannel:    {"29"},
		conversations.FailureUnknown:         {"60", "61", "ENCRYPTION_VALIDATION_ERROR", "ANONYMOUS_USER_ID_ERROR"},
		conversations.FailureInvalidNumber:   {"ANONYMOUS_USER_ID_INVALID"},
		conversations.FailureContentFiltered: {"80", "81", "82", "83", "84", "85", "MEDIA_TYPE_NOT_SUPPORTED"},
		conversations.FailureOutsideWindow:   {"131"},
		conversations.FailureRate:            {"132", "133"},
		conversations.FailurePolicyLimit:     {"139", "STOP_MARKETING_MESSAGES", "EXCESSIVE_MESSAGES_TO_RECIPIENT"},
		conversations.FailureTemplate: {"134", "140", "141", "142", "HSM_PARAM_COUNT_MISMATCH", "HSM_IS_MISSING", "HSM_DOWNLOAD_FAILED", "HSM_PACK_IS_MISSING",
			"TEMPLATE_MEDIA_FORMAT_UNSUPPORTED", "PARAMETER_MISSING", "PARAMETER_INVALID", "PARAMETER_NOT_REQUIRED",
			"TEMPLATE_INVALID_URL", "TEMPLATE_INVALID_PHONE_NUMBER", "TEMPLATE_RECEIVER_NO_BUTTON_SUPPORT"},
	}), wordsOf(t, false))
	for _, row := range statuses.rows {
		if row.name == "" {
			t.Errorf("the row %d has no name", row.code)
		}
		if got, ok := statuses.lookUp("", "WHATSAPP_"+strings.ToLower(row.name)); !ok || got != row {
			t.Errorf("%s by its name: got %+v", row.name, got)
		}
	}
}

func TestLegacyStatuses(t *testing.T) {
	t.Parallel()
	checkTable(t, legacyStatuses, sayings(t, spelt[conversations.DeliveryStatus]{
		conversations.DeliveryAccepted:  {"2", "8", "11"},
		conversations.DeliverySent:      {"3"},
		conversations.DeliveryDelivered: {"4"},
	}, spelt[conversations.FailureReason]{
		conversations.FailureUnknown:         {"1", "13"},
		conversations.FailureContentFiltered: {"5"},
		conversations.FailureOptedOut:        {"6"},
		conversations.FailureProviderError:   {"7"},
		conversations.FailureUnreachable:     {"9", "10"},
		conversations.FailureAccount:         {"12"},
		conversations.FailureRate:            {"14"},
	}), wordsOf(t, true))
}

// TestClash: the same number means one thing with an event and another without.
func TestClash(t *testing.T) {
	t.Parallel()
	for number, want := range map[string][2]conversations.DeliveryStatus{
		"4": {conversations.DeliverySent, conversations.DeliveryDelivered},
		"5": {conversations.DeliveryDelivered, conversations.DeliveryFailed},
		"6": {conversations.DeliveryRead, conversations.DeliveryFailed},
	} {
		one, _ := statuses.lookUp(number, "")
		legacy, _ := legacyStatuses.lookUp("00"+number, "")
		if got := [2]conversations.DeliveryStatus{one.status, legacy.status}; got != want {
			t.Errorf("%s: got %v, want %v", number, got, want)
		}
	}
}

// TestRefusals spells out what each code of an answer means, apart from the
// table itself.
func TestRefusals(t *testing.T) {
	t.Parallel()
	codes := map[conversations.FailureReason][]string{
		conversations.FailureAuth:            {"1", "7"},
		conversations.FailureSenderConfig:    {"2", "3", "28", "38", "39", "41", "42", "44", "45", "46", "101", "110", "111"},
		conversations.FailureProviderError:   {"18", "19"},
		conversations.FailureAccount:         {"20"},
		conversations.FailureInvalidNumber:   {"25"},
		conversations.FailureOptedOut:        {"26"},
		conversations.FailureNotOnChannel:    {"27"},
		conversations.FailureRate:            {"43"},
		conversations.FailureContentFiltered: {"24", "30", "31", "32", "33", "100"},
		conversations.FailureUnknown:         {"21", "22", "23", "40", "29", "131", "99999", "", "x", "-25"},
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

// TestRefusalsWhole answers a send with each code, alone with its status, as
// one of several, and for the whole call: it always means the same, and only
// the rate limit holds the sender back.
func TestRefusalsWhole(t *testing.T) {
	t.Parallel()
	statusOf := map[int]int{1: 401, 7: 401, 18: 500, 19: 503, 20: 402}
	o := conversations.Outbound{Correlation: "c", To: conversations.Address{Kind: conversations.AddressPhone, Value: "+16505551234"}}
	for number, row := range refusals {
		status := statusOf[number]
		if status == 0 {
			status = 400
		}
		n := strconv.Itoa(number)
		why := `{"code":` + n + `,"description":"about 16505551234"}`
		of := func(error string) string {
			return `{"messages":[{"apiMessageId":"x","accepted":true,"clientMessageId":"other"},{"apiMessageId":null,"accepted":false,"to":"16505551234","clientMessageId":"c","error":` + error + `}],"error":null}`
		}
		for form, a := range map[string]providers.Answer{
			"alone":          {Status: status, Body: []byte(of(why))},
			"one of several": {Status: 207, Body: []byte(of(why))},
			"whole call":     {Status: status, Body: []byte(`{"messages":[],"error":` + why + `}`)},
			"no list":        {Status: status, Body: []byte(`{"error":` + why + `}`)},
		} {
			_, err := readAnswer(a, o)
			f, ok := err.(*providers.Failure) //nolint:errorlint // the dispatcher asks for exactly this type
			if !ok {
				t.Fatalf("%d %s: got %v", number, form, err)
			}
			lost := row.Reason == conversations.FailureProviderError
			if f.Reason != row.Reason || f.Code != n || f.Unknown != lost || f.Retryable != (number == 43) {
				t.Errorf("%d %s: got %+v, want reason %s", number, form, f, row.Reason)
			}
			held := providers.Failure{}
			if number == 43 {
				held.Scope, held.RetryAfter = providers.ScopeSender, 5*time.Second
			}
			if f.Scope != held.Scope || f.RetryAfter != held.RetryAfter {
				t.Errorf("%d %s: holds back %q for %s", number, form, f.Scope, f.RetryAfter)
			}
			if strings.Contains(f.Error(), "16505551234") {
				t.Errorf("%d %s: the error quotes the number", number, form)
			}
		}
	}
}

func TestDecodeText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, charset, want string }{
		{"as it is", "100%25 + a", "UTF-8", "100%25 + a"},
		{"no charset", "100%25 + a", "", "100%25 + a"},
		{"a charset that is not known", "100%25", "GSM", "100%25"},
		{"Latin-1", "%A3149%2c00+%e9", " iso-8859-1 ", "£149,00 é"},
		{"Latin-1, every byte", "%00%7F%80%FF", "ISO-8859-1", "\x00\x7f\u0080ÿ"},
		{"Latin-1, no escape", "100% or %4", "ISO-8859-1", "100% or %4"},
		{"Latin-1, bad escape", "%zz%g1%41", "ISO-8859-1", "%zz%g1A"},
		{"UTF-16", "%00h%00i", "UTF-16BE", "hi"},
		{"UTF-16, plus is a byte", "%00+%00a%04+", "utf-16be", " aР"},
		{"UTF-16, Cyrillic", "%04%1F%04%40", "UTF-16BE", "Пр"},
		{"UTF-16, surrogates", "%D8%3D%DC%4D", "UTF-16BE", "👍"},
		{"UTF-16, bytes that are letters", "%D8%3D%DCM", "UTF-16BE", "👍"},
		{"UTF-16, half a surrogate", "%D8%3D%00a", "UTF-16BE", "\uFFFDa"},
		{"UTF-16, byte order mark", "%FE%FF%00a", "UTF-16BE", "a"},
		{"UTF-16, odd", "%00a%00", "UTF-16BE", "a\uFFFD"},
		{"UTF-16, nothing", "", "UTF-16BE", ""},
	} {
		if got := decodeText(c.text, c.charset); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
