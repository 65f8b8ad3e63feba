package tokens

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

type bed struct {
	testing.TB
	store  *store.Store
	client *store.Client
	keys   map[int]*ecdsa.PrivateKey
	now    time.Time
	tokens *Authority
}

func newBed(t testing.TB) *bed {
	b := &bed{TB: t, store: store.New(store.Config{Kinds: api.Kinds()}), keys: map[int]*ecdsa.PrivateKey{}}
	b.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return b.now }
	b.client = store.NewClient(store.ClientConfig{Durable: b.store, Propose: store.NewLocal(b.store), Now: clock})
	b.tokens = New(Config{Store: b.store, Now: clock, Key: func(n int) (*ecdsa.PrivateKey, error) {
		if b.keys[n] == nil {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return nil, err
			}
			b.keys[n] = key
		}
		return b.keys[n], nil
	}})
	b.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "bot"}})
	b.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pi-1"}})
	b.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "s"}})
	b.create(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "p"},
		Spec:       corev1.PodSpec{ServiceAccountName: "bot", NodeName: "pi-1", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	})
	return b
}

func (b *bed) create(o api.Object) api.Object {
	b.Helper()
	made, err := b.client.Create(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	return made
}

func (b *bed) remove(o api.Object) {
	b.Helper()
	if _, err := b.client.Delete(b.Context(), store.KeyOf(b.store, o), &metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		b.Fatal(err)
	}
}

func (b *bed) issue(spec authenticationv1.TokenRequestSpec) string {
	b.Helper()
	r := &authenticationv1.TokenRequest{Spec: spec}
	if err := b.tokens.Issue("web", "bot", r); err != nil {
		b.Fatal(err)
	}
	return r.Status.Token
}

func (b *bed) refused(token, want string) {
	b.Helper()
	if _, _, err := b.tokens.Verify(b.Context(), token, nil); err == nil || !strings.Contains(err.Error(), want) {
		b.Errorf("%v, want %q", err, want)
	}
}

func (b *bed) accepted(token string) {
	b.Helper()
	if _, _, err := b.tokens.Verify(b.Context(), token, nil); err != nil {
		b.Error(err)
	}
}

func boundTo(kind, name string) authenticationv1.TokenRequestSpec {
	return authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: kind, APIVersion: "v1", Name: name}}
}

func TestIssueAndVerify(t *testing.T) {
	b := newBed(t)
	token := b.issue(boundTo("Pod", "p"))
	u, meant, err := b.tokens.Verify(t.Context(), token, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{Issuer}, meant); diff != "" {
		t.Error(diff)
	}
	pod, _ := store.Get[corev1.Pod](b.store, "web", "p")
	node, _ := store.Get[corev1.Node](b.store, "", "pi-1")
	account, _ := store.Get[corev1.ServiceAccount](b.store, "web", "bot")
	if u.Name != "system:serviceaccount:web:bot" || u.UID != string(account.UID) || !u.In("system:serviceaccounts") || !u.In("system:serviceaccounts:web") {
		t.Errorf("%+v", u)
	}
	if !strings.HasPrefix(u.Extra[extraCredential][0], "JTI=") {
		t.Errorf("%v", u.Extra)
	}
	delete(u.Extra, extraCredential)
	want := map[string][]string{
		extraPodName: {"p"}, extraPodUID: {string(pod.UID)}, extraNodeName: {"pi-1"}, extraNodeUID: {string(node.UID)},
	}
	if diff := cmp.Diff(want, u.Extra); diff != "" {
		t.Error(diff)
	}

	// What a token says is what Kubernetes' tokens say.
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var said map[string]any
	if err := json.Unmarshal(payload, &said); err != nil {
		t.Fatal(err)
	}
	delete(said, "jti")
	now := float64(b.now.Unix())
	if diff := cmp.Diff(map[string]any{
		"iss": Issuer, "sub": "system:serviceaccount:web:bot", "aud": []any{Issuer}, "iat": now, "nbf": now, "exp": now + 3600,
		"kubernetes.io": map[string]any{
			"namespace": "web", "serviceaccount": map[string]any{"name": "bot", "uid": string(account.UID)},
			"pod":  map[string]any{"name": "p", "uid": string(pod.UID)},
			"node": map[string]any{"name": "pi-1", "uid": string(node.UID)},
		},
	}, said); diff != "" {
		t.Error(diff)
	}
}

func TestRequestsAreChecked(t *testing.T) {
	b := newBed(t)
	b.create(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "other"},
		Spec:       corev1.PodSpec{ServiceAccountName: "default", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	})
	with := func(change func(*authenticationv1.TokenRequest)) *authenticationv1.TokenRequest {
		r := &authenticationv1.TokenRequest{}
		change(r)
		return r
	}
	for name, c := range map[string]struct {
		account string
		request *authenticationv1.TokenRequest
		want    string
	}{
		"no account":  {"nobody", with(func(*authenticationv1.TokenRequest) {}), `serviceaccounts "nobody" not found`},
		"name":        {"bot", with(func(r *authenticationv1.TokenRequest) { r.Name = "x" }), "must match the service account name if specified"},
		"namespace":   {"bot", with(func(r *authenticationv1.TokenRequest) { r.Namespace = "x" }), "must match the service account namespace if specified"},
		"uid":         {"bot", with(func(r *authenticationv1.TokenRequest) { r.UID = "x" }), "does not match the UID of the service account"},
		"too short":   {"bot", with(func(r *authenticationv1.TokenRequest) { r.Spec.ExpirationSeconds = ptr.To[int64](599) }), "may not specify a duration less than 10 minutes"},
		"too long":    {"bot", with(func(r *authenticationv1.TokenRequest) { r.Spec.ExpirationSeconds = ptr.To[int64](1<<32 + 1) }), "may not specify a duration larger than 2^32 seconds"},
		"no pod":      {"bot", &authenticationv1.TokenRequest{Spec: boundTo("Pod", "nope")}, `pods "nope" not found`},
		"foreign pod": {"bot", &authenticationv1.TokenRequest{Spec: boundTo("Pod", "other")}, `cannot bind token for serviceaccount "bot" to pod running with different serviceaccount name.`},
		"no secret":   {"bot", &authenticationv1.TokenRequest{Spec: boundTo("Secret", "nope")}, `secrets "nope" not found`},
		"no node":     {"bot", &authenticationv1.TokenRequest{Spec: boundTo("Node", "nope")}, `nodes "nope" not found`},
		"other kind":  {"bot", &authenticationv1.TokenRequest{Spec: boundTo("ConfigMap", "c")}, "cannot bind token to object of type /v1, Kind=ConfigMap"},
		"bound uid":   {"bot", with(func(r *authenticationv1.TokenRequest) { r.Spec = boundTo("Pod", "p"); r.Spec.BoundObjectRef.UID = "x" }), "the UID in the bound object reference (x) does not match the UID in record"},
		"attestations": {"bot", with(func(r *authenticationv1.TokenRequest) {
			r.Spec.Attestations = map[string]authenticationv1.AttestationValue{"a": {"b"}}
		}), "attestations may only be specified"},
	} {
		if err := b.tokens.Issue("web", c.account, c.request); err == nil || !strings.Contains(err.Error(), c.want) || c.request.Status.Token != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokensEnd(t *testing.T) {
	b := newBed(t)
	free := b.issue(authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](600)})
	b.accepted(free)
	b.now = b.now.Add(10*time.Minute + leeway)
	b.accepted(free)
	b.now = b.now.Add(time.Second)
	b.refused(free, "service account token has expired")
	b.now = b.now.Add(-time.Hour)
	b.refused(free, "service account token is not valid yet")
	b.now = b.now.Add(50 * time.Minute)
	b.accepted(free)

	for _, o := range []api.Object{
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "p"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "s"}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pi-1"}},
	} {
		kind := api.KindFor(o).GVK.Kind
		token := b.issue(boundTo(kind, o.GetName()))
		b.accepted(token)
		b.remove(o)
		b.refused(token, ErrGone.Error())
		if p, ok := o.(*corev1.Pod); ok {
			p.Spec = corev1.PodSpec{ServiceAccountName: "bot", Containers: []corev1.Container{{Name: "c", Image: "i"}}}
		}
		b.create(o)
		b.refused(token, "does not match claim") // another one of the same name
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "bot"}}
	b.remove(account)
	b.refused(free, `serviceaccounts "bot" not found`)
	b.create(account)
	b.refused(free, "service account UID")
}

func TestAudiences(t *testing.T) {
	b := newBed(t)
	vault := b.issue(authenticationv1.TokenRequestSpec{Audiences: []string{"vault", "db"}})
	b.refused(vault, `token audiences ["vault" "db"] is invalid for the target audiences`)
	if _, meant, err := b.tokens.Verify(t.Context(), vault, []string{"db", "x"}); err != nil || len(meant) != 1 || meant[0] != "db" {
		t.Error(meant, err)
	}
	if _, _, err := b.tokens.Verify(t.Context(), b.issue(authenticationv1.TokenRequestSpec{}), []string{"vault"}); err == nil {
		t.Error("a token for the API is shown to somebody else")
	}
}

func TestForgeriesAreRefused(t *testing.T) {
	b := newBed(t)
	token := b.issue(authenticationv1.TokenRequestSpec{})
	k, err := b.tokens.key(1)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	account, _ := store.Get[corev1.ServiceAccount](b.store, "web", "bot")
	make := func(method jwt.SigningMethod, key any, kid string, change func(*claims)) string {
		t.Helper()
		c := &claims{
			RegisteredClaims: jwt.RegisteredClaims{Issuer: Issuer, Audience: []string{Issuer}, ExpiresAt: jwt.NewNumericDate(b.now.Add(time.Hour))},
			Kubernetes:       bound{Namespace: "web", Account: ref{"bot", account.UID}},
		}
		change(c)
		forged := jwt.NewWithClaims(method, c)
		forged.Header["kid"] = kid
		text, err := forged.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	same := func(*claims) {}
	b.accepted(make(jwt.SigningMethodES256, k.private, k.id, same))
	public := k.private.PublicKey
	point, _ := public.Bytes()
	head, rest, _ := strings.Cut(token, ".")
	body, signature, _ := strings.Cut(rest, ".")
	for name, forged := range map[string]string{
		"empty":                "",
		"two parts":            head + "." + body,
		"another key":          make(jwt.SigningMethodES256, other, k.id, same),
		"no such key":          make(jwt.SigningMethodES256, k.private, "x", same),
		"unsigned":             make(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, k.id, same),
		"signed symmetrically": make(jwt.SigningMethodHS256, point, k.id, same),
		"another issuer":       make(jwt.SigningMethodES256, k.private, k.id, func(c *claims) { c.Issuer = "https://example.com" }),
		"endless":              make(jwt.SigningMethodES256, k.private, k.id, func(c *claims) { c.ExpiresAt = nil }),
		"no account":           make(jwt.SigningMethodES256, k.private, k.id, func(c *claims) { c.Kubernetes.Account.Name = "" }),
		"another body":         head + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+Issuer+`"}`)) + "." + signature,
		"another form":         head + "." + body + "." + signature + "=",
		"too long":             head + "." + strings.Repeat("a", maxToken) + "." + signature,
	} {
		if _, _, err := b.tokens.Verify(t.Context(), forged, nil); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysRotate(t *testing.T) {
	b := newBed(t)
	set := func(signing, oldest string) {
		t.Helper()
		c := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: GenerationsName}, Data: map[string]string{"signing": signing, "oldest": oldest},
		}
		if _, err := b.client.Create(t.Context(), c); err == nil {
			return
		}
		if _, err := b.client.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	ids := func() []string {
		t.Helper()
		keys, err := b.tokens.KeySet()
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, k := range keys.Keys {
			all = append(all, k.Kid)
		}
		return all
	}
	first := b.issue(authenticationv1.TokenRequestSpec{})
	one := ids()
	set("2", "1")
	second := b.issue(authenticationv1.TokenRequestSpec{})
	both := ids()
	if len(both) != 2 || both[1] != one[0] || both[0] == one[0] {
		t.Errorf("%v after %v", both, one)
	}
	b.accepted(first)
	b.accepted(second)
	set("2", "2")
	b.accepted(second)
	b.refused(first, ErrUnknown.Error()) // however right its signature was a moment ago
	set("100", "1")
	if n := len(ids()); n != maxGenerations {
		t.Errorf("%d keys are believed", n)
	}
	set("rubbish", "-1")
	b.accepted(first)
}

func TestKeySet(t *testing.T) {
	b := newBed(t)
	set, err := b.tokens.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	k := set.Keys[0]
	x, _ := base64.RawURLEncoding.DecodeString(k.X)
	y, _ := base64.RawURLEncoding.DecodeString(k.Y)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.Parse(b.issue(authenticationv1.TokenRequestSpec{}), func(got *jwt.Token) (any, error) {
		if got.Header["kid"] != k.Kid || k.Alg != "ES256" || k.Kty != "EC" || k.Crv != "P-256" || k.Use != "sig" {
			return nil, fmt.Errorf("%+v", k)
		}
		return public, nil
	}, jwt.WithTimeFunc(func() time.Time { return b.now }))
	if err != nil || !parsed.Valid {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	b := newBed(f)
	good := b.issue(boundTo("Pod", "p"))
	f.Add(good)
	f.Add("")
	f.Add("a.b.c")
	f.Add(good[:len(good)-2])
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		u, _, err := b.tokens.Verify(t.Context(), text, nil)
		if err == nil && (text != good || u.Name != "system:serviceaccount:web:bot") {
			t.Errorf("%q is the token of %s", text, u.Name)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	bed := newBed(b)
	token := bed.issue(boundTo("Pod", "p"))
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			bed.accepted(token)
		}
	})
	b.Run("fresh", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			clear(bed.tokens.verified)
			bed.accepted(token)
		}
	})
}
