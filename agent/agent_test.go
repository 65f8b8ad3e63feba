package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/hardware"
	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/transport"
)

// device is an agent on a fake runtime, with a control plane that is a map.
type device struct {
	t       *testing.T
	dir     string
	runtime *fake.Runtime
	devices []Device
	static  string // the folder of static pods
	real    bool   // time is real
	down    bool   // the device goes down when the agent ends
	// hardware is of a faked board.
	hardware *hardware.Config
	// linked: the control plane acknowledges. contactFile and booted are the agent's.
	linked      atomic.Bool
	contactFile string
	booted      time.Time

	a    *Agent
	stop context.CancelFunc
	done chan error
	seq  uint64

	// What the device has left.
	space        atomic.Pointer[space]
	memory, pids atomic.Int64

	mu      sync.Mutex
	node    *corev1.Node
	reports map[string]*corev1.Pod
	deleted map[string]bool
	history map[string][]string // phases and readiness of each pod, without repeats
}

func newDevice(t *testing.T, c fake.Config) *device {
	d := &device{
		t: t, dir: t.TempDir(), runtime: fake.New(c), reports: map[string]*corev1.Pod{}, deleted: map[string]bool{}, history: map[string][]string{},
	}
	d.booted = time.Now()
	d.space.Store(&space{total: 1000, free: 500, inodes: 1000, inodesFree: 500})
	d.memory.Store(1 << 30)
	d.pids.Store(30_000)
	return d
}

func (d *device) start() {
	d.t.Helper()
	a, err := New(Config{
		NodeName: "pi-1", DataDir: d.dir, Address: "192.0.2.1", Runtime: d.runtime, Devices: d.devices, StaticPods: d.static, Hardware: d.hardware,
		GoesDown: func() bool { return d.down }, ShutdownGrace: 30 * time.Second,
		ContactFile: d.contactFile, Uptime: func() time.Duration { return time.Since(d.booted) },
	})
	if err != nil {
		d.t.Fatal(err)
	}
	a.SetReporter(d.report)
	a.sensors = sensors{
		disk:   func(string) space { return *d.space.Load() },
		memory: func() int64 { return d.memory.Load() },
		pids:   func() int64 { return d.pids.Load() },
	}
	a.cgroups = filepath.Join(d.dir, "cgroup")
	ctx, cancel := context.WithCancel(context.Background())
	d.a, d.stop, d.done = a, cancel, make(chan error, 1)
	go func() { d.done <- a.Run(ctx) }()
	d.wait()
}

func (d *device) end() {
	d.t.Helper()
	d.stop()
	if err := <-d.done; err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) report(items ...transport.Item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, item := range items {
		if item.Key == transport.ContactKey && d.linked.Load() {
			d.a.Acknowledged(time.Now(), nil)
		}
		if item.Key == "node" {
			d.node = &corev1.Node{}
			if err := d.node.Unmarshal(item.Value); err != nil {
				d.t.Error(err)
			}
		}
		if !strings.HasPrefix(item.Key, "pods/") {
			continue
		}
		if item.Deleted {
			d.deleted[item.Key] = true
			delete(d.reports, item.Key)
			continue
		}
		p := &corev1.Pod{}
		if err := p.Unmarshal(item.Value); err != nil {
			d.t.Error(err)
			return
		}
		d.reports[item.Key] = p
		ready := false
		for _, c := range p.Status.Conditions {
			ready = ready || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}
		now := fmt.Sprintf("%s/%t", p.Status.Phase, ready)
		if h := d.history[item.Key]; len(h) == 0 || h[len(h)-1] != now {
			d.history[item.Key] = append(h, now)
		}
	}
}

func (d *device) apply(items ...transport.Item) {
	d.t.Helper()
	d.seq++
	if err := d.a.Apply(context.Background(), 7, d.seq, d.seq == 1, items); err != nil {
		d.t.Fatal(err)
	}
	d.wait()
}

// wait returns when the agent has done what there is to do now.
func (d *device) wait() {
	if !d.real {
		synctest.Wait()
	}
}

func (d *device) status(p *corev1.Pod) *corev1.PodStatus {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	found := d.reports["pods/"+p.Namespace+"/"+p.Name+"/"+string(p.UID)]
	if found == nil {
		d.t.Fatalf("no status of pod %s was reported", p.Name)
	}
	return &found.Status
}

func newPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	grace := int64(5)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-of-" + name)},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "main", Image: "example.com/app:1"}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func set(t *testing.T, p *corev1.Pod) transport.Item {
	t.Helper()
	value, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return transport.Item{Key: "pods/" + p.Namespace + "/" + p.Name, Value: value}
}

func deleting(p *corev1.Pod) *corev1.Pod {
	p = p.DeepCopy()
	now, grace := metav1.Now(), *p.Spec.TerminationGracePeriodSeconds
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
	return p
}

func TestPodLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{StartDelay: 50 * time.Millisecond})
		d.start()
		defer d.end()
		p := newPod("web", func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1} })
		begin := time.Now()
		d.apply(set(t, p))
		for d.status(p).Phase != corev1.PodRunning {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		if took := time.Since(begin); took > 101*time.Millisecond {
			t.Errorf("the runtime needs 100 ms for a sandbox and a container, the agent made it %v", took)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s := d.status(p)
		if len(s.ContainerStatuses) != 1 || !s.ContainerStatuses[0].Ready || s.PodIP != "10.99.0.2" || s.HostIP != "192.0.2.1" || s.QOSClass != corev1.PodQOSBestEffort {
			t.Errorf("status: %+v", s)
		}
		if got := strings.Join(d.history["pods/default/web/uid-of-web"], " "); got != "Pending/false Running/false Running/true" {
			t.Errorf("history: %s", got)
		}

		d.apply(set(t, deleting(p)))
		time.Sleep(time.Second)
		synctest.Wait()
		if !d.deleted["pods/default/web/uid-of-web"] {
			t.Error("the pod was not reported as gone")
		}
		if len(d.runtime.Containers()) != 0 {
			t.Errorf("containers are left: %+v", d.runtime.Containers())
		}
		if items := d.a.Status(); len(items) != 2 || !items[1].Deleted { // node, and the pod that the control plane still knows
			t.Errorf("status after the end: %+v", items)
		}
		d.apply(transport.Item{Key: "pods/default/web", Deleted: true})
		if items := d.a.Status(); len(items) != 1 {
			t.Errorf("status after the control plane forgot the pod: %+v", items)
		}
		if left, _ := filepath.Glob(d.dir + "/pods/*"); len(left) != 0 {
			t.Errorf("files are left: %v", left)
		}
	})
}

// A restarted agent finds its pods and leaves them alone, and tells nothing new.
func TestRestartAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		p := newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{InitialDelaySeconds: 20}
			p.Spec.Containers[0].StartupProbe = &corev1.Probe{}
		})
		d.apply(set(t, p))
		time.Sleep(time.Minute)
		synctest.Wait()
		before, reported := d.runtime.Containers(), d.status(p).DeepCopy()
		if !reported.ContainerStatuses[0].Ready {
			t.Fatalf("not ready: %+v", reported)
		}
		d.end()
		d.history = map[string][]string{}
		for range 3 {
			d.start()
			time.Sleep(90 * time.Second)
			synctest.Wait()
			if after := d.runtime.Containers(); len(after) != 1 || after[0].ID != before[0].ID || after[0].State != runtime.Running {
				t.Fatalf("before %+v\nafter %+v", before, after)
			}
			if h := d.history["pods/default/web/uid-of-web"]; len(h) != 0 {
				t.Errorf("a restart of the agent changed the status: %v", h)
			}
			if epoch, seq := d.a.Position(); epoch != 7 || seq != 1 {
				t.Errorf("position: %d, %d", epoch, seq)
			}
			d.end()
		}
	})
}

// The runtime going away and coming back is no reason to stop or restart anything.
func TestRuntimeAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer d.end()
		p := newPod("web")
		d.apply(set(t, p))
		before := d.runtime.Containers()[0]
		d.runtime.SetDown(true)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if d.a.Health() == nil {
			t.Error("healthy without a runtime")
		}
		d.runtime.SetDown(false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if after := d.runtime.Containers(); len(after) != 1 || after[0].ID != before.ID || after[0].State != runtime.Running {
			t.Errorf("after: %+v", after)
		}
		if err := d.a.Health(); err != nil {
			t.Error(err)
		}
		// An exit that happened while nobody listened is found.
		d.runtime.SetDown(true)
		d.runtime.Exit(before.ID, 1)
		d.runtime.SetDown(false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := d.status(p).ContainerStatuses[0]; s.RestartCount != 1 || s.State.Running == nil || s.LastTerminationState.Terminated.ExitCode != 1 {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		p, once := newPod("web"), newPod("once", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
		d.apply(set(t, p), set(t, once))
		d.end()
		d.runtime.Reboot()
		d.start() // no control plane in sight
		defer d.end()
		time.Sleep(time.Second)
		synctest.Wait()
		if s := d.status(p); s.Phase != corev1.PodRunning || s.ContainerStatuses[0].RestartCount != 1 {
			t.Errorf("status: %+v", s)
		}
		if s := d.status(once); s.Phase != corev1.PodFailed || s.ContainerStatuses[0].State.Terminated.ExitCode != 255 {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{Behave: func(*criapi.ContainerConfig) fake.Behaviour {
			return fake.Behaviour{ExitAfter: time.Second, ExitCode: 1}
		}})
		d.start()
		p := newPod("bad")
		d.apply(set(t, p))
		// Runs of a second, at once again, then after 10, 20, 40 s.
		time.Sleep(13 * time.Second)
		synctest.Wait()
		d.end()
		d.start() // the back-off outlives the agent
		defer d.end()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s := d.status(p).ContainerStatuses[0]
		if s.RestartCount != 2 || s.State.Waiting == nil || s.State.Waiting.Reason != "CrashLoopBackOff" || s.LastTerminationState.Terminated == nil {
			t.Errorf("status: %+v", s)
		}
		time.Sleep(13 * time.Second)
		synctest.Wait()
		if s := d.status(p).ContainerStatuses[0]; s.RestartCount != 3 {
			t.Errorf("status: %+v", s)
		}
		if n := len(d.runtime.Containers()); n > 2 {
			t.Errorf("%d containers are kept", n)
		}
	})
}

func TestLivenessRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer d.end()
		p := newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 3}
		})
		d.apply(set(t, p))
		time.Sleep(time.Minute + time.Second/2) // between two checks
		d.runtime.SetUnhealthy("main", true)
		time.Sleep(3 * time.Second)
		d.runtime.SetUnhealthy("main", false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := d.status(p).ContainerStatuses[0]; s.RestartCount != 1 || !s.Ready {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestImagePullBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		d := newDevice(t, fake.Config{
			Missing: func(string) bool { return true },
			PullErr: func(string) error {
				if broken.Load() {
					return fmt.Errorf("no route to host")
				}
				return nil
			},
		})
		d.start()
		defer d.end()
		p := newPod("web")
		d.apply(set(t, p))
		if w := d.status(p).ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ErrImagePull" {
			t.Errorf("waiting: %+v", w)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if w := d.status(p).ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ImagePullBackOff" {
			t.Errorf("waiting: %+v", w)
		}
		broken.Store(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := d.status(p); s.Phase != corev1.PodRunning {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestRuntimeClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer d.end()
		class := "sandboxed"
		p := newPod("web", func(p *corev1.Pod) { p.Spec.RuntimeClassName = &class })
		d.apply(set(t, p))
		if s := d.status(p); s.Phase != corev1.PodPending || len(d.runtime.Containers()) > 0 {
			t.Errorf("without its class: %+v", s)
		}
		for _, tc := range []struct {
			handler string
			phase   corev1.PodPhase
		}{{"none", corev1.PodPending}, {"fake", corev1.PodRunning}} {
			value, _ := (&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Handler: tc.handler}).Marshal()
			d.apply(transport.Item{Key: "runtimeclasses.node.k8s.io/" + class, Value: value})
			if s := d.status(p); s.Phase != tc.phase {
				t.Errorf("with handler %s: %+v", tc.handler, s)
			}
		}
	})
}

// A running container gets other resources, and goes on.
func TestResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer func() { d.end() }()
		p := newPod("web", func(p *corev1.Pod) { p.Spec.Containers[0].Resources = resources("", "500m 64Mi") })
		d.apply(set(t, p))
		first := d.status(p).ContainerStatuses[0]
		if first.Resources == nil || first.Resources.Limits.Cpu().String() != "500m" || d.runtime.Calls("ResizeContainer") != 0 {
			t.Errorf("at first: %+v", first)
		}
		p = p.DeepCopy()
		p.Spec.Containers[0].Resources = resources("", "1 128Mi")
		d.apply(set(t, p))
		check := func(what string) {
			t.Helper()
			s := d.status(p)
			got := s.ContainerStatuses[0]
			if got.ContainerID != first.ContainerID || got.RestartCount != 0 || got.Resources == nil || got.Resources.Limits.Cpu().String() != "1" {
				t.Errorf("%s: %+v", what, got)
			}
			for _, c := range s.Conditions {
				if c.Type == corev1.PodResizeInProgress {
					t.Errorf("%s: %+v", what, c)
				}
			}
		}
		check("then")
		pass(time.Hour)
		if n := d.runtime.Calls("ResizeContainer"); n != 1 {
			t.Errorf("resized %d times", n)
		}
		d.end()
		d.start() // this one does not know what the other did, and does it once more
		pass(time.Hour)
		check("after a restart of the agent")
	})
}

func TestMissingConfigMapArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer d.end()
		p := newPod("web", func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}}
		})
		d.apply(set(t, p))
		time.Sleep(time.Minute)
		synctest.Wait()
		if w := d.status(p).ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "CreateContainerConfigError" || w.Message != `configmap "c" not found` {
			t.Errorf("waiting: %+v", w)
		}
		value, _ := (&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}}).Marshal()
		d.apply(transport.Item{Key: "configmaps/default/c", Value: value})
		if s := d.status(p); s.Phase != corev1.PodRunning {
			t.Errorf("status: %+v", s)
		}
	})
}

// A device belongs to one pod at a time, also when the agent restarts in between.
func TestDevicesAreExclusive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		file := filepath.Join(d.dir, "tty")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		d.devices = []Device{{Resource: "shoal.dev/serial", Path: file, ContainerPath: "/dev/serial"}}
		ask := func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"shoal.dev/serial": resource.MustParse("1")}
		}
		d.start()
		if q := d.a.allocatable()["shoal.dev/serial"]; q.Value() != 1 {
			t.Errorf("allocatable: %s", q.String())
		}
		a, b := newPod("a", ask), newPod("b", ask)
		d.apply(set(t, a))
		d.end()
		d.start()
		defer d.end()
		d.apply(set(t, b))
		if s := d.status(b).ContainerStatuses[0]; s.State.Waiting == nil || !strings.Contains(s.State.Waiting.Message, "no free device") {
			t.Errorf("b: %+v", s)
		}
		d.apply(transport.Item{Key: "pods/default/a", Deleted: true})
		time.Sleep(time.Second)
		synctest.Wait()
		if s := d.status(b); s.Phase != corev1.PodRunning {
			t.Errorf("b: %+v", s)
		}
	})
}

// Without a desired state nothing is known to be unwanted.
func TestLostDatabaseStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		p := newPod("web")
		d.apply(set(t, p))
		before := d.runtime.Containers()[0]
		d.end()
		if err := os.WriteFile(filepath.Join(d.dir, "agent.db"), []byte(strings.Repeat("rubbish ", 8192)), 0o600); err != nil {
			t.Fatal(err)
		}
		d.start()
		defer d.end()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if after := d.runtime.Containers(); len(after) != 1 || after[0].State != runtime.Running {
			t.Fatalf("a pod was stopped because the database was damaged: %+v", after)
		}
		if aside, _ := filepath.Glob(d.dir + "/agent.db.damaged-*"); len(aside) != 1 {
			t.Errorf("set aside: %v", aside)
		}
		d.seq = 0
		d.apply(set(t, p))
		if after := d.runtime.Containers(); len(after) != 1 || after[0].ID != before.ID {
			t.Errorf("the pod was not adopted: %+v", after)
		}
		d.apply(transport.Item{Key: "pods/default/web", Deleted: true})
		time.Sleep(time.Second)
		synctest.Wait()
		if after := d.runtime.Containers(); len(after) != 0 {
			t.Errorf("not removed: %+v", after)
		}
	})
}

func TestReplacedPodOfSameName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer d.end()
		old := newPod("web")
		d.apply(set(t, old))
		fresh := old.DeepCopy()
		fresh.UID = "another"
		d.apply(set(t, fresh))
		time.Sleep(time.Second)
		synctest.Wait()
		all := d.runtime.Containers()
		if len(all) != 1 || all[0].PodUID != "another" {
			t.Errorf("containers: %+v", all)
		}
		if s := d.status(fresh); s.Phase != corev1.PodRunning {
			t.Errorf("status: %+v", s)
		}
	})
}

// A stubborn container is killed after its grace, or earlier when the grace is shortened.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{Behave: func(*criapi.ContainerConfig) fake.Behaviour { return fake.Behaviour{Stubborn: true} }})
		d.start()
		defer d.end()
		p := newPod("web")
		long := int64(600)
		p.Spec.TerminationGracePeriodSeconds = &long
		d.apply(set(t, p))
		p = deleting(p)
		d.apply(set(t, p))
		time.Sleep(time.Minute)
		synctest.Wait()
		if all := d.runtime.Containers(); len(all) != 1 || all[0].State != runtime.Running {
			t.Fatalf("killed before its grace was over: %+v", all)
		}
		short := int64(1)
		p.DeletionGracePeriodSeconds = &short
		d.apply(set(t, p))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if all := d.runtime.Containers(); len(all) != 0 {
			t.Errorf("not killed: %+v", all)
		}
	})
}

// A container that its startup probe gives up has that probe's grace, not its pod's.
func TestProbeGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{Behave: func(*criapi.ContainerConfig) fake.Behaviour { return fake.Behaviour{Stubborn: true, Unhealthy: true} }})
		d.start()
		defer d.end()
		long, short := int64(600), int64(4)
		d.apply(set(t, newPod("web", func(p *corev1.Pod) {
			p.Spec.TerminationGracePeriodSeconds = &long
			p.Spec.Containers[0].StartupProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, TerminationGracePeriodSeconds: &short}
		})))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if all := d.runtime.Containers(); len(all) != 1 || all[0].State != runtime.Running {
			t.Fatalf("killed before its grace was over: %+v", all)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if all := d.runtime.Containers(); len(all) != 2 {
			t.Errorf("not replaced after its grace: %+v", all)
		}
	})
}

func TestInitContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		always := corev1.ContainerRestartPolicyAlways
		d := newDevice(t, fake.Config{Behave: func(c *criapi.ContainerConfig) fake.Behaviour {
			if strings.HasPrefix(c.Metadata.Name, "init") {
				return fake.Behaviour{ExitAfter: 5 * time.Second}
			}
			return fake.Behaviour{}
		}})
		d.start()
		defer d.end()
		p := newPod("web", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{
				{Name: "init-1", Image: "i"}, {Name: "sidecar", Image: "s", RestartPolicy: &always}, {Name: "init-2", Image: "i"},
			}
		})
		d.apply(set(t, p))
		names := func() string {
			var all []string
			for _, c := range d.runtime.Containers() {
				if c.State == runtime.Running {
					all = append(all, c.Name)
				}
			}
			sort.Strings(all)
			return strings.Join(all, " ")
		}
		for _, want := range []string{"init-1", "init-2 sidecar", "main sidecar"} {
			time.Sleep(time.Second)
			synctest.Wait()
			if got := names(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			time.Sleep(4500 * time.Millisecond)
			synctest.Wait()
		}
		if s := d.status(p); s.Phase != corev1.PodRunning || s.ContainerStatuses[0].RestartCount != 0 || len(s.InitContainerStatuses) != 3 {
			t.Errorf("status: %+v", s)
		}
	})
}

// An agent that ends at any moment of a start or a stop goes on from there.
func TestInterruptedAnywhere(t *testing.T) {
	for offset := time.Duration(0); offset < 130*time.Millisecond; offset += 7 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			d := newDevice(t, fake.Config{StartDelay: 50 * time.Millisecond})
			p := newPod("web")
			restart := func(items ...transport.Item) {
				d.start()
				d.apply(items...)
				time.Sleep(offset)
				d.end()
				d.start()
				time.Sleep(5 * time.Second)
				synctest.Wait()
				d.end()
			}
			restart(set(t, p))
			if all := d.runtime.Containers(); len(all) != 1 || all[0].State != runtime.Running || all[0].Attempt != 0 {
				t.Errorf("interrupted after %v: %+v", offset, all)
			}
			restart(set(t, deleting(p)))
			if pods, err := d.runtime.Pods(context.Background()); err != nil || len(pods) != 0 || !d.deleted["pods/default/web/uid-of-web"] {
				t.Errorf("interrupted after %v: left %+v, %v", offset, pods, err)
			}
		})
	}
}
