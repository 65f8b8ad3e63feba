package apiserver_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/store"
)

// FuzzBody: whatever a client sends, it gets an answer that does not blame the server, and what was stored decodes.
func FuzzBody(f *testing.F) {
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}`
	f.Add("POST", "application/json", pod)
	f.Add("POST", "application/yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: &a {x: y}, annotations: *a}\n")
	f.Add("POST", "application/vnd.kubernetes.protobuf", "k8s\x00\n\x09\n\x02v1\x12\x03Pod\x12\x05\n\x03\n\x01p")
	f.Add("POST", "application/json", strings.Repeat("[", 10000))
	f.Add("PATCH", "application/json-patch+json", `[{"op":"add","path":"/metadata/labels","value":{"a":"b"}},{"op":"copy","from":"/spec","path":"/status"}]`)
	f.Add("PATCH", "application/merge-patch+json", `{"metadata":{"labels":{"a":"b"},"name":null}}`)
	f.Add("PATCH", "application/strategic-merge-patch+json", `{"spec":{"$setElementOrder/containers":[{"name":"c"}],"containers":[{"$patch":"replace"},{"name":"c"}]}}`)
	f.Fuzz(func(t *testing.T, method, contentType, body string) {
		durable := store.New(store.Config{Kinds: api.Kinds()})
		client := store.NewClient(store.ClientConfig{Durable: durable, Propose: store.NewLocal(durable)})
		c := &consensus{durable: durable}
		c.leads.Store(true)
		h := apiserver.New(apiserver.Config{Client: client, Durable: durable, Consensus: c}).Handler()
		path := pods
		if method != http.MethodPost {
			if _, err := client.Create(t.Context(), podOn("p", "")); err != nil {
				t.Fatal(err)
			}
			method, path = http.MethodPatch, pods+"/p"
		}
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header["Content-Type"] = []string{contentType}
		subject := pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: subject}}}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		items, _ := durable.List("pods", "")
		for _, item := range items {
			if _, err := api.Decode(api.ByResource("pods"), item.Value, item.Revision); err != nil {
				t.Error(err)
			}
		}
	})
}
