package cluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/pki"
)

// members lists the members of the control plane by name; nil while there is no leader.
func (c *cluster) members() map[string]wire.Member {
	c.Helper()
	var list []wire.Member
	if err := c.kube.Do(c.Context(), http.MethodGet, apiserver.MembersPath, nil, &list); err != nil {
		return nil
	}
	byName := map[string]wire.Member{}
	for _, m := range list {
		byName[m.Name] = m
	}
	return byName
}

// voters are the names of those that have a vote, sorted.
func voters(members map[string]wire.Member) (names []string) {
	for name, m := range members {
		if m.Role != "spare" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// awaitVoters waits until exactly these have a vote, and returns all members.
func (c *cluster) awaitVoters(want ...string) (members map[string]wire.Member) {
	c.Helper()
	slices.Sort(want)
	c.eventually(fmt.Sprint("the voters are ", want), func() error {
		if members = c.members(); !slices.Equal(voters(members), want) {
			return fmt.Errorf("%+v", members)
		}
		return nil
	})
	return members
}

// other is a server with a vote that does not lead; the client is turned to the leader.
func (c *cluster) other() string {
	c.Helper()
	var name string
	c.eventually("there is a leader", func() error {
		leader := c.fleet.Member(c.fleet.Leader())
		if leader == nil {
			return errors.New("none")
		}
		c.use(leader)
		for _, m := range c.members() {
			if m.Role == "voter" && m.Kind == "server" {
				name = m.Name
			}
		}
		if name == "" {
			return errors.New("no other voter")
		}
		return nil
	})
	return name
}

func (c *cluster) stopAll(names ...string) {
	c.Helper()
	for _, name := range names {
		c.stop(c.fleet.Member(name))
	}
}

func (c *cluster) startAll(names ...string) {
	c.Helper()
	for _, name := range names {
		c.start(c.fleet.Member(name))
	}
}

// TestSpareTakesADeadVotersPlace loses a voter with a spare at hand, and takes it back.
func TestSpareTakesADeadVotersPlace(t *testing.T) {
	c := start(t, 4, 0)
	before := voters(c.members())
	dead := c.other()
	i := slices.IndexFunc(c.fleet.Members(), func(m *fleet.Member) bool { return !slices.Contains(before, m.Name) })
	spare := c.fleet.Members()[i].Name
	c.stopAll(dead)
	after := append(slices.DeleteFunc(slices.Clone(before), func(name string) bool { return name == dead }), spare)
	members := c.awaitVoters(after...)
	if m := members[dead]; m.Healthy || m.SilentSeconds < 2 {
		t.Errorf("the dead one was replaced and is %+v", m)
	}
	c.write("without-it")
	c.startAll(dead)
	c.eventually("it is back", func() error {
		if m := c.members()[dead]; !m.Healthy || m.Role != "spare" {
			return fmt.Errorf("%+v", m)
		}
		return nil
	})
	c.awaitVoters(after...)
}

// TestSiteOfTwoWithAWitness loses either server.
func TestSiteOfTwoWithAWitness(t *testing.T) {
	c := startFleet(t, fleet.Config{Servers: 2, Witness: true})
	members := c.awaitVoters("server-1", "server-2", "witness")
	if m := members["witness"]; m.Kind != "witness" || !m.Healthy {
		t.Errorf("the witness is %+v", m)
	}
	for _, name := range []string{"server-1", "server-2"} {
		other := "server-1"
		if name == other {
			other = "server-2"
		}
		c.use(c.fleet.Member(other))
		c.stopAll(name)
		c.write("without-" + name)
		c.startAll(name)
		c.use(c.fleet.Member(name))
		c.eventually("it has what was written without it", func() error {
			return c.kube.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/default/configmaps/without-"+name, nil, nil)
		})
		c.eventually("it is well", func() error {
			if m := c.members()[name]; !m.Healthy {
				return fmt.Errorf("%+v", m)
			}
			return nil
		})
	}
	c.stopAll("witness")
	c.write("without-witness")
	c.startAll("witness")
	c.awaitVoters("server-1", "server-2", "witness")
	c.witnessMayDoNothing()
}

// witnessMayDoNothing asks the API with a witness's certificate, and looks for the authority's key.
func (c *cluster) witnessMayDoNothing() {
	c.Helper()
	dir := filepath.Join(c.fleet.Member("witness").Config.DataDir, "pki")
	if _, err := os.Stat(filepath.Join(dir, "ca.key")); !errors.Is(err, os.ErrNotExist) {
		c.Errorf("a witness has the CA's key: %v", err)
	}
	id, err := pki.Load(dir, "node")
	if err != nil {
		c.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: id.ClientConfig("http/1.1"), DisableKeepAlives: true}, Timeout: patience}
	for _, path := range []string{"/api/v1/secrets", apiserver.MembersPath, apiserver.SnapshotPath} {
		response, err := client.Get("https://" + c.fleet.Member("server-1").Config.Server.Listen + path)
		if err != nil {
			c.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			c.Errorf("a witness gets %s: %s", path, response.Status)
		}
	}
	for _, proto := range []string{pki.ProtoRaft, pki.ProtoLink} {
		dialer := tls.Dialer{Config: id.ClientConfig(proto)}
		conn, err := dialer.DialContext(c.Context(), "tcp", c.fleet.Member("server-1").Config.Server.Listen)
		if err == nil { // TLS 1.3 tells a client of a refusal with the first read
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, err = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		if err == nil {
			c.Errorf("a witness may speak %s", proto)
		}
	}
}

// TestDeadServerIsTakenOut by deleting its node, and by hand.
func TestDeadServerIsTakenOut(t *testing.T) {
	c := start(t, 4, 0)
	running := c.other()
	err := c.kube.Do(t.Context(), http.MethodDelete, apiserver.MembersPath+"/"+running, nil, nil)
	if !apierrors.IsConflict(err) {
		t.Errorf("a member that runs was taken out: %v", err)
	}
	if err := c.kube.Do(t.Context(), http.MethodDelete, apiserver.MembersPath+"/nobody", nil, nil); !apierrors.IsNotFound(err) {
		t.Errorf("nobody was taken out: %v", err)
	}
	c.stopAll(running)
	c.eventually("the spare has its vote", func() error {
		if m := c.members()[running]; m.Role != "spare" {
			return fmt.Errorf("%+v", m)
		}
		return nil
	})
	c.do(http.MethodDelete, apiserver.MembersPath+"/"+running, nil, nil)
	if _, ok := c.members()[running]; ok {
		t.Error("it is still a member")
	}

	second := c.other()
	c.stopAll(second)
	c.do(http.MethodDelete, "/api/v1/nodes/"+second, nil, nil)
	c.eventually("the server without a node is no member any more", func() error {
		if m, ok := c.members()[second]; ok || c.members() == nil {
			return fmt.Errorf("%+v", m)
		}
		return nil
	})
	// Who comes back is let in again.
	c.startAll(running, second)
	c.eventually("both are back", func() error {
		if members := c.members(); len(members) != 4 || len(voters(members)) != 3 {
			return fmt.Errorf("%+v", members)
		}
		return nil
	})
}

// TestServerThatLostItsLogJoinsAgain removes the part of its folder that it votes by.
func TestServerThatLostItsLogJoinsAgain(t *testing.T) {
	c := start(t, 3, 0)
	forgetful := c.other()
	c.stopAll(forgetful)
	if err := os.RemoveAll(filepath.Join(c.fleet.Member(forgetful).Config.DataDir, "raft")); err != nil {
		t.Fatal(err)
	}
	c.write("without-it")
	c.startAll(forgetful)
	c.awaitVoters("server-1", "server-2", "server-3")
	c.use(c.fleet.Member(forgetful))
	c.eventually("it has everything", func() error {
		return c.kube.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/default/configmaps/without-it?resourceVersion=0", nil, new(corev1.ConfigMap))
	})
}
