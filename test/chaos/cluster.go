// Package chaos proves that the control plane keeps its word under faults: real servers in network namespaces, clients that
// record what they were told, and checkers that compare it with what may happen. Reads and writes must be linearizable, watches
// exact, and the servers' states equal when all is over.
//
// An episode is named by its seed, which decides the size of the cluster, the faults and their times.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/configs"
)

const (
	apiPort   = "6443"
	namespace = "chaos"
	// settleLimit is the promise: so long after the last fault all servers are equal.
	settleLimit = 60 * time.Second
	// formLimit bounds the making of a cluster.
	formLimit = time.Minute
)

// Cluster is a control plane in namespaces.
type Cluster struct {
	lab        *dev.Lab
	work       string // a folder for what is beside the lab
	servers    []*Server
	network    *network
	runtime    net.Listener // stands in for containerd: the servers run no pods
	failpoints bool
	start      time.Time
	bursts     atomic.Int64 // when the last burst was, by since
}

// Server is one member.
type Server struct {
	*dev.Device
	index int
	admin *api

	touched atomic.Int64 // when a fault began or ended to disturb it last, in nanoseconds of the cluster's clock

	mu    sync.Mutex
	taken bool // by a fault
	down  bool // a fault has ended its process, or may
}

// newCluster makes servers and waits until all have a vote. The binary is started for each; one with failpoints is told where
// to look for the one to die at.
func newCluster(ctx context.Context, name string, subnet uint8, size int, binary string, failpoints bool, log *slog.Logger) (c *Cluster, err error) {
	c = &Cluster{failpoints: failpoints, start: time.Now(), work: filepath.Join(os.TempDir(), "shoal-chaos-"+name)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
			c = nil
		}
	}()
	c.lab, err = dev.New(dev.Config{
		Name: name, Subnet: subnet, Shoal: c.script(), Servers: size, WithoutContainerd: true, Logger: log,
		Edit: func(_ *dev.Device, config *configs.Config) { config.Agent.Containerd = c.socket() },
	})
	if err != nil {
		return c, err
	}
	if err := c.prepare(binary); err != nil {
		return c, err
	}
	for i, d := range c.lab.Devices() {
		c.servers = append(c.servers, &Server{Device: d, index: i})
	}
	c.network = newNetwork(c.servers, c.touch)
	if err := c.lab.Start(ctx); err != nil {
		return c, c.explain(err)
	}
	client, err := kube.Load(c.lab.Kubeconfig())
	if err != nil {
		return c, err
	}
	for _, s := range c.servers {
		s.admin = newAPI(s, client.TLS())
	}
	if err := c.form(ctx); err != nil {
		return c, c.explain(err)
	}
	return c, nil
}

func (c *Cluster) script() string { return filepath.Join(c.work, "shoal") }
func (c *Cluster) socket() string { return filepath.Join(c.work, "cri.sock") }

// prepare makes what the servers need beside a lab. The lab's lock is held, so what is there is of a run that was killed.
func (c *Cluster) prepare(binary string) error {
	if err := errors.Join(os.RemoveAll(c.work), os.MkdirAll(c.work, 0o755)); err != nil {
		return err
	}
	script := fmt.Sprintf("#!/bin/sh\nSHOAL_FAILPOINT_FILE=\"$(dirname -- \"$3\")/failpoint\" exec %s \"$@\"\n", binary)
	if err := os.WriteFile(c.script(), []byte(script), 0o755); err != nil {
		return err
	}
	var err error
	if c.runtime, err = net.Listen("unix", c.socket()); err != nil {
		return err
	}
	go func() { // ends with the listener
		for {
			conn, err := c.runtime.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	return nil
}

// explain adds the ends of the servers' logs.
func (c *Cluster) explain(err error) error {
	var text strings.Builder
	for _, s := range c.servers {
		if log, readErr := os.ReadFile(s.ShoalLog()); readErr == nil {
			fmt.Fprintf(&text, "\n== %s\n%s", s.Name, log[max(0, len(log)-1500):])
		}
	}
	return fmt.Errorf("%w%s", err, text.String())
}

// form waits until every server has a vote and the namespace of the tests is there.
func (c *Cluster) form(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, formLimit)
	defer cancel()
	err := eventually(ctx, func() error {
		for _, s := range c.servers {
			text, err := s.admin.metrics(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			if !strings.Contains(text, fmt.Sprintf("\nshoal_raft_voters %d\n", len(c.servers))) {
				return fmt.Errorf("%s does not see %d voters", s.Name, len(c.servers))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return eventually(ctx, func() error {
		made := thing{APIVersion: "v1", Kind: "Namespace"}
		made.Metadata.Name = namespace
		code, reason, err := c.servers[0].admin.do(ctx, http.MethodPost, "/api/v1/namespaces", made, nil)
		switch {
		case err != nil:
			return err
		case code != http.StatusCreated && reason != "AlreadyExists":
			return fmt.Errorf("create the namespace: %d %s", code, reason)
		}
		return nil
	})
}

// Close ends the cluster and removes it.
func (c *Cluster) Close() error {
	var errs []error
	for _, s := range c.servers {
		if s.admin != nil {
			s.admin.http.CloseIdleConnections()
		}
		errs = append(errs, s.resume())
	}
	if c.lab != nil {
		errs = append(errs, c.lab.Close())
	}
	if c.runtime != nil {
		errs = append(errs, c.runtime.Close(), os.RemoveAll(c.work))
	}
	return errors.Join(errs...)
}

// since is the clock of histories: the time since the cluster was made.
func (c *Cluster) since() time.Duration { return time.Since(c.start) }

// leader is the server that leads, as far as the ones that answer know, or nil.
func (c *Cluster) leader(ctx context.Context) *Server {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	found := make(chan *Server, len(c.servers))
	for _, s := range c.servers {
		go func() { // ends with the context at the latest
			if st, err := s.admin.state(ctx); err == nil && st.Leader {
				found <- s
				return
			}
			found <- nil
		}()
	}
	for range c.servers {
		if s := <-found; s != nil {
			return s
		}
	}
	return nil
}

// ensure brings a server's process back if it has ended.
func (c *Cluster) ensure(ctx context.Context, s *Server) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ShoalPID() != 0 {
		return nil
	}
	s.down = false
	c.touch(s)
	return c.lab.StartShoal(ctx, s.Device)
}

// touch notes that a fault disturbs a server, or ceases to.
func (c *Cluster) touch(s *Server) { s.touched.Store(int64(c.since())) }

// take reserves a server for a fault; two faults of processes never share one.
func (s *Server) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken {
		return false
	}
	s.taken = true
	return true
}

func (s *Server) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = false
}

// settle waits until all servers have applied a revision and hold the same, and returns how long that took.
func (c *Cluster) settle(ctx context.Context, atLeast uint64) (time.Duration, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	var different error
	err := eventually(ctx, func() error {
		states := make([]state, len(c.servers))
		for i, s := range c.servers {
			if s.ShoalPID() == 0 {
				different = fmt.Errorf("%s has ended by itself", s.Name)
				return nil
			}
			var err error
			if states[i], err = s.admin.state(ctx); err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
		}
		for i, st := range states {
			switch {
			case st.Revision < atLeast:
				return fmt.Errorf("%s is at revision %d, not yet at %d", c.servers[i].Name, st.Revision, atLeast)
			case st.Revision != states[0].Revision:
				return fmt.Errorf("%s is at revision %d, %s at %d", c.servers[i].Name, st.Revision, c.servers[0].Name, states[0].Revision)
			case st.SHA256 != states[0].SHA256:
				different = fmt.Errorf("at revision %d %s has the state %s (%d objects), %s has %s (%d)", st.Revision,
					c.servers[0].Name, states[0].SHA256[:12], states[0].Objects, c.servers[i].Name, st.SHA256[:12], st.Objects)
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("the servers are not equal %s after the last fault: %w", settleLimit, err)
	}
	return time.Since(start), different
}

// eventually repeats try until it succeeds or ctx ends, and then returns its last error.
func eventually(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(25 * time.Millisecond):
		}
	}
}
