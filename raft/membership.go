package raft

import (
	"cmp"
	"slices"
	"time"
)

// Who has a vote is decided here, from what the leader knows, one change at a time:
//
//   - The number of voters is odd and at most the target. An even number is worse than one less: it survives as many failures and
//     needs one more server for everything. So two servers are one voter and one spare, and a third one makes both others voters.
//   - A dead voter loses its vote when a spare that follows the log can take it, and then the spare gets it. In this order the
//     cluster never depends on the spare before it has proved itself. Without a spare the dead one keeps its vote: taking it
//     would not make the rest survive more. Two dead voters lose theirs even so: without them it does.
//   - A witness has a vote only while there are too few servers, and never more than one has.
//   - Nothing changes while the voters that are well are no quorum, or would be none afterwards; nor while all is well.
//
// The leader keeps its vote.

// standing is what the leader knows of one member.
type standing struct {
	id      string
	voter   bool
	witness bool
	leader  bool
	gone    bool          // its device was taken out of the cluster
	well    bool          // it answers and follows the log
	stable  time.Duration // for how long it has been well
	down    time.Duration // for how long it has shown no sign of health; 0 while it is well
}

type action int

const (
	none action = iota
	promote
	demote
	remove
)

// change is the next step of the membership, and why.
type change struct {
	action action
	id     string
	reason string
}

const (
	// proven is how long a server must have been well to take the place of another one.
	proven = 5 * time.Second
	// settled is how long an even number of voters may last before one loses its vote.
	settled = 10 * time.Second
)

// decide returns the next change of the membership, or none. Members come in the order in which they joined; still is how long
// ago the last change was.
func decide(members []standing, target int, grace, still time.Duration) change {
	c := census(members, grace)
	if c.well < quorum(c.voters) {
		return change{}
	}
	next := c.odd
	if c.voters%2 == 0 {
		next = c.even
	}
	step := next(target, still)
	if step.action == none {
		return c.clean()
	}
	// Whatever the rules are: never a step after which the voters that are well are no quorum.
	if voters, well := c.after(step); well < quorum(voters) {
		return change{}
	}
	return step
}

func quorum(voters int) int { return voters/2 + 1 }

// counts is what the rules look at.
type counts struct {
	members      []standing
	voters, well int        // well counts voters only
	dead         []standing // voters, the longest dead first
	spares       []standing // that could have a vote: the best first
	witness      *standing  // that has a vote
	grace        time.Duration
}

func census(members []standing, grace time.Duration) *counts {
	c := &counts{members: members, grace: grace}
	for i, m := range members {
		switch {
		case !m.voter:
			if m.well {
				c.spares = append(c.spares, m)
			}
			continue
		case m.well:
			c.well++
		case !m.leader && m.down >= grace:
			c.dead = append(c.dead, m)
		}
		c.voters++
		if m.witness {
			c.witness = &members[i]
		}
	}
	slices.SortStableFunc(c.dead, func(a, b standing) int { return cmp.Compare(b.down, a.down) })
	slices.SortStableFunc(c.spares, func(a, b standing) int { return cmp.Compare(rank(a), rank(b)) })
	return c
}

// rank is lower for who is the better voter: servers before witnesses, and those that have been well for a while first.
func rank(m standing) int {
	r := 0
	if m.witness {
		r += 2
	}
	if m.stable < proven {
		r++
	}
	return r
}

// candidates are the spares that could have a vote together: one witness at most, counting one that has a vote already and
// that stays.
func (c *counts) candidates(staying *standing) []standing {
	var out []standing
	witness := staying != nil
	for _, s := range c.spares {
		if s.witness && witness {
			continue
		}
		witness = witness || s.witness
		out = append(out, s)
	}
	return out
}

func (c *counts) even(target int, still time.Duration) change {
	candidates := c.candidates(c.witness)
	switch {
	case len(c.dead) > 0:
		return change{demote, c.dead[0].id, "it has not followed for long"}
	case c.voters < target && len(candidates) > 0:
		return change{promote, candidates[0].id, "the number of voters is even and too small"}
	case c.voters > target:
		return change{demote, c.dispensable(), "there are too many voters"}
	case still >= settled:
		return change{demote, c.dispensable(), "an even number of voters survives no more failures than one less"}
	}
	return change{}
}

func (c *counts) odd(target int, _ time.Duration) change {
	candidates := c.candidates(c.witness)
	switch {
	case c.voters > target:
		return change{demote, c.dispensable(), "there are too many voters"}
	case len(c.dead) > 0 && c.dead[0].gone:
		return change{demote, c.dead[0].id, "its device was taken out of the cluster"}
	case len(c.dead) > 1:
		return change{demote, c.dead[0].id, "the other voters survive more failures without it"}
	case len(c.dead) == 1:
		for _, s := range c.candidates(c.stayingWithout(c.dead[0].id)) {
			if s.stable >= proven {
				return change{demote, c.dead[0].id, "it has not followed for long, and " + s.id + " can take its place"}
			}
		}
	case c.voters < target && len(candidates) > 1:
		return change{promote, candidates[0].id, "there are too few voters"}
	case c.witness != nil:
		for _, s := range c.spares {
			if !s.witness && s.stable >= proven {
				return change{demote, c.witness.id, s.id + " can vote and keeps the objects too"}
			}
		}
	}
	return change{}
}

// stayingWithout is the witness with a vote, unless it is the one that is about to lose it.
func (c *counts) stayingWithout(id string) *standing {
	if c.witness != nil && c.witness.id == id {
		return nil
	}
	return c.witness
}

// dispensable is the voter that is missed least: one that is not well, a witness, or the one that joined last.
func (c *counts) dispensable() string {
	best, worst := "", -1
	for _, m := range c.members {
		if !m.voter || m.leader {
			continue
		}
		score := rank(m)
		if !m.well {
			score += 4
		}
		if score >= worst {
			best, worst = m.id, score
		}
	}
	return best
}

// clean removes a spare that is dead and whose device was taken out of the cluster.
func (c *counts) clean() change {
	for _, m := range c.members {
		if !m.voter && !m.well && m.gone && m.down >= c.grace {
			return change{remove, m.id, "its device was taken out of the cluster"}
		}
	}
	return change{}
}

// after counts the voters, and those that are well, after a step.
func (c *counts) after(step change) (voters, well int) {
	voters, well = c.voters, c.well
	for _, m := range c.members {
		if m.id != step.id {
			continue
		}
		by := 0
		switch {
		case step.action == promote && !m.voter:
			by = 1
		case step.action != promote && m.voter:
			by = -1
		}
		voters += by
		if m.well {
			well += by
		}
	}
	return voters, well
}
