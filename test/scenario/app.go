package scenario

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
)

const replicas = 6

func form(ctx context.Context, e *Env) (string, error) {
	if err := e.Lab.Start(ctx); err != nil {
		return "", err
	}
	if err := e.WaitNodes(ctx); err != nil {
		return "", err
	}
	return "3 servers and 2 agents, joined by tokens over mTLS, all Ready", nil
}

func deploy(ctx context.Context, e *Env) (string, error) {
	if _, err := e.Kubectl(ctx, "apply", "-f", "configs/examples/hello.yaml"); err != nil {
		return "", err
	}
	if _, err := e.Kubectl(ctx, "rollout", "status", "deployment/hello", "deployment/serial-reader", "--timeout=50s"); err != nil {
		return "", err
	}
	pods, err := e.WaitPods(ctx, "hello", replicas)
	if err != nil {
		return "", err
	}
	nodes := map[string]int{}
	for _, p := range pods {
		nodes[p.Spec.NodeName]++
	}
	return fmt.Sprintf("%d pods ready on %d devices", len(pods), len(nodes)), nil
}

func pages(ctx context.Context, e *Env) (string, error) {
	pods, err := e.WaitPods(ctx, "hello", replicas)
	if err != nil {
		return "", err
	}
	if err := e.checkPages(ctx, pods, "v1"); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d pages, each asked from a device that does not run the pod", len(pods)), nil
}

// checkPages asks each pod for its page from a device that it is not on.
func (e *Env) checkPages(ctx context.Context, pods []corev1.Pod, version string) error {
	for i := range pods {
		p := &pods[i]
		from, err := e.elsewhere(p.Spec.NodeName, i)
		if err != nil {
			return err
		}
		page, err := e.Page(ctx, from, p)
		if err != nil {
			return fmt.Errorf("page of pod %s on %s, asked from %s: %w", p.Name, p.Spec.NodeName, from.Name, err)
		}
		if page["version"] != version || page["hostname"] != p.Name || page["NODE_NAME"] != p.Spec.NodeName {
			return fmt.Errorf("page of pod %s on %s: %v, want version %s", p.Name, p.Spec.NodeName, page, version)
		}
	}
	return nil
}

// elsewhere picks a running device other than the one named.
func (e *Env) elsewhere(node string, turn int) (*dev.Device, error) {
	devices := e.Lab.Devices()
	for i := range devices {
		d := devices[(turn+i)%len(devices)]
		if d.Name != node && d.Init() != 0 {
			return d, nil
		}
	}
	return nil, fmt.Errorf("no other device runs")
}

// Page fetches a pod's page from a device and splits its lines of key=value.
func (e *Env) Page(ctx context.Context, from *dev.Device, p *corev1.Pod) (map[string]string, error) {
	if p.Status.PodIP == "" {
		return nil, fmt.Errorf("pod %s has no address", p.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return e.Lab.Dial(ctx, from, network, address)
	}
	return fetch(ctx, dial, net.JoinHostPort(p.Status.PodIP, "8080"))
}

func fetch(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), address string) (map[string]string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, body)
	}
	page := map[string]string{}
	for line := range strings.Lines(string(body)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			page[key] = value
		}
	}
	return page, nil
}

func placement(ctx context.Context, e *Env) (string, error) {
	pods, err := e.WaitPods(ctx, "serial-reader", 1)
	if err != nil {
		return "", err
	}
	reader := &pods[0]
	if reader.Spec.NodeName != serialDevice {
		return "", fmt.Errorf("pod %s runs on %s, but the serial line is on %s", reader.Name, reader.Spec.NodeName, serialDevice)
	}
	from, err := e.elsewhere(serialDevice, 0)
	if err != nil {
		return "", err
	}
	var measured string
	err = Eventually(ctx, func() error {
		page, err := e.Page(ctx, from, reader)
		if err != nil {
			return err
		}
		if measured = page["serial"]; !strings.HasPrefix(measured, "temperature=") {
			return fmt.Errorf("the page shows no measurement: %v", page)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("on %s, reads %q", reader.Spec.NodeName, measured), nil
}

func update(ctx context.Context, e *Env) (string, error) {
	if _, err := e.Kubectl(ctx, "set", "image", "deployment/hello", "hello="+dev.RegistryHost+"/hello:v2"); err != nil {
		return "", err
	}
	return e.rolled(ctx, "v2")
}

func undo(ctx context.Context, e *Env) (string, error) {
	if _, err := e.Kubectl(ctx, "rollout", "undo", "deployment/hello"); err != nil {
		return "", err
	}
	return e.rolled(ctx, "v1")
}

func (e *Env) rolled(ctx context.Context, version string) (string, error) {
	if _, err := e.Kubectl(ctx, "rollout", "status", "deployment/hello", "--timeout=50s"); err != nil {
		return "", err
	}
	pods, err := e.WaitPods(ctx, "hello", replicas)
	if err != nil {
		return "", err
	}
	if err := e.checkPages(ctx, pods, version); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d pods serve %s", len(pods), version), nil
}
