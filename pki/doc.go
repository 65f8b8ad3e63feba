// Package pki owns the cluster's trust: its certificate authority, the certificates that say who is who, the join tokens that
// let a new device in, and the one port that tells protocols apart before a byte of them is read.
//
// Boards have no battery clock, so certificates begin in 2020, and a clock that stands before the floor below counts as the
// floor: a board that wakes in 1970 can still talk to its peers. A clock that is ahead cuts nobody off either: servers are
// believed whatever the time is, and a device whose certificate has ended, by the server's clock, gets a new one for its key.
package pki

import (
	"crypto/x509"
	"fmt"
	"time"
)

// Floor is the earliest time that a working clock can show: nothing was issued before it.
var Floor = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// notBefore is the beginning of every certificate's validity.
var notBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// expired reports whether a certificate has ended. Those of the control plane do not end: a server has the authority's key, so
// an end keeps no thief out, and a witness gets nothing but votes, which go by the list of members. So no device is cut off by
// its own clock, which may be years ahead.
func expired(leaf *x509.Certificate) error {
	_, isServer := ServerName(leaf)
	_, isWitness := WitnessName(leaf)
	if isServer || isWitness || !Now().After(leaf.NotAfter) {
		return nil
	}
	return fmt.Errorf("the certificate of %q ended on %s", leaf.Subject.CommonName, leaf.NotAfter.UTC().Format(time.DateOnly))
}

// aFixedTime is within the life of every member's certificate. TLS stacks judge by it, which leaves the end of one to expired.
func aFixedTime() time.Time { return Floor }

// Now is the time for judging certificates: the clock, or Floor when the clock stands before it.
func Now() time.Time {
	if now := time.Now(); now.After(Floor) {
		return now
	}
	return Floor
}
