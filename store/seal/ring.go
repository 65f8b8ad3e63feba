package seal

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ID names a key. It is made of the key, so that one cannot be taken for another, and tells nothing about it.
type ID string

// idSize is the size of an ID in a sealed value, in bytes; its text form is twice as long.
const idSize = 8

const keySize = 32

// Key is one key of a Ring.
type Key struct {
	ID ID `json:"id"`
	// Generation counts the keys: a value of a lower generation than the primary key's is to be sealed anew.
	Generation uint64 `json:"generation"`
	// Active says that the key may encrypt: every server has it.
	Active  bool      `json:"active"`
	Created time.Time `json:"created"`
	Secret  []byte    `json:"secret"`
}

// String keeps the secret out of texts.
func (k Key) String() string { return string(k.ID) }

// GoString does too.
func (k Key) GoString() string { return string(k.ID) }

// Ring is a set of keys. It is a value: what changes it makes another one. Servers that merge their rings, in any order and any
// number of times, come to have the same: keys and their activation are only ever added, and a key that was dropped stays so.
type Ring struct {
	keys    []Key // by generation, then by ID
	dropped []ID  // sorted
}

// String keeps the secrets out of texts.
func (r Ring) String() string { return fmt.Sprintf("%v, without %v", r.keys, r.dropped) }

// file is a ring's form in a file and between servers.
type file struct {
	Version int   `json:"version"`
	Keys    []Key `json:"keys"`
	Dropped []ID  `json:"dropped,omitempty"`
}

const fileVersion = 1

// maxKeys bounds a ring: who rotates more often than he drops should be told. Merged rings may have a few more, and a file or a
// message is believed up to maxParsed.
const (
	maxKeys   = 64
	maxParsed = 4 * maxKeys
)

// NewRing makes a ring of one fresh, active key.
func NewRing(now time.Time) (Ring, error) {
	r, id, err := Ring{}.Stage(now)
	if err != nil {
		return Ring{}, err
	}
	return r.Activate(id)
}

// Parse reads a ring.
func Parse(data []byte) (Ring, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return Ring{}, fmt.Errorf("it is no keyring: %w", err)
	}
	if f.Version != fileVersion {
		return Ring{}, fmt.Errorf("it is a keyring of the unknown version %d", f.Version)
	}
	if len(f.Keys) > maxParsed {
		return Ring{}, fmt.Errorf("it has %d keys, more than %d", len(f.Keys), maxParsed)
	}
	for _, k := range f.Keys {
		if len(k.Secret) != keySize || k.ID != idOf(k.Secret) || k.Generation == 0 {
			return Ring{}, fmt.Errorf("the key %q is damaged", k.ID)
		}
	}
	r := Ring{}.Merge(Ring{keys: f.Keys, dropped: f.Dropped})
	if len(r.keys) == 0 {
		return Ring{}, errors.New("it has no keys")
	}
	return r, nil
}

// Marshal is the form that Parse reads. It is secret.
func (r Ring) Marshal() ([]byte, error) {
	data, err := json.MarshalIndent(file{Version: fileVersion, Keys: r.keys, Dropped: r.dropped}, "", "  ")
	return append(data, '\n'), err
}

// Merge has all that one of the two rings has.
func (r Ring) Merge(other Ring) Ring {
	out := Ring{dropped: slices.Concat(r.dropped, other.dropped)}
	slices.Sort(out.dropped)
	out.dropped = slices.Compact(out.dropped)
	for _, k := range slices.Concat(r.keys, other.keys) {
		at := slices.IndexFunc(out.keys, func(have Key) bool { return have.ID == k.ID })
		switch {
		case slices.Contains(out.dropped, k.ID):
		case at < 0:
			out.keys = append(out.keys, k)
		default:
			have := &out.keys[at]
			have.Active = have.Active || k.Active
			have.Generation = max(have.Generation, k.Generation)
		}
	}
	slices.SortFunc(out.keys, compareKeys)
	return out
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.ID, b.ID))
}

// Equal reports whether two rings have the same keys in the same state.
func (r Ring) Equal(other Ring) bool {
	return slices.Equal(r.dropped, other.dropped) && slices.EqualFunc(r.keys, other.keys, func(a, b Key) bool {
		return a.ID == b.ID && a.Generation == b.Generation && a.Active == b.Active
	})
}

// Keys lists the keys, the oldest first.
func (r Ring) Keys() []Key { return slices.Clone(r.keys) }

// Primary is the key that encrypts: the newest active one.
func (r Ring) Primary() (Key, bool) {
	for _, k := range slices.Backward(r.keys) {
		if k.Active {
			return k, true
		}
	}
	return Key{}, false
}

// Staged is the newest key, if it is not active yet.
func (r Ring) Staged() (ID, bool) {
	if n := len(r.keys); n > 0 && !r.keys[n-1].Active {
		return r.keys[n-1].ID, true
	}
	return "", false
}

// Has reports whether the ring has a key.
func (r Ring) Has(id ID) bool {
	_, ok := r.key(id)
	return ok
}

// Dropped reports whether the ring had a key once.
func (r Ring) Dropped(id ID) bool { return slices.Contains(r.dropped, id) }

func (r Ring) key(id ID) (Key, bool) {
	for _, k := range r.keys {
		if k.ID == id {
			return k, true
		}
	}
	return Key{}, false
}

// Stage adds a fresh key that does not encrypt yet.
func (r Ring) Stage(now time.Time) (Ring, ID, error) {
	if len(r.keys) >= maxKeys {
		return r, "", fmt.Errorf("there are %d keys already: drop the old ones", len(r.keys))
	}
	secret := make([]byte, keySize)
	_, _ = rand.Read(secret) // never fails
	k := Key{ID: idOf(secret), Generation: 1, Created: now.UTC().Truncate(time.Second), Secret: secret}
	if n := len(r.keys); n > 0 {
		k.Generation = r.keys[n-1].Generation + 1
	}
	return r.Merge(Ring{keys: []Key{k}}), k.ID, nil
}

// Activate lets a key encrypt.
func (r Ring) Activate(id ID) (Ring, error) {
	k, ok := r.key(id)
	if !ok {
		return r, fmt.Errorf("there is no key %s", id)
	}
	k.Active = true
	return r.Merge(Ring{keys: []Key{k}}), nil
}

// DropOld takes all keys away that are older than the primary one, for good, and lists them.
func (r Ring) DropOld() (Ring, []ID) {
	primary, ok := r.Primary()
	if !ok {
		return r, nil
	}
	var old []ID
	for _, k := range r.keys {
		if k.ID != primary.ID && compareKeys(k, primary) < 0 {
			old = append(old, k.ID)
		}
	}
	return r.Merge(Ring{dropped: old}), old
}

func idOf(secret []byte) ID {
	sum := sha256.Sum256(append([]byte("shoal: the name of a key\n"), secret...))
	return ID(hex.EncodeToString(sum[:idSize]))
}
