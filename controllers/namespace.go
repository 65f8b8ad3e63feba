package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// What every namespace holds: pods run as the one and trust the API server by the other.
const (
	defaultAccount = "default"
	rootCA         = "kube-root-ca.crt"
	rootCAKey      = "ca.crt"
)

// lookAgain is how often a namespace that ends is looked at while objects with finalizers or terminating pods remain; what
// goes away wakes it, too.
const lookAgain = 5 * time.Second

// namespaceLoop fills new namespaces and empties those that end.
type namespaceLoop struct {
	c    *Controllers
	loop *loop

	mu     sync.Mutex
	ending map[string]bool
}

// systemNamespaces exist in every cluster.
func systemNamespaces() []string {
	return []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}
}

func (c *Controllers) addNamespaces() {
	n := &namespaceLoop{c: c, ending: map[string]bool{}}
	n.loop = c.newLoop("namespace", 2, n.reconcile)
	for _, name := range systemNamespaces() {
		n.loop.add(key(namespaces, "", name))
	}
	c.follow(namespaces, "", keys(n.loop))
	watched := map[string]string{serviceAccounts: defaultAccount, configMaps: rootCA}
	for _, kind := range api.Kinds() {
		resource := kind.GroupResource()
		if !kind.Namespaced || resource == leases || resource == events {
			continue // those that are not there at start-up, or come and go too often, are looked at again instead
		}
		c.follow(resource, "", reader{changed: func(ch *change) {
			if ch.Item.Key.Name == watched[resource] || ch.deleted() && n.isEnding(ch.Item.Key.Namespace) {
				n.loop.add(key(namespaces, "", ch.Item.Key.Namespace))
			}
		}})
	}
	c.custom.readers = append(c.custom.readers, reader{changed: func(ch *change) {
		if ch.deleted() && n.isEnding(ch.Item.Key.Namespace) {
			n.loop.add(key(namespaces, "", ch.Item.Key.Namespace))
		}
	}})
}

func (n *namespaceLoop) isEnding(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ending[name]
}

func (n *namespaceLoop) setEnding(name string, ending bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ending {
		n.ending[name] = true
	} else {
		delete(n.ending, name)
	}
}

func (n *namespaceLoop) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	namespace, ok := store.Get[corev1.Namespace](n.c.reader, "", k.Name)
	n.setEnding(k.Name, ok && namespace.DeletionTimestamp != nil)
	switch {
	case !ok && slices.Contains(systemNamespaces(), k.Name):
		_, err := n.c.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: k.Name}})
		return 0, ignoreExists(err)
	case !ok:
		return 0, nil
	case namespace.DeletionTimestamp != nil:
		return n.end(ctx, namespace)
	}
	return 0, n.fill(ctx, k.Name)
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (n *namespaceLoop) fill(ctx context.Context, namespace string) error {
	if _, ok := n.c.reader.Get(key(serviceAccounts, namespace, defaultAccount)); !ok {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: defaultAccount}}
		if _, err := n.c.client.Create(ctx, account); ignoreExists(err) != nil {
			return fmt.Errorf("create the default service account: %w", err)
		}
	}
	data := map[string]string{rootCAKey: string(n.c.cfg.CA)}
	existing, ok := store.Get[corev1.ConfigMap](n.c.reader, namespace, rootCA)
	switch {
	case !ok:
		made := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: rootCA, Annotations: map[string]string{
				"kubernetes.io/description": "The certificate authority by which clients know this cluster's API servers.",
			}},
			Data: data,
		}
		if _, err := n.c.client.Create(ctx, made); ignoreExists(err) != nil {
			return fmt.Errorf("create %s: %w", rootCA, err)
		}
	case !maps.Equal(existing.Data, data):
		_, err := n.c.client.Modify(ctx, key(configMaps, namespace, rootCA), "", func(object api.Object) error {
			object.(*corev1.ConfigMap).Data = data
			return nil
		})
		if err != nil {
			return fmt.Errorf("restore %s: %w", rootCA, err)
		}
	}
	return nil
}

// end deletes what a namespace holds, then lets the namespace go.
func (n *namespaceLoop) end(ctx context.Context, namespace *corev1.Namespace) (time.Duration, error) {
	if len(namespace.Spec.Finalizers) == 0 {
		return 0, nil
	}
	left, err := n.clear(ctx, namespace.Name)
	if err != nil || len(left.resources) > 0 {
		return lookAgain, errors.Join(err, n.tell(ctx, namespace, left, err))
	}
	_, err = n.c.client.Modify(ctx, key(namespaces, "", namespace.Name), "finalize", func(object api.Object) error {
		spec := &object.(*corev1.Namespace).Spec
		spec.Finalizers = slices.DeleteFunc(spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
		return nil
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("finalize: %w", err)
	}
	return 0, nil
}

// clear deletes what a namespace holds: its pods first, and when they are gone the rest, which pods may still have been using
// (https://kep.k8s.io/5080).
func (n *namespaceLoop) clear(ctx context.Context, namespace string) (remains, error) {
	left := remains{resources: map[string]int{}, finalizers: map[string]int{}}
	err := n.clearKind(ctx, pods, namespace, &left)
	if err != nil || len(left.resources) > 0 {
		return left, err
	}
	for _, kind := range n.c.kinds() {
		if kind.Namespaced {
			err = errors.Join(err, n.clearKind(ctx, kind.GroupResource(), namespace, &left))
		}
	}
	return left, err
}

func (n *namespaceLoop) clearKind(ctx context.Context, resource, namespace string, left *remains) error {
	items, err := n.c.empty(ctx, resource, namespace)
	if len(items) > 0 {
		left.resources[resource] = len(items)
	}
	for _, item := range items {
		for _, finalizer := range metaOf(item.Value).Finalizers {
			left.finalizers[finalizer]++
		}
	}
	return err
}

// empty deletes all objects of a resource, in one namespace or in all, and returns those that are still there.
func (c *Controllers) empty(ctx context.Context, resource, namespace string) ([]store.Item, error) {
	items, _ := c.reader.List(resource, namespace)
	for _, item := range items {
		if metaOf(item.Value).DeletionTimestamp != nil {
			continue
		}
		if _, err := c.client.Delete(ctx, item.Key, nil); err != nil && !apierrors.IsNotFound(err) {
			return items, fmt.Errorf("delete %s: %w", item.Key, err)
		}
	}
	remaining, _ := c.reader.List(resource, namespace)
	return remaining, nil
}
