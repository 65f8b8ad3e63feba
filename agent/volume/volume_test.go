package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/agent/pod"
)

type source map[string]string

func (s source) ConfigMap(_, name string) *corev1.ConfigMap {
	if name != "c" {
		return nil
	}
	return &corev1.ConfigMap{Data: s}
}

func (s source) Secret(_, name string) *corev1.Secret {
	if name != "s" {
		return nil
	}
	return &corev1.Secret{Data: map[string][]byte{"password": []byte("x")}}
}

func newPod(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u", Labels: map[string]string{"app": "a"}},
		Spec:       corev1.PodSpec{Volumes: volumes},
	}
}

func configMap(name string) corev1.VolumeSource {
	return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestConfigMapIsReplacedAtOnce(t *testing.T) {
	data := source{"a": "1", "b": "1"}
	m := &Manager{Root: t.TempDir(), Source: data}
	p := newPod(corev1.Volume{Name: "v", VolumeSource: configMap("c")})
	dir := filepath.Join(m.Root, "u", "volumes", "v")
	if err := m.Setup(p, pod.Facts{}); err != nil {
		t.Fatal(err)
	}
	first, _ := os.Readlink(filepath.Join(dir, "..data"))
	if got := read(t, dir, "a"); got != "1" {
		t.Errorf("a: %q", got)
	}
	if err := m.Update(p, pod.Facts{}); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.Readlink(filepath.Join(dir, "..data")); again != first {
		t.Error("an unchanged volume was written again")
	}
	delete(data, "a")
	data["b"], data["c"] = "2", "2"
	if err := m.Update(p, pod.Facts{}); err != nil {
		t.Fatal(err)
	}
	if read(t, dir, "b") != "2" || read(t, dir, "c") != "2" {
		t.Error("the change did not arrive")
	}
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) != 4 { // ..data, the folder, b, c
		t.Errorf("old content is left: %v", names)
	}
}

// With a group for its volumes, a pod can read its files whatever user it runs as.
func TestGroupReadsFiles(t *testing.T) {
	group, mode := int64(os.Getgid()), int32(0o400)
	v := configMap("c")
	v.ConfigMap.DefaultMode = &mode
	p := newPod(corev1.Volume{Name: "v", VolumeSource: v})
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	m := &Manager{Root: t.TempDir(), Source: source{"key": "value"}}
	if err := m.Setup(p, pod.Facts{}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(m.Path(p, &p.Spec.Volumes[0]), "key"))
	if err != nil || info.Mode().Perm() != 0o440 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestMissingConfigMap(t *testing.T) {
	m := &Manager{Root: t.TempDir(), Source: source{}}
	v := corev1.Volume{Name: "v", VolumeSource: configMap("none")}
	if err := m.Setup(newPod(v), pod.Facts{}); err == nil || !strings.Contains(err.Error(), `configmap "none" not found`) {
		t.Errorf("got %v", err)
	}
	yes := true
	v.ConfigMap.Optional = &yes
	if err := m.Setup(newPod(v), pod.Facts{}); err != nil {
		t.Error(err)
	}
}

func TestProjected(t *testing.T) {
	m := &Manager{Root: t.TempDir(), Source: source{"k": "v"}}
	mode := int32(0o400)
	v := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: []corev1.KeyToPath{{Key: "k", Path: "sub/dir/file", Mode: &mode}},
		}},
		{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
		}}},
	}}}}
	if err := m.Setup(newPod(v), pod.Facts{}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(m.Root, "u", "volumes", "v")
	if read(t, dir, "sub/dir/file") != "v" || read(t, dir, "password") != "x" || read(t, dir, "labels") != `app="a"` {
		t.Error("content differs")
	}
	if info, err := os.Stat(filepath.Join(dir, "sub/dir/file")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	if err := m.TearDown("u"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(m.Root, "u")); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

func TestSubPathStaysInside(t *testing.T) {
	m := &Manager{Root: t.TempDir(), Source: source{}}
	v := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
	p := newPod(v)
	if err := m.Setup(p, pod.Facts{}); err != nil {
		t.Fatal(err)
	}
	dir := m.Path(p, &v)
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	mount := func(sub string) error {
		_, err := m.Mounts(p, &corev1.Container{VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v", SubPath: sub}}}, nil)
		return err
	}
	if err := mount("made/here"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"../x", "out", "out/passwd"} {
		if err := mount(bad); err == nil {
			t.Errorf("subPath %q leads out of the volume", bad)
		}
	}
}

// held is the token that a device has: none when empty.
type held struct {
	value string
	soon  bool
}

func (h *held) Token(*corev1.Pod, *corev1.ServiceAccountTokenProjection) ([]byte, bool) {
	if h.value == "" {
		return nil, h.soon
	}
	return []byte(h.value), false
}

func TestServiceAccountToken(t *testing.T) {
	token := &held{soon: true}
	m := &Manager{Root: t.TempDir(), Source: source{"k": "v"}, Tokens: token}
	v := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}},
	}}}}
	p := newPod(v)
	dir := filepath.Join(m.Root, "u", "volumes", "v")
	if err := m.Setup(p, pod.Facts{}); !errors.Is(err, ErrTokenSoon) {
		t.Errorf("a token that is on its way: %v", err)
	}
	token.soon = false
	if err := m.Setup(p, pod.Facts{}); err != nil || read(t, dir, "k") != "v" {
		t.Errorf("without a link: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "token")); err == nil {
		t.Error("there is a token that nobody gave")
	}
	for _, value := range []string{"one", "two"} {
		token.value = value
		if err := m.Update(p, pod.Facts{}); err != nil || read(t, dir, "token") != value {
			t.Errorf("%s: %v", value, err)
		}
	}
	token.value, token.soon = "", true // a restarted agent, perhaps without a link
	if err := m.Setup(p, pod.Facts{}); err != nil || read(t, dir, "token") != "two" {
		t.Errorf("the older token: %v", err)
	}
}

func TestTrustAnchors(t *testing.T) {
	yes, name, signer := true, "plain", "factory.example/ca"
	has := map[string]string{"plain": "certificates"}
	m := &Manager{Root: t.TempDir(), Source: source{}, Anchors: func(p *corev1.ClusterTrustBundleProjection) ([]byte, bool) {
		if p.Name == nil {
			return nil, false
		}
		value, ok := has[*p.Name]
		return []byte(value), ok
	}}
	for _, c := range []struct {
		p          corev1.ClusterTrustBundleProjection
		want, fail string
	}{
		{corev1.ClusterTrustBundleProjection{Name: &name, Path: "ca.pem"}, "certificates", ""},
		{corev1.ClusterTrustBundleProjection{SignerName: &signer, Path: "ca.pem"}, "", `no clustertrustbundle of signer "factory.example/ca"`},
		{corev1.ClusterTrustBundleProjection{SignerName: &signer, Path: "ca.pem", Optional: &yes}, "", ""},
		{corev1.ClusterTrustBundleProjection{Name: &signer, Path: "ca.pem"}, "", "not found"},
		{corev1.ClusterTrustBundleProjection{Path: "ca.pem"}, "", "neither"},
	} {
		v := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &c.p}},
		}}}
		err := m.Setup(newPod(v), pod.Facts{})
		switch {
		case c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)), c.fail == "" && err != nil:
			t.Errorf("%+v: %v", c.p, err)
		case err == nil && read(t, filepath.Join(m.Root, "u", "volumes", "v"), "ca.pem") != c.want:
			t.Errorf("%+v: not %q", c.p, c.want)
		}
	}
}
