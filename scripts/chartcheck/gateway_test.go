package chartcheck

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// builtDir is where gateway has built the program, empty before.
var builtDir string

// gateway builds the program once and returns where it lies.
var gateway = sync.OnceValues(func() (string, error) {
	if file := os.Getenv("CHARTCHECK_GATEWAY"); file != "" {
		return file, nil // a test that runs itself has built it
	}
	dir, err := os.MkdirTemp("", "chartcheck")
	if err != nil {
		return "", err
	}
	builtDir = dir
	file := filepath.Join(dir, "paythread")
	if out, err := exec.Command("../build", "chartcheck", file).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	return file, nil
})

// TestMain takes the program away again.
func TestMain(m *testing.M) {
	code := m.Run()
	if builtDir != "" {
		if err := os.RemoveAll(builtDir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// run runs the gateway's program and returns what it prints.
func run(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	program, err := gateway()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Env = env
	out, err := c.CombinedOutput()
	return string(out), err
}

// mounted lays out what the gateway's container has mounted, with made-up
// secrets, in a folder that stands for /etc/paythread; it returns the folder and
// the container's variables.
func mounted(t *testing.T, all objects) (string, []string) {
	t.Helper()
	root := t.TempDir()
	container := all.deployments[0].Spec.Template.Spec.Containers[0]
	var config string
	for _, c := range all.configMaps {
		if c.Name == all.deployments[0].Name {
			config = c.Data["paythread.yaml"]
		}
	}
	for i, file := range secretFile.FindAllString(config, -1) {
		write(t, strings.Replace(file, "/etc/paythread", root, 1), secretFor(t, path.Base(file), i))
	}
	write(t, filepath.Join(root, "config", "paythread.yaml"), strings.ReplaceAll(config, "/etc/paythread", root))
	return root, variables(t, container)
}

var secretFile = regexp.MustCompile(`/etc/paythread/secrets/[^\s"]+`)

func variables(t *testing.T, c core.Container) []string {
	t.Helper()
	var env []string
	for i, v := range c.Env {
		value := v.Value
		if v.ValueFrom != nil {
			value = secretFor(t, v.ValueFrom.SecretKeyRef.Key, 100+i)
		}
		env = append(env, v.Name+"="+value)
	}
	return env
}

// secretFor makes up a secret of the form that a key's name asks for.
func secretFor(t *testing.T, key string, n int) string {
	t.Helper()
	switch key {
	case "url":
		return "rediss://gateway:hunter2@127.0.0.1:1"
	case "ca.crt":
		server := httptest.NewTLSServer(nil)
		defer server.Close()
		return "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(server.Certificate().Raw) + "\n-----END CERTIFICATE-----\n"
	case "callback-secret":
		return "whsec_" + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%032d", n))
	case "cybersource-shared-secret":
		return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%032d", n))
	}
	return fmt.Sprintf("made-up-%032d", n)
}

// TestConfigIsRight: the gateway takes the configuration that the chart mounts,
// as the preflight Job gives it.
func TestConfigIsRight(t *testing.T) {
	t.Parallel()
	for _, file := range valuesFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			all := renderObjects(t, chartDir, readValues(t, file))
			root, env := mounted(t, all)
			config := filepath.Join(root, "config", "paythread.yaml")
			if out, err := run(t, env, "config", "check", "--config", config); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			text, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			write(t, config, strings.Replace(string(text), "link_keys:", "link_kyes:", 1))
			if out, err := run(t, env, "config", "check", "--config", config); err == nil {
				t.Errorf("a key that does not exist was taken: %s", out)
			}
		})
	}
}

// TestArguments: the commands that the chart's pods run are the program's, with
// flags that it has.
func TestArguments(t *testing.T) {
	t.Parallel()
	all := renderObjects(t, chartDir, readValues(t, filepath.Join(chartDir, "ci", "minimal-values.yaml")))
	var containers []core.Container
	containers = append(containers, all.deployments[0].Spec.Template.Spec.Containers...)
	containers = append(containers, all.jobs[0].Spec.Template.Spec.InitContainers...)
	containers = append(containers, all.jobs[0].Spec.Template.Spec.Containers...)
	containers = append(containers, all.pods[0].Spec.Containers...)
	seen := 0
	for _, c := range containers {
		if len(c.Command) > 0 {
			continue // another program's image
		}
		seen++
		var args []string
		for _, a := range c.Args {
			args = append(args, strings.Replace(a, "/etc/paythread", t.TempDir(), 1))
		}
		// A command that does not exist, or a flag, is another exit code than a
		// file that does not.
		out, err := run(t, nil, args...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "paythread.yaml") {
			t.Errorf("%s: paythread %s: %v\n%s", c.Name, strings.Join(c.Args, " "), err, out)
		}
	}
	if seen != 4 {
		t.Errorf("%d containers run our program, want four", seen)
	}
}

// schemaNode is as much of a JSON Schema as these tests read.
type schemaNode struct {
	Description          string                `json:"description"`
	Properties           map[string]schemaNode `json:"properties"`
	Items                *schemaNode           `json:"items"`
	Ref                  string                `json:"$ref"`
	AllOf                []schemaNode          `json:"allOf"`
	AnyOf                []schemaNode          `json:"anyOf"`
	OneOf                []schemaNode          `json:"oneOf"`
	Then                 *schemaNode           `json:"then"`
	AdditionalProperties json.RawMessage       `json:"additionalProperties"`
}

// walk visits every property, however deep.
func (n schemaNode) walk(visit func(properties map[string]schemaNode)) {
	if len(n.Properties) > 0 {
		visit(n.Properties)
	}
	for _, p := range n.Properties {
		p.walk(visit)
	}
	if n.Items != nil {
		n.Items.walk(visit)
	}
	if n.Then != nil {
		n.Then.walk(visit)
	}
	for _, more := range slices.Concat(n.AllOf, n.AnyOf, n.OneOf) {
		more.walk(visit)
	}
}

// TestSecretsAreKnown: the keys that the chart takes for secrets are those that
// the gateway does.
func TestSecretsAreKnown(t *testing.T) {
	t.Parallel()
	out, err := run(t, nil, "config", "schema")
	if err != nil {
		t.Fatal(err)
	}
	var schema schemaNode
	if err := json.Unmarshal([]byte(out), &schema); err != nil {
		t.Fatal(err)
	}
	secret := map[string]bool{} // to the gateway, each key that has one value
	schema.walk(func(properties map[string]schemaNode) {
		for key, p := range properties {
			// A URL is one only by what stands in it, which another rule looks at. What
			// is not described is a condition on a key that is.
			if p.Items == nil && len(p.Properties) == 0 && key != "url" && p.Description != "" {
				secret[key] = strings.HasSuffix(properties[key+"_file"].Description, ", in its place.")
			}
		}
	})
	dir := copyChart(t)
	var all strings.Builder
	for key := range secret {
		fmt.Fprintf(&all, "  %s: {{ include \"paythread.isSecret\" %q | quote }}\n", key, key)
	}
	write(t, filepath.Join(dir, "templates", "planted.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: planted}\ndata:\n"+all.String())
	seen := 0
	for _, c := range renderObjects(t, dir, minimalValues(t)).configMaps {
		if c.Name != "planted" {
			continue
		}
		for key, is := range secret {
			if is {
				seen++
			}
			if taken := c.Data[key] == "true"; taken != is {
				t.Errorf("the gateway takes %s for a secret: %v; the chart: %v", key, is, taken)
			}
		}
	}
	if seen < 12 {
		t.Errorf("%d secrets in the schema: this test does not see them", seen)
	}
}

// TestNeededSecrets: the secrets that the chart insists on are those without
// which the gateway does not start.
func TestNeededSecrets(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(chartDir, "templates", "_config.tpl"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), `{{- define "paythread.needed" -}}`)
	table, _, _ := strings.Cut(rest, "{{- end }}")
	var needed map[string][]string
	if err := yaml.Unmarshal([]byte(table), &needed); err != nil {
		t.Fatal(err)
	}
	reference, err := os.ReadFile(configurationPage)
	if err != nil {
		t.Fatal(err)
	}
	required := map[string][]string{}
	adapter := ""
	for line := range strings.Lines(string(reference)) {
		if m := adapterHeading.FindStringSubmatch(line); m != nil {
			adapter = m[1]
		} else if strings.HasPrefix(line, "#") {
			adapter = ""
		}
		if m := requiredSecret.FindStringSubmatch(line); m != nil && adapter != "" {
			required[adapter] = append(required[adapter], m[1])
		}
	}
	if fmt.Sprint(required) != fmt.Sprint(needed) {
		t.Errorf("the gateway needs %v, the chart insists on %v", required, needed)
	}
}

var (
	adapterHeading = regexp.MustCompile("^#### With `(?:provider|name): ([a-z_]+)`")
	requiredSecret = regexp.MustCompile("^\\| `([a-z_]+)` \\| secret \\| required \\|")
)

// TestSchemaKnowsEveryValue: values.yaml and its schema name the same keys.
func TestSchemaKnowsEveryValue(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema schemaNode
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	compareKeys(t, "", schema, readValues(t, filepath.Join(chartDir, "values.yaml")))
}

func compareKeys(t *testing.T, at string, schema schemaNode, values map[string]any) {
	t.Helper()
	for key, value := range values {
		p, is := schema.Properties[key]
		if !is {
			t.Errorf("values.schema.json does not know %s%s", at, key)
		}
		if in, isMap := value.(map[string]any); isMap && len(p.Properties) > 0 {
			compareKeys(t, at+key+".", p, in)
		}
	}
	for key := range schema.Properties {
		if _, is := values[key]; !is && at+key != "global" { // Helm's own
			t.Errorf("values.yaml does not have %s%s", at, key)
		}
	}
	if string(schema.AdditionalProperties) != "false" {
		t.Errorf("values.schema.json takes any key in %q", at)
	}
}

// TestEveryValueIsExplained: each key of values.yaml has a comment before it, or
// stands in a group that has one.
func TestEveryValueIsExplained(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	explained := false // a comment since the last empty line
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.TrimSpace(line) == "":
			explained = false
		case strings.Contains(line, "#"):
			explained = true
		case strings.HasPrefix(line, " "):
		case !explained && !slices.Contains(groups, strings.TrimSpace(line)):
			t.Errorf("values.yaml does not explain %s", strings.TrimSpace(line))
		}
	}
}

// groups are keys whose parts are explained each by itself.
var groups = []string{"linkKeys:", "image:", "service:", "ingress:", "serviceAccount:"}
