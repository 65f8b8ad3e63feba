package controllers

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

func TestDeletionPropagates(t *testing.T) {
	web := key(deployments, "default", "web")
	t.Run("background", func(t *testing.T) {
		inCluster(t, 2, func(c *cluster) {
			c.create(newDeployment("web", 2))
			c.after(5 * time.Second)
			c.delete(web)
			c.after(5 * time.Second)
			if n := len(c.pods()) + c.durable.Len(replicaSets); n != 0 {
				t.Errorf("%d dependents are left", n)
			}
		})
	})
	t.Run("foreground", func(t *testing.T) {
		inCluster(t, 2, func(c *cluster) {
			c.create(newDeployment("web", 2))
			c.after(5 * time.Second)
			c.delete(web, metav1.DeletePropagationForeground)
			c.settle()
			if !c.exists(web) || c.durable.Len(replicaSets) != 1 || len(c.pods()) != 2 {
				t.Error("owners go after their dependents, which take a second to stop")
			}
			c.after(5 * time.Second)
			if c.exists(web) || len(c.pods())+c.durable.Len(replicaSets) != 0 {
				t.Error("something is left")
			}
		})
	})
	t.Run("orphan", func(t *testing.T) {
		inCluster(t, 2, func(c *cluster) {
			c.create(newDeployment("web", 2))
			c.after(5 * time.Second)
			before := names(c.pods())
			c.delete(web, metav1.DeletePropagationOrphan)
			c.after(time.Minute)
			sets := store.List[appsv1.ReplicaSet](c.durable, "default")
			if c.exists(web) || len(sets) != 1 || len(sets[0].OwnerReferences) != 0 {
				t.Fatalf("replica sets: %v", sets)
			}
			c.create(newDeployment("web", 2)) // takes its replica set, and the pods, back
			c.after(time.Minute)
			c.mustBeDone("web", 2)
			if diff := cmp.Diff(before, names(c.pods())); diff != "" {
				t.Errorf("pods changed: %s", diff)
			}
		})
	})
}

func TestGarbageIsJudgedByUID(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		owner := c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "owner"}})
		ref := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.GetUID()}
		other := ref
		other.UID = "somebody-else"
		unknown := metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Thing", Name: "thing", UID: "thing"}
		for name, refs := range map[string][]metav1.OwnerReference{
			"owned": {ref}, "mistaken": {other}, "both": {ref, other}, "unknown": {unknown},
		} {
			c.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, OwnerReferences: refs}})
		}
		left := func() []string {
			var found []string
			for _, secret := range store.List[corev1.Secret](c.durable, "default") {
				found = append(found, secret.Name)
			}
			return found
		}
		c.settle()
		if got := left(); !cmp.Equal(got, []string{"both", "owned", "unknown"}) {
			t.Errorf("with the owner: %v", got)
		}
		both, _ := store.Get[corev1.Secret](c.durable, "default", "both")
		if !cmp.Equal(both.OwnerReferences, []metav1.OwnerReference{ref}) {
			t.Errorf("the reference to nobody stays: %v", both.OwnerReferences)
		}
		c.delete(key(configMaps, "default", "owner"))
		c.settle()
		if got := left(); !cmp.Equal(got, []string{"unknown"}) {
			t.Errorf("without the owner: %v", got)
		}
	})
}

func TestReplicaSetClaimsAndReleases(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDeployment("web", 3))
		c.after(5 * time.Second)
		released := c.pods()[0]
		hash := released.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		c.modify(key(pods, "default", released.Name), "", func(o api.Object) { o.SetLabels(map[string]string{"debug": "yes"}) })
		c.after(5 * time.Second)
		pod, _ := store.Get[corev1.Pod](c.durable, "default", released.Name)
		if len(pod.OwnerReferences) != 0 || len(c.running()) != 4 {
			t.Fatalf("released: %v, %d pods run, want 4", pod.OwnerReferences, len(c.running()))
		}
		c.modify(key(pods, "default", released.Name), "", func(o api.Object) {
			o.SetLabels(map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: hash})
		})
		c.after(5 * time.Second)
		c.mustBeDone("web", 3)
		if n := len(c.pods()); n != 3 {
			t.Errorf("%d pods after the adoption, want one too many removed", n)
		}
	})
}

func TestNamespaces(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		for _, name := range systemNamespaces() {
			if !c.exists(key(serviceAccounts, name, defaultAccount)) || !c.exists(key(configMaps, name, rootCA)) {
				t.Errorf("namespace %s is not filled", name)
			}
		}
		c.delete(key(serviceAccounts, "default", defaultAccount))
		c.modify(key(configMaps, "default", rootCA), "", func(o api.Object) { o.(*corev1.ConfigMap).Data = map[string]string{rootCAKey: "forged"} })
		c.settle()
		ca, _ := store.Get[corev1.ConfigMap](c.durable, "default", rootCA)
		if !c.exists(key(serviceAccounts, "default", defaultAccount)) || ca.Data[rootCAKey] != "PEM" {
			t.Error("what a namespace holds is not restored")
		}

		c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
		c.settle()
		d := newDeployment("web", 2)
		d.Namespace = "shop"
		c.create(d)
		held := c.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "held", Finalizers: []string{"example.com/hold"}}})
		c.after(5 * time.Second)
		c.delete(key(namespaces, "", "shop"))
		c.after(time.Minute)
		shop, ok := store.Get[corev1.Namespace](c.durable, "", "shop")
		if !ok || shop.Status.Phase != corev1.NamespaceTerminating {
			t.Fatalf("a namespace with an object that is held back: %v", shop)
		}
		if items, _ := c.durable.List(pods, "shop"); len(items) != 0 {
			t.Errorf("%d pods are left", len(items))
		}
		c.modify(store.KeyOf(c.durable, held), "", func(o api.Object) { o.SetFinalizers(nil) })
		c.settle()
		if c.exists(key(namespaces, "", "shop")) {
			t.Error("the empty namespace is left")
		}
		for _, kind := range api.Kinds() {
			if items, _ := c.client.Reader().List(kind.GroupResource(), "shop"); kind.Namespaced && len(items) > 0 {
				t.Errorf("%d %s are left", len(items), kind.Resource)
			}
		}
	})
}

// A replica set that still makes pods in a namespace that ends gives up without a fuss; any other refusal is an error.
func TestPodsThatMayNotBeMade(t *testing.T) {
	refusal := error(nil)
	durable := store.New(store.Config{Kinds: api.Kinds()})
	client := store.NewClient(store.ClientConfig{
		Durable: durable, Propose: store.NewLocal(durable),
		Admit: []store.Admitter{store.AdmitFunc(func(context.Context, *store.Admission) error { return refusal })},
	})
	ctrl, err := New(Config{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	d := newDeployment("web", 3)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web"},
		Spec:       appsv1.ReplicaSetSpec{Replicas: d.Spec.Replicas, Selector: d.Spec.Selector, Template: d.Spec.Template},
	}
	ending := apierrors.NewForbidden(corev1.Resource("pods"), "web", errKeep)
	ending.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	quota := apierrors.NewForbidden(corev1.Resource("pods"), "web", errKeep)
	for _, c := range []struct {
		refusal error
		made    int
		fails   bool
	}{
		{nil, 3, false},
		{ending, 0, false},
		{apierrors.NewNotFound(corev1.Resource("namespaces"), "default"), 0, false},
		{quota, 0, true},
	} {
		refusal = c.refusal
		made, err := (&replicaSetLoop{c: ctrl, of: replicaSetKind()}).makePods(t.Context(), replicas{rs, rs}, 3)
		if len(made) != c.made || (err != nil) != c.fails {
			t.Errorf("refused with %v: %d made, %v", c.refusal, len(made), err)
		}
	}
}

func TestFinishedPodsAreTrimmed(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			c.create(&corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "app"}}, RestartPolicy: corev1.RestartPolicyNever},
			})
			c.after(5 * time.Second)
			c.modify(key(pods, "default", name), "status", func(o api.Object) { o.(*corev1.Pod).Status.Phase = corev1.PodSucceeded })
		}
		c.after(5 * time.Second)
		if got := names(c.pods()); !cmp.Equal(got, []string{"c", "d", "e"}) {
			t.Errorf("left: %v", got)
		}
	})
}

func TestSortForDeletion(t *testing.T) {
	now := time.Unix(1e9, 0)
	pod := func(name, node string, phase corev1.PodPhase, ready bool, age int) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(now.Add(-time.Duration(age) * time.Hour))}}
		p.Spec.NodeName, p.Status.Phase = node, phase
		if ready {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: p.CreationTimestamp}}
		}
		return p
	}
	cheap := pod("cheap", "n4", corev1.PodRunning, true, 9)
	cheap.Annotations = map[string]string{corev1.PodDeletionCost: "-1"}
	replicas := []*corev1.Pod{
		pod("alone-old", "n2", corev1.PodRunning, true, 9), pod("pair-old", "n1", corev1.PodRunning, true, 8), pod("alone-young", "n3", corev1.PodRunning, true, 1),
		pod("unready", "n2", corev1.PodRunning, false, 9), pod("pending", "n3", corev1.PodPending, false, 9), pod("unplaced", "", corev1.PodPending, false, 9),
		pod("pair-young", "n1", corev1.PodRunning, true, 2), cheap,
	}
	slices.Reverse(replicas)
	sortForDeletion(replicas)
	// Of the pair one goes early; the other is alone then, and judged by its age like the rest.
	want := []string{"unplaced", "pending", "unready", "cheap", "pair-young", "alone-young", "pair-old", "alone-old"}
	if got := names(replicas); !cmp.Equal(got, want) {
		t.Errorf("order: %v, want %v", got, want)
	}
}
