package apiserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver"
)

// measured is a device that says what it and some pods use.
func measured(t *testing.T, summary *stats.Summary) pipeListener {
	t.Helper()
	l := pipeListener{conns: make(chan net.Conn, 8)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats/summary", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(summary) })
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { close(l.conns); server.Close() })
	return l
}

func TestUsage(t *testing.T) {
	n := func(v uint64) *uint64 { return &v }
	used := func(cpu, memory uint64) (*stats.CPUStats, *stats.MemoryStats) {
		return &stats.CPUStats{Time: metav1.NewTime(epoch), UsageNanoCores: n(cpu)}, &stats.MemoryStats{WorkingSetBytes: n(memory)}
	}
	summary := &stats.Summary{}
	summary.Node.CPU, summary.Node.Memory = used(1_500_000_000, 512<<20)
	device := measured(t, summary)
	b := newBed(t, withRoles, func(_ *bed, cfg *apiserver.Config) {
		cfg.DialDevice = func(_ context.Context, node string) (net.Conn, error) {
			if node != "n1" {
				return nil, errors.New("it is not connected")
			}
			here, there := net.Pipe()
			device.conns <- there
			return here, nil
		}
	})
	for _, name := range []string{"n1", "n2"} {
		b.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"zone": name}}})
	}
	for name, node := range map[string]string{"web": "n1", "db": "n1", "far": "n2"} {
		p := podOn(name, node)
		p.Labels = map[string]string{"app": name}
		stored := b.create(p)
		if _, err := b.client.Modify(t.Context(), key("pods", name), "status", func(o api.Object) error {
			o.(*corev1.Pod).Status.Phase = corev1.PodRunning
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		c := stats.ContainerStats{Name: "c"}
		c.CPU, c.Memory = used(250_000_001, 7<<20)
		// The device also speaks of a pod that is another's.
		summary.Pods = append(summary.Pods, stats.PodStats{PodRef: stats.PodReference{UID: string(stored.GetUID())}, Containers: []stats.ContainerStats{c}})
	}
	const base = "/apis/metrics.k8s.io/v1beta1"
	var nodes metricsv1beta1.NodeMetricsList
	b.get(&nodes, call{path: base + "/nodes"})
	if len(nodes.Items) != 1 || nodes.Items[0].Name != "n1" || nodes.Items[0].Usage.Cpu().MilliValue() != 1500 || nodes.Items[0].Usage.Memory().Value() != 512<<20 {
		t.Errorf("nodes: %+v", nodes)
	}
	if nodes.Kind != "NodeMetricsList" || nodes.Items[0].Labels["zone"] != "n1" || !nodes.Items[0].Timestamp.Time.Equal(epoch) {
		t.Errorf("nodes: %+v", nodes)
	}
	for query, want := range map[string]string{
		"/pods": "db web", "/namespaces/default/pods": "db web", "/namespaces/other/pods": "", "/pods?labelSelector=app%3Ddb": "db",
		"/pods?fieldSelector=spec.nodeName%3Dn2": "",
	} {
		var pods metricsv1beta1.PodMetricsList
		b.get(&pods, call{path: base + query})
		var names []string
		for _, p := range pods.Items {
			names = append(names, p.Name)
			if len(p.Containers) != 1 || p.Containers[0].Usage.Cpu().ScaledValue(-9) != 250_000_001 || p.Containers[0].Usage.Memory().Value() != 7<<20 {
				t.Errorf("pod: %+v", p)
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	var pod metricsv1beta1.PodMetrics
	b.get(&pod, call{path: base + "/namespaces/default/pods/web"})
	if pod.Kind != "PodMetrics" || pod.Name != "web" || pod.Labels["app"] != "web" {
		t.Errorf("pod: %+v", pod)
	}
	for path, want := range map[string]int{
		base + "/nodes/n1": 200, base + "/nodes/n2": 404, base + "/namespaces/default/pods/far": 404, base + "/namespaces/default/pods": 200,
		base: 200, base + "/pods/web/log": 405, base + "/things": 404,
	} {
		if reply, body := b.do(call{path: path}); reply.StatusCode != want {
			t.Errorf("%s: %d %s", path, reply.StatusCode, body)
		}
	}
	if reply, _ := b.do(call{method: http.MethodDelete, path: base + "/nodes/n1"}); reply.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("delete: %d", reply.StatusCode)
	}
	if reply, _ := b.do(call{path: base + "/nodes", as: "somebody|"}); reply.StatusCode != http.StatusForbidden {
		t.Errorf("somebody: %d", reply.StatusCode)
	}
}
