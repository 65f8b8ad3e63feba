package waves_test

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/controllers/waves"
)

// fleet plays devices by hand, without a store: what Decide says is carried out, and time passes when a test says so.
type fleet struct {
	rollout *fleetv1.Rollout
	release *firmwarev1.Release
	devices []waves.Device
	voters  []string
	now     time.Time
	counted time.Time // until when the time has been counted
	nonces  int
	granted []string // every leave that was given, in order
	last    waves.Decision
}

func newFleet(n int, spec fleetv1.RolloutSpec) *fleet {
	spec.Release = "r2"
	f := &fleet{
		rollout: &fleetv1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "ro", UID: "u-1", Generation: 1}, Spec: spec},
		release: &firmwarev1.Release{ObjectMeta: metav1.ObjectMeta{Name: "r2"}, Spec: firmwarev1.ReleaseSpec{
			Version: "2", Counter: 2, HardwareIDs: []string{"hw", "hw-b"}, Artifacts: []firmwarev1.Artifact{{Name: "all"}},
		}},
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	api.KindFor(f.rollout).Default(f.rollout)
	for i := range n {
		f.devices = append(f.devices, waves.Device{
			Name: fmt.Sprintf("d%03d", i), Up: true,
			Status: firmwarev1.DeviceFirmwareStatus{HardwareID: "hw", Backend: "fake", Version: "1", Counter: 1, State: firmwarev1.Idle},
		})
	}
	f.counted = f.now
	return f
}

func (f *fleet) device(name string) *waves.Device {
	i := slices.IndexFunc(f.devices, func(d waves.Device) bool { return d.Name == name })
	return &f.devices[i]
}

// decide makes a decision and carries it out.
func (f *fleet) decide() waves.Decision {
	in := waves.Input{Rollout: f.rollout, Release: f.release, Devices: slices.Clone(f.devices), Now: f.now, Passed: f.now.Sub(f.counted)}
	for _, name := range f.voters {
		in.Voters = append(in.Voters, waves.Voter{Name: name, Healthy: f.device(name).Up && !restarting(f.device(name))})
	}
	return f.decideWith(in)
}

func (f *fleet) decideWith(in waves.Input) waves.Decision {
	d := waves.Decide(in)
	if d.Counted {
		f.counted = f.now
	}
	for _, name := range d.Withdraw {
		f.device(name).Spec = firmwarev1.DeviceFirmwareSpec{}
	}
	for _, name := range d.Revoke {
		f.device(name).Spec.Go.Seconds = 0
	}
	for _, a := range d.Assign {
		f.device(a.Device).Spec = firmwarev1.DeviceFirmwareSpec{Assignment: &firmwarev1.Assignment{
			ID: waves.AssignmentID(f.rollout, a.Attempt), Rollout: f.rollout.Name, Wave: a.Wave, Attempt: a.Attempt, Version: "2", Counter: 2,
		}}
	}
	f.rollout.Status = d.Status
	for _, g := range d.Grant {
		f.device(g.Device).Spec.Go = &firmwarev1.Go{Nonce: g.Nonce, Seconds: waves.LeaveSeconds}
		f.granted = append(f.granted, g.Device)
	}
	f.last = d
	return d
}

func restarting(d *waves.Device) bool { return waves.Restarting(&d.Status) }

// step moves one device that is there one state on, as a device would. It reports whether there was anything to do.
func (f *fleet) step(d *waves.Device, good bool) bool {
	s, a := &d.Status, d.Spec.Assignment
	if !d.Up {
		return false
	}
	if a == nil {
		if s.State == firmwarev1.Staged {
			s.State, s.Assignment, s.Asks = firmwarev1.Idle, "", ""
			return true
		}
		return false
	}
	if s.Assignment != a.ID {
		if restarting(d) {
			return false
		}
		s.Assignment, s.State, s.Reason, s.Asks = a.ID, firmwarev1.Downloading, "", ""
		return true
	}
	switch s.State {
	case firmwarev1.Downloading:
		s.State = firmwarev1.Staged
		f.ask(s)
	case firmwarev1.Staged:
		switch g := d.Spec.Go; {
		case g == nil || g.Nonce != s.Asks:
			return false
		case g.Seconds == 0:
			f.ask(s)
		default:
			s.State, s.Asks = firmwarev1.Trial, ""
		}
	case firmwarev1.Trial:
		if good {
			s.State, s.Version, s.Counter = firmwarev1.Confirmed, "2", 2
		} else {
			s.State, s.Reason = firmwarev1.RolledBack, "Unhealthy"
		}
	default:
		return false
	}
	return true
}

func (f *fleet) ask(s *firmwarev1.DeviceFirmwareStatus) {
	f.nonces++
	s.Asks = fmt.Sprintf("n%d", f.nonces)
}

// settle lets everything happen that happens by itself, with no time passing.
func (f *fleet) settle(good func(name string) bool) {
	for {
		f.decide()
		moved := false
		for i := range f.devices {
			moved = f.step(&f.devices[i], good(f.devices[i].Name)) || moved
		}
		if !moved && len(f.last.Assign)+len(f.last.Grant)+len(f.last.Withdraw)+len(f.last.Revoke) == 0 {
			return
		}
	}
}

// pass lets time pass, as far as the decisions ask for it.
func (f *fleet) pass(d time.Duration, good func(name string) bool) {
	end := f.now.Add(d)
	f.settle(good)
	for f.now.Before(end) {
		step := end.Sub(f.now)
		if f.last.Again > 0 {
			step = min(step, f.last.Again)
		}
		f.now = f.now.Add(step)
		for i := range f.devices {
			if !f.devices[i].Up {
				f.devices[i].Silent += step
			}
		}
		f.settle(good)
	}
}

func (f *fleet) edit(change func(*fleetv1.RolloutSpec)) {
	change(&f.rollout.Spec)
	f.rollout.Generation++
}

func all(string) bool  { return true }
func none(string) bool { return false }
