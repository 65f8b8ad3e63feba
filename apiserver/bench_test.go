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
	c := &consensus{durable: durable}
	c.leads.Store(true)
	h := apiserver.New(apiserver.Config{Client: client, Durable: durable, Consensus: c}).Handler()
	subject := pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}
	state := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: subject}}}}
	send := func(method, path, body string) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Accept", media)
		r.TLS = state
		h.ServeHTTP(discard{http.Header{}}, r)
	}
	for i := range filled { // as people and devices do, so that both have their managed fields
		pod := runningPod(fmt.Sprint("p", i))
		send(http.MethodPost, pods, pod)
		send(http.MethodPut, pods+"/p"+fmt.Sprint(i)+"/status", pod)
	}
	if durable.Revision() < uint64(2*filled) {
		b.Fatal("the pods were not made")
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		send(method, path, body(i))
	}
}

// runningPod is the JSON of a pod as a device reports it.
func runningPod(name string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"labels":{"app":"press","pod-template-hash":"6d4cf56db6"}},"spec":{"nodeName":"n1",
		"containers":[{"name":"press","image":"registry.example/press:2.4.1","command":["/bin/press","--line","4"],"env":[{"name":"LINE","value":"4"}],
			"resources":{"requests":{"cpu":"50m","memory":"32Mi"}},"readinessProbe":{"exec":{"command":["/bin/true"]}}}]},
		"status":{"phase":"Running","hostIP":"192.168.0.10","podIP":"10.42.0.2","podIPs":[{"ip":"10.42.0.2"}],"startTime":"2026-03-01T12:00:00Z",
			"containerStatuses":[{"name":"press","ready":true,"image":"registry.example/press:2.4.1","imageID":"sha256:9f86d081884c7d65","restartCount":0,
				"state":{"running":{"startedAt":"2026-03-01T12:00:00Z"}}}],
			"conditions":[{"type":"PodScheduled","status":"True","lastTransitionTime":"2026-03-01T12:00:00Z"},
				{"type":"Ready","status":"True","lastTransitionTime":"2026-03-01T12:00:00Z"}]}}`, name)
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
