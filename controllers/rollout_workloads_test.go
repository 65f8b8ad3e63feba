package controllers

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/store"
)

const newImage = "app:2"

// appRelease makes a deployment of ten pods that is rolled out, and a release and a rollout with a new image for it.
func (c *cluster) appRelease(change ...func(*firmwarev1.Release)) {
	c.create(newDeployment("web", 10))
	c.after(time.Minute)
	c.mustBeDone("web", 10)
	c.release("Deployment", "web", change...)
}

// release makes a release of a new image for a workload, and a rollout of it.
func (c *cluster) release(kind, name string, change ...func(*firmwarev1.Release)) {
	release := &firmwarev1.Release{ObjectMeta: metav1.ObjectMeta{Name: "r2"}, Spec: firmwarev1.ReleaseSpec{
		Version: "2", Counter: 2, Workloads: []firmwarev1.Workload{{
			Kind: kind, Namespace: "default", Name: name, Images: []firmwarev1.ContainerImage{{Container: "main", Image: newImage}},
		}},
	}}
	for _, f := range change {
		f(release)
	}
	c.create(release)
	c.create(&fleetv1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "up"}, Spec: fleetv1.RolloutSpec{Release: "r2", Waves: quickWaves(), Gates: c.gates}})
}

func (c *cluster) appRollout() *fleetv1.Rollout {
	c.Helper()
	r, ok := store.Get[fleetv1.Rollout](c.durable, "", "up")
	if !ok {
		c.Fatal("no rollout")
	}
	return r
}

// updated counts the pods with the new image.
func (c *cluster) updated() int {
	n := 0
	for _, pod := range store.List[corev1.Pod](c.durable, "default") {
		if pod.Spec.Containers[0].Image == newImage {
			n++
		}
	}
	return n
}

// held checks what a workload was told: nothing, if pods is negative.
func (c *cluster) held(pods int32, image string) {
	c.Helper()
	d := c.deployment("web")
	hold, err := fleetv1.ReadHold(d.Annotations)
	switch have := d.Spec.Template.Spec.Containers[0].Image; {
	case err != nil:
		c.Error(err)
	case pods < 0 && hold != nil, pods >= 0 && (hold == nil || hold.Pods != pods):
		c.Errorf("held by %v, want %d", hold, pods)
	case have != image:
		c.Errorf("it has the image %s, want %s", have, image)
	}
}

func (c *cluster) mustStand(phase fleetv1.Phase, wave int32, updated int) {
	c.Helper()
	s := c.appRollout().Status
	if s.Phase != phase || s.Wave != wave || int(s.Updated) != updated || c.updated() != updated {
		c.Errorf("%s in wave %d, %d updated (%d pods); want %s, %d, %d: %s", s.Phase, s.Wave, s.Updated, c.updated(), phase, wave, updated, s.Why)
	}
}

func TestAppInWaves(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		end := func() {}
		c.appRelease(func(*firmwarev1.Release) { end = c.bounds(13, 8) })
		c.after(time.Minute)
		c.mustStand(fleetv1.Soaking, 0, 1)
		c.held(1, newImage)
		c.after(10 * time.Second)
		c.stepDown() // the next leader goes on
		c.lead()
		c.after(90 * time.Second)
		c.mustStand(fleetv1.Soaking, 1, 3)
		c.held(3, newImage)
		c.after(3 * time.Minute)
		c.mustStand(fleetv1.Completed, 2, 10)
		c.held(-1, newImage)
		end()
		c.mustBeDone("web", 10)
		// What people do with it afterwards is theirs.
		c.setImage("web", "app:3")
		c.after(time.Minute)
		c.held(-1, "app:3")
		if s := c.appRollout().Status; s.Phase != fleetv1.Completed {
			t.Errorf("%+v", s)
		}
	})
}

// TestBadAppIsTakenBack: of a release that does not run there is never more than the canary, and soon none.
func TestBadAppIsTakenBack(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		var bad atomic.Bool
		bad.Store(true)
		c.crashes = func(pod *corev1.Pod) bool { return bad.Load() && pod.Spec.Containers[0].Image == newImage }
		c.appRelease()
		most := 0
		for range 120 {
			c.after(time.Second)
			most = max(most, c.updated())
		}
		if most != 1 {
			t.Errorf("%d pods had the bad image at once", most)
		}
		c.mustStand(fleetv1.Halted, 0, 0)
		c.held(-1, "app:1")
		if why := c.appRollout().Status.Why; !strings.Contains(why, "CrashLoopBackOff") {
			t.Errorf("why: %s", why)
		}
		c.mustBeDone("web", 10)
		c.after(time.Hour)
		c.mustStand(fleetv1.Halted, 0, 0)
		bad.Store(false)
		c.modify(key(rollouts, "", "up"), "", func(o api.Object) { o.(*fleetv1.Rollout).Spec.Retries = 1 })
		c.after(time.Minute)
		c.mustStand(fleetv1.Soaking, 0, 1)
		c.after(10 * time.Minute)
		c.mustStand(fleetv1.Completed, 2, 10)
	})
}

// TestSilentAppIsTakenBack: pods that start and never become ready are judged by the deployment's own deadline; a long soak is none of it.
func TestSilentAppIsTakenBack(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.appRelease()
		c.modify(key(deployments, "default", "web"), "", func(o api.Object) {
			o.(*appsv1.Deployment).Spec.ProgressDeadlineSeconds = ptr.To[int32](60) // the soak is twice as long
		})
		c.after(time.Minute)
		c.mustStand(fleetv1.Soaking, 0, 1)
		c.mu.Lock()
		c.notRead = func(pod *corev1.Pod) bool { return pod.Spec.Containers[0].Image == newImage }
		c.mu.Unlock()
		c.after(80 * time.Second)
		if s := c.appRollout().Status; s.Phase != fleetv1.Progressing || s.Wave != 1 {
			t.Errorf("%+v", s)
		}
		c.after(2 * time.Minute)
		c.mustStand(fleetv1.Halted, 1, 0)
		c.held(-1, "app:1")
		c.mustBeDone("web", 10)
	})
}

// TestHeldApp: what happens to a workload in the middle of its waves.
func TestHeldApp(t *testing.T) {
	for name, test := range map[string]func(*cluster){
		"it grows and shrinks": func(c *cluster) {
			c.resize("web", 20)
			c.after(time.Minute)
			c.mustStand(fleetv1.Soaking, 0, 1)
			c.resize("web", 4)
			c.after(20 * time.Second)
			c.mustStand(fleetv1.Soaking, 0, 1)
			if n := len(c.running()); n != 4 {
				c.Errorf("%d pods, want 4", n)
			}
			c.after(10 * time.Minute)
			c.mustStand(fleetv1.Completed, 2, 4)
		},
		"somebody gives it another image": func(c *cluster) {
			c.setImage("web", "app:3")
			c.after(time.Minute)
			c.mustStand(fleetv1.Halted, 0, 0)
			c.held(-1, "app:3")
			c.mustBeDone("web", 10)
		},
		"the rollout is deleted": func(c *cluster) {
			c.delete(key(rollouts, "", "up"))
			c.after(time.Minute)
			c.held(-1, "app:1")
			c.mustBeDone("web", 10)
		},
		"the rollout is deleted while nobody leads, and another has its name": func(c *cluster) {
			c.stepDown()
			c.delete(key(rollouts, "", "up"))
			c.create(&fleetv1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "up"}, Spec: fleetv1.RolloutSpec{Release: "r2", Waves: quickWaves()}})
			c.lead()
			c.after(time.Minute)
			hold, _ := fleetv1.ReadHold(c.deployment("web").Annotations)
			if hold == nil || hold.UID != string(c.appRollout().UID) || hold.Former[0].Image != "app:1" {
				c.Errorf("held by %v", hold)
			}
			c.mustStand(fleetv1.Soaking, 0, 1)
		},
		"the rollout is aborted": func(c *cluster) {
			c.modify(key(rollouts, "", "up"), "", func(o api.Object) { o.(*fleetv1.Rollout).Spec.Aborted = true })
			c.after(time.Minute)
			c.mustStand(fleetv1.Aborted, 0, 0)
			c.held(-1, "app:1")
		},
		"the workload is skipped": func(c *cluster) {
			c.modify(key(rollouts, "", "up"), "", func(o api.Object) { o.(*fleetv1.Rollout).Spec.Skip = []string{"default/web"} })
			c.after(time.Minute)
			c.held(-1, "app:1")
		},
		"the workload is deleted": func(c *cluster) {
			c.delete(key(deployments, "default", "web"))
			c.after(time.Minute)
			if s := c.appRollout().Status; s.Phase != fleetv1.Progressing || !strings.Contains(s.Why, "there is none") {
				c.Errorf("%+v", s)
			}
		},
		"the hold is unreadable": func(c *cluster) {
			c.modify(key(deployments, "default", "web"), "", func(o api.Object) { o.SetAnnotations(map[string]string{fleetv1.HoldAnnotation: "x"}) })
			c.after(10 * time.Minute)
			if s := c.appRollout().Status; s.Phase != fleetv1.Progressing || !strings.Contains(s.Why, fleetv1.HoldAnnotation) || c.updated() != 1 {
				c.Errorf("%+v", s)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 3, func(c *cluster) {
				c.appRelease()
				c.after(30 * time.Second)
				c.mustStand(fleetv1.Soaking, 0, 1)
				test(c)
			})
		})
	}
}

// TestFirmwareAndAppAreOneRelease: they go through the same gates, and when a device falls back the app does too.
func TestFirmwareAndAppAreOneRelease(t *testing.T) {
	for name, good := range map[string]bool{"good": true, "bad firmware": false} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 4, func(c *cluster) {
				f := newFirmwareFleet(c, 4) // makes a release r2 of its own, which nothing is done with
				f.good = func(string) bool { return good }
				c.create(newDeployment("web", 4))
				c.after(time.Minute)
				release, _ := store.Get[firmwarev1.Release](c.durable, "", "r2")
				both := &firmwarev1.Release{ObjectMeta: metav1.ObjectMeta{Name: "both"}, Spec: release.DeepCopy().Spec}
				both.Spec.Workloads = []firmwarev1.Workload{{
					Kind: "Deployment", Namespace: "default", Name: "web", Images: []firmwarev1.ContainerImage{{Container: "main", Image: newImage}},
				}}
				c.create(both)
				c.create(&fleetv1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "up"}, Spec: fleetv1.RolloutSpec{Release: "both", Waves: quickWaves()}})
				c.after(30 * time.Second)
				if s := c.appRollout().Status; s.Phase != fleetv1.Progressing || s.Wave != 0 || c.updated() != 1 {
					t.Errorf("a device has not confirmed yet: %+v, %d pods", s, c.updated())
				}
				c.after(30 * time.Minute)
				s := c.appRollout().Status
				if good {
					if s.Phase != fleetv1.Completed || s.Updated != 8 || s.Devices != 8 || c.updated() != 4 {
						t.Errorf("%+v, %d pods", s, c.updated())
					}
					return
				}
				if s.Phase != fleetv1.Halted || s.Failed != 1 || c.updated() != 0 {
					t.Errorf("%+v, %d pods", s, c.updated())
				}
				c.held(-1, "app:1")
			})
		})
	}
}

// daemonRelease makes a daemon set that runs on all devices, and a release and a rollout with a new image for it.
func (c *cluster) daemonRelease(ready int, change ...func(*appsv1.DaemonSet)) {
	c.create(newDaemonSet(append(change, func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.Containers[0].Image = "app:1"
		ds.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: ptr.To(intstr.FromInt32(4))}
	})...))
	c.after(time.Minute)
	if got := c.daemonSet().Status.NumberAvailable; int(got) != ready {
		c.Fatalf("%d pods are available", got)
	}
	c.release("DaemonSet", "probe")
}

func TestDaemonSetInWaves(t *testing.T) {
	inCluster(t, 10, func(c *cluster) {
		c.daemonRelease(10)
		end := c.bounds(10, 6)
		c.after(time.Minute)
		c.mustStand(fleetv1.Soaking, 0, 1)
		// What is lost meanwhile, and a device that joins, get the former template: the wave goes no further for that.
		for _, pod := range c.running() {
			if pod.Spec.Containers[0].Image == "app:1" {
				c.delete(store.KeyOf(c.durable, pod))
				break
			}
		}
		c.after(10 * time.Second)
		end()
		c.addDevice("new")
		c.after(10 * time.Second)
		c.mustStand(fleetv1.Soaking, 0, 1)
		if n := len(c.running()); n != 11 {
			t.Errorf("%d pods", n)
		}
		c.stepDown() // the next leader goes on
		c.lead()
		c.after(90 * time.Second)
		if s := c.appRollout().Status; s.Wave != 1 || c.updated() < 3 || c.updated() > 4 {
			t.Errorf("%+v, %d pods", s, c.updated())
		}
		c.after(4 * time.Minute)
		c.mustStand(fleetv1.Completed, 2, 11)
		if a := c.daemonSet().Annotations; a[fleetv1.HoldAnnotation] != "" {
			t.Error(a)
		}
	})
}

// A device that is away is no part of a wave, and gets the release when it is back.
func TestDaemonSetInWavesAroundWhoIsAway(t *testing.T) {
	for _, change := range []func(*appsv1.DaemonSet){func(*appsv1.DaemonSet) {}, everywhere} {
		wavesAroundWhoIsAway(t, change)
	}
}

func wavesAroundWhoIsAway(t *testing.T, change func(*appsv1.DaemonSet)) {
	inCluster(t, 10, func(c *cluster) {
		c.setCut("n0", true)
		c.after(2 * time.Minute)
		c.daemonRelease(9, change)
		c.after(10 * time.Minute)
		c.mustStand(fleetv1.Completed, 2, 9)
		c.setCut("n0", false)
		c.after(time.Minute)
		if got := c.updated(); got != 10 {
			t.Errorf("%d pods have the release", got)
		}
	})
}

func TestBadDaemonSetIsTakenBack(t *testing.T) {
	inCluster(t, 10, func(c *cluster) {
		c.crashes = func(pod *corev1.Pod) bool { return pod.Spec.Containers[0].Image == newImage }
		c.daemonRelease(10)
		most := 0
		for range 120 {
			c.after(time.Second)
			most = max(most, c.updated())
		}
		if most != 1 {
			t.Errorf("%d pods had the bad image at once", most)
		}
		c.mustStand(fleetv1.Halted, 0, 0)
		if why := c.appRollout().Status.Why; !strings.Contains(why, "CrashLoopBackOff") {
			t.Errorf("why: %s", why)
		}
		if n := c.daemonSet().Status.NumberAvailable; n != 10 {
			t.Errorf("%d pods are available", n)
		}
	})
}

// Pods of a daemon set that start and never become ready are judged after ten minutes: nothing else has a deadline for them.
func TestSilentDaemonSetIsTakenBack(t *testing.T) {
	inCluster(t, 10, func(c *cluster) {
		c.notRead = func(pod *corev1.Pod) bool { return pod.Spec.Containers[0].Image == newImage }
		c.daemonRelease(10)
		c.after(9 * time.Minute)
		if s := c.appRollout().Status; s.Phase != fleetv1.Progressing || c.updated() != 1 {
			t.Errorf("%d pods; %+v", c.updated(), s)
		}
		c.after(2 * time.Minute)
		c.mustStand(fleetv1.Halted, 0, 0)
	})
}
