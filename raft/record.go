package raft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/shoal-edge/shoal/store"
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
		b = appendBytes(b, op.Key.Resource)
		b = appendBytes(b, op.Key.Namespace)
		b = appendBytes(b, op.Key.Name)
		if flags&flagAny == 0 {
			b = binary.AppendUvarint(b, op.Expect)
		}
		if flags&flagDelete == 0 {
			b = appendBytes(b, op.Value)
		}
	}
	return b
}

func appendBytes[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
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
	r := reader{rest: b[1:]}
	count := r.uvarint()
	if count > uint64(len(b)) {
		return store.Txn{}, fmt.Errorf("%w: %d operations", errRecord, count)
	}
	txn := store.Txn{Ops: make([]store.Op, 0, count)}
	for range count {
		flags := r.byte()
		if flags&^knownFlags != 0 {
			return store.Txn{}, fmt.Errorf("%w: unknown flags %#x", errRecord, flags)
		}
		op := store.Op{Key: store.Key{Resource: r.string(), Namespace: r.string(), Name: r.string()}, Expect: store.Any}
		if flags&flagAny == 0 {
			op.Expect = r.uvarint()
		}
		if flags&flagDelete == 0 {
			op.Value = r.bytes()
			if count > 1 {
				op.Value = append([]byte{}, op.Value...)
			}
		}
		txn.Ops = append(txn.Ops, op)
	}
	if r.bad || len(r.rest) > 0 {
		return store.Txn{}, fmt.Errorf("%w: wrong length", errRecord)
	}
	return txn, nil
}

// reader takes values off a buffer; after the first that is not there it returns zeros and says so in bad.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// count reads how many things follow, of a byte at least each.
func (r *reader) count() uint64 {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return 0
	}
	return n
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (r *reader) bytes() []byte {
	if b := r.take(r.uvarint()); b != nil {
		return b
	}
	return []byte{}
}

func (r *reader) string() string { return string(r.bytes()) }
