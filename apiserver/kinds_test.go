package apiserver_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/expression"
)

// kindCase is what is known of one kind: a good manifest, the row that it makes, and bad changes to it with what is said of them.
type kindCase struct {
	Object map[string]any `json:"object"`
	Row    []any          `json:"row"`
	Bad    []struct {
		Patch json.RawMessage `json:"patch"`
		Says  string          `json:"says"`
	} `json:"bad"`
	// Change is a merge patch that a second write makes, Status one of the status, Immutable one that is refused.
	Change    json.RawMessage `json:"change"`
	Status    json.RawMessage `json:"status"`
	Immutable *struct {
		Patch json.RawMessage `json:"patch"`
		Says  string          `json:"says"`
	} `json:"immutable"`
	// Warns is what a client is told that creates it.
	Warns string `json:"warns"`
}

// TestEveryKind takes a good object of each kind through its life, and refuses bad ones in upstream's words.
func TestEveryKind(t *testing.T) {
	covered := map[schema.GroupVersionKind]bool{}
	eachKind(t, func(c *kindCase, object *unstructured.Unstructured) {
		gvk := object.GroupVersionKind()
		covered[gvk] = true
		t.Run(gvk.String(), func(t *testing.T) { c.run(t, object, api.ByGVK(gvk)) })
	})
	for _, k := range api.Served() {
		if !covered[k.GVK] {
			t.Errorf("no example of %s", k.GVK)
		}
	}
}

func (c *kindCase) run(t *testing.T, object *unstructured.Unstructured, k *api.Kind) {
	if k == nil {
		t.Fatal("not served")
	}
	b := newBed(t)
	collection := collectionOf(k)
	path := collection + "/" + object.GetName()
	good := mustJSON(t, object)
	if expression.Evaluated {
		c.Warns = strings.TrimPrefix(c.Warns, "stored, but not enforced")
	}
	for _, bad := range c.Bad {
		if expression.Evaluated && strings.Contains(bad.Says, "evaluates no CEL") {
			continue
		}
		refused(t, b, call{method: "POST", path: collection, body: merged(t, good, bad.Patch)}, bad.Says)
	}

	if tried, _ := b.do(call{method: "POST", path: collection + "?dryRun=All", body: good}); !strings.Contains(tried.Header.Get("Warning"), c.Warns) ||
		tried.Header.Get("Warning") != "" && c.Warns == "" {
		t.Errorf("warned of %q", tried.Header.Get("Warning"))
	}
	made := b.write(call{method: "POST", path: collection + "?fieldValidation=Strict", body: good}, 201)
	if made.GetUID() == "" || made.GetResourceVersion() == "" || made.GetAPIVersion() != object.GetAPIVersion() {
		t.Errorf("created: %v", made)
	}
	if !contains(made.Object["spec"], object.Object["spec"]) {
		t.Errorf("created: %s", cmp.Diff(object.Object["spec"], made.Object["spec"]))
	}
	c.checkRow(t, b, path)
	var list unstructured.UnstructuredList
	b.get(&list, call{path: collection + "?fieldSelector=metadata.name=" + object.GetName()})
	if len(list.Items) != 1 || list.Items[0].GetUID() != made.GetUID() || list.GetKind() != k.GVK.Kind+"List" {
		t.Errorf("listed: %v", list)
	}
	answer, data := b.do(call{path: collection, header: accept("application/vnd.kubernetes.protobuf")})
	if answer.StatusCode != 200 || !bytes.HasPrefix(data, []byte("k8s\x00")) {
		t.Errorf("as Protobuf: %d %s", answer.StatusCode, data)
	}

	same := b.write(call{method: "PUT", path: path, body: mustJSON(t, made)}, 200)
	if same.GetResourceVersion() != made.GetResourceVersion() {
		t.Errorf("an update without a change is a change: %s", cmp.Diff(made.Object, same.Object))
	}
	if c.Immutable != nil {
		refused(t, b, patchOf(path, c.Immutable.Patch), c.Immutable.Says)
	}
	if c.Change != nil {
		changed := b.write(patchOf(path, c.Change), 200)
		if !contains(changed.Object, decoded(t, c.Change)) {
			t.Errorf("changed: %v", changed)
		}
		if g := made.GetGeneration(); g != 0 && changed.GetGeneration() != g+1 {
			t.Errorf("generation %d after %d", changed.GetGeneration(), g)
		}
	}
	if (c.Status != nil) != k.HasSubresource("status") {
		t.Errorf("status: %t, and an example: %t", k.HasSubresource("status"), c.Status != nil)
	}
	if c.Status != nil {
		status := b.write(patchOf(path+"/status", c.Status), 200)
		if !contains(status.Object, decoded(t, c.Status)) {
			t.Errorf("status: %v", status.Object["status"])
		}
	}
	b.watchedUntilDeleted(t, collection, path, made)
}

// checkRow compares the cells of the object's Table, but for its age.
func (c *kindCase) checkRow(t *testing.T, b *bed, path string) {
	t.Helper()
	var table metav1.Table
	b.get(&table, call{path: path, header: accept("application/json;as=Table;v=v1;g=meta.k8s.io")})
	if len(table.Rows) != 1 || len(table.ColumnDefinitions) != len(table.Rows[0].Cells) {
		t.Fatalf("table: %+v", table)
	}
	if diff := cmp.Diff(c.Row, table.Rows[0].Cells); diff != "" {
		t.Errorf("row: %s", diff)
	}
}

// watchedUntilDeleted deletes the object under the eyes of a watch.
func (b *bed) watchedUntilDeleted(t *testing.T, collection, path string, made *unstructured.Unstructured) {
	t.Helper()
	stream := b.open(call{path: collection + "?watch=true&resourceVersion=" + made.GetResourceVersion()})
	answer, data := b.do(call{method: "DELETE", path: path + "?propagationPolicy=Background"})
	if answer.StatusCode != 200 {
		t.Fatalf("delete: %d %s", answer.StatusCode, data)
	}
	events := json.NewDecoder(stream.Body)
	for {
		var event struct {
			Type   string
			Object unstructured.Unstructured
		}
		if err := events.Decode(&event); err != nil {
			t.Fatal(err)
		}
		if event.Object.GetUID() != made.GetUID() || event.Object.GetAPIVersion() != made.GetAPIVersion() {
			t.Fatalf("watched: %v", event)
		}
		if event.Type == "DELETED" || event.Object.GetDeletionTimestamp() != nil { // a namespace waits for its controller
			return
		}
	}
}

// write makes a change that must succeed.
func (b *bed) write(c call, code int) *unstructured.Unstructured {
	b.t.Helper()
	answer, data := b.do(c)
	if answer.StatusCode != code {
		b.t.Fatalf("%s %s: %d %s", c.method, c.path, answer.StatusCode, data)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		b.t.Fatal(err)
	}
	return u
}

func refused(t *testing.T, b *bed, c call, says string) {
	t.Helper()
	answer, data := b.do(c)
	var status metav1.Status
	if err := json.Unmarshal(data, &status); err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != 422 || !strings.Contains(status.Message, says) {
		t.Errorf("%s: got %d %s\nwant 422 %s", c.body, answer.StatusCode, status.Message, says)
	}
}

func patchOf(path string, patch json.RawMessage) call {
	return call{method: "PATCH", path: path, body: string(patch), header: map[string]string{"Content-Type": "application/merge-patch+json"}}
}

// contains reports whether all of want is in got, whatever else is.
func contains(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		for key, value := range want {
			ok = ok && contains(got[key], value)
		}
		return ok
	case []any:
		got, ok := got.([]any)
		ok = ok && len(got) == len(want)
		for i := range want {
			ok = ok && contains(got[i], want[i])
		}
		return ok
	case nil:
		return true
	default:
		return cmp.Equal(toFloat(got), toFloat(want))
	}
}

func toFloat(v any) any {
	if n, ok := v.(int64); ok {
		return float64(n)
	}
	return v
}

func decoded(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// merged is a document with a merge patch applied.
func merged(t *testing.T, doc string, patch []byte) string {
	t.Helper()
	out, err := jsonpatch.MergePatch([]byte(doc), patch)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// eachKind calls f with every example of testdata/kinds.
func eachKind(t *testing.T, f func(*kindCase, *unstructured.Unstructured)) {
	t.Helper()
	files, err := filepath.Glob("testdata/kinds/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, doc := range bytes.Split(data, []byte("\n---\n")) {
			var c kindCase
			if err := yaml.UnmarshalStrict(doc, &c); err != nil {
				t.Fatalf("%s, document %d: %v", file, i, err)
			}
			f(&c, &unstructured.Unstructured{Object: c.Object})
		}
	}
}

// collectionOf is the path of a kind's objects.
func collectionOf(k *api.Kind) string {
	path := "/apis/" + k.GVK.GroupVersion().String()
	if k.GVK.Group == "" {
		path = "/api/v1"
	}
	if k.Namespaced {
		path += "/namespaces/default"
	}
	return path + "/" + k.Resource
}
