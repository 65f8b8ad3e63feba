package board

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/durable"
	"github.com/shoal-edge/shoal/firmware/chunks"
	"github.com/shoal-edge/shoal/firmware/firmwaretest"
	"github.com/shoal-edge/shoal/firmware/maker"
	"github.com/shoal-edge/shoal/test/silent"
)

// name is the board's node.
const name = "board"

// site is the control plane of the board: one real server, and a file server that has the releases.
type site struct {
	dir, shoal string
	port       string
	server     *exec.Cmd
	log        *console
	files, cri net.Listener
	kube       *kube.Client
	sent       atomic.Int64 // bytes of releases
}

func newSite(ctx context.Context, dir, shoal, images string) (s *site, err error) {
	s = &site{dir: dir, shoal: shoal, log: &console{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%w\n%s", err, s.log), s.close())
		}
	}()
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	if s.files, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	if s.cri, err = silent.Listen(filepath.Join(dir, "none.sock")); err != nil {
		return nil, err
	}
	files := firmwaretest.Counted(http.FileServer(http.Dir(images)), &s.sent)
	go func() { _ = http.Serve(s.files, files) }() //nolint:gosec // it ends with the listener
	config := filepath.Join(dir, "server.yaml")
	text := fmt.Sprintf("nodeName: server\ndataDir: %[1]s/server\nadvertiseAddress: 127.0.0.1\nserver: {listen: \"127.0.0.1:%[2]s\"}\n"+
		"agent: {containerd: %[1]s/none.sock, cniConfDir: %[1]s/cni, registryConfDir: %[1]s/registries, neighbours: {listen: none}}\n", dir, s.port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s.server = exec.Command(shoal, "server", "--config", config)
	s.server.Stdout, s.server.Stderr = s.log, s.log
	s.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.server.Start(); err != nil {
		return nil, err
	}
	return s, eventually(ctx, time.Minute, func() error {
		s.kube, err = kube.Load(filepath.Join(dir, "server", "admin.kubeconfig"))
		if err != nil {
			return err
		}
		return s.kube.Do(ctx, http.MethodGet, "/api/v1/nodes/server", nil, nil)
	})
}

func (s *site) close() error {
	if s.server != nil && s.server.Process != nil {
		_ = s.server.Process.Kill()
		_ = s.server.Wait() // it was killed
	}
	var failures []error
	for _, l := range []net.Listener{s.files, s.cri} {
		if l != nil {
			failures = append(failures, l.Close())
		}
	}
	return errors.Join(failures...)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// eventually repeats try until it succeeds, or for so long.
func eventually(ctx context.Context, most time.Duration, try func() error) error {
	for deadline := time.Now().Add(most); ; {
		err := try()
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not after %s: %w", most, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// boardFiles are the files of a new board's data partition.
func (s *site) boardFiles(ctx context.Context) (map[string]string, error) {
	token, err := exec.CommandContext(ctx, s.shoal, "token", "create", "--role", "agent",
		"--kubeconfig", filepath.Join(s.dir, "server", "admin.kubeconfig")).Output()
	if err != nil {
		return nil, fmt.Errorf("make a token: %w", err)
	}
	config := Config("127.0.0.1:"+s.port, string(bytes.TrimSpace(token)))
	return map[string]string{"config.yaml": config, "port": s.port}, nil
}

// Config is the configuration of a board's agent that joins a server with a token.
func Config(server, token string) string {
	return fmt.Sprintf(`nodeName: %s
dataDir: /data/shoal
advertiseAddress: 10.0.2.15
join: {servers: [%q], token: %q}
agent:
  containerd: /run/none.sock
  cniConfDir: /run/cni
  registryConfDir: /run/registries
  neighbours: {listen: none}
  pluginSocket: none
  heartbeat: 1s
  firmware:
    hardwareID: qemu-arm64
    backend: uboot
    version: "1"
    tries: 3
    uboot:
      slotA: /dev/vda2
      slotB: /dev/vda3
      environment: [{path: /dev/vda, offset: %d, size: 512}]
`, name, server, token, envOffset)
}

const firmwarePath = "/apis/firmware.shoal.dev/v1/devicefirmwares/" + name

// firmware is what the board says of itself.
func (s *site) firmware(ctx context.Context) (firmwarev1.DeviceFirmwareStatus, error) {
	var d firmwarev1.DeviceFirmware
	err := s.kube.Do(ctx, http.MethodGet, firmwarePath, nil, &d)
	return d.Status, err
}

// forget removes the board and all that was rolled out to it.
func (s *site) forget(ctx context.Context) {
	for _, path := range []string{
		"/apis/fleet.shoal.dev/v1/rollouts/up", "/apis/firmware.shoal.dev/v1/releases/r2", firmwarePath, "/api/v1/nodes/" + name,
	} {
		_ = s.kube.Do(ctx, http.MethodDelete, path, nil, nil) // it may not be there
	}
}

// artifact is what a release says of an image, and of its pack, which is made if it is not there.
func (s *site) artifact(image string, packed bool) (a firmwarev1.Artifact, err error) {
	file, err := os.Open(image)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	a = firmwarev1.Artifact{
		Name: "image", URL: fmt.Sprintf("http://10.0.2.2:%d/%s", s.files.Addr().(*net.TCPAddr).Port, filepath.Base(image)),
	}
	if err := maker.Measure(&a, file); err != nil || !packed {
		return a, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return a, err
	}
	var sum chunks.Summary
	err = durable.Replace(image+".pack", 0o600, func(w io.Writer) error {
		sum, err = chunks.Pack(w, file)
		return err
	})
	a.Chunks = &firmwarev1.Chunks{URL: a.URL + ".pack", Size: sum.Size, IndexSize: sum.IndexSize, IndexSHA256: sum.IndexSHA256}
	return a, err
}

// rollOut brings the board a release.
func (s *site) rollOut(ctx context.Context, artifact firmwarev1.Artifact) error {
	release := &firmwarev1.Release{}
	release.Name = "r2"
	release.Spec = firmwarev1.ReleaseSpec{
		Version: "2", Counter: 2, HardwareIDs: []string{"qemu-arm64"},
		Artifacts: []firmwarev1.Artifact{artifact},
	}
	if err := s.kube.Do(ctx, http.MethodPost, "/apis/firmware.shoal.dev/v1/releases", release, nil); err != nil {
		return err
	}
	no := false
	rollout := &fleetv1.Rollout{}
	rollout.Name = "up"
	rollout.Spec = fleetv1.RolloutSpec{
		Release: "r2", Waves: []fleetv1.Wave{{Name: "all", Percent: 100, HaltFailed: 1}},
		Health: firmwarev1.Health{
			Probation: duration(2 * time.Second), Deadline: duration(30 * time.Second), Pods: &no, URLs: []string{"http://127.0.0.1:8080/"},
		},
	}
	return s.kube.Do(ctx, http.MethodPost, "/apis/fleet.shoal.dev/v1/rollouts", rollout, nil)
}
