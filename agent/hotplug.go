package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/agent/pod"
)

const (
	// conditionDevices of a pod says whether all of its hardware is there.
	conditionDevices corev1.PodConditionType = "shoal.dev/DevicesReady"
	// unplugAnnotation of a pod says what happens to a container whose hardware goes: unplugStop, or else it runs on.
	unplugAnnotation = "devices.shoal.dev/on-unplug"
	unplugStop       = "stop"

	// settle is how long a burst of messages may last: an adapter with four ports is some twenty. later is when udev has made its
	// links by.
	settle = 300 * time.Millisecond
	later  = 2 * time.Second
)

// Rescan has the agent look at its hardware again, without having been told by the kernel.
func (a *Agent) Rescan() { wake(a.replugged) }

// keepDevices looks at the hardware again when the kernel tells of a change.
func (a *Agent) keepDevices(ctx context.Context) {
	if a.c.WatchHardware == nil {
		a.followDevices(ctx)
		return
	}
	a.Rescan() // what came since the first look, and links that udev had not made
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.c.WatchHardware(ctx, a.Rescan); err != nil {
			a.deaf.Store(true)
			a.c.Logger.Warn("the kernel does not tell of hardware that comes and goes; looking once a minute", "err", err)
		}
	}()
	a.followDevices(ctx)
	<-done
}

// followDevices looks after each change, and once more when udev is done.
func (a *Agent) followDevices(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.replugged:
		}
		for _, wait := range []time.Duration{settle, later} {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			a.lookAtDevices()
		}
	}
}

// lookAtDevices tells everybody whom a change of the hardware concerns.
func (a *Agent) lookAtDevices() {
	changed, err := a.devices.rescan()
	if err != nil {
		a.c.Logger.Warn("the hardware cannot be read", "err", err)
		return
	}
	if !changed {
		return
	}
	a.c.Logger.Info("the hardware has changed")
	a.wakeNode()
	a.wakeHolders()
}

// wakeHolders has the pods look that have, or wait for, hardware.
func (a *Agent) wakeHolders() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.pods {
		if w.waiting.Load() || a.devices.has(w.uid) {
			w.again()
		}
	}
}

// trouble is what is wrong with a container's hardware.
type trouble struct {
	container, what string
	// stale: what the container has is not its device any more, so it must not go on.
	stale bool
}

// has reports whether a pod has any hardware.
func (d *devices) has(uid string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.claims {
		if c.uid() == uid {
			return true
		}
	}
	return false
}

// troubles of a pod, in a fixed order; any reports whether it has hardware at all.
func (d *devices) troubles(uid string) (list []trouble, any bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	mine := map[string]claim{}
	for id, c := range d.claims {
		if c.uid() == uid {
			mine[id] = c
		}
	}
	if len(mine) == 0 {
		return nil, false
	}
	present, lacks := map[string]bool{}, map[string]string{}
	for _, u := range d.units() {
		present[u.id], lacks[u.id] = u.lacks == "", u.lacks
	}
	for id, c := range mine {
		_, container, _ := strings.Cut(c.Owner, "/")
		t := trouble{container: container}
		switch {
		case present[id] && (c.Number == "" || d.numbers[id] == c.Number):
			continue
		case present[id]:
			t.what, t.stale = id+" was plugged in again and has another number", true
		case c.Number != "" && d.taken(c.Number, id):
			t.what, t.stale = id+" went, and another device has its number", true
		case lacks[id] != "":
			t.what = id + ": " + lacks[id]
		default:
			t.what = id + " is not plugged in"
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b trouble) int { return strings.Compare(a.what, b.what) })
	return list, true
}

// taken reports whether another unit's node has that number now; the caller holds the lock.
func (d *devices) taken(number, id string) bool {
	for other, n := range d.numbers {
		if n == number && other != id {
			return true
		}
	}
	return false
}

// ailing overlays the health of containers whose hardware is not theirs any more, so that they are stopped and started anew.
func (w *worker) ailing(p *corev1.Pod, o *pod.Observed, list []trouble) {
	for _, t := range list {
		if !t.stale && (p == nil || p.Annotations[unplugAnnotation] != unplugStop) {
			continue
		}
		for _, c := range o.Containers {
			if c.Name == t.container {
				h := o.Health[c.ID]
				h.Failed = "its device " + t.what
				o.Health[c.ID] = h
			}
		}
	}
}

// tellDevices adds the condition of the pod's hardware to its status, and tells of changes.
func (w *worker) tellDevices(p *corev1.Pod, s *corev1.PodStatus, list []trouble, any bool, now time.Time) {
	if !any {
		return
	}
	c := corev1.PodCondition{Type: conditionDevices, Status: corev1.ConditionTrue, Reason: "AllThere", LastTransitionTime: metav1.NewTime(now).Rfc3339Copy()}
	if len(list) > 0 {
		texts := make([]string, len(list))
		for i, t := range list {
			texts[i] = t.what
		}
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "DeviceUnplugged", strings.Join(texts, "; ")
	}
	was := corev1.ConditionTrue
	if w.prior != nil {
		for _, old := range w.prior.Conditions {
			if old.Type == conditionDevices {
				if was = old.Status; was == c.Status {
					c.LastTransitionTime = old.LastTransitionTime
				}
			}
		}
	}
	s.Conditions = append(s.Conditions, c)
	switch {
	case was == c.Status:
	case c.Status == corev1.ConditionFalse:
		w.a.event(p, "", corev1.EventTypeWarning, "DeviceUnplugged", c.Message)
	default:
		w.a.event(p, "", corev1.EventTypeNormal, "DevicePluggedIn", "All devices of the pod are there again")
	}
}
