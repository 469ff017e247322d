package chartcheck

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func minimalValues(t *testing.T) map[string]any {
	t.Helper()
	return readValues(t, filepath.Join(chartDir, "ci", "minimal-values.yaml"))
}

func everythingValues(t *testing.T) map[string]any {
	t.Helper()
	return readValues(t, filepath.Join(chartDir, "ci", "everything-values.yaml"))
}

// TestRenderingIsSteady: the same values make the same text, so that whoever
// compares what is there with what should be sees changes alone.
func TestRenderingIsSteady(t *testing.T) {
	t.Parallel()
	steady := func(dir string) bool {
		first, err := render(dir, everythingValues(t))
		if err != nil {
			t.Fatal(err)
		}
		second, err := render(dir, everythingValues(t))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(first) == fmt.Sprint(second)
	}
	if !steady(chartDir) {
		t.Error("two renderings differ")
	}
	dir := copyChart(t)
	write(t, filepath.Join(dir, "templates", "planted.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: planted}\ndata: {at: {{ randAlphaNum 12 }}}\n")
	if steady(dir) {
		t.Error("a password that is made anew each time is not seen")
	}
}

// TestNothingIsAskedOfTheCluster: what is rendered depends on the values alone,
// because not everyone who renders has a cluster to ask.
func TestNothingIsAskedOfTheCluster(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(chartDir, "templates", "*"))
	if err != nil {
		t.Fatal(err)
	}
	tests, err := filepath.Glob(filepath.Join(chartDir, "templates", "tests", "*"))
	if err != nil {
		t.Fatal(err)
	}
	asks := regexp.MustCompile(`\{\{[^}]*(\blookup\b|\.Capabilities|\.Release\.(IsInstall|IsUpgrade|Revision)|\bnow\b|\brand[A-Z]|\bgen[A-Z]|\buuidv4\b|\bgetHostByName\b)`)
	seen := 0
	for _, file := range slices.Concat(files, tests) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the folder of the tests
		}
		seen++
		if found := asks.FindString(string(text)); found != "" {
			t.Errorf("%s has %s", file, found)
		}
	}
	if seen < 15 {
		t.Errorf("%d templates: this test does not see them", seen)
	}
}

// TestReleases: two releases in one namespace share nothing that has a name,
// and neither takes the other's pods for its own, however long their names are.
func TestReleases(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long-", 10)
	for _, pair := range [][2]string{{"acme", "umbrella"}, {"paythread", "paythread-2"}, {long + "one", long + "two"}, {"a.b", "a.c"}} {
		values := everythingValues(t)
		set(t, values, "serviceAccount.name", "")
		var seen [2]objects
		for i, name := range pair {
			r, err := renderRelease(name, chartDir, values)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if seen[i], err = decode(r.manifests); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, problem := range examine(seen[i], references(values), stopping(t)) {
				t.Errorf("%s: %s", name, problem)
			}
		}
		first := &examination{objects: seen[0]}
		second := &examination{objects: seen[1]}
		for _, a := range first.everything() {
			for _, b := range second.everything() {
				if a.kind == b.kind && a.meta.Name == b.meta.Name {
					t.Errorf("%q both make the %s %s", pair, a.kind, a.meta.Name)
				}
			}
		}
		var selectors []*meta.LabelSelector
		for _, p := range seen[0].policies {
			selectors = append(selectors, &p.Spec.PodSelector)
		}
		selectors = append(selectors, seen[0].deployments[0].Spec.Selector, seen[0].budgets[0].Spec.Selector)
		for _, s := range seen[0].services {
			selectors = append(selectors, meta.SetAsLabelSelector(labels.Set(s.Spec.Selector)))
		}
		for _, by := range selectors {
			if taken := second.selected(by); len(taken) > 0 {
				t.Errorf("%s selects %s of %s by %s", pair[0], taken[0].owner, pair[1], meta.FormatLabelSelector(by))
			}
		}
	}
}

// TestNewVersionsFit: an upgrade changes nothing that Kubernetes never lets
// change: the Deployment's selector, and what Services select.
func TestNewVersionsFit(t *testing.T) {
	t.Parallel()
	selectors := func(dir string) string {
		all := renderObjects(t, dir, everythingValues(t))
		found := []any{all.deployments[0].Spec.Selector}
		for _, s := range all.services {
			found = append(found, s.Spec.Selector)
		}
		text, err := json.Marshal(found)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	next := func(dir string) string {
		file := filepath.Join(dir, "Chart.yaml")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, strings.ReplaceAll(string(text), "0.1.0", "9.9.9"))
		return selectors(dir)
	}
	now := selectors(chartDir)
	if then := next(copyChart(t)); now != then {
		t.Errorf("now %s, and in the next version %s", now, then)
	}
	planted := copyChart(t)
	file := filepath.Join(planted, "templates", "_helpers.tpl")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, strings.Replace(string(text), "app.kubernetes.io/component: gateway\n", "app.kubernetes.io/component: gateway\nversion: {{ .Chart.AppVersion | quote }}\n", 1))
	if next(planted) == now {
		t.Error("a version in a selector is not seen")
	}
}

// TestKubernetesVersions: the chart is right for every Kubernetes from the
// oldest that it admits on, by the names that clouds give to theirs, and says so
// to an older one.
func TestKubernetesVersions(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1.30.0", "v1.30.5-gke.1443001", "v1.31.4-eks-2d5f260", "v1.33.1+k3s1", "v1.35.0"} {
		r, err := renderFor(version, releaseName, chartDir, everythingValues(t))
		if err != nil {
			t.Errorf("%s: %v", version, err)
		} else if _, err := decode(r.manifests); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
	if _, err := renderFor("v1.29.9", releaseName, chartDir, everythingValues(t)); err == nil || !strings.Contains(err.Error(), "1.30") {
		t.Errorf("Kubernetes 1.29 is told %v", err)
	}
}

// valueUse is a value where a template takes it.
var valueUse = regexp.MustCompile(`\.Values((?:\.[A-Za-z]+)+)`)

// TestEveryValueIsUsed: each value is taken by a template, and each that a
// template takes is one.
func TestEveryValueIsUsed(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(chartDir, "templates"), func(file string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(file)
		for _, m := range valueUse.FindAllStringSubmatch(string(text), -1) {
			used[strings.TrimPrefix(m[1], ".")] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	var walk func(at string, values map[string]any)
	walk = func(at string, values map[string]any) {
		for key, value := range values {
			name := at + key
			known[name] = true
			if in, is := value.(map[string]any); is && !used[name] && len(in) > 0 {
				walk(name+".", in)
			} else if !used[name] {
				t.Errorf("no template takes %s", name)
			}
		}
	}
	walk("", readValues(t, filepath.Join(chartDir, "values.yaml")))
	for name := range used {
		known := known[name]
		for at := name; !known && strings.Contains(at, "."); {
			at = at[:strings.LastIndex(at, ".")]
			known = used[at] || slices.Contains([]string{"config", "affinity"}, at)
		}
		if !known {
			t.Errorf("a template takes %s, which values.yaml does not have", name)
		}
	}
}

// TestOpenShift: where the cluster gives the numbers, none is asked for.
func TestOpenShift(t *testing.T) {
	t.Parallel()
	values := minimalValues(t)
	values["podSecurityContext"] = map[string]any{"runAsUser": nil, "runAsGroup": nil, "fsGroup": nil}
	e := &examination{objects: renderObjects(t, chartDir, values)}
	for _, p := range e.allPods() {
		if s := p.spec.SecurityContext; s.RunAsUser != nil || s.RunAsGroup != nil || s.FSGroup != nil || !*s.RunAsNonRoot || s.SeccompProfile == nil {
			t.Errorf("%s: %+v", p.owner, s)
		}
	}
}

// TestPreflightAsksNobody: unless it is told to, the Job before an upgrade asks
// no messaging company; the smoke test does. An account that is there already is
// the Job's too, because Secrets to pull images with may hang on it.
func TestPreflightAsksNobody(t *testing.T) {
	t.Parallel()
	values := minimalValues(t)
	values["serviceAccount"] = map[string]any{"create": false, "name": "payments"}
	for _, asks := range []bool{false, true} {
		set(t, values, "preflight.askProviders", asks)
		all := renderObjects(t, chartDir, values)
		job := all.jobs[0].Spec.Template.Spec
		if local := slices.Contains(job.Containers[1].Args, "--local"); local == asks {
			t.Errorf("askProviders %v: %q", asks, job.Containers[1].Args)
		}
		if job.ServiceAccountName != "payments" {
			t.Errorf("the Job runs as %s", job.ServiceAccountName)
		}
		if args := all.pods[0].Spec.Containers[0].Args; slices.Contains(args, "--local") {
			t.Errorf("the smoke test runs %q", args)
		}
	}
}

// caller is somebody in the cluster, or outside, who calls or is called.
type caller struct {
	namespace string // empty: the release's own
	labels    map[string]string
	address   string // of who is no pod
}

func (c caller) is(peer networking.NetworkPolicyPeer) bool {
	if peer.IPBlock != nil {
		address, err := netip.ParseAddr(c.address)
		if err != nil || !within(address, peer.IPBlock.CIDR) {
			return false
		}
		return !slices.ContainsFunc(peer.IPBlock.Except, func(cidr string) bool { return within(address, cidr) })
	}
	if c.address != "" {
		return false
	}
	if peer.NamespaceSelector == nil && c.namespace != "" {
		return false
	}
	matches := func(by *meta.LabelSelector, set labels.Set) bool {
		s, err := meta.LabelSelectorAsSelector(by)
		return by == nil || err == nil && s.Matches(set)
	}
	return matches(peer.NamespaceSelector, labels.Set{"kubernetes.io/metadata.name": c.namespace}) && matches(peer.PodSelector, labels.Set(c.labels))
}

func within(address netip.Addr, cidr string) bool {
	prefix, err := netip.ParsePrefix(cidr)
	return err == nil && prefix.Contains(address)
}

// may tells whether a rule with these ports and peers lets a caller through to a
// port such as 53/UDP.
func (c caller) may(port string, ports []networking.NetworkPolicyPort, peers []networking.NetworkPolicyPeer) bool {
	open := len(ports) == 0 || slices.ContainsFunc(ports, func(p networking.NetworkPolicyPort) bool {
		return p.Port == nil || p.Port.String()+"/"+string(*p.Protocol) == port
	})
	return open && (len(peers) == 0 || slices.ContainsFunc(peers, c.is))
}

// TestWhoReachesWhom plays the network plugin: with the values as they come, who
// may call the gateway and whom it may call.
func TestWhoReachesWhom(t *testing.T) {
	t.Parallel()
	all := renderObjects(t, chartDir, minimalValues(t))
	gateway := all.deployments[0].Spec.Template.Labels
	var own *networking.NetworkPolicy
	for _, p := range all.policies {
		if selects(&p.Spec.PodSelector, gateway) {
			own = p
		}
	}
	if own == nil {
		t.Fatal("no policy is about the gateway")
	}
	controller := caller{namespace: "ingress-nginx", labels: map[string]string{"app.kubernetes.io/name": "ingress-nginx"}}
	prometheus := caller{namespace: "monitoring", labels: map[string]string{"app.kubernetes.io/name": "prometheus"}}
	for _, c := range []struct {
		name string
		from caller
		port string
		want bool
	}{
		{"the ingress controller", controller, "http/TCP", true},
		{"the ingress controller", controller, "admin/TCP", false},
		{"Prometheus", prometheus, "admin/TCP", true},
		{"Prometheus", prometheus, "http/TCP", false},
		{"another gateway", caller{labels: gateway}, "http/TCP", false},
		{"another gateway", caller{labels: gateway}, "admin/TCP", false},
		{"a stranger in the namespace", caller{labels: map[string]string{"app": "shop"}}, "http/TCP", false},
		{"a stranger in the namespace", caller{labels: map[string]string{"app": "shop"}}, "admin/TCP", false},
		{"the smoke test", caller{labels: all.pods[0].Labels}, "http/TCP", true},
		{"the smoke test", caller{labels: all.pods[0].Labels}, "admin/TCP", true},
		{"somebody outside", caller{address: "203.0.113.9"}, "http/TCP", false},
	} {
		got := slices.ContainsFunc(own.Spec.Ingress, func(r networking.NetworkPolicyIngressRule) bool { return c.from.may(c.port, r.Ports, r.From) })
		if got != c.want {
			t.Errorf("%s may call %s: %v, want %v", c.name, c.port, got, c.want)
		}
	}
	names := caller{namespace: "kube-system", labels: map[string]string{"k8s-app": "kube-dns"}}
	for _, c := range []struct {
		name string
		to   caller
		port string
		want bool
	}{
		{"names", names, "53/UDP", true},
		{"long names", names, "53/TCP", true},
		{"Redis", caller{namespace: "data"}, "6379/TCP", true},
		{"a Sentinel", caller{namespace: "data"}, "26379/TCP", true},
		{"a messaging company", caller{address: "157.240.1.1"}, "443/TCP", true},
		{"a messaging company by IPv6", caller{address: "2a03:2880::1"}, "443/TCP", true},
		{"a messaging company without TLS", caller{address: "157.240.1.1"}, "80/TCP", false},
		{"the address of a cloud's credentials", caller{address: "169.254.169.254"}, "443/TCP", false},
		{"the address of a cloud's credentials", caller{address: "169.254.169.254"}, "80/TCP", false},
		{"the same by IPv6", caller{address: "fd00:ec2::254"}, "443/TCP", false},
		{"the cluster's API", caller{address: "10.96.0.1"}, "443/TCP", false},
		{"another pod", caller{namespace: "shop"}, "443/TCP", false},
		{"another gateway", caller{labels: gateway}, "http/TCP", false},
	} {
		got := slices.ContainsFunc(own.Spec.Egress, func(r networking.NetworkPolicyEgressRule) bool { return c.to.may(c.port, r.Ports, r.To) })
		if got != c.want {
			t.Errorf("the gateway may call %s at %s: %v, want %v", c.name, c.port, got, c.want)
		}
	}
}
