package agent

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-edge/shoal/agent/hardware"
	apidevices "github.com/shoal-edge/shoal/api/devices"
)

// devices owns the list of the device's hardware, and which container has which piece of it. Each piece has one owner at a time;
// the database has the claims, so that a restarted agent gives none away twice.
type devices struct {
	db     *database
	logger *slog.Logger
	scan   func() ([]hardware.Device, error) // nil: nothing to look for

	// looking is held during a scan, so that an older look never overwrites a newer one.
	looking sync.Mutex
	mu      sync.Mutex
	found   []hardware.Device // as last scanned, sorted
	numbers map[string]string // of the main node of what was found, by id
	plugins map[string][]unit // by resource, from device plugins
	claims  map[string]claim  // by the id of the unit
}

// unit is one piece of hardware that pods can have, whoever found it.
type unit struct {
	id, resource string
	// lacks says why it cannot be had now; empty: it can.
	lacks      string
	nodes      []string // paths on this device, the main one first; none for a plugin's
	target     string   // of the first node, in a container; empty: the same path
	attributes hardware.Device
	numa       int64 // of a plugin's device, -1 when it says none
	plugin     bool
}

func newDevices(c Config, db *database) (*devices, error) {
	d := &devices{db: db, logger: c.Logger, plugins: map[string][]unit{}, claims: map[string]claim{}}
	switch {
	case c.Hardware != nil:
		h := *c.Hardware
		d.scan = func() ([]hardware.Device, error) { return hardware.Scan(h) }
	case len(c.Devices) > 0:
		d.scan = func() ([]hardware.Device, error) {
			return hardware.Scan(hardware.Config{Classes: []string{"none"}, Declared: c.Devices})
		}
	}
	if _, err := d.rescan(); err != nil {
		return nil, err
	}
	return d, d.load()
}

// rescan looks at the hardware again and reports whether anything is different.
func (d *devices) rescan() (changed bool, err error) {
	if d.scan == nil {
		return false, nil
	}
	d.looking.Lock()
	defer d.looking.Unlock()
	found, err := d.scan()
	if err != nil {
		return false, err
	}
	numbers := map[string]string{}
	for _, f := range found {
		if n := nodeNumber(f.Nodes[0]); f.Left == "" && n != "" {
			numbers[f.ID] = n
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	same := slices.EqualFunc(d.found, found, func(a, b hardware.Device) bool { return a.Equal(b) }) && maps.Equal(d.numbers, numbers)
	d.found, d.numbers = found, numbers
	return !same, nil
}

// units are all that pods can ask for, in a fixed order; the caller holds the lock.
func (d *devices) units() []unit {
	var list []unit
	for _, f := range d.found {
		if f.Resource != "" {
			list = append(list, unit{id: f.ID, resource: f.Resource, lacks: f.Left, nodes: f.Nodes, target: f.Target, attributes: f, numa: -1})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.plugins)) {
		list = append(list, d.plugins[name]...)
	}
	slices.SortStableFunc(list, func(a, b unit) int { return cmp.Compare(a.id, b.id) })
	return list
}

// amounts is what the node has of each extended resource. What is unplugged is not there; what a plugin calls unhealthy is
// there, but is not to be had.
func (d *devices) amounts() (capacity, allocatable corev1.ResourceList) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, free := map[string]int64{}, map[string]int64{}
	for resource, units := range d.plugins {
		all[resource], free[resource] = int64(len(units)), 0
	}
	for _, u := range d.units() {
		ok := int64(0)
		if u.lacks == "" {
			ok = 1
		}
		free[u.resource] += ok
		if !u.plugin {
			all[u.resource] += ok
		}
	}
	return quantities(all), quantities(free)
}

func quantities(n map[string]int64) corev1.ResourceList {
	list := corev1.ResourceList{}
	for name, count := range n {
		list[corev1.ResourceName(name)] = *resource.NewQuantity(count, resource.DecimalSI)
	}
	return list
}

// annotation tells the control plane what the units are that the amounts count.
func (d *devices) annotation() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []apidevices.Device
	for _, f := range d.found {
		if f.Offered() {
			list = append(list, apidevices.Device{Resource: f.Resource, Name: f.Name, Attributes: f.Attributes})
		}
	}
	return apidevices.Encode(list)
}

// known reports whether this device has, or had, anything of a resource.
func (d *devices) known(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.HasPrefix(name, apidevices.Domain) {
		return true
	}
	if _, ok := d.plugins[name]; ok {
		return true
	}
	for _, c := range d.claims {
		if c.Resource == name {
			return true
		}
	}
	return slices.ContainsFunc(d.found, func(f hardware.Device) bool { return f.Resource == name })
}

// extended reports whether a resource is one that devices are behind: not the device's own, such as cpu or hugepages.
func extended(name string) bool {
	domain, _, ok := strings.Cut(name, "/")
	return ok && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io")
}

func (u *unit) String() string { return fmt.Sprintf("%s (%s)", u.resource, u.id) }
