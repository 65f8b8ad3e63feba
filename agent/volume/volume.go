// Package volume owns the folders that pods mount: made before a pod's sandbox, updated atomically while it runs, and gone
// with it. Paths follow from the pod alone, so a restarted agent needs no record of them.
package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/pod"
)

// Manager makes volumes below Root, a folder for each pod.
type Manager struct {
	Root   string
	Source pod.Source
	// Claims looks up the volume that a claim is bound to; nil means that there is none. Local is the folder of the volumes that were
	// made for claims: unlike Root it outlives the pods.
	Claims func(namespace, name string) *corev1.PersistentVolume
	Local  string
	// Tokens are those of the pods' service accounts. Nil: pods run without.
	Tokens Tokens
	// Anchors are the certificates of the trust bundles that a projection means, as PEM; ok is false when it means none. Nil: there are none.
	Anchors func(p *corev1.ClusterTrustBundleProjection) (certificates []byte, ok bool)
}

// Tokens has the tokens of service accounts. It does not wait; soon says that one should be there in a moment.
type Tokens interface {
	Token(p *corev1.Pod, projection *corev1.ServiceAccountTokenProjection) (value []byte, soon bool)
}

// ErrTokenSoon says that a pod's token is on its way.
var ErrTokenSoon = errors.New("the service account's token is on its way")

// Dir is the folder of everything of one pod.
func (m *Manager) Dir(uid string) string { return filepath.Join(m.Root, uid) }

// Path is where a volume's content is on this device.
func (m *Manager) Path(p *corev1.Pod, v *corev1.Volume) string {
	if v.HostPath != nil {
		return v.HostPath.Path
	}
	if ClaimName(p, v) != "" {
		if pv, err := m.claimed(p, v); err == nil {
			return m.pathOf(pv)
		}
		return ""
	}
	return filepath.Join(m.Dir(string(p.UID)), "volumes", v.Name)
}

// Setup makes all volumes of a pod what they should be. What is right already is not touched.
func (m *Manager) Setup(p *corev1.Pod, f pod.Facts) error {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if err := m.setup(p, v, f); err != nil {
			return fmt.Errorf("volume %q: %w", v.Name, err)
		}
	}
	return nil
}

// Update brings the written volumes (configMap, secret, downwardAPI, projected) of a running pod up to date.
func (m *Manager) Update(p *corev1.Pod, f pod.Facts) error {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.ConfigMap == nil && v.Secret == nil && v.DownwardAPI == nil && v.Projected == nil {
			continue
		}
		if err := m.setup(p, v, f); err != nil {
			return fmt.Errorf("volume %q: %w", v.Name, err)
		}
	}
	return nil
}

func (m *Manager) setup(p *corev1.Pod, v *corev1.Volume, f pod.Facts) error {
	dir := m.Path(p, v)
	var group *int64
	if p.Spec.SecurityContext != nil {
		group = p.Spec.SecurityContext.FSGroup
	}
	switch {
	case v.HostPath != nil:
		return hostPath(v.HostPath)
	case ClaimName(p, v) != "":
		return m.setupClaim(p, v, group)
	case v.EmptyDir != nil:
		return emptyDir(dir, v.EmptyDir, group, memoryFor(p, v.EmptyDir, f))
	case v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil, v.Projected != nil:
		files, err := m.files(p, v, f)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		return replaceAll(dir, files, group)
	}
	return errors.New("this kind of volume is not supported")
}

// memoryFor is how large a volume in memory may become: its limit, the pod's, and what the device has for pods. Without any, the kernel
// would give it half of the memory.
func memoryFor(p *corev1.Pod, v *corev1.EmptyDirVolumeSource, f pod.Facts) int64 {
	most := f.Allocatable.Memory().Value()
	if limit, all := pod.Limited(p, corev1.ResourceMemory); all && limit > 0 && (most <= 0 || limit < most) {
		most = limit
	}
	if v.SizeLimit != nil && v.SizeLimit.Value() > 0 && (most <= 0 || v.SizeLimit.Value() < most) {
		most = v.SizeLimit.Value()
	}
	return most
}

func emptyDir(dir string, v *corev1.EmptyDirVolumeSource, group *int64, most int64) error {
	if _, err := os.Stat(dir); err == nil && (v.Medium != corev1.StorageMediumMemory || mounted(dir)) {
		return nil // it may hold data by now
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if v.Medium == corev1.StorageMediumMemory {
		options := ""
		if most > 0 {
			options = fmt.Sprintf("size=%d", most)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
			return fmt.Errorf("mount tmpfs: %w", err)
		}
	}
	if group == nil {
		return os.Chmod(dir, 0o777)
	}
	return own(dir, 0o777|fs.ModeSetgid, group)
}

func mounted(dir string) bool {
	var here, above unix.Stat_t
	if unix.Stat(dir, &here) != nil || unix.Stat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}

func hostPath(v *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if v.Type != nil {
		kind = *v.Type
	}
	info, err := os.Stat(v.Path)
	if errors.Is(err, fs.ErrNotExist) {
		switch kind {
		case corev1.HostPathDirectoryOrCreate:
			return os.MkdirAll(v.Path, 0o755)
		case corev1.HostPathFileOrCreate:
			f, err := os.OpenFile(v.Path, os.O_CREATE|os.O_RDWR, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		case corev1.HostPathUnset:
			return nil // containerd makes a folder of it
		}
	}
	if err != nil {
		return err
	}
	mode, ok := info.Mode(), true
	switch kind {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		ok = mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		ok = mode.IsRegular()
	case corev1.HostPathSocket:
		ok = mode&fs.ModeSocket != 0
	case corev1.HostPathCharDev:
		ok = mode&fs.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		ok = mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not of type %s", v.Path, kind)
	}
	return nil
}

// Clear unmounts and removes the volumes of a pod that is over.
func (m *Manager) Clear(uid string) error { return m.remove(uid, "volumes") }

// TearDown unmounts and removes everything of a pod. It never follows a mount into somebody's data.
func (m *Manager) TearDown(uid string) error { return m.remove(uid, "") }

func (m *Manager) remove(uid, part string) error {
	dir := filepath.Join(m.Dir(uid), part)
	if uid == "" || strings.ContainsAny(uid, "/\x00") || uid == ".." {
		return fmt.Errorf("pod uid %q is no name of a folder", uid)
	}
	for _, point := range mountsBelow(dir) {
		if err := unix.Unmount(point, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	return os.RemoveAll(dir)
}

func mountsBelow(dir string) []string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			points = append(points, f[1])
		}
	}
	slices.Reverse(points)
	return points
}
