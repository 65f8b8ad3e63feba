//go:build shoal_failpoints

package raft

// A test build writes checkpoints often and keeps a short log, so that faults meet checkpoints, and followers that were away a
// moment get one.
const (
	defaultCheckpointEntries = 192
	defaultTrailingLogs      = 48
)
