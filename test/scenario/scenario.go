// Package scenario owns the steps of the main job: a cluster of several devices that runs a real app through faults. The demo
// narrates them and the end-to-end tests check them; the steps are the same.
package scenario

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
)

// Env is what the steps work on.
type Env struct {
	Lab  *dev.Lab
	Root string // the top of the repository
	Bin  string // the folder with shoal and kubectl
}

// Step is one thing that has to hold. Run returns what a reader wants to know about how it went.
type Step struct {
	Name string
	Run  func(context.Context, *Env) (string, error)
	// Limit bounds the step.
	Limit time.Duration
}

// Steps are the main job, in order.
func Steps() []Step {
	return []Step{
		{"five devices form a cluster", form, time.Minute},
		{"kubectl apply: a web app, 6 replicas, pulled from a registry", deploy, time.Minute},
		{"pages from every pod by pod IP, asked from other devices", pages, 20 * time.Second},
		{"the pod that needs a serial line runs where it is", placement, 30 * time.Second},
		{"kubectl logs, exec and port-forward through the device's own link", tunnels, 30 * time.Second},
		{"SIGKILL of the Raft leader", killLeader, 40 * time.Second},
		{"SIGKILL of an agent's process", killAgent, 40 * time.Second},
		{"one device's network is cut for a while", cutNetwork, 40 * time.Second},
		{"one device is taken away", takeAway, time.Minute},
		{"rolling update to v2", update, time.Minute},
		{"kubectl rollout undo", undo, time.Minute},
		{"releases in canary waves: a broken one, and a good one", inWaves, 2 * time.Minute},
	}
}

// Run runs one step within its limit.
func (s Step) run(ctx context.Context, e *Env) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.Limit, fmt.Errorf("the step took longer than %s", s.Limit))
	defer cancel()
	text, err := s.Run(ctx, e)
	if err != nil && context.Cause(ctx) != nil {
		err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	return text, err
}

// Do runs the step and measures it.
func (s Step) Do(ctx context.Context, e *Env) (string, time.Duration, error) {
	start := time.Now()
	text, err := s.run(ctx, e)
	return text, time.Since(start), err
}

// New prepares a lab of three servers and two agents. The last agent is the one that is taken away; the first has a serial line.
func New(name string, subnet uint8, log *slog.Logger) (*Env, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	e := &Env{Root: root, Bin: filepath.Join(root, "bin")}
	for _, file := range []string{filepath.Join(e.Bin, "shoal"), e.kubectlPath(), filepath.Join(root, ".build", "images", "index.json")} {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("%s is missing: run make build kubectl images", file)
		}
	}
	images, err := dev.OpenImages(filepath.Join(root, ".build", "images"))
	if err != nil {
		return nil, err
	}
	e.Lab, err = dev.New(dev.Config{
		Name: name, Subnet: subnet, Shoal: filepath.Join(e.Bin, "shoal"), Servers: 3, Agents: 2, Images: images, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	serial, err := e.Lab.Device(serialDevice)
	if err == nil {
		err = e.Lab.AttachSerial(serial)
	}
	if err != nil {
		_ = e.Lab.Close()
		return nil, err
	}
	return e, nil
}

// findRoot looks upwards for the repository.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "configs", "examples", "hello.yaml")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("run this inside the repository of shoal")
		}
		dir = parent
	}
}

const (
	serialDevice = "agent-1"
	awayDevice   = "agent-2"
)
