package agent

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/transport"
)

// contact knows when the control plane has last been certain to hear of this device: pods that are ended some time after that
// (fleetv1.Disconnect) are never run by two devices. It counts by the time since the boot, which goes on while the device sleeps and
// which nobody sets. After a boot without a link nothing is known, and such pods wait.
type contact struct {
	file   string // outlives the agent, and not the boot; empty: nothing does
	boot   string
	uptime func() time.Duration
	logger *slog.Logger

	mu    sync.Mutex
	known bool
	at    time.Duration // since the boot
	asked time.Duration // when an acknowledgement was last asked for
	count uint64
}

func newContact(c *Config) *contact {
	k := &contact{file: c.ContactFile, uptime: c.Uptime, logger: c.Logger}
	if k.uptime == nil {
		k.uptime = uptime
	}
	if k.file == "" {
		return k
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		k.logger.Warn("the boot has no name: an agent that starts again does not know when the control plane last heard of it", "err", err)
		k.file = ""
		return k
	}
	k.boot = strings.TrimSpace(string(boot))
	k.load()
	return k
}

// uptime is the time since the boot.
func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has it since 2.6.39
	}
	return time.Duration(t.Nano())
}

// load reads what an agent before this one has left.
func (k *contact) load() {
	data, err := os.ReadFile(k.file)
	if err != nil {
		return // there was none since the boot
	}
	boot, rest, _ := strings.Cut(string(data), " ")
	if at, err := time.ParseDuration(rest); err == nil && boot == k.boot && at <= k.uptime() {
		k.known, k.at = true, at
	}
}

// heard takes in that the control plane has what was sent at that time.
func (k *contact) heard(sent time.Time, keep bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := k.uptime() - time.Since(sent)
	if k.known && at <= k.at {
		return
	}
	k.known, k.at = true, at
	if k.file == "" || !keep {
		return
	}
	err := os.MkdirAll(filepath.Dir(k.file), 0o700)
	if err == nil {
		err = os.WriteFile(k.file+".new", fmt.Appendf(nil, "%s %s", k.boot, at), 0o600)
	}
	if err == nil { // it is in memory, and the boot that it speaks of ends with the power: no need to flush
		err = os.Rename(k.file+".new", k.file)
	}
	if err != nil {
		k.logger.Warn("cannot note when the control plane last heard of this device", "err", err)
	}
}

// left is how long a pod that is to end after a time without contact may still run. ask: it is time to have the control plane say that it
// is there.
func (k *contact) left(after time.Duration) (left time.Duration, ask bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.uptime()
	if k.known {
		left = after - (now - k.at)
	}
	if pace := after / 4; (!k.known || now-k.at >= pace) && (k.count == 0 || now-k.asked >= pace) {
		k.asked, ask = now, true
		k.count++
	}
	return left, ask
}

// question is the report that asks.
func (k *contact) question() transport.Item {
	k.mu.Lock()
	defer k.mu.Unlock()
	return transport.Item{Key: transport.ContactKey, Value: binary.AppendUvarint(nil, k.count)}
}

// Acknowledged takes in when a message was sent that the control plane has got, and what was in it; see transport.LinkConfig.
func (a *Agent) Acknowledged(sent time.Time, reports []transport.Item) {
	if a.untold.delivered(reports) {
		wake(a.telling)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var bound, fenced []*worker
	for _, w := range a.pods {
		if w.bound.Load() {
			bound = append(bound, w)
		}
		if w.fenced.Load() {
			fenced = append(fenced, w)
		}
	}
	a.contact.heard(sent, len(bound) > 0)
	for _, w := range fenced {
		w.nudge()
	}
}

// fence finds out whether the pod has to be ended because the control plane may not have heard of this device for too long. It returns
// when to look again.
func (w *worker) fence(p *corev1.Pod, now time.Time) (again time.Time) {
	policy, err := fleetv1.ReadDisconnect(p.Annotations)
	if err != nil || policy.StopAfter == 0 {
		return time.Time{}
	}
	w.bound.Store(true)
	w.fenced.Store(true) // whoever hears something from here on wakes us
	left, ask := w.a.contact.left(policy.StopAfter)
	if ask {
		w.a.mu.Lock()
		report := w.a.report
		w.a.mu.Unlock()
		if report != nil {
			report(w.a.contact.question())
		}
	}
	if left <= 0 {
		return now.Add(policy.StopAfter / 4)
	}
	w.fenced.Store(false)
	return now.Add(min(left, policy.StopAfter/4))
}

// tellFenced tells people that the pod ends, or may run again.
func (w *worker) tellFenced(p *corev1.Pod, fenced bool) {
	if fenced {
		w.a.event(p, "", corev1.EventTypeWarning, "Disconnected", fmt.Sprintf("The pod is ended: the control plane may not have heard of this device for %s (%s)",
			strings.TrimPrefix(p.Annotations[fleetv1.DisconnectAnnotation], "stop-after="), fleetv1.DisconnectAnnotation))
		return
	}
	w.a.event(p, "", corev1.EventTypeNormal, "Reconnected", "The control plane hears of this device: the pod may run")
}
