package raft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/uvarint"
)

// A record is a transaction as it stands in the log:
//
//	version byte, number of operations, then for each: flags byte, resource, namespace, name, expected revision unless the
//	flags say any, value unless the flags say delete. Numbers are uvarints; strings and values carry their length.
//
// A new version gets a new version byte; an unknown one stops the server, because skipping it would let the states differ.
const recordVersion = 1

const (
	flagDelete = 1 << iota
	flagAny
	knownFlags = flagDelete | flagAny
)

var errRecord = errors.New("malformed record")

func encodeTxn(txn store.Txn) []byte {
	size := 1 + binary.MaxVarintLen64
	for _, op := range txn.Ops {
		size += 1 + 5*binary.MaxVarintLen64 + len(op.Key.Resource) + len(op.Key.Namespace) + len(op.Key.Name) + len(op.Value)
	}
	b := append(make([]byte, 0, size), recordVersion)
	b = binary.AppendUvarint(b, uint64(len(txn.Ops)))
	for _, op := range txn.Ops {
		var flags byte
		if op.Value == nil {
			flags |= flagDelete
		}
		if op.Expect == store.Any {
			flags |= flagAny
		}
		b = append(b, flags)
		b = uvarint.Append(b, op.Key.Resource)
		b = uvarint.Append(b, op.Key.Namespace)
		b = uvarint.Append(b, op.Key.Name)
		if flags&flagAny == 0 {
			b = binary.AppendUvarint(b, op.Expect)
		}
		if flags&flagDelete == 0 {
			b = uvarint.Append(b, op.Value)
		}
	}
	return b
}

// decodeTxn reads a record. The values share its memory, unless there are several: then each is on its own, so that one
// small object does not keep a large neighbour alive.
func decodeTxn(b []byte) (store.Txn, error) {
	if len(b) == 0 {
		return store.Txn{}, fmt.Errorf("%w: empty", errRecord)
	}
	if b[0] != recordVersion {
		return store.Txn{}, fmt.Errorf("%w: unknown version %d: this shoal is too old for its peers, upgrade it", errRecord, b[0])
	}
	r := uvarint.Reader{Rest: b[1:]}
	count := r.Uvarint()
	if count > uint64(len(b)) {
		return store.Txn{}, fmt.Errorf("%w: %d operations", errRecord, count)
	}
	txn := store.Txn{Ops: make([]store.Op, 0, count)}
	for range count {
		flags := r.Byte()
		if flags&^knownFlags != 0 {
			return store.Txn{}, fmt.Errorf("%w: unknown flags %#x", errRecord, flags)
		}
		op := store.Op{Key: store.Key{Resource: r.String(), Namespace: r.String(), Name: r.String()}, Expect: store.Any}
		if flags&flagAny == 0 {
			op.Expect = r.Uvarint()
		}
		if flags&flagDelete == 0 {
			op.Value = r.Bytes()
			if count > 1 {
				op.Value = append([]byte{}, op.Value...)
			}
		}
		txn.Ops = append(txn.Ops, op)
	}
	if r.Bad || len(r.Rest) > 0 {
		return store.Txn{}, fmt.Errorf("%w: wrong length", errRecord)
	}
	return txn, nil
}
