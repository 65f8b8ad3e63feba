// Package fake owns a container runtime in memory: pods run and are ready after a moment, logs are files in the CRI format,
// and knobs make things fail. It serves tests, simulations of many devices, and `shoal dev --fake-runtime`.
package fake

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// Behaviour is how one container acts.
type Behaviour struct {
	// ExitAfter ends the container by itself after that time; 0: it runs until it is stopped.
	ExitAfter time.Duration
	ExitCode  int32
	// StartErr fails the start. Stubborn ignores the request to stop and is killed after the grace.
	StartErr error
	Stubborn bool
	// Unhealthy fails every probe.
	Unhealthy bool
	// Lines are written to the log at the start. Nil: one line that names the container.
	Lines []string
}

// Config of a Runtime. All functions may be nil.
type Config struct {
	// StartDelay is how long a sandbox and a container take to start.
	StartDelay time.Duration
	// FirstIP is the address of the first pod; later ones count up. Default: 10.99.0.2.
	FirstIP netip.Addr
	// Behave says how a container acts.
	Behave func(container *criapi.ContainerConfig) Behaviour
	// PullErr fails pulls of an image. Missing says which images need a pull at first.
	PullErr func(image string) error
	Missing func(image string) bool
	// NoLogs writes no log files.
	NoLogs bool
}

// Runtime is a runtime.Runtime in memory. Its pods outlive the agents that use it, as containerd's do.
type Runtime struct {
	c Config

	mu         sync.Mutex
	down       bool
	nextIP     netip.Addr
	sandboxes  map[string]*runtime.Sandbox
	containers map[string]*container
	pulled     map[string]bool
	images     map[string]runtime.Image
	usage      map[string]runtime.Usage
	unhealthy  map[string]bool
	watchers   map[chan runtime.Event]bool
	calls      map[string]int
}

type container struct {
	runtime.Container
	how   Behaviour
	timer *time.Timer
}

// New returns an empty Runtime.
func New(c Config) *Runtime {
	if !c.FirstIP.IsValid() {
		c.FirstIP = netip.AddrFrom4([4]byte{10, 99, 0, 2})
	}
	return &Runtime{
		c: c, nextIP: c.FirstIP, sandboxes: map[string]*runtime.Sandbox{}, containers: map[string]*container{},
		pulled: map[string]bool{}, unhealthy: map[string]bool{}, images: map[string]runtime.Image{}, usage: map[string]runtime.Usage{}, watchers: map[chan runtime.Event]bool{}, calls: map[string]int{},
	}
}

// Info implements runtime.Runtime.
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	unlock, err := r.enter(ctx, "Info")
	if err != nil {
		return runtime.Info{}, err
	}
	defer unlock()
	return runtime.Info{Name: "fake", Version: "1", Ready: true, NetworkReady: true}, nil
}

// Pods implements runtime.Runtime.
func (r *Runtime) Pods(ctx context.Context) (map[string]runtime.Pod, error) {
	unlock, err := r.enter(ctx, "Pods")
	if err != nil {
		return nil, err
	}
	defer unlock()
	pods := map[string]runtime.Pod{}
	for _, s := range r.sandboxes {
		pods[s.UID] = r.pod(s.UID)
	}
	return pods, nil
}

// Pod implements runtime.Runtime.
func (r *Runtime) Pod(ctx context.Context, uid string) (runtime.Pod, error) {
	unlock, err := r.enter(ctx, "Pod")
	if err != nil {
		return runtime.Pod{}, err
	}
	defer unlock()
	return r.pod(uid), nil
}

func (r *Runtime) pod(uid string) runtime.Pod {
	p := runtime.Pod{UID: uid}
	for _, s := range r.sandboxes {
		if s.UID == uid {
			p.Sandboxes = append(p.Sandboxes, *s)
		}
	}
	for _, c := range r.containers {
		if c.PodUID == uid {
			p.Containers = append(p.Containers, c.Container)
		}
	}
	slices.SortFunc(p.Sandboxes, func(a, b runtime.Sandbox) int { return int(b.Attempt) - int(a.Attempt) })
	slices.SortFunc(p.Containers, func(a, b runtime.Container) int { return int(b.Attempt) - int(a.Attempt) })
	return p
}

// Watch implements runtime.Runtime.
func (r *Runtime) Watch(ctx context.Context, f func(runtime.Event)) error {
	unlock, err := r.enter(ctx, "Watch")
	if err != nil {
		return err
	}
	ch := make(chan runtime.Event, 256)
	r.watchers[ch] = true
	unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, ch)
	}()
	f(runtime.Event{Type: runtime.Resync})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-ch:
			if !ok {
				return fmt.Errorf("events: %w", runtime.ErrUnavailable)
			}
			f(e)
		}
	}
}

// RunSandbox implements runtime.Runtime.
func (r *Runtime) RunSandbox(ctx context.Context, config *criapi.PodSandboxConfig, handler string) (string, error) {
	if err := r.delay(ctx); err != nil {
		return "", err
	}
	unlock, err := r.enter(ctx, "RunSandbox")
	if err != nil {
		return "", err
	}
	defer unlock()
	if handler != "" && handler != "fake" {
		return "", fmt.Errorf("run sandbox: no runtime for %q is configured", handler)
	}
	m := config.Metadata
	for _, s := range r.sandboxes {
		if s.UID == m.Uid && s.Attempt == m.Attempt {
			return "", fmt.Errorf("run sandbox: name %s_%s_%s_%d is reserved", m.Name, m.Namespace, m.Uid, m.Attempt)
		}
	}
	s := &runtime.Sandbox{
		ID: uuid.NewString(), Name: m.Name, Namespace: m.Namespace, UID: m.Uid, Attempt: m.Attempt, Ready: true, CreatedAt: time.Now(),
		Labels: config.Labels, Annotations: config.Annotations,
	}
	if config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != criapi.NamespaceMode_NODE {
		s.IPs = []string{r.nextIP.String()}
		r.nextIP = r.nextIP.Next()
	}
	r.sandboxes[s.ID] = s
	return s.ID, nil
}

// StopSandbox implements runtime.Runtime.
func (r *Runtime) StopSandbox(ctx context.Context, id string) error {
	unlock, err := r.enter(ctx, "StopSandbox")
	if err != nil {
		return err
	}
	defer unlock()
	for _, c := range r.containers {
		if c.SandboxID == id {
			r.exit(c, 137)
		}
	}
	if s := r.sandboxes[id]; s != nil && s.Ready {
		s.Ready, s.IPs = false, nil
	}
	return nil
}

// RemoveSandbox implements runtime.Runtime.
func (r *Runtime) RemoveSandbox(ctx context.Context, id string) error {
	unlock, err := r.enter(ctx, "RemoveSandbox")
	if err != nil {
		return err
	}
	defer unlock()
	for cid, c := range r.containers {
		if c.SandboxID == id {
			r.exit(c, 137)
			delete(r.containers, cid)
		}
	}
	delete(r.sandboxes, id)
	return nil
}

// Image implements runtime.Runtime.
func (r *Runtime) Image(ctx context.Context, ref string) (runtime.Image, error) {
	unlock, err := r.enter(ctx, "Image")
	if err != nil {
		return runtime.Image{}, err
	}
	defer unlock()
	if !r.pulled[ref] && r.c.Missing != nil && r.c.Missing(ref) {
		return runtime.Image{}, fmt.Errorf("image %s: %w", ref, runtime.ErrNotFound)
	}
	img := runtime.Image{ID: "fake:" + ref, Refs: []string{ref}}
	r.images[img.ID] = img
	return img, nil
}

// Images implements runtime.Runtime: those that were asked for.
func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	unlock, err := r.enter(ctx, "Images")
	if err != nil {
		return nil, err
	}
	defer unlock()
	return slices.Collect(maps.Values(r.images)), nil
}

// RemoveImage implements runtime.Runtime.
func (r *Runtime) RemoveImage(ctx context.Context, id string) error {
	unlock, err := r.enter(ctx, "RemoveImage")
	if err != nil {
		return err
	}
	defer unlock()
	for _, ref := range r.images[id].Refs {
		delete(r.pulled, ref)
	}
	delete(r.images, id)
	return nil
}

// ImageDir implements runtime.Runtime.
func (r *Runtime) ImageDir(context.Context) (string, error) { return os.TempDir(), nil }

// Usage implements runtime.Runtime: what SetUsage said.
func (r *Runtime) Usage(ctx context.Context) (map[string]runtime.Usage, error) {
	unlock, err := r.enter(ctx, "Usage")
	if err != nil {
		return nil, err
	}
	defer unlock()
	all := map[string]runtime.Usage{}
	for id, c := range r.containers {
		if c.State == runtime.Running {
			u := r.usage[c.PodUID+"/"+c.Name]
			u.At, u.CPU = time.Now(), time.Duration(float64(u.CPU)*time.Since(c.StartedAt).Seconds())
			all[id] = u
		}
	}
	return all, nil
}

// Pull implements runtime.Runtime.
func (r *Runtime) Pull(ctx context.Context, ref string, _ *criapi.AuthConfig, _ *criapi.PodSandboxConfig) (string, error) {
	unlock, err := r.enter(ctx, "Pull")
	if err != nil {
		return "", err
	}
	defer unlock()
	if r.c.PullErr != nil {
		if err := r.c.PullErr(ref); err != nil {
			return "", err
		}
	}
	r.pulled[ref] = true
	return "fake:" + ref, nil
}

// Exec implements runtime.Runtime: every command prints itself and succeeds.
func (r *Runtime) Exec(ctx context.Context, id string, command []string, _ time.Duration) ([]byte, int32, error) {
	unlock, err := r.enter(ctx, "Exec")
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	c := r.containers[id]
	if c == nil || c.State != runtime.Running {
		return nil, 0, fmt.Errorf("exec in %s: %w", id, runtime.ErrNotFound)
	}
	return fmt.Appendf(nil, "%q\n", command), 0, nil
}

// ExecURL implements runtime.Runtime: there is nothing to talk to.
func (r *Runtime) ExecURL(context.Context, runtime.StreamRequest) (string, error) {
	return "", fmt.Errorf("exec: %w", runtime.ErrUnsupported)
}

// AttachURL implements runtime.Runtime.
func (r *Runtime) AttachURL(context.Context, runtime.StreamRequest) (string, error) {
	return "", fmt.Errorf("attach: %w", runtime.ErrUnsupported)
}

// PortForwardURL implements runtime.Runtime.
func (r *Runtime) PortForwardURL(context.Context, runtime.StreamRequest) (string, error) {
	return "", fmt.Errorf("port-forward: %w", runtime.ErrUnsupported)
}

// Probe implements runtime.Prober.
func (r *Runtime) Probe(ctx context.Context, id string, _ *corev1.Probe) error {
	unlock, err := r.enter(ctx, "Probe")
	if err != nil {
		return err
	}
	defer unlock()
	c := r.containers[id]
	if c == nil || c.State != runtime.Running || c.how.Unhealthy || r.unhealthy[c.Name] {
		return fmt.Errorf("container %s does not answer", id)
	}
	return nil
}

func (r *Runtime) delay(ctx context.Context) error {
	if r.c.StartDelay == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(r.c.StartDelay):
		return nil
	}
}

// enter locks the runtime for one call.
func (r *Runtime) enter(ctx context.Context, call string) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.calls[call]++
	if r.down {
		r.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", call, runtime.ErrUnavailable)
	}
	return r.mu.Unlock, nil
}

// writeLog starts the container's log as containerd would.
func (c *container) writeLog(lines []string) error {
	if c.LogPath == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.LogPath), 0o755); err != nil {
		return err
	}
	if lines == nil {
		lines = []string{"hello from " + c.Name}
	}
	var data []byte
	for _, line := range lines {
		data = fmt.Appendf(data, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), line)
	}
	return os.WriteFile(c.LogPath, data, 0o644)
}
