// Package pki owns the cluster's trust: its certificate authority, the certificates that say who is who, the join tokens that
// let a new device in, and the one port that tells protocols apart before a byte of them is read.
//
// Boards have no battery clock, so certificates begin in 2020, and a clock that stands before the floor below counts as the
// floor: a board that wakes in 1970 can still talk to its peers.
package pki

import "time"

// Floor is the earliest time that a working clock can show: nothing was issued before it.
var Floor = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// notBefore is the beginning of every certificate's validity.
var notBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// Now is the time for judging certificates: the clock, or Floor when the clock stands before it.
func Now() time.Time {
	if now := time.Now(); now.After(Floor) {
		return now
	}
	return Floor
}
