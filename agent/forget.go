package agent

import (
	"context"
	"time"
)

// clear removes the volumes of a pod that is over; its logs and last words stay for as long as the pod does.
func (w *worker) clear() {
	if err := w.a.volumes.Clear(w.uid); err != nil {
		w.a.c.Logger.Warn("volumes of a pod that is over are left until it is deleted", "pod", w.name, "err", err)
	}
	w.releaseDevices()
	w.cleared = true
}

// releaseDevices frees the hardware of a pod that has ended: the control plane counts it as free from here on.
func (w *worker) releaseDevices() {
	freed, err := w.a.devices.release(w.uid)
	if err != nil {
		w.a.c.Logger.Error("devices of a pod that has ended", "pod", w.name, "err", err)
	}
	if freed {
		w.a.mu.Lock()
		w.a.wakeWaiting()
		w.a.mu.Unlock()
	}
}

// forget removes the last traces of a pod of which the runtime has nothing any more.
func (w *worker) forget(ctx context.Context, now time.Time) (next time.Time, done bool) {
	for id, cancel := range w.probes {
		cancel()
		delete(w.probes, id)
	}
	if _, err := w.a.devices.release(w.uid); err != nil {
		w.a.c.Logger.Error("devices of a removed pod", "pod", w.name, "err", err)
	}
	// The files go last: whatever interrupts this, they are found again (traces), and all of it is done anew.
	if err := w.a.removeFiles(w.name, w.uid); err != nil {
		w.failures++
		w.a.c.Logger.Warn("files of a removed pod are left, trying again", "pod", w.name, "uid", w.uid, "err", err)
		if w.failures < 5 {
			return now.Add(time.Second), false
		}
	}
	w.a.tokens.forget(w.uid)
	w.a.c.Logger.Info("pod removed", "pod", w.name, "uid", w.uid)
	if w.name != "" {
		w.a.publish(w.key(), w.uid, nil)
	}
	w.a.remove(w)
	w.mu.Lock()
	if w.looked != nil {
		close(w.looked)
		w.looked = nil
	}
	w.mu.Unlock()
	return time.Time{}, true
}

// remove ends a worker, and wakes those that may wait for what its pod had.
func (a *Agent) remove(w *worker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pods, w.uid)
	for id, owner := range a.owners {
		if owner == w {
			delete(a.owners, id)
		}
	}
	a.wakeWaiting()
	if a.startStatic(w) {
		return
	}
	if p, err := a.desiredPod(w.key()); err == nil && p != nil && string(p.UID) == w.uid && p.DeletionTimestamp == nil {
		a.startWorker(newWorker(a, w.uid, p, "")) // wanted again in the meantime
	}
}
