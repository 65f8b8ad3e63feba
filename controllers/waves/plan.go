package waves

import (
	"slices"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// Planned is one wave as it would be if everything went well and everybody were there.
type Planned struct {
	Name    string   `json:"name"`
	Devices []string `json:"devices"`
	// Pods is how many pods of each workload the wave has of its own.
	Pods map[string]int32 `json:"pods,omitempty"`
}

// Plan says which devices would be in which wave, and why others are left out. Devices that have the release already are in no wave.
// Which devices are in a wave that has not begun depends on the rollout's UID: it is settled when the rollout is made.
func Plan(in Input) (list []Planned, refused map[string]string) {
	d := &decider{Input: in, spec: &in.Rollout.Spec, before: &in.Rollout.Status}
	d.decision.Refused = map[string]string{}
	if in.Release == nil {
		return nil, d.decision.Refused
	}
	d.sort()
	d.sortWorkloads()
	sizes := d.sizes()
	for i := range d.spec.Waves {
		d.fill(int32(i), sizes[i])
	}
	for i := range d.spec.Waves {
		p := Planned{Name: d.spec.Waves[i].Name, Devices: []string{}}
		for _, m := range d.members {
			if m.mine && m.wave == int32(i) {
				p.Devices = append(p.Devices, m.Name)
			}
		}
		slices.Sort(p.Devices)
		for _, a := range d.apps {
			if a.status.Done {
				continue
			}
			if p.Pods == nil {
				p.Pods = map[string]int32{}
			}
			p.Pods[a.Key()] = a.part(int32(i))
		}
		list = append(list, p)
	}
	for i := range d.decision.Status.Workloads {
		if w := &d.decision.Status.Workloads[i]; w.Why != "" {
			d.decision.Refused[w.Namespace+"/"+w.Name] = w.Why
		}
	}
	return list, d.decision.Refused
}

// Stage is where a device stands with a rollout, in a word for people.
func Stage(r *fleetv1.Rollout, device *Device) string {
	d := &decider{Input: Input{Rollout: r}, spec: &r.Spec}
	m := &member{Device: device, mine: Mine(r, device.Spec.Assignment)}
	switch {
	case !m.mine:
		return "NotBegun"
	case device.Status.Assignment != device.Spec.Assignment.ID:
		return "NotStarted"
	case d.spec.LostAfter != nil && !m.Up && Restarting(&m.Status) && m.Silent >= d.spec.LostAfter.Duration:
		return "Lost"
	}
	return string(device.Status.State)
}
