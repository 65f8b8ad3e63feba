package pki

import (
	"crypto/ecdsa"
	"testing"
)

func TestDerive(t *testing.T) {
	one, two := must[*CA](t)(NewCA()), must[*CA](t)(NewCA())
	first, again := mustKey(t, one, "tokens/1"), mustKey(t, one, "tokens/1")
	if !first.Equal(again) {
		t.Error("another server comes to another key")
	}
	if first.Equal(mustKey(t, one, "tokens/2")) || first.Equal(mustKey(t, two, "tokens/1")) || first.Equal(one.key) {
		t.Error("another purpose or another authority must have another key")
	}
}

func mustKey(t *testing.T, ca *CA, purpose string) *ecdsa.PrivateKey {
	t.Helper()
	return must[*ecdsa.PrivateKey](t)(ca.Derive(purpose))
}
