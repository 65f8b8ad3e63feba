package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/configs"
)

// server is the control plane's process.
type server struct {
	dir, address string
	links        []string // as the devices have them
	idle         string
	log          io.Writer
	process      *exec.Cmd
	ended        chan struct{} // closed when the process has ended
	kube         *kube.Client
}

const (
	startTime = 60 * time.Second
	fleetTime = 10 * time.Minute
	pollEvery = 500 * time.Millisecond
)

func (s *server) config() configs.Config {
	return configs.Config{
		NodeName: "server", DataDir: s.dir, AdvertiseAddress: "127.0.0.1",
		Server: configs.Server{Listen: s.address, PodCIDR: "10.64.0.0/10", NodeBits: 24},
		Agent: configs.Agent{
			Listen: "127.0.0.1:0", Links: s.links, Idle: s.idle, CNIConfDir: s.dir + "/cni", RegistryConfDir: s.dir + "/certs.d",
		},
	}
}

func (s *server) start(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	text, err := configs.Render(s.config())
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "config.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	s.process = exec.CommandContext(ctx, program, "sim", "serve", "--config", file)
	s.process.Stderr = s.log
	s.process.Cancel = func() error { return s.process.Process.Signal(syscall.SIGTERM) }
	s.process.WaitDelay = 20 * time.Second
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return err
	}
	process, ended := s.process, make(chan struct{})
	s.ended = ended
	go func() {
		defer close(ended)
		_ = process.Wait() // what it had to say is in the log
	}()
	return nil
}

func (s *server) stop() error {
	return s.end(syscall.SIGTERM)
}

func (s *server) kill() error { return s.end(syscall.SIGKILL) }

// end sends a signal and waits; one that has ended already is what is wanted.
func (s *server) end(signal syscall.Signal) error {
	if err := s.process.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.ended
	return nil
}

// ready waits until the API answers.
func (s *server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	path := wire.KubeconfigPath(s.config())
	for {
		client, err := kube.Load(path)
		if err == nil {
			if err = client.Do(ctx, http.MethodGet, "/api/v1/namespaces/kube-system", nil, nil); err == nil {
				s.kube = client
				return nil
			}
		}
		select {
		case <-s.ended:
			return errors.New("sim: the server has ended; what it said is above")
		default:
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("sim: the server does not start: %w", err)
		}
	}
}

// await polls until a count is reached.
func (s *server) await(ctx context.Context, what string, count func() (int, error), want int) error {
	ctx, cancel := context.WithTimeout(ctx, fleetTime)
	defer cancel()
	for {
		n, err := count()
		if err == nil && n >= want {
			return nil
		}
		if sleep(ctx, pollEvery) != nil {
			return fmt.Errorf("sim: %s: %d of %d, %w", what, n, want, errors.Join(err, ctx.Err()))
		}
	}
}

// nodesReady waits until so many nodes are ready. The list is only asked for once so many devices are linked: it is large.
func (s *server) nodesReady(ctx context.Context, want int) error {
	if err := s.linked(ctx, want); err != nil {
		return err
	}
	return s.await(ctx, "all nodes are ready", func() (int, error) {
		var list corev1.NodeList
		if err := s.kube.Do(ctx, http.MethodGet, "/api/v1/nodes?resourceVersion=0", nil, &list); err != nil {
			return 0, err
		}
		ready := 0
		for i := range list.Items {
			for _, c := range list.Items[i].Status.Conditions {
				if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		return ready, nil
	}, want)
}

// linked waits until so many devices have a link.
func (s *server) linked(ctx context.Context, want int) error {
	return s.await(ctx, "all devices are linked", func() (int, error) {
		v, err := s.metric(ctx, "shoal_link_devices")
		return int(v), err
	}, want)
}

// metric reads one value of /metrics.
func (s *server) metric(ctx context.Context, name string) (float64, error) {
	response, err := s.kube.Stream(ctx, http.MethodGet, "/metrics", nil, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if value, ok := strings.CutPrefix(string(line), name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("there is no %s in /metrics", name)
}

// memory is the server's resident memory in bytes: all of it, and what is its own, without the pages of the program, which come and
// go as they are used.
func (s *server) memory() (all, own int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		for prefix, to := range map[string]*int64{"VmRSS:": &all, "RssAnon:": &own} {
			rest, ok := strings.CutPrefix(line, prefix)
			if !ok {
				continue
			}
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return 0, 0, err
			}
			*to = kb << 10
		}
	}
	return all, own, nil
}

// cpu is the part of one core that the server uses while it is watched.
func (s *server) cpu(ctx context.Context, span time.Duration) (float64, error) {
	before, err := s.ticks()
	if err != nil {
		return 0, err
	}
	if err := sleep(ctx, span); err != nil {
		return 0, err
	}
	after, err := s.ticks()
	return float64(after-before) / clockTicks / span.Seconds(), err
}

// clockTicks is USER_HZ, which is 100 on all that Linux runs on today.
const clockTicks = 100

// ticks is the processor time, of user and system (proc_pid_stat(5)).
func (s *server) ticks() (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("sim: the server's stat cannot be read")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return user + system, err
}

// raiseFiles makes room for so many open files, here and in the processes that are started.
func raiseFiles(want uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if uint64(limit.Cur) >= want {
		return nil
	}
	limit.Cur = want
	limit.Max = max(limit.Max, limit.Cur)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("sim: %d open files are needed: %w; raise the limit (ulimit -n) or take fewer devices", want, err)
	}
	return nil
}
