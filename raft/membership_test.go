package raft

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const testGrace = time.Minute

func server(id string, traits ...string) standing {
	m := standing{id: id, well: true, stable: time.Hour}
	for _, t := range traits {
		switch t {
		case "leader":
			m.leader, m.voter = true, true
		case "voter":
			m.voter = true
		case "witness":
			m.witness = true
		case "new":
			m.stable = time.Second
		case "silent":
			m.well, m.stable, m.down = false, 0, time.Second
		case "dead":
			m.well, m.stable, m.down = false, 0, time.Hour
		case "gone":
			m.gone = true
		}
	}
	return m
}

func TestDecide(t *testing.T) {
	leader := server("a", "leader")
	for name, test := range map[string]struct {
		members []standing
		target  int
		still   time.Duration
		want    change
	}{
		"one server":                     {members: []standing{leader}},
		"two servers are one voter":      {members: []standing{leader, server("b")}, still: time.Hour},
		"three become voters":            {members: []standing{leader, server("b", "new"), server("c", "new")}, want: change{action: promote, id: "b"}},
		"and the last one":               {members: []standing{leader, server("b", "voter"), server("c", "new")}, want: change{action: promote, id: "c"}},
		"one that lags is not counted":   {members: []standing{leader, server("b"), server("c", "silent")}, still: time.Hour},
		"all is well":                    {members: []standing{leader, server("b", "voter"), server("c", "voter"), server("d")}, still: time.Hour},
		"a short silence":                {members: []standing{leader, server("b", "voter", "silent"), server("c", "voter"), server("d")}},
		"a dead voter is replaced":       {members: []standing{leader, server("b", "voter", "dead"), server("c", "voter"), server("d")}, want: change{action: demote, id: "b"}},
		"by the spare":                   {members: []standing{leader, server("b", "dead"), server("c", "voter"), server("d")}, want: change{action: promote, id: "d"}},
		"a spare must have proved":       {members: []standing{leader, server("b", "voter", "dead"), server("c", "voter"), server("d", "new")}},
		"without a spare it stays":       {members: []standing{leader, server("b", "voter", "dead"), server("c", "voter")}, still: time.Hour},
		"unless its device is gone":      {members: []standing{leader, server("b", "voter", "dead", "gone"), server("c", "voter")}, want: change{action: demote, id: "b"}},
		"and then it is forgotten":       {members: []standing{leader, server("b", "dead", "gone")}, want: change{action: remove, id: "b"}},
		"no quorum is well":              {members: []standing{leader, server("b", "voter", "dead"), server("c", "voter", "silent"), server("d")}},
		"two dead of five":               {target: 5, members: []standing{leader, server("b", "voter", "dead"), server("c", "voter", "dead"), server("d", "voter"), server("e", "voter")}, want: change{action: demote, id: "b"}},
		"two servers that were three":    {members: []standing{leader, server("b", "voter")}, still: time.Minute, want: change{action: demote, id: "b"}},
		"but not in the middle of it":    {members: []standing{leader, server("b", "voter")}, still: time.Second},
		"too many voters":                {members: []standing{leader, server("b", "voter"), server("c", "voter"), server("d", "voter"), server("e", "voter")}, want: change{action: demote, id: "e"}},
		"a witness is the last choice":   {members: []standing{leader, server("w", "witness"), server("b"), server("c")}, want: change{action: promote, id: "b"}},
		"two servers and a witness":      {members: []standing{leader, server("b", "voter"), server("w", "witness")}, want: change{action: promote, id: "w"}},
		"not two witnesses":              {members: []standing{leader, server("w", "witness"), server("x", "witness")}, still: time.Hour},
		"a server in a witness's place":  {members: []standing{leader, server("b", "voter"), server("w", "witness", "voter"), server("c")}, want: change{action: demote, id: "w"}},
		"a witness replaced by another":  {members: []standing{leader, server("b", "voter"), server("w", "witness", "voter", "dead"), server("x", "witness")}, want: change{action: demote, id: "w"}},
		"no second witness for the dead": {members: []standing{leader, server("b", "voter", "dead"), server("w", "witness", "voter"), server("x", "witness")}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.target == 0 {
				test.target = 3
			}
			got := decide(test.members, test.target, testGrace, test.still)
			if got.reason = ""; got != test.want {
				t.Errorf("decide = %+v, want %+v", got, test.want)
			}
		})
	}
}

func anyMembers(t *rapid.T) []standing {
	members := []standing{server("a", "leader")}
	for i := range rapid.IntRange(0, 7).Draw(t, "others") {
		traits := []string{rapid.SampledFrom([]string{"well", "new", "silent", "dead"}).Draw(t, "health")}
		for _, trait := range []string{"voter", "gone"} {
			if rapid.Bool().Draw(t, trait) {
				traits = append(traits, trait)
			}
		}
		if rapid.IntRange(0, 4).Draw(t, "kind") == 0 {
			traits = append(traits, "witness")
		}
		members = append(members, server(fmt.Sprint("s", i), traits...))
	}
	return members
}

func tally(members []standing) (voters, well, witnesses int) {
	for _, m := range members {
		if !m.voter {
			continue
		}
		voters++
		if m.well {
			well++
		}
		if m.witness {
			witnesses++
		}
	}
	return voters, well, witnesses
}

func apply(t *rapid.T, members []standing, step change) []standing {
	out := slices.Clone(members)
	i := slices.IndexFunc(out, func(m standing) bool { return m.id == step.id })
	if i < 0 {
		t.Fatalf("%+v is about nobody", step)
	}
	m := &out[i]
	if m.leader {
		t.Fatalf("%+v is about the leader", step)
	}
	switch step.action {
	case promote:
		if m.voter || !m.well {
			t.Fatalf("%+v gives a vote to %+v", step, *m)
		}
		m.voter = true
	case demote:
		if !m.voter {
			t.Fatalf("%+v takes a vote that is not there", step)
		}
		m.voter = false
	case remove:
		if m.voter || m.well || !m.gone {
			t.Fatalf("%+v removes %+v", step, *m)
		}
		return slices.Delete(out, i, i+1)
	}
	return out
}

// TestDecideIsSafe checks each step from any membership, and that steps come to an end, at a membership that is as it should be.
func TestDecideIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := anyMembers(t)
		target := rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "target")
		_, _, witnessesBefore := tally(members)
		for steps := 0; ; steps++ {
			step := decide(members, target, testGrace, time.Hour)
			if step.action == none {
				break
			}
			if steps > 3*len(members) {
				t.Fatalf("no end: %+v", members)
			}
			next := apply(t, members, step)
			voters, well, _ := tally(members)
			votersNext, wellNext, witnesses := tally(next)
			if step.action != remove && wellNext < quorum(votersNext) {
				t.Fatalf("%+v makes %d of %d voters, which is no quorum", step, wellNext, votersNext)
			}
			spareServer := slices.ContainsFunc(members, func(m standing) bool { return !m.voter && m.well && !m.witness })
			fromWitness := witnesses < witnessesBefore && spareServer
			if wellNext-quorum(votersNext) < well-quorum(voters) && voters <= target && !fromWitness {
				t.Fatalf("%+v survives less: from %d of %d to %d of %d", step, well, voters, wellNext, votersNext)
			}
			if step.action == promote && witnesses > max(1, witnessesBefore) {
				t.Fatalf("%+v makes %d witnesses", step, witnesses)
			}
			members, witnessesBefore = next, witnesses
		}
		voters, well, _ := tally(members)
		if well < quorum(voters) {
			return // nothing could be done
		}
		if voters%2 == 0 || voters > target {
			t.Fatalf("it ends with %d voters of %d: %+v", voters, target, members)
		}
		for _, m := range members {
			if !m.well || m.witness {
				return
			}
		}
		if best := min(target, len(members)-(len(members)+1)%2); voters != best {
			t.Fatalf("all are well, and it ends with %d voters of %d, not %d", voters, len(members), best)
		}
	})
}
