package waves_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/controllers/waves"
)

func (f *fleet) want(t *testing.T, phase fleetv1.Phase, wave, updated int32) {
	t.Helper()
	s := f.rollout.Status
	if s.Phase != phase || s.Wave != wave || s.Updated != updated {
		t.Errorf("%s in wave %d, %d updated; want %s, %d, %d (%s)", s.Phase, s.Wave, s.Updated, phase, wave, updated, s.Why)
	}
}

// TestSizes: the sizes of the default waves.
func TestSizes(t *testing.T) {
	f := newFleet(0, fleetv1.RolloutSpec{})
	for n, want := range map[int][]int{
		1: {1, 1, 1, 1}, 5: {1, 1, 2, 5}, 20: {1, 1, 5, 20}, 100: {1, 5, 25, 100}, 300: {2, 15, 75, 300}, 1000: {2, 50, 250, 1000},
	} {
		if diff := cmp.Diff(want, waves.Sizes(f.rollout.Spec.Waves, n, 2)); diff != "" {
			t.Errorf("%d devices: %s", n, diff)
		}
	}
}

// TestGoodRelease goes through all waves, each after its soak.
func TestGoodRelease(t *testing.T) {
	f := newFleet(100, fleetv1.RolloutSpec{MaxUnavailable: ptr.To(intstr.FromInt32(100))})
	f.pass(29*time.Minute, all)
	f.want(t, fleetv1.Soaking, 0, 1)
	f.pass(2*time.Minute, all)
	f.want(t, fleetv1.Soaking, 1, 5)
	f.pass(2*time.Hour, all)
	f.want(t, fleetv1.Soaking, 2, 25)
	f.pass(11*time.Hour, all)
	f.want(t, fleetv1.Soaking, 2, 25)
	f.pass(time.Hour, all)
	f.want(t, fleetv1.Completed, 3, 100)
	if f.rollout.Status.CompletionTime == nil {
		t.Error("no time of completion")
	}
}

// TestBadReleaseStopsAtTheCanary: nobody else is touched, and only an edit lets it go on.
func TestBadReleaseStopsAtTheCanary(t *testing.T) {
	f := newFleet(100, fleetv1.RolloutSpec{})
	f.pass(48*time.Hour, none)
	f.want(t, fleetv1.Halted, 0, 0)
	if len(f.granted) != 1 {
		t.Errorf("%d devices were let go", len(f.granted))
	}
	if why := f.rollout.Status.Why; !strings.Contains(why, f.granted[0]+" (RolledBack: Unhealthy)") {
		t.Errorf("why: %q", why)
	}
	f.edit(func(s *fleetv1.RolloutSpec) { s.Skip = []string{f.granted[0]} })
	f.pass(time.Hour, all)
	f.want(t, fleetv1.Soaking, 1, 5)
}

func TestRetry(t *testing.T) {
	f := newFleet(10, fleetv1.RolloutSpec{})
	f.pass(time.Hour, none)
	f.want(t, fleetv1.Halted, 0, 0)
	f.edit(func(s *fleetv1.RolloutSpec) { s.Retries = 1 })
	f.pass(time.Minute, all)
	f.want(t, fleetv1.Soaking, 0, 1)
	if len(f.granted) != 2 || f.granted[0] != f.granted[1] {
		t.Errorf("let go: %v", f.granted)
	}
}

// TestLateFailures halt a rollout after the wave has been promoted.
func TestLateFailures(t *testing.T) {
	f := newFleet(100, fleetv1.RolloutSpec{MaxUnavailable: ptr.To(intstr.FromInt32(100))})
	f.pass(31*time.Minute, all)
	f.want(t, fleetv1.Soaking, 1, 5)
	f.device(f.granted[0]).Status.State = firmwarev1.RolledBack
	f.decide()
	f.want(t, fleetv1.Halted, 1, 4)
}

// TestAwayDevices are pending, hold the rollout when they are many, and catch up on their return.
func TestAwayDevices(t *testing.T) {
	f := newFleet(20, fleetv1.RolloutSpec{
		MaxUnavailable: ptr.To(intstr.FromInt32(20)),
		Waves:          []fleetv1.Wave{{Name: "canary", Canary: true}, {Name: "half", Percent: 50}, {Name: "all", Percent: 100}},
	})
	for i := range f.devices {
		f.devices[i].Up = i >= 8
	}
	f.pass(time.Hour, all)
	s := f.rollout.Status
	if s.Phase != fleetv1.Held || s.Wave != 1 || s.Failed+s.Lost != 0 {
		t.Fatalf("%+v", s)
	}
	f.edit(func(s *fleetv1.RolloutSpec) { s.Approved = []string{"all"} })
	f.pass(time.Hour, all)
	f.want(t, fleetv1.Progressing, 2, 12)
	for i := range f.devices {
		f.devices[i].Up, f.devices[i].Silent = true, 0
	}
	f.pass(time.Minute, all)
	f.want(t, fleetv1.Completed, 2, 20)
}

// TestLostDevice counts once it was silent for long enough, and not before.
func TestLostDevice(t *testing.T) {
	f := newFleet(10, fleetv1.RolloutSpec{})
	for len(f.granted) == 0 {
		f.decide()
		for i := range f.devices {
			f.step(&f.devices[i], true)
		}
	}
	f.decide()
	f.device(f.granted[0]).Up = false
	f.pass(29*time.Minute, all)
	f.want(t, fleetv1.Progressing, 0, 0)
	f.pass(time.Minute, all)
	f.want(t, fleetv1.Halted, 0, 0)
	if f.rollout.Status.Lost != 1 {
		t.Errorf("%+v", f.rollout.Status)
	}
	f.device(f.granted[0]).Up, f.device(f.granted[0]).Silent = true, 0
	f.pass(time.Hour, all)
	f.want(t, fleetv1.Halted, 0, 1) // halted stays halted
}

func TestApprovalPauseAndAbort(t *testing.T) {
	f := newFleet(4, fleetv1.RolloutSpec{Waves: []fleetv1.Wave{{Name: "one", Percent: 25}, {Name: "all", Percent: 100, Approval: true}}})
	f.pass(time.Hour, all)
	f.want(t, fleetv1.AwaitingApproval, 0, 1)
	f.edit(func(s *fleetv1.RolloutSpec) { s.Paused, s.Approved = true, []string{"all"} })
	f.pass(time.Hour, all)
	f.want(t, fleetv1.Paused, 0, 1)
	f.edit(func(s *fleetv1.RolloutSpec) { s.Paused = false })
	f.decide()
	f.edit(func(s *fleetv1.RolloutSpec) { s.Aborted = true })
	f.pass(time.Hour, all)
	f.want(t, fleetv1.Aborted, 1, 1)
	for _, d := range f.devices {
		if d.Spec.Assignment != nil && d.Status.State != firmwarev1.Confirmed {
			t.Errorf("%s keeps its assignment", d.Name)
		}
	}
}

// TestVoters go last, one at a time, and the leader after another one leads.
func TestVoters(t *testing.T) {
	f := newFleet(5, fleetv1.RolloutSpec{Waves: []fleetv1.Wave{{Name: "all", Percent: 100}}, MaxUnavailable: ptr.To(intstr.FromInt32(5))})
	f.voters = []string{"d000", "d001", "d002"}
	for _, name := range f.voters {
		f.device(name).Voter = true
	}
	f.device("d000").Leads = true
	f.settle(all)
	f.want(t, fleetv1.Progressing, 0, 4)
	if !f.last.StepAside {
		t.Fatal("the leader is next and stays")
	}
	if got := f.granted[:2]; strings.Compare(got[0], "d003") < 0 || strings.Compare(got[1], "d003") < 0 {
		t.Errorf("voters before the others: %v", f.granted)
	}
	f.device("d001").Up = false // two are left of three: none can be spared
	f.device("d000").Leads = false
	f.settle(all)
	f.want(t, fleetv1.Progressing, 0, 4)
	if !strings.Contains(f.rollout.Status.Why, "cannot restart") {
		t.Errorf("why: %q", f.rollout.Status.Why)
	}
	f.device("d001").Up = true
	f.decide()
	if n := len(f.last.Grant); n != 1 {
		t.Errorf("%d voters were let go at once: %v", n, f.last.Grant)
	}
	f.settle(all)
	f.want(t, fleetv1.Completed, 0, 5)
}

// TestRefused devices are told why, and count for nothing.
func TestRefused(t *testing.T) {
	f := newFleet(5, fleetv1.RolloutSpec{Waves: []fleetv1.Wave{{Name: "all", Percent: 100}}, Skip: []string{"d004"}})
	f.devices[0].Status.HardwareID = "toaster"
	f.devices[1].Status.Counter = 7
	f.devices[2].Status.Backend = ""
	f.pass(time.Hour, all)
	f.want(t, fleetv1.Completed, 0, 1)
	want := map[string]string{
		"d000": `the release is not for its hardware "toaster"`, "d001": "the release is older than what it may run: 2, not 7",
		"d002": "it reports no way to install firmware", "d004": "a person skipped it",
	}
	if diff := cmp.Diff(want, f.last.Refused); diff != "" {
		t.Error(diff)
	}
}

// TestSoakSurvivesLeadersAndClocks: what has soaked is in the object, and no clock is asked.
func TestSoakSurvivesLeadersAndClocks(t *testing.T) {
	f := newFleet(10, fleetv1.RolloutSpec{})
	f.pass(20*time.Minute, all)
	f.want(t, fleetv1.Soaking, 0, 1)
	f.now = f.now.AddDate(10, 0, 0) // a new leader, whose clock is wrong
	f.counted = f.now
	f.decide()
	f.want(t, fleetv1.Soaking, 0, 1)
	f.pass(9*time.Minute, all)
	f.want(t, fleetv1.Soaking, 0, 1)
	f.pass(4*time.Minute, all)
	if f.rollout.Status.Wave == 0 {
		t.Error("the new leader began from nothing")
	}
}

// TestCanaryThatGoesAway is replaced before it has begun.
func TestCanaryThatGoesAway(t *testing.T) {
	f := newFleet(10, fleetv1.RolloutSpec{})
	first := f.decide().Assign[0].Device
	f.device(first).Up = false
	f.pass(time.Hour, all)
	if f.rollout.Status.Updated == 0 || f.device(first).Spec.Assignment != nil && f.rollout.Status.Wave == 0 {
		t.Errorf("%+v", f.rollout.Status)
	}
}

func TestEmptyFleetWaits(t *testing.T) {
	f := newFleet(0, fleetv1.RolloutSpec{LostAfter: &metav1.Duration{}})
	f.pass(time.Hour, all)
	f.want(t, fleetv1.Progressing, 0, 0)
}
