package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// devices owns which container has which piece of hardware. Each piece has one owner at a time; the database has the
// assignments, so that a restarted agent gives none away twice.
type devices struct {
	db  *database
	all []Device

	mu     sync.Mutex
	owners map[string]string // path -> uid/container
}

func newDevices(all []Device, db *database) *devices {
	d := &devices{db: db, all: all, owners: map[string]string{}}
	db.each(bucketDevices, "", func(path string, owner []byte) { d.owners[path] = string(owner) })
	return d
}

// capacity is what the node offers of each extended resource. A device that is unplugged is not offered.
func (d *devices) capacity() corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, dev := range d.all {
		q := list[corev1.ResourceName(dev.Resource)]
		if _, err := os.Stat(dev.Path); err == nil {
			q.Add(*resource.NewQuantity(1, resource.DecimalSI))
		} else if q.IsZero() {
			q = *resource.NewQuantity(0, resource.DecimalSI)
		}
		list[corev1.ResourceName(dev.Resource)] = q
	}
	return list
}

// inject assigns the devices that a container asks for and says how it gets them.
func (d *devices) inject(uid string, c *corev1.Container) ([]*criapi.Device, []*criapi.Mount, error) {
	var nodes []*criapi.Device
	var mounts []*criapi.Mount
	for name, q := range c.Resources.Limits {
		if !d.known(string(name)) {
			continue
		}
		assigned, err := d.assign(uid+"/"+c.Name, string(name), int(q.Value()))
		if err != nil {
			return nil, nil, err
		}
		for _, dev := range assigned {
			target := dev.ContainerPath
			if target == "" {
				target = dev.Path
			}
			path, err := filepath.EvalSymlinks(dev.Path)
			if err != nil {
				return nil, nil, fmt.Errorf("device %s: %w", dev.Resource, err)
			}
			info, err := os.Stat(path)
			if err != nil {
				return nil, nil, fmt.Errorf("device %s: %w", dev.Resource, err)
			}
			// A pty works only in the file system of ptys it was made in, so it is mounted, as a plain file is; the device
			// rules of every container allow ptys.
			if info.Mode()&os.ModeDevice != 0 && !strings.HasPrefix(path, "/dev/pts/") {
				nodes = append(nodes, &criapi.Device{HostPath: path, ContainerPath: target, Permissions: "rw"})
			} else {
				mounts = append(mounts, &criapi.Mount{HostPath: path, ContainerPath: target})
			}
		}
	}
	return nodes, mounts, nil
}

func (d *devices) known(name string) bool {
	for _, dev := range d.all {
		if dev.Resource == name {
			return true
		}
	}
	return false
}

func (d *devices) assign(owner, name string, count int) ([]Device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var has, free []Device
	for _, dev := range d.all {
		if dev.Resource != name {
			continue
		}
		switch d.owners[dev.Path] {
		case owner:
			has = append(has, dev)
		case "":
			if _, err := os.Stat(dev.Path); err == nil {
				free = append(free, dev)
			}
		}
	}
	if len(has)+len(free) < count {
		return nil, fmt.Errorf("no free device %s: %d wanted, %d free", name, count, len(has)+len(free))
	}
	changes := map[string][]byte{}
	for len(has) < count {
		has, free = append(has, free[0]), free[1:]
		changes[has[len(has)-1].Path] = []byte(owner)
	}
	if err := d.db.put(bucketDevices, changes); err != nil {
		return nil, fmt.Errorf("assign device %s: %w", name, err)
	}
	for path := range changes {
		d.owners[path] = owner
	}
	return has[:count], nil
}

// release frees the devices of a pod that is gone.
func (d *devices) release(uid string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	changes := map[string][]byte{}
	for path, owner := range d.owners {
		if strings.HasPrefix(owner, uid+"/") {
			changes[path] = nil
		}
	}
	if len(changes) == 0 {
		return nil
	}
	for path := range changes {
		delete(d.owners, path)
	}
	return d.db.put(bucketDevices, changes)
}
