package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/pod"
)

// Mounts are a container's mounts of its pod's volumes.
func (m *Manager) Mounts(p *corev1.Pod, c *corev1.Container, env []pod.Var) ([]*criapi.Mount, error) {
	var mounts []*criapi.Mount
	for _, vm := range c.VolumeMounts {
		v := find(p, vm.Name)
		if v == nil {
			return nil, fmt.Errorf("volume %q is not in the pod", vm.Name)
		}
		source, err := m.source(p, v, vm, env)
		if err != nil {
			return nil, fmt.Errorf("mount of volume %q at %s: %w", vm.Name, vm.MountPath, err)
		}
		target := vm.MountPath
		if !filepath.IsAbs(target) {
			target = "/" + target
		}
		if vm.RecursiveReadOnly != nil && *vm.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled {
			return nil, fmt.Errorf("mount of volume %q at %s: recursiveReadOnly is Enabled, which this device's container runtime does not know", vm.Name, vm.MountPath)
		}
		// What the agent writes is replaced by the agent alone: a container that changed it would change it for others.
		readonly := vm.ReadOnly || v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly || v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
		mounts = append(mounts, &criapi.Mount{HostPath: source, ContainerPath: target, Readonly: readonly, Propagation: propagation(vm)})
	}
	return mounts, nil
}

func find(p *corev1.Pod, name string) *corev1.Volume {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Name == name {
			return &p.Spec.Volumes[i]
		}
	}
	return nil
}

func propagation(vm corev1.VolumeMount) criapi.MountPropagation {
	if vm.MountPropagation != nil {
		switch *vm.MountPropagation {
		case corev1.MountPropagationHostToContainer:
			return criapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		case corev1.MountPropagationBidirectional:
			return criapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}
	}
	return criapi.MountPropagation_PROPAGATION_PRIVATE
}

// source is the volume's path, or that of a file or folder in it, which must not lead out of the volume.
func (m *Manager) source(p *corev1.Pod, v *corev1.Volume, vm corev1.VolumeMount, env []pod.Var) (string, error) {
	base, sub := m.Path(p, v), vm.SubPath
	if base == "" {
		return "", errors.New("the volume is not there")
	}
	if vm.SubPathExpr != "" {
		sub = pod.Expand([]string{vm.SubPathExpr}, env)[0]
	}
	if sub == "" {
		return base, nil
	}
	if sub = filepath.Clean(sub); !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q leaves the volume", sub)
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	if _, err := root.Stat(sub); os.IsNotExist(err) {
		if err := root.MkdirAll(sub, 0o755); err != nil {
			return "", fmt.Errorf("subPath: %w", err)
		}
	} else if err != nil {
		return "", fmt.Errorf("subPath: %w", err)
	}
	real, err := filepath.EvalSymlinks(filepath.Join(base, sub))
	if err != nil {
		return "", err
	}
	if realBase, err := filepath.EvalSymlinks(base); err != nil || !strings.HasPrefix(real+"/", realBase+"/") {
		return "", fmt.Errorf("subPath %q leaves the volume", sub)
	}
	return real, nil
}
