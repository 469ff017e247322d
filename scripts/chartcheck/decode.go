package chartcheck

import (
	"errors"
	"fmt"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// objects is every manifest of a rendering, by its kind.
type objects struct {
	deployments     []*apps.Deployment
	jobs            []*batch.Job
	pods            []*core.Pod
	services        []*core.Service
	configMaps      []*core.ConfigMap
	accounts        []*core.ServiceAccount
	ingresses       []*networking.Ingress
	policies        []*networking.NetworkPolicy
	budgets         []*policy.PodDisruptionBudget
	autoscalers     []*autoscaling.HorizontalPodAutoscaler
	serviceMonitors []*monitoring.ServiceMonitor
	prometheusRules []*monitoring.PrometheusRule
}

// newDecoder returns what reads the kinds that the chart may have. It refuses a
// field that the kind does not have, one that stands twice, and every other
// kind: a Secret most of all.
func newDecoder() (runtime.Decoder, error) {
	known := runtime.NewScheme()
	var errs []error
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, autoscaling.AddToScheme, batch.AddToScheme, core.AddToScheme,
		networking.AddToScheme, policy.AddToScheme, monitoring.AddToScheme,
	} {
		errs = append(errs, add(known))
	}
	return serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer(), errors.Join(errs...)
}

// decode reads the manifests, and reports every one that cannot be read.
func decode(manifests []manifest) (objects, error) {
	decoder, err := newDecoder()
	if err != nil {
		return objects{}, err
	}
	var all objects
	var errs []error
	for _, m := range manifests {
		object, _, err := decoder.Decode([]byte(m.text), nil, nil)
		if err == nil {
			err = all.add(object)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.template, err))
		}
	}
	return all, errors.Join(errs...)
}

func (all *objects) add(object runtime.Object) error {
	switch o := object.(type) {
	case *apps.Deployment:
		all.deployments = append(all.deployments, o)
	case *batch.Job:
		all.jobs = append(all.jobs, o)
	case *core.Pod:
		all.pods = append(all.pods, o)
	case *core.Service:
		all.services = append(all.services, o)
	case *core.ConfigMap:
		all.configMaps = append(all.configMaps, o)
	case *core.ServiceAccount:
		all.accounts = append(all.accounts, o)
	case *networking.Ingress:
		all.ingresses = append(all.ingresses, o)
	case *networking.NetworkPolicy:
		all.policies = append(all.policies, o)
	case *policy.PodDisruptionBudget:
		all.budgets = append(all.budgets, o)
	case *autoscaling.HorizontalPodAutoscaler:
		all.autoscalers = append(all.autoscalers, o)
	case *monitoring.ServiceMonitor:
		all.serviceMonitors = append(all.serviceMonitors, o)
	case *monitoring.PrometheusRule:
		all.prometheusRules = append(all.prometheusRules, o)
	default:
		return fmt.Errorf("the chart makes a %T, which it has no business with", object)
	}
	return nil
}
