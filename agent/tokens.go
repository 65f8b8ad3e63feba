package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// Pauses between attempts at a token, and how long a pod that never had one waits for it: after that it starts without, as a device
// without a link must.
const (
	tokenPause    = time.Second
	maxTokenPause = 2 * time.Minute
	tokenTimeout  = 15 * time.Second
	tokenPatience = 10 * time.Second
)

// TokenSource asks the control plane for a token of a service account and fills in the request's status. ErrTokenRefused says that the
// control plane answered and said no; any other error, that it did not answer.
type TokenSource func(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) error

// ErrTokenRefused says that the control plane gives no such token.
var ErrTokenRefused = errors.New("the control plane refused the token")

// tokens keeps the tokens of this device's pods fresh. It holds them in memory only; the volumes hold them, too.
type tokens struct {
	ask  TokenSource
	now  func() time.Time
	wake chan struct{}

	mu   sync.Mutex
	held map[tokenKey]*token
}

// tokenKey is what one file of one pod needs.
type tokenKey struct {
	uid, audience string
	life          int64
}

type token struct {
	namespace, pod, account string
	since                   time.Time // it was asked for
	value                   []byte    // nil: none yet
	next                    time.Time // when to ask, again
	pause                   time.Duration
}

func newTokens(ask TokenSource, now func() time.Time) *tokens {
	return &tokens{ask: ask, now: now, wake: make(chan struct{}, 1), held: map[tokenKey]*token{}}
}

// Token implements volume.Tokens. It never waits: what is not here yet is fetched, and the pod looks again.
func (t *tokens) Token(p *corev1.Pod, projection *corev1.ServiceAccountTokenProjection) (value []byte, soon bool) {
	if t.ask == nil {
		return nil, false
	}
	key := tokenKey{uid: string(p.UID), audience: projection.Audience, life: ptr.Deref(projection.ExpirationSeconds, 0)}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.held[key]
	if k == nil {
		k = &token{namespace: p.Namespace, pod: p.Name, account: p.Spec.ServiceAccountName, since: t.now()}
		t.held[key] = k
		wake(t.wake)
	}
	return k.value, k.value == nil && t.now().Before(k.since.Add(tokenPatience))
}

// forget drops the tokens of a pod that is gone.
func (t *tokens) forget(uid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key := range t.held {
		if key.uid == uid {
			delete(t.held, key)
		}
	}
}

// run fetches what is due until ctx ends, and tells which pods have something new.
func (t *tokens) run(ctx context.Context, changed func(uid string)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		case <-timer.C:
		}
		timer.Stop()
		if next := t.round(ctx, changed); !next.IsZero() {
			timer.Reset(max(0, next.Sub(t.now())))
		}
	}
}

// round asks for every token that is due. When the control plane does not answer, the others wait as well.
func (t *tokens) round(ctx context.Context, changed func(uid string)) (next time.Time) {
	for {
		key, k := t.due()
		if k == nil {
			break
		}
		err := t.fetch(ctx, key, k)
		switch {
		case err == nil:
			changed(key.uid)
		case ctx.Err() != nil:
			return time.Time{}
		case !errors.Is(err, ErrTokenRefused):
			t.postpone()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.held {
		next = earlier(next, k.next)
	}
	return next
}

// due returns one token that is to be asked for.
func (t *tokens) due() (tokenKey, *token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for key, k := range t.held {
		if !k.next.After(now) {
			return key, k
		}
	}
	return tokenKey{}, nil
}

func (t *tokens) fetch(ctx context.Context, key tokenKey, k *token) error {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{
		APIVersion: "v1", Kind: "Pod", Name: k.pod, UID: types.UID(key.uid),
	}}}
	if key.audience != "" {
		r.Spec.Audiences = []string{key.audience}
	}
	if key.life != 0 {
		r.Spec.ExpirationSeconds = &key.life
	}
	began := t.now()
	err := t.ask(ctx, k.namespace, k.account, r)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		k.pause = min(max(2*k.pause, tokenPause), maxTokenPause)
		k.next = t.now().Add(k.pause)
		return err
	}
	life := r.Status.ExpirationTimestamp.Sub(began)
	k.value, k.pause, k.next = []byte(r.Status.Token), 0, began.Add(max(life*4/5, tokenPause))
	return nil
}

// postpone lets all tokens that are due now wait as long as the one that failed.
func (t *tokens) postpone() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, until := t.now(), t.now().Add(tokenPause)
	for _, k := range t.held {
		if k.next.After(now) && k.pause > 0 {
			until = k.next
		}
	}
	for _, k := range t.held {
		if !k.next.After(now) {
			k.next = until
		}
	}
}
