// Package store owns the cluster's objects: encoded Protobuf bytes in memory with small indexes, changed by transactions
// and read by lists and watches. It knows no Raft and no HTTP: whoever orders the transactions calls Apply, and whoever
// wants one ordered calls a Proposer.
package store

import (
	"context"
	"fmt"
)

// Key names one object. Resource is the plural with its group: "pods", "deployments.apps".
type Key struct {
	Resource  string
	Namespace string // empty for cluster-scoped objects
	Name      string
}

func (k Key) String() string {
	if k.Namespace == "" {
		return k.Resource + "/" + k.Name
	}
	return k.Resource + "/" + k.Namespace + "/" + k.Name
}

// Item is one stored object: its Protobuf bytes, with an empty resourceVersion inside, and the revision of its last
// change. Items are immutable and shared by all readers.
type Item struct {
	Key      Key
	Revision uint64
	Value    []byte
}

// Any and Absent are the expected revisions with a meaning of their own; any other value is the exact revision that the
// object must have for the transaction to commit.
const (
	Absent uint64 = 0
	Any    uint64 = ^uint64(0)
)

// Op puts (Value set) or deletes (Value nil) one object, if its revision is the expected one.
type Op struct {
	Key    Key
	Value  []byte
	Expect uint64
}

// Txn is a list of operations that commit together, at one revision, or not at all. A transaction touches at most one
// object of each resource: a watch resumes after a revision, so two events of one resource at one revision could be cut apart.
type Txn struct {
	Ops []Op
}

// Proposer orders a transaction, waits until it is durable and applied to the local store, and returns its revision.
// Errors: *ConflictError when an expectation fails; ErrNotLeader (wrapped, with the leader's address) away from the leader.
type Proposer interface {
	Propose(ctx context.Context, txn Txn) (revision uint64, err error)
}

// ConflictError says which operation's expectation failed, and what is there.
type ConflictError struct {
	Key    Key
	Expect uint64
	Have   uint64 // Absent when there is no such object
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("store: %s: expected revision %d, have %d", e.Key, e.Expect, e.Have)
}

// EventType is the kind of change that an Event tells.
type EventType int

const (
	Added EventType = iota + 1
	Modified
	Deleted
)

// Event is one change. For Deleted, Item holds the last value and the revision of the deletion. Prev is the value before the
// change (nil for Added) and PrevRevision its revision, so that a watcher with a selector can tell an object that enters or leaves
// it, and the past can be listed.
type Event struct {
	Type         EventType
	Item         Item
	Prev         []byte
	PrevRevision uint64
}
