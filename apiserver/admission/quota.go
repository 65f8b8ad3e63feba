package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/quota"
)

// quotas refuses what would use more of a namespace than its quotas allow. What is used is counted anew from the store for each
// write, and a ledger in the write's transaction makes sure that nothing was written meanwhile: quotas hold exactly, whoever writes at
// the same time and whichever server leads.
type quotas struct {
	counter *quota.Counter
	now     func() time.Time
}

func resourceQuota(cfg Config) Plugin {
	q := &quotas{counter: cfg.Quotas, now: cfg.Now}
	if q.counter == nil {
		q.counter = quota.NewCounter()
	}
	if q.now == nil {
		q.now = time.Now
	}
	return Plugin{Name: "ResourceQuota", Review: q.review, Removed: func(r store.Reader, gone api.Object) []store.Op {
		if last, ok := gone.(*corev1.ResourceQuota); ok {
			return quota.Closed(r, last)
		}
		return nil
	}}
}

// charge is a quota that limits a write, and how much more of it the write uses.
type charge struct {
	quota *corev1.ResourceQuota
	more  corev1.ResourceList
}

func (q *quotas) review(ctx context.Context, a *store.Admission) error {
	if !handles(a) {
		return nil
	}
	namespace := a.Object.GetNamespace()
	charges, err := q.charges(a)
	if err != nil || len(charges) == 0 {
		return err
	}
	if err := a.Alone(ctx, quota.Ledger(namespace)); err != nil {
		return err
	}
	turn, err := quota.Turn(a.Reader, namespace)
	if err != nil {
		return err
	}
	if charges, err = q.charges(a); err != nil || len(charges) == 0 { // the quotas may have changed while we waited
		return err
	}
	for i, c := range charges {
		used, _ := q.counter.Used(a.Reader, c.quota, []*api.Kind{a.Kind}, q.now())
		total, err := c.fits(used)
		if err != nil {
			return err
		}
		if i == 0 && a.Kind.Resource != "resourcequotas" {
			if err := showUsed(a, c.quota, total); err != nil {
				return err
			}
		}
	}
	a.Also(turn)
	return nil
}

// handles tells the writes that may use more than before.
func handles(a *store.Admission) bool {
	if a.Operation == store.OpDelete || !quota.Counted(a.Kind, a.Object.GetNamespace()) {
		return false
	}
	if a.Operation == store.OpCreate {
		return a.Subresource == ""
	}
	switch newer := a.Object.(type) {
	case *corev1.Pod:
		older := a.Old.(*corev1.Pod)
		return a.Subresource == "resize" ||
			a.Subresource == "" && (newer.Spec.ActiveDeadlineSeconds == nil) != (older.Spec.ActiveDeadlineSeconds == nil)
	case *corev1.Service, *corev1.PersistentVolumeClaim:
		return a.Subresource == ""
	}
	return false
}

// charges finds the quotas that a write uses more of, in the order of their names.
func (q *quotas) charges(a *store.Admission) ([]charge, error) {
	all := store.List[corev1.ResourceQuota](a.Reader, a.Object.GetNamespace())
	if len(all) == 0 {
		return nil, nil
	}
	now := q.now()
	newer := quota.Of(a.Kind, a.Object)
	var charges []charge
	for _, rq := range all {
		names := quota.Names(a.Kind, rq.Spec.Hard)
		if len(names) == 0 || !quota.InScope(rq, a.Kind, &newer) {
			continue
		}
		if pod, ok := a.Object.(*corev1.Pod); ok {
			if missing := quota.Missing(pod, names); len(missing) > 0 {
				return nil, fmt.Errorf("failed quota: %s: must specify %s", rq.Name, tellMissing(missing))
			}
		}
		before := corev1.ResourceList{}
		if a.Old != nil {
			if older := quota.Of(a.Kind, a.Old); quota.InScope(rq, a.Kind, &older) {
				before = older.Usage(now)
			}
		}
		more := corev1.ResourceList{}
		usage := newer.Usage(now)
		for _, name := range names {
			n := usage[name].DeepCopy()
			if n.Sign() < 0 {
				return nil, fmt.Errorf("quota usage is negative for resource(s): %s", name)
			}
			n.Sub(before[name])
			if n.Sign() > 0 {
				more[name] = n
			}
		}
		if len(more) > 0 {
			charges = append(charges, charge{rq, more})
		}
	}
	return charges, nil
}

func tellMissing(missing map[corev1.ResourceName][]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		slices.Sort(missing[name])
		parts = append(parts, fmt.Sprintf("%s for: %s", name, strings.Join(slices.Compact(missing[name]), ",")))
	}
	return strings.Join(parts, "; ")
}

// fits adds what the write uses to what is used, and refuses it if that is too much.
func (c *charge) fits(used corev1.ResourceList) (total corev1.ResourceList, err error) {
	total = maps.Clone(used)
	var exceeded []corev1.ResourceName
	for _, name := range slices.Sorted(maps.Keys(c.more)) {
		n := used[name].DeepCopy()
		n.Add(c.more[name])
		total[name] = n
		if n.Cmp(c.quota.Spec.Hard[name]) > 0 {
			exceeded = append(exceeded, name)
		}
	}
	if len(exceeded) == 0 {
		return total, nil
	}
	tell := func(list corev1.ResourceList) string {
		parts := make([]string, len(exceeded))
		for i, name := range exceeded {
			n := list[name]
			parts[i] = string(name) + "=" + n.String()
		}
		return strings.Join(parts, ",")
	}
	return nil, fmt.Errorf("exceeded quota: %s, requested: %s, used: %s, limited: %s", c.quota.Name, tell(c.more), tell(used), tell(c.quota.Spec.Hard))
}

// showUsed lets the status of a quota say what is used as soon as it is. A transaction has room for one quota; a controller sees to the
// others, and to what is used less.
func showUsed(a *store.Admission, rq *corev1.ResourceQuota, used corev1.ResourceList) error {
	item, ok := a.Reader.Get(store.KeyOf(a.Reader, rq))
	if !ok || store.FormatRevision(item.Revision) != rq.ResourceVersion {
		return nil // it changes just now: whoever changes it sees to its status
	}
	shown := rq.DeepCopy()
	shown.Status.Hard = shown.Spec.Hard
	if shown.Status.Used == nil {
		return nil // it is new, and what others use of it is not counted yet
	}
	maps.Copy(shown.Status.Used, used)
	value, err := api.Encode(shown)
	if err != nil {
		return err
	}
	a.Also(store.Op{Key: item.Key, Value: value, Expect: item.Revision})
	return nil
}
