package agent

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Pressure: below these the device is short of memory, disk, or process ids, as kubelet's defaults have it.
const (
	leastMemory     = 100 << 20
	leastDiskPart   = 10 // percent
	leastInodesPart = 5  // percent
	leastPIDs       = 1000

	// worthPart is the least part of a disk that a pod is ended for: a disk that is full of other things stays full without it.
	worthPart = 200

	// measureEvery is how often that is looked at; pressureStays is how long a condition stays after it was last true, so that a
	// device at the edge is not full and empty by turns.
	measureEvery  = 10 * time.Second
	pressureStays = 5 * time.Minute
)

// space is what a file system has, in bytes and inodes.
type space struct{ total, free, inodes, inodesFree int64 }

// used is the part that is used, in percent; 0 when nothing is known.
func (s space) used() int64 {
	if s.total <= 0 {
		return 0
	}
	return 100 - s.free*100/s.total
}

// short says what there is too little of; empty when there is enough.
func (s space) short() string {
	switch {
	case s.total > 0 && s.free*100 < s.total*leastDiskPart:
		return "ephemeral-storage"
	case s.inodes > 0 && s.inodesFree*100 < s.inodes*leastInodesPart:
		return "inodes"
	}
	return ""
}

// sensors read what the device has left; tests have their own.
type sensors struct {
	disk         func(dir string) space
	memory, pids func() int64
}

func realSensors() sensors {
	return sensors{disk: disk, memory: func() int64 { return memInfo("MemAvailable") }, pids: freePIDs}
}

func disk(dir string) space {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return space{}
	}
	size := int64(s.Bsize) //nolint:unconvert // its type differs between architectures
	return space{int64(s.Blocks) * size, int64(s.Bavail) * size, int64(s.Files), int64(s.Ffree)}
}

// pressure is what the device is short of now.
type pressure struct {
	memory, disk, pids bool
	starved            string // memory, ephemeral-storage, inodes or pids
	worth              int64  // what a pod must have of it for its end to make a difference
	text               string
}

func (a *Agent) measure() pressure {
	var p pressure
	if free := a.sensors.pids(); free < leastPIDs {
		p.pids, p.starved = true, "pids"
		p.text = fmt.Sprintf("Threshold quantity: %d, available: %d.", leastPIDs, free)
	}
	for _, dir := range []string{a.c.DataDir, a.images()} {
		s := a.sensors.disk(dir)
		if short := s.short(); short != "" && dir != "" {
			p.disk, p.starved, p.worth = true, short, s.total/worthPart
			p.text = fmt.Sprintf("Threshold quantity: %d%%, available: %d%%.", leastDiskPart, 100-s.used())
			if short == "inodes" {
				p.worth = s.inodes / worthPart
				p.text = fmt.Sprintf("Threshold quantity: %d%%, available: %d%%.", leastInodesPart, s.inodesFree*100/s.inodes)
			}
		}
	}
	// Memory last: it is the most urgent.
	if free := a.sensors.memory(); free > 0 && free < leastMemory {
		p.memory, p.starved, p.worth = true, "memory", 0
		p.text = fmt.Sprintf("Threshold quantity: %dMi, available: %dMi.", leastMemory>>20, free>>20)
	}
	return p
}

// images is the folder whose disk images are on; empty while the runtime has not said.
func (a *Agent) images() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.imageDir
}

// keepPressure looks at what the device has left, frees what it can, and evicts pods one after the other when that does not do.
func (a *Agent) keepPressure(ctx context.Context) {
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	var collected, cooled time.Time
	if a.press(a.measure(), a.c.Now()) {
		a.wakeNode()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := a.c.Now()
		p := a.measure()
		if a.press(p, now) {
			a.wakeNode()
		}
		full := a.sensors.disk(a.images()).used() > int64(a.c.ImageGCHigh)
		if (full || p.disk) && a.ready.Load() && now.Sub(collected) >= time.Minute {
			collected = now
			if a.freeImages(ctx) > 0 {
				p = a.measure()
			}
		}
		if p.starved != "" && a.ready.Load() && !now.Before(cooled) {
			if w := a.evictOne(ctx, p); w != nil {
				cooled = now.Add(evictPause) // what it had comes back while its processes end
			}
		}
	}
}

// evictPause is how long an evicted pod has to give back what it had before the next one is evicted.
const evictPause = 30 * time.Second

// press takes over what was measured, and reports whether a condition of the node changes by it.
func (a *Agent) press(p pressure, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	changed := false
	for kind, on := range map[corev1.NodeConditionType]bool{
		corev1.NodeMemoryPressure: p.memory, corev1.NodeDiskPressure: p.disk, corev1.NodePIDPressure: p.pids,
	} {
		last, was := a.pressed[kind]
		switch {
		case on:
			a.pressed[kind] = now
			changed = changed || !was
		case was && (now.Sub(last) >= pressureStays || now.Before(last)): // over, or the clock was set back
			delete(a.pressed, kind)
			changed = true
		}
	}
	return changed
}

// freeImages removes images until the disk is below its low mark, and returns how many went.
func (a *Agent) freeImages(ctx context.Context) int {
	removed, err := a.collectImages(ctx, func() bool {
		s := a.sensors.disk(a.images())
		return s.used() <= int64(a.c.ImageGCLow) && s.short() == ""
	})
	if err != nil && ctx.Err() == nil {
		a.c.Logger.Warn("image garbage collection", "err", err)
	}
	return removed
}
