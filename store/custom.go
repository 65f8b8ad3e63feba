package store

import (
	"maps"
	"sync"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
)

// definitions is where the definitions of custom kinds are. One is named as the resource that it defines, so the kind of a resource
// is found by its name.
const definitions = "customresourcedefinitions.apiextensions.k8s.io"

// customs keeps what was made of the stored definitions. It follows nothing: a definition that has another revision by now is read
// again, so whoever has applied a definition has its kind, on every server alike.
type customs struct {
	mu   sync.Mutex
	made map[string]madeDefinition
}

type madeDefinition struct {
	revision   uint64
	definition *custom.Definition
}

// of returns the definition that an item holds; nil when it cannot be read.
func (c *customs) of(s *Store, item Item) *custom.Definition {
	c.mu.Lock()
	defer c.mu.Unlock()
	if made, ok := c.made[item.Key.Name]; ok && made.revision == item.Revision {
		return made.definition
	}
	d, err := custom.New(item.Value, s.converter)
	if err != nil {
		s.logger.Error("a definition is skipped", "key", item.Key.String(), "error", err)
	}
	if c.made == nil {
		c.made = map[string]madeDefinition{}
	}
	c.made[item.Key.Name] = madeDefinition{item.Revision, d}
	return d
}

// keep forgets the definitions that are not among the items.
func (c *customs) keep(items []Item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.made) <= len(items) {
		return
	}
	there := make(map[string]bool, len(items))
	for _, item := range items {
		there[item.Key.Name] = true
	}
	maps.DeleteFunc(c.made, func(name string, _ madeDefinition) bool { return !there[name] })
}

func (c *customs) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.made, name)
}

// Definition returns what defines a resource such as "crontabs.example.com", or nil.
func (s *Store) Definition(resource string) *custom.Definition {
	item, ok := s.Get(Key{Resource: definitions, Name: resource})
	if !ok {
		s.customs.forget(resource)
		return nil
	}
	return s.customs.of(s, item)
}

// Definitions returns the definitions of all custom kinds, by name.
func (s *Store) Definitions() []*custom.Definition {
	items, _ := s.List(definitions, "")
	var all []*custom.Definition
	for _, item := range items {
		if d := s.customs.of(s, item); d != nil {
			all = append(all, d)
		}
	}
	s.customs.keep(items)
	return all
}

// CustomKinds returns the custom kinds in the version that is stored, by the name of their resource.
func (s *Store) CustomKinds() []*api.Kind {
	var kinds []*api.Kind
	for _, d := range s.Definitions() {
		if d.Storage != nil {
			kinds = append(kinds, d.Storage.Kind)
		}
	}
	return kinds
}

// customKind is the stored version of a defined kind; nil when there is none.
func (s *Store) customKind(resource string) *api.Kind {
	d := s.Definition(resource)
	if d == nil || d.Storage == nil {
		return nil
	}
	return d.Storage.Kind
}
