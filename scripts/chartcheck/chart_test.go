package chartcheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chartutil"
)

const (
	chartDir = "../../helm"
	appFile  = "../../gateway/app.go"

	configurationPage = "../../docs/configuration.md"
)

// valuesFiles are the files of values that CI tries, one for each way to set
// the chart up.
func valuesFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chartDir, "ci", "*-values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 5 {
		t.Fatalf("found %d files of values: this test does not see them", len(files))
	}
	return files
}

func stopping(t *testing.T) Stopping {
	t.Helper()
	within, err := StopWithin(appFile)
	if err != nil {
		t.Fatal(err)
	}
	drain, err := DefaultDrain(configurationPage)
	if err != nil {
		t.Fatal(err)
	}
	return Stopping{within, drain}
}

// TestChart: the chart is right with each file of values.
func TestChart(t *testing.T) {
	t.Parallel()
	for _, file := range valuesFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			if err := Check(chartDir, file, stopping(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEverySwitchIsTried: each kind of object is there in some rendering, and
// each that can be switched off is missing in another.
func TestEverySwitchIsTried(t *testing.T) {
	t.Parallel()
	with, without := map[string]bool{}, map[string]bool{}
	for _, file := range valuesFiles(t) {
		all := renderObjects(t, chartDir, readValues(t, file))
		for kind, n := range map[string]int{
			"Deployment": len(all.deployments), "Job": len(all.jobs), "Pod": len(all.pods), "Service": len(all.services),
			"ConfigMap": len(all.configMaps), "ServiceAccount": len(all.accounts), "Ingress": len(all.ingresses),
			"NetworkPolicy": len(all.policies), "PodDisruptionBudget": len(all.budgets),
			"HorizontalPodAutoscaler": len(all.autoscalers), "ServiceMonitor": len(all.serviceMonitors),
		} {
			with[kind] = with[kind] || n > 0
			without[kind] = without[kind] || n == 0
		}
	}
	always := []string{"Deployment", "Pod", "Service", "ConfigMap"}
	for kind := range with {
		if !with[kind] {
			t.Errorf("no file of values makes a %s", kind)
		}
		if isAlways := strings.Contains(strings.Join(always, " "), kind); !isAlways && !without[kind] {
			t.Errorf("no file of values does without a %s", kind)
		}
	}
}

// TestRulesAndDashboardsAreRendered: each file of helm/rules and helm/dashboards
// becomes one object, whole.
func TestRulesAndDashboardsAreRendered(t *testing.T) {
	t.Parallel()
	dir := copyChart(t)
	write(t, filepath.Join(dir, "rules", "planted_rules.yaml"),
		"groups:\n  - name: planted\n    rules:\n      - alert: Planted\n        expr: up == 0\n        annotations:\n          summary: '{{ $labels.pod }} is away'\n")
	write(t, filepath.Join(dir, "dashboards", "planted.json"), "{\n  \"title\": \"{{ planted }}\"\n}\n")
	values := readValues(t, filepath.Join(chartDir, "ci", "everything-values.yaml"))
	all, err := check(dir, values, stopping(t))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Glob(filepath.Join(dir, "rules", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(all.prometheusRules) != len(rules) {
		t.Errorf("%d PrometheusRules for %d files", len(all.prometheusRules), len(rules))
	}
	found := ""
	for _, r := range all.prometheusRules {
		for _, g := range r.Spec.Groups {
			for _, rule := range g.Rules {
				if rule.Alert != "" && strings.Contains(rule.Annotations["runbook_url"], "RUNBOOKS") {
					t.Errorf("%s leads to %q: the chart did not put in where the runbooks are", rule.Alert, rule.Annotations["runbook_url"])
				}
			}
		}
		if strings.HasSuffix(r.Name, "planted-rules") {
			found = r.Spec.Groups[0].Rules[0].Annotations["summary"]
		}
	}
	if found != "{{ $labels.pod }} is away" {
		t.Errorf("the planted rule says %q", found)
	}
	dashboards := 0
	for _, c := range all.configMaps {
		for file, text := range c.Data {
			if !strings.HasSuffix(file, ".json") {
				continue
			}
			dashboards++
			want, err := os.ReadFile(filepath.Join(dir, "dashboards", file))
			if err != nil {
				t.Error(err)
			} else if strings.TrimSpace(text) != strings.TrimSpace(string(want)) {
				t.Errorf("%s is not what its file holds", file)
			}
		}
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "dashboards", "*.json")); dashboards != len(files) {
		t.Errorf("%d dashboards for %d files", dashboards, len(files))
	}
}

// TestConfigRollsPods: pods are replaced when the configuration changes, and not
// otherwise.
func TestConfigRollsPods(t *testing.T) {
	t.Parallel()
	file := filepath.Join(chartDir, "ci", "minimal-values.yaml")
	sum := func(values chartutil.Values) string {
		return renderObjects(t, chartDir, values).deployments[0].Spec.Template.Annotations["checksum/config"]
	}
	first := sum(readValues(t, file))
	changed := readValues(t, file)
	set(t, changed, "config.log.level", "debug")
	other := readValues(t, file)
	set(t, other, "replicas", 5)
	if first == "" || first != sum(other) || first == sum(changed) {
		t.Errorf("checksums: %q; with more replicas %q; with another configuration %q", first, sum(other), sum(changed))
	}
}

// TestIngressStreams: an Ingress as it comes neither buffers nor cuts an event
// stream, and lets a webhook of 4 MB through.
func TestIngressStreams(t *testing.T) {
	t.Parallel()
	all := renderObjects(t, chartDir, readValues(t, filepath.Join(chartDir, "ci", "minimal-values.yaml")))
	for key, want := range map[string]string{
		"proxy-buffering": "off", "proxy-read-timeout": "3600", "proxy-send-timeout": "3600", "proxy-body-size": "4m",
	} {
		if got := all.ingresses[0].Annotations["nginx.ingress.kubernetes.io/"+key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if host := all.ingresses[0].Spec.Rules[0].Host; host != "pay.acme.example" {
		t.Errorf("the Ingress is for %q, want the merchant's host", host)
	}
}

func readValues(t *testing.T, file string) chartutil.Values {
	t.Helper()
	values, err := chartutil.ReadValuesFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func renderObjects(t *testing.T, dir string, values chartutil.Values) objects {
	t.Helper()
	r, err := render(dir, values)
	if err != nil {
		t.Fatal(err)
	}
	all, err := decode(r.manifests)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// set puts a value at a path such as config.merchants.0.id; nil takes what is
// there away.
func set(t *testing.T, values map[string]any, path string, to any) {
	t.Helper()
	keys := strings.Split(path, ".")
	var at any = map[string]any(values)
	for i, key := range keys {
		last := i == len(keys)-1
		switch in := at.(type) {
		case map[string]any:
			switch {
			case last && to == nil:
				delete(in, key)
			case last:
				in[key] = to
			case in[key] == nil:
				in[key] = map[string]any{}
			}
			at = in[key]
		case []any:
			n := int(key[0] - '0')
			if len(key) != 1 || n < 0 || n >= len(in) {
				t.Fatalf("%s: there is no element %s", path, key)
			}
			if last {
				in[n] = to
			}
			at = in[n]
		default:
			t.Fatalf("%s: nothing is below %s", path, key)
		}
	}
}

// copyChart returns a copy of the chart to plant mistakes in.
func copyChart(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(chartDir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
