package quota

import (
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// Counter counts what namespaces use. It keeps the measure of each object that it had to decode, for as long as the object does not
// change: of namespaces with quotas only.
type Counter struct {
	mu    sync.Mutex
	known map[string]map[string]map[string]measured // by namespace, resource and name
}

type measured struct {
	revision uint64
	Measure
}

// NewCounter returns a counter.
func NewCounter() *Counter { return &Counter{known: map[string]map[string]map[string]measured{}} }

// Used is what a quota's namespace uses of all that it limits, at the present state of the store; next is when that changes although
// nothing is written, zero if it does not.
func (c *Counter) Used(r store.Reader, q *corev1.ResourceQuota, kinds []*api.Kind, now time.Time) (used corev1.ResourceList, next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	used = corev1.ResourceList{}
	for _, kind := range kinds {
		names := Names(kind, q.Spec.Hard)
		if len(names) == 0 || !Counted(kind, q.Namespace) {
			continue
		}
		total := c.usedBy(r, q, kind, now, &next)
		for _, name := range names {
			n := total[name]
			if n.Format == "" {
				n.Format = resource.DecimalSI
			}
			used[name] = n
		}
	}
	return used, next
}

// Forget drops what is known of a namespace that has no quota any more.
func (c *Counter) Forget(namespace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, namespace)
}

// Counted reports whether quotas count the objects of a kind. Events come and go as they like, and so do heartbeats.
func Counted(kind *api.Kind, namespace string) bool {
	return kind.Namespaced && kind.Resource != "events" && kind.ClassOf(namespace) == api.Durable
}

func (c *Counter) usedBy(
	r store.Reader, q *corev1.ResourceQuota, kind *api.Kind, now time.Time, next *time.Time,
) corev1.ResourceList {
	items, _ := r.List(kind.GroupResource(), q.Namespace)
	total := corev1.ResourceList{}
	if !slices.Contains([]string{pods, services, claims}, kind.GroupResource()) {
		if none := (Measure{}); InScope(q, kind, &none) {
			for _, name := range countNames(kind) {
				total[name] = *resource.NewQuantity(int64(len(items)), resource.DecimalSI)
			}
		}
		return total
	}
	for _, m := range c.measures(r, kind, q.Namespace, items) {
		if !InScope(q, kind, &m.Measure) {
			continue
		}
		for name, n := range m.Usage(now) {
			t := total[name]
			t.Add(n)
			total[name] = t
		}
		if m.until.After(now) && !m.ended && (next.IsZero() || m.until.Before(*next)) {
			*next = m.until
		}
	}
	return total
}

// measures are those of all objects of a kind in a namespace; only what has changed is decoded.
func (c *Counter) measures(r store.Reader, kind *api.Kind, namespace string, items []store.Item) map[string]measured {
	if c.known[namespace] == nil {
		c.known[namespace] = map[string]map[string]measured{}
	}
	older := c.known[namespace][kind.GroupResource()]
	newer := make(map[string]measured, len(items))
	for _, item := range items {
		m, ok := older[item.Key.Name]
		if !ok || m.revision != item.Revision {
			obj, ok := r.Object(item)
			if !ok {
				continue
			}
			m = measured{revision: item.Revision, Measure: Of(kind, obj)}
		}
		newer[item.Key.Name] = m
	}
	c.known[namespace][kind.GroupResource()] = newer
	return newer
}
