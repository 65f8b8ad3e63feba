package controllers

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/scheduler"
	"github.com/shoal-edge/shoal/store"
)

// The class of folders on the devices' own disks, named as in other distributions, and where they are on a device with the default
// data folder.
const (
	localPathClass = "local-path"
	localPathRoot  = "/var/lib/shoal/agent/local"
)

// The resources that claims and volumes are about.
const (
	persistentVolumes      = "persistentvolumes"
	persistentVolumeClaims = "persistentvolumeclaims"
	storageClasses         = "storageclasses.storage.k8s.io"
	attributesClasses      = "volumeattributesclasses.storage.k8s.io"
)

// Annotations of claims and volumes, by upstream's names.
const (
	defaultClass      = "storageclass.kubernetes.io/is-default-class"
	provisionedBy     = "pv.kubernetes.io/provisioned-by"
	boundByController = "pv.kubernetes.io/bound-by-controller"
	bindCompleted     = "pv.kubernetes.io/bind-completed"
)

// volumes binds claims to volumes, makes volumes for claims of the class local-path, on the device that the claim's pod was sent to,
// and follows both through their phases. A claim that a pod uses stays until the pod is gone, and a volume until its claim is. It alone
// writes the phases.
type volumes struct {
	c       *Controllers
	claims  *loop
	volumes *loop
	// attributes are the classes of attributes that are to go.
	attributes *loop
}

func (c *Controllers) addVolumes() *volumes {
	v := &volumes{c: c}
	v.claims = c.newLoop("claims", 2, v.reconcileClaim)
	v.volumes = c.newLoop("volumes", 2, v.reconcileVolume)
	v.attributes = c.newLoop("attributes-classes", 1, v.reconcileAttributes)
	c.follow(attributesClasses, "", keys(v.attributes))
	c.follow(persistentVolumeClaims, "", each(func(claim *corev1.PersistentVolumeClaim, _ bool) {
		v.claims.add(key(persistentVolumeClaims, claim.Namespace, claim.Name))
		v.addAttributes()
	}))
	c.follow(persistentVolumes, "", each(func(pv *corev1.PersistentVolume, _ bool) {
		v.addAttributes()
		v.volumes.add(key(persistentVolumes, "", pv.Name))
		if ref := pv.Spec.ClaimRef; ref != nil {
			v.claims.add(key(persistentVolumeClaims, ref.Namespace, ref.Name))
		} else {
			v.addPending()
		}
	}))
	c.follow(storageClasses, "", each(func(*storagev1.StorageClass, bool) { v.addPending() }))
	c.follow(pods, "", each(func(pod *corev1.Pod, _ bool) {
		for _, name := range claimsOf(pod) {
			v.claims.add(key(persistentVolumeClaims, pod.Namespace, name))
		}
	}))
	l := c.newLoop("default-class", 1, v.makeClass)
	l.add(key(storageClasses, "", localPathClass))
	return v
}

// makeClass makes the class of local volumes, once: whoever deletes it has it again at the next leader.
func (v *volumes) makeClass(ctx context.Context, _ store.Key) (time.Duration, error) {
	mode, policy := storagev1.VolumeBindingWaitForFirstConsumer, corev1.PersistentVolumeReclaimDelete
	class := &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: localPathClass, Annotations: map[string]string{defaultClass: "true"}},
		Provisioner: api.LocalPath, VolumeBindingMode: &mode, ReclaimPolicy: &policy,
	}
	if _, ok := v.c.reader.Get(store.KeyOf(v.c.reader, class)); ok {
		return 0, nil
	}
	if _, err := v.c.client.Create(ctx, class); err != nil && !apierrors.IsAlreadyExists(err) {
		return 0, err
	}
	return 0, nil
}

// addPending looks again at the claims that have no volume.
func (v *volumes) addPending() {
	for _, claim := range store.List[corev1.PersistentVolumeClaim](v.c.reader, "") {
		if claim.Spec.VolumeName == "" {
			v.claims.add(key(persistentVolumeClaims, claim.Namespace, claim.Name))
		}
	}
}

// claimsOf are the claims that a pod names.
func claimsOf(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		switch {
		case volume.PersistentVolumeClaim != nil:
			names = append(names, volume.PersistentVolumeClaim.ClaimName)
		case volume.Ephemeral != nil:
			names = append(names, ephemeral.VolumeClaimName(pod, volume))
		}
	}
	return names
}

// users are the pods that name a claim and are not over.
func (v *volumes) users(namespace, name string) []*corev1.Pod {
	return slices.DeleteFunc(store.List[corev1.Pod](v.c.reader, namespace), func(p *corev1.Pod) bool {
		return scheduler.Finished(p) || !slices.Contains(claimsOf(p), name)
	})
}

// makeClaim makes the claim of a pod's own volume, which goes with the pod.
func (v *volumes) makeClaim(ctx context.Context, k store.Key) error {
	for _, pod := range v.users(k.Namespace, k.Name) {
		for i := range pod.Spec.Volumes {
			volume := &pod.Spec.Volumes[i]
			if volume.Ephemeral == nil || volume.Ephemeral.VolumeClaimTemplate == nil || ephemeral.VolumeClaimName(pod, volume) != k.Name || pod.DeletionTimestamp != nil {
				continue
			}
			template := volume.Ephemeral.VolumeClaimTemplate
			_, err := v.c.client.Create(ctx, &corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: k.Namespace, Name: k.Name, Labels: template.Labels, Annotations: template.Annotations,
					OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))},
				},
				Spec: template.Spec,
			})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("make the claim of a pod's own volume: %w", err)
			}
			return nil
		}
	}
	return nil
}

func (v *volumes) reconcileClaim(ctx context.Context, k store.Key) (time.Duration, error) {
	claim, ok := store.Get[corev1.PersistentVolumeClaim](v.c.reader, k.Namespace, k.Name)
	if !ok {
		if err := v.makeClaim(ctx, k); err != nil {
			return 0, err
		}
		for _, pv := range store.List[corev1.PersistentVolume](v.c.reader, "") {
			if ref := pv.Spec.ClaimRef; ref != nil && ref.Namespace == k.Namespace && ref.Name == k.Name {
				v.volumes.add(key(persistentVolumes, "", pv.Name))
			}
		}
		return 0, nil
	}
	users := v.users(k.Namespace, k.Name)
	if done, err := v.protect(ctx, claim, users); done || err != nil {
		return 0, err
	}
	if claim.Spec.VolumeName != "" {
		return 0, v.follow(ctx, claim)
	}
	if claim.Status.Phase == "" {
		if err := v.setClaim(ctx, claim, func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimPending }); err != nil {
			return 0, err
		}
	}
	return 0, v.bind(ctx, claim, users)
}

// protect keeps a claim for as long as a pod uses it; done: it is to go.
func (v *volumes) protect(ctx context.Context, claim *corev1.PersistentVolumeClaim, users []*corev1.Pod) (done bool, err error) {
	has := slices.Contains(claim.Finalizers, api.ClaimInUse)
	switch {
	case claim.DeletionTimestamp == nil && !has: // it was made before admission gave it one
		return false, v.edit(ctx, claim, "", func(o api.Object) {
			if !slices.Contains(o.GetFinalizers(), api.ClaimInUse) {
				o.SetFinalizers(append(o.GetFinalizers(), api.ClaimInUse))
			}
		})
	case claim.DeletionTimestamp != nil && has && len(users) == 0:
		return true, v.letGo(ctx, claim, api.ClaimInUse)
	}
	return claim.DeletionTimestamp != nil, nil
}

// letGo takes the finalizer away that keeps an object for as long as it is used.
func (v *volumes) letGo(ctx context.Context, object api.Object, finalizer string) error {
	if object.GetDeletionTimestamp() == nil || !slices.Contains(object.GetFinalizers(), finalizer) {
		return nil
	}
	return v.edit(ctx, object, "", func(o api.Object) {
		o.SetFinalizers(slices.DeleteFunc(o.GetFinalizers(), func(name string) bool { return name == finalizer }))
	})
}

// reconcileAttributes lets a class of attributes go that no claim and no volume names any more.
func (v *volumes) reconcileAttributes(ctx context.Context, k store.Key) (time.Duration, error) {
	class, ok := store.Get[storagev1.VolumeAttributesClass](v.c.reader, "", k.Name)
	if !ok || class.DeletionTimestamp == nil {
		return 0, nil
	}
	for _, claim := range store.List[corev1.PersistentVolumeClaim](v.c.reader, "") {
		if ptr.Deref(claim.Spec.VolumeAttributesClassName, "") == k.Name || ptr.Deref(claim.Status.CurrentVolumeAttributesClassName, "") == k.Name {
			return 0, nil
		}
	}
	for _, pv := range store.List[corev1.PersistentVolume](v.c.reader, "") {
		if ptr.Deref(pv.Spec.VolumeAttributesClassName, "") == k.Name {
			return 0, nil
		}
	}
	return 0, v.letGo(ctx, class, api.VolumeAttributesClassInUse)
}

// addAttributes looks again at the classes that are to go.
func (v *volumes) addAttributes() {
	for _, class := range store.List[storagev1.VolumeAttributesClass](v.c.reader, "") {
		if class.DeletionTimestamp != nil {
			v.attributes.add(key(attributesClasses, "", class.Name))
		}
	}
}

// bind finds or makes a volume for a claim, and ties both together: the volume first, for it must not be given away twice.
func (v *volumes) bind(ctx context.Context, claim *corev1.PersistentVolumeClaim, users []*corev1.Pod) error {
	class := v.classOf(claim)
	if claim.Spec.StorageClassName == nil && class != nil {
		return v.edit(ctx, claim, "", func(o api.Object) {
			o.(*corev1.PersistentVolumeClaim).Spec.StorageClassName = &class.Name
		})
	}
	var node *corev1.Node
	for _, pod := range users {
		if n, ok := store.Get[corev1.Node](v.c.reader, "", pod.Spec.NodeName); ok {
			node = n
			break
		}
	}
	waits := class != nil && ptr.Deref(class.VolumeBindingMode, "") == storagev1.VolumeBindingWaitForFirstConsumer
	if waits && node == nil {
		v.c.recorder.Event(claim, corev1.EventTypeNormal, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
		return nil
	}
	pv := v.fitting(claim, node)
	switch {
	case pv != nil:
	case class != nil && class.Provisioner == api.LocalPath && node != nil:
		var err error
		if pv, err = v.provision(ctx, claim, class, node); err != nil {
			return err
		}
		v.c.recorder.eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume %s", pv.Name)
	default:
		v.c.recorder.Event(claim, corev1.EventTypeNormal, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
		return nil
	}
	if err := v.edit(ctx, pv, "", func(o api.Object) {
		pv := o.(*corev1.PersistentVolume)
		if ref := pv.Spec.ClaimRef; ref == nil || ref.UID == "" {
			setAnnotation(pv, boundByController, "yes")
			pv.Spec.ClaimRef = refTo(claim)
		}
	}); err != nil {
		return err
	}
	return v.edit(ctx, claim, "", func(o api.Object) {
		claim := o.(*corev1.PersistentVolumeClaim)
		setAnnotation(claim, bindCompleted, "yes")
		claim.Spec.VolumeName = pv.Name
	})
}

func refTo(claim *corev1.PersistentVolumeClaim) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
	}
}

func setAnnotation(o api.Object, name, value string) {
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[name] = value
	o.SetAnnotations(annotations)
}

// provision makes the volume of a claim on a device. The device makes the folder when the pod comes.
func (v *volumes) provision(
	ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node,
) (*corev1.PersistentVolume, error) {
	name := "pvc-" + string(claim.UID)
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: api.LocalPath}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes: claim.Spec.AccessModes, StorageClassName: class.Name, VolumeMode: claim.Spec.VolumeMode, ClaimRef: refTo(claim),
			PersistentVolumeReclaimPolicy: ptr.Deref(class.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete),
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: localPathRoot + "/" + name}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node.Labels[corev1.LabelHostname]},
				}},
			}}}},
		},
	}
	if known, ok := store.Get[corev1.PersistentVolume](v.c.reader, "", name); ok {
		return known, nil
	}
	made, err := v.c.client.Create(ctx, pv)
	if err != nil {
		return nil, fmt.Errorf("make a volume: %w", err)
	}
	return made.(*corev1.PersistentVolume), nil
}

// follow gives a claim that has a volume the phase that follows from it.
func (v *volumes) follow(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	pv, ok := store.Get[corev1.PersistentVolume](v.c.reader, "", claim.Spec.VolumeName)
	switch {
	case !ok:
		return v.setClaim(ctx, claim, func(c *corev1.PersistentVolumeClaim) {
			switch c.Status.Phase {
			case corev1.ClaimBound, corev1.ClaimLost:
				c.Status.Phase = corev1.ClaimLost
			default:
				c.Status.Phase = corev1.ClaimPending // the claim names one that is to come
			}
		})
	case pv.Spec.ClaimRef == nil:
		return v.edit(ctx, pv, "", func(o api.Object) {
			if pv := o.(*corev1.PersistentVolume); pv.Spec.ClaimRef == nil {
				setAnnotation(pv, boundByController, "yes")
				pv.Spec.ClaimRef = refTo(claim)
			}
		})
	case pv.Spec.ClaimRef.UID != claim.UID:
		return v.setClaim(ctx, claim, func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimPending }) // it is another's
	}
	v.volumes.add(key(persistentVolumes, "", pv.Name))
	return v.setClaim(ctx, claim, func(c *corev1.PersistentVolumeClaim) {
		c.Status.Phase, c.Status.AccessModes, c.Status.Capacity = corev1.ClaimBound, pv.Spec.AccessModes, pv.Spec.Capacity
	})
}

// reconcileVolume gives a volume its phase, and lets one go that is to go and is not bound. A volume whose claim is gone is released; its device then removes what is in it, if it was
// made for the claim.
func (v *volumes) reconcileVolume(ctx context.Context, k store.Key) (time.Duration, error) {
	pv, ok := store.Get[corev1.PersistentVolume](v.c.reader, "", k.Name)
	if !ok {
		return 0, nil
	}
	phase := corev1.VolumeAvailable
	if ref := pv.Spec.ClaimRef; ref != nil && ref.UID != "" {
		phase = corev1.VolumeBound
		claim, ok := store.Get[corev1.PersistentVolumeClaim](v.c.reader, ref.Namespace, ref.Name)
		if !ok || claim.UID != ref.UID {
			phase = corev1.VolumeReleased
		}
	}
	err := v.edit(ctx, pv, "status", func(o api.Object) { o.(*corev1.PersistentVolume).Status.Phase = phase })
	if err != nil || phase == corev1.VolumeBound {
		return 0, err
	}
	return 0, v.letGo(ctx, pv, api.VolumeInUse)
}

func (v *volumes) setClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim, change func(*corev1.PersistentVolumeClaim)) error {
	return v.edit(ctx, claim, "status", func(o api.Object) { change(o.(*corev1.PersistentVolumeClaim)) })
}

// edit changes an object, if it is still the same one; a change that changes nothing is not written.
func (v *volumes) edit(ctx context.Context, object api.Object, sub string, change func(api.Object)) error {
	_, err := v.c.client.Modify(ctx, store.KeyOf(v.c.reader, object), sub, func(current api.Object) error {
		if current.GetUID() != object.GetUID() {
			return errNotOurs
		}
		change(current)
		return nil
	})
	if isGone(err) {
		return nil
	}
	return err
}
