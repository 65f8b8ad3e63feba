package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-edge/shoal/agent/pod"
)

// cgroupRoot is where the kernel's hierarchies are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// limits are what the kernel holds the processes of one cgroup to.
type limits struct {
	// shares are its weight against its neighbours, 1024 for each CPU that was asked for.
	shares int64
	// quota is the processor time in microseconds that it gets in each cfsPeriod, memory is in bytes, pids in processes; 0: no limit.
	quota, memory, pids int64
}

// podLimits are those of a whole pod. Without them a pod that asks for two CPUs would weigh as much as one that asks for nothing:
// the weights of its containers count inside of it only.
func (a *Agent) podLimits(p *corev1.Pod) limits {
	l := limits{shares: shares(pod.Requested(p, corev1.ResourceCPU)), pids: a.c.PodPIDs}
	if milli, all := pod.Limited(p, corev1.ResourceCPU); all && milli > 0 {
		l.quota = max(milli*cfsPeriod/1000, minQuota)
	}
	if memory, all := pod.Limited(p, corev1.ResourceMemory); all {
		l.memory = memory
	}
	return l
}

func shares(milliCPU int64) int64 { return min(max(milliCPU*1024/1000, minShares), 262_144) }

// deviceLimits are those of all pods together: what is reserved stays for the device, whatever the pods do.
func (a *Agent) deviceLimits() limits {
	l := limits{shares: 1024 * int64(runtime.NumCPU())}
	if reserved, err := resource.ParseQuantity(a.c.Reserved["memory"]); err == nil && reserved.Sign() > 0 {
		l.memory = max(memInfo("MemTotal")-reserved.Value(), 0)
	}
	return l
}

// limitPod makes the pod's cgroup, before the runtime puts anything into it.
func (a *Agent) limitPod(p *corev1.Pod) error {
	return errors.Join(
		limit(a.cgroups, a.c.CgroupParent, a.deviceLimits()),
		limit(a.cgroups, a.podCgroup(string(p.UID)), a.podLimits(p)),
	)
}

// limit makes a cgroup below root and sets its limits, in the one hierarchy of version 2 or in those of version 1. A controller that
// the kernel does not have limits nothing.
func limit(root, name string, l limits) error {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return limitUnified(root, name, l)
	}
	return errors.Join(
		limitLegacy(filepath.Join(root, "cpu"), name, map[string]string{
			"cpu.shares": number64(l.shares), "cpu.cfs_quota_us": unlimited(l.quota, "-1"),
		}),
		limitLegacy(filepath.Join(root, "memory"), name, map[string]string{"memory.limit_in_bytes": unlimited(l.memory, "-1")}),
		limitLegacy(filepath.Join(root, "pids"), name, map[string]string{"pids.max": unlimited(l.pids, "max")}),
	)
}

func limitLegacy(root, name string, values map[string]string) error {
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	dir := filepath.Join(root, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return setAll(dir, values)
}

// limitUnified passes the controllers down to the cgroup first: a cgroup has those that the one above it gives on.
func limitUnified(root, name string, l limits) error {
	dir := root
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		for _, controller := range []string{"+cpu", "+memory", "+pids"} {
			// A kernel without one refuses it, and then its files are missing below.
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(controller), 0o644)
		}
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	return setAll(dir, map[string]string{
		// As the kernel's own documentation maps one range on the other: 2..262144 to 1..10000.
		"cpu.weight": number64(1 + (l.shares-minShares)*9999/262_142),
		"cpu.max":    unlimited(l.quota, "max") + " " + number64(cfsPeriod),
		"memory.max": unlimited(l.memory, "max"),
		"pids.max":   unlimited(l.pids, "max"),
	})
}

// setAll writes the values that differ from those that are there.
func setAll(dir string, values map[string]string) error {
	var errs []error
	for name, value := range values {
		file := filepath.Join(dir, name)
		old, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(old)) == value {
			continue
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("cgroup: set %s: %w", value, err))
		}
	}
	return errors.Join(errs...)
}

func number64(n int64) string { return strconv.FormatInt(n, 10) }

func unlimited(n int64, word string) string {
	if n <= 0 {
		return word
	}
	return number64(n)
}

// cgroupRoots are the mount points of the cgroup hierarchies: one with version 2, one for each controller with version 1.
func (a *Agent) cgroupRoots() []string {
	roots := []string{a.cgroups}
	for _, name := range entries(a.cgroups) {
		if info, err := os.Stat(filepath.Join(a.cgroups, name)); err == nil && info.IsDir() {
			roots = append(roots, filepath.Join(a.cgroups, name))
		}
	}
	return roots
}
