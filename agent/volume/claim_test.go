package volume

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/test/need"
)

func TestPersistentVolumes(t *testing.T) {
	dir := t.TempDir()
	made := map[string]string{"pv.kubernetes.io/provisioned-by": "shoal.dev/local-path"}
	block := corev1.PersistentVolumeBlock
	volumes := map[string]*corev1.PersistentVolume{
		"made":    {ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Annotations: made}},
		"evil":    {ObjectMeta: metav1.ObjectMeta{Name: "../x", Annotations: made}},
		"local":   {Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: dir}}}},
		"missing": {Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: dir + "/none"}}}},
		"block":   {Spec: corev1.PersistentVolumeSpec{VolumeMode: &block}},
		"nfs":     {Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{}}}},
	}
	m := &Manager{Root: dir + "/pods", Local: dir + "/volumes", Source: source{}, Claims: func(_, name string) *corev1.PersistentVolume { return volumes[name] }}
	for name, want := range map[string]string{
		"made": "", "local": "", "missing": "is not on this device", "block": "block volumes", "nfs": "not supported", "evil": "not supported",
		"unbound": `persistentvolumeclaim "unbound" is not bound`,
	} {
		p := newPod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name, ReadOnly: true}}})
		err := m.Setup(p, pod.Facts{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		c := &corev1.Container{VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v", SubPath: "sub"}}}
		if mounts, err := m.Mounts(p, c, nil); err == nil && (!mounts[0].Readonly || filepath.Base(mounts[0].HostPath) != "sub") {
			t.Errorf("%s: %+v", name, mounts)
		} else if err != nil && want == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "../pods"} {
		if err := m.RemoveLocal(name); err == nil {
			t.Errorf("removed %q", name)
		}
	}
	if err := m.RemoveLocal("pvc-1"); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(m.Local); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestMemoryFor(t *testing.T) {
	limits := func(memory string) *corev1.Pod {
		p := newPod()
		p.Spec.Containers = []corev1.Container{{}}
		if memory != "" {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
		}
		return p
	}
	device := pod.Facts{Allocatable: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")}}
	small := resource.MustParse("1Mi")
	for _, tc := range []struct {
		p    *corev1.Pod
		v    corev1.EmptyDirVolumeSource
		f    pod.Facts
		want int64
	}{
		{limits(""), corev1.EmptyDirVolumeSource{}, pod.Facts{}, 0},
		{limits(""), corev1.EmptyDirVolumeSource{}, device, 256 << 20},
		{limits("64Mi"), corev1.EmptyDirVolumeSource{}, device, 64 << 20},
		{limits("1Gi"), corev1.EmptyDirVolumeSource{}, device, 256 << 20},
		{limits("64Mi"), corev1.EmptyDirVolumeSource{SizeLimit: &small}, device, 1 << 20},
		{limits(""), corev1.EmptyDirVolumeSource{SizeLimit: &small}, pod.Facts{}, 1 << 20},
	} {
		if got := memoryFor(tc.p, &tc.v, tc.f); got != tc.want {
			t.Errorf("%+v: %d, want %d", tc.v, got, tc.want)
		}
	}
}

// What is in a volume belongs to the pod's group, also what was there before; the second time nothing is walked through.
func TestVolumeGroup(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "sub", "file")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat("/etc/passwd")
	if err := ownAll(dir, 4321); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o660 {
		t.Errorf("file: %v", info.Mode())
	}
	if info, _ := os.Stat(filepath.Dir(file)); info.Mode().Perm() != 0o770 || info.Mode()&fs.ModeSetgid == 0 {
		t.Errorf("folder: %v", info.Mode())
	}
	if after, _ := os.Stat("/etc/passwd"); after.Mode() != before.Mode() {
		t.Errorf("what a link leads to was changed: %v", after.Mode())
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ownAll(dir, 4321); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("it was walked through again: %v", info.Mode())
	}
}
