//go:build cel

package policies

import (
	"context"
	"errors"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/expressions"
	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/store"
)

// Mutate makes the changes that MutatingAdmissionPolicies want. When there are any, settle is called, which is to let the server's own admission see
// what came of it, and those policies that want to are asked once more if the object has changed since.
func (e *Enforcer) Mutate(ctx context.Context, a *store.Admission, settle func() error) error {
	if a.Object == nil {
		return nil
	}
	policies := e.known.policies(a.Reader, mutating)
	if len(policies) == 0 {
		return nil
	}
	r := matching.Of(ctx, a, e.cfg.Scale)
	if r.Shaped() {
		return nil // an object of another kind, which nothing here changes
	}
	seen, changed := map[string]api.Object{}, false
	for _, p := range policies {
		did, err := e.mutate(ctx, a, r, p)
		if err != nil {
			return err
		}
		changed = changed || did
		if p.reinvoke {
			seen[p.name] = a.Object.DeepCopyObject().(api.Object)
		}
	}
	if !changed {
		return nil
	}
	if err := settle(); err != nil {
		return err
	}
	for _, p := range policies {
		if before, ok := seen[p.name]; ok && !reflect.DeepEqual(before, a.Object) {
			if _, err := e.mutate(ctx, a, r, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// mutate makes the changes of one policy.
func (e *Enforcer) mutate(ctx context.Context, a *store.Admission, r *matching.Request, p *policy) (changed bool, err error) {
	var failures []verdict
	fail := func(binding string, err error, reason metav1.StatusReason) {
		failures = append(failures, verdict{expressions.Failure{Message: err.Error(), Reason: reason}, p, binding})
	}
	e.each(r, p, func(binding string, err error) { fail(binding, err, "") }, func(b *binding, kind *api.Kind, params runtime.Object) {
		did, err := e.change(ctx, a, r, p, kind, params)
		changed = changed || did
		if err != nil && !p.ignore {
			fail(b.name, err, metav1.StatusReasonInvalid)
		}
	})
	if len(failures) == 0 {
		return changed, nil
	}
	return changed, refused(r, failures)
}

var errRenamed = errors.New("it wants to change the name of the object")

// change makes a policy's changes, given one parameter.
func (e *Enforcer) change(ctx context.Context, a *store.Admission, r *matching.Request, p *policy, kind *api.Kind, params runtime.Object) (bool, error) {
	subject, err := expressions.NewSubject(r, kind, e.cfg.Authorizer)
	if err != nil {
		return false, err
	}
	merge := func(object, part map[string]any) (map[string]any, error) { return e.cfg.Merge(kind, object, part) }
	changed, err := p.changes.Mutate(ctx, subject, params, merge)
	if err != nil || !changed {
		return false, err
	}
	data, err := subject.Object()
	if err != nil {
		return false, err
	}
	obj, err := matching.Read(kind, data)
	if err != nil {
		return false, err
	}
	if obj.GetName() != r.Name || obj.GetNamespace() != r.Namespace {
		return false, errRenamed
	}
	a.Replace(obj)
	return true, nil
}

// refused is the error of a request that a policy could not change, in upstream's words.
func refused(r *matching.Request, failures []verdict) error {
	err := apierrors.NewForbidden(r.As.GVR().GroupResource(), nameOf(r), errors.New("admission request denied by policy"))
	err.ErrStatus.Message = failures[0].String()
	if reason := failures[0].Reason; reason != "" {
		err.ErrStatus.Reason = reason
	}
	for _, f := range failures {
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: f.String()})
	}
	return err
}
