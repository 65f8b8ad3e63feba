package apiserver

import (
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/store"
)

// shape gives an object the form that was asked for, complete with kind and version. Tables of a stream have their columns
// in the first one only.
func (s *Server) shape(req *request, out output, kind *api.Kind, obj api.Object, columns bool) (runtime.Object, error) {
	switch out.as {
	case asTable:
		row, err := s.row(req, kind, obj)
		if err != nil {
			return nil, err
		}
		table := &metav1.Table{TypeMeta: tableMeta(), Rows: []metav1.TableRow{row}}
		table.ResourceVersion = obj.GetResourceVersion()
		if columns {
			table.ColumnDefinitions = columnsOf(kind)
		}
		return table, nil
	case asPartial, asPartialList:
		return partial(obj), nil
	}
	return show(kind, obj)
}

// show is a stored object in the version asked for, with its name.
func show(kind *api.Kind, obj api.Object) (api.Object, error) {
	shown, err := asked(kind, obj)
	if err != nil {
		return nil, err
	}
	shown.GetObjectKind().SetGroupVersionKind(kind.GVK)
	return shown, nil
}

// asked is a stored object in the version asked for; nil stays nil.
func asked(kind *api.Kind, obj api.Object) (api.Object, error) {
	if kind.FromStored == nil || obj == nil {
		return obj, nil
	}
	return kind.FromStored(obj)
}

// preparedAtOnce is how many objects are converted by one call of a webhook.
const preparedAtOnce = 128

// prepare has the first of some objects converted, where a webhook does that, so that each of them need not be.
func (s *Server) prepare(kind *api.Kind, items []store.Item) error {
	if !custom.Converts(kind) {
		return nil
	}
	var objects []api.Object
	for _, item := range items[:min(len(items), preparedAtOnce)] {
		obj, err := s.cfg.Durable.Decode(item)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		objects = append(objects, obj)
	}
	if err := custom.Prepare(kind, objects); err != nil {
		return apierrors.NewInternalError(err)
	}
	return nil
}

func tableMeta() metav1.TypeMeta { return metav1.TypeMeta{Kind: asTable, APIVersion: "meta.k8s.io/v1"} }

func partial(obj api.Object) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{Kind: asPartial, APIVersion: "meta.k8s.io/v1"},
		ObjectMeta: *objectMeta(obj),
	}
}

// embeddedMeta is the metadata struct inside an object, or nil.
func embeddedMeta(obj any) *metav1.ObjectMeta {
	o, ok := obj.(interface{ GetObjectMeta() metav1.Object })
	if !ok {
		return nil
	}
	m, _ := o.GetObjectMeta().(*metav1.ObjectMeta)
	return m
}

// objectMeta finds the metadata struct inside an object; every stored type embeds one.
func objectMeta(obj api.Object) *metav1.ObjectMeta {
	if m := embeddedMeta(obj); m != nil {
		return m
	}
	return &metav1.ObjectMeta{Name: obj.GetName(), Namespace: obj.GetNamespace(), ResourceVersion: obj.GetResourceVersion()}
}

func columnsOf(kind *api.Kind) []metav1.TableColumnDefinition {
	columns := make([]metav1.TableColumnDefinition, len(kind.Columns))
	for i, c := range kind.Columns {
		columns[i] = metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description}
		if c.Wide {
			columns[i].Priority = 1
		}
	}
	return columns
}

// row is an object as a row of a Table.
func (s *Server) row(req *request, kind *api.Kind, obj api.Object) (metav1.TableRow, error) {
	row := metav1.TableRow{Cells: kind.Row(obj, s.cfg.Now())}
	include, err := included(req, kind, obj)
	if err != nil || include == nil {
		return row, err
	}
	raw, err := json.Marshal(include)
	if err != nil {
		return row, fmt.Errorf("apiserver: encode %s: %w", kind.GVK.Kind, err)
	}
	row.Object.Raw = raw
	return row, nil
}

// included is as much of an object as was asked for with its row: its metadata by default.
func included(req *request, kind *api.Kind, obj api.Object) (any, error) {
	switch metav1.IncludeObjectPolicy(req.query.Get("includeObject")) {
	case metav1.IncludeNone:
		return nil, nil
	case metav1.IncludeObject:
		return show(kind, obj)
	case metav1.IncludeMetadata, "":
		return partial(obj), nil
	}
	return nil, errBadRequest("unrecognized includeObject value: %q", req.query.Get("includeObject"))
}
