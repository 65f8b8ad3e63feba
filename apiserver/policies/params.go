//go:build cel

package policies

import (
	"errors"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/store"
)

// each calls do for every binding of a policy that is about a request, and every object that is its parameter: a nil one if it takes none. What is
// wrong with the policy or a binding goes to wrong, unless failures are to be ignored.
func (e *Enforcer) each(r *matching.Request, p *policy, wrong func(binding string, err error), do func(*binding, *api.Kind, runtime.Object)) {
	kind := p.matcher.Match(r)
	switch {
	case kind == nil:
		return
	case p.err != nil:
		if !p.ignore {
			wrong("", fmt.Errorf("failed to configure policy: %w", p.err))
		}
		return
	}
	for _, b := range p.bindings {
		if b.matcher.Match(r) == nil {
			continue
		}
		params, err := e.params(r, p, b)
		if err != nil && !p.ignore {
			wrong(b.name, fmt.Errorf("failed to configure binding: %w", err))
		}
		for _, param := range params {
			do(b, kind, param)
		}
	}
}

var (
	errNoParams     = errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
	errNoNamespace  = errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
	errForNamespace = errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
)

// params are the parameters of a policy that a binding names.
func (e *Enforcer) params(r *matching.Request, p *policy, b *binding) ([]runtime.Object, error) {
	if p.params == nil || b.params == nil {
		return []runtime.Object{nil}, nil
	}
	found, err := e.find(r, p.params, b.params)
	if err != nil {
		return nil, err
	}
	if action := b.params.ParameterNotFoundAction; len(found) == 0 && action != nil && *action == admissionregistrationv1.DenyAction {
		return nil, errNoParams
	}
	return found, nil
}

func (e *Enforcer) find(r *matching.Request, of *admissionregistrationv1.ParamKind, ref *admissionregistrationv1.ParamRef) ([]runtime.Object, error) {
	kind := e.cfg.Kind(schema.FromAPIVersionAndKind(of.APIVersion, of.Kind))
	if kind == nil {
		return nil, fmt.Errorf("paramKind kind `%v` not known", of.String())
	}
	namespace := ref.Namespace
	switch {
	case !kind.Namespaced && namespace != "":
		return nil, errForNamespace
	case kind.Namespaced && namespace == "":
		if namespace = r.Namespace; namespace == "" {
			return nil, errNoNamespace
		}
	}
	resource := kind.Storage().GroupResource()
	var items []store.Item
	if ref.Name != "" {
		if item, ok := r.Reader.Get(store.Key{Resource: resource, Namespace: namespace, Name: ref.Name}); ok {
			items = append(items, item)
		}
	} else {
		items, _ = r.Reader.List(resource, namespace)
	}
	selected, err := metav1.LabelSelectorAsSelector(ref.Selector)
	if err != nil {
		return nil, err
	}
	var found []runtime.Object
	for _, item := range items {
		obj, ok := r.Reader.Object(item)
		if !ok || ref.Name == "" && !selected.Matches(labels.Set(obj.GetLabels())) {
			continue
		}
		shown, err := matching.Show(kind, obj)
		if err != nil {
			return nil, err
		}
		found = append(found, shown)
	}
	return found, nil
}
