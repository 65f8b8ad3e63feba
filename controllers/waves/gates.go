package waves

import (
	"fmt"
	"slices"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// Asked reports whether a gate is asked for a wave.
func Asked(g *fleetv1.Gate, w *fleetv1.Wave) bool {
	return len(g.Waves) == 0 || slices.Contains(g.Waves, w.Name)
}

// answer is what a gate has said of the wave since the rollout was last edited; nil: nothing.
func (d *decider) answer(g *fleetv1.Gate, wave int32) *fleetv1.Answer {
	for i := range d.decision.Status.Answers {
		a := &d.decision.Status.Answers[i]
		if a.Gate == g.Name && a.Wave == wave && a.Generation == d.Rollout.Generation {
			return a
		}
	}
	return nil
}

// refused says which gate has halted the rollout.
func (d *decider) refused() string {
	wave := d.decision.Status.Wave
	for i := range d.spec.Gates {
		g := &d.spec.Gates[i]
		if a := d.answer(g, wave); a != nil && a.Bad >= g.HaltFailed {
			return fmt.Sprintf("wave %s: gate %s: %s", d.spec.Waves[wave].Name, g.Name, a.Why)
		}
	}
	return ""
}

// closed says which gate the wave waits for.
func (d *decider) closed(wave int32) string {
	w := &d.spec.Waves[wave]
	for i := range d.spec.Gates {
		g := &d.spec.Gates[i]
		if !Asked(g, w) {
			continue
		}
		d.again(g.Every.Duration)
		switch a := d.answer(g, wave); {
		case a == nil:
			return fmt.Sprintf("wave %s waits for gate %s", w.Name, g.Name)
		case !a.Good:
			return fmt.Sprintf("wave %s waits for gate %s: %s", w.Name, g.Name, a.Why)
		}
	}
	return ""
}
