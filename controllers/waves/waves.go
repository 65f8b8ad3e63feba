// Package waves owns the rules by which a rollout goes through a fleet: which devices begin, which may restart now, how many pods of a
// workload get new images, when a wave has proved itself and when everything stops. It is pure: Decide looks at the rollout, the
// devices and the workloads and says what to write. All that it remembers is in the objects, so that the next leader goes on where this one was.
package waves

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// Device is one device that the rollout's selector picks.
type Device struct {
	Name string
	// Site is the value of the rollout's site label.
	Site string
	// Up: the device is heard of. Silent is for how long it has not been, as this leader has seen: a new leader gives it all the time.
	Up     bool
	Silent time.Duration
	// Voter: it takes part in the votes of the control plane; Leads: it is the leader itself.
	Voter, Leads bool
	// Spec and Status are those of its DeviceFirmware.
	Spec   firmwarev1.DeviceFirmwareSpec
	Status firmwarev1.DeviceFirmwareStatus
}

// Voter is a member of the control plane with a vote, whether the rollout picks its device or not.
type Voter struct {
	Name string
	// Healthy: the leader hears of it, and it has all that the leader has.
	Healthy bool
}

// Input is what a decision is made from.
type Input struct {
	Rollout *fleetv1.Rollout
	Release *firmwarev1.Release
	Devices []Device
	Voters  []Voter
	// Workloads are the release's, in its order.
	Workloads []Workload
	// Answers are those of the gates that were asked just now. They take the place of what the status has of them.
	Answers []fleetv1.Answer
	// Now is for the times that people read. Passed is how long ago the last decision was, by the leader's monotonic clock; zero at its
	// first one.
	Now    time.Time
	Passed time.Duration
}

// Assign gives a device its assignment.
type Assign struct {
	Device        string
	Wave, Attempt int32
}

// Grant gives a device leave to restart.
type Grant struct{ Device, Nonce string }

// Decision is what to write, in this order. A leader that stops half way leaves less done than the next one would do: nobody has leave
// to restart before it is written that the wave is open.
type Decision struct {
	Withdraw []string // lose their assignment
	Revoke   []string // lose their leave, if they have not restarted yet
	Assign   []Assign
	Status   fleetv1.RolloutStatus
	Grant    []Grant
	Let      []Let                 // go so far with the release
	Free     []firmwarev1.Workload // are not held any more
	Restore  []firmwarev1.Workload // get their former images back
	// StepAside: the leader's own device is next, so another server has to lead first.
	StepAside bool
	// Again is when to decide again if nothing changes. Zero: never.
	Again time.Duration
	// Counted: what Passed said is in the status now. Otherwise it is too little to be worth a write, and the next Passed includes it.
	Counted bool
	// Refused says of devices that the selector picks why they are left out.
	Refused map[string]string
}

// LeaveSeconds is how long a device may use its leave after it has asked for it.
const LeaveSeconds = 300

// canaryPatience is how long a canary that has not begun may be away before another device takes its place.
const canaryPatience = time.Minute

// AssignmentID names a rollout's assignment.
func AssignmentID(r *fleetv1.Rollout, attempt int32) string {
	return fmt.Sprintf("%s-%d", r.UID, attempt)
}

// Mine reports whether an assignment is the rollout's.
func Mine(r *fleetv1.Rollout, a *firmwarev1.Assignment) bool {
	return a != nil && a.Rollout == r.Name && strings.HasPrefix(a.ID, string(r.UID)+"-")
}

// stage is where a device stands with the rollout.
type stage int

const (
	outside stage = iota // not begun with
	pending              // assigned, and has not answered
	working              // on its way, and what runs is untouched
	going                // may restart, or has
	updated
	failed
	lost // going, and silent for too long
)

// member is a device with where it stands.
type member struct {
	*Device
	stage stage
	mine  bool
	wave  int32 // if mine
	order uint64
}

// judged: nothing more is expected of it.
func (m *member) judged() bool { return m.stage == updated || m.stage == failed || m.stage == lost }

// decider makes one decision.
type decider struct {
	Input
	spec     *fleetv1.RolloutSpec
	before   *fleetv1.RolloutStatus
	members  []*member // those that count
	left     []*member // skipped or refused, which count for their sites only
	there    int       // had the release before anybody brought it
	apps     []*app    // the workloads that take part
	meddled  string    // which workload somebody else has changed
	decision Decision
}

// Decide says what to do now.
func Decide(in Input) Decision {
	d := &decider{Input: in, spec: &in.Rollout.Spec, before: &in.Rollout.Status}
	d.decision.Status = *in.Rollout.Status.DeepCopy()
	d.decision.Refused = map[string]string{}
	s := &d.decision.Status
	s.ObservedGeneration, d.decision.Counted = in.Rollout.Generation, true
	if in.Release == nil {
		s.Phase, s.Why = fleetv1.Invalid, fmt.Sprintf("there is no release %q", d.spec.Release)
		return d.decision
	}
	d.sort()
	d.sortWorkloads()
	if in.Answers != nil {
		s.Answers = in.Answers
	}
	d.retry()
	d.withdrawSkipped()
	switch why := d.halted(); {
	case d.spec.Aborted:
		d.stop(fleetv1.Aborted, "a person aborted it", true)
		d.restore()
	case why != "":
		d.stop(fleetv1.Halted, why, false)
		d.restore()
	case d.spec.Paused:
		d.stop(fleetv1.Paused, "a person paused it", false)
	default:
		d.advance()
		d.grant()
	}
	d.letGo()
	d.count()
	d.lookAgain()
	return d.decision
}

// sort finds who takes part, and where each stands.
func (d *decider) sort() {
	if len(d.Release.Spec.Artifacts) == 0 {
		return // there is nothing for devices
	}
	for i := range d.Devices {
		device := &d.Devices[i]
		m := &member{Device: device, mine: Mine(d.Rollout, device.Spec.Assignment), order: shuffle(string(d.Rollout.UID), device.Name)}
		m.stage = d.stageOf(m)
		if m.mine {
			m.wave = device.Spec.Assignment.Wave
		}
		switch refusal := d.refusal(m); {
		case slices.Contains(d.spec.Skip, device.Name):
			d.decision.Refused[device.Name] = "a person skipped it"
			d.left = append(d.left, m)
		case m.mine:
			d.members = append(d.members, m)
		case m.stage == updated:
			d.there++
		case refusal != "":
			d.decision.Refused[device.Name] = refusal
			d.left = append(d.left, m)
		default:
			d.members = append(d.members, m)
		}
	}
	slices.SortFunc(d.members, func(a, b *member) int {
		switch {
		case a.Voter != b.Voter:
			if a.Voter {
				return 1 // voters last
			}
			return -1
		case a.order < b.order:
			return -1
		case a.order > b.order:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
}

func (d *decider) stageOf(m *member) stage {
	status, release := &m.Status, &d.Release.Spec
	settled := status.State == firmwarev1.Idle || status.State == firmwarev1.Confirmed
	if !m.mine || status.Assignment != m.Spec.Assignment.ID {
		switch {
		case status.Counter == release.Counter && status.Version == release.Version && settled:
			return updated
		case m.mine:
			return pending
		}
		return outside
	}
	switch status.State {
	case firmwarev1.Confirmed:
		return updated
	case firmwarev1.Rejected, firmwarev1.WriteFailed, firmwarev1.RolledBack, firmwarev1.Recovery:
		return failed
	case firmwarev1.Armed, firmwarev1.Trial, firmwarev1.Probation, firmwarev1.Committed:
	default:
		if !hasLeave(m.Device) {
			return working
		}
	}
	if !m.Up && m.Silent >= d.spec.LostAfter.Duration {
		return lost
	}
	return going
}

// hasLeave: the device's present question is answered, with yes or, after a revocation, with no that it may not have heard yet.
func hasLeave(d *Device) bool {
	return d.Spec.Go != nil && d.Status.Asks != "" && d.Spec.Go.Nonce == d.Status.Asks
}

// refusal says why a device that is not the rollout's cannot be.
func (d *decider) refusal(m *member) string {
	release := &d.Release.Spec
	switch other := m.Spec.Assignment; {
	case m.Status.Backend == "":
		return "it reports no way to install firmware"
	case release.ArtifactFor(m.Status.HardwareID) == nil:
		return fmt.Sprintf("the release is not for its hardware %q", m.Status.HardwareID)
	case m.Status.Counter > release.Counter || m.Status.Floor > release.Counter:
		return fmt.Sprintf("the release is older than what it may run: %d, not %d", release.Counter, max(m.Status.Counter, m.Status.Floor))
	case other != nil && !m.mine && other.Counter >= release.Counter:
		return fmt.Sprintf("rollout %q brings it %s", other.Rollout, other.Version)
	}
	return ""
}

// retry has those that failed or were lost begin again when a person has asked for it.
func (d *decider) retry() {
	s := &d.decision.Status
	if d.spec.Retries <= s.Retries || d.spec.Aborted || d.spec.Paused {
		return
	}
	s.Retries = d.spec.Retries
	for _, m := range d.members {
		if m.mine && (m.stage == failed || m.stage == lost) {
			d.assign(m, m.wave)
		}
	}
}

func (d *decider) assign(m *member, wave int32) {
	d.decision.Assign = append(d.decision.Assign, Assign{Device: m.Name, Wave: wave, Attempt: d.decision.Status.Retries})
	m.mine, m.wave, m.stage = true, wave, pending
}

// untouched: the device has not been let go, so its assignment can be taken back.
func (m *member) untouched() bool { return m.mine && (m.stage == pending || m.stage == working) }

func (d *decider) withdrawSkipped() {
	for _, m := range d.left {
		if m.untouched() {
			d.decision.Withdraw = append(d.decision.Withdraw, m.Name)
		}
	}
}

// halted says why the rollout stands still for good, if it does. Once halted, it takes an edit by a person to go on.
func (d *decider) halted() string {
	s := &d.decision.Status
	for i := range d.spec.Waves {
		if int32(i) > s.Wave {
			break
		}
		if why := d.exceeds(int32(i)); why != "" {
			s.HaltedGeneration = d.Rollout.Generation
			return why
		}
	}
	if why := cmp.Or(d.meddled, d.stuck(), d.refused()); why != "" {
		s.HaltedGeneration = d.Rollout.Generation
		return why
	}
	if s.HaltedGeneration == d.Rollout.Generation && s.HaltedGeneration != 0 {
		return s.Why
	}
	s.HaltedGeneration = 0
	return ""
}

// exceeds says how a wave has broken its limits, if it has.
func (d *decider) exceeds(wave int32) string {
	w := &d.spec.Waves[wave]
	var bad, judged int32
	var names []string
	for _, m := range d.members {
		if !m.mine || m.wave != wave || !m.judged() {
			continue
		}
		judged++
		if m.stage != updated {
			bad++
			names = append(names, m.Name+" "+verdict(m))
		}
	}
	pods, failures := d.judgedPods(wave)
	judged, bad, names = judged+pods, bad+int32(len(failures)), append(names, failures...)
	slices.Sort(names)
	const shown = 3
	list := strings.Join(names[:min(shown, len(names))], ", ")
	switch {
	case bad >= w.HaltFailed:
		return fmt.Sprintf("wave %s: %d failed or lost, and %d halt it: %s", w.Name, bad, w.HaltFailed, list)
	case w.HaltPercent > 0 && judged >= w.HaltAfter && bad*100 > w.HaltPercent*judged:
		return fmt.Sprintf("wave %s: %d of %d failed or lost, more than %d%%: %s", w.Name, bad, judged, w.HaltPercent, list)
	}
	return ""
}

func verdict(m *member) string {
	if m.stage == lost {
		return "(lost)"
	}
	return fmt.Sprintf("(%s: %s)", m.Status.State, m.Status.Reason)
}

// stop lets nobody go any more. For good, it also takes back what has not gone.
func (d *decider) stop(phase fleetv1.Phase, why string, good bool) {
	d.decision.Status.Phase, d.decision.Status.Why = phase, why
	for _, m := range slices.Concat(d.members, d.left) {
		switch {
		case m.mine && hasLeave(m.Device) && m.Spec.Go.Seconds > 0 && !Restarting(&m.Status):
			d.decision.Revoke = append(d.decision.Revoke, m.Name)
		case good && m.untouched():
			d.decision.Withdraw = append(d.decision.Withdraw, m.Name)
		}
	}
	slices.Sort(d.decision.Withdraw)
	d.decision.Withdraw = slices.Compact(d.decision.Withdraw)
}
