// Package clients drives a cluster with client-go: informers, leader election, the dynamic client and server-side apply, as
// controllers written for Kubernetes do. The cluster is bin/shoal with pods that only look as if they ran.
package clients

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/retry"
)

var cluster = new(struct {
	config *rest.Config
	kube   *kubernetes.Clientset
})

func TestMain(m *testing.M) {
	code, err := withCluster(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withCluster starts bin/shoal, which make build has built, and ends it after run.
func withCluster(run func() int) (_ int, err error) {
	home, err := os.MkdirTemp("", "clients-*")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	cmd := exec.Command(filepath.Join("..", "..", "bin", "shoal"), "dev", "--fake-runtime", "--servers=1", "--agents=0")
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("%w: run make build", err)
	}
	defer func() { err = errors.Join(err, cmd.Process.Signal(os.Interrupt), cmd.Wait()) }()
	kubeconfig := ""
	for lines := bufio.NewScanner(stdout); kubeconfig == "" && lines.Scan(); {
		_, kubeconfig, _ = strings.Cut(lines.Text(), "export KUBECONFIG=")
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }() // ends with the process
	if cluster.config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return 1, err
	}
	// As a controller that is in a hurry: the client's own brake would be most of the time that the tests take.
	cluster.config.QPS = -1
	if cluster.kube, err = kubernetes.NewForConfig(cluster.config); err != nil {
		return 1, err
	}
	return run(), nil
}

// within bounds a test.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// namespace makes one for the test. It stays: the cluster ends with the tests.
func namespace(ctx context.Context, t *testing.T) string {
	t.Helper()
	ns, err := cluster.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "clients-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

// next waits for what a handler or a callback sends.
func next[T any](ctx context.Context, t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		t.Fatal("nothing came: ", ctx.Err())
		panic("not reached")
	}
}

func settings(name, colour string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"colour": colour}}, Data: map[string]string{"colour": colour},
	}
}

// TestInformers has a cache filled by a list in pages and kept by a watch; what it holds is what the server holds.
func TestInformers(t *testing.T) {
	ctx := within(t)
	ns := namespace(ctx, t)
	maps := cluster.kube.CoreV1().ConfigMaps(ns)
	for _, colour := range []string{"red", "green"} {
		if _, err := maps.Create(ctx, settings(colour, colour), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(cluster.kube, 0, informers.WithNamespace(ns),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector, o.Limit = "colour", 1 }))
	informer := factory.Core().V1().ConfigMaps()
	events := make(chan string, 16)
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { events <- "add " + o.(*corev1.ConfigMap).Name },
		UpdateFunc: func(_, o any) { events <- "update " + o.(*corev1.ConfigMap).Data["colour"] },
		DeleteFunc: func(o any) { events <- "delete " + o.(*corev1.ConfigMap).Name },
	})
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.Informer().HasSynced) {
		t.Fatal("the cache has not been filled")
	}
	if first := []string{next(ctx, t, events), next(ctx, t, events)}; strings.Join(first, ",") != "add green,add red" &&
		strings.Join(first, ",") != "add red,add green" {
		t.Errorf("first came %v", first)
	}
	changed := settings("red", "scarlet")
	if _, err := maps.Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := next(ctx, t, events); got != "update scarlet" {
		t.Error(got)
	}
	// Out of the selector is out of the cache.
	unlabelled := []byte(`{"metadata":{"labels":null}}`)
	if _, err := maps.Patch(ctx, "green", types.MergePatchType, unlabelled, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := next(ctx, t, events); got != "delete green" {
		t.Error(got)
	}
	if err := maps.Delete(ctx, "red", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := next(ctx, t, events); got != "delete red" {
		t.Error(got)
	}
	left, err := informer.Lister().List(labels.Everything())
	if err != nil || len(left) != 0 {
		t.Errorf("%d objects are left in the cache, %v", len(left), err)
	}
}

// TestLeaderElection has two candidates for one Lease: when the first gives it up, the second has it.
func TestLeaderElection(t *testing.T) {
	ctx := within(t)
	ns := namespace(ctx, t)
	leads := make(chan string, 2)
	var ends []func()
	for _, name := range []string{"first", "second"} {
		lock, err := resourcelock.New(resourcelock.LeasesResourceLock, ns, "lock", cluster.kube.CoreV1(), cluster.kube.CoordinationV1(),
			resourcelock.ResourceLockConfig{Identity: name})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
				Lock: lock, ReleaseOnCancel: true, LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 100 * time.Millisecond,
				Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { leads <- name }, OnStoppedLeading: func() {}},
			})
		}()
		ends = append(ends, func() { cancel(); <-done })
		if name == "first" {
			if got := next(ctx, t, leads); got != name {
				t.Fatalf("%s leads", got)
			}
		}
	}
	ends[0]()
	if got := next(ctx, t, leads); got != "second" {
		t.Errorf("%s leads", got)
	}
	ends[1]()
	lease, err := cluster.kube.CoordinationV1().Leases(ns).Get(ctx, "lock", metav1.GetOptions{})
	if err != nil || lease.Spec.LeaseTransitions == nil || *lease.Spec.LeaseTransitions < 1 || *lease.Spec.HolderIdentity != "" {
		t.Errorf("%v, %v", lease.Spec, err)
	}
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

func parts(ns, name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Part", "metadata": map[string]any{"name": name, "namespace": ns}, "spec": map[string]any{"size": int64(1)},
	}}
}

// TestDynamic defines a kind and works with it without a type: create, list, informer, conflict, status, deletecollection.
func TestDynamic(t *testing.T) {
	ctx := within(t)
	ns := namespace(ctx, t)
	client, err := dynamic.NewForConfig(cluster.config)
	if err != nil {
		t.Fatal(err)
	}
	definePart(ctx, t, client)
	resource := schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "parts"}
	all := client.Resource(resource).Namespace(ns)
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, ns, nil)
	informer := factory.ForResource(resource).Informer()
	events := make(chan string, 16)
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { events <- "add " + o.(*unstructured.Unstructured).GetName() },
		DeleteFunc: func(o any) { events <- "delete " + o.(*unstructured.Unstructured).GetName() },
	}); err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	made, err := all.Create(ctx, parts(ns, "a"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := next(ctx, t, events); got != "add a" {
		t.Error(got)
	}
	if colour, _, _ := unstructured.NestedString(made.Object, "spec", "colour"); colour != "grey" {
		t.Errorf("the default colour is %q", colour)
	}
	// Many writers of one object: each one's change is kept.
	for range 3 {
		if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
			now, err := all.Get(ctx, "a", metav1.GetOptions{})
			if err != nil {
				return err
			}
			size, _, _ := unstructured.NestedInt64(now.Object, "spec", "size")
			_ = unstructured.SetNestedField(now.Object, size+1, "spec", "size")
			_, err = all.Update(ctx, now, metav1.UpdateOptions{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := all.Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a stale update: %v", err)
	}
	status := []byte(`{"status":{"state":"fine"},"spec":{"size":99}}`)
	after, err := all.Patch(ctx, "a", types.MergePatchType, status, metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	size, _, _ := unstructured.NestedInt64(after.Object, "spec", "size")
	if state, _, _ := unstructured.NestedString(after.Object, "status", "state"); state != "fine" || size != 4 {
		t.Errorf("after a patch of the status: %v", after.Object)
	}
	bad := parts(ns, "b")
	_ = unstructured.SetNestedField(bad.Object, "large", "spec", "size")
	if _, err := all.Create(ctx, bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a size that is no number: %v", err)
	}
	if err := all.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := next(ctx, t, events); got != "delete a" {
		t.Error(got)
	}
}

// definePart makes the kind Part and returns when it is served.
func definePart(ctx context.Context, t *testing.T, client dynamic.Interface) {
	t.Helper()
	object := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	definition := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "parts.example.com"},
		"spec": map[string]any{
			"group": "example.com", "scope": "Namespaced", "names": map[string]any{"plural": "parts", "kind": "Part"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": map[string]any{
					"type": "object", "properties": map[string]any{
						"status": object,
						"spec": map[string]any{"type": "object", "properties": map[string]any{
							"size": map[string]any{"type": "integer"}, "colour": map[string]any{"type": "string", "default": "grey"},
						}},
					},
				}},
			}},
		},
	}}
	events, err := client.Resource(definitions).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=parts.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	if _, err := client.Resource(definitions).Create(ctx, definition, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for {
		now := next(ctx, t, events.ResultChan()).Object.(*unstructured.Unstructured)
		conditions, _, _ := unstructured.NestedSlice(now.Object, "status", "conditions")
		for _, c := range conditions {
			if c := c.(map[string]any); c["type"] == "Established" && c["status"] == "True" {
				return
			}
		}
	}
}

// TestApply has two owners of one Deployment: each sets its own fields, a field of the other's is a conflict unless it is forced, and
// what an owner no longer names is gone.
func TestApply(t *testing.T) {
	ctx := within(t)
	ns := namespace(ctx, t)
	deployments := cluster.kube.AppsV1().Deployments(ns)
	base := func() *applyapps.DeploymentApplyConfiguration {
		match := map[string]string{"app": "web"}
		return applyapps.Deployment("web", ns).WithLabels(map[string]string{"tier": "edge"}).WithSpec(applyapps.DeploymentSpec().
			WithSelector(applymeta.LabelSelector().WithMatchLabels(match)).
			WithTemplate(applycore.PodTemplateSpec().WithLabels(match).
				WithSpec(applycore.PodSpec().WithContainers(applycore.Container().WithName("c").WithImage("web:1")))))
	}
	if _, err := deployments.Apply(ctx, base(), metav1.ApplyOptions{FieldManager: "owner"}); err != nil {
		t.Fatal(err)
	}
	scale := applyapps.Deployment("web", ns).WithSpec(applyapps.DeploymentSpec().WithReplicas(2))
	if _, err := deployments.Apply(ctx, scale, metav1.ApplyOptions{FieldManager: "scaler"}); err != nil {
		t.Fatal(err)
	}
	greedy := base()
	greedy.Spec.WithReplicas(5)
	_, err := deployments.Apply(ctx, greedy, metav1.ApplyOptions{FieldManager: "owner"})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "scaler"`) {
		t.Fatalf("another's field: %v", err)
	}
	unlabelled := base()
	unlabelled.Labels = nil
	got, err := deployments.Apply(ctx, unlabelled, metav1.ApplyOptions{FieldManager: "owner"})
	if err != nil || *got.Spec.Replicas != 2 || len(got.Labels) != 0 {
		t.Fatalf("%v, %v", got, err)
	}
	got, err = deployments.Apply(ctx, greedy, metav1.ApplyOptions{FieldManager: "owner", Force: true})
	if err != nil || *got.Spec.Replicas != 5 {
		t.Fatalf("%v, %v", got, err)
	}
	// What an owner has is found in the object, and can be applied again as it is.
	mine, err := applyapps.ExtractDeployment(got, "owner")
	if err != nil || mine.Spec.Replicas == nil || *mine.Spec.Replicas != 5 || mine.Spec.Strategy != nil {
		t.Fatalf("%v, %v", mine, err)
	}
	again, err := deployments.Apply(ctx, mine, metav1.ApplyOptions{FieldManager: "owner"})
	if err != nil || again.ResourceVersion != got.ResourceVersion && again.Generation != got.Generation {
		t.Errorf("the same again makes %v of %v, %v", again, got, err)
	}
}
