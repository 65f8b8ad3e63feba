package apiserver

import (
	"fmt"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// selector picks objects by label and by field.
type selector struct {
	kind   *api.Kind
	decode func(store.Item) (api.Object, error)
	labels labels.Selector
	fields fields.Selector
}

func (s *Server) newSelector(req *request) (*selector, error) {
	return parseSelector(req, s.cfg.Durable.Decode)
}

func parseSelector(req *request, decode func(store.Item) (api.Object, error)) (*selector, error) {
	s := &selector{kind: req.kind, decode: decode}
	var err error
	if s.labels, err = labels.Parse(req.query.Get("labelSelector")); err != nil {
		return nil, errBadRequest("unable to parse requirement: %v", err)
	}
	if s.fields, err = fields.ParseSelector(req.query.Get("fieldSelector")); err != nil {
		return nil, errBadRequest("%v", err)
	}
	known := s.fieldsOf(req.kind.Storage().New())
	for _, r := range s.fields.Requirements() {
		if !known.Has(r.Field) {
			return nil, errBadRequest("field label not supported: %s", r.Field)
		}
	}
	return s, nil
}

// everything reports whether no object is left out.
func (s *selector) everything() bool { return s.labels.Empty() && s.fields.Empty() }

// exact returns the one value that a field must have, if the selector says so.
func (s *selector) exact(field string) (string, bool) { return s.fields.RequiresExactMatch(field) }

func (s *selector) matches(obj api.Object) bool {
	if !s.labels.Empty() && !s.labels.Matches(labels.Set(obj.GetLabels())) {
		return false
	}
	return s.fields.Empty() || s.fields.Matches(s.fieldsOf(obj))
}

func (s *selector) fieldsOf(obj api.Object) fields.Set {
	set := fields.Set{}
	if s.kind.Fields != nil {
		set = s.kind.Fields(obj)
	}
	set["metadata.name"] = obj.GetName()
	if s.kind.Namespaced {
		set["metadata.namespace"] = obj.GetNamespace()
	}
	return set
}

// matchesItem decodes and matches an item; one without a value matches nothing.
func (s *selector) matchesItem(item store.Item) (api.Object, bool, error) {
	if item.Value == nil {
		return nil, false, nil
	}
	obj, err := s.decode(item)
	if err != nil {
		return nil, false, fmt.Errorf("apiserver: %w", err)
	}
	return obj, s.matches(obj), nil
}

// candidates narrows a list down with what the store can find at once: a name, or an index that is also a field.
func (s *selector) candidates(r store.Reader, namespace string) ([]store.Item, bool) {
	resource := s.kind.Storage().GroupResource()
	if name, ok := s.exact("metadata.name"); ok && (namespace != "" || !s.kind.Namespaced) {
		item, found := r.Get(store.Key{Resource: resource, Namespace: namespace, Name: name})
		if !found {
			return nil, true
		}
		return []store.Item{item}, true
	}
	node, ok := s.exact("spec.nodeName")
	if !ok || resource != "pods" {
		return nil, false
	}
	var items []store.Item
	for _, item := range r.ByIndex(resource, "node", node) {
		if namespace == "" || item.Key.Namespace == namespace {
			items = append(items, item)
		}
	}
	return items, true
}
