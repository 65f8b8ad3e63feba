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
//	a leader sends heartbeats every           3/10 to 3/5               150 to 300 ms
//	a leader without a quorum gives up after     17/20                     425 ms
//	a follower that suspects its leader waits    17/20                     425 ms, up to twice that; so does a new one
//	any other follower waits                     8/5                       800 ms, up to twice that
//	a follower surely hears of a commit after     2                       1 to 2 s
//
// Suspicion makes a crashed process cost less than a lost device, and the announcer tells followers of a commit at once; so
// neither needs frequent messages.

func (n *Node) times() hraft.ReloadableConfig {
	return hraft.ReloadableConfig{
		TrailingLogs: n.trailing.Load(), SnapshotInterval: never, SnapshotThreshold: 1,
		HeartbeatTimeout: n.cfg.ElectionTimeout * 8 / 5, ElectionTimeout: n.cfg.ElectionTimeout * 8 / 5,
	}
}

func (n *Node) leaseTimeout() time.Duration { return n.cfg.ElectionTimeout * 17 / 20 }

// setTimes sets all times of a node that starts.
func (n *Node) setTimes(conf *hraft.Config) {
	times := n.times()
	conf.TrailingLogs = times.TrailingLogs
	conf.SnapshotInterval = times.SnapshotInterval
	conf.SnapshotThreshold = times.SnapshotThreshold
	conf.HeartbeatTimeout = n.leaseTimeout() // nobody leads yet, as far as a new follower knows
	conf.ElectionTimeout = n.leaseTimeout()
	conf.LeaderLeaseTimeout = n.leaseTimeout()
	conf.CommitTimeout = 2 * n.cfg.ElectionTimeout
}

// retime fits the times to the node's present role.
func (n *Node) retime(suspicious bool) error {
	n.retiming.Lock()
	defer n.retiming.Unlock()
	times := n.times()
	switch {
	case n.IsLeader():
		times.HeartbeatTimeout = 3 * n.cfg.ElectionTimeout
		times.ElectionTimeout = times.HeartbeatTimeout
	case suspicious:
		times.HeartbeatTimeout, times.ElectionTimeout = n.leaseTimeout(), n.leaseTimeout()
	}
	if err := n.raft.ReloadConfig(times); err != nil {
		return fmt.Errorf("set the heartbeat timeout: %w", err)
	}
	return nil
}
