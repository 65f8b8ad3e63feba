package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/transport"
)

// Static pods run with no control plane at all, and it has no say about them; its own pods are left alone by that. The folder is
// watched by the kernel, so this is in real time.
func TestStaticPods(t *testing.T) {
	d := newDevice(t, fake.Config{})
	d.static = filepath.Join(d.dir, "static")
	d.real = true
	write := func(image string) {
		t.Helper()
		file := "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: main, image: " + image + "}]}\n"
		if err := os.WriteFile(filepath.Join(d.static, "web.yaml"), []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	images := func() string {
		var all []string
		for _, c := range d.runtime.Containers() {
			if c.State == runtime.Running {
				all = append(all, strings.TrimPrefix(c.Image, "fake:"))
			}
		}
		return strings.Join(sorted(all), " ")
	}
	await := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); images() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("runs: %q, want %q", images(), want)
			}
		}
	}
	if err := os.MkdirAll(d.static, 0o755); err != nil {
		t.Fatal(err)
	}
	write("a:1")
	d.start()
	defer func() { d.end() }()
	await("a:1")
	write("a:2")
	await("a:2")
	d.apply(set(t, newPod("api")))
	await("a:2 example.com/app:1")
	d.mu.Lock()
	var mirror *corev1.Pod
	for key, p := range d.reports {
		if strings.HasPrefix(key, "pods/default/web-pi-1/") {
			mirror = p
		}
	}
	d.mu.Unlock()
	if mirror == nil || mirror.Annotations["kubernetes.io/config.mirror"] != string(mirror.UID) || len(mirror.Spec.Containers) != 1 {
		t.Fatalf("reported: %+v", mirror)
	}
	// What shows it in the API comes to the device, is deleted there, and goes: nothing happens to the pod but that it is told again.
	shown := mirror.DeepCopy()
	shown.UID = "shown"
	d.apply(set(t, shown))
	d.mu.Lock()
	d.reports = map[string]*corev1.Pod{}
	d.mu.Unlock()
	d.apply(transport.Item{Key: "pods/default/web-pi-1", Deleted: true})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		told := len(d.reports) > 0
		d.mu.Unlock()
		if told {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it was not told again")
		}
	}
	await("a:2 example.com/app:1")
	d.end()
	if err := os.Remove(filepath.Join(d.static, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	d.start()
	await("example.com/app:1")
}
