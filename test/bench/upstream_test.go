package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/test/load"
	"github.com/shoal-edge/shoal/test/upstream"
)

// apiServer is Kubernetes' own.
const apiServer = "../../bin/kube-apiserver"

// endpoint is an API server under test, and the processes that it consists of.
type endpoint struct {
	address   string
	tls       *tls.Config
	processes []int
	rounds    int // of fanOut
}

// systems start each API server alone.
var systems = []struct {
	name  string
	start func(b *testing.B) *endpoint
}{
	{"shoal", func(b *testing.B) *endpoint {
		c := start(b, 1)
		return &endpoint{address: c.Members[0].Address, tls: c.tls, processes: []int{c.Members[0].Process.Process.Pid}}
	}},
	{"kube-apiserver", startUpstream},
}

func startUpstream(b *testing.B) *endpoint {
	b.Helper()
	need(b, "etcd")
	if err := upstream.Missing(apiServer); err != nil {
		b.Skip(err)
	}
	s := upstream.Start(b, apiServer)
	return &endpoint{address: s.Address, tls: s.TLS, processes: s.Processes}
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (e *endpoint) dial(b *testing.B, clients int) []*conn {
	b.Helper()
	conns := make([]*conn, clients)
	var dialling errgroup.Group
	dialling.SetLimit(64)
	for i := range conns {
		dialling.Go(func() (err error) {
			conns[i], err = dial(b.Context(), e.address, e.tls)
			return err
		})
	}
	must(b, dialling.Wait())
	b.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return conns
}

// BenchmarkAPI asks shoal and Kubernetes' own API server, each alone and with one server, the same.
func BenchmarkAPI(b *testing.B) {
	for _, system := range systems {
		b.Run("system="+system.name, func(b *testing.B) {
			e := system.start(b)
			round := 0
			for _, m := range media {
				b.Run("do=create/media="+m.name, func(b *testing.B) {
					conns := e.dial(b, 64)
					round++
					load.Run(b, len(conns), func(_ context.Context, client, request int) error {
						body, err := m.encode(fmt.Sprintf("bench-%d-%d", round, request), objectSize)
						if err != nil {
							return err
						}
						return conns[client].post(configMaps, m.contentType, body)
					})
				})
			}
			e.populate(b, 10, 1000)
			for _, m := range media {
				b.Run("do=get/media="+m.name, func(b *testing.B) {
					conns := e.dial(b, 64)
					load.Run(b, len(conns), func(_ context.Context, client, request int) error {
						return conns[client].send(http.MethodGet, podPath(request%1000), m.contentType, nil, http.StatusOK)
					})
				})
				b.Run("do=list-1000-pods/media="+m.name, func(b *testing.B) {
					conns := e.dial(b, 4)
					load.Run(b, len(conns), func(_ context.Context, client, _ int) error {
						return conns[client].send(http.MethodGet, podsPath, m.contentType, nil, http.StatusOK)
					})
				})
			}
			b.Run("do=tell-1000-watchers", e.fanOut)
		})
	}
}

// fanOut measures how long it takes until 1,000 watchers have heard of a change, from when it was acknowledged.
func (e *endpoint) fanOut(b *testing.B) {
	const watches = 1000
	e.rounds++
	label := fmt.Sprintf("round-%d", e.rounds) // of this run: what others have made is none of its changes
	var heard, running sync.WaitGroup
	var conns []*conn
	b.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
		running.Wait()
	})
	path := configMaps + "?watch=1&timeoutSeconds=3600&labelSelector=app%3D" + label + "&resourceVersion=" + e.revision(b)
	for range watches { // each at once after its connection: idle ones are bounded
		w, err := dial(b.Context(), e.address, e.tls)
		must(b, err)
		conns = append(conns, w)
		events, err := w.watch(path)
		must(b, err)
		running.Go(func() {
			for {
				line, err := events.ReadBytes('\n')
				if err != nil {
					return // the end
				}
				if bytes.Contains(line, []byte(`"ADDED"`)) {
					heard.Done()
				}
			}
		})
	}
	writer := e.dial(b, 1)[0]
	b.ResetTimer()
	for i := range b.N {
		heard.Add(watches)
		body := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"watched-%s-%d","labels":{"app":%q}}}`, label, i, label)
		must(b, writer.post(configMaps, media[0].contentType, body))
		heard.Wait()
	}
	b.StopTimer()
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "all-told-ms")
	b.ReportMetric(0, "ns/op")
}

// revision is the newest, from which a watch has nothing to look through.
func (e *endpoint) revision(b *testing.B) string {
	b.Helper()
	c := e.dial(b, 1)[0]
	_, err := fmt.Fprintf(c, "GET %s?limit=1 HTTP/1.1\r\nHost: shoal\r\n\r\n", configMaps)
	must(b, err)
	answer, err := http.ReadResponse(c.in, nil)
	must(b, err)
	defer func() { _ = answer.Body.Close() }()
	var list metav1.PartialObjectMetadataList
	must(b, json.NewDecoder(answer.Body).Decode(&list))
	return list.ResourceVersion
}

// calm is how long a process is left alone before its memory is read: collectors give back what a load has taken some time after it.
const calm = 130 * time.Second

// BenchmarkMemory fills shoal and Kubernetes' own API server with nodes and pods as a fleet would, and reports the memory of all their
// processes. It takes a quarter of an hour, whatever the benchmark time is.
func BenchmarkMemory(b *testing.B) {
	for _, system := range systems {
		b.Run("system="+system.name, func(b *testing.B) {
			e := system.start(b)
			for _, size := range []struct{ nodes, pods int }{{0, 0}, {100, 1000}, {1000, 10000}} {
				e.populate(b, size.nodes, size.pods)
				time.Sleep(calm)
				all, anonymous := e.memory(b)
				name := fmt.Sprintf("%d-nodes-%d-pods", size.nodes, size.pods)
				b.ReportMetric(float64(all)/1e6, name+"-MB")
				b.ReportMetric(float64(anonymous)/1e6, name+"-anon-MB")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// memory is what the processes hold, all of it and what is not of files, in bytes.
func (e *endpoint) memory(b *testing.B) (all, anonymous int) {
	b.Helper()
	for _, pid := range e.processes {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		must(b, err)
		for field, sum := range map[string]*int{"\nVmRSS:": &all, "\nRssAnon:": &anonymous} {
			_, rest, _ := bytes.Cut(status, []byte(field))
			text, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
			kilobytes, err := strconv.Atoi(string(text))
			must(b, err)
			*sum += kilobytes << 10
		}
	}
	return all, anonymous
}

const podsPath = "/api/v1/namespaces/default/pods"

func podPath(i int) string { return podsPath + "/" + podName(i) }

func podName(i int) string { return fmt.Sprintf("press-6d4cf56db6-%05d", i) }

// populate makes nodes and pods up to those numbers, with the status that devices report. What is there already stays.
func (e *endpoint) populate(b *testing.B, nodes, pods int) {
	b.Helper()
	conns := e.dial(b, 8)
	each := func(n int, do func(c *conn, i int) error) {
		var work errgroup.Group
		for k, c := range conns {
			work.Go(func() error {
				for i := k; i < n; i += len(conns) {
					if err := do(c, i); err != nil {
						return err
					}
				}
				return nil
			})
		}
		must(b, work.Wait())
	}
	const path = "/api/v1/nodes"
	each(nodes, func(c *conn, i int) error {
		node := fleetNode(i)
		if c.send(http.MethodGet, path+"/"+node.Name, runtime.ContentTypeProtobuf, nil, http.StatusOK) == nil {
			return nil
		}
		return c.make("Node", path, node, func() error { return c.put("Node", path+"/"+node.Name+"/status", node) })
	})
	each(pods, func(c *conn, i int) error {
		if c.send(http.MethodGet, podPath(i), runtime.ContentTypeProtobuf, nil, http.StatusOK) == nil {
			return nil
		}
		pod := fleetPod(i, max(1, nodes))
		return c.make("Pod", podsPath, pod, func() error { return c.put("Pod", podPath(i)+"/status", pod) })
	})
}

type marshaler interface{ Marshal() ([]byte, error) }

func protobuf(kind string, o marshaler) ([]byte, error) {
	raw, err := o.Marshal()
	if err != nil {
		return nil, err
	}
	body, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: kind}, Raw: raw}).Marshal()
	return append([]byte("k8s\x00"), body...), err
}

func (c *conn) make(kind, path string, o marshaler, then func() error) error {
	body, err := protobuf(kind, o)
	if err != nil {
		return err
	}
	if err := c.post(path, runtime.ContentTypeProtobuf, body); err != nil {
		return err
	}
	return then()
}

func (c *conn) put(kind, path string, o marshaler) error {
	body, err := protobuf(kind, o)
	if err != nil {
		return err
	}
	return c.send(http.MethodPut, path, runtime.ContentTypeProtobuf, body, http.StatusOK)
}

func fleetNode(i int) *corev1.Node {
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("3884288Ki"), corev1.ResourcePods: resource.MustParse("110"),
	}
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pi-%04d", i), Labels: map[string]string{
			"kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": fmt.Sprintf("pi-%04d", i),
			"shoal.dev/lan": fmt.Sprintf("192.168.%d.0_24", i/16), "shoal.dev/silence": "24h",
		}},
		Status: corev1.NodeStatus{
			Capacity: room, Allocatable: room,
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.168.%d.%d", i/16, 10+i%16)}},
			NodeInfo:  corev1.NodeSystemInfo{Architecture: "arm64", OperatingSystem: "linux", KernelVersion: "6.12.25", KubeletVersion: "v1.37.2"},
		},
	}
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		status := corev1.ConditionFalse
		if t == corev1.NodeReady {
			status = corev1.ConditionTrue
		}
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
			Type: t, Status: status, Reason: "AsItShouldBe", Message: "the device says so", LastTransitionTime: metav1.Now(), LastHeartbeatTime: metav1.Now(),
		})
	}
	return n
}

func fleetPod(i, nodes int) *corev1.Pod {
	labels, ip := map[string]string{"app": "press", "pod-template-hash": "6d4cf56db6"}, fmt.Sprintf("10.42.%d.%d", i/250, i%250+2)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: podName(i), Labels: labels},
		Spec: corev1.PodSpec{
			NodeName: fmt.Sprintf("pi-%04d", i%nodes),
			// Nothing evicts it while it is measured.
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{
				Name: "press", Image: "registry.example/press:2.4.1", Command: []string{"/bin/press", "--line", "4"},
				Env:            []corev1.EnvVar{{Name: "LINE", Value: "4"}, {Name: "BROKER", Value: "mqtt://broker.plant.example:1883"}},
				Resources:      corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("32Mi")}},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/true"}}}},
			}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, HostIP: "192.168.0.10", HostIPs: []corev1.HostIP{{IP: "192.168.0.10"}}, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, StartTime: &metav1.Time{Time: time.Now()},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "press", Ready: true, Image: "registry.example/press:2.4.1",
				ImageID:     "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
				ContainerID: "containerd://9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
				State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
			}},
		},
	}
	for _, t := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	}
	return p
}
