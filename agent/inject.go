package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/cdi"
	"github.com/shoal-edge/shoal/agent/pod"
	apidevices "github.com/shoal-edge/shoal/api/devices"
)

// injection is what a container gets for the devices that it has.
type injection struct {
	devices []*criapi.Device
	mounts  []*criapi.Mount
	env     []pod.Var
	// annotations are of the container, for the runtime; cdi are names of CDI devices.
	annotations map[string]string
	cdi         []string
}

// inject claims the devices that a container asks for and says how it gets them: as device nodes with the permission to read and
// write them in the container's cgroup, never by making the container privileged.
func (a *Agent) inject(ctx context.Context, p *corev1.Pod, c *corev1.Container) (*injection, error) {
	list, err := requests(p, c)
	if err != nil || len(list) == 0 {
		return &injection{}, err
	}
	in := &injection{}
	for _, r := range list {
		if !a.devices.known(r.resource) {
			continue // an administrator's own count of something, behind which no device is
		}
		if a.devices.isPlugin(r.resource) {
			if err := a.injectPlugin(ctx, r, in); err != nil {
				return nil, err
			}
			continue
		}
		units, err := a.devices.assign(r)
		if err != nil {
			return nil, err
		}
		for i, u := range units {
			if err := in.unit(a.devices, u, i); err != nil {
				return nil, fmt.Errorf("device %s: %w", u.String(), err)
			}
		}
	}
	if epoch := a.devices.epoch(string(p.UID) + "/" + c.Name); epoch > 0 {
		in.env = append(in.env, pod.Var{Name: "SHOAL_DEVICE_EPOCH", Value: strconv.FormatUint(epoch, 10)})
	}
	return in, a.resolveCDI(in)
}

// resolveCDI has what the names of CDI devices stand for given by the runtime, or, if it does not know CDI, by us.
func (a *Agent) resolveCDI(in *injection) error {
	if len(in.cdi) == 0 || a.runtimeKnowsCDI() {
		return nil
	}
	edits, err := cdi.Resolve(a.c.CDIFolders, in.cdi)
	if err != nil {
		return err
	}
	in.cdi = nil
	for _, v := range edits.Env {
		name, value, _ := strings.Cut(v, "=")
		in.env = append(in.env, pod.Var{Name: name, Value: value})
	}
	for _, n := range edits.DeviceNodes {
		in.devices = append(in.devices, &criapi.Device{HostPath: n.HostPath, ContainerPath: n.Path, Permissions: n.Permissions})
	}
	for _, m := range edits.Mounts {
		in.mounts = append(in.mounts, &criapi.Mount{HostPath: m.HostPath, ContainerPath: m.ContainerPath, Readonly: m.ReadOnly()})
	}
	return nil
}

// runtimeKnowsCDI: containerd does since 2.0 without being told to. Earlier ones ignore the field, so the device would be missing.
func (a *Agent) runtimeKnowsCDI() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	major, _, _ := strings.Cut(a.info.Version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && a.info.Name == "containerd" && n >= 2
}

// unit adds one device, the i-th of its resource.
func (in *injection) unit(d *devices, u unit, i int) error {
	for n, node := range u.nodes {
		target := node
		if n == 0 && u.target != "" {
			target = u.target
		}
		path, err := filepath.EvalSymlinks(node)
		if os.IsNotExist(err) && n > 0 {
			continue // a node beside the main one, which the kernel or udev did not make
		}
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		// A pty works only in the file system of ptys it was made in, so it is mounted, as a plain file is; the device rules of
		// every container allow ptys.
		if info.Mode()&os.ModeDevice != 0 && !strings.HasPrefix(path, "/dev/pts/") {
			in.devices = append(in.devices, &criapi.Device{HostPath: path, ContainerPath: target, Permissions: "rw"})
		} else {
			in.mounts = append(in.mounts, &criapi.Mount{HostPath: path, ContainerPath: target})
		}
		if n > 0 {
			continue
		}
		in.env = append(in.env, pod.Var{Name: variable(u.resource) + "_" + strconv.Itoa(i), Value: target})
		if err := d.note(u.id, nodeNumber(path)); err != nil {
			return err
		}
	}
	return nil
}

// variable is the environment variable of a resource: SHOAL_DEVICE_SERIAL for shoal.dev/serial.
func variable(resource string) string {
	name := strings.ToUpper(strings.TrimPrefix(resource, apidevices.Domain))
	return "SHOAL_DEVICE_" + strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
}

// nodeNumber is a device node's number, as sysfs writes it; "" for other files.
func nodeNumber(path string) string {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil || s.Mode&unix.S_IFMT != unix.S_IFCHR && s.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	return strconv.FormatUint(uint64(unix.Major(uint64(s.Rdev))), 10) + ":" + strconv.FormatUint(uint64(unix.Minor(uint64(s.Rdev))), 10)
}

// withDevices puts the devices' variables before those of the pod, which win.
func (in *injection) withDevices(env []pod.Var) []pod.Var {
	own := map[string]bool{}
	for _, v := range env {
		own[v.Name] = true
	}
	all := make([]pod.Var, 0, len(in.env)+len(env))
	for _, v := range in.env {
		if !own[v.Name] {
			all = append(all, v)
		}
	}
	return append(all, env...)
}
