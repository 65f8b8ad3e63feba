// Package conformance owns the one suite that every runtime.Runtime must pass.
package conformance

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// Env is a runtime under test. Commands are run in Image.
type Env struct {
	Runtime runtime.Runtime
	Image   string
	// Forever runs until it is asked to stop. Fail prints "hello" and ends with code 3.
	Forever, Fail []string
	CgroupParent  string
}

// Run runs the suite.
func Run(t *testing.T, env Env) {
	for _, test := range []struct {
		name string
		f    func(*testing.T, Env)
	}{
		{"lifecycle", lifecycle},
		{"exit", exit},
		{"attempts", attempts},
		{"sandbox stops all", sandboxStopsAll},
		{"gone is fine", goneIsFine},
		{"images", images},
		{"exec", execute},
		{"usage", usage},
		{"handlers", handlers},
	} {
		t.Run(test.name, func(t *testing.T) { test.f(t, env) })
	}
}

type pod struct {
	env    Env
	uid    string
	logs   string
	config *criapi.PodSandboxConfig
	id     string
}

func newPod(ctx context.Context, t *testing.T, env Env, attempt uint32) *pod {
	t.Helper()
	p := &pod{env: env, uid: uuid.NewString(), logs: t.TempDir()}
	p.config = &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: p.uid, Attempt: attempt},
		Hostname:     "p",
		LogDirectory: p.logs,
		Labels:       map[string]string{runtime.LabelPodUID: p.uid, runtime.LabelPodName: "p", runtime.LabelPodNamespace: "default"},
		Annotations:  map[string]string{"a": "b"},
		Linux:        &criapi.LinuxPodSandboxConfig{CgroupParent: env.CgroupParent},
	}
	id, err := env.Runtime.RunSandbox(ctx, p.config, "")
	if err != nil {
		t.Fatal(err)
	}
	p.id = id
	t.Cleanup(func() {
		if err := env.Runtime.RemoveSandbox(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *pod) start(ctx context.Context, t *testing.T, name string, attempt uint32, command []string) string {
	t.Helper()
	id, err := p.env.Runtime.CreateContainer(ctx, p.id, &criapi.ContainerConfig{
		Metadata: &criapi.ContainerMetadata{Name: name, Attempt: attempt}, Image: &criapi.ImageSpec{Image: p.env.Image}, Command: command,
		LogPath: name + ".log", Labels: map[string]string{runtime.LabelPodUID: p.uid, runtime.LabelContainerName: name},
		Annotations: map[string]string{"c": "d"}, Linux: &criapi.LinuxContainerConfig{},
	}, p.config)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.container(ctx, t, id); got.State != runtime.Created {
		t.Fatalf("a created container has state %v", got.State)
	}
	if err := p.env.Runtime.StartContainer(ctx, id); err != nil {
		t.Fatal(err)
	}
	return id
}

func (p *pod) container(ctx context.Context, t *testing.T, id string) runtime.Container {
	t.Helper()
	got, err := p.env.Runtime.Pod(ctx, p.uid)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range got.Containers {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("container %s is not in the pod: %+v", id, got)
	return runtime.Container{}
}

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func lifecycle(t *testing.T, env Env) {
	ctx := timeout(t)
	p := newPod(ctx, t, env, 2)
	id := p.start(ctx, t, "main", 4, env.Forever)
	got, err := env.Runtime.Pod(ctx, p.uid)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Sandboxes) != 1 || len(got.Containers) != 1 {
		t.Fatalf("got %+v", got)
	}
	s, c := got.Sandboxes[0], got.Containers[0]
	if s.ID != p.id || s.UID != p.uid || s.Name != "p" || s.Attempt != 2 || !s.Ready || len(s.IPs) != 1 || s.Annotations["a"] != "b" {
		t.Errorf("sandbox: %+v", s)
	}
	if c.State != runtime.Running || c.Name != "main" || c.Attempt != 4 || c.SandboxID != p.id || c.Image != env.Image || c.ImageID == "" ||
		c.StartedAt.IsZero() || c.Annotations["c"] != "d" || c.LogPath != filepath.Join(p.logs, "main.log") {
		t.Errorf("container: %+v", c)
	}
	all, err := env.Runtime.Pods(ctx)
	if err != nil || len(all[p.uid].Containers) != 1 || all[p.uid].Containers[0].ID != id {
		t.Errorf("list of all pods: %+v, %v", all, err)
	}
	if err := env.Runtime.StopContainer(ctx, id, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if c := p.container(ctx, t, id); c.State != runtime.Exited || c.FinishedAt.Before(c.StartedAt) {
		t.Errorf("stopped container: %+v", c)
	}
}

// exit: the end of a container by itself is told, and its code and output are kept.
func exit(t *testing.T, env Env) {
	ctx := timeout(t)
	p := newPod(ctx, t, env, 0)
	events := make(chan runtime.Event, 16)
	watchCtx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- env.Runtime.Watch(watchCtx, func(e runtime.Event) { events <- e }) }()
	defer func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v", err)
		}
	}()
	if e := <-events; e.Type != runtime.Resync {
		t.Fatalf("the first event is %+v", e)
	}
	id := p.start(ctx, t, "fail", 0, env.Fail)
	for {
		select {
		case e := <-events:
			if e.ID != id {
				continue
			}
		case <-ctx.Done():
			t.Fatal("no event of the exit")
		}
		break
	}
	c := p.container(ctx, t, id)
	for c.State == runtime.Running { // the event may come before the runtime's own books are closed
		time.Sleep(5 * time.Millisecond)
		c = p.container(ctx, t, id)
	}
	if c.State != runtime.Exited || c.ExitCode != 3 || c.Reason != "Error" || c.FinishedAt.IsZero() {
		t.Errorf("container: %+v", c)
	}
	log, err := os.ReadFile(c.LogPath)
	if err != nil || !strings.HasSuffix(string(log), " stdout F hello\n") {
		t.Errorf("log: %q, %v", log, err)
	}
}

func attempts(t *testing.T, env Env) {
	ctx := timeout(t)
	p := newPod(ctx, t, env, 0)
	first := p.start(ctx, t, "main", 0, env.Forever)
	if err := env.Runtime.StopContainer(ctx, first, time.Second); err != nil {
		t.Fatal(err)
	}
	second := p.start(ctx, t, "main", 1, env.Forever)
	got, err := env.Runtime.Pod(ctx, p.uid)
	if err != nil || len(got.Containers) != 2 || got.Containers[0].ID != second || got.Containers[1].ID != first {
		t.Fatalf("the newest must be first: %+v, %v", got.Containers, err)
	}
	if err := env.Runtime.RemoveContainer(ctx, first); err != nil {
		t.Fatal(err)
	}
	if got, err = env.Runtime.Pod(ctx, p.uid); err != nil || len(got.Containers) != 1 {
		t.Errorf("after the removal: %+v, %v", got.Containers, err)
	}
}

func sandboxStopsAll(t *testing.T, env Env) {
	ctx := timeout(t)
	p := newPod(ctx, t, env, 0)
	id := p.start(ctx, t, "main", 0, env.Forever)
	if err := env.Runtime.StopSandbox(ctx, p.id); err != nil {
		t.Fatal(err)
	}
	if c := p.container(ctx, t, id); c.State != runtime.Exited {
		t.Errorf("container: %+v", c)
	}
	if got, err := env.Runtime.Pod(ctx, p.uid); err != nil || got.Sandboxes[0].Ready {
		t.Errorf("sandbox: %+v, %v", got.Sandboxes, err)
	}
	if err := env.Runtime.RemoveSandbox(ctx, p.id); err != nil {
		t.Fatal(err)
	}
	if got, err := env.Runtime.Pod(ctx, p.uid); err != nil || len(got.Sandboxes)+len(got.Containers) != 0 {
		t.Errorf("left: %+v, %v", got, err)
	}
}

func goneIsFine(t *testing.T, env Env) {
	ctx := timeout(t)
	id := strings.Repeat("ab", 32)
	for name, err := range map[string]error{
		"stop sandbox":     env.Runtime.StopSandbox(ctx, id),
		"remove sandbox":   env.Runtime.RemoveSandbox(ctx, id),
		"stop container":   env.Runtime.StopContainer(ctx, id, time.Second),
		"remove container": env.Runtime.RemoveContainer(ctx, id),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := env.Runtime.StartContainer(ctx, id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("start: %v", err)
	}
	if got, err := env.Runtime.Pod(ctx, id); err != nil || len(got.Sandboxes) != 0 {
		t.Errorf("pod: %+v, %v", got, err)
	}
}

func images(t *testing.T, env Env) {
	ctx := timeout(t)
	if i, err := env.Runtime.Image(ctx, env.Image); err != nil || i.ID == "" {
		t.Errorf("image: %+v, %v", i, err)
	}
	if _, err := env.Runtime.Image(ctx, "shoal.dev/none:1"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("no image: %v", err)
	}
	img, err := env.Runtime.Image(ctx, env.Image)
	if err != nil || !slices.Contains(img.Refs, env.Image) {
		t.Errorf("the image's names: %+v, %v", img, err)
	}
	all, err := env.Runtime.Images(ctx)
	if err != nil || !slices.ContainsFunc(all, func(i runtime.Image) bool { return i.ID == img.ID }) {
		t.Errorf("images: %+v, %v", all, err)
	}
	if err := env.Runtime.RemoveImage(ctx, "sha256:"+strings.Repeat("ab", 32)); err != nil {
		t.Errorf("remove an image that is not there: %v", err)
	}
	dir, err := env.Runtime.ImageDir(ctx)
	if info, statErr := os.Stat(dir); err != nil || statErr != nil || !info.IsDir() {
		t.Errorf("folder of images: %q, %v, %v", dir, err, statErr)
	}
}

// usage: what runs is measured, what has ended is not.
func usage(t *testing.T, env Env) {
	ctx := timeout(t)
	p := newPod(ctx, t, env, 0)
	id := p.start(ctx, t, "main", 0, env.Forever)
	ended := p.start(ctx, t, "fail", 0, env.Fail)
	for p.container(ctx, t, ended).State == runtime.Running {
		time.Sleep(5 * time.Millisecond)
	}
	all, err := env.Runtime.Usage(ctx)
	if u, ok := all[id]; err != nil || !ok || u.At.IsZero() || u.CPU < 0 || u.Memory < 0 {
		t.Errorf("usage of a running container: %+v, %v, %v", u, ok, err)
	}
	if u, ok := all[ended]; ok {
		t.Errorf("usage of one that has ended: %+v", u)
	}
}

// handlers: what is not configured runs nothing.
func handlers(t *testing.T, env Env) {
	ctx := timeout(t)
	uid := uuid.NewString()
	config := &criapi.PodSandboxConfig{
		Metadata: &criapi.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: uid}, LogDirectory: t.TempDir(),
		Labels: map[string]string{runtime.LabelPodUID: uid}, Linux: &criapi.LinuxPodSandboxConfig{CgroupParent: env.CgroupParent},
	}
	if id, err := env.Runtime.RunSandbox(ctx, config, "none"); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("sandbox %q by a handler that there is not: %v", id, err)
	}
}

func execute(t *testing.T, env Env) {
	ctx := timeout(t)
	p := newPod(ctx, t, env, 0)
	id := p.start(ctx, t, "main", 0, env.Forever)
	out, code, err := env.Runtime.Exec(ctx, id, []string{"/bin/echo", "hi"}, 10*time.Second)
	if err != nil || code != 0 || !strings.Contains(string(out), "hi") {
		t.Errorf("exec: %q, %d, %v", out, code, err)
	}
	url, err := env.Runtime.ExecURL(ctx, runtime.StreamRequest{ID: id, Command: []string{"/bin/echo"}, Stdout: true})
	if !errors.Is(err, runtime.ErrUnsupported) && (err != nil || !strings.HasPrefix(url, "http://127.0.0.1:")) {
		t.Errorf("exec URL: %q, %v", url, err)
	}
}
