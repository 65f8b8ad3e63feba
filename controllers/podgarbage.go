package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/scheduler"
	"github.com/shoal-edge/shoal/store"
)

// podGarbage removes the pods of nodes that do not exist, which no device will ever report on, and the oldest finished pods
// when there are too many.
type podGarbage struct {
	c        *Controllers
	orphans  *loop
	finished *loop

	mu      sync.Mutex
	missing map[string]time.Time      // since when a node that pods name does not exist
	done    map[store.Key]metav1.Time // finished pods, by their creation
}

func (c *Controllers) addPodGarbage() {
	g := &podGarbage{c: c, missing: map[string]time.Time{}, done: map[store.Key]metav1.Time{}}
	g.orphans = c.newLoop("orphans", 1, g.removeOrphans)
	g.finished = c.newLoop("finished", 1, g.trimFinished)
	c.follow(nodes, "", keys(g.orphans))
	podReader := each(g.podChanged)
	podReader.relist = func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		clear(g.done)
	}
	c.follow(pods, "", podReader)
}

func (g *podGarbage) podChanged(pod *corev1.Pod, deleted bool) {
	k := key(pods, pod.Namespace, pod.Name)
	g.mu.Lock()
	if !deleted && scheduler.Finished(pod) {
		g.done[k] = pod.CreationTimestamp
	} else {
		delete(g.done, k)
	}
	tooMany := len(g.done) > g.c.cfg.FinishedPods
	g.mu.Unlock()
	if tooMany {
		g.finished.add(key(pods, "", "finished"))
	}
	if deleted || pod.Spec.NodeName == "" {
		return
	}
	node := key(nodes, "", pod.Spec.NodeName)
	if _, exists := g.c.reader.Get(node); !exists {
		g.orphans.add(node)
	}
}

// removeOrphans gives a node that was deleted the grace to come back: a device that still runs registers again.
func (g *podGarbage) removeOrphans(ctx context.Context, node store.Key) (time.Duration, error) {
	_, exists := g.c.reader.Get(node)
	orphans := g.c.reader.ByIndex(pods, "node", node.Name)
	left := g.grace(node.Name, exists || len(orphans) == 0)
	if exists || len(orphans) == 0 || left > 0 {
		return left, nil
	}
	for _, item := range orphans {
		opts := &metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To[int64](0), Preconditions: &metav1.Preconditions{UID: ptr.To(metaOf(item.Value).UID)},
		}
		_, err := g.c.client.Delete(ctx, item.Key, opts)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("delete %s of a node that is no more: %w", item.Key, err)
		}
		g.c.logger.Info("a pod of a deleted node is removed", "pod", item.Key.Namespace+"/"+item.Key.Name, "node", node.Name)
	}
	return 0, nil
}

func (g *podGarbage) grace(node string, settled bool) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if settled {
		delete(g.missing, node)
		return 0
	}
	if _, ok := g.missing[node]; !ok {
		g.missing[node] = time.Now()
	}
	return max(0, time.Until(g.missing[node].Add(g.c.cfg.NodeGrace)))
}

func (g *podGarbage) trimFinished(ctx context.Context, _ store.Key) (time.Duration, error) {
	g.mu.Lock()
	finished := make([]store.Key, 0, len(g.done))
	for k := range g.done {
		finished = append(finished, k)
	}
	slices.SortFunc(finished, func(a, b store.Key) int {
		return cmp.Or(g.done[a].Compare(g.done[b].Time), cmp.Compare(a.String(), b.String()))
	})
	g.mu.Unlock()
	for i := range len(finished) - g.c.cfg.FinishedPods {
		pod, ok := store.Get[corev1.Pod](g.c.reader, finished[i].Namespace, finished[i].Name)
		if !ok || !scheduler.Finished(pod) {
			continue
		}
		_, err := g.c.client.Delete(ctx, finished[i], metav1.NewPreconditionDeleteOptions(string(pod.UID)))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("delete finished pod %s: %w", finished[i], err)
		}
	}
	return 0, nil
}
