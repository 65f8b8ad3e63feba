package agent

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/transport"
)

// The keys of the desired state that concern the firmware, and the key under which its status is reported.
const (
	firmwareKey = "firmware"
	releaseKey  = "release"
)

// tellFirmware passes on what the device's own disk says that is wanted. A device that has never heard anything, or has lost what it
// heard, tells nothing: an update that is under way goes on.
func (a *Agent) tellFirmware() {
	if epoch, _ := a.db.position(); a.c.Firmware == nil || epoch == 0 {
		return
	}
	var told firmwarev1.DeviceFirmware
	if value := a.db.desired(firmwareKey); value != nil {
		if err := told.Unmarshal(value); err != nil {
			a.c.Logger.Error("what the control plane says of the firmware cannot be read", "err", err)
			return
		}
	}
	release := &firmwarev1.Release{}
	if value := a.db.desired(releaseKey); value == nil || release.Unmarshal(value) != nil {
		release = nil
	}
	a.c.Firmware.Tell(&told.Spec, release)
}

// firmwareItem is what is reported of the firmware, if there is anything.
func (a *Agent) firmwareItem() (transport.Item, bool) {
	if a.c.Firmware == nil {
		return transport.Item{}, false
	}
	status, ok := a.c.Firmware.Status()
	if !ok {
		return transport.Item{}, false
	}
	value, err := (&firmwarev1.DeviceFirmware{Status: status}).Marshal()
	if err != nil {
		a.c.Logger.Error("encode the firmware's status", "err", err)
		return transport.Item{}, false
	}
	return transport.Item{Key: firmwareKey, Value: value}, true
}

func (a *Agent) reportFirmware(firmwarev1.DeviceFirmwareStatus) {
	item, ok := a.firmwareItem()
	a.mu.Lock()
	report := a.report
	a.mu.Unlock()
	if ok && report != nil {
		report(item)
	}
}

// podsRun is the health check of pods: the runtime answers, and every pod that should run does.
func (a *Agent) podsRun(context.Context) error {
	if !a.ready.Load() {
		return errors.New("the container runtime does not answer")
	}
	var wanted []string
	a.db.each(bucketDesired, "pods/", func(key string, _ []byte) { wanted = append(wanted, key) })
	for _, key := range wanted {
		p, err := a.desiredPod(key)
		if err != nil || p == nil || p.DeletionTimestamp != nil {
			continue
		}
		a.mu.Lock()
		item, ok := a.statuses[key+"/"+string(p.UID)]
		a.mu.Unlock()
		var told corev1.Pod
		if !ok || item.Deleted || told.Unmarshal(item.Value) != nil {
			return fmt.Errorf("pod %s/%s has not started", p.Namespace, p.Name)
		}
		if phase := told.Status.Phase; phase != corev1.PodRunning && phase != corev1.PodSucceeded {
			return fmt.Errorf("pod %s/%s is %s", p.Namespace, p.Name, phase)
		}
	}
	return nil
}
