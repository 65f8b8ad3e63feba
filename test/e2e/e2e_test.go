// Package e2e tests the real binaries: devices in namespaces of their own, each with its containerd, driven by the real kubectl.
// Needs root, and what make build kubectl images makes.
package e2e

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/need"
	"github.com/shoal-edge/shoal/test/scenario"
)

// needs is what every test here needs, and a command.
func needs(t *testing.T, command string) {
	t.Helper()
	if testing.Short() {
		t.Skip("end to end: not with -short")
	}
	need.Root(t)
	need.Command(t, command)
}

// TestCluster is the main job and what builds on it, on one cluster.
func TestCluster(t *testing.T) {
	needs(t, "containerd")
	env, err := scenario.New("e2e", 1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			evidence(t, env)
		}
		if err := env.Lab.Close(); err != nil {
			t.Error(err)
		}
	}()
	steps := scenario.Steps()
	for i, step := range steps {
		if !t.Run(step.Name, func(t *testing.T) {
			text, took, err := step.Do(t.Context(), env)
			if err != nil {
				t.Fatalf("after %.1fs: %v", took.Seconds(), err)
			}
			t.Logf("%.1fs: %s", took.Seconds(), text)
		}) {
			t.Fatalf("step %d of %d does not hold", i+1, len(steps))
		}
	}
	t.Run("kubectl logs -f", func(t *testing.T) { followLogs(t, env) })
	t.Run("streams over SPDY", func(t *testing.T) { overSPDY(t, env) })
	t.Run("scale", func(t *testing.T) { scale(t, env) })
	t.Run("a unit of hardware goes to one pod", func(t *testing.T) { hardware(t, env) })
	t.Run("a configmap and a secret in a pod", func(t *testing.T) { volumes(t, env) })
	t.Run("kubectl top", func(t *testing.T) { top(t, env) })
	t.Run("server-side apply", func(t *testing.T) { serverSideApply(t, env) })
	t.Run("debug and proxy", func(t *testing.T) { debug(t, env) })
	t.Run("run, cp, attach and proxy", func(t *testing.T) { shell(t, env) })
	t.Run("drain", func(t *testing.T) { drain(t, env) })
	t.Run("bad input", func(t *testing.T) { badInput(t, env) })
	t.Run("bad start", func(t *testing.T) { badStart(t, env) })
	t.Run("observability", func(t *testing.T) { observability(t, env) })
	t.Run("the whole cluster loses power", func(t *testing.T) { powerCut(t, env) })
}

func evidence(t *testing.T, env *scenario.Env) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := env.Kubectl(ctx, "get", "nodes,pods", "-A", "-o", "wide", "--request-timeout=4s")
	t.Logf("%v\n%s", err, out)
	for _, d := range env.Lab.Devices() {
		log, err := os.ReadFile(d.ShoalLog())
		t.Logf("== %s: %v\n%s", d.Name, err, log[max(0, len(log)-3000):])
	}
}

func followLogs(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	pods, err := env.Pods(ctx, "hello")
	if err != nil || len(pods) == 0 {
		t.Fatal(len(pods), err)
	}
	pod := &pods[len(pods)-1]
	cmd := env.Command(ctx, "logs", "-f", "--tail=0", pod.Name)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
	}()
	// Ask until the follower has caught one: it may still be connecting when the first request is logged.
	for {
		if _, err := env.Page(ctx, env.Lab.Devices()[0], pod); err != nil {
			t.Fatal(err)
		}
		select {
		case line, ok := <-lines:
			if !ok || !strings.Contains(line, "msg=request") {
				t.Fatalf("followed %q, %t", line, ok)
			}
			cancel()
			for range lines { // until kubectl has ended
			}
			_ = cmd.Wait()
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// overSPDY is how clients streamed before they spoke WebSocket, which the other tests use.
func overSPDY(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	pods, err := env.Pods(ctx, "hello")
	if err != nil || len(pods) == 0 {
		t.Fatal(len(pods), err)
	}
	cmd := env.Command(ctx, "exec", "-i", pods[0].Name, "--", "/hello", "-echo")
	cmd.Env = append(cmd.Env, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false")
	cmd.Stdin = strings.NewReader("there and back")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "there and back" {
		t.Errorf("%q, %v", out, err)
	}
}

func scale(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, n := range []int{9, 6} {
		must(t, env, ctx, "scale", "deployment/hello", "--replicas", itoa(n))
		if _, err := env.WaitPods(ctx, "hello", n); err != nil {
			t.Fatal(err)
		}
	}
}

// hardware asks for a second unit of what there is one of: the pod waits, and says why.
func hardware(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, env, ctx, "scale", "deployment/serial-reader", "--replicas=2")
	err := scenario.Eventually(ctx, func() error {
		pods, err := env.Pods(ctx, "serial-reader")
		if err != nil {
			return err
		}
		waiting := 0
		for _, p := range pods {
			for _, c := range p.Status.Conditions {
				if c.Type == "PodScheduled" && c.Status == "False" && strings.Contains(c.Message, "shoal.dev/serial") {
					waiting++
				}
			}
		}
		if len(pods) != 2 || waiting != 1 {
			return errorf("%d pods, %d of them wait for the serial line", len(pods), waiting)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, env, ctx, "scale", "deployment/serial-reader", "--replicas=1")
	if _, err := env.WaitPods(ctx, "serial-reader", 1); err != nil {
		t.Fatal(err)
	}
}

const volumePod = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: mounted, labels: {app.kubernetes.io/name: mounted}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: data, persistentVolumeClaim: {claimName: data}}
  containers:
  - name: hello
    image: registry.shoal.test/hello:v1
    env:
    - {name: HELLO_SECRET, valueFrom: {secretKeyRef: {name: password, key: p}}}
    - {name: HELLO_SETTING, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    volumeMounts:
    - {name: settings, mountPath: /etc/settings}
    - {name: data, mountPath: /data}
    resources: {requests: {cpu: 10m}}
`

func volumes(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, env, ctx, "create", "configmap", "settings", "--from-literal=colour=green")
	must(t, env, ctx, "create", "secret", "generic", "password", "--from-literal=p=swordfish")
	if _, err := env.KubectlIn(ctx, strings.NewReader(volumePod), "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	pods, err := env.WaitPods(ctx, "mounted", 1)
	if err != nil {
		t.Fatal(err)
	}
	page, err := env.Page(ctx, env.Lab.Devices()[0], &pods[0])
	if err != nil || page["HELLO_SECRET"] != "swordfish" || page["HELLO_SETTING"] != "green" {
		t.Fatalf("%v, %v", page, err)
	}
	out := must(t, env, ctx, "exec", "mounted", "--", "/hello", "-show", "/etc/settings/colour")
	if out != "green" {
		t.Errorf("the mounted file holds %q", out)
	}
	if out := must(t, env, ctx, "get", "pvc", "data", "-o", "jsonpath={.status.phase}"); out != "Bound" {
		t.Errorf("the pod runs, and its claim is %s", out)
	}
	must(t, env, ctx, "patch", "pod", "mounted", "--subresource", "resize", "--patch",
		`{"spec": {"containers": [{"name": "hello", "resources": {"requests": {"cpu": "20m"}}}]}}`)
	must(t, env, ctx, "wait", "pod/mounted", "--timeout=15s", "--for=jsonpath={.status.containerStatuses[0].resources.requests.cpu}=20m")
	if out := must(t, env, ctx, "get", "pod", "mounted", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); out != "0" {
		t.Errorf("restarted %s times to have more of the processor", out)
	}
	must(t, env, ctx, "delete", "pod/mounted", "configmap/settings", "secret/password", "pvc/data")
	must(t, env, ctx, "wait", "pv", "--all", "--for=delete", "--timeout=15s") // the device has removed the folder
}

// top: what nodes and pods use is asked of the devices when somebody asks.
func top(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	nodes := strings.Split(strings.TrimSpace(must(t, env, ctx, "top", "nodes", "--no-headers")), "\n")
	if want := len(env.Lab.Devices()); len(nodes) != want {
		t.Errorf("%d of %d nodes: %q", len(nodes), want, nodes)
	}
	pods, err := env.Pods(ctx, "hello")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(must(t, env, ctx, "top", "pods", "--no-headers", "-l", "app.kubernetes.io/name=hello")), "\n")
	if len(lines) != len(pods) {
		t.Errorf("%d of %d pods: %q", len(lines), len(pods), lines)
	}
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) != 3 || !strings.HasSuffix(f[1], "m") || !strings.HasSuffix(f[2], "Mi") || f[2] == "0Mi" {
			t.Errorf("a pod that runs: %q", line)
		}
	}
}

// powerCut takes every device away and brings it back: everything is there again, by itself.
func powerCut(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, d := range env.Lab.Devices() {
		if err := env.Lab.TakeAway(d); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range env.Lab.Devices() {
		if err := env.Lab.StartDevice(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := env.WaitNodes(ctx); err != nil {
		t.Fatal(err)
	}
	// Until the devices have looked at their pods, these are shown as they were before.
	for {
		pods, err := env.WaitPods(ctx, "hello", 6)
		if err != nil {
			t.Fatal(err)
		}
		var bad []string
		for i := range pods {
			if page, err := env.Page(ctx, env.Lab.Devices()[0], &pods[i]); err != nil || page["version"] != "v2" {
				bad = append(bad, fmt.Sprintf("pod %s: %v, %v", pods[i].Name, page, err))
			}
		}
		if len(bad) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(bad)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
