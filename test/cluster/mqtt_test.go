package cluster

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/configs"
)

// TestMQTT has all devices linked over MQTT alone, through real sockets and the servers' own brokers: pods run, their logs come
// through the device's link, and when the leader dies the devices find the next one by what a follower's broker tells them.
func TestMQTT(t *testing.T) {
	c := startFleet(t, fleet.Config{Servers: 3, Agents: 1, Sockets: true, Edit: func(c *configs.Config) {
		c.Agent.Links = []string{configs.LinkMQTT}
	}})
	pods := c.deploy("app", 4)
	c.speak("hello")
	c.logsSay("hello")

	leader := c.fleet.Leader()
	if leader == "server-1" {
		// The API client talks to the first server: have it live on.
		if err := c.fleet.StopMember(leader); err != nil {
			t.Fatal(err)
		}
		if err := c.fleet.StartMember(t.Context(), leader); err != nil {
			t.Fatal(err)
		}
	} else if err := c.fleet.StopMember(leader); err != nil {
		t.Fatal(err)
	}
	c.eventually("another server leads", func() error {
		if now := c.fleet.Leader(); now == "" || now == leader {
			return fmt.Errorf("leader %q", now)
		}
		return nil
	})
	c.speak("again")
	c.logsSay("again")
	c.unchanged(pods)
}

// speak writes a line into the logs of all running containers, as a runtime does.
func (c *cluster) speak(words string) {
	c.Helper()
	for _, m := range c.fleet.Members() {
		for _, container := range m.Runtime.Containers() {
			if container.LogPath == "" {
				continue
			}
			f, err := os.OpenFile(container.LogPath, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
			if err != nil {
				c.Fatal(err)
			}
			if _, err := fmt.Fprintf(f, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), words); err != nil {
				c.Fatal(err)
			}
			f.Close()
		}
	}
}

// logsSay waits until the logs of all pods whose devices run end with a line.
func (c *cluster) logsSay(words string) {
	c.Helper()
	c.eventually("the logs say "+words, func() error {
		var list corev1.PodList
		if err := c.kube.Do(c.Context(), http.MethodGet, "/api/v1/namespaces/default/pods", nil, &list); err != nil {
			return err
		}
		for _, p := range list.Items {
			if m := c.fleet.Member(p.Spec.NodeName); m == nil || !m.Running() {
				continue
			}
			response, err := c.kube.Stream(c.Context(), http.MethodGet, "/api/v1/namespaces/default/pods/"+p.Name+"/log", nil, 0)
			if err != nil {
				return err
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil {
				return err
			}
			if !strings.HasSuffix(string(body), words+"\n") {
				return fmt.Errorf("pod %s on %s says %q", p.Name, p.Spec.NodeName, body)
			}
		}
		return nil
	})
}
