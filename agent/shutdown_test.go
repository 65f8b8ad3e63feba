package agent

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
)

// When the device goes down its pods end in order, and within its time; after the boot they run again, with nobody's help.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{Behave: func(c *criapi.ContainerConfig) fake.Behaviour {
			return fake.Behaviour{Stubborn: c.Labels[runtime.LabelPodName] == "stubborn"}
		}})
		d.down = true
		d.start()
		defer func() { d.end() }()
		long := int64(600)
		easy := newPod("easy")
		stubborn := newPod("stubborn", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = &long })
		critical := newPod("critical", func(p *corev1.Pod) { n := int32(systemCritical); p.Spec.Priority = &n })
		d.apply(set(t, easy), set(t, stubborn), set(t, critical))
		pass(time.Hour)
		begin := time.Now()
		d.end()
		if took := time.Since(begin); took < 15*time.Second || took > 25*time.Second {
			t.Errorf("it took %v; the stubborn one has two thirds of 30 s", took)
		}
		ended := map[string]time.Duration{}
		for _, c := range d.runtime.Containers() {
			if c.State != runtime.Exited {
				t.Errorf("runs on: %+v", c)
			}
			ended[c.PodUID] = c.FinishedAt.Sub(begin)
		}
		if a, b, c := ended[string(easy.UID)], ended[string(stubborn.UID)], ended[string(critical.UID)]; a > time.Second || c < b || b < 15*time.Second {
			t.Errorf("ended after %v, %v and %v", a, b, c)
		}
		if got := d.condition(corev1.NodeReady); got != corev1.ConditionFalse {
			t.Errorf("ready is %s for a device that goes down", got)
		}
		d.runtime.Reboot()
		d.down = false
		d.start()
		pass(time.Second)
		for _, p := range []*corev1.Pod{easy, stubborn, critical} {
			if s := d.status(p); s.Phase != corev1.PodRunning || !s.ContainerStatuses[0].Ready || s.ContainerStatuses[0].RestartCount != 1 {
				t.Errorf("after the boot %s: %+v", p.Name, s)
			}
		}
	})
}
