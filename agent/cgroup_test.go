package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func resources(requests, limits string) corev1.ResourceRequirements {
	list := func(s string) corev1.ResourceList {
		if s == "" {
			return nil
		}
		cpu, memory, _ := strings.Cut(s, " ")
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	return corev1.ResourceRequirements{Requests: list(requests), Limits: list(limits)}
}

func TestPodLimits(t *testing.T) {
	a := newIdle(t, func(c *Config) { c.PodPIDs = 100 })
	always := corev1.ContainerRestartPolicyAlways
	for name, tc := range map[string]struct {
		containers, init []corev1.Container
		want             limits
	}{
		"nothing asked for": {[]corev1.Container{{}}, nil, limits{shares: 2, pids: 100}},
		"requests only":     {[]corev1.Container{{Resources: resources("2 1Gi", "")}}, nil, limits{shares: 2048, pids: 100}},
		"one without limits": {
			[]corev1.Container{{Resources: resources("", "500m 64Mi")}, {Resources: resources("500m 1Mi", "")}},
			nil,
			limits{shares: 1024, pids: 100},
		},
		"limits": {
			[]corev1.Container{{Resources: resources("", "500m 64Mi")}, {Resources: resources("100m 1Mi", "1 64Mi")}},
			nil,
			limits{shares: 614, quota: 150_000, memory: 128 << 20, pids: 100},
		},
		"a large init container": {
			[]corev1.Container{{Resources: resources("", "500m 64Mi")}},
			[]corev1.Container{{Resources: resources("", "250m 256Mi")}},
			limits{shares: 512, quota: 50_000, memory: 256 << 20, pids: 100},
		},
		"a sidecar": {
			[]corev1.Container{{Resources: resources("", "500m 64Mi")}},
			[]corev1.Container{{RestartPolicy: &always, Resources: resources("", "250m 32Mi")}, {Resources: resources("", "100m 16Mi")}},
			limits{shares: 768, quota: 75_000, memory: 96 << 20, pids: 100},
		},
	} {
		p := newPod("web", func(p *corev1.Pod) { p.Spec.Containers, p.Spec.InitContainers = tc.containers, tc.init })
		if got := a.podLimits(p); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

// Both versions of cgroups, as folders of plain files.
func TestLimit(t *testing.T) {
	l := limits{shares: 1024, quota: 50_000, memory: 1 << 20}
	for version, tc := range map[string]struct {
		root, files []string
		want        map[string]string
	}{
		"v1": {
			[]string{"cpu/", "memory/"}, // no pids
			[]string{"cpu/shoal/podx/cpu.shares", "cpu/shoal/podx/cpu.cfs_quota_us", "memory/shoal/podx/memory.limit_in_bytes"},
			map[string]string{"cpu/shoal/podx/cpu.shares": "1024", "cpu/shoal/podx/cpu.cfs_quota_us": "50000", "memory/shoal/podx/memory.limit_in_bytes": "1048576"},
		},
		"v2": {
			[]string{"cgroup.controllers", "cgroup.subtree_control"},
			[]string{"shoal/cgroup.subtree_control", "shoal/podx/cpu.weight", "shoal/podx/cpu.max", "shoal/podx/pids.max"}, // no memory
			map[string]string{"shoal/podx/cpu.weight": "39", "shoal/podx/cpu.max": "50000 100000", "shoal/podx/pids.max": "max", "shoal/cgroup.subtree_control": "+pids"},
		},
	} {
		root := t.TempDir()
		for _, name := range append(tc.root, tc.files...) {
			file := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(file+"x"), 0o755); err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(name, "/") {
				continue
			}
			if err := os.WriteFile(file, []byte("0\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // doing it twice changes nothing
			if err := limit(root, "/shoal/podx", l); err != nil {
				t.Fatal(err)
			}
			for name, want := range tc.want {
				if got := firstLine(filepath.Join(root, name)); got != want {
					t.Errorf("%s: %s is %q, want %q", version, name, got, want)
				}
			}
		}
	}
}
