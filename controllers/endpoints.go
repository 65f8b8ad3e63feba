package controllers

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"github.com/shoal-edge/shoal/store"
)

const (
	// maxSliceEndpoints and maxAddresses are upstream's bounds of an EndpointSlice and of an Endpoints object.
	maxSliceEndpoints = 100
	maxAddresses      = 1000
	// slicesBy and endpointsBy are the names under which upstream's controllers keep these objects: others leave them alone.
	slicesBy    = "endpointslice-controller.k8s.io"
	endpointsBy = "endpoint-controller"
	// managedEndpoints is the label of an Endpoints object with that name.
	managedEndpoints = "endpoints.kubernetes.io/managed-by"
	// overCapacity is the annotation of an Endpoints object that has not all.
	overCapacity = "endpoints.kubernetes.io/over-capacity"
)

// addEndpoints keeps, for every Service that selects pods, which of them are behind it: as EndpointSlices, and as an Endpoints object for
// programs of yesterday.
func (c *Controllers) addEndpoints() {
	l := c.newLoop("endpoints", 1, func(ctx context.Context, k store.Key) (time.Duration, error) {
		err := c.keepEndpoints(ctx, k)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			err = nil // nothing new comes into a namespace that goes
		}
		return 0, err
	})
	c.follow(services, "", keys(l))
	own := reader{changed: func(ch *change) {
		if name := ch.metadata().Labels[discoveryv1.LabelServiceName]; name != "" {
			l.add(key(services, ch.Item.Key.Namespace, name))
		}
	}}
	c.follow(endpointSlices, "", own)
	c.follow(endpoints, "", reader{changed: func(ch *change) { l.add(key(services, ch.Item.Key.Namespace, ch.Item.Key.Name)) }})

	seen := map[store.Key]facts{}
	pod := each(func(pod *corev1.Pod, deleted bool) {
		k := key(pods, pod.Namespace, pod.Name)
		before, known := seen[k]
		now := factsOf(pod)
		if deleted {
			delete(seen, k)
		} else if seen[k] = now; known && before == now {
			return
		}
		for _, s := range store.List[corev1.Service](c.reader, pod.Namespace) {
			if known && before.labels != now.labels || labels.SelectorFromValidatedSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				l.add(key(services, s.Namespace, s.Name))
			}
		}
	})
	pod.relist = func() { clear(seen) }
	c.follow(pods, "", pod)
}

// facts is what endpoints show of a pod, as far as needed to see whether it has changed.
type facts struct{ labels, rest uint64 }

func factsOf(pod *corev1.Pod) facts {
	sum := func(parts ...string) uint64 {
		h := fnv.New64a()
		for _, part := range parts {
			_, _ = h.Write(append([]byte(part), 0)) // a hash takes everything
		}
		return h.Sum64()
	}
	rest := []string{pod.Spec.NodeName, pod.Spec.Hostname, pod.Spec.Subdomain, string(pod.UID), fmt.Sprint(behind(pod), podutil.IsPodReady(pod), pod.DeletionTimestamp != nil)}
	for _, ip := range pod.Status.PodIPs {
		rest = append(rest, ip.IP)
	}
	return facts{sum(labels.Set(pod.Labels).String()), sum(rest...)}
}

// behind reports whether a pod can be behind a service, now or when it is ready.
func behind(pod *corev1.Pod) bool {
	return pod.Status.PodIP != "" && !ended(pod)
}

func (c *Controllers) keepEndpoints(ctx context.Context, k store.Key) error {
	service, ok := store.Get[corev1.Service](c.reader, k.Namespace, k.Name)
	switch {
	case !ok:
		return c.dropEndpoints(ctx, k) // its slices are garbage
	case len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName || service.DeletionTimestamp != nil:
		return nil
	}
	chosen := labels.SelectorFromValidatedSet(service.Spec.Selector)
	var matching []*corev1.Pod
	for _, pod := range store.List[corev1.Pod](c.reader, k.Namespace) {
		if behind(pod) && chosen.Matches(labels.Set(pod.Labels)) {
			matching = append(matching, pod)
		}
	}
	groups := groupsOf(service, matching)
	if err := c.keepSlices(ctx, service, groups); err != nil {
		return err
	}
	return ensure(ctx, c, endpointsFor(service, groups), func(have, want *corev1.Endpoints) bool {
		if equality.Semantic.DeepEqual(have.Subsets, want.Subsets) && maps.Equal(have.Labels, want.Labels) &&
			have.Annotations[overCapacity] == want.Annotations[overCapacity] {
			return false
		}
		have.Subsets, have.Labels = want.Subsets, want.Labels
		if have.Annotations == nil {
			have.Annotations = map[string]string{}
		}
		delete(have.Annotations, overCapacity)
		maps.Copy(have.Annotations, want.Annotations)
		return true
	})
}

// dropEndpoints deletes the Endpoints object of a service that has gone, if it was kept here.
func (c *Controllers) dropEndpoints(ctx context.Context, k store.Key) error {
	list, ok := store.Get[corev1.Endpoints](c.reader, k.Namespace, k.Name)
	if !ok || list.Labels[managedEndpoints] != endpointsBy {
		return nil
	}
	_, err := c.client.Delete(ctx, key(endpoints, k.Namespace, k.Name), &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &list.UID}})
	return ignoreGone(err)
}

// keepSlices brings the slices of a service to what its groups say. Their names say what is in them, so a new leader goes on with them.
func (c *Controllers) keepSlices(ctx context.Context, service *corev1.Service, groups []*group) error {
	wanted := map[string]bool{}
	for _, slice := range slicesFor(service, groups) {
		wanted[slice.Name] = true
		if err := ensure(ctx, c, slice, func(have, want *discoveryv1.EndpointSlice) bool {
			if equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) && equality.Semantic.DeepEqual(have.Ports, want.Ports) &&
				maps.Equal(have.Labels, want.Labels) {
				return false
			}
			have.Endpoints, have.Ports, have.Labels = want.Endpoints, want.Ports, want.Labels
			return true
		}); err != nil {
			return fmt.Errorf("keep the endpoints: %w", err)
		}
	}
	for _, slice := range store.ListBy[discoveryv1.EndpointSlice](c.reader, "owner", string(service.UID)) {
		if slice.Labels[discoveryv1.LabelManagedBy] != slicesBy || wanted[slice.Name] {
			continue
		}
		if _, err := c.client.Delete(ctx, key(endpointSlices, slice.Namespace, slice.Name), nil); ignoreGone(err) != nil {
			return fmt.Errorf("drop endpoints: %w", err)
		}
	}
	return nil
}
