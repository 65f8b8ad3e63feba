package agent

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

func bound(p *corev1.Pod) {
	p.Annotations = map[string]string{fleetv1.DisconnectAnnotation: "stop-after=10m"}
}

// runs reports whether a container of the pod runs, and when the last one ended.
func (d *device) runs(p *corev1.Pod) (running bool, ended time.Time) {
	for _, c := range d.runtime.Containers() {
		if c.PodUID != string(p.UID) {
			continue
		}
		running = running || c.State == runtime.Running
		if c.FinishedAt.After(ended) {
			ended = c.FinishedAt
		}
	}
	return running, ended
}

func (d *device) mustRun(p *corev1.Pod, want bool) {
	d.t.Helper()
	if running, _ := d.runs(p); running != want {
		d.t.Errorf("%s runs: %t, want %t", p.Name, running, want)
	}
}

// contacted is a device with contact, a pod that may not run without, and one that may.
func contacted(t *testing.T) (d *device, p, free *corev1.Pod) {
	d = newDevice(t, fake.Config{})
	d.contactFile = filepath.Join(t.TempDir(), "run", "contact")
	d.linked.Store(true)
	d.start()
	d.a.Acknowledged(time.Now(), nil) // its status, when the link came up
	p, free = newPod("bound", bound), newPod("free")
	d.apply(set(t, p), set(t, free))
	pass(time.Hour)
	d.mustRun(p, true)
	if n := d.status(p).ContainerStatuses[0].RestartCount; n != 0 {
		t.Errorf("restarted %d times in an hour with contact", n)
	}
	return d, p, free
}

// TestPodEndsWithoutContact: it ends when the control plane may not have heard of the device for as long as it says, not before and not
// later, and runs again when it has.
func TestPodEndsWithoutContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p, free := contacted(t)
		defer func() { d.end() }()
		d.linked.Store(false)
		cut := time.Now()
		pass(7 * time.Minute)
		d.mustRun(p, true)
		pass(time.Hour)
		d.mustRun(p, false)
		d.mustRun(free, true)
		if _, ended := d.runs(p); ended.After(cut.Add(10*time.Minute+time.Second)) || ended.Before(cut.Add(7*time.Minute)) {
			t.Errorf("it ended %s after the cut", ended.Sub(cut))
		}
		d.linked.Store(true)
		d.a.Acknowledged(time.Now(), nil)
		pass(time.Minute)
		d.mustRun(p, true)
		pass(time.Hour)
		d.mustRun(p, true)
	})
}

// TestContactOutlivesTheAgent: an agent that starts again counts on from the last contact, if it is the same boot.
func TestContactOutlivesTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p, free := contacted(t)
		defer func() { d.end() }()
		d.linked.Store(false)
		d.end()
		d.start()
		pass(5 * time.Minute)
		d.mustRun(p, true)
		pass(6 * time.Minute)
		d.mustRun(p, false)
		d.mustRun(free, true)
	})
}

// TestNoContactSinceTheBoot: what ran before may run elsewhere now.
func TestNoContactSinceTheBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, p, free := contacted(t)
		defer func() { d.end() }()
		d.linked.Store(false)
		d.end()
		d.runtime.Reboot()
		d.booted = time.Now()
		if err := os.Remove(d.contactFile); err != nil { // it was in memory
			t.Fatal(err)
		}
		d.start()
		pass(time.Minute)
		d.mustRun(p, false)
		d.mustRun(free, true)
		d.linked.Store(true)
		d.a.Acknowledged(time.Now(), nil)
		pass(time.Minute)
		d.mustRun(p, true)
	})
}

// TestContactFile: what is not of this boot, or of the future, counts for nothing.
func TestContactFile(t *testing.T) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	id := string(boot[:len(boot)-1])
	for text, want := range map[string]bool{
		id + " 50m0s": true, id + " 2h0m0s": false, "other 50m0s": false, id: false, id + " x": false, "": false,
	} {
		file := filepath.Join(t.TempDir(), "contact")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k := newContact(&Config{ContactFile: file, Uptime: func() time.Duration { return time.Hour }})
		if k.known != want {
			t.Errorf("%q is known: %t", text, k.known)
		}
		left, _ := k.left(20 * time.Minute)
		if wantLeft := map[bool]time.Duration{true: 10 * time.Minute}[want]; left != wantLeft {
			t.Errorf("%q leaves %s", text, left)
		}
	}
}
