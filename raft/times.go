package raft

import (
	"fmt"
	"time"

	hraft "github.com/hashicorp/raft"
)

// Times are a trade between noticing a death soon and being quiet when idle. The library has one heartbeat timeout for two
// uses: a follower waits that long for its leader, and a leader sends a heartbeat every tenth of it, up to twice that. A
// node therefore sets it by its role:
//
//	                                     of the election timeout    with the default of 500 ms
//	a leader sends heartbeats every         7/10 to 7/5                 350 to 700 ms
//	a leader without a quorum gives up after      2                     1 s; a new follower waits as long, up to twice that
//	any other follower waits                    12/5                    1.2 s, up to twice that
//	a follower surely hears of a commit after     4                     2 to 4 s
//
// Suspicion makes a crashed process cost less than a lost device, and the announcer tells followers of a commit at once; so
// neither needs frequent messages.

func (n *Node) times() hraft.ReloadableConfig {
	wait := n.cfg.ElectionTimeout * 12 / 5
	if n.OnProbation() {
		wait = never // it must not stand for election
	}
	return hraft.ReloadableConfig{
		TrailingLogs: n.trailing.Load(), SnapshotInterval: never, SnapshotThreshold: 1, HeartbeatTimeout: wait, ElectionTimeout: wait,
	}
}

func (n *Node) leaseTimeout() time.Duration { return 2 * n.cfg.ElectionTimeout }

// setTimes sets all times of a node that starts.
func (n *Node) setTimes(conf *hraft.Config) {
	times := n.times()
	conf.TrailingLogs = times.TrailingLogs
	conf.SnapshotInterval = times.SnapshotInterval
	conf.SnapshotThreshold = times.SnapshotThreshold
	conf.HeartbeatTimeout, conf.ElectionTimeout = times.HeartbeatTimeout, times.ElectionTimeout
	if !n.OnProbation() { // nobody leads yet, as far as a new follower knows
		conf.HeartbeatTimeout, conf.ElectionTimeout = n.leaseTimeout(), n.leaseTimeout()
	}
	conf.LeaderLeaseTimeout = n.leaseTimeout()
	conf.CommitTimeout = 4 * n.cfg.ElectionTimeout
}

// retime fits the times to the node's present role.
func (n *Node) retime() error {
	n.retiming.Lock()
	defer n.retiming.Unlock()
	times := n.times()
	if n.IsLeader() {
		times.HeartbeatTimeout = 7 * n.cfg.ElectionTimeout
		times.ElectionTimeout = times.HeartbeatTimeout
	}
	if err := n.raft.ReloadConfig(times); err != nil {
		return fmt.Errorf("set the heartbeat timeout: %w", err)
	}
	return nil
}
