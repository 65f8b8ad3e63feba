package v1

import (
	"encoding/json"
	"fmt"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
)

// HoldAnnotation is the annotation of a workload that a rollout brings a release to. Its value is a Hold in JSON.
const HoldAnnotation = "fleet.shoal.dev/hold"

// Hold says how far a workload may go with its newest pod template, and what it had before. It is written together with the new
// images, so there is no moment at which the workload goes further than its wave.
type Hold struct {
	// Rollout and UID are those of the rollout that holds it.
	Rollout string `json:"rollout"`
	UID     string `json:"uid"`
	// Pods is how many pods of the newest template there may be.
	Pods int32 `json:"pods"`
	// Former are the images that the workload had, for the way back.
	Former []firmwarev1.ContainerImage `json:"former"`
}

// ReadHold reads the hold in a workload's annotations. It returns nil if nothing holds the workload.
func ReadHold(annotations map[string]string) (*Hold, error) {
	text, ok := annotations[HoldAnnotation]
	if !ok {
		return nil, nil
	}
	h := &Hold{}
	if err := json.Unmarshal([]byte(text), h); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", HoldAnnotation, err)
	}
	return h, nil
}

// String is the value of the annotation.
func (h *Hold) String() string {
	text, err := json.Marshal(h)
	if err != nil {
		panic(err) // it has nothing that JSON has no form for
	}
	return string(text)
}
