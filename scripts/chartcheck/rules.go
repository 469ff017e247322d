package chartcheck

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// examination collects what is wrong with the objects of one rendering.
type examination struct {
	objects
	// references are the Secrets and ConfigMaps that the values name: they
	// exist in the cluster before the chart does.
	references []string
	stopping   Stopping
	problems   []string
}

// pod is a pod that the chart makes, directly or by way of something else.
type pod struct {
	owner       string // for messages
	annotations map[string]string
	labels      map[string]string
	spec        core.PodSpec
}

const hookAnnotation = "helm.sh/hook"

func (e *examination) problem(format string, args ...any) {
	e.problems = append(e.problems, fmt.Sprintf(format, args...))
}

// examine returns what is wrong with the objects.
func examine(all objects, references []string, stopping Stopping) []string {
	e := &examination{objects: all, references: references, stopping: stopping}
	e.names()
	e.rollout()
	e.podRules()
	e.servicesLead()
	e.ingressesLead()
	e.selectorsSelect()
	e.monitorsFind()
	e.preflightIsAlone()
	e.hooksComeAndGo()
	e.alertsLead()
	e.filesAreMounted()
	e.helpersAreAlike()
	e.listenersMatch()
	return e.problems
}

// allPods returns every pod.
func (e *examination) allPods() []pod {
	var found []pod
	for _, d := range e.deployments {
		found = append(found, pod{"Deployment " + d.Name, d.Annotations, d.Spec.Template.Labels, d.Spec.Template.Spec})
	}
	for _, j := range e.jobs {
		found = append(found, pod{"Job " + j.Name, j.Annotations, j.Spec.Template.Labels, j.Spec.Template.Spec})
	}
	for _, p := range e.pods {
		found = append(found, pod{"Pod " + p.Name, p.Annotations, p.Labels, p.Spec})
	}
	return found
}

func (p pod) containers() []core.Container {
	return slices.Concat(p.spec.InitContainers, p.spec.Containers)
}

// port tells whether one of the pod's containers has a port of this name.
func (p pod) port(name string) bool {
	for _, c := range p.containers() {
		for _, port := range c.Ports {
			if port.Name == name {
				return true
			}
		}
	}
	return false
}

// named is the part of every object that names it.
type named struct {
	kind string
	meta meta.ObjectMeta
}

func (e *examination) everything() []named {
	var found []named
	for _, o := range e.deployments {
		found = append(found, named{"Deployment", o.ObjectMeta})
	}
	for _, o := range e.jobs {
		found = append(found, named{"Job", o.ObjectMeta})
	}
	for _, o := range e.pods {
		found = append(found, named{"Pod", o.ObjectMeta})
	}
	for _, o := range e.services {
		found = append(found, named{"Service", o.ObjectMeta})
	}
	for _, o := range e.configMaps {
		found = append(found, named{"ConfigMap", o.ObjectMeta})
	}
	for _, o := range e.accounts {
		found = append(found, named{"ServiceAccount", o.ObjectMeta})
	}
	for _, o := range e.ingresses {
		found = append(found, named{"Ingress", o.ObjectMeta})
	}
	for _, o := range e.policies {
		found = append(found, named{"NetworkPolicy", o.ObjectMeta})
	}
	for _, o := range e.budgets {
		found = append(found, named{"PodDisruptionBudget", o.ObjectMeta})
	}
	for _, o := range e.autoscalers {
		found = append(found, named{"HorizontalPodAutoscaler", o.ObjectMeta})
	}
	for _, o := range e.serviceMonitors {
		found = append(found, named{"ServiceMonitor", o.ObjectMeta})
	}
	for _, o := range e.prometheusRules {
		found = append(found, named{"PrometheusRule", o.ObjectMeta})
	}
	return found
}

// names: each object has one of its own, which a Service could have too, and
// leaves the namespace to whoever installs.
func (e *examination) names() {
	seen := map[string]bool{}
	for _, o := range e.everything() {
		name := o.kind + " " + o.meta.Name
		if seen[name] {
			e.problem("%s is there twice", name)
		}
		seen[name] = true
		for _, wrong := range validation.IsDNS1035Label(o.meta.Name) {
			e.problem("%s: %s", name, wrong)
		}
		if o.meta.Namespace != "" {
			e.problem("%s names a namespace, %s: that is for \"helm install --namespace\" to say", name, o.meta.Namespace)
		}
		for key, value := range o.meta.Labels {
			for _, wrong := range validation.IsValidLabelValue(value) {
				e.problem("%s: label %s: %s", name, key, wrong)
			}
		}
	}
}

// rollout: a new pod comes before an old one goes, and an old one may take as
// long as it needs.
func (e *examination) rollout() {
	if len(e.deployments) != 1 {
		e.problem("%d Deployments, want one", len(e.deployments))
		return
	}
	d := e.deployments[0]
	if r := d.Spec.Strategy.RollingUpdate; r == nil || r.MaxSurge == nil || r.MaxUnavailable == nil ||
		*r.MaxSurge != intstr.FromInt32(1) || *r.MaxUnavailable != intstr.FromInt32(0) {
		e.problem("Deployment %s: want maxSurge 1 and maxUnavailable 0", d.Name)
	}
	spec := d.Spec.Template.Spec
	pause := time.Duration(0)
	for _, c := range spec.Containers {
		if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && c.Lifecycle.PreStop.Sleep != nil {
			pause = time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
		}
	}
	if spec.TerminationGracePeriodSeconds == nil {
		e.problem("Deployment %s has no terminationGracePeriodSeconds", d.Name)
	} else if grace, drain := time.Duration(*spec.TerminationGracePeriodSeconds)*time.Second, e.drain(); grace <= pause+drain+e.stopping.Within {
		e.problem("Deployment %s: terminationGracePeriodSeconds is %v, want more than %v: a pause of %v, a drain of %v, and what stopping may take", d.Name, grace, pause+drain+e.stopping.Within, pause, drain)
	}
	if d.Spec.Template.Annotations["checksum/config"] == "" {
		e.problem("Deployment %s has no checksum of the configuration", d.Name)
	}
	for _, s := range spec.TopologySpreadConstraints {
		if !selects(s.LabelSelector, d.Spec.Template.Labels) {
			e.problem("Deployment %s: the spread by %s does not count its own pods", d.Name, s.TopologyKey)
		}
		if !slices.Equal(s.MatchLabelKeys, []string{"pod-template-hash"}) {
			e.problem("Deployment %s: the spread by %s counts the pods of other revisions", d.Name, s.TopologyKey)
		}
	}
}

// drain is how long the gateway drains with the configuration that is rendered.
func (e *examination) drain() time.Duration {
	for _, text := range e.configurations() {
		var config struct {
			Drain string `json:"drain"`
		}
		if err := yaml.Unmarshal([]byte(text), &config); err != nil {
			e.problem("the configuration: %v", err)
		} else if config.Drain != "" {
			drain, err := time.ParseDuration(config.Drain)
			if err != nil {
				e.problem("the configuration: drain: %v", err)
			}
			return drain
		}
	}
	return e.stopping.Drain
}

// configurations are the gateway's, each text once.
func (e *examination) configurations() []string {
	var texts []string
	for _, c := range e.configMaps {
		if text, is := c.Data[configKey]; is && !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return texts
}

// configKey is the key of the ConfigMaps that hold a configuration.
const configKey = "paythread.yaml"

// podRules: what every pod has to keep to.
func (e *examination) podRules() {
	for _, p := range e.allPods() {
		s := p.spec.SecurityContext
		if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser != 65532 {
			e.problem("%s may run as root: want runAsNonRoot and runAsUser 65532", p.owner)
		}
		if p.spec.HostNetwork || p.spec.HostPID || p.spec.HostIPC || p.spec.ShareProcessNamespace != nil {
			e.problem("%s shares something with its node, or its containers with each other", p.owner)
		}
		if s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
			e.problem("%s: want the seccomp profile RuntimeDefault", p.owner)
		}
		if t := p.spec.AutomountServiceAccountToken; t == nil || *t {
			e.problem("%s mounts a token of the cluster", p.owner)
		}
		if l := p.spec.EnableServiceLinks; l == nil || *l {
			e.problem("%s gets variables for Services: want enableServiceLinks false", p.owner)
		}
		for _, c := range p.containers() {
			e.container(p, c)
		}
		e.podReferences(p)
	}
}

func (e *examination) container(p pod, c core.Container) {
	where := p.owner + ", container " + c.Name
	s := c.SecurityContext
	if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		e.problem("%s: the root file system can be written", where)
	}
	if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
		e.problem("%s: privileges can grow", where)
	}
	if s == nil || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
		e.problem("%s: want every capability dropped", where)
	}
	if s != nil && (s.Privileged != nil || s.RunAsUser != nil || s.RunAsNonRoot != nil || s.SeccompProfile != nil || s.ProcMount != nil) {
		e.problem("%s has a security of its own, want the pod's", where)
	}
	named := map[string]bool{}
	for _, v := range c.Env {
		if named[v.Name] {
			e.problem("%s has the variable %s twice, which a server-side apply refuses", where, v.Name)
		}
		named[v.Name] = true
	}
	for _, port := range c.Ports {
		if port.HostPort != 0 {
			e.problem("%s listens on a port of its node", where)
		}
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		e.problem("%s: want requests for processor and memory, and a limit of memory", where)
	}
	if !strings.Contains(c.Image, ":") {
		e.problem("%s: the image %s has neither tag nor digest", where, c.Image)
	}
	for _, probe := range []struct {
		name, path string
		probe      *core.Probe
	}{{"livenessProbe", "/livez", c.LivenessProbe}, {"startupProbe", "/livez", c.StartupProbe}, {"readinessProbe", "/readyz", c.ReadinessProbe}} {
		switch {
		case probe.probe == nil && len(c.Ports) > 0:
			e.problem("%s has no %s", where, probe.name)
		case probe.probe == nil:
		case probe.probe.HTTPGet == nil || probe.probe.HTTPGet.Path != probe.path || probe.probe.HTTPGet.Port != intstr.FromString("admin"):
			e.problem("%s: %s does not ask %s on the admin port", where, probe.name, probe.path)
		}
	}
	e.patience(where, c)
}

// redisAnswersWithin is what /readyz waits for Redis: readyWithin in
// gateway/routes.go.
const redisAnswersWithin = 2

// patience: a probe is as quick as what it asks, and as slow as what it does.
// A pod that is not ready is out within a quarter of a minute; one that starts,
// or hangs, is given the time to be seen to.
func (e *examination) patience(where string, c core.Container) {
	gives := func(p *core.Probe) int32 { return max(p.PeriodSeconds, 1) * max(p.FailureThreshold, 1) }
	if p := c.ReadinessProbe; p != nil && (p.TimeoutSeconds <= redisAnswersWithin || gives(p) > 15) {
		e.problem("%s: readinessProbe waits %d s and gives up after %d s, want more than %d s and at most 15 s", where, p.TimeoutSeconds, gives(p), redisAnswersWithin)
	}
	if p := c.LivenessProbe; p != nil && gives(p) < 30 {
		e.problem("%s: livenessProbe kills after %d s, want at least 30 s", where, gives(p))
	}
	if p := c.StartupProbe; p != nil && gives(p) < 60 {
		e.problem("%s: startupProbe kills after %d s, want at least 60 s", where, gives(p))
	}
}

// podReferences: what a pod mounts or takes variables from is there.
func (e *examination) podReferences(p pod) {
	volumes := map[string]bool{}
	own := p.spec.SecurityContext != nil && p.spec.SecurityContext.RunAsUser != nil // else the cluster gives all numbers
	for _, v := range p.spec.Volumes {
		volumes[v.Name] = false
		switch {
		case v.Secret != nil:
			e.exists(p, "Secret", v.Secret.SecretName)
			if v.Secret.DefaultMode == nil || *v.Secret.DefaultMode&0o007 != 0 {
				e.problem("%s: the files of Secret %s are readable to everyone", p.owner, v.Secret.SecretName)
			}
			if own && p.spec.SecurityContext.FSGroup == nil {
				e.problem("%s: the files of Secret %s are root's, and no group of the pod's can read them", p.owner, v.Secret.SecretName)
			}
			if v.Secret.Optional != nil || len(v.Secret.Items) > 0 {
				e.problem("%s: Secret %s is mounted in part, or need not be there", p.owner, v.Secret.SecretName)
			}
		case v.ConfigMap != nil:
			e.exists(p, "ConfigMap", v.ConfigMap.Name)
		default:
			e.problem("%s: volume %s is neither Secret nor ConfigMap", p.owner, v.Name)
		}
	}
	for _, c := range p.containers() {
		for _, m := range c.VolumeMounts {
			if _, is := volumes[m.Name]; !is {
				e.problem("%s, container %s mounts %s, which is no volume of the pod", p.owner, c.Name, m.Name)
			}
			if m.SubPath != "" || m.SubPathExpr != "" {
				e.problem("%s, container %s: a change never comes to %s, which is mounted by a path inside its volume", p.owner, c.Name, m.MountPath)
			}
			if !m.ReadOnly {
				e.problem("%s, container %s can write to %s", p.owner, c.Name, m.MountPath)
			}
			volumes[m.Name] = true
		}
		for _, v := range c.Env {
			if v.ValueFrom != nil && v.ValueFrom.SecretKeyRef != nil {
				e.exists(p, "Secret", v.ValueFrom.SecretKeyRef.Name)
				if v.ValueFrom.SecretKeyRef.Optional != nil {
					e.problem("%s, container %s: the variable %s need not be there", p.owner, c.Name, v.Name)
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		if !volumes[name] {
			e.problem("%s: nothing mounts the volume %s", p.owner, name)
		}
	}
	for _, s := range p.spec.ImagePullSecrets {
		e.exists(p, "Secret", s.Name)
	}
	if account := p.spec.ServiceAccountName; account != "default" && !slices.Contains(e.references, account) &&
		!slices.ContainsFunc(e.accounts, func(a *core.ServiceAccount) bool { return a.Name == account }) {
		e.problem("%s runs as the account %q, which nobody makes", p.owner, account)
	}
}

// exists: an object that a pod refers to is named by the values or made by the
// chart. Before an install there is nothing but what other hooks have made.
func (e *examination) exists(p pod, kind, name string) {
	if slices.Contains(e.references, name) {
		return
	}
	if kind == "ConfigMap" {
		for _, c := range e.configMaps {
			if c.Name != name {
				continue
			}
			if c.Immutable != nil {
				e.problem("ConfigMap %s can never be changed, and the next configuration has the same name", name)
			}
			if strings.Contains(p.annotations[hookAnnotation], "pre-install") && !before(c.Annotations, p.annotations) {
				e.problem("%s runs before ConfigMap %s is made", p.owner, name)
			}
			return
		}
	}
	e.problem("%s refers to %s %q, which neither the values name nor the chart makes", p.owner, kind, name)
}

// before tells whether the hook of a runs ahead of that of b.
func before(a, b map[string]string) bool {
	weight := func(of map[string]string) int {
		n, _ := strconv.Atoi(of[hookAnnotation+"-weight"]) // without one it is 0
		return n
	}
	return a[hookAnnotation] == b[hookAnnotation] && weight(a) < weight(b)
}

// servicesLead: a Service leads to pods that have the port.
func (e *examination) servicesLead() {
	for _, s := range e.services {
		led := false
		for _, p := range e.allPods() {
			if !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.labels)) {
				continue
			}
			led = true
			for _, port := range s.Spec.Ports {
				if port.TargetPort.Type != intstr.String || !p.port(port.TargetPort.StrVal) {
					e.problem("Service %s leads to the port %s, which %s does not name", s.Name, port.TargetPort.String(), p.owner)
				}
			}
		}
		if !led {
			e.problem("Service %s leads to no pod", s.Name)
		}
		for _, port := range s.Spec.Ports {
			if port.TargetPort.StrVal == "admin" && s.Spec.Type != core.ServiceTypeClusterIP {
				e.problem("Service %s leads to the admin listener from outside the cluster", s.Name)
			}
		}
	}
}

// ingressesLead: an Ingress leads to the public port of a Service.
func (e *examination) ingressesLead() {
	for _, i := range e.ingresses {
		for _, rule := range i.Spec.Rules {
			if rule.HTTP == nil {
				e.problem("Ingress %s: host %s has no paths", i.Name, rule.Host)
				continue
			}
			for _, path := range rule.HTTP.Paths {
				if path.Path != "/" || path.PathType == nil || *path.PathType != networking.PathTypePrefix {
					e.problem("Ingress %s leads %s and not all of %s", i.Name, path.Path, rule.Host)
				}
				e.backend(i, path.Backend.Service)
			}
		}
		for _, t := range i.Spec.TLS {
			if !slices.Contains(e.references, t.SecretName) {
				e.problem("Ingress %s shows a certificate of Secret %q, which the values do not name", i.Name, t.SecretName)
			}
			for _, rule := range i.Spec.Rules {
				if !slices.Contains(t.Hosts, rule.Host) {
					e.problem("Ingress %s has no certificate for %s", i.Name, rule.Host)
				}
			}
		}
	}
}

func (e *examination) backend(i *networking.Ingress, to *networking.IngressServiceBackend) {
	if to == nil {
		e.problem("Ingress %s leads to something that is no Service", i.Name)
		return
	}
	for _, s := range e.services {
		for _, port := range s.Spec.Ports {
			if s.Name != to.Name || port.Name != to.Port.Name {
				continue
			}
			if port.TargetPort.StrVal != "http" {
				e.problem("Ingress %s leads to the port %s, want the public one", i.Name, port.TargetPort.String())
			}
			return
		}
	}
	e.problem("Ingress %s leads to port %q of Service %q, which is not there", i.Name, to.Port.Name, to.Name)
}

// selectorsSelect: what is about pods is about some of the chart's.
func (e *examination) selectorsSelect() {
	for _, d := range e.deployments {
		if !selects(d.Spec.Selector, d.Spec.Template.Labels) {
			e.problem("Deployment %s does not select its own pods", d.Name)
		}
		for _, j := range e.allPods() {
			if j.owner != "Deployment "+d.Name && selects(d.Spec.Selector, j.labels) {
				e.problem("Deployment %s takes the pod of %s for its own", d.Name, j.owner)
			}
		}
	}
	for _, b := range e.budgets {
		if len(e.selected(b.Spec.Selector)) != 1 {
			e.problem("PodDisruptionBudget %s selects %d of the chart's pods, want the gateway's", b.Name, len(e.selected(b.Spec.Selector)))
		}
		if m := b.Spec.MaxUnavailable; m == nil || m.IntVal == 0 && (m.Type == intstr.Int || m.StrVal == "0%") {
			e.problem("PodDisruptionBudget %s holds up every drain of a node", b.Name)
		}
	}
	for _, h := range e.autoscalers {
		target := h.Spec.ScaleTargetRef
		if target.Kind != "Deployment" || len(e.deployments) != 1 || target.Name != e.deployments[0].Name {
			e.problem("HorizontalPodAutoscaler %s is for %s %s, which is not there", h.Name, target.Kind, target.Name)
		} else if e.deployments[0].Spec.Replicas != nil {
			e.problem("Deployment %s has replicas of its own beside an autoscaler", target.Name)
		}
	}
	for _, n := range e.policies {
		e.policy(n)
	}
}

func (e *examination) policy(n *networking.NetworkPolicy) {
	own := e.selected(&n.Spec.PodSelector)
	if len(own) != 1 {
		e.problem("NetworkPolicy %s selects %d of the chart's pods, want one kind", n.Name, len(own))
		return
	}
	opened := map[string]bool{}
	for _, rule := range n.Spec.Ingress {
		e.policyPorts(n, rule.Ports, own)
		if len(rule.Ports) != 1 || rule.Ports[0].Port == nil {
			e.problem("NetworkPolicy %s: want one port in each rule for those who call", n.Name)
			continue
		}
		opened[rule.Ports[0].Port.StrVal] = true
		for _, peer := range rule.From {
			if other := e.otherPort(n, rule.Ports[0].Port.StrVal, peer); other != "" {
				e.problem("NetworkPolicy %s lets the same callers to %s and %s", n.Name, rule.Ports[0].Port.StrVal, other)
			}
		}
		for _, port := range rule.Ports {
			if len(rule.From) == 0 && port.Port != nil && port.Port.StrVal == "admin" {
				e.problem("NetworkPolicy %s opens the admin listener to everyone", n.Name)
			}
		}
		e.policyPeers(n, rule.From)
	}
	for _, p := range own {
		for _, c := range p.containers() {
			for _, port := range c.Ports {
				if !opened[port.Name] {
					e.problem("NetworkPolicy %s lets nobody to the port %s", n.Name, port.Name)
				}
			}
		}
	}
	for _, rule := range n.Spec.Egress {
		e.policyPeers(n, rule.To)
		for _, peer := range rule.To {
			if peer.PodSelector != nil && peer.NamespaceSelector == nil {
				e.policyPorts(n, rule.Ports, e.selected(peer.PodSelector))
			}
		}
	}
	if !slices.Equal(n.Spec.PolicyTypes, []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress}) {
		e.problem("NetworkPolicy %s does not say that it is for both directions", n.Name)
	}
}

// otherPort returns another port to which the policy lets a caller, unless the
// caller is a pod of the chart.
func (e *examination) otherPort(n *networking.NetworkPolicy, port string, caller networking.NetworkPolicyPeer) string {
	if caller.PodSelector != nil && caller.NamespaceSelector == nil {
		return ""
	}
	for _, rule := range n.Spec.Ingress {
		for _, p := range rule.Ports {
			if p.Port == nil || p.Port.StrVal == port {
				continue
			}
			for _, peer := range rule.From {
				if equality.Semantic.DeepEqual(peer, caller) {
					return p.Port.StrVal
				}
			}
		}
	}
	return ""
}

// policyPeers: a peer of the same namespace is one of the chart's own pods.
func (e *examination) policyPeers(n *networking.NetworkPolicy, peers []networking.NetworkPolicyPeer) {
	for _, peer := range peers {
		if peer.PodSelector != nil && peer.NamespaceSelector == nil && len(e.selected(peer.PodSelector)) == 0 {
			e.problem("NetworkPolicy %s speaks of pods that the chart does not make: %s", n.Name, meta.FormatLabelSelector(peer.PodSelector))
		}
	}
}

// policyPorts: ports that are named are ports of these pods.
func (e *examination) policyPorts(n *networking.NetworkPolicy, ports []networking.NetworkPolicyPort, of []pod) {
	for _, port := range ports {
		if port.Port == nil || port.Port.Type != intstr.String {
			continue
		}
		for _, p := range of {
			if !p.port(port.Port.StrVal) {
				e.problem("NetworkPolicy %s speaks of the port %s, which %s does not name", n.Name, port.Port.StrVal, p.owner)
			}
		}
	}
}

// monitorsFind: a ServiceMonitor finds one Service, and the port that it names.
func (e *examination) monitorsFind() {
	for _, m := range e.serviceMonitors {
		found := 0
		for _, s := range e.services {
			if !selects(&m.Spec.Selector, s.Labels) {
				continue
			}
			found++
			for _, endpoint := range m.Spec.Endpoints {
				if endpoint.Path != "/metrics" {
					e.problem("ServiceMonitor %s scrapes %q, want /metrics", m.Name, endpoint.Path)
				}
				if !slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool { return p.Name == endpoint.Port }) {
					e.problem("ServiceMonitor %s scrapes the port %s, which Service %s has not", m.Name, endpoint.Port, s.Name)
				}
			}
		}
		if found != 1 {
			e.problem("ServiceMonitor %s finds %d Services, want one", m.Name, found)
		}
	}
}

// preflightIsAlone: what runs before an install sees the configuration that is
// about to be installed.
func (e *examination) preflightIsAlone() {
	if n := len(e.configurations()); n != 1 {
		e.problem("%d different configurations, want one", n)
	}
}

// hooksComeAndGo: what runs before an install runs before an upgrade too, and
// can be made again; what tests can tell what it saw. "helm test --logs" asks
// for the log of every hook of the test by its name, at the end, and of a pod
// with several containers it gets none.
func (e *examination) hooksComeAndGo() {
	for _, o := range e.everything() {
		hook, policy := o.meta.Annotations[hookAnnotation], o.meta.Annotations[hookAnnotation+"-delete-policy"]
		switch {
		case hook == "":
			continue
		case hook == "test":
			if o.kind != "Pod" {
				e.problem("%s %s is a hook of the test, and has no log for \"helm test --logs\"", o.kind, o.meta.Name)
			}
			if strings.Contains(policy, "hook-succeeded") || strings.Contains(policy, "hook-failed") {
				e.problem("%s %s is gone before \"helm test --logs\" can read its log", o.kind, o.meta.Name)
			}
		case hook != "pre-install,pre-upgrade":
			e.problem("%s %s runs at %s, want pre-install,pre-upgrade", o.kind, o.meta.Name, hook)
		}
		if !strings.Contains(policy, "before-hook-creation") {
			e.problem("%s %s stands in the way of the next one of its name", o.kind, o.meta.Name)
		}
	}
	for _, p := range e.pods {
		if len(p.Spec.Containers) != 1 {
			e.problem("Pod %s has %d containers, and \"helm test --logs\" can read the log of one", p.Name, len(p.Spec.Containers))
		}
	}
	for _, a := range e.accounts {
		if a.AutomountServiceAccountToken == nil || *a.AutomountServiceAccountToken {
			e.problem("ServiceAccount %s gives its pods a token", a.Name)
		}
	}
	for _, j := range e.jobs {
		if j.Spec.Template.Spec.RestartPolicy != core.RestartPolicyNever {
			e.problem("Job %s starts its containers again, and with the old ones go their logs", j.Name)
		}
		if policy := j.Annotations[hookAnnotation+"-delete-policy"]; strings.Contains(policy, "hook-failed") {
			e.problem("Job %s is gone when somebody wants to know why it failed", j.Name)
		}
	}
}

// alertsLead: an alert leads to a page that can be opened.
func (e *examination) alertsLead() {
	for _, r := range e.prometheusRules {
		for _, g := range r.Spec.Groups {
			for _, rule := range g.Rules {
				page, there := rule.Annotations["runbook_url"]
				if u, err := url.Parse(page); there && (err != nil || u.Host == "" || !strings.HasPrefix(u.Scheme, "http") || strings.Contains(u.Path, "//")) {
					e.problem("PrometheusRule %s: %s leads to %q, which nobody can open", r.Name, rule.Alert, page)
				}
			}
		}
	}
}

// ownFile is a path in a configuration, or in arguments, of a file that the
// chart mounts.
var ownFile = regexp.MustCompile(`/etc/paythread/[^\s"',]+`)

// filesAreMounted: the files that a container of ours is told of, and those that
// its configuration names, lie in folders that are mounted.
func (e *examination) filesAreMounted() {
	for _, p := range e.allPods() {
		for _, c := range p.containers() {
			files := ownFile.FindAllString(strings.Join(c.Args, " "), -1)
			if len(files) == 0 {
				continue
			}
			for _, text := range e.configurations() {
				files = append(files, ownFile.FindAllString(text, -1)...)
			}
			for _, file := range files {
				if !slices.ContainsFunc(c.VolumeMounts, func(m core.VolumeMount) bool { return file == m.MountPath || path.Dir(file) == m.MountPath }) {
					e.problem("%s, container %s looks for %s, and nothing is mounted there", p.owner, c.Name, file)
				}
			}
		}
	}
}

// helpersAreAlike: what checks the configuration sees what the gateway will.
func (e *examination) helpersAreAlike() {
	if len(e.deployments) != 1 {
		return // rollout has said so
	}
	gateway := e.deployments[0].Spec.Template.Spec.Containers[0]
	seen := 0
	for _, p := range e.allPods() {
		for _, c := range p.containers() {
			if !slices.Contains(c.Args, "--config") {
				continue
			}
			seen++
			if c.Image != gateway.Image || c.ImagePullPolicy != gateway.ImagePullPolicy || !equality.Semantic.DeepEqual(c.Env, gateway.Env) ||
				!equality.Semantic.DeepEqual(c.VolumeMounts, gateway.VolumeMounts) {
				e.problem("%s, container %s has another image, other variables or other mounts than the gateway", p.owner, c.Name)
			}
		}
	}
	if want := 1 + 2*len(e.jobs) + len(e.pods); seen != want {
		e.problem("%d containers read a configuration, want %d", seen, want)
	}
}

// listenersMatch: the gateway listens on the ports that its container names.
func (e *examination) listenersMatch() {
	if len(e.deployments) != 1 {
		return // rollout has said so
	}
	gateway := e.deployments[0].Spec.Template.Spec.Containers[0]
	for _, text := range e.configurations() {
		var config struct {
			Listen string `json:"listen"`
			Admin  string `json:"admin_listen"`
		}
		if err := yaml.Unmarshal([]byte(text), &config); err != nil {
			e.problem("the configuration: %v", err)
		}
		for name, address := range map[string]string{"http": config.Listen, "admin": config.Admin} {
			if !slices.ContainsFunc(gateway.Ports, func(p core.ContainerPort) bool {
				return p.Name == name && fmt.Sprintf(":%d", p.ContainerPort) == address
			}) {
				e.problem("the gateway listens on %q, and the container's port %s is another", address, name)
			}
		}
	}
}

func (e *examination) selected(by *meta.LabelSelector) []pod {
	var found []pod
	for _, p := range e.allPods() {
		if selects(by, p.labels) {
			found = append(found, p)
		}
	}
	return found
}

// selects tells whether a selector matches. None, or one that cannot be read,
// matches nothing; an empty one would match every pod of the namespace, which
// is never meant here.
func selects(by *meta.LabelSelector, set map[string]string) bool {
	s, err := meta.LabelSelectorAsSelector(by)
	return err == nil && !s.Empty() && s.Matches(labels.Set(set))
}
