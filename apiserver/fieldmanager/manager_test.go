package fieldmanager_test

import (
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/fieldmanager"
)

func pod() *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", Labels: map[string]string{"app": "p"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i:1"}}},
	}
	api.ByResource("pods").Default(p)
	return p
}

func manager(tb testing.TB, resource, sub string) *fieldmanager.Manager {
	tb.Helper()
	m, err := fieldmanager.New().For(api.ByResource(resource), sub)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func BenchmarkTrackCreate(b *testing.B) {
	m, p := manager(b, "pods", ""), pod()
	b.ReportAllocs()
	for b.Loop() {
		p.ManagedFields = nil
		m.Track(p, nil, "kubectl")
	}
}

func BenchmarkTrackUpdate(b *testing.B) {
	m, live := manager(b, "pods", ""), pod()
	m.Track(live, nil, "kubectl")
	live.UID = "u"
	newer := live.DeepCopy()
	newer.Labels["app"] = "q"
	b.ReportAllocs()
	for b.Loop() {
		newer.ManagedFields = nil
		m.Track(newer, live, "kubectl")
	}
}

// BenchmarkSchema is what the schema costs: live bytes when parsed, and what parsing allocates.
func BenchmarkSchema(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := manager(b, "pods", "")
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc)-float64(before.HeapAlloc), "live-bytes")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc), "parsed-bytes")
	m.Track(pod(), nil, "kubectl")
}

// BenchmarkEntrySize is what the entries of a created pod take in the store.
func BenchmarkEntrySize(b *testing.B) {
	p := pod()
	bare, err := api.Encode(p)
	if err != nil {
		b.Fatal(err)
	}
	manager(b, "pods", "").Track(p, nil, "kubectl-create")
	tracked, err := api.Encode(p)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(bare)), "bare-bytes")
	b.ReportMetric(float64(len(tracked)-len(bare)), "entry-bytes")
}

// TestTheSchemaKnowsEveryKind: one that upstream describes and make generate has forgotten would be merged by guesses.
func TestTheSchemaKnowsEveryKind(t *testing.T) {
	for _, k := range api.Served() {
		if !fieldmanager.Describes(k.GVK) {
			t.Errorf("%s is not in the schema: run make generate", k.GVK)
		}
	}
}
