package agent

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"pgregory.net/rapid"

	"github.com/shoal-edge/shoal/agent/hardware"
	"github.com/shoal-edge/shoal/agent/hardware/hardwaretest"
	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/transport"
)

// shelf is a set of devices that can be plugged in and out.
type shelf struct {
	dir string
	db  *database
	d   *devices
}

func newShelf(t interface{ Fatal(...any) }, dir string) *shelf {
	s := &shelf{dir: dir}
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *shelf) path(i int) string { return filepath.Join(s.dir, fmt.Sprintf("tty%d", i)) }

func (s *shelf) open() (err error) {
	if s.db != nil {
		if err := s.db.close(); err != nil {
			return err
		}
	}
	if s.db, err = openDatabase(s.dir, time.Now(), slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		return err
	}
	c := Config{Logger: slog.New(slog.DiscardHandler)}
	for i := range 4 {
		c.Devices = append(c.Devices, Device{Resource: "shoal.dev/serial", Path: s.path(i)})
	}
	s.d, err = newDevices(c, s.db)
	return err
}

// Whatever happens in whatever order: a device has one owner, an owner keeps what it has, the same state gives the same choice,
// and a restart changes nothing.
func TestClaimsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "claims")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		s := newShelf(t, dir)
		defer func() { _ = s.db.close() }()
		model := map[string]string{} // unit -> owner
		plugged := map[string]bool{}
		pods := []string{"a", "b", "c"}
		owned := func(owner string) (list []string) {
			for id, o := range model {
				if o == owner {
					list = append(list, id)
				}
			}
			slices.Sort(list)
			return list
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"assign", "assign", "release", "restart", "plug"}).Draw(t, "step") {
			case "plug":
				i := rapid.IntRange(0, 3).Draw(t, "device")
				id := "path:" + s.path(i)
				if plugged[id] {
					err = os.Remove(s.path(i))
				} else {
					err = os.WriteFile(s.path(i), nil, 0o600)
				}
				plugged[id] = !plugged[id]
				if _, scanErr := s.d.rescan(); err != nil || scanErr != nil {
					t.Fatal(err, scanErr)
				}
			case "restart":
				if err := s.open(); err != nil {
					t.Fatal(err)
				}
			case "release":
				uid := rapid.SampledFrom(pods).Draw(t, "pod")
				if _, err := s.d.release(uid); err != nil {
					t.Fatal(err)
				}
				for id, o := range model {
					if strings.HasPrefix(o, uid+"/") {
						delete(model, id)
					}
				}
			case "assign":
				r := request{
					uid: rapid.SampledFrom(pods).Draw(t, "pod"), container: rapid.SampledFrom([]string{"init", "main"}).Draw(t, "container"),
					resource: "shoal.dev/serial", count: rapid.IntRange(1, 3).Draw(t, "count"),
				}
				r.lend = []string{map[string]string{"init": "main", "main": "init"}[r.container]}
				owner, lender := r.uid+"/"+r.container, r.uid+"/"+r.lend[0]
				var want []string
				broken := false
				for _, id := range owned(owner) {
					broken = broken || !plugged[id]
					if plugged[id] {
						want = append(want, id)
					}
				}
				for _, id := range owned(lender) {
					if plugged[id] {
						want = append(want, id)
					}
				}
				for i := range 4 {
					if id := "path:" + s.path(i); plugged[id] && model[id] == "" {
						want = append(want, id)
					}
				}
				got, err := s.d.assign(r)
				mine := len(owned(owner))
				if fits := len(want) >= r.count && (!broken || len(owned(owner)) > r.count); err == nil && len(want) < r.count || err != nil && fits && !broken {
					t.Fatalf("%s wants %d of %v (%v): %v", owner, r.count, want, model, err)
				}
				if err != nil {
					continue
				}
				if !slices.Equal(ids(got), want[:r.count]) {
					t.Fatalf("%s with %d got %v, want the first %d of %v", owner, mine, ids(got), r.count, want)
				}
				for _, id := range ids(got) {
					if o := model[id]; o != "" && o != owner && o != lender {
						t.Fatalf("%s was %s's and is now %s's", id, o, owner)
					}
					model[id] = owner
				}
			}
			for id, c := range s.d.claims {
				if model[id] != c.Owner {
					t.Fatalf("%s: %s has it, %s should", id, c.Owner, model[id])
				}
			}
			if len(s.d.claims) != len(model) {
				t.Fatalf("claims %v, model %v", s.d.claims, model)
			}
		}
	})
}

func ask(name corev1.ResourceName, n string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{name: resource.MustParse(n)}
	}
}

// A board's own hardware, as sysfs tells it, is offered, chosen by what it is, and told to the container.
func TestHardwareOfABoard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := hardwaretest.Pi4(t)
		b.Config.Classes = []string{"serial", "gpio"}
		for _, node := range []string{"ttyUSB0", "ttyUSB1", "ttyAMA0"} { // a container gets what is really there
			b.Config.Declared = append(b.Config.Declared, hardware.Declared{Resource: "shoal.dev/serial", Path: b.Config.Dev + "/" + node, ContainerPath: "/dev/" + node})
		}
		d := newDevice(t, fake.Config{})
		d.hardware = &b.Config
		d.start()
		defer d.end()
		n := d.a.describe()
		for name, want := range map[corev1.ResourceName]int64{"shoal.dev/serial": 6, "shoal.dev/gpio": 2, "shoal.dev/i2c": 0} {
			capacity, allocatable := n.Status.Capacity[name], n.Status.Allocatable[name]
			if capacity.Value() != want || allocatable.Value() != want {
				t.Errorf("%s: %s, %s, want %d", name, capacity.String(), allocatable.String(), want)
			}
		}
		if list := n.Annotations["shoal.dev/devices"]; !strings.Contains(list, `"usb-serial":"A50285BI"`) || len(list) > 4096 {
			t.Errorf("annotation: %s", list)
		}
	})
}

// A pod chooses by attributes; what it gets is in its environment, and the epoch is that of the state in which it was told.
func TestSelection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var config *criapi.ContainerConfig
		d := newDevice(t, fake.Config{Behave: func(c *criapi.ContainerConfig) fake.Behaviour {
			if c.Labels[runtime.LabelPodName] == "chooser" {
				config = c
			}
			return fake.Behaviour{}
		}})
		for _, name := range []string{"a", "b"} {
			file := filepath.Join(d.dir, name)
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			d.devices = append(d.devices, Device{Resource: "shoal.dev/serial", Path: file, ContainerPath: "/dev/tty-" + name})
		}
		d.start()
		defer d.end()
		p := newPod("chooser", ask("shoal.dev/serial", "1"), func(p *corev1.Pod) {
			p.Annotations = map[string]string{"devices.shoal.dev/serial": "path=" + filepath.Join(d.dir, "b")}
			p.ResourceVersion = "4711"
			p.Spec.Containers[0].Args = []string{"$(SHOAL_DEVICE_SERIAL_0)"}
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "MINE", Value: "1"}}
		})
		d.apply(set(t, p))
		env := map[string]string{}
		for _, v := range config.Envs {
			env[v.Key] = string(v.Value)
		}
		if env["SHOAL_DEVICE_SERIAL_0"] != "/dev/tty-b" || env["SHOAL_DEVICE_EPOCH"] != "4711" || env["MINE"] != "1" || config.Args[0] != "/dev/tty-b" {
			t.Errorf("%v %v", env, config.Args)
		}
		if config.Linux.SecurityContext.Privileged {
			t.Error("privileged")
		}
		if len(config.Mounts) == 0 || config.Mounts[len(config.Mounts)-1].HostPath != filepath.Join(d.dir, "b") {
			t.Errorf("%v", config.Mounts)
		}

		bad := newPod("bad", ask("shoal.dev/serial", "1"), func(p *corev1.Pod) {
			p.Annotations = map[string]string{"devices.shoal.dev/serial": "nonsense"}
		})
		none := newPod("none", ask("shoal.dev/serial", "1"), func(p *corev1.Pod) {
			p.Annotations = map[string]string{"devices.shoal.dev/serial": "usb-vendor=0403"}
		})
		counted := newPod("counted", ask("example.com/dongle", "1"))
		d.apply(set(t, bad), set(t, none), set(t, counted))
		for pod, want := range map[*corev1.Pod]string{bad: "attribute=value", none: "no free device shoal.dev/serial with usb-vendor=0403"} {
			if s := d.status(pod).ContainerStatuses[0].State.Waiting; s == nil || !strings.Contains(s.Message, want) {
				t.Errorf("%s: %+v", pod.Name, s)
			}
		}
		if s := d.status(counted); s.Phase != corev1.PodRunning {
			t.Errorf("a pod that asks for a resource without devices: %+v", s)
		}
	})
}

// A pod that has ended needs its device no more, though it is still there; one whose end the power cut short leaves no claim.
func TestEndedPodsHoldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{Behave: func(c *criapi.ContainerConfig) fake.Behaviour {
			if c.Labels[runtime.LabelPodName] == "once" {
				return fake.Behaviour{ExitAfter: time.Second}
			}
			return fake.Behaviour{}
		}})
		file := filepath.Join(d.dir, "tty")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		d.devices = []Device{{Resource: "shoal.dev/serial", Path: file}}
		d.start()
		once := newPod("once", ask("shoal.dev/serial", "1"), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
		next := newPod("next", ask("shoal.dev/serial", "1"))
		d.apply(set(t, once))
		d.apply(set(t, next))
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := d.a.devices.claims; len(c) != 1 || c["path:"+file].uid() != string(next.UID) {
			t.Errorf("%v", c)
		}
		if s := d.status(once); s.Phase != corev1.PodSucceeded {
			t.Errorf("once: %+v", s)
		}
		d.end()

		db, err := openDatabase(d.dir, time.Now(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ghost := claim{Owner: "gone/main", Resource: "shoal.dev/serial"}
		if err := db.put(bucketDevices, map[string][]byte{"path:/dev/other": ghost.encode()}); err != nil {
			t.Fatal(err)
		}
		if err := db.close(); err != nil {
			t.Fatal(err)
		}
		d.start()
		defer d.end()
		if c := d.a.devices.claims; len(c) != 1 || c["path:"+file].uid() != string(next.UID) {
			t.Errorf("after a restart: %v", c)
		}
	})
}

// A damaged database is set aside with the claims in it; a container that runs keeps its device nevertheless, and its epoch.
func TestClaimsOutliveTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		file := filepath.Join(d.dir, "tty")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		d.devices = []Device{{Resource: "shoal.dev/serial", Path: file}}
		d.start()
		holder := newPod("holder", ask("shoal.dev/serial", "1"), func(p *corev1.Pod) { p.ResourceVersion = "900" })
		d.apply(set(t, holder))
		d.end()
		if err := os.WriteFile(filepath.Join(d.dir, "agent.db"), []byte(strings.Repeat("damaged", 4096)), 0o600); err != nil {
			t.Fatal(err)
		}
		d.start()
		defer d.end()
		d.seq = 0
		rival := newPod("rival", ask("shoal.dev/serial", "1"), func(p *corev1.Pod) { p.ResourceVersion = "800" })
		d.apply(set(t, rival), set(t, holder))
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := d.status(rival).ContainerStatuses[0].State.Waiting; s == nil || !strings.Contains(s.Message, "no free device") {
			t.Errorf("the rival: %+v", d.status(rival).ContainerStatuses[0])
		}
		if c := d.a.devices.claims["path:"+file]; c.uid() != string(holder.UID) || c.Epoch != 900 || d.a.db.heard() != 900 {
			t.Errorf("%+v, heard %d", c, d.a.db.heard())
		}
		if n := len(d.runtime.Containers()); n != 1 {
			t.Errorf("%d containers", n)
		}
	})
}

// Claims of versions before, by path and owner, are taken over.
func TestOldClaims(t *testing.T) {
	dir := t.TempDir()
	s := newShelf(t, dir)
	defer func() { _ = s.db.close() }()
	if err := os.WriteFile(s.path(0), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.db.put(bucketDevices, map[string][]byte{s.path(0): []byte("uid/main")}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.open(); err != nil {
			t.Fatal(err)
		}
		if c := s.d.claims; len(c) != 1 || c["path:"+s.path(0)].Owner != "uid/main" {
			t.Errorf("%v", c)
		}
	}
}

// The state of a control plane that has been replaced is refused, also after a restart.
func TestStaleEpochIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, fake.Config{})
		d.start()
		d.apply(set(t, newPod("web")))
		for range 2 {
			stale := newPod("stale")
			if err := d.a.Apply(t.Context(), 6, 99, true, []transport.Item{set(t, stale)}); err == nil {
				t.Error("an older epoch was applied")
			}
			if epoch, seq := d.a.Position(); epoch != 7 || seq != 1 {
				t.Errorf("position: %d, %d", epoch, seq)
			}
			if p, err := d.a.desiredPod("pods/default/stale"); p != nil || err != nil {
				t.Errorf("%v, %v", p, err)
			}
			d.end()
			d.start()
		}
		d.end()
	})
}
