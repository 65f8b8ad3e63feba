package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Token lets one role join. Its text is shoal1.CAHASH.ID.SECRET: whoever holds it can tell the right cluster from a wrong
// one before it says anything.
type Token struct {
	CAHash string // hexadecimal SHA-256 of the CA certificate
	ID     string // names the Secret that knows the token
	Secret string
}

// The fields of a token's Secret. Only the hash of the secret part is stored.
const (
	TokenSecretType = corev1.SecretTypeBootstrapToken

	tokenNamePrefix  = "bootstrap-token-"
	fieldID          = "token-id"
	fieldHash        = "token-secret-sha256"
	fieldRole        = "role"
	fieldExpiration  = "expiration"
	fieldDescription = "description"
)

var (
	tokenPattern = regexp.MustCompile(`^shoal1\.([0-9a-f]{64})\.([a-z0-9]{6})\.([a-z2-7]{26})$`)
	lowerBase32  = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
)

// NewToken makes a token for the cluster with the given CA hash: 128 bits of secret.
func NewToken(caHash string) (Token, error) {
	var raw [20]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return Token{}, err
	}
	return Token{CAHash: caHash, ID: lowerBase32.EncodeToString(raw[:4])[:6], Secret: lowerBase32.EncodeToString(raw[4:])}, nil
}

// ParseToken reads a token's text.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Token{}, errors.New("the join token is empty; print one with 'shoal token create' on a server")
	}
	m := tokenPattern.FindStringSubmatch(text)
	if m == nil {
		return Token{}, errors.New("the join token is malformed (want shoal1.CAHASH.ID.SECRET); copy the whole line that 'shoal token create' printed")
	}
	return Token{CAHash: m[1], ID: m[2], Secret: m[3]}, nil
}

// String is the token's text: a secret.
func (t Token) String() string { return "shoal1." + t.CAHash + "." + t.ID + "." + t.Secret }

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.ID) }

// TokenSecretName is the name, in kube-system, of the Secret of a token.
func TokenSecretName(id string) string { return tokenNamePrefix + id }

// NewTokenSecret is the Secret that makes a token valid until expiration (zero: for ever).
func NewTokenSecret(t Token, role Role, expiration time.Time, description string) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: TokenSecretName(t.ID)},
		Type:       TokenSecretType,
		Data: map[string][]byte{
			fieldID:   []byte(t.ID),
			fieldHash: []byte(secretHash(t.Secret)),
			fieldRole: []byte(role),
		},
	}
	if !expiration.IsZero() {
		s.Data[fieldExpiration] = []byte(expiration.UTC().Format(time.RFC3339))
	}
	if description != "" {
		s.Data[fieldDescription] = []byte(description)
	}
	return s
}

// TokenInfo is what a token's Secret tells, without the secret.
type TokenInfo struct {
	ID          string    `json:"id"`
	Role        Role      `json:"role"`
	Expiration  time.Time `json:"expiration,omitzero"`
	Description string    `json:"description,omitempty"`
}

// ReadTokenSecret reads a Secret of NewTokenSecret.
func ReadTokenSecret(s *corev1.Secret) (TokenInfo, error) {
	info := TokenInfo{ID: string(s.Data[fieldID]), Role: Role(s.Data[fieldRole]), Description: string(s.Data[fieldDescription])}
	if text := string(s.Data[fieldExpiration]); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return info, fmt.Errorf("secret %s: expiration: %w", s.Name, err)
		}
		info.Expiration = at
	}
	return info, nil
}

// Why a token does not let a device in.
var (
	ErrTokenUnknown = errors.New("the join token is not known to this cluster; make a new one with 'shoal token create'")
	ErrTokenExpired = errors.New("the join token has expired; make a new one with 'shoal token create'")
	ErrTokenRole    = errors.New("the join token is for another role; make one with 'shoal token create --role'")
)

// CheckToken compares a presented secret with the stored one, in constant time, and checks role and expiration.
func CheckToken(stored *corev1.Secret, secret string, role Role, now time.Time) error {
	info, err := ReadTokenSecret(stored)
	if err != nil {
		return err
	}
	if stored.Type != TokenSecretType || subtle.ConstantTimeCompare([]byte(secretHash(secret)), stored.Data[fieldHash]) != 1 {
		return ErrTokenUnknown
	}
	if !info.Expiration.IsZero() && !now.Before(info.Expiration) {
		return ErrTokenExpired
	}
	if info.Role != role && (info.Role != RoleServer || role != RoleWitness) { // a server may do all that a witness may
		return ErrTokenRole
	}
	return nil
}

func secretHash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
