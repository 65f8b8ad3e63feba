package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
)

func (e *Env) kubectlPath() string { return filepath.Join(e.Bin, "kubectl") }

// Command prepares a kubectl that talks to a running server and keeps its caches in the lab's folder.
func (e *Env) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, e.kubectlPath(), args...)
	cmd.Dir = e.Root
	cmd.Env = []string{"KUBECONFIG=" + e.Lab.Kubeconfig(), "HOME=" + filepath.Join(e.Lab.Dir(), "home"), "PATH=" + os.Getenv("PATH")}
	cmd.WaitDelay = time.Second
	return cmd
}

// Kubectl runs kubectl to its end and returns its standard output; the error holds its standard error.
func (e *Env) Kubectl(ctx context.Context, args ...string) (string, error) {
	return e.KubectlIn(ctx, nil, args...)
}

// KubectlIn is Kubectl with standard input.
func (e *Env) KubectlIn(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	var stdout, stderr strings.Builder
	cmd := e.Command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

func (e *Env) get(ctx context.Context, into any, args ...string) error {
	out, err := e.Kubectl(ctx, append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("kubectl get %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// Pods are the pods of one app that are not on their way out, or of all for "".
func (e *Env) Pods(ctx context.Context, app string) ([]corev1.Pod, error) {
	args := []string{"pods"}
	if app != "" {
		args = append(args, "-l", "app.kubernetes.io/name="+app)
	}
	var list corev1.PodList
	if err := e.get(ctx, &list, args...); err != nil {
		return nil, err
	}
	var pods []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
			pods = append(pods, p)
		}
	}
	return pods, nil
}

// Deployment reads one.
func (e *Env) Deployment(ctx context.Context, name string) (*appsv1.Deployment, error) {
	d := new(appsv1.Deployment)
	return d, e.get(ctx, d, "deployment", name)
}

// Ready says whether a pod is ready.
func Ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// WaitNodes waits until as many nodes as are named, or all of the lab's that run, are Ready.
func (e *Env) WaitNodes(ctx context.Context) error {
	var want []string
	for _, d := range e.Lab.Devices() {
		if d.ShoalPID() != 0 {
			want = append(want, d.Name)
		}
	}
	return Eventually(ctx, func() error {
		var nodes corev1.NodeList
		if err := e.get(ctx, &nodes, "nodes"); err != nil {
			return err
		}
		ready := map[string]bool{}
		for _, n := range nodes.Items {
			for _, c := range n.Status.Conditions {
				if c.Type == corev1.NodeReady {
					ready[n.Name] = c.Status == corev1.ConditionTrue
				}
			}
		}
		for _, name := range want {
			if !ready[name] {
				return fmt.Errorf("node %s is not ready", name)
			}
		}
		return nil
	})
}

// WaitNotReady waits until the control plane has noticed that a device is gone.
func (e *Env) WaitNotReady(ctx context.Context, d *dev.Device) error {
	return Eventually(ctx, func() error {
		var node corev1.Node
		if err := e.get(ctx, &node, "node", d.Name); err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("node %s is still ready", d.Name)
	})
}

// WaitPods waits until an app has exactly n pods, all ready, and returns them.
func (e *Env) WaitPods(ctx context.Context, app string, n int) ([]corev1.Pod, error) {
	var pods []corev1.Pod
	err := Eventually(ctx, func() error {
		all, err := e.Pods(ctx, app)
		if err != nil {
			return err
		}
		for i := range all {
			if !Ready(&all[i]) {
				return fmt.Errorf("pod %s is not ready", all[i].Name)
			}
		}
		if len(all) != n {
			return fmt.Errorf("%s has %d pods, want %d", app, len(all), n)
		}
		pods = all
		return nil
	})
	return pods, err
}

// Eventually repeats try until it succeeds or ctx ends, and then returns try's last error.
func Eventually(ctx context.Context, try func() error) error {
	var last error
	for {
		err := try()
		if err == nil {
			return nil
		}
		// A try that ctx cut off says less than the one before.
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
