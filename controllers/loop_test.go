package controllers

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/store"
)

func TestLoopRunsEachKeyAloneAndBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &Controllers{logger: slog.New(slog.DiscardHandler)}
		var mu sync.Mutex
		busy, runs := map[string]bool{}, map[string][]time.Duration{}
		start := time.Now()
		note := func(name string) int {
			mu.Lock()
			defer mu.Unlock()
			if busy[name] {
				t.Errorf("%s runs twice at once", name)
			}
			busy[name] = true
			runs[name] = append(runs[name], time.Since(start))
			return len(runs[name])
		}
		l := c.newLoop("test", 3, func(_ context.Context, k store.Key) (time.Duration, error) {
			run := note(k.Name)
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			busy[k.Name] = false
			switch {
			case k.Name == "fails" && run < 4:
				return 0, errors.New("not yet")
			case k.Name == "later" && run == 1:
				return time.Minute, nil
			}
			return 0, nil
		})
		var workers sync.WaitGroup
		for range l.workers {
			workers.Go(func() { l.work(ctx) })
		}
		one := key(pods, "", "one")
		addOften := func() {
			for range 10 {
				l.add(one)
			}
		}
		addOften()
		synctest.Wait()
		addOften() // while it runs: once more afterwards
		time.Sleep(5 * time.Second)
		l.add(key(pods, "", "fails"))
		l.add(key(pods, "", "later"))
		l.queue.addAfter(one, time.Hour)
		l.queue.addAfter(one, time.Minute)
		l.queue.addAfter(one, 2*time.Minute)
		time.Sleep(2 * time.Hour)
		cancel()
		workers.Wait()
		l.queue.close()
		seconds := func(values ...float64) (times []time.Duration) {
			for _, v := range values {
				times = append(times, time.Duration(v*1e9))
			}
			return times
		}
		want := map[string][]time.Duration{
			"one":   seconds(0, 1, 65),
			"later": seconds(5, 66),
			"fails": seconds(5, 6.02, 7.06, 8.14), // 20, 40, 80 ms after each failure
		}
		if diff := cmp.Diff(want, runs); diff != "" {
			t.Errorf("runs: %s", diff)
		}
	})
}

func TestBackoff(t *testing.T) {
	var got []time.Duration
	for i := range 6 {
		got = append(got, backoff(time.Second, 10*time.Second, i+1))
	}
	want := []time.Duration{1e9, 2e9, 4e9, 8e9, 10e9, 10e9}
	if !cmp.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A history of a few events cuts every watch off again and again: the controllers list anew and miss nothing.
func TestControllersSurviveGaps(t *testing.T) {
	inClusterWith(t, 4, store.Config{History: 3}, func(c *cluster) {
		c.create(newDeployment("web", 12))
		c.after(time.Minute)
		c.mustBeDone("web", 12)
		c.setImage("web", "app:2")
		c.after(5 * time.Minute)
		c.mustBeDone("web", 12)
		c.delete(key(deployments, "default", "web"))
		c.after(5 * time.Minute)
		if n := len(c.pods()); n != 0 {
			t.Errorf("%d pods are left", n)
		}
		c.create(newDeployment("big", 80)) // all the room there is: what is gone must not take any
		c.after(5 * time.Minute)
		c.mustBeDone("big", 80)
	})
}

func TestPendingPodsWaitForRoom(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		c.create(newDeployment("web", 25)) // the device has room for 20
		c.after(time.Minute)
		if n := len(c.running()); n != 20 {
			t.Fatalf("%d pods run, want 20", n)
		}
		c.after(15 * time.Minute) // past the progress deadline
		revision := c.durable.Revision()
		c.after(time.Hour)
		if now := c.durable.Revision(); now != revision {
			t.Errorf("waiting pods cost %d writes in an hour", now-revision)
		}
		c.create(newDeployment("first", 1))
		c.resize("web", 21)
		c.after(10 * time.Second)
		c.resize("web", 19)
		c.after(10 * time.Second)
		c.mustBeDone("first", 1)
		c.addDevice("n1")
		c.resize("web", 39)
		c.after(10 * time.Second)
		c.mustBeDone("web", 39)
	})
}

func TestEventsAreCountedAndExpire(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		d := newDeployment("stuck", 1)
		d.Spec.Template.Spec.NodeSelector = map[string]string{"no": "where"}
		c.create(d)
		c.after(time.Second)
		for range 4 {
			c.addRemoveNode()
		}
		counts := map[string]int32{}
		for _, e := range store.List[corev1.Event](c.client.Reader(), "default") {
			if e.Reason == "FailedScheduling" {
				counts[e.Message] += 1000 + e.Count
			}
		}
		want := map[string]int32{
			"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.":                                     1001,
			"0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s).": 1004,
		}
		if diff := cmp.Diff(want, counts); diff != "" {
			t.Errorf("events and their counts: %s", diff)
		}
		c.create(newDeployment("noisy", 19))
		c.after(time.Minute)
		if n := len(store.List[corev1.Event](c.client.Reader(), "")); n != 20 {
			t.Errorf("%d events are kept, want the limit of 20 (%s)", n, c.eventReasons())
		}
		c.after(2 * time.Hour)
		if got := c.eventReasons(); got != "" {
			t.Errorf("hours later: %s", got)
		}
	})
}

// addRemoveNode makes a change that wakes the pods that wait.
func (c *cluster) addRemoveNode() {
	c.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "passing"}})
	c.after(10 * time.Second)
	c.delete(key(nodes, "", "passing"))
	c.after(10 * time.Second)
}
