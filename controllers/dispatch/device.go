package dispatch

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/transport"
)

// device is what the dispatcher knows of one device. It outlives the device's links, so that a device that comes back gets
// the same bytes for what has not changed.
type device struct {
	name      string
	connected bool // guarded by the dispatcher's lock

	// mu is held from reading a value in the store to handing it to the hub, so that the hub's last value is the newest.
	mu   sync.Mutex
	live bool                // guarded by mu: the hub takes changes
	has  map[string]version  // by key
	uses map[string][]string // by the key of a pod: the keys of what it uses
	need map[string]int      // by the key of a ConfigMap or Secret: how many pods use it
}

// version tells values apart: the print is a hash of what matters to the device, the revision that of the object when
// that last changed.
type version struct{ print, revision uint64 }

// Connected implements transport.Owner.
func (d *Dispatcher) Connected(name string) []transport.Item {
	d.mu.Lock()
	dev := d.devices[name]
	if dev == nil {
		dev = &device{name: name, has: make(map[string]version)}
		d.devices[name] = dev
	}
	dev.connected = true
	d.mu.Unlock()

	dev.mu.Lock()
	defer dev.mu.Unlock()
	dev.live = true
	dev.uses, dev.need = make(map[string][]string), make(map[string]int)
	var whole []transport.Item
	listed := make(map[string]bool)
	for _, key := range d.keysOf(dev) {
		if value, v, ok := d.value(dev, key); ok {
			dev.has[key] = v
			listed[key] = true
			whole = append(whole, transport.Item{Key: key, Value: value})
		}
	}
	for key := range dev.has {
		if !listed[key] {
			delete(dev.has, key)
		}
	}
	return whole
}

// Disconnected implements transport.Owner.
func (d *Dispatcher) Disconnected(name string) {
	d.mu.Lock()
	dev := d.devices[name]
	if dev != nil {
		dev.connected = false
	}
	d.mu.Unlock()
	if dev == nil {
		return
	}
	dev.mu.Lock()
	defer dev.mu.Unlock()
	dev.live = false
	for key := range dev.need {
		d.unuse(dev, key)
	}
	dev.uses, dev.need = nil, nil
	if _, exists := d.reader.Get(store.Key{Resource: nodes, Name: name}); !exists {
		d.mu.Lock()
		delete(d.devices, name)
		d.mu.Unlock()
	}
}

// compare sends all that differs from what the device has.
func (d *Dispatcher) compare(dev *device) {
	dev.mu.Lock()
	defer dev.mu.Unlock()
	if !dev.live {
		return
	}
	keys := d.keysOf(dev)
	listed := make(map[string]bool, len(keys))
	for _, key := range keys {
		listed[key] = true
	}
	for key := range dev.has {
		if !listed[key] {
			keys = append(keys, key)
		}
	}
	d.send(dev, keys)
}

// touch sends what differs of one key.
func (d *Dispatcher) touch(dev *device, key string) {
	dev.mu.Lock()
	defer dev.mu.Unlock()
	if !dev.live {
		return
	}
	before, after := d.follows(dev, key)
	d.send(dev, append(append(before, key), after...))
}

// send reads the present values of some keys and sends those that differ. The caller holds the device's lock.
func (d *Dispatcher) send(dev *device, keys []string) {
	var items []transport.Item
	for _, key := range keys {
		had, known := dev.has[key]
		value, v, ok := d.value(dev, key)
		switch {
		case ok && (!known || had != v):
			dev.has[key] = v
			items = append(items, transport.Item{Key: key, Value: value})
		case !ok && known && v != unread():
			delete(dev.has, key)
			items = append(items, transport.Item{Key: key, Deleted: true})
		}
	}
	if len(items) == 0 {
		return
	}
	d.mu.Lock()
	hub := d.hub
	d.mu.Unlock()
	if hub != nil {
		hub.Send(dev.name, items)
	}
}

// keysOf lists all keys that a device may have, what pods use before the pods. The caller holds the device's lock.
func (d *Dispatcher) keysOf(dev *device) []string {
	keys := []string{transport.ServersKey, "node", releaseKey, firmwareKey}
	var own []string
	present := make(map[string]bool)
	for _, pod := range store.ListBy[corev1.Pod](d.reader, "node", dev.name) {
		key := "pods/" + pod.Namespace + "/" + pod.Name
		d.setUses(dev, key, pod)
		own, present[key] = append(own, key), true
	}
	for key := range dev.uses {
		if !present[key] {
			d.setUses(dev, key, nil)
		}
	}
	for key := range dev.need {
		keys = append(keys, key)
	}
	list, _ := d.reader.List(nodes, "")
	lan := d.lan(dev.name)
	for _, item := range list {
		if item.Key.Name != dev.name && neighbours(lan, d.lan(item.Key.Name)) {
			keys = append(keys, "peers/"+item.Key.Name)
		}
	}
	keys = append(keys, d.reclaimKeys(dev.name)...)
	return append(keys, own...)
}

// follows finds what else to look at when a key has changed: what a pod has begun to use goes before it, what it has
// stopped using after. The caller holds the device's lock.
func (d *Dispatcher) follows(dev *device, key string) (before, after []string) {
	kind, namespace, name := splitKey(key)
	if kind != pods {
		return nil, nil
	}
	pod, ok := store.Get[corev1.Pod](d.reader, namespace, name)
	if !ok || pod.Spec.NodeName != dev.name {
		pod = nil
	}
	return d.setUses(dev, key, pod)
}

// setUses records what a pod uses; nil: the pod is gone. It returns the keys that came and went for the device.
func (d *Dispatcher) setUses(dev *device, key string, pod *corev1.Pod) (came, went []string) {
	older := dev.uses[key]
	var newer []string
	if pod != nil {
		newer = used(pod)
	}
	if slices.Equal(older, newer) {
		return nil, nil
	}
	for _, k := range newer {
		if dev.need[k]++; dev.need[k] == 1 {
			d.use(dev, k)
			came = append(came, k)
		}
	}
	for _, k := range older {
		if dev.need[k]--; dev.need[k] == 0 {
			delete(dev.need, k)
			d.unuse(dev, k)
			went = append(went, k)
		}
	}
	if dev.uses[key] = newer; len(newer) == 0 {
		delete(dev.uses, key)
	}
	return came, went
}

func (d *Dispatcher) use(dev *device, key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users[key] == nil {
		d.users[key] = make(map[*device]bool)
	}
	d.users[key][dev] = true
}

func (d *Dispatcher) unuse(dev *device, key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.users[key], dev)
	if len(d.users[key]) == 0 {
		delete(d.users, key)
	}
}
