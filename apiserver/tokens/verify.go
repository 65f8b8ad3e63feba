package tokens

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

// leeway is by how much clocks may differ, and for how long what is being deleted still counts.
const leeway = time.Minute

// Why a token does not count. Unknown is for texts that are no tokens of this cluster at all.
var (
	ErrUnknown = errors.New("it is not a token of this cluster")
	// ErrGone says that the account, or what the token is bound to, is not there (yet, at a server that is behind).
	ErrGone = errors.New("service account token has been invalidated")
)

// Verify checks a token for somebody who is one of the audiences (none: for the API itself), and returns its user and those of the
// audiences that it is for.
func (a *Authority) Verify(ctx context.Context, text string, audiences []string) (*access.User, []string, error) {
	c, err := a.signed(ctx, text)
	if err != nil {
		return nil, nil, err
	}
	if len(audiences) == 0 {
		audiences = []string{Issuer}
	}
	var meant []string
	for _, audience := range c.Audience {
		if slices.Contains(audiences, audience) {
			meant = append(meant, audience)
		}
	}
	if len(meant) == 0 {
		return nil, nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", []string(c.Audience), audiences)
	}
	if err := a.current(c); err != nil {
		return nil, nil, err
	}
	return c.user(), meant, nil
}

// signed returns the claims of a token with a right signature. Those that were right before are known.
func (a *Authority) signed(ctx context.Context, text string) (*claims, error) {
	if len(text) > maxToken || strings.Count(text, ".") != 2 {
		return nil, ErrUnknown
	}
	keys, err := a.believed()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(text))
	a.mu.Lock()
	known := a.verified[sum]
	a.mu.Unlock()
	if known != nil && slices.ContainsFunc(keys, func(k *key) bool { return k.id == known.key }) {
		return known, nil
	}
	select {
	case a.verifying <- struct{}{}:
		defer func() { <-a.verifying }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	fresh := &claims{}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg()}), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
	_, err = parser.ParseWithClaims(text, fresh, func(t *jwt.Token) (any, error) {
		for _, k := range keys {
			if t.Header["kid"] == k.id {
				fresh.key = k.id
				return k.private.Public(), nil
			}
		}
		return nil, ErrUnknown
	})
	if err != nil || fresh.Issuer != Issuer || fresh.ExpiresAt == nil || fresh.Kubernetes.Account.Name == "" {
		return nil, ErrUnknown
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.verified) >= maxVerified {
		clear(a.verified)
	}
	a.verified[sum] = fresh
	return fresh, nil
}

// current checks what changes with time: that the token has not ended, and that what it names is still there.
func (a *Authority) current(c *claims) error {
	now := a.cfg.Now()
	switch {
	case now.Add(-leeway).After(c.ExpiresAt.Time):
		return errors.New("service account token has expired")
	case c.NotBefore != nil && now.Add(leeway).Before(c.NotBefore.Time):
		return errors.New("service account token is not valid yet")
	}
	k := &c.Kubernetes
	account, ok := store.Get[corev1.ServiceAccount](a.cfg.Store, k.Namespace, k.Account.Name)
	if !ok {
		return fmt.Errorf("serviceaccounts %q not found: %w", k.Account.Name, ErrGone)
	}
	if err := same("service account", account, k.Account.UID, now); err != nil {
		return err
	}
	switch {
	case k.Pod != nil:
		pod, ok := store.Get[corev1.Pod](a.cfg.Store, k.Namespace, k.Pod.Name)
		if !ok {
			return ErrGone
		}
		return same("pod", pod, k.Pod.UID, now)
	case k.Secret != nil:
		secret, ok := store.Get[corev1.Secret](a.cfg.Store, k.Namespace, k.Secret.Name)
		if !ok {
			return ErrGone
		}
		return same("secret", secret, k.Secret.UID, now)
	case k.Node != nil:
		node, ok := store.Get[corev1.Node](a.cfg.Store, "", k.Node.Name)
		if !ok {
			return ErrGone
		}
		return same("node", node, k.Node.UID, now)
	}
	return nil
}

// same reports, as an error, that an object is another one of the same name, or has been deleted.
func same(what string, o metav1.Object, uid types.UID, now time.Time) error {
	if o.GetUID() != uid {
		return fmt.Errorf("%s UID (%s) does not match claim (%s)", what, o.GetUID(), uid)
	}
	if at := o.GetDeletionTimestamp(); at != nil && at.Time.Before(now.Add(-leeway)) {
		return fmt.Errorf("%s %s has been deleted: %w", what, o.GetName(), ErrGone)
	}
	return nil
}
