package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// block is how many seeds in a row have a cluster of the same kind, so that it need not be made anew each time.
const block = 10

// plan is what a seed decides.
type plan struct {
	seed       uint64
	size       int
	failpoints bool
	long       bool
	load       time.Duration
	steps      []trouble
}

// trouble is one fault of an episode.
type trouble struct {
	after, hold time.Duration
	fault       fault
	seed        uint64
}

// settings are the lengths of episodes.
type settings struct {
	load, hold, pause [2]time.Duration
	// longest is the length of the rare long pause of a leader; 0: none.
	longest time.Duration
	most    int // faults
}

func short() settings {
	return settings{
		load: [2]time.Duration{1800 * time.Millisecond, 2600 * time.Millisecond}, hold: [2]time.Duration{300 * time.Millisecond, 1300 * time.Millisecond},
		pause: [2]time.Duration{time.Second, 2 * time.Second}, most: 2,
	}
}

func long() settings {
	return settings{
		load: [2]time.Duration{4 * time.Second, 9 * time.Second}, hold: [2]time.Duration{300 * time.Millisecond, 5 * time.Second},
		pause: [2]time.Duration{2 * time.Second, 10 * time.Second}, longest: time.Minute, most: 4,
	}
}

// newPlan makes the plan of a seed.
func newPlan(seed uint64, set settings) *plan {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	kind := seed / block
	p := &plan{seed: seed, size: 3, failpoints: kind%2 == 1, long: set.longest > 0, load: within(rng, set.load)}
	if kind%4 >= 2 {
		p.size = 5
	}
	for range 1 + rng.IntN(set.most) {
		f := choose(rng, p)
		s := trouble{fault: f, seed: rng.Uint64(), after: upTo(rng, p.load/2), hold: within(rng, set.hold)}
		if strings.HasPrefix(f.name, "pause") {
			s.hold = within(rng, set.pause)
			if set.longest > 0 && rng.IntN(20) == 0 {
				s.hold = set.pause[1] + upTo(rng, set.longest-set.pause[1])
			}
			p.load = max(p.load, s.after+s.hold+time.Second)
		}
		p.steps = append(p.steps, s)
	}
	return p
}

func within(rng *rand.Rand, r [2]time.Duration) time.Duration { return r[0] + upTo(rng, r[1]-r[0]) }

func choose(rng *rand.Rand, p *plan) fault {
	total := 0
	var fit []fault
	for _, f := range faults() {
		if f.fits(p) {
			total += f.weight
			fit = append(fit, f)
		}
	}
	roll := rng.IntN(total)
	for _, f := range fit {
		if roll -= f.weight; roll < 0 {
			return f
		}
	}
	return fit[0]
}

func (p *plan) String() string {
	kind := ""
	if p.failpoints {
		kind = ", failpoints"
	}
	return fmt.Sprintf("seed %d: %d servers%s", p.seed, p.size, kind)
}
