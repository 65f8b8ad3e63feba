package tokens

import (
	"encoding/base64"
	"fmt"
)

// Discovery is the OpenID Connect discovery document, by which others learn to check tokens.
type Discovery struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	SigningAlgs   []string `json:"id_token_signing_alg_values_supported"`
}

// KeySet is a JSON Web Key Set (RFC 7517).
type KeySet struct {
	Keys []PublicKey `json:"keys"`
}

// PublicKey is one key of a KeySet.
type PublicKey struct {
	Use string `json:"use"`
	Kty string `json:"kty"`
	Kid string `json:"kid"`
	Crv string `json:"crv"`
	Alg string `json:"alg"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

// Discover tells where the keys are.
func Discover(jwksURI string) Discovery {
	return Discovery{
		Issuer: Issuer, JWKSURI: jwksURI,
		ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"}, SigningAlgs: []string{"ES256"},
	}
}

// KeySet returns the public keys of the tokens that count.
func (a *Authority) KeySet() (KeySet, error) {
	keys, err := a.believed()
	if err != nil {
		return KeySet{}, err
	}
	var set KeySet
	for _, k := range keys {
		point, err := k.private.PublicKey.Bytes() // 4, X, Y
		if err != nil {
			return KeySet{}, fmt.Errorf("tokens: the public key: %w", err)
		}
		half := (len(point) - 1) / 2
		set.Keys = append(set.Keys, PublicKey{
			Use: "sig", Kty: "EC", Kid: k.id, Crv: "P-256", Alg: "ES256",
			X: base64.RawURLEncoding.EncodeToString(point[1 : 1+half]), Y: base64.RawURLEncoding.EncodeToString(point[1+half:]),
		})
	}
	return set, nil
}
