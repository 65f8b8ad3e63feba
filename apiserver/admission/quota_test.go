package admission_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/admission"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/quota"
)

func resourceQuota(name string, hard corev1.ResourceList, change ...func(*corev1.ResourceQuotaSpec)) *corev1.ResourceQuota {
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	for _, f := range change {
		f(&q.Spec)
	}
	return q
}

func TestQuotaRefuses(t *testing.T) {
	b := newBed(t, admission.Config{}, resourceQuota("q", list("pods", "2", "requests.cpu", "150m", "limits.memory", "1Gi")))
	b.refused(pod("p", func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "a", Image: "i"}} }),
		"failed quota: q: must specify limits.memory for: a,c; requests.cpu for: a,c")
	small := resources(list("cpu", "100m"), list("memory", "64Mi"))
	b.add(pod("one", small))
	b.refused(pod("two", small), "exceeded quota: q, requested: requests.cpu=100m, used: requests.cpu=100m, limited: requests.cpu=150m")
	less := resources(list("cpu", "50m"), list("memory", "64Mi"))
	b.add(pod("two", less))
	b.refused(pod("three", less), "exceeded quota: q, requested: pods=1,requests.cpu=50m, used: pods=2,requests.cpu=150m, limited: pods=2,requests.cpu=150m")

	// One that has ended uses nothing any more.
	done, _ := store.Get[corev1.Pod](b.client.Reader(), "ns", "one")
	done.Status.Phase = corev1.PodSucceeded
	if _, err := b.client.UpdateStatus(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	b.add(pod("three", less))
}

func TestQuotaCountsObjects(t *testing.T) {
	b := newBed(t, admission.Config{}, resourceQuota("q", list(
		"configmaps", "1", "count/secrets", "1", "count/deployments.apps", "0", "services.nodeports", "1", "persistentvolumeclaims", "1",
		"requests.storage", "3Gi", "gold.storageclass.storage.k8s.io/requests.storage", "1Gi", "resourcequotas", "1",
	)))
	b.add(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "ns"}})
	b.refused(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "ns"}},
		"exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: configmaps=1")
	b.refused(resourceQuota("r", list("pods", "1")), "exceeded quota: q, requested: resourcequotas=1, used: resourcequotas=1, limited: resourcequotas=1")
	gold := claim("2Gi")
	gold.Spec.StorageClassName = ptr.To("gold")
	b.refused(gold, "exceeded quota: q, requested: gold.storageclass.storage.k8s.io/requests.storage=2Gi, "+
		"used: gold.storageclass.storage.k8s.io/requests.storage=0, limited: gold.storageclass.storage.k8s.io/requests.storage=1Gi")
}

func TestQuotaScopes(t *testing.T) {
	best := func(s *corev1.ResourceQuotaSpec) { s.Scopes = []corev1.ResourceQuotaScope{"BestEffort"} }
	high := func(s *corev1.ResourceQuotaSpec) {
		s.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
			{ScopeName: "PriorityClass", Operator: "In", Values: []string{"high"}},
		}}
	}
	b := newBed(t, admission.Config{}, class("high", 10, false),
		resourceQuota("best", list("pods", "0"), best), resourceQuota("high", list("pods", "1"), high))
	b.refused(pod("p"), "exceeded quota: best, requested: pods=1, used: pods=0, limited: pods=0")
	burst := resources(list("cpu", "1m"), nil)
	b.add(pod("p", burst), pod("h", burst, func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }))
	b.refused(pod("i", burst, func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }),
		"exceeded quota: high, requested: pods=1, used: pods=1, limited: pods=1")
}

// However many ask at once, as many as are allowed get through, under each of two quotas, and the first quota says so at once.
func TestQuotaHoldsAtOnce(t *testing.T) {
	b := newBed(t, admission.Config{}, resourceQuota("a", list("pods", "9")), resourceQuota("b", list("pods", "5")))
	for _, name := range []string{"a", "b"} {
		q, _ := store.Get[corev1.ResourceQuota](b.client.Reader(), "ns", name)
		q.Status = corev1.ResourceQuotaStatus{Hard: q.Spec.Hard, Used: list("pods", "0")}
		if _, err := b.client.UpdateStatus(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, 30)
	for i := range errs {
		wg.Go(func() { _, errs[i] = b.client.Create(t.Context(), pod(fmt.Sprintf("p%d", i))) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		switch {
		case err == nil:
			made++
		case !apierrors.IsForbidden(err):
			t.Error(err)
		}
	}
	if have := len(store.List[corev1.Pod](b.client.Reader(), "ns")); made != 5 || have != 5 {
		t.Errorf("%d were let in, %d are there", made, have)
	}
	q, _ := store.Get[corev1.ResourceQuota](b.client.Reader(), "ns", "a")
	if n := q.Status.Used["pods"]; n.Value() != 5 {
		t.Errorf("the status says %s", n.String())
	}

	// The ledger goes with the last quota.
	for i, name := range []string{"a", "b"} {
		if _, there := b.client.Reader().Get(quota.Ledger("ns")); !there {
			t.Errorf("no ledger with %d quotas", 2-i)
		}
		if _, err := b.client.Delete(t.Context(), store.Key{Resource: "resourcequotas", Namespace: "ns", Name: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, there := b.client.Reader().Get(quota.Ledger("ns")); there {
		t.Error("a ledger without a quota")
	}
}

// A server that does not know of a write yet counts again when it proposes its own.
func TestQuotaHoldsForAStaleServer(t *testing.T) {
	b := newBed(t, admission.Config{}, resourceQuota("a", list("pods", "1")))
	value, err := api.Encode(pod("other"))
	if err != nil {
		t.Fatal(err)
	}
	b.before(func(store.Txn) {
		turn, err := quota.Turn(b.client.Reader(), "ns")
		if err != nil {
			t.Error(err)
		}
		other := store.Op{Key: store.Key{Resource: "pods", Namespace: "ns", Name: "other"}, Value: value, Expect: store.Absent}
		if _, err := b.log.Propose(t.Context(), store.Txn{Ops: []store.Op{other, turn}}); err != nil {
			t.Error(err)
		}
	})
	b.refused(pod("p"), "exceeded quota: a, requested: pods=1, used: pods=1, limited: pods=1")
}

func TestQuotaForgetsPodsThatShouldHaveEnded(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b := newBed(t, admission.Config{Now: func() time.Time { return now }}, resourceQuota("a", list("pods", "1")))
	b.add(pod("p", func(p *corev1.Pod) { p.Spec.NodeName, p.Spec.TerminationGracePeriodSeconds = "n", ptr.To[int64](30) }))
	if _, err := b.client.Delete(t.Context(), store.Key{Resource: "pods", Namespace: "ns", Name: "p"}, nil); err != nil {
		t.Fatal(err)
	}
	b.refused(pod("q"), "exceeded quota: a, requested: pods=1, used: pods=1, limited: pods=1")
	now = now.Add(2 * time.Minute)
	b.add(pod("q"))
	q, _ := store.Get[corev1.ResourceQuota](b.client.Reader(), "ns", "a")
	used, _ := quota.NewCounter().Used(b.client.Reader(), q, kinds(), now)
	if diff := cmp.Diff(list("pods", "1"), used); diff != "" {
		t.Error(diff)
	}
}
