//go:build shoal_nosync

package raft

// forgetful makes the log say that it has stored what the disk may not have: a bug, built on purpose, to show that
// test/powercut finds it.
const forgetful = true
