package fieldmanager

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/api"
)

// TestFreshIsUpstreams compares the entry of a creation with that of upstream's whole field manager, for an object of each kind.
func TestFreshIsUpstreams(t *testing.T) {
	files, err := filepath.Glob("../testdata/kinds/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	compared := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(data, []byte("\n---\n")) {
			var example struct{ Object map[string]any }
			if err := yaml.Unmarshal(doc, &example); err != nil {
				t.Fatal(err)
			}
			gvk := (&unstructured.Unstructured{Object: example.Object}).GroupVersionKind()
			t.Run(gvk.String(), func(t *testing.T) { compareFresh(t, api.ByGVK(gvk), example.Object) })
			compared++
		}
	}
	if compared < 50 {
		t.Errorf("compared only %d kinds", compared)
	}
}

func compareFresh(t *testing.T, kind *api.Kind, content map[string]any) {
	obj := kind.New()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, obj); err != nil {
		t.Fatal(err)
	}
	if kind.Default != nil {
		kind.Default(obj)
	}
	m, err := New().For(kind, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, manager := range []string{"somebody", ""} {
		upstreams, ours := obj.DeepCopyObject().(api.Object), obj.DeepCopyObject().(api.Object)
		m.fields.UpdateNoErrors(m.kind.named(kind.New()), m.kind.named(upstreams), manager)
		if !m.fresh.track(m.kind.named(ours), manager) {
			t.Fatal("not tracked")
		}
		if diff := cmp.Diff(timeless(upstreams), timeless(ours)); diff != "" {
			t.Errorf("upstream, then ours:\n%s", diff)
		}
	}
}

// timeless are an object's entries in a form that can be compared.
func timeless(obj api.Object) (entries []string) {
	for _, e := range obj.GetManagedFields() {
		e.Time = &metav1.Time{}
		text, err := yaml.Marshal(e)
		if err != nil {
			panic(err)
		}
		entries = append(entries, string(text))
	}
	return entries
}
