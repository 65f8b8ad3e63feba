package apiserver

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// Limits of a question to the devices: how long it may take, how many are asked at once, and how long an answer may be.
const (
	usageTimeout  = 10 * time.Second
	usageAtOnce   = 32
	maxUsageBytes = 4 << 20
)

// usageResources are what metrics.k8s.io serves, for `kubectl top` and autoscalers: read from the devices when it is asked for.
// Nothing of it is stored, and devices that nobody asks about send nothing.
func usageResources() []resource {
	gv := metricsv1beta1.SchemeGroupVersion
	return []resource{
		{gv: gv, name: "nodes", kind: "NodeMetrics", of: gv, verbs: []string{"get", "list"}},
		{gv: gv, name: "pods", kind: "PodMetrics", of: gv, namespaced: true, verbs: []string{"get", "list"}},
	}
}

// isUsage reports whether the request is for what nodes or pods use.
func (req *request) isUsage() bool {
	return req.isResource && req.gv == metricsv1beta1.SchemeGroupVersion && (req.resource == "pods" || req.resource == "nodes" && req.namespace == "")
}

// serveUsage asks the devices that it takes to know. A device that does not answer is left out, as one that has no measurement yet.
func (s *Server) serveUsage(w http.ResponseWriter, req *request) error {
	if req.sub != "" || req.verb != "get" && req.verb != "list" {
		return errMethod(req)
	}
	if s.cfg.DialDevice == nil {
		return errInternal("this server cannot reach devices")
	}
	out, err := negotiateWhole(req.Request)
	if err != nil {
		return err
	}
	of := *req
	of.kind = api.ByResource(req.resource)
	sel, err := s.newSelector(&of)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(req.Context(), usageTimeout)
	defer cancel()
	if req.resource == "nodes" {
		return s.writeNodeUsage(ctx, w, req, out, sel)
	}
	return s.writePodUsage(ctx, w, req, out, sel)
}

func (s *Server) writeNodeUsage(ctx context.Context, w http.ResponseWriter, req *request, out output, sel *selector) error {
	var names []string
	labels := map[string]map[string]string{}
	for _, n := range store.List[corev1.Node](s.cfg.Client.Reader(), "") {
		if (req.name == "" || n.Name == req.name) && sel.matches(n) {
			names = append(names, n.Name)
			labels[n.Name] = n.Labels
		}
	}
	list := &metricsv1beta1.NodeMetricsList{TypeMeta: usageType("NodeMetricsList"), Items: []metricsv1beta1.NodeMetrics{}}
	for name, summary := range s.askUsage(ctx, names) {
		cpu, memory := summary.Node.CPU, summary.Node.Memory
		if cpu == nil || memory == nil {
			continue
		}
		list.Items = append(list.Items, metricsv1beta1.NodeMetrics{
			TypeMeta: usageType("NodeMetrics"), ObjectMeta: s.usageMeta("", name, labels[name]),
			Timestamp: cpu.Time, Window: usageWindow(), Usage: usageOf(cpu, memory),
		})
	}
	slices.SortFunc(list.Items, func(a, b metricsv1beta1.NodeMetrics) int { return cmp.Compare(a.Name, b.Name) })
	switch {
	case req.name == "":
		return s.writeObject(w, req, http.StatusOK, out, list)
	case len(list.Items) == 0:
		return apierrors.NewNotFound(req.groupResource(), req.name)
	}
	return s.writeObject(w, req, http.StatusOK, out, &list.Items[0])
}

func (s *Server) writePodUsage(ctx context.Context, w http.ResponseWriter, req *request, out output, sel *selector) error {
	wanted, nodes := map[string]*corev1.Pod{}, map[string]bool{}
	for _, p := range store.List[corev1.Pod](s.cfg.Client.Reader(), req.namespace) {
		if p.Spec.NodeName != "" && p.Status.Phase == corev1.PodRunning && (req.name == "" || p.Name == req.name) && sel.matches(p) {
			wanted[string(p.UID)], nodes[p.Spec.NodeName] = p, true
		}
	}
	names := make([]string, 0, len(nodes))
	for name := range nodes {
		names = append(names, name)
	}
	list := &metricsv1beta1.PodMetricsList{TypeMeta: usageType("PodMetricsList"), Items: []metricsv1beta1.PodMetrics{}}
	for node, summary := range s.askUsage(ctx, names) {
		for i := range summary.Pods {
			// What a device says of pods that are not its own is not heard.
			if p := wanted[summary.Pods[i].PodRef.UID]; p != nil && p.Spec.NodeName == node {
				list.Items = append(list.Items, s.podUsage(p, &summary.Pods[i]))
			}
		}
	}
	slices.SortFunc(list.Items, func(a, b metricsv1beta1.PodMetrics) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	switch {
	case req.name == "":
		return s.writeObject(w, req, http.StatusOK, out, list)
	case len(list.Items) == 0:
		return apierrors.NewNotFound(req.groupResource(), req.namespace+"/"+req.name)
	}
	return s.writeObject(w, req, http.StatusOK, out, &list.Items[0])
}

func (s *Server) podUsage(p *corev1.Pod, from *stats.PodStats) metricsv1beta1.PodMetrics {
	m := metricsv1beta1.PodMetrics{
		TypeMeta: usageType("PodMetrics"), ObjectMeta: s.usageMeta(p.Namespace, p.Name, p.Labels), Window: usageWindow(),
		Containers: []metricsv1beta1.ContainerMetrics{},
	}
	for _, c := range from.Containers {
		if c.CPU == nil || c.Memory == nil || c.CPU.UsageNanoCores == nil {
			continue // it has just started
		}
		m.Timestamp = c.CPU.Time
		m.Containers = append(m.Containers, metricsv1beta1.ContainerMetrics{Name: c.Name, Usage: usageOf(c.CPU, c.Memory)})
	}
	return m
}

func usageType(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{Kind: kind, APIVersion: metricsv1beta1.SchemeGroupVersion.String()}
}

func (s *Server) usageMeta(namespace, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels, CreationTimestamp: metav1.NewTime(s.cfg.Now()).Rfc3339Copy()}
}

// usageWindow is the least time that a device measures over.
func usageWindow() metav1.Duration { return metav1.Duration{Duration: 2 * time.Second} }

func usageOf(cpu *stats.CPUStats, memory *stats.MemoryStats) corev1.ResourceList {
	list := corev1.ResourceList{}
	if cpu.UsageNanoCores != nil {
		list[corev1.ResourceCPU] = *quantity.NewScaledQuantity(int64(*cpu.UsageNanoCores), quantity.Nano)
	}
	if memory.WorkingSetBytes != nil {
		list[corev1.ResourceMemory] = *quantity.NewQuantity(int64(*memory.WorkingSetBytes), quantity.BinarySI)
	}
	return list
}

// askUsage asks devices what they and their pods use.
func (s *Server) askUsage(ctx context.Context, nodes []string) map[string]*stats.Summary {
	var mu sync.Mutex
	answers := map[string]*stats.Summary{}
	var group errgroup.Group
	group.SetLimit(usageAtOnce)
	for _, node := range nodes {
		group.Go(func() error {
			summary, err := s.askDevice(ctx, node)
			if err != nil {
				s.cfg.Logger.Debug("no usage", "device", node, "reason", err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			answers[node] = summary
			return nil
		})
	}
	_ = group.Wait() // none of them returns an error
	return answers
}

func (s *Server) askDevice(ctx context.Context, node string) (*stats.Summary, error) {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://device/stats/summary", nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.cfg.DialDevice(ctx, node) },
	}}
	answer, err := client.Do(ask)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the device answers %s", answer.Status)
	}
	summary := &stats.Summary{}
	return summary, json.NewDecoder(io.LimitReader(answer.Body, maxUsageBytes)).Decode(summary)
}
