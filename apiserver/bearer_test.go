package apiserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/apiserver/tokens"
	"github.com/shoal-edge/shoal/store"
)

const (
	nobody   = "|" // no certificate
	accounts = "/api/v1/namespaces/default/serviceaccounts"
	whoAmI   = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
)

// withTokens lets the servers issue tokens, and makes the service account "bot".
func withTokens(b *bed, cfg *apiserver.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	cfg.Tokens = tokens.New(tokens.Config{
		Store: b.durable, Now: cfg.Now, Key: func(int) (*ecdsa.PrivateKey, error) { return key, nil },
	})
	b.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bot"}})
}

func (b *bed) token(spec string) string {
	b.t.Helper()
	var r authenticationv1.TokenRequest
	answer := b.get(&r, call{method: "POST", path: accounts + "/bot/token", body: `{"spec":{` + spec + `}}`})
	if answer.StatusCode != http.StatusCreated || r.Kind != "TokenRequest" || r.Status.Token == "" || r.Status.ExpirationTimestamp.IsZero() {
		b.t.Fatalf("%+v", r)
	}
	return r.Status.Token
}

func (b *bed) whoIs(token string) (int, authenticationv1.UserInfo) {
	b.t.Helper()
	var r authenticationv1.SelfSubjectReview
	c := call{method: "POST", path: whoAmI, body: `{}`, as: nobody, header: map[string]string{"Authorization": token}}
	answer, _ := b.do(c)
	if answer.StatusCode == http.StatusCreated {
		b.get(&r, c)
	}
	return answer.StatusCode, r.Status.UserInfo
}

func TestBearerTokens(t *testing.T) {
	b := newBed(t, withRoles, withTokens)
	b.grant("reader", "default", "system:serviceaccount:default:bot", verbsOn("list", "configmaps"))
	token := b.token("")
	code, u := b.whoIs("Bearer " + token)
	if code != http.StatusCreated || u.Username != "system:serviceaccount:default:bot" || u.UID == "" || len(u.Groups) != 3 {
		t.Errorf("%d %+v", code, u)
	}
	bearer := map[string]string{"Authorization": "bearer " + token}
	if answer, data := b.do(call{path: configMaps, as: nobody, header: bearer}); answer.StatusCode != http.StatusOK {
		t.Errorf("%d %s", answer.StatusCode, data)
	}
	answer, data := b.do(call{path: "/api/v1/namespaces/default/secrets", as: nobody, header: bearer})
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("%d", answer.StatusCode)
	}
	mustContain(t, data, `User \"system:serviceaccount:default:bot\" cannot list`)
	for _, bad := range []string{"", "Bearer", "Bearer ", "Basic " + token, token, "Bearer " + token[:len(token)-4], "Bearer x.y.z"} {
		if code, _ := b.whoIs(bad); code != http.StatusUnauthorized {
			t.Errorf("%q: %d", bad, code)
		}
	}
	if code, _ := b.whoIs("Bearer " + b.token(`"audiences":["vault"]`)); code != http.StatusUnauthorized {
		t.Errorf("a token for somebody else: %d", code)
	}
	answer, data = b.do(call{method: "POST", path: accounts + "/bot/token", body: `{"spec":{"expirationSeconds":10}}`})
	if answer.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("%d", answer.StatusCode)
	}
	mustContain(t, data, "may not specify a duration less than 10 minutes")
	if answer, _ := b.do(call{method: "POST", path: accounts + "/bot/token", body: `{}`, as: "jane|crew"}); answer.StatusCode != http.StatusForbidden {
		t.Errorf("a token for anybody: %d", answer.StatusCode)
	}
}

func TestTokenReview(t *testing.T) {
	b := newBed(t, withRoles, withTokens)
	path := "/apis/authentication.k8s.io/v1/tokenreviews"
	review := func(spec string) authenticationv1.TokenReviewStatus {
		t.Helper()
		var r authenticationv1.TokenReview
		b.get(&r, call{method: "POST", path: path, body: `{"spec":{` + spec + `}}`})
		return r.Status
	}
	s := review(`"token":"` + b.token("") + `"`)
	if !s.Authenticated || s.User.Username != "system:serviceaccount:default:bot" || len(s.Audiences) != 1 || s.Error != "" {
		t.Errorf("%+v", s)
	}
	vault := b.token(`"audiences":["vault"]`)
	if s := review(`"token":"` + vault + `"`); s.Authenticated || !strings.HasPrefix(s.Error, "[invalid bearer token, token audiences") || s.User.Username != "" {
		t.Errorf("%+v", s)
	}
	if s := review(`"token":"` + vault + `","audiences":["vault","db"]`); !s.Authenticated || s.Audiences[0] != "vault" {
		t.Errorf("%+v", s)
	}
	if s := review(`"token":"x"`); s.Authenticated || s.Error == "" {
		t.Errorf("%+v", s)
	}
	if answer, _ := b.do(call{method: "POST", path: path, body: `{"spec":{}}`}); answer.StatusCode != http.StatusBadRequest {
		t.Errorf("%d", answer.StatusCode)
	}
}

func TestOIDCDiscovery(t *testing.T) {
	b := newBed(t, withRoles, withTokens)
	bearer := map[string]string{"Authorization": "Bearer " + b.token("")}
	var config tokens.Discovery
	b.get(&config, call{path: "/.well-known/openid-configuration", as: nobody, header: bearer})
	if config.Issuer != tokens.Issuer || !strings.HasSuffix(config.JWKSURI, "/openid/v1/jwks") {
		t.Errorf("%+v", config)
	}
	var keys tokens.KeySet
	answer := b.get(&keys, call{path: "/openid/v1/jwks", as: nobody, header: bearer})
	if len(keys.Keys) != 1 || answer.Header.Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("%+v %s", keys, answer.Header)
	}
	if answer, _ := b.do(call{path: "/openid/v1/jwks", as: "joe|users"}); answer.StatusCode != http.StatusForbidden {
		t.Errorf("%d", answer.StatusCode)
	}
}

func TestBootstrapTokens(t *testing.T) {
	b := newBed(t, withRoles)
	const secret = "0123456789abcdef"
	sum := sha256.Sum256([]byte(secret))
	make := func(id string, data map[string]string) {
		s := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-" + id}, Type: corev1.SecretTypeBootstrapToken,
			StringData: map[string]string{"token-id": id, "usage-bootstrap-authentication": "true", "token-secret": secret},
		}
		for k, v := range data {
			s.StringData[k] = v
		}
		b.create(s)
	}
	late := epoch.Add(time.Hour).Format(time.RFC3339)
	make("plain0", map[string]string{"expiration": late, "auth-extra-groups": "system:bootstrappers:lab,system:masters"})
	make("hashed", map[string]string{"token-secret": "", "token-secret-sha256": hex.EncodeToString(sum[:])})
	make("ended0", map[string]string{"expiration": epoch.Format(time.RFC3339)})
	make("badend", map[string]string{"expiration": "soon"})
	make("joinin", map[string]string{"usage-bootstrap-authentication": ""})
	make("empty0", map[string]string{"token-secret": ""})
	for token, want := range map[string]int{
		"plain0." + secret: 201, "hashed." + secret: 201, "ended0." + secret: 401, "badend." + secret: 401, "joinin." + secret: 401,
		"empty0." + secret: 401, "nobody." + secret: 401, "plain0.0123456789abcdee": 401, "plain0.": 401,
	} {
		code, u := b.whoIs("Bearer " + token)
		id, _, _ := strings.Cut(token, ".")
		if code != want || code == 201 && u.Username != "system:bootstrap:"+id {
			t.Errorf("%s: %d %+v", token, code, u)
		}
		for _, g := range u.Groups {
			if g == "system:masters" {
				t.Error("a token's Secret may name groups of bootstrappers only")
			}
		}
	}
}

// TestTokenOfANewAccount shows a follower the token of an account that it has not heard of yet.
func TestTokenOfANewAccount(t *testing.T) {
	leader := &headers{}
	b := newBed(t, withRoles, withTokens, func(_ *bed, cfg *apiserver.Config) { cfg.Forward = leader })
	token := b.token("")
	item, _ := b.durable.Get(store.Key{Resource: "serviceaccounts", Namespace: "default", Name: "bot"})
	put := func(value []byte) {
		t.Helper()
		op := store.Op{Key: item.Key, Value: value, Expect: store.Any}
		if err := b.durable.Apply(b.durable.Revision()+1, store.Txn{Ops: []store.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	put(nil)
	b.consensus.leads.Store(false)
	b.consensus.leader.Store("leader:6443")
	leader.revision = func() uint64 { // the account arrives, as it was
		put(item.Value)
		return b.durable.Revision()
	}
	if code, _ := b.whoIs("Bearer " + token); code != http.StatusCreated {
		t.Errorf("%d", code)
	}
}
