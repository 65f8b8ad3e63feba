package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/configs"
)

// Two devices lead to one machine. The one that drives it is cut off, and its pod is replaced; but the pod goes on there, so its
// replacement gets the machine only when the first has stopped, and then with a higher epoch.
func TestOneMachineHasOneDriver(t *testing.T) {
	port := filepath.Join(t.TempDir(), "press")
	if err := os.WriteFile(port, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var epochs sync.Map // of each pod's container, by its UID
	behave := func(c *criapi.ContainerConfig) fake.Behaviour {
		epochs.Store(c.Labels[runtime.LabelPodUID], epochOf(t, c))
		return fake.Behaviour{}
	}
	c := startFleet(t, fleet.Config{Servers: 1, Agents: 2, Runtime: fake.Config{Behave: behave}, Edit: func(config *configs.Config) {
		if strings.HasPrefix(config.NodeName, "agent") {
			config.Agent.Devices = []configs.Device{{Resource: "shoal.dev/press", Path: port, Machine: "press-3"}}
		}
	}})
	before := c.deployAsking("driver", 1, corev1.ResourceList{"shoal.dev/press": resource.MustParse("1")})
	first := ""
	for _, node := range before {
		first = node
	}
	second := map[string]string{"agent-1": "agent-2", "agent-2": "agent-1"}[first]
	if second == "" {
		t.Fatalf("the pod is on %q", first)
	}
	drives := func(node string) (epoch uint64, ok bool) {
		t.Helper()
		for _, container := range c.fleet.Member(node).Runtime.Containers() {
			if container.State == runtime.Running {
				known, _ := epochs.Load(container.PodUID)
				epoch, _ = known.(uint64)
				return epoch, true
			}
		}
		return 0, false
	}
	old, ok := drives(first)
	if !ok || old == 0 {
		t.Fatalf("%s drives: %t, with epoch %d", first, ok, old)
	}

	c.fleet.Cut(first)
	c.eventually("the replacement is told why it has to wait", func() error {
		for _, p := range c.pods() {
			for _, condition := range p.Status.Conditions {
				if p.DeletionTimestamp == nil && p.Spec.NodeName == "" && strings.Contains(condition.Message, "share machine press-3") {
					return nil
				}
			}
		}
		return errors.New("it is not")
	})
	if _, ok := drives(first); !ok {
		t.Error("a pod was stopped because its device was cut off")
	}
	if _, ok := drives(second); ok {
		t.Error("two pods drive one machine")
	}

	c.fleet.Heal(first)
	c.eventually("the other device drives it", func() error {
		_, one := drives(first)
		_, two := drives(second)
		if one && two {
			t.Error("two pods drive one machine")
		}
		if one == two {
			return fmt.Errorf("%s drives: %t, %s drives: %t", first, one, second, two)
		}
		for _, node := range c.running() {
			if node == "" {
				return errors.New("the replacement waits")
			}
		}
		return nil
	})
	for _, node := range c.running() {
		c.eventually("the replacement runs, with a higher epoch", func() error {
			if now, ok := drives(node); !ok || now <= old {
				return fmt.Errorf("%s drives: %t, with epoch %d after %d", node, ok, now, old)
			}
			return nil
		})
	}
}

func epochOf(t *testing.T, c *criapi.ContainerConfig) uint64 {
	t.Helper()
	for _, e := range c.Envs {
		if e.Key == "SHOAL_DEVICE_EPOCH" {
			n, err := strconv.ParseUint(string(e.Value), 10, 64)
			if err != nil {
				t.Error(err)
			}
			return n
		}
	}
	return 0
}
