package raft

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// tending is a leader's care for the membership: it finds out how the members are and makes the change that is due.
//
// A member is well when it reaches a goal in time. The goal is an entry that was committed when it was set; to reach it means to
// answer a question with "my log agrees with yours up to there". So a server that answers but does not get on, because of its
// disk or of what its log holds, is not well, and one that is busy is. While all are well the leader asks a few times a minute;
// nothing is written.
type tending struct {
	n    *Node
	look chan struct{} // has something in it when a member that was well is not

	mu       sync.Mutex
	members  map[string]*observed
	changing time.Time // when the members last changed, as far as this leader knows
}

// observed is what the leader has seen of one member since it leads.
type observed struct {
	asking  bool
	goal    position
	set     time.Time // when the goal was set
	log     uint64    // the last entry in the member's log
	contact time.Time // of the last answer
	sign    time.Time // of the last sign of health: a goal reached, or a log that grew
	well    bool
	since   time.Time // for how long it has been well
}

// position is an entry of the log.
type position struct{ index, term uint64 }

const (
	// inTime is how soon a member that is well has what was committed.
	inTime = 3 * time.Second
	// Pauses between two looks: at first while something is to be done, at most while a member is not well, and while all are.
	pauseFirst = 100 * time.Millisecond
	pauseLong  = 5 * time.Second
	pauseCalm  = 15 * time.Second
	// changeTimeout bounds one change of the membership.
	changeTimeout = 10 * time.Second
)

func newTending(n *Node) *tending {
	return &tending{n: n, look: make(chan struct{}, 1), members: map[string]*observed{}}
}

// run tends the membership while this server leads, until ctx ends.
func (t *tending) run(ctx context.Context) {
	if t.n.cfg.Voters == 0 {
		return
	}
	t.forget()
	pause := pauseFirst
	var before []Server
	for {
		changed := t.n.LeaderChanges()
		servers, index := t.n.membership()
		if !slices.Equal(before, servers) {
			before, pause = servers, pauseFirst
			t.note(servers)
		}
		t.askAll(ctx, servers, min(2*pause, pauseLong))
		if ctx.Err() != nil {
			return
		}
		step := decide(t.standings(servers), t.n.cfg.Voters, t.n.cfg.VoterGrace, t.still())
		if step.action != none && index != 0 { // one change at a time
			t.make(ctx, servers, index, step)
			pause = pauseFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-t.look:
			pause = pauseFirst
		case <-time.After(t.pause(servers, pause)):
			pause = min(2*pause, pauseLong)
		}
	}
}

// pause is how long to wait for the next look.
func (t *tending) pause(servers []Server, pause time.Duration) time.Duration {
	voters, calm := 0, true
	for _, m := range t.standings(servers) {
		calm = calm && m.well
		if m.voter {
			voters++
		}
	}
	if calm && voters%2 == 1 {
		return min(pauseCalm, max(t.n.cfg.VoterGrace/4, pauseFirst))
	}
	return min(pause, max(t.n.cfg.VoterGrace/4, pauseFirst))
}

// forget begins anew: what was seen in an earlier leadership says nothing.
func (t *tending) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members, t.changing = map[string]*observed{}, time.Now()
}

// note takes up members that are new, and drops those that are gone. A new one has the whole grace period before it.
func (t *tending) note(servers []Server) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.changing = now
	kept := map[string]*observed{}
	for _, s := range servers {
		kept[s.ID] = t.members[s.ID]
		if kept[s.ID] == nil {
			kept[s.ID] = &observed{sign: now}
		}
	}
	t.members = kept
}

// missed notes that a member did not answer to the library's heartbeat.
func (t *tending) missed(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.members[id]
	if m == nil || !m.well {
		return
	}
	m.well = false
	select {
	case t.look <- struct{}{}:
	default:
	}
}

// entries is how many entries a member's log had when it last answered, if it ever did.
func (t *tending) entries(id string) (log uint64, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.members[id]
	if m == nil || m.contact.IsZero() {
		return 0, false
	}
	return m.log, true
}

func (t *tending) isWell(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.members[id]
	return m != nil && m.well
}

func (t *tending) still() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.changing)
}

// askAll asks every other member once and waits for the answers, but no longer than the limit: a member that is slow to answer
// is not asked again before it has.
func (t *tending) askAll(ctx context.Context, servers []Server, limit time.Duration) {
	goal, ok := t.n.committed()
	if !ok {
		return
	}
	var asked sync.WaitGroup
	for _, s := range servers {
		if s.ID == t.n.cfg.ID {
			continue
		}
		set, ok := t.begin(s.ID, goal)
		if !ok {
			continue
		}
		asked.Go(func() { // ends by the transport's timeout
			last, reached, err := t.n.ask(s, set)
			t.end(s.ID, set, last, reached, err)
		})
	}
	done := make(chan struct{})
	go func() { // ends with the questions
		asked.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
	case <-ctx.Done():
	}
}

// begin returns the goal to ask a member for, unless a question is on its way.
func (t *tending) begin(id string, goal position) (position, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.members[id]
	if m == nil || m.asking {
		return position{}, false
	}
	m.asking = true
	if m.goal.index == 0 || time.Since(m.set) > inTime {
		m.goal, m.set = goal, time.Now()
	}
	return m.goal, true
}

func (t *tending) end(id string, goal position, last uint64, reached bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.members[id]
	if m == nil {
		return
	}
	m.asking = false
	now := time.Now()
	if err != nil {
		m.well = false
		return
	}
	m.contact = now
	if reached || last > m.log {
		m.sign = now
	}
	m.log = last
	switch late := now.Sub(m.set) > inTime; {
	case reached && !late:
		if !m.well {
			m.well, m.since = true, now
		}
		m.goal = position{}
	case late:
		m.well = false
	}
}

// standings are what decide needs.
func (t *tending) standings(servers []Server) []standing {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	out := make([]standing, 0, len(servers))
	for _, s := range servers {
		m := standing{id: s.ID, voter: s.Voter, witness: s.Witness, leader: s.ID == t.n.cfg.ID}
		switch o := t.members[s.ID]; {
		case m.leader:
			m.well = true
		case o == nil:
		case o.well:
			m.well, m.stable = true, now.Sub(o.since)
		default:
			m.down = now.Sub(o.sign)
			m.gone = !m.witness && t.n.cfg.Gone != nil && m.down >= t.n.cfg.VoterGrace && t.n.cfg.Gone(s.ID)
		}
		out = append(out, m)
	}
	return out
}

// make makes one change, if the members are still those that it was decided for.
func (t *tending) make(ctx context.Context, servers []Server, index uint64, step change) {
	n := t.n
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	s, _ := find(servers, step.id)
	var (
		what string
		do   func() error
	)
	switch step.action {
	case promote:
		what, do = "a server gets a vote", func() error { return n.giveVote(ctx, &s, index) }
	case demote:
		what, do = "a server loses its vote", func() error { return n.takeVote(ctx, step.id, index) }
	case remove:
		what, do = "a server is no longer a member", func() error { return n.remove(ctx, step.id, index) }
	default:
		return
	}
	n.logger.Info(what, "server", step.id, "reason", step.reason)
	if err := do(); err != nil && ctx.Err() == nil {
		n.logger.Warn("the members were not changed", "error", err)
	}
}

// committed is an entry that a quorum has.
func (n *Node) committed() (position, bool) {
	index := n.raft.CommitIndex()
	if head := n.checkpoint.header(); index == head.Index {
		return position{head.Index, head.Term}, index > 0
	}
	var entry hraft.Log
	if index == 0 || n.log.GetLog(index, &entry) != nil {
		return position{}, false
	}
	return position{index, entry.Term}, true
}

// errPast says that the leadership that a question belongs to is over.
var errPast = errors.New("this server does not lead any more")

// ask finds out how far a member's log goes, and whether it agrees with this leader's up to a committed entry. It is the message
// that makes a commit known, so it is true for whoever gets it.
func (n *Node) ask(to Server, goal position) (last uint64, reached bool, err error) {
	term := n.ready.term()
	if term == 0 {
		return 0, false, errPast
	}
	self := n.transport.EncodePeer(hraft.ServerID(n.cfg.ID), hraft.ServerAddress(n.cfg.Address))
	request := hraft.AppendEntriesRequest{
		RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(n.cfg.ID), Addr: self},
		Term:      term, PrevLogEntry: goal.index, PrevLogTerm: goal.term, LeaderCommitIndex: goal.index,
	}
	var response hraft.AppendEntriesResponse
	if err := n.transport.AppendEntries(hraft.ServerID(to.ID), to.listed(), &request, &response); err != nil {
		return 0, false, err
	}
	return response.LastLog, response.Success && response.Term == term, nil
}
