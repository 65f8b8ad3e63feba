package apiserver_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/apiserver/admission"
	"github.com/shoal-edge/shoal/store"
)

// discard is a response that nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

func benchmarkRequest(b *testing.B, method, path, media string, body func(i int) string, filled int) {
	b.Helper()
	durable := store.New(store.Config{Kinds: api.Kinds()})
	client := store.NewClient(store.ClientConfig{
		Durable: durable, Propose: store.NewLocal(durable), Admit: admission.New(admission.Config{})[:1].Admit(),
	})
	for i := range filled {
		if _, err := client.Create(b.Context(), podOn(fmt.Sprint("p", i), "n1")); err != nil {
			b.Fatal(err)
		}
	}
	c := &consensus{durable: durable}
	c.leads.Store(true)
	h := apiserver.New(apiserver.Config{Client: client, Durable: durable, Consensus: c}).Handler()
	subject := pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}
	state := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: subject}}}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r := httptest.NewRequest(method, path, strings.NewReader(body(i)))
		r.Header.Set("Accept", media)
		r.TLS = state
		h.ServeHTTP(discard{http.Header{}}, r)
	}
}

func BenchmarkListPods(b *testing.B) {
	none := func(int) string { return "" }
	for _, media := range []string{"application/json", proto, tableAccept} {
		name, _, _ := strings.Cut(media, ",")
		b.Run(strings.NewReplacer("/", "_", ";", "_", "=", "_").Replace(name), func(b *testing.B) {
			benchmarkRequest(b, http.MethodGet, pods, media, none, 1000)
		})
	}
}

func BenchmarkCreatePod(b *testing.B) {
	benchmarkRequest(b, http.MethodPost, pods, "application/json", func(i int) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"q%d"},"spec":{"containers":[{"name":"c","image":"i"}]}}`, i)
	}, 0)
}

func BenchmarkCreateConfigMap(b *testing.B) {
	benchmarkRequest(b, http.MethodPost, "/api/v1/namespaces/default/configmaps", "application/json", func(i int) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c%d"},"data":{"value":"%256d"}}`, i, i)
	}, 0)
}
