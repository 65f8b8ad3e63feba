package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/raft"
)

func (c *cluster) saveSnapshot() []byte {
	c.Helper()
	response, err := c.kube.Stream(c.Context(), http.MethodGet, apiserver.SnapshotPath, nil, 0)
	if err != nil {
		c.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil || int64(len(data)) != response.ContentLength {
		c.Fatalf("%d bytes of %d: %v", len(data), response.ContentLength, err)
	}
	return data
}

func (c *cluster) restoreSnapshot(data []byte) (restored wire.Restored, err error) {
	response, err := c.kube.Stream(c.Context(), http.MethodPost, apiserver.SnapshotPath, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return restored, err
	}
	defer response.Body.Close()
	return restored, json.NewDecoder(response.Body).Decode(&restored)
}

// useFollower turns the client to a server that does not lead.
func (c *cluster) useFollower() {
	c.Helper()
	for _, m := range c.fleet.Members() {
		if m.Role == pki.RoleServer && m.Name != c.fleet.Leader() {
			c.use(m)
			return
		}
	}
}

// onDevices counts the pods in the devices' runtimes by the UID of their object.
func (c *cluster) onDevices() map[string]bool {
	c.Helper()
	uids := map[string]bool{}
	for _, m := range c.fleet.Members() {
		pods, err := m.Runtime.Pods(c.Context())
		if err != nil {
			c.Fatal(err)
		}
		for _, p := range pods {
			uids[string(p.UID)] = true
		}
	}
	return uids
}

// TestSnapshotRestore changes much after a snapshot and restores it, both through a follower: pods in the snapshot go on without
// a restart, the others are stopped, what was deleted comes back, and watches end.
func TestSnapshotRestore(t *testing.T) {
	c := start(t, 3, 1)
	before := c.deploy("web", 4)
	c.write("saved")
	c.useFollower()
	snapshot := c.saveSnapshot()

	c.write("not-saved")
	c.do(http.MethodDelete, "/api/v1/namespaces/default/configmaps/saved", nil, nil)
	c.scale("web", 7)
	c.ready("web", 7)
	var list corev1.ConfigMapList
	c.do(http.MethodGet, "/api/v1/namespaces/default/configmaps", nil, &list)
	watch, err := c.kube.Stream(t.Context(), http.MethodGet, "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion="+list.ResourceVersion, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()

	bad := bytes.Clone(snapshot)
	bad[len(bad)/2] ^= 1
	if _, err := c.restoreSnapshot(bad); !apierrors.IsBadRequest(err) {
		t.Errorf("a damaged snapshot: %v", err)
	}
	c.do(http.MethodGet, "/api/v1/namespaces/default/configmaps/not-saved", nil, nil)

	restored, err := c.restoreSnapshot(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	var event struct {
		Type   string
		Object metav1.Status
	}
	if err := json.NewDecoder(watch.Body).Decode(&event); err != nil || event.Type != "ERROR" || event.Object.Code != http.StatusGone {
		t.Errorf("the watch got %+v, %v", event, err)
	}
	var saved corev1.ConfigMap
	c.do(http.MethodGet, "/api/v1/namespaces/default/configmaps/saved", nil, &saved)
	if saved.ResourceVersion != fmt.Sprint(restored.Revision) {
		t.Errorf("resourceVersion %s, want %d", saved.ResourceVersion, restored.Revision)
	}
	if err := c.kube.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/default/configmaps/not-saved", nil, nil); !apierrors.IsNotFound(err) {
		t.Errorf("what is not in the snapshot: %v", err)
	}
	c.eventually("the devices run what is in the snapshot, and no more", func() error {
		want := map[string]bool{}
		for uid := range before {
			want[uid] = true
		}
		if have := c.onDevices(); !maps.Equal(have, want) {
			return fmt.Errorf("%d pods", len(have))
		}
		return nil
	})
	c.ready("web", 4)
	c.unchanged(before)
	c.scale("web", 5)
	c.ready("web", 5)
}

func TestSnapshotIsForAdministrators(t *testing.T) {
	c := start(t, 1, 1)
	id, err := pki.Load(filepath.Join(c.fleet.Member("agent-1").Config.DataDir, "pki"), "node")
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: id.ClientConfig("http/1.1"), DisableKeepAlives: true}}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		request, err := http.NewRequestWithContext(t.Context(), method, "https://"+c.fleet.Member("server-1").Config.Server.Listen+apiserver.SnapshotPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("%s as a device: %s", method, response.Status)
		}
	}
}

// TestRecover loses the quorum, goes on with one server and its devices, and refuses the others until their state is gone.
func TestRecover(t *testing.T) {
	c := start(t, 3, 1)
	before := c.deploy("web", 4)
	c.write("old")
	c.eventually("the survivor has it", func() error {
		return c.kube.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/default/configmaps/old?resourceVersion=0", nil, nil)
	})
	for _, name := range []string{"server-3", "server-2", "server-1"} {
		if err := c.fleet.StopMember(name); err != nil {
			t.Fatal(err)
		}
	}
	config, err := configs.Complete(c.fleet.Member("server-1").Config)
	if err != nil {
		t.Fatal(err)
	}
	survivor, err := wire.Survivor(config)
	if err != nil || len(survivor.Members) != 3 {
		t.Fatalf("%+v, %v", survivor, err)
	}
	if _, err := wire.Recover(config); err != nil {
		t.Fatal(err)
	}
	if err := c.fleet.StartMember(t.Context(), "server-1"); err != nil {
		t.Fatal(err)
	}
	c.write("recovered")
	c.do(http.MethodGet, "/api/v1/namespaces/default/configmaps/old", nil, nil)

	old := []string{"server-2", "server-3"}
	for _, name := range old {
		if err := c.fleet.StartMember(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range old {
		<-c.fleet.Member(name).Done()
		if err := c.fleet.StopMember(name); !errors.Is(err, raft.ErrSuperseded) {
			t.Errorf("%s ended with %v", name, err)
		}
	}
	// They start again, as a service manager has them do: the device goes on, and its server does not.
	for _, name := range old {
		if err := c.fleet.StartMember(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	c.allReady()
	c.unchanged(before)
	for _, name := range old {
		if err := c.fleet.StopMember(name); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(c.fleet.Member(name).Config.DataDir, "raft")); err != nil {
			t.Fatal(err)
		}
		if err := c.fleet.StartMember(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range old {
		c.use(c.fleet.Member(name))
		c.eventually(name+" has what was written without it", func() error {
			return c.kube.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/default/configmaps/recovered?resourceVersion=0", nil, nil)
		})
	}
	c.allReady()
	c.unchanged(before)
}

func (c *cluster) allReady() {
	c.Helper()
	c.eventually("all nodes are ready", func() error {
		for _, n := range c.nodes() {
			if !isReady(&n) {
				return errors.New(n.Name + " is not ready")
			}
		}
		return nil
	})
}
