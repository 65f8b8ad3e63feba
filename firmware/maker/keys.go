package maker

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/shoal-edge/shoal/durable"
)

// Key is an Ed25519 key of a release's makers.
type Key struct {
	ID      string // TUF's: the hash of the public key
	public  *metadata.Key
	private ed25519.PrivateKey // nil where only the public half is at hand
}

// Whole reports whether the key can sign.
func (k *Key) Whole() bool { return k.private != nil }

// The blocks of key files.
const (
	privateBlock = "PRIVATE KEY" // PKCS #8
	publicBlock  = "PUBLIC KEY"  // PKIX
)

// NewKey makes a key: the private half at path, for its owner only, and the public one at path.pub. It overwrites nothing.
func NewKey(path string) (*Key, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	open, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{path, path + ".pub"} {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%s is there already, and a key that is overwritten is lost: name another", name)
		}
	}
	if err := durable.Write(path, pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: secret}), 0o600); err != nil {
		return nil, err
	}
	if err := durable.Write(path+".pub", pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: open}), 0o644); err != nil {
		return nil, err
	}
	return newKey(public, private)
}

func newKey(public ed25519.PublicKey, private ed25519.PrivateKey) (*Key, error) {
	k, err := metadata.KeyFromPublicKey(public)
	if err != nil {
		return nil, err
	}
	id, err := k.ID()
	if err != nil {
		return nil, err
	}
	return &Key{ID: id, public: k, private: private}, nil
}

// LoadKey reads either half of a key.
func LoadKey(path string) (*Key, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is no key in PEM form", path)
	}
	var parsed any
	switch block.Type {
	case privateBlock:
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case publicBlock:
		parsed, err = x509.ParsePKIXPublicKey(block.Bytes)
	default:
		err = fmt.Errorf("it is a %s", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch k := parsed.(type) {
	case ed25519.PrivateKey:
		return newKey(k.Public().(ed25519.PublicKey), k)
	case ed25519.PublicKey:
		return newKey(k, nil)
	}
	return nil, fmt.Errorf("%s: keys are Ed25519, and this is another", path)
}

// LoadKeys reads several.
func LoadKeys(paths []string) ([]*Key, error) {
	var all []*Key
	for _, path := range paths {
		k, err := LoadKey(path)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}

// signBy signs with those of the keys that a role has and whose private half is at hand, and returns how many those were.
func signBy[T metadata.Roles](m *metadata.Metadata[T], root *metadata.Metadata[metadata.RootType], role string, keys []*Key) (n int, err error) {
	m.ClearSignatures()
	return addSignatures(m, root, role, keys)
}

// addSignatures adds those that are not there yet.
func addSignatures[T metadata.Roles](
	m *metadata.Metadata[T], root *metadata.Metadata[metadata.RootType], role string, keys []*Key,
) (n int, err error) {
	for _, k := range keys {
		if k.private == nil || !has(root, role, k.ID) || signed(m, k.ID) {
			continue
		}
		signer, err := signature.LoadSigner(k.private, crypto.Hash(0))
		if err != nil {
			return n, err
		}
		if _, err := m.Sign(signer); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func has(root *metadata.Metadata[metadata.RootType], role, id string) bool {
	r := root.Signed.Roles[role]
	if r == nil {
		return false
	}
	for _, known := range r.KeyIDs {
		if known == id {
			return true
		}
	}
	return false
}

func signed[T metadata.Roles](m *metadata.Metadata[T], id string) bool {
	for _, s := range m.Signatures {
		if s.KeyID == id {
			return true
		}
	}
	return false
}
