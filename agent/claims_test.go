package agent

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/transport"
)

// A pod waits for its volume, finds in it what the pod before it wrote, and only the control plane's word removes it.
func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer func() { d.end() }()
		claim := func(name string) func(*corev1.Pod) {
			return func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
				}}}
				p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
			}
		}
		p := newPod("one", claim("data"))
		d.apply(set(t, p))
		if got := d.status(p); got.Phase != corev1.PodPending {
			t.Errorf("without its volume: %+v", got)
		}
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": "shoal.dev/local-path"}}}
		pv.Spec.Local = &corev1.LocalVolumeSource{Path: "/var/lib/shoal/agent/local/pvc-1"}
		d.apply(encode(t, "claims/default/data", pv))
		if got := d.status(p); got.Phase != corev1.PodRunning {
			t.Errorf("with its volume: %+v", got)
		}
		file := filepath.Join(d.dir, "local", "pvc-1", "file")
		if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.apply(transport.Item{Key: "pods/default/one", Deleted: true}, transport.Item{Key: "claims/default/data", Deleted: true})
		pass(time.Minute)
		second := newPod("two", claim("data"))
		d.apply(set(t, second), encode(t, "claims/default/data", pv))
		pass(time.Second)
		if data, err := os.ReadFile(file); err != nil || string(data) != "kept" || d.phase(second) != "Running" {
			t.Errorf("%q, %v, %s", data, err, d.phase(second))
		}
		d.apply(transport.Item{Key: "pods/default/two", Deleted: true}, transport.Item{Key: "claims/default/data", Deleted: true})
		pass(time.Hour)
		d.end()
		d.start()
		if _, err := os.Stat(file); err != nil {
			t.Errorf("the content went with its pods: %v", err)
		}
		d.apply(transport.Item{Key: "reclaim/pvc-1", Value: []byte("uid")})
		if _, err := os.Stat(filepath.Dir(file)); !os.IsNotExist(err) {
			t.Errorf("the content is still there: %v", err)
		}
		told := func() bool {
			for _, item := range d.a.Status() {
				if item.Key == "reclaim/pvc-1" && item.Deleted {
					return true
				}
			}
			return false
		}
		if !told() {
			t.Error("it was not told that the content is gone")
		}
		d.apply(transport.Item{Key: "reclaim/pvc-1", Deleted: true})
		if told() {
			t.Error("it is told for ever")
		}
	})
}
