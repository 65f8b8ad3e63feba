package apiserver_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-edge/shoal/store"
)

// guarded is a bed with ready, running pods under a budget that its controller has just counted.
func guarded(t *testing.T, names ...string) *bed {
	b := newBed(t)
	for _, name := range names {
		pod := podOn(name, "n")
		pod.Labels = map[string]string{"app": "web"}
		made := b.create(pod).(*corev1.Pod)
		made.Status.Phase = corev1.PodRunning
		made.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if _, err := b.client.UpdateStatus(t.Context(), made); err != nil {
			t.Fatal(err)
		}
	}
	one := intstr.FromInt32(1)
	b.create(&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "pdb", Namespace: "default"}, Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
	}})
	return b
}

// count plays the budget's controller.
func (b *bed) count(healthy, desired, allowed int32) {
	b.t.Helper()
	pdb, _ := store.Get[policyv1.PodDisruptionBudget](b.durable, "default", "pdb")
	pdb.Status = policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: pdb.Generation, CurrentHealthy: healthy, DesiredHealthy: desired, DisruptionsAllowed: allowed, ExpectedPods: 2,
	}
	if _, err := b.client.UpdateStatus(b.t.Context(), pdb); err != nil {
		b.t.Fatal(err)
	}
}

// evict asks for a pod's eviction and returns the code, and the cause that a refusal names.
func (b *bed) evict(name, query string) (int, string) {
	b.t.Helper()
	answer, body := b.do(call{
		method: http.MethodPost, path: pods + "/" + name + "/eviction" + query,
		body: fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q}}`, name),
	})
	var status metav1.Status
	decode(b.t, body, &status)
	if status.Details == nil || len(status.Details.Causes) == 0 {
		return answer.StatusCode, status.Message
	}
	if c := status.Details.Causes[0]; c.Type != policyv1.DisruptionBudgetCause {
		b.t.Errorf("cause %q", c.Type)
	}
	if status.Code == http.StatusTooManyRequests && status.Message != "Cannot evict pod as it would violate the pod's disruption budget." {
		b.t.Errorf("%q", status.Message)
	}
	return answer.StatusCode, status.Details.Causes[0].Message
}

func TestEvictionsKeepToBudgets(t *testing.T) {
	b := guarded(t, "a", "b")
	is := func(name, query string, code int, want string) {
		t.Helper()
		if got, text := b.evict(name, query); got != code || text != want {
			t.Errorf("%s: %d %q, want %d %q", name, got, text, code, want)
		}
	}
	is("a", "", 429, "The disruption budget pdb is still being processed by the server.")
	b.count(2, 1, 1)
	is("a", "?dryRun=All", 201, "")
	is("a", "", 201, "")
	a, _ := store.Get[corev1.Pod](b.durable, "default", "a")
	if a.DeletionTimestamp == nil || a.Status.Conditions[len(a.Status.Conditions)-1].Reason != "EvictionByEvictionAPI" {
		t.Errorf("%+v", a)
	}
	pdb, _ := store.Get[policyv1.PodDisruptionBudget](b.durable, "default", "pdb")
	if _, noted := pdb.Status.DisruptedPods["a"]; !noted || pdb.Status.DisruptionsAllowed != 0 {
		t.Errorf("%+v", pdb.Status)
	}
	b.count(1, 1, 0)
	is("b", "", 429, "The disruption budget pdb needs 1 healthy pods and has 1 currently")
	is("a", "", 201, "") // it terminates already
	is("c", "", 404, `pods "c" not found`)

	// What is not ready does not count, as long as enough is.
	p, _ := store.Get[corev1.Pod](b.durable, "default", "b")
	p.Status.Conditions[0].Status = corev1.ConditionFalse
	if _, err := b.client.UpdateStatus(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	b.count(0, 1, 0)
	is("b", "", 429, "The disruption budget pdb needs 1 healthy pods and has 0 currently")
	b.count(1, 1, 0)
	is("b", "", 201, "")
}

func TestTwoBudgetsAreTooMany(t *testing.T) {
	b := guarded(t, "a")
	b.create(&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: "default"}, Spec: policyv1.PodDisruptionBudgetSpec{
		Selector: &metav1.LabelSelector{},
	}})
	code, text := b.evict("a", "")
	want := "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
	if code != http.StatusInternalServerError || text != want {
		t.Errorf("%d %s", code, text)
	}
}

func TestEvictionOptions(t *testing.T) {
	b := guarded(t)
	answer, body := b.do(call{
		method: http.MethodPost, path: pods + "/a/eviction?dryRun=All",
		body: `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"a"},"deleteOptions":{"ignoreStoreReadErrorWithClusterBreakingPotential":true}}`,
	})
	var status metav1.Status
	decode(t, body, &status)
	if diff := cmp.Diff(http.StatusUnprocessableEntity, answer.StatusCode); diff != "" {
		t.Error(diff, status.Message)
	}
}
