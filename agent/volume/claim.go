package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/storage/ephemeral"
)

// localPath is the provisioner of folders below Manager.Local.
const localPath = "shoal.dev/local-path"

// ClaimName is the claim of a pod's volume, its own or one that it names; empty: the volume is of another kind.
func ClaimName(p *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return ephemeral.VolumeClaimName(p, v)
	}
	return ""
}

// claimed is the persistent volume of a pod's volume.
func (m *Manager) claimed(p *corev1.Pod, v *corev1.Volume) (*corev1.PersistentVolume, error) {
	name := ClaimName(p, v)
	if m.Claims != nil {
		if pv := m.Claims(p.Namespace, name); pv != nil {
			return pv, nil
		}
	}
	return nil, fmt.Errorf("persistentvolumeclaim %q is not bound to a volume", name)
}

// localDir is where the content of a volume is that was made for a claim; empty: it was not made here.
func (m *Manager) localDir(pv *corev1.PersistentVolume) string {
	if pv.Annotations["pv.kubernetes.io/provisioned-by"] != localPath || strings.ContainsRune(pv.Name, '/') {
		return ""
	}
	return filepath.Join(m.Local, pv.Name)
}

// pathOf is where a persistent volume is on this device; empty for the kinds of volumes that it does not know.
func (m *Manager) pathOf(pv *corev1.PersistentVolume) string {
	switch dir := m.localDir(pv); {
	case dir != "":
		return dir
	case pv.Spec.Local != nil:
		return pv.Spec.Local.Path
	case pv.Spec.HostPath != nil:
		return pv.Spec.HostPath.Path
	}
	return ""
}

func (m *Manager) setupClaim(p *corev1.Pod, v *corev1.Volume, group *int64) error {
	pv, err := m.claimed(p, v)
	if err != nil {
		return err
	}
	if pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode != corev1.PersistentVolumeFilesystem {
		return errors.New("block volumes are not supported")
	}
	dir := m.localDir(pv)
	switch {
	case dir != "":
		if _, err := os.Stat(dir); err == nil {
			break
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o777); err != nil { // whatever user the pod runs as
			return err
		}
	case pv.Spec.HostPath != nil:
		return hostPath(pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		if dir = pv.Spec.Local.Path; !isDir(dir) {
			return fmt.Errorf("the local volume %s is not on this device: %s is no folder", pv.Name, dir)
		}
	default:
		return fmt.Errorf("persistent volume %s is of a kind that is not supported", pv.Name)
	}
	if group == nil {
		return nil
	}
	return ownAll(dir, int(*group))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// ownAll gives a folder and all in it to a group. When the folder is the group's already, so is what is in it, and nothing is walked
// through: volumes may be large.
func ownAll(dir string, group int) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Gid) == group && info.Mode()&fs.ModeSetgid != 0 {
		return nil
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if err := os.Lchown(path, -1, group); err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode() | 0o660
		if d.IsDir() {
			mode |= 0o110 | fs.ModeSetgid
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		return err
	}
	g := int64(group) // the folder itself last: it says that all in it is done
	return own(dir, info.Mode().Perm()|0o770|fs.ModeSetgid, &g)
}

// RemoveLocal removes the content of a volume that was made for a claim.
func (m *Manager) RemoveLocal(name string) error {
	if !filepath.IsLocal(name) || strings.ContainsRune(name, '/') || name == "." {
		return fmt.Errorf("%q is no name of a volume", name)
	}
	return os.RemoveAll(filepath.Join(m.Local, name))
}
