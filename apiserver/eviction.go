package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	pdbhelper "k8s.io/component-helpers/apps/poddisruptionbudget"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// maxDisruptedPods bounds the evictions that the budget's controller has not seen yet.
const maxDisruptedPods = 2000

// evictionAttempts bounds how often an eviction begins anew because its pod changes meanwhile.
const evictionAttempts = 20

// serveEviction deletes a pod on behalf of somebody who clears a node, if the pod's disruption budget allows it.
func (s *Server) serveEviction(w http.ResponseWriter, req *request) error {
	var eviction policyv1.Eviction
	if err := s.decode(req, policyv1.SchemeGroupVersion.WithKind("Eviction"), &eviction); err != nil {
		return err
	}
	if eviction.Name != "" && eviction.Name != req.name {
		return errBadRequest("name in URL does not match name in Eviction object")
	}
	opts, err := evictionOptions(req, &eviction)
	if err != nil {
		return err
	}
	eviction.SetGroupVersionKind(policyv1.SchemeGroupVersion.WithKind("Eviction"))
	if err := s.admitSent(req, &eviction, opts.DryRun); err != nil {
		return err
	}
	pinned := opts.Preconditions != nil && opts.Preconditions.ResourceVersion != nil
	for attempt := 1; ; attempt++ {
		err := s.evict(req, opts)
		var again *changedError
		switch {
		case err == nil:
			return s.writeSuccess(w, req, http.StatusCreated, nil)
		case !errors.As(err, &again):
			return err
		case pinned || attempt == evictionAttempts:
			return again.told
		}
	}
}

// changedError says that the pod changed during an attempt; told is what the client is told if there is no further one.
type changedError struct{ told error }

func (e *changedError) Error() string { return e.told.Error() }

func evictionOptions(req *request, eviction *policyv1.Eviction) (*metav1.DeleteOptions, error) {
	opts := eviction.DeleteOptions
	if opts == nil {
		opts = &metav1.DeleteOptions{}
	}
	if ptr.Deref(opts.IgnoreStoreReadErrorWithClusterBreakingPotential, false) {
		path := field.NewPath("deleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential")
		return nil, apierrors.NewInvalid(policyv1.SchemeGroupVersion.WithKind("Eviction").GroupKind(), req.name, field.ErrorList{
			field.Invalid(path, true, "can not be set for pod eviction, try after removing the option"),
		})
	}
	switch asked := req.query["dryRun"]; {
	case len(opts.DryRun) == 0:
		opts.DryRun = asked
	case len(asked) > 0 && !slices.Equal(asked, opts.DryRun):
		return nil, errBadRequest("Non-matching dry-run options in request and content: %v and %v", asked, opts.DryRun)
	}
	return opts, nil
}

// evict makes one attempt.
func (s *Server) evict(req *request, opts *metav1.DeleteOptions) error {
	pod, ok := store.Get[corev1.Pod](s.cfg.Client.Reader(), req.namespace, req.name)
	if !ok {
		// The client itself confirms that there is none.
		_, err := s.cfg.Client.Delete(req.Context(), req.key(), opts.DeepCopy(), store.Hear(req))
		return err
	}
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil
	if ended || pod.Status.Phase == corev1.PodPending {
		return s.remove(req, pod, opts, !ended, nil) // it disrupts nobody: but a pending pod may be running by now
	}
	budget, err := s.budgetOf(pod)
	if err != nil {
		return err
	}
	if budget == nil {
		return s.remove(req, pod, opts, false, nil)
	}
	if !podutil.IsPodReady(pod) && mayGoUnready(budget) {
		return s.remove(req, pod, opts, true, errProcessing(budget.Name))
	}
	if err := s.charge(req, pod, budget, len(opts.DryRun) > 0); err != nil {
		return err
	}
	return s.remove(req, pod, opts, false, nil)
}

// mayGoUnready reports whether a budget lets a pod go that is not ready, and so does not count.
func mayGoUnready(b *policyv1.PodDisruptionBudget) bool {
	return ptr.Deref(b.Spec.UnhealthyPodEvictionPolicy, policyv1.IfHealthyBudget) == policyv1.AlwaysAllow ||
		b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0
}

// budgetOf finds the budget that a pod is under, nil if none.
func (s *Server) budgetOf(pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	var found *policyv1.PodDisruptionBudget
	for _, b := range store.List[policyv1.PodDisruptionBudget](s.cfg.Client.Reader(), pod.Namespace) {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		if found != nil {
			return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
				Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
			}}
		}
		found = b
	}
	return found, nil
}

// charge takes one disruption from a budget, in the name of a pod. The budget's controller counts anew once the pod terminates, or when it
// does not.
func (s *Server) charge(req *request, pod *corev1.Pod, budget *policyv1.PodDisruptionBudget, dryRun bool) error {
	k := store.KeyOf(s.cfg.Client.Reader(), budget)
	var opts []store.Option
	if dryRun {
		opts = append(opts, store.DryRun)
	}
	_, err := s.cfg.Client.Modify(req.Context(), k, "status", func(obj api.Object) error {
		b := obj.(*policyv1.PodDisruptionBudget)
		if err := allows(b); err != nil {
			return err
		}
		if b.Status.DisruptionsAllowed--; b.Status.DisruptionsAllowed == 0 {
			pdbhelper.UpdateDisruptionAllowedCondition(b)
		}
		if b.Status.DisruptedPods == nil {
			b.Status.DisruptedPods = map[string]metav1.Time{}
		}
		b.Status.DisruptedPods[pod.Name] = metav1.NewTime(s.cfg.Now())
		return nil
	}, opts...)
	if apierrors.IsConflict(err) {
		return apierrors.NewTimeoutError(fmt.Sprintf("couldn't update PodDisruptionBudget %q due to conflicts", budget.Name), 10)
	}
	return err
}

// allows reports, in upstream's words, why a budget allows no disruption now.
func allows(b *policyv1.PodDisruptionBudget) error {
	because := func(err *apierrors.StatusError, text string) error {
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: text})
		return err
	}
	resource := policyv1.Resource("poddisruptionbudget")
	notNow := fmt.Sprintf("The disruption budget %s does not allow evicting pods currently", b.Name)
	switch {
	case b.Status.ObservedGeneration < b.Generation:
		return errProcessing(b.Name)
	case b.Status.DisruptionsAllowed < 0:
		return because(apierrors.NewForbidden(resource, b.Name, errors.New("pdb disruptions allowed is negative")),
			notNow+": pdb disruptions allowed is negative")
	case len(b.Status.DisruptedPods) > maxDisruptedPods:
		return because(apierrors.NewForbidden(resource, b.Name, errors.New("DisruptedPods map too big - too many evictions not confirmed by PDB controller")),
			notNow+": too many pending evictions not confirmed by PDB controller")
	case b.Status.DisruptionsAllowed > 0:
		return nil
	}
	refused := apierrors.NewTooManyRequests(errBudget, 0)
	c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition)
	told := c != nil && c.Status == metav1.ConditionFalse && c.Message != ""
	switch {
	case told && c.Reason == policyv1.SyncFailedReason:
		return because(refused, fmt.Sprintf("%s because it failed sync: %s", notNow, c.Message))
	case b.Status.CurrentHealthy <= b.Status.DesiredHealthy:
		return because(refused, fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently",
			b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy))
	case told:
		return because(refused, fmt.Sprintf("%s (%s): %s", notNow, c.Reason, c.Message))
	}
	return because(refused, notNow)
}

const errBudget = "Cannot evict pod as it would violate the pod's disruption budget."

// errProcessing tells to come again when the budget's controller has caught up.
func errProcessing(name string) error {
	err := apierrors.NewTooManyRequests(errBudget, 10)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf("The disruption budget %s is still being processed by the server.", name),
	})
	return err
}

// remove notes in the pod why it goes, and deletes it; as it was seen, if it must not have become ready meanwhile. busy is what the client is
// told if it changes again and again; nil: the conflict.
func (s *Server) remove(req *request, pod *corev1.Pod, opts *metav1.DeleteOptions, asSeen bool, busy error) error {
	opts = opts.DeepCopy()
	if opts.Preconditions == nil {
		opts.Preconditions = &metav1.Preconditions{}
	}
	pinned := opts.Preconditions.ResourceVersion != nil
	if asSeen && !pinned {
		opts.Preconditions.ResourceVersion = &pod.ResourceVersion
	}
	err := s.noteEviction(req.Context(), req.key(), opts)
	if err == nil {
		_, err = s.cfg.Client.Delete(req.Context(), req.key(), opts, store.Hear(req))
	}
	if apierrors.IsConflict(err) {
		if busy == nil || pinned {
			busy = err
		}
		return &changedError{busy}
	}
	return err
}

// noteEviction adds the condition by which controllers know a pod that was evicted. What the preconditions say is of the pod before.
func (s *Server) noteEviction(ctx context.Context, k store.Key, opts *metav1.DeleteOptions) error {
	if len(opts.DryRun) > 0 {
		return nil
	}
	p := opts.Preconditions
	noted, err := s.cfg.Client.Modify(ctx, k, "status", func(obj api.Object) error {
		pod := obj.(*corev1.Pod)
		if uid := ptr.Deref(p.UID, ""); uid != "" && uid != pod.UID {
			return apierrors.NewConflict(corev1.Resource("Pod"), pod.Name, fmt.Errorf("the UID in the precondition (%s) does not match "+
				"the UID in record (%s). The object might have been deleted and then recreated", uid, pod.UID))
		}
		if rv := ptr.Deref(p.ResourceVersion, ""); rv != "" && rv != pod.ResourceVersion {
			return apierrors.NewConflict(corev1.Resource("Pod"), pod.Name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match "+
				"the ResourceVersion in record (%s). The object might have been modified", rv, pod.ResourceVersion))
		}
		podutil.UpdatePodCondition(&pod.Status, &corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
		})
		return nil
	})
	if err == nil && p.ResourceVersion != nil {
		p.ResourceVersion = ptr.To(noted.GetResourceVersion())
	}
	return err
}
