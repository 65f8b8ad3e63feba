package powercut

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/test/powercut/isolate"
)

const (
	// nodeName is the server's.
	nodeName = "powercut"
	// readyLimit is the promise: so long after its process started, a server answers reads and takes writes.
	readyLimit = 10 * time.Second
	// logTail is how much of a process's log is kept to be shown.
	logTail = 16 << 10
)

// server is one run of the real binary on the disk.
type server struct {
	cmd   *exec.Cmd
	log   *tail
	ended chan struct{}
	kube  *kube.Client
}

// startServer starts a server with its data on the mounted disk. Everything else that it writes goes to the scratch folder.
// more is added to its settings.
func startServer(binary, dataDir, more string) (*server, error) {
	config := filepath.Join(isolate.Scratch, "config.yaml")
	text := fmt.Sprintf(`nodeName: %s
dataDir: %s
advertiseAddress: 127.0.0.1
server: {listen: "127.0.0.1:6443"%[5]s}
agent:
  containerd: %[4]s
  cniConfDir: %[3]s/cni
  registryConfDir: %[3]s/registry
`, nodeName, dataDir, isolate.Scratch, containerdSocket(), more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s := &server{cmd: exec.Command(binary, "server", "--config", config), log: &tail{}, ended: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.Dir = isolate.Scratch
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait() // ProcessState tells
		close(s.ended)
	}()
	return s, nil
}

// alive says whether the process has not ended.
func (s *server) alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// kill ends the process at once. It may be called at any time, and more than once.
func (s *server) kill() { _ = s.cmd.Process.Kill() }

// killed waits for the end of a killed process. One that is being written to a dead disk needs a moment to die.
func (s *server) killed() error {
	s.kill()
	return s.wait(10 * time.Second)
}

// stop asks the process to end.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.wait(20 * time.Second); err != nil {
		return errors.Join(err, s.killed())
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the server ended with status %d:\n%s", code, s.log)
	}
	return nil
}

func (s *server) wait(limit time.Duration) error {
	select {
	case <-s.ended:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("the server has not ended after %v:\n%s", limit, s.log)
	}
}

// ready waits until the server answers a linearizable read and takes a write, and returns the objects that it has.
func (s *server) ready(ctx context.Context, dataDir string) (map[string]object, error) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		objects, err := s.look(ctx, dataDir)
		if err == nil {
			return objects, nil
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-s.ended:
			return nil, fmt.Errorf("the server ended by itself (%v):\n%s", s.cmd.ProcessState, s.log)
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.log.keep()
	_ = s.cmd.Process.Signal(syscall.SIGQUIT) // says where every goroutine is
	_ = s.wait(5 * time.Second)
	return nil, fmt.Errorf("not ready in %v: %w\n%s", readyLimit, last, s.log)
}

// connect reads the kubeconfig, once it is there.
func (s *server) connect(dataDir string) (err error) {
	if s.kube == nil {
		s.kube, err = kube.Load(filepath.Join(dataDir, "admin.kubeconfig"))
	}
	return err
}

func (s *server) look(ctx context.Context, dataDir string) (map[string]object, error) {
	if err := s.connect(dataDir); err != nil {
		return nil, err
	}
	if err := makeNamespace(ctx, s.kube); err != nil {
		return nil, err
	}
	// Something else each time, or it would not be a write.
	if _, err := write(ctx, s.kube, "PUT", readyName, object{value: time.Now().String()}); err != nil {
		return nil, err
	}
	return list(ctx, s.kube)
}

// tail keeps the end of what is written to it, or from a panic on its beginning.
type tail struct {
	mu          sync.Mutex
	panic, full bool
	buf         bytes.Buffer
}

// keep keeps the beginning of what comes from now on.
func (t *tail) keep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.full = true
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full && t.buf.Len() > 2*logTail {
		return len(b), nil
	}
	t.panic = t.panic || bytes.Contains(b, []byte("panic: ")) || bytes.Contains(b, []byte("fatal error: "))
	t.full = t.full || t.panic
	t.buf.Write(b)
	if over := t.buf.Len() - logTail; over > 0 && !t.full {
		t.buf.Next(over)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.buf.String())
}

// panicked says whether the process has said that it panicked.
func (t *tail) panicked() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.panic
}
