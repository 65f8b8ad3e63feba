package fieldmanager

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// upstream is the schema that upstream makes of its own document of a group.
func upstream(t *testing.T, name string) []smd.TypeDef {
	t.Helper()
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(module)), "api", "openapi-spec", "v3", name))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct{ Schemas map[string]*spec.Schema }
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	made, err := schemaconv.ToSchemaFromOpenAPI(doc.Components.Schemas, false)
	if err != nil {
		t.Fatal(err)
	}
	return made.Types
}

// plainTypes puts types in order and leaves out what does not matter: the order of fields, and defaults of other than scalars.
func plainTypes(types []smd.TypeDef) map[string]smd.Atom {
	all := map[string]smd.Atom{}
	var visit func(smd.Atom)
	visit = func(a smd.Atom) {
		if a.List != nil {
			visit(a.List.ElementType.Inlined)
		}
		if m := a.Map; m != nil {
			visit(m.ElementType.Inlined)
			slices.SortFunc(m.Fields, func(x, y smd.StructField) int { return strings.Compare(x.Name, y.Name) })
			for i, f := range m.Fields {
				visit(f.Type.Inlined)
				switch f.Default.(type) {
				case string, bool, float64:
				default:
					m.Fields[i].Default = nil
				}
			}
		}
	}
	for _, t := range types {
		visit(t.Atom)
		all[t.Name] = t.Atom
	}
	return all
}

// TestTheEmbeddedSchemaIsUpstreams: nothing is lost on the way through the Document, and nothing is out of date.
func TestTheEmbeddedSchemaIsUpstreams(t *testing.T) {
	p, err := schemas()
	if err != nil {
		t.Fatal(err)
	}
	embedded := plainTypes(p.Schema.Types)
	compared := 0
	for _, name := range []string{"api__v1_openapi.json", "apis__apps__v1_openapi.json"} {
		original := plainTypes(upstream(t, name))
		for name, want := range original {
			if got, ok := embedded[name]; ok {
				compared++
				if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(smd.Map{}), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("%s: run make generate: %s", name, diff)
				}
			}
		}
	}
	if compared < 100 {
		t.Errorf("only %d types were compared", compared)
	}
}
