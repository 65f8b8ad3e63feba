package scenario

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// tunnels uses a pod that is not on the server that kubectl asks, so that the way leads through the device's own link.
func tunnels(ctx context.Context, e *Env) (string, error) {
	pods, err := e.WaitPods(ctx, "hello", replicas)
	if err != nil {
		return "", err
	}
	pod := &pods[0]
	for i := range pods {
		if pods[i].Spec.NodeName != e.Lab.Devices()[0].Name {
			pod = &pods[i]
		}
	}
	logs, err := e.Kubectl(ctx, "logs", pod.Name)
	if err != nil {
		return "", err
	}
	if !strings.Contains(logs, "hello serves") {
		return "", fmt.Errorf("kubectl logs %s: %q", pod.Name, logs)
	}
	out, err := e.Kubectl(ctx, "exec", pod.Name, "--", "/hello", "-version")
	if err != nil {
		return "", err
	}
	if out != "v1\n" {
		return "", fmt.Errorf("kubectl exec %s: %q", pod.Name, out)
	}
	out, err = e.KubectlIn(ctx, strings.NewReader("back and forth\n"), "exec", "-i", pod.Name, "--", "/hello", "-echo")
	if err != nil {
		return "", err
	}
	if out != "back and forth\n" {
		return "", fmt.Errorf("kubectl exec -i %s: %q", pod.Name, out)
	}
	if err := e.portForward(ctx, pod); err != nil {
		return "", err
	}
	return "to pod " + pod.Name + " on " + pod.Spec.NodeName, nil
}

func (e *Env) portForward(ctx context.Context, pod *corev1.Pod) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := e.Command(ctx, "port-forward", pod.Name, ":8080")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		cancel()
		_ = cmd.Wait()
		if err != nil {
			err = fmt.Errorf("kubectl port-forward %s: %w: %s", pod.Name, err, strings.TrimSpace(stderr.String()))
		}
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return err
	}
	// Forwarding from 127.0.0.1:40001 -> 8080
	words := strings.Fields(line)
	if len(words) < 3 {
		return fmt.Errorf("said %q", line)
	}
	page, err := fetch(ctx, new(net.Dialer).DialContext, words[2])
	if err != nil {
		return err
	}
	if page["hostname"] != pod.Name {
		return fmt.Errorf("the page is of %q", page["hostname"])
	}
	return nil
}
