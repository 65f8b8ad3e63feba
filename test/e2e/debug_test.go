package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/scenario"
)

// debug looks into a running pod from a container that is added to it: it shares the pod's network and its target's processes,
// and the pod is none the worse when it ends.
func debug(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	pods, err := env.Pods(ctx, "hello")
	if err != nil || len(pods) == 0 {
		t.Fatal(len(pods), err)
	}
	pod := pods[0].Name
	must(t, env, ctx, "debug", pod, "--image=registry.shoal.test/hello:v1", "--target=hello", "-c", "look", "--", "/hello", "-listen", ":8081")
	err = scenario.Eventually(ctx, func() error {
		out, err := env.Kubectl(ctx, "exec", pod, "-c", "look", "--", "/hello", "-show", "/proc/1/cmdline")
		if err == nil && (!strings.HasPrefix(out, "/hello") || strings.Contains(out, "8081")) {
			return errorf("the target's first process is %q", out)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[string]string{"8080": pod, "8081": pod} {
		out := must(t, env, ctx, "get", "--raw", "/api/v1/namespaces/default/pods/"+pod+":"+port+"/proxy/")
		if !strings.Contains(out, "hostname="+want) {
			t.Errorf("on port %s: %q", port, out)
		}
	}
	if out := must(t, env, ctx, "get", "--raw", "/api/v1/nodes/"+pods[0].Spec.NodeName+"/proxy/healthz"); out != "ok" {
		t.Errorf("the device says %q", out)
	}
	// Its Deployment makes a pod without it.
	must(t, env, ctx, "delete", "pod", pod)
	if _, err := env.WaitPods(ctx, "hello", len(pods)); err != nil {
		t.Fatal(err)
	}
}
