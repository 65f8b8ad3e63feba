package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
)

// A sealed value is: version byte, key's ID, nonce, ciphertext with its tag. The first two are authenticated too.
const (
	sealedVersion = 1
	headerSize    = 1 + idSize
)

// Why a value does not open.
var (
	ErrNoKeys     = errors.New("this server has no keys yet")
	ErrUnknownKey = errors.New("this server does not have its key")
	errDamaged    = errors.New("its ciphertext is damaged, or it was moved here from another place")
)

// Keyring seals and opens with a Ring that can be replaced at any time. Its zero value has no keys.
type Keyring struct {
	now atomic.Pointer[armed]
}

// armed is a ring with its ciphers made.
type armed struct {
	ring    Ring
	ciphers map[ID]cipher.AEAD
	primary Key
	ready   bool // there is a primary key
}

// Set replaces the ring.
func (k *Keyring) Set(r Ring) error {
	a := &armed{ring: r, ciphers: map[ID]cipher.AEAD{}}
	for _, key := range r.keys {
		block, err := aes.NewCipher(key.Secret)
		if err != nil {
			return err
		}
		if a.ciphers[key.ID], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return err
		}
	}
	a.primary, a.ready = r.Primary()
	k.now.Store(a)
	return nil
}

// Ring is the present ring.
func (k *Keyring) Ring() Ring {
	if a := k.now.Load(); a != nil {
		return a.ring
	}
	return Ring{}
}

// Seal encrypts with the primary key.
func (k *Keyring) Seal(plain, additional []byte) ([]byte, error) {
	a := k.now.Load()
	if a == nil || !a.ready {
		return nil, ErrNoKeys
	}
	aead := a.ciphers[a.primary.ID]
	out := make([]byte, 0, headerSize+len(plain)+aead.Overhead())
	out, err := hex.AppendDecode(append(out, sealedVersion), []byte(a.primary.ID))
	if err != nil {
		return nil, err
	}
	return aead.Seal(out, nil, plain, bind(out, additional)), nil
}

// Open decrypts with the key that the value names.
func (k *Keyring) Open(sealed, additional []byte) ([]byte, error) {
	id, err := KeyOf(sealed)
	if err != nil {
		return nil, err
	}
	a := k.now.Load()
	if a == nil {
		return nil, ErrNoKeys
	}
	aead := a.ciphers[id]
	if aead == nil {
		return nil, fmt.Errorf("%w %s", ErrUnknownKey, id)
	}
	plain, err := aead.Open(nil, nil, sealed[headerSize:], bind(sealed[:headerSize], additional))
	if err != nil {
		return nil, errDamaged
	}
	return plain, nil
}

// Check reports whether a value is of an older key than the primary one.
func (k *Keyring) Check(sealed []byte) (stale bool, err error) {
	id, err := KeyOf(sealed)
	if err != nil {
		return false, err
	}
	a := k.now.Load()
	if a == nil {
		return false, ErrNoKeys
	}
	key, ok := a.ring.key(id)
	if !ok {
		return false, fmt.Errorf("%w %s", ErrUnknownKey, id)
	}
	return a.ready && compareKeys(key, a.primary) < 0, nil
}

// KeyOf reads which key a value was sealed with.
func KeyOf(sealed []byte) (ID, error) {
	if len(sealed) < headerSize {
		return "", errDamaged
	}
	if sealed[0] != sealedVersion {
		return "", fmt.Errorf("it is encrypted in the unknown way %d: this shoal is too old", sealed[0])
	}
	return ID(hex.EncodeToString(sealed[1:headerSize])), nil
}

// bind makes the additional data of a value: its header and the caller's.
func bind(header, additional []byte) []byte {
	return append(append(make([]byte, 0, headerSize+len(additional)), header...), additional...)
}
