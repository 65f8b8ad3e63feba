package dispatch_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/transport"
)

// A device gets the volume of a claim that its pod uses, and is told to remove what is in it when the claim is gone: it alone, and
// nothing else goes when it says so.
func TestClaims(t *testing.T) {
	c := newCluster(t)
	c.node("a", "10.42.0.0/24")
	c.node("b", "10.42.1.0/24")
	sizes := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	claim := c.create(&corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data"},
		Spec:       corev1.PersistentVolumeClaimSpec{AccessModes: modes, Resources: corev1.VolumeResourceRequirements{Requests: sizes}},
	})
	c.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{
		NodeName: "a", Containers: []corev1.Container{{Name: "c", Image: "i"}},
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}},
	}})
	device, link := c.device("a")
	other, otherLink := c.device("b")
	c.eventually("the pod", has(device, "pods/default/p"))
	if has(device, "claims/default/data")() {
		t.Error("the device has a volume of a claim that has none")
	}
	c.create(&corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": api.LocalPath}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: sizes, AccessModes: modes, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef:               &corev1.ObjectReference{Namespace: "default", Name: "data", UID: claim.GetUID()},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/x"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}},
			}}}},
		},
	})
	c.modify(store.Key{Resource: "persistentvolumeclaims", Namespace: "default", Name: "data"}, "", func(o api.Object) {
		o.(*corev1.PersistentVolumeClaim).Spec.VolumeName = "pvc-1"
	})
	c.eventually("the volume", has(device, "claims/default/data"))
	if has(other, "claims/default/data")() || has(device, "reclaim/pvc-1")() {
		t.Errorf("too much: %v, %v", device.Desired(), other.Desired())
	}
	there := func() bool { _, ok := store.Get[corev1.PersistentVolume](c.durable, "", "pvc-1"); return ok }
	gone := transport.Item{Key: "reclaim/pvc-1", Deleted: true}
	c.modify(store.Key{Resource: "persistentvolumes", Name: "pvc-1"}, "status", func(o api.Object) {
		o.(*corev1.PersistentVolume).Status.Phase = corev1.VolumeReleased
	})
	c.eventually("the order to remove it", has(device, "reclaim/pvc-1"))
	otherLink.Report(gone)
	c.settled(other, "b")
	if !there() || has(other, "reclaim/pvc-1")() {
		t.Error("another device removed the volume")
	}
	link.Report(gone)
	c.eventually("the volume is gone", func() bool { return !there() })
	c.eventually("the order is gone", hasNot(device, "reclaim/pvc-1"))
}
