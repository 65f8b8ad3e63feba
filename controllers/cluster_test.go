package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/store"
)

const (
	testGrace   = 40 * time.Second
	testReplace = 30 * time.Second
	heartbeat   = 10 * time.Second
)

// cluster is a real store with real controllers, and devices that are played. Everything runs in a synctest bubble: settle
// waits until nobody has anything left to do, and time passes only when nobody has.
type cluster struct {
	*testing.T
	ctx     context.Context
	durable *store.Store
	client  *store.Client
	stop    context.CancelFunc // of the leadership
	led     chan error
	wg      sync.WaitGroup

	mu       sync.Mutex
	volatile *store.Store
	local    store.Proposer  // the volatile store's
	cut      map[string]bool // devices that nobody hears of
	kicked   []string
	servers  []string               // the addresses of the control plane
	http     http.RoundTripper      // where questions to gates arrive
	gates    []fleetv1.Gate         // of the rollout of an app
	notRead  func(*corev1.Pod) bool // pods that never become ready
	crashes  func(*corev1.Pod) bool // pods that end as soon as they have begun
}

// inCluster runs a test with the given nodes in a bubble.
func inCluster(t *testing.T, nodes int, test func(*cluster)) {
	inClusterWith(t, nodes, store.Config{}, test)
}

func inClusterWith(t *testing.T, nodes int, cfg store.Config, test func(*cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cfg.Kinds = api.Kinds()
		c := &cluster{T: t, ctx: ctx, durable: store.New(cfg), cut: map[string]bool{}}
		c.servers = []string{"192.0.2.1:6443", "192.0.2.2:6443"}
		proposer := store.NewLocal(c.durable)
		c.client = store.NewClient(store.ClientConfig{
			Durable: c.durable, Propose: proposer, Admit: []store.Admitter{store.AdmitFunc(tolerateFor), store.AdmitFunc(nothingNewInEnding)},
			Volatile: c.present,
		})
		c.lead()
		for i := range nodes {
			c.addDevice(fmt.Sprintf("n%d", i))
		}
		c.settle()
		test(c)
		c.stepDown()
		cancel()
		c.wg.Wait()
	})
}

// nothingNewInEnding refuses what a namespace that ends would have to delete again, as the API server's admission does.
func nothingNewInEnding(_ context.Context, a *store.Admission) error {
	if a.Operation != store.OpCreate || !a.Kind.Namespaced {
		return nil
	}
	ns, ok := store.Get[corev1.Namespace](a.Reader, "", a.Object.GetNamespace())
	if !ok || ns.DeletionTimestamp == nil {
		return nil
	}
	err := apierrors.NewForbidden(a.Kind.GVR().GroupResource(), a.Object.GetName(), errKeep)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	return err
}

// tolerateFor lets new pods stay for a while on a node that does not answer, as admission does.
func tolerateFor(_ context.Context, a *store.Admission) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Operation != store.OpCreate || len(pod.Spec.Tolerations) > 0 {
		return nil
	}
	for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
			Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
			TolerationSeconds: ptr.To(int64(testReplace / time.Second)),
		})
	}
	return nil
}

// lead starts a leadership with an empty memory, as a new leader has.
func (c *cluster) lead() {
	first := uint64(1) << 32
	if c.volatile != nil {
		first = (c.volatile.Revision()>>32 + 1) << 32
	}
	c.mu.Lock()
	c.volatile = store.New(store.Config{Kinds: api.Kinds(), FirstRevision: first})
	c.local = store.NewLocal(c.volatile)
	c.mu.Unlock()
	ctrl, err := New(Config{
		Client: c.client, NodeGrace: testGrace, CA: []byte("PEM"), FinishedPods: 3, Events: 20,
		ServiceCIDR: "10.43.0.0/16", HTTP: &http.Client{Transport: c.http},
		Servers: func() []string {
			c.mu.Lock()
			defer c.mu.Unlock()
			return slices.Clone(c.servers)
		},
		Unreachable: func(node string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.kicked = append(c.kicked, node)
		},
	})
	if err != nil {
		c.Fatal(err)
	}
	var ctx context.Context
	ctx, c.stop = context.WithCancel(c.ctx)
	c.led = make(chan error, 1)
	go func() { c.led <- ctrl.Run(ctx) }()
}

// present is the volatile store of the present leadership.
func (c *cluster) present() (*store.Store, store.Proposer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.volatile, c.local, nil
}

func (c *cluster) stepDown() {
	c.stop()
	if err := <-c.led; err != nil {
		c.Error("controllers ended:", err)
	}
}

func (c *cluster) setServers(addresses ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = addresses
}

func (c *cluster) settle() {
	synctest.Wait()
}

// after lets time pass.
func (c *cluster) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (c *cluster) setCut(node string, cut bool) {
	c.mu.Lock()
	c.cut[node] = cut
	c.mu.Unlock()
	if !cut {
		c.report(node)
		c.beat(node)
	}
}

func (c *cluster) isCut(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut[node]
}

// addDevice registers a node and plays its agent: heartbeats, and pods that run at once and stop at once.
func (c *cluster) addDevice(name string) {
	quantity := resource.MustParse
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "AgentReady"}},
			Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: quantity("4"), corev1.ResourceMemory: quantity("1Gi"), corev1.ResourcePods: quantity("20"),
			},
		},
	}
	c.create(node)
	c.wg.Go(func() { c.runDevice(name) })
	c.wg.Go(func() {
		for c.ctx.Err() == nil {
			if !c.isCut(name) {
				c.beat(name)
			}
			select {
			case <-time.After(heartbeat):
			case <-c.ctx.Done():
			}
		}
	})
}

func (c *cluster) beat(node string) {
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node},
		Spec:       coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(time.Now()))},
	}
	_, err := c.client.Modify(c.ctx, store.KeyOf(c.durable, lease), "", func(o api.Object) error {
		o.(*coordinationv1.Lease).Spec = lease.Spec
		return nil
	})
	if apierrors.IsNotFound(err) {
		_, err = c.client.Create(c.ctx, lease)
	}
	if err != nil && c.ctx.Err() == nil {
		c.Error(err)
	}
}

// report is what a device tells when its link comes up: its node and all its pods.
func (c *cluster) report(node string) {
	c.modify(key(nodes, "", node), "status", func(o api.Object) {
		for i := range o.(*corev1.Node).Status.Conditions {
			condition := &o.(*corev1.Node).Status.Conditions[i]
			condition.Status, condition.Reason = corev1.ConditionTrue, "AgentReady"
		}
	})
	for _, pod := range store.ListBy[corev1.Pod](c.durable, "node", node) {
		c.step(pod)
	}
}

func (c *cluster) runDevice(node string) {
	items, _, w := c.durable.ListAndWatch(pods, "")
	defer w.Close()
	for _, item := range items {
		c.stepItem(node, item)
	}
	for {
		batch, err := w.Next(c.ctx)
		if err != nil {
			if c.ctx.Err() == nil { // a gap: start again
				c.wg.Go(func() { c.runDevice(node) })
			}
			return
		}
		for _, event := range batch {
			if event.Type != store.Deleted {
				c.stepItem(node, event.Item)
			}
		}
	}
}

func (c *cluster) stepItem(node string, item store.Item) {
	object, ok := c.durable.Object(item)
	if pod := object.(*corev1.Pod); ok && pod.Spec.NodeName == node && !c.isCut(node) {
		c.step(pod)
	}
}

// step moves a pod on: it becomes ready a second after it was bound, and goes a second after it was told to.
func (c *cluster) step(pod *corev1.Pod) {
	k := key(pods, pod.Namespace, pod.Name)
	_, ready := readySince(pod)
	c.mu.Lock()
	crashes := c.crashes != nil && c.crashes(pod)
	never := crashes || c.notRead != nil && c.notRead(pod)
	c.mu.Unlock()
	c.wg.Go(func() {
		select {
		case <-time.After(time.Second):
		case <-c.ctx.Done():
			return
		}
		var err error
		switch {
		case c.isCut(pod.Spec.NodeName):
		case pod.DeletionTimestamp != nil:
			_, err = c.client.Delete(c.ctx, k, &metav1.DeleteOptions{
				GracePeriodSeconds: ptr.To[int64](0), Preconditions: &metav1.Preconditions{UID: &pod.UID},
			})
		case !ready && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed:
			_, err = c.client.Modify(c.ctx, k, "status", func(o api.Object) error {
				current := o.(*corev1.Pod)
				if current.UID != pod.UID {
					return errKeep
				}
				current.Status.Phase = corev1.PodRunning
				status := corev1.ConditionTrue
				if never {
					status = corev1.ConditionFalse
				}
				if crashes {
					current.Status.ContainerStatuses = []corev1.ContainerStatus{{
						Name:  "main",
						State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
					}}
				}
				setPodCondition(&current.Status, corev1.PodCondition{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.Now()})
				return nil
			})
		}
		if err != nil && !errors.Is(err, errKeep) && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && c.ctx.Err() == nil {
			c.Error("device:", err)
		}
	})
}

func (c *cluster) create(object api.Object) api.Object {
	c.Helper()
	created, err := c.client.Create(c.ctx, object)
	if err != nil {
		c.Fatal(err)
	}
	return created
}

func (c *cluster) modify(k store.Key, sub string, change func(api.Object)) {
	c.Helper()
	_, err := c.client.Modify(c.ctx, k, sub, func(o api.Object) error {
		change(o)
		return nil
	})
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) delete(k store.Key, policy ...metav1.DeletionPropagation) {
	c.Helper()
	opts := &metav1.DeleteOptions{}
	if len(policy) > 0 {
		opts.PropagationPolicy = &policy[0]
	}
	if _, err := c.client.Delete(c.ctx, k, opts); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) exists(k store.Key) bool {
	_, ok := c.client.Reader().Get(k)
	return ok
}

func (c *cluster) pods() []*corev1.Pod { return store.List[corev1.Pod](c.durable, "") }

// running are the pods that are ready and not about to go.
func (c *cluster) running() []*corev1.Pod {
	var found []*corev1.Pod
	for _, pod := range c.pods() {
		if _, ready := readySince(pod); ready && pod.DeletionTimestamp == nil {
			found = append(found, pod)
		}
	}
	return found
}

func (c *cluster) node(name string) *corev1.Node {
	c.Helper()
	node, ok := store.Get[corev1.Node](c.durable, "", name)
	if !ok {
		c.Fatalf("no node %s", name)
	}
	return node
}

func (c *cluster) deployment(name string) *appsv1.Deployment {
	c.Helper()
	d, ok := store.Get[appsv1.Deployment](c.durable, "default", name)
	if !ok {
		c.Fatalf("no deployment %s", name)
	}
	return d
}

// eventReasons are the reasons of the events so far.
func (c *cluster) eventReasons() string {
	var reasons []string
	for _, e := range store.List[corev1.Event](c.client.Reader(), "") {
		reasons = append(reasons, e.Reason)
	}
	return strings.Join(reasons, " ")
}

func newTemplate(set map[string]string, image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: set}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
	}
}

func newDeployment(name string, replicas int32, change ...func(*appsv1.Deployment)) *appsv1.Deployment {
	set := map[string]string{"app": name}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: set},
			Template: newTemplate(set, "app:1"),
		},
	}
	for _, f := range change {
		f(d)
	}
	return d
}

func (c *cluster) setImage(name, image string) {
	c.Helper()
	c.modify(key(deployments, "default", name), "", func(o api.Object) {
		o.(*appsv1.Deployment).Spec.Template.Spec.Containers[0].Image = image
	})
}

func (c *cluster) resize(name string, replicas int32) {
	c.Helper()
	c.modify(key(deployments, "default", name), "", func(o api.Object) { o.(*appsv1.Deployment).Spec.Replicas = &replicas })
}

// mustBeDone checks what `kubectl rollout status` waits for.
func (c *cluster) mustBeDone(name string, replicas int32) {
	c.Helper()
	d := c.deployment(name)
	s := d.Status
	if s.ObservedGeneration != d.Generation || s.Replicas != replicas || s.UpdatedReplicas != replicas || s.AvailableReplicas != replicas {
		c.Fatalf("%s is not rolled out to %d: generation %d, %+v", name, replicas, d.Generation, s)
	}
	for _, condition := range s.Conditions {
		if condition.Status != corev1.ConditionTrue {
			c.Errorf("condition %+v", condition)
		}
	}
}
