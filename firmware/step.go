package firmware

import (
	"fmt"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
)

// Action is what a device does next. Each can be done again after a power cut in the middle of it.
type Action int

// The actions.
const (
	Nothing  Action = iota
	Download        // fill the slot and read it back; then Finished
	Ask             // ask for leave to restart
	Arm             // tell the bootloader; then Armed
	Restart
	Refill // give the tries back
	Judge  // run the health checks; then Healthy or Unhealthy
	Commit // make it the default slot; then CommitDone
	Revert // have nothing tried any more, and restart unless the default slot runs
)

// Event is what an action has come to.
type Event int

// The events.
const (
	NoEvent Event = iota
	Finished
	Failed // the medium or the content: Reason says which
	Armed
	Healthy
	Unhealthy
	CommitDone
)

// Input is what a step is made from.
type Input struct {
	Record Record
	Boot   Boot
	BootID string
	// PowerOn: the device was switched on, and not restarted by a watchdog or a panic, as far as it can tell.
	PowerOn  bool
	Hardware string
	// Other is the slot beside the one that runs.
	Other string
	// Told is what the control plane wants; nil: nothing. Refusal is why its signed metadata is not believed.
	Told    *firmwarev1.Assignment
	Refusal string
	// Leave: the device may restart now. Connected: the control plane is reached.
	Leave, Connected bool
	// Event is what the last action has come to, with its reason.
	Event           Event
	Reason, Message string
}

// Step says what the record becomes and what to do then. It is pure. The record is to be on the disk before the action begins.
func Step(in Input) (Record, Action) {
	r := in.Record.clone()
	if r.State == "" {
		r.State = firmwarev1.Idle
	}
	switch r.State {
	case firmwarev1.Armed:
		return armed(r, in)
	case firmwarev1.Trial:
		return trial(r, in)
	case firmwarev1.Committed:
		return committed(r, in)
	}
	if in.Boot.Trying != "" && in.Boot.Trying == in.Boot.Booted {
		// The bootloader tries a release that this record knows nothing of: it was lost. What is known to work is the other slot.
		r.failed(firmwarev1.RolledBack, "JournalLost", "the device runs a release on trial and has lost its journal")
		return r, Revert
	}
	if in.Boot.Trying != "" {
		return r, Revert // left over from an attempt that was given up: nothing may be tried that this record does not know of
	}
	return calm(r, in)
}

// calm are the states in which what runs is untouched.
func calm(r Record, in Input) (Record, Action) {
	switch {
	case in.Told == nil:
		if r.Assignment != nil {
			r.Assignment, r.State, r.Reason, r.Message = nil, firmwarev1.Idle, "", ""
		}
		return r, Nothing
	case r.Assignment == nil || r.Assignment.ID != in.Told.ID:
		return offer(r, in)
	}
	switch r.State {
	case firmwarev1.Downloading:
		return downloading(r, in)
	case firmwarev1.Staged:
		if !in.Leave {
			return r, Ask
		}
		r.State, r.BootID, r.Told, r.Connected = firmwarev1.Armed, in.BootID, false, in.Connected
		return r, Arm
	}
	return r, Nothing
}

// offer looks at an assignment for the first time.
func offer(r Record, in Input) (Record, Action) {
	before := r.Assignment
	r.Assignment = in.Told
	r.Reason, r.Message = "", ""
	if reason, message := refuse(&r, in); reason != "" {
		r.failed(firmwarev1.Rejected, reason, message)
		return r, Nothing
	}
	running, there := r.Slots[in.Boot.Booted], r.Slots[in.Other]
	switch {
	case running.Whole && running.SHA256 == in.Told.Artifact.SHA256:
		r.install(in.Boot.Booted, installed(in.Told, true))
		r.State = firmwarev1.Confirmed
		return r, Nothing
	case there.Whole && there.SHA256 == in.Told.Artifact.SHA256: // from an earlier attempt; it is read again before it is used
	case before != nil && before.Artifact.SHA256 == in.Told.Artifact.SHA256 && r.Slot == in.Other: // go on where it was
	default:
		r.Written = 0
	}
	r.State, r.Slot = firmwarev1.Downloading, in.Other
	r.install(in.Other, installed(in.Told, false))
	return r, Download
}

// refuse says why a device does not take an assignment.
func refuse(r *Record, in Input) (reason, message string) {
	a, running := in.Told, r.Slots[in.Boot.Booted]
	switch {
	case in.Refusal != "":
		return "NotTrusted", in.Refusal
	case a.Counter < r.Floor:
		return "BelowFloor", fmt.Sprintf("counter %d is below the security floor %d", a.Counter, r.Floor)
	case a.Counter < running.Counter:
		return "Older", fmt.Sprintf("counter %d is older than %d, which runs", a.Counter, running.Counter)
	case a.Attempt < r.Tried[a.Artifact.SHA256]:
		return "FellBackBefore", "the device fell back from this release before; a person can have it try again"
	case a.DataSchema != nil && r.Schema < a.DataSchema.Reads:
		return "DataTooOld", fmt.Sprintf("the data is of version %d, and the release reads %d and later", r.Schema, a.DataSchema.Reads)
	case a.DataSchema != nil && r.Schema > a.DataSchema.Writes:
		return "DataTooNew", fmt.Sprintf("the data is of version %d, and the release knows %d", r.Schema, a.DataSchema.Writes)
	}
	return "", ""
}

func downloading(r Record, in Input) (Record, Action) {
	switch in.Event {
	case Finished:
		r.State = firmwarev1.Staged
		what := r.Slots[r.Slot]
		what.Whole = true
		r.install(r.Slot, what)
		return r, Ask
	case Failed:
		r.failed(firmwarev1.WriteFailed, in.Reason, in.Message)
		return r, Nothing
	}
	if r.Slot != in.Other { // another slot runs than when this began
		r.State, r.Slot, r.Written = firmwarev1.Downloading, in.Other, 0
		r.install(in.Other, installed(r.Assignment, false))
	}
	return r, Download
}

func armed(r Record, in Input) (Record, Action) {
	switch {
	case in.Boot.Booted == r.Slot:
		r.State, r.BootID, r.Reason, r.Message = firmwarev1.Trial, in.BootID, "", ""
		return r, Judge
	case in.BootID != r.BootID:
		// It was restarted and runs the old release. The bootloader's record, or ours, tells whether the new one was tried.
		if in.Boot.Trying == r.Slot && !in.Boot.Spent {
			return r, Restart // not tried yet: it was not this boot's turn
		}
		if !r.Told && !in.Boot.Spent {
			r.State = firmwarev1.Staged // the power was cut before the bootloader heard of it
			return r, Ask
		}
		return fellBack(r, in, "DidNotBoot", "the release did not start, and the bootloader went back to the old one")
	case in.Event == Armed || in.Boot.Trying == r.Slot:
		r.Told = true
		return r, Restart
	}
	return r, Arm
}

// fellBack ends an attempt. What the bootloader still remembers of it is cleared.
func fellBack(r Record, in Input, reason, message string) (Record, Action) {
	if r.Tried == nil || len(r.Tried) >= maxTried {
		r.Tried = map[string]int32{}
	}
	r.Tried[r.Assignment.Artifact.SHA256] = r.Assignment.Attempt + 1
	r.failed(firmwarev1.RolledBack, reason, message)
	if in.Boot.Trying != "" {
		return r, Revert
	}
	return r, Nothing
}

func trial(r Record, in Input) (Record, Action) {
	if in.Boot.Booted != r.Slot {
		if in.Boot.Trying == r.Slot && !in.Boot.Spent && !r.Doomed {
			return r, Restart // a bootloader that falls back at once has to be asked for each try
		}
		reason, message := r.Reason, r.Message
		if !r.Doomed {
			reason, message = "DidNotStay", "the release started, and did not stay up until it was kept"
		}
		return fellBack(r, in, reason, message)
	}
	switch {
	case r.Doomed && r.BootID != in.BootID && in.Boot.Trying == "":
		// Nothing is tried any more, and the bootloader has come up with the same release again: the old one does not start. It stays up.
		r.failed(firmwarev1.Recovery, "NoWayBack", "the release is not healthy, and the old one does not start: "+r.Message)
		return r, Nothing
	case r.Doomed:
		return r, Revert
	case in.Event == Unhealthy:
		r.Doomed, r.Reason, r.Message = true, in.Reason, in.Message
		return r, Revert
	case in.Event == Healthy:
		return r, Commit
	case in.Event == CommitDone || in.Boot.Trying == "" && in.Boot.Default == r.Slot:
		r.State = firmwarev1.Committed
		return committed(r, in)
	case r.BootID != in.BootID:
		r.BootID = in.BootID
		if in.PowerOn {
			return r, Refill
		}
	}
	return r, Judge
}

// committed: the bootloader keeps the release. What follows from that is written down.
func committed(r Record, in Input) (Record, Action) {
	if in.Boot.Booted != r.Slot {
		r.failed(firmwarev1.Recovery, "OldAgain", "the release was kept, and the device has come up with the old one")
		return r, Nothing
	}
	a := r.Assignment
	r.State, r.Reason, r.Message, r.Told, r.Written = firmwarev1.Confirmed, "", "", false, 0
	r.install(r.Slot, installed(a, true))
	r.Floor = max(r.Floor, a.SecurityFloor)
	if a.DataSchema != nil {
		r.Schema = a.DataSchema.Writes
	}
	delete(r.Tried, a.Artifact.SHA256)
	return r, Nothing
}
