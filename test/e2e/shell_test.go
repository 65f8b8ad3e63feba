package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/scenario"
)

const shellPod = `
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  containers:
  - {name: shell, image: "registry.shoal.test/busybox:1", stdin: true, command: [sh, -c, "read line; echo got $line; exec sleep 1000"]}
`

// shell works in a pod with a shell as a person does: runs it, copies files in and out, attaches to it, and reaches the API through a
// proxy on this machine.
func shell(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const image = "--image=registry.shoal.test/busybox:1"
	// Of a container that has ended before it can attach, kubectl shows the log of the last second once more.
	out := must(t, env, ctx, "run", "once", image, "--restart=Never", "--rm", "--attach", "--quiet", "--", "sh", "-c", "sleep 2; echo ran")
	if out != "ran\n" {
		t.Errorf("a pod that is run once says %q", out)
	}
	if _, err := env.KubectlIn(ctx, strings.NewReader(shellPod), "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	must(t, env, ctx, "wait", "pod/shell", "--for=condition=Ready", "--timeout=20s")

	there := filepath.Join(t.TempDir(), "there")
	data := strings.Repeat("0123456789", 30_000)
	if err := os.WriteFile(there, []byte(data), 0o640); err != nil {
		t.Fatal(err)
	}
	back := there + "-and-back"
	must(t, env, ctx, "cp", there, "shell:/tmp/file")
	must(t, env, ctx, "cp", "shell:/tmp/file", back)
	if got, err := os.ReadFile(back); err != nil || string(got) != data {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(data), err)
	}

	attach := env.Command(ctx, "attach", "-i", "shell")
	stdin, err := attach.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := attach.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := attach.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "got hello\n" {
		t.Errorf("attached, the pod says %q, %v", line, err)
	}
	_ = attach.Process.Kill()
	_ = attach.Wait()

	throughProxy(ctx, t, env)
	must(t, env, ctx, "delete", "pod/shell", "--grace-period=1")
}

// throughProxy asks the API through kubectl proxy, which brings the certificate.
func throughProxy(ctx context.Context, t *testing.T, env *scenario.Env) {
	socket := filepath.Join(t.TempDir(), "proxy")
	proxy := env.Command(ctx, "proxy", "--unix-socket="+socket)
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = proxy.Process.Kill()
		_ = proxy.Wait()
	}()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	err := scenario.Eventually(ctx, func() error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/api/v1/namespaces/default/pods/shell", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
		if err != nil || !strings.Contains(string(body), `"name":"shell"`) {
			return errorf("%s: %w: %.200s", response.Status, err, body)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// drain empties a device and gives it back. Its pods are started elsewhere.
func drain(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before, err := env.Pods(ctx, "hello")
	if err != nil || len(before) == 0 {
		t.Fatal(len(before), err)
	}
	node := before[0].Spec.NodeName
	must(t, env, ctx, "drain", node, "--disable-eviction", "--force", "--timeout=40s")
	after, err := env.WaitPods(ctx, "hello", len(before))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range after {
		if p.Spec.NodeName == node {
			t.Errorf("pod %s is on the drained node %s", p.Name, node)
		}
	}
	must(t, env, ctx, "uncordon", node)
}
