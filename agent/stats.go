package agent

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	containers "github.com/shoal-edge/shoal/agent/runtime"
)

// The processor that something uses is the difference of two measurements. The one before counts when it is this old; when there is
// none, a request waits for a second one. Nothing is measured while nobody asks.
const (
	oldestSample = 2 * time.Minute
	sampleGap    = 2 * time.Second
)

// sample is one measurement: by container id, and "" for the device.
type sample map[string]containers.Usage

// sampler keeps the measurement before.
type sampler struct {
	mu     sync.Mutex
	before sample
}

// rates returns a measurement and the one before it.
func (s *sampler) rates(ctx context.Context, measure func(context.Context) (sample, error)) (before, now sample, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, err = measure(ctx); err != nil {
		return nil, nil, err
	}
	if age := now[""].At.Sub(s.before[""].At); s.before != nil && age >= sampleGap && age <= oldestSample {
		before, s.before = s.before, now
		return before, now, nil
	}
	before = now
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-time.After(sampleGap):
	}
	if now, err = measure(ctx); err != nil {
		return nil, nil, err
	}
	s.before = now
	return before, now, nil
}

// rate is what is used of one CPU in the time between two measurements, in billionths; nil when that cannot be told.
func rate(before, now containers.Usage) *uint64 {
	passed, used := now.At.Sub(before.At), now.CPU-before.CPU
	if before.At.IsZero() || passed <= 0 || used < 0 {
		return nil
	}
	n := uint64(float64(used) / passed.Seconds())
	return &n
}

func (a *Agent) sample(ctx context.Context) (sample, error) {
	usage, err := a.c.Runtime.Usage(ctx)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(sample(usage))
	all[""] = containers.Usage{At: a.c.Now(), CPU: processorTime(), Memory: memInfo("MemTotal") - memInfo("MemAvailable")}
	return all, nil
}

// processorTime is what all processors have worked since the start of the kernel, from the first line of /proc/stat (proc(5)): user,
// nice, system, idle, iowait, irq, softirq and steal, in hundredths of a second.
func processorTime() time.Duration {
	var ticks int64
	for i, field := range strings.Fields(firstLine("/proc/stat")) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err == nil && i <= 8 && i != 4 && i != 5 {
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// serveStats answers as kubelet's /stats/summary does: what the device and its pods use now.
func (a *Agent) serveStats(w http.ResponseWriter, q *http.Request) {
	before, now, err := a.sampler.rates(q.Context(), a.sample)
	if err != nil {
		fail(w, err)
		return
	}
	summary := stats.Summary{Node: stats.NodeStats{NodeName: a.c.NodeName, CPU: cpuStats(before[""], now[""]), Memory: memoryStats(now[""])}}
	summary.Node.Memory.AvailableBytes = unsigned(memInfo("MemAvailable"))
	disk := a.sensors.disk(a.c.DataDir)
	summary.Node.Fs = &stats.FsStats{
		Time: metav1.NewTime(now[""].At), AvailableBytes: unsigned(disk.free), CapacityBytes: unsigned(disk.total), UsedBytes: unsigned(disk.total - disk.free),
		InodesFree: unsigned(disk.inodesFree), Inodes: unsigned(disk.inodes), InodesUsed: unsigned(disk.inodes - disk.inodesFree),
	}
	for _, w := range a.running() {
		if p := w.stats(before, now); len(p.Containers) > 0 {
			summary.Pods = append(summary.Pods, p)
		}
	}
	slices.SortFunc(summary.Pods, func(x, y stats.PodStats) int { return strings.Compare(x.PodRef.UID, y.PodRef.UID) })
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(summary) // the client has gone: there is nobody to tell
}

// stats is what the pod's running containers use.
func (w *worker) stats(before, now sample) stats.PodStats {
	namespace, name, _ := strings.Cut(w.name, "/")
	p := stats.PodStats{PodRef: stats.PodReference{Name: name, Namespace: namespace, UID: w.uid}}
	runs := w.ids()
	for _, name := range slices.Sorted(maps.Keys(runs)) {
		u, ok := now[runs[name]]
		if !ok {
			continue
		}
		p.Containers = append(p.Containers, stats.ContainerStats{
			Name: name, CPU: cpuStats(before[runs[name]], u), Memory: memoryStats(u),
			Rootfs: &stats.FsStats{Time: metav1.NewTime(u.At), UsedBytes: unsigned(u.Disk)},
		})
	}
	return p
}

func cpuStats(before, now containers.Usage) *stats.CPUStats {
	return &stats.CPUStats{Time: metav1.NewTime(now.At), UsageNanoCores: rate(before, now), UsageCoreNanoSeconds: unsigned(int64(now.CPU))}
}

func memoryStats(u containers.Usage) *stats.MemoryStats {
	return &stats.MemoryStats{Time: metav1.NewTime(u.At), WorkingSetBytes: unsigned(u.Memory)}
}

func unsigned(n int64) *uint64 {
	u := uint64(max(n, 0))
	return &u
}
