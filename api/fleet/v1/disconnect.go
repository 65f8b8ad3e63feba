package v1

import (
	"fmt"
	"strings"
	"time"
)

// DisconnectAnnotation is the annotation of a pod that says what becomes of it when its device cannot be heard: keep, replace, or
// stop-after=DURATION. It does not change once the pod is there, for its device may not hear of it.
const DisconnectAnnotation = "fleet.shoal.dev/disconnect"

// Disconnect is what becomes of a pod whose device cannot be heard. The zero value leaves it to the pod's tolerations.
type Disconnect struct {
	// Keep: the pod stays where it is for as long as its node is there.
	Keep bool
	// Replace: another one takes its place as soon as its node is unreachable; for as long as the device is away both may run.
	Replace bool
	// StopAfter, if not zero: the device ends the pod when the control plane may not have heard of it for that long, and another one takes
	// its place only after that. The two never run together.
	StopAfter time.Duration
}

// The bounds of stop-after: below, a lost packet would stop pods.
const (
	minStopAfter = 10 * time.Second
	maxStopAfter = 7 * 24 * time.Hour
)

// ReadDisconnect reads what a pod's annotations say.
func ReadDisconnect(annotations map[string]string) (Disconnect, error) {
	text, ok := annotations[DisconnectAnnotation]
	switch {
	case !ok:
		return Disconnect{}, nil
	case text == "keep":
		return Disconnect{Keep: true}, nil
	case text == "replace":
		return Disconnect{Replace: true}, nil
	}
	after, is := strings.CutPrefix(text, "stop-after=")
	if is {
		if d, err := time.ParseDuration(after); err == nil && d >= minStopAfter && d <= maxStopAfter {
			return Disconnect{StopAfter: d}, nil
		}
	}
	return Disconnect{}, fmt.Errorf("annotation %s is %q, and must be keep, replace or stop-after=DURATION, from %s to %s",
		DisconnectAnnotation, text, minStopAfter, maxStopAfter)
}

// ReplaceAfter is for how long the control plane has not heard of a device when it may replace a pod with StopAfter: the device has
// ended it by then, within its grace, and with what it may take to do so and what two clocks may differ in that time.
func (d *Disconnect) ReplaceAfter(grace time.Duration) time.Duration {
	return d.StopAfter + grace + 10*time.Second + d.StopAfter/100
}
