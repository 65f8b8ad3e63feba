package dispatch_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/controllers/dispatch"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/seal"
	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/memory"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

// cluster is a store with a dispatcher, and a network for devices.
type cluster struct {
	t        *testing.T
	durable  *store.Store
	volatile *store.Store
	client   *store.Client
	network  *memory.Network
	servers  []string
	keys     *seal.Keyring
	dispatch *dispatch.Dispatcher
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{
		t: t, network: memory.NewNetwork(), servers: []string{"one"}, keys: new(seal.Keyring),
		volatile: store.New(store.Config{Kinds: api.Kinds()}),
	}
	c.useKeys(c.newKeys())
	c.durable = store.New(store.Config{Kinds: api.Kinds(), Sealer: c.keys})
	local := store.NewLocal(c.volatile)
	c.client = store.NewClient(store.ClientConfig{
		Durable: c.durable, Propose: store.NewLocal(c.durable),
		Volatile: func() (*store.Store, store.Proposer, error) { return c.volatile, local, nil },
	})
	logger := slog.New(slog.DiscardHandler)
	dispatcher := dispatch.New(dispatch.Config{Client: c.client, Logger: logger, Servers: func() []string { return c.servers }})
	hub := transport.NewHub(transport.HubConfig{Epoch: 1, Owner: dispatcher, Logger: logger})
	dispatcher.Use(hub)
	c.dispatch = dispatcher
	c.run(hub.Run)
	c.run(dispatcher.Run)
	gate := transport.NewGate()
	gate.Lead(hub)
	c.network.Listen("one", gate)
	return c
}

func (c *cluster) newKeys() seal.Ring {
	c.t.Helper()
	ring, err := seal.NewRing(time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	return ring
}

func (c *cluster) useKeys(ring seal.Ring) {
	c.t.Helper()
	if err := c.keys.Set(ring); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) run(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			c.t.Errorf("run: %v", err)
		}
	})
	c.t.Cleanup(func() {
		cancel()
		group.Wait()
	})
}

func (c *cluster) device(name string) (*transporttest.Device, *transport.Link) {
	device := transporttest.NewDevice()
	link := transport.NewLink(transport.LinkConfig{
		Name: name, Device: device, Carriers: []transport.Carrier{c.network.Carrier(name, "one")},
		Logger: slog.New(slog.DiscardHandler), Heartbeat: 100 * time.Millisecond, MinDelay: 5 * time.Millisecond,
	})
	c.run(link.Run)
	return device, link
}

func (c *cluster) create(obj api.Object) api.Object {
	c.t.Helper()
	created, err := c.client.Create(c.t.Context(), obj)
	if err != nil {
		c.t.Fatal(err)
	}
	return created
}

func (c *cluster) modify(key store.Key, sub string, edit func(api.Object)) {
	c.t.Helper()
	_, err := c.client.Modify(c.t.Context(), key, sub, func(o api.Object) error {
		edit(o)
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) pod(name, node, configMap string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	if configMap != "" {
		pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{
			ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}},
		}}
	}
	return c.create(pod).(*corev1.Pod)
}

func (c *cluster) node(name, cidr string) {
	c.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}}})
}

func (c *cluster) eventually(what string, holds func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			c.t.Fatalf("did not come true: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// settled waits until a further change has reached a device, so that anything before has too.
func (c *cluster) settled(device *transporttest.Device, name string) {
	c.t.Helper()
	c.modify(store.Key{Resource: "nodes", Name: name}, "", func(o api.Object) {
		o.SetAnnotations(map[string]string{"settled": time.Now().String()})
	})
	node, _ := store.Get[corev1.Node](c.client.Reader(), "", name)
	c.eventually("the marker arrives", func() bool {
		var got corev1.Node
		return got.Unmarshal([]byte(device.Desired()["node"])) == nil && got.Annotations["shoal.dev/devices"] == "" && got.Annotations["settled"] == node.Annotations["settled"]
	})
}

func has(device *transporttest.Device, key string) func() bool {
	return func() bool { _, ok := device.Desired()[key]; return ok }
}

func hasNot(device *transporttest.Device, key string) func() bool {
	return func() bool { _, ok := device.Desired()[key]; return !ok }
}

func encode(t *testing.T, obj api.Object) string {
	t.Helper()
	data, err := obj.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestDesired(t *testing.T) {
	c := newCluster(t)
	c.node("a", "10.42.0.0/24")
	c.node("b", "10.42.1.0/24")
	c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "used"}, Data: map[string]string{"k": "1"}})
	c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "later"}})
	c.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "unused"}})
	c.pod("p", "a", "used")
	c.pod("other", "b", "")
	device, _ := c.device("a")
	c.eventually("the pod", has(device, "pods/default/p"))
	want := map[string]bool{"servers": true, "node": true, "peers/b": true, "configmaps/default/used": true, "pods/default/p": true}
	for key := range device.Desired() {
		if !want[key] {
			t.Errorf("the device got %s", key)
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("the device lacks %v", want)
	}

	before := device.Desired()["configmaps/default/used"]
	c.modify(store.Key{Resource: "configmaps", Namespace: "default", Name: "used"}, "", func(o api.Object) {
		o.(*corev1.ConfigMap).Data["k"] = "2"
	})
	c.eventually("the changed config map", func() bool { return device.Desired()["configmaps/default/used"] != before })
	c.pod("q", "a", "later")
	c.eventually("the second pod", has(device, "pods/default/q"))
	if !has(device, "configmaps/default/later")() {
		t.Error("the pod came before what it uses")
	}

	c.create(&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "gvisor"}, Handler: "runsc"})
	c.create(&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "unused"}, Handler: "runsc"})
	c.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "r"}, Spec: corev1.PodSpec{
		NodeName: "a", RuntimeClassName: ptr.To("gvisor"), Containers: []corev1.Container{{Name: "c", Image: "i"}},
	}})
	c.eventually("the third pod", has(device, "pods/default/r"))
	if !has(device, "runtimeclasses.node.k8s.io/gvisor")() || has(device, "runtimeclasses.node.k8s.io/unused")() {
		t.Error("a pod came without its runtime class, or another one with it")
	}

	// A deletion is told first, and carried out when the device says that the pod has gone.
	if _, err := c.client.Delete(t.Context(), store.Key{Resource: "pods", Namespace: "default", Name: "q"}, nil); err != nil {
		t.Fatal(err)
	}
	c.eventually("the deletion", func() bool {
		var pod corev1.Pod
		return pod.Unmarshal([]byte(device.Desired()["pods/default/q"])) == nil && pod.DeletionTimestamp != nil
	})
}

// TestKeysComeLater has a device keep a Secret that cannot be decrypted for a while, and get what it missed afterwards.
func TestKeysComeLater(t *testing.T) {
	c := newCluster(t)
	c.node("a", "10.42.0.0/24")
	secret := func(name string) {
		c.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
		c.create(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "with-" + name},
			Spec: corev1.PodSpec{
				NodeName: "a", Containers: []corev1.Container{{Name: "c", Image: "i"}},
				Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}},
			},
		})
	}
	secret("held")
	device, _ := c.device("a")
	c.eventually("the Secret", has(device, "secrets/default/held"))

	right := c.keys.Ring()
	secret("missed")
	c.eventually("the second Secret", has(device, "secrets/default/missed"))
	c.useKeys(c.newKeys())
	c.modify(store.Key{Resource: "pods", Namespace: "default", Name: "with-held"}, "", func(o api.Object) {
		o.SetLabels(map[string]string{"changed": "yes"})
	})
	c.dispatch.Compare()
	c.settled(device, "a")
	if !has(device, "secrets/default/held")() {
		t.Error("the device lost a Secret that could not be decrypted")
	}

	late, _ := c.device("a") // it takes the place of the first
	c.eventually("the pods", has(late, "pods/default/with-missed"))
	if has(late, "secrets/default/missed")() {
		t.Error("a Secret came that could not be decrypted")
	}
	c.useKeys(right)
	c.dispatch.Compare()
	c.eventually("the missed Secret", has(late, "secrets/default/missed"))
}

func TestDeletedPodGoes(t *testing.T) {
	c := newCluster(t)
	c.node("a", "10.42.0.0/24")
	c.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "used"}})
	pod := c.pod("p", "a", "used")
	device, link := c.device("a")
	c.eventually("the pod", has(device, "pods/default/p"))
	key := "pods/default/p/" + string(pod.UID)

	// Nobody has deleted it yet: what the device says is not believed.
	link.Report(transport.Item{Key: key, Deleted: true})
	c.settled(device, "a")
	if _, err := c.client.Delete(t.Context(), store.Key{Resource: "pods", Namespace: "default", Name: "p"}, nil); err != nil {
		t.Fatal(err)
	}
	link.Report(transport.Item{Key: "pods/default/p/another-uid", Deleted: true})
	c.settled(device, "a")
	if _, ok := store.Get[corev1.Pod](c.client.Reader(), "default", "p"); !ok {
		t.Fatal("the pod went for the wrong reason")
	}
	link.Report(transport.Item{Key: key, Deleted: true})
	c.eventually("the pod is gone", func() bool {
		_, ok := store.Get[corev1.Pod](c.client.Reader(), "default", "p")
		return !ok
	})
	c.eventually("the device's copy is gone", hasNot(device, "pods/default/p"))
	c.eventually("what it used is gone", hasNot(device, "configmaps/default/used"))
}

func TestStatusIsNotEchoed(t *testing.T) {
	c := newCluster(t)
	c.node("a", "10.42.0.0/24")
	pod := c.pod("p", "a", "")
	device, link := c.device("a")
	c.eventually("the pod", has(device, "pods/default/p"))
	c.settled(device, "a")
	before := len(device.Applied())

	key := "pods/default/p/" + string(pod.UID)
	status := corev1.Pod{Status: corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: "10.42.0.5", PodIPs: []corev1.PodIP{{IP: "10.42.0.5"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}}
	c.modify(store.Key{Resource: "pods", Namespace: "default", Name: "p"}, "status", func(o api.Object) {
		o.(*corev1.Pod).Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}
	})
	device.Report(link, key, encode(t, &status))
	c.eventually("the status", func() bool {
		p, _ := store.Get[corev1.Pod](c.client.Reader(), "default", "p")
		return p.Status.Phase == corev1.PodRunning && len(p.Status.Conditions) == 2
	})
	c.settled(device, "a")
	if after := device.Applied(); len(after) != before+1 || after[before].Items != 1 {
		t.Fatalf("a status came back to the device: %+v", after[before:])
	}

	// The same report again writes nothing, over a link that has come up anew neither.
	revision := c.durable.Revision()
	link.Report(transport.Item{Key: key, Value: []byte(encode(t, &status))})
	c.network.SetFault("a", memory.Fault{Cut: true})
	c.eventually("the link is down", func() bool { return !link.Connected() })
	c.network.SetFault("a", memory.Fault{})
	c.eventually("the link is up", link.Connected)
	heard := c.volatile.Revision()
	c.eventually("a heartbeat", func() bool { return c.volatile.Revision() > heard })
	if now := c.durable.Revision(); now != revision {
		t.Fatalf("the same status was written again: revision %d, then %d", revision, now)
	}
	if after := device.Applied(); len(after) != before+1 {
		t.Fatalf("a link that came back cost %+v", after[before+1:])
	}
}

func TestOnlyTheDevicesOwn(t *testing.T) {
	c := newCluster(t)
	c.node("a", "10.42.0.0/24")
	c.node("b", "10.42.1.0/24")
	foreign := c.pod("theirs", "b", "")
	own := c.pod("own", "a", "")
	device, link := c.device("a")
	c.eventually("the pod", has(device, "pods/default/own"))
	revision := c.durable.Revision()

	running := []byte(encode(t, &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning}}))
	b := []byte(encode(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"evil": "1"}}}))
	link.Report(
		transport.Item{Key: "pods/default/theirs/" + string(foreign.UID), Value: running},
		transport.Item{Key: "pods/default/theirs/" + string(foreign.UID) + "/x", Value: running},
		transport.Item{Key: "pods/default/own/not-its-uid", Value: running},
		transport.Item{Key: "pods/default/own/" + string(own.UID), Value: []byte("garbage")},
		transport.Item{Key: "secrets/kube-system/x", Value: running},
		transport.Item{Key: "node", Value: b},
		transport.Item{Key: "node/b", Value: b},
	)
	// One that is right comes through behind them.
	marker := transport.Item{Key: "pods/default/own/" + string(own.UID), Value: running}
	link.Report(marker)
	c.eventually("the right one", func() bool {
		p, _ := store.Get[corev1.Pod](c.client.Reader(), "default", "own")
		return p.Status.Phase == corev1.PodRunning
	})
	if now := c.durable.Revision(); now != revision+1 {
		t.Fatalf("%d writes, want one", now-revision)
	}
}

func TestNode(t *testing.T) {
	c := newCluster(t)
	device, link := c.device("a")
	hardware := `[{"resource":"shoal.dev/serial","name":"a"}]`
	report := func(labels map[string]string, cpu string) {
		device.Report(link, "node", encode(t, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: labels, Annotations: map[string]string{
				"shoal.dev/devices": hardware, "other.example/x": "not the device's to say",
			}},
			Spec:   corev1.NodeSpec{Unschedulable: false, PodCIDR: "10.99.0.0/24"},
			Status: corev1.NodeStatus{Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
		}))
	}
	node := func() *corev1.Node {
		n, ok := store.Get[corev1.Node](c.client.Reader(), "", "a")
		if !ok {
			return &corev1.Node{}
		}
		return n
	}
	report(map[string]string{"arch": "arm64", "old": "1", "node-restriction.kubernetes.io/x": "1"}, "4")
	c.eventually("the node is made", func() bool { return node().Status.Capacity.Cpu().Value() == 4 })
	if n := node(); n.Labels["arch"] != "arm64" || n.Labels["node-restriction.kubernetes.io/x"] != "" || n.Spec.PodCIDR != "" {
		t.Fatalf("the node is %+v", n)
	}
	c.modify(store.Key{Resource: "nodes", Name: "a"}, "", func(o api.Object) {
		n := o.(*corev1.Node)
		n.Spec.PodCIDR, n.Spec.PodCIDRs, n.Spec.Unschedulable = "10.42.7.0/24", []string{"10.42.7.0/24"}, true
		n.Labels["mine"] = "2"
	})
	if n := node(); n.Annotations["shoal.dev/devices"] != hardware || n.Annotations["other.example/x"] != "" {
		t.Fatalf("annotations: %v", n.Annotations)
	}
	hardware = ""
	report(map[string]string{"arch": "arm64"}, "8")
	c.eventually("the next report", func() bool { return node().Status.Capacity.Cpu().Value() == 8 })
	n := node()
	if n.Spec.PodCIDR != "10.42.7.0/24" || !n.Spec.Unschedulable || n.Labels["mine"] != "2" || n.Labels["old"] != "" || n.Annotations["shoal.dev/devices"] != "" {
		t.Fatalf("the node is %+v", n)
	}
	c.eventually("the device knows its pod network", func() bool {
		var got corev1.Node
		return got.Unmarshal([]byte(device.Desired()["node"])) == nil && got.Spec.PodCIDR == "10.42.7.0/24"
	})
}

func TestPeers(t *testing.T) {
	c := newCluster(t)
	c.node("a", "10.42.0.0/24")
	device, _ := c.device("a")
	c.eventually("its node", has(device, "node"))
	c.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}})
	c.settled(device, "a")
	if has(device, "peers/b")() {
		t.Fatal("a node without a pod network is a peer")
	}
	b := store.Key{Resource: "nodes", Name: "b"}
	c.modify(b, "", func(o api.Object) { o.(*corev1.Node).Spec.PodCIDRs = []string{"10.42.1.0/24"} })
	c.eventually("the peer", has(device, "peers/b"))
	c.settled(device, "a")
	before := len(device.Applied())
	c.modify(b, "status", func(o api.Object) {
		o.(*corev1.Node).Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	})
	c.settled(device, "a")
	if after := device.Applied(); len(after) != before+1 {
		t.Fatalf("a peer's condition was sent: %+v", after[before:])
	}
	c.modify(b, "status", func(o api.Object) {
		o.(*corev1.Node).Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.1.7"}}
	})
	c.eventually("the peer's address", func() bool {
		var got corev1.Node
		return got.Unmarshal([]byte(device.Desired()["peers/b"])) == nil && len(got.Status.Addresses) == 1
	})
	if _, err := c.client.Delete(t.Context(), b, nil); err != nil {
		t.Fatal(err)
	}
	c.eventually("the peer is gone", hasNot(device, "peers/b"))
}

func TestHeartbeatsAndEvents(t *testing.T) {
	c := newCluster(t)
	c.node("a", "10.42.0.0/24")
	pod := c.pod("p", "a", "")
	theirs := c.pod("theirs", "b", "")
	device, link := c.device("a")
	c.eventually("the pod", has(device, "pods/default/p"))
	revision := c.durable.Revision()
	lease := func() *coordinationv1.Lease {
		l, _ := store.Get[coordinationv1.Lease](c.client.Reader(), corev1.NamespaceNodeLease, "a")
		return l
	}
	c.eventually("a lease", func() bool { return lease() != nil })
	first := lease().Spec.RenewTime
	c.eventually("its renewal", func() bool { return lease().Spec.RenewTime.After(first.Time) })
	if gap := lease().Spec.RenewTime.Sub(first.Time); gap < time.Second {
		t.Errorf("renewed after %v", gap)
	}

	event := func(name string, about *corev1.Pod) transport.Item {
		return transport.Item{Key: "events/" + name, Value: []byte(encode(t, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: "default", Name: name},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: about.Name, UID: about.UID},
			Reason:         "Started", Message: "Started container c", Type: "Normal", Count: 1,
			Source: corev1.EventSource{Component: "shoal-agent", Host: "a"},
		}))}
	}
	link.Report(event("foreign.1", theirs), event("own.1", pod))
	c.eventually("the event", func() bool {
		_, ok := store.Get[corev1.Event](c.client.Reader(), "default", "own.1")
		return ok
	})
	if list := store.List[corev1.Event](c.client.Reader(), "default"); len(list) != 1 {
		t.Fatalf("%d events, want the device's own", len(list))
	}
	if now := c.durable.Revision(); now != revision {
		t.Fatalf("heartbeats and events reached the log: %d writes", now-revision)
	}
}
