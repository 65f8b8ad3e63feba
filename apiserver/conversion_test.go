package apiserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// gaugeDefinition has a field that is called host in one version, and is a list of hosts in the other.
const gaugeDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gauges.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: gauges, kind: Gauge}
  conversion:
    strategy: Webhook
    webhook: {conversionReviewVersions: [v1], clientConfig: {url: "URL", caBundle: CA}}
  versions:
  - name: v1
    served: true
    storage: OLD
    selectableFields: [{jsonPath: .host}]
    additionalPrinterColumns: [{name: Host, type: string, jsonPath: .host}]
    schema: {openAPIV3Schema: {type: object, required: [host], properties: {host: {type: string, maxLength: 9}, port: {type: integer, default: 80}}}}
  - name: v2
    served: true
    storage: NEW
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, properties: {hosts: {type: array, items: {type: string}}, port: {type: integer},
      status: {type: object, properties: {seen: {type: boolean}}}}}}
`

// turner is the webhook of gauges. It counts how often it is asked.
type turner struct {
	*httptest.Server
	asked, turned atomic.Int32
	broken        atomic.Bool
}

func newTurner(t *testing.T) (*turner, []byte) {
	t.Helper()
	r := newReviewer(t)
	w := &turner{Server: r.Server}
	r.Config.Handler = http.HandlerFunc(func(out http.ResponseWriter, q *http.Request) {
		var review apiextensionsv1.ConversionReview
		if err := json.NewDecoder(q.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		w.asked.Add(1)
		review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		if w.broken.Load() {
			review.Response.Result = metav1.Status{Status: metav1.StatusFailure, Message: "the webhook is broken"}
		}
		for _, raw := range review.Request.Objects {
			w.turned.Add(1)
			var o map[string]any
			if err := json.Unmarshal(raw.Raw, &o); err != nil {
				t.Error(err)
			}
			if host, ok := o["host"].(string); ok {
				o["hosts"] = []string{host}
				delete(o, "host")
			} else if hosts, ok := o["hosts"].([]any); ok {
				o["host"] = hosts[0]
				delete(o, "hosts")
			}
			o["apiVersion"] = review.Request.DesiredAPIVersion
			data, err := json.Marshal(o)
			if err != nil {
				t.Error(err)
			}
			review.Response.ConvertedObjects = append(review.Response.ConvertedObjects, runtime.RawExtension{Raw: data})
		}
		review.Request = nil
		_ = json.NewEncoder(out).Encode(&review)
	})
	return w, r.ca
}

func (w *turner) definition(t *testing.T, ca []byte, storage string) string {
	t.Helper()
	encoded, err := json.Marshal(ca)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("URL", w.URL+"/", "CA", string(encoded), "OLD", fmt.Sprint(storage == "v1"), "NEW", fmt.Sprint(storage == "v2")).Replace(gaugeDefinition)
}

const gaugesV1, gaugesV2 = "/apis/example.com/v1/namespaces/default/gauges", "/apis/example.com/v2/namespaces/default/gauges"

func gauge(version, name, rest string) string {
	return `{"apiVersion":"example.com/` + version + `","kind":"Gauge","metadata":{"name":"` + name + `"},` + rest + `}`
}

func TestConversionWebhook(t *testing.T) {
	b := newBed(t)
	w, ca := newTurner(t)
	b.define(w.definition(t, ca, "v1"))
	made := b.mustDo(call{method: "POST", path: gaugesV2, body: gauge("v2", "a", `"hosts":["pi"]`)}, 201)
	if made["apiVersion"] != "example.com/v2" || fmt.Sprint(made["hosts"]) != "[pi]" || made["host"] != nil {
		t.Errorf("made: %v", made)
	}
	stored := b.mustDo(call{path: gaugesV1 + "/a"}, 200)
	if stored["apiVersion"] != "example.com/v1" || stored["host"] != "pi" || fmt.Sprint(stored["port"]) != "80" || stored["hosts"] != nil {
		t.Errorf("stored: %v", stored)
	}
	// Its author's own version says what is right, and what it has of its own is kept by an update.
	_, data := b.do(call{method: "POST", path: gaugesV2, body: gauge("v2", "b", `"hosts":"pi"`)})
	mustContain(t, data, `hosts: Invalid value: \"string\": hosts in body must be of type array`)
	_, data = b.do(call{method: "POST", path: gaugesV1, body: gauge("v1", "b", `"host":"much too long"`)})
	mustContain(t, data, "host: Too long")
	patched := b.mustDo(patchOf(gaugesV2+"/a", []byte(`{"port":81}`)), 200)
	if fmt.Sprint(patched["hosts"], patched["port"]) != "[pi] 81" {
		t.Errorf("patched: %v", patched)
	}
	for i := range 5 {
		b.mustDo(call{method: "POST", path: gaugesV1, body: gauge("v1", fmt.Sprint("c", i), `"host":"h`+fmt.Sprint(i)+`"`)}, 201)
	}
	// A list is converted as a whole, and once.
	before := w.asked.Load()
	list := b.mustDo(call{path: gaugesV2}, 200)
	again := b.mustDo(call{path: gaugesV2}, 200)
	if n := len(list["items"].([]any)); n != 6 || len(again["items"].([]any)) != 6 || w.asked.Load() > before+1 {
		t.Errorf("%d objects, asked %d times", n, w.asked.Load()-before)
	}
	if last := list["items"].([]any)[5].(object); fmt.Sprint(last["hosts"]) != "[h4]" {
		t.Errorf("%v", last)
	}
	// Fields and columns are those of the version that is asked for.
	some := b.mustDo(call{path: gaugesV1 + "?fieldSelector=host%3Dh2"}, 200)
	if items := some["items"].([]any); len(items) != 1 || items[0].(object)["host"] != "h2" {
		t.Errorf("%v", some)
	}
	b.mustDo(call{path: gaugesV2 + "?fieldSelector=host%3Dh2"}, 400)
	stream := b.watch(gaugesV2 + "?watch=1&resourceVersion=" + again["metadata"].(object)["resourceVersion"].(string))
	b.mustDo(call{method: "POST", path: gaugesV1, body: gauge("v1", "d", `"host":"new"`)}, 201)
	line, err := stream.read.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	mustContain(t, line, `"hosts":["new"]`)
	// A webhook that fails is told of.
	w.broken.Store(true)
	b.mustDo(call{method: "POST", path: gaugesV1, body: gauge("v1", "e", `"host":"e"`)}, 201)
	_, data = b.do(call{path: gaugesV2 + "/e"})
	mustContain(t, data, "conversion webhook for example.com/v1, Kind=Gauge failed: the webhook is broken")
	_, data = b.do(call{path: gaugesV2})
	mustContain(t, data, "the webhook is broken")
}

// What was stored before another version became the stored one is found in that one, too.
func TestConversionOfWhatWasStoredBefore(t *testing.T) {
	b := newBed(t)
	w, ca := newTurner(t)
	b.define(w.definition(t, ca, "v1"))
	b.mustDo(call{method: "POST", path: gaugesV1, body: gauge("v1", "a", `"host":"pi"`)}, 201)
	d := b.mustDo(call{path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gauges.example.com"}, 200)
	versions := d["spec"].(object)["versions"].([]any)
	versions[0].(object)["storage"], versions[1].(object)["storage"] = false, true
	body, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	b.mustDo(call{method: "PUT", path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gauges.example.com", body: string(body)}, 200)
	got := b.mustDo(call{path: gaugesV2 + "/a"}, 200)
	if fmt.Sprint(got["hosts"]) != "[pi]" || got["apiVersion"] != "example.com/v2" {
		t.Errorf("%v", got)
	}
	patched := b.mustDo(patchOf(gaugesV2+"/a", []byte(`{"hosts":["x"],"status":{"seen":true}}`)), 200)
	if fmt.Sprint(patched["hosts"], patched["status"]) != "[x] <nil>" || fmt.Sprint(patched["metadata"].(object)["generation"]) != "2" {
		t.Errorf("%v", patched)
	}
	if seen := b.mustDo(call{path: gaugesV1 + "/a"}, 200); seen["host"] != "x" {
		t.Errorf("%v", seen)
	}
	w.broken.Store(true)
	b.mustDo(call{path: gaugesV2 + "/a"}, 200) // it is stored in that version now
}
