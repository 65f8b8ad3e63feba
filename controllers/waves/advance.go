package waves

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// shuffle gives each rollout an order of its own: it is not always the same devices that go first.
func shuffle(rollout, device string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(rollout + "/" + device)) // a hash takes everything
	n := h.Sum64()
	// FNV changes its low bits most: mix them upwards.
	n ^= n >> 33
	n *= 0xff51afd7ed558ccd
	return n ^ n>>33
}

// Sizes are how many of n devices have begun once each wave has.
func Sizes(waves []fleetv1.Wave, n, models int) []int {
	sizes, before := make([]int, len(waves)), 0
	for i := range waves {
		size := (n*int(waves[i].Percent) + 99) / 100
		if waves[i].Canary {
			size = min(models, max(1, n/100))
		}
		before = min(n, max(before, size))
		sizes[i] = before
	}
	return sizes
}

func (d *decider) sizes() []int {
	models := map[string]bool{}
	for _, m := range d.members {
		models[m.Status.HardwareID] = true
	}
	return Sizes(d.spec.Waves, len(d.members), len(models))
}

// advance fills the open waves, and opens the next one when the last has proved itself.
func (d *decider) advance() {
	s := &d.decision.Status
	if len(d.members) == 0 && d.there == 0 && len(d.Workloads) == 0 {
		s.Phase, s.Why = fleetv1.Progressing, "there is no device to bring it to" // the first one that comes is the canary
		return
	}
	sizes := d.sizes()
	for {
		short := 0
		for i := int32(0); i <= s.Wave; i++ {
			short = d.fill(i, sizes[i])
		}
		d.allow(s.Wave)
		phase, why := d.judge(s.Wave, short)
		s.Phase, s.Why = phase, why
		if phase != opened {
			return
		}
		if s.Wave+1 == int32(len(d.spec.Waves)) {
			d.finish()
			return
		}
		d.promoted(s.Wave)
		s.Wave++
		s.Soaked = metav1.Duration{}
	}
}

// opened is judge's word for a wave after which the next one may begin.
const opened fleetv1.Phase = "opened"

// fill assigns devices to a wave until size have begun, and returns how many could not be found.
func (d *decider) fill(wave int32, size int) int {
	canary := d.spec.Waves[wave].Canary
	begun, covered := 0, map[string]bool{}
	for _, m := range d.members {
		if !m.mine || m.wave > wave {
			continue
		}
		if canary && m.stage == pending && !m.Up && m.Silent >= canaryPatience && m.Spec.Assignment != nil {
			d.decision.Withdraw = append(d.decision.Withdraw, m.Name) // it could hold everything up for days
			m.mine, m.stage = false, outside
			continue
		}
		begun++
		covered[m.Status.HardwareID] = true
	}
	for begun < size {
		m := d.next(canary, covered)
		if m == nil {
			break
		}
		covered[m.Status.HardwareID] = true
		d.assign(m, wave)
		begun++
	}
	return max(0, size-begun)
}

// next picks who begins next: one of a hardware that nothing has been tried on yet, if there is any. Canaries have to be there, and
// no voter is one while there are others.
func (d *decider) next(canary bool, covered map[string]bool) *member {
	var second *member
	for _, m := range d.members {
		if m.mine || m.stage != outside || m.inUpdate() {
			continue
		}
		switch {
		case canary && (!m.Up || covered[m.Status.HardwareID]):
		case !covered[m.Status.HardwareID] && (canary || !m.Voter):
			return m
		case !canary && second == nil:
			second = m
		}
	}
	return second
}

// judge says whether a wave has proved itself, and if not, what it waits for.
func (d *decider) judge(wave int32, short int) (fleetv1.Phase, string) {
	w := &d.spec.Waves[wave]
	var all, started, done, away int
	for _, m := range d.members {
		if !m.mine || m.wave != wave {
			continue
		}
		all++
		switch {
		case m.stage == pending && !m.Up:
			away++
			continue
		case m.stage == updated:
			done++
		}
		started++
	}
	switch {
	case all == 0 && short == 0: // too few devices for this wave to have any of its own
	case started == 0 && (w.Canary || all == 0):
		return fleetv1.Progressing, fmt.Sprintf("wave %s waits for a device that is there", w.Name)
	case done*100 < int(w.PromotePercent)*started:
		return fleetv1.Progressing, fmt.Sprintf("wave %s: %d of %d have confirmed", w.Name, done, started)
	}
	if why := d.awaited(wave); why != "" {
		return fleetv1.Progressing, why
	}
	if left := d.soak(wave); left > 0 && (started > 0 || d.podsOf(wave)) {
		d.closed(wave) // its gates are asked all along
		return fleetv1.Soaking, fmt.Sprintf("wave %s has to last for another %s", w.Name, left.Round(time.Second))
	}
	if why := d.closed(wave); why != "" && (started > 0 || d.podsOf(wave)) {
		return fleetv1.Soaking, why
	}
	if wave+1 == int32(len(d.spec.Waves)) {
		return opened, ""
	}
	next := &d.spec.Waves[wave+1]
	approved := slices.Contains(d.spec.Approved, next.Name)
	if tolerated := amount(d.spec.MaxNotStarted, all); away > tolerated && !approved {
		return fleetv1.Held, fmt.Sprintf("%d devices of wave %s are away, more than %d: bring them back, skip them or approve wave %s",
			away, w.Name, tolerated, next.Name)
	}
	if next.Approval && !approved {
		return fleetv1.AwaitingApproval, fmt.Sprintf("wave %s waits for a person to approve it", next.Name)
	}
	return opened, ""
}

// soak adds up for how long the wave has proved itself, and returns what is left. It is written in a dozen steps: a leader that
// takes over may count the last of them again.
func (d *decider) soak(wave int32) (left time.Duration) {
	s, whole := &d.decision.Status, d.spec.Waves[wave].Soak.Duration
	step := max(whole/10, time.Second)
	if d.before.Phase == fleetv1.Soaking && d.before.Wave == wave {
		if d.Passed < step && s.Soaked.Duration+d.Passed < whole {
			d.decision.Counted = false
			d.again(min(step, whole-s.Soaked.Duration) - d.Passed)
			return whole - s.Soaked.Duration
		}
		s.Soaked.Duration += d.Passed
	}
	left = whole - s.Soaked.Duration
	if left > 0 {
		d.again(min(left, step))
	}
	return left
}

// amount is a number or a percentage of n, rounded down.
func amount(of *intstr.IntOrString, n int) int {
	v, err := intstr.GetScaledValueFromIntOrPercent(of, n, false)
	if err != nil {
		return 0 // validation lets none through
	}
	return v
}

// finish is reached when the last wave has proved itself: the rollout goes on for those that are away.
func (d *decider) finish() {
	s := &d.decision.Status
	d.promoted(s.Wave)
	d.finishWorkloads()
	unfinished := 0
	for _, m := range d.members {
		if !m.judged() {
			unfinished++
		}
	}
	if unfinished > 0 {
		s.Phase, s.Why, s.CompletionTime = fleetv1.Progressing, fmt.Sprintf("waits for %d devices that are away or on their way", unfinished), nil
		return
	}
	s.Phase, s.Why = fleetv1.Completed, ""
	if s.CompletionTime == nil {
		s.CompletionTime = &metav1.Time{Time: d.Now}
	}
}

func (d *decider) again(after time.Duration) {
	if d.decision.Again == 0 || after < d.decision.Again {
		d.decision.Again = max(after, time.Millisecond)
	}
}

// lookAgain comes back when a device that is away would become lost, or its place would be given to another one, and when a workload would be stuck.
func (d *decider) lookAgain() {
	for _, a := range d.apps {
		if a.Again > 0 {
			d.again(a.Again)
		}
	}
	for _, m := range d.members {
		switch {
		case m.Up:
		case m.stage == going:
			d.again(d.spec.LostAfter.Duration - m.Silent)
		case m.stage == pending && m.mine && d.spec.Waves[m.wave].Canary && m.Silent < canaryPatience:
			d.again(canaryPatience - m.Silent)
		}
	}
}
