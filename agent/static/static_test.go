package static

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

const web = `apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: main, image: example.com/web}
`

func TestParse(t *testing.T) {
	p, err := Parse([]byte(web), "pi-1")
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "web-pi-1" || p.Namespace != "default" || p.Spec.NodeName != "pi-1" || len(p.UID) != 32 || p.Annotations["kubernetes.io/config.source"] != "file" {
		t.Errorf("pod: %+v", p.ObjectMeta)
	}
	if c := p.Spec.Containers[0]; c.ImagePullPolicy != corev1.PullAlways || p.Spec.RestartPolicy != corev1.RestartPolicyAlways || c.TerminationMessagePath == "" {
		t.Errorf("defaults: %+v", p.Spec)
	}
	again, _ := Parse([]byte(web), "pi-1")
	other, _ := Parse([]byte(web), "pi-2")
	changed, _ := Parse([]byte(web+"# more\n"), "pi-1")
	if p.UID != again.UID || p.UID == other.UID || p.UID == changed.UID {
		t.Errorf("uids: %s %s %s %s", p.UID, again.UID, other.UID, changed.UID)
	}
	for _, tc := range []struct{ old, with, want string }{
		{web, "", "empty"},
		{"kind: Pod", "kind: Deployment", "not a Pod"},
		{"name: web,", "", "metadata.name is missing"},
		{"containers:", "container:", `unknown field "container"`},
		{"image: example.com/web", "image: ''", "spec.containers[0].image"},
		{"image: example.com/web", "image: a, envFrom: [{secretRef: {name: s}}]", `the secret "s"`},
		{"image: example.com/web", "image: a, envFrom: [{configMapRef: {name: c}}]", `the configmap "c"`},
		{"spec:", "spec:\n  serviceAccountName: robot", `the service account "robot"`},
		{"spec:", "spec:\n  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", `the persistent volume claim "c"`},
	} {
		if _, err := Parse([]byte(strings.Replace(web, tc.old, tc.with, 1)), "pi-1"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want %q", tc.with, err, tc.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(web))
	f.Add([]byte(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := Parse(data, "pi-1"); err == nil && (p.UID == "" || p.Spec.NodeName != "pi-1" || len(p.Spec.Containers) == 0) {
			t.Errorf("accepted: %+v", p)
		}
	})
}

func TestFolder(t *testing.T) {
	f := &Folder{Dir: filepath.Join(t.TempDir(), "pods"), NodeName: "pi-1", Logger: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	looks := make(chan string, 100)
	var told atomic.Int64 // the folder is its watcher's
	done := make(chan error, 1)
	go func() {
		done <- f.Watch(ctx, func() {
			var names []string
			for _, p := range f.Read() {
				names = append(names, p.Name+":"+p.Spec.Containers[0].Image)
			}
			told.Store(int64(len(f.failed)))
			looks <- strings.Join(slices.Sorted(slices.Values(names)), " ")
		})
	}()
	await := func(want string) {
		t.Helper()
		for {
			if got := <-looks; got == want {
				return
			}
		}
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(f.Dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	await("")
	write("web.yaml", web)
	await("web-pi-1:example.com/web")
	write("notes.txt", "nothing")
	write("a.yaml", strings.ReplaceAll(web, "web", "a"))
	await("a-pi-1:example.com/a web-pi-1:example.com/web")
	// A file that is wrong leaves the pod alone that was right, and one of the same name does not take its place.
	write("web.yaml", "kind: [")
	write("b.yaml", strings.ReplaceAll(web, "example.com/web", "example.com/b"))
	await("a-pi-1:example.com/a web-pi-1:example.com/b")
	if n := told.Load(); n != 2 {
		t.Errorf("told of %d files, not of 2", n)
	}
	if err := os.Remove(filepath.Join(f.Dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	await("a-pi-1:example.com/a web-pi-1:example.com/web")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
