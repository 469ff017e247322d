package main

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/token"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"

	"paythread/conversations"
	"paythread/simulator"
)

// lookWhen says of each metric when an operator should look. docs/metrics.md is
// printed from it and from what a gateway gathers.
var lookWhen = map[string]string{
	"paythread_attempt_inquiries_total":                      "it moves: an answer to a charge was lost",
	"paythread_attempts_total":                               "not_taken grows: the platform refuses us, or cannot be reached; unknown: answers are being lost; declined beyond the usual: somebody tries cards",
	"paythread_attempts_unsettled":                           "above a few",
	"paythread_attempts_unsettled_oldest_seconds":            "above half an hour",
	"paythread_audit_interval_seconds":                       "",
	"paythread_audit_last_success_timestamp_seconds":         "it is several intervals ago, in all processes",
	"paythread_audit_findings_total":                         "amount or no_request: see [money](operate.md#money); payment: answers are being lost for good",
	"paythread_audits_total":                                 "failed; done stands still",
	"paythread_build_info":                                   "",
	"paythread_callback_endpoints":                           "failing (they are among the active) stays above 0; disabled grows",
	"paythread_callback_resets_total":                        "it moves at all",
	"paythread_callbacks_depth":                              "it grows",
	"paythread_callbacks_oldest_seconds":                     "above an hour: see which endpoint is failing",
	"paythread_callbacks_total":                              "given_up: an endpoint did not take an event for three days",
	"paythread_card_testing_refusals_total":                  "it grows all at once: somebody tries stolen cards",
	"paythread_commits_unreplicated_total":                   "it grows: a replica is gone or far behind",
	"paythread_config_last_reload_success_timestamp_seconds": "",
	"paythread_config_last_reload_successful":                "0: see the log for what is wrong",
	"paythread_config_reloads_total":                         "refused moves",
	"paythread_config_restart_settings":                      "above 0: restart when it suits",
	"paythread_dead_letters":                                 "above 0: see [dead letters](operate.md#dead-letters)",
	"paythread_dead_letters_total":                           "it moves at all",
	"paythread_feed_behind_seconds":                          "above a few seconds: this process does not follow the feed",
	"paythread_feed_lag_seconds":                             "above a second",
	"paythread_http_request_seconds":                         "it grows",
	"paythread_http_requests_total":                          "5xx",
	"paythread_lane_depth":                                   "a sender's lane stays full: it is slower than what is asked of it",
	"paythread_links_opened_total":                           "it stands still while requests are made: links do not arrive, or do not open",
	"paythread_links_paid_total":                             "it stands still while links are opened: the page or the platform",
	"paythread_mark_read_total":                              "",
	"paythread_message_questions_total":                      "it moves: answers are being lost",
	"paythread_message_send_seconds":                         "it nears `dispatcher.send_timeout`",
	"paythread_message_waits_total":                          "throttle or full grow all day: the sender's limit is too low; hold, breaker: see the two below",
	"paythread_messages_sent_total":                          "failed or unknown grow; not_tried: the provider has told that it would refuse",
	"paythread_messages_total":                               "failed grows, or delivered stays behind accepted",
	"paythread_notifications_total":                          "bad_signature: the key was renewed on one side; nothing at all: the subscription is suspended",
	"paythread_operations_total":                             "failed, or unknown that stays: see [money](operate.md#money)",
	"paythread_operations_unsettled":                         "above 0 for long",
	"paythread_operations_unsettled_oldest_seconds":          "above an hour",
	"paythread_outbox_depth":                                 "it grows",
	"paythread_outbox_oldest_seconds":                        "above a minute: a provider or the workers hang",
	"paythread_payment_events_total":                         "reversal_failed or operation_failed move; expired or declined grow beyond the usual",
	"paythread_payment_requests_created_total":               "it stands still: the order system does not ask",
	"paythread_redis_call_seconds":                           "scripts above a few milliseconds",
	"paythread_redis_calls_total":                            "failed moves",
	"paythread_redis_pool_connections":                       "used stays at `redis.pool_size`",
	"paythread_redis_pool_gets_total":                        "timeout moves: the pool is too small, or Redis too slow",
	"paythread_redis_pool_stale_total":                       "it grows: connections break",
	"paythread_redis_up":                                     "0",
	"paythread_sender_breaker_state":                         "2: the provider is down, or cannot be reached",
	"paythread_sender_hold_seconds":                          "above 0: `GET /v1/senders` says why",
	"paythread_sender_holds_total":                           "auth or account: credentials or contract",
	"paythread_sse_connections":                              "",
	"paythread_sse_cut_total":                                "it grows: a proxy buffers",
	"paythread_sse_lag_seconds":                              "above a second while the feed's lag is small: clients or a proxy are slow",
	"paythread_time_to_pay_seconds":                          "it nears the merchants' windows",
	"paythread_timeout_reversals_total":                      "failed",
	"paythread_timers_late_seconds":                          "above a few seconds",
	"paythread_webhook_reports_total":                        "failed; unmatched and unknown_sender are harmless in small numbers",
	"paythread_webhooks_total":                               "bad_signature: a secret was changed on one side; unavailable: Redis",
}

// openLabels are labels whose values are not the program's own, with what they
// are.
var openLabels = map[string]string{
	"route": "the pattern, never the address", "status": "of HTTP", "sender": "as configured", "merchant": "as configured",
	"lane": "a sender, as configured, or `other work`", "version": "", "goversion": "",
}

// newIdleApp returns a gateway that is built and not started.
func newIdleApp(t *testing.T, redis func(*testing.T) RedisConfig) *App {
	t.Helper()
	s := &stage{t: t, public: "http://127.0.0.1:1", outside: &world{World: &simulator.World{}, URL: "http://127.0.0.1:1"}}
	app, err := newApp(t.Context(), s.configure(stageOptions{Redis: redis, Timings: quickTimings}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := app.Stop(context.Background()); err != nil {
			t.Errorf("stop the gateway: %v", err)
		}
	})
	newReloadMetrics(app.registry) // as serve does, which follows its files
	return app
}

// gatheredMetrics are what a gateway shows before anything has happened.
func gatheredMetrics(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	return shownBy(t, newIdleApp(t, onEmbedded))
}

// shownBy returns the metrics of ours that a gateway shows.
func shownBy(t *testing.T, app *App) []*dto.MetricFamily {
	t.Helper()
	families, err := app.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "paythread_") })
}

// askedOfRedis are the metrics that each process asks Redis for when it is
// scraped, and that are so the same in all of them.
var askedOfRedis = []string{
	"paythread_attempts_unsettled", "paythread_attempts_unsettled_oldest_seconds", "paythread_callback_endpoints", "paythread_callbacks_depth",
	"paythread_callbacks_oldest_seconds", "paythread_dead_letters", "paythread_operations_unsettled", "paythread_operations_unsettled_oldest_seconds",
	"paythread_outbox_depth", "paythread_outbox_oldest_seconds", "paythread_sender_hold_seconds", "paythread_timers_late_seconds",
}

// TestScrapeWithoutRedis: what Redis would have to say is left out and not told
// wrongly, it is told that it does not answer, and all else is told as ever.
func TestScrapeWithoutRedis(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	app := newIdleApp(t, func(*testing.T) RedisConfig {
		return RedisConfig{Mode: RedisSingle, Addresses: []string{server.Addr()}, Prefix: "pt", Partitions: 4, PoolSize: 8}
	})
	shown := func() (names []string, up float64) {
		for _, f := range shownBy(t, app) {
			names = append(names, f.GetName())
			if f.GetName() == "paythread_redis_up" {
				up = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return names, up
	}
	before, up := shown()
	if up != 1 {
		t.Errorf("with Redis it is %v", up)
	}
	server.Close()
	after, up := shown()
	if up != 0 {
		t.Errorf("without Redis it is %v", up)
	}
	want := slices.DeleteFunc(slices.Clone(before), func(name string) bool { return slices.Contains(askedOfRedis, name) })
	if len(want) != len(before)-len(askedOfRedis) || !slices.Equal(after, want) {
		t.Errorf("without Redis %q are shown, want %q", after, want)
	}
}

// TestLabelsStayClosed: whatever strangers send, the calls are counted under
// labels of ours.
func TestLabelsStayClosed(t *testing.T) {
	t.Parallel()
	app := newIdleApp(t, onEmbedded)
	series := func() (n int) {
		for _, f := range shownBy(t, app) {
			n += len(f.GetMetric())
		}
		return n
	}
	call := func(i int) {
		for _, path := range []string{"/%d", "/p/%d", "/r/%d", "/pay/%d", "/receipts/%d", "/webhooks/%d", "/webhooks/%d/s", "/webhooks/cybersource/%d", "/v1/%d", "/v1/payment-requests/%d"} {
			for _, method := range []string{"GET", "POST", fmt.Sprintf("BREW%d", i)} {
				r := httptest.NewRequest(method, fmt.Sprintf(path, i), strings.NewReader("{}"))
				resp, err := app.public.Test(r, -1)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
			}
		}
	}
	call(0)
	known := series()
	for i := range 30 {
		call(1 + i)
	}
	if n := series(); n != known {
		t.Errorf("%d series became %d", known, n)
	}
	unknown := conversations.Message{SenderID: "gone", Channel: conversations.SMS, Status: conversations.DeliveryFailed, Reason: "made up"}
	counted := newPaymentMetrics(prometheus.NewRegistry(), app.providerOf)
	known = testutil.CollectAndCount(counted.messages)
	counted.countMessage(unknown)
	counted.count(conversations.Committed{Events: []conversations.LoggedEvent{{Type: "made up"}}})
	if n := testutil.CollectAndCount(counted.messages); n != known || testutil.ToFloat64(counted.events.WithLabelValues(otherEvent)) != 1 {
		t.Errorf("%d series of messages became %d, or the event was not counted as another", known, n)
	}
}

// labelsOf returns a metric's labels with their values, as a reader wants them.
func labelsOf(f *dto.MetricFamily) string {
	values := map[string]map[string]bool{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if values[l.GetName()] == nil {
				values[l.GetName()] = map[string]bool{}
			}
			values[l.GetName()][l.GetValue()] = true
		}
	}
	var shown []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		words, open := openLabels[name]
		if name == "status" && values[name]["failed"] { // a message's
			open = false
		}
		if !open {
			words = strings.Join(slices.DeleteFunc(slices.Sorted(maps.Keys(values[name])), func(v string) bool { return v == "" }), ", ")
		}
		if words != "" {
			words = " (" + words + ")"
		}
		shown = append(shown, "`"+name+"`"+words)
	}
	return strings.Join(shown, "; ")
}

// TestGeneratedMetrics keeps docs/metrics.md what a gateway shows. A metric
// whose labels are not created at start would be missing there.
func TestGeneratedMetrics(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("<!-- Printed from the code by `make generate`. Do not edit. -->\n# Metrics\n\n" +
		"Every process shows these at `/metrics` on its admin listener, beside Go's own (`go_`, `process_`, `promhttp_`). What is asked of Redis\n" +
		"(depths, ages, what is unsettled) is the same in each process: take the maximum. What is counted is counted once, by the process in which\n" +
		"it happened: take the sum. All labels are closed sets and there from the start, so that the first failure is an increase; of HTTP's many\n" +
		"statuses those that the rules ask for are. While Redis does not answer, what is asked of it is left out. No label holds a\n" +
		"phone number, an order or an id, but for those of senders and merchants, as configured.\n\n" +
		"The alerts on them and what to do are in [runbooks](runbooks/README.md).\n\n" +
		"| metric | type | labels | what it is | look when |\n| --- | --- | --- | --- | --- |\n")
	var names []string
	for _, f := range gatheredMetrics(t) {
		names = append(names, f.GetName())
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), labelsOf(f), f.GetHelp(), lookWhen[f.GetName()])
	}
	compare(t, "lookWhen", "metric", slices.Collect(maps.Keys(lookWhen)), names)
	golden(t, filepath.Join("..", "docs", "metrics.md"), []byte(b.String()))
}

// ruleFile is a file of rules of Prometheus.
type ruleFile struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Record      string            `yaml:"record"`
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

var rulesFolder = filepath.Join("..", "helm", "rules")

func readRules(t *testing.T, file string) ruleFile {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(rulesFolder, file))
	if err != nil {
		t.Fatal(err)
	}
	var rules ruleFile
	if err := yaml.Unmarshal(b, &rules); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return rules
}

// alerts returns the names of all alerts, in order.
func alerts(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, g := range readRules(t, "alerts.yaml").Groups {
		for _, r := range g.Rules {
			names = append(names, r.Alert)
		}
	}
	return names
}

// promtool runs Prometheus' own tool, which scripts/install-test-tools installs.
func promtool(t *testing.T, dir string, stdin io.Reader, args ...string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "promtool", args...)
	c.Dir, c.Stdin = dir, stdin
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v; if it is missing: scripts/install-test-tools\n%s", strings.Join(args, " "), err, out)
	}
}

// TestRules: Prometheus takes the rules, and each alert fires when it should and
// not when it should not.
func TestRules(t *testing.T) {
	t.Parallel()
	promtool(t, rulesFolder, nil, "check", "rules", "--lint-fatal", "recording.yaml", "alerts.yaml")
	tests, err := filepath.Glob(filepath.Join(rulesFolder, "tests", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"test", "rules"}
	for _, file := range tests {
		args = append(args, filepath.Base(file))
	}
	promtool(t, filepath.Join(rulesFolder, "tests"), nil, args...)
}

// TestAlertsAreWhole: each alert has a page that its annotation leads to, a line
// in the list of pages, and a test in which it fires and one in which it does
// not; and there is no page and no test of another.
func TestAlertsAreWhole(t *testing.T) {
	t.Parallel()
	named := alerts(t)
	if len(named) < 20 {
		t.Fatalf("%d alerts: this test does not see them", len(named))
	}
	for _, folder := range []struct{ path, ending, besides string }{
		{filepath.Join("..", "docs", "runbooks"), ".md", "README"}, {filepath.Join(rulesFolder, "tests"), ".yaml", ""},
	} {
		files, err := filepath.Glob(filepath.Join(folder.path, "*"+folder.ending))
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, file := range files {
			if name := strings.TrimSuffix(filepath.Base(file), folder.ending); name != folder.besides {
				found = append(found, name)
			}
		}
		compare(t, folder.path, "alert", found, named)
	}
	list := readPage(t, "docs/runbooks/README.md")
	for _, g := range readRules(t, "alerts.yaml").Groups {
		for _, r := range g.Rules {
			if want := "RUNBOOKS/" + r.Alert + ".md"; r.Annotations["runbook_url"] != want {
				t.Errorf("%s leads to %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s has no summary or no description", r.Alert)
			}
			if s := r.Labels["severity"]; s != "page" && s != "ticket" {
				t.Errorf("%s has the severity %q", r.Alert, s)
			}
			if !strings.Contains(list.text, "["+r.Alert+"]") {
				t.Errorf("docs/runbooks/README.md does not list %s", r.Alert)
			}
			for _, part := range []string{"## What customers notice", "## Look", "## Do", "## Over when"} {
				if page := readPage(t, "docs/runbooks/"+r.Alert+".md"); !strings.Contains(page.text, part) {
					t.Errorf("%s has no part %q", page.file, part)
				}
			}
			firesAndNot(t, r.Alert)
		}
	}
}

// firesAndNot holds an alert's test to have both.
func firesAndNot(t *testing.T, alert string) {
	t.Helper()
	var file struct {
		Tests []struct {
			Alerts []struct {
				Alert string `yaml:"alertname"`
				Want  []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	b, err := os.ReadFile(filepath.Join(rulesFolder, "tests", alert+".yaml"))
	if err != nil {
		return // reported already
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatalf("%s: %v", alert, err)
	}
	fires, not := false, false
	for _, test := range file.Tests {
		for _, a := range test.Alerts {
			fires = fires || a.Alert == alert && len(a.Want) > 0
			not = not || a.Alert == alert && len(a.Want) == 0
		}
	}
	if !fires || !not {
		t.Errorf("the test of %s: it fires %t, it does not fire %t; want both", alert, fires, not)
	}
}

// dashboardPanel is what is looked at of a panel.
type dashboardPanel struct {
	ID          int                      `json:"id"`
	Type        string                   `json:"type"`
	Title       string                   `json:"title"`
	Description string                   `json:"description"`
	Source      dashboardSource          `json:"datasource"`
	Place       struct{ X, Y, W, H int } `json:"gridPos"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []struct {
		Ref    string          `json:"refId"`
		Source dashboardSource `json:"datasource"`
		Expr   string          `json:"expr"`
		Legend string          `json:"legendFormat"`
	} `json:"targets"`
}

type dashboardSource struct {
	UID string `json:"uid"`
}

var (
	labelsByForm = regexp.MustCompile(`\b(?:sum|max|min) by \(([a-z_, ]+)\) `)
	rangeForm    = regexp.MustCompile(`\[([^\]]+)\]`)
)

// TestDashboardLayout: panels lie beside each other, what tells curves apart
// stands in their legends, and rates follow how close a viewer looks.
func TestDashboardLayout(t *testing.T) {
	t.Parallel()
	panels := dashboard(t)
	if len(panels) < 50 {
		t.Errorf("%d panels: this test does not see them", len(panels))
	}
	for i, p := range panels {
		for _, other := range panels[:i] {
			if p.Place.X < other.Place.X+other.Place.W && other.Place.X < p.Place.X+p.Place.W &&
				p.Place.Y < other.Place.Y+other.Place.H && other.Place.Y < p.Place.Y+p.Place.H {
				t.Errorf("panel %d, %s, lies on %s", p.ID, p.Title, other.Title)
			}
		}
		if p.Place.W < 1 || p.Place.H < 1 || p.Place.X < 0 || p.Place.X+p.Place.W > 24 {
			t.Errorf("panel %d, %s, is not inside the 24 columns: %+v", p.ID, p.Title, p.Place)
		}
		legends := map[string]bool{}
		for _, q := range p.Targets {
			if legends[q.Legend] || q.Legend == "" && p.Type == "timeseries" {
				t.Errorf("panel %d, %s: the legend %q does not tell its curves apart", p.ID, p.Title, q.Legend)
			}
			legends[q.Legend] = true
			if by := labelsByForm.FindAllStringSubmatch(q.Expr, 1); len(by) > 0 && p.Type == "timeseries" && strings.Count(q.Expr, " by (") == 1 {
				for _, label := range strings.Split(by[0][1], ", ") {
					if label != "le" && !strings.Contains(q.Legend, "{{"+label+"}}") {
						t.Errorf("panel %d, %s: the legend %q lacks the label %s", p.ID, p.Title, q.Legend, label)
					}
				}
			}
			for _, over := range rangeForm.FindAllStringSubmatch(q.Expr, -1) {
				if p.Type == "timeseries" && over[1] != "$__rate_interval" {
					t.Errorf("panel %d, %s: a curve over [%s]", p.ID, p.Title, over[1])
				}
			}
		}
	}
}

// dashboard returns the panels of the dashboard.
func dashboard(t *testing.T) []dashboardPanel {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "helm", "dashboards", "paythread.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []dashboardPanel `json:"panels"`
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	return board.Panels
}

// dashboardQueries returns the queries of the dashboard by panel, and holds
// each panel to have a unit, a description and its data source by the variable.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	queries, seen := map[string]string{}, map[int]bool{}
	for _, p := range dashboard(t) {
		if seen[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		seen[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.FieldConfig.Defaults.Unit == "" || p.Description == "" || len(p.Targets) == 0 || p.Source.UID != "${datasource}" {
			t.Errorf("panel %d, %s, lacks a unit, a description, a query or the variable's data source", p.ID, p.Title)
		}
		for _, q := range p.Targets {
			if q.Source.UID != "${datasource}" {
				t.Errorf("panel %d, %s: its query has the data source %q", p.ID, p.Title, q.Source.UID)
			}
			queries[fmt.Sprintf("panel %d %s, %s", p.ID, q.Ref, p.Title)] = q.Expr
		}
	}
	return queries
}

// TestBehindFeed: a reader is behind for as long as it has not come to where the
// feed ended when it was last in step, and an unknown end does not excuse it.
func TestBehindFeed(t *testing.T) {
	t.Parallel()
	at := func(ms int64) conversations.Cursor { return conversations.Cursor{{Ms: ms}, {Ms: 1}} }
	began := time.Unix(1700000000, 0)
	var b behindFeed
	for i, c := range []struct {
		place, end conversations.Cursor
		second     int
		want       int
	}{
		{nil, at(5), 0, 0},    // the reader has not begun
		{at(5), at(5), 1, 0},  // in step
		{at(5), at(9), 2, 0},  // an event has just come
		{at(5), at(12), 4, 2}, // and is not read
		{at(5), nil, 6, 4},    // nor while Redis does not answer
		{at(9), at(12), 7, 0}, // it has come to where the feed ended, and is behind anew
		{at(9), at(12), 9, 2},
		{at(12), at(12), 10, 0},
	} {
		if got := b.measure(c.place, c.end, began.Add(time.Duration(c.second)*time.Second)); got != time.Duration(c.want)*time.Second {
			t.Errorf("look %d: behind for %v, want %d s", i+1, got, c.want)
		}
	}
}

// emptyInCalm are operands of rules that give nothing while all is well.
var emptyInCalm = map[string]string{
	"absent(last_over_time(paythread_build_info[6h]))": "it gives something only when no process is scraped",
}

// ruleQueries returns the queries of the rules: what is recorded, and what the
// alerts compare.
func ruleQueries(t *testing.T) map[string]string {
	t.Helper()
	queries := map[string]string{}
	for _, file := range []string{"recording.yaml", "alerts.yaml"} {
		for _, g := range readRules(t, file).Groups {
			for _, r := range g.Rules {
				if r.Record != "" {
					queries[r.Record] = r.Expr
					continue
				}
				for i, operand := range operands(r.Expr) {
					queries[fmt.Sprintf("%s, operand %d", r.Alert, i+1)] = operand
				}
			}
		}
	}
	return queries
}

// TestOperands holds the reader of expressions: a comparison that does not hold
// is empty, so what is compared is asked for.
func TestOperands(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string][]string{
		`max by (a) (x{b=~"c > d"}) > 2`:                          {`max by (a) (x{b=~"c > d"})`},
		"(\n  r:a > 0.1\n  and r:b > 0.1\n)\nor (\n  r:c >= 3\n)": {"r:a", "r:b", "r:c"},
		`absent(x)`:                     {`absent(x)`},
		`min(x) == 0 unless on (job) y`: {`min(x)`, `on (job) y`},
		`sum(increase(x{le="1"}[1h])) / sum(increase(y[1h])) > 0.5`: {`sum(increase(x{le="1"}[1h])) / sum(increase(y[1h]))`},
	} {
		if got := operands(expr); !slices.Equal(got, want) {
			t.Errorf("operands of %s: got %q, want %q", expr, got, want)
		}
	}
}

var (
	joinForm   = regexp.MustCompile(`^(\s+(and|or|unless)\s+|\s*(==|!=|>=|<=|>|<)\s*)`)
	numberForm = regexp.MustCompile(`^[0-9.]+$`)
)

// operands splits an expression where it is joined or compared, outside of
// parentheses, and leaves out numbers.
func operands(expr string) []string {
	expr = strings.TrimSpace(expr)
	if inner, ok := inParentheses(expr); ok {
		return operands(inner)
	}
	depth, begin := 0, 0
	quoted := false
	var parts []string
	for i := 0; i < len(expr); i++ {
		switch c := expr[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case strings.ContainsRune("({[", rune(c)):
			depth++
		case strings.ContainsRune(")}]", rune(c)):
			depth--
		case depth == 0:
			if join := joinForm.FindString(expr[i:]); join != "" {
				parts = append(parts, expr[begin:i])
				i += len(join) - 1
				begin = i + 1
			}
		}
	}
	if parts == nil {
		if numberForm.MatchString(expr) {
			return nil
		}
		return []string{expr}
	}
	var found []string
	for _, part := range append(parts, expr[begin:]) {
		found = append(found, operands(part)...)
	}
	return found
}

// inParentheses returns what stands in the parentheses that hold all of it.
func inParentheses(expr string) (string, bool) {
	if !strings.HasPrefix(expr, "(") || !strings.HasSuffix(expr, ")") {
		return "", false
	}
	depth := 0
	for i := range len(expr) - 1 {
		switch expr[i] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 {
			return "", false // the first one ends before the last
		}
	}
	return expr[1 : len(expr)-1], true
}

// TestRulesNameWhatExists: every metric that rules, dashboard and runbooks speak
// of is one that a gateway shows, or that is recorded, with labels that it has
// and values that they can have.
func TestRulesNameWhatExists(t *testing.T) {
	t.Parallel()
	known := map[string]labelValues{}
	for _, f := range gatheredMetrics(t) {
		labels := labelValues{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = append(labels[l.GetName()], l.GetValue())
			}
		}
		known[f.GetName()] = labels
		if f.GetType() == dto.MetricType_HISTOGRAM {
			for _, ending := range []string{"_bucket", "_count", "_sum"} {
				known[f.GetName()+ending] = labels
			}
		}
	}
	for _, g := range readRules(t, "recording.yaml").Groups {
		for _, r := range g.Rules {
			known[r.Record] = labelValues{"merchant": {"acme"}}
		}
	}
	names, matchers := 0, 0
	for _, pattern := range []string{"helm/rules/*.yaml", "helm/rules/tests/*.yaml", "helm/dashboards/*.json", "docs/runbooks/*.md"} {
		files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range selectorForm.FindAllStringSubmatch(strings.ReplaceAll(string(b), `\"`, `"`), -1) {
				names++
				labels, there := known[m[1]]
				if !there {
					t.Errorf("%s names %s, which no gateway shows", file, m[1])
					continue
				}
				for _, matcher := range matcherForm.FindAllStringSubmatch(m[2], -1) {
					matchers++
					if wrong := labels.cannotHave(matcher[1], matcher[2]); wrong != "" {
						t.Errorf("%s: %s{%s}: %s", file, m[1], m[2], wrong)
					}
				}
			}
		}
	}
	if names < 200 || matchers < 500 {
		t.Errorf("%d names of metrics, %d labels: this test does not see them", names, matchers)
	}
}

var (
	selectorForm = regexp.MustCompile(`(paythread[_:][a-z0-9_:]+)(?:\{([^}]*)\})?`)
	httpForm     = regexp.MustCompile(`^[1-5](\.\.|\d\d)$`)
	matcherForm  = regexp.MustCompile(`([a-z_]+)(?:=~|!~|!=|=)"([^"]*)"`)
)

// labelValues are the labels of a metric with the values that they have.
type labelValues map[string][]string

// cannotHave tells what is wrong with asking for a value of a label, or for
// those that one of several fit. What Prometheus puts on is not looked at.
func (l labelValues) cannotHave(label, asked string) string {
	switch {
	case slices.Contains([]string{"namespace", "job", "instance", "le", "sender", "merchant", "version"}, label),
		label == "status" && slices.Contains(l[label], "200") && httpForm.MatchString(asked):
		return ""
	}
	if l[label] == nil {
		return "it has no label " + label
	}
	for _, one := range strings.Split(asked, "|") {
		form, err := regexp.Compile("^(?:" + one + ")$")
		if err != nil {
			return err.Error()
		}
		if !slices.ContainsFunc(l[label], func(v string) bool { return v == one || form.MatchString(v) }) {
			return label + " is never " + one
		}
	}
	return ""
}

// TestSharedGaugesAreNotSummed: what every process asks Redis for is the same in
// each; a sum would be twice as much with two processes.
func TestSharedGaugesAreNotSummed(t *testing.T) {
	t.Parallel()
	queries := dashboardQueries(t)
	maps.Copy(queries, ruleQueries(t))
	maps.Copy(queries, runbookQueries(t))
	seen := 0
	for name, query := range queries {
		for _, m := range selectorForm.FindAllStringSubmatchIndex(query, -1) {
			if !slices.Contains(askedOfRedis, query[m[2]:m[3]]) {
				continue
			}
			seen++
			around := foldForm.FindAllString(query[:m[0]], -1)
			if n := len(around); n > 0 && around[n-1] != "max" && around[n-1] != "min" {
				t.Errorf("%s takes the %s of what each process shows: %s", name, around[n-1], query)
			}
		}
	}
	if seen < 25 {
		t.Errorf("%d such gauges in queries: this test does not see them", seen)
	}
}

// TestRunbooksQuoteTheLog: what a runbook says stands in the log is a message that
// the code writes, or the beginning of one.
func TestRunbooksQuoteTheLog(t *testing.T) {
	t.Parallel()
	var written strings.Builder
	for _, s := range moduleSources(t) {
		if s.isTest() {
			continue
		}
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
				written.WriteString(text.Value + "\n")
			}
			return true
		})
	}
	messages, quoted := written.String(), 0
	for _, alert := range alerts(t) {
		p := readPage(t, "docs/runbooks/"+alert+".md")
		for line := range strings.Lines(p.text) {
			if !strings.HasPrefix(line, "- The log") {
				continue
			}
			for _, m := range quoteForm.FindAllStringSubmatch(codeForm.ReplaceAllString(line, ""), -1) {
				quoted++
				if !strings.Contains(messages, `"`+m[1]) {
					t.Errorf("%s quotes %q, which the program does not write", p.file, m[1])
				}
			}
		}
	}
	if quoted < 12 {
		t.Errorf("%d quotations of the log: this test does not see them", quoted)
	}
}

var quoteForm = regexp.MustCompile(`"([^"]+)"`)

// foldForm finds what makes one value of many.
var foldForm = regexp.MustCompile(`\b(?:sum|avg|count|max|min|stddev|topk|bottomk|quantile)\b`)

// runbookQueries returns the queries in the runbooks.
func runbookQueries(t *testing.T) map[string]string {
	t.Helper()
	queries := map[string]string{}
	for _, alert := range alerts(t) {
		p := readPage(t, "docs/runbooks/"+alert+".md")
		for _, span := range codeSpans(p.text) {
			if strings.Contains(span, "paythread_") || strings.Contains(span, "paythread:") || strings.Contains(span, "{job=") {
				queries[p.file+", "+span] = span
			}
		}
	}
	return queries
}

// prometheusServer is a real Prometheus that scrapes one gateway.
type prometheusServer struct {
	t   *testing.T
	url string
}

var listeningOn = regexp.MustCompile(`msg="Listening on".* address=(127\.0\.0\.1:\d+)`)

// startPrometheus starts a Prometheus with the rules, on a port of the system's
// choice. It ends with the test, or with this process, whose end closes its
// shell's input.
func startPrometheus(t *testing.T, scrape string) *prometheusServer {
	t.Helper()
	folder, err := filepath.Abs(rulesFolder)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yaml")
	text := fmt.Sprintf(`global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q, %q]
scrape_configs:
  - job_name: paythread
    static_configs: [{targets: [%q], labels: {namespace: test}}]
`, filepath.Join(folder, "recording.yaml"), filepath.Join(folder, "alerts.yaml"), scrape)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, dir, nil, "check", "config", config)
	said := &childLog{}
	c := exec.Command("sh", "-c", `"$@" & cat >/dev/null; kill $!; wait $!`, "sh", "prometheus",
		"--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0", "--log.level=info")
	c.Stdout, c.Stderr = said, said
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // its end ends them
		_ = c.Wait()      // ended by a signal, which is an error to Wait
		if t.Failed() {
			t.Logf("prometheus said:\n%s", said.text())
		}
	})
	p := &prometheusServer{t: t}
	p.await("prometheus listens (if it is missing: scripts/install-test-tools); it said:\n"+said.text(), func() bool {
		if m := listeningOn.FindStringSubmatch(said.text()); m != nil {
			p.url = "http://" + m[1]
		}
		return p.url != ""
	})
	return p
}

func (p *prometheusServer) await(what string, holds func() bool) {
	p.t.Helper()
	for end := time.Now().Add(longestWait); !holds(); {
		if time.Now().After(end) {
			p.t.Fatalf("not within %v: %s", longestWait, what)
		}
		if pause(p.t.Context(), 200*time.Millisecond) != nil {
			p.t.Fatalf("the test ended before: %s", what)
		}
	}
}

// ask queries and returns how many series have a value that is a number.
func (p *prometheusServer) ask(query string) (int, error) {
	resp, err := http.PostForm(p.url+"/api/v1/query", url.Values{"query": {query}})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" {
		return 0, fmt.Errorf("prometheus refuses: %s", answer.Error)
	}
	n := 0
	for _, r := range answer.Data.Result {
		var v float64
		if _, err := fmt.Sscan(fmt.Sprint(r.Value[1]), &v); err == nil && !math.IsNaN(v) {
			n++
		}
	}
	return n, nil
}

// provoked is what has to happen so that every query of rules and dashboard has
// something to show. Whatever is only counted is there from the start; what is
// a ratio or a quantile needs what it is about: webhooks, a message that is sent
// and delivered, a link that is opened and paid, a charge, a stream.
const provoked = `
agent     asks 149.00 ZAR for order 1042 by whatsapp
agent     sees created, then delivered
customer  receives the payment message by whatsapp
customer  opens the link
agent     sees opened, then checkout started
customer  pays with a card that is approved
agent     sees attempt started, then paid, then receipt delivered
`

// TestPrometheus: a real Prometheus finds nothing wrong with the metrics, and
// every query of the rules, the dashboard and the runbooks gives it data.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	s := newTale(t, newStage(t, stageOptions{Redis: onRealRedis}))
	newReloadMetrics(s.app.registry) // as serve does, which follows its files
	p := startPrometheus(t, s.app.AdminAddr())
	p.await("the gateway was scraped twice", func() bool {
		n, err := p.ask("count_over_time(paythread_build_info[1m]) > 1")
		return err == nil && n > 0
	})
	for _, line := range storyLines(provoked, 1) {
		v, words, err := findVerb(line.text)
		s.at = line.text
		if err != nil {
			s.fail("%v", err)
		}
		v.do(s, words)
	}
	queries := dashboardQueries(t)
	maps.Copy(queries, ruleQueries(t))
	maps.Copy(queries, runbookQueries(t))
	if len(queries) < 150 {
		t.Errorf("%d queries: this test does not see them", len(queries))
	}
	fill := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$job", ".*", "$namespace", ".*")
	for end := time.Now().Add(longestWait); len(queries) > 0 && time.Now().Before(end); {
		for name, query := range queries {
			n, err := p.ask(fill.Replace(query))
			if _, empty := emptyInCalm[query]; empty && err == nil && n == 0 || err == nil && n > 0 && !empty {
				delete(queries, name)
			}
			if err != nil {
				t.Fatalf("%s: %v: %s", name, err, query)
			}
		}
		if pause(t.Context(), 200*time.Millisecond) != nil {
			break
		}
	}
	for name, query := range queries {
		t.Errorf("%s gives no data, or data where emptyInCalm says there is none: %s", name, query)
	}
	resp, err := http.Get("http://" + s.app.AdminAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	promtool(t, ".", resp.Body, "check", "metrics")
}
