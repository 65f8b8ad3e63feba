package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
)

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (d *device) condition(kind corev1.NodeConditionType) corev1.ConditionStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.node.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return "none"
}

func (d *device) phase(p *corev1.Pod) string {
	s := d.status(p)
	return strings.Trim(string(s.Phase)+" "+s.Reason, " ")
}

// systemCritical is the priority of system-node-critical, about.
const systemCritical = 2_000_001_000

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}

func requesting(memory string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
	}
}

// Short of memory, the device ends the pod that uses most beyond what it asked for, then the next, and none that keeps to its word.
func TestEvictionForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer func() { d.end() }()
		important := int32(1000)
		modest, greedy, worse := newPod("modest", requesting("200Mi")), newPod("greedy"), newPod("worse", requesting("10Mi"))
		critical := newPod("critical", func(p *corev1.Pod) { n := int32(systemCritical); p.Spec.Priority = &n })
		dear := newPod("dear", func(p *corev1.Pod) { p.Spec.Priority = &important })
		d.apply(set(t, modest), set(t, greedy), set(t, worse), set(t, critical), set(t, dear))
		for p, mib := range map[*corev1.Pod]int64{modest: 150, greedy: 60, worse: 100, critical: 500, dear: 300} {
			d.runtime.SetUsage(string(p.UID), "main", runtime.Usage{Memory: mib << 20})
		}
		pass(time.Minute)
		if got := d.condition(corev1.NodeMemoryPressure); got != corev1.ConditionFalse {
			t.Fatalf("memory pressure %s with enough of it", got)
		}
		d.memory.Store(50 << 20)
		pass(measureEvery)
		phases := func() string {
			return fmt.Sprint(d.phase(modest), ", ", d.phase(greedy), ", ", d.phase(worse), ", ", d.phase(dear), ", ", d.phase(critical))
		}
		if got, want := phases(), "Running, Running, Failed Evicted, Running, Running"; got != want {
			t.Errorf("at first: %s, want %s", got, want)
		}
		if got := d.condition(corev1.NodeMemoryPressure); got != corev1.ConditionTrue {
			t.Errorf("memory pressure %s", got)
		}
		s := d.status(worse)
		if want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. The pod was using 102400Ki, request is 10240Ki."; s.Message != want {
			t.Errorf("message %q, want %q", s.Message, want)
		}
		if c := s.Conditions[len(s.Conditions)-1]; c.Type != corev1.DisruptionTarget || c.Status != corev1.ConditionTrue || c.Reason != "TerminationByKubelet" {
			t.Errorf("condition: %+v", c)
		}
		pass(evictPause)
		if got, want := phases(), "Running, Failed Evicted, Failed Evicted, Running, Running"; got != want {
			t.Errorf("then: %s, want %s", got, want)
		}
		d.memory.Store(1 << 30)
		pass(pressureStays - time.Minute)
		if got := d.condition(corev1.NodeMemoryPressure); got != corev1.ConditionTrue {
			t.Errorf("memory pressure %s a moment after it was over", got)
		}
		pass(2 * time.Minute)
		if got := d.condition(corev1.NodeMemoryPressure); got != corev1.ConditionFalse {
			t.Errorf("memory pressure %s for long", got)
		}
		// What was evicted stays so, also for an agent that starts anew.
		d.end()
		d.start()
		pass(time.Minute)
		if got, want := phases(), "Running, Failed Evicted, Failed Evicted, Running, Running"; got != want {
			t.Errorf("after a restart: %s, want %s", got, want)
		}
		for _, c := range d.runtime.Containers() {
			if (c.PodUID == string(worse.UID) || c.PodUID == string(greedy.UID)) && c.State == runtime.Running {
				t.Errorf("runs on: %+v", c)
			}
		}
	})
}

func emptyDir(name, limit string) corev1.Volume {
	v := corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
	if limit != "" {
		q := resource.MustParse(limit)
		v.EmptyDir.SizeLimit = &q
	}
	return v
}

// fill writes into a pod's volume.
func (d *device) fill(p *corev1.Pod, size int) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.a.volumes.Path(p, &p.Spec.Volumes[0]), "data"), make([]byte, size), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// Short of disk, the device ends pods that have a part of it worth their end, and gets that part back.
func TestEvictionForDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer d.end()
		small, large := newPod("small"), newPod("large")
		small.Spec.Volumes, large.Spec.Volumes = []corev1.Volume{emptyDir("v", "")}, []corev1.Volume{emptyDir("v", "")}
		d.apply(set(t, small), set(t, large))
		pass(time.Second)
		d.fill(large, 1<<20)
		d.fill(small, 1)
		d.space.Store(&space{total: 20 << 20, free: 1 << 20, inodes: 1000, inodesFree: 500})
		pass(2 * time.Minute)
		if got := d.phase(small) + ", " + d.phase(large); got != "Running, Failed Evicted" {
			t.Errorf("got %s", got)
		}
		if left := entries(filepath.Join(d.a.volumes.Dir(string(large.UID)), "volumes")); len(left) != 0 {
			t.Errorf("what was in the way is left: %v", left)
		}
		if got := d.condition(corev1.NodeDiskPressure); got != corev1.ConditionTrue {
			t.Errorf("disk pressure %s", got)
		}
	})
}

func TestDiskLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		defer d.end()
		limited := func(limit string) func(*corev1.Pod) {
			return func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{emptyDir("v", "")}
				p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(limit)}
			}
		}
		volume := newPod("volume", func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{emptyDir("v", "1Mi")} })
		container, whole, free := newPod("container", limited("1Mi")), newPod("whole", limited("2Mi")), newPod("free", limited("1Gi"))
		all := []*corev1.Pod{volume, container, whole, free}
		for _, p := range all {
			d.apply(set(t, p))
		}
		pass(2 * time.Minute)
		for _, p := range all {
			if got := d.phase(p); got != "Running" {
				t.Errorf("%s: %s", p.Name, got)
			}
			d.fill(p, 3<<20)
		}
		d.fill(container, 1)
		d.runtime.SetUsage(string(container.UID), "main", runtime.Usage{Disk: 2 << 20})
		pass(2 * time.Minute)
		for p, want := range map[*corev1.Pod]string{
			volume:    `Usage of EmptyDir volume "v" exceeds the limit "1Mi". `,
			container: `Container main exceeded its local ephemeral storage limit "1Mi". `,
			whole:     `Pod ephemeral local storage usage exceeds the total limit of containers 2097152. `,
			free:      "",
		} {
			if s := d.status(p); s.Message != want || (s.Reason == "Evicted") != (want != "") {
				t.Errorf("%s: %s %q", p.Name, s.Reason, s.Message)
			}
		}
	})
}

// The images that nobody needs go when the disk is full, and no other: not what pods use, not what they used before, not what was
// never fetched.
func TestImageGarbageCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{Missing: func(ref string) bool { return !strings.HasPrefix(ref, "example.com/seeded") }})
		d.start()
		defer d.end()
		run := func(name string, images ...string) {
			for _, image := range images {
				p := newPod(name, func(p *corev1.Pod) { p.Spec.Containers[0].Image = image })
				d.apply(set(t, p))
				pass(time.Minute)
				if p := d.status(p); p.Phase != corev1.PodRunning {
					t.Fatalf("%s: %+v", image, p)
				}
			}
		}
		run("a", "example.com/a:1", "example.com/a:2", "example.com/a:3", "example.com/a:1", "example.com/a:4")
		run("b", "example.com/b:1", "example.com/seeded:1", "example.com/c:1")
		images := func() string {
			all, err := d.runtime.Images(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, img := range all {
				names = append(names, strings.TrimPrefix(img.ID, "fake:example.com/"))
			}
			return strings.Join(sorted(names), " ")
		}
		if got, want := images(), "a:1 a:2 a:3 a:4 b:1 c:1 seeded:1"; got != want {
			t.Fatalf("images at first: %s, want %s", got, want)
		}
		d.space.Store(&space{total: 1000, free: 120, inodes: 1000, inodesFree: 500})
		pass(2 * time.Minute)
		if got, want := images(), "a:1 a:4 c:1 seeded:1"; got != want {
			t.Errorf("images: %s, want %s", got, want)
		}
		// With enough room, nothing goes.
		d.space.Store(&space{total: 1000, free: 300, inodes: 1000, inodesFree: 500})
		run("a", "example.com/a:5")
		pass(5 * time.Minute)
		if got, want := images(), "a:1 a:4 a:5 c:1 seeded:1"; got != want {
			t.Errorf("images with enough room: %s, want %s", got, want)
		}
	})
}
