package admission

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

// PodSecurityConfig configures the pod security standards.
type PodSecurityConfig struct {
	// Defaults hold in namespaces whose labels say nothing. The zero value is upstream's: privileged, which forbids nothing.
	Defaults psa.Policy
	// Who and what is not looked at.
	Namespaces, Users, RuntimeClasses []string
}

// ParsePodSecurity reads a policy in the form of the labels of a namespace.
func ParsePodSecurity(labels map[string]string) (psa.Policy, error) {
	p, errs := psa.PolicyToEvaluate(labels, privileged())
	return p, errs.ToAggregate()
}

func privileged() psa.Policy {
	all := psa.LevelVersion{Level: psa.LevelPrivileged, Version: psa.LatestVersion()}
	return psa.Policy{Enforce: all, Audit: all, Warn: all}
}

// podsChecked bounds how many existing pods are looked at when the level of their namespace is raised.
const podsChecked = 3000

// guard applies the standards: what a pod may ask of its device.
type guard struct {
	cfg       PodSecurityConfig
	evaluator func() policy.Evaluator // made when it is needed first: most clusters have no use for it
}

// podSecurity refuses pods that a namespace's labels forbid, and warns of templates that would make such pods. The checks are
// upstream's own package.
func podSecurity(cfg PodSecurityConfig) Plugin {
	if cfg.Defaults == (psa.Policy{}) {
		cfg.Defaults = privileged()
	}
	g := &guard{cfg: cfg, evaluator: sync.OnceValue(func() policy.Evaluator {
		e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
		if err != nil {
			panic(err) // upstream's checks are at odds with each other
		}
		return e
	})}
	return Plugin{Name: "PodSecurity", Review: g.review}
}

func (g *guard) review(ctx context.Context, a *store.Admission) error {
	if a.Operation == store.OpDelete {
		return nil
	}
	switch obj := a.Object.(type) {
	case *corev1.Namespace:
		if a.Subresource == "" {
			return g.reviewNamespace(a, obj)
		}
	case *corev1.Pod:
		switch a.Subresource {
		case "", "ephemeralcontainers", "resize":
			return g.reviewPod(ctx, a, obj)
		}
	default:
		if a.Subresource == "" && a.Heard() { // it only warns
			return g.reviewTemplate(ctx, a)
		}
	}
	return nil
}

func (g *guard) reviewNamespace(a *store.Admission, namespace *corev1.Namespace) error {
	newer, errs := psa.PolicyToEvaluate(namespace.Labels, g.cfg.Defaults)
	invalid := func() error { return apierrors.NewInvalid(a.Kind.GVK.GroupKind(), namespace.Name, errs) }
	exempt := slices.Contains(g.cfg.Namespaces, namespace.Name)
	if a.Operation == store.OpCreate {
		if len(errs) > 0 {
			return invalid()
		}
		if exempt {
			g.warnExempt(a, namespace, newer)
		}
		return nil
	}
	older, olderErrs := psa.PolicyToEvaluate(a.Old.GetLabels(), g.cfg.Defaults)
	if len(errs) > 0 && (len(olderErrs) == 0 || !reflect.DeepEqual(errs, olderErrs)) {
		return invalid()
	}
	switch {
	case newer.Enforce == older.Enforce, newer.Enforce.Level == psa.LevelPrivileged:
	case newer.Enforce.Version == older.Enforce.Version && psa.CompareLevels(newer.Enforce.Level, older.Enforce.Level) < 1:
	case exempt:
		g.warnExempt(a, namespace, newer)
	case a.Heard():
		g.warnOfPods(a, namespace.Name, newer.Enforce)
	}
	return nil
}

// warnExempt tells that the labels of a namespace have no effect.
func (g *guard) warnExempt(a *store.Admission, namespace *corev1.Namespace, p psa.Policy) {
	if p.FullyPrivileged() || p.Equivalent(&g.cfg.Defaults) {
		return
	}
	var modes []string
	for _, mode := range []struct {
		name           string
		is             psa.LevelVersion
		level, version string
	}{
		{"enforce", p.Enforce, psa.EnforceLevelLabel, psa.EnforceVersionLabel},
		{"audit", p.Audit, psa.AuditLevelLabel, psa.AuditVersionLabel},
		{"warn", p.Warn, psa.WarnLevelLabel, psa.WarnVersionLabel},
	} {
		_, level := namespace.Labels[mode.level]
		_, version := namespace.Labels[mode.version]
		if mode.is.Level != psa.LevelPrivileged && (level || version) {
			modes = append(modes, mode.name+"="+mode.is.String())
		}
	}
	a.Warn(fmt.Sprintf("namespace %q is exempt from Pod Security, and the policy (%s) will be ignored", namespace.Name, strings.Join(modes, ", ")))
}

// warnOfPods tells which pods a namespace has already that its new level would not let in, one of each owner first.
func (g *guard) warnOfPods(a *store.Admission, namespace string, level psa.LevelVersion) {
	var first, rest []*corev1.Pod
	seen := map[string]bool{}
	for _, pod := range store.List[corev1.Pod](a.Reader, namespace) {
		owner := metav1.GetControllerOfNoCopy(pod)
		switch {
		case g.exemptClass(&pod.Spec):
		case owner != nil && seen[string(owner.UID)]:
			rest = append(rest, pod)
		default:
			first = append(first, pod)
			if owner != nil {
				seen[string(owner.UID)] = true
			}
		}
	}
	pods := append(first, rest...)
	if total := len(pods); total > podsChecked {
		pods = pods[:podsChecked]
		a.Warn(fmt.Sprintf("new PodSecurity enforce level only checked against the first %d of %d existing pods", podsChecked, total))
	}
	violating := map[string][]string{}
	for _, pod := range pods {
		if r := g.check(level, &pod.ObjectMeta, &pod.Spec); !r.Allowed {
			violating[r.ForbiddenReason()] = append(violating[r.ForbiddenReason()], pod.Name)
		}
	}
	if len(violating) == 0 {
		return
	}
	a.Warn(fmt.Sprintf("existing pods in namespace %q violate the new PodSecurity enforce level %q", namespace, level.String()))
	var texts []string
	for reason, names := range violating {
		name := slices.Min(names)
		switch len(names) {
		case 1:
		case 2:
			name += " (and 1 other pod)"
		default:
			name += fmt.Sprintf(" (and %d other pods)", len(names)-1)
		}
		texts = append(texts, name+": "+reason)
	}
	slices.Sort(texts)
	for _, text := range texts {
		a.Warn(text)
	}
}

// policyOf is what holds in the namespace of a write; ok is false if the write is exempt.
func (g *guard) policyOf(ctx context.Context, a *store.Admission) (p psa.Policy, ok bool) {
	name := a.Object.GetNamespace()
	if slices.Contains(g.cfg.Namespaces, name) {
		a.Note(psa.AuditAnnotationPrefix+psa.ExemptionReasonAnnotationKey, "namespace")
		return p, false
	}
	if user := access.FromContext(ctx); user != nil && slices.Contains(g.cfg.Users, user.Name) {
		a.Note(psa.AuditAnnotationPrefix+psa.ExemptionReasonAnnotationKey, "user")
		return p, false
	}
	var labels map[string]string
	if namespace, ok := store.Get[corev1.Namespace](a.Reader, "", name); ok {
		labels = namespace.Labels
	}
	p, errs := psa.PolicyToEvaluate(labels, g.cfg.Defaults)
	if len(errs) > 0 {
		a.Note(psa.AuditAnnotationPrefix+"error", fmt.Sprintf("Failed to parse policy: %v", errs.ToAggregate()))
	}
	return p, true
}

func (g *guard) reviewPod(ctx context.Context, a *store.Admission, pod *corev1.Pod) error {
	p, ok := g.policyOf(ctx, a)
	if !ok {
		return nil
	}
	if p.FullyPrivileged() {
		a.Note(psa.AuditAnnotationPrefix+psa.EnforcedPolicyAnnotationKey, p.Enforce.String())
		return nil
	}
	if a.Operation == store.OpUpdate && !matters(pod, a.Old.(*corev1.Pod)) {
		return nil
	}
	if g.exemptClass(&pod.Spec) {
		a.Note(psa.AuditAnnotationPrefix+psa.ExemptionReasonAnnotationKey, "runtimeClass")
		return nil
	}
	a.Note(psa.AuditAnnotationPrefix+psa.EnforcedPolicyAnnotationKey, p.Enforce.String())
	if r := g.check(p.Enforce, &pod.ObjectMeta, &pod.Spec); !r.Allowed {
		g.note(a, p, &pod.ObjectMeta, &pod.Spec)
		return fmt.Errorf("violates PodSecurity %q: %s", p.Enforce.String(), r.ForbiddenDetail())
	}
	g.note(a, p, &pod.ObjectMeta, &pod.Spec)
	g.warn(a, p, &pod.ObjectMeta, &pod.Spec)
	return nil
}

func (g *guard) reviewTemplate(ctx context.Context, a *store.Admission) error {
	meta, spec := templateOf(a.Object)
	if spec == nil {
		return nil
	}
	p, ok := g.policyOf(ctx, a)
	if !ok || p.Warn.Level == psa.LevelPrivileged && p.Audit.Level == psa.LevelPrivileged {
		return nil
	}
	if g.exemptClass(spec) {
		a.Note(psa.AuditAnnotationPrefix+psa.ExemptionReasonAnnotationKey, "runtimeClass")
		return nil
	}
	g.note(a, p, meta, spec)
	g.warn(a, p, meta, spec)
	return nil
}

func (g *guard) note(a *store.Admission, p psa.Policy, meta *metav1.ObjectMeta, spec *corev1.PodSpec) {
	if r := g.check(p.Audit, meta, spec); !r.Allowed {
		a.Note(psa.AuditAnnotationPrefix+psa.AuditViolationsAnnotationKey, would(p.Audit, r))
	}
}

func (g *guard) warn(a *store.Admission, p psa.Policy, meta *metav1.ObjectMeta, spec *corev1.PodSpec) {
	if r := g.check(p.Warn, meta, spec); !r.Allowed {
		a.Warn(would(p.Warn, r))
	}
}

func would(level psa.LevelVersion, r policy.AggregateCheckResult) string {
	return fmt.Sprintf("would violate PodSecurity %q: %s", level.String(), r.ForbiddenDetail())
}

func (g *guard) check(level psa.LevelVersion, meta *metav1.ObjectMeta, spec *corev1.PodSpec) policy.AggregateCheckResult {
	if level.Level == psa.LevelPrivileged {
		return policy.AggregateCheckResult{Allowed: true}
	}
	return policy.AggregateCheckResults(g.evaluator().EvaluatePod(level, meta, spec))
}

func (g *guard) exemptClass(spec *corev1.PodSpec) bool {
	return spec.RuntimeClassName != nil && slices.Contains(g.cfg.RuntimeClasses, *spec.RuntimeClassName)
}

// templateOf is what an object makes pods of; nil if it makes none.
func templateOf(obj any) (*metav1.ObjectMeta, *corev1.PodSpec) {
	var t *corev1.PodTemplateSpec
	switch o := obj.(type) {
	case *corev1.PodTemplate:
		t = &o.Template
	case *corev1.ReplicationController:
		t = o.Spec.Template
	case *appsv1.ReplicaSet:
		t = &o.Spec.Template
	case *appsv1.Deployment:
		t = &o.Spec.Template
	case *appsv1.DaemonSet:
		t = &o.Spec.Template
	case *appsv1.StatefulSet:
		t = &o.Spec.Template
	case *batchv1.Job:
		t = &o.Spec.Template
	case *batchv1.CronJob:
		t = &o.Spec.JobTemplate.Spec.Template
	}
	if t == nil {
		return nil, nil
	}
	return &t.ObjectMeta, &t.Spec
}

// matters reports whether an update of a pod changes what the standards are about: its containers and their images.
func matters(newer, older *corev1.Pod) bool {
	if len(newer.Spec.Containers) != len(older.Spec.Containers) || len(newer.Spec.InitContainers) != len(older.Spec.InitContainers) {
		return true
	}
	before := slices.Concat(older.Spec.Containers, older.Spec.InitContainers)
	for i, c := range slices.Concat(newer.Spec.Containers, newer.Spec.InitContainers) {
		if c.Image != before[i].Image {
			return true
		}
	}
	for _, c := range newer.Spec.EphemeralContainers {
		at := slices.IndexFunc(older.Spec.EphemeralContainers, func(o corev1.EphemeralContainer) bool { return o.Name == c.Name })
		if at < 0 || older.Spec.EphemeralContainers[at].Image != c.Image {
			return true
		}
	}
	return false
}
