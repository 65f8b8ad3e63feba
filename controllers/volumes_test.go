package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

func newClaim(name, size string, class *string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: class,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
		},
	}
}

func localVolume(name, size, class, node string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}, StorageClassName: class,
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/mnt/" + name}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
			}}}},
		},
	}
}

func claiming(name string, claims ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	for _, claim := range claims {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}})
	}
	return p
}

func (c *cluster) claim(name string) *corev1.PersistentVolumeClaim {
	claim, _ := store.Get[corev1.PersistentVolumeClaim](c.durable, "default", name)
	return claim
}

func (c *cluster) nodeOf(name string) string {
	c.Helper()
	p, ok := store.Get[corev1.Pod](c.durable, "default", name)
	if !ok {
		c.Fatalf("no pod %s", name)
	}
	return p.Spec.NodeName
}

// A claim of the default class gets a volume where its pod goes, the next pod of the claim goes there too, and the volume stays for as
// long as the pod uses it.
func TestLocalPath(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.settle()
		c.create(newClaim("data", "1Gi", nil))
		c.settle()
		if claim := c.claim("data"); claim.Status.Phase != corev1.ClaimPending || ptr.Deref(claim.Spec.StorageClassName, "") != "local-path" {
			t.Errorf("a claim that nobody uses: %+v", claim)
		}
		c.create(claiming("first", "data"))
		c.settle()
		claim := c.claim("data")
		pv, ok := store.Get[corev1.PersistentVolume](c.durable, "", claim.Spec.VolumeName)
		if !ok || claim.Status.Phase != corev1.ClaimBound || pv.Status.Phase != corev1.VolumeBound || pv.Spec.ClaimRef.UID != claim.UID {
			t.Fatalf("claim %+v, volume %+v", claim, pv)
		}
		where := c.nodeOf("first")
		if where == "" || pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0] != where {
			t.Errorf("the pod is on %q, its volume on %+v", where, pv.Spec.NodeAffinity)
		}
		for _, name := range []string{"second", "third"} {
			c.create(claiming(name, "data"))
			c.settle()
			if got := c.nodeOf(name); got != where {
				t.Errorf("%s is on %q, its volume on %q", name, got, where)
			}
		}
		// The claim is deleted while pods use it.
		if _, err := c.client.Delete(c.ctx, key(persistentVolumeClaims, "default", "data"), nil); err != nil {
			t.Fatal(err)
		}
		c.settle()
		if c.claim("data") == nil {
			t.Fatal("a claim went while pods use it")
		}
		for _, name := range []string{"first", "second", "third"} {
			if _, err := c.client.Delete(c.ctx, key(pods, "default", name), nil); err != nil {
				t.Fatal(err)
			}
		}
		c.settle()
		time.Sleep(time.Minute)
		c.settle()
		pv, ok = store.Get[corev1.PersistentVolume](c.durable, "", pv.Name)
		if c.claim("data") != nil || !ok || pv.Status.Phase != corev1.VolumeReleased {
			t.Errorf("claim %+v, volume %+v", c.claim("data"), pv)
		}
	})
}

// A pod's own volume comes and goes with it.
func TestPodsOwnVolume(t *testing.T) {
	inCluster(t, 2, func(c *cluster) {
		c.settle()
		p := claiming("web")
		p.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
			VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: newClaim("", "1Gi", nil).Spec,
			},
		}}}}
		c.create(p)
		c.settle()
		c.after(2 * time.Second) // it waits for its claim, and is looked at again
		claim := c.claim("web-scratch")
		if claim == nil || claim.Labels["a"] != "b" || claim.Status.Phase != corev1.ClaimBound || c.nodeOf("web") == "" {
			t.Fatalf("claim %+v, pod on %q", claim, c.nodeOf("web"))
		}
		if _, err := c.client.Delete(c.ctx, key(pods, "default", "web"), nil); err != nil {
			t.Fatal(err)
		}
		c.settle()
		time.Sleep(time.Minute)
		c.settle()
		if claim := c.claim("web-scratch"); claim != nil {
			t.Errorf("it is left: %+v", claim)
		}
	})
}

// Volumes that were made by hand: the smallest that fits, on a node that can have it, and each for one claim.
func TestVolumesByHand(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		mode := storagev1.VolumeBindingWaitForFirstConsumer
		c.create(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "disks"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &mode})
		c.create(localVolume("small", "1Gi", "disks", "n2"))
		c.create(localVolume("large", "10Gi", "disks", "n1"))
		c.create(localVolume("none", "10Gi", "", "n0"))
		c.settle()
		c.create(newClaim("a", "500Mi", ptr.To("disks")))
		c.create(newClaim("b", "2Gi", ptr.To("disks")))
		c.create(newClaim("c", "2Gi", ptr.To("disks")))
		c.create(newClaim("d", "2Gi", ptr.To("")))
		c.settle()
		if got := c.claim("d"); got.Status.Phase != corev1.ClaimBound || got.Spec.VolumeName != "none" {
			t.Errorf("without a class: %+v", got)
		}
		c.create(claiming("b", "b"))
		c.settle()
		c.create(claiming("c", "c"))
		c.create(claiming("nobody", "unknown"))
		c.settle()
		if got := c.claim("b"); got.Spec.VolumeName != "large" || c.nodeOf("b") != "n1" {
			t.Errorf("the claim of 2Gi: %+v on %s", got, c.nodeOf("b"))
		}
		for name, want := range map[string]string{
			"c": "node(s) didn't find available persistent volumes to bind", "nobody": `persistentvolumeclaim "unknown" not found`,
		} {
			p, _ := store.Get[corev1.Pod](c.durable, "default", name)
			if p.Spec.NodeName != "" || len(p.Status.Conditions) == 0 || p.Status.Conditions[0].Message != want {
				t.Errorf("%s: %q %+v", name, p.Spec.NodeName, p.Status.Conditions)
			}
		}
		// A further disk lets the pod that waits go where it is.
		c.create(localVolume("later", "3Gi", "disks", "n0"))
		c.settle()
		time.Sleep(time.Minute)
		c.settle()
		if got := c.claim("c"); got.Spec.VolumeName != "later" || c.nodeOf("c") != "n0" || got.Status.Phase != corev1.ClaimBound {
			t.Errorf("the claim that waited: %+v on %q", got, c.nodeOf("c"))
		}
		// Two claims in one pod, of which one says where.
		c.create(newClaim("e", "1Gi", nil))
		c.create(claiming("both", "e", "b"))
		c.settle()
		if got := c.claim("e"); c.nodeOf("both") != "n1" || got.Status.Phase != corev1.ClaimBound {
			t.Errorf("two claims: %q, %+v", c.nodeOf("both"), got)
		}
		// A volume that goes leaves its claim lost.
		if _, err := c.client.Delete(c.ctx, key(persistentVolumes, "", "none"), nil); err != nil {
			t.Fatal(err)
		}
		c.settle()
		if got := c.claim("d"); got.Status.Phase != corev1.ClaimLost {
			t.Errorf("the claim of a volume that is gone: %+v", got.Status)
		}
	})
}

// What is in use stays when it is deleted, and goes when nobody uses it any more.
func TestStorageInUse(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		pv := localVolume("disk", "1Gi", "", "n0")
		pv.Finalizers = []string{api.VolumeInUse}
		wish := newClaim("wish", "1Gi", ptr.To("none"))
		wish.Spec.VolumeAttributesClassName = ptr.To("fast")
		c.create(wish)
		c.create(&storagev1.VolumeAttributesClass{
			ObjectMeta: metav1.ObjectMeta{Name: "fast", Finalizers: []string{api.VolumeAttributesClassInUse}}, DriverName: "d",
			Parameters: map[string]string{"a": "b"},
		})
		c.create(pv)
		c.create(newClaim("data", "1Gi", ptr.To("")))
		c.create(claiming("user", "data"))
		c.settle()
		disk, claim, class := key(persistentVolumes, "", "disk"), key(persistentVolumeClaims, "default", "data"), key(attributesClasses, "", "fast")
		for _, k := range []store.Key{class, disk, claim} {
			c.delete(k)
		}
		c.settle()
		for _, k := range []store.Key{class, disk, claim} {
			if !c.exists(k) {
				t.Errorf("%s went while it was in use", k)
			}
		}
		if got := c.claim("data"); got.Status.Phase != corev1.ClaimBound {
			t.Errorf("the claim is %s", got.Status.Phase)
		}
		c.delete(key(pods, "default", "user"))
		c.delete(key(persistentVolumeClaims, "default", "wish"))
		c.after(time.Minute)
		for _, k := range []store.Key{claim, disk, class} {
			if c.exists(k) {
				t.Errorf("%s stayed though nobody uses it", k)
			}
		}
	})
}
