package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func TestTokensAreKeptFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // the test holds it, but while it lets the others go on
		mu.Lock()
		settle := func(d time.Duration) {
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
		}
		var asked []string
		var failure error
		keeper := newTokens(func(_ context.Context, namespace, account string, r *authenticationv1.TokenRequest) error {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, fmt.Sprintf("%s/%s for %s/%s %q", namespace, account, r.Spec.BoundObjectRef.Name, r.Spec.BoundObjectRef.UID, r.Spec.Audiences))
			if failure != nil {
				return failure
			}
			life := time.Duration(ptr.Deref(r.Spec.ExpirationSeconds, 3600)) * time.Second
			r.Status.Token = fmt.Sprintf("token %d", len(asked))
			r.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(life))
			return nil
		}, time.Now)
		changed := map[string]int{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			keeper.run(ctx, func(uid string) {
				mu.Lock()
				defer mu.Unlock()
				changed[uid]++
			})
		}()
		defer func() {
			mu.Unlock()
			cancel()
			<-done
		}()

		pod := func(uid string) *corev1.Pod {
			return &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "p-" + uid, UID: types.UID(uid)}, Spec: corev1.PodSpec{ServiceAccountName: "bot"},
			}
		}
		want := func(uid, audience, value string, soon bool) {
			t.Helper()
			got, wait := keeper.Token(pod(uid), &corev1.ServiceAccountTokenProjection{Audience: audience, ExpirationSeconds: ptr.To[int64](1000)})
			if string(got) != value || wait != soon {
				t.Errorf("%s %q: %q, soon %v", uid, audience, got, wait)
			}
		}
		want("a", "", "", true)
		settle(0)
		want("a", "", "token 1", false)
		if len(asked) != 1 || asked[0] != `web/bot for p-a/a []` || changed["a"] != 1 {
			t.Errorf("%q %v", asked, changed)
		}
		settle(801 * time.Second) // four fifths of its life
		want("a", "", "token 2", false)
		want("a", "vault", "", true)
		settle(0)
		want("a", "vault", "token 3", false)

		failure = errors.New("no route to host")
		want("b", "", "", true)
		settle(9 * time.Second)
		want("b", "", "", true)
		settle(2 * time.Second)
		want("b", "", "", false) // it starts without
		n := len(asked)
		settle(time.Hour)
		if more := len(asked) - n; more < 20 || more > 120 {
			t.Errorf("%d attempts in an hour without a control plane", more)
		}
		want("a", "", "token 2", false) // an old one is better than none: the control plane judges
		failure = nil
		settle(maxTokenPause + time.Second)
		for _, uid := range []string{"a", "b"} {
			if got, _ := keeper.Token(pod(uid), &corev1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To[int64](1000)}); got == nil || string(got) == "token 2" {
				t.Errorf("%s has %q", uid, got)
			}
		}

		failure = fmt.Errorf("%w: gone", ErrTokenRefused) // which is about one token, and keeps no other waiting
		want("c", "", "", true)
		settle(0)
		failure = nil
		want("d", "", "", true)
		settle(0)
		if changed["d"] != 1 {
			t.Error("a refused token keeps others waiting")
		}
		for _, uid := range []string{"a", "b", "c", "d"} {
			keeper.forget(uid)
		}
		n = len(asked)
		settle(24 * time.Hour)
		if len(asked) > n {
			t.Error("tokens of pods that are gone are renewed")
		}
	})
}

func TestWithoutTokenSource(t *testing.T) {
	keeper := newTokens(nil, time.Now)
	if value, soon := keeper.Token(&corev1.Pod{}, &corev1.ServiceAccountTokenProjection{}); value != nil || soon {
		t.Errorf("%q %v", value, soon)
	}
}
