package cluster

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/configs"
)

// TestEventsOfADeviceThatWasAway: a device that nobody hears, and that starts anew meanwhile, tells afterwards what happened, and when.
func TestEventsOfADeviceThatWasAway(t *testing.T) {
	c := startFleet(t, fleet.Config{Servers: 1, Agents: 1, Edit: func(c *configs.Config) { c.Server.NodeGrace = time.Hour }})
	c.deploy("web", 4)
	started := func() map[string]corev1.Event {
		var list corev1.EventList
		c.do(http.MethodGet, "/api/v1/namespaces/default/events", nil, &list)
		found := map[string]corev1.Event{}
		for _, e := range list.Items {
			if e.Reason == "Started" {
				found[e.InvolvedObject.Name] = e
			}
		}
		return found
	}
	c.eventually("the pods' starts are told", func() error {
		if n := len(started()); n != 4 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	c.fleet.Cut("agent-1")
	box := c.fleet.Member("agent-1").Runtime
	crashed := map[string]bool{}
	for _, container := range box.Containers() {
		if container.State == runtime.Running {
			box.Exit(container.ID, 1)
			crashed[container.ID] = true
		}
	}
	if len(crashed) == 0 {
		t.Fatal("nothing runs on the device")
	}
	c.eventually("what crashed runs again", func() error {
		running := 0
		for _, container := range box.Containers() {
			if container.State == runtime.Running && !crashed[container.ID] {
				running++
			}
		}
		if running != len(crashed) {
			return fmt.Errorf("%d of %d", running, len(crashed))
		}
		return nil
	})
	if err := c.fleet.StopMember("agent-1"); err != nil {
		t.Fatal(err)
	}
	down := time.Now()
	if err := c.fleet.StartMember(t.Context(), "agent-1"); err != nil {
		t.Fatal(err)
	}
	c.fleet.Heal("agent-1")
	c.eventually("the second starts are told, with their times", func() error {
		again := 0
		for _, e := range started() {
			if e.Count == 2 && !e.LastTimestamp.After(down) && e.FirstTimestamp.Time.Before(down) {
				again++
			}
		}
		if again != len(crashed) {
			return fmt.Errorf("%d of %d", again, len(crashed))
		}
		return nil
	})
}
