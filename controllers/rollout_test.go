package controllers

import (
	"fmt"
	"hash/fnv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/controllers/waves"
	"github.com/shoal-edge/shoal/store"
)

// firmwareFleet plays the devices' side of firmware: they download, ask, restart and judge, each in its own time.
type firmwareFleet struct {
	*cluster
	good     func(node string) bool
	vanish   func(node string) bool // never comes back from its restart
	failed   chan time.Time         // when a failure was written
	restarts map[string]int
}

func newFirmwareFleet(c *cluster, n int) *firmwareFleet {
	f := &firmwareFleet{
		cluster: c, good: func(string) bool { return true }, vanish: func(string) bool { return false },
		failed: make(chan time.Time, n+1), restarts: map[string]int{},
	}
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		c.create(&firmwarev1.DeviceFirmware{ObjectMeta: metav1.ObjectMeta{Name: name}})
		f.set(name, func(s *firmwarev1.DeviceFirmwareStatus) {
			*s = firmwarev1.DeviceFirmwareStatus{HardwareID: "hw", Backend: "played", Version: "1", Counter: 1, State: firmwarev1.Idle}
		})
	}
	c.create(&firmwarev1.Release{ObjectMeta: metav1.ObjectMeta{Name: "r2"}, Spec: firmwarev1.ReleaseSpec{
		Version: "2", Counter: 2, HardwareIDs: []string{"hw"},
		Artifacts: []firmwarev1.Artifact{{Name: "image", URL: "http://r/2", Size: 1, SHA256: strings.Repeat("a", 64)}},
	}})
	_, _, watch := c.durable.ListAndWatch(deviceFirmwares, "")
	c.wg.Go(func() { f.play(watch) })
	return f
}

// addManyDevices registers nodes of which one goroutine tells that they are alive.
func (c *cluster) addManyDevices(n int) {
	for i := range n {
		block := fmt.Sprintf("10.%d.%d.0/24", 42+i/256, i%256)
		c.create(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)},
			Spec:       corev1.NodeSpec{PodCIDR: block, PodCIDRs: []string{block}},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
		})
	}
	c.wg.Go(func() {
		for c.ctx.Err() == nil {
			for i := range n {
				c.beat(fmt.Sprintf("n%d", i))
			}
			select {
			case <-time.After(testGrace * 3 / 4):
			case <-c.ctx.Done():
			}
		}
	})
}

func (f *firmwareFleet) set(node string, change func(*firmwarev1.DeviceFirmwareStatus)) {
	f.modify(key(deviceFirmwares, "", node), "status", func(o api.Object) { change(&o.(*firmwarev1.DeviceFirmware).Status) })
}

// play answers each change of what a device is told. It ends with the test.
func (f *firmwareFleet) play(w *store.Watcher) {
	defer func() { w.Close() }()
	for {
		batch, err := w.Next(f.ctx)
		if f.ctx.Err() != nil {
			return
		}
		if err != nil {
			f.Error("the watch of what devices are told:", err)
			return
		}
		for _, event := range batch {
			if object, ok := f.durable.Object(event.Item); ok && event.Type != store.Deleted {
				f.react(object.(*firmwarev1.DeviceFirmware))
			}
		}
	}
}

// later has a device do something after a while that is its own, unless it is cut off by then.
func (f *firmwareFleet) later(node string, most time.Duration, do func(*firmwarev1.DeviceFirmwareStatus)) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(node))
	f.wg.Go(func() {
		select {
		case <-time.After(most/2 + time.Duration(h.Sum32())%(most/2)):
		case <-f.ctx.Done():
			return
		}
		if !f.isCut(node) {
			f.set(node, do)
		}
	})
}

func (f *firmwareFleet) react(d *firmwarev1.DeviceFirmware) {
	s, a := &d.Status, d.Spec.Assignment
	if a == nil || f.isCut(d.Name) {
		return
	}
	switch {
	case s.Assignment != a.ID:
		f.later(d.Name, time.Minute, func(s *firmwarev1.DeviceFirmwareStatus) {
			s.Assignment, s.State, s.Asks = a.ID, firmwarev1.Staged, "ask-"+a.ID
		})
	case s.State == firmwarev1.Staged && d.Spec.Go != nil && d.Spec.Go.Nonce == s.Asks && d.Spec.Go.Seconds > 0:
		f.mu.Lock()
		f.restarts[d.Name]++
		f.mu.Unlock()
		if f.vanish(d.Name) {
			f.setCut(d.Name, true)
			return
		}
		f.later(d.Name, time.Second, func(s *firmwarev1.DeviceFirmwareStatus) { s.State, s.Asks = firmwarev1.Trial, "" })
	case s.State == firmwarev1.Trial:
		good := f.good(d.Name)
		f.later(d.Name, time.Minute, func(s *firmwarev1.DeviceFirmwareStatus) {
			if s.State, s.Version, s.Counter = firmwarev1.Confirmed, "2", 2; !good {
				s.State, s.Reason, s.Version, s.Counter = firmwarev1.RolledBack, "Unhealthy", "1", 1
				f.failed <- time.Now()
			}
		})
	}
}

func (f *firmwareFleet) start(spec fleetv1.RolloutSpec) {
	spec.Release = "r2"
	f.create(&fleetv1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "up"}, Spec: spec})
}

func (f *firmwareFleet) rollout() *fleetv1.Rollout {
	r, ok := store.Get[fleetv1.Rollout](f.durable, "", "up")
	if !ok {
		f.Fatal("no rollout")
	}
	return r
}

// until lets time pass, second by second, until the rollout has a phase, and returns when that was.
func (f *firmwareFleet) until(phase fleetv1.Phase, most time.Duration) time.Time {
	f.Helper()
	for deadline := time.Now().Add(most); time.Now().Before(deadline); f.after(time.Second) {
		if f.rollout().Status.Phase == phase {
			return time.Now()
		}
	}
	f.Fatalf("not %s after %s: %+v", phase, most, f.rollout().Status)
	return time.Time{}
}

// TestBadRolloutStopsAtTheCanary: of 100 and of 1,000 devices, no more than the canaries are touched, and everything stands
// still within 30 seconds after the first of them has fallen back.
func TestBadRolloutStopsAtTheCanary(t *testing.T) {
	for _, n := range []int{100, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			if n > 100 && testing.Short() {
				t.Skip("takes seconds")
			}
			inCluster(t, 0, func(c *cluster) {
				c.addManyDevices(n)
				f := newFirmwareFleet(c, n)
				f.good = func(string) bool { return false }
				f.start(fleetv1.RolloutSpec{})
				halted := f.until(fleetv1.Halted, 10*time.Minute)
				failed := <-f.failed
				if took := halted.Sub(failed); took > 30*time.Second {
					t.Errorf("halted %s after the failure", took)
				}
				f.after(10 * time.Minute)
				if len(f.restarts) != 1 { // one hardware, and one is no more than 1 %
					t.Errorf("%d devices were touched", len(f.restarts))
				}
				if s := f.rollout().Status; s.Phase != fleetv1.Halted || s.Failed != 1 || s.Wave != 0 || int(s.Devices) != n {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func quickWaves() []fleetv1.Wave {
	soak := &metav1.Duration{Duration: 2 * time.Minute}
	return []fleetv1.Wave{
		{Name: "canary", Canary: true, Soak: soak}, {Name: "some", Percent: 25, Soak: soak}, {Name: "all", Percent: 100},
	}
}

// TestRolloutGoesOnUnderNewLeaders: leaders come and go every minute, and everything is done once.
func TestRolloutGoesOnUnderNewLeaders(t *testing.T) {
	inCluster(t, 60, func(c *cluster) {
		f := newFirmwareFleet(c, 60)
		f.start(fleetv1.RolloutSpec{Waves: quickWaves(), MaxUnavailable: ptr.To(intstr.FromInt32(6))})
		changes := 0
		for f.rollout().Status.Phase != fleetv1.Completed && changes < 120 {
			f.after(time.Minute)
			c.stepDown()
			c.lead()
			changes++
			down := 0
			for _, d := range store.List[firmwarev1.DeviceFirmware](c.durable, "") {
				if waves.Restarting(&d.Status) {
					down++
				}
			}
			if down > 6 {
				t.Fatalf("%d devices are down at once", down)
			}
		}
		s := f.rollout().Status
		if s.Phase != fleetv1.Completed || s.Updated != 60 || changes < 5 {
			t.Errorf("%+v after %d leaders", s, changes)
		}
		for node, n := range f.restarts {
			if n != 1 {
				t.Errorf("%s restarted %d times", node, n)
			}
		}
	})
}

// TestLostAndAwayDevices: a device that does not come back from its restart halts the rollout once it is lost, one that was away catches up.
func TestLostAndAwayDevices(t *testing.T) {
	inCluster(t, 10, func(c *cluster) {
		f := newFirmwareFleet(c, 10)
		c.setCut("n3", true)
		f.after(2 * time.Minute)
		lost := ""
		f.vanish = func(node string) bool {
			if lost == "" {
				lost = node
			}
			return node == lost
		}
		began := time.Now()
		f.start(fleetv1.RolloutSpec{Waves: quickWaves(), MaxNotStarted: ptr.To(intstr.FromInt32(1))}) // n3 may be in any wave
		if took := f.until(fleetv1.Halted, 2*time.Hour).Sub(began); took < 30*time.Minute || lost == "n3" {
			t.Errorf("halted after %s for %s", took, lost)
		}
		if s := f.rollout().Status; s.Lost != 1 || !strings.Contains(s.Why, lost+" (lost)") {
			t.Errorf("%+v", s)
		}
		f.vanish = func(string) bool { return false }
		f.modify(key(rollouts, "", "up"), "", func(o api.Object) { o.(*fleetv1.Rollout).Spec.Skip = []string{lost} })
		f.after(20 * time.Minute)
		if s := f.rollout().Status; s.Phase != fleetv1.Progressing || s.Updated != 8 || s.Pending != 1 {
			t.Errorf("%+v", s)
		}
		c.setCut("n3", false)
		d, _ := store.Get[firmwarev1.DeviceFirmware](c.durable, "", "n3")
		f.react(d) // it hears what it has missed
		f.until(fleetv1.Completed, 10*time.Minute)
	})
}

// TestDeletedRolloutIsForgotten: what nobody stands for any more is taken back.
func TestDeletedRolloutIsForgotten(t *testing.T) {
	inCluster(t, 4, func(c *cluster) {
		f := newFirmwareFleet(c, 4)
		f.start(fleetv1.RolloutSpec{Waves: []fleetv1.Wave{{Name: "all", Percent: 100}}})
		f.after(time.Second)
		c.delete(key(rollouts, "", "up"))
		f.after(time.Hour)
		for _, d := range store.List[firmwarev1.DeviceFirmware](c.durable, "") {
			if d.Spec.Assignment != nil {
				t.Errorf("%s is still told to: %+v", d.Name, d.Status)
			}
		}
		if len(f.restarts) > 0 {
			t.Errorf("restarted: %v", f.restarts)
		}
	})
}
