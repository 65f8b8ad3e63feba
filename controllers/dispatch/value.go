package dispatch

import (
	"bytes"
	"hash/fnv"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/devices"
	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/transport"
)

// unread is the version of an object that is there and cannot be read now: what a device has of it, it keeps.
func unread() version { return version{revision: ^uint64(0)} }

// value reads what a device should have under a key now; ok is false when it should have nothing, or when nobody knows what
// (unread).
func (d *Dispatcher) value(dev *device, key string) (value []byte, v version, ok bool) {
	kind, namespace, name := splitKey(key)
	switch kind {
	case pods:
		pod, found := store.Get[corev1.Pod](d.reader, namespace, name)
		if !found || pod.Spec.NodeName != dev.name {
			return nil, v, false
		}
		pod.Status = essentials(pod.Status)
		return d.encode(pod, dev.has[key])
	case "node":
		node, found := store.Get[corev1.Node](d.reader, "", dev.name)
		if !found {
			return nil, v, false
		}
		node.Status = corev1.NodeStatus{} // the device knows best
		delete(node.Annotations, devices.Annotation)
		return d.encode(node, dev.has[key])
	case firmwareKey:
		told, found := store.Get[firmwarev1.DeviceFirmware](d.reader, "", dev.name)
		if !found || told.Spec.Assignment == nil {
			return nil, v, false
		}
		told.Status = firmwarev1.DeviceFirmwareStatus{} // the device knows best
		return d.encode(told, dev.has[key])
	case releaseKey:
		told, found := store.Get[firmwarev1.DeviceFirmware](d.reader, "", dev.name)
		if !found || told.Spec.Assignment == nil {
			return nil, v, false
		}
		release, found := store.Get[firmwarev1.Release](d.reader, "", told.Spec.Assignment.Release)
		if !found {
			return nil, v, false
		}
		return d.encode(release, dev.has[key])
	case configMaps, secrets, classes:
		if dev.need[key] == 0 {
			return nil, v, false
		}
		if kind == classes {
			namespace, name = "", namespace
		}
		item, found := d.reader.Get(store.Key{Resource: kind, Namespace: namespace, Name: name})
		if !found {
			return nil, v, false
		}
		object, found := d.reader.Object(item)
		if !found {
			return nil, unread(), false
		}
		return d.encode(object, dev.has[key])
	case claims:
		if dev.need[key] == 0 {
			return nil, v, false
		}
		volume, found := d.volumeOf(namespace, name)
		if !found {
			return nil, v, false
		}
		return d.encode(volume, dev.has[key])
	case reclaims:
		volume, found := store.Get[corev1.PersistentVolume](d.reader, "", namespace)
		if !found || !reclaimed(volume, dev.name) {
			return nil, v, false
		}
		return []byte(volume.UID), version{print: hash([]byte(volume.UID))}, true
	case "anchors":
		if dev.need[key] == 0 {
			return nil, v, false
		}
		data := d.anchors(key)
		return data, version{print: hash(data)}, data != nil
	case "peers":
		data := d.peer(namespace) // there is no second part
		return data, version{print: hash(data)}, data != nil && namespace != dev.name && neighbours(d.lan(dev.name), d.lan(namespace))
	case transport.ServersKey:
		if d.cfg.Servers == nil {
			return nil, v, false
		}
		data := []byte(strings.Join(d.cfg.Servers(), "\n"))
		return data, version{print: hash(data)}, len(data) > 0
	}
	return nil, v, false
}

// encode makes an object's bytes. When nothing that matters has changed since the version that the device had, they are the
// same bytes as then: they carry the revision of that version.
func (d *Dispatcher) encode(object api.Object, had version) ([]byte, version, bool) {
	revision := object.GetResourceVersion()
	object.SetManagedFields(nil)
	object.SetResourceVersion("")
	plain, err := object.Marshal()
	if err != nil {
		d.logger.Error("cannot encode an object for a device", "name", object.GetName(), "error", err)
		return nil, version{}, false
	}
	v := version{print: hash(plain), revision: parseRevision(revision)}
	if v.print == had.print {
		v.revision = had.revision
	}
	object.SetResourceVersion(store.FormatRevision(v.revision))
	value, err := object.Marshal()
	return value, v, err == nil
}

// essentials is the part of a pod's status that its device does not know better: that somebody else has ended it.
func essentials(status corev1.PodStatus) corev1.PodStatus {
	kept := corev1.PodStatus{QOSClass: status.QOSClass}
	if status.Phase == corev1.PodSucceeded || status.Phase == corev1.PodFailed {
		kept.Phase, kept.Reason, kept.Message = status.Phase, status.Reason, status.Message
	}
	return kept
}

// peer is a node as other devices see it, in bytes that all of them share.
type peer struct {
	revision uint64
	data     []byte // nil: it has no pod network yet
	lan      string
}

func (d *Dispatcher) peer(name string) []byte {
	item, ok := d.reader.Get(store.Key{Resource: nodes, Name: name})
	d.mu.Lock()
	defer d.mu.Unlock()
	have, known := d.peers[name]
	if !ok {
		delete(d.peers, name)
		return nil
	}
	if known && have.revision >= item.Revision {
		return have.data
	}
	fresh := peer{revision: item.Revision}
	if object, ok := d.reader.Object(item); ok {
		fresh.data, fresh.lan = trim(object.(*corev1.Node)), object.(*corev1.Node).Labels[LANLabel]
	}
	d.peers[name] = fresh
	return fresh.data
}

// peerChanged reports whether a node's change matters to other devices.
func (d *Dispatcher) peerChanged(event store.Event) bool {
	if event.Type != store.Modified {
		return true
	}
	older, _ := d.reader.Object(store.Item{Key: event.Item.Key, Value: event.Prev})
	newer, _ := d.reader.Object(event.Item)
	before, ok := older.(*corev1.Node)
	after, alsoOK := newer.(*corev1.Node)
	return !ok || !alsoOK || before.Labels[LANLabel] != after.Labels[LANLabel] || !bytes.Equal(trim(before), trim(after))
}

func trim(node *corev1.Node) []byte {
	if len(node.Spec.PodCIDRs) == 0 && node.Spec.PodCIDR == "" {
		return nil
	}
	small := corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name},
		Spec:       corev1.NodeSpec{PodCIDR: node.Spec.PodCIDR, PodCIDRs: node.Spec.PodCIDRs},
		Status:     corev1.NodeStatus{Addresses: node.Status.Addresses},
	}
	data, err := small.Marshal()
	if err != nil {
		return nil
	}
	return data
}

// used lists the keys of the ConfigMaps, Secrets, RuntimeClasses and trust anchors that a pod uses, sorted.
func used(pod *corev1.Pod) []string {
	var keys []string
	add := func(kind, name string) {
		if name != "" {
			keys = append(keys, kind+"/"+pod.Namespace+"/"+name)
		}
	}
	for _, v := range pod.Spec.Volumes {
		usedByVolume(&v, add)
		keys = append(keys, projectedAnchors(&v)...)
		if v.Ephemeral != nil {
			add(claims, ephemeral.VolumeClaimName(pod, &v))
		}
	}
	each := func(env []corev1.EnvVar, from []corev1.EnvFromSource) {
		for _, e := range env {
			if ref := e.ValueFrom; ref != nil && ref.ConfigMapKeyRef != nil {
				add(configMaps, ref.ConfigMapKeyRef.Name)
			} else if ref != nil && ref.SecretKeyRef != nil {
				add(secrets, ref.SecretKeyRef.Name)
			}
		}
		for _, f := range from {
			if f.ConfigMapRef != nil {
				add(configMaps, f.ConfigMapRef.Name)
			}
			if f.SecretRef != nil {
				add(secrets, f.SecretRef.Name)
			}
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		each(c.Env, c.EnvFrom)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		each(c.Env, c.EnvFrom)
	}
	for _, s := range pod.Spec.ImagePullSecrets {
		add(secrets, s.Name)
	}
	if class := pod.Spec.RuntimeClassName; class != nil && *class != "" {
		keys = append(keys, classes+"/"+*class)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func usedByVolume(v *corev1.Volume, add func(kind, name string)) {
	if v.ConfigMap != nil {
		add(configMaps, v.ConfigMap.Name)
	}
	if v.PersistentVolumeClaim != nil {
		add(claims, v.PersistentVolumeClaim.ClaimName)
	}
	if v.Secret != nil {
		add(secrets, v.Secret.SecretName)
	}
	if v.Projected == nil {
		return
	}
	for _, s := range v.Projected.Sources {
		if s.ConfigMap != nil {
			add(configMaps, s.ConfigMap.Name)
		}
		if s.Secret != nil {
			add(secrets, s.Secret.Name)
		}
	}
}

func hash(data []byte) uint64 {
	h := fnv.New64a()
	h.Write(data) // never fails
	return h.Sum64()
}
