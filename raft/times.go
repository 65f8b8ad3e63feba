package raft

import (
	"fmt"
	"time"

	hraft "github.com/hashicorp/raft"
)

// The library has one heartbeat timeout for two uses: a follower waits that long for its leader, and a leader sends a
// heartbeat every tenth of it (up to twice that). A node therefore has it short as a follower, to notice a death soon, and
// longer as a leader, to be quiet when idle.
//
// With the default of 500 ms a follower gives up on its leader after 300 ms and a leader sends every 75 to 150 ms.

// setTimes sets all times of a follower's configuration.
func (n *Node) setTimes(conf *hraft.Config) {
	conf.HeartbeatTimeout = n.followerTimeout()
	conf.ElectionTimeout = n.followerTimeout()
	conf.LeaderLeaseTimeout = n.followerTimeout()
	conf.CommitTimeout = n.cfg.ElectionTimeout / 10
}

func (n *Node) followerTimeout() time.Duration { return n.cfg.ElectionTimeout * 3 / 5 }

func (n *Node) leaderTimeout() time.Duration { return n.cfg.ElectionTimeout * 3 / 2 }

// retime fits the heartbeat timeout to the node's role.
func (n *Node) retime(leading bool) error {
	conf := n.raft.ReloadableConfig()
	conf.HeartbeatTimeout = n.followerTimeout()
	if leading {
		conf.HeartbeatTimeout = n.leaderTimeout()
	}
	conf.ElectionTimeout = conf.HeartbeatTimeout
	if err := n.raft.ReloadConfig(conf); err != nil {
		return fmt.Errorf("set the heartbeat timeout: %w", err)
	}
	return nil
}
