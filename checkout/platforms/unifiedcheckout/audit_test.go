package unifiedcheckout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
	"paythread/simulator/cybersource"
)

// all lists what the platform tells of a time.
func all(t *testing.T, p platforms.Auditor, from, to time.Time) []platforms.Found {
	t.Helper()
	var list []platforms.Found
	if err := p.Transactions(t.Context(), from, to, func(f platforms.Found) error {
		list = append(list, f)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestSimulatorAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	sale := w.charge("4111111111111111", true)
	auth := w.charge("4111111111111111", false)
	w.charge("4000000000009995", true) // declined
	w.charge("4012888888881881", true) // approved in part
	captured := w.do(w.platform.Capture, operation(conversations.OperationCapture, auth, 10000), auth, conversations.OperationSucceeded)
	w.do(w.platform.Refund, operation(conversations.OperationRefund, sale, 1000), sale, conversations.OperationSucceeded)
	refund, err := w.simulator.BackOffice("refund", captured.ID, "25.00")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.simulator.BackOffice("void", refund.ID, ""); err != nil {
		t.Fatal(err)
	}
	from, to := time.Now().Add(-time.Minute), time.Now().Add(time.Minute)
	listed := all(t, w.platform, from, to)
	type told struct {
		kind      conversations.OperationKind
		outcome   conversations.Outcome
		code      string
		amount    int64
		succeeded bool
	}
	want := []told{
		{"", conversations.OutcomeCaptured, sale.Code, 14900, true},
		{"", conversations.OutcomeAuthorized, auth.Code, 14900, true},
		{"", conversations.OutcomeDeclined, "pr_07abc-3", 14900, false},
		{"", conversations.OutcomePartial, "pr_07abc-4", 7450, true},
		{conversations.OperationCapture, "", "op-capture-2", 10000, true},
		{conversations.OperationRefund, "", "op-refund-1", 1000, true},
		{conversations.OperationRefund, "", "op-capture-2", 2500, true}, // the back office keeps the reference
		{conversations.OperationVoid, "", "op-capture-2", 2500, true},
	}
	var got []told
	for _, f := range listed {
		got = append(got, told{f.Operation, f.Result.Outcome, f.Code, f.Amount.Minor, f.Succeeded})
		if f.At.IsZero() || f.ReconciliationID == "" || f.Amount.Currency != "ZAR" {
			t.Errorf("%+v lacks something", f)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed\n got %+v\nwant %+v", got, want)
	}
	really := w.simulator.Transactions()
	for i, tt := range []struct{ root, of string }{
		{really[0].ID, ""}, {really[1].ID, ""}, {really[2].ID, ""}, {really[3].ID, ""},
		{auth.Result.PaymentID, auth.Result.PaymentID}, {sale.Result.PaymentID, sale.Result.PaymentID},
		{auth.Result.PaymentID, ""}, {auth.Result.PaymentID, refund.ID}, // the refund has two relations since it was voided
	} {
		f, there, err := w.platform.Transaction(t.Context(), listed[i].ID)
		if err != nil || !there || f.ID != really[i].ID || f.RootID != tt.root || f.PaymentID != tt.of || f.Operation != want[i].kind || f.Amount.Minor != want[i].amount {
			t.Errorf("transaction %d: %+v, %v, %v, want root %s and payment %q", i, f, there, err, tt.root, tt.of)
		}
	}
	if _, there, err := w.platform.Transaction(t.Context(), "7000000000000000000000"); there || err != nil {
		t.Errorf("nobody's transaction: %v, %v", there, err)
	}
	if _, there, err := w.platform.Transaction(t.Context(), "../x"); there || err != nil {
		t.Errorf("no id at all: %v, %v", there, err)
	}
	if rest := all(t, w.platform, to, to.Add(time.Hour)); len(rest) != 0 {
		t.Errorf("in the future: %+v", rest)
	}
}

func TestSimulatorAuditIsNotRealTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *cybersource.Config, _ map[string]string) { c.SearchDelay = time.Hour })
	a := w.charge("4111111111111111", true)
	from, to := time.Now().Add(-time.Minute), time.Now().Add(time.Minute)
	if listed := all(t, w.platform, from, to); len(listed) != 0 {
		t.Errorf("at once: %+v", listed)
	}
	if _, there, err := w.platform.Transaction(t.Context(), a.Result.PaymentID); there || err != nil {
		t.Errorf("at once: %v, %v", there, err)
	}
	w.simulator.Index()
	if listed := all(t, w.platform, from, to); len(listed) != 1 || listed[0].ID != a.Result.PaymentID {
		t.Errorf("later: %+v", listed)
	}
}

// book is a far end with many transactions. Those of one second come in another
// order each time, as a search may have them.
type book struct {
	times []time.Time // by number, ascending
	calls int
	first string
	spoil func(*book, *answerRows)
}

type answerRows struct {
	rows  []string
	total int
}

var rangeForm = regexp.MustCompile(`^submitTimeUtc:\[(\d+) TO (\d+)\}$`)

func (b *book) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var req searchRequest
	bounds := []string{}
	if json.Unmarshal(body, &req) == nil {
		bounds = rangeForm.FindStringSubmatch(req.Query)
	}
	if len(bounds) != 3 || req.Sort != "submitTimeUtc:asc" || req.Limit > 2500 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	from, _ := strconv.ParseInt(bounds[1], 10, 64)
	to, _ := strconv.ParseInt(bounds[2], 10, 64)
	var found []int
	for i, at := range b.times {
		if ms := at.UnixMilli(); ms >= from && ms < to {
			found = append(found, i)
		}
	}
	if b.calls++; b.calls%2 == 0 {
		slices.SortStableFunc(found, func(x, y int) int { return b.times[x].Truncate(time.Second).Compare(b.times[y].Truncate(time.Second)) })
		for start := 0; start < len(found); { // the second's own order, turned round
			end := start
			for end < len(found) && b.times[found[end]].Truncate(time.Second).Equal(b.times[found[start]].Truncate(time.Second)) {
				end++
			}
			if end-start <= auditRows { // more than a page in a second have to keep their places
				slices.Reverse(found[start:end])
			}
			start = end
		}
	}
	a := answerRows{total: len(found)}
	page := found[min(req.Offset, len(found)):]
	for _, i := range page[:min(req.Limit, len(page))] {
		a.rows = append(a.rows, strings.NewReplacer("2026-01-15T10:21:02Z", b.times[i].UTC().Format("2006-01-02T15:04:05Z"), "pr_07abc-1", "order-"+strconv.Itoa(i)).
			Replace(row(strconv.Itoa(i+1), "100", "", "ics_auth 1", "ics_bill 1")))
	}
	if b.spoil != nil {
		b.spoil(b, &a)
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = fmt.Fprintf(w, `{"totalCount":%d,"_embedded":{"transactionSummaries":[%s]}}`, a.total, strings.Join(a.rows, ","))
}

func TestAuditSeesEveryTransactionOnce(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)
	for name, spread := range map[string]func(i int) time.Time{
		"one a second":             func(i int) time.Time { return start.Add(time.Duration(i) * time.Second) },
		"seven a second":           func(i int) time.Time { return start.Add(time.Duration(i) * time.Second / 7) },
		"all in one second":        func(i int) time.Time { return start.Add(time.Duration(i) * time.Millisecond) },
		"a full second in between": func(i int) time.Time { return start.Add(time.Duration(max(i, 450)) * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &book{}
			for i := range 923 {
				b.times = append(b.times, spread(i))
			}
			server := httptest.NewServer(b)
			defer server.Close()
			p := newPlatform(t, testSettings(server.URL))
			seen := map[string]int{}
			last := time.Time{}
			for _, f := range all(t, p, start, start.Add(time.Hour)) {
				seen[f.ID]++
				if f.At.Before(last) {
					t.Errorf("%s at %s comes after %s", f.ID, f.At, last)
				}
				last = f.At
			}
			for i := range b.times {
				if n := seen[strconv.Itoa(i+1)]; n != 1 {
					t.Errorf("transaction %d was told %d times", i+1, n)
				}
			}
			if b.calls > 12 {
				t.Errorf("%d searches", b.calls)
			}
		})
	}
}

func TestAuditBelievesNoOddSearch(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)
	for name, change := range map[string]func(*book, *answerRows){
		"more than it gives": func(_ *book, a *answerRows) { a.total = 1000; a.rows = a.rows[:5] },
		"out of order":       func(_ *book, a *answerRows) { slices.Reverse(a.rows) },
		"the same page always": func(b *book, a *answerRows) {
			if b.calls == 1 {
				b.first = a.rows[0]
			}
			a.total, a.rows = 100_000, slices.Repeat([]string{b.first}, auditRows)
		},
		"no id":             func(_ *book, a *answerRows) { a.rows[3] = strings.Replace(a.rows[3], `"id":"4"`, `"id":""`, 1) },
		"no time":           func(_ *book, a *answerRows) { a.rows[3] = strings.Replace(a.rows[3], "submitTimeUtc", "when", 1) },
		"an endless answer": func(_ *book, a *answerRows) { a.rows[0] += strings.Repeat(" ", 2<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &book{spoil: change}
			for i := range 50 {
				b.times = append(b.times, start.Add(time.Duration(i)*time.Second))
			}
			server := httptest.NewServer(b)
			defer server.Close()
			p := newPlatform(t, testSettings(server.URL))
			err := p.Transactions(t.Context(), start, start.Add(time.Hour), func(platforms.Found) error { return nil })
			if err == nil || conversations.CodeOf(err) != conversations.CodeUnavailable {
				t.Errorf("%v, want that it is not available", err)
			}
			if b.calls > 5 {
				t.Errorf("%d searches", b.calls)
			}
		})
	}
}

func TestAuditEndsWithTheFirstErrorOfItsCaller(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)
	server := httptest.NewServer(&book{times: []time.Time{start, start.Add(time.Second)}})
	defer server.Close()
	p := newPlatform(t, testSettings(server.URL))
	stop, n := errors.New("stop"), 0
	if err := p.Transactions(t.Context(), start, start.Add(time.Hour), func(platforms.Found) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
}

func TestAuditTellsRows(t *testing.T) {
	t.Parallel()
	const approvalCode = `,"processorInformation":{"approvalCode":"831000"}`
	const authorized, captured, declined = conversations.OutcomeAuthorized, conversations.OutcomeCaptured, conversations.OutcomeDeclined
	for _, tt := range []struct {
		name      string
		row       string
		kind      conversations.OperationKind
		outcome   conversations.Outcome
		succeeded bool
		code      string
	}{
		{"sale", row("1", "100", approvalCode, "ics_auth 1", "ics_bill 1"), "", captured, true, "pr_07abc-1"},
		{"authorization", row("1", "100", approvalCode, "ics_auth 1"), "", authorized, true, "pr_07abc-1"},
		{"declined", row("1", "203", "", "ics_auth 0"), "", declined, false, "pr_07abc-1"},
		{"an error", row("1", "150", "", "ics_auth -1"), "", conversations.OutcomeNotFound, false, "pr_07abc-1"},
		{"risk refused and given back at once", row("1", "481", approvalCode, "ics_auth 1", "ics_auth_reversal 1"), "", conversations.OutcomeReversed, false, "pr_07abc-1"},
		{"under review", row("1", "480", approvalCode, "ics_auth 1"), "", conversations.OutcomeInReview, true, "pr_07abc-1"},
		{"authenticated only", row("1", "100", "", "ics_pa_validate 1"), "", conversations.OutcomeNotFound, false, "pr_07abc-1"},
		{"nothing said", strings.Replace(row("1", "", ""), `"reasonCode":"",`, "", 1), "", conversations.OutcomeUnknown, false, "pr_07abc-1"},
		{"capture", row("1", "100", "", "ics_bill 1"), conversations.OperationCapture, "", true, "pr_07abc-1"},
		{"capture refused", row("1", "233", "", "ics_bill 0"), conversations.OperationCapture, "", false, "pr_07abc-1"},
		{"refund", row("1", "100", "", "ics_credit 1"), conversations.OperationRefund, "", true, "pr_07abc-1"},
		{"void", row("1", "100", "", "ics_void 1"), conversations.OperationVoid, "", true, "pr_07abc-1"},
		{"reversal", row("1", "100", "", "ics_auth_reversal 1"), conversations.OperationReversal, "", true, "pr_07abc-1"},
		{"time-out reversal", row("1", "100", "", "ics_timeout_auth_reversal 1"), conversations.OperationReversal, "", true, "pr_07abc-1"},
		{"void with a reversal", row("1", "100", "", "ics_auth_reversal 1", "ics_void 1"), conversations.OperationVoid, "", true, "pr_07abc-1"},
		{"somebody else's reference", of("Rechnung 7 für Müller", "149.00", row("1", "100", "", "ics_credit 1")), conversations.OperationRefund, "", true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, p := newScript(t, map[string]scripted{searches: found(tt.row)})
			listed := all(t, p, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC))
			if len(listed) != 1 {
				t.Fatalf("%+v", listed)
			}
			f := listed[0]
			if f.Operation != tt.kind || f.Result.Outcome != tt.outcome || f.Succeeded != tt.succeeded || f.Code != tt.code || f.Amount != zar149 {
				t.Errorf("%+v, want %q %q", f, tt.kind, tt.outcome)
			}
		})
	}
	_, p := newScript(t, map[string]scripted{searches: found(strings.Replace(row("1", "100", "", "ics_auth 1"), "testmerchant01", "another", 1))})
	if listed := all(t, p, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Now()); len(listed) != 0 {
		t.Errorf("another merchant's: %+v", listed)
	}
}
