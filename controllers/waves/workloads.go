package waves

import (
	"fmt"
	"slices"
	"time"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// Workload is one workload of the release, and how it stands. A wave lets so many of its pods have the release as it lets devices.
type Workload struct {
	firmwarev1.Workload
	// Trouble says why nothing can be brought to it, as when there is none; a sentence.
	Trouble string
	// Pods is how many it is to have.
	Pods int32
	// Hold is the rollout that holds it, whichever it is.
	Hold *fleetv1.Hold
	// Present: its template has the images of the release.
	Present bool
	// Updated is how many pods of the release are available, Failures names those that do not run, with a word why.
	Updated  int32
	Failures []string
	// Stuck: there is no hope that what does not run yet will. Again is when that may be so; zero if nothing can become stuck.
	Stuck bool
	Again time.Duration
}

// String names a workload for people.
func (w *Workload) String() string { return w.Kind + " " + w.Key() }

// Key is how spec.skip names a workload.
func (w *Workload) Key() string { return w.Namespace + "/" + w.Name }

// Let lets a workload have so many pods of the release.
type Let struct {
	Workload firmwarev1.Workload
	Pods     int32
}

// app is a workload that takes part.
type app struct {
	*Workload
	status *fleetv1.WorkloadStatus
	sizes  []int
	mine   bool
	let    bool // has to be told how far it may go
}

// sortWorkloads finds out which workloads take part. Those that have the release for good are left alone: what people do with them
// afterwards is not the rollout's business.
func (d *decider) sortWorkloads() {
	before := d.before.Workloads
	list := make([]fleetv1.WorkloadStatus, len(d.Workloads))
	for i := range d.Workloads {
		w, s := &d.Workloads[i], &list[i]
		*s = fleetv1.WorkloadStatus{
			Kind: w.Kind, Namespace: w.Namespace, Name: w.Name, Pods: w.Pods, Updated: w.Updated, Failed: int32(len(w.Failures)),
			Done: i < len(before) && before[i].Done,
		}
		a := &app{Workload: w, status: s, sizes: Sizes(d.spec.Waves, int(w.Pods), 1), mine: w.Hold != nil && w.Hold.UID == string(d.Rollout.UID)}
		if a.mine {
			s.Allowed = w.Hold.Pods
		}
		switch {
		case slices.Contains(d.spec.Skip, w.Key()):
			s.Why = "a person skipped it"
			if a.mine {
				d.decision.Restore = append(d.decision.Restore, w.Workload)
			}
			continue
		case s.Done || w.Present && w.Hold == nil:
			d.done(a)
		case w.Trouble != "":
			s.Why = w.Trouble
		case w.Hold != nil && !a.mine:
			s.Why = fmt.Sprintf("rollout %q holds it", w.Hold.Rollout)
		case a.mine && !w.Present:
			s.Why = "it was given other images than the release's"
			d.meddled = fmt.Sprintf("%s: %s", w, s.Why)
			d.decision.Free = append(d.decision.Free, w.Workload)
		}
		d.apps = append(d.apps, a)
	}
	d.decision.Status.Workloads = list
}

// done lets go of a workload that has the release for good.
func (d *decider) done(a *app) {
	a.status.Done, a.status.Allowed, a.let = true, a.Pods, false
	a.status.Updated, a.status.Failed = a.Pods, 0
	if a.mine {
		d.decision.Free = append(d.decision.Free, a.Workload.Workload)
		a.mine = false
	}
}

// allow has workloads go as far as the wave does.
func (d *decider) allow(wave int32) {
	for _, a := range d.apps {
		want := int32(a.sizes[wave])
		if a.status.Done || a.status.Why != "" || a.mine && !a.let && a.Hold.Pods == want {
			continue
		}
		a.let, a.status.Allowed = true, want
	}
}

// part is how many of a workload's pods a wave has of its own.
func (a *app) part(wave int32) int32 {
	if wave == 0 {
		return int32(a.sizes[0])
	}
	return int32(a.sizes[wave] - a.sizes[wave-1])
}

// begun is how many pods all waves before have.
func (a *app) begun(wave int32) int32 { return int32(a.sizes[wave]) - a.part(wave) }

// awaited says what a wave waits for of the workloads: nothing, if they have proved themselves.
func (d *decider) awaited(wave int32) string {
	w := &d.spec.Waves[wave]
	for _, a := range d.apps {
		want := int32(a.sizes[wave])
		switch {
		case a.status.Done:
		case a.status.Why != "":
			return fmt.Sprintf("wave %s waits for %s: %s", w.Name, a, a.status.Why)
		case a.let || a.Updated*100 < w.PromotePercent*want:
			return fmt.Sprintf("wave %s: %d of %d pods of %s are available", w.Name, min(a.Updated, want), want, a)
		}
	}
	return ""
}

// podsOf reports whether a wave has pods of its own to prove itself with.
func (d *decider) podsOf(wave int32) bool {
	return slices.ContainsFunc(d.apps, func(a *app) bool { return !a.status.Done && a.part(wave) > 0 })
}

// stuck says which workload has come to a halt by itself.
func (d *decider) stuck() string {
	for _, a := range d.apps {
		if a.mine && a.Present && a.Stuck && !a.status.Done {
			return fmt.Sprintf("%s made no progress within its deadline", a)
		}
	}
	return ""
}

// judgedPods counts the pods of a wave of which nothing more is expected. Pods that fail count for the wave that is open.
func (d *decider) judgedPods(wave int32) (judged int32, bad []string) {
	for _, a := range d.apps {
		if !a.mine || a.status.Done {
			continue
		}
		judged += max(0, min(a.Updated-a.begun(wave), a.part(wave)))
		if wave == d.decision.Status.Wave {
			bad = append(bad, a.Failures...)
		}
	}
	return judged + int32(len(bad)), bad
}

// restore gives workloads back what they had.
func (d *decider) restore() {
	for _, a := range d.apps {
		if a.mine && a.Present {
			d.decision.Restore = append(d.decision.Restore, a.Workload.Workload)
			a.mine, a.status.Allowed = false, 0
		}
	}
}

// finishWorkloads lets go of all that take part.
func (d *decider) finishWorkloads() {
	for _, a := range d.apps {
		if a.mine && !a.status.Done {
			d.done(a)
		}
	}
}

// letGo makes the list of what workloads are told.
func (d *decider) letGo() {
	for _, a := range d.apps {
		if a.let {
			d.decision.Let = append(d.decision.Let, Let{Workload: a.Workload.Workload, Pods: a.status.Allowed})
		}
	}
}

// countPods adds the pods of the workloads to the numbers of the status.
func (d *decider) countPods(waves []fleetv1.WaveStatus) {
	for _, a := range d.apps {
		s := &d.decision.Status
		addPods(&s.Counts, a.status.Pods, a.status.Updated, a.status.Failed, a.status.Allowed)
		for i := range waves {
			wave := int32(i)
			before := a.begun(wave)
			within := func(n int32) int32 { return max(0, min(n-before, a.part(wave))) }
			failed := int32(0)
			if wave == s.Wave {
				failed = a.status.Failed
			}
			addPods(&waves[i].Counts, a.part(wave), within(a.status.Updated), failed, within(a.status.Allowed))
		}
	}
}

// addPods counts pods, of which some are allowed to have the release.
func addPods(c *fleetv1.Counts, pods, done, failed, allowed int32) {
	done = min(done, pods)
	failed = min(failed, pods-done)
	updating := max(0, min(allowed, pods)-done-failed)
	c.Devices += pods
	c.Updated += done
	c.Failed += failed
	c.Updating += updating
	c.Pending += pods - done - failed - updating
}
