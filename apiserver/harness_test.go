package apiserver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/bootstrap"
	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/apiserver/admission"
	"github.com/shoal-edge/shoal/apiserver/fieldmanager"
	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/apiserver/policies"
	"github.com/shoal-edge/shoal/apiserver/webhooks"
	"github.com/shoal-edge/shoal/store"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// consensus is a log of one server, whose leadership the test decides.
type consensus struct {
	durable *store.Store
	leads   atomic.Bool
	leader  atomic.Value // string, empty for none
	asked   func()       // called before each answer of Leader
}

func (c *consensus) IsLeader() bool { return c.leads.Load() }

func (c *consensus) Leader() (string, string, bool) {
	if c.asked != nil {
		c.asked()
	}
	addr, _ := c.leader.Load().(string)
	return "leader", addr, addr != ""
}

func (c *consensus) ReadIndex(context.Context) (uint64, error) {
	if !c.leads.Load() {
		return 0, store.ErrNotLeader
	}
	return c.durable.Revision(), nil
}

// bed is an API server over a real store, spoken to over HTTP. Who speaks is said in a header.
type bed struct {
	t         *testing.T
	url       string
	consensus *consensus
	durable   *store.Store
	client    *store.Client
	// reach is how webhooks that run in pods are reached.
	reach func(ctx context.Context, node string) (net.Conn, error)
	// clients is how the API server's client is made.
	clients store.ClientConfig
}

const identityHeader = "Test-Identity" // name|group,group

func newBed(t *testing.T, change ...func(*bed, *apiserver.Config)) *bed {
	t.Helper()
	var durable *store.Store
	converter := webhooks.New(webhooks.Config{}).NewConverter(func() store.Reader { return durable })
	durable = store.New(store.Config{Kinds: api.Kinds(), Converter: converter})
	volatile := store.New(store.Config{Kinds: api.Kinds(), FirstRevision: 1 << 32})
	local := store.NewLocal(volatile)
	b := &bed{t: t, durable: durable, consensus: &consensus{durable: durable}}
	b.consensus.leads.Store(true)
	proposer := store.NewLocal(durable)
	authorizer := apiserver.NewAuthorizer(durable)
	enforcer := policies.New(policies.Config{
		Authorizer: authorizer, Scale: apiserver.ScaleOf, Merge: fieldmanager.New().Merge,
		Kind: func(gvk schema.GroupVersionKind) *api.Kind { return apiserver.KindOf(durable, gvk) },
	})
	hooks := webhooks.New(webhooks.Config{Authorizer: authorizer, Scale: apiserver.ScaleOf, DialDevice: func(ctx context.Context, node string) (net.Conn, error) {
		return b.reach(ctx, node)
	}})
	plugins := admission.New(admission.Config{
		Policies: enforcer, Webhooks: hooks,
		Services: admission.ServicesConfig{CIDR: netip.MustParsePrefix("10.43.0.0/16"), FirstNodePort: 30000, LastNodePort: 32767},
	})
	admit := slices.DeleteFunc(slices.Clone(plugins), func(p admission.Plugin) bool { return p.Name == "ServiceAccount" }).Admit()
	clients := store.ClientConfig{
		Durable: durable, Propose: proposer, Admit: admit, Review: plugins.Review(), Removed: plugins.Removed,
		Now: func() time.Time { return epoch },
		Volatile: func() (*store.Store, store.Proposer, error) {
			if !b.consensus.IsLeader() {
				return nil, nil, store.ErrNotLeader
			}
			return volatile, local, nil
		},
	}
	b.client = store.NewClient(clients)
	clients.Admit = slices.Concat(admit, authorizer.Guards())
	b.clients = clients
	b.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	cfg := apiserver.Config{
		Client: store.NewClient(clients), Durable: durable, Authorizer: authorizer, Consensus: b.consensus, Registry: prometheus.NewRegistry(),
		Admit: func(ctx context.Context, r *matching.Request) error {
			if err := enforcer.Admit(ctx, r); err != nil {
				return err
			}
			return hooks.Admit(ctx, r)
		},
		Now: func() time.Time { return epoch.Add(5 * time.Minute) }, LeaderWait: time.Second,
	}
	for _, f := range change {
		f(b, &cfg)
	}
	b.serve(apiserver.New(cfg).Handler())
	return b
}

// withRoles gives the cluster its default roles.
func withRoles(b *bed, _ *apiserver.Config) {
	for _, object := range bootstrap.Policy() {
		b.create(object)
	}
}

func (b *bed) serve(h http.Handler) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, groups, _ := strings.Cut(r.Header.Get(identityHeader), "|")
		r.Header.Del(identityHeader)
		if name != "" {
			subject := pkix.Name{CommonName: name, Organization: strings.Split(groups, ",")}
			r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: subject}}}}
		}
		h.ServeHTTP(w, r)
	}))
	b.t.Cleanup(server.Close)
	b.url = server.URL
}

func (b *bed) create(obj api.Object) api.Object {
	b.t.Helper()
	made, err := b.client.Create(b.t.Context(), obj)
	if err != nil {
		b.t.Fatal(err)
	}
	return made
}

// call is one request of a test.
type call struct {
	method, path, body string
	header             map[string]string
	as                 string // "name|group,group"; the administrator when empty
}

func (b *bed) open(c call) *http.Response {
	b.t.Helper()
	if c.method == "" {
		c.method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(b.t.Context(), c.method, b.url+c.path, strings.NewReader(c.body))
	if err != nil {
		b.t.Fatal(err)
	}
	if c.as == "" {
		c.as = "admin|system:masters"
	}
	r.Header.Set(identityHeader, c.as)
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { answer.Body.Close() })
	return answer
}

// do makes a request and reads the whole answer.
func (b *bed) do(c call) (*http.Response, []byte) {
	b.t.Helper()
	answer := b.open(c)
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer, data
}

// get makes a request that must succeed and decodes the answer.
func (b *bed) get(into any, c call) *http.Response {
	b.t.Helper()
	answer, data := b.do(c)
	if answer.StatusCode >= 300 {
		b.t.Fatalf("%s %s: %d %s", c.method, c.path, answer.StatusCode, data)
	}
	if err := json.Unmarshal(data, into); err != nil {
		b.t.Fatalf("%v: %s", err, data)
	}
	return answer
}

func configMap(name string, labels map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: labels}, Data: map[string]string{"k": "v"},
	}
}

func podOn(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i:1"}}},
	}
}

// pipeListener is a listener whose connections a test dials without a network.
type pipeListener struct{ conns chan net.Conn }

func (l pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l pipeListener) Close() error   { return nil }
func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func mustContain(t *testing.T, text []byte, want string) {
	t.Helper()
	if !bytes.Contains(text, []byte(want)) {
		t.Errorf("%q is not in %s", want, text)
	}
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func sorted(texts []string) []string {
	slices.Sort(texts)
	return texts
}

func key(resource, name string) store.Key {
	return store.Key{Resource: resource, Namespace: "default", Name: name}
}
