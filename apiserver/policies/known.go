//go:build cel

package policies

import (
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/shoal-edge/shoal/apiserver/expressions"
	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/store"
)

// policy is a policy that is bound.
type policy struct {
	name     string
	kind     string
	params   *admissionregistrationv1.ParamKind
	ignore   bool // failures
	reinvoke bool // when something later has changed the object
	matcher  *matching.Matcher
	bindings []*binding

	// tests are those of a policy that validates, changes of one that mutates.
	tests   *expressions.Policy
	changes *expressions.Mutations
	err     error // why it could not be compiled
}

type binding struct {
	name, policy string
	params       *admissionregistrationv1.ParamRef
	actions      []admissionregistrationv1.ValidationAction
	matcher      *matching.Matcher
}

// known keeps what was compiled until it changes.
type known struct {
	mu       sync.Mutex
	compiled map[store.Key]compiled
}

// compiled is a policy or a binding.
type compiled struct {
	revision uint64
	policy   *policy
	binding  *binding
}

// Where policies and their bindings are.
const (
	validating = "validatingadmissionpolic"
	mutating   = "mutatingadmissionpolic"
	// maxCompiled bounds what is kept, of deleted policies, too.
	maxCompiled = 512
)

// policies are those of one kind that are bound, sorted by name.
func (k *known) policies(r store.Reader, kind string) []*policy {
	bound, _ := r.List(kind+"ybindings."+admissionregistrationv1.GroupName, "")
	if len(bound) == 0 {
		return nil
	}
	stored, _ := r.List(kind+"ies."+admissionregistrationv1.GroupName, "")
	k.mu.Lock()
	defer k.mu.Unlock()
	by := map[string][]*binding{}
	for _, item := range bound {
		if b := k.get(r, item).binding; b != nil {
			by[b.policy] = append(by[b.policy], b)
		}
	}
	var all []*policy
	for _, item := range stored {
		p := k.get(r, item).policy
		if p == nil || len(by[p.name]) == 0 {
			continue
		}
		with := *p
		with.bindings = by[p.name]
		all = append(all, &with)
	}
	return all
}

func (k *known) get(r store.Reader, item store.Item) compiled {
	if c, ok := k.compiled[item.Key]; ok && c.revision == item.Revision {
		return c
	}
	if len(k.compiled) >= maxCompiled || k.compiled == nil {
		k.compiled = map[store.Key]compiled{} // most of them are gone
	}
	c := compiled{revision: item.Revision}
	obj, _ := r.Object(item)
	switch o := obj.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		s := &o.Spec
		c.policy = newPolicy("ValidatingAdmissionPolicy", o.Name, s.ParamKind, s.FailurePolicy, s.MatchConstraints)
		c.policy.tests, c.policy.err = expressions.CompilePolicy(o.Name, s)
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		s := &o.Spec
		c.policy = newPolicy("policy", o.Name, s.ParamKind, s.FailurePolicy, s.MatchConstraints) // it is called so in refusals
		c.policy.reinvoke = s.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy
		c.policy.changes, c.policy.err = expressions.CompileMutations(o.Name, s)
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		s := &o.Spec
		c.binding = &binding{o.Name, s.PolicyName, s.ParamRef, s.ValidationActions, matching.NewResources(s.MatchResources)}
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		s := &o.Spec
		c.binding = &binding{o.Name, s.PolicyName, s.ParamRef, nil, matching.NewResources(s.MatchResources)}
	}
	k.compiled[item.Key] = c
	return c
}

func newPolicy(
	kind, name string, params *admissionregistrationv1.ParamKind, failure *admissionregistrationv1.FailurePolicyType,
	matches *admissionregistrationv1.MatchResources,
) *policy {
	return &policy{
		name: name, kind: kind, params: params, matcher: matching.NewResources(matches),
		ignore: failure != nil && *failure == admissionregistrationv1.Ignore,
	}
}
