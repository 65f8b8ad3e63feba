// Package quota owns what a ResourceQuota counts: how much of what it limits an object uses, and how much a namespace uses in all. The
// objects in the store are the book: nothing is counted up or down, so nothing can drift. Names, rules and numbers are upstream's.
package quota

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
)

// The kinds that use more than a number of objects.
const (
	pods     = "pods"
	services = "services"
	claims   = "persistentvolumeclaims"
)

// Measure is what one object uses and which scopes it is in.
type Measure struct {
	usage, counted corev1.ResourceList // counted is what it uses once it has ended
	ended          bool
	until          time.Time // from when on it has ended, though it is still there; zero: never

	terminating, bestEffort, across bool     // of pods
	classes                         []string // the priority class of a pod, the attribute classes of a claim
}

// Of measures an object.
func Of(kind *api.Kind, obj api.Object) Measure {
	m := Measure{counted: corev1.ResourceList{}}
	for _, name := range countNames(kind) {
		m.counted[name] = *resource.NewQuantity(1, resource.DecimalSI)
	}
	m.usage = m.counted
	switch o := obj.(type) {
	case *corev1.Pod:
		m.pod(o)
	case *corev1.Service:
		m.service(o)
	case *corev1.PersistentVolumeClaim:
		m.claim(o)
	}
	return m
}

// Usage is what the object uses at a time.
func (m *Measure) Usage(now time.Time) corev1.ResourceList {
	if m.ended || !m.until.IsZero() && now.After(m.until) {
		return m.counted
	}
	return m.usage
}

// countNames are the names under which all objects of a kind are counted.
func countNames(kind *api.Kind) []corev1.ResourceName {
	names := []corev1.ResourceName{corev1.ResourceName("count/" + kind.GroupResource())}
	switch alias := corev1.ResourceName(kind.GroupResource()); alias {
	case corev1.ResourceConfigMaps, corev1.ResourceQuotas, corev1.ResourceReplicationControllers, corev1.ResourceSecrets:
		names = append(names, alias)
	}
	return names
}

func (m *Measure) pod(p *corev1.Pod) {
	m.terminating = p.Spec.ActiveDeadlineSeconds != nil && *p.Spec.ActiveDeadlineSeconds >= 0
	m.bestEffort = qos.GetPodQOS(p) == corev1.PodQOSBestEffort
	m.across = crossesNamespaces(p.Spec.Affinity)
	if p.Spec.PriorityClassName != "" {
		m.classes = []string{p.Spec.PriorityClassName}
	}
	m.ended = p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	if p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil {
		m.until = p.DeletionTimestamp.Add(time.Duration(*p.DeletionGracePeriodSeconds) * time.Second)
	}
	opts := resourcehelper.PodResourcesOptions{UseStatusResources: true}
	m.usage = sum(m.counted, compute(resourcehelper.PodRequests(p, opts), resourcehelper.PodLimits(p, opts)))
}

// compute names what a pod or a container asks for as quotas name it.
func compute(requests, limits corev1.ResourceList) corev1.ResourceList {
	all := corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(1, resource.DecimalSI)}
	for name, q := range requests {
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage,
			strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
			all[name], all[requestsOf(name)] = q, q
		case helper.IsExtendedResourceName(name):
			all[requestsOf(name)] = q
		}
	}
	for name, q := range limits {
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			all["limits."+name] = q
		}
	}
	return all
}

func requestsOf(name corev1.ResourceName) corev1.ResourceName {
	return corev1.DefaultResourceRequestsPrefix + name
}

func (m *Measure) service(s *corev1.Service) {
	ports, balancers := 0, 0
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		ports = len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		balancers = 1
		for _, p := range s.Spec.Ports {
			if p.NodePort != 0 || ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true) {
				ports++
			}
		}
	}
	m.usage = sum(m.counted, corev1.ResourceList{
		corev1.ResourceServices:              *resource.NewQuantity(1, resource.DecimalSI),
		corev1.ResourceServicesNodePorts:     *resource.NewQuantity(int64(ports), resource.DecimalSI),
		corev1.ResourceServicesLoadBalancers: *resource.NewQuantity(int64(balancers), resource.DecimalSI),
	})
}

// classSuffix stands behind the name of a storage class in names that are about that class alone.
const classSuffix = ".storageclass.storage.k8s.io/"

func (m *Measure) claim(c *corev1.PersistentVolumeClaim) {
	own := corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: *resource.NewQuantity(1, resource.DecimalSI)}
	if size, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
		if given, ok := c.Status.AllocatedResources[corev1.ResourceStorage]; ok && given.Cmp(size) > 0 {
			size = given
		}
		size = size.DeepCopy()
		size.RoundUp(0)
		own[corev1.ResourceRequestsStorage] = size
	}
	m.usage = sum(m.counted, own)
	class, ok := c.Annotations[corev1.BetaStorageClassAnnotation]
	if !ok {
		class = ptr.Deref(c.Spec.StorageClassName, "")
	}
	if class != "" {
		for name, q := range own {
			m.usage[corev1.ResourceName(class+classSuffix)+name] = q
		}
	}
	for _, name := range []*string{c.Spec.VolumeAttributesClassName, c.Status.CurrentVolumeAttributesClassName} {
		if ptr.Deref(name, "") != "" {
			m.classes = append(m.classes, *name)
		}
	}
	if s := c.Status.ModifyVolumeStatus; s != nil && s.TargetVolumeAttributesClassName != "" {
		m.classes = append(m.classes, s.TargetVolumeAttributesClassName)
	}
}

func crossesNamespaces(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	crosses := func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil }
	weighted := func(t corev1.WeightedPodAffinityTerm) bool { return crosses(t.PodAffinityTerm) }
	if p := a.PodAffinity; p != nil && (slices.ContainsFunc(p.RequiredDuringSchedulingIgnoredDuringExecution, crosses) ||
		slices.ContainsFunc(p.PreferredDuringSchedulingIgnoredDuringExecution, weighted)) {
		return true
	}
	p := a.PodAntiAffinity
	return p != nil && (slices.ContainsFunc(p.RequiredDuringSchedulingIgnoredDuringExecution, crosses) ||
		slices.ContainsFunc(p.PreferredDuringSchedulingIgnoredDuringExecution, weighted))
}

// InScope reports whether a quota counts an object of the kind with this measure. A quota without scopes counts all.
func InScope(q *corev1.ResourceQuota, kind *api.Kind, m *Measure) bool {
	selectors := make([]corev1.ScopedResourceSelectorRequirement, 0, len(q.Spec.Scopes))
	for _, scope := range q.Spec.Scopes {
		selectors = append(selectors, corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		selectors = append(selectors, q.Spec.ScopeSelector.MatchExpressions...)
	}
	for _, s := range selectors {
		if !m.in(kind.GroupResource(), s) {
			return false
		}
	}
	return true
}

func (m *Measure) in(resource string, s corev1.ScopedResourceSelectorRequirement) bool {
	switch {
	case resource == claims && s.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass,
		resource == pods && s.ScopeName == corev1.ResourceQuotaScopePriorityClass:
		return m.hasClass(s)
	case resource != pods:
		return false
	}
	switch s.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return m.terminating
	case corev1.ResourceQuotaScopeNotTerminating:
		return !m.terminating
	case corev1.ResourceQuotaScopeBestEffort:
		return m.bestEffort
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !m.bestEffort
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return m.across
	}
	return false
}

func (m *Measure) hasClass(s corev1.ScopedResourceSelectorRequirement) bool {
	if s.Operator == corev1.ScopeSelectorOpExists {
		return len(m.classes) > 0
	}
	selector, err := helper.ScopedResourceSelectorRequirementsAsSelector(s)
	if err != nil {
		return false // validation lets no such selector in
	}
	if len(m.classes) == 0 {
		return selector.Matches(labels.Set{})
	}
	return slices.ContainsFunc(m.classes, func(class string) bool { return selector.Matches(labels.Set{string(s.ScopeName): class}) })
}

// sum adds two lists.
func sum(a, b corev1.ResourceList) corev1.ResourceList {
	all := make(corev1.ResourceList, len(a)+len(b))
	for name, q := range a {
		all[name] = q.DeepCopy()
	}
	for name, q := range b {
		total := all[name]
		total.Add(q)
		all[name] = total
	}
	return all
}
