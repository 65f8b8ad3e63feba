package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
)

// damage makes a stopped member's file unreadable.
func damage(t *testing.T, m *fleet.Member, file string) {
	t.Helper()
	path := filepath.Join(m.Config.DataDir, file)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	half := bytes.Repeat([]byte{0xA5}, len(content)/2)
	if err := os.WriteFile(path, append(half, content[len(half):]...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// voters wants a server to know so many servers with a vote, and to be one that lacks nothing.
func (c *cluster) voters(want int) error {
	response, err := c.kube.Stream(c.Context(), http.MethodGet, "/metrics", nil, 0)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	for _, line := range []string{fmt.Sprintf("shoal_raft_voters %d", want), "shoal_raft_probation 0"} {
		if !bytes.Contains(text, []byte("\n"+line+"\n")) {
			return fmt.Errorf("it does not say %q", line)
		}
	}
	return nil
}

// TestDamagedServersRepairThemselves damages the files of one server after the other, at last all of the leader's. Each comes back by
// itself: its pods run on, what was written stays, and its vote counts again.
func TestDamagedServersRepairThemselves(t *testing.T) {
	c := start(t, 3, 0)
	before := c.deploy("web", 3)
	servers := c.fleet.Members()
	log, identity, agent := "raft/log/00000001.seg", "raft/cluster", "agent/agent.db"
	// The first server was never told where others are: without its log and its agent's database it hears of them when they try to
	// reach it.
	for round, files := range [][]string{{log}, {identity}, {agent}, {log, agent}, {log, identity, agent}} {
		victim := servers[round%3]
		if round == 4 {
			victim = c.leading()
		}
		other := servers[(slices.Index(servers, victim)+1)%3]
		if round == 4 {
			victim.Config.Join.Servers = []string{other.Config.Server.Listen}
		}
		c.stop(victim)
		for _, file := range files {
			damage(t, victim, file)
		}
		c.use(other)
		c.write(fmt.Sprint("without-", round))
		c.start(victim)
		c.use(victim)
		c.eventually("it has a vote again", func() error { return c.voters(3) })
		c.stop(other) // now nothing can be written without it
		c.write(fmt.Sprint("with-", round))
		c.start(other)
		var list corev1.ConfigMapList
		c.do(http.MethodGet, "/api/v1/namespaces/default/configmaps", nil, &list)
		count := 0
		for _, m := range list.Items {
			if strings.HasPrefix(m.Name, "with") {
				count++
			}
		}
		if count != 2*(round+1) {
			t.Errorf("%d of %d objects that were written are there", count, 2*(round+1))
		}
		c.eventually("nobody lacks anything", func() error { return c.voters(3) })
	}
	c.ready("web", 3)
	c.unchanged(before)
}

func (c *cluster) leading() *fleet.Member {
	c.Helper()
	var leader string
	c.eventually("somebody leads", func() error {
		if leader = c.fleet.Leader(); leader == "" {
			return errors.New("nobody")
		}
		return nil
	})
	return c.fleet.Member(leader)
}

func (c *cluster) stop(m *fleet.Member) {
	c.Helper()
	if err := c.fleet.StopMember(m.Name); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) start(m *fleet.Member) {
	c.Helper()
	if err := c.fleet.StartMember(c.Context(), m.Name); err != nil {
		c.Fatal(err)
	}
}
