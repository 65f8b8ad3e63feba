package controllers

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
)

// kinds are all kinds, the defined ones in their stored version.
func (c *Controllers) kinds() []*api.Kind {
	kinds := slices.Clone(api.Kinds())
	for _, d := range c.client.Definitions() {
		if d.Storage != nil {
			kinds = append(kinds, d.Storage.Kind)
		}
	}
	return kinds
}

// kind finds a kind by the name that an owner reference has for it; nil when it is not served.
func (c *Controllers) kind(gvk schema.GroupVersionKind) *api.Kind {
	if kind := api.ByGVK(gvk); kind != nil {
		return kind
	}
	for _, d := range c.client.Definitions() {
		for _, v := range d.Served {
			if v.Kind.GVK == gvk {
				return d.Storage.Kind
			}
		}
	}
	return nil
}

// customFeeds follows the objects of all defined kinds for those controllers that care for objects of any kind. Feeds begin and
// end with the definitions.
type customFeeds struct {
	c       *Controllers
	readers []reader
	wake    chan struct{}
	running map[string]*customFeed
}

type customFeed struct {
	*feed
	stop context.CancelFunc // nil: it was listed, but does not run yet
}

func (c *Controllers) addCustomFeeds() {
	c.custom = &customFeeds{c: c, wake: make(chan struct{}, 1), running: map[string]*customFeed{}}
	c.follow(definitions, "", reader{changed: func(*change) {
		select {
		case c.custom.wake <- struct{}{}:
		default:
		}
	}})
	c.runners = append(c.runners, c.custom.run)
}

// follow lists the objects of the kinds that are new, so that every controller knows them.
func (f *customFeeds) follow() error {
	for _, d := range f.c.client.Definitions() {
		if d.Storage == nil || f.running[d.Name] != nil {
			continue
		}
		made := &customFeed{feed: &feed{kind: d.Storage.Kind, client: f.c.client, readers: f.readers}}
		if err := made.list(); err != nil {
			return fmt.Errorf("follow %s: %w", d.Name, err)
		}
		f.running[d.Name] = made
	}
	return nil
}

func (f *customFeeds) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for ctx.Err() == nil {
		if err := f.follow(); err != nil {
			return err
		}
		there := map[string]bool{}
		for _, d := range f.c.client.Definitions() {
			there[d.Name] = true
		}
		for name, one := range f.running {
			switch {
			case one.stop == nil:
				var feedContext context.Context
				feedContext, one.stop = context.WithCancel(ctx)
				group.Go(func() error { return one.run(feedContext) })
			case !there[name]:
				one.stop()
				delete(f.running, name)
			}
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
		}
	}
	for _, one := range f.running {
		if one.stop != nil { // leadership may end before it ever ran
			one.stop()
		}
	}
	return group.Wait()
}
