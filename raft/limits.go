//go:build !shoal_failpoints

package raft

const (
	defaultCheckpointEntries = 2048
	defaultTrailingLogs      = 1024
)
