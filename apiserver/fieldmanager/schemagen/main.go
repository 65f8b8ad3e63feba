// Command schemagen writes the merge schema that package fieldmanager embeds: that of the kinds that shoal serves, made of
// upstream's OpenAPI documents in the k8s.io/kubernetes module.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/fieldmanager"
	"github.com/shoal-edge/shoal/apiserver/openapigen/own"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: schemagen OUTPUT-FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "schemagen:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return fmt.Errorf("find k8s.io/kubernetes: %w", err)
	}
	specs := filepath.Join(strings.TrimSpace(string(module)), "api", "openapi-spec", "v3")
	models := map[string]*spec.Schema{}
	kinds := map[string]string{}
	for _, gvk := range served() {
		if err := add(specs, gvk.GroupVersion(), models); err != nil {
			return fmt.Errorf("%s: %w", gvk, err)
		}
	}
	if err := addOwn(models); err != nil {
		return err
	}
	for _, gvk := range served() {
		for name, model := range models {
			if describes(model, gvk) {
				kinds[fieldmanager.Key(gvk)] = name
			}
		}
	}
	types, err := schemaconv.ToSchemaFromOpenAPI(models, false)
	if err != nil {
		return err
	}
	return write(out, fieldmanager.NewDocument(kinds, reached(kinds, types)))
}

// served are the kinds that can be applied.
func served() []schema.GroupVersionKind {
	all := []schema.GroupVersionKind{autoscalingv1.SchemeGroupVersion.WithKind("Scale")}
	for _, k := range api.Served() {
		all = append(all, k.GVK)
	}
	return all
}

// add puts the schemas of a group's document into models. What upstream does not have is left out.
func add(specs string, gv schema.GroupVersion, models map[string]*spec.Schema) error {
	name := "apis__" + gv.Group + "__" + gv.Version
	if gv.Group == "" {
		name = "api__" + gv.Version
	}
	data, err := os.ReadFile(filepath.Join(specs, name+"_openapi.json"))
	if os.IsNotExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	var doc struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	maps.Copy(models, doc.Components.Schemas)
	return nil
}

// addOwn puts the schemas of shoal's own kinds into models.
func addOwn(models map[string]*spec.Schema) error {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find this module: %w", err)
	}
	schemas, err := own.Schemas(strings.TrimSpace(string(module)), own.V3())
	if err != nil {
		return err
	}
	data, err := json.Marshal(schemas)
	if err != nil {
		return err
	}
	described := map[string]*spec.Schema{}
	if err := json.Unmarshal(data, &described); err != nil {
		return err
	}
	maps.Copy(models, described)
	return nil
}

func describes(model *spec.Schema, gvk schema.GroupVersionKind) bool {
	list, _ := model.Extensions["x-kubernetes-group-version-kind"].([]any)
	for _, entry := range list {
		m, _ := entry.(map[string]any)
		if m["group"] == gvk.Group && m["version"] == gvk.Version && m["kind"] == gvk.Kind {
			return true
		}
	}
	return false
}

// reached are the types that the kinds are made of.
func reached(kinds map[string]string, types *smd.Schema) []smd.TypeDef {
	var keep []smd.TypeDef
	seen := map[string]bool{}
	var visit func(smd.TypeRef)
	visit = func(r smd.TypeRef) {
		atom := r.Inlined
		if r.NamedType != nil {
			def, ok := types.FindNamedType(*r.NamedType)
			if !ok || seen[def.Name] {
				return
			}
			seen[def.Name], keep, atom = true, append(keep, def), def.Atom
		}
		if atom.List != nil {
			visit(atom.List.ElementType)
		}
		if m := atom.Map; m != nil {
			visit(m.ElementType)
			for _, f := range m.Fields {
				visit(f.Type)
			}
		}
	}
	for _, name := range kinds {
		visit(smd.TypeRef{NamedType: &name})
	}
	return keep
}

func write(out string, doc *fieldmanager.Document) error {
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(z).Encode(doc); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(out, buf.Bytes(), 0o644)
}
