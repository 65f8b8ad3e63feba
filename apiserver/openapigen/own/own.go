// Package own owns the OpenAPI descriptions of shoal's own kinds, for the commands that write the embedded documents. Schemas come
// from the Go types and the comments at their fields, paths from those of an upstream kind of the same shape.
package own

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-edge/shoal/api"
)

// Suffix ends the names of shoal's own groups.
const Suffix = ".shoal.dev"

// The upstream kind whose paths ours are made from: without a namespace, with a status.
const (
	TemplateDocument = "apis__storage.k8s.io__v1"
	templatePath     = "/apis/storage.k8s.io/v1/volumeattachments"
)

const (
	module  = "github.com/shoal-edge/shoal/"
	metaPkg = "io.k8s.apimachinery.pkg.apis.meta.v1."
)

// Node is a part of a document.
type Node = map[string]any

// Kinds are shoal's own.
func Kinds() []*api.Kind {
	return slices.DeleteFunc(slices.Clone(api.Served()), func(k *api.Kind) bool { return !strings.HasSuffix(k.GVK.Group, Suffix) })
}

// Style is how a version of OpenAPI writes things.
type Style struct {
	Root string // where the schemas are
	V2   bool
}

// V2 and V3 are the two styles.
func V2() Style { return Style{Root: "#/definitions/", V2: true} }
func V3() Style { return Style{Root: "#/components/schemas/"} }

// Schemas describes the types of all our kinds, by name. sources is the folder of shoal's module.
func Schemas(sources string, style Style) (map[string]Node, error) {
	d := &describer{sources: sources, style: style, docs: map[string]map[string]string{}, schemas: map[string]Node{}}
	for _, k := range Kinds() {
		for _, of := range []struct {
			t    reflect.Type
			kind string
		}{{reflect.TypeOf(k.New()).Elem(), k.GVK.Kind}, {reflect.TypeOf(k.NewList()).Elem(), k.GVK.Kind + "List"}} {
			name, err := d.describe(of.t)
			if err != nil {
				return nil, err
			}
			d.schemas[name]["x-kubernetes-group-version-kind"] = []any{
				Node{"group": k.GVK.Group, "version": k.GVK.Version, "kind": of.kind},
			}
		}
	}
	return d.schemas, nil
}

type describer struct {
	sources string
	style   Style
	docs    map[string]map[string]string // by package: the comments of types, and of fields as Type.Field
	schemas map[string]Node
}

// nameOf is the group's domain backwards, the version and the type: "dev.shoal.firmware.v1.Release".
func nameOf(t reflect.Type) (string, bool) {
	rest, ok := strings.CutPrefix(t.PkgPath(), module+"api/")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 2 {
		return "", false
	}
	return "dev.shoal." + parts[0] + "." + parts[1] + "." + t.Name(), true
}

// describe adds a struct's schema, once, and returns its name.
func (d *describer) describe(t reflect.Type) (string, error) {
	name, ok := nameOf(t)
	if !ok {
		return "", fmt.Errorf("%s is no type of ours", t)
	}
	if d.schemas[name] != nil {
		return name, nil
	}
	docs, err := d.comments(t.PkgPath())
	if err != nil {
		return "", err
	}
	schema := Node{"type": "object", "description": docs[t.Name()]}
	d.schemas[name] = schema
	properties, required := Node{}, []any{}
	if err := d.fields(t, properties, &required); err != nil {
		return "", err
	}
	schema["properties"] = properties
	if len(required) > 0 {
		schema["required"] = required
	}
	return name, nil
}

func (d *describer) fields(t reflect.Type, properties Node, required *[]any) error {
	docs, err := d.comments(t.PkgPath())
	if err != nil {
		return err
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Type == reflect.TypeFor[metav1.TypeMeta]():
			meta := metav1.TypeMeta{}.SwaggerDoc()
			properties["apiVersion"] = Node{"type": "string", "description": meta["apiVersion"]}
			properties["kind"] = Node{"type": "string", "description": meta["kind"]}
			continue
		case strings.Contains(options, "inline"):
			if err := d.fields(f.Type, properties, required); err != nil {
				return err
			}
			continue
		}
		schema, err := d.value(f.Type)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
		if ref, ok := schema["$ref"]; ok && !d.style.V2 {
			schema = Node{"allOf": []any{Node{"$ref": ref}}}
		}
		schema["description"] = docs[t.Name()+"."+f.Name]
		properties[name] = schema
		if !strings.Contains(options, "omitempty") && !strings.HasSuffix(t.Name(), "Status") && !strings.HasSuffix(t.Name(), "Counts") {
			*required = append(*required, name)
		}
	}
	return nil
}

func (d *describer) value(t reflect.Type) (Node, error) {
	switch t {
	case reflect.TypeFor[metav1.Time]():
		return Node{"type": "string", "format": "date-time"}, nil
	case reflect.TypeFor[metav1.Duration]():
		return Node{"type": "string"}, nil
	case reflect.TypeFor[metav1.ObjectMeta](), reflect.TypeFor[metav1.ListMeta](), reflect.TypeFor[metav1.LabelSelector]():
		return Node{"$ref": d.style.Root + metaPkg + t.Name()}, nil
	case reflect.TypeFor[intstr.IntOrString]():
		if d.style.V2 {
			return Node{"type": "string", "format": "int-or-string"}, nil
		}
		return Node{"format": "int-or-string", "oneOf": []any{Node{"type": "integer"}, Node{"type": "string"}}}, nil
	case reflect.TypeFor[[]byte]():
		return Node{"type": "string", "format": "byte"}, nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.value(t.Elem())
	case reflect.String:
		return Node{"type": "string"}, nil
	case reflect.Bool:
		return Node{"type": "boolean"}, nil
	case reflect.Int32:
		return Node{"type": "integer", "format": "int32"}, nil
	case reflect.Int64:
		return Node{"type": "integer", "format": "int64"}, nil
	case reflect.Slice:
		items, err := d.value(t.Elem())
		return Node{"type": "array", "items": items}, err
	case reflect.Map:
		items, err := d.value(t.Elem())
		return Node{"type": "object", "additionalProperties": items}, err
	case reflect.Struct:
		name, err := d.describe(t)
		return Node{"$ref": d.style.Root + name}, err
	}
	return nil, fmt.Errorf("%s is not described", t)
}

// comments reads what a package's source says of its types and their fields.
func (d *describer) comments(pkg string) (map[string]string, error) {
	if docs, ok := d.docs[pkg]; ok {
		return docs, nil
	}
	files, err := filepath.Glob(filepath.Join(d.sources, strings.TrimPrefix(pkg, module), "*.go"))
	if err != nil {
		return nil, err
	}
	docs := map[string]string{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, decl := range parsed.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, s := range g.Specs {
				spec := s.(*ast.TypeSpec)
				docs[spec.Name.Name] = text(g.Doc)
				if st, ok := spec.Type.(*ast.StructType); ok {
					for _, f := range st.Fields.List {
						for _, name := range f.Names {
							docs[spec.Name.Name+"."+name.Name] = text(f.Doc)
						}
						if id, ok := f.Type.(*ast.SelectorExpr); ok && len(f.Names) == 0 {
							docs[spec.Name.Name+"."+id.Sel.Name] = text(f.Doc)
						}
					}
				}
			}
		}
	}
	d.docs[pkg] = docs
	return docs, nil
}

func text(doc *ast.CommentGroup) string { return strings.Join(strings.Fields(doc.Text()), " ") }

var errNoTemplate = errors.New("upstream's document has no paths of volumeattachments: name another kind")

// Paths are the paths of a kind of ours, made from an upstream document's.
func Paths(k *api.Kind, upstream map[string]any) (Node, error) {
	group := strings.TrimSuffix(k.GVK.Group, Suffix)
	name, _ := nameOf(reflect.TypeOf(k.New()).Elem())
	upper := strings.ToUpper(group[:1]) + group[1:]
	rename := strings.NewReplacer(
		"io.k8s.api.storage.v1.VolumeAttachment", name, "storage.k8s.io", k.GVK.Group, "volumeattachments", k.Resource,
		"StorageV1", upper+"ShoalV1", "storage_v1", group+"Shoal_v1", "VolumeAttachment", k.GVK.Kind,
	)
	paths := Node{}
	for path, operations := range upstream {
		if path != templatePath && !strings.HasPrefix(path, templatePath+"/") {
			continue
		}
		if strings.HasSuffix(path, "/status") && !k.HasSubresource("status") {
			continue
		}
		data, err := json.Marshal(operations)
		if err != nil {
			return nil, err
		}
		var renamed any
		if err := json.Unmarshal([]byte(rename.Replace(string(data))), &renamed); err != nil {
			return nil, err
		}
		paths[rename.Replace(path)] = renamed
	}
	if len(paths) == 0 {
		return nil, errNoTemplate
	}
	return paths, nil
}
