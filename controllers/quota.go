package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/quota"
)

// quotaDelay is how long changes of what quotas count are gathered before they are counted.
const quotaDelay = 100 * time.Millisecond

// quotaLoop keeps the status of every ResourceQuota: what is allowed, and what is used. It alone owns what is used less; what is used
// more is written with the object that uses it. A key stands for a namespace.
type quotaLoop struct {
	c       *Controllers
	loop    *loop
	counter *quota.Counter

	mu      sync.Mutex
	limited map[string]map[string]bool // the quotas of each namespace
}

func (c *Controllers) addQuotas() {
	q := &quotaLoop{c: c, counter: c.cfg.Quotas, limited: map[string]map[string]bool{}}
	if q.counter == nil {
		q.counter = quota.NewCounter()
	}
	q.loop = c.newLoop("quota", 1, q.reconcile)
	c.follow(resourceQuotas, "", reader{changed: func(ch *change) {
		q.note(ch.Item.Key, ch.deleted())
		q.loop.add(key(resourceQuotas, ch.Item.Key.Namespace, ""))
	}})
	counted := reader{changed: func(ch *change) {
		if ns := ch.Item.Key.Namespace; q.isLimited(ns) {
			q.loop.queue.addAfter(key(resourceQuotas, ns, ""), quotaDelay)
		}
	}}
	for _, kind := range api.Kinds() {
		resource := kind.GroupResource()
		if kind.Namespaced && resource != leases && resource != events {
			c.follow(resource, "", counted)
		}
	}
	c.custom.readers = append(c.custom.readers, counted)
}

func (q *quotaLoop) note(k store.Key, deleted bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if deleted {
		delete(q.limited[k.Namespace], k.Name)
		if len(q.limited[k.Namespace]) == 0 {
			delete(q.limited, k.Namespace)
			q.counter.Forget(k.Namespace)
		}
		return
	}
	if q.limited[k.Namespace] == nil {
		q.limited[k.Namespace] = map[string]bool{}
	}
	q.limited[k.Namespace][k.Name] = true
}

func (q *quotaLoop) isLimited(namespace string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limited[namespace] != nil
}

func (q *quotaLoop) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	var soonest time.Time
	for _, rq := range store.List[corev1.ResourceQuota](q.c.reader, k.Namespace) {
		_, next, exact := q.status(rq)
		if !next.IsZero() && (soonest.IsZero() || next.Before(soonest)) {
			soonest = next
		}
		if exact {
			continue
		}
		_, err := q.c.client.Modify(ctx, key(resourceQuotas, rq.Namespace, rq.Name), "status", func(obj api.Object) error {
			current := obj.(*corev1.ResourceQuota)
			status, _, exact := q.status(current)
			if exact {
				return errKeep
			}
			current.Status = status
			return nil
		})
		if err != nil && !errors.Is(err, errKeep) && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("quota %s/%s: %w", rq.Namespace, rq.Name, err)
		}
	}
	if soonest.IsZero() {
		return 0, nil
	}
	return max(time.Millisecond, soonest.Sub(q.c.now())+time.Millisecond), nil
}

// status is what the status of a quota should be, from when on it should be another, and whether it is exact already.
func (q *quotaLoop) status(rq *corev1.ResourceQuota) (want corev1.ResourceQuotaStatus, next time.Time, exact bool) {
	used, next := q.counter.Used(q.c.reader, rq, q.c.kinds(), q.c.now())
	want = corev1.ResourceQuotaStatus{Hard: rq.Spec.Hard, Used: used}
	return want, next, apiequality.Semantic.DeepEqual(want, rq.Status)
}
