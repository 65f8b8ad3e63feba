package controllers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// A circle of owners that wait for each other ends all the same when one of them is deleted in the foreground.
func TestCirclesAreDeleted(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		names := []string{"a", "b", "c"}
		for _, name := range names {
			c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
		}
		for i, name := range names {
			owner, _ := store.Get[corev1.ConfigMap](c.durable, "default", names[(i+2)%3])
			c.modify(key(configMaps, "default", name), "", func(o api.Object) {
				o.SetOwnerReferences([]metav1.OwnerReference{{
					APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID, Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true),
				}})
			})
		}
		c.after(time.Second)
		c.delete(key(configMaps, "default", "a"), metav1.DeletePropagationForeground)
		c.after(10 * time.Second)
		for _, name := range names {
			if c.exists(key(configMaps, "default", name)) {
				t.Errorf("%s is still there", name)
			}
		}
	})
}

// A namespace that ends deletes its pods first, and its conditions say what it waits for.
func TestNamespacesDeletePodsFirst(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
		c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "settings"}})
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p", Finalizers: []string{"example.com/hold"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "app"}}},
		}
		c.create(pod)
		c.after(10 * time.Second)
		c.delete(key(namespaces, "", "shop"))
		c.after(time.Minute)
		if !c.exists(key(pods, "shop", "p")) || !c.exists(key(configMaps, "shop", "settings")) {
			t.Fatal("the pod, or what it may use, is gone")
		}
		ns, _ := store.Get[corev1.Namespace](c.durable, "", "shop")
		got := map[string]string{}
		for _, condition := range ns.Status.Conditions {
			got[string(condition.Type)+" "+string(condition.Status)] = condition.Message
		}
		want := map[string]string{
			"NamespaceDeletionDiscoveryFailure False":           "All resources successfully discovered",
			"NamespaceDeletionGroupVersionParsingFailure False": "All legacy kube types successfully parsed",
			"NamespaceDeletionContentFailure False":             "All content successfully deleted, may be waiting on finalization",
			"NamespaceContentRemaining True":                    "Some resources are remaining: pods. has 1 resource instances",
			"NamespaceFinalizersRemaining True":                 "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		quiet, _ := c.durable.Get(key(namespaces, "", "shop"))
		c.after(time.Minute)
		if now, _ := c.durable.Get(key(namespaces, "", "shop")); now.Revision != quiet.Revision {
			t.Error("it is written though nothing of it has changed")
		}
		c.modify(key(pods, "shop", "p"), "", func(o api.Object) { o.SetFinalizers(nil) })
		c.after(time.Minute)
		if c.exists(key(namespaces, "", "shop")) || c.exists(key(configMaps, "shop", "settings")) {
			t.Error("the namespace, or something in it, is still there")
		}
	})
}
