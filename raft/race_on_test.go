//go:build race

package raft

import "testing"

// movesAServer begins a test in which a server's address changes while the leader speaks with it. hashicorp/raft v1.8.0 reads a peer's name there
// without the lock under which it replaces name and address (updateLastAppended, replication.go:660). The name is the same before and
// after, so nothing comes of it, but the race detector is right to say so. Without it these tests run.
func movesAServer(t *testing.T) {
	t.Skip("hashicorp/raft replaces a peer's address under a lock that it does not take to read the name")
}
