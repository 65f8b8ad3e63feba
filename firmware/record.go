package firmware

import (
	"maps"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/api/tagged"
	"github.com/shoal-edge/shoal/firmware/trust"
)

// Record is what a device must know after a power cut. It is small, and written only when something of it changes.
type Record struct {
	State firmwarev1.State `json:"state"`
	// Assignment is what State is about.
	Assignment *firmwarev1.Assignment `json:"assignment,omitempty"`
	// Slot is where the release goes, and Written how much of it is there and synced.
	Slot    string `json:"slot,omitempty"`
	Written int64  `json:"written,omitempty"`
	// BootID is the boot in which the state was entered; Told: the bootloader was told to try the slot.
	BootID string `json:"bootID,omitempty"`
	Told   bool   `json:"told,omitempty"`
	// Connected: the old release had reached the control plane when it made way.
	Connected bool `json:"connected,omitempty"`
	// Doomed: the release has shown that it does not work, and the device goes back.
	Doomed bool   `json:"doomed,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Message is a sentence for people.
	Message string `json:"message,omitempty"`
	// Slots are what the slots hold, as far as this device has put it there.
	Slots map[string]Installed `json:"slots,omitempty"`
	// Floor is the lowest counter that may be installed, Schema the version of the device's data.
	Floor  int64 `json:"floor,omitempty"`
	Schema int32 `json:"schema,omitempty"`
	// Tried is for each artifact that the device fell back from the first attempt that it may try again with.
	Tried map[string]int32 `json:"tried,omitempty"`
	// Trust is what the device has believed of signed metadata. Nil: nothing yet.
	Trust *trust.State `json:"trust,omitempty"`
}

// Installed is what a slot holds.
type Installed struct {
	Version string `json:"version"`
	Counter int64  `json:"counter"`
	SHA256  string `json:"sha256"`
	// Size is the artifact's, in bytes.
	Size int64 `json:"size,omitempty"`
	// Whole: it was read back from the medium and is what it should be.
	Whole bool `json:"whole,omitempty"`
}

// maxTried bounds how many releases are remembered that did not work.
const maxTried = 32

func (r Record) clone() Record {
	r.Assignment = tagged.Copy(r.Assignment)
	r.Slots, r.Tried = maps.Clone(r.Slots), maps.Clone(r.Tried)
	return r
}

func (r *Record) install(slot string, what Installed) {
	if r.Slots == nil {
		r.Slots = map[string]Installed{}
	}
	r.Slots[slot] = what
}

// failed notes that the release was given up.
func (r *Record) failed(state firmwarev1.State, reason, message string) {
	r.State, r.Reason, r.Message = state, reason, message
	r.Told, r.Doomed, r.Written = false, false, 0
}

// installed is what a slot holds of an assignment.
func installed(a *firmwarev1.Assignment, whole bool) Installed {
	return Installed{Version: a.Version, Counter: a.Counter, SHA256: a.Artifact.SHA256, Size: a.Artifact.Size, Whole: whole}
}
