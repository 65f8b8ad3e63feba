package custom

import (
	"encoding/json"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/shoal-edge/shoal/api"
)

// columns gives the kind the columns of its definition behind the name; there is an age when it says nothing.
func (v *Version) columns(defined []apiextensionsv1.CustomResourceColumnDefinition) {
	docs := metav1.ObjectMeta{}.SwaggerDoc()
	if len(defined) == 0 {
		defined = []apiextensionsv1.CustomResourceColumnDefinition{
			{Name: "Age", Type: "date", Description: docs["creationTimestamp"], JSONPath: ".metadata.creationTimestamp"},
		}
	}
	v.Kind.Columns = []api.Column{{Name: "Name", Type: "string", Format: "name", Description: docs["name"]}}
	paths := make([]path, len(defined))
	for i, c := range defined {
		description := c.Description
		if description == "" {
			description = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		v.Kind.Columns = append(v.Kind.Columns, api.Column{
			Name: c.Name, Type: c.Type, Format: c.Format, Description: description, Wide: c.Priority > 0,
		})
		var err error
		if paths[i], err = parsePath(c.JSONPath); err != nil {
			paths[i] = path{func(any) []any { return nil }} // one that cannot be read finds nothing
		}
	}
	columns := v.Kind.Columns
	v.Kind.Row = func(o api.Object, now time.Time) []any {
		row := make([]any, 1, len(columns))
		row[0] = o.GetName()
		var whole map[string]any
		seen, err := v.see(o.(*Object))
		if err == nil {
			whole, err = seen.Whole()
		}
		for i, p := range paths {
			found := p.find(whole)
			if err != nil || len(found) == 0 {
				row = append(row, nil)
				continue
			}
			row = append(row, cell(columns[i+1].Type, found[0], now))
		}
		return row
	}
}

// cell shows a value in a column of a type. A value of another type is not shown.
func cell(columnType string, value any, now time.Time) any {
	switch columnType {
	case "string":
		return print(value)
	case "integer":
		switch n := value.(type) {
		case int64:
			return n
		case float64:
			return int64(n)
		}
	case "number":
		switch n := value.(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		}
	case "boolean":
		if b, ok := value.(bool); ok {
			return b
		}
	case "date":
		text, ok := value.(string)
		if !ok {
			return nil
		}
		at, err := time.Parse(time.RFC3339, text)
		switch {
		case text == "" || text == "null":
			return "<unknown>"
		case err != nil:
			return "<invalid>"
		}
		return duration.HumanDuration(now.Sub(at))
	}
	return nil
}

// print is a value as text: what is not plain as JSON.
func print(value any) any {
	switch value := value.(type) {
	case nil:
		return "<nil>"
	case string:
		return value
	case map[string]any, []any:
		data, err := json.Marshal(value)
		if err != nil {
			return nil
		}
		return string(data)
	}
	return fmt.Sprint(value)
}

// fieldsOf is an object as its fields are selected by. Where nothing converts, all versions have the same.
func (v *Version) fieldsOf(o *Object) (*Object, error) {
	if !v.Definition.converts() {
		return o, nil
	}
	return v.see(o)
}

// selectable gives the kind the fields that its definition lets be selected by.
func (v *Version) selectable(defined []apiextensionsv1.SelectableField) {
	if len(defined) == 0 {
		return
	}
	v.Kind.Fields = func(o api.Object) map[string]string {
		fields := map[string]string{}
		var content map[string]any
		if seen, err := v.fieldsOf(o.(*Object)); err == nil {
			content = seen.Content()
		}
		for _, f := range defined {
			at := split(f.JSONPath)
			value, found, err := unstructured.NestedFieldNoCopy(content, at...)
			name := f.JSONPath[1:]
			fields[name] = ""
			if found && err == nil {
				fields[name] = fmt.Sprint(value)
			}
		}
		return fields
	}
}
