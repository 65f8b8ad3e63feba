package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/shoal-edge/shoal/store"
)

// limitRangerNote is the annotation that tells what a limit range has set in a pod.
const limitRangerNote = "kubernetes.io/limit-ranger"

// limitRanger fills in the requests and limits that a namespace's limit ranges say, and refuses pods and claims that do not keep to
// them. Every limit range counts.
func limitRanger() Plugin {
	return Plugin{
		Name: "LimitRanger",
		Admit: func(_ context.Context, a *store.Admission) error {
			pod, ok := a.Object.(*corev1.Pod)
			if !ok || !isLimited(a) {
				return nil
			}
			for _, limits := range store.List[corev1.LimitRange](a.Reader, pod.Namespace) {
				setLimits(pod, limits)
			}
			return nil
		},
		Review: func(_ context.Context, a *store.Admission) error {
			if !isLimited(a) {
				return nil
			}
			for _, limits := range store.List[corev1.LimitRange](a.Reader, a.Object.GetNamespace()) {
				var errs []error
				switch obj := a.Object.(type) {
				case *corev1.Pod:
					errs = checkPod(obj, limits)
				case *corev1.PersistentVolumeClaim:
					errs = checkClaim(obj, limits)
				}
				if err := utilerrors.NewAggregate(errs); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// isLimited tells the writes that set or change what limit ranges are about. What is terminating is left alone.
func isLimited(a *store.Admission) bool {
	if a.Operation == store.OpDelete || a.Old != nil && a.Old.GetDeletionTimestamp() != nil {
		return false
	}
	switch a.Object.(type) {
	case *corev1.Pod:
		return a.Operation == store.OpCreate && a.Subresource == "" || a.Operation == store.OpUpdate && a.Subresource == "resize"
	case *corev1.PersistentVolumeClaim:
		return a.Subresource == ""
	}
	return false
}

// setLimits fills in what the containers of a pod leave open.
func setLimits(pod *corev1.Pod, limits *corev1.LimitRange) {
	requests, upper := corev1.ResourceList{}, corev1.ResourceList{}
	for _, l := range limits.Spec.Limits {
		if l.Type == corev1.LimitTypeContainer {
			maps.Copy(requests, l.DefaultRequest)
			maps.Copy(upper, l.Default)
		}
	}
	var notes []string
	fill := func(list *corev1.ResourceList, standard corev1.ResourceList, what, container string) {
		var set []string
		for _, name := range slices.Sorted(maps.Keys(standard)) {
			if _, there := (*list)[name]; there {
				continue
			}
			if *list == nil {
				*list = corev1.ResourceList{}
			}
			(*list)[name] = standard[name].DeepCopy()
			set = append(set, string(name))
		}
		if len(set) > 0 {
			notes = append(notes, fmt.Sprintf("%s %s for %s", strings.Join(set, ", "), what, container))
		}
	}
	for _, part := range []struct {
		containers []corev1.Container
		what       string
	}{{pod.Spec.Containers, "container "}, {pod.Spec.InitContainers, "init container "}} {
		for i := range part.containers {
			c := &part.containers[i]
			fill(&c.Resources.Requests, requests, "request", part.what+c.Name)
			fill(&c.Resources.Limits, upper, "limit", part.what+c.Name)
		}
	}
	if len(notes) == 0 {
		return
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[limitRangerNote] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
}

func checkPod(pod *corev1.Pod, limits *corev1.LimitRange) []error {
	var errs []error
	for i := range limits.Spec.Limits {
		l := &limits.Spec.Limits[i]
		switch l.Type {
		case corev1.LimitTypeContainer:
			for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
				errs = append(errs, checkLimits(l, c.Resources.Requests, c.Resources.Limits)...)
			}
		case corev1.LimitTypePod:
			opts := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
			errs = append(errs, checkLimits(l, resourcehelper.PodRequests(pod, opts), resourcehelper.PodLimits(pod, opts))...)
		}
	}
	return errs
}

func checkLimits(l *corev1.LimitRangeItem, requests, limits corev1.ResourceList) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(l.Min)) {
		errs = append(errs, checkMin(l, name, requests, limits))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Max)) {
		errs = append(errs, checkMax(l, name, requests, limits))
	}
	for _, name := range slices.Sorted(maps.Keys(l.MaxLimitRequestRatio)) {
		errs = append(errs, checkRatio(l, name, requests, limits))
	}
	return errs
}

func checkClaim(claim *corev1.PersistentVolumeClaim, limits *corev1.LimitRange) []error {
	var errs []error
	requests := claim.Spec.Resources.Requests
	for i := range limits.Spec.Limits {
		l := &limits.Spec.Limits[i]
		if l.Type != corev1.LimitTypePersistentVolumeClaim {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(l.Min)) {
			errs = append(errs, checkMin(l, name, requests, nil))
		}
		for _, name := range slices.Sorted(maps.Keys(l.Max)) {
			request, ok := requests[name]
			most := l.Max[name]
			switch {
			case !ok:
				errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s.  No request is specified", name, l.Type, most.String()))
			case request.Cmp(most) > 0:
				errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, l.Type, most.String(), request.String()))
			}
		}
	}
	return errs
}

func checkMin(l *corev1.LimitRangeItem, name corev1.ResourceName, requests, limits corev1.ResourceList) error {
	request, requested := requests[name]
	limit, limited := limits[name]
	least := l.Min[name]
	switch {
	case !requested:
		return fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", name, l.Type, least.String())
	case request.Cmp(least) < 0:
		return fmt.Errorf("minimum %s usage per %s is %s, but request is %s", name, l.Type, least.String(), request.String())
	case limited && limit.Cmp(least) < 0:
		return fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", name, l.Type, least.String(), limit.String())
	}
	return nil
}

func checkMax(l *corev1.LimitRangeItem, name corev1.ResourceName, requests, limits corev1.ResourceList) error {
	request, requested := requests[name]
	limit, limited := limits[name]
	most := l.Max[name]
	switch {
	case !limited:
		return fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", name, l.Type, most.String())
	case limit.Cmp(most) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", name, l.Type, most.String(), limit.String())
	case requested && request.Cmp(most) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, l.Type, most.String(), request.String())
	}
	return nil
}

// checkRatio compares limit/request with what is allowed, in thousandths where they do not overflow, as upstream does.
func checkRatio(l *corev1.LimitRangeItem, name corev1.ResourceName, requests, limits corev1.ResourceList) error {
	most := l.MaxLimitRequestRatio[name]
	request, limit := requests[name], limits[name]
	switch {
	case request.IsZero():
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", name, l.Type, most.String())
	case limit.IsZero():
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", name, l.Type, most.String())
	}
	r, m := float64(request.Value()), float64(limit.Value())
	if request.Value() <= resource.MaxMilliValue && limit.Value() <= resource.MaxMilliValue && most.Value() <= resource.MaxMilliValue {
		r, m = float64(request.MilliValue()), float64(limit.MilliValue())
	}
	allowed := float64(most.Value())
	if most.Value() <= resource.MaxMilliValue {
		allowed = float64(most.MilliValue()) / 1000
	}
	if m/r > allowed {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", name, l.Type, most.String(), m/r)
	}
	return nil
}
