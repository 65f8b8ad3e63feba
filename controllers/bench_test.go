package controllers

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// BenchmarkSchedule binds 1,000 pods on 100 nodes through the store, all controllers running: one operation is all of them,
// from the start of the leadership to the last binding.
func BenchmarkSchedule(b *testing.B) {
	const nodeCount, podCount = 100, 1000
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		client, durable := newBenchClient(b, nodeCount, podCount)
		ctrl, err := New(Config{Client: client})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		_, _, w := durable.ListAndWatch(pods, "")
		b.StartTimer()
		go func() { ended <- ctrl.Run(ctx) }()
		for bound := 0; bound < podCount; {
			batch, err := w.Next(ctx)
			if err != nil {
				b.Fatal(err)
			}
			for _, event := range batch {
				object, _ := durable.Object(event.Item)
				if object.(*corev1.Pod).Spec.NodeName != "" {
					bound++
				}
			}
		}
		b.StopTimer()
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*podCount), "µs/pod")
}

func newBenchClient(b *testing.B, nodeCount, podCount int) (*store.Client, *store.Store) {
	durable := store.New(store.Config{Kinds: api.Kinds()})
	volatile := store.New(store.Config{Kinds: api.Kinds(), FirstRevision: 1 << 32})
	local := store.NewLocal(volatile)
	client := store.NewClient(store.ClientConfig{
		Durable: durable, Propose: store.NewLocal(durable),
		Volatile: func() (*store.Store, store.Proposer, error) { return volatile, local, nil },
	})
	create := func(object api.Object) {
		if _, err := client.Create(b.Context(), object); err != nil {
			b.Fatal(err)
		}
	}
	for i := range nodeCount {
		create(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%03d", i)},
			Spec:       corev1.NodeSpec{PodCIDR: fmt.Sprintf("10.42.%d.0/24", i), PodCIDRs: []string{fmt.Sprintf("10.42.%d.0/24", i)}},
			Status: corev1.NodeStatus{
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
				Allocatable: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("110"),
				},
			},
		})
	}
	for i := range podCount {
		create(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%04d", i), Labels: map[string]string{"app": "web"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "app", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("50Mi")},
			}}}},
		})
	}
	return client, durable
}
