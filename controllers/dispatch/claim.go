package dispatch

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// What devices are told of volumes: under a claim's key the volume that it is bound to, and under reclaims the volumes whose content
// they are to remove.
const (
	claims   = "claims"
	reclaims = "reclaim"
)

func (d *Dispatcher) claimChanged(event store.Event) {
	d.touchUsers(claims + "/" + event.Item.Key.Namespace + "/" + event.Item.Key.Name)
}

func (d *Dispatcher) volumeChanged(event store.Event) {
	value := event.Item.Value
	if event.Type == store.Deleted {
		value = event.Prev
	}
	var volume corev1.PersistentVolume
	if value == nil || volume.Unmarshal(value) != nil {
		return
	}
	if ref := volume.Spec.ClaimRef; ref != nil {
		d.touchUsers(claims + "/" + ref.Namespace + "/" + ref.Name)
	}
	if dev := d.device(localTo(&volume)); dev != nil {
		d.touch(dev, reclaims+"/"+volume.Name)
	}
}

// touchUsers sends what differs of one key to the devices whose pods use it.
func (d *Dispatcher) touchUsers(key string) {
	d.mu.Lock()
	using := make([]*device, 0, len(d.users[key]))
	for dev := range d.users[key] {
		using = append(using, dev)
	}
	d.mu.Unlock()
	for _, dev := range using {
		d.touch(dev, key)
	}
}

// volumeOf is the volume that a claim is bound to.
func (d *Dispatcher) volumeOf(namespace, name string) (*corev1.PersistentVolume, bool) {
	claim, ok := store.Get[corev1.PersistentVolumeClaim](d.reader, namespace, name)
	if !ok || claim.Spec.VolumeName == "" {
		return nil, false
	}
	volume, ok := store.Get[corev1.PersistentVolume](d.reader, "", claim.Spec.VolumeName)
	if !ok || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID {
		return nil, false
	}
	volume.Status = corev1.PersistentVolumeStatus{}
	return volume, true
}

// localTo is the device that a volume was made on; empty: it was not made by us.
func localTo(volume *corev1.PersistentVolume) string {
	if volume.Annotations["pv.kubernetes.io/provisioned-by"] != api.LocalPath || volume.Spec.NodeAffinity == nil || volume.Spec.NodeAffinity.Required == nil {
		return ""
	}
	for _, term := range volume.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			if e.Key == corev1.LabelHostname && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 {
				return e.Values[0]
			}
		}
	}
	return ""
}

// reclaimed reports whether a device is to remove a volume's content: its claim is gone, and its policy says so.
func reclaimed(volume *corev1.PersistentVolume, device string) bool {
	return localTo(volume) == device && volume.Status.Phase == corev1.VolumeReleased &&
		volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
}

// reclaimKeys are those of the volumes whose content a device is to remove.
func (d *Dispatcher) reclaimKeys(device string) []string {
	var keys []string
	for _, volume := range store.List[corev1.PersistentVolume](d.reader, "") {
		if reclaimed(volume, device) {
			keys = append(keys, reclaims+"/"+volume.Name)
		}
	}
	return keys
}

// removeVolume removes a volume whose content its device has removed.
func (d *Dispatcher) removeVolume(ctx context.Context, device, name string) error {
	volume, ok := store.Get[corev1.PersistentVolume](d.reader, "", name)
	if !ok {
		return nil
	}
	if !reclaimed(volume, device) {
		return errors.Join(errors.New("the volume was not to be removed"), errForeign)
	}
	_, err := d.client.Delete(ctx, store.KeyOf(d.reader, volume), metav1.NewPreconditionDeleteOptions(string(volume.UID)))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
