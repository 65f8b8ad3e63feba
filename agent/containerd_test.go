package agent

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/agent/runtime/containerdtest"
	"github.com/shoal-edge/shoal/transport"
)

// board is an agent on a real containerd.
type board struct {
	t      testing.TB
	dir    string
	daemon *containerdtest.Daemon
	a      *Agent
	stop   func()
	seq    uint64
	edit   func(*Config) // nil: nothing to add

	registries []Registry

	mu      sync.Mutex
	more    chan struct{}
	pods    map[types.UID]*corev1.Pod
	deleted map[string]bool
}

func newBoard(t testing.TB, edit ...func(*Config)) *board {
	b := &board{t: t, daemon: containerdtest.Start(t), more: make(chan struct{}, 1), pods: map[types.UID]*corev1.Pod{}, deleted: map[string]bool{}}
	b.dir = filepath.Join(b.daemon.Dir, "agent")
	for _, f := range edit {
		b.edit = f
	}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *board) start() {
	b.t.Helper()
	c := Config{
		NodeName: "pi-1", DataDir: b.dir, Address: "192.0.2.1", Runtime: b.daemon.Runtime, CgroupParent: containerdtest.CgroupParent,
		Registries: b.registries, RegistryConfDir: b.daemon.RegistryDir,
	}
	if b.edit != nil {
		b.edit(&c)
	}
	a, err := New(c)
	if err != nil {
		b.t.Fatal(err)
	}
	a.SetReporter(func(items ...transport.Item) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, item := range items {
			p := &corev1.Pod{}
			if strings.HasPrefix(item.Key, "pods/") && p.Unmarshal(item.Value) == nil {
				b.pods[p.UID] = p
				b.deleted[item.Key] = item.Deleted
			}
		}
		wake(b.more)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	b.a = a
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
}

func (b *board) apply(items ...transport.Item) {
	b.t.Helper()
	b.seq++
	if err := b.a.Apply(context.Background(), 1, b.seq, b.seq == 1, items); err != nil {
		b.t.Fatal(err)
	}
}

// await waits until a report satisfies f.
func (b *board) await(what string, f func() bool) {
	b.t.Helper()
	deadline := time.After(time.Minute)
	for {
		b.mu.Lock()
		ok := f()
		b.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-b.more:
		case <-deadline:
			b.mu.Lock()
			defer b.mu.Unlock()
			b.t.Fatalf("%s: last reports: %+v", what, b.pods)
		}
	}
}

func (b *board) container(p *corev1.Pod) *corev1.ContainerStatus {
	if r := b.pods[p.UID]; r != nil && len(r.Status.ContainerStatuses) > 0 {
		return &r.Status.ContainerStatuses[0]
	}
	return &corev1.ContainerStatus{}
}

func (b *board) get(path string) string {
	b.t.Helper()
	here, there := net.Pipe()
	go b.a.ServeTunnel(context.Background(), there)
	defer func() { _ = here.Close() }()
	q, _ := http.NewRequest(http.MethodGet, "http://node"+path, nil)
	go func() { _ = q.Write(here) }()
	reply, err := http.ReadResponse(bufio.NewReader(here), q)
	if err != nil {
		b.t.Fatal(err)
	}
	data, err := io.ReadAll(reply.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return reply.Status[:3] + " " + string(data)
}

func encode(t testing.TB, key string, o interface{ Marshal() ([]byte, error) }) transport.Item {
	t.Helper()
	value, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return transport.Item{Key: key, Value: value}
}

func testPod(name, script string) *corev1.Pod {
	grace := int64(2)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name), Labels: map[string]string{"app": "a"}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "main", Image: containerdtest.Image, ImagePullPolicy: corev1.PullNever, Command: []string{"/bin/sh", "-c", script},
			}},
		},
	}
}

func TestOnContainerd(t *testing.T) {
	b := newBoard(t)
	script := `echo "hello $WHO from $POD $(id -u) $(cat /etc/config/key) $(cat /etc/hosts | grep -c web)"
touch /data/file; echo bye > /dev/termination-log
trap 'exit 0' TERM; while ! test -e /data/die; do sleep 0.1 & wait $!; done; exit 7`
	p := testPod("web", script)
	user := int64(1234)
	c := &p.Spec.Containers[0]
	c.Args = []string{"x"}
	c.Env = []corev1.EnvVar{
		{Name: "WHO", Value: "world"},
		{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
	}
	c.Resources.Limits = corev1.ResourceList{"memory": resource.MustParse("32Mi"), "cpu": resource.MustParse("500m")}
	c.SecurityContext = &corev1.SecurityContext{RunAsUser: &user, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/test", "-e", "/data/file"}}}}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "config", MountPath: "/etc/config"}}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}},
	}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}, Data: map[string]string{"key": "value"}}
	b.apply(encode(t, "pods/default/web", p), encode(t, "configmaps/default/c", config))
	b.await("ready", func() bool { return b.container(p).Ready })
	first := b.container(p).ContainerID
	if s := b.pods[p.UID].Status; !strings.HasPrefix(s.PodIP, "10.88.0.") || s.QOSClass != corev1.PodQOSGuaranteed || !strings.HasPrefix(first, "containerd://") {
		t.Errorf("status: %+v", s)
	}
	if got, want := b.get("/containerLogs/default/web/main?tailLines=1"), "200 hello world from web 1234 value 1\n"; got != want {
		t.Errorf("log: %q, want %q", got, want)
	}
	id := strings.TrimPrefix(first, "containerd://")
	exec := func(command ...string) string {
		t.Helper()
		out, code, err := b.daemon.Runtime.Exec(context.Background(), id, command, 10*time.Second)
		if err != nil || code != 0 {
			t.Fatalf("exec: %q, %d, %v", out, code, err)
		}
		return strings.TrimSpace(string(out))
	}

	// The agent restarts, containerd restarts, a configMap changes: nothing happens to the pod.
	b.stop()
	b.start()
	b.daemon.Down()
	b.daemon.Up(t)
	config.Data["key"] = "changed"
	b.apply(encode(t, "configmaps/default/c", config))
	for deadline := time.Now().Add(30 * time.Second); b.a.Health() != nil || exec("/bin/cat", "/etc/config/key") != "changed"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the change did not arrive (%v)", b.a.Health())
		}
	}
	if now := b.container(p); now.ContainerID != first || !now.Ready || now.RestartCount != 0 {
		t.Errorf("the pod was touched: %+v", now)
	}

	// It ends by itself and comes back at once.
	exec("/bin/touch", "/data/die")
	b.await("restarted", func() bool {
		s := b.container(p)
		return s.RestartCount == 1 && s.LastTerminationState.Terminated != nil
	})
	if s := b.container(p).LastTerminationState.Terminated; s.ExitCode != 7 || s.Message != "bye\n" {
		t.Errorf("last state: %+v", s)
	}
	if got := b.get("/containerLogs/default/web/main?previous=true&limitBytes=5"); got != "200 hello" {
		t.Errorf("previous log: %q", got)
	}

	begin := time.Now()
	gone := p.DeepCopy()
	now := metav1.Now()
	gone.DeletionTimestamp, gone.DeletionGracePeriodSeconds = &now, p.Spec.TerminationGracePeriodSeconds
	b.apply(encode(t, "pods/default/web", gone))
	b.await("deleted", func() bool { return b.deleted["pods/default/web/uid-web"] })
	t.Logf("deleted in %v", time.Since(begin))
	if pods, err := b.daemon.Runtime.Pods(context.Background()); err != nil || len(pods) != 0 {
		t.Errorf("left: %+v, %v", pods, err)
	}
	for _, pattern := range []string{b.dir + "/pods/*", b.dir + "/logs/*", "/sys/fs/cgroup/shoaltest/*uid-web*", "/sys/fs/cgroup/*/shoaltest/*uid-web*"} {
		if left, _ := filepath.Glob(pattern); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// What the control plane took away while the agent was down is removed when it is back.
func TestOrphansOnContainerd(t *testing.T) {
	b := newBoard(t)
	p := testPod("orphan", "sleep 3600")
	b.apply(encode(t, "pods/default/orphan", p))
	b.await("running", func() bool { return b.container(p).State.Running != nil })
	b.stop()
	db, err := openDatabase(b.dir, time.Now(), b.a.c.Logger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.apply(1, 9, true, nil); err != nil {
		t.Fatal(err)
	}
	if err := db.close(); err != nil {
		t.Fatal(err)
	}
	b.start()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		pods, err := b.daemon.Runtime.Pods(context.Background())
		if err == nil && len(pods) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %+v, %v", pods, err)
		}
	}
}

// BenchmarkPodStart is the time from a pod's arrival on the device to the report that it runs; cri.BenchmarkRaw is the part
// of it that is containerd's.
func BenchmarkPodStart(b *testing.B) {
	d := newBoard(b)
	i := 0
	for b.Loop() {
		i++
		p := testPod("p"+strconv.Itoa(i), "exec sleep 3600")
		d.apply(encode(b, "pods/default/"+p.Name, p))
		d.await("running", func() bool { return d.pods[p.UID] != nil && d.pods[p.UID].Status.Phase == corev1.PodRunning })
		b.StopTimer()
		d.apply(transport.Item{Key: "pods/default/" + p.Name, Deleted: true})
		for {
			pods, err := d.daemon.Runtime.Pods(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			if len(pods) == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		b.StartTimer()
	}
}
