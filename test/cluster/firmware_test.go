package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
)

const (
	releasePath = "/apis/firmware.shoal.dev/v1/releases"
	devicePath  = "/apis/firmware.shoal.dev/v1/devicefirmwares"
	rolloutPath = "/apis/fleet.shoal.dev/v1/rollouts"
	imageSize   = 700 << 10
)

// shelf serves images by their names, with ranges.
func shelf(t *testing.T, images map[string][]byte) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		image, ok := images[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(image))
	}))
	t.Cleanup(server.Close)
	return server
}

func image(begin string) []byte {
	return append([]byte(begin), bytes.Repeat([]byte{0x5a}, imageSize-len(begin))...)
}

func (c *cluster) release(version string, counter int64, url string, content []byte) {
	c.Helper()
	sum := sha256.Sum256(content)
	c.do(http.MethodPost, releasePath, &firmwarev1.Release{
		TypeMeta:   metav1.TypeMeta{APIVersion: "firmware.shoal.dev/v1", Kind: "Release"},
		ObjectMeta: metav1.ObjectMeta{Name: "os-" + version},
		Spec: firmwarev1.ReleaseSpec{
			Version: version, Counter: counter, HardwareIDs: []string{"board"},
			Artifacts: []firmwarev1.Artifact{{Name: "image", URL: url, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}},
		},
	}, nil)
}

func quick(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

func (c *cluster) roll(version string, spec fleetv1.RolloutSpec) {
	c.Helper()
	spec.Release = "os-" + version
	spec.MaxUnavailable = ptr.To(intstr.FromInt32(2))
	spec.Waves = []fleetv1.Wave{{Name: "canary", Canary: true, Soak: quick(200 * time.Millisecond)}, {Name: "all", Percent: 100}}
	spec.Health.Probation = quick(100 * time.Millisecond)
	if spec.Health.Deadline == nil {
		spec.Health.Deadline = quick(patience)
	}
	c.do(http.MethodPost, rolloutPath, &fleetv1.Rollout{
		TypeMeta:   metav1.TypeMeta{APIVersion: "fleet.shoal.dev/v1", Kind: "Rollout"},
		ObjectMeta: metav1.ObjectMeta{Name: "to-" + version}, Spec: spec,
	}, nil)
}

func (c *cluster) rolloutIs(version string, phase fleetv1.Phase) *fleetv1.Rollout {
	c.Helper()
	var r fleetv1.Rollout
	c.eventually(fmt.Sprintf("the rollout of %s is %s", version, phase), func() error {
		if err := c.kube.Do(c.Context(), http.MethodGet, rolloutPath+"/to-"+version, nil, &r); err != nil {
			return err
		}
		if r.Status.Phase != phase {
			return fmt.Errorf("%s, wave %d: %s %+v", r.Status.Phase, r.Status.Wave, r.Status.Why, r.Status.Counts)
		}
		return nil
	})
	return &r
}

// firmwareFleet starts a cluster whose members have a bootloader, and waits until all have told of it.
func firmwareFleet(t *testing.T, servers, agents int) *cluster {
	c := startFleet(t, fleet.Config{Servers: servers, Agents: agents, Firmware: &fleet.FirmwareConfig{HardwareID: "board", SlotSize: 1 << 20}})
	c.eventually("all devices tell of their firmware", func() error {
		if n := len(c.devices()); n != servers+agents {
			return fmt.Errorf("%d have", n)
		}
		return nil
	})
	return c
}

func (c *cluster) devices() []firmwarev1.DeviceFirmware {
	var list firmwarev1.DeviceFirmwareList
	c.do(http.MethodGet, devicePath, nil, &list)
	return list.Items
}

// TestFirmwareRollout brings a good release to five devices, servers included, and then one that does not start and one that is not
// healthy: both stop at the canary, which falls back by itself.
func TestFirmwareRollout(t *testing.T) {
	c := firmwareFleet(t, 3, 2)
	images := map[string][]byte{"2": image("good 2"), "3": image(fleet.DoesNotStart), "4": image("good 4, but not healthy")}
	server := shelf(t, images)
	for i, version := range []string{"2", "3", "4"} {
		c.release(version, int64(i+2), server.URL+"/"+version, images[version])
	}

	c.roll("2", fleetv1.RolloutSpec{})
	if r := c.rolloutIs("2", fleetv1.Completed); r.Status.Updated != 5 || r.Status.Failed != 0 {
		t.Errorf("%+v", r.Status)
	}
	for _, m := range c.fleet.Members() {
		c.runs(m.Name, images["2"])
	}

	c.roll("3", fleetv1.RolloutSpec{})
	r := c.rolloutIs("3", fleetv1.Halted)
	if !strings.Contains(r.Status.Why, "DidNotBoot") || r.Status.Failed != 1 || r.Status.Updated != 0 {
		t.Errorf("%+v", r.Status)
	}
	c.aborted("3")

	unhealthy := httptest.NewServer(http.NotFoundHandler())
	defer unhealthy.Close()
	c.roll("4", fleetv1.RolloutSpec{Health: firmwarev1.Health{URLs: []string{unhealthy.URL}, Deadline: quick(time.Second)}})
	r = c.rolloutIs("4", fleetv1.Halted)
	if !strings.Contains(r.Status.Why, "Unhealthy") || r.Status.Failed != 1 || r.Status.Updated != 0 {
		t.Errorf("%+v", r.Status)
	}
	for _, m := range c.fleet.Members() {
		c.runs(m.Name, images["2"])
	}
}

// aborted ends a rollout that was halted, so that another one may have the devices.
func (c *cluster) aborted(version string) {
	c.Helper()
	r := c.rolloutIs(version, fleetv1.Halted)
	r.Spec.Aborted = true
	c.do(http.MethodPut, rolloutPath+"/"+r.Name, r, nil)
	c.rolloutIs(version, fleetv1.Aborted)
}

func (c *cluster) runs(name string, want []byte) {
	c.Helper()
	have, err := c.fleet.Running(name)
	if err != nil {
		c.Fatal(err)
	}
	if !bytes.HasPrefix(have, want) {
		c.Errorf("%s runs %q", name, have[:24])
	}
}

// TestFirmwareRolloutGoesOnWithAnotherLeader: the leader stops in the middle, and the next one goes on.
func TestFirmwareRolloutGoesOnWithAnotherLeader(t *testing.T) {
	c := firmwareFleet(t, 3, 2)
	content := image("good 2")
	server := shelf(t, map[string][]byte{"2": content})
	c.release("2", 2, server.URL+"/2", content)
	c.roll("2", fleetv1.RolloutSpec{Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: "kubernetes.io/hostname", Operator: metav1.LabelSelectorOpIn, Values: []string{"agent-1", "agent-2", "server-2"}},
	}}})
	c.eventually("the canary is on its way", func() error {
		for _, d := range c.devices() {
			if d.Status.Assignment != "" {
				return nil
			}
		}
		return fmt.Errorf("nobody is")
	})
	if leader := c.fleet.Leader(); leader != "" && leader != "server-1" { // kubectl talks to server-1
		if err := c.fleet.StopMember(leader); err != nil {
			t.Fatal(err)
		}
		if err := c.fleet.StartMember(t.Context(), leader); err != nil {
			t.Fatal(err)
		}
	}
	if r := c.rolloutIs("2", fleetv1.Completed); r.Status.Updated != 3 {
		t.Errorf("%+v", r.Status)
	}
}
