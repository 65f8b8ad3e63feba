package store

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// OwnerIndex is the index that every kind has: the UID of the controlling owner.
const OwnerIndex = "owner"

// Field numbers of the Kubernetes Protobuf schema.
const (
	objectMetadata  = 1
	metaOwners      = 13
	ownerUID        = 4
	ownerController = 6
)

// controllerUID finds the UID of the controlling owner in an encoded object. It walks over the few fields in question only,
// since every server does this for every write.
func controllerUID(object []byte) string {
	var uid string
	eachField(object, func(number protowire.Number, meta []byte, _ uint64) {
		if number != objectMetadata {
			return
		}
		eachField(meta, func(number protowire.Number, owner []byte, _ uint64) {
			if number != metaOwners {
				return
			}
			var id string
			var controls bool
			eachField(owner, func(number protowire.Number, text []byte, value uint64) {
				switch number {
				case ownerUID:
					id = string(text)
				case ownerController:
					controls = value != 0
				}
			})
			if controls {
				uid = id
			}
		})
	})
	return uid
}

// eachField calls f for every field of a message, with its bytes or its number; it stops at the first malformed one.
func eachField(message []byte, f func(number protowire.Number, data []byte, value uint64)) {
	for len(message) > 0 {
		number, wire, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		message = message[n:]
		var data []byte
		var value uint64
		switch wire {
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(number, wire, message)
		}
		if n < 0 {
			return
		}
		f(number, data, value)
		message = message[n:]
	}
}
