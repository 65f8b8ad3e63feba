package admission_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/admission"
	"github.com/shoal-edge/shoal/store"
)

// bed is a store with all plugins but the one for accounts, and the namespace "ns".
type bed struct {
	t      *testing.T
	client *store.Client
	now    time.Time
	heard  heard
	log    *log
}

// log orders transactions, and may let something come between a write's admission and its turn.
type log struct {
	store.Proposer
	between func(store.Txn)
}

func (l *log) Propose(ctx context.Context, txn store.Txn) (uint64, error) {
	if f := l.between; f != nil {
		l.between = nil
		f(txn)
	}
	return l.Proposer.Propose(ctx, txn)
}

// before has something happen before the next write is ordered, as if another server wrote.
func (b *bed) before(f func(store.Txn)) { b.log.between = f }

func kinds() []*api.Kind { return api.Kinds() }

type heard struct {
	warnings []string
	notes    map[string]string
}

func (h *heard) Warn(texts ...string)   { h.warnings = append(h.warnings, texts...) }
func (h *heard) Note(key, value string) { h.notes[key] = value }

func newBed(t *testing.T, cfg admission.Config, objects ...api.Object) *bed {
	t.Helper()
	b := &bed{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s := store.New(store.Config{Kinds: api.Kinds()})
	b.log = &log{Proposer: store.NewLocal(s)}
	plugins := slices.DeleteFunc(admission.New(cfg), func(p admission.Plugin) bool { return p.Name == "ServiceAccount" })
	b.client = store.NewClient(store.ClientConfig{
		Durable: s, Propose: b.log, Admit: plugins.Admit(), Review: plugins.Review(), Removed: plugins.Removed, Now: func() time.Time { return b.now },
	})
	b.add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	b.add(objects...)
	return b
}

func (b *bed) add(objects ...api.Object) {
	b.t.Helper()
	for _, o := range objects {
		if _, err := b.create(o); err != nil {
			b.t.Fatal(err)
		}
		b.now = b.now.Add(time.Second)
	}
}

func (b *bed) create(o api.Object) (api.Object, error) {
	b.heard = heard{notes: map[string]string{}}
	return b.client.Create(b.t.Context(), o, store.Hear(&b.heard))
}

func (b *bed) update(o api.Object) (api.Object, error) {
	b.heard = heard{notes: map[string]string{}}
	return b.client.Update(b.t.Context(), o, store.Hear(&b.heard))
}

// refused makes sure that an object is refused as forbidden, with a text.
func (b *bed) refused(o api.Object, want string) {
	b.t.Helper()
	_, err := b.create(o)
	if !apierrors.IsForbidden(err) {
		b.t.Fatalf("%v, want forbidden: %s", err, want)
	}
	if _, text, _ := strings.Cut(err.Error(), "forbidden: "); text != want {
		b.t.Errorf("%s\nwant %s", text, want)
	}
}

func (b *bed) pod(o *corev1.Pod) *corev1.Pod {
	b.t.Helper()
	made, err := b.create(o)
	if err != nil {
		b.t.Fatal(err)
	}
	return made.(*corev1.Pod)
}

func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i:1"}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func resources(requests, limits corev1.ResourceList) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
	}
}

func limitRange(items ...corev1.LimitRangeItem) *corev1.LimitRange {
	return &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "limits", Namespace: "ns"}, Spec: corev1.LimitRangeSpec{Limits: items},
	}
}

func TestLimitRangeFillsIn(t *testing.T) {
	b := newBed(t, admission.Config{}, limitRange(corev1.LimitRangeItem{
		Type: "Container", Default: list("cpu", "200m", "memory", "64Mi"), DefaultRequest: list("cpu", "100m"),
	}))
	p := b.pod(pod("p", func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "i:1", Resources: corev1.ResourceRequirements{
			Requests: list("cpu", "1m"), Limits: list("memory", "1Mi"),
		}}}
	}))
	want := corev1.ResourceRequirements{Requests: list("cpu", "100m", "memory", "64Mi"), Limits: list("cpu", "200m", "memory", "64Mi")}
	if diff := cmp.Diff(want, p.Spec.Containers[0].Resources); diff != "" {
		t.Error(diff)
	}
	want = corev1.ResourceRequirements{Requests: list("cpu", "1m", "memory", "1Mi"), Limits: list("cpu", "200m", "memory", "1Mi")}
	if diff := cmp.Diff(want, p.Spec.InitContainers[0].Resources); diff != "" {
		t.Error(diff)
	}
	note := "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c; cpu limit for init container i"
	if p.Annotations["kubernetes.io/limit-ranger"] != note {
		t.Errorf("%q", p.Annotations["kubernetes.io/limit-ranger"])
	}
	if p.Status.QOSClass != corev1.PodQOSBurstable {
		t.Errorf("the quality of service is that of before: %s", p.Status.QOSClass)
	}
}

func TestLimitRangeRefuses(t *testing.T) {
	item := func(f func(*corev1.LimitRangeItem)) *corev1.LimitRange {
		l := corev1.LimitRangeItem{Type: "Pod"}
		f(&l)
		return limitRange(l)
	}
	none := func(*corev1.Pod) {}
	for name, c := range map[string]struct {
		limits *corev1.LimitRange
		pod    func(*corev1.Pod)
		want   string
	}{
		"no request": {
			item(func(l *corev1.LimitRangeItem) { l.Min = list("cpu", "100m") }), none,
			"minimum cpu usage per Pod is 100m.  No request is specified",
		},
		"too small": {
			item(func(l *corev1.LimitRangeItem) { l.Min = list("cpu", "100m") }), resources(list("cpu", "50m"), nil),
			"minimum cpu usage per Pod is 100m, but request is 50m",
		},
		"no limit": {
			item(func(l *corev1.LimitRangeItem) { l.Max = list("memory", "1Gi") }), none,
			"maximum memory usage per Pod is 1Gi.  No limit is specified",
		},
		"too large, twice": {
			item(func(l *corev1.LimitRangeItem) { l.Max = list("cpu", "1", "memory", "1Gi") }),
			resources(nil, list("memory", "2Gi", "cpu", "2")),
			"[maximum cpu usage per Pod is 1, but limit is 2, maximum memory usage per Pod is 1Gi, but limit is 2Gi]",
		},
		"ratio": {
			item(func(l *corev1.LimitRangeItem) { l.MaxLimitRequestRatio = list("cpu", "2") }), resources(list("cpu", "100m"), list("cpu", "250m")),
			"cpu max limit to request ratio per Pod is 2, but provided ratio is 2.500000",
		},
		"no ratio": {
			item(func(l *corev1.LimitRangeItem) { l.MaxLimitRequestRatio = list("cpu", "2") }), none,
			"cpu max limit to request ratio per Pod is 2, but no request is specified or request is 0",
		},
	} {
		t.Run(name, func(t *testing.T) { newBed(t, admission.Config{}, c.limits).refused(pod("p", c.pod), c.want) })
	}
}

func TestLimitRangeRefusesClaims(t *testing.T) {
	b := newBed(t, admission.Config{}, limitRange(corev1.LimitRangeItem{
		Type: "PersistentVolumeClaim", Min: list("storage", "1Gi"), Max: list("storage", "2Gi"),
	}))
	b.refused(claim("500Mi"), "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi")
	b.refused(claim("3Gi"), "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi")
	b.add(claim("2Gi"))
}

func claim(size string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"},
			Resources:   corev1.VolumeResourceRequirements{Requests: list("storage", size)},
		},
	}
}

func class(name string, value int32, standard bool) *schedulingv1.PriorityClass {
	return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, GlobalDefault: standard}
}

func TestPriority(t *testing.T) {
	b := newBed(t, admission.Config{})
	if p := b.pod(pod("plain")); *p.Spec.Priority != 0 || *p.Spec.PreemptionPolicy != corev1.PreemptLowerPriority || p.Spec.PriorityClassName != "" {
		t.Errorf("%v", p.Spec)
	}
	named := func(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.PriorityClassName = name } }
	b.refused(pod("p", named("high")), "no PriorityClass with name high was found")
	never := class("high", 1000, false)
	never.PreemptionPolicy = ptr.To(corev1.PreemptNever)
	b.add(never, class("usual", 10, true))
	if p := b.pod(pod("high", named("high"))); *p.Spec.Priority != 1000 || *p.Spec.PreemptionPolicy != corev1.PreemptNever {
		t.Errorf("%v", p.Spec)
	}
	usual := b.pod(pod("usual"))
	if *usual.Spec.Priority != 10 || usual.Spec.PriorityClassName != "usual" {
		t.Errorf("%v", usual.Spec)
	}
	b.refused(pod("p", func(p *corev1.Pod) { p.Spec.Priority = ptr.To[int32](7) }), "the integer value of priority (7) must not be provided "+
		"in pod spec; priority admission controller computed 10 from the given PriorityClass name")
	b.refused(class("other", 5, true), "PriorityClass usual is already marked as default. Only one default can exist")

	usual.Spec.Priority, usual.Spec.PreemptionPolicy, usual.Labels = nil, nil, map[string]string{"a": "b"}
	if o, err := b.update(usual); err != nil || *o.(*corev1.Pod).Spec.Priority != 10 {
		t.Errorf("an update that leaves the priority out: %v", err)
	}
}

func TestRuntimeClass(t *testing.T) {
	b := newBed(t, admission.Config{}, &nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: "vm"}, Handler: "kata", Overhead: &nodev1.Overhead{PodFixed: list("memory", "120Mi")},
		Scheduling: &nodev1.Scheduling{
			NodeSelector: map[string]string{"vm": "yes"}, Tolerations: []corev1.Toleration{{Key: "vm", Operator: "Exists", Effect: "NoSchedule"}},
		},
	})
	in := func(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.RuntimeClassName = &name } }
	b.refused(pod("p", in("none")), `pod rejected: RuntimeClass "none" not found`)
	p := b.pod(pod("p", in("vm"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "a"} }))
	if diff := cmp.Diff(map[string]string{"vm": "yes", "zone": "a"}, p.Spec.NodeSelector); diff != "" {
		t.Error(diff)
	}
	if m := p.Spec.Overhead["memory"]; m.String() != "120Mi" {
		t.Errorf("overhead %v", p.Spec.Overhead)
	}
	if !slices.ContainsFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool { return t.Key == "vm" }) {
		t.Errorf("%v", p.Spec.Tolerations)
	}
	b.refused(pod("q", in("vm"), func(p *corev1.Pod) { p.Spec.Overhead = list("memory", "1Mi") }),
		"pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
	b.refused(pod("q", func(p *corev1.Pod) { p.Spec.Overhead = list("memory", "1Mi") }),
		"pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	b.refused(pod("q", in("vm"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"vm": "no"} }),
		"conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no")
}

func TestDefaultClasses(t *testing.T) {
	yes := map[string]string{"storageclass.kubernetes.io/is-default-class": "true", "ingressclass.kubernetes.io/is-default-class": "true"}
	storage := func(name string, notes map[string]string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: notes}, Provisioner: "p"}
	}
	b := newBed(t, admission.Config{})
	without, err := b.create(claim("1Gi"))
	if err != nil || without.(*corev1.PersistentVolumeClaim).Spec.StorageClassName != nil {
		t.Fatalf("%v %v", without, err)
	}
	b.add(
		storage("older", yes), storage("newer", yes), storage("newest", nil),
		&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "in", Annotations: yes}, Spec: networkingv1.IngressClassSpec{Controller: "a.b/c"}},
	)
	c := claim("1Gi")
	c.Name = "d"
	with, err := b.create(c)
	if err != nil || ptr.Deref(with.(*corev1.PersistentVolumeClaim).Spec.StorageClassName, "") != "newer" {
		t.Errorf("%v %v", with, err)
	}
	c.Name, c.Spec.StorageClassName = "e", ptr.To("")
	if own, err := b.create(c); err != nil || *own.(*corev1.PersistentVolumeClaim).Spec.StorageClassName != "" {
		t.Errorf("a claim that wants no class: %v", err)
	}
	ingress, err := b.create(&networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "i", Namespace: "ns"}, Spec: networkingv1.IngressSpec{
		DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "s", Port: networkingv1.ServiceBackendPort{Number: 80}}},
	}})
	if err != nil || ptr.Deref(ingress.(*networkingv1.Ingress).Spec.IngressClassName, "") != "in" {
		t.Errorf("%v %v", ingress, err)
	}
}

func TestStorageInUse(t *testing.T) {
	b := newBed(t, admission.Config{})
	c := claim("1Gi")
	c.Finalizers = []string{"factory.example/mine"}
	made, err := b.create(c)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := made.GetFinalizers(), []string{"factory.example/mine", "kubernetes.io/pvc-protection"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	class, err := b.create(&storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Finalizers: []string{"kubernetes.io/vac-protection"}}, DriverName: "d", Parameters: map[string]string{"a": "b"},
	})
	if err != nil || len(class.GetFinalizers()) != 1 {
		t.Errorf("%v, %v", class, err)
	}
}

func TestTolerations(t *testing.T) {
	b := newBed(t, admission.Config{ReplaceAfter: time.Minute})
	p := b.pod(pod("p", func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeNotReady, Operator: "Exists"}}
	}))
	want := []corev1.Toleration{
		{Key: corev1.TaintNodeNotReady, Operator: "Exists"},
		{Key: corev1.TaintNodeUnreachable, Operator: "Exists", Effect: "NoExecute", TolerationSeconds: ptr.To[int64](60)},
	}
	if diff := cmp.Diff(want, p.Spec.Tolerations); diff != "" {
		t.Error(diff)
	}
	// Who replaces the list does not take away what the server put there.
	more := corev1.Toleration{Key: "more", Operator: "Exists", Effect: "NoSchedule"}
	p.Spec.Tolerations = []corev1.Toleration{want[0], more}
	changed, err := b.update(p)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]corev1.Toleration{want[0], more, want[1]}, changed.(*corev1.Pod).Spec.Tolerations); diff != "" {
		t.Error(diff)
	}
}
