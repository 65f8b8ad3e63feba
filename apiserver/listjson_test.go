package apiserver_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	partialAccept     = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
	partialListAccept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
)

// TestListShowsWhatGetShows: the items of a list are the objects themselves, whatever managers they have.
func TestListShowsWhatGetShows(t *testing.T) {
	b := newBed(t)
	for i := range 3 {
		b.mustDo(call{method: http.MethodPost, path: configMaps + "?fieldManager=one", body: fmt.Sprintf(
			`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c%d","annotations":{"app":"<&>"}},"data":{"a":"1"}}`, i)}, http.StatusCreated)
	}
	b.mustDo(call{method: http.MethodPatch, path: configMaps + "/c1?fieldManager=two", body: `{"data":{"b":"2"}}`, header: map[string]string{
		"Content-Type": "application/merge-patch+json",
	}}, http.StatusOK)
	entry := metav1.ManagedFieldsEntry{Manager: "three", Operation: "Update", Subresource: "status", FieldsType: "FieldsV1", APIVersion: "v1"}
	strange := configMap("strange", nil)
	for _, raw := range []string{"", "{ \"f:data\" :\n {} }"} {
		e := entry
		e.FieldsV1 = &metav1.FieldsV1{Raw: []byte(raw)}
		if raw == "" {
			e.FieldsV1 = nil
		}
		strange.ManagedFields = append(strange.ManagedFields, e)
	}
	b.create(strange)
	b.create(configMap("unmanaged", nil))

	b.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", ManagedFields: strange.ManagedFields}})
	for _, path := range []string{configMaps, "/api/v1/nodes", "/api/v1/namespaces"} {
		for _, accept := range []string{"application/json", partialAccept, partialListAccept} {
			one := accept
			if accept == partialListAccept {
				one = partialAccept
			}
			b.sameItems(path, "items", call{path: path, header: map[string]string{"Accept": accept}}, call{header: map[string]string{"Accept": one}})
		}
		for _, include := range []string{"", "None", "Metadata", "Object"} {
			query, header := "?includeObject="+include, map[string]string{"Accept": tableAccept}
			b.sameItems(path, "rows", call{path: path + query, header: header}, call{path: query, header: header})
		}
	}
}

// sameItems compares the members of a list with the objects one by one.
func (b *bed) sameItems(path, member string, list, one call) {
	b.t.Helper()
	var names struct {
		Items []metav1.PartialObjectMetadata
	}
	b.get(&names, call{path: path})
	if len(names.Items) == 0 {
		b.t.Fatal("nothing is listed")
	}
	listed := object{}
	b.get(&listed, list)
	for i, name := range names.Items {
		single, get := object{}, one
		get.path = path + "/" + name.Name + one.path
		b.get(&single, get)
		want, have := any(single), listed[member].([]any)[i]
		if member == "rows" {
			want = single["rows"].([]any)[0]
		} else {
			delete(single, "kind")
			delete(single, "apiVersion")
			delete(have.(object), "kind") // which the items of lists of metadata have
			delete(have.(object), "apiVersion")
		}
		if diff := cmp.Diff(want, have); diff != "" {
			b.t.Errorf("%s as %s: get (-) and list (+) differ:\n%s", list.path, list.header["Accept"], diff)
		}
	}
}
