package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/shoal-edge/shoal/agent/deviceplugin"
	"github.com/shoal-edge/shoal/agent/pod"
)

// Keys of the bucket of devices beside claims: the answers of device plugins, and the resources that plugins ever offered.
const (
	allocationPrefix = "allocation/"
	pluginPrefix     = "plugin/"
	// maxAllocation bounds an answer that is kept, in bytes.
	maxAllocation = 64 << 10
)

// allocation is what a plugin answered for a container.
type allocation struct {
	IDs      []string `json:"ids"`
	Response []byte   `json:"response"` // ContainerAllocateResponse
}

// keepPlugins serves device plugins. That it cannot is no reason to stop the pods.
func (a *Agent) keepPlugins(ctx context.Context) {
	if err := a.plugins.Run(ctx); err != nil && ctx.Err() == nil {
		a.c.Logger.Error("device plugins cannot register", "socket", a.c.PluginSocket, "err", err)
	}
}

// pluginChanged takes what a plugin offers.
func (a *Agent) pluginChanged(resource string, list []deviceplugin.Device) {
	var units []unit
	for _, d := range list {
		u := unit{id: pluginUnit(resource, d.ID), resource: resource, plugin: true}
		if !d.Healthy {
			u.lacks = "its device plugin says that it is not healthy, or is not there"
		}
		units = append(units, u)
	}
	if err := a.devices.setPlugin(resource, units); err != nil {
		a.c.Logger.Error("devices of a plugin", "resource", resource, "err", err)
	}
	a.wakeNode()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wakeWaiting()
}

func pluginUnit(resource, id string) string { return "plugin:" + resource + "/" + id }

// setPlugin replaces what a device plugin offers of its resource; nil when the plugin is gone for good. That there is such a
// resource is kept on the disk: after a restart no pod may start without its devices because the plugin is not back yet.
func (d *devices) setPlugin(resource string, units []unit) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, known := d.plugins[resource]
	d.plugins[resource] = units
	if known {
		return nil
	}
	return d.db.put(bucketDevices, map[string][]byte{pluginPrefix + resource: []byte("1")})
}

// isPlugin reports whether a plugin offers, or offered, a resource.
func (d *devices) isPlugin(resource string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.plugins[resource]
	return ok
}

// choices are the plugin's devices that a request may get, and those that it has; by the plugin's own ids.
func (d *devices) choices(r request) (available, has []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range d.plugins[r.resource] {
		held, taken := d.claims[u.id]
		mine := taken && held.Owner == r.uid+"/"+r.container
		lent := taken && slices.ContainsFunc(r.lend, func(c string) bool { return held.Owner == r.uid+"/"+c })
		if u.lacks != "" || taken && !mine && !lent {
			continue
		}
		id := strings.TrimPrefix(u.id, pluginUnit(r.resource, ""))
		available = append(available, id)
		if mine || lent {
			has = append(has, id)
		}
	}
	return available, has
}

// injectPlugin claims a plugin's devices and gives the container what the plugin says. The answer is kept, so that the container's
// next start gets the same.
func (a *Agent) injectPlugin(ctx context.Context, r request, in *injection) error {
	available, has := a.devices.choices(r)
	if len(has) < r.count && len(available) > r.count {
		for _, id := range a.plugins.Preferred(ctx, r.resource, available, has, r.count) {
			r.order = append(r.order, pluginUnit(r.resource, id))
		}
	}
	units, err := a.devices.assign(r)
	if err != nil {
		return err
	}
	list := make([]string, len(units))
	for i, u := range units {
		list[i] = strings.TrimPrefix(u.id, pluginUnit(r.resource, ""))
	}
	slices.Sort(list)
	answer, err := a.allocation(ctx, r, list)
	if err != nil {
		return err
	}
	if err := a.plugins.PreStart(ctx, r.resource, list); err != nil {
		return err
	}
	return in.answer(answer)
}

// allocation is the plugin's answer for a container, from the disk or else from the plugin.
func (a *Agent) allocation(ctx context.Context, r request, list []string) (*api.ContainerAllocateResponse, error) {
	key := allocationPrefix + r.uid + "/" + r.container + "/" + r.resource
	var kept allocation
	answer := &api.ContainerAllocateResponse{}
	if json.Unmarshal(a.db.get(bucketDevices, key), &kept) == nil && slices.Equal(kept.IDs, list) && proto.Unmarshal(kept.Response, answer) == nil {
		return answer, nil
	}
	answer, err := a.plugins.Allocate(ctx, r.resource, list)
	if err != nil {
		return nil, err
	}
	kept = allocation{IDs: list}
	if kept.Response, err = proto.Marshal(answer); err != nil {
		return nil, err
	}
	if len(kept.Response) > maxAllocation {
		return nil, fmt.Errorf("device plugin of %s: its answer of %d bytes is too long", r.resource, len(kept.Response))
	}
	data, err := json.Marshal(kept)
	if err != nil {
		return nil, err
	}
	return answer, a.devices.keepAllocation(r.uid, key, data)
}

// keepAllocation stores an answer while the claims that it is for are there.
func (d *devices) keepAllocation(uid, key string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.claims {
		if c.uid() == uid {
			return d.db.put(bucketDevices, map[string][]byte{key: data})
		}
	}
	return errors.New("the pod has given its devices back")
}

// answer adds what a plugin says that a container needs.
func (in *injection) answer(r *api.ContainerAllocateResponse) error {
	for _, d := range r.CdiDevices {
		in.cdi = append(in.cdi, d.Name)
	}
	for _, key := range slices.Sorted(maps.Keys(r.Envs)) {
		in.env = append(in.env, pod.Var{Name: key, Value: r.Envs[key]})
	}
	for _, m := range r.Mounts {
		in.mounts = append(in.mounts, &criapi.Mount{ContainerPath: m.ContainerPath, HostPath: m.HostPath, Readonly: m.ReadOnly})
	}
	for _, d := range r.Devices {
		for _, p := range d.Permissions {
			if !strings.ContainsRune("rwm", p) {
				return fmt.Errorf("its plugin wants the permissions %q; they are made of r, w and m", d.Permissions)
			}
		}
		in.devices = append(in.devices, &criapi.Device{ContainerPath: d.ContainerPath, HostPath: d.HostPath, Permissions: d.Permissions})
	}
	for key, value := range r.Annotations {
		if in.annotations == nil {
			in.annotations = map[string]string{}
		}
		in.annotations[key] = value
	}
	return nil
}
