package waves_test

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/controllers/waves"
)

// apps plays the workloads of a release by hand.
type apps struct {
	*fleet
	list []waves.Workload
}

func newApps(t *rapid.T) *apps {
	a := &apps{fleet: newFleet(rapid.IntRange(0, 3).Draw(t, "devices"), fleetv1.RolloutSpec{Waves: []fleetv1.Wave{
		{Name: "canary", Canary: true, Soak: &metav1.Duration{Duration: time.Minute}}, {Name: "third", Percent: 33}, {Name: "all", Percent: 100},
	}})}
	if rapid.Bool().Draw(t, "no firmware") {
		a.release.Spec.Artifacts, a.devices = nil, nil
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "workloads") {
		w := firmwarev1.Workload{Kind: "Deployment", Namespace: "n", Name: string(rune('a' + i))}
		a.release.Spec.Workloads = append(a.release.Spec.Workloads, w)
		a.list = append(a.list, waves.Workload{Workload: w, Pods: int32(rapid.IntRange(0, 30).Draw(t, "pods"))})
	}
	return a
}

func (a *apps) find(w firmwarev1.Workload) *waves.Workload {
	return &a.list[slices.IndexFunc(a.list, func(x waves.Workload) bool { return x.Name == w.Name })]
}

// happen makes one thing happen to one workload.
func (a *apps) happen(t *rapid.T) {
	w := &a.list[rapid.IntRange(0, len(a.list)-1).Draw(t, "workload")]
	switch rapid.IntRange(0, 11).Draw(t, "what") {
	case 0:
		w.Pods = int32(rapid.IntRange(0, 30).Draw(t, "pods"))
	case 1:
		if w.Present = false; w.Hold == nil { // somebody gives it another image
			w.Updated, w.Failures = 0, nil
		}
	case 2:
		if w.Hold != nil && w.Present {
			w.Failures = append(w.Failures, "a pod")
		}
	case 3:
		w.Stuck = w.Hold != nil && w.Present && rapid.Bool().Draw(t, "stuck")
	case 4:
		a.edit(func(s *fleetv1.RolloutSpec) { s.Paused = !s.Paused })
	case 5:
		a.edit(func(s *fleetv1.RolloutSpec) { s.Retries++ })
	case 6:
		a.edit(func(s *fleetv1.RolloutSpec) { s.Skip = append(slices.Clone(s.Skip), w.Key()) })
	default:
		a.now = a.now.Add(30 * time.Second)
		for i := range a.list {
			if w := &a.list[i]; w.Hold != nil && w.Present {
				w.Updated = min(w.Hold.Pods, w.Pods)
			}
		}
		for i := range a.devices {
			a.step(&a.devices[i], true)
		}
	}
}

// decide decides, carries it out, and checks what must never happen.
func (a *apps) decide(t *rapid.T) {
	before := a.rollout.Status.DeepCopy()
	in := waves.Input{
		Rollout: a.rollout, Release: a.release, Devices: slices.Clone(a.devices), Workloads: slices.Clone(a.list), Now: a.now, Passed: a.now.Sub(a.counted),
	}
	d := waves.Decide(in)
	stopped := d.Status.Phase == fleetv1.Halted || d.Status.Phase == fleetv1.Aborted
	if (stopped || d.Status.Phase == fleetv1.Paused) && len(d.Let) > 0 {
		t.Fatalf("%s, and %v go on", d.Status.Phase, d.Let)
	}
	for wave := before.Wave; wave < d.Status.Wave; wave++ {
		a.checkGate(t, wave, before)
	}
	if again := a.decideWith(in); again.Status.Wave < before.Wave {
		t.Fatalf("wave %d after wave %d", again.Status.Wave, before.Wave)
	}
	for _, let := range d.Let {
		w := a.find(let.Workload)
		if most := waves.Sizes(a.rollout.Spec.Waves, int(w.Pods), 1)[d.Status.Wave]; int(let.Pods) > most {
			t.Fatalf("%s may have %d pods of the release, and the wave has %d", w, let.Pods, most)
		}
		if w.Hold == nil {
			w.Hold = &fleetv1.Hold{Rollout: a.rollout.Name, UID: string(a.rollout.UID)}
			w.Present, w.Updated, w.Failures, w.Stuck = true, 0, nil, false
		}
		w.Hold.Pods = let.Pods
	}
	for _, list := range [][]firmwarev1.Workload{d.Free, d.Restore} {
		for i := range list {
			a.find(list[i]).Hold = nil
		}
	}
	for i := range d.Restore {
		w := a.find(d.Restore[i])
		w.Present, w.Updated, w.Failures, w.Stuck = false, 0, nil, false
	}
	for i := range a.list {
		if stopped && a.list[i].Hold != nil {
			t.Fatalf("%s, and %s is still held", d.Status.Phase, &a.list[i])
		}
		if i < len(before.Workloads) && before.Workloads[i].Done && !d.Status.Workloads[i].Done && !slices.Contains(a.rollout.Spec.Skip, a.list[i].Key()) {
			t.Fatalf("%s was done, and is not any more", &a.list[i])
		}
	}
}

// checkGate: each workload that takes part had what the wave asks for before the next one began.
func (a *apps) checkGate(t *rapid.T, wave int32, before *fleetv1.RolloutStatus) {
	for i := range a.list {
		w := &a.list[i]
		if slices.Contains(a.rollout.Spec.Skip, w.Key()) || i < len(before.Workloads) && before.Workloads[i].Done || w.Present && w.Hold == nil {
			continue
		}
		want := waves.Sizes(a.rollout.Spec.Waves, int(w.Pods), 1)[wave]
		if w.Hold == nil || !w.Present || w.Stuck || int(w.Updated)*100 < want*int(a.rollout.Spec.Waves[wave].PromotePercent) {
			t.Fatalf("wave %d was passed by %s with %d of %d pods: %+v", wave, w, w.Updated, want, w)
		}
	}
}

// TestWorkloadsKeepToTheirWaves plays workloads whose pods come up, fail and never come, that change their size and are meddled with.
func TestWorkloadsKeepToTheirWaves(t *testing.T) {
	completed := 0
	rapid.Check(t, func(t *rapid.T) {
		a := newApps(t)
		for range rapid.IntRange(5, 80).Draw(t, "steps") {
			a.happen(t)
			a.decide(t)
		}
		if a.rollout.Status.Phase == fleetv1.Completed {
			completed++
		}
	})
	if completed == 0 {
		t.Error("none was completed: the test has seen next to nothing")
	}
}
