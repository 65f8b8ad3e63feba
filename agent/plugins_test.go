package agent

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/shoal-edge/shoal/agent/deviceplugin/deviceplugintest"
	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/transport"
)

// vendor is an agent on a fake runtime with a real device plugin: sockets do not go with synctest.
type vendor struct {
	t       *testing.T
	dir     string
	runtime *fake.Runtime
	a       *Agent
	stop    func()
	seq     uint64

	mu      sync.Mutex
	more    chan struct{}
	node    corev1.Node
	pods    map[string]*corev1.Pod
	configs map[string]*criapi.ContainerConfig // by pod, the newest
}

func newVendor(t *testing.T) *vendor {
	v := &vendor{t: t, dir: t.TempDir(), more: make(chan struct{}, 1), pods: map[string]*corev1.Pod{}, configs: map[string]*criapi.ContainerConfig{}}
	v.runtime = fake.New(fake.Config{Behave: func(c *criapi.ContainerConfig) fake.Behaviour {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.configs[c.Labels[runtime.LabelPodName]] = c
		return fake.Behaviour{}
	}})
	v.start()
	t.Cleanup(func() { v.stop() })
	return v
}

func (v *vendor) start() {
	v.t.Helper()
	a, err := New(Config{
		NodeName: "pi-1", DataDir: v.dir, Runtime: v.runtime, PluginSocket: filepath.Join(v.dir, "p", "kubelet.sock"),
		CDIFolders: []string{filepath.Join(v.dir, "cdi")},
	})
	if err != nil {
		v.t.Fatal(err)
	}
	a.SetReporter(func(items ...transport.Item) {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, item := range items {
			p := &corev1.Pod{}
			switch {
			case item.Key == "node":
				v.node = corev1.Node{}
				_ = v.node.Unmarshal(item.Value)
			case strings.HasPrefix(item.Key, "pods/") && p.Unmarshal(item.Value) == nil:
				v.pods[p.Name] = p
			}
		}
		wake(v.more)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	v.a = a
	v.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			v.t.Error(err)
		}
	})
}

func (v *vendor) apply(pods ...*corev1.Pod) {
	v.t.Helper()
	v.seq++
	var items []transport.Item
	for _, p := range pods {
		items = append(items, set(v.t, p))
	}
	if err := v.a.Apply(v.t.Context(), 1, v.seq, v.seq == 1, items); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vendor) await(what string, f func() bool) {
	v.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		v.mu.Lock()
		ok := f()
		v.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-v.more:
		case <-deadline:
			v.mu.Lock()
			defer v.mu.Unlock()
			v.t.Fatalf("%s: %v %+v", what, v.node.Status.Allocatable, v.pods)
		}
	}
}

// served waits until the agent listens for plugins, which it tells nobody.
func (v *vendor) served(socket string) {
	v.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			v.t.Fatal(err)
		}
	}
}

func (v *vendor) offers(capacity, allocatable int64) func() bool {
	return func() bool {
		c, a := v.node.Status.Capacity["vendor.example/widget"], v.node.Status.Allocatable["vendor.example/widget"]
		return c.Value() == capacity && a.Value() == allocatable
	}
}

func (v *vendor) waits(name, message string) func() bool {
	return func() bool {
		p := v.pods[name]
		if p == nil || len(p.Status.ContainerStatuses) == 0 {
			return false
		}
		w := p.Status.ContainerStatuses[0].State.Waiting
		return w != nil && strings.Contains(w.Message, message)
	}
}

func (v *vendor) runs(name string, restarts int32) func() bool {
	return func() bool {
		p := v.pods[name]
		return p != nil && len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Running != nil &&
			p.Status.ContainerStatuses[0].RestartCount == restarts
	}
}

func (v *vendor) env(name string) map[string]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	env := map[string]string{}
	for _, e := range v.configs[name].Envs {
		env[e.Key] = string(e.Value)
	}
	return env
}

// A vendor's plugin registers, offers devices, and says what containers get. What it said outlives the agent; what it offers is not
// given to anybody while it is away.
func TestDevicePlugin(t *testing.T) {
	v := newVendor(t)
	folder, socket := filepath.Join(v.dir, "p"), filepath.Join(v.dir, "p", "kubelet.sock")
	probe := &deviceplugintest.Plugin{Resource: "bad"}
	if err := probe.Register(t.Context(), socket); err == nil {
		t.Fatal("a bad resource was taken")
	}
	if err := os.MkdirAll(filepath.Join(v.dir, "cdi"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := "cdiVersion: 0.6.0\nkind: vendor.example/widget\ndevices:\n- name: w2\n  containerEdits:\n    env: [CDI=yes]\n    deviceNodes: [{path: /dev/widget, hostPath: /dev/null, permissions: rw}]\n"
	if err := os.WriteFile(filepath.Join(v.dir, "cdi", "widget.yaml"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	plugin := &deviceplugintest.Plugin{Resource: "vendor.example/widget", Prefer: func(available, _ []string, size int) []string {
		return available[len(available)-size:] // the last ones
	}}
	plugin.Answer = func(ids []string) (*api.ContainerAllocateResponse, error) {
		answer := &api.ContainerAllocateResponse{
			Envs:        map[string]string{"WIDGETS": strings.Join(ids, ",")},
			Annotations: map[string]string{"vendor.example/note": "x"},
			Mounts:      []*api.Mount{{ContainerPath: "/lib/widget", HostPath: "/usr", ReadOnly: true}},
			Devices:     []*api.DeviceSpec{{ContainerPath: "/dev/w", HostPath: "/dev/zero", Permissions: "r"}},
		}
		for _, id := range ids {
			if id == "w2" {
				answer.CdiDevices = append(answer.CdiDevices, &api.CDIDevice{Name: "vendor.example/widget=w2"})
			}
		}
		return answer, nil
	}
	deviceplugintest.Start(t, plugin, folder, "w1", "w2")
	if err := plugin.Register(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	v.await("offered", v.offers(2, 2))
	first := newPod("first", ask("vendor.example/widget", "1"))
	v.apply(first)
	v.await("first runs", v.runs("first", 0))
	env := v.env("first")
	if env["WIDGETS"] != "w2" || env["CDI"] != "yes" {
		t.Errorf("environment: %v", env)
	}
	c := v.configs["first"]
	var nodes []string
	for _, d := range c.Devices {
		nodes = append(nodes, d.HostPath+" "+d.ContainerPath+" "+d.Permissions)
	}
	slices.Sort(nodes)
	if !slices.Equal(nodes, []string{"/dev/null /dev/widget rw", "/dev/zero /dev/w r"}) || c.Annotations["vendor.example/note"] != "x" || len(c.CDIDevices) != 0 {
		t.Errorf("%v %v %v", nodes, c.Annotations, c.CDIDevices)
	}

	plugin.Set("w1", api.Unhealthy)
	v.await("one is unhealthy", v.offers(2, 1))
	plugin.Set("w1", api.Healthy)
	v.await("it is healthy", v.offers(2, 2))

	// The agent restarts, and the plugin is not back yet: nobody starts without what he asks for.
	v.stop()
	v.start()
	second := newPod("second", ask("vendor.example/widget", "1"))
	v.apply(second)
	v.await("second waits", v.waits("second", "no free device vendor.example/widget"))
	v.runtime.Exit(v.runtime.Containers()[0].ID, 1)
	v.await("first waits for its device", v.waits("first", "plugin:vendor.example/widget/w2"))
	plugin.Stop()
	// A start removes all sockets of the folder: a plugin makes its own when it sees that one is served again.
	v.served(socket)
	deviceplugintest.Start(t, plugin, folder, "w1", "w2")
	if err := plugin.Register(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	v.await("both run", func() bool { return v.runs("first", 1)() && v.runs("second", 0)() })
	if v.env("first")["WIDGETS"] != "w2" || v.env("second")["WIDGETS"] != "w1" {
		t.Errorf("%v %v", v.env("first"), v.env("second"))
	}
	calls := plugin.Calls()
	slices.Sort(calls)
	if want := []string{"allocate w1", "allocate w2", "prestart w1", "prestart w2", "prestart w2"}; !slices.Equal(calls, want) {
		t.Errorf("calls: %v, want %v: an answer is kept", calls, want)
	}

	v.seq++
	if err := v.a.Apply(t.Context(), 1, v.seq, false, []transport.Item{{Key: "pods/default/first", Deleted: true}}); err != nil {
		t.Fatal(err)
	}
	third := newPod("third", ask("vendor.example/widget", "1"))
	v.apply(third)
	v.await("third runs", v.runs("third", 0))
	v.await("the plugin went", func() bool { plugin.Stop(); return v.offers(2, 0)() })
}
