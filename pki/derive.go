package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// Derive makes a key for a purpose of the authority's own key. Every server has that one, so all of them come to the same, and there
// is nothing more to keep or to hand out. The way back does not exist: who learns a derived key learns no other.
func (ca *CA) Derive(purpose string) (*ecdsa.PrivateKey, error) {
	secret, err := ca.key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("derive a key for %s: %w", purpose, err)
	}
	curve := elliptic.P256()
	for attempt := range 8 { // the first one does, but for one purpose in four billion
		scalar, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("shoal/%s/%d", purpose, attempt), 32)
		if err != nil {
			return nil, fmt.Errorf("derive a key for %s: %w", purpose, err)
		}
		if key, err := ecdsa.ParseRawPrivateKey(curve, scalar); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("derive a key for %s: no attempt gave a key of the curve", purpose)
}
