package chartcheck

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
)

// texts returns the objects of each kind as JSON.
func (all objects) texts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for kind, list := range map[string]any{
		"Deployment": all.deployments, "Job": all.jobs, "Pod": all.pods, "Service": all.services, "ConfigMap": all.configMaps,
		"ServiceAccount": all.accounts, "Ingress": all.ingresses, "NetworkPolicy": all.policies, "PodDisruptionBudget": all.budgets,
		"HorizontalPodAutoscaler": all.autoscalers, "ServiceMonitor": all.serviceMonitors, "PrometheusRule": all.prometheusRules,
	} {
		text, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		found[kind] = string(text)
	}
	return found
}

// everyPod are the kinds that make pods, everyKind all that the chart makes.
const (
	everyPod  = "Deployment Job Pod"
	everyKind = everyPod + " Service ConfigMap ServiceAccount Ingress NetworkPolicy PodDisruptionBudget HorizontalPodAutoscaler ServiceMonitor PrometheusRule"
)

// list and object are values as a file of values gives them.
type (
	list   = []any
	object = map[string]any
)

// arrivals are values, each with where its text has to arrive. Beside the files
// in helm/ci, which switch things on and off, they are every value that there is.
var arrivals = []struct {
	path string
	to   any
	text string // in JSON
	in   string // kinds
}{
	{"image.repository", "planted.example/it", `"planted.example/it@sha256`, everyPod},
	{"image.digest", "sha256:" + strings.Repeat("7", 64), "@sha256:7777", everyPod},
	{"image.pullPolicy", "Always", `"imagePullPolicy":"Always"`, everyPod},
	{"image.pullSecrets", list{"planted"}, `"imagePullSecrets":[{"name":"planted"}]`, everyPod},
	{"linkKeys.existingSecret", "planted", `"secretName":"planted"`, everyPod},
	{"secretEnv", list{object{"name": "PAYTHREAD_MERCHANTS_UMBRELLA_API_KEYS_ERP_EU_SECRET", "existingSecret": "planted", "key": "k"}}, `"secretKeyRef":{"name":"planted","key":"k"}`, everyPod},
	{"extraEnv", list{object{"name": "PLANTED", "value": "x"}}, `{"name":"PLANTED","value":"x"}`, everyPod},
	{"extraVolumeMounts", list{object{"name": "authorities", "mountPath": "/planted", "readOnly": true}}, `"mountPath":"/planted"`, everyPod},
	{"extraVolumes", list{object{"name": "authorities", "configMap": object{"name": "planted"}}}, `"configMap":{"name":"planted"}`, everyPod},
	{"nodeSelector", object{"planted": "x"}, `"nodeSelector":{"planted":"x"}`, everyPod},
	{"tolerations", list{object{"key": "planted"}}, `"tolerations":[{"key":"planted"}]`, everyPod},
	{"affinity", object{"nodeAffinity": object{"preferredDuringSchedulingIgnoredDuringExecution": list{object{"weight": 7, "preference": object{}}}}}, `"weight":7`, everyPod},
	{"podSecurityContext.fsGroup", 4242, `"fsGroup":4242`, everyPod},
	{"commonLabels", object{"planted": "x"}, `"planted":"x"`, everyKind},
	{"podLabels", object{"planted": "x"}, `"planted":"x"`, "Deployment"},
	{"podAnnotations", object{"planted": "x"}, `"planted":"x"`, "Deployment"},
	{"deploymentAnnotations", object{"planted": "x"}, `"planted":"x"`, "Deployment"},
	{"priorityClassName", "planted", `"priorityClassName":"planted"`, "Deployment"},
	{"resources", object{"requests": object{"cpu": "77m"}}, `"cpu":"77m"`, "Deployment"},
	{"spread", list{object{"topologyKey": "planted", "maxSkew": 7, "whenUnsatisfiable": "DoNotSchedule"}}, `{"maxSkew":7,"topologyKey":"planted","whenUnsatisfiable":"DoNotSchedule"`, "Deployment"},
	{"preStopSleepSeconds", 7, `"preStop":{"sleep":{"seconds":7}}`, "Deployment"},
	{"terminationGracePeriodSeconds", 777, `"terminationGracePeriodSeconds":777`, "Deployment"},
	{"extraContainers", list{object{"name": "planted"}}, `"name":"planted"`, "Deployment"},
	{"extraInitContainers", list{object{"name": "planted"}}, `"initContainers":[{"name":"planted"`, "Deployment"},
	{"preflight.podLabels", object{"planted": "x"}, `"planted":"x"`, "Job Pod"},
	{"preflight.podAnnotations", object{"planted": "x"}, `"planted":"x"`, "Job Pod"},
	{"preflight.resources", object{"requests": object{"cpu": "77m"}}, `"cpu":"77m"`, "Job Pod"},
	{"preflight.activeDeadlineSeconds", 77, `"activeDeadlineSeconds":77`, "Job"},
	{"preflight.askProviders", false, `"--local"`, "Job"},
	{"smokeTest.image", "planted.example/box:1", `"image":"planted.example/box:1"`, "Pod"},
	{"smokeTest.resources", object{"requests": object{"cpu": "77m"}}, `"cpu":"77m"`, "Pod"},
	{"service.type", "NodePort", `"type":"NodePort"`, "Service"},
	{"service.port", 7777, `7777`, "Service Pod"},
	{"service.annotations", object{"planted": "x"}, `"planted":"x"`, "Service"},
	{"ingress.className", "planted", `"ingressClassName":"planted"`, "Ingress"},
	{"ingress.hosts", list{"planted.example"}, `"host":"planted.example"`, "Ingress"},
	{"ingress.tlsSecret", "planted", `"secretName":"planted"`, "Ingress"},
	{"ingress.annotations", object{"planted": "x"}, `"planted":"x"`, "Ingress"},
	{"podDisruptionBudget.maxUnavailable", "77%", `"maxUnavailable":"77%"`, "PodDisruptionBudget"},
	{"autoscaling.minReplicas", 5, `"minReplicas":5`, "HorizontalPodAutoscaler"},
	{"autoscaling.maxReplicas", 77, `"maxReplicas":77`, "HorizontalPodAutoscaler"},
	{"autoscaling.cpuPercent", 77, `"averageUtilization":77`, "HorizontalPodAutoscaler"},
	{"networkPolicy.ingressFrom", list{object{"ipBlock": object{"cidr": "192.0.2.0/24"}}}, "192.0.2.0/24", "NetworkPolicy"},
	{"networkPolicy.metricsFrom", list{object{"ipBlock": object{"cidr": "192.0.2.0/24"}}}, "192.0.2.0/24", "NetworkPolicy"},
	{"networkPolicy.dnsPeers", list{object{"ipBlock": object{"cidr": "192.0.2.0/24"}}}, "192.0.2.0/24", "NetworkPolicy"},
	{"networkPolicy.redisPeers", list{object{"ipBlock": object{"cidr": "192.0.2.0/24"}}}, "192.0.2.0/24", "NetworkPolicy"},
	{"networkPolicy.redisPorts", list{7777}, `"port":7777`, "NetworkPolicy"},
	{"networkPolicy.internet", list{object{"cidr": "192.0.2.0/24"}}, "192.0.2.0/24", "NetworkPolicy"},
	{"networkPolicy.extraEgress", list{object{"to": list{object{"ipBlock": object{"cidr": "192.0.2.0/24"}}}}}, "192.0.2.0/24", "NetworkPolicy"},
	{"serviceMonitor.interval", "77s", `"interval":"77s"`, "ServiceMonitor"},
	{"serviceMonitor.labels", object{"planted": "x"}, `"planted":"x"`, "ServiceMonitor"},
	{"prometheusRule.labels", object{"planted": "x"}, `"planted":"x"`, "PrometheusRule"},
	{"prometheusRule.runbooks", "https://planted.example", "https://planted.example/Paythread", "PrometheusRule"},
	{"dashboard.labels", object{"planted": "x"}, `"planted":"x"`, "ConfigMap"},
	{"serviceAccount.name", "planted", `"planted"`, "Deployment Pod ServiceAccount"},
	{"serviceAccount.annotations", object{"planted": "x"}, `"planted":"x"`, "ServiceAccount"},
	{"nameOverride", "planted", "acceptance-planted", everyKind},
	{"fullnameOverride", "planted", `"name":"planted`, everyKind},
	{"config.log.level", "debug", "level: debug", "ConfigMap"},
}

// TestValuesArrive: each value comes to where it is for, and none stays where it
// was.
func TestValuesArrive(t *testing.T) {
	t.Parallel()
	for _, c := range arrivals {
		values := everythingValues(t)
		before := renderObjects(t, chartDir, values).texts(t)
		if c.path == "fullnameOverride" || c.path == "nameOverride" {
			set(t, values, "serviceAccount.name", "") // which goes before
		}
		set(t, values, c.path, c.to)
		after := renderObjects(t, chartDir, values).texts(t)
		for kind := range strings.FieldsSeq(c.in) {
			if strings.Contains(before[kind], c.text) || !strings.Contains(after[kind], c.text) {
				t.Errorf("%s: no %s has %s that had it not before", c.path, kind, c.text)
			}
		}
	}
	values := minimalValues(t)
	set(t, values, "replicas", 7)
	set(t, values, "image.tag", "planted")
	for _, text := range []string{`"replicas":7`, `:planted"`} {
		if found := renderObjects(t, chartDir, values).texts(t)["Deployment"]; !strings.Contains(found, text) {
			t.Errorf("the Deployment has no %s", text)
		}
	}
}

// triedElsewhere are values that a file in helm/ci, or another test, tries.
var triedElsewhere = []string{"config", "secretFiles", "replicas", "image.tag", "ingress.tlsElsewhere", "serviceAccount.create", "podSecurityContext"}

// TestValuesHaveTypes: each value is in the table above, and refuses what is of
// another type.
func TestValuesHaveTypes(t *testing.T) {
	t.Parallel()
	tried := func(path string) bool {
		if strings.HasSuffix(path, ".enabled") {
			return true
		}
		for _, c := range arrivals {
			if c.path == path {
				return true
			}
		}
		return slices.ContainsFunc(triedElsewhere, func(p string) bool { return p == path || strings.HasPrefix(path, p+".") })
	}
	var walk func(at string, values map[string]any)
	walk = func(at string, values map[string]any) {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			path, value := at+key, values[key]
			if in, is := value.(map[string]any); is && len(in) > 0 && !tried(path) {
				walk(path+".", in)
				continue
			}
			if !tried(path) {
				t.Errorf("no test tries %s", path)
			}
			var wrong any = map[string]any{"x": "y"}
			switch value.(type) {
			case map[string]any, []any:
				wrong = "x"
			}
			changed := minimalValues(t)
			set(t, changed, path, wrong)
			if _, err := render(chartDir, changed); err == nil || !strings.Contains(err.Error(), "schema") {
				t.Errorf("%s may be %v: %v", path, wrong, err)
			}
		}
	}
	walk("", readValues(t, filepath.Join(chartDir, "values.yaml")))
}

// TestEmptyValues: who writes a value's name and nothing after it gets a chart
// without it, or is told in words what is missing.
func TestEmptyValues(t *testing.T) {
	t.Parallel()
	var walk func(at string, values map[string]any)
	walk = func(at string, values map[string]any) {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			path := at + key
			if in, is := values[key].(map[string]any); is && len(in) > 0 && path != "ingress.annotations" {
				walk(path+".", in)
				continue // an empty group takes its switch away
			}
			changed := everythingValues(t)
			set(t, changed, path, "")
			parent, last := any(changed), path
			for {
				first, rest, more := strings.Cut(last, ".")
				if !more {
					break
				}
				m, _ := parent.(map[string]any) // set has made it
				parent, last = m[first], rest
			}
			parent.(map[string]any)[last] = nil
			r, err := render(chartDir, changed)
			if err == nil {
				_, err = decode(r.manifests)
			} else if strings.Contains(err.Error(), "execution error at") {
				err = nil // in our words
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	walk("", readValues(t, filepath.Join(chartDir, "values.yaml")))
}

// TestSmokeTestCalls: what the smoke test calls are ports of the chart's Services
// and paths of the gateway's listeners.
func TestSmokeTestCalls(t *testing.T) {
	t.Parallel()
	routes, err := os.ReadFile("../../gateway/routes.go")
	if err != nil {
		t.Fatal(err)
	}
	values := minimalValues(t)
	set(t, values, "service.port", 8443)
	all := renderObjects(t, chartDir, values)
	called := map[string]bool{}
	for _, c := range all.pods[0].Spec.InitContainers {
		u, err := url.Parse(c.Command[len(c.Command)-1])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(routes), fmt.Sprintf("%q", u.Path)) {
			t.Errorf("%s: gateway/routes.go has no %s", c.Name, u.Path)
		}
		there := slices.ContainsFunc(all.services, func(s *core.Service) bool {
			return s.Name == u.Hostname() && slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool {
				called[p.TargetPort.StrVal] = true
				return fmt.Sprint(p.Port) == u.Port()
			})
		})
		if !there {
			t.Errorf("%s: no Service has %s", c.Name, u.Host)
		}
	}
	if !called["http"] || !called["admin"] {
		t.Errorf("the smoke test calls %v, want both listeners", called)
	}
}

// TestNotes: whoever installs is told the address of each webhook, and is warned
// of what will not do.
func TestNotes(t *testing.T) {
	t.Parallel()
	notes := func(values map[string]any) string {
		r, err := render(chartDir, values)
		if err != nil {
			t.Fatal(err)
		}
		return r.notes
	}
	said := notes(everythingValues(t))
	for _, want := range []string{
		"https://pay.acme.example/webhooks/acme-whatsapp\n", "https://pay.umbrella.example/webhooks/umbrella-sms\n",
		"https://pay.umbrella.example/webhooks/umbrella-whatsapp\n", "@sha256:4a1c", "helm --namespace somewhere test acceptance",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the notes do not say %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "WARNING") {
		t.Errorf("the notes warn of nothing:\n%s", said)
	}
	values := minimalValues(t)
	set(t, values, "replicas", 1)
	set(t, values, "networkPolicy.enabled", false)
	if said := notes(values); strings.Count(said, "WARNING") != 3 {
		t.Errorf("the notes do not warn of no proxies, one replica and no policy:\n%s", said)
	}
}
