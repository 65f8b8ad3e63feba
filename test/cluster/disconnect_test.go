package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// runningOn are the devices on which a container runs at this moment, whatever the control plane knows.
func (c *cluster) runningOn() (names []string) {
	for _, m := range c.fleet.Members() {
		for _, container := range m.Runtime.Containers() {
			if container.State == runtime.Running {
				names = append(names, m.Name)
			}
		}
	}
	return names
}

// TestNeverTwo cuts the device of a pod that must not run twice, for longer than the pod may run without contact: the device ends it, then
// another one starts it, and at no moment do both run. When the device is back, it does not start it again.
func TestNeverTwo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	c := start(t, 3, 1)
	c.deploy("one", 0)
	var d appsv1.Deployment
	const path = "/apis/apps/v1/namespaces/default/deployments/one"
	c.do(http.MethodGet, path, nil, &d)
	d.ResourceVersion = "" // whatever its controller writes meanwhile
	d.Spec.Template.Annotations = map[string]string{fleetv1.DisconnectAnnotation: "stop-after=10s"}
	replicas, grace := int32(1), int64(1)
	d.Spec.Replicas, d.Spec.Template.Spec.TerminationGracePeriodSeconds = &replicas, &grace
	c.do(http.MethodPut, path, &d, nil)
	c.ready("one", 1)
	first := ""
	c.eventually("it runs on one device", func() error {
		on := c.runningOn()
		if len(on) != 1 {
			return fmt.Errorf("it runs on %v", on)
		}
		first = on[0]
		return nil
	})
	time.Sleep(12 * time.Second) // with contact it runs on
	if on := c.runningOn(); len(on) != 1 || on[0] != first {
		t.Fatalf("with contact it runs on %v, not on %s", on, first)
	}
	c.fleet.Cut(first)
	ended := false
	c.eventually("another device runs it", func() error {
		on := c.runningOn()
		ended = ended || len(on) == 0
		switch {
		case len(on) > 1:
			t.Fatalf("it runs on %v at once", on)
		case len(on) == 0 || on[0] == first:
			return fmt.Errorf("it runs on %v", on)
		case !ended:
			return errors.New("it was not seen to end before")
		}
		return nil
	})
	c.fleet.Heal(first)
	c.eventually("the device is back", func() error {
		for _, n := range c.nodes() {
			if n.Name == first && !isReady(&n) {
				return errors.New("it is not ready")
			}
		}
		return nil
	})
	for range 100 {
		if on := c.runningOn(); len(on) > 1 {
			t.Fatalf("it runs on %v at once", on)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
