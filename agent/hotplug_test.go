package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/test/need"
)

// plug makes a device node of memory devices, which every kernel has: number 1:minor.
func plug(t *testing.T, file string, minor uint32) {
	t.Helper()
	_ = os.Remove(file)
	if minor == 0 {
		return
	}
	if err := unix.Mknod(file, unix.S_IFCHR|0o600, int(unix.Mkdev(1, minor))); err != nil {
		need.Missing(t, "needs the right to make device nodes: %v", err)
	}
}

func (d *device) look() {
	d.t.Helper()
	d.a.Rescan()
	time.Sleep(settle + later + time.Second)
	synctest.Wait()
}

func (d *device) hardwareCondition(p *corev1.Pod) string {
	d.t.Helper()
	for _, c := range d.status(p).Conditions {
		if c.Type == conditionDevices {
			return fmt.Sprintf("%s %s", c.Status, c.Reason)
		}
	}
	return "none"
}

// A device is pulled out and plugged in again: the pod that has it goes on, says so, and is only started anew when what it has
// is not its device any more.
func TestHotplug(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		one, two := filepath.Join(d.dir, "one"), filepath.Join(d.dir, "two")
		plug(t, one, 3)
		d.devices = []Device{{Resource: "shoal.dev/serial", Path: one}, {Resource: "shoal.dev/serial", Path: two}}
		d.start()
		defer d.end()
		amount := func() int64 { q := d.a.describe().Status.Allocatable["shoal.dev/serial"]; return q.Value() }
		container := func() string {
			for _, c := range d.runtime.Containers() {
				if c.State == runtime.Running && c.Name == "main" {
					return c.ID
				}
			}
			return ""
		}
		p := newPod("reader", ask("shoal.dev/serial", "1"))
		d.apply(set(t, p))
		first := container()
		if d.hardwareCondition(p) != "True AllThere" || amount() != 1 || first == "" {
			t.Fatalf("%s, %d, %q", d.hardwareCondition(p), amount(), first)
		}

		plug(t, one, 0)
		d.look()
		if d.hardwareCondition(p) != "False DeviceUnplugged" || amount() != 0 || container() != first {
			t.Errorf("unplugged: %s, %d, %q", d.hardwareCondition(p), amount(), container())
		}
		plug(t, one, 3)
		d.look()
		if d.hardwareCondition(p) != "True AllThere" || amount() != 1 || container() != first {
			t.Errorf("plugged in again, with the same number: %s, %d, %q", d.hardwareCondition(p), amount(), container())
		}
		plug(t, one, 5)
		d.look()
		second := container()
		if d.hardwareCondition(p) != "True AllThere" || second == first || second == "" {
			t.Errorf("plugged in again, with another number: %s, %q", d.hardwareCondition(p), second)
		}

		// Another device gets the number that the container may use: it is not the container's, and nobody else's while it runs.
		plug(t, one, 0)
		plug(t, two, 5)
		q := newPod("other", ask("shoal.dev/serial", "1"))
		if _, err := d.a.devices.rescan(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.a.devices.assign(request{uid: "x", container: "y", resource: "shoal.dev/serial", count: 1}); err == nil {
			t.Error("a container runs that can use this device, and another one got it")
		}
		d.a.wakeHolders()
		time.Sleep(time.Minute)
		synctest.Wait()
		if container() != "" {
			t.Error("a container goes on that can use another one's device")
		}
		if s := d.status(p).ContainerStatuses[0].State.Waiting; s == nil || !strings.Contains(s.Message, "not plugged in") {
			t.Errorf("%+v", d.status(p).ContainerStatuses[0].State)
		}
		d.apply(set(t, q))
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := d.status(q); s.Phase != corev1.PodRunning {
			t.Errorf("the other pod: %+v", s)
		}
		plug(t, one, 8)
		d.look()
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := d.status(p); s.Phase != corev1.PodRunning || d.hardwareCondition(p) != "True AllThere" {
			t.Errorf("its own device is back: %+v", s)
		}
	})
}

// Who says so is stopped when its device goes, and started when it is back.
func TestStopOnUnplug(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		file := filepath.Join(d.dir, "tty")
		write := func() {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write()
		d.devices = []Device{{Resource: "shoal.dev/serial", Path: file}}
		d.start()
		defer d.end()
		p := newPod("reader", ask("shoal.dev/serial", "1"), func(p *corev1.Pod) { p.Annotations = map[string]string{unplugAnnotation: "stop"} })
		d.apply(set(t, p))
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		d.look()
		if s := d.status(p).ContainerStatuses[0]; s.State.Running != nil || d.hardwareCondition(p) != "False DeviceUnplugged" {
			t.Errorf("%+v", s)
		}
		write()
		d.look()
		if s := d.status(p).ContainerStatuses[0]; s.State.Running == nil || s.RestartCount != 1 {
			t.Errorf("%+v", s)
		}
	})
}
