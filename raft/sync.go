//go:build !shoal_nosync

package raft

// forgetful is false: what the log has taken is on the disk. Only the build that test/powercut must catch lies.
const forgetful = false
