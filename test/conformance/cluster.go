package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// cluster is a `shoal dev` that runs: a server and two agents on this machine, each with its own containerd.
type cluster struct {
	cmd        *exec.Cmd
	kubeconfig string
	drained    chan struct{}
}

// startCluster returns when all devices are ready. Their registry answers for the images of the layout in images.
func startCluster(ctx context.Context, root, images string) (*cluster, error) {
	cmd := exec.Command(filepath.Join(root, "bin", "shoal"), "dev", "--name", "conf", "--subnet", "66", "--servers", "1", "--agents", "2", "--images", images)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a cluster: %w", err)
	}
	c := &cluster{cmd: cmd, drained: make(chan struct{})}
	ready := make(chan error, 1)
	go c.read(stdout, ready)
	limit, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	select {
	case err = <-ready:
	case <-limit.Done():
		err = limit.Err()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a cluster: %w", err), c.stop())
	}
	return c, nil
}

// read looks for the kubeconfig in what the command says and for the line that comes when all is ready.
func (c *cluster) read(stdout io.Reader, ready chan<- error) {
	defer close(c.drained)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if _, path, ok := strings.Cut(lines.Text(), "export KUBECONFIG="); ok {
			c.kubeconfig = path
		}
		if strings.HasPrefix(lines.Text(), "Ctrl-C ends") {
			ready <- nil
			break
		}
	}
	select {
	case ready <- errors.New("it ended before it was ready"):
	default:
	}
	_, _ = io.Copy(io.Discard, stdout)
}

// stop ends the cluster as Ctrl-C does and waits until it has cleaned up.
func (c *cluster) stop() error {
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the cluster: %w", err)
	}
	<-c.drained
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("the cluster's end: %w", err)
	}
	return nil
}
