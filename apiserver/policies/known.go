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
	spec     *admissionregistrationv1.ValidatingAdmissionPolicySpec
	matcher  *matching.Matcher
	compiled *expressions.Policy
	err      error // why it could not be compiled
	bindings []*binding
}

type binding struct {
	*admissionregistrationv1.ValidatingAdmissionPolicyBinding
	matcher *matching.Matcher
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

const (
	policyResource  = "validatingadmissionpolicies.admissionregistration.k8s.io"
	bindingResource = "validatingadmissionpolicybindings.admissionregistration.k8s.io"
	// maxCompiled bounds what is kept, of deleted policies, too.
	maxCompiled = 512
)

// policies are those that are bound, sorted by name.
func (k *known) policies(r store.Reader) []*policy {
	bound, _ := r.List(bindingResource, "")
	if len(bound) == 0 {
		return nil
	}
	stored, _ := r.List(policyResource, "")
	k.mu.Lock()
	defer k.mu.Unlock()
	by := map[string][]*binding{}
	for _, item := range bound {
		if b := k.get(r, item).binding; b != nil {
			by[b.Spec.PolicyName] = append(by[b.Spec.PolicyName], b)
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
		c.policy = &policy{name: o.Name, spec: &o.Spec, matcher: matching.NewResources(o.Spec.MatchConstraints)}
		c.policy.compiled, c.policy.err = expressions.CompilePolicy(o.Name, &o.Spec)
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		c.binding = &binding{o, matching.NewResources(o.Spec.MatchResources)}
	}
	k.compiled[item.Key] = c
	return c
}
