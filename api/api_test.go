package api_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
)

func hello() *appsv1.Deployment {
	labels := map[string]string{"app": "hello"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: "default", UID: "u1"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](3),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "hello:1"}}},
			},
		},
		Status: appsv1.DeploymentStatus{ReadyReplicas: 7},
	}
}

func pod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "u2", ResourceVersion: "5"},
		Spec:       corev1.PodSpec{ServiceAccountName: "default", Containers: []corev1.Container{{Name: "c", Image: "i:1"}}},
	}
}

// created takes an object through what a create does to it.
func created[O api.Object](t *testing.T, o O) O {
	t.Helper()
	k := api.KindFor(o)
	if k.Default != nil {
		k.Default(o)
	}
	k.PrepareCreate(o)
	if errs := k.Validate(o); len(errs) > 0 {
		t.Fatalf("%s: %v", k.GVK.Kind, errs)
	}
	return o
}

func TestLookups(t *testing.T) {
	if n := len(api.Kinds()); n < 10 {
		t.Errorf("only %d kinds", n)
	}
	for _, k := range api.Kinds() {
		if api.ByResource(k.GroupResource()) != k || api.ByGVK(k.GVK) != k || api.KindFor(k.New()) != k {
			t.Errorf("%s: the three lookups do not agree", k.GVK)
		}
		if len(k.Row(k.New(), time.Now())) != len(k.Columns) {
			t.Errorf("%s: a row has not one cell for each column", k.GVK)
		}
		if k.Sensitive && (k.Index != nil || k.Class != nil) {
			t.Errorf("%s: sensitive objects are durable and in no index", k.GVK)
		}
		if !api.Scheme().Recognizes(k.GVK) || !api.Scheme().Recognizes(k.GVK.GroupVersion().WithKind(k.GVK.Kind+"List")) {
			t.Errorf("%s: the scheme does not know it", k.GVK)
		}
	}
	if api.ByResource("componentstatuses") != nil {
		t.Error("component statuses are not served")
	}
}

func TestCodecLeavesTheRevisionOut(t *testing.T) {
	p := pod()
	p.ResourceVersion = "7"
	value, err := api.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	if p.ResourceVersion != "7" {
		t.Error("Encode changed its argument")
	}
	for revision, want := range map[uint64]string{0: "", 9: "9"} {
		back, err := api.Decode(api.KindFor(p), value, revision)
		if err != nil {
			t.Fatal(err)
		}
		if got := back.GetResourceVersion(); got != want {
			t.Errorf("revision %d: resourceVersion %q, want %q", revision, got, want)
		}
		back.SetResourceVersion("7")
		if diff := cmp.Diff(p, back); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := api.Decode(api.KindFor(p), []byte("junk"), 1); err == nil {
		t.Error("junk decodes")
	}
}

func TestDeploymentGeneration(t *testing.T) {
	k := api.ByResource("deployments.apps")
	old := created(t, hello())
	if old.Generation != 1 || old.Status.ReadyReplicas != 0 || old.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		t.Errorf("created: generation %d, status %v, strategy %v", old.Generation, old.Status, old.Spec.Strategy)
	}
	same := old.DeepCopy()
	same.Generation, same.Status.ReadyReplicas, same.UID, same.ResourceVersion = 42, 9, "", ""
	k.PrepareUpdate(same, old)
	if diff := cmp.Diff(old, same); diff != "" {
		t.Errorf("an update without a change: %s", diff)
	}
	changed := old.DeepCopy()
	changed.Spec.Replicas = ptr.To[int32](5)
	k.PrepareUpdate(changed, old)
	if changed.Generation != 2 {
		t.Errorf("generation %d after a change of the spec", changed.Generation)
	}
	status := old.DeepCopy()
	status.Spec.Replicas, status.Status.Replicas = ptr.To[int32](9), 3
	k.PrepareStatus(status, old)
	if *status.Spec.Replicas != 3 || status.Status.Replicas != 3 || status.Generation != 1 {
		t.Errorf("status update: %v", status)
	}
	selector := old.DeepCopy()
	selector.Spec.Selector.MatchLabels = map[string]string{"app": "other"}
	if errs := k.ValidateUpdate(selector, old); len(errs) == 0 {
		t.Error("the selector is immutable")
	}
}

func TestPodCreateAndUpdate(t *testing.T) {
	k := api.ByResource("pods")
	old := created(t, pod())
	if old.Status.Phase != corev1.PodPending || old.Status.QOSClass != corev1.PodQOSBestEffort || old.Spec.DeprecatedServiceAccount != "default" {
		t.Errorf("created: %+v, service account %q", old.Status, old.Spec.DeprecatedServiceAccount)
	}
	moved := old.DeepCopy()
	moved.Spec.NodeName = "elsewhere"
	k.PrepareUpdate(moved, old)
	if errs := k.ValidateUpdate(moved, old); len(errs) != 1 || errs[0].Field != "spec" {
		t.Errorf("moving a pod: %v", errs)
	}
	image := old.DeepCopy()
	image.Spec.Containers[0].Image = "i:2"
	k.PrepareUpdate(image, old)
	if errs := k.ValidateUpdate(image, old); len(errs) != 0 || image.Generation != 2 {
		t.Errorf("a new image: %v, generation %d", errs, image.Generation)
	}
	terminating := old.DeepCopy()
	terminating.DeletionTimestamp, terminating.DeletionGracePeriodSeconds = ptr.To(metav1.Now()), ptr.To[int64](30)
	status := terminating.DeepCopy()
	status.DeletionTimestamp, status.Status.Phase = nil, corev1.PodRunning
	k.PrepareStatus(status, terminating)
	if status.DeletionTimestamp == nil || status.Status.Phase != corev1.PodRunning {
		t.Error("a status update must keep the deletion and take the phase")
	}
	if got := k.Index(image)["node"]; got != "" {
		t.Errorf("node index %q", got)
	}
}

func TestValidationSpeaksLikeUpstream(t *testing.T) {
	bad := pod()
	bad.Name, bad.Spec.Containers[0].Image = "Not_A_Name", ""
	k := api.KindFor(bad)
	k.Default(bad)
	k.PrepareCreate(bad)
	var fields []string
	for _, e := range k.Validate(bad) {
		fields = append(fields, e.Field)
	}
	if diff := cmp.Diff([]string{"metadata.name", "spec.containers[0].image"}, fields); diff != "" {
		t.Error(diff)
	}
	if w := k.Warn(bad, nil); len(w) != 1 {
		t.Errorf("warnings: %q", w)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "l", Namespace: "x"}, Spec: coordinationv1.LeaseSpec{LeaseDurationSeconds: ptr.To[int32](-1)}}
	if errs := api.KindFor(lease).Validate(lease); len(errs) != 1 {
		t.Errorf("a negative duration: %v", errs)
	}
}

func TestSecretAndNamespaceArePrepared(t *testing.T) {
	s := created(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "d"}, StringData: map[string]string{"a": "b"}})
	if string(s.Data["a"]) != "b" || s.StringData != nil || s.Type != corev1.SecretTypeOpaque {
		t.Errorf("secret: %+v", s)
	}
	n := created(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	if n.Status.Phase != corev1.NamespaceActive || n.Labels[corev1.LabelMetadataName] != "n" || len(n.Spec.Finalizers) != 1 {
		t.Errorf("namespace: %+v", n)
	}
}

func TestClasses(t *testing.T) {
	leases := api.ByResource("leases.coordination.k8s.io")
	if leases.ClassOf(corev1.NamespaceNodeLease) != api.Volatile || leases.ClassOf("kube-system") != api.Durable {
		t.Error("only the heartbeats in kube-node-lease are volatile")
	}
	if api.ByResource("events").ClassOf("default") != api.Volatile || api.ByResource("pods").ClassOf("default") != api.Durable {
		t.Error("events are volatile, pods durable")
	}
}
