package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/scenario"
)

const sharedConfig = `{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, data: {colour: green, size: "1"}}`

// serverSideApply is kubectl's own way through it: what was applied by the client is taken over, differences are shown without
// a write, and what somebody else set is not overwritten unasked.
func serverSideApply(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	in := func(manifest string, args ...string) (string, error) {
		return env.KubectlIn(ctx, strings.NewReader(manifest), append(args, "-f", "-")...)
	}
	if out, err := in(sharedConfig, "create", "--dry-run=server"); err != nil || out != "configmap/shared created (server dry run)\n" {
		t.Fatalf("%q, %v", out, err)
	}
	for _, args := range [][]string{{"apply"}, {"apply", "--server-side"}} {
		if _, err := in(sharedConfig, args...); err != nil {
			t.Fatal(err)
		}
	}
	changed := strings.Replace(sharedConfig, "green", "blue", 1)
	out, err := in(changed, "diff", "--server-side")
	if err == nil || !strings.Contains(out, "+  colour: blue") {
		t.Errorf("the difference is %q, %v", out, err)
	}
	must(t, env, ctx, "patch", "configmap/shared", "--field-manager=another", "--type=merge", "-p", `{"data":{"colour":"red"}}`)
	if _, err := in(changed, "apply", "--server-side"); err == nil ||
		!strings.Contains(err.Error(), `Apply failed with 1 conflict: conflict with "another" using v1: .data.colour`) {
		t.Errorf("somebody else's field: %v", err)
	}
	if _, err := in(changed, "apply", "--server-side", "--force-conflicts"); err != nil {
		t.Fatal(err)
	}
	if out := must(t, env, ctx, "get", "configmap/shared", "-o", "jsonpath={.data.colour}"); out != "blue" {
		t.Errorf("the colour is %q", out)
	}
	must(t, env, ctx, "delete", "configmap/shared")
}
