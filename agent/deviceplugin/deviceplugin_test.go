package deviceplugin_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/shoal-edge/shoal/agent/deviceplugin"
	"github.com/shoal-edge/shoal/agent/deviceplugin/deviceplugintest"
)

const resource = "vendor.example/widget"

type update struct {
	resource string
	devices  []deviceplugin.Device
}

// kubelet is a running server, with what it was told.
type kubelet struct {
	*deviceplugin.Server
	socket  string
	updates chan update
	stop    func()
}

func serve(t *testing.T, dir string) *kubelet {
	t.Helper()
	k := &kubelet{socket: filepath.Join(dir, "kubelet.sock"), updates: make(chan update, 16)}
	k.Server = deviceplugin.New(deviceplugin.Config{Socket: k.socket, Update: func(r string, d []deviceplugin.Device) { k.updates <- update{r, d} }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	k.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	probe := &deviceplugintest.Plugin{Resource: "bad"}
	if err := probe.Register(t.Context(), k.socket); err == nil || !strings.Contains(err.Error(), "vendor's own domain") {
		t.Fatal(err) // it waits until the server is there, and is refused
	}
	return k
}

func (k *kubelet) expect(t *testing.T, want ...deviceplugin.Device) {
	t.Helper()
	got := <-k.updates
	if got.resource != resource || !cmp.Equal(want, got.devices) {
		t.Fatalf("%s: %s", got.resource, cmp.Diff(want, got.devices))
	}
}

func TestPlugin(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	k := serve(t, dir)
	p := &deviceplugintest.Plugin{Resource: resource, Prefer: func(available, must []string, size int) []string {
		slices.Reverse(available)
		return append(must, available...)[:size]
	}}
	deviceplugintest.Start(t, p, dir, "b", "a")
	ctx := t.Context()
	if err := p.Register(ctx, k.socket); err != nil {
		t.Fatal(err)
	}
	k.expect(t, deviceplugin.Device{ID: "a", Healthy: true}, deviceplugin.Device{ID: "b", Healthy: true})
	p.Set("a", api.Unhealthy)
	k.expect(t, deviceplugin.Device{ID: "a"}, deviceplugin.Device{ID: "b", Healthy: true})
	p.Set("a", "")
	k.expect(t, deviceplugin.Device{ID: "b", Healthy: true})

	answer, err := k.Allocate(ctx, resource, []string{"b"})
	if err != nil || answer.Envs["TEST_DEVICES"] != "b" {
		t.Errorf("%v %v", answer, err)
	}
	if got := k.Preferred(ctx, resource, []string{"x", "y"}, []string{"m"}, 2); !slices.Equal(got, []string{"m", "y"}) {
		t.Error(got)
	}
	if err := k.PreStart(ctx, resource, []string{"b"}); err != nil {
		t.Error(err)
	}
	if got := p.Calls(); !slices.Equal(got, []string{"allocate b", "prestart b"}) {
		t.Error(got)
	}
	p.Answer = func([]string) (*api.ContainerAllocateResponse, error) { return nil, errors.New("on fire") }
	if _, err := k.Allocate(ctx, resource, []string{"b"}); err == nil || !strings.Contains(err.Error(), "on fire") {
		t.Error(err)
	}
	if _, err := k.Allocate(ctx, "vendor.example/other", nil); err == nil {
		t.Error("a plugin that is not there answers")
	}

	// The plugin crashes, and comes back with other devices.
	p.Stop()
	k.expect(t, deviceplugin.Device{ID: "b"})
	deviceplugintest.Start(t, p, dir, "b", "c")
	if err := p.Register(ctx, k.socket); err != nil {
		t.Fatal(err)
	}
	k.expect(t, deviceplugin.Device{ID: "b", Healthy: true}, deviceplugin.Device{ID: "c", Healthy: true})

	// The agent restarts: it removes the plugin's socket, by which a plugin notices, and makes its own anew.
	k.stop()
	k = serve(t, dir)
	defer k.stop()
	if _, err := os.Stat(p.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the plugin's socket is still there: %v", err)
	}
	p.Stop()
	deviceplugintest.Start(t, p, dir, "c")
	if err := p.Register(ctx, k.socket); err != nil {
		t.Fatal(err)
	}
	k.expect(t, deviceplugin.Device{ID: "c", Healthy: true})
	p.Stop()
	k.expect(t, deviceplugin.Device{ID: "c"})
}

func TestRegistration(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"old.sock", "notes.txt"} {
		if strings.HasSuffix(file, ".sock") {
			l, err := net.Listen("unix", filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = l.Close()
		} else if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := serve(t, dir)
	defer k.stop()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"kubelet.sock", "notes.txt"}) {
		t.Errorf("left in the folder: %v", names)
	}
	for _, test := range []struct {
		r    *api.RegisterRequest
		want string
	}{
		{&api.RegisterRequest{Version: "v1alpha", Endpoint: "x.sock", ResourceName: resource}, "not served"},
		{&api.RegisterRequest{Version: "v1beta1", Endpoint: "../x.sock", ResourceName: resource}, "endpoint"},
		{&api.RegisterRequest{Version: "v1beta1", Endpoint: "", ResourceName: resource}, "endpoint"},
		{&api.RegisterRequest{Version: "v1beta1", Endpoint: "x.sock", ResourceName: "cpu"}, "domain"},
		{&api.RegisterRequest{Version: "v1beta1", Endpoint: "x.sock", ResourceName: "shoal.dev/serial"}, "domain"},
		{&api.RegisterRequest{Version: "v1beta1", Endpoint: "x.sock", ResourceName: "node.kubernetes.io/x"}, "domain"},
	} {
		if _, err := k.Register(t.Context(), test.r); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v", test.r, err)
		}
	}
}
