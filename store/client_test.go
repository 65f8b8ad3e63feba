package store

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
)

type fixture struct {
	*testing.T
	client   *Client
	durable  *Store
	volatile *Store
	now      time.Time
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, now: time.Date(2026, 2, 3, 4, 5, 6, 700, time.UTC)}
	f.durable = New(Config{Kinds: api.Kinds()})
	f.volatile = New(Config{Kinds: api.Kinds(), FirstRevision: 1 << 32})
	local, volatile := NewLocal(f.durable), NewLocal(f.volatile)
	f.client = NewClient(ClientConfig{
		Durable: f.durable, Propose: local,
		Volatile: func() (*Store, Proposer, error) { return f.volatile, volatile, nil },
		Now:      func() time.Time { return f.now },
	})
	return f
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"k": "v"}}
}

func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: ptr.To[int64](20),
			Containers: []corev1.Container{{Name: "c", Image: "i:1"}},
		},
	}
}

func (f *fixture) create(obj api.Object) api.Object {
	f.Helper()
	out, err := f.client.Create(f.Context(), obj)
	if err != nil {
		f.Fatalf("create: %v", err)
	}
	return out
}

func (f *fixture) exists(obj api.Object) bool {
	_, ok := f.client.Reader().Get(KeyOf(f.durable, obj))
	return ok
}

func TestCreate(t *testing.T) {
	f := newFixture(t)
	asked := configMap("a")
	made := f.create(asked).(*corev1.ConfigMap)
	if made.UID == "" || made.ResourceVersion == "" || !made.CreationTimestamp.Equal(&metav1.Time{Time: f.now.Truncate(time.Second)}) {
		t.Errorf("metadata is incomplete: %+v", made.ObjectMeta)
	}
	if asked.UID != "" {
		t.Error("the argument was changed")
	}
	read, ok := Get[corev1.ConfigMap](f.client.Reader(), "default", "a")
	if diff := cmp.Diff(made, read); !ok || diff != "" {
		t.Errorf("read back (-made +read):\n%s", diff)
	}
	if _, err := f.client.Create(t.Context(), configMap("a")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	if _, err := f.client.Create(t.Context(), configMap("Not_A_Name")); !apierrors.IsInvalid(err) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := f.client.Create(t.Context(), made); !apierrors.IsBadRequest(err) {
		t.Errorf("create with a resourceVersion: %v", err)
	}
	large := configMap("large")
	large.BinaryData = map[string][]byte{"x": make([]byte, MaxObjectBytes)}
	if _, err := f.client.Create(t.Context(), large); err == nil {
		t.Error("an object above the limit was stored")
	}
	named := configMap("")
	named.GenerateName = strings.Repeat("g", 70) + "-"
	if got := f.create(named).GetName(); len(got) != 63 || strings.Trim(got[:58], "g") != "" {
		t.Errorf("generated name %q", got)
	}
	if _, err := f.client.Create(t.Context(), configMap("dry"), DryRun); err != nil || f.exists(configMap("dry")) {
		t.Errorf("dry run: %v", err)
	}
}

func TestVolatileKindsLiveApart(t *testing.T) {
	f := newFixture(t)
	beat := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: "n"}}
	lock := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "l"}}
	f.create(beat)
	f.create(lock)
	if f.durable.Len("leases.coordination.k8s.io") != 1 || f.volatile.Len("leases.coordination.k8s.io") != 1 {
		t.Error("a lease is in the wrong store")
	}
	var names []string
	for _, l := range List[coordinationv1.Lease](f.client.Reader(), "") {
		names = append(names, l.Name)
	}
	if diff := cmp.Diff([]string{"l", "n"}, names); diff != "" {
		t.Error(diff)
	}
	if s := must(f.client.ReaderFor(f.durable.KindFor(beat), beat.Namespace)); s != f.volatile {
		t.Error("ReaderFor names the wrong store")
	}
}

func TestUpdate(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	first := f.create(configMap("a")).(*corev1.ConfigMap)
	changed := first.DeepCopy()
	changed.Data["k"], changed.UID = "w", ""
	second := must(f.client.Update(ctx, changed)).(*corev1.ConfigMap)
	if second.UID != first.UID || second.ResourceVersion == first.ResourceVersion || second.Data["k"] != "w" {
		t.Errorf("updated: %+v", second)
	}
	_, err := f.client.Update(ctx, changed)
	const want = `Operation cannot be fulfilled on configmaps "a": the object has been modified; ` +
		`please apply your changes to the latest version and try again`
	if !apierrors.IsConflict(err) || err.Error() != want {
		t.Errorf("stale update: %v", err)
	}
	before := f.durable.Revision()
	same := must(f.client.Update(ctx, second))
	if same.GetResourceVersion() != second.ResourceVersion || f.durable.Revision() != before {
		t.Error("an update without a change was written")
	}
	unconditional := configMap("a")
	unconditional.Data["k"] = "x"
	if got := must(f.client.Update(ctx, unconditional)).(*corev1.ConfigMap); got.Data["k"] != "x" || got.UID != first.UID {
		t.Errorf("unconditional update: %+v", got)
	}
	other := configMap("a")
	other.UID = "another"
	if _, err := f.client.Update(ctx, other); !apierrors.IsConflict(err) {
		t.Errorf("update of another object's UID: %v", err)
	}
	if _, err := f.client.Update(ctx, configMap("b")); !apierrors.IsNotFound(err) {
		t.Errorf("update of nothing: %v", err)
	}
}

func TestStatusAndBinding(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	p := f.create(pod("p", "")).(*corev1.Pod)
	if got := ListBy[corev1.Pod](f.durable, "node", ""); len(got) != 1 {
		t.Errorf("%d unbound pods", len(got))
	}
	key := KeyOf(f.durable, p)
	p = must(f.client.Modify(ctx, key, "binding", func(o api.Object) error {
		o.(*corev1.Pod).Spec.NodeName = "n1"
		return nil
	})).(*corev1.Pod)
	unbound := ListBy[corev1.Pod](f.durable, "node", "")
	if got := ListBy[corev1.Pod](f.durable, "node", "n1"); len(got) != 1 || len(unbound) != 0 || p.Spec.NodeName != "n1" {
		t.Errorf("the binding is not in the index: %v", got)
	}
	status := p.DeepCopy()
	status.Spec.NodeName, status.Status.Phase, status.ResourceVersion = "elsewhere", corev1.PodRunning, ""
	got := must(f.client.UpdateStatus(ctx, status)).(*corev1.Pod)
	if got.Status.Phase != corev1.PodRunning || got.Spec.NodeName != "n1" {
		t.Errorf("after a status update: node %q, phase %q", got.Spec.NodeName, got.Status.Phase)
	}
	body := got.DeepCopy()
	body.Status.Phase, body.Labels = corev1.PodFailed, map[string]string{"a": "b"}
	got = must(f.client.Update(ctx, body)).(*corev1.Pod)
	if got.Status.Phase != corev1.PodRunning || got.Labels["a"] != "b" {
		t.Errorf("after an update: phase %q, labels %v", got.Status.Phase, got.Labels)
	}
}

func TestModifyStartsAgain(t *testing.T) {
	f := newFixture(t)
	key := KeyOf(f.durable, f.create(configMap("a")))
	runs := 0
	_, err := f.client.Modify(t.Context(), key, "", func(o api.Object) error {
		if runs++; runs == 1 {
			other := configMap("a")
			other.Data["other"] = "kept"
			must(f.client.Update(t.Context(), other))
		}
		o.(*corev1.ConfigMap).Data["mine"] = "too"
		return nil
	})
	got, _ := Get[corev1.ConfigMap](f.durable, "default", "a")
	if err != nil || runs != 2 || got.Data["other"] != "kept" || got.Data["mine"] != "too" {
		t.Errorf("after %d runs: %v, %v", runs, got.Data, err)
	}
}

func TestOwnerIndex(t *testing.T) {
	f := newFixture(t)
	owned := configMap("owned")
	owned.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "X", Name: "other", UID: "u-other"},
		{APIVersion: "v1", Kind: "X", Name: "boss", UID: "u-boss", Controller: ptr.To(true)},
	}
	f.create(owned)
	f.create(configMap("free"))
	got := ListBy[corev1.ConfigMap](f.durable, OwnerIndex, "u-boss")
	if len(got) != 1 || got[0].Name != "owned" || len(ListBy[corev1.ConfigMap](f.durable, OwnerIndex, "u-other")) != 0 {
		t.Errorf("owned by u-boss: %v", got)
	}
}

func TestDeleteGracefully(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	key := func(o api.Object) Key { return KeyOf(f.durable, o) }

	unbound := f.create(pod("unbound", ""))
	must(f.client.Delete(ctx, key(unbound), nil))
	if f.exists(unbound) {
		t.Error("a pod that runs nowhere stays")
	}

	p := f.create(pod("p", "n1"))
	got := must(f.client.Delete(ctx, key(p), nil)).(*corev1.Pod)
	if want := f.now.Truncate(time.Second).Add(20 * time.Second); *got.DeletionGracePeriodSeconds != 20 || !got.DeletionTimestamp.Time.Equal(want) {
		t.Errorf("deleted at %v with grace %d", got.DeletionTimestamp, *got.DeletionGracePeriodSeconds)
	}
	f.now = f.now.Add(3 * time.Second)
	again := must(f.client.Delete(ctx, key(p), nil))
	if again.GetResourceVersion() != got.ResourceVersion {
		t.Error("the same deletion again was written")
	}
	longer := must(f.client.Delete(ctx, key(p), &metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](60)}))
	if *longer.GetDeletionGracePeriodSeconds() != 20 {
		t.Error("a second deletion made the grace period longer")
	}
	shorter := must(f.client.Delete(ctx, key(p), &metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](5)}))
	if *shorter.GetDeletionGracePeriodSeconds() != 5 || !shorter.GetDeletionTimestamp().Add(15*time.Second).Equal(got.DeletionTimestamp.Time) {
		t.Errorf("shortened to %v with grace %d", shorter.GetDeletionTimestamp(), *shorter.GetDeletionGracePeriodSeconds())
	}
	if _, err := f.client.Delete(ctx, key(p), &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(p.GetUID() + "x")}}); !apierrors.IsConflict(err) {
		t.Errorf("wrong UID: %v", err)
	}
	must(f.client.Delete(ctx, key(p), &metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
	if f.exists(p) {
		t.Error("a pod stays after a deletion without grace")
	}
	if _, err := f.client.Delete(ctx, key(p), nil); !apierrors.IsNotFound(err) {
		t.Errorf("deletion of nothing: %v", err)
	}
}

func TestFinalizers(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	held := configMap("held")
	held.Finalizers = []string{"example.com/hold"}
	key := KeyOf(f.durable, f.create(held))
	got := must(f.client.Delete(ctx, key, nil))
	if got.GetDeletionTimestamp() == nil || !f.exists(held) {
		t.Fatal("the finalizer did not hold the object")
	}
	must(f.client.Modify(ctx, key, "", func(o api.Object) error { o.SetFinalizers(nil); return nil }))
	if f.exists(held) {
		t.Error("the object stays without finalizers")
	}

	ns := f.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}})
	key = KeyOf(f.durable, ns)
	gone := must(f.client.Delete(ctx, key, nil)).(*corev1.Namespace)
	if gone.Status.Phase != corev1.NamespaceTerminating || !f.exists(ns) {
		t.Fatalf("namespace after its deletion: %+v", gone)
	}
	must(f.client.Modify(ctx, key, "finalize", func(o api.Object) error {
		o.(*corev1.Namespace).Spec.Finalizers = nil
		return nil
	}))
	if f.exists(ns) {
		t.Error("the namespace stays when it is finalized")
	}

	set := f.create(&appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "rs"},
		Spec: appsv1.ReplicaSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: pod("", "").Spec},
		},
	})
	orphan := metav1.DeletePropagationOrphan
	got = must(f.client.Delete(ctx, KeyOf(f.durable, set), &metav1.DeleteOptions{PropagationPolicy: &orphan}))
	if diff := cmp.Diff([]string{metav1.FinalizerOrphanDependents}, got.GetFinalizers()); diff != "" || got.GetDeletionTimestamp() == nil {
		t.Errorf("orphaning: %s", diff)
	}
}

func TestAdmission(t *testing.T) {
	f := newFixture(t)
	f.client.admit = []Admitter{AdmitFunc(func(_ context.Context, a *Admission) error {
		if a.Operation == OpDelete {
			return apierrors.NewForbidden(a.Kind.GVR().GroupResource(), a.Old.GetName(), nil)
		}
		a.Object.SetLabels(map[string]string{"admitted": string(a.Operation)})
		return nil
	})}
	got := f.create(configMap("a"))
	if got.GetLabels()["admitted"] != "CREATE" {
		t.Errorf("labels %v", got.GetLabels())
	}
	if _, err := f.client.Delete(t.Context(), KeyOf(f.durable, got), nil); !apierrors.IsForbidden(err) || !f.exists(got) {
		t.Errorf("refused deletion: %v", err)
	}
}

func TestNoLeader(t *testing.T) {
	s := New(Config{Kinds: api.Kinds()})
	c := NewClient(ClientConfig{Durable: s, Propose: refuser{}})
	if _, err := c.Create(t.Context(), configMap("a")); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("create without a leader: %v", err)
	}
	beat := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: "n"}}
	if _, err := c.Create(t.Context(), beat); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("volatile create without a leader: %v", err)
	}
}

type refuser struct{}

func (refuser) Propose(context.Context, Txn) (uint64, error) { return 0, ErrNotLeader }
