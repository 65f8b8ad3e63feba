package waves_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/controllers/waves"
)

// TestPromises plays random fleets with devices that fail, go away and come back, leaders that change and people who meddle, and
// checks after every decision what must never happen.
func TestPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(1, 7), rapid.IntRange(8, 40)).Draw(t, "devices")
		f := newFleet(n, fleetv1.RolloutSpec{
			MaxUnavailable: ptr.To(intstr.FromInt32(int32(rapid.IntRange(1, 4).Draw(t, "unavailable")))),
			Waves:          randomWaves(t),
		})
		voters := rapid.SampledFrom([]int{0, 1, 3, 5}).Draw(t, "voters")
		for i := range f.devices {
			d := &f.devices[i]
			d.Site = rapid.SampledFrom([]string{"", "north", "south"}).Draw(t, "site")
			d.Status.HardwareID = rapid.SampledFrom([]string{"hw", "hw-b", "alien"}).Draw(t, "hardware")
			if d.Voter = i < voters; d.Voter {
				f.voters = append(f.voters, d.Name)
			}
		}
		w := &witness{fleet: f, badly: rapid.IntRange(0, 3).Draw(t, "badly")}
		for range rapid.IntRange(10, 150).Draw(t, "steps") {
			w.happen(t)
			w.decide(t)
		}
	})
}

func randomWaves(t *rapid.T) []fleetv1.Wave {
	if rapid.Bool().Draw(t, "default waves") {
		return nil
	}
	list := []fleetv1.Wave{{Name: "canary", Canary: true}}
	for _, percent := range []int32{20, 60, 100} {
		list = append(list, fleetv1.Wave{
			Name: fmt.Sprint(percent), Percent: percent, Approval: rapid.Bool().Draw(t, "approval"),
			HaltFailed: int32(rapid.IntRange(1, 3).Draw(t, "halt")), PromotePercent: int32(rapid.SampledFrom([]int{50, 95, 100}).Draw(t, "promote")),
		})
	}
	return list
}

// witness knows what was promised.
type witness struct {
	*fleet
	badly int
}

// happen makes one thing happen.
func (w *witness) happen(t *rapid.T) {
	d := &w.devices[rapid.IntRange(0, len(w.devices)-1).Draw(t, "device")]
	switch rapid.IntRange(0, 11).Draw(t, "what") {
	case 0:
		d.Up, d.Silent = !d.Up, 0
	case 1:
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes")) * time.Minute)
		for i := range w.devices {
			if !w.devices[i].Up {
				w.devices[i].Silent += 10 * time.Minute
			}
		}
	case 2: // a new leader
		w.counted = w.now
		for i := range w.devices {
			w.devices[i].Silent, w.devices[i].Leads = 0, false
		}
		if len(w.voters) > 0 {
			w.device(rapid.SampledFrom(w.voters).Draw(t, "leader")).Leads = true
		}
	case 3:
		w.edit(func(s *fleetv1.RolloutSpec) { s.Paused = !s.Paused })
	case 4:
		if next := int(w.rollout.Status.Wave) + 1; next < len(w.rollout.Spec.Waves) {
			w.edit(func(s *fleetv1.RolloutSpec) { s.Approved = append(s.Approved, s.Waves[next].Name) })
		}
	case 5:
		w.edit(func(s *fleetv1.RolloutSpec) { s.Retries++ })
	case 6:
		w.edit(func(s *fleetv1.RolloutSpec) { s.Skip = append(slices.Clone(s.Skip), d.Name) })
	default:
		for range 3 {
			for i := range w.devices {
				w.step(&w.devices[i], rapid.IntRange(0, 9).Draw(t, "luck") >= w.badly)
			}
		}
	}
}

// decide decides, and looks at what was decided with the eyes of somebody who counts for himself.
func (w *witness) decide(t *rapid.T) {
	before, wave := w.rollout.DeepCopy(), w.rollout.Status.Wave
	earlier := slices.Clone(w.devices)
	d := w.fleet.decide()
	for _, g := range d.Grant {
		device := w.device(g.Device)
		if device.Spec.Assignment == nil || device.Spec.Assignment.Wave > d.Status.Wave || device.Status.HardwareID == "alien" {
			t.Fatalf("%s was let go, which is not its turn: %+v", g.Device, device)
		}
		if slices.Contains(w.rollout.Spec.Skip, g.Device) {
			t.Fatalf("%s was let go, and is skipped", g.Device)
		}
		if device.Voter {
			w.checkQuorum(t, device)
		}
	}
	if stopped := d.Status.Phase == fleetv1.Halted || d.Status.Phase == fleetv1.Paused || d.Status.Phase == fleetv1.Aborted; stopped &&
		len(d.Grant) > 0 {
		t.Fatalf("%s, and %v were let go", d.Status.Phase, d.Grant)
	}
	w.checkSites(t, d)
	if before.Status.Phase == fleetv1.Halted && before.Generation == before.Status.HaltedGeneration && d.Status.Phase != fleetv1.Halted {
		t.Fatalf("it was halted, nobody touched it, and it is %s", d.Status.Phase)
	}
	if d.Status.Wave < wave {
		t.Fatalf("wave %d after wave %d", d.Status.Wave, wave)
	}
	for i := wave; i < d.Status.Wave; i++ {
		w.checkGate(t, earlier, i, before.Spec)
	}
	in := waves.Decide(waves.Input{Rollout: w.rollout, Release: w.release, Devices: w.devices, Now: w.now})
	if len(in.Grant) > 0 && len(d.Grant) == 0 && len(d.Assign) == 0 && len(d.Withdraw) == 0 && len(w.voters) == 0 {
		t.Fatalf("the same decision again lets %v go", in.Grant)
	}
}

// away counts a device that an update may have taken away: it has leave that it may use, or is between two releases.
func away(d *waves.Device) bool {
	leave := d.Spec.Go != nil && d.Spec.Go.Nonce == d.Status.Asks && d.Status.Asks != "" && d.Status.State == firmwarev1.Staged
	return leave || restarting(d)
}

func (w *witness) checkSites(t *rapid.T, d waves.Decision) {
	for _, g := range d.Grant {
		site, down := w.device(g.Device).Site, 0
		for i := range w.devices {
			lost := slices.Contains(w.rollout.Spec.Skip, w.devices[i].Name) && w.devices[i].Silent >= w.rollout.Spec.LostAfter.Duration
			if w.devices[i].Site == site && away(&w.devices[i]) && !lost {
				down++
			}
		}
		if limit := w.rollout.Spec.MaxUnavailable.IntValue(); down > limit {
			t.Fatalf("%d devices of site %q may be down, and %d are", limit, site, down)
		}
	}
}

func (w *witness) checkQuorum(t *rapid.T, gone *waves.Device) {
	healthy := 0
	for _, name := range w.voters {
		other := w.device(name)
		if other.Name != gone.Name && away(other) {
			t.Fatalf("voters %s and %s are down together", name, gone.Name)
		}
		if other.Name != gone.Name && other.Up {
			healthy++
		}
	}
	if healthy < len(w.voters)/2+1 {
		t.Fatalf("%s was let go, and %d of %d voters are left", gone.Name, healthy, len(w.voters))
	}
	if gone.Leads {
		t.Fatalf("the leader %s was let go", gone.Name)
	}
}

// checkGate: a wave that others were let follow had not broken its limits.
func (w *witness) checkGate(t *rapid.T, devices []waves.Device, wave int32, spec fleetv1.RolloutSpec) {
	var started, done, bad int32
	for i := range devices {
		d := &devices[i]
		a := d.Spec.Assignment
		if a == nil || a.Wave != wave || slices.Contains(spec.Skip, d.Name) || d.Status.Assignment != a.ID {
			continue
		}
		if started++; d.Status.State == firmwarev1.Confirmed {
			done++
		}
		if d.Status.State == firmwarev1.RolledBack && a.Attempt >= spec.Retries {
			bad++
		}
	}
	gate := spec.Waves[wave]
	if bad >= gate.HaltFailed || done*100 < gate.PromotePercent*started && spec.Retries == 0 {
		t.Fatalf("wave %s was passed with %d of %d done and %d failed", gate.Name, done, started, bad)
	}
	if next := spec.Waves[wave+1]; next.Approval && !slices.Contains(spec.Approved, next.Name) {
		t.Fatalf("wave %s began without a person's word", next.Name)
	}
}
