package controllers

import (
	"context"
	"time"

	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1defaults "k8s.io/kubernetes/pkg/apis/scheduling/v1"

	"github.com/shoal-edge/shoal/store"
)

// addPriorityClasses keeps the priority classes of the system in being. They alone are this loop's.
func (c *Controllers) addPriorityClasses() {
	l := c.newLoop("priority-classes", 1, func(ctx context.Context, k store.Key) (time.Duration, error) {
		for _, class := range schedulingv1defaults.SystemPriorityClasses() {
			if _, there := c.reader.Get(k); class.Name != k.Name || there {
				continue
			}
			_, err := c.client.Create(ctx, class)
			return 0, ignoreExists(err)
		}
		return 0, nil
	})
	for _, name := range schedulingv1defaults.SystemPriorityClassNames() {
		l.add(key(priorityClasses, "", name))
	}
	c.follow(priorityClasses, "", each(func(class *schedulingv1.PriorityClass, deleted bool) {
		if deleted {
			l.add(key(priorityClasses, "", class.Name))
		}
	}))
}
