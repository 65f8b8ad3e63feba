package apiserver_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"

	"github.com/shoal-edge/shoal/api"
)

// inCBOR makes a request in CBOR and decodes the answer.
func (b *bed) inCBOR(into any, c call, body any) *http.Response {
	b.t.Helper()
	if c.header == nil {
		c.header = map[string]string{"Content-Type": "application/cbor"}
	}
	c.header["Accept"] = "application/cbor"
	if body != nil {
		data, err := direct.Marshal(body)
		if err != nil {
			b.t.Fatal(err)
		}
		c.body = string(data)
	}
	answer, data := b.do(c)
	if got := answer.Header.Get("Content-Type"); got != "application/cbor" {
		b.t.Errorf("%s: %d %q %s", c.path, answer.StatusCode, got, data)
	}
	if err := direct.Unmarshal(data, into); err != nil {
		b.t.Fatal(err)
	}
	return answer
}

func TestCBOR(t *testing.T) {
	b := newBed(t)
	made := configMap("a", nil)
	made.APIVersion, made.Kind = "v1", "ConfigMap"
	var cm corev1.ConfigMap
	b.inCBOR(&cm, call{method: "POST", path: configMaps}, made)
	if cm.UID == "" || cm.Kind != "ConfigMap" || len(cm.ManagedFields) != 1 {
		t.Errorf("%+v", cm)
	}
	b.inCBOR(&cm, call{
		method: "PATCH", path: configMaps + "/a?fieldManager=f", header: map[string]string{"Content-Type": "application/apply-patch+cbor"},
	}, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "data": map[string]any{"b": "c"}})
	if diff := cmp.Diff(map[string]string{"k": "v", "b": "c"}, cm.Data); diff != "" {
		t.Error(diff)
	}
	var list corev1.ConfigMapList
	b.inCBOR(&list, call{path: configMaps}, nil)
	if len(list.Items) != 1 || list.Items[0].Name != "a" || list.ResourceVersion == "" || list.Kind != "ConfigMapList" {
		t.Errorf("%+v", list)
	}
	var status metav1.Status
	b.inCBOR(&status, call{path: configMaps + "/none"}, nil)
	if status.Code != http.StatusNotFound {
		t.Errorf("%+v", status)
	}
	b.inCBOR(&status, call{method: "POST", path: configMaps + "?fieldValidation=Strict"},
		map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "b"}, "bogus": 1})
	if status.Code != http.StatusBadRequest {
		t.Errorf("%+v", status)
	}

	answer := b.open(call{path: configMaps + "?watch=1&resourceVersion=0", header: map[string]string{"Accept": "application/cbor-seq, application/cbor"}})
	if got := answer.Header.Get("Content-Type"); got != "application/cbor-seq" {
		t.Fatalf("%q", got)
	}
	reader := cbor.NewFramer().NewFrameReader(answer.Body)
	frame := make([]byte, 8<<10)
	n, err := reader.Read(frame)
	if err != nil {
		t.Fatal(err)
	}
	var e metav1.WatchEvent
	if err := direct.Unmarshal(frame[:n], &e); err != nil {
		t.Fatal(err)
	}
	obj, _, err := cbor.NewSerializer(api.Scheme(), api.Scheme()).Decode(e.Object.Raw, nil, &corev1.ConfigMap{})
	if err != nil || e.Type != "ADDED" || obj.(*corev1.ConfigMap).Name != "a" {
		t.Errorf("%s %+v %v", e.Type, obj, err)
	}
}
