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
		{"no time to stop", "terminationGracePeriodSeconds", 80, "want more than 80"},
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
		{"less than what stopping takes", "deployment.yaml", "terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}", "terminationGracePeriodSeconds: 79", "want more than 1m20s"},
		{"a gap in a rollout", "deployment.yaml", "maxUnavailable: 0", "maxUnavailable: 1", "maxUnavailable 0"},
		{"liveness that asks Redis", "deployment.yaml", "livenessProbe:\n            httpGet: {path: /livez", "livenessProbe:\n            httpGet: {path: /readyz", "does not ask /livez"},
		{"no checksum", "deployment.yaml", `checksum/config: {{ include "paythread.config" . | sha256sum }}`, "note: none", "no checksum"},
		{"root", "_helpers.tpl", "runAsUser: 65532", "runAsUser: 0", "may run as root"},
		{"a writable root", "_helpers.tpl", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "can be written"},
		{"a capability", "_helpers.tpl", "drop: [ALL]", "drop: [NET_RAW]", "every capability"},
		{"privileges", "_helpers.tpl", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "privileges can grow"},
		{"system calls", "_helpers.tpl", "type: RuntimeDefault", "type: Unconfined", "seccomp"},
		{"a token", "deployment.yaml", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "token of the cluster"},
		{"variables of Services", "deployment.yaml", "enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks"},
		{"an account that nobody makes", "deployment.yaml", `serviceAccountName: {{ include "paythread.serviceAccount" . }}`, "serviceAccountName: other", "which nobody makes"},
		{"no resources", "deployment.yaml", "resources: {{ toYaml .Values.resources | nindent 12 }}", "resources: {}", "want requests"},
		{"a mount that is none", "_helpers.tpl", "- name: keys\n  mountPath", "- name: kyes\n  mountPath", "which is no volume"},
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
			err = Check(dir, filepath.Join(chartDir, "ci", "everything-values.yaml"), stopWithin(t))
			if err == nil {
				t.Fatal("nothing was found")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("found %q, want %q in it", err, c.want)
			}
		})
	}
}

// TestLongerStop: when the gateway is given longer to stop, the chart's grace
// period is found too short, with every file of values.
func TestLongerStop(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "app.go")
	text, err := os.ReadFile(appFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, strings.Replace(string(text), "const stopWithin = 70 * time.Second", "const stopWithin = 85 * time.Second", 1))
	longer, err := StopWithin(file)
	if err != nil || longer != 85*time.Second {
		t.Fatalf("read %v, %v", longer, err)
	}
	for _, values := range valuesFiles(t) {
		if err := Check(chartDir, values, longer); err == nil || !strings.Contains(err.Error(), "terminationGracePeriodSeconds") {
			t.Errorf("%s: found %v", filepath.Base(values), err)
		}
	}
	write(t, file, "package main\n\nconst stopWithin = limit\n")
	if _, err := StopWithin(file); err == nil {
		t.Error("a constant that is no number was read")
	}
}
