// Package cluster tests whole clusters in one process: real servers and agents, with a runtime and links in memory.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/pki"
)

// patience bounds every wait. It is long because machines are slow under the race detector; a test that holds does not wait.
const patience = 60 * time.Second

type cluster struct {
	*testing.T
	fleet *fleet.Fleet
	kube  *kube.Client
}

// start brings up a cluster with short times and waits until all its nodes are ready.
func start(t *testing.T, servers, agents int) *cluster {
	t.Helper()
	return startFleet(t, fleet.Config{Servers: servers, Agents: agents})
}

func startFleet(t *testing.T, cfg fleet.Config) *cluster {
	t.Helper()
	cfg.Dir, cfg.Version = t.TempDir(), "test"
	cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	edit := cfg.Edit
	cfg.Edit = func(c *configs.Config) {
		c.Server.NodeGrace = 3 * time.Second
		c.Server.ReplaceAfter = time.Second
		c.Server.VoterGrace = 2 * time.Second
		c.Agent.Heartbeat = 500 * time.Millisecond
		if edit != nil {
			edit(c)
		}
	}
	f, err := fleet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := f.Start(ctx); err != nil {
		t.Fatal(err)
	}
	client, err := kube.Load(f.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{T: t, fleet: f, kube: client}
	c.eventually("all nodes are ready", func() error {
		ready := 0
		for _, n := range c.nodes() {
			if isReady(&n) {
				ready++
			}
		}
		if ready != cfg.Servers+cfg.Agents {
			return fmt.Errorf("%d nodes are ready", ready)
		}
		return nil
	})
	return c
}

// testWriter sends the log of a test's cluster to the test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}

func (c *cluster) eventually(what string, check func() error) {
	c.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("%s: not after %s: %v", what, patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (c *cluster) do(method, path string, in, out any) {
	c.Helper()
	if err := c.kube.Do(c.Context(), method, path, in, out); err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
}

func (c *cluster) nodes() []corev1.Node {
	var list corev1.NodeList
	c.do(http.MethodGet, "/api/v1/nodes", nil, &list)
	return list.Items
}

func (c *cluster) pods() []corev1.Pod {
	var list corev1.PodList
	c.do(http.MethodGet, "/api/v1/namespaces/default/pods", nil, &list)
	return list.Items
}

func isReady(n *corev1.Node) bool {
	for _, condition := range n.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

const deploymentPath = "/apis/apps/v1/namespaces/default/deployments"

// deploy creates a deployment and returns the UIDs of its pods, all ready, by node.
func (c *cluster) deploy(name string, replicas int32) map[string]string {
	c.Helper()
	return c.deployAsking(name, replicas, nil)
}

func (c *cluster) deployAsking(name string, replicas int32, limits corev1.ResourceList) map[string]string {
	c.Helper()
	labels := map[string]string{"app": name}
	c.do(http.MethodPost, deploymentPath, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(replicas),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "c", Image: "registry.test/c:1", Resources: corev1.ResourceRequirements{Limits: limits},
				}}},
			},
		},
	}, nil)
	c.ready(name, replicas)
	return c.running()
}

func (c *cluster) ready(name string, replicas int32) {
	c.Helper()
	c.eventually("the deployment is ready", func() error {
		var d appsv1.Deployment
		if err := c.kube.Do(c.Context(), http.MethodGet, deploymentPath+"/"+name, nil, &d); err != nil {
			return err
		}
		if s := d.Status; s.ReadyReplicas != replicas || s.UpdatedReplicas != replicas || s.Replicas != replicas ||
			s.ObservedGeneration != d.Generation {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// running is the node of each pod that is not on its way out, by UID. A restart of any container fails the test.
func (c *cluster) running() map[string]string {
	c.Helper()
	nodes := map[string]string{}
	for _, p := range c.pods() {
		for _, s := range p.Status.ContainerStatuses {
			if s.RestartCount > 0 {
				c.Errorf("container %s of %s was restarted", s.Name, p.Name)
			}
		}
		if p.DeletionTimestamp == nil {
			nodes[string(p.UID)] = p.Spec.NodeName
		}
	}
	return nodes
}

func (c *cluster) unchanged(before map[string]string) {
	c.Helper()
	if after := c.running(); !maps.Equal(before, after) {
		c.Errorf("pods changed:\nbefore %v\nafter  %v", before, after)
	}
}

// write makes one write that a person would make after a fault, until it succeeds.
func (c *cluster) write(name string) {
	c.Helper()
	c.eventually("a write succeeds", func() error {
		return c.kube.Do(c.Context(), http.MethodPost, "/api/v1/namespaces/default/configmaps",
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil)
	})
}

func TestLeaderStopsAndReturns(t *testing.T) {
	c := start(t, 3, 1)
	before := c.deploy("web", 4)

	leader := c.fleet.Leader()
	if err := c.fleet.StopMember(leader); err != nil {
		t.Fatal(err)
	}
	// The kubeconfig names the first server; ask one that lives.
	for _, m := range c.fleet.Members() {
		if m.Role == pki.RoleServer && m.Name != leader {
			c.use(m)
		}
	}
	c.write("after-the-leader")
	c.unchanged(before)
	if err := c.fleet.StartMember(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	c.use(c.fleet.Member(leader))
	c.eventually("the old leader has what was written without it", func() error {
		return c.kube.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/default/configmaps/after-the-leader", nil, nil)
	})
	c.eventually("its node is ready again", func() error {
		for _, n := range c.nodes() {
			if !isReady(&n) {
				return errors.New(n.Name + " is not ready")
			}
		}
		return nil
	})
	c.unchanged(before)
}

// use turns the client to another server.
func (c *cluster) use(m *fleet.Member) {
	c.Helper()
	client, err := kube.Load(m.Config.DataDir + "/admin.kubeconfig")
	if err != nil {
		c.Fatal(err)
	}
	c.kube = client
}

func TestAgentRestartAdoptsItsContainers(t *testing.T) {
	c := start(t, 1, 1)
	before := c.deploy("web", 4)
	if err := c.fleet.StopMember("agent-1"); err != nil {
		t.Fatal(err)
	}
	if err := c.fleet.StartMember(t.Context(), "agent-1"); err != nil {
		t.Fatal(err)
	}
	// A pod made after the restart shows that the agent works; the others must be as they were.
	c.scale("web", 6)
	c.ready("web", 6)
	after := c.running()
	for uid, node := range before {
		if after[uid] != node {
			t.Errorf("pod %s on %s did not survive", uid, node)
		}
	}
}

func (c *cluster) scale(name string, replicas int32) {
	c.Helper()
	var d appsv1.Deployment
	c.do(http.MethodGet, deploymentPath+"/"+name, nil, &d)
	d.Spec.Replicas = ptr.To(replicas)
	c.do(http.MethodPut, deploymentPath+"/"+name, &d, nil)
}

func TestDeviceAwayIsReplacedAndReturns(t *testing.T) {
	c := start(t, 1, 2)
	before := c.deploy("web", 6)
	if err := c.fleet.StopMember("agent-2"); err != nil {
		t.Fatal(err)
	}
	c.eventually("the pods of the lost device run elsewhere", func() error {
		after := c.running()
		if len(after) != 6 {
			return fmt.Errorf("%d pods", len(after))
		}
		for uid, node := range after {
			if node == "agent-2" {
				return fmt.Errorf("%s is still bound to agent-2", uid)
			}
		}
		return nil
	})
	c.ready("web", 6)
	after := c.running()
	for uid, node := range before {
		if node != "agent-2" && after[uid] != node {
			t.Errorf("pod %s on %s was touched although only agent-2 failed", uid, node)
		}
	}
	if err := c.fleet.StartMember(t.Context(), "agent-2"); err != nil {
		t.Fatal(err)
	}
	c.eventually("the returned device has stopped what was replaced", func() error {
		if pods, err := c.fleet.Member("agent-2").Runtime.Pods(t.Context()); err != nil || len(pods) > 0 {
			return fmt.Errorf("%d pods, %w", len(pods), err)
		}
		if n := len(c.pods()); n != 6 {
			return fmt.Errorf("%d pod objects", n)
		}
		return nil
	})
	c.unchanged(after)
}

func TestShortCutChangesNothing(t *testing.T) {
	c := start(t, 1, 1)
	before := c.deploy("web", 4)
	c.fleet.Cut("agent-1")
	c.write("during-the-cut")
	c.fleet.Heal("agent-1")
	c.scale("web", 6)
	c.ready("web", 6)
	after := c.running()
	for uid, node := range before {
		if after[uid] != node {
			t.Errorf("pod %s on %s did not survive the cut", uid, node)
		}
	}
}

func TestWholeClusterRestarts(t *testing.T) {
	c := start(t, 3, 1)
	before := c.deploy("web", 4)
	for _, m := range c.fleet.Members() {
		if err := c.fleet.StopMember(m.Name); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range c.fleet.Members() {
		if err := c.fleet.StartMember(t.Context(), m.Name); err != nil {
			t.Fatal(err)
		}
	}
	c.write("after-the-outage")
	c.scale("web", 5)
	c.ready("web", 5)
	after := c.running()
	for uid, node := range before {
		if after[uid] != node {
			t.Errorf("pod %s on %s did not survive", uid, node)
		}
	}
}
