package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/scenario"
)

func itoa(n int) string { return strconv.Itoa(n) }

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// must runs kubectl, which has to succeed.
func must(t *testing.T, env *scenario.Env, ctx context.Context, args ...string) string {
	t.Helper()
	out, err := env.Kubectl(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const badDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: odd}
spec:
  replicas: %s
  %s: 1
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: registry.shoal.test/hello:v1}]}
`

// badInput checks that each mistake gets the answer that Kubernetes gives.
func badInput(t *testing.T, env *scenario.Env) {
	large := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large}\ndata: {a: " + strings.Repeat("x", 4<<20) + "}\n"
	for _, tc := range []struct {
		name, stdin string
		args        []string
		want        string
	}{
		{"malformed YAML", "a: [", []string{"apply", "-f", "-"}, "error converting YAML to JSON"},
		{"unknown field, strict", fmt.Sprintf(badDeployment, "1", "replicass"), []string{"apply", "--validate=strict", "-f", "-"}, `unknown field "spec.replicass"`},
		{"wrong type", fmt.Sprintf(badDeployment, "six", "minReadySeconds"), []string{"apply", "-f", "-"}, "cannot unmarshal string into Go struct field"},
		{"no DNS-1123 name", "", []string{"create", "configmap", "Bad_Name"}, "a lowercase RFC 1123 subdomain must consist of"},
		{"missing namespace", "", []string{"create", "configmap", "a", "-n", "nowhere"}, `namespaces "nowhere" not found`},
		{"missing object", "", []string{"get", "pod", "nobody"}, `pods "nobody" not found`},
		{"taken name", "", []string{"create", "namespace", "default"}, `namespaces "default" already exists`},
		{"unknown kind", "apiVersion: example.com/v1\nkind: Nothing\nmetadata: {name: a}\n", []string{"create", "-f", "-"}, `no matches for kind "Nothing"`},
		{"large body", large, []string{"create", "-f", "-"}, "large"},
		{"selector that selects nothing", strings.Replace(fmt.Sprintf(badDeployment, "1", "minReadySeconds"), "labels: {a: b}", "labels: {a: c}", 1), []string{"create", "-f", "-"}, "`selector` does not match template `labels`"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := env.KubectlIn(t.Context(), strings.NewReader(tc.stdin), tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				text := fmt.Sprint(err)
				t.Errorf("got %q, want %q", text[:min(len(text), 600)], tc.want)
			}
		})
	}
	t.Run("unknown field, warning", func(t *testing.T) {
		cmd := env.Command(t.Context(), "apply", "--validate=warn", "--dry-run=server", "-f", "-")
		cmd.Stdin = strings.NewReader(fmt.Sprintf(badDeployment, "1", "replicass"))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), `Warning: unknown field "spec.replicass"`) {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("a List of good objects", func(t *testing.T) {
		list := `{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "of-a-list"}}]}`
		if _, err := env.KubectlIn(t.Context(), strings.NewReader(list), "create", "-f", "-"); err != nil {
			t.Fatal(err)
		}
		must(t, env, t.Context(), "delete", "configmap", "of-a-list")
	})
	t.Run("stale resourceVersion", func(t *testing.T) { stale(t, env) })
	t.Run("nothing half done", func(t *testing.T) {
		if out := must(t, env, t.Context(), "get", "deployments,configmaps", "-o", "name"); strings.Contains(out, "odd") || strings.Contains(out, "large") {
			t.Errorf("a refused object is there: %s", out)
		}
	})
}

func stale(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must(t, env, ctx, "create", "configmap", "stale", "--from-literal=a=1")
	old := must(t, env, ctx, "get", "configmap", "stale", "-o", "json")
	must(t, env, ctx, "patch", "configmap", "stale", "-p", `{"data":{"a":"2"}}`)
	_, err := env.KubectlIn(ctx, strings.NewReader(old), "replace", "-f", "-")
	if err == nil || !strings.Contains(err.Error(), "the object has been modified; please apply your changes to the latest version") {
		t.Errorf("replacing with a stale resourceVersion: %v", err)
	}
	if got := must(t, env, ctx, "get", "configmap", "stale", "-o", "jsonpath={.data.a}"); got != "2" {
		t.Errorf("a stale write has overwritten a newer one: %q", got)
	}
	must(t, env, ctx, "delete", "configmap", "stale")
}
