package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	apidevices "github.com/shoal-edge/shoal/api/devices"
)

// claim says that a container has a unit. It is on the disk before the container is created.
type claim struct {
	// Owner is uid/container.
	Owner    string `json:"owner"`
	Resource string `json:"resource"`
	// Epoch is the newest revision of the cluster's state that the device had heard of when it made the claim. A device that is
	// cut off hears of none, so of two that drive one machine the one that was put in the other's place has the higher one: the
	// container passes it on, and the machine refuses what comes with a lower one than it has seen.
	Epoch uint64 `json:"epoch"`
	// Number is that of the main node when the container was created, as in "188:0". It tells whether what was plugged in again
	// is what the container has.
	Number string `json:"number,omitempty"`
}

// load reads the claims. Versions before had the path of a node as the key and the owner as the value.
func (d *devices) load() error {
	old := map[string][]byte{}
	d.db.each(bucketDevices, "", func(key string, value []byte) {
		if resource, ok := strings.CutPrefix(key, pluginPrefix); ok {
			d.plugins[resource] = nil // known, though its plugin is not there yet
			return
		}
		if strings.HasPrefix(key, allocationPrefix) {
			return
		}
		var c claim
		id := key
		if strings.HasPrefix(key, "/") {
			id = d.idOf(key)
			c.Owner = string(value)
			old[key] = nil
		} else if err := json.Unmarshal(value, &c); err != nil {
			d.logger.Error("a claim on a device cannot be read, it is kept from everybody", "device", key, "err", err)
			c.Owner = "unknown/unknown"
		}
		d.claims[id] = c
	})
	if len(old) == 0 {
		return nil
	}
	for id, c := range d.claims {
		old[id] = c.encode()
	}
	return d.db.put(bucketDevices, old)
}

func (d *devices) idOf(path string) string {
	for _, f := range d.found {
		if slices.Contains(f.Nodes, path) || f.Target == path {
			return f.ID
		}
	}
	return "path:" + path
}

func (c claim) encode() []byte {
	data, _ := json.Marshal(c) // strings and a number
	return data
}

func (c claim) uid() string {
	uid, _, _ := strings.Cut(c.Owner, "/")
	return uid
}

// request is what one container wants of one resource.
type request struct {
	uid, container, resource string
	count                    int
	match                    apidevices.Match
	// lend are containers of the same pod that never run at the same time: what they have, this one may take over.
	lend []string
	// order is what a plugin would like to be chosen first, by the ids of units.
	order []string
}

// requests are what a container asks for, by resource, in a fixed order.
func requests(p *corev1.Pod, c *corev1.Container) ([]request, error) {
	var list []request
	for name, q := range c.Resources.Limits {
		if !extended(string(name)) || q.Value() <= 0 {
			continue
		}
		match, err := apidevices.Wanted(p.Annotations, string(name))
		if err != nil {
			return nil, err
		}
		list = append(list, request{
			uid: string(p.UID), container: c.Name, resource: string(name), count: int(q.Value()), match: match, lend: lenders(p, c),
		})
	}
	slices.SortFunc(list, func(a, b request) int { return strings.Compare(a.resource, b.resource) })
	return list, nil
}

// lenders are the containers whose devices a container may take over, since the pod asks for the most that it needs at a time:
// init containers run one after the other, and before the others.
func lenders(p *corev1.Pod, c *corev1.Container) []string {
	var inits, others []string
	mine := false
	pod.Containers(p, func(other *corev1.Container, init bool) {
		once := init && (other.RestartPolicy == nil || *other.RestartPolicy != corev1.ContainerRestartPolicyAlways)
		switch {
		case other.Name == c.Name:
			mine = once
		case once:
			inits = append(inits, other.Name)
		default:
			others = append(others, other.Name)
		}
	})
	if mine {
		return slices.Concat(inits, others)
	}
	return inits
}

// assign makes the claims of a request, or finds those that are there. The choice depends on nothing but the list of units and
// the claims: what the container has already, then what its pod can lend it, then the first that is free.
func (d *devices) assign(r request) ([]unit, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	owner := r.uid + "/" + r.container
	var has, lent, free []unit
	missing := ""
	seen := map[string]bool{}
	for _, u := range d.units() {
		if u.resource != r.resource {
			continue
		}
		seen[u.id] = true
		held, taken := d.claims[u.id]
		switch {
		case taken && held.Owner == owner && u.lacks == "":
			has = append(has, u)
		case taken && held.Owner == owner:
			missing = fmt.Sprintf("%s: %s", u.String(), u.lacks)
		case u.lacks != "" || len(r.match) > 0 && !u.fits(r.match):
		case taken && slices.ContainsFunc(r.lend, func(c string) bool { return held.Owner == r.uid+"/"+c }):
			lent = append(lent, u)
		case !taken && !d.reserved(u.id):
			free = append(free, u)
		}
	}
	for id, held := range d.claims {
		if held.Owner == owner && held.Resource == r.resource && !seen[id] {
			missing = fmt.Sprintf("%s (%s): it is not plugged in, or not offered any more", r.resource, id)
		}
	}
	if err := d.unnote(owner); err != nil {
		return nil, err
	}
	if len(has) < r.count && missing != "" {
		// Another unit is another machine: the pod waits for its own.
		return nil, fmt.Errorf("the pod's device %s", missing)
	}
	if have := len(has) + len(lent) + len(free); have < r.count {
		what := r.resource
		if len(r.match) > 0 {
			what += " with " + r.match.String()
		}
		return nil, fmt.Errorf("no free device %s: %d wanted, %d free", what, r.count, have)
	}
	return d.take(r, owner, has, lent, free)
}

// take persists the claims; the caller holds the lock.
func (d *devices) take(r request, owner string, has, lent, free []unit) ([]unit, error) {
	if len(r.order) > 0 {
		by := func(a, b unit) int { return rankOf(r.order, a.id) - rankOf(r.order, b.id) }
		slices.SortStableFunc(lent, by)
		slices.SortStableFunc(free, by)
	}
	changes, made := map[string][]byte{}, map[string]claim{}
	epoch := d.db.heard()
	for _, u := range slices.Concat(lent, free) {
		if len(has) >= r.count {
			break
		}
		c := claim{Owner: owner, Resource: r.resource, Epoch: epoch}
		if held, ok := d.claims[u.id]; ok {
			c.Epoch = held.Epoch // the pod's claim goes on
		}
		has = append(has, u)
		made[u.id], changes[u.id] = c, c.encode()
	}
	if err := d.db.put(bucketDevices, changes); err != nil {
		return nil, fmt.Errorf("assign device %s: %w", r.resource, err)
	}
	for id, c := range made {
		d.claims[id] = c
	}
	return has[:r.count], nil
}

func (u *unit) fits(m apidevices.Match) bool { return !u.plugin && u.attributes.Matches(m) }

// reserved reports whether a container that runs has the number of a unit from a device that had it before: until it is stopped, nobody
// else may get it. The caller holds the lock.
func (d *devices) reserved(id string) bool {
	number := d.numbers[id]
	for other, c := range d.claims {
		if number != "" && c.Number == number && other != id {
			return true
		}
	}
	return false
}

// unnote forgets the numbers of what a container had, which is about to be created and so does not run; the caller holds the lock.
func (d *devices) unnote(owner string) error {
	changes := map[string][]byte{}
	for id, c := range d.claims {
		if c.Owner == owner && c.Number != "" && c.Number != d.numbers[id] {
			c.Number = ""
			changes[id] = c.encode()
			d.claims[id] = c
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return d.db.put(bucketDevices, changes)
}

func ids(units []unit) []string {
	list := make([]string, len(units))
	for i, u := range units {
		list[i] = u.id
	}
	return list
}

func rankOf(order []string, id string) int {
	if at := slices.Index(order, id); at >= 0 {
		return at
	}
	return len(order)
}

// epoch is the highest of a container's claims.
func (d *devices) epoch(owner string) (epoch uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.claims {
		if c.Owner == owner {
			epoch = max(epoch, c.Epoch)
		}
	}
	return epoch
}

// note keeps the number of the node that a container gets.
func (d *devices) note(id, number string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.claims[id]
	if !ok || c.Number == number {
		return nil
	}
	c.Number = number
	if err := d.db.put(bucketDevices, map[string][]byte{id: c.encode()}); err != nil {
		return fmt.Errorf("note a device's number: %w", err)
	}
	d.claims[id] = c
	return nil
}

// release frees the devices of a pod that is gone, or has ended for good, and reports whether it had any.
func (d *devices) release(uid string) (had bool, err error) {
	return d.sweep(func(other string) bool { return other != uid })
}

// sweep frees the devices of the pods that are not to be kept.
func (d *devices) sweep(keep func(uid string) bool) (freed bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changes := map[string][]byte{}
	for id, c := range d.claims {
		if !keep(c.uid()) {
			changes[id] = nil
		}
	}
	d.db.each(bucketDevices, allocationPrefix, func(key string, _ []byte) {
		uid, _, _ := strings.Cut(strings.TrimPrefix(key, allocationPrefix), "/")
		if !keep(uid) {
			changes[key] = nil
		}
	})
	if len(changes) == 0 {
		return false, nil
	}
	if err := d.db.put(bucketDevices, changes); err != nil {
		return false, fmt.Errorf("release devices: %w", err)
	}
	for id := range changes {
		delete(d.claims, id)
	}
	return true, nil
}
