package chartcheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMistakesInValues: values that cannot be right fail the rendering with a
// sentence that says what is missing.
func TestMistakesInValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path string
		to         any // nil: taken away
		want       string
	}{
		{"no image", "image", nil, "image.repository is missing"},
		{"a tag in the repository", "image.repository", "registry.example:5000/paythread:1.0.0", "/image/repository"},
		{"a tag that is a number", "image.tag", 1.0, "/image/tag"},
		{"one merchant that is no list", "config.merchants", map[string]any{"id": "acme"}, "/config/merchants"},
		{"a merchant that is a word", "config.merchants.0", "acme", "/config/merchants/0"},
		{"a sender that is no list", "config.merchants.0.senders", map[string]any{"id": "x"}, "/config/merchants/0/senders"},
		{"no link keys", "linkKeys", nil, "linkKeys.existingSecret is missing"},
		{"no name of a Secret of files", "secretFiles.0.existingSecret", nil, "secretFiles: acme names no existingSecret"},
		{"no name of a Secret of a variable", "secretEnv", []any{map[string]any{"name": "PAYTHREAD_LOG_LEVEL"}}, "names no existingSecret"},
		{"no key of a Secret of a variable", "secretEnv", []any{map[string]any{"name": "PAYTHREAD_LOG_LEVEL", "existingSecret": "x"}}, "names no key of x"},
		{"no configuration", "config", nil, "config.merchants is missing"},
		{"no Redis", "config.redis", nil, "config.redis is missing"},
		{"no API key", "config.merchants.0.api_keys.0.secret_file", nil, "config.merchants[0].api_keys[0].secret_file is missing"},
		{"no app secret", "config.merchants.0.senders.0.app_secret_file", nil, "PAYTHREAD_MERCHANTS_ACME_SENDERS_ACME_WHATSAPP_APP_SECRET"},
		{"no shared secret", "config.merchants.0.platform.shared_secret_file", nil, "config.merchants[0].platform.shared_secret_file is missing"},
		{"no callback secret", "config.merchants.0.callbacks", []any{map[string]any{"id": "erp", "url": "https://erp.example"}}, "config.merchants[0].callbacks[0].secret_file is missing"},
		{"an API key in the open", "config.merchants.0.api_keys.0.secret", "0123456789abcdef01234567", "api_keys[0].secret is a secret"},
		{"a token in the open, empty beside a file", "config.merchants.0.senders.0.access_token", 12, "access_token is a secret"},
		{"a password in Redis's URL", "config.redis.url", "redis://:hunter2@redis:6379", "config.redis.url holds a password"},
		{"a file that nothing mounts", "config.merchants.0.api_keys.0.secret_file", "/etc/paythread/secrets/other/key", "secretFiles mounts nothing there"},
		{"a file in a folder of the folder", "config.merchants.0.api_keys.0.secret_file", "/etc/paythread/secrets/acme/a/b", "secretFiles mounts nothing there"},
		{"a file without a folder", "config.merchants.0.api_keys.0.secret_file", "oms.key", "want a path from the root"},
		{"a number that YAML rounds", "config.merchants.0.senders.0.phone_number_id", 106540352242922.0, "put it into quotes"},
		{"Norway without quotes", "config.merchants.0.country", false, "config.merchants[0].country is a word that YAML takes for false"},
		{"a listener", "config.listen", ":80", "config.listen is the chart's to set"},
		{"link keys of another folder", "config.link_keys", map[string]any{"dir": "/keys"}, "config.link_keys is the chart's to set"},
		{"no certificate", "ingress.tlsSecret", nil, "ingress.tlsSecret is missing"},
		{"no host", "config.merchants.0.public_url", nil, "ingress.hosts is empty"},
		{"no time to stop", "terminationGracePeriodSeconds", 85, "want more than 85"},
		{"a drain for which there is no time", "config.drain", "1m30s", "want more than 170"},
		{"a drain that is no duration", "config.drain", "soon", "config.drain is"},
		{"a drain in a variable", "extraEnv", []any{map[string]any{"name": "PAYTHREAD_DRAIN", "value": "1m"}}, "say config.drain"},
		{"a listener in a variable", "extraEnv", []any{map[string]any{"name": "PAYTHREAD_ADMIN_LISTEN", "value": ":80"}}, "PAYTHREAD_ADMIN_LISTEN is the chart's to set"},
		{"a secret in a variable in the open", "extraEnv", []any{map[string]any{"name": "PAYTHREAD_REDIS_PASSWORD", "value": "hunter2"}}, "PAYTHREAD_REDIS_PASSWORD is a secret"},
		{"a password in a variable in the open", "extraEnv", []any{map[string]any{"name": "HTTPS_PROXY", "value": "http://us:hunter2@proxy"}}, "HTTPS_PROXY is a secret"},
		{"a variable that is a number", "extraEnv", []any{map[string]any{"name": "GOMAXPROCS", "value": 2}}, "extraEnv"},
		{"a variable twice", "extraEnv", []any{map[string]any{"name": "A", "value": "1"}, map[string]any{"name": "A", "value": "2"}}, "the variable A is there twice"},
		{"a folder of secrets twice", "secretFiles", []any{map[string]any{"name": "acme", "existingSecret": "a"}, map[string]any{"name": "acme", "existingSecret": "b"}}, "secretFiles: acme is there twice"},
		{"a port of Redis that is closed", "config.redis.addresses", []any{"redis-0:6380"}, "networkPolicy.redisPorts is 6379, 26379"},
		{"a port of Redis's URL that is closed", "config.redis.url", "rediss://redis:6380/0", "networkPolicy.redisPorts is 6379, 26379"},
		{"rules without runbooks", "prometheusRule.enabled", true, "prometheusRule.runbooks is missing"},
		{"runbooks that are a folder", "prometheusRule", map[string]any{"enabled": true, "runbooks": "docs/runbooks"}, "runbooks"},
		{"a budget that holds up every drain", "podDisruptionBudget.maxUnavailable", 0, "maxUnavailable"},
		{"the same in per cent", "podDisruptionBudget.maxUnavailable", "0%", "maxUnavailable"},
		{"a label of the chart's own", "podLabels", map[string]any{"app.kubernetes.io/component": "mine"}, "podLabels: app.kubernetes.io/component is the chart's to set"},
		{"the same for everything", "commonLabels", map[string]any{"app.kubernetes.io/name": "mine"}, "commonLabels: app.kubernetes.io/name is the chart's to set"},
		{"root", "podSecurityContext.runAsUser", 0, "runAsUser"},
		{"perhaps root", "podSecurityContext.runAsNonRoot", false, "runAsNonRoot"},
		{"a name that begins with a number", "fullnameOverride", "9pay", "fullnameOverride"},
		{"fewer than the least", "autoscaling", map[string]any{"enabled": true, "minReplicas": 5, "maxReplicas": 2}, "maxReplicas is less than minReplicas"},
		{"a value that does not exist", "replicaCount", 3, "replicaCount"},
		{"a value of another type", "replicas", "two", "replicas"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			values := readValues(t, filepath.Join(chartDir, "ci", "minimal-values.yaml"))
			set(t, values, c.path, c.to)
			_, err := render(chartDir, values)
			if err == nil {
				t.Fatal("it was rendered")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("it says %q, want %q in it", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("it tells the secret: %v", err)
			}
		})
	}
}

// TestMistakesInTheChart: each mistake in a template is found.
func TestMistakesInTheChart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file, old, new, want string
	}{
		{"a field that does not exist", "deployment.yaml", "maxSurge:", "maxSurges:", `unknown field "spec.strategy.rollingUpdate.maxSurges"`},
		{"a field in other letters", "deployment.yaml", "revisionHistoryLimit", "revisionhistorylimit", `unknown field "spec.revisionhistorylimit"`},
		{"a field of another level", "deployment.yaml", "      terminationGracePeriodSeconds: {{", "      replicas: {{", `unknown field "spec.template.spec.replicas"`},
		{"a field twice", "service.yaml", "  type: ClusterIP", "  type: ClusterIP\n  type: ClusterIP", "already set"},
		{"a value of another type", "service.yaml", "port: 9090", "port: ninety", "json"},
		{"a kind that does not exist", "service.yaml", "kind: Service", "kind: Servise", "Servise"},
		{"a Secret of its own", "serviceaccount.yaml", "automountServiceAccountToken: false", "automountServiceAccountToken: false\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: made}\nstringData: {key: made}", "v1.Secret"},
		{"another Secret", "_helpers.tpl", "secretName: {{ required (printf", "secretName: other-{{ required (printf", `refers to Secret "other-paythread-acme"`},
		{"a Secret that everyone reads", "_helpers.tpl", "defaultMode: 0440", "defaultMode: 0444", "readable to everyone"},
		{"a folder that is empty", "_helpers.tpl", "- name: config\n  configMap:\n    name: {{ $config }}", "- name: config\n  emptyDir: {}", "neither Secret nor ConfigMap"},
		{"a folder that can be written", "_helpers.tpl", "mountPath: /etc/paythread/keys\n  readOnly: true", "mountPath: /etc/paythread/keys", "can write to /etc/paythread/keys"},
		{"another ConfigMap", "deployment.yaml", `(list (include "paythread.name" .) .)`, `(list "other" .)`, `refers to ConfigMap "other"`},
		{"a preflight without its ConfigMap", "preflight.yaml", `(list $name .)`, `(list (include "paythread.name" .) .)`, "runs before ConfigMap"},
		{"a preflight ahead of its ConfigMap", "preflight.yaml", `"0"`, `"-20"`, "runs before ConfigMap"},
		{"a preflight of another configuration", "preflight.yaml", `{{- include "paythread.config" . | nindent 4 }}`, "merchants: []", "different configurations"},
		{"a namespace", "service.yaml", "metadata:\n", "metadata:\n  namespace: default\n", "names a namespace"},
		{"a name for all releases", "poddisruptionbudget.yaml", `name: {{ include "paythread.name" . }}`, "name: Paythread_Budget", "Paythread_Budget"},
		{"twice the same name", "service.yaml", "}}-admin", "}}", "is there twice"},
		{"a Service that leads nowhere", "service.yaml", `selector: {{ include "paythread.selector" . | nindent 4 }}`, "selector: {app: other}", "leads to no pod"},
		{"a port without a name", "service.yaml", "targetPort: http", "targetPort: web", "does not name"},
		{"an admin listener for everyone", "service.yaml", "type: ClusterIP", "type: LoadBalancer", "from outside the cluster"},
		{"an Ingress to the admin listener", "ingress.yaml", "name: {{ include \"paythread.name\" $ }}\n                port:\n                  name: http", "name: {{ include \"paythread.name\" $ }}-admin\n                port:\n                  name: admin", "want the public one"},
		{"an Ingress to nowhere", "ingress.yaml", "name: http", "name: https", "which is not there"},
		{"a budget for nobody", "poddisruptionbudget.yaml", `{{ include "paythread.selector" . | nindent 6 }}`, "{app: other}", "selects 0"},
		{"a Deployment that selects others", "deployment.yaml", `matchLabels: {{ include "paythread.selector" . | nindent 6 }}`, "matchLabels: {app.kubernetes.io/instance: {{ .Release.Name }}}", "for its own"},
		{"a spread that counts others", "deployment.yaml", `matchLabels: {{ include "paythread.selector" $ | nindent 14 }}`, "matchLabels: {app: other}", "does not count its own pods"},
		{"an open admin listener", "networkpolicy.yaml", "  egress:", "    - ports: [{port: admin}]\n  egress:", "to everyone"},
		{"a policy for a port without a name", "networkpolicy.yaml", "port: admin", "port: metrics", "speaks of the port metrics"},
		{"a policy for egress forgotten", "networkpolicy.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]", "both directions"},
		{"a monitor that finds nothing", "servicemonitor.yaml", "app.kubernetes.io/component: admin", "app.kubernetes.io/component: metrics", "finds 0 Services"},
		{"a monitor of another port", "servicemonitor.yaml", "port: admin", "port: http", "scrapes the port http"},
		{"an autoscaler beside replicas", "deployment.yaml", "if not .Values.autoscaling.enabled", "if true", "beside an autoscaler"},
		{"less than what stopping takes", "deployment.yaml", "terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}", "terminationGracePeriodSeconds: 79", "want more than 1m27.5s"},
		{"a gap in a rollout", "deployment.yaml", "maxUnavailable: 0", "maxUnavailable: 1", "maxUnavailable 0"},
		{"liveness that asks Redis", "deployment.yaml", "livenessProbe:\n            httpGet: {path: /livez", "livenessProbe:\n            httpGet: {path: /readyz", "does not ask /livez"},
		{"no checksum", "deployment.yaml", `checksum/config: {{ include "paythread.config" . | sha256sum }}`, "note: none", "no checksum"},
		{"root", "deployment.yaml", "{{ toYaml .Values.podSecurityContext | nindent 8 }}", "{runAsNonRoot: true, runAsUser: 0}", "may run as root"},
		{"a container that is root", "_helpers.tpl", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: false\nrunAsUser: 0", "security of its own"},
		{"a writable root", "_helpers.tpl", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "can be written"},
		{"a capability", "_helpers.tpl", "drop: [ALL]", "drop: [NET_RAW]", "every capability"},
		{"privileges", "_helpers.tpl", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "privileges can grow"},
		{"system calls", "preflight.yaml", "{{ toYaml .Values.podSecurityContext | nindent 8 }}", "{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: Unconfined}}", "seccomp"},
		{"a token", "deployment.yaml", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "token of the cluster"},
		{"variables of Services", "deployment.yaml", "enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks"},
		{"an account that nobody makes", "deployment.yaml", `serviceAccountName: {{ include "paythread.serviceAccount" . }}`, "serviceAccountName: other", "which nobody makes"},
		{"no resources", "deployment.yaml", "resources: {{ toYaml .Values.resources | nindent 12 }}", "resources: {}", "want requests"},
		{"a mount that is none", "_helpers.tpl", "- name: keys\n  mountPath", "- name: kyes\n  mountPath", "which is no volume"},
		{"secrets in another folder", "_helpers.tpl", "mountPath: /etc/paythread/secrets/{{ .name }}", "mountPath: /etc/paythread/secret/{{ .name }}", "nothing is mounted there"},
		{"another file of the configuration", "deployment.yaml", "/etc/paythread/config/paythread.yaml]", "/etc/paythread/paythread.yaml]", "nothing is mounted there"},
		{"a mount that never changes", "_helpers.tpl", "mountPath: /etc/paythread/config\n", "mountPath: /etc/paythread/config/paythread.yaml\n  subPath: paythread.yaml\n", "a change never comes"},
		{"a Secret that need not be there", "_helpers.tpl", "secretName: {{ required (printf", "optional: true\n    secretName: {{ required (printf", "need not be there"},
		{"a ConfigMap that never changes", "configmap.yaml", "\ndata:", "\nimmutable: true\ndata:", "can never be changed"},
		{"a way from the ingress controller to the admin listener", "networkpolicy.yaml", "- {port: http, protocol: TCP}", "- {port: http, protocol: TCP}\n        - {port: admin, protocol: TCP}", "one port in each rule"},
		{"the same callers at both listeners", "networkpolicy.yaml", ".Values.networkPolicy.metricsFrom", ".Values.networkPolicy.ingressFrom", "lets the same callers to http and admin"},
		{"nobody at the admin listener", "networkpolicy.yaml", "port: admin", "port: http", "lets nobody to the port admin"},
		{"the node's network", "deployment.yaml", "enableServiceLinks: false", "enableServiceLinks: false\n      hostNetwork: true", "shares something with its node"},
		{"readiness that does not wait for Redis", "deployment.yaml", "            timeoutSeconds: 4\n", "", "waits 0 s"},
		{"liveness without patience", "deployment.yaml", "failureThreshold: 6\n", "failureThreshold: 1\n", "livenessProbe kills after 10 s"},
		{"a start without patience", "deployment.yaml", "failureThreshold: 60", "failureThreshold: 3", "startupProbe kills after 6 s"},
		{"a preflight of installs alone", "preflight.yaml", "helm.sh/hook: pre-install,pre-upgrade\n    helm.sh/hook-weight: \"0\"", "helm.sh/hook: pre-install\n    helm.sh/hook-weight: \"0\"", "runs at pre-install,"},
		{"a preflight that is in the way of the next", "preflight.yaml", "before-hook-creation,hook-succeeded\n    helm.sh/hook-output", "hook-succeeded\n    helm.sh/hook-output", "stands in the way"},
		{"a preflight that hides its failure", "preflight.yaml", "before-hook-creation,hook-succeeded\n    helm.sh/hook-output", "before-hook-creation,hook-failed\n    helm.sh/hook-output", "wants to know why"},
		{"a smoke test that is gone before its log is read", "tests/smoke.yaml", "before-hook-creation", "before-hook-creation,hook-succeeded", "is gone before"},
		{"a smoke test of several containers", "tests/smoke.yaml", "  containers:\n", "  containers:\n    - {name: more, image: busybox:1.37}\n", "has 2 containers"},
		{"a hook of the test without a log", "tests/smoke.yaml", "-smoke-test\n  labels: {{ include \"paythread.labels\" . | nindent 4 }}\n", "-smoke-test\n  labels: {{ include \"paythread.labels\" . | nindent 4 }}\n  annotations: {helm.sh/hook: test}\n", "has no log"},
		{"a spread over all revisions", "deployment.yaml", "          matchLabelKeys: [pod-template-hash]\n", "", "of other revisions"},
		{"a budget of none", "poddisruptionbudget.yaml", "{{ .Values.podDisruptionBudget.maxUnavailable }}", "0", "holds up every drain"},
		{"another path of the metrics", "servicemonitor.yaml", "path: /metrics", "path: /metric", "want /metrics"},
		{"a host without a certificate", "ingress.yaml", "hosts: {{ toYaml $hosts | nindent 8 }}", "hosts: {{ list (first $hosts) | toYaml | nindent 8 }}", "no certificate for pay.umbrella.example"},
		{"runbooks that nobody can open", "prometheusrule.yaml", `(printf "runbook_url: %s/"`, `(printf "runbook_url: docs/%s/"`, "which nobody can open"},
		{"a drain that is forgotten", "deployment.yaml", "terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}", "terminationGracePeriodSeconds: 81", "want more than 1m27.5s"},
		{"secrets that only root can read", "deployment.yaml", "{{ toYaml .Values.podSecurityContext | nindent 8 }}", "{{ omit .Values.podSecurityContext \"fsGroup\" | toYaml | nindent 8 }}", "no group of the pod's can read them"},
		{"an account with a token", "serviceaccount.yaml", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "gives its pods a token"},
		{"a preflight that starts again", "preflight.yaml", "restartPolicy: Never", "restartPolicy: OnFailure", "go their logs"},
		{"an Ingress to one page", "ingress.yaml", "pathType: Prefix", "pathType: Exact", "not all of"},
		{"a preflight with other variables", "preflight.yaml", `{{- with include "paythread.env" . | trim }}`, "{{- with list }}", "other variables"},
		{"a preflight without its check", "preflight.yaml", "args: [config, check, --config, /etc/paythread/config/paythread.yaml]", "args: [version]", "containers read a configuration"},
		{"a listener on another port", "_config.tpl", `":9090"`, `":9091"`, `listens on ":9091"`},
		{"a container's port that is another", "deployment.yaml", "containerPort: 8080", "containerPort: 8081", `listens on ":8080"`},
		{"a template that does not parse", "service.yaml", "{{ .Values.service.port }}", "{{ .Values.service.port", "service.yaml"},
		{"a deprecated version", "poddisruptionbudget.yaml", "policy/v1", "policy/v1beta1", "policy/v1beta1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := copyChart(t)
			file := filepath.Join(dir, "templates", c.file)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			planted := strings.Replace(string(text), c.old, c.new, 1)
			if planted == string(text) {
				t.Fatalf("%s has no %q to plant the mistake in", c.file, c.old)
			}
			write(t, file, planted)
			err = Check(dir, filepath.Join(chartDir, "ci", "everything-values.yaml"), stopping(t))
			if err == nil {
				t.Fatal("nothing was found")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("found %q, want %q in it", err, c.want)
			}
		})
	}
}

// TestLongerStop: when the gateway is given longer to stop, or drains for longer
// by itself, the chart's grace period is found too short, with every file of
// values that leaves it to the gateway.
func TestLongerStop(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "app.go")
	text, err := os.ReadFile(appFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, strings.Replace(string(text), "const stopWithin = 70 * time.Second", "const stopWithin = 85 * time.Second", 1))
	longer := stopping(t)
	longer.Within, err = StopWithin(file)
	if err != nil || longer.Within != 85*time.Second {
		t.Fatalf("read %v, %v", longer, err)
	}
	page := filepath.Join(t.TempDir(), "configuration.md")
	if text, err = os.ReadFile(configurationPage); err != nil {
		t.Fatal(err)
	}
	write(t, page, strings.Replace(string(text), "| `drain` | duration from 0s to 5m | `5s` |", "| `drain` | duration from 0s to 5m | `25s` |", 1))
	slower := stopping(t)
	slower.Drain, err = DefaultDrain(page)
	if err != nil || slower.Drain != 25*time.Second {
		t.Fatalf("read %v, %v", slower, err)
	}
	for _, values := range valuesFiles(t) {
		if err := Check(chartDir, values, longer); err == nil || !strings.Contains(err.Error(), "terminationGracePeriodSeconds") {
			t.Errorf("%s: found %v", filepath.Base(values), err)
		}
		config, _ := readValues(t, values)["config"].(map[string]any)
		err := Check(chartDir, values, slower)
		if found := err != nil && strings.Contains(err.Error(), "a drain of 25s"); found == (config["drain"] != nil) {
			t.Errorf("%s, with another drain: found %v", filepath.Base(values), err)
		}
	}
	write(t, file, "package main\n\nconst stopWithin = limit\n")
	if _, err := StopWithin(file); err == nil {
		t.Error("a constant that is no number was read")
	}
	if _, err := DefaultDrain(appFile); err == nil {
		t.Error("a page without the setting was read")
	}
}

// TestDrainOfTheChart: what the templates take for the gateway's own drain is
// what it is.
func TestDrainOfTheChart(t *testing.T) {
	t.Parallel()
	values := readValues(t, filepath.Join(chartDir, "ci", "minimal-values.yaml"))
	enough := int((10*time.Second + stopping(t).Within + stopping(t).Drain) / time.Second)
	set(t, values, "terminationGracePeriodSeconds", enough)
	if _, err := render(chartDir, values); err == nil {
		t.Errorf("%d seconds are taken, and are used up when the process may still be at work", enough)
	}
	set(t, values, "terminationGracePeriodSeconds", enough+1)
	if _, err := check(chartDir, values, stopping(t)); err != nil {
		t.Error(err)
	}
}
