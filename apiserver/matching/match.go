package matching

import (
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/store"
)

// Rule is one of the kinds of requests that somebody wants to have a say in.
type Rule = admissionregistrationv1.NamedRuleWithOperations

// Matcher says which requests somebody wants to have a say in. The zero value wants none.
type Matcher struct {
	rules, exclude      []Rule
	everything          bool // where there are no rules
	exact               bool
	namespaces, objects labels.Selector
}

// New compiles rules and selectors. Without a policy, a rule is about other versions of what it names, too.
func New(rules []admissionregistrationv1.RuleWithOperations, policy *admissionregistrationv1.MatchPolicyType, namespaces, objects *metav1.LabelSelector) *Matcher {
	m := &Matcher{exact: exact(policy), namespaces: selector(namespaces), objects: selector(objects)}
	for _, rule := range rules {
		m.rules = append(m.rules, Rule{RuleWithOperations: rule})
	}
	return m
}

// NewResources compiles what a policy or its binding says. None, and one without rules, is about every request.
func NewResources(r *admissionregistrationv1.MatchResources) *Matcher {
	if r == nil {
		return &Matcher{everything: true, namespaces: labels.Everything(), objects: labels.Everything()}
	}
	return &Matcher{
		rules: r.ResourceRules, exclude: r.ExcludeResourceRules, everything: len(r.ResourceRules) == 0, exact: exact(r.MatchPolicy),
		namespaces: selector(r.NamespaceSelector), objects: selector(r.ObjectSelector),
	}
}

func exact(p *admissionregistrationv1.MatchPolicyType) bool {
	return p != nil && *p == admissionregistrationv1.Exact
}

// selector compiles a selector; none selects everything. They were validated, so one that does not compile selects nothing.
func selector(s *metav1.LabelSelector) labels.Selector {
	if s == nil {
		return labels.Everything()
	}
	compiled, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return compiled
}

// Match finds in which version somebody wants to see a request; nil if he does not.
//
// Who asks for one version of a kind also hears of requests in another one, in the version that he asked for, unless he wants exact
// matches only.
func (m *Matcher) Match(r *Request) *api.Kind {
	if r.As.GVK.Group == admissionregistrationv1.GroupName || !m.inNamespace(r) || !m.ofObject(r) {
		return nil // who is asked must be changeable without asking him
	}
	if m.find(r, m.exclude) != nil {
		return nil
	}
	if m.everything {
		return r.As
	}
	return m.find(r, m.rules)
}

func (m *Matcher) find(r *Request, rules []Rule) *api.Kind {
	if len(rules) == 0 {
		return nil
	}
	if covers(rules, r, r.As) {
		return r.As
	}
	if m.exact {
		return nil
	}
	for _, other := range versions(r.As.Storage()) {
		if other != r.As && covers(rules, r, other) {
			return other
		}
	}
	return nil
}

// versions are all versions of a kind that are served.
func versions(stored *api.Kind) []*api.Kind {
	var all []*api.Kind
	if v := custom.Of(stored); v != nil {
		for _, other := range v.Definition.Served {
			all = append(all, other.Kind)
		}
		return all
	}
	for _, kind := range api.Served() {
		if kind.Storage() == stored {
			all = append(all, kind)
		}
	}
	return all
}

func (m *Matcher) inNamespace(r *Request) bool {
	if m.namespaces.Empty() {
		return true
	}
	if namespace, ok := r.subject().(*corev1.Namespace); ok && r.Sub == "" {
		return m.namespaces.Matches(labels.Set(namespace.Labels))
	}
	if r.Namespace == "" {
		return true
	}
	namespace, ok := store.Get[corev1.Namespace](r.Reader, "", r.Namespace)
	return ok && m.namespaces.Matches(labels.Set(namespace.Labels))
}

func (m *Matcher) ofObject(r *Request) bool {
	if m.objects.Empty() {
		return true
	}
	for _, obj := range []api.Object{r.Object, r.Old} {
		if obj != nil && m.objects.Matches(labels.Set(obj.GetLabels())) {
			return true
		}
	}
	return false
}

// covers reports whether one of the rules is about the request, were it in some version.
func covers(rules []Rule, r *Request, kind *api.Kind) bool {
	for _, rule := range rules {
		switch {
		case !has(rule.Operations, admissionregistrationv1.OperationType(r.Operation)),
			!has(rule.APIGroups, kind.GVK.Group), !has(rule.APIVersions, kind.GVK.Version),
			rule.Scope != nil && *rule.Scope == admissionregistrationv1.NamespacedScope && !kind.Namespaced,
			rule.Scope != nil && *rule.Scope == admissionregistrationv1.ClusterScope && kind.Namespaced,
			len(rule.ResourceNames) > 0 && !slices.Contains(rule.ResourceNames, r.Name):
			continue
		}
		for _, pattern := range rule.Resources {
			resource, sub, _ := strings.Cut(pattern, "/")
			if (resource == "*" || resource == kind.Resource) && (sub == "*" || sub == r.Sub) {
				return true
			}
		}
	}
	return false
}

func has[T ~string](all []T, one T) bool {
	return slices.Contains(all, one) || slices.Contains(all, "*")
}
