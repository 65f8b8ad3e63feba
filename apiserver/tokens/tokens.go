// Package tokens owns the tokens of service accounts: signed JSON Web Tokens (RFC 7519) that name an account, who may be shown them
// (the audiences), when they end, and the object that they live and die with. Nothing is stored of a token: what it names is looked
// up whenever it is shown.
package tokens

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/store"
)

// Issuer is who issues the tokens, and also the audience of those for the API itself.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// GenerationsName is the ConfigMap, in kube-system, that tells which generations of the key count: "signing" signs, and those from
// "oldest" on are believed. Without it there is the first.
const GenerationsName = "shoal-token-keys"

const (
	signingKey = "signing"
	oldestKey  = "oldest"
	// maxGenerations bounds how many keys are believed at a time.
	maxGenerations = 8
)

// Config configures an Authority.
type Config struct {
	// Store holds the accounts and what tokens are bound to.
	Store *store.Store
	// Key returns the key of a generation, the same at every server.
	Key func(generation int) (*ecdsa.PrivateKey, error)
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Authority issues tokens and checks them. It is safe for concurrent use.
type Authority struct {
	cfg       Config
	verifying chan struct{} // bounds the signatures that are checked at once

	mu       sync.Mutex
	keys     map[int]*key
	verified map[[sha256.Size]byte]*claims // signatures that were right, by the hash of the token
}

// key is one generation's.
type key struct {
	id      string
	private *ecdsa.PrivateKey
}

// Limits of what callers may cost.
const (
	maxVerifying = 4
	maxVerified  = 512
	maxToken     = 8 << 10
)

// New returns an authority.
func New(cfg Config) *Authority {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Authority{
		cfg: cfg, verifying: make(chan struct{}, maxVerifying),
		keys: map[int]*key{}, verified: map[[sha256.Size]byte]*claims{},
	}
}

// generations returns which keys count.
func (a *Authority) generations() (signing, oldest int) {
	signing, oldest = 1, 1
	if c, ok := store.Get[corev1.ConfigMap](a.cfg.Store, metav1.NamespaceSystem, GenerationsName); ok {
		if n, err := strconv.Atoi(c.Data[signingKey]); err == nil && n >= 1 {
			signing = n
		}
		if n, err := strconv.Atoi(c.Data[oldestKey]); err == nil && n >= 1 {
			oldest = n
		}
	}
	return signing, min(max(oldest, signing-maxGenerations+1), signing)
}

// key returns the key of a generation, which is made once.
func (a *Authority) key(generation int) (*key, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := a.keys[generation]; k != nil {
		return k, nil
	}
	private, err := a.cfg.Key(generation)
	if err != nil {
		return nil, fmt.Errorf("tokens: the key of generation %d: %w", generation, err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("tokens: the key of generation %d: %w", generation, err)
	}
	sum := sha256.Sum256(der)
	if len(a.keys) >= 2*maxGenerations {
		clear(a.keys)
	}
	k := &key{id: base64.RawURLEncoding.EncodeToString(sum[:]), private: private}
	a.keys[generation] = k
	return k, nil
}

// believed lists the keys whose signatures count, the signing one first.
func (a *Authority) believed() ([]*key, error) {
	signing, oldest := a.generations()
	var all []*key
	for generation := signing; generation >= oldest; generation-- {
		k, err := a.key(generation)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}
