package controllers

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// feed follows one resource for all controllers: one list, then one watch, each object decoded once at most. When the watch
// breaks off it lists again.
type feed struct {
	kind      *api.Kind
	namespace string
	client    *store.Client
	readers   []reader
	source    *store.Store
	watcher   *store.Watcher
}

// reader is one controller's view of a feed. Its functions must be quick: they take notes and add keys.
type reader struct {
	// relist and listed, if set, are called before and after the whole state comes, object by object, at the start and after
	// a gap: what did not come in between is gone.
	relist, listed func()
	// changed gets each object of a list (as Added) and each change after that.
	changed func(*change)
}

// change is one change of one object.
type change struct {
	store.Event
	source *store.Store
	object api.Object
	meta   *metav1.ObjectMeta
}

func (c *change) deleted() bool { return c.Type == store.Deleted }

// decode returns the object, shared by all readers of the change: nobody may change it. Nil: it does not decode.
func (c *change) decode() api.Object {
	if c.object == nil {
		if object, ok := c.source.Object(c.Item); ok {
			c.object = object
		}
	}
	return c.object
}

// metadata decodes the metadata only, which is much cheaper.
func (c *change) metadata() *metav1.ObjectMeta {
	if c.meta == nil {
		c.meta = metaOf(c.Item.Value)
	}
	return c.meta
}

// metaOf reads the metadata of an encoded object of any kind: it is the first field of all of them.
func metaOf(value []byte) *metav1.ObjectMeta {
	var partial metav1.PartialObjectMetadata
	if err := partial.Unmarshal(value); err != nil {
		return &metav1.ObjectMeta{}
	}
	return &partial.ObjectMeta
}

// each gives the decoded objects to a controller.
func each[T any](changed func(object *T, deleted bool)) reader {
	return reader{changed: func(c *change) {
		if object, ok := any(c.decode()).(*T); ok {
			changed(object, c.deleted())
		}
	}}
}

// keys adds the key of each object that changes to a loop.
func keys(l *loop) reader {
	return reader{changed: func(c *change) { l.add(c.Item.Key) }}
}

// follow has a reader follow a resource in one namespace, or in all of them for the empty one.
func (c *Controllers) follow(resource, namespace string, r reader) {
	for _, f := range c.feeds {
		if f.kind.GroupResource() == resource && f.namespace == namespace {
			f.readers = append(f.readers, r)
			return
		}
	}
	c.feeds = append(c.feeds, &feed{kind: api.ByResource(resource), namespace: namespace, client: c.client, readers: []reader{r}})
}

// list opens the watch and passes the whole state on, so that every controller knows everything before the first one acts.
func (f *feed) list() error {
	source, err := f.client.ReaderFor(f.kind, f.namespace)
	if err != nil {
		return fmt.Errorf("follow %s: %w", f.kind.Resource, err)
	}
	items, _, watcher := source.ListAndWatch(f.kind.GroupResource(), f.namespace)
	f.source, f.watcher = source, watcher
	for _, r := range f.readers {
		if r.relist != nil {
			r.relist()
		}
	}
	for _, item := range items {
		f.pass(store.Event{Type: store.Added, Item: item})
	}
	for _, r := range f.readers {
		if r.listed != nil {
			r.listed()
		}
	}
	return nil
}

func (f *feed) pass(event store.Event) {
	c := &change{Event: event, source: f.source}
	for _, r := range f.readers {
		r.changed(c)
	}
}

// run passes changes on until ctx ends. It needs a list before.
func (f *feed) run(ctx context.Context) error {
	defer func() { f.watcher.Close() }()
	for {
		events, err := f.watcher.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrGone), errors.Is(err, store.ErrSlow):
			f.watcher.Close()
			if err := f.list(); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("follow %s: %w", f.kind.Resource, err)
		}
		for _, event := range events {
			f.pass(event)
		}
	}
}
