package apiserver_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/store"
)

// FuzzApply: whatever a client applies to an object that others own, upon an answer of success each entry can be read, and the
// same again changes nothing.
func FuzzApply(f *testing.F) {
	f.Add(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i:1"}]}}`)
	f.Add("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: d\n    image: x\n    ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]\n")
	f.Add(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","finalizers":["a.b/c","a.b/c"]},"spec":null}`)
	f.Add(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c"},{"name":"c"},{}]}}`)
	f.Add("a: &a [*a]")
	f.Fuzz(func(t *testing.T, body string) {
		durable := store.New(store.Config{Kinds: api.Kinds()})
		client := store.NewClient(store.ClientConfig{Durable: durable, Propose: store.NewLocal(durable)})
		c := &consensus{durable: durable}
		c.leads.Store(true)
		h := apiserver.New(apiserver.Config{Client: client, Durable: durable, Consensus: c}).Handler()
		if _, err := client.Create(t.Context(), podOn("p", "")); err != nil {
			t.Fatal(err)
		}
		apply := func() *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPatch, pods+"/p?fieldManager=f&force=true", strings.NewReader(body))
			r.Header.Set("Content-Type", applyType)
			subject := pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}
			r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: subject}}}}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		first := apply()
		// What does not fit the schema is told with upstream's code, 500, and without a reason.
		if first.Code >= 500 && strings.Contains(first.Body.String(), `"reason"`) {
			t.Fatalf("%d %s", first.Code, first.Body)
		}
		if first.Code != http.StatusOK {
			return
		}
		item, _ := durable.Get(store.Key{Resource: "pods", Namespace: "default", Name: "p"})
		obj, err := durable.Decode(item)
		if err != nil {
			t.Fatal(err)
		}
		if err := managedfields.ValidateManagedFields(obj.GetManagedFields()); err != nil {
			t.Error(err)
		}
		if again := apply(); again.Code != http.StatusOK {
			t.Fatalf("again: %d %s", again.Code, again.Body)
		}
		if now, _ := durable.Get(item.Key); now.Revision != item.Revision {
			t.Error("applying the same again wrote something")
		}
	})
}

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
